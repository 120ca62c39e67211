//! What is counted: latencies, completions and errors of the measured window.
//!
//! A request belongs to the window if it *should have started* inside it, whenever its answer comes; that gives its
//! latency. Throughput counts the answers that *came* inside the window. Warm-up before and draining after it are in
//! neither.
//!
//! **Invariants**: recording does not allocate; latencies are kept in nanoseconds with three significant digits and
//! become microseconds in the report only.
//!
//! **Not here**: the clock, formatting.

use super::plan::Plan;
use super::silence::Silence;
use super::workload::Operation;
use corral_proto::ErrorCode;
use hdrhistogram::Histogram;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Longer latencies are recorded as this one: an hour.
const LATENCY_NS_MAX: u64 = 3_600_000_000_000;

/// The phases of a run, in nanoseconds since the run's origin.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Window {
    /// The first request, and the beginning of warm-up.
    pub begin: u64,
    /// The end of warm-up.
    pub from: u64,
    /// The last request that starts, starts before.
    pub end: u64,
}

impl Window {
    fn contains(&self, at: u64) -> bool {
        self.from <= at && at < self.end
    }
}

/// A request that is on its way.
#[derive(Clone, Copy, Debug)]
pub(crate) struct InFlight {
    /// When it should have started.
    pub intended: u64,
    /// When it was sent.
    pub sent: u64,
    /// Its answer's xid.
    pub xid: i32,
    /// What it is.
    pub operation: Operation,
}

/// A histogram of latencies in nanoseconds.
pub(crate) fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, LATENCY_NS_MAX, 3).expect("valid bounds")
}

/// What one thread has counted, or all threads together.
#[derive(Debug)]
pub(crate) struct Tally {
    window: Window,
    open_loop: bool,
    /// Latency from the intended start, one histogram an [`Operation`].
    pub from_intended: [Histogram<u64>; 3],
    /// Latency from the actual send, all operations together. In a closed loop it would be the same, and stays empty.
    pub from_send: Histogram<u64>,
    /// Answers without error that came inside the window.
    pub completed: u64,
    /// When those came.
    pub silence: Silence,
    /// Errors inside the window, by kind.
    pub errors: BTreeMap<String, u64>,
    /// Connections that were made anew, at any time of the run.
    pub reconnects: u64,
    /// Requests that should have started inside the window and could not be sent at all.
    pub unsent: u64,
    /// What the load threads consumed inside the window.
    pub client_cpu_ns: u64,
}

impl Tally {
    /// Nothing counted yet.
    pub(crate) fn new(window: Window, open_loop: bool) -> Tally {
        Tally {
            window,
            open_loop,
            from_intended: std::array::from_fn(|_| histogram()),
            from_send: histogram(),
            completed: 0,
            silence: Silence::new(window.from, window.end),
            errors: BTreeMap::new(),
            reconnects: 0,
            unsent: 0,
            client_cpu_ns: 0,
        }
    }

    /// Notes an answer without error.
    pub(crate) fn answered(&mut self, request: &InFlight, now: u64) {
        if self.window.contains(now) {
            self.completed += 1;
            self.silence.heard(now);
        }
        if self.window.contains(request.intended) {
            let latency = now.saturating_sub(request.intended);
            self.from_intended[request.operation as usize].saturating_record(latency);
            if self.open_loop {
                self.from_send.saturating_record(now.saturating_sub(request.sent));
            }
        }
    }

    /// Notes `count` errors of what should have happened at `at`.
    pub(crate) fn failed(&mut self, kind: &str, count: u64, at: u64) {
        if count == 0 || !self.window.contains(at) {
            return;
        }
        match self.errors.get_mut(kind) {
            Some(errors) => *errors += count,
            None => drop(self.errors.insert(kind.to_owned(), count)),
        }
    }

    /// Notes what an open loop could not send until `now`. Leaving it out would be coordinated omission after all: it
    /// is recorded with the latency that it has reached, which its real one would have exceeded.
    pub(crate) fn left_behind(&mut self, plan: &mut Plan, now: u64, mut operation: impl FnMut() -> Operation) {
        let Tally { window, from_intended, unsent, .. } = self;
        plan.backlog(window.end, |intended, count| {
            if window.contains(intended) {
                from_intended[operation() as usize].saturating_record_n(now.saturating_sub(intended), count);
                *unsent += count;
            }
        });
    }

    /// Ends the window early, because the user said so.
    pub(crate) fn cut(&mut self, end: u64) {
        self.window.end = self.window.end.min(end);
        self.silence.cut(end);
    }

