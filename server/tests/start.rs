//! Starting and stopping: what an operator sees, also when something is wrong. Every refusal is one line and has its exit code.

mod common;

use common::{PATIENCE, Server, command, create, eventually, run_to_end, segments, temp_dir, wait};
use corral_net::client::four_letter_word;
use corral_proto::request::{PathWatch, Request};
use std::fs;

fn refused(dir: &std::path::Path, settings: &[&str], code: i32, words: &[&str]) {
    let (status, said) = run_to_end(dir, settings);
    assert_eq!(status, Some(code), "{said}");
    let last = said.lines().last().unwrap_or_default();
    assert!(last.starts_with("corral-server: "), "{said}");
    for word in words {
        assert!(last.contains(word), "{word:?} is missing: {said}");
    }
}

#[test]
fn the_banner_says_what_runs_where_and_how_it_is_kept() {
    let dir = temp_dir();
    let server = Server::start(dir.path(), &[]);
    for word in ["Corral", "serving", "standalone", "data ", "log ", "log mode", " on ", "tree"] {
        assert!(server.banner.contains(word), "{word:?} is missing:\n{}", server.banner);
    }
    assert!(server.banner.lines().count() <= 24, "it fits on a screen");
}

#[test]
fn a_wrong_configuration_is_one_line_and_exit_code_2() {
    let dir = temp_dir();
    refused(dir.path(), &["clientPrt=1"], 2, &["clientPrt", "clientPort"]);
    refused(dir.path(), &["tickTime=soon"], 2, &["tickTime", "soon"]);
    refused(dir.path(), &["log.io=paper"], 2, &["log.io", "uring-direct"]);
    let missing = dir.path().join("no.cfg");
    let mut child = std::process::Command::new(env!("CARGO_BIN_EXE_corral-server"))
        .arg("--config")
        .arg(&missing)
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    assert_eq!(wait(&mut child).code(), Some(2));
}

/// What Apache's own distribution ships as `zoo_sample.cfg`, with keys whose function does not exist here yet.
#[test]
fn a_configuration_as_apache_writes_it_is_accepted_with_one_warning() {
    let dir = temp_dir();
    let config = dir.path().join("zoo.cfg");
    let text = format!(
        "# The number of milliseconds of each tick\ntickTime=2000\ninitLimit=10\nsyncLimit=5\ndataDir={}\nclientPort=0\n\
         clientPortAddress=127.0.0.1\nautopurge.snapRetainCount=3\nautopurge.purgeInterval=1\naudit.enable=true\n\
         txnLogSizeLimitInKb=1000\n",
        dir.path().join("data").display()
    );
    fs::write(&config, text).unwrap();
    let mut child = std::process::Command::new(env!("CARGO_BIN_EXE_corral-server"))
        .arg("--config")
        .arg(&config)
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut banner = std::io::BufReader::new(child.stdout.take().unwrap());
    let mut first = String::new();
    std::io::BufRead::read_line(&mut banner, &mut first).unwrap();
    assert!(first.starts_with("Corral"), "{first}");
    common::signal(child.id(), libc::SIGTERM);
    assert_eq!(wait(&mut child).code(), Some(0));
    let mut said = String::new();
    std::io::Read::read_to_string(&mut child.stderr.take().unwrap(), &mut said).unwrap();
    let warnings: Vec<_> = said.lines().filter(|line| line.contains("WARN")).collect();
    assert_eq!(warnings.len(), 1, "{said}");
    assert!(["audit.enable", "txnLogSizeLimitInKb"].iter().all(|key| warnings[0].contains(key)), "{said}");
}

#[test]
fn a_port_in_use_is_one_line() {
    let (one, two) = (temp_dir(), temp_dir());
    let server = Server::start(one.path(), &[]);
    let port = format!("clientPort={}", server.address.port());
    refused(two.path(), &[&port], 1, &[&server.address.to_string(), "in use"]);
    assert_eq!(four_letter_word(server.address, "ruok", PATIENCE).unwrap(), "imok", "the first one is not disturbed");
}

#[test]
fn a_directory_in_use_is_one_line() {
    let dir = temp_dir();
    let server = Server::start(dir.path(), &[]);
    refused(dir.path(), &[], 3, &["another server"]);
    drop(server);
    Server::start(dir.path(), &[]);
}

