//! What one connection may make the worker keep, and what happens when the replica has no room.

use super::*;
use corral_proto::request::AddWatchMode;

#[test]
fn a_full_replica_makes_requests_wait_in_their_order() {
    let mut rig = Rig::new();
    rig.elsewhere(create("/a"));
    let (a, b) = (rig.connect(), rig.connect());
    rig.port.room = 0;
    rig.ask(a, 1, set("/a"));
    rig.ask(a, 2, get("/a"));
    rig.ask(a, 3, set("/a"));
    rig.ask(b, 1, set("/a"));
    assert!(rig.worker.is_stalled());
    rig.ask(b, 2, set("/a"));
    assert_eq!((rig.sent(), rig.worker.outstanding()), (vec![], 5));
    rig.dirty();
    rig.retry();
    assert!(rig.worker.is_stalled(), "there is no room yet");
    rig.dirty();
    rig.port.room = 1;
    rig.retry();
    assert_eq!(rig.sent(), [1]);
    assert!(rig.dirty().contains(&a), "with less to keep, its socket may be wanted again");
    assert_eq!((rig.told(a), rig.told(b)), (vec![], vec![]));
    assert!(rig.worker.is_stalled(), "B still waits");
    rig.settle();
    assert!(!rig.worker.is_stalled());
    assert_eq!(rig.told(a), ["1: ok v1 @2", "2: ok set v1 @2", "3: ok v2 @3"]);
    assert_eq!(rig.told(b), ["1: ok v3 @4", "2: ok v4 @5"]);
    assert_eq!(rig.worker.outstanding(), 0);
}

/// Nobody rings when there is room again for these; the answer to the write that was sent lets them go.
#[test]
fn a_write_that_finds_no_room_behind_another_goes_after_it() {
    let mut rig = Rig::new();
    rig.elsewhere(create("/a"));
    let a = rig.connect();
    rig.port.room = 2;
    for xid in 1..=5 {
        rig.ask(a, xid, set("/a"));
    }
    assert_eq!(rig.sent(), [1, 2]);
    rig.apply();
    rig.hand_over();
    assert_eq!(rig.sent(), [2, 3]);
    rig.port.room = 1;
    rig.apply();
    rig.hand_over();
    assert_eq!(rig.sent(), [3]);
    rig.settle();
    let answers: Vec<String> = (1..=5).map(|n| format!("{n}: ok v{n} @{}", n + 1)).collect();
    assert_eq!(rig.told(a), answers);
}

#[test]
fn a_handshake_that_finds_no_room_is_refused_by_closing() {
    let mut rig = Rig::new();
    rig.port.room = 0;
    for session in [SessionId::NONE, SessionId(5)] {
        let a = rig.accept();
        assert!(!rig.raw(a, &hello(session).to_vec()));
        assert!(rig.is_closing(a) && rig.bytes(a).is_empty());
        assert_eq!(rig.dirty(), [a]);
    }
}

#[test]
fn a_connection_with_too_many_requests_is_not_read_until_they_are_answered() {
    let mut rig = Rig::with_outstanding_max(usize::MAX);
    let a = rig.connect();
    rig.ask(a, 1, create("/a"));
    for held in 1..HELD_MAX {
        let flow = rig.ask(a, 2, Request::Ping);
        assert_eq!(flow, held + 1 < HELD_MAX, "{held} requests are held");
    }
    rig.dirty();
    rig.settle();
    assert!(rig.worker.wants_more(a));
    assert_eq!(rig.dirty(), [a], "somebody must look at the socket again");
    assert_eq!(rig.told(a).len(), HELD_MAX);
}

