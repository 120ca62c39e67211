//! The simulated world: members, network and clients on one time line, and every step checked.
//!
//! Everything that happens is an [`Event`] at a moment; each step takes the next one. What a member does at a step is what
//! `core-0` of a server does, in the same order ([`World::drive`]), by the production state machines; what it sends, writes or waits
//! for becomes events again, at moments drawn from the run's seed.
//!
//! **Invariant**: the same plan gives the same events.
//!
//! **Not here**: what is checked ([`super::history`], [`super::client`]), the machines themselves.

use super::client::{self, Client, Phase, TWINS};
use super::history::{Entry, History, fingerprint};
use super::journal;
use super::member::{self, Life, Member, TICK};
use super::network::{LifeId, Link, Network, Part, Side, Snapshot, encoded};
use super::plan::{Fault, Kind, Plan};
use bytes::Buf;
use corral_engine::restore::{restore, retain};
use corral_engine::snapshot::writer::take;
use corral_engine::txnlog::{Excerpt, recover_after};
use corral_engine::{Tree, adoption, snapshot, truncation};
use corral_net::frame::Frames;
use corral_proto::peer::{Notification, Packet, PacketKind, Parsed, PeerState, Vote};
use corral_proto::{ServerId, SessionId, Zxid};
use corral_server::delivery::Delivery;
use corral_server::pipeline::WriteRequest;
use corral_server::replica::{Command, Now, Replica};
use corral_server::session::ConnId;
use corral_server::transfer::{Arrival, Departure};
use corral_server::worker::Port;
use corral_server::zab::Ensemble;
use corral_server::zab::leadership::LinkId;
use corral_server::zab::message::Message;
use corral_server::zab::stretch::{Stretch, Walk};
use rand::rngs::SmallRng;
use rand::seq::IteratorRandom;
use rand::{Rng, SeedableRng};
use std::collections::{BTreeMap, VecDeque};
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

/// After the faults everybody must serve again within so much time.
const PEACE: Duration = Duration::from_secs(60);
/// Transactions after which a member takes a snapshot, about.
const SNAPSHOT_EVERY: usize = 300;
/// Snapshots that are kept.
const KEEP: usize = 2;
/// A client waits at least so long for an answer once there is peace.
const CLIENT_PATIENCE: Duration = Duration::from_millis(400);

/// Something that happens.
enum Event {
    Start(usize),
    Wake(LifeId),
    DiskDone(LifeId),
    Supply(LifeId),
    Vote(usize, usize, Notification<'static>),
    Dial(LifeId, ServerId),
    Dialed(LifeId, ServerId, Option<LinkId>),
    Link(LinkId, Side),
    Client(usize),
    ToServer(u64),
    ToClient(u64),
    Fault(usize),
    /// The power of these fails, for so long at most.
    Ambush(Vec<bool>, Duration),
}

/// A client's connection.
struct Conn {
    client: usize,
    server: LifeId,
    slot: Option<u32>,
    to_server: VecDeque<Option<Vec<u8>>>,
    to_client: VecDeque<Option<Vec<u8>>>,
}

/// What a run came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Events.
    pub steps: u64,
    /// Time that has passed in it.
    pub time: Duration,
    /// Transactions that were committed.
    pub commits: u64,
    /// Epochs that were established.
    pub epochs: u64,
    /// Answers that clients got.
    pub answers: u64,
    /// Processes that died.
    pub deaths: u64,
    /// Histories that were cut back.
    pub truncations: u64,
    /// Snapshots that were sent to learners.
    pub snapshots: u64,
    /// Learners that were sent a stretch of the log.
    pub stretches: u64,
    /// Faults of the plan that happened.
    pub faults: u64,
}

/// The world.
pub(super) struct World {
    plan: Plan,
    pub(super) now: Duration,
    random: SmallRng,
    events: BTreeMap<(Duration, u64), Event>,
    number: u64,
    ensemble: Arc<Ensemble>,
    members: Vec<Member>,
    network: Network,
    clients: Vec<(Client, Option<u64>, Duration)>,
    conns: BTreeMap<u64, Conn>,
    next_conn: u64,
    history: History,
    pub(super) counts: Counts,
    is_peace: bool,
    /// Whose power fails when the next epoch is taken over, and for how long.
    ambush: Option<(Vec<bool>, Duration)>,
    /// How long a client waits for an answer before it tries another server, and how rarely it moves without need.
    patience: (Duration, u32),
}

impl World {
    /// A world in which nothing runs yet; its disks lie in `dir`.
    pub(super) fn new(plan: Plan, dir: &Path) -> World {
        let mut random = SmallRng::seed_from_u64(plan.seed);
        let size = plan.size;
        let patience = (
            Duration::from_millis([15, 60, 400][random.random_range(0..3)]),
            [40, 200, 1000][random.random_range(0..3)],
        );
        let equal = |id| (ServerId(id), corral_server::zab::ensemble::Voter { weight: 1, group: None });
        let all = (size.servers + size.observers) as i64;
        let voters = (1..=size.servers as i64).map(equal);
        let observers = (size.servers as i64 + 1..=all).map(ServerId);
        let ensemble = Arc::new(Ensemble::new(voters, observers).expect("an ensemble has members"));
        let members = (0..all as usize).map(|index| Member::new(index, dir, random.random())).collect();
        let clients = (0..size.clients)
            .map(|number| (Client::new(number, SmallRng::seed_from_u64(random.random())), None, Duration::ZERO));
        let clients = clients.collect();
        let mut world = World {
            plan,
            now: Duration::ZERO,
            random,
            events: BTreeMap::new(),
            number: 0,
            ensemble,
            members,
            network: Network::default(),
            clients,
            conns: BTreeMap::new(),
            next_conn: 0,
            history: History::default(),
            counts: Counts::default(),
            is_peace: false,
            ambush: None,
            patience,
        };
        for index in 0..world.members.len() {
            let at = world.within(30_000);
            world.at(at, Event::Start(index));
        }
        for index in 0..size.clients {
            let at = world.within(100_000);
            world.at(at, Event::Client(index));
        }
        for index in 0..world.plan.faults.len() {
            world.at(world.plan.faults[index].at, Event::Fault(index));
        }
        world
    }

