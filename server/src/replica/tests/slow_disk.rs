//! A disk under a test's control: it finishes, or fails, what it is told to, when it is told to.

use corral_engine::disk::{Completion, Disk, Took, Write};
use std::io;
use std::os::unix::fs::FileExt;

/// A disk that finishes its writes one by one, when it is told to. They do reach their file then, so that the log can
/// be recovered from it.
#[derive(Default)]
pub(super) struct SlowDisk {
    pub(super) in_flight: Vec<Write>,
    done: Vec<Completion>,
}

impl SlowDisk {
    /// Finishes the write in this place of those in flight.
    pub(super) fn finish(&mut self, index: usize) {
        let write = self.in_flight.remove(index);
        write.file.write_all_at(&write.data, write.offset).expect("the test's own disk has room");
        self.done(write.token, Ok(()));
    }

    fn done(&mut self, token: u64, result: io::Result<()>) {
        self.done.push(Completion { token, result, took: Took::default() });
    }

    pub(super) fn fail(&mut self) {
        let write = self.in_flight.remove(0);
        self.done(write.token, Err(io::Error::other("no such luck")));
    }
}

impl Disk for SlowDisk {
    fn submit(&mut self, write: Write) {
        self.in_flight.push(write);
    }

    fn has_completions(&self) -> bool {
        false
    }

    fn completions(&mut self, out: &mut Vec<Completion>) {
        out.append(&mut self.done);
    }
}
