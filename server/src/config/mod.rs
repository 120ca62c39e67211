//! What the server was told to be: `corral-server [--config zoo.cfg] [-o key=value]…` becomes one [`Config`].
//!
//! Each step has a file of its own: `file` reads what is written, [`keys`] knows which keys exist, `resolve` judges
//! every setting and fills in the defaults, `member` reads the lines that list servers. ZooKeeper's keys keep their
//! names and meaning; Corral's own are dotted and lower camel case. With nothing configured at all the server runs
//! alone on 127.0.0.1:2181 with its data in `./corral-data`. A file has no such defaults: as with Apache's it must say
//! `dataDir` and `clientPort`, and then clients are served on all addresses. Settings of the command line beat those of
//! the file.
//!
//! **Invariants**: a [`Config`] is complete and free of contradictions, nobody looks at a key again; a [`ConfigError`]
//! is displayed on exactly one line that says where, which key, what is wrong and what is allowed; the only I/O is
//! reading the file and `myid`.
//!
//! **Not here**: creating directories, resolving host names, what `auto` turns into, the command line's own grammar. An
//! invalid configuration is exit code 2 in ZooKeeper's table, whichever error it is.

mod access;
mod file;
mod given;
pub mod keys;
mod member;
mod resolve;

pub use file::{Origin, Setting};

use crate::consensus::Ensemble;
use crate::requests::acl::Access;
use crate::requests::reaper::Reaping;
use crate::requests::sequencer::Rules;
use corral_engine::disk::BlockSize;
use corral_engine::snapshot::format::Compression;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What the machine has a say in.
#[derive(Clone, Copy, Debug)]
pub struct Defaults {
    /// Cores that this process may use.
    pub cores: usize,
}

/// The whole configuration, checked and resolved.
#[derive(Clone, Debug)]
pub struct Config {
    /// This server's number: what `<dataDir>/myid` says when the file lists servers, otherwise 0.
    pub server_id: u8,
    /// The ensemble that it is a member of; `None` of a server alone.
    pub members: Option<Members>,
    /// Ticks that a member has to connect to its leader and to be synchronized.
    pub init_limit: u32,
    /// Ticks after which a member that was not heard of is given up.
    pub sync_limit: u32,
    /// Whether a leader serves clients itself.
    pub leader_serves: bool,
    /// A leader sends learners what is in its log up to this part of its newest snapshot's size; 0 is however much, `None` is not at
    /// all.
    pub snapshot_size_factor: Option<f64>,
    /// Listen for the other members on all addresses, not only on the one that is listed.
    pub quorum_listen_on_all: bool,
    /// Directory of snapshots, epochs and `myid`. It need not exist yet.
    pub data_dir: PathBuf,
    /// Directory of the transaction log; often the same.
    pub log_dir: PathBuf,
    /// Directories that are missing may be created. When not, that is a reason not to start: the disk may not be
    /// mounted.
    pub datadir_autocreate: bool,
    /// Start although a directory of this history is missing, and lose what only it holds.
    pub accept_loss: Option<u64>,

    /// Host name or address to listen on for clients, IPv6 without brackets; `None` is all addresses.
    pub client_address: Option<String>,
    /// Port to listen on for clients; 0 is any free one.
    pub client_port: u16,
    /// Connections waiting to be accepted; `None` leaves it to the system.
    pub client_backlog: Option<u32>,
    /// TCP keep-alive on clients' connections.
    pub client_keep_alive: bool,
    /// Connections from one client address; `None` is unlimited.
    pub max_client_cnxns: Option<u32>,
    /// Connections in all; `None` is unlimited.
    pub max_cnxns: Option<u32>,
    /// A connection that has no session after this long is closed.
    pub sessionless_cnxn_timeout_ms: u32,
    /// Length of the longest request (`jute.maxbuffer`); fits into an `i32`.
    pub frame_bytes_max: u32,
    /// Requests in process from which on a core reads no more.
    pub outstanding_max: u32,
    /// Requests that have waited for so long are refused.
    pub throttled_after_ms: Option<u32>,
    /// Who may do what.
    pub access: Access,
    /// What clients may do besides, and what transactions say.
    pub rules: Rules,
    /// How containers and such nodes are deleted.
    pub reaping: Reaping,

