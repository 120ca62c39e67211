//! Bytes that Apache ZooKeeper servers (3.8.0 of Debian, and 3.9.5) sent each other on loopback, recorded once: each decodes, and
//! encodes again to the same bytes. `tests/golden` has what they are, in words.

use corral_proto::jute::Decoder;
use corral_proto::peer::learner::{Forwarded, LearnerInfo, PROTOCOL, Revalidated, Touched};
use corral_proto::peer::snapshot::{Parser, Piece};
use corral_proto::peer::{Hello, Notification, Packet, PacketKind, Parsed, PeerState};
use corral_proto::{Jute, ServerId, TxnEntry};
use serde_json::Value;
use std::collections::BTreeMap;

const DATA_MAX: usize = 1 << 20;

fn recorded(name: &str) -> Value {
    let path = format!("{}/tests/golden/{name}.json", env!("CARGO_MANIFEST_DIR"));
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

fn text<'a>(message: &'a Value, key: &str) -> &'a str {
    message[key].as_str().unwrap_or_default()
}

fn bytes(message: &Value) -> Vec<u8> {
    let hex = text(message, "hex").as_bytes();
    hex.chunks(2).map(|pair| u8::from_str_radix(str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
}

#[test]
fn the_messages_of_an_election() {
    let recorded = recorded("first-boot-3-servers");
    let mut last: BTreeMap<(i64, bool), ServerId> = BTreeMap::new();
    for connection in recorded["connections"].as_array().unwrap() {
        let acceptor = connection["acceptor_sid"].as_i64().unwrap();
        for (index, message) in connection["messages"].as_array().unwrap().iter().enumerate() {
            let bytes = bytes(message);
            if index == 0 {
                let Ok(Parsed::Whole(hello, used)) = Hello::parse(&bytes) else { panic!("{message}") };
                assert_eq!((used, hello.addresses.len()), (bytes.len(), 1));
                assert_eq!(hello.to_vec(), bytes);
                continue;
            }
            let (length, body) = bytes.split_first_chunk::<4>().unwrap();
            assert_eq!(u32::from_be_bytes(*length) as usize, body.len());
            let notification = Notification::decode(body).unwrap();
            assert_eq!(notification.to_vec(), body, "{message}");
            assert_eq!((notification.version, notification.round, notification.vote.epoch), (2, 1, 0));
            assert!(notification.config.unwrap().ends_with("version=0"));
            if notification.state == PeerState::Looking {
                let sender = text(message, "dir") == "initiator->acceptor";
                last.insert((acceptor, sender), notification.vote.leader);
            }
        }
    }
    assert!(last.len() >= 4 && last.values().all(|leader| *leader == ServerId(3)), "everybody ended with 3: {last:?}");
}

/// Reads one direction of a link as the stream that it was, whatever pieces it came in.
fn packets(recorded: &Value, direction: &str) -> Vec<(Value, Vec<u8>)> {
    let of_it = |message: &&Value| text(message, "dir") == direction;
    let messages = recorded["messages"].as_array().unwrap().iter().filter(of_it);
    messages.map(|message| (message.clone(), bytes(message))).collect()
}

fn check_link(name: &str) -> BTreeMap<PacketKind, usize> {
    let recorded = recorded(name);
    let mut seen = BTreeMap::new();
    for direction in ["learner->leader", "leader->learner"] {
        for (message, bytes) in packets(&recorded, direction) {
            if text(&message, "type").starts_with('<') {
                check_snapshot(&bytes);
                continue;
            }
            let Ok(Parsed::Whole(packet, used)) = Packet::parse(&bytes, DATA_MAX) else { panic!("{name}: {message}") };
            assert_eq!(used, bytes.len(), "{name}: {message}");
            assert_eq!(packet.to_vec(), bytes, "{name}: {message}");
            let words = format!("{:?}", packet.kind).to_uppercase();
            assert_eq!(words, text(&message, "type"), "{name}");
            let zxid = i64::from_str_radix(text(&message, "zxid").trim_start_matches("0x"), 16);
            assert!(zxid.is_err() || zxid == Ok(packet.zxid.0), "{name}: {message}");
            check_data(&packet, direction == "learner->leader");
            *seen.entry(packet.kind).or_default() += 1;
        }
    }
    seen
}

/// A raw snapshot between the packets: sessions, lists, nodes with the built-in ones among them, and nothing behind its end.
fn check_snapshot(bytes: &[u8]) {
    let (mut parser, mut at, mut again, mut paths) = (Parser::new(DATA_MAX), 0, Vec::new(), Vec::new());
    while !parser.is_done() {
        let Ok(Parsed::Whole(piece, used)) = parser.next(&bytes[at..]) else { panic!("byte {at}") };
        at += used;
        piece.encode(&mut again);
        if let Piece::Node { path, .. } = piece {
            paths.push(path);
        }
    }
    assert_eq!((at, &again[..]), (bytes.len(), bytes));
    assert!(["", "/zookeeper", "/zookeeper/quota", "/zookeeper/config"].iter().all(|path| paths.contains(path)));
}

fn check_data(packet: &Packet<'_>, to_leader: bool) {
    let data = packet.data.unwrap_or_default();
    let same = |again: Vec<u8>| assert_eq!(again, data, "{packet:?}");
    match packet.kind {
        PacketKind::FollowerInfo | PacketKind::ObserverInfo => {
            let info = LearnerInfo::decode(data).unwrap();
            assert_eq!(info.protocol, PROTOCOL);
            same(info.to_vec());
        }
        PacketKind::Request => same(Forwarded::decode(data).unwrap().to_vec()),
        PacketKind::Ping => same(Touched::list(data).flat_map(|touched| touched.to_vec()).collect()),
        PacketKind::Revalidate if to_leader => same(Touched::decode(data).unwrap().to_vec()),
        PacketKind::Revalidate => same(Revalidated::decode(data).unwrap().to_vec()),
        PacketKind::LeaderInfo => assert_eq!(Decoder::new(data).int(), Ok(PROTOCOL)),
        PacketKind::AckEpoch => assert_eq!(data.len(), 4),
        PacketKind::Proposal | PacketKind::Inform => match TxnEntry::decode(data) {
            Ok(entry) => {
                assert_eq!(entry.header.zxid, packet.zxid);
                // Behind it stands the digest, which error transactions do not have.
                let (again, rest) = (entry.to_vec(), data.len() - entry.encoded_len());
                assert_eq!(again, data[..again.len()]);
                assert!(rest == 12 || rest == 0, "{packet:?}: {rest} bytes behind the transaction");
            }
            // Reconfigurations, containers and nodes with a lifetime.
            Err(error) => assert!(error.to_string().contains("a transaction has no meaning for"), "{error}"),
        },
        PacketKind::NewLeader => assert!(data.is_empty() || str::from_utf8(data).unwrap().contains("version=")),
        _ => assert!(packet.data.is_none() || packet.kind == PacketKind::CommitAndActivate || data.len() >= 8),
    }
}

#[test]
fn the_handshakes_of_learners() {
    for (name, sync) in [
        ("diff-empty-first-boot", PacketKind::Diff),
        ("diff-with-8-txns", PacketKind::Diff),
        ("diff-with-8-txns-3.9.5", PacketKind::Diff),
        ("trunc", PacketKind::Trunc),
        ("snap-observer-small", PacketKind::Snap),
    ] {
        let seen = check_link(name);
        assert_eq!(seen.get(&sync), Some(&1), "{name}");
        for kind in [PacketKind::LeaderInfo, PacketKind::AckEpoch, PacketKind::NewLeader, PacketKind::UpToDate] {
            assert_eq!(seen.get(&kind), Some(&1), "{name}: {kind:?}");
        }
    }
}

#[test]
fn the_broadcasts_of_a_leader() {
    let follower = check_link("follower-session");
    assert_eq!((follower[&PacketKind::Proposal], follower[&PacketKind::Request]), (19, 4));
    assert_eq!(
        follower[&PacketKind::Commit] + follower[&PacketKind::CommitAndActivate],
        follower[&PacketKind::Proposal]
    );
    let observer = check_link("observer-session");
    assert!(observer[&PacketKind::Inform] > 5 && observer[&PacketKind::Sync] > 0);
}
