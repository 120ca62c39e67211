//! What is in the `data` of the packets between a learner and its leader, other than transactions.
//!
//! **Invariant**: each is as long as what it holds; bytes behind it are left alone, as Apache does.

use crate::ids::{ServerId, SessionId, Xid};
use crate::jute::{Decoder, Jute, JuteError};
use bytes::BufMut;

/// The version of the learner protocol: since 3.4 there has been only this.
pub const PROTOCOL: i32 = 0x1_0000;
/// In `ACKEPOCH`, of a learner that had promised the epoch before.
pub const ALREADY_PROMISED: i32 = -1;

/// In `FOLLOWERINFO` and `OBSERVERINFO`: who it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LearnerInfo {
    /// The learner.
    pub sid: ServerId,
    /// [`PROTOCOL`].
    pub protocol: i32,
    /// The version of its configuration; 0 if it was never changed.
    pub config_version: i64,
}

impl LearnerInfo {
    /// Reads one; older servers leave out the end.
    ///
    /// # Errors
    /// There is not even an id.
    pub fn decode(bytes: &[u8]) -> Result<LearnerInfo, JuteError> {
        let mut d = Decoder::new(bytes);
        let sid = ServerId(d.long()?);
        let protocol = if d.rest().len() >= 4 { d.int()? } else { 0 };
        let config_version = if d.rest().len() >= 8 { d.long()? } else { 0 };
        Ok(LearnerInfo { sid, protocol, config_version })
    }
}

impl Jute for LearnerInfo {
    fn encoded_len(&self) -> usize {
        20
    }

    fn encode<B: BufMut>(&self, out: &mut B) {
        out.put_i64(self.sid.0);
        out.put_i32(self.protocol);
        out.put_i64(self.config_version);
    }
}

/// In `REQUEST`: a client's request, as it came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Forwarded<'a> {
    /// In whose name.
    pub session: SessionId,
    /// What the client calls it.
    pub xid: Xid,
    /// Which operation, by its number.
    pub op: i32,
    /// Its body.
    pub body: &'a [u8],
}

impl<'a> Forwarded<'a> {
    /// Reads one.
    ///
    /// # Errors
    /// It ends before its body.
    pub fn decode(bytes: &'a [u8]) -> Result<Forwarded<'a>, JuteError> {
        let mut d = Decoder::new(bytes);
        Ok(Forwarded { session: SessionId(d.long()?), xid: Xid(d.int()?), op: d.int()?, body: d.rest() })
    }
}

impl Jute for Forwarded<'_> {
    fn encoded_len(&self) -> usize {
        16 + self.body.len()
    }

    fn encode<B: BufMut>(&self, out: &mut B) {
        out.put_i64(self.session.0);
        out.put_i32(self.xid.0);
        out.put_i32(self.op);
        out.put_slice(self.body);
    }
}

/// A session that was heard of, and its timeout in ms: in the answer to a `PING` as many as there are, in a learner's
/// `REVALIDATE` the one that a client came with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Touched {
    /// The session.
    pub session: SessionId,
    /// Its timeout.
    pub timeout_ms: i32,
}

impl Touched {
    /// Reads as many as there are.
    pub fn list(bytes: &[u8]) -> impl Iterator<Item = Touched> + '_ {
        bytes.chunks_exact(12).map(|bytes| Touched::decode(bytes).expect("of its length"))
    }

    /// Reads one.
    ///
    /// # Errors
    /// There are not 12 bytes.
    pub fn decode(bytes: &[u8]) -> Result<Touched, JuteError> {
        let mut d = Decoder::new(bytes);
        Ok(Touched { session: SessionId(d.long()?), timeout_ms: d.int()? })
    }
}

impl Jute for Touched {
    fn encoded_len(&self) -> usize {
        12
    }

    fn encode<B: BufMut>(&self, out: &mut B) {
        out.put_i64(self.session.0);
        out.put_i32(self.timeout_ms);
    }
}

/// In a leader's `REVALIDATE`: whether the session may go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Revalidated {
    /// The session.
    pub session: SessionId,
    /// Whether it is known, and not closing.
    pub valid: bool,
}

impl Revalidated {
    /// Reads one.
    ///
    /// # Errors
    /// There are not 9 bytes.
    pub fn decode(bytes: &[u8]) -> Result<Revalidated, JuteError> {
        let mut d = Decoder::new(bytes);
        Ok(Revalidated { session: SessionId(d.long()?), valid: d.bool()? })
    }
}

impl Jute for Revalidated {
    fn encoded_len(&self) -> usize {
        9
    }

    fn encode<B: BufMut>(&self, out: &mut B) {
        out.put_i64(self.session.0);
        out.put_u8(self.valid.into());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_is_read_back_and_a_part_of_it_is_an_error() {
        let info = LearnerInfo { sid: ServerId(3), protocol: PROTOCOL, config_version: 1 << 32 };
        assert_eq!(LearnerInfo::decode(&info.to_vec()), Ok(info));
        assert_eq!(LearnerInfo::decode(&info.to_vec()[..12]), Ok(LearnerInfo { config_version: 0, ..info }));
        assert_eq!(LearnerInfo::decode(&info.to_vec()[..8]).unwrap().protocol, 0);
        assert!(LearnerInfo::decode(&info.to_vec()[..7]).is_err());
        let forwarded = Forwarded { session: SessionId(7), xid: Xid(9), op: 1, body: b"body" };
        assert_eq!(Forwarded::decode(&forwarded.to_vec()), Ok(forwarded));
        assert!(Forwarded::decode(&forwarded.to_vec()[..15]).is_err());
        let revalidated = Revalidated { session: SessionId(7), valid: true };
        assert_eq!(Revalidated::decode(&revalidated.to_vec()), Ok(revalidated));
        assert!(Revalidated::decode(&revalidated.to_vec()[..8]).is_err());
    }

    #[test]
    fn a_ping_lists_sessions_and_ignores_what_is_no_whole_one() {
        let touched = [1, 2].map(|id| Touched { session: SessionId(id), timeout_ms: 4000 });
        let mut bytes: Vec<u8> = touched.iter().flat_map(Jute::to_vec).collect();
        bytes.push(0);
        assert!(Touched::list(&bytes).eq(touched));
    }
}
