//! What a write becomes: it is checked against the tree and everything before it that is still on its way ([`outstanding`]), turned into
//! a transaction that decides everything ([`sequencer`]), and, once it is committed and applied, answered ([`answer`]). In whose name it
//! is made: [`session`]; who may do what: [`acl`].
//!
//! **Not here**: zxids and quorums ([`crate::consensus`]), the log, connections.

pub mod acl;
pub mod answer;
pub mod outstanding;
pub mod sequencer;
pub mod session;

use crate::requests::session::ConnId;
use corral_proto::{SessionId, Xid};
use std::time::Duration;

/// A request of a client that changes something (or closes its session), as a worker hands it to the replica.
#[derive(Clone, Copy, Debug)]
pub struct WriteRequest<'a> {
    /// Who waits for the answer.
    pub conn: ConnId,
    /// In whose name.
    pub session: SessionId,
    /// What the client calls it.
    pub xid: Xid,
    /// The operation; one for which [`goes_to_replica`] holds.
    pub op: corral_proto::OpCode,
    /// Its body, not looked at yet.
    pub body: &'a [u8],
    /// When it was read from its socket.
    pub since: Duration,
}

/// A read that is answered right before a write of its connection is applied: it came before that write, and behind others that were on
/// their way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReadBefore {
    /// What the client calls it.
    pub xid: Xid,
    /// The operation.
    pub op: corral_proto::OpCode,
    /// The request, its header included.
    pub frame: Box<[u8]>,
}

/// Bytes of answers that the reads before one write may make. Whoever asks for more is disconnected.
pub const READS_BEFORE_BYTES_MAX: usize = 16 << 20;

/// Whether the operation goes through the log.
pub const fn is_write(op: corral_proto::OpCode) -> bool {
    use corral_proto::OpCode::*;
    matches!(op, Create | Create2 | Delete | SetData | SetAcl | Multi | CloseSession)
}

/// Whether the replica answers it: every write, and `sync`, which waits for writes.
pub const fn goes_to_replica(op: corral_proto::OpCode) -> bool {
    is_write(op) || matches!(op, corral_proto::OpCode::Sync)
}
