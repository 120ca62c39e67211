//! How `core-0` carries out what the replica commands besides logging and applying: votes, links, epochs, and whole histories that
//! leave or arrive.
//!
//! **Invariants**: commands are carried out in their order; an epoch is on the disk before anything is sent that depends on it;
//! while the history on the disk is replaced, nothing else touches it.
//!
//! **Not here**: what is decided ([`crate::replica`]), sockets ([`super::links`], [`super::election`]).

#![expect(clippy::disallowed_methods, reason = "a thread is made for each history that is sent")]

use super::driver::Driver;
use super::election::{Election, Heard};
use super::links::{Came, Links, Piece};
use super::{LINKS, Shared, stretches};
use crate::config::Members;
use crate::replica::{Command, Now, Replica};
use crate::transfer::{self, Arrival, Departure};
use crate::zab::leadership::LinkId;
use crate::zab::message::Message;
use crate::zab::stretch::Stretch;
use bytes::Buf;
use corral_engine::disk::device::Device;
use corral_engine::epochs::Epochs;
use corral_engine::restore::restore;
use corral_engine::txnlog::{Recovered, recover_after};
use corral_engine::{adoption, truncation};
use corral_proto::Zxid;
use corral_proto::peer::{PacketKind, PeerState};
use crossbeam::channel::{Sender, bounded};
use mio::Registry;
use mio::net::TcpListener;
use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::{Arc, Weak};
use std::time::Duration;

/// Bytes of a piece of what another thread makes for a link, and pieces that wait for the socket.
pub(super) const PIECE: (usize, usize) = (256 << 10, 4);
/// Nodes that are looked at under one hold of the tree's lock.
const NODES: usize = 64;
/// A transaction may be larger than a request by what a session's end names.
const DATA_EXTRA: usize = 32 << 20;
/// Bytes that a follower's log may have to write before its leader is not listened to any more.
const BACKLOG_MAX: usize = 64 << 20;
/// How often the thread that sends a snapshot looks whether the tree has come far enough.
const WAIT: Duration = Duration::from_millis(2);

/// What a member of an ensemble needs to start.
#[derive(Debug)]
pub(super) struct Membership {
    pub(super) members: Members,
    pub(super) epochs: Epochs,
    /// The newest transactions of its log.
    pub(super) newest: Vec<(Zxid, Vec<u8>)>,
    pub(super) ports: Ports,
}

/// Where the other members reach this one.
#[derive(Debug)]
pub(super) struct Ports {
    election: TcpListener,
    quorum: SocketAddr,
}

impl Ports {
    /// Listens on the election port, and makes sure that the quorum port can be listened on.
    pub(super) fn open(members: &Members, on_all: bool) -> Result<Ports, String> {
        let own = &members.all[&members.me];
        let listen = |port: u16, what: &str| {
            let host = if on_all { "0.0.0.0" } else { own.host.as_str() };
            let refused = |error: std::io::Error| {
                format!(
                    "{host}:{port}: cannot listen there for the other members: {error}; it is the {what} port of server.{}",
                    members.me
                )
            };
            let address =
                (host, port).to_socket_addrs().map_err(refused)?.next().ok_or(format!("{host}: no address"))?;
            corral_net::listener::listen(address, false, -1).map(|listener| (listener, address)).map_err(refused)
        };
        let (election, _) = listen(own.election_port, "election")?;
        let (_, quorum) = listen(own.quorum_port, "quorum")?;
        Ok(Ports { election, quorum })
    }
}

/// The other members, as `core-0` has them.
pub(super) struct Peers {
    links: Links,
    election: Election,
    epochs: Epochs,
    quorum: SocketAddr,
    arrival: Option<(LinkId, Arrival)>,
    knocking: bool,
    piece_max: usize,
    seed: u64,
}

impl Peers {
    pub(super) fn start(
        shared: &Arc<Shared>,
        registry: &Registry,
        membership: Membership,
        seed: u64,
    ) -> Result<Peers, String> {
        let registry = registry.try_clone().map_err(|error| format!("cannot share a poll: {error}"))?;
        let piece_max = 2 * shared.config.frame_bytes_max as usize + DATA_EXTRA;
        let Membership { members, epochs, ports, .. } = membership;
        Ok(Peers {
            links: Links::new(registry, LINKS, piece_max),
            election: Election::start(shared, &members, ports.election)?,
            epochs,
            quorum: ports.quorum,
            arrival: None,
            knocking: false,
            piece_max,
            seed,
        })
    }

