//! Where the time of a write goes: the stages of its way, and how long each write spent in each.
//!
//! A stage begins where the one before it ended, so that the stages of a write add up to its time in the server: from the system
//! call that read the request to the one that wrote the answer.
//!
//! | stage | from … to |
//! |---|---|
//! | `decode` | the end of the request before it, or of the read → its frame and header are known. Its body is decoded as it is sequenced. Not counted for requests that had to wait, or that follow reads in the same chunk: those times are part of `queue` |
//! | `queue` | read, but behind earlier requests of its chunk or its connection, or on its way to `core-0` |
//! | `sequence` | checked against the tree and what is outstanding, made a transaction, encoded into the open batch |
//! | `log` | waiting for its batch to be cut, and for the disk, until it and everything before it is durable here |
//! | `quorum` | until enough members have it (in an ensemble of one: nothing) |
//! | `apply` | until it is in the tree, with what shares its hold of the lock |
//! | `reply` | until the system call that wrote the answer has returned |
//!
//! **Invariants**: no clock here, the times are given; memory is bounded by the proposals that are on their way.
//!
//! **Not here**: what the device does ([`corral_engine::txnlog::log::LogHistograms`]), how it is printed ([`crate::admin`]).

use corral_engine::histogram::{Histogram, nanos};
use corral_proto::Zxid;
use std::collections::VecDeque;
use std::time::Duration;

/// The stages, in their order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the table above has them")]
pub enum Stage {
    Decode,
    Queue,
    Sequence,
    Log,
    Quorum,
    Apply,
    Reply,
}

impl Stage {
    /// All of them.
    pub const ALL: [Stage; 7] =
        [Stage::Decode, Stage::Queue, Stage::Sequence, Stage::Log, Stage::Quorum, Stage::Apply, Stage::Reply];

    /// As metrics and reports call it.
    pub const fn name(self) -> &'static str {
        match self {
            Stage::Decode => "decode",
            Stage::Queue => "queue",
            Stage::Sequence => "sequence",
            Stage::Log => "log",
            Stage::Quorum => "quorum",
            Stage::Apply => "apply",
            Stage::Reply => "reply",
        }
    }
}

/// How long writes spent in each stage, in ns.
#[derive(Clone, Debug, Default)]
pub struct Stages([Histogram; 7]);

impl Stages {
    /// `count` writes that spent `time` each in `stage`.
    pub fn record(&mut self, stage: Stage, time: Duration, count: u64) {
        self.0[stage as usize].record_n(nanos(time), count);
    }

    /// Adds what another core has counted.
    pub fn add(&mut self, other: &Stages) {
        self.0.iter_mut().zip(&other.0).for_each(|(mine, theirs)| mine.add(theirs));
    }

    /// One of them.
    pub fn of(&self, stage: Stage) -> &Histogram {
        &self.0[stage as usize]
    }
}

/// The writes between being sequenced and being applied.
#[derive(Debug, Default)]
pub struct Timeline {
    stages: Stages,
    writes: VecDeque<OnItsWay>,
    /// How many at the front of `writes` are durable here, and how many are committed.
    durable: usize,
    committed: usize,
}

#[derive(Debug)]
struct OnItsWay {
    zxid: Zxid,
    /// When its last stage ended.
    since: Duration,
}

impl Timeline {
    /// A write was sequenced as `zxid` at `now`, which took `sequence`, after it had waited for `queue`.
    pub fn sequenced(&mut self, zxid: Zxid, queue: Duration, sequence: Duration, now: Duration) {
        self.stages.record(Stage::Queue, queue, 1);
        self.stages.record(Stage::Sequence, sequence, 1);
        self.writes.push_back(OnItsWay { zxid, since: now });
    }

    /// Everything up to `upto` is durable here.
    pub fn durable(&mut self, upto: Zxid, now: Duration) {
        for write in self.writes.range_mut(self.durable..).take_while(|write| write.zxid <= upto) {
            self.stages.record(Stage::Log, now.saturating_sub(write.since), 1);
            write.since = now;
            self.durable += 1;
        }
    }

    /// Everything up to `upto` is committed.
    pub fn committed(&mut self, upto: Zxid, now: Duration) {
        // A quorum of others may have been faster than the disk here; what the disk still does then is in nobody's way.
        self.durable(upto, now);
        let mut alike = Alike::default();
        for write in self.writes.range_mut(self.committed..).take_while(|write| write.zxid <= upto) {
            alike.count(&mut self.stages, Stage::Quorum, now.saturating_sub(write.since));
            write.since = now;
            self.committed += 1;
        }
        alike.flush(&mut self.stages, Stage::Quorum);
    }

