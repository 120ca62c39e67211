//! A member of three, as its leaders' words come to it: histories that are cut back, break off, and are handed on.

use super::*;
use corral_engine::disk::BlockSize;
use corral_engine::tree::image::Builder;
use corral_engine::txnlog::{Durable, Group, Position};
use corral_proto::peer::vote::VERSION;
use corral_proto::peer::{Notification, PacketKind, PeerState, Vote};
use corral_proto::{TreeDigest, TxnEntry, TxnHeader};
use std::collections::BTreeSet;

const ME: ServerId = ServerId(1);
const LEADER: ServerId = ServerId(3);
pub(super) const START: Zxid = Zxid::new(1, 1);
const PROPOSED: [Zxid; 2] = [Zxid::new(2, 1), Zxid::new(2, 2)];

/// What the first of so many members is made with.
pub(super) fn of_the_first_of(members: i64) -> ReplicaOptions {
    ReplicaOptions {
        me: ServerId(1),
        ensemble: Arc::new(Ensemble::of_equals((1..=members).map(ServerId))),
        tick: Duration::from_millis(TICK_MS),
        init_limit: 10,
        sync_limit: 5,
        patience: Patience::default(),
        leader_serves: true,
        is_lost: false,
        epoch_max: u32::MAX,
        first_session: FIRST,
        seed: 1,
        members: None,
        access: Access::default(),
        rules: Rules::default(),
        reaping: Reaping::default(),
        cores: CORES,
    }
}

pub(super) struct Member {
    tree: Tree,
    pub(super) replica: Replica,
    pub(super) log: Group,
    now: Duration,
    links: u64,
    /// Links that it has not dropped.
    open: BTreeSet<LinkId>,
    /// What it has sent.
    told: Vec<Message>,
}

impl Member {
    pub(super) fn new() -> Member {
        let mut tree = Tree::new(1);
        tree.apply(&TxnEntry::decode(&record(START)).expect("just made"), None);
        let mut history = History::new();
        history.push(START, &record(START));
        let standing = Standing { accepted: 1, current: 1, last: START };
        let replica = Replica::new(of_the_first_of(3), standing, history, &mut tree, Duration::ZERO);
        let log = Group::new(START, BlockSize::MAX, Duration::ZERO);
        Member { tree, replica, log, now: Duration::ZERO, links: 0, open: BTreeSet::new(), told: Vec::new() }
    }

    /// All others vote like this, and so it ends; returns what is commanded.
    pub(super) fn elect(&mut self, leader: ServerId, vote: (u32, Zxid)) -> Vec<Command> {
        let round = self.replica.election.round();
        let vote = Vote { leader, zxid: vote.1, epoch: vote.0.into() };
        for other in [2, 3] {
            let said = Notification { state: PeerState::Looking, vote, round, version: VERSION, config: None };
            self.replica.notified(self.now, ServerId(other), &said);
        }
        self.now += Duration::from_millis(200);
        self.replica.tick(self.now);
        self.replica.take_commands()
    }

    /// It follows the leader of this epoch as far as to the word with which it begins.
    fn follow(&mut self, epoch: u32, begin: Message) -> LinkId {
        self.follow_elected(epoch - 1, epoch, begin)
    }

    /// The leader was elected in an earlier epoch, or leads in this one already.
    fn follow_elected(&mut self, elected_in: u32, epoch: u32, begin: Message) -> LinkId {
        let link = self.dialed_in(elected_in);
        let protocol = 0x10000i32.to_be_bytes().to_vec();
        self.hear(link, Message::with(PacketKind::LeaderInfo, Zxid::new(epoch, 0), protocol));
        self.hear(link, begin);
        link
    }

    fn dialed_in(&mut self, epoch: u32) -> LinkId {
        let commands = self.elect(LEADER, (epoch, Zxid::new(epoch, 9)));
        assert!(commands.contains(&Command::Dial(LEADER)), "{commands:?}");
        let link = self.link();
        self.replica.dialed(self.now, LEADER, Some(link));
        link
    }

    /// It has elected another, and is connected to it.
    pub(super) fn dialed(&mut self) -> LinkId {
        self.dialed_in(1)
    }

    /// Somebody connects to it, as to a leader.
    pub(super) fn connected(&mut self) -> LinkId {
        let link = self.link();
        self.replica.accepted(self.now, link);
        link
    }

    fn link(&mut self) -> LinkId {
        self.links += 1;
        self.open.insert(LinkId(self.links));
        LinkId(self.links)
    }

