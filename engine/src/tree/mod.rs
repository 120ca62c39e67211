//! The znode tree: what committed transactions build, and what reads are answered from.
//!
//! [`Tree::apply`] takes a transaction that was decided (versions, numbers and times are in it) and carries it out. It never
//! refuses: where the tree is not as the transaction expects, which happens only when a transaction is applied again over a
//! fuzzy snapshot, the rules of Apache's `DataTree` say what to do (each has a test by name).
//!
//! Nodes live in a slab; one hash index finds a child by (parent, name). The index is split into parts that grow one at a
//! time, so that no single insert has to move the index of a million nodes.
//!
//! **Invariants**: every node but the root has a parent, is in the index once, and in its parent's list once; `num_children`
//! is the length of that list; an ephemeral node is in its session's set, and no node else is; zxids of applied transactions
//! grow. The same transactions give the same tree, whatever the seed.
//!
//! **Not here**: whether a client may do something (the sequencer decides before there is a transaction), watches.

pub mod acl;
pub mod image;
mod node;
pub mod path;

pub use node::NodeId;

use acl::AclTable;
use corral_proto::jute::{StrList, put_string};
use corral_proto::txn::CreateTxn;
use corral_proto::{AclList, EventType, SessionId, Stat, Txn, TxnEntry, TxnHeader, Zxid};
use foldhash::fast::FixedState;
use hashbrown::HashTable;
use node::Node;
use std::collections::{BTreeMap, BTreeSet};
use std::hash::BuildHasher;
use std::sync::Arc;

/// The nodes that every tree has and that cannot be deleted.
pub const BUILT_IN: [&str; 4] = ["/", "/zookeeper", "/zookeeper/quota", "/zookeeper/config"];

/// What changed, for those who watch. Kept beyond the tree's lock, hence owned.
#[derive(Clone, Debug)]
pub struct Change {
    /// By which transaction.
    pub zxid: Zxid,
    /// What happened to the node. `NodeChildrenChanged` of the parent follows each creation and deletion.
    pub kind: EventType,
    /// Which node.
    pub path: Box<str>,
    /// The list that says who may hear of it: the node's own, or the parent's for its children.
    pub acl: Arc<[u8]>,
}

/// What a transaction did, as far as its answer needs it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Applied {
    /// Nothing to tell besides that it was done.
    Done,
    /// The node's new state.
    Stat(Stat),
    /// One result for each part of a multi.
    Multi(Vec<Applied>),
    /// The tree was not as the transaction expects (see the rules above), or it was an error all along.
    Nothing,
}

/// A tree and the sessions that its transactions opened.
#[derive(Debug)]
pub struct Tree {
    nodes: Vec<Option<Node>>,
    free: Vec<NodeId>,
    index: Vec<HashTable<Indexed>>,
    hasher: FixedState,
    acls: AclTable,
    ephemerals: BTreeMap<SessionId, BTreeSet<NodeId>>,
    ephemeral_count: usize,
    sessions: BTreeMap<SessionId, i32>,
    last_applied: Zxid,
    bytes: u64,
    /// Up to this transaction the tree may be ahead of what is applied to it: it was restored from a fuzzy image.
    fuzzy_until: Zxid,
    placeholders: usize,
}

/// Parts of the index, a power of two.
const PARTS: usize = 256;

/// An entry of the index. The hash is kept because a part that grows needs it for each of its entries, and fetching them from
/// the nodes themselves took most of the time of that.
#[derive(Clone, Copy, Debug)]
struct Indexed {
    hash: NameHash,
    id: NodeId,
}

/// The hash of a node's parent and name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct NameHash(u32);

impl NameHash {
    fn part(self) -> usize {
        self.0 as usize % PARTS
    }

    /// Spread over the bits that a table looks at, its lowest and its highest. What all entries of a part have in common is left out: a
    /// table takes the place of an entry from the lowest bits, and those of a product say nothing but what the lowest of its factor say.
    fn spread(self) -> u64 {
        (u64::from(self.0) / PARTS as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15)
    }
}

