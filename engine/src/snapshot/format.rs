//! The bytes of a snapshot, as pure functions over slices.
//!
//! A file is a header, then blocks, the last of which is the footer. A block has a kind, a payload (as it is, or compressed), and
//! a checksum that covers its header, its payload *and the checksum of the block before it*: a block that is missing, repeated or
//! from another file breaks the chain, wherever it is.
//!
//! **Invariants**: big-endian throughout; sizes are checked against [`BLOCK_BYTES_MAX`] before anything is allocated; parsing
//! never panics.

use crate::tree::image::NodeImage;
use bytes::BufMut;
use corral_proto::jute::{Decoder, put_buffer, put_string};
use corral_proto::{AclList, SessionId, StatPersisted, TreeDigest, Zxid};
use std::ops::RangeInclusive;

/// How payloads are stored (`snapshot.compression`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub enum Compression {
    /// As they are.
    #[default]
    None = 0,
    /// zstd, level 1: about a third of the size at a few hundred MB/s.
    Zstd = 1,
    /// lz4: less dense, faster.
    Lz4 = 2,
}

impl Compression {
    /// All of them.
    pub const ALL: [Compression; 3] = [Compression::None, Compression::Zstd, Compression::Lz4];

    /// The value of the setting.
    pub const fn name(self) -> &'static str {
        match self {
            Compression::None => "none",
            Compression::Zstd => "zstd",
            Compression::Lz4 => "lz4",
        }
    }
}

/// What the file begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// The transaction that was applied last when the walk began; also in the file's name.
    pub start: Zxid,
    /// When that was, in ms since the epoch.
    pub wall_ms: i64,
    /// How payloads are stored.
    pub compression: Compression,
}

const MAGIC: &[u8; 8] = b"CORRALSN";
/// 1 had no digest in its footer.
const FORMAT_VERSIONS: RangeInclusive<u32> = 1..=2;

impl Header {
    /// Encoded size in bytes.
    pub const LEN: usize = 36;

    /// The header's bytes, and the checksum that the chain begins with.
    pub fn encode(&self) -> ([u8; Header::LEN], u32) {
        let mut bytes = [0; Header::LEN];
        bytes[0..8].copy_from_slice(MAGIC);
        bytes[8..12].copy_from_slice(&FORMAT_VERSIONS.end().to_be_bytes());
        bytes[12..20].copy_from_slice(&self.start.0.to_be_bytes());
        bytes[20..28].copy_from_slice(&self.wall_ms.to_be_bytes());
        bytes[28] = self.compression as u8;
        let crc = crc32c::crc32c(&bytes[..32]);
        bytes[32..].copy_from_slice(&crc.to_be_bytes());
        (bytes, crc)
    }

    /// The version of the format, if it is none that is known here and the header is sound as far as every version has it.
    pub fn other_version(bytes: &[u8]) -> Option<u32> {
        let bytes = bytes.get(..Header::LEN).filter(|bytes| &bytes[..8] == MAGIC)?;
        let int = |at: usize| u32::from_be_bytes(bytes[at..at + 4].try_into().expect("four bytes"));
        let is_other = !FORMAT_VERSIONS.contains(&int(8));
        (int(32) == crc32c::crc32c(&bytes[..32]) && is_other).then(|| int(8))
    }

    /// Reads a header, and the checksum that the chain begins with.
    pub fn parse(bytes: &[u8]) -> Result<(Header, u32), String> {
        let bytes = bytes.get(..Header::LEN).ok_or("the file ends inside its header")?;
        if &bytes[..8] != MAGIC {
            return Err("this is not a Corral snapshot".to_owned());
        }
        let crc = crc32c::crc32c(&bytes[..32]);
        let mut d = Decoder::new(&bytes[8..]);
        let mut int = || d.int().expect("the length was checked");
        let version = int() as u32;
        let long = |high: i32, low: i32| (i64::from(high) << 32) | i64::from(low as u32);
        let (start, wall_ms) = (long(int(), int()), long(int(), int()));
        let _compression = int();
        if int() as u32 != crc {
            return Err("the checksum of the header is wrong".to_owned());
        }
        if !FORMAT_VERSIONS.contains(&version) {
            return Err(format!("format version {version} is not known here"));
        }
        let compression = Compression::ALL.into_iter().find(|known| *known as u8 == bytes[28]);
        let compression = compression.ok_or_else(|| format!("compression {} is not known here", bytes[28]))?;
        Ok((Header { start: Zxid(start), wall_ms, compression }, crc))
    }
}

