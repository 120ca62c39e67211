//! Ensembles of our servers and Apache ZooKeeper's together: each leads, follows and observes, is brought up to date by the other in
//! every way there is, and is replaced by the other while clients write.
//!
//! Debian's `zookeeper` serves where it is installed, `.ci/run` sees to that; another release's jars are used, too, if
//! `CORRAL_TEST_ZOOKEEPER_JARS` names their directory, and `.ci/run` fetches some where it can.

mod common;

use common::ensemble::{Ensemble, Kind, Writers, connect, debians_zookeeper, dump, other_zookeeper};
use common::identities::{self, check_identities};
use common::{create, eventually, get};
use corral_proto::request::{CreateRequest, ReconfigRequest};
use corral_proto::response::Response;
use corral_proto::{AclList, ErrorCode, MultiOp, MultiRequest, Request};
use libtest_mimic::{Arguments, Trial};
use std::path::Path;

/// What is done with the other kind of server.
type Scene = fn(&Kind);

fn main() {
    let releases = [("debian", debians_zookeeper()), ("other", other_zookeeper())];
    let scenes: [(&str, Scene); 10] = [
        ("one_by_one_the_members_are_replaced_and_back", replaced_one_by_one),
        ("each_follows_the_other_and_nothing_acknowledged_is_lost", each_follows_the_other),
        ("a_tail_that_no_quorum_had_disappears_under_either_leader", tails_disappear),
        ("each_observes_the_other", each_observes),
        ("what_a_client_has_shown_counts_with_every_leader", identities_count),
        ("one_of_ours_that_has_lost_its_history_is_sent_theirs", lost_history),
        ("who_has_missed_more_than_is_in_memory_is_sent_our_log", missed_more_than_memory),
        ("a_session_with_many_nodes_ends_under_a_leader_of_ours", many_ephemerals),
        ("one_of_ours_whose_tree_is_not_its_leaders_takes_that", altered_tree),
        ("other_members_are_no_reason_to_leave_a_leader_of_apaches", other_members),
    ];
    let mut trials = Vec::new();
    for (release, kind) in releases {
        for (name, scene) in scenes {
            trials.push(match kind.clone() {
                Some(kind) => Trial::test(format!("{release}::{name}"), move || {
                    scene(&kind);
                    Ok(())
                }),
                None if release == "debian" => {
                    let name = format!("{release}::{name} (ignored: needs Java and Debian's zookeeper)");
                    Trial::test(name, || Ok(())).with_ignored_flag(true)
                }
                None => continue,
            });
        }
    }
    libtest_mimic::run(&Arguments::from_args(), trials).exit();
}

const CORRAL: Kind = Kind::Corral;

/// Apache, one by one Corral, and back: each newcomer has nothing but its number.
fn replaced_one_by_one(apache: &Kind) {
    let mut ensemble = Ensemble::new(3, 0);
    ensemble.start_all(apache);
    let writers = Writers::start(&ensemble.addresses(), 3);
    for newcomer in [&CORRAL, apache] {
        for id in 1..=3 {
            writers.await_more(200);
            ensemble.kill(id);
            ensemble.forget(id);
            let before = ensemble.said(id).len();
            ensemble.start(id, newcomer);
            ensemble.await_serving(id);
            let words = if *newcomer == CORRAL { "taking a snapshot of" } else { "Getting a snapshot from leader" };
            assert!(ensemble.said(id)[before..].contains(words), "{id} had nothing, and was sent a snapshot");
        }
    }
    writers.await_more(200);
    let promised = writers.finish();
    ensemble.check(&promised);
}

/// How a leader brings a learner up to date.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sync {
    Diff,
    Trunc,
    Snap,
}

