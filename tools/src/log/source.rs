//! Which log is meant: a directory with segments, one of a server with a log in it, or segments by themselves.
//!
//! Segments are opened as they are: one with a broken header is looked into all the same.

use crate::failure::Failure;
use corral_engine::txnlog::format::FIRST_BATCH;
use corral_engine::txnlog::reader::OpenSegment;
use corral_engine::txnlog::segment;
use corral_proto::Zxid;
use std::fs;
use std::io::ErrorKind;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

/// Where the log lies below a `dataDir` or `dataLogDir`.
const LOG_DIR: &str = "corral-log";

/// An opened segment.
#[derive(Debug)]
pub struct Segment {
    /// For reading.
    pub open: OpenSegment,
    /// What is wrong with its header: a server refuses to start with such a segment.
    pub wrong: Option<String>,
}

impl Segment {
    /// Its number.
    pub fn number(&self) -> u32 {
        self.open.header().number
    }

    /// Its name, without the directory.
    pub fn name(&self) -> String {
        file_name(self.open.path())
    }
}

/// The name of a file without its directory, for people.
pub fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned()
}

/// The directory with the segments that `path` means.
///
/// # Errors
/// When there is no log.
pub fn log_dir(path: &Path) -> Result<PathBuf, Failure> {
    let told = |why: &str| Failure::Usage(format!("{}: {why}", path.display()));
    match fs::metadata(path) {
        Ok(meta) if meta.is_dir() => {}
        Ok(_) => return Err(told("this is a file; name the directory that it lies in")),
        Err(error) if error.kind() == ErrorKind::NotFound => return Err(told("there is no such directory")),
        Err(error) => return Err(Failure::Failed(format!("cannot look at {}: {error}", path.display()))),
    }
    if !segment::list(path)?.is_empty() {
        return Ok(path.to_owned());
    }
    let below = path.join(LOG_DIR);
    if below.is_dir() {
        return Ok(below);
    }
    // A server makes this directory before the first segment in it.
    if file_name(path) == LOG_DIR {
        return Ok(path.to_owned());
    }
    Err(told(
        "there is no log here, neither segments (log-…) nor a corral-log directory; a server with a dataLogDir has it there",
    ))
}

/// All segments in `dir`, in their order.
///
/// # Errors
/// When the system fails.
pub fn open_all(dir: &Path) -> Result<Vec<Segment>, Failure> {
    let mut segments = Vec::new();
    for (number, path) in segment::list(dir)? {
        let (open, wrong) = OpenSegment::open_as_it_is(number, path)?;
        open.park();
        segments.push(Segment { open, wrong });
    }
    Ok(segments)
}

/// One segment, wherever it lies and whatever its name.
///
/// # Errors
/// When it is no segment at all, or the system fails.
pub fn open_file(path: &Path) -> Result<Segment, Failure> {
    if !path.is_file() {
        let what = if path.exists() { "this is not a file" } else { "there is no such file" };
        return Err(Failure::Usage(format!("{}: {what}", path.display())));
    }
    let named = segment::parse_name(path).map(|(number, _)| number);
    let (open, mut wrong) = OpenSegment::open_as_it_is(named.unwrap_or(0), path.to_owned())?;
    if named.is_none() && open.header().number != 0 {
        // A copy under another name is as good as the original.
        wrong = None;
    }
    if let Some(why) = &wrong
        && open.headers(FIRST_BATCH, |_, _| ControlFlow::Break(()))?.is_none()
    {
        return Err(Failure::Usage(format!("{}: {why}, and no transaction in it can be read", path.display())));
    }
    Ok(Segment { open, wrong })
}

/// The index of the first segment that a server needs which has a snapshot of everything up to `after`.
///
/// # Errors
/// When transactions between the two are missing.
pub fn needed_after(segments: &[Segment], after: Zxid) -> Result<usize, Failure> {
    let (mut needed, mut first) = (None, None);
    for (index, segment) in segments.iter().enumerate() {
        if let Ok(batch) = segment.open.batch(FIRST_BATCH)? {
            first.get_or_insert(batch.header.prev_last);
            if batch.header.prev_last <= after {
                needed = Some(index);
            }
        }
    }
    match (needed, first) {
        (None, Some(first)) => Err(Failure::Failed(format!(
            "the log begins after transaction {first}: what came after {after} is missing"
        ))),
        _ => Ok(needed.unwrap_or(0)),
    }
}
