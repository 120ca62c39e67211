//! The server of a cell: a process of its own, made by starting this very program again (`corral-bench serve`), with the same
//! library in it that `corral-server` is made of.
//!
//! The child says where it serves on its standard output, what went wrong on its standard error (a file), and stops when its
//! standard input is closed. That happens however this process ends, so no server is left behind.
//!
//! **Invariants**: a cell's directories are new, below those that were named, and removed with the cell; nothing else there is
//! touched.

#![expect(clippy::disallowed_methods, reason = "a child that does not stop is waited for, by the clock")]

use super::plan::Cell;
use corral_server::process::embedded::{Embedded, EmbeddedOptions};
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::SocketAddr;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// What `corral-bench serve` is told.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct ServeOptions {
    /// Its data directory
    #[arg(long)]
    dir: PathBuf,
    /// A setting, as in a server's configuration file; may be repeated
    #[arg(short = 'o', value_name = "KEY=VALUE")]
    settings: Vec<String>,
}

/// Serves until standard input ends.
pub(crate) fn serve(options: &ServeOptions) -> Result<(), String> {
    let server = Embedded::start(&EmbeddedOptions { dir: options.dir.clone(), settings: options.settings.clone() })?;
    let mut out = io::stdout();
    writeln!(out, "{}", server.address()).and_then(|()| out.flush()).map_err(|error| error.to_string())?;
    // Whatever is said here is of no interest; that nothing more can be said is.
    let _ = io::copy(&mut io::stdin().lock(), &mut io::sink());
    server.stop()
}

/// How long a server may take to start, and to stop.
const PATIENCE: Duration = Duration::from_secs(60);

/// A running one.
#[derive(Debug)]
pub(crate) struct CellServer {
    child: Child,
    address: SocketAddr,
    said: PathBuf,
    _dirs: [TempDir; 2],
}

impl CellServer {
    /// Starts one.
    ///
    /// # Errors
    /// Its own last words.
    pub(crate) fn start(cell: &Cell) -> Result<CellServer, String> {
        let log = new_dir(&cell.log_dir)?;
        let data = new_dir(&cell.data_dir)?;
        let said = data.path().join("said");
        let cannot = |error: io::Error| format!("cannot start a server: {error}");
        let mut command = Command::new(std::env::current_exe().map_err(cannot)?);
        command.arg("serve").arg("--dir").arg(data.path().join("data"));
        command.arg("-o").arg(format!("dataLogDir={}", log.path().join("log").display()));
        for setting in cell.settings() {
            command.arg("-o").arg(setting);
        }
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(File::create(&said).map_err(cannot)?);
        // An interrupt from the terminal is for this process, which then ends the server in order.
        command.process_group(0);
        let mut child = command.spawn().map_err(cannot)?;
        let mut line = String::new();
        let out = child.stdout.take().expect("piped");
        // It is one short line, or the end of a server that did not start.
        let _ = BufReader::new(out.take(100)).read_line(&mut line);
        match line.trim().parse() {
            Ok(address) => Ok(CellServer { child, address, said, _dirs: [log, data] }),
            Err(_) => {
                end(&mut child);
                Err(last_words(&said).unwrap_or_else(|| "the server ended without a word".to_owned()))
            }
        }
    }

    /// Where it serves.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its process.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Stops it.
    ///
    /// # Errors
    /// What it said if it did not end well.
    pub(crate) fn stop(mut self) -> Result<(), String> {
        if end(&mut self.child) { Ok(()) } else { Err(self.last_words()) }
    }

    /// What it said last, for the reason of a failure.
    pub(crate) fn last_words(&self) -> String {
        last_words(&self.said).unwrap_or_else(|| "the server ended without a word".to_owned())
    }
}

impl Drop for CellServer {
    fn drop(&mut self) {
        end(&mut self.child);
    }
}

fn new_dir(parent: &Path) -> Result<TempDir, String> {
    let made = tempfile::Builder::new().prefix("corral-bench-").tempdir_in(parent);
    made.map_err(|error| format!("cannot make a directory in {}: {error}", parent.display()))
}

/// Ends a child by closing its input; true if it ended well. One that does not end is killed.
fn end(child: &mut Child) -> bool {
    drop(child.stdin.take());
    let until = Instant::now() + PATIENCE;
    loop {
        match child.try_wait() {
            Ok(Some(status)) => return status.success(),
            Ok(None) if Instant::now() < until => std::thread::sleep(Duration::from_millis(2)),
            _ => {
                let _ = child.kill();
                let _ = child.wait();
                return false;
            }
        }
    }
}

fn last_words(said: &Path) -> Option<String> {
    let said = fs::read_to_string(said).ok()?;
    let line = said.lines().rev().find(|line| !line.trim().is_empty())?;
    Some(line.trim_start_matches("corral-bench: ").trim_start_matches("the embedded server did not start: ").to_owned())
}
