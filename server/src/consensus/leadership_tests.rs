//! A leader word by word: whom it waits for, what it sends to whom, and when.

use super::Output::*;
use super::*;
use bytes::Bytes;

const ME: ServerId = ServerId(3);
const A: LinkId = LinkId(1);
const B: LinkId = LinkId(2);

fn bytes(zxid: Zxid) -> Bytes {
    zxid.to_string().into_bytes().into()
}

fn about(kind: PacketKind, zxid: Zxid) -> Message {
    Message::about(kind, zxid)
}

fn proposal(zxid: Zxid) -> Message {
    Message::with(PacketKind::Proposal, zxid, bytes(zxid))
}

fn info(kind: PacketKind, sid: i64, accepted: u32) -> Message {
    use corral_proto::Jute;
    let info = LearnerInfo { sid: ServerId(sid), protocol: PROTOCOL, config_version: 0 };
    Message::with(kind, Zxid::new(accepted, 0), info.to_vec())
}

fn ack_epoch(have: Zxid, current: i32) -> Message {
    Message::with(PacketKind::AckEpoch, have, current.to_be_bytes().to_vec())
}

struct Rig(Leadership);

impl Rig {
    /// Of server 3 of three with an observer (9): epoch 2, three transactions of it, all at hand.
    fn new() -> Rig {
        let voter = |id| (ServerId(id), super::super::ensemble::Voter { weight: 1, group: None });
        let ensemble = Ensemble::new((1..=3).map(voter), [ServerId(9)]).unwrap();
        let mut recent = History::new();
        (1..=3).map(|counter| Zxid::new(2, counter)).for_each(|zxid| recent.push(zxid, &bytes(zxid)));
        let standing = Standing { accepted: 2, current: 2, last: Zxid::new(2, 3) };
        let mut out = vec![];
        let leadership = Leadership::new(ME, Arc::new(ensemble), standing, recent, &mut out);
        assert_eq!(out, [], "alone it is nothing");
        Rig(leadership)
    }

    fn hear(&mut self, link: LinkId, said: Message) -> Vec<Output> {
        let mut out = vec![];
        self.0.hear(link, said, &mut out);
        out
    }

    fn comes(&mut self, link: LinkId, kind: PacketKind, sid: i64, accepted: u32) -> Vec<Output> {
        self.0.connected(link);
        self.hear(link, info(kind, sid, accepted))
    }

    fn durable(&mut self, upto: Zxid) -> Vec<Output> {
        let mut out = vec![];
        self.0.durable(Durable::simulated(upto), &mut out);
        out
    }

    fn propose(&mut self, zxid: Zxid) -> Vec<Output> {
        let mut out = vec![];
        assert_eq!(self.0.order(u32::MAX), Some(zxid));
        self.0.propose(zxid, bytes(zxid).into(), &mut out);
        out
    }

    /// Server 1 follows over link A, and the epoch (3) is established.
    fn established() -> Rig {
        let mut rig = Rig::new();
        rig.comes(A, PacketKind::FollowerInfo, 1, 2);
        rig.hear(A, ack_epoch(Zxid::new(2, 3), 2));
        let orders = rig.hear(A, about(PacketKind::Ack, Zxid::new(3, 0)));
        assert_eq!(orders, [Serve(3), Send(A, UP_TO_DATE)]);
        rig
    }
}

#[test]
fn with_a_quorum_a_newer_epoch_than_any_of_it_has_promised_begins_and_is_promised_before_it_is_told() {
    let mut rig = Rig::new();
    assert_eq!(rig.comes(B, PacketKind::ObserverInfo, 9, 8), [], "an observer makes no quorum");
    let orders = rig.comes(A, PacketKind::FollowerInfo, 1, 6);
    let leader_info = Message::with(PacketKind::LeaderInfo, Zxid::new(9, 0), PROTOCOL.to_be_bytes().to_vec());
    assert_eq!(orders, [Promise(9), Send(A, leader_info.clone()), Send(B, leader_info)]);
}

