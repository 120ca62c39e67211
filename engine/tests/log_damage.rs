//! Where the log ends, and where it is broken: a torn last batch is left out, anything else that cannot be read is named.
//!
//! The logs here are written one batch at a time, so that each batch says that everything before it was durable. What can
//! then be damaged without being noticed is the last batch alone: it looks like one that was torn before it was acknowledged.
//!
//! **Not here**: several writes in flight (`log_pipeline.rs`).

mod common;

use common::*;
use corral_engine::StorageError;
use corral_engine::disk::{BlockSize, LogIo, LogSync, Mode};
use corral_engine::txnlog::format::{BatchHeader, SegmentHeader};
use corral_engine::txnlog::segment::{self, file_name};
use rand::Rng;
use rand::rngs::SmallRng;
use std::fs;
use std::path::Path;
use tempfile::TempDir;

const SEGMENT: u64 = 64 << 10;

fn plain(block: BlockSize) -> Mode {
    Mode { block, ..mode(LogIo::Pwrite, LogSync::Fdatasync) }
}

/// A log of two lives and four or more segments, and its records. `last` are the lengths of the records of the last batch.
fn sample(rng: &mut SmallRng, block: BlockSize, last: &[usize]) -> (TempDir, Vec<Vec<u8>>) {
    let dir = tempdir();
    for life in 0..2 {
        let mut log = Life::on_device(dir.path(), &plain(block), SEGMENT, 1);
        for _ in 0..12 {
            log.append(rng.random_range(4000..9000));
            (0..rng.random_range(0..3)).for_each(|_| log.append(rng.random_range(0..3000)));
            log.settle();
        }
        if life == 1 {
            last.iter().for_each(|len| log.append(*len));
            log.settle();
            let history = log.history.clone();
            drop(log);
            return (dir, history);
        }
    }
    unreachable!("the second life returns");
}

/// Goes on in `dir` with batches of many sizes, one of them of `len` bytes, and restarts twice: old and new, nothing else.
fn go_on(dir: &Path, block: BlockSize, wanted: &[Vec<u8>], len: usize) {
    let mut wanted = wanted.to_vec();
    for _ in 0..2 {
        let mut log = Life::on_device(dir, &plain(block), SEGMENT, 1);
        assert_same(&log.history, &wanted, "before going on");
        [len, 10, 9000].into_iter().for_each(|len| log.commit_one(len));
        wanted = log.history;
    }
    let (records, recovered) = read_back(dir).unwrap();
    assert_same(&records, &wanted, "after going on");
    assert_eq!(recovered.torn, None);
}

/// Recovers a log whose last batch may be torn: all of `history` if that batch is `whole`, else all but its records.
fn check_torn(dir: &Path, history: &[Vec<u8>], last: &Found, whole: bool, what: &str) -> Vec<Vec<u8>> {
    let before = contents(dir);
    let (records, recovered) = read_back(dir).unwrap_or_else(|error| panic!("{what}: {error}"));
    let kept = if whole { history.len() } else { history.len() - last.header.count as usize };
    assert_same(&records, &history[..kept], what);
    assert_eq!(recovered.end, if whole { last.end_position() } else { last.header.prev }, "{what}");
    let path = moved(&last.path, dir);
    let (end, beyond) = (if whole { last.end() } else { last.at }, &before[&path]);
    if beyond[end..].iter().take(last.block.bytes()).any(|byte| *byte != 0) {
        assert_eq!(recovered.torn, Some((path, end as u64)), "{what}: something unreadable is there");
    } else if beyond[end..].iter().all(|byte| *byte == 0) {
        assert_eq!(recovered.torn, None, "{what}: nothing unreadable is there");
    }
    assert_eq!(read_back(dir).unwrap(), (records.clone(), recovered), "{what}: twice gives the same");
    assert!(contents(dir) == before, "{what}: recovery changes nothing");
    records
}

/// The last batch is cut, zeroed or garbled at every block and at many bytes of it: a write that a power loss interrupted.
fn tear_everywhere(last: &[usize], rng: &mut SmallRng) {
    for block in [BlockSize::MIN, BlockSize::MAX] {
        tear(block, last, rng);
    }
}

