//! The simulated world: members, network and clients on one time line, and every step checked.
//!
//! Everything that happens is an [`Event`] at a moment; each step takes the next one. What a member does then is a turn of one of its
//! cores, by the machine of production (`corral_server::machine`); what that sends, writes or waits for becomes events again, at moments
//! drawn from the run's seed.
//!
//! `steps` is what a turn needs done, `links` what goes between members, `crowd` what goes between them and clients, `faults` what
//! befalls them all.
//!
//! **Invariant**: the same plan gives the same events.
//!
//! **Not here**: what is checked (`history`, `client`), the machines themselves.

mod crowd;
mod faults;
mod links;
mod steps;

use super::client::{Client, TWINS};
use super::history::History;
use super::journal;
use super::member::{Life, Member};
use super::network::{LifeId, Network, Pipe, Side, WireId};
use super::plan::Plan;
use corral_engine::Tree;
use corral_net::frame::Frames;
use corral_proto::peer::{Notification, PeerState};
use corral_proto::{ServerId, Zxid};
use corral_server::consensus::Ensemble;
use corral_server::consensus::ensemble::Voter;
use corral_server::consensus::leadership::LinkId;
use corral_server::machine::Heard;
use corral_server::replica::Now;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use std::collections::{BTreeMap, VecDeque};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use steps::Cause;

/// After the faults everybody must serve again within so much time.
const PEACE: Duration = Duration::from_secs(60);

/// A voter like the others.
const EQUAL: Voter = Voter { weight: 1, group: None };

/// Mostly they are equal; in some runs they are in groups, and may have weights there.
fn voters(count: i64, random: &mut SmallRng) -> Vec<(ServerId, Voter)> {
    let has_groups = count >= 3 && random.random_ratio(1, 8);
    let has_weights = has_groups && random.random_ratio(1, 2);
    let voter = |id: i64| {
        let weight = if has_weights { random.random_range(0..4) } else { 1 };
        Voter { weight: weight.max(u32::from(id == 1)), group: has_groups.then_some((id % 3) as u32) }
    };
    (1..=count).map(ServerId).zip((1..=count).map(voter)).collect()
}

/// Something that happens.
enum Event {
    Start(usize),
    /// A core was rung for, or has more to do.
    Turn(LifeId, usize),
    /// A core wants to be woken at this time.
    Wake(LifeId, usize),
    DiskDone(LifeId),
    Supply(LifeId),
    Snapshot(LifeId),
    Transfer(LifeId, u64),
    Vote(usize, usize, Notification<'static>),
    Dial(LifeId, ServerId),
    Dialed(LifeId, ServerId, Option<Pipe>),
    Wire(WireId, Side),
    Client(usize),
    ToServer(u64),
    ToClient(u64),
    Fault(usize),
    /// There is room on a member's disk again.
    Room(usize),
    /// The power of these fails, for so long at most.
    Ambush(Vec<bool>, Duration),
}

/// A client's connection.
struct Conn {
    client: usize,
    server: LifeId,
    /// The core that has it, and where.
    core: usize,
    slot: Option<u32>,
    /// Requests, and the end: on their way, and arrived but not read.
    to_server: VecDeque<Option<Vec<u8>>>,
    unread: VecDeque<Option<Vec<u8>>>,
    /// Puts together what the server has written.
    frames: Frames,
    to_client: VecDeque<Option<Vec<u8>>>,
    /// Bytes that may be on their way to the client.
    room: usize,
    /// The server has more to send than there was room for.
    is_choked: bool,
    /// Its client does not read until then.
    dozes_until: Duration,
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
    /// Logs in which a bit has flipped.
    pub rots: u64,
    /// Faults of the plan that happened.
    pub faults: u64,
    /// The longest time from one commit to the next.
    pub silence: Duration,
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
    last_commit: Duration,
    history: History,
    pub(super) counts: Counts,
    /// Voters are not equal.
    is_weighted: bool,
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
        let all = (size.servers + size.observers) as i64;
        let voters = voters(size.servers as i64, &mut random);
        let is_weighted = voters.iter().any(|(_, voter)| *voter != EQUAL);
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
            last_commit: Duration::ZERO,
            history: History::default(),
            counts: Counts::default(),
            is_weighted,
            is_peace: false,
            ambush: None,
            patience,
        };
        for index in 0..world.members.len() {
            // Some are added when the others have a history.
            let late = if index > 0 && world.random.random_ratio(1, 6) { 800_000 } else { 30_000 };
            let at = world.within(late);
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
        self.members[life.member].life.as_ref().is_some_and(|own| own.shell.id == life)
    }

