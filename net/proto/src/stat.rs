//! A node's state besides its data: what every answer says of it ([`Stat`]), and what is stored of it ([`StatPersisted`]).

use crate::ids::{SessionId, Zxid};
use crate::jute::{Decoder, Jute, JuteError};
use bytes::BufMut;

/// The visible state of a node (Apache's `Stat`, 68 bytes).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stat {
    /// Transaction that created it.
    pub czxid: Zxid,
    /// Transaction that last changed its data.
    pub mzxid: Zxid,
    /// When it was created, in ms since the epoch.
    pub ctime: i64,
    /// When its data last changed, in ms since the epoch.
    pub mtime: i64,
    /// Changes of its data.
    pub version: i32,
    /// Changes of its children: creations and deletions together.
    pub cversion: i32,
    /// Changes of its access control list.
    pub aversion: i32,
    /// The session it lives as long as, or 0.
    pub ephemeral_owner: SessionId,
    /// Bytes of its data.
    pub data_length: i32,
    /// Direct children.
    pub num_children: i32,
    /// Transaction that last created or deleted a direct child.
    pub pzxid: Zxid,
}

impl Stat {
    /// Encoded size in bytes.
    pub const LEN: usize = 68;

    /// Reads one.
    pub fn decode(d: &mut Decoder<'_>) -> Result<Stat, JuteError> {
        Ok(Stat {
            czxid: Zxid(d.long()?),
            mzxid: Zxid(d.long()?),
            ctime: d.long()?,
            mtime: d.long()?,
            version: d.int()?,
            cversion: d.int()?,
            aversion: d.int()?,
            ephemeral_owner: SessionId(d.long()?),
            data_length: d.int()?,
            num_children: d.int()?,
            pzxid: Zxid(d.long()?),
        })
    }
}

impl Jute for Stat {
    fn encoded_len(&self) -> usize {
        Stat::LEN
    }

    fn encode<B: BufMut>(&self, out: &mut B) {
        out.put_i64(self.czxid.0);
        out.put_i64(self.mzxid.0);
        out.put_i64(self.ctime);
        out.put_i64(self.mtime);
        out.put_i32(self.version);
        out.put_i32(self.cversion);
        out.put_i32(self.aversion);
        out.put_i64(self.ephemeral_owner.0);
        out.put_i32(self.data_length);
        out.put_i32(self.num_children);
        out.put_i64(self.pzxid.0);
    }
}

/// The stored state of a node: the visible one follows from it, its data and its children.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StatPersisted {
    /// Transaction that created it.
    pub czxid: Zxid,
    /// Transaction that last changed its data.
    pub mzxid: Zxid,
    /// When it was created, in ms since the epoch.
    pub ctime: i64,
    /// When its data last changed, in ms since the epoch.
    pub mtime: i64,
    /// Changes of its data.
    pub version: i32,
    /// Children ever created; not what clients see as cversion.
    pub created: i32,
    /// Changes of its access control list.
    pub aversion: i32,
    /// The session it belongs to, or none, or the mark of a container or of a node that lives for a time.
    pub owner: SessionId,
    /// Transaction that last created or deleted a direct child.
    pub pzxid: Zxid,
}

impl StatPersisted {
    /// Encoded size in bytes.
    pub const LEN: usize = 60;

    /// A node as it is when the transaction `zxid` has just created it.
    pub const fn new(zxid: Zxid, time_ms: i64, owner: SessionId) -> StatPersisted {
        StatPersisted {
            czxid: zxid,
            mzxid: zxid,
            ctime: time_ms,
            mtime: time_ms,
            version: 0,
            created: 0,
            aversion: 0,
            owner,
            pzxid: zxid,
        }
    }

    /// Reads one, as a peer's snapshot has it.
    pub fn decode(d: &mut Decoder<'_>) -> Result<StatPersisted, JuteError> {
        Ok(StatPersisted {
            czxid: Zxid(d.long()?),
            mzxid: Zxid(d.long()?),
            ctime: d.long()?,
            mtime: d.long()?,
            version: d.int()?,
            created: d.int()?,
            aversion: d.int()?,
            owner: SessionId(d.long()?),
            pzxid: Zxid(d.long()?),
        })
    }
}

impl Jute for StatPersisted {
    fn encoded_len(&self) -> usize {
        StatPersisted::LEN
    }

    fn encode<B: BufMut>(&self, out: &mut B) {
        out.put_i64(self.czxid.0);
        out.put_i64(self.mzxid.0);
        out.put_i64(self.ctime);
        out.put_i64(self.mtime);
        out.put_i32(self.version);
        out.put_i32(self.created);
        out.put_i32(self.aversion);
        out.put_i64(self.owner.0);
        out.put_i64(self.pzxid.0);
    }
}
