//! The transaction log: segments of batches of records, appended by group commit, read back at a restart.
//!
//! - [`mod@format`]: the bytes of a segment header, a batch and a record, and what makes them belong where they are.
//! - [`group`]: the open batch, and when it is cut.
//! - [`segment`]: files with names and salts, made ready ahead of need by a thread of their own.
//! - [`workshop`]: how they are made and let go, step by step, so that a power loss between any two does no harm.
//! - [`log`]: batches to disk writes, in order, and what is durable.
//! - [`reader`]: one segment, read back.
//! - [`recovery`]: where the log ends, and whether that end is a torn tail or damage.
//! - [`excerpt`]: some transactions of a log that is in use.
//!
//! `engine/README.md` has the format byte by byte and what is assumed of the disk.
//!
//! **Not here**: what is in a record ([`corral_proto::txn`]); when a transaction may be answered (the replica).

pub mod excerpt;
pub mod format;
pub mod group;
pub mod log;
pub mod options;
pub mod reader;
pub mod recovery;
pub mod segment;
pub mod supply;
pub mod workshop;

pub use excerpt::Excerpt;
pub use format::Position;
pub use group::{Group, SealedBatch};
pub use log::{Durable, Log};
pub use options::LogOptions;
pub use recovery::{LogRecord, Recovered, recover, recover_after};
