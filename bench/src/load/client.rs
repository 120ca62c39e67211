//! One client of the load: a session, its connection of the moment, and what is in flight on it.
//!
//! **Invariants**: never more than `outstanding` requests in flight; replies are matched to requests in order, and a
//! reply whose xid is not the next one ends the connection; every request that was taken from the plan is answered,
//! counted as an error, or still in flight.
//!
//! **Not here**: waiting. The worker calls when the socket has an event, when an arrival is due, and now and then.

#![expect(clippy::disallowed_methods, reason = "latency is measured here")]

use super::measure::{InFlight, LiveDelta, Tally, Window, code_kind};
use super::plan::Plan;
use super::workload::{Asker, Workload};
use corral_net::client::{ClientError, Connection, Session, all_read};
use corral_proto::Request;
use mio::event::Event;
use mio::{Registry, Token};
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The pause before the second attempt to reconnect; the first is made at once. It doubles up to [`PAUSE_NS_MAX`].
const PAUSE_NS: u64 = 20_000_000;
const PAUSE_NS_MAX: u64 = 250_000_000;

/// Nanoseconds since the run's origin, the same for all threads.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock(Instant);

impl Clock {
    /// A clock that starts now.
    pub(crate) fn start() -> Clock {
        Clock(Instant::now())
    }

    /// Now.
    pub(crate) fn now(&self) -> u64 {
        self.0.elapsed().as_nanos() as u64
    }
}

/// What the clients of one thread share.
#[derive(Debug)]
pub(crate) struct Context {
    pub registry: Registry,
    pub clock: Clock,
    pub hosts: Vec<SocketAddr>,
    pub session_timeout: Duration,
    /// At most so many requests in flight on each connection; 0 once nothing may be sent any more.
    pub outstanding: usize,
    pub workload: Arc<Workload>,
    /// Until the run starts, its end is 0, and so nothing is asked.
    pub window: Window,
    pub tally: Tally,
    pub live: LiveDelta,
    /// What sockets are read into.
    pub scratch: Vec<u8>,
}

impl Context {
    fn count_errors(&mut self, kind: &str, count: u64, at: u64) {
        self.live.errors += count;
        self.tally.failed(kind, count, at);
    }
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Client {
    token: Token,
    host: usize,
    session: Session,
    connection: Option<Connection>,
    in_flight: VecDeque<InFlight>,
    plan: Plan,
    asker: Asker,
    sent_at: u64,
    heard_at: u64,
    retry_at: u64,
    pause: u64,
    /// True while the worker's timers have an entry for this client.
    pub timed: bool,
}

impl Client {
    /// A client without a connection.
    pub(crate) fn new(token: Token, host: usize, asker: Asker, context: &Context) -> Client {
        Client {
            token,
            host,
            session: Session::new(context.session_timeout),
            connection: None,
            in_flight: VecDeque::with_capacity(context.outstanding),
            plan: Plan::Closed,
            asker,
            sent_at: 0,
            heard_at: 0,
            retry_at: 0,
            pause: 0,
            timed: false,
        }
    }

    /// True while requests can be sent.
    pub(crate) fn is_ready(&self) -> bool {
        self.connection.as_ref().is_some_and(Connection::is_ready)
    }

    /// True if there is a connection, ready or not.
    pub(crate) fn is_connected(&self) -> bool {
        self.connection.is_some()
    }

    /// Begins to connect to the host whose turn it is.
    pub(crate) fn connect(&mut self, context: &mut Context) -> Result<(), ClientError> {
        let address = context.hosts[self.host % context.hosts.len()];
        self.heard_at = context.clock.now();
        self.connection = Some(Connection::start(&context.registry, self.token, address, self.session)?);
        Ok(())
    }

    /// Starts the run.
    pub(crate) fn begin(&mut self, plan: Plan, context: &mut Context) -> Result<(), ClientError> {
        self.plan = plan;
        let now = context.clock.now();
        self.heard_at = now;
        self.fill(now, context)
    }

    /// Serves an event of the socket: takes replies, then sends as much as there is room and reason for.
    pub(crate) fn on_event(&mut self, event: &Event, context: &mut Context) -> Result<(), ClientError> {
        let now = loop {
            let Client { connection, in_flight, .. } = self;
            let Some(connection) = connection else { return Ok(()) };
            let was_ready = connection.is_ready();
            let Context { clock, tally, live, scratch, .. } = context;
            let (mut now, mut out_of_order) = (0, None);
            let size = connection.receive(scratch, |header, _body| {
                if header.xid.0 < 0 {
                    return; // The answer to a ping, or to who the client is; nobody asked for watches.
                }
                // One look at the clock for all replies of one read: they were all there by then.
                if now == 0 {
                    now = clock.now();
                }
                match in_flight.pop_front() {
                    Some(request) if request.xid == header.xid.0 => {
                        if header.error == 0 {
                            live.completed += 1;
                            live.latency_ns += now - request.intended;
                            tally.answered(&request, now);
                        } else {
                            live.errors += 1;
                            tally.failed(&code_kind(header.error), 1, now);
                        }
                    }
                    request => out_of_order = out_of_order.or(Some((header.xid.0, request.map(|request| request.xid)))),
                }
            })?;
            if let Some((xid, expected)) = out_of_order {
                let why = format!("xid {xid} came where {expected:?} was to come");
                return Err(ClientError::Protocol { address: connection.address(), why });
            }
            if now == 0 {
                now = clock.now();
            }
            if size > 0 {
                self.heard_at = now;
            }
            if !was_ready && connection.is_ready() {
                self.session = connection.session();
                self.pause = 0;
                context.workload.identity().into_iter().for_each(|identity| connection.authenticate(identity));
            }
            if all_read(event, size, context.scratch.len()) {
                break now;
            }
        };
        self.fill(now, context)
    }

