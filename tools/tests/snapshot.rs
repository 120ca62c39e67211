//! `corral-tool snapshot` on snapshots that the engine's writer took of a tree that its log's transactions built, by running the
//! real binary.

mod common;

use common::*;
use corral_engine::Tree;
use corral_engine::snapshot::format::Compression;
use corral_engine::snapshot::writer::{SnapshotOptions, take};
use corral_proto::txn::CreateTxn;
use corral_proto::{AclList, Txn, TxnEntry};
use parking_lot::RwLock;
use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::AtomicBool;

fn snapshot(arguments: &[&str]) -> Run {
    common::run(Command::new(env!("CARGO_BIN_EXE_corral-tool")).arg("snapshot").args(arguments))
}

fn create(zxid: i64, path: &str, data: &[u8], ephemeral: bool, nth: i32) -> Vec<u8> {
    let create = CreateTxn { path, data: Some(data), acl: AclList::OPEN, ephemeral, parent_cversion: nth };
    txn(zxid, Txn::Create(create))
}

/// A session, `/a` with two children of which one is ephemeral, and a name that needs quotes.
fn history() -> Vec<Vec<u8>> {
    vec![
        txn(1, Txn::CreateSession { timeout_ms: 10_000 }),
        create(2, "/a", b"hello", false, 1),
        create(3, "/a/b", &[7; 3000], false, 1),
        create(4, "/a/e", b"", true, 2),
        create(5, "/two words", b"\0\n", false, 2),
    ]
}

fn tree(transactions: &[Vec<u8>]) -> Tree {
    let mut tree = Tree::new(1);
    transactions.iter().for_each(|bytes| drop(tree.apply(&TxnEntry::decode(bytes).unwrap(), None)));
    tree
}

