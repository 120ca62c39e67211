//! Batches to disk writes, in order; and the one place that says what is durable.
//!
//! The owner calls [`Log::submit`] whenever something was appended to [`Log::group`] and whenever a write completed, and
//! [`Log::complete`] with what the disk reports. Up to `log.pipelineDepth` writes are in flight; whatever order they complete
//! in, [`Durable`] only ever moves over a prefix.
//!
//! **Invariants**: a batch's position and predecessor are fixed when it is submitted; [`Durable`] values are made here only,
//! from completed writes only, and never go back; after the first failure there are none any more.
//!
//! **Not here**: how a batch is put together ([`super::group`]), how a write reaches the device ([`crate::disk`]).

use super::format::{FIRST_BATCH, Position, batch_crc};
use super::group::{Group, PlacedBatch};
use super::options::LogOptions;
use super::recovery::{Extent, Recovered};
use super::segment::{Segment, file_name};
use super::supply::{Shortage, Supply, Wake};
use super::workshop::Workshop;
use crate::disk::device::Device;
use crate::disk::{Completion, Disk, LogIo, LogSync, Write};
use crate::error::StorageError;
use crate::histogram::Histogram;
use corral_proto::Zxid;
use rand::SeedableRng;
use rand::rngs::SmallRng;
use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::mpsc::Receiver;
use std::time::Duration;

/// "Every transaction up to this one is on the disk." Only a completed write makes one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Durable(Zxid);

impl Durable {
    /// For simulations that have a disk of their own.
    #[cfg(feature = "simulated")]
    pub fn simulated(upto: Zxid) -> Durable {
        Durable(upto)
    }

    /// The newest durable transaction.
    pub fn upto(self) -> Zxid {
        self.0
    }
}

/// What the log has done since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LogCounters {
    /// Transactions that became durable.
    pub records: u64,
    /// Writes that became durable, one a batch.
    pub batches: u64,
    /// Bytes of the transactions themselves.
    pub record_bytes: u64,
    /// Bytes written for them: heads, headers and padding included.
    pub written_bytes: u64,
    /// Times that no segment was ready when one was needed.
    pub segment_waits: u64,
    /// Times that a segment could not be made.
    pub segment_failures: u64,
    /// Segments taken into use.
    pub segments: u64,
}

/// What the log's writes were like since the start.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LogHistograms {
    /// Each write at the device, in ns ([`crate::disk::Took::write`]).
    pub write: Histogram,
    /// Each sync after a write, in ns, in the modes that have one ([`crate::disk::Took::flush`]).
    pub flush: Histogram,
    /// Transactions a batch.
    pub batch_records: Histogram,
    /// Bytes a batch, padding included.
    pub batch_bytes: Histogram,
    /// How long batches waited for a segment that was not ready, in ns.
    pub segment_wait: Histogram,
}

/// The log of one server, owned by the thread that its device belongs to.
pub struct Log<D: Disk> {
    /// Where transactions are appended.
    pub group: Group,
    dir: PathBuf,
    disk: D,
    supply: Supply,
    depth: usize,
    current: Option<Current>,
    end: Position,
    end_crc: u32,
    durable_to: Position,
    durable: Zxid,
    /// The last transaction that has a place in the log.
    placed: Zxid,
    in_flight: VecDeque<InFlight>,
    next_token: u64,
    /// Since when a batch waits for a segment.
    waiting: Option<Duration>,
    /// Segments of this life before the current one, oldest first.
    retired: VecDeque<Kept>,
    /// Segments of earlier lives. Never used again: a write that a killed process had in flight may still land in one.
    inherited: VecDeque<Kept>,
    poisoned: Option<PathBuf>,
    counters: LogCounters,
    histograms: LogHistograms,
    completions: Vec<Completion>,
}

/// Writes in flight. A sync that fails says so once to each descriptor: of two on one descriptor that are under way together, the
/// second could succeed for what the first has lost.
fn depth(options: &LogOptions) -> usize {
    match (options.mode.io, options.mode.sync) {
        (LogIo::UringBuffered, LogSync::Fdatasync | LogSync::Fsync) => 1,
        _ => options.pipeline_depth,
    }
}

