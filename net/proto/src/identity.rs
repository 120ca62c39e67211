//! Identities as they travel: a vector of (scheme, id), kept encoded until somebody looks inside. A learner sends its leader those of
//! the client that it forwards a request of; `whoAmI` is answered with a list of the same form.
//!
//! Java writes a character above U+FFFF as two surrogates of three bytes each, which is not UTF-8. A name with one of them is kept as it
//! is, and names nobody.
//!
//! **Not here**: what an identity may do, and how a client comes by one (`corral-server` decides).

use crate::jute::{Decoder, Jute, JuteError, put_string};
use bytes::BufMut;

/// A list of identities, still encoded, with its count in front.
///
/// There is one way to write a list, so equal bytes are equal lists.
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
            d.buffer()?;
            d.buffer()?;
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

    /// Scheme and id of each, in order, without those that name nobody: null, or not UTF-8.
    pub fn iter(&self) -> impl Iterator<Item = (&'a str, &'a str)> + use<'a> {
        let mut d = Decoder::new(self.encoded);
        let count = d.count().expect("checked when decoded").unwrap_or(0);
        let mut next = move || name(&mut d).expect("checked when decoded");
        (0..count).filter_map(move |_| {
            let (scheme, id) = (next(), next());
            scheme.zip(id)
        })
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

/// A scheme or an id, if it is one that somebody can be called by.
pub(crate) fn name<'a>(d: &mut Decoder<'a>) -> Result<Option<&'a str>, JuteError> {
    Ok(d.buffer()?.and_then(|bytes| str::from_utf8(bytes).ok()))
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
        let mut surrogates = encode_ids([("digest", "aaaaaa:x"), ids[0]].into_iter());
        let at = surrogates.windows(6).position(|window| window == b"aaaaaa").unwrap();
        surrogates[at..at + 6].copy_from_slice(b"\xed\xa0\xbd\xed\xb8\x80");
        assert_eq!(IdList::from_encoded(&surrogates).unwrap().iter().collect::<Vec<_>>(), ids[..1]);
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
