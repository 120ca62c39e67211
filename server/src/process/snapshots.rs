//! The thread that takes snapshots, one at a time, and deletes those that are not kept.
//!
//! `core-0` asks when one is due and goes on; it hears of the end through a queue.
//!
//! **Invariant**: never more than one at a time.
//!
//! **Not here**: how one is taken ([`crate::machine::take_snapshot`]), when one is due ([`corral_engine::snapshot::schedule`]).

#![expect(clippy::disallowed_methods, reason = "this is where the thread is made")]

use super::Shared;
use crate::machine::{Ended, take_snapshot};
use corral_engine::snapshot::writer::SnapshotOptions;
use crossbeam::channel::{Receiver, Sender, bounded};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

/// The way to the thread.
pub(super) struct Snapshots {
    asked: Option<Sender<i64>>,
    ended: Receiver<Ended>,
    thread: Option<JoinHandle<()>>,
    cancel: Arc<AtomicBool>,
    busy: bool,
}

impl Snapshots {
    /// Snapshots that are known to be `damaged` do not count as kept.
    pub(super) fn start(
        shared: &Arc<Shared>,
        options: SnapshotOptions,
        damaged: Vec<PathBuf>,
    ) -> Result<Snapshots, String> {
        let (asked, inbox) = bounded::<i64>(1);
        let (outbox, ended) = bounded(1);
        let keep = shared.config.snapshots.retain;
        let cancel = Arc::new(AtomicBool::new(false));
        let (theirs, cancelled) = (shared.clone(), cancel.clone());
        let thread = std::thread::Builder::new()
            .name("snapshot".to_owned())
            .spawn(move || {
                for wall_ms in inbox {
                    let ended = take_snapshot(&options, &theirs.crossing, &damaged, keep, wall_ms, &cancelled);
                    if outbox.send(ended).is_err() {
                        return;
                    }
                    theirs.lines[0].bell.ring();
                }
            })
            .map_err(|error| format!("cannot start the snapshot thread: {error}"))?;
        Ok(Snapshots { asked: Some(asked), ended, thread: Some(thread), cancel, busy: false })
    }

    /// Asks for a snapshot. False if one is still being taken.
    pub(super) fn ask(&mut self, wall_ms: i64) -> bool {
        let asked = self.asked.as_ref().expect("present until dropped");
        let begun = !self.busy && asked.try_send(wall_ms).is_ok();
        self.busy |= begun;
        begun
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
