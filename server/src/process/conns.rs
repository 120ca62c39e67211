//! The client connections of one core: accepted or handed over, read into frames for the worker, sent what it has to say, closed
//! politely. Four-letter words are answered here.
//!
//! **Invariants**: a socket's slot here is its connection's slot in the worker; a socket whose worker wants no more for now is
//! remembered, and read again without being told to.
//!
//! **Not here**: one socket ([`super::sockets`]), what frames mean ([`crate::clients::worker`]), the loop ([`super::core`]).

use super::refusals::Refusals;
use super::sockets::{DRAIN, Got, SCRATCH, Socket, State};
use super::{CoreMachine, Extra, Shared};
use crate::admin::report::ConnReport;
use crate::admin::words;
use crate::clients::worker::Worker;
use crate::replica::Now;
use crate::stages::{Stage, Stages};
use mio::net::TcpStream;
use mio::{Interest, Registry, Token};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// How long a closing connection has to take what is still to be sent to it.
const LAST_WORDS: Duration = Duration::from_secs(5);

/// The connections.
pub(super) struct Conns {
    core: usize,
    shared: Arc<Shared>,
    registry: Registry,
    sockets: Vec<Option<Socket>>,
    /// Sockets to be read although the poll says nothing: they were readable when the worker wanted no more of them.
    again: Vec<u32>,
    /// Connections whose four-letter word waits for all cores' reports.
    asking: Vec<(u32, &'static str, u64)>,
    scratch: Vec<u8>,
    dirty: Vec<u32>,
    /// The last stage of writes.
    stages: Stages,
    refusals: Refusals,
}

impl Conns {
    pub(super) fn new(core: usize, shared: Arc<Shared>, registry: Registry) -> Conns {
        Conns {
            core,
            shared,
            registry,
            sockets: Vec::new(),
            again: Vec::new(),
            asking: Vec::new(),
            scratch: vec![0; SCRATCH],
            dirty: Vec::new(),
            stages: Stages::default(),
            refusals: Refusals::default(),
        }
    }

    /// Takes a connection, unless there are too many from its address.
    pub(super) fn adopt(&mut self, machine: &mut CoreMachine, mut stream: TcpStream, remote: SocketAddr, now: Now) {
        let config = &self.shared.config;
        {
            let mut clients = self.shared.clients.lock();
            let mine = clients.entry(remote.ip()).or_default();
            if config.max_client_cnxns.is_some_and(|max| *mine >= max as usize) {
                let why = format_args!("Too many connections from {} - max is {mine}", remote.ip());
                self.refusals.add(now.uptime, why).into_iter().for_each(|said| tracing::warn!("{said}"));
                return;
            }
            *mine += 1;
        }
        let _ = stream.set_nodelay(true);
        if config.client_keep_alive {
            let _ = socket2::SockRef::from(&stream).set_keepalive(true);
        }
        let slot = machine.clients.worker.open(remote.ip()).slot;
        let both = Interest::READABLE | Interest::WRITABLE;
        let registered = self.registry.register(&mut stream, Token(slot as usize), both);
        let frame_max = config.frame_bytes_max as usize;
        let index = slot as usize;
        if self.sockets.len() <= index {
            self.sockets.resize_with(index + 1, || None);
        }
        self.sockets[index] = Some(Socket::new(stream, remote, frame_max, now.uptime, now.wall_ms));
        self.shared.lines[self.core].conns.fetch_add(1, Ordering::Relaxed);
        match registered {
            Ok(()) => self.read(machine, slot, now),
            Err(error) => {
                tracing::warn!("cannot wait for {remote}: {error}");
                self.close(&mut machine.clients.worker, slot);
            }
        }
    }

    fn close(&mut self, worker: &mut Worker, slot: u32) {
        let Some(mut socket) = self.sockets[slot as usize].take() else { return };
        let _ = self.registry.deregister(&mut socket.stream);
        self.asking.retain(|(asking, _, _)| *asking != slot);
        worker.close(slot);
        self.shared.lines[self.core].conns.fetch_sub(1, Ordering::Relaxed);
        let mut clients = self.shared.clients.lock();
        if let Some(count) = clients.get_mut(&socket.remote.ip()) {
            *count -= 1;
            if *count == 0 {
                clients.remove(&socket.remote.ip());
            }
        }
    }

