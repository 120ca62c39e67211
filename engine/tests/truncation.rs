//! Histories that are cut back, again and again, in the middle of batches, segments and lives: what is kept is exact, what is cut
//! off never comes back, and a snapshot never brings it back either.

mod common;

use common::{Life, assert_same, contents, copy, mode, read_back_after, tempdir};
use corral_engine::adoption::adopt;
use corral_engine::disk::device::Device;
use corral_engine::disk::{BlockSize, LogIo, LogSync, Mode};
use corral_engine::restore::restore;
use corral_engine::snapshot::format::Compression;
use corral_engine::snapshot::writer::{SnapshotOptions, take};
use corral_engine::truncation::truncate;
use corral_engine::txnlog::{Log, LogOptions, recover_after, segment};
use corral_engine::{StorageError, Tree, snapshot};
use corral_proto::txn::CreateTxn;
use corral_proto::{AclList, SessionId, Txn, TxnEntry, TxnHeader, Xid, Zxid};
use parking_lot::RwLock;
use proptest::prelude::*;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::mpsc::channel;
use std::time::Duration;
use tempfile::TempDir;

const SEGMENT_BYTES: u64 = 32 << 10;

/// A server's directories, and the history that they must give back.
struct Store {
    snapshots: TempDir,
    log: TempDir,
    history: Vec<Vec<u8>>,
    /// The log has what comes after so many of them; a snapshot has the others.
    from: usize,
    mode: Mode,
}

impl Store {
    fn new() -> Store {
        let mode = mode(LogIo::Pwrite, LogSync::None);
        Store { snapshots: tempdir(), log: tempdir(), history: Vec::new(), from: 0, mode }
    }

    fn options(&self) -> LogOptions {
        LogOptions {
            files: corral_engine::disk::files::real(),
            dir: self.log.path().to_owned(),
            mode: self.mode.clone(),
            segment_bytes: SEGMENT_BYTES,
            pipeline_depth: 1,
            group_commit_delay: Duration::ZERO,
        }
    }

    /// One life that writes these batches, each of so many records of so many bytes, in other blocks than the life before.
    fn write(&mut self, batches: &[(usize, usize)]) {
        self.mode.block = BlockSize::new(self.mode.block.bytes() as u32 / 2).unwrap_or(BlockSize::MAX);
        let device = Device::open(&self.mode).unwrap();
        let mut life = Life::after(self.log.path(), self.from, device, &self.mode, SEGMENT_BYTES, 1);
        assert_same(&life.history[self.from..], &self.history[self.from..], "at the start of a life");
        life.history = std::mem::take(&mut self.history);
        for (records, len) in batches {
            (0..*records).for_each(|_| life.append(*len));
            life.settle();
        }
        self.history = std::mem::take(&mut life.history);
    }

    fn snapshot(&self) {
        let mut tree = Tree::new(1);
        self.history.iter().for_each(|bytes| drop(tree.apply(&TxnEntry::decode(bytes).unwrap(), None)));
        let dir = self.snapshots.path().to_owned();
        let options = SnapshotOptions {
            files: corral_engine::disk::files::real(),
            dir,
            compression: Compression::None,
            rate_limit: 0,
        };
        take(&options, &RwLock::new(tree), 0, &AtomicBool::new(false)).unwrap().unwrap();
    }

    fn truncate(&mut self, upto: usize) {
        let snapshots = self.snapshots();
        let cut = truncate(self.snapshots.path(), &self.options(), Zxid(upto as i64)).unwrap();
        assert_eq!(cut.records as usize, self.history.len().saturating_sub(upto));
        let (left, gone): (Vec<Zxid>, Vec<Zxid>) = snapshots.iter().partition(|start| start.0 as usize <= upto);
        assert_eq!(cut.snapshots.len(), gone.len());
        if cut.records > 0 && segment::list(self.log.path()).unwrap().is_empty() {
            // Nothing of it was kept, and a snapshot stands for all.
            self.from = upto;
            assert_eq!(self.snapshots(), [Zxid(upto as i64)]);
        } else {
            assert_eq!(self.snapshots(), left);
        }
        self.history.truncate(upto);
        self.check();
    }

    fn snapshots(&self) -> Vec<Zxid> {
        snapshot::list(self.snapshots.path()).unwrap().into_iter().map(|(start, _)| start).collect()
    }

    /// From the log alone, and from the newest snapshot and the log.
    fn check(&self) {
        let (found, _) = read_back_after(self.log.path(), self.from).unwrap();
        assert_same(&found[self.from..], &self.history[self.from..], "the log");
        let restored = restore(self.snapshots.path(), self.log.path(), 1, |_| ()).unwrap();
        assert_eq!(restored.tree.last_applied(), Zxid(self.history.len() as i64));
    }
}

