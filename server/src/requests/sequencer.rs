//! From a request to a transaction that decides everything: is it allowed, what will the name be, what will the versions be.
//!
//! The order of the checks is Apache's (`PrepRequestProcessor`), because it decides which of several errors a client sees.
//! A request that is refused becomes a transaction too ([`Txn::Error`]): it has a zxid and its answer has its place.
//!
//! **Invariants**: a decision looks at the tree and at everything ordered before it, and at nothing else; deciding twice from
//! the same state gives the same transaction; a multi is decided as one and leaves nothing behind when it fails.
//!
//! **Not here**: sessions' liveness (the replica checks it first), zxids (it passes them in), the log.

use super::outstanding::{NodeState, Outstanding};
use crate::requests::acl::Access;
use crate::requests::identity::Identities;
use corral_engine::Tree;
use corral_engine::tree::{BUILT_IN, path};
use corral_proto::acl::perms;
use corral_proto::jute::{StrList, put_string};
use corral_proto::request::{CreateRequest, Lifetime, PathVersion, SetAclRequest, SetDataRequest};
use corral_proto::txn::CreateTxn;
use corral_proto::{
    AclList, CreateMode, ErrorCode, MultiOp, MultiRequest, OpCode, Request, SessionId, SubTxns, Txn, Zxid,
};
use std::borrow::Cow;

/// Bytes of paths that the end of a session names at most.
const CLOSE_BYTES_MAX: usize = 16 << 20;

/// Bytes by which the lists of one request may grow because the client's identities stand in them: a transaction must not be too large for
/// learners.
const GROWTH_MAX: usize = 1 << 20;

/// Of creates that say no time.
const NO_TTL: i64 = -1;

/// Decides what requests become.
pub struct Sequencer {
    outstanding: Outstanding,
    access: Access,
    takes_ttl: bool,
    /// Of [`GROWTH_MAX`], what the request that is being decided has left.
    room: usize,
}

/// What the decision is about.
#[derive(Clone, Copy)]
pub struct Place<'a> {
    /// The zxid that the transaction will have.
    pub zxid: Zxid,
    /// In whose name it is asked for.
    pub session: SessionId,
    /// Who asks.
    pub who: &'a Identities,
}

/// A create that was let through.
struct Creation<'a> {
    path: Cow<'a, str>,
    data: Option<&'a [u8]>,
    acl: Cow<'a, [u8]>,
    op: OpCode,
    lifetime: Lifetime,
    ttl_ms: i64,
    parent_cversion: i32,
}

impl Creation<'_> {
    fn txn(&self) -> Txn<'_> {
        let create = CreateTxn {
            path: &self.path,
            data: self.data,
            acl: AclList::from_encoded(&self.acl).expect("fixed up"),
            ephemeral: self.lifetime == Lifetime::Ephemeral,
            parent_cversion: self.parent_cversion,
        };
        match (self.lifetime, self.op) {
            (Lifetime::Container, _) => Txn::CreateContainer(create),
            (Lifetime::Ttl, _) => Txn::CreateTtl(create, self.ttl_ms),
            (_, OpCode::Create) => Txn::Create(create),
            _ => Txn::Create2(create),
        }
    }
}

impl Sequencer {
    /// Nothing is on its way yet; nodes may live for a time, or not (`extendedTypesEnabled`).
    pub fn new(seed: u64, access: Access, takes_ttl: bool) -> Sequencer {
        Sequencer { outstanding: Outstanding::new(seed), access, takes_ttl, room: GROWTH_MAX }
    }

    /// Everything up to `zxid` has been applied to the tree.
    pub fn applied(&mut self, zxid: Zxid) {
        self.outstanding.applied(zxid);
    }

