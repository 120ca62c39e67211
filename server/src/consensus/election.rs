//! Who leads: fast leader election, as one member goes through it (Apache's `FastLeaderElection`).
//!
//! A member that looks for a leader votes for itself, tells everybody, and changes to every better vote it hears of: the later
//! epoch, then the newer history, then the larger id. Votes carry the round in which they were cast; who is behind catches up
//! and begins anew. When a quorum votes alike, the member waits a moment for a still better vote, and then it follows, or leads.
//! Whoever joins later hears from those that follow and lead what was decided, and follows if a quorum and the leader itself say
//! so.
//!
//! An election alone promises little: messages may be late, and two members may both think that they were elected. What comes
//! next (discovery) makes that harmless; the election only has to end, and to prefer the newest history.
//!
//! **Invariants**: rounds never go back; while looking, a member's vote only gets better within a round, and is never worse than
//! its own history; who does not vote never counts.
//!
//! **Not here**: connections and their rules, the history itself, what the elected do.

use super::Ensemble;
use crate::mutation::{self, Mutation};
use corral_proto::peer::vote::VERSION;
use corral_proto::peer::{Notification, PeerState, Vote};
use corral_proto::{ServerId, Zxid};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// How patient an election is; the defaults are Apache's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Patience {
    /// How long a quorum's vote must stand before it counts (`finalizeWait`).
    pub finish: Duration,
    /// How long it is silent at first before it says its vote again.
    pub repeat_min: Duration,
    /// What that grows to, doubling each time.
    pub repeat_max: Duration,
}

impl Default for Patience {
    fn default() -> Patience {
        let ms = Duration::from_millis;
        Patience { finish: ms(200), repeat_min: ms(200), repeat_max: ms(60_000) }
    }
}

/// The same answer to the same member is not given again sooner than this: two members that answer each other's answers would
/// never stop (seen between Apache servers).
const ANSWER_AGAIN: Duration = Duration::from_millis(50);

/// The zxid of a member that has lost its history: it must not vote. (Apache's servers use it for an empty disk that is not known to
/// have been empty before.)
pub const UNTRUSTED: Zxid = Zxid(-1);

/// How an election ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Elected {
    /// What this member is now: leading, following or observing.
    pub state: PeerState,
    /// The vote that won.
    pub vote: Vote,
}

/// Messages to be sent; the configuration is for the sender to add.
pub type Outbox = Vec<(ServerId, Notification<'static>)>;

/// What was heard of another member.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Ballot {
    state: PeerState,
    vote: Vote,
    round: i64,
    version: i32,
}

impl Ballot {
    /// Whether both vote alike. Of members that have a leader already only the leader and its epoch count (ZOOKEEPER-1818): the
    /// zxid and the round of the election that it won are not known to who joined later.
    fn agrees_with(&self, other: &Ballot) -> bool {
        let same_leader = self.vote.leader == other.vote.leader;
        if self.state == PeerState::Looking || other.state == PeerState::Looking {
            return self.vote == other.vote && self.round == other.round;
        }
        let is_old = |ballot: &Ballot| ballot.version == 0;
        same_leader && (is_old(self) != is_old(other) || self.vote.epoch == other.vote.epoch)
    }
}

/// One member's election.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Election {
    me: ServerId,
    ensemble: Arc<Ensemble>,
    patience: Patience,
    state: PeerState,
    round: i64,
    /// What this member would vote for if it heard of nobody.
    own: Vote,
    /// While looking what it votes for, afterwards what won.
    vote: Vote,
    /// Of this round, its own included.
    ballots: BTreeMap<ServerId, Ballot>,
    /// Of members that have a leader, whatever the round.
    settled: BTreeMap<ServerId, Ballot>,
    repeat: Duration,
    repeat_at: Duration,
    finish_at: Option<Duration>,
    answered: BTreeMap<ServerId, (Duration, Notification<'static>)>,
}

impl Election {
    /// Of a member that has not looked for a leader yet.
    pub fn new(me: ServerId, ensemble: Arc<Ensemble>, patience: Patience) -> Election {
        Election {
            me,
            ensemble,
            patience,
            state: PeerState::Looking,
            round: 0,
            own: Vote::NONE,
            vote: Vote::NONE,
            ballots: BTreeMap::new(),
            settled: BTreeMap::new(),
            repeat: patience.repeat_min,
            repeat_at: Duration::MAX,
            finish_at: None,
            answered: BTreeMap::new(),
        }
    }