#[test]
fn zookeeper_3104_a_learner_is_sent_what_it_lacks_then_newleader_then_new_proposals() {
    let mut rig = Rig::new();
    rig.comes(A, PacketKind::FollowerInfo, 1, 2);
    let (two, three, new) = (Zxid::new(2, 2), Zxid::new(2, 3), Zxid::new(3, 0));
    let sent = [
        about(PacketKind::Diff, three),
        proposal(two),
        about(PacketKind::Commit, two),
        proposal(three),
        about(PacketKind::Commit, three),
        about(PacketKind::NewLeader, new),
    ];
    let expected: Vec<Output> = [TakeOver(3)].into_iter().chain(sent.map(|message| Send(A, message))).collect();
    assert_eq!(rig.hear(A, ack_epoch(Zxid::new(2, 1), 2)), expected);
    assert_eq!(rig.hear(A, about(PacketKind::Ack, new)), [Serve(3), Send(A, UP_TO_DATE)]);
    assert_eq!(rig.hear(A, about(PacketKind::Ack, new)), [], "the second one, which every learner sends");
}

#[test]
fn a_learner_that_is_ahead_is_sent_away() {
    for (have, current) in [(Zxid::new(2, 4), 2), (Zxid::new(1, 1), 3)] {
        let mut rig = Rig::new();
        rig.comes(A, PacketKind::FollowerInfo, 1, 2);
        let orders = rig.hear(A, ack_epoch(have, current));
        assert!(matches!(&orders[..], [Drop(A, why)] if why.contains("ahead")), "{orders:?}");
    }
}

/// It may have promised the same epoch to another who reached for it: two leaders of one epoch would be the end of everything.
#[test]
fn a_promise_that_was_made_before_does_not_count() {
    let mut rig = Rig::new();
    rig.comes(A, PacketKind::FollowerInfo, 1, 2);
    assert_eq!(rig.hear(A, ack_epoch(Zxid::new(2, 3), -1)), []);
    assert!(!rig.0.is_established());
}

#[test]
fn a_voter_that_can_never_follow_makes_the_leader_give_up_and_an_observer_does_not() {
    let mut rig = Rig::established();
    assert!(matches!(&rig.comes(B, PacketKind::ObserverInfo, 9, 7)[..], [Send(B, _)]));
    let orders = rig.comes(LinkId(3), PacketKind::FollowerInfo, 2, 7);
    assert!(matches!(&orders[..], [GiveUp(why)] if why.contains("epoch 7")), "{orders:?}");
}

#[test]
fn what_a_quorum_has_is_committed_in_order() {
    let mut rig = Rig::established();
    let (one, two) = (Zxid::new(3, 1), Zxid::new(3, 2));
    assert_eq!(rig.propose(one), [Send(A, proposal(one))]);
    rig.propose(two);
    // The follower's disk is faster: a quorum needs two of three, and this leader's own counts when it is done.
    assert_eq!(rig.hear(A, about(PacketKind::Ack, one)), []);
    assert_eq!(rig.hear(A, about(PacketKind::Ack, two)), []);
    assert_eq!(rig.durable(one), [Send(A, about(PacketKind::Commit, one)), Commit(one)]);
    assert_eq!(rig.durable(two), [Send(A, about(PacketKind::Commit, two)), Commit(two)]);
}

#[test]
fn a_quorum_without_the_leaders_own_disk_commits() {
    let mut rig = Rig::established();
    rig.comes(B, PacketKind::FollowerInfo, 2, 2);
    rig.hear(B, ack_epoch(Zxid::new(2, 3), 2));
    assert_eq!(rig.hear(B, about(PacketKind::Ack, Zxid::new(3, 0))), [Send(B, UP_TO_DATE)]);
    let one = Zxid::new(3, 1);
    rig.propose(one);
    rig.hear(A, about(PacketKind::Ack, one));
    let commit = |link| Send(link, about(PacketKind::Commit, one));
    assert_eq!(rig.hear(B, about(PacketKind::Ack, one)), [commit(A), commit(B), Commit(one)]);
    assert_eq!(rig.durable(one), []);
}

