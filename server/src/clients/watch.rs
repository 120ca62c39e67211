//! Who wants to hear of which node, on one core.
//!
//! Two tables, keyed by path: *data* (getData, exists) and *child* (getChildren). A watch belongs to a connection and fires
//! once; a persistent one stays until it is removed, and a recursive one hears of everything below its path as well, of children
//! that change only where another watch does. A connection may watch one path in several ways. Registering twice is one watch.
//!
//! **Invariants**: a connection is told at most once of one change, however many of its watches match; when a connection
//! closes, nothing of it stays.
//!
//! **Not here**: whether the connection may hear of it (the worker looks at the change's list), encoding.

use crate::mutation::{self, Mutation};
use corral_engine::tree::{Change, path};
use corral_proto::EventType;
use corral_proto::request::WatcherType;
use foldhash::fast::FixedState;
use hashbrown::HashMap;
use smallvec::SmallVec;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// What kind of change a watch waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum WatchKind {
    /// The node itself: created, deleted, its data changed.
    Data,
    /// Its children, and its deletion.
    Child,
}

/// How long a watch stays, and how far it reaches. A set of them is a sum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum WatchMode {
    /// It goes when it fires.
    Once = 1,
    /// It stays.
    Persistent = 2,
    /// It stays, and reaches everything below.
    Recursive = 4,
}

const EVERY: u8 = WatchMode::Once as u8 | WatchMode::Persistent as u8 | WatchMode::Recursive as u8;

/// One connection's watches of one path in one table.
#[derive(Clone, Copy, Debug)]
struct Watcher {
    slot: u32,
    modes: u8,
}

/// The watches of one core's connections, which are known by their slots.
pub struct Watches {
    tables: [HashMap<Arc<str>, SmallVec<[Watcher; 2]>, FixedState>; 2],
    by_conn: BTreeMap<u32, BTreeSet<(WatchKind, Arc<str>)>>,
    count: usize,
    /// Recursive ones: without any, nobody has to look at the ancestors of what changes.
    recursive: usize,
}

impl Watches {
    /// None yet. The seed keeps clients from choosing paths that collide.
    pub fn new(seed: u64) -> Watches {
        let table = || HashMap::with_hasher(FixedState::with_seed(seed));
        Watches { tables: [table(), table()], by_conn: BTreeMap::new(), count: 0, recursive: 0 }
    }

    /// `slot` wants to hear of the next change of that kind at `path`.
    pub fn add(&mut self, kind: WatchKind, path: &str, slot: u32) {
        self.put(kind, WatchMode::Once, path, slot);
    }

    /// `slot` wants to hear of every change at `path` and of its children.
    pub fn add_persistent(&mut self, path: &str, slot: u32) {
        if mutation::is_on(Mutation::PersistentWatchesFireOnce) {
            return self.add(WatchKind::Data, path, slot);
        }
        self.put(WatchKind::Data, WatchMode::Persistent, path, slot);
        self.put(WatchKind::Child, WatchMode::Persistent, path, slot);
    }

    /// `slot` wants to hear of every change at `path` and below.
    pub fn add_recursive(&mut self, path: &str, slot: u32) {
        self.put(WatchKind::Data, WatchMode::Recursive, path, slot);
    }

    fn put(&mut self, kind: WatchKind, mode: WatchMode, path: &str, slot: u32) {
        let table = &mut self.tables[kind as usize];
        let path = match table.get_key_value(path) {
            Some((path, _)) => path.clone(),
            None => path.into(),
        };
        let watchers = table.entry(path.clone()).or_default();
        let mode = mode as u8;
        let before = match watchers.iter_mut().find(|watcher| watcher.slot == slot) {
            Some(watcher) => {
                let before = watcher.modes;
                watcher.modes |= mode;
                before
            }
            None => {
                watchers.push(Watcher { slot, modes: mode });
                self.by_conn.entry(slot).or_default().insert((kind, path));
                0
            }
        };
        self.count_change(before, before | mode);
    }

    fn count_change(&mut self, before: u8, after: u8) {
        let recursive = |modes: u8| usize::from(modes & WatchMode::Recursive as u8 != 0);
        self.count = self.count + after.count_ones() as usize - before.count_ones() as usize;
        self.recursive = self.recursive + recursive(after) - recursive(before);
    }

    /// The paths whose data each connection watches.
    pub fn listed(&self) -> impl Iterator<Item = (u32, Vec<Arc<str>>)> {
        let data = |paths: &BTreeSet<(WatchKind, Arc<str>)>| {
            paths.iter().filter(|(kind, _)| *kind == WatchKind::Data).map(|(_, path)| path.clone()).collect()
        };
        self.by_conn.iter().map(move |(slot, paths)| (*slot, data(paths)))
    }

