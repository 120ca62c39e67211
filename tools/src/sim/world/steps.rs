//! What a member does at a step, and what becomes of what it commands: as `core-0` of a server, in the same order, with the machines
//! of production.
//!
//! **Not here**: what arrives over links and from clients.

use super::super::history::{Entry, fingerprint};
use super::super::member::{self, Life, TICK};
use super::super::network::{Part, Snapshot, encoded};
use super::crowd::Direct;
use super::*;
use corral_engine::restore::{restore, retain};
use corral_engine::snapshot::writer::take;
use corral_engine::txnlog::recover_after;
use corral_engine::{adoption, snapshot, truncation};
use corral_proto::Jute;
use corral_proto::peer::{PacketKind, Vote};
use corral_server::delivery::Delivery;
use corral_server::replica::Command;
use corral_server::transfer::{Arrival, Stopped, read_stretch};
use corral_server::zab::message::Message;
use corral_server::zab::stretch::Stretch;
use std::convert::Infallible;
use std::sync::atomic::AtomicBool;

/// Transactions after which a member takes a snapshot, about.
const SNAPSHOT_EVERY: usize = 300;
/// Snapshots that are kept.
const KEEP: usize = 2;

impl World {
    /// What `core-0` does at every step.
    pub(super) fn drive(&mut self, life: &mut Life) {
        let now = life.now(self.now);
        if life.replica.next_expiry().is_some_and(|at| at <= now.uptime) {
            life.replica.touch(&life.worker.take_heard(), now.uptime);
            let expired = life.replica.expire(&life.tree.read(), &mut life.log.group, now);
            for session in expired {
                self.tell(Some(life.id.member), || format!("session {session} expires"));
            }
        }
        if now.uptime >= life.next_heard {
            life.next_heard = now.uptime + TICK / 2;
            life.replica.touch(&life.worker.take_heard(), now.uptime);
        }
        life.replica.tick(now.uptime);
        self.carry_out(life);
        self.submit(life, now);
        self.carry_out(life);
        if let Some(durable) = life.log.complete(|_| ()).expect("the disk is well") {
            let member = &mut self.members[life.id.member];
            member.durable = member.durable.max(member.count_upto(durable.upto()));
            life.replica.durable(&mut life.log.group, now.uptime, durable);
        }
        self.apply(life, now);
        self.submit(life, now);
        self.carry_out(life);
        self.flush(life);
        self.take_snapshot(life, now);
        self.plan_wake(life);
    }

    pub(super) fn plan_wake(&mut self, life: &mut Life) {
        let deadlines =
            [life.replica.deadline(), life.replica.next_expiry(), life.log.deadline(), Some(life.next_heard)];
        let deadline = deadlines.into_iter().flatten().min().expect("one at least");
        let at = life.true_time(deadline).max(self.now + Duration::from_micros(10));
        if at < life.wakes_at {
            life.wakes_at = at;
            self.at(at, Event::Wake(life.id));
        }
    }

    pub(super) fn submit(&mut self, life: &mut Life, now: Now) {
        let before = self.members[life.id.member].platter.in_flight();
        let mut logged: Vec<Entry> = Vec::new();
        let replica = &mut life.replica;
        let submitted = life.log.submit(now.uptime, |batch| {
            logged.extend(batch.entries().map(|(zxid, bytes)| (zxid, fingerprint(&bytes[..]))));
            replica.cut(batch);
        });
        submitted.expect("the disk is well");
        let leads = matches!(life.replica.state(), Some((PeerState::Leading, _)));
        if leads {
            logged.iter().for_each(|entry| self.history.broadcasts(*entry));
        }
        life.records += logged.len();
        if let Some((last, _)) = logged.last() {
            let (count, last) = (logged.len(), *last);
            self.tell(Some(life.id.member), || {
                format!("{} {count} up to {last}", if leads { "proposes" } else { "logs" })
            });
        }
        let member = &mut self.members[life.id.member];
        member.entries.append(&mut logged);
        let submitted = member.platter.in_flight() - before;
        let slow = self.now < member.slow_until;
        for _ in 0..submitted {
            let us = self.random.random_range(30..600) * if slow { self.random.random_range(10..300) } else { 1 };
            self.at(self.now + Duration::from_micros(us), Event::DiskDone(life.id));
        }
        let at = self.within(2_000);
        if submitted > 0 || life.log.is_waiting() {
            self.at(at, Event::Supply(life.id));
        }
    }

    pub(super) fn apply(&mut self, life: &mut Life, now: Now) {
        let index = life.id.member;
        loop {
            let work = life.replica.has_committed();
            if !work && !life.replica.has_delivery(0) {
                return;
            }
            let mut changes = Vec::new();
            let before = life.tree.read().last_applied();
            life.replica.apply(&mut life.tree.write(), 1, now.uptime, Some(&mut changes));
            let after = life.tree.read().last_applied();
            if after > before {
                self.applied(life, after);
            }
            let changes = (!changes.is_empty()).then(|| changes.into());
            let delivery = life.replica.take_delivery(0, changes.as_ref(), now.uptime);
            self.deliver(life, now, &delivery);
            assert!(self.members[index].applied <= self.members[index].durable, "what is applied is durable");
        }
    }

