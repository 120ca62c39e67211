//! What a learner must be sent so that its history becomes the leader's: the transactions that it lacks, after it has cut off what
//! the leader does not have, or a snapshot where neither can be told from what is at hand.
//!
//! The rules are those of Apache's `LearnerHandler.syncFollower`, because Apache's learners expect no others:
//!
//! 1. the learner has what the leader has: nothing;
//! 2. it has more: it cuts back to the leader's end (a snapshot, if the leader has no transaction at hand to cut back to);
//! 3. its last transaction is among those at hand, or is the beginning of an epoch in which nothing was proposed to it: what
//!    comes after is sent;
//! 4. its last transaction is missing among those at hand, though others of the same epoch around it are there: it was never
//!    committed; the learner cuts back to the one before, and what comes after is sent;
//! 5. everything else is a snapshot, unless the log on the disk has it ([`super::stretch`]).
//!
//! **Invariant**: a learner that does as it is told ends with the leader's history, whatever it had, if the leader's newest
//! transactions at hand are without a gap.
//!
//! **Not here**: how transactions are at hand (in memory, or read from the log on disk), and sending them.

use crate::mutation::{self, Mutation};
use corral_proto::Zxid;

/// What a learner is told first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sync {
    /// Keep what you have. What is sent comes after `have`.
    Diff {
        /// The learner's own last transaction.
        have: Zxid,
    },
    /// Cut your history back to here; what is sent comes after that.
    Trunc {
        /// The last transaction to keep.
        to: Zxid,
    },
    /// Take this instead.
    Snap,
}

/// Decides what a learner with the history up to `have` is told. `at_hand` are the leader's committed transactions that can be
/// sent, oldest first, without a gap up to the newest; `last` is the newest transaction, or the beginning of the epoch, that
/// the leader's tree stands at.
pub fn decide(have: Zxid, at_hand: impl DoubleEndedIterator<Item = Zxid> + Clone, last: Zxid) -> Sync {
    // An epoch in which nothing was proposed leaves no transaction: nobody can find it in a log.
    let is_beginning = have.counter() == 0;
    let oldest = at_hand.clone().next().unwrap_or(last);
    let newest = at_hand.clone().next_back().unwrap_or(last);
    if have == last || mutation::is_on(Mutation::EveryoneGetsADiff) {
        return Sync::Diff { have };
    }
    if have > newest && !is_beginning {
        // A beginning is in no log, and Apache's learners keep what follows what they do not find.
        return if newest.counter() == 0 { Sync::Snap } else { Sync::Trunc { to: newest } };
    }
    if have < oldest || have > newest {
        return Sync::Snap;
    }
    let mut before = None;
    for zxid in at_hand {
        if zxid < have {
            before = Some(zxid);
            continue;
        }
        return match before {
            _ if zxid == have || is_beginning => Sync::Diff { have },
            // Whether the learner's tail can be cut off there cannot be told across epochs.
            Some(before) if zxid.epoch() == have.epoch() => Sync::Trunc { to: before },
            _ => Sync::Snap,
        };
    }
    // At hand is nothing but a beginning.
    Sync::Diff { have }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn z(epoch: u32, counter: u32) -> Zxid {
        Zxid::new(epoch, counter)
    }

    #[track_caller]
    fn check(have: Zxid, at_hand: &[Zxid], last: Zxid, expected: Sync) {
        assert_eq!(decide(have, at_hand.iter().copied(), last), expected, "{have}");
    }

    #[test]
    fn the_cases_of_the_reference() {
        let hand = [z(1, 5), z(1, 6), z(1, 7), z(3, 1), z(3, 2)];
        let last = z(3, 2);
        for (have, expected) in [
            (last, Sync::Diff { have: last }),
            (z(3, 9), Sync::Trunc { to: last }),
            (z(4, 1), Sync::Trunc { to: last }),
            (z(1, 5), Sync::Diff { have: z(1, 5) }),
            (z(1, 7), Sync::Diff { have: z(1, 7) }),
            (z(1, 4), Sync::Snap),
            // Never committed: the leader has another transaction after what both have, but of another epoch.
            (z(1, 8), Sync::Snap),
            (z(2, 1), Sync::Snap),
            // The learner was there when epoch 2 began, and nothing was proposed in it.
            (z(2, 0), Sync::Diff { have: z(2, 0) }),
            (z(4, 0), Sync::Snap),
        ] {
            check(have, &hand, last, expected);
        }
        let gap = [z(1, 5), z(1, 7)];
        check(z(1, 6), &gap, z(1, 7), Sync::Trunc { to: z(1, 5) });
        check(z(1, 7), &[], z(2, 0), Sync::Snap);
        check(z(2, 0), &[], z(2, 0), Sync::Diff { have: z(2, 0) });
        check(z(2, 1), &[], z(2, 0), Sync::Snap);
        check(Zxid::ZERO, &[], Zxid::ZERO, Sync::Diff { have: Zxid::ZERO });
    }

    proptest! {
        /// Two histories that are the same up to somewhere, as those of a learner and a leader are: the learner's tail was never
        /// committed, so no transaction of it is the leader's.
        #[test]
        fn a_learner_that_does_as_it_is_told_has_the_leaders_history(
            common in prop::collection::vec(1..3u32, 0..6), tail in 0..4u32, new in prop::collection::vec(1..3u32, 0..6),
            dropped in 0..8usize,
        ) {
            let mut history: Vec<Zxid> = Vec::new();
            let mut epoch = 1;
            for count in &common {
                history.extend((1..=*count).map(|counter| z(epoch, counter)));
                epoch += 1;
            }
            let shared = history.len();
            let learner: Vec<Zxid> = match tail {
                0 => history.clone(),
                // Proposed to it by the leader of an epoch of which nobody else has anything.
                tail => history.iter().copied().chain((1..=tail).map(|counter| z(epoch, counter))).collect(),
            };
            for count in &new {
                epoch += 1;
                history.extend((1..=*count).map(|counter| z(epoch, counter)));
            }
            let at_hand = &history[dropped.min(history.len())..];
            let last = history.last().copied().unwrap_or(Zxid::ZERO);
            let have = learner.last().copied().unwrap_or(Zxid::ZERO);
            let after = |from: Zxid| at_hand.iter().copied().filter(move |zxid| *zxid > from);
            let becomes: Vec<Zxid> = match decide(have, at_hand.iter().copied(), last) {
                Sync::Snap => history.clone(),
                Sync::Diff { have } => learner.iter().copied().chain(after(have)).collect(),
                Sync::Trunc { to } => learner.iter().copied().filter(|zxid| *zxid <= to).chain(after(to)).collect(),
            };
            prop_assert_eq!(&becomes, &history, "shared: {}", shared);
        }
    }
}
