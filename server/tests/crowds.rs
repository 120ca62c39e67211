//! Crowds: more clients than a shell's limit of open files, more than any limit, sessions that all expire at once, and a member with
//! little of a processor that joins a large history under load.
//!
//! All sizes are small unless `CORRAL_TEST_FULL` is set; what is asserted is the same. A machine whose hard limit of open files is
//! lower than the full size gets as many connections as it allows.

#![expect(clippy::disallowed_methods, reason = "latencies and shares of a processor are measured, and load has a pace")]

mod common;

use common::ensemble::{Ensemble, Kind, SYNC_LIMIT, connect};
use common::{
    PATIENCE, Server, create, eventually, eventually_within, get, high_water_mib, limited, processor_time, segments,
    set, temp_dir,
};
use corral_engine::Tree;
use corral_engine::restore::restore;
use corral_net::client::{BlockingClient, Session, four_letter_word};
use corral_proto::acl::AclList;
use corral_proto::request::{CreateRequest, PathWatch, Request, SetDataRequest};
use corral_proto::{ConnectRequest, ConnectResponse, Decoder, Jute, ReplyHeader, RequestHeader, SessionId, Xid, Zxid};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use socket2::{Domain, Socket, Type};
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

const CORRAL: Kind = Kind::Corral;
/// Of three members, the one that leads, and one that joins later.
const LEADER: usize = 3;
const JOINS: usize = 1;
/// Descriptors that a server, or this process, needs besides those of a crowd.
const BESIDES: usize = 1000;
/// Connections that are used at a time.
const BATCH: usize = 250;
/// Connections from one address, before the next one has its turn: of its 28,000 ports most are to be free, or finding one takes long.
const FROM_ONE_ADDRESS: usize = 1000;

fn is_full() -> bool {
    std::env::var("CORRAL_TEST_FULL").is_ok_and(|value| value == "1")
}

fn size<T>(small: T, full: T) -> T {
    if is_full() { full } else { small }
}

/// Allows this process as many open files as the system does; how many those are.
fn raise_own_limit() -> usize {
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }).expect("the hard limit is allowed");
    limit.maximum.map_or(usize::MAX, |most| most as usize)
}

/// Connections with a session each. They are bare sockets: many of them are to cost little here.
#[derive(Default)]
struct Crowd {
    streams: Vec<TcpStream>,
}

impl Crowd {
    /// Adds `count` clients.
    fn grow(&mut self, server: SocketAddr, count: usize, timeout: Duration) {
        let end = self.streams.len() + count;
        while self.streams.len() < end {
            let begin = self.streams.len();
            for _ in begin..end.min(begin + BATCH) {
                let mut stream = reach(server).expect("the server listens");
                greet(&mut stream, timeout).expect("just connected");
                self.streams.push(stream);
            }
            for stream in &mut self.streams[begin..] {
                granted(stream).expect("the server takes it");
            }
        }
    }

    /// Each client asks for the same, and must get it.
    fn ask(&mut self, request: &Request<'_>) {
        self.ask_each(|_| *request);
    }

    /// Each client asks for something, by its number, and must get it.
    fn ask_each<'a>(&mut self, mut request: impl FnMut(usize) -> Request<'a>) {
        for (batch, streams) in self.streams.chunks_mut(BATCH).enumerate() {
            for (index, stream) in streams.iter_mut().enumerate() {
                let (mut bytes, request) = (Vec::new(), request(batch * BATCH + index));
                let xid = if request == Request::Ping { Xid::PING } else { Xid(1) };
                corral_net::put_frame(&mut bytes, |out| {
                    RequestHeader { xid, op: request.op().code() }.encode(out);
                    request.encode(out);
                });
                stream.write_all(&bytes).expect("it is connected");
            }
            for stream in streams {
                let answer = frame(stream).expect("it is answered");
                let header = ReplyHeader::decode(&mut Decoder::new(&answer)).expect("it has a header");
                assert_eq!(header.error, 0, "{header:?}");
            }
        }
    }
}

