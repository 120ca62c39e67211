//! Nodes that the leader deletes by itself.
//!
//! **Not here**: which and when ([`crate::requests::reaper`]).

use super::*;
use corral_proto::request::PathVersion;

#[test]
fn a_container_whose_last_child_is_gone_is_deleted_in_nobodys_name() {
    let dir = dir();
    let mut rig = Rig::new(&dir);
    let session = rig.opened(1);
    let container = CreateRequest { path: "/c", data: None, acl: AclList::OPEN, flags: 4 };
    rig.ask(1, session, 1, Request::CreateContainer(container));
    rig.ask(1, session, 2, create("/c/kid", 0));
    rig.settle();
    let reap = |rig: &mut Rig, ms: u64| {
        rig.at(ms);
        while rig.replica.next_reaping().is_some_and(|at| at <= rig.now.uptime) {
            rig.replica.reap(&rig.tree, &mut rig.log.group, rig.now);
        }
    };
    reap(&mut rig, 60_000);
    assert_eq!(rig.submit(), 0, "it has a child");
    rig.ask(1, session, 3, Request::Delete(PathVersion { path: "/c/kid", version: -1 }));
    reap(&mut rig, 120_000);
    assert_eq!(rig.settle(), ["1: 3 ok @4"], "the child's end was on its way");
    let before = rig.logged();
    reap(&mut rig, 180_000);
    assert_eq!((rig.settle(), rig.logged()), (vec![], before + 1), "nobody is answered");
    assert_eq!(rig.tree.find("/c"), None);
    let record = rig.written.last().and_then(|batch| batch.last()).expect("it was logged");
    let header = TxnEntry::decode(record).unwrap().header;
    assert_eq!((header.session, header.cxid), (SessionId::NONE, Xid(0)), "as Apache's leaders do");
}
