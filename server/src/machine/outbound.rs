//! What is to be sent over one link, in its order.
//!
//! A queue of parts. Data of proposals is not copied into it: the parts are slices of the memory that the log writes, and go out in
//! vectored writes. A snapshot, or what is read from the log, is a part too, whose bytes another thread makes as fast as the socket takes
//! them; what comes after it waits.
//!
//! **Invariants**: nothing follows what was not made to its end; counted is the memory that the parts hold.
//!
//! **Not here**: what happens at the bound ([`super::links`]).

use crate::budget::Budget;
use crate::consensus::message::Message;
use bytes::{Buf, BufMut, Bytes, BytesMut};
use corral_proto::peer::{Packet, PacketKind};
use corral_proto::{IdList, Jute};
use crossbeam::channel::{Receiver, TryRecvError};
use std::collections::VecDeque;
use std::io::{self, ErrorKind, IoSlice, Write};
use std::sync::Arc;

/// Parts of one vectored write.
const SLICES: usize = 256;

/// Something to be sent.
enum Part {
    /// Bytes of a proposal, in the log's memory, and how many bytes of that they hold.
    Shared(Bytes, usize),
    /// Packets, or what is around such bytes: so many bytes of [`Outbound::own`].
    Own(usize),
    /// What is being made. Whoever makes it has a weak reference, and stops when it is gone.
    Stream(Receiver<Piece>, #[expect(dead_code, reason = "it is only to be alive")] Arc<()>),
}

/// Of what another thread makes.
pub enum Piece {
    /// More bytes.
    Bytes(Bytes),
    /// That was all.
    End,
    /// There is no more, though it is not complete: what comes after it must not be sent.
    Broken(String),
}

/// The queue.
pub(super) struct Outbound {
    parts: VecDeque<Part>,
    own: BytesMut,
    /// Bytes of memory that the parts hold.
    pub(super) held: Budget,
    /// Bytes that were sent.
    pub(super) sent: u64,
    /// Something of the stream at the front was sent.
    begun: bool,
    /// Why what another thread made is not complete.
    pub(super) broken: Option<String>,
    /// Another thread could not even begin, and nothing of what was to follow is left: something else is to be sent.
    pub(super) is_unbegun: bool,
}

impl Outbound {
    /// Nothing is to be sent; what is, may hold so many bytes.
    pub(super) fn new(max: usize) -> Outbound {
        Outbound {
            parts: VecDeque::new(),
            own: BytesMut::new(),
            held: Budget::new(max),
            sent: 0,
            begun: false,
            broken: None,
            is_unbegun: false,
        }
    }

    fn own(&mut self, write: impl FnOnce(&mut BytesMut)) {
        let before = self.own.len();
        write(&mut self.own);
        let len = self.own.len() - before;
        self.held.hold(len);
        match self.parts.back_mut() {
            Some(Part::Own(last)) => *last += len,
            _ => self.parts.push_back(Part::Own(len)),
        }
    }

    /// What comes next is made piece by piece; `wanted` lives as long as it is to be sent.
    pub(super) fn stream(&mut self, pieces: Receiver<Piece>, wanted: Arc<()>) {
        self.parts.push_back(Part::Stream(pieces, wanted));
    }

    /// There is nothing to be sent.
    pub(super) fn is_empty(&self) -> bool {
        self.parts.is_empty()
    }

    /// What is to be sent now is being made.
    pub(super) fn is_streaming(&self) -> bool {
        matches!(self.parts.front(), Some(Part::Stream(..)))
    }

    /// The next packet to be sent.
    pub(super) fn packet(&mut self, message: Message) {
        let Message { kind, zxid, data, auth, held } = message;
        match data {
            Some(data) if kind == PacketKind::Proposal || kind == PacketKind::Inform => {
                self.own(|out| {
                    out.put_i32(kind as i32);
                    out.put_i64(zxid.0);
                    out.put_i32(data.len() as i32);
                });
                self.held.hold(held);
                self.parts.push_back(Part::Shared(data, held));
                self.own(|out| out.put_i32(-1));
            }
            data => {
                let auth = auth.as_deref().map(|ids| IdList::from_encoded(ids).expect("a list that was made here"));
                self.own(|out| Packet { kind, zxid, data: data.as_deref(), auth }.encode(out));
            }
        }
    }

