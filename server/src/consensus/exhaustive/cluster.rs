//! A small ensemble that can be copied, compared and hashed: the real leaderships and learners, around them disks, links and
//! crashes, and what was ever committed.
//!
//! A disk is a list: what was appended, and how much of that is durable. A link keeps its order, and each of its ends can be
//! closed; the other end may still read any part of what was on its way before it notices. That is what TCP does, whether a
//! process died, a link was cut, or somebody ran out of patience.
//!
//! Three things that a real member goes through are no states here, because they can be told apart from others by nobody: one
//! that is down is one that looks for a leader and does nothing; one that gives up and then crashes before its log is synced has
//! crashed at once; and what a learner hears without doing anything about it, it has heard at once (see [`Cluster::settle`]).
//!
//! **Invariant**: equal clusters behave alike.
//!
//! **Not here**: what must be true of it ([`super::laws`]), which steps there are, and how often ([`super::broadcast`]).

use super::super::Ensemble;
use super::super::history::History;
use super::super::leadership::{self, Leadership, LinkId};
use super::super::learner::{self, Learner};
use super::super::message::{Message, Standing};
use super::laws::Law;
use bytes::Bytes;
use corral_engine::txnlog::Durable;
use corral_proto::peer::PacketKind;
use corral_proto::{ServerId, Zxid};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

pub(super) type Entry = (Zxid, Bytes);

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Disk {
    pub(super) log: Vec<Entry>,
    /// So many entries of the log survive a crash.
    pub(super) durable: usize,
    pub(super) accepted: u32,
    pub(super) current: u32,
}

impl Disk {
    pub(super) fn last(&self) -> Zxid {
        self.log.last().map_or(Zxid::ZERO, |(zxid, _)| *zxid)
    }

    fn standing(&self) -> Standing {
        Standing { accepted: self.accepted, current: self.current, last: self.last() }
    }

