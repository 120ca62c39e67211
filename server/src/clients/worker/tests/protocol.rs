//! Handshakes, refusals, last words, watches that are set again: what clients see besides order.

use super::*;

#[test]
fn a_ping_is_answered_with_its_own_xid_whatever_was_asked() {
    let mut rig = Rig::new();
    rig.elsewhere(create("/a"));
    let a = rig.connect();
    for xid in [-2, 55, 0, i32::MIN] {
        rig.ask(a, xid, Request::Ping);
        assert_eq!(rig.told(a), ["-2: ok @1"]);
    }
    // Its place in the order is that of any other request.
    rig.ask(a, 1, set("/a"));
    rig.ask(a, -2, Request::Ping);
    assert_eq!(rig.told(a), [""; 0]);
    rig.settle();
    assert_eq!(rig.told(a), ["1: ok v1 @2", "-2: ok @2"]);
}

#[test]
fn an_operation_that_nobody_knows_is_refused_and_the_connection_closed() {
    // 13, -10 and -1 are operations, but none that a client may ask for by itself.
    for op in [0, 10, 13, 20, 99, 108, -1, -10, i32::MAX] {
        let mut rig = Rig::new();
        let a = rig.connect();
        rig.dirty();
        assert!(!rig.raw(a, &frame(77, op, b"whatever")));
        assert!(rig.is_closing(a));
        assert_eq!(rig.dirty(), [a]);
        let expected = [&16u32.to_be_bytes()[..], &frame(77, -1, &[0xff; 4]), &(-6i32).to_be_bytes()].concat();
        assert_eq!(rig.bytes(a), expected, "operation {op}: xid 77, zxid -1, error -6");
        rig.raw(a, &frame(78, 11, &[]));
        assert!(rig.bytes(a).is_empty(), "nothing more is read");
    }
}

#[test]
fn an_unknown_operation_waits_for_its_turn_and_ends_everything_behind_it() {
    let mut rig = Rig::new();
    let a = rig.connect();
    rig.ask(a, 1, create("/a"));
    rig.raw(a, &frame(2, 99, &[]));
    rig.ask(a, 3, create("/b"));
    rig.ask(a, 4, Request::Ping);
    rig.settle();
    let bytes = rig.bytes(a);
    assert_eq!(bytes.len(), 4 + 16 + 4 + 2 + 4 + 16, "the answer to the create and the refusal, nothing else");
    assert_eq!(bytes[26..34], [0, 0, 0, 16, 0, 0, 0, 2]);
    assert!(rig.is_closing(a) && rig.tree.find("/b").is_none());
}

#[test]
fn a_frame_without_a_whole_header_closes_without_a_word() {
    for len in 0..8 {
        let mut rig = Rig::new();
        let a = rig.connect();
        assert!(!rig.raw(a, &vec![0; len]));
        assert!(rig.is_closing(a) && rig.bytes(a).is_empty());
    }
}

/// The last word is the last: whatever happens before the bytes are out, nobody hears of it.
#[test]
fn nothing_is_said_after_the_last_word() {
    let last_words: [fn(&mut Rig, u32); 4] = [
        |rig, a| _ = rig.raw(a, &frame(9, 99, &[])),
        |rig, a| _ = rig.raw(a, &frame(9, OpCode::Auth.code(), &[0xff; 12])),
        |rig, a| {
            rig.raw(a, &frame(9, OpCode::CloseSession.code(), &[]));
            rig.apply();
            rig.hand_over();
        },
        |rig, a| {
            let conn = rig.clients[&a].id;
            rig.open.items.push(Item::Close { conn });
            rig.hand_over();
        },
    ];
    for (index, last_word) in last_words.iter().enumerate() {
        let mut rig = Rig::new();
        rig.elsewhere(create("/a"));
        let a = rig.connect();
        rig.ask(a, 1, watch("/a"));
        last_word(&mut rig, a);
        assert!(rig.is_closing(a));
        rig.bytes(a);
        rig.elsewhere(set("/a"));
        rig.hand_over();
        assert_eq!(rig.bytes(a), [0; 0], "after last word {index}");
    }
}

