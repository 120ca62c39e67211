//! The bytes of the log, as pure functions over slices.
//!
//! A segment is a header, then batches from [`FIRST_BATCH`] on. A batch starts on one of the segment's blocks and is written by one
//! call: a header, then records, then zeros up to the next block. A record is a length, a checksum and the transaction's own bytes.
//!
//! What makes a batch belong where it is: its checksum covers the segment's random salt and its own offset, so bytes that a
//! recycled file or an earlier life left behind never parse. What makes a record belong to its batch: the batch's checksum
//! covers the heads (length and checksum) of all its records. What makes a batch belong to *this history*: it names the
//! position where the batch before it ended ([`BatchHeader::prev`]); and so that a torn tail can be told from damage, it names
//! how much was durable when it was submitted ([`BatchHeader::durable`]).
//!
//! **Invariants**: big-endian throughout, as jute; parsing never panics and never allocates.

use crate::disk::BlockSize;
use corral_proto::Zxid;
use std::fmt;

/// A place in the log: a segment's number and a byte offset in it, in the order of the log. Always at a block of that segment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    /// The segment's number, from 1.
    pub segment: u32,
    /// Bytes from its beginning.
    pub offset: u32,
}

impl Position {
    /// Before the first batch of the first segment.
    pub const START: Position = Position { segment: 0, offset: 0 };

    fn to_u64(self) -> u64 {
        (u64::from(self.segment) << 32) | u64::from(self.offset)
    }

    fn from_u64(value: u64) -> Position {
        Position { segment: (value >> 32) as u32, offset: value as u32 }
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "segment {} offset {}", self.segment, self.offset)
    }
}

/// Where the first batch of a segment begins, in bytes. The header has as much room as the largest block, whatever the block of the segment
/// is: so the first batch is found even where the header cannot be read.
pub const FIRST_BATCH: u32 = BlockSize::MAX.bytes() as u32;

/// What the beginning of a segment says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentHeader {
    /// Its number; also in its name.
    pub number: u32,
    /// Random, new each time the file is made or recycled.
    pub salt: u64,
    /// Size of the file in bytes, whole blocks of the largest size.
    pub size: u64,
    /// Where batches begin and end.
    pub block: BlockSize,
}

const SEGMENT_MAGIC: &[u8; 8] = b"CORRALTL";
const FORMAT_VERSION: u32 = 1;
const SEGMENT_HEADER_LEN: usize = 40;

impl SegmentHeader {
    /// The header, with the zeros up to the first batch.
    pub fn encode(&self) -> [u8; FIRST_BATCH as usize] {
        let mut block = [0; FIRST_BATCH as usize];
        block[0..8].copy_from_slice(SEGMENT_MAGIC);
        block[8..12].copy_from_slice(&FORMAT_VERSION.to_be_bytes());
        block[12..16].copy_from_slice(&self.number.to_be_bytes());
        block[16..24].copy_from_slice(&self.salt.to_be_bytes());
        block[24..32].copy_from_slice(&self.size.to_be_bytes());
        block[32..36].copy_from_slice(&(self.block.bytes() as u32).to_be_bytes());
        let crc = crc32c::crc32c(&block[..36]);
        block[36..SEGMENT_HEADER_LEN].copy_from_slice(&crc.to_be_bytes());
        block
    }

    /// The version of the format, if it is not this one and the header is sound as far as every version has it.
    pub fn other_version(block: &[u8]) -> Option<u32> {
        let header = block.get(..SEGMENT_HEADER_LEN).filter(|header| &header[..8] == SEGMENT_MAGIC)?;
        let is_sound = crc32c::crc32c(&header[..36]) == u32_at(header, 36);
        Some(u32_at(header, 8)).filter(|version| is_sound && *version != FORMAT_VERSION)
    }

