//! Every record survives a round trip, and no bytes whatever can make a decoder panic or allocate.
//!
//! A case makes *one of every kind of record* from random fields, so a record that is added to a list below is covered
//! in all its properties at once. Hostile input comes in three ways: arbitrary bytes, valid encodings that were
//! damaged (flipped, cut, extended, given absurd lengths), and counts of 2^31 - 1. Whatever is decoded from them is
//! walked over to its end, encoded again, and must mean the same.
//!
//! Allocation is not argued but counted: this binary's allocator keeps, for each thread, how much it holds and the
//! most it held. Decoding borrows, so the bound is nothing at all. The results of a multi, which only a client reads,
//! are the one exception: they are a vector, bounded by the results that are really there.
//!
//! **Not here**: the bytes that the protocol's documents give (tests beside the records).

#![expect(unsafe_code, reason = "an allocator can only be counted by standing in front of it")]

use corral_proto::acl::encode_acls;
use corral_proto::connect::{ConnectRequest, ConnectResponse};
use corral_proto::jute::{StrList, put_string};
use corral_proto::multi::{MultiReadRequest, ReadOp};
use corral_proto::request::{
    AddWatchMode, CreateRequest, PathVersion, PathWatch, ReconfigRequest, SetAclRequest, SetDataRequest,
    SetWatchesRequest, WatcherType,
};
use corral_proto::response::Response;
use corral_proto::txn::CreateTxn;
use corral_proto::{
    Acl, AclList, Decoder, ErrorCode, EventType, Jute, JuteError, MultiOp, MultiRequest, MultiResult, OpCode,
    ReplyHeader, Request, RequestHeader, SessionId, Stat, SubTxns, Txn, TxnEntry, TxnHeader, WatcherEvent, Xid, Zxid,
};
use proptest::prelude::*;
use proptest::sample::Index;
use proptest::test_runner::{Config, RngSeed};
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

/// The system's allocator, with a count of what the running thread holds.
struct Counting;

thread_local! {
    // Constants without a destructor: reading them allocates nothing, also in the first and last moments of a thread.
    static HELD: Cell<isize> = const { Cell::new(0) };
    static PEAK: Cell<isize> = const { Cell::new(0) };
}

