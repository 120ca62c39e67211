//! `corral-tool ensemble` with real servers. The server's program must have been built beside the tool's, as
//! `cargo test --workspace` does; without it the test is ignored, with a word.

use libtest_mimic::{Arguments, Trial};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

/// How long an election may take before it counts as never.
const PATIENCE: Duration = Duration::from_secs(30);

fn main() {
    let tool = Path::new(env!("CARGO_BIN_EXE_corral-tool"));
    let trial = match tool.with_file_name("corral-server").exists() {
        true => Trial::test("an_ensemble_is_started_broken_and_mended", move || {
            an_ensemble_is_started_broken_and_mended();
            Ok(())
        }),
        false => {
            let name = "an_ensemble_is_started_broken_and_mended (ignored: needs corral-server to be built)";
            Trial::test(name, || Ok(())).with_ignored_flag(true)
        }
    };
    libtest_mimic::run(&Arguments::from_args(), vec![trial]).exit();
}

/// Ends all members, however the test ends.
struct Running<'a>(&'a Path);

impl Drop for Running<'_> {
    fn drop(&mut self) {
        let _ = tool(&["kill"], self.0);
    }
}

fn tool(words: &[&str], dir: &Path) -> Result<String, String> {
    let output = Command::new(env!("CARGO_BIN_EXE_corral-tool"))
        .arg("ensemble")
        .args(words)
        .arg("--dir")
        .arg(dir)
        .output()
        .expect("the tool was built");
    match output.status.success() {
        true => Ok(String::from_utf8(output.stdout).expect("text")),
        false => Err(String::from_utf8(output.stderr).expect("text")),
    }
}

#[expect(clippy::disallowed_methods, reason = "waiting for processes needs a clock")]
fn an_ensemble_is_started_broken_and_mended() {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("the build directory is writable");
    let dir = dir.path().join("ensemble");
    let missing = tool(&["status"], &dir).unwrap_err();
    assert!(missing.contains("there is no ensemble here; make one with start"), "{missing}");
    // Below the ports that the system gives to whoever asks for any.
    let port = (10_000 + std::process::id() % 1_900 * 10).to_string();
    let running = Running(&dir);
    let table = tool(&["start", "--port", &port, "-o", "tickTime=200"], &dir).unwrap();
    let leader = |table: &str| {
        let line = table.lines().find(|line| line.contains(" leader ")).unwrap_or_else(|| panic!("{table}"));
        line.split_whitespace().next().expect("a number").to_owned()
    };
    let first = leader(&table);
    assert_eq!(table.matches("follower").count(), 2, "{table}");
    let table = tool(&["kill", &first], &dir).unwrap();
    assert_eq!(table.matches(" down ").count(), 1, "{table}");
    // One that came back before the others have elected might lead again.
    let late = Instant::now() + PATIENCE;
    while !tool(&["status"], &dir).unwrap().contains(" leader ") {
        assert!(Instant::now() < late, "two of three elect nobody");
    }
    let table = tool(&["start"], &dir).unwrap();
    assert!(leader(&table) != first && !table.contains("down"), "{table}");
    let refused = tool(&["stop", "7"], &dir).unwrap_err();
    assert_eq!(refused, "corral-tool: there is no member 7, only 1 to 3\n");
    let table = tool(&["stop"], &dir).unwrap();
    assert_eq!(table.matches(" down ").count(), 3, "{table}");
    drop(running);
}
