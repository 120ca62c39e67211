//! One member: the production machines of its cores, on a disk that is simulated; and what is known of it from outside.
//!
//! A [`Life`] goes from a start to the death of the process. What it leaves on its disk the next one restores, and that is compared
//! with what it must have left ([`Member::begin`]).
//!
//! **Not here**: what its machines need done ([`super::world`]).

use super::history::{Entry, fingerprint};
use super::network::{LifeId, Pipe};
use corral_engine::Tree;
use corral_engine::disk::files::Files;
use corral_engine::disk::simulated::Platter;
use corral_engine::disk::{BlockSize, LogIo, LogSync, Mode};
use corral_engine::epochs::Epochs;
use corral_engine::restore::{Restored, restore};
use corral_engine::snapshot::format::Compression;
use corral_engine::snapshot::writer::SnapshotOptions;
use corral_engine::txnlog::format::FIRST_BATCH;
use corral_engine::txnlog::segment;
use corral_engine::txnlog::supply::{Maker, Supply};
use corral_engine::txnlog::workshop::Workshop;
use corral_engine::txnlog::{Log, LogOptions, Recovered};
use corral_engine::{StorageError, adoption};
use corral_proto::{Jute, ServerId, SessionId, Zxid};
use corral_server::budget::Bounds;
use corral_server::clients::worker::WorkerOptions;
use corral_server::consensus::Ensemble;
use corral_server::consensus::election::Patience;
use corral_server::consensus::history::History as Newest;
use corral_server::consensus::message::Standing;
use corral_server::consensus::transfer::Departure;
use corral_server::machine::{Crossing, Ended, Heard, Host, Machine, Member as Voter, MemberOptions, Piece};
use corral_server::process::store::set_aside;
use corral_server::replica::{Now, Replica, ReplicaOptions};
use corral_server::requests::acl::Access;
use corral_server::requests::reaper::Reaping;
use corral_server::requests::sequencer::Rules;
use corral_server::requests::session;
use crossbeam::channel::Sender;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

/// `tickTime`: short, because a run should see many of them.
pub(super) const TICK: Duration = Duration::from_millis(50);
const SEGMENT_BYTES: u64 = 16 << 10;
/// Transactions after which a member takes a snapshot, at most.
const SNAPSHOT_AFTER: [u64; 2] = [300, 40];
/// Snapshots that are kept.
pub(super) const KEEP: usize = 2;
const PIECE_MAX: usize = 1 << 20;
const REAPING: Reaping =
    Reaping { every: Duration::from_millis(30), gap: Duration::from_millis(1), unused_ms: Some(50) };
/// Bounds that are reached with the little that simulated clients write.
const NARROW: Bounds = Bounds {
    requests: 200,
    answers: 300,
    events: 200,
    writes: 400,
    parcel: 300,
    newest: 6 << 10,
    learner: 24 << 10,
    backlog: 1 << 10,
};

/// One of the ensemble.
pub(super) struct Member {
    pub(super) id: ServerId,
    dir: PathBuf,
    pub(super) platter: Platter,
    /// The block of its disk.
    physical: BlockSize,
    pub(super) life: Option<Box<Life>>,
    lives: u64,
    /// What its disk and its memory hold of the log.
    pub(super) entries: Vec<Entry>,
    /// So many of them were reported durable.
    pub(super) durable: usize,
    /// So many are in the tree that it serves.
    pub(super) applied: usize,
    /// Transactions of an epoch, after which another begins.
    epoch_max: u32,
    /// A bit has flipped in its log, or it has lost its history for that, and has no other yet.
    pub(super) is_rotten: bool,
    pub(super) paused_until: Duration,
    pub(super) slow_until: Duration,
    /// Its disk takes nothing until then.
    pub(super) hung_until: Duration,
    pub(super) random: SmallRng,
}

/// A running process.
pub(super) struct Life {
    /// Its cores: the first has the member.
    pub(super) cores: Vec<Machine<Platter, Pipe>>,
    pub(super) shell: Shell,
}

