//! One member of the ensemble, as a state machine: requests, messages of other members, durability and time go in; log records,
//! commands, commits and answers come out. It opens no socket and no file, reads no clock and no random source.
//!
//! What a member does depends on its role: it looks for a leader, follows one ([`following`]) or leads ([`leading`]); how it comes
//! from one to the other is in [`member`]. A server that is its whole ensemble leads from the beginning, and the path of its writes
//! is the same.
//!
//! The way of a write through a leader: it is decided against the tree and what is still outstanding, gets a zxid and is encoded
//! into the log's open batch. When the batch is cut, [`Replica::cut`] takes slices of its records, which go to the learners. When
//! it is durable, [`Replica::durable`] counts that as this member's vote. What a quorum has voted for is applied by
//! [`Replica::apply`], in order, from those slices, and answered.
//!
//! **Invariants**: applied ≤ committed, and committed ≤ durable on a quorum, and here unless this member leads; proposals are applied in the order of their
//! zxids, each once; a session's requests are ordered as they came; an answer is made only when its transaction is in the tree;
//! clients are served only by a leader whose epoch is established, or by a learner that has caught up with it.
//!
//! **Not here**: threads, the disk ([`corral_engine::txnlog::Log`]), connections of clients ([`crate::clients::worker`]) and of members
//! ([`crate::process`]).

mod clients;
mod following;
mod leading;
mod member;

use crate::clients::delivery::{Delivery, Item};
use crate::clients::worker::{View, answer_unwatched};
use crate::consensus::election::Patience;
use crate::consensus::history::History;
use crate::consensus::leadership::{Leadership, LinkId};
use crate::consensus::message::{Message, Record, Standing};
use crate::consensus::stretch::Stretch;
use crate::consensus::{Election, Ensemble};
use crate::mutation::{self, Mutation};
use crate::requests::acl::Access;
use crate::requests::answer::answer;
use crate::requests::reaper::Reaping;
use crate::requests::sequencer::Rules;
use crate::requests::session::{ConnId, SessionIds};
use crate::requests::{READS_BEFORE_BYTES_MAX, ReadsBefore};
use bytes::Bytes;
use corral_engine::Tree;
use corral_engine::tree::Change;
use corral_engine::txnlog::group::PlacedBatch;
use corral_net::{put_frame, split_frames};
use corral_proto::peer::{Notification, PeerState};
use corral_proto::response::Response;
use corral_proto::{ErrorCode, Jute, OpCode, ReplyHeader, ServerId, SessionId, Txn, TxnEntry, Xid, Zxid};
use following::Following;
use leading::Leading;
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
    /// The unit of session expiry and of the other limits (`tickTime`).
    pub tick: Duration,
    /// Ticks that a learner has to connect and to be synchronized (`initLimit`).
    pub init_limit: u32,
    /// Ticks after which a member that was not heard of is given up (`syncLimit`).
    pub sync_limit: u32,
    /// How patient elections are.
    pub patience: Patience,
    /// Whether a leader serves clients itself (`leaderServes`).
    pub leader_serves: bool,
    /// The member has lost its history ([`corral_engine::epochs::Epochs::is_lost`]).
    pub is_lost: bool,
    /// Transactions that an epoch may have before another begins: all that there are numbers for, except in simulations.
    pub epoch_max: u32,
    /// The first session id to give ([`crate::requests::session::first_id`]).
    pub first_session: SessionId,
    /// For the order of nothing that matters ([`crate::requests::sequencer::Sequencer::new`]).
    pub seed: u64,
    /// The members, as clients read them in `/zookeeper/config`; `None` for a server alone.
    pub members: Option<Arc<str>>,
    /// Who may do what.
    pub access: Access,
    /// What they may do.
    pub rules: Rules,
    /// How the leader deletes what has outlived its use.
    pub reaping: Reaping,
    /// How many workers there are.
    pub cores: usize,
}

