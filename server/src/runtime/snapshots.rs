//! The thread that takes snapshots, one at a time, and deletes those that are not kept.
//!
//! `core-0` asks when one is due and goes on; it hears of the end through a queue and then lets go of the log that the oldest kept
//! snapshot does not need.
//!
//! **Invariants**: never more than one at a time; a failed snapshot is reported and leaves the log alone, so nothing is lost by it.
//!
//! **Not here**: when one is due, and when one that failed is tried again ([`corral_engine::snapshot::schedule`]).

#![expect(clippy::disallowed_methods, reason = "this is where the thread is made")]

use super::Shared;
use corral_engine::StorageError;
use corral_engine::disk::removal;
use corral_engine::restore::retain;
use corral_engine::snapshot;
use corral_engine::snapshot::writer::{SnapshotOptions, take};
use corral_proto::Zxid;
use crossbeam::channel::{Receiver, Sender, bounded};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

/// How a snapshot went, for `core-0`.
pub(super) enum Ended {
    /// It was taken.
    Taken {
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

/// The way to the thread.
pub(super) struct Snapshots {
    asked: Option<Sender<i64>>,
    ended: Receiver<Ended>,
    thread: Option<JoinHandle<()>>,
    options: SnapshotOptions,
    cancel: Arc<AtomicBool>,
    busy: bool,
    /// The size of the newest one.
    newest_bytes: Option<u64>,
}

impl Snapshots {
    /// Snapshots in `dir` that are known to be `damaged` do not count as kept.
    pub(super) fn start(shared: &Arc<Shared>, dir: PathBuf, damaged: Vec<PathBuf>) -> Result<Snapshots, String> {
        let (asked, inbox) = bounded::<i64>(1);
        let (outbox, ended) = bounded(1);
        let config = shared.config.snapshots;
        let options = SnapshotOptions { dir, compression: config.compression, rate_limit: config.rate_limit };
        let cancel = Arc::new(AtomicBool::new(false));
        let (theirs, cancelled, own) = (shared.clone(), cancel.clone(), options.clone());
        let thread = std::thread::Builder::new()
            .name("snapshot".to_owned())
            .spawn(move || {
                for wall_ms in inbox {
                    let ended = one(&theirs, &own, &damaged, config.retain, wall_ms, &cancelled);
                    if outbox.send(ended).is_err() {
                        return;
                    }
                    theirs.lines[0].bell.ring();
                }
            })
            .map_err(|error| format!("cannot start the snapshot thread: {error}"))?;
        let newest_bytes = None;
        let mut snapshots =
            Snapshots { asked: Some(asked), ended, thread: Some(thread), options, cancel, busy: false, newest_bytes };
        snapshots.look().map_err(|error| error.to_string())?;
        Ok(snapshots)
    }

    /// Other ones are in the directory than were taken here.
    pub(super) fn look(&mut self) -> Result<(), StorageError> {
        let newest = snapshot::list(&self.options.dir)?.into_iter().next();
        self.newest_bytes = newest.and_then(|(_, path)| Some(path.metadata().ok()?.len()));
        Ok(())
    }

    /// The size of the newest one in bytes.
    pub(super) fn newest_bytes(&self) -> Option<u64> {
        self.newest_bytes
    }

    /// Asks for a snapshot. False if one is still being taken.
    pub(super) fn ask(&mut self, wall_ms: i64) -> bool {
        let asked = self.asked.as_ref().expect("present until dropped");
        let begun = !self.busy && asked.try_send(wall_ms).is_ok();
        self.busy |= begun;
        begun
    }

    /// How and where they are taken.
    pub(super) fn options(&self) -> SnapshotOptions {
        self.options.clone()
    }

    /// Breaks off the one that is being taken, and waits until nobody touches the files any more.
    pub(super) fn interrupt(&mut self) {
        if self.busy {
            self.cancel.store(true, Ordering::Relaxed);
            let _ = self.ended.recv();
            self.cancel.store(false, Ordering::Relaxed);
            self.busy = false;
        }
    }

    /// How the last one went, once.
    pub(super) fn ended(&mut self) -> Option<Ended> {
        let ended = self.ended.try_recv().ok()?;
        self.busy = false;
        if let Ended::Taken { bytes, .. } = &ended {
            self.newest_bytes = Some(*bytes);
        }
        Some(ended)
    }
}

impl Drop for Snapshots {
    /// One that is being taken is broken off: the log has everything.
    fn drop(&mut self) {
        self.cancel.store(true, Ordering::Relaxed);
        self.asked = None;
        while self.ended.recv().is_ok() {}
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn one(
    shared: &Shared,
    options: &SnapshotOptions,
    damaged: &[PathBuf],
    keep: Option<usize>,
    wall_ms: i64,
    cancel: &AtomicBool,
) -> Ended {
    let taken = match take(options, &shared.tree, wall_ms, cancel) {
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
                if let Err(error) = removal::remove(path) {
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