/// What is around the cores of a process.
pub(super) struct Shell {
    pub(super) id: LifeId,
    began: Duration,
    /// How fast its clock runs.
    rate: f64,
    pub(super) crossing: Arc<Crossing>,
    pub(super) bells: Arc<Bells>,
    workshop: Workshop,
    pub(super) maker: Maker,
    pub(super) is_supplying: bool,
    pub(super) snapshots: SnapshotOptions,
    pub(super) log_dir: PathBuf,
    /// When a snapshot was asked for that is being taken, and how the last one went.
    pub(super) asked: Option<i64>,
    pub(super) ended: Option<Ended>,
    pub(super) is_listening: bool,
    /// Learners that have connected, and what was heard over the election port.
    pub(super) knocking: VecDeque<Pipe>,
    pub(super) heard: VecDeque<Heard<Pipe>>,
    /// Histories that are being sent.
    pub(super) transfers: BTreeMap<u64, Transfer>,
    pub(super) next_transfer: u64,
    /// Where the clients' connections of each core are in its worker, and what they are outside.
    pub(super) conns: Vec<BTreeMap<u32, u64>>,
    /// Connections of each core with something that has arrived and was not read.
    pub(super) unread: Vec<BTreeSet<u32>>,
    /// What each core is woken for next, and whether it is to take a turn besides that.
    pub(super) wakes_at: Vec<Duration>,
    pub(super) is_due: Vec<bool>,
    /// How many turns each core has taken since something came from outside.
    pub(super) restless: Vec<u32>,
    pub(super) turned_at: Vec<Duration>,
    pub(super) was: &'static str,
}

/// A history that another thread sends.
pub(super) struct Transfer {
    pub(super) pieces: Sender<Piece>,
    pub(super) wanted: Weak<()>,
    /// Made, and not taken yet.
    pub(super) ready: VecDeque<Piece>,
    pub(super) what: What,
}

pub(super) enum What {
    Tree(Zxid, Option<Departure>),
    Log(corral_server::consensus::stretch::Stretch),
    Done,
}

/// The clock and the bells of a process.
#[derive(Default)]
pub(super) struct Bells {
    uptime_ns: AtomicU64,
    rung: AtomicU64,
}

impl Bells {
    pub(super) fn set(&self, uptime: Duration) {
        self.uptime_ns.store(uptime.as_nanos() as u64, Ordering::Relaxed);
    }

    /// A core wants another turn.
    pub(super) fn ring_again(&self, core: usize) {
        self.rung.fetch_or(1 << core, Ordering::Relaxed);
    }

    /// The cores that were rung for since the last call.
    pub(super) fn take_rung(&self) -> impl Iterator<Item = usize> + use<> {
        let rung = self.rung.swap(0, Ordering::Relaxed);
        (0..64).filter(move |core| rung & (1 << core) != 0)
    }
}

/// [`Bells`], as the machines have them.
struct Shared(Arc<Bells>);

impl Host for Shared {
    fn uptime(&self) -> Duration {
        Duration::from_nanos(self.0.uptime_ns.load(Ordering::Relaxed))
    }

    fn ring(&self, core: usize) {
        self.0.ring_again(core);
    }
}

impl Member {
    pub(super) fn new(index: usize, dir: &Path, seed: u64) -> Member {
        let dir = dir.join((index + 1).to_string());
        for name in ["log", "snapshots"] {
            fs::create_dir_all(dir.join(name)).expect("the directory of the run is writable");
        }
        let mut random = SmallRng::seed_from_u64(seed);
        let platter = Platter::new(&dir, random.random());
        let physical = [BlockSize::MIN, BlockSize::MAX][random.random_range(0..2)];
        platter.set_physical(physical);
        Member {
            id: ServerId(index as i64 + 1),
            dir,
            platter,
            physical,
            life: None,
            lives: 0,
            entries: Vec::new(),
            durable: 0,
            applied: 0,
            epoch_max: [u32::MAX, 150, 600][random.random_range(0..3)],
            is_rotten: false,
            paused_until: Duration::ZERO,
            slow_until: Duration::ZERO,
            hung_until: Duration::ZERO,
            random,
        }
    }

    /// Whether a transaction is on its disk.
    fn has_durable(&self, zxid: Zxid) -> bool {
        self.entries[..self.durable].binary_search_by_key(&zxid, |(zxid, _)| *zxid).is_ok()
    }

    /// Whether a quorum with it has a transaction: on its disk, or because it is known to have lost what it had, and does not vote.
    pub(super) fn counts_for(&self, zxid: Zxid) -> bool {
        self.is_rotten || self.has_durable(zxid)
    }

    /// So many transactions of its own end with this one, or before it.
    pub(super) fn count_upto(&self, zxid: Zxid) -> usize {
        self.entries.partition_point(|(own, _)| *own <= zxid)
    }

    /// Not on a full disk, if it has never promised anything, or has to write down that its history is lost.
    pub(super) fn can_begin(&self) -> bool {
        !self.platter.is_full() || (matches!(Epochs::are_in(&self.dir), Ok(true)) && !self.is_rotten)
    }

