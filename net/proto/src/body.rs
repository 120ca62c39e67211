//! The bodies of requests, as far as they are more than a path. Everything borrows from the frame.
//!
//! **Not here**: which operation has which ([`crate::request`]).

use crate::acl::AclList;
use crate::ids::Zxid;
use crate::jute::{Decoder, Jute, JuteError, StrList, buffer_len, put_buffer, put_string, put_ustring, string_len};
use bytes::BufMut;

/// How long a node lives, if nobody deletes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lifetime {
    /// For ever.
    Persistent,
    /// As long as the session that creates it.
    Ephemeral,
    /// Until its last child is gone.
    Container,
    /// Until it has not been changed for some time, and has no children.
    Ttl,
}

/// What kind of node a create makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CreateMode {
    /// How long it lives.
    pub lifetime: Lifetime,
    /// Its name gets the parent's next number appended.
    pub sequential: bool,
}

impl CreateMode {
    /// Neither ephemeral nor sequential.
    pub const PERSISTENT: CreateMode = CreateMode { lifetime: Lifetime::Persistent, sequential: false };

    /// The mode that `flags` stand for, whatever the operation.
    pub const fn from_flags(flags: i32) -> Option<CreateMode> {
        let (lifetime, sequential) = match flags {
            0 => (Lifetime::Persistent, false),
            1 => (Lifetime::Ephemeral, false),
            2 => (Lifetime::Persistent, true),
            3 => (Lifetime::Ephemeral, true),
            4 => (Lifetime::Container, false),
            5 => (Lifetime::Ttl, false),
            6 => (Lifetime::Ttl, true),
            _ => return None,
        };
        Some(CreateMode { lifetime, sequential })
    }
}

/// The body of create, create2 and createContainer, and, with a time behind it, of createTTL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CreateRequest<'a> {
    /// Where; for a sequential node without its number.
    pub path: &'a str,
    /// Its data; null and empty are different and both are kept.
    pub data: Option<&'a [u8]>,
    /// Who may do what with it.
    pub acl: AclList<'a>,
    /// See [`CreateMode::from_flags`].
    pub flags: i32,
}

impl<'a> CreateRequest<'a> {
    pub(crate) fn decode(d: &mut Decoder<'a>) -> Result<CreateRequest<'a>, JuteError> {
        Ok(CreateRequest { path: d.string("the path")?, data: d.buffer()?, acl: AclList::decode(d)?, flags: d.int()? })
    }
}

impl Jute for CreateRequest<'_> {
    fn encoded_len(&self) -> usize {
        string_len(self.path) + buffer_len(self.data) + self.acl.encoded_len() + 4
    }

    fn encode<B: BufMut>(&self, out: &mut B) {
        put_string(out, self.path);
        put_buffer(out, self.data);
        self.acl.encode(out);
        out.put_i32(self.flags);
    }
}

/// A path and the version it must have (-1: any). The body of delete and of check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PathVersion<'a> {
    /// Which node.
    pub path: &'a str,
    /// Its expected data version, -1 for any.
    pub version: i32,
}

impl<'a> PathVersion<'a> {
    pub(crate) fn decode(d: &mut Decoder<'a>) -> Result<PathVersion<'a>, JuteError> {
        Ok(PathVersion { path: d.string("the path")?, version: d.int()? })
    }
}

impl Jute for PathVersion<'_> {
    fn encoded_len(&self) -> usize {
        string_len(self.path) + 4
    }

    fn encode<B: BufMut>(&self, out: &mut B) {
        put_string(out, self.path);
        out.put_i32(self.version);
    }
}

/// The body of setData.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SetDataRequest<'a> {
    /// Which node. A null path is read as the empty one, which is refused as a bad argument, as Apache does.
    pub path: &'a str,
    /// The new data.
    pub data: Option<&'a [u8]>,
    /// The expected data version, -1 for any.
    pub version: i32,
}

