//! Who may do what: the lists of nodes against the identities of clients, as this server is set up.
//!
//! Rules after Apache's `ZooKeeperServer.checkACL`, `PrepRequestProcessor.fixupACL` and `AuthenticationHelper`.
//!
//! **Invariant**: what `world` may do is seen without a look at anybody's identities.
//!
//! **Not here**: what schemes make of ids ([`super::scheme`]).

use super::identity::Identities;
use super::scheme::{DigestOptions, SUPER, Scheme};
use corral_proto::acl::encode_acls;
use corral_proto::identity::encode_ids;
use corral_proto::{Acl, AclList, ErrorCode, Jute};
use smallvec::SmallVec;
use std::borrow::Cow;
use std::collections::BTreeSet;

/// How access is set up. The default is Apache's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Access {
    /// Everybody may do everything (`skipACL`).
    pub skip: bool,
    /// The scheme `digest`, unless it is switched off.
    pub digest: Option<DigestOptions>,
    /// A connection must have an identity of one of these schemes before it may ask for anything; empty: it need not.
    pub enforced: Vec<Scheme>,
}

impl Default for Access {
    fn default() -> Access {
        Access { skip: false, digest: Some(DigestOptions::default()), enforced: Vec::new() }
    }
}

impl Access {
    /// Whether a client may do any of `wanted` (bits of [`corral_proto::acl::perms`]) with a node that has this list.
    pub fn allows(&self, who: &Identities, acl: AclList<'_>, wanted: i32) -> bool {
        // The list that nearly all nodes have is not even taken apart.
        acl == AclList::OPEN
            || self.skip
            || acl.is_empty()
            || acl.iter().any(|entry| entry.perms & wanted != 0 && is_world(&entry))
            || self.names(who, acl, wanted)
    }

    /// Whether a list allows it to one of these identities.
    #[cold]
    fn names(&self, who: &Identities, acl: AclList<'_>, wanted: i32) -> bool {
        let who: SmallVec<[(&str, &str); 4]> = who.list().iter().collect();
        let is_named = |Acl { scheme, id, .. }: Acl<'_>| {
            let Some((scheme, listed)) = scheme.and_then(|name| self.scheme(name)).zip(id) else { return false };
            who.iter().any(|(name, own)| *name == scheme.name() && scheme.matches(own, listed))
        };
        who.iter().any(|(name, _)| *name == SUPER) || acl.iter().filter(|entry| entry.perms & wanted != 0).any(is_named)
    }

    /// [`Access::allows`] as a check.
    ///
    /// # Errors
    /// [`ErrorCode::NoAuth`].
    pub fn check(&self, who: &Identities, acl: AclList<'_>, wanted: i32) -> Result<(), ErrorCode> {
        if self.allows(who, acl, wanted) { Ok(()) } else { Err(ErrorCode::NoAuth) }
    }

    /// The list that a client's list stands for: without duplicates, only of identities that this server knows, and with those of the
    /// client in place of `auth`, by which it may become `room` bytes longer.
    ///
    /// # Errors
    /// [`ErrorCode::InvalidAcl`].
    pub fn fix_up<'a>(&self, who: &Identities, acl: AclList<'a>, room: usize) -> Result<Cow<'a, [u8]>, ErrorCode> {
        let who = who.list();
        let mut seen = BTreeSet::new();
        let mut entries: Vec<Acl<'_>> = Vec::new();
        let (mut is_same, mut grown) = (true, 0);
        for entry in acl.iter() {
            if !seen.insert((entry.perms, entry.scheme, entry.id)) {
                is_same = false;
                continue;
            }
            match (entry.scheme, entry.id) {
                (Some("world"), Some("anyone")) => entries.push(entry),
                (Some("auth"), _) => {
                    let proved = |(name, id)| self.scheme(name)?.is_proof().then_some((name, id));
                    let before = entries.len();
                    for (scheme, id) in who.iter().filter_map(proved) {
                        entries.push(Acl { perms: entry.perms, scheme: Some(scheme), id: Some(id) });
                    }
                    grown += entries[before..].iter().map(Jute::encoded_len).sum::<usize>();
                    if entries.len() == before || grown > room {
                        return Err(ErrorCode::InvalidAcl);
                    }
                    is_same = false;
                }
                (Some(name), Some(id)) if self.scheme(name).is_some_and(|scheme| scheme.is_valid(id)) => {
                    entries.push(entry);
                }
                _ => return Err(ErrorCode::InvalidAcl),
            }
        }
        match is_same {
            _ if entries.is_empty() => Err(ErrorCode::InvalidAcl),
            true => Ok(Cow::Borrowed(acl.encoded())),
            false => Ok(Cow::Owned(encode_acls(entries.into_iter()))),
        }
    }

    /// The identities of a client that has sent `auth`. `None` if it was not let through.
    pub fn authenticate(&self, who: &Identities, scheme: &str, sent: Option<&[u8]>) -> Option<Identities> {
        match Scheme::from_name(scheme)? {
            // It has that identity since it connected.
            Scheme::Ip => Some(who.clone()),
            Scheme::Digest => self.digest.as_ref()?.add(who, sent?),
        }
    }

    /// Whether a client may ask for anything but `auth`.
    pub fn lets_in(&self, who: &Identities) -> bool {
        let is_enforced = |(name, _): (&str, &str)| self.enforced.iter().any(|scheme| scheme.name() == name);
        self.enforced.is_empty() || who.list().iter().any(is_enforced)
    }

    /// A client's identities as it may see them, an encoded [`corral_proto::IdList`]: the secret parts are left out.
    pub fn users(&self, who: &Identities) -> Vec<u8> {
        let user = |(name, id)| (name, Scheme::from_name(name).map_or(id, |scheme| scheme.user(id)));
        encode_ids(who.list().iter().map(user))
    }

    fn scheme(&self, name: &str) -> Option<Scheme> {
        Scheme::from_name(name).filter(|scheme| *scheme != Scheme::Digest || self.digest.is_some())
    }
}

