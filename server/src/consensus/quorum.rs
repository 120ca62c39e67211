//! How far the voters have acknowledged, and what that commits.

use super::Ensemble;
use crate::mutation::{self, Mutation};
use corral_proto::{ServerId, Zxid};
use std::collections::BTreeMap;
use std::sync::Arc;

/// The voting members and how far each has acknowledged.
///
/// **Invariant**: acknowledgements are cumulative, and go back only where a voter begins anew.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Quorum {
    ensemble: Arc<Ensemble>,
    acked: BTreeMap<ServerId, Zxid>,
}

impl Quorum {
    /// The voters of `ensemble`, all of whom have everything up to `start`.
    pub fn new(ensemble: Arc<Ensemble>, start: Zxid) -> Quorum {
        let acked = ensemble.voters().map(|voter| (voter, start)).collect();
        Quorum { ensemble, acked }
    }

    /// Notes that `voter` has everything up to `upto`. Others than voters are ignored.
    pub fn ack(&mut self, voter: ServerId, upto: Zxid) {
        if let Some(acked) = self.acked.get_mut(&voter) {
            *acked = upto.max(*acked);
        }
    }

    /// What `voter` has acknowledged; `None` if it does not vote.
    pub fn acknowledged(&self, voter: ServerId) -> Option<Zxid> {
        self.acked.get(&voter).copied()
    }

    /// `voter` is about to be sent the history up to `upto` again, and may cut off first what it had beyond: what it has
    /// acknowledged of that does not count any more.
    pub fn begin_anew(&mut self, voter: ServerId, upto: Zxid) {
        if let Some(acked) = self.acked.get_mut(&voter) {
            *acked = upto.min(*acked);
        }
    }

    /// Up to where a quorum has everything.
    pub fn committed(&self) -> Zxid {
        let is_enough = mutation::is_on(Mutation::CommitsNeedNoQuorum);
        let has = |upto: Zxid| is_enough || self.ensemble.is_quorum(|voter| self.acked[&voter] >= upto);
        let committed = self.acked.values().copied().filter(|upto| has(*upto)).max();
        committed.expect("all of them have what the first has")
    }
}

#[cfg(test)]
mod tests {
    use super::super::ensemble::Voter;
    use super::*;

    #[test]
    fn committed_is_what_more_than_half_have() {
        let voters = |n: i64| Arc::new(Ensemble::of_equals((1..=n).map(ServerId)));
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

    #[test]
    fn with_groups_it_is_what_most_groups_have() {
        let voters = (1..=6).map(|id| (ServerId(id), Voter { weight: 1, group: Some((id as u32 - 1) / 2) }));
        let mut quorum = Quorum::new(Arc::new(Ensemble::new(voters, []).unwrap()), Zxid(0));
        for (voter, upto) in [(1, 9), (2, 8), (3, 7), (5, 9)] {
            quorum.ack(ServerId(voter), Zxid(upto));
        }
        assert_eq!(quorum.committed(), Zxid(0), "one group of three");
        quorum.ack(ServerId(4), Zxid(6));
        assert_eq!(quorum.committed(), Zxid(6));
    }
}
