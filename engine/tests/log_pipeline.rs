//! Several writes in flight, of which a crash loses any: the device of these tests does only what it is told.
//!
//! What a crash may do to writes that were not reported yet: each of their blocks is in the file, or is not, one by one and
//! in no order. What was reported is there. A write may even reach the file after the next life has begun, when the process
//! died and not the machine: the kernel owns it from the moment it is submitted.
//!
//! **Not here**: real devices (`log.rs`), bytes that change on the disk (`log_damage.rs`).

mod common;

use common::*;
use corral_engine::StorageError;
use corral_engine::disk::{BlockSize, Mode, Write};
use corral_engine::txnlog::segment::file_name;
use proptest::prelude::*;
use proptest::sample::select;
use std::path::Path;
use tempfile::TempDir;

const SEGMENT: u64 = 64 << 10;

/// A life over a held-back device.
fn start(dir: &Path, depth: usize) -> (Life<Held>, Held) {
    start_in(dir, BlockSize::MAX, depth)
}

fn start_in(dir: &Path, block: BlockSize, depth: usize) -> (Life<Held>, Held) {
    let held = Held::default();
    (Life::start(dir, held.clone(), &Mode { block, ..held_mode() }, SEGMENT, depth), held)
}

/// A batch of one record, durable.
fn commit_one(life: &mut Life<Held>, held: &Held, len: usize) {
    life.submit_one(len);
    held.finish(held.len() - 1);
    life.complete().unwrap();
}

/// A log in which batch n was lost and batch n + 1 was not, with neither reported; and what must be left of it. Both batches
/// have one record: `blocks` blocks for n, two for n + 1. `reaches` says which blocks of n are there.
fn hole(before: usize, blocks: usize, reaches: impl Fn(usize) -> bool) -> (TempDir, Vec<Vec<u8>>, [Write; 2]) {
    let dir = tempdir();
    let (mut life, held) = start(dir.path(), 2);
    (0..before).for_each(|_| commit_one(&mut life, &held, data_len(1, 10)));
    life.submit_one(data_len(blocks, 10));
    life.submit_one(data_len(2, 10));
    let writes: [Write; 2] = held.take().try_into().expect("both are in flight");
    land_blocks(&writes[0], BlockSize::MAX, reaches);
    land(&writes[1]);
    (dir, life.history[..before].to_vec(), writes)
}

/// Whatever is appended behind the hole, also batches of the very size of the lost one, and however often the log is
/// restarted: what was left out once never comes back, and no restart refuses.
fn check_hole(dir: &Path, wanted: &[Vec<u8>], blocks: usize) {
    let (records, recovered) = read_back(dir).unwrap();
    assert_same(&records, wanted, "before the hole");
    assert_eq!(read_back(dir).unwrap().1, recovered, "twice gives the same");
    let mut wanted = wanted.to_vec();
    for sizes in [vec![blocks], vec![], vec![1, blocks, 2], vec![2, blocks], vec![15, blocks, 15]] {
        let (mut life, held) = start(dir, 2);
        assert_same(&life.history, &wanted, "after a restart");
        sizes.iter().for_each(|blocks| commit_one(&mut life, &held, data_len(*blocks, 10)));
        wanted = life.history.clone();
        // And the same crash again, in every life.
        life.submit_one(data_len(blocks, 10));
        life.submit_one(data_len(2, 10));
        held.take()[1..].iter().for_each(land);
    }
    assert_same(&read_back(dir).unwrap().0, &wanted, "the end");
}

#[test]
fn a_hole_before_a_batch_that_reached_the_disk_is_no_damage_and_the_batch_never_comes_back() {
    for before in [0, 1, 5] {
        for blocks in [1, 2, 4] {
            let (dir, wanted, _) = hole(before, blocks, |_| false);
            check_hole(dir.path(), &wanted, blocks);
        }
    }
}

