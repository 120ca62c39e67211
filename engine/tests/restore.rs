//! From directories to a tree: which snapshot is taken, which log it needs, and when nothing may be served.
//!
//! Snapshots and log are real files, written by the real writers; the tests then take away or damage what a disk or an operator
//! might.

mod common;

use common::{Life, mode, tempdir};
use corral_engine::disk::device::Device;
use corral_engine::disk::{LogIo, LogSync};
use corral_engine::restore::{NEWEST_BYTES, Progress, Restored, restore};
use corral_engine::snapshot::format::Compression;
use corral_engine::snapshot::writer::{SnapshotOptions, take};
use corral_engine::tree::image::Builder;
use corral_engine::{StorageError, Tree};
use corral_proto::{SessionId, Txn, TxnEntry, TxnHeader, Xid, Zxid};
use parking_lot::RwLock;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use tempfile::TempDir;

/// A server's two directories, and the tree that they stand for.
struct Store {
    snapshots: TempDir,
    log: TempDir,
    life: Life<Device>,
    tree: RwLock<Tree>,
    applied: usize,
}

impl Store {
    fn new() -> Store {
        let (snapshots, log) = (tempdir(), tempdir());
        let life = Life::on_device(log.path(), &mode(LogIo::Pwrite, LogSync::Fdatasync), 16 << 10, 1);
        Store { snapshots, log, life, tree: RwLock::new(Tree::new(1)), applied: 0 }
    }

    /// So many transactions, each several blocks, so that segments are used up.
    fn write(&mut self, count: usize) {
        for _ in 0..count {
            self.life.commit_one(3000);
        }
        for bytes in &self.life.history[self.applied..] {
            self.tree.write().apply(&TxnEntry::decode(bytes).unwrap(), None);
        }
        self.applied = self.life.history.len();
    }

    fn snapshot(&mut self) -> PathBuf {
        let dir = self.snapshots.path().to_owned();
        let options = SnapshotOptions {
            files: corral_engine::disk::files::real(),
            dir,
            compression: Compression::None,
            rate_limit: 0,
        };
        take(&options, &self.tree, 0, &AtomicBool::new(false)).unwrap().unwrap().path
    }

    fn restore(&self) -> Result<Restored, StorageError> {
        restore(self.snapshots.path(), self.log.path(), 2, |_| ())
    }

    fn segments(&self) -> Vec<PathBuf> {
        corral_engine::txnlog::segment::list(self.log.path()).unwrap().into_iter().map(|(_, path)| path).collect()
    }
}

fn damage(path: &Path) {
    let mut bytes = fs::read(path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0x10;
    fs::write(path, bytes).unwrap();
}

fn refused(result: Result<Restored, StorageError>, words: &[&str]) {
    let said = result.expect_err("this must not be served").to_string();
    assert!(words.iter().all(|word| said.contains(word)), "{words:?} are not in: {said}");
}

#[test]
fn nothing_at_all_is_an_empty_tree() {
    let (snapshots, log) = (tempdir(), tempdir());
    let restored = restore(snapshots.path(), log.path(), 1, |_| ()).unwrap();
    assert_eq!((restored.tree.last_applied(), restored.snapshot), (Zxid::ZERO, None));
}

#[test]
fn the_newest_snapshot_and_the_log_after_it_are_used_and_told_about() {
    let mut store = Store::new();
    store.write(10);
    store.snapshot();
    store.write(10);
    let newest = store.snapshot();
    store.write(5);
    let mut told = Vec::new();
    let progress = |progress: Progress<'_>| match progress {
        Progress::Snapshot(path, done) => told.push(format!("{} {}/{}", path == newest, done.bytes, done.of)),
        Progress::Replayed(records) => told.push(records.to_string()),
    };
    let restored = restore(store.snapshots.path(), store.log.path(), 2, progress).unwrap();
    let size = fs::metadata(&newest).unwrap().len();
    assert_eq!(told.first().map(String::as_str), Some("true 0/0"), "before it is read");
    assert!(told.iter().any(|line| line.starts_with("true ") && line.ends_with(&format!("/{size}"))), "{told:?}");
    assert_eq!(told.last().map(String::as_str), Some("5"));
    assert_eq!((restored.tree.last_applied(), restored.recovered.records), (Zxid(25), 5));
    assert_eq!(restored.snapshot.unwrap().0, newest);
}

