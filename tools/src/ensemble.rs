//! `ensemble`: several servers on this machine, for whoever wants to see an ensemble work, or break one.
//!
//! Everything lies in one directory: a configuration, a log and a process id for each member, and its data. Nothing else is
//! remembered: a member runs if the process of that id was started with that configuration.
//!
//! **Invariant**: no process is ended that was not started from here.

#![expect(clippy::disallowed_methods, reason = "it waits for processes")]

use crate::failure::Failure;
use clap::{Args, Subcommand};
use corral_net::client::four_letter_word;
use rustix::process::{Pid, Signal, kill_process};
use std::io::Write;
use std::net::SocketAddr;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Options of `ensemble`.
#[derive(Debug, Args)]
pub struct Options {
    #[command(subcommand)]
    command: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Start the members that do not run, and wait until they serve; the first time this makes them
    Start(Start),
    /// Ask members to stop, and wait until they have (SIGTERM)
    Stop(Which),
    /// End members as a power loss would (SIGKILL)
    Kill(Which),
    /// Show what each member is
    Status(Place),
}

#[derive(Debug, Args)]
struct Place {
    /// Where everything lies
    #[arg(long, value_name = "DIR", default_value = "corral-ensemble")]
    dir: PathBuf,
}

#[derive(Debug, Args)]
struct Start {
    #[command(flatten)]
    place: Place,
    /// Start only these members
    #[arg(value_name = "MEMBER")]
    members: Vec<u8>,
    /// How many members to make, if none are there yet
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u8).range(2..=9))]
    servers: u8,
    /// The first member's client port; the others follow, and their own ports are 1000 and 2000 above these
    #[arg(long, default_value_t = 2181, value_parser = clap::value_parser!(u16).range(1..=60_000))]
    port: u16,
    /// A setting for all members, as in their configuration file, if none are there yet; may be repeated
    #[arg(short = 'o', long = "option", value_name = "KEY=VALUE")]
    options: Vec<String>,
    /// The server to start [default: the corral-server beside this tool]
    #[arg(long, value_name = "FILE")]
    server: Option<PathBuf>,
}

#[derive(Debug, Args)]
struct Which {
    #[command(flatten)]
    place: Place,
    /// Only these members
    #[arg(value_name = "MEMBER")]
    members: Vec<u8>,
}

/// How long members may take to serve, or to stop.
const PATIENCE: Duration = Duration::from_secs(30);
const STEP: Duration = Duration::from_millis(20);
const ANSWER: Duration = Duration::from_secs(2);

/// Runs `ensemble`.
///
/// # Errors
/// One line; see [`Failure`].
pub fn run(options: &Options, out: &mut dyn Write) -> Result<(), Failure> {
    match &options.command {
        Action::Start(start) => self::start(start, out),
        Action::Stop(which) => end(which, Signal::TERM, out),
        Action::Kill(which) => end(which, Signal::KILL, out),
        Action::Status(place) => status(&members(&place.dir)?, out),
    }
}

/// One member, as its files say.
#[derive(Debug)]
struct Member {
    id: u8,
    dir: PathBuf,
    client: SocketAddr,
}

impl Member {
    fn config(&self) -> PathBuf {
        self.dir.join("zoo.cfg")
    }

    fn log(&self) -> PathBuf {
        self.dir.join("server.log")
    }

    /// Its process, if it runs.
    fn pid(&self) -> Option<Pid> {
        let pid: i32 = std::fs::read_to_string(self.dir.join("pid")).ok()?.trim().parse().ok()?;
        // Another process may have got the number since.
        let command = std::fs::read(format!("/proc/{pid}/cmdline")).ok()?;
        let config = self.config();
        let is_ours = command.split(|byte| *byte == 0).any(|word| word == config.as_os_str().as_encoded_bytes());
        Pid::from_raw(pid).filter(|_| is_ours)
    }

    /// `leader`, `follower` or `observer` and its newest zxid, if it serves.
    fn mode(&self) -> Option<(String, String)> {
        self.pid()?;
        let answer = four_letter_word(self.client, "srvr", ANSWER).ok()?;
        let value = |name: &str| answer.lines().find_map(|line| line.strip_prefix(name).map(str::to_owned));
        Some((value("Mode: ")?, value("Zxid: ")?))
    }
}

/// The members that lie in `dir`.
fn members(dir: &Path) -> Result<Vec<Member>, Failure> {
    let missing = || Failure::Usage(format!("{}: there is no ensemble here; make one with start", dir.display()));
    let dir = dir.canonicalize().map_err(|_| missing())?;
    let mut members = Vec::new();
    for id in 1..=u8::MAX {
        let Ok(text) = std::fs::read_to_string(dir.join(id.to_string()).join("zoo.cfg")) else { break };
        let port = text.lines().find_map(|line| line.strip_prefix("clientPort="));
        let Some(port) = port.and_then(|port| port.parse::<u16>().ok()) else {
            return Err(Failure::Failed(format!("{}/{id}/zoo.cfg: names no clientPort", dir.display())));
        };
        members.push(Member { id, dir: dir.join(id.to_string()), client: SocketAddr::from(([127, 0, 0, 1], port)) });
    }
    if members.is_empty() { Err(missing()) } else { Ok(members) }
}