/// A new connection.
fn reach(server: SocketAddr) -> io::Result<TcpStream> {
    static COUNT: AtomicUsize = AtomicUsize::new(0);
    let turn = COUNT.fetch_add(1, Ordering::Relaxed) / FROM_ONE_ADDRESS;
    let address = Ipv4Addr::new(127, 0, 0, 2 + (turn % 250) as u8);
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.bind(&SocketAddr::from((address, 0)).into())?;
    socket.connect(&server.into())?;
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.set_nodelay(true)?;
    Ok(socket.into())
}

/// Asks for a session.
fn greet(stream: &mut TcpStream, timeout: Duration) -> io::Result<()> {
    let request = ConnectRequest {
        protocol_version: 0,
        last_zxid_seen: Zxid::ZERO,
        timeout_ms: timeout.as_millis() as i32,
        session_id: SessionId::NONE,
        password: None,
        read_only: Some(false),
    };
    let mut bytes = Vec::new();
    corral_net::put_frame(&mut bytes, |out| request.encode(out));
    stream.write_all(&bytes)
}

/// Waits for the session.
fn granted(stream: &mut TcpStream) -> io::Result<SessionId> {
    let answer = frame(stream)?;
    let answer = ConnectResponse::decode(&answer).map_err(io::Error::other)?;
    assert!(answer.timeout_ms > 0, "{answer:?}");
    Ok(answer.session_id)
}

fn frame(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let mut len = [0; 4];
    stream.read_exact(&mut len)?;
    let mut bytes = vec![0; u32::from_be_bytes(len) as usize];
    stream.read_exact(&mut bytes)?;
    Ok(bytes)
}

fn create_request<'a>(path: &'a str, data: &'a [u8], flags: i32) -> Request<'a> {
    Request::Create(CreateRequest { path, data: Some(data), acl: AclList::OPEN, flags })
}

fn set_request<'a>(path: &'a str, data: &'a [u8]) -> Request<'a> {
    Request::SetData(SetDataRequest { path, data: Some(data), version: -1 })
}

#[test]
fn a_shells_limit_of_open_files_is_not_the_servers() {
    let most = raise_own_limit();
    let (wanted, dir) = (size(2_000, 60_000), temp_dir());
    let count = wanted.min(most.saturating_sub(BESIDES));
    let settings = ["maxClientCnxns=0", "maxSessionTimeout=600000"];
    let server = Server::run(limited("-S -n 256", dir.path(), &settings));
    assert_eq!(server.metric("zk_max_file_descriptor_count"), most as f64);
    let began = Instant::now();
    let mut client = server.client();
    create(&mut client, "/x", b"").unwrap();
    client.close().unwrap();
    let mut crowd = Crowd::default();
    crowd.grow(server.address, count, Duration::from_secs(600));
    let connected = began.elapsed();
    crowd.ask(&Request::Ping);
    crowd.ask(&Request::GetData(PathWatch { path: "/x", watch: false }));
    crowd.ask(&set_request("/x", b"y"));
    let high = high_water_mib(server.pid());
    eprintln!(
        "{count} of {wanted} clients: connected in {connected:?}, all answered three times after {:?}; {high} MiB, {:?} of processors",
        began.elapsed(),
        processor_time(server.pid())
    );
    assert!(server.metric("zk_num_alive_connections") >= count as f64);
    assert!(server.metric("zk_open_file_descriptor_count") > count as f64);
    assert_eq!(server.metric("zk_global_sessions"), count as f64);
    let said = server.said();
    assert!(!said.contains("Too many connections") && !said.contains("cannot accept"), "{said}");
}

