//! What goes over links between members, and when it arrives.

use super::super::history::Entry;
use super::super::member::Life;
use super::super::network::{Link, Part};
use super::*;
use bytes::Buf;
use corral_proto::peer::{Packet, PacketKind, Parsed};
use corral_server::transfer::Departure;
use corral_server::zab::message::Message;

impl World {
    pub(super) fn dial(&mut self, id: LifeId, leader: ServerId) {
        let to = leader.0 as usize - 1;
        let heard = self.network.passes(self.now, id.member, to) && self.network.passes(self.now, to, id.member);
        let listens = self.members[to].life.as_ref().is_some_and(|life| life.is_listening);
        let is_awake = self.members[to].paused_until <= self.now;
        let mut link = None;
        if heard && listens && is_awake && self.is_alive(id) {
            let leads = self.members[to].life.as_ref().expect("it listens").id;
            let made = self.network.connect(leads, id);
            link = Some(made);
            self.on_life(to, |world, life| life.replica.accepted(life.now(world.now).uptime, made));
        }
        let at = self.now + self.network.delay(self.now, &mut self.random);
        self.at(at, Event::Dialed(id, leader, link));
    }

    pub(super) fn send(&mut self, from: LifeId, id: LinkId, part: Part) {
        let Some(link) = self.network.links.get_mut(&id) else { return };
        let side = link.side_of(from);
        let to = side.other();
        if !link.is_open[side as usize] {
            return;
        }
        link.queues[to as usize].push_back(part);
        self.plan_arrival(id, to);
    }

    pub(super) fn plan_arrival(&mut self, id: LinkId, to: Side) {
        let delay = self.network.delay(self.now, &mut self.random);
        let Some(link) = self.network.links.get_mut(&id) else { return };
        if !std::mem::replace(&mut link.is_planned[to as usize], true) {
            self.at(self.now + delay, Event::Link(id, to));
        }
    }

    /// One end of a link closes it; the other hears of that behind what was sent before.
    pub(super) fn close(&mut self, id: LinkId, side: Side, why: &'static str) {
        let Some(link) = self.network.links.get_mut(&id) else { return };
        link.is_open[side as usize] = false;
        link.queues[side as usize].clear();
        let other = side.other();
        if link.is_open[other as usize] {
            let queue = &mut link.queues[other as usize];
            // A part of a snapshot that nobody makes any more.
            queue.truncate(queue.iter().position(|part| matches!(part, Part::Snapshot(_))).unwrap_or(queue.len()));
            queue.push_back(Part::End(why));
            self.plan_arrival(id, other);
        } else {
            self.network.links.remove(&id);
        }
    }

    /// Something arrives at one end of a link.
    pub(super) fn arrive(&mut self, id: LinkId, side: Side) {
        let Some(link) = self.network.links.get_mut(&id) else { return };
        link.is_planned[side as usize] = false;
        let (to, from) = (link.end(side), link.end(side.other()));
        if !self.network.passes(self.now, from.member, to.member) {
            let link = self.network.links.get_mut(&id).expect("looked at just now");
            link.is_planned[side as usize] = true;
            let at = self.within(20_000);
            return self.at(at, Event::Link(id, side));
        }
        let link = &self.network.links[&id];
        if !link.is_open[side as usize] || !self.is_alive(to) {
            return;
        }
        for _ in 0..self.random.random_range(1..6) {
            let link = self.network.links.get_mut(&id).filter(|link| link.is_open[side as usize]);
            let Some(queue) = link.map(|link| &mut link.queues[side as usize]) else { return };
            if let Some(Part::Unmade(why)) = queue.front() {
                let why = why.clone();
                queue.clear();
                self.tell(Some(from.member), || format!("cannot send its log: {why}"));
                if self.is_alive(from) {
                    self.on_life(from.member, |world, life| {
                        life.replica.log_lacks(life.now(world.now).uptime, id);
                    });
                }
                break;
            }
            let Some((bytes, end, history)) = self.next_part(id, side, from) else { break };
            self.on_life(to.member, |world, life| {
                life.coming.extend(history.map(|history| (id, history)));
                life.inbound.entry(id).or_default().extend_from_slice(&bytes);
                let now = life.now(world.now);
                life.replica.progress(now.uptime, id);
                world.hear(life, id, now);
                if let Some(why) = end {
                    life.inbound.remove(&id);
                    life.arrival.take_if(|(from, _)| *from == id);
                    life.replica.lost(now.uptime, id, why);
                }
            });
            if end.is_some() {
                self.close(id, side, "");
                return;
            }
        }
        let is_left = self.network.links.get(&id).is_some_and(|link| !link.queues[side as usize].is_empty());
        if is_left {
            self.plan_arrival(id, side);
        }
    }