fn chosen(all: Vec<Member>, ids: &[u8]) -> Result<Vec<Member>, Failure> {
    if let Some(unknown) = ids.iter().find(|id| !all.iter().any(|member| member.id == **id)) {
        return Err(Failure::Usage(format!("there is no member {unknown}, only 1 to {}", all.len())));
    }
    Ok(all.into_iter().filter(|member| ids.is_empty() || ids.contains(&member.id)).collect())
}

/// Writes the configurations of a new ensemble.
fn make(start: &Start) -> Result<(), Failure> {
    let dir = &start.place.dir;
    let failed =
        |error: std::io::Error| Failure::Failed(format!("{}: cannot make an ensemble: {error}", dir.display()));
    std::fs::create_dir_all(dir).map_err(failed)?;
    let dir = dir.canonicalize().map_err(failed)?;
    for id in 1..=start.servers {
        let own = dir.join(id.to_string());
        std::fs::create_dir_all(&own).map_err(failed)?;
        std::fs::write(own.join("myid"), format!("{id}\n")).map_err(failed)?;
        let mut text = format!(
            "tickTime=2000\ninitLimit=10\nsyncLimit=5\ndataDir={}\nclientPort={}\nclientPortAddress=127.0.0.1\n\
             4lw.commands.whitelist=*\n",
            own.display(),
            start.port + u16::from(id) - 1
        );
        for other in 1..=start.servers {
            let port = start.port + u16::from(other) - 1;
            text += &format!("server.{other}=127.0.0.1:{}:{}\n", port + 1000, port + 2000);
        }
        start.options.iter().for_each(|option| text += &format!("{option}\n"));
        std::fs::write(own.join("zoo.cfg"), text).map_err(failed)?;
    }
    Ok(())
}

fn start(start: &Start, out: &mut dyn Write) -> Result<(), Failure> {
    if let Some(option) = start.options.iter().find(|option| !option.contains('=')) {
        return Err(Failure::Usage(format!("{option:?} is no KEY=VALUE")));
    }
    if !start.place.dir.join("1/zoo.cfg").exists() {
        make(start)?;
    }
    let beside = || std::env::current_exe().ok().map(|tool| tool.with_file_name("corral-server"));
    let server = start.server.clone().or_else(beside).filter(|server| server.exists()).ok_or_else(|| {
        Failure::Usage("there is no corral-server beside this tool: build it, or name it with --server".to_owned())
    })?;
    let all = members(&start.place.dir)?;
    for member in chosen(members(&start.place.dir)?, &start.members)?.iter().filter(|member| member.pid().is_none()) {
        let failed = |error: std::io::Error| {
            Failure::Failed(format!("member {}: cannot start {}: {error}", member.id, server.display()))
        };
        let log = std::fs::File::options().append(true).create(true).open(member.log()).map_err(failed)?;
        let mut command = Command::new(&server);
        command.arg("--config").arg(member.config()).stdin(Stdio::null());
        command.stdout(log.try_clone().map_err(failed)?).stderr(log);
        // It goes on when this tool, and the terminal, are gone.
        let mut child = command.process_group(0).spawn().map_err(failed)?;
        std::fs::write(member.dir.join("pid"), format!("{}\n", child.id())).map_err(failed)?;
        // A process that has only just become the server has no command line yet by which it could be known.
        while member.pid().is_none() && child.try_wait().map_err(failed)?.is_none() {
            std::thread::sleep(STEP);
        }
    }
    let running = || all.iter().filter(|member| member.pid().is_some());
    let late = Instant::now() + PATIENCE;
    // With fewer than a majority nobody ever serves.
    while running().count() > all.len() / 2 && running().any(|member| member.mode().is_none()) && Instant::now() < late
    {
        std::thread::sleep(STEP);
    }
    status(&all, out)?;
    match all
        .iter()
        .find(|member| (start.members.is_empty() || start.members.contains(&member.id)) && member.pid().is_none())
    {
        Some(member) => {
            Err(Failure::Failed(format!("member {} has ended; {} says why", member.id, member.log().display())))
        }
        None => Ok(()),
    }
}

fn end(which: &Which, signal: Signal, out: &mut dyn Write) -> Result<(), Failure> {
    let all = members(&which.place.dir)?;
    let doomed = chosen(members(&which.place.dir)?, &which.members)?;
    for member in &doomed {
        let Some(pid) = member.pid() else { continue };
        kill_process(pid, signal)
            .map_err(|error| Failure::Failed(format!("member {}: cannot end process {pid:?}: {error}", member.id)))?;
    }
    let late = Instant::now() + PATIENCE;
    while let Some(member) = doomed.iter().find(|member| member.pid().is_some()) {
        if Instant::now() > late {
            return Err(Failure::Failed(format!("member {} does not stop; kill it", member.id)));
        }
        std::thread::sleep(STEP);
    }
    status(&all, out)
}

fn status(members: &[Member], out: &mut dyn Write) -> Result<(), Failure> {
    writeln!(out, "member  clients at        process   mode       zxid")?;
    for member in members {
        let pid = member.pid().map_or("-".to_owned(), |pid| pid.as_raw_nonzero().to_string());
        let (mode, zxid) = match (member.mode(), &*pid) {
            (Some(both), _) => both,
            (None, "-") => ("down".to_owned(), "-".to_owned()),
            (None, _) => ("no quorum".to_owned(), "-".to_owned()),
        };
        writeln!(out, "{:<7} {:<17} {pid:<9} {mode:<10} {zxid}", member.id, member.client.to_string())?;
    }
    Ok(())
}
