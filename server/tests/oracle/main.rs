//! The reference server is the oracle: the same random scripts are run against ours and against Apache ZooKeeper's, and everything that a
//! client is told must be the same. What may differ is not asked for here, and stands in `docs/compatibility.md`.
//!
//! `CORRAL_ORACLE_STEPS` says how many steps; a failure names the script and its step. Needs the jars of a release in the directory
//! `CORRAL_TEST_ZOOKEEPER_JARS`, which `.ci/run` fetches where it can.

#[path = "../common/mod.rs"]
mod common;
mod script;
mod transcript;

use common::ensemble::{Ensemble, Kind, other_zookeeper};
use libtest_mimic::{Arguments, Failed, Trial};
use script::Script;
use std::thread;
use transcript::Run;

/// Steps of one script.
const SCRIPT: u64 = 250;
/// What is as fast with both, and lets both do the same.
const SETTINGS: &str = "forceSync=no\nsnapCount=100000000\nextendedTypesEnabled=true\nenforceQuota=true\nznode.container.checkIntervalMs=2000000000\n";

fn main() {
    let trials = match other_zookeeper() {
        None => {
            vec![Trial::test("oracle (ignored: needs CORRAL_TEST_ZOOKEEPER_JARS)", || Ok(())).with_ignored_flag(true)]
        }
        Some(apache) => {
            let scenes: [(&str, &[bool], u64); 4] = [
                ("alone", &[true], 1),
                ("through_a_follower", &[true, true, true], 10),
                ("through_a_follower_of_apaches", &[true, false, false], 20),
                ("through_apaches_follower_of_ours", &[false, true, true], 20),
            ];
            let trial = |(name, are_ours, part): (&str, &'static [bool], u64)| {
                let apache = apache.clone();
                Trial::test(name, move || compare(&apache, are_ours, part))
            };
            scenes.into_iter().map(trial).collect()
        }
    };
    libtest_mimic::run(&Arguments::from_args(), trials).exit();
}

#[expect(clippy::disallowed_methods, reason = "how many steps is for whoever runs it")]
fn steps() -> u64 {
    std::env::var("CORRAL_ORACLE_STEPS").map_or(100_000, |text| text.parse().expect("a number"))
}

/// Runs the scripts, a `part` of all, against the first server of an ensemble, some of whose members are ours, and of one of Apache's. It
/// follows, unless it is alone.
fn compare(apache: &Kind, are_ours: &[bool], part: u64) -> Result<(), Failed> {
    let count = are_ours.len();
    let mut len = None;
    let ours = are_ours.iter().map(|is_ours| if *is_ours { &Kind::Corral } else { apache });
    let ensembles = [vec![apache; count], ours.collect()].map(|kinds| {
        // Clients read the addresses of all members: those are as long with both.
        let mut ensembles = std::iter::repeat_with(|| Ensemble::new(count, 0));
        let mut ensemble = ensembles
            .find(|ensemble| {
                let own = ensemble.address(1).to_string().len();
                *len.get_or_insert(own) == own
            })
            .expect("there are many");
        ensemble.set(SETTINGS);
        match count {
            1 => ensemble.start_all(kinds[0]),
            _ => ensemble.start_each(&kinds),
        }
        ensemble
    });
    let scripts = steps() / SCRIPT / part;
    let mut runs = ensembles.each_ref().map(|ensemble| Run::new(ensemble.address(1)));
    for number in 0..scripts {
        let [theirs, ours] = thread::scope(|scope| {
            let threads = runs.each_mut().map(|run| {
                scope.spawn(move || {
                    let mut script = Script::new(number, count == 1);
                    (0..SCRIPT).map(|_| run.step(&mut script)).collect::<Vec<_>>()
                })
            });
            threads.map(|thread| thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
        });
        if let Some(at) = (0..theirs.len()).find(|at| theirs[*at] != ours[*at]) {
            let before = theirs[at.saturating_sub(12)..at].join("\n  ");
            return Err(
                format!("script {number}, step {at}:\n  {before}\ntheirs {}\nours   {}", theirs[at], ours[at]).into()
            );
        }
    }
    ensembles.iter().for_each(Ensemble::check_digests);
    Ok(())
}
