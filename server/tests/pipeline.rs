//! Requests that come in one piece on one connection: they are answered in their order, at once, and no answer costs more memory than
//! answers may.
//!
//! Ticks are so long here that an answer that waits for one comes too late.

mod common;

use common::ensemble::{Ensemble, Kind};
use common::{Server, high_water_mib, temp_dir};
use corral_net::frame::{Frames, put_frame};
use corral_proto::acl::AclList;
use corral_proto::multi::{MultiReadRequest, ReadOp};
use corral_proto::request::{CreateRequest, PathVersion, PathWatch, Request, SetDataRequest};
use corral_proto::{ConnectRequest, Decoder, ErrorCode, Jute, ReplyHeader, RequestHeader, SessionId, Xid, Zxid};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::ops::ControlFlow;
use std::time::Duration;

/// Far below a tick of these servers.
const AT_ONCE: Duration = Duration::from_secs(5);
const LONG_TICK: &str = "tickTime=60000";

/// A client that sends bytes as it likes.
struct Raw {
    stream: TcpStream,
    frames: Frames,
    /// Answers that have come, and were not looked at.
    came: Vec<Vec<u8>>,
}

impl Raw {
    fn connect(address: SocketAddr) -> Raw {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(AT_ONCE)).unwrap();
        let mut raw = Raw { stream, frames: Frames::new(64 << 20), came: Vec::new() };
        let request = ConnectRequest {
            protocol_version: 0,
            last_zxid_seen: Zxid::ZERO,
            timeout_ms: 120_000,
            session_id: SessionId::NONE,
            password: Some(&[0; 16]),
            read_only: Some(false),
        };
        let mut bytes = Vec::new();
        put_frame(&mut bytes, |out| request.encode(out));
        raw.stream.write_all(&bytes).unwrap();
        raw.next().expect("a session");
        raw
    }

    /// The next frame; `None` if the connection is closed.
    fn next(&mut self) -> Option<Vec<u8>> {
        let mut chunk = [0; 64 << 10];
        while self.came.is_empty() {
            let n = self.stream.read(&mut chunk).expect("an answer at once");
            if n == 0 {
                return None;
            }
            let came = &mut self.came;
            let fed = self.frames.feed(&chunk[..n], |frame| {
                came.push(frame.to_vec());
                ControlFlow::Continue(())
            });
            assert!(fed.is_ok(), "frames");
        }
        Some(self.came.remove(0))
    }

    /// Sends all of it in one segment; the answers' numbers and errors, up to as many answers or the end.
    fn ask(&mut self, requests: &[(i32, Vec<u8>)]) -> Vec<(i32, i32)> {
        let mut bytes = Vec::new();
        for (number, (op, body)) in (1..).zip(requests) {
            put_frame(&mut bytes, |out| {
                RequestHeader { xid: Xid(number), op: *op }.encode(out);
                out.extend_from_slice(body);
            });
        }
        self.stream.write_all(&bytes).unwrap();
        let answers = std::iter::from_fn(|| {
            let frame = self.next()?;
            let header = ReplyHeader::decode(&mut Decoder::new(&frame)).expect("a header");
            Some((header.xid.0, header.error))
        });
        answers.take(requests.len()).collect()
    }
}

fn request(request: &Request<'_>) -> (i32, Vec<u8>) {
    (request.op().code(), request.to_vec())
}

fn set() -> (i32, Vec<u8>) {
    request(&Request::SetData(SetDataRequest { path: "/a", data: Some(b"x"), version: -1 }))
}

fn get() -> (i32, Vec<u8>) {
    request(&Request::GetData(PathWatch { path: "/a", watch: false }))
}

fn sync() -> (i32, Vec<u8>) {
    request(&Request::Sync(Some("/a")))
}

fn create(path: &str) -> (i32, Vec<u8>) {
    let create = CreateRequest { path, data: None, acl: AclList::OPEN, flags: 0 };
    request(&Request::Create(create))
}

/// A read of the same list of children, so many times.
fn multi_read(path: &str, times: usize) -> (i32, Vec<u8>) {
    let mut reads = Vec::new();
    (0..times).for_each(|_| ReadOp::GetChildren(path).encode_into(&mut reads));
    request(&Request::MultiRead(MultiReadRequest::from_encoded(times, &reads)))
}

