//! One segment, read back: its header, the batch at a place, and the batches that stand anywhere in it.
//!
//! What reads a log is of two kinds. Recovery must not guess: a segment whose header does not check out is refused, and a
//! batch is either whole or not there. Whoever looks into a broken log ([`OpenSegment::open_as_it_is`], [`PartialBatch`]) wants
//! everything that is provably what was written: a salt that makes batches check out is the right one, whatever else is wrong
//! with the header, and a record that checks out is good although the one after it is not.
//!
//! **Invariants**: nothing is written here; files are opened for reading only; no read goes beyond the file, and no length is
//! believed before its checksum.
//!
//! **Not here**: which batches follow each other and where the log ends ([`super::recovery`]).

use super::format::{Batch, BatchHeader, FIRST_BATCH, Position, RECORD_HEAD, SegmentHeader, batch_crc};
use super::segment::{self, SEGMENT_BYTES_MAX};
use crate::disk::BlockSize;
use crate::error::StorageError;
use corral_proto::Zxid;
use parking_lot::Mutex;
use rustix::fs::{Advice, fadvise};
use std::fs::File;
use std::ops::ControlFlow;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// So much is read of a batch at first, in bytes: most need no more.
const FIRST_READ: usize = 4096;

/// A segment, opened for reading.
#[derive(Debug)]
pub struct OpenSegment {
    path: PathBuf,
    /// `None` while it is parked.
    file: Mutex<Option<File>>,
    header: SegmentHeader,
    /// Its name says where it ends.
    closed: bool,
    len: u64,
}

/// A batch that checked out, with the bytes that it borrows from.
#[derive(Debug)]
pub struct Loaded {
    /// Its header.
    pub header: BatchHeader,
    salt: u64,
    at: u32,
    bytes: Vec<u8>,
}

impl Loaded {
    /// The batch itself.
    pub fn batch(&self) -> Batch<'_> {
        Batch::parse(&self.bytes, self.salt, self.at).expect("checked when it was loaded")
    }

    /// The checksum in its header.
    pub fn crc(&self) -> u32 {
        batch_crc(&self.bytes)
    }
}

/// Why there is no batch at a place.
#[derive(Debug)]
pub struct Unreadable {
    /// Where in the segment it does not check out, in bytes.
    pub offset: u64,
    /// What is wrong there.
    pub why: &'static str,
    /// What is left of a batch whose header checks out.
    pub partial: Option<PartialBatch>,
}

/// A batch whose header can be believed while the records cannot, not all of them.
#[derive(Debug)]
pub struct PartialBatch {
    /// What the header says: which transactions there were, and where the batch before them ended.
    pub header: BatchHeader,
    bytes: Vec<u8>,
}

/// A record of a [`PartialBatch`] that checks out by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Survivor<'a> {
    /// How many records stand before it in the batch.
    pub index: u32,
    /// Where it begins in the batch, in bytes.
    pub offset: usize,
    /// The transaction's own bytes.
    pub entry: &'a [u8],
}

/// What stands where no batch checks out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trace {
    /// Zeros, or the end of the file.
    Nothing,
    /// What the file held before it was recycled.
    Earlier,
    /// Something that was written since: a batch that broke off, or one that is damaged.
    Something,
}

impl PartialBatch {
    /// The checksum in its header.
    pub fn crc(&self) -> u32 {
        batch_crc(&self.bytes)
    }

    /// The records that check out. Where the heads of the records do not, nobody knows where the records behind the first
    /// broken one begin, and only those before it are found.
    pub fn survivors(&self) -> Vec<Survivor<'_>> {
        let mut found = Vec::new();
        let (mut at, mut heads_crc, mut broken) = (BatchHeader::LEN, 0, None);
        for index in 0..self.header.count {
            let Some((head, after)) = self.bytes.get(at..).and_then(|rest| rest.split_first_chunk::<RECORD_HEAD>())
            else {
                break;
            };
            let [a, b, c, d, crc @ ..] = *head;
            let len = u32::from_be_bytes([a, b, c, d]) as usize;
            let Some(entry) = after.get(..len) else { break };
            if crc32c::crc32c(entry) == u32::from_be_bytes(crc) {
                found.push(Survivor { index, offset: at, entry });
            } else if broken.is_none() {
                broken = Some(found.len());
            }
            heads_crc = crc32c::crc32c_append(heads_crc, head);
            at += RECORD_HEAD + len;
        }
        if at != self.header.len as usize || heads_crc != self.header.heads_crc {
            found.truncate(broken.unwrap_or(found.len()));
        }
        found
    }
}