#[test]
fn a_directory_that_cannot_be_used_is_one_line() {
    let dir = temp_dir();
    let file = dir.path().join("file");
    fs::write(&file, "").unwrap();
    refused(&file.join("below"), &[], 3, &["below"]);
    refused(&dir.path().join("absent"), &["datadir.autocreate=false"], 3, &["absent", "datadir.autocreate"]);
    let apache = dir.path().join("apache");
    fs::create_dir_all(apache.join("version-2")).unwrap();
    fs::write(apache.join("version-2/log.1"), "").unwrap();
    refused(&apache, &[], 3, &["Apache ZooKeeper"]);
}

#[test]
fn a_damaged_log_is_named_and_nothing_is_served() {
    let dir = temp_dir();
    let server = Server::start(dir.path(), &[]);
    let mut client = server.client();
    for n in 0..20 {
        create(&mut client, &format!("/n{n}"), b"x").unwrap();
    }
    server.kill();
    let segment = segments(dir.path()).remove(0);
    let mut bytes = fs::read(&segment).unwrap();
    bytes[4096 + 80] ^= 1;
    fs::write(&segment, bytes).unwrap();
    refused(dir.path(), &[], 3, &[segment.file_name().unwrap().to_str().unwrap(), "offset 4160", "damaged"]);
}

#[test]
fn sigterm_finishes_what_is_in_flight_and_exits_with_0() {
    for signal in [libc::SIGTERM, libc::SIGINT] {
        let dir = temp_dir();
        let mut server = Server::start(dir.path(), &[]);
        let mut client = server.client();
        create(&mut client, "/kept", b"").unwrap();
        assert_eq!(server.terminate(signal).code(), Some(0));
        let server = Server::start(dir.path(), &[]);
        let found = server.client().request(&Request::Exists(PathWatch { path: "/kept", watch: false })).is_ok();
        assert!(found, "what was acknowledged is there");
    }
}

/// Each life logs less than a snapshot is due after, and the log would grow for ever.
#[test]
fn restarts_do_not_put_a_snapshot_off() {
    let dir = temp_dir();
    let settings = ["log.blockBytes=4096", "snapSizeLimitInKb=256"];
    let snapshots = || fs::read_dir(dir.path().join("corral-snapshots")).unwrap().count();
    for life in 0..8 {
        let server = Server::start(dir.path(), &settings);
        let mut client = server.client();
        (0..4).for_each(|n| create(&mut client, &format!("/{life}-{n}"), &[7; 5000]).unwrap());
        if life < 7 {
            server.kill();
        } else {
            eventually("a snapshot is taken", || (snapshots() > 0).then_some(()));
        }
    }
}

#[test]
fn a_word_that_is_not_whitelisted_is_refused_with_apaches_sentence() {
    let dir = temp_dir();
    let server = Server::start(dir.path(), &["4lw.commands.whitelist=ruok"]);
    let word = |word| four_letter_word(server.address, word, PATIENCE).unwrap();
    assert_eq!(word("mntr"), "mntr is not executed because it is not in the whitelist.\n");
    assert!(word("srvr").contains("Mode: standalone"), "srvr always is");
}

#[test]
fn the_command_line_explains_itself() {
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_corral-server")).arg("--help").output().unwrap();
    let help = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success() && help.contains("--config") && help.contains("key=value"), "{help}");
    let dir = temp_dir();
    let mut unknown = command(dir.path(), &[]);
    assert_eq!(wait(&mut unknown.arg("--nonsense").spawn().unwrap()).code(), Some(2));
}

/// A hundred segments, all of which recovery held open at once, and a limit that a shell may have set.
#[test]
fn a_log_of_many_segments_is_restored_with_few_open_files() {
    let dir = temp_dir();
    let server = Server::start(dir.path(), &["preAllocSize=64", "snapCount=1000000"]);
    let mut client = server.client();
    let data = vec![7; 30_000];
    (0..250).for_each(|n| create(&mut client, &format!("/n{n}"), &data).unwrap());
    server.kill();
    assert!(segments(dir.path()).len() > 100);
    let mut child = std::process::Command::new("sh")
        .args(["-c", "ulimit -n 64 && exec \"$0\" \"$@\"", env!("CARGO_BIN_EXE_corral-server")])
        .args(["-o", &format!("dataDir={}", dir.path().display()), "-o", "clientPort=0", "-o", "coreThreads=1"])
        .args(["-o", "clientPortAddress=127.0.0.1", "-o", "preAllocSize=64"])
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = std::io::BufRead::lines(std::io::BufReader::new(child.stdout.take().unwrap()));
    let serves = lines.any(|line| line.is_ok_and(|line| line.trim_start().starts_with("tree")));
    let _ = child.kill();
    let _ = child.wait();
    assert!(serves);
}