/// What is to be done outside, in the order given; what writes to the disk is durable before the next is done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Send this to another member over the election port; it may be lost.
    Notify(ServerId, Notification<'static>),
    /// Make a link to the quorum port of this member, which leads, and say how that went ([`Replica::dialed`]).
    Dial(ServerId),
    /// Learners may connect from now on, or may not and are disconnected.
    Listen(bool),
    /// Send this over a link.
    Send(LinkId, Message),
    /// Send a snapshot of the tree over a link, as it is at this transaction or a little later.
    Snapshot(LinkId, Zxid),
    /// Send a part of the log on the disk over a link; [`Replica::log_lacks`] if it is not there, [`Replica::log_failed`] if that shows
    /// only when something of it was sent.
    FromLog(LinkId, Stretch),
    /// Close a link, for this reason.
    Drop(LinkId, String),
    /// Never follow the leader of an earlier epoch again.
    Promise(u32),
    /// This is the epoch of the member's own history now.
    TakeOver(u32),
    /// Cut the log back so that it ends here, and restore the tree from it: then [`Replica::truncated`].
    Truncate(Zxid),
    /// A snapshot of this transaction follows on this link: it replaces the tree, the snapshots and the log. [`Replica::loaded`]
    /// when it is durable.
    Load(LinkId, Zxid),
    /// Apply what is committed and begin to serve: [`Replica::serve`].
    Serve,
}

/// How the disk of the log is, as whoever drives the replica sees it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LogState {
    /// Since when the oldest batch waits for the disk.
    pub waits_since: Option<Duration>,
    /// Nothing more can be appended.
    pub is_full: bool,
}

/// What the member does.
enum Role {
    /// Nothing yet: what is in its log is on its way to the disk, and a vote must not claim more than that has; or the disk is full,
    /// and a member that cannot log anything must not lead.
    Settling,
    /// It looks for a leader.
    Looking,
    /// It has elected another, and makes a link to it.
    Seeking {
        leader: ServerId,
        tries: u32,
        again_at: Option<Duration>,
        by: Duration,
    },
    Following(Box<Following>),
    Leading(Box<Leading>),
}

/// The state machine.
pub struct Replica {
    options: ReplicaOptions,
    election: Election,
    standing: Standing,
    /// What it had acknowledged is not in its log any more: it does not vote until it has a leader's history.
    is_lost: bool,
    /// Its tree is not as its leader's, which is asked for a snapshot when it is followed again.
    is_astray: bool,
    /// The epoch in which that was asked for last. Whoever is right: a second time in the same epoch would not help.
    asked_anew: Option<u32>,
    log_state: LogState,
    role: Role,
    /// Clients are served.
    serving: bool,
    /// The newest transactions, unless this member leads and its leadership has them.
    history: History,
    proposals: VecDeque<Proposal>,
    /// Proposals at the front of `proposals` whose records are known: those of batches that were cut.
    cut: usize,
    durable: Zxid,
    committed: Zxid,
    session_ids: SessionIds,
    outbox: Vec<Delivery>,
    commands: Vec<Command>,
}

/// Logged, not yet applied.
struct Proposal {
    zxid: Zxid,
    from: Origin,
    /// Its bytes in the log's memory, once its batch was cut.
    record: Bytes,
    /// What its client is answered before it is applied.
    reads: Option<ReadsBefore>,
}

/// Who asked for a transaction, as far as this member has to know.
#[derive(Clone, Copy)]
enum Origin {
    Client(Asker),
    Learner(LinkId),
    Nobody,
}

/// A client that waits for an answer.
#[derive(Clone, Copy)]
struct Asker {
    conn: ConnId,
    xid: Xid,
    op: OpCode,
}

impl Replica {
    /// Of a member whose `tree` holds all of its log, and whose epochs are in `standing`; `history` has its newest transactions. A
    /// server alone leads on from there; sessions that were open in an earlier life get a full timeout.
    pub fn new(
        options: ReplicaOptions,
        standing: Standing,
        history: History,
        tree: &mut Tree,
        now: Duration,
    ) -> Replica {
        let (me, ensemble) = (options.me, options.ensemble.clone());
        let mut replica = Replica {
            election: Election::new(me, ensemble.clone(), options.patience),
            standing,
            is_lost: options.is_lost && !mutation::is_on(Mutation::LostHistoriesVote),
            is_astray: false,
            asked_anew: None,
            log_state: LogState::default(),
            role: Role::Settling,
            serving: false,
            history,
            proposals: VecDeque::new(),
            cut: 0,
            durable: standing.last,
            committed: standing.last,
            session_ids: SessionIds::new(options.first_session),
            outbox: (0..options.cores).map(|_| Delivery::default()).collect(),
            commands: Vec::new(),
            options,
        };
        if ensemble.is_alone(me) {
            let leadership = Leadership::alone(me, ensemble, standing.last);
            replica.role = Role::Leading(Box::new(Leading::new(leadership, &replica.options, now)));
            replica.serve(tree, now);
        } else {
            replica.settled(now);
        }
        replica
    }

