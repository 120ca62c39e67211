//! The files that are written to, each brought into its state, in a directory of their own that is removed at the end.
//!
//! Files whose blocks are written are made twice, once past the page cache and once through it, as the log makes its segments,
//! so that neither kind of cell meets the other's pages. They are made anew for each round; within a round the cells share
//! them, each going on where the last one ended and from the end back to the beginning. Files that grow, or that are only
//! allocated, are made for one cell.
//!
//! **Invariants**: nothing is left to be written when a cell ends (it would be the next one's burden); at most [`FILES`]
//! files are there at a time; the directory goes when [`Files`] goes, also after an interrupt.
//!
//! **Not here**: the writes that are measured.

use super::plan::{Cell, State};
use corral_engine::disk::aligned::AlignedBuf;
use corral_engine::disk::{BlockSize, LogIo, LogSync, Mode};
use rand::rngs::SmallRng;
use rand::{RngCore, SeedableRng};
use rustix::fs::{Advice, FallocateFlags, fadvise, fallocate, statvfs};
use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use tempfile::TempDir;

/// Zeroed and recycled, each direct and buffered, and the one of the moment that grows or is allocated.
const FILES: u64 = 5;
const FILE_BYTES_MIN: u64 = 4 << 20;
const CHUNK: usize = 1 << 20;
/// Where a cell may begin: the largest size that is measured, so that no write straddles two blocks of the disk because the
/// cell before it wrote smaller ones.
const CELL_ALIGN: u64 = 65_536;

/// A file that is ready to be written to.
#[derive(Debug)]
pub(crate) struct Target {
    /// Opened as the mode wants it.
    pub file: Arc<File>,
    path: PathBuf,
    state: State,
    at: u64,
    end: u64,
}

impl Target {
    /// Where the next write of `bytes` goes; none if a file that is not to be written over is full.
    pub(crate) fn take(&mut self, bytes: usize) -> Option<u64> {
        let bytes = bytes as u64;
        if self.at + bytes > self.end {
            if !self.state.is_written() {
                return None;
            }
            self.at = 0;
        }
        self.at += bytes;
        Some(self.at - bytes)
    }
}

/// A file whose blocks are written, and where the next cell goes on.
#[derive(Debug)]
struct Written {
    path: PathBuf,
    next: u64,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Files<'a> {
    dir: TempDir,
    bytes: u64,
    written: BTreeMap<(State, bool), Written>,
    random: SmallRng,
    stop: &'a AtomicBool,
}

