//! Three and five real servers, killed, stopped and started again under clients that write all the time: what was acknowledged
//! stays, and in the end all have the same tree.
//!
//! `CORRAL_ENSEMBLE_ROUNDS` makes it longer.

mod common;

use common::ensemble::{Ensemble, Kind, Writers, connect, dump, rounds};
use common::identities::{self, check_identities};
use common::{create, eventually, overwrite, segments};
use corral_engine::snapshot;
use corral_net::client::{BlockingClient, Session};
use corral_proto::acl::AclList;
use corral_proto::request::{CreateRequest, PathWatch, Request, SetDataRequest};
use corral_proto::response::Response;
use corral_proto::{ErrorCode, EventType};
use std::path::Path;
use std::time::Duration;

const CORRAL: Kind = Kind::Corral;

#[test]
fn members_that_are_killed_come_back_and_nothing_acknowledged_is_lost() {
    let mut ensemble = Ensemble::new(3, 0);
    ensemble.start_all(&CORRAL);
    let writers = Writers::start(&ensemble.addresses(), 3);
    for round in 0..rounds(3) {
        writers.await_more(200);
        let leader = ensemble.leader();
        let follower = leader % 3 + 1;
        let doomed: &[usize] = match round % 3 {
            0 => &[leader],
            1 => &[follower],
            _ => &[leader, follower],
        };
        doomed.iter().for_each(|id| ensemble.kill(*id));
        if doomed.len() == 1 {
            writers.await_more(200);
        }
        doomed.iter().for_each(|id| ensemble.start(*id, &CORRAL));
        ensemble.await_all();
    }
    writers.await_more(200);
    let promised = writers.finish();
    ensemble.check(&promised);
}

/// Observers included.
#[test]
fn what_a_client_has_shown_counts_at_every_member() {
    let mut ensemble = Ensemble::new(3, 1);
    ensemble.set(identities::SETTINGS);
    ensemble.start_all(&CORRAL);
    check_identities(&ensemble);
}

/// The digest in the next transaction shows it.
#[test]
fn a_member_whose_tree_is_not_its_leaders_takes_the_leaders() {
    let mut ensemble = Ensemble::new(3, 0);
    ensemble.start_all(&CORRAL);
    let follower = ensemble.leader() % 3 + 1;
    ensemble.check_that_an_altered_tree_is_replaced(follower, &CORRAL);
}

#[test]
fn an_ensemble_that_is_killed_as_a_whole_goes_on_where_it_was() {
    let mut ensemble = Ensemble::new(3, 0);
    ensemble.start_all(&CORRAL);
    let writers = Writers::start(&ensemble.addresses(), 3);
    for _ in 0..rounds(2) {
        writers.await_more(500);
        (1..=3).for_each(|id| ensemble.kill(id));
        // The power that fails may leave anything behind the last write that was durable.
        let (segment, end) = ensemble.end_of_log(2);
        if end < segment.metadata().unwrap().len() {
            overwrite(&segment, end, &[0xa5; 4096]);
        }
        (1..=3).for_each(|id| ensemble.start(id, &CORRAL));
    }
    writers.await_more(200);
    let promised = writers.finish();
    ensemble.check(&promised);
}

#[test]
fn a_leader_that_stands_still_is_replaced_and_follows_when_it_goes_on() {
    let mut ensemble = Ensemble::new(3, 0);
    ensemble.start_all(&CORRAL);
    let writers = Writers::start(&ensemble.addresses(), 3);
    for _ in 0..rounds(1) {
        writers.await_more(200);
        let leader = ensemble.leader();
        ensemble.pause(leader);
        let others: Vec<usize> = (1..=3).filter(|id| *id != leader).collect();
        eventually("another leads", || others.iter().find(|id| ensemble.mode(**id).as_deref() == Some("leader")));
        writers.await_more(200);
        ensemble.resume(leader);
        eventually("it follows", || (ensemble.mode(leader).as_deref() == Some("follower")).then_some(()));
    }
    writers.await_more(200);
    let promised = writers.finish();
    ensemble.check(&promised);
}