#[test]
fn a_hole_of_a_torn_batch_is_no_damage_either() {
    for missing in 0..3 {
        let (dir, wanted, writes) = hole(2, 3, |block| block != missing);
        let (_, recovered) = read_back(dir.path()).unwrap();
        if missing > 0 {
            let path = dir.path().join(file_name(recovered.end.segment));
            assert_eq!(recovered.torn, Some((path, writes[0].offset)));
        }
        check_hole(dir.path(), &wanted, 3);
    }
}

#[test]
fn a_hole_at_a_segment_switch_is_no_damage_either() {
    // A segment takes 15 blocks of batches. The lost batch is the last of its segment, or the first of the next one.
    for (before, blocks) in [(14, 1), (12, 3), (0, 15), (14, 2), (15, 1), (10, 15)] {
        for reaches in [false, true] {
            let (dir, wanted, writes) = hole(before, blocks, |block| reaches && block > 0);
            let switches = before + blocks > 15 || writes[1].offset == BLOCK as u64;
            assert!(switches, "this is about segment switches");
            check_hole(dir.path(), &wanted, blocks);
        }
    }
}

/// A restart that wrote nothing leaves no segment, so the first batch of all stands in a later one. Whether it is the beginning
/// of the log cannot be seen from the number.
#[test]
fn a_hole_at_the_very_beginning_of_a_log_in_a_later_segment_is_no_damage_either() {
    let dir = tempdir();
    drop(start(dir.path(), 2));
    let (mut life, held) = start(dir.path(), 2);
    life.submit_one(data_len(15, 10));
    life.submit_one(data_len(1, 10));
    held.take()[1..].iter().for_each(land);
    drop(life);
    check_hole(dir.path(), &[], 15);
}

/// Batch n + 1 begins a segment, batch n is the last of the one before and reached the disk: nothing is lost.
#[test]
fn without_a_hole_both_unreported_batches_are_there() {
    for before in [0, 3, 13, 14] {
        let (dir, _, writes) = hole(before, 1, |_| true);
        let (records, recovered) = read_back(dir.path()).unwrap();
        assert_eq!((records.len(), recovered.torn), (before + 2, None));
        assert_eq!(u64::from(recovered.end.offset), writes[1].offset + 2 * BLOCK as u64);
        check_hole(dir.path(), &records, 1);
    }
}

#[test]
fn durable_moves_over_a_prefix_whatever_the_order_of_completions() {
    // Which of those still held back completes next, and how many records are durable then.
    let orders: [[(usize, usize); 4]; 4] = [
        [(0, 1), (0, 2), (0, 3), (0, 4)],
        [(3, 0), (2, 0), (1, 0), (0, 4)],
        [(1, 0), (0, 2), (1, 2), (0, 4)],
        [(2, 0), (0, 1), (0, 3), (0, 4)],
    ];
    for order in orders {
        let dir = tempdir();
        let (mut life, held) = start(dir.path(), 4);
        // Across a segment switch.
        [1, 13, 2, 1].iter().for_each(|blocks| life.submit_one(data_len(*blocks, 10)));
        assert_eq!((held.len(), life.log.in_flight()), (4, 4));
        for (which, durable) in order {
            let before = life.durable;
            held.finish(which);
            let reported = life.complete().unwrap();
            assert_eq!(reported.is_some(), durable > before);
            assert_eq!(life.durable, durable);
        }
        assert!(life.log.is_idle());
        let wanted = life.history.clone();
        drop(life);
        assert_same(&read_back(dir.path()).unwrap().0, &wanted, "all four");
    }
}

/// What was completed but not reported yet still counts as in flight, or else the distance between what is written and what
/// is known to be durable would grow without bound.
#[test]
fn no_more_writes_are_in_flight_than_allowed() {
    for depth in 1..4 {
        let dir = tempdir();
        let (mut life, held) = start(dir.path(), depth);
        (0..depth + 2).for_each(|_| life.append(data_len(1, 0)));
        life.submit();
        assert_eq!(held.len(), 1, "what arrives before a batch is cut is one batch");
        for _ in 0..4 {
            life.submit_one(10);
        }
        assert_eq!((held.len(), life.log.in_flight()), (depth, depth));
        if depth > 1 {
            held.finish(1);
            assert_eq!(life.complete().unwrap(), None);
            life.submit();
            assert_eq!(life.log.in_flight(), depth, "the second does not make room before the first");
        }
        held.finish(0);
        assert!(life.complete().unwrap().is_some());
    }
}

