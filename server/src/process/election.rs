//! The thread that has the election connections, and that dials the leader: everything between members that is neither frequent nor
//! large. Names are looked up elsewhere ([`super::resolver`]): one that hangs makes no vote wait.
//!
//! Between two members there is one election connection, the one that the member with the larger number has opened: whoever dials a
//! larger number says who it is and hangs up, and is dialled back (Apache's `QuorumCnxManager`). Of what is to be said to a member
//! that cannot be reached only the newest is kept.
//!
//! **Invariants**: at most one connection to each member is used, and at most one is being made; nothing that another sends makes
//! this keep more than one frame of it.
//!
//! **Not here**: what is voted for (the replica); the links to learners ([`crate::machine::Links`]), to which a dialled leader's belongs.

#![expect(clippy::disallowed_methods, reason = "this is where the thread is made, and where it looks at the clock")]

use super::Shared;
use super::resolver::Resolver;
use crate::config::Members;
use crate::machine::Heard;
use bytes::{Buf, BufMut, BytesMut};
use corral_net::Doorbell;
use corral_proto::peer::vote::FRAME_MAX;
use corral_proto::peer::{Hello, Notification, Parsed};
use corral_proto::{Jute, ServerId};
use crossbeam::channel::{Receiver, Sender, bounded};
use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token};
use slab::Slab;
use std::collections::BTreeMap;
use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Messages on their way to and from the thread.
const QUEUE: usize = 1024;
/// How long a connection may take to be made, and a caller to say who it is (`zookeeper.cnxTimeout`).
const CONNECT: Duration = Duration::from_secs(5);
/// How often late connections are looked for.
const HOUSEKEEPING: Duration = Duration::from_millis(500);

const BELL: Token = Token(usize::MAX);
const LISTENER: Token = Token(usize::MAX - 1);

enum Errand {
    Notify(ServerId, Notification<'static>),
    Dial(ServerId),
}

/// The way to the thread.
pub(super) struct Election {
    orders: Option<Sender<Errand>>,
    bell: Arc<Doorbell>,
    heard: Receiver<Heard<TcpStream>>,
    thread: Option<JoinHandle<()>>,
}

impl Election {
    /// Starts the thread, which listens with `listener`.
    pub(super) fn start(shared: &Arc<Shared>, members: &Members, listener: TcpListener) -> Result<Election, String> {
        let failed = |error: std::io::Error| format!("cannot start the election thread: {error}");
        let poll = Poll::new().map_err(failed)?;
        let bell = Arc::new(Doorbell::new(poll.registry(), BELL).map_err(failed)?);
        let (orders, inbox) = bounded(QUEUE);
        let (outbox, heard) = bounded(QUEUE);
        let ringer = bell.clone();
        let lookup = |host: &str, port: u16| (host, port).to_socket_addrs().map(|mut all| all.next());
        let resolver = Resolver::new(Arc::new(lookup), Arc::new(move || ringer.ring()));
        let desk = Desk {
            shared: shared.clone(),
            members: members.clone(),
            me: ServerId(members.me.into()),
            poll,
            bell: bell.clone(),
            listener,
            inbox,
            outbox,
            conns: Slab::new(),
            open: BTreeMap::new(),
            resolver,
            queued: BTreeMap::new(),
            last: BTreeMap::new(),
        };
        let body = move || desk.run();
        let thread = std::thread::Builder::new().name("election".to_owned()).spawn(body).map_err(failed)?;
        Ok(Election { orders: Some(orders), bell, heard, thread: Some(thread) })
    }

    /// Says this to a member, if it can be reached.
    pub(super) fn notify(&self, to: ServerId, said: Notification<'static>) {
        self.order(Errand::Notify(to, said));
    }

    /// Makes a connection to the quorum port of a member. False if that cannot even be tried now.
    pub(super) fn dial(&self, to: ServerId) -> bool {
        self.order(Errand::Dial(to))
    }

    fn order(&self, order: Errand) -> bool {
        let taken = self.orders.as_ref().expect("present until dropped").try_send(order).is_ok();
        self.bell.ring();
        taken
    }

