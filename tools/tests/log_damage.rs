//! `corral-tool log verify` and `repair`, and `ls` and `dump`, on logs that are torn or damaged.
//!
//! **Not here**: what exactly is damage (`log_judgement.rs`).

mod common;

use common::*;
use corral_engine::disk::BlockSize;
use corral_engine::txnlog::{recover, recover_after};
use corral_proto::Zxid;
use corral_tools::log::survey::Survey;
use std::fs;
use std::path::Path;

const BLOCK: usize = BlockSize::MAX.bytes();

/// A batch takes one block, with five transactions each; the 16th batch is the first of the second segment.
fn sample(dir: &Path) -> Vec<Vec<u8>> {
    let batches: Vec<Vec<_>> = (0..24).map(|batch| (1..=5).map(|one| set(batch * 5 + one, 600)).collect()).collect();
    write_log(dir, &batches);
    batches.concat()
}

/// Where the batch with this number (from 0) of the sample stands in its segment.
fn batch_at(number: u64) -> u64 {
    BLOCK as u64 * (1 + number % 15)
}

/// Where the record with this number (from 0) of a batch of the sample begins in the batch: behind a header and records of one
/// size.
fn record_at(number: u64) -> u64 {
    let header = corral_engine::txnlog::format::BatchHeader::LEN as u64;
    header + number * (8 + set(1, 600).len() as u64)
}

#[test]
fn a_sound_log_verifies_and_repairs_to_a_copy() {
    let (dir, into) = (tempdir(), tempdir());
    let records = sample(dir.path());
    let before = contents(dir.path());
    let out = on("verify", dir.path(), &[]).fine();
    assert!(out.contains("3 segments, 120 transactions can be read, 0x1..0x78, up to segment 2 offset 40960"), "{out}");
    assert!(out.ends_with("fine: a server recovers 120 transactions up to 0x78\n"), "{out}");
    assert_eq!(out.lines().count(), 2, "{out}");
    let (new, out) = repair(dir.path(), &into, &[]);
    assert!(out.contains("nothing is damaged; this is a copy\nwrote 120 transactions 0x1..0x78 to "), "{out}");
    assert_eq!(read_back(&new, 0), records);
    assert!(contents(dir.path()) == before);
}

#[test]
fn a_torn_tail_is_fine_and_named() {
    for (at, len, says) in [
        // The header of the last batch, its records, all of it.
        (0, 40, "torn tail: "),
        (1000, 100, "left over: segment 2 offset 36864: 5 transactions 0x74..0x78 (the checksum of a record is wrong)"),
        (0, 4096, "torn tail: "),
    ] {
        let (dir, into) = (tempdir(), tempdir());
        let records = sample(dir.path());
        overwrite(&file(dir.path(), 2), batch_at(23) + at, &vec![0x5a; len]);
        let out = on("verify", dir.path(), &[]).fine();
        assert!(out.contains(says) && out.contains("fine: a server recovers 115 transactions up to 0x73"), "{out}");
        assert!(out.contains("torn tail: ") && out.contains("offset 36864: behind transaction 0x73"), "{out}");
        assert_eq!((state(dir.path(), 1), state(dir.path(), 2)), ("whole".into(), "torn tail".into()));
        let run = on("dump", dir.path(), &[]);
        assert_eq!(run.out.lines().count(), 115);
        assert!(run.ends(0).contains("torn tail: log-0000000002 offset 36864"));
        let (new, _) = repair(dir.path(), &into, &[]);
        assert_eq!(read_back(&new, 0), records[..115]);
    }
}

