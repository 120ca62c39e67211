//! The greeting on an election connection: who dials, and where it can be dialled back. It is never answered.
//!
//! **Not here**: which of two connections between the same members is kept.

use crate::ids::ServerId;
use crate::jute::{Decoder, Jute, JuteError};
use crate::peer::Parsed;
use bytes::BufMut;

/// One address. What Apache sends unless `multiAddress.enabled` is set.
const ONE_ADDRESS: i64 = -65_536;
/// Several, joined by `|`.
const ADDRESSES: i64 = -65_535;
/// The longest list of addresses that is read, in bytes.
const ADDRESSES_MAX: usize = 2048;

/// The first words of whoever dialled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hello<'a> {
    /// Who it is.
    pub sid: ServerId,
    /// Its election addresses, `host:port`; none from servers before 3.5, which say only who they are.
    pub addresses: Vec<&'a str>,
}

impl<'a> Hello<'a> {
    /// Reads the greeting at the beginning of `bytes`.
    ///
    /// # Errors
    /// An unknown version of the protocol, or an impossible list of addresses. The connection is of no use then.
    pub fn parse(bytes: &'a [u8]) -> Result<Parsed<Hello<'a>>, JuteError> {
        Parsed::of((|| {
            let mut d = Decoder::new(bytes);
            let version = d.long()?;
            if version >= 0 {
                return Ok((Hello { sid: ServerId(version), addresses: Vec::new() }, 8));
            }
            if version != ONE_ADDRESS && version != ADDRESSES {
                return Err(JuteError::Unknown { what: "a version of the election protocol", value: version as i32 });
            }
            let sid = ServerId(d.long()?);
            let len = d.int()?;
            if !usize::try_from(len).is_ok_and(|len| (1..=ADDRESSES_MAX).contains(&len)) {
                return Err(JuteError::BadLength(len));
            }
            let list = str::from_utf8(d.bytes(len as usize)?).map_err(|_| JuteError::NotUtf8)?;
            let addresses = if version == ADDRESSES { list.split('|').collect() } else { vec![list] };
            Ok((Hello { sid, addresses }, bytes.len() - d.rest().len()))
        })())
    }

    fn list_len(&self) -> usize {
        self.addresses.iter().map(|address| address.len() + 1).sum::<usize>().saturating_sub(1)
    }
}

impl Jute for Hello<'_> {
    fn encoded_len(&self) -> usize {
        if self.addresses.is_empty() { 8 } else { 20 + self.list_len() }
    }

    /// All of it must be sent at once: Apache reads it with a single read.
    fn encode<B: BufMut>(&self, out: &mut B) {
        if self.addresses.is_empty() {
            return out.put_i64(self.sid.0);
        }
        out.put_i64(if self.addresses.len() == 1 { ONE_ADDRESS } else { ADDRESSES });
        out.put_i64(self.sid.0);
        out.put_i32(self.list_len() as i32);
        for (index, address) in self.addresses.iter().enumerate() {
            if index > 0 {
                out.put_u8(b'|');
            }
            out.put_slice(address.as_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_is_read_back_and_a_part_of_it_waits_for_the_rest() {
        for addresses in [vec![], vec!["127.0.0.1:3888"], vec!["10.0.0.1:3888", "[fe80::1]:3888"]] {
            let hello = Hello { sid: ServerId(2), addresses };
            let bytes = hello.to_vec();
            assert_eq!(bytes.len(), hello.encoded_len());
            assert_eq!(Hello::parse(&bytes), Ok(Parsed::Whole(hello, bytes.len())));
            (0..bytes.len()).for_each(|len| assert_eq!(Hello::parse(&bytes[..len]), Ok(Parsed::Short), "{len}"));
        }
    }

    #[test]
    fn what_makes_no_sense_is_refused_before_anything_is_waited_for() {
        let hello = Hello { sid: ServerId(2), addresses: vec!["a:1"] }.to_vec();
        for (at, value) in [(7, 3), (16, 0x7f), (16, 0xff)] {
            let mut bytes = hello.clone();
            bytes[at] = value;
            assert!(Hello::parse(&bytes[..20]).is_err(), "byte {at}");
        }
    }
}
