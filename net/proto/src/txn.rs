//! Transactions: what is logged and replicated. The bytes are Apache ZooKeeper's own (`TxnHeader`, body, `TxnDigest`),
//! so that one encoding serves our log, an Apache peer, and replay.
//!
//! A [`TxnEntry`] is a header and a body. Decoding borrows from the log record. A multi decodes lazily ([`SubTxns`]).
//!
//! **Not here**: checksums and lengths around an entry (the log's segment format), what a transaction does (the tree).

use crate::acl::AclList;
use crate::ids::{SessionId, TreeDigest, Xid, Zxid};
use crate::jute::{Decoder, Jute, JuteError, StrList, buffer_len, put_buffer, put_string, string_len};
use crate::opcode::OpCode;
use crate::request::PathVersion;
use bytes::BufMut;

/// Who asked for a transaction, and when it was ordered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TxnHeader {
    /// The session that asked.
    pub session: SessionId,
    /// What the client called its request; 0 for the server's own.
    pub cxid: Xid,
    /// Its place in the order of all writes.
    pub zxid: Zxid,
    /// The leader's wall clock when it was prepared, in ms since the epoch.
    pub time_ms: i64,
}

impl TxnHeader {
    /// Encoded size in bytes, the type of the body included.
    pub const LEN: usize = 32;
}