    pub(super) fn upto(&self, upto: Zxid) -> &[Entry] {
        &self.log[..self.log.partition_point(|(zxid, _)| *zxid <= upto)]
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Role {
    Looking,
    Following(Learner, LinkId),
    Leading(Box<Leadership>),
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Member {
    pub(super) disk: Disk,
    pub(super) role: Role,
    /// Those to whom nothing has happened that has not happened to all of them are alike.
    pub(super) has_begun: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Link {
    pub(super) leader: usize,
    pub(super) learner: usize,
    pub(super) to_leader: VecDeque<Message>,
    pub(super) to_learner: VecDeque<Message>,
    /// What the snapshots on the way to the learner hold.
    snapshots: VecDeque<Vec<Entry>>,
    leader_holds: bool,
    learner_holds: bool,
}

impl Link {
    pub(super) fn carries(&self) -> bool {
        self.leader_holds && self.learner_holds
    }

    /// Whether the leader can find out that the link is of no use any more.
    pub(super) fn leader_may_notice(&self) -> bool {
        self.leader_holds && !self.carries()
    }

    /// Whether the learner can.
    pub(super) fn learner_may_notice(&self) -> bool {
        self.learner_holds && !self.carries()
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Cluster {
    pub(super) members: Vec<Arc<Member>>,
    pub(super) links: BTreeMap<LinkId, Arc<Link>>,
    /// What was ever committed, in order.
    pub(super) committed: Vec<Entry>,
    pub(super) established: BTreeSet<u32>,
    /// The first law that was broken, and how.
    pub(super) broken: Option<(Law, String)>,
}

fn id(index: usize) -> ServerId {
    ServerId(index as i64 + 1)
}

impl Cluster {
    pub(super) fn new(servers: usize) -> Cluster {
        let member = Arc::new(Member { disk: Disk::default(), role: Role::Looking, has_begun: false });
        Cluster {
            members: vec![member; servers],
            links: BTreeMap::new(),
            committed: vec![],
            established: BTreeSet::new(),
            broken: None,
        }
    }

    pub(super) fn ensemble(servers: usize) -> Arc<Ensemble> {
        Arc::new(Ensemble::of_equals((0..servers).map(id)))
    }

    /// One leads, the others follow, nothing was proposed yet, and nothing is on its way.
    pub(super) fn established(servers: usize, ensemble: &Arc<Ensemble>) -> Cluster {
        let mut cluster = Cluster::new(servers);
        cluster.lead(0, 0, ensemble);
        (1..servers).for_each(|member| cluster.follow(member, 0));
        loop {
            cluster.settle();
            let up = cluster.links.iter().find(|(_, link)| !link.to_leader.is_empty()).map(|(id, _)| *id);
            let down = cluster.links.iter().find(|(_, link)| !link.to_learner.is_empty()).map(|(id, _)| *id);
            match (up, down) {
                (Some(link), _) => cluster.deliver_to_leader(link),
                (None, Some(link)) => cluster.deliver_to_learner(link),
                (None, None) => break,
            }
        }
        cluster.begin(0);
        cluster
    }

    /// Something happens to this member alone.
    pub(super) fn begin(&mut self, index: usize) {
        if !self.members[index].has_begun {
            self.member(index).has_begun = true;
        }
    }

    /// Whether something may happen to this member alone: of those that are alike it always happens to the first.
    pub(super) fn may_begin(&self, index: usize) -> bool {
        self.members[index].has_begun || self.members[..index].iter().all(|member| member.has_begun)
    }

    pub(super) fn member(&mut self, index: usize) -> &mut Member {
        Arc::make_mut(&mut self.members[index])
    }

    /// The member gives up what it was and looks for a leader. What it has logged reaches its disk first.
    pub(super) fn look(&mut self, index: usize) {
        self.close_all(index);
        let member = self.member(index);
        member.disk.durable = member.disk.log.len();
        member.role = Role::Looking;
    }

    /// Any part of what was not synced may have reached the disk, in order.
    pub(super) fn crash(&mut self, index: usize, kept: usize) {
        self.member(index).disk.log.truncate(kept);
        self.look(index);
    }

    fn close_all(&mut self, index: usize) {
        for link in self.links.values_mut() {
            if (link.leader == index && link.leader_holds) || (link.learner == index && link.learner_holds) {
                let link = Arc::make_mut(link);
                // A member never follows itself, so one end is its own at most.
                *(if link.leader == index { &mut link.leader_holds } else { &mut link.learner_holds }) = false;
            }
        }
    }

    /// The member takes it that it was elected. `at_hand` of its newest transactions are in memory.
    pub(super) fn lead(&mut self, index: usize, at_hand: usize, ensemble: &Arc<Ensemble>) {
        let mut out = vec![];
        let member = self.member(index);
        let mut recent = History::new();
        let log = &member.disk.log;
        log[log.len() - at_hand..].iter().for_each(|(zxid, bytes)| recent.push(*zxid, bytes));
        let standing = member.disk.standing();
        let leadership = Leadership::new(id(index), ensemble.clone(), standing, recent, &mut out);
        member.role = Role::Leading(Box::new(leadership));
        self.leader_does(index, out);
    }

    /// The member takes it that another was elected, and connects.
    pub(super) fn follow(&mut self, index: usize, leader: usize) {
        // Numbers that nobody uses any more are used again, so that there are no more of them than links.
        let first = ((leader * self.members.len() + index) * 8) as u64;
        let link = (first..).map(LinkId).find(|id| !self.links.contains_key(id)).expect("there are enough");
        let Role::Leading(leadership) = &mut self.member(leader).role else {
            unreachable!("only leaders are followed")
        };
        leadership.connected(link);
        self.links.insert(
            link,
            Arc::new(Link {
                leader,
                learner: index,
                to_leader: VecDeque::new(),
                to_learner: VecDeque::new(),
                snapshots: VecDeque::new(),
                leader_holds: true,
                learner_holds: true,
            }),
        );
        let mut out = vec![];
        let member = self.member(index);
        member.role = Role::Following(Learner::new(id(index), false, member.disk.standing(), &mut out), link);
        self.learner_does(index, out);
    }

    pub(super) fn deliver_to_leader(&mut self, id: LinkId) {
        let link = Arc::make_mut(self.links.get_mut(&id).expect("it has something"));
        let message = link.to_leader.pop_front().expect("it has something");
        let leader = link.leader;
        let mut out = vec![];
        let Role::Leading(leadership) = &mut self.member(leader).role else { unreachable!("it holds the link") };
        leadership.hear(id, message, &mut out);
        self.leader_does(leader, out);
    }

    pub(super) fn deliver_to_learner(&mut self, id: LinkId) {
        let link = Arc::make_mut(self.links.get_mut(&id).expect("it has something"));
        let message = link.to_learner.pop_front().expect("it has something");
        let index = link.learner;
        let mut out = vec![];
        let Role::Following(learner, _) = &mut self.member(index).role else { unreachable!("it holds the link") };
        learner.hear(message, &mut out);
        self.learner_does(index, out);
    }

    /// The leader finds out that a link is gone; what was still on its way to it is, too.
    pub(super) fn leader_notices(&mut self, id: LinkId) {
        let link = Arc::make_mut(self.links.get_mut(&id).expect("it is there"));
        link.leader_holds = false;
        let leader = link.leader;
        let mut out = vec![];
        if let Role::Leading(leadership) = &mut self.member(leader).role {
            leadership.disconnected(id, &mut out);
        }
        self.leader_does(leader, out);
    }

    /// The disk has finished some of its writes.
    pub(super) fn sync(&mut self, index: usize, upto: usize) {
        let member = self.member(index);
        member.disk.durable = upto;
        let durable = Durable::simulated(member.disk.log[upto - 1].0);
        match &mut member.role {
            Role::Leading(leadership) => {
                let mut out = vec![];
                leadership.durable(durable, &mut out);
                self.leader_does(index, out);
            }
            Role::Following(learner, _) => {
                let mut out = vec![];
                learner.durable(durable, &mut out);
                self.learner_does(index, out);
            }
            Role::Looking => unreachable!("all that it has is durable"),
        }
    }

    pub(super) fn propose(&mut self, index: usize, bytes: Bytes) {
        let member = self.member(index);
        let Role::Leading(leadership) = &mut member.role else { unreachable!("only leaders propose") };
        let zxid = leadership.order(u32::MAX).expect("no epoch is used up here");
        let mut out = vec![];
        member.disk.log.push((zxid, bytes.clone()));
        leadership.propose(zxid, bytes.into(), &mut out);
        self.leader_does(index, out);
    }

    fn leader_does(&mut self, index: usize, orders: Vec<leadership::Output>) {
        use leadership::Output;
        for order in orders {
            match order {
                Output::Send(id, message) => self.send_to_learner(id, message, None),
                Output::Snapshot(id, upto) => {
                    let entries = self.members[index].disk.upto(upto).to_vec();
                    self.send_to_learner(id, Message::about(PacketKind::Snap, upto), Some(entries));
                }
                Output::Promise(epoch) => self.promise(index, epoch),
                Output::TakeOver(epoch) => self.take_over(index, epoch),
                Output::Serve(epoch) => self.serve(index, epoch),
                Output::Commit(upto) => self.apply(index, upto),
                Output::FromLog(..) => unreachable!("nobody said that the log reaches back"),
                Output::GiveUp(_) => return self.look(index),
                Output::Drop(id, _) => {
                    if let Some(link) = self.links.get_mut(&id) {
                        Arc::make_mut(link).leader_holds = false;
                    }
                }
                Output::Pass(..) => {}
            }
        }
        self.commit(index);
    }

    fn send_to_learner(&mut self, id: LinkId, message: Message, snapshot: Option<Vec<Entry>>) {
        if let Some(link) = self.links.get_mut(&id).filter(|link| link.carries()) {
            let link = Arc::make_mut(link);
            link.to_learner.push_back(message);
            link.snapshots.extend(snapshot);
        }
    }

    fn learner_does(&mut self, index: usize, orders: Vec<learner::Output>) {
        use learner::Output;
        for order in orders {
            let Role::Following(_, id) = &self.members[index].role else { return };
            let id = *id;
            match order {
                Output::Send(message) => {
                    if let Some(link) = self.links.get_mut(&id).filter(|link| link.carries()) {
                        Arc::make_mut(link).to_leader.push_back(message);
                    }
                }
                Output::Promise(epoch) => self.promise(index, epoch),
                Output::TakeOver(epoch) => self.take_over(index, epoch),
                Output::Truncate(to) => {
                    let disk = &mut self.member(index).disk;
                    disk.log.truncate(disk.upto(to).len());
                    disk.durable = disk.log.len();
                    if disk.last() != to {
                        self.fail(Law::Sound, || format!("{index} is cut back to {to}, which it does not have"));
                    }
                }
                Output::Load(_) => {
                    let link = Arc::make_mut(self.links.get_mut(&id).expect("it is read"));
                    let log = link.snapshots.pop_front().expect("a snapshot follows");
                    let member = self.member(index);
                    (member.disk.durable, member.disk.log) = (log.len(), log);
                    let Role::Following(learner, _) = &mut member.role else { unreachable!("looked at just now") };
                    learner.loaded();
                }
                Output::Append(zxid, bytes) => {
                    let disk = &mut self.member(index).disk;
                    let is_next = zxid > disk.last();
                    disk.log.push((zxid, bytes));
                    if !is_next {
                        self.fail(Law::Sound, || format!("{index} appends {zxid} again"));
                    }
                }
                Output::Commit(upto) => self.apply(index, upto),
                Output::Serve | Output::Pass(_) => {}
                Output::Leave(_) => return self.look(index),
            }
        }
    }

    /// Does what makes no difference. What a learner hears without doing anything about it changes only the learner, which is
    /// gone with its link: it can as well happen at once. What an end that is closed would have read, nobody reads.
    pub(super) fn settle(&mut self) {
        let ids: Vec<LinkId> = self.links.keys().copied().collect();
        for id in ids {
            self.settle_learner(id);
            self.settle_leader(id);
            let link = self.links.get_mut(&id).expect("it was there");
            if !link.leader_holds && !link.to_leader.is_empty() {
                Arc::make_mut(link).to_leader.clear();
            }
            if !link.learner_holds && !link.to_learner.is_empty() {
                let link = Arc::make_mut(link);
                link.to_learner.clear();
                link.snapshots.clear();
            }
            if !link.leader_holds && !link.learner_holds {
                self.links.remove(&id);
            }
        }
    }

    fn settle_learner(&mut self, id: LinkId) {
        loop {
            let link = &self.links[&id];
            let Some(message) = link.to_learner.front().filter(|_| link.learner_holds) else { return };
            let index = link.learner;
            let Role::Following(learner, _) = &self.members[index].role else { unreachable!("it holds the link") };
            let (mut after, mut out) = (learner.clone(), vec![]);
            after.hear(message.clone(), &mut out);
            if !out.is_empty() || message.kind == PacketKind::Snap {
                return;
            }
            self.member(index).role = Role::Following(after, id);
            Arc::make_mut(self.links.get_mut(&id).expect("it was there")).to_learner.pop_front();
        }
    }

    /// The second acknowledgement of an epoch is for nobody.
    fn settle_leader(&mut self, id: LinkId) {
        loop {
            let link = &self.links[&id];
            let is_of_epoch = |message: &&Message| message.kind == PacketKind::Ack && message.zxid.counter() == 0;
            let Some(message) = link.to_leader.front().filter(|_| link.leader_holds).filter(is_of_epoch) else {
                return;
            };
            let Role::Leading(leadership) = &self.members[link.leader].role else { unreachable!("it holds the link") };
            let (mut after, mut out) = (leadership.clone(), vec![]);
            after.hear(id, message.clone(), &mut out);
            if !out.is_empty() || after != *leadership {
                return;
            }
            Arc::make_mut(self.links.get_mut(&id).expect("it was there")).to_leader.pop_front();
        }
    }
}
