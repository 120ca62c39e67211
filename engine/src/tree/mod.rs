//! The znode tree: what committed transactions build, and what reads are answered from.
//!
//! [`Tree::apply`] takes a transaction that was decided (versions, numbers and times are in it) and carries it out. It never
//! refuses: where the tree is not as the transaction expects, which happens only when a transaction is applied again over a
//! fuzzy snapshot, the rules of Apache's `DataTree` say what to do (each has a test by name).
//!
//! Nodes live in a slab ([`nodes`]), their names and data in a [`heap`]; a hash [`index`] finds a child by (parent, name).
//!
//! **Invariants**: every node but the root has a parent and is in the index once; an ephemeral node is in its session's set, a container
//! or a node that lives for a time in the set of those, and no node else is; zxids of applied transactions grow. The same transactions give
//! the same tree, whatever the seed.
//!
//! **Not here**: whether a client may do something (the sequencer decides before there is a transaction), watches.

pub mod acl;
pub mod digest;
mod heap;
pub mod image;
mod index;
mod node;
mod nodes;
pub mod path;
pub mod quota;

pub use node::NodeId;

use acl::AclTable;
use corral_proto::jute::{StrList, put_string};
use corral_proto::txn::CreateTxn;
use corral_proto::{AclList, EventType, SessionId, Stat, StatPersisted, TreeDigest, Txn, TxnEntry, TxnHeader, Zxid};
use digest::{Difference, Digests};
use index::Index;
use node::NodeImage;
use nodes::Nodes;
use quota::Quotas;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::Arc;

/// The nodes that every tree has and that cannot be deleted.
pub const BUILT_IN: [&str; 4] = ["/", "/zookeeper", "/zookeeper/quota", CONFIG];
/// Who the members are.
const CONFIG: &str = "/zookeeper/config";

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
    nodes: Nodes,
    index: Index,
    acls: AclTable,
    ephemerals: BTreeMap<SessionId, BTreeSet<NodeId>>,
    ephemeral_count: usize,
    /// Containers, and nodes that live for a time.
    mortals: BTreeSet<NodeId>,
    sessions: BTreeMap<SessionId, i32>,
    last_applied: Zxid,
    /// Up to this transaction the tree may be ahead of what is applied to it: it was restored from a fuzzy image.
    fuzzy_until: Zxid,
    /// What the digest was at that time, if the image says so.
    at_fuzzy_end: Option<TreeDigest>,
    placeholders: usize,
    digests: Digests,
    quotas: Quotas,
}