#[test]
fn a_log_of_more_segments_than_descriptors_is_read_again() {
    let (count, dir) = (size(150, 1_500), temp_dir());
    // The hard limit, too: nothing that is opened for a segment may stay open.
    let start = || Server::run(limited("-n 100", dir.path(), &["preAllocSize=64", "snapCount=1000000"]));
    let server = start();
    let mut client = server.client();
    let mut written = 0;
    while segments(dir.path()).len() <= count {
        create(&mut client, &format!("/n{written}"), &[7; 30_000]).unwrap();
        written += 1;
    }
    server.kill();
    for _ in 0..2 {
        let server = start();
        assert!(server.banner.contains("transactions replayed"), "{}", server.banner);
        let mut client = server.client();
        assert!((0..written).all(|n| get(&mut client, &format!("/n{n}")) == Some(vec![7; 30_000])));
        set(&mut client, "/n0", &[7; 30_000]).unwrap();
        server.kill();
    }
}

/// With all descriptors given to clients, the log could not make its next segment, and every write waited.
#[test]
fn who_comes_when_descriptors_are_scarce_is_refused_and_nothing_else_suffers() {
    let (limit, dir) = (size(300, 4_000), temp_dir());
    assert!(raise_own_limit() > limit + BESIDES);
    let settings = ["maxClientCnxns=0", "maxSessionTimeout=600000", "preAllocSize=64", "snapCount=100"];
    let start = || Server::run(limited(&format!("-n {limit}"), dir.path(), &settings));
    let server = start();
    let timeout = Duration::from_secs(600);
    let come = || -> io::Result<TcpStream> {
        let mut stream = reach(server.address)?;
        greet(&mut stream, timeout)?;
        granted(&mut stream)?;
        Ok(stream)
    };
    let mut crowd = Crowd::default();
    crowd.grow(server.address, limit / 2, timeout);
    let refused = loop {
        match come() {
            Ok(stream) => crowd.streams.push(stream),
            Err(error) => break error,
        }
        assert!(crowd.streams.len() < limit, "more connections than descriptors");
    };
    let is_refusal = |error: &io::Error| {
        matches!(error.kind(), ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset | ErrorKind::BrokenPipe)
    };
    assert!(is_refusal(&refused), "{refused}");
    let count = crowd.streams.len();
    for _ in 0..50 {
        let refused = come().expect_err("there are as many as before");
        assert!(is_refusal(&refused), "{refused}");
    }
    assert!(server.said().contains("the limit of open files"), "{}", server.said());
    // Nothing is to happen now, so there is nothing to wait for.
    let before = processor_time(server.pid());
    thread::sleep(Duration::from_secs(1));
    let spent = processor_time(server.pid()) - before;
    assert!(spent < Duration::from_millis(200), "{spent:?} of a second in which nobody asks for anything");
    // Segments and snapshots are made as ever.
    let paths: Vec<String> = (0..count).map(|n| format!("/n{n}")).collect();
    crowd.ask_each(|n| create_request(&paths[n], &[7; 10_000], 0));
    eventually("there are snapshots", || {
        crowd.ask(&set_request("/n0", b""));
        let names = std::fs::read_dir(dir.path().join("corral-snapshots")).expect("the server made it");
        (names.count() > 2).then_some(())
    });
    crowd.ask(&Request::Ping);
    let said = server.said();
    assert!(!said.contains("ERROR") && !said.contains("no snapshot was taken"), "{said}");
    eprintln!("{count} clients with {limit} descriptors, {spent:?} of a processor's second when full");
    // Who goes makes room.
    crowd.streams.truncate(count - 10);
    let back = eventually("there is room again", || come().ok());
    drop(back);
    server.kill();
    drop(crowd);
    let server = start();
    let mut client = server.client();
    assert!((1..count).all(|n| get(&mut client, &paths[n]) == Some(vec![7; 10_000])));
}

/// Which member leads, in which epoch.
fn reign(ensemble: &Ensemble) -> (usize, u64) {
    let leader = ensemble.leader();
    let said = four_letter_word(ensemble.address(leader), "srvr", PATIENCE).expect("it serves");
    let zxid = said.lines().find_map(|line| line.strip_prefix("Zxid: 0x")).expect("it has a state");
    (leader, u64::from_str_radix(zxid, 16).expect("a number") >> 32)
}