/// A session that was taken over: its former connection is closed without a word, also if answers to it are on their
/// way.
#[test]
fn a_connection_that_lost_its_session_hears_no_answers() {
    let mut rig = Rig::new();
    let a = rig.connect();
    rig.ask(a, 1, create("/a"));
    rig.ask(a, 2, get("/a"));
    let conn = rig.clients[&a].id;
    rig.open.items.push(Item::Close { conn });
    rig.settle();
    assert!(rig.is_closing(a));
    assert_eq!(rig.bytes(a), [0; 0]);
}

#[test]
fn close_session_is_the_last_answer() {
    let mut rig = Rig::new();
    let a = rig.connect();
    rig.ask(a, 1, create("/a"));
    rig.ask(a, 2, get("/a"));
    rig.ask(a, 3, Request::CloseSession);
    let watched = Request::GetData(PathWatch { path: "/a", watch: true });
    rig.raw(a, &frame(4, OpCode::GetData.code(), &watched.to_vec()));
    rig.raw(a, &frame(5, OpCode::Create.code(), &create("/b").to_vec()));
    rig.apply();
    rig.hand_over();
    assert!(!rig.is_closing(a));
    assert_eq!(rig.told(a), ["1: ok /a @1"]);
    rig.settle();
    assert_eq!(rig.told(a), ["2: ok new v0 @1", "3: ok @2"]);
    assert!(rig.is_closing(a));
    assert!(rig.tree.find("/b").is_none(), "what came behind it is not carried out");
}

#[test]
fn the_read_only_flag_is_answered_only_to_those_who_sent_it() {
    for (read_only, len) in [(None, 36), (Some(false), 37), (Some(true), 37)] {
        let mut rig = Rig::new();
        let a = rig.accept();
        rig.raw(a, &ConnectRequest { read_only, ..hello(SessionId::NONE) }.to_vec());
        rig.welcome(a, Some((SessionId(0x77), 8000)));
        let bytes = rig.bytes(a);
        assert_eq!(bytes.len(), 4 + len);
        let answer = ConnectResponse::decode(&bytes[4..]).unwrap();
        assert_eq!((answer.session_id, answer.timeout_ms), (SessionId(0x77), 8000));
        assert_eq!(answer.password, session::password(SessionId(0x77)));
        assert_eq!(answer.read_only, read_only.map(|_| false), "this server takes writes");
        assert!(rig.worker.wants_more(a));
    }
}

/// Clients know that their session is gone by the zeros, and by nothing else.
#[test]
fn a_refused_session_is_answered_with_zeros_and_closed() {
    for (read_only, len) in [(None, 36u8), (Some(true), 37)] {
        let mut rig = Rig::new();
        let a = rig.accept();
        rig.raw(a, &ConnectRequest { read_only, ..hello(SessionId(5)) }.to_vec());
        rig.welcome(a, None);
        let mut expected = vec![0; 4 + usize::from(len)];
        (expected[3], expected[23]) = (len, 16);
        assert_eq!(rig.bytes(a), expected);
        assert!(rig.is_closing(a) && !rig.worker.wants_more(a));
    }
}

#[test]
fn the_handshake_is_passed_on_with_a_timeout_within_the_limits() {
    for (asked, given) in [(1, 4000), (-5, 4000), (4000, 4000), (9000, 9000), (10_000_000, 40_000)] {
        let mut rig = Rig::new();
        let new = rig.accept();
        rig.raw(new, &ConnectRequest { timeout_ms: asked, ..hello(SessionId::NONE) }.to_vec());
        assert_eq!(rig.port.opened, [(rig.clients[&new].id, given)]);
        for password in [Some(&[7; 16][..]), None, Some(&[])] {
            let known = rig.accept();
            let request = ConnectRequest { timeout_ms: asked, password, ..hello(SessionId(5)) };
            rig.raw(known, &request.to_vec());
            let expected = (rig.clients[&known].id, SessionId(5), password.unwrap_or_default().to_vec(), given);
            assert_eq!(rig.port.renewed.pop(), Some(expected));
        }
    }
}

