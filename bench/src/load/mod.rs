//! `corral-bench load`: puts a server under load and measures it.
//!
//! The main thread prepares the tree, starts the load threads and, while they work, shows progress and looks at the
//! server at both edges of the measured window. The load threads share nothing that changes but a few counters.
//!
//! ```text
//! options ─ setup ─ worker × threads ────────────────────── report
//!                    └ client × connections                  ▲
//!                       ├ plan      when a request starts    │
//!                       ├ workload  what it asks             │
//!                       └ measure   what came of it ─────────┘
//! ```
//!
//! **Invariants**: the clock starts when all connections stand and all nodes are there; whatever happens after the tree
//! was touched, what was made in it is removed again (unless it is to be kept).

pub(crate) mod measure;
pub(crate) mod plan;
pub(crate) mod silence;
pub(crate) mod workload;

mod alarm;
mod client;
pub(crate) mod inside;
mod observe;
mod setup;
mod worker;

use crate::embedded;
use crate::environment::{IS_DEBUG, Machine};
use crate::interrupt::{self, Second};
use crate::options::LoadOptions;
use crate::progress::Progress;
use crate::report::{Environment, Parameters, Report, Server};
use client::Clock;
use corral_engine::disk::filesystem::FileSystem;
use corral_net::client::resolve;
use inside::Inside;
use measure::{Live, Tally, Window};
use serde_json::{Map, Value};
use setup::{Stage, connect};
use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;
use worker::{Job, WorkerError};
use workload::Workload;

const SHOW_EVERY_NS: u64 = 250_000_000;
/// From the moment at which all is ready to the first request: time enough for every thread to hear of it.
const LEAD_NS: u64 = 10_000_000;

/// Runs the load and prints the report. The error is one line.
pub(crate) fn run(options: &LoadOptions) -> Result<(), String> {
    // The embedded server answers, or fails, by itself; cleaning up at another one may take as long as that pleases.
    let second = if options.hosts.is_empty() { Second::IsLikeTheFirst } else { Second::EndsTheProcess };
    let stop = interrupt::listen(second)?;
    if IS_DEBUG {
        eprintln!("corral-bench: WARNING: this is a debug build, its numbers say nothing (cargo build --release)");
    }
    if let Some(pid) = options.server_pid.iter().find(|pid| observe::cpu_time(**pid).is_none()) {
        return Err(format!("there is no process {pid} (--server-pid)"));
    }
    if let Some(file) = &options.json {
        // Before the run and not after it: hours may lie between.
        fs::OpenOptions::new().create(true).append(true).open(file).map_err(|error| cannot_write(file, &error))?;
    }
    let mut stopped = Ok(());
    let report = if options.hosts.is_empty() {
        let parent = options.dir.as_deref().unwrap_or(Path::new("."));
        let dir = tempfile::Builder::new()
            .prefix("corral-bench-")
            .tempdir_in(parent)
            .map_err(|error| format!("cannot make a directory in {}: {error}", parent.display()))?;
        let storage = FileSystem::of(dir.path());
        let server = embedded::start(dir.path(), &options.settings)?;
        let hosts = [server.address()];
        let names = hosts.iter().map(SocketAddr::to_string).collect();
        let report =
            Run { options, hosts: &hosts, names, storage, embedded: true, stop: &stop, progress: Progress::start() }
                .measure();
        stopped = server.stop().map_err(|why| format!("the embedded server failed: {why}"));
        match report {
            Ok(report) => report,
            // What ails the server is the cause of what its clients saw.
            Err(why) => return stopped.and(Err(why)),
        }
    } else {
        let mut hosts = Vec::new();
        for host in &options.hosts {
            // A name with several addresses (localhost: IPv6, IPv4) is one server: take the one that answers.
            let addresses = resolve(host).map_err(|error| error.to_string())?;
            let reached = connect(&addresses, None).map_err(|error| error.to_string())?;
            hosts.push(reached.address());
            reached.close().map_err(|error| error.to_string())?;
        }
        let names = options.hosts.clone();
        Run { options, hosts: &hosts, names, storage: None, embedded: false, stop: &stop, progress: Progress::start() }
            .measure()?
    };
    if report.seconds == 0.0 {
        return Err("interrupted before there was anything to measure".into());
    }
    print!("{}", report.table());
    if let Some(file) = &options.json {
        let mut json = serde_json::to_string_pretty(&report).expect("a report is JSON");
        json.push('\n');
        fs::write(file, json).map_err(|error| cannot_write(file, &error))?;
    }
    stopped?;
    if report.ops == 0 { Err("no operation succeeded inside the measured window".into()) } else { Ok(()) }
}

