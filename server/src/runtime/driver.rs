//! What `core-0` does besides serving clients: it drives the replica, the log and the tree.
//!
//! A step, in this order: take what other cores sent; expire sessions; hear the other members; hand the disk the next batch, and
//! the learners the same; take what the disk has finished; apply what that committed and queue what every core is to be told, before
//! the tree's lock is given back.

use super::alarm::Alarm;
use super::peers::{Membership, OPEN, Peers};
use super::snapshots::{Ended, Snapshots};
use super::{Shared, port};
use crate::admin::report::ReplicaReport;
use crate::delivery::Delivery;
use crate::replica::{LogState, Now, Replica, ReplicaOptions};
use crate::session;
use crate::stages::Timeline;
use crate::store::Store;
use crate::zab::Ensemble;
use crate::zab::election::Patience;
use crate::zab::history::History;
use crate::zab::message::Standing;
use corral_engine::disk::device::Device;
use corral_engine::histogram::Histogram;
use corral_engine::snapshot::schedule::Schedule;
use corral_engine::tree::Change;
use corral_engine::txnlog::log::LogCounters;
use corral_engine::txnlog::{Log, LogOptions, Recovered};
use corral_proto::{ServerId, Zxid};
use mio::Registry;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// Transactions that are applied under one hold of the tree's lock.
const APPLY: usize = 256;
/// Messages of other cores that are taken in one step.
const INBOX_STEP: usize = 1024;

/// The replica, its log, and the store whose locks it holds.
pub(super) struct Driver {
    pub(super) replica: Replica,
    /// `None` only while the history on the disk is replaced.
    pub(super) log: Option<Log<Device>>,
    pub(super) log_options: LogOptions,
    pub(super) timeline: Timeline,
    pub(super) peers: Option<Peers>,
    schedule: Schedule,
    alarm: Alarm,
    pub(super) snapshots: Snapshots,
    snapshot_size_factor: Option<f64>,
    counted: LogCounters,
    snapshot_times: Histogram,
    snapshot_failures: u64,
    pub(super) store: Store,
    tick: Duration,
    last_step: Duration,
    no_expiry_before: Duration,
    slow: Duration,
    slow_syncs: u64,
    sync_sum_us: u64,
    sync_max_us: u64,
}

impl Driver {
    pub(super) fn new(
        shared: &Arc<Shared>,
        registry: &Registry,
        store: Store,
        recovered: &Recovered,
        membership: Option<Membership>,
        seed: u64,
    ) -> Result<Driver, String> {
        let config = &shared.config;
        let log_options = LogOptions {
            dir: store.log_dir.clone(),
            mode: store.mode.clone(),
            segment_bytes: config.log.segment_bytes,
            pipeline_depth: config.log.pipeline_depth as usize,
            group_commit_delay: Duration::from_micros(config.log.group_commit_delay_us.into()),
        };
        let log = open_log(shared, &log_options, recovered)?;
        let me = ServerId(config.server_id.into());
        let now = shared.now();
        let ensemble = config.members.as_ref().map(|members| members.ensemble.clone());
        let mut history = History::new();
        let mut standing = Standing { accepted: 0, current: 0, last: recovered.last };
        let mut is_lost = false;
        if let Some(Membership { epochs, newest, .. }) = &membership {
            newest.iter().for_each(|(zxid, record)| history.push(*zxid, record));
            (standing.accepted, standing.current) = (epochs.accepted(), epochs.current());
            is_lost = epochs.is_lost();
        }
        let options = ReplicaOptions {
            me,
            ensemble: ensemble.unwrap_or_else(|| Arc::new(Ensemble::of_equals([me]))),
            tick: Duration::from_millis(config.tick_ms.into()),
            init_limit: config.init_limit,
            sync_limit: config.sync_limit,
            patience: Patience::default(),
            leader_serves: config.leader_serves,
            is_lost,
            first_session: session::first_id(config.server_id.max(1), now.wall_ms),
            seed,
            cores: shared.lines.len(),
        };
        let replica = Replica::new(options, standing, history, &mut shared.tree.write(), now.uptime);
        let peers = membership.map(|membership| Peers::start(shared, registry, membership, seed)).transpose()?;
        let schedule = Schedule::new(config.snapshots.count, config.snapshots.log_bytes, seed);
        let snapshots = Snapshots::start(shared, store.snapshot_dir.clone(), store.damaged_snapshots.clone())?;
        Ok(Driver {
            replica,
            log: Some(log),
            log_options,
            timeline: Timeline::default(),
            peers,
            schedule,
            alarm: Alarm::default(),
            snapshots,
            snapshot_size_factor: config.snapshot_size_factor,
            counted: LogCounters::default(),
            snapshot_times: Histogram::default(),
            snapshot_failures: 0,
            store,
            tick: Duration::from_millis(config.tick_ms.into()),
            last_step: now.uptime,
            no_expiry_before: Duration::ZERO,
            slow: Duration::from_millis(config.log.slow_sync_ms),
            slow_syncs: 0,
            sync_sum_us: 0,
            sync_max_us: 0,
        })
    }

