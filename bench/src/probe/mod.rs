//! `corral-bench probe DIR`: what this directory's disk can do, as the floor that everything else is compared with.
//!
//! It says what the directory lies on, then appends to files in every mode that a server can be told to log in, through the
//! same devices, and names the best one.
//!
//! ```text
//! options ─ plan ─ files ─┬─ commits ─┐
//!                         └─ echo ────┴─ figures ─ verdict ─ report
//! ```
//!
//! **Invariants**: what a file system refuses is reported with its reason and stops nothing else; whatever happens, the files
//! are removed; an interrupt ends the run early, with a report if all was measured once.
//!
//! **Not here**: a server, and so batches and queues: one commit here is one write.

mod commits;
mod echo;
mod engine;
pub(crate) mod figures;
mod files;
mod plan;
mod report;
mod verdict;

use crate::environment::{IS_DEBUG, Machine};
use crate::interrupt;
use crate::options::ProbeOptions;
use corral_engine::disk::Mode;
use corral_engine::disk::block::BlockDevice;
use corral_engine::disk::filesystem::FileSystem;
use figures::{Figures, Floor, Measured, Sample, best, write_only};
use files::Files;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
#[cfg(test)]
pub(crate) use plan::State;
use plan::{Cell, Extent, FLOOR_BYTES, Item, PAUSE, Plan};
use report::{Parameters, Refused, Report};
use std::fs;
use std::io::{self, IsTerminal};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;
use verdict::Facts;

/// Runs the probe and prints the report. The error is one line.
pub(crate) fn run(options: &ProbeOptions) -> Result<(), String> {
    let stop = interrupt::listen(interrupt::Second::IsLikeTheFirst)?;
    if IS_DEBUG {
        eprintln!("corral-bench: WARNING: this is a debug build, its numbers say nothing (cargo build --release)");
    }
    let cannot_write = |file: &Path, error: &io::Error| format!("cannot write {}: {error}", file.display());
    if let Some(file) = &options.json {
        // Before the run and not after it.
        fs::OpenOptions::new().create(true).append(true).open(file).map_err(|error| cannot_write(file, &error))?;
    }
    let (extent, name) = match (options.quick, options.full) {
        (true, _) => (Extent::Quick, "quick"),
        (_, true) => (Extent::Full, "full"),
        _ => (Extent::Default, "default"),
    };
    let report = probe(&options.dir, &Plan::new(extent), name, options.seed, &stop)?;
    print!("{}", report.table());
    if let Some(file) = &options.json {
        let mut json = serde_json::to_string_pretty(&report).expect("a report is JSON");
        json.push('\n');
        fs::write(file, json).map_err(|error| cannot_write(file, &error))?;
    }
    Ok(())
}

/// What a server's write is compared with in the same minute: the least that a durable append of `bytes` costs in `dir`, one at a
/// time, on a zeroed file, in the better one of the two modes that servers run with; and the p50 of a TCP echo in µs. It takes
/// about two seconds.
pub(crate) fn floor(dir: &Path, bytes: usize, stop: &AtomicBool) -> Result<(Floor, f64), String> {
    let (plan, seed) = (Plan::floor(bytes), 1);
    let mut files = Files::make(dir, plan.file_bytes, seed, stop)?;
    let outcome = carry_out(&plan, seed, &mut files, stop, &ProgressBar::hidden());
    let floor = best(&outcome.measured, bytes)
        .map(|best| Floor::of(best, &outcome.paced))
        .ok_or_else(|| outcome.why_no_floor(dir))?;
    let echo = outcome.echo.ok_or("no message came back over loopback")?;
    Ok((floor, echo.p50_us))
}

/// What came of a plan.
#[derive(Debug, Default)]
struct Outcome {
    measured: Vec<Measured>,
    paced: Vec<Measured>,
    engine: Option<Figures>,
    flush: Option<Figures>,
    echo: Option<Figures>,
    refused: Vec<(Item, String)>,
    /// How often all was measured.
    rounds: usize,
}