// SAFETY: every call is passed on to the system's allocator as it came; counting touches no memory but two cells.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        HELD.set(HELD.get() + layout.size() as isize);
        PEAK.set(PEAK.get().max(HELD.get()));
        // SAFETY: the caller keeps the contract of `alloc`, which is the same.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        HELD.set(HELD.get() - layout.size() as isize);
        // SAFETY: the memory came from `System.alloc` with this layout.
        unsafe { System.dealloc(memory, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Runs `work` and says how many bytes this thread held in the meantime, at most, beyond what it held before.
fn peak_of<R>(work: impl FnOnce() -> R) -> (R, usize) {
    let before = HELD.get();
    PEAK.set(before);
    let result = work();
    (result, (PEAK.get() - before) as usize)
}

/// The most that `bytes` of results can make the reader of a multi's response hold: a result has at least its header of
/// nine bytes, and a vector that grows holds its old and its doubled self.
fn results_bound(bytes: usize) -> usize {
    3 * (bytes / 9).max(4) * size_of::<MultiResult<'_>>()
}

fn config(cases: u32) -> Config {
    Config { cases, rng_seed: RngSeed::Fixed(0x00c0_44a1), failure_persistence: None, ..Config::default() }
}

/// What records are made of, one value of each type. `kind` says which part of a multi these fields become.
#[derive(Clone, Debug)]
struct Fields {
    kind: usize,
    path: String,
    name: Option<String>,
    data: Option<Vec<u8>>,
    acl: Vec<u8>,
    int: i32,
    long: i64,
    flag: bool,
    stat: Stat,
}

/// The fields of one record, and those of the parts that it may have, with the lists that are kept encoded.
#[derive(Clone, Debug)]
struct Parts {
    one: Fields,
    more: Vec<Fields>,
    names: Vec<u8>,
    ops: Vec<u8>,
    subs: Vec<u8>,
    reads: Vec<u8>,
}

fn text() -> impl Strategy<Value = String> {
    prop::collection::vec(any::<char>(), 0..8).prop_map(String::from_iter)
}

fn acl() -> impl Strategy<Value = Vec<u8>> {
    let entries = prop::collection::vec((any::<i32>(), prop::option::of(text()), prop::option::of(text())), 0..4);
    let encode = |entries: Vec<(i32, Option<String>, Option<String>)>| {
        let entry = |(perms, scheme, id)| Acl { perms, scheme, id };
        encode_acls(entries.iter().map(|(perms, scheme, id)| entry((*perms, scheme.as_deref(), id.as_deref()))))
    };
    prop_oneof![8 => entries.prop_map(encode), 1 => Just(vec![0xff; 4])]
}

fn stat() -> impl Strategy<Value = Stat> {
    any::<([i64; 6], [i32; 5])>().prop_map(|(longs, ints)| Stat {
        czxid: Zxid(longs[0]),
        mzxid: Zxid(longs[1]),
        ctime: longs[2],
        mtime: longs[3],
        version: ints[0],
        cversion: ints[1],
        aversion: ints[2],
        ephemeral_owner: SessionId(longs[4]),
        data_length: ints[3],
        num_children: ints[4],
        pzxid: Zxid(longs[5]),
    })
}

fn fields() -> impl Strategy<Value = Fields> {
    let data = prop::option::of(prop::collection::vec(any::<u8>(), 0..24));
    (any::<usize>(), text(), prop::option::of(text()), data, acl(), any::<(i32, i64, bool)>(), stat()).prop_map(
        |(kind, path, name, data, acl, (int, long, flag), stat)| Fields {
            kind,
            path,
            name,
            data,
            acl,
            int,
            long,
            flag,
            stat,
        },
    )
}

fn parts() -> impl Strategy<Value = Parts> {
    (fields(), prop::collection::vec(fields(), 0..6)).prop_map(|(one, more)| {
        let (mut names, mut ops, mut subs, mut reads) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for fields in &more {
            put_string(&mut names, &fields.path);
            fields.op().encode_into(&mut ops);
            let path = fields.path.as_str();
            if fields.flag { ReadOp::GetData(path) } else { ReadOp::GetChildren(path) }.encode_into(&mut reads);
            SubTxns::push(&mut subs, &fields.txn());
        }
        Parts { one, more, names, ops, subs, reads }
    })
}

impl Fields {
    fn acl(&self) -> AclList<'_> {
        AclList::from_encoded(&self.acl).expect("encoded here")
    }

    fn create(&self) -> CreateRequest<'_> {
        // A flag that stands for nothing cannot be in a multi, nor can the null list.
        let acl = if self.acl() == AclList::NULL { AclList::OPEN } else { self.acl() };
        CreateRequest { path: &self.path, data: self.data.as_deref(), acl, flags: self.int.rem_euclid(7) }
    }

    fn op(&self) -> MultiOp<'_> {
        let of = PathVersion { path: &self.path, version: self.int };
        match self.kind % 7 {
            0 => MultiOp::Create(self.create()),
            1 => MultiOp::Create2(self.create()),
            2 => MultiOp::CreateContainer(self.create()),
            3 => MultiOp::CreateTtl(self.create(), self.long),
            4 => MultiOp::Delete(of),
            5 => MultiOp::SetData(SetDataRequest { path: &self.path, data: self.data.as_deref(), version: self.int }),
            _ => MultiOp::Check(of),
        }
    }

    fn result(&self) -> MultiResult<'_> {
        match self.kind % 8 {
            7 => MultiResult::Data { data: self.data.as_deref(), stat: self.stat },
            0 => MultiResult::Create { path: &self.path },
            1 => MultiResult::Create2 { path: &self.path, stat: self.stat },
            2 => MultiResult::Delete,
            3 => MultiResult::SetData { stat: self.stat },
            4 => MultiResult::Check,
            5 => MultiResult::Error(None),
            _ => MultiResult::Error(Some(ErrorCode::ALL[self.int.rem_euclid(ErrorCode::ALL.len() as i32) as usize])),
        }
    }

    /// Any transaction that has no parts itself.
    fn txn(&self) -> Txn<'_> {
        let all = self.txns();
        all[self.kind % all.len()]
    }

    fn txns(&self) -> [Txn<'_>; 12] {
        let (path, data) = (self.path.as_str(), self.data.as_deref());
        let create = CreateTxn { path, data, acl: self.acl(), ephemeral: self.flag, parent_cversion: self.int };
        [
            Txn::Create(create),
            Txn::Create2(create),
            Txn::CreateContainer(CreateTxn { ephemeral: false, ..create }),
            Txn::CreateTtl(CreateTxn { ephemeral: false, ..create }, self.long),
            Txn::Delete { path },
            Txn::DeleteContainer { path },
            Txn::SetData { path, data, version: self.int },
            Txn::SetAcl { path, acl: self.acl(), version: self.int },
            Txn::CreateSession { timeout_ms: self.int },
            Txn::CloseSession { paths: None },
            Txn::Check(PathVersion { path, version: self.int }),
            Txn::Error(self.int),
        ]
    }
}

