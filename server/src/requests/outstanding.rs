//! What has been ordered but not yet applied: the state of nodes as the next transaction will find them.
//!
//! A lookup asks here first and the tree second. Each ordered transaction leaves the new state of every node that it changes;
//! the state is forgotten once that transaction is applied, because then the tree says the same. A multi that fails is
//! undone: nothing of it may be seen by what comes after (ZOOKEEPER-1624, ZOOKEEPER-2052).
//!
//! The digest of the tree as it will be is known as well: from the tree's own while nothing is on its way, and from there on by each change.
//!
//! **Invariants**: an entry belongs to the newest ordered transaction that changes its node; after the last ordered
//! transaction was applied there are no entries; the end of a session costs what its own nodes cost, whatever else is on its way.
//!
//! **Not here**: the checks themselves ([`super::sequencer`]).

use corral_engine::Tree;
use corral_engine::tree::digest::Content;
use corral_proto::{AclList, SessionId, StatPersisted, TreeDigest, Zxid};
use foldhash::fast::FixedState;
use hashbrown::HashMap;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

/// What later transactions need to know of a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeState {
    /// Its access control list, encoded.
    pub acl: Arc<[u8]>,
    /// Its state.
    pub stat: StatPersisted,
    /// Children now.
    pub num_children: i32,
    /// Its path and data, for the digest, if they are not those in the tree.
    pub content: Option<Content>,
    /// Bytes of its data.
    pub data_len: usize,
    /// What it was in the digest when this was asked for; 0 of a node that is being created.
    number: u32,
}

impl NodeState {
    /// A node that is being created.
    pub fn new(acl: &[u8], stat: StatPersisted, content: Content, data_len: usize) -> NodeState {
        NodeState { acl: acl.into(), stat, num_children: 0, content: Some(content), data_len, number: 0 }
    }

    /// Its list, decoded.
    pub fn acl(&self) -> AclList<'_> {
        AclList::from_encoded(&self.acl).expect("a list that was checked when it came")
    }
}

struct Entry {
    zxid: Zxid,
    /// `None`: deleted.
    state: Option<NodeState>,
}

/// Node states between ordering and application.
pub struct Outstanding {
    entries: HashMap<Arc<str>, Entry, FixedState>,
    /// The paths of those entries that are ephemeral nodes, by session.
    owned: BTreeMap<SessionId, BTreeSet<Arc<str>>>,
    order: VecDeque<(Zxid, Arc<str>)>,
    undo: Option<Undo>,
    /// Of the tree with everything that is on its way, if somebody wants to know.
    digest: TreeDigest,
    counts: bool,
}

/// What there was before a multi.
struct Undo {
    entries: Vec<(Arc<str>, Option<Entry>)>,
    digest: TreeDigest,
}

impl Outstanding {
    /// Nothing is on its way. The seed keeps clients from choosing paths that collide. The digest is known only if it `counts`.
    pub fn new(seed: u64, counts: bool) -> Outstanding {
        let entries = HashMap::with_hasher(FixedState::with_seed(seed));
        let (owned, order, digest) = (BTreeMap::new(), VecDeque::new(), TreeDigest::default());
        Outstanding { entries, owned, order, undo: None, digest, counts }
    }

    /// The digest that the tree will have when everything on its way is in it. To be asked before the next transaction is decided.
    pub fn digest(&mut self, tree: &Tree) -> TreeDigest {
        if self.order.is_empty() && self.undo.is_none() {
            self.digest = tree.digest();
        }
        self.digest
    }

    /// The node at `path` as the next transaction will find it.
    pub fn get(&self, tree: &Tree, path: &str) -> Option<NodeState> {
        if let Some(entry) = self.entries.get(path) {
            return entry.state.clone();
        }
        let id = tree.find(path)?;
        Some(NodeState {
            acl: tree.acl_shared(id).clone(),
            stat: tree.persisted(id),
            num_children: tree.num_children(id),
            content: None,
            data_len: tree.data(id).map_or(0, <[u8]>::len),
            number: tree.number(id),
        })
    }

    /// Whether something on its way leaves the node in another state than it has in the tree.
    pub fn has(&self, path: &str) -> bool {
        self.entries.contains_key(path)
    }

    /// Transaction `zxid` will leave the node, which it has found before or makes, like this.
    pub fn set(&mut self, tree: &Tree, zxid: Zxid, path: &str, mut state: NodeState) {
        if self.counts {
            let in_tree = || Content::of(path, tree.find(path).and_then(|id| tree.data(id)));
            let number = state.content.get_or_insert_with(in_tree).number(&state.stat);
            self.digest = self.digest.exchange(std::mem::replace(&mut state.number, number), number);
        }
        self.put(zxid, path, Some(state));
    }

    /// Transaction `zxid` will delete the node that it has found like this.
    pub fn remove(&mut self, zxid: Zxid, path: &str, state: &NodeState) {
        self.digest = self.digest.exchange(state.number, 0);
        self.put(zxid, path, None);
    }

    fn put(&mut self, zxid: Zxid, path: &str, state: Option<NodeState>) {
        let path: Arc<str> = path.into();
        let before = self.replace(&path, Some(Entry { zxid, state }));
        match &mut self.undo {
            Some(undo) => undo.entries.push((path, before)),
            None => self.order.push_back((zxid, path)),
        }
    }

