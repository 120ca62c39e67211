//! Decisions that depend on what is still on its way: names, sessions, multis, versions; and bodies that cannot be read.

use super::*;

/// ZOOKEEPER-1046: two sessions' creates that are both on their way must not get one number.
#[test]
fn sequential_names_count_what_is_on_its_way() {
    let mut rig = Rig::new();
    rig.ask(create("/q", 0));
    assert_eq!(rig.ask(create("/q/n-", 2)), "create /q/n-0000000000 #1");
    assert_eq!(rig.by(THEM, create("/q/n-", 3)), "create /q/n-0000000001 #2 ephemeral");
    assert_eq!(rig.ask(create("/q/other-", 2)), "create /q/other-0000000002 #3");
    rig.apply_one();
    rig.apply_one();
    assert_eq!(rig.ask(create("/q/n-", 2)), "create /q/n-0000000003 #4");
    rig.apply();
    assert_eq!(rig.ask(create("/q/n-", 2)), "create /q/n-0000000004 #5");
}

/// The count is of creations of any kind; deletions and refusals leave it alone (ZOOKEEPER-1046, ZOOKEEPER-1624).
#[test]
fn sequential_names_count_creations_and_nothing_else() {
    for applied in [false, true] {
        let mut rig = Rig::new();
        rig.ask(create("/q", 0));
        for n in 0..11 {
            rig.ask(create(&format!("/q/{n}"), 0));
        }
        assert_eq!(rig.ask(delete("/q/3", -1)), "delete /q/3");
        if applied {
            rig.apply();
        }
        assert_eq!(rig.ask(create("/q/4", 0)), "NodeExists");
        assert_eq!(rig.ask(create_with("/q/n-", acl(BAD), 2)), "InvalidAcl");
        assert_eq!(rig.ask(create("/q/\u{1}", 2)), "BadArguments");
        let failing = [part(create("/q/n-", 2)), part(create("/q/n-", 2)), part(delete("/missing", -1))];
        assert_eq!(rig.multi(&failing), "[Ok, Ok, NoNode]");
        assert_eq!(rig.ask(create("/q/n-", 2)), "create /q/n-0000000011 #12");
        let passing = [part(create("/q/n-", 2)), part(delete("/q/n-0000000012", 0)), part(create("/q/n-", 2))];
        assert_eq!(
            rig.multi(&passing),
            "[create /q/n-0000000012 #13, delete /q/n-0000000012, create /q/n-0000000013 #14]"
        );
        rig.apply();
        assert_eq!(rig.stat("/q").cversion, 16, "fourteen creations and two deletions");
    }
}

#[test]
fn a_parent_that_is_made_again_counts_from_zero() {
    let mut rig = Rig::new();
    rig.ask(create("/q", 0));
    assert_eq!(rig.ask(create("/q/n-", 2)), "create /q/n-0000000000 #1");
    assert_eq!(rig.ask(delete("/q/n-0000000000", -1)), "delete /q/n-0000000000");
    assert_eq!(rig.ask(delete("/q", -1)), "delete /q");
    assert_eq!(rig.ask(create("/q/n-", 2)), "NoNode");
    assert_eq!(rig.ask(create("/q", 0)), "create /q #2");
    assert_eq!(rig.ask(create("/q/n-", 2)), "create /q/n-0000000000 #1");
    rig.apply();
    assert_eq!(rig.ask(create("/q/n-", 2)), "create /q/n-0000000001 #2");
}

/// Reaching the last number takes 2^31 creations; here the log says that they happened. No name is given twice, and
/// plain names go on. (Apache gives 2147483647 out once and then answers NodeExists, or gives it to another prefix.)
#[test]
fn the_last_sequence_number_is_followed_by_refusals() {
    for applied in [false, true] {
        let mut rig = Rig::new();
        rig.ask(create("/q", 0));
        rig.apply();
        let many = CreateTxn {
            path: "/q/old",
            data: None,
            acl: AclList::OPEN,
            ephemeral: false,
            parent_cversion: i32::MAX - 1,
        };
        rig.decided += 1;
        let header = TxnHeader { session: US, cxid: Xid(1), zxid: Zxid(rig.decided), time_ms: 0 };
        rig.tree.apply(&TxnEntry { header, txn: Txn::Create(many), digest: None }, None);
        assert_eq!(rig.ask(create("/q/n-", 2)), "create /q/n-2147483646 #2147483647");
        if applied {
            rig.apply();
        }
        for _ in 0..2 {
            assert_eq!(rig.ask(create("/q/n-", 2)), "BadArguments");
            assert_eq!(rig.ask(create("/q/other-", 3)), "BadArguments");
            assert_eq!(rig.multi(&[part(create("/q/n-", 2))]), "[BadArguments]");
        }
        assert_eq!(rig.ask(create("/q/plain", 0)), "create /q/plain #2147483647");
        assert_eq!(rig.ask(delete("/q/plain", -1)), "delete /q/plain");
        assert_eq!(rig.ask(create("/q/plain", 0)), "create /q/plain #2147483647");
        rig.apply();
        assert_eq!((rig.stat("/q").pzxid, rig.stat("/q").num_children), (Zxid(rig.decided), 3));
    }
}