    /// Whoever is to be told of `change`, in the order in which they asked. Watches that fire once are used up.
    pub fn fire(&mut self, change: &Change) -> SmallVec<[u32; 2]> {
        let mut told = SmallVec::new();
        let kinds: &[WatchKind] = match change.kind {
            EventType::NodeCreated | EventType::NodeDataChanged => &[WatchKind::Data],
            EventType::NodeChildrenChanged => &[WatchKind::Child],
            EventType::NodeDeleted => &[WatchKind::Data, WatchKind::Child],
        };
        for (nth, kind) in kinds.iter().enumerate() {
            let watchers = self.take(*kind, &change.path, WatchMode::Once as u8, |_| true);
            // Within one table nobody is named twice.
            told.extend(
                watchers.into_iter().filter(|slot| nth == 0 || !told.contains(slot)).collect::<SmallVec<[_; 2]>>(),
            );
            let stays = mutation::is_on(Mutation::RecursiveWatchesStayAtTheTop);
            if *kind == WatchKind::Data && self.recursive > 0 && !stays {
                self.above(&change.path, &mut told);
            }
        }
        told
    }

    /// Adds those who watch everything below some ancestor of `path`.
    fn above(&self, path: &str, told: &mut SmallVec<[u32; 2]>) {
        let mut at = path;
        while let Some((parent, _)) = path::split(at).filter(|(_, name)| !name.is_empty()) {
            for watcher in self.tables[WatchKind::Data as usize].get(parent).into_iter().flatten() {
                if watcher.modes & WatchMode::Recursive as u8 != 0 && !told.contains(&watcher.slot) {
                    told.push(watcher.slot);
                }
            }
            at = parent;
        }
    }

    /// Takes `modes` from the watches of a path that are those of `whom`. Returns all whose they are, also where nothing was taken.
    fn take(&mut self, kind: WatchKind, path: &str, modes: u8, whom: impl Fn(u32) -> bool) -> SmallVec<[u32; 2]> {
        let mut theirs = SmallVec::new();
        let Some((path, mut watchers)) = self.tables[kind as usize].remove_entry(path) else { return theirs };
        watchers.retain(|watcher| {
            if !whom(watcher.slot) {
                return true;
            }
            theirs.push(watcher.slot);
            let before = watcher.modes;
            watcher.modes &= !modes;
            self.count_change(before, watcher.modes);
            if watcher.modes == 0 {
                self.forget_one(watcher.slot, kind, &path);
            }
            watcher.modes != 0
        });
        if !watchers.is_empty() {
            self.tables[kind as usize].insert(path, watchers);
        }
        theirs
    }

    /// Whether `slot` watches `path` in this way (Apache's `checkWatches`, which looks for persistent ones among those of data).
    pub fn has(&self, slot: u32, path: &str, what: WatcherType) -> bool {
        let has = |kind: WatchKind, modes: u8| {
            let watchers = self.tables[kind as usize].get(path);
            watchers.is_some_and(|all| all.iter().any(|watcher| watcher.slot == slot && watcher.modes & modes != 0))
        };
        match what {
            WatcherType::Children => has(WatchKind::Child, WatchMode::Once as u8),
            WatcherType::Data => has(WatchKind::Data, WatchMode::Once as u8),
            WatcherType::Any => has(WatchKind::Data, EVERY) || has(WatchKind::Child, EVERY),
            WatcherType::Persistent => has(WatchKind::Data, WatchMode::Persistent as u8),
            WatcherType::Recursive => has(WatchKind::Data, WatchMode::Recursive as u8),
        }
    }

    /// `slot` does not want to hear of `path` in this way any more. False if it did not watch it so.
    pub fn remove(&mut self, slot: u32, path: &str, what: WatcherType) -> bool {
        let before = self.count;
        let mut take = |kind, modes| drop(self.take(kind, path, modes, |other| other == slot));
        match what {
            WatcherType::Children => take(WatchKind::Child, WatchMode::Once as u8),
            WatcherType::Data => take(WatchKind::Data, WatchMode::Once as u8),
            WatcherType::Any => [WatchKind::Data, WatchKind::Child].into_iter().for_each(|kind| take(kind, EVERY)),
            WatcherType::Persistent => {
                let both = [WatchKind::Data, WatchKind::Child].into_iter();
                both.for_each(|kind| take(kind, WatchMode::Persistent as u8));
            }
            WatcherType::Recursive => take(WatchKind::Data, WatchMode::Recursive as u8),
        }
        self.count < before
    }

