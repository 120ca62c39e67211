//! What a log falls into when it is looked at without any trust: stretches of batches, and single broken ones.
//!
//! **Not here**: which of them are history ([`super::survey`]).

use super::walk::Link;
use corral_engine::txnlog::Position;
use corral_proto::Zxid;

/// A stretch of batches without a gap, or one batch with broken records.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Piece {
    /// Where its first batch stands.
    pub at: Position,
    /// The batch before that.
    pub prev: Link,
    /// Its last batch.
    pub end: Link,
    /// In which segments it lies.
    pub segments: Vec<u32>,
    /// Its first transaction.
    pub first: Zxid,
    /// Its last transaction.
    pub last: Zxid,
    /// The last transaction before it, whether that can be read or not.
    pub prev_last: Zxid,
    /// How many batches it has.
    pub batches: u64,
    /// How many of its transactions can be read.
    pub records: u64,
    /// What is wrong, if it is a broken batch.
    pub broken: Option<Broken>,
    pub(super) claim: Position,
    /// A later life went on after the same batch: this came too late to be history.
    pub(super) late: bool,
}

/// A batch of which not all records can be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Broken {
    /// Where in the segment, in bytes.
    pub offset: u64,
    /// What is wrong there.
    pub why: String,
    /// How many transactions it held.
    pub count: u64,
    pub(super) as_written: bool,
}
