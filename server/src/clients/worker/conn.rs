//! One client connection, as its worker sees it.

use super::queue::ByteQueue;
use super::reads::may_go_along;
use crate::budget::{Bounds, Budget, Held};
use crate::requests::identity::Identities;
use corral_engine::Tree;
use corral_net::split_frames;
use corral_proto::{OpCode, SessionId, Xid, Zxid};
use std::collections::VecDeque;
use std::time::Duration;

/// Reads that go along with one write.
const READS_MAX: usize = 64;

/// How far a connection has come.
#[derive(Clone, Copy, Debug)]
pub(super) enum Phase {
    /// Nothing was said yet.
    New,
    /// The session is being opened or renewed; nothing is read until then. Whether the client knows the read-only flag.
    Opening { read_only: Option<bool> },
    /// The client speaks for a session.
    Open(SessionId),
    /// Nothing more is read or answered; closed once what was said is out.
    Closing,
}

/// A request whose answer is still owed.
#[derive(Debug)]
pub(super) enum Slot {
    /// The replica has it.
    Sent {
        /// What the client calls it.
        xid: Xid,
        /// When it came.
        since: Duration,
        /// Bytes of it.
        bytes: usize,
        /// It is a read that goes along with a write.
        goes_along: bool,
    },
    /// It waits for those before it, or for room in the replica's queue, in [`Conn::frames`].
    Held {
        /// What the client calls it.
        xid: Xid,
        /// When it came.
        since: Duration,
        /// Bytes of it.
        bytes: usize,
        /// What it can do there.
        kind: Kind,
    },
}

/// What a request can do behind others of its connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// A write: it goes to the replica, and takes the reads before it along.
    Write,
    /// A `sync`: it goes to the replica.
    Sync,
    /// It can go along with a write, if what it reads is small.
    Read,
    /// Nothing.
    Other,
}

impl Kind {
    pub(super) fn is_for_replica(self) -> bool {
        matches!(self, Kind::Write | Kind::Sync)
    }
}

/// How long answers took.
#[derive(Clone, Copy, Debug, Default)]
pub struct Latencies {
    /// Answered requests.
    pub count: u64,
    /// The sum over them, in µs.
    pub sum_us: u64,
    /// The shortest, in µs.
    pub min_us: u64,
    /// The longest, in µs.
    pub max_us: u64,
}

impl Latencies {
    /// One more.
    pub(super) fn add(&mut self, us: u64) {
        *self = self.plus(&Latencies { count: 1, sum_us: us, min_us: us, max_us: us });
    }

    /// Both taken together.
    pub fn plus(&self, other: &Latencies) -> Latencies {
        let min_us = match (self.count, other.count) {
            (0, _) => other.min_us,
            (_, 0) => self.min_us,
            _ => self.min_us.min(other.min_us),
        };
        Latencies {
            count: self.count + other.count,
            sum_us: self.sum_us + other.sum_us,
            min_us,
            max_us: self.max_us.max(other.max_us),
        }
    }
}

/// What `cons` and `stat` show of a connection.
#[derive(Clone, Copy, Debug)]
pub struct ConnCounters {
    /// Requests that came.
    pub received: u64,
    /// Answers and events that went out.
    pub sent: u64,
    /// How long answers took.
    pub latency: Latencies,
    /// When the last one was given, since the server's start.
    pub last_at: Duration,
    /// How long it took, in µs.
    pub last_us: u64,
    /// The operation answered last.
    pub last_op: Option<OpCode>,
    /// Its xid.
    pub last_xid: Xid,
    /// The zxid of the newest answer; it never goes back.
    pub last_zxid: Zxid,
}

impl ConnCounters {
    pub(super) fn answered(&mut self, now: Duration, us: u64, op: OpCode, xid: Xid, zxid: Zxid) {
        self.sent += 1;
        self.last_at = now;
        self.latency.add(us);
        self.last_us = us;
        self.last_op = Some(op);
        self.last_xid = xid;
        self.last_zxid = zxid.max(self.last_zxid);
    }

    /// All begin anew but for what its client has seen.
    pub(super) fn reset(&mut self) {
        *self = ConnCounters { last_zxid: self.last_zxid, ..ConnCounters::default() };
    }
}

impl Default for ConnCounters {
    fn default() -> ConnCounters {
        ConnCounters {
            received: 0,
            sent: 0,
            latency: Latencies::default(),
            last_at: Duration::ZERO,
            last_us: 0,
            last_op: None,
            last_xid: Xid(-1),
            last_zxid: Zxid(-1),
        }
    }
}