#[test]
fn a_damaged_record_is_named_and_cut_or_salvaged_around() {
    let (dir, into, all) = (tempdir(), tempdir(), tempdir());
    let records = sample(dir.path());
    let file = file(dir.path(), 1);
    // The third transaction of the fifth batch.
    let at = batch_at(4) + record_at(2);
    flip(&file, at + 100);
    let before = contents(dir.path());

    let run = on("verify", dir.path(), &[]);
    assert!(run.ends(1).contains(&format!("log-0000000001 offset {at}: the checksum of a record is wrong")), "{run:?}");
    let damage = format!(
        "damage: {} offset {at}, after transaction 0x14: the checksum of a record is wrong; 1 lost of 5 \
         transactions: 0x15..0x19",
        file.display()
    );
    assert!(run.out.lines().any(|line| line == damage), "{run:?}");
    assert_eq!((state(dir.path(), 1), state(dir.path(), 2)), ("damaged".into(), "whole".into()));
    let run = on("dump", dir.path(), &[]);
    assert_eq!(run.out.lines().count(), 20, "what recovery would hand on");
    assert!(run.ends(1).contains("the last transaction before it is 0x14"), "{run:?}");

    let (new, out) = repair(dir.path(), &into, &[]);
    assert_eq!(read_back(&new, 0), records[..22], "exactly those before");
    assert!(out.contains(&damage) && out.contains("dropped: 0x17..0x19 of the batch at segment 1"), "{out}");
    assert!(out.contains("not taken: 97 transactions behind the damage that can be read (0x18..0x78)"), "{out}");
    assert!(out.contains("snapshots of more than transaction 0x16 do not fit the new log"), "{out}");
    assert!(out.contains("wrote 22 transactions 0x1..0x16 to "), "{out}");
    on("verify", &new, &[]).fine();

    let (new, out) = repair(dir.path(), &all, &["--salvage"]);
    assert_eq!(read_back(&new, 0), [&records[..22], &records[23..]].concat(), "all but the damaged one");
    assert!(out.contains("dropped: 0x17 of the batch at segment 1 offset 20480"), "{out}");
    assert!(contents(dir.path()) == before, "the original is never touched");
}

#[test]
fn a_destroyed_batch_leaves_a_hole_that_is_named() {
    // In the middle of a segment, and as the first of one.
    for (number, segment, count) in [(4, 1, 2), (15, 2, 3)] {
        let (dir, into, all) = (tempdir(), tempdir(), tempdir());
        let records = sample(dir.path());
        overwrite(&file(dir.path(), segment), batch_at(number), &vec![0; BLOCK * count]);
        let (lost, next) = (number as usize * 5, (number as usize + count) * 5);
        let run = on("verify", dir.path(), &[]);
        let says = format!(
            "damage: {} offset {}, after transaction {:#x}: no batch begins here; {} transactions lost: {:#x}..{next:#x}",
            file(dir.path(), segment).display(),
            batch_at(number),
            lost,
            next - lost,
            lost + 1,
        );
        run.ends(1);
        assert!(run.out.lines().any(|line| line == says), "{says}\n{run:?}");
        let (new, out) = repair(dir.path(), &into, &[]);
        assert_eq!(read_back(&new, 0), records[..lost]);
        assert!(out.contains(&says), "{out}");
        let (new, _) = repair(dir.path(), &all, &["--salvage"]);
        assert_eq!(read_back(&new, 0), [&records[..lost], &records[next..]].concat());
    }
}

#[test]
fn a_missing_segment_is_named() {
    let (dir, into) = (tempdir(), tempdir());
    let batches: Vec<Vec<_>> = (1..=40).map(|zxid| vec![set(zxid, 3000)]).collect();
    write_log(dir.path(), &batches);
    fs::remove_file(file(dir.path(), 2)).unwrap();
    let run = on("verify", dir.path(), &[]);
    run.ends(1);
    let says = "log-0000000002 offset 0, after transaction 0xf: this segment is missing, and the batch at segment 3 offset \
                4096 follows one in it; 15 transactions lost: 0x10..0x1e";
    assert!(run.out.contains(says), "{run:?}");
    let (new, _) = repair(dir.path(), &into, &["--salvage"]);
    assert_eq!(read_back(&new, 0), [&batches[..15], &batches[30..]].concat().concat());
}

