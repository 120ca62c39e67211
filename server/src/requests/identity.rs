//! Who the client of a connection is: what is checked against the access control lists of nodes.
//!
//! A connection begins as `ip:<its address>`; each successful `auth` adds to that, and nothing takes away. The list is kept as it
//! travels, so it goes to a leader, comes from a learner, and is handed to another core without being copied.
//!
//! **Invariants**: the bytes are a valid [`IdList`]; what a client here can make a list grow to is bounded ([`IDS_MAX`],
//! [`BYTES_MAX`]). What a learner says of its clients is bounded by its link.
//!
//! **Not here**: how an identity is proved ([`super::scheme`]), what it may do ([`super::acl`]).

use bytes::Bytes;
use corral_proto::IdList;
use corral_proto::identity::encode_ids;
use std::net::IpAddr;

/// Identities that one connection may have. (Apache's may have any number.)
pub const IDS_MAX: usize = 64;
/// Bytes that they may have, encoded.
pub const BYTES_MAX: usize = 8 << 10;

/// The identities of one client. A clone is a counted reference.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identities(Bytes);

impl Identities {
    /// No identity at all, as of what a member asks for by itself.
    pub const NOBODY: Identities = Identities(Bytes::from_static(IdList::EMPTY.encoded()));

    /// Of a new connection.
    pub fn of(remote: IpAddr) -> Identities {
        Identities(encode_ids([("ip", &*address(remote))].into_iter()).into())
    }

    /// As they came with a packet, whose reader has checked them.
    pub fn received(encoded: Option<Bytes>) -> Identities {
        encoded.map_or(Identities::NOBODY, Identities)
    }

    /// These and others, each once, or `None` if that is too much.
    pub fn with(&self, more: &[(&str, &str)]) -> Option<Identities> {
        let mut ids: Vec<(&str, &str)> = self.list().iter().collect();
        for id in more {
            if !ids.contains(id) {
                ids.push(*id);
            }
        }
        let encoded = encode_ids(ids.iter().copied());
        (ids.len() <= IDS_MAX && encoded.len() <= BYTES_MAX).then(|| Identities(encoded.into()))
    }

    /// The list.
    pub fn list(&self) -> IdList<'_> {
        IdList::from_encoded(&self.0).expect("checked when it came, or made here")
    }

    /// Its bytes.
    pub fn encoded(&self) -> &Bytes {
        &self.0
    }
}

/// An address as Java writes it (`InetAddress.getHostAddress`): of IPv6 all eight groups; an IPv4 address in IPv6 is one of IPv4.
fn address(remote: IpAddr) -> String {
    match remote.to_canonical() {
        IpAddr::V4(address) => address.to_string(),
        IpAddr::V6(address) => address.segments().map(|group| format!("{group:x}")).join(":"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(remote: &str) -> Identities {
        Identities::of(remote.parse().unwrap())
    }

    #[test]
    fn an_address_is_written_as_java_writes_it() {
        for (remote, text) in [
            ("127.0.0.1", "127.0.0.1"),
            ("::1", "0:0:0:0:0:0:0:1"),
            ("2001:db8::fe:0:1", "2001:db8:0:0:0:fe:0:1"),
            ("::ffff:10.1.2.3", "10.1.2.3"),
        ] {
            assert_eq!(of(remote).list().iter().collect::<Vec<_>>(), [("ip", text)]);
        }
    }

    #[test]
    fn identities_are_added_once_and_not_without_end() {
        let two = of("::1").with(&[("super", ""), ("digest", "a:b")]).unwrap();
        assert_eq!(
            two.list().iter().collect::<Vec<_>>(),
            [("ip", "0:0:0:0:0:0:0:1"), ("super", ""), ("digest", "a:b")]
        );
        assert_eq!(two.with(&[("digest", "a:b")]).unwrap(), two);
        let mut many = of("::1");
        for n in 1..IDS_MAX {
            many = many.with(&[("digest", &format!("{n}:"))]).unwrap();
        }
        assert_eq!((many.with(&[("digest", "more:")]), many.with(&[("digest", "1:")])), (None, Some(many.clone())));
        assert_eq!(two.with(&[("digest", &"x".repeat(BYTES_MAX))]), None);
    }
}
