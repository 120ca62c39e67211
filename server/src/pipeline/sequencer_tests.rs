//! What requests become: the tables of the protocol reference, one by one, and the one property that carries
//! everything else, that a decision does not depend on how much of what came before it is in the tree already.
//!
//! A decision is compared as one line ([`line`]): `create /a #1` (the parent's count of creations behind the `#`),
//! `delete /a`, `set /a v1`, `acl /a v1`, `close /a /b`, `check /a`, the parts of a multi in brackets, and the name of
//! the error where there is one. What is decided stays on its way until a test applies it.
//!
//! **Not here**: whether the session may ask at all, and in which order answers leave (the replica and the worker).

use super::*;
use crate::pipeline::answer::answer;
use corral_engine::tree::NodeId;
use corral_proto::acl::encode_acls;
use corral_proto::{Acl, Jute, Stat, TxnEntry, TxnHeader, Xid};
use proptest::prelude::*;
use proptest::test_runner::{Config, RngSeed};
use std::collections::VecDeque;

const US: SessionId = SessionId(0x51);
const THEM: SessionId = SessionId(0x52);

/// A list that no fix-up accepts.
const BAD: &[u8] = b"\0\0\0\x01\0\0\0\x1f\0\0\0\x06digest\0\0\0\x03u:p";

/// A sequencer, the tree, and what was decided and is still on its way between them.
struct Rig {
    tree: Tree,
    sequencer: Sequencer,
    decided: i64,
    on_its_way: VecDeque<Vec<u8>>,
}

impl Rig {
    fn new() -> Rig {
        Rig { tree: Tree::new(1), sequencer: Sequencer::new(1), decided: 0, on_its_way: VecDeque::new() }
    }

    /// Decides a body as it came from the wire; returns the log entry.
    fn entry(&mut self, session: SessionId, op: OpCode, body: &[u8]) -> Vec<u8> {
        self.decided += 1;
        let zxid = Zxid(self.decided);
        let header = TxnHeader { session, cxid: Xid(1), zxid, time_ms: 1000 + self.decided };
        let entry = self
            .sequencer
            .decide(&self.tree, Place { zxid, session }, op, body, |txn| TxnEntry { header, txn }.to_vec());
        self.on_its_way.push_back(entry.clone());
        entry
    }

    fn raw(&mut self, session: SessionId, op: OpCode, body: &[u8]) -> String {
        let entry = self.entry(session, op, body);
        line(&TxnEntry::decode(&entry).unwrap().txn)
    }

    /// Decides a request of session `session`.
    fn by(&mut self, session: SessionId, request: Request<'_>) -> String {
        self.raw(session, request.op(), &request.to_vec())
    }

    /// Decides a request of ours.
    fn ask(&mut self, request: Request<'_>) -> String {
        self.by(US, request)
    }

