//! The log's writes on io_uring, and the place where a thread that owns a ring sleeps.
//!
//! The ring is made with `SINGLE_ISSUER | DEFER_TASKRUN`: one thread submits and reaps, and completions cost nothing until
//! it asks. A thread that has sockets besides sleeps *in the ring* ([`Ring::wait`]): a one-shot poll of its epoll descriptor
//! is submitted together with the writes, so one system call submits, waits for either, and returns. (The other way round,
//! the ring's descriptor in an edge-triggered epoll set, loses wake-ups with `DEFER_TASKRUN`.)
//!
//! **Invariants**: the memory of a write and its file stay alive until its completion was reaped; a short write is an error
//! (blocks are whole or not at all); after a write, a sync that the mode asks for must succeed before it is reported.
//!
//! **Not here**: `SQPOLL`, linked or drained operations and spinning; each was measured slower (`docs/design.md`).

#![expect(clippy::disallowed_methods, reason = "how long the device takes is measured where it is waited for")]

use super::{Completion, Disk, LogSync, Took, Write};
use io_uring::types::{Fd, FsyncFlags, SubmitArgs, Timespec};
use io_uring::{IoUring, opcode, squeue};
use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::time::{Duration, Instant};

/// Writes in flight at most; far above `log.pipelineDepth`.
const ENTRIES: u32 = 64;

/// What the completion of the poll carries; tokens of writes are counted up from zero and never get there.
const POLL: u64 = u64::MAX;
const SYNC_BIT: u64 = 1 << 63;

/// A ring that belongs to the thread that made it.
pub struct Ring {
    ring: IoUring,
    sync: LogSync,
    in_flight: VecDeque<InFlight>,
    done: Vec<Completion>,
    poll_armed: bool,
}

struct InFlight {
    write: Write,
    /// When the kernel got it; `None` as long as it is only queued.
    begun: Option<Instant>,
    /// How long the write took, once only its sync is missing.
    written: Option<Duration>,
}

/// Whether this kernel lets this process have a ring.
pub fn supported() -> io::Result<()> {
    build(8).map(drop)
}

fn build(entries: u32) -> io::Result<IoUring> {
    IoUring::builder().setup_single_issuer().setup_defer_taskrun().build(entries)
}

impl Ring {
    /// A ring for the calling thread, which must be the only one to use it.
    pub fn new(sync: LogSync) -> io::Result<Ring> {
        let ring = build(ENTRIES)?;
        Ok(Ring { ring, sync, in_flight: VecDeque::new(), done: Vec::new(), poll_armed: false })
    }

    /// Submits what is queued and sleeps until a write completes, `epoll` becomes readable, or `timeout` has passed. True if
    /// `epoll` has something; false spares the caller the system call that would find nothing.
    pub fn wait(&mut self, epoll: RawFd, timeout: Duration) -> io::Result<bool> {
        if !self.poll_armed {
            let poll = opcode::PollAdd::new(Fd(epoll), libc::POLLIN as u32).build().user_data(POLL);
            // SAFETY: a poll refers to no memory; the descriptor outlives the ring's use of it or the poll just fails.
            unsafe { self.push(poll) };
            self.poll_armed = true;
        }
        let timespec = Timespec::from(timeout);
        self.note_begun();
        match self.ring.submitter().submit_with_args(1, &SubmitArgs::new().timespec(&timespec)) {
            Ok(_) => {}
            Err(error)
                if matches!(error.raw_os_error(), Some(libc::ETIME | libc::EINTR | libc::EBUSY | libc::EAGAIN)) => {}
            Err(error) => return Err(error),
        }
        self.reap();
        Ok(!self.poll_armed)
    }

    /// Submits what is queued without sleeping, for a thread that has something else to do first.
    pub fn submit_queued(&mut self) {
        if !self.ring.submission().is_empty() {
            self.note_begun();
            // What the kernel does not take now, it takes when the thread sleeps.
            let _ = self.ring.submit();
        }
    }

    /// Submits what is queued and sleeps until a write completes. For a thread without sockets.
    pub fn wait_for_write(&mut self) -> io::Result<()> {
        while self.done.is_empty() {
            self.note_begun();
            match self.ring.submit_and_wait(1) {
                Ok(_) => {}
                Err(error) if error.raw_os_error() == Some(libc::EINTR) => {}
                Err(error) => return Err(error),
            }
            self.reap();
        }
        Ok(())
    }

    /// What is queued goes to the kernel with the system call that follows.
    fn note_begun(&mut self) {
        let queued = self.in_flight.iter_mut().rev().take_while(|it| it.begun.is_none());
        let mut now = None;
        for it in queued {
            it.begun = Some(*now.get_or_insert_with(Instant::now));
        }
    }

    /// # Safety
    /// What `entry` points to must stay valid until its completion.
    unsafe fn push(&mut self, entry: squeue::Entry) {
        // SAFETY: the caller's promise.
        while unsafe { self.ring.submission().push(&entry) }.is_err() {
            // The queue is full of entries that were not submitted yet: hand them to the kernel and try again.
            self.ring.submit().expect("submitting to one's own ring without waiting");
        }
    }

