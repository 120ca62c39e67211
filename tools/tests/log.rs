//! `corral-tool log ls` and `dump` on logs that the engine wrote, by running the real binary.
//!
//! **Not here**: broken logs (`log_damage.rs`).

mod common;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use common::*;
use corral_proto::{Txn, TxnEntry};
use serde_json::{Value, json};
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::Stdio;

/// One of everything in one batch, then a batch a transaction until there are three segments: 12 and 28 transactions.
fn sample(dir: &Path) -> Vec<Vec<u8>> {
    let mut batches = vec![everything()];
    batches.extend((13..=40).map(|zxid| vec![set(zxid, 3000)]));
    write_log(dir, &batches);
    batches.concat()
}

/// The words of the lines of a table.
fn table(text: &str) -> Vec<Vec<&str>> {
    text.lines().map(|line| line.split_whitespace().collect()).collect()
}

#[test]
fn ls_shows_every_segment_and_a_total() {
    let dir = tempdir();
    let records = sample(dir.path());
    let out = on("ls", dir.path(), &[]).fine();
    let rows = table(&out);
    assert_eq!(rows[0][0..3], ["SEGMENT", "FILE", "SIZE"]);
    assert_eq!(rows[1][0..3], ["1", "log-0000000001", "65536"]);
    assert_eq!(rows[1][4..8], ["15", "26", "0x1", "0x1a"]);
    assert_eq!(rows[1][8..], ["2026-11-21T23:34:18.121Z", "2026-11-21T23:34:18.146Z", "65536", "whole"]);
    assert_eq!(rows[2][4..8], ["14", "14", "0x1b", "0x28"]);
    assert_eq!(rows[2][10..], ["61440", "whole"]);
    assert_eq!(rows[3][4..], ["0", "0", "-", "-", "-", "-", "4096", "empty"]);
    let total = records.len().to_string();
    assert_eq!(rows[4][0..6], ["total", "3", "segments", "196608", "29", &total]);
    assert_eq!(rows.len(), 5);
    let salt = rows[1][3];
    assert!(salt.len() == 16 && salt != rows[2][3] && salt.chars().all(|digit| digit.is_ascii_hexdigit()));
}

#[test]
fn a_log_is_found_in_the_directory_of_a_server() {
    let data = tempdir();
    let dir = data.path().join("corral-log");
    fs::create_dir(&dir).unwrap();
    assert!(on("ls", data.path(), &[]).fine().contains("0 segments"));
    assert!(on("verify", data.path(), &[]).fine().contains("0 transactions"));
    sample(&dir);
    for what in ["ls", "verify", "dump"] {
        assert_eq!(on(what, data.path(), &[]).fine(), on(what, &dir, &[]).fine());
    }
}

#[test]
fn dump_prints_one_line_for_each_transaction_and_indents_the_parts_of_a_multi() {
    let dir = tempdir();
    sample(dir.path());
    let out = on("dump", dir.path(), &["--to", "12", "--data"]).fine();
    let lines: Vec<_> = out.lines().collect();
    let expected = [
        "createSession timeoutMs=10000 @1:4160",
        "create /a acl=world:anyone:cdrwa parentCversion=1 dataLength=5 data=\"hello\" @1:4204",
        "create2 /a/e1 acl=world:anyone:cdrwa,digest:\"a b:é\":r+0x40 ephemeral parentCversion=1 dataLength=0 data=\"\" @",
        "create /a/n-0000000006 acl=world:anyone:cdrwa sequence=6 parentCversion=7 dataLength=null @",
        "setData /a version=4 dataLength=7 data=\"\\x00\\xff\\\"\\n\\xe2\\x82\\xac\" @",
        "setAcl \"/a/white space\" version=1 acl=world:anyone:cdrwa,digest:\"a b:é\":r+0x40 @",
        "delete /a/é @",
        "error NodeExists (-110) @",
        "multi parts=3 @",
        "    check /a version=3",
        "    create /m/x acl=world:anyone:cdrwa parentCversion=1 dataLength=10 data=\"in a multi\"",
        "    delete /m/y",
        "multi parts=4 failed @",
        "    error Ok (0)",
        "    error NoNode (-101)",
        "    error RuntimeInconsistency (-2)",
        "    error unknown (-4242)",
        "closeSession ephemerals=2 /a/e1 /a/e2 @",
        "closeSession @",
    ];
    assert_eq!(lines.len(), expected.len(), "{out}");
    let mut zxid = 0;
    for (line, expected) in lines.iter().zip(expected) {
        if expected.starts_with(' ') {
            assert_eq!(*line, expected);
            continue;
        }
        zxid += 1;
        let head = format!("2026-11-21T23:34:18.{:03}Z {:<11} ", 120 + zxid, format!("{zxid:#x}"));
        let head = format!("{head}session=0x1000000000000001 cxid={zxid} {expected}");
        assert!(line.starts_with(&head), "{line}\n{head}");
    }
}