    /// A transaction is in the tree that a member serves.
    pub(super) fn applied(&mut self, life: &Life, zxid: Zxid) {
        let index = life.id.member;
        let place = self.members[index].applied;
        let entry = *self.members[index].entries.get(place).expect("what is applied was logged");
        assert!(entry.0 == zxid, "total order: {zxid} is applied, but {} comes next in the log", entry.0);
        let (ensemble, members) = (&self.ensemble, &self.members);
        let has = |voter: ServerId| members[voter.0 as usize - 1].counts_for(zxid);
        self.history.delivers(place, entry, || ensemble.is_quorum(has));
        self.members[index].applied += 1;
        self.check_tree(life, zxid);
    }

    pub(super) fn check_tree(&mut self, life: &Life, after: Zxid) {
        let tree = life.tree.read();
        let data = |path: &str| tree.find(path).map(|id| tree.data(id).map(<[u8]>::to_vec));
        assert!(data(TWINS[0]) == data(TWINS[1]), "R4: half of a multi is in the tree after {after}");
        drop(tree);
        // All of it takes a while: some do for the rest.
        if after.counter().is_multiple_of(16) {
            self.history.has_tree(after, life.tree_fingerprint());
        }
    }

    pub(super) fn deliver(&mut self, life: &mut Life, now: Now, delivery: &Delivery) {
        let Life { worker, replica, tree, log, .. } = life;
        worker.deliver(now.uptime, delivery);
        worker.retry(&tree.read(), &mut Direct { replica, log: &mut log.group, now }, now.uptime);
    }

    /// Sometimes a snapshot is taken, and the log before it let go.
    pub(super) fn take_snapshot(&mut self, life: &mut Life, now: Now) {
        if life.records < SNAPSHOT_EVERY || life.replica.state().is_none() || self.random.random_ratio(9, 10) {
            return;
        }
        life.records = 0;
        take(&life.snapshots, &life.tree, now.wall_ms, &AtomicBool::new(false)).expect("the disk is well");
        let snapshots = snapshot::list(life.snapshot_dir()).expect("the disk is well");
        let (old, needless) = retain(&snapshots, &[], KEEP);
        old.iter().for_each(|(_, path)| member::remove(path));
        needless.into_iter().for_each(|needless| life.log.release(needless));
        let applied = life.tree.read().last_applied();
        self.tell(Some(life.id.member), || format!("takes a snapshot of {applied}"));
    }

    pub(super) fn carry_out(&mut self, life: &mut Life) {
        loop {
            let commands = life.replica.take_commands();
            if commands.is_empty() {
                return;
            }
            commands.into_iter().for_each(|command| self.obey(life, command));
        }
    }

