//! What an operator sees at the start: one screen that says what runs where, and how it keeps what it acknowledges.

use crate::config::Config;
use crate::process::store::Store;
use corral_engine::Tree;
use corral_engine::disk::filesystem::FileSystem;
use corral_engine::txnlog::Recovered;
use std::fmt::Write;
use std::net::SocketAddr;
use std::path::Path;

/// The banner, without a last newline.
pub fn banner(config: &Config, address: SocketAddr, store: &Described, tree: &TreeSize) -> String {
    let mut out = format!("Corral {} (pid {})\n", env!("CARGO_PKG_VERSION"), std::process::id());
    let mut line = |what: &str, value: String| {
        let _ = writeln!(out, "  {what:<9} {value}");
    };
    let what = match &config.members {
        None => "standalone".to_owned(),
        Some(members) => format!("server.{} of {}", members.me, members.all.len()),
    };
    line("serving", format!("{address}, {what}, {} core threads", config.core_threads));
    line("data", store.data.clone());
    line("log", store.log.clone());
    line("log mode", store.mode.clone());
    let depth = config.log.pipeline_depth;
    let plural = if depth == 1 { "" } else { "s" };
    line("segments", format!("{} MiB each, {depth} write{plural} in flight", store.segment_bytes >> 20));
    line(
        "tree",
        format!(
            "{} nodes, {} sessions, last zxid {} ({} transactions replayed)",
            tree.nodes, tree.sessions, tree.zxid, tree.replayed
        ),
    );
    out.trim_end().to_owned()
}

/// The store in words.
#[derive(Clone, Debug)]
pub struct Described {
    data: String,
    log: String,
    mode: String,
    segment_bytes: u64,
}

impl Described {
    /// Looks at the directories.
    pub fn new(config: &Config, store: &Store) -> Described {
        let mode = &store.mode;
        Described {
            data: place(&config.data_dir),
            log: place(&store.log_dir),
            mode: format!("{} / {} ({})", mode.io, mode.sync, mode.why),
            segment_bytes: store.segment_bytes,
        }
    }
}

/// What was recovered.
#[derive(Clone, Copy, Debug)]
pub struct TreeSize {
    nodes: usize,
    sessions: usize,
    zxid: corral_proto::Zxid,
    replayed: u64,
}

impl TreeSize {
    /// Counts.
    pub fn new(tree: &Tree, recovered: &Recovered) -> TreeSize {
        TreeSize {
            nodes: tree.len(),
            sessions: tree.sessions().len(),
            zxid: tree.last_applied(),
            replayed: recovered.records,
        }
    }
}

fn place(dir: &Path) -> String {
    match FileSystem::of(dir) {
        Some(fs) => {
            let warning = if fs.is_volatile() {
                ", NOT DURABLE: gone after a power loss"
            } else if fs.is_served() {
                ", no device of this host: durable is what its server calls so"
            } else {
                ""
            };
            format!("{} ({} on {}{warning})", dir.display(), fs.kind, fs.device)
        }
        None => dir.display().to_string(),
    }
}