    /// Reads a header block; the error says what is wrong with it.
    pub fn parse(block: &[u8]) -> Result<SegmentHeader, String> {
        let header = block.get(..SEGMENT_HEADER_LEN).ok_or("the file ends inside the segment header")?;
        if &header[..8] != SEGMENT_MAGIC {
            return Err("this is not a segment of a Corral log".to_owned());
        }
        if crc32c::crc32c(&header[..36]) != u32_at(header, 36) {
            return Err("the checksum of the segment header is wrong".to_owned());
        }
        let (version, bytes) = (u32_at(header, 8), u32_at(header, 32));
        match BlockSize::new(bytes).filter(|_| version == FORMAT_VERSION) {
            Some(block) => Ok(SegmentHeader {
                number: u32_at(header, 12),
                salt: u64_at(header, 16),
                size: u64_at(header, 24),
                block,
            }),
            None => Err(format!("format version {version} with blocks of {bytes} bytes is not known here")),
        }
    }

    /// The salt as it stands in a header block that does not check out. A batch that parses with it proves it.
    pub fn salt_as_it_is(block: &[u8]) -> u64 {
        if block.len() < SEGMENT_HEADER_LEN { 0 } else { u64_at(block, 16) }
    }

    /// The block size as it stands in a header that does not check out. Where it is none, the one with which the header would check out;
    /// and else the smallest, with which every batch is found.
    pub fn block_as_it_is(block: &[u8]) -> BlockSize {
        let Some(header) = block.get(..SEGMENT_HEADER_LEN) else { return BlockSize::MIN };
        let crc = crc32c::crc32c(&header[..32]);
        let fits =
            |size: &BlockSize| crc32c::crc32c_append(crc, &(size.bytes() as u32).to_be_bytes()) == u32_at(header, 36);
        BlockSize::new(u32_at(header, 32)).or_else(|| BlockSize::ALL.into_iter().find(fits)).unwrap_or(BlockSize::MIN)
    }
}

/// What stands in front of the records of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchHeader {
    /// Bytes from the beginning of the header to the end of the last record; the padding is not counted.
    pub len: u32,
    /// How many records there are; at least one.
    pub count: u32,
    /// The zxid of the first record.
    pub first: Zxid,
    /// The zxid of the last record.
    pub last: Zxid,
    /// Where the batch before this one ended.
    pub prev: Position,
    /// The zxid of the last record before this batch, zero if there is none: what a snapshot must cover if everything before
    /// this batch is gone.
    pub prev_last: Zxid,
    /// The checksum in the header of the batch before this one, zero if there is none: so a batch names the whole history
    /// before it, and a segment of another log cannot take the place of one of this.
    pub prev_crc: u32,
    /// Everything before this position was durable when this batch was submitted.
    pub durable: Position,
    /// Checksum over the heads of the records.
    pub heads_crc: u32,
}

const BATCH_MAGIC: u32 = u32::from_be_bytes(*b"CoBt");

impl BatchHeader {
    /// Encoded size in bytes.
    pub const LEN: usize = 64;

    /// Writes the header of a batch that stands at `offset` of a segment with `salt`.
    pub fn encode(&self, salt: u64, offset: u32, out: &mut [u8]) {
        out[0..4].copy_from_slice(&BATCH_MAGIC.to_be_bytes());
        out[8..12].copy_from_slice(&self.len.to_be_bytes());
        out[12..16].copy_from_slice(&self.count.to_be_bytes());
        out[16..24].copy_from_slice(&self.first.0.to_be_bytes());
        out[24..32].copy_from_slice(&self.last.0.to_be_bytes());
        out[32..40].copy_from_slice(&self.prev.to_u64().to_be_bytes());
        out[40..48].copy_from_slice(&self.durable.to_u64().to_be_bytes());
        out[48..52].copy_from_slice(&self.heads_crc.to_be_bytes());
        out[52..60].copy_from_slice(&self.prev_last.0.to_be_bytes());
        out[60..64].copy_from_slice(&self.prev_crc.to_be_bytes());
        let crc = BatchHeader::crc(salt, offset, &out[8..BatchHeader::LEN]);
        out[4..8].copy_from_slice(&crc.to_be_bytes());
    }

    fn crc(salt: u64, offset: u32, fields: &[u8]) -> u32 {
        let crc = crc32c::crc32c(&salt.to_be_bytes());
        let crc = crc32c::crc32c_append(crc, &offset.to_be_bytes());
        crc32c::crc32c_append(crc, fields)
    }

