//! The tree against a naive model, and Apache's rules for transactions that are applied again, each by name.

use super::*;
use corral_proto::{SubTxns, Xid};
use proptest::prelude::*;

pub(super) fn header(zxid: i64) -> TxnHeader {
    TxnHeader { session: SessionId(7), cxid: Xid(1), zxid: Zxid(zxid), time_ms: 1000 + zxid }
}

pub(super) fn apply(tree: &mut Tree, zxid: i64, txn: Txn<'_>) -> Applied {
    tree.apply(&TxnEntry { header: header(zxid), txn, digest: None }, None)
}

pub(super) fn create(path: &str, parent_cversion: i32) -> Txn<'_> {
    Txn::Create(CreateTxn { path, data: Some(b"x"), acl: AclList::OPEN, ephemeral: false, parent_cversion })
}

pub(super) fn ephemeral(path: &str, parent_cversion: i32) -> Txn<'_> {
    Txn::Create(CreateTxn { path, data: None, acl: AclList::OPEN, ephemeral: true, parent_cversion })
}

pub(super) fn stat(tree: &Tree, path: &str) -> Stat {
    tree.stat(tree.find(path).unwrap())
}

#[test]
fn a_new_tree_looks_as_the_reference_says() {
    let tree = Tree::new(1);
    assert_eq!(tree.len(), 4);
    let seen =
        BUILT_IN.map(|path| (stat(&tree, path).cversion, stat(&tree, path).aversion, stat(&tree, path).num_children));
    assert_eq!(seen, [(-1, 0, 1), (-2, 0, 2), (0, 0, 0), (0, -1, 0)]);
    assert_eq!(tree.acl(tree.find("/zookeeper/config").unwrap()), AclList::READ_ONLY);
    assert_eq!(tree.find(""), tree.find("/"));
    assert_eq!(tree.find("zookeeper"), None);
    assert_eq!(tree.find("/zookeeper/"), None);
}

/// Both creations and deletions count for clients; only creations for sequential names.
#[test]
fn cversion_counts_both_and_the_sequence_only_creations() {
    let mut tree = Tree::new(1);
    apply(&mut tree, 1, create("/q", 1));
    for n in 0..11 {
        apply(&mut tree, 2 + n, create(&format!("/q/{n}"), n as i32 + 1));
    }
    apply(&mut tree, 20, Txn::Delete { path: "/q/3" });
    assert_eq!((stat(&tree, "/q").cversion, tree.persisted(tree.find("/q").unwrap()).created), (12, 11));
    assert_eq!(stat(&tree, "/q").pzxid, Zxid(20));
}

#[test]
fn create_over_an_existing_node_takes_the_acl_and_never_lowers_the_parent() {
    let mut tree = Tree::new(1);
    apply(&mut tree, 1, create("/a", 5));
    let again = CreateTxn { path: "/a", data: None, acl: AclList::READ_ONLY, ephemeral: false, parent_cversion: 3 };
    assert_eq!(apply(&mut tree, 2, Txn::Create(again)), Applied::Nothing);
    assert_eq!(tree.acl(tree.find("/a").unwrap()), AclList::READ_ONLY);
    assert_eq!((tree.persisted(NodeId::ROOT).created, stat(&tree, "/").pzxid), (5, Zxid(1)));
    assert_eq!(tree.data(tree.find("/a").unwrap()), Some(&b"x"[..]));
}

#[test]
fn zookeeper_3125_deleting_a_missing_node_still_raises_the_parents_pzxid() {
    let mut tree = Tree::new(1);
    apply(&mut tree, 1, create("/a", 1));
    assert_eq!(apply(&mut tree, 9, Txn::Delete { path: "/a/gone" }), Applied::Nothing);
    assert_eq!(stat(&tree, "/a").pzxid, Zxid(9));
    assert_eq!(apply(&mut tree, 10, Txn::Delete { path: "/no/parent" }), Applied::Nothing);
}

#[test]
fn zookeeper_3145_closing_a_session_raises_pzxid_for_paths_that_are_gone() {
    let mut tree = Tree::new(1);
    apply(&mut tree, 1, create("/a", 1));
    apply(&mut tree, 2, create("/b", 2));
    apply(&mut tree, 3, Txn::CreateSession { timeout_ms: 4000 });
    apply(&mut tree, 4, ephemeral("/b/left", 1));
    let mut raw = Vec::new();
    put_string(&mut raw, "/a/gone");
    apply(&mut tree, 5, Txn::CloseSession { paths: Some(StrList::from_encoded(1, &raw)) });
    assert_eq!((stat(&tree, "/a").pzxid, stat(&tree, "/b").pzxid), (Zxid(5), Zxid(5)));
    assert_eq!((tree.find("/b/left"), tree.ephemeral_count(), tree.sessions().len()), (None, 0, 0));
}

#[test]
fn a_failed_multi_changes_nothing_but_the_zxid() {
    let mut tree = Tree::new(1);
    let mut raw = Vec::new();
    SubTxns::push(&mut raw, &create("/a", 1));
    SubTxns::push(&mut raw, &Txn::Error(-101));
    assert_eq!(apply(&mut tree, 4, Txn::Multi(SubTxns::from_encoded(2, &raw))), Applied::Nothing);
    assert_eq!((tree.find("/a"), tree.last_applied()), (None, Zxid(4)));
}