/// Each record that waited for it kept the whole buffer of its batch alive: a megabyte for a few bytes.
#[test]
fn a_stopped_follower_does_not_make_its_leader_grow() {
    let mut ensemble = Ensemble::new(3, 0);
    ensemble.set("syncLimit=1000");
    ensemble.start_all(&CORRAL);
    let leader = ensemble.leader();
    let stopped = leader % 3 + 1;
    ensemble.pause(stopped);
    let writers = Writers::start(&[ensemble.address(leader)], 4);
    writers.await_more(4000);
    let high = ensemble.high_water_mib(leader);
    assert!(high < 150, "{high} MiB");
    ensemble.resume(stopped);
    writers.await_more(100);
    let promised = writers.finish();
    ensemble.check(&promised);
}

/// What followed the snapshot of a learner that joined waited in memory as whole buffers, and was never given back: half a gigabyte a
/// join, and gigabytes if the learner stood still.
#[test]
fn learners_that_join_under_load_do_not_make_their_leader_grow() {
    let mut ensemble = Ensemble::new(3, 0);
    ensemble.set("syncLimit=1000");
    ensemble.start_all(&CORRAL);
    let leader = ensemble.leader();
    let joins = leader % 3 + 1;
    let mut client = connect(&[ensemble.address(leader)]);
    (0..2000).for_each(|n| create(&mut client, &format!("/n{n}"), &[7; 10_000]).unwrap());
    drop(client);
    let writers = Writers::start(&[ensemble.address(leader)], 4);
    for _ in 0..3 {
        ensemble.kill(joins);
        ensemble.forget(joins);
        ensemble.start(joins, &CORRAL);
        // It stands still while it is being synchronized, or just after.
        writers.await_more(100);
        ensemble.pause(joins);
        writers.await_more(1500);
        ensemble.resume(joins);
        ensemble.await_serving(joins);
    }
    let high = ensemble.high_water_mib(leader);
    assert!(high < 250, "{high} MiB, with 20 of data");
    let promised = writers.finish();
    ensemble.check(&promised);
}

#[test]
fn of_five_and_an_observer_two_may_be_gone_and_one_may_come_with_nothing() {
    let mut ensemble = Ensemble::new(6, 1);
    ensemble.start_all(&CORRAL);
    assert_eq!(ensemble.mode(6).as_deref(), Some("observer"));
    let writers = Writers::start(&ensemble.addresses(), 4);
    writers.await_more(300);
    let leader = ensemble.leader();
    let other = leader % 5 + 1;
    for id in [leader, other] {
        ensemble.kill(id);
    }
    writers.await_more(300);
    // Its number is all that it still has: it is sent a snapshot.
    ensemble.forget(other);
    for id in [leader, other] {
        ensemble.start(id, &CORRAL);
    }
    ensemble.await_all();
    writers.await_more(100);
    let promised = writers.finish();
    ensemble.check(&promised);
    assert!(ensemble.said(other).contains("the snapshot of"), "{}", ensemble.said(other));
}

/// The two others gave its zxids, in the same epoch, to transactions of their own: it was told that it lacks nothing, and served for ever
/// what they did not have.
#[test]
fn a_history_whose_zxids_are_used_again_is_noticed() {
    let mut ensemble = Ensemble::new(3, 0);
    ensemble.start_all(&CORRAL);
    let fill = |ensemble: &Ensemble, name: &str, count: usize| {
        let mut client = connect(&[ensemble.address(2)]);
        (0..count).for_each(|n| create(&mut client, &format!("/{name}{n}"), b"").unwrap());
    };
    fill(&ensemble, "first", 100);
    (1..=3).for_each(|id| ensemble.kill(id));
    (2..=3).for_each(|id| ensemble.forget(id));
    (2..=3).for_each(|id| ensemble.start(id, &CORRAL));
    ensemble.await_serving(2);
    fill(&ensemble, "second", 150);
    ensemble.start(1, &CORRAL);
    ensemble.await_serving(1);
    fill(&ensemble, "third", 1);
    let (own, others) = (dump(ensemble.address(1)), dump(ensemble.address(2)));
    assert!(!own.contains_key("/first0") && own.contains_key("/second149"), "{:?}", own.keys());
    assert_eq!(own.keys().collect::<Vec<_>>(), others.keys().collect::<Vec<_>>());
    assert!(ensemble.said(1).contains("the leader knows nothing of the history here"), "{}", ensemble.said(1));
}

