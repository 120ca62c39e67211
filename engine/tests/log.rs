//! What the log reported durable is there after a restart: every mode, every size, restart after restart.
//!
//! **Not here**: torn ends and damage (`log_damage.rs`); several writes in flight, lost and failed ones, the model
//! (`log_pipeline.rs`).

mod common;

use common::*;
use corral_engine::StorageError;
use corral_engine::disk::device::Device;
use corral_engine::disk::simulated::Platter;
use corral_engine::disk::{BlockSize, LogIo, LogSync, Mode, round_up};
use corral_engine::txnlog::format::SegmentHeader;
use corral_engine::txnlog::group::BATCH_BYTES;
use corral_engine::txnlog::segment::file_name;
use corral_engine::txnlog::workshop::Workshop;
use corral_engine::txnlog::{Excerpt, Log, LogOptions, Position, segment};
use corral_proto::Zxid;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use std::fs;
use std::io;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::time::Duration;

/// The smallest segment that the tests use, so that switches are frequent.
const SMALL: u64 = 64 << 10;

/// What this machine can do of the mode that a server picks by itself, and of the one that works everywhere, with the largest and the
/// smallest blocks.
fn main_modes(dir: &Path) -> Vec<Mode> {
    modes_in(dir, &[BlockSize::MAX, BlockSize::MIN])
}

fn modes_in(dir: &Path, blocks: &[BlockSize]) -> Vec<Mode> {
    let wanted = [(LogIo::UringDirect, LogSync::Dsync), (LogIo::Pwrite, LogSync::Fdatasync)];
    let in_blocks = |block: &BlockSize| wanted.map(|(io, sync)| mode_if_possible(dir, io, sync, *block));
    blocks.iter().flat_map(in_blocks).flatten().collect()
}

/// Several lives, each a few batches of a few records. After each the log is dropped without any goodbye, what is read back
/// must be what was reported durable, and the batches on the disk must form the chain that the format promises.
fn live_on(mode: &Mode, segment_bytes: u64, depth: usize, lives: usize, size: impl Fn(&mut SmallRng) -> usize) {
    let (dir, mut rng) = (tempdir(), seeded());
    let mut history: Vec<Vec<u8>> = Vec::new();
    for life in 0..lives {
        let what = format!("life {life} of {}/{}/{}, segments of {segment_bytes}", mode.io, mode.sync, mode.block);
        let mut log = Life::on_device(dir.path(), mode, segment_bytes, depth);
        assert_same(&log.history, &history, &what);
        let recovered = log.recovered.clone();
        let before = batches(dir.path()).len();
        for _ in 0..rng.random_range(1..8) {
            for _ in 0..rng.random_range(1..6) {
                log.append(size(&mut rng));
            }
            log.submit();
            log.wait();
        }
        log.settle();
        let counters = log.log.counters();
        let written = log.history[history.len()..].iter();
        assert_eq!(counters.records, written.clone().count() as u64);
        assert_eq!(counters.record_bytes, written.map(|record| record.len() as u64).sum::<u64>());
        history = log.history.clone();
        drop(log);

        let found = batches(dir.path());
        assert_eq!(counters.batches, (found.len() - before) as u64);
        assert_eq!(counters.written_bytes, found[before..].iter().map(|batch| (batch.end() - batch.at) as u64).sum());
        assert!(found[before].segment >= recovered.next_segment, "a new life begins in a new segment");
        assert_eq!(found[before].header.durable, recovered.end, "and says that what recovery found is durable");
        let mut end = Position::START;
        for batch in &found {
            assert_eq!(batch.header.prev, end, "{what}: each batch names the end of the one before it");
            assert!(batch.header.durable <= end, "nothing is durable before it was written");
            assert!(depth > 1 || batch.header.durable == end, "one write at a time");
            end = batch.end_position();
            let bytes = fs::read(&batch.path).unwrap();
            let padding = &bytes[batch.data_end()..batch.end()];
            assert!(padding.iter().all(|byte| *byte == 0), "nothing of an older batch is in the padding");
        }
        let (_, recovered) = read_back(dir.path()).unwrap();
        assert_eq!((recovered.end, recovered.torn), (end, None));
        let last_file = segment::list(dir.path()).unwrap().pop().unwrap().0;
        assert_eq!(recovered.next_segment, last_file + 1);
        assert!(recovered.unused.iter().all(|path| found.iter().all(|batch| batch.path != *path)));
    }
    assert_same(&read_back(dir.path()).unwrap().0, &history, "the end");
}

