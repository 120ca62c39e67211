//! What the figures mean, in a few lines: which mode, what floor, and what to make of the flush.
//!
//! **Invariants**: pure; a line is there only if what it says was measured.
//!
//! **Not here**: the table ([`super::report`]).

use super::figures::{AS_GOOD, Figures, Floor, Measured, find, write_only};
use super::plan::{Cell, FLOOR_BYTES, MAIN, State, size_name};
use corral_engine::disk::block::BlockDevice;

/// A flush that is faster than this did not wait for anything to be written.
const FREE_US: f64 = 5.0;
/// Repeats that lie further apart than this say that something else was going on.
const QUIET: f64 = 1.5;

/// What there is to judge.
#[derive(Debug)]
#[allow(missing_docs, reason = "the names say it")]
pub(crate) struct Facts<'a> {
    pub measured: &'a [Measured],
    pub best: &'a Measured,
    pub paced: &'a [Measured],
    pub engine: Option<&'a Figures>,
    pub flush: Option<&'a Figures>,
    pub echo: Option<&'a Figures>,
    pub device: Option<&'a BlockDevice>,
    pub is_volatile: bool,
    /// The mode that a server picks here that is not told one.
    pub auto: &'a str,
    /// Of the machine, before the run.
    pub load_average: &'a str,
}

impl Facts<'_> {
    /// Whether making a write durable costs nothing. Some file systems skip the sync of a file that has nothing to write, so
    /// it must show in the difference between a durable write and another one, too.
    pub(crate) fn flush_is_free(&self) -> bool {
        self.flush.is_some_and(|flush| flush.p50_us < FREE_US) && self.sync_us().is_none_or(|(sync, _)| !sync)
    }

    /// Whether the sync of a direct write costs more than noise, and how much.
    fn sync_us(&self) -> Option<(bool, f64)> {
        let (io, sync) = MAIN[0];
        let durable = find(self.measured, Cell { io, sync, state: State::Zeroed, bytes: FLOOR_BYTES, depth: 1 })?;
        let write = write_only(self.measured, FLOOR_BYTES)?;
        let sync_us = durable.p50_us - write.p50_us;
        Some((sync_us > FREE_US.max(write.p50_us / 2.0), sync_us))
    }

    /// A name and a line for each thing there is to say.
    pub(crate) fn lines(&self) -> Vec<(&'static str, String)> {
        let Facts { best, .. } = self;
        let floor = Floor::of(best, self.paced);
        let mut lines = Vec::new();
        if self.is_volatile {
            lines.push((
                "VOLATILE",
                "this file system is memory: a power loss takes everything; NOTHING HERE IS A DISK'S".into(),
            ));
        }
        let Cell { io, sync, state, .. } = best.cell;
        lines.push((
            "best mode",
            format!("log.io={io} log.sync={sync}, {} file; {}", state.name(), self.about_auto(&floor)),
        ));
        let ratio = self.ratio(best.cell, Cell::baseline(floor.bytes));
        let ratio = ratio.map_or(String::new(), |ratio| format!("; {ratio:.2} of the baseline"));
        let (p50, p99, size) = (floor.p50_us, floor.p99_us, size_name(floor.bytes));
        lines.push(("floor", format!("{size}: p50 {p50:.1} us, p99 {p99:.1} us{ratio}")));
        if let Some(paced) = floor.paced_p50_us {
            let text =
                format!("p50 {paced:.1} us after a pause as between one client's requests (x{:.2})", paced / p50);
            lines.push(("paced", text));
        }
        if let Some(engine) = self.engine {
            let (to_p50, to_p99) = (engine.p50_us / p50, engine.p99_us / p99);
            let (engine_p50, engine_p99) = (engine.p50_us, engine.p99_us);
            lines.push((
                "engine",
                format!("a commit of the server's log: p50 {engine_p50:.1} us (x{to_p50:.2}), p99 {engine_p99:.1} us (x{to_p99:.2})"),
            ));
        }
        if let Some(echo) = self.echo {
            let (echo, sum) = (echo.p50_us, p50 + echo.p50_us);
            lines.push(("target", format!("floor + echo = {p50:.1} + {echo:.1} = {sum:.1} us for one client's write")));
        }
        lines.extend(self.about_flush().map(|text| ("flush", text)));
        lines.extend(self.about_files().map(|text| ("files", text)));
        let Figures { p50_us_low: low, p50_us_high: high, .. } = best.figures;
        if high > low * QUIET {
            lines.push((
                "noise",
                format!(
                "the floor's repeats lie between {low:.1} and {high:.1} us: something else was going on (load average before: {})",
                self.load_average
            ),
            ));
        }
        lines
    }

    fn ratio(&self, cell: Cell, to: Cell) -> Option<f64> {
        Some(find(self.measured, cell)?.p50_us / find(self.measured, to)?.p50_us)
    }

    fn about_auto(&self, floor: &Floor) -> String {
        if self.auto == floor.mode {
            return "auto picks it, too".to_owned();
        }
        let same = |measured: &&Measured| {
            let Cell { state, bytes, depth, .. } = measured.cell;
            measured.cell.mode() == self.auto && (state, bytes, depth) == (floor.state, floor.bytes, 1)
        };
        let low = self.best.figures.p50_us_low;
        let slower = self.measured.iter().find(same).map(|measured| measured.figures.p50_us_low / low);
        let slower = match slower {
            Some(ratio) if ratio <= AS_GOOD => ", which is as good".to_owned(),
            Some(ratio) => format!(" (x{ratio:.2})"),
            None => String::new(),
        };
        format!("auto picks {}{slower}", self.auto)
    }

    fn about_flush(&self) -> Option<String> {
        let flush = self.flush?.p50_us;
        let cache = self.device.and_then(|device| device.write_cache.as_deref());
        if self.flush_is_free() {
            let why = match cache {
                _ if self.is_volatile => " (here: not durable)",
                Some("write through") => " (the device says that it has no volatile cache)",
                _ => "",
            };
            return Some(format!("flush is free: power-loss protection, or not durable{why}"));
        }
        let fua = self.device.and_then(|device| device.fua) == Some(true);
        let fua = if fua { "; the device has FUA: a direct dsync write can do without" } else { "" };
        match self.sync_us() {
            Some((true, sync)) if flush < FREE_US => Some(format!(
                "syncing a file with nothing to write is skipped here; syncing a direct write costs {sync:.1} us{fua}"
            )),
            _ => Some(format!("a flush takes {flush:.1} us{fua}")),
        }
    }

    /// What preparing the file is worth, in the best mode.
    fn about_files(&self) -> Option<String> {
        let to = |state| self.ratio(Cell { state, ..self.best.cell }, Cell { state: State::Grow, ..self.best.cell });
        let (prealloc, zeroed) = (to(State::Prealloc)?, to(State::Zeroed)?);
        let fallocate = if prealloc < 0.95 { "allocated" } else { "only allocated (which does not help)" };
        Some(format!("against a growing file: {fallocate} x{prealloc:.2}, written beforehand x{zeroed:.2}"))
    }
}

