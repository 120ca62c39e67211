//! How a learner gets the leader's history: out of memory, out of the log on the disk, or as a snapshot.
//!
//! What it is told is decided by [`decide`] from what is in memory. Where that would be a snapshot because the learner is behind it,
//! the log may have the rest: then whoever has the disk sends that ([`Stretch`]), and all of the memory follows.
//!
//! **Invariants**: a learner is sent all that it lacks and added to those that get new proposals in one step, so that nothing can come
//! between; what is read from the log is committed and on the leader's own disk; a server for which the log did not do gets a
//! snapshot then, on the same link if nothing was sent yet.
//!
//! **Not here**: how far back the log reaches and whether reading it is worth it, which whoever has the disk says
//! ([`Leadership::log_reaches`]).

use super::{Leadership, Learner, LinkId, Output, Stage};
use crate::consensus::message::Message;
use crate::consensus::stretch::Stretch;
use crate::consensus::sync::{Sync, decide};
use crate::mutation::{self, Mutation};
use corral_proto::peer::PacketKind;
use corral_proto::{ServerId, Zxid};

/// After the log has failed for so many servers that got no snapshot since, it is read for nobody any more.
pub(super) const LOG_LACKS_MAX: usize = 64;

impl Leadership {
    /// The log on the disk has everything after `reach`, and no more is to be read of it than learners may be sent; `None`: it has
    /// nothing for them.
    pub fn log_reaches(&mut self, reach: Option<Zxid>) {
        self.reach = reach;
    }

    /// The log does not have what was to be sent over a link, and nothing was sent: the learner gets something else.
    pub fn log_lacks(&mut self, link: LinkId, out: &mut Vec<Output>) {
        self.log_failed(link);
        if self.learners.contains_key(&link) {
            self.send_history(link, out);
        }
    }

    /// What was sent from the log over a link broke off, and the link is closed for that.
    pub fn log_failed(&mut self, link: LinkId) {
        self.log_lacks.extend(self.learners.get(&link).map(|learner| learner.sid));
    }

    /// Sends a learner all that it lacks, and adds it to those that get new proposals: nothing can come between.
    pub(super) fn send_history(&mut self, link: LinkId, out: &mut Vec<Output>) {
        let Learner { have, have_crc, sid, .. } = self.learners[&link];
        // It may have acknowledged proposals over an earlier link, which it cuts off now, and gets again.
        if !mutation::is_on(Mutation::AcknowledgementsOutliveTheirLink) {
            self.quorum.begin_anew(sid, self.committed);
        }
        let at_hand = self.history.iter().map(|(zxid, _)| *zxid);
        let newest = self.history.newest().unwrap_or(self.committed);
        let own = self.history.iter().find(|(zxid, _)| *zxid == have).map(|(_, record)| crc32c::crc32c(record));
        let is_another = own.zip(have_crc).is_some_and(|(own, theirs)| own != theirs);
        if is_another {
            tracing::error!(
                "server {sid} has another transaction {have} than this leader: one of the two histories is of another time or ensemble. \
                 It is sent a snapshot"
            );
        }
        // Whoever has nothing, but a checksum, wants the tree and no transactions.
        let wants_all = have == Zxid::ZERO && have_crc.is_some();
        let decided = if is_another || wants_all { Sync::Snap } else { decide(have, at_hand, self.committed) };
        let (from, how) = match decided {
            Sync::Diff { have } => {
                out.push(Output::Send(link, Message::about(PacketKind::Diff, newest)));
                (have, "DIFF from memory".to_owned())
            }
            Sync::Trunc { to } => {
                out.push(Output::Send(link, Message::about(PacketKind::Trunc, to)));
                (to, format!("TRUNC to {to}"))
            }
            Sync::Snap => match self.stretch(sid, have).filter(|_| !is_another) {
                Some(stretch) => {
                    out.push(Output::FromLog(link, stretch));
                    (stretch.upto, format!("the log up to {}", stretch.upto))
                }
                None => {
                    self.log_lacks.remove(&sid);
                    out.push(Output::Snapshot(link, self.committed));
                    (self.committed, format!("SNAP of {}", self.committed))
                }
            },
        };
        let mut send = |message: Message| out.push(Output::Send(link, message));
        let mut sent = 0;
        for (zxid, bytes) in self.history.iter().filter(|(zxid, _)| *zxid > from) {
            send(Message::with(PacketKind::Proposal, *zxid, bytes.clone()));
            send(Message::about(PacketKind::Commit, *zxid));
            sent += 1;
        }
        tracing::info!("synchronizing server {sid}, which has {have}: {how}, then {sent} transactions");
        let learner = self.learners.get_mut(&link).expect("it is being served");
        if !learner.is_observer {
            for (zxid, record) in &self.outstanding {
                send(Message::carrying(PacketKind::Proposal, *zxid, record.clone()));
            }
        }
        send(Message::about(PacketKind::NewLeader, Zxid::new(self.standing.accepted, 0)));
        learner.stage = Stage::Sent;
    }

    /// What a learner that is behind all that is in memory can be sent from the log.
    pub(super) fn stretch(&self, sid: ServerId, have: Zxid) -> Option<Stretch> {
        // Until something is committed that is not in memory, the log ends where the leadership began.
        let is_new = self.committed == self.standing.last || self.committed.counter() == 0;
        let oldest = self.history.iter().next().map(|(zxid, _)| *zxid);
        let upto = oldest.or(is_new.then_some(self.standing.last)).filter(|upto| upto.counter() > 0)?;
        // One without any history gets the tree and not how it came about, as with Apache.
        let is_behind = have > Zxid::ZERO && have <= upto && self.reach.is_some_and(|reach| have >= reach);
        let is_sound = !self.log_lacks.contains(&sid) && self.log_lacks.len() < LOG_LACKS_MAX;
        let may_be = is_behind && upto <= self.durable && is_sound;
        let newest = self.history.newest().unwrap_or(upto);
        let have_crc = self.learners.values().find(|learner| learner.sid == sid).and_then(|learner| learner.have_crc);
        may_be.then_some(Stretch { sid, have, have_crc, upto, newest })
    }
}
