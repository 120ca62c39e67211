//! What comes of a script: one line for each step, with all that any session was told because of it. Clocks are left out, sessions are
//! numbered in the order in which they were opened, and what has no order is sorted; everything else is as it came, zxids included.
//!
//! **Not here**: what is asked ([`super::script`]).

use super::script::{SESSIONS, Script, Step};
use corral_net::put_frame;
use corral_proto::jute::put_string;
use corral_proto::request::{PathWatch, RequestHeader};
use corral_proto::response::Response;
use corral_proto::{
    ConnectRequest, ConnectResponse, Decoder, ErrorCode, Jute, MultiResult, OpCode, ReplyHeader, Request, SessionId,
    Stat, WatcherEvent, Xid, Zxid,
};
use std::fmt::Write as _;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(30);

/// Runs a script against a server.
pub(crate) struct Run {
    clients: Vec<Client>,
    /// Sessions by number.
    known: Vec<SessionId>,
    /// How the addresses of its members begin.
    net: String,
}

struct Client {
    address: SocketAddr,
    stream: TcpStream,
    session: SessionId,
    password: Vec<u8>,
    last_zxid: Zxid,
    xid: i32,
}

/// What a request came to.
enum Answer {
    Reply(ReplyHeader, Vec<u8>),
    Closed,
}

impl Run {
    /// Sessions at this server.
    pub(crate) fn new(address: SocketAddr) -> Run {
        let mut known = Vec::new();
        let clients = (0..SESSIONS).map(|_| {
            let client = Client::new(address);
            known.push(client.session);
            client
        });
        let net = address.ip().to_string();
        let net = net[..=net.rfind('.').expect("an address of four numbers")].to_owned();
        Run { clients: clients.collect(), known, net }
    }

    /// Takes the next step and says what came of it.
    pub(crate) fn step(&mut self, script: &mut Script) -> String {
        let (number, step) = script.step();
        let client = &mut self.clients[number];
        let mut events = Vec::new();
        let mut line = match step {
            Step::Ask { op, body } => {
                let answer = client.ask(op, &body, &mut events);
                let line = format!("{number} {} {}: ", name(op), String::from_utf8_lossy(&body).escape_debug());
                self.finish(number, line, op, answer)
            }
            Step::WatchAgain { op, since_last, lists } => {
                let since = if since_last { client.last_zxid } else { Zxid(1) };
                let mut body = since.0.to_be_bytes().to_vec();
                for list in &lists {
                    body.extend((list.len() as u32).to_be_bytes());
                    list.iter().for_each(|path| put_string(&mut body, path));
                }
                // Apache's tells here of nodes that the client may not read, ours does not.
                let hidden: Vec<String> = lists.concat().into_iter().filter(|path| client.may_not_read(path)).collect();
                let answer = client.ask(op.code(), &body, &mut events);
                events.retain(|event| !hidden.iter().any(|path| event.contains(&format!(" {path} "))));
                self.finish(number, format!("{number} {op:?} {since_last} {lists:?}: "), op.code(), answer)
            }
            Step::Reconnect => {
                client.connect();
                format!("{number} reconnects: {}", self.number(self.clients[number].session))
            }
            Step::Renew => {
                let answer = client.ask(OpCode::CloseSession.code(), &[], &mut events);
                let line = self.finish(number, format!("{number} closes: "), OpCode::CloseSession.code(), answer);
                let client = &mut self.clients[number];
                (client.session, client.password, client.last_zxid) = (SessionId::NONE, vec![0; 16], Zxid::ZERO);
                client.connect();
                self.known.push(client.session);
                line
            }
        };
        let mut told: Vec<String> = events.iter().map(|event| format!(" {number}<{event}")).collect();
        for (number, client) in self.clients.iter_mut().enumerate() {
            let mut events = Vec::new();
            let answer = client.ask(OpCode::Ping.code(), &[], &mut events);
            assert!(matches!(answer, Answer::Reply(..)), "{line}: a ping is answered");
            told.extend(events.iter().map(|event| format!(" {number}<{event}")));
        }
        // Of several ephemeral nodes that go with their session, any may be told of first.
        told.sort();
        told.iter().for_each(|event| line += event);
        line.replace(&self.net, "net.")
    }