    /// What this member is doing.
    pub fn state(&self) -> PeerState {
        self.state
    }

    /// The round it is in, or was in when it ended.
    pub fn round(&self) -> i64 {
        self.round
    }

    /// What it votes for, or what won.
    pub fn vote(&self) -> Vote {
        self.vote
    }

    /// Begins a new round. `last` is the newest transaction in this member's log, `epoch` the one that its history belongs to.
    pub fn look(&mut self, now: Duration, last: Zxid, epoch: i64, out: &mut Outbox) {
        self.state = PeerState::Looking;
        self.round += 1;
        self.own = match self.ensemble.is_voter(self.me) {
            true => Vote { leader: self.me, zxid: last, epoch },
            false => Vote::NONE,
        };
        self.settled.clear();
        self.begin(self.own);
        // A sole voter is a quorum, and hears of nobody.
        let is_decided = !self.has_forgotten() && self.agree(&self.ballots, &self.ballot());
        self.finish_at = is_decided.then(|| now + self.patience.finish);
        self.repeat = self.patience.repeat_min;
        self.say(now, out);
    }

    /// The leader that was elected has established an epoch: from now on others are told that.
    pub fn established(&mut self, epoch: i64) {
        assert!(self.state != PeerState::Looking, "an epoch is established by a leader");
        self.vote.epoch = epoch;
    }

    /// Another member said something. Returns how the election ended, if it did with that.
    pub fn hear(
        &mut self,
        now: Duration,
        from: ServerId,
        said: &Notification<'_>,
        out: &mut Outbox,
    ) -> Option<Elected> {
        let is_looking = said.state == PeerState::Looking;
        let is_behind = is_looking && said.round < self.round;
        if !self.ensemble.is_voter(from) || (self.state != PeerState::Looking && is_looking) || is_behind {
            self.answer(now, from, out);
        }
        let counts = self.ensemble.is_voter(from) && self.ensemble.is_voter(said.vote.leader);
        if self.state != PeerState::Looking || !counts || from == self.me {
            return None;
        }
        let ballot = Ballot { state: said.state, vote: said.vote, round: said.round, version: said.version };
        match said.state {
            PeerState::Looking if is_behind => None,
            PeerState::Looking => {
                self.compare(now, from, ballot, out);
                None
            }
            PeerState::Following | PeerState::Leading => self.join(from, ballot),
            PeerState::Observing => None,
        }
    }

    /// Time has passed. Returns how the election ended, if it did with that.
    pub fn tick(&mut self, now: Duration, out: &mut Outbox) -> Option<Elected> {
        if self.state != PeerState::Looking {
            return None;
        }
        if self.finish_at.is_some_and(|at| at <= now) {
            return Some(self.end(self.vote, self.round));
        }
        if self.repeat_at <= now {
            self.repeat = (self.repeat * 2).min(self.patience.repeat_max);
            self.say(now, out);
        }
        None
    }

    /// The earliest moment at which [`Election::tick`] would do anything.
    pub fn deadline(&self) -> Option<Duration> {
        let looking = self.state == PeerState::Looking;
        looking.then(|| self.finish_at.map_or(self.repeat_at, |at| at.min(self.repeat_at)))
    }

