//! The judgement on a whole log: what its history is, what a crash left over, and what is damaged.
//!
//! Recovery ends at the first batch that it cannot follow and says whether that is a torn tail or damage. This looks on behind
//! that place, and comes to the same verdict in three steps:
//!
//! 1. *Pieces.* Every batch in the log whose header checks out is found. Whole batches that follow each other make one piece
//!    (through a crash, too: the next life's first batch names the end that recovery found, and what stands behind that end in
//!    the old segment came too late); a batch with a sound header and broken records is a piece by itself.
//! 2. *Groups.* Pieces that name each other's end belong together: between them nothing is missing.
//! 3. *History.* The group at the beginning of the log is history (what came before may have been deleted, when a snapshot
//!    holds it). A batch further on that was submitted when the log was durable beyond the history so far proves that there is
//!    a hole, which held acknowledged transactions. The group behind the hole is history, too, if some batch in it, or behind
//!    it in the same segment, was submitted when everything before the group was durable. A group that cannot prove that was
//!    left by a crash, and was never acknowledged. Nor was a broken batch that nothing calls durable: a torn tail.
//!
//! **Invariants**: memory grows with the pieces, not with the log; there are faults if and only if recovery refuses the log
//! (`tools/tests/log_judgement.rs` holds both against each other).
//!
//! **Not here**: carrying anything out.

use super::fault::{Fault, Lost, headers, place_of_hole};
use super::piece::{Broken, Piece};
use super::source::{self, Segment};
use super::walk::{Beginning, Contents, Flaw, Found, Link, Links, Scan};
use crate::failure::Failure;
use corral_engine::txnlog::Position;
use corral_engine::txnlog::format::FIRST_BATCH;
use corral_engine::txnlog::reader::Trace;
use corral_proto::Zxid;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// What one segment holds, history or not.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// Batches with a sound header.
    pub batches: u64,
    /// Transactions that can be read.
    pub records: u64,
    /// The smallest and the largest zxid.
    pub zxids: Option<(Zxid, Zxid)>,
    /// The earliest and the latest time, in ms since the epoch.
    pub times_ms: Option<(i64, i64)>,
    /// Bytes from the beginning to the end of the last batch.
    pub used: u64,
    /// Whether something that is no batch was written behind that.
    pub trailing: bool,
    claim: Position,
}

/// What a log looks like.
#[derive(Debug, Default)]
pub struct Survey {
    /// Where the log begins.
    pub begin: Beginning,
    /// One for each segment, in their order.
    pub tallies: Vec<Tally>,
    /// What was acknowledged and can be read, in order.
    pub history: Vec<Piece>,
    /// What was never acknowledged.
    pub leftovers: Vec<Piece>,
    /// What is damaged, in the order of the log.
    pub faults: Vec<Fault>,
}

/// How often to look again at a log that seems damaged but looks different each time.
const LOOKS_MAX: usize = 5;

impl Survey {
    /// Surveys the log in `dir`: all of it, or what a server needs of it that has a snapshot up to transaction `after`. What a
    /// running server does there may look like damage if it was seen in a bad moment: damage counts when it is the same twice.
    ///
    /// # Errors
    /// When the system fails, or there is a gap between `after` and the log.
    pub fn of(dir: &Path, after: Option<Zxid>) -> Result<(Vec<Segment>, Survey), Failure> {
        let mut before = None;
        let mut look = 1;
        loop {
            let mut segments = source::open_all(dir)?;
            let faults = headers(&segments)?;
            if let Some(after) = after {
                segments.drain(..source::needed_after(&segments, after)?);
            }
            let mut survey = Survey::take(&segments)?;
            survey.faults.extend(faults);
            survey.faults.sort_by(|a, b| (&a.file, a.offset).cmp(&(&b.file, b.offset)));
            if survey.faults.is_empty() || before.as_ref() == Some(&survey.faults) || look == LOOKS_MAX {
                return Ok((segments, survey));
            }
            before = Some(survey.faults);
            look += 1;
        }
    }

    fn take(segments: &[Segment]) -> Result<Survey, Failure> {
        let mut survey = Survey { begin: Beginning::of(segments)?, ..Survey::default() };
        let mut pieces = Vec::new();
        let mut claims: BTreeMap<u32, Position> = BTreeMap::new();
        let (links, mut last) = (Links::of(segments)?, Zxid::ZERO);
        for (index, segment) in segments.iter().enumerate() {
            let mut tally = Tally { used: FIRST_BATCH.into(), ..Tally::default() };
            let mut scan = Scan::new(segment);
            while let Some(found) = scan.next_batch()? {
                let contents = found.contents();
                last = found.header.last.max(last);
                tally.add(&found, &contents);
                let late = links.later(Link::before(&found.header), index).is_some();
                add(&mut pieces, &found, &contents, late);
            }
            let end = tally.used.try_into().unwrap_or(u32::MAX);
            tally.trailing = segment.open.trace(end, last)? == Trace::Something;
            let claim = claims.entry(segment.number()).or_default();
            *claim = tally.claim.max(*claim);
            survey.tallies.push(tally);
        }
        survey.judge(segments, group(pieces), &claims)?;
        Ok(survey)
    }

    /// The last batch of the history, and its last transaction.
    pub fn end(&self) -> (Link, Zxid) {
        self.history.last().map_or((self.begin.prev, self.begin.after), |piece| (piece.end, piece.last))
    }

    /// Transactions of the history that can be read.
    pub fn records(&self) -> u64 {
        self.history.iter().map(|piece| piece.records).sum()
    }

