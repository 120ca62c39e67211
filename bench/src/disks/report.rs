//! What a comparison has found, for people (a table) and for programs (JSON). Both are made from one [`Report`].
//!
//! **Invariants**: the names in the JSON are promised to scripts; every cell is among `cells`, and if it failed, among `failures`.
//!
//! **Not here**: measuring; who wins ([`super::figures`]).

use super::figures::{Figures, Round};
use super::plan::Cell;
use crate::environment::Machine;
use crate::probe::figures::{Floor, median, tenths};
use crate::report::grouped;
use corral_engine::disk::block::BlockDevice;
use corral_engine::disk::filesystem::FileSystem;
use serde::Serialize;
use std::fmt::Write;

/// A directory that was named.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Place {
    /// As it was named.
    pub dir: String,
    /// Where it lies.
    #[serde(rename = "storage")]
    pub file_system: Option<FileSystem>,
    /// On what.
    pub block_device: Option<BlockDevice>,
    /// The p50 of a durable append of 4 KiB, one for each round, in µs.
    #[serde(rename = "floor_rounds_p50_us")]
    pub floors: Vec<f64>,
    /// The same after a pause as between one client's requests.
    #[serde(rename = "paced_rounds_p50_us")]
    pub paced: Vec<f64>,
    /// Its median round.
    pub floor: Option<Floor>,
    /// A message over loopback and back.
    pub echo_p50_us: Option<f64>,
    /// Why there is no floor.
    pub why_no_floor: Option<String>,
}

impl Place {
    /// One more round's floor and echo.
    pub(crate) fn measured(&mut self, floor: Floor, echo_us: f64) {
        self.floors.push(floor.p50_us);
        self.paced.extend(floor.paced_p50_us);
        let middle = |rounds: &Vec<f64>| (!rounds.is_empty()).then(|| tenths(median(rounds.clone())));
        let p50_us = middle(&self.floors).expect("one was pushed just now");
        self.echo_p50_us = Some(self.echo_p50_us.map_or(echo_us, |before| before.min(echo_us)));
        self.floor = Some(Floor { p50_us, paced_p50_us: middle(&self.paced), ..floor });
    }

    /// What one client's write cannot be faster than: the floor and an echo.
    pub(crate) fn expected_us(&self) -> Option<f64> {
        Some(tenths(self.floor.as_ref()?.p50_us + self.echo_p50_us?))
    }

    /// Whether a power loss takes all that is written there.
    pub(crate) fn is_volatile(&self) -> bool {
        self.file_system.as_ref().is_some_and(FileSystem::is_volatile)
    }

    fn line(&self) -> String {
        let mut out = self.dir.clone();
        if let Some(file_system) = &self.file_system {
            write!(out, ": {} on {}", file_system.kind, file_system.device).expect("a string grows");
        }
        if let Some(device) = &self.block_device {
            out.extend(device.model.iter().map(|model| format!(" ({model})")));
        }
        match (&self.floor, self.echo_p50_us, &self.why_no_floor) {
            (Some(floor), Some(echo), _) => {
                let paced = floor.paced_p50_us.map_or(String::new(), |paced| format!(", {paced} us after a pause"));
                write!(out, "; floor {} us ({}, 4 KiB{paced}) + TCP echo {echo} us", floor.p50_us, floor.mode)
                    .expect("a string grows")
            }
            (_, _, Some(why)) => write!(out, "; no floor: {why}").expect("a string grows"),
            _ => {}
        }
        if self.is_volatile() {
            out.push_str("; NOTHING IS DURABLE THERE");
        }
        if self.file_system.as_ref().is_some_and(FileSystem::is_served) {
            out.push_str("; no device of this host");
        }
        out
    }
}

/// A cell.
#[derive(Clone, Debug, Serialize)]
#[allow(missing_docs, reason = "the names say it")]
pub(crate) struct CellReport {
    pub mode: String,
    pub log_dir: String,
    pub data_dir: String,
    pub settings: Vec<String>,
    pub durable: bool,
    /// Medians over the rounds; none if the cell failed.
    pub figures: Option<Figures>,
    /// The p50 of one write at a time against floor + echo.
    pub to_floor: Option<f64>,
    pub rounds: Vec<Round>,
}

impl CellReport {
    /// As measured; `floor` is what it is compared with, in µs.
    pub(crate) fn new(
        cell: &Cell,
        durable: bool,
        rounds: Vec<Round>,
        figures: Option<Figures>,
        floor: Option<f64>,
    ) -> CellReport {
        let ratio = |figures: &Figures| Some((figures.single.p50_us / floor? * 100.0).round() / 100.0);
        CellReport {
            mode: cell.mode(),
            log_dir: cell.log_dir.display().to_string(),
            data_dir: cell.data_dir.display().to_string(),
            settings: cell.settings(),
            durable,
            to_floor: figures.as_ref().and_then(ratio),
            figures,
            rounds,
        }
    }
}

/// A cell that could not be measured.
#[derive(Clone, Debug, Serialize)]
#[allow(missing_docs, reason = "the names say it")]
pub(crate) struct Failure {
    pub mode: String,
    pub log_dir: String,
    pub why: String,
}

