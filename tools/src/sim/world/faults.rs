//! What befalls the world, and the peace that follows: in the end everybody must serve all that was committed, and every promise must
//! have been kept.

use super::super::client::own_number;
use super::super::member::tree_fingerprint;
use super::super::plan::{Fault, Kind};
use super::*;

/// A client waits at least so long for an answer once there is peace.
const CLIENT_PATIENCE: Duration = Duration::from_millis(400);

impl World {
    pub(super) fn befall(&mut self, index: usize) {
        if self.is_peace {
            return;
        }
        let Fault { number, kind, lasts, .. } = self.plan.faults[index].clone();
        self.counts.faults += 1;
        self.tell(None, || format!("fault {number}: {kind}, for {} ms", lasts.as_millis()));
        let until = self.now + lasts;
        match kind {
            Kind::Death(member) => self.die(member, false, until),
            Kind::PowerLoss(member) => self.die(member, true, until),
            Kind::Blackout => {
                for member in 0..self.members.len() {
                    let back = until + Duration::from_micros(self.random.random_range(0..100_000));
                    self.die(member, true, back);
                }
            }
            Kind::Pause(member) => self.members[member].paused_until = until,
            Kind::Partition(sides) => self.network.divide(sides, until),
            Kind::OneWay(from, to) if from != to => self.network.block(from, to, until),
            Kind::OneWay(..) => {}
            Kind::Break(which) => {
                let ids = self.network.wires.borrow().ids();
                if !ids.is_empty() {
                    self.break_wire(ids[which as usize % ids.len()]);
                }
            }
            Kind::SlowDisk(member) => self.members[member].slow_until = until,
            Kind::HungDisk(member) => {
                self.members[member].hung_until = until;
                // Mostly that ends with somebody who pulls the plug.
                if self.random.random() {
                    let at = self.within(lasts.as_micros() as u64);
                    let doomed = (0..self.members.len()).map(|index| index == member).collect();
                    self.at(at, Event::Ambush(doomed, lasts));
                }
            }
            Kind::FullDisk(member) => {
                self.members[member].platter.set_room(0);
                self.at(until, Event::Room(member));
            }
            Kind::SlowNetwork => self.network.slow_down(until),
            Kind::BitRot(member) => {
                let enough = self.plan.size.servers >= 3
                    && !self.is_weighted
                    && !self.members.iter().any(|member| member.is_rotten);
                if enough && self.members[member].life.is_some() {
                    self.die(member, true, until);
                    if self.members[member].rots() {
                        self.counts.rots += 1;
                    }
                }
            }
            Kind::Ambush(doomed) => self.ambush = Some((doomed, lasts)),
        }
    }

    pub(super) fn die(&mut self, index: usize, power: bool, back: Duration) {
        let Some(life) = &self.members[index].life else { return };
        let id = life.shell.id;
        self.counts.deaths += 1;
        let ends = self.network.wires.borrow().of(id);
        for (wire, side) in ends {
            // What it has sent arrives in part.
            self.network.wires.borrow_mut().cut(wire, side.other(), &mut self.random);
        }
        let conns: Vec<u64> = self.conns.iter().filter(|(_, conn)| conn.server == id).map(|(id, _)| *id).collect();
        conns.into_iter().for_each(|conn| self.lose_conn(conn));
        let member = &mut self.members[index];
        member.end(power);
        member.paused_until = Duration::ZERO;
        self.plan_wires();
        self.at(back, Event::Start(index));
    }

    pub(super) fn make_peace(&mut self) {
        self.tell(None, || "peace".to_owned());
        self.is_peace = true;
        self.patience = (CLIENT_PATIENCE, 4000);
        self.network.heal();
        for member in &mut self.members {
            (member.paused_until, member.slow_until, member.hung_until) = Default::default();
            member.platter.set_room(u64::MAX);
        }
        for index in 0..self.members.len() {
            self.at(self.now, Event::Start(index));
        }
        // What they ask for must be answered; they begin to retire when all members serve.
        self.clients.iter_mut().for_each(|(client, ..)| client.retires = true);
    }

    /// Everybody serves everything, nobody waits, and nothing is left that a leader deletes by itself.
    pub(super) fn is_settled(&self) -> bool {
        let committed = self.history.committed.len();
        let serves = |member: &Member| {
            let serves = member.life.as_ref().is_some_and(|life| life.replica().state().is_some());
            serves && member.applied == committed && member.entries.len() == committed
        };
        let is_tidy = |member: &Member| {
            member.life.as_ref().is_some_and(|life| life.shell.crossing.tree.read().mortals(None).next().is_none())
        };
        let idle = |(client, ..): &(Client, Option<u64>, Duration)| client.is_idle();
        self.members.iter().all(|member| serves(member) && is_tidy(member)) && self.clients.iter().all(idle)
    }

    pub(super) fn check_end(&mut self) {
        for member in &self.members {
            let life = member.life.as_ref().expect("it serves");
            let last = self.history.committed.last().map_or(Zxid::ZERO, |(zxid, _)| *zxid);
            let tree = life.shell.crossing.tree.read();
            self.history.has_tree(last, tree_fingerprint(&tree));
            for promise in self.clients.iter().flat_map(|(client, ..)| &client.promises) {
                let number = tree.find(&promise.path).map_or(0, |id| own_number(tree.data(id)));
                let fine = (promise.acknowledged..=promise.tried).contains(&number);
                assert!(fine, "R5: server {}: {promise:?}, but it is {number}", member.id);
            }
            for session in tree.sessions().keys() {
                assert!(session.is_session(), "a session has an id");
            }
            tree.walk(0, usize::MAX, |path, image| {
                let lives = !image.stat.owner.is_session() || tree.sessions().contains_key(&image.stat.owner);
                assert!(lives, "server {}: {path} outlives its session {}", member.id, image.stat.owner);
                true
            });
        }
    }
}
