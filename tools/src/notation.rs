//! How data, access control lists and paths are written, as text and as JSON, by all commands alike.
//!
//! Data is bytes: base64 in JSON, escaped in text, and shown only on demand.
//!
//! **Invariants**: text holds no control character and no line end, whatever a path or an id holds.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use corral_proto::acl::{AclList, perms};
use serde::Serialize;
use std::borrow::Cow;
use std::fmt;

/// The data of a node.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Data<'a> {
    /// `null` where there is none, which is not the same as no bytes.
    data_length: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    data_base64: Option<String>,
    #[serde(skip)]
    shown: Option<&'a [u8]>,
}

/// One entry of a list.
#[derive(Debug, Serialize)]
pub struct Acl<'a> {
    perms: i32,
    scheme: Option<&'a str>,
    id: Option<&'a str>,
}

impl<'a> Data<'a> {
    /// Its length, and all of it if it is to be shown.
    pub fn new(data: Option<&'a [u8]>, with_data: bool) -> Data<'a> {
        let shown = data.filter(|_| with_data);
        Data { data_length: data.map(<[u8]>::len), data_base64: shown.map(|data| STANDARD.encode(data)), shown }
    }
}

/// The entries of a list.
pub fn acls(list: AclList<'_>) -> Vec<Acl<'_>> {
    list.iter().map(|acl| Acl { perms: acl.perms, scheme: acl.scheme, id: acl.id }).collect()
}

impl fmt::Display for Data<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.data_length {
            None => f.write_str("dataLength=null")?,
            Some(len) => write!(f, "dataLength={len}")?,
        }
        match self.shown {
            None => Ok(()),
            Some(data) => write!(f, " data=\"{}\"", data.escape_ascii()),
        }
    }
}

/// `scheme:id:cdrwa`, several joined by commas.
pub struct Acls<'a>(pub &'a [Acl<'a>]);

impl fmt::Display for Acls<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("none");
        }
        for (index, acl) in self.0.iter().enumerate() {
            f.write_str(if index > 0 { "," } else { "" })?;
            let [scheme, id] = [acl.scheme, acl.id].map(Option::unwrap_or_default);
            write!(f, "{}:{}:{}", plain(scheme), plain(id), letters(acl.perms))?;
        }
        Ok(())
    }
}

fn letters(bits: i32) -> String {
    let known =
        [(perms::CREATE, 'c'), (perms::DELETE, 'd'), (perms::READ, 'r'), (perms::WRITE, 'w'), (perms::ADMIN, 'a')];
    let mut letters: String = known.iter().filter(|(bit, _)| bits & bit != 0).map(|(_, letter)| letter).collect();
    if bits & !perms::ALL != 0 {
        letters.push_str(&format!("+{:#x}", bits & !perms::ALL));
    }
    if letters.is_empty() { "-".to_owned() } else { letters }
}

/// The text itself, or in quotes and escaped where it would break the line or be taken for two words.
pub fn plain(text: &str) -> Cow<'_, str> {
    let breaks = |c: char| c.is_whitespace() || c.is_control() || c == '"' || c == '\\';
    if text.is_empty() || text.contains(breaks) { Cow::Owned(format!("{text:?}")) } else { Cow::Borrowed(text) }
}
