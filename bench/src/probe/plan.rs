//! What is measured, and in which order: the cells of a probe.
//!
//! The whole product of modes, sizes, states and depths takes minutes. The default leaves out what nobody would choose from:
//! every mode meets every state of a file at the size of a block; other sizes and depths are tried with the modes that a
//! server would run with.
//!
//! **Invariants**: no cell twice; each size that is measured has its baseline; more than one write in flight only where a
//! ring is and the file's blocks are written; the order depends on the seed alone.
//!
//! **Not here**: measuring; why a cell cannot be measured on some file system (it is tried, and reported).

use corral_engine::disk::{LogIo, LogSync};
use rand::SeedableRng;
use rand::rngs::SmallRng;
use rand::seq::SliceRandom;
use serde::Serialize;
use std::fmt;
use std::time::Duration;

/// The size at which disks are compared: a block, what a small commit takes in the log.
pub(crate) const FLOOR_BYTES: usize = 4096;

/// The least pause before a paced commit; about as long as a client and a server need for their part of a turn.
pub(crate) const PAUSE: Duration = Duration::from_micros(50);

/// What the floor is made of is measured more often than the rest, because so much is compared with it.
const OFTEN: usize = 3;

const MIB: u64 = 1 << 20;

/// In which state the file is that is written to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum State {
    /// Empty: each write makes it longer.
    Grow,
    /// Allocated with `fallocate`: as long as it will be, its blocks not written yet.
    Prealloc,
    /// Written full of zeros and synced.
    Zeroed,
    /// Full of other data, synced, renamed, and no longer in the page cache.
    Recycled,
}

/// In the order of the columns.
pub(crate) const STATES: [State; 4] = [State::Grow, State::Prealloc, State::Zeroed, State::Recycled];

impl State {
    /// Its word.
    pub(crate) fn name(self) -> &'static str {
        match self {
            State::Grow => "grow",
            State::Prealloc => "prealloc",
            State::Zeroed => "zeroed",
            State::Recycled => "recycled",
        }
    }

    /// Whether its blocks were written before: a write to them changes no metadata of the file system.
    pub(crate) fn is_written(self) -> bool {
        matches!(self, State::Zeroed | State::Recycled)
    }
}

const IOS: [LogIo; 3] = [LogIo::UringDirect, LogIo::UringBuffered, LogIo::Pwrite];
const SYNCS: [LogSync; 4] = [LogSync::Dsync, LogSync::Fdatasync, LogSync::Fsync, LogSync::None];
const SIZES: [usize; 3] = [512, FLOOR_BYTES, 65_536];
const DEPTHS: [usize; 4] = [1, 2, 4, 8];

/// The two modes that a server runs with unless it is told otherwise: with a ring, and without.
pub(crate) const MAIN: [(LogIo, LogSync); 2] =
    [(LogIo::UringDirect, LogSync::Dsync), (LogIo::Pwrite, LogSync::Fdatasync)];

/// One way to append.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Cell {
    /// How the bytes get there.
    pub io: LogIo,
    /// How they become durable.
    pub sync: LogSync,
    /// What they are written to.
    pub state: State,
    /// How many a commit has.
    pub bytes: usize,
    /// Commits in flight.
    pub depth: usize,
}

impl Cell {
    /// The mode's name: `uring-direct/dsync`.
    pub(crate) fn mode(&self) -> String {
        format!("{}/{}", self.io, self.sync)
    }

    /// Whether a commit is on the disk when it is done.
    pub(crate) fn is_durable(&self) -> bool {
        self.sync != LogSync::None
    }

    /// What every program does that was written without thinking about it; the others are measured by it.
    pub(crate) fn baseline(bytes: usize) -> Cell {
        Cell { io: LogIo::Pwrite, sync: LogSync::Fdatasync, state: State::Grow, bytes, depth: 1 }
    }
}

impl fmt::Display for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, {}, {} file", self.mode(), size_name(self.bytes), self.state.name())?;
        if self.depth > 1 { write!(f, ", depth {}", self.depth) } else { Ok(()) }
    }
}

