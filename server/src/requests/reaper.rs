//! Deletes what has outlived its use: containers whose last child is gone, and nodes whose time is over. The leader does that, by
//! transactions in nobody's name (Apache's `ContainerManager`).
//!
//! Once an interval it goes through all nodes that this may concern: some in each step, and a step ends with the first that is to be
//! deleted. So neither their number nor that of the deletions makes anybody wait.
//!
//! **Not here**: which nodes those are ([`Tree::has_outlived`]), what a deletion becomes ([`super::sequencer`]).

use corral_engine::Tree;
use corral_engine::tree::NodeId;
use std::time::Duration;

/// Nodes that are looked at in one step.
const STEP: usize = 1024;

/// How it is set up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reaping {
    /// How often all are looked at (`znode.container.checkIntervalMs`).
    pub every: Duration,
    /// Between two deletions, at least (from `znode.container.maxPerMinute`).
    pub gap: Duration,
    /// How long a container that never had a child is kept; `None`: for ever (`znode.container.maxNeverUsedIntervalMs`).
    pub unused_ms: Option<i64>,
}

impl Default for Reaping {
    /// Apache's.
    fn default() -> Reaping {
        Reaping { every: Duration::from_secs(60), gap: Duration::from_millis(6), unused_ms: None }
    }
}

/// Where it has come to.
pub struct Reaper {
    options: Reaping,
    /// When the present round began, or the next begins.
    began: Duration,
    next: Duration,
    /// The last node that was looked at in this round.
    at: Option<NodeId>,
}

impl Reaper {
    /// The first round begins an interval after `now`.
    pub fn new(options: Reaping, now: Duration) -> Reaper {
        let next = now + options.every;
        Reaper { options, began: next, next, at: None }
    }

    /// When there is something to do.
    pub fn deadline(&self) -> Duration {
        self.next
    }

    /// Takes a step if it is time for one: a node that has outlived its use, or none for now.
    pub fn step(&mut self, tree: &Tree, now: Duration, wall_ms: i64) -> Option<NodeId> {
        if now < self.next {
            return None;
        }
        if self.at.is_none() {
            self.began = now;
        }
        for (count, id) in tree.mortals(self.at).enumerate() {
            if count == STEP {
                return None;
            }
            self.at = Some(id);
            if tree.has_outlived(id, wall_ms, self.options.unused_ms) {
                self.next = now + self.options.gap;
                return Some(id);
            }
        }
        self.at = None;
        self.next = now.max(self.began + self.options.every);
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use corral_proto::{AclList, SessionId, Txn, TxnEntry, TxnHeader, Xid, Zxid, txn::CreateTxn};

    const EVERY: Duration = Duration::from_millis(1000);
    const GAP: Duration = Duration::from_millis(6);

    fn apply(tree: &mut Tree, time_ms: i64, txn: Txn<'_>) {
        let zxid = Zxid(tree.last_applied().0 + 1);
        tree.apply(
            &TxnEntry { header: TxnHeader { session: SessionId(1), cxid: Xid(0), zxid, time_ms }, txn, digest: None },
            None,
        );
    }

    fn node(path: &str) -> CreateTxn<'_> {
        CreateTxn { path, data: None, acl: AclList::OPEN, ephemeral: false, parent_cversion: -1 }
    }

    /// The paths that it names from `now` on, one after the other as they are deleted, and when.
    fn reaped(tree: &mut Tree, reaper: &mut Reaper, until: Duration) -> Vec<(String, u128)> {
        let mut named = Vec::new();
        while reaper.deadline() < until {
            let now = reaper.deadline();
            if let Some(id) = reaper.step(tree, now, now.as_millis() as i64) {
                let path = tree.path(id);
                apply(tree, now.as_millis() as i64, Txn::DeleteContainer { path: &path });
                named.push((path, now.as_millis()));
            }
        }
        named
    }

    #[test]
    fn what_has_outlived_its_use_is_deleted_and_nothing_else() {
        let mut tree = Tree::new(1);
        let container = |tree: &mut Tree, path| apply(tree, 0, Txn::CreateContainer(node(path)));
        ["/never-used", "/empty", "/full"].iter().for_each(|path| container(&mut tree, path));
        for kid in ["/empty/a", "/full/a"] {
            apply(&mut tree, 0, Txn::Create(node(kid)));
        }
        apply(&mut tree, 0, Txn::Delete { path: "/empty/a" });
        apply(&mut tree, 0, Txn::CreateTtl(node("/short"), 1500));
        apply(&mut tree, 0, Txn::CreateTtl(node("/renewed"), 1500));
        apply(&mut tree, 1200, Txn::SetData { path: "/renewed", data: None, version: 1 });
        apply(&mut tree, 0, Txn::CreateTtl(node("/parent"), 10));
        apply(&mut tree, 0, Txn::Create(node("/parent/kid")));
        let mut reaper = Reaper::new(Reaping { every: EVERY, gap: GAP, unused_ms: None }, Duration::ZERO);
        let named = reaped(&mut tree, &mut reaper, 10 * EVERY);
        let at = |path: &str, ms| (path.to_owned(), ms);
        assert_eq!(named, [at("/empty", 1000), at("/short", 2000), at("/renewed", 3000)]);
        let options = Reaping { every: EVERY, gap: GAP, unused_ms: Some(15_000) };
        let mut reaper = Reaper::new(options, 14 * EVERY);
        assert_eq!(reaped(&mut tree, &mut reaper, 20 * EVERY), [at("/never-used", 16_000)]);
    }

    #[test]
    fn many_go_one_after_the_other_in_one_round() {
        let mut tree = Tree::new(1);
        for number in 0..3 * STEP {
            apply(&mut tree, 0, Txn::CreateTtl(node(&format!("/n{number}")), 1 + (number % 2) as i64 * 50_000));
        }
        let mut reaper = Reaper::new(Reaping { every: EVERY, gap: GAP, unused_ms: None }, Duration::ZERO);
        let named = reaped(&mut tree, &mut reaper, 20 * EVERY);
        assert_eq!(named.len(), 3 * STEP / 2);
        assert!(named.windows(2).all(|two| two[1].1 == two[0].1 + GAP.as_millis()), "none waits for another round");
    }
}
