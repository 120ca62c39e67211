//! When requests start: the arrival plan of one connection.
//!
//! In a *closed loop* a request starts when an earlier one is answered, so a slow server is asked less often, and what
//! the waiting would have cost other users never shows ("coordinated omission"). In an *open loop* requests start at
//! moments fixed beforehand, whatever the server does; a request that cannot be sent then is sent later, and its latency
//! still counts from the planned moment.
//!
//! A plan is drawn lazily: however far the server falls behind, the backlog is just the distance between the next
//! arrival and now, and takes no memory.
//!
//! **Invariants**: arrivals never go back; no arrival is skipped; nothing starts at or after `end`. Times are nanoseconds
//! since an origin that only the caller knows.
//!
//! **Not here**: the clock, which operation starts, how many may be in flight.

use clap::ValueEnum;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use serde::Serialize;

const SECOND_NS: f64 = 1e9;

/// How the arrivals of an open loop are spread.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Arrivals {
    /// Evenly, over all connections together.
    Constant,
    /// Independently of each other, as many users' requests do: exponential gaps.
    Poisson,
}

/// When one connection's requests start.
#[derive(Debug)]
pub(crate) enum Plan {
    /// Whenever there is room.
    Closed,
    /// At moments fixed beforehand.
    Open(Schedule),
}

impl Plan {
    /// Takes the next request that should have started by `now`: returns when.
    pub(crate) fn take(&mut self, now: u64, end: u64) -> Option<u64> {
        match self {
            Plan::Closed => (now < end).then_some(now),
            Plan::Open(schedule) => {
                let due = schedule.next;
                (due <= now && due < end).then(|| {
                    schedule.advance();
                    due
                })
            }
        }
    }

    /// When the next request is to start, if that is known and before `end`.
    pub(crate) fn due(&self, end: u64) -> Option<u64> {
        match self {
            Plan::Closed => None,
            Plan::Open(schedule) => Some(schedule.next).filter(|due| *due < end),
        }
    }

    /// Hands on the requests that are still to start before `end`, as (start, how many). Of a huge backlog it hands on
    /// evenly spread groups, because drawing a billion arrivals one by one would take as long as the run.
    pub(crate) fn backlog(&mut self, end: u64, mut each: impl FnMut(u64, u64)) {
        const ONE_BY_ONE: u64 = 10_000;
        for _ in 0..ONE_BY_ONE {
            let Some(due) = self.due(end) else { return };
            self.take(due, end);
            each(due, 1);
        }
        let (Plan::Open(schedule), Some(from)) = (&*self, self.due(end)) else { return };
        let left = ((end - from) as f64 / schedule.gap_ns).ceil() as u64;
        for group in 0..ONE_BY_ONE.min(left) {
            let size = left / ONE_BY_ONE.min(left) + u64::from(group < left % ONE_BY_ONE.min(left));
            let at = (end - from) as f64 * group as f64 / ONE_BY_ONE.min(left) as f64;
            each(from + at as u64, size);
        }
    }
}

/// The arrivals of one connection in an open loop.
#[derive(Debug)]
pub(crate) struct Schedule {
    /// The first arrival of a constant plan, the last one of a Poisson plan; in ns, with fractions, so that gaps that
    /// are not whole nanoseconds do not add up to a wrong rate.
    base_ns: f64,
    /// Mean distance between two arrivals of this connection.
    gap_ns: f64,
    taken: u64,
    next: u64,
    /// Only a Poisson plan has one.
    rng: Option<SmallRng>,
}

impl Schedule {
    /// The share of connection `index` out of `connections` in `rate` arrivals a second, from `begin` on.
    pub(crate) fn new(
        arrivals: Arrivals,
        rate: f64,
        index: usize,
        connections: usize,
        begin: u64,
        seed: u64,
    ) -> Schedule {
        assert!(rate > 0.0 && index < connections, "a share of a rate");
        let gap_ns = SECOND_NS * connections as f64 / rate;
        let begin = begin as f64;
        let mut schedule = match arrivals {
            // The connections take turns: together they make one even row of arrivals.
            Arrivals::Constant => {
                let base_ns = begin + SECOND_NS * index as f64 / rate;
                Schedule { base_ns, gap_ns, taken: 0, next: base_ns.round() as u64, rng: None }
            }
            // Independent Poisson processes add up to one.
            Arrivals::Poisson => {
                Schedule { base_ns: begin, gap_ns, taken: 0, next: 0, rng: Some(SmallRng::seed_from_u64(seed)) }
            }
        };
        if schedule.rng.is_some() {
            schedule.advance();
            schedule.taken = 0;
        }
        schedule
    }

