//! What a run has found, for people (a table) and for programs (JSON). Both are made from one [`Report`].
//!
//! **Invariants**: times are microseconds with one decimal; the names in the JSON are promised to scripts.
//!
//! **Not here**: measuring.

use crate::environment::Machine;
use crate::load::inside::Inside;
use crate::load::measure::{Tally, histogram};
use crate::load::workload::Operation;
use corral_engine::disk::filesystem::FileSystem;
use hdrhistogram::Histogram;
use serde::Serialize;
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::fmt::Write;

/// A distribution of latencies in µs.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[allow(missing_docs, reason = "the names say it")]
pub(crate) struct Latency {
    pub count: u64,
    pub min: f64,
    pub mean: f64,
    pub p50: f64,
    pub p90: f64,
    pub p99: f64,
    pub p99_9: f64,
    pub p99_99: f64,
    pub max: f64,
}

impl Latency {
    /// Of a histogram in nanoseconds.
    pub(crate) fn of(histogram: &Histogram<u64>) -> Latency {
        let us = |ns: f64| (ns / 100.0).round() / 10.0;
        let at = |quantile: f64| us(histogram.value_at_quantile(quantile).min(histogram.max()) as f64);
        Latency {
            count: histogram.len(),
            min: us(if histogram.is_empty() { 0 } else { histogram.min() } as f64),
            mean: us(histogram.mean()),
            p50: at(0.5),
            p90: at(0.9),
            p99: at(0.99),
            p99_9: at(0.999),
            p99_99: at(0.9999),
            max: us(histogram.max() as f64),
        }
    }
}

/// Errors inside the measured window.
#[derive(Clone, Debug, Default, Serialize)]
#[allow(missing_docs, reason = "the names say it")]
pub(crate) struct Errors {
    pub total: u64,
    pub by_kind: BTreeMap<String, u64>,
}

/// CPU time in µs, for each operation completed.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct CpuPerOp {
    /// Of the load threads.
    pub client: Option<f64>,
    /// Of the server's process, if it was named.
    pub server: Option<f64>,
}

/// A server as it describes itself.
#[derive(Clone, Debug, Serialize)]
#[allow(missing_docs, reason = "the names say it")]
pub(crate) struct Server {
    pub address: String,
    pub version: Option<String>,
    pub mode: Option<String>,
}

/// What was asked for.
#[derive(Clone, Debug, Serialize)]
#[allow(missing_docs, reason = "they are the options")]
pub(crate) struct Parameters {
    pub workload: &'static str,
    pub read_ratio: Option<f64>,
    #[serde(rename = "loop")]
    pub loop_kind: &'static str,
    pub rate: Option<f64>,
    pub arrivals: Option<crate::load::plan::Arrivals>,
    pub connections: usize,
    pub outstanding: usize,
    pub threads: usize,
    pub value_size: usize,
    pub keys: usize,
    pub warmup_s: f64,
    pub duration_s: f64,
    pub session_timeout_ms: u64,
    pub seed: u64,
    pub root: String,
    pub server_settings: Vec<String>,
}

/// Where and how it was measured.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Environment {
    /// The client's machine.
    #[serde(flatten)]
    pub machine: Machine,
    /// As on the command line, or the embedded server's address.
    pub hosts: Vec<String>,
    /// True if the server ran in this process.
    pub embedded: bool,
    /// What each host says.
    pub servers: Vec<Server>,
    /// What the embedded server's data lay on.
    pub storage: Option<FileSystem>,
    /// What was asked for.
    pub parameters: Parameters,
}

