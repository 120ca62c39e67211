//! The rules of an election one by one, then whole elections over a network that is late, loses and repeats.

use super::super::ensemble::Voter;
use super::*;
use rand::rngs::SmallRng;
use rand::seq::IteratorRandom;
use rand::{Rng, SeedableRng};

const NOW: Duration = Duration::from_secs(1);

fn ensemble(voters: i64) -> Arc<Ensemble> {
    Arc::new(Ensemble::of_equals((1..=voters).map(ServerId)))
}

fn vote(leader: i64, zxid: i64, epoch: i64) -> Vote {
    Vote { leader: ServerId(leader), zxid: Zxid(zxid), epoch }
}

fn says(state: PeerState, vote: Vote, round: i64) -> Notification<'static> {
    Notification { state, vote, round, version: VERSION, config: None }
}

/// Member 1 of three, which has begun to look, with zxid 10 of epoch 1.
fn looking() -> Election {
    let mut election = Election::new(ServerId(1), ensemble(3), Patience::default());
    let mut out = vec![];
    election.look(NOW, Zxid(10), 1, &mut out);
    let told: Vec<_> = out.iter().map(|(to, said)| (to.0, said.vote, said.round)).collect();
    assert_eq!(told, [(2, vote(1, 10, 1), 1), (3, vote(1, 10, 1), 1)]);
    election
}

fn hear(election: &mut Election, from: i64, said: Notification<'_>) -> (Option<Elected>, Vec<(i64, Vote)>) {
    let mut out = vec![];
    let ended = election.hear(NOW, ServerId(from), &said, &mut out);
    (ended, out.iter().map(|(to, said)| (to.0, said.vote)).collect())
}

use PeerState::{Following, Leading, Looking, Observing};

#[test]
fn a_better_vote_is_taken_over_and_passed_on_and_a_worse_one_is_not() {
    let mut election = looking();
    for worse in [vote(2, 9, 1), vote(3, 99, 0)] {
        assert_eq!(hear(&mut election, 2, says(Looking, worse, 1)), (None, vec![]));
    }
    for better in [vote(2, 10, 1), vote(2, 11, 1), vote(3, 1, 2)] {
        assert_eq!(hear(&mut election, 2, says(Looking, better, 1)).1, [(2, better), (3, better)]);
        assert_eq!(election.vote(), better);
    }
}

#[test]
fn a_quorum_is_believed_after_a_moment_without_a_better_vote() {
    let mut election = looking();
    hear(&mut election, 2, says(Looking, vote(2, 10, 1), 1));
    let finish = NOW + Patience::default().finish;
    assert_eq!(election.deadline(), Some(finish));
    assert_eq!(election.tick(finish - Duration::from_millis(1), &mut vec![]), None);
    // The third one's is better: the wait begins again, once somebody agrees with it.
    hear(&mut election, 3, says(Looking, vote(3, 10, 1), 1));
    assert_eq!(election.tick(finish - Duration::from_millis(1), &mut vec![]), None);
    let ended = election.tick(finish, &mut vec![]);
    assert_eq!(ended, Some(Elected { state: Following, vote: vote(3, 10, 1) }));
    assert_eq!((election.state(), election.deadline()), (Following, None));
}

#[test]
fn a_sole_voter_elects_itself() {
    let voter = (ServerId(1), Voter { weight: 1, group: None });
    let ensemble = Arc::new(Ensemble::new([voter], [ServerId(2)]).unwrap());
    let mut election = Election::new(ServerId(1), ensemble, Patience::default());
    election.look(NOW, Zxid(5), 1, &mut vec![]);
    let ended = election.tick(NOW + Patience::default().finish, &mut vec![]);
    assert_eq!(ended, Some(Elected { state: Leading, vote: vote(1, 5, 1) }));
}

#[test]
fn one_that_is_elected_leads() {
    let mut election = looking();
    hear(&mut election, 2, says(Looking, vote(1, 10, 1), 1));
    let ended = election.tick(NOW + Duration::from_secs(1), &mut vec![]);
    assert_eq!(ended, Some(Elected { state: Leading, vote: vote(1, 10, 1) }));
}

