//! Who wants to hear of which node, on one core.
//!
//! Two kinds of each path: *data* (getData, exists) and *child* (getChildren). A watch belongs to a connection and fires
//! once; a persistent one stays until it is removed, and a recursive one hears of everything below its path as well, of children
//! that change only where another watch does. A connection may watch one path in several ways. Registering twice is one watch.
//!
//! Clients may have millions of them, so each is small: paths and watchers lie in slabs and name each other by numbers; a watcher is in two
//! lists, that of its path and that of its connection.
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
use hashbrown::HashTable;
use slab::Slab;
use smallvec::SmallVec;
use std::collections::BTreeMap;
use std::hash::BuildHasher;
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

/// The number of a [`Watched`] or of a [`Watcher`] in its slab.
type Number = u32;
/// No number.
const NONE: Number = Number::MAX;

/// A path that somebody watches, and for each kind the first of those who do.
struct Watched {
    path: Box<str>,
    first: [Number; 2],
}

/// One connection's watches of one path, of one kind.
#[derive(Clone, Copy)]
struct Watcher {
    slot: u32,
    watched: Number,
    /// The next of the same path and kind: it has watched that for longer.
    next: Number,
    /// Its neighbours among all of the same connection.
    newer: Number,
    older: Number,
    kind: WatchKind,
    modes: u8,
}

// With a path of up to 23 bytes a watch takes about 90 bytes: these two, 32 for the path, and its place in the index.
const _: () = assert!(size_of::<Watched>() == 24 && size_of::<Watcher>() == 24);

/// The watches of one core's connections, which are known by their slots.
pub struct Watches {
    watched: Slab<Watched>,
    watchers: Slab<Watcher>,
    /// Finds a path.
    index: HashTable<Number>,
    hasher: FixedState,
    /// The newest of each connection.
    by_conn: BTreeMap<u32, Number>,
    count: usize,
    /// Recursive ones: without any, nobody has to look at the ancestors of what changes.
    recursive: usize,
}

impl Watches {
    /// None yet. The seed keeps clients from choosing paths that collide.
    pub fn new(seed: u64) -> Watches {
        Watches {
            watched: Slab::new(),
            watchers: Slab::new(),
            index: HashTable::new(),
            hasher: FixedState::with_seed(seed),
            by_conn: BTreeMap::new(),
            count: 0,
            recursive: 0,
        }
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
        let watched = self.find(path).unwrap_or_else(|| self.make(path));
        let mode = mode as u8;
        let own = self.of_path(watched, kind).find(|(_, watcher)| watcher.slot == slot);
        let before = match own {
            Some((number, Watcher { modes, .. })) => {
                self.watchers[number as usize].modes |= mode;
                modes
            }
            None => {
                let first = &mut self.watched[watched as usize].first[kind as usize];
                let older = self.by_conn.get(&slot).copied().unwrap_or(NONE);
                let watcher = Watcher { slot, watched, next: *first, newer: NONE, older, kind, modes: mode };
                let number = self.watchers.insert(watcher) as Number;
                *first = number;
                if older != NONE {
                    self.watchers[older as usize].newer = number;
                }
                self.by_conn.insert(slot, number);
                0
            }
        };
        self.count_change(before, before | mode);
    }

    fn find(&self, path: &str) -> Option<Number> {
        let is_it = |number: &Number| *self.watched[*number as usize].path == *path;
        self.index.find(self.hasher.hash_one(path), is_it).copied()
    }

    fn make(&mut self, path: &str) -> Number {
        let number = self.watched.insert(Watched { path: path.into(), first: [NONE; 2] }) as Number;
        let Watches { watched, index, hasher, .. } = self;
        index.insert_unique(hasher.hash_one(path), number, |other| hasher.hash_one(&*watched[*other as usize].path));
        number
    }

    /// Those who watch a path, who came last first.
    fn of_path(&self, watched: Number, kind: WatchKind) -> impl Iterator<Item = (Number, Watcher)> {
        let first = self.watched[watched as usize].first[kind as usize];
        self.follow(first, |watcher| watcher.next)
    }

    fn follow(&self, first: Number, next: fn(&Watcher) -> Number) -> impl Iterator<Item = (Number, Watcher)> {
        let one = |number: Number| self.watchers.get(number as usize).map(|watcher| (number, *watcher));
        std::iter::successors(one(first), move |(_, watcher)| one(next(watcher)))
    }

