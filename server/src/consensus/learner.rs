//! A member that follows: from the first word to its leader until it serves clients, and after that (Apache's `Learner`,
//! `Follower` and `Observer`).
//!
//! 1. **Discovery**: it tells the newest epoch that it has promised; the leader answers with a newer one; it promises that,
//!    durably, and tells where its own history ends.
//! 2. **Synchronization**: it cuts its history back, or takes a snapshot, or keeps what it has; takes the transactions that it
//!    lacks; and when the leader says that this was all (`NEWLEADER`), has them on its disk and takes over the epoch, *then*
//!    acknowledges. (Acknowledging first loses acknowledged writes: ZOOKEEPER-3911, 4643, 4646, 4785.)
//! 3. **Broadcast**: it logs every proposal and acknowledges each when it is durable. What the leader says is committed is
//!    applied once it is durable here, too: a tree that is ahead of its own log could not be restored from it.
//!
//! **Invariants**: transactions are appended in the order of their zxids, each once; nothing is acknowledged that is not durable;
//! `NEWLEADER` is acknowledged only when everything committed before it is, and before any proposal is; what is committed is a
//! prefix of what was appended.
//!
//! **Not here**: the link and its time-outs, the log, the snapshot's bytes, clients.

use super::message::{EPOCH_MAX, Message, Standing};
use crate::mutation::{self, Mutation};
use bytes::Bytes;
use corral_engine::txnlog::Durable;
use corral_proto::jute::Decoder;
use corral_proto::peer::PacketKind;
use corral_proto::peer::learner::{ALREADY_PROMISED, LearnerInfo, PROTOCOL};
use corral_proto::{Jute, ServerId, Zxid};
use std::collections::VecDeque;

/// What is to be done, in the order given; each is done, and durable where it writes, before the next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Send this to the leader.
    Send(Message),
    /// Never follow the leader of an earlier epoch again.
    Promise(u32),
    /// The history is that of this epoch's leader now.
    TakeOver(u32),
    /// Cut the history back, and build the tree again.
    Truncate(Zxid),
    /// A snapshot of this transaction follows on the link; it replaces everything. [`Learner::loaded`] when it is durable.
    Load(Zxid),
    /// Put this at the end of the log.
    Append(Zxid, Bytes),
    /// Everything up to here may be applied.
    Commit(Zxid),
    /// Clients may be served.
    Serve,
    /// Nothing for this machine: for whoever has sessions and clients.
    Pass(Message),
    /// The link is of no use; look for a leader again.
    Leave(String),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Phase {
    /// The leader is to name the epoch.
    Discovery,
    /// It is to say how to begin.
    Choosing,
    /// A snapshot is being read; it ends with this transaction.
    Loading(Zxid),
    /// It sends what is missing.
    Collecting,
    /// That was all; it is on its way to the disk.
    Flushing,
    /// Acknowledged; waiting to be let loose.
    Waiting,
    Broadcast,
}

/// Bytes in front of a transaction with which other members come: who leads them.
const DESIGNATED: usize = 8;

/// One that was proposed.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Proposal {
    zxid: Zxid,
    /// Until it is in the log.
    bytes: Option<Bytes>,
    /// The leader waits for it to be acknowledged.
    to_ack: bool,
}

/// The machine.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Learner {
    is_observer: bool,
    /// It has not lost its history.
    has_history: bool,
    /// Its tree is not what the transactions make: it wants a snapshot, whatever it has.
    wants_all: bool,
    /// The checksum of its last transaction, if that is known.
    last_crc: Option<u32>,
    standing: Standing,
    /// The epoch of the leader that it follows, once it is named.
    epoch: u32,
    phase: Phase,
    /// Not durable or not committed yet, oldest first.
    proposals: VecDeque<Proposal>,
    /// How many of them, from the oldest on, are in the log; are acknowledged, or need not be; are committed.
    appended: usize,
    answered: usize,
    confirmed: usize,
    /// The newest proposal.
    proposed: Zxid,
    /// What the leader has said is committed.
    committed: Zxid,
    durable: Zxid,
    /// What was said to be applicable.
    told: Zxid,
    /// Clients are served once everything up to there is applicable: a tree that came as a snapshot holds parts of all that
    /// its leader had applied by then.
    serves_from: Option<Zxid>,
}

