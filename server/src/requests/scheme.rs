//! The schemes by which clients prove who they are, as Apache's providers of 3.9 do it. Another scheme is another variant of
//! [`Scheme`].
//!
//! `ip` is the address of the connection, which nobody has to prove. `digest` is a user's name with the hash of `user:password`: it
//! never fails for a wrong password, that just makes an identity that nothing names.
//!
//! **Not here**: which identities a connection has ([`super::identity`]), what they may do ([`super::acl`]).

use super::identity::Identities;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use sha1::{Digest, Sha1};
use sha2::{Sha256, Sha512};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The scheme of an identity that may do everything. It is in no list, and nobody can ask for it by this name.
pub const SUPER: &str = "super";

/// A scheme.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    /// The address that a connection comes from.
    Ip,
    /// A user and the hash of a password.
    Digest,
}

impl Scheme {
    /// The one of this name.
    pub fn from_name(name: &str) -> Option<Scheme> {
        [Scheme::Ip, Scheme::Digest].into_iter().find(|scheme| scheme.name() == name)
    }

    /// Its name in identities and lists.
    pub const fn name(self) -> &'static str {
        match self {
            Scheme::Ip => "ip",
            Scheme::Digest => "digest",
        }
    }

    /// Whether its identities were proved, and so stand for their client in a list of scheme `auth`.
    pub const fn is_proof(self) -> bool {
        match self {
            Scheme::Ip => false,
            Scheme::Digest => true,
        }
    }

    /// Whether `id` may be in a list.
    pub fn is_valid(self, id: &str) -> bool {
        match self {
            Scheme::Ip => Network::parse(id).is_some(),
            // Java's `split` drops what is empty at the end.
            Scheme::Digest => id.trim_end_matches(':').split(':').count() == 2,
        }
    }

    /// Whether the client whose identity is `own` is among those that a list calls `listed`.
    pub fn matches(self, own: &str, listed: &str) -> bool {
        match self {
            Scheme::Ip => Network::parse(listed).zip(parse_address(own)).is_some_and(|(net, own)| net.contains(own)),
            Scheme::Digest => own == listed,
        }
    }

    /// What people may see of an identity: the user.
    pub fn user(self, id: &str) -> &str {
        match self {
            Scheme::Ip => id,
            Scheme::Digest => id.split_once(':').map_or(id, |(user, _)| user),
        }
    }
}

/// A range of addresses, `address[/bits]`.
struct Network {
    address: IpAddr,
    bits: u32,
}

impl Network {
    fn parse(text: &str) -> Option<Network> {
        let (address, bits) = text.split_once('/').map_or((text, None), |(address, bits)| (address, Some(bits)));
        let address = parse_address(address)?;
        let all = if address.is_ipv4() { 32 } else { 128 };
        let bits = bits.map_or(Some(all), |bits| bits.parse().ok())?;
        (bits <= all).then_some(Network { address, bits })
    }

    fn contains(&self, other: IpAddr) -> bool {
        let same = |differing: u128, all: u32| self.bits == 0 || differing >> (all - self.bits) == 0;
        match (self.address, other) {
            (IpAddr::V4(own), IpAddr::V4(other)) => same((own.to_bits() ^ other.to_bits()).into(), 32),
            (IpAddr::V6(own), IpAddr::V6(other)) => same(own.to_bits() ^ other.to_bits(), 128),
            _ => false,
        }
    }
}

/// An address as Apache reads it: zeros in front are taken, IPv4 in the end of IPv6 is not.
fn parse_address(text: &str) -> Option<IpAddr> {
    if text.contains(':') {
        return text.parse::<Ipv6Addr>().ok().filter(|_| !text.contains('.')).map(IpAddr::V6);
    }
    let mut bytes = text.split('.').map(|part| part.parse::<u8>().ok());
    let mut next = || bytes.next().flatten();
    let address = Ipv4Addr::new(next()?, next()?, next()?, next()?);
    bytes.next().is_none().then_some(IpAddr::V4(address))
}

/// By what `digest` hashes (`DigestAuthenticationProvider.digestAlg`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names are the algorithms' own")]
pub enum Hash {
    #[default]
    Sha1,
    Sha256,
    Sha512,
}

impl Hash {
    /// All of them.
    pub const ALL: [Hash; 3] = [Hash::Sha1, Hash::Sha256, Hash::Sha512];

    /// As Java calls it.
    pub const fn name(self) -> &'static str {
        match self {
            Hash::Sha1 => "SHA1",
            Hash::Sha256 => "SHA-256",
            Hash::Sha512 => "SHA-512",
        }
    }

    /// Whether this may be the identity of somebody.
    pub fn can_make(self, id: &str) -> bool {
        let (_, hash) = id.split_once(':').unwrap_or_default();
        STANDARD.decode(hash).is_ok() && hash.len() == self.base64("").len()
    }

    fn base64(self, text: &str) -> String {
        match self {
            Hash::Sha1 => STANDARD.encode(Sha1::digest(text)),
            Hash::Sha256 => STANDARD.encode(Sha256::digest(text)),
            Hash::Sha512 => STANDARD.encode(Sha512::digest(text)),
        }
    }
}

