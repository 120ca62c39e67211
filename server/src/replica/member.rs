//! How a member comes from one role to the next: it looks for a leader, is elected or follows, and looks again when that ends.
//!
//! Before it looks, everything in its log must be on its disk: what it votes with is what it has. While it looks, or follows and is
//! not served yet, nobody is served here; whoever was connected is disconnected, and comes again.
//!
//! **Not here**: the protocols of the roles ([`crate::consensus`]), what clients ask for ([`super::clients`]).

use super::following::Following;
use super::leading::Leading;
use super::{Command, LogState, Now, Origin, Replica, Role};
use crate::clients::delivery::Item;
use crate::consensus::election::{Elected, Outbox, UNTRUSTED};
use crate::consensus::leadership::{self, Leadership, LinkId};
use crate::consensus::learner::{self, Learner};
use crate::consensus::message::Message;
use crate::mutation::{self, Mutation};
use corral_engine::Tree;
use corral_engine::txnlog::{Durable, Group};
use corral_proto::peer::learner::Touched;
use corral_proto::peer::{Notification, PacketKind, PeerState};
use corral_proto::{Jute, ServerId, TxnEntry, Zxid};
use std::time::Duration;

/// How often a member tries to reach the leader that it has elected, and how long it pauses: twice as long each time, because
/// mostly the leader just hears of its election a moment later. (Apache tries five times, 100 ms apart.)
const TRIES: u32 = 8;
const PAUSE: Duration = Duration::from_millis(5);

impl Replica {
    /// This member's log has everything up to `durable`: that is its vote.
    pub fn durable(&mut self, log: &mut Group, now: Duration, durable: Durable) {
        self.durable = self.durable.max(durable.upto());
        match &mut self.role {
            Role::Settling => self.settled(now),
            Role::Leading(leading) => {
                let mut orders = Vec::new();
                leading.leadership.durable(durable, &mut orders);
                self.lead(now, orders);
            }
            Role::Following(following) => {
                let mut orders = Vec::new();
                following.learner.durable(durable, &mut orders);
                self.follow(log, now, orders);
            }
            Role::Looking | Role::Seeking { .. } => {}
        }
    }

    /// How the log's disk is now. A leader whose disk takes nothing hands over ([`Leading::tick`]); who cannot log does not vote.
    pub fn log_is(&mut self, now: Duration, state: LogState) {
        if std::mem::replace(&mut self.log_state, state) == state || self.options.ensemble.is_alone(self.options.me) {
            return;
        }
        match self.role {
            Role::Looking if state.is_full => {
                tracing::warn!("this server does not vote while its log is full: it could not lead");
                self.role = Role::Settling;
            }
            Role::Settling if !state.is_full => self.settled(now),
            _ => {}
        }
    }

    /// A member has said over the election port what it votes for.
    pub fn notified(&mut self, now: Duration, from: ServerId, said: &Notification<'_>) {
        let mut out = Outbox::new();
        let elected = match self.role {
            // It votes for nobody yet, and what it would say of itself may be of a former life.
            Role::Settling => None,
            _ => self.election.hear(now, from, said, &mut out),
        };
        self.notify(out);
        elected.into_iter().for_each(|elected| self.elected(now, elected));
    }

    /// Time has passed.
    pub fn tick(&mut self, now: Duration) {
        match &mut self.role {
            Role::Settling => {}
            Role::Looking => {
                let mut out = Outbox::new();
                let elected = self.election.tick(now, &mut out);
                self.notify(out);
                elected.into_iter().for_each(|elected| self.elected(now, elected));
            }
            Role::Seeking { leader, again_at, by, .. } => {
                let leader = *leader;
                if now >= *by {
                    self.look(now, &format!("server {leader} was elected, but could not be reached in time"));
                } else if again_at.take_if(|at| *at <= now).is_some() {
                    self.commands.push(Command::Dial(leader));
                }
            }
            Role::Following(following) => {
                if now >= following.deadline() {
                    let limit = following.limit();
                    self.look(now, &format!("nothing was heard of the leader for {limit} ticks"));
                }
            }
            Role::Leading(leading) => {
                if !self.options.ensemble.is_alone(self.options.me) {
                    let mut orders = Vec::new();
                    leading.tick(now, self.log_state, &mut orders);
                    self.lead(now, orders);
                }
            }
        }
    }

    /// The earliest moment at which [`Replica::tick`] would do anything.
    pub fn deadline(&self) -> Option<Duration> {
        match &self.role {
            Role::Settling => None,
            Role::Looking => self.election.deadline(),
            Role::Seeking { again_at, by, .. } => Some(again_at.map_or(*by, |at| at.min(*by))),
            Role::Following(following) => Some(following.deadline()),
            Role::Leading(_) if self.options.ensemble.is_alone(self.options.me) => None,
            Role::Leading(leading) => Some(leading.deadline()),
        }
    }

