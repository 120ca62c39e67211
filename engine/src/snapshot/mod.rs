//! Snapshots: fuzzy images of the tree on the snapshot disk, so that a restart does not have to replay the whole log.
//!
//! - [`mod@format`]: the bytes of a file: a header, blocks with checksums that are chained, a footer with the range of zxids.
//! - [`schedule`]: when the next one is taken.
//! - [`writer`]: walks over the tree while it is in use, and streams to a temporary name.
//! - [`reader`]: checks a file, and builds a tree from it.
//!
//! **Invariants**: a file has its final name only when all of it, and then its name, are durable; a file that does not check out
//! from its first byte to its last is never used.
//!
//! **Not here**: the rules that make a fuzzy image exact ([`crate::tree::image`]), when a log may go ([`crate::restore`]).

pub mod format;
pub mod reader;
pub mod schedule;
pub mod writer;

use crate::error::StorageError;
use corral_proto::Zxid;
use std::fs;
use std::path::{Path, PathBuf};

/// The name of the snapshot whose walk began after transaction `start`.
pub fn file_name(start: Zxid) -> String {
    format!("snapshot-{:016x}", start.0)
}

/// The transaction that a snapshot is named after; `None` if this is not the name of one.
pub fn start(path: &Path) -> Option<Zxid> {
    let digits = path.file_name()?.to_str()?.strip_prefix("snapshot-")?;
    i64::from_str_radix(digits, 16).ok().filter(|_| digits.len() == 16).map(Zxid)
}

/// The snapshots in `dir`, the newest first. Other files are left alone.
pub fn list(dir: &Path) -> Result<Vec<(Zxid, PathBuf)>, StorageError> {
    let mut snapshots = Vec::new();
    for entry in fs::read_dir(dir).map_err(StorageError::io("list", dir))? {
        let path = entry.map_err(StorageError::io("list", dir))?.path();
        snapshots.extend(start(&path).map(|start| (start, path)));
    }
    snapshots.sort_by_key(|(start, _)| std::cmp::Reverse(*start));
    Ok(snapshots)
}

/// Whether a tree as of `start` holds something beyond `upto`. One of the beginning of an epoch counts as one of the last
/// transaction before.
pub fn holds_more(start: Zxid, upto: Zxid) -> bool {
    let is_beginning = start.counter() == 0 && start.epoch() > upto.epoch();
    start > upto && !is_beginning
}

#[cfg(test)]
mod tests;
