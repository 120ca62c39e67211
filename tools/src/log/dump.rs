//! `corral-tool log dump`: transactions, one a line.
//!
//! Of a directory, what recovery would hand on is printed: the chain of batches up to its end. If that end is damage, the
//! dump says so at last and exits with 1. Of segments by themselves, everything that checks out is printed, also what lies
//! behind a broken place or was never acknowledged: nobody can tell without the other segments.
//!
//! **Invariants**: nothing is kept: a dump begins to print at once and stops reading when nobody listens any more.

use super::source::{self, Segment, file_name};
use super::transaction::{OPS, View};
use super::walk::{Beginning, Found, Record, Scan, Walk};
use super::{counted, session, zxid};
use crate::failure::Failure;
use crate::time;
use clap::builder::PossibleValuesParser;
use corral_engine::txnlog::reader::{OpenSegment, Trace};
use corral_proto::{SessionId, Zxid};
use std::io::Write;
use std::ops::ControlFlow;
use std::path::PathBuf;

/// What to print, and how.
#[derive(Debug, clap::Args)]
pub struct Options {
    /// The directory of a log (or of the server that it belongs to), or segments by themselves
    #[arg(value_name = "DIR|SEGMENT", required = true)]
    paths: Vec<PathBuf>,
    /// From this zxid on (0x… or decimal)
    #[arg(long, value_name = "ZXID", value_parser = zxid)]
    from: Option<Zxid>,
    /// Up to this zxid
    #[arg(long, value_name = "ZXID", value_parser = zxid)]
    to: Option<Zxid>,
    /// From this time on (ISO 8601, UTC unless it says otherwise, or ms since 1970)
    #[arg(long, value_name = "TIME", value_parser = time::parse_ms)]
    since: Option<i64>,
    /// Up to this time
    #[arg(long, value_name = "TIME", value_parser = time::parse_ms)]
    until: Option<i64>,
    /// Only what this session did (0x… or decimal); may be given several times, as may --op and --path
    #[arg(long, value_name = "ID", value_parser = session)]
    session: Vec<SessionId>,
    /// Only such transactions, and multis with such a part
    #[arg(long, value_name = "OP", value_parser = PossibleValuesParser::new(OPS))]
    op: Vec<String>,
    /// Only transactions that name a path beginning like this, alone or in a multi
    #[arg(long, value_name = "PREFIX")]
    path: Vec<String>,
    /// One JSON object a line
    #[arg(long)]
    json: bool,
    /// The data of nodes, too
    #[arg(long)]
    data: bool,
}

/// Prints what `options` ask for.
///
/// # Errors
/// See [`Failure`]; damage is one.
pub fn run(options: &Options, out: &mut dyn Write, notes: &mut dyn FnMut(&str)) -> Result<(), Failure> {
    match &options.paths[..] {
        [dir] if dir.is_dir() => chain(&source::open_all(&source::log_dir(dir)?)?, options, out, notes),
        paths if paths.len() > 1 && paths.iter().any(|path| path.is_dir()) => {
            Err(Failure::Usage("name one directory, or segments, not both".to_owned()))
        }
        paths => {
            let segments = paths.iter().map(|path| source::open_file(path)).collect::<Result<Vec<_>, _>>()?;
            segments.iter().try_for_each(|segment| scan(segment, options, out, notes))
        }
    }
}

fn chain(
    segments: &[Segment],
    options: &Options,
    out: &mut dyn Write,
    notes: &mut dyn FnMut(&str),
) -> Result<(), Failure> {
    let wrong = segments.iter().filter_map(|segment| Some((segment, segment.wrong.as_ref()?)));
    let mut damage = wrong.map(|(segment, why)| format!("{} offset 0: {why}", segment.open.path().display())).next();
    let beginning = Beginning::of(segments)?;
    let mut walk = Walk::new(segments, &beginning)?;
    let mut last = beginning.after;
    loop {
        while let Some(found) = walk.next_batch()? {
            if follow(&found, &mut last, options, out)?.is_break() {
                return Ok(());
            }
        }
        let (claim, trailing) = beyond(&walk, last)?;
        // What a server wrote since is no damage: it can be read now.
        walk.refresh()?;
        if let Some(found) = walk.next_batch()? {
            if follow(&found, &mut last, options, out)?.is_break() {
                return Ok(());
            }
            continue;
        }
        if let Some(why) = claim {
            recycled(segments)?;
            damage.get_or_insert(format!("{why}; the last transaction before it is {last}"));
        } else if let Some(place) = trailing {
            notes(&format!("torn tail: {place}: an unacknowledged write, which broke off; it is left out"));
        }
        break;
    }
    out.flush()?;
    match damage {
        None => Ok(()),
        Some(why) => Err(Failure::Failed(format!("this log is damaged: {why} (see `corral-tool log verify`)"))),
    }
}