#[test]
fn who_joins_while_something_is_outstanding_gets_it_too_and_observers_when_it_is_committed() {
    let mut rig = Rig::established();
    let one = Zxid::new(3, 1);
    rig.propose(one);
    rig.comes(B, PacketKind::FollowerInfo, 2, 2);
    let orders = rig.hear(B, ack_epoch(Zxid::new(2, 3), 2));
    let last_two = [Send(B, proposal(one)), Send(B, about(PacketKind::NewLeader, Zxid::new(3, 0)))];
    assert!(orders.ends_with(&last_two), "{orders:?}");
    let observer = LinkId(7);
    rig.comes(observer, PacketKind::ObserverInfo, 9, 2);
    let orders = rig.hear(observer, ack_epoch(Zxid::new(2, 3), 2));
    assert!(!orders.contains(&Send(observer, proposal(one))));
    rig.hear(A, about(PacketKind::Ack, one));
    let orders = rig.durable(one);
    let inform = Message { kind: PacketKind::Inform, ..proposal(one) };
    assert!(orders.contains(&Send(observer, inform)) && orders.contains(&Send(B, about(PacketKind::Commit, one))));
}

/// Found by the simulation. What it has acknowledged before it cuts off, and until it has it again it is nobody's.
#[test]
fn a_voter_that_comes_again_does_not_count_for_what_it_acknowledged_before() {
    let mut rig = Rig::established();
    let one = Zxid::new(3, 1);
    rig.propose(one);
    assert_eq!(rig.hear(A, about(PacketKind::Ack, one)), []);
    rig.0.connected(B);
    let orders = rig.hear(B, info(PacketKind::FollowerInfo, 1, 3));
    assert!(matches!(&orders[..], [Drop(A, _), Send(B, _)]), "the older link is closed: {orders:?}");
    assert_eq!(rig.hear(A, about(PacketKind::Ack, one)), []);
    rig.hear(B, ack_epoch(one, -1));
    assert_eq!(rig.durable(one), [], "the leader's own disk alone");
    rig.hear(B, about(PacketKind::Ack, Zxid::new(3, 0)));
    assert_eq!(rig.hear(B, about(PacketKind::Ack, one)), [Send(B, about(PacketKind::Commit, one)), Commit(one)]);
}

/// What server 2 is told that comes over link B with its history up to `have`, while the log reaches back to `reach`.
fn told_with_a_log(rig: &mut Rig, have: Zxid, reach: Option<Zxid>) -> Vec<Output> {
    rig.0.log_reaches(reach);
    rig.comes(B, PacketKind::FollowerInfo, 2, 2);
    rig.hear(B, ack_epoch(have, 1))
}

#[test]
fn who_is_behind_all_that_is_in_memory_is_sent_the_log_up_to_there_and_then_the_memory() {
    let [have, one, two, three] = [Zxid::new(1, 5), Zxid::new(2, 1), Zxid::new(2, 2), Zxid::new(2, 3)];
    let mut rig = Rig::established();
    rig.propose(Zxid::new(3, 1));
    let orders = told_with_a_log(&mut rig, have, Some(have));
    let (sid, commit) = (ServerId(2), |zxid| about(PacketKind::Commit, zxid));
    let mut expected = vec![FromLog(B, Stretch { sid, have, have_crc: None, upto: one, newest: three })];
    let sent = [proposal(two), commit(two), proposal(three), commit(three), proposal(Zxid::new(3, 1))];
    expected.extend(sent.map(|message| Send(B, message)));
    expected.push(Send(B, about(PacketKind::NewLeader, Zxid::new(3, 0))));
    assert_eq!(orders, expected);
}