#[test]
fn a_damaged_snapshot_is_passed_over_for_the_one_before_it() {
    let mut store = Store::new();
    store.write(10);
    let older = store.snapshot();
    store.write(10);
    let newest = store.snapshot();
    store.write(5);
    damage(&newest);
    let restored = store.restore().unwrap();
    assert_eq!((restored.snapshot.unwrap().0, restored.tree.last_applied()), (older, Zxid(25)));
    assert_eq!(restored.unusable[0].0, newest);
    assert!(restored.unusable[0].1.to_string().contains(newest.to_str().unwrap()));
}

#[test]
fn nothing_of_a_damaged_snapshot_gets_into_the_tree() {
    let mut store = Store::new();
    store.write(5);
    store.snapshot();
    store.write(1);
    // Only the damaged one has these: its sessions come first in the file, so they are read before the damage is found.
    let mut other = Builder::new(1);
    (0..1000).for_each(|id| other.session(SessionId(id), 1000));
    *store.tree.write() = other.finish(Zxid(6), Zxid(6), None);
    let newest = store.snapshot();
    let mut bytes = fs::read(&newest).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(&newest, bytes).unwrap();
    let restored = store.restore().unwrap();
    assert!(restored.tree.sessions().is_empty());
    assert_eq!(restored.unusable.len(), 1);
}

#[test]
fn without_any_usable_snapshot_the_whole_log_stands_for_them() {
    let mut store = Store::new();
    store.write(10);
    damage(&store.snapshot());
    store.write(2);
    let restored = store.restore().unwrap();
    assert_eq!((restored.tree.last_applied(), restored.recovered.records), (Zxid(12), 12));
}

#[test]
fn zookeeper_2325_snapshots_that_are_gone_are_not_replaced_by_an_empty_tree() {
    let mut store = Store::new();
    store.write(10);
    let snapshot = store.snapshot();
    store.write(10);
    fs::remove_file(&store.segments()[0]).unwrap();
    assert_eq!(store.restore().unwrap().tree.last_applied(), Zxid(20), "the log reaches back to the snapshot");
    fs::remove_file(snapshot).unwrap();
    refused(store.restore(), &["does not reach back to its beginning", "there is no snapshot"]);
}

#[test]
fn a_gap_between_the_snapshot_and_the_log_is_refused() {
    let mut store = Store::new();
    store.write(3);
    store.snapshot();
    store.write(20);
    let segments = store.segments();
    segments[..3].iter().for_each(|path| fs::remove_file(path).unwrap());
    refused(store.restore(), &["log-", "but no snapshot holds more than those up to 0x3"]);
}

#[test]
fn an_image_that_is_fuzzy_beyond_the_end_of_the_log_is_refused() {
    let mut store = Store::new();
    store.write(3);
    // So many sessions that writing them takes a while, before the walk over the nodes begins.
    let mut large = Builder::new(1);
    (0..100_000).for_each(|id| large.session(SessionId(id), 1000));
    *store.tree.write() = large.finish(Zxid(3), Zxid(3), None);
    let dir = store.snapshots.path().to_owned();
    let options = SnapshotOptions {
        files: corral_engine::disk::files::real(),
        dir: dir.clone(),
        compression: Compression::None,
        rate_limit: 8 << 20,
    };
    std::thread::scope(|scope| {
        let snapshot = scope.spawn(|| take(&options, &store.tree, 0, &AtomicBool::new(false)).unwrap().unwrap());
        while fs::read_dir(&dir).unwrap().next().is_none() {
            std::thread::yield_now();
        }
        // Applied, and lost by the log afterwards.
        let header = TxnHeader { session: SessionId(1), cxid: Xid(1), zxid: Zxid(9), time_ms: 1 };
        store.tree.write().apply(&TxnEntry { header, txn: Txn::Error(-101), digest: None }, None);
        let footer = snapshot.join().unwrap().footer;
        assert_eq!((footer.start, footer.end), (Zxid(3), Zxid(9)));
    });
    refused(store.restore(), &["snapshot-", "up to 0x9", "the log ends at 0x3"]);
}

