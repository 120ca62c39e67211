//! The nodes of a tree: a slab of them, and how they hang together.
//!
//! Children are a doubly linked list through the nodes themselves, so a directory costs nothing but its entries. The number of a
//! deleted node is used again.
//!
//! **Invariants**: every node but the root is in its parent's list once; `num_children` is the length of that list; a node without an
//! [`Uncommon`] has no children and never had any; every node but the root knows how many there are below it; `digest` is the sum of
//! the numbers of all nodes that count.
//!
//! **Not here**: finding a child by its name ([`super::index`]), counting the users of lists.

use super::acl::AclId;
use super::digest;
use super::heap::{Heap, Moved};
use super::node::{Node, NodeId, NodeImage, Shape, Uncommon, UncommonId};
use super::path;
use corral_proto::{SessionId, Stat, StatPersisted, TreeDigest, Zxid};
use slab::Slab;

#[derive(Debug, Default)]
pub(super) struct Nodes {
    slots: Vec<Option<Node>>,
    free: Vec<NodeId>,
    uncommon: Slab<Uncommon>,
    heap: Heap,
    longest_data: usize,
    digest: TreeDigest,
    /// Nobody wants to know the digest.
    is_uncounted: bool,
}

impl Nodes {
    pub(super) fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// Bytes of all names and data.
    pub(super) fn bytes(&self) -> u64 {
        self.heap.bytes()
    }

    /// See [`super::digest`].
    pub(super) fn digest(&self) -> TreeDigest {
        self.digest
    }

    /// Nothing counts any more.
    pub(super) fn stop_counting(&mut self) {
        self.is_uncounted = true;
        self.slots.iter_mut().flatten().for_each(|node| node.number = 0);
        self.digest = TreeDigest::default();
    }

    pub(super) fn is_counting(&self) -> bool {
        !self.is_uncounted
    }

    /// No data has ever been longer.
    pub(super) fn longest_data(&self) -> usize {
        self.longest_data
    }

    fn has_had(&mut self, data: Option<&[u8]>) {
        self.longest_data = self.longest_data.max(data.map_or(0, <[u8]>::len));
    }

    /// The nodes in the slots from `from` on.
    pub(super) fn ids_from(&self, from: u32) -> impl Iterator<Item = NodeId> {
        (from..self.slots.len() as u32).map(NodeId).filter(|id| self.slots[id.0 as usize].is_some())
    }

    /// Makes room for so many in all.
    pub(super) fn reserve(&mut self, nodes: usize) {
        self.slots.reserve(nodes.saturating_sub(self.slots.len()));
    }

    /// The children of a node, the newest first.
    pub(super) fn children(&self, id: NodeId) -> impl Iterator<Item = NodeId> {
        let exists = |id: NodeId| (id != NodeId::NONE).then_some(id);
        std::iter::successors(exists(self.uncommon(id).first_child), move |id| exists(self.get(*id).next_sibling))
    }

    pub(super) fn get(&self, id: NodeId) -> &Node {
        self.slots[id.0 as usize].as_ref().expect("a node's number is used only while the node exists")
    }

    fn get_mut(&mut self, id: NodeId) -> &mut Node {
        occupied(&mut self.slots, id)
    }

    pub(super) fn uncommon(&self, id: NodeId) -> Uncommon {
        let node = self.get(id);
        match node.uncommon {
            UncommonId::NONE => Uncommon::of_most(node.czxid),
            UncommonId(number) => self.uncommon[number as usize],
        }
    }

    /// The same to be changed: the node gets one if it has none.
    fn uncommon_mut(&mut self, id: NodeId) -> &mut Uncommon {
        let node = occupied(&mut self.slots, id);
        if node.uncommon == UncommonId::NONE {
            node.uncommon = UncommonId(self.uncommon.insert(Uncommon::of_most(node.czxid)) as u32);
        }
        &mut self.uncommon[node.uncommon.0 as usize]
    }

    pub(super) fn name_bytes(&self, id: NodeId) -> &[u8] {
        let node = self.get(id);
        &self.heap.get(node.stored)[..node.shape.name_len()]
    }

    pub(super) fn name(&self, id: NodeId) -> &str {
        str::from_utf8(self.name_bytes(id)).expect("a name was a string when it came")
    }