impl Tree {
    /// The tree of a server that has never seen a transaction. The seed keeps clients from choosing names that collide; it
    /// has no other effect.
    pub fn new(seed: u64) -> Tree {
        let mut tree = Tree {
            nodes: Vec::new(),
            free: Vec::new(),
            index: (0..PARTS).map(|_| HashTable::new()).collect(),
            hasher: FixedState::with_seed(seed),
            acls: AclTable::default(),
            ephemerals: BTreeMap::new(),
            ephemeral_count: 0,
            sessions: BTreeMap::new(),
            last_applied: Zxid::ZERO,
            bytes: 0,
            fuzzy_until: Zxid::ZERO,
            placeholders: 0,
        };
        let open = tree.acls.intern(AclList::OPEN);
        tree.nodes.push(Some(Node::new("", Some(b""), open)));
        for (parent, name, acl) in [
            ("/", "zookeeper", AclList::OPEN),
            ("/zookeeper", "quota", AclList::OPEN),
            ("/zookeeper", "config", AclList::READ_ONLY),
        ] {
            let parent = tree.find(parent).expect("made just now");
            let acl = tree.acls.intern(acl);
            tree.insert(parent, Node::new(name, Some(b""), acl));
        }
        let config = tree.find("/zookeeper/config").expect("made just now");
        tree.node_mut(config).aversion = -1;
        tree
    }

    /// The zxid of the newest transaction in the tree.
    pub fn last_applied(&self) -> Zxid {
        self.last_applied
    }

    /// The tree is that of an epoch now: what is applied next is of it. Its beginning is no transaction and leaves no other trace.
    pub fn begin_epoch(&mut self, beginning: Zxid) {
        assert!(beginning.counter() == 0, "{beginning} is a transaction");
        self.last_applied = self.last_applied.max(beginning);
    }

    /// How many nodes there are, the built-in ones included.
    pub fn len(&self) -> usize {
        self.nodes.len() - self.free.len()
    }

    /// Never: a tree has its built-in nodes.
    pub fn is_empty(&self) -> bool {
        false
    }

    /// How many ephemeral nodes there are.
    pub fn ephemeral_count(&self) -> usize {
        self.ephemeral_count
    }

    /// Bytes of all names and data.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The open sessions and their timeouts in ms, as their transactions said.
    pub fn sessions(&self) -> &BTreeMap<SessionId, i32> {
        &self.sessions
    }

    /// The node at `path`. The empty path is the root, as for Apache's reads; an ill-formed one has no node.
    pub fn find(&self, path: &str) -> Option<NodeId> {
        if path.is_empty() || path == "/" {
            return Some(NodeId::ROOT);
        }
        path.strip_prefix('/')?.split('/').try_fold(NodeId::ROOT, |parent, name| self.child(parent, name))
    }

    /// The node's state as clients see it.
    pub fn stat(&self, id: NodeId) -> Stat {
        self.node(id).stat()
    }

    /// The node's data.
    pub fn data(&self, id: NodeId) -> Option<&[u8]> {
        self.node(id).data()
    }

    /// The bytes of the node's access control list, to keep beyond the tree's lock.
    pub fn acl_shared(&self, id: NodeId) -> &Arc<[u8]> {
        self.acls.shared(self.node(id).acl)
    }

    /// All access control lists that nodes have.
    pub fn acl_lists(&self) -> impl Iterator<Item = &Arc<[u8]>> {
        self.acls.iter()
    }

