//! Memory has an owner: how many bytes something holds for another party, and how many it may.
//!
//! Counted is what is *held*: a slice counts the memory that it keeps alive, not what it shows. What happens at the bound is the owner's
//! rule: it makes the other party wait, or disconnects it. One more item may always come on top, so that an item of any size can pass.
//!
//! **Invariant**: what was given back was held.

use crate::mutation::{self, Mutation};

/// How many bytes each other party may make this server hold. What happens there: the table in `docs/design.md`.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Requests of one connection that wait for their turn.
    pub requests: usize,
    /// Answers that one connection has not read.
    pub answers: usize,
    /// Events that one connection has not read.
    pub events: usize,
    /// Writes that the connections of one core have on their way.
    pub writes: usize,
    /// What one core gathers for the replica on another, before its connections wait.
    pub parcel: usize,
    /// The newest transactions, which are sent to learners that lack no more. Far less than what may wait for one, or it would never be
    /// synchronized.
    pub newest: usize,
    /// What waits to be sent to one learner.
    pub learner: usize,
    /// What the log of a follower has to write.
    pub backlog: usize,
}

impl Bounds {
    /// Those of a server.
    pub const PRODUCTION: Bounds = Bounds {
        requests: 1 << 20,
        answers: 1 << 20,
        events: 4 << 20,
        writes: 64 << 20,
        parcel: 256 << 10,
        newest: 64 << 20,
        learner: 128 << 20,
        backlog: 64 << 20,
    };
}

/// Something that is held for another party, for whoever checks the bounds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Held {
    /// What.
    pub what: &'static str,
    /// How many bytes.
    pub bytes: usize,
    /// How many it should be at most, but for the last item.
    pub max: usize,
}

impl Held {
    /// More is held than should be.
    pub fn is_exceeded(&self) -> bool {
        reaches(self.bytes, self.max + 1)
    }
}

fn reaches(bytes: usize, bound: usize) -> bool {
    bytes >= bound && !mutation::is_on(Mutation::BoundsAreIgnored)
}

/// Bytes that are held, and their bound.
#[derive(Clone, Copy, Debug)]
pub struct Budget {
    held: usize,
    max: usize,
}

impl Budget {
    /// Nothing is held; at most `max` bytes should be.
    pub const fn new(max: usize) -> Budget {
        Budget { held: 0, max }
    }

    /// So many more bytes are held.
    pub fn hold(&mut self, bytes: usize) {
        self.held += bytes;
    }

    /// So many are not held any more.
    pub fn give_back(&mut self, bytes: usize) {
        assert!(bytes <= self.held, "{bytes} bytes are given back, {} were held", self.held);
        self.held -= bytes;
    }

    /// Nothing is held any more.
    pub fn clear(&mut self) {
        self.held = 0;
    }

    /// How many bytes of `what` are held, and may be.
    pub fn of(&self, what: &'static str) -> Held {
        Held { what, bytes: self.held, max: self.max }
    }

    /// Bytes that may be held.
    pub fn max(&self) -> usize {
        self.max
    }

    /// Bytes that are held.
    pub fn held(&self) -> usize {
        self.held
    }

    /// Nothing more should come.
    pub fn is_used_up(&self) -> bool {
        reaches(self.held, self.max)
    }

    /// More is held than should be.
    pub fn is_exceeded(&self) -> bool {
        reaches(self.held, self.max + 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_item_may_come_on_top() {
        let mut budget = Budget::new(10);
        budget.hold(9);
        assert!(!budget.is_used_up());
        budget.hold(100);
        assert!(budget.is_used_up() && budget.is_exceeded());
        budget.give_back(99);
        assert_eq!((budget.held(), budget.is_used_up(), budget.is_exceeded()), (10, true, false));
    }

    #[test]
    #[should_panic(expected = "2 bytes are given back, 1 were held")]
    fn nothing_is_given_back_twice() {
        let mut budget = Budget::new(10);
        budget.hold(1);
        budget.give_back(2);
    }
}
