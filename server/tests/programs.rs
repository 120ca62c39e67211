//! The server under programs that others wrote for ZooKeeper: kazoo's own tests, Curator's recipes, all of the official Java client, clients
//! in JavaScript, Go and Rust, and Patroni, which decides by it which of two PostgreSQL servers takes writes.
//!
//! The programs lie in `tests/clients` and can be run by hand, also against Apache ZooKeeper; each says at its head what it proves. One whose
//! language or library is not installed makes its test *ignored*, with a word; `.ci/run` installs them all.

mod common;

use common::ensemble::{Ensemble, Kind};
use common::{Server, temp_dir};
use libtest_mimic::{Arguments, Failed, Trial};
use std::path::{Path, PathBuf};
use std::process::Command;

fn main() {
    let jars = std::env::var_os("CORRAL_TEST_ZOOKEEPER_JARS").map(PathBuf::from);
    let jars = jars.filter(|jars| has(jars, "curator-recipes") && has(jars, "netty-handler"));
    let java = jars.filter(|_| succeeds(Command::new("javac").arg("--version")));
    let javascript = beside("node-clients/node_modules").filter(|_| succeeds(Command::new("node").arg("--version")));
    let go = Some(PathBuf::from("/usr/share/gocode"))
        .filter(|path| path.join("src/github.com/samuel/go-zookeeper").exists());
    let python = beside("clients/bin/python");
    let imports = |modules: &str| {
        let program = format!("import {modules}");
        python.clone().filter(|python| succeeds(Command::new(python).args(["-c", &program])))
    };
    let trials = vec![
        trial(
            "kazoos_own_tests",
            imports("kazoo, puresasl, pytest, xdist, pytest_timeout"),
            "kazoo[sasl,test]",
            kazoos_own_tests,
        ),
        trial("curators_recipes", java.clone(), "a Java compiler, and the jars of Curator", curators_recipes),
        trial("the_java_client", java, "a Java compiler, and the jars of ZooKeeper and netty", the_java_client),
        trial("a_client_in_javascript", javascript, "node-zookeeper-client", a_client_in_javascript),
        trial("a_client_in_go", go, "golang-go and golang-github-samuel-go-zookeeper-dev", a_client_in_go),
        trial("a_client_in_rust", Some(program("rust_client/Cargo.toml")), "nothing", a_client_in_rust),
        trial(
            "patroni",
            imports("patroni, psycopg2").filter(|python| postgres_may_run(python)),
            "root, PostgreSQL and patroni",
            patroni,
        ),
    ];
    libtest_mimic::run(&Arguments::from_args(), trials).exit();
}

/// A test that needs what is installed at a place.
fn trial(
    name: &str,
    place: Option<PathBuf>,
    needs: &str,
    test: impl Fn(&Path) -> Result<(), Failed> + Send + 'static,
) -> Trial {
    match place {
        Some(place) => Trial::test(name, move || test(&place)),
        None => Trial::test(format!("{name} (ignored: needs {needs})"), || Ok(())).with_ignored_flag(true),
    }
}

fn kazoos_own_tests(python: &Path) -> Result<(), Failed> {
    run(Command::new(python).arg(program("kazoo_own_suite/corral_cluster.py")))
}

/// With clients at every member of an ensemble.
fn curators_recipes(jars: &Path) -> Result<(), Failed> {
    let ensemble = Ensemble::new(3, 0);
    ensemble.set(KINDS_OF_NODES);
    let mut ensemble = ensemble;
    ensemble.start_all(&Kind::Corral);
    let servers: Vec<String> = (1..=3).map(|id| ensemble.address(id).to_string()).collect();
    java(jars, "Curator", "CuratorRecipes", &servers.join(","))
}

fn the_java_client(jars: &Path) -> Result<(), Failed> {
    let dir = temp_dir();
    let settings: Vec<&str> =
        KINDS_OF_NODES.lines().chain(["tickTime=500", "minSessionTimeout=1000", "maxClientCnxns=0"]).collect();
    let server = Server::start(dir.path(), &settings);
    java(jars, "JavaClient", "JavaClient", &server.address.to_string())
}

