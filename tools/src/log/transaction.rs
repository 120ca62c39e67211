//! One transaction as a line of text and as a line of JSON. Both are made from the same view, so they say the same.
//!
//! 64-bit numbers that people know in hexadecimal (zxids, sessions) are strings in JSON, which many readers keep only 53 bits
//! of.
//!
//! **Invariants**: a line of text holds no control character, whatever a path or an id holds.

use super::walk::Record;
use crate::notation::{Acl, Acls, Data, acls, plain};
use crate::time;
use corral_proto::error::ErrorCode;
use corral_proto::{Txn, txn::CreateTxn};
use serde::Serialize;
use std::fmt;

/// Every `op` that there is, as Apache ZooKeeper names them.
pub const OPS: [&str; 10] =
    ["create", "create2", "delete", "setData", "setAcl", "createSession", "closeSession", "check", "error", "multi"];

/// A transaction and where it lies.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct View<'a> {
    time: String,
    time_ms: i64,
    zxid: String,
    session: String,
    cxid: i32,
    #[serde(flatten)]
    change: Change<'a>,
    segment: u32,
    offset: u32,
}

/// What it changes.
#[derive(Debug, Serialize)]
#[serde(tag = "op", rename_all = "camelCase", rename_all_fields = "camelCase")]
enum Change<'a> {
    Create(Create<'a>),
    Create2(Create<'a>),
    CreateContainer(Create<'a>),
    #[serde(rename = "createTTL")]
    CreateTtl {
        #[serde(flatten)]
        create: Create<'a>,
        ttl_ms: i64,
    },
    Delete {
        path: &'a str,
    },
    DeleteContainer {
        path: &'a str,
    },
    SetData {
        path: &'a str,
        version: i32,
        #[serde(flatten)]
        data: Data<'a>,
    },
    /// Of who the members are, by a leader of Apache's.
    Reconfig {
        path: &'a str,
        version: i32,
        #[serde(flatten)]
        data: Data<'a>,
    },
    SetAcl {
        path: &'a str,
        version: i32,
        acl: Vec<Acl<'a>>,
    },
    CreateSession {
        timeout_ms: i32,
    },
    CloseSession {
        /// Absent in records that do not name them.
        #[serde(skip_serializing_if = "Option::is_none")]
        paths: Option<Vec<&'a str>>,
    },
    Check {
        path: &'a str,
        version: i32,
    },
    Error {
        code: i32,
        error: &'static str,
    },
    Multi {
        failed: bool,
        parts: Vec<Change<'a>>,
    },
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Create<'a> {
    path: &'a str,
    #[serde(flatten)]
    data: Data<'a>,
    acl: Vec<Acl<'a>>,
    ephemeral: bool,
    /// The number that a sequential node got.
    #[serde(skip_serializing_if = "Option::is_none")]
    sequence: Option<i32>,
    parent_cversion: i32,
}

impl<'a> View<'a> {
    /// What there is to say about a record; its data only if `with_data`.
    pub fn new(record: &Record<'a>, with_data: bool) -> View<'a> {
        let header = &record.entry.header;
        View {
            time: time::format_ms(header.time_ms),
            time_ms: header.time_ms,
            zxid: header.zxid.to_string(),
            session: header.session.to_string(),
            cxid: header.cxid.0,
            change: Change::new(&record.entry.txn, with_data),
            segment: record.at.segment,
            offset: record.at.offset,
        }
    }

    /// Whether the transaction, or a part of it, is one of `ops`.
    pub fn is_one_of(&self, ops: &[String]) -> bool {
        self.change.any(&mut |change| ops.iter().any(|op| op == change.op()))
    }

    /// Whether the transaction, or a part of it, names a path that begins with `prefix`.
    pub fn names(&self, prefix: &str) -> bool {
        self.change.any(&mut |change| match change {
            Change::Create(create) | Change::Create2(create) | Change::CreateContainer(create) => {
                create.path.starts_with(prefix)
            }
            Change::CreateTtl { create, .. } => create.path.starts_with(prefix),
            Change::Delete { path }
            | Change::DeleteContainer { path }
            | Change::SetData { path, .. }
            | Change::Reconfig { path, .. }
            | Change::SetAcl { path, .. }
            | Change::Check { path, .. } => path.starts_with(prefix),
            Change::CloseSession { paths: Some(paths) } => paths.iter().any(|path| path.starts_with(prefix)),
            _ => false,
        })
    }
}

impl<'a> Change<'a> {
    fn new(txn: &Txn<'a>, with_data: bool) -> Change<'a> {
        match *txn {
            Txn::Create(create) => Change::Create(Create::new(&create, with_data)),
            Txn::Create2(create) => Change::Create2(Create::new(&create, with_data)),
            Txn::CreateContainer(create) => Change::CreateContainer(Create::new(&create, with_data)),
            Txn::CreateTtl(create, ttl_ms) => Change::CreateTtl { create: Create::new(&create, with_data), ttl_ms },
            Txn::DeleteContainer { path } => Change::DeleteContainer { path },
            Txn::Delete { path } => Change::Delete { path },
            Txn::SetData { path, data, version } => Change::SetData { path, version, data: Data::new(data, with_data) },
            Txn::Reconfig { path, data, version } => {
                Change::Reconfig { path, version, data: Data::new(data, with_data) }
            }
            Txn::SetAcl { path, acl, version } => Change::SetAcl { path, version, acl: acls(acl) },
            Txn::CreateSession { timeout_ms } => Change::CreateSession { timeout_ms },
            Txn::CloseSession { paths } => Change::CloseSession { paths: paths.map(|paths| paths.iter().collect()) },
            Txn::Check(check) => Change::Check { path: check.path, version: check.version },
            Txn::Error(code) => Change::Error { code, error: error_name(code) },
            Txn::Multi(parts) => Change::Multi {
                failed: parts.failed(),
                parts: parts.iter().map(|part| Change::new(&part, with_data)).collect(),
            },
        }
    }

    fn op(&self) -> &'static str {
        match self {
            Change::Create(_) => "create",
            Change::Create2(_) => "create2",
            Change::CreateContainer(_) => "createContainer",
            Change::CreateTtl { .. } => "createTTL",
            Change::DeleteContainer { .. } => "deleteContainer",
            Change::Delete { .. } => "delete",
            Change::SetData { .. } => "setData",
            Change::Reconfig { .. } => "reconfig",
            Change::SetAcl { .. } => "setAcl",
            Change::CreateSession { .. } => "createSession",
            Change::CloseSession { .. } => "closeSession",
            Change::Check { .. } => "check",
            Change::Error { .. } => "error",
            Change::Multi { .. } => "multi",
        }
    }

    fn any(&self, is: &mut dyn FnMut(&Change<'_>) -> bool) -> bool {
        is(self) || matches!(self, Change::Multi { parts, .. } if parts.iter().any(is))
    }
}

impl<'a> Create<'a> {
    fn new(txn: &CreateTxn<'a>, with_data: bool) -> Create<'a> {
        Create {
            path: txn.path,
            data: Data::new(txn.data, with_data),
            acl: acls(txn.acl),
            ephemeral: txn.ephemeral,
            sequence: sequence(txn.path, txn.parent_cversion),
            parent_cversion: txn.parent_cversion,
        }
    }
}

/// The record does not say whether a node was asked for as sequential. Its number is the parent's count of creations before
/// this one, in ten digits: a name that ends with just that was made so, or looks exactly as if.
fn sequence(path: &str, parent_cversion: i32) -> Option<i32> {
    let number = parent_cversion.checked_sub(1).filter(|number| *number >= 0)?;
    path.ends_with(&format!("{number:010}")).then_some(number)
}

/// The name of an error in a transaction. In a multi that failed, the parts before the one that failed carry 0.
fn error_name(code: i32) -> &'static str {
    match ErrorCode::from_code(code) {
        Some(error) => error.name(),
        None if code == 0 => "Ok",
        None => "unknown",
    }
}

impl fmt::Display for View<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {:<11} session={} cxid={} ", self.time, self.zxid, self.session, self.cxid)?;
        write!(f, "{} @{}:{}", self.change, self.segment, self.offset)?;
        if let Change::Multi { parts, .. } = &self.change {
            parts.iter().try_for_each(|part| write!(f, "\n    {part}"))?;
        }
        Ok(())
    }
}

impl fmt::Display for Create<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, " {} acl={}", plain(self.path), Acls(&self.acl))?;
        if self.ephemeral {
            f.write_str(" ephemeral")?;
        }
        if let Some(sequence) = self.sequence {
            write!(f, " sequence={sequence}")?;
        }
        write!(f, " parentCversion={} {}", self.parent_cversion, self.data)
    }
}

