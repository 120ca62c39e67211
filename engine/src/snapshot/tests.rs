//! Snapshots taken, read back, cut short and damaged.

use super::format::Compression;
use super::writer::{SnapshotOptions, take, take_when};
use super::{file_name, list, reader};
use crate::error::StorageError;
use crate::tree::Tree;
use corral_proto::txn::CreateTxn;
use corral_proto::{AclList, SessionId, Txn, TxnEntry, TxnHeader, Xid, Zxid};
use parking_lot::RwLock;
use std::fs;
use std::sync::atomic::AtomicBool;

fn apply(tree: &mut Tree, zxid: i64, txn: Txn<'_>) {
    let header = TxnHeader { session: SessionId(7), cxid: Xid(1), zxid: Zxid(zxid), time_ms: 1000 + zxid };
    tree.apply(&TxnEntry { header, txn, digest: None }, None);
}

fn grown(nodes: i64) -> Tree {
    let mut tree = Tree::new(1);
    apply(&mut tree, 1, Txn::CreateSession { timeout_ms: 4000 });
    for n in 0..nodes {
        let path = format!("/n{n}");
        let data = vec![n as u8; 100 + n as usize % 300];
        let acl = if n % 3 == 0 { AclList::READ_ONLY } else { AclList::OPEN };
        let create =
            CreateTxn { path: &path, data: Some(&data), acl, ephemeral: n % 5 == 0, parent_cversion: n as i32 + 1 };
        apply(&mut tree, n + 2, Txn::Create(create));
    }
    tree
}

fn dump(tree: &Tree) -> Vec<String> {
    let mut nodes = Vec::new();
    tree.walk(0, usize::MAX, |path, image| {
        nodes.push(format!("{path} {image:?}"));
        true
    });
    nodes.sort();
    nodes
}

fn options(dir: &tempfile::TempDir, compression: Compression) -> SnapshotOptions {
    SnapshotOptions { files: crate::disk::files::real(), dir: dir.path().to_owned(), compression, rate_limit: 0 }
}

#[test]
fn a_snapshot_gives_the_tree_back_in_every_compression() {
    let tree = RwLock::new(grown(6000));
    for compression in Compression::ALL {
        let dir = tempfile::tempdir_in(".").unwrap();
        let options = options(&dir, compression);
        let taken = take(&options, &tree, 99, &AtomicBool::new(false)).unwrap().unwrap();
        assert_eq!(list(dir.path()).unwrap(), [(Zxid(6001), taken.path.clone())]);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "nothing else is left");
        assert_eq!(fs::metadata(&taken.path).unwrap().len(), taken.file_bytes);
        let (back, summary) = reader::load(&taken.path, 2, |_| ()).unwrap();
        assert_eq!(back.is_whole(), Ok(()));
        assert_eq!(dump(&back), dump(&tree.read()));
        assert_eq!(back.sessions(), tree.read().sessions());
        assert_eq!((back.ephemeral_count(), back.bytes()), (tree.read().ephemeral_count(), tree.read().bytes()));
        assert!(summary.blocks > 3 && summary.footer.nodes == 6004, "{summary:?}");
        assert_eq!(summary.header.wall_ms, 99);
    }
}

#[test]
fn every_damaged_byte_and_every_cut_is_found() {
    let tree = RwLock::new(grown(20));
    for compression in Compression::ALL {
        let dir = tempfile::tempdir_in(".").unwrap();
        let taken = take(&options(&dir, compression), &tree, 0, &AtomicBool::new(false)).unwrap().unwrap();
        let whole = fs::read(&taken.path).unwrap();
        let path = dir.path().join(file_name(Zxid(1)));
        let check = |bytes: &[u8], what: String| {
            fs::write(&path, bytes).unwrap();
            let result = reader::load(&path, 1, |_| ());
            assert!(matches!(result, Err(StorageError::Corrupt { .. })), "{compression:?}: {what}: {result:?}");
        };
        for at in 0..whole.len() {
            let mut broken = whole.clone();
            broken[at] ^= 1 << (at % 8);
            check(&broken, format!("byte {at}"));
        }
        for len in (0..whole.len()).step_by(7) {
            check(&whole[..len], format!("cut at {len}"));
        }
        check(&[&whole[..], &[0]].concat(), "something behind the footer".to_owned());
    }
}