    pub(super) fn obey(&mut self, life: &mut Life, command: Command) {
        let (now, own) = (life.now(self.now), life.id);
        match command {
            Command::Notify(to, said) => {
                self.tell(Some(own.member), || {
                    let (vote, state) = (said.vote, said.state);
                    let Vote { leader, zxid, epoch } = vote;
                    format!("tells server {to}: {state:?} in round {}, for {leader} ({epoch}, {zxid})", said.round)
                });
                if !self.network.loses(self.now, &mut self.random) {
                    let at = self.now + self.network.delay(self.now, &mut self.random);
                    self.at(at, Event::Vote(own.member, to.0 as usize - 1, said));
                }
            }
            Command::Dial(leader) => {
                self.tell(Some(own.member), || format!("seeks server {leader}"));
                let at = self.now + self.network.delay(self.now, &mut self.random);
                self.at(at, Event::Dial(own, leader));
            }
            Command::Listen(open) => {
                life.is_listening = open;
                for (id, side) in self.network.links_of(own) {
                    self.close(id, side, "the other side closed it");
                    life.inbound.remove(&id);
                }
            }
            Command::Send(link, message) => self.send(own, link, Part::Packet(encoded(&message))),
            Command::Snapshot(link, zxid) => {
                if life.replica.state().is_none() {
                    life.replica.catch_up(&mut life.tree.write(), zxid, now.uptime);
                }
                let member = &self.members[own.member];
                let history = Arc::new(member.entries[..member.count_upto(zxid)].to_vec());
                self.counts.snapshots += 1;
                self.tell(Some(own.member), || format!("sends a snapshot of {zxid}"));
                self.send(own, link, Part::Packet(encoded(&Message::about(PacketKind::Snap, zxid))));
                self.send(own, link, Part::Snapshot(Box::new(Snapshot { zxid, history, departure: None })));
            }
            Command::FromLog(link, stretch) => self.send_stretch(life, link, stretch),
            Command::Drop(link, why) => {
                self.tell(Some(own.member), || format!("drops a link: {why}"));
                if let Some(side) = self.network.links.get(&link).map(|link| link.side_of(own)) {
                    self.close(link, side, "the other side dropped it");
                }
                life.inbound.remove(&link);
                life.arrival.take_if(|(from, _)| *from == link);
            }
            Command::Promise(epoch) => {
                self.tell(Some(own.member), || format!("promises epoch {epoch}"));
                life.epochs.promise(epoch).expect("the disk is well");
            }
            Command::TakeOver(epoch) => {
                self.tell(Some(own.member), || format!("takes over epoch {epoch}"));
                life.epochs.take_over(epoch).expect("the disk is well");
                self.members[own.member].is_rotten = false;
                let strikes = self.random.random();
                if let Some((doomed, lasts)) = self.ambush.take_if(|_| strikes) {
                    let us = [400, 1_500, 6_000][self.random.random_range(0..3)];
                    let at = self.within(us);
                    self.at(at, Event::Ambush(doomed, lasts));
                }
            }
            Command::Load(link, zxid) => life.arrival = Some((link, Arrival::new(zxid, 1 << 20, 1))),
            Command::Truncate(upto) => self.truncate(life, upto),
            Command::Serve => {
                life.replica.serve(&mut life.tree.write(), now.uptime);
                let last = life.tree.read().last_applied();
                let member = &mut self.members[own.member];
                member.applied = member.count_upto(last);
                let (ensemble, members) = (&self.ensemble, &self.members);
                let on_quorum =
                    |zxid| ensemble.is_quorum(|voter: ServerId| members[voter.0 as usize - 1].counts_for(zxid));
                let member = &members[own.member];
                let served = &member.entries[..member.applied];
                let standing = life.replica.standing();
                if matches!(life.replica.state(), Some((PeerState::Leading, _))) {
                    self.history.established(standing.current, served);
                } else {
                    self.history.serves(served, on_quorum);
                }
                if let Some((last, _)) = served.last() {
                    let last = *last;
                    self.history.has_tree(last, life.tree_fingerprint());
                }
            }
        }
    }

    pub(super) fn truncate(&mut self, life: &mut Life, upto: Zxid) {
        let index = life.id.member;
        self.counts.truncations += 1;
        self.tell(Some(index), || format!("cuts its history back to {upto}"));
        let platter = self.members[index].platter.clone();
        while platter.in_flight() > 0 {
            platter.finish(0);
        }
        let cut = truncation::truncate(life.snapshot_dir(), &life.log_options, upto).expect("the disk is well");
        let restored = restore(life.snapshot_dir(), &life.log_options.dir, 1, |_| ()).expect("the disk is well");
        let end = restored.recovered.last;
        assert!(end == upto || end == cut.base, "what a leader cuts back to is there: {upto}, not {end}");
        *life.tree.write() = restored.tree;
        let member = &mut self.members[index];
        member.reopen_log(life, &restored.recovered);
        member.entries.truncate(member.count_upto(end));
        member.durable = member.entries.len();
        life.replica.truncated(end);
    }

    /// A snapshot has arrived as a whole.
    pub(super) fn arrived(&mut self, life: &mut Life, link: LinkId, now: Now) {
        let (_, arrival) = life.arrival.take().expect("it has arrived");
        *life.tree.write() = arrival.finish();
        let zxid = life.tree.read().last_applied();
        adoption::adopt(&life.snapshots, &life.log_options.dir, &life.tree, now.wall_ms).expect("the disk is well");
        let recovered = recover_after(&life.log_options.dir, zxid, |_| ()).expect("the disk is well");
        let history = life.coming.remove(&link).expect("a snapshot is of a history");
        let member = &mut self.members[life.id.member];
        member.reopen_log(life, &recovered);
        member.entries = history.to_vec();
        member.durable = member.entries.len();
        self.tell(Some(life.id.member), || format!("has taken the snapshot of {zxid}"));
        life.replica.loaded();
    }

    /// A learner is sent what it lacks from the log on the disk, if that is there.
    pub(super) fn send_stretch(&mut self, life: &Life, link: LinkId, stretch: Stretch) {
        let own = life.id;
        let mut packets = Vec::new();
        let read = read_stretch(&life.log_options.dir, stretch, |packet| -> Result<(), Infallible> {
            packets.push(packet.to_vec());
            Ok(())
        });
        match read {
            Ok(_) => {
                self.counts.stretches += 1;
                self.tell(Some(own.member), || format!("sends its log from {} to {}", stretch.have, stretch.upto));
                packets.into_iter().for_each(|packet| self.send(own, link, Part::Packet(packet)));
            }
            Err(Stopped::Lacking(why)) => self.send(own, link, Part::Unmade(why)),
            Err(Stopped::Unsent(never)) => match never {},
        }
    }
}