/// What a block holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// Open sessions.
    Sessions = 1,
    /// Access control lists and nodes.
    Nodes = 2,
    /// The end of the file.
    Footer = 3,
}

/// What stands in front of a payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockHeader {
    /// What the payload is.
    pub kind: Kind,
    /// Bytes of the payload as it is stored.
    pub stored_len: u32,
    /// Bytes of the payload itself.
    pub raw_len: u32,
    /// Records in it.
    pub count: u32,
    /// The chained checksum.
    pub crc: u32,
}

const BLOCK_MAGIC: u32 = u32::from_be_bytes(*b"CoSb");

/// A payload is cut when it has so many bytes.
pub const BLOCK_BYTES: usize = 1 << 20;

/// No block is larger: a full payload and one more record, which is at most as large as a frame may be made.
pub const BLOCK_BYTES_MAX: u32 = 1 << 30;

impl BlockHeader {
    /// Encoded size in bytes.
    pub const LEN: usize = 24;

    /// The header of a block with this stored payload, after a block whose checksum was `prev`.
    pub fn new(kind: Kind, count: u32, raw_len: usize, stored: &[u8], prev: u32) -> BlockHeader {
        let mut header = BlockHeader { kind, stored_len: stored.len() as u32, raw_len: raw_len as u32, count, crc: 0 };
        header.crc = header.checksum(stored, prev);
        header
    }

    /// The header's bytes.
    pub fn encode(&self) -> [u8; BlockHeader::LEN] {
        let mut bytes = [0; BlockHeader::LEN];
        bytes[0..4].copy_from_slice(&BLOCK_MAGIC.to_be_bytes());
        bytes[4] = self.kind as u8;
        bytes[8..12].copy_from_slice(&self.stored_len.to_be_bytes());
        bytes[12..16].copy_from_slice(&self.raw_len.to_be_bytes());
        bytes[16..20].copy_from_slice(&self.count.to_be_bytes());
        bytes[20..].copy_from_slice(&self.crc.to_be_bytes());
        bytes
    }

    /// Reads a header; its payload follows.
    pub fn parse(bytes: &[u8; BlockHeader::LEN]) -> Result<BlockHeader, &'static str> {
        let mut d = Decoder::new(bytes);
        let mut int = || d.int().expect("the length is fixed") as u32;
        if int() != BLOCK_MAGIC {
            return Err("no block begins here");
        }
        let kind = match int().to_be_bytes() {
            [1, 0, 0, 0] => Kind::Sessions,
            [2, 0, 0, 0] => Kind::Nodes,
            [3, 0, 0, 0] => Kind::Footer,
            _ => return Err("a block of an unknown kind"),
        };
        let header = BlockHeader { kind, stored_len: int(), raw_len: int(), count: int(), crc: int() };
        if header.stored_len > BLOCK_BYTES_MAX || header.raw_len > BLOCK_BYTES_MAX {
            return Err("a block of an impossible size");
        }
        Ok(header)
    }

    /// The checksum that the block must have.
    pub fn checksum(&self, stored: &[u8], prev: u32) -> u32 {
        let bytes = self.encode();
        crc32c::crc32c_append(crc32c::crc32c_append(prev, &bytes[..20]), stored)
    }
}

