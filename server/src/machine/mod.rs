//! One core as a state machine: what it does in a turn. Its clients are served ([`clients`]); on `core-0` the member of the ensemble
//! takes its steps as well ([`member`]): it hears other members and other cores, hands the log to the disk, applies what is committed,
//! and carries out what the replica commands.
//!
//! Whoever has a machine brings it what arrives, lets it take a turn ([`Machine::turn`]), and sleeps until [`Machine::deadline`] or the
//! next event, unless it [has more to do](Machine::has_work). Threads do that with sockets and a device ([`crate::process`]), the
//! simulator with a network and a disk of its own, and neither does anything of a turn itself: what lies outside is behind
//! [`Outside`], [`Host`] and the streams and the disk that the machine is made with.
//!
//! **Invariants**: everything that a turn makes possible is done in it, or `has_work` says that there is more; the disk has its batch
//! before anything else is sent that can wait.
//!
//! **Not here**: threads, sockets, clocks.

mod alarm;
mod clients;
mod commands;
mod crossing;
mod links;
mod member;
mod outbound;
mod peers;
mod port;
mod snapshots;

pub use clients::Clients;
pub use crossing::{Crossing, Host};
pub use member::{Member, MemberOptions};
pub use outbound::Piece;
pub use port::Timed;
pub use snapshots::{Ended, take_snapshot};

use crate::budget::Held;
use crate::clients::worker::{Worker, WorkerOptions};
use crate::consensus::leadership::LinkId;
use crate::consensus::stretch::Stretch;
use crate::replica::{Now, Replica};
use corral_engine::disk::Disk;
use corral_engine::epochs::Epochs;
use corral_engine::txnlog::group::PlacedBatch;
use corral_engine::txnlog::{Log, LogOptions, Recovered};
use corral_engine::{StorageError, Tree};
use corral_proto::peer::Notification;
use corral_proto::{ServerId, Zxid};
use crossbeam::channel::Sender;
use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Weak};
use std::time::Duration;

/// So many answers to clients are few.
const FEW: usize = 4;