struct Current {
    segment: Segment,
    /// The last transaction before it.
    after: Zxid,
    at: u32,
}

/// A segment that is full, with the last transaction in it.
struct Kept {
    path: PathBuf,
    last: Zxid,
    extent: Extent,
}

impl Current {
    fn extent(&self) -> Extent {
        Extent { after: Some(self.after), bytes: self.at.into() }
    }
}

impl Kept {
    fn inherited(((path, last), extent): (&(PathBuf, Zxid), &Extent)) -> Kept {
        Kept { path: path.clone(), last: *last, extent: *extent }
    }
}

struct InFlight {
    token: u64,
    /// When it was handed to the disk.
    since: Duration,
    end: Position,
    last: Zxid,
    records: u32,
    record_bytes: u64,
    written_bytes: u64,
    done: bool,
}

impl<D: Disk> Log<D> {
    /// Goes on where recovery found the end, in a new segment. `wake` is called from another thread when the log waits for a
    /// segment that has become ready.
    pub fn open(options: &LogOptions, disk: D, recovered: &Recovered, wake: Wake) -> Result<Log<D>, StorageError> {
        let mut recovered = recovered.clone();
        let mut workshop = Workshop::new(options, SmallRng::from_os_rng());
        workshop.resume(&mut recovered)?;
        let supply = Supply::start(workshop, &options.dir, options.segment_bytes, recovered.next_segment, wake)?;
        Ok(Log::over(options, disk, &recovered, supply))
    }

    /// Goes on where recovery found the end, with segments from `supply`, whose workshop has adopted what was recovered.
    pub fn over(options: &LogOptions, disk: D, recovered: &Recovered, supply: Supply) -> Log<D> {
        Log {
            group: Group::new(recovered.last, options.mode.block, options.group_commit_delay),
            dir: options.dir.clone(),
            disk,
            supply,
            depth: depth(options),
            current: None,
            end: recovered.end,
            end_crc: recovered.end_crc,
            durable_to: recovered.end,
            durable: recovered.last,
            placed: recovered.last,
            in_flight: VecDeque::new(),
            next_token: 0,
            waiting: None,
            retired: VecDeque::new(),
            inherited: recovered.used.iter().zip(&recovered.extents).map(Kept::inherited).collect(),
            poisoned: None,
            counters: LogCounters::default(),
            histograms: LogHistograms::default(),
            completions: Vec::new(),
        }
    }

    /// The device, for the thread that sleeps in it.
    pub fn disk(&mut self) -> &mut D {
        &mut self.disk
    }

    /// Where the segments are.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Writes in flight.
    pub fn in_flight(&self) -> usize {
        self.in_flight.len()
    }

    /// True when everything appended is durable.
    pub fn is_idle(&self) -> bool {
        self.in_flight.is_empty() && self.group.is_empty()
    }

    /// What has been done so far.
    pub fn counters(&self) -> LogCounters {
        LogCounters { segment_failures: self.supply.failures(), ..self.counters }
    }

    /// What its writes were like so far.
    pub fn histograms(&self) -> &LogHistograms {
        &self.histograms
    }

    /// When [`Log::submit`] should be called again even if nothing happens until then.
    pub fn deadline(&self) -> Option<Duration> {
        let batch = match &self.waiting {
            // A write that was finished when it was submitted tells nobody.
            _ if self.disk.has_completions() => Some(Duration::ZERO),
            None if self.in_flight.len() < self.depth => self.group.due(),
            _ => None,
        };
        batch.into_iter().chain(self.supply.deadline()).min()
    }

    /// Why the next segment could not be made, as long as it could not. Batches go on as long as there is [`Log::room`]; then they
    /// wait. It is tried again by itself.
    pub fn shortage(&self) -> Option<&Shortage> {
        self.supply.shortage()
    }

    /// Bytes that can be appended before another segment has to be made.
    pub fn room(&self) -> u64 {
        let current = self.current.as_ref().map_or(0, |current| current.segment.header.size - u64::from(current.at));
        current + self.supply.room()
    }

