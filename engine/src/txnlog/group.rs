//! Group commit: the batch that is open, and when it is cut.
//!
//! While a write is in flight, everything that arrives joins the open batch; when the disk may take another write, the batch
//! is sealed and handed over. There is no timer (a linger was measured to cost its own length and to buy nothing), except an
//! optional delay that exists so that the benchmark can show just that.
//!
//! A transaction is encoded once, here, in its final form and place. From then on its bytes are only sliced.
//!
//! **Invariants**: zxids of appended records grow; a sealed batch has at least one record, fits a write, and never changes
//! except for its header, which is filled in when its place in a segment is known ([`SealedBatch::place`]).
//!
//! **Not here**: which segment and offset, the disk, what is durable ([`super::log`]).

use super::format::{BatchHeader, Position, RECORD_HEAD, record_head};
use crate::disk::BlockSize;
use crate::disk::aligned::{Pool, Region};
use bytes::Bytes;
use corral_proto::{Jute, TxnEntry, Zxid};
use std::collections::VecDeque;
use std::time::Duration;

/// Size of a chunk of memory for batches, in bytes. Batches lie in it one behind the other; one is cut when the chunk is full. A
/// larger record gets memory of its own.
pub const BATCH_BYTES: usize = 1 << 20;

/// A batch does not begin with less than this left of its chunk: cut so early, it would cost a write for little.
const BATCH_ROOM_MIN: usize = 256 << 10;

/// The batches that are still in memory only.
pub struct Group {
    pool: Pool,
    /// What is left of the chunk that the newest sealed batch lies in.
    rest: Option<Region>,
    block: BlockSize,
    delay: Duration,
    open: Option<OpenBatch>,
    sealed: VecDeque<SealedBatch>,
    last: Zxid,
}

struct OpenBatch {
    buf: Region,
    len: usize,
    heads_crc: u32,
    since: Duration,
    records: Vec<Record>,
    first: Zxid,
    prev_last: Zxid,
}

struct Record {
    zxid: Zxid,
    start: usize,
    end: usize,
}

impl Group {
    /// Batches for segments with such blocks, of a log whose last record is `last`; `delay` is `log.groupCommitDelayUs`.
    pub fn new(last: Zxid, block: BlockSize, delay: Duration) -> Group {
        Group { pool: Pool::new(BATCH_BYTES), rest: None, block, delay, open: None, sealed: VecDeque::new(), last }
    }

    /// Encodes a transaction into the open batch.
    pub fn append(&mut self, entry: &TxnEntry<'_>, now: Duration) {
        self.place(entry.header.zxid, entry.encoded_len(), now, |mut place| {
            entry.encode(&mut place);
            assert!(place.is_empty(), "a record's length is known before it is written");
        });
    }

    /// Puts a transaction that is encoded already into the open batch, byte for byte.
    pub fn append_encoded(&mut self, zxid: Zxid, bytes: &[u8], now: Duration) {
        self.place(zxid, bytes.len(), now, |place| place.copy_from_slice(bytes));
    }

    fn place(&mut self, zxid: Zxid, len: usize, now: Duration, write: impl FnOnce(&mut [u8])) {
        assert!(zxid > self.last, "{zxid} is logged after {}", self.last);
        let prev_last = std::mem::replace(&mut self.last, zxid);
        if self.open.as_ref().is_some_and(|open| open.len + RECORD_HEAD + len > open.buf.len()) {
            self.seal();
        }
        let needed = (BatchHeader::LEN + RECORD_HEAD + len).max(BATCH_ROOM_MIN);
        let (pool, rest) = (&self.pool, &mut self.rest);
        let open = self.open.get_or_insert_with(|| OpenBatch {
            buf: rest.take().filter(|rest| rest.len() >= needed).unwrap_or_else(|| pool.take(needed)),
            len: BatchHeader::LEN,
            heads_crc: 0,
            since: now,
            records: Vec::new(),
            first: zxid,
            prev_last,
        });
        let start = open.len + RECORD_HEAD;
        let end = start + len;
        write(&mut open.buf.as_mut_slice()[start..end]);
        let head = record_head(&open.buf.as_slice()[start..end]);
        open.buf.as_mut_slice()[open.len..start].copy_from_slice(&head);
        open.heads_crc = crc32c::crc32c_append(open.heads_crc, &head);
        open.len = end;
        open.records.push(Record { zxid, start, end });
    }

