//! What the command line says, and what it may not say.
//!
//! **Invariants**: what `check` has passed can be run; whether a host exists is found out by the run.
//!
//! **Not here**: running.

use crate::load::plan::Arrivals;
use crate::load::workload::Mix;
use clap::Args;
use std::path::PathBuf;
use std::time::Duration;

const DEFAULT_PORT: u16 = 2181;
const VALUE_SIZE_MAX: usize = 64 << 20;
const RATE_MAX: f64 = 1e8;

/// Puts a server under load and measures it.
#[derive(Clone, Debug, Args)]
#[command(after_help = "Durations have a unit: 500ms, 10s, 1m30s, 2h. Latency counts from the moment at which a \
                        request should have started; with --rate that is its planned arrival, however late it is sent.")]
pub(crate) struct LoadOptions {
    /// Servers, `host[:port],…`; connections are spread over them. Without it a server is started in this process, on a
    /// free loopback port, with its data in a new directory that is removed at the end
    #[arg(long, value_name = "HOSTS", value_delimiter = ',', value_parser = parse_host)]
    pub hosts: Vec<String>,

    /// What is asked: set, get, create, or mixed (get and set)
    #[arg(long, value_enum, default_value = "set", hide_possible_values = true)]
    pub workload: Mix,

    /// Part of the mixed workload that reads, from 0 to 1 [default: 0.8]
    #[arg(long, value_name = "PART", value_parser = parse_ratio)]
    pub read_ratio: Option<f64>,

    /// Connections, each with a session of its own
    #[arg(long, value_name = "N", default_value = "16", value_parser = parse_count::<100_000>)]
    pub connections: usize,

    /// Requests in flight on each connection: always so many in a closed loop, at most so many with --rate
    /// [default: 1, with --rate 64]
    #[arg(long, value_name = "N", value_parser = parse_count::<1_000_000>)]
    pub outstanding: Option<usize>,

    /// Open loop: so many requests a second, over all connections. Without it the loop is closed: the next request
    /// starts when an earlier one is answered
    #[arg(long, value_name = "PER_SECOND", value_parser = parse_rate)]
    pub rate: Option<f64>,

    /// How the arrivals of an open loop are spread: constant or poisson [default: constant]
    #[arg(long, value_enum, requires = "rate", hide_possible_values = true)]
    pub arrivals: Option<Arrivals>,

    /// How long is measured
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = parse_duration)]
    pub duration: Duration,

    /// How long the load runs before that
    #[arg(long, value_name = "TIME", default_value = "2s", value_parser = parse_duration)]
    pub warmup: Duration,

    /// Bytes of a value
    #[arg(long, value_name = "BYTES", default_value = "100", value_parser = parse_value_size)]
    pub value_size: usize,

    /// Nodes that are read and written, chosen evenly; made before the run. (create makes new ones instead)
    #[arg(long, value_name = "N", default_value = "1000", value_parser = parse_count::<100_000_000>)]
    pub keys: usize,

    /// Who the clients are, by the scheme digest; only they may read and change the nodes of the run then
    #[arg(long, value_name = "USER:PASSWORD", value_parser = parse_auth)]
    pub auth: Option<String>,

    /// Parent of all nodes of the run, made and removed by it [default: a new name each time]
    #[arg(long, value_name = "PATH", value_parser = parse_root)]
    pub root: Option<String>,

    /// Do not remove the run's nodes at the end
    #[arg(long)]
    pub keep: bool,

    /// Threads of the load generator [default: one for every two cores]
    #[arg(long, value_name = "N", value_parser = parse_count::<1024>)]
    pub threads: Option<usize>,

    /// Session timeout to ask for
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = parse_duration)]
    pub session_timeout: Duration,

    /// Fixes what is asked and, with --arrivals poisson, when
    #[arg(long, value_name = "N", default_value = "1")]
    pub seed: u64,

    /// Process ids of servers on this machine, `pid,…`; the CPU time of an operation, over all of them, is then reported
    #[arg(long, value_name = "PID", requires = "hosts", value_delimiter = ',')]
    pub server_pid: Vec<u32>,

    /// Without --hosts: where the server's directory is made [default: the current directory]
    #[arg(long, value_name = "DIR", conflicts_with = "hosts")]
    pub dir: Option<PathBuf>,

    /// Without --hosts: a setting for the server, as in its configuration file; may be repeated
    #[arg(short = 'o', long = "option", value_name = "KEY=VALUE", conflicts_with = "hosts", value_parser = parse_setting)]
    pub settings: Vec<String>,

    /// Write the report as JSON, too
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
}

