//! What members of an ensemble say to each other: votes on the election connections, packets on the link between a learner and
//! its leader. Byte for byte what Apache ZooKeeper 3.8 and 3.9 say (`QuorumCnxManager`, `FastLeaderElection`, `QuorumPacket`).
//!
//! Neither stream has an outer frame that fits all of it: the greeting of an election connection and the packets of a learner
//! link end where their last field ends. So those are read with `parse`, which says how many bytes it used, or that more are
//! needed.
//!
//! **Not here**: what a member does when it hears one of these (the replica), sockets.

pub mod hello;
pub mod learner;
pub mod packet;
pub mod snapshot;
pub mod vote;

pub use hello::Hello;
pub use packet::{Packet, PacketKind};
pub use vote::{Notification, PeerState, Vote};

use crate::jute::JuteError;

/// What came of reading from a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parsed<T> {
    /// There is a whole one, of so many bytes.
    Whole(T, usize),
    /// More bytes are needed.
    Short,
}

impl<T> Parsed<T> {
    /// Of a decoder that stands on all bytes that have come so far: what was announced beyond them may still come.
    fn of(result: Result<(T, usize), JuteError>) -> Result<Parsed<T>, JuteError> {
        match result {
            Ok((value, used)) => Ok(Parsed::Whole(value, used)),
            Err(JuteError::Truncated { .. }) => Ok(Parsed::Short),
            Err(error) => Err(error),
        }
    }
}