impl<'a> SetDataRequest<'a> {
    pub(crate) fn decode(d: &mut Decoder<'a>) -> Result<SetDataRequest<'a>, JuteError> {
        Ok(SetDataRequest { path: d.ustring()?.unwrap_or(""), data: d.buffer()?, version: d.int()? })
    }
}

impl Jute for SetDataRequest<'_> {
    fn encoded_len(&self) -> usize {
        string_len(self.path) + buffer_len(self.data) + 4
    }

    fn encode<B: BufMut>(&self, out: &mut B) {
        put_string(out, self.path);
        put_buffer(out, self.data);
        out.put_i32(self.version);
    }
}

/// The body of setACL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SetAclRequest<'a> {
    /// Which node; null is read as the empty path, as for [`SetDataRequest`].
    pub path: &'a str,
    /// The new list.
    pub acl: AclList<'a>,
    /// The expected version of the list, -1 for any.
    pub version: i32,
}

/// The body of reconfig: changes of the ensemble, or all of its next members.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReconfigRequest<'a> {
    /// Servers that join, as the configuration has them.
    pub joining: Option<&'a str>,
    /// The numbers of those that leave.
    pub leaving: Option<&'a str>,
    /// All members, instead of the two others.
    pub members: Option<&'a str>,
    /// The expected version of the configuration, -1 for any.
    pub version: i64,
}

impl<'a> ReconfigRequest<'a> {
    pub(crate) fn decode(d: &mut Decoder<'a>) -> Result<ReconfigRequest<'a>, JuteError> {
        let (joining, leaving, members) = (d.ustring()?, d.ustring()?, d.ustring()?);
        Ok(ReconfigRequest { joining, leaving, members, version: d.long()? })
    }
}

impl Jute for ReconfigRequest<'_> {
    fn encoded_len(&self) -> usize {
        let lists = [self.joining, self.leaving, self.members];
        lists.iter().map(|list| buffer_len(list.map(str::as_bytes))).sum::<usize>() + 8
    }

    fn encode<B: BufMut>(&self, out: &mut B) {
        [self.joining, self.leaving, self.members].into_iter().for_each(|list| put_ustring(out, list));
        out.put_i64(self.version);
    }
}

/// A path and whether to watch it. The body of exists, getData, getChildren and getChildren2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PathWatch<'a> {
    /// Which node.
    pub path: &'a str,
    /// Whether this connection wants to hear of the next change.
    pub watch: bool,
}

impl<'a> PathWatch<'a> {
    pub(crate) fn decode(d: &mut Decoder<'a>) -> Result<PathWatch<'a>, JuteError> {
        Ok(PathWatch { path: d.string("the path")?, watch: d.bool()? })
    }
}

/// The body of setWatches: what a client watched before it had to reconnect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SetWatchesRequest<'a> {
    /// The newest state the client has seen.
    pub relative_zxid: Zxid,
    /// Watches that getData left (and exists on a node that was there).
    pub data: StrList<'a>,
    /// Watches that exists left on a missing node.
    pub exist: StrList<'a>,
    /// Watches that getChildren left.
    pub child: StrList<'a>,
    /// Persistent ones, which only setWatches2 names, as the next.
    pub persistent: StrList<'a>,
    /// Persistent ones of whole subtrees.
    pub recursive: StrList<'a>,
}

/// How far a watch reaches that does not go when it fires.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i32)]
pub enum AddWatchMode {
    /// The node and its children.
    Persistent = 0,
    /// The node and everything below it.
    Recursive = 1,
}

/// Which watches are meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i32)]
#[allow(missing_docs, reason = "the names are the protocol's own")]
pub enum WatcherType {
    Children = 1,
    Data = 2,
    Any = 3,
    Persistent = 4,
    Recursive = 5,
}

impl WatcherType {
    const ALL: [WatcherType; 5] =
        [WatcherType::Children, WatcherType::Data, WatcherType::Any, WatcherType::Persistent, WatcherType::Recursive];

    pub(crate) fn decode(d: &mut Decoder<'_>) -> Result<WatcherType, JuteError> {
        let value = d.int()?;
        let found = WatcherType::ALL.into_iter().find(|known| *known as i32 == value);
        found.ok_or(JuteError::Unknown { what: "a type of watch", value })
    }
}
