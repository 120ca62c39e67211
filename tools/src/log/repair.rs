//! `corral-tool log repair`: what can be read of a log, written into a new one.
//!
//! Without `--salvage` the new log ends where the damage begins: it holds a state that the server was really in. With it,
//! everything that is provably history is kept, also behind the damage; the transactions between are missing then, and what
//! builds on them may have no effect. Either way, what a crash left over, unacknowledged, is left out, as a server
//! leaves it out.
//!
//! **Invariants**: the original is opened for reading only; what is dropped is named; the new log has been read back.

use super::piece::Piece;
use super::source::{Segment, log_dir};
use super::survey::Survey;
use super::verify;
use super::walk::{Found, Scan, Walk};
use super::writer::{self, Writer};
use super::{counted, range};
use crate::failure::Failure;
use corral_engine::txnlog::Position;
use corral_proto::{Jute, Zxid};
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

/// Which log, and where to.
#[derive(Debug, clap::Args)]
pub struct Options {
    /// The directory that holds the segments, or the dataDir or dataLogDir of a server
    #[arg(value_name = "DIR")]
    dir: PathBuf,
    /// Where the new log is written: a directory that is empty or does not exist yet
    #[arg(long, value_name = "NEWDIR")]
    to: PathBuf,
    /// Begin where a server does that has a snapshot of everything up to this zxid
    #[arg(long, value_name = "ZXID", value_parser = super::zxid)]
    after: Option<Zxid>,
    /// Keep also what can be read behind the damage, although what stood between is missing
    #[arg(long)]
    salvage: bool,
}

/// No smaller segments are made: a batch of the repair must fit.
const SEGMENT_BYTES_MIN: u64 = 4 << 20;
/// What a segment has if no old one says: ZooKeeper's `preAllocSize`.
const SEGMENT_BYTES: u64 = 64 << 20;

/// What did not get into the new log, in words; and how many transactions could be read and were not taken.
#[derive(Debug, Default)]
struct Dropped {
    lines: Vec<String>,
    readable: Ranges,
}

/// Zxids in ascending order, as ranges.
#[derive(Debug, Default)]
struct Ranges {
    ranges: Vec<(Zxid, Zxid)>,
    count: u64,
}

impl Ranges {
    fn add(&mut self, first: Zxid, last: Zxid, count: u64) {
        self.count += count;
        match self.ranges.last_mut() {
            Some((_, end)) if end.next() == Some(first) => *end = last,
            _ => self.ranges.push((first, last)),
        }
    }

    fn words(&self) -> String {
        let words: Vec<_> = self.ranges.iter().map(|(first, last)| range(*first, *last)).collect();
        words.join(", ")
    }
}

/// Writes the new log and says what is in it and what is not.
///
/// # Errors
/// See [`Failure`]. That something had to be dropped is none.
pub fn run(options: &Options, out: &mut dyn Write) -> Result<(), Failure> {
    let dir = log_dir(&options.dir)?;
    refuse_inside(&options.to, &dir)?;
    let (segments, survey) = Survey::of(&dir, options.after)?;
    writer::prepare(&options.to)?;
    let sizes = segments.iter().filter(|segment| segment.wrong.is_none()).map(|segment| segment.open.header().size);
    let mut repair = Repair {
        segments: &segments,
        writer: Writer::new(
            &options.to,
            sizes.min().unwrap_or(SEGMENT_BYTES).max(SEGMENT_BYTES_MIN),
            survey.begin.prev,
            survey.begin.after,
        )?,
        first: None,
        last: survey.begin.after,
        rewritten: 0,
        dropped: Dropped::default(),
    };
    let cut = repair.copy(&survey, options.salvage)?;
    let Repair { writer, first, dropped, rewritten, .. } = repair;
    let written = writer.finish()?;

    for fault in &survey.faults {
        writeln!(out, "{fault}")?;
    }
    for piece in &survey.leftovers {
        writeln!(out, "left out: {}", verify::left_over(piece))?;
    }
    for line in &dropped.lines {
        writeln!(out, "dropped: {line}")?;
    }
    if dropped.readable.count > 0 {
        writeln!(
            out,
            "not taken: {} behind the damage that can be read ({}); --salvage takes them",
            counted(dropped.readable.count, "transaction"),
            dropped.readable.words()
        )?;
    }
    if rewritten > 0 {
        let rewritten = counted(rewritten, "transaction");
        writeln!(out, "changed: {rewritten} with bytes behind the end, which are not kept")?;
    }
    if survey.faults.is_empty() {
        writeln!(out, "nothing is damaged; this is a copy")?;
    }
    if cut {
        let last = written.last.max(survey.begin.after);
        writeln!(out, "snapshots of more than transaction {last} do not fit the new log: move them away, too")?;
    }
    let range = first.map_or(String::new(), |first| format!(" {}", range(first, written.last)));
    let (count, to) = (counted(written.records, "transaction"), options.to.display());
    writeln!(
        out,
        "wrote {count}{range} to {to}, and read back; to use it, stop the server, move {} away and put {to} in its place",
        dir.display()
    )?;
    Ok(())
}

