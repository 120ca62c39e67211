//! Writes a new log, with the engine's own means: what comes out is what a server would have written.
//!
//! **Invariants**: what is finished is durable; a new log begins in an empty directory.

use super::walk::Link;
use crate::failure::Failure;
use corral_engine::StorageError;
use corral_engine::disk::device::Device;
use corral_engine::disk::files::RealFiles;
use corral_engine::disk::publish::sync_dir;
use corral_engine::disk::{BlockSize, LogIo, LogSync, Mode};
use corral_engine::txnlog::{Log, LogOptions, Recovered, recover_after};
use corral_proto::{Jute, TxnEntry, Zxid};
use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

/// How much is gathered before it is written, in bytes. A batch is no larger.
const GATHER_BYTES: usize = 1 << 20;

/// Group commit has nobody to wait for here.
const NOW: Duration = Duration::ZERO;

/// A new log that is being written.
pub struct Writer {
    dir: PathBuf,
    log: Log<Device>,
    ready: Receiver<()>,
    after: Zxid,
    gathered: usize,
    written: Written,
}

/// What was written: to be compared with what is read back.
#[derive(Clone, Debug, Default)]
pub struct Written {
    /// How many transactions.
    pub records: u64,
    /// The last one.
    pub last: Zxid,
    hasher: DefaultHasher,
}

impl Written {
    fn add(&mut self, zxid: Zxid, bytes: &[u8]) {
        self.records += 1;
        self.last = zxid;
        bytes.hash(&mut self.hasher);
    }
}

/// Makes `dir` if there is none, and makes sure that nothing is in it.
///
/// # Errors
/// When something is.
pub fn prepare(dir: &Path) -> Result<(), Failure> {
    let failed = |what: &str, error| Failure::Failed(format!("cannot {what} {}: {error}", dir.display()));
    match fs::read_dir(dir) {
        Ok(mut entries) => match entries.next() {
            None => Ok(()),
            Some(_) => Err(Failure::Usage(format!("{} is not empty; name a new directory", dir.display()))),
        },
        Err(error) if error.kind() == ErrorKind::NotFound => {
            fs::create_dir_all(dir).map_err(|error| failed("make the directory", error))?;
            let parent = dir.canonicalize().ok().and_then(|dir| dir.parent().map(Path::to_owned));
            parent.map_or(Ok(()), |parent| Ok(sync_dir(&RealFiles, &parent)?))
        }
        Err(error) if error.kind() == ErrorKind::NotADirectory => {
            Err(Failure::Usage(format!("{} is a file; name a new directory", dir.display())))
        }
        Err(error) => Err(failed("look into", error)),
    }
}

impl Writer {
    /// Begins a log in an empty directory. It goes on after a batch that is not there any more, and after transaction
    /// `after`, which a snapshot holds; or it begins at the start of everything.
    ///
    /// # Errors
    /// When the system fails.
    pub fn new(dir: &Path, segment_bytes: u64, prev: Link, after: Zxid) -> Result<Writer, Failure> {
        // Large batches have little padding, and this is right on every disk.
        let block = BlockSize::MAX;
        let mode = Mode { io: LogIo::Pwrite, sync: LogSync::Fdatasync, block, why: String::new() };
        let disk = Device::open(&mode).map_err(|source| StorageError::Io {
            op: "open a device for",
            path: dir.to_owned(),
            source,
        })?;
        let options = LogOptions {
            files: corral_engine::disk::files::real(),
            dir: dir.to_owned(),
            mode,
            segment_bytes,
            pipeline_depth: 1,
            group_commit_delay: Duration::ZERO,
        };
        let (wake, ready) = channel();
        // Nobody listens any more when the last segment becomes ready.
        let wake = Arc::new(move || wake.send(()).unwrap_or(()));
        let before = Recovered {
            end: prev.at,
            end_crc: prev.crc,
            last: after,
            log_last: after,
            next_segment: prev.at.segment + 1,
            records: 0,
            used: Vec::new(),
            extents: Vec::new(),
            unused: Vec::new(),
            torn: None,
        };
        let log = Log::open(&options, disk, &before, wake)?;
        Ok(Writer { dir: dir.to_owned(), log, ready, after, gathered: 0, written: Written::default() })
    }

    /// Adds a transaction, whose zxid must be larger than all before.
    ///
    /// # Errors
    /// When the system fails; the new log is of no use then.
    pub fn append(&mut self, entry: &TxnEntry<'_>) -> Result<(), Failure> {
        let bytes = entry.to_vec();
        self.log.group.append(entry, NOW);
        self.written.add(entry.header.zxid, &bytes);
        self.gathered += bytes.len();
        if self.gathered >= GATHER_BYTES { self.write_out() } else { Ok(()) }
    }

    fn write_out(&mut self) -> Result<(), Failure> {
        self.gathered = 0;
        Ok(self.log.settle(&self.ready)?)
    }

    /// Writes the rest, reads everything back, and compares.
    ///
    /// # Errors
    /// When the system fails, or what is read back is not what was written.
    pub fn finish(mut self) -> Result<Written, Failure> {
        self.write_out()?;
        let Writer { dir, log, after, written, .. } = self;
        // Ends the making of segments, too.
        drop(log);
        let mut back = Written::default();
        let recovered = recover_after(&dir, after, |record| back.add(record.entry.header.zxid, record.bytes))?;
        for path in &recovered.unused {
            fs::remove_file(path).map_err(|error| {
                Failure::Failed(format!("cannot delete the unused segment {}: {error}", path.display()))
            })?;
        }
        sync_dir(&RealFiles, &dir)?;
        let same = back.hasher.finish() == written.hasher.finish() && back.records == written.records;
        if same && recovered.torn.is_none() && back.last == written.last {
            Ok(written)
        } else {
            Err(Failure::Failed(format!("{} does not read back as it was written; do not use it", dir.display())))
        }
    }
}
