//! Fewer faults that fail alike: of a seed that fails, faults are left out as long as what remains violates the same promise.
//!
//! Each try is a process of its own, because a failure ends one. Halves are tried first, then quarters, down to single faults
//! (delta debugging, Zeller 2002).

use super::{FAILS, Options, Plan};
use crate::failure::Failure;
use std::io::Write;
use std::process::Command;

/// A failure as a try reports it.
struct Failed {
    step: u64,
    why: String,
}

impl Failed {
    /// What it violates: the words before the first colon.
    fn promise(&self) -> &str {
        self.why.split(':').next().unwrap_or_default()
    }
}

/// Minimizes, and shows the run that is left.
pub(super) fn run(options: &Options, out: &mut impl Write) -> Result<(), Failure> {
    let Plan { faults, .. } = options.plan(options.seed);
    let kept: Vec<usize> = faults.iter().map(|fault| fault.number).collect();
    let Some(mut failed) = attempt(options, &kept)? else {
        return Err(Failure::Usage(format!("seed {} does not fail", options.seed)));
    };
    let promise = failed.promise().to_owned();
    let fails = |faults: &[usize]| {
        let again = attempt(options, faults)?.filter(|again| again.promise() == promise);
        Ok::<bool, Failure>(again.map(|again| failed = again).is_some())
    };
    let kept = fewer(kept, fails)?;
    let output = command(options, &kept)?.arg("--trace").output();
    let output = output.map_err(|error| Failure::Failed(format!("cannot run a simulation: {error}")))?;
    out.write_all(&output.stdout)?;
    Err(Failure::Failed(format!(
        "{} of {} faults are enough: {} (step {}); see it with: corral-tool sim --seed {} --servers {} --observers {} --clients {} \
         --steps {} --faults {} --trace",
        kept.len(),
        faults.len(),
        failed.why,
        failed.step,
        options.seed,
        options.servers,
        options.observers,
        options.clients,
        options.steps,
        list(&kept)
    )))
}

/// Some of the faults with which it still `fails`, and no longer does if any one of them is left out.
fn fewer<E>(mut kept: Vec<usize>, mut fails: impl FnMut(&[usize]) -> Result<bool, E>) -> Result<Vec<usize>, E> {
    let mut parts = 2;
    while !kept.is_empty() {
        let size = kept.len().div_ceil(parts);
        let mut shrunk = false;
        for from in (0..kept.len()).step_by(size) {
            let mut rest = kept.clone();
            rest.drain(from..(from + size).min(kept.len()));
            if fails(&rest)? {
                (kept, shrunk) = (rest, true);
                break;
            }
        }
        match (shrunk, size) {
            (true, _) => parts = (parts - 1).max(2),
            (false, 1) => break,
            (false, _) => parts = (parts * 2).min(kept.len()),
        }
    }
    Ok(kept)
}

fn attempt(options: &Options, faults: &[usize]) -> Result<Option<Failed>, Failure> {
    let output = command(options, faults)?.output();
    let output = output.map_err(|error| Failure::Failed(format!("cannot run a simulation: {error}")))?;
    if output.status.success() {
        return Ok(None);
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let report = said.lines().find_map(|line| {
        let (step, why) = line.split_once(FAILS)?.1.trim().split_once(": ")?;
        Some(Failed { step: step.parse().ok()?, why: why.to_owned() })
    });
    report.map(Some).ok_or_else(|| Failure::Failed(format!("a simulation failed without a report: {said}")))
}

fn command(options: &Options, faults: &[usize]) -> Result<Command, Failure> {
    let program = std::env::current_exe();
    let program = program.map_err(|error| Failure::Failed(format!("cannot find the program itself: {error}")))?;
    let mut command = Command::new(program);
    command.arg("sim");
    for (name, value) in [
        ("--seed", options.seed),
        ("--servers", options.servers),
        ("--observers", options.observers),
        ("--clients", options.clients),
        ("--steps", options.steps),
    ] {
        command.arg(name).arg(value.to_string());
    }
    command.arg("--faults").arg(list(faults));
    Ok(command)
}

fn list(faults: &[usize]) -> String {
    match faults {
        [] => "none".to_owned(),
        faults => faults.iter().map(usize::to_string).collect::<Vec<_>>().join(","),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_is_needed() {
        for needed in [&[3, 17][..], &[0], &[5, 6, 7, 39], &[]] {
            let mut tries = 0;
            let fails = |faults: &[usize]| {
                tries += 1;
                Ok::<_, ()>(needed.iter().all(|fault| faults.contains(fault)))
            };
            assert_eq!(fewer((0..40).collect(), fails), Ok(needed.to_vec()));
            assert!(tries < 120, "{tries} tries for {needed:?}");
        }
    }

    #[test]
    fn a_failure_is_known_by_what_it_violates() {
        let why = "R1: /own-0-1 is 20 after 22 was acknowledged (client.rs:7)".to_owned();
        assert_eq!(Failed { step: 9, why }.promise(), "R1");
    }
}
