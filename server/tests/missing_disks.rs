//! Directories that are not there, or not the right ones: a disk that is not mounted, disks that were swapped, a disk that is mounted
//! too late. Nothing acknowledged may be forgotten without a word.

mod common;

use common::{Server, create, eventually, get, run_to_end, temp_dir};
use std::fs;
use std::path::{Path, PathBuf};

/// A server with a directory each for its data and its log.
struct Dirs {
    _dir: tempfile::TempDir,
    data: PathBuf,
    log: PathBuf,
}

impl Dirs {
    fn new() -> Dirs {
        let dir = temp_dir();
        let [data, log] = ["data", "log"].map(|name| dir.path().join(name));
        Dirs { _dir: dir, data, log }
    }

    /// Starts it, with more settings.
    fn start_with(&self, more: &[&str]) -> Server {
        Server::start(&self.data, &[&[self.log_setting().as_str(), "snapCount=100"], more].concat())
    }

    fn start(&self) -> Server {
        self.start_with(&[])
    }

    /// Starts it with more settings, where it is expected not to; returns what it says.
    fn refused_with(&self, more: &[&str]) -> String {
        let log = self.log_setting();
        let (code, said) = run_to_end(&self.data, &[&[log.as_str(), "snapCount=100"], more].concat());
        assert_eq!(code, Some(3), "{said}");
        said
    }

    fn log_setting(&self) -> String {
        format!("dataLogDir={}", self.log.display())
    }

    /// Starts it where it is expected not to, and to say so with these words in its last line.
    fn refuses(&self, words: &[&str]) {
        let said = self.refused_with(&[]);
        let last = said.lines().last().unwrap_or_default();
        for word in words {
            assert!(last.contains(word), "{word:?} is missing: {said}");
        }
    }

    /// A life in which snapshots are taken, and so many nodes more are made, and the process dies.
    fn fill(&self) {
        let server = self.start();
        let mut client = server.client();
        (0..300).for_each(|n| create(&mut client, &format!("/n{n}"), b"").unwrap());
        eventually("a snapshot is taken", || (server.metric("zk_cnt_snapshottime") > 0.0).then_some(()));
        create(&mut client, "/last", b"").unwrap();
        server.kill();
    }

    fn has_all(&self) {
        let server = self.start();
        let mut client = server.client();
        (0..300).for_each(|n| assert!(get(&mut client, &format!("/n{n}")).is_some(), "{n}"));
        assert!(get(&mut client, "/last").is_some());
    }
}

fn move_away(path: &Path) -> PathBuf {
    let away = path.with_extension("away");
    fs::rename(path, &away).unwrap();
    away
}

fn put_back(away: &Path, path: &Path) {
    let _ = fs::remove_dir_all(path);
    fs::rename(away, path).unwrap();
}

/// It served without what only the log had, and after the log was back without what was written meanwhile.
#[test]
fn a_log_whose_disk_is_not_mounted_is_missed() {
    let dirs = Dirs::new();
    dirs.fill();
    let corral_log = dirs.log.join("corral-log");
    for gone in [&dirs.log, &corral_log] {
        let away = move_away(gone);
        let log = dirs.log.to_str().unwrap();
        dirs.refuses(&[log, "missing", "acknowledged after 0x", "mounted", "log.acceptLoss="]);
        // The mount point is there, and empty.
        fs::create_dir_all(gone).unwrap();
        dirs.refuses(&[dirs.log.to_str().unwrap(), "missing"]);
        put_back(&away, gone);
    }
    dirs.has_all();
}

#[test]
fn a_data_directory_whose_disk_is_not_mounted_is_missed() {
    let dirs = Dirs::new();
    dirs.fill();
    let away = move_away(&dirs.data);
    dirs.refuses(&[dirs.data.to_str().unwrap(), "snapshots are missing", dirs.log.to_str().unwrap()]);
    put_back(&away, &dirs.data);
    dirs.has_all();
}