impl Outcome {
    fn why_no_floor(&self, dir: &Path) -> String {
        let why = self.refused.iter().find(|(item, _)| matches!(item, Item::Commits(cell) if cell.is_durable()));
        let why = why.map_or("nothing was measured".to_owned(), |(item, why)| format!("{item}: {why}"));
        format!("no durable write of {} works in {} ({why})", plan::size_name(FLOOR_BYTES), dir.display())
    }
}

fn probe(dir: &Path, plan: &Plan, extent: &str, seed: u64, stop: &AtomicBool) -> Result<Report, String> {
    let mut files = Files::make(dir, plan.file_bytes, seed, stop)?;
    let (file_system, block_device) = (FileSystem::of(dir), BlockDevice::of(dir));
    let load_average = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let load_average = load_average.split(' ').next().unwrap_or_default().to_owned();
    let auto = Mode::choose(files.dir(), None, None, None)?;
    let bar = progress(plan);
    let outcome = carry_out(plan, seed, &mut files, stop, &bar);
    bar.set_message("removing the files");
    let file_bytes = files.bytes();
    drop(files);
    bar.finish_and_clear();
    if outcome.rounds == 0 {
        return Err("interrupted before everything was measured once".into());
    }
    let best = best(&outcome.measured, FLOOR_BYTES).ok_or_else(|| outcome.why_no_floor(dir))?;
    let facts = Facts {
        measured: &outcome.measured,
        best,
        paced: &outcome.paced,
        engine: outcome.engine.as_ref(),
        flush: outcome.flush.as_ref(),
        echo: outcome.echo.as_ref(),
        device: block_device.as_ref(),
        is_volatile: file_system.as_ref().is_some_and(FileSystem::is_volatile),
        auto: &format!("{}/{}", auto.io, auto.sync),
        load_average: &load_average,
    };
    let said = facts.lines();
    let p50 = |figures: Option<&Figures>| figures.map(|figures| figures.p50_us);
    let refused = outcome.refused.iter().filter_map(|(item, why)| match item {
        Item::Commits(cell) => Some(Refused::new(cell, why, block_device.as_ref())),
        Item::Paced(_) | Item::Engine | Item::Flush | Item::Echo => None,
    });
    Ok(Report {
        benchmark: "probe",
        floor: Floor::of(best, facts.paced),
        engine_p50_us: p50(facts.engine),
        engine_p99_us: facts.engine.map(|figures| figures.p99_us),
        echo_p50_us: p50(facts.echo),
        write_p50_us: p50(write_only(&outcome.measured, FLOOR_BYTES)),
        flush_p50_us: p50(facts.flush),
        flush_is_free: facts.flush_is_free(),
        is_volatile: facts.is_volatile,
        auto: facts.auto.to_owned(),
        auto_block_bytes: auto.block.bytes(),
        verdict: said.iter().map(|(name, text)| format!("{name}: {text}")).collect(),
        refused: refused.collect(),
        file_system,
        environment: Machine::look(),
        load_average: load_average.clone(),
        parameters: Parameters {
            extent: extent.to_owned(),
            rounds: plan.rounds,
            cell_ms: plan.time.as_millis() as u64,
            file_bytes,
            seed,
        },
        interrupted: stop.load(Relaxed),
        cells: report::cells(&outcome.measured),
        measured: outcome.measured,
        said,
        block_device,
    })
}

