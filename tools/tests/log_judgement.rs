//! What `corral-tool log` calls history, what it calls left over, and what it calls damage: always what recovery does, whatever
//! happened to the log.

mod common;

use common::*;
use corral_engine::StorageError;
use corral_engine::disk::device::Device;
use corral_engine::disk::{BlockSize, LogSync, Mode};
use corral_engine::txnlog::format::FIRST_BATCH;
use corral_engine::txnlog::reader::OpenSegment;
use corral_engine::txnlog::{recover, recover_after, segment};
use corral_proto::{TxnEntry, Zxid};
use corral_tools::log::survey::Survey;
use rand::rngs::SmallRng;
use rand::{Rng, RngCore, SeedableRng};
use std::fs;
use std::path::{Path, PathBuf};

const SECTOR: usize = BlockSize::MIN.bytes();

/// Three writes are in flight when the server dies, and only the second and third reach the disk. The next life goes on
/// without them, with the same zxids.
#[test]
fn what_a_crash_left_over_is_neither_history_nor_damage() {
    let (dir, into) = (tempdir(), tempdir());
    write_log(dir.path(), &[vec![set(1, 10)], vec![set(2, 10)]]);
    let disk = Held::default();
    let mut life = Life::start(dir.path(), disk.clone(), 3, 0);
    (3..=5).for_each(|zxid| life.submit(&[set(zxid, 20)]));
    drop(life);
    disk.land(&[1, 2]);
    let out = on("verify", dir.path(), &[]).fine();
    assert!(out.contains("left over: segment 3 offset 8192: 2 transactions 0x4..0x5 that a crash cut off"), "{out}");
    assert_eq!(state(dir.path(), 2), "unused", "{out}");

    let mut life = Life::start(dir.path(), disk.clone(), 3, 0);
    (3..=4).for_each(|zxid| life.submit(&[set(zxid, 30)]));
    drop(life);
    // The first is whole now and the second is not there; an earlier life's leftover is gone with its segment.
    disk.land(&[3]);
    write_log(dir.path(), &[vec![set(4, 40)]]);
    let out = on("verify", dir.path(), &[]).fine();
    let expected = [set(1, 10), set(2, 10), set(3, 30), set(4, 40)];
    assert_eq!(read_back(dir.path(), 0), expected);
    for more in [&[][..], &["--salvage"]] {
        let into = tempdir();
        let (new, _) = repair(dir.path(), &into, more);
        assert_eq!(read_back(&new, 0), expected, "{out}");
    }
    drop(into);
}

/// A killed process had handed writes to the kernel, and they land after the next life has begun, which has closed their segment.
#[test]
fn what_lands_too_late_is_not_history() {
    let (dir, into) = (tempdir(), tempdir());
    let disk = Held::default();
    let mut life = Life::start(dir.path(), disk.clone(), 3, 0);
    (1..=3).for_each(|zxid| life.submit(&[set(zxid, 20)]));
    drop(life);
    disk.land(&[0]);
    write_log(dir.path(), &[vec![set(2, 30)], vec![set(3, 30)]]);
    disk.land(&[1, 2]);
    let expected = [set(1, 20), set(2, 30), set(3, 30)];
    assert_eq!(read_back(dir.path(), 0), expected);
    let out = on("verify", dir.path(), &[]).fine();
    assert!(out.contains("fine: ") && !out.contains("left over"), "{out}");
    assert_eq!((state(dir.path(), 1), state(dir.path(), 2)), ("whole".into(), "whole".into()));
    assert_eq!(on("dump", dir.path(), &[]).fine().lines().count(), 3);
    let (new, _) = repair(dir.path(), &into, &["--salvage"]);
    assert_eq!(read_back(&new, 0), expected);
}