impl Tree {
    /// The tree of a server that has never seen a transaction. The seed keeps clients from choosing names that collide; it
    /// has no other effect.
    pub fn new(seed: u64) -> Tree {
        let mut tree = Tree {
            nodes: Nodes::default(),
            index: Index::new(seed),
            acls: AclTable::default(),
            ephemerals: BTreeMap::new(),
            ephemeral_count: 0,
            mortals: BTreeSet::new(),
            sessions: BTreeMap::new(),
            last_applied: Zxid::ZERO,
            fuzzy_until: Zxid::ZERO,
            at_fuzzy_end: None,
            placeholders: 0,
            digests: Digests::default(),
            quotas: Quotas::new(),
        };
        let data = Some(&b""[..]);
        for path in BUILT_IN {
            let acl = if path == CONFIG { AclList::READ_ONLY } else { AclList::OPEN };
            let image = NodeImage { data, acl, stat: StatPersisted::new(Zxid::ZERO, 0, SessionId::NONE) };
            match path::split(path).expect("a path begins with a slash") {
                (_, "") => {
                    let acl = tree.acls.intern(acl);
                    tree.nodes.root(&image, acl);
                }
                (parent, _) => {
                    let parent = tree.find(parent).expect("the parents come first");
                    tree.insert(parent, path, &image);
                }
            }
        }
        let config = tree.find(CONFIG).expect("made just now");
        tree.nodes.update(config, CONFIG, |config| config.aversion = -1);
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

    /// `/zookeeper/config` has the members of the ensemble. That is no transaction: each member says what it was started with (Apache's
    /// `initConfigInZKDatabase`).
    pub fn set_config(&mut self, members: &str) {
        let id = self.find(CONFIG).expect("a tree has its built-in nodes");
        let (data, stat) = (Some(members.as_bytes()), self.nodes.persisted(id));
        self.nodes.set(id, CONFIG, data, -1, (stat.mzxid, stat.mtime));
    }

    /// How many nodes there are, the built-in ones included.
    pub fn len(&self) -> usize {
        self.nodes.len()
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
        self.nodes.bytes()
    }

    /// The digest of all nodes ([`digest`]).
    pub fn digest(&self) -> TreeDigest {
        self.nodes.digest()
    }

    /// There is no digest any more: it takes time, and nobody wants to know it.
    pub fn stop_digests(&mut self) {
        if self.nodes.is_counting() {
            self.nodes.stop_counting();
            self.digests = Digests::default();
        }
    }

    /// What the digest was after some of the newest transactions, the oldest first.
    pub fn past_digests(&self) -> impl Iterator<Item = (Zxid, TreeDigest)> {
        self.digests.past()
    }

    /// Since when the tree is not as its leader's, as far as that is known.
    pub fn difference(&self) -> Option<Difference> {
        self.digests.difference()
    }

    /// Whether the tree may hold parts of transactions that are yet to be applied to it. As long as it may, it is compared with nothing.
    pub fn set_fuzzy(&mut self, is_fuzzy: bool) {
        if std::mem::replace(&mut self.digests.is_fuzzy, is_fuzzy) && !is_fuzzy {
            self.find_quotas();
        }
    }

    /// After how many transactions it was not.
    pub fn differences(&self) -> u64 {
        self.digests.differences()
    }

    /// Bytes: no node has ever had longer data. Whoever wants to know that none is long need not look at each.
    pub fn longest_data(&self) -> usize {
        self.nodes.longest_data()
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
        path::names(path.strip_prefix('/')?).try_fold(NodeId::ROOT, |parent, name| self.child(parent, name))
    }

    /// The node's state as clients see it.
    pub fn stat(&self, id: NodeId) -> Stat {
        self.nodes.stat(id)
    }

    /// The node's data.
    pub fn data(&self, id: NodeId) -> Option<&[u8]> {
        self.nodes.data(id)
    }

    /// The bytes of the node's access control list, to keep beyond the tree's lock.
    pub fn acl_shared(&self, id: NodeId) -> &Arc<[u8]> {
        self.acls.shared(self.nodes.get(id).acl)
    }

    /// All access control lists that nodes have.
    pub fn acl_lists(&self) -> impl Iterator<Item = &Arc<[u8]>> {
        self.acls.iter()
    }

    /// The node's access control list.
    pub fn acl(&self, id: NodeId) -> AclList<'_> {
        self.acls.get(self.nodes.get(id).acl)
    }

    /// The stored part of the node's state.
    pub fn persisted(&self, id: NodeId) -> StatPersisted {
        self.nodes.persisted(id)
    }

    /// What the node is in the digest.
    pub fn number(&self, id: NodeId) -> u32 {
        self.nodes.get(id).number
    }

    /// Direct children of the node.
    pub fn num_children(&self, id: NodeId) -> i32 {
        self.nodes.uncommon(id).num_children
    }

    /// The names of the node's children, encoded one after the other, and how many; the newest first.
    pub fn children(&self, id: NodeId, raw: &mut Vec<u8>) -> u32 {
        let mut count = 0;
        for child in self.nodes.children(id) {
            put_string(raw, self.nodes.name(child));
            count += 1;
        }
        count
    }

    /// How many nodes there are below the node, at any depth.
    pub fn below(&self, id: NodeId) -> usize {
        self.nodes.below(id)
    }