#[test]
fn the_log_is_read_for_nobody_who_needs_it_not_or_whom_it_does_not_reach() {
    let from_log = |have, reach| {
        let orders = told_with_a_log(&mut Rig::established(), have, reach);
        orders.iter().any(|order| matches!(order, FromLog(..)))
    };
    let (early, late) = (Zxid::new(1, 5), Zxid::new(1, 6));
    assert!(from_log(late, Some(early)) && from_log(early, Some(early)) && from_log(Zxid::new(2, 0), Some(early)));
    assert!(!from_log(early, Some(late)), "it begins later");
    assert!(!from_log(early, None), "there is none, or reading it is not worth it");
    assert!(!from_log(Zxid::new(2, 1), Some(early)), "memory is enough");
    assert!(!from_log(Zxid::new(2, 9), Some(early)), "it has more, which is cut off");
    assert!(!from_log(Zxid::ZERO, Some(Zxid::ZERO)), "one without a history is sent the tree");
}

#[test]
fn who_could_not_be_sent_the_log_gets_a_snapshot_the_next_time_and_then_the_log_again() {
    let mut rig = Rig::established();
    let have = Zxid::new(1, 5);
    assert!(matches!(told_with_a_log(&mut rig, have, Some(have))[0], FromLog(B, _)));
    rig.0.log_failed(B);
    rig.0.disconnected(B, &mut vec![]);
    for (sid, is_snapshot) in [(1, false), (2, true), (2, false)] {
        let link = LinkId(5);
        rig.comes(link, PacketKind::FollowerInfo, sid, 2);
        let orders = rig.hear(link, ack_epoch(have, 1));
        assert_eq!(orders.contains(&Snapshot(link, Zxid::new(3, 0))), is_snapshot, "{sid}: {orders:?}");
        rig.0.disconnected(link, &mut vec![]);
    }
}

#[test]
fn who_cannot_be_sent_the_log_gets_a_snapshot_on_the_same_link() {
    let mut rig = Rig::established();
    let have = Zxid::new(1, 5);
    assert!(matches!(told_with_a_log(&mut rig, have, Some(have))[0], FromLog(B, _)));
    let mut orders = vec![];
    rig.0.log_lacks(B, &mut orders);
    assert_eq!(orders[0], Snapshot(B, Zxid::new(3, 0)), "{orders:?}");
    assert_eq!(orders.last(), Some(&Send(B, Message::about(PacketKind::NewLeader, Zxid::new(3, 0)))));
}

/// Once only members were remembered, and a learner that is none was offered the same log again and again.
#[test]
fn who_is_no_member_and_cannot_be_sent_the_log_gets_a_snapshot_as_well() {
    let (mut rig, have) = (Rig::established(), Zxid::new(1, 5));
    rig.0.log_reaches(Some(have));
    rig.comes(B, PacketKind::ObserverInfo, 77, 2);
    assert!(matches!(rig.hear(B, ack_epoch(have, 1))[0], FromLog(B, _)));
    let mut orders = vec![];
    rig.0.log_lacks(B, &mut orders);
    assert_eq!(orders[0], Snapshot(B, Zxid::new(3, 0)), "{orders:?}");
}

#[test]
fn a_log_that_fails_for_everybody_is_read_for_nobody_and_not_all_their_names_are_kept() {
    let (mut rig, have) = (Rig::established(), Zxid::new(1, 5));
    let mut offered = 0;
    for stranger in 100..100 + 2 * sending::LOG_LACKS_MAX as i64 {
        let link = LinkId(stranger as u64);
        rig.0.log_reaches(Some(have));
        rig.comes(link, PacketKind::ObserverInfo, stranger, 2);
        if matches!(rig.hear(link, ack_epoch(have, 1))[0], FromLog(..)) {
            offered += 1;
            rig.0.log_failed(link);
        }
        rig.0.disconnected(link, &mut vec![]);
    }
    assert_eq!((offered, rig.0.log_lacks.len()), (sending::LOG_LACKS_MAX, sending::LOG_LACKS_MAX));
}

