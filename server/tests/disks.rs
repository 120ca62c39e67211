//! Real file systems of several kinds, full disks, and disks that fail, under the real server.
//!
//! **Not here**: what a disk may do to writes that were not synced, in all its variety (the engine's simulated disk).

mod common;
#[path = "common/image.rs"]
mod image;

use common::ensemble::{Ensemble, Kind, Writers};
use common::{Server, command_with_default_segments, create, eventually, get, run_to_end, segments, set, temp_dir};
use corral_engine::disk::{LogIo, LogSync, Mode};
use corral_net::client::BlockingClient;
use image::{Image, can_make, with_own_mounts};
use libtest_mimic::{Arguments, Trial};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

fn main() {
    let refused = with_own_mounts().err();
    let trial = |name: String, needs: &str, test: Box<dyn FnOnce() + Send>| {
        let missing = refused.clone().or_else(|| (!can_make(needs)).then(|| format!("needs mkfs.{needs}")));
        match missing {
            Some(why) => Trial::test(format!("{name} (ignored: {why})"), || Ok(())).with_ignored_flag(true),
            None => Trial::test(name, || {
                test();
                Ok(())
            }),
        }
    };
    let mut tests = vec![
        trial("a_full_log_disk_makes_writes_wait_and_loses_nothing".into(), "ext4", Box::new(full_log_disk)),
        trial("a_leader_whose_log_disk_is_full_hands_over".into(), "ext4", Box::new(full_disk_of_a_leader)),
        trial("a_leader_whose_log_disk_hangs_hands_over".into(), "ext4", Box::new(hanging_disk_of_a_leader)),
        trial("single_writes_do_not_fill_a_small_disk".into(), "ext4", Box::new(small_disk)),
        trial("blocks_that_direct_writes_cannot_have_are_refused".into(), "ext4", Box::new(small_blocks)),
        trial("a_full_data_disk_delays_snapshots_only".into(), "ext4", Box::new(full_data_disk)),
    ];
    tests.push(trial("what_goes_through_the_page_cache_is_not_called_direct".into(), "ext4", Box::new(not_direct)));
    for kind in ["ext4", "xfs", "btrfs"] {
        let test = Box::new(move || every_mode_works_or_is_refused(kind));
        tests.push(trial(format!("every_mode_works_on_{kind}_or_is_refused"), kind, test));
    }
    for (kind, settings) in [
        ("ext4", ["log.io=auto", "log.sync=auto"]),
        ("ext4", ["log.io=pwrite", "log.sync=fdatasync"]),
        ("xfs", ["log.io=auto", "log.sync=auto"]),
        ("xfs", ["log.io=uring-buffered", "log.sync=fsync"]),
    ] {
        let name = format!("{kind}_that_fails_under_{}_stops_the_server_and_loses_nothing", settings.join("_"));
        tests.push(trial(name, kind, Box::new(move || failing_disk(kind, &settings))));
    }
    libtest_mimic::run(&Arguments::from_args(), tests).exit();
}

/// Sets `/value` to 1, 2, 3… until the server does not answer any more; `acknowledged` is the newest that it answered.
fn count_up(mut client: BlockingClient, acknowledged: &AtomicU64) {
    let padding = "x".repeat(5_000);
    for n in acknowledged.load(Ordering::SeqCst) + 1.. {
        if set(&mut client, "/value", format!("{n} {padding}").as_bytes()).is_err() {
            return;
        }
        acknowledged.store(n, Ordering::SeqCst);
    }
}

fn value(client: &mut BlockingClient) -> u64 {
    let value = String::from_utf8(get(client, "/value").expect("made first")).expect("text");
    value.split(' ').next().expect("a number and padding").parse().expect("a number")
}

