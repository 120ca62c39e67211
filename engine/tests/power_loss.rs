//! Whatever a power loss leaves, the log recovers what was reported durable: thousands of seeded cases on a simulated disk.
//!
//! A case is a few lives of one log. Each recovers, checks what it finds against a model, goes on, and ends in a power loss or
//! with its process, in the middle of anything: recovery, making a segment, several writes. `CORRAL_POWER_CASES` says how many
//! cases are run, `CORRAL_POWER_SEED` runs one and prints what happened in it.
//!
//! **Not here**: the disk ([`corral_engine::disk::simulated`]); the same on real devices (`log.rs`).

use corral_engine::StorageError;
use corral_engine::disk::simulated::Platter;
use corral_engine::disk::{BlockSize, LogIo, LogSync, Mode};
use corral_engine::txnlog::supply::Supply;
use corral_engine::txnlog::workshop::Workshop;
use corral_engine::txnlog::{Log, LogOptions, Recovered, recover_after};
use corral_proto::{Jute, SessionId, Txn, TxnEntry, TxnHeader, Xid, Zxid};
use rand::rngs::SmallRng;
use rand::{Rng, RngCore, SeedableRng};
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;

/// The unit of what is drawn here, in bytes.
const BLOCK: usize = BlockSize::MAX.bytes();
const NOW: Duration = Duration::from_secs(1);

/// One log through its lives, and what must be true of it.
struct Case {
    dir: TempDir,
    rng: SmallRng,
    platter: Platter,
    physical: BlockSize,
    options: LogOptions,
    /// Everything that was appended and may still be there: the record with zxid `z` is `history[z - 1]`.
    history: Vec<Vec<u8>>,
    /// So many of them were reported durable, or served after a restart.
    durable: usize,
    /// How many records there were at the end of each batch.
    batch_ends: Vec<usize>,
    /// A snapshot holds so many records, and the log of so many was let go.
    snapshot: usize,
    released: usize,
    events: Vec<String>,
}

impl Case {
    fn new(seed: u64) -> Case {
        let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let mut rng = SmallRng::seed_from_u64(seed);
        let platter = Platter::new(dir.path(), rng.random());
        let physical = BlockSize::ALL[rng.random_range(0..4)];
        platter.set_physical(physical);
        let options = LogOptions {
            files: Arc::new(platter.clone()),
            dir: dir.path().to_owned(),
            mode: Mode { io: LogIo::Pwrite, sync: LogSync::Dsync, block: physical, why: String::new() },
            segment_bytes: (rng.random_range(4..12) * BLOCK) as u64,
            pipeline_depth: rng.random_range(1..=8),
            group_commit_delay: Duration::ZERO,
        };
        let (size, depth) = (options.segment_bytes, options.pipeline_depth);
        let events = vec![format!("physical blocks of {physical}, segments of {size}, depth {depth}")];
        let (history, batch_ends) = (Vec::new(), Vec::new());
        Case { dir, rng, platter, physical, options, history, durable: 0, batch_ends, snapshot: 0, released: 0, events }
    }

    fn run(&mut self) {
        for life in 0..self.rng.random_range(1..=5) {
            let recovered = self.recover();
            self.live(life, &recovered);
        }
        self.recover();
        if self.rng.random_bool(0.5) {
            self.flip();
        }
    }

    /// Recovers after the snapshot and after the oldest that the log was kept for, twice each.
    fn recover(&mut self) -> Recovered {
        let (records, recovered) = read(self.dir.path(), self.snapshot).unwrap_or_else(|error| panic!("{error}"));
        self.events.push(format!("recovered {} of {}: {recovered:?}", records.len(), self.history.len()));
        assert!(records.len() >= self.durable, "{} of {} durable records", records.len(), self.durable);
        let same = records[self.snapshot..] == self.history[self.snapshot..][..records.len() - self.snapshot];
        assert!(same, "a prefix of what was appended");
        assert_eq!(read(self.dir.path(), self.snapshot).unwrap(), (records.clone(), recovered.clone()), "twice");
        let (older, _) = read(self.dir.path(), self.released).unwrap_or_else(|error| panic!("older snapshot: {error}"));
        assert_eq!(older[self.released..], self.history[self.released..records.len()], "after an older snapshot");
        self.history.truncate(records.len());
        self.batch_ends.retain(|end| *end <= records.len());
        recovered
    }