    /// Runs until the end of the plan, and then until peace. What must not be is a panic.
    pub(super) fn run(&mut self) {
        while self.counts.steps < self.plan.size.steps {
            self.step();
        }
        self.make_peace();
        let by = self.now + PEACE;
        while !self.is_settled() {
            assert!(
                self.now < by,
                "liveness: {} s of peace, and not everybody serves all that was committed",
                PEACE.as_secs()
            );
            self.step();
        }
        self.check_end();
        self.counts.time = self.now;
        self.counts.commits = self.history.committed.len() as u64;
        self.counts.epochs = self.history.epochs() as u64;
        self.counts.answers = self.clients.iter().map(|(client, ..)| client.answers).sum();
    }

    fn tell(&self, who: Option<usize>, what: impl FnOnce() -> String) {
        journal::tell(self.counts.steps, self.now, who, what);
    }

    fn at(&mut self, moment: Duration, event: Event) {
        self.number += 1;
        self.events.insert((moment.max(self.now), self.number), event);
    }

    /// A moment within so many µs.
    fn within(&mut self, us: u64) -> Duration {
        self.now + Duration::from_micros(self.random.random_range(0..us))
    }

    fn is_alive(&self, life: LifeId) -> bool {
        self.members[life.member].life.as_ref().is_some_and(|own| own.id == life)
    }