/// How `digest` is set up.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DigestOptions {
    /// By what it hashes.
    pub hash: Hash,
    /// The identity that makes its client [`SUPER`].
    pub super_digest: Option<String>,
}

impl DigestOptions {
    /// The identity that `user:password` makes.
    pub fn identity(&self, user_and_password: &str) -> String {
        let user = user_and_password.split(':').next().unwrap_or_default();
        format!("{user}:{}", self.hash.base64(user_and_password))
    }

    /// The identities of a client that has sent this. `None` if it has too many.
    pub(super) fn add(&self, who: &Identities, sent: &[u8]) -> Option<Identities> {
        let id = self.identity(&String::from_utf8_lossy(sent));
        let own = (Scheme::Digest.name(), &*id);
        match self.super_digest.as_ref() == Some(&id) {
            true => who.with(&[(SUPER, ""), own]),
            false => who.with(&[own]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Those of the reference, and what a JDK has computed.
    #[test]
    fn a_digest_is_the_user_and_the_hash_of_all() {
        let of = |hash, text: &str| DigestOptions { hash, super_digest: None }.identity(text);
        assert_eq!(of(Hash::Sha1, "u:p"), "u:Jq7wMyA/w2Vd5WIDAKdu4OIIFEQ=");
        assert_eq!(of(Hash::Sha1, "a:b:c").split(':').next(), Some("a"));
        assert_eq!(of(Hash::Sha1, "nocolon"), "nocolon:Ra+cHr2ZoHvBjtNArFGNGlVie4g=");
        assert_eq!(of(Hash::Sha1, ""), ":2jmj7l5rSw0yVb/vlWAYkK/YBwk=");
        assert_eq!(of(Hash::Sha256, "u:p"), "u:/Y8xRBngpX5duYn15uUqIRaIaCviy5TEwSk419hCwuA=");
        let long = "u:JuOwXdmk4f1omXNJj7k4ILDOHOlc+8PMyEaxl9nrWl6OmV83jKYivSqJWsp5PsMTda6BtnipueoU1r5DtBd7CA==";
        assert_eq!(of(Hash::Sha512, "u:p"), long);
    }

    #[test]
    fn what_may_be_in_a_list() {
        for (scheme, valid, invalid) in [
            (Scheme::Digest, &["a:b", ":b", "a:b:"][..], &["", ":", "a", "a:", "a:b:c", "::b"][..]),
            (
                Scheme::Ip,
                &["1.2.3.4", "010.0.0.1", "1.2.3.4/0", "1.2.3.4/32", "::", "::1/128", "1:2:3:4:5:6:7:8", "FE80::1/10"],
                &["", "1.2.3", "1.2.3.4.5", "1.2.3.256", "1.2.3.4/33", "1.2.3.4/", "1.2.3.4/8/8", "1.2.3.4/-1", "host"],
            ),
            (Scheme::Ip, &[], &["::1/129", "1::2::3", "1:2:3", "1:2:3:4:5:6:7:8:9", "::ffff:1.2.3.4", "fe80::1%eth0"]),
        ] {
            assert_eq!(valid.iter().filter(|id| !scheme.is_valid(id)).collect::<Vec<_>>(), [&""; 0]);
            assert_eq!(invalid.iter().filter(|id| scheme.is_valid(id)).collect::<Vec<_>>(), [&""; 0]);
        }
    }

    #[test]
    fn addresses_match_as_far_as_the_bits_go() {
        for (own, listed, matches) in [
            ("10.1.2.3", "10.1.2.3", true),
            ("10.1.2.3", "10.1.2.4", false),
            ("10.1.2.3", "10.1.255.255/16", true),
            ("10.1.2.3", "10.2.0.0/15", false),
            ("10.1.2.3", "99.0.0.0/0", true),
            ("10.1.2.3", "::/0", false),
            ("0:0:0:0:0:0:0:1", "::1", true),
            ("2001:db8:0:0:0:0:0:1", "2001:db8::/32", true),
            ("2001:db9:0:0:0:0:0:1", "2001:db8::/32", false),
            ("2001:db9:0:0:0:0:0:1", "::/0", true),
            ("0:0:0:0:0:0:0:1", "1.2.3.4/0", false),
            ("10.1.2.3", "10.0.0.0/99", false),
        ] {
            assert_eq!(Scheme::Ip.matches(own, listed), matches, "{own} {listed}");
        }
    }
}