/// A client that does not read: what it asks for further waits until it has taken what there is, reads and writes
/// alike.
#[test]
fn nothing_more_is_done_for_a_client_that_does_not_read() {
    let mut rig = Rig::new();
    let data = vec![b'x'; Bounds::PRODUCTION.answers / 4];
    rig.elsewhere(create("/a"));
    rig.elsewhere(Request::SetData(SetDataRequest { path: "/a", data: Some(&data), version: -1 }));
    let a = rig.connect();
    rig.ask(a, 1, set("/missing"));
    for xid in 2..=7 {
        assert!(rig.ask(a, xid, get("/a")), "what is held is small");
    }
    rig.ask(a, 8, set("/a"));
    rig.apply();
    rig.hand_over();
    assert!(!rig.worker.wants_more(a));
    assert_eq!((rig.worker.outstanding(), rig.sent()), (3, vec![]), "four answers fill its buffer");
    rig.retry();
    assert_eq!((rig.worker.outstanding(), rig.worker.has_ready()), (3, false));
    let first = rig.some_bytes(a, 10);
    assert!(!rig.worker.has_ready(), "that was not enough");
    let rest = rig.bytes(a);
    assert!(rig.worker.has_ready() && rig.worker.wants_more(a));
    rig.read(a, &[first, rest].concat());
    rig.settle();
    let told = rig.told(a);
    assert_eq!((told.len(), told[2].as_str()), (3, "8: ok v2 @4"));
    assert_eq!(rig.worker.outstanding(), 0);
}

#[test]
fn a_connection_with_too_many_held_bytes_is_not_read_until_they_are_gone() {
    let mut rig = Rig::new();
    let a = rig.connect();
    let data = vec![b'x'; Bounds::PRODUCTION.requests / 2];
    let large = Request::SetData(SetDataRequest { path: "/a", data: Some(&data), version: -1 });
    rig.ask(a, 1, create("/a"));
    // Behind a write another one is sent at once, however large; it is the read that makes them wait.
    assert!(rig.ask(a, 2, large));
    assert!(rig.ask(a, 3, Request::GetData(PathWatch { path: "/missing", watch: true })));
    assert!(rig.ask(a, 4, large));
    assert!(!rig.ask(a, 5, large));
    rig.apply();
    rig.hand_over();
    assert!(!rig.worker.wants_more(a));
    rig.apply();
    rig.hand_over();
    assert_eq!(rig.sent(), [4, 5]);
    assert!(rig.worker.wants_more(a), "what was sent is not kept here");
    rig.settle();
    assert_eq!(rig.told(a).len(), 5);
}

/// `globalOutstandingLimit`, section 8.5 of the reference: whoever has something outstanding is not read any more;
/// whoever has not may still ask, so that it can ping.
#[test]
fn a_crowd_is_not_read_except_for_those_who_wait_for_nothing() {
    let mut rig = Rig::with_outstanding_max(3);
    let (a, b, c) = (rig.connect(), rig.connect(), rig.connect());
    assert!(rig.ask(a, 1, create("/a")));
    assert!(rig.ask(a, 2, Request::Ping));
    assert!(rig.ask(b, 1, create("/b")));
    assert!(!rig.ask(b, 2, create("/b2")));
    assert!(!rig.worker.wants_more(a) && !rig.worker.wants_more(b) && rig.worker.wants_more(c));
    assert!(rig.ask(c, 1, Request::Ping));
    assert_eq!(rig.told(c), ["-2: ok @0"]);
    assert!(!rig.ask(c, 2, create("/c")), "now it has something outstanding too");
    rig.dirty();
    rig.apply();
    rig.apply();
    rig.hand_over();
    assert_eq!(rig.worker.outstanding(), 2);
    assert!([a, b, c].into_iter().all(|slot| rig.worker.wants_more(slot)));
    assert!(rig.dirty().contains(&a));
    rig.settle();
    assert!(rig.dirty().contains(&c), "each is named when its own answer comes");
}

/// `throttled_op_wait_time`, section 8.5 of the reference. Pings are never refused, nor is the end of a session.
#[test]
fn who_has_waited_too_long_is_refused_where_that_is_wanted() {
    let mut rig = Rig::throttled(1000, Access::default(), Some(Duration::from_millis(5)));
    let a = rig.connect();
    rig.ask(a, 1, create("/a"));
    rig.ask(a, 2, watch("/"));
    rig.now += Duration::from_millis(4);
    rig.ask(a, 3, watch("/a"));
    rig.ask(a, 4, Request::Ping);
    rig.now += Duration::from_millis(4);
    rig.apply();
    rig.hand_over();
    assert_eq!(rig.told(a), ["1: ok /a @1", "2: ThrottledOp @1", "3: ok new v0 @1", "-2: ok @1"]);
    rig.ask(a, 5, Request::CloseSession);
    rig.now += Duration::from_millis(40);
    rig.settle();
    assert_eq!(rig.told(a), ["5: ok @2"]);
}