    /// A batch of proposals is on its way to the disk; its records are kept as slices of the very memory that is written, and so
    /// they go to the learners.
    pub fn cut(&mut self, batch: &PlacedBatch) {
        let mut orders = Vec::new();
        for ((zxid, bytes), held) in batch.entries().zip(batch.held()) {
            let proposal = &mut self.proposals[self.cut];
            assert!(proposal.zxid == zxid, "batches hold the proposals in their order");
            if let Role::Leading(leading) = &mut self.role {
                leading.propose(zxid, Record { bytes: bytes.clone(), held }, &mut orders);
            }
            proposal.record = bytes;
            self.cut += 1;
        }
        self.lead(Duration::ZERO, orders);
    }

    /// The newest transaction that is durable here.
    pub fn durable_upto(&self) -> Zxid {
        self.durable
    }

    /// The newest transaction that is committed, and, unless this member leads, durable here.
    pub fn committed(&self) -> Zxid {
        self.committed
    }

    /// Whether something is committed that is not applied yet.
    pub fn has_committed(&self) -> bool {
        self.serving && self.proposals.front().is_some_and(|proposal| proposal.zxid <= self.committed)
    }

    /// Applies up to `limit` committed transactions to the tree, and notes the answers. What changed is noted in `changes`
    /// if anybody watches.
    pub fn apply(&mut self, tree: &mut Tree, limit: usize, now: Duration, mut changes: Option<&mut Vec<Change>>) {
        for _ in 0..limit {
            if !self.has_committed() {
                break;
            }
            // At its place: a `sync` is answered behind the writes before it, and ahead of those after it.
            self.answer_syncs(tree);
            self.apply_one(tree, now, changes.as_deref_mut());
            self.compare(tree, now);
        }
        self.answer_syncs(tree);
    }

    /// What is committed is applied, and clients are served from now on.
    pub fn serve(&mut self, tree: &mut Tree, now: Duration) {
        self.catch_up(tree, self.committed, now);
        tree.set_fuzzy(false);
        if !self.options.rules.says_digests {
            tree.stop_digests();
        }
        if !self.options.ensemble.is_alone(self.options.me) {
            // Clients may have heard of the epoch's beginning from other members, though it is no transaction.
            tree.begin_epoch(Zxid::new(self.standing.current, 0));
        }
        if let Some(members) = &self.options.members {
            tree.set_config(members);
        }
        match &mut self.role {
            Role::Leading(leading) => leading.serve(tree, now),
            Role::Following(_) => {}
            _ => panic!("only a leader or a learner serves"),
        }
        self.serving = true;
        self.compare(tree, now);
    }

    /// Looks at whether the tree is its leader's. If a learner's is not, it leaves, and asks for a snapshot when it follows again.
    fn compare(&mut self, tree: &Tree, now: Duration) {
        let Some(difference) = tree.difference() else { return };
        let Role::Following(following) = &self.role else {
            // What it decides itself is compared when it is applied, so this is from before.
            return tracing::error!(
                "{difference}. This member leads with its own tree, and its learners will take that"
            );
        };
        let epoch = following.learner.epoch();
        if self.asked_anew != Some(epoch) {
            (self.asked_anew, self.is_astray) = (Some(epoch), true);
            tracing::error!("the tree is not the leader's: {difference}. It will be taken from the leader again");
            self.look(now, "its history is to be taken again");
        } else if difference.zxid == tree.last_applied() {
            tracing::error!(
                "the tree is not the leader's though it was taken from it: {difference}. One of the members is wrong; the word hash shows \
                 what each has had"
            );
        }
    }

