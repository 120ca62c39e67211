//! Jute, the encoding of every ZooKeeper record: big-endian integers, length-prefixed strings and vectors, no tags.
//!
//! The [`Decoder`] walks over a borrowed slice and hands out borrowed pieces. Every length is compared with the bytes
//! that are left before it is believed, so nothing here can be made to allocate, and nothing can panic.
//!
//! Rules taken over from Apache ZooKeeper's `BinaryInputArchive`: a length of -1 is null, any other negative length of a
//! string or buffer is an error, any other negative *count* of a vector is an empty vector, a boolean is true when it is
//! not zero. One departure: a string that is not UTF-8 is an error here, not a string with replacement characters.

use bytes::BufMut;
use std::fmt;

/// Why bytes are not the record they should be. The connection stays up; the request is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JuteError {
    /// The record goes on beyond the bytes that are there.
    #[error("{need} more bytes were announced than the {left} that are left")]
    Truncated {
        /// Bytes the record still wanted.
        need: usize,
        /// Bytes that were left.
        left: usize,
    },
    /// A string or buffer with a negative length other than -1.
    #[error("impossible length {0}")]
    BadLength(i32),
    /// A string that is not UTF-8.
    #[error("a string is not UTF-8")]
    NotUtf8,
    /// A null where the record needs a value.
    #[error("{0} is null")]
    Null(&'static str),
    /// A number that stands for nothing (an operation, a watch mode, …).
    #[error("{what} has no meaning for {value}")]
    Unknown {
        /// What was being read.
        what: &'static str,
        /// The number found.
        value: i32,
    },
}

/// A record that can be written, and that knows its length beforehand.
pub trait Jute {
    /// Bytes that [`Jute::encode`] will write.
    fn encoded_len(&self) -> usize;

    /// Writes the record. Panics if `out` has less than [`Jute::encoded_len`] bytes of room.
    fn encode<B: BufMut>(&self, out: &mut B);

    /// The record as bytes of its own.
    fn to_vec(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.encoded_len());
        self.encode(&mut out);
        out
    }
}

/// Reads jute from a slice, borrowing from it.
#[derive(Clone, Copy)]
pub struct Decoder<'a> {
    rest: &'a [u8],
}

impl fmt::Debug for Decoder<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Decoder({} bytes left)", self.rest.len())
    }
}

impl<'a> Decoder<'a> {
    /// Starts at the beginning of `bytes`.
    pub const fn new(bytes: &'a [u8]) -> Decoder<'a> {
        Decoder { rest: bytes }
    }

    /// What has not been read yet.
    pub const fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// True when everything has been read.
    pub const fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    fn take(&mut self, n: usize) -> Result<&'a [u8], JuteError> {
        match self.rest.split_at_checked(n) {
            Some((head, rest)) => {
                self.rest = rest;
                Ok(head)
            }
            None => Err(JuteError::Truncated { need: n, left: self.rest.len() }),
        }
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], JuteError> {
        match self.rest.split_first_chunk::<N>() {
            Some((head, rest)) => {
                self.rest = rest;
                Ok(*head)
            }
            None => Err(JuteError::Truncated { need: N, left: self.rest.len() }),
        }
    }

    /// So many bytes, without a length of their own.
    pub fn bytes(&mut self, len: usize) -> Result<&'a [u8], JuteError> {
        self.take(len)
    }

    /// One byte; anything but zero is true.
    pub fn bool(&mut self) -> Result<bool, JuteError> {
        Ok(self.array::<1>()?[0] != 0)
    }

    /// Four bytes.
    pub fn int(&mut self) -> Result<i32, JuteError> {
        Ok(i32::from_be_bytes(self.array()?))
    }

    /// Eight bytes.
    pub fn long(&mut self) -> Result<i64, JuteError> {
        Ok(i64::from_be_bytes(self.array()?))
    }

    /// A length-prefixed piece of bytes, or null.
    pub fn buffer(&mut self) -> Result<Option<&'a [u8]>, JuteError> {
        match self.int()? {
            -1 => Ok(None),
            len if len < 0 => Err(JuteError::BadLength(len)),
            len => self.take(len as usize).map(Some),
        }
    }

    /// A length-prefixed string, or null. What is no UTF-8 is read as [`NO_UTF8`].
    pub fn ustring(&mut self) -> Result<Option<&'a str>, JuteError> {
        Ok(self.buffer()?.map(|bytes| str::from_utf8(bytes).unwrap_or(NO_UTF8)))
    }

    /// A string that may not be null; `what` names it in the error.
    pub fn string(&mut self, what: &'static str) -> Result<&'a str, JuteError> {
        self.ustring()?.ok_or(JuteError::Null(what))
    }

    /// The count of a vector: `None` for null, 0 for other negative counts. A claim only: the elements may not be there.
    pub fn count(&mut self) -> Result<Option<u32>, JuteError> {
        match self.int()? {
            -1 => Ok(None),
            count => Ok(Some(count.max(0) as u32)),
        }
    }
}

/// What is read where bytes are no UTF-8: a path that no node can have. Apache reads such strings with replacement characters, which no
/// path may contain either, so that a request with one is answered, and not refused as a whole.
pub const NO_UTF8: &str = "/\u{fffd}";

