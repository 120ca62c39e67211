//! What `envi` says of the machine and of the process, under the names that Apache ZooKeeper has for it.
//!
//! **Not here**: the configuration (`conf`).

use super::report::VERSION;

/// What stands for anything that only a Java machine has.
const NOT_HERE: &str = "<NA>";

/// All but the memory, which changes.
pub fn environment() -> Vec<(&'static str, String)> {
    let system = rustix::system::uname();
    let text = |text: &std::ffi::CStr| text.to_string_lossy().into_owned();
    let user = user(rustix::process::getuid().as_raw());
    let dir = std::env::current_dir().map_or(NOT_HERE.to_owned(), |dir| dir.display().to_string());
    let java = [
        "java.version",
        "java.vendor",
        "java.home",
        "java.class.path",
        "java.library.path",
        "java.io.tmpdir",
        "java.compiler",
    ];
    let mut all = vec![("zookeeper.version", VERSION.to_owned()), ("host.name", text(system.nodename()))];
    all.extend(java.map(|key| (key, NOT_HERE.to_owned())));
    all.extend([
        ("os.name", text(system.sysname())),
        ("os.arch", text(system.machine())),
        ("os.version", text(system.release())),
        ("user.name", user.0),
        ("user.home", user.1),
        ("user.dir", dir),
    ]);
    all
}

/// The machine's memory, in MB: free, and all of it twice, because nothing else limits this process.
pub(super) fn memory() -> [(&'static str, String); 3] {
    let system = rustix::system::sysinfo();
    let mb = |units: u64| format!("{}MB", (units * u64::from(system.mem_unit)) >> 20);
    let (free, all) = (mb(system.freeram as u64), mb(system.totalram as u64));
    [("os.memory.free", free), ("os.memory.max", all.clone()), ("os.memory.total", all)]
}

/// Name and home of a user, as far as the machine knows them.
fn user(uid: u32) -> (String, String) {
    let known = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    let fields = known.lines().map(|line| line.split(':').collect::<Vec<_>>());
    let own = fields.into_iter().find(|fields| fields.get(2).is_some_and(|id| id.parse() == Ok(uid)));
    let field = |at: usize| own.as_ref().and_then(|own| own.get(at)).map(|field| (*field).to_owned());
    (field(0).unwrap_or_else(|| uid.to_string()), field(5).unwrap_or_else(|| NOT_HERE.to_owned()))
}
