//! Names that survive a crash, and small files that are there as a whole or not at all.
//!
//! The bytes are written under another name and synced, then the file gets its name, then the directory is synced: a crash at any moment
//! leaves the old contents or the new ones under the name, and a call that returns has made the new ones durable.

use crate::error::StorageError;
use std::fs::{self, File};
use std::io::Write;
use std::path::Path;

/// Makes the names in `dir` survive a crash.
///
/// # Errors
/// [`StorageError::Io`]; none of those that are new may survive.
pub fn sync_dir(dir: &Path) -> Result<(), StorageError> {
    File::open(dir).and_then(|file| file.sync_all()).map_err(StorageError::io("sync the directory", dir))
}

/// Makes `bytes` the contents of the file `name` in `dir`. What a crash leaves unfinished has a name that ends in `.new`.
///
/// # Errors
/// [`StorageError::Io`]; the old contents stay, or the new ones are there.
pub fn publish(dir: &Path, name: &str, bytes: &[u8]) -> Result<(), StorageError> {
    let (path, unnamed) = (dir.join(name), dir.join(format!("{name}.new")));
    let written = File::create(&unnamed).and_then(|mut file| {
        file.write_all(bytes)?;
        file.sync_all()
    });
    written.map_err(StorageError::io("write", &unnamed))?;
    fs::rename(&unnamed, &path).map_err(StorageError::io("replace", &path))?;
    sync_dir(dir)
}
