//! The threads of one server: which there are, what they share, how they start and end.
//!
//! Each core has a thread that waits for its machine's events and lets it take its turns (`core`); `core-0`'s has the member of the
//! ensemble and the log as well, the others serve clients only. What a turn does is pure and lives in [`crate::machine`]; here is what
//! waits, reads, writes and carries out.
//!
//! **Invariant**: the first thread that fails stops the server.

#![expect(clippy::disallowed_methods, reason = "this is where the clock is read")]

pub mod banner;
pub mod embedded;
pub mod store;

mod conns;
mod core;
mod election;
mod outside;
mod placement;
mod ports;
mod refusals;
mod resolver;
mod snapshots;
mod sockets;
mod transfers;

use crate::admin::report::{CoreReport, ServerFacts, ServerReport};
use crate::config::Config;
use crate::machine::{Crossing, Host, Machine};
use crate::process::store::Store;
use crate::replica::Now;
use core::Core;
use corral_engine::disk::device::Device;
use corral_engine::epochs::Epochs;
use corral_engine::restore::Restored;
use corral_net::Doorbell;
use crossbeam::channel::{Receiver, bounded};
use crossbeam::queue::ArrayQueue;
use mio::net::{TcpListener, TcpStream};
use mio::{Poll, Token};
use outside::{Begin, Membership};
use parking_lot::Mutex;
use ports::Ports;
use rustix::process::{Resource, getrlimit};
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

/// Connections that may be on their way to another core.
const HANDED_OVER: usize = 256;
/// Descriptors that clients do not get: segments, snapshots, epochs and links to other members need some at any time, and a log
/// that cannot make its next segment makes every write wait. Of a low limit it is half.
const KEPT_DESCRIPTORS: u64 = 128;

const BELL: Token = Token(usize::MAX);
const LISTENER: Token = Token(usize::MAX - 1);
/// From here on tokens are those of links to other members; below they are clients'.
const LINKS: usize = 1 << 40;

/// The machine of a core, with a device and sockets.
type CoreMachine = Machine<Device, TcpStream>;

/// What all threads of a server see.
struct Shared {
    config: Config,
    started: Instant,
    crossing: Arc<Crossing>,
    /// One a core.
    lines: Vec<Line>,
    clients: Mutex<BTreeMap<IpAddr, usize>>,
    /// Connections that are taken at most, and what sets that bound.
    conns_max: (u64, &'static str),
    stopping: AtomicBool,
    /// Why a thread that is not a core's had to stop the server.
    failure: Mutex<Option<String>>,
    /// Cores besides `core-0` that have nothing left to do.
    finished: AtomicUsize,
    /// Goes up each time that somebody wants reports.
    reports_wanted: AtomicU64,
    /// The last of these times that something else was wanted besides ([`Extra`]).
    extras_wanted: Mutex<[u64; 3]>,
    facts: ServerFacts,
}

/// The way to one core.
struct Line {
    bell: Arc<Doorbell>,
    handed_over: ArrayQueue<(TcpStream, SocketAddr)>,
    /// Connections that live there.
    conns: AtomicUsize,
    /// Its newest report, and what [`Shared::reports_wanted`] was then.
    report: Mutex<(u64, CoreReport)>,
}

/// The clock and the bells, for the machines.
struct Bells {
    started: Instant,
    bells: Vec<Arc<Doorbell>>,
}

impl Host for Bells {
    fn uptime(&self) -> Duration {
        self.started.elapsed()
    }

    fn ring(&self, core: usize) {
        self.bells[core].ring();
    }
}

impl Shared {
    fn now(&self) -> Now {
        let wall = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        Now { uptime: self.uptime(), wall_ms: wall.as_millis() as i64 }
    }

    /// Since the start, for what is measured.
    fn uptime(&self) -> Duration {
        self.started.elapsed()
    }

    fn stopping(&self) -> bool {
        self.stopping.load(Ordering::Relaxed)
    }

    fn stop(&self) {
        self.stopping.store(true, Ordering::SeqCst);
        self.ring_all();
    }

