//! One core's clients, as a state machine over frames: shaking hands, reading from the tree, keeping each client's answers in
//! the order of its requests, and telling it of what it watches.
//!
//! Reads are answered here, from the shared tree. Writes go to the replica through a [`Port`], and come back as answers in a
//! [`Delivery`]. A request that may not overtake an earlier one of its connection is held until that one is answered; but a small read
//! between two writes goes along with the second, and is answered where that is applied: so a pipeline of both costs no more writes to
//! the disk than one of writes alone.
//!
//! **Invariants** (R1–R3 of the design):
//! - answers leave in the order of the requests;
//! - a read sees every earlier write of its connection, and no later one;
//! - before a read's answer, everything that happened to the tree up to what it reads has been told: the caller hands over all
//!   queued deliveries *after* it took the tree's lock and *before* it hands over frames;
//! - what one connection can make this keep is bounded ([`HELD_MAX`], [`Bounds`]): after that its socket is not read, and what was read
//!   waits; or, if it does not read its events, it is closed. Its session lives on then, and when its client comes again it is told of what
//!   it has missed. (Apache's servers keep all events.)
//!
//! **Not here**: sockets and frames' limits ([`crate::process`]), what writes do (the replica), four-letter words.

mod conn;
mod deliver;
mod queue;
mod reads;

pub use conn::{ConnCounters, Latencies};
pub use queue::ByteQueue;
pub use reads::{View, answer_unwatched};

use crate::budget::{Bounds, Budget, Held};
use crate::clients::watch::Watches;
use crate::mutation::{self, Mutation};
use crate::requests::acl::Access;
use crate::requests::identity::Identities;
use crate::requests::session::ConnId;
use crate::requests::{WriteRequest, goes_to_replica};
use conn::{Conn, Kind, Phase, Slot};
use corral_engine::Tree;
use corral_net::split_frames;
use corral_proto::response::Response;
use corral_proto::{
    ConnectRequest, Decoder, ErrorCode, Jute, JuteError, OpCode, ReplyHeader, Request, RequestHeader, SessionId, Xid,
    Zxid,
};
use slab::Slab;
use std::net::IpAddr;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

/// Requests that one connection may have waiting, answered ones not counted.
pub const HELD_MAX: usize = 2000;

/// What a worker is made with.
#[derive(Clone, Debug)]
pub struct WorkerOptions {
    /// Which core this is.
    pub core: u16,
    /// For the order of nothing that matters ([`Watches::new`]).
    pub seed: u64,
    /// Shortest and longest session timeout in ms.
    pub timeouts_ms: (i32, i32),
    /// Requests on their way at most, over all connections, before sockets are not read any more
    /// (`globalOutstandingLimit`).
    pub outstanding_max: usize,
    /// Requests that have waited for longer are refused (`throttled_op_wait_time`).
    pub throttled_after: Option<Duration>,
    /// What clients may make it hold.
    pub bounds: Bounds,
    /// Who may do what.
    pub access: Access,
}

