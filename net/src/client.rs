//! The small client that bench and tools share, in two forms: [`Connection`], which never blocks and belongs to
//! somebody's mio poll (the load engine), and [`BlockingClient`], which asks and waits (tests, tools).
//!
//! Neither has a thread, a clock or a retry of its own. A connection that failed is dropped, and its [`Session`] is
//! given to the next one, on this server or another. What a reply means is left to the caller: a [`Connection`] hands
//! on header and body as they came.
//!
//! **Invariants**: replies are handed on in the order in which they came, which is the order of the requests; xids count
//! up by one from 1 within a connection, so the caller can check that; after an error a connection is of no further use.
//!
//! **Not here**: reconnecting and its pauses, choosing a server, pinging (who has the clock decides when), TLS.

use crate::frame::{FrameError, Frames, put_frame};
use bytes::BufMut;
use corral_proto::request::RequestHeader;
use corral_proto::response::Response;
use corral_proto::{
    ConnectRequest, ConnectResponse, Decoder, ErrorCode, EventType, Jute, JuteError, OpCode, ReplyHeader, Request,
    SessionId, WatcherEvent, Xid, Zxid,
};
use mio::event::Event;
use mio::{Interest, Registry, Token};
use std::collections::VecDeque;
use std::io::{self, BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::ops::ControlFlow;
use std::time::Duration;

/// The longest reply that is accepted. The server sets no limit to its replies, and the names of a million children
/// take some 20 MB; memory grows with what really arrives.
const REPLY_LIMIT: usize = 1 << 28;

/// Why a connection is of no further use, or (only [`ClientError::Refused`]) why one request failed. One line each.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the fields are what the messages say")]
pub enum ClientError {
    #[error("{host}: no such host: {why}")]
    Resolve { host: String, why: String },
    #[error("{address}: cannot connect: {source}")]
    Connect { address: SocketAddr, source: io::Error },
    #[error(
        "{address}: the server closed the connection during the handshake (not serving, behind what this session \
             has seen, or too many connections from here: maxClientCnxns)"
    )]
    TurnedAway { address: SocketAddr },
    #[error("{address}: the session has expired")]
    SessionExpired { address: SocketAddr },
    #[error("{address}: the server closed the connection")]
    Closed { address: SocketAddr },
    #[error("{address}: the connection broke: {source}")]
    Broken { address: SocketAddr, source: io::Error },
    #[error("{address}: no answer in time")]
    TimedOut { address: SocketAddr },
    #[error("{address}: an answer makes no sense: {why}")]
    Protocol { address: SocketAddr, why: String },
    #[error("{address}: {op:?} was refused: {} ({code})", error_name(*code))]
    Refused { address: SocketAddr, op: OpCode, code: i32 },
}

impl ClientError {
    /// A word to count errors by.
    pub const fn kind(&self) -> &'static str {
        match self {
            ClientError::Resolve { .. } => "resolve",
            ClientError::Connect { .. } | ClientError::TurnedAway { .. } => "connect",
            ClientError::SessionExpired { .. } => "session_expired",
            ClientError::Closed { .. } | ClientError::Broken { .. } => "connection_loss",
            ClientError::TimedOut { .. } => "timeout",
            ClientError::Protocol { .. } => "protocol",
            ClientError::Refused { .. } => "refused",
        }
    }

    /// The error code, if a server refused a request with it.
    pub fn code(&self) -> Option<ErrorCode> {
        match self {
            ClientError::Refused { code, .. } => ErrorCode::from_code(*code),
            _ => None,
        }
    }

    fn read(address: SocketAddr, source: io::Error) -> ClientError {
        match source.kind() {
            ErrorKind::UnexpectedEof => ClientError::Closed { address },
            ErrorKind::WouldBlock | ErrorKind::TimedOut => ClientError::TimedOut { address },
            _ => ClientError::Broken { address, source },
        }
    }
}

