//! All that can happen to a small ensemble: every order of messages, disks, crashes and broken links, tried to the last.
//!
//! The models have a network, disks and faults; what the members do is done by the very machines that run in production
//! ([`super::Election`], [`super::leadership`], [`super::learner`]). Two or three servers, a few proposals and one fault of each
//! kind are little, but nearly every mistake that a protocol of this kind can have shows in so little, and here nothing is left to
//! chance. `tests` has the large ensembles and the long runs, driven by a seed.
//!
//! With `CORRAL_EXHAUSTIVE=1` in the environment the larger scopes are gone through, too: some three minutes and 100 MB, in the
//! release profile. Each check prints its scope and how many states there are:
//!
//! ```text
//! CORRAL_EXHAUSTIVE=1 cargo test --release -p corral-server --lib exhaustive -- --nocapture --test-threads 1
//! ```
//!
//! States are told apart by hashes of 64 bits, so a few among many millions may be taken for others; the hash is the same in
//! every run.
//!
//! **Invariants**: a check that passes has gone through all states of its scope, and has seen what would show that it looked at
//! nothing.
//!
//! **Not here**: observers, reconfiguration, time.

#![expect(
    clippy::disallowed_methods,
    reason = "how much is tried is for whoever runs it; and how long it took is printed"
)]

mod broadcast;
mod cluster;
mod laws;

use stateright::{Checker, Expectation, Model};
use std::any::Any;
use std::fmt::Debug;
use std::hash::Hash;
use std::time::Instant;

/// Whether there is time for more.
pub(super) fn is_thorough() -> bool {
    std::env::var("CORRAL_EXHAUSTIVE").is_ok_and(|text| text == "1")
}

/// What a failed assertion says.
pub(super) fn said_by(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str).or(panic.downcast_ref::<&str>().copied());
    text.unwrap_or("an assertion failed").to_owned()
}

/// Goes through all states. What is sometimes true must be found, except for what is `never` in this scope; of what is wrong,
/// the way there is printed, and what `why` has to say.
pub(super) fn check<M>(scope: &str, model: M, never: &[&str], why: impl Fn(&M::State) -> String)
where
    M: Model + Send + Sync + 'static,
    M::State: Clone + Debug + Hash + PartialEq + Send + Sync,
    M::Action: Clone + Debug + PartialEq + Send + Sync,
{
    let start = Instant::now();
    let builder = model.checker().threads(2);
    // Depth first needs less memory, breadth first has shorter counterexamples.
    match is_thorough() {
        true => judge(builder.spawn_dfs().join(), scope, start, never, why),
        false => judge(builder.spawn_bfs().join(), scope, start, never, why),
    }
}

fn judge<M>(checker: impl Checker<M>, scope: &str, start: Instant, never: &[&str], why: impl Fn(&M::State) -> String)
where
    M: Model,
    M::State: Clone + Debug + Hash + PartialEq,
    M::Action: Clone + Debug + PartialEq,
{
    let (unique, steps, depth) = (checker.unique_state_count(), checker.state_count(), checker.max_depth());
    println!("{scope}: {unique} states, {steps} steps between them, depth {depth}, in {:.1?}", start.elapsed());
    assert!(checker.is_done(), "{scope}: not all states were looked at");
    let mut wrong = Vec::new();
    for property in checker.model().properties() {
        let name = property.name;
        match (property.expectation, checker.discovery(name)) {
            (Expectation::Always, Some(path)) => {
                let why = why(path.last_state());
                path.into_actions().iter().for_each(|step| println!("    {step:?}"));
                wrong.push(format!("not always: {name}: {why}"));
            }
            (Expectation::Sometimes, None) if !never.contains(&name) => wrong.push(format!("never: {name}")),
            (Expectation::Sometimes, Some(_)) if never.contains(&name) => wrong.push(format!("not never: {name}")),
            _ => {}
        }
    }
    assert!(wrong.is_empty(), "{scope}: {wrong:#?}");
}
