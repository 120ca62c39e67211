//! Whole ensembles in one thread: elections, leaderships and learners over links that break and disks that forget what was not
//! synced, driven by a seed. After every step it is checked that nothing committed is ever lost, changed or reordered.
//!
//! A disk here is a list: what was appended, and how much of that is durable. A link keeps its order, as TCP does, and breaks
//! at any time, with whatever is on it. Packets go through their real encoding.
//!
//! **Not here**: the real log and its files, sessions and requests, time (elections have theirs).

#![expect(clippy::disallowed_methods, reason = "how many seeds is for whoever runs it")]

use super::election::{Elected, Election, Outbox, Patience};
use super::history::History;
use super::leadership::{self, Leadership, LinkId};
use super::learner::{self, Learner};
use super::message::{Message, Standing};
use super::stretch::{Stretch, Walk};
use super::*;
use bytes::Bytes;
use corral_engine::txnlog::Durable;
use corral_proto::peer::{Notification, Packet, PacketKind, Parsed, PeerState};
use corral_proto::{Jute, ServerId, Zxid};
use rand::rngs::SmallRng;
use rand::seq::IteratorRandom;
use rand::{Rng, SeedableRng};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

type Entry = (Zxid, Bytes);

#[derive(Default)]
struct Disk {
    log: Vec<Entry>,
    /// So many entries of the log survive a crash.
    durable: usize,
    accepted: u32,
    current: u32,
}

impl Disk {
    fn last(&self) -> Zxid {
        self.log.last().map_or(Zxid::ZERO, |(zxid, _)| *zxid)
    }

    fn standing(&self) -> Standing {
        Standing { accepted: self.accepted, current: self.current, last: self.last() }
    }
}

enum Role {
    Down,
    Looking,
    /// Elected another, not connected yet; tries so many times.
    Seeking(ServerId, u32),
    Following(Learner, LinkId),
    Leading(Box<Leadership>),
}

struct Member {
    id: ServerId,
    is_observer: bool,
    disk: Disk,
    role: Role,
    election: Election,
}

struct Link {
    leader: usize,
    learner: usize,
    to_leader: VecDeque<Message>,
    to_learner: VecDeque<Message>,
    /// What the snapshots on the way to the learner hold.
    snapshots: VecDeque<Vec<Entry>>,
    /// What its leader was reading for it from its log is not there: nothing more is sent, and the leader closes the link.
    fails: bool,
    /// Something of it was sent before.
    is_begun: bool,
}

struct Cluster {
    seed: u64,
    random: SmallRng,
    now: Duration,
    ensemble: Arc<Ensemble>,
    members: Vec<Member>,
    links: BTreeMap<LinkId, Link>,
    next_link: u64,
    notifications: Vec<(usize, usize, Notification<'static>)>,
    /// What was ever said to be committed, in order.
    committed: Vec<Entry>,
    established: BTreeSet<u32>,
    faults: bool,
    /// Who is on which side: only members of one side hear each other, for a while.
    sides: Vec<u8>,
    /// Without faults no more than one beyond so many is committed.
    enough: usize,
    counts: BTreeMap<&'static str, u64>,
}

impl Cluster {
    fn new(seed: u64) -> Cluster {
        let mut random = SmallRng::seed_from_u64(seed);
        let (voters, observers) = (random.random_range(1..=5), random.random_range(0..=1));
        let all = |from, count| (from..from + count).map(ServerId);
        let equal = |id| (id, ensemble::Voter { weight: 1, group: None });
        let ensemble = Ensemble::new(all(1, voters).map(equal), all(1 + voters, observers)).unwrap();
        let ensemble = Arc::new(ensemble);
        let members = all(1, voters + observers).map(|id| Member {
            id,
            is_observer: !ensemble.is_voter(id),
            disk: Disk::default(),
            role: Role::Down,
            election: Election::new(id, ensemble.clone(), Patience::default()),
        });
        let members = members.collect();
        Cluster {
            seed,
            random,
            now: Duration::ZERO,
            ensemble,
            members,
            links: BTreeMap::new(),
            next_link: 0,
            notifications: vec![],
            committed: vec![],
            established: BTreeSet::new(),
            faults: true,
            sides: vec![0; (voters + observers) as usize],
            enough: 0,
            counts: BTreeMap::new(),
        }
    }