/// `512 B`, `4 KiB`.
pub(crate) fn size_name(bytes: usize) -> String {
    if bytes >= 1024 && bytes.is_multiple_of(1024) { format!("{} KiB", bytes / 1024) } else { format!("{bytes} B") }
}

/// One thing to measure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Item {
    /// Commits.
    Commits(Cell),
    /// Commits with a [`PAUSE`] before each, as one client's requests have.
    Paced(Cell),
    /// Commits of one transaction each through the log of the server, one at a time.
    Engine,
    /// `fdatasync` of a file that nothing was written to: the flush of the device's cache alone.
    Flush,
    /// A small message over loopback to another thread and back.
    Echo,
}

impl Item {
    /// The main modes on a zeroed file, and what their latency is made of: what later measurements will be compared with.
    fn is_of_the_floor(&self) -> bool {
        match self {
            Item::Commits(Cell { io, sync, state, bytes, depth }) => {
                let is_main = MAIN.contains(&(*io, *sync)) || (*io, *sync) == (LogIo::UringDirect, LogSync::None);
                is_main && (*state, *bytes, *depth) == (State::Zeroed, FLOOR_BYTES, 1)
            }
            Item::Flush | Item::Echo | Item::Engine => true,
            Item::Paced(_) => false,
        }
    }
}

impl fmt::Display for Item {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Item::Commits(cell) => cell.fmt(f),
            Item::Paced(cell) => write!(f, "{cell}, with pauses"),
            Item::Engine => f.write_str("the server's log"),
            Item::Flush => f.write_str("flush only"),
            Item::Echo => f.write_str("TCP echo"),
        }
    }
}

/// How much is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Extent {
    /// Seconds.
    Quick,
    /// Half a minute.
    Default,
    /// Everything.
    Full,
}

/// A probe.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    /// What is measured, and how often in each round.
    pub items: Vec<(Item, usize)>,
    /// Each has files of its own.
    pub rounds: usize,
    /// For how long each time.
    pub time: Duration,
    /// Size of the files, if there is room.
    pub file_bytes: u64,
}

impl Plan {
    /// What `extent` stands for.
    pub(crate) fn new(extent: Extent) -> Plan {
        let cells = all_cells().into_iter().filter(|cell| extent.has(cell)).map(Item::Commits);
        let often = |item: Item| (item, if item.is_of_the_floor() { OFTEN } else { 1 });
        let rest = [Item::Flush, Item::Echo, Item::Engine];
        let items = cells.chain(paced(FLOOR_BYTES)).chain(rest).map(often).collect();
        let (time_ms, file_bytes) = match extent {
            Extent::Quick => (50, 32 * MIB),
            Extent::Default => (130, 64 * MIB),
            Extent::Full => (250, 64 * MIB),
        };
        Plan { items, rounds: 3, time: Duration::from_millis(time_ms), file_bytes }
    }

    /// The two main modes at one size, one commit at a time, and an echo: enough to know the floor.
    pub(crate) fn floor(bytes: usize) -> Plan {
        let items = MAIN.map(|mode| (Item::Commits(one_at_a_time(mode, bytes)), OFTEN)).into_iter();
        let items = items.chain(paced(bytes).map(|item| (item, 1))).chain([(Item::Echo, 1)]).collect();
        Plan { items, rounds: 3, time: Duration::from_millis(65), file_bytes: 16 * MIB }
    }

    /// The order of each round. Shuffled, so that what happens on the machine now and then does not always meet the same
    /// cell, nor one cell always the trail of the same other.
    pub(crate) fn order(&self, seed: u64) -> Vec<Vec<Item>> {
        let mut random = SmallRng::seed_from_u64(seed);
        let mut shuffled = || {
            let mut items: Vec<Item> = self.items.iter().flat_map(|(item, often)| vec![*item; *often]).collect();
            items.shuffle(&mut random);
            items
        };
        (0..self.rounds).map(|_| shuffled()).collect()
    }
}