/// Its thousand nodes were deleted without a word.
#[test]
fn a_history_that_the_leader_does_not_know_is_kept_aside() {
    let mut ensemble = Ensemble::new(3, 0);
    ensemble.start_all(&CORRAL);
    let mut client = connect(&ensemble.addresses());
    (0..100).for_each(|n| create(&mut client, &format!("/n{n}"), b"").unwrap());
    drop(client);
    (1..=3).for_each(|id| ensemble.kill(id));
    (2..=3).for_each(|id| ensemble.forget(id));
    (2..=3).for_each(|id| ensemble.start(id, &CORRAL));
    ensemble.await_all();
    ensemble.start(1, &CORRAL);
    ensemble.await_serving(1);
    let said = ensemble.said(1);
    assert!(said.contains("the leader knows nothing of the history here"), "{said}");
    let aside = ensemble.dir(1).join("corral-log.given-up-1");
    assert!(said.contains(aside.to_str().unwrap()) && std::fs::read_dir(aside).unwrap().count() > 0, "{said}");
    // It goes on as a member like the others.
    let mut client = connect(&[ensemble.address(1)]);
    create(&mut client, "/after", b"").unwrap();
    ensemble.kill(1);
    ensemble.start(1, &CORRAL);
    ensemble.await_serving(1);
    assert!(dump(ensemble.address(1)).contains_key("/after"));
}

/// It voted with what its snapshot had, although its log had more.
/// Two of three are put back to an old copy of their disks, and make a quorum while the third stands still.
#[test]
fn what_was_committed_and_is_cut_off_is_kept_aside() {
    let mut ensemble = Ensemble::new(3, 0);
    ensemble.start_all(&CORRAL);
    let fill = |ensemble: &Ensemble, name: &str| {
        let mut client = connect(&[ensemble.address(1)]);
        (0..50).for_each(|n| create(&mut client, &format!("/{name}{n}"), b"").unwrap());
    };
    let copied = |from: &Path, to: &Path| {
        let copy = std::process::Command::new("cp").arg("-a").args([from, to]).status();
        assert!(copy.unwrap().success());
    };
    fill(&ensemble, "old");
    (1..=3).for_each(|id| ensemble.kill(id));
    (2..=3).for_each(|id| copied(ensemble.dir(id), &ensemble.dir(id).with_extension("old")));
    (1..=3).for_each(|id| ensemble.start(id, &CORRAL));
    ensemble.await_all();
    fill(&ensemble, "new");
    ensemble.pause(1);
    for id in 2..=3 {
        ensemble.kill(id);
        std::fs::remove_dir_all(ensemble.dir(id)).unwrap();
        std::fs::rename(ensemble.dir(id).with_extension("old"), ensemble.dir(id)).unwrap();
    }
    (2..=3).for_each(|id| ensemble.start(id, &CORRAL));
    ensemble.await_serving(2);
    ensemble.resume(1);
    let aside = ensemble.dir(1).join("corral-log.given-up-1");
    eventually("a copy is kept", || ensemble.said(1).contains(aside.to_str().unwrap()).then_some(()));
    assert!(ensemble.said(1).contains("was committed: the others have lost it"), "{}", ensemble.said(1));
    ensemble.await_serving(1);
    let tree = dump(ensemble.address(1));
    assert!(tree.contains_key("/old49") && !tree.contains_key("/new0"), "{:?}", tree.keys());
    let snapshots = ensemble.dir(1).join("corral-snapshots.given-up-1");
    let kept = corral_engine::restore::restore(&snapshots, &aside, 1, |_| ()).unwrap();
    assert!(kept.tree.find("/new49").is_some(), "what was cut off is in the copy");
}

