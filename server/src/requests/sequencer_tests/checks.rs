//! The order of the checks, which decides which of several errors a client sees; tables of the protocol reference.

use super::*;

/// Section 3.2 of the reference. Each row breaks several rules; the first of them in the reference's order is the
/// answer.
#[test]
fn create_is_checked_in_the_order_of_the_reference() {
    let (bad, open, read) = (acl(BAD), AclList::OPEN, AclList::READ_ONLY);
    let rows = [
        // The flag comes before the path, the list and the parent.
        ("/missing/x", bad, 7, "BadArguments"),
        ("/missing/x", open, -1, "BadArguments"),
        ("/missing/x", open, 4, "BadArguments"),
        ("/missing/x", open, 5, "BadArguments"),
        ("/missing/x", open, 6, "BadArguments"),
        // A path without a slash, or with a zero, before the list.
        ("", bad, 0, "BadArguments"),
        ("x", bad, 0, "BadArguments"),
        ("/missing/\0", bad, 0, "BadArguments"),
        // The list before the parent, and before everything that follows.
        ("/missing/x", bad, 0, "InvalidAcl"),
        ("/locked/kid", bad, 0, "InvalidAcl"),
        ("/mine/x", bad, 2, "InvalidAcl"),
        ("/open/..", bad, 0, "InvalidAcl"),
        // The parent before the form of the path.
        ("/missing/../x", open, 0, "NoNode"),
        ("/missing/", open, 0, "NoNode"),
        ("/open//x", open, 0, "NoNode"),
        ("open/x", open, 0, "NoNode"),
        ("/missing/x", open, 3, "NoNode"),
        // The permission before the form, the name and the kind of the parent.
        ("/locked/..", open, 0, "NoAuth"),
        ("/locked/kid", open, 0, "NoAuth"),
        ("/locked/kid", open, 2, "NoAuth"),
        ("/shut/x", open, 0, "NoAuth"),
        ("/zookeeper/config/x", open, 0, "NoAuth"),
        // The form before the name and the kind of the parent.
        ("/mine/..", open, 0, "BadArguments"),
        ("/open/", open, 0, "BadArguments"),
        ("/open/.", open, 1, "BadArguments"),
        ("//open", open, 0, "BadArguments"),
        ("/\u{1}", open, 2, "BadArguments"),
        ("/\u{1f600}", open, 0, "BadArguments"),
        // Then the name.
        ("/open/kid", open, 0, "NodeExists"),
        ("/open/kid", read, 1, "NodeExists"),
        ("/", open, 0, "NodeExists"),
        ("/zookeeper", open, 0, "NodeExists"),
        // And the kind of the parent last.
        ("/mine/x", open, 0, "NoChildrenForEphemerals"),
        ("/mine/x", open, 3, "NoChildrenForEphemerals"),
    ];
    both_ways(|rig| {
        for (path, acl, flags, expected) in rows {
            let request = creation(path, acl, flags);
            assert_eq!(rig.ask(Request::Create(request)), expected, "{path:?} {flags}");
            assert_eq!(rig.ask(Request::Create2(request)), expected, "{path:?} {flags}");
            // In a multi a flag that stands for nothing makes the whole request undecodable.
            let unknown = CreateMode::from_flags(flags).is_none();
            let expected = if unknown { "MarshallingError".to_owned() } else { format!("[{expected}]") };
            assert_eq!(rig.multi(&[MultiOp::Create(request)]), expected, "{path:?} {flags} in a multi");
            assert_eq!(rig.multi(&[MultiOp::Create2(request)]), expected, "{path:?} {flags} in a multi");
        }
    });
}