    /// The connection is gone.
    pub fn close(&mut self, slot: u32) {
        for (kind, path) in self.by_conn.get(&slot).cloned().unwrap_or_default() {
            self.take(kind, &path, EVERY, |other| other == slot);
        }
    }

    /// How many watches there are.
    pub fn len(&self) -> usize {
        self.count
    }

    /// True when nobody watches anything.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    fn forget_one(&mut self, slot: u32, kind: WatchKind, path: &Arc<str>) {
        let set = self.by_conn.get_mut(&slot).expect("a watcher has its set");
        set.remove(&(kind, path.clone()));
        if set.is_empty() {
            self.by_conn.remove(&slot);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use corral_proto::Zxid;

    fn change(kind: EventType, path: &str) -> Change {
        Change { zxid: Zxid(1), kind, path: path.into(), acl: Arc::new([]) }
    }

    #[test]
    fn a_watch_fires_once_and_a_deletion_is_told_once() {
        let mut watches = Watches::new(1);
        watches.add(WatchKind::Data, "/a", 1);
        watches.add(WatchKind::Data, "/a", 1);
        watches.add(WatchKind::Child, "/a", 1);
        watches.add(WatchKind::Child, "/a", 2);
        assert_eq!(watches.len(), 3);
        assert!(watches.fire(&change(EventType::NodeDataChanged, "/b")).is_empty());
        assert_eq!(watches.fire(&change(EventType::NodeDeleted, "/a")).as_slice(), [1, 2]);
        assert!(watches.is_empty() && watches.by_conn.is_empty());
    }

    #[test]
    fn nothing_of_a_closed_connection_stays() {
        let mut watches = Watches::new(1);
        watches.add(WatchKind::Data, "/a", 1);
        watches.add(WatchKind::Child, "/a", 1);
        watches.add(WatchKind::Child, "/a", 2);
        watches.close(1);
        watches.close(9);
        assert_eq!(watches.len(), 1);
        assert_eq!(watches.fire(&change(EventType::NodeChildrenChanged, "/a")).as_slice(), [2]);
        assert!(watches.tables.iter().all(HashMap::is_empty));
    }

    #[test]
    fn persistent_watches_stay_and_recursive_ones_reach_below() {
        let mut watches = Watches::new(1);
        watches.add_persistent("/a", 1);
        watches.add_recursive("/a", 2);
        watches.add_recursive("/", 3);
        watches.add(WatchKind::Data, "/a/b", 2);
        assert_eq!(watches.len(), 5);
        let mut fire = |kind, path| watches.fire(&change(kind, path)).into_vec();
        for _ in 0..2 {
            assert_eq!(fire(EventType::NodeDataChanged, "/a"), [1, 2, 3]);
            assert_eq!(fire(EventType::NodeCreated, "/a/b"), [2, 3], "once, though it has two");
            assert_eq!(fire(EventType::NodeChildrenChanged, "/a"), [1]);
            assert_eq!(fire(EventType::NodeDeleted, "/a"), [1, 2, 3]);
            assert_eq!(fire(EventType::NodeDataChanged, "/ab"), [3]);
            assert_eq!(fire(EventType::NodeDataChanged, "/"), [3]);
        }
        [1, 2, 3].into_iter().for_each(|slot| watches.close(slot));
        assert!(watches.is_empty() && watches.recursive == 0 && watches.by_conn.is_empty());
    }

    /// The table of the reference; on ZooKeeper 3.8 the types ran into each other (ZOOKEEPER-4471, ZOOKEEPER-4472).
    #[test]
    fn each_kind_of_watch_is_removed_by_itself() {
        use WatcherType::*;
        for (removed, left) in [
            (Children, vec![Data, Any, Persistent, Recursive]),
            (Data, vec![Children, Any, Persistent, Recursive]),
            (Persistent, vec![Children, Data, Any, Recursive]),
            (Recursive, vec![Children, Data, Any, Persistent]),
            (Any, vec![]),
        ] {
            let mut watches = Watches::new(1);
            watches.add(WatchKind::Data, "/a", 1);
            watches.add(WatchKind::Child, "/a", 1);
            watches.add_persistent("/a", 1);
            watches.add_recursive("/a", 1);
            watches.add(WatchKind::Data, "/a", 2);
            assert!(!watches.remove(3, "/a", removed) && watches.remove(1, "/a", removed), "{removed:?}");
            assert!(!watches.remove(1, "/a", removed), "{removed:?} is gone");
            for what in [Children, Data, Any, Persistent, Recursive] {
                assert_eq!(watches.has(1, "/a", what), left.contains(&what), "{what:?} after {removed:?}");
            }
            assert!(watches.has(2, "/a", Data), "another's");
        }
    }
}
