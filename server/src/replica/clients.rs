//! What clients ask for: of a leader, which decides it; of a learner, which forwards it to its leader; and what a leader is asked
//! by its learners.
//!
//! **Invariants**: a request in the name of a session that another connection speaks for is not carried out; every forwarded
//! request becomes a transaction, if only an error, because the learner waits for one.
//!
//! **Not here**: what a request becomes ([`crate::requests::sequencer`]), connections ([`crate::clients::worker`]).

use super::leading::Leading;
use super::{Asker, Command, Now, Origin, Replica, Role, millis};
use crate::clients::delivery::Item;
use crate::consensus::leadership::{self, LinkId};
use crate::consensus::message::Message;
use crate::mutation::{self, Mutation};
use crate::requests::identity::Identities;
use crate::requests::sequencer::Place;
use crate::requests::session::{self, ConnId, Owner};
use crate::requests::{ReadsBefore, WriteRequest};
use corral_engine::Tree;
use corral_engine::txnlog::Group;
use corral_proto::jute::Decoder;
use corral_proto::peer::PacketKind;
use corral_proto::peer::learner::{Forwarded, Revalidated, Touched};
use corral_proto::response::Response;
use corral_proto::{
    ErrorCode, Jute, OpCode, Request, SessionId, SubTxns, TreeDigest, Txn, TxnEntry, TxnHeader, Xid, Zxid,
};
use std::time::Duration;

/// Sessions that are closed in one step because they have expired: many may do so at once, and nobody else should wait for that.
const EXPIRE_STEP: usize = 256;
/// With so many sessions whose end is on its way, no more expire for now.
const CLOSING_MAX: usize = 2048;

/// Whose the transactions are that a leader makes by itself.
const NOBODYS: (SessionId, Xid) = (SessionId::NONE, Xid(0));

/// A request that a leader is about to decide.
struct Ordered<'a> {
    session: SessionId,
    who: &'a Identities,
    cxid: Xid,
    from: Origin,
    op: OpCode,
    body: &'a [u8],
    reads: Option<ReadsBefore>,
}

impl Replica {
    /// A client wants something changed, or to be told of everything that was ([`OpCode::Sync`]). A request in the name of a session
    /// that is gone, closing, or spoken for by another connection is dropped: that connection is being closed.
    pub fn request(&mut self, tree: &Tree, log: &mut Group, now: Now, request: &WriteRequest<'_>) {
        let WriteRequest { conn, session, who, xid, op, body, .. } = *request;
        if !self.serving {
            return;
        }
        let asker = Asker { conn, xid, op };
        match &mut self.role {
            Role::Leading(leading) => {
                if !leading.sessions.speaks_for(conn, session) {
                    return;
                }
                leading.sessions.touch(session, now.uptime);
                if op == OpCode::Sync {
                    return self.sync(tree, asker, sync_path(body));
                }
                let (from, reads) = (Origin::Client(asker), ReadsBefore::of(request));
                self.order(tree, log, now, Ordered { session, who, cxid: xid, from, op, body, reads });
            }
            Role::Following(following) => {
                let Some((_, timeout_ms)) = following.clients.get(&session).filter(|(speaks, _)| *speaks == conn)
                else {
                    return;
                };
                following.heard.insert(session, *timeout_ms);
                if op == OpCode::Sync {
                    following.syncs.push_back((asker, sync_path(body).map(Box::from)));
                } else {
                    let reads = ReadsBefore::of(request);
                    following.forwarded.entry(session).or_default().push_back((asker, reads));
                }
                self.forward(Forwarded { session, xid, op: op.code(), body }, Some(who));
            }
            _ => {}
        }
    }

    /// A client of a leader is answered when everything that was ordered before is applied.
    fn sync(&mut self, tree: &Tree, asker: Asker, path: Option<&str>) {
        let waits = !mutation::is_on(Mutation::SyncsAreAnsweredAtOnce);
        if let (Some(newest), Role::Leading(leading), true) = (self.proposals.back(), &mut self.role, waits) {
            leading.syncs.push_back((newest.zxid, asker, path.map(Box::from)));
        } else {
            self.answer(asker, tree.last_applied(), 0, &Response::Sync(path), false);
        }
    }

    /// Answers those who have waited for what is in the tree now.
    pub(super) fn answer_syncs(&mut self, tree: &Tree) {
        let applied = tree.last_applied();
        loop {
            let waiting = match &mut self.role {
                Role::Leading(leading) => &mut leading.syncs,
                Role::Following(following) => &mut following.synced,
                _ => return,
            };
            let Some((_, asker, path)) = waiting.pop_front_if(|(waits_for, _, _)| *waits_for <= applied) else {
                return;
            };
            self.answer(asker, applied, 0, &Response::Sync(path.as_deref()), false);
        }
    }