    fn multi(&mut self, ops: &[MultiOp<'_>]) -> String {
        self.raw(US, OpCode::Multi, &multi(ops))
    }

    /// Applies the oldest decision; returns the answer that its client gets.
    fn apply_one(&mut self) -> Option<(i32, Vec<u8>)> {
        let bytes = self.on_its_way.pop_front()?;
        let entry = TxnEntry::decode(&bytes).unwrap();
        let applied = self.tree.apply(&entry, None);
        self.sequencer.applied(entry.header.zxid);
        // Panics if the tree was not as the decision expects.
        let (error, body) = answer(&entry.txn, &applied);
        Some((error, body.to_vec()))
    }

    fn apply(&mut self) {
        while self.apply_one().is_some() {}
    }

    fn stat(&self, path: &str) -> Stat {
        self.tree.stat(self.tree.find(path).unwrap())
    }

    /// A tree with something wrong for every check, decided and not yet applied: a node with a child that anybody may
    /// do anything with, one that may only be read, one that may only be written, one that was set three times, and
    /// two ephemeral ones of ours.
    fn furnished() -> Rig {
        let mut rig = Rig::new();
        for path in ["/open", "/open/kid", "/locked", "/locked/kid", "/blind", "/old"] {
            assert!(rig.ask(create(path, 0)).starts_with("create "), "{path}");
        }
        for version in 1..=3 {
            assert_eq!(rig.ask(set("/old", -1)), format!("set /old v{version}"));
        }
        assert_eq!(rig.ask(set_acl("/locked", AclList::READ_ONLY, 0)), "acl /locked v1");
        let blind = world(&[perms::WRITE]);
        assert_eq!(rig.ask(set_acl("/blind", AclList::from_encoded(&blind).unwrap(), 0)), "acl /blind v1");
        assert_eq!(rig.ask(create("/mine", 1)), "create /mine #5 ephemeral");
        assert_eq!(rig.ask(create_with("/shut", AclList::READ_ONLY, 1)), "create /shut #6 ephemeral");
        rig
    }
}

/// Runs a table against the furnished tree twice: while all of it is on its way, and after it was applied. The rows are
/// refusals, so none of them changes what the next one finds.
fn both_ways(row: impl Fn(&mut Rig)) {
    let mut rig = Rig::furnished();
    row(&mut rig);
    rig.apply();
    row(&mut rig);
    let expected = {
        let mut fresh = Rig::furnished();
        fresh.apply();
        contents(&fresh.tree)
    };
    rig.apply();
    assert_eq!(contents(&rig.tree), expected, "a refusal changes nothing");
}

fn line(txn: &Txn<'_>) -> String {
    let created = |kind: &str, create: &CreateTxn<'_>| {
        let ephemeral = if create.ephemeral { " ephemeral" } else { "" };
        format!("{kind} {} #{}{ephemeral}", create.path, create.parent_cversion)
    };
    match txn {
        Txn::Create(create) => created("create", create),
        Txn::Create2(create) => created("create2", create),
        Txn::Delete { path } => format!("delete {path}"),
        Txn::SetData { path, version, .. } => format!("set {path} v{version}"),
        Txn::SetAcl { path, version, .. } => format!("acl {path} v{version}"),
        Txn::CreateSession { timeout_ms } => format!("session {timeout_ms}"),
        Txn::CloseSession { paths } => {
            paths.expect("the list is always there").iter().fold("close".to_owned(), |line, path| line + " " + path)
        }
        Txn::Check(check) => format!("check {}", check.path),
        Txn::Error(0) => "Ok".to_owned(),
        Txn::Error(code) => format!("{:?}", ErrorCode::from_code(*code).expect("a code that clients know")),
        Txn::Multi(parts) => format!("[{}]", parts.iter().map(|part| line(&part)).collect::<Vec<_>>().join(", ")),
    }
}

/// A list of `world:anyone` with these permissions, one entry each.
fn world(perms: &[i32]) -> Vec<u8> {
    encode_acls(perms.iter().map(|perms| Acl { perms: *perms, scheme: Some("world"), id: Some("anyone") }))
}

fn acl(bytes: &[u8]) -> AclList<'_> {
    AclList::from_encoded(bytes).unwrap()
}

fn creation<'a>(path: &'a str, acl: AclList<'a>, flags: i32) -> CreateRequest<'a> {
    CreateRequest { path, data: Some(b"x"), acl, flags }
}

fn create_with<'a>(path: &'a str, acl: AclList<'a>, flags: i32) -> Request<'a> {
    Request::Create(creation(path, acl, flags))
}

fn create(path: &str, flags: i32) -> Request<'_> {
    create_with(path, AclList::OPEN, flags)
}

fn delete(path: &str, version: i32) -> Request<'_> {
    Request::Delete(PathVersion { path, version })
}

fn set(path: &str, version: i32) -> Request<'_> {
    Request::SetData(SetDataRequest { path, data: Some(b"y"), version })
}

fn set_acl<'a>(path: &'a str, acl: AclList<'a>, version: i32) -> Request<'a> {
    Request::SetAcl(SetAclRequest { path, acl, version })
}

/// The operations of a multi that stand for these requests.
fn part(request: Request<'_>) -> MultiOp<'_> {
    match request {
        Request::Create(request) => MultiOp::Create(request),
        Request::Create2(request) => MultiOp::Create2(request),
        Request::Delete(request) => MultiOp::Delete(request),
        Request::SetData(request) => MultiOp::SetData(request),
        request => panic!("{request:?} cannot be in a multi"),
    }
}

fn check(path: &str, version: i32) -> MultiOp<'_> {
    MultiOp::Check(PathVersion { path, version })
}