impl Parts {
    fn names(&self) -> StrList<'_> {
        StrList::from_encoded(self.more.len() as u32, &self.names)
    }

    fn requests(&self) -> Vec<Request<'_>> {
        let one = &self.one;
        let (path, data, version) = (one.path.as_str(), one.data.as_deref(), one.int);
        let create = CreateRequest { flags: one.int, acl: one.acl(), ..one.create() };
        let watch = PathWatch { path, watch: one.flag };
        let (data_names, none) = (self.names(), StrList::EMPTY);
        let relative_zxid = Zxid(one.long);
        let no_watches = SetWatchesRequest {
            relative_zxid,
            data: none,
            exist: none,
            child: none,
            persistent: none,
            recursive: none,
        };
        let watcher = [WatcherType::Children, WatcherType::Any, WatcherType::Recursive][one.kind % 3];
        vec![
            Request::Create(create),
            Request::Create2(create),
            Request::CreateContainer(create),
            Request::CreateTtl(create, one.long),
            Request::Delete(PathVersion { path, version }),
            Request::SetData(SetDataRequest { path, data, version }),
            Request::SetAcl(SetAclRequest { path, acl: one.acl(), version }),
            Request::Multi(MultiRequest::from_encoded(self.more.len(), &self.ops)),
            Request::Multi(MultiRequest::from_encoded(0, &[])),
            Request::CloseSession,
            Request::Sync(one.name.as_deref()),
            Request::Exists(watch),
            Request::GetData(watch),
            Request::GetAcl(path),
            Request::GetChildren(watch),
            Request::GetChildren2(watch),
            Request::MultiRead(MultiReadRequest::from_encoded(self.more.len(), &self.reads)),
            Request::SetWatches(SetWatchesRequest { data: data_names, ..no_watches }),
            Request::SetWatches(SetWatchesRequest { exist: data_names, child: data_names, ..no_watches }),
            Request::SetWatches2(SetWatchesRequest { persistent: data_names, recursive: data_names, ..no_watches }),
            Request::AddWatch(path, if one.flag { AddWatchMode::Recursive } else { AddWatchMode::Persistent }),
            Request::RemoveWatches(path, watcher),
            Request::CheckWatches(path, watcher),
            Request::Ping,
            Request::Auth { scheme: one.name.as_deref(), auth: data },
            Request::WhoAmI,
            Request::GetEphemerals(one.name.as_deref()),
            Request::GetAllChildrenNumber(path),
            Request::Reconfig(ReconfigRequest {
                joining: one.name.as_deref(),
                leaving: None,
                members: one.name.as_deref(),
                version: one.long,
            }),
        ]
    }

    fn responses(&self) -> Vec<(OpCode, Response<'_>)> {
        let one = &self.one;
        let (path, data, stat) = (one.path.as_str(), one.data.as_deref(), one.stat);
        use OpCode::*;
        let empty = [Delete, Ping, SetWatches, SetWatches2, RemoveWatches, CheckWatches, Auth, CloseSession];
        let mut responses = vec![
            (OpCode::Create, Response::Path(path)),
            (OpCode::Create2, Response::PathStat(path, stat)),
            (OpCode::CreateContainer, Response::PathStat(path, stat)),
            (OpCode::CreateTtl, Response::PathStat(path, stat)),
            (OpCode::Reconfig, Response::Data(data, stat)),
            (OpCode::GetEphemerals, Response::Children(self.names())),
            (OpCode::GetAllChildrenNumber, Response::Number(one.int)),
            (OpCode::Exists, Response::Stat(stat)),
            (OpCode::SetData, Response::Stat(stat)),
            (OpCode::SetAcl, Response::Stat(stat)),
            (OpCode::GetData, Response::Data(data, stat)),
            (OpCode::GetAcl, Response::Acl(one.acl(), stat)),
            (OpCode::GetChildren, Response::Children(self.names())),
            (OpCode::GetChildren2, Response::ChildrenStat(self.names(), stat)),
            (OpCode::Sync, Response::Sync(one.name.as_deref())),
            (OpCode::Multi, Response::Multi(self.more.iter().map(Fields::result).collect())),
            (OpCode::MultiRead, Response::Multi(vec![MultiResult::Children(self.names()), one.result()])),
            (OpCode::AddWatch, Response::Zero),
            (OpCode::WhoAmI, Response::WhoAmI(corral_proto::IdList::EMPTY)),
        ];
        responses.extend(empty.map(|op| (op, Response::Empty)));
        responses
    }

    fn entries(&self) -> Vec<TxnEntry<'_>> {
        let one = &self.one;
        let session = SessionId(one.long);
        let header = TxnHeader { session, cxid: Xid(one.int), zxid: one.stat.czxid, time_ms: one.stat.ctime };
        let count = self.more.len() as u32;
        let with_parts = [
            Txn::CloseSession { paths: Some(self.names()) },
            Txn::CloseSession { paths: Some(StrList::EMPTY) },
            Txn::Multi(SubTxns::from_encoded(count, &self.subs)),
            Txn::Multi(SubTxns::from_encoded(0, &[])),
        ];
        one.txns().into_iter().chain(with_parts).map(|txn| TxnEntry { header, txn }).collect()
    }

    fn connect_requests(&self) -> Vec<ConnectRequest<'_>> {
        let one = &self.one;
        let request = |read_only| ConnectRequest {
            protocol_version: one.int,
            last_zxid_seen: one.stat.czxid,
            timeout_ms: one.stat.version,
            session_id: one.stat.ephemeral_owner,
            password: one.data.as_deref(),
            read_only,
        };
        [None, Some(false), Some(true)].map(request).into()
    }

    fn connect_responses(&self) -> Vec<ConnectResponse> {
        let (one, mut password) = (&self.one, [0; 16]);
        password[..8].copy_from_slice(&one.long.to_be_bytes());
        let response = |read_only| ConnectResponse {
            timeout_ms: one.int,
            session_id: one.stat.ephemeral_owner,
            password,
            read_only,
        };
        [None, Some(false), Some(true)].map(response).into()
    }

    fn events(&self) -> Vec<WatcherEvent<'_>> {
        use EventType::*;
        let path = self.one.path.as_str();
        [NodeCreated, NodeDeleted, NodeDataChanged, NodeChildrenChanged].map(|kind| WatcherEvent { kind, path }).into()
    }

    fn request_header(&self) -> RequestHeader {
        RequestHeader { xid: Xid(self.one.int), op: self.one.stat.version }
    }

    fn reply_header(&self) -> ReplyHeader {
        ReplyHeader { xid: Xid(self.one.int), zxid: Zxid(self.one.long), error: self.one.stat.version }
    }

    /// All of them, encoded.
    fn encodings(&self) -> Vec<Vec<u8>> {
        let mut all = vec![self.request_header().to_vec(), self.reply_header().to_vec(), self.one.stat.to_vec()];
        all.extend([self.one.acl.clone(), self.names().to_vec()]);
        all.extend(self.requests().iter().map(Jute::to_vec));
        all.extend(self.responses().iter().map(|(_, response)| response.to_vec()));
        all.extend(self.entries().iter().map(Jute::to_vec));
        all.extend(self.connect_requests().iter().map(Jute::to_vec));
        all.extend(self.connect_responses().iter().map(Jute::to_vec));
        all.extend(self.events().iter().map(Jute::to_vec));
        all
    }
}

