//! The sessions: who is alive, which connection speaks for it, and who expires when.
//!
//! Time is cut into buckets of a tick. A touch moves a session to the bucket that its timeout leads to, rounded up, so that a
//! session expires up to a tick late and never early (Apache's `ExpiryQueue`).
//!
//! **Invariants**: a session is in exactly one bucket; one that is closing is never touched back to life; ids are never given
//! twice, also across restarts as long as the wall clock does not go back.
//!
//! **Not here**: the transactions that open and close sessions (the replica orders them), clocks (`now` is an argument).

use crate::consensus::leadership::LinkId;
use crate::mutation::{self, Mutation};
use corral_proto::{ErrorCode, SessionId};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// A client connection: on which core, in which place there, and the how-manieth in that place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ConnId {
    /// The core that owns it.
    pub core: u16,
    /// Its place in that core's table.
    pub slot: u32,
    /// Counts the connections that had this place, so that a late message cannot reach the wrong one.
    pub generation: u32,
}

/// Where the client of a session is connected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner {
    /// Here.
    Client(ConnId),
    /// At the learner behind this link.
    Learner(LinkId),
}

#[derive(Debug)]
struct Session {
    timeout: Duration,
    bucket: Duration,
    owner: Option<Owner>,
    closing: bool,
}

/// The ids that one server gives to sessions.
#[derive(Debug)]
pub struct SessionIds(SessionId);

impl SessionIds {
    /// From `first` on.
    pub fn new(first: SessionId) -> SessionIds {
        SessionIds(first)
    }

    /// An id for a session that is about to be opened; none that is `taken`.
    pub fn next(&mut self, taken: impl Fn(SessionId) -> bool) -> SessionId {
        loop {
            let id = self.0;
            self.0 = SessionId(id.0.wrapping_add(1));
            // 0 means no session; the lowest number marks containers.
            if id != SessionId::NONE && id.0 != i64::MIN && !taken(id) {
                return id;
            }
        }
    }
}

/// All sessions of the ensemble, as its leader knows them.
#[derive(Debug)]
pub struct Sessions {
    tick: Duration,
    sessions: BTreeMap<SessionId, Session>,
    buckets: BTreeMap<Duration, BTreeSet<SessionId>>,
    closing: usize,
}

/// The first session id that a server gives: its own id in the high byte, then 40 bits of the clock, then a counter, as
/// Apache's `SessionTrackerImpl` lays it out.
pub fn first_id(server_id: u8, wall_ms: i64) -> SessionId {
    SessionId((((wall_ms << 24) as u64 >> 8) as i64) | (i64::from(server_id) << 56))
}

/// What proves a session to any member of the ensemble: 16 bytes derived from its id. A checksum, not a secret; the same
/// function as Apache's (`java.util.Random` seeded with the id), so that sessions survive a move between the two.
pub fn password(id: SessionId) -> [u8; 16] {
    const MULTIPLIER: u64 = 0x5_DEEC_E66D;
    const MASK: u64 = (1 << 48) - 1;
    const SECRET: u64 = 0xB341_5C00;
    let mut state = (id.0 as u64 ^ SECRET ^ MULTIPLIER) & MASK;
    let mut password = [0; 16];
    for word in password.chunks_mut(4) {
        state = (state.wrapping_mul(MULTIPLIER).wrapping_add(0xB)) & MASK;
        let bytes = ((state >> 16) as u32).to_be_bytes();
        // Java's Random.nextBytes takes the low byte of each word first.
        word.iter_mut().zip(bytes.iter().rev()).for_each(|(to, from)| *to = *from);
    }
    password
}

impl Sessions {
    /// No sessions yet.
    pub fn new(tick: Duration) -> Sessions {
        Sessions { tick, sessions: BTreeMap::new(), buckets: BTreeMap::new(), closing: 0 }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.sessions.len()
    }

    /// How many are closing: their end is on its way.
    pub fn closing(&self) -> usize {
        self.closing
    }

    /// True when there are none.
    pub fn is_empty(&self) -> bool {
        self.sessions.is_empty()
    }

    /// A session that was opened, now or in an earlier life of the server, with a full timeout ahead.
    pub fn open(&mut self, id: SessionId, timeout: Duration, owner: Option<Owner>, now: Duration) {
        let bucket = self.bucket(now, timeout);
        if let Some(before) = self.sessions.insert(id, Session { timeout, bucket, owner, closing: false }) {
            self.closing -= usize::from(before.closing);
            self.leave(before.bucket, id);
        }
        self.buckets.entry(bucket).or_default().insert(id);
    }

