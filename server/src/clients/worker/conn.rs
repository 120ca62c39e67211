//! One client connection, as its worker sees it.

use super::reads::may_go_along;
use crate::budget::{Bounds, Budget, Held};
use crate::requests::identity::Identities;
use crate::requests::{ReadBefore, is_write};
use corral_engine::Tree;
use corral_net::put_frame;
use corral_proto::jute::Decoder;
use corral_proto::request::RequestHeader;
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
    /// It waits for those before it, or for room in the replica's queue.
    Held {
        /// The request, header included.
        frame: Box<[u8]>,
        /// When it came.
        since: Duration,
    },
}

/// Bytes on their way to a socket.
#[derive(Debug, Default)]
pub struct Out {
    bytes: Vec<u8>,
    written: usize,
}

/// A send buffer that grew beyond this many bytes is given back once it is empty.
const KEEP: usize = 64 << 10;

impl Out {
    /// Appends a frame.
    pub fn put_frame(&mut self, body: impl FnOnce(&mut Vec<u8>)) {
        put_frame(&mut self.bytes, body);
    }

    /// Appends bytes that are framed already.
    pub fn extend(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// What has not been written yet.
    pub fn rest(&self) -> &[u8] {
        &self.bytes[self.written..]
    }

    /// `n` more bytes were written.
    pub fn wrote(&mut self, n: usize) {
        self.written += n;
        if self.written >= KEEP && self.written * 2 >= self.bytes.len() {
            // A client that reads slower than it asks never empties the buffer: what it has read must go all the same.
            self.bytes.drain(..self.written);
            self.written = 0;
        }
        if self.written == self.bytes.len() {
            self.written = 0;
            self.bytes.clear();
            if self.bytes.capacity() > KEEP {
                self.bytes = Vec::new();
            }
        }
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
    /// How long the last one took, in µs.
    pub last_us: u64,
    /// The operation answered last.
    pub last_op: Option<OpCode>,
    /// Its xid.
    pub last_xid: Xid,
    /// The zxid of the newest answer; it never goes back.
    pub last_zxid: Zxid,
}

impl ConnCounters {
    pub(super) fn answered(&mut self, us: u64, op: OpCode, xid: Xid, zxid: Zxid) {
        self.sent += 1;
        self.latency.add(us);
        self.last_us = us;
        self.last_op = Some(op);
        self.last_xid = xid;
        self.last_zxid = zxid.max(self.last_zxid);
    }
}

impl Default for ConnCounters {
    fn default() -> ConnCounters {
        ConnCounters {
            received: 0,
            sent: 0,
            latency: Latencies::default(),
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
    pub(super) out: Out,
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
    pub(super) held: Budget,
    pub(super) heard: bool,
    pub(super) dirty: bool,
    pub(super) counters: ConnCounters,
}

impl Conn {
    /// Where the first held write is, if only a few reads are before it.
    fn next_write(&self) -> Option<usize> {
        let held = self.waiting.iter().enumerate().skip(self.sent).take(READS_MAX + 1);
        let is_write = |slot: &Slot| matches!(slot, Slot::Held { frame, .. } if super::write_op(frame).is_some());
        held.filter(|(_, slot)| is_write(slot)).map(|(at, _)| at).next()
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
        self.next_write().filter(|at| match &self.waiting[*at] {
            Slot::Held { frame, .. } => self.may_pass(tree, *at, frame),
            Slot::Sent { .. } => unreachable!("what is sent is in front"),
        })
    }

    /// Whether a request may be sent behind what was, with what is held before the place `at`.
    pub(super) fn may_pass(&self, tree: &Tree, at: usize, frame: &[u8]) -> bool {
        let Some((_, op)) = super::write_op(frame) else { return false };
        let goes_along = |slot: &Slot| matches!(slot, Slot::Held { frame, .. } if may_go_along(tree, frame));
        let reads = at - self.sent;
        reads == 0
            || is_write(op)
                && self.reads_sent + reads <= READS_MAX
                && !self.is_choked()
                && self.waiting.range(self.sent..at).all(goes_along)
    }

    /// Takes the reads that are held before the place `at`: they are sent, in their places.
    pub(super) fn take_reads(&mut self, at: usize) -> Vec<ReadBefore> {
        let read = |slot: &mut Slot| {
            let Slot::Held { frame, since } = slot else { unreachable!("what is sent is in front") };
            let header = RequestHeader::decode(&mut Decoder::new(frame)).expect("it may go along");
            let (xid, op) = (header.xid, OpCode::from_code(header.op).expect("it may go along"));
            let (frame, since) = (std::mem::take(frame), *since);
            *slot = Slot::Sent { xid, since, bytes: frame.len(), goes_along: true };
            ReadBefore { xid, op, frame }
        };
        self.reads_sent += at - self.sent;
        self.waiting.range_mut(self.sent..at).map(read).collect()
    }

    /// The opposite of [`Conn::take_reads`], as long as they are not counted as sent.
    pub(super) fn put_back_reads(&mut self, reads: Vec<ReadBefore>) {
        self.reads_sent -= reads.len();
        for (slot, ReadBefore { frame, .. }) in self.waiting.range_mut(self.sent..).zip(reads) {
            let Slot::Sent { since, .. } = *slot else { unreachable!("it was taken") };
            *slot = Slot::Held { frame, since };
        }
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
            out: Out::default(),
            unsent: None,
            answers_max: bounds.answers,
            events: Budget::new(bounds.events),
            waits_to_be_read: false,
            waiting: VecDeque::new(),
            sent: 0,
            reads_sent: 0,
            held: Budget::new(bounds.requests),
            heard: false,
            dirty: false,
            counters: ConnCounters::default(),
        }
    }
}
