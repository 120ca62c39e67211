//! What servers answer: a header, then, when there was no error, one record a kind of operation.
//!
//! The server writes these straight into a connection's send buffer; clients read them back.

use crate::acl::AclList;
use crate::identity::IdList;
use crate::ids::{Xid, Zxid};
use crate::jute::{Decoder, Jute, JuteError, StrList, buffer_len, put_buffer, put_string, put_ustring, string_len};
use crate::multi::MultiResult;
use crate::opcode::OpCode;
use crate::stat::Stat;
use bytes::BufMut;

/// The sixteen bytes in front of every answer and event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReplyHeader {
    /// The request's xid, or one of the fixed ones ([`Xid::PING`], [`Xid::NOTIFICATION`]).
    pub xid: Xid,
    /// The newest transaction that the answer may reflect.
    pub zxid: Zxid,
    /// 0, or an error code; then there is no body.
    pub error: i32,
}

impl ReplyHeader {
    /// Encoded size in bytes.
    pub const LEN: usize = 16;

    /// Reads one.
    pub fn decode(d: &mut Decoder<'_>) -> Result<ReplyHeader, JuteError> {
        Ok(ReplyHeader { xid: Xid(d.int()?), zxid: Zxid(d.long()?), error: d.int()? })
    }
}

impl Jute for ReplyHeader {
    fn encoded_len(&self) -> usize {
        ReplyHeader::LEN
    }

    fn encode<B: BufMut>(&self, out: &mut B) {
        out.put_i32(self.xid.0);
        out.put_i64(self.zxid.0);
        out.put_i32(self.error);
    }
}

/// The body of an answer without error.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names are the protocol's own")]
pub enum Response<'a> {
    /// delete, ping, setWatches, auth, closeSession.
    Empty,
    /// create: the path with its number, if it is sequential.
    Path(&'a str),
    /// create2, createContainer, createTTL.
    PathStat(&'a str, Stat),
    /// exists, setData, setACL.
    Stat(Stat),
    /// getData, reconfig.
    Data(Option<&'a [u8]>, Stat),
    /// getChildren: names, in no particular order. getEphemerals: paths.
    Children(StrList<'a>),
    /// getChildren2.
    ChildrenStat(StrList<'a>, Stat),
    /// getACL.
    Acl(AclList<'a>, Stat),
    /// sync: the path as it came.
    Sync(Option<&'a str>),
    /// multi: also for a failed one, whose header carries no error. multiRead: each by itself.
    Multi(Vec<MultiResult<'a>>),
    /// whoAmI: schemes, and whom they call so, for people.
    WhoAmI(IdList<'a>),
    /// sasl: the next step, if there is one.
    Sasl(Option<&'a [u8]>),
    /// addWatch: a number that is always 0.
    Zero,
    /// getAllChildrenNumber: how many nodes there are below one.
    Number(i32),
}

impl<'a> Response<'a> {
    /// Reads the body that answers operation `op`.
    pub fn decode(op: OpCode, d: &mut Decoder<'a>) -> Result<Response<'a>, JuteError> {
        let children = |d: &mut Decoder<'a>| StrList::decode(d)?.ok_or(JuteError::Null("the children"));
        Ok(match op {
            OpCode::Create => Response::Path(d.string("the path")?),
            OpCode::Create2 | OpCode::CreateContainer | OpCode::CreateTtl => {
                Response::PathStat(d.string("the path")?, Stat::decode(d)?)
            }
            OpCode::Exists | OpCode::SetData | OpCode::SetAcl => Response::Stat(Stat::decode(d)?),
            OpCode::GetData | OpCode::Reconfig => Response::Data(d.buffer()?, Stat::decode(d)?),
            OpCode::GetChildren | OpCode::GetEphemerals => Response::Children(children(d)?),
            OpCode::GetChildren2 => Response::ChildrenStat(children(d)?, Stat::decode(d)?),
            OpCode::GetAcl => Response::Acl(AclList::decode(d)?, Stat::decode(d)?),
            OpCode::Sync => Response::Sync(d.ustring()?),
            OpCode::Multi | OpCode::MultiRead => Response::Multi(MultiResult::decode_all(d)?),
            OpCode::WhoAmI => Response::WhoAmI(IdList::decode(d)?.ok_or(JuteError::Null("the identities"))?),
            OpCode::Sasl => Response::Sasl(d.buffer()?),
            OpCode::GetAllChildrenNumber => Response::Number(d.int()?),
            OpCode::AddWatch => {
                d.int()?;
                Response::Zero
            }
            OpCode::Delete | OpCode::Ping | OpCode::Auth | OpCode::CloseSession => Response::Empty,
            OpCode::SetWatches | OpCode::SetWatches2 | OpCode::RemoveWatches | OpCode::CheckWatches => Response::Empty,
            OpCode::Check | OpCode::DeleteContainer | OpCode::CreateSession | OpCode::Error => {
                return Err(JuteError::Unknown { what: "an answered operation", value: op.code() });
            }
        })
    }
}

impl Jute for Response<'_> {
    fn encoded_len(&self) -> usize {
        match self {
            Response::Empty => 0,
            Response::Path(path) => string_len(path),
            Response::PathStat(path, _) => string_len(path) + Stat::LEN,
            Response::Stat(_) => Stat::LEN,
            Response::Data(data, _) => buffer_len(*data) + Stat::LEN,
            Response::Children(children) => children.encoded_len(),
            Response::ChildrenStat(children, _) => children.encoded_len() + Stat::LEN,
            Response::Acl(acl, _) => acl.encoded_len() + Stat::LEN,
            Response::Sync(path) => buffer_len(path.map(str::as_bytes)),
            Response::Multi(results) => MultiResult::encoded_len_all(results),
            Response::WhoAmI(ids) => ids.encoded_len(),
            Response::Sasl(token) => buffer_len(*token),
            Response::Zero | Response::Number(_) => 4,
        }
    }

    fn encode<B: BufMut>(&self, out: &mut B) {
        match self {
            Response::Empty => {}
            Response::Path(path) => put_string(out, path),
            Response::PathStat(path, stat) => {
                put_string(out, path);
                stat.encode(out);
            }
            Response::Stat(stat) => stat.encode(out),
            Response::Data(data, stat) => {
                put_buffer(out, *data);
                stat.encode(out);
            }
            Response::Children(children) => children.encode(out),
            Response::ChildrenStat(children, stat) => {
                children.encode(out);
                stat.encode(out);
            }
            Response::Acl(acl, stat) => {
                acl.encode(out);
                stat.encode(out);
            }
            Response::Sync(path) => put_ustring(out, *path),
            Response::Multi(results) => MultiResult::encode_all(results, out),
            Response::WhoAmI(ids) => ids.encode(out),
            Response::Sasl(token) => put_buffer(out, *token),
            Response::Zero => out.put_i32(0),
            Response::Number(number) => out.put_i32(*number),
        }
    }
}
