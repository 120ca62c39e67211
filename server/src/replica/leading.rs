//! What a leader has besides its leadership: the sessions of the whole ensemble, what is decided and not applied, and an eye on
//! its learners.
//!
//! Every half tick each learner is pinged; its answer names the sessions that it has heard of. A learner that is silent for
//! `syncLimit` ticks, or leaves a proposal unacknowledged for that long, is disconnected; a leader that has no quorum of them
//! gives up (Apache's `Leader.lead` and `LearnerHandler`). So does one whose own disk has not taken a write for as long: a quorum of
//! the others may have disks that do.
//!
//! A learner that is being synchronized is alive as long as it takes what it is sent. When all is sent it has `initLimit` and
//! `syncLimit` to have it on its disk, twice as long each time that this was not enough.
//!
//! **Not here**: what is committed when ([`Leadership`]), requests of clients ([`super::clients`]).

use super::{Asker, LogState, ReplicaOptions, millis};
use crate::consensus::leadership::{Leadership, LinkId, Output};
use crate::consensus::message::{Message, Record};
use crate::mutation::{self, Mutation};
use crate::requests::reaper::Reaper;
use crate::requests::sequencer::Sequencer;
use crate::requests::session::Sessions;
use corral_engine::Tree;
use corral_proto::peer::PacketKind;
use corral_proto::{ServerId, Zxid};
use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

/// Members that are remembered for having been late.
const LATE_MAX: usize = 64;
/// How often a learner gets twice the time.
const TRIES_MAX: u32 = 6;

pub(super) struct Leading {
    pub(super) leadership: Leadership,
    pub(super) sessions: Sessions,
    pub(super) sequencer: Sequencer,
    pub(super) reaper: Reaper,
    /// Bytes of the newest proposal, the smallest and the largest.
    pub(super) proposal_bytes: Option<[usize; 3]>,
    /// This leader's own clients that wait until everything up to there is applied.
    pub(super) syncs: VecDeque<(Zxid, Asker, Option<Box<str>>)>,
    links: BTreeMap<LinkId, Watched>,
    tick: Duration,
    /// How long a learner may be silent.
    patience: Duration,
    /// How long one may take to be synchronized.
    beginning: Duration,
    /// Members that were given up while they were being synchronized, and how often.
    late: BTreeMap<ServerId, u32>,
    /// The epoch must be established by then.
    established_by: Duration,
    beat_at: Duration,
    beats: u64,
}

/// A link to a learner.
struct Watched {
    silent_until: Duration,
    /// What it has yet to acknowledge, and until when.
    owes: Option<(Zxid, Duration)>,
    /// It has taken all that it lacked, and has yet to say that this is on its disk.
    has_taken_all: bool,
}

impl Leading {
    pub(super) fn new(leadership: Leadership, options: &ReplicaOptions, now: Duration) -> Leading {
        let tick = options.tick;
        let (beginning, patience) = (tick * options.init_limit, tick * options.sync_limit);
        Leading {
            leadership,
            sessions: Sessions::new(tick),
            sequencer: Sequencer::new(options.seed, options.access.clone(), options.rules),
            reaper: Reaper::new(options.reaping, now),
            proposal_bytes: None,
            syncs: VecDeque::new(),
            links: BTreeMap::new(),
            tick,
            patience,
            beginning: beginning + patience,
            late: BTreeMap::new(),
            // Discovery, promises and synchronization may each take that long.
            established_by: now + 3 * beginning,
            beat_at: now + tick / 2,
            beats: 0,
        }
    }

    /// All sessions get a full timeout ahead.
    pub(super) fn serve(&mut self, tree: &Tree, now: Duration) {
        for (id, timeout_ms) in tree.sessions() {
            self.sessions.open(*id, millis(*timeout_ms), None, now);
        }
    }

    /// A proposal goes out.
    pub(super) fn propose(&mut self, zxid: Zxid, record: Record, out: &mut Vec<Output>) {
        let bytes = record.bytes.len();
        let [_, min, max] = self.proposal_bytes.unwrap_or([bytes; 3]);
        self.proposal_bytes = Some([bytes, min.min(bytes), max.max(bytes)]);
        self.leadership.propose(zxid, record, out);
    }

