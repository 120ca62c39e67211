//! What clients cost in memory, and that large things go through: idle connections, watches by the million, long lists of children, the largest
//! values, a watch of a large subtree.
//!
//! Sizes are a tenth unless `CORRAL_TEST_FULL` is set; the bounds for each connection and watch are the same. With `--nocapture` each test says
//! what it has measured. What the kernel holds for a socket does not count.

#![expect(clippy::disallowed_methods, reason = "the environment says how large it is to be")]

mod common;

use common::{PATIENCE, Server, create, eventually, get, temp_dir};
use corral_net::client::{BlockingClient, Session};
use corral_proto::acl::AclList;
use corral_proto::jute::{StrList, put_string};
use corral_proto::request::{AddWatchMode, CreateRequest, PathWatch, Request, SetWatchesRequest};
use corral_proto::response::Response;
use corral_proto::{EventType, Zxid};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::path::Path;

/// Packets that as many paths go into as a client may watch again at once.
const PACKETS: usize = 12;

fn size(full: usize) -> usize {
    if std::env::var("CORRAL_TEST_FULL").is_ok_and(|value| value == "1") { full } else { full / 10 }
}

/// One core, so that all memory is that of the same worker; as many open files as the system allows.
fn server(dir: &Path) -> Server {
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }).expect("the hard limit is allowed");
    Server::start(dir, &["maxClientCnxns=0", "maxSessionTimeout=600000", "coreThreads=1"])
}

fn client(server: &Server) -> BlockingClient {
    BlockingClient::connect(server.address, Session::new(10 * PATIENCE), PATIENCE).expect("it serves")
}

/// Bytes of memory that the server has in use.
fn resident(server: &Server) -> usize {
    let status = std::fs::read_to_string(format!("/proc/{}/status", server.pid())).expect("it runs");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("Linux says so");
    line.trim().trim_end_matches(" kB").parse::<usize>().expect("a number") << 10
}

/// How many bytes more each of `count` takes that `add` makes.
fn bytes_each(server: &Server, what: &str, count: usize, add: impl FnOnce()) -> usize {
    let before = resident(server);
    add();
    let each = resident(server).saturating_sub(before) / count;
    println!("{each} bytes for each of {count} {what}");
    each
}

#[test]
fn an_idle_connection_takes_less_than_4_kib() {
    let dir = temp_dir();
    let server = server(dir.path());
    let connect = |count: usize| (0..count).map(|_| client(&server)).collect::<Vec<_>>();
    let warm = connect(100);
    let mut crowd = Vec::new();
    let each = bytes_each(&server, "idle connections", size(10_000), || crowd = connect(size(10_000)));
    assert!(each <= 4096, "{each} bytes");
    drop((warm, crowd));
}

/// As a client does that comes again: twelve packets, each of which takes a moment.
fn watch_again(client: &mut BlockingClient, prefix: &str, count: usize) {
    let per_packet = count.div_ceil(PACKETS);
    let numbers: Vec<usize> = (0..count).collect();
    for some in numbers.chunks(per_packet) {
        let mut raw = Vec::new();
        some.iter().for_each(|n| put_string(&mut raw, &format!("/{prefix}/{n:07}")));
        let exist = StrList::from_encoded(some.len() as u32, &raw);
        let [data, child, persistent, recursive] = [StrList::EMPTY; 4];
        let relative_zxid = Zxid(i64::MAX);
        let watches = SetWatchesRequest { relative_zxid, data, exist, child, persistent, recursive };
        client.request(&Request::SetWatches2(watches)).expect("they are set");
    }
}

#[test]
fn a_watch_takes_at_most_100_bytes_and_a_hundred_thousand_come_back_in_twelve_packets() {
    let dir = temp_dir();
    let server = server(dir.path());
    let mut clients: Vec<BlockingClient> = (0..10).map(|_| client(&server)).collect();
    let count = size(100_000);
    watch_again(&mut clients[0], "warm", 1000);
    let each = bytes_each(&server, "watches", 10 * count, || {
        clients.iter_mut().enumerate().for_each(|(n, client)| watch_again(client, &format!("w{n}"), count));
    });
    assert!(each <= 100, "{each} bytes");
    // They are there: the first and the last of some client fire.
    let mut other = client(&server);
    create(&mut other, "/w7", b"").unwrap();
    for n in [0, count - 1] {
        let path = format!("/w7/{n:07}");
        create(&mut other, &path, b"").unwrap();
        assert_eq!(clients[7].wait_event().unwrap(), Some((EventType::NodeCreated, path)));
    }
    // And what they have taken is given back.
    drop(clients);
    eventually("nobody watches", || {
        let said = corral_net::client::four_letter_word(server.address, "mntr", PATIENCE).expect("it is answered");
        said.contains("zk_watch_count\t0").then_some(())
    });
}

/// Many creates in flight on one connection.
fn create_many(client: &mut BlockingClient, paths: &[String]) {
    for some in paths.chunks(1000) {
        let create = |path| CreateRequest { path, data: Some(b"x"), acl: AclList::OPEN, flags: 0 };
        let requests: Vec<Request<'_>> = some.iter().map(|path| Request::Create(create(path))).collect();
        client.pipeline(&requests, |_, _, _| {}).expect("they are made");
    }
}

#[test]
fn long_lists_and_the_largest_values_go_through() {
    let dir = temp_dir();
    let server = server(dir.path());
    let mut client = client(&server);
    create(&mut client, "/p", b"").unwrap();
    let paths: Vec<String> = (0..10_000).map(|n| format!("/p/child-with-a-name-{n:05}")).collect();
    create_many(&mut client, &paths);
    match client.request(&Request::GetChildren(PathWatch { path: "/p", watch: false })).unwrap() {
        Response::Children(names) => assert_eq!(names.iter().count(), paths.len()),
        other => panic!("{other:?}"),
    }
    // As large as a request may be by default, with its path, list and flags.
    let largest = vec![7; 1_048_575 - 80];
    create(&mut client, "/large", &largest).unwrap();
    assert_eq!(get(&mut client, "/large"), Some(largest));
}

#[test]
fn a_watch_of_a_subtree_tells_of_each_of_a_hundred_thousand_nodes() {
    let dir = temp_dir();
    let server = server(dir.path());
    let (mut watcher, mut writer) = (client(&server), client(&server));
    create(&mut writer, "/tree", b"").unwrap();
    watcher.request(&Request::AddWatch("/tree", AddWatchMode::Recursive)).expect("it is set");
    let paths: Vec<String> = (0..size(100_000)).map(|n| format!("/tree/{n:06}")).collect();
    std::thread::scope(|scope| {
        scope.spawn(|| create_many(&mut writer, &paths));
        for path in &paths {
            assert_eq!(watcher.wait_event().unwrap(), Some((EventType::NodeCreated, path.clone())));
        }
    });
}
