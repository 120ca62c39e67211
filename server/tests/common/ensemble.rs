//! Real ensembles for tests: several server processes, ours and Apache's, on loopback addresses that no other test has; clients that
//! write all the time and remember what was acknowledged; and a comparison of what all servers have in the end.
//!
//! **Invariant**: no process outlives its test, however that ends.

use super::network::Network;
use super::{PATIENCE, create, eventually, get, high_water_mib, overwrite, segments, signal, temp_dir};
use corral_engine::restore::restore;
use corral_engine::snapshot;
use corral_engine::snapshot::format::Compression;
use corral_engine::snapshot::writer::SnapshotOptions;
use corral_engine::tree::image::{Builder, NodeImage};
use corral_engine::txnlog::segment;
use corral_net::client::{BlockingClient, ClientError, Session, four_letter_word};
use corral_proto::acl::AclList;
use corral_proto::request::{CreateRequest, PathWatch, Request, SetDataRequest};
use corral_proto::response::Response;
use corral_proto::{ErrorCode, Stat};
use parking_lot::RwLock;
use rustix::process::{Pid, WaitId, WaitIdOptions, waitid};
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Short ticks make time-outs short.
pub(crate) const TICK: Duration = Duration::from_millis(250);
pub(crate) const SYNC_LIMIT: u32 = 6;
/// How long a client waits for an answer before it asks another server.
const ANSWER: Duration = Duration::from_secs(8);

/// Whose server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Corral,
    /// Apache's, with this class path.
    Apache(String),
}

/// Apache ZooKeeper as Debian packages it, if it is installed.
pub(crate) fn debians_zookeeper() -> Option<Kind> {
    let jars = Path::new("/usr/share/java");
    let java = Command::new("java").arg("-version").output().is_ok_and(|output| output.status.success());
    // Several ways to log lie there. The first one counts, and one of them says nothing.
    let paths = ["slf4j-simple.jar", "zookeeper.jar", "*"].map(|name| jars.join(name).display().to_string());
    let class_path = paths.join(":");
    (java && jars.join("zookeeper.jar").exists()).then_some(Kind::Apache(class_path))
}

/// Another release of it, whose jars lie in the directory `CORRAL_TEST_ZOOKEEPER_JARS`.
#[expect(clippy::disallowed_methods, reason = "which other releases there are is for whoever runs the tests")]
pub(crate) fn other_zookeeper() -> Option<Kind> {
    let jars = std::env::var("CORRAL_TEST_ZOOKEEPER_JARS").ok()?;
    Some(Kind::Apache(format!("{jars}/*")))
}

/// How often something is done: so often as `CORRAL_ENSEMBLE_ROUNDS` says, or a few times.
#[expect(clippy::disallowed_methods, reason = "how many rounds is for whoever runs it")]
pub(crate) fn rounds(few: usize) -> usize {
    std::env::var("CORRAL_ENSEMBLE_ROUNDS").map_or(few, |text| text.parse().expect("a number"))
}

struct Member {
    dir: PathBuf,
    child: Option<Child>,
}

/// Makes networks differ.
static NEXT: AtomicUsize = AtomicUsize::new(0);

/// An ensemble whose members are numbered from 1.
pub(crate) struct Ensemble {
    net: [u8; 3],
    members: Vec<Member>,
    observers: usize,
    dir: tempfile::TempDir,
    /// What is between the members, if it can be cut.
    network: Option<Network>,
}

impl Ensemble {
    /// Of so many members, none of which runs yet; the last `observers` of them do not vote.
    pub(crate) fn new(count: usize, observers: usize) -> Ensemble {
        let net = loop {
            let number = std::process::id() as usize * 7 + NEXT.fetch_add(1, Ordering::Relaxed);
            let net = [127, (1 + number / 250 % 250) as u8, (1 + number % 250) as u8];
            // Whoever else chose the same would listen there.
            let all = (1..=count).all(|id| TcpListener::bind((address(net, id), 2181)).is_ok());
            if all {
                break net;
            }
        };
        Ensemble::in_net(net, None, count, observers)
    }

    /// Of so many members, all of which vote, and between which the network can be cut. Only for processes with their own network.
    pub(crate) fn apart(count: usize) -> Ensemble {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let net = [10, (number / 250) as u8, (number % 250) as u8];
        Ensemble::in_net(net, Some(Network::new(net, count)), count, 0)
    }