    /// The poll has something to say of a connection.
    pub(super) fn event(&mut self, machine: &mut CoreMachine, slot: usize, event: &mio::event::Event, now: Now) {
        if let Some(socket) = self.sockets.get_mut(slot).and_then(Option::as_mut) {
            socket.half_closed |= event.is_read_closed() || event.is_error();
            socket.readable |= event.is_readable() || socket.half_closed;
            self.read(machine, slot as u32, now);
            if event.is_writable() {
                self.flush(&mut machine.clients.worker, slot as u32, now);
            }
        }
    }

    /// Reads the sockets that are to be read although the poll says nothing.
    pub(super) fn read_again(&mut self, machine: &mut CoreMachine, now: Now) {
        for slot in std::mem::take(&mut self.again) {
            if let Some(socket) = self.sockets[slot as usize].as_mut() {
                socket.listed = false;
                self.read(machine, slot, now);
            }
        }
    }

    /// Whether there is something to do that no event will tell of.
    pub(super) fn has_work(&self) -> bool {
        // Reports may have come while this core was not asleep yet, so that nobody rang.
        !self.again.is_empty() || self.asking.iter().any(|(_, _, wanted)| self.shared.reported(*wanted))
    }

    /// Reads a socket once and lets the worker have its frames, beginning with those that it did not want before.
    fn read(&mut self, machine: &mut CoreMachine, slot: u32, now: Now) {
        let index = slot as usize;
        let Some(socket) = self.sockets[index].as_mut() else { return };
        if let State::Draining(_) = socket.state {
            if socket.drain(&mut self.scratch) {
                self.close(&mut machine.clients.worker, slot);
            }
            return;
        }
        if socket.asked || self.shared.stopping() || !machine.clients.worker.wants_more(slot) {
            return;
        }
        let mut chunk = 0..0;
        let mut ended = false;
        if socket.frames.kept().len() < 4 + self.shared.config.frame_bytes_max as usize && socket.readable {
            match socket.read(&mut self.scratch) {
                Got::Bytes(start, len) => chunk = start..start + len,
                Got::Nothing => {}
                Got::End => ended = true,
                Got::Word(word) => {
                    socket.asked = true;
                    return self.word(&mut machine.clients.worker, slot, word);
                }
            }
        }
        let fed = machine.with_tree(now, |worker, tree, port| {
            let read = port.mark();
            socket.frames.feed(&self.scratch[chunk], |frame| {
                port.next_frame();
                worker.frame(tree, port, read, slot, frame)
            })
        });
        let worker = &mut machine.clients.worker;
        if fed.is_err() {
            return worker.hang_up(slot);
        }
        socket.ended |= ended;
        socket.readable &= !ended;
        socket.fed = fed.is_ok_and(|flow| flow.is_continue());
        if socket.readable || !socket.fed {
            self.remember(worker, slot);
        }
        self.close_if_ended(worker, slot);
    }

    /// Remembers to read this socket again without being told to.
    fn remember(&mut self, worker: &Worker, slot: u32) {
        let socket = self.sockets[slot as usize].as_mut().expect("only open sockets are read");
        if !socket.listed && worker.wants_more(slot) {
            socket.listed = true;
            self.again.push(slot);
        }
    }

    /// Sends all connections what there is to send them.
    pub(super) fn flush_all(&mut self, worker: &mut Worker, now: Now) {
        let mut dirty = std::mem::take(&mut self.dirty);
        worker.take_dirty(&mut dirty);
        for slot in dirty.drain(..) {
            self.flush(worker, slot, now);
        }
        self.dirty = dirty;
    }

