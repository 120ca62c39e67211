//! What can go wrong with files, in the operator's words: one line with what, where, and what to do.
//!
//! What is *damaged* ([`StorageError::Corrupt`]) is told from what a *newer* version has written, from what is *unavailable* for now
//! ([`StorageError::Io`]: the device, permissions, descriptors) and from a disk that is *full*. Only for what is damaged does anybody
//! pass over a file or give up a history.

use std::io;
use std::path::{Path, PathBuf};

/// Why the store cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum StorageError {
    /// A call to the operating system failed: what is there cannot be reached now.
    #[error("cannot {op} {}: {source}", path.display())]
    Io {
        /// What was tried, as a verb.
        op: &'static str,
        /// On which file or directory.
        path: PathBuf,
        /// What the system answered.
        source: io::Error,
    },
    /// There is no room, or no more of a quota. Nothing is lost, and it works again when there is.
    #[error("cannot {op} {}: {source}; make room there", path.display())]
    Full {
        /// What was tried, as a verb.
        op: &'static str,
        /// On which file or directory.
        path: PathBuf,
        /// What the system answered.
        source: io::Error,
    },
    /// What is on the disk is not what was acknowledged. Serving without it would silently lose writes.
    #[error(
        "{} is damaged at offset {offset}: {why}; nothing was changed. Restore the directory from a copy, or move it away \
         to start empty",
        file.display()
    )]
    Corrupt {
        /// The damaged file.
        file: PathBuf,
        /// Where in it, in bytes.
        offset: u64,
        /// What is wrong there.
        why: String,
    },
    /// A newer version of this program has written it. It is not damaged, and nothing may be given up or passed over for it.
    #[error(
        "{} has format version {version}, which this version does not know; nothing was changed. Start the version that wrote it, or a \
         newer one",
        file.display()
    )]
    Newer {
        /// The file.
        file: PathBuf,
        /// The version of its format.
        version: u32,
    },
    /// The directory is in use, or holds something that must not be touched.
    #[error("{}: {why}", path.display())]
    Refused {
        /// Which directory or file.
        path: PathBuf,
        /// Why, and what to do.
        why: String,
    },
    /// A write or sync of the log failed before; nothing is acknowledged after that.
    #[error("the log {} failed before and takes no more writes; restart the server once the disk is well", path.display())]
    Poisoned {
        /// The file whose write or sync failed.
        path: PathBuf,
    },
}

impl StorageError {
    /// Turns the answer of the operating system into an error about `path`.
    pub fn io(op: &'static str, path: &Path) -> impl Fn(io::Error) -> StorageError + Copy {
        move |source| {
            let path = path.to_owned();
            match source.kind() {
                io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => StorageError::Full { op, path, source },
                _ => StorageError::Io { op, path, source },
            }
        }
    }
}
