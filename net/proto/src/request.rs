//! What clients ask: a header, then one record a kind of operation. Everything borrows from the frame.
//!
//! **Not here**: the handshake ([`crate::connect`]), which has no header; the bodies ([`crate::body`]) and the sub-operations of a
//! multi ([`crate::multi`]).

use crate::acl::AclList;
pub use crate::body::{
    AddWatchMode, CreateMode, CreateRequest, Lifetime, PathVersion, PathWatch, ReconfigRequest, SetAclRequest,
    SetDataRequest, SetWatchesRequest, WatcherType,
};
use crate::ids::{Xid, Zxid};
use crate::jute::{Decoder, Jute, JuteError, StrList, buffer_len, put_buffer, put_string, put_ustring, string_len};
use crate::multi::{MultiReadRequest, MultiRequest};
use crate::opcode::OpCode;
use bytes::BufMut;

/// The eight bytes in front of every request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestHeader {
    /// What the client calls this request.
    pub xid: Xid,
    /// The operation's number; not every number is an [`OpCode`].
    pub op: i32,
}

impl RequestHeader {
    /// Encoded size in bytes.
    pub const LEN: usize = 8;

    /// Reads one.
    pub fn decode(d: &mut Decoder<'_>) -> Result<RequestHeader, JuteError> {
        Ok(RequestHeader { xid: Xid(d.int()?), op: d.int()? })
    }
}

impl Jute for RequestHeader {
    fn encoded_len(&self) -> usize {
        RequestHeader::LEN
    }

    fn encode<B: BufMut>(&self, out: &mut B) {
        out.put_i32(self.xid.0);
        out.put_i32(self.op);
    }
}