#[test]
fn a_damaged_segment_header_loses_nothing_if_the_salt_is_left() {
    for (at, kept) in [(9, 120), (20, 75)] {
        let (dir, into) = (tempdir(), tempdir());
        let records = sample(dir.path());
        flip(&file(dir.path(), 2), at);
        let run = on("verify", dir.path(), &[]);
        assert!(run.ends(1).contains("log-0000000002 offset 0"), "{run:?}");
        assert_eq!(state(dir.path(), 2), "damaged");
        assert_eq!(on("dump", dir.path(), &[]).out.lines().count(), kept);
        let (new, _) = repair(dir.path(), &into, &[]);
        assert_eq!(read_back(&new, 0), records[..kept]);
    }
}

#[test]
fn repair_writes_nowhere_else() {
    let (dir, into) = (tempdir(), tempdir());
    sample(dir.path());
    fs::write(into.path().join("mine"), "").unwrap();
    let before = contents(dir.path());
    let inside = dir.path().join("a/new");
    for (to, says) in [
        (into.path().to_owned(), "is not empty"),
        (into.path().join("mine"), "is a file"),
        (dir.path().to_owned(), "must not be touched"),
        (inside.clone(), "must not be touched"),
        (dir.path().join("../").join(dir.path().file_name().unwrap()).join("new"), "must not be touched"),
    ] {
        let run = on("repair", dir.path(), &["--to", to.to_str().unwrap()]);
        assert!(run.ends(2).contains(says), "{run:?}");
    }
    assert!(contents(dir.path()) == before && !inside.exists());
    fs::create_dir(into.path().join("empty")).unwrap();
    on("repair", dir.path(), &["--to", into.path().join("empty").to_str().unwrap()]).fine();
}

/// A log whose beginning was deleted because a snapshot holds it, in files that were used before.
#[test]
fn a_log_may_begin_after_a_snapshot() {
    let (dir, into) = (tempdir(), tempdir());
    let batches: Vec<Vec<_>> = (1..=100).map(|zxid| vec![set(zxid, 3000)]).collect();
    let mut life = life(dir.path());
    for (batch, zxid) in batches.iter().zip(1..) {
        life.commit(batch);
        life.log.release(Zxid(zxid - 20));
    }
    drop(life);
    assert!(!file(dir.path(), 4).exists() && file(dir.path(), 6).exists());
    let (_, survey) = Survey::of(dir.path(), None).unwrap();
    let after = survey.begin.after.0;
    assert!(after >= 60 && after % 15 == 0);
    let records = batches[after as usize..].concat();

    let out = on("verify", dir.path(), &[]).fine();
    assert!(out.contains(&format!("begins after transaction {after:#x}: a server needs a snapshot")), "{out}");
    assert!(!out.contains("torn"), "old bytes in a recycled file are nothing that was torn: {out}");
    assert!((1..=2).all(|row| state(dir.path(), row) == "whole"));
    let out = on("ls", dir.path(), &[]).fine();
    assert!(out.lines().nth_back(1).unwrap().ends_with("empty"), "made ready from an old file: {out}");
    assert_eq!(on("dump", dir.path(), &[]).fine().lines().count(), records.len());
    let (new, _) = repair(dir.path(), &into, &[]);
    assert_eq!(read_back(&new, after), records);
    assert!(recover(&new, |_| ()).is_err(), "without a snapshot it must not be served");

    // Damage in a part that a newer snapshot holds: a server with that snapshot starts.
    let first = recover_after(dir.path(), Zxid(after), |_| ()).unwrap().used[0].0.clone();
    flip(&first, 8192 + 100);
    on("verify", dir.path(), &[]).ends(1);
    on("verify", dir.path(), &["--after", "99"]).fine();
    assert!(on("verify", dir.path(), &["--after", "1"]).ends(1).contains("the log begins after transaction"));
    let into = tempdir();
    let (new, _) = repair(dir.path(), &into, &["--after", "99"]);
    assert_eq!(read_back(&new, 99), records[records.len() - 1..]);
}