    fn judge(
        &mut self,
        segments: &[Segment],
        groups: Vec<Vec<Piece>>,
        claims: &BTreeMap<u32, Position>,
    ) -> Result<(), Failure> {
        let mut lost_end = None;
        for group in groups {
            let said = |piece: &Piece| {
                let of = |position: Position| claims.get(&position.segment).copied().unwrap_or_default();
                piece.claim.max(of(piece.at)).max(of(piece.end.at))
            };
            let durable = group.iter().map(said).max().unwrap_or_default();
            let ((end, after), first) = (self.end(), &group[0]);
            if first.late {
                self.leftovers.extend(group);
                continue;
            }
            if first.prev != end {
                let all = durable >= first.prev.at;
                if durable > end.at {
                    let (file, offset, why) = place_of_hole(segments, end.at, first)?;
                    let lost = Lost::Between { after, upto: first.prev_last, all };
                    // A later group may show better how far the hole goes.
                    lost_end = Some(Fault { file, offset, why, lost });
                }
                // Another batch at the very place is another log.
                if durable <= end.at || !all || first.prev.at == end.at {
                    self.leftovers.extend(group);
                    continue;
                }
                self.faults.extend(lost_end.take());
            }
            let mut pieces = group.into_iter();
            for piece in pieces.by_ref() {
                if let Some(broken) = &piece.broken {
                    // Recovery cannot begin with a broken batch, torn or not.
                    let begins = self.history.is_empty() && !self.begin.is_start();
                    if piece.at >= durable && !broken.as_written && !begins {
                        self.leftovers.push(piece);
                        break;
                    }
                    let file = path_of(segments, piece.at.segment).unwrap_or_default();
                    let (after, readable) = (self.end().1, piece.records);
                    let (first, last, count) = (piece.first, piece.last, broken.count);
                    let lost = Lost::Within { first, last, count, readable, after };
                    self.faults.push(Fault { file, offset: broken.offset, why: broken.why.clone(), lost });
                }
                self.history.push(piece);
            }
            self.leftovers.extend(pieces);
        }
        self.faults.extend(lost_end);
        Ok(())
    }
}

impl Tally {
    fn add(&mut self, found: &Found, contents: &Contents<'_>) {
        self.batches += 1;
        self.records += contents.records.len() as u64;
        self.used = self.used.max(u64::from(found.end.offset));
        self.claim = self.claim.max(found.header.durable);
        for record in &contents.records {
            self.widen_zxids(record.zxid(), record.zxid());
            self.widen_times(record.entry.header.time_ms, record.entry.header.time_ms);
        }
    }

    /// Takes these zxids in.
    pub fn widen_zxids(&mut self, low: Zxid, high: Zxid) {
        self.zxids = Some(self.zxids.map_or((low, high), |(first, last)| (first.min(low), last.max(high))));
    }

    /// Takes these times in.
    pub fn widen_times(&mut self, low: i64, high: i64) {
        self.times_ms = Some(self.times_ms.map_or((low, high), |(first, last)| (first.min(low), last.max(high))));
    }
}

fn add(pieces: &mut Vec<Piece>, found: &Found, contents: &Contents<'_>, late: bool) {
    let (header, prev) = (&found.header, Link::before(&found.header));
    let mut flaw = contents.flaw.clone();
    let (first, last) = match (&contents.records[..], &flaw) {
        ([first, .., last], None) => (first.zxid(), last.zxid()),
        ([only], None) => (only.zxid(), only.zxid()),
        _ => (header.first, header.last),
    };
    if flaw.is_none() && !late {
        let before = pieces.iter_mut().rev().find(|piece| piece.broken.is_none() && piece.end == prev);
        match before {
            Some(piece) if first > piece.last => {
                piece.end = found.link();
                if piece.segments.last() != Some(&found.at.segment) {
                    piece.segments.push(found.at.segment);
                }
                piece.last = last;
                piece.batches += 1;
                piece.records += contents.records.len() as u64;
                piece.claim = piece.claim.max(header.durable);
                return;
            }
            Some(piece) => {
                let why = format!("transaction {first} follows {}", piece.last);
                flaw = Some(Flaw { offset: u64::from(found.at.offset), why, as_written: true });
            }
            None => {}
        }
    }
    pieces.push(Piece {
        at: found.at,
        prev,
        end: found.link(),
        segments: vec![found.at.segment],
        first,
        last,
        prev_last: header.prev_last,
        batches: 1,
        records: contents.records.len() as u64,
        broken: flaw.map(|flaw| Broken {
            offset: flaw.offset,
            why: flaw.why,
            count: u64::from(header.count),
            as_written: flaw.as_written,
        }),
        claim: header.durable,
        late,
    });
}

/// Puts pieces that follow each other together. They come in the order of their first batches, and stay so.
fn group(pieces: Vec<Piece>) -> Vec<Vec<Piece>> {
    let mut groups: Vec<Vec<Piece>> = Vec::new();
    for piece in pieces {
        let follows = |group: &&mut Vec<Piece>| !piece.late && group.last().is_some_and(|last| last.end == piece.prev);
        match groups.iter_mut().rev().find(follows) {
            Some(group) => group.push(piece),
            None => groups.push(vec![piece]),
        }
    }
    groups
}

fn path_of(segments: &[Segment], number: u32) -> Option<PathBuf> {
    segments.iter().find(|segment| segment.number() == number).map(|segment| segment.open.path().to_owned())
}
