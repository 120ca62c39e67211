//! What a probe has found, for people (a table) and for programs (JSON). Both are made from one [`Report`].
//!
//! **Invariants**: the names in the JSON are promised to scripts; every cell of the plan is among `cells` or `refused`,
//! unless the run was interrupted.
//!
//! **Not here**: measuring; what the figures mean ([`super::verdict`]).

use super::figures::{Figures, Floor, Measured, find};
use super::plan::{Cell, STATES, State, size_name};
use crate::environment::Machine;
use corral_engine::disk::block::BlockDevice;
use corral_engine::disk::filesystem::FileSystem;
use corral_engine::disk::{LogIo, LogSync};
use serde::Serialize;
use std::fmt::Write;

/// A cell as the JSON has it.
#[derive(Clone, Debug, Serialize)]
#[allow(missing_docs, reason = "the names say it")]
pub(crate) struct CellName {
    pub mode: String,
    pub io: String,
    pub sync: String,
    pub state: State,
    pub bytes: usize,
    pub depth: usize,
}

impl CellName {
    fn of(cell: &Cell) -> CellName {
        let Cell { io, sync, state, bytes, depth } = *cell;
        CellName { mode: cell.mode(), io: io.to_string(), sync: sync.to_string(), state, bytes, depth }
    }
}

/// A cell and its figures.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct CellReport {
    /// Which.
    #[serde(flatten)]
    pub cell: CellName,
    /// What was found.
    #[serde(flatten)]
    pub figures: Figures,
    /// Its p50 against that of the baseline of its size.
    pub p50_to_baseline: Option<f64>,
}

/// A cell that could not be measured.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Refused {
    /// Which.
    #[serde(flatten)]
    pub cell: CellName,
    /// Why not.
    pub why: String,
}

impl Refused {
    /// With what the system answered; if it was about a write below the device's block, that is the better reason.
    pub(crate) fn new(cell: &Cell, why: &str, device: Option<&BlockDevice>) -> Refused {
        let block = device.and_then(|device| device.logical_block_bytes).unwrap_or(0);
        let is_below = cell.io == LogIo::UringDirect && (cell.bytes as u64) < block;
        let why = if is_below { format!("less than the device's block of {block} B ({why})") } else { why.to_owned() };
        Refused { cell: CellName::of(cell), why }
    }
}

/// What was asked for.
#[derive(Clone, Debug, Serialize)]
#[allow(missing_docs, reason = "the names say it")]
pub(crate) struct Parameters {
    pub extent: String,
    pub rounds: usize,
    pub cell_ms: u64,
    pub file_bytes: u64,
    pub seed: u64,
}

/// A probe.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Report {
    /// What kind of report this is.
    pub benchmark: &'static str,
    /// The least that a durable commit of 4 KiB costs here.
    pub floor: Floor,
    /// A commit of 100 bytes through the server's log.
    pub engine_p50_us: Option<f64>,
    /// Likewise.
    pub engine_p99_us: Option<f64>,
    /// A message over loopback and back.
    pub echo_p50_us: Option<f64>,
    /// A write of 4 KiB past the page cache that is not made durable.
    pub write_p50_us: Option<f64>,
    /// A flush of the device's cache.
    pub flush_p50_us: Option<f64>,
    /// See [`super::verdict`].
    pub flush_is_free: bool,
    /// Whether a power loss takes it all.
    pub is_volatile: bool,
    /// What a server picks that is not told a mode.
    pub auto: String,
    /// In blocks of so many bytes.
    pub auto_block_bytes: usize,
    /// The lines at the end of the table.
    pub verdict: Vec<String>,
    /// Where the directory lies.
    pub file_system: Option<FileSystem>,
    /// On what.
    pub block_device: Option<BlockDevice>,
    /// On which machine.
    pub environment: Machine,
    /// What it was doing before the run: the kernel's average of the last minute.
    pub load_average: String,
    /// What was asked for.
    pub parameters: Parameters,
    /// Whether it was ended before it was done.
    pub interrupted: bool,
    /// All that was measured.
    pub cells: Vec<CellReport>,
    /// All that could not be.
    pub refused: Vec<Refused>,
    #[serde(skip)]
    pub(crate) measured: Vec<Measured>,
    #[serde(skip)]
    pub(crate) said: Vec<(&'static str, String)>,
}

