//! A core takes its turn, and what that needs done becomes events of the time line ([`Around`]). What a turn does is checked as it is
//! seen.
//!
//! **Not here**: what a turn does (`corral_server::machine`), what arrives over wires and from clients.

use super::super::history::{Entry, fingerprint};
use super::super::member::{KEEP, Life, Shell, Transfer, What, tree_fingerprint};
use super::super::network::{LifeId, Pipe};
use super::*;
use bytes::Bytes;
use corral_engine::StorageError;
use corral_engine::disk::simulated::Platter;
use corral_engine::epochs::Epochs;
use corral_engine::txnlog::{Log, LogOptions, Recovered};
use corral_proto::Jute;
use corral_proto::peer::Vote;
use corral_server::budget::Held;
use corral_server::clients::worker::Worker;
use corral_server::consensus::stretch::Stretch;
use corral_server::consensus::transfer::{Departure, Stopped, read_stretch};
use corral_server::machine::{Ended, Heard, Machine, Outside, Piece, Seen, take_snapshot};
use corral_server::process::store;
use corral_server::replica::Replica;
use crossbeam::channel::{Sender, TrySendError};
use std::convert::Infallible;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Weak;
use std::sync::atomic::AtomicBool;

/// Bytes of a piece of a history that is sent.
const PIECE: usize = 4 << 10;

/// Bytes of a request or an event of the simulated clients; of a record with the block that it holds; of what a turn reads of a link.
const ITEM_MAX: usize = 1 << 10;
const RECORD_MAX: usize = 5 << 10;
const READ_MAX: usize = 64 << 10;

/// So many turns of a core may follow each other without anything from outside.
const RESTLESS_MAX: u32 = 300;
/// A turn that comes so soon after another was due already.
const AT_ONCE: Duration = Duration::from_micros(100);

/// Why a core takes a turn.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Cause {
    /// Something has happened.
    Event,
    /// It was rung for, or has more to do.
    Bell,
    /// It wanted to be woken at this time.
    Timer,
}

impl World {
    /// Lets something happen to a core of a member that lives, and then lets it take its turn.
    pub(super) fn on_core(
        &mut self,
        index: usize,
        core: usize,
        cause: Cause,
        happens: impl FnOnce(&mut World, &mut Machine<Platter, Pipe>, &mut Shell),
    ) {
        let mut life = self.members[index].life.take().expect("the caller has looked");
        let Life { cores, shell } = &mut *life;
        let now = shell.now(self.now);
        shell.bells.set(now.uptime);
        let machine = &mut cores[core];
        happens(self, machine, shell);
        self.feed(machine, shell, core, now);
        let is_due = std::mem::take(&mut shell.is_due[core]);
        // Timers that are due one after the other say the same as bells.
        let follows_at_once = self.now - shell.turned_at[core] < AT_ONCE;
        shell.turned_at[core] = self.now;
        let is_restless = cause == Cause::Bell || cause == Cause::Timer && follows_at_once;
        shell.restless[core] = if is_restless { shell.restless[core] + 1 } else { 0 };
        assert!(shell.restless[core] < RESTLESS_MAX, "restlessness: a core takes turn after turn, and nothing happens");
        let mut around = Around { world: self, shell, core, by_timer: cause == Cause::Timer && !is_due };
        if let Err(why) = machine.turn(now, &mut around) {
            self.members[index].life = Some(life);
            return self.stops(index, &why);
        }
        check_bounds(machine);
        let has_work = machine.has_work(&around) || self.has_unread(machine, shell, core);
        if has_work {
            shell.bells.ring_again(core);
        }
        let deadline = machine.deadline();
        let at = life.true_time(deadline).max(self.now + Duration::from_micros(10));
        if at < life.shell.wakes_at[core] {
            life.shell.wakes_at[core] = at;
            self.at(at, Event::Wake(life.shell.id, core));
        }
        self.plan_turns(&mut life.shell);
        self.tell_role(&mut life);
        self.members[index].life = Some(life);
    }