/// Of a record that has no list in it.
fn leaf<T>(_: &T) {}

fn walk_op(op: MultiOp<'_>) {
    if let MultiOp::Create(request)
    | MultiOp::Create2(request)
    | MultiOp::CreateContainer(request)
    | MultiOp::CreateTtl(request, _) = op
    {
        walk_acl(&request.acl);
    }
}

fn walk_request(request: &Request<'_>) {
    match request {
        Request::Create(request) | Request::Create2(request) => walk_acl(&request.acl),
        Request::SetAcl(request) => walk_acl(&request.acl),
        Request::Multi(request) => {
            request.iter().for_each(walk_op);
            assert_eq!(request.iter().count(), request.len());
        }
        Request::SetWatches(request) => [request.data, request.exist, request.child].iter().for_each(walk_names),
        _ => {}
    }
}

fn walk_response(response: &Response<'_>) {
    match response {
        Response::Children(names) | Response::ChildrenStat(names, _) => walk_names(names),
        Response::Acl(acl, _) => walk_acl(acl),
        _ => {}
    }
}

fn walk_acl(acl: &AclList<'_>) {
    assert_eq!(acl.iter().count() == 0, acl.is_empty(), "there is one way to write the empty list");
}

fn walk_names(names: &StrList<'_>) {
    assert_eq!(names.iter().count(), names.len());
}

