//! What a running server says about itself in numbers: `mntr`, as Apache ZooKeeper prints it, with the histograms' summaries
//! behind it; and `hist`, the histograms themselves.
//!
//! A line of `hist` is `zk_<name>_<unit>`, a tab, and `value:count` pairs, smallest value first ([`Histogram`]'s text). All of
//! them count from the server's start, so the difference of two readings is what happened between them, to the last write.
//!
//! **Invariant**: the same names in both words, in reports and in the code ([`Stage::name`]).

use super::report::{ServerReport, VERSION};
use crate::stages::Stage;
use corral_engine::histogram::Histogram;
use corral_proto::peer::PeerState;
use std::fmt::{Display, Write};

/// What a histogram counts, and how a summary of it is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Unit {
    /// Kept in ns, summed up in µs with three decimals.
    Time,
    /// Things.
    Records,
    Bytes,
}

impl Unit {
    /// In the name of a summary, and in that of the histogram.
    const fn suffixes(self) -> (&'static str, &'static str) {
        match self {
            Unit::Time => ("us", "ns"),
            Unit::Records => ("records", "records"),
            Unit::Bytes => ("bytes", "bytes"),
        }
    }
}

fn histograms(report: &ServerReport) -> Vec<(String, Unit, Histogram)> {
    let (stages, replica) = (report.stages(), report.replica());
    let stage = |stage: Stage| (format!("stage_{}", stage.name()), Unit::Time, stages.of(stage).clone());
    let log = replica.histograms;
    let rest = [
        ("log_write", Unit::Time, log.write),
        ("log_flush", Unit::Time, log.flush),
        ("log_batch", Unit::Records, log.batch_records),
        ("log_batch", Unit::Bytes, log.batch_bytes),
        ("log_segment_wait", Unit::Time, log.segment_wait),
        ("snapshot", Unit::Time, replica.snapshots),
    ];
    let rest = rest.map(|(name, unit, histogram)| (name.to_owned(), unit, histogram));
    Stage::ALL.map(stage).into_iter().chain(rest).collect()
}

/// The histograms.
pub(super) fn hist(report: &ServerReport) -> String {
    let mut out = String::new();
    for (name, unit, histogram) in histograms(report) {
        let _ = writeln!(out, "zk_{name}_{}\t{histogram}", unit.suffixes().1);
    }
    out
}

/// The metrics.
pub(super) fn mntr(report: &ServerReport, mode: &str) -> String {
    let (all, replica) = (report.totals(), report.replica());
    let log = replica.log;
    let mut out = String::new();
    let mut put = |key: &str, value: &dyn Display| {
        let _ = writeln!(out, "zk_{key}\t{value}");
    };
    put("version", &VERSION);
    put("server_state", &mode);
    put("avg_latency", &average_ms(all.latency.sum_us, all.latency.count));
    put("max_latency", &all.latency.max_us.div_ceil(1000));
    put("min_latency", &(all.latency.min_us / 1000));
    put("packets_received", &all.received);
    put("packets_sent", &all.sent);
    put("num_alive_connections", &report.conns().count());
    put("outstanding_requests", &report.outstanding());
    put("znode_count", &replica.nodes);
    put("watch_count", &report.watches());
    put("slow_watchers_closed", &all.slow_watchers);
    put("auth_failed_count", &all.auth_failures);
    put("ephemerals_count", &replica.ephemerals);
    put("approximate_data_size", &replica.bytes);
    put("global_sessions", &replica.sessions);
    put("digest_mismatches_count", &replica.differences);
    put("uptime", &report.uptime_ms);
    put("open_file_descriptor_count", &report.descriptors.0);
    put("max_file_descriptor_count", &report.descriptors.1);
    put("commit_count", &log.records);
    put("fsync_threshold_exceed_count", &replica.slow_syncs);
    put("cnt_fsynctime", &log.batches);
    put("sum_fsynctime", &(replica.sync_sum_us / 1000));
    put("max_fsynctime", &(replica.sync_max_us / 1000));
    if let Some((PeerState::Leading, (followers, observers))) = replica.state.filter(|_| !replica.alone) {
        put("learners", &(followers + observers));
        put("synced_followers", &followers);
        put("synced_observers", &observers);
    }
    let snapshots = replica.snapshots.summary();
    put("cnt_snapshottime", &snapshots.count);
    put("sum_snapshottime", &((snapshots.sum / 1e6) as u64));
    put("max_snapshottime", &(snapshots.max / 1_000_000));
    put("cnt_sync_processor_batch_size", &log.batches);
    put("sum_sync_processor_batch_size", &log.records);
    put("avg_sync_processor_batch_size", &ratio(log.records, log.batches));
    put("log_records", &log.records);
    put("log_batches", &log.batches);
    put("log_record_bytes", &log.record_bytes);
    put("log_written_bytes", &log.written_bytes);
    put("log_segments", &log.segments);
    put("log_segment_waits", &log.segment_waits);
    put("log_segment_failures", &log.segment_failures);
    put("log_bytes_left", &replica.log_room);
    put("log_backlog_bytes", &replica.log_backlog);
    put("log_waits_ms", &replica.log_waits_ms);
    put("learner_queue_bytes", &replica.learner_queue);
    put("snapshot_failures", &replica.snapshot_failures);
    for (name, unit, histogram) in histograms(report) {
        let (all, suffix) = (histogram.summary(), unit.suffixes().0);
        let mut put = |of: &str, value: f64| match unit {
            Unit::Time => put(&format!("{name}_{suffix}_{of}"), &format_args!("{:.3}", value / 1e3)),
            _ => put(&format!("{name}_{suffix}_{of}"), &format_args!("{value:.1}")),
        };
        put("mean", all.mean());
        put("p50", all.p50 as f64);
        put("p99", all.p99 as f64);
        put("p99_9", all.p99_9 as f64);
        put("max", all.max as f64);
    }
    out
}

/// The mean of times in µs, in ms.
pub(super) fn average_ms(sum_us: u64, count: u64) -> String {
    ratio(sum_us, count * 1000)
}

/// As Apache prints a mean: at most four decimals, at least one.
fn ratio(sum: u64, count: u64) -> String {
    let mean = if count == 0 { 0.0 } else { sum as f64 / count as f64 };
    let text = format!("{mean:.4}");
    let text = text.trim_end_matches('0');
    if text.ends_with('.') { format!("{text}0") } else { text.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn means_are_printed_as_apache_does() {
        assert_eq!([ratio(0, 0), ratio(29, 3), ratio(4, 2), ratio(1, 8)], ["0.0", "9.6667", "2.0", "0.125"]);
    }
}