    fn count(&mut self, what: &'static str) {
        *self.counts.entry(what).or_default() += 1;
    }

    fn index(id: ServerId) -> usize {
        id.0 as usize - 1
    }

    /// The member gives up what it was and looks for a leader. What it has logged reaches its disk first.
    fn look(&mut self, index: usize) {
        self.cut_links(index);
        let member = &mut self.members[index];
        member.disk.durable = member.disk.log.len();
        member.role = Role::Looking;
        let mut out = vec![];
        member.election.look(self.now, member.disk.last(), member.disk.current.into(), &mut out);
        self.notify(index, out);
    }

    fn notify(&mut self, from: usize, out: Outbox) {
        for (to, said) in out {
            if !self.faults || self.random.random_ratio(9, 10) {
                self.notifications.push((from, Cluster::index(to), said));
            }
        }
    }

    /// All links of a member break; those at the other ends notice.
    fn cut_links(&mut self, index: usize) {
        let ids: Vec<LinkId> = self.links.keys().copied().collect();
        for id in ids {
            if self.links.get(&id).is_some_and(|link| link.leader == index || link.learner == index) {
                self.cut(id, index);
            }
        }
    }

    fn cut(&mut self, id: LinkId, by: usize) {
        let Some(link) = self.links.remove(&id) else { return };
        if link.leader != by {
            let mut out = vec![];
            if let Role::Leading(leadership) = &mut self.members[link.leader].role {
                leadership.disconnected(id, &mut out);
            }
            self.lead(link.leader, out);
        }
        if link.learner != by && matches!(self.members[link.learner].role, Role::Following(_, own) if own == id) {
            self.look(link.learner);
        }
    }

    fn crash(&mut self, index: usize) {
        self.cut_links(index);
        let member = &mut self.members[index];
        // Any part of what was not synced may have reached the disk, in order: the log's recovery drops the rest.
        let kept = self.random.random_range(member.disk.durable..=member.disk.log.len());
        member.disk.log.truncate(kept);
        member.disk.durable = kept;
        member.role = Role::Down;
        member.election = Election::new(member.id, self.ensemble.clone(), Patience::default());
        self.notifications.retain(|(_, to, _)| *to != index);
        self.count("crashes");
    }

    fn elected(&mut self, index: usize, elected: Elected) {
        let member = &mut self.members[index];
        match elected.state {
            PeerState::Leading => {
                let have = member.disk.log.len();
                let at_hand = self.random.random_range(0..=have);
                let mut recent = History::new();
                member.disk.log[have - at_hand..].iter().for_each(|(zxid, bytes)| recent.push(*zxid, bytes));
                let mut out = vec![];
                let (standing, ensemble) = (member.disk.standing(), self.ensemble.clone());
                let leadership = Leadership::new(member.id, ensemble, standing, recent, &mut out);
                member.role = Role::Leading(Box::new(leadership));
                self.count("leaderships");
                self.lead(index, out);
            }
            _ => member.role = Role::Seeking(elected.vote.leader, 5),
        }
    }

    fn seek(&mut self, index: usize) {
        let Role::Seeking(leader, tries) = self.members[index].role else { return };
        let at = Cluster::index(leader);
        if !matches!(self.members[at].role, Role::Leading(_)) || self.sides[at] != self.sides[index] {
            match tries {
                0 => self.look(index),
                _ => self.members[index].role = Role::Seeking(leader, tries - 1),
            }
            return;
        }
        let id = LinkId(self.next_link);
        self.next_link += 1;
        let Role::Leading(leadership) = &mut self.members[at].role else { unreachable!() };
        leadership.connected(id);
        let link = Link {
            leader: at,
            learner: index,
            to_leader: VecDeque::new(),
            to_learner: VecDeque::new(),
            snapshots: VecDeque::new(),
            fails: false,
            is_begun: false,
        };
        self.links.insert(id, link);
        let mut out = vec![];
        let member = &mut self.members[index];
        let learner = Learner::new(member.id, member.is_observer, member.disk.standing(), &mut out);
        member.role = Role::Following(learner, id);
        self.follow(index, out);
    }

