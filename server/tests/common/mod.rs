//! A real server process for a test: the binary, on a free loopback port, in a temporary directory on a real file system.
//!
//! **Invariant**: no process outlives its test, however that ends.

#![allow(dead_code, reason = "each test file uses its own part of this")]
#![expect(clippy::disallowed_methods, reason = "waiting for a process needs a clock")]

use corral_net::client::{BlockingClient, Session};
use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// How long anything in a test may take before it counts as never.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// A directory that is removed with the test. Beside the build, because `/tmp` may be in memory only.
pub(crate) fn temp_dir() -> tempfile::TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("the build directory is writable")
}

/// The server's binary with settings that suit tests: a free port, small segments, all four-letter words.
pub(crate) fn command(dir: &Path, settings: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_corral-server"));
    let dir = format!("dataDir={}", dir.display());
    let fixed = [&dir, "clientPort=0", "clientPortAddress=127.0.0.1", "preAllocSize=1024", "4lw.commands.whitelist=*"];
    for setting in fixed.iter().chain(settings) {
        command.arg("-o").arg(setting);
    }
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// A running server.
pub(crate) struct Server {
    child: Child,
    pub(crate) address: SocketAddr,
    pub(crate) banner: String,
}

impl Server {
    /// Starts one in `dir` and waits until it serves.
    pub(crate) fn start(dir: &Path, settings: &[&str]) -> Server {
        let mut child = command(dir, settings).spawn().expect("the server was built");
        let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
        let mut banner = String::new();
        while let Some(Ok(line)) = lines.next() {
            banner += &line;
            banner.push('\n');
            if line.trim_start().starts_with("tree") {
                break;
            }
        }
        let serving = banner.lines().find_map(|line| line.trim().strip_prefix("serving"));
        let Some(address) = serving.and_then(|rest| rest.trim().split(',').next()?.parse().ok()) else {
            let mut error = String::new();
            let _ = child.kill();
            let _ = child.stderr.take().expect("piped").read_to_string(&mut error);
            panic!("the server did not start: {banner}{error}");
        };
        // Nobody reads on: let the pipes go, the server does not mind.
        Server { child, address, banner }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn client(&self) -> BlockingClient {
        BlockingClient::connect(self.address, Session::new(PATIENCE), PATIENCE).expect("the server takes a new session")
    }

    /// What a power loss looks like to everybody but the disk.
    pub(crate) fn kill(mut self) {
        self.child.kill().expect("it is ours");
        self.child.wait().expect("it is ours");
    }

    /// Asks it to stop and waits until it has.
    pub(crate) fn terminate(&mut self, with: i32) -> ExitStatus {
        signal(self.child.id(), with);
        wait(&mut self.child)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Waits for a process that is about to end.
pub(crate) fn wait(child: &mut Child) -> ExitStatus {
    let late = Instant::now() + PATIENCE;
    loop {
        match child.try_wait().expect("it is ours") {
            Some(status) => return status,
            None if Instant::now() > late => {
                let _ = child.kill();
                panic!("the process did not end");
            }
            None => std::thread::sleep(Duration::from_millis(5)),
        }
    }
}

/// Sends a signal to a process that the test started.
#[expect(unsafe_code, reason = "the standard library cannot send a signal")]
pub(crate) fn signal(pid: u32, signal: i32) {
    // SAFETY: kill(2) touches no memory of ours.
    let sent = unsafe { libc::kill(pid as i32, signal) };
    assert_eq!(sent, 0, "the process is there");
}

/// Runs the server to its end; exit code and what it said on stderr.
pub(crate) fn run_to_end(dir: &Path, settings: &[&str]) -> (Option<i32>, String) {
    let mut child = command(dir, settings).spawn().expect("the server was built");
    let status = wait(&mut child);
    let mut said = String::new();
    child.stderr.take().expect("piped").read_to_string(&mut said).expect("it is text");
    (status.code(), said)
}

/// The segments of a server's log, in order.
pub(crate) fn segments(dir: &Path) -> Vec<PathBuf> {
    let mut paths: Vec<_> = std::fs::read_dir(dir.join("corral-log"))
        .expect("the server made it")
        .map(|entry| entry.expect("readable").path())
        .filter(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("log-")))
        .collect();
    paths.sort();
    paths
}

/// Waits until `check` says something.
pub(crate) fn eventually<T>(what: &str, mut check: impl FnMut() -> Option<T>) -> T {
    let late = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = check() {
            return found;
        }
        assert!(Instant::now() < late, "never: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}
