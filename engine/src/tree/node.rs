//! One znode, kept small: with a name of 10 bytes and data of 100, all that belongs to one takes about 200 bytes.
//!
//! What each node has is in [`Node`]. What few have (children, an owner, a changed list) is in [`Uncommon`]: a node gets that with the
//! first of these and keeps it until it is deleted. Name and data lie in the [heap](super::heap), one behind the other. Numbers of nodes
//! ([`NodeId`]) are 32 bits.

use super::acl::AclId;
use super::heap::Stored;
use corral_proto::{AclList, SessionId, StatPersisted, Zxid};

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
    /// Its state.
    pub stat: StatPersisted,
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
    pub(super) shape: Shape,
    /// In the digest of the tree.
    pub(super) number: u32,
    /// The name, then the data.
    pub(super) stored: Stored,
}

const _: () = assert!(size_of::<Option<Node>>() <= 72);

/// The length of the node's name and whether it has data, in four bytes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shape(u32);

impl Shape {
    const HAS_DATA: u32 = 1 << 31;

    pub(super) fn new(name_len: usize) -> Shape {
        assert!(name_len < Shape::HAS_DATA as usize, "a record is smaller than 1 GiB");
        Shape(name_len as u32)
    }

    pub(super) fn with_data(self, has_data: bool) -> Shape {
        Shape(self.0 & !Shape::HAS_DATA | if has_data { Shape::HAS_DATA } else { 0 })
    }

    pub(super) fn name_len(self) -> usize {
        (self.0 & !Shape::HAS_DATA) as usize
    }

    pub(super) fn has_data(self) -> bool {
        self.0 & Shape::HAS_DATA != 0
    }
}

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
