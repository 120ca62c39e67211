//! Taking a snapshot while the tree is in use.
//!
//! The walk holds the tree's lock for a few nodes at a time, so a writer never waits longer than that takes; what was seen is
//! checksummed, compressed and written outside of it. Nothing is remembered of what changes meanwhile: the replay of the log
//! makes up for it. Writes go past the page cache where the file system lets them, so that the one sync at the end has nothing
//! left to push out in a burst.
//!
//! **Invariants**: the file has its name only after it is durable; a snapshot that was broken off, or failed, leaves no file.
//!
//! **Not here**: when (the schedule), on which thread (the server), retention ([`crate::restore`]).

#![expect(clippy::disallowed_methods, reason = "the rate limit and the report need a clock")]

use super::file_name;
use super::format::{BLOCK_BYTES, BlockHeader, Compression, Footer, Header, Kind, put_acl, put_node};
use crate::disk::aligned::AlignedBuf;
use crate::disk::files::Files;
use crate::disk::publish::sync_dir;
use crate::disk::round_up;
use crate::error::StorageError;
use crate::tree::Tree;
use bytes::BufMut;
use corral_proto::{TreeDigest, Zxid};
use parking_lot::RwLock;
use std::collections::BTreeMap;
use std::fs::File;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Nodes that are walked over under one hold of the lock; at most a few tens of microseconds.
const WALK_NODES: usize = 64;
/// How often it is looked whether the log is durable.
const WAIT: Duration = Duration::from_millis(1);
/// Bytes after which a hold ends early: nodes may be large.
const WALK_BYTES: usize = 256 << 10;

/// How a snapshot is taken.
#[derive(Clone, Debug)]
pub struct SnapshotOptions {
    /// How snapshots are made and named.
    pub files: Arc<dyn Files>,
    /// Where they are.
    pub dir: PathBuf,
    /// How payloads are stored.
    pub compression: Compression,
    /// Bytes a second at most (0: as fast as the disk takes them).
    pub rate_limit: u64,
}

/// A snapshot that was taken.
#[derive(Clone, Debug)]
pub struct Taken {
    /// Its file.
    pub path: PathBuf,
    /// What the footer says.
    pub footer: Footer,
    /// Bytes of the file.
    pub file_bytes: u64,
    /// How long it took.
    pub took: Duration,
}

/// Takes a snapshot of `tree`. `None` if `cancel` was set before it was done.
///
/// # Errors
/// What the system answered; nothing is left behind.
pub fn take(
    options: &SnapshotOptions,
    tree: &RwLock<Tree>,
    wall_ms: i64,
    cancel: &AtomicBool,
) -> Result<Option<Taken>, StorageError> {
    take_when(options, tree, wall_ms, cancel, |_| true)
}

/// The same, but it gets its name only when the log is durable up to the last transaction that is in it: until then it could not be
/// restored.
///
/// # Errors
/// As there.
pub fn take_when(
    options: &SnapshotOptions,
    tree: &RwLock<Tree>,
    wall_ms: i64,
    cancel: &AtomicBool,
    is_durable: impl Fn(Zxid) -> bool,
) -> Result<Option<Taken>, StorageError> {
    let began = Instant::now();
    let (start, sessions) = {
        let tree = tree.read();
        (tree.last_applied(), tree.sessions().clone())
    };
    let path = options.dir.join(file_name(start));
    let unnamed = path.with_extension("new");
    let header = Header { start, wall_ms, compression: options.compression };
    let written = (|| {
        let mut out = BlockWriter::create(options.files.clone(), &unnamed, &header, options.rate_limit)?;
        let mut payload = Vec::with_capacity(BLOCK_BYTES * 2);
        let mut count = 0;
        for (id, timeout_ms) in &sessions {
            payload.put_i64(id.0);
            payload.put_i32(*timeout_ms);
            count += 1;
            if payload.len() >= BLOCK_BYTES {
                out.block(Kind::Sessions, std::mem::take(&mut count), &mut payload)?;
            }
        }
        out.block(Kind::Sessions, count, &mut payload)?;
        let Some((nodes, end, digest)) = walk(tree, &mut out, &mut payload, cancel)? else { return Ok(None) };
        let footer = Footer { start, end, nodes, raw_bytes: out.raw_bytes, digest: Some(digest) };
        footer.encode(&mut payload);
        out.block(Kind::Footer, 1, &mut payload)?;
        let file_bytes = out.finish()?;
        while !is_durable(end) {
            if cancel.load(Ordering::Relaxed) {
                return Ok(None);
            }
            std::thread::sleep(WAIT);
        }
        options.files.rename(&unnamed, &path).map_err(StorageError::io("name the snapshot", &path))?;
        sync_dir(&*options.files, &options.dir)?;
        Ok(Some(Taken { path: path.clone(), footer, file_bytes, took: began.elapsed() }))
    })();
    if !matches!(written, Ok(Some(_))) {
        let _ = options.files.remove(&unnamed);
    }
    written
}

