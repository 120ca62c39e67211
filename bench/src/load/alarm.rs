//! An alarm clock that a mio poll can wait for.
//!
//! The timeout of a poll counts whole milliseconds, and an open loop of 20 000 arrivals a second has one every 50 µs. A
//! timerfd has the kernel's full resolution and, unlike spinning, leaves the core to the server when both share it.
//!
//! **Not here**: what the alarm is for.

use mio::unix::SourceFd;
use mio::{Interest, Registry, Token};
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

/// See the module.
#[derive(Debug)]
pub(crate) struct Alarm(OwnedFd);

impl Alarm {
    /// An alarm that wakes the poll of `registry` with `token`.
    pub(crate) fn register(registry: &Registry, token: Token) -> io::Result<Alarm> {
        let fd = timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC)?;
        registry.register(&mut SourceFd(&fd.as_raw_fd()), token, Interest::READABLE)?;
        Ok(Alarm(fd))
    }

    /// Rings once, in `ns` nanoseconds, and forgets any earlier order. It need not be read: setting it again clears it.
    pub(crate) fn ring_in(&self, ns: u64) -> io::Result<()> {
        let zero = Timespec { tv_sec: 0, tv_nsec: 0 };
        // Zero would switch it off.
        let ns = ns.max(1);
        let value = Timespec { tv_sec: (ns / 1_000_000_000) as i64, tv_nsec: (ns % 1_000_000_000) as i64 };
        timerfd_settime(&self.0, TimerfdTimerFlags::empty(), &Itimerspec { it_interval: zero, it_value: value })?;
        Ok(())
    }
}