/// What other members have said, over what is not a link.
pub enum Heard<S> {
    /// A member votes.
    Vote(ServerId, Notification<'static>),
    /// The leader was dialled: this is the connection to its quorum port, if there is one.
    Dialed(ServerId, Option<(S, SocketAddr)>),
}

/// Something that a turn has done, for whoever checks it.
pub enum Seen<'a> {
    /// A batch goes to the disk; whether it is a leader's.
    Logged(&'a PlacedBatch, bool),
    /// Everything up to there is durable here.
    Durable(Zxid),
    /// Transactions are in the tree; whether it is a leader's.
    Applied(&'a Tree, bool),
    /// Clients are served from now on.
    Serves(&'a Replica, &'a Tree),
    /// This epoch is the member's own.
    TookOver(u32),
    /// The history was cut back, and ends here.
    Truncated(Zxid),
    /// The history is that of the snapshot which came over the link.
    Loaded(LinkId, Zxid),
}

/// What a machine needs done outside: `D` is the log's disk, `S` a stream to another member.
pub trait Outside<D: Disk, S> {
    /// Both clocks.
    fn now(&self) -> Now;
    /// Sends the clients what there is to send them ([`Worker::take_dirty`]).
    fn flush(&mut self, worker: &mut Worker, now: Now);

    /// The next that was heard of other members.
    fn heard(&mut self) -> Option<Heard<S>>;
    /// Whether there is a next.
    fn has_heard(&self) -> bool;
    /// Says this to another member over the election port; it may be lost.
    fn notify(&mut self, to: ServerId, said: Notification<'static>);
    /// Makes a connection to the quorum port of a leader, which is [heard](Outside::heard) of. False if that cannot be tried now.
    fn dial(&mut self, leader: ServerId) -> bool;
    /// Learners may connect from now on, or nobody.
    ///
    /// # Errors
    /// One line; the server cannot go on.
    fn listen(&mut self, open: bool) -> Result<(), String>;
    /// The next learner that has connected.
    fn accept(&mut self) -> Option<(S, SocketAddr)>;
    /// Events of the stream are to be told as those of the link ([`Machine::link_event`]).
    ///
    /// # Errors
    /// What the system answered.
    fn watch(&mut self, stream: &mut S, link: LinkId) -> io::Result<()>;
    /// Makes the snapshot that goes over a link, piece by piece, as long as it is wanted: the tree as it is at `zxid` or a little later.
    ///
    /// # Errors
    /// One line; the server cannot go on.
    fn send_tree(&mut self, link: LinkId, zxid: Zxid, pieces: Sender<Piece>, wanted: Weak<()>) -> Result<(), String>;
    /// The same of a part of the log on the disk.
    ///
    /// # Errors
    /// One line; the server cannot go on.
    fn send_log(&mut self, stretch: Stretch, pieces: Sender<Piece>, wanted: Weak<()>) -> Result<(), String>;

    /// Opens the log where recovery has found its end.
    ///
    /// # Errors
    /// One line; the server cannot go on.
    fn open_log(&mut self, options: &LogOptions, recovered: &Recovered) -> Result<Log<D>, String>;
    /// Begins a snapshot. False if one is still being taken.
    fn snapshot(&mut self, wall_ms: i64) -> bool;
    /// How it went, once.
    fn snapshot_ended(&mut self) -> Option<Ended>;
    /// The log is closed: breaks off a snapshot, and waits until nobody touches the files of the history any more.
    fn stand_still(&mut self);
    /// Keeps the whole history aside, and says where. A crash after that leaves a member that knows that its history is lost.
    ///
    /// # Errors
    /// What the system answered.
    fn give_up(&mut self, epochs: &mut Epochs) -> Result<PathBuf, StorageError>;
    /// Gives the files of the whole history other names as well, and says where.
    ///
    /// # Errors
    /// What the system answered.
    fn keep_copy(&mut self) -> Result<PathBuf, StorageError>;

    /// Something was done.
    fn saw(&mut self, _: Seen<'_>) {}
}

/// How often what need not be done at once is done: sessions hear of their clients' pings twice a tick, as from Apache's followers.
pub fn half_tick(tick: Duration) -> Duration {
    (tick / 2).clamp(Duration::from_millis(1), Duration::from_secs(1))
}

/// One core.
pub struct Machine<D: Disk, S> {
    /// Its clients.
    pub clients: Clients,
    /// On `core-0`.
    pub member: Option<Member<D, S>>,
    /// How often the replica hears which sessions were heard of, and when next.
    heard_every: Duration,
    next_heard: Duration,
}

impl<D: Disk, S: Read + Write> Machine<D, S> {
    /// A core, with the member on `core-0`; `tick` is `tickTime`.
    pub fn new(
        crossing: Arc<Crossing>,
        options: WorkerOptions,
        member: Option<Member<D, S>>,
        tick: Duration,
    ) -> Machine<D, S> {
        let clients = Clients::new(crossing, options);
        Machine { clients, member, heard_every: half_tick(tick), next_heard: Duration::ZERO }
    }

    /// Runs `work` with the worker, a tree that does not change meanwhile, and the way to the replica; before that, the worker is
    /// told of everything that led to that tree.
    pub fn with_tree<R>(&mut self, now: Now, work: impl FnOnce(&mut Worker, &Tree, &mut Timed<'_>) -> R) -> R {
        match &mut self.member {
            Some(member) => self.clients.with_replica(member.direct(now), work),
            None => self.clients.with_queue(now, work),
        }
    }

    /// Something can be read from a link, or written to it; or (`half_closed`) the other side sends no more.
    pub fn link_event(&mut self, link: LinkId, readable: bool, half_closed: bool) {
        if let Some(member) = &mut self.member {
            member.link_event(link, readable, half_closed);
        }
    }

    /// A learner may have connected.
    pub fn knock(&mut self) {
        if let Some(member) = &mut self.member {
            member.knock();
        }
    }

    /// Does everything that there is to do besides what sockets bring.
    ///
    /// # Errors
    /// One line for the operator. Nothing is acknowledged after it.
    pub fn turn(&mut self, now: Now, outside: &mut dyn Outside<D, S>) -> Result<(), String> {
        let is_heard = now.uptime >= self.next_heard;
        if is_heard {
            self.next_heard = now.uptime + self.heard_every;
        }
        let Machine { clients, member, .. } = self;
        if let Some(member) = member {
            if is_heard || member.replica.next_expiry().is_some_and(|at| at <= now.uptime) {
                // Whoever was heard of in this very turn must not expire in it, however long the one before took.
                member.replica.touch(&clients.worker.take_heard(), now.uptime);
            }
            member.take_inbox(now);
            member.expire(now);
            member.reap(now);
            member.hear(now, outside)?;
            member.submit(now, outside)?;
            if member.has_commands() {
                member.send(now, outside)?;
            }
            let later = outside.now();
            member.complete(later, outside)?;
            let own = member.apply(!clients.worker.watches().is_empty(), later, outside);
            clients.deliver(member.direct(later), &own, later);
            // A few answers leave before the learners hear of the commit; many would keep their clients waiting. With none, the disk gets
            // its batch by the same system call in which this core goes to sleep.
            if (1..=FEW).contains(&clients.worker.dirty()) {
                member.push_writes();
                outside.flush(&mut clients.worker, later);
            }
            // What was held behind an answered write may have become the next batch, and the disk may be free.
            member.submit(later, outside)?;
            member.send(later, outside)?;
            member.see_to_snapshots(later, outside);
        } else {
            if is_heard {
                clients.queue_heard();
            }
            clients.hand_over();
        }
        if self.clients.worker.is_stalled() || self.clients.has_deliveries() {
            self.with_tree(now, |worker, tree, port| worker.retry(tree, port, now.uptime));
        }
        // The batch goes to the disk before answers go to sockets: the disk is what takes long.
        if self.clients.worker.dirty() > 0
            && let Some(member) = &mut self.member
        {
            member.push_writes();
        }
        outside.flush(&mut self.clients.worker, now);
        Ok(())
    }

    /// What is held for clients and other members, each with its bound.
    pub fn held(&self) -> impl Iterator<Item = Held> {
        let member = self.member.iter().flat_map(|member| member.held_for_learners().chain([member.backlog()]));
        self.clients.held().chain(member)
    }

    /// Whether another turn would find something to do at once, that no event will tell of.
    pub fn has_work(&self, outside: &dyn Outside<D, S>) -> bool {
        self.clients.has_work() || self.member.as_ref().is_some_and(|member| member.has_work(outside))
    }

    /// When it wants a turn even if nothing happens until then, since the server's start.
    pub fn deadline(&self) -> Duration {
        let member = self.member.as_ref().and_then(Member::deadline);
        member.into_iter().fold(self.next_heard, Duration::min)
    }
}
