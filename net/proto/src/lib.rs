//! The words of the ZooKeeper protocols: what clients ask, what servers answer, what is logged, what members of an ensemble say
//! to each other.
//!
//! Plain data and codecs over byte slices. Decoding borrows: a [`Request`] or a [`Txn`] points into the frame or the
//! log record it was read from, and nothing is copied until somebody keeps it. Encoding is exact: every record knows
//! its [`Jute::encoded_len`] before a byte is written, so a caller can reserve its place in a log batch first.
//!
//! **Invariants**: no I/O, no clock, no allocation whose size comes from the wire without having been checked against
//! the bytes that are really there.
//!
//! **Not here**: framing limits and sockets (`corral-net`), what a request means (`corral-server`), files
//! (`corral-engine`).

pub mod ids;
pub mod jute;

pub mod acl;
pub mod body;
pub mod identity;
pub mod stat;

pub mod connect;
pub mod error;
pub mod event;
pub mod multi;
pub mod opcode;
pub mod request;
pub mod response;

pub mod txn;

pub mod peer;

pub use acl::{Acl, AclList};
pub use connect::{ConnectRequest, ConnectResponse};
pub use error::ErrorCode;
pub use event::{EventType, WatcherEvent};
pub use identity::IdList;
pub use ids::{ServerId, SessionId, TreeDigest, Xid, Zxid};
pub use jute::{Decoder, Jute, JuteError};
pub use multi::{MultiOp, MultiRequest, MultiResult};
pub use opcode::OpCode;
pub use request::{CreateMode, Request, RequestHeader};
pub use response::ReplyHeader;
pub use stat::{Stat, StatPersisted};
pub use txn::{SubTxns, Txn, TxnEntry, TxnHeader};