    pub(super) fn data(&self, id: NodeId) -> Option<&[u8]> {
        let node = self.get(id);
        node.shape.has_data().then(|| &self.heap.get(node.stored)[node.shape.name_len()..])
    }

    /// The stored part of a node's state.
    pub(super) fn persisted(&self, id: NodeId) -> StatPersisted {
        let (node, uncommon) = (self.get(id), self.uncommon(id));
        StatPersisted {
            czxid: node.czxid,
            mzxid: node.mzxid,
            ctime: node.ctime,
            mtime: node.mtime,
            version: node.version,
            created: uncommon.created,
            aversion: uncommon.aversion,
            owner: uncommon.owner,
            pzxid: uncommon.pzxid,
        }
    }

    /// The node at `path` has changed: it is another number in the digest.
    fn count_anew(&mut self, id: NodeId, path: &str) {
        if self.is_uncounted {
            return;
        }
        let number = digest::number(path, self.data(id), &self.persisted(id));
        let before = std::mem::replace(&mut self.get_mut(id).number, number);
        self.digest = self.digest.exchange(before, number);
    }

    /// Changes what few nodes have, but for what hangs on the node, which is at `path`.
    pub(super) fn update(&mut self, id: NodeId, path: &str, update: impl FnOnce(&mut Uncommon)) {
        update(self.uncommon_mut(id));
        self.count_anew(id, path);
    }

    /// The node has this list now; which one it had before.
    pub(super) fn exchange_acl(&mut self, id: NodeId, acl: AclId) -> AclId {
        std::mem::replace(&mut self.get_mut(id).acl, acl)
    }

    /// A transaction, at its time, has set the data of the node at `path`.
    pub(super) fn set(&mut self, id: NodeId, path: &str, data: Option<&[u8]>, version: i32, by: (Zxid, i64)) {
        self.set_data(id, data);
        let node = self.get_mut(id);
        (node.version, (node.mzxid, node.mtime)) = (version, by);
        self.count_anew(id, path);
    }

    /// Sets data that does not count for the digest, and leaves no other trace.
    pub(super) fn replace_data(&mut self, id: NodeId, data: &[u8]) {
        assert_eq!(self.get(id).number, 0, "what counts is changed by transactions only");
        self.set_data(id, Some(data));
    }

    fn set_data(&mut self, id: NodeId, data: Option<&[u8]>) {
        self.has_had(data);
        let node = occupied(&mut self.slots, id);
        let moved;
        (node.stored, moved) = self.heap.replace(id.0, node.stored, node.shape.name_len(), data.unwrap_or_default());
        node.shape = node.shape.with_data(data.is_some());
        self.follow(moved);
    }

    fn follow(&mut self, moved: Option<Moved>) {
        if let Some(moved) = moved {
            moved.tell(&mut self.get_mut(NodeId(moved.owner)).stored);
        }
    }

    pub(super) fn stat(&self, id: NodeId) -> Stat {
        let node = self.get(id);
        let uncommon = self.uncommon(id);
        Stat {
            czxid: node.czxid,
            mzxid: node.mzxid,
            ctime: node.ctime,
            mtime: node.mtime,
            version: node.version,
            // Creations and deletions both count for clients: deletions = creations - children.
            cversion: uncommon.created.wrapping_mul(2).wrapping_sub(uncommon.num_children),
            aversion: uncommon.aversion,
            // Clients see neither containers nor times.
            ephemeral_owner: if uncommon.owner.is_session() { uncommon.owner } else { SessionId::NONE },
            data_length: (node.stored.len() - node.shape.name_len()) as i32,
            num_children: uncommon.num_children,
            pzxid: uncommon.pzxid,
        }
    }

    /// A node as in `image`, whose list is `acl`, without a parent.
    pub(super) fn root(&mut self, image: &NodeImage<'_>, acl: AclId) {
        assert!(self.slots.is_empty(), "the root is the first node");
        self.put(NodeId::NONE, "/", image, acl);
    }

    /// The newest child of `parent`, at `path`.
    pub(super) fn insert(&mut self, parent: NodeId, path: &str, image: &NodeImage<'_>, acl: AclId) -> NodeId {
        let id = self.put(parent, path, image, acl);
        let above = self.uncommon_mut(parent);
        let first = std::mem::replace(&mut above.first_child, id);
        above.num_children += 1;
        if first != NodeId::NONE {
            self.get_mut(first).prev_sibling = id;
        }
        self.get_mut(id).next_sibling = first;
        self.count_below(parent, 1);
        id
    }