impl OpenSegment {
    /// Opens the segment that is named `number`.
    ///
    /// # Errors
    /// [`StorageError::Corrupt`] when its header does not check out or does not fit the file.
    pub fn open(number: u32, path: PathBuf) -> Result<OpenSegment, StorageError> {
        OpenSegment::open_as_it_is(number, path).and_then(OpenSegment::sound)
    }

    /// Opens a segment that may be in use: the system reads nothing ahead, so that no blocks come into the page cache that are
    /// still to be written past it.
    ///
    /// # Errors
    /// As [`OpenSegment::open`].
    pub fn open_in_use(number: u32, path: PathBuf) -> Result<OpenSegment, StorageError> {
        let file = File::open(&path).map_err(StorageError::io("open", &path))?;
        // Where the system does not take the advice, it may read what nobody looks at.
        let _ = fadvise(&file, 0, None, Advice::Random);
        OpenSegment::examine(number, path, file).and_then(OpenSegment::sound)
    }

    /// Nobody writes to it any more: it may be read ahead.
    pub fn read_ahead(&self) {
        if let Some(file) = &*self.file.lock() {
            let _ = fadvise(file, 0, None, Advice::Sequential);
        }
    }

    /// Has the system read it from the disk, and not out of its cache, unless it has still to write it: after a write that failed the cache
    /// may show what the disk does not have.
    pub fn drop_cache(&self) {
        if let Some(file) = &*self.file.lock() {
            let _ = fadvise(file, 0, None, Advice::DontNeed);
        }
    }

    /// Closes the file until something is read of it again: a log may have more segments than a process may have files.
    pub fn park(&self) {
        *self.file.lock() = None;
    }

    fn sound((segment, wrong): (OpenSegment, Option<String>)) -> Result<OpenSegment, StorageError> {
        match wrong {
            None => Ok(segment),
            Some(why) => Err(StorageError::Corrupt { file: segment.path, offset: 0, why }),
        }
    }

    /// Opens a segment that may be broken, for whoever wants to look into it, and says what is wrong with its header. The salt
    /// is taken from where it stands: if it is wrong, no batch checks out.
    ///
    /// # Errors
    /// When the system fails.
    pub fn open_as_it_is(number: u32, path: PathBuf) -> Result<(OpenSegment, Option<String>), StorageError> {
        let file = File::open(&path).map_err(StorageError::io("open", &path))?;
        OpenSegment::examine(number, path, file)
    }

    fn examine(number: u32, path: PathBuf, file: File) -> Result<(OpenSegment, Option<String>), StorageError> {
        let len = file.metadata().map_err(StorageError::io("look at", &path))?.len();
        let mut block = vec![0; u64::from(FIRST_BATCH).min(len) as usize];
        file.read_exact_at(&mut block, 0).map_err(StorageError::io("read", &path))?;
        let end = segment::parse_name(&path).and_then(|(_, end)| end).map(u64::from);
        if let Some(version) = SegmentHeader::other_version(&block) {
            return Err(StorageError::Newer { file: path, version });
        }
        let (header, wrong) = match SegmentHeader::parse(&block) {
            Ok(header) if header.number != number => {
                let says = header.number;
                (header, Some(format!("the file is named {number} but says that it is segment {says}")))
            }
            Ok(header) if end.is_some_and(|end| end > len || end > header.size || end > SEGMENT_BYTES_MAX) => {
                (header, Some(format!("the file has {len} bytes, fewer than its name says")))
            }
            Ok(header) if end.is_none() && (header.size != len || len > SEGMENT_BYTES_MAX) => {
                (header, Some(format!("the file has {len} bytes but says that it has {}", header.size)))
            }
            Ok(header) => (header, None),
            Err(why) => {
                let salt = SegmentHeader::salt_as_it_is(&block);
                (SegmentHeader { number, salt, size: len, block: SegmentHeader::block_as_it_is(&block) }, Some(why))
            }
        };
        let len = len.min(end.unwrap_or(SEGMENT_BYTES_MAX)).min(SEGMENT_BYTES_MAX);
        let file = Mutex::new(Some(file));
        Ok((OpenSegment { path, file, header, closed: end.is_some(), len }, wrong))
    }