/// The way to the replica: a call on its own core, a queue from the others.
pub trait Port {
    /// Whether there is room for one more. If not, what was to be handed over is offered again later.
    fn has_room(&self) -> bool;
    /// Hands over a write. There is room.
    fn write(&mut self, tree: &Tree, request: &WriteRequest<'_>);
    /// A client wants a new session. There is room.
    fn open_session(&mut self, tree: &Tree, conn: ConnId, timeout_ms: i32);
    /// A client wants to go on with a session. There is room.
    fn renew_session(&mut self, conn: ConnId, id: SessionId, password: &[u8], timeout_ms: i32);
}

/// Counters over all connections of this worker, since the start.
#[derive(Clone, Copy, Debug, Default)]
pub struct WorkerCounters {
    /// Requests that came.
    pub received: u64,
    /// Answers and events that went out.
    pub sent: u64,
    /// How long answers took.
    pub latency: Latencies,
    /// Connections that were closed because they left too many events unread.
    pub slow_watchers: u64,
    /// Clients that were not let through by `auth`, or that have asked for something without it where it is enforced.
    pub auth_failures: u64,
}

impl WorkerCounters {
    /// The counters of two workers taken together.
    pub fn plus(&self, other: &WorkerCounters) -> WorkerCounters {
        WorkerCounters {
            received: self.received + other.received,
            sent: self.sent + other.sent,
            latency: self.latency.plus(&other.latency),
            slow_watchers: self.slow_watchers + other.slow_watchers,
            auth_failures: self.auth_failures + other.auth_failures,
        }
    }
}

/// One core's clients.
pub struct Worker {
    options: WorkerOptions,
    conns: Slab<Conn>,
    generations: u32,
    watches: Watches,
    outstanding: usize,
    /// Of the outstanding requests, those that the replica has. Only these count against the limits over all connections: what
    /// is held is bounded for each connection by itself, and one that reads slowly must not slow down the others.
    sent: usize,
    sent_bytes: Budget,
    /// Sessions whose connection went after they were heard of.
    left: Vec<SessionId>,
    /// Connections that have something to send, or to be closed, or may be read again.
    dirty: Vec<u32>,
    /// Connections with held requests that the replica had no room for.
    stalled: Vec<u32>,
    /// Connections with held requests that waited for their answers to be sent.
    ready: Vec<u32>,
    counters: WorkerCounters,
}

impl Worker {
    /// Without connections.
    pub fn new(options: WorkerOptions) -> Worker {
        let watches = Watches::new(options.seed);
        let sent_bytes = Budget::new(options.bounds.writes);
        Worker {
            options,
            conns: Slab::new(),
            generations: 0,
            watches,
            outstanding: 0,
            sent: 0,
            sent_bytes,
            left: Vec::new(),
            dirty: Vec::new(),
            stalled: Vec::new(),
            ready: Vec::new(),
            counters: WorkerCounters::default(),
        }
    }

    /// A connection from this address was accepted.
    pub fn open(&mut self, remote: IpAddr) -> ConnId {
        self.generations = self.generations.wrapping_add(1);
        let conn = Conn::new(self.generations, Identities::of(remote), &self.options.bounds);
        let slot = self.conns.insert(conn) as u32;
        ConnId { core: self.options.core, slot, generation: self.generations }
    }

    /// A connection is gone.
    pub fn close(&mut self, slot: u32) {
        let conn = self.conns.remove(slot as usize);
        self.outstanding -= conn.waiting.len();
        self.sent -= conn.sent;
        self.sent_bytes.give_back(conn.sent_bytes());
        if let Phase::Open(session) = conn.phase
            && conn.heard
        {
            self.left.push(session);
        }
        self.watches.close(slot);
    }

    /// Whether the socket should be read: not before the session is there, nor while too much is waiting.
    pub fn wants_more(&self, slot: u32) -> bool {
        let conn = &self.conns[slot as usize];
        let full = conn.waiting.len() >= HELD_MAX || conn.held.is_used_up() || conn.is_choked();
        let many = self.sent >= self.options.outstanding_max || self.sent_bytes.is_used_up();
        let crowded = many && !conn.waiting.is_empty();
        matches!(conn.phase, Phase::New | Phase::Open(_)) && !full && !crowded
    }