    /// A thread other than a core's cannot go on.
    fn fail(&self, why: String) {
        self.failure.lock().get_or_insert(why);
        self.stop();
    }

    fn ring_all(&self) {
        self.crossing.ring_all();
    }

    /// Whether no more connections may be taken.
    fn is_full(&self) -> bool {
        let taken = |line: &Line| line.conns.load(Ordering::Relaxed) + line.handed_over.len();
        self.lines.iter().map(taken).sum::<usize>() as u64 >= self.conns_max.0
    }

    /// Somebody wants reports, and something else with them. Returns their number.
    fn want_reports(&self, extra: Option<Extra>) -> u64 {
        let mut extras = self.extras_wanted.lock();
        let wanted = self.reports_wanted.load(Ordering::SeqCst) + 1;
        extra.into_iter().for_each(|extra| extras[extra as usize] = wanted);
        self.reports_wanted.store(wanted, Ordering::SeqCst);
        wanted
    }

    /// When this was wanted last, in numbers of reports.
    fn last_wanted(&self, extra: Extra) -> u64 {
        self.extras_wanted.lock()[extra as usize]
    }

    /// Whether all cores have reported since [`Shared::reports_wanted`] was `wanted`.
    fn reported(&self, wanted: u64) -> bool {
        self.lines.iter().all(|line| line.report.lock().0 >= wanted)
    }

    /// The newest reports of all cores.
    fn report(&self) -> ServerReport {
        let cores = self.lines.iter().map(|line| line.report.lock().1.clone()).collect();
        let open = std::fs::read_dir("/proc/self/fd").map_or(0, |entries| entries.count() as u64);
        let Now { uptime, wall_ms } = self.now();
        ServerReport { cores, uptime_ms: uptime.as_millis() as u64, wall_ms, descriptors: (open, descriptors_max()) }
    }
}

fn descriptors_max() -> u64 {
    getrlimit(Resource::Nofile).current.unwrap_or(i64::MAX as u64)
}

/// What may be wanted with reports.
#[derive(Clone, Copy)]
enum Extra {
    /// Lists: what is watched, sessions, digests.
    Lists,
    /// That what is counted of each connection begins anew.
    ResetConnections,
    /// That what is counted of all requests does.
    ResetCounters,
}

/// See [`Shared::conns_max`].
fn conns_max(config: &Config) -> (u64, &'static str) {
    let descriptors = descriptors_max();
    let by_descriptors = (descriptors - KEPT_DESCRIPTORS.min(descriptors / 2), "the limit of open files");
    let configured = config.max_cnxns.map(|max| (max.into(), "maxCnxns"));
    configured.into_iter().fold(by_descriptors, Ord::min)
}

/// A running server.
pub struct Server {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
    ended: Receiver<Result<(), String>>,
    address: SocketAddr,
}

impl Server {
    /// Starts the threads of a server whose store was opened and restored; a member of an ensemble has epochs.
    ///
    /// # Errors
    /// One line for the operator: the address cannot be bound, or the system refuses a thread, a poll or a ring.
    pub fn start(
        config: Config,
        store: Store,
        restored: Restored,
        epochs: Option<Epochs>,
        facts: ServerFacts,
        seed: u64,
    ) -> Result<Server, String> {
        let Restored { tree, recovered, newest, .. } = restored;
        let membership = match (&config.members, epochs) {
            (Some(members), Some(epochs)) => {
                let ports = Ports::open(members, config.quorum_listen_on_all)?;
                Some(Membership { members: members.clone(), epochs, newest, ports })
            }
            _ => None,
        };
        let cores = config.core_threads;
        let listening = usize::from(config.replica_own_core);
        let (address, listeners) = listen(&config, cores - listening)?;
        let mut polls = Vec::new();
        let mut lines = Vec::new();
        for _ in 0..cores {
            let poll = Poll::new().map_err(|error| format!("cannot make a poll: {error}"))?;
            let bell = Doorbell::new(poll.registry(), BELL).map_err(|error| format!("cannot make a waker: {error}"))?;
            lines.push(Line {
                bell: Arc::new(bell),
                handed_over: ArrayQueue::new(HANDED_OVER),
                conns: AtomicUsize::new(0),
                report: Mutex::default(),
            });
            polls.push(poll);
        }
        let bells = Bells { started: Instant::now(), bells: lines.iter().map(|line| line.bell.clone()).collect() };
        let shared = Arc::new(Shared {
            conns_max: conns_max(&config),
            config,
            started: bells.started,
            crossing: Arc::new(Crossing::new(Box::new(bells), tree, cores)),
            lines,
            clients: Mutex::default(),
            stopping: AtomicBool::new(false),
            failure: Mutex::default(),
            finished: AtomicUsize::new(0),
            reports_wanted: AtomicU64::new(0),
            extras_wanted: Mutex::default(),
            facts,
        });
        let (result, ended) = bounded(cores);
        let mut server = Server { shared, threads: Vec::new(), ended, address };
        let mut begin = Some(Begin { store, recovered, membership });
        let mut listeners: Vec<Option<TcpListener>> = listeners.into_iter().map(Some).collect();
        for _ in 0..listening {
            listeners.insert(0, None);
        }
        let (ready, started) = bounded(cores);
        for (index, (poll, listener)) in polls.into_iter().zip(listeners).enumerate() {
            let (shared, result, ready) = (server.shared.clone(), result.clone(), ready.clone());
            let begin = begin.take();
            let body = move || {
                let made = Core::new(index, shared.clone(), poll, listener, begin, seed);
                let outcome = match made {
                    Ok(mut core) => {
                        let _ = ready.send(Ok(()));
                        drop(ready);
                        core.run()
                    }
                    Err(error) => {
                        let _ = ready.send(Err(error.clone()));
                        Err(error)
                    }
                };
                if outcome.is_err() {
                    shared.stop();
                }
                let _ = result.send(outcome);
            };
            let thread = std::thread::Builder::new().name(format!("core-{index}")).spawn(body);
            server.threads.push(thread.map_err(|error| format!("cannot start thread core-{index}: {error}"))?);
        }
        for _ in 0..cores {
            if let Err(error) = started.recv().expect("every core says how it started") {
                let _ = server.stop();
                return Err(error);
            }
        }
        Ok(server)
    }