    fn step(&mut self) {
        let ((at, _), event) = self.events.pop_first().expect("clients never rest");
        self.now = at;
        self.counts.steps += 1;
        journal::step(self.counts.steps);
        let member = match &event {
            Event::Turn(life, _)
            | Event::Wake(life, _)
            | Event::DiskDone(life)
            | Event::Supply(life)
            | Event::Snapshot(life)
            | Event::Transfer(life, _)
            | Event::Dialed(life, ..) => Some(life.member),
            Event::Vote(_, to, _) => Some(*to),
            Event::Wire(id, side) => self.network.wires.borrow().get(*id).map(|wire| wire.end(*side).member),
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
            Event::Turn(id, core) if self.is_alive(id) => self.on_core(id.member, core, Cause::Bell, |_, _, _| ()),
            Event::Wake(id, core) if self.is_alive(id) => {
                self.on_core(id.member, core, Cause::Timer, |_, _, shell| shell.wakes_at[core] = Duration::MAX);
            }
            Event::DiskDone(id) if self.is_alive(id) => {
                let platter = &self.members[id.member].platter;
                if platter.in_flight() > 0 {
                    let which = self.random.random_range(0..platter.in_flight());
                    platter.finish(which);
                    self.on_core(id.member, 0, Cause::Event, |_, _, _| ());
                }
            }
            Event::Supply(id) if self.is_alive(id) => self.supply(id),
            Event::Snapshot(id) if self.is_alive(id) => self.take_snapshot(id),
            Event::Transfer(id, number) if self.is_alive(id) => self.transfer(id, number),
            Event::Vote(from, to, said)
                if self.members[to].life.is_some() && self.network.passes(self.now, from, to) =>
            {
                let from = self.members[from].id;
                self.on_core(to, 0, Cause::Event, |_, _, shell| shell.heard.push_back(Heard::Vote(from, said)));
            }
            Event::Dial(id, leader) => self.dial(id, leader),
            Event::Dialed(id, leader, made) if self.is_alive(id) => self.dialed(id, leader, made),
            Event::Wire(id, side) => self.arrive(id, side),
            Event::Client(index) => self.client(index),
            Event::ToServer(conn) => self.arrive_at_server(conn),
            Event::ToClient(conn) => self.arrive_at_client(conn),
            Event::Fault(index) => self.befall(index),
            Event::Room(index) => self.members[index].platter.set_room(u64::MAX),
            Event::Ambush(doomed, lasts) if !self.is_peace => {
                for member in (0..doomed.len()).filter(|member| doomed[*member]) {
                    let back = self.within(lasts.as_micros() as u64);
                    self.die(member, true, back);
                }
            }
            _ => {}
        }
    }

    fn start(&mut self, index: usize) {
        if self.members[index].life.is_some() {
            return;
        }
        if !self.members[index].can_begin() {
            let at = self.within(100_000);
            return self.at(at, Event::Start(index));
        }
        let ensemble = self.ensemble.clone();
        self.members[index].begin(self.now, ensemble);
        let (count, durable) = (self.members[index].entries.len(), self.members[index].durable);
        self.tell(Some(index), || format!("starts with {count} transactions ({durable} durable)"));
        for core in 0..self.members[index].life.as_ref().expect("it has begun").cores.len() {
            self.on_core(index, core, Cause::Event, |_, _, _| ());
        }
    }

    fn tell_role(&mut self, life: &mut Life) {
        let is = match life.replica().state() {
            None => "does not serve",
            Some((PeerState::Leading, _)) => "leads",
            Some((PeerState::Observing, _)) => "observes",
            Some(_) => "follows",
        };
        if life.shell.was != is {
            life.shell.was = is;
            let standing = life.replica().standing();
            self.tell(Some(life.shell.id.member), || format!("{is}: epoch {}, {}", standing.current, standing.last));
        }
    }
}