fn tear(size: BlockSize, last: &[usize], rng: &mut SmallRng) {
    let (dir, history) = sample(rng, size, last);
    let last = batches(dir.path()).pop().unwrap();
    assert_eq!(last.block, size);
    assert!(last.at == BLOCK || last.header.len < 14 * BLOCK as u32 - 100);
    let intact = fs::read(&last.path).unwrap();
    let mut places: Vec<usize> = (last.at..last.end()).step_by(BLOCK).collect();
    let blocks = places.len();
    places.extend((0..24).map(|_| rng.random_range(last.at..last.data_end())));
    places.extend((0..24).map(|_| rng.random_range(last.at..last.data_end()) / size.bytes() * size.bytes()));
    places.extend([last.end(), last.at + 1, last.at + BatchHeader::LEN, last.data_end() - 1]);
    for (index, from) in places.into_iter().enumerate() {
        if from == intact.len() {
            continue;
        }
        let (block, end) = ((from + 1).next_multiple_of(size.bytes()), last.end().max(from));
        let until = rng.random_range(from..intact.len()) + 1;
        let ways = [
            (end, true, "zeros from here to the end of the batch"),
            (end, false, "garbage from here to the end of the batch"),
            (intact.len(), false, "garbage from here to the end of the segment"),
            (block, true, "a block of zeros"),
            (block, false, "a block of garbage"),
            (until, false, "a stretch of garbage"),
            (from + 1, false, "a byte"),
        ];
        for (way, (to, zeros, what)) in ways.into_iter().enumerate() {
            let what = format!("{what}, {} of {} bytes", from - last.at, last.header.len);
            let mut torn = intact.clone();
            torn[from..to].copy_from_slice(&if zeros { vec![0; to - from] } else { garbage(rng, to - from) });
            fs::write(&last.path, &torn).unwrap();
            let data = last.at..last.data_end();
            let whole = torn[data.clone()] == intact[data];
            let records = check_torn(dir.path(), &history, &last, whole, &what);
            // Restarts cost syncs: at every block, but not in every way at each.
            if (index < blocks || index % 16 == 0) && (index + way) % 3 == 0 {
                go_on(copy(dir.path()).path(), size, &records, last.heads[0].1 - record_overhead());
            }
        }
    }
}

#[test]
fn a_torn_batch_of_one_block_is_left_out() {
    tear_everywhere(&[300], &mut seeded());
}

#[test]
fn a_torn_batch_of_many_blocks_is_left_out() {
    tear_everywhere(&[9000, 0, 4096, 5000], &mut seeded());
}

#[test]
fn a_torn_batch_without_padding_is_left_out() {
    tear_everywhere(&[data_len(3, 0)], &mut seeded());
}

/// The last batch is the first of its segment: then the whole segment holds nothing, and may be deleted.
#[test]
fn a_torn_batch_in_a_new_segment_is_left_out() {
    // One block short of a segment, and no other batch of the sample is that small.
    tear_everywhere(&[data_len(14, 100)], &mut seeded());
}

#[test]
fn damage_in_the_padding_is_harmless() {
    let rng = &mut seeded();
    let (dir, history) = sample(rng, BlockSize::MAX, &[100]);
    for batch in batches(dir.path()) {
        let mut bytes = fs::read(&batch.path).unwrap();
        bytes[batch.data_end()..batch.end()].fill_with(|| rng.random());
        fs::write(&batch.path, bytes).unwrap();
    }
    let (records, recovered) = read_back(dir.path()).unwrap();
    assert_same(&records, &history, "with damaged padding");
    assert_eq!(recovered.torn, None);
    go_on(dir.path(), BlockSize::MAX, &history, 100);
}

/// Asserts that the log is reported damaged, in which file and where, and that nothing was changed.
#[track_caller]
fn check_corrupt(dir: &Path, file: &Path, offsets: impl std::ops::RangeBounds<u64>, what: &str) -> String {
    let before = contents(dir);
    match read_back(dir) {
        Err(StorageError::Corrupt { file: named, offset, why }) => {
            assert_eq!(named, file, "{what}: the damaged file is named, not another one ({why})");
            assert!(offsets.contains(&offset), "{what}: it is not at {offset} ({why})");
            assert!(contents(dir) == before, "{what}: nothing was changed");
            why
        }
        other => panic!("{what} gives {:?}", other.map(|(_, recovered)| recovered)),
    }
}

/// Flips a bit in every byte of the header and of the heads of the records, and in some of the records' own bytes.
fn flip_everywhere(first_of_segment: bool) {
    for block in [BlockSize::MIN, BlockSize::MAX] {
        flip_in(block, first_of_segment);
    }
}

