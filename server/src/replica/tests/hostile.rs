//! Whatever comes over a link of members: from strangers, from learners that skip a step, from a leader that talks nonsense. Nothing
//! of it may be carried out out of its place, and nothing may panic.
//!
//! **Not here**: bytes that are no packets at all ([`crate::process`]'s links), the protocols' right course.

use super::member::Member;
use super::*;
use corral_proto::peer::PacketKind;
use corral_proto::peer::learner::{Forwarded, LearnerInfo, PROTOCOL};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

const EPOCH: Zxid = Zxid::new(2, 0);

pub(super) fn info(sid: i64) -> Message {
    let info = LearnerInfo { sid: ServerId(sid), protocol: PROTOCOL, config_version: 0 };
    Message::with(PacketKind::FollowerInfo, Zxid::new(1, 0), info.to_vec())
}

/// The promise of an epoch, by a learner whose history ends there.
pub(super) fn promise(last: Zxid) -> Message {
    Message::with(PacketKind::AckEpoch, last, 1i32.to_be_bytes().to_vec())
}

pub(super) fn forwarded(session: SessionId, op: OpCode, body: &[u8]) -> Message {
    let request = Forwarded { session, xid: Xid(1), op: op.code(), body };
    Message::with(PacketKind::Request, Zxid(-1), request.to_vec())
}

pub(super) fn create_session() -> Message {
    forwarded(SessionId(77), OpCode::CreateSession, &9000i32.to_be_bytes())
}

/// What a follower says to its leader, word by word.
fn follower() -> Vec<Message> {
    vec![
        info(2),
        promise(member::START),
        Message::about(PacketKind::Ack, EPOCH),
        Message::about(PacketKind::Ack, EPOCH),
    ]
}

/// What a leader says to its follower, word by word.
fn leader() -> Vec<Message> {
    let proposed = Zxid::new(2, 1);
    vec![
        Message::with(PacketKind::LeaderInfo, EPOCH, PROTOCOL.to_be_bytes().to_vec()),
        Message::about(PacketKind::Diff, member::START),
        Message::about(PacketKind::NewLeader, EPOCH),
        Message::about(PacketKind::UpToDate, Zxid(-1)),
        Message::with(PacketKind::Proposal, proposed, member::record(proposed)),
        Message::about(PacketKind::Commit, proposed),
    ]
}

/// A member that was elected, and a link to it over which so many of a follower's words have come.
pub(super) fn leads(words: usize) -> (Member, LinkId) {
    let mut member = Member::new();
    member.elect(ServerId(1), (1, member::START));
    let link = member.connected();
    follower().into_iter().take(words).for_each(|word| member.hear(link, word));
    (member, link)
}

/// A member that follows, and its link, over which so many of its leader's words have come.
pub(super) fn follows(words: usize) -> (Member, LinkId) {
    let mut member = Member::new();
    let link = member.dialed();
    leader().into_iter().take(words).for_each(|word| member.hear(link, word));
    (member, link)
}

/// Whoever connected to the quorum port could make a session and a node with its first two packets; in discovery the same packet met
/// an assertion.
#[test]
fn strangers_write_nothing_and_stop_nobody() {
    for words in 0..=follower().len() {
        let (mut member, _) = leads(words);
        let before = member.replica.standing().last;
        for greeting in [None, Some(info(2)), Some(info(9))] {
            let stranger = member.connected();
            greeting.into_iter().for_each(|greeting| member.hear(stranger, greeting));
            member.hear(stranger, create_session());
            member.hear(stranger, forwarded(SessionId(77), OpCode::Create, b"whatever"));
            assert!(!member.is_connected(stranger), "after {words} words of a follower");
            assert_eq!(member.replica.standing().last, before);
        }
    }
    let (mut member, link) = leads(follower().len());
    let before = member.replica.standing().last;
    member.hear(link, create_session());
    assert!(member.is_connected(link) && member.replica.standing().last > before, "a follower may ask");
}

/// Servers that are not in the configuration may listen, but their word on epochs does not count, and nothing is kept of them.
#[test]
fn strangers_choose_no_epoch() {
    let mut member = Member::new();
    member.elect(ServerId(1), (1, member::START));
    let stranger = member.connected();
    member.hear(stranger, Message { zxid: Zxid::new(900, 0), ..info(99) });
    let link = member.connected();
    member.hear(link, info(2));
    assert_eq!(member.replica.standing().accepted, 2);
}

fn nonsense(random: &mut SmallRng, words: &[Message]) -> Message {
    let epochs = [0, 1, 2, 3, i32::MAX as u32, u32::MAX];
    let counters = [0, 1, 2, 3, u32::MAX];
    let zxid =
        Zxid::new(epochs[random.random_range(0..epochs.len())], counters[random.random_range(0..counters.len())]);
    let kind = PacketKind::ALL[random.random_range(0..PacketKind::ALL.len())];
    let mut data = match random.random_range(0..4) {
        0 => Vec::new(),
        1 => (0..random.random_range(0..60)).map(|_| random.random()).collect(),
        2 => create_session().bytes().to_vec(),
        _ => words[random.random_range(0..words.len())].bytes().to_vec(),
    };
    if !data.is_empty() && random.random() {
        let at = random.random_range(0..data.len());
        data[at] ^= 1 << random.random_range(0..8);
    }
    match random.random_range(0..4) {
        0 => words[random.random_range(0..words.len())].clone(),
        1 => Message::about(kind, zxid),
        _ => Message::with(kind, zxid, data),
    }
}

/// At every stage of either end, any packets in any order: there is no panic, and the log only grows by what was in its place.
#[test]
fn no_packet_stops_a_member_at_any_stage() {
    let mut random = SmallRng::seed_from_u64(11);
    for round in 0..6_000 {
        let words = if round % 2 == 0 { follower() } else { leader() };
        let stage = random.random_range(0..=words.len());
        let (mut member, link) = if round % 2 == 0 { leads(stage) } else { follows(stage) };
        let other = if round % 2 == 0 { member.connected() } else { link };
        for _ in 0..random.random_range(1..8) {
            let said = nonsense(&mut random, &words);
            member.hear(if random.random() { link } else { other }, said);
            member.pass(Duration::from_millis(random.random_range(0..1500)));
        }
    }
}
