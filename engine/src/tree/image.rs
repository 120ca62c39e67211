//! The tree as an image: walked over piece by piece while transactions go on, and built again from what such a walk saw.
//!
//! A walk goes through the slab and holds the tree's lock for a few nodes at a time, so its image is *fuzzy*: each node is as
//! it was at some moment, but not all at the same one. The image is named after the transaction that was applied last when
//! the walk began; every later one is applied again on top of it, and the rules for that make the result exact:
//!
//! - a node is seen with its whole path, because its slot may have belonged to another one before; a path may be seen twice
//!   (deleted here, made again there), then the later sight counts;
//! - a child may be seen without its parent (the parent was made, or made anew, in a slot that had been passed): then the
//!   parent is a placeholder until the transaction that makes it, or deletes it, is replayed;
//! - a node that is deleted in the replayed part may have children in the image; they belong to a later node of that path and
//!   will be made again with it.
//!
//! **Invariants**: after the replay has reached the transaction at which the walk ended, there is no placeholder left and the
//! tree is equal to the one that was walked over.
//!
//! **Not here**: files and checksums ([`crate::snapshot`]), the log.

use super::{NodeId, SessionId, Tree, Zxid, path};
use corral_proto::{AclList, StatPersisted, TreeDigest};

pub use super::node::NodeImage;

impl Tree {
    /// Shows the nodes in the slots from `from` on to `each`, until it has had `limit` of them or returns false. Returns where
    /// to go on, or `None` at the end.
    pub fn walk(&self, from: u32, limit: usize, mut each: impl FnMut(&str, NodeImage<'_>) -> bool) -> Option<u32> {
        // Neighbours mostly have the same parent, so that only the last name of the path is another one.
        let (mut path, mut parent) = (String::new(), NodeId::NONE);
        for (seen, id) in self.nodes.ids_from(from).enumerate() {
            let above = self.nodes.get(id).parent;
            if above == NodeId::NONE || above != parent {
                path = self.path(id);
                parent = above;
            } else {
                path.truncate(path.rfind('/').expect("a path begins with a slash") + 1);
                path.push_str(self.nodes.name(id));
            }
            if !each(&path, self.image(id)) || seen + 1 == limit {
                return Some(id.0 + 1);
            }
        }
        None
    }

    /// The image of one node.
    pub fn image(&self, id: NodeId) -> NodeImage<'_> {
        NodeImage { data: self.nodes.data(id), acl: self.acl(id), stat: self.nodes.persisted(id) }
    }

    /// Whether what is missing from a fuzzy image has been replayed: only then may the tree be served.
    ///
    /// # Errors
    /// What is missing.
    pub fn is_whole(&self) -> Result<(), String> {
        if self.last_applied < self.fuzzy_until {
            return Err(format!(
                "the snapshot holds parts of transactions up to {}, but the log ends at {}",
                self.fuzzy_until, self.last_applied
            ));
        }
        if self.placeholders > 0 {
            return Err(format!("{} nodes have children but were never made", self.placeholders));
        }
        Ok(())
    }

    fn child_or_placeholder(&mut self, parent: NodeId, path: &str) -> NodeId {
        let (_, name) = path::split(path).expect("a path begins with a slash");
        self.child(parent, name.as_bytes()).unwrap_or_else(|| {
            let stat = StatPersisted::new(Zxid::ZERO, 0, SessionId::NONE);
            let id = self.insert(parent, path, &NodeImage { data: None, acl: AclList::OPEN, stat });
            self.nodes.update(id, path, |node| node.placeholder = true);
            self.placeholders += 1;
            id
        })
    }

    /// The node becomes the one in `image`, in its place and with its children.
    pub(super) fn overwrite(&mut self, id: NodeId, path: &str, image: &NodeImage<'_>) {
        self.disown(id);
        self.placeholders -= usize::from(self.nodes.uncommon(id).placeholder);
        let acl = self.acls.intern(image.acl);
        let old = self.nodes.overwrite(id, path, image, acl);
        self.acls.release(old);
        self.own(id);
    }

    pub(super) fn remove_children(&mut self, id: NodeId) {
        let mut doomed = vec![id];
        let mut next = 0;
        while next < doomed.len() {
            doomed.extend(self.nodes.children(doomed[next]));
            next += 1;
        }
        // Children before their parents.
        doomed[1..].iter().rev().for_each(|id| self.remove(*id));
    }
}

