//! Deleting large files without a stall: piece by piece.
//!
//! A file system that is mounted with `discard` tells the device about every block that it frees, and commits wait behind that.
//! Measured on ext4 and a virtio disk, deleting 190 MB at once held up writes to other files for 12 to 26 ms.
//!
//! **Invariants**: a file that is half gone never has its name; one that has another name, such as a copy that somebody made with
//! links, stays whole under that.

use super::files::Files;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// Bytes that are freed at a time.
const PIECE: u64 = 8 << 20;

/// Deletes the file at `path`. If that is broken off, what is left has a name that ends in `.new`, as other leftovers have.
///
/// # Errors
/// What the system answered.
pub fn remove(files: &dyn Files, path: &Path) -> io::Result<()> {
    let data = fs::metadata(path)?;
    let mut len = data.len();
    if len <= PIECE || data.nlink() > 1 {
        return files.remove(path);
    }
    let unnamed = path.with_extension("new");
    files.rename(path, &unnamed)?;
    files.sync_dir(path.parent().unwrap_or(path))?;
    let file = files.open(&unnamed, None)?;
    while len > PIECE {
        if file.metadata()?.nlink() > 1 {
            break;
        }
        len -= PIECE;
        files.set_len(&file, len)?;
        // Synced, so that the blocks are freed now and not all together with the next.
        files.sync(&file)?;
    }
    files.remove(&unnamed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::files::RealFiles;
    use std::fs::File;

    #[test]
    fn small_and_large_files_are_gone_and_others_are_not() {
        let dir = tempfile::tempdir_in(".").unwrap();
        let path = |name: &str| dir.path().join(name);
        for (name, len) in [("small", 1), ("piece", PIECE), ("large", 3 * PIECE + 1), ("kept", 5)] {
            File::create(path(name)).unwrap().set_len(len).unwrap();
        }
        ["small", "piece", "large"].iter().for_each(|name| remove(&RealFiles, &path(name)).unwrap());
        let left: Vec<_> = fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(left, ["kept"]);
        assert_eq!(remove(&RealFiles, &path("small")).unwrap_err().kind(), io::ErrorKind::NotFound);
    }

    /// It was shrunk under both names.
    #[test]
    fn what_has_another_name_stays_whole_under_that() {
        let dir = tempfile::tempdir_in(".").unwrap();
        let (path, copy) = (dir.path().join("large"), dir.path().join("copy"));
        File::create(&path).unwrap().set_len(2 * PIECE).unwrap();
        fs::hard_link(&path, &copy).unwrap();
        remove(&RealFiles, &path).unwrap();
        assert_eq!(copy.metadata().unwrap().len(), 2 * PIECE);
        assert!(!path.exists());
    }
}