    /// How making a link to `leader` went.
    pub fn dialed(&mut self, now: Duration, leader: ServerId, link: Option<LinkId>) {
        match (&mut self.role, link) {
            (Role::Seeking { leader: wanted, .. }, Some(link)) if *wanted == leader => {
                let mut orders = Vec::new();
                let is_observer = !self.options.ensemble.is_voter(self.options.me);
                let learner = Learner::new(self.options.me, is_observer, self.standing, &mut orders);
                let last = self.history.iter().next_back().filter(|(zxid, _)| *zxid == self.standing.last);
                let learner = match last {
                    _ if self.is_lost => learner.without_history(),
                    _ if self.is_astray => learner.wanting_all(),
                    Some((_, record)) => learner.with_last(record),
                    None => learner,
                };
                self.role = Role::Following(Box::new(Following::new(learner, link, &self.options, now)));
                let sends = orders.into_iter().map(|order| match order {
                    learner::Output::Send(message) => Command::Send(link, message),
                    other => unreachable!("{other:?} before anything was heard"),
                });
                self.commands.extend(sends);
            }
            (Role::Seeking { leader: wanted, tries, again_at, .. }, None) if *wanted == leader => {
                *tries += 1;
                match *tries < TRIES {
                    true => *again_at = Some(now + PAUSE * (1 << *tries)),
                    false => self.look(now, &format!("server {leader} was elected, but cannot be reached")),
                }
            }
            (_, Some(link)) => self.commands.push(Command::Drop(link, "it is not wanted any more".to_owned())),
            (_, None) => {}
        }
    }

    /// A learner has connected.
    pub fn accepted(&mut self, now: Duration, link: LinkId) {
        match &mut self.role {
            Role::Leading(leading) => leading.connected(link, now),
            _ => self.commands.push(Command::Drop(link, "this member does not lead".to_owned())),
        }
    }

    /// A link is gone; `why` is for people.
    pub fn lost(&mut self, now: Duration, link: LinkId, why: &str) {
        match &mut self.role {
            Role::Leading(leading) => {
                let mut orders = Vec::new();
                leading.disconnected(link, &mut orders);
                self.lead(now, orders);
            }
            Role::Following(following) if following.link == link => {
                let hint = match self.serving {
                    true => "",
                    false => {
                        " before this member was synchronized; if it was too slow, a larger initLimit gives it more time"
                    }
                };
                self.look(now, &format!("the link to the leader is gone ({why}){hint}"));
            }
            _ => {}
        }
    }

    /// The log on the disk has everything after `reach`, as far as that is worth reading. To be said before a learner is heard that
    /// tells what it has.
    pub fn log_reaches(&mut self, reach: Option<Zxid>) {
        if let Role::Leading(leading) = &mut self.role {
            leading.leadership.log_reaches(reach);
        }
    }

    /// What was to be sent from the log over a link is not there. Nothing of it was sent, nor anything that was to follow: the learner
    /// is sent something else.
    pub fn log_lacks(&mut self, now: Duration, link: LinkId) {
        if let Role::Leading(leading) = &mut self.role {
            let mut orders = Vec::new();
            leading.leadership.log_lacks(link, &mut orders);
            self.lead(now, orders);
        }
    }

    /// What was to be sent from the log over a link broke off, and the link is gone.
    pub fn log_failed(&mut self, now: Duration, link: LinkId, why: &str) {
        if let Role::Leading(leading) = &mut self.role {
            leading.leadership.log_failed(link);
        }
        self.lost(now, link, why);
    }

    /// Part of something larger came over a link.
    pub fn progress(&mut self, now: Duration, link: LinkId) {
        match &mut self.role {
            Role::Leading(leading) => leading.heard(link, now),
            Role::Following(following) if following.link == link => following.heard_of_leader(now),
            _ => {}
        }
    }

    /// The other side of a link has taken something, or all (`is_all`), of what there was to send.
    pub fn sent(&mut self, now: Duration, link: LinkId, is_all: bool) {
        if let Role::Leading(leading) = &mut self.role {
            leading.sent(link, now, is_all);
        }
    }

