//! One core's loop: wait, read sockets, let the worker (and on `core-0` the replica and the log) take their steps, write.
//!
//! `core-0` hands its batch to the disk before it writes other answers, and then sleeps in the ring, where that write and the
//! sockets wake it alike; without a ring, and on the other cores, it sleeps in its poll.
//!
//! **Invariant**: no sleep without having looked at every queue after having said so ([`corral_net::Doorbell`]).

use super::driver::Driver;
use super::peers::OPEN;
use super::port::{Direct, Queue, Timed, ToReplica, Way};
use super::sockets::{DRAIN, Got, SCRATCH, Socket, State};
use super::{BELL, Begin, LINKS, LISTENER, Shared};
use crate::admin::report::{ConnReport, CoreReport};
use crate::admin::words;
use crate::delivery::Delivery;
use crate::replica::Now;
use crate::stages::{Stage, Stages};
use crate::worker::{Worker, WorkerOptions};
use corral_engine::Tree;
use corral_engine::disk::device::Device;
use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token};
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// How often a core looks whether it may stop.
const STOP_STEP: Duration = Duration::from_millis(5);
/// How long a closing connection has to take what is still to be sent to it.
const LAST_WORDS: Duration = Duration::from_secs(5);
/// So many answers to clients are few.
const FEW: usize = 4;
/// How long a stop waits for what is in flight.
const STOP_PATIENCE: Duration = Duration::from_secs(5);

pub(super) struct Core {
    index: usize,
    shared: Arc<Shared>,
    poll: Poll,
    listener: Option<TcpListener>,
    worker: Worker,
    sockets: Vec<Option<Socket>>,
    driver: Option<Driver>,
    stages: Stages,
    /// Sockets to be read although the poll says nothing: they were readable when the worker wanted no more of them.
    again: Vec<u32>,
    /// Connections whose four-letter word waits for all cores' reports.
    asking: Vec<(u32, &'static str, u64)>,
    scratch: Vec<u8>,
    dirty: Vec<u32>,
    reported: u64,
    housekeeping: Duration,
    next_housekeeping: Duration,
    stop_by: Option<Duration>,
}

impl Core {
    pub(super) fn new(
        index: usize,
        shared: Arc<Shared>,
        poll: Poll,
        mut listener: Option<TcpListener>,
        begin: Option<Begin>,
        seed: u64,
    ) -> Result<Core, String> {
        if let Some(listener) = &mut listener {
            poll.registry()
                .register(listener, LISTENER, Interest::READABLE)
                .map_err(|error| format!("cannot wait for connections: {error}"))?;
        }
        let config = &shared.config;
        let worker = Worker::new(WorkerOptions {
            core: index as u16,
            seed,
            timeouts_ms: (config.min_session_timeout_ms as i32, config.max_session_timeout_ms as i32),
            outstanding_max: config.global_outstanding_limit as usize,
        });
        let driver = begin.map(|begin| {
            let Begin { store, recovered, membership } = begin;
            Driver::new(&shared, poll.registry(), store, &recovered, membership, seed)
        });
        let driver = driver.transpose()?;
        // Sessions hear of their clients' pings twice a tick, as from Apache's followers.
        let housekeeping = Duration::from_millis(u64::from(config.tick_ms / 2).clamp(1, 1000));
        Ok(Core {
            index,
            shared,
            poll,
            listener,
            worker,
            sockets: Vec::new(),
            driver,
            stages: Stages::default(),
            again: Vec::new(),
            asking: Vec::new(),
            scratch: vec![0; SCRATCH],
            dirty: Vec::new(),
            reported: 0,
            housekeeping,
            next_housekeeping: Duration::ZERO,
            stop_by: None,
        })
    }

    /// Runs until the server stops.
    ///
    /// # Errors
    /// One line for the operator. Nothing is acknowledged after it.
    pub(super) fn run(&mut self) -> Result<(), String> {
        let mut events = Events::with_capacity(1024);
        loop {
            self.wait(&mut events)?;
            let now = self.shared.now();
            for event in &events {
                match event.token() {
                    BELL => {}
                    LISTENER => self.accept(now),
                    Token(token) if token >= LINKS => {
                        let peers = self.driver.as_mut().and_then(|driver| driver.peers.as_mut());
                        let closed = event.is_read_closed() || event.is_error();
                        peers.expect("links are core-0's").event(token, event.is_readable(), closed);
                    }
                    Token(slot) => {
                        if let Some(socket) = self.sockets.get_mut(slot).and_then(Option::as_mut) {
                            socket.half_closed |= event.is_read_closed() || event.is_error();
                            socket.readable |= event.is_readable() || socket.half_closed;
                            self.read(slot as u32, now);
                            if event.is_writable() {
                                self.flush(slot as u32, now);
                            }
                        }
                    }
                }
            }
            while let Some((stream, remote)) = self.shared.lines[self.index].handed_over.pop() {
                self.adopt(stream, remote, now);
            }
            for slot in std::mem::take(&mut self.again) {
                if let Some(socket) = self.sockets[slot as usize].as_mut() {
                    socket.listed = false;
                    self.read(slot, now);
                }
            }
            self.step(now)?;
            self.flush_all(now);
            self.answer_words(now);
            if now.uptime >= self.next_housekeeping {
                self.keep_house(now)?;
            }
            if self.shared.stopping() {
                if let Some(failure) = self.shared.failure.lock().take() {
                    return Err(failure);
                }
                if self.wind_up(now) {
                    return Ok(());
                }
            }
        }
    }

