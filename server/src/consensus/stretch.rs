//! What a learner is sent from the leader's log on the disk, when it has missed more than is in memory.
//!
//! The leader can tell from memory only that the learner is not too far behind. Whether the learner's last transaction is one of the
//! leader's own is seen by whoever reads the log: a [`Walk`] is told of one transaction after the other, and says what goes to the
//! learner, beginning with `DIFF` or `TRUNC`. The rules are those of [`super::sync`].
//!
//! **Invariants**: the last transaction that is sent is the one that the memory goes on from ([`Stretch::upto`]), which must itself
//! be in the log: a log that ends before it, or goes on behind it, has a gap, and then nothing is complete; what was sent until
//! then is nothing that a learner takes for a history, because no `NEWLEADER` follows.
//!
//! **Not here**: reading ([`corral_engine::txnlog::Excerpt`]), sending, and what is in memory.

use super::message::Message;
use super::sync::Sync;
use corral_proto::peer::PacketKind;
use corral_proto::{ServerId, Zxid};

/// A stretch of the log for one learner.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Stretch {
    /// The learner.
    pub sid: ServerId,
    /// Its own last transaction.
    pub have: Zxid,
    /// The checksum of that, if it has told.
    pub have_crc: Option<u32>,
    /// The last one to be sent; what comes after it is in memory.
    pub upto: Zxid,
    /// The newest in memory, which `DIFF` names.
    pub newest: Zxid,
}

/// What is to be done with a transaction of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// This goes first.
    pub first: Option<Message>,
    /// The transaction is sent.
    pub send: bool,
}

/// Reads a stretch.
#[derive(Clone, Debug)]
pub struct Walk {
    stretch: Stretch,
    /// The last transaction that was read.
    at: Zxid,
    /// That is one that was read, and not just named by what follows it.
    any: bool,
    told: Option<Sync>,
    sent: u64,
}

impl Walk {
    /// Of a log that is read from the transaction after `after` on, which is not beyond what the learner has.
    pub fn new(stretch: Stretch, after: Zxid) -> Walk {
        Walk { stretch, at: after, any: false, told: None, sent: 0 }
    }

    /// The next transaction of the log.
    ///
    /// # Errors
    /// The learner cannot be told from this log what it lacks.
    pub fn next(&mut self, zxid: Zxid, record: &[u8]) -> Result<Step, String> {
        let Stretch { have, have_crc, upto, .. } = self.stretch;
        if zxid == have && have_crc.is_some_and(|theirs| theirs != crc32c::crc32c(record)) {
            return Err(format!("the learner has another transaction {have} than this log"));
        }
        if self.is_complete() {
            return Ok(Step { first: None, send: false });
        }
        if zxid > upto {
            return Err(format!("{zxid} follows {} in the log, but {upto} is the oldest in memory", self.at));
        }
        if zxid <= have {
            (self.at, self.any) = (zxid, true);
            return Ok(Step { first: None, send: false });
        }
        let first = match self.told {
            None => Some(self.begin(zxid)?),
            Some(_) => None,
        };
        self.at = zxid;
        self.sent += 1;
        Ok(Step { first, send: true })
    }

    /// Everything was read that there is, or that is wanted. What there is to say to a learner that lacks nothing of it.
    ///
    /// # Errors
    /// Something is missing.
    pub fn end(&mut self) -> Result<Option<Message>, String> {
        let Stretch { have, upto, .. } = self.stretch;
        match self.told {
            _ if !self.is_complete() => {
                Err(format!("the log ends with {}, but {upto} is the oldest in memory", self.at))
            }
            None if have == upto => self.begin(upto).map(Some),
            None => Err(format!("the log begins behind {have}")),
            Some(_) => Ok(None),
        }
    }

    /// Whether nothing more is wanted.
    pub fn is_complete(&self) -> bool {
        self.at == self.stretch.upto
    }

    /// What the learner was told.
    pub fn told(&self) -> Option<Sync> {
        self.told
    }

    /// How many transactions were sent.
    pub fn sent(&self) -> u64 {
        self.sent
    }

