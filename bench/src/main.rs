//! `corral-bench`: how fast a coordination server is, and where the time goes.
//!
//! `load` puts any server of the ZooKeeper protocol under load.
//!
//! Exit codes: 0 when it measured something, 1 when it could not, 2 when it was told something impossible. What went
//! wrong is one line on stderr.

mod options;

mod load;

mod embedded;
mod environment;
mod progress;
mod report;

use clap::error::ErrorKind;
use clap::{Parser, Subcommand};
use options::LoadOptions;
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
    /// Put a server under load and measure throughput and latency
    Load(Box<LoadOptions>),
}

fn main() -> ExitCode {
    let Command::Load(options) = match Cli::try_parse() {
        Ok(cli) => cli.command,
        Err(error) => return usage(&error),
    };
    if let Err(why) = options.check() {
        eprintln!("corral-bench: {why}");
        return ExitCode::from(2);
    }
    match load::run(&options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("corral-bench: {why}");
            ExitCode::from(1)
        }
    }
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
