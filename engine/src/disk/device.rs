//! The device that a [`Mode`] asks for, behind one type, and the two ways in which the thread that owns it can sleep.

use super::pwrite::Pwrite;
use super::ring::Ring;
use super::{Completion, Disk, LogIo, Mode, Write};
use std::io;

/// A ring or blocking calls.
#[expect(clippy::large_enum_variant, reason = "there is one of these in a process")]
pub enum Device {
    /// The owner sleeps in [`Ring::wait`].
    Ring(Ring),
    /// Nothing is ever in flight after a submit; the owner sleeps in its own poll.
    Pwrite(Pwrite),
}

impl Device {
    /// Opens the device of `mode` for the calling thread, which must be the only one to use it.
    pub fn open(mode: &Mode) -> io::Result<Device> {
        Ok(match mode.io {
            LogIo::UringDirect | LogIo::UringBuffered => Device::Ring(Ring::new(mode.sync)?),
            LogIo::Pwrite => Device::Pwrite(Pwrite::new(mode.sync)),
        })
    }
}

impl Disk for Device {
    fn submit(&mut self, write: Write) {
        match self {
            Device::Ring(ring) => ring.submit(write),
            Device::Pwrite(pwrite) => pwrite.submit(write),
        }
    }

    fn push(&mut self) {
        if let Device::Ring(ring) = self {
            ring.submit_queued();
        }
    }

    fn has_completions(&self) -> bool {
        match self {
            Device::Ring(ring) => ring.has_completions(),
            Device::Pwrite(pwrite) => pwrite.has_completions(),
        }
    }

    fn completions(&mut self, out: &mut Vec<Completion>) {
        match self {
            Device::Ring(ring) => ring.completions(out),
            Device::Pwrite(pwrite) => pwrite.completions(out),
        }
    }
}
