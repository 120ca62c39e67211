//! Segments as files: their names, and the thread that has the next one ready before it is needed.
//!
//! A segment is written full of zeros and synced before it gets its name, so that appending to it later changes no metadata
//! and meets no unwritten extent: measured, that halves the latency of a durable write, and `fallocate` alone makes it worse
//! (`docs/design.md`). Its header, with a fresh random salt, is durable before its name is.
//!
//! A segment that is not needed any more becomes a spare: it keeps its blocks, loses its name, and gets a new header, with another
//! salt, before it is named again. What is still in it can then not be mistaken for anything (its checksums cover the salt).
//!
//! **Invariants**: a file named `log-…` has a durable header and is zero-written or holds batches; a name survives a crash
//! (the directory is synced after every rename); a file that a crash left without a name is written over or deleted.
//!
//! **Not here**: what is in a segment ([`super::format`]); when one is needed ([`super::log`]).

#![expect(clippy::disallowed_methods, reason = "the thread that prepares segments is part of the engine's I/O")]

use super::format::SegmentHeader;
use crate::disk::aligned::AlignedBuf;
use crate::disk::{BLOCK, Mode, round_up};
use crate::error::StorageError;
use crossbeam::channel::{Receiver, Sender, TryRecvError, bounded};
use rand::{Rng, SeedableRng};
use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;

/// A segment that is ready to be appended to.
#[derive(Clone, Debug)]
pub struct Segment {
    /// What its first block says.
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

/// The segments in `dir`, in their order. Other files are left alone.
pub fn list(dir: &Path) -> Result<Vec<(u32, PathBuf)>, StorageError> {
    let mut segments = Vec::new();
    for entry in fs::read_dir(dir).map_err(StorageError::io("list", dir))? {
        let path = entry.map_err(StorageError::io("list", dir))?.path();
        let number = path.file_name().and_then(|name| name.to_str()?.strip_prefix("log-")?.parse().ok());
        segments.extend(number.map(|number| (number, path)));
    }
    segments.sort();
    Ok(segments)
}

/// Makes the names in `dir` survive a crash.
pub fn sync_dir(dir: &Path) -> Result<(), StorageError> {
    File::open(dir).and_then(|file| file.sync_all()).map_err(StorageError::io("sync the directory", dir))
}

enum Order {
    Make { number: u32, size: u64 },
    Release { recycle: Vec<PathBuf>, delete: Vec<PathBuf> },
}

/// Spares that are kept; more are deleted.
const SPARES_MAX: usize = 2;

/// Called by the preparing thread when something is ready, so that a log that waits for it can be woken.
pub type Wake = Arc<dyn Fn() + Send + Sync>;

/// Has segments made, one ahead.
pub struct Supply {
    orders: Option<Sender<Order>>,
    ready: Receiver<Result<Segment, StorageError>>,
    thread: Option<JoinHandle<()>>,
    size: u64,
    next: u32,
    ordered: bool,
}

impl Supply {
    /// Starts the thread that makes segments of `size` bytes in `dir`, numbered from `next`, and orders the first.
    pub fn start(dir: &Path, mode: &Mode, size: u64, next: u32, wake: Wake) -> Result<Supply, StorageError> {
        let size = round_up(size.min(SEGMENT_BYTES_MAX) as usize) as u64;
        // One segment is ordered at a time; besides, there may be something to recycle.
        let (orders, inbox) = bounded::<Order>(2);
        let (outbox, ready) = bounded(1);
        let (dir, mode) = (dir.to_owned(), mode.clone());
        let path = dir.clone();
        let thread = std::thread::Builder::new()
            .name("prealloc".to_owned())
            .spawn(move || {
                let mut spares = spares_in(&dir);
                for order in inbox {
                    match order {
                        Order::Make { number, size } => {
                            if outbox.send(prepare(&dir, &mode, number, size, &mut spares)).is_err() {
                                return;
                            }
                            wake();
                        }
                        Order::Release { recycle, delete } => release(&dir, recycle, delete, &mut spares),
                    }
                }
            })
            .map_err(StorageError::io("start the thread that prepares segments in", &path))?;
        let mut supply = Supply { orders: Some(orders), ready, thread: Some(thread), size, next, ordered: false };
        supply.order(size);
        Ok(supply)
    }