/// Section 3.2 of the reference, and of its section 11 that flags, operation and time must belong together.
#[test]
fn what_a_create_makes_is_said_by_flags_that_its_operation_takes() {
    let asked = |op, flags, ttl_ms| {
        let request = creation("/missing/x", acl(BAD), flags);
        match op {
            OpCode::Create => Request::Create(request),
            OpCode::Create2 => Request::Create2(request),
            OpCode::CreateContainer => Request::CreateContainer(request),
            _ => Request::CreateTtl(request, ttl_ms),
        }
    };
    let longest = 0xff_ffff_ffff;
    use OpCode::{Create, Create2, CreateContainer, CreateTtl};
    let rows = [
        // Right, so that the list is next to be looked at.
        (Create, 3, -1, "InvalidAcl"),
        (CreateContainer, 4, -1, "InvalidAcl"),
        (CreateTtl, 5, 1, "InvalidAcl"),
        (CreateTtl, 6, longest, "InvalidAcl"),
        // Of another operation.
        (Create, 4, -1, "BadArguments"),
        (Create2, 5, -1, "BadArguments"),
        (CreateContainer, 0, -1, "BadArguments"),
        (CreateContainer, 5, -1, "BadArguments"),
        (CreateTtl, 0, -1, "BadArguments"),
        (CreateTtl, 4, 1, "BadArguments"),
        // Times that no node can live for.
        (CreateTtl, 5, 0, "BadArguments"),
        (CreateTtl, 5, -1, "BadArguments"),
        (CreateTtl, 6, longest + 1, "BadArguments"),
        (CreateTtl, 5, i64::MIN, "BadArguments"),
    ];
    both_ways(|rig| {
        for (op, flags, ttl_ms, expected) in rows {
            let request = asked(op, flags, ttl_ms);
            assert_eq!(rig.ask(request), expected, "{op:?} {flags} {ttl_ms}");
            assert_eq!(rig.multi(&[part(request)]), format!("[{expected}]"), "{op:?} {flags} {ttl_ms} in a multi");
        }
    });
    // Unless the server takes nodes that live for a time, that comes before whether the time is right.
    let mut rig = Rig { sequencer: Sequencer::new(1, Access::default(), Rules::default()), ..Rig::new() };
    for (op, flags) in [(CreateTtl, 5), (CreateTtl, 6), (Create, 5), (Create2, 6)] {
        assert_eq!(rig.ask(asked(op, flags, 0)), "Unimplemented", "{op:?} {flags}");
    }
    assert_eq!(rig.ask(asked(CreateContainer, 4, -1)), "InvalidAcl");
}

#[test]
fn containers_and_nodes_that_live_for_a_time_are_made_alone_and_in_a_multi() {
    let mut rig = Rig::new();
    let [container, ttl] = [creation("/c", AclList::OPEN, 4), creation("/t-", AclList::OPEN, 6)];
    assert_eq!(rig.ask(Request::CreateContainer(container)), "container /c #1");
    assert_eq!(rig.ask(Request::CreateTtl(ttl, 7)), "ttl /t-0000000001 #2 7 ms");
    assert_eq!(rig.ask(create("/c/kid", 1)), "create /c/kid #1 ephemeral");
    let parts = [
        MultiOp::CreateContainer(creation("/c/c", AclList::OPEN, 4)),
        MultiOp::CreateTtl(creation("/c/c/t", AclList::OPEN, 5), 9),
    ];
    assert_eq!(rig.multi(&parts), "[container /c/c #2, ttl /c/c/t #1 9 ms]");
    rig.apply();
    assert_eq!(rig.stat("/c").ephemeral_owner, SessionId::NONE, "clients see neither containers nor times");
    assert_eq!(rig.stat("/c/c/t").ephemeral_owner, SessionId::NONE);
    assert_eq!(rig.tree.mortals(None).count(), 4);
    assert_eq!(rig.tree.below(rig.tree.find("/c").unwrap()), 3);
}

/// A child that is on its way, or new data, keeps a node from being deleted.
#[test]
fn what_something_on_its_way_concerns_is_not_reaped() {
    let mut rig = Rig::new();
    rig.ask(Request::CreateContainer(creation("/c", AclList::OPEN, 4)));
    assert!(!rig.sequencer.is_settled("/c"), "not even made");
    rig.apply();
    assert!(rig.sequencer.is_settled("/c"));
    rig.ask(create("/c/kid", 0));
    assert!(!rig.sequencer.is_settled("/c"));
    rig.apply();
    rig.ask(delete("/c/kid", -1));
    assert!(!rig.sequencer.is_settled("/c"));
    rig.apply();
    assert!(rig.sequencer.is_settled("/c"));
    let reaped = rig.sequencer.reap(&rig.tree, Zxid(99), "/c");
    assert_eq!(line(&reaped), "reap /c");
    assert_eq!(rig.ask(create("/c/late", 0)), "NoNode", "whoever comes now comes too late");
}

