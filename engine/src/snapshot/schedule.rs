//! When to take the next snapshot: after a random number of transactions, so that the members of an ensemble do not all do it at
//! once.
//!
//! Apache's rule (`SyncRequestProcessor.shouldSnapshot`): after more than `snapCount/2 + r` transactions, `r` below `snapCount/2`,
//! or likewise after so many bytes of log. One that failed is tried again after a pause that doubles each time: what keeps a
//! snapshot from being written, a full disk mostly, also keeps the log growing.
//!
//! **Not here**: whether one is still being taken (then the next is due at once when it is done).

use rand::Rng;
use rand::SeedableRng;
use rand::rngs::SmallRng;
use std::time::Duration;

/// The pause after a snapshot that failed, and the longest that it grows to.
const RETRY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(300));

/// Counts what was logged since the last snapshot.
#[derive(Debug)]
pub struct Schedule {
    count_max: u64,
    bytes_max: u64,
    random: SmallRng,
    count_due: u64,
    bytes_due: u64,
    count: u64,
    bytes: u64,
    /// Failures since the last that was taken, and when to try again.
    failures: u32,
    retry_at: Option<Duration>,
}

impl Schedule {
    /// After at most `snap_count` transactions (at least 2) or `snap_bytes` bytes (0: however many).
    pub fn new(snap_count: u64, snap_bytes: u64, seed: u64) -> Schedule {
        let random = SmallRng::seed_from_u64(seed);
        let mut schedule = Schedule {
            count_max: snap_count.max(2),
            bytes_max: snap_bytes,
            random,
            count_due: 0,
            bytes_due: 0,
            count: 0,
            bytes: 0,
            failures: 0,
            retry_at: None,
        };
        schedule.restart();
        schedule
    }

    /// So much was logged.
    pub fn logged(&mut self, records: u64, bytes: u64) {
        self.count += records;
        self.bytes += bytes;
    }

    /// Whether a snapshot should be taken.
    pub fn is_due(&self, now: Duration) -> bool {
        match self.retry_at {
            Some(at) => at <= now,
            None => self.count > self.count_due || (self.bytes_max > 0 && self.bytes > self.bytes_due),
        }
    }

    /// When one is due even if nothing is logged until then.
    pub fn deadline(&self) -> Option<Duration> {
        self.retry_at
    }

    /// One has been begun: draw when the next is due.
    pub fn restart(&mut self) {
        (self.count, self.bytes, self.retry_at) = (0, 0, None);
        self.count_due = self.count_max / 2 + self.random.random_range(0..self.count_max.div_ceil(2));
        self.bytes_due = self.bytes_max / 2 + self.random.random_range(0..=self.bytes_max / 2);
    }

    /// The one that was begun has been taken.
    pub fn taken(&mut self) {
        self.failures = 0;
    }

    /// The one that was begun failed. Returns how long it is until it is tried again.
    pub fn failed(&mut self, now: Duration) -> Duration {
        let pause = (RETRY.0 * 2u32.saturating_pow(self.failures)).min(RETRY.1);
        self.failures = (self.failures + 1).min(16);
        self.retry_at = Some(now + pause);
        pause
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Duration = Duration::ZERO;

    #[test]
    fn each_is_taken_after_more_than_half_and_at_most_all_of_the_count() {
        for seed in 0..200 {
            let mut schedule = Schedule::new(100, 0, seed);
            let mut counts = Vec::new();
            for _ in 0..5 {
                let mut count = 0;
                while !schedule.is_due(NOW) {
                    schedule.logged(1, 1 << 30);
                    count += 1;
                }
                counts.push(count);
                schedule.restart();
            }
            assert!(counts.iter().all(|count| (51..=100).contains(count)), "{counts:?}");
            assert!(counts.iter().any(|count| *count != counts[0]), "they differ: {counts:?}");
        }
    }

    #[test]
    fn bytes_count_as_well_where_there_is_a_limit() {
        let mut schedule = Schedule::new(1_000_000, 1000, 1);
        schedule.logged(1, 500);
        assert!(!schedule.is_due(NOW));
        schedule.logged(1, 501);
        assert!(schedule.is_due(NOW));
    }

    #[test]
    fn one_that_failed_is_tried_again_after_longer_and_longer_pauses() {
        let mut schedule = Schedule::new(1_000_000, 0, 1);
        let mut now = NOW;
        let pauses: Vec<u64> = (0..11)
            .map(|_| {
                schedule.restart();
                let pause = schedule.failed(now);
                assert!(!schedule.is_due(now) && schedule.is_due(now + pause));
                now += pause;
                pause.as_secs()
            })
            .collect();
        assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300]);
        schedule.restart();
        schedule.taken();
        assert_eq!((schedule.is_due(now), schedule.deadline()), (false, None));
        assert_eq!(schedule.failed(now), RETRY.0);
    }
}
