//! What a node is in the digest of its tree, as Apache ZooKeeper computes it (`DigestCalculator`, version 2).
//!
//! A node's number is the CRC-32 of its path, its data and its state; the digest is the sum of the numbers of all nodes. What lies below
//! `/zookeeper` does not count, because it differs between members (their configuration, what quotas are used).
//!
//! A node's number is kept with it, so that only what it becomes has to be computed when it changes.
//!
//! A leader puts the digest into each transaction. [`Digests`] remembers where a tree and its leader's were not the same: then one of the
//! two is not what the transactions make.
//!
//! **Not here**: the sum itself ([`super::nodes`]), what a member does whose tree differs (the replica).

use corral_proto::{StatPersisted, TreeDigest, Zxid};
use crc32fast::Hasher;
use std::collections::VecDeque;
use std::fmt;

/// What the node at `path` is in the digest: 0 if it does not count.
pub fn number(path: &str, data: Option<&[u8]>, stat: &StatPersisted) -> u32 {
    if counts(path) { checksum(path, data, Some(stat)) } else { 0 }
}

/// Whether the node at `path` counts.
fn counts(path: &str) -> bool {
    !path.starts_with("/zookeeper/")
}

/// The checksum of a node's path and data: all but its state that its number needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Content(Option<u32>);

impl Content {
    /// That of a node that does not count.
    pub const UNCOUNTED: Content = Content(None);

    /// That of the node at `path`.
    pub fn of(path: &str, data: Option<&[u8]>) -> Content {
        Content(counts(path).then(|| checksum(path, data, None)))
    }

    /// The [number] of the node with this content and this state.
    pub fn number(self, stat: &StatPersisted) -> u32 {
        self.0.map_or(0, |crc| {
            let (mut bytes, mut crc) = ([0; StatPersisted::LEN], Hasher::new_with_initial(crc));
            put_state(stat, &mut bytes);
            crc.update(&bytes);
            crc.finalize()
        })
    }
}

/// Path, data and state of a usual node are shorter than that.
const SHORT: usize = 256;

fn checksum(path: &str, data: Option<&[u8]>, stat: Option<&StatPersisted>) -> u32 {
    // The root has no name, and no slash in front of it.
    let (path, data) = (if path == "/" { "" } else { path }.as_bytes(), data.unwrap_or_default());
    let content = path.len() + data.len();
    let len = content + stat.map_or(0, |_| StatPersisted::LEN);
    let mut bytes = [0; SHORT];
    if len > SHORT {
        let state = &mut bytes[..len - content];
        stat.into_iter().for_each(|stat| put_state(stat, state));
        let mut crc = Hasher::new();
        [path, data, state].iter().for_each(|part| crc.update(part));
        return crc.finalize();
    }
    // Most of the time goes into beginning, and not into bytes: one piece is faster than three. Small numbers are written first, because a
    // processor reads them as larger ones only some time after that.
    stat.into_iter().for_each(|stat| put_state(stat, &mut bytes[content..len]));
    bytes[..path.len()].copy_from_slice(path);
    bytes[path.len()..content].copy_from_slice(data);
    crc32fast::hash(&bytes[..len])
}

/// Writes a node's state in the order in which it counts.
fn put_state(stat: &StatPersisted, bytes: &mut [u8]) {
    let longs = [stat.czxid.0, stat.mzxid.0, stat.pzxid.0, stat.ctime, stat.mtime];
    let ints = [stat.version, stat.created, stat.aversion];
    let (head, tail) = bytes.split_at_mut(size_of_val(&longs));
    head.chunks_exact_mut(8).zip(longs).for_each(|(to, long)| to.copy_from_slice(&long.to_be_bytes()));
    tail.chunks_exact_mut(4).zip(ints).for_each(|(to, int)| to.copy_from_slice(&int.to_be_bytes()));
    tail[size_of_val(&ints)..].copy_from_slice(&stat.owner.0.to_be_bytes());
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
    use corral_proto::SessionId;

    /// Numbers that Apache ZooKeeper 3.8.0 and 3.9.5 have for the same.
    #[test]
    fn the_digest_of_a_tree_without_nodes_is_apaches() {
        assert_eq!(Tree::new(1).digest().to_string(), "1371985504");
    }

    #[test]
    fn a_number_is_the_same_however_it_is_put_together() {
        let stat = StatPersisted { version: 7, ..StatPersisted::new(Zxid(5), 1000, SessionId(9)) };
        let mut state = [0; StatPersisted::LEN];
        put_state(&stat, &mut state);
        for len in [0, 1, SHORT - 64, SHORT - 63, SHORT, 5 * SHORT] {
            let data = vec![1; len];
            let whole = number("/abc", Some(&data), &stat);
            let bytes = [&b"/abc"[..], &data, &state].concat();
            assert_eq!(
                (whole, Content::of("/abc", Some(&data)).number(&stat)),
                (crc32fast::hash(&bytes), whole),
                "{len}"
            );
        }
        assert_eq!(
            (number("/zookeeper/quota", None, &stat), Content::of("/zookeeper/quota", None).number(&stat)),
            (0, 0)
        );
        assert_eq!(number("/", None, &stat), crc32fast::hash(&state));
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