    fn finish(&mut self, number: usize, mut line: String, op: i32, answer: Answer) -> String {
        match answer {
            Answer::Closed => line += "closed",
            Answer::Reply(header, body) => {
                let error =
                    ErrorCode::from_code(header.error).map_or(header.error.to_string(), |error| format!("{error:?}"));
                write!(line, "{error} @{:x}{}", header.zxid.0, self.body(op, header.error, &body)).expect("a string");
                if self.clients[number].is_closed_after(op, header.error) {
                    line += " closed";
                }
            }
        }
        if line.ends_with("closed") && op != OpCode::CloseSession.code() {
            self.clients[number].connect();
        }
        line
    }

    /// The body of an answer, for people.
    fn body(&self, op: i32, error: i32, body: &[u8]) -> String {
        let mut d = Decoder::new(body);
        let decoded = OpCode::from_code(op).filter(|_| error == 0).map(|op| Response::decode(op, &mut d));
        let text = match decoded {
            None if body.is_empty() => return String::new(),
            None | Some(Err(_)) => format!(" {body:02x?}"),
            Some(Ok(response)) => self.response(response),
        };
        if d.is_empty() { text } else { format!("{text} and {} bytes more", d.rest().len()) }
    }

    fn response(&self, response: Response<'_>) -> String {
        let text =
            |data: Option<&[u8]>| data.map_or("null".to_owned(), |data| String::from_utf8_lossy(data).into_owned());
        let names = |names: corral_proto::jute::StrList<'_>| {
            let mut names: Vec<&str> = names.iter().collect();
            names.sort();
            names.join(" ")
        };
        match response {
            Response::Empty => String::new(),
            Response::Sasl(token) => format!(" {token:?}"),
            Response::Path(path) => format!(" {path}"),
            Response::PathStat(path, stat) => format!(" {path} {}", self.stat(&stat)),
            Response::Stat(stat) => format!(" {}", self.stat(&stat)),
            Response::Data(data, stat) => format!(" {:?} {}", text(data), self.stat(&stat)),
            Response::Children(list) => format!(" [{}]", names(list)),
            Response::ChildrenStat(list, stat) => format!(" [{}] {}", names(list), self.stat(&stat)),
            Response::Acl(acl, stat) => {
                let entries: Vec<String> =
                    acl.iter().map(|acl| format!("{:?}:{:?}:{}", acl.scheme, acl.id, acl.perms)).collect();
                format!(" {} {}", entries.join(","), self.stat(&stat))
            }
            Response::WhoAmI(ids) => {
                let mut ids: Vec<String> = ids.iter().map(|(scheme, id)| format!("{scheme}:{id}")).collect();
                ids.sort();
                format!(" {}", ids.join(","))
            }
            Response::Sync(path) => format!(" {path:?}"),
            Response::Zero => " 0".to_owned(),
            Response::Number(number) => format!(" {number}"),
            Response::Multi(results) => results.iter().fold(String::new(), |line, result| {
                line + &match result {
                    MultiResult::Create { path } => format!(" create {path}"),
                    MultiResult::Create2 { path, stat } => format!(" create2 {path} {}", self.stat(stat)),
                    MultiResult::Delete => " delete".to_owned(),
                    MultiResult::SetData { stat } => format!(" set {}", self.stat(stat)),
                    MultiResult::Check => " check".to_owned(),
                    MultiResult::Data { data, stat } => format!(" {:?} {}", text(*data), self.stat(stat)),
                    MultiResult::Children(list) => format!(" [{}]", names(*list)),
                    MultiResult::Error(error) => format!(" {error:?}"),
                }
            }),
        }
    }

    fn stat(&self, stat: &Stat) -> String {
        let Stat { czxid, mzxid, pzxid, version, cversion, aversion, data_length, num_children, .. } = stat;
        let zxids = format!("{:x}/{:x}/{:x}", czxid.0, mzxid.0, pzxid.0);
        let owner = self.number(stat.ephemeral_owner);
        format!("({zxids} v{version}/{cversion}/{aversion} {data_length}b {num_children}c {owner})")
    }

    fn number(&self, session: SessionId) -> String {
        match self.known.iter().position(|known| *known == session) {
            _ if session == SessionId::NONE => "-".to_owned(),
            Some(number) => format!("session {number}"),
            None => "an unknown session".to_owned(),
        }
    }
}

