//! The server against clients that nobody here wrote: kazoo (Python), the Apache C client, and raw bytes.
//!
//! The suites lie in `tests/clients` and can be run by hand against any server, Apache ZooKeeper included. A client that is
//! not installed makes its test *ignored*, with a word; `.ci/run` installs them all.

mod common;

use common::{Server, temp_dir};
use libtest_mimic::{Arguments, Failed, Trial};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Short ticks make sessions expire soon.
const TICK_MS: &str = "500";
/// Who may do everything, and what says so.
const SUPER: &str = "super:secret";
const SUPER_DIGEST: &str = "DigestAuthenticationProvider.superDigest=super:lK75jTNcA+U9vtVEw5vB51mj/w4=";

fn main() {
    let python = python();
    let kazoo = python.clone().filter(|python| succeeds(Command::new(python).args(["-c", "import kazoo"])));
    let cli =
        ["/usr/lib/zookeeper/bin/cli_mt", "/usr/bin/cli_mt"].map(PathBuf::from).into_iter().find(|path| path.exists());
    let library =
        succeeds(Command::new("sh").args(["-c", "echo '#include <zookeeper/zookeeper.h>' | cc -E - -o /dev/null"]));
    let tests = vec![
        trial("kazoo", kazoo, "Python with kazoo", |python, suites, address| {
            let mut command = Command::new(python);
            command.arg(suites.join("kazoo_suite.py")).args([address, "--tick-ms", TICK_MS, "--super", SUPER]);
            command
        }),
        trial("raw_bytes", python, "Python", |python, suites, address| {
            let mut command = Command::new(python);
            command.arg(suites.join("raw_suite.py")).args([address, "--tick-ms", TICK_MS, "--sessionless-ms", "3000"]);
            command
        }),
        trial("c_shell", cli, "cli_mt of Debian's zookeeper-bin", |cli, suites, address| {
            let mut command = Command::new(suites.join("c_client.sh"));
            command.arg(address).arg(cli);
            command
        }),
        trial("c_library", library.then(c_program), "libzookeeper-mt-dev and a C compiler", |program, _, address| {
            let mut command = Command::new(program);
            command.arg(address);
            command
        }),
    ];
    libtest_mimic::run(&Arguments::from_args(), tests).exit();
}

/// A test that needs `client`.
fn trial(
    name: &str,
    client: Option<PathBuf>,
    needs: &str,
    command: impl Fn(&Path, &Path, &str) -> Command + Send + 'static,
) -> Trial {
    let Some(client) = client else {
        return Trial::test(format!("{name} (ignored: needs {needs})"), || Ok(())).with_ignored_flag(true);
    };
    Trial::test(name, move || {
        let dir = temp_dir();
        let tick = format!("tickTime={TICK_MS}");
        let settings = [&tick, "maxClientCnxns=0", "nio.sessionlessCnxnTimeout=3000", SUPER_DIGEST];
        let server = Server::start(dir.path(), &settings);
        let suites = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients");
        let output = command(&client, &suites, &server.address.to_string()).output()?;
        if output.status.success() {
            return Ok(());
        }
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        let failures: Vec<&str> = out.lines().filter(|line| !line.starts_with("ok ")).collect();
        Err(Failed::from(format!("{}\n{err}", failures.join("\n"))))
    })
}

fn python() -> Option<PathBuf> {
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/clients/bin/python");
    let named = std::env::var_os("CORRAL_TEST_PYTHON").map(PathBuf::from);
    named
        .into_iter()
        .chain([beside, PathBuf::from("python3")])
        .find(|python| succeeds(Command::new(python).args(["-c", "import sys; assert sys.version_info >= (3, 9)"])))
}

fn succeeds(command: &mut Command) -> bool {
    command.output().is_ok_and(|output| output.status.success())
}

/// Compiles the C program of the suite.
fn c_program() -> PathBuf {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients/c_client.c");
    let program = Path::new(env!("CARGO_TARGET_TMPDIR")).join("c_client");
    let built = Command::new("cc")
        .args(["-O1", "-Wall", "-DTHREADED", "-o"])
        .arg(&program)
        .arg(source)
        .args(["-lzookeeper_mt", "-lpthread"])
        .output()
        .expect("there is a C compiler");
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
    program
}