/// Length of an encoded buffer or string.
pub const fn buffer_len(value: Option<&[u8]>) -> usize {
    4 + match value {
        Some(bytes) => bytes.len(),
        None => 0,
    }
}

/// Length of an encoded string that is not null.
pub const fn string_len(value: &str) -> usize {
    4 + value.len()
}

/// Writes a buffer. Panics if it is longer than a jute length can say (2 GiB).
pub fn put_buffer<B: BufMut>(out: &mut B, value: Option<&[u8]>) {
    match value {
        None => out.put_i32(-1),
        Some(bytes) => {
            out.put_i32(i32::try_from(bytes.len()).expect("a jute buffer is shorter than 2 GiB"));
            out.put_slice(bytes);
        }
    }
}

/// Writes a string.
pub fn put_string<B: BufMut>(out: &mut B, value: &str) {
    put_buffer(out, Some(value.as_bytes()));
}

/// Writes a string that may be null.
pub fn put_ustring<B: BufMut>(out: &mut B, value: Option<&str>) {
    put_buffer(out, value.map(str::as_bytes));
}

/// A vector of strings that still is bytes: checked when it is decoded, read again each time it is walked over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StrList<'a> {
    count: u32,
    raw: &'a [u8],
}

impl<'a> StrList<'a> {
    /// No strings.
    pub const EMPTY: StrList<'static> = StrList { count: 0, raw: &[] };

    /// Reads a vector of strings, none of which may be null. A null vector is `None`.
    pub fn decode(d: &mut Decoder<'a>) -> Result<Option<StrList<'a>>, JuteError> {
        let Some(count) = d.count()? else { return Ok(None) };
        let start = d.rest;
        for _ in 0..count {
            d.string("an element of a string vector")?;
        }
        Ok(Some(StrList { count, raw: &start[..start.len() - d.rest.len()] }))
    }

    /// Wraps strings that were encoded one after the other by [`put_string`], `count` of them.
    pub fn from_encoded(count: u32, raw: &'a [u8]) -> StrList<'a> {
        let list = StrList { count, raw };
        debug_assert_eq!(list.iter().map(string_len).sum::<usize>(), raw.len());
        list
    }

    /// How many strings there are.
    pub const fn len(&self) -> usize {
        self.count as usize
    }

    /// True when there are none.
    pub const fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The strings, in order.
    pub fn iter(&self) -> impl Iterator<Item = &'a str> + use<'a> {
        let mut d = Decoder::new(self.raw);
        (0..self.count).map(move |_| d.string("checked").expect("the list was checked when it was decoded"))
    }
}

impl Jute for StrList<'_> {
    fn encoded_len(&self) -> usize {
        4 + self.raw.len()
    }

    fn encode<B: BufMut>(&self, out: &mut B) {
        out.put_u32(self.count);
        out.put_slice(self.raw);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn lengths_are_checked_before_they_are_believed() {
        let huge = [0x7f, 0xff, 0xff, 0xff, 1, 2];
        assert_eq!(Decoder::new(&huge).buffer(), Err(JuteError::Truncated { need: 0x7fff_ffff, left: 2 }));
        assert_eq!(Decoder::new(&[0xff, 0xff, 0xff, 0xfe]).buffer(), Err(JuteError::BadLength(-2)));
        assert_eq!(Decoder::new(&[0xff, 0xff, 0xff, 0xff]).buffer(), Ok(None));
        assert_eq!(Decoder::new(&[0, 0, 0, 1, 0xff]).ustring(), Ok(Some(NO_UTF8)));
        assert_eq!(StrList::decode(&mut Decoder::new(&[0xff, 0xff, 0xff, 0xf9])).unwrap(), Some(StrList::EMPTY));
        assert!(StrList::decode(&mut Decoder::new(&huge)).is_err());
    }

    proptest! {
        #[test]
        fn primitives_survive_a_round_trip(a: i32, b: i64, c: bool, s: Option<String>, v: Vec<u8>) {
            let mut out = Vec::new();
            out.put_i32(a);
            out.put_i64(b);
            out.put_u8(c.into());
            put_ustring(&mut out, s.as_deref());
            put_buffer(&mut out, Some(&v));
            let mut d = Decoder::new(&out);
            prop_assert_eq!((d.int().unwrap(), d.long().unwrap(), d.bool().unwrap()), (a, b, c));
            prop_assert_eq!(d.ustring().unwrap(), s.as_deref());
            prop_assert_eq!(d.buffer().unwrap(), Some(&v[..]));
            prop_assert!(d.is_empty());
        }

        #[test]
        fn string_lists_survive_a_round_trip(strings: Vec<String>) {
            let mut raw = Vec::new();
            strings.iter().for_each(|s| put_string(&mut raw, s));
            let list = StrList::from_encoded(strings.len() as u32, &raw);
            let bytes = list.to_vec();
            prop_assert_eq!(bytes.len(), list.encoded_len());
            let back = StrList::decode(&mut Decoder::new(&bytes)).unwrap().unwrap();
            prop_assert_eq!(back.iter().collect::<Vec<_>>(), strings);
        }
    }
}
