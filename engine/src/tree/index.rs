//! Finds a child by its parent and name: a hash table of the numbers of nodes, without the names.
//!
//! It is split into parts that grow one at a time, so that no single insert has to move the entries of a million nodes.
//!
//! **Invariants**: the order of entries, which depends on the seed, is never looked at.

use super::node::NodeId;
use foldhash::fast::FixedState;
use hashbrown::HashTable;
use std::hash::BuildHasher;

/// Parts of the index, a power of two.
const PARTS: usize = 256;

#[derive(Debug)]
pub(super) struct Index {
    parts: Vec<HashTable<Entry>>,
    hasher: FixedState,
}

/// The hash is kept because a part that grows needs it for each of its entries, and fetching them from the nodes themselves took
/// most of the time of that.
#[derive(Clone, Copy, Debug)]
struct Entry {
    hash: NameHash,
    id: NodeId,
}

/// The hash of a node's parent and name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct NameHash(u32);

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

impl Index {
    pub(super) fn new(seed: u64) -> Index {
        Index { parts: (0..PARTS).map(|_| HashTable::new()).collect(), hasher: FixedState::with_seed(seed) }
    }

    pub(super) fn hash(&self, parent: NodeId, name: &[u8]) -> NameHash {
        NameHash((self.hasher.hash_one((parent.0, name)) >> 32) as u32)
    }

    /// The node with this hash that `is_it` says is the right one.
    pub(super) fn find(&self, hash: NameHash, is_it: impl Fn(NodeId) -> bool) -> Option<NodeId> {
        let entry = self.parts[hash.part()].find(hash.spread(), |entry| entry.hash == hash && is_it(entry.id));
        entry.map(|entry| entry.id)
    }

    pub(super) fn insert(&mut self, hash: NameHash, id: NodeId) {
        self.parts[hash.part()].insert_unique(hash.spread(), Entry { hash, id }, |entry| entry.hash.spread());
    }

    pub(super) fn remove(&mut self, hash: NameHash, id: NodeId) {
        let entry = self.parts[hash.part()].find_entry(hash.spread(), |entry| entry.id == id);
        entry.expect("every node is indexed").remove();
    }

    /// Makes room for so many nodes in all.
    pub(super) fn reserve(&mut self, nodes: usize) {
        // The parts come out nearly the same size.
        let each = nodes / PARTS + nodes / PARTS / 8;
        for part in &mut self.parts {
            part.reserve(each.saturating_sub(part.len()), |entry| entry.hash.spread());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// All nodes of a part began their search in a 256th of its places.
    #[test]
    fn the_nodes_of_a_part_are_spread_over_all_of_it() {
        let hashes = (0..1000u32).map(|n| NameHash(n * PARTS as u32 + 7));
        assert!(hashes.clone().all(|hash| hash.part() == 7));
        let places: std::collections::BTreeSet<u64> = hashes.map(|hash| hash.spread() % 1024).collect();
        assert!(places.len() > 600, "{} places for 1000 nodes", places.len());
    }
}