#[test]
fn changes_come_in_the_order_that_watchers_expect() {
    let mut tree = Tree::new(1);
    let mut changes = Vec::new();
    for (zxid, txn) in [
        (1, create("/a", 1)),
        (2, Txn::SetData { path: "/a", data: None, version: 1 }),
        (3, Txn::Delete { path: "/a" }),
    ] {
        tree.apply(&TxnEntry { header: header(zxid), txn, digest: None }, Some(&mut changes));
    }
    let seen: Vec<_> = changes.iter().map(|change| (change.zxid.0, change.kind, &*change.path)).collect();
    use EventType::*;
    assert_eq!(
        seen,
        [
            (1, NodeCreated, "/a"),
            (1, NodeChildrenChanged, "/"),
            (2, NodeDataChanged, "/a"),
            (3, NodeDeleted, "/a"),
            (3, NodeChildrenChanged, "/"),
        ]
    );
}

#[test]
fn null_and_empty_data_stay_different() {
    let mut tree = Tree::new(1);
    apply(&mut tree, 1, ephemeral("/null", 1));
    assert_eq!(tree.data(tree.find("/null").unwrap()), None);
    apply(&mut tree, 2, Txn::SetData { path: "/null", data: Some(b""), version: 1 });
    assert_eq!(tree.data(tree.find("/null").unwrap()), Some(&b""[..]));
}

/// A tree as a map from path to (data, owner), nothing else.
type Model = BTreeMap<String, (Vec<u8>, bool)>;

#[derive(Clone, Debug)]
enum Step {
    Create(usize, usize, bool),
    Delete(usize),
    Set(usize, Vec<u8>),
    CloseSession,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => (0..40usize, 0..12usize, any::<bool>()).prop_map(|(parent, name, e)| Step::Create(parent, name, e)),
        2 => (0..40usize).prop_map(Step::Delete),
        2 => (0..40usize, prop::collection::vec(any::<u8>(), 0..20)).prop_map(|(at, data)| Step::Set(at, data)),
        1 => Just(Step::CloseSession),
    ];
    prop::collection::vec(step, 1..120)
}

proptest! {
    #[test]
    fn the_tree_is_what_a_map_of_paths_would_be(steps in steps(), seed: u64) {
        let mut tree = Tree::new(seed);
        let mut model = Model::new();
        for (zxid, step) in (1..).zip(steps) {
            let paths: Vec<String> = model.keys().cloned().collect();
            let pick = |at: usize| paths.get(at % paths.len().max(1)).cloned();
            match step {
                Step::Create(parent, name, e) => {
                    let parent = pick(parent).filter(|p| !model[p].1).unwrap_or_default();
                    let path = format!("{parent}/n{name}");
                    apply(&mut tree, zxid, if e { ephemeral(&path, -1) } else { create(&path, -1) });
                    model.entry(path).or_insert((if e { vec![] } else { b"x".to_vec() }, e));
                }
                Step::Delete(at) => {
                    let Some(path) = pick(at) else { continue };
                    if !model.keys().any(|other| other.starts_with(&(path.clone() + "/"))) {
                        apply(&mut tree, zxid, Txn::Delete { path: &path });
                        model.remove(&path);
                    }
                }
                Step::Set(at, data) => {
                    let Some(path) = pick(at) else { continue };
                    apply(&mut tree, zxid, Txn::SetData { path: &path, data: Some(&data), version: 1 });
                    model.get_mut(&path).unwrap().0 = data;
                }
                Step::CloseSession => {
                    apply(&mut tree, zxid, Txn::CloseSession { paths: None });
                    model.retain(|_, (_, ephemeral)| !*ephemeral);
                }
            }
            prop_assert_eq!(tree.len(), model.len() + 4);
        }
        for (path, (data, ephemeral)) in &model {
            let id = tree.find(path).unwrap();
            prop_assert_eq!(tree.data(id).unwrap_or_default(), &data[..]);
            prop_assert_eq!(tree.stat(id).ephemeral_owner != SessionId::NONE, *ephemeral);
            prop_assert_eq!(tree.path(id), path.clone());
            let mut raw = Vec::new();
            let count = tree.children(id, &mut raw);
            let children: BTreeSet<String> =
                StrList::from_encoded(count, &raw).iter().map(|name| format!("{path}/{name}")).collect();
            let expected: BTreeSet<String> = model
                .keys()
                .filter(|other| path::split(other).unwrap().0 == path)
                .cloned()
                .collect();
            prop_assert_eq!(children, expected);
            prop_assert_eq!(tree.stat(id).num_children, count as i32);
            let prefix = format!("{path}/");
            prop_assert_eq!(tree.below(id), model.keys().filter(|other| other.starts_with(&prefix)).count());
        }
        prop_assert_eq!(tree.below(NodeId::ROOT), model.len() + 3);
        prop_assert_eq!(tree.ephemeral_count(), model.values().filter(|(_, ephemeral)| *ephemeral).count());
    }
}
