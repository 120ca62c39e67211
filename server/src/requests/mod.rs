//! What a write becomes: it is checked against the tree and everything before it that is still on its way ([`outstanding`]), turned into
//! a transaction that decides everything ([`sequencer`]), and, once it is committed and applied, answered ([`answer`]). In whose name it
//! is made: [`session`]; who that is: [`identity`], proved by a [`scheme`]; who may do what: [`acl`]. What goes by itself in the end: [`reaper`].
//!
//! **Not here**: zxids and quorums ([`crate::consensus`]), the log, connections.

pub mod acl;
pub mod answer;
pub mod identity;
pub mod outstanding;
pub mod reaper;
pub mod scheme;
pub mod sequencer;
pub mod session;

use crate::requests::identity::Identities;
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
    /// Who that is.
    pub who: &'a Identities,
    /// What the client calls it.
    pub xid: Xid,
    /// The operation; one for which [`goes_to_replica`] holds.
    pub op: corral_proto::OpCode,
    /// Its body, not looked at yet.
    pub body: &'a [u8],
    /// When it was read from its socket.
    pub since: Duration,
    /// Reads that are answered right before it is applied, each in a frame.
    pub reads: &'a [u8],
}

/// Reads that are answered right before a write of their connection is applied: they came before that write, and behind others that were
/// on their way.
#[derive(Clone, Debug)]
pub struct ReadsBefore {
    /// Who waits for the answers.
    pub conn: ConnId,
    /// In whose name.
    pub session: SessionId,
    /// Who that is.
    pub who: Identities,
    /// What they read, in order, each in a frame; at least one.
    pub frames: Box<[u8]>,
}

impl ReadsBefore {
    /// Those that go along with `request`, if any do.
    pub fn of(request: &WriteRequest<'_>) -> Option<ReadsBefore> {
        let WriteRequest { conn, session, who, reads, .. } = *request;
        (!reads.is_empty()).then(|| ReadsBefore { conn, session, who: who.clone(), frames: reads.into() })
    }
}

/// Bytes of answers that the reads before one write may make. Whoever asks for more is disconnected.
pub const READS_BEFORE_BYTES_MAX: usize = 16 << 20;

/// Whether the operation goes through the log.
pub const fn is_write(op: corral_proto::OpCode) -> bool {
    use corral_proto::OpCode::*;
    matches!(
        op,
        Create | Create2 | CreateContainer | CreateTtl | Delete | SetData | SetAcl | Multi | Reconfig | CloseSession
    )
}

/// Whether the replica answers it: every write, and `sync`, which waits for writes.
pub const fn goes_to_replica(op: corral_proto::OpCode) -> bool {
    is_write(op) || matches!(op, corral_proto::OpCode::Sync)
}