    pub(super) fn connected(&mut self, link: LinkId, now: Duration) {
        self.leadership.connected(link);
        self.links.insert(link, Watched { silent_until: now + self.beginning, owes: None, has_taken_all: false });
    }

    pub(super) fn disconnected(&mut self, link: LinkId, out: &mut Vec<Output>) {
        self.leadership.disconnected(link, out);
        self.links.remove(&link);
    }

    /// A learner that is being synchronized has taken some of what it is sent. Once it has taken all, pings and proposals that fit into
    /// its socket say nothing of it.
    pub(super) fn sent(&mut self, link: LinkId, now: Duration, is_all: bool) {
        if let Some(sid) = self.leadership.synchronizing(link)
            && let Some(watched) = self.links.get_mut(&link)
            && !watched.has_taken_all
        {
            watched.has_taken_all = is_all;
            let tries = self.late.get(&sid).copied().unwrap_or_default();
            watched.silent_until = watched.silent_until.max(now + self.beginning * (1 << tries));
        }
    }

    /// Something came over a link.
    pub(super) fn heard(&mut self, link: LinkId, now: Duration) {
        if let Some(watched) = self.links.get_mut(&link) {
            watched.silent_until = now + self.patience.max(watched.silent_until.saturating_sub(now));
        }
    }

    /// What is to be done as time passes.
    pub(super) fn tick(&mut self, now: Duration, log: LogState, out: &mut Vec<Output>) {
        if !self.leadership.is_established() && now >= self.established_by {
            out.push(Output::GiveUp("no quorum of followers came in time".to_owned()));
        }
        if now < self.beat_at {
            return;
        }
        self.beat_at = now + self.tick / 2;
        self.beats += 1;
        let stays = mutation::is_on(Mutation::LeadersWithoutADiskStay);
        let is_late = |since: &Duration| !stays && now.saturating_sub(*since) >= self.patience;
        if let Some(since) = log.waits_since.filter(is_late) {
            let waited = (now - since).as_millis();
            let is = if log.is_full { "is full" } else { "hangs" };
            return out.push(Output::GiveUp(format!(
                "the disk of its log {is}: a write has waited for {waited} ms (syncLimit); others whose disks are well may lead"
            )));
        }
        let proposed = self.leadership.proposed();
        for (link, watched) in &mut self.links {
            let acknowledged = self.leadership.acknowledged(*link);
            watched.owes = match (watched.owes, acknowledged) {
                (Some((zxid, until)), Some(acknowledged)) if acknowledged < zxid => Some((zxid, until)),
                (_, Some(acknowledged)) if acknowledged < proposed => Some((proposed, now + self.patience)),
                _ => None,
            };
            let late = |until: &Duration| now >= *until;
            let synchronizing = self.leadership.synchronizing(*link);
            let why = match watched.owes {
                _ if late(&watched.silent_until) && synchronizing.is_some() => Some(
                    "it has not taken what it was sent, or not put it on its disk, within initLimit and syncLimit; a larger initLimit \
                     gives it more time",
                ),
                _ if late(&watched.silent_until) => Some("nothing was heard of it for syncLimit ticks"),
                Some((_, until)) if late(&until) => Some("it has not acknowledged a proposal for syncLimit ticks"),
                _ => None,
            };
            if let Some(sid) = synchronizing.filter(|_| why.is_some())
                && (self.late.len() < LATE_MAX || self.late.contains_key(&sid))
            {
                let tries = self.late.entry(sid).or_default();
                *tries = (*tries + 1).min(TRIES_MAX);
            }
            out.extend(why.map(|why| Output::Drop(*link, why.to_owned())));
        }
        out.extend(self.leadership.served().map(|link| Output::Send(link, Message::about(PacketKind::Ping, proposed))));
        let is_whole_tick = self.beats.is_multiple_of(2);
        if is_whole_tick && self.leadership.is_established() && !self.leadership.has_quorum() {
            out.push(Output::GiveUp("not enough followers are left for a quorum".to_owned()));
        }
    }

    /// The earliest moment at which [`Leading::tick`] would do anything.
    pub(super) fn deadline(&self) -> Duration {
        match self.leadership.is_established() {
            true => self.beat_at,
            false => self.beat_at.min(self.established_by),
        }
    }
}
