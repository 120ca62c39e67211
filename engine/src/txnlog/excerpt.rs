//! Some transactions of a log that is in use, read by another thread than the one that appends.
//!
//! It begins with the last segment that is needed and follows the chain batch by batch, as recovery does, for as long as the caller
//! asks. Meanwhile batches are appended, and the oldest segments may be deleted: what was opened can still be read, and what
//! disappears before that is an error of this reader and nothing else. A segment that is used again under the reader has another
//! salt, so nothing in it checks out.
//!
//! **Invariants**: transactions are handed on without a gap, or not at all; nothing is judged to be damaged, and nothing is written;
//! memory is bounded by one batch; the system does not read ahead where it is still written, past the page cache.
//!
//! **Not here**: whether a log that ends is torn or damaged ([`super::recovery`]); who wants to read it.

use super::format::{BatchHeader, FIRST_BATCH};
use super::reader::OpenSegment;
use super::recovery::{Chain, LogRecord, Successors};
use super::segment;
use crate::error::StorageError;
use corral_proto::Zxid;
use std::path::{Path, PathBuf};

/// A log that is being read.
pub struct Excerpt {
    dir: PathBuf,
    segments: Vec<OpenSegment>,
    successors: Successors,
    chain: Chain,
}

impl Excerpt {
    /// Of the log in `dir`, from the last segment on that begins with transactions up to `from` or right after them.
    ///
    /// # Errors
    /// [`StorageError::Refused`] when the log does not reach back to there; [`StorageError::Io`] when the system fails.
    pub fn open(dir: &Path, from: Zxid) -> Result<Excerpt, StorageError> {
        let mut segments = Vec::new();
        let mut firsts: Vec<Option<BatchHeader>> = Vec::new();
        // The oldest are those that may disappear, so they are looked at last, and mostly not at all.
        for (number, path) in segment::list(dir)?.into_iter().rev() {
            let segment = OpenSegment::open_in_use(number, path)?;
            // The newest may hold nothing yet, or a batch that is just being written and that nobody wants.
            let first = segment.batch(FIRST_BATCH)?.ok().map(|batch| batch.header);
            if firsts.iter().any(Option::is_some) {
                segment.read_ahead();
            }
            segments.push(segment);
            firsts.push(first);
            if let Some(first) = first.filter(|first| first.prev_last <= from) {
                segments.reverse();
                firsts.reverse();
                let chain = Chain { end: first.prev, crc: first.prev_crc, last: first.prev_last, records: 0 };
                return Ok(Excerpt { dir: dir.to_owned(), successors: Successors::new(&firsts, 0), segments, chain });
            }
        }
        Err(StorageError::Refused { path: dir.to_owned(), why: format!("the log does not reach back to {from}") })
    }

    /// The last transaction that was handed on; at first the one before all that will be.
    pub fn last(&self) -> Zxid {
        self.chain.last
    }

