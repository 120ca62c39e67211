//! Through the batches of a log, in one of two ways: [`Walk`] follows the chain through the segments, as recovery does;
//! [`Scan`] shows everything in one segment that checks out, also behind a place that does not.
//!
//! **Invariants**: one batch is in memory at a time.
//!
//! **Not here**: what it means that a batch is missing ([`super::survey`]).

use super::source::Segment;
use corral_engine::StorageError;
use corral_engine::txnlog::Position;
use corral_engine::txnlog::format::{BatchHeader, FIRST_BATCH};
use corral_engine::txnlog::reader::{Loaded, PartialBatch, Unreadable};
use corral_proto::{TxnEntry, Zxid};
use std::collections::BTreeMap;
use std::ops::ControlFlow;

/// A batch whose header checks out.
#[derive(Debug)]
pub struct Found {
    /// Where it stands.
    pub at: Position,
    /// Where the batch after it stands, if it is in the same segment.
    pub end: Position,
    /// Its header.
    pub header: BatchHeader,
    body: Body,
}

#[derive(Debug)]
enum Body {
    Whole(Loaded),
    Broken { offset: u64, why: &'static str, partial: PartialBatch },
}

/// A transaction, and where it lies.
#[derive(Clone, Copy, Debug)]
pub struct Record<'a> {
    /// How many records stand before it in its batch.
    pub index: u32,
    /// Where it begins.
    pub at: Position,
    /// Its own bytes.
    pub bytes: &'a [u8],
    /// The transaction.
    pub entry: TxnEntry<'a>,
}

impl Record<'_> {
    /// Its zxid.
    pub fn zxid(&self) -> Zxid {
        self.entry.header.zxid
    }
}

/// What is wrong inside a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Flaw {
    /// Where in the segment, in bytes.
    pub offset: u64,
    /// What.
    pub why: String,
    /// True when the bytes are those that were written: no torn write, whatever follows.
    pub as_written: bool,
}

/// The transactions of a batch that can be read, in order, and what is wrong with the others.
#[derive(Clone, Debug)]
pub struct Contents<'a> {
    /// Their zxids grow.
    pub records: Vec<Record<'a>>,
    /// The first thing that is wrong.
    pub flaw: Option<Flaw>,
}

impl Contents<'_> {
    /// How many of the records stand before everything that is wrong.
    pub fn before_flaw(&self) -> usize {
        self.records.iter().zip(0..).take_while(|(record, index)| record.index == *index).count()
    }
}

impl Found {
    fn new(segment: &Segment, at: u32, header: BatchHeader, body: Body) -> Found {
        let (at, end) = (segment.open.position(at), segment.open.end_of(at, header.len));
        Found { at, end, header, body }
    }

    fn whole(segment: &Segment, at: u32, batch: Loaded) -> Found {
        Found::new(segment, at, batch.header, Body::Whole(batch))
    }

    /// What the batch after it names.
    pub fn link(&self) -> Link {
        let crc = match &self.body {
            Body::Whole(loaded) => loaded.crc(),
            Body::Broken { partial, .. } => partial.crc(),
        };
        Link { at: self.end, crc }
    }

    /// What is in it.
    pub fn contents(&self) -> Contents<'_> {
        match &self.body {
            Body::Whole(loaded) => {
                let entries = loaded.batch().entries();
                self.decode(entries.zip(0..).map(|((offset, bytes), index)| (index, offset, bytes)), None)
            }
            Body::Broken { offset, why, partial } => {
                let flaw = Flaw { offset: *offset, why: (*why).to_owned(), as_written: false };
                let survivors = partial.survivors().into_iter().map(|one| (one.index, one.offset, one.entry));
                self.decode(survivors, Some(flaw))
            }
        }
    }

    fn decode<'a>(
        &self,
        entries: impl Iterator<Item = (u32, usize, &'a [u8])>,
        mut flaw: Option<Flaw>,
    ) -> Contents<'a> {
        let mut records: Vec<Record<'a>> = Vec::new();
        for (index, offset, bytes) in entries {
            let at = Position { offset: self.at.offset + offset as u32, ..self.at };
            let why = match TxnEntry::decode(bytes) {
                Ok(entry) => match records.last() {
                    Some(last) if entry.header.zxid <= last.zxid() => {
                        format!("transaction {} follows {}", entry.header.zxid, last.zxid())
                    }
                    _ => {
                        records.push(Record { index, at, bytes, entry });
                        continue;
                    }
                },
                Err(error) => format!("not a transaction: {error}"),
            };
            flaw.get_or_insert(Flaw { offset: u64::from(at.offset), why, as_written: true });
        }
        Contents { records, flaw }
    }
}