    /// Its process starts, and restores what the one before has left.
    pub(super) fn begin(&mut self, now: Duration, ensemble: Arc<Ensemble>) {
        assert!(self.life.is_none(), "one process at a time");
        self.lives += 1;
        let (log_dir, snapshot_dir) = (self.dir.join("log"), self.dir.join("snapshots"));
        let files: Arc<dyn Files> = Arc::new(self.platter.clone());
        let failed =
            |error: corral_engine::StorageError| -> ! { panic!("R5: what is on the disk cannot be restored: {error}") };
        if let Err(error) = adoption::finish(&*files, &snapshot_dir, &log_dir) {
            failed(error);
        }
        let seed = self.random.random();
        let restored = match restore(&snapshot_dir, &log_dir, seed, |_| ()) {
            Err(damage @ StorageError::Corrupt { .. }) if self.is_rotten => {
                set_aside(files.clone(), damage, &self.dir, &log_dir, &snapshot_dir)
                    .unwrap_or_else(|error| failed(error));
                self.entries.clear();
                self.durable = 0;
                restore(&snapshot_dir, &log_dir, seed, |_| ())
            }
            other => other,
        };
        let restored = restored.unwrap_or_else(|error| failed(error));
        let Restored { mut tree, mut recovered, newest, .. } = restored;
        self.compare(&recovered, &newest);
        let epochs = Epochs::open(files.clone(), &self.dir, recovered.last).unwrap_or_else(|error| failed(error));
        // No smaller than the disk's.
        let block = [self.physical, BlockSize::MAX][self.random.random_range(0..2)];
        let log_options = LogOptions {
            files: files.clone(),
            dir: log_dir,
            mode: Mode { io: LogIo::Pwrite, sync: LogSync::Dsync, block, why: String::new() },
            segment_bytes: SEGMENT_BYTES,
            pipeline_depth: self.random.random_range(1..=3),
            group_commit_delay: Duration::ZERO,
        };
        let mut workshop = self.workshop(&log_options);
        workshop.resume(&mut recovered).unwrap_or_else(|error| failed(error));
        self.durable = self.entries.len();
        let (log, maker) = open(&log_options, &self.platter, &recovered);
        let bounds = if self.random.random_ratio(1, 2) { Bounds::PRODUCTION } else { NARROW };
        // Few, so that there are learners who have missed more.
        let mut history = Newest::keeping([4, 40, 500][self.random.random_range(0..3)], bounds.newest);
        newest.iter().for_each(|(zxid, record)| history.push(*zxid, record));
        self.is_rotten &= epochs.is_lost();
        let standing = Standing { accepted: epochs.accepted(), current: epochs.current(), last: recovered.last };
        let cores = self.random.random_range(1..=3);
        let replica = self.replica_options(ensemble, epochs.is_lost(), cores);
        let alone = replica.ensemble.is_alone(self.id);
        let replica = Replica::new(replica, standing, history, &mut tree, Duration::ZERO);
        let bells = Arc::new(Bells::default());
        let crossing = Arc::new(Crossing::new(Box::new(Shared(bells.clone())), tree, cores));
        let snapshots =
            SnapshotOptions { files: files.clone(), dir: snapshot_dir, compression: Compression::None, rate_limit: 0 };
        let options = MemberOptions {
            tick: TICK,
            log: log_options.clone(),
            snapshots: snapshots.clone(),
            snapshot_after: (SNAPSHOT_AFTER[self.random.random_range(0..2)], 0),
            snapshot_size_factor: Some(0.0),
            slow_sync: Duration::MAX,
            piece_max: PIECE_MAX,
            bounds,
            seed: 1,
        };
        let epochs = (!alone).then_some(epochs);
        let voter = Voter::new(crossing.clone(), options, replica, log, epochs);
        let mut voter = Some(voter.unwrap_or_else(|error| panic!("R5: {error}")));
        let worker = |core: usize| WorkerOptions {
            core: core as u16,
            seed: 1,
            timeouts_ms: (100, 5000),
            outstanding_max: 1000,
            throttled_after: None,
            bounds,
            access: Access::default(),
        };
        let machines = (0..cores).map(|core| Machine::new(crossing.clone(), worker(core), voter.take(), TICK));
        let machines = machines.collect();
        let rate = 1.0 + self.random.random_range(-0.05..0.05);
        self.applied = 0;
        self.life = Some(Box::new(Life {
            cores: machines,
            shell: Shell {
                id: LifeId { member: self.id.0 as usize - 1, number: self.lives },
                began: now,
                rate,
                crossing,
                bells,
                workshop,
                maker,
                is_supplying: false,
                snapshots,
                log_dir: log_options.dir,
                asked: None,
                ended: None,
                is_listening: false,
                knocking: VecDeque::new(),
                heard: VecDeque::new(),
                transfers: BTreeMap::new(),
                next_transfer: 0,
                conns: vec![BTreeMap::new(); cores],
                unread: vec![BTreeSet::new(); cores],
                wakes_at: vec![Duration::MAX; cores],
                is_due: vec![false; cores],
                restless: vec![0; cores],
                turned_at: vec![Duration::ZERO; cores],
                was: "",
            },
        }));
    }

