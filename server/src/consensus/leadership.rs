//! A member that was elected: from the first learner's word to the broadcast of proposals (Apache's `Leader` and
//! `LearnerHandler`).
//!
//! 1. **Discovery**: when a quorum has told which epochs it has promised, a newer one begins; all are told. Each answers with where
//!    its history ends, and a learner that is ahead of the leader is sent away: then the election was wrong.
//! 2. **Synchronization**: when a quorum has promised the epoch, the leader takes it over, and each learner is sent what it lacks
//!    (`sending`), then `NEWLEADER`. From that moment it also gets every new proposal.
//! 3. **Broadcast**: when a quorum has acknowledged that, the epoch is established, and what the leader's history held is
//!    committed. Proposals go to all learners; a quorum of acknowledgements commits them, strictly in order.
//!
//! **Invariants**: at most one epoch a leadership, newer than all that a quorum had promised; the leader counts for itself only what
//! is durable; nothing is proposed before the epoch is established; a learner is told of commits only after their proposals.
//!
//! **Not here**: the election, links and time-outs, reading transactions back from the disk, the snapshot's bytes, sessions.

mod sending;

use super::history::History;
use super::learner::{crc_in, epoch_in};
use super::message::{EPOCH_MAX, Message, Record, Standing};
use super::stretch::Stretch;
use super::{Ensemble, Quorum};
use crate::mutation::{self, Mutation};
use corral_engine::txnlog::Durable;
use corral_proto::peer::PacketKind;
use corral_proto::peer::learner::{LearnerInfo, PROTOCOL};
use corral_proto::{ServerId, Zxid};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

/// A link to a learner. A member that comes again has another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LinkId(pub u64);