    fn order(&mut self, size: u64) {
        let orders = self.orders.as_ref().expect("present until dropped");
        if !self.ordered && orders.try_send(Order::Make { number: self.next, size }).is_ok() {
            self.next += 1;
            self.ordered = true;
        }
    }

    /// Whether [`Supply::take`] would find something.
    pub fn is_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    /// Hands over segments that nobody needs any more, to be used again or to be deleted. False if they could not be taken just
    /// now.
    pub fn recycle(&mut self, recycle: Vec<PathBuf>, delete: Vec<PathBuf>) -> bool {
        let orders = self.orders.as_ref().expect("present until dropped");
        // A segment that is ordered must never find the queue full.
        (self.ordered || orders.is_empty()) && orders.try_send(Order::Release { recycle, delete }).is_ok()
    }

    /// The next segment, if it is ready, with room for at least `room` bytes of batches; the one after it is ordered at
    /// once. `None`: call again when woken.
    ///
    /// # Errors
    /// When the segment could not be made; the next call orders another.
    pub fn take(&mut self, room: usize) -> Result<Option<Segment>, StorageError> {
        let needed = (room + BLOCK) as u64;
        let made = match self.ready.try_recv() {
            Ok(made) => {
                self.ordered = false;
                made?
            }
            Err(TryRecvError::Empty | TryRecvError::Disconnected) => {
                self.order(self.size.max(needed));
                return Ok(None);
            }
        };
        if made.header.size < needed {
            // A batch with one huge record: this segment stays empty, and one to measure is made.
            self.order(needed);
            return Ok(None);
        }
        self.order(self.size);
        Ok(Some(made))
    }

