//! The clients' connections, and what goes over them: each lives on one core of a server, which takes of it as much as it wants, and
//! sends no more than the client's side has room for.

use super::super::client::Phase;
use super::super::member::Shell;
use super::super::network::Pipe;
use super::steps::Cause;
use super::*;
use corral_engine::disk::simulated::Platter;
use corral_net::frame::Frames;
use corral_server::clients::worker::Worker;
use corral_server::machine::Machine;
use rand::seq::IteratorRandom;
use std::net::Ipv4Addr;
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
                let life = member.life.as_ref().expect("it lives");
                let core = self.random.random_range(0..life.cores.len());
                self.next_conn += 1;
                let (id, frame) = (self.next_conn, client.connect());
                (*conn, *heard) = (Some(id), self.now);
                let conn = Conn {
                    client: index,
                    server: life.shell.id,
                    core,
                    slot: None,
                    to_server: VecDeque::from([Some(frame)]),
                    unread: VecDeque::new(),
                    frames: Frames::new(1 << 20),
                    to_client: VecDeque::new(),
                    room: [100, 600, 4 << 10, 1 << 20][self.random.random_range(0..4)],
                    is_choked: false,
                    dozes_until: Duration::ZERO,
                };
                self.conns.insert(id, conn);
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
                let burst = if self.random.random_ratio(1, 20) { self.random.random_range(2..80) } else { 1 };
                let frames: Vec<Vec<u8>> = std::iter::from_fn(|| client.ask()).take(burst).collect();
                if frames.is_empty() {
                    return;
                }
                if !waited {
                    *heard = self.now;
                }
                if let Some(conn) = self.conns.get_mut(&id) {
                    conn.to_server.extend(frames.into_iter().map(Some));
                }
                self.send_to_server(id);
            }
            (phase, None) => unreachable!("{phase:?} without a connection"),
        }
    }

    fn send_to_server(&mut self, id: u64) {
        let at = self.now + self.network.delay(self.now, &mut self.random);
        self.at(at, Event::ToServer(id));
    }

    /// What a client has sent arrives, or it has taken what its server could not send more of.
    pub(super) fn arrive_at_server(&mut self, id: u64) {
        let Some(conn) = self.conns.get_mut(&id) else { return };
        let (server, core) = (conn.server, conn.core);
        conn.unread.append(&mut conn.to_server);
        if !self.is_alive(server) {
            return self.lose_conn(id);
        }
        self.on_core(server.member, core, Cause::Event, |world, machine, shell| {
            let conn = world.conns.get_mut(&id).expect("looked at just now");
            let slot = *conn.slot.get_or_insert_with(|| {
                let slot = machine.clients.worker.open(Ipv4Addr::LOCALHOST.into()).slot;
                shell.conns[core].insert(slot, id);
                slot
            });
            shell.unread[core].insert(slot);
            if std::mem::take(&mut conn.is_choked) {
                world.flush(&mut machine.clients.worker, shell, core, slot, false);
            }
        });
    }

    /// Lets the worker of a core have of what has arrived as much as it wants.
    pub(super) fn feed(&mut self, machine: &mut Machine<Platter, Pipe>, shell: &mut Shell, core: usize, now: Now) {
        for slot in std::mem::take(&mut shell.unread[core]) {
            let Some(id) = shell.conns[core].get(&slot).copied() else { continue };
            let Some(conn) = self.conns.get_mut(&id) else { continue };
            if let Some(None) = conn.unread.front() {
                machine.clients.worker.close(slot);
                shell.conns[core].remove(&slot);
                self.conns.remove(&id);
                continue;
            }
            if !conn.unread.is_empty() && machine.clients.worker.wants_more(slot) {
                machine.with_tree(now, |worker, tree, port| {
                    while let Some(Some(frame)) = conn.unread.pop_front_if(|next| next.is_some()) {
                        port.next_frame();
                        if worker.frame(tree, port, now.uptime, slot, &frame).is_break() {
                            break;
                        }
                    }
                });
            }
            if !conn.unread.is_empty() {
                shell.unread[core].insert(slot);
            }
        }
    }

    /// Whether a worker wants something that has arrived and was not read.
    pub(super) fn has_unread(&self, machine: &Machine<Platter, Pipe>, shell: &Shell, core: usize) -> bool {
        shell.unread[core].iter().any(|slot| {
            let conn = shell.conns[core].get(slot).and_then(|id| self.conns.get(id));
            conn.is_some_and(|conn| {
                let ends = matches!(conn.unread.front(), Some(None));
                ends || !conn.unread.is_empty() && machine.clients.worker.wants_more(*slot)
            })
        })
    }

    pub(super) fn arrive_at_client(&mut self, id: u64) {
        let late = self.now + Duration::from_millis(self.random.random_range(10..400));
        let dozes = self.random.random_ratio(1, 300);
        let Some(conn) = self.conns.get_mut(&id) else { return };
        if dozes {
            conn.dozes_until = late;
        }
        if conn.dozes_until > self.now {
            let at = conn.dozes_until;
            return self.at(at, Event::ToClient(id));
        }
        let index = conn.client;
        let frames: Vec<_> = conn.to_client.drain(..).collect();
        if conn.is_choked {
            self.send_to_server(id);
        }
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

    /// What a connection has to be sent goes on its way, as far as there is room.
    pub(super) fn flush(&mut self, worker: &mut Worker, shell: &mut Shell, core: usize, slot: u32, by_timer: bool) {
        let Some(id) = shell.conns[core].get(&slot).copied() else { return };
        let Some((out, closing)) = worker.output(slot) else { return };
        let conn = self.conns.get_mut(&id).expect("a connection that a worker has is there");
        let was_choked = conn.is_choked;
        let waiting: usize = conn.to_client.iter().flatten().map(Vec::len).sum();
        let count = out.rest().len().min(conn.room.saturating_sub(waiting));
        let mut frames = Vec::new();
        let whole = conn.frames.feed(&out.rest()[..count], |frame| {
            frames.push(Some(frame.to_vec()));
            ControlFlow::Continue(())
        });
        assert!(whole.is_ok(), "the worker's own frames");
        out.advance(count);
        conn.is_choked = !out.rest().is_empty();
        let is_choked = conn.is_choked;
        let answers = frames.iter().flatten().filter(|frame| is_answer(frame));
        assert!(
            !by_timer || was_choked || answers.count() == 0,
            "promptness: an answer has waited for time to pass, and for nothing else"
        );
        if !is_choked {
            worker.take_unsent(slot);
        }
        worker.sent(slot);
        if closing && !is_choked {
            frames.push(None);
            worker.close(slot);
            shell.conns[core].remove(&slot);
        }
        if frames.is_empty() && !is_choked {
            return;
        }
        conn.to_client.extend(frames);
        let at = self.now + self.network.delay(self.now, &mut self.random);
        self.at(at, Event::ToClient(id));
    }
}

/// What answers a request has the request's number, which is never 0 here; a handshake's answer begins with 0, an event with -1.
fn is_answer(frame: &[u8]) -> bool {
    frame.first_chunk().is_some_and(|xid| i32::from_be_bytes(*xid) > 0)
}