    /// `next` is the first transaction that the learner may lack.
    fn begin(&mut self, next: Zxid) -> Result<Message, String> {
        let Stretch { have, newest, .. } = self.stretch;
        // The beginning of an epoch is in no log.
        if self.at == have || have.counter() == 0 {
            self.told = Some(Sync::Diff { have });
            return Ok(Message::about(PacketKind::Diff, newest));
        }
        // As in memory: it was never committed, and across epochs nobody can tell where the learner's tail begins.
        if self.any && self.at.counter() > 0 && next.epoch() == have.epoch() {
            self.told = Some(Sync::Trunc { to: self.at });
            return Ok(Message::about(PacketKind::Trunc, self.at));
        }
        Err(format!("{have} is not in the log: {next} follows {} there", self.at))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn z(epoch: u32, counter: u32) -> Zxid {
        Zxid::new(epoch, counter)
    }

    /// What is sent to a learner with the history up to `have`, of a log that begins after `after`.
    fn walk(have: Zxid, upto: Zxid, after: Zxid, log: &[Zxid]) -> Result<(Message, Vec<Zxid>), String> {
        let mut walk = Walk::new(Stretch { sid: ServerId(1), have, have_crc: None, upto, newest: z(9, 9) }, after);
        let (mut told, mut sent) = (None, vec![]);
        for zxid in log {
            let step = walk.next(*zxid, &[])?;
            assert!(step.first.is_none() || (told.is_none() && sent.is_empty()), "first means first");
            told = told.or(step.first);
            sent.extend(step.send.then_some(*zxid));
        }
        told = told.or(walk.end()?);
        assert_eq!(walk.sent(), sent.len() as u64);
        Ok((told.expect("said at the end at the latest"), sent))
    }

    const DIFF: Message =
        Message { kind: PacketKind::Diff, zxid: Zxid((9 << 32) + 9), data: None, auth: None, held: 0 };

    #[test]
    fn a_learner_whose_last_transaction_is_in_the_log_is_sent_what_follows_up_to_the_oldest_in_memory() {
        let log = [z(1, 5), z(1, 6), z(3, 1), z(3, 2), z(3, 3)];
        let sent = |have, upto| walk(have, upto, z(1, 4), &log).unwrap();
        assert_eq!(sent(z(1, 5), z(3, 2)), (DIFF, vec![z(1, 6), z(3, 1), z(3, 2)]));
        assert_eq!(sent(z(1, 6), z(3, 3)), (DIFF, vec![z(3, 1), z(3, 2), z(3, 3)]));
        assert_eq!(sent(z(1, 4), z(1, 6)), (DIFF, vec![z(1, 5), z(1, 6)]), "the first one names it");
        assert_eq!(sent(z(3, 2), z(3, 2)), (DIFF, vec![]));
        assert_eq!(walk(z(1, 4), z(1, 4), z(1, 4), &[]).unwrap(), (DIFF, vec![]));
        assert_eq!(sent(z(2, 0), z(3, 1)), (DIFF, vec![z(3, 1)]), "nothing was proposed in that epoch");
    }

    #[test]
    fn a_tail_that_was_never_committed_is_cut_off_within_an_epoch_only() {
        let log = [z(1, 5), z(1, 7), z(3, 1)];
        let trunc = Message::about(PacketKind::Trunc, z(1, 5));
        assert_eq!(walk(z(1, 6), z(3, 1), z(1, 4), &log).unwrap(), (trunc, vec![z(1, 7), z(3, 1)]));
        walk(z(1, 8), z(3, 1), z(1, 4), &log).expect_err("across epochs");
        walk(z(2, 1), z(3, 1), z(1, 4), &log).expect_err("of an epoch that the log does not know");
        walk(z(1, 6), z(3, 1), z(1, 5), &log[1..]).expect_err("nobody has seen whether 5 is there");
        walk(z(3, 1), z(3, 3), z(3, 0), &[z(3, 2), z(3, 3)]).expect_err("no log holds the beginning of an epoch");
    }

    /// Apache's leader sent what the log had and then what memory had, and never looked whether they meet.
    #[test]
    fn zookeeper_2418_a_log_that_ends_before_the_memory_begins_is_never_sent_as_if_it_were_whole() {
        let upto = z(1, 9);
        let log: Vec<Zxid> = (5..=9).map(|counter| z(1, counter)).collect();
        assert_eq!(walk(z(1, 5), upto, z(1, 4), &log).unwrap().1.len(), 4);
        for end in 0..log.len() {
            walk(z(1, 5), upto, z(1, 4), &log[..end]).expect_err("it ends too early");
        }
        let without = [z(1, 5), z(1, 6), z(1, 10)];
        walk(z(1, 5), upto, z(1, 4), &without).expect_err("it goes on behind");
    }

    #[test]
    fn a_log_with_another_transaction_in_the_learners_place_is_not_sent() {
        for (theirs, is_same) in [(&b"one"[..], true), (b"another", false)] {
            let have_crc = Some(crc32c::crc32c(theirs));
            let stretch = Stretch { sid: ServerId(1), have: z(1, 5), have_crc, upto: z(1, 6), newest: z(1, 6) };
            assert_eq!(Walk::new(stretch, z(1, 4)).next(z(1, 5), b"one").is_ok(), is_same);
        }
    }
}