/// Writes and reads until it is to stop, without any error; its slowest write and its slowest read.
fn write_and_read(server: SocketAddr, path: &str, stop: &AtomicBool, done: &AtomicU64) -> (Duration, Duration) {
    let session = Session::new(Duration::from_secs(40));
    let mut client = BlockingClient::connect(server, session, PATIENCE).expect("it serves");
    let (mut write, mut read) = (Duration::ZERO, Duration::ZERO);
    while !stop.load(Ordering::Relaxed) {
        let text = done.load(Ordering::Relaxed).to_string();
        let began = Instant::now();
        set(&mut client, path, text.as_bytes()).expect("it goes on serving");
        let written = Instant::now();
        assert_eq!(get(&mut client, path).as_deref(), Some(text.as_bytes()), "a session reads its own writes");
        (write, read) = (write.max(written - began), read.max(written.elapsed()));
        done.fetch_add(1, Ordering::Relaxed);
    }
    client.close().expect("it goes on serving");
    (write, read)
}

#[test]
fn sessions_that_all_expire_at_once_hold_nobody_up() {
    const TICK: Duration = Duration::from_millis(500);
    let (count, timeout) = size((8_000, 12), (100_000, 120));
    let mut ensemble = Ensemble::new(3, 0);
    ensemble.set(&format!("maxSessionTimeout=600000\ntickTime={}\nsnapCount=20000", TICK.as_millis()));
    ensemble.start_all(&CORRAL);
    let mut client = connect(&ensemble.addresses());
    for path in ["/owned", "/leader", "/follower"] {
        create(&mut client, path, b"").unwrap();
    }
    client.close().unwrap();
    let began = Instant::now();
    let paths: Vec<String> = (0..BATCH).map(|n| n.to_string()).collect();
    for batch in 0..count / BATCH {
        let mut crowd = Crowd::default();
        crowd.grow(ensemble.address(batch % 3 + 1), BATCH, Duration::from_secs(timeout));
        // Every fourth owns a node. Their connections just end.
        crowd.streams.truncate(BATCH / 4);
        let paths: Vec<String> = paths.iter().map(|n| format!("/owned/{batch}-{n}")).collect();
        crowd.ask_each(|n| create_request(&paths[n], b"", 1));
    }
    let owned = count / BATCH * (BATCH / 4);
    let opened = began.elapsed();
    // All get the same time from a new leader.
    (1..=3).for_each(|id| ensemble.kill(id));
    ensemble.start_all(&CORRAL);
    let before = reign(&ensemble);
    let (leader, follower) = (before.0, before.0 % 3 + 1);
    let counts = |id: usize| ["zk_global_sessions", "zk_ephemerals_count"].map(|name| metric(&ensemble, id, name));
    let restarted = Instant::now();
    assert!(counts(leader) >= [count as u64, owned as u64], "{:?}: some have expired before", counts(leader));
    let (stop, writes) = (AtomicBool::new(false), [const { AtomicU64::new(0) }; 2]);
    let slowest = thread::scope(|scope| {
        let _stops = Stops(&stop);
        let writers =
            [("/leader", leader), ("/follower", follower)].into_iter().zip(&writes).map(|((path, id), done)| {
                let (address, stop) = (ensemble.address(id), &stop);
                scope.spawn(move || write_and_read(address, path, stop, done))
            });
        let writers: Vec<_> = writers.collect();
        let patience = Duration::from_secs(timeout) + PATIENCE;
        let begun = || (counts(leader)[1] < owned as u64).then(|| restarted.elapsed());
        let first = eventually_within(patience, "sessions expire", begun);
        // What is left are the writers. Only a leader has an eye on all.
        for id in 1..=3 {
            let is_over = || counts(id)[1] == 0 && (id != leader || counts(id)[0] == 2);
            eventually(&format!("all are gone on {id}"), || is_over().then_some(()));
        }
        eprintln!(
            "{count} sessions with {owned} nodes: opened in {opened:?}, expired from {first:?} to {:?} after the restart",
            restarted.elapsed()
        );
        stop.store(true, Ordering::Relaxed);
        writers.into_iter().map(|writer| writer.join().expect("it was served")).collect::<Vec<_>>()
    });
    eprintln!(
        "slowest write and read at the leader {:?}, at a follower {:?}; writes: {writes:?}",
        slowest[0], slowest[1]
    );
    let bound = TICK * SYNC_LIMIT;
    assert!(slowest.iter().all(|(write, read)| *write < bound && *read < bound), "{slowest:?}");
    assert_eq!(reign(&ensemble), before, "nobody had a reason to vote");
    let tree = common_tree(&ensemble);
    assert_eq!((tree.sessions().len(), tree.ephemeral_count()), (0, 0));
    assert!(tree.find("/follower").is_some());
}