    /// The nodes that a server deletes by itself when they have [outlived](Tree::has_outlived) their use, behind `after`, in an order
    /// that does not change.
    pub fn mortals(&self, after: Option<NodeId>) -> impl Iterator<Item = NodeId> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        self.mortals.range((from, Bound::Unbounded)).copied()
    }

    /// Whether a container's last child is gone, or it never had one and was not changed for more than `unused_ms`; whether a node that
    /// lives for a time has no children and was not changed for longer than that (Apache's `ContainerManager.getCandidates`). False for
    /// all others.
    pub fn has_outlived(&self, id: NodeId, now_ms: i64, unused_ms: Option<i64>) -> bool {
        let uncommon = self.nodes.uncommon(id);
        let unchanged_ms = now_ms.saturating_sub(self.nodes.get(id).mtime);
        let is_over = match uncommon.owner {
            SessionId::CONTAINER => uncommon.created > 0 || unused_ms.is_some_and(|limit| unchanged_ms > limit),
            owner => owner.ttl_ms().is_some_and(|limit| unchanged_ms > limit),
        };
        is_over && uncommon.num_children == 0
    }

    /// The paths of a session's ephemeral nodes.
    pub fn ephemerals(&self, session: SessionId) -> Vec<String> {
        self.ephemerals.get(&session).into_iter().flatten().map(|id| self.path(*id)).collect()
    }

    /// The sessions that have ephemeral nodes, and the paths of those.
    pub fn all_ephemerals(&self) -> impl Iterator<Item = (SessionId, Vec<String>)> {
        self.ephemerals.keys().map(|session| (*session, self.ephemerals(*session)))
    }

    /// The full path of a node.
    pub fn path(&self, id: NodeId) -> String {
        if id == NodeId::ROOT {
            return "/".to_owned();
        }
        let ancestry = std::iter::successors(Some(id), |id| Some(self.nodes.get(*id).parent));
        let mut names: Vec<&str> =
            ancestry.take_while(|id| *id != NodeId::ROOT).map(|id| self.nodes.name(id)).collect();
        // So that the path begins with a slash.
        names.push("");
        names.reverse();
        names.join("/")
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
        let before = std::mem::replace(&mut self.last_applied, header.zxid);
        if before < self.fuzzy_until && header.zxid >= self.fuzzy_until {
            self.find_quotas();
        }
        self.compare(entry.digest);
        applied
    }

    /// Compares the digest with the leader's, and with that of the image that the tree was restored from; as long as the tree holds parts
    /// of transactions that are yet to be applied, it says nothing.
    fn compare(&mut self, leaders: Option<TreeDigest>) {
        let is_known = self.placeholders == 0 && !self.digests.is_fuzzy && self.nodes.is_counting();
        if self.last_applied < self.fuzzy_until || !is_known {
            return;
        }
        let images = self.at_fuzzy_end.take().filter(|_| self.last_applied == self.fuzzy_until);
        self.digests.is(self.last_applied, self.digest(), leaders.or(images));
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
            Txn::SetData { path, data, version } | Txn::Reconfig { path, data, version } => {
                self.set_data(header, path, *data, *version, changes)
            }
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
        let existing = self.child(parent, name.as_bytes());
        self.nodes.update(parent, parent_path, |above| {
            let created = if txn.parent_cversion == -1 { above.created.wrapping_add(1) } else { txn.parent_cversion };
            if created > above.created {
                above.created = created;
                above.pzxid = header.zxid;
            } else if created == i32::MAX {
                // The count stands still once it is used up; that there was a creation must show all the same.
                above.pzxid = header.zxid.max(above.pzxid);
            }
        });
        let mut stat = StatPersisted::new(header.zxid, header.time_ms, owner);
        if let Some(existing) = existing {
            if self.nodes.uncommon(existing).placeholder {
                stat.created = self.nodes.uncommon(existing).created;
                self.overwrite(existing, txn.path, &NodeImage { data: txn.data, acl: txn.acl, stat });
            } else {
                self.change_acl(existing, txn.acl);
            }
            return Applied::Nothing;
        }
        let id = self.insert(parent, txn.path, &NodeImage { data: txn.data, acl: txn.acl, stat });
        self.quota_created(txn.path, txn.data);
        self.report(changes, header.zxid, EventType::NodeCreated, txn.path, id);
        self.report(changes, header.zxid, EventType::NodeChildrenChanged, parent_path, parent);
        Applied::Stat(self.stat(id))
    }

    fn delete(&mut self, header: &TxnHeader, path: &str, changes: &mut Option<&mut Vec<Change>>) -> Applied {
        let Some((parent_path, name)) = path::split(path) else { return Applied::Nothing };
        let Some(parent) = self.find(parent_path) else { return Applied::Nothing };
        // Also when the node is gone already: the parent must not be left with an older pzxid (ZOOKEEPER-3125).
        self.nodes.update(parent, parent_path, |above| above.pzxid = header.zxid.max(above.pzxid));
        let Some(id) = self.child(parent, name.as_bytes()) else { return Applied::Nothing };
        self.report(changes, header.zxid, EventType::NodeDeleted, path, id);
        if header.zxid <= self.fuzzy_until {
            // Its children can only be those of a node that will be made later at this place, and so will they.
            self.remove_children(id);
        }
        let bytes = self.data(id).map_or(0, <[u8]>::len);
        self.remove(id);
        self.quota_deleted(path, bytes);
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
        let len = |data: Option<&[u8]>| data.map_or(0, <[u8]>::len) as i64;
        let more = len(data) - len(self.data(id));
        self.nodes.set(id, path, data, version, (header.zxid, header.time_ms));
        self.quota_changed(path, 0, more);
        self.report(changes, header.zxid, EventType::NodeDataChanged, path, id);
        Applied::Stat(self.stat(id))
    }

    fn set_acl(&mut self, path: &str, acl: AclList<'_>, version: i32) -> Applied {
        let Some(id) = self.find(path) else { return Applied::Nothing };
        self.change_acl(id, acl);
        self.nodes.update(id, path, |node| node.aversion = version);
        Applied::Stat(self.stat(id))
    }

    fn change_acl(&mut self, id: NodeId, acl: AclList<'_>) {
        let acl = self.acls.intern(acl);
        let old = self.nodes.exchange_acl(id, acl);
        self.acls.release(old);
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

    fn child(&self, parent: NodeId, name: &[u8]) -> Option<NodeId> {
        let hash = self.index.hash(parent, name);
        self.index.find(hash, |id| self.nodes.get(id).parent == parent && self.nodes.name_bytes(id) == name)
    }

    fn insert(&mut self, parent: NodeId, path: &str, image: &NodeImage<'_>) -> NodeId {
        let acl = self.acls.intern(image.acl);
        let id = self.nodes.insert(parent, path, image, acl);
        self.index.insert(self.index.hash(parent, self.nodes.name_bytes(id)), id);
        self.own(id);
        id
    }

    /// The node is in the set of its session, if it has one, or of those that a server deletes.
    fn own(&mut self, id: NodeId) {
        let owner = self.nodes.uncommon(id).owner;
        if owner.is_session() {
            self.ephemerals.entry(owner).or_default().insert(id);
            self.ephemeral_count += 1;
        } else if owner != SessionId::NONE {
            self.mortals.insert(id);
        }
    }

    fn disown(&mut self, id: NodeId) {
        let owner = self.nodes.uncommon(id).owner;
        if owner.is_session() {
            let set = self.ephemerals.get_mut(&owner).expect("its owner has a set");
            set.remove(&id);
            if set.is_empty() {
                self.ephemerals.remove(&owner);
            }
            self.ephemeral_count -= 1;
        } else if owner != SessionId::NONE {
            self.mortals.remove(&id);
        }
    }

    fn remove(&mut self, id: NodeId) {
        self.disown(id);
        self.placeholders -= usize::from(self.nodes.uncommon(id).placeholder);
        self.index.remove(self.index.hash(self.nodes.get(id).parent, self.nodes.name_bytes(id)), id);
        let acl = self.nodes.remove(id);
        self.acls.release(acl);
    }
}

#[cfg(test)]
mod replay_tests;
#[cfg(test)]
mod tests;
