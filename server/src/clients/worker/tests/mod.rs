//! A worker between a scripted replica and clients that check what they are told.
//!
//! [`Rig`] owns a worker, a tree, and a port that takes as many writes as a test allows. Nothing happens by itself: a
//! test sends a frame ([`Rig::ask`]), lets the replica apply the oldest write that it took ([`Rig::apply`]) or one of
//! somebody else ([`Rig::elsewhere`]), and hands over what there is to tell ([`Rig::hand_over`]). As in the runtime,
//! everything that is queued is handed over before the next frame.
//!
//! What a connection was sent is read by its [`Client`], which turns it into lines (`3: ok @7` is the answer to xid 3
//! with zxid 7, `NodeDeleted /a @7` an event) and checks the promises of the design on the way: answers come in the
//! order of the requests (R1), their zxids never fall (R2), an event comes before every answer that may reflect it,
//! and none comes that nobody asked for (R3).
//!
//! **Not here**: what writes do (the sequencer's tests), sockets.

use super::*;
use crate::clients::delivery::{Delivery, Item};
use crate::clients::watch::WatchKind;
use crate::requests::answer::answer;
use crate::requests::sequencer::{Place, Rules, Sequencer};
use crate::requests::session;
use corral_engine::tree::Change;
use corral_net::put_frame;
use corral_proto::acl::encode_acls;
use corral_proto::jute::{StrList, put_string};
use corral_proto::multi::{MultiReadRequest, ReadOp};
use corral_proto::request::{CreateRequest, PathVersion, PathWatch, SetAclRequest, SetDataRequest, SetWatchesRequest};
use corral_proto::response::Response;
use corral_proto::{
    Acl, AclList, ConnectResponse, EventType, MultiOp, MultiRequest, MultiResult, TxnEntry, TxnHeader, WatcherEvent,
};
use proptest::prelude::*;
use proptest::test_runner::{Config, RngSeed};
use std::collections::{BTreeMap, VecDeque};
use std::net::Ipv4Addr;

mod access;
mod limits;
mod order;
mod properties;
mod protocol;

const SOMEBODY: SessionId = SessionId(0x9999);
const TIMEOUT_MS: i32 = 9000;
const REMOTE: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 1, 2, 3));

/// A write that the replica took.
struct Sent {
    conn: ConnId,
    session: SessionId,
    who: Identities,
    xid: Xid,
    op: OpCode,
    body: Vec<u8>,
    reads: Vec<u8>,
}

/// A replica that takes what it is given as long as there is room, and does nothing about it.
#[derive(Default)]
struct Script {
    room: usize,
    writes: VecDeque<Sent>,
    opened: Vec<(ConnId, i32)>,
    renewed: Vec<(ConnId, SessionId, Vec<u8>, i32)>,
}

impl Port for Script {
    fn has_room(&self) -> bool {
        self.writes.len() < self.room
    }

    fn write(&mut self, _tree: &Tree, request: &WriteRequest<'_>) {
        let WriteRequest { conn, session, who, xid, op, body, reads, .. } = *request;
        let (who, body, reads) = (who.clone(), body.to_vec(), reads.to_vec());
        self.writes.push_back(Sent { conn, session, who, xid, op, body, reads });
    }

    fn open_session(&mut self, _: &Tree, conn: ConnId, timeout_ms: i32) {
        self.opened.push((conn, timeout_ms));
    }

    fn renew_session(&mut self, conn: ConnId, id: SessionId, password: &[u8], timeout_ms: i32) {
        self.renewed.push((conn, id, password.to_vec(), timeout_ms));
    }
}

/// A request that a client waits for.
#[derive(Debug)]
struct Asked {
    xid: Xid,
    op: OpCode,
    watch: Option<(WatchKind, String)>,
}