    /// A node has come, or gone, below this one.
    fn count_below(&mut self, mut id: NodeId, change: i32) {
        while id != NodeId::ROOT {
            self.uncommon_mut(id).below += change;
            id = self.get(id).parent;
        }
    }

    /// How many nodes there are below this one.
    pub(super) fn below(&self, id: NodeId) -> usize {
        match id {
            NodeId::ROOT => self.len() - 1,
            id => self.uncommon(id).below as usize,
        }
    }

    fn put(&mut self, parent: NodeId, path: &str, image: &NodeImage<'_>, acl: AclId) -> NodeId {
        let (_, name) = path::split(path).expect("a path begins with a slash");
        self.has_had(image.data);
        let id = self.free.pop().unwrap_or(NodeId(self.slots.len() as u32));
        assert!(id != NodeId::NONE, "a tree holds fewer than 2^32 - 1 nodes");
        let stat = &image.stat;
        let node = Some(Node {
            parent,
            next_sibling: NodeId::NONE,
            prev_sibling: NodeId::NONE,
            acl,
            czxid: stat.czxid,
            mzxid: stat.mzxid,
            ctime: stat.ctime,
            mtime: stat.mtime,
            version: stat.version,
            uncommon: UncommonId::NONE,
            shape: Shape::new(name.len()).with_data(image.data.is_some()),
            number: 0,
            stored: self.heap.put(id.0, name.as_bytes(), image.data.unwrap_or_default()),
        });
        match self.slots.get_mut(id.0 as usize) {
            Some(slot) => *slot = node,
            None => self.slots.push(node),
        }
        self.set_uncommon(id, stat);
        self.count_anew(id, path);
        id
    }

    /// The node at `path` becomes the one in `image`, in its place and with its children. Returns the list that it had before.
    pub(super) fn overwrite(&mut self, id: NodeId, path: &str, image: &NodeImage<'_>, acl: AclId) -> AclId {
        self.set_data(id, image.data);
        let (node, stat) = (self.get_mut(id), &image.stat);
        (node.czxid, node.mzxid) = (stat.czxid, stat.mzxid);
        (node.ctime, node.mtime, node.version) = (stat.ctime, stat.mtime, stat.version);
        self.set_uncommon(id, stat);
        self.count_anew(id, path);
        self.exchange_acl(id, acl)
    }

    fn set_uncommon(&mut self, id: NodeId, stat: &StatPersisted) {
        let before = self.uncommon(id);
        let StatPersisted { pzxid, created, aversion, owner, .. } = *stat;
        let uncommon = Uncommon { pzxid, created, aversion, owner, placeholder: false, ..before };
        if uncommon != before {
            *self.uncommon_mut(id) = uncommon;
        }
    }

    /// Takes a node without children out of its parent's list and forgets it. Returns the list that it had.
    pub(super) fn remove(&mut self, id: NodeId) -> AclId {
        assert!(self.uncommon(id).num_children == 0, "only a node without children is deleted");
        let node = self.slots[id.0 as usize].take().expect("a node's number is used only while the node exists");
        self.free.push(id);
        self.digest = self.digest.exchange(node.number, 0);
        let moved = self.heap.remove(node.stored);
        self.follow(moved);
        if node.uncommon != UncommonId::NONE {
            self.uncommon.remove(node.uncommon.0 as usize);
        }
        if node.next_sibling != NodeId::NONE {
            self.get_mut(node.next_sibling).prev_sibling = node.prev_sibling;
        }
        let above = self.uncommon_mut(node.parent);
        above.num_children -= 1;
        if node.prev_sibling == NodeId::NONE {
            above.first_child = node.next_sibling;
        } else {
            self.get_mut(node.prev_sibling).next_sibling = node.next_sibling;
        }
        self.count_below(node.parent, -1);
        node.acl
    }
}

fn occupied(slots: &mut [Option<Node>], id: NodeId) -> &mut Node {
    slots[id.0 as usize].as_mut().expect("a node's number is used only while the node exists")
}