#[test]
fn dump_shows_data_only_on_demand() {
    let dir = tempdir();
    sample(dir.path());
    assert!(!on("dump", dir.path(), &[]).fine().contains("hello"));
    let out = on("dump", dir.path(), &["--json"]).fine();
    assert!(!out.contains("hello") && !out.contains("dataBase64") && out.contains("\"dataLength\":5"));
}

/// The facts of a transaction as the engine has them, in the shape of the tool's JSON.
fn facts(txn: &Txn<'_>) -> Value {
    let data = |data: Option<&[u8]>| (json!(data.map(<[u8]>::len)), json!(data.map(|data| STANDARD.encode(data))));
    match txn {
        Txn::Create(create) | Txn::Create2(create) | Txn::CreateContainer(create) | Txn::CreateTtl(create, _) => {
            let (len, base64) = data(create.data);
            json!({"path": create.path, "dataLength": len, "dataBase64": base64, "ephemeral": create.ephemeral,
                "parentCversion": create.parent_cversion, "acl": create.acl.iter().map(acl).collect::<Vec<_>>()})
        }
        Txn::Delete { path } | Txn::DeleteContainer { path } => json!({"path": path}),
        Txn::SetData { path, data: bytes, version } | Txn::Reconfig { path, data: bytes, version } => {
            let (len, base64) = data(*bytes);
            json!({"path": path, "dataLength": len, "dataBase64": base64, "version": version})
        }
        Txn::SetAcl { path, acl: list, version } => {
            json!({"path": path, "version": version, "acl": list.iter().map(acl).collect::<Vec<_>>()})
        }
        Txn::CreateSession { timeout_ms } => json!({"timeoutMs": timeout_ms}),
        Txn::CloseSession { paths } => json!({"paths": paths.map(|paths| paths.iter().collect::<Vec<_>>())}),
        Txn::Check(check) => json!({"path": check.path, "version": check.version}),
        Txn::Error(code) => json!({"code": code}),
        Txn::Multi(parts) => {
            json!({"failed": parts.failed(), "parts": parts.iter().map(|part| facts(&part)).collect::<Vec<_>>()})
        }
    }
}

fn acl(acl: corral_proto::Acl<'_>) -> Value {
    json!({"perms": acl.perms, "scheme": acl.scheme, "id": acl.id})
}

/// Every fact is in `found`, which may say more.
#[track_caller]
fn assert_says(found: &Value, facts: &Value) {
    match facts {
        Value::Object(fields) => fields.iter().for_each(|(name, fact)| assert_says(&found[name], fact)),
        Value::Array(items) => {
            assert_eq!(found.as_array().unwrap().len(), items.len());
            items.iter().zip(found.as_array().unwrap()).for_each(|(fact, found)| assert_says(found, fact));
        }
        fact => assert_eq!(found, fact),
    }
}

#[test]
fn json_has_one_object_a_line_with_the_same_facts() {
    let dir = tempdir();
    let records = sample(dir.path());
    let out = on("dump", dir.path(), &["--json", "--data"]).fine();
    let lines: Vec<Value> = out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), records.len());
    for (found, bytes) in lines.iter().zip(&records) {
        let TxnEntry { header, txn, .. } = TxnEntry::decode(bytes).unwrap();
        assert_eq!(found["zxid"], header.zxid.to_string());
        assert_eq!(found["session"], "0x1000000000000001");
        assert_eq!((&found["cxid"], &found["timeMs"]), (&json!(header.cxid.0), &json!(header.time_ms)));
        assert_eq!(found["time"], format!("2026-11-21T23:34:18.{:03}Z", header.time_ms % 1000));
        assert_says(found, &facts(&txn));
        // Where it lies can be looked up in the file: a head of eight bytes, then the record.
        let file = file(dir.path(), found["segment"].as_u64().unwrap() as u32);
        let at = found["offset"].as_u64().unwrap() as usize + 8;
        assert_eq!(&fs::read(file).unwrap()[at..at + bytes.len()], bytes);
    }
    let ops: Vec<_> = lines.iter().take(12).map(|line| line["op"].as_str().unwrap()).collect();
    let [session, create] = ["createSession", "create"];
    assert_eq!(ops[..4], [session, create, "create2", create]);
    assert_eq!(ops[4..8], ["setData", "setAcl", "delete", "error"]);
    assert_eq!(ops[8..], ["multi", "multi", "closeSession", "closeSession"]);
    assert_eq!(lines[3]["sequence"], 6);
    assert_eq!(lines[7]["error"], "NodeExists");
    assert_eq!(lines[8]["parts"][1]["op"], create);
}