    /// The node's access control list.
    pub fn acl(&self, id: NodeId) -> AclList<'_> {
        self.acls.get(self.node(id).acl)
    }

    /// Children ever created under the node: the next sequential child's number.
    pub fn created(&self, id: NodeId) -> i32 {
        self.node(id).created
    }

    /// The names of the node's children, encoded one after the other, and how many; the newest first.
    pub fn children(&self, id: NodeId, raw: &mut Vec<u8>) -> u32 {
        let mut count = 0;
        let mut child = self.node(id).first_child;
        while child != NodeId::NONE {
            let node = self.node(child);
            put_string(raw, node.name());
            count += 1;
            child = node.next_sibling;
        }
        count
    }

    /// The paths of a session's ephemeral nodes.
    pub fn ephemerals(&self, session: SessionId) -> Vec<String> {
        self.ephemerals.get(&session).into_iter().flatten().map(|id| self.path(*id)).collect()
    }

    /// The full path of a node.
    pub fn path(&self, id: NodeId) -> String {
        let mut names = Vec::new();
        let mut at = id;
        while at != NodeId::ROOT {
            let node = self.node(at);
            names.push(node.name());
            at = node.parent;
        }
        names.iter().rev().fold(String::new(), |path, name| path + "/" + name) + if names.is_empty() { "/" } else { "" }
    }

    /// Carries out a committed transaction. What it changed is appended to `changes`, if anybody watches.
    pub fn apply(&mut self, entry: &TxnEntry<'_>, mut changes: Option<&mut Vec<Change>>) -> Applied {
        let header = &entry.header;
        assert!(header.zxid > self.last_applied, "{} is applied after {}", header.zxid, self.last_applied);
        let applied = match &entry.txn {
            Txn::Multi(parts) if parts.failed() => Applied::Nothing,
            Txn::Multi(parts) => {
                Applied::Multi(parts.iter().map(|part| self.apply_one(header, &part, &mut changes)).collect())
            }
            txn => self.apply_one(header, txn, &mut changes),
        };
        // Only now, so that a snapshot's name never points into the middle of a multi (ZOOKEEPER-3127).
        self.last_applied = header.zxid;
        applied
    }

    fn apply_one(&mut self, header: &TxnHeader, txn: &Txn<'_>, changes: &mut Option<&mut Vec<Change>>) -> Applied {
        match txn {
            Txn::Create(create) | Txn::Create2(create) => {
                let owner = if create.ephemeral { header.session } else { SessionId::NONE };
                self.create(header, create, owner, changes)
            }
            Txn::CreateContainer(create) => self.create(header, create, SessionId::CONTAINER, changes),
            Txn::CreateTtl(create, ttl_ms) => {
                let owner = SessionId::ttl(*ttl_ms).unwrap_or(SessionId::NONE);
                self.create(header, create, owner, changes)
            }
            Txn::Delete { path } | Txn::DeleteContainer { path } => self.delete(header, path, changes),
            Txn::SetData { path, data, version } => self.set_data(header, path, *data, *version, changes),
            Txn::SetAcl { path, acl, version } => self.set_acl(path, *acl, *version),
            Txn::CreateSession { timeout_ms } => {
                self.sessions.insert(header.session, *timeout_ms);
                Applied::Done
            }
            Txn::CloseSession { paths } => self.close_session(header, paths.unwrap_or(StrList::EMPTY), changes),
            Txn::Check(_) => Applied::Done,
            Txn::Error(_) | Txn::Multi(_) => Applied::Nothing,
        }
    }

    fn create(
        &mut self,
        header: &TxnHeader,
        txn: &CreateTxn<'_>,
        owner: SessionId,
        changes: &mut Option<&mut Vec<Change>>,
    ) -> Applied {
        let Some((parent_path, name)) = path::split(txn.path) else { return Applied::Nothing };
        let Some(parent) = self.find(parent_path) else { return Applied::Nothing };
        let acl = self.acls.intern(txn.acl);
        let existing = self.child(parent, name);
        let node = self.node_mut(parent);
        let created = if txn.parent_cversion == -1 { node.created.wrapping_add(1) } else { txn.parent_cversion };
        if created > node.created {
            node.created = created;
            node.pzxid = header.zxid;
        } else if created == i32::MAX {
            // The count stands still once it is used up; that there was a creation must show all the same.
            node.pzxid = header.zxid.max(node.pzxid);
        }
        if let Some(existing) = existing {
            if self.node(existing).placeholder {
                self.fill(existing, header, txn, acl, owner);
                return Applied::Nothing;
            }
            let old = std::mem::replace(&mut self.node_mut(existing).acl, acl);
            self.acls.release(old);
            return Applied::Nothing;
        }
        let mut node = Node::new(name, txn.data, acl);
        (node.czxid, node.mzxid, node.pzxid) = (header.zxid, header.zxid, header.zxid);
        (node.ctime, node.mtime) = (header.time_ms, header.time_ms);
        node.owner = owner;
        let stat = node.stat();
        let id = self.insert(parent, node);
        self.report(changes, header.zxid, EventType::NodeCreated, txn.path, id);
        self.report(changes, header.zxid, EventType::NodeChildrenChanged, parent_path, parent);
        Applied::Stat(stat)
    }

    fn delete(&mut self, header: &TxnHeader, path: &str, changes: &mut Option<&mut Vec<Change>>) -> Applied {
        let Some((parent_path, name)) = path::split(path) else { return Applied::Nothing };
        let Some(parent) = self.find(parent_path) else { return Applied::Nothing };
        // Also when the node is gone already: the parent must not be left with an older pzxid (ZOOKEEPER-3125).
        let pzxid = &mut self.node_mut(parent).pzxid;
        *pzxid = header.zxid.max(*pzxid);
        let Some(id) = self.child(parent, name) else { return Applied::Nothing };
        self.report(changes, header.zxid, EventType::NodeDeleted, path, id);
        if header.zxid <= self.fuzzy_until {
            // Its children can only be those of a node that will be made later at this place, and so will they.
            self.remove_children(id);
        }
        self.remove(id);
        self.report(changes, header.zxid, EventType::NodeChildrenChanged, parent_path, parent);
        Applied::Done
    }

    fn set_data(
        &mut self,
        header: &TxnHeader,
        path: &str,
        data: Option<&[u8]>,
        version: i32,
        changes: &mut Option<&mut Vec<Change>>,
    ) -> Applied {
        let Some(id) = self.find(path) else { return Applied::Nothing };
        let node = self.nodes[id.0 as usize].as_mut().expect("found just now");
        let before = node.data_len() as u64;
        node.set_data(data);
        node.version = version;
        node.mzxid = header.zxid;
        node.mtime = header.time_ms;
        let stat = node.stat();
        self.bytes = self.bytes + stat.data_length as u64 - before;
        self.report(changes, header.zxid, EventType::NodeDataChanged, path, id);
        Applied::Stat(stat)
    }

    fn set_acl(&mut self, path: &str, acl: AclList<'_>, version: i32) -> Applied {
        let Some(id) = self.find(path) else { return Applied::Nothing };
        let acl = self.acls.intern(acl);
        let node = self.node_mut(id);
        let old = std::mem::replace(&mut node.acl, acl);
        node.aversion = version;
        let stat = node.stat();
        self.acls.release(old);
        Applied::Stat(stat)
    }

    /// Deletes what the transaction names, then whatever else the session still owns: the list makes the parents' pzxid
    /// right when a node is gone already (ZOOKEEPER-3145), the rest covers records without a list.
    fn close_session(
        &mut self,
        header: &TxnHeader,
        paths: StrList<'_>,
        changes: &mut Option<&mut Vec<Change>>,
    ) -> Applied {
        for path in paths.iter() {
            self.delete(header, path, changes);
        }
        for path in self.ephemerals(header.session) {
            self.delete(header, &path, changes);
        }
        self.sessions.remove(&header.session);
        Applied::Done
    }

    fn report(&self, changes: &mut Option<&mut Vec<Change>>, zxid: Zxid, kind: EventType, path: &str, id: NodeId) {
        if let Some(changes) = changes {
            changes.push(Change { zxid, kind, path: path.into(), acl: self.acl_shared(id).clone() });
        }
    }

    fn node(&self, id: NodeId) -> &Node {
        self.nodes[id.0 as usize].as_ref().expect("a node's number is used only while the node exists")
    }

    fn node_mut(&mut self, id: NodeId) -> &mut Node {
        self.nodes[id.0 as usize].as_mut().expect("a node's number is used only while the node exists")
    }

    fn hash(&self, parent: NodeId, name: &[u8]) -> NameHash {
        NameHash((self.hasher.hash_one((parent.0, name)) >> 32) as u32)
    }

    fn child(&self, parent: NodeId, name: &str) -> Option<NodeId> {
        let hash = self.hash(parent, name.as_bytes());
        let is_it = |entry: &Indexed| {
            entry.hash == hash && {
                let node = self.node(entry.id);
                node.parent == parent && node.name_bytes() == name.as_bytes()
            }
        };
        self.index[hash.part()].find(hash.spread(), is_it).map(|entry| entry.id)
    }

    fn insert(&mut self, parent: NodeId, mut node: Node) -> NodeId {
        let id = self.free.pop().unwrap_or(NodeId(self.nodes.len() as u32));
        assert!(id != NodeId::NONE, "a tree holds fewer than 2^32 - 1 nodes");
        let hash = self.hash(parent, node.name_bytes());
        let first = self.node(parent).first_child;
        node.parent = parent;
        node.next_sibling = first;
        self.bytes += (node.name_bytes().len() + node.data_len()) as u64;
        if node.owner.is_session() {
            self.ephemerals.entry(node.owner).or_default().insert(id);
            self.ephemeral_count += 1;
        }
        if first != NodeId::NONE {
            self.node_mut(first).prev_sibling = id;
        }
        let parent = self.node_mut(parent);
        parent.first_child = id;
        parent.num_children += 1;
        match self.nodes.get_mut(id.0 as usize) {
            Some(slot) => *slot = Some(node),
            None => self.nodes.push(Some(node)),
        }
        self.index[hash.part()].insert_unique(hash.spread(), Indexed { hash, id }, |entry| entry.hash.spread());
        id
    }

    /// Makes room for so many nodes in all.
    fn reserve(&mut self, nodes: usize) {
        self.nodes.reserve(nodes.saturating_sub(self.nodes.len()));
        // The parts come out nearly the same size.
        let each = nodes / PARTS + nodes / PARTS / 8;
        for part in &mut self.index {
            part.reserve(each.saturating_sub(part.len()), |entry| entry.hash.spread());
        }
    }

    /// The node belongs to no session any more.
    fn disown(&mut self, id: NodeId) {
        let owner = std::mem::replace(&mut self.node_mut(id).owner, SessionId::NONE);
        if owner.is_session() {
            let set = self.ephemerals.get_mut(&owner).expect("its owner has a set");
            set.remove(&id);
            if set.is_empty() {
                self.ephemerals.remove(&owner);
            }
            self.ephemeral_count -= 1;
        }
    }

    fn remove(&mut self, id: NodeId) {
        self.disown(id);
        let hash = self.hash(self.node(id).parent, self.node(id).name_bytes());
        let entry = self.index[hash.part()].find_entry(hash.spread(), |entry| entry.id == id);
        entry.expect("every node is indexed").remove();
        let node = self.nodes[id.0 as usize].take().expect("found just now");
        assert!(node.num_children == 0, "only a node without children is deleted");
        self.free.push(id);
        self.bytes -= (node.name_bytes().len() + node.data_len()) as u64;
        self.placeholders -= usize::from(node.placeholder);
        self.acls.release(node.acl);
        if node.next_sibling != NodeId::NONE {
            self.node_mut(node.next_sibling).prev_sibling = node.prev_sibling;
        }
        if node.prev_sibling != NodeId::NONE {
            self.node_mut(node.prev_sibling).next_sibling = node.next_sibling;
        } else {
            self.node_mut(node.parent).first_child = node.next_sibling;
        }
        self.node_mut(node.parent).num_children -= 1;
    }
}

#[cfg(test)]
mod replay_tests;
#[cfg(test)]
mod tests;
