//! A notification: what a member currently votes for, and what it is doing.
//!
//! **Not here**: which vote wins, and when an election is over.

use crate::ids::{ServerId, Zxid};
use crate::jute::{Decoder, Jute, JuteError};
use bytes::BufMut;
use std::cmp::Ordering;

/// What a member is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(i32)]
#[allow(missing_docs, reason = "the names are the protocol's own")]
pub enum PeerState {
    Looking = 0,
    Following = 1,
    Leading = 2,
    Observing = 3,
}

impl PeerState {
    const ALL: [PeerState; 4] = [PeerState::Looking, PeerState::Following, PeerState::Leading, PeerState::Observing];
}

/// Who should lead, and why: the newest history wins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Vote {
    /// Who should lead.
    pub leader: ServerId,
    /// The newest transaction of its history.
    pub zxid: Zxid,
    /// The epoch that its history belongs to (its `currentEpoch`).
    pub epoch: i64,
}

impl Vote {
    /// What a member without a vote says of itself.
    pub const NONE: Vote = Vote { leader: ServerId(i64::MIN), zxid: Zxid(i64::MIN), epoch: i64::MIN };
}

impl Ord for Vote {
    /// The later epoch, then the newer transaction, then the larger id (`totalOrderPredicate`).
    fn cmp(&self, other: &Vote) -> Ordering {
        (self.epoch, self.zxid, self.leader).cmp(&(other.epoch, other.zxid, other.leader))
    }
}

impl PartialOrd for Vote {
    fn partial_cmp(&self, other: &Vote) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// One message of the election, the body of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Notification<'a> {
    /// What the sender is doing.
    pub state: PeerState,
    /// What it votes for; of one that follows or leads, the vote that won.
    pub vote: Vote,
    /// Its round (`electionEpoch`).
    pub round: i64,
    /// The form that it was written in: 0 and 1 are from servers before 3.5. Written always as 2.
    pub version: i32,
    /// The sender's configuration, in version 2.
    pub config: Option<&'a str>,
}

/// The form that is written.
pub const VERSION: i32 = 2;
/// The largest frame of an election connection, in bytes.
pub const FRAME_MAX: usize = 524_288;
/// Without an epoch.
const LEN_OLDEST: usize = 28;
/// Without a version.
const LEN_OLD: usize = 40;

impl<'a> Notification<'a> {
    /// Reads the body of a frame.
    ///
    /// # Errors
    /// The message is skipped then; the connection is good.
    pub fn decode(body: &'a [u8]) -> Result<Notification<'a>, JuteError> {
        let mut d = Decoder::new(body);
        let state = d.int()?;
        let state = PeerState::ALL
            .into_iter()
            .find(|known| *known as i32 == state)
            .ok_or(JuteError::Unknown { what: "the state of a peer", value: state })?;
        let (leader, zxid, round) = (ServerId(d.long()?), Zxid(d.long()?), d.long()?);
        let epoch = if body.len() == LEN_OLDEST { i64::from(zxid.epoch()) } else { d.long()? };
        let version = if body.len() == LEN_OLDEST || body.len() == LEN_OLD { 0 } else { d.int()? };
        let config = match version {
            VERSION.. => {
                let len = d.int()?;
                let len = usize::try_from(len).map_err(|_| JuteError::BadLength(len))?;
                Some(str::from_utf8(d.bytes(len)?).map_err(|_| JuteError::NotUtf8)?)
            }
            _ => None,
        };
        Ok(Notification { state, vote: Vote { leader, zxid, epoch }, round, version, config })
    }
}

impl Jute for Notification<'_> {
    fn encoded_len(&self) -> usize {
        44 + self.config.map_or(0, str::len)
    }

    fn encode<B: BufMut>(&self, out: &mut B) {
        out.put_i32(self.state as i32);
        out.put_i64(self.vote.leader.0);
        out.put_i64(self.vote.zxid.0);
        out.put_i64(self.round);
        out.put_i64(self.vote.epoch);
        out.put_i32(VERSION);
        let config = self.config.unwrap_or("");
        out.put_i32(config.len() as i32);
        out.put_slice(config.as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn notification() -> Notification<'static> {
        let vote = Vote { leader: ServerId(3), zxid: Zxid::new(2, 7), epoch: 1 };
        Notification { state: PeerState::Leading, vote, round: 5, version: VERSION, config: Some("version=0") }
    }

    #[test]
    fn older_forms_are_understood() {
        let bytes = notification().to_vec();
        let old = |len: usize| Notification::decode(&bytes[..len]);
        let epoch = |epoch| Vote { epoch, ..notification().vote };
        assert_eq!(old(28), Ok(Notification { version: 0, config: None, vote: epoch(2), ..notification() }));
        assert_eq!(old(40), Ok(Notification { version: 0, config: None, ..notification() }));
        assert_eq!(Notification::decode(&bytes), Ok(notification()));
        let mut one = bytes.clone();
        one[39] = 1;
        assert_eq!(Notification::decode(&one), Ok(Notification { version: 1, config: None, ..notification() }));
        for len in (0..28).chain(29..40).chain(41..bytes.len()) {
            assert!(old(len).is_err(), "{len} bytes");
        }
    }

    #[test]
    fn votes_are_ordered_by_epoch_then_zxid_then_id() {
        let vote = |epoch, zxid, leader| Vote { leader: ServerId(leader), zxid: Zxid(zxid), epoch };
        let ordered = [Vote::NONE, vote(1, 9, 9), vote(2, 1, 9), vote(2, 2, 1), vote(2, 2, 2)];
        assert!(ordered.is_sorted_by(|a, b| a < b));
    }
}
