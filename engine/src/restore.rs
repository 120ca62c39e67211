//! From what is on the disks to the tree that is served: the newest snapshot that checks out, and the log after it.
//!
//! 1. The newest snapshot is read; if it does not check out, the one before it, and so on.
//! 2. The log is followed from where that snapshot began; what it holds up to there is skipped, what comes later is applied. The
//!    log must reach back that far: transactions that neither hold are an error.
//!    Only one that is *damaged* is passed over: one that cannot be read, or that a newer version wrote, is an error.
//! 3. The log must reach the transaction at which the snapshot's walk ended: an image that is fuzzy beyond that must not be
//!    served as if it were whole.
//!    Nor may the log end before the transaction that the snapshot is named after, unless there is nothing in it: its end is missing.
//! 4. A snapshot was begun only when the log had everything up to the transaction that it is named after: a restore that ends before
//!    the newest name has lost something, whatever is left.
//!
//! What may be deleted follows from the same rules: all but the newest few snapshots, and the log that the oldest of those does
//! not need ([`retain`]).
//!
//! **Invariant**: nothing is written or deleted here.

use crate::error::StorageError;
use crate::snapshot;
use crate::snapshot::reader::{self, Done};
use crate::tree::Tree;
use crate::txnlog::{Recovered, recover_after};
use corral_proto::{TxnEntry, Zxid};
use crossbeam::channel::bounded;
use std::collections::VecDeque;
use std::path::{Path, PathBuf};

/// A tree that may be served, and where it came from.
#[derive(Debug)]
pub struct Restored {
    /// The tree.
    pub tree: Tree,
    /// Where the log ends.
    pub recovered: Recovered,
    /// The snapshot that it began with, and how many nodes that had.
    pub snapshot: Option<(PathBuf, u64)>,
    /// Snapshots that did not check out, and why.
    pub unusable: Vec<(PathBuf, StorageError)>,
    /// The newest transactions of the log that were applied, at least [`NEWEST`] if there were as many and they have
    /// no more than [`NEWEST_BYTES`].
    pub newest: Vec<(Zxid, Vec<u8>)>,
}

/// Transactions that a restore keeps at hand for other members.
pub const NEWEST: usize = 500;

/// Bytes of them that it keeps at most, but for the last piece that was read.
pub const NEWEST_BYTES: usize = 64 << 20;

/// How far a restore has come, for people who wait for it.
#[derive(Clone, Copy, Debug)]
pub enum Progress<'a> {
    /// So much of a snapshot has been read. Told before the first byte, and after each block.
    Snapshot(&'a Path, Done),
    /// So many transactions of the log were applied.
    Replayed(u64),
}

