//! The longest time without an answer, over all connections: what a load saw of an election.
//!
//! Threads note in which milliseconds answers came, a bit each, and the union has the gaps.
//!
//! **Invariants**: noting does not allocate; what is reported is at most two milliseconds too short, and never too long.
//!
//! **Not here**: latencies; a request that waited through a gap shows there as well.

const MS: u64 = 1_000_000;

/// When answers came.
#[derive(Clone, Debug)]
pub(crate) struct Silence {
    from: u64,
    end: u64,
    heard: Vec<u64>,
}

impl Silence {
    /// Between two moments, in ns.
    pub(crate) fn new(from: u64, end: u64) -> Silence {
        let ms = end.saturating_sub(from).div_ceil(MS) as usize;
        Silence { from, end, heard: vec![0; ms.div_ceil(64)] }
    }

    /// An answer came, within the time that is looked at.
    pub(crate) fn heard(&mut self, now: u64) {
        let ms = now.saturating_sub(self.from) / MS;
        if let Some(word) = self.heard.get_mut(ms as usize / 64) {
            *word |= 1 << (ms % 64);
        }
    }

    /// What is looked at ends earlier.
    pub(crate) fn cut(&mut self, end: u64) {
        self.end = self.end.min(end);
    }

    /// Adds what another thread has heard in the same time.
    pub(crate) fn add(&mut self, other: &Silence) {
        self.heard.iter_mut().zip(&other.heard).for_each(|(mine, theirs)| *mine |= theirs);
    }

    /// The longest time in ms in which nothing came.
    pub(crate) fn longest_ms(&self) -> u64 {
        let (mut longest, mut current) = (0, 0);
        for ms in 0..self.end.saturating_sub(self.from) / MS {
            current = if self.heard[ms as usize / 64] >> (ms % 64) & 1 == 1 { 0 } else { current + 1 };
            longest = current.max(longest);
        }
        longest
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_no_thread_has_heard_is_silence() {
        let (from, end) = (5 * MS, 1005 * MS);
        let mut one = Silence::new(from, end);
        let mut other = one.clone();
        assert_eq!(one.longest_ms(), 1000);
        for ms in (0..1000).filter(|ms| !(300..420).contains(ms)) {
            if ms % 2 == 0 { one.heard(from + ms * MS) } else { other.heard(from + ms * MS + 999_999) }
        }
        assert_eq!((one.longest_ms(), other.longest_ms()), (121, 121));
        one.add(&other);
        assert_eq!(one.longest_ms(), 120);
        one.cut(from + 350 * MS);
        assert_eq!(one.longest_ms(), 50, "what comes after the end is not looked at");
        one.heard(end + 10_000 * MS);
        assert_eq!(Silence::new(7, 7).longest_ms(), 0);
    }
}