/// The body of a multi.
fn multi(ops: &[MultiOp<'_>]) -> Vec<u8> {
    let mut raw = Vec::new();
    ops.iter().for_each(|op| op.encode_into(&mut raw));
    MultiRequest::from_encoded(ops.len(), &raw).to_vec()
}

/// A node: its path, its state, its data, its list.
type Contents = (String, Stat, Option<Vec<u8>>, Vec<u8>);

/// Everything that there is in a tree.
fn contents(tree: &Tree) -> Vec<Contents> {
    let mut found = Vec::new();
    let mut ahead = vec!["/".to_owned()];
    while let Some(path) = ahead.pop() {
        let id: NodeId = tree.find(&path).unwrap();
        let mut names = Vec::new();
        let count = tree.children(id, &mut names);
        let base = if path == "/" { "" } else { &path };
        ahead.extend(StrList::from_encoded(count, &names).iter().map(|name| format!("{base}/{name}")));
        found.push((path, tree.stat(id), tree.data(id).map(<[u8]>::to_vec), tree.acl(id).encoded().to_vec()));
    }
    found.sort_by(|a, b| a.0.cmp(&b.0));
    found
}

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
        rig.tree.apply(&TxnEntry { header, txn: Txn::Create(many) }, None);
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
            rig.tree.apply(&TxnEntry { header, txn }, None);
            rig.decided += 1;
            let header = TxnHeader { zxid: Zxid(rig.decided), ..header };
            let txn = Txn::SetAcl { path: "/a", acl: AclList::OPEN, version };
            rig.tree.apply(&TxnEntry { header, txn }, None);
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

/// A request of a random stream. Paths are chosen among those that were ever created, so that most requests meet
/// something.
#[derive(Clone, Debug)]
enum Ask {
    Create { parent: usize, name: usize, flags: i32, second: bool, locked: bool },
    Delete { at: usize, version: i32 },
    Set { at: usize, version: i32 },
    SetAcl { at: usize, version: i32, locked: bool },
    Check { at: usize, version: i32 },
    Multi(Vec<Ask>),
    Close,
}

fn simple() -> impl Strategy<Value = Ask> {
    let version = || prop_oneof![4 => Just(-1), 3 => 0..3i32];
    let rarely = || prop::bool::weighted(0.05);
    prop_oneof![
        6 => (any::<usize>(), 0..5usize, 0..4i32, any::<bool>(), rarely()).prop_map(
            |(parent, name, flags, second, locked)| Ask::Create { parent, name, flags, second, locked }
        ),
        4 => (any::<usize>(), version()).prop_map(|(at, version)| Ask::Delete { at, version }),
        2 => (any::<usize>(), version()).prop_map(|(at, version)| Ask::Set { at, version }),
    ]
}

fn ask() -> impl Strategy<Value = Ask> {
    let version = || prop_oneof![4 => Just(-1), 3 => 0..3i32];
    let locked = prop::bool::weighted(0.2);
    let checked = (any::<usize>(), version()).prop_map(|(at, version)| Ask::Check { at, version });
    let parts = prop::collection::vec(prop_oneof![8 => simple(), 1 => checked], 0..5);
    prop_oneof![
        12 => simple(),
        1 => (any::<usize>(), version(), locked).prop_map(|(at, version, locked)| Ask::SetAcl { at, version, locked }),
        4 => parts.prop_map(Ask::Multi),
        1 => Just(Ask::Close),
    ]
}

impl Ask {
    fn op(&self) -> OpCode {
        match self {
            Ask::Create { second: false, .. } => OpCode::Create,
            Ask::Create { second: true, .. } => OpCode::Create2,
            Ask::Delete { .. } => OpCode::Delete,
            Ask::Set { .. } => OpCode::SetData,
            Ask::SetAcl { .. } => OpCode::SetAcl,
            Ask::Check { .. } => OpCode::Check,
            Ask::Multi(_) => OpCode::Multi,
            Ask::Close => OpCode::CloseSession,
        }
    }

    fn body(&self, known: &[String]) -> Vec<u8> {
        let list = |locked: &bool| if *locked { AclList::READ_ONLY } else { AclList::OPEN };
        let path = |at: &usize| known[*at % known.len()].as_str();
        match self {
            Ask::Create { parent, name, flags, locked, .. } => {
                let parent = path(parent);
                let base = if parent == "/" { "" } else { parent };
                let path = format!("{base}/{}", ["a", "b", "c", "n-", "n-"][*name]);
                creation(&path, list(locked), *flags).to_vec()
            }
            Ask::Delete { at, version } => delete(path(at), *version).to_vec(),
            Ask::Set { at, version } => set(path(at), *version).to_vec(),
            Ask::SetAcl { at, version, locked } => set_acl(path(at), list(locked), *version).to_vec(),
            Ask::Check { at, version } => PathVersion { path: path(at), version: *version }.to_vec(),
            Ask::Multi(parts) => {
                let mut body = Vec::new();
                for part in parts {
                    body.extend(part.op().code().to_be_bytes());
                    body.extend([0, 0xff, 0xff, 0xff, 0xff]);
                    body.extend(part.body(known));
                }
                body.extend([0xff, 0xff, 0xff, 0xff, 1, 0xff, 0xff, 0xff, 0xff]);
                body
            }
            Ask::Close => Vec::new(),
        }
    }
}

/// The paths that a transaction creates.
fn created(txn: &Txn<'_>, known: &mut Vec<String>) {
    match txn {
        Txn::Create(create) | Txn::Create2(create) => known.push(create.path.to_owned()),
        Txn::Multi(parts) => parts.iter().for_each(|part| created(&part, known)),
        _ => {}
    }
}

proptest! {
    #![proptest_config(Config {
        cases: 500, rng_seed: RngSeed::Fixed(0x5e9), failure_persistence: None, ..Config::default()
    })]

    /// The sequencer may be far ahead of the tree or right behind it: that must not show in any transaction or answer.
    /// This is what lets a batch be decided while the one before it is being written.
    #[test]
    fn how_far_the_tree_lags_behind_changes_nothing(
        asks in prop::collection::vec((0..3i64, ask()), 1..80),
        lags in prop::collection::vec(prop_oneof![3 => Just(0usize), 2 => 1..3usize, 1 => Just(9usize)], 1..80),
    ) {
        let mut at_once = Rig::new();
        let mut known = vec!["/".to_owned()];
        let mut lives = [0, 16, 32];
        let (mut stream, mut entries, mut answers) = (Vec::new(), Vec::new(), Vec::new());
        for (who, ask) in &asks {
            let who = *who as usize;
            let session = SessionId(0x100 + lives[who]);
            if matches!(ask, Ask::Close) {
                lives[who] += 1;
            }
            let body = ask.body(&known);
            let entry = at_once.entry(session, ask.op(), &body);
            created(&TxnEntry::decode(&entry).unwrap().txn, &mut known);
            answers.push(at_once.apply_one().unwrap());
            entries.push(entry);
            stream.push((session, ask.op(), body));
        }
        let mut late = Rig::new();
        let (mut late_entries, mut late_answers) = (Vec::new(), Vec::new());
        for ((session, op, body), lag) in stream.iter().zip(lags.iter().cycle()) {
            late_entries.push(late.entry(*session, *op, body));
            late_answers.extend((0..*lag).map_while(|_| late.apply_one()));
        }
        late_answers.extend(std::iter::from_fn(|| late.apply_one()));
        for (index, (late, at_once)) in late_entries.iter().zip(&entries).enumerate() {
            let line = |bytes| line(&TxnEntry::decode(bytes).unwrap().txn);
            prop_assert_eq!(line(late), line(at_once), "request {}", index);
        }
        prop_assert_eq!(late_entries, entries);
        prop_assert_eq!(late_answers, answers);
        prop_assert_eq!(contents(&late.tree), contents(&at_once.tree));
        prop_assert_eq!(late.tree.ephemeral_count(), at_once.tree.ephemeral_count());
    }
}
