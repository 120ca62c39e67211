//! What the member of the ensemble does in a turn of `core-0`: requests of all cores go in, batches to the disk, what is durable and
//! voted for into the tree, and what that leads to back to the cores; now and then a snapshot is asked for.
//!
//! **Invariants**: transactions are applied under one hold of the tree's lock with the queueing of what they lead to; nobody's session
//! expires before everybody could be heard of again after a pause of this core.
//!
//! **Not here**: what is decided ([`crate::replica`]), other members ([`super::commands`]).

use super::alarm::Alarm;
use super::crossing::Crossing;
use super::links::Links;
use super::peers::Peers;
use super::port::Direct;
use super::snapshots::Ended;
use super::{Outside, Seen};
use crate::admin::report::{Lists, ReplicaReport};
use crate::budget::{Bounds, Held};
use crate::clients::delivery::Delivery;
use crate::mutation::{self, Mutation};
use crate::replica::{LogState, Now, Replica};
use crate::stages::Timeline;
use corral_engine::disk::Disk;
use corral_engine::epochs::Epochs;
use corral_engine::histogram::Histogram;
use corral_engine::snapshot;
use corral_engine::snapshot::schedule::Schedule;
use corral_engine::snapshot::writer::SnapshotOptions;
use corral_engine::tree::Change;
use corral_engine::txnlog::log::LogCounters;
use corral_engine::txnlog::{Log, LogOptions};
use corral_proto::Zxid;
use corral_proto::peer::PeerState;
use std::io::{Read, Write};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// Transactions that are applied under one hold of the tree's lock.
const APPLY: usize = 256;
/// Parcels of other cores that are taken in one turn.
const INBOX_STEP: usize = 16;
/// A log that is read for one learner has no more bytes than this: the learner holds all of it in memory before it logs anything.
const STRETCH_MAX: u64 = 256 << 20;

/// What a member is made with.
#[derive(Clone, Debug)]
pub struct MemberOptions {
    /// `tickTime`.
    pub tick: Duration,
    /// Its log.
    pub log: LogOptions,
    /// How and where snapshots are taken.
    pub snapshots: SnapshotOptions,
    /// A snapshot is taken after so many transactions, or bytes of log, at most.
    pub snapshot_after: (u64, u64),
    /// A learner is sent the log rather than a snapshot if that is at most this part of the newest snapshot's size; `None`: never.
    pub snapshot_size_factor: Option<f64>,
    /// Durable writes that take longer are warned of.
    pub slow_sync: Duration,
    /// Bytes that one piece of a snapshot from a leader may have.
    pub piece_max: usize,
    /// What others may make it hold.
    pub bounds: Bounds,
    /// For the order of nothing that matters ([`corral_engine::Tree::new`]), and for when snapshots are due.
    pub seed: u64,
}

/// The member.
pub struct Member<D: Disk, S> {
    pub(super) crossing: Arc<Crossing>,
    pub(super) options: MemberOptions,
    /// What decides.
    pub replica: Replica,
    /// `None` only while the history on the disk is replaced.
    log: Option<Log<D>>,
    pub(super) timeline: Timeline,
    pub(super) peers: Option<Peers<S>>,
    schedule: Schedule,
    alarm: Alarm,
    /// The newest transaction that was applied because it was committed, in this life and this history.
    pub(super) served: Zxid,
    /// The size of the newest snapshot.
    newest_bytes: Option<u64>,
    counted: LogCounters,
    last_turn: Duration,
    no_expiry_before: Duration,
    figures: Figures,
}

/// What is counted for [`Member::report`].
#[derive(Default)]
struct Figures {
    snapshots: Histogram,
    snapshot_failures: u64,
    slow_syncs: u64,
    sync_sum_us: u64,
    sync_max_us: u64,
}

impl<D: Disk, S: Read + Write> Member<D, S> {
    /// Of a replica and its log; `epochs` are those that were promised to the other members, if there are any.
    ///
    /// # Errors
    /// One line: the snapshots cannot be looked at.
    pub fn new(
        crossing: Arc<Crossing>,
        options: MemberOptions,
        replica: Replica,
        log: Log<D>,
        epochs: Option<Epochs>,
    ) -> Result<Member<D, S>, String> {
        let (count, bytes) = options.snapshot_after;
        let links = Links::new(options.piece_max, options.bounds.learner);
        let mut member = Member {
            crossing,
            schedule: Schedule::new(count, bytes, options.seed),
            options,
            replica,
            log: Some(log),
            timeline: Timeline::default(),
            peers: epochs.map(|epochs| Peers::new(links, epochs)),
            alarm: Alarm::default(),
            served: Zxid::ZERO,
            newest_bytes: None,
            counted: LogCounters::default(),
            last_turn: Duration::ZERO,
            no_expiry_before: Duration::ZERO,
            figures: Figures::default(),
        };
        member.look_at_snapshots()?;
        Ok(member)
    }