#[test]
fn a_member_without_its_log_does_not_vote_until_it_has_a_leaders_history() {
    let mut ensemble = Ensemble::new(3, 0);
    ensemble.set("snapCount=100");
    ensemble.start_all(&CORRAL);
    let mut client = connect(&ensemble.addresses());
    (0..400).for_each(|n| create(&mut client, &format!("/n{n}"), b"").unwrap());
    drop(client);
    let log = ensemble.dir(1).join("corral-log");
    let snapshots = ensemble.dir(1).join("corral-snapshots");
    eventually("it has a snapshot", || snapshot::list(&snapshots).unwrap().pop());
    (1..=3).for_each(|id| ensemble.kill(id));
    // The mount point is there, and the disk is not.
    std::fs::remove_dir_all(&log).unwrap();
    std::fs::create_dir(&log).unwrap();
    ensemble.start(1, &CORRAL);
    eventually("it says so", || ensemble.said(1).contains("This server does not vote").then_some(()));
    (2..=3).for_each(|id| ensemble.start(id, &CORRAL));
    ensemble.await_all();
    assert!(dump(ensemble.address(1)).contains_key("/n399"));
}

/// What it has acknowledged, it does not know any more: it keeps what it has, does not vote, and takes the leader's history.
#[test]
fn a_member_whose_log_is_damaged_gives_it_up_and_is_sent_the_leaders() {
    let mut ensemble = Ensemble::new(3, 0);
    ensemble.set("snapCount=1000000");
    ensemble.start_all(&CORRAL);
    let writers = Writers::start(&ensemble.addresses(), 3);
    writers.await_more(300);
    let damaged = ensemble.leader() % 3 + 1;
    ensemble.kill(damaged);
    let oldest = ensemble.damage(damaged);
    ensemble.start(damaged, &CORRAL);
    ensemble.await_serving(damaged);
    writers.await_more(200);
    let promised = writers.finish();
    ensemble.check(&promised);
    let said = ensemble.said(damaged);
    assert!(said.contains("is damaged at offset 4") && said.contains("taking a snapshot of"), "{said}");
    let aside = ensemble.dir(damaged).join("corral-log.damaged-1");
    assert!(said.contains(&format!("set aside as {}", aside.display())), "{said}");
    assert!(aside.join(oldest).exists(), "it can be looked into");
    // It is a member like others again: with it, one of the others may be gone.
    ensemble.kill(damaged % 3 + 1);
    let mut client = connect(&ensemble.addresses());
    create(&mut client, "/after", b"").unwrap();
}

/// The one that is damaged would make a quorum with one that may not have what the third and it had acknowledged.
#[test]
fn who_has_lost_its_history_helps_nobody_to_lead_and_a_quorum_of_those_needs_a_person() {
    let mut ensemble = Ensemble::new(3, 0);
    ensemble.set("snapCount=1000000");
    ensemble.start_all(&CORRAL);
    let writers = Writers::start(&ensemble.addresses(), 3);
    writers.await_more(300);
    let promised = writers.finish();
    ensemble.check(&promised);
    let kill_all = |ensemble: &mut Ensemble| (1..=3).for_each(|id| ensemble.kill(id));
    let nobody_leads = |ensemble: &Ensemble, damaged: &[usize]| {
        for id in damaged {
            eventually("it does not vote", || ensemble.said(*id).contains("does not vote: its history").then_some(()));
        }
        // Ten times as long as a vote must stand.
        ensemble.assert_nobody_serves_for(Duration::from_secs(2));
    };

    kill_all(&mut ensemble);
    ensemble.damage(1);
    [1, 3].into_iter().for_each(|id| ensemble.start(id, &CORRAL));
    nobody_leads(&ensemble, &[1]);
    ensemble.start(2, &CORRAL);
    ensemble.check(&promised);

    kill_all(&mut ensemble);
    ensemble.damage(2);
    ensemble.damage(3);
    (1..=3).for_each(|id| ensemble.start(id, &CORRAL));
    nobody_leads(&ensemble, &[2, 3]);
    // As `docs/ensemble.md` says. With a quorum there, the other one is sent its history.
    ensemble.kill(2);
    ensemble.forget(2);
    ensemble.start(2, &CORRAL);
    ensemble.check(&promised);
}