    /// Another member looks for a leader, too, in this round or a later one.
    fn compare(&mut self, now: Duration, from: ServerId, ballot: Ballot, out: &mut Outbox) {
        if ballot.vote.zxid == UNTRUSTED {
            return;
        }
        if self.has_forgotten() {
            // It has no part in this, but soon there may be a leader, and nobody tells who does not ask.
            self.round = self.round.max(ballot.round);
            self.repeat = self.patience.repeat_min;
            self.repeat_at = self.repeat_at.min(now + self.repeat);
            return;
        }
        let before = (self.round, self.vote);
        if ballot.round > self.round {
            self.round = ballot.round;
            self.begin(self.own);
        }
        let ignores = mutation::is_on(Mutation::VotesIgnoreHistories) || mutation::is_on(Mutation::HistoriesAreIgnored);
        let is_better = match ignores {
            true => ballot.vote.leader > self.vote.leader,
            false => ballot.vote > self.vote,
        };
        if self.ensemble.may_lead(ballot.vote.leader) && is_better {
            self.cast(ballot.vote);
        }
        if (self.round, self.vote) != before {
            self.say(now, out);
        }
        self.ballots.insert(from, ballot);
        let mine = self.ballot();
        let is_decided = self.agree(&self.ballots, &mine);
        self.finish_at = match self.finish_at {
            // Whatever does not change the vote does not prolong the wait.
            Some(at) if is_decided && (self.round, self.vote) == before => Some(at),
            _ => is_decided.then(|| now + self.patience.finish),
        };
    }

    /// Another member has a leader. It is mine, too, if a quorum says so, and it does.
    fn join(&mut self, from: ServerId, ballot: Ballot) -> Option<Elected> {
        if ballot.round == self.round {
            self.ballots.insert(from, ballot);
            if self.agree(&self.ballots, &ballot) && self.leads(&self.ballots, &ballot) {
                return Some(self.end(ballot.vote, ballot.round));
            }
        }
        self.settled.insert(from, ballot);
        let joins = self.agree(&self.settled, &ballot) && self.leads(&self.settled, &ballot);
        joins.then(|| self.end(ballot.vote, ballot.round))
    }

    fn agree(&self, ballots: &BTreeMap<ServerId, Ballot>, with: &Ballot) -> bool {
        self.ensemble.is_quorum(|voter| ballots.get(&voter).is_some_and(|ballot| ballot.agrees_with(with)))
    }

    /// Whether the leader that others name knows of it: else two that follow a dead leader would draw in everybody else.
    fn leads(&self, ballots: &BTreeMap<ServerId, Ballot>, named: &Ballot) -> bool {
        match named.vote.leader {
            // Not one that has lost its history, whatever the others remember of it.
            leader if leader == self.me => named.round == self.round && !self.has_forgotten(),
            leader => ballots.get(&leader).is_some_and(|ballot| ballot.state == PeerState::Leading),
        }
    }

    fn has_forgotten(&self) -> bool {
        self.own.zxid == UNTRUSTED
    }

    fn begin(&mut self, vote: Vote) {
        self.ballots.clear();
        self.finish_at = None;
        self.cast(vote);
    }

    fn cast(&mut self, vote: Vote) {
        self.vote = vote;
        if self.ensemble.is_voter(self.me) {
            self.ballots.insert(self.me, self.ballot());
        }
    }

    fn ballot(&self) -> Ballot {
        Ballot { state: self.state, vote: self.vote, round: self.round, version: VERSION }
    }

    fn end(&mut self, vote: Vote, round: i64) -> Elected {
        self.state = match vote.leader {
            leader if leader == self.me => PeerState::Leading,
            _ if self.ensemble.is_voter(self.me) => PeerState::Following,
            _ => PeerState::Observing,
        };
        (self.vote, self.round, self.finish_at) = (vote, round.max(self.round), None);
        self.ballots.clear();
        self.settled.clear();
        Elected { state: self.state, vote }
    }

    fn notification(&self) -> Notification<'static> {
        Notification { state: self.state, vote: self.vote, round: self.round, version: VERSION, config: None }
    }

    fn say(&mut self, now: Duration, out: &mut Outbox) {
        self.repeat_at = now + self.repeat;
        let voters = self.ensemble.voters().filter(|voter| *voter != self.me);
        out.extend(voters.map(|voter| (voter, self.notification())));
    }

    fn answer(&mut self, now: Duration, to: ServerId, out: &mut Outbox) {
        let answer = self.notification();
        let is_told = |(at, before): &(Duration, Notification<'_>)| *before == answer && now < *at + ANSWER_AGAIN;
        if !self.answered.get(&to).is_some_and(is_told) {
            self.answered.insert(to, (now, answer));
            out.push((to, answer));
        }
    }
}

#[cfg(test)]
#[path = "election_tests.rs"]
mod tests;

#[cfg(test)]
#[path = "exhaustive/election.rs"]
mod exhaustive;