#[test]
fn what_was_reported_durable_is_recovered_restart_after_restart() {
    let dir = tempdir();
    for mode in main_modes(dir.path()) {
        live_on(&mode, SMALL, 1, 5, |rng| rng.random_range(0..9000));
        live_on(&mode, SMALL, 3, 5, |rng| rng.random_range(0..20_000));
        live_on(&mode, 1 << 20, 1, 3, |rng| if rng.random_bool(0.2) { rng.random_range(0..700_000) } else { 100 });
    }
}

#[test]
fn records_larger_than_a_segment_or_a_batch_are_recovered() {
    let dir = tempdir();
    for mode in main_modes(dir.path()) {
        let larger_than_a_segment = [200, 3 * SMALL as usize, SMALL as usize - BLOCK, 0];
        live_on(&mode, SMALL, 1, 3, |rng| larger_than_a_segment[rng.random_range(0..4)]);
        // Their batches fit by a byte or miss by one.
        let exact = data_len((SMALL as usize / BLOCK) - 1, 0);
        live_on(&mode, SMALL, 2, 3, |rng| exact + rng.random_range(0..3) - 1);
    }
    for mode in main_modes(dir.path()) {
        let dir = tempdir();
        let mut log = Life::on_device(dir.path(), &mode, 1 << 20, 2);
        for len in [10, 4 * BATCH_BYTES, 10, BATCH_BYTES, 10] {
            log.append(len);
        }
        log.settle();
        let history = log.history.clone();
        drop(log);
        let mut log = Life::on_device(dir.path(), &mode, 1 << 20, 2);
        assert_same(&log.history, &history, "after the first restart");
        log.commit_one(4 * BATCH_BYTES);
        let history = log.history.clone();
        drop(log);
        assert_same(&read_back(dir.path()).unwrap().0, &history, "after the second restart");
    }
}

#[test]
fn every_mode_of_io_and_sync_recovers_what_it_reported() {
    let dir = tempdir();
    for io in [LogIo::UringDirect, LogIo::UringBuffered, LogIo::Pwrite] {
        for sync in [LogSync::Dsync, LogSync::Fdatasync, LogSync::Fsync, LogSync::None] {
            let Some(mode) = mode_if_possible(dir.path(), io, sync, BlockSize::MAX) else { continue };
            live_on(&mode, SMALL, 2, 2, |rng| rng.random_range(0..12_000));
        }
    }
}

/// A server may be moved to another mode between two starts, or its directory to a disk with other blocks.
#[test]
fn a_log_goes_on_in_another_mode_and_in_other_blocks() {
    let dir = tempdir();
    let modes = modes_in(dir.path(), &BlockSize::ALL);
    let mut wanted = Vec::new();
    for mode in modes.iter().chain(modes.iter().rev()) {
        let mut log = Life::on_device(dir.path(), mode, SMALL, 1);
        assert_same(&log.history, &wanted, "another mode");
        (0..12).for_each(|n| log.commit_one(if n % 2 == 0 { 10 } else { 12_000 }));
        wanted = log.history;
    }
    assert_same(&read_back(dir.path()).unwrap().0, &wanted, "the end");
    let found = batches(dir.path());
    for block in BlockSize::ALL {
        assert!(found.iter().any(|batch| batch.block == block && batch.end() - batch.at == block.bytes()), "{block}");
    }
    let (mut excerpt, mut read) = (Excerpt::open(dir.path(), Zxid(20)).unwrap(), Vec::new());
    let first = excerpt.last().0 as usize;
    while excerpt.next_batch(|record| read.push(record.bytes.to_vec())).unwrap() {}
    assert_same(&read, &wanted[first..], "an excerpt");
}