fn walk_txn(txn: &Txn<'_>) {
    match txn {
        Txn::Create(create) | Txn::Create2(create) => walk_acl(&create.acl),
        Txn::SetAcl { acl, .. } => walk_acl(acl),
        Txn::CloseSession { paths: Some(paths) } => walk_names(paths),
        Txn::Multi(parts) => {
            parts.iter().for_each(|part| walk_txn(&part));
            let failed = parts.iter().any(|part| matches!(part, Txn::Error(_)));
            assert_eq!(parts.failed(), failed);
        }
        _ => {}
    }
}

/// Decodes `$bytes`, walks over what comes of them, and checks that nothing was allocated; and if there is a record,
/// that it is the same after another round trip. A macro, because the second decoding borrows from other bytes than
/// the first.
macro_rules! read_as {
    ($what:expr, $bytes:expr, $decode:expr, $walk:expr) => {{
        let (decoded, peak) = peak_of(|| $decode($bytes).inspect(|record| $walk(record)));
        assert_eq!(peak, 0, "bytes held while reading {} bytes as {:?}", $bytes.len(), $what);
        if let Ok(record) = decoded {
            let again = record.to_vec();
            assert_eq!(again.len(), record.encoded_len(), "the length of {record:?}");
            assert_eq!($decode(&again).as_ref(), Ok(&record), "from {again:02x?}");
        }
    }};
}