#[test]
fn a_failed_write_is_final_and_names_the_file_and_the_error() {
    for (before, failing, code) in [(0, 0, libc::EIO), (3, 0, libc::ENOSPC), (3, 1, libc::EIO), (14, 1, libc::EIO)] {
        let dir = tempdir();
        let (mut life, held) = start(dir.path(), 3);
        (0..before).for_each(|_| commit_one(&mut life, &held, data_len(1, 10)));
        for _ in 0..3 {
            life.submit_one(data_len(1, 10));
        }
        (0..failing).for_each(|_| held.finish(0));
        life.complete().unwrap();
        let durable = life.durable;
        assert_eq!(durable, before + failing);
        let path = dir.path().join(file_name(if before + failing < 15 { 1 } else { 2 }));
        held.fail(0, code);
        match life.complete() {
            Err(StorageError::Io { path: named, source, .. }) => {
                assert_eq!((named, source.raw_os_error()), (path.clone(), Some(code)));
            }
            other => panic!("a failed write gives {other:?}"),
        }
        // The one behind it succeeds, but what is durable is a prefix, and this one has a hole in it for ever.
        while held.len() > 0 {
            held.finish(0);
        }
        assert!(!matches!(life.complete(), Ok(Some(_))), "nothing further becomes durable");
        for _ in 0..2 {
            life.append(10);
            let refused = life.log.submit(NOW, |_| panic!("nothing further is written"));
            assert!(matches!(refused, Err(StorageError::Poisoned { path: named }) if named == path));
            assert!(!matches!(life.complete(), Ok(Some(_))), "nothing further becomes durable");
        }
        assert_eq!((life.durable, held.len()), (durable, 0), "nothing further was written or reported");
        let wanted = life.history[..durable].to_vec();
        drop(life);
        assert_same(&read_back(dir.path()).unwrap().0, &wanted, "what was durable before the failure");
    }
}

/// Where a sync failed, a later sync of the same file may say that all is well and have lost the very page (the error is
/// told once, and the page counts as clean then). So a write that was submitted *before* the failed one must not be reported
/// durable after the failure either.
#[test]
fn after_a_failure_not_even_an_earlier_write_becomes_durable() {
    let dir = tempdir();
    let (mut life, held) = start(dir.path(), 2);
    life.submit_one(10);
    life.submit_one(10);
    held.fail(1, libc::EIO);
    assert!(matches!(life.complete(), Err(StorageError::Io { .. })));
    held.finish(0);
    let reported = life.complete();
    assert!(!matches!(reported, Ok(Some(_))), "{reported:?} after a failure");
}

/// The process died, the machine did not: the kernel finishes the write of batch n after the next life has read the log
/// without it, and has gone on from there. What the new life acknowledged counts.
#[test]
fn a_write_that_lands_after_the_next_life_began_does_not_displace_what_that_life_acknowledged() {
    for (before, blocks, later) in [(3, 1, 1), (3, 1, 2), (3, 2, 5), (0, 1, 1), (14, 1, 3)] {
        let dir = tempdir();
        let (mut life, held) = start(dir.path(), 1);
        (0..before).for_each(|_| commit_one(&mut life, &held, data_len(1, 10)));
        life.submit_one(data_len(blocks, 10));
        let late = held.take();
        drop(life);

        let (mut life, held) = start(dir.path(), 1);
        assert_eq!(life.history.len(), before);
        (0..later).for_each(|_| commit_one(&mut life, &held, data_len(blocks, 10)));
        let wanted = life.history.clone();
        assert_eq!(life.durable, wanted.len());
        late.iter().for_each(land);
        drop(life);

        let what = format!("{before} batches, a late one of {blocks} blocks, {later} acknowledged ones");
        let (records, recovered) = read_back(dir.path()).unwrap_or_else(|error| panic!("{what}: {error}"));
        assert_same(&records, &wanted, &what);
        assert!(recovered.unused.len() <= 1, "{what}: what was acknowledged is not deleted: {recovered:?}");
    }
}