#[test]
fn who_is_in_a_later_round_is_followed_there_and_who_is_behind_is_told() {
    let mut election = looking();
    hear(&mut election, 2, says(Looking, vote(2, 10, 1), 1));
    // In the new round it begins with its own vote, and 2's vote of the old round does not count any more.
    let (ended, told) = hear(&mut election, 3, says(Looking, vote(3, 5, 1), 7));
    assert_eq!((ended, told), (None, vec![(2, vote(1, 10, 1)), (3, vote(1, 10, 1))]));
    assert_eq!((election.round(), election.finish_at), (7, None));
    let (_, told) = hear(&mut election, 2, says(Looking, vote(3, 99, 9), 1));
    assert_eq!((told, election.vote()), (vec![(2, vote(1, 10, 1))], vote(1, 10, 1)));
}

/// ZOOKEEPER-1818: who joins an ensemble later cannot know zxid and round of the election that the leader won.
#[test]
fn zookeeper_1818_an_established_leader_is_joined_whatever_its_zxid_and_round() {
    let mut election = looking();
    assert_eq!(hear(&mut election, 2, says(Following, vote(3, 5, 4), 9)).0, None);
    let ended = hear(&mut election, 3, says(Leading, vote(3, 2, 4), 8)).0;
    assert_eq!(ended, Some(Elected { state: Following, vote: vote(3, 2, 4) }));
}

#[test]
fn a_leader_that_does_not_know_of_it_is_not_joined() {
    let mut election = Election::new(ServerId(1), ensemble(5), Patience::default());
    election.look(NOW, Zxid(10), 1, &mut vec![]);
    for from in [2, 3, 4] {
        // They follow 5, of which nothing is heard: it may be dead.
        assert_eq!(hear(&mut election, from, says(Following, vote(5, 1, 1), 3)).0, None, "{from}");
    }
    assert_eq!(hear(&mut election, 5, says(Looking, vote(5, 1, 1), 1)).0, None);
    assert_eq!(hear(&mut election, 5, says(Leading, vote(5, 1, 1), 3)).0.map(|ended| ended.state), Some(Following));
}

#[test]
fn an_epoch_that_differs_is_another_leader() {
    let mut election = looking();
    hear(&mut election, 2, says(Following, vote(3, 5, 4), 9));
    assert_eq!(hear(&mut election, 3, says(Leading, vote(3, 5, 5), 9)).0, None);
    assert!(hear(&mut election, 2, says(Following, vote(3, 5, 5), 9)).0.is_some());
}

#[test]
fn who_has_a_leader_tells_who_looks_and_nobody_else() {
    let mut election = looking();
    hear(&mut election, 2, says(Following, vote(3, 5, 4), 9));
    hear(&mut election, 3, says(Leading, vote(3, 5, 4), 9));
    election.established(6);
    assert_eq!(hear(&mut election, 2, says(Looking, vote(2, 99, 99), 50)), (None, vec![(2, vote(3, 5, 6))]));
    assert_eq!(hear(&mut election, 3, says(Leading, vote(3, 5, 6), 9)), (None, vec![]));
    assert_eq!((election.state(), election.round()), (Following, 9), "nothing that is heard brings it to look again");
}

#[test]
fn observers_follow_what_voters_decide_and_never_count() {
    let voters = (1..=2).map(|id| (ServerId(id), Voter { weight: 1, group: None }));
    let ensemble = Arc::new(Ensemble::new(voters, [ServerId(8), ServerId(9)]).unwrap());
    let mut observer = Election::new(ServerId(9), ensemble.clone(), Patience::default());
    let mut out = vec![];
    observer.look(NOW, Zxid(500), 50, &mut out);
    assert!(out.iter().all(|(to, said)| to.0 < 3 && said.vote == Vote::NONE), "{out:?}");
    hear(&mut observer, 8, says(Looking, vote(8, 1, 1), 1));
    assert_eq!(observer.vote(), Vote::NONE);
    hear(&mut observer, 1, says(Looking, vote(2, 7, 1), 1));
    assert_eq!(observer.finish_at, None, "its own vote is no vote");
    hear(&mut observer, 2, says(Looking, vote(2, 7, 1), 1));
    let ended = observer.tick(NOW + Duration::from_secs(1), &mut vec![]);
    assert_eq!(ended, Some(Elected { state: Observing, vote: vote(2, 7, 1) }));
    // A voter answers an observer, but does not count it.
    let mut voter = Election::new(ServerId(1), ensemble, Patience::default());
    voter.look(NOW, Zxid(1), 1, &mut vec![]);
    assert_eq!(hear(&mut voter, 9, says(Looking, Vote::NONE, 1)).1, [(9, vote(1, 1, 1))]);
    assert_eq!(voter.finish_at, None);
}