    /// The next bytes that arrive, the end, and the history of a snapshot that begins.
    #[expect(clippy::type_complexity, reason = "three things that come together once")]
    pub(super) fn next_part(
        &mut self,
        id: LinkId,
        side: Side,
        from: LifeId,
    ) -> Option<(Vec<u8>, Option<&'static str>, Option<Arc<Vec<Entry>>>)> {
        let link: &mut Link = self.network.links.get_mut(&id)?;
        let queue = &mut link.queues[side as usize];
        match queue.front_mut()? {
            Part::Packet(_) => match queue.pop_front() {
                Some(Part::Packet(bytes)) => Some((bytes, None, None)),
                _ => unreachable!("just looked at"),
            },
            Part::Unmade(_) => None,
            Part::End(why) => {
                let why = *why;
                queue.clear();
                Some((Vec::new(), Some(why), None))
            }
            Part::Snapshot(snapshot) => {
                // Its maker is gone: what was sent of it has no end.
                let maker = self.members[from.member].life.as_ref().filter(|life| life.id == from)?;
                let tree: &Tree = &maker.tree.read();
                if tree.last_applied() < snapshot.zxid {
                    return None;
                }
                let mut bytes = Vec::new();
                let mut history = None;
                let departure = match &mut snapshot.departure {
                    Some(departure) => departure,
                    none => {
                        history = Some(snapshot.history.clone());
                        none.insert(Departure::new(tree, snapshot.zxid, &mut bytes))
                    }
                };
                if !departure.step(tree, 8, 4096, &mut bytes) {
                    queue.pop_front();
                }
                Some((bytes, None, history))
            }
        }
    }

    /// Takes what has come over a link, packet by packet.
    pub(super) fn hear(&mut self, life: &mut Life, id: LinkId, now: Now) {
        loop {
            let Some(inbound) = life.inbound.get_mut(&id) else { return };
            if let Some((_, arrival)) = life.arrival.as_mut().filter(|(from, _)| *from == id) {
                let used = arrival.take(inbound).expect("what was sent is a snapshot");
                inbound.advance(used);
                if !arrival.is_complete() {
                    return;
                }
                self.arrived(life, id, now);
                continue;
            }
            let (message, used) = match Packet::parse(inbound, 1 << 20).expect("what was sent is a packet") {
                Parsed::Short => return,
                Parsed::Whole(Packet { kind, zxid, data, .. }, used) => {
                    (Message::new(kind, zxid, data.map(|data| data.to_vec().into())), used)
                }
            };
            inbound.advance(used);
            if message.kind == PacketKind::AckEpoch {
                let reach = life.log.reach(1 << 20);
                life.replica.log_reaches(reach);
            }
            life.replica.hear(&life.tree.read(), &mut life.log.group, now, id, message);
            self.carry_out(life);
        }
    }

    /// A link breaks: some of what was on its way still arrives.
    pub(super) fn break_link(&mut self, id: LinkId) {
        for side in [Side::Leader, Side::Learner] {
            let Some(link) = self.network.links.get_mut(&id) else { return };
            let queue = &mut link.queues[side as usize];
            queue.truncate(self.random.random_range(0..=queue.len()));
            queue.push_back(Part::End("it broke"));
            self.plan_arrival(id, side);
        }
    }
}