#[test]
fn a_path_may_come_and_go_while_all_of_it_is_on_its_way() {
    let mut rig = Rig::new();
    assert_eq!(rig.ask(create("/a", 0)), "create /a #1");
    assert_eq!(rig.ask(create("/a", 0)), "NodeExists");
    assert_eq!(rig.ask(set("/a", 0)), "set /a v1");
    assert_eq!(rig.ask(set_acl("/a", AclList::OPEN, 0)), "acl /a v1");
    assert_eq!(rig.ask(delete("/a", 0)), "BadVersion");
    assert_eq!(rig.ask(delete("/a", 1)), "delete /a");
    assert_eq!(rig.ask(delete("/a", -1)), "NoNode");
    assert_eq!(rig.ask(set("/a", -1)), "NoNode");
    // The second node of that name has nothing of the first one: neither versions nor children nor owner.
    assert_eq!(rig.by(THEM, create("/a", 1)), "create /a #2 ephemeral");
    assert_eq!(rig.ask(create("/a/b", 0)), "NoChildrenForEphemerals");
    assert_eq!(rig.ask(set("/a", 0)), "set /a v1");
    assert_eq!(rig.ask(delete("/a", -1)), "delete /a");
    assert_eq!(rig.ask(create("/a", 0)), "create /a #3");
    assert_eq!(rig.ask(create("/a/b", 0)), "create /a/b #1");
    assert_eq!(rig.ask(delete("/a", -1)), "NotEmpty");
    assert_eq!(rig.ask(delete("/a/b", -1)), "delete /a/b");
    assert_eq!(rig.ask(delete("/a", -1)), "delete /a");
    assert_eq!(rig.ask(create("/a/b", 0)), "NoNode");
    assert_eq!(rig.ask(create("/a", 0)), "create /a #4");
    rig.apply();
    let stat = rig.stat("/a");
    assert_eq!((stat.version, stat.aversion, stat.num_children, stat.ephemeral_owner), (0, 0, 0, SessionId::NONE));
    assert_eq!(rig.stat("/").num_children, 2);
}

/// Section 3.19 of the reference: ephemeral nodes that are still being created are in the list, those that are being
/// deleted are not.
#[test]
fn a_session_takes_along_what_it_has_and_what_is_on_its_way() {
    let mut rig = Rig::new();
    for (session, path, flags) in
        [(US, "/p", 0), (US, "/p/there", 1), (US, "/p/leaving", 1), (US, "/p/set", 1), (THEM, "/p/theirs", 1)]
    {
        rig.by(session, create(path, flags));
    }
    rig.apply();
    rig.ask(create("/p/coming", 1));
    rig.ask(create("/p/stays", 0));
    rig.ask(delete("/p/leaving", -1));
    rig.ask(set("/p/set", -1));
    rig.ask(create("/p/brief", 1));
    rig.by(THEM, delete("/p/brief", -1));
    // Deleted and made again by somebody else: not ours any more. And the other way round.
    rig.ask(create("/p/swapped", 1));
    rig.ask(delete("/p/swapped", -1));
    rig.by(THEM, create("/p/swapped", 1));
    rig.ask(delete("/p/theirs", -1));
    rig.ask(create("/p/theirs", 1));
    rig.multi(&[part(create("/p/in-a-multi", 1)), part(create("/p/n-", 3))]);
    rig.multi(&[part(create("/p/failed", 1)), check("/missing", -1)]);
    let close = "close /p/coming /p/in-a-multi /p/n-0000000011 /p/set /p/theirs /p/there";
    assert_eq!(rig.ask(Request::CloseSession), close);
    assert_eq!(rig.ask(Request::CloseSession), "close", "all of them are going already");
    assert_eq!(rig.by(THEM, delete("/p/there", -1)), "NoNode");
    assert_eq!(rig.by(THEM, create("/p/there", 0)), "create /p/there #13");
    assert_eq!(rig.by(THEM, delete("/p", -1)), "NotEmpty");
    for path in ["/p/there", "/p/stays", "/p/swapped"] {
        assert_eq!(rig.by(THEM, delete(path, -1)), format!("delete {path}"));
    }
    assert_eq!(rig.by(THEM, delete("/p", -1)), "delete /p", "the closed session's nodes are no children any more");
    rig.apply();
    assert_eq!((rig.tree.ephemeral_count(), rig.tree.len()), (0, 4));
}

