//! What is replayed over an image that already holds part of it: one test for each rule of Apache's `DataTree`, by its number in
//! their tracker where it cost them data once. That the rules add up is a property test beside [`super::image`].

use super::image::{Builder, NodeImage};
use super::tests::{apply, create, ephemeral, stat};
use super::*;
use corral_proto::SubTxns;

const OWNER: SessionId = SessionId(7);

fn image(zxid: i64) -> NodeImage<'static> {
    NodeImage { data: Some(b"image"), acl: AclList::OPEN, stat: StatPersisted::new(Zxid(zxid), 1, SessionId::NONE) }
}

/// The same with another state.
fn image_with(zxid: i64, change: impl FnOnce(&mut StatPersisted)) -> NodeImage<'static> {
    let mut image = image(zxid);
    change(&mut image.stat);
    image
}

/// A tree out of a fuzzy image that may hold parts of the transactions 11 to 20.
fn fuzzy(nodes: &[(&str, NodeImage<'_>)]) -> Tree {
    let mut builder = Builder::new(1);
    nodes.iter().for_each(|(path, image)| builder.node(path, image).unwrap());
    builder.finish(Zxid(10), Zxid(20), None)
}

fn data<'a>(tree: &'a Tree, path: &str) -> Option<&'a [u8]> {
    tree.data(tree.find(path)?)
}

#[test]
fn a_create_whose_parent_is_missing_is_passed_over() {
    let mut tree = fuzzy(&[]);
    assert_eq!(apply(&mut tree, 11, create("/gone/a", 1)), Applied::Nothing);
    assert_eq!((tree.find("/gone"), tree.len()), (None, BUILT_IN.len()));
}

#[test]
fn zookeeper_3249_a_create_that_is_in_the_image_does_not_lower_its_parent() {
    let mut tree = fuzzy(&[("/p", image_with(15, |stat| stat.created = 3)), ("/p/a", image(11))]);
    apply(&mut tree, 11, create("/p/a", 1));
    assert_eq!((tree.persisted(tree.find("/p").unwrap()).created, stat(&tree, "/p").pzxid), (3, Zxid(15)));
    apply(&mut tree, 16, create("/p/b", 4));
    assert_eq!((tree.persisted(tree.find("/p").unwrap()).created, stat(&tree, "/p").pzxid), (4, Zxid(16)));
}

#[test]
fn a_delete_that_is_in_the_image_keeps_the_larger_pzxid() {
    let mut tree = fuzzy(&[("/p", image(15))]);
    apply(&mut tree, 11, Txn::Delete { path: "/p/a" });
    assert_eq!(stat(&tree, "/p").pzxid, Zxid(15));
    apply(&mut tree, 16, Txn::Delete { path: "/p/a" });
    assert_eq!(stat(&tree, "/p").pzxid, Zxid(16));
}

#[test]
fn a_delete_whose_parent_is_missing_is_passed_over() {
    let mut tree = fuzzy(&[]);
    assert_eq!(apply(&mut tree, 11, Txn::Delete { path: "/gone/a" }), Applied::Nothing);
}

#[test]
fn set_data_and_set_acl_of_a_missing_node_are_passed_over() {
    let mut tree = fuzzy(&[]);
    let set = Txn::SetData { path: "/gone", data: None, version: 1 };
    assert_eq!(apply(&mut tree, 11, set), Applied::Nothing);
    let set = Txn::SetAcl { path: "/gone", acl: AclList::READ_ONLY, version: 1 };
    assert_eq!(apply(&mut tree, 12, set), Applied::Nothing);
    assert_eq!(tree.len(), BUILT_IN.len());
}

#[test]
fn an_older_set_data_overwrites_a_newer_value_until_that_is_set_again() {
    let newer = NodeImage { data: Some(b"two"), ..image_with(5, |stat| (stat.version, stat.mzxid) = (2, Zxid(12))) };
    let mut tree = fuzzy(&[("/a", newer)]);
    apply(&mut tree, 11, Txn::SetData { path: "/a", data: Some(b"one"), version: 1 });
    assert_eq!((data(&tree, "/a"), stat(&tree, "/a").version), (Some(&b"one"[..]), 1));
    apply(&mut tree, 12, Txn::SetData { path: "/a", data: Some(b"two"), version: 2 });
    let now = stat(&tree, "/a");
    assert_eq!((data(&tree, "/a"), now.version, now.mzxid), (Some(&b"two"[..]), 2, Zxid(12)));
}

