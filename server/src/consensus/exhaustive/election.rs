//! Elections in all orders: messages are as late as they like, some are lost and some said again, a member crashes and begins
//! anew, one is cut off for a while, those that have a leader look for another.
//!
//! Time is left out: every time-out may happen at once, and as late as one likes. So a member may also believe a quorum without
//! having waited for a better vote, which the real one does not; nothing that must always be true relies on that wait.
//!
//! That an election ends is looked at from every state in which nothing is on its way: from there, with no more faults and with
//! time-outs that are longer than messages take, all must follow one leader soon.
//!
//! It is a part of the election's own module, to forget there which answers were given when: they may be given again at once.
//!
//! One that joins a leader later keeps its own round where that is later than the leader's (Apache's member goes back to the
//! leader's), so a leader that looks again may be told by its followers that it won a round in which nobody voted for it. They do
//! follow it, and a quorum has voted for it once: more is not promised.
//!
//! **Not here**: what the elected do ([`super::super::exhaustive`] has that); their epoch begins in one step, observers.

mod voters;

use self::voters::{EPOCH, Member, State, Wire, id};
use super::super::exhaustive::{check, is_thorough, said_by};
use super::*;
use stateright::{Model, Property};
use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// How much may happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Budget {
    /// One that has a leader looks for another.
    looks: u8,
    /// An elected leader's epoch begins.
    epochs: u8,
    crashes: u8,
    /// A member is cut off from all others.
    partitions: u8,
    /// A message is lost.
    losses: u8,
    /// A connection is made again, and what was said last is said again.
    repeats: u8,
    /// So much is on its way from one to another at most; what is older then is lost.
    room: u8,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Start(usize),
    Hear { from: usize, to: usize },
    TimeOut(usize),
    LookAgain(usize),
    Establish { leader: usize },
    Adopt { follower: usize, leader: usize },
    Crash(usize),
    CutOff(usize),
    Heal,
    Lose { from: usize, to: usize },
    Repeat { from: usize, to: usize },
}

struct Elections {
    ensemble: Arc<Ensemble>,
    /// What the members have on their disks: epoch and newest transaction, one list for each beginning.
    beginnings: Vec<Vec<(i64, i64)>>,
    budget: Budget,
}

impl Elections {
    fn take(&self, state: &mut State, step: Step) {
        match step {
            Step::Start(member) => state.start(member, &self.ensemble),
            Step::Hear { from, to } => state.hear(from, to),
            Step::TimeOut(member) => state.time_out(member),
            Step::LookAgain(member) => {
                state.left.looks -= 1;
                state.look(member);
            }
            Step::Establish { leader } => {
                state.left.epochs -= 1;
                state.establish(leader, state.members[leader].zxid);
            }
            Step::Adopt { follower, leader } => state.establish(follower, state.members[leader].zxid),
            Step::Crash(member) => {
                state.left.crashes -= 1;
                state.members[member].election = None;
                for ((from, to), wire) in &mut state.wires {
                    if *to == member {
                        wire.queue.clear();
                    }
                    if *from == member {
                        wire.last = None;
                    }
                }
            }
            Step::CutOff(member) => {
                state.left.partitions -= 1;
                state.cut_off = Some(member);
                let cut = state.wires.iter_mut().filter(|((from, to), _)| *from == member || *to == member);
                cut.for_each(|(_, wire)| wire.queue.clear());
            }
            Step::Heal => state.heal(),
            Step::Lose { from, to } => {
                state.left.losses -= 1;
                state.wires.get_mut(&(from, to)).expect("all have wires").queue.pop_front();
            }
            Step::Repeat { from, to } => {
                state.left.repeats -= 1;
                state.repeat(from, to);
            }
        }
    }
}

impl Model for Elections {
    type State = State;
    type Action = Step;

    fn init_states(&self) -> Vec<State> {
        let state = |disks: &Vec<(i64, i64)>| {
            let all = 0..disks.len();
            let pairs = all.clone().flat_map(|from| all.clone().map(move |to| (from, to)));
            let member = |(epoch, zxid): &(i64, i64)| Member { election: None, zxid: Zxid(*zxid), epoch: *epoch };
            State {
                members: disks.iter().map(member).collect(),
                wires: pairs.filter(|(from, to)| from != to).map(|pair| (pair, Wire::default())).collect(),
                cut_off: None,
                left: self.budget,
                cast: BTreeSet::new(),
                broken: None,
            }
        };
        self.beginnings.iter().map(state).collect()
    }

    fn actions(&self, state: &State, steps: &mut Vec<Step>) {
        if state.broken.is_some() {
            return;
        }
        let left = state.left;
        for ((from, to), wire) in &state.wires {
            let (from, to) = (*from, *to);
            if !wire.queue.is_empty() {
                steps.push(Step::Hear { from, to });
                if left.losses > 0 {
                    steps.push(Step::Lose { from, to });
                }
            }
            if left.repeats > 0 && wire.last.is_some() && state.is_open(from, to) {
                steps.push(Step::Repeat { from, to });
            }
        }
        for (index, member) in state.members.iter().enumerate() {
            let Some(election) = &member.election else {
                steps.push(Step::Start(index));
                continue;
            };
            let may = [
                (left.crashes > 0, Step::Crash(index)),
                (left.partitions > 0 && state.cut_off.is_none(), Step::CutOff(index)),
                (election.state == PeerState::Looking, Step::TimeOut(index)),
                (election.state != PeerState::Looking && left.looks > 0, Step::LookAgain(index)),
                (left.epochs > 0 && state.has_quorum(index), Step::Establish { leader: index }),
            ];
            steps.extend(may.into_iter().filter(|(may, _)| *may).map(|(_, step)| step));
            let leaders = (0..state.members.len()).filter(|leader| state.may_adopt(index, *leader));
            steps.extend(leaders.map(|leader| Step::Adopt { follower: index, leader }));
        }
        if state.cut_off.is_some() {
            steps.push(Step::Heal);
        }
    }

