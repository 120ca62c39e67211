//! What `corral-bench disks` is told, and the cells that come of it.
//!
//! **Invariants**: what `cells` returns can be tried: the directories are there and have room, and every setting is one that a
//! server knows.
//!
//! **Not here**: whether a mode works on a file system; that is found out, and reported, by trying.

use super::plan::{Axes, Cell};
use crate::options::{parse_count, parse_duration, parse_setting, parse_value_size};
use corral_server::config::{self, Defaults};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Room that a cell's directory must have: segments, the next one, and snapshots.
const ROOM: u64 = 512 << 20;
/// More cells than this are a slip.
const CELLS_MAX: usize = 1000;

/// Compares disk configurations: the same load on a server of its own for every combination
#[derive(Clone, Debug, clap::Args)]
#[command(
    after_help = "A value may be a list, with commas. Every combination of --log-dir, --data-dir, --log-io, --log-sync and the \
                  values of each -o is a cell. Each cell is a server process of its own, in new directories below those named, \
                  which are removed afterwards. Without any option: six modes of writing the log, in a new directory below the \
                  current one, in about a minute."
)]
pub(crate) struct DisksOptions {
    /// Where logs are written; may be repeated [default: the current directory]
    #[arg(long, value_name = "DIR")]
    pub log_dir: Vec<PathBuf>,

    /// Where snapshots are written; may be repeated [default: where the log is]
    #[arg(long, value_name = "DIR")]
    pub data_dir: Vec<PathBuf>,

    /// How bytes get to the log: uring-direct, uring-buffered, pwrite, auto
    #[arg(long, value_name = "LIST", value_delimiter = ',', default_value = "uring-direct,uring-buffered,pwrite")]
    pub log_io: Vec<String>,

    /// How they become durable: dsync, fdatasync, fsync, none, auto
    #[arg(long, value_name = "LIST", value_delimiter = ',', default_value = "dsync,fdatasync")]
    pub log_sync: Vec<String>,

    /// Any other setting of the server, one or several values of it; may be repeated
    #[arg(short = 'o', long = "option", value_name = "KEY=LIST", value_parser = parse_setting)]
    pub settings: Vec<String>,

    /// How often every cell is measured
    #[arg(long, value_name = "N", default_value = "3", value_parser = parse_count::<1000>)]
    pub rounds: usize,

    /// How long each load is measured: one connection with one request at a time, then many
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = parse_duration)]
    pub duration: Duration,

    /// How long each load runs before that
    #[arg(long, value_name = "TIME", default_value = "500ms", value_parser = parse_duration)]
    pub warmup: Duration,

    /// Connections of the second load
    #[arg(long, value_name = "N", default_value = "16", value_parser = parse_count::<100_000>)]
    pub connections: usize,

    /// Requests in flight on each of them
    #[arg(long, value_name = "N", default_value = "64", value_parser = parse_count::<1_000_000>)]
    pub outstanding: usize,

    /// Bytes of a value
    #[arg(long, value_name = "BYTES", default_value = "100", value_parser = parse_value_size)]
    pub value_size: usize,

    /// Fixes the order in which cells are measured, and what is written
    #[arg(long, value_name = "N", default_value = "1")]
    pub seed: u64,

    /// Write the report as JSON, too
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
}

impl DisksOptions {
    /// The cells. The error is one line: something that no server could run with.
    pub(crate) fn cells(&self) -> Result<Vec<Cell>, String> {
        if self.duration.is_zero() {
            return Err("--duration must be more than nothing".into());
        }
        let mut others: Vec<(String, Vec<String>)> = Vec::new();
        for setting in &self.settings {
            let (key, values) = setting.split_once('=').expect("the parser has looked");
            if let "dataDir" | "dataLogDir" | "log.io" | "log.sync" = key.trim() {
                let option =
                    if key.trim().starts_with("data") { "--data-dir and --log-dir" } else { "--log-io and --log-sync" };
                return Err(format!("{} is what {option} are for", key.trim()));
            }
            let values = values.split(',').map(|value| value.trim().to_owned());
            match others.iter_mut().find(|(known, _)| known == key.trim()) {
                Some((_, more)) => more.extend(values),
                None => others.push((key.trim().to_owned(), values.collect())),
            }
        }
        let here = self.log_dir.is_empty() && self.data_dir.is_empty();
        let axes = Axes {
            log_dirs: if here { vec![".".into()] } else { self.log_dir.clone() },
            data_dirs: self.data_dir.clone(),
            ios: self.log_io.iter().map(|io| io.trim().to_owned()).collect(),
            syncs: self.log_sync.iter().map(|sync| sync.trim().to_owned()).collect(),
            others,
        };
        axes.log_dirs.iter().chain(&axes.data_dirs).try_for_each(|dir| check_dir(dir))?;
        let cells = axes.cells();
        if cells.len() > CELLS_MAX {
            return Err(format!("{} cells are more than {CELLS_MAX}", cells.len()));
        }
        for cell in &cells {
            config::load(None, &cell.settings(), &Defaults { cores: 1 }).map_err(|error| error.to_string())?;
        }
        Ok(cells)
    }
}

fn check_dir(dir: &Path) -> Result<(), String> {
    let what = |error: &dyn std::fmt::Display| format!("cannot look at {}: {error}", dir.display());
    if !dir.metadata().map_err(|error| what(&error))?.is_dir() {
        return Err(format!("{} is not a directory", dir.display()));
    }
    let room = rustix::fs::statvfs(dir).map_err(|error| what(&error))?;
    let free = room.f_bavail * room.f_frsize;
    if free < ROOM {
        return Err(format!("{} has {} MiB free; a server needs {} MiB there", dir.display(), free >> 20, ROOM >> 20));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        disks: DisksOptions,
    }

    fn cells(arguments: &[&str]) -> Result<Vec<Cell>, String> {
        Cli::try_parse_from([&["disks"], arguments].concat()).map_err(|error| error.to_string())?.disks.cells()
    }

    #[test]
    fn lists_are_multiplied_and_wrong_words_are_refused_before_anything_runs() {
        assert_eq!(cells(&[]).unwrap().len(), 6);
        let many =
            ["--log-io", "pwrite", "--log-sync", "dsync,none", "-o", "log.pipelineDepth=1,2", "-o", "snapCount=9000"];
        assert_eq!(cells(&many).unwrap().len(), 4);
        for (arguments, words) in [
            (&["--log-io", "paper"][..], "paper"),
            (&["-o", "log.pipelineDpth=1"], "log.pipelineDepth"),
            (&["-o", "log.sync=none"], "--log-sync"),
            (&["--log-dir", "/no/such/dir"], "/no/such/dir"),
            (&["--data-dir", "/proc/version"], "not a directory"),
            (&["--duration", "0"], "--duration"),
        ] {
            let why = cells(arguments).unwrap_err();
            assert!(why.contains(words) && why.lines().count() == 1, "{why}");
        }
    }
}
