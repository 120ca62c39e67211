//! The simulated network: streams between learners and their leader, who hears whom, and how long anything takes.
//!
//! A wire has two ends, which members read and write like a socket. Each direction is bytes on their way and bytes that have arrived;
//! it takes only so many at a time, keeps its order, takes its time, and stands still while its ends do not hear each other. When one
//! end closes, the other reads that behind what was sent before; when one end dies, behind some of that, unless they do not hear
//! each other: then only a time-out helps.
//!
//! **Not here**: when anything arrives ([`super::world`]), what it means.

use super::history::Entry;
use corral_server::consensus::leadership::LinkId;
use rand::Rng;
use rand::rngs::SmallRng;
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io::{self, ErrorKind, Read, Write};
use std::rc::Rc;
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

/// The end of a wire at the leader, or at the learner.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Side {
    Leader,
    Learner,
}

impl Side {
    pub(super) const BOTH: [Side; 2] = [Side::Leader, Side::Learner];

    pub(super) fn other(self) -> Side {
        match self {
            Side::Leader => Side::Learner,
            Side::Learner => Side::Leader,
        }
    }
}

/// Which wire.
pub(super) type WireId = u64;

/// What is on its way to one end.
struct Lane {
    sent: VecDeque<u8>,
    arrived: VecDeque<u8>,
    /// Bytes that it takes at a time.
    room: usize,
    /// The other end was told that there is no room.
    is_full: bool,
    /// The other end has closed, or died; whether that has arrived.
    is_closed: bool,
    has_end: bool,
    /// An arrival is planned.
    is_planned: bool,
}

/// A wire.
pub(super) struct Wire {
    ends: [LifeId; 2],
    /// What each end calls it.
    links: [Option<LinkId>; 2],
    is_open: [bool; 2],
    lanes: [Lane; 2],
    /// What the snapshot that was sent over it holds.
    pub(super) snapshot: Option<Arc<Vec<Entry>>>,
}

impl Wire {
    pub(super) fn end(&self, side: Side) -> LifeId {
        self.ends[side as usize]
    }

    pub(super) fn link(&self, side: Side) -> Option<LinkId> {
        self.links[side as usize]
    }

    fn lane(&mut self, side: Side) -> &mut Lane {
        &mut self.lanes[side as usize]
    }
}

/// All wires.
#[derive(Default)]
pub(super) struct Wires {
    wires: BTreeMap<WireId, Wire>,
    next: WireId,
    /// Ends for which something is on its way, or that may write again.
    touched: BTreeSet<(WireId, Side)>,
}

/// What an arrival brought to an end.
pub(super) struct Arrived {
    /// Something to read.
    pub(super) is_readable: bool,
    /// The other end sends no more.
    pub(super) is_closed: bool,
}

impl Wires {
    pub(super) fn connect(this: &Rc<RefCell<Wires>>, leader: LifeId, learner: LifeId, rooms: [usize; 2]) -> [Pipe; 2] {
        let mut wires = this.borrow_mut();
        wires.next += 1;
        let id = wires.next;
        let lane = |room| Lane {
            sent: VecDeque::new(),
            arrived: VecDeque::new(),
            room,
            is_full: false,
            is_closed: false,
            has_end: false,
            is_planned: false,
        };
        let wire = Wire {
            ends: [leader, learner],
            links: [None; 2],
            is_open: [true; 2],
            lanes: rooms.map(lane),
            snapshot: None,
        };
        wires.wires.insert(id, wire);
        Side::BOTH.map(|side| Pipe { wires: this.clone(), id, side })
    }

    pub(super) fn get(&self, id: WireId) -> Option<&Wire> {
        self.wires.get(&id)
    }

    /// Which wire a life calls so.
    pub(super) fn find(&mut self, life: LifeId, link: LinkId) -> Option<&mut Wire> {
        let is_it = |wire: &&mut Wire| {
            Side::BOTH.into_iter().any(|side| wire.end(side) == life && wire.link(side) == Some(link))
        };
        self.wires.values_mut().find(is_it)
    }

    pub(super) fn ids(&self) -> Vec<WireId> {
        self.wires.keys().copied().collect()
    }

    /// Ends that have something to hear of and no arrival planned. One is planned for each from now on.
    pub(super) fn take_touched(&mut self) -> Vec<(WireId, Side)> {
        let touched = std::mem::take(&mut self.touched);
        let mut planned = Vec::new();
        for (id, side) in touched {
            let Some(wire) = self.wires.get_mut(&id) else { continue };
            if wire.is_open[side as usize] && !std::mem::replace(&mut wire.lane(side).is_planned, true) {
                planned.push((id, side));
            }
        }
        planned
    }

