//! Identities as they travel: a vector of (scheme, id), kept encoded until somebody looks inside. A learner sends its leader those of
//! the client that it forwards a request of; `whoAmI` is answered with a list of the same form.
//!
//! **Not here**: what an identity may do, and how a client comes by one (`corral-server` decides).

use crate::jute::{Decoder, Jute, JuteError, put_string};
use bytes::BufMut;

/// A list of identities, still encoded, with its count in front.
///
/// There is one way to write a list of identities that are not null, so equal bytes are equal lists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IdList<'a> {
    encoded: &'a [u8],
}

impl<'a> IdList<'a> {
    /// None.
    pub const EMPTY: IdList<'static> = IdList { encoded: &[0; 4] };

    /// Reads and checks a list; `None` is the null list. Other negative counts are the empty list.
    ///
    /// # Errors
    /// Those of the bytes.
    pub fn decode(d: &mut Decoder<'a>) -> Result<Option<IdList<'a>>, JuteError> {
        let start = d.rest();
        let Some(count) = d.count()? else { return Ok(None) };
        for _ in 0..count {
            d.ustring()?;
            d.ustring()?;
        }
        let encoded = &start[..start.len() - d.rest().len()];
        Ok(Some(if count == 0 { IdList::EMPTY } else { IdList { encoded } }))
    }

    /// The list in bytes that [`IdList::encoded`] gave; the null list is empty.
    ///
    /// # Errors
    /// Those of the bytes.
    pub fn from_encoded(encoded: &'a [u8]) -> Result<IdList<'a>, JuteError> {
        Ok(IdList::decode(&mut Decoder::new(encoded))?.unwrap_or(IdList::EMPTY))
    }

    /// The list in its own bytes, count included.
    pub const fn encoded(&self) -> &'a [u8] {
        self.encoded
    }

    /// Scheme and id of each, in order; a null is an empty string.
    pub fn iter(&self) -> impl Iterator<Item = (&'a str, &'a str)> + use<'a> {
        let mut d = Decoder::new(self.encoded);
        let count = d.count().expect("checked when decoded").unwrap_or(0);
        let mut string = move || d.ustring().expect("checked when decoded").unwrap_or("");
        (0..count).map(move |_| (string(), string()))
    }
}

impl Jute for IdList<'_> {
    fn encoded_len(&self) -> usize {
        self.encoded.len()
    }

    fn encode<B: BufMut>(&self, out: &mut B) {
        out.put_slice(self.encoded);
    }
}

/// Encodes identities as a list.
pub fn encode_ids<'a>(ids: impl Iterator<Item = (&'a str, &'a str)>) -> Vec<u8> {
    let mut out = vec![0; 4];
    let mut count: u32 = 0;
    for (scheme, id) in ids {
        put_string(&mut out, scheme);
        put_string(&mut out, id);
        count += 1;
    }
    out[..4].copy_from_slice(&count.to_be_bytes());
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_read_back() {
        let ids = [("ip", "127.0.0.1"), ("digest", "me:secret"), ("super", "")];
        let bytes = encode_ids(ids.into_iter());
        assert_eq!(IdList::from_encoded(&bytes).unwrap().iter().collect::<Vec<_>>(), ids);
        assert_eq!(encode_ids(std::iter::empty()), IdList::EMPTY.encoded());
        assert!(IdList::from_encoded(&bytes[..bytes.len() - 1]).is_err());
    }

    #[test]
    fn null_and_negative_counts_are_empty() {
        for count in [-1, 0, -5] {
            assert_eq!(IdList::from_encoded(&i32::to_be_bytes(count)), Ok(IdList::EMPTY), "{count}");
        }
        assert!(IdList::from_encoded(&[0x7f, 0xff, 0xff, 0xff]).is_err());
    }
}
