//! Where the log ends, told apart from where it is broken.
//!
//! Batches form a chain: each names the position where the one before it ended. Recovery follows the chain through the
//! segments and hands every transaction on. Where the chain stops there are two cases:
//!
//! - **a torn tail**: the batches beyond, if any are readable at all, were submitted when nothing beyond this point was
//!   durable yet. They were never acknowledged, and are left out;
//! - **damage**: some batch further on says that the log was durable beyond this point when it was submitted. What lies
//!   between has been acknowledged and cannot be read. Recovery names the place and changes nothing.
//!
//! A segment that went through a crash is never appended to again, but closed ([`super::segment`]): the next batch goes to a
//! new one and links back to the end that recovery found, so a leftover behind that end can never become part of the chain,
//! however often the server restarts. That is also why recovering twice, or crashing in between, gives the same result.
//!
//! **Invariants**: zxids grow along the chain; nothing is written here; memory is bounded by one batch, and a batch by its
//! segment; a few files are open at a time, however many segments there are.
//!
//! **Not here**: how a segment is read ([`super::reader`]); what transactions do (the caller applies them); snapshots.

use super::format::{Batch, BatchHeader, FIRST_BATCH, Position};
use super::reader::{Loaded, OpenSegment, Trace};
use super::segment;
use crate::error::StorageError;
use corral_proto::{TxnEntry, Zxid};
use std::collections::BTreeMap;
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
    /// The checksum of the batch that ends there, which the next one must name as well.
    pub end_crc: u32,
    /// The zxid of the last transaction, or zero: of the log, or of what was read before it.
    pub last: Zxid,
    /// The zxid of the last transaction that the log itself holds; zero if it holds none.
    pub log_last: Zxid,
    /// The number that the next new segment takes.
    pub next_segment: u32,
    /// Transactions that were handed on.
    pub records: u64,
    /// The segments that hold the chain, in order, each with the last transaction in it (for those that were not looked
    /// into: one that is not older).
    pub used: Vec<(PathBuf, Zxid)>,
    /// Of each of those, how much there is to read.
    pub extents: Vec<Extent>,
    /// Segments that hold no part of the chain and may be deleted.
    pub unused: Vec<PathBuf>,
    /// Where something unreadable follows the end: an unacknowledged write.
    pub torn: Option<(PathBuf, u64)>,
}

/// How much of the chain a segment holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// The last transaction before it; `None` where its beginning cannot be read.
    pub after: Option<Zxid>,
    /// Bytes up to the end of its last batch (of a segment that was not looked into: of the file).
    pub bytes: u64,
}

