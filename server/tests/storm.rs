//! Kill -9 at any moment, over and over, across switches of segments and snapshots: after each, every node is what the model of
//! its writer says, in every field, in what is restored from the files and in what is served.
//!
//! `CORRAL_STORM_ROUNDS` makes it longer, `CORRAL_STORM_SEED` another.
//!
//! **Not here**: what a power loss does to blocks that were not synced (`disks.rs`, and the engine's simulated disk).

#![expect(clippy::disallowed_methods, reason = "the test's killer needs a clock")]

mod common;
#[path = "common/model.rs"]
mod model;

use common::{PATIENCE, Server, create, temp_dir};
use corral_engine::restore::restore;
use corral_net::client::{BlockingClient, ClientError, Session};
use model::{Nodes, Op, after, ask, choose, restored, served, without_zxids};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use std::net::SocketAddr;
use std::time::Duration;

const WRITERS: usize = 4;
/// Small segments and frequent snapshots, so that every kill is near a switch or a snapshot.
const SETTINGS: [&str; 4] = ["preAllocSize=64", "snapCount=100", "maxSessionTimeout=600000", "tickTime=2000"];
/// Sessions outlive the servers of some rounds.
const SESSION: Duration = Duration::from_secs(600);

/// One client, and what it knows of its part of the tree.
struct Writer {
    root: String,
    nodes: Nodes,
    /// Asked for, never answered.
    pending: Option<Op>,
    session: Session,
    random: SmallRng,
    written: u64,
}

impl Writer {
    /// Writes as fast as answers come until the server is gone.
    fn write(&mut self, address: SocketAddr) {
        while let Some(mut client) = self.connect(address) {
            loop {
                let op = choose(&self.nodes, &mut self.random);
                let answer = match ask(&mut client, &op) {
                    Ok(answer) => answer,
                    Err(_) => {
                        self.pending = Some(op);
                        return;
                    }
                };
                let zxid = answer.unwrap_or_default();
                let next = after(&self.nodes, &op, self.session.id, zxid);
                assert_eq!(next.is_some(), answer.is_some(), "{op:?} is granted or refused as the model says");
                self.nodes = next.unwrap_or(std::mem::take(&mut self.nodes));
                self.written += u64::from(answer.is_some());
                if matches!(op, Op::CloseSession) {
                    self.session = Session::new(SESSION);
                    break;
                }
                self.session = client.session();
            }
        }
    }

    /// `None` if the server is gone.
    fn connect(&mut self, address: SocketAddr) -> Option<BlockingClient> {
        let client = match BlockingClient::connect(address, self.session, PATIENCE) {
            Err(ClientError::SessionExpired { .. }) => panic!("a session that was not closed goes on"),
            other => other.ok()?,
        };
        self.session = client.session();
        Some(client)
    }

    /// What is there after a kill must be what was promised, with or without the write that was on its way.
    fn judge(&mut self, found: Nodes) {
        if found != self.nodes {
            let op =
                self.pending.take().unwrap_or_else(|| panic!("{}: {found:#?} is not {:#?}", self.root, self.nodes));
            let session = self.session.id;
            let expected = after(&self.nodes, &op, session, Default::default());
            let same = expected.is_some_and(|nodes| without_zxids(&nodes) == without_zxids(&found));
            assert!(same, "{}: {found:#?} is neither {:#?} nor that after {op:?}", self.root, self.nodes);
            if matches!(op, Op::CloseSession) {
                self.session = Session::new(SESSION);
            }
            self.nodes = found;
        }
        // A session that owned nothing was closed, or was not: nobody can tell from the tree.
        if matches!(self.pending.take(), Some(Op::CloseSession)) {
            self.session = Session::new(SESSION);
        }
    }
}

fn from_environment(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{name} is a number")))
}

#[test]
fn after_every_kill_the_tree_is_the_one_of_the_model() {
    let rounds = from_environment("CORRAL_STORM_ROUNDS", 20);
    let seed = from_environment("CORRAL_STORM_SEED", 1);
    let mut random = SmallRng::seed_from_u64(seed);
    let dir = temp_dir();
    let writer = |n: usize| Writer {
        root: format!("/w{n}"),
        nodes: Nodes::new(),
        pending: None,
        session: Session::new(SESSION),
        random: SmallRng::seed_from_u64(seed * 1000 + n as u64),
        written: 0,
    };
    let mut writers: Vec<Writer> = (0..WRITERS).map(writer).collect();
    let (mut snapshots, mut segments) = (0.0, 0.0);
    for round in 0..=rounds {
        let server = Server::start(dir.path(), &SETTINGS);
        let mut client = server.client();
        for writer in &mut writers {
            if round == 0 {
                create(&mut client, &writer.root, b"").unwrap();
                writer.nodes = served(&mut client, &writer.root);
            }
            assert_eq!(served(&mut client, &writer.root), writer.nodes, "what is served is what was restored");
        }
        if round == rounds {
            break;
        }
        let lives = Duration::from_micros(random.random_range(1_000..200_000));
        std::thread::scope(|scope| {
            for writer in &mut writers {
                let address = server.address;
                scope.spawn(move || writer.write(address));
            }
            std::thread::sleep(lives);
            if round % 4 == 0 {
                snapshots += server.metric("zk_cnt_snapshottime");
                segments += server.metric("zk_log_segments");
            }
            common::signal(server.pid(), libc::SIGKILL);
        });
        server.kill();
        let restored_tree =
            restore(&dir.path().join("corral-snapshots"), &dir.path().join("corral-log"), round, |_| ()).unwrap();
        for writer in &mut writers {
            writer.judge(restored(&restored_tree.tree, &writer.root));
        }
    }
    let written: u64 = writers.iter().map(|writer| writer.written).sum();
    println!("{rounds} rounds, {written} writes granted");
    assert!(written > rounds * WRITERS as u64, "the storm wrote something");
    assert!(
        snapshots > 0.0 && segments > rounds as f64 / 4.0,
        "it went over {snapshots} snapshots, {segments} segments"
    );
}
