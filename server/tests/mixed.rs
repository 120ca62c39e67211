//! Ensembles of our servers and Apache ZooKeeper's together: each leads, follows and observes, is brought up to date by the other in
//! every way there is, and is replaced by the other while clients write.
//!
//! Debian's `zookeeper` serves where it is installed, `.ci/run` sees to that; another release's jars are used, too, if
//! `CORRAL_TEST_ZOOKEEPER_JARS` names their directory.

mod common;

use common::ensemble::{Ensemble, Kind, Writers, connect, debians_zookeeper, dump, other_zookeeper};
use common::eventually;
use corral_proto::acl::AclList;
use corral_proto::request::{CreateRequest, Request};
use libtest_mimic::{Arguments, Trial};

/// What is done with the other kind of server.
type Scene = fn(&Kind);

fn main() {
    let releases = [("debian", debians_zookeeper()), ("other", other_zookeeper())];
    let scenes: [(&str, Scene); 5] = [
        ("one_by_one_the_members_are_replaced_and_back", replaced_one_by_one),
        ("each_follows_the_other_and_nothing_acknowledged_is_lost", each_follows_the_other),
        ("a_tail_that_no_quorum_had_disappears_under_either_leader", tails_disappear),
        ("each_observes_the_other", each_observes),
        ("who_has_missed_more_than_is_in_memory_is_sent_our_log", missed_more_than_memory),
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
            ensemble.start(id, newcomer);
            ensemble.await_serving(id);
        }
    }
    writers.await_more(200);
    let promised = writers.finish();
    ensemble.check(&promised);
}

/// With its data each comes back after a while, so that it lacks a little (DIFF) or a lot (SNAP).
fn each_follows_the_other(apache: &Kind) {
    for (kinds, away) in [([apache, apache, &CORRAL], 1), ([&CORRAL, &CORRAL, apache], 1)] {
        let mut ensemble = Ensemble::new(3, 0);
        ensemble.start_each(&kinds);
        assert_eq!(ensemble.leader(), 3);
        let writers = Writers::start(&ensemble.addresses(), 3);
        for missed in [50, 1500] {
            writers.await_more(100);
            ensemble.kill(away);
            writers.await_more(missed);
            ensemble.start(away, kinds[away - 1]);
            ensemble.await_serving(away);
        }
        writers.await_more(100);
        ensemble.kill(3);
        writers.await_more(200);
        ensemble.start(3, kinds[2]);
        ensemble.await_serving(3);
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
        assert_eq!(ensemble.leader(), 3);
        let mut client = connect(&[ensemble.address(3)]);
        let create = |path| Request::Create(CreateRequest { path, data: None, acl: AclList::OPEN, flags: 0 });
        client.request(&create("/before")).unwrap();
        for id in [1, 2] {
            ensemble.signal(id, libc::SIGSTOP);
        }
        let data = |ensemble: &Ensemble| log_bytes(ensemble.dir(3));
        let before = data(&ensemble);
        std::thread::scope(|scope| {
            scope.spawn(|| client.request(&create("/never")).expect_err("nobody else has it"));
            eventually("it is in the leader's log", || (data(&ensemble) != before).then_some(()));
            (1..=3).for_each(|id| ensemble.kill(id));
        });
        for id in [1, 2] {
            ensemble.start(id, new);
        }
        ensemble.await_all();
        ensemble.start(3, old);
        ensemble.await_serving(3);
        for id in 1..=3 {
            let tree = dump(ensemble.address(id));
            assert!(tree.contains_key("/before") && !tree.contains_key("/never"), "{id}: {:?}", tree.keys());
        }
        if *old == CORRAL {
            assert!(ensemble.said(3).contains("cut the history back"), "{}", ensemble.said(3));
        }
    }
}

fn each_observes(apache: &Kind) {
    for kinds in [[apache, apache, &CORRAL], [&CORRAL, &CORRAL, apache]] {
        let mut ensemble = Ensemble::new(3, 1);
        (1..=3).for_each(|id| ensemble.start(id, kinds[id - 1]));
        ensemble.await_all();
        assert_eq!(ensemble.mode(3).as_deref(), Some("observer"));
        let writers = Writers::start(&ensemble.addresses(), 3);
        writers.await_more(300);
        let promised = writers.finish();
        ensemble.check(&promised);
    }
}

/// Far behind a leader of ours that has no snapshot: what is read from its log is what Apache's learner expects.
fn missed_more_than_memory(apache: &Kind) {
    let mut ensemble = Ensemble::new(4, 1);
    ensemble.set("snapCount=1000000");
    ensemble.start_each(&[apache, &CORRAL, &CORRAL, apache]);
    assert_eq!(ensemble.leader(), 3);
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

/// The contents of all files of a server's log, whoever wrote it.
fn log_bytes(dir: &std::path::Path) -> Vec<Vec<u8>> {
    let logs = ["corral-log", "version-2"].map(|name| dir.join(name));
    let files = logs.iter().flat_map(|dir| std::fs::read_dir(dir).into_iter().flatten().flatten());
    let is_log = |path: &std::path::PathBuf| path.to_string_lossy().contains("/log");
    let mut paths: Vec<_> = files.map(|file| file.path()).filter(is_log).collect();
    paths.sort();
    paths.iter().map(|path| std::fs::read(path).unwrap_or_default()).collect()
}
