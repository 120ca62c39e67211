//! Who may do what. So far there is one identity, `world:anyone`; authentication adds others.
//!
//! Rules after Apache's `ZooKeeperServer.checkACL` and `PrepRequestProcessor.fixupACL`.

use corral_proto::acl::encode_acls;
use corral_proto::{Acl, AclList, ErrorCode};
use std::borrow::Cow;
use std::collections::BTreeSet;

/// Whether a client may do any of `wanted` (bits of [`corral_proto::acl::perms`]) with a node that has this list.
pub fn allows(acl: AclList<'_>, wanted: i32) -> bool {
    acl.is_empty() || acl.iter().any(|entry| entry.perms & wanted != 0 && is_world(&entry))
}

/// [`allows`] as a check.
pub fn check(acl: AclList<'_>, wanted: i32) -> Result<(), ErrorCode> {
    if allows(acl, wanted) { Ok(()) } else { Err(ErrorCode::NoAuth) }
}

/// The list that a client's list stands for: without duplicates, and only of identities that this server knows.
pub fn fix_up(acl: AclList<'_>) -> Result<Cow<'_, [u8]>, ErrorCode> {
    if acl.is_empty() || acl.iter().any(|entry| !is_world(&entry)) {
        return Err(ErrorCode::InvalidAcl);
    }
    let mut seen = BTreeSet::new();
    let entries: Vec<Acl<'_>> = acl.iter().filter(|entry| seen.insert((entry.perms, entry.scheme, entry.id))).collect();
    if entries.len() == acl.iter().count() {
        return Ok(Cow::Borrowed(acl.encoded()));
    }
    Ok(Cow::Owned(encode_acls(entries.into_iter())))
}

fn is_world(entry: &Acl<'_>) -> bool {
    entry.scheme == Some("world") && entry.id == Some("anyone")
}

#[cfg(test)]
mod tests {
    use super::*;
    use corral_proto::acl::perms;

    const ANYONE: Acl<'static> = Acl { perms: perms::READ, scheme: Some("world"), id: Some("anyone") };

    #[test]
    fn lists_are_fixed_up_as_the_reference_says() {
        let list = |entries: &[Acl<'static>]| encode_acls(entries.iter().copied());
        let fixed = |bytes: &[u8]| fix_up(AclList::from_encoded(bytes).unwrap()).map(Cow::into_owned);
        assert_eq!(fixed(&list(&[])), Err(ErrorCode::InvalidAcl));
        assert_eq!(fixed(&[0xff; 4]), Err(ErrorCode::InvalidAcl));
        assert_eq!(fixed(&list(&[Acl { id: None, ..ANYONE }])), Err(ErrorCode::InvalidAcl));
        assert_eq!(fixed(&list(&[Acl { scheme: Some("nope"), ..ANYONE }])), Err(ErrorCode::InvalidAcl));
        let other = Acl { perms: perms::WRITE, ..ANYONE };
        assert_eq!(fixed(&list(&[ANYONE, other, ANYONE])), Ok(list(&[ANYONE, other])));
    }

    #[test]
    fn permissions_are_bits_of_any_matching_entry() {
        assert!(allows(AclList::READ_ONLY, perms::READ | perms::ADMIN));
        assert!(!allows(AclList::READ_ONLY, perms::WRITE));
        assert_eq!(check(AclList::READ_ONLY, perms::WRITE), Err(ErrorCode::NoAuth));
    }
}
