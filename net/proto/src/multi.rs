//! The transaction of several operations: a sequence of (header, record), ended by a header that says done.
//!
//! Requests and results share the framing (`MultiHeader`). A [`MultiRequest`] is checked once and stays encoded; its
//! operations are read as they are walked over.

use crate::acl::AclList;
use crate::body::{CreateMode, CreateRequest, PathVersion, SetDataRequest};
use crate::error::ErrorCode;
use crate::jute::{Decoder, Jute, JuteError, StrList, buffer_len, put_buffer, put_string, string_len};
use crate::opcode::OpCode;
use crate::stat::Stat;
use bytes::BufMut;

struct MultiHeader {
    op: i32,
    done: bool,
    error: i32,
}

impl MultiHeader {
    const LEN: usize = 9;
    const DONE: MultiHeader = MultiHeader { op: -1, done: true, error: -1 };

    fn decode(d: &mut Decoder<'_>) -> Result<MultiHeader, JuteError> {
        Ok(MultiHeader { op: d.int()?, done: d.bool()?, error: d.int()? })
    }

    fn encode<B: BufMut>(&self, out: &mut B) {
        out.put_i32(self.op);
        out.put_u8(self.done.into());
        out.put_i32(self.error);
    }
}

/// One operation of a multi.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names are the protocol's own")]
pub enum MultiOp<'a> {
    Create(CreateRequest<'a>),
    Create2(CreateRequest<'a>),
    CreateContainer(CreateRequest<'a>),
    CreateTtl(CreateRequest<'a>, i64),
    Delete(PathVersion<'a>),
    SetData(SetDataRequest<'a>),
    Check(PathVersion<'a>),
}

impl<'a> MultiOp<'a> {
    fn decode(op: i32, d: &mut Decoder<'a>) -> Result<MultiOp<'a>, JuteError> {
        let create = |d: &mut Decoder<'a>| {
            let request = CreateRequest::decode(d)?;
            match CreateMode::from_flags(request.flags) {
                Some(_) => Ok(request),
                None => Err(JuteError::Unknown { what: "a create flag", value: request.flags }),
            }
        };
        // The null list makes a multi undecodable, too, but for nodes that live for a time.
        let with_list = |request: CreateRequest<'a>| match request.acl == AclList::NULL {
            true => Err(JuteError::Null("the list")),
            false => Ok(request),
        };
        Ok(match OpCode::from_code(op) {
            Some(OpCode::Create) => MultiOp::Create(with_list(create(d)?)?),
            Some(OpCode::Create2) => MultiOp::Create2(with_list(create(d)?)?),
            Some(OpCode::CreateContainer) => MultiOp::CreateContainer(with_list(create(d)?)?),
            Some(OpCode::CreateTtl) => MultiOp::CreateTtl(create(d)?, d.long()?),
            Some(OpCode::Delete) => MultiOp::Delete(PathVersion::decode(d)?),
            Some(OpCode::SetData) => {
                // A null path is a bad argument by itself, but makes a multi undecodable (as Apache does it).
                { *d }.string("the path")?;
                MultiOp::SetData(SetDataRequest::decode(d)?)
            }
            Some(OpCode::Check) => MultiOp::Check(PathVersion::decode(d)?),
            _ => return Err(JuteError::Unknown { what: "an operation of a multi", value: op }),
        })
    }

    /// The operation.
    pub const fn op(&self) -> OpCode {
        match self {
            MultiOp::Create(_) => OpCode::Create,
            MultiOp::Create2(_) => OpCode::Create2,
            MultiOp::CreateContainer(_) => OpCode::CreateContainer,
            MultiOp::CreateTtl(..) => OpCode::CreateTtl,
            MultiOp::Delete(_) => OpCode::Delete,
            MultiOp::SetData(_) => OpCode::SetData,
            MultiOp::Check(_) => OpCode::Check,
        }
    }

    /// Appends the operation, with its header, to the bytes of a multi that is being put together.
    pub fn encode_into(&self, out: &mut Vec<u8>) {
        MultiHeader { op: self.op().code(), done: false, error: -1 }.encode(out);
        match self {
            MultiOp::Create(r) | MultiOp::Create2(r) | MultiOp::CreateContainer(r) => r.encode(out),
            MultiOp::CreateTtl(r, ttl_ms) => {
                r.encode(out);
                out.put_i64(*ttl_ms);
            }
            MultiOp::Delete(r) | MultiOp::Check(r) => r.encode(out),
            MultiOp::SetData(r) => r.encode(out),
        }
    }
}

/// The operations of one multi, checked, still encoded (without the header that ends them).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MultiRequest<'a> {
    count: usize,
    raw: &'a [u8],
}

impl<'a> MultiRequest<'a> {
    pub(crate) fn decode(body: &'a [u8]) -> Result<MultiRequest<'a>, JuteError> {
        let mut d = Decoder::new(body);
        let mut count = 0;
        loop {
            let raw = &body[..body.len() - d.rest().len()];
            let header = MultiHeader::decode(&mut d)?;
            if header.done {
                return Ok(MultiRequest { count, raw });
            }
            MultiOp::decode(header.op, &mut d)?;
            count += 1;
        }
    }

    /// Wraps operations that [`MultiOp::encode_into`] wrote.
    pub fn from_encoded(count: usize, raw: &'a [u8]) -> MultiRequest<'a> {
        MultiRequest { count, raw }
    }

    /// How many operations there are; none is legal.
    pub const fn len(&self) -> usize {
        self.count
    }

    /// True when there are none.
    pub const fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The operations, in order.
    pub fn iter(&self) -> impl Iterator<Item = MultiOp<'a>> + use<'a> {
        let mut d = Decoder::new(self.raw);
        (0..self.count).map(move |_| {
            let header = MultiHeader::decode(&mut d).expect("checked when decoded");
            MultiOp::decode(header.op, &mut d).expect("checked when decoded")
        })
    }
}

impl Jute for MultiRequest<'_> {
    fn encoded_len(&self) -> usize {
        self.raw.len() + MultiHeader::LEN
    }

    fn encode<B: BufMut>(&self, out: &mut B) {
        out.put_slice(self.raw);
        MultiHeader::DONE.encode(out);
    }
}

/// The reads of one multiRead, checked, still encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MultiReadRequest<'a> {
    count: usize,
    raw: &'a [u8],
}

/// One read of a multiRead. Whether it asks to watch is not looked at (as Apache does it).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names are the protocol's own")]
pub enum ReadOp<'a> {
    GetData(&'a str),
    GetChildren(&'a str),
}

impl<'a> ReadOp<'a> {
    fn decode(op: i32, d: &mut Decoder<'a>) -> Result<ReadOp<'a>, JuteError> {
        let path = d.string("the path")?;
        let _watch = d.bool()?;
        match OpCode::from_code(op) {
            Some(OpCode::GetData) => Ok(ReadOp::GetData(path)),
            Some(OpCode::GetChildren) => Ok(ReadOp::GetChildren(path)),
            _ => Err(JuteError::Unknown { what: "an operation of a multiRead", value: op }),
        }
    }

    /// Appends the read, with its header, to the bytes of a multiRead that is being put together.
    pub fn encode_into(&self, out: &mut Vec<u8>) {
        let (op, path) = match self {
            ReadOp::GetData(path) => (OpCode::GetData, path),
            ReadOp::GetChildren(path) => (OpCode::GetChildren, path),
        };
        MultiHeader { op: op.code(), done: false, error: -1 }.encode(out);
        put_string(out, path);
        out.put_u8(0);
    }
}

impl<'a> MultiReadRequest<'a> {
    pub(crate) fn decode(body: &'a [u8]) -> Result<MultiReadRequest<'a>, JuteError> {
        let mut d = Decoder::new(body);
        let mut count = 0;
        loop {
            let raw = &body[..body.len() - d.rest().len()];
            let header = MultiHeader::decode(&mut d)?;
            if header.done {
                return Ok(MultiReadRequest { count, raw });
            }
            ReadOp::decode(header.op, &mut d)?;
            count += 1;
        }
    }

    /// Wraps reads that [`ReadOp::encode_into`] wrote.
    pub fn from_encoded(count: usize, raw: &'a [u8]) -> MultiReadRequest<'a> {
        MultiReadRequest { count, raw }
    }

    /// The reads, in order.
    pub fn iter(&self) -> impl Iterator<Item = ReadOp<'a>> + use<'a> {
        let mut d = Decoder::new(self.raw);
        (0..self.count).map(move |_| {
            let header = MultiHeader::decode(&mut d).expect("checked when decoded");
            ReadOp::decode(header.op, &mut d).expect("checked when decoded")
        })
    }
}

impl Jute for MultiReadRequest<'_> {
    fn encoded_len(&self) -> usize {
        self.raw.len() + MultiHeader::LEN
    }

    fn encode<B: BufMut>(&self, out: &mut B) {
        out.put_slice(self.raw);
        MultiHeader::DONE.encode(out);
    }
}

/// What came of one operation of a multi or multiRead.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names are the protocol's own")]
pub enum MultiResult<'a> {
    Create {
        path: &'a str,
    },
    Create2 {
        path: &'a str,
        stat: Stat,
    },
    Delete,
    SetData {
        stat: Stat,
    },
    Check,
    Data {
        data: Option<&'a [u8]>,
        stat: Stat,
    },
    Children(StrList<'a>),
    /// In a failed multi every operation has one: `None` (code 0) before the one that failed, its code, and
    /// RuntimeInconsistency after it.
    Error(Option<ErrorCode>),
}

impl<'a> MultiResult<'a> {
    /// Reads all results of a response body.
    pub fn decode_all(d: &mut Decoder<'a>) -> Result<Vec<MultiResult<'a>>, JuteError> {
        let mut results = Vec::new();
        loop {
            let header = MultiHeader::decode(d)?;
            if header.done {
                return Ok(results);
            }
            results.push(match OpCode::from_code(header.op) {
                Some(OpCode::Create) => MultiResult::Create { path: d.string("the path")? },
                Some(OpCode::Create2) => MultiResult::Create2 { path: d.string("the path")?, stat: Stat::decode(d)? },
                Some(OpCode::Delete) => MultiResult::Delete,
                Some(OpCode::SetData) => MultiResult::SetData { stat: Stat::decode(d)? },
                Some(OpCode::Check) => MultiResult::Check,
                Some(OpCode::GetData) => MultiResult::Data { data: d.buffer()?, stat: Stat::decode(d)? },
                Some(OpCode::GetChildren) => {
                    MultiResult::Children(StrList::decode(d)?.ok_or(JuteError::Null("the children"))?)
                }
                Some(OpCode::Error) => {
                    let code = d.int()?;
                    match (code, ErrorCode::from_code(code)) {
                        (0, _) => MultiResult::Error(None),
                        (_, Some(error)) => MultiResult::Error(Some(error)),
                        (value, None) => return Err(JuteError::Unknown { what: "an error code", value }),
                    }
                }
                _ => return Err(JuteError::Unknown { what: "a result of a multi", value: header.op }),
            });
        }
    }

    /// Writes all results and the header that ends them.
    pub fn encode_all<B: BufMut>(results: &[MultiResult<'_>], out: &mut B) {
        for result in results {
            let (op, error) = match result {
                MultiResult::Create { .. } => (OpCode::Create, 0),
                MultiResult::Create2 { .. } => (OpCode::Create2, 0),
                MultiResult::Delete => (OpCode::Delete, 0),
                MultiResult::SetData { .. } => (OpCode::SetData, 0),
                MultiResult::Check => (OpCode::Check, 0),
                MultiResult::Data { .. } => (OpCode::GetData, 0),
                MultiResult::Children(_) => (OpCode::GetChildren, 0),
                MultiResult::Error(error) => (OpCode::Error, error.map_or(0, ErrorCode::code)),
            };
            MultiHeader { op: op.code(), done: false, error }.encode(out);
            match result {
                MultiResult::Create { path } => put_string(out, path),
                MultiResult::Create2 { path, stat } => {
                    put_string(out, path);
                    stat.encode(out);
                }
                MultiResult::SetData { stat } => stat.encode(out),
                MultiResult::Data { data, stat } => {
                    put_buffer(out, *data);
                    stat.encode(out);
                }
                MultiResult::Children(names) => names.encode(out),
                MultiResult::Delete | MultiResult::Check => {}
                MultiResult::Error(_) => out.put_i32(error),
            }
        }
        MultiHeader::DONE.encode(out);
    }

    /// Bytes that [`MultiResult::encode_all`] will write.
    pub fn encoded_len_all(results: &[MultiResult<'_>]) -> usize {
        let body = |result: &MultiResult<'_>| match result {
            MultiResult::Create { path } => string_len(path),
            MultiResult::Create2 { path, .. } => string_len(path) + Stat::LEN,
            MultiResult::SetData { .. } => Stat::LEN,
            MultiResult::Data { data, .. } => buffer_len(*data) + Stat::LEN,
            MultiResult::Children(names) => names.encoded_len(),
            MultiResult::Delete | MultiResult::Check => 0,
            MultiResult::Error(_) => 4,
        };
        MultiHeader::LEN + results.iter().map(|r| MultiHeader::LEN + body(r)).sum::<usize>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The bytes that the protocol reference gives for create ok, setData on a missing node, delete.
    #[test]
    fn a_failed_multi_has_the_documented_bytes() {
        let results = [
            MultiResult::Error(None),
            MultiResult::Error(Some(ErrorCode::NoNode)),
            MultiResult::Error(Some(ErrorCode::RuntimeInconsistency)),
        ];
        let mut out = Vec::new();
        MultiResult::encode_all(&results, &mut out);
        let hex: String = out.iter().map(|b| format!("{b:02x}")).collect();
        assert_eq!(
            hex,
            "ffffffff000000000000000000ffffffff00ffffff9bffffff9bffffffff00fffffffefffffffeffffffff01ffffffff"
        );
        assert_eq!(out.len(), MultiResult::encoded_len_all(&results));
        assert_eq!(MultiResult::decode_all(&mut Decoder::new(&out)).unwrap(), results);
    }

    #[test]
    fn only_the_operations_of_a_multi_are_let_in() {
        let mut bytes = Vec::new();
        MultiHeader { op: OpCode::SetAcl.code(), done: false, error: -1 }.encode(&mut bytes);
        assert!(MultiRequest::decode(&bytes).is_err());
        assert!(MultiRequest::decode(&[]).is_err(), "the header that ends it is missing");
        let mut done = Vec::new();
        MultiHeader::DONE.encode(&mut done);
        assert!(MultiRequest::decode(&done).unwrap().is_empty());
    }
}
