//! What survives a restart: the transaction log, and the tree that its transactions build.
//!
//! A write's way through this crate: its transaction is encoded once, into the open batch ([`txnlog::Group`]); the batch
//! is sealed and written with one call to the disk ([`txnlog::Log`]); when that write is durable, and only then, the
//! replica may count it, and its transaction is applied to the [`tree::Tree`]. A restart reads the log from its beginning
//! ([`txnlog::recover`]) and applies it again.
//!
//! **Invariants**: a record counts as durable only when it and every record before it are; a failed write or sync is final;
//! unsafe code lives in [`disk`] only.
//!
//! **Not here**: sockets, the connections of sessions, peers, and what a client may do.

pub mod error;
pub mod histogram;

pub mod disk;
pub mod txnlog;

pub mod tree;

pub mod snapshot;

pub mod adoption;
pub mod epochs;
pub mod identity;
pub mod restore;
pub mod truncation;

pub use error::StorageError;
pub use tree::Tree;
