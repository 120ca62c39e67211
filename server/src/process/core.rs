//! One core's loop: wait, let the machine have what sockets brought, let it take its turn.
//!
//! `core-0` sleeps in the ring, where the disk and the sockets wake it alike; without a ring, and on the other cores, it sleeps in its
//! poll.
//!
//! **Invariant**: no sleep without having looked at every queue after having said so ([`corral_net::Doorbell`]).
//!
//! **Not here**: what a turn does ([`crate::machine`]), what that needs done ([`super::outside`]).

use super::conns::Conns;
use super::outside::{Around, Begin, Own};
use super::refusals::Refusals;
use super::{BELL, CoreMachine, Extra, LINKS, LISTENER, Shared};
use crate::admin::report::CoreReport;
use crate::budget::Bounds;
use crate::clients::worker::WorkerOptions;
use crate::consensus::leadership::LinkId;
use crate::machine::{Machine, Member, half_tick};
use crate::replica::Now;
use corral_engine::disk::device::Device;
use mio::net::TcpListener;
use mio::{Events, Interest, Poll, Token};
use std::io::ErrorKind;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// How often a core looks whether it may stop.
const STOP_STEP: Duration = Duration::from_millis(5);
/// Reports that have lists after they were wanted.
const LISTS_STAY: u64 = 8;
/// How long a stop waits for what is in flight.
const STOP_PATIENCE: Duration = Duration::from_secs(5);

pub(super) struct Core {
    index: usize,
    shared: Arc<Shared>,
    poll: Poll,
    listener: Option<TcpListener>,
    machine: CoreMachine,
    around: Around,
    reported: u64,
    housekeeping: Duration,
    next_housekeeping: Duration,
    stop_by: Option<Duration>,
    refusals: Refusals,
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
        let options = WorkerOptions {
            core: index as u16,
            seed,
            timeouts_ms: (config.min_session_timeout_ms as i32, config.max_session_timeout_ms as i32),
            outstanding_max: config.outstanding_max as usize,
            throttled_after: config.throttled_after_ms.map(|ms| Duration::from_millis(ms.into())),
            bounds: Bounds::PRODUCTION,
            access: config.access.clone(),
        };
        let registry = || poll.registry().try_clone().map_err(|error| format!("cannot share a poll: {error}"));
        let conns = Conns::new(index, shared.clone(), registry()?);
        let (member, own) = match begin {
            Some(begin) => {
                let (member, own) = Own::begin(&shared, registry()?, begin, seed)?;
                (Some(member), Some(own))
            }
            None => (None, None),
        };
        let tick = Duration::from_millis(config.tick_ms.into());
        Ok(Core {
            index,
            machine: Machine::new(shared.crossing.clone(), options, member, tick),
            around: Around { shared: shared.clone(), conns, own },
            housekeeping: half_tick(tick),
            shared,
            poll,
            listener,
            reported: 0,
            next_housekeeping: Duration::ZERO,
            stop_by: None,
            refusals: Refusals::default(),
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
                    Token(LINKS) => self.machine.knock(),
                    Token(token) if token > LINKS => {
                        let closed = event.is_read_closed() || event.is_error();
                        self.machine.link_event(LinkId((token - LINKS) as u64), event.is_readable(), closed);
                    }
                    Token(slot) => self.around.conns.event(&mut self.machine, slot, event, now),
                }
            }
            while let Some((stream, remote)) = self.shared.lines[self.index].handed_over.pop() {
                self.around.conns.adopt(&mut self.machine, stream, remote, now);
            }
            self.around.conns.read_again(&mut self.machine, now);
            self.machine.turn(now, &mut self.around)?;
            self.report();
            self.around.conns.answer_words(&mut self.machine.clients.worker, now);
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
        let until = self.machine.deadline().min(self.next_housekeeping);
        let mut timeout = until.saturating_sub(now);
        if self.has_work() {
            timeout = Duration::ZERO;
        } else if self.shared.stopping() {
            timeout = timeout.min(STOP_STEP);
        }
        let failed = |error: std::io::Error| format!("cannot wait for events: {error}");
        if let Some(Device::Ring(ring)) = self.machine.member.as_mut().map(Member::disk) {
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
        self.machine.has_work(&self.around)
            || self.around.conns.has_work()
            || !self.shared.lines[self.index].handed_over.is_empty()
            || self.shared.reports_wanted.load(Ordering::Relaxed) != self.reported
    }