    /// Writes as much as the socket takes.
    pub(super) fn write(&mut self, stream: &mut impl Write) -> io::Result<()> {
        while !self.parts.is_empty() {
            if let Some(Part::Stream(pieces, _)) = self.parts.front() {
                match pieces.try_recv() {
                    Ok(Piece::Bytes(piece)) => {
                        self.begun = true;
                        let held = piece.len();
                        self.held.hold(held);
                        self.parts.push_front(Part::Shared(piece, held));
                    }
                    Ok(Piece::End) => {
                        self.begun = false;
                        self.parts.pop_front();
                        continue;
                    }
                    // Rung for when there is more.
                    Err(TryRecvError::Empty) => return Ok(()),
                    Ok(Piece::Broken(_)) if !self.begun => {
                        *self = Outbound { is_unbegun: true, sent: self.sent, ..Outbound::new(self.held.max()) };
                        return Ok(());
                    }
                    Ok(Piece::Broken(why)) => return Err(self.breaks_off(why)),
                    Err(TryRecvError::Disconnected) => return Err(self.breaks_off("it was not made".to_owned())),
                }
            }
            let mut slices = [IoSlice::new(&[]); SLICES];
            let (mut count, mut own) = (0, &self.own[..]);
            for part in &self.parts {
                let slice = match part {
                    Part::Shared(bytes, _) => &bytes[..],
                    Part::Own(len) => {
                        let (now, rest) = own.split_at(*len);
                        own = rest;
                        now
                    }
                    Part::Stream(..) => break,
                };
                slices[count] = IoSlice::new(slice);
                count += 1;
                if count == SLICES {
                    break;
                }
            }
            match stream.write_vectored(&slices[..count]) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(written) => self.wrote(written),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Nothing can be sent any more, because something in the middle is missing.
    fn breaks_off(&mut self, why: String) -> io::Error {
        io::Error::other(self.broken.get_or_insert(why).clone())
    }

    fn wrote(&mut self, mut written: usize) {
        self.sent += written as u64;
        while let Some(part) = self.parts.front_mut() {
            let taken = match part {
                Part::Shared(bytes, held) => {
                    let taken = written.min(bytes.len());
                    bytes.advance(taken);
                    let is_sent = bytes.is_empty();
                    self.held.give_back(if is_sent { *held } else { 0 });
                    (taken, is_sent)
                }
                Part::Own(len) => {
                    let taken = written.min(*len);
                    *len -= taken;
                    self.held.give_back(taken);
                    self.own.advance(taken);
                    (taken, *len == 0)
                }
                Part::Stream(..) => return,
            };
            written -= taken.0;
            if !taken.1 {
                return;
            }
            self.parts.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::budget::Bounds;
    use crate::consensus::message::Record;
    use crate::requests::identity::Identities;
    use corral_proto::Zxid;
    use corral_proto::peer::Parsed;
    use std::io::Read;

    const QUEUE_MAX: usize = Bounds::PRODUCTION.learner;

    /// From the moment a record is encoded, its bytes are not copied on their way to a learner.
    #[test]
    fn what_is_proposed_goes_out_of_the_logs_own_memory() {
        let record = Bytes::from_static(b"a transaction");
        let mut outbound = Outbound::new(QUEUE_MAX);
        outbound.packet(Message::about(PacketKind::Commit, Zxid(1)));
        outbound.packet(Message::with(PacketKind::Proposal, Zxid(2), record.clone()));
        outbound.packet(Message::about(PacketKind::Commit, Zxid(2)));
        let shared: Vec<&Bytes> = outbound
            .parts
            .iter()
            .filter_map(|part| match part {
                Part::Shared(bytes, _) => Some(bytes),
                _ => None,
            })
            .collect();
        assert_eq!(shared.len(), 1);
        assert_eq!(shared[0].as_ptr(), record.as_ptr());
        assert_eq!(outbound.parts.len(), 3, "what is around it is in one piece each");
    }

    /// Recorded between two servers of Apache's: what their follower sent for its client at 127.0.0.1.
    #[test]
    fn a_forwarded_request_has_the_bytes_of_apaches() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../net/proto/tests/golden/follower-session.json");
        let recorded: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
        let of_clients = recorded["messages"].as_array().unwrap().iter().filter(|message| {
            message["type"] == "REQUEST" && message["decoded"].as_str().is_some_and(|text| text.contains("127.0.0.1"))
        });
        let mut count = 0;
        for message in of_clients {
            let hex = message["hex"].as_str().unwrap().as_bytes();
            let digit = |pair| u8::from_str_radix(str::from_utf8(pair).unwrap(), 16).unwrap();
            let bytes: Vec<u8> = hex.chunks(2).map(digit).collect();
            let Ok(Parsed::Whole(packet, _)) = Packet::parse(&bytes, 1 << 20) else { panic!("{message}") };
            let auth = Some(Identities::of([127, 0, 0, 1].into()).encoded().clone());
            let said = Message::with(PacketKind::Request, Zxid(-1), packet.data.unwrap().to_vec());
            let mut outbound = Outbound::new(QUEUE_MAX);
            outbound.packet(Message { auth, ..said });
            assert_eq!(outbound.own, bytes);
            count += 1;
        }
        assert_eq!(count, 3, "requests of clients are recorded");
    }

    /// Counted is what a slice keeps alive, not what it shows.
    #[test]
    fn what_holds_much_memory_counts_as_much() {
        let mut outbound = Outbound::new(QUEUE_MAX);
        let record = Record { bytes: Bytes::from_static(b"small"), held: 4096 };
        outbound.packet(Message::carrying(PacketKind::Proposal, Zxid(1), record));
        assert_eq!(outbound.held.held(), 4096 + 16 + 4);
        outbound.wrote(16 + 2);
        assert_eq!(outbound.held.held(), 4096 + 4, "half a record holds all of its memory");
        outbound.wrote(3 + 4);
        assert_eq!((outbound.held.held(), outbound.parts.len()), (0, 0));
    }

    #[test]
    fn nothing_follows_what_was_not_made_to_its_end() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        for (last, is_whole) in
            [(Some(Piece::End), true), (Some(Piece::Broken("gone".to_owned())), false), (None, false)]
        {
            let ours = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            ours.set_nonblocking(true).unwrap();
            let (mut ours, mut theirs) = (ours, listener.accept().unwrap().0);
            let (pieces, stream) = crossbeam::channel::bounded(2);
            pieces.send(Piece::Bytes(Bytes::from_static(b"part"))).unwrap();
            last.into_iter().for_each(|last| pieces.send(last).unwrap());
            drop(pieces);
            let mut outbound = Outbound::new(QUEUE_MAX);
            outbound.parts.push_back(Part::Stream(stream, Arc::new(())));
            outbound.packet(Message::about(PacketKind::NewLeader, Zxid(1)));
            for _ in 0..2 {
                assert_eq!(outbound.write(&mut ours).is_ok(), is_whole);
            }
            assert_eq!(outbound.broken.is_some(), !is_whole);
            drop(ours);
            let mut sent = Vec::new();
            theirs.read_to_end(&mut sent).unwrap();
            let after = Packet { kind: PacketKind::NewLeader, zxid: Zxid(1), data: None, auth: None }.to_vec();
            assert_eq!(sent, [&b"part"[..], if is_whole { &after } else { &[] }].concat());
        }
    }

    #[test]
    fn what_was_written_in_part_goes_on_where_it_stopped() {
        let packets = [
            Message::with(PacketKind::Proposal, Zxid(1), &b"one"[..]),
            Message::about(PacketKind::Commit, Zxid(1)),
            Message::with(PacketKind::Inform, Zxid(2), &b"two"[..]),
        ];
        let encoded: Vec<u8> = packets
            .iter()
            .flat_map(|Message { kind, zxid, data, .. }| {
                Packet { kind: *kind, zxid: *zxid, data: data.as_deref(), auth: None }.to_vec()
            })
            .collect();
        for step in 1..encoded.len() {
            let (mut outbound, mut at) = (Outbound::new(QUEUE_MAX), 0);
            packets.iter().cloned().for_each(|packet| outbound.packet(packet));
            assert_eq!(outbound.held.held(), encoded.len());
            while at < encoded.len() {
                let mut rest = Vec::new();
                let mut own = &outbound.own[..];
                for part in &outbound.parts {
                    match part {
                        Part::Shared(bytes, _) => rest.extend_from_slice(bytes),
                        Part::Own(len) => {
                            rest.extend_from_slice(&own[..*len]);
                            own = &own[*len..];
                        }
                        Part::Stream(..) => unreachable!("none was put in"),
                    }
                }
                assert_eq!(rest, encoded[at..], "in steps of {step}");
                let now = step.min(rest.len());
                outbound.wrote(now);
                at += now;
            }
            assert!(outbound.parts.is_empty() && outbound.held.held() == 0);
        }
    }
}
