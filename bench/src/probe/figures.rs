//! From repeats to figures: medians, and which mode is the best.
//!
//! **Invariants**: a figure is the median of the repeats' figures, which no single disturbed repeat can move; only the
//! longest latency is the longest of all. Times are µs.
//!
//! **Not here**: measuring, formatting.

use super::plan::{Cell, MAIN, State};
use crate::report::Latency;
use corral_engine::disk::{LogIo, LogSync};
use serde::Serialize;

/// Modes that are this close to the fastest one are as good: nearer than this, repeats of one mode do not come to each other.
pub(crate) const AS_GOOD: f64 = 1.05;

/// One repeat.
#[derive(Clone, Debug)]
pub(crate) struct Sample {
    /// How long each took.
    pub latency: Latency,
    /// How long all took.
    pub seconds: f64,
    /// What the process consumed meanwhile, kernel workers on its behalf included.
    pub cpu_us: f64,
}

/// All repeats of one cell.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[allow(missing_docs, reason = "the names say it")]
pub(crate) struct Figures {
    pub commits: u64,
    pub p50_us: f64,
    pub p90_us: f64,
    pub p99_us: f64,
    pub max_us: f64,
    /// The lowest median of a repeat.
    pub p50_us_low: f64,
    /// The highest.
    pub p50_us_high: f64,
    pub commits_per_s: f64,
    pub cpu_us_per_commit: f64,
}

impl Figures {
    /// Of the repeats that there are.
    pub(crate) fn of(samples: &[Sample]) -> Option<Figures> {
        let samples: Vec<&Sample> = samples.iter().filter(|sample| sample.latency.count > 0).collect();
        if samples.is_empty() {
            return None;
        }
        let all = |figure: &dyn Fn(&Sample) -> f64| samples.iter().map(|sample| figure(sample)).collect::<Vec<f64>>();
        let middle = |figure: &dyn Fn(&Sample) -> f64| tenths(median(all(figure)));
        let medians = all(&|sample| sample.latency.p50);
        Some(Figures {
            commits: samples.iter().map(|sample| sample.latency.count).sum(),
            p50_us: middle(&|sample| sample.latency.p50),
            p90_us: middle(&|sample| sample.latency.p90),
            p99_us: middle(&|sample| sample.latency.p99),
            max_us: all(&|sample| sample.latency.max).into_iter().fold(0.0, f64::max),
            p50_us_low: medians.iter().copied().fold(f64::INFINITY, f64::min),
            p50_us_high: medians.iter().copied().fold(0.0, f64::max),
            commits_per_s: middle(&|sample| sample.latency.count as f64 / sample.seconds.max(1e-9)),
            cpu_us_per_commit: middle(&|sample| sample.cpu_us / sample.latency.count as f64),
        })
    }
}

/// Of an even number the mean of the two in the middle.
pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    if values.len().is_multiple_of(2) { (values[middle - 1] + values[middle]) / 2.0 } else { values[middle] }
}

/// One decimal.
pub(crate) fn tenths(value: f64) -> f64 {
    (value * 10.0).round() / 10.0
}

/// A cell and what came of it.
#[derive(Clone, Debug)]
pub(crate) struct Measured {
    /// What was measured.
    pub cell: Cell,
    /// What was found.
    pub figures: Figures,
}

/// The least that a durable commit costs here.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Floor {
    /// With which mode: `uring-direct/dsync`.
    pub mode: String,
    /// On which file.
    pub state: State,
    /// Of a commit.
    pub bytes: usize,
    /// Its median.
    pub p50_us: f64,
    /// What one in a hundred exceeds.
    pub p99_us: f64,
    /// The median after a pause as between one client's requests, where that was measured.
    pub paced_p50_us: Option<f64>,
}

impl Floor {
    /// As measured back to back, and `paced`.
    pub(crate) fn of(best: &Measured, paced: &[Measured]) -> Floor {
        let Measured { cell, figures } = best;
        let Figures { p50_us, p99_us, .. } = *figures;
        let same = |one: &&Measured| (one.cell.mode(), one.cell.bytes) == (cell.mode(), cell.bytes);
        let paced_p50_us = paced.iter().find(same).map(|one| one.figures.p50_us);
        Floor { mode: cell.mode(), state: cell.state, bytes: cell.bytes, p50_us, p99_us, paced_p50_us }
    }
}

/// The best durable way to commit `bytes`, one at a time. Modes are compared by their least disturbed repeats: nothing makes
/// a disk faster than it is, but much makes it slower. Of several as good it is the one that servers pick by themselves, or
/// else the one that costs the least CPU.
pub(crate) fn best(measured: &[Measured], bytes: usize) -> Option<&Measured> {
    let fit = |cell: &Cell| cell.is_durable() && cell.bytes == bytes && cell.depth == 1;
    let fit: Vec<&Measured> = measured.iter().filter(|measured| fit(&measured.cell)).collect();
    let lowest = fit.iter().map(|measured| measured.figures.p50_us_low).fold(f64::INFINITY, f64::min);
    let good = fit.into_iter().filter(|measured| measured.figures.p50_us_low <= lowest * AS_GOOD);
    let unusual = |cell: &Cell| (MAIN[0] != (cell.io, cell.sync), cell.state != State::Zeroed);
    good.min_by(|a, b| {
        let cpu = a.figures.cpu_us_per_commit.total_cmp(&b.figures.cpu_us_per_commit);
        unusual(&a.cell).cmp(&unusual(&b.cell)).then(cpu)
    })
}