/// What the other end of a connection knows.
#[derive(Debug)]
struct Client {
    id: ConnId,
    asked: VecDeque<Asked>,
    last_zxid: Zxid,
    /// What it watches, and the zxid of the answer that said so.
    watching: BTreeMap<(WatchKind, String), Zxid>,
    /// It has set watches by setWatches, of which this client keeps no account.
    unaccounted: bool,
    /// Answers to getData of its own node, in order: the versions seen.
    own_versions: Vec<i32>,
}

impl Client {
    fn new(id: ConnId) -> Client {
        Client {
            id,
            asked: VecDeque::new(),
            last_zxid: Zxid::ZERO,
            watching: BTreeMap::new(),
            unaccounted: false,
            own_versions: Vec::new(),
        }
    }

    /// Reads one frame behind the handshake.
    fn read(&mut self, frame: &[u8]) -> String {
        let mut d = Decoder::new(frame);
        let header = ReplyHeader::decode(&mut d).expect("an answer has a header");
        let line = match header.xid {
            Xid::NOTIFICATION => self.event(header.zxid, WatcherEvent::decode(&mut d).expect("an event")),
            _ => self.answer(header, &mut d),
        };
        assert!(d.is_empty(), "bytes behind {line}");
        line
    }

    fn event(&mut self, zxid: Zxid, event: WatcherEvent<'_>) -> String {
        use EventType::*;
        let line = format!("{:?} {} @{}", event.kind, event.path, zxid.0);
        // What setWatches tells at once has no zxid.
        if zxid != Zxid(-1) {
            assert!(zxid > self.last_zxid, "{line} comes after an answer @{}", self.last_zxid.0);
            let kinds: &[WatchKind] = match event.kind {
                NodeCreated | NodeDataChanged => &[WatchKind::Data],
                NodeChildrenChanged => &[WatchKind::Child],
                NodeDeleted => &[WatchKind::Data, WatchKind::Child],
            };
            let watched = kinds.iter().filter(|kind| self.watching.remove(&(**kind, event.path.to_owned())).is_some());
            assert!(watched.count() > 0 || self.unaccounted, "nobody asked for {line}");
        }
        line
    }

    fn answer(&mut self, header: ReplyHeader, d: &mut Decoder<'_>) -> String {
        let asked = self.asked.pop_front().unwrap_or_else(|| panic!("nobody asked for {header:?}"));
        let xid = if asked.op == OpCode::Ping { Xid::PING } else { asked.xid };
        assert_eq!(header.xid, xid, "an answer out of order; {asked:?} is the next");
        if header.zxid.0 > 0 {
            assert!(header.zxid >= self.last_zxid, "zxid {} after {}", header.zxid, self.last_zxid);
            self.last_zxid = header.zxid;
        }
        let Xid(xid) = header.xid;
        let missing = header.error == ErrorCode::NoNode.code();
        if header.error == 0 || (missing && asked.op == OpCode::Exists) {
            self.watching.extend(asked.watch.map(|watch| (watch, header.zxid)));
            self.unaccounted |= asked.op == OpCode::SetWatches;
        }
        if header.error != 0 {
            let error = ErrorCode::from_code(header.error).expect("a code that clients know");
            return format!("{xid}: {error:?} @{}", header.zxid.0);
        }
        let body = match Response::decode(asked.op, d).expect("the body that the operation has") {
            Response::Empty | Response::Zero | Response::Sasl(None) => String::new(),
            Response::Sasl(Some(_)) => panic!("there is no next step"),
            Response::Multi(results) => results.iter().fold(String::new(), |text, result| {
                text + &match result {
                    MultiResult::Data { data, stat } => {
                        format!(" {} v{}", String::from_utf8_lossy(data.unwrap_or(b"null")), stat.version)
                    }
                    MultiResult::Children(names) => format!(" [{}]", names.iter().collect::<Vec<_>>().join(" ")),
                    MultiResult::Error(Some(error)) => format!(" {error:?}"),
                    _ => String::new(),
                }
            }),
            Response::Path(path) | Response::PathStat(path, _) => format!(" {path}"),
            Response::Stat(stat) => format!(" v{}", stat.version),
            Response::Data(data, stat) => {
                self.own_versions.push(stat.version);
                let text = data.map_or("null".to_owned(), |data| String::from_utf8_lossy(data).into_owned());
                format!(" {text} v{}", stat.version)
            }
            Response::Children(names) | Response::ChildrenStat(names, _) => {
                let mut names: Vec<&str> = names.iter().collect();
                names.sort();
                format!(" [{}]", names.join(" "))
            }
            Response::Acl(acl, _) => acl.iter().fold(String::new(), |text, Acl { perms, scheme, id }| {
                format!("{text} {}:{}:{perms}", scheme.unwrap_or("null"), id.unwrap_or("null"))
            }),
            Response::Sync(path) => format!(" {path:?}"),
            Response::Number(number) => format!(" {number}"),
            Response::WhoAmI(ids) => ids.iter().map(|(scheme, user)| format!(" {scheme}:{user}")).collect(),
        };
        format!("{xid}: ok{body} @{}", header.zxid.0)
    }
}

