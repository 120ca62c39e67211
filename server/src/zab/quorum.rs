//! Who votes, and what a majority of them has.

use corral_proto::{ServerId, Zxid};
use std::collections::BTreeMap;

/// The voting members and how far each has acknowledged.
///
/// **Invariant**: acknowledgements are cumulative and never go back.
#[derive(Clone, Debug)]
pub struct Quorum {
    acked: BTreeMap<ServerId, Zxid>,
}

impl Quorum {
    /// An ensemble of `voters`, all of whom have everything up to `start`.
    ///
    /// # Panics
    /// Without a voter.
    pub fn new(voters: impl IntoIterator<Item = ServerId>, start: Zxid) -> Quorum {
        let acked: BTreeMap<_, _> = voters.into_iter().map(|voter| (voter, start)).collect();
        assert!(!acked.is_empty(), "an ensemble has at least one voter");
        Quorum { acked }
    }

    /// Notes that `voter` has everything up to `upto`. Others than voters are ignored.
    pub fn ack(&mut self, voter: ServerId, upto: Zxid) {
        if let Some(acked) = self.acked.get_mut(&voter) {
            *acked = upto.max(*acked);
        }
    }

    /// Up to where more than half of the voters have everything.
    pub fn committed(&self) -> Zxid {
        if let [only] = *self.acked.values().collect::<smallvec::SmallVec<[&Zxid; 8]>>() {
            return *only;
        }
        let mut acked: smallvec::SmallVec<[Zxid; 8]> = self.acked.values().copied().collect();
        acked.sort_unstable_by(|a, b| b.cmp(a));
        acked[acked.len() / 2]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn committed_is_what_more_than_half_have() {
        let voters = |n: i64| (1..=n).map(ServerId);
        let mut one = Quorum::new(voters(1), Zxid(5));
        assert_eq!(one.committed(), Zxid(5));
        one.ack(ServerId(1), Zxid(9));
        assert_eq!(one.committed(), Zxid(9));

        for (n, acks, expected) in
            [(3, vec![9, 7], 7), (3, vec![9], 0), (4, vec![9, 8], 0), (4, vec![9, 8, 3], 3), (5, vec![4, 6, 9], 4)]
        {
            let mut quorum = Quorum::new(voters(n), Zxid(0));
            for (voter, zxid) in (1..).zip(acks) {
                quorum.ack(ServerId(voter), Zxid(zxid));
                quorum.ack(ServerId(voter), Zxid(1));
                quorum.ack(ServerId(99), Zxid(100));
            }
            assert_eq!(quorum.committed(), Zxid(expected), "{n} voters");
        }
    }
}