    fn in_net(net: [u8; 3], network: Option<Network>, count: usize, observers: usize) -> Ensemble {
        let dir = temp_dir();
        let members = (1..=count).map(|id| Member { dir: dir.path().join(id.to_string()), child: None }).collect();
        let ensemble = Ensemble { net, members, observers, dir, network };
        (1..=count).for_each(|id| ensemble.configure(id));
        ensemble
    }

    fn configure(&self, id: usize) {
        let dir = &self.members[id - 1].dir;
        std::fs::create_dir_all(dir).expect("the build directory is writable");
        std::fs::write(dir.join("myid"), id.to_string()).expect("just made");
        let mut text = format!(
            "tickTime={}\ninitLimit=40\nsyncLimit={SYNC_LIMIT}\ndataDir={}\nclientPort=2181\nclientPortAddress={}\n\
             maxClientCnxns=0\nminSessionTimeout=1000\nmaxSessionTimeout=60000\npreAllocSize=1024\nsnapCount=2000\n\
             4lw.commands.whitelist=*\nadmin.enableServer=false\n",
            TICK.as_millis(),
            dir.display(),
            address(self.net, id),
        );
        for other in 1..=self.members.len() {
            let role = if other > self.members.len() - self.observers { ":observer" } else { "" };
            text += &format!("server.{other}={}:2888:3888{role}\n", address(self.net, other));
        }
        std::fs::write(self.config(id), text).expect("just made");
    }

    /// Adds settings to those of every member, before any is started. The later of two equal keys counts.
    pub(crate) fn set(&self, settings: &str) {
        (1..=self.count()).for_each(|id| self.set_of(id, settings));
    }

    /// The same for one member.
    pub(crate) fn set_of(&self, id: usize, settings: &str) {
        let text = std::fs::read_to_string(self.config(id)).expect("it was made");
        std::fs::write(self.config(id), text + settings + "\n").expect("just read");
    }

    /// The most memory that a member has used since its start, in MiB.
    pub(crate) fn high_water_mib(&self, id: usize) -> u64 {
        high_water_mib(self.members[id - 1].child.as_ref().expect("it runs").id())
    }

    fn config(&self, id: usize) -> PathBuf {
        self.dir.path().join(format!("{id}.cfg"))
    }

    pub(crate) fn count(&self) -> usize {
        self.members.len()
    }

    /// What is between the members.
    pub(crate) fn network(&self) -> &Network {
        self.network.as_ref().expect("it was made so that it can be cut")
    }

    pub(crate) fn dir(&self, id: usize) -> &Path {
        &self.members[id - 1].dir
    }

    pub(crate) fn address(&self, id: usize) -> SocketAddr {
        SocketAddr::new(address(self.net, id), 2181)
    }

    pub(crate) fn addresses(&self) -> Vec<SocketAddr> {
        (1..=self.count()).map(|id| self.address(id)).collect()
    }

    /// What a member has written to its log.
    pub(crate) fn said(&self, id: usize) -> String {
        std::fs::read_to_string(self.dir.path().join(format!("{id}.log"))).unwrap_or_default()
    }

    /// Where the log of a member ends, if it is one of ours: in which segment, and where in it.
    pub(crate) fn end_of_log(&self, id: usize) -> (PathBuf, u64) {
        let (snapshots, log) = (self.dir(id).join("corral-snapshots"), self.dir(id).join("corral-log"));
        let end = restore(&snapshots, &log, 1, |_| ()).expect("nothing is damaged").recovered.end;
        let segments = segment::list(&log).expect("just read");
        let (_, path) = segments.into_iter().find(|(number, _)| *number == end.segment).expect("it ends there");
        (path, end.offset.into())
    }