/// Writes all nodes; how many there were, what was applied last, and the tree's digest then; `None` if it was cancelled.
fn walk(
    tree: &RwLock<Tree>,
    out: &mut BlockWriter,
    payload: &mut Vec<u8>,
    cancel: &AtomicBool,
) -> Result<Option<(u64, Zxid, TreeDigest)>, StorageError> {
    let mut acls: BTreeMap<Vec<u8>, u32> = BTreeMap::new();
    let (mut count, mut nodes, mut next) = (0u32, 0u64, 0u32);
    loop {
        if cancel.load(Ordering::Relaxed) {
            return Ok(None);
        }
        let before = payload.len();
        let tree = tree.read();
        let go_on = tree.walk(next, WALK_NODES, |path, image| {
            let acl = match acls.get(image.acl.encoded()) {
                Some(acl) => *acl,
                None => {
                    put_acl(payload, image.acl);
                    count += 1;
                    let acl = acls.len() as u32;
                    acls.insert(image.acl.encoded().to_vec(), acl);
                    acl
                }
            };
            put_node(payload, path, &image, acl);
            count += 1;
            nodes += 1;
            payload.len() - before < WALK_BYTES
        });
        let end = (tree.last_applied(), tree.digest());
        drop(tree);
        if payload.len() >= BLOCK_BYTES || go_on.is_none() {
            out.block(Kind::Nodes, std::mem::take(&mut count), payload)?;
        }
        match go_on {
            Some(slot) => next = slot,
            None => return Ok(Some((nodes, end.0, end.1))),
        }
    }
}

/// Blocks to a file, through one aligned buffer.
struct BlockWriter {
    files: Arc<dyn Files>,
    file: File,
    path: PathBuf,
    compression: Compression,
    crc: u32,
    buf: AlignedBuf,
    filled: usize,
    written: u64,
    raw_bytes: u64,
    rate_limit: u64,
    began: Instant,
}

impl BlockWriter {
    fn create(
        files: Arc<dyn Files>,
        path: &Path,
        header: &Header,
        rate_limit: u64,
    ) -> Result<BlockWriter, StorageError> {
        let file = files.create(path, true).or_else(|_| files.create(path, false));
        let file = file.map_err(StorageError::io("create the snapshot", path))?;
        let (bytes, crc) = header.encode();
        let mut writer = BlockWriter {
            files,
            file,
            path: path.to_owned(),
            compression: header.compression,
            crc,
            buf: AlignedBuf::zeroed(chunk(rate_limit)),
            filled: 0,
            written: 0,
            raw_bytes: 0,
            rate_limit,
            began: Instant::now(),
        };
        writer.put(&bytes)?;
        Ok(writer)
    }

    /// Writes `payload` as one block and empties it.
    fn block(&mut self, kind: Kind, count: u32, payload: &mut Vec<u8>) -> Result<(), StorageError> {
        let compressed;
        let stored = match self.compression {
            Compression::None => &payload[..],
            Compression::Zstd => {
                let result = zstd::bulk::compress(payload, 1);
                compressed = result.map_err(StorageError::io("compress the snapshot", &self.path))?;
                &compressed
            }
            Compression::Lz4 => {
                compressed = lz4_flex::block::compress(payload);
                &compressed
            }
        };
        let header = BlockHeader::new(kind, count, payload.len(), stored, self.crc);
        self.crc = header.crc;
        self.raw_bytes += payload.len() as u64;
        self.put(&header.encode())?;
        // `stored` may borrow from `payload`, which is emptied only after this.
        self.put(stored)?;
        payload.clear();
        Ok(())
    }

    fn put(&mut self, mut bytes: &[u8]) -> Result<(), StorageError> {
        while !bytes.is_empty() {
            let room = self.buf.len() - self.filled;
            let (now, later) = bytes.split_at(room.min(bytes.len()));
            self.buf.as_mut_slice()[self.filled..self.filled + now.len()].copy_from_slice(now);
            self.filled += now.len();
            bytes = later;
            if self.filled == self.buf.len() {
                self.flush(self.filled)?;
            }
        }
        Ok(())
    }

    fn flush(&mut self, len: usize) -> Result<(), StorageError> {
        let io = StorageError::io("write the snapshot", &self.path);
        self.files.write(&self.file, &self.buf.as_slice()[..len], self.written).map_err(io)?;
        self.written += len as u64;
        self.filled = 0;
        if let Some(due) = (self.written * 1_000_000).checked_div(self.rate_limit) {
            let ahead = Duration::from_micros(due).saturating_sub(self.began.elapsed());
            std::thread::sleep(ahead);
        }
        Ok(())
    }

    /// Writes what is left and makes the file durable; its size.
    fn finish(mut self) -> Result<u64, StorageError> {
        let size = self.written + self.filled as u64;
        // Direct writes are whole blocks: the last one is cut off again.
        let len = round_up(self.filled);
        self.buf.as_mut_slice()[self.filled..len].fill(0);
        if len > 0 {
            self.flush(len)?;
        }
        self.files.set_len(&self.file, size).map_err(StorageError::io("cut the snapshot", &self.path))?;
        self.files.sync(&self.file).map_err(StorageError::io("sync the snapshot", &self.path))?;
        Ok(size)
    }
}

/// Bytes of a write. Where there is a limit, the pauses between writes are kept short and the writes small: what waits for the
/// disk behind one of them, a commit, waits for all of it.
fn chunk(rate_limit: u64) -> usize {
    let wanted = if rate_limit == 0 { *CHUNK.end() } else { rate_limit / WRITES_PER_S };
    wanted.next_power_of_two().clamp(*CHUNK.start(), *CHUNK.end()) as usize
}

/// The smallest and the largest write.
const CHUNK: RangeInclusive<u64> = 64 << 10..=1 << 20;
/// Writes a second at a limit that needs no smaller and no larger ones.
const WRITES_PER_S: u64 = 512;
