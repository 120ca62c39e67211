//! `corral-tool snapshot stat`: where in the tree the nodes and bytes are.
//!
//! **Invariant**: memory is bounded by the subtrees down to `--depth` and by `--top`, not by the nodes.

use super::source;
use crate::failure::Failure;
use crate::notation::plain;
use corral_engine::snapshot::reader::{Piece, read};
use corral_proto::SessionId;
use std::collections::BTreeMap;
use std::io::Write;
use std::path::PathBuf;

/// What to count.
#[derive(Debug, clap::Args)]
pub struct Options {
    /// The snapshot
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Subtrees down to so many names below the root
    #[arg(long, value_name = "N", default_value = "2")]
    depth: usize,
    /// So many of the subtrees with the most bytes, and of the largest nodes
    #[arg(long, value_name = "N", default_value = "20", value_parser = clap::value_parser!(u16).range(1..))]
    top: u16,
}

/// What a subtree holds, its own root included.
#[derive(Clone, Copy, Debug, Default)]
struct Count {
    nodes: u64,
    ephemerals: u64,
    data_bytes: u64,
    path_bytes: u64,
}

/// Counts and prints.
///
/// # Errors
/// See [`Failure`]; damage is one.
pub fn run(options: &Options, out: &mut dyn Write, notes: &mut dyn FnMut(&str)) -> Result<(), Failure> {
    let file = source::file(&options.file)?;
    let mut subtrees: BTreeMap<String, Count> = BTreeMap::new();
    // The largest nodes, the smallest of them first; a path seen twice counts as the file has it, twice.
    let mut largest: BTreeMap<(u64, String), ()> = BTreeMap::new();
    let summary = read(&file, |piece| {
        if let Piece::Node(path, image) = piece {
            let bytes = image.data.map_or(0, |data| data.len() as u64);
            let ends = path.char_indices().skip(1).filter_map(|(at, c)| (c == '/').then_some(at));
            let below = ends.chain((path.len() > 1).then_some(path.len())).take(options.depth);
            for end in std::iter::once(1).chain(below) {
                let count = match subtrees.get_mut(&path[..end]) {
                    Some(count) => count,
                    None => subtrees.entry(path[..end].to_owned()).or_default(),
                };
                count.nodes += 1;
                count.ephemerals += u64::from(image.stat.owner != SessionId::NONE);
                count.data_bytes += bytes;
                count.path_bytes += path.len() as u64;
            }
            if largest.len() < options.top.into() || largest.keys().next().is_some_and(|(least, _)| *least < bytes) {
                largest.insert((bytes, path.to_owned()), ());
                if largest.len() > options.top.into() {
                    largest.pop_first();
                }
            }
        }
        Ok(())
    })?;
    let mut subtrees: Vec<(String, Count)> = subtrees.into_iter().collect();
    subtrees.sort_by_key(|(_, count)| std::cmp::Reverse((count.data_bytes, count.nodes)));
    let all = subtrees.len();
    writeln!(out, "{:>12} {:>12} {:>14} {:>14}  SUBTREE", "NODES", "EPHEMERAL", "DATA BYTES", "PATH BYTES")?;
    for (path, count) in subtrees.iter().take(options.top.into()) {
        let Count { nodes, ephemerals, data_bytes, path_bytes } = count;
        writeln!(out, "{nodes:>12} {ephemerals:>12} {data_bytes:>14} {path_bytes:>14}  {}", plain(path))?;
    }
    if all > options.top.into() {
        writeln!(out, "{:>12} subtrees with less", all - usize::from(options.top))?;
    }
    writeln!(out, "\n{:>12}  LARGEST NODES", "DATA BYTES")?;
    for (bytes, path) in largest.keys().rev() {
        writeln!(out, "{bytes:>12}  {}", plain(path))?;
    }
    source::fuzzy(&summary).into_iter().for_each(|note| notes(&note));
    Ok(())
}
