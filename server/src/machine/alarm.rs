//! What the operator is told when the log runs out of room: at once, while there is still some; when it is used up; now and then
//! as long as nothing changes; and when it is over.
//!
//! **Not here**: what is done about it. The log tries again by itself ([`corral_engine::txnlog::supply::Supply`]).

use corral_engine::disk::Disk;
use corral_engine::txnlog::Log;
use std::time::Duration;

/// How often the same is said again.
const AGAIN: Duration = Duration::from_secs(60);

/// How bad it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    #[default]
    Well,
    /// The next segment cannot be made, and there is room in this one.
    Short,
    /// Writes wait.
    Out,
}

/// Remembers what was said.
#[derive(Debug, Default)]
pub(super) struct Alarm {
    said: State,
    since: Duration,
    again_at: Option<Duration>,
}

impl Alarm {
    /// Looks at the log and says what there is to say.
    pub(super) fn look<D: Disk>(&mut self, log: &Log<D>, now: Duration) {
        let Some(shortage) = log.shortage() else {
            if self.said != State::Well {
                let seconds = (now - self.since).as_secs();
                tracing::warn!("log segments can be made again after {seconds} s; no write waits for one any more");
                *self = Alarm::default();
            }
            return;
        };
        let state = if log.is_waiting() { State::Out } else { State::Short };
        if state == self.said && self.again_at.is_some_and(|at| now < at) {
            return;
        }
        if self.said == State::Well {
            self.since = now;
        }
        (self.said, self.again_at) = (state, Some(now + AGAIN));
        let todo = format!("make {} MiB of room in {}", shortage.bytes.div_ceil(1 << 20), log.dir().display());
        match state {
            State::Out => tracing::error!(
                "writes wait, reads go on: the log is full and {}; {todo} (tried each second, nothing is lost)",
                shortage.error
            ),
            _ => tracing::error!(
                "the log has room for only {} KiB more: {}; {todo} before writes have to wait",
                log.room() >> 10,
                shortage.error
            ),
        }
    }

    /// When to look again even if nothing happens until then.
    pub(super) fn deadline(&self) -> Option<Duration> {
        self.again_at
    }
}
