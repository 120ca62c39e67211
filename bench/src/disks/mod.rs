//! `corral-bench disks`: which disk, file system and mode of writing make a coordination server's writes fast.
//!
//! Every cell of the comparison is a real server process in directories of its own, under the same two loads: one request at a
//! time, where the disk's latency shows, and many at once, where group commit does. Beside them stands the floor: what the bare
//! directory can do, measured in the same rounds.
//!
//! ```text
//! options ─ plan ─┬─ server ── load ─┐
//!                 └─ probe::floor ───┴─ figures ─ report
//! ```
//!
//! **Invariants**: a cell that fails is reported with its reason and stops nothing else; whatever happens, no process and no
//! directory is left; an interrupt ends the run early, with a report of the rounds that are whole.

mod figures;
mod options;
mod plan;
mod report;
mod server;

pub(crate) use options::DisksOptions;
pub(crate) use server::{ServeOptions, serve};

use crate::environment::{IS_DEBUG, Machine};
use crate::interrupt::{self, Second};
use crate::load;
use crate::options::LoadOptions;
use crate::probe;
use corral_engine::disk::block::BlockDevice;
use corral_engine::disk::filesystem::FileSystem;
use figures::{Figures, Round, Sample, judge};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use plan::{Cell, order};
use report::{CellReport, Failure, Parameters, Place, Report};
use server::CellServer;
use std::fs;
use std::io::{self, IsTerminal};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

/// The size of a small commit in the log, at which disks are compared.
const FLOOR_BYTES: usize = 4096;

/// Runs the comparison of `cells` and prints the report. The error is one line.
pub(crate) fn run(options: &DisksOptions, cells: Vec<Cell>) -> Result<(), String> {
    let stop = interrupt::listen(Second::IsLikeTheFirst)?;
    if IS_DEBUG {
        eprintln!("corral-bench: WARNING: this is a debug build, its numbers say nothing (cargo build --release)");
    }
    let cannot_write = |file: &Path, error: &io::Error| format!("cannot write {}: {error}", file.display());
    if let Some(file) = &options.json {
        // Before the run and not after it.
        fs::OpenOptions::new().create(true).append(true).open(file).map_err(|error| cannot_write(file, &error))?;
    }
    let report = compare(options, cells, &stop)?;
    print!("{}", report.table());
    if let Some(file) = &options.json {
        let mut json = serde_json::to_string_pretty(&report).expect("a report is JSON");
        json.push('\n');
        fs::write(file, json).map_err(|error| cannot_write(file, &error))?;
    }
    if report.winner.is_none() && report.interrupted {
        return Err("interrupted before every cell was measured once".into());
    }
    if report.cells.iter().all(|cell| cell.figures.is_none()) {
        return Err("no cell could be measured".into());
    }
    Ok(())
}

/// A cell and what has come of it so far.
struct Tried {
    cell: Cell,
    rounds: Vec<Round>,
    failed: Option<String>,
}

fn compare(options: &DisksOptions, cells: Vec<Cell>, stop: &Arc<AtomicBool>) -> Result<Report, String> {
    let load_average = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let mut dirs: Vec<PathBuf> = Vec::new();
    for dir in cells.iter().map(|cell| &cell.log_dir).chain(cells.iter().map(|cell| &cell.data_dir)) {
        if !dirs.contains(dir) {
            dirs.push(dir.clone());
        }
    }
    let mut places: Vec<Place> = dirs.iter().map(|dir| place(dir)).collect();
    let mut tried: Vec<Tried> =
        cells.into_iter().map(|cell| Tried { cell, rounds: Vec::new(), failed: None }).collect();
    let bar = progress(options.rounds * tried.len());
    let mut rounds = 0;
    'rounds: for order in order(tried.len(), options.rounds, options.seed) {
        bar.set_message("the floor");
        for place in &mut places {
            let is_for_logs = tried.iter().any(|it| Path::new(&place.dir) == it.cell.log_dir);
            if is_for_logs && place.why_no_floor.is_none() {
                match probe::floor(Path::new(&place.dir), FLOOR_BYTES, stop) {
                    Ok((floor, echo_us)) => place.measured(floor, echo_us),
                    Err(why) => place.why_no_floor = Some(why),
                }
            }
        }
        for at in order {
            let it = &mut tried[at];
            bar.set_message(it.cell.mode());
            if it.failed.is_none() {
                match measure(&it.cell, options, stop) {
                    _ if stop.load(Relaxed) => break 'rounds,
                    Ok(round) => it.rounds.push(round),
                    Err(why) => it.failed = Some(why),
                }
            }
            if stop.load(Relaxed) {
                break 'rounds;
            }
            bar.inc(1);
        }
        rounds += 1;
    }
    bar.finish_and_clear();
    // A round that was broken off has not met all cells.
    tried.iter_mut().for_each(|it| it.rounds.truncate(rounds));
    Ok(put_together(options, tried, places, rounds, stop.load(Relaxed), load_average))
}