    /// One life, up to its end.
    fn live(&mut self, life: u32, recovered: &Recovered) {
        // No smaller than the disk's, and not always the same.
        let blocks: Vec<BlockSize> = BlockSize::ALL.into_iter().filter(|block| *block >= self.physical).collect();
        self.options.mode.block = blocks[self.rng.random_range(0..blocks.len())];
        self.events.push(format!("a life in blocks of {}", self.options.mode.block));
        let salts = SmallRng::seed_from_u64(self.rng.random());
        let mut workshop = Workshop::new(&self.options, salts);
        self.platter.set_fuse(self.rng.random_bool(0.4).then(|| self.rng.random_range(0..24)));
        let mut recovered = recovered.clone();
        let adopted = workshop.adopt(&recovered);
        if adopted.is_ok() {
            self.durable = self.history.len();
        }
        if adopted.and_then(|()| workshop.close(&mut recovered)).is_ok() {
            let (supply, maker) = Supply::new(self.options.segment_bytes, recovered.next_segment);
            let mut log = Log::over(&self.options, self.platter.clone(), &recovered, supply);
            for _ in 0..self.rng.random_range(0..160) {
                if !self.platter.has_power() {
                    break;
                }
                match self.rng.random_range(0..20) {
                    0..5 => self.append(life, &mut log),
                    5..10 => self.submit(&mut log),
                    10..14 if self.platter.in_flight() > 0 => {
                        let which = self.rng.random_range(0..self.platter.in_flight());
                        self.events.push(format!("write {which} completes"));
                        self.platter.finish(which);
                    }
                    14..17 => self.reap(&mut log),
                    17..19 if maker.step(&mut workshop) => self.events.push("the supply works".to_owned()),
                    19 if self.rng.random_bool(0.4) => {
                        self.snapshot = self.rng.random_range(self.snapshot..=self.durable);
                        self.released = self.rng.random_range(self.released..=self.snapshot);
                        if self.rng.random() {
                            (self.snapshot, self.released) = (self.durable, self.durable);
                        }
                        self.events.push(format!("snapshot {}, released {}", self.snapshot, self.released));
                        log.release(Zxid(self.released as i64));
                    }
                    _ => {}
                }
            }
        }
        if self.platter.has_power() && self.rng.random_bool(0.3) {
            self.events.push("the process dies".to_owned());
            self.platter.kill();
        } else {
            self.events.push("the power fails".to_owned());
            self.platter.lose_power();
        }
    }

    fn append(&mut self, life: u32, log: &mut Log<Platter>) {
        let blocks = self.rng.random_range(0..4) * self.rng.random_range(0..2);
        let mut data = vec![0; blocks * BLOCK + self.rng.random_range(0..300)];
        self.rng.fill_bytes(&mut data);
        let zxid = Zxid(self.history.len() as i64 + 1);
        let header = TxnHeader { session: SessionId(life.into()), cxid: Xid(1), zxid, time_ms: 2 };
        let entry = TxnEntry { header, txn: Txn::SetData { path: "/a", data: Some(&data), version: 3 }, digest: None };
        self.events.push(format!("append {zxid} of {} bytes", data.len()));
        log.group.append(&entry, NOW);
        self.history.push(entry.to_vec());
    }

    fn submit(&mut self, log: &mut Log<Platter>) {
        let (ends, events) = (&mut self.batch_ends, &mut self.events);
        let submitted = log.submit(NOW, |batch| {
            events.push(format!("submit {:?}", batch.header));
            ends.push(batch.header.last.0 as usize);
        });
        assert!(submitted.is_ok() || !self.platter.has_power(), "{submitted:?}");
    }