/// The protocol's name for an error code, also for one that no server should send.
pub fn error_name(code: i32) -> &'static str {
    ErrorCode::from_code(code).map_or("unknown error", ErrorCode::name)
}

/// The addresses of `host:port`.
///
/// # Errors
/// [`ClientError::Resolve`], also when the name has no address at all.
pub fn resolve(host: &str) -> Result<Vec<SocketAddr>, ClientError> {
    let failed = |why: String| ClientError::Resolve { host: host.to_owned(), why };
    let addresses: Vec<_> = host.to_socket_addrs().map_err(|error| failed(error.to_string()))?.collect();
    if addresses.is_empty() { Err(failed("it has no address".into())) } else { Ok(addresses) }
}

/// What a client must remember to go on with its session on another connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Session {
    /// The session, [`SessionId::NONE`] before the first handshake.
    pub id: SessionId,
    /// What proves it.
    pub password: [u8; 16],
    /// The wished timeout before the first handshake, then the one that the server granted, in ms.
    pub timeout_ms: i32,
    /// The newest state seen; a server that is behind it will not serve this session.
    pub last_zxid_seen: Zxid,
    /// Whether a read-only server will do.
    pub read_only: bool,
}

impl Session {
    /// A session still to be made.
    pub fn new(timeout: Duration) -> Session {
        let timeout_ms = i32::try_from(timeout.as_millis()).unwrap_or(i32::MAX);
        Session { id: SessionId::NONE, password: [0; 16], timeout_ms, last_zxid_seen: Zxid::ZERO, read_only: false }
    }

    fn put_request(&self, out: &mut Vec<u8>) {
        let request = ConnectRequest {
            protocol_version: 0,
            last_zxid_seen: self.last_zxid_seen,
            timeout_ms: self.timeout_ms,
            session_id: self.id,
            password: Some(&self.password),
            read_only: Some(self.read_only),
        };
        put_frame(out, |out| request.encode(out));
    }

    /// Takes over what the server granted.
    fn granted(&mut self, address: SocketAddr, frame: &[u8]) -> Result<(), ClientError> {
        let answer = ConnectResponse::decode(frame).map_err(|why| nonsense(address, why))?;
        if answer.timeout_ms <= 0 {
            return Err(ClientError::SessionExpired { address });
        }
        (self.id, self.password, self.timeout_ms) = (answer.session_id, answer.password, answer.timeout_ms);
        Ok(())
    }

    /// Splits a reply, and notes how new the state is that it shows.
    fn reply<'f>(&mut self, address: SocketAddr, frame: &'f [u8]) -> Result<(ReplyHeader, &'f [u8]), ClientError> {
        let mut d = Decoder::new(frame);
        let header = ReplyHeader::decode(&mut d).map_err(|why| nonsense(address, why))?;
        // Some replies carry 0 or -1 instead of a state: auth, refusals.
        self.last_zxid_seen = self.last_zxid_seen.max(header.zxid);
        Ok((header, d.rest()))
    }
}

fn nonsense(address: SocketAddr, why: JuteError) -> ClientError {
    ClientError::Protocol { address, why: why.to_string() }
}

/// Appends a request with its header and length.
fn put_request(out: &mut Vec<u8>, xid: Xid, request: &Request<'_>) {
    // The length is known beforehand, so that nothing is written twice: the load engine does this once an operation.
    let len = RequestHeader::LEN + request.encoded_len();
    out.reserve(4 + len);
    out.put_i32(i32::try_from(len).expect("a request is shorter than 2 GiB"));
    RequestHeader { xid, op: request.op().code() }.encode(out);
    request.encode(out);
}

/// Counts 1, 2, … and, as the Java client does since ZOOKEEPER-3253, from the largest number to 1 again.
fn next_xid(last: &mut Xid) -> Xid {
    last.0 = last.0.checked_add(1).unwrap_or(1);
    *last
}

