//! `corral-tool sim`: whole ensembles in one thread, reproducible from a seed.
//!
//! The production machine of every core of every member (`corral_server::machine`) runs over a simulated network, disk and clock, with the
//! engine's log, snapshots and restore, the codecs of packets, records and frames, and the workers that serve clients. After every step
//! what must hold is checked: R1–R6 of the design, ZAB's own properties, that no answer waits for time alone, and that no core spins.
//!
//! - [`plan`]: the faults of a run, drawn before it begins;
//! - `world`: the time line, and what each event does; `network` and `member` are its parts;
//! - `history`: what all members together must agree on; `client`: what each client was promised;
//! - [`journal`]: a line for each event; `minimize`: fewer faults that fail alike.
//!
//! What fails is a panic: a check here, or an assertion of the production code. The program reports it and exits with 1.
//!
//! **Not here**: threads, sockets and real disks (`server/tests` has those); a power loss within a snapshot or a truncation, which happen in
//! one event here (`engine/tests/power_cut.rs` has those).

pub mod journal;
pub mod plan;

mod client;
mod history;
mod member;
mod minimize;
mod network;
mod world;

pub use world::Counts;

use crate::failure::Failure;
use clap::Args;
use plan::{Plan, Size};
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, OnceLock};
use world::World;

/// What to simulate
#[derive(Clone, Debug, Args)]
pub struct Options {
    /// The first seed
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// How many seeds, one after the other
    #[arg(long, default_value_t = 1)]
    pub seeds: u64,
    /// Servers that vote
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=9))]
    pub servers: u64,
    /// Servers that observe
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u64).range(0..=9))]
    pub observers: u64,
    /// Clients
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=100))]
    pub clients: u64,
    /// Steps until the faults end and everybody must come to rest
    #[arg(long, default_value_t = 12000)]
    pub steps: u64,
    /// Which of the seed's faults happen: `all`, `none`, or numbers with commas between them
    #[arg(long, default_value = "all", value_parser = faults)]
    pub faults: Faults,
    /// Threads that take seeds; as many as there are processors, if not given
    #[arg(long)]
    pub threads: Option<usize>,
    /// Print a line for every event
    #[arg(long)]
    pub trace: bool,
    /// Find fewer faults with which the seed fails alike
    #[arg(long)]
    pub minimize: bool,
}

/// Faults that are wanted; `None` is all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Faults(pub Option<Vec<usize>>);

fn faults(text: &str) -> Result<Faults, String> {
    match text {
        "all" => Ok(Faults(None)),
        "none" => Ok(Faults(Some(Vec::new()))),
        text => {
            let numbers: Result<Vec<usize>, _> = text.split(',').map(str::parse).collect();
            numbers.map(|numbers| Faults(Some(numbers))).map_err(|_| "all, none, or numbers as in 3,7,9".to_owned())
        }
    }
}

impl Options {
    /// The plan for one of the seeds.
    pub fn plan(&self, seed: u64) -> Plan {
        let size = Size {
            servers: self.servers as usize,
            observers: self.observers as usize,
            clients: self.clients as usize,
            steps: self.steps,
        };
        let plan = Plan::new(seed, size);
        match &self.faults {
            Faults(Some(numbers)) => plan.with_only(numbers),
            Faults(None) => plan,
        }
    }
}

/// Lines of the journal that are shown of a run that fails, unless all are wanted.
const LAST: usize = 40;

/// Runs the seeds. A seed that fails ends the process.
pub fn run(options: &Options, out: &mut impl Write) -> Result<(), Failure> {
    if options.minimize && options.seeds > 1 {
        return Err(Failure::Usage("--minimize is for one seed".to_owned()));
    }
    if options.minimize {
        return minimize::run(options, out);
    }
    let scratch =
        Scratch::new().map_err(|error| Failure::Failed(format!("cannot make a directory for the disks: {error}")))?;
    report_panics(options);
    if options.seeds == 1 {
        let counts = simulate(options.plan(options.seed), scratch.path(), true);
        if options.trace {
            journal::take().iter().try_for_each(|line| writeln!(out, "{line}"))?;
        }
        writeln!(out, "seed {}: {}", options.seed, told(&counts))?;
        return Ok(());
    }
    let threads = options.threads.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from));
    let next = AtomicU64::new(options.seed);
    let sum = Mutex::new(Counts::default());
    let end = options.seed.saturating_add(options.seeds);
    std::thread::scope(|scope| {
        for _ in 0..threads.max(1) {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= end {
                        return;
                    }
                    SEED.set(seed);
                    let counts = simulate(options.plan(seed), scratch.path(), false);
                    sum.lock().expect("nobody panics and goes on").add(&counts);
                }
            });
        }
    });
    let sum = sum.lock().expect("nobody panics and goes on");
    writeln!(out, "seeds {} to {}: {}", options.seed, end - 1, told(&sum))?;
    Ok(())
}