    /// Its file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What its header says.
    pub fn header(&self) -> &SegmentHeader {
        &self.header
    }

    /// Where it ends, if it was closed: everything up to there was durable then.
    pub fn closed_at(&self) -> Option<u32> {
        self.closed.then_some(self.len as u32)
    }

    /// Size of the file in bytes, as far as it can be read.
    pub fn file_len(&self) -> u64 {
        self.len
    }

    /// A place in it.
    pub fn position(&self, at: u32) -> Position {
        Position { segment: self.header.number, offset: at }
    }

    /// Where a batch of `len` bytes that begins at `at` ends, with its padding.
    pub fn end_of(&self, at: u32, len: u32) -> Position {
        let end = u64::from(at) + self.header.block.round_up(len as usize) as u64;
        self.position(u32::try_from(end).unwrap_or(u32::MAX))
    }

    fn read(&self, at: u32, len: usize) -> Result<Vec<u8>, StorageError> {
        let mut bytes = vec![0; len.min((self.len.saturating_sub(u64::from(at))) as usize)];
        let file = &mut *self.file.lock();
        let file = match file {
            Some(file) => file,
            parked => parked.insert(File::open(&self.path).map_err(StorageError::io("open", &self.path))?),
        };
        file.read_exact_at(&mut bytes, u64::from(at)).map_err(StorageError::io("read", &self.path))?;
        Ok(bytes)
    }

    /// The batch at `at`, or where and why there is none.
    ///
    /// # Errors
    /// When the system fails.
    pub fn batch(&self, at: u32) -> Result<Result<Loaded, Unreadable>, StorageError> {
        let begin = self.read(at, FIRST_READ)?;
        let header = match BatchHeader::parse(&begin, self.header.salt, at) {
            Ok(header) => header,
            Err(why) => return Ok(Err(Unreadable { offset: u64::from(at), why, partial: None })),
        };
        // Its checksum is right, so its length can be believed; it is bounded by the file all the same.
        let bytes = if header.len as usize <= begin.len() { begin } else { self.read(at, header.len as usize)? };
        Ok(match Batch::parse(&bytes, self.header.salt, at) {
            Ok(_) => Ok(Loaded { header, salt: self.header.salt, at, bytes }),
            Err((offset, why)) => Err(Unreadable { offset, why, partial: Some(PartialBatch { header, bytes }) }),
        })
    }

    /// Looks at every block from `from` on for the header of a batch, and shows each that checks out to `each`, until that
    /// breaks off.
    ///
    /// # Errors
    /// When the system fails.
    pub fn headers<T>(
        &self,
        from: u32,
        mut each: impl FnMut(u32, &BatchHeader) -> ControlFlow<T>,
    ) -> Result<Option<T>, StorageError> {
        self.blocks(from, self.header.block, |at, block| match BatchHeader::parse(block, self.header.salt, at) {
            Ok(header) => each(at, &header),
            Err(_) => ControlFlow::Continue(()),
        })
    }

    fn blocks<T>(
        &self,
        from: u32,
        size: BlockSize,
        mut each: impl FnMut(u32, &[u8]) -> ControlFlow<T>,
    ) -> Result<Option<T>, StorageError> {
        const CHUNK: usize = 1 << 20;
        let (size, mut at) = (size.bytes(), from);
        while u64::from(at) < self.len {
            let chunk = self.read(at, CHUNK)?;
            for (index, block) in chunk.chunks(size).enumerate() {
                if let ControlFlow::Break(found) = each(at + (index * size) as u32, block) {
                    return Ok(Some(found));
                }
            }
            at += chunk.len().max(size) as u32;
        }
        Ok(None)
    }

