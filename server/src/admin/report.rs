//! The state of a running server, as plain numbers: each core fills in its own part when somebody asks.

use crate::clients::worker::{ConnCounters, WorkerCounters};
use crate::stages::Stages;
use corral_engine::histogram::Histogram;
use corral_engine::txnlog::log::{LogCounters, LogHistograms};
use corral_proto::peer::PeerState;
use corral_proto::{SessionId, TreeDigest, Zxid};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

/// What a server says it is: the release of Apache ZooKeeper whose protocol it speaks, because monitors and clients look for three numbers
/// there, its own version, and when that was made.
pub const VERSION: &str = concat!("3.9.5-corral-", env!("CARGO_PKG_VERSION"), env!("CORRAL_BUILT"));

/// What one core knows.
#[derive(Clone, Debug, Default)]
pub struct CoreReport {
    /// How long writes spent in the stages that this core has a part in.
    pub stages: Stages,
    /// Sums over its connections.
    pub workers: WorkerCounters,
    /// Requests on their way.
    pub outstanding: usize,
    /// Watches of its connections.
    pub watches: usize,
    /// Which sessions watch which nodes (their data, not their children, as Apache lists them), if somebody wants to know.
    pub watched: Vec<(SessionId, Vec<Arc<str>>)>,
    /// Its connections.
    pub conns: Vec<ConnReport>,
    /// What the replica and the log know, from the core that they live on.
    pub replica: Option<ReplicaReport>,
}

/// What the replica, the log and the tree say.
#[derive(Clone, Debug, Default)]
pub struct ReplicaReport {
    /// Its role, and of a leader how many learners it has that vote, and that do not; `None` while nobody is served.
    pub state: Option<(PeerState, (usize, usize))>,
    /// It is its whole ensemble.
    pub alone: bool,
    /// The newest transaction in the tree.
    pub zxid: Zxid,
    /// Nodes in the tree.
    pub nodes: usize,
    /// Ephemeral ones among them.
    pub ephemerals: usize,
    /// Bytes of names and data.
    pub bytes: u64,
    /// Open sessions.
    pub sessions: usize,
    /// Proposals not applied yet.
    pub proposals: usize,
    /// Bytes of the newest, the smallest and the largest that it has made, of a leader that has made any.
    pub proposal_bytes: Option<[usize; 3]>,
    /// Transactions after which the tree was not its leader's.
    pub differences: u64,
    /// What takes long to list, if somebody wants to know.
    pub lists: Option<Lists>,
    /// What the log has done.
    pub log: LogCounters,
    /// Bytes that can be appended before another segment has to be made.
    pub log_room: u64,
    /// Bytes that wait to be written to the log.
    pub log_backlog: u64,
    /// How long the oldest batch has waited for the disk, in ms.
    pub log_waits_ms: u64,
    /// Bytes of memory that wait to be sent to learners.
    pub learner_queue: u64,
    /// What its writes were like.
    pub histograms: LogHistograms,
    /// Durable writes that took longer than `fsync.warningthresholdms`.
    pub slow_syncs: u64,
    /// Time of all durable writes, in µs.
    pub sync_sum_us: u64,
    /// The longest, in µs.
    pub sync_max_us: u64,
    /// How long snapshots took, in ns.
    pub snapshots: Histogram,
    /// How many could not be taken.
    pub snapshot_failures: u64,
}

/// What a replica lists when it is asked for.
#[derive(Clone, Debug, Default)]
pub struct Lists {
    /// The tree's digest after some of the newest transactions, the oldest first.
    pub digests: Vec<(Zxid, TreeDigest)>,
    /// The open sessions and their timeouts in ms.
    pub sessions: Vec<(SessionId, i32)>,
    /// Of whoever looks after them: which expire when, since the server's start.
    pub expiries: Vec<(Duration, Vec<SessionId>)>,
    /// The ephemeral nodes of each session that has some.
    pub ephemerals: Vec<(SessionId, Vec<String>)>,
}

/// What is known of one connection.
#[derive(Clone, Debug)]
pub struct ConnReport {
    /// The client.
    pub remote: SocketAddr,
    /// Its session and timeout in ms, once there is one.
    pub session: Option<(SessionId, i32)>,
    /// When it was accepted, in ms since the epoch.
    pub since_ms: i64,
    /// Requests and latencies.
    pub counters: ConnCounters,
    /// Requests on their way.
    pub outstanding: usize,
}

/// What does not change while the server runs.
#[derive(Clone, Debug, Default)]
pub struct ServerFacts {
    /// `key=value` lines of the effective configuration, as `conf` prints them; the directories' sizes excepted.
    pub conf: Vec<(&'static str, String)>,
    /// The members of the ensemble, as `conf` prints them last.
    pub membership: Option<String>,
    /// The data directory, whose size `conf` shows.
    pub data_dir: std::path::PathBuf,
    /// The log directory, likewise.
    pub log_dir: std::path::PathBuf,
    /// The unit in which sessions and connections expire (`tickTime`).
    pub tick: Duration,
    /// What `envi` prints, as far as it does not change.
    pub environment: Vec<(&'static str, String)>,
}

/// The whole server.
#[derive(Clone, Debug)]
pub struct ServerReport {
    /// One a core.
    pub cores: Vec<CoreReport>,
    /// Since the start, in ms.
    pub uptime_ms: u64,
    /// When that was, in ms since the epoch.
    pub wall_ms: i64,
    /// Descriptors in use, and allowed.
    pub descriptors: (u64, u64),
}

impl ReplicaReport {
    /// What the server is, in Apache's words; `None` while nobody is served.
    pub fn mode(&self) -> Option<&'static str> {
        Some(match self.state?.0 {
            _ if self.alone => "standalone",
            PeerState::Leading => "leader",
            PeerState::Following => "follower",
            PeerState::Observing => "observer",
            PeerState::Looking => return None,
        })
    }
}

impl ServerReport {
    /// The replica's part.
    pub fn replica(&self) -> ReplicaReport {
        self.cores.iter().find_map(|core| core.replica.clone()).unwrap_or_default()
    }

    /// How long writes spent in each stage, over all cores.
    pub fn stages(&self) -> Stages {
        let mut all = Stages::default();
        self.cores.iter().for_each(|core| all.add(&core.stages));
        all
    }

    /// Sums over all cores.
    pub fn totals(&self) -> WorkerCounters {
        self.cores.iter().fold(WorkerCounters::default(), |sum, core| sum.plus(&core.workers))
    }

    /// Requests on their way, over all cores.
    pub fn outstanding(&self) -> usize {
        self.cores.iter().map(|core| core.outstanding).sum()
    }

    /// Watches, over all cores.
    pub fn watches(&self) -> usize {
        self.cores.iter().map(|core| core.watches).sum()
    }

    /// All connections.
    pub fn conns(&self) -> impl Iterator<Item = &ConnReport> {
        self.cores.iter().flat_map(|core| &core.conns)
    }
}