impl Learner {
    /// Of a member whose link to its leader has just been made. All of its log is durable.
    pub fn new(me: ServerId, is_observer: bool, standing: Standing, out: &mut Vec<Output>) -> Learner {
        let kind = if is_observer { PacketKind::ObserverInfo } else { PacketKind::FollowerInfo };
        let info = LearnerInfo { sid: me, protocol: PROTOCOL, config_version: 0 };
        out.push(Output::Send(Message::with(kind, Zxid::new(standing.accepted, 0), info.to_vec())));
        let last = standing.last;
        Learner {
            is_observer,
            has_history: true,
            wants_all: false,
            last_crc: None,
            standing,
            epoch: standing.accepted,
            phase: Phase::Discovery,
            proposals: VecDeque::new(),
            appended: 0,
            answered: 0,
            confirmed: 0,
            proposed: last,
            committed: last,
            durable: last,
            told: last,
            serves_from: None,
        }
    }

    /// It has lost its history, and does not know what it has acknowledged: no leader must count on its promise, and it takes
    /// whatever the leader has.
    pub fn without_history(self) -> Learner {
        Learner { has_history: false, ..self }
    }

    /// The record of its last transaction is at hand: the leader is told its checksum, behind what Apache's leaders read. Another
    /// transaction under the same zxid is noticed by that, as when a quorum has begun anew with empty disks.
    pub fn with_last(self, record: &[u8]) -> Learner {
        Learner { last_crc: Some(crc32c::crc32c(record)), ..self }
    }

    /// Its log is what it has acknowledged, but its tree is another than its leader's: it wants that anew. Apache's leaders send a snapshot to
    /// whoever says that it has nothing; ours would send the transactions, if they have all, unless there is a checksum of none.
    pub fn wanting_all(self) -> Learner {
        Learner { wants_all: true, ..self.with_last(&[]) }
    }

    /// The epoch of the leader that it follows, or what it has promised before it knows.
    pub fn epoch(&self) -> u32 {
        self.epoch
    }

    /// Whether clients may be served.
    pub fn serves(&self) -> bool {
        self.phase == Phase::Broadcast && self.serves_from.is_none()
    }

    /// What the leader has said is committed.
    pub fn committed(&self) -> Zxid {
        self.committed
    }

    /// What was said to be applicable, the history that it began with included.
    pub fn applicable(&self) -> Zxid {
        self.told
    }

    /// Whether its leader has it synchronized: then it is heard of often.
    pub fn is_synchronized(&self) -> bool {
        matches!(self.phase, Phase::Flushing | Phase::Waiting | Phase::Broadcast)
    }

    /// The leader said something.
    pub fn hear(&mut self, said: Message, out: &mut Vec<Output>) {
        if let Err(why) = self.step(said, out) {
            out.push(Output::Leave(why));
        }
    }

    fn step(&mut self, said: Message, out: &mut Vec<Output>) -> Result<(), String> {
        let said = without_activation(said)?;
        let zxid = said.zxid;
        match (self.phase, said.kind) {
            (Phase::Discovery, PacketKind::LeaderInfo) => self.promise(zxid.epoch(), out)?,
            (Phase::Choosing, PacketKind::Diff) => self.phase = Phase::Collecting,
            (Phase::Choosing, PacketKind::Trunc) if mutation::is_on(Mutation::TruncationIsSkipped) => {
                self.phase = Phase::Collecting;
            }
            (Phase::Choosing, PacketKind::Trunc) => {
                out.push(Output::Truncate(zxid));
                self.begin_at(zxid.min(self.standing.last));
            }
            (Phase::Choosing, PacketKind::Snap) => {
                self.phase = Phase::Loading(zxid);
                // What it has acknowledged over an earlier link goes with its log.
                self.has_history &= !self.wants_all;
                out.push(Output::Load(zxid));
            }
            // During synchronization they are not answered, as Apache's learners do not.
            (Phase::Collecting | Phase::Flushing | Phase::Waiting, PacketKind::Ping) => {}
            (Phase::Collecting | Phase::Flushing | Phase::Waiting, PacketKind::Proposal | PacketKind::Inform) => {
                self.propose(said)?;
            }
            (Phase::Broadcast, PacketKind::Proposal | PacketKind::Inform) => {
                self.propose(said)?;
                self.append_all(out);
            }
            (Phase::Collecting | Phase::Flushing | Phase::Waiting | Phase::Broadcast, PacketKind::Commit) => {
                self.commit(zxid)?;
                self.tell(out);
            }
            (Phase::Collecting, PacketKind::NewLeader) => {
                if zxid != Zxid::new(self.epoch, 0) {
                    return Err(format!("the leader of epoch {} names itself that of {}", self.epoch, zxid.epoch()));
                }
                self.phase = Phase::Flushing;
                let committed = self.committed;
                // The acknowledgement of the epoch covers these.
                let history = self.proposals.iter_mut().take_while(|proposal| proposal.zxid <= committed);
                history.for_each(|proposal| proposal.to_ack = false);
                // Apache's leaders still count what it acknowledged over an earlier link, of proposals that are not committed yet: who
                // has lost those must have them again before it counts as anything.
                self.append(if self.has_history { committed } else { self.proposed }, out);
                self.acknowledge_history(out);
            }
            (Phase::Waiting, PacketKind::UpToDate) => {
                // Apache's leaders get this twice from every learner, and their logs are written that way.
                out.push(Output::Send(Message::about(PacketKind::Ack, Zxid::new(self.epoch, 0))));
                self.phase = Phase::Broadcast;
                self.append_all(out);
                self.acknowledge(out);
                self.serves_from = Some(self.committed);
                self.tell(out);
            }
            (Phase::Broadcast, PacketKind::Ping | PacketKind::Revalidate | PacketKind::Sync) => {
                out.push(Output::Pass(said));
            }
            (phase, kind) => return Err(format!("{kind:?} makes no sense in {phase:?}")),
        }
        Ok(())
    }