/// A follower misses three times as much as a leader has in memory, while there is no snapshot, and comes back. What its leader and
/// itself said from then on.
fn comes_back_after_long(settings: &str, meanwhile: impl FnOnce(&Ensemble, usize)) -> (String, String) {
    let mut ensemble = Ensemble::new(3, 0);
    ensemble.set(&format!("snapCount=1000000\n{settings}"));
    ensemble.start_all(&CORRAL);
    let writers = Writers::start(&ensemble.addresses(), 4);
    writers.await_more(200);
    let leader = ensemble.leader();
    let late = leader % 3 + 1;
    ensemble.kill(late);
    let before = [leader, late].map(|id| ensemble.said(id).len());
    writers.await_more(3000);
    meanwhile(&ensemble, leader);
    ensemble.start(late, &CORRAL);
    ensemble.await_serving(late);
    writers.await_more(200);
    let promised = writers.finish();
    ensemble.check(&promised);
    assert_eq!(ensemble.leader(), leader);
    let said = (ensemble.said(leader).split_off(before[0]), ensemble.said(late).split_off(before[1]));
    // What it was sent is in its log: a restart finds it.
    ensemble.kill(late);
    ensemble.start(late, &CORRAL);
    ensemble.check(&promised);
    said
}

#[test]
fn who_has_missed_more_than_is_in_memory_is_sent_the_log_on_the_disk() {
    let (leader, late) = comes_back_after_long("", |_, _| ());
    let line = leader.lines().find(|line| line.contains("is sent the log"));
    let line = line.unwrap_or_else(|| panic!("nothing was sent from the log: {leader}"));
    let sent = line.split("DIFF, ").nth(1).and_then(|rest| rest.split(' ').next()?.parse::<u64>().ok());
    assert!(sent.is_some_and(|sent| sent > 2000), "{line}");
    assert!(!late.contains("snapshot of") && !leader.contains("SNAP"), "{leader}\n{late}");
}

#[test]
fn where_the_log_is_not_to_be_sent_who_has_missed_more_than_is_in_memory_is_sent_a_snapshot() {
    let (leader, late) = comes_back_after_long("snapshotSizeFactor=-1", |_, _| ());
    assert!(late.contains("taking a snapshot of") && leader.contains("SNAP of"), "{leader}\n{late}");
    assert!(!leader.contains("the log"), "{leader}");
}

#[test]
fn a_log_that_is_gone_under_its_leader_costs_the_learner_a_link_and_then_it_is_sent_a_snapshot() {
    let (leader, late) = comes_back_after_long("", |ensemble, leader| {
        let mut segments = segments(ensemble.dir(leader));
        assert!(segments.len() > 3, "{segments:?}");
        segments.truncate(segments.len() - 2);
        segments.iter().for_each(|path| std::fs::remove_file(path).expect("it is there"));
    });
    assert!(leader.contains("cannot be sent what it lacks from the log"), "{leader}");
    assert!(late.contains("taking a snapshot of") && leader.contains("SNAP of"), "{leader}\n{late}");
}