/// Of a member that has just come to serve: by what it was brought up to date, as whichever side is Apache's has said, and ours if it
/// is the learner. `before` is where the members' logs ended when it was started.
fn assert_brought_up_to_date(ensemble: &Ensemble, kinds: [&Kind; 3], id: usize, by: Sync, before: &[usize]) {
    let leader = ensemble.leader();
    assert_ne!(kinds[id - 1], kinds[leader - 1], "{leader} leads, and {id} is of the other kind");
    let (of_learner, of_leader) = match by {
        Sync::Diff => ("Getting a diff from the leader", "Sending DIFF zxid="),
        // Apache's leaders do not always speak of that.
        Sync::Trunc => ("Truncating log to get in sync", ""),
        Sync::Snap => ("Getting a snapshot from leader", "Sending snapshot last zxid"),
    };
    let said = |id: usize| ensemble.said(id)[before[id - 1]..].to_owned();
    let (learner_said, leader_said) = (said(id), said(leader));
    let all = format!("{by:?} to {id}: {learner_said}\n--- {leader}:\n{leader_said}");
    if kinds[id - 1] != &CORRAL {
        assert!(learner_said.contains(of_learner), "{all}");
        return;
    }
    assert!(leader_said.contains(of_leader), "{all}");
    for (sync, words) in [(Sync::Trunc, "cut the history back to"), (Sync::Snap, "taking a snapshot of")] {
        assert_eq!(learner_said.contains(words), sync == by, "{all}");
    }
}

/// Makes so many nodes through this member. It may take more than one attempt: followers of Apache's 3.8.0 leave a write unanswered now
/// and then, also without any server of ours.
fn write_some(ensemble: &Ensemble, at: usize, prefix: &str, count: usize) {
    let mut client = connect(&[ensemble.address(at)]);
    for n in 0..count {
        eventually("a node is made", || match create(&mut client, &format!("{prefix}-{n}"), b"") {
            Ok(()) => Some(()),
            Err(error) if error.code() == Some(ErrorCode::NodeExists) => Some(()),
            Err(error) => {
                assert_eq!(error.code(), None, "{error}");
                client = connect(&[ensemble.address(at)]);
                None
            }
        });
    }
}

/// Where each member's log ends now.
fn said_so_far(ensemble: &Ensemble) -> Vec<usize> {
    (1..=ensemble.count()).map(|id| ensemble.said(id).len()).collect()
}

/// With its data each comes back after a while, so that it lacks a little (DIFF) or a lot (SNAP).
fn each_follows_the_other(apache: &Kind) {
    for (kinds, away) in [([apache, apache, &CORRAL], 1), ([&CORRAL, &CORRAL, apache], 1)] {
        let mut ensemble = Ensemble::new(3, 0);
        // As of Apache's leaders: what is not in memory comes as a snapshot.
        ensemble.set("snapshotSizeFactor=-1");
        ensemble.start_each(&kinds);
        // What it has of this epoch, the leader has at hand.
        write_some(&ensemble, away, "/seen", 1);
        for (missed, by) in [(50, Sync::Diff), (1500, Sync::Snap)] {
            ensemble.kill(away);
            write_some(&ensemble, ensemble.leader(), &format!("/{by:?}"), missed);
            let before = said_so_far(&ensemble);
            ensemble.start(away, kinds[away - 1]);
            ensemble.await_serving(away);
            assert_brought_up_to_date(&ensemble, kinds, away, by, &before);
        }
        let writers = Writers::start(&ensemble.addresses(), 3);
        writers.await_more(100);
        ensemble.kill(3);
        writers.await_more(200);
        ensemble.start(3, kinds[2]);
        assert_eq!(ensemble.await_serving(3), "follower", "one of the other kind leads");
        writers.await_more(100);
        let promised = writers.finish();
        ensemble.check(&promised);
    }
}

