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
use crate::pipeline::answer::answer;
use crate::pipeline::sequencer::{Place, Sequencer};
use crate::watch::WatchKind;
use corral_engine::tree::Change;
use corral_net::put_frame;
use corral_proto::acl::encode_acls;
use corral_proto::jute::{StrList, put_string};
use corral_proto::request::{CreateRequest, PathVersion, PathWatch, SetAclRequest, SetDataRequest, SetWatchesRequest};
use corral_proto::response::Response;
use corral_proto::{Acl, EventType, MultiOp, MultiRequest, TxnEntry, TxnHeader};
use proptest::prelude::*;
use proptest::test_runner::{Config, RngSeed};
use std::collections::{BTreeMap, VecDeque};

const SOMEBODY: SessionId = SessionId(0x9999);
const TIMEOUT_MS: i32 = 9000;

/// A write that the replica took.
struct Sent {
    conn: ConnId,
    session: SessionId,
    xid: Xid,
    op: OpCode,
    body: Vec<u8>,
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
    fn write(&mut self, _tree: &Tree, request: &WriteRequest<'_>) -> bool {
        let WriteRequest { conn, session, xid, op, body } = *request;
        let taken = self.writes.len() < self.room;
        if taken {
            self.writes.push_back(Sent { conn, session, xid, op, body: body.to_vec() });
        }
        taken
    }

    fn open_session(&mut self, conn: ConnId, timeout_ms: i32) -> bool {
        let taken = self.room > 0;
        if taken {
            self.opened.push((conn, timeout_ms));
        }
        taken
    }