/// What was logged by a leader alone was never acknowledged: it is cut off again when the leader comes back.
#[test]
fn a_tail_that_no_quorum_had_disappears() {
    let mut ensemble = Ensemble::new(3, 0);
    ensemble.start_all(&CORRAL);
    let leader = ensemble.leader();
    let mut client = connect(&[ensemble.address(leader)]);
    create(&mut client, "/before", b"").unwrap();
    let others: Vec<usize> = (1..=3).filter(|id| *id != leader).collect();
    others.iter().for_each(|id| ensemble.pause(*id));
    let before = metric(&ensemble, leader, "zk_log_records");
    std::thread::scope(|scope| {
        scope.spawn(|| create(&mut client, "/never", b"").expect_err("nobody else has it"));
        let logged = || metric(&ensemble, leader, "zk_log_records") > before;
        eventually("it is in the leader's log", || logged().then_some(()));
        ensemble.kill(leader);
    });
    // What was on its way to them is gone with them.
    others.iter().for_each(|id| ensemble.kill(*id));
    others.iter().for_each(|id| ensemble.start(*id, &CORRAL));
    ensemble.await_all();
    ensemble.start(leader, &CORRAL);
    ensemble.await_serving(leader);
    assert!(ensemble.said(leader).contains("cut the history back"), "{}", ensemble.said(leader));
    for id in 1..=3 {
        let tree = dump(ensemble.address(id));
        assert!(tree.contains_key("/before") && !tree.contains_key("/never"), "{id}: {:?}", tree.keys());
    }
}

/// The power fails while a leader writes what nobody else has: whatever of it is on its disk then, that write is gone, and no other.
#[test]
fn a_write_that_is_torn_before_anybody_else_had_it_is_gone_and_no_other() {
    let all = |len: u64| (0, vec![0; len as usize]);
    let second_half = |len: u64| (len / 2, vec![0xa5; (len - len / 2) as usize]);
    let first_block = |_| (0, vec![0xa5; 4096]);
    let ways: [&dyn Fn(u64) -> (u64, Vec<u8>); 3] = [&all, &second_half, &first_block];
    for lost in ways {
        let mut ensemble = Ensemble::new(3, 0);
        ensemble.start_all(&CORRAL);
        let writers = Writers::start(&ensemble.addresses(), 3);
        writers.await_more(200);
        let promised = writers.finish();
        let leader = ensemble.leader();
        let mut client = connect(&[ensemble.address(leader)]);
        let (segment, before) = eventually("there is room for it in this segment", || {
            let (segment, end) = ensemble.end_of_log(leader);
            if end + 100_000 < segment.metadata().unwrap().len() {
                return Some((segment, end));
            }
            create(&mut client, &format!("/filling-{end}"), b"").unwrap();
            None
        });
        (1..=3).filter(|id| *id != leader).for_each(|id| ensemble.pause(id));
        let after = std::thread::scope(|scope| {
            scope.spawn(|| create(&mut client, "/never", &[7; 30_000]).expect_err("nobody else has it"));
            eventually("it is in the leader's log", || {
                let (at, after) = ensemble.end_of_log(leader);
                (at == segment && after > before + 30_000).then_some(after)
            });
            (1..=3).for_each(|id| ensemble.kill(id));
            ensemble.end_of_log(leader).1
        });
        let (from, left) = lost(after - before);
        overwrite(&segment, before + from, &left);
        assert_eq!(ensemble.end_of_log(leader), (segment, before), "it ends before what was torn");
        ensemble.start_all(&CORRAL);
        ensemble.check(&promised);
        assert!((1..=3).all(|id| !dump(ensemble.address(id)).contains_key("/never")), "it was torn");
        if left.iter().any(|byte| *byte != 0) {
            let noticed = format!("the log ends at offset {before} of");
            assert!(ensemble.said(leader).contains(&noticed), "{}", ensemble.said(leader));
        }
    }
}

fn metric(ensemble: &Ensemble, id: usize, name: &str) -> u64 {
    let mntr = corral_net::client::four_letter_word(ensemble.address(id), "mntr", common::PATIENCE).unwrap();
    let line = mntr.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('\t'));
    line.expect("it has that").parse().expect("a number")
}

