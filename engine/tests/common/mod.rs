//! What the tests of the log share: lives of a log over a real or a held-back device, and a look at the bytes they leave.
//!
//! A *life* is what lies between a start and the crash or end after it: recovery, then appends. Every record of a life
//! differs from every record of another one, also where both gave the same zxid to theirs, so that a record that comes back
//! from the dead is always told apart. Zxids count from 1 without a gap: the record with zxid `z` is `history[z - 1]`.
//!
//! **Invariants**: nothing here sleeps or reads a clock; a life that waits for a segment is woken by the log itself;
//! directories lie where the build does, on a real file system, because direct I/O and syncs are part of what is tested.

#![allow(dead_code, reason = "each test binary uses its part")]

use corral_engine::StorageError;
use corral_engine::disk::aligned::AlignedBuf;
use corral_engine::disk::device::Device;
use corral_engine::disk::{BlockSize, Completion, Disk, LogIo, LogSync, Mode, Took, Write};
use corral_engine::txnlog::format::{Batch, BatchHeader, FIRST_BATCH, SegmentHeader};
use corral_engine::txnlog::{Durable, Group, Log, LogOptions, Position, Recovered, recover_after, segment};
use corral_proto::{Jute, SessionId, Txn, TxnEntry, TxnHeader, Xid, Zxid};
use rand::rngs::SmallRng;
use rand::{Rng, RngCore, SeedableRng};
use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::fs;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;
use tempfile::TempDir;

/// The time at which everything happens. No test waits for any.
pub(crate) const NOW: Duration = Duration::from_secs(1);

/// The block of the logs here, unless they say otherwise.
pub(crate) const BLOCK: usize = BlockSize::MAX.bytes();

/// Far longer than any disk takes for a small segment; reached only when a wake-up was lost.
const SEGMENT_MADE_MAX: Duration = Duration::from_secs(60);

/// A directory of its own, on the file system that holds the build.
pub(crate) fn tempdir() -> TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap()
}

/// A generator that is the same in every run; `CORRAL_TEST_SEED=… cargo test` takes another seed.
pub(crate) fn seeded() -> SmallRng {
    let seed = option_env!("CORRAL_TEST_SEED").map_or(1, |seed| seed.parse().unwrap());
    eprintln!("CORRAL_TEST_SEED={seed}");
    SmallRng::seed_from_u64(seed)
}

/// How a log over [`Held`] is opened: the test itself says when a write is durable.
pub(crate) fn held_mode() -> Mode {
    mode(LogIo::Pwrite, LogSync::None)
}

pub(crate) fn mode(io: LogIo, sync: LogSync) -> Mode {
    Mode { io, sync, block: BlockSize::MAX, why: String::new() }
}

/// The mode if kernel and file system allow it here; says so if not.
pub(crate) fn mode_if_possible(dir: &Path, io: LogIo, sync: LogSync, block: BlockSize) -> Option<Mode> {
    Mode::choose(dir, Some(io), Some(sync), Some(block)).inspect_err(|why| eprintln!("not tested here: {why}")).ok()
}