    /// Something came over a link.
    pub fn hear(&mut self, tree: &Tree, log: &mut Group, now: Now, link: LinkId, said: Message) {
        self.progress(now.uptime, link);
        match &mut self.role {
            Role::Leading(leading) => {
                let mut orders = Vec::new();
                leading.leadership.hear(link, said, &mut orders);
                for (link, said) in self.lead(now.uptime, orders) {
                    self.asked(tree, log, now, link, &said);
                }
            }
            Role::Following(following) if following.link == link => {
                let mut orders = Vec::new();
                following.learner.hear(said, &mut orders);
                self.follow(log, now.uptime, orders);
                self.answer_syncs(tree);
            }
            _ => {}
        }
    }

    /// The snapshot that came over the link is the whole history now, and durable.
    pub fn loaded(&mut self) {
        let Role::Following(following) = &mut self.role else { return };
        following.learner.loaded();
        let end = following.learner.applicable();
        self.is_astray = false;
        self.begin_at(end);
        self.history.forget();
    }

    /// The log is cut back and ends here, and the tree was restored from it.
    pub fn truncated(&mut self, end: Zxid) {
        self.remember(end);
        self.begin_at(end);
        self.history.cut(end);
        if self.history.newest() != Some(end) {
            // The beginning of an epoch, which is no transaction; or nothing of what is left is in memory.
            self.history.forget();
        }
    }

    /// What is in the log and was not applied belongs to what is at hand all the same: this member may be the next leader.
    fn remember(&mut self, upto: Zxid) {
        for proposal in self.proposals.iter().take_while(|proposal| proposal.zxid <= upto) {
            if self.history.newest().is_none_or(|newest| newest < proposal.zxid) {
                self.history.push(proposal.zxid, &proposal.record);
            }
        }
    }

    /// The log ends here, and the tree has all of it.
    fn begin_at(&mut self, end: Zxid) {
        self.proposals.clear();
        self.cut = 0;
        (self.standing.last, self.durable, self.committed) = (end, end, end);
    }

    /// Looks for a leader, because what was is over.
    pub(super) fn look(&mut self, now: Duration, why: &str) {
        match std::mem::replace(&mut self.role, Role::Settling) {
            Role::Leading(leading) => {
                tracing::warn!("no longer leading: {why}");
                self.commands.push(Command::Listen(false));
                self.history = leading.leadership.into_history();
            }
            Role::Following(following) => {
                tracing::warn!("no longer following: {why}");
                self.commands.push(Command::Drop(following.link, why.to_owned()));
            }
            _ => tracing::info!("looking for a leader again: {why}"),
        }
        self.proposals.iter_mut().for_each(|proposal| (proposal.from, proposal.reads) = (Origin::Nobody, None));
        if std::mem::take(&mut self.serving) {
            for outbox in &mut self.outbox {
                outbox.items.push(Item::CloseAll);
            }
        }
        self.settled(now);
    }

    /// Votes, if everything in the log is on the disk.
    pub(super) fn settled(&mut self, now: Duration) {
        if self.durable < self.standing.last || self.log_state.is_full {
            return;
        }
        self.role = Role::Looking;
        let mut out = Outbox::new();
        let last = if self.is_lost { UNTRUSTED } else { self.standing.last };
        self.election.look(now, last, self.standing.current.into(), &mut out);
        let (round, current) = (self.election.round(), self.standing.current);
        match self.is_lost {
            false => tracing::info!("LOOKING: round {round}, epoch {current}, {}", self.standing.last),
            true => tracing::warn!(
                "LOOKING: round {round}, epoch {current}. This server does not vote: its history is lost, and it waits for a leader \
                 that a quorum of the others has elected"
            ),
        }
        self.notify(out);
    }

    fn notify(&mut self, out: Outbox) {
        self.commands.extend(out.into_iter().map(|(to, said)| Command::Notify(to, said)));
    }

    fn elected(&mut self, now: Duration, elected: Elected) {
        let leader = elected.vote.leader;
        match elected.state {
            PeerState::Leading => {
                tracing::info!("LEADING: elected in round {}", self.election.round());
                self.remember(self.standing.last);
                let history = std::mem::take(&mut self.history);
                let mut orders = Vec::new();
                let ensemble = self.options.ensemble.clone();
                let leadership = Leadership::new(self.options.me, ensemble, self.standing, history, &mut orders);
                self.role = Role::Leading(Box::new(Leading::new(leadership, &self.options, now)));
                self.commands.push(Command::Listen(true));
                self.lead(now, orders);
            }
            state => {
                tracing::info!(
                    "{}: server {leader} was elected",
                    if state == PeerState::Following { "FOLLOWING" } else { "OBSERVING" }
                );
                let by = now + self.options.tick * self.options.init_limit;
                self.role = Role::Seeking { leader, tries: 0, again_at: None, by };
                self.commands.push(Command::Dial(leader));
            }
        }
    }

