//! The four-letter words: what they are and what they print. Formats are Apache ZooKeeper's, because scripts parse them;
//! times there are whole milliseconds.
//!
//! **Not here**: `mntr` and `hist` ([`super::metrics`]).

use super::environment::memory;
use super::metrics::{average_ms, hist, mntr};
use super::report::{ConnReport, ServerFacts, ServerReport, VERSION};
use crate::requests::session::round_up;
use corral_proto::{OpCode, SessionId};
use jiff::Timestamp;
use jiff::tz::TimeZone;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::time::Duration;

/// The words that Apache knows, and `hist`. Only the first four bytes of a connection are looked at.
pub const KNOWN: [&str; 19] = [
    "conf", "cons", "crst", "dirs", "dump", "envi", "gtmk", "hash", "hist", "isro", "mntr", "ruok", "srst", "srvr",
    "stat", "stmk", "wchc", "wchp", "wchs",
];

/// The word that these four bytes are.
pub fn parse(bytes: [u8; 4]) -> Option<&'static str> {
    KNOWN.into_iter().find(|word| word.as_bytes() == bytes)
}

/// What a word that is not whitelisted is answered.
pub fn not_allowed(word: &str) -> String {
    format!("{word} is not executed because it is not in the whitelist.\n")
}

/// Apache's default for what it traces. Nothing is traced here.
const TRACE_MASK: &str = "306";

/// What Apache answers while it looks for a leader.
const NOT_SERVING: &str = "This ZooKeeper instance is not currently serving requests\n";

/// The answer to a word.
pub fn answer(word: &str, facts: &ServerFacts, report: &ServerReport) -> String {
    match (word, report.replica().mode()) {
        ("ruok", _) => "imok".to_owned(),
        ("isro", None) => "null".to_owned(),
        ("isro", Some(_)) => "rw".to_owned(),
        ("envi", _) => envi(facts),
        ("gtmk" | "stmk", _) => TRACE_MASK.to_owned(),
        (_, None) => NOT_SERVING.to_owned(),
        (word, Some(mode)) => answer_in(mode, word, facts, report),
    }
}

/// The answer of a server that serves, in this mode.
fn answer_in(mode: &str, word: &str, facts: &ServerFacts, report: &ServerReport) -> String {
    match word {
        "srvr" => srvr(report, mode, false),
        "stat" => srvr(report, mode, true),
        "cons" => report.conns().map(full_line).collect::<String>() + "\n",
        "conf" => conf(facts),
        "mntr" => mntr(report, mode),
        "hist" => hist(report),
        "crst" => "Connection stats reset.\n".to_owned(),
        "srst" => "Server stats reset.\n".to_owned(),
        "dump" => dump(facts, report, mode),
        "hash" => hash(report),
        "wchs" => watch_summary(report),
        "wchc" => listed(watched(report).map(|(session, path)| (session.to_string(), path.to_owned()))),
        "wchp" => listed(watched(report).map(|(session, path)| (path.to_owned(), session.to_string()))),
        "dirs" => {
            format!("datadir_size: {}\nlogdir_size: {}\n", size_of(&facts.data_dir), size_of(&facts.log_dir))
        }
        word => unreachable!("{word} is no word"),
    }
}

fn srvr(report: &ServerReport, mode: &str, clients: bool) -> String {
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
         Mode: {mode}\nNode count: {}\n",
        all.latency.min_us / 1000,
        average_ms(all.latency.sum_us, all.latency.count),
        // Rounded up: the mean beside it has fractions, and must not be the larger of the two.
        all.latency.max_us.div_ceil(1000),
        all.received,
        all.sent,
        report.conns().count(),
        report.outstanding(),
        replica.zxid,
        replica.nodes,
    );
    if mode == "leader" {
        let sizes = replica.proposal_bytes.map(|sizes| sizes.map(|bytes| bytes as i64));
        let [last, min, max] = sizes.unwrap_or([-1; 3]);
        let _ = writeln!(out, "Proposal sizes last/min/max: {last}/{min}/{max}");
    }
    out
}

/// The digest of the tree after some of the newest transactions: to be compared with what other members say.
fn hash(report: &ServerReport) -> String {
    let lists = report.replica().lists.unwrap_or_default();
    lists.digests.iter().map(|(zxid, digest)| format!("{:x}: {digest}\n", zxid.0)).collect()
}

