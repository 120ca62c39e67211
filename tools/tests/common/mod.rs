//! What the tests of `corral-tool` share: logs written by the engine itself, with a real or a failing disk, and runs of the real
//! binary.
//!
//! **Invariants**: nothing here sleeps or reads a clock; what is random comes from a seed that a failed test shows.

#![allow(dead_code, reason = "each test binary uses its part")]

use corral_engine::disk::device::Device;
use corral_engine::disk::{BlockSize, Completion, Disk, LogIo, LogSync, Mode, Write};
use corral_engine::txnlog::{Log, LogOptions, recover_after, segment};
use corral_proto::acl::{Acl, encode_acls, perms};
use corral_proto::jute::{StrList, put_string};
use corral_proto::request::PathVersion;
use corral_proto::txn::CreateTxn;
use corral_proto::{AclList, Jute, SessionId, SubTxns, Txn, TxnEntry, TxnHeader, Xid, Zxid};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;
use tempfile::TempDir;

/// Small, so that a test has several segments.
pub(crate) const SEGMENT: u64 = 64 << 10;

/// The time of the first transaction: 2026-11-21T23:34:18.120Z.
pub(crate) const EPOCH_MS: i64 = 1_795_304_058_120;

pub(crate) const SESSION: SessionId = SessionId(0x1000_0000_0000_0001);

pub(crate) fn tempdir() -> TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap()
}

pub(crate) fn mode() -> Mode {
    Mode { io: LogIo::Pwrite, sync: LogSync::Fdatasync, block: BlockSize::MAX, why: String::new() }
}

/// A transaction in its own bytes.
pub(crate) fn txn(zxid: i64, txn: Txn<'_>) -> Vec<u8> {
    let header = TxnHeader { session: SESSION, cxid: Xid(zxid as i32), zxid: Zxid(zxid), time_ms: EPOCH_MS + zxid };
    TxnEntry { header, txn, digest: None }.to_vec()
}

/// A change of `/a` with `len` bytes of data that only this transaction has.
pub(crate) fn set(zxid: i64, len: usize) -> Vec<u8> {
    let data: Vec<u8> = (0..len).map(|at| (at as i64 * 31 + zxid * 7) as u8).collect();
    txn(zxid, Txn::SetData { path: "/a", data: Some(&data), version: zxid as i32 })
}

/// One of everything, zxids from 1.
pub(crate) fn everything() -> Vec<Vec<u8>> {
    let acl = [
        Acl { perms: perms::ALL, scheme: Some("world"), id: Some("anyone") },
        Acl { perms: perms::READ | 0x40, scheme: Some("digest"), id: Some("a b:\u{e9}") },
    ];
    let acl = encode_acls(acl.into_iter());
    let acl = AclList::from_encoded(&acl).unwrap();
    let create = |path, data| CreateTxn { path, data, acl: AclList::OPEN, ephemeral: false, parent_cversion: 1 };
    let mut paths = Vec::new();
    ["/a/e1", "/a/e2"].iter().for_each(|path| put_string(&mut paths, path));
    let (mut parts, mut failed) = (Vec::new(), Vec::new());
    SubTxns::push(&mut parts, &Txn::Check(PathVersion { path: "/a", version: 3 }));
    SubTxns::push(&mut parts, &Txn::Create(create("/m/x", Some(b"in a multi"))));
    SubTxns::push(&mut parts, &Txn::Delete { path: "/m/y" });
    [0, -101, -2, -4242].iter().for_each(|code| SubTxns::push(&mut failed, &Txn::Error(*code)));
    let sequential = CreateTxn { path: "/a/n-0000000006", parent_cversion: 7, ..create("", None) };
    let txns = [
        Txn::CreateSession { timeout_ms: 10_000 },
        Txn::Create(create("/a", Some(b"hello"))),
        Txn::Create2(CreateTxn { acl, ephemeral: true, ..create("/a/e1", Some(b"")) }),
        Txn::Create(sequential),
        Txn::SetData { path: "/a", data: Some(b"\0\xff\"\n\xe2\x82\xac"), version: 4 },
        Txn::SetAcl { path: "/a/white space", acl, version: 1 },
        Txn::Delete { path: "/a/\u{e9}" },
        Txn::Error(-110),
        Txn::Multi(SubTxns::from_encoded(3, &parts)),
        Txn::Multi(SubTxns::from_encoded(4, &failed)),
        Txn::CloseSession { paths: Some(StrList::from_encoded(2, &paths)) },
        Txn::CloseSession { paths: None },
    ];
    txns.into_iter().zip(1..).map(|(one, zxid)| txn(zxid, one)).collect()
}

/// One life of a log: from a recovery to the end or crash after it.
pub(crate) struct Life<D: Disk> {
    pub(crate) log: Log<D>,
    depth: usize,
    ready: Receiver<()>,
}

impl<D: Disk> Life<D> {
    /// Recovers what is in `dir` behind transaction `from`, and goes on there.
    pub(crate) fn start(dir: &Path, disk: D, depth: usize, from: i64) -> Life<D> {
        Life::start_in(dir, disk, BlockSize::MAX, depth, from)
    }

    /// The same in blocks of this size.
    pub(crate) fn start_in(dir: &Path, disk: D, block: BlockSize, depth: usize, from: i64) -> Life<D> {
        let recovered = recover_after(dir, Zxid(from), |_| ()).unwrap();
        let (wake, ready) = channel();
        let options = LogOptions {
            files: corral_engine::disk::files::real(),
            dir: dir.to_owned(),
            mode: Mode { block, ..mode() },
            segment_bytes: SEGMENT,
            pipeline_depth: depth,
            group_commit_delay: Duration::ZERO,
        };
        // Nobody listens any more when the last segment of a dropped log becomes ready.
        let wake = Arc::new(move || wake.send(()).unwrap_or(()));
        Life { log: Log::open(&options, disk, &recovered, wake).unwrap(), depth, ready }
    }

