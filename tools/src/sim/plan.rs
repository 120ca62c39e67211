//! What a run is: its size, and the faults that befall it, all drawn from a seed before it begins.
//!
//! Faults are chosen so that the ensemble *must* survive them: processes that die, power that fails (one member's, or all at once,
//! with any part of what was not synced gone), processes that stand still, sides that do not hear each other, packets that pass one
//! way only, links that break, disks and networks that are slow, power that fails just when an epoch
//! begins, bits that flip in a log. Clocks of members run at different speeds all the time. What is not
//! among them: a disk that loses what it has synced, bits that flip in two logs at the same time or in the last words of one (which
//! nobody can tell from a torn tail), and bytes that change on the wire.
//!
//! **Invariant**: a plan and the program are all that a run depends on.
//!
//! **Not here**: carrying them out ([`super::world`]).

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use std::fmt;
use std::time::Duration;

/// The size of a run, as it was asked for.
#[derive(Clone, Copy, Debug)]
pub struct Size {
    /// Members that vote.
    pub servers: usize,
    /// Members that do not.
    pub observers: usize,
    /// Clients.
    pub clients: usize,
    /// Steps until the faults end.
    pub steps: u64,
}

/// A run.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Where everything is drawn from.
    pub seed: u64,
    /// How large it is.
    pub size: Size,
    /// What happens, in the order of time.
    pub faults: Vec<Fault>,
}

/// Something that happens.
#[derive(Clone, Debug)]
pub struct Fault {
    /// What it is called among the faults of its seed.
    pub number: usize,
    /// When, since the beginning.
    pub at: Duration,
    /// What.
    pub kind: Kind,
    /// For how long.
    pub lasts: Duration,
}

/// Kinds of faults. Members are numbered from 0.
#[derive(Clone, Debug)]
pub enum Kind {
    /// A process dies, and comes again.
    Death(usize),
    /// The power of a member fails, and comes again.
    PowerLoss(usize),
    /// The power of all members fails at once.
    Blackout,
    /// A process stands still.
    Pause(usize),
    /// Members on the two sides do not hear each other.
    Partition(Vec<bool>),
    /// Nothing passes from the first to the second.
    OneWay(usize, usize),
    /// One of the links breaks.
    Break(u32),
    /// Writes of a member take long.
    SlowDisk(usize),
    /// A member's disk takes nothing.
    HungDisk(usize),
    /// There is no room on a member's disk for another file.
    FullDisk(usize),
    /// Everything on the network takes long, and votes get lost.
    SlowNetwork,
    /// A process dies, and a bit flips in its log: if there are enough others, and none of them has lost its history just then.
    BitRot(usize),
    /// The power of some members fails a moment after the next epoch is taken over.
    Ambush(Vec<bool>),
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Kind::Death(member) => write!(f, "server {} dies", member + 1),
            Kind::PowerLoss(member) => write!(f, "the power of server {} fails", member + 1),
            Kind::Blackout => f.write_str("the power of all fails"),
            Kind::Pause(member) => write!(f, "server {} stands still", member + 1),
            Kind::Partition(sides) => {
                let side = |wanted| {
                    let members = (1..).zip(sides).filter(|(_, side)| **side == wanted);
                    members.map(|(id, _): (usize, _)| id.to_string()).collect::<Vec<_>>().join(",")
                };
                write!(f, "servers {} and {} do not hear each other", side(false), side(true))
            }
            Kind::OneWay(from, to) => write!(f, "nothing passes from server {} to {}", from + 1, to + 1),
            Kind::Break(_) => f.write_str("a link breaks"),
            Kind::SlowDisk(member) => write!(f, "the disk of server {} is slow", member + 1),
            Kind::HungDisk(member) => write!(f, "the disk of server {} hangs", member + 1),
            Kind::FullDisk(member) => write!(f, "the disk of server {} is full", member + 1),
            Kind::SlowNetwork => f.write_str("the network is slow"),
            Kind::BitRot(member) => write!(f, "a bit flips in the log of server {}", member + 1),
            Kind::Ambush(members) => {
                let doomed = (1..).zip(members).filter(|(_, is_doomed)| **is_doomed);
                let doomed: Vec<String> = doomed.map(|(id, _): (usize, _)| id.to_string()).collect();
                write!(f, "the power of servers {} will fail when the next epoch is taken over", doomed.join(","))
            }
        }
    }
}

