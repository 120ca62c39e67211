//! One core's clients: its worker, and the order in which that is told of what happened and may read.
//!
//! **Invariant** (R3 of the design): a worker reads the tree only while nobody writes it, and not before it was told of everything that
//! led to what it reads.
//!
//! **Not here**: what a worker does ([`crate::clients::worker`]), sockets.

use super::crossing::{Crossing, ToReplica};
use super::port::{Direct, Route, Timed};
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
    /// Their connections.
    pub worker: Worker,
    /// The stages of their writes before the log and after the tree.
    pub stages: Stages,
}

impl Clients {
    pub(super) fn new(crossing: Arc<Crossing>, options: WorkerOptions) -> Clients {
        let core = usize::from(options.core);
        Clients { core, crossing, worker: Worker::new(options), stages: Stages::default() }
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
        let tree = self.crossing.tree.read();
        let mut port = Timed::new(&self.crossing, &mut self.stages, Route::Queue);
        let catch_up = |worker: &mut Worker, port: &mut Timed<'_>| {
            while let Some(delivery) = self.crossing.lines[self.core].deliveries.pop() {
                worker.deliver(now.uptime, &delivery);
            }
            worker.retry(&tree, port, now.uptime);
            self.crossing.made_room();
        };
        if mutation::is_on(Mutation::CoresReadBeforeTheyAreTold) {
            let result = work(&mut self.worker, &tree, &mut port);
            catch_up(&mut self.worker, &mut port);
            return result;
        }
        catch_up(&mut self.worker, &mut port);
        let result = work(&mut self.worker, &tree, &mut port);
        self.says_whether_it_watches();
        result
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
        self.worker.has_ready() || self.has_deliveries()
    }

    pub(super) fn has_deliveries(&self) -> bool {
        !self.crossing.lines[self.core].deliveries.is_empty()
    }

    /// Tells the replica on another core who was heard of.
    pub(super) fn queue_heard(&mut self) {
        let heard = self.worker.take_heard();
        if !heard.is_empty()
            && let Err(ToReplica::Heard(heard)) = self.crossing.push(ToReplica::Heard(heard))
        {
            self.worker.heard_still(heard);
        }
    }
}