    fn advance(&mut self) {
        self.taken += 1;
        match &mut self.rng {
            None => self.next = (self.base_ns + self.gap_ns * self.taken as f64).round() as u64,
            Some(rng) => {
                // 1 - u is in (0, 1], whose logarithm is finite.
                let u: f64 = rng.random();
                self.base_ns -= (1.0 - u).ln() * self.gap_ns;
                self.next = self.base_ns as u64;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn starts(plan: &mut Plan, now: u64, end: u64) -> Vec<u64> {
        std::iter::from_fn(|| plan.take(now, end)).collect()
    }

    fn open(arrivals: Arrivals, rate: f64, index: usize, connections: usize, seed: u64) -> Plan {
        Plan::Open(Schedule::new(arrivals, rate, index, connections, 0, seed))
    }

    #[test]
    fn a_closed_loop_starts_now_until_the_end() {
        let mut plan = Plan::Closed;
        assert_eq!((plan.take(9, 10), plan.take(9, 10), plan.take(10, 10)), (Some(9), Some(9), None));
        assert_eq!(plan.due(10), None);
    }

    #[test]
    fn constant_arrivals_of_all_connections_make_one_even_row() {
        let mut row: Vec<u64> = (0..3)
            .flat_map(|index| starts(&mut open(Arrivals::Constant, 1000.0, index, 3, 0), SECOND, SECOND))
            .collect();
        row.sort_unstable();
        assert_eq!(row.len(), 1000);
        assert!(row.iter().enumerate().all(|(n, at)| at.abs_diff(n as u64 * 1_000_000) <= 1), "{row:?}");
    }

    #[test]
    fn a_gap_that_is_no_whole_nanosecond_does_not_drift() {
        // 3 a second: the 3 000 000th arrival is due after a million seconds, not one third of a ns times 3 000 000 off.
        let mut plan = open(Arrivals::Constant, 3.0, 0, 1, 0);
        let mut last = 0;
        while let Some(at) = plan.take(u64::MAX, 1_000_000 * SECOND + 1) {
            last = at;
        }
        assert_eq!(last, 1_000_000 * SECOND);
    }

    #[test]
    fn a_late_taker_gets_the_planned_moments_not_the_present() {
        let mut plan = open(Arrivals::Constant, 10.0, 0, 1, 0);
        assert_eq!(starts(&mut plan, 250_000_000, SECOND), [0, 100_000_000, 200_000_000]);
        assert_eq!(plan.due(SECOND), Some(300_000_000));
        assert_eq!(plan.due(300_000_000), None);
    }

    #[test]
    fn poisson_arrivals_have_the_rate_and_the_spread() {
        let all = starts(&mut open(Arrivals::Poisson, 200_000.0, 0, 2, 7), SECOND, SECOND);
        assert!(all.is_sorted());
        assert!(all.len().abs_diff(100_000) < 2_000, "{} arrivals", all.len());
        // The standard deviation of exponential gaps equals their mean.
        let gaps: Vec<f64> = all.windows(2).map(|pair| (pair[1] - pair[0]) as f64).collect();
        let mean = gaps.iter().sum::<f64>() / gaps.len() as f64;
        let deviation = (gaps.iter().map(|gap| (gap - mean).powi(2)).sum::<f64>() / gaps.len() as f64).sqrt();
        assert!((deviation / mean - 1.0).abs() < 0.05, "deviation {deviation}, mean {mean}");
    }

    #[test]
    fn a_seed_fixes_a_poisson_plan() {
        let of = |seed| starts(&mut open(Arrivals::Poisson, 1000.0, 0, 1, seed), SECOND, SECOND);
        assert_eq!(of(1), of(1));
        assert_ne!(of(1), of(2));
    }

    #[test]
    fn the_backlog_is_complete_also_where_it_is_grouped() {
        for rate in [5_000.0, 123_456.0] {
            let (mut count, mut last) = (0, 0);
            open(Arrivals::Constant, rate, 0, 1, 0).backlog(SECOND, |at, size| {
                assert!(at >= last && at < SECOND);
                (count, last) = (count + size, at);
            });
            assert!(count.abs_diff(rate as u64) <= 1, "{count}");
        }
        Plan::Closed.backlog(SECOND, |_, _| panic!("a closed loop has no backlog"));
    }
}