fn full_log_disk() {
    let (image, data) = (Image::new("ext4", 64), temp_dir());
    let log_dir = format!("dataLogDir={}", image.path().display());
    let settings = [log_dir.as_str(), "preAllocSize=4096", "snapCount=1000000", "snapSizeLimitInKb=0"];
    let acknowledged = AtomicU64::new(0);
    let mut server = Server::start(data.path(), &settings);
    create(&mut server.client(), "/value", b"0 ").unwrap();
    for life in 0..2 {
        let mut reader = server.client();
        std::thread::scope(|scope| {
            let client = server.client();
            scope.spawn(|| count_up(client, &acknowledged));
            let begun = acknowledged.load(Ordering::SeqCst);
            eventually("writes are answered", || (acknowledged.load(Ordering::SeqCst) > begun + 100).then_some(()));
            let ballast = image.fill(1 << 20);
            eventually("the server says that the room comes to its end", || {
                server.said().contains("the log has room for only").then_some(())
            });
            eventually("writes wait", || {
                (server.metric("zk_log_segment_waits") > 0.0 && server.said().contains("writes wait")).then_some(())
            });
            let stuck = acknowledged.load(Ordering::SeqCst);
            assert!((stuck..=stuck + 1).contains(&value(&mut reader)), "reads go on");
            assert!(server.metric("zk_log_segment_failures") > 0.0);
            assert!(server.metric("zk_log_bytes_left") < 5_000.0 + 4096.0);
            if life == 0 {
                std::fs::remove_file(&ballast).unwrap();
                eventually("writes go on by themselves", || {
                    (acknowledged.load(Ordering::SeqCst) > stuck + 1000).then_some(())
                });
                eventually("and the server says so", || server.said().contains("can be made again").then_some(()));
                assert!(
                    server.said().matches("writes wait").count() == 1,
                    "said once, not each second: {}",
                    server.said()
                );
            }
            common::signal(server.pid(), libc::SIGKILL);
        });
        let _ = std::fs::remove_file(image.path().join("ballast"));
        server = Server::start(data.path(), &settings);
        let (found, promised) = (value(&mut server.client()), acknowledged.load(Ordering::SeqCst));
        assert!((promised..=promised + 1).contains(&found), "{found} is there, {promised} was acknowledged");
        acknowledged.store(found, Ordering::SeqCst);
    }
}

/// Three members, each with a disk of its own for its log.
fn on_small_disks() -> (Vec<Image>, Ensemble) {
    let images: Vec<Image> = (0..3).map(|_| Image::new("ext4", 64)).collect();
    let mut ensemble = Ensemble::new(3, 0);
    ensemble.set("snapCount=1000000\nsnapSizeLimitInKb=0");
    for (id, image) in (1..).zip(&images) {
        ensemble.set_of(id, &format!("dataLogDir={}", image.path().display()));
    }
    ensemble.start_all(&Kind::Corral);
    (images, ensemble)
}

/// Waits until another member leads, and clients write again.
fn await_handover(ensemble: &Ensemble, from: usize, writers: &Writers) {
    let others: Vec<usize> = (1..=3).filter(|id| *id != from).collect();
    eventually("another leads", || others.iter().find(|id| ensemble.mode(**id).as_deref() == Some("leader")));
    writers.await_more(200);
}

fn full_disk_of_a_leader() {
    let (images, mut ensemble) = on_small_disks();
    let writers = Writers::start(&ensemble.addresses(), 3);
    writers.await_more(100);
    let full = ensemble.leader();
    let ballast = images[full - 1].fill(1 << 20);
    await_handover(&ensemble, full, &writers);
    let said = ensemble.said(full);
    assert!(said.contains("the disk of its log is full") && said.contains("syncLimit"), "{said}");
    // After a restart of all, it is not elected again.
    (1..=3).for_each(|id| ensemble.kill(id));
    (1..=3).for_each(|id| ensemble.start(id, &Kind::Corral));
    writers.await_more(200);
    assert_ne!(ensemble.leader(), full);
    std::fs::remove_file(ballast).unwrap();
    ensemble.await_serving(full);
    ensemble.check(&writers.finish());
}