    /// Starts a member; [`Ensemble::await_serving`] waits for it.
    pub(crate) fn start(&mut self, id: usize, kind: &Kind) {
        let program = |name: &str| match &self.network {
            Some(network) => network.inside(id, Path::new(name)),
            None => Command::new(name),
        };
        let mut command = match kind {
            Kind::Corral => {
                let mut command = program(env!("CARGO_BIN_EXE_corral-server"));
                command.arg("--config").arg(self.config(id));
                command
            }
            Kind::Apache(class_path) => {
                let mut command = program("java");
                // A few of these run at once.
                command.args(["-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"]);
                // Newer releases come with Log4j, which says without a configuration only what has failed.
                command.arg("-Dorg.apache.logging.log4j.level=INFO");
                // No transactions of its own. (This is one of the few that it does not take from its configuration.)
                command.arg("-Dznode.container.checkIntervalMs=2000000000");
                // What a learner lacks is sent from memory or as a snapshot: a leader that reads its log for it would hardly ever send
                // a snapshot in a test.
                command.args(["-Dzookeeper.snapshotSizeFactor=-1", "-cp", class_path]);
                command.arg("org.apache.zookeeper.server.quorum.QuorumPeerMain").arg(self.config(id));
                command
            }
        };
        let mut options = std::fs::File::options();
        let log = options
            .append(true)
            .create(true)
            .open(self.dir.path().join(format!("{id}.log")))
            .expect("the build directory is writable");
        command.stdin(Stdio::null()).stdout(log.try_clone().expect("just opened")).stderr(log);
        assert!(self.members[id - 1].child.is_none(), "it runs already");
        self.members[id - 1].child = Some(command.spawn().expect("the server is there"));
    }

    /// Starts all members, the last one that votes as the leader: the others come when it leads, but for those without whom it
    /// cannot.
    pub(crate) fn start_each(&mut self, kinds: &[&Kind]) {
        let voters = self.count() - self.observers;
        for id in (1..=voters).rev().chain(voters + 1..=self.count()) {
            self.start(id, kinds[id - 1]);
            if id > voters || voters - id + 1 > voters / 2 {
                self.await_all();
            }
        }
        assert_eq!(self.leader(), voters);
    }

    pub(crate) fn start_all(&mut self, kind: &Kind) {
        (1..=self.count()).for_each(|id| self.start(id, kind));
        self.await_all();
    }

    /// What a power loss looks like to everybody but the disk.
    pub(crate) fn kill(&mut self, id: usize) {
        let mut child = self.members[id - 1].child.take().expect("it runs");
        child.kill().expect("it is ours");
        child.wait().expect("it is ours");
    }

    /// Makes a member stand still. All of it does, when this is over: until then a thread of it may still log and answer.
    pub(crate) fn pause(&self, id: usize) {
        let child = self.members[id - 1].child.as_ref().expect("it runs");
        signal(child.id(), libc::SIGSTOP);
        let waited = waitid(WaitId::Pid(Pid::from_child(child)), WaitIdOptions::STOPPED);
        waited.expect("it is ours").expect("this waits for it");
    }

    /// Lets it go on.
    pub(crate) fn resume(&self, id: usize) {
        signal(self.members[id - 1].child.as_ref().expect("it runs").id(), libc::SIGCONT);
    }

    /// The member comes again with nothing: its data is gone.
    pub(crate) fn forget(&mut self, id: usize) {
        std::fs::remove_dir_all(self.dir(id)).expect("it is ours");
        self.configure(id);
    }

    /// Flips a bit among what a member, one of ours, wrote first into its log. Returns the name of the file.
    pub(crate) fn damage(&self, id: usize) -> OsString {
        let oldest = segments(self.dir(id)).remove(0);
        let at = 4096 + 100;
        let byte = std::fs::read(&oldest).expect("it is ours")[at];
        overwrite(&oldest, at as u64, &[byte ^ 4]);
        oldest.file_name().expect("it is a file").to_owned()
    }

    /// The tree of one of ours, which does not run, becomes another than its log has made: a node has other data.
    pub(crate) fn alter_tree(&self, id: usize, path: &str) {
        let (dir, log) = (self.dir(id).join("corral-snapshots"), self.dir(id).join("corral-log"));
        let tree = restore(&dir, &log, 1, |_| ()).expect("nothing is damaged").tree;
        let mut altered = Builder::new(1);
        tree.sessions().iter().for_each(|(session, timeout_ms)| altered.session(*session, *timeout_ms));
        tree.walk(0, usize::MAX, |at, image| {
            let data = if at == path { Some(&b"altered"[..]) } else { image.data };
            altered.node(at, &NodeImage { data, ..image }).is_ok()
        });
        let last = tree.last_applied();
        let altered = RwLock::new(altered.finish(last, last, None));
        let options = SnapshotOptions {
            files: corral_engine::disk::files::real(),
            dir,
            compression: Compression::None,
            rate_limit: 0,
        };
        let taken = snapshot::writer::take(&options, &altered, 0, &AtomicBool::new(false)).expect("there is room");
        assert!(taken.is_some());
    }