    pub(super) fn is_connected(&self, link: LinkId) -> bool {
        self.open.contains(&link)
    }

    /// Time passes.
    pub(super) fn pass(&mut self, time: Duration) {
        self.now += time;
        self.replica.tick(self.now);
        self.carry_out();
    }

    /// Time passes, in which its first follower is heard of often.
    fn pass_with_followers(&mut self, time: Duration) {
        let until = self.now + time;
        while self.now < until {
            self.hear(LinkId(1), Message::about(PacketKind::Ping, Zxid(0)));
            self.pass(Duration::from_millis(TICK_MS).min(until - self.now));
        }
    }

    /// It is elected with this vote; what it has for learners then.
    fn at_hand_of_the_elected(mut self, vote: (u32, Zxid)) -> Vec<Zxid> {
        let commands = self.elect(ME, vote);
        assert!(commands.contains(&Command::Listen(true)), "{commands:?}");
        let Role::Leading(leading) = self.replica.role else { panic!("it was elected") };
        leading.leadership.into_history().iter().map(|(zxid, _)| *zxid).collect()
    }

    pub(super) fn hear(&mut self, link: LinkId, said: Message) {
        if !self.is_connected(link) {
            return;
        }
        let now = Now { uptime: self.now, wall_ms: 0 };
        self.replica.hear(&self.tree, &mut self.log, now, link, said);
        let at = Position { segment: 1, offset: 4096 };
        while let Some(batch) = self.log.take(self.now) {
            self.replica.cut(&batch.place(1, at, Position::START, 0, Position::START));
            let durable = Durable::simulated(self.log.last());
            self.replica.durable(&mut self.log, self.now, durable);
        }
        self.carry_out();
    }

    /// What is committed comes into the tree.
    pub(super) fn apply(&mut self) {
        self.replica.apply(&mut self.tree, usize::MAX, self.now, None);
    }

    fn carry_out(&mut self) {
        for command in self.replica.take_commands() {
            match command {
                Command::Serve => self.replica.serve(&mut self.tree, self.now),
                Command::Truncate(upto) => {
                    self.log = Group::new(upto, BlockSize::MAX, Duration::ZERO);
                    self.replica.truncated(upto);
                }
                Command::Send(_, said) => self.told.push(said),
                Command::Drop(link, _) => _ = self.open.remove(&link),
                Command::Listen(false) => self.open.clear(),
                _ => {}
            }
        }
    }
}

pub(super) fn record(zxid: Zxid) -> Vec<u8> {
    let header = TxnHeader { session: SessionId(7), cxid: Xid(0), zxid, time_ms: 0 };
    TxnEntry { header, txn: Txn::CreateSession { timeout_ms: 4000 }, digest: None }.to_vec()
}

/// Served by the leader of epoch 2, with two proposals in its log of which it does not know that they are committed.
fn with_proposals() -> (Member, LinkId) {
    let mut member = Member::new();
    let link = member.follow(2, Message::about(PacketKind::Diff, START));
    member.hear(link, Message::about(PacketKind::NewLeader, Zxid::new(2, 0)));
    member.hear(link, Message::about(PacketKind::UpToDate, Zxid(-1)));
    for zxid in PROPOSED {
        member.hear(link, Message::with(PacketKind::Proposal, zxid, record(zxid)));
    }
    assert_eq!((member.replica.standing().last, member.tree.last_applied()), (PROPOSED[1], Zxid::new(2, 0)));
    (member, link)
}

/// What it votes with is the end of its log, although its tree does not have that.
#[test]
fn zookeeper_2845_what_was_logged_counts_in_the_vote_and_is_cut_off_if_it_must_be() {
    let (mut member, link) = with_proposals();
    member.replica.lost(member.now, link, "it is gone");
    let votes: Vec<Zxid> = member
        .replica
        .take_commands()
        .iter()
        .filter_map(|command| match command {
            Command::Notify(_, said) => Some(said.vote.zxid),
            _ => None,
        })
        .collect();
    assert_eq!(votes, [PROPOSED[1]; 2]);
    member.follow(3, Message::about(PacketKind::Trunc, START));
    assert_eq!((member.replica.standing().last, member.log.last()), (START, START));
}