#[test]
fn lists_that_name_nobody_we_know_are_invalid() {
    let lists = [
        BAD.to_vec(),
        vec![0; 4],
        vec![0xff; 4],
        encode_acls([Acl { perms: 31, scheme: Some("world"), id: Some("someone") }].into_iter()),
        encode_acls([Acl { perms: 31, scheme: Some("world"), id: None }].into_iter()),
        encode_acls([Acl { perms: 31, scheme: None, id: Some("anyone") }].into_iter()),
        encode_acls([Acl { perms: 31, scheme: Some("auth"), id: Some("") }].into_iter()),
        [&[0, 0, 0, 2], &AclList::OPEN.encoded()[4..], &BAD[4..]].concat(),
    ];
    both_ways(|rig| {
        for list in &lists {
            assert_eq!(rig.ask(create_with("/open/x", acl(list), 0)), "InvalidAcl", "{list:02x?}");
            assert_eq!(rig.ask(set_acl("/open", acl(list), -1)), "InvalidAcl", "{list:02x?}");
        }
    });
}

/// What is logged is the list that was fixed up, not the one that came.
#[test]
fn a_list_is_logged_without_its_duplicates() {
    let mut rig = Rig::new();
    let list = world(&[1, 31, 1]);
    let request = create_with("/a", acl(&list), 0);
    let entry = rig.entry(US, request.op(), &request.to_vec());
    let Txn::Create(created) = TxnEntry::decode(&entry).unwrap().txn else { panic!("not created") };
    assert_eq!(created.acl.encoded(), world(&[1, 31]));
}

/// Section 3.3 of the reference.
#[test]
fn delete_is_checked_in_the_order_of_the_reference() {
    let rows = [
        ("", 9, "BadArguments"),
        ("x", 9, "BadArguments"),
        ("/missing/\0", 9, "BadArguments"),
        ("/", 9, "BadArguments"),
        ("/zookeeper", 9, "BadArguments"),
        ("/zookeeper/quota", 9, "BadArguments"),
        ("/zookeeper/config", 9, "BadArguments"),
        // The parent, the permission on it, the node, its version, its children.
        ("/missing/x", 9, "NoNode"),
        ("/missing/../x", 9, "NoNode"),
        ("/locked/missing", 9, "NoAuth"),
        ("/locked/kid", 9, "NoAuth"),
        ("/open/missing", 9, "NoNode"),
        ("/open", 9, "BadVersion"),
        ("/open", -2, "BadVersion"),
        ("/open", -1, "NotEmpty"),
        ("/open", 0, "NotEmpty"),
        ("/locked", 0, "NotEmpty"),
        ("/old", 2, "BadVersion"),
        // The form of the path is not looked at: there is just no such node.
        ("/open/", 9, "NoNode"),
        ("/open/.", 9, "NoNode"),
        ("//open", 9, "NoNode"),
    ];
    both_ways(|rig| {
        for (path, version, expected) in rows {
            assert_eq!(rig.ask(delete(path, version)), expected, "{path:?} {version}");
            assert_eq!(rig.multi(&[part(delete(path, version))]), format!("[{expected}]"), "{path:?} in a multi");
        }
    });
}

/// Section 3.6 of the reference.
#[test]
fn set_data_is_checked_in_the_order_of_the_reference() {
    let rows = [
        ("", 9, "BadArguments"),
        ("open", 9, "BadArguments"),
        ("/missing/", 9, "BadArguments"),
        ("/missing/..", 9, "BadArguments"),
        ("/missing/\0", 9, "BadArguments"),
        ("/missing", 9, "NoNode"),
        ("/locked", 9, "NoAuth"),
        ("/shut", 0, "NoAuth"),
        ("/zookeeper/config", 9, "NoAuth"),
        ("/open", 9, "BadVersion"),
        ("/open", -2, "BadVersion"),
        ("/old", 2, "BadVersion"),
        ("/old", 4, "BadVersion"),
    ];
    both_ways(|rig| {
        for (path, version, expected) in rows {
            assert_eq!(rig.ask(set(path, version)), expected, "{path:?} {version}");
            assert_eq!(rig.multi(&[part(set(path, version))]), format!("[{expected}]"), "{path:?} in a multi");
        }
    });
}