    /// Checks that a member whose tree was [altered](Ensemble::alter_tree) takes its leader's once it has been told of a transaction.
    pub(crate) fn check_that_an_altered_tree_is_replaced(&mut self, id: usize, kind: &Kind) {
        let mut client = connect(&[self.address(self.leader())]);
        create(&mut client, "/altered", b"as it was").expect("it is made");
        eventually("it is there, too", || get(&mut connect(&[self.address(id)]), "/altered"));
        self.kill(id);
        self.alter_tree(id, "/altered");
        self.start(id, kind);
        self.await_serving(id);
        // Each session is a transaction.
        connect(&[self.address(self.leader())]);
        eventually("it has the leader's tree", || {
            let healed = self.said(id).contains("the tree here was not the leader's") && self.mode(id).is_some();
            healed.then_some(())
        });
        let seen = get(&mut connect(&[self.address(id)]), "/altered");
        assert_eq!(seen.as_deref(), Some(&b"as it was"[..]), "{}", self.said(id));
    }

    /// `leader`, `follower` or `observer`; `None` while it does not serve.
    pub(crate) fn mode(&self, id: usize) -> Option<String> {
        self.members[id - 1].child.as_ref()?;
        let answer = four_letter_word(self.address(id), "srvr", Duration::from_secs(2)).ok()?;
        answer.lines().find_map(|line| line.strip_prefix("Mode: ")).map(str::to_owned)
    }

    pub(crate) fn await_serving(&self, id: usize) -> String {
        eventually(&format!("member {id} serves: {}", self.all_said()), || self.mode(id))
    }

    /// Waits until every member that runs serves.
    pub(crate) fn await_all(&self) {
        (1..=self.count()).filter(|id| self.members[id - 1].child.is_some()).for_each(|id| {
            self.await_serving(id);
        });
    }

    /// Watches for so long that no member serves.
    #[expect(clippy::disallowed_methods, reason = "there is no condition to wait for where nothing is to happen")]
    pub(crate) fn assert_nobody_serves_for(&self, time: Duration) {
        let end = Instant::now() + time;
        while Instant::now() < end {
            (1..=self.count()).for_each(|id| assert_eq!(self.mode(id), None, "{id} serves: {}", self.all_said()));
        }
    }

    /// Waits for a leader, and says which member it is.
    pub(crate) fn leader(&self) -> usize {
        let leads = |id: &usize| self.mode(*id).as_deref() == Some("leader");
        eventually("somebody leads", || (1..=self.count()).find(leads))
    }

    fn all_said(&self) -> String {
        (1..=self.count()).map(|id| format!("--- {id}\n{}", self.said(id))).collect()
    }

    /// Checks that every member's tree had the same digest after the newest transaction that all say one of; and that none of ours has found
    /// another than its leader's. (Apache's do, for a moment, each time that they were sent a snapshot while something was written.)
    pub(crate) fn check_digests(&self) {
        let running: Vec<usize> = (1..=self.count()).filter(|id| self.members[id - 1].child.is_some()).collect();
        let all = running.iter().map(|id| {
            self.await_serving(*id);
            assert!(!self.said(*id).contains("the tree is not the leader's"), "{id}: {}", self.said(*id));
            let said = four_letter_word(self.address(*id), "hash", PATIENCE).expect("it is answered");
            let lines = said.lines().map(|line| line.split_once(": ").expect("a zxid and a digest"));
            lines.map(|(zxid, digest)| (i64::from_str_radix(zxid, 16).expect("hex"), digest.to_owned())).collect()
        });
        let all: Vec<BTreeMap<i64, String>> = all.collect();
        if let Some(zxid) = all[0].keys().rev().find(|zxid| all.iter().all(|digests| digests.contains_key(zxid))) {
            let digests: Vec<&String> = all.iter().map(|digests| &digests[zxid]).collect();
            assert!(digests.windows(2).all(|two| two[0] == two[1]), "{running:?} after {zxid:x}: {digests:?}");
        }
    }

