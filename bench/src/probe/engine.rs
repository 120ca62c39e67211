//! Measures the server's own log by itself: one transaction appended, written, durable; then the next. What it takes beyond the
//! floor is what the engine adds to the disk.
//!
//! **Not here**: the rest of a server; the bare disk ([`super::commits`]).

#![expect(clippy::disallowed_methods, reason = "latency is measured here")]

use super::figures::Sample;
use crate::load::measure::histogram;
use crate::report::Latency;
use corral_engine::disk::Mode;
use corral_engine::disk::device::Device;
use corral_engine::txnlog::{Log, LogOptions, recover};
use corral_proto::{SessionId, Txn, TxnEntry, TxnHeader, Xid, Zxid};
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

/// Data of a transaction; with its heads it fits a block, as the floor's writes do.
const DATA: [u8; 100] = [7; 100];
const WARM_UP: i64 = 4;

/// Commits through a log in a new directory in `parent`, in the mode that a server picks there, for about `time`.
pub(crate) fn measure(parent: &Path, time: Duration, stop: &AtomicBool) -> Result<Sample, String> {
    let dir = parent.join("engine");
    fs::create_dir(&dir).map_err(|error| format!("cannot make {}: {error}", dir.display()))?;
    let sample = commits(&dir, time, stop);
    let removed = fs::remove_dir_all(&dir).map_err(|error| format!("cannot remove {}: {error}", dir.display()));
    sample.and_then(|sample| removed.map(|()| sample))
}

fn commits(dir: &Path, time: Duration, stop: &AtomicBool) -> Result<Sample, String> {
    let text = |error: corral_engine::StorageError| error.to_string();
    let mode = Mode::choose(dir, None, None, None)?;
    let recovered = recover(dir, |_| ()).map_err(text)?;
    let options = LogOptions {
        files: corral_engine::disk::files::real(),
        dir: dir.to_owned(),
        mode: mode.clone(),
        segment_bytes: 8 << 20,
        pipeline_depth: 1,
        group_commit_delay: Duration::ZERO,
    };
    let device = Device::open(&mode).map_err(|error| format!("io_uring: {error}"))?;
    let (wake, ready) = channel();
    let wake = Arc::new(move || wake.send(()).unwrap_or(()));
    let mut log = Log::open(&options, device, &recovered, wake).map_err(text)?;
    let (mut latencies, mut start) = (histogram(), Instant::now());
    for zxid in 1.. {
        let mut begin = Instant::now();
        let header = TxnHeader { session: SessionId(1), cxid: Xid(1), zxid: Zxid(zxid), time_ms: 0 };
        let txn = Txn::SetData { path: "/probe", data: Some(&DATA), version: 1 };
        log.group.append(&TxnEntry { header, txn, digest: None }, Duration::ZERO);
        loop {
            log.submit(start.elapsed(), |_| ()).map_err(text)?;
            if log.in_flight() > 0 {
                break;
            }
            if let Some(shortage) = log.shortage() {
                return Err(shortage.error.to_string());
            }
            // The next segment is not ready: that is not the latency of a commit.
            ready.recv().map_err(|_| "the log gave up")?;
            begin = Instant::now();
        }
        log.settle(&ready).map_err(text)?;
        let now = Instant::now();
        if zxid <= WARM_UP {
            start = now;
            continue;
        }
        latencies.saturating_record((now - begin).as_nanos() as u64);
        if now - start >= time || stop.load(Relaxed) {
            break;
        }
    }
    Ok(Sample { latency: Latency::of(&latencies), seconds: start.elapsed().as_secs_f64(), cpu_us: 0.0 })
}