/// The old leader has logged what nobody else has; the new one, of the other kind, tells it to cut that off.
fn tails_disappear(apache: &Kind) {
    for (old, new) in [(apache, &CORRAL), (&CORRAL, apache)] {
        let mut ensemble = Ensemble::new(3, 0);
        ensemble.start_each(&[new, new, old]);
        let mut client = connect(&[ensemble.address(3)]);
        create(&mut client, "/before", b"").unwrap();
        for id in [1, 2] {
            ensemble.pause(id);
        }
        std::thread::scope(|scope| {
            scope.spawn(|| create(&mut client, "/never", b"").expect_err("nobody else has it"));
            eventually("it is in the leader's log", || is_logged(ensemble.dir(3), b"/never").then_some(()));
            (1..=3).for_each(|id| ensemble.kill(id));
        });
        for id in [1, 2] {
            ensemble.start(id, new);
        }
        ensemble.await_all();
        let before = said_so_far(&ensemble);
        ensemble.start(3, old);
        ensemble.await_serving(3);
        assert_brought_up_to_date(&ensemble, [new, new, old], 3, Sync::Trunc, &before);
        for id in 1..=3 {
            let tree = dump(ensemble.address(id));
            assert!(tree.contains_key("/before") && !tree.contains_key("/never"), "{id}: {:?}", tree.keys());
        }
    }
}

fn each_observes(apache: &Kind) {
    for kinds in [[apache, apache, &CORRAL], [&CORRAL, &CORRAL, apache]] {
        let mut ensemble = Ensemble::new(3, 1);
        ensemble.set("snapshotSizeFactor=-1");
        (1..=3).for_each(|id| ensemble.start(id, kinds[id - 1]));
        ensemble.await_all();
        assert_eq!(ensemble.mode(3).as_deref(), Some("observer"));
        // Also through the observer.
        write_some(&ensemble, 3, "/seen", 1);
        for (missed, by) in [(50, Sync::Diff), (1500, Sync::Snap)] {
            ensemble.kill(3);
            write_some(&ensemble, ensemble.leader(), &format!("/{by:?}"), missed);
            let before = said_so_far(&ensemble);
            ensemble.start(3, kinds[2]);
            assert_eq!(ensemble.await_serving(3), "observer");
            assert_brought_up_to_date(&ensemble, kinds, 3, by, &before);
        }
        let writers = Writers::start(&ensemble.addresses(), 3);
        writers.await_more(300);
        let promised = writers.finish();
        ensemble.check(&promised);
    }
}

/// A client of either kind of follower, with either kind of leader.
fn identities_count(apache: &Kind) {
    for kinds in [[&CORRAL, apache, apache], [apache, &CORRAL, &CORRAL]] {
        let mut ensemble = Ensemble::new(3, 0);
        ensemble.set(identities::SETTINGS);
        ensemble.start_each(&kinds);
        check_identities(&ensemble);
    }
}

/// To Apache's leader it is a server that does not trust its empty disk.
fn lost_history(apache: &Kind) {
    let mut ensemble = Ensemble::new(3, 0);
    ensemble.start_each(&[&CORRAL, apache, apache]);
    let writers = Writers::start(&ensemble.addresses(), 3);
    writers.await_more(200);
    ensemble.kill(1);
    ensemble.damage(1);
    ensemble.start(1, &CORRAL);
    assert_eq!(ensemble.await_serving(1), "follower");
    let said = ensemble.said(1);
    assert!(said.contains("does not vote: its history is lost") && said.contains("taking a snapshot of"), "{said}");
    writers.await_more(200);
    let promised = writers.finish();
    ensemble.check(&promised);
}

fn altered_tree(apache: &Kind) {
    let mut ensemble = Ensemble::new(3, 0);
    ensemble.start_each(&[&CORRAL, apache, apache]);
    ensemble.check_that_an_altered_tree_is_replaced(1, &CORRAL);
}

/// Far behind a leader of ours that has no snapshot: what is read from its log is what Apache's learner expects.
fn missed_more_than_memory(apache: &Kind) {
    let mut ensemble = Ensemble::new(4, 1);
    ensemble.set("snapCount=1000000");
    ensemble.start_each(&[apache, &CORRAL, &CORRAL, apache]);
    let writers = Writers::start(&ensemble.addresses()[1..3], 4);
    writers.await_more(200);
    for away in [1, 4] {
        ensemble.kill(away);
    }
    writers.await_more(3000);
    for away in [1, 4] {
        ensemble.start(away, apache);
        ensemble.await_serving(away);
        let line = format!("server {away}, which has ");
        let said = ensemble.said(3);
        assert!(said.lines().any(|it| it.contains(&line) && it.contains("is sent the log: DIFF")), "{said}");
    }
    writers.await_more(200);
    let promised = writers.finish();
    ensemble.check(&promised);
}

