//! A learner word by word: what Apache's leaders were recorded to say, and what Apache's learners once got wrong.

use super::Output::*;
use super::*;
use corral_proto::peer::{Packet, Parsed};
use serde_json::Value;

const EPOCH: u32 = 5;

fn z(counter: u32) -> Zxid {
    Zxid::new(EPOCH, counter)
}

fn about(kind: PacketKind, zxid: Zxid) -> Message {
    Message::about(kind, zxid)
}

fn proposal(zxid: Zxid) -> Message {
    Message::with(PacketKind::Proposal, zxid, zxid.to_string().into_bytes())
}

fn append(zxid: Zxid) -> Output {
    Append(zxid, zxid.to_string().into_bytes().into())
}

fn ack(zxid: Zxid) -> Output {
    Send(about(PacketKind::Ack, zxid))
}

struct Rig(Learner);

impl Rig {
    /// Of a member with transaction 0x400000009, which has promised epoch 4 and is told of epoch 5.
    fn new(is_observer: bool) -> Rig {
        let standing = Standing { accepted: 4, current: 4, last: Zxid::new(4, 9) };
        let mut rig = Rig(Learner::new(ServerId(1), is_observer, standing, &mut vec![]));
        let orders = rig.hear(about(PacketKind::LeaderInfo, z(0)));
        let answer = Message::with(PacketKind::AckEpoch, Zxid::new(4, 9), 4i32.to_be_bytes().to_vec());
        assert_eq!(orders, [Promise(EPOCH), Send(answer)], "promised before it is said");
        rig
    }

    fn hear(&mut self, said: Message) -> Vec<Output> {
        let mut out = vec![];
        self.0.hear(said, &mut out);
        out
    }

    fn durable(&mut self, upto: Zxid) -> Vec<Output> {
        let mut out = vec![];
        self.0.durable(Durable::simulated(upto), &mut out);
        out
    }

    #[track_caller]
    fn leaves(&mut self, said: Message) {
        let orders = self.hear(said.clone());
        assert!(matches!(orders.last(), Some(Leave(_))), "{said:?}: {orders:?}");
    }
}

/// What a leader sends that has one transaction more, and one that is not committed yet.
fn with_history() -> Rig {
    let mut rig = Rig::new(false);
    for said in [
        about(PacketKind::Diff, z(1)),
        proposal(z(1)),
        about(PacketKind::Commit, z(1)),
        proposal(z(2)),
        about(PacketKind::Ping, z(2)),
    ] {
        assert_eq!(rig.hear(said), []);
    }
    rig
}

/// It keeps its promise, but a leader that counted on it could be one that lacks what it had acknowledged.
#[test]
fn who_has_lost_its_history_promises_without_being_counted() {
    let standing = Standing { accepted: 4, current: 4, last: Zxid::ZERO };
    let mut rig = Rig(Learner::new(ServerId(1), false, standing, &mut vec![]).without_history());
    let orders = rig.hear(about(PacketKind::LeaderInfo, z(0)));
    let answer = Message::with(PacketKind::AckEpoch, Zxid::ZERO, ALREADY_PROMISED.to_be_bytes().to_vec());
    assert_eq!(orders, [Promise(EPOCH), Send(answer)]);
    assert_eq!(rig.hear(about(PacketKind::Snap, z(0))), [Load(z(0))]);
    rig.0.loaded();
    assert_eq!(rig.hear(proposal(z(1))), []);
    assert_eq!(rig.hear(about(PacketKind::NewLeader, z(0))), [append(z(1))], "it may have acknowledged that before");
    assert_eq!(rig.durable(z(1)), [TakeOver(EPOCH), ack(z(0))], "it has a history again");
    assert_eq!(rig.hear(about(PacketKind::UpToDate, Zxid(-1))), [ack(z(0)), ack(z(1)), Serve]);
}

/// Also ZOOKEEPER-3911 and 3023: what a learner says it has must be on its disk.
#[test]
fn zookeeper_4646_newleader_is_acknowledged_when_the_history_is_durable_and_not_before() {
    let mut rig = with_history();
    assert_eq!(rig.hear(about(PacketKind::NewLeader, z(0))), [append(z(1))]);
    assert_eq!(rig.durable(Zxid::new(4, 9)), []);
    assert_eq!(rig.durable(z(1)), [TakeOver(EPOCH), ack(z(0))]);
}