#[cfg(test)]
mod tests {
    use super::super::figures::tests::{figures, measured};
    use super::*;
    use corral_engine::disk::{LogIo, LogSync};

    fn cells(durable: f64, write: f64) -> Vec<Measured> {
        vec![
            measured(LogIo::UringDirect, LogSync::Dsync, State::Zeroed, durable, 27.0),
            measured(LogIo::UringDirect, LogSync::None, State::Zeroed, write, 20.0),
            measured(LogIo::Pwrite, LogSync::Fdatasync, State::Grow, 200.0, 40.0),
            measured(LogIo::UringDirect, LogSync::Dsync, State::Grow, 190.0, 40.0),
            measured(LogIo::UringDirect, LogSync::Dsync, State::Prealloc, 228.0, 40.0),
        ]
    }

    fn facts<'a>(measured: &'a [Measured], flush: &'a Figures, device: &'a BlockDevice) -> Facts<'a> {
        let (device, auto, load_average) = (Some(device), "uring-direct/dsync", "1.50");
        let (best, is_volatile, flush) = (&measured[0], false, Some(flush));
        let (paced, engine) = (&measured[..1], flush);
        Facts { measured, best, paced, engine, flush, echo: flush, device, is_volatile, auto, load_average }
    }

    fn text(facts: &Facts<'_>) -> String {
        facts.lines().iter().map(|(name, text)| format!("{name}: {text}\n")).collect()
    }

    #[test]
    fn mode_floor_and_target_are_named() {
        let (cells, flush, device) = (cells(100.0, 50.0), figures(52.0, 1.0), BlockDevice::default());
        let text = text(&facts(&cells, &flush, &device));
        for part in [
            "best mode: log.io=uring-direct log.sync=dsync, zeroed file; auto picks it, too\n",
            "floor: 4 KiB: p50 100.0 us, p99 200.0 us; 0.50 of the baseline\n",
            "paced: p50 100.0 us after a pause as between one client's requests (x1.00)\n",
            "engine: a commit of the server's log: p50 52.0 us (x0.52), p99 104.0 us (x0.52)\n",
            "target: floor + echo = 100.0 + 52.0 = 152.0 us",
            "flush: a flush takes 52.0 us\n",
            "files: against a growing file: only allocated (which does not help) x1.20, written beforehand x0.53\n",
        ] {
            assert!(text.contains(part), "{part} is not in\n{text}");
        }
        assert!(!text.contains("noise") && !text.contains("VOLATILE"), "{text}");
    }

    #[test]
    fn a_free_flush_is_told_from_one_that_was_skipped() {
        let free = "flush is free: power-loss protection, or not durable";
        let (plp, skips) = (cells(21.0, 20.0), cells(400.0, 20.0));
        let flush = figures(1.0, 1.0);
        let device = BlockDevice { write_cache: Some("write through".into()), ..BlockDevice::default() };
        assert!(text(&facts(&plp, &flush, &device)).contains(&format!("{free} (the device says")));
        let skipped = text(&facts(&skips, &flush, &device));
        assert!(!skipped.contains(free) && skipped.contains("costs 380.0 us"), "{skipped}");
        let memory = Facts { is_volatile: true, ..facts(&plp, &flush, &device) };
        let memory = text(&memory);
        assert!(memory.starts_with("VOLATILE") && memory.contains(&format!("{free} (here: not durable)")), "{memory}");
    }

    #[test]
    fn what_was_not_quiet_and_what_auto_would_do_worse_is_said() {
        let (mut cells, flush) = (cells(100.0, 50.0), figures(52.0, 1.0));
        cells[0].figures.p50_us_high = 300.0;
        cells.push(measured(LogIo::Pwrite, LogSync::Fdatasync, State::Zeroed, 150.0, 42.0));
        let device = BlockDevice { fua: Some(true), ..BlockDevice::default() };
        let text = text(&Facts { auto: "pwrite/fdatasync", ..facts(&cells, &flush, &device) });
        for part in [
            "auto picks pwrite/fdatasync (x1.50)",
            "between 90.0 and 300.0 us",
            "load average before: 1.50",
            "the device has FUA",
        ] {
            assert!(text.contains(part), "{part} is not in\n{text}");
        }
    }
}