    /// The snapshot that followed [`Output::Load`] is durable, and is the whole history now.
    pub fn loaded(&mut self) {
        let Phase::Loading(upto) = self.phase else { panic!("no snapshot was asked for") };
        self.begin_at(upto);
    }

    /// The log has everything up to `durable`.
    pub fn durable(&mut self, durable: Durable, out: &mut Vec<Output>) {
        self.durable = self.durable.max(durable.upto());
        match self.phase {
            Phase::Flushing => self.acknowledge_history(out),
            Phase::Broadcast => self.acknowledge(out),
            // A leader that hears of a proposal before NEWLEADER would miss the latter.
            _ => {}
        }
        self.tell(out);
    }

    fn promise(&mut self, epoch: u32, out: &mut Vec<Output>) -> Result<(), String> {
        let Standing { accepted, current, last } = self.standing;
        let has = if self.wants_all { Zxid::ZERO } else { last };
        if epoch > EPOCH_MAX {
            return Err(format!("the leader begins the impossible epoch {epoch}"));
        }
        // Nobody counts on an observer's promise, so it need not keep it from following whoever leads.
        let earliest = if self.is_observer { current } else { accepted };
        if epoch < earliest {
            return Err(format!("the leader begins epoch {epoch}, but {accepted} was promised to another"));
        }
        let counts = epoch > accepted && self.has_history;
        let answer = if counts { current as i32 } else { ALREADY_PROMISED };
        if epoch > accepted {
            out.push(Output::Promise(epoch));
            self.standing.accepted = epoch;
        }
        self.epoch = epoch;
        // Apache's leaders read the first four bytes and no more.
        let mut answer = answer.to_be_bytes().to_vec();
        answer.extend(self.last_crc.into_iter().flat_map(u32::to_be_bytes));
        out.push(Output::Send(Message::with(PacketKind::AckEpoch, has, answer)));
        self.phase = Phase::Choosing;
        Ok(())
    }

    /// The history ends here now.
    fn begin_at(&mut self, last: Zxid) {
        self.standing.last = last;
        (self.proposed, self.committed, self.durable, self.told) = (last, last, last, last);
        self.phase = Phase::Collecting;
    }

    fn propose(&mut self, said: Message) -> Result<(), String> {
        let zxid = said.zxid;
        let follows = zxid.epoch() == self.proposed.epoch() && Some(zxid) == self.proposed.next();
        if !follows && zxid.epoch() <= self.proposed.epoch() {
            return Err(format!("transaction {zxid} was proposed after {}: some are missing", self.proposed));
        }
        let is_committed = said.kind == PacketKind::Inform;
        let to_ack = !is_committed && !self.is_observer;
        self.proposed = zxid;
        self.proposals.push_back(Proposal { zxid, bytes: Some(said.data.unwrap_or_default()), to_ack });
        if is_committed {
            self.committed = zxid;
            self.confirmed = self.proposals.len();
        }
        Ok(())
    }

    fn commit(&mut self, zxid: Zxid) -> Result<(), String> {
        let next = self.proposals.get(self.confirmed).map(|proposal| proposal.zxid);
        match next {
            Some(next) if next == zxid => {
                self.committed = zxid;
                self.confirmed += 1;
            }
            _ if zxid <= self.committed => {}
            next => return Err(format!("{zxid} is committed, but what was proposed next is {next:?}")),
        }
        Ok(())
    }