/// Names a batch as the one after it does: by where it ended and its checksum. The default is what the first batch of all names.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Link {
    /// Where it ended.
    pub at: Position,
    /// The checksum in its header.
    pub crc: u32,
}

impl Link {
    /// To the batch before the one with this header.
    pub fn before(header: &BatchHeader) -> Link {
        Link { at: header.prev, crc: header.prev_crc }
    }
}

/// Which segment, by its index, begins right after which batch.
#[derive(Clone, Debug, Default)]
pub struct Links(BTreeMap<Link, usize>);

impl Links {
    /// Of these segments.
    ///
    /// # Errors
    /// When the system fails.
    pub fn of(segments: &[Segment]) -> Result<Links, StorageError> {
        let mut links = BTreeMap::new();
        for (index, segment) in segments.iter().enumerate() {
            let at = FIRST_BATCH;
            let header = match segment.open.batch(at)? {
                Ok(batch) => Some(batch.header),
                // Damaged, but a later batch says that it was durable once: it counts all the same.
                Err(Unreadable { partial: Some(partial), .. }) => {
                    segment.open.claim_beyond(at, segment.open.position(at))?.map(|_| partial.header)
                }
                Err(_) => None,
            };
            links.extend(header.map(|header| (Link::before(&header), index)));
        }
        Ok(Links(links))
    }

    /// The segment behind the one with this index that goes on after `link`: a later life has found the end there, and what else
    /// stands behind that end came too late.
    pub fn later(&self, link: Link, index: usize) -> Option<usize> {
        self.0.get(&link).copied().filter(|later| *later > index)
    }
}

/// Along the chain: each batch names the one before it.
#[derive(Debug)]
pub struct Walk<'a> {
    segments: &'a [Segment],
    links: Links,
    end: Link,
    /// Behind the last batch that was found: its segment's index, and the offset.
    stop: (usize, u32),
}

/// Where a log begins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Beginning {
    /// The batch before its first one: none, or one in a segment that was deleted because a snapshot holds what was in it.
    pub prev: Link,
    /// The last transaction before: what a snapshot must hold.
    pub after: Zxid,
    at: Position,
}

impl Beginning {
    /// Of the log in these segments. A first batch that names a segment which is not there any more is a beginning; one that
    /// names another place in the log follows something that is missing.
    ///
    /// # Errors
    /// When the system fails.
    pub fn of(segments: &[Segment]) -> Result<Beginning, StorageError> {
        let start = segments.first().map(|segment| segment.open.position(FIRST_BATCH)).unwrap_or_default();
        for segment in segments {
            if let Some(Found { at, header, .. }) = Scan::new(segment).next_batch()? {
                let gone = segments.iter().all(|segment| segment.number() != header.prev.segment);
                if at.offset == FIRST_BATCH && header.prev != Position::START && gone {
                    return Ok(Beginning { prev: Link::before(&header), after: header.prev_last, at });
                }
                break;
            }
        }
        Ok(Beginning { prev: Link::default(), after: Zxid::ZERO, at: start })
    }

    /// False where something came before that is not there any more.
    pub fn is_start(&self) -> bool {
        self.prev == Link::default()
    }
}

