//! The log by itself: encoding, checksums, commits in every mode, and how fast a restart reads it.
//!
//! `CORRAL_BENCH_DIR` names the directory that commits go to (a real file system; the build's temporary directory otherwise).
//! Compare commits with `corral-bench probe` of the same directory: one commit here is one durable append of 4 KiB.

#![expect(missing_docs, reason = "criterion's macro makes a function without")]
#![expect(clippy::disallowed_methods, reason = "a bench asks where to write, and measures time")]

use corral_engine::disk::device::Device;
use corral_engine::disk::{BlockSize, LogIo, LogSync, Mode};
use corral_engine::txnlog::{Group, Log, LogOptions, recover};
use corral_proto::{Jute, SessionId, Txn, TxnEntry, TxnHeader, Xid, Zxid};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use std::hint::black_box;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};
use tempfile::TempDir;

const NOW: Duration = Duration::from_secs(1);

fn set(zxid: i64, data: &[u8]) -> TxnEntry<'_> {
    let header = TxnHeader { session: SessionId(1), cxid: Xid(2), zxid: Zxid(zxid), time_ms: 3 };
    TxnEntry {
        header,
        txn: Txn::SetData { path: "/corral-bench/n0000000042", data: Some(data), version: 1 },
        digest: None,
    }
}

fn temp_dir() -> TempDir {
    let dir =
        std::env::var("CORRAL_BENCH_DIR").map_or_else(|_| PathBuf::from(env!("CARGO_TARGET_TMPDIR")), PathBuf::from);
    tempfile::tempdir_in(dir).expect("a directory to write to")
}

fn encode(c: &mut Criterion) {
    let mut group = c.benchmark_group("encode");
    for bytes in [100, 1024] {
        let (data, mut out) = (vec![7; bytes], Vec::with_capacity(4096));
        group.bench_function(BenchmarkId::new("record", bytes), |b| {
            b.iter(|| {
                out.clear();
                black_box(set(1, black_box(&data))).encode(&mut out);
            });
        });
    }
    // Into the open batch, with its head and checksum; the batch is cut whenever it is full.
    let (data, mut log, mut zxid) = (vec![7; 100], Group::new(Zxid(0), BlockSize::MAX, Duration::ZERO), 0);
    group.bench_function("append to the batch", |b| {
        b.iter(|| {
            zxid += 1;
            log.append(&set(zxid, &data), NOW);
            if zxid % 4096 == 0 {
                while log.take(NOW).is_some() {}
            }
        });
    });
}

fn checksum(c: &mut Criterion) {
    let mut group = c.benchmark_group("checksum");
    for bytes in [4 << 10, 64 << 10, 1 << 20] {
        let data = vec![7; bytes];
        group.throughput(Throughput::Bytes(bytes as u64));
        group.bench_function(BenchmarkId::from_parameter(bytes), |b| b.iter(|| crc32c::crc32c(black_box(&data))));
    }
}

/// A log on a real directory, and what tells of segments that are ready.
struct Rig {
    log: Log<Device>,
    ready: Receiver<()>,
    zxid: i64,
    _dir: TempDir,
}

impl Rig {
    fn new(mode: &Mode, dir: TempDir) -> Rig {
        let recovered = recover(dir.path(), |_| ()).expect("an empty directory");
        let (wake, ready) = channel();
        let options = LogOptions {
            files: corral_engine::disk::files::real(),
            dir: dir.path().to_owned(),
            mode: mode.clone(),
            segment_bytes: 64 << 20,
            pipeline_depth: 1,
            group_commit_delay: Duration::ZERO,
        };
        let device = Device::open(mode).expect("the mode was chosen because it works here");
        let wake = Arc::new(move || wake.send(()).unwrap_or(()));
        Rig { log: Log::open(&options, device, &recovered, wake).expect("a log"), ready, zxid: 0, _dir: dir }
    }

    /// Commits `records` as one batch, and says how long that took; waiting for a new segment is not part of it.
    fn commit(&mut self, records: i64, data: &[u8]) -> Duration {
        for _ in 0..records {
            self.zxid += 1;
            self.log.group.append(&set(self.zxid, data), NOW);
        }
        let mut begin = Instant::now();
        loop {
            self.log.submit(NOW, |_| ()).expect("the disk is well");
            if self.log.in_flight() > 0 {
                break;
            }
            self.ready.recv().expect("the next segment");
            begin = Instant::now();
        }
        self.log.settle(&self.ready).expect("the disk is well");
        begin.elapsed()
    }
}

fn commit(c: &mut Criterion) {
    let mut group = c.benchmark_group("commit");
    group.sample_size(20).warm_up_time(Duration::from_millis(300)).measurement_time(Duration::from_secs(1));
    let data = [7; 100];
    for io in [LogIo::UringDirect, LogIo::UringBuffered, LogIo::Pwrite] {
        for sync in [LogSync::Dsync, LogSync::Fdatasync, LogSync::Fsync, LogSync::None] {
            let dir = temp_dir();
            let mode = match Mode::choose(dir.path(), Some(io), Some(sync), None) {
                Ok(mode) => mode,
                Err(why) => {
                    eprintln!("commit/{io}/{sync} is left out: {why}");
                    continue;
                }
            };
            let mut rig = Rig::new(&mode, dir);
            for records in [1, 256] {
                group.bench_function(BenchmarkId::new(format!("{io}/{sync}"), records), |b| {
                    b.iter_custom(|times| (0..times).map(|_| rig.commit(records, &data)).sum());
                });
            }
        }
    }
}

fn recovery(c: &mut Criterion) {
    let dir = temp_dir();
    let mode = Mode { io: LogIo::Pwrite, sync: LogSync::None, block: BlockSize::MAX, why: String::new() };
    let path = dir.path().to_owned();
    let mut rig = Rig::new(&mode, dir);
    let data = [7; 100];
    for _ in 0..1000 {
        rig.commit(256, &data);
    }
    let bytes = rig.log.counters().written_bytes;
    let mut group = c.benchmark_group("recovery");
    group.sample_size(10).throughput(Throughput::Bytes(bytes));
    group.bench_function("scan of 256,000 records", |b| {
        b.iter(|| {
            let mut records = 0;
            recover(&path, |_| records += 1).expect("it is whole");
            assert_eq!(records, 256_000);
        });
    });
}

criterion_group!(benches, encode, checksum, commit, recovery);
criterion_main!(benches);