    /// Checks that every member has the same tree, and all that the clients were promised.
    pub(crate) fn check(&self, promised: &Promised) {
        self.check_digests();
        let mut trees = (1..=self.count()).filter(|id| self.members[id - 1].child.is_some()).map(|id| {
            self.await_serving(id);
            (id, dump(self.address(id)))
        });
        let (first, tree) = trees.next().expect("somebody runs");
        promised.check(&tree);
        for (id, other) in trees {
            for (path, node) in &tree {
                assert_eq!(other.get(path), Some(node), "{path} on {id}, and on {first}");
            }
            assert_eq!(other.len(), tree.len(), "nodes on {id}, and on {first}");
        }
    }
}

impl Drop for Ensemble {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.all_said());
        }
        for member in &mut self.members {
            if let Some(mut child) = member.child.take() {
                let _ = child.kill();
                let _ = child.wait();
            }
        }
    }
}

fn address(net: [u8; 3], id: usize) -> IpAddr {
    Ipv4Addr::new(net[0], net[1], net[2], id as u8).into()
}

/// A client with a new session, of whichever of these servers takes one first.
pub(crate) fn connect(addresses: &[SocketAddr]) -> BlockingClient {
    let mut turn = addresses.iter().cycle();
    eventually("a server takes a new session", || {
        let address = *turn.next().expect("there are servers");
        BlockingClient::connect(address, Session::new(Duration::from_secs(20)), ANSWER).ok()
    })
}

/// A node as a client sees it.
pub(crate) type Node = (Option<Vec<u8>>, Stat);

/// All that a server has, besides the built-in nodes, whose contents are each server's own. It may take a second attempt: followers of
/// Apache's 3.8.0 leave a request unanswered now and then, also without any server of ours.
pub(crate) fn dump(address: SocketAddr) -> BTreeMap<String, Node> {
    try_dump(address).or_else(|_| try_dump(address)).expect("it serves")
}

fn try_dump(address: SocketAddr) -> Result<BTreeMap<String, Node>, ClientError> {
    let mut client = connect(&[address]);
    client.request(&Request::Sync(Some("/")))?;
    let (mut tree, mut todo) = (BTreeMap::new(), vec!["/".to_owned()]);
    while let Some(path) = todo.pop() {
        let watched = PathWatch { path: &path, watch: false };
        let children: Vec<String> = match client.request(&Request::GetChildren(watched))? {
            Response::Children(names) => names.iter().map(str::to_owned).collect(),
            other => panic!("{path}: {other:?}"),
        };
        let node = match client.request(&Request::GetData(watched))? {
            Response::Data(data, stat) => (data.map(<[u8]>::to_vec), stat),
            other => panic!("{path}: {other:?}"),
        };
        let prefix = if path == "/" { "" } else { &path };
        todo.extend(children.iter().filter(|name| *name != "zookeeper").map(|name| format!("{prefix}/{name}")));
        tree.insert(path, node);
    }
    Ok(tree)
}

/// What clients were told, and what they do not know.
#[derive(Debug, Default)]
pub(crate) struct Promised {
    /// For each writer, the newest number that was acknowledged, and the newest that it tried.
    numbers: BTreeMap<String, (u64, u64)>,
    /// Nodes whose creation was acknowledged.
    nodes: Vec<String>,
}

impl Promised {
    fn check(&self, tree: &BTreeMap<String, Node>) {
        for (path, (acknowledged, tried)) in &self.numbers {
            let found = tree.get(path).and_then(|(data, _)| number(data.as_deref()));
            let fine = found.is_some_and(|found| (*acknowledged..=*tried).contains(&found));
            assert!(fine, "{path} is {found:?}, but {acknowledged} was acknowledged, and {tried} tried");
        }
        for path in &self.nodes {
            assert!(tree.contains_key(path), "{path} was acknowledged, and is gone");
        }
        assert!(!self.nodes.is_empty(), "nothing was written");
    }

    /// Writes that were acknowledged.
    pub(crate) fn acknowledged(&self) -> u64 {
        self.numbers.values().map(|(acknowledged, _)| acknowledged).sum()
    }
}

fn number(data: Option<&[u8]>) -> Option<u64> {
    str::from_utf8(data?).ok()?.parse().ok()
}