impl LoadOptions {
    /// The defaults, for a load that is part of something else.
    pub(crate) fn plain() -> LoadOptions {
        #[derive(clap::Parser)]
        struct Plain {
            #[command(flatten)]
            load: LoadOptions,
        }
        <Plain as clap::Parser>::parse_from(["load"]).load
    }

    /// What clap cannot say about options that do not go together.
    pub(crate) fn check(&self) -> Result<(), String> {
        if self.read_ratio.is_some() && self.workload != Mix::Mixed {
            return Err("--read-ratio goes with --workload mixed only".into());
        }
        if self.duration.is_zero() {
            return Err("--duration must be more than nothing".into());
        }
        if self.session_timeout.is_zero() {
            return Err("--session-timeout must be more than nothing".into());
        }
        if self.threads.is_some_and(|threads| threads > self.connections) {
            return Err("--threads cannot be more than --connections".into());
        }
        Ok(())
    }

    /// See the option.
    pub(crate) fn outstanding(&self) -> usize {
        self.outstanding.unwrap_or(if self.rate.is_some() { 64 } else { 1 })
    }

    /// See the option.
    pub(crate) fn read_ratio(&self) -> f64 {
        self.read_ratio.unwrap_or(0.8)
    }

    /// Rate and arrivals of an open loop.
    pub(crate) fn open_loop(&self) -> Option<(f64, Arrivals)> {
        self.rate.map(|rate| (rate, self.arrivals.unwrap_or(Arrivals::Constant)))
    }
}

/// Finds out what a directory's disk can do.
#[derive(Clone, Debug, Args)]
#[command(
    after_help = "Everything is written to a new directory inside DIR, which is removed at the end. Give it the disk \
                        for itself: other load shows in the figures."
)]
pub(crate) struct ProbeOptions {
    /// Directory on the disk, such as a server's dataLogDir
    pub dir: PathBuf,

    /// Only what matters most, in five seconds
    #[arg(long, conflicts_with = "full")]
    pub quick: bool,

    /// Every combination, in about four minutes
    #[arg(long)]
    pub full: bool,

    /// Fixes the order in which cells are measured
    #[arg(long, value_name = "N", default_value = "1")]
    pub seed: u64,

    /// Write the report as JSON, too
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
}

impl ProbeOptions {
    /// What clap cannot say.
    pub(crate) fn check(&self) -> Result<(), String> {
        match self.dir.metadata() {
            Ok(found) if found.is_dir() => Ok(()),
            Ok(_) => Err(format!("{} is not a directory", self.dir.display())),
            Err(error) => Err(format!("cannot look at {}: {error}", self.dir.display())),
        }
    }
}

/// `10s`, `500ms`, `1m30s`, `0.5h`; zero needs no unit.
pub(crate) fn parse_duration(text: &str) -> Result<Duration, String> {
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    let wrong = || format!("\"{text}\" is not a duration such as 500ms, 10s or 1m30s");
    let (mut total, mut rest) = (0.0, text);
    while !rest.is_empty() {
        let number = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let (number, tail) = rest.split_at(number);
        let unit = tail.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(unit);
        let seconds = match unit {
            "us" => 1e-6,
            "ms" => 1e-3,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            _ => return Err(wrong()),
        };
        total += number.parse::<f64>().map_err(|_| wrong())? * seconds;
        rest = tail;
    }
    // A year: what is longer is a slip, and would not fit the run's nanoseconds some day.
    if text.is_empty() || total > 366.0 * 86_400.0 {
        return Err(wrong());
    }
    Duration::try_from_secs_f64(total).map_err(|_| wrong())
}

fn parse_host(text: &str) -> Result<String, String> {
    let wrong = || format!("\"{text}\" is not host or host:port");
    // An IPv6 address has colons of its own and stands in brackets.
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (inside, port) = rest.split_once(']').ok_or_else(wrong)?;
            (
                &text[..inside.len() + 2],
                if port.is_empty() { None } else { Some(port.strip_prefix(':').ok_or_else(wrong)?) },
            )
        }
        None => match text.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (text, None),
        },
    };
    if host.is_empty() || host.contains(|c: char| c.is_whitespace() || c == '/') {
        return Err(wrong());
    }
    let port = port.map_or(Ok(DEFAULT_PORT), |port| port.parse::<u16>().map_err(|_| wrong()))?;
    if port == 0 { Err(wrong()) } else { Ok(format!("{host}:{port}")) }
}

