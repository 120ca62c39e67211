//! A network for the members of an ensemble that can be cut anywhere, also in one direction only: each member has a network namespace
//! of its own, and this process, in another one, routes between them. What a rule of that one's `FORWARD` chain drops is lost
//! between members; the clients, in this process, go on reaching everybody.
//!
//! It needs root. No namespace has a name: each is gone with the last process or open file of it, however a test ends.
//!
//! **Not here**: what is tested in it.

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::os::fd::AsRawFd;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Mutex;

/// Set in a process that has its own network.
const OWN_NETWORK: &str = "CORRAL_TEST_OWN_NETWORK";

/// Starts this program again with a network of its own; comes back only in that, or with the reason why it cannot be.
pub(crate) fn with_own_network() -> Result<(), String> {
    if std::env::var_os(OWN_NETWORK).is_some() {
        return Ok(());
    }
    let own = |program: &Path| {
        let mut command = Command::new("unshare");
        command.args(["--net", "--"]).arg(program);
        command
    };
    let script = "ip link set lo up && echo 1 > /proc/sys/net/ipv4/ip_forward && ip link add probe type veth peer name other \
                  && iptables -A FORWARD -s 10.0.0.1 -d 10.0.0.2 -j DROP && printf '*filter\\nCOMMIT\\n' | iptables-restore --noflush --wait \
                  && nsenter --version && setpriv --version";
    let mut probe = own(Path::new("sh"));
    let tried = probe.args(["-c", script]).env("PATH", path()).output().map_err(|error| format!("unshare: {error}"))?;
    if !tried.status.success() {
        let why = String::from_utf8_lossy(&tried.stderr).lines().next().unwrap_or("refused").to_owned();
        return Err(format!("cannot divide a network here: {why}"));
    }
    let me = std::env::current_exe().map_err(|error| error.to_string())?;
    let mut again = own(Path::new("sh"));
    again.args(["-c", "ip link set lo up && echo 1 > /proc/sys/net/ipv4/ip_forward && exec \"$@\"", "sh"]).arg(me);
    Err(again.args(std::env::args_os().skip(1)).env("PATH", path()).env(OWN_NETWORK, "1").exec().to_string())
}

/// Where the tools of the superuser lie is not in everybody's path.
fn path() -> String {
    format!("{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap_or_default())
}

/// The network of one ensemble.
pub(crate) struct Network {
    net: [u8; 3],
    /// The members' namespaces.
    members: Vec<File>,
    /// What is dropped: from this member, to that one.
    cuts: Mutex<Vec<(usize, usize)>>,
}

impl Network {
    /// Connects so many members, as `net`.1, `net`.2, ….
    pub(crate) fn new(net: [u8; 3], count: usize) -> Network {
        let members = (1..=count).map(|_| namespace()).collect();
        let network = Network { net, members, cuts: Mutex::new(Vec::new()) };
        for id in 1..=count {
            let ([a, b, c], name) = (net, format!("m{}-{}-{id}", net[1], net[2]));
            let own = format!("{a}.{b}.{c}.{id}");
            let router = format!("{a}.{b}.{c}.254");
            let namespace = network.namespace(id);
            ip(&format!("link add {name} type veth peer name router netns {namespace}"));
            ip(&format!("address add {router} peer {own} dev {name}"));
            ip(&format!("link set {name} up"));
            let inside = |args: &str| {
                let mut command = network.inside(id, Path::new("ip"));
                run(command.args(args.split(' ')), "");
            };
            inside("link set lo up");
            inside(&format!("address add {own} peer {router} dev router"));
            inside("link set router up");
            inside(&format!("route add default via {router}"));
        }
        network
    }

    fn namespace(&self, id: usize) -> String {
        format!("/proc/{}/fd/{}", std::process::id(), self.members[id - 1].as_raw_fd())
    }

    /// Runs a program where member `id` is. It does not outlive the thread that starts it.
    pub(crate) fn inside(&self, id: usize, program: &Path) -> Command {
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "--", "nsenter"]).arg(format!("--net={}", self.namespace(id)));
        command.arg("--").arg(program);
        command
    }

    /// From now on nothing that one of `from` sends reaches one of `to`; the other direction is as it was.
    pub(crate) fn lose(&self, from: &[usize], to: &[usize]) {
        let new = from.iter().flat_map(|from| to.iter().map(|to| (*from, *to)));
        let new: Vec<_> = new.filter(|(from, to)| from != to).collect();
        self.change("-A", &new);
        self.cuts.lock().expect("no panic while it is held").extend(new);
    }

    /// From now on these two sides do not hear each other.
    pub(crate) fn part(&self, one: &[usize], other: &[usize]) {
        self.lose(one, other);
        self.lose(other, one);
    }

    /// Everybody reaches everybody again.
    pub(crate) fn heal(&self) {
        let cuts = std::mem::take(&mut *self.cuts.lock().expect("no panic while it is held"));
        self.change("-D", &cuts);
    }

    /// All at once.
    fn change(&self, what: &str, cuts: &[(usize, usize)]) {
        let [a, b, c] = self.net;
        let rules =
            cuts.iter().map(|(from, to)| format!("{what} FORWARD -s {a}.{b}.{c}.{from} -d {a}.{b}.{c}.{to} -j DROP\n"));
        let text = format!("*filter\n{}COMMIT\n", rules.collect::<String>());
        run(Command::new("iptables-restore").args(["--noflush", "--wait"]), &text);
    }
}

/// A new network namespace, which lives as long as this is open or a process is in it.
fn namespace() -> File {
    let mut command = Command::new("unshare");
    command.args(["--net", "--", "sh", "-c", "echo it is made && read until_it_is_opened"]);
    let mut first = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("it was possible before");
    let mut said = String::new();
    BufReader::new(first.stdout.take().expect("piped")).read_line(&mut said).expect("it says that it is there");
    let opened = File::open(format!("/proc/{}/ns/net", first.id())).expect("its first process is in it");
    drop(first.stdin.take());
    first.wait().expect("it is ours");
    opened
}

fn ip(args: &str) {
    run(Command::new("ip").args(args.split(' ')), "");
}

fn run(command: &mut Command, input: &str) {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    // A program that has failed does not read it; what it says is more to the point than that.
    let _ = child.stdin.take().expect("piped").write_all(input.as_bytes());
    let output = child.wait_with_output().expect("it is ours");
    assert!(output.status.success(), "{command:?}: {input}{}", String::from_utf8_lossy(&output.stderr));
}