/// Two of three had begun anew with empty disks, and gave zxids of the third's history to other transactions: it was told that it lacks
/// nothing, and served what the others did not have.
#[test]
fn another_transaction_under_the_same_zxid_is_noticed() {
    let have = Zxid::new(2, 3);
    for (own, theirs, is_same) in [(&b"one"[..], &b"one"[..], true), (b"one", b"another", false)] {
        let mut rig = Rig::established();
        rig.0.history.forget();
        rig.0.history.push(have, own);
        rig.comes(B, PacketKind::FollowerInfo, 2, 2);
        let data = [2i32.to_be_bytes(), crc32c::crc32c(theirs).to_be_bytes()].concat();
        let orders = rig.hear(B, Message::with(PacketKind::AckEpoch, have, data));
        let is_diff = orders.iter().any(|order| matches!(order, Send(B, said) if said.kind == PacketKind::Diff));
        let is_snapshot = orders.iter().any(|order| matches!(order, Snapshot(B, _)));
        assert_eq!((is_diff, is_snapshot), (is_same, !is_same), "{orders:?}");
    }
}

/// A quorum may be faster than the leader's own disk: what that does not have yet cannot be read from it.
#[test]
fn the_log_is_read_only_up_to_what_is_durable() {
    let mut rig = Rig::established();
    rig.0.history.forget();
    let (one, two) = (Zxid::new(3, 1), Zxid::new(3, 2));
    let have = Zxid::new(1, 5);
    let stretch = |rig: &Rig| rig.0.stretch(ServerId(2), have).map(|stretch| stretch.upto);
    rig.0.log_reaches(Some(have));
    assert_eq!(stretch(&rig), Some(Zxid::new(2, 3)), "nothing is in memory, and all is in the log");
    rig.comes(B, PacketKind::FollowerInfo, 2, 2);
    rig.hear(B, ack_epoch(Zxid::new(2, 3), 2));
    rig.hear(B, about(PacketKind::Ack, Zxid::new(3, 0)));
    rig.propose(one);
    rig.propose(two);
    rig.hear(A, about(PacketKind::Ack, one));
    rig.hear(B, about(PacketKind::Ack, one));
    assert_eq!((rig.0.committed(), stretch(&rig)), (one, None));
    rig.durable(one);
    assert_eq!(stretch(&rig), Some(one));
}

