//! `corral-tool log ls`: a table of the segments of a log.
//!
//! The states: **whole** (part of the history), **torn tail** (part of the history, and behind it something that a crash left
//! and that was never acknowledged), **damaged** (something acknowledged cannot be read there), **empty** (made ready, not
//! used yet), **unused** (something was written, none of it acknowledged).

use super::counted;
use super::piece::Piece;
use super::source::{Segment, log_dir};
use super::survey::{Survey, Tally};
use crate::failure::Failure;
use crate::time;
use std::io::Write;
use std::path::Path;

const HEADS: [&str; 12] =
    ["SEGMENT", "FILE", "SIZE", "SALT", "BATCHES", "RECORDS", "FIRST", "LAST", "FROM", "TO", "USED", "STATE"];
/// Columns of numbers, which stand better at the right.
const RIGHT: [usize; 5] = [0, 2, 4, 5, 10];

type Row = [String; HEADS.len()];

/// Prints the table for the log that `path` means.
///
/// # Errors
/// See [`Failure`]; damage is shown, and is no failure of `ls`.
pub fn run(path: &Path, out: &mut dyn Write) -> Result<(), Failure> {
    let dir = log_dir(path)?;
    let (segments, survey) = Survey::of(&dir, None)?;
    let mut rows = vec![HEADS.map(str::to_owned)];
    for (segment, tally) in segments.iter().zip(&survey.tallies) {
        rows.push(row(segment, tally, state(segment, tally, &survey)));
    }
    rows.push(total(&segments, &survey.tallies));
    let mut widths = [0; HEADS.len()];
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = cell.len().max(*width);
        }
    }
    for row in &rows {
        let mut line = String::new();
        for (index, (cell, width)) in row.iter().zip(widths).enumerate() {
            let cell = if RIGHT.contains(&index) { format!("{cell:>width$}") } else { format!("{cell:<width$}") };
            line.push_str(if index > 0 { "  " } else { "" });
            line.push_str(&cell);
        }
        writeln!(out, "{}", line.trim_end())?;
    }
    Ok(())
}

fn row(segment: &Segment, tally: &Tally, state: &str) -> Row {
    let [first, last] = zxids(tally);
    let [from, to] = times(tally);
    [
        segment.number().to_string(),
        segment.name(),
        segment.open.file_len().to_string(),
        format!("{:016x}", segment.open.header().salt),
        tally.batches.to_string(),
        tally.records.to_string(),
        first,
        last,
        from,
        to,
        tally.used.to_string(),
        state.to_owned(),
    ]
}

fn total(segments: &[Segment], tallies: &[Tally]) -> Row {
    let mut sum = Tally::default();
    for tally in tallies {
        sum.batches += tally.batches;
        sum.records += tally.records;
        sum.used += tally.used;
        tally.zxids.into_iter().for_each(|(low, high)| sum.widen_zxids(low, high));
        tally.times_ms.into_iter().for_each(|(low, high)| sum.widen_times(low, high));
    }
    let ([first, last], [from, to]) = (zxids(&sum), times(&sum));
    let size: u64 = segments.iter().map(|segment| segment.open.file_len()).sum();
    let count = counted(segments.len() as u64, "segment");
    let (batches, records, used) = (sum.batches.to_string(), sum.records.to_string(), sum.used.to_string());
    let total = "total".to_owned();
    [total, count, size.to_string(), String::new(), batches, records, first, last, from, to, used, String::new()]
}

fn zxids(tally: &Tally) -> [String; 2] {
    tally.zxids.map_or(["-".to_owned(), "-".to_owned()], |(low, high)| [low.to_string(), high.to_string()])
}

fn times(tally: &Tally) -> [String; 2] {
    tally.times_ms.map_or(["-".to_owned(), "-".to_owned()], |(low, high)| [time::format_ms(low), time::format_ms(high)])
}

fn state(segment: &Segment, tally: &Tally, survey: &Survey) -> &'static str {
    let here = |piece: &Piece| piece.segments.contains(&segment.number());
    let left_over = tally.trailing || survey.leftovers.iter().any(here);
    let in_history = survey.history.iter().any(here);
    if survey.faults.iter().any(|fault| fault.file == segment.open.path()) {
        "damaged"
    } else if left_over {
        if in_history { "torn tail" } else { "unused" }
    } else if tally.batches == 0 {
        "empty"
    } else {
        "whole"
    }
}
