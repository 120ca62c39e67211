//! Where the time of a write goes, as a running server tells it: every write is in every stage, whichever core its connection
//! lives on, and the stages account for what the client waited.

#![expect(clippy::disallowed_methods, reason = "the test compares with its own clock")]

mod common;

use common::{PATIENCE, Server, temp_dir};
use corral_engine::histogram::Histogram;
use corral_net::client::four_letter_word;
use corral_proto::request::{Request, SetDataRequest};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Instant;

const STAGES: [&str; 7] = ["decode", "queue", "sequence", "log", "quorum", "apply", "reply"];
const WRITES: u64 = 200;

fn histograms(address: SocketAddr) -> BTreeMap<String, Histogram> {
    let said = four_letter_word(address, "hist", PATIENCE).unwrap();
    let line = |line: &str| {
        let (name, pairs) = line.split_once('\t').expect("a name and its pairs");
        (name.to_owned(), Histogram::parse(pairs).expect(pairs))
    };
    said.lines().map(line).collect()
}

fn stages_of_writes(settings: &[&str]) {
    let dir = temp_dir();
    let mut all = vec!["4lw.commands.whitelist=*"];
    all.extend(settings);
    let server = Server::start(dir.path(), &all);
    let mut client = server.client();
    let set = Request::SetData(SetDataRequest { path: "/", data: Some(&[7; 100]), version: -1 });
    client.request(&set).unwrap();
    let before = histograms(server.address);
    let begin = Instant::now();
    (0..WRITES).for_each(|_| drop(client.request(&set).unwrap()));
    let waited = begin.elapsed().as_nanos() as f64;
    // The reply counts once it was written, which its reader may hear of a moment earlier.
    let between = common::eventually("every answer to be counted", || {
        let after = histograms(server.address);
        let between: BTreeMap<_, _> = after.iter().map(|(name, it)| (name.as_str(), it.since(&before[name]))).collect();
        (between["zk_stage_reply_ns"].count() == WRITES).then(|| after.clone())
    });
    let between = |name: &str| between[name].since(&before[name]).summary();
    let mut inside = 0.0;
    for stage in STAGES {
        let stage = between(&format!("zk_stage_{stage}_ns"));
        assert_eq!(stage.count, WRITES, "{stage:?}");
        inside += stage.sum;
    }
    assert!(inside <= waited * 1.02, "the server had them for {inside} ns, the client waited for {waited} ns");
    let write = between("zk_log_write_ns");
    assert_eq!(write.count, WRITES);
    assert!(write.sum + between("zk_log_flush_ns").sum <= between("zk_stage_log_ns").sum * 1.02);
    let mntr = four_letter_word(server.address, "mntr", PATIENCE).unwrap();
    for key in ["zk_stage_sequence_us_p50\t", "zk_log_write_us_p99_9\t", "zk_log_batch_records_max\t1.0"] {
        assert!(mntr.contains(key), "{key} is missing:\n{mntr}");
    }
}

#[test]
fn every_write_is_in_every_stage() {
    stages_of_writes(&["coreThreads=1"]);
}

#[test]
fn a_write_from_another_core_is_in_every_stage_too() {
    stages_of_writes(&["coreThreads=2", "replica.ownCore=true"]);
}

#[test]
fn a_sync_of_its_own_is_counted_apart_from_the_write() {
    stages_of_writes(&["log.io=pwrite", "log.sync=fdatasync"]);
}
