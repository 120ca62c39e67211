//! One core's clients: its worker, and the order in which that is told of what happened and may read.
//!
//! **Invariant** (R3 of the design): a worker reads the tree only while nobody writes it, and not before it was told of everything that
//! led to what it reads.
//!
//! **Not here**: what a worker does ([`crate::clients::worker`]), sockets.

use super::crossing::{Crossing, Parcel, ToReplica};
use super::port::{Direct, Route, Timed};
use crate::budget::Held;
use crate::clients::delivery::Delivery;
use crate::clients::worker::{Worker, WorkerOptions};
use crate::mutation::{self, Mutation};
use crate::replica::Now;
use crate::stages::Stages;
use corral_engine::Tree;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// The clients of one core.
pub struct Clients {
    core: usize,
    crossing: Arc<Crossing>,
    /// For the replica, if that is on another core.
    parcel: Parcel,
    /// Their connections.
    pub worker: Worker,
    /// The stages of their writes before the log and after the tree.
    pub stages: Stages,
}

impl Clients {
    pub(super) fn new(crossing: Arc<Crossing>, options: WorkerOptions) -> Clients {
        let core = usize::from(options.core);
        let parcel = Parcel::new(options.bounds.parcel);
        Clients { core, crossing, parcel, worker: Worker::new(options), stages: Stages::default() }
    }

    /// Runs `work` with a tree that does not change meanwhile and the replica at hand. The worker was told of everything: that is
    /// done as it is applied ([`Clients::deliver`]).
    pub(super) fn with_replica<R>(
        &mut self,
        direct: Direct<'_>,
        work: impl FnOnce(&mut Worker, &Tree, &mut Timed<'_>) -> R,
    ) -> R {
        let tree = self.crossing.tree.read();
        let mut port = Timed::new(&self.crossing, &mut self.stages, Route::Direct(direct));
        let result = work(&mut self.worker, &tree, &mut port);
        self.says_whether_it_watches();
        result
    }

    /// Runs `work` with a tree that does not change meanwhile and the way to the replica on another core, after the worker was told of
    /// everything.
    pub(super) fn with_queue<R>(&mut self, now: Now, work: impl FnOnce(&mut Worker, &Tree, &mut Timed<'_>) -> R) -> R {
        self.hand_over();
        let tree = self.crossing.tree.read();
        let mut port = Timed::new(&self.crossing, &mut self.stages, Route::Queue(&mut self.parcel));
        let catch_up = |worker: &mut Worker, port: &mut Timed<'_>| {
            while let Some(delivery) = self.crossing.lines[self.core].deliveries.pop() {
                worker.deliver(now.uptime, &delivery);
            }
            worker.retry(&tree, port, now.uptime);
            self.crossing.made_room();
        };
        let is_told_first = !mutation::is_on(Mutation::CoresReadBeforeTheyAreTold);
        if is_told_first {
            catch_up(&mut self.worker, &mut port);
        }
        let result = work(&mut self.worker, &tree, &mut port);
        if !is_told_first {
            catch_up(&mut self.worker, &mut port);
        }
        self.says_whether_it_watches();
        drop(tree);
        self.hand_over();
        result
    }

    /// Hands the replica on another core what there is for it, as far as it has room.
    pub(super) fn hand_over(&mut self) {
        self.crossing.push(&mut self.parcel);
    }

    /// Tells the worker of the replica's core what was just applied, and goes on with what waited for that.
    pub(super) fn deliver(&mut self, direct: Direct<'_>, deliveries: &[Delivery], now: Now) {
        if !deliveries.is_empty() {
            self.with_replica(direct, |worker, tree, port| {
                deliveries.iter().for_each(|delivery| worker.deliver(now.uptime, delivery));
                worker.retry(tree, port, now.uptime);
            });
        }
    }

    fn says_whether_it_watches(&self) {
        let watches = !self.worker.watches().is_empty();
        self.crossing.lines[self.core].watching.store(watches, Ordering::Relaxed);
    }

    /// Whether the worker has something to go on with, or to be told.
    pub(super) fn has_work(&self) -> bool {
        let goes_on = self.worker.has_ready() || self.worker.is_stalled() && !self.parcel.is_full();
        goes_on || self.has_deliveries()
    }

    /// What is held for its clients.
    pub(super) fn held(&self) -> impl Iterator<Item = Held> {
        self.worker.held().chain([self.parcel.held()])
    }

    pub(super) fn has_deliveries(&self) -> bool {
        !self.crossing.lines[self.core].deliveries.is_empty()
    }

    /// Tells the replica on another core who was heard of.
    pub(super) fn queue_heard(&mut self) {
        if !self.parcel.is_full() {
            let heard = self.worker.take_heard();
            if !heard.is_empty() {
                self.parcel.put(ToReplica::Heard(heard));
            }
        }
    }
}
