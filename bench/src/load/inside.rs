//! What the server says of its own part in a run: where the time of a write went, stage by stage, and what its log's device did.
//!
//! The word `hist` prints histograms that count from the server's start; two readings, at both edges of the measured window, give
//! exactly what happened inside it. A server that does not know the word (any but Corral) is simply not listed.
//!
//! **Invariant**: what cannot be read is left out, never guessed.

use corral_engine::histogram::{Histogram, Summary};
use corral_net::client::four_letter_word;
use serde::Serialize;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::net::SocketAddr;
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(3);

/// The stages in the order of a write's way.
const STAGES: [&str; 7] = ["decode", "queue", "sequence", "log", "quorum", "apply", "reply"];

/// One histogram of the server, over the window.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Distribution {
    /// As the server calls it, without `zk_` and the unit.
    pub name: String,
    /// `us`, `records` or `bytes`.
    pub unit: &'static str,
    pub count: u64,
    pub mean: f64,
    pub p50: f64,
    pub p99: f64,
    pub p99_9: f64,
    pub max: f64,
}

impl Distribution {
    fn of(name: &str, histogram: &Histogram) -> Option<Distribution> {
        let (name, unit) = name.strip_prefix("zk_")?.rsplit_once('_')?;
        let (unit, scale) = match unit {
            "ns" => ("us", 1e3),
            "records" => ("records", 1.0),
            "bytes" => ("bytes", 1.0),
            _ => return None,
        };
        let all: Summary = histogram.summary();
        let scaled = |value: f64| (value / scale * 1e3).round() / 1e3;
        Some(Distribution {
            name: name.to_owned(),
            unit,
            count: all.count,
            mean: scaled(all.mean()),
            p50: scaled(all.p50 as f64),
            p99: scaled(all.p99 as f64),
            p99_9: scaled(all.p99_9 as f64),
            max: scaled(all.max as f64),
        })
    }
}

/// The server's part in a run.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub(crate) struct Inside {
    /// The stages of a write, in the order of its way.
    pub stages: Vec<Distribution>,
    /// What else the server counted in histograms, if anything was.
    pub other: Vec<Distribution>,
}

/// One reading of the server's histograms; empty if it has none.
pub(crate) type Reading = BTreeMap<String, Histogram>;

/// Reads them.
pub(crate) fn read(address: SocketAddr) -> Reading {
    parse(&four_letter_word(address, "hist", PATIENCE).unwrap_or_default())
}

fn parse(answer: &str) -> Reading {
    let histogram = |line: &str| {
        let (name, pairs) = line.split_once('\t')?;
        Some((name.to_owned(), Histogram::parse(pairs)?))
    };
    answer.lines().filter_map(histogram).collect()
}

impl Inside {
    /// What happened between two readings.
    pub(crate) fn between(before: &Reading, after: &Reading) -> Inside {
        let mut found = BTreeMap::new();
        for (name, later) in after {
            let between = before.get(name).map_or_else(|| later.clone(), |earlier| later.since(earlier));
            found.extend(Distribution::of(name, &between).map(|it| ((it.name.clone(), it.unit), it)));
        }
        let stages = STAGES.iter().filter_map(|stage| found.remove(&(format!("stage_{stage}"), "us"))).collect();
        Inside { stages, other: found.into_values().filter(|it| it.count > 0).collect() }
    }

    /// The median of one of them, in µs.
    pub(crate) fn p50_us(&self, name: &str) -> Option<f64> {
        self.stages.iter().chain(&self.other).find(|it| it.name == name && it.unit == "us").map(|it| it.p50)
    }

    /// True if the server told nothing.
    pub(crate) fn is_empty(&self) -> bool {
        self.stages.iter().all(|stage| stage.count == 0)
    }

    /// The mean time of a write in the server, in µs: what its stages add up to.
    pub(crate) fn mean_us(&self) -> f64 {
        self.stages.iter().map(|stage| stage.mean).sum()
    }

    /// The tables for people.
    pub(crate) fn table(&self) -> String {
        let mut out = String::new();
        if self.is_empty() {
            return out;
        }
        let mut row = |name: &str, cells: [&str; 6]| {
            write!(out, "{name:<19}").expect("a string grows");
            cells.iter().for_each(|cell| write!(out, " {cell:>12}").expect("a string grows"));
            out.push('\n');
        };
        let cells = |it: &Distribution| {
            let decimals = if it.unit == "us" { 2 } else { 0 };
            let number = |value: f64| format!("{value:.decimals$}");
            [it.mean, it.p50, it.p99, it.p99_9, it.max].map(number)
        };
        let whole = self.mean_us();
        row("in the server us", ["% of mean", "mean", "p50", "p99", "p99.9", "max"]);
        for stage in &self.stages {
            let [mean, p50, p99, p99_9, max] = cells(stage);
            let share = format!("{:.1}", 100.0 * stage.mean / whole);
            row(stage.name.trim_start_matches("stage_"), [&share, &mean, &p50, &p99, &p99_9, &max]);
        }
        row("sum of the means", ["100.0", &format!("{whole:.2}"), "", "", "", ""]);
        if !self.other.is_empty() {
            row("\nits disk", ["count", "mean", "p50", "p99", "p99.9", "max"]);
        }
        for it in &self.other {
            let [mean, p50, p99, p99_9, max] = cells(it);
            let name = format!("{} {}", it.name.replace('_', " "), it.unit);
            row(&name, [&it.count.to_string(), &mean, &p50, &p99, &p99_9, &max]);
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_happened_between_the_readings_counts() {
        let before = parse("zk_stage_log_ns\t1000000:500\nzk_stage_apply_ns\t\nzk_log_batch_records\t1:9\n");
        let after =
            parse("zk_stage_log_ns\t90000:3 1000000:500\nzk_stage_apply_ns\t80:3\nzk_log_batch_records\t1:12\n");
        let inside = Inside::between(&before, &after);
        let names: Vec<_> = inside.stages.iter().map(|it| (it.name.as_str(), it.count)).collect();
        assert_eq!(names, [("stage_log", 3), ("stage_apply", 3)], "in the order of a write's way");
        assert!((inside.stages[0].p50 / 90.0 - 1.0).abs() < 0.01, "{inside:?}");
        assert_eq!(inside.stages[1].p50, 0.08, "sub-microsecond stages are not rounded away");
        assert_eq!((inside.other.len(), inside.other[0].unit, inside.other[0].count), (1, "records", 3));
        let table = inside.table();
        assert!(table.contains("apply") && table.contains("0.08"), "{table}");
    }

    #[test]
    fn a_server_that_does_not_know_the_word_is_not_listed() {
        let none = Inside::between(&parse(""), &parse("hist is not executed because it is not in the whitelist.\n"));
        assert!(none.is_empty() && none.table().is_empty());
    }
}