    /// One tick.
    pub tick_ms: u32,
    /// Shortest session timeout that a client gets; fits into an `i32`.
    pub min_session_timeout_ms: u32,
    /// Longest session timeout that a client gets; fits into an `i32`, and is not below the shortest.
    pub max_session_timeout_ms: u32,

    /// The transaction log.
    pub log: LogConfig,
    /// Snapshots, and how many are kept.
    pub snapshots: SnapshotConfig,
    /// Threads that serve clients; at least one, and at least two with `replica_own_core`.
    pub core_threads: usize,
    /// Keeps clients off the thread that orders the writes.
    pub replica_own_core: bool,
    /// Four-letter words that are answered.
    pub words: FourLetterWords,
}

/// An ensemble, as one of its members knows it.
#[derive(Clone, Debug)]
pub struct Members {
    /// Which member this server is.
    pub me: u8,
    /// Where each of them is reached, itself included.
    pub all: BTreeMap<u8, MemberAddress>,
    /// Who votes.
    pub ensemble: Arc<Ensemble>,
    /// The same as the members tell it each other.
    pub text: String,
}

/// Where a member is reached by the others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemberAddress {
    /// Its host name or address, IPv6 without brackets.
    pub host: String,
    /// Where learners connect to it when it leads.
    pub quorum_port: u16,
    /// Where the others tell it their votes.
    pub election_port: u16,
    /// It does not vote.
    pub is_observer: bool,
}

impl MemberAddress {
    /// The address of its election port, IPv6 in brackets.
    pub fn election_address(&self) -> String {
        let Self { host, election_port, .. } = self;
        if host.contains(':') { format!("[{host}]:{election_port}") } else { format!("{host}:{election_port}") }
    }

    fn collides_with(&self, other: &MemberAddress) -> bool {
        let ports = [other.quorum_port, other.election_port];
        self.host == other.host && [self.quorum_port, self.election_port].iter().any(|port| ports.contains(port))
    }
}

/// Bytes of the log's volume that something may take: as many as were configured; or else a default, or less on a small volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share {
    /// So many.
    pub bytes: u64,
    /// Unless they were configured: the most of the volume that they may be, one part of so many.
    pub part: Option<u64>,
}

impl Share {
    /// On a volume of so many bytes, if that is known.
    pub fn of(self, volume: Option<u64>) -> u64 {
        let most = volume.zip(self.part).map_or(u64::MAX, |(volume, part)| volume / part);
        self.bytes.min(most)
    }
}

/// How the transaction log is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogConfig {
    /// By which calls.
    pub io: LogIo,
    /// When a write counts as durable.
    pub sync: LogSync,
    /// Writes that may be in flight at once, 1 to 8.
    pub pipeline_depth: u32,
    /// How long a write waits for company; 0 is not at all.
    pub group_commit_delay_us: u32,
    /// Its blocks; `None`: as the device has them.
    pub block: Option<BlockSize>,
    /// Size of a segment. Whether that is a good multiple of the block is for the log to say.
    pub segment_bytes: Share,
    /// A sync that takes longer is reported.
    pub slow_sync_ms: u64,
}

/// How snapshots are taken and kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SnapshotConfig {
    /// One is due after at most so many transactions.
    pub count: u64,
    /// Or after at most so many bytes of log, padding included; 0 is however many.
    pub log_bytes: Share,
    /// How they are stored.
    pub compression: Compression,
    /// Bytes a second that one may write; 0 is no limit.
    pub rate_limit: u64,
    /// How many are kept; `None` keeps all, and the whole log.
    pub retain: Option<usize>,
}

/// `log.io`: by which calls the log is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogIo {
    /// The best that the file system and the kernel support.
    Auto,
    /// `io_uring`, past the page cache.
    UringDirect,
    /// `io_uring`, through the page cache.
    UringBuffered,
    /// `pwrite`, where `io_uring` is forbidden.
    Pwrite,
}

