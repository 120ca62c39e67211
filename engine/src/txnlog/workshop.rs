//! How segments are made, used again and deleted: the order of writes, syncs and names that a power loss cannot break.
//!
//! **Invariants**: contents are synced before they get a name that recovery looks at; the directory is synced before a segment
//! is handed out; nothing is built on what recovery has read before that is synced ([`Workshop::adopt`]).
//!
//! **Not here**: when a segment is made, and the thread that does it ([`super::supply`]).

use super::format::{FIRST_BATCH, Position, SegmentHeader};
use super::options::LogOptions;
use super::recovery::Recovered;
use super::segment::{Segment, closed_name, file_name, parse_name};
use crate::disk::aligned::AlignedBuf;
use crate::disk::files::Files;
use crate::disk::publish::sync_dir;
use crate::disk::{LogIo, Mode, removal, round_up};
use crate::error::StorageError;
use rand::Rng;
use rand::rngs::SmallRng;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A first segment is never made smaller than this.
const SMALL_MIN: u64 = 256 << 10;

/// Spares that are kept; more are deleted.
const SPARES_MAX: usize = 2;

/// Makes the segments in one directory.
pub struct Workshop {
    dir: PathBuf,
    files: Arc<dyn Files>,
    mode: Mode,
    salts: SmallRng,
    spares: Vec<PathBuf>,
    /// The first segment may be smaller than asked for, if there is not more room: a server that cannot start cannot make room either.
    may_be_small: bool,
}

