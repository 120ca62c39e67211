//! Answers in the order of the requests, events before what may reflect them (R1–R3).

use super::*;

#[test]
fn answers_leave_in_the_order_of_the_requests() {
    let mut rig = Rig::new();
    rig.elsewhere(create("/a"));
    let a = rig.connect();
    rig.ask(a, 1, set("/a"));
    rig.ask(a, 2, get("/a"));
    rig.ask(a, 3, Request::Ping);
    rig.ask(a, 4, set("/a"));
    rig.ask(a, 5, set("/missing"));
    rig.ask(a, 6, get("/a"));
    assert_eq!(rig.told(a), [""; 0], "the reads wait for the write before them");
    assert_eq!(rig.sent(), [1], "a write behind a read that waits is not sent: the read must not see it");
    rig.apply();
    rig.hand_over();
    assert_eq!(rig.told(a), ["1: ok v1 @2", "2: ok set v1 @2", "-2: ok @2"]);
    assert_eq!(rig.sent(), [4, 5]);
    rig.settle();
    assert_eq!(rig.told(a), ["4: ok v2 @3", "5: NoNode @4", "6: ok set v2 @4"]);
    assert_eq!(rig.worker.outstanding(), 0);
}

/// That is what fills a batch of the log.
#[test]
fn writes_do_not_wait_for_writes() {
    let mut rig = Rig::new();
    let a = rig.connect();
    for xid in 1..=5 {
        assert!(rig.ask(a, xid, create(&format!("/{xid}"))));
    }
    assert_eq!(rig.sent(), [1, 2, 3, 4, 5]);
    assert_eq!(rig.worker.outstanding(), 5);
    rig.settle();
    let answers: Vec<String> = (1..=5).map(|n| format!("{n}: ok /{n} @{n}")).collect();
    assert_eq!(rig.told(a), answers);
}

#[test]
fn nobody_waits_for_the_writes_of_others() {
    let mut rig = Rig::new();
    let (a, b) = (rig.connect(), rig.connect());
    rig.ask(a, 1, create("/a"));
    rig.ask(b, 1, get("/a"));
    rig.ask(b, 2, Request::Ping);
    assert_eq!(rig.told(b), ["1: NoNode @0", "-2: ok @0"]);
    rig.apply();
    rig.ask(b, 3, get("/a"));
    assert_eq!(rig.told(b), ["3: ok new v0 @1"]);
    assert_eq!(rig.told(a), ["1: ok /a @1"]);
}

#[test]
fn an_event_comes_before_the_answer_to_the_write_that_caused_it() {
    let mut rig = Rig::new();
    rig.elsewhere(create("/a"));
    let a = rig.connect();
    rig.ask(a, 1, watch("/a"));
    rig.ask(a, 2, children("/a"));
    rig.ask(a, 3, exists("/a/b"));
    rig.ask(a, 4, set("/a"));
    rig.ask(a, 5, create("/a/b"));
    while rig.apply() {}
    rig.hand_over();
    let told = [
        "1: ok new v0 @1",
        "2: ok [] @1",
        "3: NoNode @1",
        "NodeDataChanged /a @2",
        "4: ok v1 @2",
        "NodeCreated /a/b @3",
        "NodeChildrenChanged /a @3",
        "5: ok /a/b @3",
    ];
    assert_eq!(rig.told(a), told);
}

/// Changes of others, the connection's own write and again changes of others: events and answers in the order of their
/// zxids, whether they come in one delivery or in several.
#[test]
fn events_and_answers_come_in_the_order_of_their_zxids() {
    for cut in [false, true] {
        let mut rig = Rig::new();
        for path in ["/a", "/b", "/c"] {
            rig.elsewhere(create(path));
        }
        let a = rig.connect();
        for (xid, path) in [(1, "/a"), (2, "/b"), (3, "/c")] {
            rig.ask(a, xid, watch(path));
        }
        rig.told(a);
        rig.ask(a, 4, set("/b"));
        rig.ask(a, 5, delete("/b"));
        for step in 0..4 {
            match step {
                0 => rig.elsewhere(set("/a")),
                3 => rig.elsewhere(set("/c")),
                _ => assert!(rig.apply()),
            }
            if cut {
                rig.cut();
            }
        }
        rig.ask(a, 6, get("/c"));
        let told = [
            "NodeDataChanged /a @4",
            "NodeDataChanged /b @5",
            "4: ok v1 @5",
            "5: ok @6",
            "NodeDataChanged /c @7",
            "6: ok set v1 @7",
        ];
        assert_eq!(rig.told(a), told);
    }
}

