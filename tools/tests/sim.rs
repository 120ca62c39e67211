//! The simulator: seeds that pass, the same seed twice, and whether it notices when the protocol is broken on purpose.
//!
//! `CORRAL_SIM_SEEDS` runs more seeds, `CORRAL_SIM_MUTANT_SEEDS` gives each mutation more of them to be noticed in, and
//! `CORRAL_SIM_MUTANT` names the only one that is tried.

#![expect(clippy::disallowed_methods, reason = "how many seeds is for whoever runs it")]

mod common;

use common::Run;
use corral_server::mutation::{self, Mutation};
use corral_tools::sim::journal;
use corral_tools::sim::plan::{Fault, Kind, Plan, Size};
use corral_tools::sim::{Counts, simulate};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

const SIZE: Size = Size { servers: 3, observers: 0, clients: 3, steps: 8000 };

fn number(name: &str, few: u64) -> u64 {
    std::env::var(name).map_or(few, |text| text.parse().expect("a number"))
}

/// In memory where that is possible: the disks are simulated.
fn scratch() -> tempfile::TempDir {
    let shm = Path::new("/dev/shm");
    tempfile::tempdir_in(if shm.is_dir() { shm } else { Path::new(env!("CARGO_TARGET_TMPDIR")) })
        .expect("it is writable")
}

#[test]
fn nothing_is_violated_whatever_befalls_ensembles_of_any_size() {
    let scratch = scratch();
    let seeds = number("CORRAL_SIM_SEEDS", 120);
    let mut committed = 0;
    for seed in 1..=seeds {
        let (servers, observers) = [(3, 0), (3, 1), (5, 0), (1, 1), (2, 0), (4, 1)][seed as usize % 6];
        let size = Size { servers, observers, ..SIZE };
        committed += simulate(Plan::new(seed, size), scratch.path(), false).commits;
    }
    assert!(committed > 50 * seeds, "{committed} commits only: hardly anything happened");
}

#[test]
fn a_seed_is_the_same_run_each_time() {
    let scratch = scratch();
    let run = || {
        let counts = simulate(Plan::new(7, SIZE), scratch.path(), true);
        (counts, journal::take())
    };
    let (first, lines) = run();
    let (again, same_lines) = run();
    assert_eq!(first, again);
    assert!(!lines.is_empty());
    for (one, other) in lines.iter().zip(&same_lines) {
        assert_eq!(one, other);
    }
}

/// What a mutation came to: the seed in which it was noticed, and how.
fn hunt(mutation: Mutation, seeds: u64, scratch: &Path) -> Option<(u64, String)> {
    (1..=seeds).find_map(|seed| {
        mutation::set(Some(mutation));
        let outcome: Result<Counts, _> =
            catch_unwind(AssertUnwindSafe(|| simulate(Plan::new(seed, SIZE), scratch, false)));
        mutation::set(None);
        let panic = outcome.err()?;
        let words = panic.downcast_ref::<String>().map(String::as_str).or(panic.downcast_ref::<&str>().copied());
        Some((seed, words.unwrap_or("a panic without words").to_owned()))
    })
}

#[test]
fn whatever_is_broken_on_purpose_is_noticed() {
    let seeds = number("CORRAL_SIM_MUTANT_SEEDS", 3000);
    let scratch = scratch();
    let mut missed = Vec::new();
    let only = std::env::var("CORRAL_SIM_MUTANT").ok();
    // That one violates nothing, it only makes everybody wait: see below.
    let wanted = |mutation: &Mutation| {
        *mutation != Mutation::LeadersWithoutADiskStay
            && only.as_ref().is_none_or(|name| *name == format!("{mutation:?}"))
    };
    for mutation in Mutation::ALL.iter().copied().filter(wanted) {
        match hunt(mutation, seeds, scratch.path()) {
            Some((seed, how)) => println!("{mutation:?}: seed {seed}: {}", how.lines().next().unwrap_or_default()),
            None => missed.push(mutation),
        }
    }
    assert_eq!(missed, [], "not noticed in {seeds} seeds");
}

/// The disk of one server of three is full, or hangs, for much longer than `syncLimit`, and nothing else goes wrong.
fn without_a_disk(seed: u64, scratch: &Path) -> Counts {
    let member = seed as usize % 3;
    let kind = if seed.is_multiple_of(2) { Kind::FullDisk(member) } else { Kind::HungDisk(member) };
    let ms = Duration::from_millis;
    let fault = Fault { number: 0, at: ms(400), kind, lasts: ms(4000) };
    let size = Size { steps: 40_000, ..SIZE };
    simulate(Plan { seed, size, faults: vec![fault] }, scratch, false)
}

/// Four ticks of 50 ms until a leader gives up or a follower is given up, and an election.
const HAND_OVER: Duration = Duration::from_millis(1500);

#[test]
fn whoever_has_no_disk_does_not_keep_the_others_from_going_on() {
    let scratch = scratch();
    for seed in 1..=12 {
        let counts = without_a_disk(seed, scratch.path());
        assert!(counts.time > Duration::from_secs(2), "seed {seed} was over in {:?}", counts.time);
        assert!(counts.silence < HAND_OVER, "seed {seed}: no commit for {:?}", counts.silence);
    }
    mutation::set(Some(Mutation::LeadersWithoutADiskStay));
    let worst = (1..=12).map(|seed| without_a_disk(seed, scratch.path()).silence).max();
    mutation::set(None);
    assert!(worst > Some(HAND_OVER), "a leader that stays is not noticed: {worst:?}");
}

fn sim(args: &[&str]) -> Run {
    common::run(Command::new(env!("CARGO_BIN_EXE_corral-tool")).arg("sim").args(args))
}

#[test]
fn the_command_tells_of_a_run_and_of_what_it_cannot_do() {
    let run = ["--seed", "3", "--steps", "2000"];
    let quiet = sim(&run).fine();
    assert!(quiet.starts_with("seed 3: ") && quiet.ends_with("nothing violated\n"), "{quiet}");
    let traced = sim(&[&run[..], &["--trace"]].concat()).fine();
    assert!(traced.contains("leads: epoch 1") && traced.ends_with(&quiet), "{traced}");
    let without = sim(&[&run[..], &["--faults", "none"]].concat()).fine();
    assert!(without.contains(" 0 faults, 0 deaths"), "{without}");
    let many = sim(&["--seed", "1", "--seeds", "4", "--steps", "1000"]).fine();
    assert!(many.starts_with("seeds 1 to 4: "), "{many}");
    for (wrong, why) in [
        (&["--servers", "0"][..], "0 is not in 1..=9"),
        (&["--faults", "one"], "all, none, or numbers"),
        (&["--minimize", "--seeds", "2"], "--minimize is for one seed"),
        (&["--minimize", "--steps", "1000", "--faults", "none"], "seed 1 does not fail"),
    ] {
        let said = sim(wrong).ends(2).to_owned();
        assert!(said.contains(why), "{wrong:?}: {said}");
    }
}
