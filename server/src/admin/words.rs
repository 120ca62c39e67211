//! The four-letter words: what they are and what they print. Formats are Apache ZooKeeper's, because scripts parse them;
//! times there are whole milliseconds. What Corral adds comes last and in microseconds.

use super::report::{ConnReport, ServerFacts, ServerReport};
use corral_proto::OpCode;
use std::fmt::Write;

/// What a server says it is, in place of Apache's version line.
pub const VERSION: &str = concat!("corral-", env!("CARGO_PKG_VERSION"));

/// The words that Apache knows. Only their first four bytes of a connection are looked at.
pub const KNOWN: [&str; 18] = [
    "conf", "cons", "crst", "dirs", "dump", "envi", "gtmk", "hash", "isro", "mntr", "ruok", "srst", "srvr", "stat",
    "stmk", "wchc", "wchp", "wchs",
];

/// The word that these four bytes are.
pub fn parse(bytes: [u8; 4]) -> Option<&'static str> {
    KNOWN.into_iter().find(|word| word.as_bytes() == bytes)
}

/// What a word that is not whitelisted is answered.
pub fn not_allowed(word: &str) -> String {
    format!("{word} is not executed because it is not in the whitelist.\n")
}

/// The answer to a word.
pub fn answer(word: &str, facts: &ServerFacts, report: &ServerReport) -> String {
    match word {
        "ruok" => "imok".to_owned(),
        "isro" => "rw".to_owned(),
        "srvr" => srvr(report, false),
        "stat" => srvr(report, true),
        "cons" => report.conns().map(full_line).collect::<String>() + "\n",
        "conf" => conf(facts),
        "mntr" => mntr(report),
        "dirs" => {
            format!("datadir_size: {}\nlogdir_size: {}\n", size_of(&facts.data_dir), size_of(&facts.log_dir))
        }
        _ => format!("{word} is not supported yet by this server.\n"),
    }
}

fn srvr(report: &ServerReport, clients: bool) -> String {
    let (all, replica) = (report.totals(), report.replica());
    let mut out = format!("Zookeeper version: {VERSION}\n");
    if clients {
        out.push_str("Clients:\n");
        report.conns().for_each(|conn| out.push_str(&brief_line(conn)));
        out.push('\n');
    }
    let _ = write!(
        out,
        "Latency min/avg/max: {}/{}/{}\nReceived: {}\nSent: {}\nConnections: {}\nOutstanding: {}\nZxid: {}\n\
         Mode: standalone\nNode count: {}\n",
        all.latency.min_us / 1000,
        average_ms(all.latency.sum_us, all.latency.count),
        all.latency.max_us / 1000,
        all.received,
        all.sent,
        report.conns().count(),
        report.outstanding(),
        replica.zxid,
        replica.nodes,
    );
    out
}

fn brief_line(conn: &ConnReport) -> String {
    let interest = u8::from(conn.session.is_some());
    let (waiting, received, sent) = (conn.outstanding, conn.counters.received, conn.counters.sent);
    format!(" /{}[{interest}](queued={waiting},recved={received},sent={sent})\n", conn.remote)
}

fn full_line(conn: &ConnReport) -> String {
    let Some((session, timeout_ms)) = conn.session else { return brief_line(conn) };
    let counters = &conn.counters;
    let mut out = brief_line(conn).trim_end_matches(")\n").to_owned();
    let op = counters.last_op.map_or("NA", OpCode::short_name);
    let _ = write!(out, ",sid={session},lop={op},est={},to={timeout_ms}", conn.since_ms);
    if counters.last_xid.0 >= 0 {
        let _ = write!(out, ",lcxid=0x{:x}", counters.last_xid.0);
    }
    let _ = writeln!(
        out,
        ",lzxid={},lresp=0,llat={},minlat={},avglat={},maxlat={})",
        counters.last_zxid,
        counters.last_us / 1000,
        counters.latency.min_us / 1000,
        counters.latency.sum_us / counters.latency.count.max(1) / 1000,
        counters.latency.max_us / 1000,
    );
    out
}

