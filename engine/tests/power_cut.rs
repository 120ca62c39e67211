//! The power fails, or the system refuses something, at every single step of whatever changes the history on a disk: afterwards the old
//! history is there or the new one, and nothing else.
//!
//! **Not here**: appending to the log (`power_loss.rs`), long courses of events (the simulator).

mod common;

use common::{Life, mode, tempdir};
use corral_engine::adoption::{self, adopt};
use corral_engine::disk::files::{Files, RealFiles, real};
use corral_engine::disk::removal;
use corral_engine::disk::simulated::Platter;
use corral_engine::disk::{BlockSize, LogIo, LogSync, Mode};
use corral_engine::epochs::Epochs;
use corral_engine::identity::Identity;
use corral_engine::restore::{restore, retain};
use corral_engine::snapshot::format::Compression;
use corral_engine::snapshot::writer::{SnapshotOptions, take};
use corral_engine::truncation::truncate;
use corral_engine::txnlog::workshop::Workshop;
use corral_engine::txnlog::{LogOptions, recover};
use corral_engine::{StorageError, Tree, snapshot};
use corral_proto::{SessionId, Txn, TxnEntry, TxnHeader, Xid, Zxid};
use parking_lot::RwLock;
use rand::SeedableRng;
use rand::rngs::SmallRng;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;
use tempfile::TempDir;

const SEGMENT_BYTES: u64 = 32 << 10;
/// What is left after a power loss is drawn so often.
const DRAWS: u64 = 12;
/// Transactions of the history that everything begins with.
const OLD: Zxid = Zxid(12);

/// A server's directories, and the blocks that it writes its log in.
struct Home(TempDir, BlockSize);

impl Home {
    fn log(&self) -> PathBuf {
        self.0.path().join("log")
    }

    fn snapshots(&self) -> PathBuf {
        self.0.path().join("snapshots")
    }

    fn options(&self, files: Arc<dyn Files>) -> (SnapshotOptions, LogOptions) {
        let snapshots = SnapshotOptions {
            files: files.clone(),
            dir: self.snapshots(),
            compression: Compression::None,
            rate_limit: 0,
        };
        let log = LogOptions {
            files,
            dir: self.log(),
            mode: Mode { block: self.1, ..mode(LogIo::Pwrite, LogSync::None) },
            segment_bytes: SEGMENT_BYTES,
            pipeline_depth: 1,
            group_commit_delay: Duration::ZERO,
        };
        (snapshots, log)
    }

    /// Twelve transactions in two lives and several segments, with a snapshot of three and one of six.
    fn new() -> Home {
        let home = Home(tempdir(), BlockSize::MAX);
        [home.log(), home.snapshots()].iter().for_each(|dir| fs::create_dir(dir).unwrap());
        let (snapshots, log) = home.options(real());
        for (life, count) in [3, 3, 6].into_iter().enumerate() {
            let mut life_of = Life::on_device(&home.log(), &log.mode, SEGMENT_BYTES, 1);
            (0..count).for_each(|_| life_of.commit_one(6000));
            drop(life_of);
            if life < 2 {
                let tree = restore(&home.snapshots(), &home.log(), 1, |_| ()).unwrap().tree;
                take(&snapshots, &RwLock::new(tree), 0, &AtomicBool::new(false)).unwrap();
            }
        }
        assert_eq!(home.end(), OLD);
        home
    }

    fn copy(&self) -> Home {
        let home = Home(tempdir(), BlockSize::MAX);
        copy(self.0.path(), home.0.path());
        home
    }

    /// Where the history ends after a start.
    fn end(&self) -> Zxid {
        adoption::finish(&RealFiles, &self.snapshots(), &self.log()).unwrap();
        let restored = restore(&self.snapshots(), &self.log(), 1, |_| ());
        restored.unwrap_or_else(|error| panic!("it cannot be restored: {error}")).tree.last_applied()
    }
}

fn copy(from: &Path, to: &Path) {
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let place = to.join(path.file_name().unwrap());
        if path.is_dir() {
            fs::create_dir(&place).unwrap();
            copy(&path, &place);
        } else {
            fs::copy(&path, &place).unwrap();
        }
    }
}

/// Does `work` over copies of `home`, and lets the power fail at each of its steps, and after the last; and then has each of its steps
/// refused. `check` is told whether the work says that it is done.
fn at_every_step(
    home: &Home,
    work: impl Fn(&Home, Arc<dyn Files>) -> Result<(), StorageError>,
    check: impl Fn(&Home, bool),
) {
    let mut steps = 0;
    let mut is_done = false;
    while !is_done {
        for draw in 0..DRAWS {
            let mut home = home.copy();
            home.1 = BlockSize::ALL[draw as usize % 4];
            let platter = Platter::new(home.0.path(), draw);
            platter.set_physical(home.1);
            platter.set_fuse(Some(steps));
            is_done = work(&home, Arc::new(platter.clone())).is_ok();
            assert!(is_done || !platter.has_power(), "nothing else fails");
            platter.lose_power();
            check(&home, is_done);
        }
        steps += 1;
    }
    assert!(steps > 3, "hardly anything was done");
    for step in 0..steps {
        for kind in [ErrorKind::Other, ErrorKind::StorageFull, ErrorKind::PermissionDenied] {
            let home = home.copy();
            let platter = Platter::new(home.0.path(), 1);
            platter.set_fault(Some((step, kind)));
            let outcome = work(&home, Arc::new(platter.clone()));
            if let Err(error) = &outcome {
                let is_full = matches!(error, StorageError::Full { .. });
                assert_eq!(is_full, kind == ErrorKind::StorageFull, "{error}");
                assert!(is_full || matches!(error, StorageError::Io { .. }), "a refusal is no damage: {error}");
            }
            check(&home, outcome.is_ok());
            // And then the power fails.
            platter.set_fault(None);
            platter.lose_power();
            check(&home, outcome.is_ok());
        }
    }
}