struct Rig {
    worker: Worker,
    tree: Tree,
    port: Script,
    sequencer: Sequencer,
    zxid: i64,
    now: Duration,
    /// What the replica will tell with its next delivery.
    open: Delivery,
    changes: Vec<Change>,
    /// What it has told, and nobody has handed over yet.
    queued: VecDeque<Delivery>,
    clients: BTreeMap<u32, Client>,
    sessions: i64,
}

impl Rig {
    fn new() -> Rig {
        Rig::with_outstanding_max(1000)
    }

    fn with_outstanding_max(outstanding_max: usize) -> Rig {
        Rig::with(outstanding_max, Access::default())
    }

    fn with(outstanding_max: usize, access: Access) -> Rig {
        Rig::throttled(outstanding_max, access, None)
    }

    fn throttled(outstanding_max: usize, access: Access, throttled_after: Option<Duration>) -> Rig {
        let sequencer = Sequencer::new(1, access.clone(), Rules { takes_ttl: true, ..Rules::default() });
        let options = WorkerOptions {
            core: 3,
            seed: 1,
            timeouts_ms: (4000, 40_000),
            outstanding_max,
            throttled_after,
            bounds: Bounds::PRODUCTION,
            access,
        };
        Rig {
            worker: Worker::new(options),
            tree: Tree::new(1),
            port: Script { room: usize::MAX, ..Script::default() },
            sequencer,
            zxid: 0,
            now: Duration::from_secs(1),
            open: Delivery::default(),
            changes: Vec::new(),
            queued: VecDeque::new(),
            clients: BTreeMap::new(),
            sessions: 0x100,
        }
    }

    /// A connection that has said nothing yet.
    fn accept(&mut self) -> u32 {
        let id = self.worker.open(REMOTE);
        self.clients.insert(id.slot, Client::new(id));
        id.slot
    }

    /// A connection with a session of its own.
    fn connect(&mut self) -> u32 {
        let slot = self.accept();
        let room = std::mem::replace(&mut self.port.room, usize::MAX);
        assert!(!self.raw(slot, &hello(SessionId::NONE).to_vec()), "nothing is read before the answer");
        self.port.room = room;
        self.sessions += 1;
        self.welcome(slot, Some((SessionId(self.sessions), TIMEOUT_MS)));
        assert_eq!(self.bytes(slot).len(), 4 + 36);
        slot
    }

    /// The replica says what came of a handshake.
    fn welcome(&mut self, slot: u32, opened: Option<(SessionId, i32)>) {
        let conn = self.clients[&slot].id;
        self.open.items.push(Item::Session { conn, opened });
        self.hand_over();
    }