    /// Carries out what a leader ordered.
    fn lead(&mut self, index: usize, orders: Vec<leadership::Output>) {
        for order in orders {
            let disk = &mut self.members[index].disk;
            match order {
                leadership::Output::Send(id, message) => {
                    if let Some(link) = self.links.get_mut(&id).filter(|link| !link.fails) {
                        link.to_learner.push_back(encoded(message));
                    }
                }
                leadership::Output::FromLog(id, stretch) => self.read_log(index, id, stretch),
                leadership::Output::Snapshot(id, upto) => {
                    let entries = disk.log.iter().filter(|(zxid, _)| *zxid <= upto).cloned().collect();
                    self.count("snapshots");
                    if let Some(link) = self.links.get_mut(&id) {
                        link.to_learner.push_back(Message::about(PacketKind::Snap, upto));
                        link.snapshots.push_back(entries);
                    }
                }
                leadership::Output::Promise(epoch) => disk.accepted = epoch,
                leadership::Output::TakeOver(epoch) => disk.current = epoch,
                leadership::Output::Serve(epoch) => {
                    let is_newest = self.established.last().is_none_or(|last| epoch > *last);
                    assert!(self.established.insert(epoch), "seed {}: epoch {epoch} was established twice", self.seed);
                    let log = &self.members[index].disk.log;
                    // One that is late, and does not know of its successor yet, has part of what that has.
                    let (longer, shorter) = if is_newest { (log, &self.committed) } else { (&self.committed, log) };
                    assert!(
                        longer.starts_with(shorter),
                        "seed {}: the leader of epoch {epoch} lacks what was committed\n{}",
                        self.seed,
                        self.describe()
                    );
                    self.committed = longer.clone();
                    self.members[index].election.established(epoch.into());
                }
                leadership::Output::Commit(upto) => self.check_committed(index, upto),
                leadership::Output::GiveUp(_) => {
                    self.count("given up");
                    return self.look(index);
                }
                leadership::Output::Drop(id, _) => {
                    self.count("dropped");
                    self.cut(id, index);
                }
                leadership::Output::Pass(..) => {}
            }
        }
    }

    /// Sends a learner part of a leader's log, which has been let go up to somewhere, now and then too far.
    fn read_log(&mut self, index: usize, id: LinkId, stretch: Stretch) {
        let Disk { log, durable, .. } = &self.members[index].disk;
        let known = log[..*durable].iter().take_while(|(zxid, _)| *zxid <= stretch.have).count();
        let from = self.random.random_range(0..=known);
        let breaks_at = self.random.random_ratio(1, 5).then(|| self.random.random_range(from..=*durable));
        let after = from.checked_sub(1).map_or(Zxid::ZERO, |at| log[at].0);
        let (mut walk, mut sent) = (Walk::new(stretch, after), vec![]);
        let mut went = Ok(());
        for (at, (zxid, bytes)) in log[..*durable].iter().enumerate().skip(from) {
            let step = match walk.next(*zxid, bytes) {
                Ok(step) if breaks_at != Some(at) => step,
                other => {
                    went = other.and(Err("it is gone".to_owned()));
                    break;
                }
            };
            sent.extend(step.first);
            if step.send {
                sent.push(Message::with(PacketKind::Proposal, *zxid, bytes.clone()));
                sent.push(Message::about(PacketKind::Commit, *zxid));
            }
        }
        let went = went.and_then(|()| walk.end()).map(|first| sent.extend(first));
        self.count(if went.is_ok() { "from the log" } else { "not from the log" });
        if let Some(link) = self.links.get_mut(&id) {
            link.fails = went.is_err();
            // What is read is sent in pieces.
            link.is_begun = !sent.is_empty() && (went.is_ok() || self.random.random());
            if link.is_begun {
                link.to_learner.extend(sent.into_iter().map(encoded));
            }
        }
    }

