//! What has been ordered but not yet applied: the state of nodes as the next transaction will find them.
//!
//! A lookup asks here first and the tree second. Each ordered transaction leaves the new state of every node that it changes;
//! the state is forgotten once that transaction is applied, because then the tree says the same. A multi that fails is
//! undone: nothing of it may be seen by what comes after (ZOOKEEPER-1624, ZOOKEEPER-2052).
//!
//! **Invariants**: an entry belongs to the newest ordered transaction that changes its node; after the last ordered
//! transaction was applied there are no entries; the end of a session costs what its own nodes cost, whatever else is on its way.
//!
//! **Not here**: the checks themselves ([`super::sequencer`]).

use corral_engine::Tree;
use corral_proto::{AclList, SessionId, Zxid};
use foldhash::fast::FixedState;
use hashbrown::HashMap;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

/// What later transactions need to know of a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeState {
    /// Its access control list, encoded.
    pub acl: Arc<[u8]>,
    /// The session it belongs to, if it is ephemeral.
    pub owner: SessionId,
    /// Changes of its data.
    pub version: i32,
    /// Changes of its list.
    pub aversion: i32,
    /// Children ever created.
    pub created: i32,
    /// Children now.
    pub num_children: i32,
}

impl NodeState {
    /// A node that is being created.
    pub fn new(acl: &[u8], owner: SessionId) -> NodeState {
        NodeState { acl: acl.into(), owner, version: 0, aversion: 0, created: 0, num_children: 0 }
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
    undo: Option<Vec<(Arc<str>, Option<Entry>)>>,
}

impl Outstanding {
    /// Nothing is on its way. The seed keeps clients from choosing paths that collide.
    pub fn new(seed: u64) -> Outstanding {
        let entries = HashMap::with_hasher(FixedState::with_seed(seed));
        Outstanding { entries, owned: BTreeMap::new(), order: VecDeque::new(), undo: None }
    }

    /// The node at `path` as the next transaction will find it.
    pub fn get(&self, tree: &Tree, path: &str) -> Option<NodeState> {
        if let Some(entry) = self.entries.get(path) {
            return entry.state.clone();
        }
        let id = tree.find(path)?;
        let stat = tree.stat(id);
        Some(NodeState {
            acl: tree.acl_shared(id).clone(),
            owner: stat.ephemeral_owner,
            version: stat.version,
            aversion: stat.aversion,
            created: tree.created(id),
            num_children: stat.num_children,
        })
    }

    /// Whether something on its way leaves the node in another state than it has in the tree.
    pub fn has(&self, path: &str) -> bool {
        self.entries.contains_key(path)
    }

    /// Transaction `zxid` will leave the node like this.
    pub fn set(&mut self, zxid: Zxid, path: &str, state: Option<NodeState>) {
        let path: Arc<str> = path.into();
        let before = self.replace(&path, Some(Entry { zxid, state }));
        match &mut self.undo {
            Some(undo) => undo.push((path, before)),
            None => self.order.push_back((zxid, path)),
        }
    }

    /// What is set from here on can be taken back.
    pub fn begin(&mut self) {
        assert!(self.undo.is_none(), "multis do not nest");
        self.undo = Some(Vec::new());
    }

    /// What was set since [`Outstanding::begin`] by transaction `zxid` stays, or is taken back.
    pub fn end(&mut self, zxid: Zxid, keep: bool) {
        let undo = self.undo.take().expect("begun");
        if keep {
            self.order.extend(undo.into_iter().map(|(path, _)| (zxid, path)));
        } else {
            for (path, before) in undo.into_iter().rev() {
                self.replace(&path, before);
            }
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
            state.map(|state| state.owner).filter(|owner| *owner != SessionId::NONE)
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

    fn state(version: i32) -> Option<NodeState> {
        Some(NodeState { version, ..NodeState::new(AclList::OPEN.encoded(), SessionId(5)) })
    }

    #[test]
    fn the_newest_change_is_seen_and_forgotten_with_its_own_transaction() {
        let tree = Tree::new(1);
        let mut outstanding = Outstanding::new(1);
        outstanding.set(Zxid(1), "/a", state(1));
        outstanding.set(Zxid(2), "/a", state(2));
        outstanding.applied(Zxid(1));
        assert_eq!(outstanding.get(&tree, "/a"), state(2));
        assert_eq!(outstanding.ephemerals(&tree, SessionId(5)), ["/a"]);
        outstanding.set(Zxid(3), "/a", None);
        assert!(outstanding.ephemerals(&tree, SessionId(5)).is_empty());
        outstanding.applied(Zxid(3));
        assert_eq!(outstanding.get(&tree, "/a"), None);
        assert!(outstanding.get(&tree, "/zookeeper").is_some(), "the tree is asked second");
    }

    #[test]
    fn what_a_failed_multi_did_was_never_there() {
        let tree = Tree::new(1);
        let mut outstanding = Outstanding::new(1);
        outstanding.set(Zxid(1), "/a", state(1));
        outstanding.begin();
        outstanding.set(Zxid(2), "/a", None);
        outstanding.set(Zxid(2), "/a", state(7));
        outstanding.set(Zxid(2), "/b", state(7));
        outstanding.end(Zxid(2), false);
        assert_eq!((outstanding.get(&tree, "/a"), outstanding.get(&tree, "/b")), (state(1), None));
        outstanding.begin();
        outstanding.set(Zxid(3), "/a", state(3));
        outstanding.end(Zxid(3), true);
        outstanding.applied(Zxid(2));
        assert_eq!(outstanding.get(&tree, "/a"), state(3));
        outstanding.applied(Zxid(3));
        assert!(outstanding.entries.is_empty() && outstanding.owned.is_empty());
    }
}
