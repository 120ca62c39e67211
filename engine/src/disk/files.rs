//! The one way in which files that must survive get their contents and their names.
//!
//! Everything that a power loss could undo goes through [`Files`]: segments, snapshots, epochs, identities, and the directories that
//! hold them are made, written, named, linked and deleted here, on a real file system ([`RealFiles`]) or on a simulated disk that
//! loses whatever was not synced. Reading needs no way of its own.
//!
//! **Invariant**: nothing is durable before a sync: contents after [`Files::sync`], names after [`Files::sync_dir`].
//!
//! **Not here**: the orders of steps that survive a crash ([`super::publish`], [`super::removal`], and whoever uses them); the writes
//! of a log ([`super::Disk`]).

use super::Mode;
use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Arc;

/// What is done to files and names. Paths are absolute, or all relative to the same place.
pub trait Files: fmt::Debug + Send + Sync {
    /// Makes an empty file, in place of any other of that name. `is_direct`: what is written to it goes past the page cache.
    fn create(&self, path: &Path, is_direct: bool) -> io::Result<File>;

    /// Opens a file for writes, in the way of a log if that is said.
    fn open(&self, path: &Path, mode: Option<&Mode>) -> io::Result<File>;

    /// Writes all of `bytes` at an offset.
    fn write(&self, file: &File, bytes: &[u8], at: u64) -> io::Result<()>;

    /// Cuts a file off, or makes it longer with zeros.
    fn set_len(&self, file: &File, len: u64) -> io::Result<()>;

    /// Makes what can be read of a file durable.
    fn sync(&self, file: &File) -> io::Result<()>;

    /// Gives a file or a directory another name, in place of a file that has it.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Gives a file one more name.
    fn link(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Takes a file's name away, and frees it if that was the last.
    fn remove(&self, path: &Path) -> io::Result<()>;

    /// Makes a directory.
    fn make_dir(&self, path: &Path) -> io::Result<()>;

    /// Makes the names in a directory durable.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;

    /// Bytes that can be written to new files in a directory.
    fn room(&self, dir: &Path) -> io::Result<u64>;
}

/// Those of the system.
#[derive(Debug)]
pub struct RealFiles;

/// [`RealFiles`], to be shared.
pub fn real() -> Arc<dyn Files> {
    Arc::new(RealFiles)
}

impl Files for RealFiles {
    fn create(&self, path: &Path, is_direct: bool) -> io::Result<File> {
        let mut open = OpenOptions::new();
        open.write(true).create(true).truncate(true);
        if is_direct {
            open.custom_flags(libc::O_DIRECT);
        }
        open.open(path)
    }

    fn open(&self, path: &Path, mode: Option<&Mode>) -> io::Result<File> {
        match mode {
            Some(mode) => mode.open(path),
            None => File::options().write(true).open(path),
        }
    }

    fn write(&self, file: &File, bytes: &[u8], at: u64) -> io::Result<()> {
        file.write_all_at(bytes, at)
    }

    fn set_len(&self, file: &File, len: u64) -> io::Result<()> {
        file.set_len(len)
    }

    fn sync(&self, file: &File) -> io::Result<()> {
        file.sync_all()
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::hard_link(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn make_dir(&self, path: &Path) -> io::Result<()> {
        fs::create_dir(path)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        File::open(dir)?.sync_all()
    }

    fn room(&self, dir: &Path) -> io::Result<u64> {
        let system = rustix::fs::statvfs(dir)?;
        Ok(system.f_bavail.saturating_mul(system.f_frsize))
    }
}
