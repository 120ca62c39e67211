//! What a node is in the digest of its tree, as Apache ZooKeeper computes it (`DigestCalculator`, version 2).
//!
//! A node's number is the CRC-32 of its path, its data and its state; the digest is the sum of the numbers of all nodes. What lies below
//! `/zookeeper` does not count, because it differs between members (their configuration, what quotas are used).
//!
//! The checksum of path and data is kept with each node ([`Content`]), so that whatever changes the state alone, as each new child changes its
//! parent's, does not read the data again.
//!
//! A leader puts the digest into each transaction. [`Digests`] remembers where a tree and its leader's were not the same: then one of the
//! two is not what the transactions make.
//!
//! **Not here**: the sum itself ([`super::nodes`]), what a member does whose tree differs (the replica).

use corral_proto::{StatPersisted, TreeDigest, Zxid};
use crc32fast::Hasher;
use std::collections::VecDeque;
use std::fmt;

/// The checksum of a node's path and data.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Content(u32);

impl Content {
    /// That of the node at `path`.
    pub fn of(path: &str, data: Option<&[u8]>) -> Content {
        let mut crc = Hasher::new();
        // The root has no name, and no slash in front of it.
        crc.update(if path == "/" { "" } else { path }.as_bytes());
        crc.update(data.unwrap_or_default());
        Content(crc.finalize())
    }

    /// The number of the node with this content and this state.
    pub fn with(self, stat: &StatPersisted) -> u32 {
        let mut bytes = [0; StatPersisted::LEN];
        let longs = [stat.czxid.0, stat.mzxid.0, stat.pzxid.0, stat.ctime, stat.mtime];
        let ints = [stat.version, stat.created, stat.aversion];
        let (head, tail) = bytes.split_at_mut(size_of_val(&longs));
        head.chunks_exact_mut(8).zip(longs).for_each(|(to, long)| to.copy_from_slice(&long.to_be_bytes()));
        tail.chunks_exact_mut(4).zip(ints).for_each(|(to, int)| to.copy_from_slice(&int.to_be_bytes()));
        tail[size_of_val(&ints)..].copy_from_slice(&stat.owner.0.to_be_bytes());
        // How much came before does not matter to what is appended.
        let mut crc = Hasher::new_with_initial(self.0);
        crc.update(&bytes);
        crc.finalize()
    }
}

/// Whether the node at `path` counts.
pub fn counts(path: &str) -> bool {
    !path.starts_with("/zookeeper/")
}

/// A tree was not as its leader's was after the same transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Difference {
    /// After which transaction.
    pub zxid: Zxid,
    /// The tree's digest.
    pub here: TreeDigest,
    /// The leader's.
    pub leaders: TreeDigest,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Difference { zxid, here, leaders } = self;
        write!(f, "after transaction {zxid} the digest of the tree is {here} here, and was {leaders} at the leader")
    }
}

/// One transaction of so many is remembered, and so many of those, as by Apache's servers: people compare them between members (`hash`).
const EVERY: i64 = 128;
const REMEMBERED: usize = 1024;

/// What a tree's digest was, and how it compared.
#[derive(Debug, Default)]
pub(super) struct Digests {
    past: VecDeque<(Zxid, TreeDigest)>,
    /// Since the first of the transactions after which it was another one than the leader's, up to the newest.
    difference: Option<Difference>,
    differences: u64,
    /// The tree holds parts of transactions that are yet to be applied, nobody knows up to which.
    pub(super) is_fuzzy: bool,
}

impl Digests {
    /// After this transaction the tree has the digest `here`. The leader's may be known.
    pub(super) fn is(&mut self, zxid: Zxid, here: TreeDigest, leaders: Option<TreeDigest>) {
        if zxid.0 % EVERY == 0 {
            self.past.push_back((zxid, here));
            self.past.drain(..self.past.len().saturating_sub(REMEMBERED));
        }
        if let Some(leaders) = leaders {
            let is_other = here != leaders;
            self.differences += u64::from(is_other);
            let first = self.difference.unwrap_or(Difference { zxid, here, leaders });
            self.difference = is_other.then_some(first);
        }
    }

    pub(super) fn past(&self) -> impl Iterator<Item = (Zxid, TreeDigest)> {
        self.past.iter().copied()
    }

    pub(super) fn difference(&self) -> Option<Difference> {
        self.difference
    }

    pub(super) fn differences(&self) -> u64 {
        self.differences
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::Tree;

    /// Numbers that Apache ZooKeeper 3.8.0 and 3.9.5 have for the same.
    #[test]
    fn the_digest_of_a_tree_without_nodes_is_apaches() {
        assert_eq!(Tree::new(1).digest().to_string(), "1371985504");
    }

    #[test]
    fn the_system_subtree_does_not_count_but_its_root_does() {
        assert!(counts("/zookeeper") && counts("/zookeeper2/a") && counts("/a/zookeeper/b"));
        assert!(!counts("/zookeeper/quota") && !counts("/zookeeper/quota/a"));
    }

    #[test]
    fn a_difference_is_that_of_the_first_transaction_until_the_trees_agree_again() {
        let mut digests = Digests::default();
        let [here, leaders] = [1, 2].map(TreeDigest);
        digests.is(Zxid(1), here, Some(here));
        digests.is(Zxid(2), here, Some(leaders));
        digests.is(Zxid(3), here, None);
        digests.is(Zxid(4), here, Some(leaders));
        assert_eq!(
            (digests.difference(), digests.differences()),
            (Some(Difference { zxid: Zxid(2), here, leaders }), 2)
        );
        digests.is(Zxid(5), here, Some(here));
        assert_eq!((digests.difference(), digests.differences()), (None, 2));
    }

    #[test]
    fn the_newest_of_every_128_transactions_are_remembered() {
        let mut digests = Digests::default();
        (1..=EVERY * 2000).for_each(|zxid| digests.is(Zxid(zxid), TreeDigest(zxid as u64), None));
        let past: Vec<_> = digests.past().collect();
        assert_eq!(
            (past.len(), past[0].0, past.last().unwrap().0),
            (REMEMBERED, Zxid(EVERY * 977), Zxid(EVERY * 2000))
        );
    }
}