    /// A client goes on with a session elsewhere. Returns who spoke for it until now, if anybody did; `None` if there is no such
    /// session.
    pub fn renew(&mut self, id: SessionId, timeout: Duration, owner: Owner, now: Duration) -> Option<Option<Owner>> {
        let session = self.sessions.get_mut(&id).filter(|session| !session.closing)?;
        session.timeout = timeout;
        let before = session.owner.replace(owner).filter(|before| *before != owner);
        self.touch(id, now);
        Some(before)
    }

    /// Whether `conn` may ask for something in the name of session `id`.
    pub fn speaks_for(&self, conn: ConnId, id: SessionId) -> bool {
        self.sessions.get(&id).is_some_and(|session| !session.closing && session.owner == Some(Owner::Client(conn)))
    }

    /// Whether a learner may open session `id`: nobody has it, or the learner itself.
    pub fn may_open(&self, link: LinkId, id: SessionId) -> bool {
        self.sessions.get(&id).is_none_or(|session| !session.closing && session.owner == Some(Owner::Learner(link)))
    }

    /// Whether a learner may ask for something in the name of session `id`. Of a session whose client nobody has seen yet under this
    /// leader, the first learner that speaks for it is the owner (Apache's `checkSession`).
    ///
    /// # Errors
    /// The session is gone, or its client is elsewhere: what that client is told.
    pub fn speaks_over(&mut self, link: LinkId, id: SessionId) -> Result<(), ErrorCode> {
        let session = self.sessions.get_mut(&id).filter(|session| !session.closing).ok_or(ErrorCode::SessionExpired)?;
        let is_owner = *session.owner.get_or_insert(Owner::Learner(link)) == Owner::Learner(link);
        match is_owner || mutation::is_on(Mutation::SessionsHaveManyOwners) {
            true => Ok(()),
            false => Err(ErrorCode::SessionMoved),
        }
    }

    /// Something was heard of the session.
    pub fn touch(&mut self, id: SessionId, now: Duration) {
        let tick = self.tick;
        let Some(session) = self.sessions.get_mut(&id).filter(|session| !session.closing) else { return };
        let bucket = round_up(now + session.timeout, tick);
        if bucket > session.bucket {
            let old = std::mem::replace(&mut session.bucket, bucket);
            self.leave(old, id);
            self.buckets.entry(bucket).or_default().insert(id);
        }
    }

    /// The session takes no more requests; its end is on the way. False if it was not there or closing already.
    pub fn start_closing(&mut self, id: SessionId) -> bool {
        let Some(session) = self.sessions.get_mut(&id).filter(|session| !session.closing) else { return false };
        session.closing = true;
        self.closing += 1;
        let bucket = session.bucket;
        self.leave(bucket, id);
        true
    }

    /// The session is gone. Returns who spoke for it.
    pub fn close(&mut self, id: SessionId) -> Option<Owner> {
        let session = self.sessions.remove(&id)?;
        self.closing -= usize::from(session.closing);
        self.leave(session.bucket, id);
        session.owner
    }

    /// Up to `limit` of the sessions that have not been heard of for too long.
    pub fn expired(&self, now: Duration, limit: usize) -> Vec<SessionId> {
        self.buckets.range(..=now).flat_map(|(_, sessions)| sessions).copied().take(limit).collect()
    }

    /// Who expires when, if nothing more is heard of them: the times since the server's start.
    pub fn buckets(&self) -> impl Iterator<Item = (Duration, Vec<SessionId>)> {
        self.buckets.iter().map(|(at, sessions)| (*at, sessions.iter().copied().collect()))
    }

    /// When somebody expires at the earliest.
    pub fn deadline(&self) -> Option<Duration> {
        self.buckets.keys().next().copied()
    }

    fn bucket(&self, now: Duration, timeout: Duration) -> Duration {
        round_up(now + timeout, self.tick)
    }

    fn leave(&mut self, bucket: Duration, id: SessionId) {
        if let Some(set) = self.buckets.get_mut(&bucket) {
            set.remove(&id);
            if set.is_empty() {
                self.buckets.remove(&bucket);
            }
        }
    }
}

