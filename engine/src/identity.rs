//! Whose history a directory belongs to: a random number, the same in the directory of the log, in the one of its segments, and in that of
//! the snapshots.
//!
//! A disk that is not mounted looks like an empty directory, and two disks that were swapped like a server's own. The number tells: it
//! was in both directories before anything was acknowledged, so a directory without it, or with another, is not the one that it was.
//!
//! **Invariant**: the directories of the log have it first. A crash before the other has it leaves it there alone.
//!
//! **Not here**: what a server does about it.

use crate::disk::files::Files;
use crate::disk::publish::publish;
use crate::error::StorageError;
use std::fmt;
use std::fs;
use std::io::ErrorKind;
use std::path::Path;

/// Its name in a directory.
pub const FILE: &str = "corral-identity";

/// The number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity(pub u64);

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl Identity {
    /// What `dir` says; `None` if it says nothing.
    ///
    /// # Errors
    /// [`StorageError::Corrupt`] when the file does not check out; [`StorageError::Io`].
    pub fn read(dir: &Path) -> Result<Option<Identity>, StorageError> {
        let path = dir.join(FILE);
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(StorageError::Io { op: "read", path, source }),
        };
        let text = String::from_utf8_lossy(&bytes);
        let number = text.lines().next().and_then(|line| u64::from_str_radix(line.strip_prefix("history=")?, 16).ok());
        match number.map(Identity).filter(|identity| identity.text() == text) {
            Some(identity) => Ok(Some(identity)),
            None => {
                Err(StorageError::Corrupt { file: path, offset: 0, why: "this is no identity of a history".into() })
            }
        }
    }

    /// Writes it into `dir`.
    ///
    /// # Errors
    /// [`StorageError::Io`].
    pub fn write(self, files: &dyn Files, dir: &Path) -> Result<(), StorageError> {
        publish(files, dir, FILE, self.text().as_bytes())
    }

    fn text(self) -> String {
        let number = format!("history={self}\n");
        format!("{number}crc32c={:08x}\n", crc32c::crc32c(number.as_bytes()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::files::RealFiles;

    #[test]
    fn what_was_written_is_read_and_every_damaged_byte_is_found() {
        let dir = tempfile::tempdir_in(".").unwrap();
        assert_eq!(Identity::read(dir.path()).unwrap(), None);
        for number in [7, u64::MAX] {
            Identity(number).write(&RealFiles, dir.path()).unwrap();
            assert_eq!(Identity::read(dir.path()).unwrap(), Some(Identity(number)));
        }
        let path = dir.path().join(FILE);
        let good = fs::read(&path).unwrap();
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 1;
            fs::write(&path, &bad).unwrap();
            assert!(matches!(Identity::read(dir.path()), Err(StorageError::Corrupt { .. })), "byte {at}");
        }
    }
}