    fn next_state(&self, before: &State, step: Step) -> Option<State> {
        let mut state = before.clone();
        if let Err(why) = catch_unwind(AssertUnwindSafe(|| self.take(&mut state, step))) {
            state = before.clone();
            state.fail(said_by(why.as_ref()));
        }
        Some(state)
    }

    fn properties(&self) -> Vec<Property<Elections>> {
        fn leaders(state: &State) -> usize {
            (0..state.members.len()).filter(|leader| state.leads(*leader)).count()
        }
        vec![
            Property::always("members keep their word", |_, state: &State| state.broken.is_none()),
            Property::always("what has come to rest ends with one leader", |model: &Elections, state: &State| {
                let is_quiet = state.wires.values().all(|wire| wire.queue.is_empty());
                !is_quiet || state.broken.is_some() || state.comes_to_rest(&model.ensemble)
            }),
            // That these are found shows that the above was not said of nothing.
            Property::sometimes("a leader has a quorum", |_, state: &State| {
                (0..state.members.len()).any(|leader| state.has_quorum(leader))
            }),
            Property::sometimes("two take themselves for elected", |_, state: &State| leaders(state) > 1),
            Property::sometimes("all know of the epoch", |_, state: &State| {
                let knows =
                    |member: &Member| member.election.as_ref().is_some_and(|election| election.vote.epoch == EPOCH);
                state.members.iter().all(knows)
            }),
            Property::sometimes("one that was down joins an epoch that has begun", |_, state: &State| {
                let joined = |member: &Member| {
                    member.epoch != EPOCH
                        && member.election.as_ref().is_some_and(|election| {
                            election.state == PeerState::Following && election.vote.epoch == EPOCH
                        })
                };
                state.members.iter().any(joined)
            }),
        ]
    }
}

/// Nothing goes wrong.
const CALM: Budget = Budget { looks: 0, epochs: 0, crashes: 0, partitions: 0, losses: 0, repeats: 0, room: u8::MAX };
/// Only two of three can think of two leaders.
const TWO: &str = "two take themselves for elected";
const KNOWN: &str = "all know of the epoch";
const JOINED: &str = "one that was down joins an epoch that has begun";

fn elections(beginnings: &[&[(i64, i64)]], budget: Budget, never: &[&str]) {
    let servers = beginnings[0].len();
    let scope = format!("election, {servers} servers with {beginnings:?}: {budget:?}");
    let ensemble = Arc::new(Ensemble::of_equals((0..servers).map(id)));
    let beginnings = beginnings.iter().map(|disks| disks.to_vec()).collect();
    check(&scope, Elections { ensemble, beginnings, budget }, never, |state| format!("{:?}", state.broken));
}

const OLD: (i64, i64) = (1, 5);
const LONG: (i64, i64) = (1, 6);
const NEW: (i64, i64) = (2, 1);

#[test]
fn two_servers_always_come_to_elect_one() {
    let budget = Budget { looks: 1, epochs: 1, crashes: 1, partitions: 1, losses: 1, repeats: 1, ..CALM };
    elections(&[&[OLD, OLD], &[LONG, OLD], &[LONG, NEW]], budget, &[TWO]);
}

#[test]
fn three_servers_always_come_to_elect_one() {
    elections(&[&[NEW, LONG, OLD]], Budget { epochs: 1, room: 1, ..CALM }, &[]);
    elections(&[&[OLD, OLD, OLD]], Budget { crashes: 1, room: 1, ..CALM }, &[KNOWN, JOINED]);
}

#[test]
fn larger_elections_always_come_to_elect_one() {
    if !is_thorough() {
        return;
    }
    let two = Budget { looks: 2, epochs: 1, crashes: 1, partitions: 1, losses: 1, repeats: 1, ..CALM };
    let all: Vec<[(i64, i64); 2]> =
        [OLD, LONG, NEW].into_iter().flat_map(|one| [OLD, LONG, NEW].map(|other| [one, other])).collect();
    elections(&all.iter().map(<[_; 2]>::as_slice).collect::<Vec<_>>(), two, &[TWO]);
    let orders: [&[(i64, i64)]; 4] = [&[OLD, OLD, OLD], &[NEW, LONG, OLD], &[OLD, LONG, NEW], &[LONG, NEW, LONG]];
    elections(&orders, CALM, &[KNOWN, JOINED]);
    for (budget, never) in [
        (Budget { looks: 1, room: 1, ..CALM }, &[KNOWN, JOINED][..]),
        (Budget { partitions: 1, room: 1, ..CALM }, &[KNOWN, JOINED]),
        (Budget { losses: 1, repeats: 1, room: 1, ..CALM }, &[KNOWN, JOINED]),
        (Budget { epochs: 1, crashes: 1, room: 1, ..CALM }, &[]),
    ] {
        elections(&[&[OLD, OLD, OLD]], budget, never);
    }
}
