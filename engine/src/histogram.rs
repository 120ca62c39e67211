//! Times and sizes, counted: cheap enough to be recorded for every write, exact enough to be subtracted from each other.
//!
//! One type for the server that records, the words that print, and the benchmark that reads it back over the wire and takes
//! the difference of two readings. Times are kept in nanoseconds, so that a stage of 80 ns is not rounded to nothing.
//!
//! **Invariants**: recording never allocates and never fails (what is above [`HIGHEST`] counts as that); what is said of values is
//! less than one per cent below them, and never above.

use hdrhistogram::Histogram as Buckets;
use std::fmt;
use std::time::Duration;

/// The largest value that is told from larger ones: 1000 s in ns.
pub const HIGHEST: u64 = 1_000_000_000_000;

/// How often which value was seen.
#[derive(Clone, Debug, PartialEq)]
pub struct Histogram(Buckets<u64>);

/// What people look at.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Summary {
    /// Values seen.
    pub count: u64,
    /// Their sum, to within the histogram's precision.
    pub sum: f64,
    /// Half of the values are at most this.
    pub p50: u64,
    /// 99 of 100.
    pub p99: u64,
    /// 999 of 1000.
    pub p99_9: u64,
    /// The largest.
    pub max: u64,
}

impl Summary {
    /// The mean; zero of nothing.
    pub fn mean(&self) -> f64 {
        if self.count == 0 { 0.0 } else { self.sum / self.count as f64 }
    }
}

impl Default for Histogram {
    fn default() -> Histogram {
        Histogram(Buckets::new_with_bounds(1, HIGHEST, 2).expect("valid bounds"))
    }
}

impl Histogram {
    /// One more value.
    pub fn record(&mut self, value: u64) {
        self.0.saturating_record(value);
    }

    /// `count` values that are the same.
    pub fn record_n(&mut self, value: u64, count: u64) {
        self.0.saturating_record_n(value, count);
    }

    /// One more time, in ns.
    pub fn time(&mut self, took: Duration) {
        self.record(nanos(took));
    }

    /// Values seen.
    pub fn count(&self) -> u64 {
        self.0.len()
    }

    /// Adds what another one has counted.
    pub fn add(&mut self, other: &Histogram) {
        self.0.add(&other.0).expect("all have the same bounds");
    }

    /// What came after `earlier`, an older reading of the same histogram. If it is not one (the server was started anew between
    /// them), everything counts.
    pub fn since(&self, earlier: &Histogram) -> Histogram {
        let mut later = self.clone();
        match later.0.subtract(&earlier.0) {
            Ok(()) => later,
            Err(_) => self.clone(),
        }
    }

    /// What people look at.
    pub fn summary(&self) -> Summary {
        let all = &self.0;
        if all.is_empty() {
            return Summary::default();
        }
        let at = |quantile| all.lowest_equivalent(all.value_at_quantile(quantile));
        Summary {
            count: all.len(),
            sum: all.mean() * all.len() as f64,
            p50: at(0.5),
            p99: at(0.99),
            p99_9: at(0.999),
            max: all.lowest_equivalent(all.max()),
        }
    }

    /// Reads back what [`fmt::Display`] has written. `None` if it is anything else.
    pub fn parse(text: &str) -> Option<Histogram> {
        let mut histogram = Histogram::default();
        for pair in text.split_ascii_whitespace() {
            let (value, count) = pair.split_once(':')?;
            let (value, count) = (value.parse().ok()?, count.parse().ok()?);
            histogram.record_n(value, count);
        }
        Some(histogram)
    }
}

/// `value:count` for every value that was seen, smallest first, with spaces between them.
impl fmt::Display for Histogram {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (nth, bucket) in self.0.iter_recorded().enumerate() {
            let space = if nth == 0 { "" } else { " " };
            let value = self.0.lowest_equivalent(bucket.value_iterated_to());
            write!(f, "{space}{value}:{}", bucket.count_since_last_iteration())?;
        }
        Ok(())
    }
}

/// A time as histograms keep it.
pub fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_times_are_not_rounded_away() {
        let mut histogram = Histogram::default();
        histogram.time(Duration::from_nanos(83));
        histogram.time(Duration::from_secs(100_000));
        let summary = histogram.summary();
        assert_eq!((summary.count, summary.p50), (2, 83));
        assert!(summary.max as f64 >= 0.99 * HIGHEST as f64, "{summary:?}");
    }

    #[test]
    fn the_difference_of_two_readings_is_what_came_between_them() {
        let mut histogram = Histogram::default();
        (0..1000).for_each(|_| histogram.record(5));
        let earlier = Histogram::parse(&histogram.to_string()).unwrap();
        histogram.record_n(123_456, 10);
        let later = Histogram::parse(&histogram.to_string()).unwrap();
        let between = later.since(&earlier).summary();
        assert_eq!(between.count, 10);
        assert!((between.p50 as f64 / 123_456.0 - 1.0).abs() < 0.01, "{between:?}");
        assert_eq!(earlier.since(&later), earlier, "not an older reading of the same one");
    }

    #[test]
    fn a_reading_is_read_back_as_it_was() {
        let mut histogram = Histogram::default();
        assert_eq!(Histogram::parse(&histogram.to_string()), Some(histogram.clone()));
        for exponent in 0..40 {
            histogram.record_n(1 << exponent, exponent + 1);
            histogram.record(3 << exponent);
        }
        let back = Histogram::parse(&histogram.to_string()).unwrap();
        assert_eq!(back.to_string(), histogram.to_string());
        assert_eq!(back.summary().p99, histogram.summary().p99);
        assert_eq!(Histogram::parse("12:x"), None);
        assert_eq!(Histogram::parse("imok"), None);
    }
}
