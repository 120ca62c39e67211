//! Requests that are answered from the tree, without the replica: reads, ping, and watches that a client sets again.
//!
//! **Not here**: order (the worker sees to it that nothing is ahead of the request).

use super::queue::ByteQueue;
use crate::clients::watch::{WatchKind, Watches};
use crate::mutation::{self, Mutation};
use crate::requests::acl::{self, Access};
use crate::requests::identity::Identities;
use corral_engine::Tree;
use corral_engine::tree::NodeId;
use corral_net::put_frame;
use corral_proto::acl::perms;
use corral_proto::jute::{StrList, put_string};
use corral_proto::multi::{MultiReadRequest, MultiResult, ReadOp};
use corral_proto::request::{AddWatchMode, RequestHeader, SetWatchesRequest};
use corral_proto::response::Response;
use corral_proto::{
    AclList, Decoder, ErrorCode, EventType, IdList, Jute, OpCode, ReplyHeader, Request, SessionId, WatcherEvent, Xid,
    Zxid,
};
use std::collections::VecDeque;

/// Bytes of names that one list of children, or of ephemeral nodes, may have. (Java clients take answers of 1 MiB, unless `jute.maxbuffer` says otherwise.)
const CHILDREN_BYTES_MAX: usize = 64 << 20;
/// Bytes of data and names that one multiRead may ask for in all: a small request can name the same large node thousands of times.
const MULTI_READ_BYTES_MAX: usize = 16 << 20;

/// Bytes of data and of children's names that a read before a write may answer ([`may_go_along`]), and children.
const GO_ALONG_MAX: (usize, i32) = (64 << 10, 1000);

/// The tree as one client may see it.
#[derive(Clone, Copy)]
pub struct View<'a> {
    /// All of it.
    pub tree: &'a Tree,
    /// Who may do what.
    pub access: &'a Access,
    /// Who looks.
    pub who: &'a Identities,
    /// In the name of which session.
    pub session: SessionId,
}

impl View<'_> {
    fn allows(&self, id: NodeId, wanted: i32) -> bool {
        self.access.allows(self.who, self.tree.acl(id), wanted)
    }

    fn readable(&self, path: &str, wanted: i32) -> Result<NodeId, ErrorCode> {
        let id = self.tree.find(path).ok_or(ErrorCode::NoNode)?;
        self.access.check(self.who, self.tree.acl(id), wanted).map(|()| id)
    }
}

/// Whether a request only looks at one node, and leaves no watch.
pub(super) fn only_looks(frame: &[u8]) -> bool {
    use Request::{Exists, GetChildren, GetChildren2, GetData};
    let request = parse(frame).map(|(_, op, body)| Request::decode(op, body));
    matches!(request, Some(Ok(Exists(read) | GetData(read) | GetChildren(read) | GetChildren2(read))) if !read.watch)
}

/// Whether a request that [`only_looks`] may be answered by whoever applies the write that follows it on its connection: its answer is
/// small.
pub(super) fn may_go_along(tree: &Tree, frame: &[u8]) -> bool {
    let (bytes_max, children_max) = GO_ALONG_MAX;
    let (_, op, body) = parse(frame).expect("looked at before");
    match op {
        OpCode::Exists => return true,
        OpCode::GetData if tree.longest_data() <= bytes_max => return true,
        _ => {}
    }
    let Ok(Request::GetData(read) | Request::GetChildren(read) | Request::GetChildren2(read)) =
        Request::decode(op, body)
    else {
        unreachable!("looked at before")
    };
    let is_small = |id| match op {
        OpCode::GetData => tree.stat(id).data_length as usize <= bytes_max,
        _ if tree.stat(id).num_children > children_max => false,
        _ => {
            let mut names = Vec::new();
            tree.children(id, &mut names);
            names.len() <= bytes_max
        }
    };
    tree.find(read.path).is_none_or(is_small)
}

/// Answers a request that [`may_go_along`], from the tree as it is now. Returns what the client calls it, and what it is.
pub fn answer_unwatched(view: &View<'_>, frame: &[u8], out: &mut Vec<u8>) -> (Xid, OpCode) {
    let (xid, op, body) = parse(frame).expect("looked at before it went along");
    let mut made = Vec::new();
    let response = Request::decode(op, body)
        .map_err(|_| ErrorCode::MarshallingError)
        .and_then(|request| look(view, request, &mut made));
    put_frame(out, |out| encode(&response, xid, view.tree.last_applied(), out));
    (xid, op)
}

/// What the client calls it, what it is, and its body.
pub(super) fn parse(frame: &[u8]) -> Option<(Xid, OpCode, &[u8])> {
    let mut d = Decoder::new(frame);
    let header = RequestHeader::decode(&mut d).ok()?;
    Some((header.xid, OpCode::from_code(header.op)?, d.rest()))
}