    fn step(&mut self) {
        let ((at, _), event) = self.events.pop_first().expect("clients never rest");
        self.now = at;
        self.counts.steps += 1;
        journal::step(self.counts.steps);
        let member = match &event {
            Event::Wake(life) | Event::DiskDone(life) | Event::Supply(life) | Event::Dialed(life, ..) => {
                Some(life.member)
            }
            Event::Vote(_, to, _) => Some(*to),
            Event::Link(id, side) => self.network.links.get(id).map(|link| link.end(*side).member),
            Event::ToServer(conn) => self.conns.get(conn).map(|conn| conn.server.member),
            _ => None,
        };
        match member.map(|member| self.members[member].paused_until) {
            Some(until) if until > self.now => self.at(until, event),
            _ => self.handle(event),
        }
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Start(index) => self.start(index),
            Event::Wake(id) if self.is_alive(id) => self.on_life(id.member, |_, life| life.wakes_at = Duration::MAX),
            Event::DiskDone(id) if self.is_alive(id) => {
                let platter = &self.members[id.member].platter;
                if platter.in_flight() > 0 {
                    let which = self.random.random_range(0..platter.in_flight());
                    platter.finish(which);
                    self.on_life(id.member, |_, _| ());
                }
            }
            Event::Supply(id) if self.is_alive(id) => self.on_life(id.member, |_, life| _ = life.supply()),
            Event::Vote(from, to, said) => {
                if self.members[to].life.is_some() && self.network.passes(self.now, from, to) {
                    let from = self.members[from].id;
                    self.on_life(to, |world, life| life.replica.notified(life.now(world.now).uptime, from, &said));
                }
            }
            Event::Dial(id, leader) => self.dial(id, leader),
            Event::Dialed(id, leader, link) => {
                if self.is_alive(id) {
                    self.on_life(id.member, |world, life| {
                        life.replica.dialed(life.now(world.now).uptime, leader, link);
                    });
                }
            }
            Event::Link(id, side) => self.arrive(id, side),
            Event::Client(index) => self.client(index),
            Event::ToServer(conn) => self.to_server(conn),
            Event::ToClient(conn) => self.to_client(conn),
            Event::Fault(index) => self.befall(index),
            Event::Ambush(doomed, lasts) if !self.is_peace => {
                for member in (0..doomed.len()).filter(|member| doomed[*member]) {
                    let back = self.within(lasts.as_micros() as u64);
                    self.die(member, true, back);
                }
            }
            Event::Wake(_) | Event::DiskDone(_) | Event::Supply(_) | Event::Ambush(..) => {}
        }
    }

    fn start(&mut self, index: usize) {
        if self.members[index].life.is_some() {
            return;
        }
        let ensemble = self.ensemble.clone();
        self.members[index].begin(self.now, ensemble);
        let (count, durable) = (self.members[index].entries.len(), self.members[index].durable);
        self.tell(Some(index), || format!("starts with {count} transactions ({durable} durable)"));
        self.on_life(index, |_, _| ());
    }

    /// Lets something happen to a member that lives, and then lets it do what it has to do about it.
    fn on_life(&mut self, index: usize, happens: impl FnOnce(&mut World, &mut Life)) {
        let mut life = self.members[index].life.take().expect("the caller has looked");
        happens(self, &mut life);
        self.drive(&mut life);
        self.tell_role(&mut life);
        self.members[index].life = Some(life);
    }

    fn tell_role(&mut self, life: &mut Life) {
        let is = match life.replica.state() {
            None => "does not serve",
            Some((PeerState::Leading, _)) => "leads",
            Some((PeerState::Observing, _)) => "observes",
            Some(_) => "follows",
        };
        if life.was != is {
            life.was = is;
            let standing = life.replica.standing();
            self.tell(Some(life.id.member), || format!("{is}: epoch {}, {}", standing.current, standing.last));
        }
    }

    /// What `core-0` does at every step.
    fn drive(&mut self, life: &mut Life) {
        let now = life.now(self.now);
        if life.replica.next_expiry().is_some_and(|at| at <= now.uptime) {
            life.replica.touch(&life.worker.take_heard(), now.uptime);
            let expired = life.replica.expire(&life.tree.read(), &mut life.log.group, now);
            for session in expired {
                self.tell(Some(life.id.member), || format!("session {session} expires"));
            }
        }
        if now.uptime >= life.next_heard {
            life.next_heard = now.uptime + TICK / 2;
            life.replica.touch(&life.worker.take_heard(), now.uptime);
        }
        life.replica.tick(now.uptime);
        self.carry_out(life);
        self.submit(life, now);
        self.carry_out(life);
        if let Some(durable) = life.log.complete(|_| ()).expect("the disk is well") {
            let member = &mut self.members[life.id.member];
            member.durable = member.durable.max(member.count_upto(durable.upto()));
            life.replica.durable(&mut life.log.group, now.uptime, durable);
        }
        self.apply(life, now);
        self.submit(life, now);
        self.carry_out(life);
        self.flush(life);
        self.take_snapshot(life, now);
        self.plan_wake(life);
    }

    fn plan_wake(&mut self, life: &mut Life) {
        let deadlines =
            [life.replica.deadline(), life.replica.next_expiry(), life.log.deadline(), Some(life.next_heard)];
        let deadline = deadlines.into_iter().flatten().min().expect("one at least");
        let at = life.true_time(deadline).max(self.now + Duration::from_micros(10));
        if at < life.wakes_at {
            life.wakes_at = at;
            self.at(at, Event::Wake(life.id));
        }
    }

    fn submit(&mut self, life: &mut Life, now: Now) {
        let before = self.members[life.id.member].platter.in_flight();
        let mut logged: Vec<Entry> = Vec::new();
        let replica = &mut life.replica;
        let submitted = life.log.submit(now.uptime, |batch| {
            logged.extend(batch.entries().map(|(zxid, bytes)| (zxid, fingerprint(&bytes[..]))));
            replica.cut(batch);
        });
        submitted.expect("the disk is well");
        let leads = matches!(life.replica.state(), Some((PeerState::Leading, _)));
        if leads {
            logged.iter().for_each(|entry| self.history.broadcasts(*entry));
        }
        life.records += logged.len();
        if let Some((last, _)) = logged.last() {
            let (count, last) = (logged.len(), *last);
            self.tell(Some(life.id.member), || {
                format!("{} {count} up to {last}", if leads { "proposes" } else { "logs" })
            });
        }
        let member = &mut self.members[life.id.member];
        member.entries.append(&mut logged);
        let submitted = member.platter.in_flight() - before;
        let slow = self.now < member.slow_until;
        for _ in 0..submitted {
            let us = self.random.random_range(30..600) * if slow { self.random.random_range(10..300) } else { 1 };
            self.at(self.now + Duration::from_micros(us), Event::DiskDone(life.id));
        }
        let at = self.within(2_000);
        if submitted > 0 || life.log.is_waiting() {
            self.at(at, Event::Supply(life.id));
        }
    }

    fn apply(&mut self, life: &mut Life, now: Now) {
        let index = life.id.member;
        loop {
            let work = life.replica.has_committed();
            if !work && !life.replica.has_delivery(0) {
                return;
            }
            let mut changes = Vec::new();
            let before = life.tree.read().last_applied();
            life.replica.apply(&mut life.tree.write(), 1, now.uptime, Some(&mut changes));
            let after = life.tree.read().last_applied();
            if after > before {
                self.applied(life, after);
            }
            let changes = (!changes.is_empty()).then(|| changes.into());
            let delivery = life.replica.take_delivery(0, changes.as_ref(), now.uptime);
            self.deliver(life, now, &delivery);
            assert!(self.members[index].applied <= self.members[index].durable, "what is applied is durable");
        }
    }

    /// A transaction is in the tree that a member serves.
    fn applied(&mut self, life: &Life, zxid: Zxid) {
        let index = life.id.member;
        let place = self.members[index].applied;
        let entry = *self.members[index].entries.get(place).expect("what is applied was logged");
        assert!(entry.0 == zxid, "total order: {zxid} is applied, but {} comes next in the log", entry.0);
        let (ensemble, members) = (&self.ensemble, &self.members);
        let durable = |voter: ServerId| members[voter.0 as usize - 1].has_durable(zxid);
        self.history.delivers(place, entry, || ensemble.is_quorum(durable));
        self.members[index].applied += 1;
        self.check_tree(life, zxid);
    }

    fn check_tree(&mut self, life: &Life, after: Zxid) {
        let tree = life.tree.read();
        let data = |path: &str| tree.find(path).map(|id| tree.data(id).map(<[u8]>::to_vec));
        assert!(data(TWINS[0]) == data(TWINS[1]), "R4: half of a multi is in the tree after {after}");
        drop(tree);
        // All of it takes a while: some do for the rest.
        if after.counter().is_multiple_of(16) {
            self.history.has_tree(after, life.tree_fingerprint());
        }
    }

    fn deliver(&mut self, life: &mut Life, now: Now, delivery: &Delivery) {
        let Life { worker, replica, tree, log, .. } = life;
        worker.deliver(now.uptime, delivery);
        worker.retry(&tree.read(), &mut Direct { replica, log: &mut log.group, now }, now.uptime);
    }

    /// What connections have to be sent goes on its way.
    fn flush(&mut self, life: &mut Life) {
        let mut dirty = Vec::new();
        life.worker.take_dirty(&mut dirty);
        for slot in dirty {
            let Some(conn) = life.conns.get(&slot).copied() else { continue };
            let Some((out, closing)) = life.worker.output(slot) else { continue };
            let mut frames = Vec::new();
            let len = out.rest().len();
            let whole = Frames::new(1 << 20).feed(out.rest(), |frame| {
                frames.push(Some(frame.to_vec()));
                ControlFlow::Continue(())
            });
            assert!(whole.is_ok(), "the worker's own frames");
            out.wrote(len);
            life.worker.sent(slot);
            if closing {
                frames.push(None);
                life.worker.close(slot);
                life.conns.remove(&slot);
            }
            let at = self.now + self.network.delay(self.now, &mut self.random);
            if let Some(conn) = self.conns.get_mut(&conn) {
                conn.to_client.extend(frames);
            }
            self.at(at, Event::ToClient(conn));
        }
    }

    /// Sometimes a snapshot is taken, and the log before it let go.
    fn take_snapshot(&mut self, life: &mut Life, now: Now) {
        if life.records < SNAPSHOT_EVERY || life.replica.state().is_none() || self.random.random_ratio(9, 10) {
            return;
        }
        life.records = 0;
        take(&life.snapshots, &life.tree, now.wall_ms, &AtomicBool::new(false)).expect("the disk is well");
        let snapshots = snapshot::list(life.snapshot_dir()).expect("the disk is well");
        let (old, needless) = retain(&snapshots, &[], KEEP);
        old.iter().for_each(|(_, path)| member::remove(path));
        needless.into_iter().for_each(|needless| life.log.release(needless));
        let applied = life.tree.read().last_applied();
        self.tell(Some(life.id.member), || format!("takes a snapshot of {applied}"));
    }

    fn carry_out(&mut self, life: &mut Life) {
        loop {
            let commands = life.replica.take_commands();
            if commands.is_empty() {
                return;
            }
            commands.into_iter().for_each(|command| self.obey(life, command));
        }
    }

    fn obey(&mut self, life: &mut Life, command: Command) {
        let (now, own) = (life.now(self.now), life.id);
        match command {
            Command::Notify(to, said) => {
                self.tell(Some(own.member), || {
                    let (vote, state) = (said.vote, said.state);
                    let Vote { leader, zxid, epoch } = vote;
                    format!("tells server {to}: {state:?} in round {}, for {leader} ({epoch}, {zxid})", said.round)
                });
                if !self.network.loses(self.now, &mut self.random) {
                    let at = self.now + self.network.delay(self.now, &mut self.random);
                    self.at(at, Event::Vote(own.member, to.0 as usize - 1, said));
                }
            }
            Command::Dial(leader) => {
                self.tell(Some(own.member), || format!("seeks server {leader}"));
                let at = self.now + self.network.delay(self.now, &mut self.random);
                self.at(at, Event::Dial(own, leader));
            }
            Command::Listen(open) => {
                life.is_listening = open;
                for (id, side) in self.network.links_of(own) {
                    self.close(id, side, "the other side closed it");
                    life.inbound.remove(&id);
                }
            }
            Command::Send(link, message) => self.send(own, link, Part::Packet(encoded(&message))),
            Command::Snapshot(link, zxid) => {
                if life.replica.state().is_none() {
                    life.replica.catch_up(&mut life.tree.write(), zxid, now.uptime);
                }
                let member = &self.members[own.member];
                let history = Arc::new(member.entries[..member.count_upto(zxid)].to_vec());
                self.counts.snapshots += 1;
                self.tell(Some(own.member), || format!("sends a snapshot of {zxid}"));
                self.send(own, link, Part::Packet(encoded(&Message::about(PacketKind::Snap, zxid))));
                self.send(own, link, Part::Snapshot(Box::new(Snapshot { zxid, history, departure: None })));
            }
            Command::FromLog(link, stretch) => self.send_stretch(life, link, stretch),
            Command::Drop(link, why) => {
                self.tell(Some(own.member), || format!("drops a link: {why}"));
                if let Some(side) = self.network.links.get(&link).map(|link| link.side_of(own)) {
                    self.close(link, side, "the other side dropped it");
                }
                life.inbound.remove(&link);
                life.arrival.take_if(|(from, _)| *from == link);
            }
            Command::Promise(epoch) => {
                self.tell(Some(own.member), || format!("promises epoch {epoch}"));
                life.epochs.promise(epoch).expect("the disk is well");
            }
            Command::TakeOver(epoch) => {
                self.tell(Some(own.member), || format!("takes over epoch {epoch}"));
                life.epochs.take_over(epoch).expect("the disk is well");
                let strikes = self.random.random();
                if let Some((doomed, lasts)) = self.ambush.take_if(|_| strikes) {
                    let us = [400, 1_500, 6_000][self.random.random_range(0..3)];
                    let at = self.within(us);
                    self.at(at, Event::Ambush(doomed, lasts));
                }
            }
            Command::Load(link, zxid) => life.arrival = Some((link, Arrival::new(zxid, 1 << 20, 1))),
            Command::Truncate(upto) => self.truncate(life, upto),
            Command::Serve => {
                life.replica.serve(&mut life.tree.write(), now.uptime);
                let last = life.tree.read().last_applied();
                let member = &mut self.members[own.member];
                member.applied = member.count_upto(last);
                let served = &member.entries[..member.applied];
                let standing = life.replica.standing();
                if matches!(life.replica.state(), Some((PeerState::Leading, _))) {
                    self.history.established(standing.current, served);
                } else {
                    self.history.serves(served);
                }
                if let Some((last, _)) = served.last() {
                    let last = *last;
                    self.history.has_tree(last, life.tree_fingerprint());
                }
            }
        }
    }

    /// A learner is sent what it lacks from the log on the disk, if that is there.
    fn send_stretch(&mut self, life: &Life, link: LinkId, stretch: Stretch) {
        let own = life.id;
        match read_stretch(&life.log_options.dir, stretch) {
            Ok(packets) => {
                self.counts.stretches += 1;
                self.tell(Some(own.member), || format!("sends its log from {} to {}", stretch.have, stretch.upto));
                packets.into_iter().for_each(|packet| self.send(own, link, Part::Packet(packet)));
            }
            Err(why) => self.send(own, link, Part::Unmade(why)),
        }
    }

    fn truncate(&mut self, life: &mut Life, upto: Zxid) {
        let index = life.id.member;
        self.counts.truncations += 1;
        self.tell(Some(index), || format!("cuts its history back to {upto}"));
        let platter = self.members[index].platter.clone();
        while platter.in_flight() > 0 {
            platter.finish(0);
        }
        truncation::truncate(life.snapshot_dir(), &life.log_options, upto).expect("the disk is well");
        let restored = restore(life.snapshot_dir(), &life.log_options.dir, 1, |_| ()).expect("the disk is well");
        let end = restored.recovered.last;
        assert!(end == upto, "what a leader cuts back to is there: {upto}, not {end}");
        *life.tree.write() = restored.tree;
        let member = &mut self.members[index];
        member.reopen_log(life, &restored.recovered);
        member.entries.truncate(member.count_upto(end));
        member.durable = member.entries.len();
        life.replica.truncated(end);
    }

    /// A snapshot has arrived as a whole.
    fn arrived(&mut self, life: &mut Life, link: LinkId, now: Now) {
        let (_, arrival) = life.arrival.take().expect("it has arrived");
        *life.tree.write() = arrival.finish();
        let zxid = life.tree.read().last_applied();
        adoption::adopt(&life.snapshots, &life.log_options.dir, &life.tree, now.wall_ms).expect("the disk is well");
        let recovered = recover_after(&life.log_options.dir, zxid, |_| ()).expect("the disk is well");
        let history = life.coming.remove(&link).expect("a snapshot is of a history");
        let member = &mut self.members[life.id.member];
        member.reopen_log(life, &recovered);
        member.entries = history.to_vec();
        member.durable = member.entries.len();
        self.tell(Some(life.id.member), || format!("has taken the snapshot of {zxid}"));
        life.replica.loaded();
    }

    fn dial(&mut self, id: LifeId, leader: ServerId) {
        let to = leader.0 as usize - 1;
        let heard = self.network.passes(self.now, id.member, to) && self.network.passes(self.now, to, id.member);
        let listens = self.members[to].life.as_ref().is_some_and(|life| life.is_listening);
        let is_awake = self.members[to].paused_until <= self.now;
        let mut link = None;
        if heard && listens && is_awake && self.is_alive(id) {
            let leads = self.members[to].life.as_ref().expect("it listens").id;
            let made = self.network.connect(leads, id);
            link = Some(made);
            self.on_life(to, |world, life| life.replica.accepted(life.now(world.now).uptime, made));
        }
        let at = self.now + self.network.delay(self.now, &mut self.random);
        self.at(at, Event::Dialed(id, leader, link));
    }

    fn send(&mut self, from: LifeId, id: LinkId, part: Part) {
        let Some(link) = self.network.links.get_mut(&id) else { return };
        let side = link.side_of(from);
        let to = side.other();
        if !link.is_open[side as usize] {
            return;
        }
        link.queues[to as usize].push_back(part);
        self.plan_arrival(id, to);
    }

    fn plan_arrival(&mut self, id: LinkId, to: Side) {
        let delay = self.network.delay(self.now, &mut self.random);
        let Some(link) = self.network.links.get_mut(&id) else { return };
        if !std::mem::replace(&mut link.is_planned[to as usize], true) {
            self.at(self.now + delay, Event::Link(id, to));
        }
    }

    /// One end of a link closes it; the other hears of that behind what was sent before.
    fn close(&mut self, id: LinkId, side: Side, why: &'static str) {
        let Some(link) = self.network.links.get_mut(&id) else { return };
        link.is_open[side as usize] = false;
        link.queues[side as usize].clear();
        let other = side.other();
        if link.is_open[other as usize] {
            let queue = &mut link.queues[other as usize];
            // A part of a snapshot that nobody makes any more.
            queue.truncate(queue.iter().position(|part| matches!(part, Part::Snapshot(_))).unwrap_or(queue.len()));
            queue.push_back(Part::End(why));
            self.plan_arrival(id, other);
        } else {
            self.network.links.remove(&id);
        }
    }

    /// Something arrives at one end of a link.
    fn arrive(&mut self, id: LinkId, side: Side) {
        let Some(link) = self.network.links.get_mut(&id) else { return };
        link.is_planned[side as usize] = false;
        let (to, from) = (link.end(side), link.end(side.other()));
        if !self.network.passes(self.now, from.member, to.member) {
            let link = self.network.links.get_mut(&id).expect("looked at just now");
            link.is_planned[side as usize] = true;
            let at = self.within(20_000);
            return self.at(at, Event::Link(id, side));
        }
        let link = &self.network.links[&id];
        if !link.is_open[side as usize] || !self.is_alive(to) {
            return;
        }
        for _ in 0..self.random.random_range(1..6) {
            let link = self.network.links.get_mut(&id).filter(|link| link.is_open[side as usize]);
            let Some(queue) = link.map(|link| &mut link.queues[side as usize]) else { return };
            if let Some(Part::Unmade(why)) = queue.front() {
                let why = why.clone();
                queue.clear();
                self.tell(Some(from.member), || format!("cannot send its log: {why}"));
                if self.is_alive(from) {
                    self.on_life(from.member, |world, life| {
                        life.replica.log_lacks(life.now(world.now).uptime, id);
                    });
                }
                break;
            }
            let Some((bytes, end, history)) = self.next_part(id, side, from) else { break };
            self.on_life(to.member, |world, life| {
                life.coming.extend(history.map(|history| (id, history)));
                life.inbound.entry(id).or_default().extend_from_slice(&bytes);
                let now = life.now(world.now);
                life.replica.progress(now.uptime, id);
                world.hear(life, id, now);
                if let Some(why) = end {
                    life.inbound.remove(&id);
                    life.arrival.take_if(|(from, _)| *from == id);
                    life.replica.lost(now.uptime, id, why);
                }
            });
            if end.is_some() {
                self.close(id, side, "");
                return;
            }
        }
        let is_left = self.network.links.get(&id).is_some_and(|link| !link.queues[side as usize].is_empty());
        if is_left {
            self.plan_arrival(id, side);
        }
    }

    /// The next bytes that arrive, the end, and the history of a snapshot that begins.
    #[expect(clippy::type_complexity, reason = "three things that come together once")]
    fn next_part(
        &mut self,
        id: LinkId,
        side: Side,
        from: LifeId,
    ) -> Option<(Vec<u8>, Option<&'static str>, Option<Arc<Vec<Entry>>>)> {
        let link: &mut Link = self.network.links.get_mut(&id)?;
        let queue = &mut link.queues[side as usize];
        match queue.front_mut()? {
            Part::Packet(_) => match queue.pop_front() {
                Some(Part::Packet(bytes)) => Some((bytes, None, None)),
                _ => unreachable!("just looked at"),
            },
            Part::Unmade(_) => None,
            Part::End(why) => {
                let why = *why;
                queue.clear();
                Some((Vec::new(), Some(why), None))
            }
            Part::Snapshot(snapshot) => {
                // Its maker is gone: what was sent of it has no end.
                let maker = self.members[from.member].life.as_ref().filter(|life| life.id == from)?;
                let tree: &Tree = &maker.tree.read();
                if tree.last_applied() < snapshot.zxid {
                    return None;
                }
                let mut bytes = Vec::new();
                let mut history = None;
                let departure = match &mut snapshot.departure {
                    Some(departure) => departure,
                    none => {
                        history = Some(snapshot.history.clone());
                        none.insert(Departure::new(tree, snapshot.zxid, &mut bytes))
                    }
                };
                if !departure.step(tree, 8, 4096, &mut bytes) {
                    queue.pop_front();
                }
                Some((bytes, None, history))
            }
        }
    }

    /// Takes what has come over a link, packet by packet.
    fn hear(&mut self, life: &mut Life, id: LinkId, now: Now) {
        loop {
            let Some(inbound) = life.inbound.get_mut(&id) else { return };
            if let Some((_, arrival)) = life.arrival.as_mut().filter(|(from, _)| *from == id) {
                let used = arrival.take(inbound).expect("what was sent is a snapshot");
                inbound.advance(used);
                if !arrival.is_complete() {
                    return;
                }
                self.arrived(life, id, now);
                continue;
            }
            let (message, used) = match Packet::parse(inbound, 1 << 20).expect("what was sent is a packet") {
                Parsed::Short => return,
                Parsed::Whole(Packet { kind, zxid, data, .. }, used) => {
                    (Message { kind, zxid, data: data.map(|data| data.to_vec().into()) }, used)
                }
            };
            inbound.advance(used);
            if message.kind == PacketKind::AckEpoch {
                let reach = life.log.reach(1 << 20);
                life.replica.log_reaches(reach);
            }
            life.replica.hear(&life.tree.read(), &mut life.log.group, now, id, message);
            self.carry_out(life);
        }
    }

    fn client(&mut self, index: usize) {
        let at = self.now + Duration::from_micros(self.random.random_range(100..8_000));
        self.at(at, Event::Client(index));
        let (client, conn, heard) = &mut self.clients[index];
        match (client.phase, *conn) {
            (Phase::Away, None) => {
                let Some(member) = self.members.iter().filter(|member| member.life.is_some()).choose(&mut self.random)
                else {
                    return;
                };
                let server = member.life.as_ref().expect("it lives").id;
                self.next_conn += 1;
                let (id, frame) = (self.next_conn, client.connect());
                (*conn, *heard) = (Some(id), self.now);
                let (to_server, to_client) = (VecDeque::from([Some(frame)]), VecDeque::new());
                self.conns.insert(id, Conn { client: index, server, slot: None, to_server, to_client });
                self.send_to_server(id);
            }
            (_, Some(id)) => {
                let (patience, moves) = self.patience;
                let tired = client.waits() && self.now.saturating_sub(*heard) > patience;
                if tired || self.random.random_ratio(1, moves) {
                    client.disconnected();
                    *conn = None;
                    if let Some(conn) = self.conns.get_mut(&id) {
                        conn.to_server.push_back(None);
                        conn.to_client.clear();
                    }
                    return self.send_to_server(id);
                }
                let waited = client.waits();
                if let Some(frame) = client.ask() {
                    if !waited {
                        *heard = self.now;
                    }
                    if let Some(conn) = self.conns.get_mut(&id) {
                        conn.to_server.push_back(Some(frame));
                    }
                    self.send_to_server(id);
                }
            }
            (phase, None) => unreachable!("{phase:?} without a connection"),
        }
    }

    fn send_to_server(&mut self, id: u64) {
        let at = self.now + self.network.delay(self.now, &mut self.random);
        self.at(at, Event::ToServer(id));
    }

    fn to_server(&mut self, id: u64) {
        let Some(conn) = self.conns.get_mut(&id) else { return };
        let server = conn.server;
        if !self.is_alive(server) {
            return self.lose_conn(id);
        }
        let frames: Vec<_> = self.conns.get_mut(&id).expect("looked at just now").to_server.drain(..).collect();
        self.on_life(server.member, |world, life| {
            let conn = world.conns.get_mut(&id).expect("looked at just now");
            let slot = *conn.slot.get_or_insert_with(|| {
                let slot = life.worker.open().slot;
                life.conns.insert(slot, id);
                slot
            });
            for frame in frames {
                let now = life.now(world.now);
                let Life { worker, replica, tree, log, conns, .. } = life;
                if conns.get(&slot) != Some(&id) {
                    return;
                }
                match frame {
                    Some(frame) => {
                        let mut direct = Direct { replica, log: &mut log.group, now };
                        // It asks for so little that it never has to wait.
                        let _ = worker.frame(&tree.read(), &mut direct, now.uptime, slot, &frame);
                    }
                    None => {
                        worker.close(slot);
                        conns.remove(&slot);
                    }
                }
            }
        });
    }

    fn to_client(&mut self, id: u64) {
        let Some(conn) = self.conns.get_mut(&id) else { return };
        let index = conn.client;
        let frames: Vec<_> = conn.to_client.drain(..).collect();
        for frame in frames {
            let (client, own, heard) = &mut self.clients[index];
            if *own != Some(id) {
                return;
            }
            *heard = self.now;
            match frame {
                Some(frame) => {
                    let said = client.hear(&frame);
                    let gone = client.phase == Phase::Away;
                    if gone {
                        *own = None;
                    }
                    if let Some(said) = said {
                        self.tell(None, || format!("client {} {said}", index + 1));
                    }
                }
                None => self.lose_conn(id),
            }
        }
    }

    /// The client hears that its connection is gone.
    fn lose_conn(&mut self, id: u64) {
        let Some(conn) = self.conns.remove(&id) else { return };
        let (client, own, _) = &mut self.clients[conn.client];
        if *own == Some(id) {
            client.disconnected();
            *own = None;
        }
    }

    fn befall(&mut self, index: usize) {
        if self.is_peace {
            return;
        }
        let Fault { number, kind, lasts, .. } = self.plan.faults[index].clone();
        self.counts.faults += 1;
        self.tell(None, || format!("fault {number}: {kind}, for {} ms", lasts.as_millis()));
        let until = self.now + lasts;
        match kind {
            Kind::Death(member) => self.die(member, false, until),
            Kind::PowerLoss(member) => self.die(member, true, until),
            Kind::Blackout => {
                for member in 0..self.members.len() {
                    let back = until + Duration::from_micros(self.random.random_range(0..100_000));
                    self.die(member, true, back);
                }
            }
            Kind::Pause(member) => self.members[member].paused_until = until,
            Kind::Partition(sides) => self.network.divide(sides, until),
            Kind::OneWay(from, to) if from != to => self.network.block(from, to, until),
            Kind::OneWay(..) => {}
            Kind::Break(which) => {
                let ids: Vec<LinkId> = self.network.links.keys().copied().collect();
                if !ids.is_empty() {
                    self.break_link(ids[which as usize % ids.len()]);
                }
            }
            Kind::SlowDisk(member) => self.members[member].slow_until = until,
            Kind::SlowNetwork => self.network.slow_down(until),
            Kind::Ambush(doomed) => self.ambush = Some((doomed, lasts)),
        }
    }

    /// A link breaks: some of what was on its way still arrives.
    fn break_link(&mut self, id: LinkId) {
        for side in [Side::Leader, Side::Learner] {
            let Some(link) = self.network.links.get_mut(&id) else { return };
            let queue = &mut link.queues[side as usize];
            queue.truncate(self.random.random_range(0..=queue.len()));
            queue.push_back(Part::End("it broke"));
            self.plan_arrival(id, side);
        }
    }

    fn die(&mut self, index: usize, power: bool, back: Duration) {
        let Some(life) = &self.members[index].life else { return };
        let id = life.id;
        self.counts.deaths += 1;
        for (link, side) in self.network.links_of(id) {
            let other = side.other();
            let queue = &mut self.network.links.get_mut(&link).expect("it has an end here").queues[other as usize];
            queue.truncate(self.random.random_range(0..=queue.len()));
            self.close(link, side, "the other side died");
        }
        let conns: Vec<u64> = self.conns.iter().filter(|(_, conn)| conn.server == id).map(|(id, _)| *id).collect();
        conns.into_iter().for_each(|conn| self.lose_conn(conn));
        let member = &mut self.members[index];
        member.end(power);
        member.paused_until = Duration::ZERO;
        self.at(back, Event::Start(index));
    }

    fn make_peace(&mut self) {
        self.tell(None, || "peace".to_owned());
        self.is_peace = true;
        self.patience = (CLIENT_PATIENCE, 4000);
        self.network.heal();
        for member in &mut self.members {
            (member.paused_until, member.slow_until) = (Duration::ZERO, Duration::ZERO);
        }
        for index in 0..self.members.len() {
            self.at(self.now, Event::Start(index));
        }
        // What they ask for must be answered; they begin to retire when all members serve.
        self.clients.iter_mut().for_each(|(client, ..)| client.retires = true);
    }

    /// Everybody serves everything, and nobody waits.
    fn is_settled(&self) -> bool {
        let committed = self.history.committed.len();
        let serves = |member: &Member| {
            let serves = member.life.as_ref().is_some_and(|life| life.replica.state().is_some());
            serves && member.applied == committed && member.entries.len() == committed
        };
        let idle = |(client, ..): &(Client, Option<u64>, Duration)| client.is_idle();
        self.members.iter().all(serves) && self.clients.iter().all(idle)
    }

    fn check_end(&mut self) {
        for member in &self.members {
            let life = member.life.as_ref().expect("it serves");
            let last = self.history.committed.last().map_or(Zxid::ZERO, |(zxid, _)| *zxid);
            self.history.has_tree(last, life.tree_fingerprint());
            let tree = life.tree.read();
            for promise in self.clients.iter().flat_map(|(client, ..)| &client.promises) {
                let number = tree.find(&promise.path).map_or(0, |id| client::own_number(tree.data(id)));
                let fine = (promise.acknowledged..=promise.tried).contains(&number);
                assert!(fine, "R5: server {}: {promise:?}, but it is {number}", member.id);
            }
            for (session, _) in tree.sessions() {
                assert!(session.is_session(), "a session has an id");
            }
            tree.walk(0, usize::MAX, |path, image| {
                let lives = !image.owner.is_session() || tree.sessions().contains_key(&image.owner);
                assert!(lives, "server {}: {path} outlives its session {}", member.id, image.owner);
                true
            });
        }
    }
}