impl LogIo {
    /// All of them.
    pub const ALL: [LogIo; 4] = [LogIo::Auto, LogIo::UringDirect, LogIo::UringBuffered, LogIo::Pwrite];

    /// As it is written in the file.
    pub const fn name(self) -> &'static str {
        match self {
            LogIo::Auto => "auto",
            LogIo::UringDirect => "uring-direct",
            LogIo::UringBuffered => "uring-buffered",
            LogIo::Pwrite => "pwrite",
        }
    }
}

/// `log.sync`: what makes a log write durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogSync {
    /// The best that the file system supports, always a durable one.
    Auto,
    /// `RWF_DSYNC` on each write.
    Dsync,
    /// `fdatasync` after it.
    Fdatasync,
    /// `fsync` after it.
    Fsync,
    /// Nothing: an acknowledged write can be lost with the power.
    None,
}

impl LogSync {
    /// All of them.
    pub const ALL: [LogSync; 5] = [LogSync::Auto, LogSync::Dsync, LogSync::Fdatasync, LogSync::Fsync, LogSync::None];

    /// As it is written in the file.
    pub const fn name(self) -> &'static str {
        match self {
            LogSync::Auto => "auto",
            LogSync::Dsync => "dsync",
            LogSync::Fdatasync => "fdatasync",
            LogSync::Fsync => "fsync",
            LogSync::None => "none",
        }
    }
}

/// `4lw.commands.whitelist`: which four-letter words are answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FourLetterWords {
    /// All of them.
    All,
    /// These, and `srvr`.
    Listed(BTreeSet<String>),
}

impl FourLetterWords {
    /// The words of ZooKeeper 3.9.
    pub const KNOWN: [&str; 18] = [
        "conf", "cons", "crst", "dirs", "dump", "envi", "gtmk", "hash", "isro", "mntr", "ruok", "srst", "srvr", "stat",
        "stmk", "wchc", "wchp", "wchs",
    ];

    /// True when `word` is to be answered, should it exist. Apache's own scripts rely on `srvr`, so it always is.
    pub fn allows(&self, word: &str) -> bool {
        match self {
            FourLetterWords::All => true,
            FourLetterWords::Listed(words) => word == "srvr" || words.contains(word),
        }
    }
}

/// Why the server cannot start as it was told to.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A file could not be read.
    #[error("{}: cannot be read: {source}", file::one_line(&path.to_string_lossy()))]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// Something that is not even a setting.
    #[error("{origin}: {why}")]
    Syntax {
        /// Where.
        origin: Origin,
        /// What is wrong with it.
        why: String,
    },
    /// A key that neither Apache nor Corral has.
    #[error("{origin}: {}: unknown key; {}", file::one_line(key), match nearest {
        Some(nearest) => format!("did you mean {nearest}?"),
        None => "no known key is similar".to_owned(),
    })]
    UnknownKey {
        /// Where.
        origin: Origin,
        /// The key.
        key: String,
        /// The known key that may have been meant.
        nearest: Option<&'static str>,
    },
    /// A value that the key cannot have, or not beside the others.
    #[error("{origin}: {}: {wrong}; allowed: {allowed}", file::one_line(key))]
    BadValue {
        /// Where.
        origin: Origin,
        /// The key.
        key: String,
        /// What is wrong.
        wrong: String,
        /// What would be right.
        allowed: String,
    },
    /// A setting whose effect does not exist and must not be missed. The value, maybe a password, is not repeated.
    #[error("{origin}: {}: {reason}; allowed: {}", file::one_line(key), allowed.unwrap_or("only without this key"))]
    Refused {
        /// Where.
        origin: Origin,
        /// The key.
        key: String,
        /// Why.
        reason: &'static str,
        /// The one value that would be accepted.
        allowed: Option<&'static str>,
    },
    /// A key that a file must set.
    #[error("{}: {key}: is not set; allowed: {allowed}", file::one_line(&path.to_string_lossy()))]
    Missing {
        /// The file.
        path: PathBuf,
        /// The key.
        key: &'static str,
        /// What it could be.
        allowed: String,
    },
}

