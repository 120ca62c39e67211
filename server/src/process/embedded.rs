//! A whole server in this process: what `corral-server` is made of, and what the benchmark starts when it is given no hosts.

#![expect(clippy::disallowed_methods, reason = "how long recovery took is for the log")]

use crate::admin::environment::environment;
use crate::admin::report::ServerFacts;
use crate::config::{self, Config, Defaults, Members};
use crate::process::Server;
use crate::process::banner::{self, Described, TreeSize};
use crate::process::store::Store;
use corral_engine::StorageError;
use corral_engine::epochs::Epochs;
use corral_engine::restore::{Progress, Restored};
use corral_engine::snapshot::reader::Done;
use corral_proto::ServerId;
use rand::{Rng, SeedableRng};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// Why a server did not start: one line for the operator.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The directories cannot be used, or what is in them cannot be trusted.
    #[error(transparent)]
    Store(#[from] StorageError),
    /// The address cannot be used, or the system refuses something else.
    #[error("{0}")]
    System(String),
}

/// Opens the store, recovers, and starts the threads of a server. The banner comes with it.
///
/// # Errors
/// See [`StartError`].
pub fn start(config: Config) -> Result<(Server, String), StartError> {
    let mut store = Store::open(&config)?;
    let seed = rand::rngs::SmallRng::from_os_rng().random();
    let before = Instant::now();
    // Of a member that is a quorum by itself nobody else need have anything.
    let is_quorum = |members: &Members| members.ensemble.is_quorum(|id| id == ServerId(members.me.into()));
    let has_others = config.members.as_ref().is_some_and(|members| !is_quorum(members));
    let restored = match store.restore(seed, narrate()) {
        Err(StorageError::Corrupt { file, offset, why }) if has_others => {
            let what = format!("{} is damaged at offset {offset}: {why}", file.display());
            let damage = StorageError::Corrupt { file, offset, why };
            let aside = store.set_aside(damage, &config.data_dir)?;
            tracing::error!(
                "{what}. The log is set aside as {}, and this server does not vote until it has its history from a leader, which \
                 needs a quorum of the others; `corral-tool log` can look into what was set aside",
                aside.display()
            );
            store.restore(seed, narrate())?
        }
        other => other?,
    };
    let Restored { tree, recovered, snapshot, .. } = &restored;
    let from = snapshot
        .as_ref()
        .map_or("an empty tree".to_owned(), |(path, nodes)| format!("{nodes} nodes of {}", path.display()));
    let ms = before.elapsed().as_millis();
    tracing::info!("restored in {ms} ms: {from}, then {} transactions of the log", recovered.records);
    if let Some((file, offset)) = &recovered.torn {
        tracing::info!(
            "the log ends at offset {offset} of {}; what stands behind is a write that was cut off, or of an earlier use of the file",
            file.display()
        );
    }
    let described = Described::new(&config, &store);
    let size = TreeSize::new(tree, recovered);
    let members = config.members.as_ref();
    let epochs = members
        .map(|_| Epochs::open(corral_engine::disk::files::real(), &config.data_dir, recovered.last))
        .transpose()?;
    let facts = facts(&config);
    let server = Server::start(config.clone(), store, restored, epochs, facts, seed).map_err(StartError::System)?;
    let banner = banner::banner(&config, server.address(), &described, &size);
    Ok((server, banner))
}

/// How often the log says how far a restore has come.
const NARRATE_EVERY: Duration = Duration::from_secs(1);

/// Says which snapshot is read, and how far it has come when that takes long.
fn narrate() -> impl FnMut(Progress<'_>) {
    let mut said = Instant::now();
    move |progress| match progress {
        Progress::Snapshot(path, Done { bytes: 0, .. }) => tracing::info!("Reading snapshot {}", path.display()),
        _ if said.elapsed() < NARRATE_EVERY => {}
        progress => {
            said = Instant::now();
            match progress {
                Progress::Snapshot(_, Done { bytes, of, nodes }) => {
                    tracing::info!("read {} of {} MiB of the snapshot so far, {nodes} nodes", bytes >> 20, of >> 20);
                }
                Progress::Replayed(records) => tracing::info!("replayed {records} transactions of the log so far"),
            }
        }
    }
}

