//! `corral-tool snapshot dump`: sessions and nodes, one a line, in the order in which the file has them.
//!
//! **Invariants**: printing begins at once and reading stops when nobody listens any more; what was printed before damage was
//! found is said to be a part.

use super::node::View;
use super::source;
use crate::failure::Failure;
use corral_engine::StorageError;
use corral_engine::snapshot::reader::{Piece, read};
use std::io::{self, Write};
use std::path::PathBuf;

/// What to print, and how.
#[derive(Debug, clap::Args)]
pub struct Options {
    /// The snapshot
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Only this node and those below it; may be given several times
    #[arg(long, value_name = "PATH")]
    path: Vec<String>,
    /// One JSON object a line
    #[arg(long)]
    json: bool,
    /// The data of nodes, too
    #[arg(long)]
    data: bool,
}

/// Whether `path` is `root` or below it.
pub(super) fn is_below(path: &str, root: &str) -> bool {
    let rest = path.strip_prefix(root.trim_end_matches('/'));
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// Prints what `options` ask for.
///
/// # Errors
/// See [`Failure`]; damage is one.
pub fn run(options: &Options, out: &mut dyn Write, notes: &mut dyn FnMut(&str)) -> Result<(), Failure> {
    let file = source::file(&options.file)?;
    let mut failed: Option<io::Error> = None;
    let result = read(&file, |piece| {
        let written = match piece {
            Piece::Session(id, timeout_ms) if options.path.is_empty() => match options.json {
                true => writeln!(out, "{{\"session\":\"{id}\",\"timeoutMs\":{timeout_ms}}}"),
                false => writeln!(out, "session {id} timeout={timeout_ms}ms"),
            },
            Piece::Node(path, image)
                if options.path.is_empty() || options.path.iter().any(|root| is_below(path, root)) =>
            {
                let view = View::new(path, &image, options.data);
                match options.json {
                    true => writeln!(out, "{}", serde_json::to_string(&view).expect("a node is JSON")),
                    false => writeln!(out, "{view}"),
                }
            }
            _ => Ok(()),
        };
        written.map_err(|error| {
            failed = Some(error);
            String::new()
        })
    });
    match (failed, result) {
        (Some(error), _) => Err(error.into()),
        (None, Ok(summary)) => {
            source::fuzzy(&summary).into_iter().for_each(|note| notes(&note));
            Ok(())
        }
        (None, Err(error @ StorageError::Corrupt { .. })) => {
            out.flush()?;
            Err(Failure::Failed(format!("{error}; what was printed is a part of the snapshot")))
        }
        (None, Err(error)) => Err(error.into()),
    }
}