/// A server that has taken a snapshot uses segments again that it holds: then there is nothing wrong with what was read.
fn recycled(segments: &[Segment]) -> Result<(), Failure> {
    for segment in segments {
        let path = segment.open.path();
        let same = |(now, _): (OpenSegment, _)| now.header() == segment.open.header();
        if !OpenSegment::open_as_it_is(segment.number(), path.to_owned()).is_ok_and(same) {
            return Err(Failure::Failed(format!("a server deleted {} while it was read; try again", path.display())));
        }
    }
    Ok(())
}

/// Prints a batch of the chain; breaks off behind the last transaction that was asked for.
fn follow(found: &Found, last: &mut Zxid, options: &Options, out: &mut dyn Write) -> Result<ControlFlow<()>, Failure> {
    if options.from.is_some_and(|from| found.header.last < from) {
        *last = found.header.last;
        return Ok(ControlFlow::Continue(()));
    }
    let contents = found.contents();
    for record in &contents.records[..contents.before_flaw()] {
        if options.to.is_some_and(|to| record.zxid() > to) {
            return Ok(ControlFlow::Break(()));
        }
        *last = record.zxid();
        print(record, options, out)?;
    }
    match contents.flaw {
        None => Ok(ControlFlow::Continue(())),
        Some(flaw) => {
            out.flush()?;
            Err(Failure::Failed(format!("this log is damaged: {} offset {}: {}", found.at, flaw.offset, flaw.why)))
        }
    }
}

/// What lies behind the end of the chain: a batch that says that more was durable, and the first thing that is no batch.
fn beyond(walk: &Walk<'_>, last: Zxid) -> Result<(Option<String>, Option<String>), Failure> {
    let mut trailing = None;
    for (segment, from) in walk.beyond() {
        if let Some(claim) = segment.open.claim_beyond(from, walk.end().at)? {
            let (file, at) = walk.stop().map_or_else(Default::default, |(segment, at)| (segment.name(), at));
            let why =
                format!("nothing can be read at {file} offset {at}, but a batch at {claim} follows what was there");
            return Ok((Some(why), None));
        }
        if trailing.is_none() && segment.open.trace(from, last)? == Trace::Something {
            trailing = Some(format!("{} offset {from}", segment.name()));
        }
    }
    Ok((None, trailing))
}

fn scan(segment: &Segment, options: &Options, out: &mut dyn Write, notes: &mut dyn FnMut(&str)) -> Result<(), Failure> {
    let name = file_name(segment.open.path());
    if let Some(why) = &segment.wrong {
        notes(&format!("{name}: {why}; what can be read is printed"));
    }
    let mut scan = Scan::new(segment);
    let mut last = Zxid::ZERO;
    while let Some(found) = scan.next_batch()? {
        if let Some((at, why)) = scan.skipped {
            notes(&format!("{name} offset {at}: {why}; what follows is from offset {} on", found.at.offset));
        }
        batch(&name, &found, options, out, notes)?;
        last = found.header.last.max(last);
    }
    if let Some((at, why)) = scan.skipped
        && segment.open.trace(at, last)? == Trace::Something
    {
        notes(&format!("{name} offset {at}: {why}; nothing follows"));
    }
    Ok(())
}

fn batch(
    name: &str,
    found: &Found,
    options: &Options,
    out: &mut dyn Write,
    notes: &mut dyn FnMut(&str),
) -> Result<(), Failure> {
    let contents = found.contents();
    if let Some(flaw) = &contents.flaw {
        let (count, readable) = (counted(found.header.count.into(), "transaction"), contents.records.len());
        let (offset, why) = (flaw.offset, &flaw.why);
        notes(&format!("{name} offset {offset}: {why}; of this batch with {count}, {readable} can be read"));
    }
    contents.records.iter().try_for_each(|record| print(record, options, out))
}

fn print(record: &Record<'_>, options: &Options, out: &mut dyn Write) -> Result<(), Failure> {
    let header = &record.entry.header;
    let wanted = options.from.is_none_or(|from| header.zxid >= from)
        && options.to.is_none_or(|to| header.zxid <= to)
        && options.since.is_none_or(|since| header.time_ms >= since)
        && options.until.is_none_or(|until| header.time_ms <= until)
        && (options.session.is_empty() || options.session.contains(&header.session));
    if !wanted {
        return Ok(());
    }
    let view = View::new(record, options.data);
    if (!options.op.is_empty() && !view.is_one_of(&options.op))
        || (!options.path.is_empty() && !options.path.iter().any(|prefix| view.names(prefix)))
    {
        return Ok(());
    }
    if options.json {
        serde_json::to_writer(&mut *out, &view).map_err(std::io::Error::from)?;
        writeln!(out)?;
    } else {
        writeln!(out, "{view}")?;
    }
    Ok(())
}