    /// The zxid of the newest record.
    pub fn last(&self) -> Zxid {
        self.last
    }

    /// True when nothing waits to be written.
    pub fn is_empty(&self) -> bool {
        self.open.is_none() && self.sealed.is_empty()
    }

    /// Bytes of memory that wait to be written.
    pub fn bytes(&self) -> usize {
        self.sealed.iter().map(|batch| batch.padded).sum::<usize>() + self.open.as_ref().map_or(0, |open| open.len)
    }

    /// When the open batch may be cut: `None` if there is nothing, a time that has passed if at once.
    pub fn due(&self) -> Option<Duration> {
        match (&self.open, self.sealed.is_empty()) {
            (_, false) => Some(Duration::ZERO),
            (Some(open), true) => Some(open.since + self.delay),
            (None, true) => None,
        }
    }

    /// Cuts and hands over the oldest batch, if one is due.
    pub fn take(&mut self, now: Duration) -> Option<SealedBatch> {
        if self.due()? > now {
            return None;
        }
        if self.sealed.is_empty() {
            self.seal();
        }
        self.sealed.pop_front()
    }

    /// Gives a batch back that could not be written yet: it stays the oldest.
    pub fn put_back(&mut self, batch: SealedBatch) {
        self.sealed.push_front(batch);
    }

    fn seal(&mut self) {
        let Some(mut open) = self.open.take() else { return };
        let padded = self.block.round_up(open.len);
        open.buf.as_mut_slice()[open.len..padded].fill(0);
        self.rest = Some(open.buf.split_off(padded)).filter(|rest| rest.len() >= BATCH_ROOM_MIN);
        self.sealed.push_back(SealedBatch {
            buf: open.buf,
            padded,
            len: open.len,
            heads_crc: open.heads_crc,
            first: open.first,
            prev_last: open.prev_last,
            records: open.records,
        });
    }
}

/// A batch that takes no more records, and has no place yet.
pub struct SealedBatch {
    buf: Region,
    padded: usize,
    len: usize,
    heads_crc: u32,
    first: Zxid,
    prev_last: Zxid,
    records: Vec<Record>,
}

impl SealedBatch {
    /// Bytes that the batch takes on disk, a multiple of the block.
    pub fn padded_len(&self) -> usize {
        self.padded
    }

    /// Fills in the header for a place in the log, after the batch that ended at `prev` with the checksum `prev_crc`, and freezes
    /// the bytes.
    pub fn place(mut self, salt: u64, at: Position, prev: Position, prev_crc: u32, durable: Position) -> PlacedBatch {
        let header = BatchHeader {
            len: self.len as u32,
            count: self.records.len() as u32,
            first: self.first,
            last: self.records.last().expect("a batch has a record").zxid,
            prev,
            prev_last: self.prev_last,
            prev_crc,
            durable,
            heads_crc: self.heads_crc,
        };
        header.encode(salt, at.offset, &mut self.buf.as_mut_slice()[..BatchHeader::LEN]);
        PlacedBatch { bytes: self.buf.freeze(), header, records: self.records }
    }
}

/// A batch with its final bytes.
pub struct PlacedBatch {
    /// What is written: whole blocks.
    pub bytes: Bytes,
    /// What its header says.
    pub header: BatchHeader,
    records: Vec<Record>,
}

impl PlacedBatch {
    /// The transactions in it, as slices of the very memory that is written.
    pub fn entries(&self) -> impl Iterator<Item = (Zxid, Bytes)> + '_ {
        self.records.iter().map(|record| (record.zxid, self.bytes.slice(record.start..record.end)))
    }

    /// Bytes of memory that each transaction's slice holds, in their order: its own, and its share of the header and the padding. Whoever
    /// keeps some of the slices keeps the whole batch, so what lies before a transaction counts for it, and the end for the last.
    pub fn held(&self) -> impl Iterator<Item = usize> + '_ {
        let ends = self.records.iter().map(|record| record.end);
        let ends = ends.take(self.records.len() - 1).chain([self.bytes.len()]);
        let begins = [0].into_iter().chain(self.records.iter().map(|record| record.end));
        begins.zip(ends).map(|(begin, end)| end - begin)
    }
}

#[cfg(test)]
mod tests {
    use super::super::format::Batch;
    use super::*;
    use corral_proto::{SessionId, Txn, TxnHeader, Xid};