#[test]
fn the_bytes_of_a_proposal_are_the_same_memory_for_every_learner() {
    let mut rig = Rig::established();
    rig.comes(B, PacketKind::FollowerInfo, 2, 2);
    rig.hear(B, ack_epoch(Zxid::new(2, 3), 2));
    let (one, data) = (Zxid::new(3, 1), bytes(Zxid::new(3, 1)));
    let mut out = vec![];
    assert_eq!(rig.0.order(u32::MAX), Some(one));
    rig.0.propose(one, data.clone().into(), &mut out);
    let sent: Vec<*const u8> = out
        .iter()
        .map(|order| match order {
            Send(_, message) => message.bytes().as_ptr(),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(sent, [data.as_ptr(), data.as_ptr()]);
}

#[test]
fn zookeeper_1277_an_epoch_that_is_used_up_ends() {
    let mut rig = Rig::established();
    rig.0.ordered = Zxid::new(3, u32::MAX - 1);
    assert_eq!(rig.0.order(u32::MAX), Some(Zxid::new(3, u32::MAX)));
    assert_eq!(rig.0.order(u32::MAX), None, "it never carries into the epoch");
    // A server alone needs nobody for the next epoch.
    let me = Arc::new(Ensemble::of_equals([ME]));
    let mut alone = Leadership::alone(ME, me, Zxid::new(3, u32::MAX - 1));
    assert_eq!(alone.order(u32::MAX), Some(Zxid::new(3, u32::MAX)));
    assert_eq!(alone.order(u32::MAX), Some(Zxid::new(4, 1)));
}

/// A learner that is slower than the others acknowledges what is committed already, and owes nothing then.
#[test]
fn an_acknowledgement_that_is_too_late_for_the_commit_counts_all_the_same() {
    let mut rig = Rig::established();
    rig.comes(B, PacketKind::FollowerInfo, 2, 2);
    rig.hear(B, ack_epoch(Zxid::new(2, 3), 2));
    rig.hear(B, about(PacketKind::Ack, Zxid::new(3, 0)));
    let one = Zxid::new(3, 1);
    rig.propose(one);
    rig.durable(one);
    rig.hear(A, about(PacketKind::Ack, one));
    assert_eq!((rig.0.committed(), rig.0.acknowledged(B)), (one, Some(Zxid::new(3, 0))));
    assert_eq!(rig.hear(B, about(PacketKind::Ack, one)), []);
    assert_eq!(rig.0.acknowledged(B), Some(one));
}

#[test]
fn a_sync_is_answered_right_behind_the_commit_that_it_waits_for() {
    let mut rig = Rig::established();
    let sync = |rig: &mut Rig| {
        let mut out = vec![];
        rig.0.sync(A, &mut out);
        out
    };
    assert_eq!(sync(&mut rig), [Send(A, SYNCED)], "nothing is outstanding");
    let (one, two) = (Zxid::new(3, 1), Zxid::new(3, 2));
    rig.propose(one);
    assert_eq!(sync(&mut rig), []);
    rig.propose(two);
    rig.durable(two);
    assert_eq!(
        rig.hear(A, about(PacketKind::Ack, two)),
        [
            Send(A, about(PacketKind::Commit, one)),
            Send(A, SYNCED),
            Send(A, about(PacketKind::Commit, two)),
            Commit(two)
        ]
    );
}

#[test]
fn a_server_alone_commits_what_its_own_disk_has() {
    let mut alone = Leadership::alone(ME, Arc::new(Ensemble::of_equals([ME])), Zxid(5));
    let mut out = vec![];
    assert_eq!((alone.order(u32::MAX), alone.order(u32::MAX)), (Some(Zxid(6)), Some(Zxid(7))));
    [6, 7].into_iter().for_each(|zxid| alone.propose(Zxid(zxid), bytes(Zxid(zxid)).into(), &mut out));
    alone.durable(Durable::simulated(Zxid(6)), &mut out);
    assert_eq!(out, [Commit(Zxid(6))]);
}

#[test]
fn what_makes_no_sense_costs_the_link_and_nothing_else() {
    let mut rig = Rig::established();
    for said in [
        about(PacketKind::Ack, Zxid::new(3, 99)),
        about(PacketKind::UpToDate, Zxid::ZERO),
        info(PacketKind::FollowerInfo, 1, u32::MAX),
    ] {
        rig.0.connected(B);
        rig.hear(B, info(PacketKind::FollowerInfo, 2, 2));
        rig.hear(B, ack_epoch(Zxid::new(2, 3), 2));
        rig.hear(B, about(PacketKind::Ack, Zxid::new(3, 0)));
        let orders = rig.hear(B, said.clone());
        assert!(matches!(&orders[..], [Drop(B, _)]), "{said:?}: {orders:?}");
        assert!(rig.0.is_established() && rig.hear(B, said).is_empty(), "the link is gone");
    }
    rig.0.connected(B);
    let orders = rig.hear(B, info(PacketKind::FollowerInfo, 2, u32::MAX));
    assert!(matches!(&orders[..], [Drop(B, why)] if why.contains("impossible epoch")), "{orders:?}");
}

#[test]
fn without_a_quorum_that_is_connected_it_knows() {
    let mut rig = Rig::established();
    assert!(rig.0.has_quorum());
    rig.0.disconnected(A, &mut vec![]);
    assert!(!rig.0.has_quorum());
}