    /// Carries out what the leadership has ordered. Returns what is for whoever has the sessions.
    pub(super) fn lead(&mut self, now: Duration, orders: Vec<leadership::Output>) -> Vec<(LinkId, Message)> {
        let mut passed = Vec::new();
        for order in orders {
            match order {
                leadership::Output::Send(link, message) => self.commands.push(Command::Send(link, message)),
                leadership::Output::Snapshot(link, zxid) => self.commands.push(Command::Snapshot(link, zxid)),
                leadership::Output::FromLog(link, stretch) => self.commands.push(Command::FromLog(link, stretch)),
                leadership::Output::Promise(epoch) => self.promise(epoch),
                leadership::Output::TakeOver(epoch) => self.take_over(epoch),
                leadership::Output::Serve(epoch) => {
                    self.election.established(epoch.into());
                    self.committed = self.standing.last;
                    self.commands.push(Command::Serve);
                }
                leadership::Output::Commit(upto) => self.committed = upto,
                leadership::Output::GiveUp(why) => {
                    self.look(now, &why);
                    break;
                }
                leadership::Output::Drop(link, why) => {
                    self.commands.push(Command::Drop(link, why));
                    let mut more = Vec::new();
                    if let Role::Leading(leading) = &mut self.role {
                        leading.disconnected(link, &mut more);
                    }
                    passed.append(&mut self.lead(now, more));
                    if !matches!(self.role, Role::Leading(_)) {
                        break;
                    }
                }
                leadership::Output::Pass(link, message) => passed.push((link, message)),
            }
        }
        passed
    }

    /// Carries out what the learner has ordered.
    fn follow(&mut self, log: &mut Group, now: Duration, orders: Vec<learner::Output>) {
        for order in orders {
            let Role::Following(following) = &mut self.role else { return };
            let link = following.link;
            match order {
                learner::Output::Send(message) => self.commands.push(Command::Send(link, message)),
                learner::Output::Promise(epoch) => self.promise(epoch),
                learner::Output::TakeOver(epoch) => self.take_over(epoch),
                learner::Output::Truncate(upto) => self.commands.push(Command::Truncate(upto)),
                learner::Output::Load(zxid) => self.commands.push(Command::Load(link, zxid)),
                learner::Output::Append(zxid, record) => match TxnEntry::decode(&record) {
                    Ok(entry) if entry.header.zxid == zxid => {
                        let (from, reads) = match following.asker(&entry.header) {
                            Some((asker, reads)) => (Origin::Client(asker), reads),
                            None => (Origin::Nobody, None),
                        };
                        log.append_encoded(zxid, &record, now);
                        self.logged(zxid, from, reads);
                    }
                    Ok(entry) => {
                        let why = format!("transaction {} was proposed as {zxid}", entry.header.zxid);
                        return self.look(now, &why);
                    }
                    Err(error) => {
                        return self.look(now, &format!("transaction {zxid} cannot be understood: {error}"));
                    }
                },
                learner::Output::Commit(upto) => self.committed = upto,
                learner::Output::Serve => {
                    self.election.established(following.learner.epoch().into());
                    self.committed = following.learner.applicable();
                    self.commands.push(Command::Serve);
                }
                learner::Output::Pass(message) => self.told(message),
                learner::Output::Leave(why) => return self.look(now, &why),
            }
        }
    }

    /// The leader says something about sessions and clients.
    fn told(&mut self, message: Message) {
        let Role::Following(following) = &mut self.role else { return };
        match message.kind {
            PacketKind::Ping => {
                let heard = std::mem::take(&mut following.heard);
                let heard = heard.into_iter().map(|(session, timeout_ms)| Touched { session, timeout_ms });
                let data: Vec<u8> = heard.flat_map(|touched| touched.to_vec()).collect();
                self.commands.push(Command::Send(following.link, Message::with(PacketKind::Ping, message.zxid, data)));
            }
            PacketKind::Sync => {
                if let Some((asker, path)) = following.syncs.pop_front() {
                    following.synced.push_back((following.learner.committed(), asker, path));
                }
            }
            _ => self.revalidated(&message),
        }
    }

    fn promise(&mut self, epoch: u32) {
        self.standing.accepted = epoch;
        if !mutation::is_on(Mutation::PromisesAreForgotten) {
            self.commands.push(Command::Promise(epoch));
        }
    }

    fn take_over(&mut self, epoch: u32) {
        self.standing.current = epoch;
        self.is_lost = false;
        if !mutation::is_on(Mutation::TakingOverIsForgotten) {
            self.commands.push(Command::TakeOver(epoch));
        }
    }
}