impl<'a> Files<'a> {
    /// Makes the directory in `parent`, for files of `bytes` or as much less as the free space commands.
    pub(crate) fn make(parent: &Path, bytes: u64, seed: u64, stop: &'a AtomicBool) -> Result<Files<'a>, String> {
        let dir = tempfile::Builder::new()
            .prefix("corral-bench-probe-")
            .tempdir_in(parent)
            .map_err(|error| format!("cannot make a directory in {}: {error}", parent.display()))?;
        let space =
            statvfs(dir.path()).map_err(|error| format!("cannot see the space in {}: {error}", parent.display()))?;
        let bytes = file_bytes(space.f_bavail.saturating_mul(space.f_frsize), bytes)
            .map_err(|why| format!("{} {why}", parent.display()))?;
        Ok(Files { dir, bytes, written: BTreeMap::new(), random: SmallRng::seed_from_u64(seed), stop })
    }

    /// Where the files are.
    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// How long they are.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Forgets the written files, so that they are made anew, elsewhere on the disk.
    pub(crate) fn next_round(&mut self) {
        for written in std::mem::take(&mut self.written).into_values() {
            let _ = fs::remove_file(written.path);
        }
        self.settle();
    }

    /// A file for `cell`, in its state.
    pub(crate) fn target(&mut self, cell: &Cell) -> Result<Target, String> {
        let direct = cell.io == LogIo::UringDirect;
        let (path, at) = match cell.state {
            State::Grow | State::Prealloc => {
                let path = self.dir.path().join(cell.state.name());
                let file = File::create(&path).map_err(said("making the file"))?;
                if cell.state == State::Prealloc {
                    fallocate(&file, FallocateFlags::empty(), 0, self.bytes)
                        .map_err(|error| said("fallocate")(error.into()))?;
                }
                file.sync_all().map_err(said("fsync"))?;
                self.settle();
                (path, 0)
            }
            State::Zeroed | State::Recycled => self.written(cell.state, direct)?,
        };
        let file = mode(cell).open(&path).map_err(said(if direct { "O_DIRECT" } else { "opening the file" }))?;
        Ok(Target { file: Arc::new(file), path, state: cell.state, at, end: self.bytes })
    }

    /// A written file that nothing is left to be written of.
    pub(crate) fn clean(&mut self) -> Result<File, String> {
        let (path, _) = self.written(State::Zeroed, false)?;
        OpenOptions::new().write(true).open(&path).map_err(said("opening the file"))
    }

    /// Takes back what [`Files::target`] has given.
    pub(crate) fn put_back(&mut self, cell: &Cell, target: Target) {
        let Target { file, path, state, at, .. } = target;
        // A sync that fails here has failed in the cell, too, or will in the next one.
        let _ = file.sync_all();
        if state == State::Recycled {
            drop_cache(&file);
        }
        if let Some(written) = self.written.get_mut(&(state, cell.io == LogIo::UringDirect)) {
            written.next = at.next_multiple_of(CELL_ALIGN);
        } else {
            let _ = fs::remove_file(path);
            self.settle();
        }
    }

    fn written(&mut self, state: State, direct: bool) -> Result<(PathBuf, u64), String> {
        if let Some(written) = self.written.get(&(state, direct)) {
            return Ok((written.path.clone(), written.next));
        }
        let path = self.dir.path().join(format!("{}-{}", state.name(), if direct { "direct" } else { "buffered" }));
        self.fill(&path, state, direct).inspect_err(|_| drop(fs::remove_file(&path)))?;
        self.settle();
        self.written.insert((state, direct), Written { path: path.clone(), next: 0 });
        Ok((path, 0))
    }

    /// Writes a file from end to end, in large pieces, and syncs it.
    fn fill(&mut self, path: &Path, state: State, direct: bool) -> Result<(), String> {
        let io = if direct { LogIo::UringDirect } else { LogIo::Pwrite };
        let unnamed = path.with_extension("new");
        let first = if state == State::Recycled { unnamed.as_path() } else { path };
        let refused = if direct { "O_DIRECT" } else { "making the file" };
        File::create(first).map_err(said("making the file"))?;
        let file = Mode { io, sync: LogSync::None, block: BlockSize::MAX, why: String::new() }
            .open(first)
            .map_err(said(refused))?;
        let mut chunk = AlignedBuf::zeroed(CHUNK);
        if state == State::Recycled {
            self.random.fill_bytes(chunk.as_mut_slice());
        }
        let mut at = 0;
        while at < self.bytes {
            if self.stop.load(Relaxed) {
                return Err("interrupted".into());
            }
            let len = CHUNK.min((self.bytes - at) as usize);
            file.write_all_at(&chunk.as_slice()[..len], at).map_err(said("filling the file"))?;
            at += len as u64;
        }
        file.sync_all().map_err(said("fsync"))?;
        if state == State::Recycled {
            drop_cache(&file);
            fs::rename(first, path).map_err(said("renaming the file"))?;
        }
        Ok(())
    }

    /// Has the directory, and with it what the file system put off, written now and not inside the next cell.
    fn settle(&self) {
        let _ = File::open(self.dir.path()).and_then(|dir| dir.sync_all());
    }
}

/// A recycled segment was written long ago: its pages are not in memory any more.
fn drop_cache(file: &File) {
    let _ = fadvise(file, 0, None, Advice::DontNeed);
}

fn said(what: &'static str) -> impl FnOnce(io::Error) -> String {
    move |error| format!("{what}: {error}")
}

/// The mode of a cell, for the device.
pub(crate) fn mode(cell: &Cell) -> Mode {
    Mode { io: cell.io, sync: cell.sync, block: BlockSize::MAX, why: String::new() }
}

/// All files together take half of what is free at most: others may be using the disk.
fn file_bytes(free: u64, wanted: u64) -> Result<u64, String> {
    let mib = |bytes: u64| bytes >> 20;
    let room = free / 2 / FILES;
    if room < FILE_BYTES_MIN {
        let needed = mib(FILE_BYTES_MIN * FILES * 2);
        return Err(format!("has {} MiB free; the probe needs {needed} MiB, half of which it uses", mib(free)));
    }
    Ok(wanted.min(room / CHUNK as u64 * CHUNK as u64))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::probe::plan::STATES;
    use std::os::unix::fs::MetadataExt;

    #[test]
    fn the_files_are_as_large_as_the_disk_allows() {
        let mib = 1 << 20;
        assert_eq!(file_bytes(10_000 * mib, 64 * mib), Ok(64 * mib));
        assert_eq!(file_bytes(105 * mib, 64 * mib), Ok(10 * mib));
        assert_eq!(file_bytes(40 * mib, 64 * mib), Ok(4 * mib));
        let why = file_bytes(39 * mib, 64 * mib).unwrap_err();
        assert_eq!(why, "has 39 MiB free; the probe needs 40 MiB, half of which it uses");
    }

    #[test]
    fn each_state_is_what_it_says_and_nothing_is_left_behind() {
        let parent = tempfile::tempdir_in(".").unwrap();
        let stop = AtomicBool::new(false);
        let mut files = Files::make(parent.path(), 1 << 20, 1, &stop).unwrap();
        files.bytes = 1 << 20;
        for state in STATES {
            let cell = Cell { state, ..Cell::baseline(4096) };
            let mut target = files.target(&cell).unwrap();
            let found = fs::metadata(&target.path).unwrap();
            let length = if state == State::Grow { 0 } else { 1 << 20 };
            assert_eq!((found.len(), found.blocks() * 512 >= length), (length, true), "{state:?}");
            let bytes = fs::read(&target.path).unwrap();
            assert_eq!(bytes.iter().any(|byte| *byte != 0), state == State::Recycled, "{state:?}");
            let places: Vec<_> = (0..257).map(|_| target.take(4096)).collect();
            let last = state.is_written().then_some(0);
            assert_eq!((places[0], places[255], places[256]), (Some(0), Some(255 * 4096), last), "{state:?}");
            files.put_back(&cell, target);
        }
        let cell = Cell { state: State::Zeroed, ..Cell::baseline(4096) };
        assert_eq!(files.target(&cell).unwrap().take(4096), Some(65_536), "goes on where the last cell ended, aligned");
        assert_eq!(fs::read_dir(files.dir()).unwrap().count(), 2, "the written ones are kept");
        files.next_round();
        assert_eq!(files.target(&cell).unwrap().take(4096), Some(0), "made anew");
        stop.store(true, Relaxed);
        files.next_round();
        assert_eq!(files.target(&cell).unwrap_err(), "interrupted");
        drop(files);
        assert_eq!(fs::read_dir(parent.path()).unwrap().count(), 0);
    }
}
