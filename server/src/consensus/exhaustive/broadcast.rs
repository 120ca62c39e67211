//! ZAB from discovery to broadcast, in all orders: whoever wants to lead leads, whoever wants to follow follows, messages and
//! disks are as slow as they like, one member crashes, one link breaks.
//!
//! The election is left out, and so is every promise of it: any member may take it that it was elected, at any time, and two of
//! them at once. ZAB must be safe whatever an election says.
//!
//! That a link breaks is that one of its ends closes it for no reason. What has been lost until the other end finds out, it may
//! as well have been slow to read.
//!
//! Servers that are alike are not tried one after the other: where the first step is one of a follower of which the others are
//! mirror images, it is always the first one's ([`Cluster::may_begin`]).
//!
//! **Not here**: elections ([`super::super::election`] has those), observers, whether there is ever peace.

use super::super::Ensemble;
use super::super::leadership::LinkId;
use super::cluster::{Cluster, Role};
use super::laws::Law;
use bytes::Bytes;
use corral_proto::peer::PacketKind;
use stateright::{Model, Property};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

/// How much may happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Budget {
    leaderships: u8,
    proposals: u8,
    crashes: u8,
    breaks: u8,
}

struct Zab {
    ensemble: Arc<Ensemble>,
    start: Cluster,
    budget: Budget,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct State {
    cluster: Cluster,
    left: Budget,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Lead { member: usize, at_hand: usize },
    Follow { member: usize, leader: usize },
    ToLeader(LinkId),
    ToLearner(LinkId),
    LeaderNotices(LinkId),
    LearnerNotices(LinkId),
    LeaderCloses(LinkId),
    LearnerCloses(LinkId),
    Sync { member: usize, upto: usize },
    Propose { leader: usize },
    GiveUp { leader: usize },
    Crash { member: usize, kept: usize },
}

impl Step {
    /// The one member, or the one of several learners, that is not the same as others from then on.
    fn concerns(self, cluster: &Cluster) -> usize {
        match self {
            Step::Lead { member, .. } | Step::Follow { member, .. } => member,
            Step::Sync { member, .. } | Step::Crash { member, .. } => member,
            Step::Propose { leader } | Step::GiveUp { leader } => leader,
            Step::ToLeader(link) | Step::ToLearner(link) => cluster.links[&link].learner,
            Step::LeaderNotices(link) | Step::LearnerNotices(link) => cluster.links[&link].learner,
            Step::LeaderCloses(link) | Step::LearnerCloses(link) => cluster.links[&link].learner,
        }
    }
}

/// What is proposed, each once.
const PROPOSALS: [&[u8]; 4] = [b"a", b"b", b"c", b"d"];

impl Zab {
    fn new(servers: usize, budget: Budget) -> Zab {
        Zab { ensemble: Cluster::ensemble(servers), start: Cluster::new(servers), budget }
    }

    fn established(servers: usize, budget: Budget) -> Zab {
        let ensemble = Cluster::ensemble(servers);
        Zab { start: Cluster::established(servers, &ensemble), ensemble, budget }
    }

    fn take(&self, state: &mut State, step: Step) {
        let State { cluster, left } = state;
        cluster.begin(step.concerns(cluster));
        match step {
            Step::Lead { member, at_hand } => {
                left.leaderships -= 1;
                cluster.lead(member, at_hand, &self.ensemble);
            }
            Step::Follow { member, leader } => cluster.follow(member, leader),
            Step::ToLeader(link) => cluster.deliver_to_leader(link),
            Step::ToLearner(link) => cluster.deliver_to_learner(link),
            Step::LeaderNotices(link) => cluster.leader_notices(link),
            Step::LearnerNotices(link) => cluster.look(cluster.links[&link].learner),
            Step::LeaderCloses(link) => {
                left.breaks -= 1;
                cluster.leader_notices(link);
            }
            Step::LearnerCloses(link) => {
                left.breaks -= 1;
                cluster.look(cluster.links[&link].learner);
            }
            Step::Sync { member, upto } => cluster.sync(member, upto),
            Step::Propose { leader } => {
                let made = self.budget.proposals - left.proposals;
                left.proposals -= 1;
                cluster.propose(leader, Bytes::from_static(PROPOSALS[usize::from(made)]));
            }
            Step::GiveUp { leader } => cluster.look(leader),
            Step::Crash { member, kept } => {
                left.crashes -= 1;
                cluster.crash(member, kept);
            }
        }
        cluster.settle();
    }
}

impl Model for Zab {
    type State = State;
    type Action = Step;