/// The zxids that a dump prints.
fn zxids(dir: &Path, more: &[&str]) -> Vec<i64> {
    let out = on("dump", dir, &[&["--json"], more].concat()).fine();
    let zxid = |line: &str| {
        let line: Value = serde_json::from_str(line).unwrap();
        i64::from_str_radix(line["zxid"].as_str().unwrap().strip_prefix("0x").unwrap(), 16).unwrap()
    };
    out.lines().map(zxid).collect()
}

#[test]
fn dump_can_be_narrowed() {
    let dir = tempdir();
    sample(dir.path());
    let dir = dir.path();
    assert_eq!(zxids(dir, &["--from", "0x1a", "--to", "29"]), [26, 27, 28, 29]);
    assert!(zxids(dir, &["--from", "41"]).is_empty());
    assert_eq!(zxids(dir, &["--path", "/a/e"]), [3, 11]);
    assert_eq!(zxids(dir, &["--path", "/m"]), [9], "a part of a multi");
    assert_eq!(zxids(dir, &["--path", "/m", "--path", "/a/e"]), [3, 9, 11]);
    assert_eq!(zxids(dir, &["--op", "delete"]), [7, 9]);
    assert_eq!(zxids(dir, &["--op", "error", "--op", "createSession"]), [1, 8, 10]);
    assert_eq!(zxids(dir, &["--session", "0x1000000000000001", "--to", "2"]), [1, 2]);
    assert!(zxids(dir, &["--session", "7"]).is_empty());
    let since = ["--since", "2026-11-21T23:34:18.158Z", "--until"];
    assert_eq!(zxids(dir, &[&since[..], &["2026-11-22T00:34:18.159+01:00"]].concat()), [38, 39]);
    assert!(zxids(dir, &["--until", "2026-11-21"]).is_empty());
}

#[test]
fn dump_takes_segments_by_themselves() {
    let dir = tempdir();
    sample(dir.path());
    let [one, two] = [1, 2].map(|number| file(dir.path(), number));
    assert_eq!(zxids(&two, &[]), (27..=40).collect::<Vec<_>>());
    let copy = dir.path().join("a copy");
    fs::copy(&one, &copy).unwrap();
    assert_eq!(zxids(&copy, &[]), (1..=26).collect::<Vec<_>>());
    assert_eq!(zxids(&two, &[one.to_str().unwrap()]).len(), 40);
    // Behind a broken place, too: the notes say where, and what follows is printed.
    flip(&two, 4096 * 3 + 10);
    let run = on("dump", &two, &["--json"]);
    assert_eq!((run.code, run.out.lines().count()), (Some(0), 13));
    assert!(run.ends(0).contains("log-0000000002 offset 12288: the checksum of the batch header is wrong"));
}

#[test]
fn a_dump_that_nobody_reads_on_ends_quietly() {
    let dir = tempdir();
    let mut batches = vec![];
    // Far more than a pipe holds.
    batches.extend((1..=3000).map(|zxid| set(zxid, 500)));
    write_log(dir.path(), &batches.chunks(100).map(<[_]>::to_vec).collect::<Vec<_>>());
    let mut child = command()
        .args(["dump", "--data", dir.path().to_str().unwrap()])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut out = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    out.read_line(&mut line).unwrap();
    assert!(line.contains(" 0x1 "));
    drop(out);
    let mut err = String::new();
    child.stderr.take().unwrap().read_to_string(&mut err).unwrap();
    assert_eq!((child.wait().unwrap().code(), err.as_str()), (Some(0), ""));
}

#[test]
fn wrong_input_is_one_line_and_exit_code_2() {
    let dir = tempdir();
    let path = dir.path().to_str().unwrap();
    let (file, none) = (dir.path().join("file"), dir.path().join("none"));
    fs::write(&file, [b'x'; 10_000]).unwrap();
    let (file, none) = (file.to_str().unwrap(), none.to_str().unwrap());
    for (args, says) in [
        (vec!["ls", path], "there is no log here"),
        (vec!["ls", none], "no such directory"),
        (vec!["verify", file], "this is a file"),
        (vec!["dump", none], "no such file"),
        (vec!["dump", file], "this is not a segment of a Corral log"),
        (vec!["dump", path, file], "not both"),
        (vec!["dump", path, "--from", "0xg"], "not a zxid"),
        (vec!["dump", path, "--since", "noon"], "not a time"),
        (vec!["dump", path, "--op", "mkdir"], "mkdir"),
        (vec!["dump"], "required"),
        (vec!["repair", path], "--to"),
        (vec!["list", path], "list"),
    ] {
        let run = tool(&args);
        assert!(run.ends(2).contains(says), "{args:?}: {run:?}");
        assert_eq!(run.out, "");
    }
}

#[test]
fn help_is_there() {
    for args in [vec!["--help"], vec!["dump", "--help"], vec!["repair", "--help"]] {
        assert!(tool(&args).fine().contains("Usage: corral-tool log"));
    }
}