fn metric(ensemble: &Ensemble, id: usize, name: &str) -> u64 {
    let mntr = four_letter_word(ensemble.address(id), "mntr", PATIENCE).expect("it serves");
    let line = mntr.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('\t'));
    line.expect("it has that").parse().expect("a number")
}

/// Lets threads of a scope end however that ends.
struct Stops<'a>(&'a AtomicBool);

impl Drop for Stops<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Lets a member run for a fifth of the time until it is to stop; after that it runs.
fn slow_down(ensemble: &Ensemble, id: usize, stop: &AtomicBool) {
    while !stop.load(Ordering::Relaxed) {
        ensemble.pause(id);
        thread::sleep(Duration::from_millis(160));
        ensemble.resume(id);
        thread::sleep(Duration::from_millis(40));
    }
}

/// Writes at a pace until it is to stop.
fn write_at(server: SocketAddr, path: &str, pace: Duration, stop: &AtomicBool) -> u64 {
    let mut client = connect(&[server]);
    let mut written = 0;
    let mut next = Instant::now();
    while !stop.load(Ordering::Relaxed) {
        thread::sleep(next.saturating_duration_since(Instant::now()));
        next = (next + pace).max(Instant::now() - 10 * pace);
        set(&mut client, path, written.to_string().as_bytes()).expect("it goes on serving");
        written += 1;
    }
    client.close().expect("it goes on serving");
    written
}

/// The tree that all three members would serve if they were started again, once all have everything on their disks.
fn common_tree(ensemble: &Ensemble) -> Tree {
    let restored = |id: usize| {
        let dir = ensemble.dir(id);
        // They run: a segment that is let go meanwhile is gone when it is opened.
        let mut tree = restore(&dir.join("corral-snapshots"), &dir.join("corral-log"), 1, |_| ()).ok()?.tree;
        // That is said by each when it serves, and no transaction.
        tree.set_config("the same");
        Some(tree)
    };
    let [tree, others @ ..] = eventually("all have everything on their disks", || {
        let [Some(one), Some(two), Some(three)] = [1, 2, 3].map(restored) else { return None };
        let trees = [one, two, three];
        trees.iter().all(|tree| tree.last_applied() == trees[0].last_applied()).then_some(trees)
    });
    for other in others {
        assert_eq!((other.len(), other.sessions()), (tree.len(), tree.sessions()));
        tree.walk(0, usize::MAX, |path, image| {
            assert_eq!(other.find(path).map(|id| other.image(id)), Some(image), "{path}");
            true
        });
    }
    tree
}

/// An ensemble with these nodes and this `initLimit`, whose members 2 and 3 run, the latter as the leader.
fn with_history(paths: &[String], init_limit: u32) -> Ensemble {
    let mut ensemble = Ensemble::new(3, 0);
    ensemble.set(&format!("tickTime=500\ninitLimit={init_limit}\nsnapCount=1000000\npreAllocSize=16384"));
    [2, LEADER].into_iter().for_each(|id| ensemble.start(id, &CORRAL));
    ensemble.await_all();
    assert_eq!(ensemble.leader(), LEADER);
    let mut client = connect(&[ensemble.address(LEADER)]);
    for paths in paths.chunks(500) {
        let requests: Vec<_> = paths.iter().map(|path| create_request(path, &[7; 100], 0)).collect();
        client.pipeline(&requests, |_, header, _| assert_eq!(header.error, 0)).unwrap();
    }
    client.close().unwrap();
    ensemble
}