/// What the end of a session would name is more than Apache's learners read in one packet: they left with "Unreasonable length".
fn many_ephemerals(apache: &Kind) {
    let mut ensemble = Ensemble::new(3, 0);
    ensemble.start_each(&[apache, apache, &CORRAL]);
    let mut client = connect(&[ensemble.address(3)]);
    let name = "x".repeat(60);
    let (count, at_once) = (20_000, 1000);
    for from in (0..count).step_by(at_once) {
        let paths: Vec<String> = (from..from + at_once).map(|n| format!("/{name}-{n}")).collect();
        let mut ops = Vec::new();
        for path in &paths {
            MultiOp::Create(CreateRequest { path, data: None, acl: AclList::OPEN, flags: 1 }).encode_into(&mut ops);
        }
        let request = Request::Multi(MultiRequest::from_encoded(at_once, &ops));
        client.request(&request).expect("they are made");
    }
    client.request(&Request::CloseSession).expect("it is closed");
    for id in 1..=3 {
        let mut client = connect(&[ensemble.address(id)]);
        client.request(&Request::Sync(Some("/"))).expect("it follows");
        assert!(!dump(ensemble.address(id)).keys().any(|path| path.contains(&name)), "{id} has some of them");
        assert!(!ensemble.said(id).contains("Unreasonable length"), "{id}: {}", ensemble.said(id));
    }
    assert_eq!(ensemble.leader(), 3, "nobody had to leave");
    ensemble.check_digests();
}

/// The leader takes an observer in. Ours logs and applies that, and follows on with the members that it was told of at its start.
fn other_members(apache: &Kind) {
    let mut ensemble = Ensemble::new(3, 0);
    for id in [2, 3] {
        ensemble.set_of(id, "reconfigEnabled=true\nskipACL=yes");
    }
    ensemble.start_each(&[&CORRAL, apache, apache]);
    let mut client = connect(&[ensemble.address(1)]);
    let (member, port) = ("server.9=127.0.0.1:2888:3888:observer", ";127.0.0.1:2189");
    let joining = &*format!("{member}{port}");
    let request = ReconfigRequest { joining: Some(joining), leaving: None, members: None, version: -1 };
    match client.request(&Request::Reconfig(request)).unwrap_or_else(|error| panic!("{error}: {}", ensemble.said(3))) {
        Response::Data(Some(data), _) => assert!(String::from_utf8_lossy(data).contains(member)),
        other => panic!("{other:?}"),
    }
    for n in 0..200 {
        create(&mut client, &format!("/after-{n}"), b"").expect("it goes on");
    }
    for id in 1..=3 {
        let mut client = connect(&[ensemble.address(id)]);
        client.request(&Request::Sync(Some("/"))).expect("it serves");
        let text = String::from_utf8(get(&mut client, "/zookeeper/config").expect("it is there")).expect("text");
        assert!(text.contains(member), "{id}: {text}");
    }
    assert!(!ensemble.said(1).contains("no longer following"), "{}", ensemble.said(1));
    ensemble.check_digests();
}

/// Whether these bytes are in some file of a server's log, whoever wrote it.
fn is_logged(dir: &Path, bytes: &[u8]) -> bool {
    let logs = ["corral-log", "version-2"].map(|name| dir.join(name));
    let files = logs.iter().flat_map(|dir| std::fs::read_dir(dir).into_iter().flatten().flatten());
    let mut paths = files.map(|file| file.path()).filter(|path| path.to_string_lossy().contains("/log"));
    paths.any(|path| std::fs::read(path).unwrap_or_default().windows(bytes.len()).any(|window| window == bytes))
}