#[test]
fn a_session_without_nodes_closes_too() {
    let mut rig = Rig::new();
    rig.ask(create("/stays", 0));
    assert_eq!(rig.by(THEM, Request::CloseSession), "close");
    rig.apply();
    assert!(rig.tree.find("/stays").is_some());
}

/// Section 3.14 of the reference: OK for those before the one that failed, RuntimeInconsistency for those after it.
#[test]
fn the_results_of_a_failed_multi_say_which_part_failed() {
    both_ways(|rig| {
        let ops = [part(create("/x", 0)), part(set("/missing", -1)), part(delete("/open/kid", -1))];
        assert_eq!(rig.multi(&ops), "[Ok, NoNode, RuntimeInconsistency]");
        let ops = [check("/open", 5), part(create("/x", 0)), check("/missing", -1)];
        assert_eq!(rig.multi(&ops), "[BadVersion, RuntimeInconsistency, RuntimeInconsistency]");
        let ops = [check("/open", -1), check("/open", 0), part(delete("/open", -1))];
        assert_eq!(rig.multi(&ops), "[Ok, Ok, NotEmpty]");
    });
}

#[test]
fn the_parts_of_a_multi_see_each_other() {
    for applied in [false, true] {
        let mut rig = Rig::furnished();
        if applied {
            rig.apply();
        }
        let ops = [
            part(create("/x", 0)),
            part(create("/x/y", 0)),
            check("/x", 0),
            part(set("/x", 0)),
            check("/x", 1),
            part(delete("/x/y", -1)),
            part(Request::Create2(creation("/x/n-", AclList::OPEN, 2))),
            part(delete("/x/n-0000000001", 0)),
            part(delete("/x", 1)),
            part(create("/x", 1)),
        ];
        assert_eq!(
            rig.multi(&ops),
            "[create /x #7, create /x/y #1, check /x, set /x v1, check /x, delete /x/y, create2 /x/n-0000000001 #2, \
             delete /x/n-0000000001, delete /x, create /x #8 ephemeral]"
        );
        assert_eq!(rig.multi(&[part(create("/x/y", 0))]), "[NoChildrenForEphemerals]");
        assert_eq!(rig.multi(&[part(create("/z", 0)), part(create("/z", 0))]), "[Ok, NodeExists]");
        rig.apply();
    }
}

#[test]
fn an_empty_multi_succeeds() {
    let mut rig = Rig::new();
    assert_eq!(rig.multi(&[]), "[]");
    let (error, body) = rig.apply_one().unwrap();
    assert_eq!((error, body), (0, vec![0xff, 0xff, 0xff, 0xff, 1, 0xff, 0xff, 0xff, 0xff]));
    assert_eq!(rig.tree.last_applied(), Zxid(1));
}

