//! The links between learners and their leader, as `core-0` has them: streams, what has come over them and what is still to go.
//!
//! A learner that reads too slowly is disconnected: what is to be sent to it ([`super::outbound`]) is bounded.
//!
//! **Invariants**: what is sent over a link arrives in its order or not at all; a link's number is never used again.
//!
//! **Not here**: what packets mean ([`crate::replica`]), who dials whom and who listens ([`super::Outside`]).

use super::outbound::{Outbound, Piece};
use crate::budget::Held;
use crate::consensus::leadership::LinkId;
use crate::consensus::message::Message;
use bytes::{Buf, BytesMut};
use corral_proto::Jute;
use corral_proto::peer::{Packet, PacketKind, Parsed};
use crossbeam::channel::Receiver;
use std::collections::BTreeMap;
use std::io::{self, ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::sync::Arc;

/// Bytes that are read at a time.
const READ: usize = 256 << 10;
/// Reads of one link before the others have their turn.
const READS: usize = 8;
/// Bytes of data that the first packet of a link may have: whoever connects has not said who it is.
const GREETING_MAX: usize = 4 << 10;
/// Links that may be there at a time. An ensemble has a handful.
pub(super) const LINKS_MAX: usize = 1024;

/// How much the other side has taken of what there was to send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Taken {
    Nothing,
    Some,
    All,
}

/// One link.
struct Link<S> {
    stream: S,
    remote: SocketAddr,
    inbound: BytesMut,
    outbound: Outbound,
    /// Bytes of data that its next packet may have.
    data_max: usize,
    readable: bool,
    /// The other side has said that it will send no more; what it sent before may still be unread.
    half_closed: bool,
    ended: Option<String>,
}

/// Has whoever waits for events wait for those of a new link.
pub(super) type Watch<'a, S> = &'a mut dyn FnMut(&mut S, LinkId) -> io::Result<()>;

/// What has come over a link.
pub(super) enum Came {
    /// A packet.
    Message(Message),
    /// It is gone, for this reason.
    End(String),
    /// It is gone, because what another thread was to make for it could not be made.
    Unmade(String),
}

/// All links of this member.
pub(super) struct Links<S> {
    links: BTreeMap<LinkId, Link<S>>,
    next: u64,
    data_max: usize,
    /// Bytes of memory that what waits to be sent over one may hold.
    held_max: usize,
    /// Links that have something to send, or to be read although no event will say so.
    dirty: Vec<LinkId>,
    scratch: Box<[u8]>,
}

impl<S: Read + Write> Links<S> {
    /// No links yet; a packet has at most `data_max` bytes of data, and what waits to be sent over one link holds at most `held_max`.
    pub(super) fn new(data_max: usize, held_max: usize) -> Links<S> {
        Links { links: BTreeMap::new(), next: 1, data_max, held_max, dirty: Vec::new(), scratch: vec![0; READ].into() }
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.links.len()
    }

    /// All are closed.
    pub(super) fn clear(&mut self) {
        self.links.clear();
    }

    /// A learner has connected.
    pub(super) fn accepted(&mut self, stream: S, remote: SocketAddr, watch: Watch<'_, S>) -> io::Result<LinkId> {
        self.add(stream, remote, GREETING_MAX, watch)
    }

    /// A connection that was made to a leader is a link from now on.
    pub(super) fn dialed(&mut self, stream: S, remote: SocketAddr, watch: Watch<'_, S>) -> io::Result<LinkId> {
        self.add(stream, remote, self.data_max, watch)
    }

    fn add(&mut self, mut stream: S, remote: SocketAddr, data_max: usize, watch: Watch<'_, S>) -> io::Result<LinkId> {
        let id = LinkId(self.next);
        watch(&mut stream, id)?;
        self.next += 1;
        let (inbound, outbound) = (BytesMut::new(), Outbound::new(self.held_max));
        let (readable, half_closed) = (true, false);
        self.links.insert(id, Link { stream, remote, inbound, outbound, data_max, readable, half_closed, ended: None });
        self.dirty.push(id);
        Ok(id)
    }

    /// Who is at the other end.
    pub(super) fn remote(&self, id: LinkId) -> Option<SocketAddr> {
        self.links.get(&id).map(|link| link.remote)
    }

    /// Something can be read from a link, or written to it.
    pub(super) fn event(&mut self, id: LinkId, readable: bool, half_closed: bool) {
        if let Some(link) = self.links.get_mut(&id) {
            link.half_closed |= half_closed;
            link.readable |= readable || half_closed;
            self.dirty.push(id);
        }
    }

    /// Some thread has more for some link.
    pub(super) fn rung(&mut self) {
        let streams = |link: &Link<S>| link.outbound.is_streaming();
        self.dirty.extend(self.links.iter().filter(|(_, link)| streams(link)).map(|(id, _)| *id));
    }