    fn append_all(&mut self, out: &mut Vec<Output>) {
        self.append(self.proposed, out);
    }

    fn append(&mut self, upto: Zxid, out: &mut Vec<Output>) {
        while let Some(proposal) = self.proposals.get_mut(self.appended).filter(|proposal| proposal.zxid <= upto) {
            let bytes = proposal.bytes.take().expect("appended once");
            out.push(Output::Append(proposal.zxid, bytes));
            self.appended += 1;
        }
    }

    /// `NEWLEADER` may be acknowledged once everything that was committed before it is durable. That is taken over first.
    fn acknowledge_history(&mut self, out: &mut Vec<Output>) {
        let newest = self.appended.checked_sub(1).map(|at| self.proposals[at].zxid);
        let is_late = newest.is_some_and(|newest| newest > self.durable);
        if is_late && !mutation::is_on(Mutation::HistoryIsAcknowledgedBeforeItIsDurable) {
            return;
        }
        let epoch = self.epoch;
        out.push(Output::TakeOver(epoch));
        self.standing.current = epoch;
        out.push(Output::Send(Message::about(PacketKind::Ack, Zxid::new(epoch, 0))));
        self.phase = Phase::Waiting;
    }

    fn acknowledge(&mut self, out: &mut Vec<Output>) {
        for proposal in self.proposals.range_mut(self.answered..self.appended) {
            let hurries = mutation::is_on(Mutation::ProposalsAreAcknowledgedBeforeTheyAreDurable);
            if proposal.zxid > self.durable && !hurries {
                return;
            }
            self.answered += 1;
            if std::mem::take(&mut proposal.to_ack) {
                out.push(Output::Send(Message::about(PacketKind::Ack, proposal.zxid)));
            }
        }
    }

    /// What is committed and durable may be applied. Not before clients are served: until then the tree belongs to nobody.
    fn tell(&mut self, out: &mut Vec<Output>) {
        let upto = match mutation::is_on(Mutation::CommitsAreAppliedBeforeTheyAreDurable) {
            true => self.committed,
            false => self.committed.min(self.durable),
        };
        if self.phase != Phase::Broadcast {
            return;
        }
        if upto > self.told {
            self.told = upto;
            self.forget(upto);
            out.push(Output::Commit(upto));
        }
        if self.serves_from.take_if(|from| *from <= upto).is_some() {
            out.push(Output::Serve);
        }
    }

    /// What is committed and durable is not waited for any more.
    fn forget(&mut self, upto: Zxid) {
        while self.proposals.front().is_some_and(|proposal| proposal.zxid <= upto) {
            let done = self.proposals.pop_front().expect("looked at just now");
            assert!(done.bytes.is_none() && !done.to_ack, "what is committed here was logged and acknowledged");
            for count in [&mut self.appended, &mut self.answered, &mut self.confirmed] {
                *count -= 1;
            }
        }
    }
}

/// Apache's leaders may change who the members are, and name with the commit who leads after that. This member keeps to its own configuration,
/// and looks for a leader if its own ends.
fn without_activation(said: Message) -> Result<Message, String> {
    let kind = match said.kind {
        PacketKind::CommitAndActivate => return Ok(Message::about(PacketKind::Commit, said.zxid)),
        PacketKind::InformAndActivate => PacketKind::Inform,
        _ => return Ok(said),
    };
    let Some(data) = said.data.filter(|data| data.len() > DESIGNATED) else {
        return Err(format!("{:?} without a transaction", said.kind));
    };
    Ok(Message { kind, data: Some(data.slice(DESIGNATED..)), ..said })
}

/// The epoch in an `ACKEPOCH`: `None` of a learner that had promised before.
pub(super) fn epoch_in(said: &Message) -> Result<Option<u32>, String> {
    let number = Decoder::new(said.bytes()).int().map_err(|why| format!("ACKEPOCH: {why}"))?;
    Ok(u32::try_from(number).ok())
}

/// The checksum of the learner's last transaction in an `ACKEPOCH`, if it tells that.
pub(super) fn crc_in(said: &Message) -> Option<u32> {
    said.bytes().get(4..8).map(|crc| u32::from_be_bytes(crc.try_into().expect("four bytes")))
}

#[cfg(test)]
#[path = "learner_tests.rs"]
mod tests;