/// Section 3.7 of the reference. The version is that of the list.
#[test]
fn set_acl_is_checked_in_the_order_of_the_reference() {
    let (bad, open) = (acl(BAD), AclList::OPEN);
    let rows = [
        ("", bad, 9, "BadArguments"),
        ("open", bad, 9, "BadArguments"),
        ("/missing/.", bad, 9, "BadArguments"),
        ("/missing", bad, 9, "InvalidAcl"),
        ("/locked", bad, 9, "InvalidAcl"),
        ("/missing", open, 9, "NoNode"),
        ("/locked", open, 9, "NoAuth"),
        ("/blind", open, 1, "NoAuth"),
        ("/open", open, 9, "BadVersion"),
        ("/open", open, -2, "BadVersion"),
        ("/old", open, 3, "BadVersion"),
    ];
    both_ways(|rig| {
        for (path, acl, version, expected) in rows {
            assert_eq!(rig.ask(set_acl(path, acl, version)), expected, "{path:?} {version}");
        }
    });
}

/// Sections 3.14 and 7.1 of the reference: check needs READ, and validates the path like setData.
#[test]
fn check_is_checked_in_the_order_of_the_reference() {
    let rows = [
        ("", 9, "BadArguments"),
        ("/missing/", 9, "BadArguments"),
        ("/missing", 9, "NoNode"),
        ("/blind", 9, "NoAuth"),
        ("/open", 9, "BadVersion"),
        ("/open", -2, "BadVersion"),
        ("/old", 0, "BadVersion"),
    ];
    both_ways(|rig| {
        for (path, version, expected) in rows {
            assert_eq!(rig.multi(&[check(path, version)]), format!("[{expected}]"), "{path:?} {version}");
        }
        let found = [check("/open", 0), check("/locked", -1), check("/old", 3), check("/", -1)];
        assert_eq!(rig.multi(&found), "[check /open, check /locked, check /old, check /]");
    });
}

#[test]
fn what_breaks_no_rule_is_let_through() {
    for applied in [false, true] {
        let mut rig = Rig::furnished();
        if applied {
            rig.apply();
        }
        assert_eq!(rig.ask(create("/open/..x", 0)), "create /open/..x #2");
        assert_eq!(rig.ask(create("/open/", 2)), "create /open/0000000002 #3");
        assert_eq!(rig.ask(create("/open/.", 3)), "create /open/.0000000003 #4 ephemeral");
        assert_eq!(rig.ask(create("/", 2)), "create /0000000006 #7");
        assert_eq!(rig.ask(create("/zookeeper/mine", 0)), "create /zookeeper/mine #1");
        let second = creation("/open/two", AclList::OPEN, 1);
        assert_eq!(rig.by(THEM, Request::Create2(second)), "create2 /open/two #5 ephemeral");
        assert_eq!(rig.ask(delete("/mine", 0)), "delete /mine");
        assert_eq!(rig.by(THEM, delete("/old", 3)), "delete /old");
        assert_eq!(rig.by(THEM, delete("/shut", -1)), "delete /shut", "its own list is nobody's business");
        assert_eq!(rig.ask(set("/", -1)), "set / v1");
        assert_eq!(rig.ask(set("/zookeeper", 0)), "set /zookeeper v1");
        assert_eq!(rig.ask(set("/blind", 0)), "set /blind v1");
        assert_eq!(rig.ask(set_acl("/open", AclList::READ_ONLY, 0)), "acl /open v1");
        assert_eq!(rig.ask(create("/open/late", 0)), "NoAuth", "the new list counts at once");
        rig.apply();
    }
}

/// A list of one entry.
fn list_of(perms: i32, scheme: &str, id: &str) -> Vec<u8> {
    encode_acls([Acl { perms, scheme: Some(scheme), id: Some(id) }].into_iter())
}