    /// Takes what other cores sent, and closes sessions that have expired.
    pub(super) fn take_inbox(&mut self, shared: &Shared, now: Now) {
        if !shared.inbox.is_empty() {
            let tree = shared.tree.read();
            let log = &mut self.log.as_mut().expect(OPEN).group;
            let (replica, timeline) = (&mut self.replica, &mut self.timeline);
            let mut direct = port::Direct { replica, log, timeline, now };
            let mut at = shared.uptime();
            for _ in 0..INBOX_STEP {
                let Some(message) = shared.inbox.pop() else { break };
                at = message.deliver(shared, &tree, &mut direct, at);
            }
        }
        if shared.inbox_waits.swap(false, Ordering::SeqCst) {
            shared.ring_all();
        }
        // After a pause of this thread, or of the whole machine, nobody expires before everybody could be heard of again.
        if now.uptime.saturating_sub(self.last_step) > self.tick {
            self.no_expiry_before = now.uptime + self.tick;
        }
        self.last_step = now.uptime;
        if self.replica.next_expiry().is_some_and(|at| at.max(self.no_expiry_before) <= now.uptime) {
            let tree = shared.tree.read();
            for session in self.replica.expire(&tree, &mut self.log.as_mut().expect(OPEN).group, now) {
                tracing::info!("Expiring session {session}, timeout exceeded");
            }
        }
    }

    /// Hands the disk what it may have.
    pub(super) fn submit(&mut self, now: Now) -> Result<(), String> {
        let (replica, log) = (&mut self.replica, self.log.as_mut().expect(OPEN));
        log.submit(now.uptime, |batch| replica.cut(batch)).map_err(|error| error.to_string())?;
        self.alarm.look(log, now.uptime);
        replica.log_is(now.uptime, LogState { waits_since: log.waits_since(), is_full: log.is_full() });
        Ok(())
    }

    /// Whether the replica has commanded something, such as sending the learners a proposal.
    pub(super) fn has_commands(&self) -> bool {
        self.peers.is_some() && self.replica.has_commands()
    }

    /// Takes what the disk has finished. An error is final.
    pub(super) fn complete(&mut self, now: Now) -> Result<(), String> {
        let (mut sum, mut max, mut slow) = (0, 0, 0);
        let threshold = self.slow;
        let log = self.log.as_mut().expect(OPEN);
        let durable = log.complete(|took| {
            sum += took.as_micros() as u64;
            max = max.max(took.as_micros() as u64);
            if took >= threshold {
                slow += 1;
                tracing::warn!(
                    "fsync-ing the write ahead log in core-0 took {}ms which will adversely effect operation latency",
                    took.as_millis()
                );
            }
        });
        self.sync_sum_us += sum;
        self.sync_max_us = self.sync_max_us.max(max);
        self.slow_syncs += slow;
        if let Some(durable) = durable.map_err(|error| error.to_string())? {
            self.replica.durable(&mut log.group, now.uptime, durable);
            self.timeline.durable(durable.upto(), now.uptime);
        }
        self.timeline.committed(self.replica.committed(), now.uptime);
        Ok(())
    }

    /// Asks for a snapshot when one is due, and lets go of the log that no kept snapshot needs.
    pub(super) fn see_to_snapshots(&mut self, now: Now) {
        let log = self.log.as_mut().expect(OPEN);
        let counters = log.counters();
        let bytes = counters.written_bytes - self.counted.written_bytes;
        self.schedule.logged(counters.records - self.counted.records, bytes);
        self.counted = counters;
        match self.snapshots.ended() {
            Some(Ended::Taken { took, needless, .. }) => {
                self.schedule.taken();
                self.snapshot_times.time(took);
                needless.into_iter().for_each(|needless| log.release(needless));
            }
            Some(Ended::Failed(error)) => {
                self.snapshot_failures += 1;
                let pause = self.schedule.failed(now.uptime).as_secs();
                tracing::error!(
                    "no snapshot was taken: {error}; the log is kept, so nothing is lost, but it grows. Trying again in {pause} s"
                );
            }
            Some(Ended::BrokenOff) | None => {}
        }
        let serves = self.replica.state().is_some();
        if serves && self.schedule.is_due(now.uptime) && self.snapshots.ask(now.wall_ms) {
            self.schedule.restart();
        }
    }

