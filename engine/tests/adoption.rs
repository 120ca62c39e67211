//! A history that came from a leader takes the place of the own one: as a whole, or not at all.

mod common;

use common::{Life, copy, mode, tempdir};
use corral_engine::disk::files::RealFiles;
use corral_engine::disk::{LogIo, LogSync};
use corral_engine::restore::{Restored, restore};
use corral_engine::snapshot::format::Compression;
use corral_engine::snapshot::writer::{SnapshotOptions, take};
use corral_engine::txnlog::segment;
use corral_engine::{Tree, adoption, snapshot};
use corral_proto::{SessionId, Txn, TxnEntry, TxnHeader, Xid, Zxid};
use parking_lot::RwLock;
use std::path::Path;
use std::sync::atomic::AtomicBool;
use tempfile::TempDir;

/// The tree of another history, which is older than the own one and of a later epoch.
fn theirs() -> RwLock<Tree> {
    let mut tree = Tree::new(1);
    let header = TxnHeader { session: SessionId(9), cxid: Xid(0), zxid: Zxid(3), time_ms: 1 };
    tree.apply(&TxnEntry { header, txn: Txn::CreateSession { timeout_ms: 9000 }, digest: None }, None);
    tree.begin_epoch(Zxid::new(7, 0));
    RwLock::new(tree)
}

/// A member with a log of twelve transactions and a snapshot of six.
fn own() -> (TempDir, TempDir) {
    let (snapshots, log) = (tempdir(), tempdir());
    let mode = mode(LogIo::Pwrite, LogSync::None);
    for _ in 0..2 {
        let mut life = Life::on_device(log.path(), &mode, 32 << 10, 1);
        (0..6).for_each(|_| life.append(3000));
        life.settle();
        drop(life);
        let restored = restored(snapshots.path(), log.path());
        if snapshot::list(snapshots.path()).unwrap().is_empty() {
            snapshot_of(snapshots.path(), &RwLock::new(restored.tree));
        }
    }
    (snapshots, log)
}

fn options(dir: &Path) -> SnapshotOptions {
    SnapshotOptions {
        files: corral_engine::disk::files::real(),
        dir: dir.to_owned(),
        compression: Compression::None,
        rate_limit: 0,
    }
}

fn snapshot_of(dir: &Path, tree: &RwLock<Tree>) {
    take(&options(dir), tree, 0, &AtomicBool::new(false)).unwrap();
}

fn restored(snapshots: &Path, log: &Path) -> Restored {
    restore(snapshots, log, 1, |_| ()).unwrap()
}

#[track_caller]
fn check_theirs(snapshots: &Path, log: &Path) {
    let restored = restored(snapshots, log);
    assert_eq!(restored.tree.last_applied(), Zxid::new(7, 0));
    assert_eq!((restored.tree.sessions(), restored.recovered.records), (theirs().read().sessions(), 0));
    assert_eq!(segment::list(log).unwrap(), [], "nothing of the own log is left");
}

/// The name of a snapshot is what its tree had applied, whatever the log before it ended with.
#[test]
fn zookeeper_582_a_history_that_was_taken_over_is_named_after_its_own_end() {
    let (snapshots, log) = own();
    adoption::adopt(&options(snapshots.path()), log.path(), &theirs(), 0).unwrap();
    let named: Vec<Zxid> = snapshot::list(snapshots.path()).unwrap().into_iter().map(|(zxid, _)| zxid).collect();
    assert_eq!(named, [Zxid::new(7, 0)]);
    check_theirs(snapshots.path(), log.path());
    assert_eq!(
        adoption::finish(&RealFiles, snapshots.path(), log.path()).unwrap(),
        None,
        "there is nothing left to do"
    );
}

/// From when it is durable it is the history, whenever the power fails: before that the own one is, all of it.
#[test]
fn zookeeper_2872_a_crash_leaves_the_old_history_or_the_new_one() {
    let (snapshots, log) = own();
    let room = snapshots.path().join("adopted");
    std::fs::create_dir(&room).unwrap();
    snapshot_of(&room, &theirs());
    // Its name was not there yet.
    let (unfinished, their_log) = (tempdir(), copy(log.path()));
    for (_, path) in snapshot::list(snapshots.path()).unwrap() {
        std::fs::copy(&path, unfinished.path().join(path.file_name().unwrap())).unwrap();
    }
    std::fs::create_dir(unfinished.path().join("adopted")).unwrap();
    let (_, path) = snapshot::list(&room).unwrap().remove(0);
    std::fs::copy(&path, unfinished.path().join("adopted/half.new")).unwrap();
    assert_eq!(adoption::finish(&RealFiles, unfinished.path(), their_log.path()).unwrap(), None);
    assert_eq!(restored(unfinished.path(), their_log.path()).tree.last_applied(), Zxid(12));
    // Some of what it replaces was deleted already.
    let (_, newest) = segment::list(log.path()).unwrap().pop().unwrap();
    std::fs::remove_file(newest).unwrap();
    assert_eq!(adoption::finish(&RealFiles, snapshots.path(), log.path()).unwrap(), Some(Zxid::new(7, 0)));
    check_theirs(snapshots.path(), log.path());
}
