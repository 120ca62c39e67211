//! `corral-tool log verify`: is this log whole? The verdict is recovery's own; what is said besides is from the [`Survey`].
//!
//! **Invariants**: exit code 0 if and only if a server would start with this log.

use super::piece::Piece;
use super::source::{Segment, file_name, log_dir};
use super::survey::Survey;
use super::{counted, range};
use crate::failure::Failure;
use corral_engine::StorageError;
use corral_engine::txnlog::reader::Trace;
use corral_engine::txnlog::{Recovered, recover_after};
use corral_proto::Zxid;
use std::io::Write;
use std::path::{Path, PathBuf};

/// How often to look again when recovery and survey disagree, as they do when a server writes between the one and the other.
const LOOKS_MAX: usize = 5;

/// Which log.
#[derive(Debug, clap::Args)]
pub struct Options {
    /// The directory that holds the segments, or the dataDir or dataLogDir of a server
    #[arg(value_name = "DIR")]
    dir: PathBuf,
    /// Judge as a server does that has a snapshot of everything up to this zxid
    #[arg(long, value_name = "ZXID", value_parser = super::zxid)]
    after: Option<Zxid>,
}

/// Checks a log.
///
/// # Errors
/// [`Failure::Failed`] when it is damaged; see [`Failure`] for the others.
pub fn run(options: &Options, out: &mut dyn Write) -> Result<(), Failure> {
    let dir = log_dir(&options.dir)?;
    for _ in 0..LOOKS_MAX {
        let (segments, survey) = Survey::of(&dir, options.after)?;
        let from = options.after.unwrap_or(survey.begin.after);
        let verdict = recover_after(&dir, from, |_| ());
        match (verdict, survey.faults.is_empty()) {
            (Ok(recovered), true) => return fine(&dir, &segments, &survey, &recovered, out),
            (Err(StorageError::Corrupt { file, offset, why }), false) => {
                damaged(&dir, &segments, &survey, out)?;
                return Err(Failure::Failed(format!(
                    "{} is damaged, and a server that needs this part of it refuses to start: {} offset {offset}: {why}; \
                     `corral-tool log repair` writes what can be read into a new log",
                    dir.display(),
                    file_name(&file)
                )));
            }
            (Err(StorageError::Corrupt { .. }) | Ok(_), _) => {}
            (Err(error), _) => return Err(error.into()),
        }
    }
    Err(Failure::Failed(format!(
        "{} was different at every look: a server is writing there; stop it, or try again",
        dir.display()
    )))
}

fn fine(
    dir: &Path,
    segments: &[Segment],
    survey: &Survey,
    recovered: &Recovered,
    out: &mut dyn Write,
) -> Result<(), Failure> {
    head(dir, segments, survey, out)?;
    leftovers(survey, out)?;
    if let Some((file, offset)) = &recovered.torn
        && let Some(segment) = segments.iter().find(|segment| segment.open.path() == file)
        && segment.open.trace(u32::try_from(*offset).unwrap_or(u32::MAX), recovered.last)? == Trace::Something
    {
        writeln!(
            out,
            "torn tail: {} offset {offset}: behind transaction {} an unacknowledged write broke off; a server \
             leaves it out",
            file.display(),
            recovered.last
        )?;
    }
    let records = counted(recovered.records, "transaction");
    writeln!(out, "fine: a server recovers {records} up to {}", recovered.last)?;
    Ok(())
}

fn damaged(dir: &Path, segments: &[Segment], survey: &Survey, out: &mut dyn Write) -> Result<(), Failure> {
    head(dir, segments, survey, out)?;
    for fault in &survey.faults {
        writeln!(out, "{fault}")?;
    }
    leftovers(survey, out)?;
    Ok(())
}

fn head(dir: &Path, segments: &[Segment], survey: &Survey, out: &mut dyn Write) -> Result<(), Failure> {
    let records = counted(survey.records(), "transaction");
    let range = match (survey.history.first(), survey.history.last()) {
        (Some(first), Some(last)) => format!(", {}, up to {}", range(first.first, last.last), last.end.at),
        _ => String::new(),
    };
    let count = counted(segments.len() as u64, "segment");
    writeln!(out, "{}: {count}, {records} can be read{range}", dir.display())?;
    if !survey.begin.is_start() {
        let after = survey.begin.after;
        writeln!(out, "begins after transaction {after}: a server needs a snapshot of everything up to there")?;
    }
    Ok(())
}

fn leftovers(survey: &Survey, out: &mut dyn Write) -> Result<(), Failure> {
    for piece in &survey.leftovers {
        writeln!(out, "left over: {}", left_over(piece))?;
    }
    Ok(())
}

/// A piece that is not history, in words.
pub fn left_over(piece: &Piece) -> String {
    let broken = piece.broken.as_ref().map_or(String::new(), |broken| format!(" ({})", broken.why));
    let count = piece.broken.as_ref().map_or(piece.records, |broken| broken.count);
    let (count, range) = (counted(count, "transaction"), range(piece.first, piece.last));
    format!("{}: {count} {range}{broken} that a crash cut off, never acknowledged; a server leaves that out", piece.at)
}