/// A connection that never blocks, registered with a mio poll under the caller's token.
///
/// On every event of the token: [`Connection::receive`], then queue what there is to ask, then [`Connection::flush`].
#[derive(Debug)]
pub struct Connection {
    address: SocketAddr,
    stream: mio::net::TcpStream,
    session: Session,
    ready: bool,
    /// What is still to be written: `queued[written..]`.
    queued: Vec<u8>,
    written: usize,
    frames: Frames,
    last_xid: Xid,
}

impl Connection {
    /// Begins to connect and queues the handshake. Failure to connect may show only in a later call.
    ///
    /// # Errors
    /// [`ClientError::Connect`].
    pub fn start(
        registry: &Registry,
        token: Token,
        address: SocketAddr,
        session: Session,
    ) -> Result<Connection, ClientError> {
        let failed = |source| ClientError::Connect { address, source };
        let mut stream = mio::net::TcpStream::connect(address).map_err(failed)?;
        stream.set_nodelay(true).map_err(failed)?;
        registry.register(&mut stream, token, Interest::READABLE | Interest::WRITABLE).map_err(failed)?;
        let mut queued = Vec::new();
        session.put_request(&mut queued);
        let frames = Frames::new(REPLY_LIMIT);
        Ok(Connection { address, stream, session, ready: false, queued, written: 0, frames, last_xid: Xid(0) })
    }

    /// The server's address.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// True once the server has granted the session.
    pub fn is_ready(&self) -> bool {
        self.ready
    }

    /// What another connection needs to go on with this session.
    pub fn session(&self) -> Session {
        self.session
    }

    /// Queues a request under the next xid, which is returned; nothing is written before [`Connection::flush`].
    pub fn send(&mut self, request: &Request<'_>) -> Xid {
        let xid = next_xid(&mut self.last_xid);
        put_request(&mut self.queued, xid, request);
        xid
    }

    /// Queues who the client is, as `user:password`. Its answer has [`Xid::AUTH`]; if it is refused, the connection is closed behind that.
    pub fn authenticate(&mut self, digest: &str) {
        let request = Request::Auth { scheme: Some("digest"), auth: Some(digest.as_bytes()) };
        put_request(&mut self.queued, Xid::AUTH, &request);
    }

    /// Queues a ping. Its answer has [`Xid::PING`], and keeps its place among the others.
    pub fn ping(&mut self) {
        put_request(&mut self.queued, Xid::PING, &Request::Ping);
    }

    /// Writes what is queued, in one call as long as the socket takes it. What it does not take goes out when the token
    /// next has an event and this is called again.
    ///
    /// # Errors
    /// Those of the connection.
    pub fn flush(&mut self) -> Result<(), ClientError> {
        while self.written < self.queued.len() {
            match self.stream.write(&self.queued[self.written..]) {
                Ok(n) => self.written += n,
                Err(error) if is_for_later(&error) => return Ok(()),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(self.broken(error)),
            }
        }
        self.queued.clear();
        self.written = 0;
        Ok(())
    }

    /// Reads once, into `scratch`, and hands every complete reply or event to `each`: its header and what follows it.
    /// Returns how many bytes were read.
    ///
    /// Less than `scratch` holds means that nothing more is there now, so asking again would waste a system call; only
    /// after an event that says [`Event::is_read_closed`] one has to go on until 0 or an error ([`all_read`] knows).
    ///
    /// # Errors
    /// Those of the connection; replies before the error have been handed on.
    pub fn receive(
        &mut self,
        scratch: &mut [u8],
        mut each: impl FnMut(ReplyHeader, &[u8]),
    ) -> Result<usize, ClientError> {
        let size = match self.stream.read(scratch) {
            Ok(0) if self.ready => return Err(ClientError::Closed { address: self.address }),
            Ok(0) => return Err(ClientError::TurnedAway { address: self.address }),
            Ok(size) => size,
            Err(error) if is_for_later(&error) => return Ok(0),
            Err(error) => return Err(self.broken(error)),
        };
        let Connection { address, session, ready, frames, .. } = self;
        let mut failed = None;
        let fed = frames.feed(&scratch[..size], |frame| {
            let taken = if *ready {
                session.reply(*address, frame).map(|(header, body)| each(header, body))
            } else {
                session.granted(*address, frame).map(|()| *ready = true)
            };
            match taken {
                Ok(()) => ControlFlow::Continue(()),
                Err(error) => {
                    failed = Some(error);
                    ControlFlow::Break(())
                }
            }
        });
        if let Err(error) = fed {
            return Err(ClientError::Protocol { address: *address, why: error.to_string() });
        }
        failed.map_or(Ok(size), Err)
    }