/// A run.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Report {
    /// What kind of report this is.
    pub benchmark: &'static str,
    /// Answers without error inside the window, a second.
    pub ops_per_s: f64,
    /// The same, all together.
    pub ops: u64,
    /// Length of the window.
    pub seconds: f64,
    /// What failed.
    pub errors: Errors,
    /// From the intended start.
    pub latency_us: Latency,
    /// The same for each operation.
    pub latency_by_operation_us: BTreeMap<&'static str, Latency>,
    /// From the actual send; the difference to `latency_us` is what coordinated omission would have hidden. Only in an
    /// open loop.
    pub latency_from_send_us: Option<Latency>,
    /// Due requests that could not be sent until the end; `latency_us` has them with the time they had waited by then.
    pub unsent: u64,
    /// Lost connections.
    pub reconnects: u64,
    /// The longest time in ms in which no connection got an answer without error.
    pub longest_silence_ms: u64,
    /// CPU time.
    pub cpu_us_per_op: CpuPerOp,
    /// Where the time went inside the server, in its own words.
    pub inside: Inside,
    /// What the server's other metrics say about the window.
    pub server: Map<String, Value>,
    /// Where it was measured.
    pub environment: Environment,
}

impl Report {
    /// Puts together what was counted and observed.
    pub(crate) fn new(
        tally: &Tally,
        seconds: f64,
        server_cpu_us: Option<f64>,
        server: Map<String, Value>,
        inside: Inside,
        environment: Environment,
    ) -> Report {
        let mut all = histogram();
        let mut latency_by_operation_us = BTreeMap::new();
        for (operation, latencies) in Operation::ALL.iter().zip(&tally.from_intended) {
            if !latencies.is_empty() {
                all.add(latencies).expect("all histograms have the same bounds");
                latency_by_operation_us.insert(operation.name(), Latency::of(latencies));
            }
        }
        let one_decimal = |value: f64| (value * 10.0).round() / 10.0;
        let client_us = (tally.completed > 0).then(|| tally.client_cpu_ns as f64 / 1e3 / tally.completed as f64);
        Report {
            benchmark: "load",
            ops_per_s: if seconds > 0.0 { one_decimal(tally.completed as f64 / seconds) } else { 0.0 },
            ops: tally.completed,
            seconds: (seconds * 1e3).round() / 1e3,
            errors: Errors { total: tally.errors.values().sum(), by_kind: tally.errors.clone() },
            latency_us: Latency::of(&all),
            latency_by_operation_us,
            latency_from_send_us: environment.parameters.rate.map(|_| Latency::of(&tally.from_send)),
            unsent: tally.unsent,
            reconnects: tally.reconnects,
            longest_silence_ms: tally.silence.longest_ms(),
            cpu_us_per_op: CpuPerOp {
                client: client_us.map(|us| (us * 100.0).round() / 100.0),
                server: server_cpu_us.map(|us| (us * 100.0).round() / 100.0),
            },
            inside,
            server,
            environment,
        }
    }

