//! One thread of the load: its clients, one poll, and the timers of an open loop.
//!
//! 1. All its clients connect, a few at a time (a server's backlog of pending connections may be short).
//! 2. It says that it is ready and waits for the start, which gives the window.
//! 3. Until the end of the window: poll, take replies, send; due arrivals come out of a heap. Nothing allocates here.
//! 4. After it, what was sent is waited for, and what an open loop still owes is sent, for a while; then sessions close.
//!
//! **Not here**: what is measured ([`super::measure`]), what a client does with an event ([`super::client`]).

use super::alarm::Alarm;
use super::client::{Client, Clock, Context};
use super::measure::{Live, LiveDelta, Tally, Window};
use super::plan::{Arrivals, Plan, Schedule};
use super::workload::{Asker, Workload};
use corral_net::client::ClientError;
use mio::{Events, Poll, Token};
use rustix::time::{ClockId, clock_gettime};
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::io;
use std::net::SocketAddr;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, Sender};
use std::time::Duration;

const ALARM: Token = Token(usize::MAX);
/// Large enough for the answers to a full pipeline of small requests; more is read in the next turn.
const SCRATCH: usize = 256 << 10;
const EVENTS_MAX: usize = 1024;
const CONNECTING_MAX: usize = 16;
const TICK_NS: u64 = 50_000_000;
/// How long after the end of the window an open loop still sends what it owes.
const BACKLOG_NS: u64 = 2_000_000_000;
/// How long after that the last answers are waited for.
const ANSWERS_NS: u64 = 5_000_000_000;
const CONNECT_NS: u64 = 20_000_000_000;
const FAREWELL_NS: u64 = 1_000_000_000;

/// What one thread has to do. Clients are numbered across all threads.
#[derive(Debug)]
pub(crate) struct Job {
    /// This thread's clients.
    pub clients: Range<usize>,
    /// All threads' clients.
    pub connections: usize,
    pub hosts: Vec<SocketAddr>,
    pub session_timeout: Duration,
    pub outstanding: usize,
    /// Arrivals of all threads together, a second; `None` for a closed loop.
    pub rate: Option<(f64, Arrivals)>,
    pub workload: Arc<Workload>,
    pub seed: u64,
    pub clock: Clock,
    pub live: Arc<Live>,
    /// Set when the user wants to end the run now.
    pub stop: Arc<AtomicBool>,
}