#[test]
fn two_that_answer_each_other_do_not_do_so_for_ever() {
    let mut election = looking();
    let mut answers = 0;
    for ms in 0..500 {
        let mut out = vec![];
        election.hear(NOW + Duration::from_millis(ms), ServerId(7), &says(Looking, Vote::NONE, 0), &mut out);
        answers += out.len();
    }
    assert_eq!(answers, 10, "one each 50 ms");
}

#[test]
fn a_disk_that_may_have_forgotten_neither_votes_nor_is_voted_for() {
    let mut election = looking();
    assert_eq!(hear(&mut election, 2, says(Looking, Vote { zxid: UNTRUSTED, ..vote(2, 0, 9) }, 1)), (None, vec![]));
    let mut forgotten = Election::new(ServerId(1), ensemble(3), Patience::default());
    forgotten.look(NOW, UNTRUSTED, 0, &mut vec![]);
    hear(&mut forgotten, 2, says(Looking, vote(2, 5, 1), 1));
    hear(&mut forgotten, 3, says(Looking, vote(2, 5, 1), 1));
    assert_eq!(forgotten.finish_at, None);
    hear(&mut forgotten, 3, says(Following, vote(2, 5, 1), 1));
    assert!(hear(&mut forgotten, 2, says(Leading, vote(2, 5, 1), 1)).0.is_some(), "it may join");
    // Others that elect will have a leader soon, which it has to ask for.
    forgotten.look(NOW, UNTRUSTED, 0, &mut vec![]);
    let mut later = NOW;
    for _ in 0..8 {
        later = forgotten.deadline().unwrap();
        assert_eq!(forgotten.tick(later, &mut vec![]), None);
    }
    assert!(forgotten.deadline().unwrap() > later + Duration::from_secs(10), "it has become patient");
    forgotten.hear(later, ServerId(2), &says(Looking, vote(2, 5, 1), 9), &mut vec![]);
    assert_eq!(forgotten.deadline(), Some(later + Patience::default().repeat_min));
    // And what others remember of its former life makes it no leader.
    let own = vote(1, 5, 1);
    assert_eq!(hear(&mut forgotten, 2, says(Following, own, 9)).0, None);
    assert_eq!(hear(&mut forgotten, 3, says(Following, own, 9)).0, None);
}

#[test]
fn a_server_of_weight_zero_is_never_elected() {
    let voters = [(1, 1), (2, 1), (3, 0)].map(|(id, weight)| (ServerId(id), Voter { weight, group: Some(1) }));
    let mut election = Election::new(ServerId(1), Arc::new(Ensemble::new(voters, []).unwrap()), Patience::default());
    election.look(NOW, Zxid(1), 1, &mut vec![]);
    hear(&mut election, 3, says(Looking, vote(3, 99, 9), 1));
    assert_eq!(election.vote(), vote(1, 1, 1));
}

#[test]
fn silence_makes_it_repeat_its_vote_less_and_less_often() {
    let mut election = looking();
    let mut pauses = vec![];
    let mut now = NOW;
    for _ in 0..10 {
        let at = election.deadline().unwrap();
        let mut out = vec![];
        assert_eq!(election.tick(at, &mut out), None);
        assert_eq!(out.len(), 2);
        pauses.push((at - now).as_millis());
        now = at;
    }
    assert_eq!(pauses, [200, 400, 800, 1600, 3200, 6400, 12_800, 25_600, 51_200, 60_000]);
}

/// Members and the messages between them.
struct Network {
    random: SmallRng,
    now: Duration,
    members: Vec<Election>,
    histories: Vec<Vote>,
    /// When it arrives, from whom, to whom.
    wires: Vec<(Duration, ServerId, ServerId, Notification<'static>)>,
    /// Of a hundred messages so many are lost, and as many arrive twice.
    faults: u32,
}

impl Network {
    fn new(seed: u64, voters: i64, faults: u32) -> Network {
        let mut random = SmallRng::seed_from_u64(seed);
        let ensemble = ensemble(voters);
        let histories: Vec<Vote> =
            (1..=voters).map(|id| vote(id, random.random_range(0..4), random.random_range(0..3))).collect();
        let members = ensemble.voters().map(|id| Election::new(id, ensemble.clone(), Patience::default())).collect();
        Network { random, now: NOW, members, histories, wires: vec![], faults }
    }