    fn flush(&mut self, worker: &mut Worker, slot: u32, now: Now) {
        let Some(socket) = self.sockets.get_mut(slot as usize).and_then(Option::as_mut) else { return };
        let Some((out, closing)) = worker.output(slot) else { return };
        if socket.state != State::Open {
            return;
        }
        match socket.write(out.rest()) {
            Ok(n) => out.advance(n),
            Err(_) => return self.close(worker, slot),
        }
        let unsent = !out.rest().is_empty();
        if closing && unsent {
            // Who does not read our last words does not keep us either.
            socket.close_by.get_or_insert(now.uptime + LAST_WORDS);
        }
        if !unsent && let Some((applied, answers)) = worker.take_unsent(slot) {
            self.stages.record(Stage::Reply, self.shared.uptime().saturating_sub(applied), answers);
        }
        worker.sent(slot);
        if closing && !unsent {
            socket.shut(now.uptime + DRAIN);
            if socket.drain(&mut self.scratch) {
                self.close(worker, slot);
            }
        } else if !socket.listed && (socket.readable || !socket.frames.kept().is_empty()) {
            self.remember(worker, slot);
        }
        self.close_if_ended(worker, slot);
    }

    /// Closes a connection whose client has shut its side, once everything that it asked for before is answered.
    fn close_if_ended(&mut self, worker: &mut Worker, slot: u32) {
        let Some(socket) = self.sockets[slot as usize].as_ref() else { return };
        if socket.ended && socket.fed && worker.is_idle(slot) {
            self.close(worker, slot);
        }
    }

    fn word(&mut self, worker: &mut Worker, slot: u32, word: &'static str) {
        if !self.shared.config.words.allows(word) {
            return say(worker, slot, &words::not_allowed(word));
        }
        let extra = match word {
            "wchs" | "wchc" | "wchp" | "hash" | "dump" => Some(Extra::Lists),
            "crst" => Some(Extra::ResetConnections),
            "srst" => Some(Extra::ResetCounters),
            _ => None,
        };
        let wanted = self.shared.want_reports(extra);
        self.asking.push((slot, word, wanted));
        self.shared.ring_all();
    }

    /// Answers the words whose reports are all there.
    pub(super) fn answer_words(&mut self, worker: &mut Worker, now: Now) {
        if self.asking.is_empty() {
            return;
        }
        let mut waiting = Vec::new();
        for (slot, word, wanted) in std::mem::take(&mut self.asking) {
            if !self.shared.reported(wanted) {
                waiting.push((slot, word, wanted));
            } else if self.sockets[slot as usize].is_some() {
                say(worker, slot, &words::answer(word, &self.shared.facts, &self.shared.report()));
            }
        }
        self.asking = waiting;
        self.flush_all(worker, now);
    }

    /// What `cons` shows, and the last stage of writes.
    pub(super) fn report(&self, worker: &Worker) -> (Vec<ConnReport>, Stages) {
        let conns = self.sockets.iter().enumerate().filter_map(|(slot, socket)| {
            let socket = socket.as_ref().filter(|socket| socket.state == State::Open)?;
            let (session, counters, outstanding) = worker.describe(slot as u32);
            Some(ConnReport { remote: socket.remote, session, since_ms: socket.since_ms, counters, outstanding })
        });
        (conns.collect(), self.stages.clone())
    }

    /// Closes who never shook hands, or does not take its last words, and ends drained sockets.
    pub(super) fn close_late(&mut self, worker: &mut Worker, now: Now) {
        let patience = Duration::from_millis(self.shared.config.sessionless_cnxn_timeout_ms.into());
        for slot in 0..self.sockets.len() as u32 {
            let Some(socket) = self.sockets[slot as usize].as_ref() else { continue };
            let late = match socket.state {
                State::Draining(until) => now.uptime >= until,
                State::Open => {
                    let silent = now.uptime >= socket.since + patience && !worker.has_session(slot);
                    silent || socket.close_by.is_some_and(|by| now.uptime >= by)
                }
            };
            if late {
                self.close(worker, slot);
            }
        }
    }

    /// Whether some connection has not been sent everything.
    pub(super) fn has_unsent(&self, worker: &mut Worker) -> bool {
        let is_unsent = |slot: usize| worker.output(slot as u32).is_some_and(|(out, _)| !out.rest().is_empty());
        (0..self.sockets.len()).filter(|slot| self.sockets[*slot].is_some()).any(is_unsent)
    }

    /// Closes all.
    pub(super) fn close_all(&mut self, worker: &mut Worker) {
        (0..self.sockets.len() as u32).for_each(|slot| self.close(worker, slot));
    }
}

fn say(worker: &mut Worker, slot: u32, text: &str) {
    if let Some((out, _)) = worker.output(slot) {
        out.extend(text.as_bytes());
        worker.hang_up(slot);
    }
}