impl Client {
    fn new(address: SocketAddr) -> Client {
        let stream = TcpStream::connect(address).expect("it serves");
        let (session, password, last_zxid) = (SessionId::NONE, vec![0; 16], Zxid::ZERO);
        let mut client = Client { address, stream, session, password, last_zxid, xid: 0 };
        client.connect();
        client
    }

    /// A new connection, with the session that it has.
    fn connect(&mut self) {
        self.stream = TcpStream::connect(self.address).expect("it serves");
        self.stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        self.stream.set_nodelay(true).expect("an option of every socket");
        let request = ConnectRequest {
            protocol_version: 0,
            last_zxid_seen: self.last_zxid,
            timeout_ms: 60_000,
            session_id: self.session,
            password: Some(&self.password),
            read_only: Some(false),
        };
        let mut frame = Vec::new();
        put_frame(&mut frame, |out| request.encode(out));
        self.stream.write_all(&frame).expect("it reads");
        let answer = self.frame().expect("a handshake is answered");
        let answer = ConnectResponse::decode(&answer).expect("the answer to a handshake");
        assert!(answer.timeout_ms > 0, "the session lives");
        (self.session, self.password) = (answer.session_id, answer.password.to_vec());
    }

    fn frame(&mut self) -> io::Result<Vec<u8>> {
        let mut len = [0; 4];
        self.stream.read_exact(&mut len)?;
        let mut frame = vec![0; u32::from_be_bytes(len) as usize];
        self.stream.read_exact(&mut frame)?;
        Ok(frame)
    }

    fn ask(&mut self, op: i32, body: &[u8], events: &mut Vec<String>) -> Answer {
        self.xid += 1;
        let xid = if op == OpCode::Ping.code() { Xid::PING } else { Xid(self.xid) };
        let mut frame = Vec::new();
        put_frame(&mut frame, |out| {
            RequestHeader { xid, op }.encode(out);
            out.extend_from_slice(body);
        });
        if self.stream.write_all(&frame).is_err() {
            return Answer::Closed;
        }
        loop {
            let frame = match self.frame() {
                Ok(frame) => frame,
                Err(error) => {
                    assert!(!is_late(&error), "operation {op} is not answered");
                    return Answer::Closed;
                }
            };
            let mut d = Decoder::new(&frame);
            let header = ReplyHeader::decode(&mut d).expect("an answer has a header");
            if header.xid == Xid::NOTIFICATION {
                let event = WatcherEvent::decode(&mut d).expect("an event");
                events.push(format!("{:?} {} @{:x}", event.kind, event.path, header.zxid.0));
                continue;
            }
            assert_eq!(header.xid, xid, "answers come in the order of the requests");
            if header.zxid.0 > 0 {
                self.last_zxid = header.zxid;
            }
            return Answer::Reply(header, d.rest().to_vec());
        }
    }

    fn may_not_read(&mut self, path: &str) -> bool {
        let body = Request::Exists(PathWatch { path, watch: false }).to_vec();
        let answer = self.ask(OpCode::Exists.code(), &body, &mut Vec::new());
        matches!(answer, Answer::Reply(ReplyHeader { error, .. }, _) if error == ErrorCode::NoAuth.code())
    }

    /// Whether the server has closed the connection behind its answer. Only asked where it may have.
    fn is_closed_after(&mut self, op: i32, error: i32) -> bool {
        let last_words = [
            ErrorCode::AuthFailed.code(),
            ErrorCode::Unimplemented.code(),
            ErrorCode::SessionClosedRequireSaslAuth.code(),
        ];
        let may_be = last_words.contains(&error) || op == OpCode::CloseSession.code();
        if !may_be {
            return false;
        }
        // Nothing is asked meanwhile: Apache's goes on answering until its other thread has closed.
        loop {
            match self.frame() {
                Ok(_) => {}
                Err(error) => return !is_late(&error),
            }
        }
    }
}

fn is_late(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut)
}

fn name(op: i32) -> String {
    OpCode::from_code(op).map_or(format!("op {op}"), |op| format!("{op:?}"))
}
