//! A million znodes: what each takes of the process's memory, and how long the tree takes for each operation on all of them.
//!
//! Names of 10 bytes, data of 100, once under one parent and once under 4,000. A snapshot is written to `CORRAL_BENCH_DIR` and
//! restored. Memory is what the kernel says is resident, so each tree is built in a process of its own. Times are those of the
//! processors, in steps of 10 ms over all threads, so that other processes count less. `cargo test --benches` runs the same with few
//! nodes.

#![expect(clippy::disallowed_methods, reason = "a bench asks where to write")]

use corral_engine::Tree;
use corral_engine::snapshot::format::Compression;
use corral_engine::snapshot::reader::load;
use corral_engine::snapshot::writer::{SnapshotOptions, take};
use corral_proto::txn::CreateTxn;
use corral_proto::{AclList, SessionId, Txn, TxnEntry, TxnHeader, Xid, Zxid};
use parking_lot::RwLock;
use std::fmt::Write;
use std::hint::black_box;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

fn main() {
    let args: Vec<String> = std::env::args().collect();
    if let [_, part, nodes, parents, dir] = &args[..] {
        let shape = Shape { nodes: nodes.parse().expect("a number"), parents: parents.parse().expect("a number") };
        return if part == "build" { build(shape, dir.as_ref()) } else { restore(shape, dir.as_ref()) };
    }
    let nodes = if args.iter().any(|arg| arg == "--bench") { 1_000_000 } else { 4_000 };
    let dir =
        std::env::var("CORRAL_BENCH_DIR").map_or_else(|_| PathBuf::from(env!("CARGO_TARGET_TMPDIR")), PathBuf::from);
    for parents in [1, 4_000] {
        let dir = tempfile::tempdir_in(&dir).expect("a directory to write to");
        println!("{nodes} nodes, parents: {parents}");
        for part in ["build", "restore"] {
            let this = std::env::current_exe().expect("it runs");
            let status = Command::new(this)
                .args([part, &nodes.to_string(), &parents.to_string()])
                .arg(dir.path())
                .status()
                .expect("it can be started");
            assert!(status.success(), "{part} failed");
        }
    }
}

#[derive(Clone, Copy)]
struct Shape {
    nodes: usize,
    parents: usize,
}

impl Shape {
    fn path(self, node: usize, path: &mut String) {
        path.clear();
        write!(path, "/p{:04}/n{node:09}", node % self.parents).expect("memory does not fail");
    }

    /// The nodes in no order that a cache could foresee.
    fn scattered(self) -> impl Iterator<Item = usize> {
        // Prime, so every node comes once.
        (0..self.nodes).map(move |n| (n * 15_485_863) % self.nodes)
    }

    fn per_node(self, what: &str, began: Duration) {
        println!("  {what:<24} {:>6.0} ns a node", (cpu_time() - began).as_nanos() as f64 / self.nodes as f64);
    }

    fn memory(self, what: &str, before: u64) {
        let bytes = resident().saturating_sub(before) as f64 / self.nodes as f64;
        println!("  {what:<24} {bytes:>6.1} bytes a node");
    }
}

fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux tells it");
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("Linux tells it");
    line.split_whitespace().nth(1).expect("a number follows").parse::<u64>().expect("it is a number") << 10
}

/// What the process has used of the processors.
fn cpu_time() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").expect("Linux tells it");
    // The name, in parentheses, may hold anything; behind it the times are the 12th and 13th field.
    let (_, fields) = stat.rsplit_once(')').expect("the name ends");
    let ticks = fields.split_whitespace().skip(11).take(2).map(|ticks| ticks.parse::<u64>().expect("it is a number"));
    Duration::from_millis(ticks.sum::<u64>() * 10)
}

struct Applied {
    tree: Tree,
    zxid: i64,
}

impl Applied {
    fn apply(&mut self, txn: Txn<'_>) {
        self.zxid += 1;
        let header = TxnHeader { session: SessionId(7), cxid: Xid(1), zxid: Zxid(self.zxid), time_ms: self.zxid };
        black_box(self.tree.apply(&TxnEntry { header, txn, digest: None }, None));
    }

    fn create(&mut self, path: &str, data: &[u8]) {
        let acl = AclList::OPEN;
        self.apply(Txn::Create(CreateTxn { path, data: Some(data), acl, ephemeral: false, parent_cversion: -1 }));
    }
}

fn build(shape: Shape, dir: &Path) {
    let before = resident();
    let mut path = String::new();
    let mut grown = Applied { tree: Tree::new(1), zxid: 0 };
    for parent in 0..shape.parents {
        path.clear();
        write!(path, "/p{parent:04}").expect("memory does not fail");
        grown.create(&path, b"");
    }

    let began = cpu_time();
    for node in 0..shape.nodes {
        shape.path(node, &mut path);
        grown.create(&path, &[7; 100]);
    }
    shape.per_node("create", began);
    shape.memory("created", before);

    let began = cpu_time();
    for node in shape.scattered() {
        shape.path(node, &mut path);
        let id = grown.tree.find(&path).expect("it was made");
        black_box((grown.tree.data(id).map(<[u8]>::to_vec), grown.tree.stat(id)));
    }
    shape.per_node("get", began);
    let began = cpu_time();
    for node in shape.scattered() {
        shape.path(node, &mut path);
        path.push('x');
        assert_eq!(grown.tree.find(&path), None);
    }
    shape.per_node("look for a missing node", began);
    let began = cpu_time();
    for node in shape.scattered() {
        shape.path(node, &mut path);
        grown.apply(Txn::SetData { path: &path, data: Some(&[8; 100]), version: 1 });
    }
    shape.per_node("set", began);
    shape.memory("set", before);

    let tree = RwLock::new(grown.tree);
    let began = cpu_time();
    let mut next = Some(0);
    while let Some(from) = next {
        next = tree.read().walk(from, 64, |path, image| {
            black_box((path, image));
            true
        });
    }
    shape.per_node("walk", began);
    let options = SnapshotOptions {
        files: corral_engine::disk::files::real(),
        dir: dir.to_owned(),
        compression: Compression::None,
        rate_limit: 0,
    };
    let began = cpu_time();
    take(&options, &tree, 1, &AtomicBool::new(false)).expect("the disk is well").expect("not stopped");
    shape.per_node("write a snapshot", began);
    grown.tree = tree.into_inner();

    let began = cpu_time();
    for node in shape.scattered() {
        shape.path(node, &mut path);
        let len = (node * 7_919) % 201;
        grown.apply(Txn::SetData { path: &path, data: Some(&[9; 200][..len]), version: 2 });
    }
    shape.per_node("set to 0 to 200 bytes", began);
    shape.memory("set to 0 to 200 bytes", before);
    let began = cpu_time();
    for node in shape.scattered() {
        shape.path(node, &mut path);
        grown.apply(Txn::Delete { path: &path });
    }
    shape.per_node("delete", began);
    shape.memory("deleted", before);
    assert_eq!(grown.tree.len(), shape.parents + corral_engine::tree::BUILT_IN.len());
}

fn restore(shape: Shape, dir: &Path) {
    let (_, path) = corral_engine::snapshot::list(dir).expect("it is there").pop().expect("a snapshot was written");
    let before = resident();
    let began = cpu_time();
    let (tree, _) = load(&path, 1, |_| ()).expect("it is whole");
    shape.per_node("restore", began);
    shape.memory("restored", before);
    assert!(tree.len() >= shape.nodes);
}
