//! The clients' connections, and what goes over them.

use super::super::client::Phase;
use super::super::member::Life;
use super::*;
use corral_net::frame::Frames;
use corral_server::pipeline::WriteRequest;
use corral_server::replica::Replica;
use corral_server::session::ConnId;
use corral_server::worker::Port;
use rand::seq::IteratorRandom;
use std::ops::ControlFlow;

impl World {
    pub(super) fn client(&mut self, index: usize) {
        let at = self.now + Duration::from_micros(self.random.random_range(100..8_000));
        self.at(at, Event::Client(index));
        let (client, conn, heard) = &mut self.clients[index];
        match (client.phase, *conn) {
            (Phase::Away, None) => {
                let Some(member) = self.members.iter().filter(|member| member.life.is_some()).choose(&mut self.random)
                else {
                    return;
                };
                let server = member.life.as_ref().expect("it lives").id;
                self.next_conn += 1;
                let (id, frame) = (self.next_conn, client.connect());
                (*conn, *heard) = (Some(id), self.now);
                let (to_server, to_client) = (VecDeque::from([Some(frame)]), VecDeque::new());
                self.conns.insert(id, Conn { client: index, server, slot: None, to_server, to_client });
                self.send_to_server(id);
            }
            (_, Some(id)) => {
                let (patience, moves) = self.patience;
                let tired = client.waits() && self.now.saturating_sub(*heard) > patience;
                if tired || self.random.random_ratio(1, moves) {
                    client.disconnected();
                    *conn = None;
                    if let Some(conn) = self.conns.get_mut(&id) {
                        conn.to_server.push_back(None);
                        conn.to_client.clear();
                    }
                    return self.send_to_server(id);
                }
                let waited = client.waits();
                if let Some(frame) = client.ask() {
                    if !waited {
                        *heard = self.now;
                    }
                    if let Some(conn) = self.conns.get_mut(&id) {
                        conn.to_server.push_back(Some(frame));
                    }
                    self.send_to_server(id);
                }
            }
            (phase, None) => unreachable!("{phase:?} without a connection"),
        }
    }

    pub(super) fn send_to_server(&mut self, id: u64) {
        let at = self.now + self.network.delay(self.now, &mut self.random);
        self.at(at, Event::ToServer(id));
    }

    pub(super) fn arrive_at_server(&mut self, id: u64) {
        let Some(conn) = self.conns.get_mut(&id) else { return };
        let server = conn.server;
        if !self.is_alive(server) {
            return self.lose_conn(id);
        }
        let frames: Vec<_> = self.conns.get_mut(&id).expect("looked at just now").to_server.drain(..).collect();
        self.on_life(server.member, |world, life| {
            let conn = world.conns.get_mut(&id).expect("looked at just now");
            let slot = *conn.slot.get_or_insert_with(|| {
                let slot = life.worker.open().slot;
                life.conns.insert(slot, id);
                slot
            });
            for frame in frames {
                let now = life.now(world.now);
                let Life { worker, replica, tree, log, conns, .. } = life;
                if conns.get(&slot) != Some(&id) {
                    return;
                }
                match frame {
                    Some(frame) => {
                        let mut direct = Direct { replica, log: &mut log.group, now };
                        // It asks for so little that it never has to wait.
                        let _ = worker.frame(&tree.read(), &mut direct, now.uptime, slot, &frame);
                    }
                    None => {
                        worker.close(slot);
                        conns.remove(&slot);
                    }
                }
            }
        });
    }

    pub(super) fn arrive_at_client(&mut self, id: u64) {
        let Some(conn) = self.conns.get_mut(&id) else { return };
        let index = conn.client;
        let frames: Vec<_> = conn.to_client.drain(..).collect();
        for frame in frames {
            let (client, own, heard) = &mut self.clients[index];
            if *own != Some(id) {
                return;
            }
            *heard = self.now;
            match frame {
                Some(frame) => {
                    let said = client.hear(&frame);
                    let gone = client.phase == Phase::Away;
                    if gone {
                        *own = None;
                    }
                    if let Some(said) = said {
                        self.tell(None, || format!("client {} {said}", index + 1));
                    }
                }
                None => self.lose_conn(id),
            }
        }
    }

    /// The client hears that its connection is gone.
    pub(super) fn lose_conn(&mut self, id: u64) {
        let Some(conn) = self.conns.remove(&id) else { return };
        let (client, own, _) = &mut self.clients[conn.client];
        if *own == Some(id) {
            client.disconnected();
            *own = None;
        }
    }

    /// What connections have to be sent goes on its way.
    pub(super) fn flush(&mut self, life: &mut Life) {
        let mut dirty = Vec::new();
        life.worker.take_dirty(&mut dirty);
        for slot in dirty {
            let Some(conn) = life.conns.get(&slot).copied() else { continue };
            let Some((out, closing)) = life.worker.output(slot) else { continue };
            let mut frames = Vec::new();
            let len = out.rest().len();
            let whole = Frames::new(1 << 20).feed(out.rest(), |frame| {
                frames.push(Some(frame.to_vec()));
                ControlFlow::Continue(())
            });
            assert!(whole.is_ok(), "the worker's own frames");
            out.wrote(len);
            life.worker.sent(slot);
            if closing {
                frames.push(None);
                life.worker.close(slot);
                life.conns.remove(&slot);
            }
            let at = self.now + self.network.delay(self.now, &mut self.random);
            if let Some(conn) = self.conns.get_mut(&conn) {
                conn.to_client.extend(frames);
            }
            self.at(at, Event::ToClient(conn));
        }
    }
}

/// The way from the worker to the replica, on one core.
pub(super) struct Direct<'a> {
    pub(super) replica: &'a mut Replica,
    pub(super) log: &'a mut corral_engine::txnlog::Group,
    pub(super) now: Now,
}

impl Port for Direct<'_> {
    fn write(&mut self, tree: &Tree, request: &WriteRequest<'_>) -> bool {
        self.replica.request(tree, self.log, self.now, request);
        true
    }

    fn open_session(&mut self, tree: &Tree, conn: ConnId, timeout_ms: i32) -> bool {
        self.replica.open_session(tree, self.log, self.now, conn, timeout_ms);
        true
    }

    fn renew_session(&mut self, conn: ConnId, id: SessionId, password: &[u8], timeout_ms: i32) -> bool {
        self.replica.renew_session(self.now, conn, id, password, timeout_ms);
        true
    }
}
