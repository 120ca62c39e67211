//! What must be true of all histories taken together: ZAB's properties, by the names of its published specification, and that
//! nothing acknowledged is lost (R5), that a transaction is one (R4), and that equal histories are equal trees (R6).
//!
//! The history of the ensemble is what was ever delivered (applied and served) by any member, and what an established leader
//! began with. Every member's own is compared with it at each step:
//!
//! - *integrity*: what is delivered was broadcast by a leader, and is what it broadcast;
//! - *agreement*, *total order*: what two members deliver, they deliver in the same order, and one has no gap where the other has none;
//! - *local primary order*: a leader's transactions are delivered in the order of its broadcasts, without a gap;
//! - *global primary order*: those of an earlier leader come before those of a later one;
//! - *primary integrity*: a leader that broadcasts has delivered what earlier leaders had committed, and afterwards nothing of
//!   theirs is added;
//! - an epoch has one leader; what is committed is durable on a quorum.
//!
//! **Not here**: what clients are told ([`super::client`]).

use corral_proto::Zxid;
use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};

/// A transaction, and what tells its bytes from others.
pub(super) type Entry = (Zxid, u64);

/// What tells bytes apart.
pub(super) fn fingerprint(bytes: impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    bytes.hash(&mut hasher);
    hasher.finish()
}

/// What is known of all members together.
#[derive(Default)]
pub(super) struct History {
    /// What is committed, in order.
    pub(super) committed: Vec<Entry>,
    /// What leaders have broadcast.
    broadcast: BTreeMap<Zxid, u64>,
    /// Established epochs: the leader's life, and what it began with.
    epochs: BTreeMap<u32, usize>,
    /// What the tree was after a transaction.
    trees: BTreeMap<Zxid, u64>,
}

impl History {
    /// A leader has begun an epoch with this history. What it holds is committed by that.
    pub(super) fn established(&mut self, epoch: u32, own: &[Entry]) {
        let newest = self.epochs.last_key_value().map(|(epoch, _)| *epoch);
        assert!(!self.epochs.contains_key(&epoch), "primary uniqueness: epoch {epoch} was established twice");
        let is_newest = newest.is_none_or(|newest| epoch > newest);
        // One that is late, and does not know of its successor yet, has a part of what that has.
        let (longer, shorter) = if is_newest { (own, &self.committed[..]) } else { (&self.committed[..], own) };
        assert!(
            longer.starts_with(shorter),
            "primary integrity: the leader of epoch {epoch} begins with {}, but {} was committed",
            end_of(own),
            end_of(&self.committed)
        );
        self.epochs.insert(epoch, own.len());
        self.committed = longer.to_vec();
    }

    /// A leader broadcasts a transaction.
    pub(super) fn broadcasts(&mut self, (zxid, bytes): Entry) {
        assert!(self.epochs.contains_key(&zxid.epoch()), "primary integrity: {zxid} before its epoch is established");
        let newest = self.broadcast.range(..=Zxid::new(zxid.epoch(), u32::MAX)).next_back().map(|(zxid, _)| *zxid);
        let before = newest.filter(|newest| newest.epoch() == zxid.epoch()).map_or(0, Zxid::counter);
        assert!(zxid.counter() == before + 1, "local primary order: {zxid} is broadcast after counter {before}");
        self.broadcast.insert(zxid, bytes);
    }

    /// A member delivers the transaction after those that it has delivered, `place` of them. `on_quorum` says whether it is durable
    /// on a quorum now.
    pub(super) fn delivers(&mut self, place: usize, entry: Entry, on_quorum: impl FnOnce() -> bool) {
        let (zxid, bytes) = entry;
        match self.committed.get(place) {
            Some(known) => assert!(*known == entry, "total order: {zxid} is delivered where {} was", known.0),
            None => {
                assert!(place == self.committed.len(), "agreement: {zxid} is delivered behind a gap");
                let last = self.committed.last().map_or(Zxid::ZERO, |(zxid, _)| *zxid);
                assert!(zxid.epoch() >= last.epoch(), "global primary order: {zxid} is delivered after {last}");
                let follows = zxid.epoch() > last.epoch() && zxid.counter() == 1 || Some(zxid) == last.next();
                assert!(follows, "local primary order: {zxid} is delivered after {last}");
                let is_known = self.broadcast.get(&zxid) == Some(&bytes);
                assert!(is_known, "integrity: {zxid} is delivered, but that was not broadcast");
                let later = self.epochs.range(zxid.epoch() + 1..).find(|(_, begun_with)| **begun_with <= place);
                assert!(
                    later.is_none(),
                    "primary integrity: {zxid} is committed, but the leader of epoch {} began without it",
                    later.expect("just looked at").0
                );
                assert!(on_quorum(), "commit: {zxid} is delivered, but is not durable on a quorum");
                self.committed.push(entry);
            }
        }
    }