#[test]
fn a_snapshot_that_is_broken_off_leaves_nothing() {
    let dir = tempfile::tempdir_in(".").unwrap();
    let tree = RwLock::new(grown(100));
    let taken = take(&options(&dir, Compression::None), &tree, 0, &AtomicBool::new(true)).unwrap();
    assert!(taken.is_none());
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
}

/// Whoever applies transactions does not wait for a snapshot to end, and what it does meanwhile is replayed.
#[test]
fn transactions_go_on_while_a_snapshot_is_taken() {
    let dir = tempfile::tempdir_in(".").unwrap();
    let tree = RwLock::new(grown(20_000));
    let start = tree.read().last_applied().0;
    let options = SnapshotOptions { rate_limit: 64 << 20, ..options(&dir, Compression::Lz4) };
    let done = AtomicBool::new(false);
    let mut log = Vec::new();
    let taken = std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            let taken = take(&options, &tree, 0, &AtomicBool::new(false));
            done.store(true, std::sync::atomic::Ordering::SeqCst);
            taken
        });
        let mut zxid = start;
        while !done.load(std::sync::atomic::Ordering::SeqCst) {
            zxid += 1;
            let path = format!("/n{}", (zxid * 7919) % 20_000);
            let txn = if zxid % 2 == 0 {
                Txn::Delete { path: &path }
            } else {
                Txn::SetData { path: &path, data: Some(b"later"), version: zxid as i32 }
            };
            use corral_proto::Jute;
            log.push((zxid, txn.op(), txn.to_vec()));
            apply(&mut tree.write(), zxid, txn);
        }
        writer.join().unwrap().unwrap().unwrap()
    });
    assert!(taken.footer.end > taken.footer.start, "something was applied meanwhile");
    let (mut back, _) = reader::load(&taken.path, 1, |_| ()).unwrap();
    for (zxid, op, body) in log.iter().filter(|(zxid, ..)| *zxid > taken.footer.start.0) {
        let mut bytes = Vec::new();
        bytes.extend(7i64.to_be_bytes());
        bytes.extend(1i32.to_be_bytes());
        bytes.extend(zxid.to_be_bytes());
        bytes.extend((1000 + zxid).to_be_bytes());
        bytes.extend(op.code().to_be_bytes());
        bytes.extend(body);
        back.apply(&TxnEntry::decode(&bytes).unwrap(), None);
    }
    assert_eq!(back.is_whole(), Ok(()));
    assert_eq!(dump(&back), dump(&tree.read()));
}

/// A leader's tree may be ahead of its log: a snapshot that had its name before the log has caught up could not be restored after a
/// power loss.
#[test]
fn a_snapshot_has_no_name_before_the_log_has_what_is_in_it() {
    let tree = RwLock::new(grown(10));
    let dir = tempfile::tempdir_in(".").unwrap();
    let options = options(&dir, Compression::None);
    let (asked, cancel) = (std::cell::Cell::new(0), AtomicBool::new(false));
    let is_durable = |upto: Zxid| {
        assert_eq!(upto, tree.read().last_applied());
        assert_eq!(list(dir.path()).unwrap(), [], "it has no name yet");
        asked.set(asked.get() + 1);
        asked.get() == 3
    };
    assert!(take_when(&options, &tree, 1, &cancel, is_durable).unwrap().is_some());
    assert_eq!((asked.get(), list(dir.path()).unwrap().len()), (3, 1));
    let never = tempfile::tempdir_in(".").unwrap();
    let options = SnapshotOptions { dir: never.path().to_owned(), ..options };
    let stops = |_| {
        cancel.store(true, std::sync::atomic::Ordering::Relaxed);
        false
    };
    assert!(take_when(&options, &tree, 1, &cancel, stops).unwrap().is_none());
    assert_eq!(fs::read_dir(never.path()).unwrap().count(), 0, "nothing is left behind");
}