    /// Decides a request of a client and hands the transaction to `then`.
    pub fn decide<R>(
        &mut self,
        tree: &Tree,
        place: Place<'_>,
        op: OpCode,
        body: &[u8],
        then: impl FnOnce(Txn<'_>) -> R,
    ) -> R {
        self.room = GROWTH_MAX;
        let decided = match Request::decode(op, body) {
            Err(_) => Err(ErrorCode::MarshallingError),
            Ok(Request::Create(request) | Request::Create2(request) | Request::CreateContainer(request)) => {
                match self.create(tree, place, op, &request, NO_TTL) {
                    Ok(creation) => return then(creation.txn()),
                    Err(error) => Err(error),
                }
            }
            Ok(Request::CreateTtl(request, ttl_ms)) => match self.create(tree, place, op, &request, ttl_ms) {
                Ok(creation) => return then(creation.txn()),
                Err(error) => Err(error),
            },
            Ok(Request::Reconfig(_)) => Err(ErrorCode::ReconfigDisabled),
            Ok(Request::Delete(request)) => self.delete(tree, place, request),
            Ok(Request::SetData(request)) => self.set_data(tree, place, request),
            Ok(Request::SetAcl(request)) => match self.set_acl(tree, place, request) {
                Ok((acl, version)) => {
                    let acl = AclList::from_encoded(&acl).expect("fixed up");
                    return then(Txn::SetAcl { path: request.path, acl, version });
                }
                Err(error) => Err(error),
            },
            Ok(Request::Multi(request)) => {
                let parts = self.multi(tree, place, request);
                return then(Txn::Multi(SubTxns::from_encoded(request.len() as u32, &parts)));
            }
            Ok(Request::CloseSession) => return self.close_session(tree, place, then),
            Ok(_) => unreachable!("{op:?} does not go through the log"),
        };
        then(decided.unwrap_or_else(|error| Txn::Error(error.code())))
    }

    /// Decides the end of a session: its ephemeral nodes go with it, those still on their way included.
    pub fn close_session<R>(&mut self, tree: &Tree, place: Place<'_>, then: impl FnOnce(Txn<'_>) -> R) -> R {
        let paths = self.outstanding.ephemerals(tree, place.session);
        let mut raw = Vec::new();
        for path in &paths {
            put_string(&mut raw, path);
            if let Some(parent) = path::split(path) {
                self.change(tree, place.zxid, parent.0, |state| state.num_children -= 1);
            }
            self.outstanding.set(place.zxid, path, None);
        }
        let list = StrList::from_encoded(paths.len() as u32, &raw);
        // The list is what makes replay exact over a fuzzy snapshot; the tree finds the nodes without it. A record of gigabytes
        // would be worse than a parent's pzxid that may be older than it should after such a replay.
        then(Txn::CloseSession { paths: (raw.len() <= CLOSE_BYTES_MAX).then_some(list) })
    }