/// R4: of a multi's events none comes after its answer, and they come in the order of its parts.
#[test]
fn the_events_of_a_multi_come_together() {
    let mut rig = Rig::new();
    rig.elsewhere(create("/old"));
    let a = rig.connect();
    rig.ask(a, 1, exists("/new"));
    rig.ask(a, 2, watch("/old"));
    rig.ask(a, 3, children("/"));
    rig.told(a);
    let mut ops = Vec::new();
    let request = CreateRequest { path: "/new", data: None, acl: AclList::OPEN, flags: 0 };
    MultiOp::Create(request).encode_into(&mut ops);
    MultiOp::Delete(PathVersion { path: "/old", version: 0 }).encode_into(&mut ops);
    rig.ask(a, 4, Request::Multi(MultiRequest::from_encoded(2, &ops)));
    rig.settle();
    let told = ["NodeCreated /new @2", "NodeChildrenChanged / @2", "NodeDeleted /old @2", "4: ok @2"];
    assert_eq!(rig.told(a), told);
}

#[test]
fn a_watch_is_not_fired_by_a_change_that_the_read_has_seen() {
    let mut rig = Rig::new();
    rig.elsewhere(create("/a"));
    let (a, b) = (rig.connect(), rig.connect());
    // B watches already, so the changes are delivered to this worker.
    rig.ask(b, 1, watch("/a"));
    rig.told(b);
    rig.elsewhere(set("/a"));
    rig.cut();
    rig.elsewhere(set("/a"));
    rig.ask(a, 1, watch("/a"));
    rig.settle();
    assert_eq!(rig.told(a), ["1: ok set v2 @3"]);
    assert_eq!(rig.told(b), ["NodeDataChanged /a @2"]);
    rig.elsewhere(set("/a"));
    rig.hand_over();
    assert_eq!(rig.told(a), ["NodeDataChanged /a @4"]);
}

/// R3 where it is easiest to miss: the answer to a write lets a held read go, and the tree that it reads is ahead of
/// that write. What happened in between must have been told before.
#[test]
fn a_held_read_is_answered_after_every_event_that_it_may_reflect() {
    for cut in [false, true] {
        let mut rig = Rig::new();
        for path in ["/a", "/b"] {
            rig.elsewhere(create(path));
        }
        let a = rig.connect();
        rig.ask(a, 1, watch("/b"));
        rig.ask(a, 2, set("/a"));
        rig.ask(a, 3, get("/b"));
        assert_eq!(rig.told(a), ["1: ok new v0 @2"]);
        rig.apply();
        if cut {
            rig.cut();
        }
        rig.elsewhere(set("/b"));
        rig.hand_over();
        let told = ["2: ok v1 @3", "NodeDataChanged /b @4", "3: ok set v1 @4"];
        assert_eq!(rig.told(a), told, "in one delivery, or (cut = {cut}) in two");
    }
}

/// The same for a watch that the held read sets: what the read has seen is no news.
#[test]
fn a_watch_that_a_held_read_sets_is_not_fired_by_what_the_read_has_seen() {
    for cut in [false, true] {
        let mut rig = Rig::new();
        for path in ["/a", "/b"] {
            rig.elsewhere(create(path));
        }
        let a = rig.connect();
        rig.ask(a, 1, set("/a"));
        rig.ask(a, 2, watch("/b"));
        rig.apply();
        if cut {
            rig.cut();
        }
        rig.elsewhere(set("/b"));
        rig.hand_over();
        assert_eq!(rig.told(a), ["1: ok v1 @3", "2: ok set v1 @4"], "in one delivery, or (cut = {cut}) in two");
        rig.elsewhere(set("/b"));
        rig.hand_over();
        assert_eq!(rig.told(a), ["NodeDataChanged /b @5"]);
    }
}

/// Reads between writes go along with the next write: nothing of a pipeline of both waits for an answer, and each read sees what was
/// written before it and nothing later.
#[test]
fn a_pipeline_of_writes_and_reads_is_sent_at_once() {
    let mut rig = Rig::new();
    rig.elsewhere(create("/a"));
    let a = rig.connect();
    for xid in [1, 3, 5] {
        rig.ask(a, xid, set("/a"));
        rig.ask(a, xid + 1, get("/a"));
    }
    assert_eq!(rig.sent(), [1, 3, 5]);
    rig.settle();
    let told = rig.told(a);
    let versions: Vec<&str> =
        told.iter().filter_map(|line| line.split(' ').find(|word| word.starts_with('v'))).collect();
    assert_eq!(versions, ["v1", "v1", "v2", "v2", "v3", "v3"], "{told:?}");
}

/// A read that leaves a watch is answered by the worker, which has the watches.
#[test]
fn a_read_with_a_watch_goes_along_with_nothing() {
    let mut rig = Rig::new();
    rig.elsewhere(create("/a"));
    let a = rig.connect();
    rig.ask(a, 1, set("/a"));
    rig.ask(a, 2, Request::GetData(PathWatch { path: "/a", watch: true }));
    rig.ask(a, 3, set("/a"));
    assert_eq!(rig.sent(), [1]);
    rig.settle();
    assert_eq!(rig.told(a).len(), 4, "three answers and an event");
}