impl fmt::Display for Change<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.op())?;
        match self {
            Change::Create(create) | Change::Create2(create) | Change::CreateContainer(create) => create.fmt(f),
            Change::CreateTtl { create, ttl_ms } => {
                write!(f, " ttlMs={ttl_ms}")?;
                create.fmt(f)
            }
            Change::Delete { path } | Change::DeleteContainer { path } => write!(f, " {}", plain(path)),
            Change::SetData { path, version, data } | Change::Reconfig { path, version, data } => {
                write!(f, " {} version={version} {data}", plain(path))
            }
            Change::SetAcl { path, version, acl } => write!(f, " {} version={version} acl={}", plain(path), Acls(acl)),
            Change::CreateSession { timeout_ms } => write!(f, " timeoutMs={timeout_ms}"),
            Change::CloseSession { paths: None } => Ok(()),
            Change::CloseSession { paths: Some(paths) } => {
                write!(f, " ephemerals={}", paths.len())?;
                paths.iter().try_for_each(|path| write!(f, " {}", plain(path)))
            }
            Change::Check { path, version } => write!(f, " {} version={version}", plain(path)),
            Change::Error { code, error } => write!(f, " {error} ({code})"),
            Change::Multi { failed, parts } => {
                write!(f, " parts={}{}", parts.len(), if *failed { " failed" } else { "" })
            }
        }
    }
}