/// R2: a client that has seen more than we have is not served, new or not.
#[test]
fn a_client_that_has_seen_a_newer_state_is_sent_away_without_a_word() {
    for session in [SessionId::NONE, SessionId(5)] {
        let mut rig = Rig::new();
        rig.elsewhere(create("/a"));
        for (seen, served) in [(0, true), (1, true), (2, false), (i64::MAX, false)] {
            let a = rig.accept();
            rig.raw(a, &ConnectRequest { last_zxid_seen: Zxid(seen), ..hello(session) }.to_vec());
            assert_eq!((rig.is_closing(a), rig.bytes(a)), (!served, vec![]), "zxid {seen}");
        }
        assert_eq!(rig.port.opened.len() + rig.port.renewed.len(), 2);
    }
}

#[test]
fn a_handshake_that_cannot_be_read_is_not_answered() {
    for len in [0, 4, 43] {
        let mut rig = Rig::new();
        let a = rig.accept();
        assert!(!rig.raw(a, &hello(SessionId::NONE).to_vec()[..len]));
        assert!(rig.is_closing(a) && rig.bytes(a).is_empty() && rig.port.opened.is_empty());
    }
}

#[test]
fn bodies_that_cannot_be_read_are_answered_and_the_connection_stays() {
    let mut rig = Rig::new();
    let a = rig.connect();
    let null_path = [0xff, 0xff, 0xff, 0xff, 0];
    let no_lists = [[0; 8], [0xff; 8]].concat();
    let not_utf8 = [0, 0, 0, 2, b'/', 0xff, 0];
    for (op, body, error) in [
        (OpCode::GetData, &[][..], ErrorCode::MarshallingError),
        (OpCode::GetData, &null_path, ErrorCode::MarshallingError),
        (OpCode::Exists, &null_path, ErrorCode::MarshallingError),
        (OpCode::GetChildren, &null_path, ErrorCode::MarshallingError),
        (OpCode::GetChildren2, &null_path[..4], ErrorCode::MarshallingError),
        (OpCode::GetAcl, &null_path, ErrorCode::MarshallingError),
        (OpCode::SetWatches, &no_lists, ErrorCode::MarshallingError),
        // There is no node of that name; and that is no reason to refuse all of a setWatches.
        (OpCode::GetData, &not_utf8, ErrorCode::NoNode),
        (OpCode::Exists, &not_utf8, ErrorCode::NoNode),
        // Writes, too: no leader has to hear of them.
        (OpCode::Create, &not_utf8, ErrorCode::MarshallingError),
        (OpCode::SetData, &[], ErrorCode::MarshallingError),
        (OpCode::Multi, &null_path, ErrorCode::MarshallingError),
        (OpCode::Sync, &not_utf8[..4], ErrorCode::MarshallingError),
    ] {
        rig.clients.get_mut(&a).unwrap().asked.push_back(Asked { xid: Xid(1), op, watch: None });
        assert!(rig.raw(a, &frame(1, op.code(), body)));
        assert_eq!(rig.told(a), [format!("1: {error:?} @0")], "{op:?} {body:02x?}");
    }
    assert!(rig.worker.watches().is_empty() && rig.port.writes.is_empty());
    let data = [&[0; 4][..], &not_utf8[..6], &[0, 0, 0, 2], b"/a"].concat();
    let lists = [&[0; 8][..], &[0, 0, 0, 2], &data[4..], &[0; 8]].concat();
    rig.clients.get_mut(&a).unwrap().asked.push_back(Asked { xid: Xid(2), op: OpCode::SetWatches, watch: None });
    assert!(rig.raw(a, &frame(2, OpCode::SetWatches.code(), &lists)));
    assert_eq!(rig.told(a), ["NodeDeleted /\u{fffd} @-1", "NodeDeleted /a @-1", "2: ok @0"]);
}