    /// Reads the header at the beginning of `bytes`, which stand at `offset` of a segment with `salt`.
    pub fn parse(bytes: &[u8], salt: u64, offset: u32) -> Result<BatchHeader, &'static str> {
        let header = bytes.get(..BatchHeader::LEN).ok_or("the segment ends inside a batch header")?;
        if u32_at(header, 0) != BATCH_MAGIC {
            return Err("no batch begins here");
        }
        if BatchHeader::crc(salt, offset, &header[8..]) != u32_at(header, 4) {
            return Err("the checksum of the batch header is wrong");
        }
        Ok(BatchHeader {
            len: u32_at(header, 8),
            count: u32_at(header, 12),
            first: Zxid(u64_at(header, 16) as i64),
            last: Zxid(u64_at(header, 24) as i64),
            prev: Position::from_u64(u64_at(header, 32)),
            durable: Position::from_u64(u64_at(header, 40)),
            heads_crc: u32_at(header, 48),
            prev_last: Zxid(u64_at(header, 52) as i64),
            prev_crc: u32_at(header, 60),
        })
    }

    /// The last zxid of what looks like the header of a batch, whether it checks out or not.
    pub fn last_as_it_is(bytes: &[u8]) -> Option<Zxid> {
        let header = bytes.get(..BatchHeader::LEN).filter(|header| u32_at(header, 0) == BATCH_MAGIC)?;
        Some(Zxid(u64_at(header, 24) as i64))
    }
}

/// The checksum in the header of a batch, which the next one names ([`BatchHeader::prev_crc`]).
pub fn batch_crc(batch: &[u8]) -> u32 {
    u32_at(batch, 4)
}

/// Size in bytes of what stands in front of every record: its length and its checksum.
pub const RECORD_HEAD: usize = 8;

/// The head of a record.
pub fn record_head(entry: &[u8]) -> [u8; RECORD_HEAD] {
    let mut head = [0; RECORD_HEAD];
    head[..4].copy_from_slice(&(entry.len() as u32).to_be_bytes());
    head[4..].copy_from_slice(&crc32c::crc32c(entry).to_be_bytes());
    head
}

/// A checked batch.
#[derive(Clone, Copy, Debug)]
pub struct Batch<'a> {
    /// Its header.
    pub header: BatchHeader,
    records: &'a [u8],
    crc: u32,
}