/// A standalone server, and a follower: each has a way of its own for a `sync`.
fn everywhere(test: impl Fn(SocketAddr)) {
    let dir = temp_dir();
    let server = Server::start(dir.path(), &[LONG_TICK]);
    test(server.address);
    let mut ensemble = Ensemble::new(3, 0);
    ensemble.set(LONG_TICK);
    ensemble.start_all(&Kind::Corral);
    test(ensemble.address(ensemble.leader() % 3 + 1));
}

/// A `sync` was answered behind the writes that came after it, and one that cannot be read ahead of those before it: Java and C
/// clients drop such a connection.
#[test]
fn a_sync_between_writes_is_answered_at_its_place() {
    everywhere(|address| {
        let mut raw = Raw::connect(address);
        raw.ask(&[create("/a")]);
        let unreadable = (sync().0, vec![0xff, 0, 0]);
        for _ in 0..50 {
            assert_eq!(raw.ask(&[set(), sync(), set(), get()]), [(1, 0), (2, 0), (3, 0), (4, 0)]);
            let answers = raw.ask(&[set(), unreadable.clone(), set(), sync(), sync(), set()]);
            assert_eq!(answers.iter().map(|(xid, _)| *xid).collect::<Vec<_>>(), [1, 2, 3, 4, 5, 6]);
            assert_eq!(answers.iter().map(|(_, error)| *error == 0).filter(|is_well| !is_well).count(), 1);
        }
    });
}

/// The read was answered by the end of a step, and the `sync` behind it had nobody to wake the server for it.
#[test]
fn a_sync_behind_a_read_behind_a_write_does_not_wait_for_a_timer() {
    everywhere(|address| {
        let mut raw = Raw::connect(address);
        raw.ask(&[create("/a")]);
        let pipelines = [
            vec![set(), get(), sync()],
            vec![sync(), get(), sync()],
            vec![set(), get(), sync(), get(), set(), get(), sync()],
            vec![set(), get(), set(), get(), get(), set()],
        ];
        for pipeline in pipelines {
            let all: Vec<(i32, i32)> = (1..=pipeline.len() as i32).map(|xid| (xid, 0)).collect();
            assert_eq!(raw.ask(&pipeline), all);
        }
    });
}

/// What a client sends behind its `closeSession` was refused, and the refusal wiped the answer to that.
#[test]
fn what_is_sent_behind_a_close_does_not_wipe_its_answer() {
    everywhere(|address| {
        for _ in 0..10 {
            let mut raw = Raw::connect(address);
            let close = request(&Request::CloseSession);
            let delete = request(&Request::Delete(PathVersion { path: "/missing", version: -1 }));
            let answers = raw.ask(&[delete.clone(), close, delete, sync(), get()]);
            assert_eq!(answers, [(1, -101), (2, 0)]);
        }
    });
}

/// 32 KB that name a node of 10,000 children again and again made an answer of 240 MB, and others waited for it.
#[test]
fn a_small_request_does_not_make_a_huge_answer() {
    let dir = temp_dir();
    let server = Server::start(dir.path(), &[]);
    let mut raw = Raw::connect(server.address);
    raw.ask(&[create("/a")]);
    let names: Vec<String> = (0..10_000).map(|n| format!("/a/child-with-a-name-{n:05}")).collect();
    for some in names.chunks(500) {
        let creates: Vec<_> = some.iter().map(|name| create(name)).collect();
        assert!(raw.ask(&creates).iter().all(|(_, error)| *error == 0));
    }
    let before = high_water_mib(server.pid());
    assert_eq!(raw.ask(&[multi_read("/a", 40)]), [(1, 0)], "some of them are an answer");
    let many = vec![multi_read("/a", 1500); 20];
    let refused: Vec<(i32, i32)> = (1..=20).map(|xid| (xid, ErrorCode::MarshallingError.code())).collect();
    assert_eq!(raw.ask(&many), refused);
    let grown = high_water_mib(server.pid()) - before;
    assert!(grown < 100, "{grown} MiB");
}