    /// Up to `most` bytes arrive at an end.
    pub(super) fn arrive(&mut self, id: WireId, side: Side, most: usize) -> Option<Arrived> {
        let wire = self.wires.get_mut(&id)?;
        let lane = wire.lane(side);
        lane.is_planned = false;
        let count = lane.sent.len().min(most);
        lane.arrived.extend(lane.sent.drain(..count));
        let has_more = !lane.sent.is_empty();
        lane.has_end |= lane.is_closed && !has_more;
        let (is_readable, is_closed) = (!lane.arrived.is_empty(), lane.has_end);
        if has_more {
            self.touched.insert((id, side));
        }
        Some(Arrived { is_readable, is_closed })
    }

    /// It stands still: the arrival is tried again later.
    pub(super) fn wait(&mut self, id: WireId, side: Side) {
        if let Some(wire) = self.wires.get_mut(&id) {
            wire.lane(side).is_planned = true;
        }
    }

    /// Some of what was on its way is lost, and then there is no more.
    pub(super) fn cut(&mut self, id: WireId, to: Side, random: &mut SmallRng) {
        let Some(wire) = self.wires.get_mut(&id) else { return };
        let lane = wire.lane(to);
        lane.sent.truncate(random.random_range(0..=lane.sent.len()));
        lane.is_closed = true;
        self.touched.insert((id, to));
    }

    /// The wires that a life has an end of, and which.
    pub(super) fn of(&self, life: LifeId) -> Vec<(WireId, Side)> {
        let of = |wire: &Wire| Side::BOTH.into_iter().find(|side| wire.end(*side) == life);
        self.wires.iter().filter_map(|(id, wire)| of(wire).map(|side| (*id, side))).collect()
    }

    fn close(&mut self, id: WireId, side: Side) {
        let Some(wire) = self.wires.get_mut(&id) else { return };
        wire.is_open[side as usize] = false;
        if wire.is_open[side.other() as usize] {
            wire.lane(side.other()).is_closed = true;
            self.touched.insert((id, side.other()));
        } else {
            self.wires.remove(&id);
        }
    }
}

/// One end of a wire, as the member that has it reads and writes it.
pub(super) struct Pipe {
    wires: Rc<RefCell<Wires>>,
    id: WireId,
    side: Side,
}

impl Pipe {
    /// What its member calls it.
    pub(super) fn is_called(&mut self, link: LinkId) {
        if let Some(wire) = self.wires.borrow_mut().wires.get_mut(&self.id) {
            wire.links[self.side as usize] = Some(link);
        }
    }
}

impl Read for Pipe {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let wires = &mut *self.wires.borrow_mut();
        let lane = wires.wires.get_mut(&self.id).expect("this end is open").lane(self.side);
        let count = lane.arrived.read(into)?;
        if count == 0 && !lane.has_end {
            return Err(ErrorKind::WouldBlock.into());
        }
        if std::mem::take(&mut lane.is_full) {
            wires.touched.insert((self.id, self.side.other()));
        }
        Ok(count)
    }
}

impl Write for Pipe {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let wires = &mut *self.wires.borrow_mut();
        let wire = wires.wires.get_mut(&self.id).expect("this end is open");
        if wire.lane(self.side).has_end {
            return Err(ErrorKind::BrokenPipe.into());
        }
        let to = self.side.other();
        let is_open = wire.is_open[to as usize];
        let lane = wire.lane(to);
        if !is_open || lane.is_closed {
            // Nobody will read it, and that is not known here yet.
            return Ok(bytes.len());
        }
        let count = lane.room.saturating_sub(lane.sent.len() + lane.arrived.len()).min(bytes.len());
        if count == 0 {
            lane.is_full = true;
            return Err(ErrorKind::WouldBlock.into());
        }
        lane.sent.extend(&bytes[..count]);
        wires.touched.insert((self.id, to));
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Pipe {
    fn drop(&mut self) {
        self.wires.borrow_mut().close(self.id, self.side);
    }
}

/// Who hears whom, and what is on its way.
#[derive(Default)]
pub(super) struct Network {
    pub(super) wires: Rc<RefCell<Wires>>,
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

    /// A connection from a learner to its leader.
    pub(super) fn connect(&mut self, leader: LifeId, learner: LifeId, random: &mut SmallRng) -> [Pipe; 2] {
        let room = || [2 << 10, 16 << 10, 256 << 10][random.random_range(0..3)];
        let rooms = std::array::from_fn({
            let mut room = room;
            move |_| room()
        });
        Wires::connect(&self.wires, leader, learner, rooms)
    }
}