    /// The first batch from `from` on that says that the log was durable beyond `end`.
    ///
    /// # Errors
    /// When the system fails.
    pub fn claim_beyond(&self, from: u32, end: Position) -> Result<Option<Position>, StorageError> {
        self.headers(from, |at, header| {
            if header.durable > end { ControlFlow::Break(self.position(at)) } else { ControlFlow::Continue(()) }
        })
    }

    /// What stands at `at`, where no batch checks out, behind a batch that ended with transaction `last`. A recycled file still
    /// holds batches of its earlier life; they are recognized by their zxids, which are smaller. A guess, for people: bytes
    /// that look like that may have been garbled into it.
    ///
    /// # Errors
    /// When the system fails.
    pub fn trace(&self, at: u32, last: Zxid) -> Result<Trace, StorageError> {
        if self.is_zero_at(at)? {
            return Ok(Trace::Nothing);
        }
        if let Some(found) = BatchHeader::last_as_it_is(&self.read(at, BatchHeader::LEN)?) {
            return Ok(if found <= last { Trace::Earlier } else { Trace::Something });
        }
        // In the middle of an earlier batch: another one may follow, at a block of whatever size the file had then.
        let earlier = self.blocks(at, BlockSize::MIN, |_, block| match BatchHeader::last_as_it_is(block) {
            Some(found) if found <= last => ControlFlow::Break(()),
            _ => ControlFlow::Continue(()),
        })?;
        Ok(if earlier.is_some() { Trace::Earlier } else { Trace::Something })
    }

    /// True when the block at `at` holds nothing, or the file ends before it.
    ///
    /// # Errors
    /// When the system fails.
    pub fn is_zero_at(&self, at: u32) -> Result<bool, StorageError> {
        Ok(self.read(at, self.header.block.bytes())?.iter().all(|byte| *byte == 0))
    }
}

#[cfg(test)]
mod tests {
    use super::super::group::Group;
    use super::*;
    use corral_proto::{SessionId, Txn, TxnEntry, TxnHeader, Xid};
    use std::fs;
    use std::time::Duration;

    const SALT: u64 = 77;
    const BLOCK: usize = BlockSize::MAX.bytes();
    const FIRST: u32 = FIRST_BATCH;
    const HEADER: SegmentHeader =
        SegmentHeader { number: 1, salt: SALT, size: 4 * BLOCK as u64, block: BlockSize::MAX };

    /// A segment of four blocks with one batch: three transactions, from 5 on, with 100 bytes of data each.
    fn segment(dir: &Path) -> (PathBuf, Vec<u8>) {
        let mut group = Group::new(Zxid(4), BlockSize::MAX, Duration::ZERO);
        for zxid in 5..8 {
            let header = TxnHeader { session: SessionId(1), cxid: Xid(2), zxid: Zxid(zxid), time_ms: 3 };
            let txn = Txn::SetData { path: "/a", data: Some(&[zxid as u8; 100]), version: 1 };
            group.append(&TxnEntry { header, txn, digest: None }, Duration::ZERO);
        }
        let at = Position { segment: 1, offset: FIRST };
        let batch = group.take(Duration::ZERO).unwrap().place(SALT, at, Position::START, 0, Position::START);
        let mut bytes = HEADER.encode().to_vec();
        bytes.extend_from_slice(&batch.bytes);
        bytes.resize(4 * BLOCK, 0);
        (dir.join("log-0000000001"), bytes)
    }

    fn open(path: &Path, bytes: &[u8]) -> OpenSegment {
        fs::write(path, bytes).unwrap();
        OpenSegment::open(1, path.to_owned()).unwrap()
    }

