//! Nothing acknowledged is lost, whatever happens to the process (R5), on real files with the real binary.
//!
//! **Not here**: what a power loss does to blocks in any order; the engine's own tests do that without a process.

mod common;

use common::{Server, create, get, overwrite, segments, set, temp_dir};
use corral_engine::txnlog::{Position, recover};
use corral_proto::request::{PathWatch, Request, SetDataRequest};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

fn snapshots(dir: &Path) -> usize {
    fs::read_dir(dir.join("corral-snapshots")).unwrap().count()
}

/// Where the log in a directory ends. Reading it does not disturb a running server.
fn end_of_log(dir: &Path) -> Position {
    recover(&dir.join("corral-log"), |_| ()).unwrap().end
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to.join("corral-log")).unwrap();
    for segment in segments(from) {
        fs::copy(&segment, to.join("corral-log").join(segment.file_name().unwrap())).unwrap();
    }
}

#[test]
fn a_last_write_that_is_cut_anywhere_is_there_as_a_whole_or_not_at_all() {
    let dir = temp_dir();
    let server = Server::start(dir.path(), &[]);
    let mut client = server.client();
    for n in 0..50 {
        create(&mut client, &format!("/n{n}"), format!("{n}").as_bytes()).unwrap();
    }
    let before = end_of_log(dir.path());
    let last = vec![0xa5; 30_000];
    create(&mut client, "/last", &last).unwrap();
    let after = end_of_log(dir.path());
    server.kill();
    assert!(before.segment == after.segment && after.offset - before.offset >= 30_000);
    for seed in 0..24 {
        let mut random = SmallRng::seed_from_u64(seed);
        let cut = random.random_range(before.offset..after.offset);
        let torn = temp_dir();
        copy(dir.path(), torn.path());
        let path = &segments(torn.path())[before.segment as usize - 1];
        let mut lost = vec![0; (after.offset - cut) as usize];
        if random.random() {
            random.fill(&mut lost[..]);
        }
        overwrite(path, cut.into(), &lost);
        // Twice: what recovery decided once, it decides again.
        for _ in 0..2 {
            let server = Server::start(torn.path(), &[]);
            let mut client = server.client();
            for n in 0..50 {
                assert_eq!(get(&mut client, &format!("/n{n}")), Some(format!("{n}").into()), "seed {seed}");
            }
            let found = get(&mut client, "/last");
            assert!(found.is_none() || found.as_ref() == Some(&last), "seed {seed}: half a write is served");
            server.kill();
        }
    }
}

/// Commits of one write of the disk, between two looks.
fn batch_size(server: &Server, load: impl FnOnce()) -> f64 {
    let look = || (server.metric("zk_log_records"), server.metric("zk_log_batches"));
    let before = look();
    load();
    let after = look();
    (after.0 - before.0) / (after.1 - before.1)
}

#[test]
fn commits_share_disk_writes_more_the_more_there_are() {
    let dir = temp_dir();
    let server = Server::start(dir.path(), &["preAllocSize=16384"]);
    let mut client = server.client();
    create(&mut client, "/x", b"").unwrap();
    let alone = batch_size(&server, || (0..100).for_each(|n| set(&mut client, "/x", &[n]).unwrap()));
    let together = batch_size(&server, || {
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    let requests = [Request::SetData(SetDataRequest { path: "/x", data: Some(b"y"), version: -1 }); 60];
                    let mut client = server.client();
                    for _ in 0..20 {
                        client.pipeline(&requests, |_, header, _| assert_eq!(header.error, 0)).unwrap();
                    }
                });
            }
        });
    });
    assert!(alone < 1.5, "one synchronous client: {alone} commits a write");
    assert!(together > 4.0 * alone, "{together} commits a write with 480 in flight, {alone} with one");
}

/// Snapshots are taken while writes go on; what they make needless goes, and a restart needs little of the log.
#[test]
fn old_snapshots_and_the_log_behind_them_go_and_nothing_else() {
    let dir = temp_dir();
    let settings = ["preAllocSize=64", "snapCount=100", "snapshot.compression=zstd"];
    let server = Server::start(dir.path(), &settings);
    let mut client = server.client();
    for n in 0..3000 {
        create(&mut client, &format!("/n{n}"), n.to_string().as_bytes()).unwrap();
    }
    let first = dir.path().join("corral-log/log-0000000001");
    common::eventually("the first segment is not needed any more", || {
        // Retention comes with a snapshot, and a snapshot with writes.
        set(&mut client, "/n0", b"0").unwrap();
        (!first.exists() && snapshots(dir.path()) <= 4).then_some(())
    });
    assert!(server.metric("zk_cnt_snapshottime") >= 3.0);
    server.kill();
    let server = Server::start(dir.path(), &settings);
    let replayed =
        server.banner.lines().find_map(|line| line.split_once('(')?.1.strip_suffix(" transactions replayed)"));
    let replayed: u64 = replayed.unwrap().parse().unwrap();
    assert!(replayed < 1500, "{replayed} transactions were replayed");
    let mut client = server.client();
    for n in 0..3000 {
        assert_eq!(get(&mut client, &format!("/n{n}")), Some(n.to_string().into()));
    }
}

