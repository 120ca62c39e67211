//! Segments as files: their names, and what stands where.
//!
//! A segment is written full of zeros and synced before it gets its name, so that appending to it later changes no metadata
//! and meets no unwritten extent: measured, that halves the latency of a durable write, and `fallocate` alone makes it worse
//! (`docs/design.md`). Its header, with a fresh random salt, is durable before its name is.
//!
//! A segment that is not needed any more becomes a spare: it keeps its blocks, loses its name, and gets a new header, with another
//! salt, before it is named again. What is still in it can then not be mistaken for anything (its checksums cover the salt).
//!
//! The last segment of an earlier life is closed by the next one: it gets a name that says where it ends, and then the room behind that
//! is given back, so that a restart costs a few blocks. Whatever stands behind the end that the name gives is not part of the log.
//!
//! **Invariants**: a file named `log-…` has a durable header and is zero-written or holds batches; a name survives a crash
//! (the directory is synced after every rename); a file that a crash left without a name is written over or deleted.
//!
//! **Not here**: what is in a segment ([`super::format`]), the steps by which one is made ([`super::workshop`]), and who has it made
//! ([`super::supply`]).

use super::format::SegmentHeader;
use crate::error::StorageError;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A segment that is ready to be appended to.
#[derive(Clone, Debug)]
pub struct Segment {
    /// What its header says.
    pub header: SegmentHeader,
    /// Its name.
    pub path: PathBuf,
    /// Opened for writing in the log's mode.
    pub file: Arc<File>,
}

/// No segment is larger, so that every offset in one, rounded up, fits its 32 bits.
pub const SEGMENT_BYTES_MAX: u64 = 1 << 31;

/// The name of a segment.
pub fn file_name(number: u32) -> String {
    format!("log-{number:010}")
}

/// The name of a segment that was closed: it ends at this offset, whatever its header says of its size.
pub fn closed_name(number: u32, end: u32) -> String {
    format!("{}-ends-{end:010}", file_name(number))
}

/// What the name of a segment says: its number, and where it ends if it was closed.
pub fn parse_name(path: &Path) -> Option<(u32, Option<u32>)> {
    let rest = path.file_name()?.to_str()?.strip_prefix("log-")?;
    match rest.split_once("-ends-") {
        Some((number, end)) => Some((number.parse().ok()?, Some(end.parse().ok()?))),
        None => Some((rest.parse().ok()?, None)),
    }
}

/// The segments in `dir`, in their order. Other files are left alone.
pub fn list(dir: &Path) -> Result<Vec<(u32, PathBuf)>, StorageError> {
    let mut segments = Vec::new();
    for entry in fs::read_dir(dir).map_err(StorageError::io("list", dir))? {
        let path = entry.map_err(StorageError::io("list", dir))?.path();
        segments.extend(parse_name(&path).map(|(number, _)| (number, path)));
    }
    segments.sort();
    Ok(segments)
}