    #[test]
    fn records_survive_beside_a_broken_one_as_long_as_it_is_known_where_they_begin() {
        let dir = tempfile::tempdir_in(".").unwrap();
        let (path, intact) = segment(dir.path());
        assert_eq!(open(&path, &intact).batch(FIRST).unwrap().unwrap().batch().entries().count(), 3);
        let len = u32::from_be_bytes(intact[BLOCK + BatchHeader::LEN..][..4].try_into().unwrap()) as usize;
        let second = BLOCK + BatchHeader::LEN + RECORD_HEAD + len;
        for (at, left) in [
            // Its data; its checksum; its length, made larger and smaller.
            (second + RECORD_HEAD + 50, &[0, 2][..]),
            (second + 5, &[0]),
            (second, &[0]),
            (second + 3, &[0]),
        ] {
            let mut bytes = intact.clone();
            bytes[at] ^= 0x41;
            let unreadable = open(&path, &bytes).batch(FIRST).unwrap().unwrap_err();
            assert_eq!(unreadable.offset, second as u64);
            let partial = unreadable.partial.unwrap();
            assert_eq!((partial.header.first, partial.header.last), (Zxid(5), Zxid(7)));
            let survivors = partial.survivors();
            assert_eq!(survivors.iter().map(|one| one.index).collect::<Vec<_>>(), left, "at {at}");
            for one in survivors {
                assert_eq!(TxnEntry::decode(one.entry).unwrap().header.zxid.0, 5 + i64::from(one.index));
                assert_eq!(&bytes[BLOCK + one.offset + RECORD_HEAD..][..len], one.entry);
            }
        }
    }

    #[test]
    fn a_broken_header_is_refused_and_looked_into_all_the_same() {
        let dir = tempfile::tempdir_in(".").unwrap();
        let (path, intact) = segment(dir.path());
        for (at, batch) in [(9, true), (20, false)] {
            let mut bytes = intact.clone();
            bytes[at] ^= 1;
            fs::write(&path, &bytes).unwrap();
            assert!(matches!(OpenSegment::open(1, path.clone()), Err(StorageError::Corrupt { offset: 0, .. })));
            let (segment, wrong) = OpenSegment::open_as_it_is(1, path.clone()).unwrap();
            assert!(wrong.is_some());
            assert_eq!(segment.batch(FIRST).unwrap().is_ok(), batch, "only the salt is needed");
        }
        let whole_name = OpenSegment::open(2, path.clone());
        assert!(whole_name.is_err(), "named otherwise");
        fs::write(&path, &intact[..3 * BLOCK]).unwrap();
        assert!(OpenSegment::open(1, path.clone()).is_err(), "cut off");
        fs::write(&path, b"").unwrap();
        assert!(OpenSegment::open_as_it_is(1, path).unwrap().0.batch(FIRST).unwrap().is_err());
    }

    #[test]
    fn what_a_recycled_file_held_before_is_told_apart_from_a_write_that_broke_off() {
        let dir = tempfile::tempdir_in(".").unwrap();
        let (path, mut bytes) = segment(dir.path());
        assert_eq!(open(&path, &bytes).trace(2 * FIRST, Zxid(7)).unwrap(), Trace::Nothing);
        // Another salt: the batch was written in an earlier life.
        bytes[..BLOCK].copy_from_slice(&SegmentHeader { salt: 1, ..HEADER }.encode());
        let segment = open(&path, &bytes);
        assert_eq!(segment.trace(FIRST, Zxid(7)).unwrap(), Trace::Earlier);
        assert_eq!(segment.trace(FIRST, Zxid(6)).unwrap(), Trace::Something, "nothing earlier has such a zxid");
        assert_eq!(segment.trace(4 * FIRST, Zxid(0)).unwrap(), Trace::Nothing, "the end");
        bytes.copy_within(BLOCK..2 * BLOCK, 2 * BLOCK);
        bytes[BLOCK] ^= 1;
        assert_eq!(open(&path, &bytes).trace(FIRST, Zxid(7)).unwrap(), Trace::Earlier, "in the middle of one");
    }
}