/// Also ZOOKEEPER-4785: a member that says it is in the new epoch must have that epoch's history.
#[test]
fn zookeeper_4643_the_epoch_is_taken_over_after_the_history_is_durable_and_before_it_is_said() {
    let mut rig = with_history();
    let orders = rig.hear(about(PacketKind::NewLeader, z(0)));
    assert!(!orders.contains(&TakeOver(EPOCH)));
    let orders = rig.durable(z(1));
    assert!(
        orders.iter().position(|order| *order == TakeOver(EPOCH)) < orders.iter().position(|order| *order == ack(z(0)))
    );
}

#[test]
fn zookeeper_4394_what_is_not_committed_at_newleader_is_kept_and_a_commit_right_after_it_finds_it() {
    let mut rig = with_history();
    rig.hear(about(PacketKind::NewLeader, z(0)));
    rig.durable(z(1));
    assert_eq!(rig.hear(about(PacketKind::Commit, z(2))), [], "before it may serve");
    assert_eq!(rig.hear(proposal(z(3))), []);
    let orders = rig.hear(about(PacketKind::UpToDate, Zxid(-1)));
    assert_eq!(orders, [ack(z(0)), append(z(2)), append(z(3)), Commit(z(1))]);
    assert_eq!(rig.durable(z(2)), [ack(z(2)), Commit(z(2)), Serve], "not before it has what was committed by then");
    assert_eq!(rig.durable(z(3)), [ack(z(3))]);
    assert_eq!(rig.hear(about(PacketKind::Commit, z(3))), [Commit(z(3))]);
}

/// The first packet after the history must be the acknowledgement of the epoch, or Apache's leader never counts it.
#[test]
fn no_proposal_is_acknowledged_before_the_epoch_is() {
    let mut rig = with_history();
    assert_eq!(rig.durable(z(2)), []);
    assert_eq!(rig.hear(about(PacketKind::NewLeader, z(0))), [append(z(1)), TakeOver(EPOCH), ack(z(0))]);
}

#[test]
fn a_commit_that_comes_before_the_own_disk_is_done_is_applied_when_it_is() {
    let mut rig = serving();
    assert_eq!(rig.hear(proposal(z(1))), [append(z(1))]);
    assert_eq!(rig.hear(about(PacketKind::Commit, z(1))), []);
    assert_eq!(rig.durable(z(1)), [ack(z(1)), Commit(z(1))]);
}

fn serving() -> Rig {
    let mut rig = Rig::new(false);
    rig.hear(about(PacketKind::Diff, Zxid::new(4, 9)));
    assert_eq!(rig.hear(about(PacketKind::NewLeader, z(0))), [TakeOver(EPOCH), ack(z(0))]);
    assert_eq!(rig.hear(about(PacketKind::UpToDate, Zxid(-1))), [ack(z(0)), Serve]);
    rig
}

#[test]
fn each_transaction_is_acknowledged_by_itself() {
    let mut rig = serving();
    (1..=3).for_each(|counter| drop(rig.hear(proposal(z(counter)))));
    assert_eq!(rig.durable(z(2)), [ack(z(1)), ack(z(2))]);
    assert_eq!(rig.durable(z(3)), [ack(z(3))]);
}

/// ZOOKEEPER-4925 and others began with a hole in what a learner had taken over.
#[test]
fn a_gap_and_a_commit_out_of_order_make_it_leave() {
    let mut rig = serving();
    rig.hear(proposal(z(1)));
    rig.leaves(proposal(z(3)));
    let mut rig = serving();
    rig.hear(proposal(z(1)));
    rig.hear(proposal(z(2)));
    rig.leaves(about(PacketKind::Commit, z(2)));
    serving().leaves(about(PacketKind::Commit, z(7)));
}

#[test]
fn what_makes_no_sense_makes_it_leave() {
    Rig::new(false).leaves(about(PacketKind::UpToDate, Zxid(-1)));
    Rig::new(false).leaves(proposal(z(1)));
    with_history().leaves(about(PacketKind::NewLeader, Zxid::new(EPOCH + 1, 0)));
    serving().leaves(about(PacketKind::Snap, z(1)));
}

