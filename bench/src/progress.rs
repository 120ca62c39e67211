//! One line that lives while a run does, on a terminal only: into a file or a pipe nothing is written.
//!
//! **Not here**: what is measured; this shows the running totals, warm-up included.

use crate::load::measure::Live;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::io::{self, IsTerminal};
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

/// The line.
#[derive(Debug)]
pub(crate) struct Progress {
    bar: ProgressBar,
    shown: (u64, u64, u64),
}

impl Progress {
    /// No line, for a run that is part of another one.
    pub(crate) fn hidden() -> Progress {
        Progress { bar: ProgressBar::hidden(), shown: (0, 0, 0) }
    }

    /// The load will take so long.
    pub(crate) fn takes(&self, length: Duration) {
        self.bar.set_length(length.as_millis() as u64);
    }

    /// A line for a run.
    pub(crate) fn start() -> Progress {
        let target =
            if io::stderr().is_terminal() { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        let style = ProgressStyle::with_template("{prefix:>8} [{bar:24}] {wide_msg}").expect("a valid template");
        let bar = ProgressBar::with_draw_target(None, target).with_style(style.progress_chars("=> "));
        Progress { bar, shown: (0, 0, 0) }
    }

    /// Says what is being done, before and after the load itself.
    pub(crate) fn phase(&self, phase: &'static str, what: String) {
        self.bar.set_prefix(phase);
        self.bar.set_message(what);
        self.bar.tick();
    }

    /// Shows the load `at_ms` after its begin: what came since the last time it was shown.
    pub(crate) fn show(&mut self, at_ms: u64, is_warmup: bool, live: &Live) {
        let (since_ms, completed_before, latency_before) = self.shown;
        let (completed, latency) = (live.completed.load(Relaxed), live.latency_ns.load(Relaxed));
        self.shown = (at_ms, completed, latency);
        let (ops, ms) = (completed - completed_before, at_ms.saturating_sub(since_ms).max(1));
        let mean_us = (latency.saturating_sub(latency_before)) as f64 / ops.max(1) as f64 / 1e3;
        self.bar.set_prefix(if is_warmup { "warm-up" } else { "load" });
        self.bar.set_position(at_ms);
        self.bar.set_message(format!(
            "{:5.1} s  {:>8.0} ops/s  mean {mean_us:>9.1} us  {} errors",
            at_ms as f64 / 1e3,
            ops as f64 * 1e3 / ms as f64,
            live.errors.load(Relaxed),
        ));
    }

    /// Takes the line away.
    pub(crate) fn clear(&self) {
        self.bar.finish_and_clear();
    }
}
