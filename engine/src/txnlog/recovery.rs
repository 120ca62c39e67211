//! Where the log ends, told apart from where it is broken.
//!
//! Batches form a chain: each names the position where the one before it ended. Recovery follows the chain through the
//! segments and hands every transaction on. Where the chain stops there are two cases:
//!
//! - **a torn tail**: the batches beyond, if any are readable at all, were submitted when nothing beyond this point was
//!   durable yet. Nobody was answered for them, and they are left out;
//! - **damage**: some batch further on says that the log was durable beyond this point when it was submitted. What lies
//!   between has been acknowledged and cannot be read. Recovery names the place and changes nothing.
//!
//! A segment that went through a crash is never appended to again: the next batch goes to a new one and links back to the
//! end that recovery found, so a leftover behind that end can never become part of the chain, however often the server
//! restarts. That is also why recovering twice, or crashing in between, gives the same result.
//!
//! **Invariants**: zxids grow along the chain; nothing is written here; memory is bounded by one batch, and a batch by its
//! segment.
//!
//! **Not here**: what transactions do (the caller applies them); snapshots.

use super::format::{Batch, BatchHeader, Position, SegmentHeader};
use super::segment::{self, SEGMENT_BYTES_MAX};
use crate::disk::{BLOCK, round_up};
use crate::error::StorageError;
use corral_proto::{TxnEntry, Zxid};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// A transaction of the log.
#[derive(Clone, Copy, Debug)]
pub struct LogRecord<'a> {
    /// The transaction, decoded.
    pub entry: TxnEntry<'a>,
    /// Its own bytes.
    pub bytes: &'a [u8],
}

/// What recovery found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recovered {
    /// Where the chain ends: what the next batch must name as its predecessor.
    pub end: Position,
    /// The zxid of the last transaction, or zero.
    pub last: Zxid,
    /// The number that the next new segment takes.
    pub next_segment: u32,
    /// Transactions that were handed on.
    pub records: u64,
    /// Segments that hold no part of the chain and may be deleted.
    pub unused: Vec<PathBuf>,
    /// Where something unreadable follows the end, in case anybody wonders: a write that nobody was answered for.
    pub torn: Option<(PathBuf, u64)>,
}