#[test]
fn disks_that_were_swapped_are_noticed() {
    let (one, other) = (Dirs::new(), Dirs::new());
    one.fill();
    other.fill();
    let away = move_away(&one.log);
    fs::rename(&other.log, &one.log).unwrap();
    one.refuses(&[one.log.to_str().unwrap(), one.data.to_str().unwrap(), "swapped"]);
    let said = one.refused_with(&["log.acceptLoss=0123456789abcdef"]);
    assert!(said.contains("swapped"), "another's history is nothing to start with: {said}");
    fs::rename(&one.log, &other.log).unwrap();
    put_back(&away, &one.log);
    one.has_all();
    other.has_all();
}

/// The setting names the history, so one that was left in accepts no other loss.
#[test]
fn a_loss_that_is_accepted_is_said_and_happens_once() {
    let dirs = Dirs::new();
    let server = dirs.start();
    // Too few for a snapshot: one that was taken meanwhile would need the log to be whole.
    create(&mut server.client(), "/lost", b"").unwrap();
    server.kill();
    fs::remove_dir_all(&dirs.log).unwrap();
    let said = dirs.refused_with(&[]);
    let setting = said.split_whitespace().find(|word| word.starts_with("log.acceptLoss=")).expect("it says how");
    let server = dirs.start_with(&[setting]);
    assert!(server.said().contains("is accepted as lost"), "{}", server.said());
    create(&mut server.client(), "/after", b"").unwrap();
    server.kill();
    let server = dirs.start_with(&[setting]);
    assert!(get(&mut server.client(), "/after").is_some(), "nothing is missing");
    server.kill();
    fs::remove_dir_all(&dirs.log).unwrap();
    assert!(dirs.refused_with(&[setting]).contains("the log is missing"));
}

/// A disk for `corral-log` itself, and no snapshot yet: only the server that was there before knows that something was in it.
#[test]
fn a_log_that_is_empty_is_missed_before_there_is_a_snapshot() {
    let dirs = Dirs::new();
    let server = dirs.start();
    create(&mut server.client(), "/a", b"").unwrap();
    server.kill();
    let log = dirs.log.join("corral-log");
    let away = move_away(&log);
    fs::create_dir(&log).unwrap();
    dirs.refuses(&["the log is missing", "mounted"]);
    put_back(&away, &log);
    assert!(get(&mut dirs.start().client(), "/a").is_some());
}

/// An older copy of the log: what is in it fits, but its end is not there.
#[test]
fn a_log_that_ends_before_the_snapshot_is_missing_its_end() {
    let dirs = Dirs::new();
    let server = dirs.start();
    create(&mut server.client(), "/first", b"").unwrap();
    server.kill();
    let copy = dirs.log.with_extension("copy");
    let copied = std::process::Command::new("cp").arg("-a").arg(&dirs.log).arg(&copy).status().unwrap();
    assert!(copied.success());
    dirs.fill();
    put_back(&copy, &dirs.log);
    let said = dirs.refused_with(&[]);
    // The newest snapshot may have been taken while transactions went on, and need them.
    let words = ["the end of the log is missing", "but the log ends at"];
    assert!(words.iter().any(|words| said.contains(words)), "{said}");
}

#[test]
fn a_disk_that_is_mounted_over_the_log_in_use_stops_the_server() {
    let dirs = Dirs::new();
    let mut server = dirs.start();
    create(&mut server.client(), "/a", b"").unwrap();
    let log = dirs.log.join("corral-log");
    let away = move_away(&log);
    fs::create_dir(&log).unwrap();
    assert_eq!(server.wait().code(), Some(1), "{}", server.said());
    assert!(server.said().lines().last().unwrap().contains("another directory than when the server started"));
    drop(server);
    put_back(&away, &log);
    assert!(get(&mut dirs.start().client(), "/a").is_some());
}

#[test]
fn a_snapshot_directory_that_is_deleted_is_made_again() {
    let dirs = Dirs::new();
    let server = dirs.start();
    let snapshots = dirs.data.join("corral-snapshots");
    fs::remove_dir_all(&snapshots).unwrap();
    eventually("it is there again", || snapshots.exists().then_some(()));
    let mut client = server.client();
    (0..300).for_each(|n| create(&mut client, &format!("/n{n}"), b"").unwrap());
    eventually("a snapshot is taken", || (server.metric("zk_cnt_snapshottime") > 0.0).then_some(()));
    assert!(server.said().contains("is made again"));
}
