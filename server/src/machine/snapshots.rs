//! Taking one snapshot, and deleting those that are not kept any more.
//!
//! **Invariant**: a failed snapshot leaves the log alone, so nothing is lost by it.
//!
//! **Not here**: when one is due ([`corral_engine::snapshot::schedule`]), in which thread it is taken.

use super::crossing::Crossing;
use corral_engine::StorageError;
use corral_engine::disk::removal;
use corral_engine::restore::retain;
use corral_engine::snapshot;
use corral_engine::snapshot::writer::{SnapshotOptions, take_when};
use corral_proto::Zxid;
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

/// How a snapshot went.
pub enum Ended {
    /// It was taken.
    Taken {
        /// How long that took.
        took: Duration,
        /// Its size.
        bytes: u64,
        /// Everything up to this transaction is held by all snapshots that are kept.
        needless: Option<Zxid>,
    },
    /// It was not, for this reason.
    Failed(StorageError),
    /// It was broken off.
    BrokenOff,
}

/// Takes one, unless that is `cancel`led, and deletes all but the newest `keep`, not counting those that are known to be `damaged`. It
/// has its name when the log on the disk has all that is in it.
pub fn take_snapshot(
    options: &SnapshotOptions,
    crossing: &Crossing,
    damaged: &[PathBuf],
    keep: Option<usize>,
    wall_ms: i64,
    cancel: &AtomicBool,
) -> Ended {
    let taken = match take_when(options, &crossing.tree, wall_ms, cancel, |upto| crossing.is_durable(upto)) {
        Ok(Some(taken)) => taken,
        Ok(None) => return Ended::BrokenOff,
        Err(error) => return Ended::Failed(error),
    };
    tracing::info!(
        "Snapshotting: {} to {}: {} nodes, {} MiB, taken in {} ms",
        taken.footer.start,
        taken.path.display(),
        taken.footer.nodes,
        taken.file_bytes >> 20,
        taken.took.as_millis()
    );
    let needless = keep.and_then(|keep| match snapshot::list(&options.dir) {
        Ok(snapshots) => {
            let (old, needless) = retain(&snapshots, damaged, keep);
            for (_, path) in old {
                if let Err(error) = removal::remove(&*options.files, path) {
                    tracing::warn!("cannot delete the snapshot {}: {error}", path.display());
                }
            }
            needless
        }
        Err(error) => {
            tracing::warn!("cannot look for old snapshots: {error}");
            None
        }
    });
    Ended::Taken { took: taken.took, bytes: taken.file_bytes, needless }
}