impl Extent {
    fn has(self, cell: &Cell) -> bool {
        let Cell { io, sync, state, bytes, depth } = *cell;
        let is_main = MAIN.contains(&(io, sync));
        let is_block = bytes == FLOOR_BYTES;
        match self {
            Extent::Full => true,
            Extent::Quick => {
                let state_matters = state == State::Zeroed || (state == State::Recycled && is_main);
                is_block && depth == 1 && (state_matters || *cell == Cell::baseline(bytes))
            }
            Extent::Default if depth > 1 => {
                is_block && io == LogIo::UringDirect && state == State::Zeroed && sync != LogSync::Fsync
            }
            Extent::Default if is_block => cell.is_durable() || state == State::Zeroed,
            Extent::Default => {
                is_main || (state == State::Zeroed && io == LogIo::UringDirect && sync != LogSync::Fsync)
            }
        }
    }
}

fn one_at_a_time((io, sync): (LogIo, LogSync), bytes: usize) -> Cell {
    Cell { io, sync, state: State::Zeroed, bytes, depth: 1 }
}

fn paced(bytes: usize) -> [Item; 2] {
    MAIN.map(|mode| Item::Paced(one_at_a_time(mode, bytes)))
}

fn all_cells() -> Vec<Cell> {
    let mut cells = Vec::new();
    for (bytes, depth) in SIZES.into_iter().flat_map(|bytes| DEPTHS.map(|depth| (bytes, depth))) {
        for (io, sync) in IOS.into_iter().flat_map(|io| SYNCS.map(|sync| (io, sync))) {
            let possible = |state: &State| depth == 1 || (io != LogIo::Pwrite && state.is_written());
            let states = STATES.into_iter().filter(possible);
            cells.extend(states.map(|state| Cell { io, sync, state, bytes, depth }));
        }
    }
    cells
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cells(extent: Extent) -> Vec<Cell> {
        let cell = |(item, _)| if let Item::Commits(cell) = item { Some(cell) } else { None };
        Plan::new(extent).items.into_iter().filter_map(cell).collect()
    }

    #[test]
    fn everything_is_everything_and_the_rest_are_parts_of_it() {
        let full = cells(Extent::Full);
        assert_eq!(full.len(), 3 * (3 * 4 * 4 + 3 * 2 * 4 * 2));
        for (at, cell) in full.iter().enumerate() {
            assert!(!full[..at].contains(cell), "{cell} is there twice");
            assert!(cell.depth == 1 || (cell.io != LogIo::Pwrite && cell.state.is_written()), "{cell}");
        }
        assert!(cells(Extent::Default).iter().chain(&cells(Extent::Quick)).all(|cell| full.contains(cell)));
    }

    #[test]
    fn each_extent_has_what_its_report_is_about_and_takes_its_time() {
        for (extent, seconds) in
            [(Extent::Quick, 3.0..5.5), (Extent::Default, 25.0..37.0), (Extent::Full, 180.0..240.0)]
        {
            let (plan, cells) = (Plan::new(extent), cells(extent));
            for cell in &cells {
                assert!(cells.contains(&Cell::baseline(cell.bytes)), "{extent:?}: no baseline for {cell}");
            }
            for (io, sync) in MAIN {
                let floor = Cell { io, sync, state: State::Zeroed, bytes: FLOOR_BYTES, depth: 1 };
                assert!(cells.contains(&floor) && cells.contains(&Cell { state: State::Recycled, ..floor }));
                assert!(cells.contains(&Cell { io, sync: LogSync::None, ..floor }), "{extent:?}: write only");
            }
            let samples: usize = plan.order(1).iter().map(Vec::len).sum();
            let length = samples as f64 * plan.time.as_secs_f64();
            assert!(seconds.contains(&length), "{extent:?}: {length} s");
            assert_eq!(samples, plan.rounds * (plan.items.len() + (OFTEN - 1) * 6), "six of them are the floor's");
        }
    }

    #[test]
    fn the_order_is_another_in_each_round_and_the_same_for_the_same_seed() {
        let plan = Plan::new(Extent::Default);
        let order = plan.order(1);
        assert_eq!(order, plan.order(1));
        assert!(order[0] != order[1] && order != plan.order(2));
        assert!(order.iter().all(|round| plan.items.iter().all(|(item, _)| round.contains(item))));
        let name = order[0].iter().find(|item| matches!(item, Item::Commits(cell) if cell.depth == 8)).unwrap();
        assert!(name.to_string().ends_with(", 4 KiB, zeroed file, depth 8"), "{name}");
    }
}