    /// Puts a packet into a link's queue.
    pub(super) fn send(&mut self, id: LinkId, message: Message) {
        let Some(link) = self.links.get_mut(&id) else { return };
        if link.outbound.is_empty() {
            self.dirty.push(id);
        }
        link.outbound.packet(message);
        if link.outbound.held.is_exceeded() && link.ended.is_none() {
            link.ended = Some(format!("it reads too slowly: {} KiB wait for it", link.outbound.held.held() >> 10));
            self.dirty.push(id);
        }
    }

    /// Puts what comes in pieces into a link's queue; `wanted` lives as long as the link does.
    pub(super) fn stream(&mut self, id: LinkId, pieces: Receiver<Piece>, wanted: Arc<()>) {
        if let Some(link) = self.links.get_mut(&id) {
            link.outbound.stream(pieces, wanted);
            self.dirty.push(id);
        }
    }

    /// Closes a link. What was to be sent last has a chance to leave.
    pub(super) fn close(&mut self, id: LinkId) {
        if let Some(mut link) = self.links.remove(&id) {
            let _ = link.outbound.write(&mut link.stream);
        }
    }

    /// Links with something to do, once each.
    pub(super) fn take_dirty(&mut self) -> Vec<LinkId> {
        let mut dirty = std::mem::take(&mut self.dirty);
        dirty.sort_unstable();
        dirty.dedup();
        dirty
    }

    /// A link that was only written is still to be read, if there may be something.
    pub(super) fn keep_dirty(&mut self, id: LinkId) {
        if self.links.get(&id).is_some_and(|link| link.readable || link.ended.is_some()) {
            self.dirty.push(id);
        }
    }

    /// Whether some link is to be read or written although nothing will tell of it.
    pub(super) fn has_dirty(&self) -> bool {
        !self.dirty.is_empty()
    }

    /// Sends what there is to send over a link.
    pub(super) fn flush(&mut self, id: LinkId) -> Taken {
        let Some(link) = self.links.get_mut(&id) else { return Taken::Nothing };
        let before = link.outbound.sent;
        if let Err(error) = link.outbound.write(&mut link.stream) {
            link.ended.get_or_insert_with(|| error.to_string());
            self.dirty.push(id);
        } else if link.outbound.is_unbegun {
            self.dirty.push(id);
        }
        match &link.outbound {
            outbound if outbound.sent == before => Taken::Nothing,
            outbound if outbound.is_empty() && !outbound.is_unbegun => Taken::All,
            _ => Taken::Some,
        }
    }

    /// Bytes of memory that what waits to be sent over each link holds. One that has ended is about to go.
    pub(super) fn held(&self) -> impl Iterator<Item = Held> {
        let links = self.links.values().filter(|link| link.ended.is_none());
        links.map(|link| link.outbound.held.of("learner"))
    }

    /// Reads what has come over a link. True if anything has.
    pub(super) fn fill(&mut self, id: LinkId) -> bool {
        let Some(link) = self.links.get_mut(&id) else { return false };
        let mut any = false;
        for _ in 0..READS {
            if !link.readable || link.ended.is_some() {
                return any;
            }
            match link.stream.read(&mut self.scratch) {
                Ok(0) => link.ended = Some("closed by the other side".to_owned()),
                Ok(n) => {
                    link.inbound.extend_from_slice(&self.scratch[..n]);
                    any = true;
                    // A short read took everything; when more comes, the poll says so. The end may have been told already.
                    link.readable = link.half_closed || n == READ;
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => link.readable = false,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => link.ended = Some(error.to_string()),
            }
        }
        if link.readable {
            self.dirty.push(id);
        }
        any
    }

    /// Whether what another thread was to make could not be begun, once. What was to follow it is not sent.
    pub(super) fn is_unbegun(&mut self, id: LinkId) -> bool {
        self.links.get_mut(&id).is_some_and(|link| std::mem::take(&mut link.outbound.is_unbegun))
    }

    /// The next packet that has come, or the end. Of acknowledgements that follow each other it is the last: that is of all before it, too.
    pub(super) fn next(&mut self, id: LinkId) -> Option<Came> {
        let link = self.links.get_mut(&id)?;
        match Packet::parse(&link.inbound, link.data_max) {
            Ok(Parsed::Whole(mut packet, mut used)) => {
                // Whoever is not what it says, or says it out of its place, is disconnected for this packet.
                link.data_max = self.data_max;
                let mut begin = 0;
                while acknowledges(&packet)
                    && let Ok(Parsed::Whole(next, more)) = Packet::parse(&link.inbound[used..], self.data_max)
                    && acknowledges(&next)
                    && next.zxid > packet.zxid
                {
                    (packet, begin, used) = (next, used, used + more);
                }
                let (kind, zxid, len) = (packet.kind, packet.zxid, packet.data.map(<[u8]>::len));
                let auth = packet.auth.map(|ids| used - begin - ids.encoded_len());
                link.inbound.advance(begin);
                let packet = link.inbound.split_to(used - begin).freeze();
                let data = len.map(|len| packet.slice(DATA..DATA + len));
                let auth = auth.map(|start| packet.slice(start..));
                Some(Came::Message(Message { auth, ..Message::new(kind, zxid, data) }))
            }
            Ok(Parsed::Short) => self.end(id),
            Err(error) => {
                self.links.remove(&id);
                Some(Came::End(format!("it sent what is no packet: {error}")))
            }
        }
    }

    /// The end, if that is all that is left.
    pub(super) fn end(&mut self, id: LinkId) -> Option<Came> {
        let why = self.links.get(&id)?.ended.clone()?;
        let link = self.links.remove(&id)?;
        Some(link.outbound.broken.map_or(Came::End(why), Came::Unmade))
    }

    /// What has come and is no packet: a snapshot is being read.
    pub(super) fn raw(&mut self, id: LinkId) -> Option<&mut BytesMut> {
        self.links.get_mut(&id).map(|link| &mut link.inbound)
    }
}

/// Whether it is the acknowledgement of a transaction, and not of an epoch.
fn acknowledges(packet: &Packet<'_>) -> bool {
    packet.kind == PacketKind::Ack && packet.data.is_none() && packet.zxid.counter() != 0
}

/// Where a packet's data begins.
const DATA: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::budget::Bounds;
    use bytes::Bytes;
    use corral_proto::Zxid;

