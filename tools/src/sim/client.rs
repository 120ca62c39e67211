//! A client of the simulated ensemble, which asks at random and believes nothing: it checks what it is told against what every
//! client is promised.
//!
//! - R1: answers come in the order of the requests; what it wrote to a node of its own, it reads there, and nothing older; nor does
//!   anything that it asked for over a connection that it has left take effect after what it asked for later;
//! - R2: the state that a session sees never goes back, also when it moves to another server: neither zxids nor nodes;
//! - R3: an event comes before any answer that shows, or follows, the change; also those of a connection that was left, to whoever asks
//!   for them again on the next, and those of persistent and recursive watches;
//! - R4: two nodes that are always written together are read as one;
//! - R5: what was acknowledged is kept ([`Client::promises`] is for whoever checks it in the end).
//!
//! **Invariant**: what it does depends on its own random source and on what it is told only.
//!
//! **Not here**: the way of its frames ([`super::world`]).

use corral_net::put_frame;
use corral_proto::jute::{Decoder, StrList, put_string};
use corral_proto::multi::{MultiReadRequest, ReadOp};
use corral_proto::request::{
    AddWatchMode, CreateRequest, PathVersion, PathWatch, RequestHeader, SetDataRequest, SetWatchesRequest,
};
use corral_proto::response::{ReplyHeader, Response};
use corral_proto::{
    AclList, ConnectRequest, ConnectResponse, ErrorCode, Jute, MultiOp, MultiRequest, MultiResult, OpCode, Request,
    SessionId, Stat, WatcherEvent, Xid, Zxid,
};
use rand::Rng;
use rand::rngs::SmallRng;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// Nodes that all clients write to.
const SHARED: [&str; 3] = ["/shared-0", "/shared-1", "/shared-2"];
/// Two that are written together only.
pub(super) const TWINS: [&str; 2] = ["/twin-a", "/twin-b"];
/// How long a node lives that lives for a time.
const MORTAL_MS: i64 = 40;
/// Requests that may be on their way.
const ASKED_MAX: usize = 64;

