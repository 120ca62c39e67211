//! What requests become: the tables of the protocol reference, one by one, and the one property that carries
//! everything else, that a decision does not depend on how much of what came before it is in the tree already.
//!
//! A decision is compared as one line ([`line`]): `create /a #1` (the parent's count of creations behind the `#`),
//! `delete /a`, `set /a v1`, `acl /a v1`, `close /a /b`, `check /a`, the parts of a multi in brackets, and the name of
//! the error where there is one. What is decided stays on its way until a test applies it.
//!
//! **Not here**: whether the session may ask at all, and in which order answers leave (the replica and the worker).

use super::*;
use crate::requests::answer::answer;
use corral_engine::tree::NodeId;
use corral_proto::acl::encode_acls;
use corral_proto::{Acl, Jute, Stat, TxnEntry, TxnHeader, Xid};
use proptest::prelude::*;
use proptest::test_runner::{Config, RngSeed};
use std::collections::VecDeque;

mod checks;
mod outstanding;
mod properties;

const US: SessionId = SessionId(0x51);
const THEM: SessionId = SessionId(0x52);
/// With nodes that live for a time.
const TTL: Rules = Rules { takes_ttl: true, says_digests: true, enforces_quotas: false };

/// A list that no fix-up accepts.
const BAD: &[u8] = b"\0\0\0\x01\0\0\0\x1f\0\0\0\x06nobody\0\0\0\x03u:p";

/// A sequencer, the tree, and what was decided and is still on its way between them.
struct Rig {
    tree: Tree,
    sequencer: Sequencer,
    /// Who asks.
    who: Identities,
    decided: i64,
    on_its_way: VecDeque<Vec<u8>>,
}

impl Rig {
    fn new() -> Rig {
        Rig {
            tree: Tree::new(1),
            sequencer: Sequencer::new(1, Access::default(), TTL),
            who: Identities::NOBODY,
            decided: 0,
            on_its_way: VecDeque::new(),
        }
    }

    /// Decides a body as it came from the wire; returns the log entry.
    fn entry(&mut self, session: SessionId, op: OpCode, body: &[u8]) -> Vec<u8> {
        self.decided += 1;
        let zxid = Zxid(self.decided);
        let header = TxnHeader { session, cxid: Xid(1), zxid, time_ms: 1000 + self.decided };
        let place = Place { zxid, time_ms: header.time_ms, session, who: &self.who };
        let entry =
            self.sequencer.decide(&self.tree, place, op, body, |txn, digest| TxnEntry { header, txn, digest }.to_vec());
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
        assert_eq!(
            entry.digest.is_none(),
            matches!(entry.txn, Txn::Error(_)),
            "whatever changes something says the digest"
        );
        assert!(entry.digest.is_none_or(|digest| digest == self.tree.digest()), "the digest was known before");
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
        Txn::Reconfig { .. } => panic!("only Apache's leaders make it"),
        Txn::SetAcl { path, version, .. } => format!("acl {path} v{version}"),
        Txn::CreateSession { timeout_ms } => format!("session {timeout_ms}"),
        Txn::CloseSession { paths } => {
            paths.expect("the list is always there").iter().fold("close".to_owned(), |line, path| line + " " + path)
        }
        Txn::Check(check) => format!("check {}", check.path),
        Txn::Error(0) => "Ok".to_owned(),
        Txn::Error(code) => format!("{:?}", ErrorCode::from_code(*code).expect("a code that clients know")),
        Txn::CreateContainer(create) => created("container", create),
        Txn::CreateTtl(create, ttl_ms) => created("ttl", create) + &format!(" {ttl_ms} ms"),
        Txn::DeleteContainer { path } => format!("reap {path}"),
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
        Request::CreateContainer(request) => MultiOp::CreateContainer(request),
        Request::CreateTtl(request, ttl_ms) => MultiOp::CreateTtl(request, ttl_ms),
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
