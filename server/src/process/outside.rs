//! What a core's machine needs done, with sockets, a device and threads: [`Around`] is for every core, [`Own`] is what only `core-0`
//! has.
//!
//! **Not here**: when it is done ([`crate::machine`]).

use super::conns::Conns;
use super::election::Election;
use super::ports::Ports;
use super::snapshots::Snapshots;
use super::{LINKS, Shared, transfers};
use crate::budget::Bounds;
use crate::clients::worker::Worker;
use crate::config::{Config, Members};
use crate::consensus::Ensemble;
use crate::consensus::election::Patience;
use crate::consensus::history::History;
use crate::consensus::leadership::LinkId;
use crate::consensus::message::Standing;
use crate::consensus::stretch::Stretch;
use crate::machine::{Ended, Heard, Member, MemberOptions, Outside, Piece};
use crate::process::store::Store;
use crate::replica::{Now, Replica, ReplicaOptions};
use crate::requests::session;
use corral_engine::StorageError;
use corral_engine::disk::device::Device;
use corral_engine::epochs::Epochs;
use corral_engine::snapshot::writer::SnapshotOptions;
use corral_engine::txnlog::{Log, LogOptions, Recovered};
use corral_proto::peer::Notification;
use corral_proto::{ServerId, Zxid};
use crossbeam::channel::Sender;
use mio::net::{TcpListener, TcpStream};
use mio::{Interest, Registry, Token};
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};
use std::time::Duration;

/// A transaction may be larger than a request by what a session's end names.
const DATA_EXTRA: usize = 32 << 20;

/// What `core-0` begins with.
pub(super) struct Begin {
    pub(super) store: Store,
    pub(super) recovered: Recovered,
    /// Unless the server is alone.
    pub(super) membership: Option<Membership>,
}

/// What a member of an ensemble needs to start.
pub(super) struct Membership {
    pub(super) members: Members,
    pub(super) epochs: Epochs,
    /// The newest transactions of its log.
    pub(super) newest: Vec<(Zxid, Vec<u8>)>,
    pub(super) ports: Ports,
}

/// For every core.
pub(super) struct Around {
    pub(super) shared: Arc<Shared>,
    pub(super) conns: Conns,
    pub(super) own: Option<Own>,
}

/// For `core-0`.
pub(super) struct Own {
    pub(super) store: Store,
    snapshots: Snapshots,
    doors: Option<Doors>,
}

/// Where other members come in and are reached.
struct Doors {
    registry: Registry,
    election: Election,
    quorum: SocketAddr,
    listener: Option<TcpListener>,
}

impl Own {
    /// Opens the log, makes the member, and starts the threads that are its own.
    pub(super) fn begin(
        shared: &Arc<Shared>,
        registry: Registry,
        begin: Begin,
        seed: u64,
    ) -> Result<(Member<Device, TcpStream>, Own), String> {
        let Begin { store, recovered, membership } = begin;
        let config = &shared.config;
        let options = member_options(config, &store, seed);
        let snapshots = Snapshots::start(shared, options.snapshots.clone(), store.damaged_snapshots.clone())?;
        let log = open_log(shared, &options.log, &recovered)?;
        let now = shared.now();
        let mut history = History::new();
        let mut standing = Standing { accepted: 0, current: 0, last: recovered.last };
        let mut is_lost = false;
        if let Some(Membership { epochs, newest, .. }) = &membership {
            newest.iter().for_each(|(zxid, record)| history.push(*zxid, record));
            (standing.accepted, standing.current) = (epochs.accepted(), epochs.current());
            is_lost = epochs.is_lost();
        }
        let replica = replica_options(config, is_lost, now, seed, shared.lines.len());
        let replica = Replica::new(replica, standing, history, &mut shared.crossing.tree.write(), now.uptime);
        let (epochs, doors) = match membership {
            Some(Membership { members, epochs, ports: Ports { election, quorum }, .. }) => {
                let election = Election::start(shared, &members, election)?;
                let doors = Doors { registry, election, quorum, listener: None };
                (Some(epochs), Some(doors))
            }
            None => (None, None),
        };
        let member = Member::new(shared.crossing.clone(), options, replica, log, epochs)?;
        Ok((member, Own { store, snapshots, doors }))
    }

    fn doors(&mut self) -> &mut Doors {
        self.doors.as_mut().expect("a server alone knows nobody")
    }
}

fn member_options(config: &Config, store: &Store, seed: u64) -> MemberOptions {
    let (dir, log) = (store.snapshot_dir.clone(), config.log);
    let snapshots = config.snapshots;
    MemberOptions {
        tick: Duration::from_millis(config.tick_ms.into()),
        log: LogOptions {
            files: corral_engine::disk::files::real(),
            dir: store.log_dir.clone(),
            mode: store.mode.clone(),
            segment_bytes: store.segment_bytes,
            pipeline_depth: log.pipeline_depth as usize,
            group_commit_delay: Duration::from_micros(log.group_commit_delay_us.into()),
        },
        snapshots: SnapshotOptions {
            files: corral_engine::disk::files::real(),
            dir,
            compression: snapshots.compression,
            rate_limit: snapshots.rate_limit,
        },
        snapshot_after: (snapshots.count, store.snapshot_after_bytes),
        snapshot_size_factor: config.snapshot_size_factor,
        slow_sync: Duration::from_millis(log.slow_sync_ms),
        piece_max: 2 * config.frame_bytes_max as usize + DATA_EXTRA,
        bounds: Bounds::PRODUCTION,
        seed,
    }
}