/// A new log among the old segments would touch the original directory.
fn refuse_inside(to: &Path, dir: &Path) -> Result<(), Failure> {
    let mut above = std::path::absolute(to).unwrap_or_else(|_| to.to_owned());
    let dir = fs::canonicalize(dir).unwrap_or_else(|_| dir.to_owned());
    loop {
        if let Ok(real) = fs::canonicalize(&above) {
            return if real.starts_with(&dir) {
                let (to, dir) = (to.display(), dir.display());
                Err(Failure::Usage(format!("{to} lies in {dir}, which must not be touched; name another directory")))
            } else {
                Ok(())
            };
        }
        if !above.pop() {
            return Ok(());
        }
    }
}

struct Repair<'a> {
    segments: &'a [Segment],
    writer: Writer,
    first: Option<Zxid>,
    last: Zxid,
    rewritten: u64,
    dropped: Dropped,
}

impl Repair<'_> {
    /// Copies the history, up to the damage or beyond it. True if it was cut off.
    fn copy(&mut self, survey: &Survey, salvage: bool) -> Result<bool, Failure> {
        let (mut end, mut cut) = (survey.begin.prev, false);
        for piece in &survey.history {
            cut |= !salvage && piece.prev != end;
            end = piece.end;
            if cut {
                self.dropped.readable.add(piece.first, piece.last, piece.records);
                continue;
            }
            match &piece.broken {
                None => self.whole(piece)?,
                Some(_) => {
                    self.broken(piece, salvage)?;
                    cut = !salvage;
                }
            }
        }
        Ok(cut)
    }

    fn whole(&mut self, piece: &Piece) -> Result<(), Failure> {
        let mut walk = Walk::from(self.segments, piece.at, piece.prev)?;
        let mut records = 0;
        while walk.end() != piece.end
            && let Some(found) = walk.next_batch()?
        {
            for record in found.contents().records {
                self.take(&record)?;
                records += 1;
            }
        }
        if records != piece.records {
            return Err(Failure::Failed(format!(
                "the log changed at {} while it was read; stop the server that uses it",
                walk.end().at
            )));
        }
        Ok(())
    }

    /// What can be read of one batch: everything before what is broken, and with `salvage` also what stands behind it.
    fn broken(&mut self, piece: &Piece, salvage: bool) -> Result<(), Failure> {
        let Some(found) = find(self.segments, piece.at)? else { return Ok(()) };
        let contents = found.contents();
        let kept = if salvage { contents.records.len() } else { contents.before_flaw() };
        let mut lost = Ranges::default();
        // What the header says stood there, without what can be read.
        let mut expected = piece.first;
        for record in &contents.records[..kept] {
            if record.zxid() > expected {
                lost.add(expected, Zxid(record.zxid().0 - 1), 0);
            }
            expected = Zxid(record.zxid().0 + 1);
            self.take(record)?;
        }
        if expected <= piece.last {
            lost.add(expected, piece.last, 0);
        }
        for record in &contents.records[kept..] {
            self.dropped.readable.add(record.zxid(), record.zxid(), 1);
        }
        self.dropped.lines.push(format!("{} of the batch at {}", lost.words(), piece.at));
        Ok(())
    }

    fn take(&mut self, record: &super::walk::Record<'_>) -> Result<(), Failure> {
        let zxid = record.zxid();
        if zxid <= self.last {
            self.dropped.lines.push(format!("transaction {zxid} at {}, because it follows {}", record.at, self.last));
            return Ok(());
        }
        self.rewritten += u64::from(record.entry.to_vec() != record.bytes);
        self.first.get_or_insert(zxid);
        self.last = zxid;
        self.writer.append(&record.entry)
    }
}

fn find(segments: &[Segment], at: Position) -> Result<Option<Found>, Failure> {
    for segment in segments.iter().filter(|segment| segment.number() == at.segment) {
        let mut scan = Scan::from(segment, at.offset);
        if let Some(found) = scan.next_batch()?
            && found.at == at
        {
            return Ok(Some(found));
        }
    }
    Ok(None)
}
