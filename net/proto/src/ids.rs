//! Numbers that must not be mixed up: ids of transactions, sessions, servers and requests, and the digest of a tree.
//!
//! **Not here**: how they are assigned (the replica's sequencer and session table do that).

use std::fmt;

/// A transaction id: the epoch of the leader that proposed it in the high 32 bits, a counter in the low 32.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Zxid(pub i64);

impl Zxid {
    /// Before every transaction.
    pub const ZERO: Zxid = Zxid(0);

    /// The counter value `counter` of `epoch`.
    pub const fn new(epoch: u32, counter: u32) -> Zxid {
        Zxid(((epoch as i64) << 32) | counter as i64)
    }

    /// The epoch of the leader that proposed it.
    pub const fn epoch(self) -> u32 {
        (self.0 >> 32) as u32
    }

    /// Its place within the epoch; 0 is never a transaction.
    pub const fn counter(self) -> u32 {
        self.0 as u32
    }

    /// The following zxid of the same epoch, or `None` when the counter is used up and a new epoch is needed
    /// (ZOOKEEPER-1277: it must not carry into the epoch).
    pub const fn next(self) -> Option<Zxid> {
        if self.counter() == u32::MAX { None } else { Some(Zxid(self.0 + 1)) }
    }
}

impl fmt::Display for Zxid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "0x{:x}", self.0)
    }
}

/// A sum over all nodes of a tree, as Apache ZooKeeper computes it (version 2 of its digest): two trees with different digests differ.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TreeDigest(pub u64);

impl TreeDigest {
    /// The same sum with the number of one node, which changes, exchanged for another; 0 stands for no node.
    #[must_use]
    pub const fn exchange(self, before: u32, after: u32) -> TreeDigest {
        TreeDigest(self.0.wrapping_sub(before as u64).wrapping_add(after as u64))
    }
}

/// As Apache prints it: a signed number.
impl fmt::Display for TreeDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0 as i64)
    }
}

/// A session, across connections and servers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionId(pub i64);

impl SessionId {
    /// No session: what a new client sends, and what a refused one is answered.
    pub const NONE: SessionId = SessionId(0);
    /// What stands in a node's place for its owner when it is a container.
    pub const CONTAINER: SessionId = SessionId(i64::MIN);
    /// The highest byte of what stands there when the node lives for a time; the rest is that, in ms.
    const TTL: i64 = 0xff << 56;
    /// The longest such time.
    const TTL_MAX: i64 = 0xff_ffff_ffff;

    /// What stands in a node's place for its owner when it lives for so many ms after its last change; `None` if nothing can.
    pub const fn ttl(ms: i64) -> Option<SessionId> {
        if ms >= 1 && ms <= SessionId::TTL_MAX { Some(SessionId(SessionId::TTL | ms)) } else { None }
    }

    /// The time that such a mark says.
    pub const fn ttl_ms(self) -> Option<i64> {
        if self.0 & !SessionId::TTL_MAX == SessionId::TTL { Some(self.0 & SessionId::TTL_MAX) } else { None }
    }

    /// Whether this is a session, and not one of the marks for other nodes.
    pub const fn is_session(self) -> bool {
        !(self.0 == SessionId::NONE.0 || self.0 == SessionId::CONTAINER.0 || self.ttl_ms().is_some())
    }
}

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "0x{:x}", self.0)
    }
}

/// A member of the ensemble, as `myid` names it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServerId(pub i64);

impl fmt::Display for ServerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// What a client calls one of its requests. Negative ones have fixed meanings.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Xid(pub i32);

impl Xid {
    /// A watch event, sent by the server without a request.
    pub const NOTIFICATION: Xid = Xid(-1);
    /// Every ping is answered with this xid, whatever the request carried.
    pub const PING: Xid = Xid(-2);
    /// What most clients send with `auth`.
    pub const AUTH: Xid = Xid(-4);
    /// What the C client sends with `setWatches`.
    pub const SET_WATCHES: Xid = Xid(-8);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_marks_other_nodes_is_no_session() {
        for mark in
            [SessionId::NONE, SessionId::CONTAINER, SessionId::ttl(1).unwrap(), SessionId::ttl(1 << 39).unwrap()]
        {
            assert!(!mark.is_session(), "{mark}");
        }
        assert_eq!([SessionId::ttl(0), SessionId::ttl(1 << 40)], [None, None]);
        assert_eq!(SessionId::ttl(77).and_then(SessionId::ttl_ms), Some(77));
        assert!(SessionId(1).is_session() && SessionId(0xfe << 56).is_session());
    }

    #[test]
    fn a_zxid_never_carries_into_the_epoch() {
        assert_eq!(Zxid::new(7, 1).next(), Some(Zxid::new(7, 2)));
        assert_eq!(Zxid::new(7, u32::MAX).next(), None);
        assert_eq!((Zxid::new(7, 9).epoch(), Zxid::new(7, 9).counter()), (7, 9));
    }
}