    fn create<'a>(
        &mut self,
        tree: &Tree,
        place: Place<'_>,
        op: OpCode,
        request: &CreateRequest<'a>,
        ttl_ms: i64,
    ) -> Result<Creation<'a>, ErrorCode> {
        let CreateMode { lifetime, sequential } = self.mode(op, request.flags, ttl_ms)?;
        let (parent_path, _) = split(request.path)?;
        let acl = self.fix_up(place.who, request.acl)?;
        let mut parent = self.outstanding.get(tree, parent_path).ok_or(ErrorCode::NoNode)?;
        self.access.check(place.who, parent.acl(), perms::CREATE)?;
        let path = if sequential {
            // The number after the last one has been used up: refuse, rather than give a name twice.
            if parent.created == i32::MAX {
                return Err(ErrorCode::BadArguments);
            }
            Cow::Owned(format!("{}{:010}", request.path, parent.created))
        } else {
            Cow::Borrowed(request.path)
        };
        if !path::is_valid(&path) {
            return Err(ErrorCode::BadArguments);
        }
        if self.outstanding.get(tree, &path).is_some() {
            return Err(ErrorCode::NodeExists);
        }
        if parent.owner != SessionId::NONE {
            return Err(ErrorCode::NoChildrenForEphemerals);
        }
        parent.created = parent.created.saturating_add(1);
        parent.num_children += 1;
        let parent_cversion = parent.created;
        let owner = if lifetime == Lifetime::Ephemeral { place.session } else { SessionId::NONE };
        self.outstanding.set(place.zxid, parent_path, Some(parent));
        self.outstanding.set(place.zxid, &path, Some(NodeState::new(&acl, owner)));
        Ok(Creation { path, data: request.data, acl, op, lifetime, ttl_ms, parent_cversion })
    }

    /// What the flags of a create stand for, if operation and time belong to them. (Apache takes some that do not.)
    fn mode(&self, op: OpCode, flags: i32, ttl_ms: i64) -> Result<CreateMode, ErrorCode> {
        let mode = CreateMode::from_flags(flags).ok_or(ErrorCode::BadArguments)?;
        let fits = match mode.lifetime {
            Lifetime::Persistent | Lifetime::Ephemeral => matches!(op, OpCode::Create | OpCode::Create2),
            Lifetime::Container => op == OpCode::CreateContainer,
            Lifetime::Ttl if !self.takes_ttl => return Err(ErrorCode::Unimplemented),
            Lifetime::Ttl => op == OpCode::CreateTtl && SessionId::ttl(ttl_ms).is_some(),
        };
        if fits { Ok(mode) } else { Err(ErrorCode::BadArguments) }
    }

    /// Whether nothing that is on its way concerns the node.
    pub fn is_settled(&self, path: &str) -> bool {
        !self.outstanding.has(path)
    }

    /// Decides that a settled node, which has outlived its use, is deleted.
    pub fn reap<'a>(&mut self, tree: &Tree, zxid: Zxid, path: &'a str) -> Txn<'a> {
        let (parent, _) = path::split(path).expect("no root is reaped");
        self.change(tree, zxid, parent, |state| state.num_children -= 1);
        self.outstanding.set(zxid, path, None);
        Txn::DeleteContainer { path }
    }

    fn delete<'a>(&mut self, tree: &Tree, place: Place<'_>, request: PathVersion<'a>) -> Result<Txn<'a>, ErrorCode> {
        let (parent_path, _) = split(request.path)?;
        if BUILT_IN.contains(&request.path) {
            return Err(ErrorCode::BadArguments);
        }
        let mut parent = self.outstanding.get(tree, parent_path).ok_or(ErrorCode::NoNode)?;
        self.access.check(place.who, parent.acl(), perms::DELETE)?;
        let node = self.outstanding.get(tree, request.path).ok_or(ErrorCode::NoNode)?;
        check_version(node.version, request.version)?;
        if node.num_children > 0 {
            return Err(ErrorCode::NotEmpty);
        }
        parent.num_children -= 1;
        self.outstanding.set(place.zxid, parent_path, Some(parent));
        self.outstanding.set(place.zxid, request.path, None);
        Ok(Txn::Delete { path: request.path })
    }

    fn set_data<'a>(
        &mut self,
        tree: &Tree,
        place: Place<'_>,
        request: SetDataRequest<'a>,
    ) -> Result<Txn<'a>, ErrorCode> {
        let mut node = self.existing(tree, place.who, request.path, perms::WRITE)?;
        check_version(node.version, request.version)?;
        node.version = node.version.wrapping_add(1);
        let version = node.version;
        self.outstanding.set(place.zxid, request.path, Some(node));
        Ok(Txn::SetData { path: request.path, data: request.data, version })
    }

    fn set_acl<'a>(
        &mut self,
        tree: &Tree,
        place: Place<'_>,
        request: SetAclRequest<'a>,
    ) -> Result<(Cow<'a, [u8]>, i32), ErrorCode> {
        if !path::is_valid(request.path) {
            return Err(ErrorCode::BadArguments);
        }
        let acl = self.fix_up(place.who, request.acl)?;
        let mut node = self.existing(tree, place.who, request.path, perms::ADMIN)?;
        check_version(node.aversion, request.version)?;
        node.aversion = node.aversion.wrapping_add(1);
        node.acl = (&*acl).into();
        let version = node.aversion;
        self.outstanding.set(place.zxid, request.path, Some(node));
        Ok((acl, version))
    }

    /// The parts of a multi, encoded. If one is refused, every part is an error: none (code 0) before it, its own, and
    /// RuntimeInconsistency after it.
    fn multi(&mut self, tree: &Tree, place: Place<'_>, request: MultiRequest<'_>) -> Vec<u8> {
        let mut parts = Vec::new();
        let mut failed = None;
        self.outstanding.begin();
        for (index, op) in request.iter().enumerate() {
            if let Err(error) = self.part(tree, place, op, &mut parts) {
                failed = Some((index, error));
                break;
            }
        }
        self.outstanding.end(place.zxid, failed.is_none());
        if let Some((at, error)) = failed {
            parts.clear();
            for index in 0..request.len() {
                let code = match index.cmp(&at) {
                    std::cmp::Ordering::Less => 0,
                    std::cmp::Ordering::Equal => error.code(),
                    std::cmp::Ordering::Greater => ErrorCode::RuntimeInconsistency.code(),
                };
                SubTxns::push(&mut parts, &Txn::Error(code));
            }
        }
        parts
    }

    fn part(&mut self, tree: &Tree, place: Place<'_>, op: MultiOp<'_>, parts: &mut Vec<u8>) -> Result<(), ErrorCode> {
        match op {
            MultiOp::Create(request) | MultiOp::Create2(request) | MultiOp::CreateContainer(request) => {
                SubTxns::push(parts, &self.create(tree, place, op.op(), &request, NO_TTL)?.txn());
            }
            MultiOp::CreateTtl(request, ttl_ms) => {
                SubTxns::push(parts, &self.create(tree, place, op.op(), &request, ttl_ms)?.txn());
            }
            MultiOp::Delete(request) => SubTxns::push(parts, &self.delete(tree, place, request)?),
            MultiOp::SetData(request) => SubTxns::push(parts, &self.set_data(tree, place, request)?),
            MultiOp::Check(request) => {
                let node = self.existing(tree, place.who, request.path, perms::READ)?;
                check_version(node.version, request.version)?;
                SubTxns::push(parts, &Txn::Check(request));
            }
        }
        Ok(())
    }

    fn fix_up<'a>(&mut self, who: &Identities, acl: AclList<'a>) -> Result<Cow<'a, [u8]>, ErrorCode> {
        let fixed = self.access.fix_up(who, acl, self.room)?;
        self.room -= fixed.len().saturating_sub(acl.encoded().len());
        Ok(fixed)
    }

    fn existing(&self, tree: &Tree, who: &Identities, path: &str, wanted: i32) -> Result<NodeState, ErrorCode> {
        if !path::is_valid(path) {
            return Err(ErrorCode::BadArguments);
        }
        let node = self.outstanding.get(tree, path).ok_or(ErrorCode::NoNode)?;
        self.access.check(who, node.acl(), wanted)?;
        Ok(node)
    }

    fn change(&mut self, tree: &Tree, zxid: Zxid, path: &str, change: impl FnOnce(&mut NodeState)) {
        if let Some(mut state) = self.outstanding.get(tree, path) {
            change(&mut state);
            self.outstanding.set(zxid, path, Some(state));
        }
    }
}

fn split(path: &str) -> Result<(&str, &str), ErrorCode> {
    if path.contains('\0') {
        return Err(ErrorCode::BadArguments);
    }
    path::split(path).ok_or(ErrorCode::BadArguments)
}

fn check_version(actual: i32, expected: i32) -> Result<(), ErrorCode> {
    if expected == -1 || expected == actual { Ok(()) } else { Err(ErrorCode::BadVersion) }
}

#[cfg(test)]
#[path = "sequencer_tests/mod.rs"]
mod tests;
