//! A real server process for a test: the binary, on a free loopback port, in a temporary directory on a real file system.
//!
//! **Invariant**: no process outlives its test, however that ends.

#![allow(dead_code, reason = "each test file uses its own part of this")]
#![expect(clippy::disallowed_methods, reason = "waiting for a process needs a clock")]

pub(crate) mod ensemble;
pub(crate) mod identities;
pub(crate) mod network;

use corral_net::client::{BlockingClient, ClientError, Session, four_letter_word};
use corral_proto::ErrorCode;
use corral_proto::acl::AclList;
use corral_proto::request::{CreateRequest, PathWatch, Request, SetDataRequest};
use corral_proto::response::Response;
use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// How long anything in a test may take before it counts as never.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// A directory that is removed with the test. Beside the build, because `/tmp` may be in memory only.
pub(crate) fn temp_dir() -> tempfile::TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("the build directory is writable")
}

/// The most memory that a process has used since its start, in MiB.
pub(crate) fn high_water_mib(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("every process has one");
    line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") >> 10
}

/// The time that a process has spent on processors.
pub(crate) fn processor_time(pid: u32) -> Duration {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("it runs");
    // Its name, which may have spaces, is the last thing in brackets; what is wanted are the 14th and 15th of all.
    let fields = stat.rsplit(')').next().expect("every process has a name").split_whitespace();
    let ticks: u64 = fields.skip(11).take(2).map(|field| field.parse::<u64>().expect("a number")).sum();
    Duration::from_secs(ticks) / rustix::param::clock_ticks_per_second() as u32
}

/// The server's binary with settings that suit tests: a free port, small segments, all four-letter words.
pub(crate) fn command(dir: &Path, settings: &[&str]) -> Command {
    command_with_default_segments(dir, &[&["preAllocSize=1024"], settings].concat())
}

/// The same with segments of the size that they have by themselves.
pub(crate) fn command_with_default_segments(dir: &Path, settings: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_corral-server"));
    let dir = format!("dataDir={}", dir.display());
    let fixed = [&dir, "clientPort=0", "clientPortAddress=127.0.0.1", "4lw.commands.whitelist=*"];
    for setting in fixed.iter().chain(settings) {
        command.arg("-o").arg(setting);
    }
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// The same, out of a shell whose `ulimit` has been given these arguments.
pub(crate) fn limited(ulimit: &str, dir: &Path, settings: &[&str]) -> Command {
    let (server, mut shell) = (command(dir, settings), Command::new("sh"));
    shell.arg("-c").arg(format!("ulimit {ulimit} && exec \"$0\" \"$@\""));
    shell.arg(server.get_program()).args(server.get_args());
    shell.stdin(Stdio::null()).stdout(Stdio::piped());
    shell
}

/// A running server.
pub(crate) struct Server {
    child: Child,
    /// What it writes to stderr.
    log: tempfile::NamedTempFile,
    pub(crate) address: SocketAddr,
    pub(crate) banner: String,
}

impl Server {
    /// Starts one in `dir` and waits until it serves.
    pub(crate) fn start(dir: &Path, settings: &[&str]) -> Server {
        Server::run(command(dir, settings))
    }

    /// Starts one by this command and waits until it serves.
    pub(crate) fn run(mut command: Command) -> Server {
        let log =
            tempfile::NamedTempFile::new_in(env!("CARGO_TARGET_TMPDIR")).expect("the build directory is writable");
        command.stderr(log.reopen().expect("just made"));
        let mut child = command.spawn().expect("the server was built");
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
            let _ = child.kill();
            let error = std::fs::read_to_string(log.path()).expect("it is text");
            panic!("the server did not start: {banner}{error}");
        };
        // Nobody reads on: let the pipe go, the server does not mind.
        Server { child, log, address, banner }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn client(&self) -> BlockingClient {
        BlockingClient::connect(self.address, Session::new(PATIENCE), PATIENCE).expect("the server takes a new session")
    }

    /// Waits until it ends by itself.
    pub(crate) fn wait(&mut self) -> ExitStatus {
        wait(&mut self.child)
    }

    /// What it has logged so far.
    pub(crate) fn said(&self) -> String {
        std::fs::read_to_string(self.log.path()).expect("it is text")
    }

    /// A line of `mntr`.
    pub(crate) fn metric(&self, name: &str) -> f64 {
        let mntr = four_letter_word(self.address, "mntr", PATIENCE).expect("the server answers");
        let line = mntr.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('\t'));
        line.unwrap_or_else(|| panic!("{name} is missing: {mntr}")).parse().expect("a number")
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

pub(crate) fn create(client: &mut BlockingClient, path: &str, data: &[u8]) -> Result<(), ClientError> {
    let create = CreateRequest { path, data: Some(data), acl: AclList::OPEN, flags: 0 };
    client.request(&Request::Create(create)).map(drop)
}

pub(crate) fn set(client: &mut BlockingClient, path: &str, data: &[u8]) -> Result<(), ClientError> {
    client.request(&Request::SetData(SetDataRequest { path, data: Some(data), version: -1 })).map(drop)
}

/// What is at `path`, if there is such a node.
pub(crate) fn get(client: &mut BlockingClient, path: &str) -> Option<Vec<u8>> {
    match client.request(&Request::GetData(PathWatch { path, watch: false })) {
        Ok(Response::Data(data, _)) => Some(data.unwrap_or_default().to_vec()),
        Ok(other) => panic!("{other:?}"),
        Err(error) => {
            assert_eq!(error.code(), Some(ErrorCode::NoNode), "{error}");
            None
        }
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

/// What a disk may have instead of what was written there.
pub(crate) fn overwrite(file: &Path, at: u64, with: &[u8]) {
    let file = std::fs::File::options().write(true).open(file).expect("it is there");
    file.write_all_at(with, at).expect("the disk has room");
}

/// Waits until `check` says something.
pub(crate) fn eventually<T>(what: &str, check: impl FnMut() -> Option<T>) -> T {
    eventually_within(PATIENCE, what, check)
}

/// Waits so long until `check` says something.
pub(crate) fn eventually_within<T>(patience: Duration, what: &str, mut check: impl FnMut() -> Option<T>) -> T {
    let late = Instant::now() + patience;
    loop {
        if let Some(found) = check() {
            return found;
        }
        assert!(Instant::now() < late, "never: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}