/// Cells as the JSON has them.
pub(crate) fn cells(measured: &[Measured]) -> Vec<CellReport> {
    let report = |one: &Measured| {
        let baseline = find(measured, Cell::baseline(one.cell.bytes));
        let ratio = baseline.map(|baseline| one.figures.p50_us / baseline.p50_us);
        let p50_to_baseline = ratio.map(|ratio| (ratio * 1000.0).round() / 1000.0);
        CellReport { cell: CellName::of(&one.cell), figures: one.figures.clone(), p50_to_baseline }
    };
    measured.iter().map(report).collect()
}

fn line(out: &mut String, name: &str, text: &str) {
    writeln!(out, "{name:<10} {text}").expect("a string grows");
}

impl Report {
    /// The report for people.
    pub(crate) fn table(&self) -> String {
        let mut out = String::new();
        self.put_head(&mut out);
        let mut sizes: Vec<usize> = self.measured.iter().map(|measured| measured.cell.bytes).collect();
        sizes.sort_unstable();
        sizes.dedup();
        for bytes in sizes {
            self.put_states(&mut out, bytes);
        }
        self.put_details(&mut out);
        self.put_depths(&mut out);
        self.put_refused(&mut out);
        out.push('\n');
        let parts = [
            ("write only", self.write_p50_us, "4 KiB past the page cache, zeroed file, not durable"),
            ("flush only", self.flush_p50_us, "fdatasync with nothing to write"),
            ("TCP echo", self.echo_p50_us, "160 B over loopback to another thread and back"),
        ];
        for (name, us, what) in parts {
            if let Some(us) = us {
                line(&mut out, name, &format!("{us:.1} us  ({what})"));
            }
        }
        out.push('\n');
        for (name, text) in &self.said {
            line(&mut out, name, text);
        }
        out
    }

    fn put_head(&self, out: &mut String) {
        if self.environment.build_profile == "debug" {
            line(out, "WARNING", "this is a debug build: use cargo build --release");
        }
        if self.interrupted {
            line(out, "WARNING", "interrupted: not all was measured, or not as often as it should be");
        }
        if let Some(fs) = &self.file_system {
            if self.is_volatile {
                let text =
                    format!("{} is on {}: VOLATILE, nothing written there survives a power loss", fs.dir, fs.kind);
                line(out, "WARNING", &text);
            }
            if fs.is_served() {
                let text =
                    format!("{} is on {}: what is measured is its server, and no device of this host", fs.dir, fs.kind);
                line(out, "WARNING", &text);
            }
            line(out, "directory", &format!("{}: {} on {} ({})", fs.dir, fs.kind, fs.device, fs.options));
        }
        match &self.block_device {
            Some(device) => put_device(out, "device", device),
            None => line(out, "device", "unknown (no block device, or none that the kernel tells of)"),
        }
        line(out, "log", &format!("a server writes {} there in blocks of {} B", self.auto, self.auto_block_bytes));
        let m = &self.environment;
        let machine = format!(
            "corral-bench {} ({}), Linux {}, {} x {}",
            m.client_version, m.build_profile, m.kernel, m.cores, m.cpu_model
        );
        line(out, "machine", &machine);
        let p = &self.parameters;
        let (rounds, ms, mib) = (p.rounds, p.cell_ms, p.file_bytes >> 20);
        let cells = self.cells.len() + self.refused.len();
        line(out, "measured", &format!("{cells} cells, {rounds} x {ms} ms each, files of {mib} MiB, seed {}", p.seed));
    }

