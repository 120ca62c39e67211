//! `corral-tool snapshot`: what is in a snapshot, whether it is whole, and what lies between two of them.
//!
//! - [`source`]: which files are meant.
//! - [`node`]: one node as text and as JSON.
//! - [`ls`], [`dump`], [`verify`], [`stat`], [`diff`]: the commands.
//!
//! A snapshot is fuzzy: taken while writes went on, it is the tree of no single moment until the log is replayed onto it. Commands
//! that could mislead without that say so.
//!
//! **Invariants**: files are only read, so a server may be running; `dump`, `ls` and `verify` keep one block in memory, `stat` a
//! name for each subtree that it shows, `diff` both trees.
//!
//! **Not here**: logs; the files of Apache ZooKeeper.

pub mod diff;
pub mod dump;
pub mod ls;
pub mod node;
pub mod source;
pub mod stat;
pub mod verify;

use crate::failure::Failure;
use clap::Subcommand;
use std::io::Write;

/// What `corral-tool snapshot` was told.
#[derive(Debug, clap::Args)]
pub struct Options {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// List snapshots, newest first, as a server would try them
    Ls(ls::Options),
    /// Print the sessions and nodes of a snapshot, one a line
    Dump(dump::Options),
    /// Check snapshots from their first byte to their last; exits with 1 if one is damaged
    Verify(verify::Options),
    /// Say how many nodes and bytes each subtree has, and which nodes are the largest
    Stat(stat::Options),
    /// Compare two snapshots; exits with 0 if they are equal, 1 if not, 2 if that cannot be said
    Diff(diff::Options),
}

/// Carries out one command. What was asked for goes to `out`; what the reader should know besides, to `notes`.
///
/// # Errors
/// See [`Failure`].
pub fn run(options: &Options, out: &mut dyn Write, notes: &mut dyn FnMut(&str)) -> Result<(), Failure> {
    match &options.command {
        Command::Ls(options) => ls::run(options, out),
        Command::Dump(options) => dump::run(options, out, notes),
        Command::Verify(options) => verify::run(options, out),
        Command::Stat(options) => stat::run(options, out, notes),
        Command::Diff(options) => diff::run(options, out, notes),
    }
}