    /// Applies what is in the log up to `upto` while nobody is served. Of a leader that is not established this may be undone, as what
    /// a restart finds in the log may.
    pub fn catch_up(&mut self, tree: &mut Tree, upto: Zxid, now: Duration) {
        assert!(!self.serving, "those who are served are told of changes");
        while self.proposals.front().is_some_and(|proposal| proposal.zxid <= upto) {
            self.apply_one(tree, now, None);
        }
    }

    fn apply_one(&mut self, tree: &mut Tree, now: Duration, changes: Option<&mut Vec<Change>>) {
        let proposal = self.proposals.pop_front().expect("the caller has looked");
        // A leader's quorum may be faster than its own disk; a learner acknowledges first.
        let leads = matches!(self.role, Role::Leading(_));
        assert!(self.cut > 0 && (leads || proposal.zxid <= self.durable), "what is committed is in the log");
        self.cut -= 1;
        let entry = TxnEntry::decode(&proposal.record).expect("decoded when it came, or encoded here");
        assert!(entry.header.zxid == proposal.zxid, "a record belongs to its proposal");
        let mut reads = proposal.reads;
        if !mutation::is_on(Mutation::ReadsSeeTheWriteBehindThem) {
            reads.take().into_iter().for_each(|reads| self.answer_reads(tree, reads));
        }
        let applied = tree.apply(&entry, changes);
        let is_own = leads && self.serving;
        assert!(
            !is_own || entry.digest.is_none_or(|digest| digest == tree.digest()),
            "{} is applied as decided",
            proposal.zxid
        );
        reads.into_iter().for_each(|reads| self.answer_reads(tree, reads));
        let session = entry.header.session;
        if let Txn::Reconfig { data, .. } = entry.txn {
            let members = String::from_utf8_lossy(data.unwrap_or_default()).replace('\n', ", ");
            tracing::warn!(
                "the members are others now: {members}. This server keeps to its own configuration until it is changed there, too"
            );
        }
        match entry.txn {
            Txn::CreateSession { timeout_ms } => {
                self.session_opened(session, timeout_ms, proposal.from, now);
                if let Origin::Client(Asker { conn, .. }) = proposal.from {
                    self.enqueue(conn, Item::Session { conn, opened: Some((session, timeout_ms)) });
                }
            }
            txn => {
                let owner = match txn {
                    Txn::CloseSession { .. } => self.session_closed(session),
                    _ => None,
                };
                match (proposal.from, txn) {
                    (Origin::Client(Asker { conn, .. }), Txn::Error(code)) if ends_connection(code) => {
                        self.enqueue(conn, Item::Close { conn });
                    }
                    (Origin::Client(asker), txn) => {
                        let (error, body) = answer(&txn, &applied);
                        let last = matches!(txn, Txn::CloseSession { .. });
                        self.answer(asker, proposal.zxid, error, &body, last);
                    }
                    (_, _) => {
                        if let Some(conn) = owner {
                            self.enqueue(conn, Item::Close { conn });
                        }
                    }
                }
            }
        }
        match &mut self.role {
            Role::Leading(leading) => leading.sequencer.applied(proposal.zxid),
            _ if self.history.newest().is_none_or(|newest| newest < proposal.zxid) => {
                self.history.push(proposal.zxid, &proposal.record);
            }
            _ => {}
        }
    }

    /// Answers what a connection has asked for since its write before this, from the tree between the two.
    fn answer_reads(&mut self, tree: &Tree, ReadsBefore { conn, session, who, frames }: ReadsBefore) {
        let view = View { tree, access: &self.options.access, who: &who, session };
        let outbox = &mut self.outbox[usize::from(conn.core)];
        let (zxid, begin) = (tree.last_applied(), outbox.bytes.len());
        for frame in split_frames(&frames) {
            let start = outbox.bytes.len();
            if start - begin > READS_BEFORE_BYTES_MAX {
                return outbox.items.push(Item::Close { conn });
            }
            let (xid, op) = answer_unwatched(&view, frame, &mut outbox.bytes);
            let frame = start..outbox.bytes.len();
            outbox.items.push(Item::Answer { conn, xid, op, zxid, frame, last: false });
        }
    }