    /// One size: what the state of the file does to each mode.
    fn put_states(&self, out: &mut String, bytes: usize) {
        let at_size = |one: &&Measured| one.cell.bytes == bytes && one.cell.depth == 1;
        let cells: Vec<Cell> = self.measured.iter().filter(at_size).map(|one| one.cell).collect();
        let baseline = find(&self.measured, Cell::baseline(bytes));
        let ratios = if baseline.is_some() { " (x that of pwrite/fdatasync on a growing file)" } else { "" };
        writeln!(out, "\n{}, one at a time: p50 us{ratios}", size_name(bytes)).expect("a string grows");
        write!(out, "{:<24}", "").expect("a string grows");
        for state in STATES {
            write!(out, " {:>16}", state.name()).expect("a string grows");
        }
        out.push('\n');
        let mut modes: Vec<(LogIo, LogSync)> = Vec::new();
        for cell in &cells {
            if !modes.contains(&(cell.io, cell.sync)) {
                modes.push((cell.io, cell.sync));
            }
        }
        for (io, sync) in modes {
            let cell = |state| Cell { io, sync, state, bytes, depth: 1 };
            write!(out, "{:<24}", name_of(&cell(State::Grow))).expect("a string grows");
            for state in STATES {
                let text = match (find(&self.measured, cell(state)), baseline) {
                    (Some(found), Some(to)) => format!("{:.1} ({:.2})", found.p50_us, found.p50_us / to.p50_us),
                    (Some(found), None) => format!("{:.1}", found.p50_us),
                    (None, _) => "-".to_owned(),
                };
                write!(out, " {text:>16}").expect("a string grows");
            }
            out.push('\n');
        }
    }

    /// All figures of all modes, at the floor's size on a zeroed file, and the best one wherever it is.
    fn put_details(&self, out: &mut String) {
        let bytes = self.floor.bytes;
        let shown =
            |cell: &Cell| (cell.state, cell.bytes, cell.depth) == (State::Zeroed, bytes, 1) || self.is_best(cell);
        let mut rows: Vec<&Measured> = self.measured.iter().filter(|one| shown(&one.cell)).collect();
        rows.sort_by(|a, b| {
            let unsafe_last = b.cell.is_durable().cmp(&a.cell.is_durable());
            unsafe_last.then(a.figures.p50_us.total_cmp(&b.figures.p50_us))
        });
        let name = |one: &Measured| match one.cell.state {
            State::Zeroed => name_of(&one.cell),
            state => format!("{}, {}", name_of(&one.cell), state.name()),
        };
        let title = format!("{}, zeroed file, one at a time", size_name(bytes));
        self.put_rows(out, &title, rows.into_iter().map(|one| (name(one), one)).collect());
    }

    fn is_best(&self, cell: &Cell) -> bool {
        let Floor { mode, state, bytes, .. } = &self.floor;
        cell.mode() == *mode && (cell.state, cell.bytes, cell.depth) == (*state, *bytes, 1)
    }

    /// More than one in flight.
    fn put_depths(&self, out: &mut String) {
        let deep: Vec<Cell> = self.measured.iter().map(|one| one.cell).filter(|cell| cell.depth > 1).collect();
        let shown =
            |one: &&Measured| deep.iter().any(|cell| Cell { depth: 1, ..*cell } == Cell { depth: 1, ..one.cell });
        let mut rows: Vec<&Measured> = self.measured.iter().filter(shown).collect();
        // Stable: what differs in depth alone comes together, in the order of the plan otherwise.
        let place =
            |one: &Measured| deep.iter().position(|cell| Cell { depth: 1, ..*cell } == Cell { depth: 1, ..one.cell });
        rows.sort_by_key(|one| (place(one), one.cell.depth));
        let name = |one: &Measured| {
            let Cell { state, bytes, depth, .. } = one.cell;
            let mode = name_of(&one.cell);
            format!("{mode}, {}, {}, {depth} in flight", size_name(bytes), state.name())
        };
        if !rows.is_empty() {
            self.put_rows(out, "more than one in flight", rows.into_iter().map(|one| (name(one), one)).collect());
        }
    }