    fn renew_session(&mut self, conn: ConnId, id: SessionId, password: &[u8], timeout_ms: i32) -> bool {
        let taken = self.room > 0;
        if taken {
            self.renewed.push((conn, id, password.to_vec(), timeout_ms));
        }
        taken
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
            Response::Empty | Response::Multi(_) => String::new(),
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
            Response::Acl(acl, _) => format!(" {} entries", acl.iter().count()),
            Response::Sync(path) => format!(" {path:?}"),
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
        let options = WorkerOptions { core: 3, seed: 1, timeouts_ms: (4000, 40_000), outstanding_max };
        Rig {
            worker: Worker::new(options),
            tree: Tree::new(1),
            port: Script { room: usize::MAX, ..Script::default() },
            sequencer: Sequencer::new(1),
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
        let id = self.worker.open();
        self.clients.insert(id.slot, Client::new(id));
        id.slot
    }

    /// A connection with a session of its own.
    fn connect(&mut self) -> u32 {
        let slot = self.accept();
        assert!(!self.raw(slot, &hello(SessionId::NONE).to_vec()), "nothing is read before the answer");
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
    fn carry_out(&mut self, session: SessionId, xid: Xid, op: OpCode, body: &[u8]) -> (Zxid, Vec<u8>, bool) {
        self.zxid += 1;
        let zxid = Zxid(self.zxid);
        let header = TxnHeader { session, cxid: xid, zxid, time_ms: 0 };
        let place = Place { zxid, session };
        let bytes = self.sequencer.decide(&self.tree, place, op, body, |txn| TxnEntry { header, txn }.to_vec());
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
        let Some(Sent { conn, session, xid, op, body }) = self.port.writes.pop_front() else { return false };
        let (zxid, answer, last) = self.carry_out(session, xid, op, &body);
        let start = self.open.bytes.len();
        self.open.bytes.extend(answer);
        let frame = start..self.open.bytes.len();
        self.open.items.push(Item::Answer { conn, xid, op, zxid, frame, last });
        true
    }

    /// The replica applies a write of a client of another worker.
    fn elsewhere(&mut self, request: Request<'_>) {
        self.carry_out(SOMEBODY, Xid(1), request.op(), &request.to_vec());
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
        out.wrote(bytes.len());
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

#[test]
fn answers_leave_in_the_order_of_the_requests() {
    let mut rig = Rig::new();
    rig.elsewhere(create("/a"));
    let a = rig.connect();
    rig.ask(a, 1, set("/a"));
    rig.ask(a, 2, get("/a"));
    rig.ask(a, 3, Request::Ping);
    rig.ask(a, 4, set("/a"));
    rig.ask(a, 5, set("/missing"));
    rig.ask(a, 6, get("/a"));
    assert_eq!(rig.told(a), [""; 0], "the reads wait for the write before them");
    assert_eq!(rig.sent(), [1], "a write behind a read that waits is not sent: the read must not see it");
    rig.apply();
    rig.hand_over();
    assert_eq!(rig.told(a), ["1: ok v1 @2", "2: ok set v1 @2", "-2: ok @2"]);
    assert_eq!(rig.sent(), [4, 5]);
    rig.settle();
    assert_eq!(rig.told(a), ["4: ok v2 @3", "5: NoNode @4", "6: ok set v2 @4"]);
    assert_eq!(rig.worker.outstanding(), 0);
}

/// That is what fills a batch of the log.
#[test]
fn writes_do_not_wait_for_writes() {
    let mut rig = Rig::new();
    let a = rig.connect();
    for xid in 1..=5 {
        assert!(rig.ask(a, xid, create(&format!("/{xid}"))));
    }
    assert_eq!(rig.sent(), [1, 2, 3, 4, 5]);
    assert_eq!(rig.worker.outstanding(), 5);
    rig.settle();
    let answers: Vec<String> = (1..=5).map(|n| format!("{n}: ok /{n} @{n}")).collect();
    assert_eq!(rig.told(a), answers);
}

#[test]
fn nobody_waits_for_the_writes_of_others() {
    let mut rig = Rig::new();
    let (a, b) = (rig.connect(), rig.connect());
    rig.ask(a, 1, create("/a"));
    rig.ask(b, 1, get("/a"));
    rig.ask(b, 2, Request::Ping);
    assert_eq!(rig.told(b), ["1: NoNode @0", "-2: ok @0"]);
    rig.apply();
    rig.ask(b, 3, get("/a"));
    assert_eq!(rig.told(b), ["3: ok new v0 @1"]);
    assert_eq!(rig.told(a), ["1: ok /a @1"]);
}

#[test]
fn an_event_comes_before_the_answer_to_the_write_that_caused_it() {
    let mut rig = Rig::new();
    rig.elsewhere(create("/a"));
    let a = rig.connect();
    rig.ask(a, 1, watch("/a"));
    rig.ask(a, 2, children("/a"));
    rig.ask(a, 3, exists("/a/b"));
    rig.ask(a, 4, set("/a"));
    rig.ask(a, 5, create("/a/b"));
    while rig.apply() {}
    rig.hand_over();
    let told = [
        "1: ok new v0 @1",
        "2: ok [] @1",
        "3: NoNode @1",
        "NodeDataChanged /a @2",
        "4: ok v1 @2",
        "NodeCreated /a/b @3",
        "NodeChildrenChanged /a @3",
        "5: ok /a/b @3",
    ];
    assert_eq!(rig.told(a), told);
}

/// Changes of others, the connection's own write and again changes of others: events and answers in the order of their
/// zxids, whether they come in one delivery or in several.
#[test]
fn events_and_answers_come_in_the_order_of_their_zxids() {
    for cut in [false, true] {
        let mut rig = Rig::new();
        for path in ["/a", "/b", "/c"] {
            rig.elsewhere(create(path));
        }
        let a = rig.connect();
        for (xid, path) in [(1, "/a"), (2, "/b"), (3, "/c")] {
            rig.ask(a, xid, watch(path));
        }
        rig.told(a);
        rig.ask(a, 4, set("/b"));
        rig.ask(a, 5, delete("/b"));
        for step in 0..4 {
            match step {
                0 => rig.elsewhere(set("/a")),
                3 => rig.elsewhere(set("/c")),
                _ => assert!(rig.apply()),
            }
            if cut {
                rig.cut();
            }
        }
        rig.ask(a, 6, get("/c"));
        let told = [
            "NodeDataChanged /a @4",
            "NodeDataChanged /b @5",
            "4: ok v1 @5",
            "5: ok @6",
            "NodeDataChanged /c @7",
            "6: ok set v1 @7",
        ];
        assert_eq!(rig.told(a), told);
    }
}

/// R4: of a multi's events none comes after its answer, and they come in the order of its parts.
#[test]
fn the_events_of_a_multi_come_together() {
    let mut rig = Rig::new();
    rig.elsewhere(create("/old"));
    let a = rig.connect();
    rig.ask(a, 1, exists("/new"));
    rig.ask(a, 2, watch("/old"));
    rig.ask(a, 3, children("/"));
    rig.told(a);
    let mut ops = Vec::new();
    let request = CreateRequest { path: "/new", data: None, acl: AclList::OPEN, flags: 0 };
    MultiOp::Create(request).encode_into(&mut ops);
    MultiOp::Delete(PathVersion { path: "/old", version: 0 }).encode_into(&mut ops);
    rig.ask(a, 4, Request::Multi(MultiRequest::from_encoded(2, &ops)));
    rig.settle();
    let told = ["NodeCreated /new @2", "NodeChildrenChanged / @2", "NodeDeleted /old @2", "4: ok @2"];
    assert_eq!(rig.told(a), told);
}

#[test]
fn a_watch_is_not_fired_by_a_change_that_the_read_has_seen() {
    let mut rig = Rig::new();
    rig.elsewhere(create("/a"));
    let (a, b) = (rig.connect(), rig.connect());
    // B watches already, so the changes are delivered to this worker.
    rig.ask(b, 1, watch("/a"));
    rig.told(b);
    rig.elsewhere(set("/a"));
    rig.cut();
    rig.elsewhere(set("/a"));
    rig.ask(a, 1, watch("/a"));
    rig.settle();
    assert_eq!(rig.told(a), ["1: ok set v2 @3"]);
    assert_eq!(rig.told(b), ["NodeDataChanged /a @2"]);
    rig.elsewhere(set("/a"));
    rig.hand_over();
    assert_eq!(rig.told(a), ["NodeDataChanged /a @4"]);
}

/// R3 where it is easiest to miss: the answer to a write lets a held read go, and the tree that it reads is ahead of
/// that write. What happened in between must have been told before.
#[test]
fn a_held_read_is_answered_after_every_event_that_it_may_reflect() {
    for cut in [false, true] {
        let mut rig = Rig::new();
        for path in ["/a", "/b"] {
            rig.elsewhere(create(path));
        }
        let a = rig.connect();
        rig.ask(a, 1, watch("/b"));
        rig.ask(a, 2, set("/a"));
        rig.ask(a, 3, get("/b"));
        assert_eq!(rig.told(a), ["1: ok new v0 @2"]);
        rig.apply();
        if cut {
            rig.cut();
        }
        rig.elsewhere(set("/b"));
        rig.hand_over();
        let told = ["2: ok v1 @3", "NodeDataChanged /b @4", "3: ok set v1 @4"];
        assert_eq!(rig.told(a), told, "in one delivery, or (cut = {cut}) in two");
    }
}

/// The same for a watch that the held read sets: what the read has seen is no news.
#[test]
fn a_watch_that_a_held_read_sets_is_not_fired_by_what_the_read_has_seen() {
    for cut in [false, true] {
        let mut rig = Rig::new();
        for path in ["/a", "/b"] {
            rig.elsewhere(create(path));
        }
        let a = rig.connect();
        rig.ask(a, 1, set("/a"));
        rig.ask(a, 2, watch("/b"));
        rig.apply();
        if cut {
            rig.cut();
        }
        rig.elsewhere(set("/b"));
        rig.hand_over();
        assert_eq!(rig.told(a), ["1: ok v1 @3", "2: ok set v1 @4"], "in one delivery, or (cut = {cut}) in two");
        rig.elsewhere(set("/b"));
        rig.hand_over();
        assert_eq!(rig.told(a), ["NodeDataChanged /b @5"]);
    }
}

#[test]
fn a_full_replica_makes_requests_wait_in_their_order() {
    let mut rig = Rig::new();
    rig.elsewhere(create("/a"));
    let (a, b) = (rig.connect(), rig.connect());
    rig.port.room = 0;
    rig.ask(a, 1, set("/a"));
    rig.ask(a, 2, get("/a"));
    rig.ask(a, 3, set("/a"));
    rig.ask(b, 1, set("/a"));
    assert!(rig.worker.is_stalled());
    rig.ask(b, 2, set("/a"));
    assert_eq!((rig.sent(), rig.worker.outstanding()), (vec![], 5));
    rig.dirty();
    rig.retry();
    assert!(rig.worker.is_stalled(), "there is no room yet");
    rig.dirty();
    rig.port.room = 1;
    rig.retry();
    assert_eq!(rig.sent(), [1]);
    assert!(rig.dirty().contains(&a), "with less to keep, its socket may be wanted again");
    assert_eq!((rig.told(a), rig.told(b)), (vec![], vec![]));
    assert!(rig.worker.is_stalled(), "B still waits");
    rig.settle();
    assert!(!rig.worker.is_stalled());
    assert_eq!(rig.told(a), ["1: ok v1 @2", "2: ok set v1 @2", "3: ok v4 @5"]);
    assert_eq!(rig.told(b), ["1: ok v2 @3", "2: ok v3 @4"]);
    assert_eq!(rig.worker.outstanding(), 0);
}

/// Nobody rings when there is room again for these; the answer to the write that was sent lets them go.
#[test]
fn a_write_that_finds_no_room_behind_another_goes_after_it() {
    let mut rig = Rig::new();
    rig.elsewhere(create("/a"));
    let a = rig.connect();
    rig.port.room = 2;
    for xid in 1..=5 {
        rig.ask(a, xid, set("/a"));
    }
    assert_eq!(rig.sent(), [1, 2]);
    rig.apply();
    rig.hand_over();
    assert_eq!(rig.sent(), [2, 3]);
    rig.port.room = 1;
    rig.apply();
    rig.hand_over();
    assert_eq!(rig.sent(), [3]);
    rig.settle();
    let answers: Vec<String> = (1..=5).map(|n| format!("{n}: ok v{n} @{}", n + 1)).collect();
    assert_eq!(rig.told(a), answers);
}

#[test]
fn a_handshake_that_finds_no_room_is_refused_by_closing() {
    let mut rig = Rig::new();
    rig.port.room = 0;
    for session in [SessionId::NONE, SessionId(5)] {
        let a = rig.accept();
        assert!(!rig.raw(a, &hello(session).to_vec()));
        assert!(rig.is_closing(a) && rig.bytes(a).is_empty());
        assert_eq!(rig.dirty(), [a]);
    }
}

#[test]
fn a_connection_with_too_many_requests_is_not_read_until_they_are_answered() {
    let mut rig = Rig::with_outstanding_max(usize::MAX);
    let a = rig.connect();
    rig.ask(a, 1, create("/a"));
    for held in 1..HELD_MAX {
        let flow = rig.ask(a, 2, Request::Ping);
        assert_eq!(flow, held + 1 < HELD_MAX, "{held} requests are held");
    }
    rig.dirty();
    rig.settle();
    assert!(rig.worker.wants_more(a));
    assert_eq!(rig.dirty(), [a], "somebody must look at the socket again");
    assert_eq!(rig.told(a).len(), HELD_MAX);
}

/// A client that does not read: what it asks for further waits until it has taken what there is, reads and writes
/// alike.
#[test]
fn nothing_more_is_done_for_a_client_that_does_not_read() {
    let mut rig = Rig::new();
    let data = vec![b'x'; UNSENT_MAX / 4];
    rig.elsewhere(create("/a"));
    rig.elsewhere(Request::SetData(SetDataRequest { path: "/a", data: Some(&data), version: -1 }));
    let a = rig.connect();
    rig.ask(a, 1, set("/missing"));
    for xid in 2..=7 {
        assert!(rig.ask(a, xid, get("/a")), "what is held is small");
    }
    rig.ask(a, 8, set("/a"));
    rig.apply();
    rig.hand_over();
    assert!(!rig.worker.wants_more(a));
    assert_eq!((rig.worker.outstanding(), rig.sent()), (3, vec![]), "four answers fill its buffer");
    rig.retry();
    assert_eq!((rig.worker.outstanding(), rig.worker.has_ready()), (3, false));
    let first = rig.some_bytes(a, 10);
    assert!(!rig.worker.has_ready(), "that was not enough");
    let rest = rig.bytes(a);
    assert!(rig.worker.has_ready() && rig.worker.wants_more(a));
    rig.read(a, &[first, rest].concat());
    rig.settle();
    let told = rig.told(a);
    assert_eq!((told.len(), told[2].as_str()), (3, "8: ok v2 @4"));
    assert_eq!(rig.worker.outstanding(), 0);
}

#[test]
fn a_connection_with_too_many_held_bytes_is_not_read_until_they_are_gone() {
    let mut rig = Rig::new();
    let a = rig.connect();
    let data = vec![b'x'; HELD_BYTES_MAX / 2];
    let large = Request::SetData(SetDataRequest { path: "/a", data: Some(&data), version: -1 });
    rig.ask(a, 1, create("/a"));
    // Behind a write another one is sent at once, however large; it is the read that makes them wait.
    assert!(rig.ask(a, 2, large));
    assert!(rig.ask(a, 3, get("/missing")));
    assert!(rig.ask(a, 4, large));
    assert!(!rig.ask(a, 5, large));
    rig.apply();
    rig.hand_over();
    assert!(!rig.worker.wants_more(a));
    rig.apply();
    rig.hand_over();
    assert_eq!(rig.sent(), [4, 5]);
    assert!(rig.worker.wants_more(a), "what was sent is not kept here");
    rig.settle();
    assert_eq!(rig.told(a).len(), 5);
}

/// `globalOutstandingLimit`, section 8.5 of the reference: whoever has something outstanding is not read any more;
/// whoever has not may still ask, so that it can ping.
#[test]
fn a_crowd_is_not_read_except_for_those_who_wait_for_nothing() {
    let mut rig = Rig::with_outstanding_max(4);
    let (a, b, c) = (rig.connect(), rig.connect(), rig.connect());
    assert!(rig.ask(a, 1, create("/a")));
    assert!(rig.ask(a, 2, Request::Ping));
    assert!(rig.ask(b, 1, create("/b")));
    assert!(!rig.ask(a, 3, Request::Ping));
    assert!(!rig.worker.wants_more(a) && !rig.worker.wants_more(b) && rig.worker.wants_more(c));
    assert!(rig.ask(c, 1, Request::Ping));
    assert_eq!(rig.told(c), ["-2: ok @0"]);
    assert!(!rig.ask(c, 2, create("/c")), "now it has something outstanding too");
    rig.dirty();
    rig.apply();
    rig.hand_over();
    assert_eq!(rig.worker.outstanding(), 2);
    assert!([a, b, c].into_iter().all(|slot| rig.worker.wants_more(slot)));
    assert_eq!(rig.dirty(), [a]);
    rig.settle();
    assert_eq!(rig.dirty(), [b, c], "each is named when its own answer comes");
}

/// A place in the table is given to the next connection; what was meant for the last one must not reach it.
#[test]
fn what_is_told_to_a_connection_that_is_gone_is_not_told_to_the_next_one() {
    let mut rig = Rig::new();
    let old = rig.connect();
    rig.ask(old, 1, create("/a"));
    rig.ask(old, 2, watch("/"));
    rig.ask(old, 3, create("/b"));
    let id = rig.clients[&old].id;
    rig.close(old);
    assert_eq!(rig.worker.outstanding(), 0, "what it waited for is forgotten");
    let new = rig.connect();
    assert_eq!(old, new);
    assert!(rig.clients[&new].id.generation != id.generation);
    rig.ask(new, 1, create("/c"));
    rig.open.items.push(Item::Close { conn: id });
    rig.open.items.push(Item::Session { conn: id, opened: None });
    rig.settle();
    assert_eq!(rig.told(new), ["1: ok /c @2"]);
    assert!(!rig.is_closing(new) && rig.worker.outstanding() == 0);
}

#[test]
fn a_connection_may_go_at_any_moment() {
    let mut rig = Rig::new();
    rig.elsewhere(create("/a"));
    // Before the handshake, in its midst, with watches, with requests that were sent, held, and stalled.
    let before = rig.accept();
    rig.close(before);
    let amid = rig.accept();
    rig.raw(amid, &hello(SessionId::NONE).to_vec());
    let id = rig.clients[&amid].id;
    rig.close(amid);
    rig.open.items.push(Item::Session { conn: id, opened: Some((SessionId(7), TIMEOUT_MS)) });
    rig.hand_over();
    let watching = rig.connect();
    rig.ask(watching, 1, watch("/a"));
    rig.ask(watching, 2, set("/a"));
    rig.ask(watching, 3, watch("/"));
    assert_eq!((rig.worker.watches().len(), rig.worker.outstanding()), (1, 2));
    rig.close(watching);
    assert_eq!((rig.worker.watches().len(), rig.worker.outstanding()), (0, 0));
    rig.port.room = rig.port.writes.len();
    let stalled = rig.connect();
    rig.ask(stalled, 1, set("/a"));
    rig.ask(stalled, 2, set("/a"));
    assert!(rig.worker.is_stalled());
    rig.close(stalled);
    // The place that had something to retry belongs to somebody who has nothing.
    let new = rig.connect();
    rig.ask(new, 1, get("/a"));
    rig.settle();
    assert_eq!(rig.told(new), ["1: ok new v0 @1"]);
    assert_eq!((rig.sent(), rig.worker.outstanding()), (vec![], 0));
}

#[test]
fn a_ping_is_answered_with_its_own_xid_whatever_was_asked() {
    let mut rig = Rig::new();
    rig.elsewhere(create("/a"));
    let a = rig.connect();
    for xid in [-2, 55, 0, i32::MIN] {
        rig.ask(a, xid, Request::Ping);
        assert_eq!(rig.told(a), ["-2: ok @1"]);
    }
    // Its place in the order is that of any other request.
    rig.ask(a, 1, set("/a"));
    rig.ask(a, -2, Request::Ping);
    assert_eq!(rig.told(a), [""; 0]);
    rig.settle();
    assert_eq!(rig.told(a), ["1: ok v1 @2", "-2: ok @2"]);
}

#[test]
fn an_operation_that_nobody_knows_is_refused_and_the_connection_closed() {
    // 13, -10 and -1 are operations, but none that a client may ask for by itself.
    for op in [0, 10, 13, 20, 99, 108, -1, -10, i32::MAX] {
        let mut rig = Rig::new();
        let a = rig.connect();
        rig.dirty();
        assert!(!rig.raw(a, &frame(77, op, b"whatever")));
        assert!(rig.is_closing(a));
        assert_eq!(rig.dirty(), [a]);
        let expected = [&16u32.to_be_bytes()[..], &frame(77, -1, &[0xff; 4]), &(-6i32).to_be_bytes()].concat();
        assert_eq!(rig.bytes(a), expected, "operation {op}: xid 77, zxid -1, error -6");
        rig.raw(a, &frame(78, 11, &[]));
        assert!(rig.bytes(a).is_empty(), "nothing more is read");
    }
}

#[test]
fn an_unknown_operation_waits_for_its_turn_and_ends_everything_behind_it() {
    let mut rig = Rig::new();
    let a = rig.connect();
    rig.ask(a, 1, create("/a"));
    rig.raw(a, &frame(2, 99, &[]));
    rig.ask(a, 3, create("/b"));
    rig.ask(a, 4, Request::Ping);
    rig.settle();
    let bytes = rig.bytes(a);
    assert_eq!(bytes.len(), 4 + 16 + 4 + 2 + 4 + 16, "the answer to the create and the refusal, nothing else");
    assert_eq!(bytes[26..34], [0, 0, 0, 16, 0, 0, 0, 2]);
    assert!(rig.is_closing(a) && rig.tree.find("/b").is_none());
}

#[test]
fn a_frame_without_a_whole_header_closes_without_a_word() {
    for len in 0..8 {
        let mut rig = Rig::new();
        let a = rig.connect();
        assert!(!rig.raw(a, &vec![0; len]));
        assert!(rig.is_closing(a) && rig.bytes(a).is_empty());
    }
}

/// There is no authentication yet: every attempt fails, as an unknown scheme does; the session lives on.
#[test]
fn authentication_fails_and_closes() {
    let mut rig = Rig::new();
    rig.elsewhere(create("/a"));
    let a = rig.connect();
    assert!(!rig.ask(a, -4, Request::Auth { scheme: Some("digest"), auth: Some(b"u:p") }));
    assert_eq!(rig.told(a), ["-4: AuthFailed @0"]);
    assert!(rig.is_closing(a));
}

/// The last word is the last: whatever happens before the bytes are out, nobody hears of it.
#[test]
fn nothing_is_said_after_the_last_word() {
    let last_words: [fn(&mut Rig, u32); 4] = [
        |rig, a| _ = rig.raw(a, &frame(9, 99, &[])),
        |rig, a| _ = rig.raw(a, &frame(9, OpCode::Auth.code(), &[0xff; 12])),
        |rig, a| {
            rig.raw(a, &frame(9, OpCode::CloseSession.code(), &[]));
            rig.apply();
            rig.hand_over();
        },
        |rig, a| {
            let conn = rig.clients[&a].id;
            rig.open.items.push(Item::Close { conn });
            rig.hand_over();
        },
    ];
    for (index, last_word) in last_words.iter().enumerate() {
        let mut rig = Rig::new();
        rig.elsewhere(create("/a"));
        let a = rig.connect();
        rig.ask(a, 1, watch("/a"));
        last_word(&mut rig, a);
        assert!(rig.is_closing(a));
        rig.bytes(a);
        rig.elsewhere(set("/a"));
        rig.hand_over();
        assert_eq!(rig.bytes(a), [0; 0], "after last word {index}");
    }
}

/// A session that was taken over: its former connection is closed without a word, also if answers to it are on their
/// way.
#[test]
fn a_connection_that_lost_its_session_hears_no_answers() {
    let mut rig = Rig::new();
    let a = rig.connect();
    rig.ask(a, 1, create("/a"));
    rig.ask(a, 2, get("/a"));
    let conn = rig.clients[&a].id;
    rig.open.items.push(Item::Close { conn });
    rig.settle();
    assert!(rig.is_closing(a));
    assert_eq!(rig.bytes(a), [0; 0]);
}

#[test]
fn close_session_is_the_last_answer() {
    let mut rig = Rig::new();
    let a = rig.connect();
    rig.ask(a, 1, create("/a"));
    rig.ask(a, 2, get("/a"));
    rig.ask(a, 3, Request::CloseSession);
    rig.raw(a, &frame(4, OpCode::GetData.code(), &get("/a").to_vec()));
    rig.raw(a, &frame(5, OpCode::Create.code(), &create("/b").to_vec()));
    rig.apply();
    rig.hand_over();
    assert!(!rig.is_closing(a));
    assert_eq!(rig.told(a), ["1: ok /a @1", "2: ok new v0 @1"]);
    rig.settle();
    assert_eq!(rig.told(a), ["3: ok @2"]);
    assert!(rig.is_closing(a));
    assert!(rig.tree.find("/b").is_none(), "what came behind it is not carried out");
}

#[test]
fn the_read_only_flag_is_answered_only_to_those_who_sent_it() {
    for (read_only, len) in [(None, 36), (Some(false), 37), (Some(true), 37)] {
        let mut rig = Rig::new();
        let a = rig.accept();
        rig.raw(a, &ConnectRequest { read_only, ..hello(SessionId::NONE) }.to_vec());
        rig.welcome(a, Some((SessionId(0x77), 8000)));
        let bytes = rig.bytes(a);
        assert_eq!(bytes.len(), 4 + len);
        let answer = ConnectResponse::decode(&bytes[4..]).unwrap();
        assert_eq!((answer.session_id, answer.timeout_ms), (SessionId(0x77), 8000));
        assert_eq!(answer.password, session::password(SessionId(0x77)));
        assert_eq!(answer.read_only, read_only.map(|_| false), "this server takes writes");
        assert!(rig.worker.wants_more(a));
    }
}

/// Clients know that their session is gone by the zeros, and by nothing else.
#[test]
fn a_refused_session_is_answered_with_zeros_and_closed() {
    for (read_only, len) in [(None, 36u8), (Some(true), 37)] {
        let mut rig = Rig::new();
        let a = rig.accept();
        rig.raw(a, &ConnectRequest { read_only, ..hello(SessionId(5)) }.to_vec());
        rig.welcome(a, None);
        let mut expected = vec![0; 4 + usize::from(len)];
        (expected[3], expected[23]) = (len, 16);
        assert_eq!(rig.bytes(a), expected);
        assert!(rig.is_closing(a) && !rig.worker.wants_more(a));
    }
}

#[test]
fn the_handshake_is_passed_on_with_a_timeout_within_the_limits() {
    for (asked, given) in [(1, 4000), (-5, 4000), (4000, 4000), (9000, 9000), (10_000_000, 40_000)] {
        let mut rig = Rig::new();
        let new = rig.accept();
        rig.raw(new, &ConnectRequest { timeout_ms: asked, ..hello(SessionId::NONE) }.to_vec());
        assert_eq!(rig.port.opened, [(rig.clients[&new].id, given)]);
        for password in [Some(&[7; 16][..]), None, Some(&[])] {
            let known = rig.accept();
            let request = ConnectRequest { timeout_ms: asked, password, ..hello(SessionId(5)) };
            rig.raw(known, &request.to_vec());
            let expected = (rig.clients[&known].id, SessionId(5), password.unwrap_or_default().to_vec(), given);
            assert_eq!(rig.port.renewed.pop(), Some(expected));
        }
    }
}

/// R2: a client that has seen more than we have is not served, new or not.
#[test]
fn a_client_that_has_seen_a_newer_state_is_sent_away_without_a_word() {
    for session in [SessionId::NONE, SessionId(5)] {
        let mut rig = Rig::new();
        rig.elsewhere(create("/a"));
        for (seen, served) in [(0, true), (1, true), (2, false), (i64::MAX, false)] {
            let a = rig.accept();
            rig.raw(a, &ConnectRequest { last_zxid_seen: Zxid(seen), ..hello(session) }.to_vec());
            assert_eq!((rig.is_closing(a), rig.bytes(a)), (!served, vec![]), "zxid {seen}");
        }
        assert_eq!(rig.port.opened.len() + rig.port.renewed.len(), 2);
    }
}

#[test]
fn a_handshake_that_cannot_be_read_is_not_answered() {
    for len in [0, 4, 43] {
        let mut rig = Rig::new();
        let a = rig.accept();
        assert!(!rig.raw(a, &hello(SessionId::NONE).to_vec()[..len]));
        assert!(rig.is_closing(a) && rig.bytes(a).is_empty() && rig.port.opened.is_empty());
    }
}

#[test]
fn bodies_that_cannot_be_read_are_answered_and_the_connection_stays() {
    let mut rig = Rig::new();
    let a = rig.connect();
    let null_path = [0xff, 0xff, 0xff, 0xff, 0];
    let no_lists = [[0; 8], [0xff; 8]].concat();
    let not_utf8 = [0, 0, 0, 2, b'/', 0xff, 0];
    for (op, body, error) in [
        (OpCode::GetData, &[][..], ErrorCode::MarshallingError),
        (OpCode::GetData, &null_path, ErrorCode::MarshallingError),
        (OpCode::Exists, &null_path, ErrorCode::MarshallingError),
        (OpCode::GetChildren, &null_path, ErrorCode::MarshallingError),
        (OpCode::GetChildren2, &null_path[..4], ErrorCode::MarshallingError),
        (OpCode::GetAcl, &null_path, ErrorCode::MarshallingError),
        (OpCode::SetWatches, &no_lists, ErrorCode::MarshallingError),
        (OpCode::Sync, &[0, 0, 0, 9], ErrorCode::MarshallingError),
        (OpCode::GetData, &not_utf8, ErrorCode::BadArguments),
    ] {
        rig.clients.get_mut(&a).unwrap().asked.push_back(Asked { xid: Xid(1), op, watch: None });
        assert!(rig.raw(a, &frame(1, op.code(), body)));
        assert_eq!(rig.told(a), [format!("1: {error:?} @0")], "{op:?} {body:02x?}");
    }
    assert!(rig.worker.watches().is_empty());
}

/// Sections 3.4 to 3.10 and 6.2 of the reference.
#[test]
fn reads_answer_and_watch_as_the_reference_says() {
    let mut rig = Rig::new();
    let blind = encode_acls([Acl { perms: 2, scheme: Some("world"), id: Some("anyone") }].into_iter());
    rig.elsewhere(create("/a"));
    rig.elsewhere(create("/a/b"));
    rig.elsewhere(create("/blind"));
    let acl = AclList::from_encoded(&blind).unwrap();
    rig.elsewhere(Request::SetAcl(SetAclRequest { path: "/blind", acl, version: -1 }));
    let a = rig.connect();
    let rows = [
        (get("/a"), "ok new v0", 0),
        (get(""), "ok  v0", 0),
        (get("/missing"), "NoNode", 0),
        (get("nolead"), "NoNode", 0),
        (watch("/missing"), "NoNode", 0),
        (watch("/blind"), "NoAuth", 0),
        (watch("/a"), "ok new v0", 1),
        (exists("/a"), "ok v0", 1),
        (exists("/missing"), "NoNode", 2),
        (exists("/blind"), "NoAuth", 2),
        (exists("/\0"), "BadArguments", 2),
        (children("/a"), "ok [b]", 3),
        (Request::GetChildren2(PathWatch { path: "/a", watch: true }), "ok [b]", 3),
        (children("/missing"), "NoNode", 3),
        (children("/blind"), "NoAuth", 3),
        (Request::GetAcl("/a"), "ok 1 entries", 3),
        (Request::GetAcl("/blind"), "NoAuth", 3),
        (Request::GetAcl("/missing"), "NoNode", 3),
        (Request::Sync(Some("/missing")), "ok Some(\"/missing\")", 3),
        (Request::Sync(None), "ok None", 3),
    ];
    for (request, expected, watches) in rows {
        rig.ask(a, 1, request);
        assert_eq!(rig.told(a), [format!("1: {expected} @4")], "{request:?}");
        assert_eq!(rig.worker.watches().len(), watches, "{request:?}");
    }
    // The root by its other name: the event has the proper one.
    rig.clients.get_mut(&a).unwrap().unaccounted = true;
    rig.ask(a, 2, children(""));
    rig.elsewhere(create("/c"));
    rig.hand_over();
    assert_eq!(rig.told(a)[1..], ["NodeChildrenChanged / @5"]);
}

/// CVE-2024-23944: who may not read a node does not hear of it either; the watch is used up all the same.
#[test]
fn events_of_nodes_that_may_not_be_read_are_not_told() {
    let mut rig = Rig::new();
    let blind = encode_acls([Acl { perms: 2, scheme: Some("world"), id: Some("anyone") }].into_iter());
    let acl = AclList::from_encoded(&blind).unwrap();
    rig.elsewhere(create("/a"));
    let a = rig.connect();
    rig.ask(a, 1, watch("/a"));
    rig.ask(a, 2, exists("/secret"));
    rig.told(a);
    rig.elsewhere(Request::SetAcl(SetAclRequest { path: "/a", acl, version: -1 }));
    rig.elsewhere(set("/a"));
    rig.elsewhere(Request::Create(CreateRequest { path: "/secret", data: None, acl, flags: 0 }));
    rig.hand_over();
    assert_eq!(rig.told(a), [""; 0]);
    assert!(rig.worker.watches().is_empty());
}

/// The table of section 6.6 of the reference. What is told at once is not watched any more.
#[test]
fn watches_that_are_set_again_are_told_what_they_missed() {
    let mut rig = Rig::new();
    for path in ["/old", "/set", "/grown"] {
        rig.elsewhere(create(path));
    }
    rig.elsewhere(set("/set"));
    rig.elsewhere(create("/grown/kid"));
    let a = rig.connect();
    let list = |paths: &[&str]| {
        let mut raw = Vec::new();
        paths.iter().for_each(|path| put_string(&mut raw, path));
        raw
    };
    let (data, exist, child) =
        (list(&["/old", "/set", "/gone", "/grown"]), list(&["/old", "/coming"]), list(&["/old", "/grown", "/gone"]));
    rig.ask(
        a,
        -8,
        Request::SetWatches(SetWatchesRequest {
            relative_zxid: Zxid(3),
            data: StrList::from_encoded(4, &data),
            exist: StrList::from_encoded(2, &exist),
            child: StrList::from_encoded(3, &child),
        }),
    );
    let told = [
        "NodeDataChanged /set @-1",
        "NodeDeleted /gone @-1",
        "NodeCreated /old @-1",
        "NodeChildrenChanged /grown @-1",
        "NodeDeleted /gone @-1",
        "-8: ok @5",
    ];
    assert_eq!(rig.told(a), told);
    assert_eq!(rig.worker.watches().len(), 4);
    for request in [set("/set"), create("/gone"), set("/old"), create("/coming"), set("/grown"), create("/old/kid")] {
        rig.elsewhere(request);
    }
    rig.hand_over();
    let told = [
        "NodeDataChanged /old @8",
        "NodeCreated /coming @9",
        "NodeDataChanged /grown @10",
        "NodeChildrenChanged /old @11",
    ];
    assert_eq!(rig.told(a), told);
}

#[test]
fn sessions_are_heard_of_once_for_all_their_requests() {
    let mut rig = Rig::new();
    let (a, b) = (rig.connect(), rig.connect());
    let _ = rig.accept();
    assert_eq!(rig.worker.take_heard(), []);
    rig.ask(a, 1, Request::Ping);
    rig.ask(a, 1, Request::Ping);
    assert_eq!(rig.worker.take_heard(), [SessionId(0x101)]);
    assert_eq!(rig.worker.take_heard(), []);
    rig.ask(b, 1, create("/b"));
    rig.ask(a, 1, Request::Ping);
    assert_eq!(rig.worker.take_heard(), [SessionId(0x101), SessionId(0x102)]);
}

#[test]
fn latencies_count_from_the_arrival_also_for_what_was_held() {
    let mut rig = Rig::new();
    let a = rig.connect();
    rig.ask(a, 1, create("/a"));
    rig.now += Duration::from_micros(300);
    rig.ask(a, 2, get("/a"));
    rig.now += Duration::from_micros(200);
    rig.settle();
    assert_eq!(rig.told(a).len(), 2);
    let counters = rig.worker.counters();
    assert_eq!((counters.latency_max_us, counters.latency_min_us, counters.latency_sum_us), (500, 200, 700));
    assert_eq!((counters.received, counters.answered, counters.sent), (2, 2, 2));
    let (session, counters, waiting) = rig.worker.describe(a);
    assert_eq!((session, waiting), (Some((SessionId(0x101), TIMEOUT_MS)), 0));
    assert_eq!((counters.last_op, counters.last_xid, counters.last_zxid), (Some(OpCode::GetData), Xid(2), Zxid(1)));
}

/// A step of a random life of three connections.
#[derive(Clone, Debug)]
enum Step {
    /// A connection sets its own node, which nobody else writes.
    SetOwn(usize),
    /// A connection reads its own node.
    GetOwn(usize),
    Set(usize, usize),
    /// getData, exists or getChildren, with a watch.
    Watch(usize, usize, usize),
    Create(usize, usize),
    Delete(usize, usize),
    Ping(usize),
    /// Somebody on another core changes a node.
    Elsewhere(usize, usize),
    /// The replica applies the oldest writes that it took.
    Apply(usize),
    Cut,
    HandOver,
    Retry,
    Room(usize),
    Read(usize),
    Reconnect(usize),
}

fn step() -> impl Strategy<Value = Step> {
    let (conn, node) = (|| 0..3usize, || 0..3usize);
    prop_oneof![
        4 => conn().prop_map(Step::SetOwn),
        4 => conn().prop_map(Step::GetOwn),
        3 => (conn(), node()).prop_map(|(conn, node)| Step::Set(conn, node)),
        6 => (conn(), 0..3usize, node()).prop_map(|(conn, kind, node)| Step::Watch(conn, kind, node)),
        2 => (conn(), node()).prop_map(|(conn, node)| Step::Create(conn, node)),
        2 => (conn(), node()).prop_map(|(conn, node)| Step::Delete(conn, node)),
        1 => conn().prop_map(Step::Ping),
        6 => (0..3usize, node()).prop_map(|(what, node)| Step::Elsewhere(what, node)),
        8 => (1..4usize).prop_map(Step::Apply),
        2 => Just(Step::Cut),
        3 => Just(Step::HandOver),
        2 => Just(Step::Retry),
        2 => (0..5usize).prop_map(Step::Room),
        2 => conn().prop_map(Step::Read),
        1 => conn().prop_map(Step::Reconnect),
    ]
}

/// One of the three connections, and what it has asked so far.
struct Life {
    slot: u32,
    own: String,
    xid: i32,
    sets: i32,
    /// What its reads of its own node must say, in order.
    expected: Vec<i32>,
}

impl Life {
    fn new(rig: &mut Rig, count: &mut usize) -> Life {
        *count += 1;
        let own = format!("/own{count}");
        rig.elsewhere(create(&own));
        rig.port.room = rig.port.room.max(1);
        Life { slot: rig.connect(), own, xid: 0, sets: 0, expected: Vec::new() }
    }

    fn ask(&mut self, rig: &mut Rig, request: Request<'_>) {
        self.xid += 1;
        // The runtime reads no socket that the worker does not want to be read.
        if rig.worker.wants_more(self.slot) {
            rig.ask(self.slot, self.xid, request);
        }
    }

    /// Reads what there is, and compares what it said of the own node.
    fn read(&self, rig: &mut Rig) {
        rig.told(self.slot);
        let seen = &rig.clients[&self.slot].own_versions;
        assert_eq!(seen[..], self.expected[..seen.len()], "a read sees its own earlier writes and no later ones");
    }
}

proptest! {
    #![proptest_config(Config {
        cases: 600, rng_seed: RngSeed::Fixed(0x3e41), failure_persistence: None, ..Config::default()
    })]

    /// R1, R2 and R3 for whatever clients, replica and queues do, in whatever order. The clients check what they are
    /// told as they read it; in the end everything was answered and no change of anything watched went untold.
    #[test]
    fn whatever_happens_in_whatever_order_clients_are_told_the_truth(
        steps in prop::collection::vec(step(), 1..120), outstanding_max in prop_oneof![Just(1000usize), 1..8usize],
    ) {
        let mut rig = Rig::with_outstanding_max(outstanding_max);
        let shared = ["/x", "/x/y", "/z"];
        rig.elsewhere(create("/x"));
        let mut count = 0;
        let mut lives: Vec<Life> = (0..3).map(|_| Life::new(&mut rig, &mut count)).collect();
        for step in steps {
            match step {
                Step::SetOwn(conn) => {
                    let life = &mut lives[conn];
                    let own = life.own.clone();
                    life.sets += i32::from(rig.worker.wants_more(life.slot));
                    life.ask(&mut rig, set(&own));
                }
                Step::GetOwn(conn) => {
                    let life = &mut lives[conn];
                    let own = life.own.clone();
                    if rig.worker.wants_more(life.slot) {
                        life.expected.push(life.sets);
                    }
                    life.ask(&mut rig, get(&own));
                }
                Step::Set(conn, node) => lives[conn].ask(&mut rig, set(shared[node])),
                Step::Watch(conn, kind, node) => {
                    // getData of a shared node would be taken for one of the own node.
                    let request = if kind == 0 { children(shared[node]) } else { exists(shared[node]) };
                    lives[conn].ask(&mut rig, request);
                }
                Step::Create(conn, node) => lives[conn].ask(&mut rig, create(shared[node])),
                Step::Delete(conn, node) => lives[conn].ask(&mut rig, delete(shared[node])),
                Step::Ping(conn) => lives[conn].ask(&mut rig, Request::Ping),
                Step::Elsewhere(0, node) => rig.elsewhere(create(shared[node])),
                Step::Elsewhere(1, node) => rig.elsewhere(delete(shared[node])),
                Step::Elsewhere(_, node) => rig.elsewhere(set(shared[node])),
                Step::Apply(n) => {
                    for _ in 0..n {
                        rig.apply();
                    }
                }
                Step::Cut => rig.cut(),
                Step::HandOver => rig.hand_over(),
                Step::Retry => rig.retry(),
                Step::Room(room) => rig.port.room = room,
                Step::Read(conn) => lives[conn].read(&mut rig),
                Step::Reconnect(conn) => {
                    lives[conn].read(&mut rig);
                    rig.close(lives[conn].slot);
                    lives[conn] = Life::new(&mut rig, &mut count);
                }
            }
        }
        rig.settle();
        prop_assert_eq!(rig.worker.outstanding(), 0);
        prop_assert!(!rig.worker.is_stalled());
        for life in &lives {
            life.read(&mut rig);
            let client = &rig.clients[&life.slot];
            prop_assert_eq!(client.own_versions.len(), life.expected.len());
            prop_assert!(client.asked.is_empty() && rig.worker.wants_more(life.slot));
            for ((kind, path), zxid) in &client.watching {
                let stat = rig.tree.find(path).map(|id| rig.tree.stat(id));
                let changed = match kind {
                    WatchKind::Data => stat.map_or(Zxid::ZERO, |stat| stat.mzxid),
                    WatchKind::Child => stat.expect("its deletion would have been told").pzxid,
                };
                prop_assert!(changed <= *zxid, "a change of {} @{} was not told", path, changed.0);
            }
        }
        let watching: usize = rig.clients.values().map(|client| client.watching.len()).sum();
        prop_assert_eq!(watching, rig.worker.watches().len());
    }
}
