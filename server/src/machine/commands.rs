//! How a member hears the others and carries out what the replica commands besides logging and applying: votes, links, epochs, and
//! whole histories that leave or arrive.
//!
//! **Invariants**: commands are carried out in their order; an epoch is on the disk before anything is sent that depends on it;
//! while the history on the disk is replaced, nothing else touches it.
//!
//! **Not here**: what is decided ([`crate::replica`]), what a link queues ([`super::links`]), sockets and threads ([`Outside`]).

use super::links::{Came, LINKS_MAX};
use super::member::Member;
use super::peers::Peers;
use super::{Heard, Outside, Piece, Seen};
use crate::consensus::leadership::LinkId;
use crate::consensus::message::Message;
use crate::consensus::transfer::{self, Arrival};
use crate::mutation::{self, Mutation};
use crate::replica::{Command, Now};
use bytes::Buf;
use corral_engine::disk::Disk;
use corral_engine::restore::restore;
use corral_engine::txnlog::{Recovered, recover_after};
use corral_engine::{StorageError, adoption, snapshot, truncation};
use corral_proto::Zxid;
use corral_proto::peer::{PacketKind, PeerState};
use crossbeam::channel::{Sender, bounded};
use std::io::{Read, Write};
use std::sync::{Arc, Weak};

/// Pieces of what is made for a link that may wait for it.
const PIECES: usize = 4;

/// For the operator.
fn said(error: StorageError) -> String {
    error.to_string()
}

impl<D: Disk, S: Read + Write> Member<D, S> {
    pub(super) fn link_event(&mut self, link: LinkId, readable: bool, half_closed: bool) {
        if let Some(peers) = &mut self.peers {
            peers.links.event(link, readable, half_closed);
        }
    }

    pub(super) fn knock(&mut self) {
        self.peers.iter_mut().for_each(|peers| peers.is_knocked = true);
    }

    /// Takes what came from the other members.
    pub(super) fn hear(&mut self, now: Now, outside: &mut dyn Outside<D, S>) -> Result<(), String> {
        let Some(peers) = &mut self.peers else { return Ok(()) };
        peers.links.rung();
        while let Some(heard) = outside.heard() {
            match heard {
                Heard::Vote(from, said) => self.replica.notified(now.uptime, from, &said),
                Heard::Dialed(leader, connection) => {
                    let links = &mut self.peers().links;
                    let mut watch = |stream: &mut S, link| outside.watch(stream, link);
                    let link = connection.and_then(|(stream, remote)| links.dialed(stream, remote, &mut watch).ok());
                    self.replica.dialed(now.uptime, leader, link);
                }
            }
            self.carry_out(now, outside)?;
        }
        if std::mem::take(&mut self.peers().is_knocked) {
            self.accept(now, outside);
        }
        if !self.is_behind() {
            for link in self.peers().links.take_dirty() {
                self.hear_link(now, link, outside)?;
            }
        }
        self.replica.tick(now.uptime);
        self.carry_out(now, outside)
    }

    fn accept(&mut self, now: Now, outside: &mut dyn Outside<D, S>) {
        while let Some((stream, remote)) = outside.accept() {
            let links = &mut self.peers().links;
            if links.len() >= LINKS_MAX {
                tracing::warn!("{remote} is not taken as a learner: {LINKS_MAX} are connected");
                continue;
            }
            if let Ok(link) = links.accepted(stream, remote, &mut |stream, link| outside.watch(stream, link)) {
                self.replica.accepted(now.uptime, link);
            }
        }
    }

    fn peers(&mut self) -> &mut Peers<S> {
        self.peers.as_mut().expect("a server alone hears and commands nothing")
    }

    /// Whether the log has more to write than it should: then the leader is not listened to until it has written some of that. It
    /// will miss the acknowledgements, and go on without this member.
    fn is_behind(&self) -> bool {
        let follows = matches!(self.replica.state(), Some((PeerState::Following | PeerState::Observing, _)));
        follows && self.backlog().is_exceeded()
    }

    /// Whether there is something to do for other members that no event will tell of.
    pub(super) fn has_peer_work(&self, outside: &dyn Outside<D, S>) -> bool {
        self.peers.as_ref().is_some_and(|peers| {
            peers.is_knocked || outside.has_heard() || (peers.links.has_dirty() && !self.is_behind())
        })
    }

