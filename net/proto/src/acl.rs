//! Access control lists as they travel: a vector of (permissions, scheme, id), kept encoded until somebody looks inside.
//!
//! **Not here**: who may do what (`corral-server` decides), how lists are shared between nodes (the tree interns them).

use crate::identity::name;
use crate::jute::{Decoder, Jute, JuteError, buffer_len, put_ustring};
use bytes::BufMut;

/// Permission bits.
pub mod perms {
    /// Read data and children, receive events.
    pub const READ: i32 = 1;
    /// Set data.
    pub const WRITE: i32 = 2;
    /// Create children.
    pub const CREATE: i32 = 4;
    /// Delete children.
    pub const DELETE: i32 = 8;
    /// Set the list itself.
    pub const ADMIN: i32 = 16;
    /// All of them.
    pub const ALL: i32 = 31;
}

/// One entry: what `scheme:id` may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Acl<'a> {
    /// Permission bits ([`perms`]); other bits are stored and returned as given.
    pub perms: i32,
    /// `world`, `ip`, `digest`, … `None` also where it is no UTF-8, and so nothing that anybody is called by ([`AclList`] keeps it).
    pub scheme: Option<&'a str>,
    /// Whom the scheme calls so; `None` as with the scheme.
    pub id: Option<&'a str>,
}

impl<'a> Acl<'a> {
    fn decode(d: &mut Decoder<'a>) -> Result<Acl<'a>, JuteError> {
        Ok(Acl { perms: d.int()?, scheme: name(d)?, id: name(d)? })
    }
}

impl Jute for Acl<'_> {
    fn encoded_len(&self) -> usize {
        4 + buffer_len(self.scheme.map(str::as_bytes)) + buffer_len(self.id.map(str::as_bytes))
    }

    fn encode<B: BufMut>(&self, out: &mut B) {
        out.put_i32(self.perms);
        put_ustring(out, self.scheme);
        put_ustring(out, self.id);
    }
}

/// A list of [`Acl`]s, still encoded, with its count in front; or the null list.
///
/// The encoded form is canonical (there is one way to write a list), so equal bytes are equal lists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AclList<'a> {
    encoded: &'a [u8],
}

const NULL: &[u8] = &[0xff; 4];

impl<'a> AclList<'a> {
    /// What `world:anyone` with all permissions looks like.
    pub const OPEN: AclList<'static> = AclList { encoded: b"\0\0\0\x01\0\0\0\x1f\0\0\0\x05world\0\0\0\x06anyone" };
    /// What `world:anyone` with READ looks like (the list of `/zookeeper/config`).
    pub const READ_ONLY: AclList<'static> = AclList { encoded: b"\0\0\0\x01\0\0\0\x01\0\0\0\x05world\0\0\0\x06anyone" };

    /// The null list, which stands for none.
    pub const NULL: AclList<'static> = AclList { encoded: &[0xff; 4] };

    /// Reads and checks a list. Other negative counts than -1 are the empty list, as in Apache ZooKeeper.
    pub fn decode(d: &mut Decoder<'a>) -> Result<AclList<'a>, JuteError> {
        let start = d.rest();
        let Some(count) = d.count()? else { return Ok(AclList { encoded: NULL }) };
        for _ in 0..count {
            Acl::decode(d)?;
        }
        let encoded = &start[..start.len() - d.rest().len()];
        // Keep one form for the empty list, whatever negative count it came with.
        Ok(AclList { encoded: if count == 0 { &[0; 4] } else { encoded } })
    }

    /// The list in bytes that [`AclList::encoded`] gave.
    pub fn from_encoded(encoded: &'a [u8]) -> Result<AclList<'a>, JuteError> {
        AclList::decode(&mut Decoder::new(encoded))
    }

    /// The list in its own bytes, count included.
    pub const fn encoded(&self) -> &'a [u8] {
        self.encoded
    }

    /// True for the null list and the empty one.
    pub fn is_empty(&self) -> bool {
        self.encoded == NULL || self.encoded == [0; 4]
    }

    /// The entries, in order.
    pub fn iter(&self) -> impl Iterator<Item = Acl<'a>> + use<'a> {
        let mut d = Decoder::new(self.encoded);
        let count = d.count().expect("checked when decoded").unwrap_or(0);
        (0..count).map(move |_| Acl::decode(&mut d).expect("checked when decoded"))
    }
}

impl Jute for AclList<'_> {
    fn encoded_len(&self) -> usize {
        self.encoded.len()
    }

    fn encode<B: BufMut>(&self, out: &mut B) {
        out.put_slice(self.encoded);
    }
}

/// Encodes entries as a list.
pub fn encode_acls<'a>(entries: impl ExactSizeIterator<Item = Acl<'a>>) -> Vec<u8> {
    let mut out = Vec::new();
    out.put_u32(entries.len() as u32);
    entries.for_each(|acl| acl.encode(&mut out));
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_open_list_is_what_it_says() {
        let entry = Acl { perms: perms::ALL, scheme: Some("world"), id: Some("anyone") };
        assert_eq!(AclList::OPEN.iter().collect::<Vec<_>>(), [entry]);
        assert_eq!(encode_acls([entry].into_iter()), AclList::OPEN.encoded());
        let read = Acl { perms: perms::READ, ..entry };
        assert_eq!(encode_acls([read].into_iter()), AclList::READ_ONLY.encoded());
    }

    /// As one of Apache's leaders logs a user whose name has a character above U+FFFF.
    #[test]
    fn what_is_not_utf8_is_kept_and_names_nobody() {
        let bytes = b"\0\0\0\x01\0\0\0\x1f\0\0\0\x06digest\0\0\0\x08\xed\xa0\xbd\xed\xb8\x80:x";
        let list = AclList::from_encoded(bytes).unwrap();
        assert_eq!(list.iter().collect::<Vec<_>>(), [Acl { perms: perms::ALL, scheme: Some("digest"), id: None }]);
        assert_eq!(list.encoded(), bytes);
    }

    #[test]
    fn null_and_negative_counts_are_empty() {
        for count in [-1, 0, -5] {
            let bytes = i32::to_be_bytes(count);
            assert!(AclList::from_encoded(&bytes).unwrap().is_empty());
        }
        assert!(AclList::from_encoded(&[0x7f, 0xff, 0xff, 0xff]).is_err());
    }
}