/// Why a thread could not do its job.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WorkerError {
    #[error(transparent)]
    Client(#[from] ClientError),
    #[error("a load thread cannot wait for its sockets: {0}")]
    Poll(#[from] io::Error),
    /// Another thread failed, which says why.
    #[error("the run was called off")]
    CalledOff,
}

/// Does the job; says `ready` once, with success or not, and begins when `start` says so.
pub(crate) fn run(
    job: &Job,
    ready: &Sender<Result<(), WorkerError>>,
    start: &Receiver<Window>,
) -> Result<Tally, WorkerError> {
    let mut worker = match Worker::connected(job) {
        Ok(worker) => worker,
        Err(error) => {
            // The other end may be gone already because another thread failed first.
            let _ = ready.send(Err(error));
            return Err(WorkerError::CalledOff);
        }
    };
    let _ = ready.send(Ok(()));
    let window = start.recv().map_err(|_| WorkerError::CalledOff)?;
    worker.load(job, window)?;
    worker.farewell()?;
    Ok(worker.context.tally)
}

struct Worker {
    poll: Poll,
    alarm: Alarm,
    /// The moment the alarm is set to, `u64::MAX` for none.
    alarm_at: u64,
    clients: Vec<Client>,
    context: Context,
    /// When which client's next request is due; only clients that wait for nothing else.
    timers: BinaryHeap<Reverse<(u64, usize)>>,
}

impl Worker {
    fn connected(job: &Job) -> Result<Worker, WorkerError> {
        let poll = Poll::new()?;
        let registry = poll.registry().try_clone()?;
        let alarm = Alarm::register(&registry, ALARM)?;
        let window = Window { begin: 0, from: 0, end: 0 };
        let context = Context {
            registry,
            clock: job.clock,
            hosts: job.hosts.clone(),
            session_timeout: job.session_timeout,
            outstanding: job.outstanding,
            workload: job.workload.clone(),
            window,
            tally: Tally::new(window, job.rate.is_some()),
            live: LiveDelta::default(),
            scratch: vec![0; SCRATCH],
        };
        let clients = job
            .clients
            .clone()
            .enumerate()
            .map(|(place, index)| {
                let asker = Asker::new(&job.workload, index, job.seed);
                Client::new(Token(place), index % job.hosts.len(), asker, &context)
            })
            .collect();
        let timers = BinaryHeap::new();
        let mut worker = Worker { poll, alarm, alarm_at: u64::MAX, clients, context, timers };
        worker.connect(&job.stop)?;
        Ok(worker)
    }

    fn connect(&mut self, stop: &AtomicBool) -> Result<(), WorkerError> {
        let deadline = self.context.clock.now() + CONNECT_NS;
        let mut events = Events::with_capacity(EVENTS_MAX);
        let mut failures = vec![0; self.clients.len()];
        let mut begun = 0;
        loop {
            let ready = self.clients[..begun].iter().filter(|client| client.is_ready()).count();
            if ready == self.clients.len() {
                return Ok(());
            }
            while begun < self.clients.len() && begun - ready < CONNECTING_MAX {
                self.clients[begun].connect(&mut self.context)?;
                begun += 1;
            }
            if stop.load(Relaxed) {
                return Err(WorkerError::CalledOff);
            }
            if self.context.clock.now() > deadline {
                let address = self.context.hosts[0];
                return Err(ClientError::TimedOut { address }.into());
            }
            poll(&mut self.poll, &mut events, TICK_NS)?;
            for event in &events {
                let Some(client) = self.clients.get_mut(event.token().0) else { continue };
                if let Err(error) = client.on_event(event, &mut self.context) {
                    // Every host gets its chance with every client.
                    let failed = &mut failures[event.token().0];
                    *failed += 1;
                    if *failed >= self.context.hosts.len() {
                        return Err(error.into());
                    }
                    client.lose(&error, &mut self.context);
                    client.connect(&mut self.context)?;
                }
            }
        }
    }

    fn load(&mut self, job: &Job, window: Window) -> Result<(), WorkerError> {
        self.context.window = window;
        self.context.tally = Tally::new(window, job.rate.is_some());
        self.context.live = LiveDelta::default();
        for (place, index) in job.clients.clone().enumerate() {
            let plan = match job.rate {
                None => Plan::Closed,
                Some((rate, arrivals)) => {
                    // Apart from the seeds of what is asked, which count up from the run's.
                    let seed = !job.seed.wrapping_add(index as u64);
                    Plan::Open(Schedule::new(arrivals, rate, index, job.connections, window.begin, seed))
                }
            };
            self.serve(place, |client, context| client.begin(plan, context));
        }
        let mut events = Events::with_capacity(EVENTS_MAX);
        let (mut cpu_from, mut cpu_used) = (None, None);
        let mut next_tick = 0;
        loop {
            let now = self.context.clock.now();
            if job.stop.load(Relaxed) && now < self.context.window.end {
                self.context.window.end = now;
                self.context.tally.cut(now);
            }
            let end = self.context.window.end;
            if now >= window.from && cpu_from.is_none() {
                cpu_from = Some(thread_cpu_ns());
            }
            if now >= end {
                cpu_used = cpu_used.or_else(|| cpu_from.map(|from| thread_cpu_ns() - from));
                if now >= end + BACKLOG_NS {
                    self.context.outstanding = 0;
                }
                if now >= end + BACKLOG_NS + ANSWERS_NS
                    || self.clients.iter().all(|client| client.is_done(&self.context))
                {
                    break;
                }
            }
            if now >= next_tick {
                for place in 0..self.clients.len() {
                    self.serve(place, |client, context| client.tick(now, context));
                }
                next_tick = now + TICK_NS;
            }
            // The end is a moment of its own only while it is still to come.
            let until = if now < end { next_tick.min(end) } else { next_tick };
            self.wait(&mut events, now, until)?;
            for event in events.iter().filter(|event| event.token() != ALARM) {
                self.serve(event.token().0, |client, context| client.on_event(event, context));
            }
            self.ring();
            self.context.live.publish(&job.live);
        }
        self.context.tally.client_cpu_ns = cpu_used.unwrap_or(0);
        for client in &mut self.clients {
            client.give_up(&mut self.context);
        }
        self.context.live.publish(&job.live);
        Ok(())
    }

    /// Lets one client act; if that costs its connection, counts it. Then sees to its timer.
    fn serve(&mut self, place: usize, act: impl FnOnce(&mut Client, &mut Context) -> Result<(), ClientError>) {
        let Worker { clients, context, timers, .. } = self;
        let client = &mut clients[place];
        if let Err(error) = act(client, context) {
            client.lose(&error, context);
        }
        if !client.timed
            && let Some(due) = client.due(context)
        {
            client.timed = true;
            timers.push(Reverse((due, place)));
        }
    }

    /// Serves the clients whose requests are due.
    fn ring(&mut self) {
        let mut now = self.context.clock.now();
        while let Some(&Reverse((due, place))) = self.timers.peek() {
            if due > now {
                now = self.context.clock.now();
                if due > now {
                    return;
                }
            }
            self.timers.pop();
            self.clients[place].timed = false;
            self.serve(place, |client, context| client.fill(now, context));
        }
    }

    /// Waits for sockets, until the next arrival or `until`.
    fn wait(&mut self, events: &mut Events, now: u64, mut until: u64) -> io::Result<()> {
        if let Some(&Reverse((due, _))) = self.timers.peek() {
            if due <= now {
                until = now;
            } else if due < until && due != self.alarm_at {
                self.alarm.ring_in(due - now)?;
                self.alarm_at = due;
            }
        }
        poll(&mut self.poll, events, until.saturating_sub(now))
    }

    fn farewell(&mut self) -> Result<(), WorkerError> {
        let mut events = Events::with_capacity(EVENTS_MAX);
        self.clients.iter_mut().for_each(Client::say_goodbye);
        let deadline = self.context.clock.now() + FAREWELL_NS;
        while self.clients.iter().any(Client::is_connected) && self.context.clock.now() < deadline {
            poll(&mut self.poll, &mut events, TICK_NS)?;
            for event in &events {
                if let Some(client) = self.clients.get_mut(event.token().0) {
                    client.on_farewell(&mut self.context);
                }
            }
        }
        Ok(())
    }
}

fn poll(poll: &mut Poll, events: &mut Events, ns: u64) -> io::Result<()> {
    match poll.poll(events, Some(Duration::from_nanos(ns))) {
        Err(error) if error.kind() == io::ErrorKind::Interrupted => {
            events.clear();
            Ok(())
        }
        other => other,
    }
}

fn thread_cpu_ns() -> u64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}