impl<'a> Walk<'a> {
    /// From the beginning of the log.
    ///
    /// # Errors
    /// When the system fails.
    pub fn new(segments: &'a [Segment], beginning: &Beginning) -> Result<Walk<'a>, StorageError> {
        Walk::from(segments, beginning.at, beginning.prev)
    }

    /// From the batch at `at`, which follows `prev`.
    ///
    /// # Errors
    /// When the system fails.
    pub fn from(segments: &'a [Segment], at: Position, prev: Link) -> Result<Walk<'a>, StorageError> {
        let index = segments.iter().position(|segment| segment.number() == at.segment).unwrap_or(segments.len());
        Ok(Walk { segments, links: Links::of(segments)?, end: prev, stop: (index, at.offset) })
    }

    /// The last batch that was found.
    pub fn end(&self) -> Link {
        self.end
    }

    /// The segment and the offset where the next batch of the chain would stand, if it is in the same segment.
    pub fn stop(&self) -> Option<(&'a Segment, u32)> {
        let (index, at) = self.stop;
        self.segments.get(index).map(|segment| (segment, at))
    }

    /// The segments that may hold something behind the end, each with the offset from where on.
    pub fn beyond(&self) -> impl Iterator<Item = (&'a Segment, u32)> + use<'a> {
        let (first, at) = self.stop;
        let from = move |index| if index == first { at } else { FIRST_BATCH };
        self.segments.iter().enumerate().skip(first).map(move |(index, segment)| (segment, from(index)))
    }

    /// Looks again into what a running server may have written since.
    ///
    /// # Errors
    /// When the system fails.
    pub fn refresh(&mut self) -> Result<(), StorageError> {
        self.links = Links::of(self.segments)?;
        Ok(())
    }

    /// The next batch of the chain.
    ///
    /// # Errors
    /// When the system fails.
    pub fn next_batch(&mut self) -> Result<Option<Found>, StorageError> {
        let (stop, at) = self.stop;
        let (index, at) = self.links.later(self.end, stop).map_or((stop, at), |later| (later, FIRST_BATCH));
        let Some(segment) = self.segments.get(index) else { return Ok(None) };
        let Ok(batch) = segment.open.batch(at)? else { return Ok(None) };
        if Link::before(&batch.header) != self.end {
            return Ok(None);
        }
        let found = Found::whole(segment, at, batch);
        self.end = found.link();
        self.stop = (index, self.end.at.offset);
        Ok(Some(found))
    }
}

/// Through one segment, over everything that does not check out.
#[derive(Debug)]
pub struct Scan<'a> {
    segment: &'a Segment,
    at: u32,
    /// Where nothing could be read since the last batch, and why.
    pub skipped: Option<(u32, &'static str)>,
}

impl<'a> Scan<'a> {
    /// From its first batch.
    pub fn new(segment: &'a Segment) -> Scan<'a> {
        Scan::from(segment, FIRST_BATCH)
    }

    /// From this offset, at a block.
    pub fn from(segment: &'a Segment, at: u32) -> Scan<'a> {
        Scan { segment, at, skipped: None }
    }

    /// The next batch whose header checks out.
    ///
    /// # Errors
    /// When the system fails.
    pub fn next_batch(&mut self) -> Result<Option<Found>, StorageError> {
        self.skipped = None;
        let open = &self.segment.open;
        while u64::from(self.at) < open.file_len() {
            let found = match open.batch(self.at)? {
                Ok(batch) => Found::whole(self.segment, self.at, batch),
                Err(unreadable) => {
                    let Some(partial) = unreadable.partial else {
                        self.skipped.get_or_insert((self.at, unreadable.why));
                        let next = open.headers(self.at, |at, _| ControlFlow::Break(at))?;
                        // Somebody may be writing here: what was no batch a moment ago may be one now.
                        self.at = next.unwrap_or(u32::MAX);
                        continue;
                    };
                    let (offset, why) = (unreadable.offset, unreadable.why);
                    Found::new(self.segment, self.at, partial.header, Body::Broken { offset, why, partial })
                }
            };
            // The blocks of a broken batch may hold what was written there later.
            self.at = match found.body {
                Body::Whole(_) => found.end.offset,
                Body::Broken { .. } => self.at + open.header().block.bytes() as u32,
            };
            return Ok(Some(found));
        }
        Ok(None)
    }
}