/// What a transaction changes. Everything is decided already: names have their numbers, versions are the new ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names are the protocol's own")]
pub enum Txn<'a> {
    Create(CreateTxn<'a>),
    /// The same change as [`Txn::Create`]; the answer to the client differs.
    Create2(CreateTxn<'a>),
    /// A node that its server deletes when its last child is gone.
    CreateContainer(CreateTxn<'a>),
    /// A node that its server deletes when it was not changed for so many ms.
    CreateTtl(CreateTxn<'a>, i64),
    Delete {
        path: &'a str,
    },
    /// The same change as [`Txn::Delete`], by the server itself.
    DeleteContainer {
        path: &'a str,
    },
    SetData {
        path: &'a str,
        data: Option<&'a [u8]>,
        /// The version after this change.
        version: i32,
    },
    /// The same change as [`Txn::SetData`], of the node that says who the members are. Only Apache's leaders make it.
    Reconfig {
        path: &'a str,
        data: Option<&'a [u8]>,
        version: i32,
    },
    SetAcl {
        path: &'a str,
        acl: AclList<'a>,
        /// The version of the list after this change.
        version: i32,
    },
    CreateSession {
        timeout_ms: i32,
    },
    CloseSession {
        /// The ephemeral nodes that go with the session; `None` in records that do not name them.
        paths: Option<StrList<'a>>,
    },
    /// Only inside a multi: nothing changes.
    Check(PathVersion<'a>),
    /// A write that was refused. It has a zxid and a place in the order like every other.
    Error(i32),
    Multi(SubTxns<'a>),
}

/// A new node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CreateTxn<'a> {
    /// Where, number included.
    pub path: &'a str,
    /// Its data.
    pub data: Option<&'a [u8]>,
    /// Its access control list.
    pub acl: AclList<'a>,
    /// Whether it belongs to the session in the header.
    pub ephemeral: bool,
    /// The parent's stored count of creations after this one.
    pub parent_cversion: i32,
}

impl CreateTxn<'_> {
    /// Without what differs between the kinds of nodes.
    fn encoded_len(&self) -> usize {
        string_len(self.path) + buffer_len(self.data) + self.acl.encoded_len() + 4
    }

    fn encode<B: BufMut>(&self, out: &mut B) {
        put_string(out, self.path);
        put_buffer(out, self.data);
        self.acl.encode(out);
    }
}

impl<'a> Txn<'a> {
    /// The type number in the header (or in front of a sub-transaction).
    pub const fn op(&self) -> OpCode {
        match self {
            Txn::Create(_) => OpCode::Create,
            Txn::Create2(_) => OpCode::Create2,
            Txn::CreateContainer(_) => OpCode::CreateContainer,
            Txn::CreateTtl(..) => OpCode::CreateTtl,
            Txn::Delete { .. } => OpCode::Delete,
            Txn::DeleteContainer { .. } => OpCode::DeleteContainer,
            Txn::SetData { .. } => OpCode::SetData,
            Txn::Reconfig { .. } => OpCode::Reconfig,
            Txn::SetAcl { .. } => OpCode::SetAcl,
            Txn::CreateSession { .. } => OpCode::CreateSession,
            Txn::CloseSession { .. } => OpCode::CloseSession,
            Txn::Check(_) => OpCode::Check,
            Txn::Error(_) => OpCode::Error,
            Txn::Multi(_) => OpCode::Multi,
        }
    }

    fn decode(op: i32, d: &mut Decoder<'a>) -> Result<Txn<'a>, JuteError> {
        let create = |d: &mut Decoder<'a>, says_ephemeral: bool| {
            Ok(CreateTxn {
                path: d.string("the path")?,
                data: d.buffer()?,
                acl: AclList::decode(d)?,
                ephemeral: says_ephemeral && d.bool()?,
                parent_cversion: d.int()?,
            })
        };
        Ok(match OpCode::from_code(op) {
            Some(OpCode::Create) => Txn::Create(create(d, true)?),
            Some(OpCode::Create2) => Txn::Create2(create(d, true)?),
            Some(OpCode::CreateContainer) => Txn::CreateContainer(create(d, false)?),
            Some(OpCode::CreateTtl) => Txn::CreateTtl(create(d, false)?, d.long()?),
            Some(OpCode::Delete) => Txn::Delete { path: d.string("the path")? },
            Some(OpCode::DeleteContainer) => Txn::DeleteContainer { path: d.string("the path")? },
            Some(OpCode::SetData) => Txn::SetData { path: d.string("the path")?, data: d.buffer()?, version: d.int()? },
            Some(OpCode::Reconfig) => {
                Txn::Reconfig { path: d.string("the path")?, data: d.buffer()?, version: d.int()? }
            }
            Some(OpCode::SetAcl) => {
                Txn::SetAcl { path: d.string("the path")?, acl: AclList::decode(d)?, version: d.int()? }
            }
            Some(OpCode::CreateSession) => Txn::CreateSession { timeout_ms: d.int()? },
            // Apache's servers may write none (`closeSessionTxn.enabled`), but a digest. As a list that would be two paths without a name.
            Some(OpCode::CloseSession) if d.is_empty() || d.rest().len() == DIGEST_LEN && is_digest(d.rest()) => {
                Txn::CloseSession { paths: None }
            }
            Some(OpCode::CloseSession) => Txn::CloseSession { paths: StrList::decode(d)? },
            Some(OpCode::Check) => Txn::Check(PathVersion::decode(d)?),
            Some(OpCode::Error) => Txn::Error(d.int()?),
            Some(OpCode::Multi) => Txn::Multi(SubTxns::decode(d)?),
            _ => return Err(JuteError::Unknown { what: "a transaction", value: op }),
        })
    }
}

impl Jute for Txn<'_> {
    fn encoded_len(&self) -> usize {
        match self {
            Txn::Create(c) | Txn::Create2(c) => c.encoded_len() + 1,
            Txn::CreateContainer(c) => c.encoded_len(),
            Txn::CreateTtl(c, _) => c.encoded_len() + 8,
            Txn::Delete { path } | Txn::DeleteContainer { path } => string_len(path),
            Txn::SetData { path, data, .. } | Txn::Reconfig { path, data, .. } => {
                string_len(path) + buffer_len(*data) + 4
            }
            Txn::SetAcl { path, acl, .. } => string_len(path) + acl.encoded_len() + 4,
            Txn::CreateSession { .. } | Txn::Error(_) => 4,
            Txn::CloseSession { paths } => paths.map_or(0, |p| p.encoded_len()),
            Txn::Check(check) => check.encoded_len(),
            Txn::Multi(subs) => subs.encoded_len(),
        }
    }

    fn encode<B: BufMut>(&self, out: &mut B) {
        match self {
            Txn::Create(c) | Txn::Create2(c) => {
                c.encode(out);
                out.put_u8(c.ephemeral.into());
                out.put_i32(c.parent_cversion);
            }
            Txn::CreateContainer(c) => {
                c.encode(out);
                out.put_i32(c.parent_cversion);
            }
            Txn::CreateTtl(c, ttl_ms) => {
                c.encode(out);
                out.put_i32(c.parent_cversion);
                out.put_i64(*ttl_ms);
            }
            Txn::Delete { path } | Txn::DeleteContainer { path } => put_string(out, path),
            Txn::SetData { path, data, version } | Txn::Reconfig { path, data, version } => {
                put_string(out, path);
                put_buffer(out, *data);
                out.put_i32(*version);
            }
            Txn::SetAcl { path, acl, version } => {
                put_string(out, path);
                acl.encode(out);
                out.put_i32(*version);
            }
            Txn::CreateSession { timeout_ms } => out.put_i32(*timeout_ms),
            Txn::CloseSession { paths } => {
                if let Some(paths) = paths {
                    paths.encode(out);
                }
            }
            Txn::Check(check) => check.encode(out),
            Txn::Error(code) => out.put_i32(*code),
            Txn::Multi(subs) => subs.encode(out),
        }
    }
}

/// The parts of a multi, still encoded: (type, length-prefixed body) each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SubTxns<'a> {
    count: u32,
    raw: &'a [u8],
}

impl<'a> SubTxns<'a> {
    fn decode(d: &mut Decoder<'a>) -> Result<SubTxns<'a>, JuteError> {
        let count = d.count()?.unwrap_or(0);
        let start = d.rest();
        for _ in 0..count {
            SubTxns::one(d)?;
        }
        Ok(SubTxns { count, raw: &start[..start.len() - d.rest().len()] })
    }

    fn one(d: &mut Decoder<'a>) -> Result<Txn<'a>, JuteError> {
        let op = d.int()?;
        if op == OpCode::Multi.code() {
            return Err(JuteError::Unknown { what: "a part of a multi", value: op });
        }
        // Apache may leave bytes of the original body behind an error code; the length says where the next part starts.
        Txn::decode(op, &mut Decoder::new(d.buffer()?.unwrap_or(&[])))
    }

    /// Appends one part to the bytes of a multi that is being put together.
    pub fn push(raw: &mut Vec<u8>, part: &Txn<'_>) {
        raw.put_i32(part.op().code());
        raw.put_u32(part.encoded_len() as u32);
        part.encode(raw);
    }

    /// Wraps `count` parts that [`SubTxns::push`] wrote.
    pub const fn from_encoded(count: u32, raw: &'a [u8]) -> SubTxns<'a> {
        SubTxns { count, raw }
    }

    /// The parts, in order.
    pub fn iter(&self) -> impl Iterator<Item = Txn<'a>> + use<'a> {
        let mut d = Decoder::new(self.raw);
        (0..self.count).map(move |_| SubTxns::one(&mut d).expect("the parts were checked when decoded"))
    }

    /// True when a part failed: nothing of the multi may be applied then.
    pub fn failed(&self) -> bool {
        self.iter().any(|part| matches!(part, Txn::Error(_)))
    }
}

impl Jute for SubTxns<'_> {
    fn encoded_len(&self) -> usize {
        4 + self.raw.len()
    }

    fn encode<B: BufMut>(&self, out: &mut B) {
        out.put_u32(self.count);
        out.put_slice(self.raw);
    }
}

/// A whole log entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TxnEntry<'a> {
    /// Whose, and in which place.
    pub header: TxnHeader,
    /// What it changes.
    pub txn: Txn<'a>,
    /// What the tree's digest was at the leader after it, if the leader says so.
    pub digest: Option<TreeDigest>,
}

/// The only version of digests that is understood; an `i32` in front of each.
const DIGEST_VERSION: i32 = 2;
/// Encoded size of a digest, its version included.
const DIGEST_LEN: usize = 12;

impl<'a> TxnEntry<'a> {
    /// Reads one. A digest of another version is as good as none.
    pub fn decode(bytes: &'a [u8]) -> Result<TxnEntry<'a>, JuteError> {
        let d = &mut Decoder::new(bytes);
        let header =
            TxnHeader { session: SessionId(d.long()?), cxid: Xid(d.int()?), zxid: Zxid(d.long()?), time_ms: d.long()? };
        let op = d.int()?;
        let txn = Txn::decode(op, d)?;
        Ok(TxnEntry { header, txn, digest: digest(d.rest()) })
    }
}

/// Whether this is a digest, and no list of two empty strings.
fn is_digest(rest: &[u8]) -> bool {
    digest(rest).is_some_and(|digest| digest.0 != 0)
}

fn digest(rest: &[u8]) -> Option<TreeDigest> {
    let d = &mut Decoder::new(rest);
    let is_known = d.int() == Ok(DIGEST_VERSION);
    d.long().ok().filter(|_| is_known).map(|sum| TreeDigest(sum as u64))
}

impl Jute for TxnEntry<'_> {
    fn encoded_len(&self) -> usize {
        TxnHeader::LEN + self.txn.encoded_len() + self.digest.map_or(0, |_| DIGEST_LEN)
    }

    fn encode<B: BufMut>(&self, out: &mut B) {
        out.put_i64(self.header.session.0);
        out.put_i32(self.header.cxid.0);
        out.put_i64(self.header.zxid.0);
        out.put_i64(self.header.time_ms);
        out.put_i32(self.txn.op().code());
        self.txn.encode(out);
        if let Some(digest) = self.digest {
            out.put_i32(DIGEST_VERSION);
            out.put_u64(digest.0);
        }
    }
}
