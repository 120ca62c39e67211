//! `corral-tool snapshot diff`: what differs between two snapshots, or between two states that snapshots and a log lead to.
//!
//! Fuzzy images of one state differ. With `--log` both are first brought to the same transaction; without it, the difference may
//! be of the walks and not of the trees, and the reader is told.
//!
//! **Invariants**: exit code 0 if and only if nothing differs; 2 for everything that keeps it from being said.

use super::node::View;
use super::source;
use crate::failure::Failure;
use crate::log::source::log_dir;
use crate::notation::plain;
use corral_engine::Tree;
use corral_engine::snapshot::reader::load;
use corral_engine::txnlog::recover_after;
use corral_proto::SessionId;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};

/// What to compare.
#[derive(Debug, clap::Args)]
pub struct Options {
    /// One snapshot
    #[arg(value_name = "A")]
    a: PathBuf,
    /// Another
    #[arg(value_name = "B")]
    b: PathBuf,
    /// The log that goes with both: each is brought to its end before they are compared
    #[arg(long, value_name = "DIR")]
    log: Option<PathBuf>,
    /// One JSON object a line
    #[arg(long)]
    json: bool,
}

/// Compares, and prints what differs, by path.
///
/// # Errors
/// [`Failure::Failed`] (1) when they differ; [`Failure::Usage`] (2) when that cannot be said.
pub fn run(options: &Options, out: &mut dyn Write, notes: &mut dyn FnMut(&str)) -> Result<(), Failure> {
    let trouble = |failure: Failure| match failure {
        Failure::Failed(why) => Failure::Usage(why),
        other => other,
    };
    let log = options.log.as_deref().map(log_dir).transpose().map_err(trouble)?;
    let mut state = |path: &Path| state(path, log.as_deref(), notes).map_err(trouble);
    let (a, b) = (state(&options.a)?, state(&options.b)?);
    let (mut only_a, mut only_b, mut changed) = (0_u64, 0_u64, 0_u64);
    let names = a.keys().chain(b.keys().filter(|name| !a.contains_key(*name)));
    let mut names: Vec<&String> = names.collect();
    names.sort();
    for name in names {
        match (a.get(name), b.get(name)) {
            (Some(_), None) => {
                only_a += 1;
                print(out, options.json, "onlyA", name, &Map::new())?;
            }
            (None, Some(_)) => {
                only_b += 1;
                print(out, options.json, "onlyB", name, &Map::new())?;
            }
            (Some(a), Some(b)) if a != b => {
                changed += 1;
                let differs = |key: &&String| a.get(*key) != b.get(*key);
                let keys = a.keys().chain(b.keys().filter(|key| !a.contains_key(*key))).filter(differs);
                let what = keys.map(|key| (key.clone(), json!({"a": a.get(key), "b": b.get(key)}))).collect();
                print(out, options.json, "changed", name, &what)?;
            }
            _ => {}
        }
    }
    out.flush()?;
    if only_a + only_b + changed == 0 {
        return Ok(());
    }
    Err(Failure::Failed(format!("they differ: {only_a} only in A, {only_b} only in B, {changed} changed")))
}

fn print(out: &mut dyn Write, json: bool, how: &str, name: &str, what: &Map<String, Value>) -> Result<(), Failure> {
    if json {
        writeln!(out, "{}", json!({"difference": how, "name": name, "fields": what}))?;
        return Ok(());
    }
    let mark = match how {
        "onlyA" => '-',
        "onlyB" => '+',
        _ => '~',
    };
    write!(out, "{mark} {}", plain(name))?;
    for (key, both) in what {
        write!(out, " {key}: {} -> {}", both["a"], both["b"])?;
    }
    writeln!(out)?;
    Ok(())
}

/// Every node by its path, every session by its id, with all that there is to compare.
type State = BTreeMap<String, Map<String, Value>>;

fn state(path: &Path, log: Option<&Path>, notes: &mut dyn FnMut(&str)) -> Result<State, Failure> {
    let file = source::file(path)?;
    let (mut tree, summary) = load(&file, 0, |_| ())?;
    match log {
        Some(log) => {
            recover_after(log, tree.last_applied(), |record| drop(tree.apply(&record.entry, None)))?;
            tree.is_whole().map_err(|why| Failure::Usage(format!("{}: {why}", path.display())))?;
        }
        None => {
            source::fuzzy(&summary).into_iter().for_each(|note| notes(&format!("{}: {note} (--log)", path.display())))
        }
    }
    Ok(collect(&tree))
}

fn collect(tree: &Tree) -> State {
    let session = |(id, timeout_ms): (&SessionId, &i32)| {
        (format!("session {id}"), Map::from_iter([("timeoutMs".to_owned(), json!(timeout_ms))]))
    };
    let mut state: State = tree.sessions().iter().map(session).collect();
    tree.walk(0, usize::MAX, |path, image| {
        let view = serde_json::to_value(View::new(path, &image, true)).expect("a node is JSON");
        if let Value::Object(mut fields) = view {
            fields.remove("path");
            state.insert(path.to_owned(), fields);
        }
        true
    });
    state
}