/// Reads the configuration: `path` is the argument of `--config`, `overrides` are those of `-o`. With the configuration
/// come warnings for the operator, one line each.
///
/// # Errors
/// The first thing that is wrong, in the order of the settings.
pub fn load(
    path: Option<&Path>,
    overrides: &[String],
    defaults: &Defaults,
) -> Result<(Config, Vec<String>), ConfigError> {
    let mut settings = Vec::new();
    if let Some(path) = path {
        let bytes = std::fs::read(path).map_err(|source| ConfigError::Read { path: path.into(), source })?;
        settings = file::parse(path, &String::from_utf8_lossy(&bytes))?;
    }
    for argument in overrides {
        settings.push(file::parse_override(argument)?);
    }
    resolve::resolve(settings, path, defaults, |path| std::fs::read_to_string(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEFAULTS: Defaults = Defaults { cores: 4 };

    fn write(dir: &Path, name: &str, text: impl AsRef<[u8]>) -> PathBuf {
        let path = dir.join(name);
        std::fs::write(&path, text).unwrap();
        path
    }

    #[test]
    fn nothing_configured() {
        let (config, warnings) = load(None, &[], &DEFAULTS).unwrap();
        assert_eq!(warnings, [""; 0]);
        assert_eq!((config.client_address.as_deref(), config.client_port), (Some("127.0.0.1"), 2181));
        assert_eq!(config.data_dir, Path::new("./corral-data"));
        assert_eq!((config.server_id, config.core_threads), (0, 4));
    }

    #[test]
    fn the_file_is_read_and_the_command_line_wins() {
        let dir = tempfile::tempdir().unwrap();
        let path = write(dir.path(), "zoo.cfg", "dataDir=/d\nclientPort=2181\ntickTime=2000\ntickTime=1000\n");
        let overrides = ["clientPort=0".to_owned(), "log.pipelineDepth=2".into(), "log.pipelineDepth=4".into()];
        let (config, warnings) = load(Some(&path), &overrides, &DEFAULTS).unwrap();
        assert_eq!(warnings, [""; 0]);
        assert_eq!((config.tick_ms, config.client_port, config.log.pipeline_depth), (1000, 0, 4));
        assert_eq!(config.client_address, None);
    }

    #[test]
    fn a_file_that_cannot_be_read() {
        let dir = tempfile::tempdir().unwrap();
        for path in [dir.path().join("none"), dir.path().into()] {
            let error = load(Some(&path), &[], &DEFAULTS).unwrap_err().to_string();
            assert!(error.starts_with(&format!("{}: cannot be read: ", path.display())), "{error}");
        }
    }

    #[test]
    fn myid_is_read_when_a_server_is_listed() {
        let dir = tempfile::tempdir().unwrap();
        let base = format!("dataDir={}\nclientPort=2181\n", dir.path().display());
        let alone = write(dir.path(), "alone.cfg", &base);
        let listed = write(dir.path(), "listed.cfg", format!("{base}server.7=host:2888:3888\n"));
        let id = |path: &Path| load(Some(path), &[], &DEFAULTS).map(|(config, _)| config.server_id);

        assert_eq!(id(&listed).unwrap(), 0);
        write(dir.path(), "myid", "7\n");
        assert_eq!((id(&listed).unwrap(), id(&alone).unwrap()), (7, 0));
        write(dir.path(), "myid", "8\n");
        let error = id(&listed).unwrap_err().to_string();
        let expected = format!("{}/myid:1: myid: this is server 8, which is not", dir.path().display());
        assert!(error.starts_with(&expected), "{error}");
        assert_eq!(id(&alone).unwrap(), 0);
    }

    #[test]
    fn srvr_is_always_answered() {
        let listed = FourLetterWords::Listed(BTreeSet::from(["ruok".to_owned()]));
        assert!(listed.allows("ruok") && listed.allows("srvr") && !listed.allows("stat"));
        assert!(FourLetterWords::All.allows("stat"));
    }
}
