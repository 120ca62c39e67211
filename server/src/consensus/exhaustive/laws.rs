//! What must be true of every cluster that there can be, and where it is found out that it is not.
//!
//! What is committed is taken from the leaders themselves as soon as one of them takes it for committed, whoever has been told so
//! by then; from that moment on it must stay, in all clusters that can come after.
//!
//! **Not here**: how a cluster gets there ([`super::cluster`]).

use super::cluster::{Cluster, Entry, Role};
use corral_proto::Zxid;

/// What must never be broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Law {
    /// A leader that is established has all that was committed before.
    Complete,
    /// An epoch has one leader.
    Unique,
    /// Only what a quorum has on its disks is committed.
    Quorum,
    /// All commit the same in the same order.
    Agreement,
    /// What a learner applies is durable there.
    Durable,
    /// The machines' own assertions, and what each of their orders relies on.
    Sound,
}

impl Cluster {
    /// A law is broken.
    pub(super) fn fail(&mut self, law: Law, how: impl FnOnce() -> String) {
        if self.broken.is_none() {
            self.broken = Some((law, how()));
        }
    }

    /// A member will never follow the leader of an earlier epoch again.
    pub(super) fn promise(&mut self, index: usize, epoch: u32) {
        let disk = &mut self.member(index).disk;
        let before = std::mem::replace(&mut disk.accepted, epoch);
        if epoch <= before {
            self.fail(Law::Sound, || format!("{index} promises {epoch} after {before}"));
        }
    }

    /// A member's history is that of this epoch's leader now.
    pub(super) fn take_over(&mut self, index: usize, epoch: u32) {
        let disk = &mut self.member(index).disk;
        let before = std::mem::replace(&mut disk.current, epoch);
        if epoch != disk.accepted || epoch < before {
            self.fail(Law::Sound, || {
                format!("{index} takes over {epoch} after {before}, which is not what it promised")
            });
        }
    }

    /// An epoch is established.
    pub(super) fn serve(&mut self, index: usize, epoch: u32) {
        let is_newest = self.established.last().is_none_or(|last| epoch > *last);
        if !self.established.insert(epoch) {
            self.fail(Law::Unique, || format!("{index} is the second leader of epoch {epoch}"));
        }
        if is_newest && !self.members[index].disk.log.starts_with(&self.committed) {
            self.fail(Law::Complete, || format!("{index} leads epoch {epoch} without what was committed"));
        }
    }

    /// What the leader takes for committed, whoever has been told so already.
    pub(super) fn commit(&mut self, index: usize) {
        let Role::Leading(leadership) = &self.members[index].role else { return };
        if !leadership.is_established() {
            return;
        }
        let known = self.members[index].disk.upto(leadership.committed());
        let common = known.len().min(self.committed.len());
        if known[..common] != self.committed[..common] {
            return self.fail(Law::Agreement, || format!("{index} commits something else"));
        }
        if known.len() > common {
            let known = known.to_vec();
            if !self.is_on_a_quorum(&known) {
                self.fail(Law::Quorum, || format!("{index} commits {known:?} too early"));
            }
            self.committed = known;
        }
    }

    /// A member was told that it may apply everything up to there.
    pub(super) fn apply(&mut self, index: usize, upto: Zxid) {
        let disk = &self.members[index].disk;
        let known = disk.upto(upto);
        let leads = matches!(self.members[index].role, Role::Leading(_));
        // A leader's quorum may be faster than its own disk.
        let is_durable = leads || disk.durable >= known.len();
        let is_last = known.last().map(|(zxid, _)| *zxid) == Some(upto);
        let is_committed = self.committed.starts_with(known);
        if !is_durable {
            self.fail(Law::Durable, || format!("{index} applies {upto} before it is durable"));
        }
        // A leader applies in the same step in which it finds out that something is committed.
        if !is_last || (!is_committed && !leads) {
            self.fail(Law::Agreement, || format!("{index} applies up to {upto}, and that is not what was committed"));
        }
    }

    fn is_on_a_quorum(&self, entries: &[Entry]) -> bool {
        let having = self.members.iter().filter(|member| member.disk.log[..member.disk.durable].starts_with(entries));
        having.count() > self.members.len() / 2
    }

    /// Whether all that was ever committed is where no crash of a minority can take it away.
    pub(super) fn keeps_what_is_committed(&self) -> bool {
        self.is_on_a_quorum(&self.committed)
    }
}