fn hanging_disk_of_a_leader() {
    let (images, ensemble) = on_small_disks();
    let writers = Writers::start(&ensemble.addresses(), 3);
    writers.await_more(100);
    let hanging = ensemble.leader();
    images[hanging - 1].freeze();
    await_handover(&ensemble, hanging, &writers);
    images[hanging - 1].thaw();
    ensemble.await_serving(hanging);
    let said = ensemble.said(hanging);
    assert!(said.contains("the disk of its log hangs"), "{said}");
    ensemble.check(&writers.finish());
}

/// With its data in the journal, ext4 takes O_DIRECT and writes through the page cache; so does a file system in memory.
fn not_direct() {
    let image = Image::new("ext4", 64);
    image.unmount();
    image.mount_with("loop,data=journal");
    let memory = temp_dir();
    let mounted = std::process::Command::new("mount").args(["-t", "tmpfs", "tmpfs"]).arg(memory.path()).status();
    assert!(mounted.unwrap().success());
    for place in [image.path(), memory.path()] {
        let server = Server::start(&place.join("auto"), &["preAllocSize=64"]);
        assert!(server.banner.contains("pwrite") && server.banner.contains("page cache"), "{}", server.banner);
        let (code, said) = run_to_end(&place.join("direct"), &["log.io=uring-direct"]);
        assert!(code == Some(3) && said.contains("page cache"), "{said}");
    }
    assert!(std::process::Command::new("umount").arg("--lazy").arg(memory.path()).status().unwrap().success());
}

/// With the default sizes: a snapshot is due before the log has filled the disk, and what is not needed any more goes.
fn small_disk() {
    let image = Image::new("ext4", 64);
    let server = Server::run(command_with_default_segments(image.path(), &["log.blockBytes=4096"]));
    let mut client = server.client();
    create(&mut client, "/value", b"").unwrap();
    // Two blocks each: a half more than the disk has room for.
    let data = [7; 5000];
    (0..12_000).for_each(|n| set(&mut client, "/value", &data).unwrap_or_else(|error| panic!("write {n}: {error}")));
    assert!(server.metric("zk_log_written_bytes") > 96e6 && server.metric("zk_log_segment_failures") == 0.0);
}

/// A device takes nothing smaller than its sectors. (The file system is large enough to have blocks of that size.)
fn small_blocks() {
    let image = Image::new("ext4", 640);
    image.unmount();
    image.mount_with_sectors(4096);
    let (code, said) = run_to_end(&image.path().join("small"), &["log.io=uring-direct", "log.blockBytes=512"]);
    assert!(code == Some(3) && said.contains("log.blockBytes=512 is less than the 4096 B"), "{said}");
    let server = Server::start(&image.path().join("auto"), &[]);
    assert!(server.banner.contains("blocks of 4096 B: "), "{}", server.banner);
}

fn full_data_disk() {
    let (image, log) = (Image::new("ext4", 32), temp_dir());
    let log_dir = format!("dataLogDir={}", log.path().display());
    let server = Server::start(image.path(), &[&log_dir, "preAllocSize=64", "snapCount=100"]);
    let mut client = server.client();
    let ballast = image.fill(0);
    let payload = vec![7; 10_000];
    (0..300).for_each(|n| create(&mut client, &format!("/n{n}"), &payload).unwrap());
    let failures = || server.metric("zk_snapshot_failures");
    eventually("a snapshot fails", || (failures() > 0.0).then_some(()));
    let snapshots = || std::fs::read_dir(image.path().join("corral-snapshots")).unwrap().count();
    let said = server.said();
    assert!(said.contains("no snapshot was taken") && said.contains(image.path().to_str().unwrap()), "{said}");
    assert!(log.path().join("corral-log/log-0000000001").exists(), "the log is kept");
    eventually("it is tried again without a write", || (failures() > 1.0).then_some(()));
    eventually("nothing half-written stays", || (snapshots() == 0).then_some(()));
    std::fs::remove_file(ballast).unwrap();
    eventually("a snapshot is taken once there is room", || (server.metric("zk_cnt_snapshottime") > 0.0).then_some(()));
    assert_eq!(snapshots(), 1);
}

