//! The snapshot that follows a `SNAP` packet, piece by piece: Apache's own serialization of sessions, access control lists and
//! nodes, without the header and the seals that its files have around it.
//!
//! Order: the number of sessions and each of them; the number of lists and each with its number; the nodes, a parent before its
//! children, the root first with an empty path; a node with the path `/` and nothing else ends them; then [`SIGNATURE`].
//!
//! **Invariant**: a piece is handed out as soon as its bytes have come, and never needs more memory than they do.
//!
//! **Not here**: the tree, files ([`Parser`] reads the same part of them, up to the end of the nodes).

use crate::acl::AclList;
use crate::ids::SessionId;
use crate::jute::{Decoder, Jute, JuteError, buffer_len, put_buffer, put_string, string_len};
use crate::peer::Parsed;
use crate::stat::StatPersisted;
use bytes::BufMut;

/// What ends the stream, as a string.
pub const SIGNATURE: &str = "BenWasHere";
/// The path that ends the nodes.
const END: &str = "/";
/// The list that everybody may do everything by, without being written.
pub const OPEN_ACL: i64 = -1;

/// One piece of the stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Piece<'a> {
    /// How many sessions follow.
    Sessions(u32),
    /// An open session and its timeout in ms.
    Session(SessionId, i32),
    /// How many lists follow.
    Acls(u32),
    /// A list, and the number that nodes name it by.
    Acl(i64, AclList<'a>),
    /// A node; the root's path is empty.
    Node {
        /// Where.
        path: &'a str,
        /// Its data.
        data: Option<&'a [u8]>,
        /// The number of its list, or [`OPEN_ACL`].
        acl: i64,
        /// Its state.
        stat: StatPersisted,
    },
    /// There are no more nodes.
    NodesEnd,
    /// The end of the stream.
    Signature,
}