    /// Waits until the ordered segment was made.
    pub fn wait(&self) {
        let mut select = crossbeam::channel::Select::new();
        select.recv(&self.ready);
        select.ready();
    }
}

impl Drop for Supply {
    fn drop(&mut self) {
        self.orders = None;
        // A finished segment may still be waiting to be taken, which would keep the thread from seeing that nobody orders.
        while self.ready.recv().is_ok() {}
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// The spares that an earlier life left.
fn spares_in(dir: &Path) -> Vec<PathBuf> {
    let is_spare = |path: &PathBuf| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("spare-"));
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).filter(is_spare).collect()
}

/// Takes the names of segments that nobody needs any more, and keeps a few of the files.
fn release(dir: &Path, recycle: Vec<PathBuf>, delete: Vec<PathBuf>, spares: &mut Vec<PathBuf>) {
    let may_be_kept = recycle.into_iter().map(|path| (path, true));
    for (path, may_be_kept) in may_be_kept.chain(delete.into_iter().map(|path| (path, false))) {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let spare = dir.join(format!("spare-{name}"));
        let kept = may_be_kept && spares.len() < SPARES_MAX && fs::rename(&path, &spare).is_ok();
        if kept {
            spares.push(spare);
        } else if let Err(error) = fs::remove_file(&path) {
            tracing::warn!("cannot delete the log segment {}, which is not needed any more: {error}", path.display());
        }
    }
    if let Err(error) = sync_dir(dir) {
        tracing::warn!("{error}");
    }
}

/// Gives a spare of the right size a new header. Not possible: no spare, and nothing lost.
fn reuse(mode: &Mode, header: &SegmentHeader, unnamed: &Path, spares: &mut Vec<PathBuf>) -> Option<()> {
    let fits = |path: &PathBuf| fs::metadata(path).is_ok_and(|data| data.len() == header.size);
    let spare = spares.swap_remove(spares.iter().position(fits)?);
    fs::rename(&spare, unnamed).ok()?;
    let mut block = AlignedBuf::zeroed(BLOCK);
    block.as_mut_slice().copy_from_slice(&header.encode());
    let file = mode.open(unnamed).ok()?;
    file.write_all_at(block.as_slice(), 0).and_then(|()| file.sync_all()).ok()
}

fn prepare(
    dir: &Path,
    mode: &Mode,
    number: u32,
    size: u64,
    spares: &mut Vec<PathBuf>,
) -> Result<Segment, StorageError> {
    let path = dir.join(file_name(number));
    let unnamed = dir.join(format!("{}.new", file_name(number)));
    let header = SegmentHeader { number, salt: rand::rngs::SmallRng::from_os_rng().random(), size };
    let reused = reuse(mode, &header, &unnamed, spares);
    let written = reused.map_or_else(|| write_out(mode, &unnamed, &header), Ok).and_then(|()| {
        fs::rename(&unnamed, &path).map_err(StorageError::io("name the segment", &path))?;
        sync_dir(dir)?;
        mode.open(&path).map_err(StorageError::io("open the segment", &path))
    });
    match written {
        Ok(file) => Ok(Segment { header, path, file: Arc::new(file) }),
        Err(error) => {
            let _ = fs::remove_file(&unnamed);
            Err(error)
        }
    }
}

/// Zeros in large writes without a sync, then one sync: syncing each would take as long as the disk's latency times them.
fn write_out(mode: &Mode, path: &Path, header: &SegmentHeader) -> Result<(), StorageError> {
    let opened = if mode.io == crate::disk::LogIo::UringDirect {
        use std::os::unix::fs::OpenOptionsExt;
        OpenOptions::new().write(true).create(true).truncate(true).custom_flags(libc::O_DIRECT).open(path)
    } else {
        File::create(path)
    };
    let file = opened.map_err(StorageError::io("create the segment", path))?;
    let mut chunk = AlignedBuf::zeroed(1 << 20);
    chunk.as_mut_slice()[..BLOCK].copy_from_slice(&header.encode());
    let mut at = 0;
    while at < header.size {
        let len = chunk.len().min((header.size - at) as usize);
        file.write_all_at(&chunk.as_slice()[..len], at).map_err(StorageError::io("write the segment", path))?;
        if at == 0 {
            chunk.as_mut_slice()[..BLOCK].fill(0);
        }
        at += len as u64;
    }
    file.sync_all().map_err(StorageError::io("sync the segment", path))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::{LogIo, LogSync};

    #[test]
    fn segments_are_zero_written_named_and_numbered() {
        let dir = tempfile::tempdir_in(".").unwrap();
        let mode = Mode { io: LogIo::Pwrite, sync: LogSync::Fdatasync, why: String::new() };
        let mut supply = Supply::start(dir.path(), &mode, 100_000, 5, Arc::new(|| ())).unwrap();
        supply.wait();
        let five = supply.take(4096).unwrap().unwrap();
        supply.wait();
        assert!(supply.take(1 << 20).unwrap().is_none(), "too small for a huge batch");
        supply.wait();
        let seven = supply.take(1 << 20).unwrap().unwrap();
        drop(supply);
        assert_eq!((five.header.number, seven.header.number), (5, 7));
        assert!(five.header.salt != seven.header.salt);
        let bytes = fs::read(&five.path).unwrap();
        assert_eq!(bytes.len(), round_up(100_000));
        assert_eq!(SegmentHeader::parse(&bytes), Ok(five.header));
        assert!(bytes[BLOCK..].iter().all(|byte| *byte == 0));
        let names: Vec<_> = list(dir.path()).unwrap().into_iter().map(|(number, _)| number).collect();
        assert!(names.starts_with(&[5, 6, 7]), "{names:?}");
    }
}