/// Damage in front of where a crash left something over, which the next life has cut off: it does not come back.
#[test]
fn what_a_crash_left_over_is_never_salvaged() {
    let (dir, into) = (tempdir(), tempdir());
    write_log(dir.path(), &[vec![set(1, 10)], vec![set(2, 10)], vec![set(3, 10)]]);
    let disk = Held::default();
    let mut life = Life::start(dir.path(), disk.clone(), 4, 0);
    (4..=7).for_each(|zxid| life.submit(&[set(zxid, 20)]));
    drop(life);
    disk.land(&[0, 2, 3]);
    write_log(dir.path(), &[vec![set(5, 30)], vec![set(6, 30)], vec![set(7, 30)]]);
    flip(&file(dir.path(), 1), 8192 + 100);
    assert!(recover(dir.path(), |_| ()).is_err());
    let (new, out) = repair(dir.path(), &into, &["--salvage"]);
    let expected = [set(1, 10), set(3, 10), set(4, 20), set(5, 30), set(6, 30), set(7, 30)];
    assert_eq!(read_back(&new, 0), expected, "{out}");
    assert!(!out.contains("segment 3"), "nothing of it is left: {out}");
}

/// Each writes two new logs to the disk.
const ROUNDS: usize = 6;

/// What recovery says and what the survey says, and what a repair makes of it, for damage of every kind at random places.
#[test]
fn the_survey_judges_as_recovery_does() {
    // The same in every run, unless another one is asked for.
    let seed: u64 = option_env!("CORRAL_TEST_SEED").map_or(1, |seed| seed.parse().unwrap());
    let rng = &mut SmallRng::seed_from_u64(seed);
    for round in 0..ROUNDS {
        let dir = tempdir();
        some_lives(dir.path(), rng);
        if rng.random_range(0..4) == 0 {
            trim(dir.path(), rng);
        }
        let begin = Survey::of(dir.path(), None).unwrap().1.begin.after.0;
        let records = read_back(dir.path(), begin);
        let beginnings = beginnings(dir.path());
        let files: Vec<_> = segment::list(dir.path()).unwrap().into_iter().map(|(_, path)| path).collect();
        for _ in 0..rng.random_range(1..4) {
            let file = &files[rng.random_range(0..files.len())];
            let Some(bytes) = fs::read(file).ok().filter(|bytes| !bytes.is_empty()) else { continue };
            let used = bytes.iter().rposition(|byte| *byte != 0).unwrap_or(0) + 1;
            let at = rng.random_range(0..used);
            let mut garbage = vec![0; rng.random_range(1..24 * SECTOR).min(bytes.len() - at)];
            match rng.random_range(0..12) {
                0 if segment::list(dir.path()).unwrap().len() > 1 => fs::remove_file(file).unwrap(),
                1 => fs::File::options().write(true).open(file).unwrap().set_len(at as u64).unwrap(),
                2 => overwrite(file, at as u64, &garbage),
                3 => {
                    rng.fill_bytes(&mut garbage);
                    overwrite(file, at as u64, &garbage);
                }
                4 => overwrite(file, (at / SECTOR * SECTOR) as u64, &[0; SECTOR]),
                _ => flip(file, at as u64),
            }
        }
        let known = beginnings == self::beginnings(dir.path());
        check(dir.path(), &records, known, &format!("seed {seed} round {round}"));
    }
}

/// Some batches, one after the other; then perhaps a crash with up to three in flight, of which some reach the disk, and others
/// only after the next life has begun.
fn some_lives(dir: &Path, rng: &mut SmallRng) {
    let mut in_flight = Held::default();
    for _ in 0..rng.random_range(1..4) {
        let mut last = read_back(dir, 0).last().map_or(0, |bytes| zxid(bytes).0);
        let mut batch = |rng: &mut SmallRng| {
            let first = last + 1;
            last += rng.random_range(1..4);
            (first..=last).map(|zxid| set(zxid, rng.random_range(0..5000))).collect::<Vec<_>>()
        };
        let block = |rng: &mut SmallRng| BlockSize::ALL[rng.random_range(0..4)];
        let mut life = Life::start_in(dir, Device::open(&mode()).unwrap(), block(rng), 1, 0);
        life.commit(&batch(rng));
        in_flight.land_some(rng);
        for _ in 0..rng.random_range(0..20) {
            life.commit(&batch(rng));
        }
        drop(life);
        if rng.random_range(0..2) == 0 {
            in_flight = Held::default();
            let mut life = Life::start_in(dir, in_flight.clone(), block(rng), 3, 0);
            (0..rng.random_range(1..4)).for_each(|_| life.submit(&batch(rng)));
            drop(life);
            in_flight.land_some(rng);
        }
    }
}