/// Answers one request into `out`.
pub(super) fn answer(
    view: &View<'_>,
    watches: &mut Watches,
    slot: u32,
    request: Result<Request<'_>, ErrorCode>,
    xid: Xid,
    zxid: Zxid,
    out: &mut ByteQueue,
) {
    let mut made = Vec::new();
    let response = match request {
        Ok(Request::SetWatches(request) | Request::SetWatches2(request)) => {
            set_watches(view, watches, slot, &request, out);
            Ok(Response::Empty)
        }
        Ok(Request::MultiRead(request)) => read_all(view, &request, &mut made).map(Response::Multi),
        Ok(request) => read(view, watches, slot, request, &mut made),
        Err(error) => Err(error),
    };
    out.put_frame(|out| encode(&response, xid, zxid, out));
}

fn encode(response: &Result<Response<'_>, ErrorCode>, xid: Xid, zxid: Zxid, out: &mut Vec<u8>) {
    let (error, body) = match response {
        Ok(body) => (0, body),
        Err(error) => (error.code(), &Response::Empty),
    };
    ReplyHeader { xid, zxid, error }.encode(out);
    body.encode(out);
}

/// Answers a request of one connection, whose watches are to be kept.
fn read<'a>(
    view: &View<'a>,
    watches: &mut Watches,
    slot: u32,
    request: Request<'a>,
    made: &'a mut Vec<u8>,
) -> Result<Response<'a>, ErrorCode> {
    let watch = match request {
        Request::Exists(read) | Request::GetData(read) if read.watch => Some((WatchKind::Data, read.path)),
        Request::GetChildren(read) | Request::GetChildren2(read) if read.watch => Some((WatchKind::Child, read.path)),
        Request::AddWatch(path, AddWatchMode::Persistent) => {
            watches.add_persistent(path, slot);
            return Ok(Response::Zero);
        }
        Request::AddWatch(path, AddWatchMode::Recursive) => {
            watches.add_recursive(path, slot);
            return Ok(Response::Zero);
        }
        Request::RemoveWatches(path, what) => {
            return if watches.remove(slot, path, what) { Ok(Response::Empty) } else { Err(ErrorCode::NoWatcher) };
        }
        Request::CheckWatches(path, what) => {
            return if watches.has(slot, path, what) { Ok(Response::Empty) } else { Err(ErrorCode::NoWatcher) };
        }
        _ => None,
    };
    let may_wait = matches!(request, Request::Exists(_));
    let response = look(view, request, made);
    // Only `exists` waits for a node that is not there.
    if let Some((kind, path)) = watch
        && (response.is_ok() || may_wait && matches!(response, Err(ErrorCode::NoNode)))
    {
        watches.add(kind, path, slot);
    }
    response
}

/// Answers a request that has nothing to do with watches, or without regard to that. What is not in the tree as it is sent is put into
/// `made`.
fn look<'a>(view: &View<'a>, request: Request<'a>, made: &'a mut Vec<u8>) -> Result<Response<'a>, ErrorCode> {
    let tree = view.tree;
    match request {
        Request::Ping => Ok(Response::Empty),
        Request::Exists(request) => {
            if request.path.contains('\0') {
                return Err(ErrorCode::BadArguments);
            }
            view.readable(request.path, perms::READ).map(|id| Response::Stat(tree.stat(id)))
        }
        Request::GetData(request) => {
            let id = view.readable(request.path, perms::READ)?;
            Ok(Response::Data(tree.data(id), tree.stat(id)))
        }
        Request::GetAcl(path) => {
            let id = view.readable(path, perms::READ | perms::ADMIN)?;
            let acl = match view.allows(id, perms::ADMIN) {
                true => tree.acl(id),
                false => {
                    *made = acl::masked(tree.acl(id));
                    AclList::from_encoded(made).expect("made here")
                }
            };
            Ok(Response::Acl(acl, tree.stat(id)))
        }
        Request::WhoAmI => {
            *made = view.access.users(view.who);
            Ok(Response::WhoAmI(IdList::from_encoded(made).expect("made here")))
        }
        Request::GetChildren(read) | Request::GetChildren2(read) => {
            let id = view.readable(read.path, perms::READ)?;
            let count = tree.children(id, made);
            if made.len() > CHILDREN_BYTES_MAX {
                return Err(ErrorCode::MarshallingError);
            }
            let children = StrList::from_encoded(count, made);
            Ok(match request {
                Request::GetChildren(_) => Response::Children(children),
                _ => Response::ChildrenStat(children, tree.stat(id)),
            })
        }
        Request::GetAllChildrenNumber(path) => {
            let id = view.readable(path, perms::READ)?;
            Ok(Response::Number(i32::try_from(tree.below(id)).unwrap_or(i32::MAX)))
        }
        Request::GetEphemerals(prefix) => {
            // What Java's `trim` takes for blank.
            let trimmed = |prefix: &str| prefix.trim_matches(|c| c <= ' ').to_owned();
            let prefix = prefix.filter(|prefix| !matches!(&*trimmed(prefix), "" | "/")).unwrap_or_default();
            let mut paths = tree.ephemerals(view.session);
            paths.retain(|path| path.starts_with(prefix));
            paths.iter().for_each(|path| put_string(made, path));
            if made.len() > CHILDREN_BYTES_MAX {
                return Err(ErrorCode::MarshallingError);
            }
            Ok(Response::Children(StrList::from_encoded(paths.len() as u32, made)))
        }
        request => unreachable!("{:?} is not answered from the tree", request.op()),
    }
}