/// A server that gets a frame above its limit hangs up and gives no reason.
fn hint(value_size: usize) -> &'static str {
    if value_size > 1_000_000 { " (is --value-size above its jute.maxbuffer, 1 MiB by default?)" } else { "" }
}

fn cannot_write(file: &Path, error: &std::io::Error) -> String {
    format!("cannot write {}: {error}", file.display())
}

/// Runs the load against a server that somebody else has started and will end, and shows nothing.
pub(crate) fn against(server: SocketAddr, options: &LoadOptions, stop: &Arc<AtomicBool>) -> Result<Report, String> {
    let (hosts, names) = ([server], vec![server.to_string()]);
    let progress = Progress::hidden();
    Run { options, hosts: &hosts, names, storage: None, embedded: true, stop, progress }.measure()
}

struct Run<'a> {
    options: &'a LoadOptions,
    hosts: &'a [SocketAddr],
    names: Vec<String>,
    storage: Option<FileSystem>,
    embedded: bool,
    stop: &'a Arc<AtomicBool>,
    progress: Progress,
}

impl Run<'_> {
    fn measure(mut self) -> Result<Report, String> {
        let options = self.options;
        let machine = Machine::look();
        let root = options
            .root
            .clone()
            .unwrap_or_else(|| format!("/corral-bench-{:x}-{:x}", machine.unix_seconds, std::process::id()));
        let workload = Workload::new(
            options.workload,
            options.read_ratio(),
            &root,
            options.keys,
            options.value_size,
            options.seed,
        );
        let workload = Arc::new(match &options.auth {
            Some(identity) => workload.by(identity),
            None => workload,
        });
        let mut progress = std::mem::replace(&mut self.progress, Progress::hidden());
        progress.takes(options.warmup + options.duration);
        let describe = |address: &SocketAddr| {
            let (version, mode) = observe::version_and_mode(*address);
            Server { address: address.to_string(), version, mode }
        };
        let servers = self.hosts.iter().map(describe).collect();

        progress.phase("setup", format!("making {} nodes below {root}", workload.keys()));
        let mut stage = Stage::new(&workload, options.connections);
        let loaded = stage
            .prepare(self.hosts, self.stop)
            .map_err(|error| format!("cannot prepare {root}: {error}{}", hint(options.value_size)))
            .and_then(|()| self.load(&workload, machine.cores, &mut progress));
        // An embedded server's whole directory goes. Elsewhere also a failed run cleans up, but its error comes first.
        if !options.keep && !self.embedded {
            progress.phase("clean-up", format!("removing {root}"));
            // An interrupt ended the load and must not end this; a second one ends the process.
            let removed = stage.remove(self.hosts, &AtomicBool::new(false));
            if let (Ok(_), Err(error)) = (&loaded, removed) {
                progress.clear();
                eprintln!("corral-bench: {root} could not be removed: {error}");
            }
        }
        progress.clear();
        let loaded = loaded?;

        let parameters = Parameters {
            workload: options.workload.name(),
            read_ratio: (options.workload == workload::Mix::Mixed).then(|| options.read_ratio()),
            loop_kind: if options.rate.is_some() { "open" } else { "closed" },
            rate: options.rate,
            arrivals: options.open_loop().map(|(_, arrivals)| arrivals),
            connections: options.connections,
            outstanding: options.outstanding(),
            threads: loaded.threads,
            value_size: options.value_size,
            keys: workload.keys(),
            warmup_s: options.warmup.as_secs_f64(),
            duration_s: options.duration.as_secs_f64(),
            session_timeout_ms: options.session_timeout.as_millis() as u64,
            seed: options.seed,
            root,
            server_settings: options.settings.clone(),
        };
        let Run { names: hosts, storage, embedded, .. } = self;
        let environment = Environment { machine, hosts, embedded, servers, storage, parameters };
        let Loaded { tally, seconds, server_cpu_us, server, inside, .. } = loaded;
        Ok(Report::new(&tally, seconds, server_cpu_us, server, inside, environment))
    }

    /// Starts the threads, sees them through the window, and adds up what they counted.
    // On the function and not on the file, which would open the clock to `plan`, `workload` and `measure`, too.
    #[expect(clippy::disallowed_methods, reason = "the load threads are made here")]
    fn load(&self, workload: &Arc<Workload>, cores: usize, progress: &mut Progress) -> Result<Loaded, String> {
        let options = self.options;
        let threads = options.threads.unwrap_or((cores / 2).clamp(1, options.connections));
        progress.phase("connect", format!("{} connections", options.connections));
        let (clock, live) = (Clock::start(), Arc::new(Live::default()));
        let (ready_in, ready) = mpsc::channel();
        let (done_in, done) = mpsc::channel::<()>();
        let mut workers = Vec::new();
        for thread in 0..threads {
            let job = Job {
                clients: thread * options.connections / threads..(thread + 1) * options.connections / threads,
                connections: options.connections,
                hosts: self.hosts.to_vec(),
                session_timeout: options.session_timeout,
                outstanding: options.outstanding(),
                rate: options.open_loop(),
                workload: workload.clone(),
                seed: options.seed,
                clock,
                live: live.clone(),
                stop: self.stop.clone(),
            };
            let (start_in, start) = mpsc::channel();
            let (ready_in, done_in) = (ready_in.clone(), done_in.clone());
            let body = move || {
                let result = worker::run(&job, &ready_in, &start);
                drop(done_in);
                result
            };
            let handle = thread::Builder::new()
                .name(format!("load-{thread}"))
                .spawn(body)
                .map_err(|error| format!("cannot start a thread: {error}"))?;
            workers.push((handle, start_in));
        }
        drop((ready_in, done_in));
        for answer in ready.iter().take(threads) {
            // Leaving drops the senders of the start, which calls the other threads off.
            answer.map_err(|error| error.to_string())?;
        }

        let begin = clock.now() + LEAD_NS;
        let from = begin + options.warmup.as_nanos() as u64;
        let window = Window { begin, from, end: from + options.duration.as_nanos() as u64 };
        for (_, start) in &workers {
            // A thread that is gone says why when it is joined.
            let _ = start.send(window);
        }
        let mut wait_until = |at: u64| -> bool {
            loop {
                let now = clock.now();
                if now >= at || self.stop.load(Relaxed) {
                    return now >= at;
                }
                progress.show(now.saturating_sub(begin) / 1_000_000, now < from, &live);
                // The channel carries nothing; it breaks when the last thread has ended.
                let pause = Duration::from_nanos((at - now).min(SHOW_EVERY_NS));
                if done.recv_timeout(pause) == Err(RecvTimeoutError::Disconnected) {
                    return false;
                }
            }
        };
        let cpu = || options.server_pid.iter().map(|pid| observe::cpu_time(*pid)).sum::<Option<Duration>>();
        let look = || (live.completed.load(Relaxed), cpu().filter(|_| !options.server_pid.is_empty()), clock.now());
        wait_until(window.from);
        let before = look();
        let metrics_before = (observe::metrics(self.hosts[0]), inside::read(self.hosts[0]));
        wait_until(window.end);
        let after = look();
        let metrics_after = (observe::metrics(self.hosts[0]), inside::read(self.hosts[0]));

        let mut tally = Tally::new(window, options.rate.is_some());
        for (handle, _) in workers {
            let counted = handle.join().map_err(|_| "a load thread broke down".to_owned())?;
            tally.add(&counted.map_err(|error: WorkerError| error.to_string())?);
        }
        let ops = after.0 - before.0;
        let server_cpu_us = match (before.1, after.1) {
            (Some(before), Some(after)) if ops > 0 => Some((after - before).as_secs_f64() * 1e6 / ops as f64),
            _ => None,
        };
        let ended = if self.stop.load(Relaxed) { after.2.min(window.end) } else { window.end };
        Ok(Loaded {
            tally,
            seconds: ended.saturating_sub(window.from) as f64 / 1e9,
            server_cpu_us,
            server: observe::over_the_window(&metrics_before.0, &metrics_after.0),
            inside: Inside::between(&metrics_before.1, &metrics_after.1),
            threads,
        })
    }
}

struct Loaded {
    tally: Tally,
    seconds: f64,
    server_cpu_us: Option<f64>,
    server: Map<String, Value>,
    inside: Inside,
    threads: usize,
}