/// The oldest segments are not needed any more, because there is a snapshot.
fn trim(dir: &Path, rng: &mut SmallRng) {
    let last = read_back(dir, 0).last().map_or(0, |bytes| zxid(bytes).0);
    let mut life = life(dir);
    life.commit(&[set(last + 1, 10)]);
    life.log.release(Zxid(rng.random_range(0..=last)));
    life.commit(&[set(last + 2, 10)]);
}

/// The segments of which it can be read what their first batch follows.
fn beginnings(dir: &Path) -> Vec<u32> {
    let first = |path: PathBuf| {
        let (open, _) = OpenSegment::open_as_it_is(0, path).unwrap();
        open.batch(FIRST_BATCH).unwrap().is_ok().then_some(open.header().number)
    };
    segment::list(dir).unwrap().into_iter().filter_map(|(_, path)| first(path)).collect()
}

/// `known`: of every segment it can be read what it follows. If not, a write that came too late may stand where a life went on of
/// which nothing is known, and is taken for history by everybody.
fn check(dir: &Path, records: &[Vec<u8>], known: bool, what: &str) {
    let before = contents(dir);
    let (_, survey) = Survey::of(dir, None).unwrap();
    let mut handed_on = Vec::new();
    let verdict = recover_after(dir, survey.begin.after, |record| handed_on.push(record.bytes.to_vec()));
    assert!(!matches!(verdict, Err(StorageError::Io { .. })), "{what}: {verdict:?}");
    assert_eq!(survey.faults.is_empty(), verdict.is_ok(), "{what}: {:#?}\n{verdict:?}", survey.faults);
    let run = on("verify", dir, &[]);
    assert_eq!(run.code, Some(i32::from(verdict.is_err())), "{what}: {run:?}");
    let first = survey.begin.after;
    let history: Vec<_> = records.iter().filter(|bytes| zxid(bytes) > first).cloned().collect();
    assert!(!known || history.starts_with(&handed_on), "{what}");
    let (one, two) = (tempdir(), tempdir());
    let (cut, out) = repair(dir, &one, &[]);
    let cut = read_back(&cut, first.0);
    assert!(!known || history.starts_with(&cut), "{what}: nothing is missing in what is kept\n{out}\n{run:?}");
    assert!(!known || cut.starts_with(&handed_on), "{what}: not less than recovery can read");
    assert!(verdict.is_err() || cut == handed_on, "{what}: nor more");
    let (salvaged, out) = repair(dir, &two, &["--salvage"]);
    let salvaged = read_back(&salvaged, first.0);
    let made_up: Vec<_> = salvaged.iter().filter(|record| !history.contains(record)).map(|one| zxid(one)).collect();
    assert!(!known || made_up.is_empty(), "{what}: {made_up:?} are made up\n{out}\n{:#?}", survey.history);
    assert!(salvaged.starts_with(&cut), "{what}: salvage keeps no less");
    on("ls", dir, &[]).fine();
    assert!(contents(dir) == before, "{what}: nothing is touched");
}

fn zxid(bytes: &[u8]) -> Zxid {
    TxnEntry::decode(bytes).unwrap().header.zxid
}

/// Somebody writes all the time: whatever a look finds half written must not be called damage.
#[test]
fn a_log_that_is_being_written_is_never_called_damaged() {
    let dir = tempdir();
    // Without syncs, so that much is written while the tool looks.
    let mode = Mode { sync: LogSync::None, ..mode() };
    let mut life = Life::start(dir.path(), Device::open(&mode).unwrap(), 1, 0);
    life.commit(&[set(1, 10)]);
    let mut zxid = 1;
    for what in ["verify", "dump", "ls"].repeat(10) {
        let mut child =
            command().args([what, dir.path().to_str().unwrap()]).stdout(std::process::Stdio::null()).spawn().unwrap();
        let status = loop {
            zxid += 1;
            life.commit(&[set(zxid, (zxid % 9000) as usize)]);
            if let Some(status) = child.try_wait().unwrap() {
                break status;
            }
        };
        assert_eq!(status.code(), Some(0), "{what}");
    }
    assert!(zxid > 100, "{zxid}");
}