/// What is to be done, in the order given; each is done, and durable where it writes, before the next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Send this to a learner.
    Send(LinkId, Message),
    /// Send a snapshot of the tree to a learner, as it stood at this transaction when it was ordered.
    Snapshot(LinkId, Zxid),
    /// Send a learner this part of the log on the disk; if it is not there, [`Leadership::log_failed`].
    FromLog(LinkId, Stretch),
    /// Never follow the leader of an earlier epoch again.
    Promise(u32),
    /// This is the epoch of the leader's own history now.
    TakeOver(u32),
    /// The epoch is established: requests may be taken, and clients served.
    Serve(u32),
    /// Everything up to here is committed, and may be applied; a quorum may be faster than the leader's own disk.
    Commit(Zxid),
    /// Look for a leader again: with this one not everybody can work. (Apache's leader stays, and such a member stays out until
    /// the next election; one more failure is then one too many.)
    GiveUp(String),
    /// Close a link.
    Drop(LinkId, String),
    /// Nothing for this machine: for whoever has sessions and requests.
    Pass(LinkId, Message),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Stage {
    /// Connected.
    New,
    /// Has told which epoch it has promised.
    Known,
    /// Has promised this one, and told where its history ends.
    Promised,
    /// Was sent what it lacks, and gets proposals.
    Sent,
    /// Has all of it on its disk.
    Synchronized,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Learner {
    sid: ServerId,
    /// It came as an observer: it is told of what is committed, not of proposals.
    is_observer: bool,
    /// Its acknowledgements count. (A follower that is not in the configuration gets everything, and does not.)
    votes: bool,
    stage: Stage,
    have: Zxid,
    /// The checksum of that transaction, if it has told.
    have_crc: Option<u32>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Phase {
    Discovery,
    /// A quorum is to promise the epoch.
    Promising,
    Synchronization,
    Broadcast,
    /// As broadcast, to nobody.
    Alone,
}

/// The machine.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Leadership {
    me: ServerId,
    ensemble: Arc<Ensemble>,
    standing: Standing,
    phase: Phase,
    /// The epochs that those who came have promised.
    promised: BTreeMap<ServerId, u32>,
    /// Who has promised this one.
    followers: BTreeSet<ServerId>,
    /// Whose disk has the leader's history.
    synchronized: BTreeSet<ServerId>,
    learners: BTreeMap<LinkId, Learner>,
    quorum: Quorum,
    /// The newest that has its place in the order; it is proposed once its bytes are known.
    ordered: Zxid,
    proposed: Zxid,
    committed: Zxid,
    /// What the leader's own disk has.
    durable: Zxid,
    /// Not committed yet, oldest first.
    outstanding: VecDeque<(Zxid, Record)>,
    /// Committed.
    history: History,
    /// The log on the disk has everything after this, as far as that is worth reading.
    reach: Option<Zxid>,
    /// Servers that could not be sent what they lack from the log, members or not; few ([`sending::LOG_LACKS_MAX`]).
    log_lacks: BTreeSet<ServerId>,
    /// Learners that wait until everything up to there is committed, in that order.
    syncs: VecDeque<(Zxid, LinkId)>,
}

impl Leadership {
    /// Of a member that was elected. `history` has the newest transactions of its log, as many as it has at hand.
    pub fn new(
        me: ServerId,
        ensemble: Arc<Ensemble>,
        standing: Standing,
        history: History,
        out: &mut Vec<Output>,
    ) -> Leadership {
        let mut leadership = Leadership::begin(me, ensemble, standing, history, Phase::Discovery);
        leadership.discover(out);
        leadership
    }

    /// Of a server that is its whole ensemble. It needs nobody's promise, and goes on in the epoch that it is in.
    pub fn alone(me: ServerId, ensemble: Arc<Ensemble>, last: Zxid) -> Leadership {
        assert!(ensemble.is_alone(me), "others would have to be asked");
        let standing = Standing { accepted: last.epoch(), current: last.epoch(), last };
        Leadership::begin(me, ensemble, standing, History::new(), Phase::Alone)
    }

    fn begin(me: ServerId, ensemble: Arc<Ensemble>, standing: Standing, history: History, phase: Phase) -> Leadership {
        assert!(history.newest().is_none_or(|newest| newest == standing.last), "the newest are at hand");
        Leadership {
            me,
            ensemble: ensemble.clone(),
            standing,
            phase,
            promised: BTreeMap::from([(me, standing.accepted)]),
            followers: BTreeSet::new(),
            synchronized: BTreeSet::new(),
            learners: BTreeMap::new(),
            quorum: Quorum::new(ensemble, standing.last),
            ordered: standing.last,
            proposed: standing.last,
            committed: standing.last,
            durable: standing.last,
            outstanding: VecDeque::new(),
            history,
            reach: None,
            log_lacks: BTreeSet::new(),
            syncs: VecDeque::new(),
        }
    }

    /// What is at hand of the member's history; the leadership is over. Of what is outstanding it is the log that knows.
    pub fn into_history(self) -> History {
        self.history
    }

    /// The epoch, once there is one.
    pub fn epoch(&self) -> Option<u32> {
        (self.phase != Phase::Discovery).then_some(self.standing.accepted)
    }

    /// Whether requests are taken.
    pub fn is_established(&self) -> bool {
        matches!(self.phase, Phase::Broadcast | Phase::Alone)
    }

    /// The newest proposal.
    pub fn proposed(&self) -> Zxid {
        self.proposed
    }

    /// The newest that a quorum has.
    pub fn committed(&self) -> Zxid {
        self.committed
    }

    /// What a learner over this link has acknowledged, if it votes and gets proposals.
    pub fn acknowledged(&self, link: LinkId) -> Option<Zxid> {
        let learner =
            self.learners.get(&link).filter(|learner| learner.votes && learner.stage >= Stage::Synchronized)?;
        self.quorum.acknowledged(learner.sid)
    }

    /// Who is at the other end of a link, once it has said so.
    pub fn learner(&self, link: LinkId) -> Option<ServerId> {
        self.learners.get(&link).filter(|learner| learner.stage > Stage::New).map(|learner| learner.sid)
    }

    /// Who is at the other end of a link, if it is being sent the history and has not acknowledged that.
    pub fn synchronizing(&self, link: LinkId) -> Option<ServerId> {
        self.learners.get(&link).filter(|learner| learner.stage == Stage::Sent).map(|learner| learner.sid)
    }

    /// The links to learners that are being served: those are to be pinged.
    pub fn served(&self) -> impl Iterator<Item = LinkId> + '_ {
        self.learners.iter().filter(|(_, learner)| learner.stage >= Stage::Sent).map(|(link, _)| *link)
    }

    /// How many learners there are that vote and have the history, and how many that do not vote.
    pub fn synchronized(&self) -> (usize, usize) {
        let ready = self.learners.values().filter(|learner| learner.stage == Stage::Synchronized);
        let voters = ready.clone().filter(|learner| learner.votes).count();
        (voters, ready.count() - voters)
    }

    /// The members that keep up: those whose disk has the history, and that are still connected. Without a quorum of them the
    /// leader must give up.
    pub fn has_quorum(&self) -> bool {
        let connected = |voter: ServerId| {
            let mut learners = self.learners.values();
            learners.any(|learner| learner.sid == voter && learner.votes && learner.stage >= Stage::Promised)
        };
        self.ensemble.is_quorum(|voter| voter == self.me || connected(voter))
    }

    /// Gives the next transaction its place in the order; `None` when the epoch has had `most` of them, and a new one must be elected
    /// (ZOOKEEPER-1277). A server alone needs no election for that.
    pub fn order(&mut self, most: u32) -> Option<Zxid> {
        assert!(self.is_established(), "nothing is proposed before the epoch is established");
        self.ordered = match self.phase {
            Phase::Alone => next_alone(self.ordered),
            _ => self.ordered.next().filter(|next| next.counter() <= most)?,
        };
        Some(self.ordered)
    }

    /// A transaction that was ordered is on its way to the log: the learners get the same bytes.
    pub fn propose(&mut self, zxid: Zxid, record: Record, out: &mut Vec<Output>) {
        assert!(zxid > self.proposed && zxid <= self.ordered, "{zxid} is proposed after {}", self.proposed);
        self.proposed = zxid;
        if self.phase == Phase::Alone {
            return;
        }
        for (link, learner) in &self.learners {
            if learner.stage >= Stage::Sent && !learner.is_observer {
                out.push(Output::Send(*link, Message::carrying(PacketKind::Proposal, zxid, record.clone())));
            }
        }
        self.outstanding.push_back((zxid, record));
    }

    /// A learner wants to know when everything is committed that was ordered before.
    pub fn sync(&mut self, link: LinkId, out: &mut Vec<Output>) {
        match self.ordered > self.committed {
            true => self.syncs.push_back((self.ordered, link)),
            false => out.push(Output::Send(link, SYNCED)),
        }
    }

    /// The leader's own log has everything up to `durable`: that is its vote.
    pub fn durable(&mut self, durable: Durable, out: &mut Vec<Output>) {
        assert!(durable.upto() <= self.proposed, "only what was proposed is logged");
        self.durable = self.durable.max(durable.upto());
        self.quorum.ack(self.me, durable.upto());
        self.commit(out);
    }

    /// A learner has connected.
    pub fn connected(&mut self, link: LinkId) {
        let (sid, is_observer, votes) = (ServerId(-1), true, false);
        let learner = Learner { sid, is_observer, votes, stage: Stage::New, have: Zxid::ZERO, have_crc: None };
        let before = self.learners.insert(link, learner);
        assert!(before.is_none(), "a link is used once");
    }

    /// A learner's link is gone. Until the epoch is established, only those count that are still there: a leader that is
    /// established by the words of members that have left would serve clients from the past. One whose promise it had, and without
    /// which there is no quorum, looks for a leader again, and needs this member for that.
    pub fn disconnected(&mut self, link: LinkId, out: &mut Vec<Output>) {
        if let Some(gone) = self.learners.remove(&link)
            && !self.is_established()
        {
            self.synchronized.remove(&gone.sid);
            if gone.votes && gone.stage >= Stage::Promised && !self.has_quorum() {
                out.push(Output::GiveUp(format!("server {} has left before the epoch was established", gone.sid)));
            }
        }
    }

    /// A learner said something.
    pub fn hear(&mut self, link: LinkId, said: Message, out: &mut Vec<Output>) {
        if !self.learners.contains_key(&link) {
            return;
        }
        if let Err(why) = self.step(link, said, out) {
            self.learners.remove(&link);
            out.push(Output::Drop(link, why));
        }
    }

    fn step(&mut self, link: LinkId, said: Message, out: &mut Vec<Output>) -> Result<(), String> {
        let learner = self.learners.get_mut(&link).expect("looked at just now");
        match (learner.stage, said.kind) {
            (Stage::New, PacketKind::FollowerInfo | PacketKind::ObserverInfo) => {
                let info = LearnerInfo::decode(said.bytes()).map_err(|why| format!("its first words: {why}"))?;
                learner.sid = info.sid;
                learner.is_observer = said.kind == PacketKind::ObserverInfo;
                learner.votes = !learner.is_observer && self.ensemble.is_voter(info.sid);
                learner.stage = Stage::Known;
                let epoch = said.zxid.epoch();
                if epoch > EPOCH_MAX {
                    return Err(format!("server {} has promised the impossible epoch {epoch}", info.sid));
                }
                self.forget_older_links(link, info.sid, out);
                let learner = &self.learners[&link];
                // The word of servers outside of the configuration does not count.
                if self.ensemble.is_member(info.sid) {
                    let promised = self.promised.entry(info.sid).or_insert(0);
                    *promised = epoch.max(*promised);
                }
                match self.phase {
                    Phase::Discovery => self.discover(out),
                    // It promised a later epoch to another, which came to nothing, and can never follow this one.
                    _ if epoch > self.standing.accepted && learner.votes => out.push(Output::GiveUp(format!(
                        "server {} has promised epoch {epoch}, and can only follow a leader of a later one",
                        info.sid
                    ))),
                    _ => out.push(Output::Send(link, self.leader_info())),
                }
            }
            (Stage::Known, PacketKind::AckEpoch) if self.phase != Phase::Discovery => {
                (learner.have, learner.have_crc, learner.stage) = (said.zxid, crc_in(&said), Stage::Promised);
                let (sid, votes) = (learner.sid, learner.votes);
                match (epoch_in(&said)?, self.phase) {
                    (Some(current), Phase::Promising) => {
                        // It has a newer history: whoever elected this leader did not know.
                        let is_ahead = (current, said.zxid) > (self.standing.current, self.standing.last);
                        if is_ahead && !mutation::is_on(Mutation::HistoriesAreIgnored) {
                            return Err(format!(
                                "server {sid} is ahead: epoch {current} and transaction {}, here {} and {}",
                                said.zxid, self.standing.current, self.standing.last
                            ));
                        }
                        if votes {
                            self.followers.insert(sid);
                        }
                        self.synchronize(out);
                    }
                    (None, Phase::Promising) => {}
                    _ => self.send_history(link, out),
                }
            }
            (Stage::Sent, PacketKind::Ack) if said.zxid == Zxid::new(self.standing.accepted, 0) => {
                learner.stage = Stage::Synchronized;
                if learner.votes {
                    self.synchronized.insert(learner.sid);
                }
                match self.phase {
                    Phase::Broadcast => out.push(Output::Send(link, UP_TO_DATE)),
                    _ => self.establish(out),
                }
            }
            // The second one, which every learner sends.
            (Stage::Sent | Stage::Synchronized, PacketKind::Ack) if said.zxid.counter() == 0 => {}
            (Stage::Sent | Stage::Synchronized, PacketKind::Ack) => {
                if said.zxid > self.proposed {
                    return Err(format!("it acknowledges {}, but {} is the newest", said.zxid, self.proposed));
                }
                if learner.votes {
                    self.quorum.ack(learner.sid, said.zxid);
                    self.commit(out);
                }
            }
            // What is asked before the answer may be given comes from no learner: those ask when they are told to serve.
            (Stage::Synchronized, PacketKind::Ping | PacketKind::Request | PacketKind::Revalidate)
                if self.is_established() =>
            {
                out.push(Output::Pass(link, said));
            }
            (stage, kind) => return Err(format!("{kind:?} makes no sense from a learner that is {stage:?}")),
        }
        Ok(())
    }

    /// What is still on its way over an earlier link of the same member was said by one that it is not any more.
    fn forget_older_links(&mut self, link: LinkId, sid: ServerId, out: &mut Vec<Output>) {
        let older = self.learners.iter().filter(|(id, learner)| **id != link && learner.sid == sid);
        for id in older.map(|(id, _)| *id).collect::<Vec<_>>() {
            self.learners.remove(&id);
            out.push(Output::Drop(id, format!("server {sid} has connected again")));
        }
    }

    fn leader_info(&self) -> Message {
        let epoch = Zxid::new(self.standing.accepted, 0);
        Message::with(PacketKind::LeaderInfo, epoch, PROTOCOL.to_be_bytes().to_vec())
    }

    /// With a quorum there, the epoch is newer than all that any of it has promised: no earlier leader can get a quorum any more.
    fn discover(&mut self, out: &mut Vec<Output>) {
        let promised = &self.promised;
        if self.phase != Phase::Discovery || !self.ensemble.is_quorum(|voter| promised.contains_key(&voter)) {
            return;
        }
        let newest = *promised.values().max().expect("its own at least");
        let epoch = if mutation::is_on(Mutation::EpochsAreUsedAgain) { newest.max(1) } else { newest + 1 };
        out.push(Output::Promise(epoch));
        self.standing.accepted = epoch;
        self.phase = Phase::Promising;
        self.followers.insert(self.me);
        let known = self.learners.iter().filter(|(_, learner)| learner.stage == Stage::Known);
        let links: Vec<LinkId> = known.map(|(link, _)| *link).collect();
        out.extend(links.into_iter().map(|link| Output::Send(link, self.leader_info())));
        self.synchronize(out);
    }

    /// With a quorum's promise, the history of the epoch is settled: it is the leader's.
    fn synchronize(&mut self, out: &mut Vec<Output>) {
        if self.phase != Phase::Promising || !self.ensemble.is_quorum(|voter| self.followers.contains(&voter)) {
            return;
        }
        let epoch = self.standing.accepted;
        out.push(Output::TakeOver(epoch));
        self.standing.current = epoch;
        self.phase = Phase::Synchronization;
        self.synchronized.insert(self.me);
        let promised = self.learners.iter().filter(|(_, learner)| learner.stage == Stage::Promised);
        let links: Vec<LinkId> = promised.map(|(link, _)| *link).collect();
        links.into_iter().for_each(|link| self.send_history(link, out));
        self.establish(out);
    }

    /// A quorum's disks have the history: it is committed, and the epoch begins.
    fn establish(&mut self, out: &mut Vec<Output>) {
        let is_enough = mutation::is_on(Mutation::EpochsAreEstablishedWithoutAQuorum);
        let has = |voter: ServerId| is_enough || self.synchronized.contains(&voter);
        if self.phase != Phase::Synchronization || !self.ensemble.is_quorum(has) {
            return;
        }
        let beginning = Zxid::new(self.standing.accepted, 0);
        self.phase = Phase::Broadcast;
        (self.ordered, self.proposed) = (beginning, beginning);
        (self.committed, self.durable) = (beginning, beginning);
        self.quorum = Quorum::new(self.ensemble.clone(), beginning);
        out.push(Output::Serve(self.standing.accepted));
        let ready = self.learners.iter().filter(|(_, learner)| learner.stage == Stage::Synchronized);
        out.extend(ready.map(|(link, _)| Output::Send(*link, UP_TO_DATE)));
    }

    fn commit(&mut self, out: &mut Vec<Output>) {
        let upto = self.quorum.committed();
        if !self.is_established() || upto <= self.committed {
            return;
        }
        assert!(upto <= self.proposed, "only what was proposed is acknowledged");
        self.committed = upto;
        while self.outstanding.front().is_some_and(|(zxid, _)| *zxid <= upto) {
            let (zxid, record) = self.outstanding.pop_front().expect("looked at just now");
            for (link, learner) in self.learners.iter().filter(|(_, learner)| learner.stage >= Stage::Sent) {
                out.push(Output::Send(
                    *link,
                    match learner.is_observer {
                        true => Message::carrying(PacketKind::Inform, zxid, record.clone()),
                        false => Message::about(PacketKind::Commit, zxid),
                    },
                ));
            }
            // Right behind its commit: whatever the learner is told next must find it answered.
            while let Some((_, link)) = self.syncs.pop_front_if(|(waits_for, _)| *waits_for <= zxid) {
                out.push(Output::Send(link, SYNCED));
            }
            self.history.push(zxid, &record.bytes);
        }
        out.push(Output::Commit(upto));
    }
}

/// The next place in the order of a server that elects itself again at once when an epoch is used up.
fn next_alone(zxid: Zxid) -> Zxid {
    zxid.next().unwrap_or_else(|| Zxid::new(zxid.epoch() + 1, 1))
}

const SYNCED: Message = Message { kind: PacketKind::Sync, zxid: Zxid::ZERO, data: None, auth: None, held: 0 };
const UP_TO_DATE: Message = Message { kind: PacketKind::UpToDate, zxid: Zxid(-1), data: None, auth: None, held: 0 };

#[cfg(test)]
#[path = "leadership_tests.rs"]
mod tests;
