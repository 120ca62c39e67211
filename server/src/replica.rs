//! One member of the ensemble, as a state machine: requests, durability and time go in; log records, commits and answers come
//! out. It opens no socket and no file, reads no clock and no random source.
//!
//! The way of a write through it: [`Replica::request`] decides it against the tree and what is still outstanding, gives it a
//! zxid and encodes it into the log's open batch. When the batch is cut, [`Replica::cut`] keeps slices of its records. When it
//! is durable, [`Replica::durable`] counts that as this member's vote. What a quorum has voted for is applied by
//! [`Replica::apply`], in order, from those slices, and answered.
//!
//! **Invariants**: applied ≤ committed ≤ durable on a quorum; proposals are applied in the order of their zxids, each once;
//! a session's requests are ordered as they came; an answer is made only when its transaction is in the tree.
//!
//! **Not here**: threads, the disk ([`corral_engine::txnlog::Log`]), connections ([`crate::worker`]).

use crate::delivery::{Delivery, Item};
use crate::pipeline::WriteRequest;
use crate::pipeline::answer::answer;
use crate::pipeline::sequencer::{Place, Sequencer};
use crate::session::{self, ConnId, Sessions};
use crate::zab::{Ensemble, Leader};
use bytes::Bytes;
use corral_engine::Tree;
use corral_engine::tree::Change;
use corral_engine::txnlog::group::PlacedBatch;
use corral_engine::txnlog::{Durable, Group};
use corral_net::put_frame;
use corral_proto::{Jute, OpCode, ReplyHeader, ServerId, SessionId, Txn, TxnEntry, TxnHeader, Xid, Zxid};
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

/// The time of a step: both clocks, read once by whoever drives the replica.
#[derive(Clone, Copy, Debug)]
pub struct Now {
    /// Since the server's start; never goes back. Everything that is measured or waited for uses it.
    pub uptime: Duration,
    /// Milliseconds since the epoch, for the times that clients see.
    pub wall_ms: i64,
}

/// What a replica is made with.
#[derive(Clone, Debug)]
pub struct ReplicaOptions {
    /// Which member this is.
    pub me: ServerId,
    /// All members; of a standalone server, itself.
    pub ensemble: Arc<Ensemble>,
    /// The unit of session expiry (`tickTime`).
    pub tick: Duration,
    /// The first session id to give ([`session::first_id`]).
    pub first_session: SessionId,
    /// For the order of nothing that matters ([`Sequencer::new`]).
    pub seed: u64,
    /// How many workers there are.
    pub cores: usize,
}

/// The state machine.
pub struct Replica {
    leader: Leader,
    sequencer: Sequencer,
    sessions: Sessions,
    proposals: VecDeque<Proposal>,
    /// Proposals at the front of `proposals` whose records are known: those of batches that were cut.
    cut: usize,
    committed: Zxid,
    outbox: Vec<Delivery>,
}

/// Ordered, not yet applied.
struct Proposal {
    zxid: Zxid,
    from: Option<Asker>,
    /// Its bytes in the log's memory, once its batch was cut.
    record: Bytes,
}

#[derive(Clone, Copy)]
struct Asker {
    conn: ConnId,
    xid: Xid,
    op: OpCode,
}

impl Replica {
    /// Leads on from what `tree` holds. Sessions that were open in an earlier life get a full timeout.
    pub fn new(options: &ReplicaOptions, tree: &Tree, now: Duration) -> Replica {
        let last = tree.last_applied();
        let mut sessions = Sessions::new(options.tick, options.first_session);
        for (id, timeout_ms) in tree.sessions() {
            sessions.open(*id, millis(*timeout_ms), None, now);
        }
        Replica {
            leader: Leader::new(options.me, options.ensemble.clone(), last),
            sequencer: Sequencer::new(options.seed),
            sessions,
            proposals: VecDeque::new(),
            cut: 0,
            committed: last,
            outbox: (0..options.cores).map(|_| Delivery::default()).collect(),
        }
    }

    /// A client wants something changed. A request in the name of a session that is gone, closing, or spoken for by another
    /// connection is dropped: that connection is being closed.
    pub fn request(&mut self, tree: &Tree, log: &mut Group, now: Now, request: &WriteRequest<'_>) {
        if !self.sessions.speaks_for(request.conn, request.session) {
            return;
        }
        self.sessions.touch(request.session, now.uptime);
        if request.op == OpCode::CloseSession {
            self.sessions.start_closing(request.session);
        }
        let asker = Asker { conn: request.conn, xid: request.xid, op: request.op };
        let zxid = self.leader.propose();
        let header = TxnHeader { session: request.session, cxid: request.xid, zxid, time_ms: now.wall_ms };
        let place = Place { zxid, session: request.session };
        self.sequencer.decide(tree, place, request.op, request.body, |txn| {
            log.append(&TxnEntry { header, txn }, now.uptime);
        });
        self.proposals.push_back(Proposal { zxid, from: Some(asker), record: Bytes::new() });
    }

    /// A client without a session wants one.
    pub fn open_session(&mut self, log: &mut Group, now: Now, conn: ConnId, timeout_ms: i32) {
        let zxid = self.leader.propose();
        let session = self.sessions.next_id();
        let header = TxnHeader { session, cxid: Xid(0), zxid, time_ms: now.wall_ms };
        log.append(&TxnEntry { header, txn: Txn::CreateSession { timeout_ms } }, now.uptime);
        let asker = Asker { conn, xid: Xid(0), op: OpCode::CreateSession };
        self.proposals.push_back(Proposal { zxid, from: Some(asker), record: Bytes::new() });
    }