    /// The next that was heard.
    pub(super) fn next(&self) -> Option<Heard<TcpStream>> {
        self.heard.try_recv().ok()
    }

    /// Whether anything was heard.
    pub(super) fn has_heard(&self) -> bool {
        !self.heard.is_empty()
    }
}

impl Drop for Election {
    fn drop(&mut self) {
        self.orders = None;
        self.bell.ring();
        while self.heard.recv().is_ok() {}
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// How far a connection has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// It is being made, for votes or (`true`) for a link to the leader.
    Dialing(ServerId, bool),
    /// Whoever dialled is to say who it is.
    Called,
    Open(ServerId),
}

struct Conn {
    stream: TcpStream,
    remote: SocketAddr,
    stage: Stage,
    since: Instant,
    inbound: BytesMut,
    outbound: Vec<u8>,
}

struct Desk {
    shared: Arc<Shared>,
    members: Members,
    me: ServerId,
    poll: Poll,
    bell: Arc<Doorbell>,
    listener: TcpListener,
    inbox: Receiver<Errand>,
    outbox: Sender<Heard<TcpStream>>,
    conns: Slab<Conn>,
    open: BTreeMap<ServerId, usize>,
    /// Names of members that are looked up, for votes or (`true`) for a link to the leader.
    resolver: Resolver<(ServerId, bool)>,
    /// The newest that could not be sent yet.
    queued: BTreeMap<ServerId, Vec<u8>>,
    /// The newest that was to be sent, said again over a new connection: the old one may have swallowed it.
    last: BTreeMap<ServerId, Vec<u8>>,
}

impl Desk {
    fn run(mut self) {
        if let Err(error) = self.poll.registry().register(&mut self.listener, LISTENER, Interest::READABLE) {
            return self.shared.fail(format!("cannot wait for the other members: {error}"));
        }
        let mut events = Events::with_capacity(64);
        loop {
            self.bell.about_to_sleep();
            let timeout = if self.inbox.is_empty() { HOUSEKEEPING } else { Duration::ZERO };
            let polled = self.poll.poll(&mut events, Some(timeout));
            self.bell.awake();
            if let Err(error) = polled
                && error.kind() != ErrorKind::Interrupted
            {
                return self.shared.fail(format!("cannot wait for the other members: {error}"));
            }
            for event in &events {
                match event.token() {
                    BELL => {}
                    LISTENER => self.accept(),
                    Token(slot) => {
                        if event.is_writable() {
                            self.writable(slot);
                        }
                        if event.is_readable() || event.is_read_closed() || event.is_error() {
                            self.readable(slot);
                        }
                    }
                }
            }
            loop {
                match self.inbox.try_recv() {
                    Ok(Errand::Notify(to, said)) => self.say(to, &said),
                    Ok(Errand::Dial(to)) => self.dial(to, true),
                    Err(crossbeam::channel::TryRecvError::Empty) => break,
                    Err(crossbeam::channel::TryRecvError::Disconnected) => return,
                }
            }
            self.take_resolved();
            self.close_late();
        }
    }

    fn tell(&self, heard: Heard<TcpStream>) {
        // A vote may be lost, it will be said again; how dialling went must not be.
        let _ = match heard {
            Heard::Vote(..) => self.outbox.try_send(heard).map_err(drop),
            Heard::Dialed(..) => self.outbox.send(heard).map_err(drop),
        };
        self.shared.lines[0].bell.ring();
    }

    fn say(&mut self, to: ServerId, said: &Notification<'_>) {
        let body = Notification { config: Some(&self.members.text), ..*said };
        let mut frame = Vec::with_capacity(4 + body.encoded_len());
        frame.put_u32(body.encoded_len() as u32);
        body.encode(&mut frame);
        self.last.insert(to, frame.clone());
        self.queued.insert(to, frame);
        match self.open.get(&to) {
            Some(slot) => self.flush(*slot),
            None => self.dial(to, false),
        }
    }

