//! What cannot be read: each call with which a start looks at its files fails once, with an error of the device, of the permissions or of
//! the descriptors. None of that is damage: the server serves all that it had, or it ends with a line, and nothing on the disk has changed
//! for the next start.
//!
//! The kernel's own answers are replaced (`strace --inject`), so it is the server as it is. Without strace nothing is tested here.

mod common;

use common::{Server, command, create, eventually, get, temp_dir, wait};
use corral_engine::disk::files;
use corral_engine::epochs::Epochs;
use corral_engine::restore::restore;
use corral_proto::Zxid;
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// The calls that read, and how each may fail. Real disks answer with the first.
const FAULTS: [(&str, &[&str]); 4] = [
    ("openat", &["EIO", "EMFILE", "EACCES"]),
    ("getdents64", &["EIO"]),
    ("statx", &["EIO", "EACCES"]),
    ("read,pread64", &["EIO"]),
];

/// All files and directories at `dir` and below.
fn paths(dir: &Path) -> Vec<PathBuf> {
    let mut found = vec![dir.to_owned()];
    for entry in fs::read_dir(dir).expect("it is readable") {
        let path = entry.expect("it is readable").path();
        if path.is_dir() { found.extend(paths(&path)) } else { found.push(path) }
    }
    found.sort();
    found
}

/// The server in a way in which the `nth` call that has to do with one of its files fails. What was traced goes to `trace`.
fn with_fault(server: &Command, dir: &Path, trace: &Path, calls: &str, error: &str, nth: usize) -> Command {
    let mut command = Command::new("strace");
    // The server stays this process's own child, so that it can be ended.
    command.args(["-D", "-f", "-qq", "-o"]).arg(trace);
    for path in paths(dir) {
        command.arg("-P").arg(path);
    }
    command.arg(format!("--trace={calls}")).arg(format!("--inject={calls}:error={error}:when={nth}"));
    command.arg(server.get_program()).args(server.get_args());
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// How a start with a fault went.
enum Start {
    Serves(String),
    Refused(Option<i32>, String),
}

/// Starts it, waits until it has looked at everything or ends, and ends it.
fn start(mut command: Command) -> Start {
    let mut child: Child = command.spawn().expect("strace is there");
    let mut banner = Vec::new();
    let mut stdout = child.stdout.take().expect("piped");
    let mut piece = [0; 4096];
    let has_begun =
        |banner: &[u8]| String::from_utf8_lossy(banner).lines().any(|line| line.trim_start().starts_with("tree"));
    while !has_begun(&banner) {
        match stdout.read(&mut piece) {
            Ok(0) | Err(_) => break,
            Ok(count) => banner.extend_from_slice(&piece[..count]),
        }
    }
    let serves = has_begun(&banner);
    if serves {
        child.kill().expect("it is ours");
    }
    let status = wait(&mut child);
    let mut said = String::new();
    child.stderr.take().expect("piped").read_to_string(&mut said).expect("it is text");
    if serves { Start::Serves(said) } else { Start::Refused(status.code(), said) }
}

/// Every call of a start fails once; `is_sound` looks at what is on the disk after each.
fn each_call_fails_once(dir: &Path, server: &Command, is_sound: impl Fn(&str)) {
    let trace = dir.with_extension("trace");
    let (mut starts, mut refusals) = (0, 0);
    for (calls, errors) in FAULTS {
        for nth in 1.. {
            let error = errors[nth % errors.len()];
            let what = format!("{calls} number {nth} fails with {error}");
            let started = start(with_fault(server, dir, &trace, calls, error, nth));
            let traced = fs::read_to_string(&trace).expect("strace wrote it");
            if !traced.contains("(INJECTED)") {
                break;
            }
            starts += 1;
            match started {
                Start::Serves(said) => assert!(!said.contains("damaged"), "{what}: {said}"),
                Start::Refused(code, said) => {
                    refusals += 1;
                    let last = said.lines().last().unwrap_or_default();
                    assert!(matches!(code, Some(1..=3)), "{what}: {code:?} {said}");
                    assert!(last.contains("(os error") || last.contains("cannot"), "{what}: {said}");
                    assert!(!said.contains("damaged") && !said.contains("panicked"), "{what}: {said}");
                }
            }
            is_sound(&what);
        }
    }
    println!("{starts} starts, of which {refusals} were refused");
    assert!(starts > 20 && refusals > 5, "hardly anything was read");
}

/// Three snapshots, and a log behind them.
const SETTINGS: [&str; 2] = ["snapCount=60", "preAllocSize=64"];

/// The directory of a server that has written 200 nodes, if there is strace to look at it with; it goes with the first.
fn filled() -> Option<(tempfile::TempDir, PathBuf)> {
    let has_strace =
        Command::new("strace").arg("-V").stdout(Stdio::null()).status().is_ok_and(|status| status.success());
    if !has_strace {
        eprintln!("not tested: there is no strace");
        return None;
    }
    let home = temp_dir();
    let dir = home.path().join("data");
    fs::create_dir(&dir).unwrap();
    let server = Server::start(&dir, &SETTINGS);
    let mut client = server.client();
    (0..200).for_each(|n| create(&mut client, &format!("/n{n}"), b"").unwrap());
    eventually("snapshots are taken", || (server.metric("zk_cnt_snapshottime") > 1.0).then_some(()));
    server.kill();
    Some((home, dir))
}

#[test]
fn a_server_alone_that_cannot_read_its_files_loses_nothing() {
    let Some((_home, dir)) = filled() else { return };
    each_call_fails_once(&dir, &command(&dir, &SETTINGS), |what| {
        let names = paths(&dir);
        assert!(!names.iter().any(|path| path.to_string_lossy().contains("damaged")), "{what}: {names:?}");
    });
    let server = Server::start(&dir, &SETTINGS);
    let mut client = server.client();
    (0..200).for_each(|n| assert!(get(&mut client, &format!("/n{n}")).is_some(), "{n}"));
}

/// It would have given up a history that it could not read, and voted for none of its own.
#[test]
fn a_member_that_cannot_read_its_files_does_not_give_them_up() {
    let Some((_home, dir)) = filled() else { return };
    fs::write(dir.join("myid"), "1").unwrap();
    // Nobody listens at the others' ports, so it looks for a leader until it is ended.
    let [high, low] = (std::process::id() as u16).to_be_bytes();
    let members = [1, 2, 3].map(|id| format!("server.{id}=127.{high}.{low}.{id}:2888:3888"));
    let [one, two, three] = members.each_ref().map(String::as_str);
    let settings = [&SETTINGS[..], &[one, two, three, "initLimit=5", "syncLimit=5"]].concat();
    let server = command(&dir, &settings);
    Server::start(&dir, &settings).kill();
    each_call_fails_once(&dir, &server, |what| {
        let names = paths(&dir);
        let is_kept_aside =
            |path: &PathBuf| ["damaged", "given-up"].iter().any(|why| path.to_string_lossy().contains(why));
        assert!(!names.iter().any(is_kept_aside), "{what}: {names:?}");
        let epochs = Epochs::open(files::real(), &dir, Zxid::ZERO).unwrap();
        assert!(!epochs.is_lost(), "{what}");
    });
    let restored = restore(&dir.join("corral-snapshots"), &dir.join("corral-log"), 1, |_| ()).unwrap();
    (0..200).for_each(|n| assert!(restored.tree.find(&format!("/n{n}")).is_some(), "{n}"));
}
