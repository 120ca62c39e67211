//! A few members that elect a leader, and what is on its way between them, to be copied, compared and hashed: the real elections,
//! and around them wires that keep their order.
//!
//! Of what is said over and over the same way it is enough that it is on its way once. What was said last is said again when a
//! connection is made again.
//!
//! **Invariant**: all times are zero; everything that may be due is due.
//!
//! **Not here**: which steps there are, and how often ([`super`]).

use super::super::*;
use super::Budget;
use std::collections::{BTreeSet, VecDeque};

const NOW: Duration = Duration::ZERO;

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Member {
    /// None of one that is down.
    pub(super) election: Option<Election>,
    pub(super) zxid: Zxid,
    pub(super) epoch: i64,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Wire {
    pub(super) queue: VecDeque<Notification<'static>>,
    pub(super) last: Option<Notification<'static>>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct State {
    pub(super) members: Vec<Member>,
    /// From one to another, in this order.
    pub(super) wires: BTreeMap<(usize, usize), Wire>,
    pub(super) cut_off: Option<usize>,
    pub(super) left: Budget,
    /// Who has ever voted for whom, in which round.
    pub(super) cast: BTreeSet<(usize, i64, ServerId)>,
    /// What went wrong.
    pub(super) broken: Option<String>,
}

pub(super) fn id(index: usize) -> ServerId {
    ServerId(index as i64 + 1)
}

fn index(id: ServerId) -> usize {
    usize::try_from(id.0 - 1).unwrap_or(usize::MAX)
}

/// The epoch that begins; all earlier ones are smaller.
pub(super) const EPOCH: i64 = 9;

impl State {
    pub(super) fn is_open(&self, from: usize, to: usize) -> bool {
        self.cut_off.is_none_or(|cut_off| from != cut_off && to != cut_off)
    }

    pub(super) fn say(&mut self, from: usize, out: Outbox) {
        for (to, said) in out {
            let to = index(to);
            let is_open = self.is_open(from, to) && self.members[to].election.is_some();
            let wire = self.wires.get_mut(&(from, to)).expect("all have wires");
            wire.last = Some(said);
            // Saying the same twice in a row is the same as saying it late.
            if is_open && wire.queue.back() != Some(&said) {
                // Of what cannot be sent only the newest is kept.
                if wire.queue.len() == usize::from(self.left.room) {
                    wire.queue.pop_front();
                }
                wire.queue.push_back(said);
            }
        }
    }

    /// Lets a member do something, and checks that it keeps its word.
    pub(super) fn act<R>(&mut self, member: usize, act: impl FnOnce(&mut Election, &mut Outbox) -> R) -> R {
        let mut out = Outbox::new();
        let election = self.members[member].election.as_mut().expect("it is up");
        let before = (election.round, election.state, election.vote);
        let done = act(election, &mut out);
        election.answered.clear();
        let after = (election.round, election.state, election.vote);
        let is_looking = after.1 == PeerState::Looking;
        if is_looking {
            self.cast.insert((member, after.0, after.2.leader));
        }
        let (better, own) = (after.2 >= before.2, election.own);
        if after.0 < before.0 || (is_looking && before.1 == after.1 && before.0 == after.0 && !better) {
            self.fail(format!("{member} goes back from {before:?} to {after:?}"));
        }
        if is_looking && after.2 < own {
            self.fail(format!("{member} votes for less than it has"));
        }
        self.say(member, out);
        done
    }

    pub(super) fn fail(&mut self, how: String) {
        self.broken.get_or_insert(how);
    }

    pub(super) fn look(&mut self, member: usize) {
        let Member { zxid, epoch, .. } = self.members[member];
        self.act(member, |election, out| election.look(NOW, zxid, epoch, out));
    }

    pub(super) fn start(&mut self, member: usize, ensemble: &Arc<Ensemble>) {
        let patience = Patience { finish: NOW, repeat_min: NOW, repeat_max: NOW };
        self.members[member].election = Some(Election::new(id(member), ensemble.clone(), patience));
        self.look(member);
    }

    pub(super) fn hear(&mut self, from: usize, to: usize) {
        let said = self.wires.get_mut(&(from, to)).and_then(|wire| wire.queue.pop_front()).expect("it was said");
        let elected = self.act(to, |election, out| election.hear(NOW, id(from), &said, out));
        self.ended(to, elected, false);
    }

    pub(super) fn time_out(&mut self, member: usize) {
        let elected = self.act(member, |election, out| election.tick(NOW, out));
        self.ended(member, elected, true);
    }

    /// `has_counted` says that it was not told of a leader, but has counted the votes.
    pub(super) fn ended(&mut self, member: usize, elected: Option<Elected>, has_counted: bool) {
        let Some(Elected { state, vote }) = elected else { return };
        let count = self.members.len();
        let round = self.election(member).expect("it is up").round;
        match state {
            PeerState::Leading => {
                // It may have been in an earlier round, if those who follow it since then tell it so.
                let first = if has_counted { round } else { 1 };
                let voted =
                    |round| (0..count).filter(|voter| self.cast.contains(&(*voter, round, vote.leader))).count();
                if (first..=round).all(|round| voted(round) <= count / 2) {
                    self.fail(format!(
                        "{member} takes itself for elected in round {round}, and no quorum voted for it"
                    ));
                }
                let has = |member: &Member| (member.epoch, member.zxid);
                let newest = has(&self.members[member]);
                let behind = self.members.iter().filter(|other| has(other) <= newest).count();
                if self.members.iter().all(|other| other.epoch < EPOCH) && behind <= count / 2 {
                    self.fail(format!("{member} is elected, but more than half have more"));
                }
            }
            _ if vote.leader == id(member) => self.fail(format!("{member} follows itself")),
            PeerState::Following if index(vote.leader) < count => {}
            _ => self.fail(format!("{member} is {state:?} with {vote:?}")),
        }
    }

    pub(super) fn election(&self, member: usize) -> Option<&Election> {
        self.members[member].election.as_ref()
    }

    pub(super) fn leads(&self, member: usize) -> bool {
        self.election(member).is_some_and(|election| election.state == PeerState::Leading)
    }

    pub(super) fn follows(&self, member: usize, leader: usize) -> bool {
        let follows =
            |election: &Election| election.state == PeerState::Following && election.vote.leader == id(leader);
        self.election(member).is_some_and(follows)
    }

    pub(super) fn has_quorum(&self, leader: usize) -> bool {
        let count = self.members.len();
        let with = (0..count).filter(|member| *member == leader || self.follows(*member, leader)).count();
        self.leads(leader) && with > count / 2
    }

    /// The follower does not know yet that its leader's epoch has begun.
    pub(super) fn may_adopt(&self, follower: usize, leader: usize) -> bool {
        let is_newer = |newer: &Election, older: &Election| newer.vote.epoch == EPOCH && older.vote.epoch != EPOCH;
        let (follows, leads) = (self.follows(follower, leader), self.leads(leader));
        follows && leads && is_newer(self.election(leader).expect("leads"), self.election(follower).expect("follows"))
    }

    pub(super) fn establish(&mut self, member: usize, zxid: Zxid) {
        (self.members[member].epoch, self.members[member].zxid) = (EPOCH, zxid);
        self.act(member, |election, _| election.established(EPOCH));
    }

    pub(super) fn heal(&mut self) {
        self.cut_off = None;
        // Connections are made again.
        let pairs: Vec<_> = self.wires.keys().copied().collect();
        pairs.into_iter().for_each(|(from, to)| self.repeat(from, to));
    }

    pub(super) fn repeat(&mut self, from: usize, to: usize) {
        let is_up = self.members[to].election.is_some();
        let wire = self.wires.get_mut(&(from, to)).expect("all have wires");
        if let Some(last) = wire.last.filter(|last| is_up && wire.queue.back() != Some(last)) {
            wire.queue.push_back(last);
        }
    }

    /// Everybody is up, and nothing is lost or late. Whether all soon follow one leader.
    pub(super) fn comes_to_rest(&self, ensemble: &Arc<Ensemble>) -> bool {
        let mut state = self.clone();
        let all = 0..state.members.len();
        state.heal();
        for _ in 0..10 {
            for member in all.clone() {
                let leader = state.election(member).map(|election| (election.state, index(election.vote.leader)));
                match leader {
                    None => state.start(member, ensemble),
                    Some((PeerState::Looking, _)) => state.time_out(member),
                    Some((_, leader)) if !state.has_quorum(leader) => state.look(member),
                    Some((_, leader)) if state.may_adopt(member, leader) => {
                        state.establish(member, state.members[leader].zxid);
                    }
                    _ => {}
                }
            }
            while let Some((from, to)) =
                state.wires.iter().find(|(_, wire)| !wire.queue.is_empty()).map(|(pair, _)| *pair)
            {
                state.hear(from, to);
            }
            let is_led = |leader: usize| all.clone().all(|other| other == leader || state.follows(other, leader));
            if all.clone().any(|leader| state.leads(leader) && is_led(leader)) {
                return state.broken.is_none();
            }
        }
        false
    }
}