impl<'a> Batch<'a> {
    /// Reads and checks the whole batch at the beginning of `bytes`, which stand at `offset` of a segment with `salt`.
    ///
    /// # Errors
    /// Where in the segment (bytes) it does not check out, and why.
    pub fn parse(bytes: &'a [u8], salt: u64, offset: u32) -> Result<Batch<'a>, (u64, &'static str)> {
        let at = |inner: usize| u64::from(offset) + inner as u64;
        let header = BatchHeader::parse(bytes, salt, offset).map_err(|why| (at(0), why))?;
        let batch = bytes.get(..header.len as usize).ok_or((at(0), "the batch goes on beyond the segment"))?;
        let records = batch.get(BatchHeader::LEN..).ok_or((at(0), "the batch is shorter than its header"))?;
        let (mut rest, mut heads_crc) = (records, 0);
        for _ in 0..header.count {
            let here = at(batch.len() - rest.len());
            let (head, after) =
                rest.split_first_chunk::<RECORD_HEAD>().ok_or((here, "the batch ends inside a record"))?;
            let entry = after.get(..u32_at(head, 0) as usize).ok_or((here, "the batch ends inside a record"))?;
            if crc32c::crc32c(entry) != u32_at(head, 4) {
                return Err((here, "the checksum of a record is wrong"));
            }
            heads_crc = crc32c::crc32c_append(heads_crc, head);
            rest = &after[entry.len()..];
        }
        if !rest.is_empty() || heads_crc != header.heads_crc {
            return Err((at(0), "the records are not those that the batch header names"));
        }
        Ok(Batch { header, records, crc: batch_crc(batch) })
    }

    /// The checksum in its header.
    pub fn crc(&self) -> u32 {
        self.crc
    }

    /// The transactions' own bytes, each with its offset in the batch.
    pub fn entries(&self) -> impl Iterator<Item = (usize, &'a [u8])> + use<'a> {
        let mut rest = self.records;
        let total = rest.len();
        std::iter::from_fn(move || {
            let (head, after) = rest.split_first_chunk::<RECORD_HEAD>()?;
            let at = BatchHeader::LEN + total - rest.len();
            let (entry, next) = after.split_at(u32_at(head, 0) as usize);
            rest = next;
            Some((at, entry))
        })
    }
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_be_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}

const _: () = assert!(SEGMENT_HEADER_LEN <= FIRST_BATCH as usize && BatchHeader::LEN < BlockSize::MIN.bytes());

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn batch(entries: &[Vec<u8>], salt: u64, offset: u32) -> Vec<u8> {
        let mut bytes = vec![0; BatchHeader::LEN];
        let mut heads_crc = 0;
        for entry in entries {
            let head = record_head(entry);
            heads_crc = crc32c::crc32c_append(heads_crc, &head);
            bytes.extend_from_slice(&head);
            bytes.extend_from_slice(entry);
        }
        let header = BatchHeader {
            len: bytes.len() as u32,
            count: entries.len() as u32,
            first: Zxid(1),
            last: Zxid(entries.len() as i64),
            prev: Position { segment: 3, offset: 8192 },
            prev_last: Zxid::ZERO,
            prev_crc: 7,
            durable: Position { segment: 3, offset: 4096 },
            heads_crc,
        };
        header.encode(salt, offset, &mut bytes);
        bytes
    }

    #[test]
    fn a_segment_header_survives_and_every_flipped_bit_is_found() {
        for block in BlockSize::ALL {
            let header = SegmentHeader { number: 7, salt: 0xfeed, size: 1 << 26, block };
            let bytes = header.encode();
            assert_eq!(SegmentHeader::parse(&bytes), Ok(header));
            for bit in 0..SEGMENT_HEADER_LEN * 8 {
                let mut broken = bytes;
                broken[bit / 8] ^= 1 << (bit % 8);
                assert!(SegmentHeader::parse(&broken).is_err(), "bit {bit}");
                assert_eq!(SegmentHeader::block_as_it_is(&broken), block, "bit {bit}");
            }
        }
    }

    #[test]
    fn no_other_block_sizes_are_known() {
        for bytes in [0u32, 1, 256, 513, 8192, u32::MAX] {
            let mut header = SegmentHeader { number: 7, salt: 0xfeed, size: 1 << 26, block: BlockSize::MAX }.encode();
            header[32..36].copy_from_slice(&bytes.to_be_bytes());
            let crc = crc32c::crc32c(&header[..36]);
            header[36..SEGMENT_HEADER_LEN].copy_from_slice(&crc.to_be_bytes());
            let wrong = SegmentHeader::parse(&header).unwrap_err();
            assert_eq!(wrong, format!("format version 1 with blocks of {bytes} bytes is not known here"));
        }
    }

    proptest! {
        #[test]
        fn a_batch_survives_and_every_flipped_bit_is_found(
            entries in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..60), 1..6),
            salt: u64, offset: u32, flip: prop::sample::Index,
        ) {
            let bytes = batch(&entries, salt, offset);
            let parsed = Batch::parse(&bytes, salt, offset).unwrap();
            prop_assert_eq!(parsed.entries().map(|(_, entry)| entry.to_vec()).collect::<Vec<_>>(), entries);
            prop_assert!(Batch::parse(&bytes, salt ^ 1, offset).is_err(), "another segment's batch");
            prop_assert!(Batch::parse(&bytes, salt, offset ^ 4096).is_err(), "another place's batch");
            let bit = flip.index(bytes.len() * 8);
            let mut broken = bytes.clone();
            broken[bit / 8] ^= 1 << (bit % 8);
            prop_assert!(Batch::parse(&broken, salt, offset).is_err());
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes: Vec<u8>, salt: u64, offset: u32) {
            let _ = Batch::parse(&bytes, salt, offset);
            let _ = SegmentHeader::parse(&bytes);
            let _ = SegmentHeader::block_as_it_is(&bytes);
        }
    }
}
