//! What can go wrong with files, in the operator's words: one line with what, where, and what to do.

use std::io;
use std::path::{Path, PathBuf};

/// Why the store cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum StorageError {
    /// A call to the operating system failed.
    #[error("cannot {op} {}: {source}", path.display())]
    Io {
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
    pub(crate) fn io(op: &'static str, path: &Path) -> impl FnOnce(io::Error) -> StorageError {
        move |source| StorageError::Io { op, path: path.to_owned(), source }
    }
}