    /// The poll has something to say of a link, or of the listener.
    pub(super) fn event(&mut self, token: usize, readable: bool, half_closed: bool) {
        match token {
            LINKS => self.knocking = true,
            token => self.links.event(token, readable, half_closed),
        }
    }

    /// Whether there is something to do that no event will tell of; links are not read if the log `is_behind`.
    fn has_work(&self, is_behind: bool) -> bool {
        self.knocking || self.election.has_heard() || (self.links.has_dirty() && !is_behind)
    }

    /// Sends what there is to send over a link. Whatever the other side takes of it is a sign of life.
    fn flush(&mut self, replica: &mut Replica, now: Now, link: LinkId) {
        if self.links.flush(link) {
            replica.sent(now.uptime, link);
        }
    }

    /// Bytes of memory that wait to be sent to other members.
    pub(super) fn held(&self) -> usize {
        self.links.held()
    }
}

impl Driver {
    /// Takes what came from the other members.
    pub(super) fn hear_peers(&mut self, shared: &Arc<Shared>, now: Now) -> Result<(), String> {
        let Some(peers) = &mut self.peers else { return Ok(()) };
        peers.links.rung();
        while let Some(heard) = self.peers.as_ref().and_then(|peers| peers.election.next()) {
            match heard {
                Heard::Said(from, said) => self.replica.notified(now.uptime, from, &said),
                Heard::Dialed(leader, connection) => {
                    let links = &mut self.peers.as_mut().expect("just looked at").links;
                    let link = connection.and_then(|(stream, remote)| links.dialed(stream, remote).ok());
                    self.replica.dialed(now.uptime, leader, link);
                }
            }
            self.carry_out(shared, now)?;
        }
        let peers = self.peers.as_mut().expect("just looked at");
        if std::mem::take(&mut peers.knocking) {
            for link in peers.links.accept() {
                self.replica.accepted(now.uptime, link);
            }
        }
        if !self.is_behind() {
            for link in self.peers.as_mut().expect("just looked at").links.take_dirty() {
                self.hear_link(shared, now, link)?;
            }
        }
        self.replica.tick(now.uptime);
        self.carry_out(shared, now)
    }

    /// Whether the log has more to write than it should: then the leader is not listened to until it has written some of that. It
    /// will miss the acknowledgements, and go on without this member.
    fn is_behind(&self) -> bool {
        let follows = matches!(self.replica.state(), Some((PeerState::Following | PeerState::Observing, _)));
        follows && self.log.as_ref().expect(OPEN).group.bytes() > BACKLOG_MAX
    }

    /// Whether there is something to do for other members that no event will tell of.
    pub(super) fn has_peer_work(&self) -> bool {
        self.peers.as_ref().is_some_and(|peers| peers.has_work(self.is_behind()))
    }

    fn hear_link(&mut self, shared: &Arc<Shared>, now: Now, link: LinkId) -> Result<(), String> {
        let peers = self.peers.as_mut().expect("there are links");
        peers.flush(&mut self.replica, now, link);
        let is_unbegun = peers.links.is_unbegun(link);
        if peers.links.fill(link) {
            self.replica.progress(now.uptime, link);
        }
        if is_unbegun {
            self.replica.log_lacks(now.uptime, link);
            self.carry_out(shared, now)?;
        }
        loop {
            let peers = self.peers.as_mut().expect("there are links");
            let came = match &mut peers.arrival {
                Some((from, arrival)) if *from == link => match peers.links.raw(link) {
                    None => None,
                    Some(bytes) => match arrival.take(bytes) {
                        Ok(used) => {
                            bytes.advance(used);
                            if arrival.is_complete() {
                                self.arrived(shared, now)?;
                                continue;
                            }
                            peers.links.end(link)
                        }
                        Err(why) => {
                            peers.links.close(link);
                            Some(Came::End(format!("the snapshot that it sent is none: {why}")))
                        }
                    },
                },
                _ => peers.links.next(link),
            };
            match came {
                None => return Ok(()),
                Some(Came::Message(message)) => {
                    if message.kind == PacketKind::AckEpoch {
                        self.replica.log_reaches(self.reach());
                    }
                    {
                        let tree = shared.tree.read();
                        let log = self.log.as_mut().expect(OPEN);
                        self.replica.hear(&tree, &mut log.group, now, link, message);
                    }
                    self.carry_out(shared, now)?;
                }
                Some(Came::End(why)) => {
                    self.replica.lost(now.uptime, link, &why);
                    return self.carry_out(shared, now);
                }
                Some(Came::Unmade(why)) => {
                    self.replica.log_failed(now.uptime, link, &why);
                    return self.carry_out(shared, now);
                }
            }
        }
    }