    /// A process ends by itself, as it may when its disk is full; somebody starts it again.
    fn stops(&mut self, index: usize, why: &str) {
        assert!(self.members[index].platter.is_full(), "R5: server {} cannot go on: {why}", index + 1);
        self.tell(Some(index), || format!("cannot go on: {why}"));
        let back = self.within(200_000);
        self.die(index, false, back);
    }

    /// Cores that were rung for, bytes that were sent and segments that were ordered become events.
    pub(super) fn plan_turns(&mut self, shell: &mut Shell) {
        for core in shell.bells.take_rung() {
            if !std::mem::replace(&mut shell.is_due[core], true) {
                let at = self.within(40);
                self.at(at, Event::Turn(shell.id, core));
            }
        }
        if shell.maker.has_orders() && !std::mem::replace(&mut shell.is_supplying, true) {
            let at = self.within(2_000);
            self.at(at, Event::Supply(shell.id));
        }
        self.plan_wires();
    }

    /// One segment is made, or let go.
    pub(super) fn supply(&mut self, id: LifeId) {
        let life = self.members[id.member].life.as_mut().expect("it lives");
        life.shell.is_supplying = false;
        life.shell.supply();
        self.on_core(id.member, 0, Cause::Event, |_, _, _| ());
    }

    /// The snapshot that was asked for is taken, unless that was broken off.
    pub(super) fn take_snapshot(&mut self, id: LifeId) {
        let Member { life, platter, .. } = &mut self.members[id.member];
        let shell = &mut life.as_mut().expect("it lives").shell;
        let Some(wall_ms) = shell.asked else { return };
        if !shell.crossing.is_durable(shell.crossing.tree.read().last_applied()) {
            let at = self.within(2_000);
            return self.at(at, Event::Snapshot(id));
        }
        shell.asked = None;
        let crossing = shell.crossing.clone();
        let tree = &crossing.tree;
        let ended = take_snapshot(&shell.snapshots, &crossing, &[], Some(KEEP), wall_ms, &AtomicBool::new(false));
        assert!(matches!(ended, Ended::Taken { .. }) || platter.is_full(), "the disk is well");
        let applied = tree.read().last_applied();
        shell.ended = Some(ended);
        self.tell(Some(id.member), || format!("takes a snapshot of {applied}"));
        self.on_core(id.member, 0, Cause::Event, |_, _, _| ());
    }

    /// The thread that sends a history goes on.
    pub(super) fn transfer(&mut self, id: LifeId, number: u64) {
        let shell = &mut self.members[id.member].life.as_mut().expect("it lives").shell;
        let Some(mut transfer) = shell.transfers.remove(&number) else { return };
        if transfer.wanted.strong_count() == 0 {
            return;
        }
        if transfer.ready.is_empty() {
            self.make_pieces(id, &mut transfer);
        }
        let mut is_sent = false;
        while let Some(piece) = transfer.ready.pop_front() {
            match transfer.pieces.try_send(piece) {
                Ok(()) => is_sent = true,
                Err(TrySendError::Full(piece)) => {
                    transfer.ready.push_front(piece);
                    break;
                }
                Err(TrySendError::Disconnected(_)) => return,
            }
        }
        if !(matches!(transfer.what, What::Done) && transfer.ready.is_empty()) {
            let shell = &mut self.members[id.member].life.as_mut().expect("it lives").shell;
            shell.transfers.insert(number, transfer);
            let at = self.within(1_000);
            self.at(at, Event::Transfer(id, number));
        }
        if is_sent {
            self.on_core(id.member, 0, Cause::Event, |_, _, _| ());
        }
    }