    fn reap(&mut self, log: &mut Log<Platter>) {
        if let Some(durable) = log.complete(|_| ()).unwrap() {
            self.durable = durable.upto().0 as usize;
            self.events.push(format!("durable up to {}", self.durable));
        }
    }

    /// A bit flips: it is found, or harms nothing that a later batch vouches for.
    fn flip(&mut self) {
        let mut files: Vec<_> = fs::read_dir(self.dir.path()).unwrap().map(|entry| entry.unwrap().path()).collect();
        files.retain(|path| fs::metadata(path).unwrap().len() > 0);
        files.sort();
        if files.is_empty() {
            return;
        }
        let path = &files[self.rng.random_range(0..files.len())];
        let mut bytes = fs::read(path).unwrap();
        let block = self.rng.random_range(0..bytes.len().div_ceil(BLOCK)) * BLOCK;
        let within = [40, 200, BLOCK][self.rng.random_range(0..3)];
        let at = (block + self.rng.random_range(0..within)).min(bytes.len() - 1);
        bytes[at] ^= 1 << self.rng.random_range(0..8);
        fs::write(path, bytes).unwrap();
        self.events.push(format!("flip a bit at {at} of {}", path.display()));
        match read(self.dir.path(), self.snapshot) {
            Ok((records, _)) => {
                let vouched = self.batch_ends.iter().rev().nth(self.options.pipeline_depth).copied().unwrap_or(0);
                assert!(records.len() >= vouched, "{} records, {vouched} are vouched for", records.len());
                let found = &records[self.snapshot..];
                assert!(self.history[self.snapshot..].starts_with(found), "nothing but what was appended");
            }
            Err(StorageError::Corrupt { file, offset, why }) => {
                // Where the header of a batch is gone, a leftover at the end of the segment before may be blamed instead.
                let blamed = file == *path && offset <= at as u64;
                assert!(
                    blamed || file < *path && block == BLOCK && at < BLOCK + 64 || self.released > 0,
                    "damage at {at} is reported at {offset} of {}: {why}",
                    file.display()
                );
            }
            Err(error) => panic!("{error}"),
        }
    }
}

/// What recovery finds after the first `from` records, which stay empty here.
fn read(dir: &Path, from: usize) -> Result<(Vec<Vec<u8>>, Recovered), StorageError> {
    let mut records = vec![Vec::new(); from];
    let recovered = recover_after(dir, Zxid(from as i64), |record| records.push(record.bytes.to_vec()))?;
    assert_eq!(recovered.last.0, records.len() as i64);
    Ok((records, recovered))
}

/// Runs one case; of one that fails, prints everything that happened.
fn run(seed: u64, show: bool) {
    let mut case = Case::new(seed);
    let result = catch_unwind(AssertUnwindSafe(|| case.run()));
    if show || result.is_err() {
        eprintln!("{}", case.events.join("\n").replace(&format!("{}/", case.dir.path().display()), ""));
    }
    assert!(result.is_ok(), "CORRAL_POWER_SEED={seed} fails again");
}

#[test]
#[expect(clippy::disallowed_methods, reason = "how many cases, and which, is up to whoever runs the test")]
fn whatever_a_power_loss_leaves_what_was_durable_is_recovered() {
    let number = |name| std::env::var(name).ok().map(|value| value.parse::<u64>().unwrap());
    match number("CORRAL_POWER_SEED") {
        Some(seed) => run(seed, true),
        None => {
            let cases = number("CORRAL_POWER_CASES").unwrap_or(3000);
            let threads = std::thread::available_parallelism().map_or(1, usize::from) as u64;
            std::thread::scope(|scope| {
                for first in 0..threads {
                    scope.spawn(move || (first..cases).step_by(threads as usize).for_each(|seed| run(seed, false)));
                }
            });
        }
    }
}