    fn hear_link(&mut self, now: Now, link: LinkId, outside: &mut dyn Outside<D, S>) -> Result<(), String> {
        let peers = self.peers.as_mut().expect("there are links");
        peers.flush(&mut self.replica, now, link);
        let is_unbegun = peers.links.is_unbegun(link);
        if peers.links.fill(link) {
            self.replica.progress(now.uptime, link);
        }
        if is_unbegun {
            self.replica.log_lacks(now.uptime, link);
            self.carry_out(now, outside)?;
        }
        loop {
            let peers = self.peers();
            let came = match &mut peers.arrival {
                Some((from, arrival)) if *from == link => match peers.links.raw(link) {
                    None => None,
                    Some(bytes) => match arrival.take(bytes) {
                        Ok(used) => {
                            bytes.advance(used);
                            if arrival.is_complete() {
                                self.arrived(now, outside)?;
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
                    let crossing = self.crossing.clone();
                    let direct = self.direct(now);
                    direct.replica.hear(&crossing.tree.read(), direct.log, now, link, message);
                    self.carry_out(now, outside)?;
                }
                Some(Came::End(why)) => {
                    self.replica.lost(now.uptime, link, &why);
                    return self.carry_out(now, outside);
                }
                Some(Came::Unmade(why)) => {
                    self.replica.log_failed(now.uptime, link, &why);
                    return self.carry_out(now, outside);
                }
            }
        }
    }

    /// Carries out what the replica has commanded, and lets it go. The disk has its batch first, and works while this sends.
    pub(super) fn send(&mut self, now: Now, outside: &mut dyn Outside<D, S>) -> Result<(), String> {
        self.carry_out(now, outside)?;
        let dirty = self.peers.as_mut().map(|peers| peers.links.take_dirty()).unwrap_or_default();
        if !dirty.is_empty() {
            self.push_writes();
        }
        let Some(peers) = &mut self.peers else { return Ok(()) };
        for link in dirty {
            peers.flush(&mut self.replica, now, link);
            peers.links.keep_dirty(link);
        }
        Ok(())
    }

    fn carry_out(&mut self, now: Now, outside: &mut dyn Outside<D, S>) -> Result<(), String> {
        loop {
            let commands = self.replica.take_commands();
            if commands.is_empty() {
                return Ok(());
            }
            for command in commands {
                self.obey(now, command, outside)?;
            }
        }
    }

    fn obey(&mut self, now: Now, command: Command, outside: &mut dyn Outside<D, S>) -> Result<(), String> {
        match command {
            Command::Send(link, message) => self.peers().links.send(link, message),
            Command::Notify(to, said) => outside.notify(to, said),
            Command::Dial(leader) => {
                if !outside.dial(leader) {
                    self.replica.dialed(now.uptime, leader, None);
                }
            }
            Command::Listen(open) => {
                self.peers().links.clear();
                outside.listen(open)?;
            }
            Command::Drop(link, why) => {
                let peers = self.peers();
                if let Some(remote) = peers.links.remote(link) {
                    tracing::info!("closing the link to {remote}: {why}");
                    peers.links.close(link);
                }
                peers.arrival.take_if(|(from, _)| *from == link);
            }
            Command::Promise(epoch) => self.peers().epochs.promise(epoch).map_err(said)?,
            Command::TakeOver(epoch) => {
                self.peers().epochs.take_over(epoch).map_err(said)?;
                outside.saw(Seen::TookOver(epoch));
            }
            Command::Snapshot(link, zxid) => {
                if self.replica.state().is_none() {
                    // Nobody is served yet, so nobody has to be told of what is applied.
                    self.replica.catch_up(&mut self.crossing.tree.write(), zxid, now.uptime);
                }
                self.peers().links.send(link, Message::about(PacketKind::Snap, zxid));
                self.stream(link, |pieces, wanted| outside.send_tree(link, zxid, pieces, wanted))?;
            }
            Command::FromLog(link, stretch) => {
                self.stream(link, |pieces, wanted| outside.send_log(stretch, pieces, wanted))?;
            }
            Command::Load(link, zxid) => {
                tracing::info!("taking a snapshot of {zxid} from the leader");
                let arrival = Arrival::new(zxid, self.options.piece_max, self.options.seed);
                self.peers().arrival = Some((link, arrival));
            }
            Command::Truncate(upto) => self.truncate(upto, outside)?,
            Command::Serve => {
                self.replica.serve(&mut self.crossing.tree.write(), now.uptime);
                self.served = self.crossing.tree.read().last_applied();
                if !mutation::is_on(Mutation::WritesOutliveTheirRole) {
                    self.timeline.forget();
                }
                let standing = self.replica.standing();
                tracing::info!("serving in epoch {}, from {}", standing.current, standing.last);
                outside.saw(Seen::Serves(&self.replica, &self.crossing.tree.read()));
            }
        }
        Ok(())
    }

    /// What goes next over a link is made piece by piece.
    fn stream(
        &mut self,
        link: LinkId,
        make: impl FnOnce(Sender<Piece>, Weak<()>) -> Result<(), String>,
    ) -> Result<(), String> {
        let (pieces, stream) = bounded(PIECES);
        let wanted = Arc::new(());
        let is_wanted = Arc::downgrade(&wanted);
        self.peers().links.stream(link, stream, wanted);
        make(pieces, is_wanted)
    }

    /// The log is cut back, and the tree is what remains.
    fn truncate(&mut self, upto: Zxid, outside: &mut dyn Outside<D, S>) -> Result<(), String> {
        self.close_log(outside);
        let (snapshots, log) = (self.options.snapshots.dir.clone(), self.options.log.dir.clone());
        let newest = snapshot::list(&snapshots).map_err(said)?.first().map_or(Zxid::ZERO, |(start, _)| *start);
        let committed = self.served.max(newest);
        if snapshot::holds_more(committed, upto) {
            let aside = outside.keep_copy().map_err(said)?;
            tracing::error!(
                "the leader wants the history cut back to {upto}, but {committed} was committed: the others have lost it. A copy of all is kept \
                 as {}; `corral-tool log` can look into it",
                aside.display()
            );
        }
        self.served = self.served.min(upto);
        let cut = truncation::truncate(&snapshots, &self.options.log, upto).map_err(said)?;
        tracing::info!("cut the history back to {upto}, as the leader wants: {} transactions are gone", cut.records);
        let restored = restore(&snapshots, &log, self.options.seed, |_| ()).map_err(said)?;
        let end = restored.recovered.last;
        if end != upto && end != cut.base {
            return Err(format!(
                "{}: the leader wants the history cut back to {upto}, but it ends with {end} then; move the data away \
                 and start again, and it will be sent anew",
                log.display()
            ));
        }
        *self.crossing.tree.write() = restored.tree;
        self.open_log(&restored.recovered, outside)?;
        self.replica.truncated(end);
        outside.saw(Seen::Truncated(end));
        Ok(())
    }

    /// A snapshot has arrived as a whole: it is the history from now on.
    fn arrived(&mut self, now: Now, outside: &mut dyn Outside<D, S>) -> Result<(), String> {
        let (link, arrival) = self.peers().arrival.take().expect("it has arrived");
        self.close_log(outside);
        let tree = arrival.finish();
        let zxid = tree.last_applied();
        tracing::info!("the snapshot of {zxid} has arrived: {} nodes", tree.len());
        let knows = transfer::knows(&tree, &self.crossing.tree.read());
        if !knows || self.replica.is_astray() {
            let last = self.replica.standing().last;
            let epochs = &mut self.peers.as_mut().expect("there is a leader").epochs;
            let aside = outside.give_up(epochs).map_err(said)?;
            let why = match knows {
                true => "the tree here was not the leader's",
                false => {
                    "the leader knows nothing of the history here: it is another ensemble's, or the others have lost it"
                }
            };
            tracing::error!(
                "{why}. What is here ends with {last}; it is replaced, and kept as {}; `corral-tool log` can look into it",
                aside.display()
            );
        }
        *self.crossing.tree.write() = tree;
        self.served = Zxid::ZERO;
        let log = self.options.log.dir.clone();
        adoption::adopt(&self.options.snapshots, &log, &self.crossing.tree, now.wall_ms).map_err(said)?;
        let recovered = recover_after(&log, zxid, |_| ()).map_err(said)?;
        self.open_log(&recovered, outside)?;
        self.replica.loaded();
        outside.saw(Seen::Loaded(link, zxid));
        Ok(())
    }

    fn open_log(&mut self, recovered: &Recovered, outside: &mut dyn Outside<D, S>) -> Result<(), String> {
        let log = outside.open_log(&self.options.log, recovered)?;
        self.has_log(log)
    }
}