fn flip_in(block: BlockSize, first_of_segment: bool) {
    let rng = &mut seeded();
    let (dir, history) = sample(rng, block, &[100, 200]);
    let found = batches(dir.path());
    let last = found.len() - 1;
    let mut tried = 0;
    for (index, batch) in found[..last].iter().enumerate() {
        if (index > 0 && found[index - 1].segment != batch.segment) != first_of_segment {
            continue;
        }
        tried += 1;
        let mut places: Vec<usize> = (batch.at..batch.at + BatchHeader::LEN).collect();
        for (head, len) in &batch.heads {
            places.extend((0..8).map(|byte| batch.at + head + byte));
            places.extend((0..8).map(|_| batch.at + head + 8 + rng.random_range(0..*len)));
        }
        let intact = fs::read(&batch.path).unwrap();
        for place in places {
            let mut damaged = intact.clone();
            flip(&mut damaged, place, rng);
            fs::write(&batch.path, &damaged).unwrap();
            let what = format!("byte {} of batch {index}", place - batch.at);
            check_corrupt(dir.path(), &batch.path, batch.at as u64..batch.data_end() as u64, &what);
        }
        fs::write(&batch.path, &intact).unwrap();
    }
    assert!(tried > 1, "the sample has such batches");
    assert_same(&read_back(dir.path()).unwrap().0, &history, "undamaged again");
}

#[test]
fn a_flipped_bit_in_a_batch_is_damage_if_a_later_one_was_written_after_it_was_durable() {
    flip_everywhere(false);
}

/// The chain ends in the segment before, but that one is well: the operator must be pointed to the file that is not.
#[test]
fn a_flipped_bit_in_the_first_batch_of_a_later_segment_is_damage_of_that_segment() {
    flip_everywhere(true);
}

#[test]
fn the_report_of_damage_says_what_was_lost_and_what_to_do() {
    let rng = &mut seeded();
    let (dir, _) = sample(rng, BlockSize::MAX, &[100]);
    let batch = batches(dir.path()).remove(2);
    overwrite(&batch.path, batch.at + 60, &[0xaa; 4]);
    let why = check_corrupt(dir.path(), &batch.path, batch.at as u64..batch.data_end() as u64, "a damaged record");
    let message = read_back(dir.path()).unwrap_err().to_string();
    let kept = batch.header.first.0 - 1;
    assert!(why.contains(&format!("the last transaction before it is {}", corral_proto::Zxid(kept))), "{why}");
    assert!(message.contains("nothing was changed") && message.contains("Restore the directory"), "{message}");
}

#[test]
fn a_whole_batch_that_was_zeroed_is_damage() {
    let rng = &mut seeded();
    let (dir, _) = sample(rng, BlockSize::MAX, &[100]);
    let found = batches(dir.path());
    for batch in &found[..found.len() - 1] {
        let damaged = copy(dir.path());
        overwrite(&moved(&batch.path, damaged.path()), batch.at, &vec![0; batch.end() - batch.at]);
        assert!(matches!(read_back(damaged.path()), Err(StorageError::Corrupt { .. })), "{batch:?}");
    }
}

#[test]
fn a_missing_segment_in_the_middle_is_damage() {
    let rng = &mut seeded();
    let (dir, _) = sample(rng, BlockSize::MAX, &[100]);
    let last = batches(dir.path()).last().unwrap().segment;
    for (number, path) in segment::list(dir.path()).unwrap() {
        let without = copy(dir.path());
        fs::remove_file(moved(&path, without.path())).unwrap();
        let found = read_back(without.path()).map(|(_, recovered)| recovered);
        assert_eq!(matches!(found, Err(StorageError::Corrupt { .. })), number < last, "segment {number}: {found:?}");
    }
}

#[test]
fn a_damaged_segment_header_is_damage_of_that_segment() {
    let rng = &mut seeded();
    let (dir, history) = sample(rng, BlockSize::MAX, &[100]);
    for (_, path) in segment::list(dir.path()).unwrap() {
        let intact = fs::read(&path).unwrap();
        for place in 0..40 {
            let mut damaged = intact.clone();
            flip(&mut damaged, place, rng);
            fs::write(&path, damaged).unwrap();
            check_corrupt(dir.path(), &path, 0..1, "a damaged segment header");
        }
        fs::write(&path, &intact).unwrap();
    }
    assert_same(&read_back(dir.path()).unwrap().0, &history, "undamaged again");
}