    /// Begins to make a connection, unless one is being made.
    fn dial(&mut self, to: ServerId, for_link: bool) {
        let stage = Stage::Dialing(to, for_link);
        if !for_link && self.conns.iter().any(|(_, conn)| conn.stage == stage) {
            return;
        }
        let member = u8::try_from(to.0).ok().and_then(|id| self.members.all.get(&id));
        let Some(member) = member else { return self.not_dialed(stage, "it is not in the configuration") };
        let port = if for_link { member.quorum_port } else { member.election_port };
        match member.host.parse::<IpAddr>() {
            Ok(ip) => self.connect(stage, SocketAddr::new(ip, port)),
            // Names are looked up anew each time: an address may have changed.
            Err(_) => self.resolver.ask((to, for_link), &member.host, port),
        }
    }

    /// Takes what was found of names.
    fn take_resolved(&mut self) {
        while let Some(((to, for_link), found)) = self.resolver.next() {
            let stage = Stage::Dialing(to, for_link);
            match found {
                Ok(address) => self.connect(stage, address),
                Err(why) => self.not_dialed(stage, &why),
            }
        }
    }

    fn connect(&mut self, stage: Stage, address: SocketAddr) {
        match TcpStream::connect(address) {
            Ok(stream) => {
                self.add(stream, address, stage);
            }
            Err(error) => self.not_dialed(stage, &error.to_string()),
        }
    }

    fn not_dialed(&self, stage: Stage, why: &str) {
        let Stage::Dialing(to, for_link) = stage else { return };
        tracing::debug!("server {to} cannot be reached: {why}");
        if for_link {
            self.tell(Heard::Dialed(to, None));
        }
    }

    fn add(&mut self, mut stream: TcpStream, remote: SocketAddr, stage: Stage) {
        let entry = self.conns.vacant_entry();
        let both = Interest::READABLE | Interest::WRITABLE;
        if let Err(error) = self.poll.registry().register(&mut stream, Token(entry.key()), both) {
            return self.not_dialed(stage, &error.to_string());
        }
        let _ = stream.set_nodelay(true);
        // Without an answer for so long the other side is gone, and a new connection is better than waiting for this one.
        let _ = socket2::SockRef::from(&stream).set_tcp_user_timeout(Some(CONNECT));
        let (since, inbound, outbound) = (Instant::now(), BytesMut::new(), Vec::new());
        entry.insert(Conn { stream, remote, stage, since, inbound, outbound });
    }

    fn accept(&mut self) {
        loop {
            match self.listener.accept() {
                Ok((stream, remote)) => self.add(stream, remote, Stage::Called),
                Err(error) if matches!(error.kind(), ErrorKind::Interrupted | ErrorKind::ConnectionAborted) => {}
                Err(_) => return,
            }
        }
    }

    fn close(&mut self, slot: usize, why: &str) {
        let Some(conn) = self.conns.try_remove(slot) else { return };
        if let Stage::Open(sid) = conn.stage
            && self.open.get(&sid) == Some(&slot)
        {
            self.open.remove(&sid);
        }
        self.not_dialed(conn.stage, why);
    }

    fn close_late(&mut self) {
        let late = |conn: &Conn| !matches!(conn.stage, Stage::Open(_)) && conn.since.elapsed() > CONNECT;
        let late: Vec<usize> = self.conns.iter().filter(|(_, conn)| late(conn)).map(|(slot, _)| slot).collect();
        late.into_iter().for_each(|slot| self.close(slot, "no answer"));
    }

    fn writable(&mut self, slot: usize) {
        let Some(conn) = self.conns.get_mut(slot) else { return };
        let Stage::Dialing(to, for_link) = conn.stage else { return self.flush(slot) };
        match conn.stream.take_error() {
            Ok(None) => {}
            Ok(Some(error)) | Err(error) => return self.close(slot, &error.to_string()),
        }
        match conn.stream.peer_addr() {
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::NotConnected => return,
            Err(error) => return self.close(slot, &error.to_string()),
        }
        if for_link {
            let mut conn = self.conns.remove(slot);
            let _ = self.poll.registry().deregister(&mut conn.stream);
            return self.tell(Heard::Dialed(to, Some((conn.stream, conn.remote))));
        }
        let own = &self.members.all[&self.members.me];
        let address = own.election_address();
        // In one piece: Apache reads it with a single read.
        let hello = Hello { sid: self.me, addresses: vec![&address] }.to_vec();
        if conn.stream.write_all(&hello).is_err() {
            return self.close(slot, "it hung up");
        }
        match to > self.me {
            // It dials back.
            true => self.close(slot, "it dials back"),
            false => self.opened(slot, to),
        }
    }