/// Writes over switches of segments and over snapshots, kills the server, and finds everything again.
fn write_and_find_again(dir: &Path, settings: &[&str]) -> String {
    let payload = |n: u32| format!("{n}").repeat(200).into_bytes();
    let server = Server::start(dir, settings);
    let mut client = server.client();
    (0..200).for_each(|n| create(&mut client, &format!("/n{n}"), &payload(n)).unwrap());
    let banner = server.banner.clone();
    server.kill();
    let server = Server::start(dir, settings);
    let mut client = server.client();
    (0..200).for_each(|n| assert_eq!(get(&mut client, &format!("/n{n}")), Some(payload(n)), "{settings:?}"));
    banner
}

fn every_mode_works_or_is_refused(kind: &str) {
    // The smallest that mkfs.xfs makes.
    let image = Image::new(kind, 320);
    let mut worked = 0;
    let ios = [None, Some(LogIo::UringDirect), Some(LogIo::UringBuffered), Some(LogIo::Pwrite)];
    let syncs = [None, Some(LogSync::Dsync), Some(LogSync::Fdatasync), Some(LogSync::Fsync), Some(LogSync::None)];
    let name = |wish: Option<&dyn std::fmt::Display>| wish.map_or("auto".to_owned(), |wish| wish.to_string());
    for wished in ios {
        for sync_wished in syncs {
            let io = name(wished.as_ref().map(|io| io as _));
            let sync = name(sync_wished.as_ref().map(|sync| sync as _));
            let dir = image.path().join(format!("{io}-{sync}"));
            let settings = [format!("log.io={io}"), format!("log.sync={sync}")];
            let settings = [&settings[0], &settings[1], "preAllocSize=64", "snapCount=100"];
            if let Err(why) = Mode::choose(image.path(), wished, sync_wished, None) {
                let (code, said) = run_to_end(&dir, &settings);
                assert!(code == Some(3) && said.contains(&format!("log.io={io}")), "{why}: {said}");
                continue;
            }
            let banner = write_and_find_again(&dir, &settings);
            assert!(banner.contains(kind), "{banner}");
            let named = |word: &str, chosen: &str| chosen == "auto" || banner.contains(word) && banner.contains(chosen);
            assert!(named("log mode", &io) && named("log mode", &sync), "{banner}");
            worked += 1;
        }
    }
    assert!(worked >= 10, "auto and pwrite work everywhere");
}

fn failing_disk(kind: &str, settings: &[&str; 2]) {
    let image = Image::new(kind, 320);
    let settings = [settings[0], settings[1], "preAllocSize=256", "snapCount=200"];
    let acknowledged = AtomicU64::new(0);
    for round in 1..=4 {
        let mut server = Server::start(image.path(), &settings);
        let mut client = server.client();
        if round == 1 {
            create(&mut client, "/value", b"0 ").unwrap();
        }
        let (found, promised) = (value(&mut client), acknowledged.load(Ordering::SeqCst));
        assert!((promised..=promised + 1).contains(&found), "{found} is there, {promised} was acknowledged");
        acknowledged.store(found, Ordering::SeqCst);
        std::thread::scope(|scope| {
            scope.spawn(|| count_up(client, &acknowledged));
            eventually("writes are answered", || {
                (acknowledged.load(Ordering::SeqCst) > found + 300 * round).then_some(())
            });
            image.fail();
        });
        let status = server.wait();
        assert_eq!(status.code(), Some(1), "{}", server.said());
        let said = server.said();
        let last = said.lines().last().unwrap();
        assert!(last.starts_with("corral-server: ") && last.contains("log-0") && last.contains("os error 5"), "{said}");
        drop(server);
        image.unmount();
        image.mount();
    }
    assert!(!segments(image.path()).is_empty());
}
