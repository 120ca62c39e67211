//! `corral-tool snapshot verify`: is a snapshot whole, and could a server start with it?
//!
//! **Invariants**: the verdict on a file is the server's own ([`load`]); with `--log`, so is the verdict on both together.

use super::source;
use crate::failure::Failure;
use crate::log::source::log_dir;
use corral_engine::StorageError;
use corral_engine::snapshot::reader::load;
use corral_engine::txnlog::recover_after;
use std::io::Write;
use std::path::{Path, PathBuf};

/// Which snapshots.
#[derive(Debug, clap::Args)]
pub struct Options {
    /// Snapshots, a directory of them, or the dataDir of a server
    #[arg(value_name = "DIR|FILE", required = true)]
    paths: Vec<PathBuf>,
    /// The log that goes with them: does it reach back to each, and to the end of its range?
    #[arg(long, value_name = "DIR")]
    log: Option<PathBuf>,
}

/// Checks them.
///
/// # Errors
/// [`Failure::Failed`] when one is damaged, or its log is not enough for it.
pub fn run(options: &Options, out: &mut dyn Write) -> Result<(), Failure> {
    let log = options.log.as_deref().map(log_dir).transpose()?;
    let files = source::files(&options.paths)?;
    let mut bad = 0;
    for path in &files {
        match check(path, log.as_deref()) {
            Ok(text) => writeln!(out, "{}: {text}", path.display())?,
            Err(error @ StorageError::Corrupt { .. }) => {
                bad += 1;
                writeln!(out, "{error}")?;
            }
            Err(error) => return Err(error.into()),
        }
    }
    match (bad, files.len()) {
        (_, 0) => Err(Failure::Usage("there is no snapshot".to_owned())),
        (0, _) => Ok(()),
        (bad, all) if bad == all => {
            Err(Failure::Failed(format!("no server can start with {}", if all == 1 { "it" } else { "any of them" })))
        }
        (bad, all) => Err(Failure::Failed(format!(
            "{bad} of {all} snapshots cannot be used; a server takes the newest of the others"
        ))),
    }
}

fn check(path: &Path, log: Option<&Path>) -> Result<String, StorageError> {
    let (mut tree, summary) = load(path, 0, |_| ())?;
    let footer = summary.footer;
    let mut text = format!(
        "whole: {} nodes, {} sessions, {} blocks, {} bytes, transactions up to {}",
        footer.nodes,
        tree.sessions().len(),
        summary.blocks,
        summary.file_bytes,
        footer.start
    );
    let Some(log) = log else {
        source::fuzzy(&summary).into_iter().for_each(|note| text.push_str(&format!("; {note}")));
        return Ok(text);
    };
    let recovered = recover_after(log, tree.last_applied(), |record| drop(tree.apply(&record.entry, None)))?;
    tree.is_whole().map_err(|why| StorageError::Corrupt {
        file: path.to_owned(),
        offset: summary.file_bytes,
        why: format!("{why}; the log in {} is not enough for this snapshot", log.display()),
    })?;
    Ok(format!("{text}; with the log a server restores {} nodes up to {}", tree.len(), recovered.last))
}