fn write(dir: &Path, transactions: &[Vec<u8>], compression: Compression) -> PathBuf {
    let options =
        SnapshotOptions { files: corral_engine::disk::files::real(), dir: dir.to_owned(), compression, rate_limit: 0 };
    let tree = RwLock::new(tree(transactions));
    take(&options, &tree, EPOCH_MS, &AtomicBool::new(false)).unwrap().unwrap().path
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[test]
fn ls_and_verify_show_each_snapshot_newest_first_also_in_the_directory_of_a_server() {
    let data = tempdir();
    let dir = data.path().join("corral-snapshots");
    fs::create_dir(&dir).unwrap();
    let old = write(&dir, &history()[..3], Compression::Zstd);
    let new = write(&dir, &history(), Compression::Lz4);
    let out = snapshot(&["ls", text(data.path())]).fine();
    let rows: Vec<Vec<&str>> = out.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(rows.len(), 3, "{out}");
    // The root and its own /zookeeper nodes come with every tree.
    let base = tree(&[]).len();
    assert_eq!(rows[1][2..], [&(base + 4).to_string(), "1", "0x5..0x5", "lz4", "2026-11-21T23:34:18.120Z", "whole"]);
    assert_eq!(rows[2][2..6], [&(base + 2).to_string(), "1", "0x3..0x3", "zstd"]);
    let out = snapshot(&["verify", text(&dir)]).fine();
    assert!(out.lines().next().unwrap().starts_with(text(&new)) && out.contains("transactions up to 0x5"), "{out}");

    let end = fs::metadata(&new).unwrap().len();
    flip(&new, end / 2);
    let run = snapshot(&["verify", text(&dir)]);
    assert!(run.ends(1).contains("1 of 2 snapshots"), "{run:?}");
    assert!(run.out.contains(text(&new)) && run.out.contains("offset"), "{run:?}");
    assert!(snapshot(&["ls", text(&dir)]).fine().contains("damaged at "));
    flip(&old, 40);
    assert!(snapshot(&["verify", text(&dir)]).ends(1).contains("any of them"));
}

#[test]
fn dump_says_the_same_as_text_and_as_json() {
    let dir = tempdir();
    let file = write(dir.path(), &history(), Compression::None);
    let plain = snapshot(&["dump", text(&file)]).fine();
    assert!(plain.contains(&format!("session {SESSION} timeout=10000ms\n")), "{plain}");
    let line = plain.lines().find(|line| line.starts_with("/a/e ")).unwrap();
    assert!(
        line.contains(&format!("ephemeralOwner={SESSION}")) && line.ends_with("acl=world:anyone:cdrwa dataLength=0")
    );
    assert!(plain.lines().any(|line| line.starts_with("\"/two words\" ")), "{plain}");
    let data = snapshot(&["dump", text(&file), "--data", "--path", "/a", "--path", "/two words"]).fine();
    assert!(data.contains("dataLength=5 data=\"hello\"") && data.contains("data=\"\\x00\\n\""), "{data}");
    assert_eq!(data.lines().count(), 4, "only what was asked for: {data}");
    let lines = snapshot(&["dump", text(&file), "--json", "--data"]).fine();
    let values: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(values.len(), plain.lines().count());
    let a = values.iter().find(|value| value["path"] == "/a").unwrap();
    assert_eq!((&a["dataBase64"], &a["mzxid"], &a["created"]), (&json!("aGVsbG8="), &json!("0x2"), &json!(2)));
}

#[test]
fn a_dump_of_a_damaged_snapshot_says_that_it_is_a_part() {
    let dir = tempdir();
    let file = write(dir.path(), &history(), Compression::None);
    let end = fs::metadata(&file).unwrap().len();
    flip(&file, end - 1);
    let run = snapshot(&["dump", text(&file)]);
    assert!(run.ends(1).contains("a part of the snapshot") && run.out.contains("/a/b "), "{run:?}");
}

#[test]
fn stat_counts_by_subtree_and_names_the_largest() {
    let dir = tempdir();
    let file = write(dir.path(), &history(), Compression::Zstd);
    let out = snapshot(&["stat", text(&file), "--depth", "1", "--top", "3"]).fine();
    let rows: Vec<Vec<&str>> = out.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(rows[1][1..], ["1", "3007", rows[1][3], "/"], "{out}");
    assert_eq!(rows[2], ["3", "1", "3005", "10", "/a"], "{out}");
    let largest = out.split("LARGEST NODES").nth(1).unwrap();
    assert_eq!(largest.lines().nth(1).unwrap().split_whitespace().collect::<Vec<_>>(), ["3000", "/a/b"]);
    assert_eq!(largest.lines().count(), 4, "{out}");
}

#[test]
fn diff_names_what_differs_and_a_log_brings_both_to_one_state() {
    let (dir, log) = (tempdir(), tempdir());
    let mut changed = history();
    changed.extend([set(6, 10), txn(7, Txn::Delete { path: "/a/b" }), create(8, "/c", b"new", false, 3)]);
    let old = write(dir.path(), &history(), Compression::None);
    let new = write(dir.path(), &changed, Compression::Lz4);
    assert_eq!(snapshot(&["diff", text(&old), text(&old)]).fine(), "");
    let run = snapshot(&["diff", text(&old), text(&new)]);
    assert!(run.ends(1).contains("1 only in A, 1 only in B, 2 changed"), "{run:?}");
    let lines: Vec<&str> = run.out.lines().collect();
    assert!(lines[0].starts_with("~ / created: 2 -> 3") && lines[1].starts_with("~ /a "), "{lines:?}");
    assert!(lines[1].contains("dataLength: 5 -> 10") && lines[1].contains("mzxid: \"0x2\" -> \"0x6\""), "{lines:?}");
    assert_eq!(lines[2..], ["- /a/b", "+ /c"]);
    let json = snapshot(&["diff", "--json", text(&old), text(&new)]).out;
    let first: Value = serde_json::from_str(json.lines().next().unwrap()).unwrap();
    assert_eq!((&first["name"], &first["fields"]["created"]), (&json!("/"), &json!({"a": 2, "b": 3})));

    write_log(log.path(), &[changed]);
    assert_eq!(snapshot(&["diff", "--log", text(log.path()), text(&old), text(&new)]).fine(), "");
    let verified = snapshot(&["verify", "--log", text(log.path()), text(dir.path())]).fine();
    assert_eq!(verified.matches("a server restores").count(), 2, "{verified}");
}

#[test]
fn what_is_no_snapshot_is_refused_in_one_line() {
    let dir = tempdir();
    let (apache, other) = (dir.path().join("snapshot.1"), dir.path().join("other"));
    fs::write(&apache, b"ZKSN\0\0\0\x02 and so on").unwrap();
    fs::write(&other, b"x").unwrap();
    for what in ["dump", "stat", "verify", "ls"] {
        assert!(snapshot(&[what, text(&apache)]).ends(2).contains("Apache"), "{what}");
        assert!(snapshot(&[what, text(&other)]).ends(2).contains("not a Corral snapshot"), "{what}");
        assert!(snapshot(&[what, "/no/such/file"]).ends(2).contains("/no/such/file"), "{what}");
    }
    assert!(snapshot(&["dump", text(dir.path())]).ends(2).contains("directory"));
    assert!(snapshot(&["verify", text(dir.path())]).ends(2).contains("no snapshot"));
    let good = write(dir.path(), &history(), Compression::None);
    assert_eq!(snapshot(&["diff", text(&good), text(&other)]).code, Some(2), "2 is not 1: it cannot be said");
    let segment = tempdir();
    write_log(segment.path(), &[history()]);
    let run = snapshot(&["dump", text(&file(segment.path(), 1))]);
    assert!(run.ends(2).contains("snapshot"), "{run:?}");
}