    fn make_pieces(&mut self, id: LifeId, transfer: &mut Transfer) {
        let shell = &self.members[id.member].life.as_ref().expect("it lives").shell;
        let ready = &mut transfer.ready;
        match &mut transfer.what {
            What::Tree(zxid, departure) => {
                let tree = &*shell.crossing.tree.read();
                if tree.last_applied() < *zxid {
                    return;
                }
                let mut bytes = Vec::new();
                let departure = departure.get_or_insert_with(|| Departure::new(tree, *zxid, &mut bytes));
                let more = departure.step(tree, 8, PIECE, &mut bytes);
                ready.push_back(Piece::Bytes(bytes.into()));
                if !more {
                    ready.push_back(Piece::End);
                    transfer.what = What::Done;
                }
            }
            What::Log(stretch) => {
                let stretch = *stretch;
                let mut bytes = Vec::new();
                let read = read_stretch(&shell.log_dir, stretch, |packet| -> Result<(), Infallible> {
                    packet.encode(&mut bytes);
                    Ok(())
                });
                let bytes = Bytes::from(bytes);
                ready.extend(
                    (0..bytes.len())
                        .step_by(PIECE)
                        .map(|at| Piece::Bytes(bytes.slice(at..(at + PIECE).min(bytes.len())))),
                );
                match read {
                    Ok(_) => {
                        ready.push_back(Piece::End);
                        self.counts.stretches += 1;
                        self.tell(Some(id.member), || {
                            format!("sends its log from {} to {}", stretch.have, stretch.upto)
                        });
                    }
                    Err(Stopped::Lacking(why)) => {
                        self.tell(Some(id.member), || format!("cannot send its log: {why}"));
                        ready.push_back(Piece::Broken(why));
                    }
                    Err(Stopped::Unsent(never)) => match never {},
                }
                transfer.what = What::Done;
            }
            What::Done => {}
        }
    }

    /// A batch of a member goes to its disk.
    fn logged(&mut self, id: LifeId, entries: Vec<Entry>, leads: bool) {
        if leads {
            entries.iter().for_each(|entry| self.history.broadcasts(*entry));
        }
        if let Some((last, _)) = entries.last() {
            let (count, last) = (entries.len(), *last);
            let what = if leads { "proposes" } else { "logs" };
            self.tell(Some(id.member), || format!("{what} {count} up to {last}"));
        }
        let member = &mut self.members[id.member];
        member.entries.extend(entries);
        let slow = self.now < member.slow_until;
        let from = self.now.max(member.hung_until);
        let us = self.random.random_range(30..600) * if slow { self.random.random_range(10..300) } else { 1 };
        self.at(from + Duration::from_micros(us), Event::DiskDone(id));
    }

    /// Transactions are in the tree that a member serves.
    fn applied(&mut self, index: usize, tree: &Tree) {
        let upto = tree.last_applied();
        let (before, committed) = (self.members[index].applied, self.history.committed.len());
        loop {
            let place = self.members[index].applied;
            let entry = self.members[index].entries.get(place).copied();
            let Some((zxid, _)) = entry.filter(|(zxid, _)| *zxid <= upto) else { break };
            let (ensemble, members) = (&self.ensemble, &self.members);
            let has = |voter: ServerId| members[voter.0 as usize - 1].counts_for(zxid);
            self.history.delivers(place, entry.expect("looked at just now"), || ensemble.is_quorum(has));
            self.members[index].applied += 1;
        }
        if self.history.committed.len() > committed {
            self.counts.silence = self.counts.silence.max(self.now - self.last_commit);
            self.last_commit = self.now;
        }
        let member = &self.members[index];
        if member.applied == before {
            return;
        }
        assert!(member.entries[member.applied - 1].0 == upto, "total order: {upto} is applied, and was not logged");
        self.check_tree(tree, upto, (member.applied / 16) > (before / 16));
    }

    /// `is_all`: not only what is cheap to look at.
    fn check_tree(&mut self, tree: &Tree, after: Zxid, is_all: bool) {
        let data = |path: &str| tree.find(path).map(|id| tree.data(id).map(<[u8]>::to_vec));
        assert!(data(TWINS[0]) == data(TWINS[1]), "R4: half of a multi is in the tree after {after}");
        if is_all {
            self.history.has_tree(after, tree_fingerprint(tree));
        }
    }

