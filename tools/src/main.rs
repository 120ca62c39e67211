//! `corral-tool`: looks into what a server left on its disks, without a server; and runs an ensemble for whoever wants to see one.
//!
//! Exit codes: 0 fine, 1 when something is damaged or failed, 2 for wrong input. What went wrong is one line on stderr.

use clap::error::ErrorKind;
use clap::{Parser, Subcommand};
use corral_tools::{ensemble, log, sim, snapshot};
use std::io::{BufWriter, Write};
use std::process::ExitCode;

/// Looks into what a coordination server left on its disks, and runs ensembles to try things on
#[derive(Debug, Parser)]
#[command(name = "corral-tool", version)]
struct Cli {
    #[command(subcommand)]
    tool: Tool,
}

#[derive(Debug, Subcommand)]
enum Tool {
    /// Run an ensemble on this machine, and break it
    Ensemble(ensemble::Options),
    /// Look into a transaction log, check it, repair it
    Log(log::Options),
    /// Simulate ensembles and their faults, and check every step
    Sim(sim::Options),
    /// Look into snapshots, check them, compare them
    Snapshot(snapshot::Options),
}

fn main() -> ExitCode {
    let tool = match Cli::try_parse() {
        Ok(cli) => cli.tool,
        Err(error) => return usage(&error),
    };
    let mut out = BufWriter::with_capacity(64 << 10, std::io::stdout().lock());
    let mut notes = |note: &str| eprintln!("corral-tool: {note}");
    let done = match tool {
        Tool::Ensemble(options) => ensemble::run(&options, &mut out),
        Tool::Log(options) => log::run(&options, &mut out, &mut notes),
        Tool::Sim(options) => sim::run(&options, &mut out),
        Tool::Snapshot(options) => snapshot::run(&options, &mut out, &mut notes),
    };
    let done = done.and(out.flush().map_err(Into::into));
    // What is left in the buffer cannot be written either: dropping it would only try again.
    let _ = out.into_parts();
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            if !failure.is_quiet() {
                eprintln!("corral-tool: {failure}");
            }
            ExitCode::from(failure.code())
        }
    }
}

/// Help is printed as clap writes it, an error as one line (clap takes several, with the usage after them).
fn usage(error: &clap::Error) -> ExitCode {
    let text = error.render().to_string();
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => {
            // Whoever asked may have closed the pipe already.
            let _ = std::io::stdout().write_all(text.as_bytes());
            ExitCode::SUCCESS
        }
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
            eprint!("{text}");
            ExitCode::from(2)
        }
        _ => {
            let until_usage = text.split("\nUsage:").next().unwrap_or_default();
            let words = until_usage.split("\nFor more").next().unwrap_or_default().split_whitespace();
            let line = words.collect::<Vec<_>>().join(" ");
            eprintln!("corral-tool: {} (see --help)", line.trim_start_matches("error: "));
            ExitCode::from(2)
        }
    }
}