fn dump(facts: &ServerFacts, report: &ServerReport, mode: &str) -> String {
    let lists = report.replica().lists.unwrap_or_default();
    let mut out = "SessionTracker dump:\n".to_owned();
    if matches!(mode, "leader" | "standalone") {
        let sets = lists.expiries.iter().map(|(at, ids)| (*at, ids.iter().map(SessionId::to_string).collect()));
        out += &expiries("Session", report, sets.collect());
    } else {
        let _ = writeln!(out, "Global Sessions({}):", lists.sessions.len());
        lists.sessions.iter().for_each(|(session, timeout_ms)| _ = writeln!(out, "{session}\t{timeout_ms}ms"));
    }
    let _ = writeln!(out, "ephemeral nodes dump:\nSessions with Ephemerals ({}):", lists.ephemerals.len());
    for (session, paths) in &lists.ephemerals {
        let _ = writeln!(out, "{session}:");
        paths.iter().for_each(|path| _ = writeln!(out, "\t{path}"));
    }
    let mut sets: BTreeMap<Duration, Vec<String>> = BTreeMap::new();
    for conn in report.conns() {
        let Some((session, timeout_ms)) = conn.session else { continue };
        let at = round_up(conn.counters.last_at + Duration::from_millis(timeout_ms.max(0) as u64), facts.tick);
        sets.entry(at).or_default().push(format!("ip: /{} sessionId: {session}", conn.remote));
    }
    out + "Connections dump:\n" + &expiries("Connections", report, sets)
}

/// What expires when, as Apache's `ExpiryQueue` prints it; the times are since the server's start.
fn expiries(what: &str, report: &ServerReport, sets: BTreeMap<Duration, Vec<String>>) -> String {
    let mut out = format!("{what} Sets ({})/({}):\n", sets.len(), sets.values().map(Vec::len).sum::<usize>());
    for (at, all) in &sets {
        let at_ms = report.wall_ms + (at.as_millis() as i64 - report.uptime_ms as i64);
        let date = Timestamp::from_millisecond(at_ms).unwrap_or_default().to_zoned(TimeZone::UTC);
        let _ = writeln!(out, "{} expire at {}:", all.len(), date.strftime("%a %b %d %H:%M:%S UTC %Y"));
        all.iter().for_each(|one| _ = writeln!(out, "\t{one}"));
    }
    out
}

/// Which sessions watch the data of which nodes.
fn watched(report: &ServerReport) -> impl Iterator<Item = (SessionId, &str)> {
    let all = report.cores.iter().flat_map(|core| &core.watched);
    all.flat_map(|(session, paths)| paths.iter().map(|path| (*session, &**path)))
}

fn watch_summary(report: &ServerReport) -> String {
    let (mut sessions, mut paths, mut watches) = (BTreeSet::new(), BTreeSet::new(), 0);
    for (session, path) in watched(report) {
        sessions.insert(session);
        paths.insert(path);
        watches += 1;
    }
    format!("{} connections watching {} paths\nTotal watches:{watches}\n", sessions.len(), paths.len())
}

/// Each first once, with its seconds below it.
fn listed(pairs: impl Iterator<Item = (String, String)>) -> String {
    let mut lists: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    pairs.for_each(|(first, second)| _ = lists.entry(first).or_default().insert(second));
    let mut out = String::new();
    for (first, seconds) in lists {
        let _ = writeln!(out, "{first}");
        seconds.iter().for_each(|second| _ = writeln!(out, "\t{second}"));
    }
    out + "\n"
}

fn envi(facts: &ServerFacts) -> String {
    let mut out = "Environment:\n".to_owned();
    for (key, value) in facts.environment.iter().chain(&memory()) {
        let _ = writeln!(out, "{key}={value}");
    }
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
        ",lzxid={},lresp={},llat={},minlat={},avglat={},maxlat={})",
        counters.last_zxid,
        counters.last_at.as_millis(),
        counters.last_us / 1000,
        counters.latency.min_us / 1000,
        counters.latency.sum_us / counters.latency.count.max(1) / 1000,
        counters.latency.max_us.div_ceil(1000),
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
    facts.membership.iter().for_each(|members| _ = write!(out, "membership: \n{members}"));
    out
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
    fn words_are_known_by_their_four_bytes() {
        assert_eq!(parse(*b"ruok"), Some("ruok"));
        assert_eq!(parse(*b"RUOK"), None);
        assert_eq!(parse([0, 0, 0, 44]), None);
    }
}