    fn wait(&mut self, events: &mut Events) -> Result<(), String> {
        let bell = &self.shared.lines[self.index].bell;
        bell.about_to_sleep();
        let now = self.shared.uptime();
        let deadline = self.driver.as_ref().and_then(Driver::deadline);
        let until = deadline.into_iter().fold(self.next_housekeeping, Duration::min);
        let mut timeout = until.saturating_sub(now);
        if self.has_work() {
            timeout = Duration::ZERO;
        } else if self.shared.stopping() {
            timeout = timeout.min(STOP_STEP);
        }
        let failed = |error: std::io::Error| format!("cannot wait for events: {error}");
        let ring = self.driver.as_mut().map(Driver::disk);
        if let Some(Device::Ring(ring)) = ring {
            let readable = ring.wait(self.poll.as_raw_fd(), timeout);
            if !readable.inspect_err(|_| bell.awake()).map_err(failed)? {
                bell.awake();
                events.clear();
                return Ok(());
            }
            timeout = Duration::ZERO;
        }
        let polled = self.poll.poll(events, Some(timeout));
        // Only now: a bell that is rung while this thread sleeps in the poll must wake it.
        bell.awake();
        match polled {
            Err(error) if error.kind() != ErrorKind::Interrupted => Err(failed(error)),
            _ => Ok(()),
        }
    }

    /// Whether there is something to do that no event will tell of.
    fn has_work(&self) -> bool {
        let line = &self.shared.lines[self.index];
        let wanted = self.shared.reports_wanted.load(Ordering::Relaxed) != self.reported;
        let inbox = self.index == 0 && !self.shared.inbox.is_empty();
        let more = self.driver.as_ref().is_some_and(|driver| driver.has_more(&self.shared));
        // Reports may have come while this core was not asleep yet, so that nobody rang.
        let answerable = self.asking.iter().any(|(_, _, wanted)| self.shared.reported(*wanted));
        !self.again.is_empty()
            || answerable
            || more
            || self.worker.has_ready()
            || !line.deliveries.is_empty()
            || !line.handed_over.is_empty()
            || wanted
            || inbox
    }

