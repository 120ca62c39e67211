//! The members of an ensemble: who votes, with what weight, and which of them together are a quorum.
//!
//! A quorum is more than half of the voters; or, where groups are configured, more than half of the groups, each by more than half
//! of its weight (Apache's `QuorumMaj` and `QuorumHierarchical`). Any two quorums of one ensemble have a voter in common; that is
//! what everything else relies on.
//!
//! **Not here**: addresses, and what is being voted on.

use corral_proto::ServerId;
use std::collections::{BTreeMap, BTreeSet};

/// One voter's part in a quorum.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Voter {
    /// What it counts in its group; one of weight zero counts for nothing and never leads. Without groups it says nothing.
    pub weight: u32,
    /// Its group, where there are groups.
    pub group: Option<u32>,
}

/// Who there is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Ensemble {
    voters: BTreeMap<ServerId, Voter>,
    observers: BTreeSet<ServerId>,
    /// The weight of each group that has any; empty where a majority decides.
    groups: BTreeMap<u32, u64>,
}

/// Why some servers are no ensemble.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EnsembleError {
    /// Nobody could ever lead.
    #[error("there is no participant with a weight")]
    NobodyVotes,
    /// With groups, everybody who votes is in one.
    #[error("server.{0} is in no group, but others are")]
    Ungrouped(ServerId),
    /// A number is used twice.
    #[error("server.{0} is a participant and an observer")]
    Twice(ServerId),
}

impl Ensemble {
    /// Puts `voters` and `observers` together.
    ///
    /// # Errors
    /// See [`EnsembleError`].
    pub fn new(
        voters: impl IntoIterator<Item = (ServerId, Voter)>,
        observers: impl IntoIterator<Item = ServerId>,
    ) -> Result<Ensemble, EnsembleError> {
        let mut voters: BTreeMap<_, Voter> = voters.into_iter().collect();
        if voters.values().all(|voter| voter.group.is_none()) {
            // A majority counts heads (Apache's `QuorumMaj`), and whoever is counted may lead.
            voters.values_mut().for_each(|voter| voter.weight = 1);
        }
        let observers: BTreeSet<_> = observers.into_iter().collect();
        if let Some(twice) = observers.iter().find(|id| voters.contains_key(id)) {
            return Err(EnsembleError::Twice(*twice));
        }
        if voters.values().all(|voter| voter.weight == 0) {
            return Err(EnsembleError::NobodyVotes);
        }
        let mut groups = BTreeMap::new();
        if voters.values().any(|voter| voter.group.is_some()) {
            for (id, voter) in &voters {
                let group = voter.group.ok_or(EnsembleError::Ungrouped(*id))?;
                *groups.entry(group).or_default() += u64::from(voter.weight);
            }
            groups.retain(|_, weight| *weight > 0);
        }
        Ok(Ensemble { voters, observers, groups })
    }

    /// Equal voters and nobody else.
    ///
    /// # Panics
    /// Without any.
    pub fn of_equals(voters: impl IntoIterator<Item = ServerId>) -> Ensemble {
        let voters = voters.into_iter().map(|id| (id, Voter { weight: 1, group: None }));
        Ensemble::new(voters, []).expect("an ensemble has at least one voter")
    }

    /// Whether `id` votes.
    pub fn is_voter(&self, id: ServerId) -> bool {
        self.voters.contains_key(&id)
    }

    /// Whether `id` belongs to it at all.
    pub fn is_member(&self, id: ServerId) -> bool {
        self.is_voter(id) || self.observers.contains(&id)
    }

    /// Whether there is nobody but `id`.
    pub fn is_alone(&self, id: ServerId) -> bool {
        self.is_voter(id) && self.voters.len() == 1 && self.observers.is_empty()
    }

    /// Whether `id` may lead.
    pub fn may_lead(&self, id: ServerId) -> bool {
        self.voters.get(&id).is_some_and(|voter| voter.weight > 0)
    }