#[test]
fn zookeeper_1090_a_snapshot_is_named_after_what_was_applied_before_its_walk() {
    let mut store = Store::new();
    store.write(7);
    let path = store.snapshot();
    assert!(path.to_str().unwrap().ends_with("0000000000000007"));
    store.write(1);
    assert_eq!(store.restore().unwrap().recovered.records, 1, "what came later is replayed");
}

#[test]
fn zookeeper_2332_a_segment_that_was_never_finished_does_not_keep_the_server_down() {
    let mut store = Store::new();
    store.write(3);
    fs::write(store.log.path().join("log-0000000099.new"), b"").unwrap();
    assert_eq!(store.restore().unwrap().tree.last_applied(), Zxid(3));
}

/// Every snapshot was damaged, and what a cut had left of the log was nothing: an empty tree was served, and voted with.
#[test]
fn a_restore_that_ends_before_what_the_names_of_snapshots_prove_is_refused() {
    let mut store = Store::new();
    store.write(7);
    let snapshot = store.snapshot();
    store.write(1);
    damage(&snapshot);
    assert_eq!(store.restore().unwrap().tree.last_applied(), Zxid(8), "the log has all of it");
    store.segments().iter().for_each(|path| fs::remove_file(path).unwrap());
    refused(store.restore(), &["snapshot-0000000000000007", "without it the history ends with transaction 0x0"]);
}

/// A wrong `chown` made a member give up its history.
#[test]
fn a_snapshot_that_cannot_be_opened_is_not_damaged() {
    let mut store = Store::new();
    store.write(7);
    store.snapshot();
    store.write(1);
    let newest = store.snapshot();
    // Unlike permissions, this stops root as well.
    fs::rename(&newest, store.snapshots.path().join("elsewhere")).unwrap();
    std::os::unix::fs::symlink("snapshot-loop", &newest).unwrap();
    assert!(matches!(store.restore(), Err(StorageError::Io { path, .. }) if path == newest));
}

#[test]
fn what_a_newer_version_has_written_is_not_damaged() {
    let mut store = Store::new();
    store.write(7);
    store.snapshot();
    store.write(1);
    let (snapshot, segment) = (store.snapshot(), store.segments()[0].clone());
    for (path, checked) in [(snapshot, 32), (segment, 36)] {
        let good = fs::read(&path).unwrap();
        let mut newer = good.clone();
        newer[11] += 1;
        let crc = crc32c::crc32c(&newer[..checked]);
        newer[checked..checked + 4].copy_from_slice(&crc.to_be_bytes());
        fs::write(&path, &newer).unwrap();
        assert!(matches!(store.restore(), Err(StorageError::Newer { file, .. }) if file == path));
        fs::write(&path, &good).unwrap();
        assert!(store.restore().is_ok());
    }
}

/// Five hundred of a megabyte each would be half a gigabyte.
#[test]
fn what_a_restore_keeps_at_hand_is_bounded_in_bytes() {
    let (snapshots, log) = (tempdir(), tempdir());
    let mut life = Life::on_device(log.path(), &mode(LogIo::Pwrite, LogSync::None), 4 << 20, 1);
    (0..80).for_each(|_| life.commit_one(1 << 20));
    drop(life);
    let restored = restore(snapshots.path(), log.path(), 1, |_| ()).unwrap();
    let bytes: usize = restored.newest.iter().map(|(_, record)| record.len()).sum();
    assert!((NEWEST_BYTES - (2 << 20)..=NEWEST_BYTES).contains(&bytes), "{bytes}");
    assert_eq!(restored.newest.last().unwrap().0, restored.recovered.last);
}
