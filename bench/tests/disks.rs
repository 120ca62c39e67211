//! `corral-bench disks` as its users run it: real server processes, on real directories, also when it is broken off or killed.

#![expect(clippy::disallowed_methods, reason = "what is waited for must come in time")]

use serde_json::Value;
use std::fs;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

const PATIENCE: Duration = Duration::from_secs(60);
const TINY: [&str; 8] = ["--duration", "300ms", "--warmup", "10ms", "--connections", "4", "--outstanding", "8"];
const LONG: [&str; 2] = ["--duration", "10m"];

fn disks(dir: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_corral-bench"));
    command.current_dir(dir).arg("disks").args(arguments).stderr(Stdio::piped()).stdout(Stdio::piped());
    command
}

fn temp_dir() -> TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap()
}

fn left_in(dir: &Path) -> Vec<String> {
    fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

fn text(output: &Output) -> (String, String) {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    (text(&output.stdout), text(&output.stderr))
}

/// Servers of cells whose directories are below `dir`.
fn servers_below(dir: &Path) -> usize {
    let below = dir.display().to_string();
    let processes = fs::read_dir("/proc").unwrap().flatten();
    let commands = processes.filter_map(|process| fs::read_to_string(process.path().join("cmdline")).ok());
    commands.filter(|command| command.contains("\0serve\0") && command.contains(&below)).count()
}

fn eventually(what: &str, mut check: impl FnMut() -> bool) {
    let until = Instant::now() + PATIENCE;
    while !check() {
        assert!(Instant::now() < until, "waited in vain for {what}");
        std::thread::yield_now();
    }
}

#[test]
fn every_combination_is_measured_or_its_failure_explained_and_nothing_is_left() {
    let (logs, data) = (temp_dir(), temp_dir());
    // A port that is taken: those cells fail, the others do not.
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let ports = format!("clientPort=0,{}", taken.local_addr().unwrap().port());
    let (log_dir, data_dir) = (logs.path().to_str().unwrap(), data.path().to_str().unwrap());
    let axes = ["--log-dir", log_dir, "--data-dir", data_dir, "--log-io", "pwrite", "--log-sync", "fdatasync,none"];
    let json = data.path().join("report.json");
    let more = ["--rounds", "2", "-o", &ports, "--json", json.to_str().unwrap()];
    let output = disks(data.path(), &[&TINY[..], &axes, &more].concat()).output().unwrap();
    let (table, said) = text(&output);
    assert!(output.status.success(), "{table}{said}");
    let report: Value = serde_json::from_str(&fs::read_to_string(&json).unwrap()).unwrap();
    assert_eq!(report["cells"].as_array().unwrap().len(), 4);
    let failures = report["failures"].as_array().unwrap();
    assert_eq!(failures.len(), 2, "{failures:?}");
    assert!(failures.iter().all(|failure| failure["why"].as_str().unwrap().contains("in use")), "{failures:?}");
    let winner = &report["cells"][report["winner"].as_u64().unwrap() as usize];
    assert_eq!((winner["durable"].as_bool(), winner["rounds"].as_array().unwrap().len()), (Some(true), 2));
    assert!(winner["to_floor"].as_f64().unwrap() > 0.0);
    let single = &winner["figures"]["single"];
    let (all, log) = (single["p50_us"].as_f64().unwrap(), single["log_p50_us"].as_f64().unwrap());
    assert!(0.0 < log && log <= all, "what the log takes is a part of what the client waits: {single}");
    assert!(
        table.contains("* pwrite/fdatasync") && table.contains("! pwrite/none") && table.contains("failed "),
        "{table}"
    );
    assert!(left_in(logs.path()).is_empty(), "{:?}", left_in(logs.path()));
    assert_eq!(left_in(data.path()), ["report.json"]);
}

#[test]
fn what_no_server_could_run_with_is_refused_before_anything_runs() {
    let dir = temp_dir();
    for (arguments, word) in [
        (&["--log-io", "paper"][..], "uring-direct"),
        (&["-o", "clientPrt=1"], "clientPort"),
        (&["--log-dir", "nowhere"], "nowhere"),
    ] {
        let output = disks(dir.path(), arguments).output().unwrap();
        let (_, said) = text(&output);
        assert_eq!(output.status.code(), Some(2), "{said}");
        let last = said.lines().last().unwrap();
        assert!(last.starts_with("corral-bench: ") && last.contains(word), "{said}");
    }
    assert!(left_in(dir.path()).is_empty());
}

/// A run that would take long, once its first server is there. It ends with the test.
struct LongRun(Option<Child>);

impl LongRun {
    fn start(dir: &Path) -> LongRun {
        let log_dir = dir.to_str().unwrap();
        let run = disks(dir, &[&LONG[..], &["--log-dir", log_dir, "--log-io", "pwrite"]].concat()).spawn().unwrap();
        let run = LongRun(Some(run));
        eventually("a server", || servers_below(dir) == 1);
        run
    }

    fn end(mut self) -> Output {
        self.0.take().unwrap().wait_with_output().unwrap()
    }
}

impl Drop for LongRun {
    fn drop(&mut self) {
        if let Some(mut run) = self.0.take() {
            let _ = run.kill();
            let _ = run.wait();
        }
    }
}

#[test]
fn an_interrupt_leaves_no_server_and_no_directory() {
    let dir = temp_dir();
    let run = LongRun::start(dir.path());
    // Twice, as people do.
    for _ in 0..2 {
        let sent = Command::new("kill").args(["-INT", &run.0.as_ref().unwrap().id().to_string()]).status().unwrap();
        assert!(sent.success());
    }
    let output = run.end();
    let (table, said) = text(&output);
    assert_eq!(output.status.code(), Some(1), "{table}{said}");
    assert!(said.lines().last().unwrap().contains("interrupted"), "{said}");
    assert_eq!(servers_below(dir.path()), 0);
    assert!(left_in(dir.path()).is_empty(), "{:?}", left_in(dir.path()));
}

#[test]
fn a_killed_run_leaves_no_server() {
    let dir = temp_dir();
    let run = LongRun::start(dir.path());
    drop(run);
    eventually("the server to end by itself", || servers_below(dir.path()) == 0);
}
