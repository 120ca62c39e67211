//! What members send each other over the link between a learner and its leader, as the machines that decide hand it out.
//!
//! **Not here**: bytes on the wire ([`corral_proto::peer::packet`]); links, which keep the order of what is sent.

use bytes::Bytes;
use corral_proto::Zxid;
use corral_proto::peer::PacketKind;

/// A packet on its way. The data of a proposal is a slice of the very memory that the log writes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Message {
    /// What it is for.
    pub kind: PacketKind,
    /// What it is about.
    pub zxid: Zxid,
    /// What it carries.
    pub data: Option<Bytes>,
    /// Whose request is forwarded: an encoded [`corral_proto::IdList`]. Nothing here looks inside.
    pub auth: Option<Bytes>,
    /// Bytes of memory that keeping the data keeps: a slice of a batch has its share of header and padding.
    pub held: usize,
}

impl Message {
    /// As it was received: whatever it carries has memory of its own.
    pub fn new(kind: PacketKind, zxid: Zxid, data: Option<Bytes>) -> Message {
        let held = data.as_ref().map_or(0, Bytes::len);
        Message { kind, zxid, data, auth: None, held }
    }

    /// About nothing but a transaction, or an epoch's beginning.
    pub fn about(kind: PacketKind, zxid: Zxid) -> Message {
        Message::new(kind, zxid, None)
    }

    /// With data.
    pub fn with(kind: PacketKind, zxid: Zxid, data: impl Into<Bytes>) -> Message {
        Message::new(kind, zxid, Some(data.into()))
    }

    /// With a transaction.
    pub fn carrying(kind: PacketKind, zxid: Zxid, record: Record) -> Message {
        Message { kind, zxid, data: Some(record.bytes), auth: None, held: record.held }
    }

    /// The data, empty if there is none.
    pub fn bytes(&self) -> &[u8] {
        self.data.as_deref().unwrap_or_default()
    }
}

/// A transaction's bytes, as a slice of memory that others may share.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Record {
    /// The bytes.
    pub bytes: Bytes,
    /// Bytes of memory that keeping them keeps.
    pub held: usize,
}

impl From<Bytes> for Record {
    fn from(bytes: Bytes) -> Record {
        Record { held: bytes.len(), bytes }
    }
}

/// The last epoch: later ones do not fit an `ACKEPOCH`.
pub const EPOCH_MAX: u32 = i32::MAX as u32 - 1;

/// What a member remembers of epochs, and where its history ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Standing {
    /// The newest epoch that it has promised.
    pub accepted: u32,
    /// The epoch of the last leader whose history it has taken over.
    pub current: u32,
    /// The newest transaction in its log.
    pub last: Zxid,
}