    /// What must be known before the numbers are believed.
    pub(crate) fn warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        if self.environment.machine.build_profile == "debug" {
            warnings.push("this is a debug build: its numbers say nothing, use cargo build --release".into());
        }
        if let Some(storage) = self.environment.storage.as_ref().filter(|storage| storage.is_volatile()) {
            warnings.push(format!(
                "{} is on {}: NOTHING WAS DURABLE here, these are not the latencies of a disk",
                storage.dir, storage.kind
            ));
        }
        if self.unsent > 0 {
            warnings.push(format!(
                "{} requests were due but could not be sent until the end: the rate is more than the server or \
                 --outstanding allows; their waiting is counted as far as it had come",
                grouped(self.unsent as f64, 0)
            ));
        }
        warnings
    }

    /// The report for people.
    pub(crate) fn table(&self) -> String {
        let mut out = String::new();
        let p = &self.environment.parameters;
        let mut line = |name: &str, text: &str| {
            writeln!(out, "{name:<10} {text}").expect("a string grows");
        };
        for warning in self.warnings() {
            line("WARNING", &warning);
        }
        let what = match p.read_ratio {
            Some(ratio) => format!("{} ({:.0} % get)", p.workload, ratio * 100.0),
            None => p.workload.to_owned(),
        };
        let keys = if p.keys > 0 { format!(", {} keys", p.keys) } else { String::new() };
        line("workload", &format!("{what}, values of {} bytes{keys}", p.value_size));
        let pace = match (p.rate, p.arrivals) {
            (Some(rate), Some(arrivals)) => format!(
                "open loop, {} a second ({}), at most {} outstanding on each",
                grouped(rate, if rate.fract() == 0.0 { 0 } else { 2 }),
                format!("{arrivals:?}").to_lowercase(),
                p.outstanding
            ),
            _ => format!("closed loop, {} outstanding on each", p.outstanding),
        };
        line("load", &format!("{} connections, {pace}; {} client threads", p.connections, p.threads));
        for server in &self.environment.servers {
            let mut text = server.address.clone();
            for part in [&server.mode, &server.version].into_iter().flatten() {
                write!(text, ", {part}").expect("a string grows");
            }
            line("server", &text);
        }
        if let Some(storage) = &self.environment.storage {
            line("storage", &format!("{} on {} ({})", storage.dir, storage.device, storage.kind));
        }
        let m = &self.environment.machine;
        line(
            "client",
            &format!(
                "corral-bench {} ({}), Linux {}, {} x {}",
                m.client_version, m.build_profile, m.kernel, m.cores, m.cpu_model
            ),
        );
        line("measured", &format!("{:.1} s after {:.1} s of warm-up\n", self.seconds, p.warmup_s));

        line("ops/s", &grouped(self.ops_per_s, 0));
        let kinds: Vec<_> = self.errors.by_kind.iter().map(|(kind, count)| format!("{count} {kind}")).collect();
        let kinds = if kinds.is_empty() { String::new() } else { format!(" ({})", kinds.join(", ")) };
        line("errors", &format!("{}{kinds}", self.errors.total));
        if self.reconnects > 0 {
            line("reconnects", &self.reconnects.to_string());
            line("no answers", &format!("for {} ms at the longest", self.longest_silence_ms));
        }
        let cpu = &self.cpu_us_per_op;
        let parts = [("client", cpu.client), ("server", cpu.server)];
        let parts: Vec<_> = parts.iter().filter_map(|(who, us)| us.map(|us| format!("{who} {us:.2}"))).collect();
        if !parts.is_empty() {
            line("cpu us/op", &parts.join(", "));
        }
        out.push('\n');
        self.put_latencies(&mut out);
        if !self.inside.is_empty() {
            out.push('\n');
            out.push_str(&self.inside.table());
        }
        let mut telling = self.server.iter().filter(|(_, value)| value.as_f64() != Some(0.0)).peekable();
        if telling.peek().is_some() {
            out.push_str("\nits other metrics (counters: over the window)\n");
            for (name, value) in telling {
                writeln!(out, "  {name:<44} {value}").expect("a string grows");
            }
        }
        out
    }

    fn put_latencies(&self, out: &mut String) {
        let mut rows: Vec<(String, &Latency)> = Vec::new();
        if self.latency_by_operation_us.len() > 1 {
            rows.extend(self.latency_by_operation_us.iter().map(|(name, latency)| ((*name).to_owned(), latency)));
        }
        let from = if self.latency_from_send_us.is_some() { "from intended start" } else { "all" };
        rows.push((from.to_owned(), &self.latency_us));
        rows.extend(self.latency_from_send_us.iter().map(|latency| ("from actual send".to_owned(), latency)));
        let names = rows.iter().map(|(name, _)| name.len()).max().unwrap_or(0).max("latency us".len());
        let columns = ["p50", "p90", "p99", "p99.9", "p99.99", "max"];
        write!(out, "{:<names$}", "latency us").expect("a string grows");
        for column in columns {
            write!(out, " {column:>12}").expect("a string grows");
        }
        out.push('\n');
        for (name, l) in rows {
            write!(out, "{name:<names$}").expect("a string grows");
            for us in [l.p50, l.p90, l.p99, l.p99_9, l.p99_99, l.max] {
                write!(out, " {:>12}", grouped(us, 1)).expect("a string grows");
            }
            out.push('\n');
        }
    }
}