    fn init_states(&self) -> Vec<State> {
        vec![State { cluster: self.start.clone(), left: self.budget }]
    }

    fn actions(&self, State { cluster, left }: &State, steps: &mut Vec<Step>) {
        if cluster.broken.is_some() {
            return;
        }
        for (id, link) in &cluster.links {
            let id = *id;
            let may = [
                (!link.to_leader.is_empty(), Step::ToLeader(id)),
                (!link.to_learner.is_empty(), Step::ToLearner(id)),
                (link.leader_may_notice(), Step::LeaderNotices(id)),
                (link.learner_may_notice(), Step::LearnerNotices(id)),
                (link.carries() && left.breaks > 0, Step::LeaderCloses(id)),
                (link.carries() && left.breaks > 0, Step::LearnerCloses(id)),
            ];
            steps.extend(may.into_iter().filter(|(may, _)| *may).map(|(_, step)| step));
        }
        let leaders = cluster.members.iter().enumerate().filter(|(_, member)| matches!(member.role, Role::Leading(_)));
        let leaders: Vec<usize> = leaders.map(|(leader, _)| leader).collect();
        for (index, member) in cluster.members.iter().enumerate() {
            let len = member.disk.log.len();
            steps.extend((member.disk.durable + 1..=len).map(|upto| Step::Sync { member: index, upto }));
            if left.crashes > 0 && !matches!(member.role, Role::Looking) {
                steps.extend((member.disk.durable..=len).map(|kept| Step::Crash { member: index, kept }));
            }
            match &member.role {
                Role::Looking => {
                    if left.leaderships > 0 {
                        steps.extend((0..=len).map(|at_hand| Step::Lead { member: index, at_hand }));
                    }
                    steps.extend(leaders.iter().map(|leader| Step::Follow { member: index, leader: *leader }));
                }
                Role::Following(..) => {}
                Role::Leading(leadership) => {
                    let established = leadership.is_established();
                    if established && left.proposals > 0 {
                        steps.push(Step::Propose { leader: index });
                    }
                    if !established || !leadership.has_quorum() {
                        steps.push(Step::GiveUp { leader: index });
                    }
                }
            }
        }
        steps.retain(|step| cluster.may_begin(step.concerns(cluster)));
    }

    fn next_state(&self, before: &State, step: Step) -> Option<State> {
        let mut state = before.clone();
        // An assertion of a machine that fails is found like any other broken law.
        if let Err(why) = catch_unwind(AssertUnwindSafe(|| self.take(&mut state, step))) {
            let why = super::said_by(why.as_ref());
            state = before.clone();
            state.cluster.fail(Law::Sound, || why);
        }
        Some(state)
    }