    /// Sends what should have started by `now`, as far as there is room.
    pub(crate) fn fill(&mut self, now: u64, context: &mut Context) -> Result<(), ClientError> {
        let Some(connection) = &mut self.connection else { return Ok(()) };
        if connection.is_ready() {
            while self.in_flight.len() < context.outstanding {
                let Some(intended) = self.plan.take(now, context.window.end) else { break };
                let (operation, request) = self.asker.next(&context.workload);
                let xid = connection.send(&request).0;
                self.in_flight.push_back(InFlight { intended, sent: now, xid, operation });
                self.sent_at = now;
            }
        }
        connection.flush()
    }

    /// When the next request is to start, if it only waits for that moment.
    pub(crate) fn due(&self, context: &Context) -> Option<u64> {
        let room = self.is_ready() && self.in_flight.len() < context.outstanding;
        self.plan.due(context.window.end).filter(|_| room)
    }

    /// True once nothing is in flight and nothing is left to send, or may be sent.
    pub(crate) fn is_done(&self, context: &Context) -> bool {
        self.in_flight.is_empty() && (context.outstanding == 0 || self.plan.due(context.window.end).is_none())
    }

    /// What has to be looked at from time to time: silence in either direction, and the next attempt to reconnect.
    pub(crate) fn tick(&mut self, now: u64, context: &mut Context) -> Result<(), ClientError> {
        // As the Java client: send something every third of the timeout, give up after two thirds of silence.
        let third = self.session.timeout_ms.max(3) as u64 * 1_000_000 / 3;
        let Some(connection) = &mut self.connection else {
            return if now >= self.retry_at { self.connect(context) } else { Ok(()) };
        };
        if now.saturating_sub(self.heard_at) > 2 * third {
            return Err(ClientError::TimedOut { address: connection.address() });
        }
        if connection.is_ready() && now.saturating_sub(self.sent_at) > third {
            connection.ping();
            self.sent_at = now;
        }
        connection.flush()
    }

    /// Drops the connection: what is in flight has failed. The session is kept, unless it is what was lost.
    pub(crate) fn lose(&mut self, error: &ClientError, context: &mut Context) {
        let now = context.clock.now();
        if let Some(connection) = self.connection.take() {
            if connection.is_ready() {
                context.tally.reconnects += 1;
            }
            self.session = connection.session();
        }
        if matches!(error, ClientError::SessionExpired { .. }) {
            self.session = Session::new(context.session_timeout);
        }
        // An attempt that failed, or a loss while idle, is one error too.
        context.count_errors(error.kind(), self.in_flight.len().max(1) as u64, now);
        self.in_flight.clear();
        self.host += 1;
        self.retry_at = now + self.pause;
        self.pause = (self.pause * 2).clamp(PAUSE_NS, PAUSE_NS_MAX);
    }

    /// Counts what will not be answered or sent any more.
    pub(crate) fn give_up(&mut self, context: &mut Context) {
        let Client { in_flight, plan, asker, .. } = self;
        for request in in_flight.drain(..) {
            context.tally.failed("unanswered", 1, request.intended);
        }
        let (now, workload) = (context.clock.now(), &context.workload);
        context.tally.left_behind(plan, now, || asker.next(workload).0);
    }

    /// Asks the server to end the session.
    pub(crate) fn say_goodbye(&mut self) {
        if let Some(connection) = self.connection.as_mut().filter(|connection| connection.is_ready()) {
            connection.send(&Request::CloseSession);
            if connection.flush().is_ok() {
                return;
            }
        }
        self.connection = None;
    }

    /// After [`Client::say_goodbye`]: drops the connection once the server has closed it.
    pub(crate) fn on_farewell(&mut self, context: &mut Context) {
        if let Some(connection) = &mut self.connection {
            let gone = loop {
                match connection.receive(&mut context.scratch, |_, _| {}) {
                    Ok(0) => break connection.flush().is_err(),
                    Ok(_) => {}
                    Err(_) => break true,
                }
            };
            if gone {
                self.connection = None;
            }
        }
    }
}