/// A number with a comma between thousands.
pub(crate) fn grouped(value: f64, decimals: usize) -> String {
    let text = format!("{value:.decimals$}");
    let whole = text.find('.').unwrap_or(text.len());
    let mut out = String::new();
    for (place, digit) in text.char_indices() {
        if place > 0 && place < whole && (whole - place).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::load::inside::Inside;
    use crate::load::measure::{InFlight, Window};
    use crate::load::plan::Arrivals;

    fn report(rate: Option<f64>) -> Report {
        let second = 1_000_000_000;
        let mut tally = Tally::new(Window { begin: 0, from: 0, end: 2 * second }, rate.is_some());
        for n in 1..=1000 {
            let operation = if n % 10 == 0 { Operation::Set } else { Operation::Get };
            let request = InFlight { intended: 0, sent: n * 500, xid: 1, operation };
            tally.answered(&request, n * 1000);
        }
        tally.failed("no_node", 3, second);
        tally.client_cpu_ns = 3_250_000;
        let parameters = Parameters {
            workload: "mixed",
            read_ratio: Some(0.9),
            loop_kind: "open",
            rate,
            arrivals: rate.map(|_| Arrivals::Poisson),
            connections: 4,
            outstanding: 8,
            threads: 1,
            value_size: 100,
            keys: 1000,
            warmup_s: 1.0,
            duration_s: 2.0,
            session_timeout_ms: 30_000,
            seed: 1,
            root: "/r".into(),
            server_settings: vec![],
        };
        let storage =
            FileSystem { dir: "/x".into(), kind: "tmpfs".into(), device: "tmpfs".into(), options: "rw".into() };
        let environment = Environment {
            machine: Machine::look(),
            hosts: vec!["h:2181".into()],
            embedded: true,
            servers: vec![Server { address: "h:2181".into(), version: None, mode: Some("standalone".into()) }],
            storage: Some(storage),
            parameters,
        };
        Report::new(&tally, 2.0, Some(21.987), Map::new(), Inside::default(), environment)
    }

    #[test]
    fn the_json_has_the_promised_names() {
        let json = serde_json::to_value(report(Some(500.0))).unwrap();
        assert_eq!(json["ops_per_s"], 500.0);
        assert_eq!(json["errors"], serde_json::json!({"total": 3, "by_kind": {"no_node": 3}}));
        for (name, us) in [("p50", 500.0), ("p90", 900.0), ("p99", 990.0), ("p99_9", 999.0), ("max", 1000.0)] {
            let found = json["latency_us"][name].as_f64().unwrap();
            assert!((found / us - 1.0).abs() < 0.002, "{name}: {found}");
        }
        assert!(json["latency_us"]["p99_99"].is_number() && json["environment"]["kernel"].is_string());
        assert_eq!(json["environment"]["parameters"]["loop"], "open");
        assert_eq!(json["latency_by_operation_us"]["set"]["count"], 100);
        // All answers came in the first of the two seconds.
        assert_eq!((json["reconnects"].as_u64(), json["longest_silence_ms"].as_u64()), (Some(0), Some(1998)));
        assert_eq!(json["cpu_us_per_op"], serde_json::json!({"client": 3.25, "server": 21.99}));
        assert!(serde_json::to_value(report(None)).unwrap()["latency_from_send_us"].is_null());
    }

    #[test]
    fn the_table_is_aligned_and_says_what_matters() {
        let table = report(Some(500.0)).table();
        let rows: Vec<&str> = table.lines().skip_while(|line| !line.starts_with("latency us")).collect();
        assert_eq!(rows.len(), 5, "{table}");
        assert!(rows.iter().all(|row| row.len() == rows[0].len()), "{table}");
        assert!(rows[3].starts_with("from intended start") && rows[4].starts_with("from actual send"), "{table}");
        for part in ["NOTHING WAS DURABLE", "3 (3 no_node)", "client 3.25, server 21.99", "mixed (90 % get)"] {
            assert!(table.contains(part), "{part} is not in\n{table}");
        }
    }

    #[test]
    fn thousands_are_grouped() {
        assert_eq!(grouped(1234567.89, 1), "1,234,567.9");
        assert_eq!(
            (grouped(999.0, 0), grouped(1000.0, 0), grouped(0.04, 1)),
            ("999".into(), "1,000".into(), "0.0".into())
        );
    }
}