    /// Carries out what the replica has commanded, and lets it go. The disk has its batch first, and works while this sends.
    pub(super) fn tell_peers(&mut self, shared: &Arc<Shared>, now: Now) -> Result<(), String> {
        self.carry_out(shared, now)?;
        let dirty = self.peers.as_mut().map(|peers| peers.links.take_dirty()).unwrap_or_default();
        if !dirty.is_empty()
            && let Device::Ring(ring) = self.disk()
        {
            ring.submit_queued();
        }
        let Some(peers) = &mut self.peers else { return Ok(()) };
        for link in dirty {
            peers.flush(&mut self.replica, now, link);
            peers.links.keep_dirty(link);
        }
        Ok(())
    }

    /// Carries out what the replica has commanded.
    fn carry_out(&mut self, shared: &Arc<Shared>, now: Now) -> Result<(), String> {
        loop {
            let commands = self.replica.take_commands();
            if commands.is_empty() {
                return Ok(());
            }
            for command in commands {
                self.obey(shared, now, command)?;
            }
        }
    }

    fn obey(&mut self, shared: &Arc<Shared>, now: Now, command: Command) -> Result<(), String> {
        let peers = self.peers.as_mut().expect("a server alone commands nothing");
        match command {
            Command::Send(link, message) => peers.links.send(link, message),
            Command::Notify(to, said) => peers.election.notify(to, said),
            Command::Dial(leader) => {
                if !peers.election.dial(leader) {
                    self.replica.dialed(now.uptime, leader, None);
                }
            }
            Command::Listen(open) => {
                let address = open.then_some(peers.quorum);
                let listened = peers.links.listen(address);
                listened.map_err(|error| format!("{}: cannot listen there for learners: {error}", peers.quorum))?;
            }
            Command::Drop(link, why) => {
                if let Some(remote) = peers.links.remote(link) {
                    tracing::info!("closing the link to {remote}: {why}");
                    peers.links.close(link);
                }
                peers.arrival.take_if(|(from, _)| *from == link);
            }
            Command::Promise(epoch) => peers.epochs.promise(epoch).map_err(|error| error.to_string())?,
            Command::TakeOver(epoch) => peers.epochs.take_over(epoch).map_err(|error| error.to_string())?,
            Command::Snapshot(link, zxid) => self.send_snapshot(shared, now, link, zxid)?,
            Command::FromLog(link, stretch) => self.send_stretch(shared, link, stretch)?,
            Command::Load(link, zxid) => {
                tracing::info!("taking a snapshot of {zxid} from the leader");
                peers.arrival = Some((link, Arrival::new(zxid, peers.piece_max, peers.seed)));
            }
            Command::Truncate(upto) => self.truncate(shared, upto)?,
            Command::Serve => {
                self.replica.serve(&mut shared.tree.write(), now.uptime);
                let standing = self.replica.standing();
                tracing::info!("serving in epoch {}, from {}", standing.current, standing.last);
            }
        }
        Ok(())
    }

    fn send_snapshot(&mut self, shared: &Arc<Shared>, now: Now, link: LinkId, zxid: Zxid) -> Result<(), String> {
        if self.replica.state().is_none() {
            // Nobody is served yet, so nobody has to be told of what is applied.
            self.replica.catch_up(&mut shared.tree.write(), zxid, now.uptime);
        }
        let peers = self.peers.as_mut().expect("there are links");
        peers.links.send(link, Message::about(PacketKind::Snap, zxid));
        let theirs = shared.clone();
        self.stream(link, move |pieces, wanted| send_tree(&theirs, zxid, pieces, wanted))
    }

    fn send_stretch(&mut self, shared: &Arc<Shared>, link: LinkId, stretch: Stretch) -> Result<(), String> {
        let (theirs, dir) = (shared.clone(), self.store.log_dir.clone());
        self.stream(link, move |pieces, _| stretches::send(&theirs, &dir, stretch, pieces))
    }