/// The list as those see it who may read the node but not administer it: without the hashes of `digest`.
pub fn masked(acl: AclList<'_>) -> Vec<u8> {
    let ids: Vec<Option<Cow<'_, str>>> = acl
        .iter()
        .map(|entry| match (entry.scheme, entry.id.and_then(|id| id.split_once(':'))) {
            (Some("digest"), Some((user, _))) => Some(Cow::Owned(format!("{user}:x"))),
            _ => entry.id.map(Cow::Borrowed),
        })
        .collect();
    let entries: Vec<Acl<'_>> = acl.iter().zip(&ids).map(|(entry, id)| Acl { id: id.as_deref(), ..entry }).collect();
    encode_acls(entries.into_iter())
}

fn is_world(entry: &Acl<'_>) -> bool {
    entry.scheme == Some("world") && entry.id == Some("anyone")
}

#[cfg(test)]
mod tests {
    use super::*;
    use corral_proto::acl::perms;

    const ANYONE: Acl<'static> = Acl { perms: perms::READ, scheme: Some("world"), id: Some("anyone") };

    fn acl<'a>(perms: i32, scheme: &'a str, id: &'a str) -> Acl<'a> {
        Acl { perms, scheme: Some(scheme), id: Some(id) }
    }

    fn list(entries: &[Acl<'_>]) -> Vec<u8> {
        encode_acls(entries.iter().copied())
    }

    /// A client at this address that has proved these identities.
    fn client(ids: &[(&str, &str)]) -> Identities {
        Identities::of([10, 1, 2, 3].into()).with(ids).unwrap()
    }

    #[test]
    fn lists_are_fixed_up_as_the_reference_says() {
        let known = client(&[("super", ""), ("digest", "a:1"), ("digest", "b:2"), ("x509", "CN=c")]);
        let fixed = |who: &Identities, entries: &[Acl<'_>]| {
            let bytes = list(entries);
            let fixed = Access::default().fix_up(who, AclList::from_encoded(&bytes).unwrap(), 1000);
            fixed.map(Cow::into_owned)
        };
        for entries in [
            &[][..],
            &[Acl { id: None, ..ANYONE }],
            &[Acl { scheme: None, ..ANYONE }],
            &[Acl { id: Some("nobody"), ..ANYONE }],
            &[acl(1, "nope", "anyone")],
            &[acl(1, "super", "")],
            &[acl(1, "digest", "a")],
            &[acl(1, "ip", "10.1.2.3/33")],
        ] {
            assert_eq!(fixed(&known, entries), Err(ErrorCode::InvalidAcl), "{entries:?}");
        }
        let null = Access::default().fix_up(&known, AclList::from_encoded(&[0xff; 4]).unwrap(), 1000);
        assert_eq!(null, Err(ErrorCode::InvalidAcl));
        let others = [acl(perms::WRITE, "world", "anyone"), acl(31, "ip", "10.0.0.0/8"), acl(31, "digest", "x:y")];
        assert_eq!(fixed(&known, &others), Ok(list(&others)));
        assert_eq!(fixed(&known, &[ANYONE, others[0], ANYONE]), Ok(list(&[ANYONE, others[0]])));
        // What was not proved, or is of no scheme here, does not stand for the client.
        let auth = [acl(7, "auth", "whatever"), ANYONE];
        assert_eq!(fixed(&known, &auth), Ok(list(&[acl(7, "digest", "a:1"), acl(7, "digest", "b:2"), ANYONE])));
        assert_eq!(fixed(&client(&[]), &auth), Err(ErrorCode::InvalidAcl));
    }

    #[test]
    fn a_list_grows_by_as_much_as_it_may() {
        let known = client(&[("digest", "a:1"), ("digest", "b:2")]);
        let bytes = list(&[acl(1, "auth", ""), acl(2, "auth", "")]);
        let grows = |room| Access::default().fix_up(&known, AclList::from_encoded(&bytes).unwrap(), room).is_ok();
        let entry = acl(1, "digest", "a:1").encoded_len();
        assert!(grows(4 * entry) && !grows(4 * entry - 1));
    }

    #[test]
    fn permissions_are_bits_of_any_matching_entry() {
        let nobody = &Identities::NOBODY;
        let access = Access::default();
        assert!(access.allows(nobody, AclList::READ_ONLY, perms::READ | perms::ADMIN));
        assert!(!access.allows(nobody, AclList::READ_ONLY, perms::WRITE));
        assert_eq!(access.check(nobody, AclList::READ_ONLY, perms::WRITE), Err(ErrorCode::NoAuth));
        assert!(Access { skip: true, ..access }.allows(nobody, AclList::READ_ONLY, perms::WRITE));
    }

    #[test]
    fn identities_count_where_a_list_names_them() {
        let bytes = list(&[acl(1, "digest", "a:1"), acl(2, "ip", "10.0.0.0/8"), acl(4, "x509", "CN=c"), ANYONE]);
        let acl = AclList::from_encoded(&bytes).unwrap();
        let other = Identities::of([11, 1, 2, 3].into());
        let [a, b, root] =
            [("digest", "a:1"), ("digest", "b:1"), ("super", "")].map(|id| other.with(&[id]).expect("few"));
        let cert = other.with(&[("x509", "CN=c")]).unwrap();
        let access = Access::default();
        let may = |who: &Identities| [1, 2, 4, 8].map(|wanted| access.allows(who, acl, wanted));
        assert_eq!(may(&client(&[])), [true, true, false, false]);
        assert_eq!((may(&a), may(&b)), ([true, false, false, false], [true, false, false, false]));
        assert_eq!((may(&cert), may(&root)), ([true, false, false, false], [true; 4]));
        let secret = list(&[super::tests::acl(31, "digest", "a:1")]);
        let secret = AclList::from_encoded(&secret).unwrap();
        assert!(access.allows(&a, secret, 1) && !access.allows(&b, secret, 1) && access.allows(&root, secret, 1));
        let without_digest = Access { digest: None, ..access };
        assert!(!without_digest.allows(&a, secret, 1) && without_digest.allows(&root, secret, 1));
    }

    #[test]
    fn a_client_proves_who_it_is() {
        let super_digest = Some("super:lK75jTNcA+U9vtVEw5vB51mj/w4=".to_owned());
        let access =
            Access { digest: Some(DigestOptions { super_digest, ..DigestOptions::default() }), ..Access::default() };
        let begins = client(&[]);
        let after = |scheme: &str, sent: &[u8]| access.authenticate(&begins, scheme, Some(sent));
        assert_eq!(after("ip", b"99.9.9.9"), Some(begins.clone()), "it is where it is");
        assert_eq!(after("digest", b"u:p"), Some(client(&[("digest", "u:Jq7wMyA/w2Vd5WIDAKdu4OIIFEQ=")])));
        let root = client(&[("super", ""), ("digest", "super:lK75jTNcA+U9vtVEw5vB51mj/w4=")]);
        assert_eq!(after("digest", b"super:secret"), Some(root.clone()));
        assert_eq!(["world", "auth", "super", "x509", ""].map(|scheme| after(scheme, b"u:p")), [const { None }; 5]);
        assert_eq!(access.authenticate(&begins, "digest", None), None);
        assert_eq!(Access { digest: None, ..access.clone() }.authenticate(&begins, "digest", Some(b"u:p")), None);
        let users = [("ip", "10.1.2.3"), ("super", ""), ("digest", "super")];
        assert_eq!(access.users(&root), encode_ids(users.into_iter()));
        let enforced = Access { enforced: vec![Scheme::Digest], ..access };
        assert!(!enforced.lets_in(&begins) && enforced.lets_in(&root));
    }

    #[test]
    fn hashes_are_for_those_who_administer() {
        let bytes =
            list(&[acl(1, "digest", "u:secret:more"), acl(1, "digest", "plain"), acl(1, "sasl", "u:x:y"), ANYONE]);
        let shown = [acl(1, "digest", "u:x"), acl(1, "digest", "plain"), acl(1, "sasl", "u:x:y"), ANYONE];
        assert_eq!(masked(AclList::from_encoded(&bytes).unwrap()), list(&shown));
    }
}
