//! The two ways from a worker to the replica: a call where both live on one core, a queue from everywhere else.

use super::Shared;
use crate::pipeline::WriteRequest;
use crate::replica::{Now, Replica};
use crate::session::ConnId;
use crate::worker::Port;
use corral_engine::Tree;
use corral_engine::txnlog::Group;
use corral_proto::{OpCode, SessionId, Xid};
use std::sync::atomic::Ordering;

/// On the replica's own core: no hand-off, no copy.
pub(super) struct Direct<'a> {
    pub(super) replica: &'a mut Replica,
    pub(super) log: &'a mut Group,
    pub(super) now: Now,
}

impl Port for Direct<'_> {
    fn write(&mut self, tree: &Tree, request: &WriteRequest<'_>) -> bool {
        self.replica.request(tree, self.log, self.now, request);
        true
    }

    fn open_session(&mut self, conn: ConnId, timeout_ms: i32) -> bool {
        self.replica.open_session(self.log, self.now, conn, timeout_ms);
        true
    }

    fn renew_session(&mut self, conn: ConnId, id: SessionId, password: &[u8], timeout_ms: i32) -> bool {
        self.replica.renew_session(self.now, conn, id, password, timeout_ms);
        true
    }
}

/// A longer password is wrong, and is not carried around: one byte more than the right one has says as much.
const PASSWORD_BYTES: usize = 17;

/// From another core.
pub(super) struct Queue<'a>(pub(super) &'a Shared);

impl Queue<'_> {
    fn push(&self, message: ToReplica) -> bool {
        let mut refused = self.0.inbox.push(message).err();
        if let Some(message) = refused.take() {
            // Said before trying again: whoever makes room after that rings.
            self.0.inbox_waits.store(true, Ordering::SeqCst);
            refused = self.0.inbox.push(message).err();
        }
        self.0.lines[0].bell.ring();
        refused.is_none()
    }
}

impl Port for Queue<'_> {
    fn write(&mut self, _tree: &Tree, request: &WriteRequest<'_>) -> bool {
        let WriteRequest { conn, session, xid, op, body } = *request;
        self.push(ToReplica::Write { conn, session, xid, op, body: body.into() })
    }

    fn open_session(&mut self, conn: ConnId, timeout_ms: i32) -> bool {
        self.push(ToReplica::Open { conn, timeout_ms })
    }

    fn renew_session(&mut self, conn: ConnId, id: SessionId, password: &[u8], timeout_ms: i32) -> bool {
        self.push(ToReplica::Renew {
            conn,
            id,
            password: password[..password.len().min(PASSWORD_BYTES)].into(),
            timeout_ms,
        })
    }
}

/// Whichever of the two a core has.
pub(super) enum Way<'a> {
    Direct(Direct<'a>),
    Queue(Queue<'a>),
}

impl Port for Way<'_> {
    fn write(&mut self, tree: &Tree, request: &WriteRequest<'_>) -> bool {
        match self {
            Way::Direct(direct) => direct.write(tree, request),
            Way::Queue(queue) => queue.write(tree, request),
        }
    }

    fn open_session(&mut self, conn: ConnId, timeout_ms: i32) -> bool {
        match self {
            Way::Direct(direct) => direct.open_session(conn, timeout_ms),
            Way::Queue(queue) => queue.open_session(conn, timeout_ms),
        }
    }

    fn renew_session(&mut self, conn: ConnId, id: SessionId, password: &[u8], timeout_ms: i32) -> bool {
        match self {
            Way::Direct(direct) => direct.renew_session(conn, id, password, timeout_ms),
            Way::Queue(queue) => queue.renew_session(conn, id, password, timeout_ms),
        }
    }
}

/// What goes through the queue.
pub(super) enum ToReplica {
    Write { conn: ConnId, session: SessionId, xid: Xid, op: OpCode, body: Box<[u8]> },
    Open { conn: ConnId, timeout_ms: i32 },
    Renew { conn: ConnId, id: SessionId, password: Box<[u8]>, timeout_ms: i32 },
    Heard(Vec<SessionId>),
}

impl ToReplica {
    /// Arrives.
    pub(super) fn deliver(self, tree: &Tree, direct: &mut Direct<'_>) {
        match self {
            ToReplica::Write { conn, session, xid, op, body } => {
                direct.write(tree, &WriteRequest { conn, session, xid, op, body: &body });
            }
            ToReplica::Open { conn, timeout_ms } => {
                direct.open_session(conn, timeout_ms);
            }
            ToReplica::Renew { conn, id, password, timeout_ms } => {
                direct.renew_session(conn, id, &password, timeout_ms);
            }
            ToReplica::Heard(sessions) => direct.replica.touch(&sessions, direct.now.uptime),
        }
    }
}