/// The packet names the end of what follows; a link that breaks before that must not make it the end of what is here.
#[test]
fn zookeeper_2355_a_diff_that_breaks_off_leaves_the_member_where_it_was() {
    let mut member = Member::new();
    let link = member.follow(2, Message::about(PacketKind::Diff, Zxid::new(1, 9)));
    let next = Zxid::new(1, 2);
    member.hear(link, Message::with(PacketKind::Proposal, next, record(next)));
    member.hear(link, Message::about(PacketKind::Commit, next));
    member.replica.lost(member.now, link, "it is gone");
    assert_eq!((member.replica.standing().last, member.tree.last_applied()), (START, START));
    assert_eq!(member.replica.standing().current, 1, "nor is it in the new epoch");
}

#[test]
fn zookeeper_3642_a_snapshot_that_breaks_off_leaves_the_member_where_it_was() {
    let mut member = Member::new();
    let link = member.follow(2, Message::about(PacketKind::Snap, Zxid::new(1, 9)));
    member.replica.progress(member.now, link);
    member.replica.lost(member.now, link, "it is gone");
    assert_eq!((member.replica.standing().last, member.tree.last_applied()), (START, START));
    // The next leader's DIFF goes on from there.
    let link = member.follow(3, Message::about(PacketKind::Diff, Zxid::new(1, 2)));
    let next = Zxid::new(1, 2);
    member.hear(link, Message::with(PacketKind::Proposal, next, record(next)));
    member.hear(link, Message::about(PacketKind::Commit, next));
    member.hear(link, Message::about(PacketKind::NewLeader, Zxid::new(3, 0)));
    member.hear(link, Message::about(PacketKind::UpToDate, Zxid(-1)));
    assert_eq!(member.tree.last_applied(), Zxid::new(3, 0));
    assert_eq!(member.tree.sessions().len(), 1, "both transactions are in the tree");
}

/// It was brought up to date by a DIFF, and leads next: whoever lacks that must get it.
#[test]
fn zookeeper_4925_what_came_as_a_diff_is_at_hand_for_others() {
    let mut member = Member::new();
    let came = [2, 3, 4].map(|counter| Zxid::new(1, counter));
    let link = member.follow(2, Message::about(PacketKind::Diff, came[2]));
    for zxid in came {
        member.hear(link, Message::with(PacketKind::Proposal, zxid, record(zxid)));
        member.hear(link, Message::about(PacketKind::Commit, zxid));
    }
    member.hear(link, Message::about(PacketKind::NewLeader, Zxid::new(2, 0)));
    member.replica.lost(member.now, link, "it is gone");
    assert_eq!(member.at_hand_of_the_elected((2, came[2])), [START, came[0], came[1], came[2]]);
}

/// It had logged two transactions and heard of no commit; the first of them survived, the second was cut off. The first was in its
/// log then, but not among those that it has at hand, and it would have stopped when it was elected.
#[test]
fn what_is_left_of_a_log_that_was_cut_back_is_at_hand() {
    let (mut member, link) = with_proposals();
    let first = PROPOSED[0];
    member.replica.lost(member.now, link, "it is gone");
    let link = member.follow(3, Message::about(PacketKind::Trunc, first));
    assert_eq!(member.replica.standing().last, first);
    member.replica.lost(member.now, link, "it is gone");
    assert_eq!(member.at_hand_of_the_elected((2, first)), [START, first]);
}

/// The beginning of a session, after which its leader's tree has this digest.
fn record_with(zxid: Zxid, digest: TreeDigest) -> Vec<u8> {
    let header = TxnHeader { session: SessionId(7), cxid: Xid(0), zxid, time_ms: 0 };
    TxnEntry { header, txn: Txn::CreateSession { timeout_ms: 4000 }, digest: Some(digest) }.to_vec()
}

/// What a leader says to a learner that is up to date, and a transaction after which its tree has another digest.
fn serve_a_difference(member: &mut Member, link: LinkId, zxid: Zxid) {
    member.hear(link, Message::about(PacketKind::NewLeader, Zxid::new(2, 0)));
    member.hear(link, Message::about(PacketKind::UpToDate, Zxid(-1)));
    let other = TreeDigest(member.tree.digest().0 + 1);
    member.hear(link, Message::with(PacketKind::Proposal, zxid, record_with(zxid, other)));
    member.hear(link, Message::about(PacketKind::Commit, zxid));
    member.apply();
}

