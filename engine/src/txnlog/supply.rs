//! Has the next segment ready before it is needed: segments are ordered from a [`Maker`], which has a thread of its own, or
//! is stepped by a simulation.
//!
//! **Invariants**: one segment is ordered at a time; an order is never lost, and one that failed is tried again.
//!
//! **Not here**: how one is made ([`super::workshop`]), when one is needed ([`super::log`]).

#![expect(clippy::disallowed_methods, reason = "the thread that prepares segments is part of the engine's I/O")]

use super::format::FIRST_BATCH;
use super::segment::{SEGMENT_BYTES_MAX, Segment};
use super::workshop::Workshop;
use crate::disk::round_up;
use crate::error::StorageError;
use crossbeam::channel::{Receiver, Sender, bounded};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

enum Job {
    Make { number: u32, size: u64 },
    Release { recycle: Vec<PathBuf>, delete: Vec<PathBuf> },
}

enum Done {
    Made,
    Released,
    NobodyWaits,
}

/// Makes what is ordered, with a [`Workshop`].
pub struct Maker {
    inbox: Receiver<Job>,
    outbox: Sender<Result<Segment, StorageError>>,
}

impl Maker {
    /// Carries out one job, if there is one: for a simulation, where no thread does.
    pub fn step(&self, workshop: &mut Workshop) -> bool {
        self.inbox.try_recv().map(|job| self.carry_out(job, workshop)).is_ok()
    }

    /// Whether [`Maker::step`] has something to do.
    pub fn has_orders(&self) -> bool {
        !self.inbox.is_empty()
    }

    fn carry_out(&self, job: Job, workshop: &mut Workshop) -> Done {
        match job {
            Job::Make { number, size } => match self.outbox.send(workshop.make(number, size)) {
                Ok(()) => Done::Made,
                Err(_) => Done::NobodyWaits,
            },
            Job::Release { recycle, delete } => {
                workshop.release(recycle, delete);
                Done::Released
            }
        }
    }
}

/// Called by the preparing thread when something is ready, so that a log that waits for it can be woken.
pub type Wake = Arc<dyn Fn() + Send + Sync>;

/// A segment that could not be made, mostly because the disk is full. It is tried again until it can.
#[derive(Debug)]
pub struct Shortage {
    /// What went wrong last.
    pub error: StorageError,
    /// The size in bytes of the segment that is missing.
    pub bytes: u64,
    retry_at: Duration,
}

/// How long to wait after a segment could not be made before trying again.
const RETRY: Duration = Duration::from_secs(1);
/// The same for an order that found the queue full.
const POSTPONED: Duration = Duration::from_millis(1);

/// Has segments made, one ahead.
pub struct Supply {
    jobs: Option<Sender<Job>>,
    ready: Receiver<Result<Segment, StorageError>>,
    thread: Option<JoinHandle<()>>,
    size: u64,
    next: u32,
    /// The size of the segment that is being made.
    ordered: Option<u64>,
    /// The size of one that found the queue full, and when it is ordered again.
    postponed: Option<(u64, Duration)>,
    /// Segments that were too small for a batch: nothing is in them.
    passed_over: Vec<PathBuf>,
    made: Option<Segment>,
    shortage: Option<Shortage>,
    failures: u64,
}

impl Supply {
    /// Orders the first of the segments of `size` bytes, numbered from `next`, from a maker that somebody has to step.
    pub fn new(size: u64, next: u32) -> (Supply, Maker) {
        let size = round_up(size.min(SEGMENT_BYTES_MAX) as usize) as u64;
        // One segment is ordered at a time; besides, there may be something to recycle.
        let (jobs, inbox) = bounded(2);
        let (outbox, ready) = bounded(1);
        let mut supply = Supply {
            jobs: Some(jobs),
            ready,
            thread: None,
            size,
            next,
            ordered: None,
            postponed: None,
            passed_over: Vec::new(),
            made: None,
            shortage: None,
            failures: 0,
        };
        supply.order(size, Duration::ZERO);
        (supply, Maker { inbox, outbox })
    }

