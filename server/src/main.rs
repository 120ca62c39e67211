//! `corral-server`: reads its configuration, starts, says what it is, and runs until it is told to stop.
//!
//! Exit codes are Apache ZooKeeper's: 0 after SIGTERM or SIGINT, 1 when something failed, 2 for a bad invocation or
//! configuration, 3 when the data directory cannot be used.

#![expect(clippy::disallowed_methods, reason = "this is where the process begins: one thread waits for signals")]

use clap::Parser;
use corral_server::config::{self, Defaults};
use corral_server::process::embedded::{self, StartError};
use crossbeam::channel::{Sender, bounded, select};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

/// A coordination server that speaks the Apache ZooKeeper protocols.
///
/// Without a configuration it runs standalone on 127.0.0.1:2181 with its data in ./corral-data.
#[derive(Parser)]
#[command(version)]
struct Options {
    /// A configuration file as ZooKeeper writes it.
    #[arg(long, short, value_name = "zoo.cfg")]
    config: Option<PathBuf>,
    /// One setting, instead of or on top of the file's; may be given several times.
    #[arg(short = 'o', value_name = "key=value")]
    settings: Vec<String>,
}

fn main() -> ExitCode {
    let options = Options::parse();
    let filter = tracing_subscriber::EnvFilter::try_from_env("CORRAL_LOG").unwrap_or_else(|_| "info".into());
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_target(false).init();
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let config = match config::load(options.config.as_deref(), &options.settings, &Defaults { cores }) {
        Ok((config, warnings)) => {
            warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
            config
        }
        Err(error) => return fail(2, &error.to_string()),
    };
    if let Err(error) = raise_descriptor_limit() {
        tracing::warn!("cannot raise the limit of open files: {error}");
    }
    // Before anybody can see that the server runs: whoever sees it may want to stop it.
    let (told, signals) = bounded(1);
    if let Err(error) = watch_signals(told) {
        return fail(1, &format!("cannot wait for signals: {error}"));
    }
    let (server, banner) = match embedded::start(config) {
        Ok(started) => started,
        Err(error @ StartError::Store(_)) => return fail(3, &error.to_string()),
        Err(error) => return fail(1, &error.to_string()),
    };
    let mut stdout = std::io::stdout();
    // Whoever started the server may have closed its output; that is no reason not to serve.
    let _ = writeln!(stdout, "{banner}").and_then(|()| stdout.flush());
    let mut failure = None;
    select! {
        recv(signals) -> signal => tracing::info!("stopping: {}", signal.unwrap_or("told to")),
        recv(server.ended()) -> ended => failure = ended.ok().and_then(Result::err),
    }
    match (failure, server.stop()) {
        (None, Ok(())) => ExitCode::SUCCESS,
        (Some(error), _) | (None, Err(error)) => fail(1, &error),
    }
}

/// As many connections and files as the system allows this process, not as many as its shell asked for.
fn raise_descriptor_limit() -> rustix::io::Result<()> {
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit })
}

fn watch_signals(told: Sender<&'static str>) -> std::io::Result<()> {
    let mut signals = Signals::new([SIGTERM, SIGINT])?;
    std::thread::Builder::new().name("signals".to_owned()).spawn(move || {
        for signal in signals.forever() {
            let _ = told.try_send(if signal == SIGTERM { "SIGTERM" } else { "SIGINT" });
        }
    })?;
    Ok(())
}

fn fail(code: u8, error: &str) -> ExitCode {
    eprintln!("corral-server: {error}");
    ExitCode::from(code)
}