/// What was asked for; `rounds` are those that are whole.
#[derive(Clone, Debug, Serialize)]
#[allow(missing_docs, reason = "the names say it")]
pub(crate) struct Parameters {
    pub rounds: usize,
    pub duration_s: f64,
    pub warmup_s: f64,
    pub connections: usize,
    pub outstanding: usize,
    pub value_size: usize,
    pub seed: u64,
}

/// A comparison.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Report {
    /// What kind of report this is.
    pub benchmark: &'static str,
    /// The winner's place in `cells`: durable, and the lowest p50 of one write at a time.
    pub winner: Option<usize>,
    /// Cells that these rounds cannot tell from the winner.
    pub as_good: Vec<usize>,
    /// Durable, and the most writes a second.
    pub most_ops_per_s: Option<usize>,
    /// All of them, in the order of the options.
    pub cells: Vec<CellReport>,
    /// Those that failed, and why.
    pub failures: Vec<Failure>,
    /// The directories, and what each can do by itself.
    pub places: Vec<Place>,
    /// On which machine.
    pub environment: Machine,
    /// What it was doing before the run: the kernel's average of the last minute.
    pub load_average: String,
    /// What was asked for.
    pub parameters: Parameters,
    /// Whether rounds are missing.
    pub interrupted: bool,
}

impl Report {
    /// The report for people.
    pub(crate) fn table(&self) -> String {
        let mut out = String::new();
        self.put_head(&mut out);
        let names = self.cells.iter().map(|cell| cell.mode.len()).max().unwrap_or(0).max(20);
        let several = self.places.len() > 1;
        let p = &self.parameters;
        let many = format!("{} x {}", p.connections, p.outstanding);
        writeln!(out, "{:names$}   {:^53} {:^34}", "", "1 x 1", many).expect("a string grows");
        writeln!(
            out,
            "{:names$}   {:>8} {:>15} {:>8} {:>8} {:>9} {:>11} {:>10} {:>10}",
            "us", "p50", "rounds", "p99", "p99.9", "x floor", "writes/s", "p99", "cpu/write"
        )
        .expect("a string grows");
        let mut order: Vec<usize> = (0..self.cells.len()).filter(|at| self.cells[*at].figures.is_some()).collect();
        let p50 = |at: &usize| self.cells[*at].figures.as_ref().map_or(0.0, |figures| figures.single.p50_us);
        order.sort_by(|a, b| p50(a).total_cmp(&p50(b)));
        for at in order {
            let cell = &self.cells[at];
            let Some(figures) = &cell.figures else { continue };
            let mark = match () {
                () if Some(at) == self.winner => '*',
                () if self.as_good.contains(&at) => '=',
                () if !cell.durable => '!',
                () => ' ',
            };
            let (single, many) = (&figures.single, &figures.many);
            let rounds = format!("{}-{}", grouped(figures.p50_us_low, 0), grouped(figures.p50_us_high, 0));
            let to_floor = cell.to_floor.map_or("-".to_owned(), |ratio| format!("{ratio:.2}"));
            writeln!(
                out,
                "{mark} {:names$} {:>8} {rounds:>15} {:>8} {:>8} {to_floor:>9} {:>11} {:>10} {:>10.2}",
                cell.mode,
                grouped(single.p50_us, 1),
                grouped(single.p99_us, 0),
                grouped(single.p99_9_us, 0),
                grouped(many.ops_per_s, 0),
                grouped(many.p99_us, 0),
                many.server_cpu_us_per_op,
            )
            .expect("a string grows");
            if several {
                writeln!(out, "    log in {}, snapshots in {}", cell.log_dir, cell.data_dir).expect("a string grows");
            }
        }
        self.put_end(&mut out);
        out
    }

    fn put_head(&self, out: &mut String) {
        let mut line = |name: &str, text: &str| writeln!(out, "{name:<10} {text}").expect("a string grows");
        let (m, p) = (&self.environment, &self.parameters);
        if m.build_profile == "debug" {
            line("WARNING", "this is a debug build: its numbers say nothing, use cargo build --release");
        }
        line(
            "disks",
            &format!(
                "set of {} bytes; {} rounds of {} cells in random order; each load {} s after {} s of warm-up",
                p.value_size,
                p.rounds,
                self.cells.len(),
                p.duration_s,
                p.warmup_s
            ),
        );
        line(
            "machine",
            &format!(
                "Linux {}, {} x {}, load average {}; corral {} ({})",
                m.kernel, m.cores, m.cpu_model, self.load_average, m.client_version, m.build_profile
            ),
        );
        self.places.iter().for_each(|place| line("directory", &place.line()));
        if self.interrupted {
            line("WARNING", "interrupted: rounds are missing");
        }
        out.push('\n');
    }