    /// Adds what another thread has counted.
    pub(crate) fn add(&mut self, other: &Tally) {
        let same = "all histograms have the same bounds";
        for (mine, theirs) in self.from_intended.iter_mut().zip(&other.from_intended) {
            mine.add(theirs).expect(same);
        }
        self.from_send.add(&other.from_send).expect(same);
        for (kind, count) in &other.errors {
            *self.errors.entry(kind.clone()).or_default() += count;
        }
        self.completed += other.completed;
        self.silence.add(&other.silence);
        self.reconnects += other.reconnects;
        self.unsent += other.unsent;
        self.client_cpu_ns += other.client_cpu_ns;
    }
}

/// The word under which an error code of the server is counted: its name in snake case.
pub(crate) fn code_kind(code: i32) -> String {
    let Some(error) = ErrorCode::from_code(code) else { return format!("code_{code}") };
    let mut kind = String::new();
    let mut previous = '_';
    for letter in error.name().chars() {
        if letter.is_uppercase() && previous.is_lowercase() {
            kind.push('_');
        }
        kind.push(letter.to_ascii_lowercase());
        previous = letter;
    }
    kind
}

/// What other threads may see of a run while it goes on, warm-up included.
#[derive(Debug, Default)]
pub(crate) struct Live {
    /// Answers without error.
    pub completed: AtomicU64,
    /// Errors.
    pub errors: AtomicU64,
    /// Sum of the latencies of `completed`, from the intended start.
    pub latency_ns: AtomicU64,
}

/// One thread's part of [`Live`], published once in a while so that the hot loop shares no cache line.
#[derive(Debug, Default)]
pub(crate) struct LiveDelta {
    /// See [`Live`].
    pub completed: u64,
    /// See [`Live`].
    pub errors: u64,
    /// See [`Live`].
    pub latency_ns: u64,
}

impl LiveDelta {
    /// Adds what has come together to `live`.
    pub(crate) fn publish(&mut self, live: &Live) {
        for (shared, mine) in [
            (&live.completed, &mut self.completed),
            (&live.errors, &mut self.errors),
            (&live.latency_ns, &mut self.latency_ns),
        ] {
            if *mine > 0 {
                shared.fetch_add(std::mem::take(mine), Relaxed);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::plan::{Arrivals, Schedule};
    use super::*;

    const WINDOW: Window = Window { begin: 0, from: 1_000, end: 2_000 };

    fn request(intended: u64) -> InFlight {
        InFlight { intended, sent: intended + 10, xid: 1, operation: Operation::Set }
    }

    #[test]
    fn latency_goes_by_the_intended_start_and_throughput_by_the_answer() {
        let mut tally = Tally::new(WINDOW, true);
        tally.answered(&request(900), 1_100); // sent during warm-up, answered inside
        tally.answered(&request(1_500), 1_600);
        tally.answered(&request(1_900), 2_500); // answered while draining
        tally.answered(&request(10), 20);
        assert_eq!(tally.completed, 2);
        let set = &tally.from_intended[Operation::Set as usize];
        assert_eq!((set.len(), set.min(), set.max()), (2, 100, 600));
        assert_eq!((tally.from_send.len(), tally.from_send.min()), (2, 90));
    }

    #[test]
    fn errors_are_counted_by_kind_and_only_inside() {
        let mut tally = Tally::new(WINDOW, true);
        tally.failed("connection_loss", 3, 1_500);
        tally.failed("connection_loss", 1, 1_600);
        tally.failed("connection_loss", 9, 100);
        tally.failed("timeout", 0, 1_500);
        let mut sum = Tally::new(WINDOW, true);
        sum.add(&tally);
        sum.add(&tally);
        assert_eq!(sum.errors, BTreeMap::from([("connection_loss".to_owned(), 8)]));
    }

    #[test]
    fn what_was_never_sent_has_at_least_the_latency_it_waited() {
        let mut tally = Tally::new(WINDOW, true);
        let mut plan = Plan::Open(Schedule::new(Arrivals::Constant, 1e7, 0, 1, 0, 0));
        while plan.take(1_499, WINDOW.end).is_some() {}
        tally.left_behind(&mut plan, 5_000, || Operation::Get);
        let get = &tally.from_intended[Operation::Get as usize];
        assert_eq!((tally.unsent, get.len()), (5, 5));
        assert!(get.max().abs_diff(3_500) <= 3, "{}", get.max());
    }

    #[test]
    fn codes_have_names() {
        assert_eq!(code_kind(-101), "no_node");
        assert_eq!(code_kind(-114), "invalid_acl");
        assert_eq!(code_kind(-99), "code_-99");
    }
}