    /// Carries out what a learner ordered.
    fn follow(&mut self, index: usize, orders: Vec<learner::Output>) {
        for order in orders {
            let member = &mut self.members[index];
            let Role::Following(learner, id) = &mut member.role else { return };
            match order {
                learner::Output::Send(message) => {
                    if let Some(link) = self.links.get_mut(id) {
                        link.to_leader.push_back(encoded(message));
                    }
                }
                learner::Output::Promise(epoch) => {
                    assert!(epoch > member.disk.accepted, "a promise is for a newer epoch");
                    member.disk.accepted = epoch;
                }
                learner::Output::TakeOver(epoch) => {
                    assert!(epoch <= member.disk.accepted && epoch >= member.disk.current);
                    assert!(epoch == member.disk.accepted || member.is_observer, "only what was promised");
                    member.disk.current = epoch;
                }
                learner::Output::Truncate(to) => {
                    member.disk.log.retain(|(zxid, _)| *zxid <= to);
                    assert_eq!(member.disk.last(), to, "what a leader cuts back to is there");
                    member.disk.durable = member.disk.log.len();
                    self.count("truncations");
                }
                learner::Output::Load(_) => {
                    let entries = self.links.get_mut(id).and_then(|link| link.snapshots.pop_front());
                    member.disk.log = entries.expect("a snapshot follows");
                    member.disk.durable = member.disk.log.len();
                    learner.loaded();
                }
                learner::Output::Append(zxid, bytes) => {
                    assert!(zxid > member.disk.last(), "seed {}: {zxid} is appended again", self.seed);
                    member.disk.log.push((zxid, bytes));
                }
                learner::Output::Commit(upto) => self.check_committed(index, upto),
                learner::Output::Serve => {
                    member.election.established(learner.epoch().into());
                    self.count("served");
                }
                learner::Output::Pass(_) => {}
                learner::Output::Leave(_) => {
                    self.count("left");
                    return self.look(index);
                }
            }
        }
    }

    /// A member was told that its log up to here is committed. (A learner may know before its leader's own disk has it.)
    fn check_committed(&mut self, index: usize, upto: Zxid) {
        let seed = self.seed;
        let disk = &self.members[index].disk;
        let known: Vec<Entry> = disk.log.iter().filter(|(zxid, _)| *zxid <= upto).cloned().collect();
        let leads = matches!(self.members[index].role, Role::Leading(_));
        assert!(leads || disk.durable >= known.len(), "seed {seed}: applied before it is durable");
        let common = known.len().min(self.committed.len());
        assert!(known[..common] == self.committed[..common], "seed {seed}: another history than was committed");
        if known.len() > self.committed.len() {
            let (new, _) = known.last().expect("longer than another");
            let has = |voter: ServerId| {
                let disk = &self.members[Cluster::index(voter)].disk;
                disk.log[..disk.durable].iter().any(|(zxid, _)| zxid == new)
            };
            let is_quorum = self.ensemble.is_quorum(has);
            assert!(is_quorum, "seed {seed}: {new} is committed without a quorum\n{}", self.describe());
            self.count("commits");
            self.committed = known;
        }
    }

    /// The next stretch of time: often all hear each other, often two sides do not.
    fn divide(&mut self) {
        let divided = self.faults && self.random.random();
        for side in &mut self.sides {
            *side = u8::from(divided && self.random.random());
        }
    }

    fn step(&mut self) {
        if self.random.random_ratio(1, 150) {
            self.divide();
        }
        let index = self.random.random_range(0..self.members.len());
        match self.random.random_range(0..100) {
            0..40 => self.deliver(),
            40..60 => self.sync(index),
            60..75 => self.hear_vote(),
            75..83 => self.propose(index),
            83..90 => self.seek(index),
            90..94 => self.pass_time(),
            94..96 if matches!(self.members[index].role, Role::Down) => self.look(index),
            96..98 if self.faults => {
                if let Some(id) = self.links.keys().copied().choose(&mut self.random) {
                    self.cut(id, usize::MAX);
                }
            }
            98 if self.faults && self.random.random_ratio(1, 2) && !matches!(self.members[index].role, Role::Down) => {
                // Now and then the power fails, for all at once.
                let all = self.random.random_ratio(1, 10);
                let doomed = if all { 0..self.members.len() } else { index..index + 1 };
                doomed.for_each(|index| self.crash(index));
            }
            99 => self.give_up(index),
            _ => {}
        }
    }