    fn broken(&self, source: io::Error) -> ClientError {
        let address = self.address;
        match (self.ready, source.kind()) {
            (true, _) => ClientError::Broken { address, source },
            // A refused connection answers with these two once it had been made.
            (false, ErrorKind::ConnectionReset | ErrorKind::BrokenPipe) => ClientError::TurnedAway { address },
            (false, _) => ClientError::Connect { address, source },
        }
    }
}

/// True if nothing can be left after [`Connection::receive`] has read `size` bytes into `capacity` upon `event`.
///
/// The poll is edge-triggered. A read that came back short has emptied the socket, and later bytes make a new edge. The
/// end of the stream, however, may belong to the edge that is just being served.
pub fn all_read(event: &Event, size: usize, capacity: usize) -> bool {
    size == 0 || (size < capacity && !event.is_read_closed())
}

/// A socket that is not connected yet says either of these, depending on the call.
fn is_for_later(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::NotConnected)
}

/// A client that asks and waits. `patience` is how long it waits for each piece of an answer.
#[derive(Debug)]
pub struct BlockingClient {
    address: SocketAddr,
    stream: BufReader<TcpStream>,
    session: Session,
    out: Vec<u8>,
    frame: Vec<u8>,
    last_xid: Xid,
    events: VecDeque<(EventType, String)>,
}

impl BlockingClient {
    /// Connects, and makes `session` or goes on with it.
    ///
    /// # Errors
    /// Any but [`ClientError::Refused`].
    pub fn connect(address: SocketAddr, session: Session, patience: Duration) -> Result<BlockingClient, ClientError> {
        let stream = BufReader::new(open(address, patience)?);
        let (out, frame, events) = (Vec::new(), Vec::new(), VecDeque::new());
        let mut client = BlockingClient { address, stream, session, out, frame, last_xid: Xid(0), events };
        client.session.put_request(&mut client.out);
        let turned_away = |error| match error {
            ClientError::Closed { address } => ClientError::TurnedAway { address },
            other => other,
        };
        client.write().and_then(|()| client.read()).map_err(turned_away)?;
        client.session.granted(address, &client.frame)?;
        Ok(client)
    }

    /// The server's address.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What another connection needs to go on with this session; also the newest zxid seen.
    pub fn session(&self) -> Session {
        self.session
    }