    /// The next frame of a connection, whatever it is. Says whether more of them may come.
    fn raw(&mut self, slot: u32, frame: &[u8]) -> bool {
        self.hand_over();
        let flow = self.worker.frame(&self.tree, &mut self.port, self.now, slot, frame);
        assert_eq!(flow.is_continue(), self.worker.wants_more(slot));
        flow.is_continue()
    }

    /// A request, which its client waits for from now on.
    fn ask(&mut self, slot: u32, xid: i32, request: Request<'_>) -> bool {
        let watch = match request {
            Request::GetData(r) | Request::Exists(r) if r.watch => Some((WatchKind::Data, r.path.to_owned())),
            Request::GetChildren(r) | Request::GetChildren2(r) if r.watch => {
                Some((WatchKind::Child, r.path.to_owned()))
            }
            _ => None,
        };
        let client = self.clients.get_mut(&slot).expect("a client");
        client.asked.push_back(Asked { xid: Xid(xid), op: request.op(), watch });
        self.raw(slot, &frame(xid, request.op().code(), &request.to_vec()))
    }

    /// Decides and applies a write, and notes what changed.
    fn carry_out(
        &mut self,
        (session, who): (SessionId, &Identities),
        xid: Xid,
        op: OpCode,
        body: &[u8],
    ) -> (Zxid, Vec<u8>, bool) {
        self.zxid += 1;
        let zxid = Zxid(self.zxid);
        let header = TxnHeader { session, cxid: xid, zxid, time_ms: 0 };
        let place = Place { zxid, time_ms: header.time_ms, session, who };
        let bytes =
            self.sequencer.decide(&self.tree, place, op, body, |txn, digest| TxnEntry { header, txn, digest }.to_vec());
        let entry = TxnEntry::decode(&bytes).expect("encoded here");
        let applied = self.tree.apply(&entry, Some(&mut self.changes));
        self.sequencer.applied(zxid);
        let (error, response) = answer(&entry.txn, &applied);
        let mut answer = Vec::new();
        put_frame(&mut answer, |out| {
            ReplyHeader { xid, zxid, error }.encode(out);
            response.encode(out);
        });
        (zxid, answer, op == OpCode::CloseSession)
    }

    /// The replica applies the oldest write that it took, and will tell. False if there is none.
    fn apply(&mut self) -> bool {
        let Some(Sent { conn, session, who, xid, op, body, reads }) = self.port.writes.pop_front() else {
            return false;
        };
        let access = Access::default();
        let view = View { tree: &self.tree, access: &access, who: &who, session };
        for frame in split_frames(&reads) {
            let start = self.open.bytes.len();
            let (xid, op) = answer_unwatched(&view, frame, &mut self.open.bytes);
            let (zxid, frame) = (self.tree.last_applied(), start..self.open.bytes.len());
            self.open.items.push(Item::Answer { conn, xid, op, zxid, frame, last: false });
        }
        let (zxid, answer, last) = self.carry_out((session, &who), xid, op, &body);
        let start = self.open.bytes.len();
        self.open.bytes.extend(answer);
        let frame = start..self.open.bytes.len();
        self.open.items.push(Item::Answer { conn, xid, op, zxid, frame, last });
        true
    }

    /// The replica applies a write of a client of another worker.
    fn elsewhere(&mut self, request: Request<'_>) {
        self.carry_out((SOMEBODY, &Identities::NOBODY), Xid(1), request.op(), &request.to_vec());
    }

    /// What comes from here on is told in another delivery.
    fn cut(&mut self) {
        let mut delivery = std::mem::take(&mut self.open);
        let changes = std::mem::take(&mut self.changes);
        delivery.changes = (!changes.is_empty()).then(|| changes.into());
        if !delivery.is_empty() {
            self.queued.push_back(delivery);
        }
    }

    /// The worker is told everything, as before each frame, and goes on with what that let go.
    fn hand_over(&mut self) {
        self.cut();
        for delivery in std::mem::take(&mut self.queued) {
            self.worker.deliver(self.now, &delivery);
        }
        if self.worker.has_ready() {
            self.worker.retry(&self.tree, &mut self.port, self.now);
        }
    }

