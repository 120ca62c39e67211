//! How a log is kept.

use crate::disk::Mode;
use crate::disk::files::Files;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// How the log is kept.
#[derive(Clone, Debug)]
pub struct LogOptions {
    /// How segments are made and named.
    pub files: Arc<dyn Files>,
    /// Where they are.
    pub dir: PathBuf,
    /// How bytes get to the disk and become durable.
    pub mode: Mode,
    /// Size of a segment in bytes (`preAllocSize`).
    pub segment_bytes: u64,
    /// Writes in flight at most (`log.pipelineDepth`).
    pub pipeline_depth: usize,
    /// How long an open batch waits for company (`log.groupCommitDelayUs`).
    pub group_commit_delay: Duration,
}