/// Sections 3.4 to 3.10 and 6.2 of the reference.
#[test]
fn reads_answer_and_watch_as_the_reference_says() {
    let mut rig = Rig::new();
    let blind = encode_acls([Acl { perms: 2, scheme: Some("world"), id: Some("anyone") }].into_iter());
    rig.elsewhere(create("/a"));
    rig.elsewhere(create("/a/b"));
    rig.elsewhere(create("/blind"));
    let acl = AclList::from_encoded(&blind).unwrap();
    rig.elsewhere(Request::SetAcl(SetAclRequest { path: "/blind", acl, version: -1 }));
    let a = rig.connect();
    let rows = [
        (get("/a"), "ok new v0", 0),
        (get(""), "ok  v0", 0),
        (get("/missing"), "NoNode", 0),
        (get("nolead"), "NoNode", 0),
        (watch("/missing"), "NoNode", 0),
        (watch("/blind"), "NoAuth", 0),
        (watch("/a"), "ok new v0", 1),
        (exists("/a"), "ok v0", 1),
        (exists("/missing"), "NoNode", 2),
        (exists("/blind"), "NoAuth", 2),
        (exists("/\0"), "BadArguments", 2),
        (children("/a"), "ok [b]", 3),
        (Request::GetChildren2(PathWatch { path: "/a", watch: true }), "ok [b]", 3),
        (children("/missing"), "NoNode", 3),
        (children("/blind"), "NoAuth", 3),
        (Request::GetAcl("/a"), "ok world:anyone:31", 3),
        (Request::GetAcl("/blind"), "NoAuth", 3),
        (Request::GetAcl("/missing"), "NoNode", 3),
    ];
    for (request, expected, watches) in rows {
        rig.ask(a, 1, request);
        assert_eq!(rig.told(a), [format!("1: {expected} @4")], "{request:?}");
        assert_eq!(rig.worker.watches().len(), watches, "{request:?}");
    }
    // The root can be read by its other name, but nothing ever happens there.
    rig.clients.get_mut(&a).unwrap().unaccounted = true;
    rig.ask(a, 2, children(""));
    rig.elsewhere(create("/c"));
    rig.hand_over();
    assert_eq!(rig.told(a).len(), 1);
}

/// Section 3.15 of the reference. Nobody sees a write between two reads of one multiRead (R4).
#[test]
fn a_multi_read_answers_each_read_by_itself() {
    let mut rig = Rig::new();
    rig.elsewhere(create("/a"));
    rig.elsewhere(create("/a/b"));
    rig.elsewhere(create("/a/c"));
    let a = rig.connect();
    let mut raw = Vec::new();
    let ops =
        [ReadOp::GetChildren("/a"), ReadOp::GetData("/none"), ReadOp::GetData("/a/b"), ReadOp::GetChildren("/a/b")];
    ops.iter().for_each(|op| op.encode_into(&mut raw));
    rig.ask(a, 1, Request::MultiRead(MultiReadRequest::from_encoded(ops.len(), &raw)));
    assert_eq!(rig.told(a), ["1: ok [c b] NoNode new v0 [] @3"]);
    // A write in it is no read.
    let mut write = Vec::new();
    MultiOp::Check(PathVersion { path: "/a", version: -1 }).encode_into(&mut write);
    let body = MultiRequest::from_encoded(1, &write).to_vec();
    rig.clients.get_mut(&a).unwrap().asked.push_back(Asked { xid: Xid(2), op: OpCode::MultiRead, watch: None });
    rig.raw(a, &frame(2, OpCode::MultiRead.code(), &body));
    assert_eq!(rig.told(a), ["2: MarshallingError @3"]);
}