/// A tree that is being put together from an image. Nothing is served from it before it is [finished](Builder::finish).
#[derive(Debug)]
pub struct Builder {
    tree: Tree,
    /// Where the node before was put: the next one mostly has the same parent. Nothing is removed here, so this stays right.
    last_parent: (String, NodeId),
}

impl Builder {
    /// Begins with the built-in nodes; for the seed see [`Tree::new`].
    pub fn new(seed: u64) -> Builder {
        Builder { tree: Tree::new(seed), last_parent: ("/".to_owned(), NodeId::ROOT) }
    }

    /// Makes room for so many nodes at once: growing to them step by step moves the index again and again.
    pub fn reserve(&mut self, nodes: usize) {
        self.tree.nodes.reserve(nodes);
        self.tree.index.reserve(nodes);
    }

    /// Puts a node of the image into its place. Parents that are not there yet become placeholders.
    ///
    /// # Errors
    /// What is wrong with the path.
    pub fn node(&mut self, path: &str, image: &NodeImage<'_>) -> Result<(), &'static str> {
        if !path::is_valid(path) {
            return Err("a node has an impossible path");
        }
        let (parent, name) = path::split(path).expect("a valid path begins with a slash");
        if name.is_empty() {
            self.tree.overwrite(NodeId::ROOT, path, image);
            return Ok(());
        }
        if self.last_parent.0 != parent {
            let ends = parent.bytes().enumerate().skip(1).filter(|(_, byte)| *byte == b'/').map(|(at, _)| at);
            let ends = ends.chain((parent != "/").then_some(parent.len()));
            let id = ends.fold(NodeId::ROOT, |at, end| self.tree.child_or_placeholder(at, &parent[..end]));
            self.last_parent = (parent.to_owned(), id);
        }
        let parent = self.last_parent.1;
        match self.tree.child(parent, name.as_bytes()) {
            Some(id) => self.tree.overwrite(id, path, image),
            None => _ = self.tree.insert(parent, path, image),
        }
        Ok(())
    }

    /// Notes an open session of the image.
    pub fn session(&mut self, session: SessionId, timeout_ms: i32) {
        self.tree.sessions.insert(session, timeout_ms);
    }

    /// The image is complete: what was applied up to `start` is in it as a whole, what was applied up to `end` in parts; then the tree had
    /// this digest, if that is known. The tree is to be served only when it [is whole](Tree::is_whole).
    pub fn finish(mut self, start: Zxid, end: Zxid, digest: Option<TreeDigest>) -> Tree {
        assert!(start <= end, "a walk does not end before it begins");
        self.tree.last_applied = start;
        self.tree.fuzzy_until = end;
        self.tree.at_fuzzy_end = digest;
        self.tree.find_quotas();
        self.tree.compare(None);
        self.tree
    }
}

#[cfg(test)]
mod tests {
    use super::super::digest::number;
    use super::*;
    use corral_proto::txn::CreateTxn;
    use corral_proto::{Jute, SubTxns, Txn, TxnEntry, TxnHeader, Xid};
    use proptest::prelude::*;

    /// Everything that can be known of a tree, in an order of its own.
    fn dump(tree: &Tree) -> (Vec<(String, String)>, String) {
        let (mut nodes, mut digest) = (Vec::new(), TreeDigest::default());
        tree.walk(0, usize::MAX, |path, image| {
            digest = digest.exchange(0, number(path, image.data, &image.stat));
            let id = tree.find(path).unwrap();
            nodes.push((path.to_owned(), format!("{image:?} {:?} {}", tree.stat(id), tree.below(id))));
            true
        });
        assert_eq!(digest, tree.digest());
        nodes.sort();
        let mut mortals: Vec<String> = tree.mortals(None).map(|id| tree.path(id)).collect();
        mortals.sort();
        let counted = (tree.ephemeral_count(), tree.bytes(), tree.digest());
        let rest = (tree.sessions(), tree.last_applied(), counted, mortals);
        (nodes, format!("{rest:?}"))
    }

    /// What a client might ask for; made into transactions that are right for the tree by [`decide`].
    #[derive(Clone, Debug)]
    enum Wish {
        Create { parent: usize, name: u8, ephemeral: bool, session: u8 },
        Delete(usize),
        Set(usize, u8),
        SetAcl(usize, bool),
        Close(u8),
        Open(u8),
        Both(Box<Wish>, Box<Wish>),
        Walk(usize),
    }