    fn serves(&mut self, index: usize, replica: &Replica, tree: &Tree) {
        let member = &mut self.members[index];
        member.applied = member.count_upto(tree.last_applied());
        let (ensemble, members) = (&self.ensemble, &self.members);
        let on_quorum = |zxid| ensemble.is_quorum(|voter: ServerId| members[voter.0 as usize - 1].counts_for(zxid));
        let member = &members[index];
        let served = &member.entries[..member.applied];
        match replica.state() {
            Some((PeerState::Leading, _)) => self.history.established(replica.standing().current, served),
            _ => self.history.serves(served, on_quorum),
        }
        if let Some((last, _)) = served.last() {
            self.history.has_tree(*last, tree_fingerprint(tree));
        }
    }

    /// An epoch is a member's own now: a moment for power to fail.
    fn took_over(&mut self, index: usize, epoch: u32) {
        self.tell(Some(index), || format!("takes over epoch {epoch}"));
        self.members[index].is_rotten = false;
        let strikes = self.random.random();
        if let Some((doomed, lasts)) = self.ambush.take_if(|_| strikes) {
            let us = [400, 1_500, 6_000][self.random.random_range(0..3)];
            let at = self.within(us);
            self.at(at, Event::Ambush(doomed, lasts));
        }
    }
}

/// Nobody makes a member hold more than it may, but for the last item.
fn check_bounds(machine: &Machine<Platter, Pipe>) {
    for Held { what, bytes, max } in machine.held() {
        let last = match what {
            "backlog" => READ_MAX,
            "learner" => RECORD_MAX,
            _ => ITEM_MAX,
        };
        assert!(bytes <= max + last, "bounds: {what} of {bytes} bytes are held, of {max}");
    }
}

/// What a core's machine needs done.
struct Around<'a> {
    world: &'a mut World,
    shell: &'a mut Shell,
    core: usize,
    /// The turn has no other cause than that time has passed.
    by_timer: bool,
}

impl Around<'_> {
    fn index(&self) -> usize {
        self.shell.id.member
    }

    fn begin_transfer(&mut self, what: What, pieces: Sender<Piece>, wanted: Weak<()>) {
        self.shell.next_transfer += 1;
        let number = self.shell.next_transfer;
        self.shell.transfers.insert(number, Transfer { pieces, wanted, ready: VecDeque::new(), what });
        let at = self.world.within(1_000);
        self.world.at(at, Event::Transfer(self.shell.id, number));
    }
}