/// The figures of one cell.
pub(crate) fn find(measured: &[Measured], cell: Cell) -> Option<&Figures> {
    measured.iter().find(|measured| measured.cell == cell).map(|measured| &measured.figures)
}

/// A direct write without a sync: the part of the floor that is not the flush. (Through the page cache it would reach no disk.)
pub(crate) fn write_only(measured: &[Measured], bytes: usize) -> Option<&Figures> {
    let (io, sync) = (LogIo::UringDirect, LogSync::None);
    find(measured, Cell { io, sync, state: State::Zeroed, bytes, depth: 1 })
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::probe::plan::FLOOR_BYTES;

    pub(crate) fn figures(p50_us: f64, cpu_us_per_commit: f64) -> Figures {
        Figures {
            commits: 3000,
            p50_us,
            p90_us: p50_us * 1.2,
            p99_us: p50_us * 2.0,
            max_us: 4000.0,
            p50_us_low: p50_us * 0.9,
            p50_us_high: p50_us * 1.1,
            commits_per_s: tenths(1e6 / p50_us),
            cpu_us_per_commit,
        }
    }

    pub(crate) fn measured(io: LogIo, sync: LogSync, state: State, p50_us: f64, cpu_us: f64) -> Measured {
        let cell = Cell { io, sync, state, bytes: FLOOR_BYTES, depth: 1 };
        Measured { cell, figures: figures(p50_us, cpu_us) }
    }

    fn sample(p50: f64, count: u64, seconds: f64, cpu_us: f64) -> Sample {
        let latency = Latency {
            count,
            min: 1.0,
            mean: p50,
            p50,
            p90: p50 + 1.0,
            p99: p50 + 2.0,
            p99_9: p50 + 3.0,
            p99_99: p50 + 3.0,
            max: p50 + 4.0,
        };
        Sample { latency, seconds, cpu_us }
    }

    #[test]
    fn one_disturbed_repeat_moves_nothing_but_the_maximum() {
        let samples =
            [sample(100.0, 1000, 0.1, 30_000.0), sample(9000.0, 10, 0.1, 9000.0), sample(90.0, 1100, 0.1, 0.0)];
        let figures = Figures::of(&samples).unwrap();
        assert_eq!((figures.commits, figures.p50_us, figures.p99_us, figures.max_us), (2110, 100.0, 102.0, 9004.0));
        assert_eq!((figures.p50_us_low, figures.p50_us_high), (90.0, 9000.0));
        assert_eq!((figures.commits_per_s, figures.cpu_us_per_commit), (10_000.0, 30.0));
        assert_eq!(Figures::of(&samples[..2]).unwrap().p50_us, 4550.0);
        assert_eq!(Figures::of(&[sample(0.0, 0, 0.0, 0.0)]), None);
    }

    #[test]
    fn the_best_is_durable_and_of_equals_the_usual_or_the_cheapest() {
        let mut all = vec![
            measured(LogIo::UringDirect, LogSync::None, State::Zeroed, 50.0, 10.0),
            measured(LogIo::Pwrite, LogSync::Fdatasync, State::Zeroed, 99.0, 42.0),
            measured(LogIo::UringDirect, LogSync::Dsync, State::Zeroed, 102.0, 50.0),
            measured(LogIo::UringDirect, LogSync::Dsync, State::Recycled, 99.0, 20.0),
            measured(LogIo::Pwrite, LogSync::Fsync, State::Zeroed, 110.0, 40.0),
        ];
        let floor = Floor::of(best(&all, FLOOR_BYTES).unwrap(), &[]);
        assert_eq!((floor.mode.as_str(), floor.state, floor.p50_us), ("uring-direct/dsync", State::Zeroed, 102.0));
        assert_eq!(write_only(&all, FLOOR_BYTES).unwrap().p50_us, 50.0);
        (all[1].figures.p50_us_low, all[4].figures.p50_us_low) = (79.0, 82.0);
        let best_sync = |all: &[Measured]| best(all, FLOOR_BYTES).unwrap().cell.sync;
        assert_eq!(best_sync(&all), LogSync::Fsync, "nothing that servers pick is as good: the least CPU");
        all[1].figures.p50_us_low = 60.0;
        assert_eq!(best_sync(&all), LogSync::Fdatasync);
        assert!(best(&all, 512).is_none() && best(&all[..1], FLOOR_BYTES).is_none());
    }
}
