//! From what is on the disks to the tree that is served: the newest snapshot that checks out, and the log after it.
//!
//! 1. The newest snapshot is read; if it does not check out, the one before it, and so on.
//! 2. The log is followed from where that snapshot began; what it holds up to there is skipped, what comes later is applied. The
//!    log must reach back that far: transactions that neither hold are an error.
//! 3. The log must reach the transaction at which the snapshot's walk ended: an image that is fuzzy beyond that must not be
//!    served as if it were whole.
//!
//! What may be deleted follows from the same rules: all but the newest few snapshots, and the log that the oldest of those does
//! not need ([`retain`]).
//!
//! **Invariant**: nothing is written or deleted here.

use crate::error::StorageError;
use crate::snapshot::{self, reader};
use crate::tree::Tree;
use crate::txnlog::{Recovered, recover_after};
use corral_proto::Zxid;
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
    pub unusable: Vec<StorageError>,
}

/// How far a restore has come, for people who wait for it.
#[derive(Clone, Copy, Debug)]
pub enum Progress<'a> {
    /// A snapshot is being read.
    Snapshot(&'a Path),
    /// So many transactions of the log were applied.
    Replayed(u64),
}

/// Transactions between two reports of [`Progress::Replayed`].
const REPORT_EVERY: u64 = 1_000_000;

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
        progress(Progress::Snapshot(&path));
        match reader::load(&path, seed) {
            Ok((tree, summary)) => {
                found = Some((tree, path, summary.footer.nodes));
                break;
            }
            Err(error) => unusable.push(error),
        }
    }
    let (mut tree, snapshot) = match found {
        Some((tree, path, nodes)) => (tree, Some((path, nodes))),
        None => (Tree::new(seed), None),
    };
    let mut replayed = 0;
    let recovered = recover_after(log, tree.last_applied(), |record| {
        tree.apply(&record.entry, None);
        replayed += 1;
        if replayed % REPORT_EVERY == 0 {
            progress(Progress::Replayed(replayed));
        }
    })?;
    if let Err(why) = tree.is_whole() {
        let file = snapshot.map_or_else(|| log.to_owned(), |(path, _)| path);
        return Err(StorageError::Corrupt { file, offset: 0, why });
    }
    Ok(Restored { tree, recovered, snapshot, unusable })
}

/// What may go when the newest `keep` of `snapshots` (newest first) are kept: the others, and the log up to the transaction that is
/// returned. `None`: all of the log is needed, because there are not yet as many snapshots.
pub fn retain(snapshots: &[(Zxid, PathBuf)], keep: usize) -> (&[(Zxid, PathBuf)], Option<Zxid>) {
    match snapshots.split_at_checked(keep) {
        Some((kept, old)) => (old, kept.last().map(|(start, _)| *start)),
        None => (&[], None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_are_kept_with_the_log_that_the_oldest_of_them_needs() {
        let all: Vec<_> = [9, 7, 5, 3].map(|start| (Zxid(start), PathBuf::from(format!("{start}")))).into();
        assert_eq!(retain(&all, 3), (&all[3..], Some(Zxid(5))));
        assert_eq!(retain(&all[..3], 3), (&all[..0], Some(Zxid(5))));
        assert_eq!(retain(&all[..2], 3), (&all[..0], None), "the log from its beginning stands for the third");
        assert_eq!(retain(&[], 3), (&[][..], None));
    }
}