    /// Asks, and waits for the answer.
    ///
    /// # Errors
    /// [`ClientError::Refused`] if the server answered with an error code; the client may be used further. After any
    /// other error it is of no use.
    pub fn request(&mut self, request: &Request<'_>) -> Result<Response<'_>, ClientError> {
        let (address, op) = (self.address, request.op());
        let header = self.exchange(std::slice::from_ref(request), |_, _, _| {})?;
        if header.error != 0 {
            return Err(ClientError::Refused { address, op, code: header.error });
        }
        Response::decode(op, &mut Decoder::new(&self.frame[ReplyHeader::LEN..])).map_err(|why| nonsense(address, why))
    }

    /// Sends all `requests` at once and hands each answer to `each`: its place in `requests`, its header, its body.
    ///
    /// # Errors
    /// Those of the connection. An error code in a header is not one of them.
    pub fn pipeline(
        &mut self,
        requests: &[Request<'_>],
        each: impl FnMut(usize, ReplyHeader, &[u8]),
    ) -> Result<(), ClientError> {
        self.exchange(requests, each).map(drop)
    }

    /// The next event of a watch, if there is one within the client's patience.
    ///
    /// # Errors
    /// Those of the connection.
    pub fn wait_event(&mut self) -> Result<Option<(EventType, String)>, ClientError> {
        if self.events.is_empty() {
            // Asking first whether anything comes keeps a timeout from cutting a frame in two.
            match self.stream.fill_buf() {
                Ok(_) => {}
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => return Ok(None),
                Err(error) => return Err(ClientError::read(self.address, error)),
            }
            let header = self.reply()?;
            if header.xid != Xid::NOTIFICATION {
                return Err(self.unexpected(header.xid, "an event"));
            }
        }
        Ok(self.events.pop_front())
    }

    /// Ends the session and waits until the server has done so.
    ///
    /// # Errors
    /// As [`BlockingClient::request`].
    pub fn close(mut self) -> Result<(), ClientError> {
        self.request(&Request::CloseSession).map(drop)
    }

    /// Returns the last answer's header; the answer itself is in `self.frame`.
    fn exchange(
        &mut self,
        requests: &[Request<'_>],
        mut each: impl FnMut(usize, ReplyHeader, &[u8]),
    ) -> Result<ReplyHeader, ClientError> {
        let first = self.last_xid;
        for request in requests {
            // A ping is answered with its own xid whatever it was sent with, but it is answered in its place.
            let xid = next_xid(&mut self.last_xid);
            put_request(&mut self.out, xid, request);
        }
        self.write()?;
        let mut last = ReplyHeader { xid: first, zxid: Zxid::ZERO, error: 0 };
        let mut expected = first;
        for (place, request) in requests.iter().enumerate() {
            next_xid(&mut expected);
            let asked = if request.op() == OpCode::Ping { Xid::PING } else { expected };
            last = loop {
                let header = self.reply()?;
                if header.xid != Xid::NOTIFICATION {
                    break header;
                }
            };
            if last.xid != asked {
                return Err(self.unexpected(last.xid, &format!("xid {}", asked.0)));
            }
            each(place, last, &self.frame[ReplyHeader::LEN..]);
        }
        Ok(last)
    }

    fn unexpected(&self, xid: Xid, instead: &str) -> ClientError {
        ClientError::Protocol { address: self.address, why: format!("xid {} instead of {instead}", xid.0) }
    }

    /// Reads one reply or event into `self.frame`, and keeps it if it is an event.
    fn reply(&mut self) -> Result<ReplyHeader, ClientError> {
        self.read()?;
        let (header, body) = self.session.reply(self.address, &self.frame)?;
        if header.xid == Xid::NOTIFICATION {
            let event = WatcherEvent::decode(&mut Decoder::new(body)).map_err(|why| nonsense(self.address, why))?;
            self.events.push_back((event.kind, event.path.to_owned()));
        }
        Ok(header)
    }

    fn write(&mut self) -> Result<(), ClientError> {
        let written = self.stream.get_mut().write_all(&self.out);
        self.out.clear();
        written.map_err(|source| ClientError::read(self.address, source))
    }

    fn read(&mut self) -> Result<(), ClientError> {
        let failed = |source| ClientError::read(self.address, source);
        let mut head = [0; 4];
        self.stream.read_exact(&mut head).map_err(failed)?;
        let len = i32::from_be_bytes(head);
        let Some(size) = usize::try_from(len).ok().filter(|size| *size <= REPLY_LIMIT) else {
            let why = FrameError { len, limit: REPLY_LIMIT }.to_string();
            return Err(ClientError::Protocol { address: self.address, why });
        };
        self.frame.clear();
        // `take` and not a buffer of `size`: a length is only a claim.
        let read = (&mut self.stream).take(size as u64).read_to_end(&mut self.frame).map_err(failed)?;
        if read < size { Err(ClientError::Closed { address: self.address }) } else { Ok(()) }
    }
}

/// Asks for one of the words that a server answers without a session (`srvr`, `mntr`, `ruok`, …).
///
/// # Errors
/// Those of the connection. A word that the server does not allow is answered with a sentence, not with an error.
pub fn four_letter_word(address: SocketAddr, word: &str, patience: Duration) -> Result<String, ClientError> {
    let mut stream = open(address, patience)?;
    let mut answer = Vec::new();
    stream
        .write_all(word.as_bytes())
        .and_then(|()| stream.read_to_end(&mut answer))
        .map_err(|source| ClientError::read(address, source))?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

fn open(address: SocketAddr, patience: Duration) -> Result<TcpStream, ClientError> {
    let failed = |source| ClientError::Connect { address, source };
    let stream = TcpStream::connect_timeout(&address, patience).map_err(failed)?;
    stream.set_read_timeout(Some(patience)).map_err(failed)?;
    stream.set_write_timeout(Some(patience)).map_err(failed)?;
    stream.set_nodelay(true).map_err(failed)?;
    Ok(stream)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ADDRESS: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 2181);

    #[test]
    fn xids_count_from_one_and_never_become_negative() {
        let mut last = Xid(0);
        assert_eq!((next_xid(&mut last), next_xid(&mut last)), (Xid(1), Xid(2)));
        last = Xid(i32::MAX);
        assert_eq!(next_xid(&mut last), Xid(1));
    }

    #[test]
    fn a_request_is_a_frame_of_header_and_body() {
        let mut out = Vec::new();
        put_request(&mut out, Xid(7), &Request::Sync(Some("/a")));
        assert_eq!(out, b"\0\0\0\x0e\0\0\0\x07\0\0\0\x09\0\0\0\x02/a");
    }

    #[test]
    fn a_session_takes_what_is_granted_and_knows_expiry() {
        let mut session = Session::new(Duration::from_secs(10));
        let mut hello = Vec::new();
        session.put_request(&mut hello);
        assert_eq!(hello.len(), 49);
        let answer =
            ConnectResponse { timeout_ms: 4_000, session_id: SessionId(5), password: [9; 16], read_only: None };
        session.granted(ADDRESS, &answer.to_vec()).unwrap();
        assert_eq!((session.id, session.timeout_ms, session.password), (SessionId(5), 4_000, [9; 16]));
        let refused = session.granted(ADDRESS, &ConnectResponse::REFUSED.to_vec()).unwrap_err();
        assert_eq!(refused.kind(), "session_expired");
        assert_eq!(session.id, SessionId(5));
    }

    #[test]
    fn the_newest_zxid_is_kept_whatever_a_reply_says() {
        let mut session = Session::new(Duration::from_secs(10));
        for (zxid, newest) in [(8, 8), (0, 8), (-1, 8), (9, 9)] {
            let header = ReplyHeader { xid: Xid(1), zxid: Zxid(zxid), error: 0 };
            assert_eq!(session.reply(ADDRESS, &header.to_vec()).unwrap(), (header, &[][..]));
            assert_eq!(session.last_zxid_seen, Zxid(newest));
        }
        assert_eq!(session.reply(ADDRESS, &[0; 15]).unwrap_err().kind(), "protocol");
    }

    #[test]
    fn errors_are_one_line_that_names_the_address() {
        let error = ClientError::Refused { address: ADDRESS, op: OpCode::Create, code: -110 };
        assert_eq!(error.to_string(), "127.0.0.1:2181: Create was refused: NodeExists (-110)");
        assert_eq!(error.code(), Some(ErrorCode::NodeExists));
        let turned_away = ClientError::TurnedAway { address: ADDRESS }.to_string();
        assert!(turned_away.starts_with("127.0.0.1:2181: ") && !turned_away.contains("  "), "{turned_away}");
        assert!(resolve("no-port").unwrap_err().to_string().starts_with("no-port: no such host"));
    }
}