fn parse_rate(text: &str) -> Result<f64, String> {
    let rate = text.parse::<f64>().ok().filter(|rate| *rate > 0.0 && *rate <= RATE_MAX);
    rate.ok_or_else(|| format!("a rate is a number above 0 and at most {RATE_MAX}"))
}

fn parse_ratio(text: &str) -> Result<f64, String> {
    let ratio = text.parse::<f64>().ok().filter(|ratio| (0.0..=1.0).contains(ratio));
    ratio.ok_or_else(|| "a part is a number from 0 to 1".to_owned())
}

pub(crate) fn parse_count<const MAX: usize>(text: &str) -> Result<usize, String> {
    let count = text.parse::<usize>().ok().filter(|count| (1..=MAX).contains(count));
    count.ok_or_else(|| format!("expected a whole number from 1 to {MAX}"))
}

fn parse_auth(text: &str) -> Result<String, String> {
    match text.split_once(':') {
        Some((user, _)) if !user.is_empty() => Ok(text.to_owned()),
        _ => Err("write user:password".to_owned()),
    }
}

pub(crate) fn parse_value_size(text: &str) -> Result<usize, String> {
    let size = text.parse::<usize>().ok().filter(|size| *size <= VALUE_SIZE_MAX);
    size.ok_or_else(|| format!("expected a whole number of bytes, at most {VALUE_SIZE_MAX}"))
}

fn parse_root(text: &str) -> Result<String, String> {
    let wrong = |why: &str| Err(format!("a path {why}"));
    let Some(rest) = text.strip_prefix('/') else { return wrong("starts with /") };
    if rest.is_empty() {
        return wrong("below / is needed, to be told from what is not the run's");
    }
    if rest.split('/').any(|name| matches!(name, "" | "." | "..")) || rest.contains('\0') {
        return wrong("has no empty, . or .. parts");
    }
    Ok(text.to_owned())
}

pub(crate) fn parse_setting(text: &str) -> Result<String, String> {
    match text.split_once('=') {
        Some((key, _)) if !key.trim().is_empty() => Ok(text.to_owned()),
        _ => Err(format!("\"{text}\" is not key=value")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_as_people_write_them() {
        for (text, ms) in [("10s", 10_000), ("500ms", 500), ("1m", 60_000), ("1m30s", 90_000), ("0.5h", 1_800_000)] {
            assert_eq!(parse_duration(text), Ok(Duration::from_millis(ms)), "{text}");
        }
        assert_eq!(parse_duration("250us"), Ok(Duration::from_micros(250)));
        assert_eq!((parse_duration("0"), parse_duration("0s")), (Ok(Duration::ZERO), Ok(Duration::ZERO)));
        for text in ["", "10", "s", "-1s", "1 s", "1.2.3s", "10x", "1e9s", "ten", "99999999h", "1s5", "."] {
            assert!(parse_duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn hosts_may_leave_out_the_port() {
        for (text, host) in [
            ("zk1", "zk1:2181"),
            ("zk1:2182", "zk1:2182"),
            ("10.0.0.1", "10.0.0.1:2181"),
            ("[::1]", "[::1]:2181"),
            ("[::1]:5", "[::1]:5"),
        ] {
            assert_eq!(parse_host(text).as_deref(), Ok(host));
        }
        for text in ["", ":2181", "a:b", "a:", "a:0", "a:70000", "::1", "[::1", "[::1]5", "a/chroot", "a b"] {
            assert!(parse_host(text).is_err(), "{text}");
        }
    }

    #[test]
    fn numbers_have_limits() {
        assert!(parse_rate("0").is_err() && parse_rate("-5").is_err() && parse_rate("nan").is_err());
        assert!(parse_rate("inf").is_err() && parse_rate("2.5") == Ok(2.5));
        assert!(parse_count::<10>("0").is_err() && parse_count::<10>("11").is_err() && parse_count::<10>("10").is_ok());
        assert!(parse_ratio("1.01").is_err() && parse_ratio("1") == Ok(1.0));
        assert!(parse_root("/").is_err() && parse_root("a").is_err() && parse_root("/a//b").is_err());
        assert!(parse_root("/a/b").is_ok() && parse_setting("=1").is_err() && parse_setting("a=").is_ok());
    }
}