/// So many faults are drawn; those that would come after the last step do not come.
const FAULTS: usize = 160;

/// What a run is mostly about: some things go wrong only where certain faults come together.
#[derive(Clone, Copy)]
enum Theme {
    Anything,
    /// Slow disks, and members that come again over another link.
    Disks,
    /// Disks that are full, or hang.
    Rooms,
    /// Members that come and go while they elect and synchronize.
    Elections,
    /// What is sent arrives late.
    Links,
}

impl Theme {
    /// How often each kind of fault comes, out of 100, in the order of [`draw`].
    fn odds(self) -> [u32; 13] {
        match self {
            Theme::Anything => [13, 12, 6, 10, 13, 8, 11, 7, 5, 4, 5, 3, 3],
            Theme::Disks => [5, 6, 3, 2, 0, 0, 38, 34, 0, 8, 4, 0, 0],
            Theme::Rooms => [8, 8, 4, 4, 4, 2, 8, 10, 0, 4, 4, 20, 24],
            Theme::Elections => [21, 18, 10, 5, 9, 5, 5, 5, 0, 5, 15, 1, 1],
            Theme::Links => [3, 2, 0, 25, 15, 30, 5, 0, 18, 0, 0, 1, 1],
        }
    }
}

impl Plan {
    /// The plan of a seed.
    pub fn new(seed: u64, size: Size) -> Plan {
        let mut random = SmallRng::seed_from_u64(seed ^ 0x706c_616e);
        let ms = Duration::from_millis;
        let themes = [Theme::Anything, Theme::Disks, Theme::Rooms, Theme::Elections, Theme::Links];
        let theme = themes[random.random_range(0..themes.len())];
        // Some runs are calm, in others one fault follows the other.
        let pause_ms = [20, 60, 150, 400][random.random_range(0..4)];
        let mut at = ms(random.random_range(0..600));
        let faults = (0..FAULTS).map(|number| {
            at += ms(random.random_range(0..2 * pause_ms));
            let kind = draw(theme, size.servers + size.observers, &mut random);
            let lasts = ms([5, 60, 150, 300, 900][random.random_range(0..5)] + random.random_range(0..100));
            Fault { number, at, kind, lasts }
        });
        Plan { seed, size, faults: faults.collect() }
    }

    /// The same with only those of the faults that are called so.
    pub fn with_only(mut self, numbers: &[usize]) -> Plan {
        self.faults.retain(|fault| numbers.contains(&fault.number));
        self
    }
}

fn draw(theme: Theme, members: usize, random: &mut SmallRng) -> Kind {
    let member = random.random_range(0..members);
    let mut some = |odds: f64| (0..members).map(|_| random.random_bool(odds)).collect();
    let (sides, doomed) = (some(0.5), some(0.6));
    let chosen = random.random_range(0..100);
    let mut sum = 0;
    let passed = theme.odds().into_iter().take_while(|odds| {
        sum += *odds;
        sum <= chosen
    });
    match passed.count() {
        0 => Kind::Death(member),
        1 => Kind::PowerLoss(member),
        2 => Kind::Blackout,
        3 => Kind::Pause(member),
        4 => Kind::Partition(sides),
        5 => Kind::OneWay(member, (member + random.random_range(1..members.max(2))) % members),
        6 => Kind::Break(random.random()),
        7 => Kind::SlowDisk(member),
        8 => Kind::SlowNetwork,
        9 => Kind::BitRot(member),
        10 => Kind::Ambush(doomed),
        11 => Kind::HungDisk(member),
        _ => Kind::FullDisk(member),
    }
}
