//! Everything that reads bytes from outside: frames and records of clients, packets of other members, transactions, records of snapshots.
//!
//! What this proves, as far as it has looked: no bytes make a decoder panic or go on for ever, and what one has read and
//! written is read and written the same again. The first byte chooses the decoder, the second an operation where there are several; the rest is what it reads.
//!
//! **Not here**: how much they allocate (`net/proto/tests/properties` counts that), files as a whole (`engine/tests/log_damage.rs`).

#![no_main]

use corral_engine::snapshot::format::{NodeRecord, get_record, put_acl, put_node};
use corral_net::Frames;
use corral_proto::peer::learner::{Forwarded, LearnerInfo, Revalidated, Touched};
use corral_proto::peer::snapshot::{Parser, Piece};
use corral_proto::peer::{Hello, Notification, Packet, Parsed};
use corral_proto::response::Response;
use corral_proto::{
    AclList, ConnectRequest, ConnectResponse, Decoder, IdList, Jute, OpCode, ReplyHeader, Request, RequestHeader,
    SubTxns, Txn, TxnEntry, WatcherEvent,
};
use libfuzzer_sys::fuzz_target;
use std::ops::ControlFlow;

/// What frames and packets may be at most.
const MAX: usize = 1 << 16;

/// What was read is looked at, and written; when that is read, the same is written again. (What is old, or not as we write it, becomes new.)
macro_rules! same {
    ($bytes:expr, $decode:expr, $touch:expr) => {
        if let Ok(value) = $decode($bytes) {
            $touch(&value);
            let written = value.to_vec();
            assert_eq!(written.len(), value.encoded_len());
            assert_eq!($decode(&written).expect("it was written").to_vec(), written);
        }
    };
}

/// Of a record at which there is nothing more to look at.
fn nothing<T>(_: &T) {}

fuzz_target!(|bytes: &[u8]| {
    let [which, second, rest @ ..] = bytes else { return };
    let op = OpCode::ALL[usize::from(*second) % OpCode::ALL.len()];
    match which % 12 {
        0 => same!(rest, |bytes| Request::decode(op, bytes), touch_request),
        1 => same!(rest, |bytes| Response::decode(op, &mut Decoder::new(bytes)), touch_response),
        2 => same!(rest, TxnEntry::decode, |entry: &TxnEntry<'_>| touch_txn(&entry.txn)),
        3 => {
            same!(rest, ConnectRequest::decode, nothing);
            same!(rest, ConnectResponse::decode, nothing);
        }
        4 => {
            same!(rest, |bytes: &[u8]| RequestHeader::decode(&mut Decoder::new(bytes)), nothing);
            same!(rest, |bytes: &[u8]| ReplyHeader::decode(&mut Decoder::new(bytes)), nothing);
            same!(rest, |bytes| WatcherEvent::decode(&mut Decoder::new(bytes)), nothing);
        }
        5 => frames(rest, usize::from(*second)),
        6 => packets(rest),
        7 => {
            same!(rest, LearnerInfo::decode, nothing);
            same!(rest, Forwarded::decode, nothing);
            same!(rest, Revalidated::decode, nothing);
            same!(rest, Touched::decode, nothing);
            assert!(Touched::list(rest).count() <= rest.len());
        }
        8 => same!(rest, Notification::decode, nothing),
        9 => _ = Hello::parse(rest),
        10 => snapshot(rest),
        _ => records(rest),
    }
});

fn touch_request(request: &Request<'_>) {
    if let Request::Multi(multi) = request {
        assert_eq!(multi.iter().count(), multi.len());
    }
}

fn touch_response(response: &Response<'_>) {
    match response {
        Response::Children(names) => names.iter().for_each(drop),
        Response::Acl(acl, _) => acl.iter().for_each(drop),
        Response::WhoAmI(ids) => ids.iter().for_each(drop),
        _ => {}
    }
}

fn touch_txn(txn: &Txn<'_>) {
    match txn {
        Txn::Multi(parts) => {
            let mut raw = Vec::new();
            parts.iter().for_each(|part| {
                touch_txn(&part);
                SubTxns::push(&mut raw, &part);
            });
            parts.failed();
        }
        Txn::CloseSession { paths: Some(paths) } => paths.iter().for_each(drop),
        Txn::SetAcl { acl, .. } => acl.iter().for_each(drop),
        _ => {}
    }
}

/// However the stream is cut, the same frames come out.
fn frames(bytes: &[u8], cut: usize) {
    let read = |size: usize| {
        let (mut frames, mut seen) = (Frames::new(MAX), Vec::new());
        let result = bytes.chunks(size.max(1)).try_for_each(|chunk| {
            let each = |frame: &[u8]| {
                seen.push(frame.to_vec());
                ControlFlow::Continue(())
            };
            frames.feed(chunk, each).map(drop)
        });
        (seen, result.is_ok())
    };
    assert_eq!(read(bytes.len()), read(cut));
}

fn packets(bytes: &[u8]) {
    let mut rest = bytes;
    while let Ok(Parsed::Whole(packet, len)) = Packet::parse(rest, MAX) {
        assert!(len > 0 && len <= rest.len());
        packet.auth.into_iter().for_each(|ids| ids.iter().for_each(drop));
        rest = &rest[len..];
    }
}

/// The snapshot of another member, as far as it makes sense.
fn snapshot(bytes: &[u8]) {
    let (mut parser, mut rest) = (Parser::new(MAX), bytes);
    while !parser.is_done() {
        let Ok(Parsed::Whole(piece, len)) = parser.next(rest) else { return };
        if let Piece::Acl(_, acl) = piece {
            acl.iter().for_each(drop);
        }
        rest = &rest[len..];
    }
}

/// The records of a block of a snapshot.
fn records(bytes: &[u8]) {
    let _ = AclList::from_encoded(bytes).map(|acl| acl.iter().for_each(drop));
    let _ =
        IdList::decode(&mut Decoder::new(bytes)).map(|ids| ids.into_iter().for_each(|ids| ids.iter().for_each(drop)));
    let mut d = Decoder::new(bytes);
    while !d.is_empty() {
        let mut again = Vec::new();
        match get_record(&mut d) {
            Ok(NodeRecord::Acl(acl)) => put_acl(&mut again, acl),
            Ok(NodeRecord::Node { path, image, acl }) => put_node(&mut again, path, &image, acl),
            Err(_) => return,
        }
        get_record(&mut Decoder::new(&again)).expect("it was written");
    }
}
