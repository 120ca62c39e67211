//! One znode, kept small: with a name of 10 bytes and data of 100, all that belongs to one takes about 200 bytes.
//!
//! What each node has is in [`Node`]. What few have (children, an owner, a changed list) is in [`Uncommon`]: a node gets that with the
//! first of these and keeps it until it is deleted. Name and data lie in the [heap](super::heap), one behind the other. Numbers of nodes
//! ([`NodeId`]) are 32 bits.

use super::acl::AclId;
use super::heap::Stored;
use corral_proto::{AclList, SessionId, Zxid};

/// The number of a node in its tree; used again after the node is deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct NodeId(pub(super) u32);

impl NodeId {
    pub(super) const ROOT: NodeId = NodeId(0);
    pub(super) const NONE: NodeId = NodeId(u32::MAX);
}

/// All of a node but its place: what an image stores of it, and what it is made from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NodeImage<'a> {
    /// Its data.
    pub data: Option<&'a [u8]>,
    /// Its access control list.
    pub acl: AclList<'a>,
    /// Transaction that created it.
    pub czxid: Zxid,
    /// Transaction that last changed its data.
    pub mzxid: Zxid,
    /// Transaction that last created or deleted a child.
    pub pzxid: Zxid,
    /// When it was created, in ms since the epoch.
    pub ctime: i64,
    /// When its data last changed.
    pub mtime: i64,
    /// Changes of its data.
    pub version: i32,
    /// Children ever created.
    pub created: i32,
    /// Changes of its list.
    pub aversion: i32,
    /// The session it belongs to, or none, or the mark of a container or of a node that lives for a time.
    pub owner: SessionId,
}

impl<'a> NodeImage<'a> {
    /// A node as it is when the transaction `zxid` has just created it.
    pub(super) fn new(data: Option<&'a [u8]>, acl: AclList<'a>, zxid: Zxid, time_ms: i64, owner: SessionId) -> Self {
        NodeImage {
            data,
            acl,
            czxid: zxid,
            mzxid: zxid,
            pzxid: zxid,
            ctime: time_ms,
            mtime: time_ms,
            version: 0,
            created: 0,
            aversion: 0,
            owner,
        }
    }
}

#[derive(Debug)]
pub(super) struct Node {
    pub(super) parent: NodeId,
    pub(super) next_sibling: NodeId,
    pub(super) prev_sibling: NodeId,
    pub(super) acl: AclId,
    pub(super) czxid: Zxid,
    pub(super) mzxid: Zxid,
    pub(super) ctime: i64,
    pub(super) mtime: i64,
    pub(super) version: i32,
    pub(super) uncommon: UncommonId,
    pub(super) name_len: u32,
    pub(super) has_data: bool,
    /// The name, then the data.
    pub(super) stored: Stored,
}

const _: () = assert!(size_of::<Option<Node>>() <= 72);

/// The number of a node's [`Uncommon`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct UncommonId(pub(super) u32);

impl UncommonId {
    pub(super) const NONE: UncommonId = UncommonId(u32::MAX);
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Uncommon {
    pub(super) first_child: NodeId,
    pub(super) num_children: i32,
    /// Nodes below this one, at any depth; not counted for the root.
    pub(super) below: i32,
    /// Children ever created: the counter behind sequential names. What clients see as cversion is derived from it.
    pub(super) created: i32,
    pub(super) aversion: i32,
    pub(super) pzxid: Zxid,
    pub(super) owner: SessionId,
    /// Known only because a child of it was in a fuzzy image; a transaction that is replayed makes or deletes the real one.
    pub(super) placeholder: bool,
}

impl Uncommon {
    /// That of a node that has none.
    pub(super) fn of_most(czxid: Zxid) -> Uncommon {
        Uncommon {
            first_child: NodeId::NONE,
            num_children: 0,
            below: 0,
            created: 0,
            aversion: 0,
            pzxid: czxid,
            owner: SessionId::NONE,
            placeholder: false,
        }
    }
}
