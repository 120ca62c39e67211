//! What a part of the tree must look like after the writes of one client that has it to itself: every field of every node.
//!
//! **Not here**: the client ([`super::storm`] asks and compares).

use corral_engine::Tree;
use corral_net::client::{BlockingClient, ClientError};
use corral_proto::acl::AclList;
use corral_proto::request::{CreateRequest, PathVersion, PathWatch, Request, SetDataRequest};
use corral_proto::response::Response;
use corral_proto::stat::Stat;
use corral_proto::{ErrorCode, MultiOp, MultiRequest, SessionId, Zxid};
use rand::Rng;
use rand::rngs::SmallRng;
use std::collections::BTreeMap;

/// What is known of a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Node {
    data: Vec<u8>,
    version: i32,
    cversion: i32,
    children: i32,
    owner: SessionId,
    czxid: Zxid,
    mzxid: Zxid,
    pzxid: Zxid,
}

impl Node {
    pub(crate) fn new(data: &[u8], stat: &Stat) -> Node {
        assert_eq!((stat.data_length as usize, stat.aversion), (data.len(), 0));
        Node {
            data: data.to_vec(),
            version: stat.version,
            cversion: stat.cversion,
            children: stat.num_children,
            owner: stat.ephemeral_owner,
            czxid: stat.czxid,
            mzxid: stat.mzxid,
            pzxid: stat.pzxid,
        }
    }

    /// How many children were ever made: what numbers sequential ones.
    fn created(&self) -> i32 {
        (self.cversion + self.children) / 2
    }
}

/// Nodes by their paths.
pub(crate) type Nodes = BTreeMap<String, Node>;

/// One write.
#[derive(Clone, Debug)]
pub(crate) enum Op {
    Create { path: String, data: Vec<u8>, flags: i32 },
    Delete { path: String },
    Set { path: String, data: Vec<u8> },
    Multi(Vec<Op>),
    CloseSession,
}

const EPHEMERAL: i32 = 1;
const SEQUENTIAL: i32 = 2;

/// What a write does to the nodes. `None`: it is refused and changes nothing.
pub(crate) fn after(nodes: &Nodes, op: &Op, session: SessionId, zxid: Zxid) -> Option<Nodes> {
    let mut nodes = nodes.clone();
    apply(&mut nodes, op, session, zxid).then_some(nodes)
}

fn apply(nodes: &mut Nodes, op: &Op, session: SessionId, zxid: Zxid) -> bool {
    match op {
        Op::Create { path, data, flags } => {
            let Some(parent) = nodes.get_mut(parent(path)) else { return false };
            let number = format!("{:010}", parent.created());
            let path = if flags & SEQUENTIAL == 0 { path.clone() } else { format!("{path}{number}") };
            if parent.owner != SessionId::NONE || nodes.contains_key(&path) {
                return false;
            }
            let parent = nodes.get_mut(self::parent(&path)).expect("looked at just now");
            (parent.cversion, parent.children, parent.pzxid) = (parent.cversion + 1, parent.children + 1, zxid);
            let owner = if flags & EPHEMERAL == 0 { SessionId::NONE } else { session };
            let (version, cversion, children) = (0, 0, 0);
            let (czxid, mzxid, pzxid) = (zxid, zxid, zxid);
            nodes.insert(path, Node { data: data.clone(), version, cversion, children, owner, czxid, mzxid, pzxid });
            true
        }
        Op::Delete { path } => {
            if nodes.get(path).is_none_or(|node| node.children > 0) {
                return false;
            }
            nodes.remove(path);
            if let Some(parent) = nodes.get_mut(parent(path)) {
                (parent.cversion, parent.children, parent.pzxid) = (parent.cversion + 1, parent.children - 1, zxid);
            }
            true
        }
        Op::Set { path, data } => {
            let Some(node) = nodes.get_mut(path) else { return false };
            (node.data, node.version, node.mzxid) = (data.clone(), node.version + 1, zxid);
            true
        }
        Op::Multi(ops) => ops.iter().all(|op| apply(nodes, op, session, zxid)),
        Op::CloseSession => {
            let owned: Vec<_> =
                nodes.iter().filter(|(_, node)| node.owner == session).map(|(path, _)| path.clone()).collect();
            owned.into_iter().all(|path| apply(nodes, &Op::Delete { path }, session, zxid))
        }
    }
}

fn parent(path: &str) -> &str {
    path.rsplit_once('/').expect("absolute").0
}