/// Reads the log in `dir` from its beginning and hands every transaction to `each`, in order.
///
/// # Errors
/// [`StorageError::Corrupt`] when something that was acknowledged cannot be read; [`StorageError::Io`] when the system
/// fails.
pub fn recover(dir: &Path, mut each: impl FnMut(LogRecord<'_>)) -> Result<Recovered, StorageError> {
    let mut segments = Vec::new();
    for (number, path) in segment::list(dir)? {
        segments.push(OpenSegment::open(number, path)?);
    }
    let mut chain = Chain { end: Position::START, last: Zxid::ZERO, records: 0 };
    // The segment in which the chain currently ends, and where in it the next batch would stand.
    let mut stop: Option<(usize, u32)> = None;
    for (index, segment) in segments.iter().enumerate() {
        let mut at = BLOCK as u32;
        while let Ok(batch) = segment.batch(at)? {
            if batch.header.prev != chain.end {
                break;
            }
            chain.follow(segment, at, &batch.parsed(segment, at), &mut each)?;
            at = chain.end.offset;
            stop = Some((index, at));
        }
    }
    let (first_beyond, at_beyond) = stop.unwrap_or((0, BLOCK as u32));
    let mut torn = None;
    for (index, segment) in segments.iter().enumerate().skip(first_beyond) {
        let from = if index == first_beyond { at_beyond } else { BLOCK as u32 };
        if let Some(claim) = segment.claim_beyond(from, chain.end)? {
            let (broken, at) = (&segments[first_beyond], u64::from(at_beyond));
            let (offset, why) = match broken.batch(at_beyond)? {
                Err((offset, why)) => (offset, why.to_owned()),
                Ok(_) => (at, "a batch here follows one that is missing".to_owned()),
            };
            return Err(StorageError::Corrupt {
                file: broken.path.clone(),
                offset,
                why: format!(
                    "{why}, but a batch at {claim} says that the log was durable beyond this point; the last transaction \
                     before it is {}",
                    chain.last
                ),
            });
        }
        if torn.is_none() && !segment.is_zero_at(from)? {
            torn = Some((segment.path.clone(), u64::from(from)));
        }
    }
    let unused = segments.iter().skip(stop.map_or(0, |(index, _)| index + 1));
    Ok(Recovered {
        end: chain.end,
        last: chain.last,
        next_segment: segments.last().map_or(1, |segment| segment.header.number + 1),
        records: chain.records,
        unused: unused.map(|segment| segment.path.clone()).collect(),
        torn,
    })
}

struct Chain {
    end: Position,
    last: Zxid,
    records: u64,
}

impl Chain {
    fn follow(
        &mut self,
        segment: &OpenSegment,
        at: u32,
        batch: &Batch<'_>,
        each: &mut impl FnMut(LogRecord<'_>),
    ) -> Result<(), StorageError> {
        for (offset, bytes) in batch.entries() {
            let corrupt = |why: String| StorageError::Corrupt {
                file: segment.path.clone(),
                offset: u64::from(at) + offset as u64,
                why,
            };
            let entry = TxnEntry::decode(bytes).map_err(|error| corrupt(format!("not a transaction: {error}")))?;
            let zxid = entry.header.zxid;
            if zxid <= self.last {
                return Err(corrupt(format!("transaction {zxid} follows {}", self.last)));
            }
            self.last = zxid;
            self.records += 1;
            each(LogRecord { entry, bytes });
        }
        self.end = Position { segment: segment.header.number, offset: at + round_up(batch.header.len as usize) as u32 };
        Ok(())
    }
}

struct OpenSegment {
    path: PathBuf,
    file: File,
    header: SegmentHeader,
    len: u64,
}

/// A batch that checked out, with the bytes that it borrows from.
struct Loaded {
    header: BatchHeader,
    bytes: Vec<u8>,
}

impl Loaded {
    fn parsed(&self, segment: &OpenSegment, at: u32) -> Batch<'_> {
        Batch::parse(&self.bytes, segment.header.salt, at).expect("checked when it was loaded")
    }
}

impl OpenSegment {
    fn open(number: u32, path: PathBuf) -> Result<OpenSegment, StorageError> {
        let file = File::open(&path).map_err(StorageError::io("open", &path))?;
        let len = file.metadata().map_err(StorageError::io("look at", &path))?.len();
        let mut block = vec![0; (BLOCK as u64).min(len) as usize];
        file.read_exact_at(&mut block, 0).map_err(StorageError::io("read", &path))?;
        let corrupt = |why| StorageError::Corrupt { file: path.clone(), offset: 0, why };
        let header = SegmentHeader::parse(&block).map_err(corrupt)?;
        if header.number != number {
            return Err(corrupt(format!("the file is named {number} but says that it is segment {}", header.number)));
        }
        if header.size != len || len > SEGMENT_BYTES_MAX {
            return Err(corrupt(format!("the file has {len} bytes but says that it has {}", header.size)));
        }
        Ok(OpenSegment { path, file, header, len })
    }

    fn read(&self, at: u32, len: usize) -> Result<Vec<u8>, StorageError> {
        let mut bytes = vec![0; len.min((self.len.saturating_sub(u64::from(at))) as usize)];
        self.file.read_exact_at(&mut bytes, u64::from(at)).map_err(StorageError::io("read", &self.path))?;
        Ok(bytes)
    }

    /// The batch at `at`, or where and why there is none.
    fn batch(&self, at: u32) -> Result<Result<Loaded, (u64, &'static str)>, StorageError> {
        let block = self.read(at, BLOCK)?;
        let header = match BatchHeader::parse(&block, self.header.salt, at) {
            Ok(header) => header,
            Err(why) => return Ok(Err((u64::from(at), why))),
        };
        // Its checksum is right, so its length can be believed; it is bounded by the file all the same.
        let bytes = if header.len as usize <= block.len() { block } else { self.read(at, header.len as usize)? };
        Ok(Batch::parse(&bytes, self.header.salt, at).map(|_| ()).map(|()| Loaded { header, bytes }))
    }

    /// Looks at every block from `from` on for a batch that says that the log was durable beyond `end`.
    fn claim_beyond(&self, from: u32, end: Position) -> Result<Option<Position>, StorageError> {
        const CHUNK: usize = 256 * BLOCK;
        let mut at = from;
        while u64::from(at) < self.len {
            let chunk = self.read(at, CHUNK)?;
            for (index, block) in chunk.chunks(BLOCK).enumerate() {
                let here = at + (index * BLOCK) as u32;
                if let Ok(header) = BatchHeader::parse(block, self.header.salt, here)
                    && header.durable > end
                {
                    return Ok(Some(Position { segment: self.header.number, offset: here }));
                }
            }
            at += chunk.len().max(BLOCK) as u32;
        }
        Ok(None)
    }

    fn is_zero_at(&self, at: u32) -> Result<bool, StorageError> {
        Ok(self.read(at, BLOCK)?.iter().all(|byte| *byte == 0))
    }
}
