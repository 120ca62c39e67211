//! The newest transactions of a member's history, at hand for learners that come back with a little less (Apache's committed log).
//!
//! A copy of its own: keeping slices of the log's batches alive would keep their whole buffers.
//!
//! **Invariants**: no gaps; at least [`KEEP`] of them (or another number, for simulations) are kept once there are as many, unless
//! they are larger together than they may be ([`Bounds::newest`]).
//!
//! **Not here**: older ones, which are in the log on disk.

use crate::budget::{Bounds, Budget};
use bytes::{Bytes, BytesMut};
use corral_proto::Zxid;
use std::collections::VecDeque;
use std::hash::{Hash, Hasher};

/// Transactions that are kept at least (`commitLogCount`).
const KEEP: usize = 500;
/// They are copied into pieces of this size; into smaller ones while there are few.
const PIECE: usize = 64 << 10;

/// Oldest first. Two are the same if they hold the same.
#[derive(Clone, Debug)]
pub struct History {
    keep: usize,
    entries: VecDeque<(Zxid, Bytes)>,
    held: Budget,
    piece: BytesMut,
}

impl Default for History {
    fn default() -> History {
        History::keeping(KEEP, Bounds::PRODUCTION.newest)
    }
}

impl History {
    /// Nothing is at hand.
    pub fn new() -> History {
        History::default()
    }

    /// Nothing is at hand, and at least so many will be kept, unless they have more than so many bytes.
    pub fn keeping(keep: usize, bytes: usize) -> History {
        History { keep, entries: VecDeque::new(), held: Budget::new(bytes), piece: BytesMut::new() }
    }

    /// The next transaction was added.
    pub fn push(&mut self, zxid: Zxid, record: &[u8]) {
        assert!(self.newest().is_none_or(|newest| zxid > newest), "a history grows at its end");
        if self.piece.capacity() < record.len() {
            self.piece = BytesMut::with_capacity(PIECE.min(self.held.held()).max(record.len()));
        }
        self.piece.extend_from_slice(record);
        self.entries.push_back((zxid, self.piece.split().freeze()));
        self.held.hold(record.len());
        let drop = if self.entries.len() >= 2 * self.keep { self.keep } else { 0 };
        self.held.give_back(self.entries.drain(..drop).map(|(_, record)| record.len()).sum());
        while self.held.is_exceeded()
            && let Some((_, record)) = self.entries.pop_front()
        {
            self.held.give_back(record.len());
        }
    }

    /// Everything after `upto` was given up.
    pub fn cut(&mut self, upto: Zxid) {
        while let Some((_, record)) = self.entries.pop_back_if(|(zxid, _)| *zxid > upto) {
            self.held.give_back(record.len());
        }
    }

    /// Another history takes its place, of which nothing is at hand.
    pub fn forget(&mut self) {
        *self = History::keeping(self.keep, self.held.max());
    }

    /// The newest.
    pub fn newest(&self) -> Option<Zxid> {
        self.entries.back().map(|(zxid, _)| *zxid)
    }

    /// All of them.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = &(Zxid, Bytes)> + Clone {
        self.entries.iter()
    }
}

impl PartialEq for History {
    fn eq(&self, other: &History) -> bool {
        self.entries == other.entries
    }
}

impl Eq for History {}

impl Hash for History {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.entries.hash(state);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_are_kept_and_what_is_given_up_is_gone() {
        let mut history = History::new();
        for zxid in 1..=2600 {
            history.push(Zxid(zxid), &zxid.to_be_bytes());
        }
        let zxids: Vec<i64> = history.iter().map(|(zxid, _)| zxid.0).collect();
        assert!(zxids.len() >= KEEP && zxids.len() < 2 * KEEP && zxids.is_sorted() && zxids.ends_with(&[2599, 2600]));
        assert!(history.iter().all(|(zxid, record)| **record == zxid.0.to_be_bytes()));
        assert_eq!(history.held.held(), 8 * zxids.len());
        history.cut(Zxid(2590));
        assert_eq!(history.newest(), Some(Zxid(2590)));
        history.forget();
        assert_eq!((history.newest(), history.held.held()), (None, 0));
    }

    #[test]
    fn large_ones_do_not_pile_up() {
        let mut history = History::new();
        let record = vec![7; 1 << 20];
        // Behind many that are small.
        (1..=900).for_each(|zxid| history.push(Zxid(zxid), &record[..64 << 10]));
        (901..=1100).for_each(|zxid| history.push(Zxid(zxid), &record));
        assert!(!history.held.is_exceeded() && history.iter().count() == 64);
    }
}