    fn retry(&mut self) {
        self.hand_over();
        self.worker.retry(&self.tree, &mut self.port, self.now);
    }

    /// Everything that is on its way arrives.
    fn settle(&mut self) {
        self.port.room = usize::MAX;
        loop {
            self.retry();
            if !self.apply() {
                return;
            }
        }
    }

    /// The bytes that were sent since the last call.
    fn bytes(&mut self, slot: u32) -> Vec<u8> {
        self.some_bytes(slot, usize::MAX)
    }

    /// As many of them as the socket takes.
    fn some_bytes(&mut self, slot: u32, room: usize) -> Vec<u8> {
        let (out, _) = self.worker.output(slot).expect("an open connection");
        let bytes = out.rest()[..room.min(out.rest().len())].to_vec();
        out.advance(bytes.len());
        self.worker.sent(slot);
        bytes
    }

    /// What a client was told since the last call.
    fn told(&mut self, slot: u32) -> Vec<String> {
        let bytes = self.bytes(slot);
        self.read(slot, &bytes)
    }

    /// A client reads these bytes.
    fn read(&mut self, slot: u32, bytes: &[u8]) -> Vec<String> {
        let (mut rest, mut lines) = (bytes, Vec::new());
        let client = self.clients.get_mut(&slot).expect("a client");
        while let Some((len, after)) = rest.split_first_chunk::<4>() {
            let (frame, after) = after.split_at(u32::from_be_bytes(*len) as usize);
            lines.push(client.read(frame));
            rest = after;
        }
        assert!(rest.is_empty(), "half a frame");
        lines
    }

    /// Whether the connection is to be closed once its bytes are out.
    fn is_closing(&mut self, slot: u32) -> bool {
        self.worker.output(slot).expect("an open connection").1
    }

    /// The connection is gone.
    fn close(&mut self, slot: u32) {
        self.worker.close(slot);
        self.clients.remove(&slot);
    }

    /// The connections that were named as having something to do since the last call.
    fn dirty(&mut self) -> Vec<u32> {
        let mut dirty = Vec::new();
        self.worker.take_dirty(&mut dirty);
        dirty.sort();
        dirty.dedup();
        dirty
    }

    /// The xids of the writes that the replica took and has not applied.
    fn sent(&self) -> Vec<i32> {
        self.port.writes.iter().map(|sent| sent.xid.0).collect()
    }
}

fn frame(xid: i32, op: i32, body: &[u8]) -> Vec<u8> {
    [&xid.to_be_bytes()[..], &op.to_be_bytes(), body].concat()
}

fn hello(session_id: SessionId) -> ConnectRequest<'static> {
    ConnectRequest {
        protocol_version: 0,
        last_zxid_seen: Zxid::ZERO,
        timeout_ms: TIMEOUT_MS,
        session_id,
        password: Some(&[7; 16]),
        read_only: None,
    }
}

fn create(path: &str) -> Request<'_> {
    Request::Create(CreateRequest { path, data: Some(b"new"), acl: AclList::OPEN, flags: 0 })
}

fn delete(path: &str) -> Request<'_> {
    Request::Delete(PathVersion { path, version: -1 })
}

fn set(path: &str) -> Request<'_> {
    Request::SetData(SetDataRequest { path, data: Some(b"set"), version: -1 })
}

fn get(path: &str) -> Request<'_> {
    Request::GetData(PathWatch { path, watch: false })
}

fn watch(path: &str) -> Request<'_> {
    Request::GetData(PathWatch { path, watch: true })
}

fn exists(path: &str) -> Request<'_> {
    Request::Exists(PathWatch { path, watch: true })
}

fn children(path: &str) -> Request<'_> {
    Request::GetChildren(PathWatch { path, watch: true })
}