/// Restores the tree from the snapshots in `snapshots` and the log in `log`.
///
/// # Errors
/// [`StorageError::Corrupt`] when something that was acknowledged cannot be restored; [`StorageError::Io`] when the system fails.
pub fn restore(
    snapshots: &Path,
    log: &Path,
    seed: u64,
    mut progress: impl FnMut(Progress<'_>),
) -> Result<Restored, StorageError> {
    let mut unusable = Vec::new();
    let mut found = None;
    for (_, path) in snapshot::list(snapshots)? {
        progress(Progress::Snapshot(&path, Done::default()));
        match reader::load(&path, seed, |done| progress(Progress::Snapshot(&path, done))) {
            Ok((tree, summary)) => {
                found = Some((tree, path, summary.footer.nodes));
                break;
            }
            Err(error @ StorageError::Corrupt { .. }) => unusable.push((path, error)),
            Err(error) => return Err(error),
        }
    }
    let (mut tree, snapshot) = match found {
        Some((tree, path, nodes)) => (tree, Some((path, nodes))),
        None => (Tree::new(seed), None),
    };
    let from = tree.last_applied();
    let (recovered, newest) = replay(log, &mut tree, |replayed| progress(Progress::Replayed(replayed)))?;
    if let Err(why) = tree.is_whole() {
        let file = snapshot.map_or_else(|| log.to_owned(), |(path, _)| path);
        return Err(StorageError::Corrupt { file, offset: 0, why });
    }
    if recovered.log_last > Zxid::ZERO && is_before(recovered.log_last, from) {
        let end = recovered.used.last().map_or_else(|| log.to_owned(), |(path, _)| path.clone());
        let why = format!(
            "the log ends with transaction {}, but a snapshot has all up to {from}: the end of the log is missing, with whatever was \
             acknowledged after that snapshot",
            recovered.log_last
        );
        return Err(StorageError::Corrupt { file: end, offset: recovered.end.offset.into(), why });
    }
    for (path, error) in &unusable {
        let StorageError::Corrupt { file, offset, why } = error else { unreachable!("nothing else is passed over") };
        if snapshot::start(path).is_some_and(|start| is_before(recovered.last, start)) {
            let why = format!("{why}, and without it the history ends with transaction {}", recovered.last);
            return Err(StorageError::Corrupt { file: file.clone(), offset: *offset, why });
        }
    }
    Ok(Restored { tree, recovered, snapshot, unusable, newest })
}

/// Whether a history that ends with `last` cannot be all of one that has had a snapshot of `start`. One of the beginning of an epoch
/// stands for all that was committed before, which may end anywhere in earlier epochs.
fn is_before(last: Zxid, start: Zxid) -> bool {
    match start.counter() {
        0 => last == Zxid::ZERO && start > last,
        _ => last < start,
    }
}

/// Transactions that are read and checked ahead of those that are applied: as many bytes a piece, and as many pieces.
const AHEAD: (usize, usize) = (256 << 10, 8);

/// The newest transactions that were applied.
type Newest = Vec<(Zxid, Vec<u8>)>;

/// Applies the log after what is in the tree. Another thread reads and checks it meanwhile.
fn replay(log: &Path, tree: &mut Tree, mut progress: impl FnMut(u64)) -> Result<(Recovered, Newest), StorageError> {
    let from = tree.last_applied();
    std::thread::scope(|scope| {
        let (ahead, pieces) = bounded::<Piece>(AHEAD.1);
        let reader = scope.spawn(move || {
            let mut piece = Piece::default();
            let recovered = recover_after(log, from, |record| {
                piece.bytes.extend_from_slice(record.bytes);
                piece.ends.push(piece.bytes.len());
                if piece.bytes.len() >= AHEAD.0 {
                    let _ = ahead.send(std::mem::take(&mut piece));
                }
            });
            let _ = ahead.send(piece);
            recovered
        });
        let mut replayed = 0;
        let mut kept: VecDeque<Piece> = VecDeque::new();
        for piece in pieces {
            let mut begin = 0;
            for end in &piece.ends {
                let entry = TxnEntry::decode(&piece.bytes[begin..*end]).expect("it was decoded when it was read");
                tree.apply(&entry, None);
                begin = *end;
            }
            replayed += piece.ends.len() as u64;
            progress(replayed);
            kept.push_back(piece);
            while kept.len() > 1 {
                let others: usize = kept.iter().skip(1).map(|piece| piece.ends.len()).sum();
                let bytes: usize = kept.iter().map(|piece| piece.bytes.len()).sum();
                if others < NEWEST && bytes <= NEWEST_BYTES {
                    break;
                }
                kept.pop_front();
            }
        }
        let recovered = reader.join().expect("it does not panic")?;
        Ok((recovered, kept.iter().flat_map(Piece::entries).collect()))
    })
}

/// Transactions one after the other, and where each ends.
#[derive(Default)]
struct Piece {
    bytes: Vec<u8>,
    ends: Vec<usize>,
}

impl Piece {
    fn entries(&self) -> impl Iterator<Item = (Zxid, Vec<u8>)> + '_ {
        let begins = [0].into_iter().chain(self.ends.iter().copied());
        begins.zip(&self.ends).map(|(begin, end)| {
            let bytes = &self.bytes[begin..*end];
            let entry = TxnEntry::decode(bytes).expect("it was decoded when it was read");
            (entry.header.zxid, bytes.to_vec())
        })
    }
}

/// What may go when `keep` snapshots are kept: of `snapshots` (newest first) all that are older than the newest `keep` that are not
/// known to be `damaged`, and the log up to the transaction that is returned. `None`: all of the log is needed, because there are
/// not yet as many.
pub fn retain<'a>(
    snapshots: &'a [(Zxid, PathBuf)],
    damaged: &[PathBuf],
    keep: usize,
) -> (&'a [(Zxid, PathBuf)], Option<Zxid>) {
    let sound = snapshots.iter().enumerate().filter(|(_, (_, path))| !damaged.contains(path));
    match sound.take(keep).enumerate().find(|(count, _)| count + 1 == keep) {
        Some((_, (oldest, (start, _)))) => (&snapshots[oldest + 1..], Some(*start)),
        None => (&[], None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn snapshots(starts: &[i64]) -> Vec<(Zxid, PathBuf)> {
        starts.iter().map(|start| (Zxid(*start), PathBuf::from(format!("{start}")))).collect()
    }

    #[test]
    fn zookeeper_2574_the_newest_are_kept_with_the_log_that_the_oldest_of_them_needs() {
        let all = snapshots(&[9, 7, 5, 3]);
        assert_eq!(retain(&all, &[], 3), (&all[3..], Some(Zxid(5))));
        assert_eq!(retain(&all[..3], &[], 3), (&all[..0], Some(Zxid(5))));
        assert_eq!(retain(&all[..2], &[], 3), (&all[..0], None), "the log from its beginning stands for the third");
        assert_eq!(retain(&[], &[], 3), (&[][..], None));
    }

    #[test]
    fn zookeeper_3231_damaged_snapshots_do_not_count_as_kept() {
        let all = snapshots(&[9, 7, 5, 3, 1]);
        let damaged = ["7", "3"].map(PathBuf::from);
        assert_eq!(retain(&all, &damaged, 2), (&all[3..], Some(Zxid(5))));
        assert_eq!(retain(&all, &damaged, 3), (&all[5..], Some(Zxid(1))));
        assert_eq!(retain(&all, &damaged, 4), (&all[..0], None));
    }
}