    /// True when a batch waits for a segment.
    pub fn is_waiting(&self) -> bool {
        self.waiting.is_some()
    }

    /// Since when the oldest batch waits: for the disk to finish it, or for a segment to be written to. `None`: nothing waits.
    pub fn waits_since(&self) -> Option<Duration> {
        self.in_flight.front().map(|write| write.since).into_iter().chain(self.waiting).min()
    }

    /// Whether nothing could be appended now: there is no room left, and a segment could not be made.
    pub fn is_full(&self) -> bool {
        self.shortage().is_some() && (self.is_waiting() || self.room() == 0)
    }

    /// Hands due batches to the disk, as many as may be in flight; `each` sees them before they are written, in order.
    ///
    /// # Errors
    /// [`StorageError::Poisoned`] after a failed write.
    pub fn submit(&mut self, now: Duration, mut each: impl FnMut(&PlacedBatch)) -> Result<(), StorageError> {
        if let Some(path) = &self.poisoned {
            return Err(StorageError::Poisoned { path: path.clone() });
        }
        self.supply.poll(now);
        while self.in_flight.len() < self.depth {
            let Some(batch) = self.group.take(now) else { return Ok(()) };
            let room = batch.padded_len();
            if !self.make_room(room, now) {
                self.group.put_back(batch);
                return Ok(());
            }
            let current = self.current.as_mut().expect("there is room in it");
            let at = Position { segment: current.segment.header.number, offset: current.at };
            let placed = batch.place(current.segment.header.salt, at, self.end, self.end_crc, self.durable_to);
            self.end_crc = batch_crc(&placed.bytes);
            current.at += room as u32;
            self.end = Position { offset: current.at, ..at };
            self.placed = placed.header.last;
            each(&placed);
            self.in_flight.push_back(InFlight {
                token: self.next_token,
                since: now,
                end: self.end,
                last: placed.header.last,
                records: placed.header.count,
                record_bytes: placed.entries().map(|(_, entry)| entry.len() as u64).sum(),
                written_bytes: room as u64,
                done: false,
            });
            self.disk.submit(Write {
                token: self.next_token,
                file: current.segment.file.clone(),
                offset: u64::from(at.offset),
                data: placed.bytes,
            });
            self.next_token += 1;
        }
        Ok(())
    }

    /// True when the current segment has `room` bytes left, taking the next one into use if it has not.
    fn make_room(&mut self, room: usize, now: Duration) -> bool {
        if let Some(current) = &self.current
            && u64::from(current.at) + room as u64 <= current.segment.header.size
        {
            return true;
        }
        let Some(segment) = self.supply.take(room, now) else {
            if self.waiting.is_none() {
                self.counters.segment_waits += 1;
                self.waiting = Some(now);
            }
            return false;
        };
        if let Some(since) = self.waiting.take() {
            self.histograms.segment_wait.time(now - since);
            tracing::debug!(waited_ms = (now - since).as_millis() as u64, "a log segment became ready");
        }
        self.counters.segments += 1;
        let full = self.current.replace(Current { segment, after: self.placed, at: FIRST_BATCH });
        // Whatever was placed so far was placed before this segment; a batch that is put back was not.
        self.retired.extend(full.map(|full| Kept {
            extent: full.extent(),
            path: full.segment.path,
            last: self.placed,
        }));
        true
    }

    /// The oldest transaction after which a reader of the log on the disk can start when it may read at most `limit` bytes.
    pub fn reach(&self, limit: u64) -> Option<Zxid> {
        let older = self.inherited.iter().chain(&self.retired).map(|kept| kept.extent);
        let (mut bytes, mut reach) = (0, None);
        for extent in older.chain(self.current.as_ref().map(Current::extent)).rev() {
            bytes += extent.bytes;
            if bytes > limit || extent.after.is_none() {
                break;
            }
            reach = extent.after;
        }
        reach
    }