/// Clients that write all the time, each to one server until that fails it.
pub(crate) struct Writers {
    stop: Arc<AtomicBool>,
    /// Writes that were acknowledged so far.
    pub(crate) count: Arc<AtomicU64>,
    threads: Vec<JoinHandle<Promised>>,
}

impl Writers {
    #[expect(clippy::disallowed_methods, reason = "clients write at the same time")]
    pub(crate) fn start(addresses: &[SocketAddr], count: usize) -> Writers {
        let (stop, done) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let writer = |index: usize| {
            let mut addresses = addresses.to_vec();
            let turn = index % addresses.len();
            addresses.rotate_left(turn);
            let (stop, done) = (stop.clone(), done.clone());
            std::thread::spawn(move || write(index, addresses, &stop, &done))
        };
        let threads = (0..count).map(writer).collect();
        Writers { stop, count: done, threads }
    }

    /// Waits until so many more writes were acknowledged.
    pub(crate) fn await_more(&self, writes: u64) {
        let before = self.count.load(Ordering::Relaxed);
        eventually("writes are acknowledged", || (self.count.load(Ordering::Relaxed) >= before + writes).then_some(()));
    }

    pub(crate) fn finish(self) -> Promised {
        self.stop.store(true, Ordering::Relaxed);
        let mut all = Promised::default();
        for thread in self.threads {
            let one = thread.join().expect("a writer has found that a promise was broken");
            all.numbers.extend(one.numbers);
            all.nodes.extend(one.nodes);
        }
        all
    }
}

fn write(index: usize, mut addresses: Vec<SocketAddr>, stop: &AtomicBool, done: &AtomicU64) -> Promised {
    let counter = format!("/counter-{index}");
    let (mut acknowledged, mut tried) = (0, 0);
    let mut nodes = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        let mut client = connect(&addresses);
        // The next one, when this one fails.
        addresses.rotate_left(1);
        let went = (|| -> Result<(), ClientError> {
            create_if_missing(&mut client, &counter)?;
            client.request(&Request::Sync(Some(&counter)))?;
            let found = read(&mut client, &counter)?;
            assert!(found >= acknowledged && found <= tried, "{counter} is {found} after a sync, not {acknowledged}");
            while !stop.load(Ordering::Relaxed) {
                tried += 1;
                let text = tried.to_string();
                let data = Some(text.as_bytes());
                client.request(&Request::SetData(SetDataRequest { path: &counter, data, version: -1 }))?;
                acknowledged = tried;
                done.fetch_add(1, Ordering::Relaxed);
                match tried % 16 {
                    0 => {
                        let path = format!("/node-{index}-{tried}");
                        let create = CreateRequest { path: &path, data, acl: AclList::OPEN, flags: 0 };
                        client.request(&Request::Create(create))?;
                        nodes.push(path);
                    }
                    8 => assert_eq!(read(&mut client, &counter)?, acknowledged, "a session reads its own writes"),
                    _ => {}
                }
            }
            Ok(())
        })();
        if let Err(error) = went {
            assert!(error.code().is_none(), "{}: {error}", client.address());
        }
    }
    Promised { numbers: BTreeMap::from([(counter, (acknowledged, tried))]), nodes }
}

fn create_if_missing(client: &mut BlockingClient, path: &str) -> Result<(), ClientError> {
    let create = CreateRequest { path, data: Some(b"0"), acl: AclList::OPEN, flags: 0 };
    match client.request(&Request::Create(create)) {
        Err(error) if error.code() != Some(ErrorCode::NodeExists) => Err(error),
        _ => Ok(()),
    }
}

fn read(client: &mut BlockingClient, path: &str) -> Result<u64, ClientError> {
    match client.request(&Request::GetData(PathWatch { path, watch: false }))? {
        Response::Data(data, _) => Ok(number(data).expect("only numbers are written")),
        other => panic!("{other:?}"),
    }
}

/// How long something took that is waited for at most as long as anything in a test.
#[expect(clippy::disallowed_methods, reason = "it is measured")]
pub(crate) fn timed(what: impl FnOnce()) -> Duration {
    let began = Instant::now();
    what();
    let took = began.elapsed();
    assert!(took < PATIENCE);
    took
}