/// Sessions belong to the ensemble, not to the server where they were opened.
#[test]
fn a_session_moves_between_servers_and_ends_everywhere() {
    let mut ensemble = Ensemble::new(3, 0);
    ensemble.start_all(&CORRAL);
    let leader = ensemble.leader();
    let (here, there) = (leader % 3 + 1, (leader + 1) % 3 + 1);
    let at = |id: usize, session: Session| BlockingClient::connect(ensemble.address(id), session, common::PATIENCE);
    let mut client = at(here, Session::new(Duration::from_secs(4))).unwrap();
    let ephemeral = CreateRequest { path: "/mine", data: None, acl: AclList::OPEN, flags: 1 };
    client.request(&Request::Create(ephemeral)).unwrap();
    // The same session elsewhere: what it has seen, the other server has too, or the client is sent away and comes again.
    let session = client.session();
    let mut moved = eventually("it moves", || at(there, session).ok());
    assert_eq!(moved.session().id, session.id);
    moved.request(&Request::SetData(SetDataRequest { path: "/mine", data: Some(b"moved"), version: 0 })).unwrap();
    // The connection that it had before speaks for it no more.
    let late = SetDataRequest { path: "/mine", data: Some(b"late"), version: -1 };
    let refused = client.request(&Request::SetData(late)).unwrap_err();
    assert_eq!(refused.code(), None, "the connection ends: {refused}");
    // On the leader as well.
    let session = moved.session();
    let mut moved = eventually("it moves", || at(leader, session).ok());
    let mut watcher = connect(&[ensemble.address(here)]);
    let exists = Request::Exists(PathWatch { path: "/mine", watch: true });
    watcher.request(&Request::Sync(Some("/"))).unwrap();
    assert!(matches!(watcher.request(&exists), Ok(Response::Stat(_))));
    moved.request(&Request::SetData(SetDataRequest { path: "/mine", data: None, version: 1 })).unwrap();
    assert_eq!(watcher.wait_event().unwrap(), Some((EventType::NodeDataChanged, "/mine".to_owned())));
    watcher.request(&exists).unwrap();
    // Nobody hears of it any more: it expires, and its node goes.
    let session = moved.session();
    drop(moved);
    assert_eq!(watcher.wait_event().unwrap(), Some((EventType::NodeDeleted, "/mine".to_owned())));
    let gone = at(there, session).expect_err("the session is gone");
    assert!(gone.to_string().contains("expired"), "{gone}");
    // A session that is closed takes its nodes along at once.
    let mut client = at(here, Session::new(Duration::from_secs(4))).unwrap();
    client.request(&Request::Create(ephemeral)).unwrap();
    client.close().unwrap();
    watcher.request(&Request::Sync(Some("/"))).unwrap();
    assert_eq!(watcher.request(&exists).unwrap_err().code(), Some(ErrorCode::NoNode));
}

/// What one client was told of a write, another finds on any server after a `sync`.
#[test]
fn a_sync_finds_what_was_acknowledged_elsewhere() {
    let mut ensemble = Ensemble::new(3, 0);
    ensemble.start_all(&CORRAL);
    let mut clients: Vec<BlockingClient> = ensemble.addresses().iter().map(|address| connect(&[*address])).collect();
    clients[0]
        .request(&Request::Create(CreateRequest { path: "/n", data: None, acl: AclList::OPEN, flags: 0 }))
        .unwrap();
    for turn in 0..300 {
        let text = turn.to_string();
        let set = SetDataRequest { path: "/n", data: Some(text.as_bytes()), version: turn };
        clients[turn as usize % 3].request(&Request::SetData(set)).unwrap();
        let reader = &mut clients[(turn as usize + 1) % 3];
        reader.request(&Request::Sync(Some("/n"))).unwrap();
        let Ok(Response::Data(data, _)) = reader.request(&Request::GetData(PathWatch { path: "/n", watch: false }))
        else {
            panic!("it is there")
        };
        assert_eq!(data, Some(text.as_bytes()));
    }
}