    fn accept(&mut self, now: Now) {
        loop {
            let Some(listener) = &self.listener else { return };
            match listener.accept() {
                Ok((_, remote)) if self.shared.is_full() => {
                    let (max, by) = self.shared.conns_max;
                    let why = format_args!("Too many connections - max is {max} ({by}); {remote} is refused");
                    self.refusals.add(now.uptime, why).into_iter().for_each(|said| tracing::warn!("{said}"));
                }
                Ok((stream, remote)) => {
                    let home = self.home();
                    let passed_on = match home == self.index {
                        true => Err((stream, remote)),
                        false => self.shared.lines[home].handed_over.push((stream, remote)),
                    };
                    match passed_on {
                        Ok(()) => self.shared.lines[home].bell.ring(),
                        Err((stream, remote)) => self.around.conns.adopt(&mut self.machine, stream, remote, now),
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

    /// Reports what this core knows if somebody wants to know.
    fn report(&mut self) {
        let wanted = self.shared.reports_wanted.load(Ordering::SeqCst);
        if wanted == self.reported {
            return;
        }
        let before = std::mem::replace(&mut self.reported, wanted);
        // Some of the next reports have the lists as well: whoever wanted them may not have looked yet.
        let lists_wanted = self.shared.last_wanted(Extra::Lists);
        let with_lists = lists_wanted > 0 && lists_wanted + LISTS_STAY > wanted;
        let worker = &mut self.machine.clients.worker;
        if self.shared.last_wanted(Extra::ResetConnections) > before {
            worker.reset_connections();
        }
        if self.shared.last_wanted(Extra::ResetCounters) > before {
            worker.reset_counters();
            self.machine.member.iter_mut().for_each(Member::reset_counters);
        }
        let (clients, member) = (&self.machine.clients, self.machine.member.as_ref());
        let (conns, mut stages) = self.around.conns.report(&clients.worker);
        stages.add(&clients.stages);
        member.into_iter().for_each(|member| stages.add(member.timeline().stages()));
        let report = CoreReport {
            stages,
            workers: clients.worker.counters(),
            outstanding: clients.worker.outstanding(),
            watches: clients.worker.watches().len(),
            watched: if with_lists { clients.worker.watched() } else { Vec::new() },
            conns,
            replica: member.map(|member| member.report(with_lists)),
        };
        *self.shared.lines[self.index].report.lock() = (wanted, report);
        self.shared.ring_all();
    }

    /// What is done a few times a second: look whether the disks are where they were, close who is late.
    fn keep_house(&mut self, now: Now) -> Result<(), String> {
        self.next_housekeeping = now.uptime + self.housekeeping;
        if let Some(own) = &mut self.around.own {
            own.store.check_places().map_err(|error| error.to_string())?;
        }
        self.around.conns.close_late(&mut self.machine.clients.worker, now);
        if self.listener.is_some() {
            self.accept(now);
        }
        Ok(())
    }

    /// One step of stopping: true when this core has nothing left to do.
    fn wind_up(&mut self, now: Now) -> bool {
        let by = *self.stop_by.get_or_insert(now.uptime + STOP_PATIENCE);
        self.listener = None;
        let (worker, conns) = (&mut self.machine.clients.worker, &mut self.around.conns);
        let busy = worker.outstanding() > 0 || conns.has_unsent(worker);
        let last = self.machine.member.as_ref().is_none_or(|member| {
            member.is_idle() && self.shared.finished.load(Ordering::SeqCst) == self.shared.lines.len() - 1
        });
        if (busy || !last) && now.uptime < by {
            return false;
        }
        conns.close_all(worker);
        if self.machine.member.is_none() {
            self.shared.finished.fetch_add(1, Ordering::SeqCst);
            self.shared.lines[0].bell.ring();
        }
        true
    }
}