/// One run, with its disks in a directory of its own below `scratch`. What must not be is a panic.
pub fn simulate(plan: Plan, scratch: &Path, writes: bool) -> Counts {
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    let dir = scratch.join(NUMBER.fetch_add(1, Ordering::Relaxed).to_string());
    fs::create_dir_all(&dir).expect("the directory for the disks is writable");
    journal::begin(writes);
    let mut world = World::new(plan, &dir);
    world.run();
    let counts = world.counts;
    drop(world);
    fs::remove_dir_all(&dir).expect("the directory for the disks is writable");
    counts
}

fn told(counts: &Counts) -> String {
    let Counts { steps, commits, epochs, answers, deaths, truncations, snapshots, stretches, rots, faults, .. } =
        counts;
    let (time, silence) = (counts.time.as_secs_f64(), counts.silence.as_secs_f64());
    format!(
        "{steps} steps, {time:.1} s of simulated time, {commits} commits in {epochs} epochs (none for {silence:.1} s at most), \
         {answers} answers; {faults} faults, \
         {deaths} deaths, {rots} logs damaged, {truncations} histories cut, {snapshots} snapshots and {stretches} logs sent; nothing violated"
    )
}

impl Counts {
    fn add(&mut self, other: &Counts) {
        self.time += other.time;
        self.silence = self.silence.max(other.silence);
        for (sum, one) in [
            (&mut self.steps, other.steps),
            (&mut self.commits, other.commits),
            (&mut self.epochs, other.epochs),
            (&mut self.answers, other.answers),
            (&mut self.deaths, other.deaths),
            (&mut self.truncations, other.truncations),
            (&mut self.snapshots, other.snapshots),
            (&mut self.stretches, other.stretches),
            (&mut self.rots, other.rots),
            (&mut self.faults, other.faults),
        ] {
            *sum += one;
        }
    }
}

thread_local! {
    static SEED: std::cell::Cell<u64> = const { std::cell::Cell::new(0) };
}

/// What stands before the step in the report of a failure.
const FAILS: &str = "fails at step";

/// A run that fails ends the process, with a report: programs are built so that a panic ends them at once, so there is no later.
fn report_panics(options: &Options) {
    let options = options.clone();
    SEED.set(options.seed);
    let reporting = Mutex::new(());
    std::panic::set_hook(Box::new(move |panic| {
        // The first one ends the process; what others stumble over then is nothing to tell of.
        let _one = reporting.lock();
        let message = panic.payload_as_str().unwrap_or("a panic without words");
        let place = panic.location().map_or(String::new(), |place| format!(" ({}:{})", place.file(), place.line()));
        let lines = journal::take();
        let from = if options.trace { 0 } else { lines.len().saturating_sub(LAST) };
        lines[from..].iter().for_each(|line| println!("{line}"));
        let (seed, step) = (SEED.get(), journal::current_step());
        eprintln!("corral-tool: seed {seed} {FAILS} {step}: {message}{place}");
        if options.seeds > 1 {
            let Options { servers, observers, clients, steps, .. } = options;
            eprintln!(
                "corral-tool: see it with: corral-tool sim --seed {seed} --servers {servers} --observers {observers} \
                 --clients {clients} --steps {steps} --minimize"
            );
        }
        if let Some(dir) = SCRATCH.get() {
            let _ = fs::remove_dir_all(dir);
        }
        std::process::exit(1);
    }));
}

static SCRATCH: OnceLock<PathBuf> = OnceLock::new();

/// Where the disks lie: in memory, if there is such a place. What killed processes have left there goes.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> std::io::Result<Scratch> {
        let shm = Path::new("/dev/shm");
        let place = if shm.is_dir() { shm.to_owned() } else { std::env::temp_dir() };
        const NAME: &str = "corral-sim-";
        for entry in fs::read_dir(&place)?.flatten() {
            let name = entry.file_name();
            let pid = name.to_str().and_then(|name| name.strip_prefix(NAME)?.parse::<u32>().ok());
            if pid.is_some_and(|pid| !Path::new("/proc").join(pid.to_string()).exists()) {
                let _ = fs::remove_dir_all(entry.path());
            }
        }
        let dir = place.join(format!("{NAME}{}", std::process::id()));
        fs::create_dir_all(&dir)?;
        let _ = SCRATCH.set(dir.clone());
        Ok(Scratch(dir))
    }

    fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}