    /// Has a thread of its own make what is sent next over a link.
    fn stream(
        &mut self,
        link: LinkId,
        make: impl FnOnce(&Sender<Piece>, &Weak<()>) + Send + 'static,
    ) -> Result<(), String> {
        let (pieces, stream) = bounded(PIECE.1);
        let wanted = Arc::new(());
        let is_wanted = Arc::downgrade(&wanted);
        self.peers.as_mut().expect("there are links").links.stream(link, stream, wanted);
        let spawned = std::thread::Builder::new().name("transfer".to_owned()).spawn(move || make(&pieces, &is_wanted));
        spawned.map(drop).map_err(|error| format!("cannot start the thread that sends a history: {error}"))
    }

    /// The log is cut back, and the tree is what remains.
    fn truncate(&mut self, shared: &Arc<Shared>, upto: Zxid) -> Result<(), String> {
        self.snapshots.interrupt();
        self.log = None;
        let said = |error: corral_engine::StorageError| error.to_string();
        let cut = truncation::truncate(&self.store.snapshot_dir, &self.log_options, upto).map_err(said)?;
        tracing::info!("cut the history back to {upto}, as the leader wants: {} transactions are gone", cut.records);
        let seed = self.peers.as_ref().expect("there is a leader").seed;
        let restored = restore(&self.store.snapshot_dir, &self.store.log_dir, seed, |_| ()).map_err(said)?;
        let end = restored.recovered.last;
        if end != upto && end != cut.base {
            return Err(format!(
                "{}: the leader wants the history cut back to {upto}, but it ends with {end} then; move the data away \
                 and start again, and it will be sent anew",
                self.store.log_dir.display()
            ));
        }
        *shared.tree.write() = restored.tree;
        self.open_log(shared, &restored.recovered)?;
        self.replica.truncated(end);
        Ok(())
    }

    /// A snapshot has arrived as a whole: it is the history from now on.
    fn arrived(&mut self, shared: &Arc<Shared>, now: Now) -> Result<(), String> {
        let (_, arrival) = self.peers.as_mut().and_then(|peers| peers.arrival.take()).expect("it has arrived");
        self.snapshots.interrupt();
        self.log = None;
        let tree = arrival.finish();
        let zxid = tree.last_applied();
        tracing::info!("the snapshot of {zxid} has arrived: {} nodes", tree.len());
        let said = |error: corral_engine::StorageError| error.to_string();
        if !transfer::knows(&tree, &shared.tree.read()) {
            let last = self.replica.standing().last;
            let epochs = &mut self.peers.as_mut().expect("there is a leader").epochs;
            let aside = self.store.give_up(epochs).map_err(said)?;
            tracing::error!(
                "the leader knows nothing of the history here, which ends with {last}: it is another ensemble's, or the others have lost \
                 it. It is replaced, and kept as {}; `corral-tool log` can look into it",
                aside.display()
            );
        }
        *shared.tree.write() = tree;
        adoption::adopt(&self.snapshots.options(), &self.store.log_dir, &shared.tree, now.wall_ms).map_err(said)?;
        let recovered = recover_after(&self.store.log_dir, zxid, |_| ()).map_err(said)?;
        self.open_log(shared, &recovered)?;
        self.replica.loaded();
        Ok(())
    }

    fn open_log(&mut self, shared: &Arc<Shared>, recovered: &Recovered) -> Result<(), String> {
        self.log = Some(super::driver::open_log(shared, &self.log_options, recovered)?);
        self.snapshots.look().map_err(|error| error.to_string())?;
        self.restart_counting();
        Ok(())
    }
}

pub(super) const OPEN: &str = "the log is open, except while it is replaced";

/// Sends the tree as it is at `zxid` or a little later, until it is sent or nobody wants it any more.
fn send_tree(shared: &Shared, zxid: Zxid, pieces: &Sender<Piece>, wanted: &Weak<()>) {
    while shared.tree.read().last_applied() < zxid {
        if shared.stopping() || wanted.strong_count() == 0 {
            return;
        }
        std::thread::sleep(WAIT);
    }
    let mut piece = Vec::with_capacity(2 * PIECE.0);
    let mut departure = Departure::new(&shared.tree.read(), zxid, &mut piece);
    let mut more = true;
    while more {
        while more && piece.len() < PIECE.0 {
            more = departure.step(&shared.tree.read(), NODES, PIECE.0, &mut piece);
        }
        if shared.stopping() || pieces.send(Piece::Bytes(std::mem::take(&mut piece).into())).is_err() {
            return;
        }
        shared.lines[0].bell.ring();
    }
    let _ = pieces.send(Piece::End);
    shared.lines[0].bell.ring();
}