    /// A member serves with this history: so it delivers all of it. What is new in that was committed without anybody having
    /// delivered it yet.
    pub(super) fn serves(&mut self, own: &[Entry], on_quorum: impl Fn(Zxid) -> bool) {
        let same = own.iter().zip(&self.committed).take_while(|(own, known)| own == known).count();
        assert!(
            same == own.len().min(self.committed.len()),
            "agreement: a member serves {}, but {} was committed in its place",
            end_of(&own[..=same]),
            self.committed[same].0
        );
        for (place, entry) in own.iter().enumerate().skip(same) {
            self.delivers(place, *entry, || on_quorum(entry.0));
        }
    }

    /// A member's tree after a transaction has this fingerprint.
    pub(super) fn has_tree(&mut self, after: Zxid, tree: u64) {
        let known = *self.trees.entry(after).or_insert(tree);
        assert!(known == tree, "R6: two members have different trees after {after}");
    }

    /// Epochs that were established.
    pub(super) fn epochs(&self) -> usize {
        self.epochs.len()
    }
}

fn end_of(history: &[Entry]) -> String {
    format!("{} transactions up to {}", history.len(), history.last().map_or(Zxid::ZERO, |(zxid, _)| *zxid))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn z(epoch: u32, counter: u32) -> Entry {
        (Zxid::new(epoch, counter), u64::from(counter))
    }

    fn begun() -> History {
        let mut history = History::default();
        history.established(1, &[]);
        history.broadcasts(z(1, 1));
        history.broadcasts(z(1, 2));
        history.delivers(0, z(1, 1), || true);
        history
    }

    #[test]
    fn what_may_happen_passes() {
        let mut history = begun();
        history.delivers(0, z(1, 1), || false);
        history.established(3, &[z(1, 1), z(1, 2)]);
        // Late: it lacks the newest, which it will never commit.
        history.established(2, &[z(1, 1)]);
        history.broadcasts(z(3, 1));
        history.delivers(2, z(3, 1), || true);
        history.broadcasts(z(3, 2));
        history.serves(&[z(1, 1), z(1, 2), z(3, 1), z(3, 2)], |_| true);
        history.serves(&[], |_| false);
    }

    #[test]
    #[should_panic(expected = "primary uniqueness")]
    fn an_epoch_has_one_leader() {
        begun().established(1, &[z(1, 1)]);
    }

    #[test]
    #[should_panic(expected = "primary integrity")]
    fn a_leader_has_what_was_committed() {
        begun().established(2, &[]);
    }

    #[test]
    #[should_panic(expected = "primary integrity")]
    fn nothing_is_added_behind_a_later_leader() {
        let mut history = begun();
        history.established(2, &[z(1, 1)]);
        history.delivers(1, z(1, 2), || true);
    }

    #[test]
    #[should_panic(expected = "commit")]
    fn what_is_delivered_is_durable_on_a_quorum() {
        begun().delivers(1, z(1, 2), || false);
    }

    #[test]
    #[should_panic(expected = "local primary order")]
    fn nothing_is_left_out() {
        let mut history = begun();
        history.broadcasts(z(1, 3));
        history.delivers(1, z(1, 3), || true);
    }

    #[test]
    #[should_panic(expected = "integrity")]
    fn what_is_delivered_was_broadcast() {
        begun().delivers(1, (Zxid::new(1, 2), 77), || true);
    }

    #[test]
    #[should_panic(expected = "total order")]
    fn all_deliver_the_same() {
        begun().delivers(0, (Zxid::new(1, 1), 77), || true);
    }

    #[test]
    #[should_panic(expected = "agreement")]
    fn what_is_served_is_what_was_committed() {
        begun().serves(&[(Zxid::new(1, 1), 77)], |_| true);
    }

    #[test]
    #[should_panic(expected = "R6")]
    fn equal_histories_are_equal_trees() {
        let mut history = begun();
        history.has_tree(Zxid::new(1, 1), 5);
        history.has_tree(Zxid::new(1, 1), 6);
    }
}