fn facts(config: &Config) -> ServerFacts {
    let unlimited = |limit: Option<u32>| limit.unwrap_or(0).to_string();
    let mode = |dir: &PathBuf| dir.display().to_string();
    let mut conf = vec![
        ("clientPort", config.client_port.to_string()),
        ("secureClientPort", "-1".to_owned()),
        ("dataDir", mode(&config.data_dir)),
        ("dataLogDir", mode(&config.log_dir)),
        ("tickTime", config.tick_ms.to_string()),
        ("maxClientCnxns", unlimited(config.max_client_cnxns)),
        ("minSessionTimeout", config.min_session_timeout_ms.to_string()),
        ("maxSessionTimeout", config.max_session_timeout_ms.to_string()),
        ("clientPortListenBacklog", config.client_backlog.map_or("-1".to_owned(), |backlog| backlog.to_string())),
        ("serverId", config.server_id.to_string()),
    ];
    if let Some(members) = &config.members {
        let me = &members.all[&members.me];
        conf.extend([
            ("initLimit", config.init_limit.to_string()),
            ("syncLimit", config.sync_limit.to_string()),
            ("electionAlg", "3".to_owned()),
            ("electionPort", me.election_port.to_string()),
            ("quorumPort", me.quorum_port.to_string()),
            ("peerType", u8::from(me.is_observer).to_string()),
        ]);
    }
    conf.extend([
        ("coreThreads", config.core_threads.to_string()),
        ("replica.ownCore", config.replica_own_core.to_string()),
        ("log.io", config.log.io.name().to_owned()),
        ("log.sync", config.log.sync.name().to_owned()),
        ("log.pipelineDepth", config.log.pipeline_depth.to_string()),
        ("log.groupCommitDelayUs", config.log.group_commit_delay_us.to_string()),
    ]);
    ServerFacts {
        conf,
        membership: config.members.as_ref().map(|members| members.text.clone()),
        tick: Duration::from_millis(config.tick_ms.into()),
        data_dir: config.data_dir.clone(),
        log_dir: config.log_dir.clone(),
        environment: environment(),
    }
}

/// What an embedded server is made with.
#[derive(Clone, Debug)]
pub struct EmbeddedOptions {
    /// Its data directory, also for its log.
    pub dir: PathBuf,
    /// `key=value` settings on top of: standalone, a free loopback port, all four-letter words.
    pub settings: Vec<String>,
}

/// A server in this process, stopped when dropped.
pub struct Embedded {
    server: Server,
}

impl Embedded {
    /// Starts one on a free loopback port.
    ///
    /// # Errors
    /// One line: a setting is wrong, or the server cannot start.
    pub fn start(options: &EmbeddedOptions) -> Result<Embedded, String> {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let dir = options.dir.display();
        let mut settings = vec![
            format!("dataDir={dir}"),
            "clientPortAddress=127.0.0.1".to_owned(),
            "clientPort=0".to_owned(),
            "maxClientCnxns=0".to_owned(),
            "4lw.commands.whitelist=*".to_owned(),
        ];
        settings.extend(options.settings.iter().cloned());
        let (config, _warnings) =
            config::load(None, &settings, &Defaults { cores }).map_err(|error| error.to_string())?;
        let (server, _banner) = start(config).map_err(|error| error.to_string())?;
        Ok(Embedded { server })
    }

    /// Where it serves clients.
    pub fn address(&self) -> SocketAddr {
        self.server.address()
    }

    /// Stops it and waits for that.
    ///
    /// # Errors
    /// The first thing that went wrong since the start.
    pub fn stop(self) -> Result<(), String> {
        self.server.stop()
    }
}