/// [`recover_after`] nothing: reads the log in `dir` from its beginning.
///
/// # Errors
/// As there.
pub fn recover(dir: &Path, each: impl FnMut(LogRecord<'_>)) -> Result<Recovered, StorageError> {
    recover_after(dir, Zxid::ZERO, each)
}

/// Follows the log in `dir` and hands every transaction after `from` (what a snapshot holds already) to `each`, in order.
/// The log may begin anywhere up to `from`: what came before may have been deleted.
///
/// # Errors
/// [`StorageError::Corrupt`] when something that was acknowledged cannot be read; [`StorageError::Io`] when the system
/// fails.
pub fn recover_after(dir: &Path, from: Zxid, mut each: impl FnMut(LogRecord<'_>)) -> Result<Recovered, StorageError> {
    follow(dir, from, |_, record| {
        if record.entry.header.zxid > from {
            each(record);
        }
    })
}

/// The same, but `each` gets every transaction of the batches that were followed, with the header of its batch.
pub(crate) fn follow(
    dir: &Path,
    from: Zxid,
    mut each: impl FnMut(&BatchHeader, LogRecord<'_>),
) -> Result<Recovered, StorageError> {
    let mut segments = Vec::new();
    let mut firsts: Vec<Option<BatchHeader>> = Vec::new();
    let found = segment::list(dir)?;
    let newest = found.len().saturating_sub(2);
    for (index, (number, path)) in found.into_iter().enumerate() {
        let segment = OpenSegment::open(number, path)?;
        // After a failed sync a server writes nothing more, so it can only concern these.
        if index >= newest {
            segment.drop_cache();
        }
        firsts.push(segment.batch(FIRST_BATCH)?.ok().map(|batch| batch.header));
        segment.park();
        segments.push(segment);
    }
    let (begin, mut chain) = begin(&segments, &firsts, from)?;
    let mut used: Vec<_> = segments[..begin].iter().map(|segment| (segment.path().to_owned(), from)).collect();
    let after = |first: &Option<BatchHeader>| first.map(|first| first.prev_last);
    let whole = segments[..begin].iter().zip(&firsts);
    let mut extents: Vec<_> =
        whole.map(|(segment, first)| Extent { after: after(first), bytes: segment.file_len() }).collect();
    let mut successors = Successors::new(&firsts, begin);
    while let Some((index, at, batch)) = successors.next(&segments, &chain)? {
        let segment = &segments[index];
        // After a restart with a snapshot that was newer than the log, the log has a gap that only that snapshot, or a newer
        // one, fills.
        if batch.header.prev_last > chain.last.max(from) {
            return Err(StorageError::Corrupt {
                file: segment.path().to_owned(),
                offset: at.into(),
                why: format!(
                    "the batch here follows transaction {}, but the log before it ends with {} and the snapshot with {from}",
                    batch.header.prev_last, chain.last
                ),
            });
        }
        chain.follow(segment, at, &batch.batch(), from, &mut each)?;
        if let Some((before, _)) = successors.stop.filter(|(before, _)| *before != index) {
            segments[before].park();
        }
        successors.stop = Some((index, chain.end.offset));
        let bytes = chain.end.offset.into();
        match (used.last_mut(), extents.last_mut()) {
            (Some((path, last)), Some(extent)) if path == segment.path() => (*last, extent.bytes) = (chain.last, bytes),
            _ => {
                used.push((segment.path().to_owned(), chain.last));
                extents.push(Extent { after: Some(batch.header.prev_last), bytes });
            }
        }
    }
    let (first_beyond, at_beyond) = successors.stop.unwrap_or((begin, FIRST_BATCH));
    let last = chain.last.max(from);
    let mut torn = None;
    for (index, segment) in segments.iter().enumerate().skip(first_beyond) {
        let from = if index == first_beyond { at_beyond } else { FIRST_BATCH };
        if let Some(claim) = segment.claim_beyond(from, chain.end)? {
            let (broken, offset, mut why) = first_unreadable(&segments[first_beyond..], at_beyond, chain.last)?;
            if last == Zxid::ZERO && firsts.iter().flatten().next().is_some_and(|first| first.prev_last > last) {
                why = "the log does not reach back to its beginning, and there is no snapshot";
            }
            return Err(StorageError::Corrupt {
                file: broken.path().to_owned(),
                offset,
                why: format!(
                    "{why}, but a batch at {claim} says that the log was durable beyond this point; the last transaction \
                     before it is {}",
                    chain.last
                ),
            });
        }
        if torn.is_none() && !segment.is_zero_at(from)? {
            torn = Some((segment.path().to_owned(), u64::from(from)));
        }
        segment.park();
    }
    // Up to where a segment was closed it was durable.
    if let Some((index, at)) = successors.stop
        && segments[index].closed_at().is_some_and(|end| end > at)
    {
        let (broken, offset, why) = first_unreadable(&segments[index..], at, last)?;
        let closed = segments[index].path().display();
        return Err(StorageError::Corrupt {
            file: broken.path().to_owned(),
            offset,
            why: format!("{why}, but {closed} was durable up to where its name says that it ends"),
        });
    }
    let is_used = |segment: &&OpenSegment| used.iter().any(|(path, _)| path == segment.path());
    let unused: Vec<_> =
        segments.iter().filter(|segment| !is_used(segment)).map(|segment| segment.path().to_owned()).collect();
    Ok(Recovered {
        end: chain.end,
        end_crc: chain.crc,
        last,
        log_last: chain.last,
        used,
        extents,
        next_segment: segments.last().map_or(1, |segment| segment.header().number + 1),
        records: chain.records,
        unused,
        torn,
    })
}

/// What to tell of damage where the chain stops: at `at` of the first of `segments`, or, where that segment just ended, in the
/// first batch of the next one that holds any.
fn first_unreadable(
    segments: &[OpenSegment],
    at: u32,
    last: Zxid,
) -> Result<(&OpenSegment, u64, &'static str), StorageError> {
    let mut place = (&segments[0], at);
    // Recycled segments hold batches of their earlier lives where nothing was written since.
    let unwritten = |segment: &OpenSegment, at| Ok(segment.trace(at, last)? != Trace::Something);
    let ended = unwritten(&segments[0], at)? && segments[0].claim_beyond(at, Position::START)?.is_none();
    for next in segments[1..].iter().filter(|_| ended) {
        if next.batch(FIRST_BATCH)?.is_ok() {
            break;
        }
        // A segment that was too small for a batch stays empty.
        if !unwritten(next, FIRST_BATCH)? || next.claim_beyond(FIRST_BATCH, Position::START)?.is_some() {
            place = (next, FIRST_BATCH);
            break;
        }
    }
    // Sure where a header can still be read that names the end: what stands at the end itself never was part of the log.
    for next in &segments[1..] {
        if let Err(unreadable) = next.batch(FIRST_BATCH)?
            && unreadable.partial.is_some_and(|partial| partial.header.prev == segments[0].position(at))
        {
            place = (next, FIRST_BATCH);
        }
    }
    let (segment, at) = place;
    Ok(match segment.batch(at)? {
        Err(unreadable) => (segment, unreadable.offset, unreadable.why),
        Ok(_) => (segment, u64::from(at), "a batch here does not follow the one before it"),
    })
}

/// The last segment that begins with transactions up to `from`, or right after them: nothing before it is needed. `firsts` are
/// the headers of the segments' first batches, where they can be read.
fn begin(segments: &[OpenSegment], firsts: &[Option<BatchHeader>], from: Zxid) -> Result<(usize, Chain), StorageError> {
    let beginning = Ok((0, Chain { end: Position::START, crc: 0, last: Zxid::ZERO, records: 0 }));
    if from == Zxid::ZERO {
        return beginning;
    }
    let mut readable = firsts.iter().enumerate().filter_map(|(index, header)| header.map(|header| (index, header)));
    let first = readable.clone().next();
    match (readable.rfind(|(_, header)| header.prev_last <= from), first) {
        (Some((index, header)), _) => {
            Ok((index, Chain { end: header.prev, crc: header.prev_crc, last: header.prev_last, records: 0 }))
        }
        (None, Some((index, header))) => {
            // If older segments are there, the first batch of the oldest cannot be read. One that was too small stays empty.
            let is_empty = |segment: &OpenSegment| segment.is_zero_at(FIRST_BATCH);
            let mut broken = &segments[index];
            for older in segments[..index].iter().rev() {
                broken = if is_empty(older)? { broken } else { older };
            }
            Err(StorageError::Corrupt {
                file: broken.path().to_owned(),
                offset: FIRST_BATCH.into(),
                why: format!(
                    "the log can be read only after transaction {}, but no snapshot holds more than those up to {from}",
                    header.prev_last
                ),
            })
        }
        (None, None) => beginning,
    }
}

/// Which batch of the log comes next.
pub(super) struct Successors {
    /// Which segment begins right after which batch. If a batch in the same segment and a later segment both claim to follow, the
    /// segment counts: a later life has found the end there and gone on in a new one, and what stands in the old one came too
    /// late (a write that a killed process had handed to the kernel can land after its successor has read the log).
    links: BTreeMap<(Position, u32), usize>,
    /// The segment in which the chain currently ends, and where in it the next batch would stand.
    pub(super) stop: Option<(usize, u32)>,
}

impl Successors {
    /// From the beginning of the segment `begin` on. `firsts` are the headers of the segments' first batches, where they can be
    /// read.
    pub(super) fn new(firsts: &[Option<BatchHeader>], begin: usize) -> Successors {
        let link = |(index, header): (usize, &Option<BatchHeader>)| header.map(|it| ((it.prev, it.prev_crc), index));
        Successors { links: firsts.iter().enumerate().skip(begin).filter_map(link).collect(), stop: None }
    }

    /// The batch that continues `chain`, with its segment and its place in that.
    pub(super) fn next(
        &self,
        segments: &[OpenSegment],
        chain: &Chain,
    ) -> Result<Option<(usize, u32, Loaded)>, StorageError> {
        let linked = self.links.get(&(chain.end, chain.crc));
        let linked = linked.filter(|index| self.stop.is_none_or(|(at, _)| at < **index));
        let Some((index, at)) = linked.map(|index| (*index, FIRST_BATCH)).or(self.stop) else { return Ok(None) };
        let batch = segments[index].batch(at)?.ok();
        let follows = |batch: &Loaded| batch.header.prev == chain.end && batch.header.prev_crc == chain.crc;
        Ok(batch.filter(follows).map(|batch| (index, at, batch)))
    }
}

/// The log as far as it was followed.
pub(super) struct Chain {
    pub(super) end: Position,
    pub(super) crc: u32,
    pub(super) last: Zxid,
    pub(super) records: u64,
}

impl Chain {
    pub(super) fn follow(
        &mut self,
        segment: &OpenSegment,
        at: u32,
        batch: &Batch<'_>,
        from: Zxid,
        each: &mut impl FnMut(&BatchHeader, LogRecord<'_>),
    ) -> Result<(), StorageError> {
        for (offset, bytes) in batch.entries() {
            let corrupt = |why: String| StorageError::Corrupt {
                file: segment.path().to_owned(),
                offset: u64::from(at) + offset as u64,
                why,
            };
            let entry = TxnEntry::decode(bytes).map_err(|error| corrupt(format!("not a transaction: {error}")))?;
            let zxid = entry.header.zxid;
            if zxid <= self.last {
                return Err(corrupt(format!("transaction {zxid} follows {}", self.last)));
            }
            self.last = zxid;
            self.records += u64::from(zxid > from);
            each(&batch.header, LogRecord { entry, bytes });
        }
        self.crc = batch.crc();
        self.end = segment.end_of(at, batch.header.len);
        Ok(())
    }
}