    /// One packet of one link arrives.
    fn deliver(&mut self) {
        let Some(id) = self.links.keys().copied().choose(&mut self.random) else { return };
        let up = self.random.random();
        let link = self.links.get_mut(&id).expect("chosen just now");
        let (leader, learner) = (link.leader, link.learner);
        if self.sides[leader] != self.sides[learner] {
            return;
        }
        if up {
            let Some(message) = link.to_leader.pop_front() else { return };
            let mut out = vec![];
            let Member { role, disk, .. } = &mut self.members[leader];
            if let Role::Leading(leadership) = role {
                let reach = (0..=disk.log.len()).choose(&mut self.random);
                leadership.log_reaches(reach.map(|at| at.checked_sub(1).map_or(Zxid::ZERO, |at| disk.log[at].0)));
                leadership.hear(id, message, &mut out);
            }
            self.lead(leader, out);
        } else {
            let Some(message) = link.to_learner.pop_front() else {
                if std::mem::take(&mut link.fails) {
                    let is_begun = link.is_begun;
                    let mut out = vec![];
                    if let Role::Leading(leadership) = &mut self.members[leader].role {
                        match is_begun {
                            true => leadership.log_failed(id),
                            false => leadership.log_lacks(id, &mut out),
                        }
                    }
                    self.lead(leader, out);
                    if is_begun {
                        self.cut(id, usize::MAX);
                    }
                }
                return;
            };
            let mut out = vec![];
            if let Role::Following(machine, _) = &mut self.members[learner].role {
                machine.hear(message, &mut out);
            }
            self.follow(learner, out);
        }
    }

    /// A disk has finished some of its writes.
    fn sync(&mut self, index: usize) {
        let member = &mut self.members[index];
        if member.disk.durable == member.disk.log.len() {
            return;
        }
        member.disk.durable = self.random.random_range(member.disk.durable + 1..=member.disk.log.len());
        let durable = Durable::simulated(member.disk.log[member.disk.durable - 1].0);
        match &mut member.role {
            Role::Leading(leadership) => {
                let mut out = vec![];
                leadership.durable(durable, &mut out);
                self.lead(index, out);
            }
            Role::Following(learner, _) => {
                let mut out = vec![];
                learner.durable(durable, &mut out);
                self.follow(index, out);
            }
            _ => {}
        }
    }

    fn hear_vote(&mut self) {
        let Some(at) = (0..self.notifications.len()).choose(&mut self.random) else { return };
        let (from, to, said) = self.notifications[at];
        if self.sides[from] != self.sides[to] {
            return;
        }
        self.notifications.swap_remove(at);
        if matches!(self.members[to].role, Role::Down) {
            return;
        }
        let mut out = vec![];
        let from = self.members[from].id;
        let elected = self.members[to].election.hear(self.now, from, &said, &mut out);
        self.notify(to, out);
        elected.into_iter().for_each(|elected| self.elected(to, elected));
    }

    fn pass_time(&mut self) {
        if self.notifications.len() > 10 * self.members.len() {
            // Messages are faster than time-outs, mostly.
            return;
        }
        let looking = self.members.iter().filter(|member| matches!(member.role, Role::Looking));
        let Some(deadline) = looking.filter_map(|member| member.election.deadline()).min() else { return };
        self.now = self.now.max(deadline);
        for index in 0..self.members.len() {
            if matches!(self.members[index].role, Role::Looking) {
                let mut out = vec![];
                let elected = self.members[index].election.tick(self.now, &mut out);
                self.notify(index, out);
                elected.into_iter().for_each(|elected| self.elected(index, elected));
            }
        }
    }

    fn propose(&mut self, index: usize) {
        let tag: u32 = self.random.random();
        if !self.faults && self.committed.len() > self.enough {
            return;
        }
        let member = &mut self.members[index];
        let Role::Leading(leadership) = &mut member.role else { return };
        if !leadership.is_established() {
            return;
        }
        let zxid = leadership.order(u32::MAX).expect("no simulation uses up an epoch");
        // No two leaders ever propose the same bytes.
        let bytes = Bytes::from(format!("{zxid} by {} {tag}", member.id));
        let mut out = vec![];
        member.disk.log.push((zxid, bytes.clone()));
        leadership.propose(zxid, bytes.into(), &mut out);
        self.lead(index, out);
    }