    /// The connection is the one to this member from now on.
    fn opened(&mut self, slot: usize, sid: ServerId) {
        self.conns[slot].stage = Stage::Open(sid);
        if let Some(older) = self.open.insert(sid, slot)
            && older != slot
        {
            self.conns.try_remove(older);
        }
        if !self.queued.contains_key(&sid)
            && let Some(last) = self.last.get(&sid)
        {
            self.queued.insert(sid, last.clone());
        }
        self.flush(slot);
    }

    fn flush(&mut self, slot: usize) {
        let Some(conn) = self.conns.get_mut(slot) else { return };
        let Stage::Open(sid) = conn.stage else { return };
        loop {
            if conn.outbound.is_empty() {
                match self.queued.remove(&sid) {
                    Some(frame) => conn.outbound = frame,
                    None => return,
                }
            }
            match conn.stream.write(&conn.outbound) {
                Ok(n) => drop(conn.outbound.drain(..n)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return self.close(slot, &error.to_string()),
            }
        }
    }

    fn readable(&mut self, slot: usize) {
        let mut scratch = [0; 4096];
        loop {
            let Some(conn) = self.conns.get_mut(slot) else { return };
            if matches!(conn.stage, Stage::Dialing(..)) {
                // Either it cannot be made, or the poll says so again once it is.
                if let Ok(Some(error)) = conn.stream.take_error() {
                    self.close(slot, &error.to_string());
                }
                return;
            }
            match conn.stream.read(&mut scratch) {
                Ok(0) => return self.close(slot, "closed by the other side"),
                Ok(n) => {
                    conn.inbound.extend_from_slice(&scratch[..n]);
                    if let Err(why) = self.take_in(slot) {
                        return self.close(slot, &why);
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return self.close(slot, &error.to_string()),
            }
        }
    }

    /// Understands what has come so far.
    fn take_in(&mut self, slot: usize) -> Result<(), String> {
        let conn = &mut self.conns[slot];
        if conn.stage == Stage::Called {
            let sid = match Hello::parse(&conn.inbound).map_err(|error| error.to_string())? {
                Parsed::Short => return Ok(()),
                Parsed::Whole(hello, used) => {
                    let sid = hello.sid;
                    conn.inbound.advance(used);
                    sid
                }
            };
            if sid == self.me {
                tracing::warn!(
                    "{} says that it is server {sid}, as this one; one of the two has a wrong myid",
                    conn.remote
                );
                return Err("it has this server's own number".to_owned());
            }
            if sid < self.me {
                if let Some(older) = self.open.remove(&sid) {
                    self.conns.try_remove(older);
                }
                self.dial(sid, false);
                return Err("it is dialled back".to_owned());
            }
            self.opened(slot, sid);
        }
        loop {
            let Some(conn) = self.conns.get_mut(slot) else { return Ok(()) };
            let Stage::Open(sid) = conn.stage else { return Ok(()) };
            let Some(len) = conn.inbound.first_chunk::<4>().map(|len| i32::from_be_bytes(*len)) else { return Ok(()) };
            let len = usize::try_from(len).ok().filter(|len| (1..=FRAME_MAX).contains(len));
            let len = len.ok_or("a frame of an impossible length")?;
            if conn.inbound.len() < 4 + len {
                return Ok(());
            }
            let frame = conn.inbound.split_to(4 + len);
            match Notification::decode(&frame[4..]) {
                Ok(said) => self.tell(Heard::Vote(sid, Notification { config: None, ..said })),
                Err(error) => tracing::debug!("server {sid} has said what is no vote: {error}"),
            }
        }
    }
}