#[test]
fn an_empty_directory_is_an_empty_log_and_a_missing_one_an_error() {
    let dir = tempdir();
    let (records, recovered) = read_back(dir.path()).unwrap();
    assert!(records.is_empty() && recovered.unused.is_empty() && recovered.torn.is_none());
    assert_eq!((recovered.end, recovered.next_segment), (Position::START, 1));
    let missing = dir.path().join("missing");
    assert!(matches!(read_back(&missing), Err(StorageError::Io { path, .. }) if path == missing));
}

#[test]
fn restarts_without_writes_leave_no_segments_behind() {
    let dir = tempdir();
    let mode = mode(LogIo::Pwrite, LogSync::Fdatasync);
    let mut log = Life::on_device(dir.path(), &mode, SMALL, 1);
    (0..10).for_each(|_| log.commit_one(9000));
    let wanted = log.history.clone();
    drop(log);
    let held = batches(dir.path()).last().unwrap().segment;
    for _ in 0..5 {
        let log = Life::on_device(dir.path(), &mode, SMALL, 1);
        assert_same(&log.history, &wanted, "a restart without writes");
        drop(log);
        let unused = read_back(dir.path()).unwrap().1.unused;
        assert_eq!(unused.len(), 1, "the one that the last life had made and did not need");
        assert_eq!(segment::list(dir.path()).unwrap().len(), held as usize + 1);
    }
}

/// A crash while a segment is made leaves a file without its name: of any length, with anything in it.
#[test]
fn a_half_made_segment_is_ignored_and_made_anew() {
    let (dir, mut rng) = (tempdir(), seeded());
    let mode = mode(LogIo::Pwrite, LogSync::Fdatasync);
    let mut wanted = Vec::new();
    for len in [0, 1, BLOCK, SMALL as usize, 3 * SMALL as usize] {
        let (_, recovered) = read_back(dir.path()).unwrap();
        let unnamed = dir.path().join(format!("{}.new", file_name(recovered.next_segment)));
        fs::write(&unnamed, garbage(&mut rng, len)).unwrap();
        assert_eq!(read_back(dir.path()).unwrap().1, recovered);
        let mut log = Life::on_device(dir.path(), &mode, SMALL, 1);
        assert_same(&log.history, &wanted, "beside a half-made segment");
        (0..3).for_each(|_| log.commit_one(9000));
        wanted = log.history.clone();
        drop(log);
        assert!(!unnamed.exists(), "it was written over");
        for (_, path) in segment::list(dir.path()).unwrap() {
            let size = segment::parse_name(&path).and_then(|(_, end)| end).map_or(SMALL, u64::from);
            assert_eq!(fs::metadata(path).unwrap().len(), size);
        }
    }
    assert_same(&read_back(dir.path()).unwrap().0, &wanted, "the end");
}