/// A write that may well be refused.
pub(crate) fn choose(nodes: &Nodes, random: &mut SmallRng) -> Op {
    let one = |random: &mut SmallRng| {
        let path = nodes.keys().nth(random.random_range(0..nodes.len())).expect("the root is always there").clone();
        let len = if random.random_ratio(1, 20) { 4000 } else { random.random_range(0..60) };
        let data = vec![random.random(); len];
        let crowded = nodes.len() > 60;
        match random.random_range(0..10) {
            0..=3 if !crowded => {
                let (number, flags) = (random.random_range(0..12), random.random_range(0..=3));
                let path = if flags & SEQUENTIAL == 0 { format!("{path}/n{number}") } else { format!("{path}/s") };
                Op::Create { path, data, flags }
            }
            // The root stays.
            0..=6 if !parent(&path).is_empty() => Op::Delete { path },
            _ => Op::Set { path, data },
        }
    };
    match random.random_range(0..100) {
        0 => Op::CloseSession,
        1..20 => Op::Multi((0..random.random_range(1..5)).map(|_| one(random)).collect()),
        _ => one(random),
    }
}

/// Asks the server for a write: the transaction that it became, `None` if it was refused.
pub(crate) fn ask(client: &mut BlockingClient, op: &Op) -> Result<Option<Zxid>, ClientError> {
    let mut raw = Vec::new();
    let request = match op {
        Op::Create { path, data, flags } => Request::Create(creation(path, data, *flags)),
        Op::Delete { path } => Request::Delete(PathVersion { path, version: -1 }),
        Op::Set { path, data } => Request::SetData(SetDataRequest { path, data: Some(data), version: -1 }),
        Op::CloseSession => Request::CloseSession,
        Op::Multi(ops) => {
            for op in ops {
                match op {
                    Op::Create { path, data, flags } => MultiOp::Create(creation(path, data, *flags)),
                    Op::Delete { path } => MultiOp::Delete(PathVersion { path, version: -1 }),
                    Op::Set { path, data } => MultiOp::SetData(SetDataRequest { path, data: Some(data), version: -1 }),
                    Op::Multi(_) | Op::CloseSession => panic!("not inside of a multi"),
                }
                .encode_into(&mut raw);
            }
            Request::Multi(MultiRequest::from_encoded(ops.len(), &raw))
        }
    };
    let mut answer = None;
    client.pipeline(&[request], |_, header, body| {
        // A multi that was refused has no error in its header but in its first result.
        let first_error = matches!(op, Op::Multi(_)) && body[..4] == (-1i32).to_be_bytes();
        answer = (header.error == 0 && !first_error).then_some(header.zxid);
    })?;
    Ok(answer)
}

fn creation<'a>(path: &'a str, data: &'a [u8], flags: i32) -> CreateRequest<'a> {
    CreateRequest { path, data: Some(data), acl: AclList::OPEN, flags }
}

/// The nodes at and below `root` that a server serves.
pub(crate) fn served(client: &mut BlockingClient, root: &str) -> Nodes {
    let mut nodes = Nodes::new();
    let mut todo = vec![root.to_owned()];
    while let Some(path) = todo.pop() {
        let watch = PathWatch { path: &path, watch: false };
        match client.request(&Request::GetData(watch)) {
            Ok(Response::Data(data, stat)) => nodes.insert(path.clone(), Node::new(data.unwrap_or_default(), &stat)),
            Err(error) if error.code() == Some(ErrorCode::NoNode) && path == root => return nodes,
            other => panic!("{path}: {other:?}"),
        };
        match client.request(&Request::GetChildren(watch)) {
            Ok(Response::Children(names)) => todo.extend(names.iter().map(|name| format!("{path}/{name}"))),
            other => panic!("{path}: {other:?}"),
        }
    }
    nodes
}

/// The nodes at and below `root` in a tree.
pub(crate) fn restored(tree: &Tree, root: &str) -> Nodes {
    let mut nodes = Nodes::new();
    tree.walk(0, usize::MAX, |path, image| {
        if path.strip_prefix(root).is_some_and(|rest| rest.is_empty() || rest.starts_with('/')) {
            let stat = tree.stat(tree.find(path).expect("it is being walked over"));
            nodes.insert(path.to_owned(), Node::new(image.data.unwrap_or_default(), &stat));
        }
        true
    });
    nodes
}

/// The same nodes where it is not known which transaction the last write became.
pub(crate) fn without_zxids(nodes: &Nodes) -> Nodes {
    let blank = |node: &Node| Node { czxid: Zxid::ZERO, mzxid: Zxid::ZERO, pzxid: Zxid::ZERO, ..node.clone() };
    nodes.iter().map(|(path, node)| (path.clone(), blank(node))).collect()
}