    fn set(zxid: i64, data: &[u8]) -> TxnEntry<'_> {
        let header = TxnHeader { session: SessionId(1), cxid: Xid(2), zxid: Zxid(zxid), time_ms: 3 };
        TxnEntry { header, txn: Txn::SetData { path: "/a", data: Some(data), version: 1 }, digest: None }
    }

    #[test]
    fn what_arrives_while_a_write_is_in_flight_is_one_batch() {
        let mut group = Group::new(Zxid(0), BlockSize::MAX, Duration::ZERO);
        assert!(group.take(Duration::ZERO).is_none());
        for zxid in 1..=10 {
            group.append(&set(zxid, b"x"), Duration::ZERO);
        }
        let at = Position { segment: 1, offset: 4096 };
        let batch = group.take(Duration::ZERO).unwrap().place(9, at, Position::START, 0, Position::START);
        assert!(group.is_empty());
        assert_eq!(batch.bytes.len(), 4096);
        let parsed = Batch::parse(&batch.bytes, 9, 4096).unwrap();
        assert_eq!((parsed.header.count, parsed.header.first, parsed.header.last), (10, Zxid(1), Zxid(10)));
    }

    /// From the moment a record is encoded, nobody copies it: what the followers and the tree get are slices of the memory
    /// that the disk is written from.
    #[test]
    fn records_are_sliced_and_never_copied() {
        let mut group = Group::new(Zxid(0), BlockSize::MAX, Duration::ZERO);
        group.append(&set(1, b"payload"), Duration::ZERO);
        let sealed = group.take(Duration::ZERO).unwrap();
        let before = sealed.buf.as_slice().as_ptr_range();
        let at = Position { segment: 1, offset: 4096 };
        let placed = sealed.place(9, at, Position::START, 0, Position::START);
        let (_, record) = placed.entries().next().unwrap();
        assert!(before.contains(&record.as_ptr()) && before.contains(&placed.bytes.as_ptr()));
        assert_eq!(TxnEntry::decode(&record).unwrap(), set(1, b"payload"));
    }

    /// A batch of one small record holds its block, not the chunk that it lies in.
    #[test]
    fn small_batches_share_a_chunk_and_what_each_record_holds_adds_up() {
        for block in BlockSize::ALL {
            let mut group = Group::new(Zxid(0), block, Duration::ZERO);
            let (at, block) = (Position { segment: 1, offset: 4096 }, block.bytes());
            let mut placed = Vec::new();
            for zxid in [1, 10, 20] {
                (zxid..zxid + 3).for_each(|zxid| group.append(&set(zxid, b"small"), Duration::ZERO));
                assert!(group.bytes() > 0);
                placed.push(group.take(Duration::ZERO).unwrap().place(9, at, Position::START, 0, Position::START));
                assert_eq!(group.bytes(), 0);
            }
            let begins: Vec<usize> = placed.iter().map(|batch| batch.bytes.as_ptr() as usize).collect();
            assert_eq!([begins[1] - begins[0], begins[2] - begins[1]], [block, block]);
            assert!(placed.iter().all(|batch| batch.held().count() == 3 && batch.held().sum::<usize>() == block));
        }
    }

    #[test]
    fn a_full_batch_is_cut_and_a_huge_record_gets_a_buffer_of_its_own() {
        let mut group = Group::new(Zxid(0), BlockSize::MAX, Duration::ZERO);
        let half = vec![1; BATCH_BYTES / 2];
        let huge = vec![2; 3 * BATCH_BYTES];
        for (zxid, data) in [(1, &half), (2, &half), (3, &huge), (4, &half)] {
            group.append(&set(zxid, data), Duration::ZERO);
        }
        let sizes: Vec<_> =
            std::iter::from_fn(|| group.take(Duration::ZERO)).map(|b| (b.records.len(), b.padded)).collect();
        assert_eq!(sizes.iter().map(|(n, _)| *n).collect::<Vec<_>>(), [1, 1, 1, 1]);
        assert!(sizes[2].1 > 3 * BATCH_BYTES);
    }

    #[test]
    fn the_delay_holds_a_batch_back_only_until_it_is_due() {
        let mut group = Group::new(Zxid(0), BlockSize::MAX, Duration::from_micros(200));
        let now = Duration::from_secs(1);
        group.append(&set(1, b""), now);
        assert_eq!(group.due(), Some(now + Duration::from_micros(200)));
        assert!(group.take(now).is_none());
        assert!(group.take(now + Duration::from_micros(200)).is_some());
    }
}