    fn answer(&mut self, asker: Asker, zxid: Zxid, error: i32, body: &Response<'_>, last: bool) {
        let outbox = &mut self.outbox[usize::from(asker.conn.core)];
        let start = outbox.bytes.len();
        put_frame(&mut outbox.bytes, |out| {
            ReplyHeader { xid: asker.xid, zxid, error }.encode(out);
            body.encode(out);
        });
        let Asker { conn, xid, op } = asker;
        outbox.items.push(Item::Answer { conn, xid, op, zxid, frame: start..outbox.bytes.len(), last });
    }

    /// A transaction is at the end of the log; `reads` are answered right before it is applied.
    fn logged(&mut self, zxid: Zxid, from: Origin, reads: Option<ReadsBefore>) {
        self.standing.last = zxid;
        self.proposals.push_back(Proposal { zxid, from, record: Bytes::new(), reads });
    }

    /// Whether there is anything to be done outside.
    pub fn has_commands(&self) -> bool {
        !self.commands.is_empty()
    }

    /// What is to be done outside since the last call.
    pub fn take_commands(&mut self) -> Vec<Command> {
        std::mem::take(&mut self.commands)
    }

    /// What worker `core` has to be told since the last call, `changes` included; it was `applied` at that time.
    pub fn take_delivery(&mut self, core: usize, changes: Option<&Arc<[Change]>>, applied: Duration) -> Delivery {
        let delivery = std::mem::take(&mut self.outbox[core]);
        Delivery { changes: changes.cloned(), applied, ..delivery }
    }

    /// Whether any worker has to be told anything.
    pub fn has_deliveries(&self) -> bool {
        (0..self.outbox.len()).any(|core| self.has_delivery(core))
    }

    /// Whether worker `core` has to be told anything.
    pub fn has_delivery(&self, core: usize) -> bool {
        !self.outbox[core].items.is_empty()
    }

    /// Sessions that this member has an eye on: a leader on all, a learner on those of its clients.
    pub fn sessions(&self) -> usize {
        match &self.role {
            Role::Leading(leading) => leading.sessions.len(),
            Role::Following(following) => following.clients.len(),
            _ => 0,
        }
    }

    /// Which of the sessions that this member looks after expire when.
    pub fn expiries(&self) -> Vec<(Duration, Vec<SessionId>)> {
        match &self.role {
            Role::Leading(leading) => leading.sessions.buckets().collect(),
            _ => Vec::new(),
        }
    }

    /// Bytes of the newest proposal, of the smallest and of the largest, of a leader that has made any.
    pub fn proposal_bytes(&self) -> Option<[usize; 3]> {
        match &self.role {
            Role::Leading(leading) => leading.proposal_bytes,
            _ => None,
        }
    }

    /// What is known of them begins anew.
    pub fn reset_proposal_bytes(&mut self) {
        if let Role::Leading(leading) = &mut self.role {
            leading.proposal_bytes = None;
        }
    }

    /// Proposals that are not applied yet.
    pub fn outstanding(&self) -> usize {
        self.proposals.len()
    }

    /// What this member is, for people: its role, and of a leader that is established how many learners it has that vote, and
    /// that do not. `None` before clients are served.
    pub fn state(&self) -> Option<(PeerState, (usize, usize))> {
        let state = match &self.role {
            Role::Leading(leading) => (PeerState::Leading, leading.leadership.synchronized()),
            Role::Following(following) if following.is_observer => (PeerState::Observing, (0, 0)),
            _ => (PeerState::Following, (0, 0)),
        };
        self.serving.then_some(state)
    }

    /// Whether the snapshot that it takes replaces what it has acknowledged.
    pub fn is_astray(&self) -> bool {
        self.is_astray
    }

    /// Whether it has lost its history, and has no other yet.
    pub fn is_lost(&self) -> bool {
        self.is_lost
    }

    /// The epochs, and where the log ends.
    pub fn standing(&self) -> Standing {
        self.standing
    }

    fn enqueue(&mut self, conn: ConnId, item: Item) {
        self.outbox[usize::from(conn.core)].items.push(item);
    }
}

/// Errors after which nothing more can be said on a connection: its session is spoken for elsewhere, or gone.
fn ends_connection(code: i32) -> bool {
    matches!(ErrorCode::from_code(code), Some(ErrorCode::SessionMoved | ErrorCode::SessionExpired))
}

fn millis(ms: i32) -> Duration {
    Duration::from_millis(ms.max(0) as u64)
}

#[cfg(test)]
mod tests;