    /// Everything up to `upto` is in the tree.
    pub fn applied(&mut self, upto: Zxid, now: Duration) {
        let mut alike = Alike::default();
        while let Some(write) = self.writes.pop_front_if(|write| write.zxid <= upto) {
            assert!(self.committed > 0, "what is applied is committed");
            self.committed -= 1;
            self.durable -= 1;
            alike.count(&mut self.stages, Stage::Apply, now.saturating_sub(write.since));
        }
        alike.flush(&mut self.stages, Stage::Apply);
    }

    /// Those who waited for the writes that are on their way are gone: this member does not lead or follow any more as it did.
    pub fn forget(&mut self) {
        self.writes.clear();
        (self.durable, self.committed) = (0, 0);
    }

    /// What was counted.
    pub fn stages(&self) -> &Stages {
        &self.stages
    }
}

/// Writes that went through a stage together have the same time there: they are recorded at once.
#[derive(Default)]
struct Alike {
    time: Duration,
    count: u64,
}

impl Alike {
    fn count(&mut self, stages: &mut Stages, stage: Stage, time: Duration) {
        if time != self.time {
            self.flush(stages, stage);
            self.time = time;
        }
        self.count += 1;
    }

    fn flush(&mut self, stages: &mut Stages, stage: Stage) {
        if self.count > 0 {
            stages.record(stage, self.time, std::mem::take(&mut self.count));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn us(us: u64) -> Duration {
        Duration::from_micros(us)
    }

    #[test]
    fn the_stages_of_a_write_add_up_to_its_time() {
        let mut timeline = Timeline::default();
        timeline.sequenced(Zxid(1), us(3), us(2), us(10));
        timeline.sequenced(Zxid(2), us(4), us(1), us(11));
        timeline.durable(Zxid(1), us(110));
        timeline.durable(Zxid(2), us(211));
        timeline.committed(Zxid(2), us(250));
        timeline.applied(Zxid(2), us(253));
        let sum = |stage| timeline.stages().of(stage).summary().sum / 1000.0;
        let all: f64 = Stage::ALL.into_iter().map(sum).sum();
        // From 5 and from 6, each until 253.
        assert!((all - 495.0).abs() < 5.0, "{all}");
        assert!((sum(Stage::Log) - 300.0).abs() < 3.0 && (sum(Stage::Quorum) - 179.0).abs() < 2.0);
        assert!(timeline.writes.is_empty());
        assert_eq!((timeline.durable, timeline.committed), (0, 0));
    }

    #[test]
    fn a_quorum_may_be_faster_than_the_own_disk() {
        let mut timeline = Timeline::default();
        timeline.sequenced(Zxid(1), us(0), us(1), us(10));
        timeline.committed(Zxid(1), us(20));
        timeline.applied(Zxid(1), us(21));
        timeline.durable(Zxid(1), us(90));
        let counts = Stage::ALL.map(|stage| timeline.stages().of(stage).count());
        assert_eq!(counts, [0, 1, 1, 1, 1, 1, 0]);
    }

    /// A leader that lost its followers, and was elected again, met a write of its first time as leader in the tree before it was
    /// committed in the second: the process ended.
    #[test]
    fn writes_of_an_earlier_role_are_not_waited_for() {
        let mut timeline = Timeline::default();
        (1..=3).for_each(|zxid| timeline.sequenced(Zxid(zxid), us(0), us(1), us(10)));
        timeline.committed(Zxid(1), us(20));
        timeline.forget();
        timeline.applied(Zxid(3), us(30));
        timeline.sequenced(Zxid(4), us(0), us(1), us(40));
        timeline.committed(Zxid(4), us(50));
        timeline.applied(Zxid(4), us(60));
        assert_eq!(timeline.stages().of(Stage::Apply).count(), 1);
    }

    #[test]
    fn what_went_through_a_stage_together_is_counted_one_by_one() {
        let mut timeline = Timeline::default();
        (1..=100).for_each(|zxid| timeline.sequenced(Zxid(zxid), us(0), us(1), us(zxid as u64)));
        timeline.committed(Zxid(60), us(500));
        timeline.applied(Zxid(60), us(600));
        timeline.committed(Zxid(100), us(700));
        timeline.applied(Zxid(100), us(900));
        let apply = timeline.stages().of(Stage::Apply).summary();
        assert_eq!(apply.count, 100);
        assert!((apply.sum / 1e3 - (60.0 * 100.0 + 40.0 * 200.0)).abs() < 140.0, "{apply:?}");
    }
}