/// A request without its header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names are the protocol's own")]
pub enum Request<'a> {
    Create(CreateRequest<'a>),
    Create2(CreateRequest<'a>),
    CreateContainer(CreateRequest<'a>),
    /// Besides, how many ms it lives after its last change.
    CreateTtl(CreateRequest<'a>, i64),
    Delete(PathVersion<'a>),
    SetData(SetDataRequest<'a>),
    SetAcl(SetAclRequest<'a>),
    Multi(MultiRequest<'a>),
    CloseSession,
    /// The path is echoed, null included, and never looked up.
    Sync(Option<&'a str>),
    Exists(PathWatch<'a>),
    GetData(PathWatch<'a>),
    GetAcl(&'a str),
    GetChildren(PathWatch<'a>),
    GetChildren2(PathWatch<'a>),
    MultiRead(MultiReadRequest<'a>),
    SetWatches(SetWatchesRequest<'a>),
    SetWatches2(SetWatchesRequest<'a>),
    AddWatch(&'a str, AddWatchMode),
    RemoveWatches(&'a str, WatcherType),
    CheckWatches(&'a str, WatcherType),
    Ping,
    Auth {
        scheme: Option<&'a str>,
        auth: Option<&'a [u8]>,
    },
    WhoAmI,
    /// A step of showing who the client is by SASL.
    Sasl(Option<&'a [u8]>),
    /// Of this session, as far as their paths begin so.
    GetEphemerals(Option<&'a str>),
    GetAllChildrenNumber(&'a str),
    Reconfig(ReconfigRequest<'a>),
}

impl<'a> Request<'a> {
    /// Reads the body of operation `op`. Bytes after the record are ignored, as Apache does.
    ///
    /// # Errors
    /// [`JuteError::Unknown`] for an operation that no client may ask for by itself; others for a broken body.
    pub fn decode(op: OpCode, body: &'a [u8]) -> Result<Request<'a>, JuteError> {
        let d = &mut Decoder::new(body);
        Ok(match op {
            OpCode::Create => Request::Create(CreateRequest::decode(d)?),
            OpCode::Create2 => Request::Create2(CreateRequest::decode(d)?),
            OpCode::CreateContainer => Request::CreateContainer(CreateRequest::decode(d)?),
            OpCode::CreateTtl => Request::CreateTtl(CreateRequest::decode(d)?, d.long()?),
            OpCode::Delete => Request::Delete(PathVersion::decode(d)?),
            OpCode::SetData => Request::SetData(SetDataRequest::decode(d)?),
            OpCode::SetAcl => Request::SetAcl(SetAclRequest {
                path: d.ustring()?.unwrap_or(""),
                acl: AclList::decode(d)?,
                version: d.int()?,
            }),
            OpCode::Multi => Request::Multi(MultiRequest::decode(body)?),
            OpCode::CloseSession => Request::CloseSession,
            OpCode::Sync => Request::Sync(d.ustring()?),
            OpCode::Exists => Request::Exists(PathWatch::decode(d)?),
            OpCode::GetData => Request::GetData(PathWatch::decode(d)?),
            OpCode::GetAcl => Request::GetAcl(d.string("the path")?),
            OpCode::GetChildren => Request::GetChildren(PathWatch::decode(d)?),
            OpCode::GetChildren2 => Request::GetChildren2(PathWatch::decode(d)?),
            OpCode::MultiRead => Request::MultiRead(MultiReadRequest::decode(body)?),
            OpCode::SetWatches | OpCode::SetWatches2 => {
                let list = |d: &mut Decoder<'a>| StrList::decode(d)?.ok_or(JuteError::Null("a list of watches"));
                let mut request = SetWatchesRequest {
                    relative_zxid: Zxid(d.long()?),
                    data: list(d)?,
                    exist: list(d)?,
                    child: list(d)?,
                    persistent: StrList::EMPTY,
                    recursive: StrList::EMPTY,
                };
                if op == OpCode::SetWatches {
                    return Ok(Request::SetWatches(request));
                }
                (request.persistent, request.recursive) = (list(d)?, list(d)?);
                Request::SetWatches2(request)
            }
            OpCode::AddWatch => {
                let path = d.string("the path")?;
                match d.int()? {
                    0 => Request::AddWatch(path, AddWatchMode::Persistent),
                    1 => Request::AddWatch(path, AddWatchMode::Recursive),
                    value => return Err(JuteError::Unknown { what: "a mode of watching", value }),
                }
            }
            OpCode::RemoveWatches => Request::RemoveWatches(d.string("the path")?, WatcherType::decode(d)?),
            OpCode::CheckWatches => Request::CheckWatches(d.string("the path")?, WatcherType::decode(d)?),
            OpCode::Ping => Request::Ping,
            OpCode::Auth => {
                let _type = d.int()?;
                Request::Auth { scheme: d.ustring()?, auth: d.buffer()? }
            }
            OpCode::WhoAmI => Request::WhoAmI,
            OpCode::Sasl => Request::Sasl(d.buffer()?),
            OpCode::GetEphemerals => Request::GetEphemerals(d.ustring()?),
            OpCode::GetAllChildrenNumber => Request::GetAllChildrenNumber(d.string("the path")?),
            OpCode::Reconfig => Request::Reconfig(ReconfigRequest::decode(d)?),
            OpCode::Check | OpCode::DeleteContainer | OpCode::CreateSession | OpCode::Error => {
                return Err(JuteError::Unknown { what: "a request", value: op.code() });
            }
        })
    }

    /// The operation.
    pub const fn op(&self) -> OpCode {
        match self {
            Request::Create(_) => OpCode::Create,
            Request::Create2(_) => OpCode::Create2,
            Request::CreateContainer(_) => OpCode::CreateContainer,
            Request::CreateTtl(..) => OpCode::CreateTtl,
            Request::Delete(_) => OpCode::Delete,
            Request::SetData(_) => OpCode::SetData,
            Request::SetAcl(_) => OpCode::SetAcl,
            Request::Multi(_) => OpCode::Multi,
            Request::CloseSession => OpCode::CloseSession,
            Request::Sync(_) => OpCode::Sync,
            Request::Exists(_) => OpCode::Exists,
            Request::GetData(_) => OpCode::GetData,
            Request::GetAcl(_) => OpCode::GetAcl,
            Request::GetChildren(_) => OpCode::GetChildren,
            Request::GetChildren2(_) => OpCode::GetChildren2,
            Request::MultiRead(_) => OpCode::MultiRead,
            Request::SetWatches(_) => OpCode::SetWatches,
            Request::SetWatches2(_) => OpCode::SetWatches2,
            Request::AddWatch(..) => OpCode::AddWatch,
            Request::RemoveWatches(..) => OpCode::RemoveWatches,
            Request::CheckWatches(..) => OpCode::CheckWatches,
            Request::Ping => OpCode::Ping,
            Request::Auth { .. } => OpCode::Auth,
            Request::WhoAmI => OpCode::WhoAmI,
            Request::Sasl(_) => OpCode::Sasl,
            Request::GetEphemerals(_) => OpCode::GetEphemerals,
            Request::GetAllChildrenNumber(_) => OpCode::GetAllChildrenNumber,
            Request::Reconfig(_) => OpCode::Reconfig,
        }
    }
}

impl Jute for Request<'_> {
    fn encoded_len(&self) -> usize {
        match self {
            Request::Create(r) | Request::Create2(r) | Request::CreateContainer(r) => r.encoded_len(),
            Request::CreateTtl(r, _) => r.encoded_len() + 8,
            Request::Delete(r) => r.encoded_len(),
            Request::SetData(r) => r.encoded_len(),
            Request::SetAcl(r) => string_len(r.path) + r.acl.encoded_len() + 4,
            Request::Multi(r) => r.encoded_len(),
            Request::CloseSession | Request::Ping | Request::WhoAmI => 0,
            Request::Sasl(token) => buffer_len(*token),
            Request::Sync(path) | Request::GetEphemerals(path) => buffer_len(path.map(str::as_bytes)),
            Request::Exists(r) | Request::GetData(r) | Request::GetChildren(r) | Request::GetChildren2(r) => {
                string_len(r.path) + 1
            }
            Request::GetAcl(path) | Request::GetAllChildrenNumber(path) => string_len(path),
            Request::Reconfig(r) => r.encoded_len(),
            Request::MultiRead(r) => r.encoded_len(),
            Request::SetWatches(r) => 8 + r.data.encoded_len() + r.exist.encoded_len() + r.child.encoded_len(),
            Request::SetWatches2(r) => {
                let once = r.data.encoded_len() + r.exist.encoded_len() + r.child.encoded_len();
                8 + once + r.persistent.encoded_len() + r.recursive.encoded_len()
            }
            Request::AddWatch(path, _) | Request::RemoveWatches(path, _) | Request::CheckWatches(path, _) => {
                string_len(path) + 4
            }
            Request::Auth { scheme, auth } => 4 + buffer_len(scheme.map(str::as_bytes)) + buffer_len(*auth),
        }
    }

    fn encode<B: BufMut>(&self, out: &mut B) {
        match self {
            Request::Create(r) | Request::Create2(r) | Request::CreateContainer(r) => r.encode(out),
            Request::CreateTtl(r, ttl_ms) => {
                r.encode(out);
                out.put_i64(*ttl_ms);
            }
            Request::Delete(r) => r.encode(out),
            Request::SetData(r) => r.encode(out),
            Request::SetAcl(r) => {
                put_string(out, r.path);
                r.acl.encode(out);
                out.put_i32(r.version);
            }
            Request::Multi(r) => r.encode(out),
            Request::CloseSession | Request::Ping | Request::WhoAmI => {}
            Request::Sasl(token) => put_buffer(out, *token),
            Request::Sync(path) | Request::GetEphemerals(path) => put_ustring(out, *path),
            Request::Exists(r) | Request::GetData(r) | Request::GetChildren(r) | Request::GetChildren2(r) => {
                put_string(out, r.path);
                out.put_u8(r.watch.into());
            }
            Request::GetAcl(path) | Request::GetAllChildrenNumber(path) => put_string(out, path),
            Request::Reconfig(r) => r.encode(out),
            Request::MultiRead(r) => r.encode(out),
            Request::SetWatches(r) | Request::SetWatches2(r) => {
                out.put_i64(r.relative_zxid.0);
                r.data.encode(out);
                r.exist.encode(out);
                r.child.encode(out);
                if let Request::SetWatches2(_) = self {
                    r.persistent.encode(out);
                    r.recursive.encode(out);
                }
            }
            Request::AddWatch(path, mode) => {
                put_string(out, path);
                out.put_i32(*mode as i32);
            }
            Request::RemoveWatches(path, kind) | Request::CheckWatches(path, kind) => {
                put_string(out, path);
                out.put_i32(*kind as i32);
            }
            Request::Auth { scheme, auth } => {
                out.put_i32(0);
                put_ustring(out, *scheme);
                put_buffer(out, *auth);
            }
        }
    }
}