/// The packets that bring a learner up to where the leader's memory goes on.
fn read_stretch(dir: &Path, stretch: Stretch) -> Result<Vec<Vec<u8>>, String> {
    let mut excerpt = Excerpt::open(dir, stretch.have).map_err(|error| error.to_string())?;
    let mut walk = Walk::new(stretch, excerpt.last());
    let mut packets = Vec::new();
    while !walk.is_complete() {
        let mut went = Ok(());
        let more = excerpt.next_batch(|record| {
            let zxid = record.entry.header.zxid;
            match went.is_ok().then(|| walk.next(zxid)) {
                Some(Ok(step)) => {
                    packets.extend(step.first.as_ref().map(encoded));
                    if step.send {
                        packets.push(encoded(&Message::with(PacketKind::Proposal, zxid, record.bytes.to_vec())));
                        packets.push(encoded(&Message::about(PacketKind::Commit, zxid)));
                    }
                }
                Some(Err(why)) => went = Err(why),
                None => {}
            }
        });
        went?;
        if !more.map_err(|error| error.to_string())? {
            break;
        }
    }
    packets.extend(walk.end()?.as_ref().map(encoded));
    Ok(packets)
}

/// The way from the worker to the replica, on one core.
struct Direct<'a> {
    replica: &'a mut Replica,
    log: &'a mut corral_engine::txnlog::Group,
    now: Now,
}

impl Port for Direct<'_> {
    fn write(&mut self, tree: &Tree, request: &WriteRequest<'_>) -> bool {
        self.replica.request(tree, self.log, self.now, request);
        true
    }

    fn open_session(&mut self, tree: &Tree, conn: ConnId, timeout_ms: i32) -> bool {
        self.replica.open_session(tree, self.log, self.now, conn, timeout_ms);
        true
    }

    fn renew_session(&mut self, conn: ConnId, id: SessionId, password: &[u8], timeout_ms: i32) -> bool {
        self.replica.renew_session(self.now, conn, id, password, timeout_ms);
        true
    }
}
