//! The log's writes as plain blocking calls, for kernels and containers that refuse io_uring.
//!
//! The write is done, and durable, when [`Disk::submit`] returns: whatever arrives meanwhile waits in the sockets and makes
//! the next batch, so group commit works all the same.

#![expect(clippy::disallowed_methods, reason = "how long the device takes is measured where it is waited for")]

use super::{Completion, Disk, LogSync, Took, Write};
use std::io;
use std::os::unix::fs::FileExt;
use std::time::Instant;

/// Blocking writes.
#[derive(Debug)]
pub struct Pwrite {
    sync: LogSync,
    done: Vec<Completion>,
}

impl Pwrite {
    /// Writes that become durable by `sync`. ([`LogSync::Dsync`] is a property of the opened file here.)
    pub fn new(sync: LogSync) -> Pwrite {
        Pwrite { sync, done: Vec::new() }
    }

    fn write(&self, write: &Write) -> io::Result<Took> {
        let begin = Instant::now();
        write.file.write_all_at(&write.data, write.offset)?;
        let written = begin.elapsed();
        match self.sync {
            LogSync::Dsync | LogSync::None => return Ok(Took { write: written, flush: None }),
            LogSync::Fdatasync => write.file.sync_data()?,
            LogSync::Fsync => write.file.sync_all()?,
        }
        Ok(Took { write: written, flush: Some(begin.elapsed() - written) })
    }
}

impl Disk for Pwrite {
    fn submit(&mut self, write: Write) {
        let (result, took) = match self.write(&write) {
            Ok(took) => (Ok(()), took),
            Err(error) => (Err(error), Took::default()),
        };
        self.done.push(Completion { token: write.token, result, took });
    }

    fn has_completions(&self) -> bool {
        !self.done.is_empty()
    }

    fn completions(&mut self, out: &mut Vec<Completion>) {
        out.append(&mut self.done);
    }
}