    fn replica_options(&self, ensemble: Arc<Ensemble>, is_lost: bool, cores: usize) -> ReplicaOptions {
        let patience = Patience {
            finish: Duration::from_millis(20),
            repeat_min: Duration::from_millis(20),
            repeat_max: Duration::from_millis(400),
        };
        ReplicaOptions {
            me: self.id,
            ensemble,
            tick: TICK,
            init_limit: 8,
            sync_limit: 4,
            patience,
            leader_serves: true,
            is_lost,
            epoch_max: self.epoch_max,
            first_session: SessionId(session::first_id(self.id.0 as u8, 0).0 + ((self.lives as i64) << 16)),
            seed: 1,
            members: Some("server.1=…\nversion=0".into()),
            access: Access::default(),
            rules: Rules { takes_ttl: true, ..Rules::default() },
            reaping: REAPING,
            cores,
        }
    }

    /// What was recovered is a beginning of what was logged, with everything in it that was durable.
    fn compare(&mut self, recovered: &Recovered, newest: &[(Zxid, Vec<u8>)]) {
        let count = self.count_upto(recovered.last);
        assert!(count >= self.durable, "R5: {count} transactions are on the disk, {} were durable", self.durable);
        for (zxid, record) in newest {
            let known = self.entries.binary_search_by_key(zxid, |(zxid, _)| *zxid);
            let known = known.map(|at| self.entries[at].1);
            assert!(known == Ok(fingerprint(&record[..])), "R5: {zxid} on the disk is not what was logged");
        }
        self.entries.truncate(count);
    }

    fn workshop(&mut self, options: &LogOptions) -> Workshop {
        Workshop::new(options, SmallRng::seed_from_u64(self.random.random()))
    }

    /// Its history was replaced, or cut: it goes on with what is there.
    pub(super) fn open_log(&mut self, shell: &mut Shell, options: &LogOptions, recovered: &Recovered) -> Log<Platter> {
        shell.workshop = self.workshop(options);
        let mut recovered = recovered.clone();
        shell.workshop.resume(&mut recovered).expect("the disk is well");
        let (log, maker) = open(options, &self.platter, &recovered);
        shell.maker = maker;
        log
    }

    /// A bit flips in its log, while no process runs, where recovery cannot take it for a torn tail. False if there is no such place.
    pub(super) fn rots(&mut self) -> bool {
        let segments = segment::list(&self.dir.join("log")).expect("the directory of the run is readable");
        // The newest may be empty, and the two before it may have the last words.
        let Some(oldest) = segments.len().checked_sub(4) else { return false };
        let (_, path) = &segments[self.random.random_range(0..=oldest)];
        let mut bytes = fs::read(path).expect("the directory of the run is readable");
        let at = FIRST_BATCH as usize + self.random.random_range(0..200);
        bytes[at] ^= 1 << self.random.random_range(0..8);
        fs::write(path, bytes).expect("the directory of the run is writable");
        self.platter.settle();
        self.is_rotten = true;
        true
    }

    /// The process is gone. `power`: and what it had not synced.
    pub(super) fn end(&mut self, power: bool) {
        self.life = None;
        match power {
            true => self.platter.lose_power(),
            false => self.platter.kill(),
        }
    }
}

fn open(options: &LogOptions, platter: &Platter, recovered: &Recovered) -> (Log<Platter>, Maker) {
    let (supply, maker) = Supply::new(options.segment_bytes, recovered.next_segment);
    (Log::over(options, platter.clone(), recovered, supply), maker)
}

impl Life {
    /// The one that decides.
    pub(super) fn replica(&self) -> &Replica {
        &self.cores[0].member.as_ref().expect("the first core has it").replica
    }

    /// When its clock shows this.
    pub(super) fn true_time(&self, uptime: Duration) -> Duration {
        self.shell.began + uptime.div_f64(self.shell.rate) + Duration::from_nanos(1)
    }
}

impl Shell {
    /// What its clocks show.
    pub(super) fn now(&self, true_time: Duration) -> Now {
        let uptime = (true_time - self.began).mul_f64(self.rate);
        Now { uptime, wall_ms: 1_700_000_000_000 + true_time.as_millis() as i64 }
    }

    /// One step of making segments.
    pub(super) fn supply(&mut self) {
        self.maker.step(&mut self.workshop);
    }
}

/// What tells a tree from others, whatever its members are called inside.
pub(super) fn tree_fingerprint(tree: &Tree) -> u64 {
    let mut sum = 0u64;
    tree.walk(0, usize::MAX, |path, image| {
        sum = sum.wrapping_add(fingerprint((path, image.data, image.acl.encoded(), image.stat.to_vec())));
        true
    });
    sum.wrapping_add(fingerprint(tree.sessions().iter().map(|(id, ms)| (id.0, *ms)).collect::<Vec<_>>()))
}
