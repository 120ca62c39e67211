//! The packets of the link between a learner and its leader (`QuorumPacket`).
//!
//! A packet has no outer length: it ends where its last field ends. On `SNAP` the stream is interrupted by a snapshot.
//!
//! **Not here**: what is in `data` ([`super::learner`], [`crate::txn`]), the snapshot.

use crate::identity::IdList;
use crate::ids::Zxid;
use crate::jute::{Decoder, Jute, JuteError, buffer_len, put_buffer};
use crate::peer::Parsed;
use bytes::BufMut;

/// What a packet is for; in the order of their numbers, which begin at 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(i32)]
pub enum PacketKind {
    /// To the leader: a client's request.
    Request = 1,
    /// From the leader: log this, and say so.
    Proposal = 2,
    /// To the leader: it is in the log.
    Ack = 3,
    /// From the leader: a quorum has it.
    Commit = 4,
    /// Both ways: still there. The answer lists the sessions that were heard of.
    Ping = 5,
    /// Both ways: a client has come with its session.
    Revalidate = 6,
    /// From the leader: the answer to a forwarded `sync`.
    Sync = 7,
    /// To an observer: proposal and commit in one.
    Inform = 8,
    /// From the leader: commit, and with it another configuration.
    CommitAndActivate = 9,
    /// From the leader: what came before is the history of this epoch.
    NewLeader = 10,
    /// To the leader, first: who I am, and which epoch I have promised.
    FollowerInfo = 11,
    /// From the leader: serve clients.
    UpToDate = 12,
    /// From the leader: keep what you have; what is missing follows.
    Diff = 13,
    /// From the leader: cut your history back to here.
    Trunc = 14,
    /// From the leader: a snapshot follows.
    Snap = 15,
    /// As `FollowerInfo`, from one that does not vote.
    ObserverInfo = 16,
    /// From the leader: the new epoch.
    LeaderInfo = 17,
    /// To the leader: the new epoch is promised; this is my history.
    AckEpoch = 18,
    /// As `CommitAndActivate`, to an observer.
    InformAndActivate = 19,
}

impl PacketKind {
    /// All of them.
    pub const ALL: [PacketKind; 19] = [
        PacketKind::Request,
        PacketKind::Proposal,
        PacketKind::Ack,
        PacketKind::Commit,
        PacketKind::Ping,
        PacketKind::Revalidate,
        PacketKind::Sync,
        PacketKind::Inform,
        PacketKind::CommitAndActivate,
        PacketKind::NewLeader,
        PacketKind::FollowerInfo,
        PacketKind::UpToDate,
        PacketKind::Diff,
        PacketKind::Trunc,
        PacketKind::Snap,
        PacketKind::ObserverInfo,
        PacketKind::LeaderInfo,
        PacketKind::AckEpoch,
        PacketKind::InformAndActivate,
    ];

    /// The one with this number.
    ///
    /// # Errors
    /// There is none.
    pub fn from_number(number: i32) -> Result<PacketKind, JuteError> {
        let kind = PacketKind::ALL.into_iter().find(|kind| *kind as i32 == number);
        kind.ok_or(JuteError::Unknown { what: "the kind of a quorum packet", value: number })
    }
}

/// One packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet<'a> {
    /// What it is for.
    pub kind: PacketKind,
    /// What it is about; -1 where it is about no transaction.
    pub zxid: Zxid,
    /// What it carries.
    pub data: Option<&'a [u8]>,
    /// Who the client of a forwarded request is.
    pub auth: Option<IdList<'a>>,
}

impl<'a> Packet<'a> {
    /// A packet about nothing but a transaction.
    pub const fn about(kind: PacketKind, zxid: Zxid) -> Packet<'static> {
        Packet { kind, zxid, data: None, auth: None }
    }

    /// A packet with data.
    pub const fn with(kind: PacketKind, zxid: Zxid, data: &'a [u8]) -> Packet<'a> {
        Packet { kind, zxid, data: Some(data), auth: None }
    }

    /// Reads the packet at the beginning of `bytes`.
    ///
    /// # Errors
    /// Bytes that are no packet, or more than `data_max` bytes of data, or of identities: the link is of no use then.
    pub fn parse(bytes: &'a [u8], data_max: usize) -> Result<Parsed<Packet<'a>>, JuteError> {
        Parsed::of((|| {
            let mut d = Decoder::new(bytes);
            let kind = PacketKind::from_number(d.int()?)?;
            let zxid = Zxid(d.long()?);
            let len = { d }.int()?;
            if usize::try_from(len).is_ok_and(|len| len > data_max) {
                return Err(JuteError::BadLength(len));
            }
            let data = d.buffer()?;
            let left = d.rest().len();
            let auth = match IdList::decode(&mut d) {
                Err(JuteError::Truncated { .. }) if left > data_max => return Err(JuteError::BadLength(left as i32)),
                decoded => decoded?,
            };
            Ok((Packet { kind, zxid, data, auth }, bytes.len() - d.rest().len()))
        })())
    }
}

impl Jute for Packet<'_> {
    fn encoded_len(&self) -> usize {
        12 + buffer_len(self.data) + self.auth.map_or(4, |ids| ids.encoded_len())
    }

    fn encode<B: BufMut>(&self, out: &mut B) {
        out.put_i32(self.kind as i32);
        out.put_i64(self.zxid.0);
        put_buffer(out, self.data);
        out.put_slice(self.auth.map_or(&[0xff; 4], |ids| ids.encoded()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::encode_ids;

    #[test]
    fn every_kind_has_its_number() {
        for (number, kind) in (1..).zip(PacketKind::ALL) {
            assert_eq!((kind as i32, PacketKind::from_number(number)), (number, Ok(kind)));
        }
        for number in [i32::MIN, -1, 0, 20, i32::MAX] {
            assert!(PacketKind::from_number(number).is_err(), "{number}");
        }
    }

    #[test]
    fn a_packet_is_read_back_and_a_part_of_it_waits_for_the_rest() {
        let ids = encode_ids([("ip", "127.0.0.1"), ("digest", "me:secret")].into_iter());
        let ids = IdList::from_encoded(&ids).unwrap();
        for (data, auth) in [(None, None), (Some(&b""[..]), Some(IdList::EMPTY)), (Some(b"data"), Some(ids))] {
            let packet = Packet { kind: PacketKind::Request, zxid: Zxid(-1), data, auth };
            let mut bytes = packet.to_vec();
            let len = bytes.len();
            assert_eq!(len, packet.encoded_len());
            (0..len).for_each(|len| assert_eq!(Packet::parse(&bytes[..len], 100), Ok(Parsed::Short), "{len}"));
            bytes.extend(b"the next one");
            assert_eq!(Packet::parse(&bytes, 100), Ok(Parsed::Whole(packet, len)));
        }
    }

    #[test]
    fn what_is_too_long_is_refused_before_it_is_waited_for() {
        let bytes = Packet::with(PacketKind::Proposal, Zxid(1), b"12345").to_vec();
        assert!(Packet::parse(&bytes[..16], 4).is_err());
        // Identities that never end are not waited for longer than data would be.
        let mut bytes = Packet::about(PacketKind::Ack, Zxid(1)).to_vec();
        bytes[16..20].copy_from_slice(&i32::MAX.to_be_bytes());
        bytes.extend([0; 76]);
        assert_eq!(Packet::parse(&bytes, 80), Ok(Parsed::Short));
        assert!(Packet::parse(&bytes, 79).is_err());
    }
}
