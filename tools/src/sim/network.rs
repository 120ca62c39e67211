//! The simulated network: links between learners and their leader, votes, connections of clients.
//!
//! A link is two queues of bytes in the real encoding, each of which keeps its order, takes its time, and stands still while its ends
//! do not hear each other. When one end closes, the other hears of it behind what was sent before; when one end dies, behind some
//! of that, unless they do not hear each other: then only a time-out helps.
//!
//! **Not here**: when anything arrives ([`super::world`]), what it means.

use super::history::Entry;
use corral_proto::Jute;
use corral_proto::peer::packet::Ids;
use corral_proto::peer::{Packet, PacketKind};
use corral_server::transfer::Departure;
use corral_server::zab::leadership::LinkId;
use corral_server::zab::message::Message;
use rand::Rng;
use rand::rngs::SmallRng;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

/// One life of a member.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct LifeId {
    /// Which member.
    pub(super) member: usize,
    /// The how-manieth life.
    pub(super) number: u64,
}

/// The end of a link at the leader, or at the learner.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Side {
    Leader,
    Learner,
}

impl Side {
    pub(super) fn other(self) -> Side {
        match self {
            Side::Leader => Side::Learner,
            Side::Learner => Side::Leader,
        }
    }
}

/// Something on its way.
pub(super) enum Part {
    /// A packet.
    Packet(Vec<u8>),
    /// A snapshot that is made while it is sent, of this history.
    Snapshot(Box<Snapshot>),
    /// What was to be read from the log is not there.
    Unmade(String),
    /// The other end has closed.
    End(&'static str),
}

/// A snapshot on its way.
pub(super) struct Snapshot {
    pub(super) zxid: corral_proto::Zxid,
    pub(super) history: Arc<Vec<Entry>>,
    pub(super) departure: Option<Departure>,
}

/// A link.
pub(super) struct Link {
    pub(super) leader: LifeId,
    pub(super) learner: LifeId,
    /// Whether each end still has it.
    pub(super) is_open: [bool; 2],
    /// What is on its way to each end.
    pub(super) queues: [VecDeque<Part>; 2],
    /// Whether an arrival at each end is planned.
    pub(super) is_planned: [bool; 2],
}

impl Link {
    pub(super) fn end(&self, side: Side) -> LifeId {
        match side {
            Side::Leader => self.leader,
            Side::Learner => self.learner,
        }
    }

    /// Which end a life has.
    pub(super) fn side_of(&self, life: LifeId) -> Side {
        if self.leader == life { Side::Leader } else { Side::Learner }
    }
}

/// Who hears whom, and what is on its way.
#[derive(Default)]
pub(super) struct Network {
    pub(super) links: BTreeMap<LinkId, Link>,
    next_link: u64,
    /// Divisions in force, each until a moment.
    partitions: Vec<(Vec<bool>, Duration)>,
    one_ways: Vec<(usize, usize, Duration)>,
    slow_until: Duration,
}

impl Network {
    pub(super) fn divide(&mut self, sides: Vec<bool>, until: Duration) {
        self.partitions.push((sides, until));
    }

    pub(super) fn block(&mut self, from: usize, to: usize, until: Duration) {
        self.one_ways.push((from, to, until));
    }

    pub(super) fn slow_down(&mut self, until: Duration) {
        self.slow_until = self.slow_until.max(until);
    }

    /// Everybody hears everybody.
    pub(super) fn heal(&mut self) {
        (self.partitions, self.one_ways, self.slow_until) = (Vec::new(), Vec::new(), Duration::ZERO);
    }

    /// Whether what is sent from one member to another arrives now.
    pub(super) fn passes(&mut self, now: Duration, from: usize, to: usize) -> bool {
        self.partitions.retain(|(_, until)| *until > now);
        self.one_ways.retain(|(_, _, until)| *until > now);
        self.partitions.iter().all(|(sides, _)| sides[from] == sides[to])
            && !self.one_ways.iter().any(|(a, b, _)| (*a, *b) == (from, to))
    }

    /// How long something takes from one member to another.
    pub(super) fn delay(&self, now: Duration, random: &mut SmallRng) -> Duration {
        let us = match random.random_range(0..40) {
            0 => random.random_range(500..20_000),
            _ => random.random_range(20..400),
        };
        Duration::from_micros(if now < self.slow_until { us * random.random_range(1..200) } else { us })
    }

    /// Whether a vote is lost on the way.
    pub(super) fn loses(&self, now: Duration, random: &mut SmallRng) -> bool {
        now < self.slow_until && random.random_ratio(1, 4)
    }

    pub(super) fn connect(&mut self, leader: LifeId, learner: LifeId) -> LinkId {
        self.next_link += 1;
        let id = LinkId(self.next_link);
        let link = Link { leader, learner, is_open: [true; 2], queues: Default::default(), is_planned: [false; 2] };
        self.links.insert(id, link);
        id
    }

    /// The links that a life has an end of, and which.
    pub(super) fn links_of(&self, life: LifeId) -> Vec<(LinkId, Side)> {
        let of = |link: &Link| {
            let has = |side: Side| link.end(side) == life && link.is_open[side as usize];
            [Side::Leader, Side::Learner].into_iter().find(|side| has(*side))
        };
        self.links.iter().filter_map(|(id, link)| of(link).map(|side| (*id, side))).collect()
    }
}

/// A packet as it is on the wire.
pub(super) fn encoded(message: &Message) -> Vec<u8> {
    let auth = (message.kind == PacketKind::Request).then_some(Ids::EMPTY);
    Packet { kind: message.kind, zxid: message.zxid, data: message.data.as_deref(), auth }.to_vec()
}
