//! The tree: applying transactions, and reading while they are applied, under the one lock that a server has.

#![expect(missing_docs, reason = "criterion's macro makes a function without")]

use corral_engine::Tree;
use corral_proto::txn::CreateTxn;
use corral_proto::{AclList, SessionId, Txn, TxnEntry, TxnHeader, Xid, Zxid};
use criterion::{Criterion, criterion_group, criterion_main};
use parking_lot::RwLock;
use std::hint::black_box;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;

const NODES: usize = 100_000;
/// As many transactions as a server applies under one hold of the lock.
const HOLD: usize = 256;

struct Grown {
    tree: Tree,
    zxid: i64,
    paths: Vec<String>,
}

impl Grown {
    fn new() -> Grown {
        let paths: Vec<String> = (0..NODES).map(|n| format!("/bench/n{n:010}")).collect();
        let mut grown = Grown { tree: Tree::new(1), zxid: 0, paths: Vec::new() };
        grown.create("/bench", 1);
        paths.iter().zip(1..).for_each(|(path, nth)| grown.create(path, nth));
        Grown { paths, ..grown }
    }

    fn apply(&mut self, txn: Txn<'_>) {
        self.zxid += 1;
        let header = TxnHeader { session: SessionId(7), cxid: Xid(1), zxid: Zxid(self.zxid), time_ms: self.zxid };
        black_box(self.tree.apply(&TxnEntry { header, txn, digest: None }, None));
    }

    fn create(&mut self, path: &str, parent_cversion: i32) {
        let data = Some(&[7; 100][..]);
        self.apply(Txn::Create(CreateTxn { path, data, acl: AclList::OPEN, ephemeral: false, parent_cversion }));
    }
}

/// A walk over the paths in no order that a cache could foresee.
fn scattered(at: &mut usize) -> usize {
    *at = (*at + 61_803) % NODES;
    *at
}

fn apply(c: &mut Criterion) {
    let mut grown = Grown::new();
    let paths = std::mem::take(&mut grown.paths);
    let (mut at, mut version) = (0, 0);
    c.bench_function("apply/setData", |b| {
        b.iter(|| {
            version += 1;
            grown.apply(Txn::SetData { path: &paths[scattered(&mut at)], data: Some(&[8; 100]), version });
        });
    });
    c.bench_function("apply/create and delete", |b| {
        b.iter(|| {
            version += 1;
            grown.create("/bench/another", version);
            grown.apply(Txn::Delete { path: "/bench/another" });
        });
    });
}

fn read(c: &mut Criterion) {
    let grown = Grown::new();
    let paths = grown.paths.clone();
    let tree = RwLock::new(grown);
    let get = |at: &mut usize| {
        let grown = tree.read();
        let id = grown.tree.find(&paths[scattered(at)]).expect("it is there");
        black_box((grown.tree.data(id).map(<[u8]>::len), grown.tree.stat(id)));
    };
    let mut at = 0;
    c.bench_function("get/alone", |b| b.iter(|| get(&mut at)));
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            let (mut at, mut version) = (1, 0);
            while !stop.load(Relaxed) {
                let mut grown = tree.write();
                for _ in 0..HOLD {
                    version += 1;
                    grown.apply(Txn::SetData { path: &paths[scattered(&mut at)], data: Some(&[9; 100]), version });
                }
            }
        });
        c.bench_function("get/while another thread applies without a pause", |b| b.iter(|| get(&mut at)));
        stop.store(true, Relaxed);
    });
}

criterion_group!(benches, apply, read);
criterion_main!(benches);