    /// Hands the transactions of the next batch to `each`. False: there is none yet.
    ///
    /// # Errors
    /// [`StorageError::Refused`] when there is a gap in the log; [`StorageError::Corrupt`] when a batch holds what is no transaction;
    /// [`StorageError::Io`].
    pub fn next_batch(&mut self, mut each: impl FnMut(LogRecord<'_>)) -> Result<bool, StorageError> {
        let Some((index, at, batch)) = self.successors.next(&self.segments, &self.chain)? else { return Ok(false) };
        // A snapshot may have filled it, and nothing else has what is missing.
        if batch.header.prev_last != self.chain.last {
            let why =
                format!("a batch follows {}, but the one before it ends with {}", batch.header.prev_last, self.last());
            return Err(StorageError::Refused { path: self.dir.clone(), why });
        }
        let segment = &self.segments[index];
        self.chain.follow(segment, at, &batch.batch(), Zxid::ZERO, &mut |_, record| each(record))?;
        self.successors.stop = Some((index, self.chain.end.offset));
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::device::Device;
    use crate::disk::{BlockSize, LogIo, LogSync, Mode};
    use crate::txnlog::{Log, LogOptions, recover, recover_after};
    use corral_proto::{SessionId, Txn, TxnEntry, TxnHeader, Xid};
    use std::sync::Arc;
    use std::sync::mpsc::{Receiver, channel};
    use std::time::Duration;

    const BLOCK: usize = BlockSize::MAX.bytes();

    struct Rig {
        log: Log<Device>,
        ready: Receiver<()>,
    }

    /// A log goes on after `recover_after(from)`, in segments of three blocks: each takes two batches.
    fn open(dir: &Path, from: Zxid) -> Rig {
        let options = LogOptions {
            files: crate::disk::files::real(),
            dir: dir.to_owned(),
            mode: Mode { io: LogIo::Pwrite, sync: LogSync::Fdatasync, block: BlockSize::MAX, why: String::new() },
            segment_bytes: 3 * BLOCK as u64,
            pipeline_depth: 1,
            group_commit_delay: Duration::ZERO,
        };
        let (wake, ready) = channel();
        let recovered = recover_after(dir, from, |_| ()).unwrap();
        let device = Device::open(&options.mode).unwrap();
        let wake = Arc::new(move || wake.send(()).unwrap_or_default());
        Rig { log: Log::open(&options, device, &recovered, wake).unwrap(), ready }
    }

    impl Rig {
        /// One batch.
        fn append(&mut self, zxids: impl IntoIterator<Item = i64>) {
            for zxid in zxids {
                let header = TxnHeader { session: SessionId(1), cxid: Xid(2), zxid: Zxid(zxid), time_ms: 3 };
                let txn = Txn::SetData { path: "/a", data: Some(&[zxid as u8; 100]), version: 1 };
                self.log.group.append(&TxnEntry { header, txn, digest: None }, Duration::ZERO);
            }
            self.log.settle(&self.ready).unwrap();
        }

        /// Waits until the segments that were let go are gone.
        fn release(&mut self, upto: i64) {
            self.log.release(Zxid(upto));
            while segment::list(self.log.dir()).unwrap()[0].0 == 1 {
                std::thread::yield_now();
            }
        }
    }

    /// Before the first, and all that follow.
    fn read(dir: &Path, from: i64) -> Result<(i64, Vec<i64>), StorageError> {
        let mut excerpt = Excerpt::open(dir, Zxid(from))?;
        let (before, mut zxids) = (excerpt.last().0, Vec::new());
        while excerpt.next_batch(|record| zxids.push(record.entry.header.zxid.0))? {}
        assert_eq!(excerpt.last().0, zxids.last().copied().unwrap_or(before));
        Ok((before, zxids))
    }

    #[test]
    fn only_the_segments_that_are_needed_are_read_across_restarts() {
        let dir = tempfile::tempdir_in(".").unwrap();
        let mut rig = open(dir.path(), Zxid::ZERO);
        [1..3, 3..5, 5..7, 7..9].into_iter().for_each(|zxids| rig.append(zxids));
        drop(rig);
        let mut rig = open(dir.path(), Zxid::ZERO);
        rig.append(9..11);
        for (from, before) in [(0, 0), (3, 0), (4, 4), (7, 4), (8, 8), (10, 8), (99, 8)] {
            assert_eq!(read(dir.path(), from).unwrap(), (before, (before + 1..11).collect()), "from {from}");
        }
    }

    #[test]
    fn what_is_appended_meanwhile_follows_and_what_is_deleted_meanwhile_can_still_be_read() {
        let dir = tempfile::tempdir_in(".").unwrap();
        let mut rig = open(dir.path(), Zxid::ZERO);
        [1..3, 3..5, 5..7, 7..9].into_iter().for_each(|zxids| rig.append(zxids));
        let mut excerpt = Excerpt::open(dir.path(), Zxid(1)).unwrap();
        rig.release(6);
        let mut zxids = Vec::new();
        while excerpt.next_batch(|record| zxids.push(record.entry.header.zxid.0)).unwrap() {}
        assert_eq!(zxids, (1..9).collect::<Vec<_>>());
        assert!(!excerpt.next_batch(|_| ()).unwrap(), "nothing yet");
        let refused = read(dir.path(), 1).unwrap_err();
        assert!(matches!(&refused, StorageError::Refused { why, .. } if why.contains("reach back to")), "{refused}");
        rig.append(9..10);
        assert_eq!(read(dir.path(), 4).unwrap(), (4, (5..10).collect()));
    }

    /// A snapshot from elsewhere was newer than the log when it went on.
    #[test]
    fn a_gap_is_an_error_and_not_skipped() {
        let dir = tempfile::tempdir_in(".").unwrap();
        open(dir.path(), Zxid::ZERO).append(1..5);
        open(dir.path(), Zxid(9)).append(10..12);
        let refused = read(dir.path(), 3).unwrap_err();
        assert!(matches!(&refused, StorageError::Refused { why, .. } if why.contains("follows")), "{refused}");
        assert_eq!(read(dir.path(), 9).unwrap(), (9, vec![10, 11]));
    }

    #[test]
    fn how_far_back_it_is_worth_reading_depends_on_what_is_really_there() {
        let dir = tempfile::tempdir_in(".").unwrap();
        let mut rig = open(dir.path(), Zxid::ZERO);
        let block = BLOCK as u64;
        assert_eq!(rig.log.reach(u64::MAX), None, "there is nothing to read");
        [1..3, 3..5, 5..7].into_iter().for_each(|zxids| rig.append(zxids));
        let reaches = |rig: &Rig, blocks: u64| rig.log.reach(blocks * block).map(|zxid| zxid.0);
        assert_eq!([1, 2, 4, 5, 9].map(|blocks| reaches(&rig, blocks)), [None, Some(4), Some(4), Some(0), Some(0)]);
        drop(rig);
        // The rest of the last segment stays empty, and does not count.
        let mut rig = open(dir.path(), Zxid::ZERO);
        assert_eq!(recover(dir.path(), |_| ()).unwrap().extents.len(), 2);
        assert_eq!([1, 2, 4, 5].map(|blocks| reaches(&rig, blocks)), [None, Some(4), Some(4), Some(0)]);
        [7..9, 9..11, 11..13].into_iter().for_each(|zxids| rig.append(zxids));
        assert_eq!(
            [4, 5, 7, 9, 10].map(|blocks| reaches(&rig, blocks)),
            [Some(10), Some(6), Some(4), Some(4), Some(0)]
        );
        rig.release(5);
        assert_eq!(reaches(&rig, 99), Some(4));
    }
}