/// The size of a segment never changes until it is closed, so a file of another length was cut or grown by somebody else. What grows
/// behind the end of a closed one is nothing.
#[test]
fn a_segment_file_of_another_length_is_damage() {
    let rng = &mut seeded();
    let (dir, _) = sample(rng, BlockSize::MAX, &[9000]);
    for (_, path) in segment::list(dir.path()).unwrap() {
        for len in [0, 1, 39, 40, BLOCK as u64, SEGMENT / 2, SEGMENT - 1, SEGMENT + 1, 2 * SEGMENT] {
            let cut = copy(dir.path());
            let path = moved(&path, cut.path());
            let closed = segment::parse_name(&path).and_then(|(_, end)| end);
            if closed.is_some_and(|end| u64::from(end) <= len) {
                fs::File::options().write(true).open(&path).unwrap().set_len(len).unwrap();
                assert!(read_back(cut.path()).is_ok());
                continue;
            }
            fs::File::options().write(true).open(&path).unwrap().set_len(len).unwrap();
            let why = check_corrupt(cut.path(), &path, 0..1, "a file of another length");
            assert!(why.contains(&format!("{len} bytes")) || len < 40, "{why}");
        }
    }
}

#[test]
fn a_segment_under_another_ones_name_is_damage() {
    let rng = &mut seeded();
    let (dir, _) = sample(rng, BlockSize::MAX, &[100]);
    let segments = segment::list(dir.path()).unwrap();
    for (number, path) in &segments {
        for (other, source) in &segments {
            if number != other {
                let mixed = copy(dir.path());
                let path = moved(path, mixed.path());
                fs::copy(source, &path).unwrap();
                let why = check_corrupt(mixed.path(), &path, 0..1, "another segment under this name");
                assert!(why.contains(&number.to_string()) && why.contains(&other.to_string()), "{why}");
            }
        }
    }
}

/// The same number, but another salt: the header of one file over the batches of another, as a restore gone wrong leaves it.
#[test]
fn batches_under_another_salt_are_damage() {
    let rng = &mut seeded();
    let (dir, _) = sample(rng, BlockSize::MAX, &[100]);
    let found = batches(dir.path());
    let salted = found[0].path.clone();
    let header = SegmentHeader::parse(&fs::read(&salted).unwrap()).unwrap();
    assert_eq!(salted, dir.path().join(file_name(header.number)));
    overwrite(&salted, 0, &SegmentHeader { salt: header.salt ^ 1, ..header }.encode());
    check_corrupt(dir.path(), &salted, BLOCK as u64..SEGMENT, "another salt");
}

/// A segment of another server's log: the same number and batches of the same sizes, as two members of one ensemble may have
/// them, but other transactions.
#[test]
fn a_segment_of_another_log_is_damage() {
    let logs = [7, 8].map(|cxid| {
        let dir = tempdir();
        let mut log = Life::on_device(dir.path(), &plain(BlockSize::MAX), SEGMENT, 1);
        log.cxid = cxid;
        (0..40).for_each(|_| log.commit_one(5000));
        dir
    });
    let last = batches(logs[0].path()).last().unwrap().segment;
    for (_, path) in segment::list(logs[0].path()).unwrap().iter().filter(|(number, _)| *number < last) {
        let mixed = copy(logs[0].path());
        let path = moved(path, mixed.path());
        fs::copy(moved(&path, logs[1].path()), &path).unwrap();
        let found = read_back(mixed.path()).map(|(_, recovered)| recovered);
        assert!(matches!(found, Err(StorageError::Corrupt { .. })), "{} gives {found:?}", path.display());
    }
}

/// Of the last batches of a log no later one says that they were durable. Once the next life has closed their segment, its name does.
#[test]
fn the_last_batch_of_a_closed_segment_is_no_torn_tail() {
    let dir = tempdir();
    let mode = mode(LogIo::Pwrite, LogSync::Fdatasync);
    let mut life = Life::on_device(dir.path(), &mode, SEGMENT, 1);
    (0..3).for_each(|_| life.commit_one(100));
    drop(life);
    let at = 3 * BLOCK + 100;
    let flip = |dir: &Path, path: &Path| {
        let path = moved(path, dir);
        let byte = fs::read(&path).unwrap()[at];
        overwrite(&path, at, &[byte ^ 1]);
        path
    };
    let (_, open) = segment::list(dir.path()).unwrap().remove(0);
    let before = copy(dir.path());
    flip(before.path(), &open);
    assert_eq!(read_back(before.path()).unwrap().0.len(), 2, "it may never have been acknowledged");
    drop(Life::on_device(dir.path(), &mode, SEGMENT, 1));
    let (_, closed) = segment::list(dir.path()).unwrap().remove(0);
    let path = flip(dir.path(), &closed);
    check_corrupt(dir.path(), &path, 3 * BLOCK as u64..4 * BLOCK as u64, "a closed segment");
}