    fn wishes() -> impl Strategy<Value = Vec<Wish>> {
        let simple = prop_oneof![
            6 => (0..60usize, 0..8u8, prop::bool::weighted(0.3), 1..4u8)
                .prop_map(|(parent, name, ephemeral, session)| Wish::Create { parent, name, ephemeral, session }),
            5 => (0..60usize).prop_map(Wish::Delete),
            2 => (0..60usize, any::<u8>()).prop_map(|(at, data)| Wish::Set(at, data)),
            1 => (0..60usize, any::<bool>()).prop_map(|(at, open)| Wish::SetAcl(at, open)),
            1 => (1..4u8).prop_map(Wish::Close),
            1 => (1..4u8).prop_map(Wish::Open),
        ];
        let both = (simple.clone(), simple.clone()).prop_map(|(a, b)| Wish::Both(a.into(), b.into()));
        let wish = prop_oneof![8 => simple, 1 => both, 3 => (1..4usize).prop_map(Wish::Walk)];
        prop::collection::vec(wish, 1..150)
    }

    fn paths(tree: &Tree) -> Vec<String> {
        let mut paths = Vec::new();
        tree.walk(0, usize::MAX, |path, _| {
            paths.push(path.to_owned());
            true
        });
        paths.retain(|path| !path.starts_with("/zookeeper"));
        paths.sort();
        paths
    }

    /// The encoded body of the transaction that grants a wish, if it can be granted.
    fn decide(tree: &Tree, wish: &Wish) -> Option<(SessionId, Vec<u8>, corral_proto::OpCode)> {
        let all = paths(tree);
        let pick = |at: usize| all[at % all.len()].clone();
        let encoded = |session: u8, txn: Txn<'_>| Some((SessionId(session.into()), txn.to_vec(), txn.op()));
        match wish {
            Wish::Create { parent, name, ephemeral, session } => {
                let parent = pick(*parent);
                let id = tree.find(&parent).unwrap();
                let path = format!("{}/n{name}", if parent == "/" { "" } else { &parent });
                if tree.find(&path).is_some() || tree.stat(id).ephemeral_owner != SessionId::NONE {
                    return None;
                }
                let parent_cversion = tree.persisted(id).created + 1;
                let txn = CreateTxn {
                    path: &path,
                    data: Some(b"new"),
                    acl: AclList::OPEN,
                    ephemeral: *ephemeral,
                    parent_cversion,
                };
                let is_forever = CreateTxn { ephemeral: false, ..txn };
                match (ephemeral, session) {
                    (false, 2) => encoded(2, Txn::CreateContainer(is_forever)),
                    (false, 3) => encoded(3, Txn::CreateTtl(is_forever, 1000)),
                    _ => encoded(*session, Txn::Create(txn)),
                }
            }
            Wish::Delete(at) => {
                let path = pick(*at);
                let childless = tree.stat(tree.find(&path).unwrap()).num_children == 0;
                (path != "/" && childless).then(|| encoded(9, Txn::Delete { path: &path }))?
            }
            Wish::Set(at, data) => {
                let path = pick(*at);
                let version = tree.stat(tree.find(&path).unwrap()).version + 1;
                encoded(9, Txn::SetData { path: &path, data: Some(&[*data]), version })
            }
            Wish::SetAcl(at, open) => {
                let path = pick(*at);
                let version = tree.stat(tree.find(&path).unwrap()).aversion + 1;
                encoded(
                    9,
                    Txn::SetAcl { path: &path, acl: if *open { AclList::OPEN } else { AclList::READ_ONLY }, version },
                )
            }
            Wish::Close(session) => {
                let mut raw = Vec::new();
                let paths = tree.ephemerals(SessionId((*session).into()));
                paths.iter().for_each(|path| corral_proto::jute::put_string(&mut raw, path));
                let list = corral_proto::jute::StrList::from_encoded(paths.len() as u32, &raw);
                encoded(*session, Txn::CloseSession { paths: Some(list) })
            }
            Wish::Open(session) => encoded(*session, Txn::CreateSession { timeout_ms: 1000 }),
            Wish::Both(..) | Wish::Walk(_) => None,
        }
    }

    fn entry(zxid: i64, session: SessionId, op: corral_proto::OpCode, body: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        bytes.extend(session.0.to_be_bytes());
        bytes.extend(0i32.to_be_bytes());
        bytes.extend(zxid.to_be_bytes());
        bytes.extend((1000 + zxid).to_be_bytes());
        bytes.extend(op.code().to_be_bytes());
        bytes.extend(body);
        bytes
    }

    /// One image that is being taken: a node at a time, whenever a wish says so.
    struct Walk {
        start: Zxid,
        sessions: Vec<(SessionId, i32)>,
        nodes: Vec<(String, OwnedImage)>,
        next: Option<u32>,
    }

