//! Requests that are answered from the tree, without the replica: reads, ping, and watches that a client sets again.
//!
//! **Not here**: order (the worker sees to it that nothing is ahead of the request).

use super::Out;
use crate::clients::watch::{WatchKind, Watches};
use crate::mutation::{self, Mutation};
use crate::requests::acl::{self, Access};
use crate::requests::identity::Identities;
use crate::requests::sequencer::undecodable;
use corral_engine::Tree;
use corral_engine::tree::NodeId;
use corral_net::put_frame;
use corral_proto::acl::perms;
use corral_proto::jute::StrList;
use corral_proto::multi::{MultiReadRequest, MultiResult, ReadOp};
use corral_proto::request::{AddWatchMode, RequestHeader, SetWatchesRequest};
use corral_proto::response::Response;
use corral_proto::{
    AclList, Decoder, ErrorCode, EventType, IdList, Jute, OpCode, ReplyHeader, Request, WatcherEvent, Xid, Zxid,
};
use std::collections::VecDeque;

/// Bytes of names that one list of children may have. (Java clients take answers of 1 MiB, unless `jute.maxbuffer` says otherwise.)
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

/// Whether a request may be answered by whoever applies the write that follows it on its connection: it reads one small node, and leaves
/// no watch.
pub(super) fn may_go_along(tree: &Tree, frame: &[u8]) -> bool {
    let mut d = Decoder::new(frame);
    let op = RequestHeader::decode(&mut d).ok().and_then(|header| OpCode::from_code(header.op));
    let Some(Ok(request)) = op.map(|op| Request::decode(op, d.rest())) else { return false };
    let (read, asks_for_names) = match request {
        Request::Exists(read) | Request::GetData(read) => (read, false),
        Request::GetChildren(read) | Request::GetChildren2(read) => (read, true),
        _ => return false,
    };
    let (bytes_max, children_max) = GO_ALONG_MAX;
    let is_small = |id| match asks_for_names {
        false => tree.stat(id).data_length as usize <= bytes_max,
        true if tree.stat(id).num_children > children_max => false,
        true => {
            let mut names = Vec::new();
            tree.children(id, &mut names);
            names.len() <= bytes_max
        }
    };
    !read.watch && tree.find(read.path).is_none_or(is_small)
}

/// Answers a request that [`may_go_along`], from the tree as it is now.
pub fn answer_unwatched(view: &View<'_>, op: OpCode, frame: &[u8], xid: Xid, out: &mut Vec<u8>) {
    let request = Request::decode(op, &frame[RequestHeader::LEN..]).map_err(undecodable);
    let mut made = Vec::new();
    let response = request.and_then(|request| read(view, &mut Watches::new(0), 0, request, &mut made));
    put_frame(out, |out| encode(&response, xid, view.tree.last_applied(), out));
}

/// Answers one request into `out`.
pub(super) fn answer(
    view: &View<'_>,
    watches: &mut Watches,
    slot: u32,
    request: Result<Request<'_>, ErrorCode>,
    xid: Xid,
    zxid: Zxid,
    out: &mut Out,
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

/// What is not in the tree as it is sent is put into `made`.
fn read<'a>(
    view: &View<'a>,
    watches: &mut Watches,
    slot: u32,
    request: Request<'a>,
    made: &'a mut Vec<u8>,
) -> Result<Response<'a>, ErrorCode> {
    let tree = view.tree;
    match request {
        Request::Ping => Ok(Response::Empty),
        Request::Exists(request) => {
            if request.path.contains('\0') {
                return Err(ErrorCode::BadArguments);
            }
            let found = view.readable(request.path, perms::READ);
            // A watch on a node that is not there waits for it; on one that may not be read there is none.
            if request.watch && found != Err(ErrorCode::NoAuth) {
                watches.add(WatchKind::Data, canonical(request.path), slot);
            }
            found.map(|id| Response::Stat(tree.stat(id)))
        }
        Request::GetData(request) => {
            let id = view.readable(request.path, perms::READ)?;
            if request.watch {
                watches.add(WatchKind::Data, canonical(request.path), slot);
            }
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
        Request::GetChildren(watched) | Request::GetChildren2(watched) => {
            let id = view.readable(watched.path, perms::READ)?;
            if watched.watch {
                watches.add(WatchKind::Child, canonical(watched.path), slot);
            }
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
        Request::AddWatch(path, AddWatchMode::Persistent) => {
            watches.add_persistent(path, slot);
            Ok(Response::Zero)
        }
        Request::AddWatch(path, AddWatchMode::Recursive) => {
            watches.add_recursive(path, slot);
            Ok(Response::Zero)
        }
        Request::RemoveWatches(path, what) => match watches.remove(slot, path, what) {
            true => Ok(Response::Empty),
            false => Err(ErrorCode::NoWatcher),
        },
        Request::CheckWatches(path, what) => match watches.has(slot, path, what) {
            true => Ok(Response::Empty),
            false => Err(ErrorCode::NoWatcher),
        },
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

/// Reads take the empty path for the root; events name it properly.
fn canonical(path: &str) -> &str {
    if path.is_empty() { "/" } else { path }
}

/// Registers what a client watched on its former connection, and tells it at once of what it missed (the table of the protocol
/// reference; Apache's `DataTree.setWatches`). Unlike Apache, it is not told of nodes that it may not read.
fn set_watches(view: &View<'_>, watches: &mut Watches, slot: u32, request: &SetWatchesRequest<'_>, out: &mut Out) {
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