/// What is appended after a cut can be read, and a cut may go over several files (ZOOKEEPER-1154 and 1156).
#[test]
fn zookeeper_1489_a_cut_in_a_batch_between_batches_and_between_segments_is_exact() {
    for upto in 0..=24 {
        let mut store = Store::new();
        // Eight batches of three, two of which fill a segment.
        store.write(&[(3, 4000); 8]);
        assert!(segment::list(store.log.path()).unwrap().len() >= 4);
        store.truncate(upto);
        // A second time there is nothing left to cut.
        let before = contents(store.log.path());
        store.truncate(upto);
        assert_eq!(contents(store.log.path()), before);
        store.write(&[(2, 100); 3]);
        store.check();
    }
}

/// Apache's servers load such a snapshot again; there is no number for it in their tracker.
#[test]
fn what_was_cut_off_never_comes_back_through_a_snapshot() {
    let mut store = Store::new();
    store.write(&[(1, 100); 5]);
    store.snapshot();
    store.write(&[(1, 100); 5]);
    store.snapshot();
    store.truncate(7);
    assert_eq!(store.snapshots(), [Zxid(5)], "the one that held more is gone");
    store.write(&[(1, 100); 5]);
    store.check();
}

/// What the first cut had replaced stands behind what it kept, in the same file, and came back when only the replacement was deleted.
#[test]
fn what_was_cut_off_never_comes_back_from_under_a_second_cut() {
    let mut store = Store::new();
    store.write(&[(3, 100)]);
    store.snapshot();
    store.write(&[(3, 100)]);
    store.truncate(5);
    store.truncate(3);
    store.write(&[(2, 100)]);
    store.check();
}

/// Found by the simulator: a learner had taken a snapshot of the beginning of epoch 5, and then logged what no quorum had. It was to
/// cut that off, back to the last transaction of epoch 4, which nothing on its disk names.
#[test]
fn a_snapshot_of_the_beginning_of_an_epoch_is_one_of_what_came_before() {
    let mut store = Store::new();
    store.write(&[(1, 100); 4]);
    // The history of the leader, which the own log is replaced by: the same four, and an epoch in which nothing happened.
    let mut tree = Tree::new(1);
    store.history.iter().for_each(|record| drop(tree.apply(&TxnEntry::decode(record).unwrap(), None)));
    let beginning = Zxid::new(5, 0);
    tree.begin_epoch(beginning);
    let options = SnapshotOptions {
        files: corral_engine::disk::files::real(),
        dir: store.snapshots.path().to_owned(),
        compression: Compression::None,
        rate_limit: 0,
    };
    adopt(&options, store.log.path(), &RwLock::new(tree), 0).unwrap();
    let recovered = recover_after(store.log.path(), beginning, |_| ()).unwrap();
    let (wake, ready) = channel();
    let device = Device::open(&store.mode).unwrap();
    let mut log =
        Log::open(&store.options(), device, &recovered, Arc::new(move || wake.send(()).unwrap_or(()))).unwrap();
    for counter in 1..=3 {
        let header = TxnHeader { session: SessionId(7), cxid: Xid(0), zxid: Zxid::new(5, counter), time_ms: 1 };
        log.group
            .append(&TxnEntry { header, txn: Txn::CreateSession { timeout_ms: 4000 }, digest: None }, Duration::ZERO);
    }
    log.settle(&ready).unwrap();
    drop(log);
    for (upto, records, end) in
        [(Zxid::new(5, 1), 2, Zxid::new(5, 1)), (Zxid(4), 1, beginning), (Zxid(4), 0, beginning)]
    {
        let cut = truncate(store.snapshots.path(), &store.options(), upto).unwrap();
        assert_eq!((cut.records, cut.snapshots, cut.base), (records, vec![], beginning));
        let restored = restore(store.snapshots.path(), store.log.path(), 1, |_| ()).unwrap();
        assert_eq!((restored.tree.last_applied(), restored.recovered.last), (end, end));
    }
}

#[test]
fn a_log_without_its_beginning_is_cut_back_as_far_as_a_snapshot_reaches() {
    let mut store = Store::new();
    store.write(&[(1, 7000); 6]);
    store.snapshot();
    store.write(&[(1, 7000); 8]);
    store.snapshot();
    std::fs::remove_file(&segment::list(store.log.path()).unwrap()[0].1).unwrap();
    let before = (contents(store.log.path()), store.snapshots());
    let refused = truncate(store.snapshots.path(), &store.options(), Zxid(5)).unwrap_err();
    assert!(matches!(&refused, StorageError::Refused { why, .. } if why.contains("cut back to 0x5")), "{refused}");
    assert_eq!((contents(store.log.path()), store.snapshots()), before, "nothing was changed");
    truncate(store.snapshots.path(), &store.options(), Zxid(6)).unwrap();
    let restored = restore(store.snapshots.path(), store.log.path(), 1, |_| ()).unwrap();
    assert_eq!((restored.tree.last_applied(), restored.recovered.records), (Zxid(6), 0));
}