    /// Runs `work` with the worker, a tree that does not change meanwhile, and the way to the replica; before that, the worker is
    /// told of everything that led to that tree.
    fn with_tree<R>(&mut self, now: Now, work: impl FnOnce(&mut Worker, &Tree, &mut Timed<'_>) -> R) -> R {
        let tree = self.shared.tree.read();
        let line = &self.shared.lines[self.index];
        let result = match &mut self.driver {
            Some(driver) => {
                let Driver { replica, log, timeline, .. } = driver;
                let log = &mut log.as_mut().expect(OPEN).group;
                let direct = Direct { replica, log, timeline, now };
                let mut port = Timed::new(&self.shared, &mut self.stages, Way::Direct(direct));
                work(&mut self.worker, &tree, &mut port)
            }
            None => {
                let mut port = Timed::new(&self.shared, &mut self.stages, Way::Queue(Queue(&self.shared)));
                while let Some(delivery) = line.deliveries.pop() {
                    self.worker.deliver(now.uptime, &delivery);
                }
                self.worker.retry(&tree, &mut port, now.uptime);
                if self.shared.apply_waits.load(Ordering::SeqCst)
                    && self.shared.apply_waits.swap(false, Ordering::SeqCst)
                {
                    self.shared.lines[0].bell.ring();
                }
                work(&mut self.worker, &tree, &mut port)
            }
        };
        line.watching.store(!self.worker.watches().is_empty(), Ordering::Relaxed);
        result
    }

    /// What the replica, the log and the worker have to do besides what sockets bring.
    fn step(&mut self, now: Now) -> Result<(), String> {
        if let Some(driver) = &mut self.driver {
            if driver.replica.next_expiry().is_some_and(|deadline| deadline <= now.uptime) {
                // Whoever was heard of in this very round must not expire in it, however long the round before took.
                driver.replica.touch(&self.worker.take_heard(), now.uptime);
            }
            driver.take_inbox(&self.shared, now);
            driver.hear_peers(&self.shared, now)?;
            driver.submit(now)?;
            if driver.has_commands() {
                driver.tell_peers(&self.shared, now)?;
            }
            let later = self.shared.now();
            driver.complete(later)?;
            let own = driver.apply(&self.shared, !self.worker.watches().is_empty(), later);
            self.deliver(own, later);
            // A few answers leave before the learners hear of the commit; many would keep their clients waiting.
            if self.worker.dirty() <= FEW {
                self.flush_all(later);
            }
            // What was held behind an answered write may have become the next batch, and the disk may be free.
            let driver = self.driver.as_mut().expect("core-0 keeps it");
            driver.submit(later)?;
            driver.tell_peers(&self.shared, later)?;
            driver.see_to_snapshots(later);
        }
        if self.worker.is_stalled() || !self.shared.lines[self.index].deliveries.is_empty() {
            self.with_tree(now, |worker, tree, port| worker.retry(tree, port, now.uptime));
        }
        Ok(())
    }

    fn deliver(&mut self, deliveries: Vec<Delivery>, now: Now) {
        if !deliveries.is_empty() {
            self.with_tree(now, |worker, tree, port| {
                deliveries.iter().for_each(|delivery| worker.deliver(now.uptime, delivery));
                worker.retry(tree, port, now.uptime);
            });
        }
    }

    fn accept(&mut self, now: Now) {
        loop {
            let Some(listener) = &self.listener else { return };
            match listener.accept() {
                Ok((stream, remote)) => {
                    let home = self.home();
                    if home == self.index {
                        self.adopt(stream, remote, now);
                    } else {
                        let line = &self.shared.lines[home];
                        match line.handed_over.push((stream, remote)) {
                            Ok(()) => line.bell.ring(),
                            Err((stream, remote)) => self.adopt(stream, remote, now),
                        }
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::ConnectionAborted => {}
                Err(error) => {
                    // Out of descriptors, mostly. The listener stays readable; try again with the next round of housekeeping.
                    tracing::warn!("cannot accept a connection: {error}");
                    return;
                }
            }
        }
    }

    /// Which core a new connection lives on.
    fn home(&self) -> usize {
        let count = |core: usize| self.shared.lines[core].conns.load(Ordering::Relaxed);
        super::placement::home(self.index, self.shared.config.replica_own_core, count)
    }

    fn adopt(&mut self, mut stream: TcpStream, remote: SocketAddr, now: Now) {
        let config = &self.shared.config;
        let total: usize = self.shared.lines.iter().map(|line| line.conns.load(Ordering::Relaxed)).sum();
        if config.max_cnxns.is_some_and(|max| total >= max as usize) {
            tracing::warn!("Too many connections - max is {}", config.max_cnxns.unwrap_or_default());
            return;
        }
        {
            let mut clients = self.shared.clients.lock();
            let mine = clients.entry(remote.ip()).or_default();
            if config.max_client_cnxns.is_some_and(|max| *mine >= max as usize) {
                tracing::warn!("Too many connections from {} - max is {mine}", remote.ip());
                return;
            }
            *mine += 1;
        }
        let _ = stream.set_nodelay(true);
        if config.client_keep_alive {
            let _ = socket2::SockRef::from(&stream).set_keepalive(true);
        }
        let slot = self.worker.open().slot;
        let both = Interest::READABLE | Interest::WRITABLE;
        let registered = self.poll.registry().register(&mut stream, Token(slot as usize), both);
        let frame_max = config.frame_bytes_max as usize;
        let index = slot as usize;
        if self.sockets.len() <= index {
            self.sockets.resize_with(index + 1, || None);
        }
        self.sockets[index] = Some(Socket::new(stream, remote, frame_max, now.uptime, now.wall_ms));
        self.shared.lines[self.index].conns.fetch_add(1, Ordering::Relaxed);
        match registered {
            Ok(()) => self.read(slot, now),
            Err(error) => {
                tracing::warn!("cannot wait for {remote}: {error}");
                self.close(slot);
            }
        }
    }

    fn close(&mut self, slot: u32) {
        let Some(mut socket) = self.sockets[slot as usize].take() else { return };
        let _ = self.poll.registry().deregister(&mut socket.stream);
        self.asking.retain(|(asking, _, _)| *asking != slot);
        self.worker.close(slot);
        self.shared.lines[self.index].conns.fetch_sub(1, Ordering::Relaxed);
        let mut clients = self.shared.clients.lock();
        if let Some(count) = clients.get_mut(&socket.remote.ip()) {
            *count -= 1;
            if *count == 0 {
                clients.remove(&socket.remote.ip());
            }
        }
    }

    /// Reads a socket once and lets the worker have its frames, beginning with those that it did not want before.
    fn read(&mut self, slot: u32, now: Now) {
        let index = slot as usize;
        let Some(socket) = self.sockets[index].as_mut() else { return };
        if let State::Draining(_) = socket.state {
            if socket.drain(&mut self.scratch) {
                self.close(slot);
            }
            return;
        }
        if socket.asked || self.shared.stopping() || !self.worker.wants_more(slot) {
            return;
        }
        let mut scratch = std::mem::take(&mut self.scratch);
        let mut chunk = 0..0;
        let mut ended = false;
        if socket.frames.kept().len() < 4 + self.shared.config.frame_bytes_max as usize && socket.readable {
            match socket.read(&mut scratch) {
                Got::Bytes(start, len) => chunk = start..start + len,
                Got::Nothing => {}
                Got::End => ended = true,
                Got::Word(word) => {
                    socket.asked = true;
                    self.scratch = scratch;
                    self.word(slot, word);
                    return;
                }
            }
        }
        let mut frames = std::mem::replace(&mut socket.frames, corral_net::Frames::new(0));
        let fed = self.with_tree(now, |worker, tree, port| {
            let read = port.mark();
            frames.feed(&scratch[chunk], |frame| {
                port.next_frame();
                worker.frame(tree, port, read, slot, frame)
            })
        });
        self.scratch = scratch;
        let socket = self.sockets[index].as_mut().expect("nobody closes it meanwhile");
        socket.frames = frames;
        if fed.is_err() {
            self.worker.hang_up(slot);
            return;
        }
        socket.ended |= ended;
        socket.readable &= !ended;
        socket.fed = fed.is_ok_and(|flow| flow.is_continue());
        if socket.readable || !socket.fed {
            self.read_again(slot);
        }
        self.close_if_ended(slot);
    }

    /// Remembers to read this socket again without being told to.
    fn read_again(&mut self, slot: u32) {
        let socket = self.sockets[slot as usize].as_mut().expect("only open sockets are read");
        if !socket.listed && self.worker.wants_more(slot) {
            socket.listed = true;
            self.again.push(slot);
        }
    }

    fn flush_all(&mut self, now: Now) {
        let mut dirty = std::mem::take(&mut self.dirty);
        self.worker.take_dirty(&mut dirty);
        // The batch goes to the disk before answers go to sockets: the disk is what takes long.
        if !dirty.is_empty()
            && let Some(Device::Ring(ring)) = self.driver.as_mut().map(Driver::disk)
        {
            ring.submit_queued();
        }
        for slot in dirty.drain(..) {
            self.flush(slot, now);
        }
        self.dirty = dirty;
    }

    fn flush(&mut self, slot: u32, now: Now) {
        let Some(socket) = self.sockets.get_mut(slot as usize).and_then(Option::as_mut) else { return };
        let Some((out, closing)) = self.worker.output(slot) else { return };
        if socket.state != State::Open {
            return;
        }
        match socket.write(out.rest()) {
            Ok(n) => out.wrote(n),
            Err(_) => return self.close(slot),
        }
        let unsent = !out.rest().is_empty();
        if closing && unsent {
            // Who does not read our last words does not keep us either.
            socket.close_by.get_or_insert(now.uptime + LAST_WORDS);
        }
        if !unsent && let Some((applied, answers)) = self.worker.take_unsent(slot) {
            self.stages.record(Stage::Reply, self.shared.uptime().saturating_sub(applied), answers);
        }
        self.worker.sent(slot);
        if closing && !unsent {
            socket.shut(now.uptime + DRAIN);
            if socket.drain(&mut self.scratch) {
                self.close(slot);
            }
        } else if !socket.listed && (socket.readable || !socket.frames.kept().is_empty()) {
            self.read_again(slot);
        }
        self.close_if_ended(slot);
    }

    /// Closes a connection whose client has shut its side, once everything that it asked for before is answered.
    fn close_if_ended(&mut self, slot: u32) {
        let Some(socket) = self.sockets[slot as usize].as_ref() else { return };
        if socket.ended && socket.fed && self.worker.is_idle(slot) {
            self.close(slot);
        }
    }

    fn word(&mut self, slot: u32, word: &'static str) {
        if !self.shared.config.words.allows(word) {
            return self.say(slot, &words::not_allowed(word));
        }
        let wanted = self.shared.reports_wanted.fetch_add(1, Ordering::SeqCst) + 1;
        self.asking.push((slot, word, wanted));
        self.shared.ring_all();
    }

    fn say(&mut self, slot: u32, text: &str) {
        if let Some((out, _)) = self.worker.output(slot) {
            out.extend(text.as_bytes());
            self.worker.hang_up(slot);
        }
    }

    /// Reports what this core knows if somebody wants to know, and answers the words whose reports are all there.
    fn answer_words(&mut self, now: Now) {
        let wanted = self.shared.reports_wanted.load(Ordering::SeqCst);
        if wanted != self.reported {
            self.reported = wanted;
            let report = self.report();
            *self.shared.lines[self.index].report.lock() = (wanted, report);
            self.shared.ring_all();
        }
        if self.asking.is_empty() {
            return;
        }
        let mut waiting = Vec::new();
        for (slot, word, wanted) in std::mem::take(&mut self.asking) {
            if !self.shared.reported(wanted) {
                waiting.push((slot, word, wanted));
            } else if self.sockets[slot as usize].is_some() {
                self.say(slot, &words::answer(word, &self.shared.facts, &self.shared.report()));
            }
        }
        self.asking = waiting;
        self.flush_all(now);
    }

    fn report(&self) -> CoreReport {
        let conns = self.sockets.iter().enumerate().filter_map(|(slot, socket)| {
            let socket = socket.as_ref().filter(|socket| socket.state == State::Open)?;
            let (session, counters, outstanding) = self.worker.describe(slot as u32);
            Some(ConnReport { remote: socket.remote, session, since_ms: socket.since_ms, counters, outstanding })
        });
        let mut stages = self.stages.clone();
        if let Some(driver) = &self.driver {
            stages.add(driver.timeline.stages());
        }
        CoreReport {
            stages,
            workers: self.worker.counters(),
            outstanding: self.worker.outstanding(),
            watches: self.worker.watches().len(),
            conns: conns.collect(),
            replica: self.driver.as_ref().map(|driver| driver.report(&self.shared)),
        }
    }

    /// What is done a few times a second: tell the sessions who was heard of, close who never shook hands, end drained sockets.
    fn keep_house(&mut self, now: Now) -> Result<(), String> {
        self.next_housekeeping = now.uptime + self.housekeeping;
        if let Some(driver) = &mut self.driver {
            driver.store.check_places().map_err(|error| error.to_string())?;
        }
        let heard = self.worker.take_heard();
        if !heard.is_empty() {
            match &mut self.driver {
                Some(driver) => driver.replica.touch(&heard, now.uptime),
                None => {
                    if let Err(ToReplica::Heard(heard)) = self.shared.inbox.push(ToReplica::Heard(heard)) {
                        self.worker.heard_still(heard);
                    }
                }
            }
        }
        let patience = Duration::from_millis(self.shared.config.sessionless_cnxn_timeout_ms.into());
        for slot in 0..self.sockets.len() as u32 {
            let Some(socket) = self.sockets[slot as usize].as_ref() else { continue };
            let late = match socket.state {
                State::Draining(until) => now.uptime >= until,
                State::Open => {
                    let silent = now.uptime >= socket.since + patience && !self.worker.has_session(slot);
                    silent || socket.close_by.is_some_and(|by| now.uptime >= by)
                }
            };
            if late {
                self.close(slot);
            }
        }
        if self.listener.is_some() {
            self.accept(now);
        }
        Ok(())
    }

    /// One step of stopping: true when this core has nothing left to do.
    fn wind_up(&mut self, now: Now) -> bool {
        let by = *self.stop_by.get_or_insert(now.uptime + STOP_PATIENCE);
        self.listener = None;
        let unsent = (0..self.sockets.len()).any(|slot| {
            self.sockets[slot].is_some()
                && self.worker.output(slot as u32).is_some_and(|(out, _)| !out.rest().is_empty())
        });
        let busy = self.worker.outstanding() > 0 || unsent;
        let last = self.driver.as_ref().is_none_or(|driver| {
            driver.is_idle() && self.shared.finished.load(Ordering::SeqCst) == self.shared.lines.len() - 1
        });
        if (busy || !last) && now.uptime < by {
            return false;
        }
        for slot in 0..self.sockets.len() as u32 {
            self.close(slot);
        }
        if self.driver.is_none() {
            self.shared.finished.fetch_add(1, Ordering::SeqCst);
            self.shared.lines[0].bell.ring();
        }
        true
    }
}