impl Jute for Piece<'_> {
    fn encoded_len(&self) -> usize {
        match self {
            Piece::Sessions(_) | Piece::Acls(_) => 4,
            Piece::Session(..) => 12,
            Piece::Acl(_, list) => 8 + list.encoded_len(),
            Piece::Node { path, data, .. } => string_len(path) + buffer_len(*data) + 8 + StatPersisted::LEN,
            Piece::NodesEnd => string_len(END),
            Piece::Signature => string_len(SIGNATURE),
        }
    }

    fn encode<B: BufMut>(&self, out: &mut B) {
        match self {
            Piece::Sessions(count) | Piece::Acls(count) => out.put_u32(*count),
            Piece::Session(id, timeout_ms) => {
                out.put_i64(id.0);
                out.put_i32(*timeout_ms);
            }
            Piece::Acl(number, list) => {
                out.put_i64(*number);
                list.encode(out);
            }
            Piece::Node { path, data, acl, stat } => {
                put_string(out, path);
                put_buffer(out, *data);
                out.put_i64(*acl);
                stat.encode(out);
            }
            Piece::NodesEnd => put_string(out, END),
            Piece::Signature => put_string(out, SIGNATURE),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Expected {
    SessionCount,
    Sessions(u32),
    AclCount,
    Acls(u32),
    Nodes,
    Signature,
    Nothing,
}

/// Reads a stream piece by piece.
#[derive(Clone, Debug)]
pub struct Parser {
    expected: Expected,
    piece_max: usize,
}

impl Parser {
    /// At the beginning of a stream; a piece of more than `piece_max` bytes is an error.
    pub fn new(piece_max: usize) -> Parser {
        Parser { expected: Expected::SessionCount, piece_max }
    }

    /// True when the whole stream was read.
    pub fn is_done(&self) -> bool {
        self.expected == Expected::Nothing
    }

    /// The piece at the beginning of `bytes`, and how many they are. When more are needed nothing has changed, and the same bytes
    /// are to come again with more behind them.
    ///
    /// # Errors
    /// Bytes that are no snapshot.
    pub fn next<'a>(&mut self, bytes: &'a [u8]) -> Result<Parsed<Piece<'a>>, JuteError> {
        let parsed = Parsed::of((|| {
            let mut d = Decoder::new(bytes);
            let piece = self.piece(&mut d)?;
            Ok((piece, bytes.len() - d.rest().len()))
        })())?;
        match parsed {
            Parsed::Whole((piece, expected), used) => {
                self.expected = expected;
                Ok(Parsed::Whole(piece, used))
            }
            Parsed::Short if bytes.len() > self.piece_max => Err(JuteError::BadLength(bytes.len() as i32)),
            Parsed::Short => Ok(Parsed::Short),
        }
    }

    fn piece<'a>(&self, d: &mut Decoder<'a>) -> Result<(Piece<'a>, Expected), JuteError> {
        let count = |d: &mut Decoder<'a>| {
            let count = d.int()?;
            u32::try_from(count).map_err(|_| JuteError::BadLength(count))
        };
        let sessions = |left: u32| if left == 0 { Expected::AclCount } else { Expected::Sessions(left) };
        let acls = |left: u32| if left == 0 { Expected::Nodes } else { Expected::Acls(left) };
        Ok(match self.expected {
            Expected::SessionCount => {
                let count = count(d)?;
                (Piece::Sessions(count), sessions(count))
            }
            Expected::Sessions(left) => (Piece::Session(SessionId(d.long()?), d.int()?), sessions(left - 1)),
            Expected::AclCount => {
                let count = count(d)?;
                (Piece::Acls(count), acls(count))
            }
            Expected::Acls(left) => (Piece::Acl(d.long()?, AclList::decode(d)?), acls(left - 1)),
            Expected::Nodes => match d.string("the path")? {
                END => (Piece::NodesEnd, Expected::Signature),
                path => {
                    let (data, acl) = (d.buffer()?, d.long()?);
                    (Piece::Node { path, data, acl, stat: StatPersisted::decode(d)? }, Expected::Nodes)
                }
            },
            Expected::Signature => match d.string("the signature")? {
                SIGNATURE => (Piece::Signature, Expected::Nothing),
                _ => return Err(JuteError::Unknown { what: "the signature of a snapshot", value: 0 }),
            },
            Expected::Nothing => return Err(JuteError::Unknown { what: "what follows a snapshot", value: 0 }),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::Zxid;

    fn stat(n: i64) -> StatPersisted {
        StatPersisted {
            czxid: Zxid(n),
            mzxid: Zxid(n + 1),
            ctime: 3,
            mtime: 4,
            version: 5,
            created: 6,
            aversion: 7,
            owner: SessionId(8),
            pzxid: Zxid(9),
        }
    }

    fn pieces() -> Vec<Piece<'static>> {
        let node = |path, data, acl| Piece::Node { path, data, acl, stat: stat(1) };
        vec![
            Piece::Sessions(2),
            Piece::Session(SessionId(1), 4000),
            Piece::Session(SessionId(2), 6000),
            Piece::Acls(1),
            Piece::Acl(1, AclList::READ_ONLY),
            node("", Some(&b""[..]), OPEN_ACL),
            node("/a", None, 1),
            node("/a/b", Some(b"data"), OPEN_ACL),
            Piece::NodesEnd,
            Piece::Signature,
        ]
    }

    #[test]
    fn a_stream_is_read_back_however_it_is_cut() {
        let stream: Vec<u8> = pieces().iter().flat_map(Jute::to_vec).collect();
        for chunk in 1..=stream.len() {
            let (mut parser, mut read, mut at, mut have) = (Parser::new(100), vec![], 0, 0);
            while !parser.is_done() {
                match parser.next(&stream[at..have]).unwrap() {
                    Parsed::Whole(piece, used) => {
                        assert_eq!(used, piece.encoded_len());
                        read.push(piece);
                        at += used;
                    }
                    Parsed::Short => have = (have + chunk).min(stream.len()),
                }
            }
            assert_eq!((read, at), (pieces(), stream.len()), "in pieces of {chunk}");
        }
    }

    #[test]
    fn what_is_no_snapshot_is_refused_and_nothing_is_waited_for_without_end() {
        assert!(Parser::new(100).next(&(-1i32).to_be_bytes()).is_err());
        let mut parser = Parser::new(100);
        for piece in [Piece::Sessions(0), Piece::Acls(0)] {
            parser.next(&piece.to_vec()).unwrap();
        }
        let huge = [&[0x7f, 0xff, 0xff, 0xff][..], &[b'x'; 200]].concat();
        assert_eq!(parser.clone().next(&huge[..50]), Ok(Parsed::Short));
        assert!(parser.clone().next(&huge).is_err());
        parser.next(&Piece::NodesEnd.to_vec()).unwrap();
        let mut other = Vec::new();
        put_string(&mut other, "BenWasNotHere");
        assert!(parser.next(&other).is_err());
    }
}