/// Sections 3.16 and 6 of the reference.
#[test]
fn watches_that_stay_are_told_of_everything_until_they_are_removed() {
    use corral_proto::request::{AddWatchMode, WatcherType};
    let mut rig = Rig::new();
    let a = rig.connect();
    rig.clients.get_mut(&a).unwrap().unaccounted = true;
    rig.ask(a, 1, Request::AddWatch("/a", AddWatchMode::Recursive));
    rig.ask(a, 2, Request::AddWatch("/b", AddWatchMode::Persistent));
    assert_eq!(rig.told(a), ["1: ok @0", "2: ok @0"]);
    for request in [create("/a"), create("/a/b"), set("/a/b"), set("/a/b"), create("/b"), create("/b/c"), set("/b")] {
        rig.elsewhere(request);
    }
    rig.hand_over();
    let expected = [
        "NodeCreated /a @1",
        "NodeCreated /a/b @2",
        "NodeDataChanged /a/b @3",
        "NodeDataChanged /a/b @4",
        "NodeCreated /b @5",
        "NodeChildrenChanged /b @6",
        "NodeDataChanged /b @7",
    ];
    assert_eq!(rig.told(a), expected);
    for (xid, request, expected) in [
        (3, Request::CheckWatches("/a", WatcherType::Recursive), "ok"),
        (4, Request::CheckWatches("/a", WatcherType::Data), "NoWatcher"),
        (5, Request::RemoveWatches("/a", WatcherType::Persistent), "NoWatcher"),
        (6, Request::RemoveWatches("/a", WatcherType::Recursive), "ok"),
        (7, Request::RemoveWatches("/b", WatcherType::Any), "ok"),
        (8, Request::CheckWatches("/b", WatcherType::Any), "NoWatcher"),
    ] {
        rig.ask(a, xid, request);
        assert_eq!(rig.told(a), [format!("{xid}: {expected} @7")]);
    }
    rig.elsewhere(set("/a"));
    rig.hand_over();
    assert_eq!(rig.told(a), [""; 0]);
    // After a reconnect they are set again, and what was missed is not made up for.
    let mut names = Vec::new();
    corral_proto::jute::put_string(&mut names, "/a");
    let (one, none) = (StrList::from_encoded(1, &names), StrList::EMPTY);
    let again = SetWatchesRequest {
        relative_zxid: Zxid(1),
        data: none,
        exist: none,
        child: none,
        persistent: none,
        recursive: one,
    };
    rig.ask(a, 9, Request::SetWatches2(again));
    assert_eq!(rig.told(a), ["9: ok @8"]);
    rig.elsewhere(set("/a/b"));
    rig.hand_over();
    assert_eq!(rig.told(a), ["NodeDataChanged /a/b @9"]);
}

/// CVE-2024-23944: who may not read a node does not hear of it either; the watch is used up all the same.
#[test]
fn events_of_nodes_that_may_not_be_read_are_not_told() {
    let mut rig = Rig::new();
    let blind = encode_acls([Acl { perms: 2, scheme: Some("world"), id: Some("anyone") }].into_iter());
    let acl = AclList::from_encoded(&blind).unwrap();
    rig.elsewhere(create("/a"));
    let a = rig.connect();
    rig.ask(a, 1, watch("/a"));
    rig.ask(a, 2, exists("/secret"));
    rig.told(a);
    rig.elsewhere(Request::SetAcl(SetAclRequest { path: "/a", acl, version: -1 }));
    rig.elsewhere(set("/a"));
    rig.elsewhere(Request::Create(CreateRequest { path: "/secret", data: None, acl, flags: 0 }));
    rig.hand_over();
    assert_eq!(rig.told(a), [""; 0]);
    assert!(rig.worker.watches().is_empty());
}

/// The table of section 6.6 of the reference. What is told at once is not watched any more.
#[test]
fn watches_that_are_set_again_are_told_what_they_missed() {
    let mut rig = Rig::new();
    for path in ["/old", "/set", "/grown"] {
        rig.elsewhere(create(path));
    }
    rig.elsewhere(set("/set"));
    rig.elsewhere(create("/grown/kid"));
    let a = rig.connect();
    let list = |paths: &[&str]| {
        let mut raw = Vec::new();
        paths.iter().for_each(|path| put_string(&mut raw, path));
        raw
    };
    let (data, exist, child) =
        (list(&["/old", "/set", "/gone", "/grown"]), list(&["/old", "/coming"]), list(&["/old", "/grown", "/gone"]));
    rig.ask(
        a,
        -8,
        Request::SetWatches(SetWatchesRequest {
            relative_zxid: Zxid(3),
            data: StrList::from_encoded(4, &data),
            exist: StrList::from_encoded(2, &exist),
            child: StrList::from_encoded(3, &child),
            persistent: StrList::EMPTY,
            recursive: StrList::EMPTY,
        }),
    );
    let told = [
        "NodeDataChanged /set @-1",
        "NodeDeleted /gone @-1",
        "NodeCreated /old @-1",
        "NodeChildrenChanged /grown @-1",
        "NodeDeleted /gone @-1",
        "-8: ok @5",
    ];
    assert_eq!(rig.told(a), told);
    assert_eq!(rig.worker.watches().len(), 4);
    for request in [set("/set"), create("/gone"), set("/old"), create("/coming"), set("/grown"), create("/old/kid")] {
        rig.elsewhere(request);
    }
    rig.hand_over();
    let told = [
        "NodeDataChanged /old @8",
        "NodeCreated /coming @9",
        "NodeDataChanged /grown @10",
        "NodeChildrenChanged /old @11",
    ];
    assert_eq!(rig.told(a), told);
}