/// Measures all items, round by round. What was refused once is not tried again.
fn carry_out(plan: &Plan, seed: u64, files: &mut Files<'_>, stop: &AtomicBool, bar: &ProgressBar) -> Outcome {
    let mut samples: Vec<(Item, Vec<Sample>)> = plan.items.iter().map(|(item, _)| (*item, Vec::new())).collect();
    let mut outcome = Outcome::default();
    'rounds: for order in plan.order(seed) {
        files.next_round();
        for item in order {
            bar.inc(1);
            bar.set_message(item.to_string());
            if outcome.refused.iter().any(|(refused, _)| *refused == item) {
                continue;
            }
            let result = measure(&item, plan, files, stop);
            if stop.load(Relaxed) {
                break 'rounds;
            }
            match result {
                Ok(sample) => {
                    let (_, samples) = samples.iter_mut().find(|(one, _)| *one == item).expect("one of the plan's");
                    samples.push(sample);
                }
                Err(why) => outcome.refused.push((item, why)),
            }
        }
        outcome.rounds += 1;
    }
    // A cell that went wrong later than in its first round has not been measured: it did not work.
    samples.retain(|(item, _)| !outcome.refused.iter().any(|(refused, _)| refused == item));
    for (item, samples) in samples {
        match (item, Figures::of(&samples)) {
            (_, None) => {}
            (Item::Commits(cell), Some(figures)) => outcome.measured.push(Measured { cell, figures }),
            (Item::Paced(cell), Some(figures)) => outcome.paced.push(Measured { cell, figures }),
            (Item::Engine, figures) => outcome.engine = figures,
            (Item::Flush, figures) => outcome.flush = figures,
            (Item::Echo, figures) => outcome.echo = figures,
        }
    }
    outcome
}

fn measure(item: &Item, plan: &Plan, files: &mut Files<'_>, stop: &AtomicBool) -> Result<Sample, String> {
    let mut commits = |cell: &Cell, pause| {
        let mut target = files.target(cell)?;
        let sample = commits::measure(cell, &mut target, pause, plan.time, stop);
        files.put_back(cell, target);
        sample
    };
    match item {
        Item::Commits(cell) => commits(cell, Duration::ZERO),
        Item::Paced(cell) => commits(cell, PAUSE),
        Item::Engine => engine::measure(files.dir(), plan.time, stop),
        Item::Flush => commits::measure_flush(&files.clean()?, plan.time, stop),
        Item::Echo => echo::measure(plan.time, stop).map_err(|error| error.to_string()),
    }
}

/// One line that lives while the run does, on a terminal only.
fn progress(plan: &Plan) -> ProgressBar {
    let target = if io::stderr().is_terminal() { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
    let style = ProgressStyle::with_template("{pos:>4} of {len} [{bar:24}] {wide_msg}").expect("a valid template");
    let length = plan.order(0).iter().map(Vec::len).sum::<usize>() as u64;
    ProgressBar::with_draw_target(Some(length), target).with_style(style.progress_chars("=> "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_tiny_probe_measures_or_explains_every_cell_and_cleans_up() {
        let dir = tempfile::tempdir_in(".").unwrap();
        let mut plan = Plan::new(Extent::Quick);
        (plan.rounds, plan.time, plan.file_bytes) = (2, Duration::from_millis(3), 4 << 20);
        let report = probe(dir.path(), &plan, "tiny", 1, &AtomicBool::new(false)).unwrap();
        assert_eq!(
            report.cells.len() + report.refused.len(),
            plan.items.len() - 5,
            "all but echo, flush, engine, and the paced two"
        );
        assert!(report.floor.p50_us > 0.0 && report.echo_p50_us > Some(0.0) && report.flush_p50_us > Some(0.0));
        assert!(report.table().contains(&report.floor.mode), "{}", report.table());
        assert!(report.file_system.is_some());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn the_floor_alone_is_of_the_size_asked_for() {
        let dir = tempfile::tempdir_in(".").unwrap();
        let (floor, echo_us) = floor(dir.path(), 65_536, &AtomicBool::new(false)).unwrap();
        assert!(echo_us > 0.0);
        assert!(floor.bytes == 65_536 && floor.p50_us > 0.0 && floor.p99_us >= floor.p50_us, "{floor:?}");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn an_interrupt_leaves_no_files() {
        let dir = tempfile::tempdir_in(".").unwrap();
        let why = probe(dir.path(), &Plan::new(Extent::Quick), "quick", 1, &AtomicBool::new(true)).unwrap_err();
        assert!(why.starts_with("interrupted"), "{why}");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
        assert!(
            probe(&dir.path().join("none"), &Plan::new(Extent::Quick), "quick", 1, &AtomicBool::new(false)).is_err()
        );
    }
}
