//! Measures one cell: appends and waits, over and over, through the very devices that the server's log uses.
//!
//! The loop is closed: a commit starts when an earlier one is durable. A few that are not counted come first, so that the
//! set-up of ring and file is nobody's latency.
//!
//! **Invariants**: as many writes in flight as the cell's depth, and never two to one place; every write has completed when
//! measuring ends.
//!
//! **Not here**: which file, and in which state ([`super::files`]).

#![expect(clippy::disallowed_methods, reason = "latency is measured here")]

use super::figures::Sample;
use super::files::{Target, mode};
use super::plan::Cell;
use crate::load::measure::histogram;
use crate::report::Latency;
use corral_engine::disk::aligned::Pool;
use corral_engine::disk::device::Device;
use corral_engine::disk::{Completion, Disk, Write};
use rand::rngs::SmallRng;
use rand::{RngCore, SeedableRng};
use rustix::time::{ClockId, clock_gettime};
use std::fs::File;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// Commits that come first and are not counted.
const WARM_UP: u64 = 4;
/// A slow disk is given [`PATIENCE`] times as long to do so many.
const COMMITS_MIN: u64 = 16;
const PATIENCE: u32 = 4;

/// Commits into `target` for about `time`, each after at least a `pause`, which does not count. The error says why this cannot
/// be done here.
pub(crate) fn measure(
    cell: &Cell,
    target: &mut Target,
    pause: Duration,
    time: Duration,
    stop: &AtomicBool,
) -> Result<Sample, String> {
    let device = Device::open(&mode(cell)).map_err(|error| format!("io_uring: {error}"))?;
    let pool = Pool::new(cell.bytes);
    let mut buf = pool.take(cell.bytes);
    // Not zeros, which some disks do not store, and nothing that compresses.
    SmallRng::seed_from_u64(cell.bytes as u64).fill_bytes(buf.as_mut_slice());
    let data = buf.freeze().slice(..cell.bytes);
    let write = Write { token: 0, file: target.file.clone(), offset: 0, data };
    let mut committer = Committer { device, write, depth: cell.depth, pause, flight: vec![], done: vec![] };
    committer.run(target, Until { time: Duration::ZERO, commits: WARM_UP }, stop)?;
    committer.run(target, Until { time, commits: COMMITS_MIN }, stop)
}

/// Flushes the device's cache, over and over, by syncing a file that nothing is written to.
pub(crate) fn measure_flush(file: &File, time: Duration, stop: &AtomicBool) -> Result<Sample, String> {
    let mut latencies = histogram();
    let (start, cpu) = (Instant::now(), process_cpu_us());
    let until = Until { time, commits: COMMITS_MIN };
    let mut now = start;
    while !until.is_over(latencies.len(), now - start) && !stop.load(Relaxed) {
        file.sync_data().map_err(|error| error.to_string())?;
        let before = std::mem::replace(&mut now, Instant::now());
        latencies.saturating_record((now - before).as_nanos() as u64);
    }
    let cpu_us = process_cpu_us() - cpu;
    Ok(Sample { latency: Latency::of(&latencies), seconds: (now - start).as_secs_f64(), cpu_us })
}

/// When to end.
struct Until {
    time: Duration,
    commits: u64,
}

impl Until {
    fn is_over(&self, commits: u64, elapsed: Duration) -> bool {
        let limit = if self.time.is_zero() { Duration::MAX } else { self.time * PATIENCE };
        elapsed >= limit || (elapsed >= self.time && commits >= self.commits)
    }
}

struct Committer {
    device: Device,
    /// What all writes have in common.
    write: Write,
    depth: usize,
    /// Before each, if not zero.
    pause: Duration,
    /// Token and begin of the writes in flight.
    flight: Vec<(u64, Instant)>,
    done: Vec<Completion>,
}

impl Committer {
    fn run(&mut self, target: &mut Target, until: Until, stop: &AtomicBool) -> Result<Sample, String> {
        let mut latencies = histogram();
        let (start, cpu) = (Instant::now(), process_cpu_us());
        let (mut now, mut is_over) = (start, false);
        loop {
            while !is_over && self.flight.len() < self.depth {
                let Some(offset) = target.take(self.write.data.len()) else {
                    is_over = true;
                    break;
                };
                if !self.pause.is_zero() {
                    std::thread::sleep(self.pause);
                    now = Instant::now();
                }
                self.write.token += 1;
                self.flight.push((self.write.token, now));
                self.device.submit(Write { offset, ..self.write.clone() });
            }
            if self.flight.is_empty() {
                break;
            }
            if let Device::Ring(ring) = &mut self.device {
                ring.wait_for_write().map_err(|error| format!("io_uring: {error}"))?;
            }
            self.device.completions(&mut self.done);
            now = Instant::now();
            for Completion { token, result, .. } in self.done.drain(..) {
                result.map_err(|error| format!("writing: {error}"))?;
                let at = self.flight.iter().position(|(started, _)| *started == token).expect("was submitted");
                let (_, begin) = self.flight.swap_remove(at);
                latencies.saturating_record((now - begin).as_nanos() as u64);
            }
            is_over = is_over || until.is_over(latencies.len(), now - start) || stop.load(Relaxed);
        }
        let cpu_us = process_cpu_us() - cpu;
        Ok(Sample { latency: Latency::of(&latencies), seconds: (now - start).as_secs_f64(), cpu_us })
    }
}

/// Of all threads: buffered io_uring writes are done by kernel workers that belong to the process.
fn process_cpu_us() -> f64 {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    time.tv_sec as f64 * 1e6 + time.tv_nsec as f64 / 1e3
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slow_disk_gets_more_time_but_not_for_ever() {
        let until = Until { time: Duration::from_millis(100), commits: 16 };
        for (commits, ms, is_over) in [(1000, 99, false), (16, 100, true), (15, 399, false), (1, 400, true)] {
            assert_eq!(until.is_over(commits, Duration::from_millis(ms)), is_over, "{commits} in {ms} ms");
        }
        let warm_up = Until { time: Duration::ZERO, commits: 4 };
        assert!(!warm_up.is_over(3, Duration::from_secs(9)) && warm_up.is_over(4, Duration::ZERO));
    }
}