    /// A client wants to go on with its session on this connection. Its former connection is closed, but only once the
    /// password was found right (Apache closes it before, so that anybody can).
    pub fn renew_session(&mut self, now: Now, conn: ConnId, id: SessionId, password: &[u8], timeout_ms: i32) {
        let known = password == session::password(id);
        let renewed = known.then(|| self.sessions.renew(id, millis(timeout_ms), conn, now.uptime)).flatten();
        if let Some(Some(before)) = renewed {
            self.tell(before, Item::Close { conn: before });
        }
        self.tell(conn, Item::Session { conn, opened: renewed.map(|_| (id, timeout_ms)) });
    }

    /// Something was heard of these sessions.
    pub fn touch(&mut self, sessions: &[SessionId], now: Duration) {
        sessions.iter().for_each(|session| self.sessions.touch(*session, now));
    }

    /// Closes the sessions that have expired, and names them.
    pub fn tick(&mut self, tree: &Tree, log: &mut Group, now: Now) -> Vec<SessionId> {
        let expired = self.sessions.expired(now.uptime);
        for session in &expired {
            assert!(self.sessions.start_closing(*session), "a closing session expires no more");
            let zxid = self.leader.propose();
            let header = TxnHeader { session: *session, cxid: Xid(0), zxid, time_ms: now.wall_ms };
            self.sequencer.close_session(tree, Place { zxid, session: *session }, |txn| {
                log.append(&TxnEntry { header, txn }, now.uptime);
            });
            self.proposals.push_back(Proposal { zxid, from: None, record: Bytes::new() });
        }
        expired
    }

    /// The earliest moment at which [`Replica::tick`] would do anything.
    pub fn deadline(&self) -> Option<Duration> {
        self.sessions.deadline()
    }

    /// A batch of proposals is on its way to the disk; its records are kept as slices of the very memory that is written.
    pub fn cut(&mut self, batch: &PlacedBatch) {
        for (zxid, record) in batch.entries() {
            let proposal = &mut self.proposals[self.cut];
            assert!(proposal.zxid == zxid, "batches hold the proposals in their order");
            proposal.record = record;
            self.cut += 1;
        }
    }

    /// This member's log has everything up to `durable`: that is its vote.
    pub fn durable(&mut self, durable: Durable) {
        self.leader.ack_own(durable);
        self.committed = self.leader.committed();
    }

    /// The newest transaction that a quorum has.
    pub fn committed(&self) -> Zxid {
        self.committed
    }

    /// Whether something is committed that is not applied yet.
    pub fn has_committed(&self) -> bool {
        self.proposals.front().is_some_and(|proposal| proposal.zxid <= self.committed)
    }

    /// Applies up to `limit` committed transactions to the tree, and notes the answers. What changed is noted in `changes`
    /// if anybody watches.
    pub fn apply(&mut self, tree: &mut Tree, limit: usize, now: Duration, mut changes: Option<&mut Vec<Change>>) {
        for _ in 0..limit {
            if !self.has_committed() {
                break;
            }
            let proposal = self.proposals.pop_front().expect("looked at just now");
            assert!(self.cut > 0, "what is committed was written");
            self.cut -= 1;
            let entry = TxnEntry::decode(&proposal.record).expect("encoded here");
            assert!(entry.header.zxid == proposal.zxid, "a record belongs to its proposal");
            let applied = tree.apply(&entry, changes.as_deref_mut());
            let session = entry.header.session;
            match entry.txn {
                Txn::CreateSession { timeout_ms } => {
                    let owner = proposal.from.map(|asker| asker.conn);
                    self.sessions.open(session, millis(timeout_ms), owner, now);
                    if let Some(conn) = owner {
                        self.tell(conn, Item::Session { conn, opened: Some((session, timeout_ms)) });
                    }
                }
                txn => {
                    let owner = match txn {
                        Txn::CloseSession { .. } => self.sessions.close(session),
                        _ => None,
                    };
                    if let Some(asker) = proposal.from {
                        let (error, body) = answer(&txn, &applied);
                        let outbox = &mut self.outbox[usize::from(asker.conn.core)];
                        let start = outbox.bytes.len();
                        put_frame(&mut outbox.bytes, |out| {
                            ReplyHeader { xid: asker.xid, zxid: proposal.zxid, error }.encode(out);
                            body.encode(out);
                        });
                        outbox.items.push(Item::Answer {
                            conn: asker.conn,
                            xid: asker.xid,
                            op: asker.op,
                            zxid: proposal.zxid,
                            frame: start..outbox.bytes.len(),
                            last: matches!(txn, Txn::CloseSession { .. }),
                        });
                    } else if let Some(conn) = owner {
                        self.tell(conn, Item::Close { conn });
                    }
                }
            }
            self.sequencer.applied(proposal.zxid);
        }
    }

    /// What worker `core` has to be told since the last call, `changes` included; it was `applied` at that time.
    pub fn take_delivery(&mut self, core: usize, changes: Option<&Arc<[Change]>>, applied: Duration) -> Delivery {
        let delivery = std::mem::take(&mut self.outbox[core]);
        Delivery { changes: changes.cloned(), applied, ..delivery }
    }

    /// Whether worker `core` has to be told anything.
    pub fn has_delivery(&self, core: usize) -> bool {
        !self.outbox[core].items.is_empty()
    }

    /// Proposals that are not applied yet.
    pub fn outstanding(&self) -> usize {
        self.proposals.len()
    }

    /// Sessions there are.
    pub fn sessions(&self) -> usize {
        self.sessions.len()
    }

    fn tell(&mut self, conn: ConnId, item: Item) {
        self.outbox[usize::from(conn.core)].items.push(item);
    }
}

fn millis(ms: i32) -> Duration {
    Duration::from_millis(ms.max(0) as u64)
}

#[cfg(test)]
#[path = "replica_tests/mod.rs"]
mod tests;