    /// What is set from here on can be taken back.
    pub fn begin(&mut self) {
        assert!(self.undo.is_none(), "multis do not nest");
        self.undo = Some(Undo { entries: Vec::new(), digest: self.digest });
    }

    /// What was set since [`Outstanding::begin`] by transaction `zxid` stays, or is taken back.
    pub fn end(&mut self, zxid: Zxid, keep: bool) {
        let undo = self.undo.take().expect("begun");
        if keep {
            self.order.extend(undo.entries.into_iter().map(|(path, _)| (zxid, path)));
        } else {
            for (path, before) in undo.entries.into_iter().rev() {
                self.replace(&path, before);
            }
            self.digest = undo.digest;
        }
    }

    /// Everything up to `zxid` is in the tree now.
    pub fn applied(&mut self, zxid: Zxid) {
        while let Some((by, _)) = self.order.front()
            && *by <= zxid
        {
            let (by, path) = self.order.pop_front().expect("looked at just now");
            if self.entries.get(&path).is_some_and(|entry| entry.zxid == by) {
                self.replace(&path, None);
            }
        }
        assert!(!self.order.is_empty() || self.entries.is_empty(), "what is applied is forgotten");
    }

    /// The paths of `session`'s ephemeral nodes as the next transaction will find them, in order.
    pub fn ephemerals(&self, tree: &Tree, session: SessionId) -> Vec<String> {
        let unchanged = |path: &String| !self.has(path);
        let mut paths: Vec<String> = tree.ephemerals(session).into_iter().filter(unchanged).collect();
        paths.extend(self.owned.get(&session).into_iter().flatten().map(|path| path.to_string()));
        paths.sort();
        paths
    }

    /// The entry at `path` is this one now, or none. Returns the one before.
    fn replace(&mut self, path: &Arc<str>, entry: Option<Entry>) -> Option<Entry> {
        let owner = |entry: &Option<Entry>| {
            let state = entry.as_ref().and_then(|entry| entry.state.as_ref());
            state.map(|state| state.stat.owner).filter(|owner| owner.is_session())
        };
        let now = owner(&entry);
        let before = match entry {
            Some(entry) => self.entries.insert(path.clone(), entry),
            None => self.entries.remove(path),
        };
        let then = owner(&before);
        if now != then {
            if let Some(paths) = then.and_then(|owner| self.owned.get_mut(&owner)) {
                paths.remove(path);
            }
            if let Some(owner) = then.filter(|owner| self.owned[owner].is_empty()) {
                self.owned.remove(&owner);
            }
            if let Some(owner) = now {
                self.owned.entry(owner).or_default().insert(path.clone());
            }
        }
        before
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(version: i32) -> NodeState {
        let stat = StatPersisted { version, ..StatPersisted::new(Zxid(1), 0, SessionId(5)) };
        NodeState::new(AclList::OPEN.encoded(), stat, Content::of("/a", None), 0)
    }

    fn version(outstanding: &Outstanding, tree: &Tree, path: &str) -> Option<i32> {
        outstanding.get(tree, path).map(|state| state.stat.version)
    }

    #[test]
    fn the_newest_change_is_seen_and_forgotten_with_its_own_transaction() {
        let tree = Tree::new(1);
        let mut outstanding = Outstanding::new(1, true);
        outstanding.set(&tree, Zxid(1), "/a", state(1));
        outstanding.set(&tree, Zxid(2), "/a", state(2));
        outstanding.applied(Zxid(1));
        assert_eq!(version(&outstanding, &tree, "/a"), Some(2));
        assert_eq!(outstanding.ephemerals(&tree, SessionId(5)), ["/a"]);
        outstanding.remove(Zxid(3), "/a", &state(2));
        assert!(outstanding.ephemerals(&tree, SessionId(5)).is_empty());
        outstanding.applied(Zxid(3));
        assert_eq!(outstanding.get(&tree, "/a"), None);
        assert!(outstanding.get(&tree, "/zookeeper").is_some(), "the tree is asked second");
    }

    #[test]
    fn what_a_failed_multi_did_was_never_there() {
        let tree = Tree::new(1);
        let mut outstanding = Outstanding::new(1, true);
        outstanding.set(&tree, Zxid(1), "/a", state(1));
        outstanding.begin();
        outstanding.remove(Zxid(2), "/a", &state(1));
        outstanding.set(&tree, Zxid(2), "/a", state(7));
        outstanding.set(&tree, Zxid(2), "/b", state(7));
        outstanding.end(Zxid(2), false);
        assert_eq!((version(&outstanding, &tree, "/a"), version(&outstanding, &tree, "/b")), (Some(1), None));
        outstanding.begin();
        outstanding.set(&tree, Zxid(3), "/a", state(3));
        outstanding.end(Zxid(3), true);
        outstanding.applied(Zxid(2));
        assert_eq!(version(&outstanding, &tree, "/a"), Some(3));
        outstanding.applied(Zxid(3));
        assert!(outstanding.entries.is_empty() && outstanding.owned.is_empty());
    }
}