    /// A batch of these transactions, handed to the disk.
    pub(crate) fn submit(&mut self, entries: &[Vec<u8>]) {
        for entry in entries {
            self.log.group.append(&TxnEntry::decode(entry).unwrap(), Duration::ZERO);
        }
        loop {
            self.log.submit(Duration::ZERO, |_| ()).unwrap();
            if self.log.group.is_empty() {
                return;
            }
            assert!(self.log.in_flight() < self.depth, "the test hands over no more than may be in flight");
            self.ready.recv_timeout(Duration::from_secs(60)).expect("a log that waits for a segment is woken");
        }
    }

    /// A batch of these transactions, durable.
    pub(crate) fn commit(&mut self, entries: &[Vec<u8>]) {
        self.submit(entries);
        self.log.complete(|_| ()).unwrap();
        assert!(self.log.is_idle());
    }
}

/// A life on a disk that does what it should.
pub(crate) fn life(dir: &Path) -> Life<Device> {
    Life::start(dir, Device::open(&mode()).unwrap(), 1, 0)
}

/// A log of these batches.
pub(crate) fn write_log(dir: &Path, batches: &[Vec<Vec<u8>>]) {
    let mut life = life(dir);
    batches.iter().for_each(|batch| life.commit(batch));
}

/// A disk that completes nothing: the test says what reaches the file before the crash.
#[derive(Clone, Default)]
pub(crate) struct Held(Rc<RefCell<Vec<Write>>>);

impl Disk for Held {
    fn submit(&mut self, write: Write) {
        self.0.borrow_mut().push(write);
    }

    fn has_completions(&self) -> bool {
        false
    }

    fn completions(&mut self, _out: &mut Vec<Completion>) {}
}

impl Held {
    /// These of the writes reach the file whole; of the others nothing does.
    pub(crate) fn land(&self, which: &[usize]) {
        for write in which.iter().map(|at| self.0.borrow()[*at].clone()) {
            write.file.write_all_at(&write.data, write.offset).unwrap();
        }
    }

    /// Some of the writes reach the file.
    pub(crate) fn land_some(&self, rng: &mut impl rand::Rng) {
        let count = self.0.borrow().len();
        self.land(&(0..count).filter(|_| rng.random_range(0..3) > 0).collect::<Vec<_>>());
    }
}

/// The transactions' own bytes, in order, as recovery hands them on.
pub(crate) fn read_back(dir: &Path, from: i64) -> Vec<Vec<u8>> {
    let mut records = Vec::new();
    recover_after(dir, Zxid(from), |record| records.push(record.bytes.to_vec())).unwrap();
    records
}

/// What one run of the tool gave.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) code: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Run {
    /// It went well, and had nothing else to say.
    #[track_caller]
    pub(crate) fn fine(self) -> String {
        assert!(self.code == Some(0) && self.err.is_empty(), "{self:#?}");
        self.out
    }

    /// It ended with this code and one line on stderr.
    #[track_caller]
    pub(crate) fn ends(&self, code: i32) -> &str {
        assert_eq!(self.code, Some(code), "{self:#?}");
        assert_eq!(self.err.lines().count(), 1, "{self:#?}");
        assert!(self.err.starts_with("corral-tool: "), "{self:#?}");
        &self.err
    }
}

pub(crate) fn command() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_corral-tool"));
    command.arg("log");
    command
}

/// Runs `corral-tool log` with these arguments.
pub(crate) fn tool<S: AsRef<std::ffi::OsStr>>(args: impl IntoIterator<Item = S>) -> Run {
    run(command().args(args))
}

/// Runs a command to its end.
pub(crate) fn run(command: &mut Command) -> Run {
    let output = command.output().unwrap();
    let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
    Run { code: output.status.code(), out: text(output.stdout), err: text(output.stderr) }
}

/// Runs a command on a directory.
pub(crate) fn on(what: &str, dir: &Path, more: &[&str]) -> Run {
    tool([what, dir.to_str().unwrap()].iter().chain(more))
}

/// What is in a directory, byte by byte.
pub(crate) fn contents(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let paths = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    paths.map(|path| (path.clone(), fs::read(&path).unwrap())).collect()
}

/// Writes over a part of a file, in place.
pub(crate) fn overwrite(path: &Path, at: u64, bytes: &[u8]) {
    fs::File::options().write(true).open(path).unwrap().write_all_at(bytes, at).unwrap();
}

/// Flips all bits of one byte.
pub(crate) fn flip(path: &Path, at: u64) {
    let byte = fs::read(path).unwrap()[at as usize];
    overwrite(path, at, &[!byte]);
}

/// The path of a segment, whether it was closed or not; of one that is not there, what it would be.
pub(crate) fn file(dir: &Path, number: u32) -> PathBuf {
    let found = segment::list(dir).unwrap().into_iter().find(|(found, _)| *found == number);
    found.map_or_else(|| dir.join(segment::file_name(number)), |(_, path)| path)
}

/// Repairs `dir` into a new directory below `into`.
pub(crate) fn repair(dir: &Path, into: &TempDir, more: &[&str]) -> (PathBuf, String) {
    let new = into.path().join("new");
    let out = on("repair", dir, &[&["--to", new.to_str().unwrap()], more].concat()).fine();
    (new, out)
}

/// The state that `ls` shows for the segment in this row.
pub(crate) fn state(dir: &Path, number: usize) -> String {
    let out = on("ls", dir, &[]).fine();
    let line = out.lines().nth(number).unwrap().to_owned();
    line.split_whitespace().skip(11).collect::<Vec<_>>().join(" ")
}