/// A crash may come between the deletion of one unused segment and the next; whatever is left, the log is the same.
#[test]
fn a_crash_while_unused_segments_are_deleted_changes_nothing() {
    let dir = tempdir();
    let mode = held_mode();
    let held = Held::default();
    let mut log = Life::start(dir.path(), held.clone(), &mode, SMALL, 4);
    log.submit_one(data_len(1, 0));
    held.finish(0);
    log.complete().unwrap();
    // Each fills a segment of its own. The first is lost, the others reach the disk.
    (0..4).for_each(|_| log.submit_one(data_len(15, 0)));
    held.take()[1..].iter().for_each(land);
    let wanted = log.history[..1].to_vec();
    drop(log);
    let (_, recovered) = read_back(dir.path()).unwrap();
    assert!(recovered.unused.len() >= 4, "{recovered:?}");
    for left in 0..1 << recovered.unused.len() {
        let crashed = copy(dir.path());
        for (index, path) in recovered.unused.iter().enumerate() {
            if left & 1 << index == 0 {
                fs::remove_file(moved(path, crashed.path())).unwrap();
            }
        }
        let (records, again) = read_back(crashed.path()).unwrap();
        assert_same(&records, &wanted, "after some deletions");
        assert_eq!((again.end, again.last), (recovered.end, recovered.last));
        if left % 5 == 0 {
            let mut log = Life::on_device(crashed.path(), &mode, SMALL, 1);
            (0..3).for_each(|_| log.commit_one(data_len(15, 0)));
            let wanted = log.history.clone();
            drop(log);
            assert_same(&read_back(crashed.path()).unwrap().0, &wanted, "after some deletions and new records");
        }
    }
}

/// What an earlier life of the same blocks left behind: a batch that is right in every byte, where the next batch would
/// stand, that would continue the chain and claims to be durable, but under another salt or for another place.
#[test]
fn stale_bytes_of_an_earlier_life_never_parse() {
    let dir = tempdir();
    let mode = mode(LogIo::Pwrite, LogSync::Fdatasync);
    let mut log = Life::on_device(dir.path(), &mode, SMALL, 1);
    (0..3).for_each(|_| log.commit_one(100));
    let mut wanted = log.history.clone();
    drop(log);
    let (_, recovered) = read_back(dir.path()).unwrap();
    let path = dir.path().join(file_name(recovered.end.segment));
    let salt = SegmentHeader::parse(&fs::read(&path).unwrap()).unwrap().salt;
    let (end, next) = (recovered.end, wanted.len() as i64 + 1);
    let further = |blocks: usize| Position { offset: end.offset + (blocks * BLOCK) as u32, ..end };
    let batch = |salt, at| foreign_batch(next, 100, salt, at, (end, recovered.end_crc), end);
    let claim = |salt, at| foreign_batch(next + 1, 100, salt, at, (further(1), 0), further(1));

    // To prove that this test would see it: with the right salt in the right place, the same bytes count.
    let control = copy(dir.path());
    overwrite(&moved(&path, control.path()), end.offset as usize, &batch(salt, end));
    assert_eq!(read_back(control.path()).unwrap().1.records, 4);
    let control = copy(dir.path());
    overwrite(&moved(&path, control.path()), further(1).offset as usize, &claim(salt, further(1)));
    assert!(matches!(read_back(control.path()), Err(StorageError::Corrupt { .. })));

    let stale = [(salt ^ 1, end), (salt.rotate_left(8), end), (0, end), (salt, further(1)), (salt, Position::START)];
    for (salt, at) in stale {
        let stale = copy(dir.path());
        let path = moved(&path, stale.path());
        overwrite(&path, end.offset as usize, &batch(salt, at));
        overwrite(&path, further(1).offset as usize, &claim(salt ^ 2, further(1)));
        overwrite(&path, further(2).offset as usize, &claim(salt, at));
        let (records, again) = read_back(stale.path()).unwrap();
        assert_same(&records, &wanted, "beside stale bytes");
        assert_eq!((again.end, again.torn), (end, Some((path, u64::from(end.offset)))));
        let mut log = Life::on_device(stale.path(), &mode, SMALL, 1);
        log.commit_one(100);
        let wanted = log.history.clone();
        drop(log);
        assert_same(&read_back(stale.path()).unwrap().0, &wanted, "after going on beside stale bytes");
    }

    // The whole file was another segment before: everything but its header is stale.
    let other = tempdir();
    let mut log = Life::on_device(other.path(), &mode, SMALL, 1);
    (0..13).for_each(|_| log.commit_one(100));
    drop(log);
    let mut bytes = fs::read(&path).unwrap();
    let end = end.offset as usize;
    bytes[end..].copy_from_slice(&fs::read(moved(&path, other.path())).unwrap()[end..]);
    fs::write(&path, bytes).unwrap();
    assert_same(&read_back(dir.path()).unwrap().0, &wanted, "in a file that was another segment");
    let mut log = Life::on_device(dir.path(), &mode, SMALL, 1);
    log.commit_one(100);
    wanted = log.history.clone();
    drop(log);
    assert_same(&read_back(dir.path()).unwrap().0, &wanted, "after going on");
}