impl Workshop {
    /// For the segments of a log; each gets a salt out of `salts`. The spares that an earlier life left are used again.
    pub fn new(options: &LogOptions, salts: SmallRng) -> Workshop {
        let dir = &options.dir;
        let is_spare =
            |path: &PathBuf| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("spare-"));
        let entries = fs::read_dir(dir).into_iter().flatten().flatten();
        let mut spares: Vec<_> = entries.map(|entry| entry.path()).filter(is_spare).collect();
        spares.sort();
        Workshop {
            dir: dir.clone(),
            files: options.files.clone(),
            mode: options.mode.clone(),
            salts,
            spares,
            may_be_small: true,
        }
    }

    /// Makes durable what recovery has found, and deletes what it found useless.
    pub fn adopt(&mut self, recovered: &Recovered) -> Result<(), StorageError> {
        // Recovery may have read what was written but not yet durable when the process died. It is served from now on, and new
        // batches name it as their predecessor, so it must not be lost to a power failure any more.
        for (path, _) in &recovered.used {
            let synced = File::open(path).and_then(|file| self.files.sync(&file));
            synced.map_err(StorageError::io("sync the segment", path))?;
        }
        for path in &recovered.unused {
            self.remove(path).map_err(StorageError::io("delete the unused segment", path))?;
        }
        Ok(())
    }

    /// Adopts what was recovered and closes its last segment: what a new life does before it appends anything.
    pub fn resume(&mut self, recovered: &mut Recovered) -> Result<(), StorageError> {
        self.adopt(recovered)?;
        self.close(recovered)
    }

    /// Closes the segment in which recovery has found the end, which is durable and never appended to again: it gets a name that says
    /// where it ends, and the room behind that is given back. `recovered` has the new name then.
    pub fn close(&mut self, recovered: &mut Recovered) -> Result<(), StorageError> {
        let Position { segment, offset } = recovered.end;
        let Some((path, _)) = recovered.used.last_mut() else { return Ok(()) };
        if parse_name(path).is_none_or(|(number, _)| number != segment) {
            return Ok(());
        }
        let closed = self.dir.join(closed_name(segment, offset));
        if *path != closed {
            self.files.rename(path, &closed).map_err(StorageError::io("close the segment", path))?;
            *path = closed.clone();
        }
        // The name first: a shorter file without it would be a damaged one.
        sync_dir(&*self.files, &self.dir)?;
        let shrunk = self.files.open(&closed, None).and_then(|file| {
            // Of a block that it keeps a part of, a file system zeros the rest, and so writes again what was acknowledged.
            self.files.set_len(&file, round_up(offset as usize) as u64)?;
            self.files.sync(&file)
        });
        shrunk.map_err(StorageError::io("give back the end of", &closed))
    }

    /// Takes the names of segments that nobody needs any more, and keeps a few of the files. Oldest first, each for good before
    /// the next: a power loss must not leave an older segment without the newer ones that lead on from it.
    pub fn release(&mut self, recycle: Vec<PathBuf>, delete: Vec<PathBuf>) {
        let inherited = delete.into_iter().map(|path| (path, false));
        for (path, may_be_kept) in inherited.chain(recycle.into_iter().map(|path| (path, true))) {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let spare = self.dir.join(format!("spare-{name}"));
            let kept = may_be_kept && self.spares.len() < SPARES_MAX && self.files.rename(&path, &spare).is_ok();
            if kept {
                self.spares.push(spare);
            } else if let Err(error) = self.remove(&path) {
                let path = path.display();
                tracing::warn!("cannot delete the log segment {path}, which is not needed any more: {error}");
            }
            if let Err(error) = sync_dir(&*self.files, &self.dir) {
                tracing::warn!("{error}");
            }
        }
    }

    /// A segment that is ready to be appended to: out of a spare of the right size, or a new file. If there is no room for that,
    /// the spares of other sizes make some.
    pub fn make(&mut self, number: u32, size: u64) -> Result<Segment, StorageError> {
        let made = self.make_of(number, size);
        let is_full = matches!(made, Err(StorageError::Full { .. }));
        if is_full && self.may_be_small && size > SMALL_MIN {
            return self.make(number, round_up((size / 2).max(SMALL_MIN) as usize) as u64);
        }
        self.may_be_small &= made.is_err();
        made
    }

    fn make_of(&mut self, number: u32, size: u64) -> Result<Segment, StorageError> {
        let path = self.dir.join(file_name(number));
        let unnamed = self.dir.join(format!("{}.new", file_name(number)));
        let header = SegmentHeader { number, salt: self.salts.random(), size, block: self.mode.block };
        let mut written = self.reuse(&header, &unnamed).map_or_else(|| self.write_out(&header, &unnamed), Ok);
        if written.is_err() && !self.spares.is_empty() {
            let spares = std::mem::take(&mut self.spares);
            spares.iter().for_each(|spare| drop(self.remove(spare)));
            written = self.write_out(&header, &unnamed);
        }
        let made = written.and_then(|()| {
            self.files.rename(&unnamed, &path).map_err(StorageError::io("name the segment", &path))?;
            sync_dir(&*self.files, &self.dir)?;
            self.files.open(&path, Some(&self.mode)).map_err(StorageError::io("open the segment", &path))
        });
        match made {
            Ok(file) => Ok(Segment { header, path, file: Arc::new(file) }),
            Err(error) => {
                // It may have its name already, which a next one would not have.
                let _ = self.remove(&unnamed);
                let _ = self.remove(&path);
                Err(error)
            }
        }
    }

    /// Gives a spare of the right size a new header. Not possible: no spare, and nothing lost.
    fn reuse(&mut self, header: &SegmentHeader, unnamed: &Path) -> Option<()> {
        // One that has another name is a copy that somebody made with links.
        let fits = |path: &PathBuf| fs::metadata(path).is_ok_and(|data| data.len() == header.size && data.nlink() == 1);
        let spare = self.spares.swap_remove(self.spares.iter().position(fits)?);
        self.files.rename(&spare, unnamed).ok()?;
        let file = self.files.open(unnamed, Some(&self.mode)).ok()?;
        let mut block = AlignedBuf::zeroed(FIRST_BATCH as usize);
        block.as_mut_slice().copy_from_slice(&header.encode());
        self.files.write(&file, block.as_slice(), 0).ok()?;
        self.files.sync(&file).ok()
    }

    fn write_out(&mut self, header: &SegmentHeader, path: &Path) -> Result<(), StorageError> {
        let file = self.fill(header, path).map_err(StorageError::io("write the segment", path))?;
        self.files.sync(&file).map_err(StorageError::io("sync the segment", path))
    }

    /// Zeros in large writes, to be synced once: syncing each would take as long as the disk's latency times them. Where there
    /// is not enough room nothing is written: filling up a disk over and over would take the last of it from everybody else.
    fn fill(&self, header: &SegmentHeader, path: &Path) -> io::Result<File> {
        if self.files.room(&self.dir)? < header.size {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let file = self.files.create(path, self.mode.io == LogIo::UringDirect)?;
        let mut chunk = AlignedBuf::zeroed((1 << 20).min(header.size as usize));
        chunk.as_mut_slice()[..FIRST_BATCH as usize].copy_from_slice(&header.encode());
        let mut at = 0;
        while at < header.size {
            let len = chunk.len().min((header.size - at) as usize);
            self.files.write(&file, &chunk.as_slice()[..len], at)?;
            if at == 0 {
                chunk.as_mut_slice()[..FIRST_BATCH as usize].fill(0);
            }
            at += len as u64;
        }
        Ok(file)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        removal::remove(&*self.files, path)
    }
}