/// Answers the reads of a multiRead, all of the same tree. (Apache's may see writes between them.) One that asks for more than
/// [`MULTI_READ_BYTES_MAX`] is refused as a whole, as soon as that shows.
fn read_all<'a>(
    view: &View<'a>,
    request: &MultiReadRequest<'_>,
    names: &'a mut Vec<u8>,
) -> Result<Vec<MultiResult<'a>>, ErrorCode> {
    let tree = view.tree;
    let mut lists = VecDeque::new();
    let mut bytes = 0;
    for op in request.iter() {
        match op {
            ReadOp::GetChildren(path) => {
                if let Ok(id) = view.readable(path, perms::READ) {
                    let start = names.len();
                    let count = tree.children(id, names);
                    lists.push_back((count, start..names.len()));
                    bytes += names.len() - start;
                }
            }
            ReadOp::GetData(path) => {
                let data = view.readable(path, perms::READ).map(|id| tree.data(id));
                bytes += data.ok().flatten().map_or(0, <[u8]>::len);
            }
        }
        if bytes > MULTI_READ_BYTES_MAX {
            return Err(ErrorCode::MarshallingError);
        }
    }
    let names: &[u8] = names;
    let one = |op: ReadOp<'_>| match op {
        ReadOp::GetData(path) => {
            let id = view.readable(path, perms::READ)?;
            Ok(MultiResult::Data { data: tree.data(id), stat: tree.stat(id) })
        }
        ReadOp::GetChildren(path) => {
            view.readable(path, perms::READ)?;
            let (count, range) = lists.pop_front().expect("the same were readable before");
            Ok(MultiResult::Children(StrList::from_encoded(count, &names[range])))
        }
    };
    let results = request.iter().map(one);
    let results =
        results.map(|result: Result<_, ErrorCode>| result.unwrap_or_else(|error| MultiResult::Error(Some(error))));
    Ok(results.collect())
}

/// Registers what a client watched on its former connection, and tells it at once of what it missed (the table of the protocol
/// reference; Apache's `DataTree.setWatches`). Unlike Apache, it is not told of nodes that it may not read.
fn set_watches(
    view: &View<'_>,
    watches: &mut Watches,
    slot: u32,
    request: &SetWatchesRequest<'_>,
    out: &mut ByteQueue,
) {
    let mut tell = |kind: EventType, path: &str| {
        if mutation::is_on(Mutation::MissedEventsAreForgotten) {
            return;
        }
        if view.tree.find(path).is_none_or(|id| view.allows(id, perms::READ)) {
            out.put_frame(|out| {
                ReplyHeader { xid: Xid::NOTIFICATION, zxid: Zxid(-1), error: 0 }.encode(out);
                WatcherEvent { kind, path }.encode(out);
            });
        }
    };
    let tree = view.tree;
    let stat = |path: &str| tree.find(path).map(|id| tree.stat(id));
    for path in request.data.iter() {
        match stat(path) {
            None => tell(EventType::NodeDeleted, path),
            Some(stat) if stat.mzxid > request.relative_zxid => tell(EventType::NodeDataChanged, path),
            Some(_) => watches.add(WatchKind::Data, path, slot),
        }
    }
    for path in request.exist.iter() {
        match stat(path) {
            Some(_) => tell(EventType::NodeCreated, path),
            None => watches.add(WatchKind::Data, path, slot),
        }
    }
    for path in request.child.iter() {
        match stat(path) {
            None => tell(EventType::NodeDeleted, path),
            Some(stat) if stat.pzxid > request.relative_zxid => tell(EventType::NodeChildrenChanged, path),
            Some(_) => watches.add(WatchKind::Child, path, slot),
        }
    }
    // What these have missed is lost, by their design.
    request.persistent.iter().for_each(|path| watches.add_persistent(path, slot));
    request.recursive.iter().for_each(|path| watches.add_recursive(path, slot));
}