/// Segments that only hold what a snapshot holds too become later ones, with all their old bytes behind a new header.
#[test]
fn a_recycled_segment_shows_nothing_of_what_it_held() {
    let dir = tempdir();
    for mode in main_modes(dir.path()) {
        let dir = tempdir();
        let (mut snapshot, mut history, mut stale) = (0, Vec::new(), 0);
        for _ in 0..4 {
            let mut log = Life::after(dir.path(), snapshot, Device::open(&mode).unwrap(), &mode, SMALL, 1);
            assert_same(&log.history[snapshot..], &history[snapshot..], "after the snapshot");
            log.history.splice(..snapshot, history[..snapshot].iter().cloned());
            for _ in 0..3 {
                (0..20).for_each(|_| log.commit_one(5000));
                // Some way back, as the oldest snapshot that is kept.
                snapshot = log.history.len() - 15;
                log.log.release(Zxid(snapshot as i64));
            }
            history = log.history.clone();
            drop(log);
            let segments = segment::list(dir.path()).unwrap();
            assert!(segments.len() < 20, "what is not needed goes: {segments:?}");
            let bytes: Vec<u8> = segments.iter().flat_map(|(_, path)| fs::read(path).unwrap()).collect();
            let begun = bytes.chunks(mode.block.bytes()).filter(|block| block.starts_with(b"CoBt")).count();
            stale += begun - batches(dir.path()).len();
            let without = read_back(dir.path()).map(|(_, recovered)| recovered);
            assert!(matches!(without, Err(StorageError::Corrupt { .. })), "the snapshot is needed now: {without:?}");
        }
        let (records, _) = read_back_after(dir.path(), snapshot).unwrap();
        assert_same(&records[snapshot..], &history[snapshot..], "the end");
        assert!(stale > 0, "there were batches of earlier lives of the same files");
    }
}

/// Pages of a file that are in memory only, by `cachestat` (since Linux 6.5).
#[expect(unsafe_code, reason = "there is no safe way to ask for this")]
fn pages_not_on_disk(path: &Path) -> io::Result<u64> {
    const CACHESTAT: libc::c_long = 451;
    let file = fs::File::open(path)?;
    // An offset and a length (zero: to the end); pages cached, dirty, under writeback, evicted, recently evicted.
    let (range, mut counts) = ([0u64; 2], [0u64; 5]);
    // SAFETY: both arrays have the layout that the kernel reads and writes, and live until the call returns.
    let result = unsafe { libc::syscall(CACHESTAT, file.as_raw_fd(), range.as_ptr(), counts.as_mut_ptr(), 0) };
    if result == 0 { Ok(counts[1] + counts[2]) } else { Err(io::Error::last_os_error()) }
}

/// A process that died between a buffered write and its sync leaves a batch that can be read but is not on the disk. As soon
/// as the next life has served it, or has built on it, a power loss may not take it any more.
#[test]
fn what_recovery_found_is_on_the_disk_before_anything_is_built_on_it() {
    let dir = tempdir();
    let held = Held::default();
    let mut life = Life::start(dir.path(), held.clone(), &held_mode(), SMALL, 1);
    life.submit_one(10_000);
    held.take().iter().for_each(land);
    drop(life);
    let path = dir.path().join(file_name(1));
    match pages_not_on_disk(&path) {
        Ok(0) => return eprintln!("not tested here: what is written is on the disk at once"),
        Ok(_) => {}
        Err(error) => return eprintln!("not tested here: no cachestat ({error})"),
    }
    let mode = mode(LogIo::Pwrite, LogSync::Fdatasync);
    let life = Life::on_device(dir.path(), &mode, SMALL, 1);
    assert_eq!(life.history.len(), 1, "it was read back");
    let (_, path) = segment::list(dir.path()).unwrap().remove(0);
    assert_eq!(pages_not_on_disk(&path).unwrap(), 0, "and is on the disk now");
}