/// A server that went on after such an error would have another history than its leader.
#[test]
fn zookeeper_3701_a_cut_that_cannot_be_made_is_an_error_and_changes_nothing() {
    let mut store = Store::new();
    store.write(&[(3, 500); 4]);
    let newest = segment::list(store.log.path()).unwrap().last().unwrap().0;
    // Something is in the way of the file that would be written.
    let blocked = store.log.path().join(format!("{}.new", segment::file_name(newest + 1)));
    std::fs::create_dir(&blocked).unwrap();
    let failed = truncate(store.snapshots.path(), &store.options(), Zxid(4)).unwrap_err();
    assert!(failed.to_string().contains(&segment::file_name(newest + 1)), "{failed}");
    std::fs::remove_dir(&blocked).unwrap();
    store.check();
    store.truncate(4);
    store.check();
}

#[test]
fn a_crash_before_the_cut_is_durable_changes_nothing() {
    let mut store = Store::new();
    store.write(&[(3, 500); 4]);
    let old = copy(store.log.path());
    let segments = segment::list(store.log.path()).unwrap().len();
    let whole = store.history.clone();
    store.truncate(4);
    // The new segment is there with its name, but its batch never reached the disk.
    let (_, path) = segment::list(store.log.path()).unwrap().remove(segments);
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[4096..].fill(0);
    let crashed = old.path().join(path.file_name().unwrap());
    std::fs::write(&crashed, bytes).unwrap();
    let (found, _) = read_back_after(old.path(), 0).unwrap();
    assert_same(&found, &whole, "before the cut");
}

#[derive(Clone, Debug)]
enum Step {
    Write(Vec<(usize, usize)>),
    Snapshot,
    /// To so many thousandths of the history.
    Truncate(usize),
    Restart,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let batches = prop::collection::vec((1..5usize, 0..6000usize), 1..8);
    let step = prop_oneof![
        4 => batches.prop_map(Step::Write),
        1 => Just(Step::Snapshot),
        3 => (0..=1000usize).prop_map(Step::Truncate),
        1 => Just(Step::Restart),
    ];
    prop::collection::vec(step, 1..12)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_history_of_writes_restarts_snapshots_and_cuts_is_exact(steps in steps()) {
        let mut store = Store::new();
        for step in steps {
            match step {
                Step::Write(batches) => store.write(&batches),
                Step::Snapshot => store.snapshot(),
                // Never behind the snapshot that stands for what the log does not have.
                Step::Truncate(part) => store.truncate(store.from.max((store.history.len() * part).div_ceil(1000))),
                Step::Restart => store.write(&[]),
            }
            store.check();
        }
    }
}

/// The snapshot was linked to where it waits, and then shrunk under its old name: what remained was neither it nor a log, and the next
/// start served an empty tree.
#[test]
fn a_cut_back_to_a_large_snapshot_keeps_it_whole() {
    let store = Store::new();
    let (snapshots, log) = (store.snapshots.path(), store.log.path());
    let options = SnapshotOptions {
        files: corral_engine::disk::files::real(),
        dir: snapshots.to_owned(),
        compression: Compression::None,
        rate_limit: 0,
    };
    let mut tree = Tree::new(1);
    let data = vec![7; 8000];
    for zxid in 1..=1500 {
        let path = format!("/{zxid}");
        let txn =
            CreateTxn { path: &path, data: Some(&data), acl: AclList::OPEN, ephemeral: false, parent_cversion: zxid };
        let header = TxnHeader { session: SessionId(1), cxid: Xid(1), zxid: Zxid(zxid.into()), time_ms: 1 };
        tree.apply(&TxnEntry { header, txn: Txn::Create(txn), digest: None }, None);
    }
    let nodes = tree.len();
    adopt(&options, log, &RwLock::new(tree), 0).unwrap();
    let path = snapshot::list(snapshots).unwrap()[0].1.clone();
    assert!(path.metadata().unwrap().len() > 10 << 20);
    let device = Device::open(&store.mode).unwrap();
    let mut life = Life::after(log, 1500, device, &store.mode, SEGMENT_BYTES, 1);
    (0..3).for_each(|_| life.commit_one(100));
    drop(life);
    let cut = truncate(snapshots, &store.options(), Zxid(1500)).unwrap();
    assert_eq!(cut.records, 3);
    let restored = restore(snapshots, log, 1, |_| ()).unwrap();
    assert_eq!((restored.tree.last_applied(), restored.tree.len()), (Zxid(1500), nodes));
}
