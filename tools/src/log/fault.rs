//! What can be damaged in a log, where exactly, and which transactions it takes along.
//!
//! **Not here**: what is damage and what is a torn tail ([`super::survey`]).

use super::piece::Piece;
use super::source::Segment;
use super::walk::Scan;
use super::{counted, range};
use crate::failure::Failure;
use corral_engine::txnlog::Position;
use corral_engine::txnlog::format::FIRST_BATCH;
use corral_engine::txnlog::segment::file_name;
use corral_proto::Zxid;
use std::fmt;
use std::path::{Path, PathBuf};

/// Something that makes a server refuse the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// In which file.
    pub file: PathBuf,
    /// Where in it, in bytes.
    pub offset: u64,
    /// What is wrong there.
    pub why: String,
    /// Which transactions it took along.
    pub lost: Lost,
}

/// What a fault means for transactions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Lost {
    /// A segment's header: its batches can be read all the same, or not at all, which other faults tell.
    Header {
        /// Transactions in the segment that can be read.
        readable: u64,
    },
    /// All between two places.
    Between {
        /// The last one before.
        after: Zxid,
        /// The last one that is missing.
        upto: Zxid,
        /// Whether all of them were acknowledged, or only some at the beginning.
        all: bool,
    },
    /// Some of one batch.
    Within {
        /// Its first transaction.
        first: Zxid,
        /// Its last one.
        last: Zxid,
        /// How many it held.
        count: u64,
        /// How many of them can be read.
        readable: u64,
        /// The last transaction before the batch.
        after: Zxid,
    },
}

/// What is wrong with the headers of segments.
///
/// # Errors
/// When the system fails.
pub fn headers(segments: &[Segment]) -> Result<Vec<Fault>, Failure> {
    let mut faults = Vec::new();
    for segment in segments {
        let Some(why) = &segment.wrong else { continue };
        let mut readable = 0;
        let mut scan = Scan::new(segment);
        while let Some(found) = scan.next_batch()? {
            readable += found.contents().records.len() as u64;
        }
        let lost = Lost::Header { readable };
        faults.push(Fault { file: segment.open.path().to_owned(), offset: 0, why: why.clone(), lost });
    }
    Ok(faults)
}

/// Where exactly something is missing between `end` and the batch that `next` begins with. Where a batch ended that cannot be
/// read tells in which segment it stood.
///
/// # Errors
/// When the system fails.
pub fn place_of_hole(segments: &[Segment], end: Position, next: &Piece) -> Result<(PathBuf, u64, String), Failure> {
    let find = |number| segments.iter().find(|segment| segment.number() == number);
    let (segment, at) = match (find(next.prev.at.segment), find(end.segment)) {
        (Some(segment), _) if next.prev.at.segment != end.segment => (segment, FIRST_BATCH),
        (_, Some(segment)) if next.prev.at.segment == end.segment => (segment, end.offset),
        _ => {
            let dir = segments.first().and_then(|segment| segment.open.path().parent()).unwrap_or(Path::new(""));
            let why = format!("this segment is missing, and the batch at {} follows one in it", next.at);
            return Ok((dir.join(file_name(next.prev.at.segment)), 0, why));
        }
    };
    let (offset, why) = match segment.open.batch(at)? {
        Err(unreadable) => (unreadable.offset, unreadable.why),
        Ok(_) => (u64::from(at), "a batch stands here that does not follow the one before it"),
    };
    Ok((segment.open.path().to_owned(), offset, why.to_owned()))
}

/// One line: file, offset, what, and which transactions it took along.
impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "damage: {} offset {}", self.file.display(), self.offset)?;
        match self.lost {
            Lost::Header { .. } => {}
            Lost::Between { after: Zxid::ZERO, .. } | Lost::Within { after: Zxid::ZERO, .. } => {
                f.write_str(", before the first transaction")?;
            }
            Lost::Between { after, .. } | Lost::Within { after, .. } => write!(f, ", after transaction {after}")?,
        }
        write!(f, ": {}; {}", self.why, self.lost)
    }
}

impl fmt::Display for Lost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Lost::Header { readable: 0 } => f.write_str("no transaction in this segment can be read"),
            Lost::Header { readable } => {
                write!(f, "{} in this segment can be read all the same", counted(readable, "transaction"))
            }
            Lost::Between { after, upto, all } => {
                let first = Zxid(after.0 + 1);
                if after.epoch() == upto.epoch() && first <= upto {
                    let count = counted((upto.0 - after.0) as u64, "transaction");
                    write!(f, "{count} lost: {}", range(first, upto))?;
                } else {
                    write!(f, "lost: everything from there up to transaction {upto}")?;
                }
                f.write_str(if all { "" } else { ", of which the last ones were perhaps never acknowledged" })
            }
            Lost::Within { first, last, count, readable, .. } => {
                let lost = count - readable.min(count);
                write!(f, "{lost} lost of {}: {}", counted(count, "transaction"), range(first, last))
            }
        }
    }
}