/// What a request was for.
#[derive(Clone, Debug)]
enum For {
    CreateOwn,
    SetOwn(u64),
    /// Sees at most what was tried when it was sent.
    GetOwn(u64),
    Get(&'static str, bool),
    Exists(&'static str, bool),
    Set(&'static str),
    Create(&'static str),
    Delete(&'static str),
    CreateTwins,
    SetTwins,
    GetTwins,
    Sync,
    /// Whatever it watched over its last connection; these persistently.
    WatchAgain(Vec<&'static str>),
    /// A persistent watch.
    Persist(&'static str),
    /// A recursive one of everything.
    WatchAll,
    Ephemeral,
    /// A node that the leader deletes by itself: a container, or one that lives for a time.
    Mortal(bool),
    /// A node in the newest of these, for as long as the session lasts.
    Kid,
    Close,
}

/// A node of the client's own, and what it was promised about it.
#[derive(Clone, Debug)]
pub(super) struct Promise {
    /// The node.
    pub(super) path: String,
    /// The newest number that was acknowledged, and the newest that was tried; 0 is no node.
    pub(super) acknowledged: u64,
    pub(super) tried: u64,
}

/// How far its connection has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    Away,
    ShakingHands,
    Open,
}

/// The client.
pub(super) struct Client {
    number: usize,
    pub(super) phase: Phase,
    random: SmallRng,
    session: SessionId,
    password: [u8; 16],
    sessions: u64,
    last_zxid: Zxid,
    last_xid: i32,
    asked: VecDeque<(Xid, OpCode, For)>,
    /// The newest change that it has seen of each node.
    seen: BTreeMap<&'static str, Zxid>,
    /// What it watches once, and the change that it had seen then.
    watches: BTreeMap<&'static str, Zxid>,
    /// It has yet to ask for these again, over a new connection.
    watches_again: bool,
    /// What it watches persistently over this connection, or recursively, and the newest change that it was told of, or had seen then.
    persistent: BTreeMap<&'static str, Zxid>,
    /// What it has asked to watch persistently in this session, and whether it has asked for everything.
    wants: BTreeSet<&'static str>,
    wants_all: bool,
    pub(super) promises: Vec<Promise>,
    pub(super) answers: u64,
    ephemerals: u64,
    mortals: u64,
    /// It asks no more, and is done when everything is answered.
    pub(super) retires: bool,
}

impl Client {
    pub(super) fn new(number: usize, random: SmallRng) -> Client {
        Client {
            number,
            phase: Phase::Away,
            random,
            session: SessionId::NONE,
            password: [0; 16],
            sessions: 0,
            last_zxid: Zxid::ZERO,
            last_xid: 0,
            asked: VecDeque::new(),
            seen: BTreeMap::new(),
            watches: BTreeMap::new(),
            watches_again: false,
            persistent: BTreeMap::new(),
            wants: BTreeSet::new(),
            wants_all: false,
            promises: Vec::new(),
            answers: 0,
            ephemerals: 0,
            mortals: 0,
            retires: false,
        }
    }

    /// Nothing is on its way.
    pub(super) fn is_idle(&self) -> bool {
        self.phase == Phase::Open && self.asked.is_empty()
    }

    /// Whether it waits for anything.
    pub(super) fn waits(&self) -> bool {
        self.phase == Phase::ShakingHands || !self.asked.is_empty()
    }

    /// What it says first on a new connection.
    pub(super) fn connect(&mut self) -> Vec<u8> {
        self.phase = Phase::ShakingHands;
        self.persistent.clear();
        self.watches_again = !self.watches.is_empty() || !self.wants.is_empty() || self.wants_all;
        let request = ConnectRequest {
            protocol_version: 0,
            last_zxid_seen: self.last_zxid,
            timeout_ms: 600,
            session_id: self.session,
            password: Some(&self.password),
            read_only: Some(false),
        };
        framed(&request)
    }

    /// Its connection is gone, and with it the answers to what it has asked.
    pub(super) fn disconnected(&mut self) {
        self.phase = Phase::Away;
        self.asked.clear();
    }

    /// What it asks for now, if anything.
    pub(super) fn ask(&mut self) -> Option<Vec<u8>> {
        if self.phase != Phase::Open || self.asked.len() >= ASKED_MAX || self.retires {
            return None;
        }
        let wish = self.wish();
        let xid = match wish {
            For::WatchAgain(_) => Xid::SET_WATCHES,
            _ => {
                self.last_xid += 1;
                Xid(self.last_xid)
            }
        };
        let own = self.promises.last().expect("it has a session").path.clone();
        let data = format!("{}-{}", self.number, self.last_xid);
        let create = |path, data, flags| CreateRequest { path, data: Some(data), acl: AclList::OPEN, flags };
        let set = |path, data| SetDataRequest { path, data: Some(data), version: -1 };
        let mut raw = Vec::new();
        let (number, path, lists);
        let request = match &wish {
            For::CreateOwn => Request::Create(create(&own, b"0", 0)),
            For::SetOwn(tried) => {
                number = tried.to_string();
                Request::SetData(set(&own, number.as_bytes()))
            }
            For::GetOwn(_) => Request::GetData(PathWatch { path: &own, watch: false }),
            For::Get(path, watch) => Request::GetData(PathWatch { path, watch: *watch }),
            For::Exists(path, watch) => Request::Exists(PathWatch { path, watch: *watch }),
            For::Set(path) => Request::SetData(set(path, data.as_bytes())),
            For::Create(path) => Request::Create2(create(path, data.as_bytes(), 0)),
            For::Delete(path) => Request::Delete(PathVersion { path, version: -1 }),
            For::CreateTwins => {
                TWINS.iter().for_each(|path| MultiOp::Create(create(path, data.as_bytes(), 0)).encode_into(&mut raw));
                Request::Multi(MultiRequest::from_encoded(TWINS.len(), &raw))
            }
            For::SetTwins => {
                TWINS.iter().for_each(|path| MultiOp::SetData(set(path, data.as_bytes())).encode_into(&mut raw));
                Request::Multi(MultiRequest::from_encoded(TWINS.len(), &raw))
            }
            For::GetTwins => {
                TWINS.iter().for_each(|path| ReadOp::GetData(path).encode_into(&mut raw));
                Request::MultiRead(MultiReadRequest::from_encoded(TWINS.len(), &raw))
            }
            For::Sync => Request::Sync(Some("/")),
            For::WatchAgain(_) => {
                let of = |is_there: bool| {
                    let watches = self.watches.iter().filter(move |(_, seen)| (**seen != Zxid::ZERO) == is_there);
                    watches.map(|(path, _)| *path)
                };
                let everything = self.wants_all.then_some("/");
                lists = [
                    encoded(of(true)),
                    encoded(of(false)),
                    encoded(self.wants.iter().copied()),
                    encoded(everything.into_iter()),
                ];
                let [data, exist, persistent, recursive] =
                    lists.each_ref().map(|(count, list)| StrList::from_encoded(*count, list));
                let (relative_zxid, child) = (self.last_zxid, StrList::from_encoded(0, &[]));
                let again = SetWatchesRequest { relative_zxid, data, exist, child, persistent, recursive };
                match self.wants.is_empty() && !self.wants_all {
                    true => Request::SetWatches(again),
                    false => Request::SetWatches2(again),
                }
            }
            For::Persist(path) => Request::AddWatch(path, AddWatchMode::Persistent),
            For::WatchAll => Request::AddWatch("/", AddWatchMode::Recursive),
            For::Ephemeral => {
                self.ephemerals += 1;
                path = format!("/ephemeral-{}-{}", self.number, self.ephemerals);
                Request::Create(create(&path, b"", 1))
            }
            For::Mortal(is_container) => {
                self.mortals += 1;
                path = self.newest_mortal();
                match is_container {
                    true => Request::CreateContainer(create(&path, b"", 4)),
                    false => Request::CreateTtl(create(&path, b"", 5), MORTAL_MS),
                }
            }
            For::Kid => {
                path = self.newest_mortal() + "/kid";
                Request::Create(create(&path, b"", 1))
            }
            For::Close => Request::CloseSession,
        };
        let op = request.op();
        let mut frame = Vec::new();
        put_frame(&mut frame, |out| {
            RequestHeader { xid, op: op.code() }.encode(out);
            request.encode(out);
        });
        match wish {
            For::Persist(path) => _ = self.wants.insert(path),
            For::WatchAll => self.wants_all = true,
            _ => {}
        }
        self.asked.push_back((xid, op, wish));
        Some(frame[4..].to_vec())
    }

    fn newest_mortal(&self) -> String {
        format!("/mortal-{}-{}", self.number, self.mortals)
    }

    fn wish(&mut self) -> For {
        let shared = SHARED[self.random.random_range(0..SHARED.len())];
        let watch = self.random.random();
        if std::mem::take(&mut self.watches_again) {
            let persistent = SHARED.into_iter().filter(|path| self.wants_all || self.wants.contains(path));
            return For::WatchAgain(persistent.collect());
        }
        let promise = self.promises.last_mut().expect("it has a session");
        if promise.acknowledged == 0 && !self.asked.iter().any(|(_, _, wish)| matches!(wish, For::CreateOwn)) {
            promise.tried = promise.tried.max(1);
            return For::CreateOwn;
        }
        match self.random.random_range(0..100) {
            0..30 => {
                promise.tried += 1;
                For::SetOwn(promise.tried)
            }
            30..45 => For::GetOwn(promise.tried),
            45..58 => For::Get(shared, watch),
            58..64 => For::Exists(shared, watch),
            64..74 => For::Set(shared),
            74..78 => For::Create(shared),
            78..80 => For::Delete(shared),
            80 => For::CreateTwins,
            81..87 => For::SetTwins,
            87..94 => For::GetTwins,
            94..96 => For::Sync,
            96 => match watch {
                true => For::Persist(shared),
                false => For::WatchAll,
            },
            97 => For::Ephemeral,
            98 if self.random.random() => For::Mortal(watch),
            98 => For::Kid,
            _ => For::Close,
        }
    }

    /// The server says something. What happened to the connection's session is returned in words, for people.
    pub(super) fn hear(&mut self, frame: &[u8]) -> Option<String> {
        if self.phase == Phase::ShakingHands {
            return Some(self.shake_hands(frame));
        }
        let mut d = Decoder::new(frame);
        let header = ReplyHeader::decode(&mut d).expect("an answer has a header");
        if header.xid == Xid::NOTIFICATION {
            let event = WatcherEvent::decode(&mut d).expect("an event");
            self.told(event.path, header.zxid);
            return None;
        }
        let (xid, op, wish) = self.asked.pop_front().expect("R1: an answer to no request");
        assert!(header.xid == xid, "R1: request {} was answered before request {}", header.xid.0, xid.0);
        if header.zxid.0 > 0 {
            assert!(header.zxid >= self.last_zxid, "R2: {} is answered after {}", header.zxid, self.last_zxid);
            self.last_zxid = header.zxid;
        }
        self.answers += 1;
        let error = ErrorCode::from_code(header.error);
        let response = match header.error {
            0 => Some(Response::decode(op, &mut d).expect("the body of an answer")),
            _ => None,
        };
        self.answered(&wish, error, response);
        None
    }

    /// An event of a change at `zxid`; of one that it has missed, that is not known.
    fn told(&mut self, path: &str, zxid: Zxid) {
        let Some(path) = SHARED.into_iter().find(|shared| *shared == path) else {
            assert!(self.wants_all, "R3: an event of {path}, which is never watched");
            return;
        };
        let once = self.watches.remove(path).is_some();
        let persistent = self.persistent.get_mut(path);
        let is_wanted = self.wants_all || self.wants.contains(path);
        assert!(once || is_wanted, "R3: an event of {path}, which is not watched");
        if let Some(told) = persistent {
            *told = zxid.max(*told);
        }
    }

    fn shake_hands(&mut self, frame: &[u8]) -> String {
        let response = ConnectResponse::decode(frame).expect("an answer to the handshake");
        self.phase = Phase::Open;
        if response.session_id == SessionId::NONE {
            let gone = std::mem::replace(&mut self.session, SessionId::NONE);
            self.phase = Phase::Away;
            return format!("session {gone} is gone");
        }
        if self.session == SessionId::NONE {
            self.sessions += 1;
            let path = format!("/own-{}-{}", self.number, self.sessions);
            self.promises.push(Promise { path, acknowledged: 0, tried: 0 });
            self.watches.clear();
            (self.wants, self.wants_all, self.watches_again) = (BTreeSet::new(), false, false);
        }
        (self.session, self.password) = (response.session_id, response.password);
        format!("has session {}", self.session)
    }

    fn answered(&mut self, wish: &For, error: Option<ErrorCode>, response: Option<Response<'_>>) {
        let promise = self.promises.last_mut().expect("it has a session");
        let own = promise.path.clone();
        match (wish, response) {
            (For::CreateOwn, _) => {
                // It may have been made over an earlier connection.
                assert!(matches!(error, None | Some(ErrorCode::NodeExists)), "{own} cannot be made: {error:?}");
                promise.acknowledged = promise.acknowledged.max(1);
            }
            (For::SetOwn(number), response) => {
                let there = promise.acknowledged > 0;
                assert!(response.is_some() || !there, "R1: {own} was made, but cannot be written: {error:?}");
                if response.is_some() {
                    promise.acknowledged = promise.acknowledged.max(*number);
                }
            }
            (For::GetOwn(tried), Some(Response::Data(data, _))) => {
                let number = number(data);
                let least = promise.acknowledged;
                assert!(number.max(1) >= least, "R1: {own} is {number} after {least} was acknowledged");
                assert!(number <= *tried, "R1: {own} is {number}, but only {tried} was asked for before");
                promise.acknowledged = number.max(1);
            }
            (For::GetOwn(_), _) => {
                assert!(promise.acknowledged == 0, "R1: {own} was made, but cannot be read: {error:?}");
            }
            (For::Get(path, watch), Some(Response::Data(_, stat))) => self.sees(path, Some(&stat), *watch),
            (For::Exists(path, watch), Some(Response::Stat(stat))) => self.sees(path, Some(&stat), *watch),
            (For::Get(path, _), None) => self.sees(path, None, false),
            (For::Exists(path, watch), None) => self.sees(path, None, *watch),
            (For::Set(path), Some(Response::Stat(stat)) | Some(Response::PathStat(_, stat)))
            | (For::Create(path), Some(Response::PathStat(_, stat))) => self.sees(path, Some(&stat), false),
            (For::Delete(path), Some(_)) => self.sees(path, None, false),
            (For::GetTwins, Some(Response::Multi(results))) => {
                let data = results.iter().map(|result| match result {
                    MultiResult::Data { data, .. } => *data,
                    _ => None,
                });
                let data: Vec<_> = data.collect();
                assert!(data[0] == data[1], "R4: the twins are read as {data:?}");
            }
            // What it has seen so far may be older than what the server had when it was asked; only what comes later counts.
            (For::Persist(path), Some(_)) => self.watches_from_now(&[path]),
            (For::WatchAll, Some(_)) => self.watches_from_now(&SHARED),
            (For::WatchAgain(persistent), Some(_)) => self.watches_from_now(persistent),
            (For::Close, Some(_)) => self.session = SessionId::NONE,
            _ => {}
        }
    }

    fn watches_from_now(&mut self, persistent: &[&'static str]) {
        for path in persistent {
            self.persistent.entry(path).or_insert(self.last_zxid);
        }
    }

    /// A node is as an answer shows it; `None`: it is not there.
    fn sees(&mut self, path: &'static str, stat: Option<&Stat>, watch: bool) {
        let changed = stat.map_or(Zxid::ZERO, |stat| stat.mzxid);
        if let Some(stat) = stat {
            let seen = self.seen.entry(path).or_insert(Zxid::ZERO);
            assert!(stat.mzxid >= *seen, "R2: {path} of {} is seen after that of {seen}", stat.mzxid);
            *seen = stat.mzxid;
        }
        if let Some(told) = self.persistent.get(path) {
            assert!(changed <= *told, "R3: {path} is seen as of {changed}, and a persistent watch told of {told} last");
        }
        if let Some(before) = self.watches.get(path) {
            assert!(*before == changed, "R3: {path} is seen as of {changed}, and was watched as of {before}");
        }
        if watch {
            self.watches.insert(path, changed);
        }
    }
}

fn number(data: Option<&[u8]>) -> u64 {
    let text = data.and_then(|data| str::from_utf8(data).ok());
    text.and_then(|text| text.parse().ok()).expect("only numbers are written there")
}

/// The number in a node of a client's own.
pub(super) fn own_number(data: Option<&[u8]>) -> u64 {
    number(data).max(1)
}

/// How many paths there are, and a list of them.
fn encoded<'a>(paths: impl Iterator<Item = &'a str>) -> (u32, Vec<u8>) {
    let (mut count, mut list) = (0, Vec::new());
    for path in paths {
        count += 1;
        put_string(&mut list, path);
    }
    (count, list)
}

fn framed(request: &impl Jute) -> Vec<u8> {
    request.to_vec()
}
