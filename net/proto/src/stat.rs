//! What every answer says about a node besides its data.

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