fn numbered(count: usize) -> Vec<String> {
    (0..count).map(|n| format!("/n{n}")).collect()
}

#[test]
fn a_member_with_a_fifth_of_a_processor_joins_while_others_write() {
    const INIT_LIMIT: u32 = 2;
    const INIT: Duration = Duration::from_millis(500 * INIT_LIMIT as u64);
    const WRITERS: usize = 4;
    let paths = numbered(size(400_000, 600_000));
    let mut ensemble = with_history(&paths, INIT_LIMIT);
    let before = reign(&ensemble);
    ensemble.start(JOINS, &CORRAL);
    let (stop_writes, stop_pauses) = (AtomicBool::new(false), AtomicBool::new(false));
    let (joined, written) = thread::scope(|scope| {
        let _stops = (Stops(&stop_writes), Stops(&stop_pauses));
        scope.spawn(|| slow_down(&ensemble, JOINS, &stop_pauses));
        let (address, stop, began) = (ensemble.address(LEADER), &stop_writes, Instant::now());
        let pace = Duration::from_millis(5);
        let writers = paths[..WRITERS].iter().map(|path| scope.spawn(move || write_at(address, path, pace, stop)));
        let writers: Vec<_> = writers.collect();
        eventually("its history is sent to it", || ensemble.said(JOINS).contains("taking a snapshot").then_some(()));
        let taking = Instant::now();
        eventually_within(4 * PATIENCE, "it joins", || ensemble.mode(JOINS));
        let joined = taking.elapsed();
        stop_writes.store(true, Ordering::Relaxed);
        let written: u64 = writers.into_iter().map(|writer| writer.join().expect("it was served")).sum();
        (joined, (written as f64 / began.elapsed().as_secs_f64()) as u64)
    });
    let said = [ensemble.said(LEADER), ensemble.said(JOINS)];
    let (sent, high) = (said[0].matches("SNAP of").count(), ensemble.high_water_mib(LEADER));
    eprintln!(
        "{} nodes: joined {joined:?} after {sent} snapshots, {written} writes/s meanwhile, leader {high} MiB",
        paths.len()
    );
    assert!(joined > INIT, "{joined:?}: it was too fast to show anything");
    assert!(sent <= 4, "{sent} snapshots: {}", said[0]);
    assert!(sent == 1 || said.iter().all(|said| said.contains("initLimit")), "{said:?}");
    assert!(high < 250, "{high} MiB");
    assert_eq!(reign(&ensemble), before, "the others went on");
    assert_eq!(common_tree(&ensemble).len(), paths.len() + 4);
}

/// Pings that fit into its socket passed for progress, so that one that stood still was waited for for ever.
#[test]
fn a_transfer_that_is_given_up_is_explained_on_both_sides() {
    let mut ensemble = with_history(&numbered(size(20_000, 200_000)), 4);
    ensemble.start(JOINS, &CORRAL);
    eventually("it is sent a snapshot", || ensemble.said(LEADER).contains("SNAP of").then_some(()));
    ensemble.pause(JOINS);
    eventually("the leader gives up", || ensemble.said(LEADER).contains("closing the link").then_some(()));
    ensemble.resume(JOINS);
    eventually("it joins", || ensemble.mode(JOINS));
    for id in [LEADER, JOINS] {
        let said = ensemble.said(id);
        assert!(said.contains("a larger initLimit") || said.contains("for initLimit ticks"), "{said}");
    }
    // Once, if all of it had fitted into the sockets.
    assert!(ensemble.said(LEADER).matches("SNAP of").count() <= 4, "{}", ensemble.said(LEADER));
    common_tree(&ensemble);
}
