//! Names that survive a crash, and small files that are there as a whole or not at all.
//!
//! The bytes are written under another name and synced, then the file gets its name, then the directory is synced: a crash at any moment
//! leaves the old contents or the new ones under the name, and a call that returns has made the new ones durable.

use super::files::Files;
use crate::error::StorageError;
use std::path::Path;

/// Makes the names in `dir` survive a crash.
///
/// # Errors
/// [`StorageError::Io`]; none of those that are new may survive.
pub fn sync_dir(files: &dyn Files, dir: &Path) -> Result<(), StorageError> {
    files.sync_dir(dir).map_err(StorageError::io("sync the directory", dir))
}

/// Makes a directory, if there is none, whose name survives a crash.
///
/// # Errors
/// [`StorageError::Io`].
pub fn make_dir(files: &dyn Files, path: &Path) -> Result<(), StorageError> {
    if !path.is_dir() {
        files.make_dir(path).map_err(StorageError::io("make the directory", path))?;
    }
    sync_dir(files, path.parent().unwrap_or(path))
}

/// Makes `bytes` the contents of the file `name` in `dir`. What a crash leaves unfinished has a name that ends in `.new`.
///
/// # Errors
/// [`StorageError::Io`]; the old contents stay, or the new ones are there.
pub fn publish(files: &dyn Files, dir: &Path, name: &str, bytes: &[u8]) -> Result<(), StorageError> {
    let (path, unnamed) = (dir.join(name), dir.join(format!("{name}.new")));
    let written = files.create(&unnamed, false).and_then(|file| {
        files.write(&file, bytes, 0)?;
        files.sync(&file)
    });
    written.map_err(StorageError::io("write", &unnamed))?;
    files.rename(&unnamed, &path).map_err(StorageError::io("replace", &path))?;
    sync_dir(files, dir)
}
