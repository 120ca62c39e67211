//! What the replica has for the workers: answers, opened sessions, connections to close, and what changed in the tree.
//!
//! One [`Delivery`] a worker and a step, not one a message: answers are encoded one after the other into one buffer, and the
//! changes are shared by all workers.
//!
//! **Invariants**: a delivery is queued before the tree's lock is given back to readers, so a worker that reads the tree finds
//! in its queue everything that led to what it reads; answers and changes are each in the order of their zxids.

use crate::requests::session::ConnId;
use corral_engine::tree::Change;
use corral_proto::{OpCode, SessionId, Xid, Zxid};
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

/// For one worker.
#[derive(Debug, Default)]
pub struct Delivery {
    /// What happened to the tree, if this worker watches any of it.
    pub changes: Option<Arc<[Change]>>,
    /// What connections of this worker are told, in order.
    pub items: Vec<Item>,
    /// The encoded answers that [`Item::Answer`]s point into.
    pub bytes: Vec<u8>,
    /// When what it tells of was in the tree, since the server's start.
    pub applied: Duration,
}

/// For one connection, or all.
#[derive(Debug)]
pub enum Item {
    /// The answer to a request.
    Answer {
        /// Who asked.
        conn: ConnId,
        /// What for.
        xid: Xid,
        /// Which operation it was.
        op: OpCode,
        /// The transaction that it became; its answer comes after every event of earlier ones and of its own.
        zxid: Zxid,
        /// Where in [`Delivery::bytes`] the frame is, its length included.
        frame: Range<usize>,
        /// True for the last answer that the connection gets: its session was closed.
        last: bool,
    },
    /// A session was opened or renewed, or (`None`) there is no such session.
    Session {
        /// Who shook hands.
        conn: ConnId,
        /// The session and its timeout in ms.
        opened: Option<(SessionId, i32)>,
    },
    /// The connection no longer speaks for its session: close it, without a word.
    Close {
        /// Which one.
        conn: ConnId,
    },
    /// Nobody is served here for now: all connections that have a session, or want one, are closed.
    CloseAll,
}

impl Delivery {
    /// True when there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.items.is_empty() && self.changes.is_none()
    }
}