fn replica_options(config: &Config, is_lost: bool, now: Now, seed: u64, cores: usize) -> ReplicaOptions {
    let me = ServerId(config.server_id.into());
    let ensemble = config.members.as_ref().map(|members| members.ensemble.clone());
    ReplicaOptions {
        me,
        ensemble: ensemble.unwrap_or_else(|| Arc::new(Ensemble::of_equals([me]))),
        tick: Duration::from_millis(config.tick_ms.into()),
        init_limit: config.init_limit,
        sync_limit: config.sync_limit,
        patience: Patience::default(),
        leader_serves: config.leader_serves,
        is_lost,
        epoch_max: u32::MAX,
        first_session: session::first_id(config.server_id.max(1), now.wall_ms),
        seed,
        members: config.members.as_ref().map(|members| members.text.as_str().into()),
        access: config.access.clone(),
        rules: config.rules,
        reaping: config.reaping,
        cores,
    }
}

fn open_log(shared: &Arc<Shared>, options: &LogOptions, recovered: &Recovered) -> Result<Log<Device>, String> {
    let device = Device::open(&options.mode).map_err(|error| format!("cannot open the log's device: {error}"))?;
    let waker = shared.clone();
    let wake = Arc::new(move || waker.lines[0].bell.ring());
    Log::open(options, device, recovered, wake).map_err(|error| error.to_string())
}

impl Around {
    fn own(&mut self) -> &mut Own {
        self.own.as_mut().expect("only core-0 has a member")
    }

    fn log_dir(&self) -> &Path {
        &self.own.as_ref().expect("only core-0 has a member").store.log_dir
    }
}

impl Outside<Device, TcpStream> for Around {
    fn now(&self) -> Now {
        self.shared.now()
    }

    fn flush(&mut self, worker: &mut Worker, now: Now) {
        self.conns.flush_all(worker, now);
    }

    fn heard(&mut self) -> Option<Heard<TcpStream>> {
        self.own().doors().election.next()
    }

    fn has_heard(&self) -> bool {
        let doors = self.own.as_ref().and_then(|own| own.doors.as_ref());
        doors.is_some_and(|doors| doors.election.has_heard())
    }

    fn notify(&mut self, to: ServerId, said: Notification<'static>) {
        self.own().doors().election.notify(to, said);
    }

    fn dial(&mut self, leader: ServerId) -> bool {
        self.own().doors().election.dial(leader)
    }

    fn listen(&mut self, open: bool) -> Result<(), String> {
        let doors = self.own().doors();
        doors.listener = None;
        if open {
            let listening = corral_net::listener::listen(doors.quorum, false, -1).and_then(|mut listener| {
                doors.registry.register(&mut listener, Token(LINKS), Interest::READABLE).map(|()| listener)
            });
            let refused = |error| format!("{}: cannot listen there for learners: {error}", doors.quorum);
            doors.listener = Some(listening.map_err(refused)?);
        }
        Ok(())
    }

    fn accept(&mut self) -> Option<(TcpStream, SocketAddr)> {
        loop {
            match self.own().doors().listener.as_ref()?.accept() {
                Ok((stream, remote)) => {
                    let _ = stream.set_nodelay(true);
                    return Some((stream, remote));
                }
                Err(error) if matches!(error.kind(), ErrorKind::Interrupted | ErrorKind::ConnectionAborted) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return None,
                Err(error) => {
                    tracing::warn!("cannot accept a learner: {error}");
                    return None;
                }
            }
        }
    }

    fn watch(&mut self, stream: &mut TcpStream, link: LinkId) -> io::Result<()> {
        let token = Token(LINKS + link.0 as usize);
        self.own().doors().registry.register(stream, token, Interest::READABLE | Interest::WRITABLE)
    }

    fn send_tree(&mut self, _: LinkId, zxid: Zxid, pieces: Sender<Piece>, wanted: Weak<()>) -> Result<(), String> {
        let shared = self.shared.clone();
        transfers::spawn(move || transfers::send_tree(&shared, zxid, &pieces, &wanted))
    }

    fn send_log(&mut self, stretch: Stretch, pieces: Sender<Piece>, _: Weak<()>) -> Result<(), String> {
        let (shared, dir) = (self.shared.clone(), self.log_dir().to_owned());
        transfers::spawn(move || transfers::send_log(&shared, &dir, stretch, &pieces))
    }

    fn open_log(&mut self, options: &LogOptions, recovered: &Recovered) -> Result<Log<Device>, String> {
        open_log(&self.shared, options, recovered)
    }

    fn snapshot(&mut self, wall_ms: i64) -> bool {
        self.own().snapshots.ask(wall_ms)
    }

    fn snapshot_ended(&mut self) -> Option<Ended> {
        self.own().snapshots.ended()
    }

    fn stand_still(&mut self) {
        self.own().snapshots.interrupt();
    }

    fn give_up(&mut self, epochs: &mut Epochs) -> Result<PathBuf, StorageError> {
        self.own().store.give_up(epochs)
    }

    fn keep_copy(&mut self) -> Result<PathBuf, StorageError> {
        self.own().store.keep_copy()
    }
}