/// Section 7 of the reference: each request is checked against what was decided before, as its own client.
#[test]
fn what_a_client_made_for_itself_is_its_own() {
    let somebody = Identities::of([10, 1, 2, 3].into());
    let owner = somebody.with(&[("digest", "a:1")]).unwrap();
    let root = somebody.with(&[("super", "")]).unwrap();
    let own = list_of(31, "auth", "");
    let nobodys = list_of(0, "ip", "10.0.0.0/8");
    for at_once in [true, false] {
        let mut rig = Rig::new();
        for (who, request, expected) in [
            (&somebody, create_with("/own", acl(&own), 0), "InvalidAcl"),
            (&owner, create_with("/own", acl(&own), 0), "create /own #1"),
            (&somebody, set("/own", -1), "NoAuth"),
            (&somebody, create("/own/x", 0), "NoAuth"),
            (&somebody, set_acl("/own", AclList::OPEN, -1), "NoAuth"),
            (&owner, set("/own", -1), "set /own v1"),
            (&root, set("/own", -1), "set /own v2"),
            (&owner, create("/own/x", 0), "create /own/x #1"),
            // What a node's own list says of its deletion does not matter, its parent's does.
            (&somebody, delete("/own/x", -1), "NoAuth"),
            (&owner, delete("/own/x", -1), "delete /own/x"),
            (&root, set_acl("/own", acl(&nobodys), -1), "acl /own v1"),
            (&owner, set("/own", -1), "NoAuth"),
            (&somebody, delete("/own", -1), "delete /own"),
        ] {
            rig.who = who.clone();
            assert_eq!(rig.ask(request), expected, "{request:?}");
            if at_once {
                rig.apply();
            }
        }
    }
}

/// All lists of one request together: a multi has room for thousands of them.
#[test]
fn a_clients_identities_do_not_make_a_transaction_of_any_size() {
    let mut rig = Rig::new();
    let ids: Vec<String> = (0..50).map(|n| format!("{n}:{}", "x".repeat(100))).collect();
    let ids: Vec<(&str, &str)> = ids.iter().map(|id| ("digest", &**id)).collect();
    rig.who = Identities::NOBODY.with(&ids).unwrap();
    let own = list_of(31, "auth", "");
    let paths: Vec<String> = (0..1000).map(|n| format!("/{n}")).collect();
    let ops: Vec<MultiOp<'_>> = paths.iter().map(|path| MultiOp::Create(creation(path, acl(&own), 0))).collect();
    assert!(rig.multi(&ops[..100]).starts_with("[create /0"));
    let refused = rig.multi(&ops[100..]);
    assert!(refused.contains("InvalidAcl") && !refused.contains("create"), "{refused}");
    assert!(rig.multi(&ops[900..]).starts_with("[create /900"), "each has the same room");
}

/// Section 5.7 of the reference: a quota is looked at behind whether the node is there, and ahead of its version.
#[test]
fn what_is_beyond_a_hard_quota_is_refused_where_quotas_are_enforced() {
    let quota = |rig: &mut Rig| {
        rig.ask(create("/q", 0));
        for (path, data) in [
            ("/zookeeper/quota/q", ""),
            ("/zookeeper/quota/q/zookeeper_limits", "count=1,bytes=-1=;byteHardLimit=10;countHardLimit=3"),
            ("/zookeeper/quota/q/zookeeper_stats", ""),
        ] {
            rig.ask(Request::Create(CreateRequest { data: Some(data.as_bytes()), ..creation(path, AclList::OPEN, 0) }));
            rig.apply();
        }
    };
    let mut lenient = Rig::new();
    quota(&mut lenient);
    let rules = Rules { enforces_quotas: true, ..TTL };
    let mut rig = Rig { sequencer: Sequencer::new(1, Access::default(), rules), ..Rig::new() };
    quota(&mut rig);
    let data = |path, bytes, version| Request::SetData(SetDataRequest { path, data: Some(bytes), version });
    for (request, expected) in [
        (create("/q/a", 0), "create /q/a #1"),
        (data("/q/a", b"12345678", 0), "set /q/a v1"),
        (create("/q/b", 0), "create /q/b #2"),
        (create("/q/b", 0), "NodeExists"),
        (create("/q/c", 0), "QuotaExceeded"),
        (data("/q/a", b"1234567890", 77), "QuotaExceeded"),
        (data("/q/a", b"12345", 77), "BadVersion"),
        (data("/q/a", b"12345", -1), "set /q/a v2"),
        (delete("/q/b", -1), "delete /q/b"),
        (create("/q/c", 0), "create /q/c #3"),
        (create("/elsewhere", 0), "create /elsewhere #2"),
    ] {
        assert_eq!(rig.ask(request), expected, "{request:?}");
        rig.apply();
        if expected == "QuotaExceeded" {
            assert_eq!(rig.multi(&[part(create("/fine", 0)), part(request)]), "[Ok, QuotaExceeded]");
            assert_ne!(lenient.ask(request), expected);
        } else {
            lenient.ask(request);
        }
        lenient.apply();
    }
}
