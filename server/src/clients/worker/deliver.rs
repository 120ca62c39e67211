//! What the replica has to tell a core's connections: answers to what they have asked for, and what has changed of what they watch.
//!
//! **Invariant**: what has changed is told before every answer that may show it (R3).
//!
//! **Not here**: what is read from the tree ([`super::reads`]), and what goes on after an answer ([`Worker::retry`]).

use super::Worker;
use super::conn::{Conn, Phase, Slot};
use super::queue::ByteQueue;
use crate::clients::delivery::{Delivery, Item};
use crate::mutation::{self, Mutation};
use crate::requests::goes_to_replica;
use crate::requests::session;
use corral_engine::tree::Change;
use corral_proto::acl::perms;
use corral_proto::{AclList, ConnectResponse, Jute, ReplyHeader, SessionId, WatcherEvent, Xid};
use std::time::Duration;

impl Worker {
    /// Takes what the replica has to tell: events and answers, in the order of their zxids. What waited for these answers goes on
    /// with the next [`Worker::retry`], which must not come before *all* queued deliveries were taken: a held read sees the
    /// newest tree, and everything that led to that must have been told before it is answered.
    pub fn deliver(&mut self, now: Duration, delivery: &Delivery) {
        let mut changes = delivery.changes.iter().flat_map(|changes| changes.iter()).peekable();
        for item in &delivery.items {
            if let Item::Answer { zxid, .. } = item
                && !mutation::is_on(Mutation::EventsFollowAnswers)
            {
                while let Some(change) = changes.next_if(|change| change.zxid <= *zxid) {
                    self.notify(change);
                }
            }
            match item {
                Item::Answer { conn, xid, op, zxid, frame, last } => {
                    if let Some(slot) = self.slot(*conn) {
                        let conn = &mut self.conns[slot as usize];
                        let Some(Slot::Sent { xid: asked, since, bytes, goes_along }) = conn.waiting.pop_front() else {
                            panic!("an answer without a request");
                        };
                        conn.sent -= 1;
                        conn.reads_sent -= usize::from(goes_along);
                        self.outstanding -= 1;
                        self.sent -= 1;
                        self.sent_bytes.give_back(bytes);
                        // A connection that is being closed has heard its last word.
                        if !matches!(conn.phase, Phase::Open(_)) {
                            continue;
                        }
                        assert!(asked == *xid, "answers come in the order of the requests");
                        conn.out.extend(&delivery.bytes[frame.clone()]);
                        if goes_to_replica(*op) {
                            conn.unsent.get_or_insert((delivery.applied, 0)).1 += 1;
                        }
                        if *last {
                            conn.phase = Phase::Closing;
                        }
                        if conn.sent < conn.waiting.len() {
                            self.ready.push(slot);
                        }
                        self.count_answer(now, since, slot, *op, *xid, *zxid);
                    }
                }
                Item::Session { conn, opened } => {
                    if let Some(slot) = self.slot(*conn) {
                        self.session(slot, *opened);
                    }
                }
                Item::Close { conn } => {
                    if let Some(slot) = self.slot(*conn) {
                        // Whoever lost the session is told nothing more, not even what was on its way to it; but who has closed it
                        // itself hears that, whatever it sent behind.
                        if !matches!(self.conns[slot as usize].phase, Phase::Closing) {
                            self.conns[slot as usize].out = ByteQueue::default();
                        }
                        self.hang_up(slot);
                    }
                }
                Item::CloseAll => {
                    let served = |(slot, conn): (usize, &Conn)| match conn.phase {
                        Phase::Open(_) | Phase::Opening { .. } => Some(slot as u32),
                        Phase::New | Phase::Closing => None,
                    };
                    let served: Vec<u32> = self.conns.iter().filter_map(served).collect();
                    served.into_iter().for_each(|slot| self.hang_up(slot));
                }
            }
        }
        changes.for_each(|change| self.notify(change));
    }

    fn session(&mut self, slot: u32, opened: Option<(SessionId, i32)>) {
        let conn = &mut self.conns[slot as usize];
        let Phase::Opening { read_only } = conn.phase else { return };
        let read_only = read_only.map(|_| false);
        let response = match opened {
            Some((session_id, timeout_ms)) => {
                conn.phase = Phase::Open(session_id);
                conn.session = Some((session_id, timeout_ms));
                ConnectResponse { timeout_ms, session_id, password: session::password(session_id), read_only }
            }
            None => {
                conn.phase = Phase::Closing;
                ConnectResponse { read_only, ..ConnectResponse::REFUSED }
            }
        };
        conn.out.put_frame(|out| response.encode(out));
        self.dirty.push(slot);
    }

    fn notify(&mut self, change: &Change) {
        for slot in self.watches.fire(change) {
            let acl = AclList::from_encoded(&change.acl).expect("the tree's own list");
            let conn = &mut self.conns[slot as usize];
            // The watch is used up all the same (CVE-2024-23944).
            if !self.options.access.allows(&conn.who, acl, perms::READ) || !matches!(conn.phase, Phase::Open(_)) {
                continue;
            }
            let before = conn.out.rest().len();
            conn.out.put_frame(|out| {
                ReplyHeader { xid: Xid::NOTIFICATION, zxid: change.zxid, error: 0 }.encode(out);
                WatcherEvent { kind: change.kind, path: &change.path }.encode(out);
            });
            conn.counters.sent += 1;
            self.counters.sent += 1;
            conn.events.hold(conn.out.rest().len() - before);
            if conn.events.is_exceeded() {
                self.counters.slow_watchers += 1;
                conn.out = ByteQueue::default();
                conn.phase = Phase::Closing;
            }
            self.dirty.push(slot);
        }
    }
}