    /// Other ones may be in the directory than were taken here.
    fn look_at_snapshots(&mut self) -> Result<(), String> {
        let newest = snapshot::list(&self.options.snapshots.dir).map_err(|error| error.to_string())?.into_iter().next();
        let start = newest.as_ref().map_or(Zxid::ZERO, |(start, _)| *start);
        self.newest_bytes = newest.and_then(|(_, path)| Some(path.metadata().ok()?.len()));
        // What earlier lives have logged since counts, too: else the log of a server that is restarted often grows for ever.
        let bytes = self.log().bytes_after(start);
        self.schedule.restart();
        self.schedule.logged(0, bytes);
        Ok(())
    }

    /// The log.
    pub fn log(&self) -> &Log<D> {
        self.log.as_ref().expect(OPEN)
    }

    /// The disk, for the thread that sleeps in it.
    pub fn disk(&mut self) -> &mut D {
        self.log.as_mut().expect(OPEN).disk()
    }

    /// The disk begins with what it was given, because something else is to be done that takes a while.
    pub(super) fn push_writes(&mut self) {
        self.disk().push();
    }

    /// The way for requests of this core's clients.
    pub(super) fn direct(&mut self, now: Now) -> Direct<'_> {
        let log = &mut self.log.as_mut().expect(OPEN).group;
        Direct { replica: &mut self.replica, log, timeline: &mut self.timeline, now }
    }

    /// Takes what other cores sent.
    pub(super) fn take_inbox(&mut self, now: Now) {
        let crossing = self.crossing.clone();
        if !crossing.inbox.is_empty() {
            let tree = crossing.tree.read();
            let mut direct = self.direct(now);
            for _ in 0..INBOX_STEP {
                let Some(parcel) = crossing.inbox.pop() else { break };
                parcel.deliver(&crossing, &tree, &mut direct, crossing.host.uptime());
            }
        }
        if crossing.inbox_waits.swap(false, Ordering::SeqCst) {
            crossing.ring_all();
        }
    }

    /// Closes sessions that have expired.
    pub(super) fn expire(&mut self, now: Now) {
        // After a pause of this core, or of the whole machine, nobody expires before everybody could be heard of again.
        if now.uptime.saturating_sub(self.last_turn) > self.options.tick {
            self.no_expiry_before = now.uptime + self.options.tick;
        }
        self.last_turn = now.uptime;
        if self.replica.next_expiry().is_some_and(|at| at.max(self.no_expiry_before) <= now.uptime) {
            let tree = self.crossing.tree.read();
            for session in self.replica.expire(&tree, &mut self.log.as_mut().expect(OPEN).group, now) {
                tracing::info!("Expiring session {session}, timeout exceeded");
            }
        }
    }

    /// Deletes what has outlived its use.
    pub(super) fn reap(&mut self, now: Now) {
        if self.replica.next_reaping().is_some_and(|at| at <= now.uptime) {
            self.replica.reap(&self.crossing.tree.read(), &mut self.log.as_mut().expect(OPEN).group, now);
        }
    }

    /// Hands the disk what it may have.
    pub(super) fn submit(&mut self, now: Now, outside: &mut dyn Outside<D, S>) -> Result<(), String> {
        let leads = matches!(self.replica.state(), Some((PeerState::Leading, _)));
        let (replica, log) = (&mut self.replica, self.log.as_mut().expect(OPEN));
        let submitted = log.submit(now.uptime, |batch| {
            outside.saw(Seen::Logged(batch, leads));
            replica.cut(batch);
        });
        submitted.map_err(|error| error.to_string())?;
        self.alarm.look(log, now.uptime);
        replica.log_is(now.uptime, LogState { waits_since: log.waits_since(), is_full: log.is_full() });
        Ok(())
    }

    /// Whether the replica has commanded something, such as sending the learners a proposal.
    pub(super) fn has_commands(&self) -> bool {
        self.peers.is_some() && self.replica.has_commands()
    }

    /// Takes what the disk has finished. An error is final.
    pub(super) fn complete(&mut self, now: Now, outside: &mut dyn Outside<D, S>) -> Result<(), String> {
        let (figures, slow) = (&mut self.figures, self.options.slow_sync);
        let log = self.log.as_mut().expect(OPEN);
        let durable = log.complete(|took| {
            figures.sync_sum_us += took.as_micros() as u64;
            figures.sync_max_us = figures.sync_max_us.max(took.as_micros() as u64);
            if took >= slow {
                figures.slow_syncs += 1;
                tracing::warn!(
                    "fsync-ing the write ahead log in core-0 took {}ms which will adversely effect operation latency",
                    took.as_millis()
                );
            }
        });
        if let Some(durable) = durable.map_err(|error| error.to_string())? {
            outside.saw(Seen::Durable(durable.upto()));
            self.timeline.durable(durable.upto(), now.uptime);
            self.replica.durable(&mut log.group, now.uptime, durable);
        }
        self.timeline.committed(self.replica.committed(), now.uptime);
        self.crossing.durable.store(self.replica.durable_upto().0, Ordering::SeqCst);
        Ok(())
    }

    /// Applies what is committed and queues what the other cores are to be told. Returns what the worker of this core is to be told,
    /// before it reads again.
    pub(super) fn apply(&mut self, own_watches: bool, now: Now, outside: &mut dyn Outside<D, S>) -> Vec<Delivery> {
        let mut own = Vec::new();
        let crossing = self.crossing.clone();
        loop {
            let work = self.replica.has_committed() || self.replica.has_deliveries();
            // A core that is far behind makes everybody wait: its queue is bounded, and what is told must not be lost.
            if !work || !crossing.has_room() {
                return own;
            }
            let mut tree = crossing.tree.write();
            let watched = |core: usize| match core {
                0 => own_watches,
                _ => crossing.lines[core].watching.load(Ordering::Relaxed),
            };
            let anybody = (0..crossing.cores()).any(watched);
            let mut changes = Vec::new();
            let before = tree.last_applied();
            self.replica.apply(&mut tree, APPLY, now.uptime, anybody.then_some(&mut changes));
            let applied = crossing.host.uptime();
            if tree.last_applied() > before {
                self.served = tree.last_applied();
                let leads = matches!(self.replica.state(), Some((PeerState::Leading, _)));
                outside.saw(Seen::Applied(&tree, leads));
            }
            if tree.last_applied() > before || mutation::is_on(Mutation::WritesOutliveTheirRole) {
                self.timeline.applied(tree.last_applied(), applied);
            }
            let changes: Option<Arc<[Change]>> = (!changes.is_empty()).then(|| changes.into());
            let mut told = Vec::new();
            for core in 0..crossing.cores() {
                let changes = changes.as_ref().filter(|_| watched(core));
                if changes.is_none() && !self.replica.has_delivery(core) {
                    continue;
                }
                let delivery = self.replica.take_delivery(core, changes, applied);
                if core == 0 {
                    own.push(delivery);
                } else {
                    let pushed = crossing.lines[core].deliveries.push(delivery);
                    pushed.expect("there was room, and nobody else fills it");
                    told.push(core);
                }
            }
            // Whoever is woken reads the tree.
            drop(tree);
            told.into_iter().for_each(|core| crossing.host.ring(core));
        }
    }

    /// Asks for a snapshot when one is due, and lets go of the log that no kept snapshot needs.
    pub(super) fn see_to_snapshots(&mut self, now: Now, outside: &mut dyn Outside<D, S>) {
        let log = self.log.as_mut().expect(OPEN);
        let counters = log.counters();
        let bytes = counters.written_bytes - self.counted.written_bytes;
        self.schedule.logged(counters.records - self.counted.records, bytes);
        self.counted = counters;
        match outside.snapshot_ended() {
            Some(Ended::Taken { took, bytes, needless }) => {
                self.schedule.taken();
                self.newest_bytes = Some(bytes);
                self.figures.snapshots.time(took);
                needless.into_iter().for_each(|needless| log.release(needless));
            }
            Some(Ended::Failed(error)) => {
                self.figures.snapshot_failures += 1;
                let pause = self.schedule.failed(now.uptime).as_secs();
                tracing::error!(
                    "no snapshot was taken: {error}; the log is kept, so nothing is lost, but it grows. Trying again in {pause} s"
                );
            }
            Some(Ended::BrokenOff) | None => {}
        }
        let serves = self.replica.state().is_some();
        if serves && self.schedule.is_due(now.uptime) && outside.snapshot(now.wall_ms) {
            self.schedule.restart();
        }
    }

    /// Whether another turn would find more to do at once. What a turn makes possible after its time for that has passed comes in the
    /// next: a read that was held behind a write lets the `sync` behind it go, whose answer is there then.
    pub(super) fn has_work(&self, outside: &dyn Outside<D, S>) -> bool {
        // A core that was behind may have caught up, and rung, while this one was not asleep yet.
        let applies = self.replica.has_committed() || self.replica.has_deliveries();
        if mutation::is_on(Mutation::NobodyGoesOn) {
            return false;
        }
        !self.crossing.inbox.is_empty()
            || applies && !self.crossing.apply_waits.load(Ordering::SeqCst)
            || self.has_commands()
            || self.has_peer_work(outside)
    }

    /// When something has to be done even if nothing happens until then.
    pub(super) fn deadline(&self) -> Option<Duration> {
        let expiry = self.replica.next_expiry().map(|at| at.max(self.no_expiry_before));
        let (role, reaping) = (self.replica.deadline(), self.replica.next_reaping());
        // A snapshot that was due in the last turn and was not begun waits for something else: that this member serves, mostly.
        let snapshot = self.schedule.deadline().filter(|at| *at > self.last_turn);
        let deadlines = [expiry, reaping, role, self.log().deadline(), snapshot, self.alarm.deadline()];
        deadlines.into_iter().flatten().min()
    }

    /// How far back learners may be sent what is in the log.
    pub(super) fn reach(&self) -> Option<Zxid> {
        let limit = stretch_max(self.options.snapshot_size_factor?, self.newest_bytes);
        self.log().reach(limit)
    }

    /// The log is closed, because the history on the disk is about to be replaced.
    pub(super) fn close_log(&mut self, outside: &mut dyn Outside<D, S>) {
        self.log = None;
        outside.stand_still();
    }

    /// The log is another one, and counts anew.
    pub(super) fn has_log(&mut self, log: Log<D>) -> Result<(), String> {
        self.log = Some(log);
        self.look_at_snapshots()?;
        self.counted = LogCounters::default();
        Ok(())
    }

    /// True when nothing is on its way.
    pub fn is_idle(&self) -> bool {
        // Without a quorum nothing that is outstanding will ever be committed.
        let waits = self.replica.state().is_some() && self.replica.outstanding() > 0;
        self.log().is_idle() && !waits
    }

    /// What the log of a follower has to write.
    pub(super) fn backlog(&self) -> Held {
        Held { what: "backlog", bytes: self.log().group.bytes(), max: self.options.bounds.backlog }
    }

    /// What waits for each learner.
    pub(super) fn held_for_learners(&self) -> impl Iterator<Item = Held> {
        self.peers.iter().flat_map(|peers| peers.links.held())
    }

    /// The stages of writes from the log to the tree.
    pub fn timeline(&self) -> &Timeline {
        &self.timeline
    }

    /// What is counted of proposals begins anew.
    pub fn reset_counters(&mut self) {
        self.replica.reset_proposal_bytes();
    }

    /// What operators are shown; lists only if somebody wants them.
    pub fn report(&self, with_lists: bool) -> ReplicaReport {
        let tree = self.crossing.tree.read();
        let (log, figures) = (self.log(), &self.figures);
        let now = self.crossing.host.uptime();
        ReplicaReport {
            state: self.replica.state(),
            alone: self.peers.is_none(),
            zxid: tree.last_applied(),
            // As Apache's servers count: the root has two names there.
            nodes: tree.len() + 1,
            ephemerals: tree.ephemeral_count(),
            bytes: tree.bytes(),
            sessions: self.replica.sessions(),
            proposals: self.replica.outstanding(),
            proposal_bytes: self.replica.proposal_bytes(),
            differences: tree.differences(),
            lists: with_lists.then(|| Lists {
                digests: tree.past_digests().collect(),
                sessions: tree.sessions().iter().map(|(id, timeout_ms)| (*id, *timeout_ms)).collect(),
                expiries: self.replica.expiries(),
                ephemerals: tree.all_ephemerals().collect(),
            }),
            log: log.counters(),
            log_room: log.room(),
            log_backlog: self.backlog().bytes as u64,
            log_waits_ms: log.waits_since().map_or(0, |since| now.saturating_sub(since).as_millis() as u64),
            learner_queue: self.held_for_learners().map(|held| held.bytes as u64).sum(),
            histograms: log.histograms().clone(),
            slow_syncs: figures.slow_syncs,
            sync_sum_us: figures.sync_sum_us,
            sync_max_us: figures.sync_max_us,
            snapshots: figures.snapshots.clone(),
            snapshot_failures: figures.snapshot_failures,
        }
    }
}

const OPEN: &str = "the log is open, except while it is replaced";

/// Bytes of the log that are read rather than sending a snapshot: this part of the newest one's size. As with Apache, a limit of
/// nothing is none.
fn stretch_max(factor: f64, snapshot_bytes: Option<u64>) -> u64 {
    match (factor * snapshot_bytes.unwrap_or(0) as f64) as u64 {
        0 => STRETCH_MAX,
        limit => limit.min(STRETCH_MAX),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_large_snapshot_lets_more_of_the_log_be_sent_and_none_at_all_what_a_learner_can_hold() {
        assert_eq!(stretch_max(0.5, Some(1000)), 500);
        assert_eq!(
            [stretch_max(0.33, None), stretch_max(0.0, Some(1000)), stretch_max(1.0, Some(1 << 40))],
            [STRETCH_MAX; 3]
        );
    }
}