    /// The same, with a thread that steps the maker.
    pub fn start(mut workshop: Workshop, dir: &Path, size: u64, next: u32, wake: Wake) -> Result<Supply, StorageError> {
        let (mut supply, maker) = Supply::new(size, next);
        let work = move || {
            while let Ok(job) = maker.inbox.recv() {
                match maker.carry_out(job, &mut workshop) {
                    Done::Made => wake(),
                    Done::Released => {}
                    Done::NobodyWaits => return,
                }
            }
        };
        let thread = std::thread::Builder::new().name("prealloc".to_owned()).spawn(work);
        supply.thread = Some(thread.map_err(StorageError::io("start the thread that prepares segments in", dir))?);
        Ok(supply)
    }

    fn order(&mut self, size: u64, now: Duration) {
        if self.ordered.is_some() {
            return;
        }
        let jobs = self.jobs.as_ref().expect("present until dropped");
        self.postponed = match jobs.try_send(Job::Make { number: self.next, size }) {
            Ok(()) => {
                self.next += 1;
                self.ordered = Some(size);
                None
            }
            // Releases are in front of it. An order that was lost would leave the log without a segment for ever.
            Err(_) => Some((size, now + POSTPONED)),
        };
    }

    /// Takes note of what was made or could not be, and orders again what could not when it is time to.
    pub fn poll(&mut self, now: Duration) {
        // Asked on every step of the server: as long as nothing is ordered, the channel need not be looked at.
        if let Some(bytes) = self.ordered
            && let Ok(result) = self.ready.try_recv()
        {
            self.ordered = None;
            match result {
                Ok(segment) => (self.made, self.shortage) = (Some(segment), None),
                Err(error) => {
                    self.failures += 1;
                    self.shortage = Some(Shortage { error, bytes, retry_at: now + RETRY });
                }
            }
        }
        if let Some(Shortage { bytes, retry_at, .. }) = self.shortage
            && retry_at <= now
        {
            self.order(bytes, now);
        }
        if let Some((size, _)) = self.postponed {
            self.order(size, now);
        }
        if !self.passed_over.is_empty() && self.recycle(self.passed_over.clone(), Vec::new()) {
            self.passed_over.clear();
        }
    }

    /// When [`Supply::poll`] has something to do even if nothing happens until then.
    pub fn deadline(&self) -> Option<Duration> {
        if let Some((_, retry_at)) = self.postponed {
            return Some(retry_at);
        }
        match (&self.shortage, self.ordered) {
            (_, Some(_)) => (!self.ready.is_empty()).then_some(Duration::ZERO),
            (Some(shortage), None) => Some(shortage.retry_at),
            (None, None) => None,
        }
    }

    /// Why the next segment is not there, since it last was.
    pub fn shortage(&self) -> Option<&Shortage> {
        self.shortage.as_ref()
    }

    /// The same for whoever does not wait for room: it is ordered no more by itself.
    pub fn give_up(&mut self) -> Option<StorageError> {
        self.shortage.take().map(|shortage| shortage.error)
    }

    /// How often a segment could not be made.
    pub fn failures(&self) -> u64 {
        self.failures
    }

    /// Bytes of batches that the segment that is ready takes.
    pub fn room(&self) -> u64 {
        self.made.as_ref().map_or(0, |segment| segment.header.size - u64::from(FIRST_BATCH))
    }

    /// Hands over segments that nobody needs any more, to be used again or to be deleted. False if they could not be taken just
    /// now.
    pub fn recycle(&mut self, recycle: Vec<PathBuf>, delete: Vec<PathBuf>) -> bool {
        let jobs = self.jobs.as_ref().expect("present until dropped");
        // A segment that is ordered must never find the queue full.
        (self.ordered.is_some() || jobs.is_empty()) && jobs.try_send(Job::Release { recycle, delete }).is_ok()
    }