    fn put_rows(&self, out: &mut String, title: &str, rows: Vec<(String, &Measured)>) {
        let width = rows.iter().map(|(name, _)| name.len()).max().unwrap_or(0).max(title.len());
        let columns = ["p50 us", "p90 us", "p99 us", "max us", "commits/s", "CPU us each"];
        write!(out, "\n{title:<width$}").expect("a string grows");
        columns.iter().try_for_each(|column| write!(out, " {column:>11}")).expect("a string grows");
        out.push('\n');
        for (name, one) in rows {
            let f = &one.figures;
            write!(out, "{name:<width$}").expect("a string grows");
            for us in [f.p50_us, f.p90_us, f.p99_us, f.max_us] {
                write!(out, " {us:>11.1}").expect("a string grows");
            }
            let mark = if self.is_best(&one.cell) { "  <- best" } else { "" };
            writeln!(out, " {:>11.0} {:>11.1}{mark}", f.commits_per_s, f.cpu_us_per_commit).expect("a string grows");
        }
    }

    /// By reason: a reason mostly stands against many cells.
    fn put_refused(&self, out: &mut String) {
        let mut reasons: Vec<(&str, Vec<String>)> = Vec::new();
        for Refused { cell, why } in &self.refused {
            let what = format!("{} {}", cell.mode, size_name(cell.bytes));
            match reasons.iter_mut().find(|(reason, _)| reason == why) {
                Some((_, cells)) if cells.contains(&what) => {}
                Some((_, cells)) => cells.push(what),
                None => reasons.push((why, vec![what])),
            }
        }
        if !reasons.is_empty() {
            out.push_str("\nnot possible here\n");
        }
        for (why, cells) in reasons {
            writeln!(out, "  {why}: {}", cells.join(", ")).expect("a string grows");
        }
    }
}

fn name_of(cell: &Cell) -> String {
    if cell.is_durable() { cell.mode() } else { format!("{} (unsafe)", cell.mode()) }
}

fn put_device(out: &mut String, name: &str, device: &BlockDevice) {
    let unknown = || "unknown".to_owned();
    let bytes = |bytes: Option<u64>| bytes.map_or_else(unknown, |bytes| format!("{bytes} B"));
    let known = |yes: &str, no: &str, is: Option<bool>| match is {
        Some(true) => yes.to_owned(),
        Some(false) => no.to_owned(),
        None => format!("{yes}: unknown"),
    };
    let text = |text: &Option<String>| text.clone().unwrap_or_else(unknown);
    let place = device.partition.as_ref().map_or(String::new(), |partition| format!(" (partition {partition})"));
    let file = device.file.as_ref().map_or(String::new(), |file| format!(" (file {file})"));
    let first = format!(
        "{}{place}{file}: model {}, driver {}, {}, scheduler {}",
        device.name,
        text(&device.model),
        text(&device.driver),
        known("rotational", "not rotational", device.rotational),
        text(&device.scheduler)
    );
    line(out, name, &first);
    let second = format!(
        "blocks {} logical, {} physical; write cache: {}; {}",
        bytes(device.logical_block_bytes),
        bytes(device.physical_block_bytes),
        text(&device.write_cache),
        known("FUA", "no FUA", device.fua)
    );
    line(out, "", &second);
    for below in &device.below {
        put_device(out, "  on", below);
    }
}

#[cfg(test)]
mod tests {
    use super::super::figures::best;
    use super::super::figures::tests::measured;
    use super::super::plan::FLOOR_BYTES;
    use super::*;