/// ZOOKEEPER-2052 (the node could not be deleted any more), and everything else that a part may have changed before a
/// later one failed; over a tree, and over changes that are still on their way themselves.
#[test]
fn zookeeper_2052_a_failed_multi_leaves_nothing_behind() {
    for applied in [false, true] {
        let mut rig = Rig::furnished();
        if applied {
            rig.apply();
        }
        let fails = check("/missing", -1);
        assert_eq!(rig.multi(&[part(delete("/open/kid", -1)), part(delete("/open", -1)), fails]), "[Ok, Ok, NoNode]");
        assert_eq!(rig.ask(delete("/open", -1)), "NotEmpty");
        assert_eq!(rig.multi(&[part(create("/x", 0)), part(create("/x/y", 0)), fails]), "[Ok, Ok, NoNode]");
        assert_eq!(rig.ask(create("/x/y", 0)), "NoNode");
        assert_eq!(rig.multi(&[part(set("/old", 3)), part(set("/old", 4)), fails]), "[Ok, Ok, NoNode]");
        assert_eq!(rig.ask(set("/old", 3)), "set /old v4");
        assert_eq!(rig.multi(&[part(create("/open/n-", 2)), part(create("/open/n-", 3)), fails]), "[Ok, Ok, NoNode]");
        assert_eq!(rig.ask(create("/open/n-", 2)), "create /open/n-0000000001 #2");
        assert_eq!(rig.multi(&[part(delete("/mine", -1)), part(create("/mine", 0)), fails]), "[Ok, Ok, NoNode]");
        assert_eq!(rig.ask(create("/mine/x", 0)), "NoChildrenForEphemerals");
        assert_eq!(rig.multi(&[part(create("/brief", 1)), part(delete("/shut", -1)), fails]), "[Ok, Ok, NoNode]");
        assert_eq!(rig.ask(Request::CloseSession), "close /mine /shut");
        assert_eq!(rig.ask(delete("/open/n-0000000001", -1)), "delete /open/n-0000000001");
        assert_eq!(rig.ask(delete("/open/kid", -1)), "delete /open/kid");
        assert_eq!(rig.ask(delete("/open", -1)), "delete /open");
        rig.apply();
        assert_eq!((rig.tree.find("/x"), rig.tree.find("/brief")), (None, None));
    }
}

/// Section 5.3 of the reference: a version wraps like Java's int, and at -1 it cannot be told from "any".
#[test]
fn versions_wrap_and_minus_one_is_any() {
    for applied in [false, true] {
        let mut rig = Rig::new();
        rig.ask(create("/a", 0));
        rig.apply();
        for (version, next) in [(i32::MAX, i32::MIN), (-2, -1), (-1, 0)] {
            rig.decided += 1;
            let header = TxnHeader { session: US, cxid: Xid(1), zxid: Zxid(rig.decided), time_ms: 0 };
            let txn = Txn::SetData { path: "/a", data: None, version };
            rig.tree.apply(&TxnEntry { header, txn, digest: None }, None);
            rig.decided += 1;
            let header = TxnHeader { zxid: Zxid(rig.decided), ..header };
            let txn = Txn::SetAcl { path: "/a", acl: AclList::OPEN, version };
            rig.tree.apply(&TxnEntry { header, txn, digest: None }, None);
            assert_eq!(rig.ask(set("/a", version.wrapping_sub(1))), "BadVersion");
            assert_eq!(rig.ask(set_acl("/a", AclList::OPEN, version.wrapping_sub(1))), "BadVersion");
            assert_eq!(rig.ask(set("/a", version)), format!("set /a v{next}"));
            assert_eq!(rig.ask(set_acl("/a", AclList::OPEN, version)), format!("acl /a v{next}"));
            if applied {
                rig.apply();
            }
            let after = next.wrapping_add(1);
            assert_eq!(rig.multi(&[check("/a", next), part(set("/a", -1))]), format!("[check /a, set /a v{after}]"));
            assert_eq!(rig.ask(set_acl("/a", AclList::OPEN, -1)), format!("acl /a v{after}"));
            rig.apply();
            assert_eq!((rig.stat("/a").version, rig.stat("/a").aversion), (after, after));
        }
    }
}

/// However short, and whatever else would be wrong with them.
#[test]
fn bodies_that_end_early_are_undecodable() {
    let ops = [part(create("/x", 0)), part(delete("/missing", 9)), part(set("/x", 9)), check("/missing", 9)];
    let whole = multi(&ops);
    let requests: [(OpCode, Vec<u8>); 6] = [
        (OpCode::Create, create_with("/missing/x", acl(BAD), 9).to_vec()),
        (OpCode::Create2, create_with("/missing/x", acl(BAD), 9).to_vec()),
        (OpCode::Delete, delete("/", 9).to_vec()),
        (OpCode::SetData, set("", 9).to_vec()),
        (OpCode::SetAcl, set_acl("", acl(BAD), 9).to_vec()),
        (OpCode::Multi, whole.clone()),
    ];
    both_ways(|rig| {
        for (op, body) in &requests {
            for cut in 0..body.len() {
                // A multi may be cut just behind its last header, which is all that is missing then.
                assert_eq!(rig.raw(US, *op, &body[..cut]), "MarshallingError", "{op:?} cut at {cut}");
            }
        }
    });
    let mut longer = whole;
    longer.extend(b"and more");
    assert_eq!(Rig::new().raw(US, OpCode::Multi, &longer), "[Ok, NoNode, RuntimeInconsistency, RuntimeInconsistency]");
}