    fn properties(&self) -> Vec<Property<Zab>> {
        fn keeps(state: &State, law: Law) -> bool {
            state.cluster.broken.as_ref().is_none_or(|(broken, _)| *broken != law)
        }
        fn sends(state: &State, kind: PacketKind) -> bool {
            state.cluster.links.values().any(|link| link.to_learner.iter().any(|message| message.kind == kind))
        }
        vec![
            Property::always("a leader has all that was committed before it", |_, state| keeps(state, Law::Complete)),
            Property::always("an epoch has one leader", |_, state| keeps(state, Law::Unique)),
            Property::always("only what a quorum has is committed", |_, state| keeps(state, Law::Quorum)),
            Property::always("all commit and apply the same, in order", |_, state| keeps(state, Law::Agreement)),
            Property::always("what is applied is durable", |_, state| keeps(state, Law::Durable)),
            Property::always("the machines' own assertions hold", |_, state| keeps(state, Law::Sound)),
            Property::always("what is committed stays on a quorum's disks", |_, state: &State| {
                state.cluster.keeps_what_is_committed()
            }),
            // That these are found shows that the above was not said of nothing.
            Property::sometimes("all proposals are committed", |model: &Zab, state: &State| {
                state.cluster.committed.len() == usize::from(model.budget.proposals)
            }),
            Property::sometimes("the last leadership is established", |model: &Zab, state: &State| {
                state.cluster.established.last() == Some(&model.budget.leaderships.into())
            }),
            Property::sometimes("what was not committed is lost", |_, state: &State| {
                state.cluster.committed.first().is_some_and(|(_, bytes)| bytes != PROPOSALS[0])
            }),
            Property::sometimes("a learner is cut back", |_, state| sends(state, PacketKind::Trunc)),
            Property::sometimes("a learner gets a snapshot", |_, state| sends(state, PacketKind::Snap)),
            Property::sometimes("two lead at once", |_, state: &State| {
                let leads = |role: &Role| matches!(role, Role::Leading(leadership) if leadership.is_established());
                state.cluster.members.iter().filter(|member| leads(&member.role)).count() > 1
            }),
        ]
    }
}

const fn budget(leaderships: u8, proposals: u8, crashes: u8, breaks: u8) -> Budget {
    Budget { leaderships, proposals, crashes, breaks }
}

fn check(model: Zab, never: &[&str]) {
    let Budget { leaderships, proposals, crashes, breaks } = model.budget;
    let begins = if model.start.established.is_empty() { "nothing" } else { "an established epoch" };
    let scope = format!(
        "ZAB, {} servers from {begins}: {leaderships} leaderships, {proposals} proposals, {crashes} crashes, {breaks} breaks",
        model.start.members.len()
    );
    super::check(&scope, model, never, |state| format!("{:?}", state.cluster.broken));
}

/// Both are a quorum only together.
const TWO_LEAD: &str = "two lead at once";
/// With one proposal there is none that could take its place.
const LOST: &str = "what was not committed is lost";
const CUT_BACK: &str = "a learner is cut back";

#[test]
fn two_servers_never_lose_what_is_committed() {
    check(Zab::new(2, budget(2, 2, 1, 1)), &[TWO_LEAD]);
}

#[test]
fn three_servers_never_lose_what_is_committed() {
    check(Zab::new(3, budget(2, 1, 0, 0)), &[TWO_LEAD, LOST, CUT_BACK]);
    check(Zab::established(3, budget(1, 2, 1, 0)), &[TWO_LEAD]);
    check(Zab::established(3, budget(1, 1, 1, 1)), &[LOST, CUT_BACK]);
    check(Zab::established(3, budget(2, 1, 1, 0)), &[LOST, CUT_BACK, TWO_LEAD]);
}

#[test]
fn larger_scopes_never_lose_what_is_committed() {
    if !super::is_thorough() {
        return;
    }
    check(Zab::new(2, budget(3, 2, 1, 1)), &[TWO_LEAD]);
    check(Zab::new(3, budget(2, 1, 1, 0)), &[LOST, CUT_BACK]);
    check(Zab::new(3, budget(2, 1, 0, 1)), &[LOST, CUT_BACK]);
    check(Zab::new(3, budget(2, 2, 1, 0)), &[]);
    check(Zab::established(3, budget(2, 2, 1, 0)), &[TWO_LEAD]);
    check(Zab::established(3, budget(1, 2, 1, 1)), &[]);
}
