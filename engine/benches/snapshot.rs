//! Snapshots: written from a tree of 100,000 nodes and read back, in each compression. `CORRAL_BENCH_DIR` says where.

#![expect(missing_docs, reason = "criterion's macro makes a function without")]
#![expect(clippy::disallowed_methods, reason = "a bench asks where to write")]

use corral_engine::Tree;
use corral_engine::snapshot::format::Compression;
use corral_engine::snapshot::reader::load;
use corral_engine::snapshot::writer::{SnapshotOptions, take};
use corral_proto::txn::CreateTxn;
use corral_proto::{AclList, SessionId, Txn, TxnEntry, TxnHeader, Xid, Zxid};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use parking_lot::RwLock;
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;

const NODES: i64 = 100_000;

fn tree() -> Tree {
    let mut tree = Tree::new(1);
    for n in 0..NODES {
        let path = format!("/n{n:010}");
        let data = Some(&[n as u8; 100][..]);
        let create =
            CreateTxn { path: &path, data, acl: AclList::OPEN, ephemeral: false, parent_cversion: n as i32 + 1 };
        let header = TxnHeader { session: SessionId(7), cxid: Xid(1), zxid: Zxid(n + 1), time_ms: n };
        tree.apply(&TxnEntry { header, txn: Txn::Create(create), digest: None }, None);
    }
    tree
}

fn snapshot(c: &mut Criterion) {
    let tree = RwLock::new(tree());
    let mut group = c.benchmark_group("snapshot");
    group.sample_size(10).throughput(Throughput::Elements(NODES as u64));
    for compression in Compression::ALL {
        let dir = std::env::var("CORRAL_BENCH_DIR")
            .map_or_else(|_| PathBuf::from(env!("CARGO_TARGET_TMPDIR")), PathBuf::from);
        let dir = tempfile::tempdir_in(dir).expect("a directory to write to");
        let options = SnapshotOptions {
            files: corral_engine::disk::files::real(),
            dir: dir.path().to_owned(),
            compression,
            rate_limit: 0,
        };
        let write =
            || take(&options, &tree, 1, &AtomicBool::new(false)).expect("the disk is well").expect("not stopped");
        group.bench_function(BenchmarkId::new("write", compression.name()), |b| b.iter(write));
        let path = write().path;
        group.bench_function(BenchmarkId::new("restore", compression.name()), |b| {
            b.iter(|| load(&path, 1, |_| ()).expect("it is whole"));
        });
    }
}

criterion_group!(benches, snapshot);
criterion_main!(benches);