#[test]
fn a_leader_of_an_earlier_epoch_is_not_followed_and_one_of_the_promised_epoch_is_told_so() {
    let standing = Standing { accepted: 7, current: 3, last: Zxid::new(3, 1) };
    let mut rig = Rig(Learner::new(ServerId(1), false, standing, &mut vec![]));
    rig.leaves(about(PacketKind::LeaderInfo, Zxid::new(6, 0)));
    let mut rig = Rig(Learner::new(ServerId(1), false, standing, &mut vec![]));
    let answer = Message::with(PacketKind::AckEpoch, Zxid::new(3, 1), (-1i32).to_be_bytes().to_vec());
    assert_eq!(rig.hear(about(PacketKind::LeaderInfo, Zxid::new(7, 0))), [Send(answer)]);
}

#[test]
fn trunc_and_snap_are_done_before_anything_is_taken_on_top() {
    let mut rig = Rig::new(false);
    assert_eq!(rig.hear(about(PacketKind::Trunc, Zxid::new(4, 7))), [Truncate(Zxid::new(4, 7))]);
    assert_eq!(rig.hear(proposal(z(1))), []);
    let mut rig = Rig::new(false);
    assert_eq!(rig.hear(about(PacketKind::Snap, Zxid::new(4, 20))), [Load(Zxid::new(4, 20))]);
    rig.0.loaded();
    assert_eq!(rig.hear(about(PacketKind::NewLeader, z(0))), [TakeOver(EPOCH), ack(z(0))]);
}

#[test]
fn an_observer_logs_what_it_is_informed_of_and_acknowledges_nothing() {
    let mut rig = Rig::new(true);
    rig.hear(about(PacketKind::Diff, Zxid::new(4, 9)));
    assert_eq!(rig.hear(about(PacketKind::NewLeader, z(0))), [TakeOver(EPOCH), ack(z(0))], "but the epoch");
    rig.hear(about(PacketKind::UpToDate, Zxid(-1)));
    let inform = Message { kind: PacketKind::Inform, ..proposal(z(1)) };
    assert_eq!(rig.hear(inform), [append(z(1))]);
    assert_eq!(rig.durable(z(1)), [Commit(z(1))]);
}

/// The recorded words of an Apache 3.9.5 leader, and what its follower answered.
#[test]
fn to_a_recorded_leader_it_says_what_apaches_learner_said() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../net/proto/tests/golden/diff-with-8-txns-3.9.5.json");
    let recorded: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    let messages: Vec<(bool, Message)> = recorded["messages"].as_array().unwrap().iter().map(parse).collect();
    let last = messages.iter().find(|(_, said)| said.kind == PacketKind::AckEpoch).unwrap().1.zxid;
    let standing = Standing { accepted: last.epoch(), current: last.epoch(), last };
    let mut out = vec![];
    let info = LearnerInfo::decode(messages[0].1.bytes()).unwrap();
    let mut rig = Rig(Learner::new(info.sid, false, standing, &mut out));
    let mut said: Vec<Message> = vec![];
    let mut note = |orders: Vec<Output>| -> Vec<Zxid> {
        let mut appended = vec![];
        for order in orders {
            match order {
                Send(message) => said.push(message),
                Append(zxid, _) => appended.push(zxid),
                Leave(why) => panic!("{why}"),
                _ => {}
            }
        }
        appended
    };
    note(out);
    // The disk is done at once.
    for (_, words) in messages.iter().filter(|(is_leader, words)| *is_leader && words.kind != PacketKind::Ping) {
        let appended = note(rig.hear(words.clone()));
        if let Some(last) = appended.last() {
            note(rig.durable(*last));
        }
    }
    let of_learner = messages.iter().filter(|(is_leader, words)| !is_leader && words.kind != PacketKind::Ping);
    assert_eq!(said, of_learner.map(|(_, words)| words.clone()).collect::<Vec<_>>());
    assert!(rig.0.serves());
}

fn parse(message: &Value) -> (bool, Message) {
    let hex = message["hex"].as_str().unwrap().as_bytes();
    let digits = hex.chunks(2).map(|pair| u8::from_str_radix(str::from_utf8(pair).unwrap(), 16).unwrap());
    let bytes: Vec<u8> = digits.collect();
    let Ok(Parsed::Whole(packet, _)) = Packet::parse(&bytes, 1 << 20) else { panic!("{message}") };
    let data = packet.data.map(Bytes::copy_from_slice);
    (message["dir"] == "leader->learner", Message::new(packet.kind, packet.zxid, data))
}