    fn put_end(&self, out: &mut String) {
        let name = |at: usize| {
            let cell = &self.cells[at];
            if self.places.len() > 1 { format!("{} in {}", cell.mode, cell.log_dir) } else { cell.mode.clone() }
        };
        out.push('\n');
        for failure in &self.failures {
            writeln!(out, "failed     {} in {}: {}", failure.mode, failure.log_dir, failure.why)
                .expect("a string grows");
        }
        if self.cells.iter().any(|cell| !cell.durable && cell.figures.is_some()) {
            out.push_str(
                "!          not durable: a power loss takes acknowledged writes with it; for comparison only\n",
            );
        }
        let Some(winner) = self.winner else { return };
        let cell = &self.cells[winner];
        let figures = cell.figures.as_ref().expect("it won by them");
        let single = &figures.single;
        writeln!(
            out,
            "winner (*) {}: {} us, of which its log {} us and the device {} us",
            name(winner),
            single.p50_us,
            single.log_p50_us,
            single.device_p50_us
        )
        .expect("a string grows");
        if !self.as_good.is_empty() {
            let others: Vec<String> = self.as_good.iter().map(|at| name(*at)).collect();
            writeln!(out, "as good (=) for all that these rounds can tell: {}", others.join("; "))
                .expect("a string grows");
        }
        if let Some(most) = self.most_ops_per_s.filter(|most| *most != winner) {
            let rate = self.cells[most].figures.as_ref().map_or(0.0, |figures| figures.many.ops_per_s);
            writeln!(out, "most writes {}: {}/s", name(most), grouped(rate, 0)).expect("a string grows");
        }
        let dirs = [format!("dataDir={}", cell.data_dir), format!("dataLogDir={}", cell.log_dir)];
        // Nobody has named the current directory: only the mode is news.
        let dirs = dirs.into_iter().filter(|_| cell.log_dir != ".");
        let lines: Vec<String> = dirs.chain(cell.settings.iter().cloned()).collect();
        writeln!(out, "zoo.cfg    {}", lines.join("\n           ")).expect("a string grows");
    }
}

#[cfg(test)]
mod tests {
    use super::super::figures::tests::figures;
    use super::*;

    fn report() -> Report {
        let cell = |io: &str, sync: &str| Cell {
            log_dir: "/log".into(),
            data_dir: "/data".into(),
            io: io.into(),
            sync: sync.into(),
            others: vec![],
        };
        let made = |cell: &Cell, p50: f64| {
            CellReport::new(
                cell,
                cell.is_durable(),
                vec![],
                Some(figures(&[p50, p50 + 1.0, p50 + 2.0], 4e5)),
                Some(100.0),
            )
        };
        let (a, b, c) = (cell("uring-direct", "dsync"), cell("pwrite", "none"), cell("pwrite", "fsync"));
        Report {
            benchmark: "disks",
            winner: Some(0),
            as_good: vec![],
            most_ops_per_s: Some(0),
            cells: vec![made(&a, 120.0), made(&b, 40.0), CellReport::new(&c, true, vec![], None, None)],
            failures: vec![Failure { mode: c.mode(), log_dir: "/log".into(), why: "no such luck".into() }],
            places: vec![],
            environment: Machine::look(),
            load_average: "0.10".into(),
            parameters: Parameters {
                rounds: 3,
                duration_s: 1.0,
                warmup_s: 0.5,
                connections: 16,
                outstanding: 64,
                value_size: 100,
                seed: 1,
            },
            interrupted: false,
        }
    }

    #[test]
    fn the_table_names_the_winner_what_is_not_durable_and_what_failed() {
        let table = report().table();
        for part in [
            "* uring-direct/dsync",
            "! pwrite/none",
            "failed     pwrite/fsync in /log: no such luck",
            "dataLogDir=/log",
        ] {
            assert!(table.contains(part), "{part} is not in\n{table}");
        }
        assert!(table.contains(" 1.21 "), "121 us on a floor of 100:\n{table}");
        assert!(table.lines().all(|line| line.len() <= 120), "{table}");
    }

    #[test]
    fn the_json_has_the_promised_names() {
        let json = serde_json::to_value(report()).unwrap();
        assert_eq!((&json["benchmark"], &json["winner"]), (&"disks".into(), &0.into()));
        assert_eq!(json["cells"][0]["figures"]["single"]["p50_us"], 121.0);
        assert_eq!(json["cells"][0]["to_floor"], 1.21);
        assert_eq!(json["cells"][1]["durable"], false);
        assert!(json["cells"][2]["figures"].is_null());
        assert_eq!(json["failures"][0]["why"], "no such luck");
    }

    #[test]
    fn the_floor_is_the_median_of_its_rounds() {
        let mut place = super::super::place(std::path::Path::new("."));
        for (p50_us, echo_us) in [(100.0, 15.0), (900.0, 14.0), (104.0, 99.0)] {
            let (mode, state, paced_p50_us) = ("m".into(), crate::probe::State::Zeroed, Some(p50_us + 1.0));
            let floor = Floor { mode, state, bytes: 4096, p50_us, p99_us: 1.0, paced_p50_us };
            place.measured(floor, echo_us);
        }
        let floor = place.floor.as_ref().unwrap();
        assert_eq!((floor.p50_us, floor.paced_p50_us, place.expected_us()), (104.0, Some(105.0), Some(118.0)));
    }
}