/// Every start began a segment and kept the one before as it was: 64 MiB a restart, until the disk was full.
#[test]
fn five_hundred_restarts_with_a_write_each_cost_a_few_blocks_each() {
    let dir = tempdir();
    let mode = mode(LogIo::Pwrite, LogSync::None);
    let bytes = || -> u64 { contents(dir.path()).values().map(|bytes| bytes.len() as u64).sum() };
    for restart in 1..=500 {
        let mut life = Life::on_device(dir.path(), &mode, SMALL, 1);
        assert_eq!(life.history.len() as u64, restart - 1);
        life.commit_one(100);
        drop(life);
        assert!(bytes() <= 2 * SMALL + restart * 2 * BLOCK as u64, "{} bytes after {restart} restarts", bytes());
    }
}

/// A log whose files are on a simulated disk.
fn options_on(dir: &Path, platter: Platter) -> LogOptions {
    LogOptions {
        files: Arc::new(platter),
        dir: dir.to_owned(),
        mode: held_mode(),
        segment_bytes: 1 << 16,
        pipeline_depth: 1,
        group_commit_delay: Duration::ZERO,
    }
}

/// A server whose disk is nearly full must start all the same: it can make room then.
#[test]
fn the_first_segment_of_a_life_is_smaller_where_there_is_not_more_room() {
    let dir = tempdir();
    let platter = Platter::new(dir.path(), 1);
    platter.set_room(1 << 20);
    let mut workshop = Workshop::new(&options_on(dir.path(), platter), SmallRng::seed_from_u64(1));
    assert_eq!(workshop.make(1, 8 << 20).unwrap().header.size, 1 << 20);
    assert!(workshop.make(2, 8 << 20).is_err(), "a running server does not use up the last room");
}

/// A segment is ready, header and all, before it is used: whatever file has the name of one can be opened.
#[test]
fn a_new_segment_says_what_it_is_before_anything_is_in_it() {
    let dir = tempdir();
    for mode in main_modes(dir.path()) {
        let dir = tempdir();
        drop(Life::<Device>::on_device(dir.path(), &mode, SMALL + 1, 1));
        let (number, path) = segment::list(dir.path()).unwrap().remove(0);
        let bytes = fs::read(&path).unwrap();
        let header = SegmentHeader::parse(&bytes).unwrap();
        assert_eq!((number, header.number, header.size), (1, 1, round_up(SMALL as usize + 1) as u64));
        assert_eq!(bytes.len() as u64, header.size);
        assert!(bytes[BLOCK..].iter().all(|byte| *byte == 0));
    }
}

/// A tool that writes a log has nobody who makes room: it ends with the reason, where a server waits and tries again.
#[test]
fn whoever_writes_a_log_and_does_nothing_else_is_told_that_there_is_no_room() {
    let dir = tempdir();
    let recovered = read_back(dir.path()).unwrap().1;
    let (wake, ready) = channel();
    let platter = Platter::new(dir.path(), 1);
    platter.set_room(0);
    let options = options_on(dir.path(), platter);
    let wake = Arc::new(move || wake.send(()).unwrap_or(()));
    let mut log = Log::open(&options, Device::open(&options.mode).unwrap(), &recovered, wake).unwrap();
    log.group.append_encoded(Zxid(1), b"a transaction", NOW);
    let error = log.settle(&ready).unwrap_err();
    assert!(matches!(error, StorageError::Full { .. }), "{error}");
}
