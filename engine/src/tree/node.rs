//! One znode, kept small: a million of them should fit into a few hundred megabytes.
//!
//! Name and data share one allocation. Children are a doubly linked list through the nodes themselves, so a directory costs
//! nothing but its entries. Numbers of nodes ([`NodeId`]) are 32 bits.

use super::acl::AclId;
use corral_proto::{SessionId, Stat, Zxid};

/// The number of a node in its tree; used again after the node is deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct NodeId(pub(super) u32);

impl NodeId {
    pub(super) const ROOT: NodeId = NodeId(0);
    pub(super) const NONE: NodeId = NodeId(u32::MAX);
}

#[derive(Debug)]
pub(super) struct Node {
    pub(super) parent: NodeId,
    pub(super) first_child: NodeId,
    pub(super) next_sibling: NodeId,
    pub(super) prev_sibling: NodeId,
    pub(super) num_children: i32,
    pub(super) acl: AclId,
    pub(super) czxid: Zxid,
    pub(super) mzxid: Zxid,
    pub(super) pzxid: Zxid,
    pub(super) ctime: i64,
    pub(super) mtime: i64,
    pub(super) owner: SessionId,
    pub(super) version: i32,
    /// Children ever created: the counter behind sequential names. What clients see as cversion is derived from it.
    pub(super) created: i32,
    pub(super) aversion: i32,
    name_len: u32,
    has_data: bool,
    /// Known only because a child of it was in a fuzzy image; a transaction that is replayed makes or deletes the real one.
    pub(super) placeholder: bool,
    /// The name, then the data.
    payload: Box<[u8]>,
}

impl Node {
    pub(super) fn new(name: &str, data: Option<&[u8]>, acl: AclId) -> Node {
        Node {
            parent: NodeId::NONE,
            first_child: NodeId::NONE,
            next_sibling: NodeId::NONE,
            prev_sibling: NodeId::NONE,
            num_children: 0,
            acl,
            czxid: Zxid::ZERO,
            mzxid: Zxid::ZERO,
            pzxid: Zxid::ZERO,
            ctime: 0,
            mtime: 0,
            owner: SessionId::NONE,
            version: 0,
            created: 0,
            aversion: 0,
            name_len: name.len() as u32,
            has_data: data.is_some(),
            placeholder: false,
            payload: [name.as_bytes(), data.unwrap_or_default()].concat().into(),
        }
    }

    pub(super) fn name(&self) -> &str {
        str::from_utf8(&self.payload[..self.name_len as usize]).expect("a name was a string when it came")
    }

    pub(super) fn name_bytes(&self) -> &[u8] {
        &self.payload[..self.name_len as usize]
    }

    pub(super) fn data(&self) -> Option<&[u8]> {
        self.has_data.then(|| &self.payload[self.name_len as usize..])
    }

    pub(super) fn data_len(&self) -> usize {
        self.payload.len() - self.name_len as usize
    }

    pub(super) fn set_data(&mut self, data: Option<&[u8]>) {
        let name_len = self.name_len as usize;
        let bytes = data.unwrap_or_default();
        if self.data_len() == bytes.len() {
            self.payload[name_len..].copy_from_slice(bytes);
        } else {
            self.payload = [&self.payload[..name_len], bytes].concat().into();
        }
        self.has_data = data.is_some();
    }

    pub(super) fn stat(&self) -> Stat {
        Stat {
            czxid: self.czxid,
            mzxid: self.mzxid,
            ctime: self.ctime,
            mtime: self.mtime,
            version: self.version,
            // Creations and deletions both count for clients: deletions = creations - children.
            cversion: self.created.wrapping_mul(2).wrapping_sub(self.num_children),
            aversion: self.aversion,
            // Clients see neither containers nor times.
            ephemeral_owner: if self.owner.is_session() { self.owner } else { SessionId::NONE },
            data_length: self.data_len() as i32,
            num_children: self.num_children,
            pzxid: self.pzxid,
        }
    }
}

/// The node's own memory, without the allocation for name and data.
const _: () = assert!(size_of::<Node>() <= 120);
