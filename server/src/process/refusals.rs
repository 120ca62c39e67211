//! Connections that are refused, as the log tells of them: of a client that tries again and again one line a second, not one each.
//!
//! **Not here**: why one is refused.

use std::fmt::Display;
use std::time::Duration;

const PAUSE: Duration = Duration::from_secs(1);

#[derive(Default)]
pub(super) struct Refusals {
    /// Nothing is said before.
    silent_until: Duration,
    unsaid: u64,
}

impl Refusals {
    /// One more, at this time since the server's start. Returns what is to be said.
    pub(super) fn add(&mut self, now: Duration, why: impl Display) -> Option<String> {
        if now < self.silent_until {
            self.unsaid += 1;
            return None;
        }
        self.silent_until = now + PAUSE;
        Some(match std::mem::take(&mut self.unsaid) {
            0 => why.to_string(),
            unsaid => format!("{why}; {unsaid} more were refused since this was last said"),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_many_refusals_one_a_second_is_told_of_and_none_is_left_out() {
        let mut refusals = Refusals::default();
        let said: Vec<String> =
            (0..25).filter_map(|tenth| refusals.add(Duration::from_millis(100 * tenth), "full")).collect();
        let more = "full; 9 more were refused since this was last said";
        assert_eq!(said, ["full", more, more]);
    }
}
