//! Cutting a history back: a member that has logged what no quorum ever had gives it up when its leader says so.
//!
//! Nothing that was written is overwritten. The log goes on in a new segment whose first batch names as its predecessor the batch
//! *before* the one that is cut, and holds again what is kept of that. Recovery takes the later segment where two batches claim the
//! same predecessor, so once that batch is durable, everything behind the cut is out of the chain for ever; before that, nothing
//! has changed.
//!
//! Snapshots that hold anything of what is given up are deleted *first*: one that survived would bring it back (Apache ZooKeeper
//! loads it again after such a cut; the divergence was reproduced on 3.8.0 and 3.9.5). That is safe only if what remains suffices
//! for a restore, which is made sure of before anything is touched.
//!
//! A snapshot of the beginning of an epoch counts as one of the last transaction before: whoever serves in an epoch has begun with
//! all that was committed before it, and a leader that has nothing of that epoch, nor of a later one, ends where that began.
//!
//! **Invariants**: a crash at any moment leaves the old history or the cut one; what was cut off never
//! comes back; afterwards a restore ends at the last transaction up to the one that was asked for.
//!
//! **Not here**: who decides on it; the tree, which has to be restored again.

use crate::adoption;
use crate::disk::publish::sync_dir;
use crate::disk::{removal, round_up};
use crate::error::StorageError;
use crate::snapshot::format::Compression;
use crate::snapshot::writer::SnapshotOptions;
use crate::snapshot::{self, reader};
use crate::tree::Tree;
use crate::txnlog::format::FIRST_BATCH;
use crate::txnlog::recovery::follow;
use crate::txnlog::workshop::Workshop;
use crate::txnlog::{Group, LogOptions, Position, Recovered};
use corral_proto::Zxid;
use parking_lot::RwLock;
use rand::SeedableRng;
use rand::rngs::SmallRng;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// What was given up.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Truncated {
    /// Transactions of the log.
    pub records: u64,
    /// Snapshots.
    pub snapshots: Vec<PathBuf>,
    /// The snapshot that remains begins here (zero if there is none): no earlier than that a restore ends.
    pub base: Zxid,
}

/// What of the log is kept of the batch that is cut.
struct Cut {
    prev: Position,
    prev_crc: u32,
    prev_last: Zxid,
    kept: Vec<(Zxid, Vec<u8>)>,
}

/// Cuts the history in `snapshots` and in the log of `options` back, so that its last transaction is the last one up to `upto`.
/// Nobody else may use the directories meanwhile; the segment that is written is of the usual size.
///
/// # Errors
/// [`StorageError::Refused`] when it cannot be cut back that far, because every snapshot holds more and the log does not reach back
/// to its beginning: nothing was changed then. [`StorageError::Corrupt`] and [`StorageError::Io`] as for a restore.
pub fn truncate(snapshots: &Path, options: &LogOptions, upto: Zxid) -> Result<Truncated, StorageError> {
    let (base, needless) = judge_snapshots(snapshots, upto)?;
    let mut cut: Option<Cut> = None;
    let mut beyond = 0;
    let followed = follow(&options.dir, base, |batch, record| {
        let zxid = record.entry.header.zxid;
        if zxid > upto {
            beyond += 1;
            return;
        }
        let cut = match &mut cut {
            Some(cut) if cut.prev == batch.prev && cut.prev_last == batch.prev_last => cut,
            cut => cut.insert(Cut {
                prev: batch.prev,
                prev_crc: batch.prev_crc,
                prev_last: batch.prev_last,
                kept: Vec::new(),
            }),
        };
        cut.kept.push((zxid, record.bytes.to_vec()));
    });
    let recovered = followed.map_err(|error| match error {
        StorageError::Corrupt { file, why, .. } if base == Zxid::ZERO && !needless.is_empty() => {
            StorageError::Refused {
                path: file,
                why: format!("the history cannot be cut back to {upto}: every snapshot holds more, and {why}"),
            }
        }
        error => error,
    })?;
    for path in &needless {
        removal::remove(&*options.files, path).map_err(StorageError::io("delete the snapshot", path))?;
        // The newest first, and each for good: an older one alone is always right.
        sync_dir(&*options.files, snapshots)?;
    }
    if beyond > 0 {
        match cut {
            Some(cut) => go_on(options, &recovered, cut)?,
            None => start_over(snapshots, options, base)?,
        }
    }
    Ok(Truncated { records: beyond, snapshots: needless, base })
}

/// The transaction that the newest snapshot holds that holds nothing beyond `upto` (zero if there is none), and all those that
/// do, newest first.
fn judge_snapshots(snapshots: &Path, upto: Zxid) -> Result<(Zxid, Vec<PathBuf>), StorageError> {
    let mut needless = Vec::new();
    for (start, path) in snapshot::list(snapshots)? {
        if snapshot::holds_more(start, upto) {
            needless.push(path);
            continue;
        }
        match reader::read(&path, |_| Ok(())) {
            Ok(summary) if summary.footer.end <= upto.max(start) => return Ok((start, needless)),
            // One that is damaged is of no use, but it may be damaged only as far as this version can tell.
            Ok(_) | Err(StorageError::Corrupt { .. }) => needless.push(path),
            Err(error) => return Err(error),
        }
    }
    Ok((Zxid::ZERO, needless))
}

/// Writes what is kept of the batch that is cut into a new segment. When that is durable, the cut is made.
fn go_on(options: &LogOptions, recovered: &Recovered, cut: Cut) -> Result<(), StorageError> {
    let mut workshop = Workshop::new(options, SmallRng::from_os_rng());
    // What the new segment is built on must be on the disk first.
    workshop.adopt(&Recovered { unused: Vec::new(), ..recovered.clone() })?;
    let mut group = Group::new(cut.prev_last, options.mode.block, Duration::ZERO);
    cut.kept.iter().for_each(|(zxid, bytes)| group.append_encoded(*zxid, bytes, Duration::ZERO));
    let batch = group.take(Duration::ZERO).expect("something of the batch is kept");
    assert!(group.is_empty(), "a part of a batch is no more than one");
    let room = round_up(FIRST_BATCH as usize + batch.padded_len()) as u64;
    let segment = workshop.make(recovered.next_segment, options.segment_bytes.max(room))?;
    let at = Position { segment: segment.header.number, offset: FIRST_BATCH };
    let placed = batch.place(segment.header.salt, at, cut.prev, cut.prev_crc, cut.prev);
    let written = options.files.write(&segment.file, &placed.bytes, FIRST_BATCH.into());
    let synced = written.and_then(|()| options.files.sync(&segment.file));
    synced.map_err(StorageError::io("write the log", &segment.path))
}

/// Nothing of the log is kept: the snapshot that remains is the whole history, or nothing is. The segments cannot go one by one: behind
/// what is part of the history they may hold what an earlier cut has replaced, and that would come back. So the snapshot is taken over
/// as one from a leader is, at once.
fn start_over(snapshots: &Path, log: &LogOptions, base: Zxid) -> Result<(), StorageError> {
    if base > Zxid::ZERO {
        return adoption::keep_only(&*log.files, snapshots, &log.dir, base);
    }
    let (dir, files) = (snapshots.to_owned(), log.files.clone());
    let options = SnapshotOptions { files, dir, compression: Compression::None, rate_limit: 0 };
    adoption::adopt(&options, &log.dir, &RwLock::new(Tree::new(0)), 0)
}
