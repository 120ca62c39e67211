//! Who wants to hear of which node, on one core.
//!
//! Two tables, keyed by path: *data* (getData, exists) and *child* (getChildren). A watch belongs to a connection and fires
//! once. Registering twice is one watch.
//!
//! **Invariants**: a connection is told at most once of one change, however many of its watches match; when a connection
//! closes, nothing of it stays.
//!
//! **Not here**: whether the connection may hear of it (the worker looks at the change's list), encoding.

use corral_engine::tree::Change;
use corral_proto::EventType;
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

/// The watches of one core's connections, which are known by their slots.
pub struct Watches {
    tables: [HashMap<Arc<str>, SmallVec<[u32; 2]>, FixedState>; 2],
    by_conn: BTreeMap<u32, BTreeSet<(WatchKind, Arc<str>)>>,
    count: usize,
}

impl Watches {
    /// None yet. The seed keeps clients from choosing paths that collide.
    pub fn new(seed: u64) -> Watches {
        let table = || HashMap::with_hasher(FixedState::with_seed(seed));
        Watches { tables: [table(), table()], by_conn: BTreeMap::new(), count: 0 }
    }

    /// `slot` wants to hear of the next change of that kind at `path`.
    pub fn add(&mut self, kind: WatchKind, path: &str, slot: u32) {
        let table = &mut self.tables[kind as usize];
        let path = match table.get_key_value(path) {
            Some((path, _)) => path.clone(),
            None => path.into(),
        };
        let watchers = table.entry(path.clone()).or_default();
        if !watchers.contains(&slot) {
            watchers.push(slot);
            self.by_conn.entry(slot).or_default().insert((kind, path));
            self.count += 1;
        }
    }

    /// Whoever is to be told of `change`, in the order in which they asked. Their watches are used up.
    pub fn fire(&mut self, change: &Change) -> SmallVec<[u32; 2]> {
        let mut told = SmallVec::new();
        let kinds: &[WatchKind] = match change.kind {
            EventType::NodeCreated | EventType::NodeDataChanged => &[WatchKind::Data],
            EventType::NodeChildrenChanged => &[WatchKind::Child],
            EventType::NodeDeleted => &[WatchKind::Data, WatchKind::Child],
        };
        for (nth, kind) in kinds.iter().enumerate() {
            let Some((path, watchers)) = self.tables[*kind as usize].remove_entry(&*change.path) else { continue };
            self.count -= watchers.len();
            for slot in watchers {
                self.forget_one(slot, *kind, &path);
                // Within one table nobody is named twice.
                if nth == 0 || !told.contains(&slot) {
                    told.push(slot);
                }
            }
        }
        told
    }

    /// The connection is gone.
    pub fn close(&mut self, slot: u32) {
        for (kind, path) in self.by_conn.remove(&slot).unwrap_or_default() {
            let table = &mut self.tables[kind as usize];
            let watchers = table.get_mut(&path).expect("a watch is in its table");
            watchers.retain(|other| *other != slot);
            self.count -= 1;
            if watchers.is_empty() {
                table.remove(&path);
            }
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
}