/// Whoever is right, its clients must not see two different trees for longer than it takes; but once is enough.
#[test]
fn a_member_whose_tree_is_not_its_leaders_takes_that_once_in_an_epoch() {
    let mut member = Member::new();
    let link = member.follow(2, Message::about(PacketKind::Diff, START));
    serve_a_difference(&mut member, link, Zxid::new(2, 1));
    assert!(member.replica.is_astray() && member.replica.state().is_none(), "it serves nobody with that");
    member.carry_out();
    assert!(!member.is_connected(link));
    let had = member.replica.standing().last;
    let link = member.follow_elected(2, 2, Message::about(PacketKind::Snap, had));
    let claims = member.told.iter().rev().find(|said| said.kind == PacketKind::AckEpoch).expect("it was asked");
    assert_eq!((claims.zxid, claims.bytes().len()), (Zxid::ZERO, 8), "as if it had nothing");
    assert_eq!(member.replica.standing().last, had, "which is what it votes with all the same");
    member.tree = Builder::new(1).finish(had, had, None);
    member.replica.loaded();
    assert!(!member.replica.is_astray());
    serve_a_difference(&mut member, link, Zxid::new(2, 2));
    assert!(member.is_connected(link) && member.replica.state().is_some(), "it goes on, and says so");
    assert_eq!(member.tree.difference().map(|difference| difference.zxid), Some(Zxid::new(2, 2)));
}

fn votes(commands: &[Command]) -> bool {
    commands.iter().any(|command| matches!(command, Command::Notify(..)))
}

/// It kept leading, and everybody waited for its disk although the others' disks had room.
#[test]
fn a_leader_whose_disk_takes_nothing_hands_over_and_does_not_vote_until_it_does() {
    for is_full in [false, true] {
        let (mut member, _) = hostile::leads(4);
        let full = LogState { waits_since: Some(member.now), is_full };
        member.replica.log_is(member.now, full);
        let patience = Duration::from_millis(5 * TICK_MS);
        member.replica.tick(member.now + patience - Duration::from_millis(1));
        assert!(member.replica.take_commands().iter().all(|command| matches!(command, Command::Send(..))));
        member.now += patience + Duration::from_millis(TICK_MS);
        member.replica.tick(member.now);
        let commands = member.replica.take_commands();
        assert!(commands.contains(&Command::Listen(false)), "{commands:?}");
        assert_eq!(votes(&commands), !is_full, "everything is on its disk; but nothing more would be");
        member.replica.log_is(member.now, LogState::default());
        let commands = member.replica.take_commands();
        assert_eq!(votes(&commands), is_full, "it comes back by itself");
    }
}

/// After a restart it would be elected again, and everybody would wait for it again.
#[test]
fn a_member_whose_log_is_full_does_not_vote() {
    let mut member = Member::new();
    let full = LogState { waits_since: None, is_full: true };
    assert!(votes(&member.replica.take_commands()));
    member.replica.log_is(member.now, full);
    let vote = Vote { leader: ServerId(1), zxid: START, epoch: 1 };
    let said = Notification { state: PeerState::Looking, vote, round: 1, version: VERSION, config: None };
    member.replica.notified(member.now, ServerId(2), &said);
    member.replica.tick(member.now + Duration::from_secs(60));
    assert_eq!(member.replica.take_commands(), []);
    member.replica.log_is(member.now, LogState::default());
    assert!(votes(&member.replica.take_commands()));
}

/// Everything that it took was progress, but it was given up after a fixed time, and began again with nothing.
#[test]
fn a_learner_that_takes_what_it_is_sent_is_alive_and_gets_more_time_if_that_was_not_enough() {
    let (mut leader, _) = hostile::leads(4);
    let limit = Duration::from_millis(15 * TICK_MS);
    let joins = |leader: &mut Member, silent: Duration| {
        let link = leader.connected();
        for said in [hostile::info(3), hostile::promise(Zxid::new(1, 0))] {
            leader.hear(link, said);
        }
        for _ in 0..10 {
            leader.pass_with_followers(limit - Duration::from_millis(TICK_MS));
            leader.replica.sent(leader.now, link, false);
            assert!(leader.is_connected(link), "it takes what it is sent");
        }
        // What its socket takes after that, such as pings, is not the learner's doing.
        leader.replica.sent(leader.now, link, true);
        for part in [silent / 2, silent - silent / 2] {
            leader.replica.sent(leader.now, link, true);
            leader.pass_with_followers(part);
        }
        leader.is_connected(link)
    };
    assert!(!joins(&mut leader, limit + Duration::from_millis(TICK_MS)));
    assert!(joins(&mut leader, limit + Duration::from_millis(TICK_MS)), "twice as long the next time");
}