/// A place in the table is given to the next connection; what was meant for the last one must not reach it.
#[test]
fn what_is_told_to_a_connection_that_is_gone_is_not_told_to_the_next_one() {
    let mut rig = Rig::new();
    let old = rig.connect();
    rig.ask(old, 1, create("/a"));
    rig.ask(old, 2, watch("/"));
    rig.ask(old, 3, create("/b"));
    let id = rig.clients[&old].id;
    rig.close(old);
    assert_eq!(rig.worker.outstanding(), 0, "what it waited for is forgotten");
    let new = rig.connect();
    assert_eq!(old, new);
    assert!(rig.clients[&new].id.generation != id.generation);
    rig.ask(new, 1, create("/c"));
    rig.open.items.push(Item::Close { conn: id });
    rig.open.items.push(Item::Session { conn: id, opened: None });
    rig.settle();
    assert_eq!(rig.told(new), ["1: ok /c @2"]);
    assert!(!rig.is_closing(new) && rig.worker.outstanding() == 0);
}

#[test]
fn a_connection_may_go_at_any_moment() {
    let mut rig = Rig::new();
    rig.elsewhere(create("/a"));
    // Before the handshake, in its midst, with watches, with requests that were sent, held, and stalled.
    let before = rig.accept();
    rig.close(before);
    let amid = rig.accept();
    rig.raw(amid, &hello(SessionId::NONE).to_vec());
    let id = rig.clients[&amid].id;
    rig.close(amid);
    rig.open.items.push(Item::Session { conn: id, opened: Some((SessionId(7), TIMEOUT_MS)) });
    rig.hand_over();
    let watching = rig.connect();
    rig.ask(watching, 1, watch("/a"));
    rig.ask(watching, 2, set("/a"));
    rig.ask(watching, 3, watch("/"));
    assert_eq!((rig.worker.watches().len(), rig.worker.outstanding()), (1, 2));
    rig.close(watching);
    assert_eq!((rig.worker.watches().len(), rig.worker.outstanding()), (0, 0));
    rig.port.room = rig.port.writes.len();
    let stalled = rig.connect();
    rig.ask(stalled, 1, set("/a"));
    rig.ask(stalled, 2, set("/a"));
    assert!(rig.worker.is_stalled());
    rig.close(stalled);
    // The place that had something to retry belongs to somebody who has nothing.
    let new = rig.connect();
    rig.ask(new, 1, get("/a"));
    rig.settle();
    assert_eq!(rig.told(new), ["1: ok new v0 @1"]);
    assert_eq!((rig.sent(), rig.worker.outstanding()), (vec![], 0));
}

/// Whoever watches and does not read would have everything that happens kept for it.
#[test]
fn a_watcher_that_does_not_read_is_disconnected_at_a_bound() {
    let mut rig = Rig::new();
    let path = format!("/{}", "long".repeat(500));
    rig.elsewhere(create(&path));
    let (slow, reads) = (rig.connect(), rig.connect());
    for client in [slow, reads] {
        rig.ask(client, 1, Request::AddWatch(&path, AddWatchMode::Persistent));
        rig.told(client);
        rig.worker.sent(client);
    }
    for _ in 0..=Bounds::PRODUCTION.events / path.len() {
        rig.elsewhere(set(&path));
        rig.hand_over();
        assert!(rig.worker.output(slow).expect("an open connection").0.rest().len() <= Bounds::PRODUCTION.events);
        let (out, _) = rig.worker.output(reads).expect("an open connection");
        let len = out.rest().len();
        assert!(len > 0);
        out.advance(len);
        rig.worker.sent(reads);
    }
    assert!(rig.is_closing(slow) && !rig.is_closing(reads));
    assert_eq!(rig.worker.counters().slow_watchers, 1);
}
