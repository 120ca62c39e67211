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
use corral_engine::tree::digest::Content;
use corral_engine::tree::quota::Quota;
use corral_engine::tree::{BUILT_IN, path};
use corral_proto::acl::perms;
use corral_proto::jute::{StrList, put_string};
use corral_proto::request::{CreateRequest, Lifetime, PathVersion, SetAclRequest, SetDataRequest};
use corral_proto::txn::CreateTxn;
use corral_proto::{
    AclList, CreateMode, ErrorCode, MultiOp, MultiRequest, OpCode, Request, SessionId, StatPersisted, SubTxns,
    TreeDigest, Txn, Zxid,
};
use std::borrow::Cow;
use std::sync::Arc;

/// Bytes of deletions that the end of a session, or a multi ahead of it, has at most: Apache's learners take nothing longer than 1 MiB
/// (`jute.maxbuffer`).
const CLOSE_BYTES_MAX: usize = 512 << 10;
/// What a deletion has besides the path.
const DELETE_LEN: usize = 12;

/// Bytes by which the lists of one request may grow because the client's identities stand in them: a transaction must not be too large for
/// learners.
const GROWTH_MAX: usize = 1 << 20;

/// Of creates that say no time.
const NO_TTL: i64 = -1;

/// Decides what requests become.
pub struct Sequencer {
    outstanding: Outstanding,
    access: Access,
    rules: Rules,
    /// Who was let through last by a list that does not let in everybody: who writes mostly writes again, to nodes with the same list.
    let_through: Option<(Identities, Arc<[u8]>, i32)>,
    /// Of [`GROWTH_MAX`], what the request that is being decided has left.
    room: usize,
}

/// What a server lets its clients do, and what its transactions say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rules {
    /// Nodes may be created that live for a time (`extendedTypesEnabled`).
    pub takes_ttl: bool,
    /// Transactions say the digest of the leader's tree, and learners compare it with theirs (`digest.enabled`).
    pub says_digests: bool,
    /// What is beyond a hard quota is refused (`enforceQuota`).
    pub enforces_quotas: bool,
}

impl Default for Rules {
    fn default() -> Rules {
        Rules { takes_ttl: false, says_digests: true, enforces_quotas: false }
    }
}