/// The record with this zxid and `len` bytes of data, of a life that `life` (and `cxid`) tell apart from others.
fn with_entry<T>(life: u32, cxid: i32, zxid: i64, len: usize, then: impl FnOnce(&TxnEntry<'_>) -> T) -> T {
    let mut data = vec![0; len];
    SmallRng::seed_from_u64(u64::from(life) << 32 | zxid as u64).fill_bytes(&mut data);
    let header = TxnHeader { session: SessionId(life.into()), cxid: Xid(cxid), zxid: Zxid(zxid), time_ms: 2 };
    then(&TxnEntry { header, txn: Txn::SetData { path: "/a", data: Some(&data), version: 3 }, digest: None })
}

/// How much longer a record is than its data.
pub(crate) fn record_overhead() -> usize {
    with_entry(0, 1, 1, 0, |entry| entry.encoded_len())
}

/// The data length of a single record that makes a batch of exactly `blocks` blocks, with `slack` bytes of padding.
pub(crate) fn data_len(blocks: usize, slack: usize) -> usize {
    blocks * BLOCK - slack - BatchHeader::LEN - corral_engine::txnlog::format::RECORD_HEAD - record_overhead()
}

/// The bytes of a batch with one record, as a log would place them. For batches that never were in this log.
pub(crate) fn foreign_batch(
    zxid: i64,
    len: usize,
    salt: u64,
    at: Position,
    (prev, prev_crc): (Position, u32),
    durable: Position,
) -> Vec<u8> {
    let mut group = Group::new(Zxid(zxid - 1), BlockSize::MAX, Duration::ZERO);
    with_entry(u32::MAX, 1, zxid, len, |entry| group.append(entry, NOW));
    group.take(NOW).unwrap().place(salt, at, prev, prev_crc, durable).bytes.to_vec()
}

/// Everything that recovery hands on, and what it says about it.
pub(crate) fn read_back(dir: &Path) -> Result<(Vec<Vec<u8>>, Recovered), StorageError> {
    read_back_after(dir, 0)
}

/// The same for a log whose first `from` records a snapshot holds: they stay empty here.
pub(crate) fn read_back_after(dir: &Path, from: usize) -> Result<(Vec<Vec<u8>>, Recovered), StorageError> {
    let mut records = vec![Vec::new(); from];
    let recovered = recover_after(dir, Zxid(from as i64), |record| {
        assert_eq!(record.entry.header.zxid.0, records.len() as i64 + 1, "zxids of these tests have no gaps");
        records.push(record.bytes.to_vec());
    })?;
    assert_eq!(recovered.records, (records.len() - from) as u64);
    assert_eq!(recovered.last.0, records.len() as i64);
    Ok((records, recovered))
}

/// Compares histories without printing megabytes when they differ.
#[track_caller]
pub(crate) fn assert_same(found: &[Vec<u8>], wanted: &[Vec<u8>], what: &str) {
    if let Some(at) = (0..found.len().max(wanted.len())).find(|at| found.get(*at) != wanted.get(*at)) {
        panic!("{what}: {} records for {}, the first difference is record {at}", found.len(), wanted.len());
    }
}

/// One life of a log.
pub(crate) struct Life<D: Disk> {
    pub(crate) log: Log<D>,
    /// What recovery found, then what was appended.
    pub(crate) history: Vec<Vec<u8>>,
    /// How many records of the history were reported durable.
    pub(crate) durable: usize,
    /// What recovery said at the start of this life.
    pub(crate) recovered: Recovered,
    /// In the header of every record, where two logs must differ.
    pub(crate) cxid: i32,
    depth: usize,
    id: u32,
    ready: Receiver<()>,
}

impl<D: Disk> Life<D> {
    /// Recovers what is in `dir` and goes on there.
    pub(crate) fn start(dir: &Path, disk: D, mode: &Mode, segment_bytes: u64, depth: usize) -> Life<D> {
        Life::after(dir, 0, disk, mode, segment_bytes, depth)
    }

    /// The same, with the first `from` records in a snapshot.
    pub(crate) fn after(dir: &Path, from: usize, disk: D, mode: &Mode, segment_bytes: u64, depth: usize) -> Life<D> {
        let (history, recovered) = read_back_after(dir, from).unwrap();
        let (wake, ready) = channel();
        let options = LogOptions {
            files: corral_engine::disk::files::real(),
            dir: dir.to_owned(),
            mode: mode.clone(),
            segment_bytes,
            pipeline_depth: depth,
            group_commit_delay: Duration::ZERO,
        };
        // Nobody listens any more when the last segment of a dropped log becomes ready.
        let wake = Arc::new(move || wake.send(()).unwrap_or(()));
        let log = Log::open(&options, disk, &recovered, wake).unwrap();
        let durable = history.len();
        // Numbers of segments grow from life to life: a segment is made at every start.
        let id = recovered.next_segment;
        Life { log, history, durable, recovered, cxid: 1, depth, id, ready }
    }

    /// Appends a record with this many bytes of data to the open batch.
    pub(crate) fn append(&mut self, len: usize) {
        with_entry(self.id, self.cxid, self.history.len() as i64 + 1, len, |entry| {
            self.log.group.append(entry, NOW);
            self.history.push(entry.to_vec());
        });
    }

    /// Hands over as many batches as may be in flight, waiting for segments as needed.
    pub(crate) fn submit(&mut self) {
        loop {
            self.log.submit(NOW, |_| ()).unwrap();
            if self.log.group.is_empty() || self.log.in_flight() == self.depth {
                return;
            }
            self.ready.recv_timeout(SEGMENT_MADE_MAX).expect("a log that waits for a segment is woken");
        }
    }

    /// A batch of one record, handed over.
    pub(crate) fn submit_one(&mut self, len: usize) {
        self.append(len);
        self.submit();
    }

    /// Takes what the disk reports.
    pub(crate) fn complete(&mut self) -> Result<Option<Durable>, StorageError> {
        let durable = self.log.complete(|_| ())?;
        if let Some(durable) = durable {
            let upto = durable.upto().0 as usize;
            assert!(upto > self.durable && upto <= self.history.len(), "what is durable grows, and was appended");
            self.durable = upto;
        }
        Ok(durable)
    }
}

impl Life<Device> {
    /// Starts with the device that `mode` asks for.
    pub(crate) fn on_device(dir: &Path, mode: &Mode, segment_bytes: u64, depth: usize) -> Life<Device> {
        Life::start(dir, Device::open(mode).unwrap(), mode, segment_bytes, depth)
    }

    /// Waits for at least one write, if any is in flight, and takes what is reported.
    pub(crate) fn wait(&mut self) {
        if self.log.in_flight() > 0
            && let Device::Ring(ring) = self.log.disk()
        {
            ring.wait_for_write().unwrap();
        }
        self.complete().unwrap();
    }

    /// Until everything that was appended is durable.
    pub(crate) fn settle(&mut self) {
        while !self.log.is_idle() {
            self.submit();
            self.wait();
        }
        assert_eq!(self.durable, self.history.len());
    }

    /// A batch of one record, durable.
    pub(crate) fn commit_one(&mut self, len: usize) {
        self.append(len);
        self.settle();
    }
}

/// A device that does nothing by itself: the test decides which bytes reach the file, and what is reported when. It can be
/// kept beyond the life of its log, as the kernel keeps what a process has submitted.
#[derive(Clone, Default)]
pub(crate) struct Held(Rc<RefCell<HeldState>>);

#[derive(Default)]
struct HeldState {
    writes: VecDeque<Write>,
    done: Vec<Completion>,
}

impl Disk for Held {
    fn submit(&mut self, write: Write) {
        let block = BlockSize::MIN.bytes();
        assert!(write.offset.is_multiple_of(block as u64) && write.data.len().is_multiple_of(block), "whole blocks");
        assert_eq!(write.data.as_ptr() as usize % block, 0, "aligned memory");
        self.0.borrow_mut().writes.push_back(write);
    }

    fn has_completions(&self) -> bool {
        false
    }

    fn completions(&mut self, out: &mut Vec<Completion>) {
        out.append(&mut self.0.borrow_mut().done);
    }
}

impl Held {
    /// How many writes are held back.
    pub(crate) fn len(&self) -> usize {
        self.0.borrow().writes.len()
    }

    /// The write at `at`, of those that are held back, in the order of their submission.
    pub(crate) fn write(&self, at: usize) -> Write {
        self.0.borrow().writes[at].clone()
    }

    /// All that is held back; a crash would lose it.
    pub(crate) fn take(&self) -> Vec<Write> {
        self.0.borrow_mut().writes.drain(..).collect()
    }

    /// All of the write at `at` reaches the file, and it is reported.
    pub(crate) fn finish(&self, at: usize) {
        let write = self.0.borrow_mut().writes.remove(at).unwrap();
        land(&write);
        self.0.borrow_mut().done.push(Completion { token: write.token, result: Ok(()), took: Took::default() });
    }

    /// The write at `at` is reported as failed, with nothing of it in the file.
    pub(crate) fn fail(&self, at: usize, errno: i32) {
        let write = self.0.borrow_mut().writes.remove(at).unwrap();
        let result = Err(io::Error::from_raw_os_error(errno));
        self.0.borrow_mut().done.push(Completion { token: write.token, result, took: Took::default() });
    }
}

/// All of a write reaches its file.
pub(crate) fn land(write: &Write) {
    write.file.write_all_at(&write.data, write.offset).unwrap();
}

/// Only some blocks of a write reach its file.
pub(crate) fn land_blocks(write: &Write, size: BlockSize, reaches: impl Fn(usize) -> bool) {
    let size = size.bytes();
    for (index, block) in write.data.chunks(size).enumerate().filter(|(index, _)| reaches(*index)) {
        write.file.write_all_at(block, write.offset + (index * size) as u64).unwrap();
    }
}

/// A batch that is on the disk.
#[derive(Clone, Debug)]
pub(crate) struct Found {
    pub(crate) path: PathBuf,
    pub(crate) segment: u32,
    /// Where it begins in its file.
    pub(crate) at: usize,
    /// The block of its segment.
    pub(crate) block: BlockSize,
    pub(crate) header: BatchHeader,
    /// Where its records' heads begin in the batch, each with the length of the record.
    pub(crate) heads: Vec<(usize, usize)>,
}

impl Found {
    /// Where it ends in its file, without its padding.
    pub(crate) fn data_end(&self) -> usize {
        self.at + self.header.len as usize
    }

    /// Where it ends in its file.
    pub(crate) fn end(&self) -> usize {
        self.at + self.block.round_up(self.header.len as usize)
    }

    pub(crate) fn end_position(&self) -> Position {
        Position { segment: self.segment, offset: self.end() as u32 }
    }
}

/// Every batch in the directory that checks out by itself, whether it is part of the history or not.
pub(crate) fn batches(dir: &Path) -> Vec<Found> {
    let mut found = Vec::new();
    for (number, path) in segment::list(dir).unwrap() {
        let bytes = fs::read(&path).unwrap();
        let SegmentHeader { salt, block, .. } = SegmentHeader::parse(&bytes).unwrap();
        for at in (FIRST_BATCH as usize..bytes.len()).step_by(block.bytes()) {
            if let Ok(batch) = Batch::parse(&bytes[at..], salt, at as u32) {
                let heads = batch.entries().map(|(head, entry)| (head, entry.len())).collect();
                found.push(Found { path: path.clone(), segment: number, at, block, header: batch.header, heads });
            }
        }
    }
    found
}

/// What is in a directory, byte by byte.
pub(crate) fn contents(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let paths = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    paths.map(|path| (path.clone(), fs::read(&path).unwrap())).collect()
}

/// Another directory with the same files.
pub(crate) fn copy(dir: &Path) -> TempDir {
    let copy = tempdir();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        fs::copy(&path, copy.path().join(path.file_name().unwrap())).unwrap();
    }
    copy
}

/// The same file in another directory.
pub(crate) fn moved(path: &Path, dir: &Path) -> PathBuf {
    dir.join(path.file_name().unwrap())
}

/// Writes over a part of a file, in place.
pub(crate) fn overwrite(path: &Path, at: usize, bytes: &[u8]) {
    fs::File::options().write(true).open(path).unwrap().write_all_at(bytes, at as u64).unwrap();
}

/// Random bytes, as a block that was torn inside a disk may show them.
pub(crate) fn garbage(rng: &mut SmallRng, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    rng.fill_bytes(&mut bytes);
    bytes
}

/// Flips one random bit of the byte at `at`.
pub(crate) fn flip(bytes: &mut [u8], at: usize, rng: &mut SmallRng) {
    bytes[at] ^= 1 << rng.random_range(0..8);
}

/// A piece of memory that direct I/O accepts, filled with `bytes`.
pub(crate) fn aligned(bytes: &[u8]) -> AlignedBuf {
    let mut buf = AlignedBuf::zeroed(bytes.len());
    buf.as_mut_slice()[..bytes.len()].copy_from_slice(bytes);
    buf
}