    fn count_change(&mut self, before: u8, after: u8) {
        let recursive = |modes: u8| usize::from(modes & WatchMode::Recursive as u8 != 0);
        self.count = self.count + after.count_ones() as usize - before.count_ones() as usize;
        self.recursive = self.recursive + recursive(after) - recursive(before);
    }

    /// The paths whose data each connection watches.
    pub fn listed(&self) -> impl Iterator<Item = (u32, Vec<Arc<str>>)> {
        self.by_conn.iter().map(|(slot, newest)| {
            let own = self.follow(*newest, |watcher| watcher.older).map(|(_, watcher)| watcher);
            let data = own.filter(|watcher| watcher.kind == WatchKind::Data);
            (*slot, data.map(|watcher| Arc::from(&*self.watched[watcher.watched as usize].path)).collect())
        })
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
            let all = self.find(parent).into_iter().flat_map(|watched| self.of_path(watched, WatchKind::Data));
            let recursive = all.filter(|(_, watcher)| watcher.modes & WatchMode::Recursive as u8 != 0);
            let slots: SmallVec<[u32; 2]> = recursive.map(|(_, watcher)| watcher.slot).collect();
            told.extend(slots.into_iter().rev().filter(|slot| !told.contains(slot)).collect::<SmallVec<[_; 2]>>());
            at = parent;
        }
    }

    /// Takes `modes` from the watches of a path that are those of `whom`. Returns all whose they are, also where nothing was taken, in the
    /// order in which they asked.
    fn take(&mut self, kind: WatchKind, path: &str, modes: u8, whom: impl Fn(u32) -> bool) -> SmallVec<[u32; 2]> {
        let mut theirs = SmallVec::new();
        let Some(watched) = self.find(path) else { return theirs };
        let mut at = self.watched[watched as usize].first[kind as usize];
        // The one before, which stays.
        let mut before = NONE;
        while at != NONE {
            let Watcher { slot, next, modes: had, .. } = self.watchers[at as usize];
            let has = if whom(slot) { had & !modes } else { had };
            if whom(slot) {
                theirs.push(slot);
                self.watchers[at as usize].modes = has;
                self.count_change(had, has);
            }
            if has != 0 {
                before = at;
            } else {
                match before {
                    NONE => self.watched[watched as usize].first[kind as usize] = next,
                    before => self.watchers[before as usize].next = next,
                }
                self.forget(at);
            }
            at = next;
        }
        if self.watched[watched as usize].first == [NONE; 2] {
            let is_it = |number: &Number| *number == watched;
            self.index.find_entry(self.hasher.hash_one(path), is_it).expect("it was found by that").remove();
            self.watched.remove(watched as usize);
        }
        theirs.reverse();
        theirs
    }

    /// Takes a watcher that nobody comes to by its path any more out of those of its connection.
    fn forget(&mut self, number: Number) {
        let Watcher { slot, newer, older, .. } = self.watchers.remove(number as usize);
        if older != NONE {
            self.watchers[older as usize].newer = newer;
        }
        match (newer, older) {
            (NONE, NONE) => drop(self.by_conn.remove(&slot)),
            (NONE, older) => drop(self.by_conn.insert(slot, older)),
            (newer, older) => self.watchers[newer as usize].older = older,
        }
    }

    /// Whether `slot` watches `path` in this way (Apache's `checkWatches`, which looks for persistent ones among those of data).
    pub fn has(&self, slot: u32, path: &str, what: WatcherType) -> bool {
        let watched = self.find(path);
        let has = |kind: WatchKind, modes: u8| {
            let mut all = watched.into_iter().flat_map(|watched| self.of_path(watched, kind));
            all.any(|(_, watcher)| watcher.slot == slot && watcher.modes & modes != 0)
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
        while let Some(newest) = self.by_conn.get(&slot) {
            let Watcher { watched, kind, .. } = self.watchers[*newest as usize];
            let path = self.watched[watched as usize].path.clone();
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
        assert!(watches.is_empty() && watches.watchers.is_empty());
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
        assert!(watches.index.is_empty() && watches.watched.is_empty() && watches.by_conn.is_empty());
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
        assert!(watches.is_empty() && watches.recursive == 0 && watches.watchers.is_empty());
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