    fn reap(&mut self) {
        let mut now = None;
        loop {
            let Some(entry) = self.ring.completion().next() else { return };
            let (token, result) = (entry.user_data(), entry.result());
            if token == POLL {
                self.poll_armed = false;
                continue;
            }
            let (synced, token) = (token & SYNC_BIT != 0, token & !SYNC_BIT);
            let at = self.in_flight.iter().position(|it| it.write.token == token).expect("completed once");
            let it = &mut self.in_flight[at];
            let write = &it.write;
            // A full queue may have made the kernel take it before its time was noted.
            let age = it.begun.map_or(Duration::ZERO, |begun| *now.get_or_insert_with(Instant::now) - begun);
            let took = match it.written {
                Some(written) => Took { write: written, flush: Some(age - written) },
                None => Took { write: age, flush: None },
            };
            if result >= 0 && !synced {
                if result as usize != write.data.len() {
                    let error = io::Error::other(format!("{result} of {} bytes were written", write.data.len()));
                    self.finish(at, Err(error), took);
                } else if matches!(self.sync, LogSync::Fdatasync | LogSync::Fsync) {
                    let flags = if self.sync == LogSync::Fsync { FsyncFlags::empty() } else { FsyncFlags::DATASYNC };
                    it.written = Some(age);
                    let sync = opcode::Fsync::new(Fd(write.file.as_raw_fd())).flags(flags);
                    // SAFETY: the file stays open as long as its write is in `in_flight`.
                    unsafe { self.push(sync.build().user_data(token | SYNC_BIT)) };
                } else {
                    self.finish(at, Ok(()), took);
                }
            } else if result >= 0 {
                self.finish(at, Ok(()), took);
            } else {
                self.finish(at, Err(io::Error::from_raw_os_error(-result)), took);
            }
        }
    }

    fn finish(&mut self, at: usize, result: io::Result<()>, took: Took) {
        let it = self.in_flight.remove(at).expect("found just now");
        self.done.push(Completion { token: it.write.token, result, took });
    }
}

impl Disk for Ring {
    /// Queues the write; the next [`Ring::wait`] submits it, in the same system call in which it sleeps.
    fn submit(&mut self, write: Write) {
        assert!(write.token < SYNC_BIT, "tokens are counted up from zero");
        let flags = if self.sync == LogSync::Dsync { libc::RWF_DSYNC } else { 0 };
        let entry = opcode::Write::new(Fd(write.file.as_raw_fd()), write.data.as_ptr(), write.data.len() as u32)
            .offset(write.offset)
            .rw_flags(flags)
            .build()
            .user_data(write.token);
        self.in_flight.push_back(InFlight { write, begun: None, written: None });
        // SAFETY: the bytes and the file are owned by `in_flight` until the completion was reaped, and `Bytes` does not move
        // or change what it points to.
        unsafe { self.push(entry) };
    }

    fn has_completions(&self) -> bool {
        !self.done.is_empty()
    }

    fn completions(&mut self, out: &mut Vec<Completion>) {
        self.reap();
        out.append(&mut self.done);
    }
}

impl Drop for Ring {
    /// The kernel may still be reading the memory of writes in flight: it must outlive them.
    fn drop(&mut self) {
        while !self.in_flight.is_empty() {
            if self.ring.submit_and_wait(1).is_err_and(|error| error.raw_os_error() != Some(libc::EINTR)) {
                // Cannot wait: leak the buffers rather than free what the kernel still reads.
                std::mem::take(&mut self.in_flight).into_iter().for_each(std::mem::forget);
                return;
            }
            self.reap();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{BlockSize, LogIo, Mode};
    use super::*;
    use bytes::Bytes;
    use std::sync::Arc;

    const BLOCK: usize = BlockSize::MIN.bytes();

    /// Needs a kernel that allows io_uring; where it does not, there is nothing to test and the fallback is used.
    #[test]
    fn a_write_completes_in_every_way_of_syncing_and_lands_where_it_should() {
        if supported().is_err() {
            return;
        }
        let dir = tempfile::tempdir_in(".").unwrap();
        for sync in [LogSync::Dsync, LogSync::Fdatasync, LogSync::Fsync, LogSync::None] {
            let path = dir.path().join(sync.to_string());
            std::fs::write(&path, vec![0; 4 * BLOCK]).unwrap();
            let mode = Mode { io: LogIo::UringBuffered, sync, block: BlockSize::MIN, why: String::new() };
            let file = Arc::new(mode.open(&path).unwrap());
            let mut ring = Ring::new(sync).unwrap();
            for token in 0..3u64 {
                let block = [token as u8 + 1; BLOCK];
                let offset = token * BLOCK as u64;
                ring.submit(Write { token, file: file.clone(), offset, data: Bytes::from_owner(block) });
            }
            let mut done = Vec::new();
            while done.len() < 3 {
                ring.wait_for_write().unwrap();
                ring.completions(&mut done);
            }
            assert!(done.iter().all(|completion| completion.result.is_ok()));
            let bytes = std::fs::read(&path).unwrap();
            assert_eq!([bytes[0], bytes[BLOCK], bytes[2 * BLOCK], bytes[3 * BLOCK]], [1, 2, 3, 0]);
        }
    }
}
