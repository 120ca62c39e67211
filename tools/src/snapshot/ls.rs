//! `corral-tool snapshot ls`: which snapshots there are, newest first. Each is read as a whole: only that tells whether a server
//! could use it.

use super::source;
use crate::failure::Failure;
use crate::time;
use corral_engine::StorageError;
use corral_engine::snapshot::reader::{Piece, read};
use std::io::Write;
use std::path::PathBuf;

/// Which snapshots.
#[derive(Debug, clap::Args)]
pub struct Options {
    /// Snapshots, a directory of them, or the dataDir of a server
    #[arg(value_name = "DIR|FILE", required = true)]
    paths: Vec<PathBuf>,
}

/// Lists them.
///
/// # Errors
/// See [`Failure`]. Damage is shown and is no failure here.
pub fn run(options: &Options, out: &mut dyn Write) -> Result<(), Failure> {
    let files = source::files(&options.paths)?;
    writeln!(
        out,
        "{:<26} {:>12} {:>10} {:>9} {:<25} {:<6} {:<25} STATE",
        "FILE", "SIZE", "NODES", "SESSIONS", "ZXIDS", "COMPR", "TAKEN"
    )?;
    for path in files {
        let mut sessions = 0;
        let found = read(&path, |piece| {
            sessions += u64::from(matches!(piece, Piece::Session(..)));
            Ok(())
        });
        let name = crate::log::source::file_name(&path);
        match found {
            Ok(summary) => {
                let (header, footer) = (summary.header, summary.footer);
                let range = format!("{}..{}", footer.start, footer.end);
                writeln!(
                    out,
                    "{name:<26} {:>12} {:>10} {sessions:>9} {range:<25} {:<6} {:<25} whole",
                    summary.file_bytes,
                    footer.nodes,
                    header.compression.name(),
                    time::format_ms(header.wall_ms)
                )?;
            }
            Err(StorageError::Corrupt { offset, why, .. }) => {
                let size = std::fs::metadata(&path).map_or(0, |meta| meta.len());
                let dash = "-";
                writeln!(
                    out,
                    "{name:<26} {size:>12} {dash:>10} {dash:>9} {dash:<25} {dash:<6} {dash:<25} damaged at {offset}: {why}"
                )?;
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}