impl Outside<Platter, Pipe> for Around<'_> {
    fn now(&self) -> Now {
        self.shell.now(self.world.now)
    }

    fn flush(&mut self, worker: &mut Worker, _: Now) {
        let mut dirty = Vec::new();
        worker.take_dirty(&mut dirty);
        for slot in dirty {
            self.world.flush(worker, self.shell, self.core, slot, self.by_timer);
        }
    }

    fn heard(&mut self) -> Option<Heard<Pipe>> {
        self.shell.heard.pop_front()
    }

    fn has_heard(&self) -> bool {
        !self.shell.heard.is_empty()
    }

    fn notify(&mut self, to: ServerId, said: Notification<'static>) {
        let (world, from) = (&mut *self.world, self.shell.id.member);
        world.tell(Some(from), || {
            let Vote { leader, zxid, epoch } = said.vote;
            format!("tells server {to}: {:?} in round {}, for {leader} ({epoch}, {zxid})", said.state, said.round)
        });
        if !world.network.loses(world.now, &mut world.random) {
            let at = world.now + world.network.delay(world.now, &mut world.random);
            world.at(at, Event::Vote(from, to.0 as usize - 1, said));
        }
    }

    fn dial(&mut self, leader: ServerId) -> bool {
        let (world, id) = (&mut *self.world, self.shell.id);
        world.tell(Some(id.member), || format!("seeks server {leader}"));
        let at = world.now + world.network.delay(world.now, &mut world.random);
        // Its name is not resolved now and then.
        if world.random.random_ratio(1, 50) {
            world.at(at, Event::Dialed(id, leader, None));
        } else {
            world.at(at, Event::Dial(id, leader));
        }
        true
    }

    fn listen(&mut self, open: bool) -> Result<(), String> {
        self.shell.is_listening = open;
        self.shell.knocking.clear();
        Ok(())
    }

    fn accept(&mut self) -> Option<(Pipe, SocketAddr)> {
        Some((self.shell.knocking.pop_front()?, REMOTE))
    }

    fn watch(&mut self, stream: &mut Pipe, link: LinkId) -> io::Result<()> {
        stream.is_called(link);
        Ok(())
    }

    fn send_tree(&mut self, link: LinkId, zxid: Zxid, pieces: Sender<Piece>, wanted: Weak<()>) -> Result<(), String> {
        let member = &self.world.members[self.index()];
        let history = Arc::new(member.entries[..member.count_upto(zxid)].to_vec());
        if let Some(wire) = self.world.network.wires.borrow_mut().find(self.shell.id, link) {
            wire.snapshot = Some(history);
        }
        self.world.counts.snapshots += 1;
        self.world.tell(Some(self.index()), || format!("sends a snapshot of {zxid}"));
        self.begin_transfer(What::Tree(zxid, None), pieces, wanted);
        Ok(())
    }

    fn send_log(&mut self, stretch: Stretch, pieces: Sender<Piece>, wanted: Weak<()>) -> Result<(), String> {
        self.begin_transfer(What::Log(stretch), pieces, wanted);
        Ok(())
    }

    fn open_log(&mut self, options: &LogOptions, recovered: &Recovered) -> Result<Log<Platter>, String> {
        let index = self.index();
        Ok(self.world.members[index].open_log(self.shell, options, recovered))
    }

    fn snapshot(&mut self, wall_ms: i64) -> bool {
        if self.shell.asked.is_some() {
            return false;
        }
        self.shell.asked = Some(wall_ms);
        let at = self.world.within(20_000);
        self.world.at(at, Event::Snapshot(self.shell.id));
        true
    }

    fn snapshot_ended(&mut self) -> Option<Ended> {
        self.shell.ended.take()
    }

    fn stand_still(&mut self) {
        (self.shell.asked, self.shell.ended) = (None, None);
        let platter = &self.world.members[self.index()].platter;
        while platter.in_flight() > 0 {
            platter.finish(0);
        }
    }

    fn give_up(&mut self, epochs: &mut Epochs) -> Result<PathBuf, StorageError> {
        self.world.tell(Some(self.index()), || "gives up its history".to_owned());
        store::give_up(&*self.shell.snapshots.files, epochs, &self.shell.log_dir, &self.shell.snapshots.dir)
    }

    fn keep_copy(&mut self) -> Result<PathBuf, StorageError> {
        panic!("R5: server {} is to cut off what was committed", self.index() + 1);
    }

    fn saw(&mut self, seen: Seen<'_>) {
        let (index, id) = (self.index(), self.shell.id);
        let world = &mut *self.world;
        match seen {
            Seen::Logged(batch, leads) => {
                let entries = batch.entries().map(|(zxid, bytes)| (zxid, fingerprint(&bytes[..]))).collect();
                world.logged(id, entries, leads);
            }
            Seen::Durable(upto) => {
                let member = &mut world.members[index];
                member.durable = member.durable.max(member.count_upto(upto));
            }
            Seen::Applied(tree, leads) => {
                world.applied(index, tree);
                let member = &world.members[index];
                assert!(leads || member.applied <= member.durable, "what is applied is durable");
            }
            Seen::Serves(replica, tree) => world.serves(index, replica, tree),
            Seen::TookOver(epoch) => world.took_over(index, epoch),
            Seen::Truncated(end) => {
                world.counts.truncations += 1;
                world.tell(Some(index), || format!("has cut its history back to {end}"));
                let member = &mut world.members[index];
                member.entries.truncate(member.count_upto(end));
                member.durable = member.entries.len();
            }
            Seen::Loaded(link, zxid) => {
                let wires = world.network.wires.clone();
                let history = wires.borrow_mut().find(id, link).and_then(|wire| wire.snapshot.take());
                world.tell(Some(index), || format!("has taken the snapshot of {zxid}"));
                let member = &mut world.members[index];
                member.entries = history.expect("a snapshot is of a history").to_vec();
                member.durable = member.entries.len();
            }
        }
    }
}

/// Where everybody seems to be.
pub(super) const REMOTE: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 2888);