    fn report() -> Report {
        let mut all = vec![
            measured(LogIo::UringDirect, LogSync::Dsync, State::Grow, 190.0, 40.0),
            measured(LogIo::UringDirect, LogSync::Dsync, State::Zeroed, 100.0, 27.0),
            measured(LogIo::UringDirect, LogSync::None, State::Zeroed, 50.0, 20.0),
            measured(LogIo::Pwrite, LogSync::Fdatasync, State::Grow, 200.0, 40.0),
            measured(LogIo::Pwrite, LogSync::Fdatasync, State::Zeroed, 110.0, 42.0),
        ];
        let mut deep = all[1].clone();
        deep.cell.depth = 8;
        all.push(deep);
        let file_system =
            FileSystem { dir: "/x".into(), kind: "tmpfs".into(), device: "tmpfs".into(), options: "rw".into() };
        let below = BlockDevice { name: "sda".into(), logical_block_bytes: Some(4096), ..BlockDevice::default() };
        let device = BlockDevice { name: "dm-0".into(), below: vec![below.clone()], ..BlockDevice::default() };
        let refused = |sync, bytes| {
            let cell = Cell { io: LogIo::UringDirect, sync, state: State::Zeroed, bytes, depth: 1 };
            Refused::new(&cell, "writing: Invalid argument (os error 22)", Some(&below))
        };
        Report {
            benchmark: "probe",
            floor: Floor::of(best(&all, FLOOR_BYTES).unwrap(), &all[1..2]),
            engine_p50_us: Some(101.0),
            engine_p99_us: None,
            echo_p50_us: Some(16.0),
            write_p50_us: Some(50.0),
            flush_p50_us: None,
            flush_is_free: false,
            is_volatile: true,
            auto: "uring-direct/dsync".into(),
            auto_block_bytes: 4096,
            verdict: vec![],
            file_system: Some(file_system),
            block_device: Some(device),
            environment: Machine::look(),
            load_average: "0.50".into(),
            parameters: Parameters { extent: "quick".into(), rounds: 3, cell_ms: 80, file_bytes: 32 << 20, seed: 1 },
            interrupted: false,
            cells: cells(&all),
            refused: vec![refused(LogSync::Dsync, 512), refused(LogSync::None, 512), refused(LogSync::Dsync, 512)],
            measured: all,
            said: vec![("best mode", "this one".into())],
        }
    }

    #[test]
    fn the_json_has_the_promised_names() {
        let json = serde_json::to_value(report()).unwrap();
        let floor = serde_json::json!({
            "mode": "uring-direct/dsync", "state": "zeroed", "bytes": 4096, "p50_us": 100.0, "p99_us": 200.0,
            "paced_p50_us": 100.0
        });
        assert_eq!(json["floor"], floor);
        assert_eq!((&json["echo_p50_us"], &json["benchmark"]), (&16.0.into(), &"probe".into()));
        let cell = &json["cells"][0];
        assert_eq!(
            (&cell["io"], &cell["sync"], &cell["state"]),
            (&"uring-direct".into(), &"dsync".into(), &"grow".into())
        );
        for (name, value) in [("p50_us", 190.0), ("p50_to_baseline", 0.95), ("cpu_us_per_commit", 40.0)] {
            assert_eq!(cell[name], value, "{name}");
        }
        assert!(cell["max_us"].is_number() && cell["commits_per_s"].is_number());
        assert_eq!(json["refused"][0]["bytes"], 512);
        assert_eq!(json["block_device"]["below"][0]["logical_block_bytes"], 4096);
        assert_eq!(json["file_system"]["file_system"], "tmpfs");
        assert!(json.get("measured").is_none() && json.get("said").is_none());
    }

    #[test]
    fn the_table_has_every_part_and_stays_in_line() {
        let table = report().table();
        for part in [
            "VOLATILE",
            "directory  /x: tmpfs on tmpfs (rw)",
            "device     dm-0: model unknown",
            "  on       sda: model unknown",
            "blocks 4096 B logical, unknown physical",
            "log        a server writes uring-direct/dsync there in blocks of 4096 B",
            "uring-direct/dsync           190.0 (0.95)                -     100.0 (0.50)                -\n",
            "<- best",
            "uring-direct/dsync, 4 KiB, zeroed, 8 in flight",
            "  less than the device's block of 4096 B (writing: Invalid argument (os error 22)): uring-direct/dsync 512 B, \
             uring-direct/none 512 B\n",
            "write only 50.0 us",
            "best mode  this one\n",
        ] {
            assert!(table.contains(part), "{part} is not in\n{table}");
        }
        let width = |start: &str| {
            let rows = table.lines().skip_while(|line| !line.starts_with(start)).take_while(|line| !line.is_empty());
            let widths: Vec<usize> = rows.map(|row| row.trim_end_matches("  <- best").len()).collect();
            assert!(widths.iter().all(|width| *width == widths[0]) && widths.len() > 2, "{start}:\n{table}");
        };
        width("4 KiB, zeroed file, one at a time");
        width("more than one in flight");
        let details = table.lines().skip_while(|line| !line.starts_with("4 KiB, zeroed file")).nth(1).unwrap();
        assert!(details.starts_with("uring-direct/dsync") && details.ends_with("<- best"), "{details}");
    }
}