    /// Bytes of the full segments that hold something after transaction `after`.
    pub fn bytes_after(&self, after: Zxid) -> u64 {
        let full = self.inherited.iter().chain(&self.retired);
        full.filter(|kept| kept.last > after).map(|kept| kept.extent.bytes).sum()
    }

    /// A snapshot that will be kept holds everything up to `upto`: segments with nothing newer are not needed any more. One of
    /// them stays as long as nothing after it is durable: what remains of the log must begin with a batch that no power loss can
    /// take, or its beginning could not be told from damage.
    pub fn release(&mut self, upto: Zxid) {
        let durable = self.durable;
        let is_needless = |last: Zxid| last <= upto && last < durable;
        let needless = |segments: &VecDeque<Kept>| segments.iter().take_while(|kept| is_needless(kept.last)).count();
        let (own, old) = (needless(&self.retired), needless(&self.inherited));
        let paths = |segments: &VecDeque<Kept>, count| -> Vec<PathBuf> {
            segments.iter().take(count).map(|kept| kept.path.clone()).collect()
        };
        if own + old > 0 && self.supply.recycle(paths(&self.retired, own), paths(&self.inherited, old)) {
            self.retired.drain(..own);
            self.inherited.drain(..old);
        }
    }

    /// Takes what the disk reports, and says how far the log is durable now, if that moved. `each` is called with the time
    /// that a durable write took.
    ///
    /// # Errors
    /// The first write or sync that failed, then [`StorageError::Poisoned`]. Final: nothing is ever reported durable again, not even
    /// what was written before it.
    pub fn complete(&mut self, mut each: impl FnMut(Duration)) -> Result<Option<Durable>, StorageError> {
        if let Some(path) = &self.poisoned {
            return Err(StorageError::Poisoned { path: path.clone() });
        }
        let mut completions = std::mem::take(&mut self.completions);
        self.disk.completions(&mut completions);
        for completion in completions.drain(..) {
            let write = self.in_flight.iter_mut().find(|write| write.token == completion.token);
            let write = write.expect("a write completes once");
            if let Err(source) = completion.result {
                let path = self.dir.join(file_name(write.end.segment));
                self.poisoned = Some(path.clone());
                return Err(StorageError::Io { op: "write the log", path, source });
            }
            write.done = true;
            self.histograms.write.time(completion.took.write);
            completion.took.flush.into_iter().for_each(|flush| self.histograms.flush.time(flush));
            each(completion.took.total());
        }
        self.completions = completions;
        let before = self.durable;
        while self.in_flight.front().is_some_and(|write| write.done) {
            let write = self.in_flight.pop_front().expect("looked at just now");
            assert!(write.last > self.durable && write.end > self.durable_to, "what is durable only grows");
            self.durable = write.last;
            self.durable_to = write.end;
            self.counters.records += u64::from(write.records);
            self.counters.batches += 1;
            self.counters.record_bytes += write.record_bytes;
            self.counters.written_bytes += write.written_bytes;
            self.histograms.batch_records.record(write.records.into());
            self.histograms.batch_bytes.record(write.written_bytes);
        }
        Ok((self.durable > before).then_some(Durable(self.durable)))
    }
}

impl Log<Device> {
    /// Writes out everything that was appended and waits until it is durable, for whoever has nothing else to do meanwhile; `ready`
    /// hears of every wake ([`Log::open`]).
    ///
    /// # Errors
    /// As [`Log::complete`], and when a segment cannot be made: nobody waits for room here.
    pub fn settle(&mut self, ready: &Receiver<()>) -> Result<(), StorageError> {
        while !self.is_idle() {
            self.submit(Duration::ZERO, |_| ())?;
            if let Some(error) = self.supply.give_up() {
                return Err(error);
            }
            match &mut self.disk {
                _ if self.in_flight.is_empty() => ready.recv().expect("a log that waits for a segment is woken"),
                Device::Ring(ring) if !ring.has_completions() => {
                    ring.wait_for_write().map_err(StorageError::io("wait for a write to", &self.dir))?;
                }
                _ => {}
            }
            self.complete(|_| ())?;
        }
        Ok(())
    }
}