const KINDS_OF_NODES: &str = "extendedTypesEnabled=true\nznode.container.checkIntervalMs=200";

/// Compiles the programs whose names begin like this, and runs one of them.
fn java(jars: &Path, prefix: &str, class: &str, servers: &str) -> Result<(), Failed> {
    let classes = Path::new(env!("CARGO_TARGET_TMPDIR")).join(class);
    let class_path = format!("{}:{}/*", classes.display(), jars.display());
    let sources = std::fs::read_dir(program("java"))?.filter_map(|entry| {
        let path = entry.expect("it is listed").path();
        let name = path.file_name()?.to_str()?;
        (name.starts_with(prefix) || name == "Suite.java").then(|| path.clone())
    });
    run(Command::new("javac").args(["-cp", &class_path, "-d"]).arg(&classes).args(sources))?;
    run(Command::new("java").args(["-Xmx256m", "-cp", &class_path, class, servers]))
}

fn a_client_in_javascript(modules: &Path) -> Result<(), Failed> {
    with_server(|address| {
        run(Command::new("node").env("NODE_PATH", modules).arg(program("node_client.js")).arg(address))
    })
}

fn a_client_in_go(path: &Path) -> Result<(), Failed> {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let built = target.join("go_client");
    let mut build = Command::new("go");
    build.env("GO111MODULE", "off").env("GOPATH", path).env("GOCACHE", target.join("go-cache"));
    run(build.args(["build", "-o"]).arg(&built).arg(program("go_client.go")))?;
    with_server(|address| run(Command::new(&built).arg(address)))
}

/// A crate of its own, with an asynchronous runtime.
fn a_client_in_rust(manifest: &Path) -> Result<(), Failed> {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).join("rust-client");
    let mut build = Command::new(env!("CARGO"));
    run(build.args(["build", "--locked", "--manifest-path"]).arg(manifest).arg("--target-dir").arg(&target))?;
    let dir = temp_dir();
    let server = Server::start(dir.path(), &KINDS_OF_NODES.lines().collect::<Vec<_>>());
    run(Command::new(target.join("debug/rust-client")).arg(server.address.to_string()))
}

fn patroni(python: &Path) -> Result<(), Failed> {
    run(Command::new(python).arg(program("patroni.py")))
}

/// PostgreSQL refuses to be root, so the user that it is must be able to run the same Python.
fn postgres_may_run(python: &Path) -> bool {
    let may =
        |program: &Path| succeeds(Command::new("runuser").args(["-u", "postgres", "--"]).arg(program).arg("--version"));
    let servers = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    may(python) && servers.map(|entry| entry.path().join("bin/postgres")).any(|postgres| may(&postgres))
}

fn with_server(test: impl FnOnce(String) -> Result<(), Failed>) -> Result<(), Failed> {
    let dir = temp_dir();
    let server = Server::start(dir.path(), &["tickTime=500", "maxClientCnxns=0"]);
    test(server.address.to_string())
}

/// Runs a program of which status 0 says that nothing failed; what it has said otherwise is why.
fn run(command: &mut Command) -> Result<(), Failed> {
    let output = command.env("CORRAL_SERVER", env!("CARGO_BIN_EXE_corral-server")).output()?;
    if output.status.success() {
        return Ok(());
    }
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    let failures: Vec<&str> = out.lines().filter(|line| !line.starts_with("ok ")).collect();
    Err(format!("{command:?}: {}\n{}\n{err}", output.status, failures.join("\n")).into())
}

fn program(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients").join(name)
}

/// What `.ci/run` has put below the directory of what is built.
fn beside(name: &str) -> Option<PathBuf> {
    Some(Path::new(env!("CARGO_MANIFEST_DIR")).join("../target").join(name)).filter(|path| path.exists())
}

fn has(dir: &Path, name: &str) -> bool {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    entries.into_iter().any(|entry| entry.file_name().to_string_lossy().starts_with(name))
}

fn succeeds(command: &mut Command) -> bool {
    command.output().is_ok_and(|output| output.status.success())
}