#[test]
fn sessions_are_heard_of_once_for_all_their_requests() {
    let mut rig = Rig::new();
    let (a, b) = (rig.connect(), rig.connect());
    let _ = rig.accept();
    assert_eq!(rig.worker.take_heard(), []);
    rig.ask(a, 1, Request::Ping);
    rig.ask(a, 1, Request::Ping);
    assert_eq!(rig.worker.take_heard(), [SessionId(0x101)]);
    assert_eq!(rig.worker.take_heard(), []);
    rig.ask(b, 1, create("/b"));
    rig.ask(a, 1, Request::Ping);
    assert_eq!(rig.worker.take_heard(), [SessionId(0x101), SessionId(0x102)]);
}

#[test]
fn latencies_count_from_the_arrival_also_for_what_was_held() {
    let mut rig = Rig::new();
    let a = rig.connect();
    rig.ask(a, 1, create("/a"));
    rig.now += Duration::from_micros(300);
    rig.ask(a, 2, get("/a"));
    rig.now += Duration::from_micros(200);
    rig.settle();
    assert_eq!(rig.told(a).len(), 2);
    let counters = rig.worker.counters();
    let latency = counters.latency;
    assert_eq!((latency.max_us, latency.min_us, latency.sum_us), (500, 200, 700));
    assert_eq!((counters.received, counters.latency.count, counters.sent), (2, 2, 2));
    let (session, counters, waiting) = rig.worker.describe(a);
    assert_eq!((session, waiting), (Some((SessionId(0x101), TIMEOUT_MS)), 0));
    assert_eq!((counters.last_op, counters.last_xid, counters.last_zxid), (Some(OpCode::GetData), Xid(2), Zxid(1)));
}

/// Sections 3.9 of the reference: prefixes are those of strings, and nothing but a name is asked of the rest.
#[test]
fn a_session_is_told_its_own_ephemeral_nodes_and_anybody_how_many_there_are_below_one() {
    let mut rig = Rig::new();
    let a = rig.connect();
    for (path, flags) in [("/a", 0), ("/a/mine", 1), ("/ab", 1), ("/b", 0), ("/b/c", 0)] {
        rig.ask(a, 1, Request::Create(CreateRequest { path, data: None, acl: AclList::OPEN, flags }));
        rig.apply();
        rig.hand_over();
    }
    rig.elsewhere(Request::Create(CreateRequest { path: "/theirs", data: None, acl: AclList::OPEN, flags: 1 }));
    rig.hand_over();
    rig.told(a);
    for (prefix, expected) in [
        (None, "[/a/mine /ab]"),
        (Some(""), "[/a/mine /ab]"),
        (Some(" / "), "[/a/mine /ab]"),
        (Some("/a"), "[/a/mine /ab]"),
        (Some("/a/"), "[/a/mine]"),
        (Some("/none"), "[]"),
    ] {
        rig.ask(a, 2, Request::GetEphemerals(prefix));
        assert_eq!(rig.told(a), [format!("2: ok {expected} @6")], "{prefix:?}");
    }
    for (path, expected) in [("/", "9"), ("/a", "1"), ("/b", "1"), ("/b/c", "0")] {
        rig.ask(a, 3, Request::GetAllChildrenNumber(path));
        assert_eq!(rig.told(a), [format!("3: ok {expected} @6")], "{path:?}");
    }
    rig.ask(a, 4, Request::GetAllChildrenNumber("/none"));
    assert_eq!(rig.told(a), ["4: NoNode @6"]);
}