    /// Decides a request and puts the transaction that it becomes at the end of the log.
    fn order(&mut self, tree: &Tree, log: &mut Group, now: Now, request: Ordered<'_>) {
        let Ordered { session, who, cxid, from, op, body, reads } = request;
        if op == OpCode::CloseSession && !self.shed(tree, log, now, session) {
            return;
        }
        self.place(log, now, (session, cxid), (from, reads), |leading, zxid, append| {
            if op == OpCode::CloseSession {
                leading.sessions.start_closing(session);
            }
            leading.sequencer.decide(tree, Place { zxid, time_ms: now.wall_ms, session, who }, op, body, append);
        });
    }

    /// Deletes what a session has more ephemeral nodes than its end can name. False when this member leads no more.
    fn shed(&mut self, tree: &Tree, log: &mut Group, now: Now, session: SessionId) -> bool {
        let Role::Leading(leading) = &self.role else { return false };
        leading.sequencer.ahead_of_end(tree, session).into_iter().all(|paths| {
            self.place(log, now, NOBODYS, (Origin::Nobody, None), |leading, zxid, append| {
                let parts = leading.sequencer.delete_all(tree, zxid, &paths);
                let txn = Txn::Multi(SubTxns::from_encoded(paths.len() as u32, &parts));
                append(txn, leading.sequencer.digest(tree, &txn));
            });
            matches!(self.role, Role::Leading(_))
        })
    }