/// One step of the model.
#[derive(Clone, Debug)]
enum Step {
    /// Append a record with this much data.
    Append(usize),
    /// Hand over what may be handed over.
    Submit,
    /// Some write completes.
    Complete(prop::sample::Index),
    /// The log is told what has completed.
    Reap,
    /// The process dies: of the blocks in flight, those are in the file whose bit is set.
    Crash(u64),
    /// The kernel finishes some write of a process that is dead.
    Late(prop::sample::Index),
}

fn step(late: bool) -> impl Strategy<Value = Step> {
    let size = prop_oneof![4 => 0..300usize, 3 => 300..9000usize, 1 => 9000..80_000usize, 1 => Just(data_len(1, 0))];
    prop_oneof![
        6 => size.prop_map(Step::Append),
        6 => Just(Step::Submit),
        6 => any::<prop::sample::Index>().prop_map(Step::Complete),
        4 => Just(Step::Reap),
        1 + u32::from(late) => prop_oneof![Just(0), Just(u64::MAX), any::<u64>()].prop_map(Step::Crash),
        2 * u32::from(late) => any::<prop::sample::Index>().prop_map(Step::Late),
    ]
}

/// The model is a list of records: recovery gives a prefix of what was appended on top of what the life began with, and at
/// least everything that was reported durable. Only where a write lands late, and the life that began without it reported
/// nothing that would contradict it, it may be the prefix of an earlier life.
fn run(depth: usize, block: BlockSize, steps: Vec<Step>) -> Result<(), TestCaseError> {
    let dir = tempdir();
    let (mut life, mut held) = start_in(dir.path(), block, depth);
    let (mut lives, mut late, mut landed): (Vec<Vec<Vec<u8>>>, Vec<Write>, bool) = Default::default();
    for step in steps.into_iter().chain([Step::Crash(u64::MAX / 3)]) {
        match step {
            Step::Append(len) => life.append(len),
            Step::Submit => life.submit(),
            Step::Complete(which) if held.len() > 0 => held.finish(which.index(held.len())),
            Step::Late(which) if !late.is_empty() => {
                land(&late.remove(which.index(late.len())));
                landed = true;
            }
            Step::Complete(_) | Step::Late(_) => {}
            Step::Reap => drop(life.complete().unwrap()),
            Step::Crash(bits) => {
                let mut before = 0;
                for write in held.take() {
                    land_blocks(&write, block, |index| bits >> ((before + index) % 64) & 1 == 1);
                    before += write.data.len() / block.bytes();
                    late.push(write);
                }
                let (appended, durable) = (life.history.clone(), life.durable);
                drop(life);
                let (found, recovered) =
                    read_back(dir.path()).map_err(|error| TestCaseError::fail(error.to_string()))?;
                prop_assert!(found.len() >= durable, "{} of {durable} durable records", found.len());
                prop_assert!(found[..durable] == appended[..durable], "other records than the durable ones");
                let other = landed && lives.iter().any(|history| history.starts_with(&found));
                prop_assert!(other || appended.starts_with(&found), "not a prefix of what was appended");
                lives.push(appended);
                prop_assert_eq!(&read_back(dir.path()).unwrap().1, &recovered, "twice gives the same");
                (life, held) = start_in(dir.path(), block, depth);
            }
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, max_shrink_iters: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn after_any_power_losses_recovery_gives_a_prefix_with_all_that_was_durable(
        depth in 1..4usize, block in select(&BlockSize::ALL), steps in prop::collection::vec(step(false), 1..120),
    ) {
        run(depth, block, steps)?;
    }

    #[test]
    fn the_same_holds_when_writes_of_dead_processes_land_late(
        depth in 1..4usize, block in select(&BlockSize::ALL), steps in prop::collection::vec(step(true), 1..120),
    ) {
        run(depth, block, steps)?;
    }
}
