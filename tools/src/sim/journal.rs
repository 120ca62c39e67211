//! What happens in a run, a line each, for people; kept where a panic can still find it.
//!
//! A violated promise, and an assertion of the production code, are panics. Whoever reports one has only the thread that it happened
//! in: so that is where the journal is.

use std::cell::{Cell, RefCell};
use std::time::Duration;

thread_local! {
    static LINES: RefCell<Option<Vec<String>>> = const { RefCell::new(None) };
    static STEP: Cell<u64> = const { Cell::new(0) };
}

/// A run begins in this thread; its events are written down, or only counted.
pub fn begin(writes: bool) {
    LINES.set(writes.then(Vec::new));
    STEP.set(0);
}

/// The next step is taken.
pub(super) fn step(number: u64) {
    STEP.set(number);
}

/// The step that this thread's run is at.
pub fn current_step() -> u64 {
    STEP.get()
}

/// Something happened, at a member or to all.
pub(super) fn tell(step: u64, now: Duration, who: Option<usize>, what: impl FnOnce() -> String) {
    LINES.with_borrow_mut(|lines| {
        if let Some(lines) = lines {
            let who = who.map_or(String::new(), |member| format!("server {}", member + 1));
            lines.push(format!("{step:>7} {:>11.3} ms  {who:<9} {}", now.as_secs_f64() * 1e3, what()));
        }
    });
}

/// All lines of this thread's run.
pub fn take() -> Vec<String> {
    LINES.take().unwrap_or_default()
}
