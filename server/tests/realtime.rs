//! Real time: clients on every core read and write the same nodes, and what each was told is compared with when it was told.
//!
//! On one server all reads come from one tree, and a write is answered when it is in the tree. So nobody who asks later sees less: neither than
//! what was acknowledged before, nor than what anybody had read before (R1, R2). Two nodes that are only changed together are never seen apart
//! (R4).
//!
//! `CORRAL_REALTIME_OPS` makes it longer.
//!
//! **Not here**: crashes (`durability.rs`, `storm.rs`), several servers (`ensemble.rs`, and the simulator, which knows real time exactly).

#![expect(clippy::disallowed_methods, reason = "that clients are told things in time is what this is about")]

mod common;

use common::{Server, create, temp_dir};
use corral_net::client::BlockingClient;
use corral_proto::multi::{MultiReadRequest, ReadOp};
use corral_proto::request::{PathWatch, Request, SetDataRequest};
use corral_proto::response::Response;
use corral_proto::{MultiOp, MultiRequest, MultiResult};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use std::time::{Duration, Instant};

const KEYS: [&str; 3] = ["/a", "/b", "/c"];
/// Changed together.
const PAIR: [&str; 2] = ["/left", "/right"];
const WRITERS: usize = 4;
const READERS: usize = 6;

/// Somebody was told that a node has this version.
#[derive(Clone, Copy, Debug)]
struct Seen {
    asked: Duration,
    told: Duration,
    key: usize,
    version: i32,
}

fn ops() -> usize {
    std::env::var("CORRAL_REALTIME_OPS").ok().and_then(|ops| ops.parse().ok()).unwrap_or(2000)
}

struct Client {
    client: BlockingClient,
    random: SmallRng,
    begun: Instant,
    seen: Vec<Seen>,
}

impl Client {
    /// Asks for something about a key, and notes what version it was told.
    fn ask(&mut self, key: usize, request: &Request<'_>) {
        let asked = self.begun.elapsed();
        let version = match self.client.request(request).expect("it is answered") {
            Response::Data(_, stat) | Response::Stat(stat) => stat.version,
            other => panic!("{other:?}"),
        };
        self.seen.push(Seen { asked, told: self.begun.elapsed(), key, version });
    }

    fn write(&mut self) {
        let key = self.random.random_range(0..KEYS.len());
        if self.random.random_ratio(1, 4) {
            let mut raw = Vec::new();
            for path in PAIR {
                MultiOp::SetData(SetDataRequest { path, data: None, version: -1 }).encode_into(&mut raw);
            }
            self.client.request(&Request::Multi(MultiRequest::from_encoded(2, &raw))).expect("it is answered");
        } else {
            self.ask(key, &Request::SetData(SetDataRequest { path: KEYS[key], data: Some(b"x"), version: -1 }));
        }
    }

    fn read(&mut self) {
        let key = self.random.random_range(0..KEYS.len());
        let (path, watch) = (KEYS[key], self.random.random());
        match self.random.random_range(0..4) {
            0 => self.ask(key, &Request::Exists(PathWatch { path, watch })),
            1 => {
                let mut raw = Vec::new();
                PAIR.iter().for_each(|path| ReadOp::GetData(path).encode_into(&mut raw));
                let request = Request::MultiRead(MultiReadRequest::from_encoded(2, &raw));
                let Response::Multi(results) = self.client.request(&request).expect("it is answered") else {
                    panic!("of a multiRead");
                };
                let versions: Vec<i32> = results
                    .iter()
                    .map(|result| match result {
                        MultiResult::Data { stat, .. } => stat.version,
                        other => panic!("{other:?}"),
                    })
                    .collect();
                assert_eq!(versions[0], versions[1], "seen apart");
            }
            _ => self.ask(key, &Request::GetData(PathWatch { path, watch })),
        }
    }
}

/// Whoever was told before somebody asked has not seen more than that one.
fn check(mut seen: Vec<Seen>) {
    let mut told = seen.clone();
    told.sort_by_key(|seen| seen.told);
    seen.sort_by_key(|seen| seen.asked);
    let mut newest: [Option<Seen>; KEYS.len()] = [None; KEYS.len()];
    let mut told = told.into_iter().peekable();
    for one in seen {
        while let Some(before) = told.next_if(|before| before.told < one.asked) {
            let newest = &mut newest[before.key];
            *newest = newest.filter(|newest| newest.version >= before.version).or(Some(before));
        }
        if let Some(before) = newest[one.key] {
            assert!(one.version >= before.version, "{one:?} after {before:?}");
        }
    }
}

#[test]
fn nobody_who_asks_later_sees_less() {
    for settings in [&["coreThreads=3"][..], &["coreThreads=2", "replica.ownCore=true"], &["coreThreads=1"]] {
        let dir = temp_dir();
        let server = Server::start(dir.path(), settings);
        let mut maker = server.client();
        KEYS.iter().chain(&PAIR).for_each(|path| create(&mut maker, path, b"").expect("it is made"));
        let begun = Instant::now();
        let clients = (0..WRITERS + READERS).map(|number| Client {
            client: server.client(),
            random: SmallRng::seed_from_u64(number as u64),
            begun,
            seen: Vec::new(),
        });
        let clients: Vec<Client> = clients.collect();
        let seen = std::thread::scope(|scope| {
            let threads = clients.into_iter().enumerate().map(|(number, mut client)| {
                scope.spawn(move || {
                    (0..ops()).for_each(|_| if number < WRITERS { client.write() } else { client.read() });
                    client.seen
                })
            });
            let threads: Vec<_> = threads.collect();
            threads.into_iter().flat_map(|thread| thread.join().expect("it has seen nothing wrong")).collect::<Vec<_>>()
        });
        assert!(seen.len() > ops());
        check(seen);
    }
}

#[test]
fn a_read_that_goes_back_is_noticed() {
    let at = |asked, told, version| Seen {
        asked: Duration::from_millis(asked),
        told: Duration::from_millis(told),
        key: 0,
        version,
    };
    check(vec![at(0, 10, 1), at(5, 6, 0), at(11, 12, 1)]);
    let goes_back = std::panic::catch_unwind(|| check(vec![at(0, 10, 1), at(11, 12, 0)]));
    assert!(goes_back.is_err());
}
