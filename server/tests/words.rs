//! The four-letter words of a running server, as monitors and clients read them.

mod common;

use common::{PATIENCE, Server, create, eventually, get, temp_dir};
use corral_net::client::{BlockingClient, four_letter_word};
use corral_proto::AclList;
use corral_proto::request::{CreateRequest, PathWatch, Request};
use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};

fn word(server: &Server, word: &str) -> String {
    four_letter_word(server.address, word, PATIENCE).expect("it is answered")
}

fn watch(client: &mut BlockingClient, path: &str) {
    client.request(&Request::GetData(PathWatch { path, watch: true })).expect("it is there");
}

/// Clients split the first of these lines at its dots: kazoo, and the exporters of metrics.
#[test]
fn the_version_begins_with_that_of_the_protocol() {
    let dir = temp_dir();
    let server = Server::start(dir.path(), &[]);
    for (word, before) in [
        ("srvr", "Zookeeper version: "),
        ("stat", "Zookeeper version: "),
        ("envi", "zookeeper.version="),
        ("mntr", "zk_version\t"),
    ] {
        let said = self::word(&server, word);
        let version = said.lines().find_map(|line| line.strip_prefix(before)).expect("it has a version");
        let numbers: Vec<&str> = version.split('-').next().expect("it begins").split('.').collect();
        assert!(numbers.len() == 3 && numbers.iter().all(|number| number.parse::<u32>().is_ok()), "{version}");
        let (of, built) = version.split_once(", built on ").unwrap_or((version, ""));
        assert!(of.ends_with(concat!("corral-", env!("CARGO_PKG_VERSION"))), "{version}");
        assert!(built.is_empty() || built.starts_with("20") && built.ends_with(" UTC"), "{version}");
    }
    let said = word(&server, "envi");
    assert!(said.starts_with("Environment:\n") && said.contains("\nos.name=Linux\n"), "{said}");
    assert!(said.lines().skip(1).all(|line| line.contains('=')), "{said}");
}

