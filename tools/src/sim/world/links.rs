//! Wires between members: who dials whom, and when what goes over them arrives.

use super::super::network::{LifeId, Side, WireId};
use super::steps::{Cause, REMOTE};
use super::*;
use corral_server::machine::Heard;

impl World {
    pub(super) fn dial(&mut self, id: LifeId, leader: ServerId) {
        let to = leader.0 as usize - 1;
        let heard = self.network.passes(self.now, id.member, to) && self.network.passes(self.now, to, id.member);
        let shell = self.members[to].life.as_ref().map(|life| &life.shell);
        let listens = shell.filter(|shell| shell.is_listening).map(|shell| shell.id);
        let is_awake = self.members[to].paused_until <= self.now;
        let mut made = None;
        if let Some(leads) = listens.filter(|_| heard && is_awake && self.is_alive(id)) {
            let [theirs, own] = self.network.connect(leads, id, &mut self.random);
            made = Some(own);
            self.on_core(to, 0, Cause::Event, |_, machine, shell| {
                shell.knocking.push_back(theirs);
                machine.knock();
            });
        }
        let at = self.now + self.network.delay(self.now, &mut self.random);
        self.at(at, Event::Dialed(id, leader, made));
    }

    pub(super) fn dialed(&mut self, id: LifeId, leader: ServerId, made: Option<Pipe>) {
        self.on_core(id.member, 0, Cause::Event, |_, _, shell| {
            shell.heard.push_back(Heard::Dialed(leader, made.map(|pipe| (pipe, REMOTE))));
        });
    }

    /// What was written to wires is on its way.
    pub(super) fn plan_wires(&mut self) {
        let touched = self.network.wires.borrow_mut().take_touched();
        for (id, side) in touched {
            let at = self.now + self.network.delay(self.now, &mut self.random);
            self.at(at, Event::Wire(id, side));
        }
    }

    /// Something arrives at one end of a wire.
    pub(super) fn arrive(&mut self, id: WireId, side: Side) {
        let wires = self.network.wires.clone();
        let ends = wires.borrow().get(id).map(|wire| (wire.end(side), wire.end(side.other())));
        let Some((to, from)) = ends else { return };
        if !self.network.passes(self.now, from.member, to.member) {
            wires.borrow_mut().wait(id, side);
            let at = self.within(20_000);
            return self.at(at, Event::Wire(id, side));
        }
        let most = [100, 4096, usize::MAX][self.random.random_range(0..3)];
        let arrived = wires.borrow_mut().arrive(id, side, most);
        let link = wires.borrow().get(id).and_then(|wire| wire.link(side));
        if let (Some(arrived), Some(link)) = (arrived, link)
            && self.is_alive(to)
        {
            self.on_core(to.member, 0, Cause::Event, |_, machine, _| {
                machine.link_event(link, arrived.is_readable, arrived.is_closed);
            });
        }
        self.plan_wires();
    }

    /// A wire breaks: some of what was on its way still arrives.
    pub(super) fn break_wire(&mut self, id: WireId) {
        for side in Side::BOTH {
            self.network.wires.borrow_mut().cut(id, side, &mut self.random);
        }
        self.plan_wires();
    }
}
