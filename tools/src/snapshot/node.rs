//! One node as a line of text and as a line of JSON. Both are made from the same view, so they say the same.
//!
//! 64-bit numbers that people know in hexadecimal (zxids, sessions) are strings in JSON, which many readers keep only 53 bits of.

use crate::notation::{Acl, Acls, Data, acls, plain};
use crate::time;
use corral_engine::tree::image::NodeImage;
use corral_proto::SessionId;
use serde::Serialize;
use std::fmt;

/// A node.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct View<'a> {
    path: &'a str,
    #[serde(flatten)]
    data: Data<'a>,
    version: i32,
    aversion: i32,
    /// Children ever created.
    created: i32,
    czxid: String,
    mzxid: String,
    pzxid: String,
    ctime: String,
    mtime: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    ephemeral_owner: Option<String>,
    acl: Vec<Acl<'a>>,
}

impl<'a> View<'a> {
    /// What there is to say of a node; its data only if `with_data`.
    pub fn new(path: &'a str, image: &NodeImage<'a>, with_data: bool) -> View<'a> {
        let stat = &image.stat;
        View {
            path,
            data: Data::new(image.data, with_data),
            version: stat.version,
            aversion: stat.aversion,
            created: stat.created,
            czxid: stat.czxid.to_string(),
            mzxid: stat.mzxid.to_string(),
            pzxid: stat.pzxid.to_string(),
            ctime: time::format_ms(stat.ctime),
            mtime: time::format_ms(stat.mtime),
            ephemeral_owner: (stat.owner != SessionId::NONE).then(|| stat.owner.to_string()),
            acl: acls(image.acl),
        }
    }
}

impl fmt::Display for View<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} version={} aversion={} created={}", plain(self.path), self.version, self.aversion, self.created)?;
        write!(f, " czxid={} mzxid={} pzxid={}", self.czxid, self.mzxid, self.pzxid)?;
        write!(f, " ctime={} mtime={}", self.ctime, self.mtime)?;
        if let Some(owner) = &self.ephemeral_owner {
            write!(f, " ephemeralOwner={owner}")?;
        }
        write!(f, " acl={} {}", Acls(&self.acl), self.data)
    }
}