#[test]
fn a_node_that_was_deleted_and_made_again_is_the_later_one() {
    // The image saw the later one; the log has: make, delete, make.
    let mut tree = fuzzy(&[("/p", image_with(13, |stat| stat.created = 2)), ("/p/a", image(13))]);
    apply(&mut tree, 11, create("/p/a", 1));
    apply(&mut tree, 12, Txn::Delete { path: "/p/a" });
    assert_eq!(tree.find("/p/a"), None);
    apply(&mut tree, 13, create("/p/a", 2));
    assert_eq!((stat(&tree, "/p/a").czxid, stat(&tree, "/p").num_children), (Zxid(13), 1));
}

#[test]
fn an_ephemeral_that_another_session_made_again_survives_the_end_of_the_first() {
    let later = image_with(13, |stat| stat.owner = SessionId(8));
    let mut tree = fuzzy(&[("/e", later)]);
    // Session 7 made it, was closed, and session 8 made it anew.
    apply(&mut tree, 11, ephemeral("/e", 1));
    let mut raw = Vec::new();
    put_string(&mut raw, "/e");
    apply(&mut tree, 12, Txn::CloseSession { paths: Some(StrList::from_encoded(1, &raw)) });
    let header = TxnHeader { session: SessionId(8), ..super::tests::header(13) };
    tree.apply(&TxnEntry { header, txn: ephemeral("/e", 2), digest: None }, None);
    assert_eq!(stat(&tree, "/e").ephemeral_owner, SessionId(8));
    assert_eq!((tree.ephemerals(OWNER), tree.ephemerals(SessionId(8))), (vec![], vec!["/e".to_owned()]));
}

#[test]
fn zookeeper_3144_a_session_that_is_closed_in_the_log_leaves_no_node_whatever_the_image_had_of_it() {
    // The image has the node but not the session, which was read first; and a record without a list, as old ones are.
    let mut tree = fuzzy(&[("/e", image_with(12, |stat| stat.owner = OWNER))]);
    apply(&mut tree, 11, Txn::CreateSession { timeout_ms: 1000 });
    apply(&mut tree, 12, ephemeral("/e", 1));
    apply(&mut tree, 13, Txn::CloseSession { paths: None });
    assert_eq!((tree.find("/e"), tree.ephemeral_count(), tree.sessions().len()), (None, 0, 0));
}

#[test]
fn zookeeper_1367_sessions_that_open_and_close_in_the_log_are_those_that_are_left() {
    let mut builder = Builder::new(1);
    builder.session(SessionId(5), 500);
    let mut tree = builder.finish(Zxid(10), Zxid(10), None);
    apply(&mut tree, 11, Txn::CreateSession { timeout_ms: 1000 });
    let header = TxnHeader { session: SessionId(5), ..super::tests::header(12) };
    tree.apply(&TxnEntry { header, txn: Txn::CloseSession { paths: None }, digest: None }, None);
    assert_eq!(tree.sessions(), &BTreeMap::from([(OWNER, 1000)]));
}

#[test]
fn zookeeper_3127_a_multi_counts_as_applied_only_as_a_whole() {
    let mut tree = fuzzy(&[("/a", image(11))]);
    let mut raw = Vec::new();
    SubTxns::push(&mut raw, &create("/a", 1));
    SubTxns::push(&mut raw, &create("/b", 2));
    // The image caught the first part only; the second comes with the replay of all of it.
    apply(&mut tree, 11, Txn::Multi(SubTxns::from_encoded(2, &raw)));
    assert!(tree.find("/a").is_some() && tree.find("/b").is_some());
    assert_eq!(tree.last_applied(), Zxid(11));
}

#[test]
fn zookeeper_1046_a_sequence_goes_on_where_it_was_after_a_restart() {
    let mut tree = fuzzy(&[("/q", image_with(9, |stat| stat.created = 9))]);
    apply(&mut tree, 11, create("/q/9", 10));
    let q = tree.find("/q").unwrap();
    assert_eq!((tree.persisted(q).created, stat(&tree, "/q").num_children, stat(&tree, "/q").cversion), (10, 1, 19));
}

#[test]
fn zookeeper_3306_every_node_of_an_image_brings_its_list() {
    let tree = fuzzy(&[("/a", NodeImage { acl: AclList::READ_ONLY, ..image(5) }), ("/b", image(5))]);
    assert_eq!(tree.acl(tree.find("/a").unwrap()), AclList::READ_ONLY);
    assert_eq!(tree.acl(tree.find("/b").unwrap()), AclList::OPEN);
}