fn conf(facts: &ServerFacts) -> String {
    let mut out = String::new();
    for (key, value) in &facts.conf {
        let _ = writeln!(out, "{key}={value}");
        match *key {
            "dataDir" => {
                let _ = writeln!(out, "dataDirSize={}", size_of(&facts.data_dir));
            }
            "dataLogDir" => {
                let _ = writeln!(out, "dataLogSize={}", size_of(&facts.log_dir));
            }
            _ => {}
        }
    }
    out
}

fn mntr(report: &ServerReport) -> String {
    let (all, replica) = (report.totals(), report.replica());
    let log = replica.log;
    let mut out = String::new();
    let mut put = |key: &str, value: &dyn std::fmt::Display| {
        let _ = writeln!(out, "zk_{key}\t{value}");
    };
    put("version", &VERSION);
    put("server_state", &"standalone");
    put("avg_latency", &average_ms(all.latency.sum_us, all.latency.count));
    put("max_latency", &(all.latency.max_us / 1000));
    put("min_latency", &(all.latency.min_us / 1000));
    put("packets_received", &all.received);
    put("packets_sent", &all.sent);
    put("num_alive_connections", &report.conns().count());
    put("outstanding_requests", &report.outstanding());
    put("znode_count", &replica.nodes);
    put("watch_count", &report.watches());
    put("ephemerals_count", &replica.ephemerals);
    put("approximate_data_size", &replica.bytes);
    put("global_sessions", &replica.sessions);
    put("uptime", &report.uptime_ms);
    put("open_file_descriptor_count", &report.descriptors.0);
    put("max_file_descriptor_count", &report.descriptors.1);
    put("commit_count", &log.records);
    put("fsync_threshold_exceed_count", &replica.slow_syncs);
    put("cnt_fsynctime", &log.batches);
    put("sum_fsynctime", &(replica.sync_sum_us / 1000));
    put("max_fsynctime", &(replica.sync_max_us / 1000));
    put("cnt_snapshottime", &replica.snapshots.count);
    put("sum_snapshottime", &replica.snapshots.sum_ms);
    put("max_snapshottime", &replica.snapshots.max_ms);
    put("cnt_sync_processor_batch_size", &log.batches);
    put("sum_sync_processor_batch_size", &log.records);
    put("avg_sync_processor_batch_size", &ratio(log.records, log.batches));
    put("log_records", &log.records);
    put("log_batches", &log.batches);
    put("log_batch_records_mean", &ratio(log.records, log.batches));
    put("log_record_bytes", &log.record_bytes);
    put("log_written_bytes", &log.written_bytes);
    put("log_write_us_mean", &ratio(replica.sync_sum_us, log.batches));
    put("log_write_us_max", &replica.sync_max_us);
    put("log_segments", &log.segments);
    put("log_segment_waits", &log.segment_waits);
    out
}

fn average_ms(sum_us: u64, count: u64) -> String {
    ratio(sum_us, count * 1000)
}

/// As Apache prints a mean: at most four decimals, at least one.
fn ratio(sum: u64, count: u64) -> String {
    let mean = if count == 0 { 0.0 } else { sum as f64 / count as f64 };
    let text = format!("{mean:.4}");
    let text = text.trim_end_matches('0');
    if text.ends_with('.') { format!("{text}0") } else { text.to_owned() }
}

fn size_of(dir: &std::path::Path) -> u64 {
    let Ok(entries) = std::fs::read_dir(dir) else { return 0 };
    entries
        .flatten()
        .map(|entry| match entry.metadata() {
            Ok(data) if data.is_dir() => size_of(&entry.path()),
            Ok(data) => data.len(),
            Err(_) => 0,
        })
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn means_are_printed_as_apache_does() {
        assert_eq!([ratio(0, 0), ratio(29, 3), ratio(4, 2), ratio(1, 8)], ["0.0", "9.6667", "2.0", "0.125"]);
    }

    #[test]
    fn words_are_known_by_their_four_bytes() {
        assert_eq!(parse(*b"ruok"), Some("ruok"));
        assert_eq!(parse(*b"RUOK"), None);
        assert_eq!(parse([0, 0, 0, 44]), None);
    }
}