    /// A leader without followers, or a learner that hears nothing, gives up at some time.
    fn give_up(&mut self, index: usize) {
        let gives_up = match &self.members[index].role {
            Role::Leading(leadership) if leadership.is_established() => {
                !leadership.has_quorum() && self.random.random_ratio(1, 4)
            }
            // For example when those who follow had promised the epoch over an earlier link: that does not count again.
            Role::Leading(_) => self.random.random_ratio(1, 10),
            Role::Following(learner, id) => {
                let is_cut_off = self.links.get(id).is_none_or(|link| self.sides[link.leader] != self.sides[index]);
                (is_cut_off || !learner.serves()) && self.random.random_ratio(1, 10)
            }
            _ => false,
        };
        if gives_up {
            self.look(index);
        }
    }

    /// All up, with one leader, and all logs alike and durable.
    fn is_calm(&self) -> bool {
        let leaders = self.members.iter().filter(|member| match &member.role {
            Role::Leading(leadership) => leadership.is_established(),
            _ => false,
        });
        let serves = |member: &Member| match &member.role {
            Role::Leading(leadership) => leadership.is_established(),
            Role::Following(learner, _) => learner.serves(),
            _ => false,
        };
        leaders.count() == 1
            && self.members.iter().all(|member| {
                serves(member) && member.disk.log == self.committed && member.disk.durable == self.committed.len()
            })
    }

    fn describe(&self) -> String {
        let role = |member: &Member| match &member.role {
            Role::Down => "down".to_owned(),
            Role::Looking => format!("looking, {:?}", member.election.vote()),
            Role::Seeking(leader, _) => format!("seeking {leader}"),
            Role::Following(learner, link) => format!("following over {link:?}: {learner:?}"),
            Role::Leading(leadership) => format!("leading: {leadership:?}"),
        };
        let line = |member: &Member| {
            let Disk { log, durable, accepted, current } = &member.disk;
            format!("{}: {accepted}/{current}, {durable} of {} durable, {}\n", member.id, log.len(), role(member))
        };
        self.members.iter().map(line).collect::<String>() + &format!("{} notifications", self.notifications.len())
    }

    fn run(&mut self, steps: usize) {
        (0..steps).for_each(|_| self.step());
        self.faults = false;
        self.divide();
        // Nothing that is sent is lost from now on; what already was, time-outs make up for. One more is to be committed.
        let before = self.committed.len();
        self.enough = before;
        let mut patience = 200_000;
        while !self.is_calm() || self.committed.len() == before {
            self.step();
            patience -= 1;
            assert!(patience > 0, "seed {}: no peace\n{}", self.seed, self.describe());
        }
    }
}

/// Through the bytes that it has on the wire.
fn encoded(message: Message) -> Message {
    let Message { kind, zxid, data, .. } = message;
    let bytes = Packet { kind, zxid, data: data.as_deref(), auth: None }.to_vec();
    let Ok(Parsed::Whole(packet, used)) = Packet::parse(&bytes, 1 << 20) else { panic!("{kind:?} is no packet") };
    assert_eq!(used, bytes.len());
    Message::new(packet.kind, packet.zxid, packet.data.map(Bytes::copy_from_slice))
}

/// `CORRAL_ZAB_SEEDS` makes it more, `CORRAL_ZAB_SEED` begins elsewhere.
#[test]
fn nothing_that_is_committed_is_ever_lost_and_peace_returns() {
    let number = |name: &str, default| std::env::var(name).map_or(default, |text| text.parse().expect("a number"));
    let (first, seeds) = (number("CORRAL_ZAB_SEED", 0), number("CORRAL_ZAB_SEEDS", 1000));
    let mut counts: BTreeMap<&'static str, u64> = BTreeMap::new();
    for seed in first..first + seeds {
        let mut cluster = Cluster::new(seed);
        cluster.run(3000);
        cluster.counts.into_iter().for_each(|(what, count)| *counts.entry(what).or_default() += count);
    }
    println!("{seeds} seeds: {counts:?}");
    for what in
        ["commits", "crashes", "leaderships", "snapshots", "from the log", "not from the log", "truncations", "served"]
    {
        assert!(seeds < 100 || counts.get(what).is_some_and(|count| *count > 0), "{what} never happened: {counts:?}");
    }
}
