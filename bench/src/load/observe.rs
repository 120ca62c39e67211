//! What can be seen of the server while it is under load: its CPU time, if it runs on this machine, and its own numbers.
//!
//! All of it is best effort: a server that does not answer `mntr` or `srvr` is measured all the same.
//!
//! **Not here**: when to look (the run does, at the edges of its window).

use corral_net::client::four_letter_word;
use serde_json::{Map, Number, Value};
use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(3);

/// What a metric's name must contain to say something about the way of a write.
const OF_INTEREST: [&str; 4] = ["log_", "batch", "stage", "fsync"];
/// Where in a name it shows that the value only grows, so that the difference over the window is what counts.
const COUNTER_STARTS: [&str; 2] = ["zk_cnt_", "zk_sum_"];
const COUNTER_ENDS: [&str; 11] = [
    "_count",
    "_sum",
    "_total",
    "_bytes",
    "_writes",
    "_batches",
    "_records",
    "_segments",
    "_txns",
    "_waits",
    "_failures",
];

/// The summaries of what is read as whole histograms ([`super::inside`]); a percentile since the start says nothing of the window.
const SUMMARY_ENDS: [&str; 5] = ["_mean", "_p50", "_p99", "_p99_9", "_max"];

/// User and system time of a process, all its threads together; `None` if there is no such process.
pub(crate) fn cpu_time(pid: u32) -> Option<Duration> {
    parse_stat(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?, rustix::param::clock_ticks_per_second())
}

fn parse_stat(stat: &str, ticks_per_second: u64) -> Option<Duration> {
    // The second field is the command's name in parentheses and may contain anything, also parentheses.
    let mut fields = stat[stat.rfind(')')? + 1..].split_ascii_whitespace().skip(11);
    let (user, system): (u64, u64) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
    Some(Duration::from_secs_f64((user + system) as f64 / ticks_per_second as f64))
}

/// What `srvr` says about version and mode.
pub(crate) fn version_and_mode(address: SocketAddr) -> (Option<String>, Option<String>) {
    let answer = four_letter_word(address, "srvr", PATIENCE).unwrap_or_default();
    let after = |head: &str| answer.lines().find_map(|line| line.strip_prefix(head)).map(|rest| rest.trim().to_owned());
    // Corral and Apache ZooKeeper call themselves differently at the beginning of the line.
    let version = answer.lines().next().filter(|line| line.contains("version")).map(|line| line.trim().to_owned());
    (version, after("Mode:"))
}

/// The numbers of `mntr`, empty if the server does not tell them.
pub(crate) fn metrics(address: SocketAddr) -> BTreeMap<String, f64> {
    parse_metrics(&four_letter_word(address, "mntr", PATIENCE).unwrap_or_default())
}

fn parse_metrics(answer: &str) -> BTreeMap<String, f64> {
    let number = |line: &str| {
        let (name, value) = line.split_once('\t')?;
        Some((name.to_owned(), value.trim().parse::<f64>().ok().filter(|value| value.is_finite())?))
    };
    answer.lines().filter(|line| line.starts_with("zk_")).filter_map(number).collect()
}

/// The metrics of interest: what counters grew by, and where other values ended.
pub(crate) fn over_the_window(before: &BTreeMap<String, f64>, after: &BTreeMap<String, f64>) -> Map<String, Value> {
    let mut kept = Map::new();
    for (name, value) in after {
        let is_summary = SUMMARY_ENDS.iter().any(|end| name.ends_with(end));
        if is_summary || !OF_INTEREST.iter().any(|part| name.contains(part)) {
            continue;
        }
        let counts = COUNTER_STARTS.iter().any(|start| name.starts_with(start))
            || COUNTER_ENDS.iter().any(|end| name.ends_with(end));
        let value = if counts { value - before.get(name).unwrap_or(&0.0) } else { *value };
        let number = if value.fract() == 0.0 && value.abs() < 9e15 {
            Some(Number::from(value as i64))
        } else {
            Number::from_f64(value)
        };
        kept.extend(number.map(|number| (name.clone(), Value::Number(number))));
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_in_proc_stat_may_contain_anything() {
        let stat = "42 (a ) b) S 1 2 3 4 5 6 7 8 9 10 250 50 0 0 20 0 37 0 9 9 9";
        assert_eq!(parse_stat(stat, 100), Some(Duration::from_secs(3)));
        assert_eq!(parse_stat("42 (short) S 1 2", 100), None);
        assert!(cpu_time(std::process::id()).is_some());
    }

    #[test]
    fn counters_are_differences_and_the_rest_is_as_it_ended() {
        let before = parse_metrics("zk_cnt_fsynctime\t10\nzk_log_bytes\t1000\nzk_znode_count\t5\n");
        let after = parse_metrics(
            "zk_version\t3.9.5-x, built on y\nzk_cnt_fsynctime\t25\nzk_log_bytes\t4000\nzk_znode_count\t9\n\
             zk_p99_batch_size\t12.5\nzk_avg_batch_size\tNaN\nnot a metric\n",
        );
        let kept = over_the_window(&before, &after);
        let expected = [("zk_cnt_fsynctime", "15"), ("zk_log_bytes", "3000"), ("zk_p99_batch_size", "12.5")];
        assert_eq!(kept.len(), expected.len());
        for (name, value) in expected {
            assert_eq!(kept[name].to_string(), value);
        }
    }
}