/// A record of a [`Kind::Nodes`] block.
#[derive(Clone, Copy, Debug)]
pub enum NodeRecord<'a> {
    /// The next access control list; lists are numbered in the order in which they come.
    Acl(AclList<'a>),
    /// A node whose list is the one with number `acl`.
    Node {
        /// Where it is.
        path: &'a str,
        /// All but its list, which is the open one here.
        image: NodeImage<'a>,
        /// The number of its list.
        acl: u32,
    },
}

/// Appends a list.
pub fn put_acl(out: &mut Vec<u8>, acl: AclList<'_>) {
    out.put_u8(0);
    put_buffer(out, Some(acl.encoded()));
}

/// Appends a node.
pub fn put_node(out: &mut Vec<u8>, path: &str, image: &NodeImage<'_>, acl: u32) {
    out.put_u8(1);
    put_string(out, path);
    put_buffer(out, image.data);
    out.put_u32(acl);
    let stat = &image.stat;
    for long in [stat.czxid.0, stat.mzxid.0, stat.pzxid.0, stat.ctime, stat.mtime, stat.owner.0] {
        out.put_i64(long);
    }
    for int in [stat.version, stat.created, stat.aversion] {
        out.put_i32(int);
    }
}

/// Reads one record.
pub fn get_record<'a>(d: &mut Decoder<'a>) -> Result<NodeRecord<'a>, String> {
    let broken = |error: corral_proto::JuteError| format!("a record cannot be read: {error}");
    if !d.bool().map_err(broken)? {
        let bytes = d.buffer().map_err(broken)?.ok_or("a list is null")?;
        return AclList::from_encoded(bytes).map(NodeRecord::Acl).map_err(broken);
    }
    let path = d.string("a path").map_err(broken)?;
    let data = d.buffer().map_err(broken)?;
    let acl = d.int().map_err(broken)? as u32;
    let mut long = || d.long().map_err(broken);
    let [czxid, mzxid, pzxid, ctime, mtime, owner] = [long()?, long()?, long()?, long()?, long()?, long()?];
    let mut int = || d.int().map_err(broken);
    let [version, created, aversion] = [int()?, int()?, int()?];
    let stat = StatPersisted {
        czxid: Zxid(czxid),
        mzxid: Zxid(mzxid),
        pzxid: Zxid(pzxid),
        ctime,
        mtime,
        version,
        created,
        aversion,
        owner: SessionId(owner),
    };
    Ok(NodeRecord::Node { path, image: NodeImage { data, acl: AclList::OPEN, stat }, acl })
}

/// The payload of the footer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Footer {
    /// The transaction that was applied last when the walk began: all of it and of those before is in the image.
    pub start: Zxid,
    /// The transaction that was applied last when the walk ended: of those in between, any part may be in the image.
    pub end: Zxid,
    /// Nodes that the walk saw.
    pub nodes: u64,
    /// Bytes of all payloads, uncompressed.
    pub raw_bytes: u64,
    /// The tree's digest when the walk ended, unless an earlier version has written the file.
    pub digest: Option<TreeDigest>,
}

impl Footer {
    /// Encoded size in bytes, and without the digest.
    const LEN: usize = 40;
    const LEN_BEFORE: usize = 32;

    /// Appends the footer's payload.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.put_i64(self.start.0);
        out.put_i64(self.end.0);
        out.put_u64(self.nodes);
        out.put_u64(self.raw_bytes);
        self.digest.into_iter().for_each(|digest| out.put_u64(digest.0));
    }

    /// Reads a footer's payload.
    pub fn parse(bytes: &[u8]) -> Result<Footer, &'static str> {
        if ![Footer::LEN_BEFORE, Footer::LEN].contains(&bytes.len()) {
            return Err("the footer has another size");
        }
        let mut d = Decoder::new(bytes);
        let mut long = || d.long().expect("the length was checked");
        let (start, end) = (Zxid(long()), Zxid(long()));
        let (nodes, raw_bytes) = (long() as u64, long() as u64);
        Ok(Footer { start, end, nodes, raw_bytes, digest: d.long().ok().map(|sum| TreeDigest(sum as u64)) })
    }
}