/// `echo ruok | nc -N` has sent all that it will before it is answered.
#[test]
fn who_has_said_all_is_answered() {
    let dir = temp_dir();
    let server = Server::start(dir.path(), &[]);
    for pieces in [&["ruok"][..], &["ruok\n"], &["ru", "ok"]] {
        let mut stream = TcpStream::connect(server.address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        pieces.iter().for_each(|piece| stream.write_all(piece.as_bytes()).unwrap());
        stream.shutdown(Shutdown::Write).unwrap();
        let mut said = String::new();
        stream.read_to_string(&mut said).unwrap();
        assert_eq!(said, "imok", "{pieces:?}");
    }
    assert_eq!([word(&server, "isro"), word(&server, "gtmk")], ["rw", "306"]);
}

#[test]
fn watches_are_listed_by_session_and_by_path() {
    let dir = temp_dir();
    // One of the clients, at least, is on another core than the replica.
    let server = Server::start(dir.path(), &["coreThreads=2", "replica.ownCore=true"]);
    let [mut one, mut other] = [server.client(), server.client()];
    for path in ["/a", "/b"] {
        create(&mut one, path, b"").unwrap();
    }
    watch(&mut one, "/a");
    watch(&mut one, "/b");
    watch(&mut other, "/a");
    let [first, second] = [&one, &other].map(|client| format!("{}", client.session().id));
    assert_eq!(word(&server, "wchs"), "2 connections watching 2 paths\nTotal watches:3\n");
    assert_eq!(word(&server, "wchc"), format!("{first}\n\t/a\n\t/b\n{second}\n\t/a\n\n"));
    assert_eq!(word(&server, "wchp"), format!("/a\n\t{first}\n\t{second}\n/b\n\t{first}\n\n"));
    drop(one);
    eventually("those of a connection go with it", || {
        (word(&server, "wchs") == "1 connections watching 1 paths\nTotal watches:1\n").then_some(())
    });
}

#[test]
fn what_is_counted_begins_anew_when_it_is_asked_to() {
    let dir = temp_dir();
    let server = Server::start(dir.path(), &[]);
    let mut client = server.client();
    create(&mut client, "/a", b"").unwrap();
    for _ in 0..100 {
        get(&mut client, "/a");
    }
    let number = |said: &str, before: &str| {
        let line = said.lines().find_map(|line| line.trim().strip_prefix(before)).expect("it is said");
        line.split(['/', ',', ')']).map(|number| number.parse::<f64>().expect("a number")).collect::<Vec<_>>()
    };
    let said = word(&server, "srvr");
    let latency = number(&said, "Latency min/avg/max: ");
    assert!(latency[0] <= latency[1] && latency[1] <= latency[2], "{said}");
    assert!(number(&said, "Received: ")[0] > 100.0, "{said}");
    assert_eq!(word(&server, "srst"), "Server stats reset.\n");
    assert!(number(&word(&server, "srvr"), "Received: ")[0] < 10.0);
    let received = |said: String| {
        let own = said.lines().find(|line| line.contains("sid=")).expect("it is connected").to_owned();
        own.split("recved=").nth(1).and_then(|rest| rest.split(',').next()?.parse::<u64>().ok()).expect("a number")
    };
    assert!(received(word(&server, "cons")) > 100);
    assert_eq!(word(&server, "crst"), "Connection stats reset.\n");
    assert!(received(word(&server, "cons")) < 10);
    // What a client has seen is no statistics.
    create(&mut client, "/b", b"").unwrap();
}

#[test]
fn sessions_their_nodes_and_connections_are_dumped() {
    let dir = temp_dir();
    let server = Server::start(dir.path(), &[]);
    let mut client = server.client();
    let ephemeral = Request::Create(CreateRequest { path: "/e", data: None, acl: AclList::OPEN, flags: 1 });
    client.request(&ephemeral).expect("it is made");
    let session = client.session().id;
    let said = word(&server, "dump");
    let lines: Vec<&str> = said.lines().collect();
    let is_date = |line: &str| {
        let date = line.strip_prefix("1 expire at ").and_then(|rest| rest.strip_suffix(':')).unwrap_or_default();
        let words: Vec<&str> = date.split(' ').collect();
        words.len() == 6 && words[3].len() == 8 && words[4] == "UTC" && words[5].starts_with("20")
    };
    assert!(is_date(lines[2]) && is_date(lines[10]), "{said}");
    let (id, rest) = (format!("\t{session}"), [lines[2], lines[10]]);
    let ip = lines[11].strip_suffix(&format!(" sessionId: {session}")).expect("the session");
    assert!(ip.starts_with("\tip: /127.0.0.1:"), "{said}");
    let all = [
        "SessionTracker dump:",
        "Session Sets (1)/(1):",
        rest[0],
        &id,
        "ephemeral nodes dump:",
        "Sessions with Ephemerals (1):",
        &format!("{session}:"),
        "\t/e",
        "Connections dump:",
        "Connections Sets (1)/(1):",
        rest[1],
        lines[11],
    ];
    assert_eq!(lines, all);
}

/// What other members say can be compared with it: the same transactions give the same.
#[test]
fn every_128th_transaction_has_the_digest_of_the_tree() {
    let dir = temp_dir();
    let server = Server::start(dir.path(), &[]);
    assert_eq!(word(&server, "hash"), "");
    let mut client = server.client();
    // The first transaction has opened the session.
    (2..=300).for_each(|n| create(&mut client, &format!("/n{n}"), b"data").unwrap());
    let said = word(&server, "hash");
    let lines: Vec<(&str, &str)> = said.lines().filter_map(|line| line.split_once(": ")).collect();
    assert_eq!(lines.iter().map(|line| line.0).collect::<Vec<_>>(), ["80", "100"], "{said}");
    assert!(lines.iter().all(|line| line.1.parse::<i64>().is_ok()) && lines[0].1 != lines[1].1, "{said}");
    drop(client);
    drop(server);
    let again = Server::start(dir.path(), &[]);
    assert_eq!(word(&again, "hash"), said, "it is known again from the log");
    let differences = word(&again, "mntr")
        .lines()
        .find_map(|line| line.strip_prefix("zk_digest_mismatches_count\t").map(str::to_owned));
    assert_eq!(differences.as_deref(), Some("0"));
}
