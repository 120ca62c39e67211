//! Three real servers whose network is cut, in all ways that matter, under clients that write all the time and reach everybody:
//! who has no quorum acknowledges nothing, what was acknowledged stays, and in the end all have the same tree.
//!
//! `CORRAL_ENSEMBLE_ROUNDS` makes it longer.

mod common;

use common::ensemble::{Ensemble, Kind, Writers, connect, dump, rounds};
use common::network::with_own_network;
use common::{PATIENCE, create, eventually};
use corral_net::client::{BlockingClient, Session};
use libtest_mimic::{Arguments, Trial};

const CORRAL: Kind = Kind::Corral;

fn main() {
    let refused = with_own_network().err();
    let scenes: [(&str, fn()); 5] = [
        ("a_leader_that_is_cut_off_acknowledges_nothing_and_is_replaced", leader_cut_off),
        ("a_follower_that_is_cut_off_comes_back_and_the_leader_stays", follower_cut_off),
        ("a_follower_that_does_not_hear_the_leader_comes_back_and_the_leader_stays", follower_is_deaf),
        ("a_follower_that_the_leader_does_not_hear_comes_back_and_the_leader_stays", follower_is_mute),
        ("members_that_are_all_cut_off_acknowledge_nothing_until_they_hear_each_other", full_split),
    ];
    let trial = |(name, scene): (&str, fn())| match &refused {
        Some(why) => Trial::test(format!("{name} (ignored: {why})"), || Ok(())).with_ignored_flag(true),
        None => Trial::test(name, move || {
            scene();
            Ok(())
        }),
    };
    libtest_mimic::run(&Arguments::from_args(), scenes.into_iter().map(trial).collect()).exit();
}

/// Cuts an ensemble of three, round by round, while clients write; afterwards nothing that was acknowledged is missing.
fn under_load(scene: impl Fn(&Ensemble, &Writers, usize)) {
    let mut ensemble = Ensemble::apart(3);
    ensemble.start_all(&CORRAL);
    let writers = Writers::start(&ensemble.addresses(), 3);
    for round in 0..rounds(1) {
        writers.await_more(200);
        scene(&ensemble, &writers, round);
        ensemble.network().heal();
        ensemble.await_all();
    }
    writers.await_more(200);
    let promised = writers.finish();
    ensemble.check(&promised);
    for (id, tree) in (1..=3).map(|id| (id, dump(ensemble.address(id)))) {
        let never = tree.keys().find(|path| path.starts_with("/never"));
        assert_eq!(never, None, "on {id}: nobody else had it when another was elected");
    }
}

fn others(than: usize) -> Vec<usize> {
    (1..=3).filter(|id| *id != than).collect()
}

/// It serves nobody: no session begins there.
fn assert_takes_nobody(ensemble: &Ensemble, id: usize) {
    assert_eq!(ensemble.mode(id), None);
    let taken = BlockingClient::connect(ensemble.address(id), Session::new(PATIENCE), PATIENCE);
    assert!(taken.is_err(), "{id} takes a session and has no quorum");
}

fn await_mode(ensemble: &Ensemble, id: usize, mode: Option<&str>) {
    eventually(&format!("{id} is {mode:?}"), || (ensemble.mode(id).as_deref() == mode).then_some(()));
}

/// Writes where there is no quorum (any more): the answer is the end of the connection.
fn assert_unanswered(client: &mut BlockingClient, path: &str) {
    let refused = create(client, path, b"").expect_err("there is no quorum");
    assert_eq!(refused.code(), None, "it is not known whether it will be: {refused}");
}

fn leader_cut_off() {
    under_load(|ensemble, writers, round| {
        let leader = ensemble.leader();
        let others = others(leader);
        let mut client = connect(&[ensemble.address(leader)]);
        ensemble.network().part(&[leader], &others);
        assert_unanswered(&mut client, &format!("/never-{round}"));
        eventually("another leads", || others.iter().find(|id| ensemble.mode(**id).as_deref() == Some("leader")));
        await_mode(ensemble, leader, None);
        writers.await_more(200);
        assert_takes_nobody(ensemble, leader);
        ensemble.network().heal();
        await_mode(ensemble, leader, Some("follower"));
    });
}

/// Cuts a follower off in this way: `lose(network, leader, follower)`. The others go on, under the same leader, also when it is back.
fn follower_lost(lose: impl Fn(&Ensemble, usize, usize)) {
    under_load(|ensemble, writers, round| {
        let leader = ensemble.leader();
        let follower = others(leader)[round % 2];
        let elections = || ensemble.said(leader).matches("LEADING: ").count();
        let before = elections();
        lose(ensemble, leader, follower);
        await_mode(ensemble, follower, None);
        writers.await_more(500);
        assert_takes_nobody(ensemble, follower);
        ensemble.network().heal();
        await_mode(ensemble, follower, Some("follower"));
        assert_eq!((ensemble.leader(), elections()), (leader, before), "nobody else had a reason to vote again");
    });
}

fn follower_cut_off() {
    follower_lost(|ensemble, _, follower| ensemble.network().part(&[follower], &others(follower)));
}

fn follower_is_deaf() {
    follower_lost(|ensemble, leader, follower| ensemble.network().lose(&[leader], &[follower]));
}

fn follower_is_mute() {
    follower_lost(|ensemble, leader, follower| ensemble.network().lose(&[follower], &[leader]));
}

fn full_split() {
    under_load(|ensemble, _, round| {
        let mut clients: Vec<_> = ensemble.addresses().iter().map(|address| connect(&[*address])).collect();
        ensemble.network().lose(&[1, 2, 3], &[1, 2, 3]);
        for (index, client) in clients.iter_mut().enumerate() {
            // What the leader has logged may well be committed once it leads again.
            assert_unanswered(client, &format!("/perhaps-{round}-{index}"));
        }
        (1..=3).for_each(|id| await_mode(ensemble, id, None));
        (1..=3).for_each(|id| assert_takes_nobody(ensemble, id));
    });
}