    /// The next segment, if it is ready, with room for at least `room` bytes of batches; the one after it is ordered at
    /// once. `None`: [`Supply::poll`] when woken, or at the deadline, and call again.
    pub fn take(&mut self, room: usize, now: Duration) -> Option<Segment> {
        let needed = round_up(room + FIRST_BATCH as usize) as u64;
        match self.made.take() {
            Some(made) if made.header.size >= needed => {
                self.order(self.size, now);
                Some(made)
            }
            // A batch with one huge record: one to measure is made. The segment that was ready is older than that, so it stays
            // empty, and is used again under another number.
            Some(made) => {
                self.passed_over.push(made.path);
                self.order(needed, now);
                None
            }
            // A segment under construction, or one that failed, may still be too small for this batch.
            None => {
                if let Some(shortage) = &mut self.shortage {
                    shortage.bytes = shortage.bytes.max(needed);
                }
                if let Some((size, _)) = &mut self.postponed {
                    *size = needed.max(*size);
                }
                None
            }
        }
    }

    /// Waits until the ordered segment was made.
    pub fn wait(&self) {
        let mut select = crossbeam::channel::Select::new();
        select.recv(&self.ready);
        select.ready();
    }
}

impl Drop for Supply {
    fn drop(&mut self) {
        self.jobs = None;
        // A finished segment may still be waiting to be taken, which would keep the thread from seeing that nobody orders.
        if let Some(thread) = self.thread.take() {
            while self.ready.recv().is_ok() {}
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::format::SegmentHeader;
    use super::super::segment::list;
    use super::*;
    use crate::disk::{BlockSize, LogIo, LogSync, Mode};
    use crate::txnlog::LogOptions;
    use rand::SeedableRng;
    use rand::rngs::SmallRng;
    use std::fs;

    fn workshop(dir: &Path) -> Workshop {
        let options = LogOptions {
            files: crate::disk::files::real(),
            dir: dir.to_owned(),
            mode: Mode { io: LogIo::Pwrite, sync: LogSync::Fdatasync, block: BlockSize::MIN, why: String::new() },
            segment_bytes: 100_000,
            pipeline_depth: 1,
            group_commit_delay: Duration::ZERO,
        };
        Workshop::new(&options, SmallRng::seed_from_u64(1))
    }

    #[test]
    fn segments_are_zero_written_named_and_numbered() {
        let dir = tempfile::tempdir_in(".").unwrap();
        let mut supply = Supply::start(workshop(dir.path()), dir.path(), 100_000, 5, Arc::new(|| ())).unwrap();
        let mut next = |room| {
            supply.wait();
            supply.poll(Duration::ZERO);
            supply.take(room, Duration::ZERO)
        };
        let five = next(4096).unwrap();
        assert!(next(1 << 20).is_none(), "too small for a huge batch");
        let seven = next(1 << 20).unwrap();
        drop(supply);
        assert_eq!((five.header.number, seven.header.number), (5, 7));
        assert!(five.header.salt != seven.header.salt);
        let bytes = fs::read(&five.path).unwrap();
        assert_eq!(bytes.len(), round_up(100_000));
        assert_eq!(SegmentHeader::parse(&bytes), Ok(five.header));
        assert!(bytes[FIRST_BATCH as usize..].iter().all(|byte| *byte == 0));
        let names: Vec<_> = list(dir.path()).unwrap().into_iter().map(|(number, _)| number).collect();
        assert!(names.starts_with(&[5, 7]), "what was too small is used again: {names:?}");
    }

    /// Two releases filled the queue just when a segment was taken: the next was never ordered, and writes hung.
    #[test]
    fn an_order_that_finds_the_queue_full_is_not_lost() {
        let dir = tempfile::tempdir_in(".").unwrap();
        let mut workshop = workshop(dir.path());
        let (mut supply, maker) = Supply::new(100_000, 1);
        let now = Duration::from_secs(1);
        let Ok(job) = maker.inbox.try_recv() else { panic!("the first is ordered") };
        assert!(supply.recycle(Vec::new(), Vec::new()) && supply.recycle(Vec::new(), Vec::new()), "while it is made");
        maker.carry_out(job, &mut workshop);
        supply.poll(now);
        assert!(supply.take(4096, now).is_some());
        while maker.step(&mut workshop) {}
        let again = supply.deadline().expect("it is not given up");
        supply.poll(again);
        assert!(maker.step(&mut workshop));
        supply.poll(again);
        assert_eq!(supply.take(4096, again).unwrap().header.number, 2);
    }
}