/// The next bucket's end after `at`, as Apache rounds.
pub fn round_up(at: Duration, tick: Duration) -> Duration {
    // In 64 bits, which is 584 years: every ping of every client comes here.
    let (at, tick) = (at.as_nanos() as u64, tick.as_nanos() as u64);
    Duration::from_nanos((at / tick + 1) * tick)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TICK: Duration = Duration::from_secs(2);

    fn secs(secs: u64) -> Duration {
        Duration::from_secs(secs)
    }

    #[test]
    fn a_session_expires_late_rather_than_early() {
        let mut sessions = Sessions::new(TICK);
        sessions.open(SessionId(1), secs(4), None, secs(1));
        assert_eq!(sessions.deadline(), Some(secs(6)));
        assert!(sessions.expired(secs(5), 9).is_empty());
        sessions.touch(SessionId(1), secs(3));
        assert!(sessions.expired(secs(7), 9).is_empty());
        assert_eq!(sessions.expired(secs(8), 9), [SessionId(1)]);
        assert!(sessions.start_closing(SessionId(1)));
        assert!(!sessions.start_closing(SessionId(1)));
        sessions.touch(SessionId(1), secs(9));
        assert!(sessions.expired(secs(100), 9).is_empty(), "it is being closed once");
    }

    /// It stayed in the bucket of the first time, where it expired again and again.
    #[test]
    fn a_session_that_is_opened_twice_expires_once() {
        let mut sessions = Sessions::new(TICK);
        sessions.open(SessionId(1), secs(4), None, secs(1));
        sessions.open(SessionId(1), secs(8), Some(Owner::Learner(LinkId(1))), secs(1));
        assert!(sessions.expired(secs(9), 9).is_empty());
        assert!(sessions.may_open(LinkId(1), SessionId(1)) && !sessions.may_open(LinkId(2), SessionId(1)));
        assert_eq!(sessions.expired(secs(10), 9), [SessionId(1)]);
        sessions.close(SessionId(1));
        assert_eq!(sessions.deadline(), None);
    }

    #[test]
    fn a_session_moves_and_only_its_newest_connection_speaks_for_it() {
        let conn = |slot| ConnId { core: 0, slot, generation: 0 };
        let at = |slot| Owner::Client(conn(slot));
        let mut sessions = Sessions::new(TICK);
        sessions.open(SessionId(1), secs(4), Some(at(1)), secs(0));
        assert_eq!(sessions.renew(SessionId(1), secs(9), at(2), secs(1)), Some(Some(at(1))));
        assert!(sessions.speaks_for(conn(2), SessionId(1)) && !sessions.speaks_for(conn(1), SessionId(1)));
        assert_eq!(sessions.renew(SessionId(9), secs(9), at(2), secs(1)), None);
        assert_eq!(sessions.close(SessionId(1)), Some(at(2)));
        assert!(sessions.is_empty() && sessions.deadline().is_none());
    }

    #[test]
    fn a_session_belongs_to_the_first_learner_that_speaks_for_it_until_its_client_goes_elsewhere() {
        let (one, two) = (LinkId(1), LinkId(2));
        let mut sessions = Sessions::new(TICK);
        assert_eq!(sessions.speaks_over(one, SessionId(1)), Err(ErrorCode::SessionExpired));
        sessions.open(SessionId(1), secs(4), None, secs(0));
        assert_eq!(sessions.speaks_over(one, SessionId(1)), Ok(()));
        assert_eq!(sessions.speaks_over(two, SessionId(1)), Err(ErrorCode::SessionMoved));
        sessions.renew(SessionId(1), secs(4), Owner::Learner(two), secs(1));
        assert_eq!(sessions.speaks_over(one, SessionId(1)), Err(ErrorCode::SessionMoved));
        assert_eq!(sessions.speaks_over(two, SessionId(1)), Ok(()));
        sessions.start_closing(SessionId(1));
        assert_eq!(sessions.speaks_over(two, SessionId(1)), Err(ErrorCode::SessionExpired));
    }

    /// Computed once with `java.util.Random` (Apache ZooKeeper's `generatePasswd`).
    #[test]
    fn the_password_is_javas() {
        let hex: String = password(SessionId(0x1000_0001_2345_0000)).iter().map(|b| format!("{b:02x}")).collect();
        assert_eq!(hex, "11131215ca951454d70e903523c481f1");
    }

    #[test]
    fn ids_carry_the_server_and_are_never_zero() {
        assert_eq!(first_id(3, 0x0123_4567_89ab).0 >> 56, 3);
        let mut ids = SessionIds::new(SessionId(0));
        assert_eq!(ids.next(|id| id == SessionId(1)), SessionId(2));
    }
}