/// The history is the old one until the work is done, and may be the new one from some step on.
fn changes(work: impl Fn(&Home, Arc<dyn Files>) -> Result<(), StorageError>, new: Zxid) {
    at_every_step(&Home::new(), work, |home, is_done| {
        let end = home.end();
        assert!(end == new || (!is_done && end == OLD), "it ends with {end}, and done is {is_done}");
        assert_eq!(home.end(), end, "as it does after another start");
    });
}

fn tree_of(home: &Home) -> RwLock<Tree> {
    RwLock::new(restore(&home.snapshots(), &home.log(), 1, |_| ()).unwrap().tree)
}

#[test]
fn a_snapshot_changes_no_history() {
    let snapshot = |home: &Home, files| {
        let tree = tree_of(home);
        take(&home.options(files).0, &tree, 0, &AtomicBool::new(false)).map(drop)
    };
    changes(snapshot, OLD);
}

#[test]
fn retention_changes_no_history() {
    let retention = |home: &Home, files: Arc<dyn Files>| {
        let log_dir = home.log();
        let failed = |source| StorageError::io("let go of", &log_dir)(source);
        let snapshots = snapshot::list(&home.snapshots())?;
        let (old, needless) = retain(&snapshots, &[], 1);
        for (_, path) in old {
            removal::remove(&*files, path).map_err(failed)?;
        }
        let recovered = recover(&home.log(), |_| ())?;
        let needless = needless.expect("a snapshot is kept");
        let (_, log) = home.options(files.clone());
        let segments = recovered.used.iter().filter(|(_, last)| *last <= needless).map(|(path, _)| path.clone());
        // Release itself only warns of what fails; it must be seen here.
        let segments: Vec<PathBuf> = segments.collect();
        assert!(!segments.is_empty());
        Workshop::new(&log, SmallRng::seed_from_u64(1)).release(segments.clone(), Vec::new());
        match segments.iter().any(|path| path.exists()) {
            false => files.sync_dir(&home.log()).map_err(failed),
            true => Err(failed(ErrorKind::Other.into())),
        }
    };
    changes(retention, OLD);
}

#[test]
fn what_a_new_life_does_to_the_log_changes_no_history() {
    let resume = |home: &Home, files| {
        let mut recovered = recover(&home.log(), |_| ())?;
        let (_, log) = home.options(files);
        let mut workshop = Workshop::new(&log, SmallRng::seed_from_u64(1));
        workshop.resume(&mut recovered)?;
        workshop.make(recovered.next_segment, SEGMENT_BYTES).map(drop)
    };
    changes(resume, OLD);
}

#[test]
fn another_history_is_taken_over_as_a_whole_or_not_at_all() {
    // A shorter one, behind which nothing of the own log may come back; and one of a later epoch.
    for end in [Zxid(3), Zxid::new(7, 0)] {
        let take_over = |home: &Home, files| {
            let mut tree = Tree::new(1);
            let header = TxnHeader { session: SessionId(9), cxid: Xid(0), zxid: Zxid(3), time_ms: 1 };
            tree.apply(&TxnEntry { header, txn: Txn::CreateSession { timeout_ms: 9000 }, digest: None }, None);
            if end > Zxid(3) {
                tree.begin_epoch(end);
            }
            adopt(&home.options(files).0, &home.log(), &RwLock::new(tree), 0)
        };
        changes(take_over, end);
    }
}

#[test]
fn a_history_is_cut_back_or_is_as_it_was() {
    // In the middle of the log; to a snapshot, with nothing of the log after it; and to before all of them.
    for upto in [9, 6, 2] {
        let cut = |home: &Home, files| {
            let (snapshots, log) = home.options(files);
            truncate(&snapshots.dir, &log, Zxid(upto)).map(drop)
        };
        changes(cut, Zxid(upto));
    }
}

#[test]
fn an_epoch_is_promised_and_taken_over_or_is_not() {
    let home = Home(tempdir(), BlockSize::MAX);
    let path = |home: &Home| home.0.path().to_owned();
    Epochs::open(real(), &path(&home), Zxid::new(3, 1)).unwrap();
    let work = |home: &Home, files| {
        let mut epochs = Epochs::open(files, &path(home), Zxid::new(3, 1))?;
        epochs.promise(5)?;
        epochs.take_over(5)
    };
    at_every_step(&home, work, |home, is_done| {
        let epochs = Epochs::open(real(), &path(home), Zxid::new(3, 1)).unwrap();
        let found = (epochs.accepted(), epochs.current());
        assert!(found == (5, 5) || (!is_done && [(3, 3), (5, 3)].contains(&found)), "{found:?}");
    });
}

#[test]
fn a_directory_has_an_identity_or_has_none() {
    let home = Home(tempdir(), BlockSize::MAX);
    let work = |home: &Home, files: Arc<dyn Files>| Identity(7).write(&*files, home.0.path());
    at_every_step(&home, work, |home, is_done| {
        let found = Identity::read(home.0.path()).unwrap();
        assert!(found == Some(Identity(7)) || (!is_done && found.is_none()), "{found:?}");
    });
}