#[derive(Debug)]
pub(super) struct Conn {
    pub(super) generation: u32,
    pub(super) phase: Phase,
    pub(super) session: Option<(SessionId, i32)>,
    /// Who the client is, as far as the requests before the next have shown.
    pub(super) who: Identities,
    /// On their way to the socket.
    pub(super) out: ByteQueue,
    /// Of the answers to writes in `out`: when the oldest was in the tree, and how many there are.
    pub(super) unsent: Option<(Duration, u64)>,
    /// Bytes that `out` may have before its requests wait.
    answers_max: usize,
    /// Bytes of events in `out` since it was last empty.
    pub(super) events: Budget,
    /// Something held could go on, but for what the client has not read.
    pub(super) waits_to_be_read: bool,
    /// Requests in their order: first those that were sent, then those that are held.
    pub(super) waiting: VecDeque<Slot>,
    /// How many of `waiting` were sent, and how many of those are reads.
    pub(super) sent: usize,
    pub(super) reads_sent: usize,
    /// The frames of those that are held.
    pub(super) frames: ByteQueue,
    pub(super) held: Budget,
    pub(super) heard: bool,
    pub(super) dirty: bool,
    pub(super) counters: ConnCounters,
}

impl Conn {
    /// Where the first held request for the replica is, if only a few reads are before it.
    fn next_for_replica(&self) -> Option<(usize, Kind)> {
        let held = self.waiting.iter().enumerate().skip(self.sent).take(READS_MAX + 1);
        let mut kinds = held.filter_map(|(at, slot)| match slot {
            Slot::Held { kind, .. } => Some((at, *kind)),
            Slot::Sent { .. } => None,
        });
        kinds.find(|(_, kind)| kind.is_for_replica())
    }

    /// Where the next held request is that may be handled: with nothing sent, the first; behind what was sent, a write, if the reads
    /// before it can go along.
    pub(super) fn next_to_go(&self, tree: &Tree) -> Option<usize> {
        if self.is_choked() || !matches!(self.phase, Phase::Open(_)) || self.sent == self.waiting.len() {
            return None;
        }
        if self.sent == 0 {
            return Some(0);
        }
        self.next_for_replica().filter(|(at, kind)| self.may_pass(tree, *at, *kind)).map(|(at, _)| at)
    }

    /// Whether a request may be sent behind what was, with what is held before the place `at`.
    pub(super) fn may_pass(&self, tree: &Tree, at: usize, kind: Kind) -> bool {
        let reads = at - self.sent;
        let goes_along = |(slot, frame): (&Slot, &[u8])| {
            matches!(slot, Slot::Held { kind: Kind::Read, .. }) && may_go_along(tree, frame)
        };
        kind.is_for_replica() && reads == 0
            || kind == Kind::Write
                && self.reads_sent + reads <= READS_MAX
                && !self.is_choked()
                && self.waiting.range(self.sent..at).zip(split_frames(self.frames.rest())).all(goes_along)
    }

    /// Marks the reads that are held before the place `at` as sent. Returns how many bytes at the front of `frames` they are, and how many
    /// of those are their own.
    pub(super) fn take_along(&mut self, at: usize) -> (usize, usize) {
        let (mut framed, mut own) = (0, 0);
        for slot in self.waiting.range_mut(self.sent..at) {
            let Slot::Held { xid, since, bytes, .. } = *slot else { unreachable!("what is sent is in front") };
            *slot = Slot::Sent { xid, since, bytes, goes_along: true };
            (framed, own) = (framed + 4 + bytes, own + bytes);
        }
        self.reads_sent += at - self.sent;
        (framed, own)
    }

    /// Bytes of its writes that are on their way.
    pub(super) fn sent_bytes(&self) -> usize {
        let bytes = |slot: &Slot| match slot {
            Slot::Sent { bytes, .. } => *bytes,
            Slot::Held { .. } => 0,
        };
        self.waiting.iter().map(bytes).sum()
    }

    /// What is held for its client.
    pub(super) fn held_for_client(&self) -> [Held; 2] {
        [self.held.of("requests"), self.events.of("events")]
    }

    /// The client does not read its answers: nothing more is done for it until it does.
    pub(super) fn is_choked(&self) -> bool {
        self.out.rest().len() >= self.answers_max
    }

    pub(super) fn new(generation: u32, who: Identities, bounds: &Bounds) -> Conn {
        Conn {
            generation,
            phase: Phase::New,
            session: None,
            who,
            out: ByteQueue::default(),
            unsent: None,
            answers_max: bounds.answers,
            events: Budget::new(bounds.events),
            waits_to_be_read: false,
            waiting: VecDeque::new(),
            sent: 0,
            reads_sent: 0,
            frames: ByteQueue::default(),
            held: Budget::new(bounds.requests),
            heard: false,
            dirty: false,
            counters: ConnCounters::default(),
        }
    }
}
