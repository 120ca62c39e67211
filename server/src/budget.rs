//! Memory has an owner: how many bytes something holds for another party, and how many it may.
//!
//! Counted is what is *held*: a slice counts the memory that it keeps alive, not what it shows. What happens at the bound is the owner's
//! rule: it makes the other party wait, or disconnects it. One more item may always come on top, so that an item of any size can pass.
//!
//! **Invariant**: what was given back was held.

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

    /// Bytes that are held.
    pub fn held(&self) -> usize {
        self.held
    }

    /// Nothing more should come.
    pub fn is_used_up(&self) -> bool {
        self.held >= self.max
    }

    /// More is held than should be.
    pub fn is_exceeded(&self) -> bool {
        self.held > self.max
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