/// What the decision is about.
#[derive(Clone, Copy)]
pub struct Place<'a> {
    /// The zxid that the transaction will have.
    pub zxid: Zxid,
    /// Its time, in ms since the epoch.
    pub time_ms: i64,
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
    /// Nothing is on its way yet.
    pub fn new(seed: u64, access: Access, rules: Rules) -> Sequencer {
        Sequencer {
            outstanding: Outstanding::new(seed, rules.says_digests),
            access,
            rules,
            let_through: None,
            room: GROWTH_MAX,
        }
    }

    /// The digest that the tree will have behind this transaction, the newest that was decided.
    pub fn digest(&mut self, tree: &Tree, txn: &Txn<'_>) -> Option<TreeDigest> {
        let says = self.rules.says_digests && !matches!(txn, Txn::Error(_));
        says.then(|| self.outstanding.digest(tree))
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
        then: impl FnOnce(Txn<'_>, Option<TreeDigest>) -> R,
    ) -> R {
        self.outstanding.digest(tree);
        self.room = GROWTH_MAX;
        let then = |sequencer: &mut Sequencer, txn: Txn<'_>| then(txn, sequencer.digest(tree, &txn));
        let decided = match Request::decode(op, body) {
            Err(_) => Err(ErrorCode::MarshallingError),
            Ok(Request::Create(request) | Request::Create2(request) | Request::CreateContainer(request)) => {
                match self.create(tree, place, op, &request, NO_TTL) {
                    Ok(creation) => return then(self, creation.txn()),
                    Err(error) => Err(error),
                }
            }
            Ok(Request::CreateTtl(request, ttl_ms)) => match self.create(tree, place, op, &request, ttl_ms) {
                Ok(creation) => return then(self, creation.txn()),
                Err(error) => Err(error),
            },
            Ok(Request::Reconfig(_)) => Err(ErrorCode::ReconfigDisabled),
            Ok(Request::Delete(request)) => self.delete(tree, place, request),
            Ok(Request::SetData(request)) => self.set_data(tree, place, request),
            Ok(Request::SetAcl(request)) => match self.set_acl(tree, place, request) {
                Ok((acl, version)) => {
                    let acl = AclList::from_encoded(&acl).expect("fixed up");
                    return then(self, Txn::SetAcl { path: request.path, acl, version });
                }
                Err(error) => Err(error),
            },
            Ok(Request::Multi(request)) => {
                let parts = self.multi(tree, place, request);
                return then(self, Txn::Multi(SubTxns::from_encoded(request.len() as u32, &parts)));
            }
            Ok(Request::CloseSession) => {
                let (count, paths) = self.close_session(tree, place);
                return then(self, Txn::CloseSession { paths: Some(StrList::from_encoded(count, &paths)) });
            }
            Ok(_) => unreachable!("{op:?} does not go through the log"),
        };
        then(self, decided.unwrap_or_else(|error| Txn::Error(error.code())))
    }

    /// Ephemeral nodes of a session that must be deleted ahead of its end, because that cannot name all of them; in pieces.
    pub fn ahead_of_end(&self, tree: &Tree, session: SessionId) -> Vec<Vec<String>> {
        let (mut pieces, mut bytes) = (vec![Vec::new()], 0);
        for path in self.outstanding.ephemerals(tree, session) {
            let len = DELETE_LEN + path.len();
            if bytes + len > CLOSE_BYTES_MAX {
                pieces.push(Vec::new());
                bytes = 0;
            }
            bytes += len;
            pieces.last_mut().expect("one at least").push(path);
        }
        // Those the end itself names.
        pieces.pop();
        pieces
    }

    /// Decides that all these nodes, which have no children, are deleted: the parts of a multi, encoded.
    pub fn delete_all(&mut self, tree: &Tree, zxid: Zxid, paths: &[String]) -> Vec<u8> {
        self.outstanding.digest(tree);
        let mut parts = Vec::new();
        for path in paths {
            self.take_away(tree, zxid, path);
            SubTxns::push(&mut parts, &Txn::Delete { path });
        }
        parts
    }

    /// Decides the end of a session: its ephemeral nodes go with it, those still on their way included. How many they are, and their paths.
    fn close_session(&mut self, tree: &Tree, place: Place<'_>) -> (u32, Vec<u8>) {
        let paths = self.outstanding.ephemerals(tree, place.session);
        let mut raw = Vec::new();
        for path in &paths {
            put_string(&mut raw, path);
            self.take_away(tree, place.zxid, path);
        }
        (paths.len() as u32, raw)
    }

    /// A node without children is deleted by the server itself.
    fn take_away(&mut self, tree: &Tree, zxid: Zxid, path: &str) {
        let (parent_path, _) = path::split(path).expect("no root is deleted");
        let [parent, node] = [parent_path, path].map(|path| self.outstanding.get(tree, path));
        let [parent, node] = [parent, node].map(|state| state.expect("it is there, and so is its parent"));
        self.unlink(tree, zxid, parent_path, parent);
        self.outstanding.remove(zxid, path, &node);
    }

    /// A node has one child less.
    fn unlink(&mut self, tree: &Tree, zxid: Zxid, path: &str, mut parent: NodeState) {
        parent.num_children -= 1;
        parent.stat.pzxid = zxid;
        self.outstanding.set(tree, zxid, path, parent);
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
        self.check(place.who, &parent, perms::CREATE)?;
        let path = if sequential {
            // The number after the last one has been used up: refuse, rather than give a name twice.
            if parent.stat.created == i32::MAX {
                return Err(ErrorCode::BadArguments);
            }
            Cow::Owned(format!("{}{:010}", request.path, parent.stat.created))
        } else {
            Cow::Borrowed(request.path)
        };
        if !path::is_valid(&path) {
            return Err(ErrorCode::BadArguments);
        }
        if self.outstanding.get(tree, &path).is_some() {
            return Err(ErrorCode::NodeExists);
        }
        if parent.stat.owner.is_session() {
            return Err(ErrorCode::NoChildrenForEphemerals);
        }
        let data_len = request.data.map_or(0, <[u8]>::len);
        self.check_quota(tree, &path, 1, data_len as i64)?;
        parent.stat.created = parent.stat.created.saturating_add(1);
        parent.stat.pzxid = place.zxid;
        parent.num_children += 1;
        let parent_cversion = parent.stat.created;
        let owner = match lifetime {
            Lifetime::Persistent => SessionId::NONE,
            Lifetime::Ephemeral => place.session,
            Lifetime::Container => SessionId::CONTAINER,
            Lifetime::Ttl => SessionId::ttl(ttl_ms).expect("looked at with the mode"),
        };
        let stat = StatPersisted::new(place.zxid, place.time_ms, owner);
        let content = self.content(&path, request.data);
        self.outstanding.set(tree, place.zxid, parent_path, parent);
        self.outstanding.set(tree, place.zxid, &path, NodeState::new(&acl, stat, content, data_len));
        Ok(Creation { path, data: request.data, acl, op, lifetime, ttl_ms, parent_cversion })
    }

    /// What the flags of a create stand for, if operation and time belong to them. (Apache takes some that do not.)
    fn mode(&self, op: OpCode, flags: i32, ttl_ms: i64) -> Result<CreateMode, ErrorCode> {
        let mode = CreateMode::from_flags(flags).ok_or(ErrorCode::BadArguments)?;
        let fits = match mode.lifetime {
            Lifetime::Persistent | Lifetime::Ephemeral => matches!(op, OpCode::Create | OpCode::Create2),
            Lifetime::Container => op == OpCode::CreateContainer,
            Lifetime::Ttl if !self.rules.takes_ttl => return Err(ErrorCode::Unimplemented),
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
        self.outstanding.digest(tree);
        self.take_away(tree, zxid, path);
        Txn::DeleteContainer { path }
    }

    fn delete<'a>(&mut self, tree: &Tree, place: Place<'_>, request: PathVersion<'a>) -> Result<Txn<'a>, ErrorCode> {
        let (parent_path, _) = split(request.path)?;
        if BUILT_IN.contains(&request.path) {
            return Err(ErrorCode::BadArguments);
        }
        let parent = self.outstanding.get(tree, parent_path).ok_or(ErrorCode::NoNode)?;
        self.check(place.who, &parent, perms::DELETE)?;
        let node = self.outstanding.get(tree, request.path).ok_or(ErrorCode::NoNode)?;
        check_version(node.stat.version, request.version)?;
        if node.num_children > 0 {
            return Err(ErrorCode::NotEmpty);
        }
        self.unlink(tree, place.zxid, parent_path, parent);
        self.outstanding.remove(place.zxid, request.path, &node);
        Ok(Txn::Delete { path: request.path })
    }

    fn set_data<'a>(
        &mut self,
        tree: &Tree,
        place: Place<'_>,
        request: SetDataRequest<'a>,
    ) -> Result<Txn<'a>, ErrorCode> {
        let mut node = self.existing(tree, place.who, request.path, perms::WRITE)?;
        let data_len = request.data.map_or(0, <[u8]>::len);
        self.check_quota(tree, request.path, 0, data_len as i64 - node.data_len as i64)?;
        check_version(node.stat.version, request.version)?;
        let version = node.stat.version.wrapping_add(1);
        node.data_len = data_len;
        node.stat = StatPersisted { version, mzxid: place.zxid, mtime: place.time_ms, ..node.stat };
        node.content = Some(self.content(request.path, request.data));
        self.outstanding.set(tree, place.zxid, request.path, node);
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
        check_version(node.stat.aversion, request.version)?;
        let version = node.stat.aversion.wrapping_add(1);
        node.stat.aversion = version;
        node.acl = (&*acl).into();
        self.outstanding.set(tree, place.zxid, request.path, node);
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
                check_version(node.stat.version, request.version)?;
                SubTxns::push(parts, &Txn::Check(request));
            }
        }
        Ok(())
    }

    /// Whether a client may do this with a node.
    fn check(&mut self, who: &Identities, node: &NodeState, wanted: i32) -> Result<(), ErrorCode> {
        let is_same =
            |(other, acl, what): &(Identities, Arc<[u8]>, i32)| *what == wanted && *acl == node.acl && other == who;
        if *node.acl == *AclList::OPEN.encoded() || self.let_through.as_ref().is_some_and(is_same) {
            return Ok(());
        }
        self.access.check(who, node.acl(), wanted)?;
        self.let_through = Some((who.clone(), node.acl.clone(), wanted));
        Ok(())
    }

    fn content(&self, path: &str, data: Option<&[u8]>) -> Content {
        if self.rules.says_digests { Content::of(path, data) } else { Content::UNCOUNTED }
    }

    /// Whether so many nodes and bytes more are allowed. As with Apache, what is on its way does not count yet.
    fn check_quota(&self, tree: &Tree, path: &str, count: i64, bytes: i64) -> Result<(), ErrorCode> {
        let Some(Quota { path, limits, stats }) = tree.quota(path).filter(|_| self.rules.enforces_quotas) else {
            return Ok(());
        };
        for (what, more, now, soft, hard) in [
            ("nodes", count, stats.count, limits.count, limits.count_hard),
            ("bytes", bytes, stats.bytes, limits.bytes, limits.bytes_hard),
        ] {
            let limit = if hard > -1 { hard } else { soft };
            let will_be = now.saturating_add(more);
            if more == 0 || limit < 0 || will_be <= limit {
                continue;
            }
            if hard > -1 {
                return Err(ErrorCode::QuotaExceeded);
            }
            if now <= limit {
                tracing::warn!("{path} has more {what} than its quota says: {will_be}, and {limit} would be allowed");
            }
        }
        Ok(())
    }

    fn fix_up<'a>(&mut self, who: &Identities, acl: AclList<'a>) -> Result<Cow<'a, [u8]>, ErrorCode> {
        let fixed = self.access.fix_up(who, acl, self.room)?;
        self.room -= fixed.len().saturating_sub(acl.encoded().len());
        Ok(fixed)
    }

    fn existing(&mut self, tree: &Tree, who: &Identities, path: &str, wanted: i32) -> Result<NodeState, ErrorCode> {
        if !path::is_valid(path) {
            return Err(ErrorCode::BadArguments);
        }
        let node = self.outstanding.get(tree, path).ok_or(ErrorCode::NoNode)?;
        self.check(who, &node, wanted)?;
        Ok(node)
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