    /// Where clients are served.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Says something if a thread has ended, which none does by itself unless it failed.
    pub fn ended(&self) -> &Receiver<Result<(), String>> {
        &self.ended
    }

    /// Accepts nobody any more, finishes what is in flight, closes all connections, and waits for that.
    ///
    /// # Errors
    /// The first thing that went wrong since the start.
    pub fn stop(mut self) -> Result<(), String> {
        self.shared.stop();
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                return Err("a thread panicked; see above".to_owned());
            }
        }
        self.ended.try_iter().collect()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.shared.stop();
        self.threads.drain(..).for_each(|thread| drop(thread.join()));
    }
}

/// Sockets that listen on the client address, `count` of them.
fn listen(config: &Config, count: usize) -> Result<(SocketAddr, Vec<TcpListener>), String> {
    let host = config.client_address.as_deref().unwrap_or("0.0.0.0");
    let port = config.client_port;
    let refused = |error: std::io::Error| match error.kind() {
        std::io::ErrorKind::AddrInUse => {
            format!("{host}:{port}: the address is in use by another process; stop it or choose another clientPort")
        }
        _ => format!("{host}:{port}: cannot listen there: {error}"),
    };
    let mut address = (host, port).to_socket_addrs().map_err(refused)?.next().ok_or(format!("{host}: no address"))?;
    let backlog = config.client_backlog.map_or(-1, |backlog| backlog as i32);
    // Sharing the address among this server's own cores also shares it with any other server that asks for it: make sure first
    // that there is none, by asking for it alone.
    address =
        corral_net::listener::listen(address, false, backlog).and_then(|alone| alone.local_addr()).map_err(refused)?;
    let listeners = (0..count).map(|_| corral_net::listener::listen(address, true, backlog)).collect::<Result<_, _>>();
    Ok((address, listeners.map_err(refused)?))
}