    /// Applies what is committed and queues what the other cores are to be told. Returns what `core-0`'s own worker is to be
    /// told; the caller hands it over before it lets the worker read.
    pub(super) fn apply(&mut self, shared: &Shared, own_watches: bool, now: Now) -> Vec<Delivery> {
        let mut own = Vec::new();
        loop {
            let work = self.replica.has_committed() || self.replica.has_deliveries();
            if !work {
                return own;
            }
            // A core that is far behind makes everybody wait: its queue is bounded, and what is told must not be lost.
            let room = |shared: &Shared| shared.lines[1..].iter().all(|line| !line.deliveries.is_full());
            if !room(shared) {
                shared.apply_waits.store(true, Ordering::SeqCst);
                if !room(shared) {
                    return own;
                }
            }
            let mut tree = shared.tree.write();
            let watched = |core: usize| match core {
                0 => own_watches,
                _ => shared.lines[core].watching.load(Ordering::Relaxed),
            };
            let anybody = (0..shared.lines.len()).any(watched);
            let mut changes = Vec::new();
            self.replica.apply(&mut tree, APPLY, now.uptime, anybody.then_some(&mut changes));
            let applied = shared.uptime();
            self.timeline.applied(tree.last_applied(), applied);
            let changes: Option<Arc<[Change]>> = (!changes.is_empty()).then(|| changes.into());
            for core in 0..shared.lines.len() {
                let changes = changes.as_ref().filter(|_| watched(core));
                if changes.is_none() && !self.replica.has_delivery(core) {
                    continue;
                }
                let delivery = self.replica.take_delivery(core, changes, applied);
                if core == 0 {
                    own.push(delivery);
                } else {
                    let line = &shared.lines[core];
                    line.deliveries.push(delivery).expect("there was room, and nobody else fills it");
                    line.bell.ring();
                }
            }
        }
    }

    /// Whether a step would find more to do at once. What a step makes possible after its turn for that has passed comes in the next:
    /// a read that was held behind a write lets the `sync` behind it go, whose answer is there then.
    pub(super) fn has_more(&self, shared: &Shared) -> bool {
        // A core that was behind may have caught up, and rung, while this one was not asleep yet.
        let applies = self.replica.has_committed() || self.replica.has_deliveries();
        applies && !shared.apply_waits.load(Ordering::SeqCst) || self.has_commands() || self.has_peer_work()
    }

    /// When something has to be done even if nothing happens until then.
    pub(super) fn deadline(&self) -> Option<Duration> {
        let expiry = self.replica.next_expiry().map(|at| at.max(self.no_expiry_before));
        let log = self.log.as_ref().expect(OPEN);
        let role = self.replica.deadline();
        let deadlines = [expiry, role, log.deadline(), self.schedule.deadline(), self.alarm.deadline()];
        deadlines.into_iter().flatten().min()
    }

    /// How far back learners may be sent what is in the log.
    pub(super) fn reach(&self) -> Option<Zxid> {
        let limit = super::stretches::limit(self.snapshot_size_factor?, self.snapshots.newest_bytes());
        self.log.as_ref().expect(OPEN).reach(limit)
    }

    /// The log is another one, and counts anew.
    pub(super) fn restart_counting(&mut self) {
        self.counted = LogCounters::default();
        self.schedule.restart();
    }

    /// The disk, for the thread that sleeps in it.
    pub(super) fn disk(&mut self) -> &mut Device {
        self.log.as_mut().expect(OPEN).disk()
    }

    /// True when nothing is on its way.
    pub(super) fn is_idle(&self) -> bool {
        // Without a quorum nothing that is outstanding will ever be committed.
        let waits = self.replica.state().is_some() && self.replica.outstanding() > 0;
        self.log.as_ref().expect(OPEN).is_idle() && !waits
    }

    pub(super) fn report(&self, shared: &Shared) -> ReplicaReport {
        let tree = shared.tree.read();
        let log = self.log.as_ref().expect(OPEN);
        ReplicaReport {
            state: self.replica.state(),
            alone: self.peers.is_none(),
            zxid: tree.last_applied(),
            nodes: tree.len(),
            ephemerals: tree.ephemeral_count(),
            bytes: tree.bytes(),
            sessions: self.replica.sessions(),
            proposals: self.replica.outstanding(),
            log: log.counters(),
            log_room: log.room(),
            log_backlog: log.group.bytes() as u64,
            log_waits_ms: log.waits_since().map_or(0, |since| shared.uptime().saturating_sub(since).as_millis() as u64),
            learner_queue: self.peers.as_ref().map_or(0, |peers| peers.held() as u64),
            histograms: log.histograms().clone(),
            slow_syncs: self.slow_syncs,
            sync_sum_us: self.sync_sum_us,
            sync_max_us: self.sync_max_us,
            snapshots: self.snapshot_times.clone(),
            snapshot_failures: self.snapshot_failures,
        }
    }
}

/// Opens the log where recovery has found its end.
pub(super) fn open_log(
    shared: &Arc<Shared>,
    options: &LogOptions,
    recovered: &Recovered,
) -> Result<Log<Device>, String> {
    let device = Device::open(&options.mode).map_err(|error| format!("cannot open the log's device: {error}"))?;
    let waker = shared.clone();
    let wake = Arc::new(move || waker.lines[0].bell.ring());
    Log::open(options, device, recovered, wake).map_err(|error| error.to_string())
}