    /// The next frame of a connection. Breaks when no more of them should come for now.
    pub fn frame(
        &mut self,
        tree: &Tree,
        port: &mut impl Port,
        now: Duration,
        slot: u32,
        frame: &[u8],
    ) -> ControlFlow<()> {
        match self.conns[slot as usize].phase {
            Phase::New => self.handshake(tree, port, slot, frame),
            Phase::Open(_) => self.request(tree, port, now, slot, frame),
            Phase::Opening { .. } | Phase::Closing => {}
        }
        if self.wants_more(slot) { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    }

    fn handshake(&mut self, tree: &Tree, port: &mut impl Port, slot: u32, frame: &[u8]) {
        let conn = &mut self.conns[slot as usize];
        // A client that has seen a newer state than this server must not see the older one (R2): it tries another server.
        let serves_all = mutation::is_on(Mutation::ClientsFromTheFutureAreServed);
        let request = match ConnectRequest::decode(frame) {
            Ok(request) if request.last_zxid_seen <= tree.last_applied() || serves_all => request,
            _ => return self.hang_up(slot),
        };
        let (shortest, longest) = self.options.timeouts_ms;
        let timeout_ms = request.timeout_ms.clamp(shortest, longest);
        let id = ConnId { core: self.options.core, slot, generation: conn.generation };
        if !port.has_room() {
            // Refusing the newcomer is kinder than keeping it waiting for its turn.
            return self.hang_up(slot);
        }
        conn.phase = Phase::Opening { read_only: request.read_only };
        match request.session_id {
            SessionId::NONE => port.open_session(tree, id, timeout_ms),
            session => port.renew_session(id, session, request.password.unwrap_or_default(), timeout_ms),
        }
    }

    fn request(&mut self, tree: &Tree, port: &mut impl Port, now: Duration, slot: u32, frame: &[u8]) {
        let conn = &mut self.conns[slot as usize];
        conn.counters.received += 1;
        conn.heard |= !is_sasl(frame);
        self.counters.received += 1;
        let overtakes = || mutation::is_on(Mutation::ReadsOvertakeWrites) && !kind(frame).is_for_replica();
        if conn.waiting.is_empty() || overtakes() {
            return self.step(tree, port, now, now, slot, frame);
        }
        let (at, kind) = (conn.waiting.len(), kind(frame));
        if conn.sent > 0 && conn.may_pass(tree, at, kind) && port.has_room() {
            self.send(tree, port, now, slot, at, Some(frame));
        } else {
            self.hold(slot, kind, frame, now);
        }
    }

    /// Handles a request that nothing of its connection is ahead of.
    fn step(&mut self, tree: &Tree, port: &mut impl Port, now: Duration, since: Duration, slot: u32, frame: &[u8]) {
        let mut d = Decoder::new(frame);
        let Ok(header) = RequestHeader::decode(&mut d) else { return self.hang_up(slot) };
        let op = OpCode::from_code(header.op);
        let is_showing = matches!(op, Some(OpCode::Auth | OpCode::Sasl));
        if !is_showing && !self.options.access.lets_in(&self.conns[slot as usize].who) {
            let error = ErrorCode::SessionClosedRequireSaslAuth;
            return self.turn_away(now, since, slot, op.unwrap_or(OpCode::Error), header.xid, error);
        }
        let never = is_showing || matches!(op, None | Some(OpCode::Ping | OpCode::CloseSession));
        if !never && self.options.throttled_after.is_some_and(|limit| now.saturating_sub(since) > limit) {
            let error = ErrorCode::ThrottledOp.code();
            let header = ReplyHeader { xid: header.xid, zxid: tree.last_applied(), error };
            return self.answer(now, since, slot, op.unwrap_or(OpCode::Error), header, &Response::Empty);
        }
        match op {
            Some(op) if is_for_replica(op, d.rest()) => {
                if port.has_room() {
                    self.send(tree, port, since, slot, 0, Some(frame));
                } else {
                    self.hold(slot, kind(frame), frame, since);
                    self.stalled.push(slot);
                }
            }
            // Apache closes without a word here, and nowhere else for a body that it cannot read.
            Some(op @ OpCode::Sasl) => {
                if Request::decode(op, d.rest()).is_err() {
                    return self.hang_up(slot);
                }
                let header = ReplyHeader { xid: header.xid, zxid: Zxid::ZERO, error: 0 };
                // No server without SASL has a next step; its clients go on without it.
                self.answer(now, since, slot, op, header, &Response::Sasl(None));
            }
            Some(op @ OpCode::Auth) => {
                let Ok(Request::Auth { scheme, auth }) = Request::decode(op, d.rest()) else {
                    return self.hang_up(slot);
                };
                let conn = &mut self.conns[slot as usize];
                match self.options.access.authenticate(&conn.who, scheme.unwrap_or_default(), auth) {
                    Some(who) => {
                        conn.who = who;
                        let header = ReplyHeader { xid: header.xid, zxid: Zxid::ZERO, error: 0 };
                        self.answer(now, since, slot, op, header, &Response::Empty);
                    }
                    None => self.turn_away(now, since, slot, op, header.xid, ErrorCode::AuthFailed),
                }
            }
            None | Some(OpCode::Check | OpCode::DeleteContainer | OpCode::CreateSession | OpCode::Error) => {
                let error = ErrorCode::Unimplemented.code();
                let header = ReplyHeader { xid: header.xid, zxid: Zxid(-1), error };
                self.answer(now, since, slot, OpCode::Error, header, &Response::Empty);
                self.conns[slot as usize].phase = Phase::Closing;
            }
            Some(op) => {
                let zxid = tree.last_applied();
                let xid = if op == OpCode::Ping { Xid::PING } else { header.xid };
                let conn = &mut self.conns[slot as usize];
                let outcome = Request::decode(op, d.rest()).map_err(|_| ErrorCode::MarshallingError);
                let Phase::Open(session) = conn.phase else { return };
                let view = View { tree, access: &self.options.access, who: &conn.who, session };
                reads::answer(&view, &mut self.watches, slot, outcome, xid, zxid, &mut conn.out);
                self.count_answer(now, since, slot, op, xid, zxid);
            }
        }
    }

    /// Gives a request to the replica, which has room for it, with the reads that are held before it; its place is `at`, and it is held
    /// there itself if it is not this `frame`.
    fn send(&mut self, tree: &Tree, port: &mut impl Port, since: Duration, slot: u32, at: usize, frame: Option<&[u8]>) {
        let conn = &mut self.conns[slot as usize];
        let Phase::Open(session) = conn.phase else { return };
        let count = at - conn.sent;
        let (framed, own) = conn.take_along(at);
        let (reads, held) = conn.frames.rest().split_at(framed);
        let bytes = frame.unwrap_or_else(|| split_frames(held).next().expect("it is held"));
        let (xid, op, body) = reads::parse(bytes).expect("looked at before it is sent");
        let id = ConnId { core: self.options.core, slot, generation: conn.generation };
        let len = bytes.len();
        port.write(tree, &WriteRequest { conn: id, session, who: &conn.who, xid, op, body, since, reads });
        let sent = Slot::Sent { xid, since, bytes: len, goes_along: false };
        if frame.is_some() {
            conn.waiting.insert(at, sent);
            self.outstanding += 1;
            conn.frames.advance(framed);
            conn.held.give_back(own);
        } else {
            conn.waiting[at] = sent;
            conn.frames.advance(framed + 4 + len);
            conn.held.give_back(own + len);
        }
        conn.sent += count + 1;
        self.sent += count + 1;
        self.sent_bytes.hold(own + len);
    }

    /// Keeps a request for later, behind the others of its connection.
    fn hold(&mut self, slot: u32, kind: Kind, frame: &[u8], since: Duration) {
        let conn = &mut self.conns[slot as usize];
        conn.held.hold(frame.len());
        conn.frames.put_frame(|out| out.extend_from_slice(frame));
        let xid = RequestHeader::decode(&mut Decoder::new(frame)).map_or(Xid(0), |header| header.xid);
        conn.waiting.push_back(Slot::Held { xid, since, bytes: frame.len(), kind });
        self.outstanding += 1;
    }

    /// Goes on with held requests, as far as they may go now.
    fn advance(&mut self, tree: &Tree, port: &mut impl Port, now: Duration, slot: u32) {
        loop {
            let conn = &mut self.conns[slot as usize];
            conn.waits_to_be_read = conn.is_choked();
            let Some(at) = conn.next_to_go(tree) else { return };
            let Slot::Held { since, bytes, kind, .. } = conn.waiting[at] else {
                unreachable!("what is sent is in front")
            };
            if kind.is_for_replica() && !port.has_room() {
                return self.stalled.push(slot);
            }
            if conn.sent > 0 {
                self.send(tree, port, since, slot, at, None);
                continue;
            }
            let mut frames = std::mem::take(&mut conn.frames);
            conn.waiting.pop_front();
            conn.held.give_back(bytes);
            self.outstanding -= 1;
            self.step(tree, port, now, since, slot, split_frames(frames.rest()).next().expect("it is held"));
            frames.advance(4 + bytes);
            let before = std::mem::replace(&mut self.conns[slot as usize].frames, frames);
            assert!(before.rest().is_empty(), "nothing is held behind what goes on");
        }
    }

    /// Some of what a connection has to send was sent: what waited for that may go on with the next [`Worker::retry`].
    pub fn sent(&mut self, slot: u32) {
        let conn = &mut self.conns[slot as usize];
        if conn.out.rest().is_empty() {
            conn.events.clear();
        }
        if !conn.is_choked() && std::mem::take(&mut conn.waits_to_be_read) {
            self.ready.push(slot);
        }
    }

    /// Answers to writes that were in [`Worker::output`] since the last call: when the oldest of them was in the tree, and how many.
    pub fn take_unsent(&mut self, slot: u32) -> Option<(Duration, u64)> {
        self.conns[slot as usize].unsent.take()
    }

    /// Whether [`Worker::retry`] has something to do that needs no room at the replica.
    pub fn has_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    /// Offers again what the replica had no room for, and goes on with what waited for its connection to be sent.
    pub fn retry(&mut self, tree: &Tree, port: &mut impl Port, now: Duration) {
        let mut slots = std::mem::take(&mut self.stalled);
        slots.append(&mut self.ready);
        for slot in slots {
            if self.conns.contains(slot as usize) {
                self.advance(tree, port, now, slot);
                self.dirty.push(slot);
            }
        }
    }

    /// Whether [`Worker::retry`] has anything to do.
    pub fn is_stalled(&self) -> bool {
        !self.stalled.is_empty() || self.has_ready()
    }

    /// Refuses a client that has not shown who it is. Its connection is closed after that; its session lives.
    fn turn_away(&mut self, now: Duration, since: Duration, slot: u32, op: OpCode, xid: Xid, error: ErrorCode) {
        self.counters.auth_failures += 1;
        let header = ReplyHeader { xid, zxid: Zxid::ZERO, error: error.code() };
        self.answer(now, since, slot, op, header, &Response::Empty);
        self.conns[slot as usize].phase = Phase::Closing;
    }

    fn answer(
        &mut self,
        now: Duration,
        since: Duration,
        slot: u32,
        op: OpCode,
        header: ReplyHeader,
        body: &Response<'_>,
    ) {
        let out = &mut self.conns[slot as usize].out;
        out.put_frame(|out| {
            header.encode(out);
            body.encode(out);
        });
        self.count_answer(now, since, slot, op, header.xid, header.zxid);
    }

    fn count_answer(&mut self, now: Duration, since: Duration, slot: u32, op: OpCode, xid: Xid, zxid: Zxid) {
        let conn = &mut self.conns[slot as usize];
        assert!(zxid.0 <= 0 || zxid >= conn.counters.last_zxid, "what a session sees never goes back");
        let us = now.saturating_sub(since).as_micros() as u64;
        conn.counters.answered(now, us, op, xid, zxid);
        self.counters.sent += 1;
        self.counters.latency.add(us);
        if !conn.dirty {
            conn.dirty = true;
            self.dirty.push(slot);
        }
    }

    /// Nothing more is said on this connection: it is closed once what was said before is out.
    pub fn hang_up(&mut self, slot: u32) {
        self.conns[slot as usize].phase = Phase::Closing;
        self.dirty.push(slot);
    }

    fn slot(&self, id: ConnId) -> Option<u32> {
        self.conns.get(id.slot as usize).filter(|conn| conn.generation == id.generation).map(|_| id.slot)
    }

    /// How many connections have something to send, at most.
    pub fn dirty(&self) -> usize {
        self.dirty.len()
    }

    /// The connections that have something to send, or to be closed, or may be read again, since the last call. One may be
    /// named twice, or be gone.
    pub fn take_dirty(&mut self, into: &mut Vec<u32>) {
        into.append(&mut self.dirty);
    }

    /// What a connection has to send, and whether to close it after that. `None` if it is gone.
    pub fn output(&mut self, slot: u32) -> Option<(&mut ByteQueue, bool)> {
        let conn = self.conns.get_mut(slot as usize)?;
        conn.dirty = false;
        let closing = matches!(conn.phase, Phase::Closing);
        Some((&mut conn.out, closing))
    }

    /// The sessions that were heard of since the last call.
    pub fn take_heard(&mut self) -> Vec<SessionId> {
        let heard = |conn: &mut Conn| match conn.phase {
            Phase::Open(session) if std::mem::take(&mut conn.heard) => Some(session),
            _ => None,
        };
        let mut sessions = std::mem::take(&mut self.left);
        sessions.extend(self.conns.iter_mut().filter_map(|(_, conn)| heard(conn)));
        sessions
    }

    /// Whether everything that the connection asked for is answered.
    pub fn is_idle(&self, slot: u32) -> bool {
        self.conns[slot as usize].waiting.is_empty()
    }

    /// Whether the connection has shaken hands, or is about to.
    pub fn has_session(&self, slot: u32) -> bool {
        !matches!(self.conns[slot as usize].phase, Phase::New)
    }

    /// Requests that are on their way.
    pub fn outstanding(&self) -> usize {
        self.outstanding
    }

    /// Watches there are.
    pub fn watches(&self) -> &Watches {
        &self.watches
    }

    /// Which sessions watch the data of which nodes.
    pub fn watched(&self) -> Vec<(SessionId, Vec<Arc<str>>)> {
        let session = |slot: u32| self.conns[slot as usize].session.map_or(SessionId::NONE, |(session, _)| session);
        let listed = self.watches.listed().filter(|(_, paths)| !paths.is_empty());
        listed.map(|(slot, paths)| (session(slot), paths)).collect()
    }

    /// What is counted of each connection begins anew (`crst`).
    pub fn reset_connections(&mut self) {
        self.conns.iter_mut().for_each(|(_, conn)| conn.counters.reset());
    }

    /// What is counted of requests begins anew (`srst`).
    pub fn reset_counters(&mut self) {
        let WorkerCounters { slow_watchers, auth_failures, .. } = self.counters;
        self.counters = WorkerCounters { slow_watchers, auth_failures, ..WorkerCounters::default() };
    }

    /// Counters over all connections.
    pub fn counters(&self) -> WorkerCounters {
        self.counters
    }

    /// What is held for its clients.
    pub fn held(&self) -> impl Iterator<Item = Held> {
        let of = |(_, conn): (usize, &Conn)| conn.held_for_client();
        self.conns.iter().flat_map(of).chain([self.sent_bytes.of("writes")])
    }

    /// What is known of one connection, for `cons`: its session and timeout, its counters, requests on their way.
    pub fn describe(&self, slot: u32) -> (Option<(SessionId, i32)>, ConnCounters, usize) {
        let conn = &self.conns[slot as usize];
        (conn.session, conn.counters, conn.waiting.len())
    }
}

/// Whether the replica answers it. One whose body cannot be read is refused in its turn, as a read is; a leader of Apache's would leave it
/// without an answer. But for no path at all there is a transaction, as with Apache's.
fn is_for_replica(op: OpCode, body: &[u8]) -> bool {
    goes_to_replica(op)
        && match Request::decode(op, body) {
            Ok(_) => true,
            Err(JuteError::Null(_)) => matches!(op, OpCode::Create | OpCode::Create2 | OpCode::Delete),
            Err(_) => false,
        }
}

/// As with Apache, that does not keep a session alive: a client that goes on with it for ever is closed with its session.
fn is_sasl(frame: &[u8]) -> bool {
    frame.get(4..8) == Some(&OpCode::Sasl.code().to_be_bytes())
}

fn kind(frame: &[u8]) -> Kind {
    match reads::parse(frame) {
        Some((_, op, body)) if is_for_replica(op, body) => match op {
            OpCode::Sync => Kind::Sync,
            _ => Kind::Write,
        },
        Some(_) if reads::only_looks(frame) => Kind::Read,
        _ => Kind::Other,
    }
}

#[cfg(test)]
mod tests;