/// Reads the same bytes as every record there is.
fn read_as_everything(bytes: &[u8]) {
    read_as!("a request header", bytes, |b| RequestHeader::decode(&mut Decoder::new(b)), leaf);
    read_as!("a reply header", bytes, |b| ReplyHeader::decode(&mut Decoder::new(b)), leaf);
    read_as!("a stat", bytes, |b| Stat::decode(&mut Decoder::new(b)), leaf);
    read_as!("an event", bytes, |b| WatcherEvent::decode(&mut Decoder::new(b)), leaf);
    read_as!("a list of ACLs", bytes, AclList::from_encoded, walk_acl);
    read_as!("a connect request", bytes, ConnectRequest::decode, leaf);
    read_as!("a connect response", bytes, ConnectResponse::decode, leaf);
    let names = |b| StrList::decode(&mut Decoder::new(b)).and_then(|names| names.ok_or(JuteError::Null("the names")));
    read_as!("a list of strings", bytes, names, walk_names);
    for op in OpCode::ALL {
        read_as!(op, bytes, |b| Request::decode(op, b), walk_request);
        if matches!(op, OpCode::Multi | OpCode::MultiRead) {
            let (decoded, peak) = peak_of(|| Response::decode(op, &mut Decoder::new(bytes)));
            assert!(peak <= results_bound(bytes.len()), "{peak} bytes held for {} bytes of results", bytes.len());
            if let Ok(response) = decoded {
                let again = response.to_vec();
                assert_eq!(again.len(), response.encoded_len());
                assert_eq!(Response::decode(op, &mut Decoder::new(&again)), Ok(response));
            }
        } else {
            read_as!(op, bytes, |b| Response::decode(op, &mut Decoder::new(b)), walk_response);
        }
    }
    read_as!("a transaction", bytes, TxnEntry::decode, |entry: &TxnEntry<'_>| walk_txn(&entry.txn));
}

/// Reads the same bytes as the body of every transaction there is, multi and parts of a multi included.
fn read_as_every_transaction(body: &[u8]) {
    for op in OpCode::ALL {
        let mut whole = vec![7; TxnHeader::LEN - 4];
        whole.extend(op.code().to_be_bytes());
        whole.extend(body);
        read_as!(op, &whole, TxnEntry::decode, |entry: &TxnEntry<'_>| walk_txn(&entry.txn));
        let mut part = vec![7; TxnHeader::LEN - 4];
        for number in [OpCode::Multi.code(), 1, op.code(), body.len() as i32] {
            part.extend(number.to_be_bytes());
        }
        part.extend(body);
        read_as!(op, &part, TxnEntry::decode, |entry: &TxnEntry<'_>| walk_txn(&entry.txn));
    }
}

/// What can befall an encoding.
#[derive(Clone, Debug)]
enum Damage {
    Flip(Index, u32),
    Truncate(Index),
    Insert(Index, Vec<u8>),
    /// A number written over four bytes, wherever they are: sooner or later they are a length or a count.
    Number(Index, i32),
}

fn damage() -> impl Strategy<Value = Damage> {
    let number = prop_oneof![
        Just(i32::MAX),
        Just(i32::MAX - 3),
        Just(1 << 30),
        Just(1 << 20),
        Just(i32::MIN),
        Just(-1),
        Just(-2),
        0..64i32,
    ];
    prop_oneof![
        1 => (any::<Index>(), 0..8u32).prop_map(|(at, bit)| Damage::Flip(at, bit)),
        1 => any::<Index>().prop_map(Damage::Truncate),
        1 => (any::<Index>(), prop::collection::vec(any::<u8>(), 1..9)).prop_map(|(at, new)| Damage::Insert(at, new)),
        4 => (any::<Index>(), number).prop_map(|(at, number)| Damage::Number(at, number)),
    ]
}

impl Damage {
    fn apply(&self, bytes: &mut Vec<u8>) {
        match self {
            Damage::Flip(at, bit) if !bytes.is_empty() => {
                let at = at.index(bytes.len());
                bytes[at] ^= 1 << bit;
            }
            Damage::Truncate(at) => bytes.truncate(at.index(bytes.len() + 1)),
            Damage::Insert(at, new) => {
                let at = at.index(bytes.len() + 1);
                bytes.splice(at..at, new.iter().copied());
            }
            Damage::Number(at, number) if bytes.len() >= 4 => {
                let at = at.index(bytes.len() - 3);
                bytes[at..at + 4].copy_from_slice(&number.to_be_bytes());
            }
            Damage::Flip(..) | Damage::Number(..) => {}
        }
    }
}

/// Encodes a record, checks its length, and that it comes back from its bytes alone without an allocation.
macro_rules! survives {
    ($record:expr, $decode:expr) => {{
        let record = $record;
        let bytes = record.to_vec();
        assert_eq!(bytes.len(), record.encoded_len(), "the length of {record:?}");
        let (back, peak) = peak_of(|| $decode(&bytes));
        assert_eq!(back.as_ref(), Ok(record));
        assert_eq!(peak, 0, "bytes held while reading {record:?}");
    }};
}

proptest! {
    #![proptest_config(config(2000))]

    #[test]
    fn every_record_survives_a_round_trip(parts in parts()) {
        survives!(&parts.request_header(), |b| RequestHeader::decode(&mut Decoder::new(b)));
        survives!(&parts.reply_header(), |b| ReplyHeader::decode(&mut Decoder::new(b)));
        survives!(&parts.one.stat, |b| Stat::decode(&mut Decoder::new(b)));
        survives!(&parts.one.acl(), AclList::from_encoded);
        for request in &parts.connect_requests() {
            survives!(request, ConnectRequest::decode);
        }
        for response in &parts.connect_responses() {
            survives!(response, ConnectResponse::decode);
        }
        for event in &parts.events() {
            survives!(event, |b| WatcherEvent::decode(&mut Decoder::new(b)));
        }
        for request in &parts.requests() {
            survives!(request, |b| Request::decode(request.op(), b));
        }
        for entry in &parts.entries() {
            survives!(entry, TxnEntry::decode);
        }
        for (op, response) in &parts.responses() {
            if !matches!(op, OpCode::Multi | OpCode::MultiRead) {
                survives!(response, |b| Response::decode(*op, &mut Decoder::new(b)));
            }
        }
    }

    #[test]
    fn the_parts_of_a_multi_come_back_in_their_order(parts in parts()) {
        let ops: Vec<MultiOp<'_>> = parts.more.iter().map(Fields::op).collect();
        prop_assert_eq!(MultiRequest::from_encoded(ops.len(), &parts.ops).iter().collect::<Vec<_>>(), ops);
        let subs: Vec<Txn<'_>> = parts.more.iter().map(Fields::txn).collect();
        prop_assert_eq!(SubTxns::from_encoded(subs.len() as u32, &parts.subs).iter().collect::<Vec<_>>(), subs);
        let results: Vec<MultiResult<'_>> = parts.more.iter().map(Fields::result).collect();
        let mut bytes = Vec::new();
        MultiResult::encode_all(&results, &mut bytes);
        prop_assert_eq!(bytes.len(), MultiResult::encoded_len_all(&results));
        let (back, peak) = peak_of(|| MultiResult::decode_all(&mut Decoder::new(&bytes)));
        prop_assert_eq!(back, Ok(results));
        prop_assert!(peak <= results_bound(bytes.len()), "{} bytes held for {} bytes of results", peak, bytes.len());
    }

    /// Apache ignores them too; a client may be newer than we are.
    #[test]
    fn bytes_after_a_request_are_ignored(parts in parts(), tail in prop::collection::vec(any::<u8>(), 0..20)) {
        for request in &parts.requests() {
            let mut bytes = request.to_vec();
            bytes.extend(&tail);
            prop_assert_eq!(&Request::decode(request.op(), &bytes), &Ok(*request));
        }
    }

    /// A record that was cut off anywhere is no record: nothing is guessed.
    #[test]
    fn a_request_that_is_cut_short_is_refused(parts in parts(), cut: Index) {
        for request in parts.requests().iter().filter(|request| request.encoded_len() > 0) {
            let bytes = request.to_vec();
            let cut = cut.index(bytes.len());
            prop_assert!(Request::decode(request.op(), &bytes[..cut]).is_err(), "{:?} cut at {}", request, cut);
        }
    }

    #[test]
    fn arbitrary_bytes_neither_panic_nor_allocate(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        read_as_everything(&bytes);
        read_as_every_transaction(&bytes);
    }

    /// Small numbers: bytes that look like lengths, counts and operations more often than random ones do.
    #[test]
    fn bytes_that_look_like_jute_neither_panic_nor_allocate(
        words in prop::collection::vec(prop_oneof![-12..24i32, Just(i32::MAX), Just(i32::MIN), any::<i32>()], 0..60),
    ) {
        let bytes: Vec<u8> = words.into_iter().flat_map(i32::to_be_bytes).collect();
        read_as_everything(&bytes);
        read_as_every_transaction(&bytes);
    }

    #[test]
    fn damaged_records_neither_panic_nor_allocate(
        parts in parts(), which: Index, damages in prop::collection::vec(damage(), 1..5),
    ) {
        let encodings = parts.encodings();
        let mut bytes = encodings[which.index(encodings.len())].clone();
        for damage in &damages {
            damage.apply(&mut bytes);
            read_as_everything(&bytes);
        }
        read_as_every_transaction(&bytes);
    }
}

/// The number of an operation in front of a body, in the shape of a log entry.
fn entry(op: OpCode, body: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0; TxnHeader::LEN - 4];
    bytes.extend(op.code().to_be_bytes());
    bytes.extend(body);
    bytes
}

/// A count is a claim, and what it claims is looked for one by one: the bytes that are there end the search.
#[test]
fn a_claim_of_two_billion_elements_is_refused_without_an_allocation() {
    let mut one_name = Vec::new();
    put_string(&mut one_name, "name");
    let mut one_acl = Vec::new();
    Acl { perms: 31, scheme: Some("world"), id: Some("anyone") }.encode(&mut one_acl);
    let mut one_part = Vec::new();
    SubTxns::push(&mut one_part, &Txn::Delete { path: "/a" });
    for copies in [0, 1, 1000] {
        let claim = |element: &[u8]| [&i32::MAX.to_be_bytes()[..], &element.repeat(copies)].concat();
        let (names, acls, parts) = (claim(&one_name), claim(&one_acl), claim(&one_part));
        let set_watches = [&[0; 8][..], &names].concat();
        let children_of_a_closed_session = entry(OpCode::CloseSession, &names);
        let multi = entry(OpCode::Multi, &parts);
        let mut create = Vec::new();
        put_string(&mut create, "/a");
        create.extend((-1i32).to_be_bytes());
        create.extend(&acls);
        let ((), peak) = peak_of(|| {
            assert!(StrList::decode(&mut Decoder::new(&names)).is_err());
            assert!(AclList::from_encoded(&acls).is_err());
            assert!(Request::decode(OpCode::SetWatches, &set_watches).is_err());
            assert!(Request::decode(OpCode::Create, &create).is_err());
            assert!(Response::decode(OpCode::GetChildren, &mut Decoder::new(&names)).is_err());
            assert!(Response::decode(OpCode::GetAcl, &mut Decoder::new(&acls)).is_err());
            assert!(TxnEntry::decode(&children_of_a_closed_session).is_err());
            assert!(TxnEntry::decode(&multi).is_err());
        });
        assert_eq!(peak, 0, "with {copies} elements behind the claim");
    }
}

/// Else a record of a megabyte could nest deeply enough to use up the stack.
#[test]
fn a_multi_in_a_multi_is_no_transaction() {
    let mut raw = Vec::new();
    for depth in 1..=1000u32 {
        let inner = std::mem::take(&mut raw);
        SubTxns::push(&mut raw, &Txn::Multi(SubTxns::from_encoded(u32::from(depth > 1), &inner)));
    }
    let outer = [&1u32.to_be_bytes()[..], &raw].concat();
    assert!(TxnEntry::decode(&entry(OpCode::Multi, &outer)).is_err());
}

/// Without the count the tests above would prove nothing.
#[test]
fn the_allocator_counts() {
    let (kept, peak) = peak_of(|| {
        drop(Vec::<u8>::with_capacity(3000));
        Vec::<u8>::with_capacity(1000)
    });
    assert_eq!((kept.capacity(), peak), (1000, 3000));
    assert_eq!(peak_of(|| 7), (7, 0));
}