/// One round of one cell.
fn measure(cell: &Cell, options: &DisksOptions, stop: &Arc<AtomicBool>) -> Result<Round, String> {
    let server = CellServer::start(cell)?;
    let load = |connections: usize, outstanding: usize| {
        let load = LoadOptions {
            connections,
            outstanding: Some(outstanding),
            duration: options.duration,
            warmup: options.warmup,
            value_size: options.value_size,
            seed: options.seed,
            server_pid: vec![server.pid()],
            ..LoadOptions::plain()
        };
        // What ails the server is the cause of what its clients saw.
        let report =
            load::against(server.address(), &load, stop).map_err(|why| format!("{why} ({})", server.last_words()))?;
        if report.ops == 0 {
            return Err(format!("no write succeeded ({})", server.last_words()));
        }
        Ok(Sample::of(&report))
    };
    let round = Round { single: load(1, 1)?, many: load(options.connections, options.outstanding)? };
    server.stop()?;
    Ok(round)
}

fn place(dir: &Path) -> Place {
    Place {
        dir: dir.display().to_string(),
        file_system: FileSystem::of(dir),
        block_device: BlockDevice::of(dir),
        floors: Vec::new(),
        paced: Vec::new(),
        floor: None,
        echo_p50_us: None,
        why_no_floor: None,
    }
}

fn put_together(
    options: &DisksOptions,
    tried: Vec<Tried>,
    places: Vec<Place>,
    rounds: usize,
    interrupted: bool,
    load_average: String,
) -> Report {
    let figures: Vec<Option<Figures>> =
        tried.iter().map(|it| Figures::of(&it.rounds).filter(|_| it.failed.is_none())).collect();
    let durable = |cell: &Cell| {
        let place = places.iter().find(|place| Path::new(&place.dir) == cell.log_dir);
        cell.is_durable() && !place.is_some_and(Place::is_volatile)
    };
    let compared: Vec<_> =
        tried.iter().zip(&figures).map(|(it, figures)| (durable(&it.cell), figures.as_ref())).collect();
    let verdict = judge(&compared);
    let failures = tried
        .iter()
        .filter_map(|it| {
            it.failed.as_ref().map(|why| Failure {
                mode: it.cell.mode(),
                log_dir: it.cell.log_dir.display().to_string(),
                why: why.clone(),
            })
        })
        .collect();
    let cells = tried.into_iter().zip(figures).map(|(it, figures)| {
        let floor = places.iter().find(|place| Path::new(&place.dir) == it.cell.log_dir).and_then(Place::expected_us);
        CellReport::new(&it.cell, durable(&it.cell), it.rounds, figures, floor)
    });
    Report {
        benchmark: "disks",
        cells: cells.collect(),
        winner: verdict.winner,
        as_good: verdict.as_good,
        most_ops_per_s: verdict.most,
        failures,
        environment: Machine::look(),
        load_average: load_average.split(' ').next().unwrap_or_default().to_owned(),
        parameters: Parameters {
            rounds,
            duration_s: options.duration.as_secs_f64(),
            warmup_s: options.warmup.as_secs_f64(),
            connections: options.connections,
            outstanding: options.outstanding,
            value_size: options.value_size,
            seed: options.seed,
        },
        interrupted,
        places,
    }
}

/// One line that lives while the run does, on a terminal only.
fn progress(measurements: usize) -> ProgressBar {
    let target = if io::stderr().is_terminal() { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
    let style = ProgressStyle::with_template("{pos:>4} of {len} [{bar:24}] {wide_msg}").expect("a valid template");
    ProgressBar::with_draw_target(Some(measurements as u64), target).with_style(style.progress_chars("=> "))
}
