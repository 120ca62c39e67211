//! The leading member: it gives zxids, counts acknowledgements, and says what is committed.
//!
//! **Invariants**: zxids grow by one within an epoch; what is committed has been acknowledged by a quorum and never goes
//! back; the leader's own acknowledgement is made from [`Durable`] and from nothing else, so it cannot vote for what its disk
//! does not have.

use super::{Ensemble, Quorum};
use corral_engine::txnlog::Durable;
use corral_proto::{ServerId, Zxid};
use std::sync::Arc;

/// The leader's part of broadcast.
#[derive(Debug)]
pub struct Leader {
    me: ServerId,
    quorum: Quorum,
    proposed: Zxid,
    committed: Zxid,
}

impl Leader {
    /// Leads `ensemble` from `last`, the newest transaction of its history, on.
    pub fn new(me: ServerId, ensemble: Arc<Ensemble>, last: Zxid) -> Leader {
        Leader { me, quorum: Quorum::new(ensemble, last), proposed: last, committed: last }
    }

    /// The zxid of the next proposal. When an epoch's counter is used up, a new epoch begins (an ensemble of one elects
    /// itself again at once).
    pub fn propose(&mut self) -> Zxid {
        self.proposed = self.proposed.next().unwrap_or_else(|| Zxid::new(self.proposed.epoch() + 1, 1));
        self.proposed
    }

    /// The newest proposal.
    pub fn proposed(&self) -> Zxid {
        self.proposed
    }

    /// Its own log has become durable: that is its vote.
    pub fn ack_own(&mut self, durable: Durable) {
        assert!(durable.upto() <= self.proposed, "only what was proposed is logged");
        self.quorum.ack(self.me, durable.upto());
    }

    /// Up to where everything is committed.
    pub fn committed(&mut self) -> Zxid {
        let committed = self.quorum.committed();
        assert!(committed >= self.committed && committed <= self.proposed, "what is committed only grows");
        self.committed = committed;
        committed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zxids_grow_by_one_and_an_exhausted_epoch_is_followed_by_the_next() {
        let alone = Arc::new(Ensemble::of_equals([ServerId(0)]));
        let mut leader = Leader::new(ServerId(0), alone, Zxid::new(3, u32::MAX - 1));
        assert_eq!(leader.propose(), Zxid::new(3, u32::MAX));
        assert_eq!(leader.propose(), Zxid::new(4, 1));
        assert_eq!(leader.committed(), Zxid::new(3, u32::MAX - 1), "nothing was acknowledged yet");
    }
}