/// A snapshot that does not check out is named and passed over; a log that cannot fill the gap is refused.
#[test]
fn a_damaged_snapshot_is_passed_over_if_an_older_one_and_the_log_suffice() {
    let dir = temp_dir();
    let settings = ["preAllocSize=64", "snapCount=100"];
    let server = Server::start(dir.path(), &settings);
    let mut client = server.client();
    for n in 0..1000 {
        create(&mut client, &format!("/n{n}"), b"x").unwrap();
    }
    common::eventually("three snapshots", || (server.metric("zk_cnt_snapshottime") >= 3.0).then_some(()));
    server.kill();
    let whole_snapshots = || corral_engine::snapshot::list(&dir.path().join("corral-snapshots")).unwrap();
    let damage = |path: &Path| {
        let mut bytes = fs::read(path).unwrap();
        bytes.truncate(bytes.len() - 1);
        fs::write(path, bytes).unwrap();
    };
    damage(&whole_snapshots()[0].1);
    let server = Server::start(dir.path(), &settings);
    let mut client = server.client();
    (0..1000).for_each(|n| assert!(get(&mut client, &format!("/n{n}")).is_some()));
    server.kill();
    let first = dir.path().join("corral-log/log-0000000001");
    if !first.exists() {
        whole_snapshots().iter().for_each(|(_, path)| damage(path));
        let (code, said) = common::run_to_end(dir.path(), &settings);
        assert_eq!(code, Some(3), "{said}");
    }
}

fn resident_bytes(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.split_whitespace().next().unwrap().parse::<u64>().unwrap() * 1024
}

/// Frames that are announced and never come, and answers that nobody reads, cost what was sent, not what was claimed.
#[test]
fn hostile_connections_cost_bounded_memory_and_disturb_nobody() {
    use std::io::Write;
    let dir = temp_dir();
    let server = Server::start(dir.path(), &["maxClientCnxns=0"]);
    let mut client = server.client();
    create(&mut client, "/big", &vec![1; 500_000]).unwrap();
    let before = resident_bytes(server.pid());
    let (stop, served) = (AtomicBool::new(false), AtomicU64::new(0));
    std::thread::scope(|scope| {
        let steady = scope.spawn(|| {
            let mut client = server.client();
            while !stop.load(Ordering::Relaxed) {
                set(&mut client, "/big", b"small").unwrap();
                set(&mut client, "/big", &vec![1; 500_000]).unwrap();
                served.fetch_add(2, Ordering::Relaxed);
            }
        });
        let mut held = Vec::new();
        for _ in 0..200 {
            let mut stream = std::net::TcpStream::connect(server.address).unwrap();
            stream.write_all(&1_000_000u32.to_be_bytes()).unwrap();
            stream.write_all(&[0; 5000]).unwrap();
            held.push(stream);
        }
        for _ in 0..4 {
            // Asks for 2,000 × 500 kB and reads nothing of it.
            let mut greedy = raw_session(&server);
            let mut requests = Vec::new();
            for xid in 0..2000 {
                corral_net::put_frame(&mut requests, |out| {
                    use corral_proto::Jute;
                    let op = corral_proto::OpCode::GetData.code();
                    corral_proto::RequestHeader { xid: corral_proto::Xid(xid), op }.encode(out);
                    Request::GetData(PathWatch { path: "/big", watch: false }).encode(out);
                });
            }
            greedy.write_all(&requests).unwrap();
            held.push(greedy);
        }
        // Others are served meanwhile, and by then the server has done for these what it will do.
        common::eventually("the steady client is served", || (served.load(Ordering::Relaxed) >= 40).then_some(()));
        let after = resident_bytes(server.pid());
        stop.store(true, Ordering::Relaxed);
        steady.join().unwrap();
        let grown = after.saturating_sub(before) >> 20;
        assert!(grown < 64, "grown by {grown} MiB");
    });
}

/// A raw connection with a session.
fn raw_session(server: &Server) -> std::net::TcpStream {
    use corral_proto::Jute;
    use std::io::{Read, Write};
    let mut stream = std::net::TcpStream::connect(server.address).unwrap();
    let mut hello = Vec::new();
    let request = corral_proto::ConnectRequest {
        protocol_version: 0,
        last_zxid_seen: corral_proto::Zxid::ZERO,
        timeout_ms: 30_000,
        session_id: corral_proto::SessionId::NONE,
        password: None,
        read_only: Some(false),
    };
    corral_net::put_frame(&mut hello, |out| request.encode(out));
    stream.write_all(&hello).unwrap();
    stream.read_exact(&mut [0; 41]).unwrap();
    stream
}
