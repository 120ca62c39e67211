//! What a learner has besides its link: its clients, whose writes it forwards to the leader and finds again among what the leader
//! proposes.
//!
//! A forwarded request comes back as a transaction of the same session with the client's own number for it, in the order in which
//! it was sent. A `sync` comes back as a packet of its own, in order as well; it is answered once everything that was committed
//! before is applied here.
//!
//! **Not here**: the link's protocol ([`Learner`]), what is applied when.

use super::{Asker, ReplicaOptions};
use crate::consensus::leadership::LinkId;
use crate::consensus::learner::Learner;
use crate::requests::ReadsBefore;
use crate::requests::session::ConnId;
use corral_proto::{SessionId, TxnHeader, Zxid};
use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

pub(super) struct Following {
    pub(super) learner: Learner,
    pub(super) link: LinkId,
    pub(super) is_observer: bool,
    /// The sessions whose clients are connected here, with their timeouts in ms.
    pub(super) clients: BTreeMap<SessionId, (ConnId, i32)>,
    /// Requests that the leader has, by session, in their order, each with the reads that are answered before it.
    pub(super) forwarded: BTreeMap<SessionId, VecDeque<(Asker, Option<ReadsBefore>)>>,
    /// Clients that came with a session, which the leader is asked about.
    pub(super) renewals: BTreeMap<SessionId, VecDeque<(ConnId, i32)>>,
    /// Those that wait for the leader's answer to their `sync`.
    pub(super) syncs: VecDeque<(Asker, Option<Box<str>>)>,
    /// Those that have it, and wait until everything up to there is applied.
    pub(super) synced: VecDeque<(Zxid, Asker, Option<Box<str>>)>,
    /// Sessions that were heard of since the leader was told last, with their timeouts in ms.
    pub(super) heard: BTreeMap<SessionId, i32>,
    /// How long the leader may be silent before and after it has synchronized this learner.
    patience: (Duration, Duration),
    silent_until: Duration,
}

impl Following {
    pub(super) fn new(learner: Learner, link: LinkId, options: &ReplicaOptions, now: Duration) -> Following {
        let patience = (options.tick * options.init_limit, options.tick * options.sync_limit);
        Following {
            learner,
            link,
            is_observer: !options.ensemble.is_voter(options.me),
            clients: BTreeMap::new(),
            forwarded: BTreeMap::new(),
            renewals: BTreeMap::new(),
            syncs: VecDeque::new(),
            synced: VecDeque::new(),
            heard: BTreeMap::new(),
            patience,
            silent_until: now + patience.0,
        }
    }

    /// Something came from the leader.
    pub(super) fn heard_of_leader(&mut self, now: Duration) {
        let (before, after) = self.patience;
        self.silent_until = now + if self.learner.is_synchronized() { after } else { before };
    }

    /// When the leader is given up.
    pub(super) fn deadline(&self) -> Duration {
        self.silent_until
    }

    /// The key of the configuration that sets this deadline.
    pub(super) fn limit(&self) -> &'static str {
        if self.learner.is_synchronized() { "syncLimit" } else { "initLimit" }
    }

    /// The client here that asked for a transaction, if one did.
    pub(super) fn asker(&mut self, header: &TxnHeader) -> Option<(Asker, Option<ReadsBefore>)> {
        let waiting = self.forwarded.get_mut(&header.session)?;
        let asker = waiting.pop_front_if(|(asker, _)| asker.xid == header.cxid);
        if waiting.is_empty() {
            self.forwarded.remove(&header.session);
        }
        asker
    }
}
