//! What the cores of one server share: the tree, and the queues between `core-0`, which has the replica, and the others.
//!
//! A core that queues something rings the bell of the core that takes it. A core that is refused room says so first and tries again
//! ([`Crossing::inbox_waits`], [`Crossing::apply_waits`]): whoever makes room after that rings.
//!
//! **Invariants**: the tree is written by `core-0` only, and what that leads to is queued for every core before its lock is given back;
//! queues are bounded, and a full one makes the sender wait, never drop or grow.
//!
//! **Not here**: threads, bells and clocks ([`Host`] stands for them).

use crate::budget::{Budget, Held};
use crate::clients::delivery::Delivery;
use crate::requests::WriteRequest;
use crate::requests::identity::Identities;
use crate::requests::session::ConnId;
use corral_engine::Tree;
use corral_proto::{OpCode, SessionId, Xid, Zxid};
use crossbeam::queue::ArrayQueue;
use parking_lot::RwLock;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::Duration;

/// Parcels on their way to the replica, for each core. One that is refused grows until there is room.
const PARCELS: usize = 2;
/// Deliveries that a core may be behind.
const DELIVERIES: usize = 256;

/// What the cores need of whoever runs them.
pub trait Host: Send + Sync {
    /// The time since the server's start, for what is measured.
    fn uptime(&self) -> Duration;
    /// Wakes a core if it sleeps, or is about to.
    fn ring(&self, core: usize);
}

/// The tree and the queues.
pub struct Crossing {
    pub(super) host: Box<dyn Host>,
    /// Read by all cores.
    pub tree: RwLock<Tree>,
    /// The newest transaction in the log on the disk: a leader's tree may be ahead of that.
    pub(super) durable: AtomicI64,
    pub(super) inbox: ArrayQueue<Parcel>,
    /// Some core was refused room in the inbox and waits to be rung.
    pub(super) inbox_waits: AtomicBool,
    /// The replica waits until some core has taken its deliveries.
    pub(super) apply_waits: AtomicBool,
    pub(super) lines: Vec<Line>,
}

/// The way to one core.
pub(super) struct Line {
    pub(super) deliveries: ArrayQueue<Delivery>,
    /// Whether any of its connections watches anything; written under the tree's lock.
    pub(super) watching: AtomicBool,
}

impl Crossing {
    /// For so many cores.
    pub fn new(host: Box<dyn Host>, tree: Tree, cores: usize) -> Crossing {
        let line = || Line { deliveries: ArrayQueue::new(DELIVERIES), watching: AtomicBool::new(false) };
        Crossing {
            host,
            durable: AtomicI64::new(tree.last_applied().0),
            tree: RwLock::new(tree),
            inbox: ArrayQueue::new(PARCELS * cores),
            inbox_waits: AtomicBool::new(false),
            apply_waits: AtomicBool::new(false),
            lines: (0..cores).map(|_| line()).collect(),
        }
    }

    /// How many cores there are.
    pub fn cores(&self) -> usize {
        self.lines.len()
    }

    /// Whether the log on the disk has all that the tree had applied up to `upto`. The beginning of an epoch is in no log.
    pub fn is_durable(&self, upto: Zxid) -> bool {
        upto.counter() == 0 || upto.0 <= self.durable.load(Ordering::SeqCst)
    }

    /// Wakes all cores.
    pub fn ring_all(&self) {
        (0..self.cores()).for_each(|core| self.host.ring(core));
    }

    /// Hands the replica what there is for it. If it has no room, everything stays in the parcel, and the core is rung when it has.
    pub(super) fn push(&self, parcel: &mut Parcel) {
        if parcel.messages.is_empty() {
            return;
        }
        let next = Parcel::new(parcel.held.max());
        let pushed = self.inbox.push(std::mem::replace(parcel, next)).or_else(|refused| {
            self.inbox_waits.store(true, Ordering::SeqCst);
            self.inbox.push(refused)
        });
        if let Err(refused) = pushed {
            *parcel = refused;
        }
        self.host.ring(0);
    }

    /// Whether every core but `core-0` has room for a delivery. If not, this one is rung when they have.
    pub(super) fn has_room(&self) -> bool {
        let has_room = || self.lines[1..].iter().all(|line| !line.deliveries.is_full());
        if has_room() {
            return true;
        }
        self.apply_waits.store(true, Ordering::SeqCst);
        has_room()
    }

    /// A core has taken its deliveries.
    pub(super) fn made_room(&self) {
        if self.apply_waits.load(Ordering::SeqCst) && self.apply_waits.swap(false, Ordering::SeqCst) {
            self.host.ring(0);
        }
    }
}

/// What a core has for the replica, in its order: all of a run goes through the queue at once, in one piece of memory.
pub(super) struct Parcel {
    pub(super) messages: Vec<ToReplica>,
    /// Of its writes: bodies, and the reads that go along.
    pub(super) bytes: Vec<u8>,
    held: Budget,
}

impl Parcel {
    /// Nothing is in it; so many bytes should be at most.
    pub(super) fn new(max: usize) -> Parcel {
        Parcel { messages: Vec::new(), bytes: Vec::new(), held: Budget::new(max) }
    }

    /// Whether nothing more should be put in.
    pub(super) fn is_full(&self) -> bool {
        self.held.is_used_up()
    }

    /// What is in it.
    pub(super) fn held(&self) -> Held {
        self.held.of("parcel")
    }

    pub(super) fn put(&mut self, message: ToReplica) {
        self.held.hold(size_of::<ToReplica>());
        self.messages.push(message);
    }

    pub(super) fn write(&mut self, request: &WriteRequest<'_>, handed: Handed) {
        let WriteRequest { conn, session, who, xid, op, body, since, reads } = *request;
        self.bytes.extend_from_slice(body);
        self.bytes.extend_from_slice(reads);
        self.held.hold(body.len() + reads.len());
        let (who, body, reads) = (who.clone(), body.len(), reads.len());
        self.put(ToReplica::Write { conn, session, who, xid, op, since, body, reads, handed });
    }
}

/// One of them.
pub(super) enum ToReplica {
    Write {
        conn: ConnId,
        session: SessionId,
        who: Identities,
        xid: Xid,
        op: OpCode,
        since: Duration,
        /// How long its body is in [`Parcel::bytes`], and the reads behind that.
        body: usize,
        reads: usize,
        handed: Handed,
    },
    Open {
        conn: ConnId,
        timeout_ms: i32,
    },
    Renew {
        conn: ConnId,
        id: SessionId,
        password: Box<[u8]>,
        timeout_ms: i32,
    },
    Heard(Vec<SessionId>),
}

/// Where a write is when it is handed on: when that was, and what it had waited for until then.
#[derive(Clone, Copy)]
pub(super) struct Handed {
    pub(super) at: Duration,
    pub(super) waited: Duration,
}