    struct OwnedImage {
        data: Option<Vec<u8>>,
        acl: Vec<u8>,
        image: NodeImage<'static>,
    }

    fn own(image: NodeImage<'_>) -> OwnedImage {
        let kept = NodeImage { data: None, acl: AclList::OPEN, stat: image.stat };
        OwnedImage { data: image.data.map(<[u8]>::to_vec), acl: image.acl.encoded().to_vec(), image: kept }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]

        /// The property that all the rules above are for: any interleaving of a walk and of transactions, restored and
        /// replayed, gives the tree that was walked over.
        #[test]
        fn a_fuzzy_image_and_a_replay_give_the_exact_tree(wishes in wishes(), begin in 0..40usize) {
            let mut tree = Tree::new(1);
            let mut log: Vec<Vec<u8>> = Vec::new();
            let mut walk: Option<Walk> = None;
            let mut apply = |tree: &mut Tree, session, op, body: &[u8]| {
                let bytes = entry(log.len() as i64 + 1, session, op, body);
                tree.apply(&TxnEntry::decode(&bytes).unwrap(), None);
                log.push(bytes);
            };
            for (step, wish) in wishes.iter().enumerate() {
                if step == begin {
                    let sessions = tree.sessions().iter().map(|(id, timeout)| (*id, *timeout)).collect();
                    walk = Some(Walk { start: tree.last_applied(), sessions, nodes: vec![], next: Some(0) });
                }
                match wish {
                    Wish::Walk(limit) => {
                        if let Some(Walk { nodes, next: next @ Some(_), .. }) = &mut walk {
                            *next = tree.walk(next.unwrap(), *limit, |path, image| {
                                nodes.push((path.to_owned(), own(image)));
                                true
                            });
                        }
                    }
                    Wish::Both(one, two) => {
                        // As a multi: the second is decided on a tree that has the first.
                        if let Some((session, first, op)) = decide(&tree, one) {
                            let mut raw = Vec::new();
                            let bytes = entry(0, session, op, &first);
                            SubTxns::push(&mut raw, &TxnEntry::decode(&bytes).unwrap().txn);
                            let is_session = matches!(op, corral_proto::OpCode::CreateSession | corral_proto::OpCode::CloseSession);
                            if !is_session {
                                apply(&mut tree, session, corral_proto::OpCode::Multi, &Txn::Multi(SubTxns::from_encoded(1, &raw)).to_vec());
                            }
                        }
                        if let Some((session, body, op)) = decide(&tree, two) {
                            apply(&mut tree, session, op, &body);
                        }
                    }
                    wish => {
                        if let Some((session, body, op)) = decide(&tree, wish) {
                            apply(&mut tree, session, op, &body);
                        }
                    }
                }
            }
            let Some(mut walk) = walk else { return Ok(()) };
            while let Some(from) = walk.next {
                let nodes = &mut walk.nodes;
                walk.next = tree.walk(from, 1, |path, image| {
                    nodes.push((path.to_owned(), own(image)));
                    true
                });
            }
            let mut restored = Builder::new(2);
            walk.sessions.iter().for_each(|(id, timeout)| restored.session(*id, *timeout));
            for (path, owned) in &walk.nodes {
                let acl = AclList::from_encoded(&owned.acl).unwrap();
                let image = NodeImage { data: owned.data.as_deref(), acl, ..owned.image };
                restored.node(path, &image).unwrap();
            }
            let mut restored = restored.finish(walk.start, tree.last_applied(), Some(tree.digest()));
            for bytes in &log[walk.start.0 as usize..] {
                restored.apply(&TxnEntry::decode(bytes).unwrap(), None);
            }
            prop_assert_eq!(restored.is_whole(), Ok(()));
            prop_assert_eq!((restored.difference(), restored.differences()), (None, 0));
            prop_assert_eq!(dump(&restored), dump(&tree));
        }
    }

    #[test]
    fn a_tree_whose_log_is_too_short_is_not_whole() {
        let mut tree = Builder::new(1).finish(Zxid(3), Zxid(5), None);
        assert!(tree.is_whole().unwrap_err().contains("0x5"));
        let header = TxnHeader { session: SessionId(1), cxid: Xid(1), zxid: Zxid(5), time_ms: 0 };
        tree.apply(&TxnEntry { header, txn: Txn::Error(-101), digest: None }, None);
        assert_eq!(tree.is_whole(), Ok(()));
    }
}
