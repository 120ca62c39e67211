//! `corral-bench`: how fast a coordination server is, and where the time goes.
//!
//! `disks` compares disk configurations; `probe` says what a directory's disk can do; `load` puts any server of the ZooKeeper
//! protocol under load.
//!
//! Exit codes: 0 when it measured something, 1 when it could not, 2 when it was told something impossible. What went
//! wrong is one line on stderr.

mod options;

mod disks;
mod load;
mod probe;

mod embedded;
mod environment;
mod interrupt;
mod progress;
mod report;

use clap::error::ErrorKind;
use clap::{Parser, Subcommand};
use disks::{DisksOptions, ServeOptions};
use options::{LoadOptions, ProbeOptions};
use std::process::ExitCode;

/// Measures coordination servers that speak the ZooKeeper protocol
#[derive(Debug, Parser)]
#[command(name = "corral-bench", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Compare disk configurations: the same load on a server of its own for every combination
    Disks(Box<DisksOptions>),
    /// Put a server under load and measure throughput and latency
    Load(Box<LoadOptions>),
    /// Measure what a directory's disk can do: the floor under every durable write
    Probe(ProbeOptions),
    /// Be the server of a cell, until standard input ends
    #[command(hide = true)]
    Serve(ServeOptions),
}

fn main() -> ExitCode {
    let command = match Cli::try_parse() {
        Ok(cli) => cli.command,
        Err(error) => return usage(&error),
    };
    // The outer result is about what was asked for, the inner one about what came of it.
    let done = match &command {
        Command::Disks(options) => options.cells().map(|cells| disks::run(options, cells)),
        Command::Load(options) => options.check().map(|()| load::run(options)),
        Command::Probe(options) => options.check().map(|()| probe::run(options)),
        Command::Serve(options) => Ok(disks::serve(options)),
    };
    let (why, code) = match done {
        Ok(Ok(())) => return ExitCode::SUCCESS,
        Ok(Err(why)) => (why, 1),
        Err(why) => (why, 2),
    };
    eprintln!("corral-bench: {why}");
    ExitCode::from(code)
}

/// Help is printed as clap writes it, an error as one line (clap takes several, with the usage after them).
fn usage(error: &clap::Error) -> ExitCode {
    let text = error.render();
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => {
            print!("{text}");
            ExitCode::SUCCESS
        }
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
            eprint!("{text}");
            ExitCode::from(2)
        }
        _ => {
            let text = text.to_string();
            let until_usage = text.split("\nUsage:").next().unwrap_or_default();
            let words = until_usage.split("\nFor more").next().unwrap_or_default().split_whitespace();
            let line = words.collect::<Vec<_>>().join(" ");
            eprintln!("corral-bench: {} (see --help)", line.trim_start_matches("error: "));
            ExitCode::from(2)
        }
    }
}