    const QUEUE_MAX: usize = Bounds::PRODUCTION.learner;

    /// One that reads nothing costs a bounded queue and then its link, and nobody else waits for it.
    #[test]
    fn who_reads_too_slowly_is_disconnected() {
        let mut links = Links::new(1 << 20, QUEUE_MAX);
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let mut connect = || {
            let ours = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            ours.set_nonblocking(true).unwrap();
            let (theirs, remote) = listener.accept().unwrap();
            (links.dialed(ours, remote, &mut |_, _| Ok(())).unwrap(), theirs)
        };
        let ((slow, _theirs), (other, mut reads)) = (connect(), connect());
        // It is not copied: all that grows is the queue.
        let record = Bytes::from(vec![7; 1 << 20]);
        for sent in 1..=(QUEUE_MAX >> 20) + 8 {
            links.send(slow, Message::with(PacketKind::Proposal, Zxid(sent as i64), record.clone()));
            links.flush(slow);
        }
        assert!(matches!(links.next(slow), Some(Came::End(why)) if why.contains("reads too slowly")));
        assert!(!links.links.contains_key(&slow), "its queue is gone");
        links.send(other, Message::about(PacketKind::Ping, Zxid(1)));
        links.flush(other);
        reads.read_exact(&mut [0; 20]).unwrap();
    }

    /// A stranger cannot make this member wait for, and keep, megabytes of a first packet.
    #[test]
    fn a_first_packet_is_small() {
        let mut links = Links::new(1 << 20, QUEUE_MAX);
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        for (len, is_taken) in [(GREETING_MAX, true), (GREETING_MAX + 1, false)] {
            let mut theirs = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            let (ours, remote) = listener.accept().unwrap();
            ours.set_nonblocking(true).unwrap();
            let link = links.accepted(ours, remote, &mut |_, _| Ok(())).unwrap();
            let data = Some(&[0; 2 * GREETING_MAX][..len]);
            let packet = Packet { kind: PacketKind::FollowerInfo, zxid: Zxid(0), data, auth: None };
            theirs.write_all(&packet.to_vec()).unwrap();
            let came = std::iter::repeat_with(|| {
                links.links.get_mut(&link).unwrap().readable = true;
                links.fill(link);
                links.next(link)
            });
            let came = came.flatten().next().unwrap();
            assert_eq!(matches!(came, Came::Message(_)), is_taken, "{len}");
        }
    }

    #[test]
    fn of_acknowledgements_that_follow_each_other_the_last_counts() {
        let mut links = Links::new(1 << 20, QUEUE_MAX);
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let mut theirs = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (ours, remote) = listener.accept().unwrap();
        let link = links.dialed(ours, remote, &mut |_, _| Ok(())).unwrap();
        let said = [(PacketKind::Ack, 1 << 32), (PacketKind::Ack, 5), (PacketKind::Ack, 6), (PacketKind::Ping, -1)];
        let said = said.into_iter().chain([(PacketKind::Ack, 7), (PacketKind::Ack, 7), (PacketKind::Ack, 9)]);
        let bytes: Vec<u8> = said.flat_map(|(kind, zxid)| Packet::about(kind, Zxid(zxid)).to_vec()).collect();
        theirs.write_all(&bytes).unwrap();
        drop(theirs);
        while links.links[&link].ended.is_none() {
            links.links.get_mut(&link).unwrap().readable = true;
            links.fill(link);
        }
        let came = std::iter::from_fn(|| match links.next(link) {
            Some(Came::Message(Message { kind, zxid, .. })) => Some((kind, zxid.0)),
            _ => None,
        });
        let expected = [(PacketKind::Ack, 1 << 32), (PacketKind::Ack, 6), (PacketKind::Ping, -1)];
        assert_eq!(came.collect::<Vec<_>>(), [&expected[..], &[(PacketKind::Ack, 7), (PacketKind::Ack, 9)]].concat());
    }
}