/// Section 1.4 of the reference: what a null stands for depends on the operation.
#[test]
fn nulls_where_there_must_be_a_path() {
    let rest_of_create = &create("", 0).to_vec()[4..];
    let null = |rest: &[u8]| [&[0xff; 4], rest].concat();
    let version = &9i32.to_be_bytes();
    let acl_and_version = [AclList::OPEN.encoded(), &version[..]].concat();
    let rows = [
        (OpCode::Create, null(rest_of_create), "MarshallingError"),
        (OpCode::Create2, null(rest_of_create), "MarshallingError"),
        (OpCode::Delete, null(version), "MarshallingError"),
        (OpCode::SetData, null(&[&[0xff; 4], &version[..]].concat()), "BadArguments"),
        (OpCode::SetAcl, null(&acl_and_version), "BadArguments"),
    ];
    both_ways(|rig| {
        for (op, body, expected) in &rows {
            assert_eq!(rig.raw(US, *op, body), *expected, "{op:?}");
        }
    });
}

#[test]
fn a_path_that_is_not_utf8_is_a_bad_path() {
    for bytes in [&b"/\xff"[..], b"/\xc0\xaf", b"/\xed\xa0\x80", b"/\xf8"] {
        let path = [&(bytes.len() as u32).to_be_bytes()[..], bytes].concat();
        let create = [&path, &create("", 0).to_vec()[4..]].concat();
        let mut rig = Rig::new();
        assert_eq!(rig.raw(US, OpCode::Create, &create), "BadArguments", "{bytes:02x?}");
        assert_eq!(rig.raw(US, OpCode::SetData, &[&path, &set("", 0).to_vec()[4..]].concat()), "BadArguments");
    }
}

/// Section 3.14 of the reference: what is not a multi at all.
#[test]
fn a_multi_of_anything_else_is_undecodable() {
    let header = |op: i32, done: u8| [&op.to_be_bytes()[..], &[done], &(-1i32).to_be_bytes()].concat();
    let done = header(-1, 1);
    let one = |op: i32, body: Vec<u8>| [header(op, 0), body, done.clone()].concat();
    let path_watch = [&delete("/open", 0).to_vec()[..9], &[0]].concat();
    let create_null = [&[0xff; 4][..], &create("", 0).to_vec()[4..]].concat();
    let set_null = [&[0xff; 4][..], &set("", -1).to_vec()[4..]].concat();
    let bodies = [
        vec![],
        one(OpCode::SetAcl.code(), set_acl("/open", AclList::OPEN, -1).to_vec()),
        one(OpCode::GetData.code(), path_watch.clone()),
        one(OpCode::Exists.code(), path_watch),
        one(OpCode::Multi.code(), done.clone()),
        one(OpCode::CloseSession.code(), vec![]),
        one(20, delete("/open/kid", -1).to_vec()),
        one(0, vec![]),
        one(-1, vec![0; 4]),
        one(OpCode::Create.code(), create("/x", 7).to_vec()),
        one(OpCode::Create.code(), create_null),
        one(OpCode::SetData.code(), set_null),
        [header(OpCode::Delete.code(), 0), delete("/open/kid", -1).to_vec()].concat(),
    ];
    both_ways(|rig| {
        for body in &bodies {
            assert_eq!(rig.raw(US, OpCode::Multi, body), "MarshallingError", "{body:02x?}");
        }
    });
    // The error in a part's header means nothing, and any number but zero says that this was the last header.
    let odd = [&[0, 0, 0, 13, 0, 0, 0, 0, 5][..], &delete("/", -1).to_vec(), &[0, 0, 0, 1, 7, 0, 0, 0, 0]].concat();
    assert_eq!(Rig::new().raw(US, OpCode::Multi, &odd), "[check /]");
}
