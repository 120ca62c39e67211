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

mod records;

use corral_proto::connect::{ConnectRequest, ConnectResponse};
use corral_proto::jute::{StrList, put_string};
use corral_proto::response::Response;
use corral_proto::{
    Acl, AclList, Decoder, Jute, JuteError, MultiOp, MultiRequest, MultiResult, OpCode, ReplyHeader, Request,
    RequestHeader, Stat, SubTxns, Txn, TxnEntry, TxnHeader, WatcherEvent,
};
use proptest::prelude::*;
use proptest::sample::Index;
use proptest::test_runner::{Config, RngSeed};
use records::{Fields, parts};
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