    fn look(&mut self, index: usize) {
        let mut out = vec![];
        let Vote { zxid, epoch, .. } = self.histories[index];
        self.members[index].look(self.now, zxid, epoch, &mut out);
        self.send(index, out);
    }

    fn send(&mut self, from: usize, out: Outbox) {
        for (to, said) in out {
            let copies = match self.random.random_range(0..100) {
                n if n < self.faults => 0,
                n if n < 2 * self.faults => 2,
                _ => 1,
            };
            for _ in 0..copies {
                let at = self.now + Duration::from_millis(self.random.random_range(1..150));
                self.wires.push((at, ServerId(from as i64 + 1), to, said));
            }
        }
    }

    /// The next event: a message that arrives, or a member's time, if there will be any.
    fn step(&mut self) {
        let wire = self.wires.iter().enumerate().min_by_key(|(_, (at, ..))| *at).map(|(index, (at, ..))| (*at, index));
        let timers = self.members.iter().enumerate();
        let timer = timers.filter_map(|(index, member)| Some((member.deadline()?, index))).min();
        let mut out = vec![];
        match (wire, timer) {
            (Some((at, index)), timer) if timer.is_none_or(|(due, _)| at <= due) => {
                self.now = self.now.max(at);
                let (_, from, to, said) = self.wires.swap_remove(index);
                let to = to.0 as usize - 1;
                let before = self.members[to].round();
                self.members[to].hear(self.now, from, &said, &mut out);
                assert!(self.members[to].round() >= before, "rounds never go back");
                self.send(to, out);
            }
            (_, Some((due, index))) => {
                self.now = self.now.max(due);
                self.members[index].tick(self.now, &mut out);
                self.send(index, out);
            }
            _ => {}
        }
        for (member, history) in self.members.iter().zip(&self.histories) {
            let is_worse = member.round() > 0 && member.state() == Looking && member.vote() < *history;
            assert!(!is_worse, "a vote is never worse than one's own history");
        }
    }

    fn leader(&self) -> Option<ServerId> {
        let leader = self.members[0].vote().leader;
        let agrees = |member: &Election| member.state() != Looking && member.vote().leader == leader;
        self.members.iter().all(agrees).then_some(leader)
    }
}

#[test]
fn on_a_quiet_network_the_newest_history_is_elected() {
    for seed in 0..300 {
        let voters = 2 + seed as i64 % 4;
        let mut network = Network::new(seed, voters, 0);
        // All begin before the first could have ended.
        (0..voters as usize).for_each(|index| network.look(index));
        while network.leader().is_none() {
            network.step();
            assert!(network.now < NOW + Duration::from_secs(5), "seed {seed}");
        }
        let best = network.histories.iter().max().unwrap().leader;
        assert_eq!(network.leader(), Some(best), "seed {seed}");
    }
}

/// Members begin and give up at any time while messages get lost; once that is over, one leader remains.
#[test]
fn when_the_trouble_is_over_all_have_one_leader() {
    for seed in 0..1000 {
        let voters = 2 + seed as i64 % 4;
        let mut network = Network::new(seed, voters, 20);
        (0..voters as usize).for_each(|index| network.look(index));
        for _ in 0..network.random.random_range(0..200) {
            if network.random.random_ratio(1, 30) {
                let restarted = (0..voters as usize).choose(&mut network.random).unwrap();
                network.look(restarted);
            }
            network.step();
        }
        network.faults = 0;
        let calm = network.now;
        // Two that were both elected find that out later (nobody follows one of them) and look again, as would a follower of one
        // that does not lead.
        let mut patience = calm + Duration::from_secs(10);
        while network.leader().is_none_or(|leader| network.members[leader.0 as usize - 1].state() != Leading) {
            if network.now > patience || network.members.iter().all(|member| member.state() != Looking) {
                patience = network.now + Duration::from_secs(10);
                let leads = |leader: ServerId| {
                    let members = network.members.iter();
                    let following =
                        members.filter(|member| member.state() != Looking && member.vote().leader == leader);
                    let is_leading = network.members[leader.0 as usize - 1].state() == Leading;
                    is_leading && following.count() > voters as usize / 2
                };
                let lost = |member: &Election| member.state() != Looking && !leads(member.vote().leader);
                let lost: Vec<usize> = (0..voters as usize).filter(|index| lost(&network.members[*index])).collect();
                lost.into_iter().for_each(|index| network.look(index));
            }
            network.step();
            assert!(network.now < calm + Duration::from_secs(600), "seed {seed}");
        }
    }
}
