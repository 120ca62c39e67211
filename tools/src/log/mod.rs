//! `corral-tool log`: what is in a transaction log, whether it is whole, and what can be saved if it is not.
//!
//! - [`source`]: which directory and which files are meant.
//! - [`walk`]: through batches, along the chain as recovery goes, or through whatever checks out in one segment.
//! - [`survey`]: the judgement on a log: its history, what a crash left over, and what is damaged; [`fault`]: what
//!   that took along.
//! - [`transaction`]: one transaction as text and as JSON;
//! - [`ls`], [`dump`], [`verify`], [`repair`]: the commands; [`writer`]: the new log that a repair writes.
//!
//! **Invariants**: an existing log is opened for reading only, so a server may be running (`repair` writes elsewhere). What a
//! running server is just writing looks torn, never damaged: a judgement counts only if a second look confirms it.
//!
//! **Not here**: snapshots; the files of Apache ZooKeeper.

pub mod dump;
pub mod fault;
pub mod ls;
pub mod piece;
pub mod repair;
pub mod source;
pub mod survey;
pub mod transaction;
pub mod verify;
pub mod walk;
pub mod writer;

use crate::failure::Failure;
use clap::Subcommand;
use corral_proto::{SessionId, Zxid};
use std::io::Write;
use std::path::PathBuf;

/// What `corral-tool log` was told.
#[derive(Debug, clap::Args)]
pub struct Options {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// List the segments of a log: what each holds and in which state it is
    Ls(Dir),
    /// Print transactions, one a line
    Dump(Box<dump::Options>),
    /// Check a whole log, as a server that starts does, and list every problem; exits with 1 if there is damage
    Verify(verify::Options),
    /// Write what can be read into a new log; the original is never touched
    Repair(repair::Options),
}

/// Which log.
#[derive(Debug, clap::Args)]
struct Dir {
    /// The directory that holds the segments, or the dataDir or dataLogDir of a server
    #[arg(value_name = "DIR")]
    dir: PathBuf,
}

/// Reads hexadecimal with 0x in front, or decimal; all 64 bits may be used.
fn number(text: &str) -> Option<i64> {
    match text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        Some(hex) if !hex.starts_with('+') => u64::from_str_radix(hex, 16).ok().map(|number| number as i64),
        Some(_) => None,
        None => text.parse().ok(),
    }
}

fn zxid(text: &str) -> Result<Zxid, String> {
    number(text).map(Zxid).ok_or_else(|| "not a zxid; write it as 0x1f or 31".to_owned())
}

fn session(text: &str) -> Result<SessionId, String> {
    number(text).map(SessionId).ok_or_else(|| "not a session id; write it as 0x1f or 31".to_owned())
}

/// A number of something, in words.
fn counted(count: u64, what: &str) -> String {
    if count == 1 { format!("1 {what}") } else { format!("{count} {what}s") }
}

/// Transactions from one zxid to another.
fn range(first: Zxid, last: Zxid) -> String {
    if first == last { first.to_string() } else { format!("{first}..{last}") }
}

/// Carries out one command. What was asked for goes to `out`; what the reader should know besides, to `notes`.
///
/// # Errors
/// See [`Failure`].
pub fn run(options: &Options, out: &mut dyn Write, notes: &mut dyn FnMut(&str)) -> Result<(), Failure> {
    match &options.command {
        Command::Ls(Dir { dir }) => ls::run(dir, out),
        Command::Dump(options) => dump::run(options, out, notes),
        Command::Verify(options) => verify::run(options, out),
        Command::Repair(options) => repair::run(options, out),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_may_be_hexadecimal_and_use_all_bits() {
        assert_eq!(number("0x1f"), Some(31));
        assert_eq!(number("31"), Some(31));
        assert_eq!(number("0xffffffffffffffff"), Some(-1));
        for not in ["", "0x", "0x+1", "1f", "0x1ffffffffffffffff", "one"] {
            assert_eq!(number(not), None, "{not}");
        }
    }
}