    /// Gives a transaction its place in the order and in the log, behind the reads that go along with it; `decide` says what it is.
    fn place(
        &mut self,
        log: &mut Group,
        now: Now,
        (session, cxid): (SessionId, Xid),
        (from, reads): (Origin, Option<ReadsBefore>),
        decide: impl FnOnce(&mut Leading, Zxid, &mut dyn FnMut(Txn<'_>, Option<TreeDigest>)),
    ) {
        let Role::Leading(leading) = &mut self.role else { unreachable!("only a leader orders") };
        let Some(zxid) = leading.leadership.order(self.options.epoch_max) else {
            return self.look(now.uptime, "the zxids of the epoch are used up");
        };
        let header = TxnHeader { session, cxid, zxid, time_ms: now.wall_ms };
        decide(leading, zxid, &mut |txn, digest| log.append(&TxnEntry { header, txn, digest }, now.uptime));
        self.logged(zxid, from, reads);
    }

    /// Apache's leaders want to know who a client is; what a learner asks for by itself is nobody's.
    fn forward(&mut self, request: Forwarded<'_>, who: Option<&Identities>) {
        let Role::Following(following) = &self.role else { unreachable!("only a learner forwards") };
        let auth = who.map(|who| who.encoded().clone());
        let message = Message { auth, ..Message::with(PacketKind::Request, Zxid(-1), request.to_vec()) };
        self.commands.push(Command::Send(following.link, message));
    }

    /// A client without a session wants one.
    pub fn open_session(&mut self, tree: &Tree, log: &mut Group, now: Now, conn: ConnId, timeout_ms: i32) {
        if !self.takes_clients() {
            return self.enqueue(conn, Item::Close { conn });
        }
        let session = self.session_ids.next(|id| tree.sessions().contains_key(&id));
        let asker = Asker { conn, xid: Xid(0), op: OpCode::CreateSession };
        match &mut self.role {
            Role::Leading(_) => self.create_session(tree, log, now, session, (timeout_ms, Origin::Client(asker))),
            Role::Following(following) => {
                following.forwarded.entry(session).or_default().push_back((asker, None));
                let (xid, op, body) = (asker.xid, asker.op.code(), &timeout_ms.to_be_bytes());
                self.forward(Forwarded { session, xid, op, body }, None);
            }
            _ => unreachable!("clients are taken"),
        }
    }

    /// The session is known from here on, as it is to Apache's leader: a learner may apply its transaction, and forward the next
    /// request of its client, before this member has come to apply it.
    fn create_session(
        &mut self,
        tree: &Tree,
        log: &mut Group,
        now: Now,
        session: SessionId,
        (timeout_ms, from): (i32, Origin),
    ) {
        self.place(log, now, (session, Xid(0)), (from, None), |leading, _, append| {
            let owner = match from {
                Origin::Client(asker) => Some(Owner::Client(asker.conn)),
                Origin::Learner(link) => Some(Owner::Learner(link)),
                Origin::Nobody => None,
            };
            leading.sessions.open(session, millis(timeout_ms), owner, now.uptime);
            let txn = Txn::CreateSession { timeout_ms };
            append(txn, leading.sequencer.digest(tree, &txn));
        });
    }

    /// A client wants to go on with its session on this connection. Its former connection is closed, but only once the
    /// password was found right (Apache closes it before, so that anybody can).
    pub fn renew_session(&mut self, now: Now, conn: ConnId, id: SessionId, password: &[u8], timeout_ms: i32) {
        if !self.takes_clients() {
            return self.enqueue(conn, Item::Close { conn });
        }
        let known = password == session::password(id);
        match &mut self.role {
            Role::Following(following) if known => {
                // What still comes over the client's earlier connection must not follow this: the leader would take it for the client's word
                // after all that it has asked for at other servers meanwhile.
                let before = following.clients.remove(&id);
                following.renewals.entry(id).or_default().push_back((conn, timeout_ms));
                let asked = Touched { session: id, timeout_ms }.to_vec();
                let message = Message::with(PacketKind::Revalidate, Zxid(-1), asked);
                self.commands.push(Command::Send(following.link, message));
                if let Some((before, _)) = before {
                    self.enqueue(before, Item::Close { conn: before });
                }
            }
            Role::Leading(leading) if known => {
                let renewed = leading.sessions.renew(id, millis(timeout_ms), Owner::Client(conn), now.uptime);
                if let Some(Some(Owner::Client(before))) = renewed {
                    self.enqueue(before, Item::Close { conn: before });
                }
                self.enqueue(conn, Item::Session { conn, opened: renewed.map(|_| (id, timeout_ms)) });
            }
            _ => self.enqueue(conn, Item::Session { conn, opened: None }),
        }
    }

    /// A learner has its leader's word on a client's session.
    pub(super) fn revalidated(&mut self, said: &Message) {
        let Role::Following(following) = &mut self.role else { return };
        let Ok(Revalidated { session, valid }) = Revalidated::decode(said.bytes()) else { return };
        let Some(waiting) = following.renewals.get_mut(&session) else { return };
        let Some((conn, timeout_ms)) = waiting.pop_front() else { return };
        if waiting.is_empty() {
            following.renewals.remove(&session);
        }
        if valid && let Some((before, _)) = following.clients.insert(session, (conn, timeout_ms)) {
            self.enqueue(before, Item::Close { conn: before });
        }
        self.enqueue(conn, Item::Session { conn, opened: valid.then_some((session, timeout_ms)) });
    }

    fn takes_clients(&self) -> bool {
        let is_leader = matches!(self.role, Role::Leading(_));
        let alone = self.options.ensemble.is_alone(self.options.me);
        self.serving && (!is_leader || self.options.leader_serves || alone)
    }

    /// Something was heard of these sessions.
    pub fn touch(&mut self, sessions: &[SessionId], now: Duration) {
        match &mut self.role {
            Role::Leading(leading) => sessions.iter().for_each(|session| leading.sessions.touch(*session, now)),
            Role::Following(following) => {
                let clients = &following.clients;
                let known = sessions.iter().filter_map(|id| clients.get(id).map(|(_, timeout_ms)| (*id, *timeout_ms)));
                following.heard.extend(known);
            }
            _ => {}
        }
    }

    /// Closes sessions that have expired, a bounded number at a time, and names them. Only a leader knows.
    pub fn expire(&mut self, tree: &Tree, log: &mut Group, now: Now) -> Vec<SessionId> {
        let Role::Leading(leading) = &self.role else { return Vec::new() };
        let room = CLOSING_MAX.saturating_sub(leading.sessions.closing()).min(EXPIRE_STEP);
        let expired = if self.serving { leading.sessions.expired(now.uptime, room) } else { Vec::new() };
        for session in &expired {
            if matches!(self.role, Role::Leading(_)) {
                let request = Ordered {
                    session: *session,
                    who: &Identities::NOBODY,
                    cxid: Xid(0),
                    from: Origin::Nobody,
                    op: OpCode::CloseSession,
                    body: &[],
                    reads: None,
                };
                self.order(tree, log, now, request);
            }
        }
        expired
    }

    /// The earliest moment at which [`Replica::expire`] would do anything. As long as many ends are on their way, there is none.
    pub fn next_expiry(&self) -> Option<Duration> {
        match &self.role {
            Role::Leading(leading) if self.serving && leading.sessions.closing() < CLOSING_MAX => {
                leading.sessions.deadline()
            }
            _ => None,
        }
    }

    /// Deletes what has outlived its use, one node at a time. Only a leader does.
    pub fn reap(&mut self, tree: &Tree, log: &mut Group, now: Now) {
        let Role::Leading(leading) = &mut self.role else { return };
        if !self.serving || mutation::is_on(Mutation::NothingIsReaped) {
            return;
        }
        let Some(path) = leading.reaper.step(tree, now.uptime, now.wall_ms).map(|id| tree.path(id)) else { return };
        if leading.sequencer.is_settled(&path) {
            self.place(log, now, NOBODYS, (Origin::Nobody, None), |leading, zxid, append| {
                let txn = leading.sequencer.reap(tree, zxid, &path);
                append(txn, leading.sequencer.digest(tree, &txn));
            });
        }
    }

    /// The earliest moment at which [`Replica::reap`] would do anything.
    pub fn next_reaping(&self) -> Option<Duration> {
        match &self.role {
            Role::Leading(leading) if self.serving && !mutation::is_on(Mutation::NothingIsReaped) => {
                Some(leading.reaper.deadline())
            }
            _ => None,
        }
    }

    /// A learner asks its leader for something.
    pub(super) fn asked(&mut self, tree: &Tree, log: &mut Group, now: Now, link: LinkId, said: &Message) {
        let Role::Leading(leading) = &mut self.role else { return };
        match said.kind {
            PacketKind::Ping => {
                Touched::list(said.bytes()).for_each(|touched| leading.sessions.touch(touched.session, now.uptime));
            }
            PacketKind::Revalidate => {
                let Ok(Touched { session, timeout_ms }) = Touched::decode(said.bytes()) else {
                    return self.refuse(link, "a session's revalidation that cannot be read");
                };
                let renewed = leading.sessions.renew(session, millis(timeout_ms), Owner::Learner(link), now.uptime);
                if let Some(Some(Owner::Client(before))) = renewed {
                    self.enqueue(before, Item::Close { conn: before });
                }
                let answer = Revalidated { session, valid: renewed.is_some() }.to_vec();
                self.commands.push(Command::Send(link, Message::with(PacketKind::Revalidate, said.zxid, answer)));
            }
            _ => self.forwarded(tree, log, now, link, said),
        }
    }

    fn forwarded(&mut self, tree: &Tree, log: &mut Group, now: Now, link: LinkId, said: &Message) {
        let Ok(Forwarded { session, xid, op, body }) = Forwarded::decode(said.bytes()) else {
            return self.refuse(link, "a request that cannot be read");
        };
        let Role::Leading(leading) = &mut self.role else { return };
        let place = (session, xid);
        match OpCode::from_code(op) {
            Some(OpCode::Sync) => {
                let mut orders = Vec::new();
                leading.leadership.sync(link, &mut orders);
                self.lead(now.uptime, orders);
            }
            Some(OpCode::CreateSession) if !leading.sessions.may_open(link, session) => {
                self.refused(log, now, place, link, ErrorCode::SessionMoved);
            }
            Some(OpCode::CreateSession) => match Decoder::new(body).int() {
                Ok(timeout_ms) => {
                    self.create_session(tree, log, now, session, (timeout_ms, Origin::Learner(link)));
                }
                Err(_) => self.refuse(link, "a session without a timeout"),
            },
            Some(op) if crate::requests::is_write(op) => match leading.sessions.speaks_over(link, session) {
                Ok(()) => {
                    let (who, from) = (&Identities::received(said.auth.clone()), Origin::Learner(link));
                    self.order(tree, log, now, Ordered { session, who, cxid: xid, from, op, body, reads: None });
                }
                Err(error) => self.refused(log, now, place, link, error),
            },
            _ => self.refused(log, now, place, link, ErrorCode::Unimplemented),
        }
    }

    fn refused(&mut self, log: &mut Group, now: Now, place: (SessionId, Xid), link: LinkId, error: ErrorCode) {
        self.place(log, now, place, (Origin::Learner(link), None), |_, _, append| {
            append(Txn::Error(error.code()), None);
        });
    }

    /// A learner that says what makes no sense is disconnected.
    fn refuse(&mut self, link: LinkId, what: &str) {
        self.lead(Duration::ZERO, vec![leadership::Output::Drop(link, format!("it sent {what}"))]);
    }

    /// A session is in the tree.
    pub(super) fn session_opened(&mut self, session: SessionId, timeout_ms: i32, from: Origin, now: Duration) {
        match (&mut self.role, from) {
            // It was opened when it was ordered; its time counts from now.
            (Role::Leading(leading), _) => leading.sessions.touch(session, now),
            (Role::Following(following), Origin::Client(asker)) => {
                following.clients.insert(session, (asker.conn, timeout_ms));
            }
            _ => {}
        }
    }

    /// A session is no more. Returns the connection here that spoke for it.
    pub(super) fn session_closed(&mut self, session: SessionId) -> Option<ConnId> {
        match &mut self.role {
            Role::Leading(leading) => match leading.sessions.close(session)? {
                Owner::Client(conn) => Some(conn),
                Owner::Learner(_) => None,
            },
            Role::Following(following) => {
                following.heard.remove(&session);
                following.clients.remove(&session).map(|(conn, _)| conn)
            }
            _ => None,
        }
    }
}

/// What a `sync` is about.
fn sync_path(body: &[u8]) -> Option<&str> {
    match Request::decode(OpCode::Sync, body) {
        Ok(Request::Sync(path)) => path,
        other => unreachable!("workers send what is a sync, not {other:?}"),
    }
}