    /// Those that vote, smallest id first.
    pub fn voters(&self) -> impl ExactSizeIterator<Item = ServerId> + '_ {
        self.voters.keys().copied()
    }

    /// Whether those for whom `has` is true are a quorum.
    pub fn is_quorum(&self, has: impl Fn(ServerId) -> bool) -> bool {
        let having = self.voters.iter().filter(|(id, _)| has(**id)).map(|(_, voter)| voter);
        if self.groups.is_empty() {
            return having.count() > self.voters.len() / 2;
        }
        let mut won = BTreeMap::<u32, u64>::new();
        having.for_each(|voter| *won.entry(voter.group.expect("checked")).or_default() += u64::from(voter.weight));
        let is_won = |(group, all): &(&u32, &u64)| won.get(*group).is_some_and(|weight| weight * 2 > **all);
        self.groups.iter().filter(is_won).count() > self.groups.len() / 2
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn grouped(voters: &[(i64, u32, u32)]) -> Result<Ensemble, EnsembleError> {
        Ensemble::new(voters.iter().map(|(id, weight, group)| (ServerId(*id), voter(*weight, Some(*group)))), [])
    }

    fn voter(weight: u32, group: Option<u32>) -> Voter {
        Voter { weight, group }
    }

    #[track_caller]
    fn check(ensemble: &Ensemble, having: &[i64], expected: bool) {
        assert_eq!(ensemble.is_quorum(|id| having.contains(&id.0)), expected, "{having:?}");
    }

    #[test]
    fn more_than_half_is_a_quorum_and_observers_do_not_count() {
        let voters = (1..=4).map(|id| (ServerId(id), voter(1, None)));
        let ensemble = Ensemble::new(voters, [ServerId(5), ServerId(6)]).unwrap();
        check(&ensemble, &[1, 2, 5, 6], false);
        check(&ensemble, &[1, 2, 3], true);
        assert!(ensemble.is_member(ServerId(5)) && !ensemble.is_voter(ServerId(5)) && !ensemble.may_lead(ServerId(5)));
        check(&Ensemble::of_equals([ServerId(1)]), &[1], true);
    }

    /// The example of Apache's documentation of hierarchical quorums: three groups of three.
    #[test]
    fn with_groups_most_groups_are_won_by_most_of_their_weight() {
        let nine: Vec<_> = (1..=9).map(|id| (id, 1, (id as u32 - 1) / 3)).collect();
        let ensemble = grouped(&nine).unwrap();
        check(&ensemble, &[1, 2, 4, 5], true);
        check(&ensemble, &[1, 2, 3, 4, 7], false);
        // A group without weight is no group at all, and its members never lead.
        let ensemble = grouped(&[(1, 1, 1), (2, 3, 1), (3, 0, 2)]).unwrap();
        check(&ensemble, &[2], true);
        check(&ensemble, &[1, 3], false);
        assert!(!ensemble.may_lead(ServerId(3)) && ensemble.is_voter(ServerId(3)));
    }

    /// Those of weight zero counted, but could not lead, and never voted for the one that could: nobody was ever elected.
    #[test]
    fn a_weight_without_groups_says_nothing() {
        let ensemble = Ensemble::new((1..=3).map(|id| (ServerId(id), voter(u32::from(id == 1), None))), []).unwrap();
        check(&ensemble, &[2, 3], true);
        assert!((1..=3).all(|id| ensemble.may_lead(ServerId(id))));
    }

    #[test]
    fn what_is_no_ensemble_is_refused() {
        assert_eq!(Ensemble::new([], [ServerId(1)]), Err(EnsembleError::NobodyVotes));
        assert_eq!(grouped(&[(1, 0, 1)]), Err(EnsembleError::NobodyVotes));
        let voters = [(ServerId(1), voter(1, Some(1))), (ServerId(2), voter(1, None))];
        assert_eq!(Ensemble::new(voters, []), Err(EnsembleError::Ungrouped(ServerId(2))));
        assert_eq!(Ensemble::new(voters, [ServerId(1)]), Err(EnsembleError::Twice(ServerId(1))));
    }

    proptest! {
        #[test]
        fn any_two_quorums_have_a_voter_in_common(
            voters in prop::collection::vec((0..4u32, 0..3u32), 1..8), grouped in any::<bool>(), one in any::<u8>(),
        ) {
            let voters = (0..).zip(voters).map(|(id, (weight, group))| {
                (ServerId(id), if grouped { voter(weight, Some(group)) } else { voter(1, None) })
            });
            let Ok(ensemble) = Ensemble::new(voters, []) else { return Ok(()) };
            let has = |id: ServerId| one & (1 << id.0) != 0;
            prop_assert!(!(ensemble.is_quorum(has) && ensemble.is_quorum(|id| !has(id))));
            prop_assert!(ensemble.is_quorum(|_| true));
        }
    }
}
