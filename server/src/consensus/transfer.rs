//! A history on its way to a learner: a stretch of the log as packets ([`read_stretch`]), or the tree, in the form of Apache's own
//! snapshot stream, which is taken apart again where it arrives.
//!
//! A walk goes down from the root, parents before their children as the form wants it, and looks at a few nodes at a time while
//! transactions go on. The image is as fuzzy as any other ([`corral_engine::tree::image`]); the learner is sent every transaction
//! after the one at which the walk began. Nodes that were made later than that are left out on both sides: the transaction that
//! makes them follows, and their access control list may not be in the stream's table, which stands before the nodes.
//!
//! **Invariants**: memory is bounded by the names on the way from the root to where the walk is, with their siblings; nothing of
//! what arrives is believed before its end has come.
//!
//! **Not here**: threads and sockets ([`crate::process`]), which learner needs this ([`crate::consensus::sync`]).

use crate::consensus::stretch::{Stretch, Walk};
use corral_engine::Tree;
use corral_engine::tree::image::{Builder, NodeImage};
use corral_engine::txnlog::Excerpt;
use corral_proto::jute::Decoder;
use corral_proto::peer::snapshot::{OPEN_ACL, Parser, Piece};
use corral_proto::peer::{Packet, PacketKind, Parsed};
use corral_proto::{AclList, Jute, StatPersisted, Zxid};
use std::collections::BTreeMap;
use std::path::Path;

/// Why a stretch of the log was not sent to its end.
#[derive(Debug)]
pub enum Stopped<E> {
    /// The log does not have it: one line.
    Lacking(String),
    /// A packet could not be sent.
    Unsent(E),
}

/// Reads a stretch of the log in `dir`, which may be in use, and gives what the learner is to be sent to `send`, packet by packet.
///
/// # Errors
/// See [`Stopped`]; what was sent until then is nothing that a learner takes for a history.
pub fn read_stretch<E>(
    dir: &Path,
    stretch: Stretch,
    mut send: impl FnMut(Packet<'_>) -> Result<(), E>,
) -> Result<Walk, Stopped<E>> {
    let failed = |error: corral_engine::StorageError| Stopped::Lacking(error.to_string());
    let mut excerpt = Excerpt::open(dir, stretch.have).map_err(failed)?;
    let mut walk = Walk::new(stretch, excerpt.last());
    while !walk.is_complete() {
        let mut went = Ok(());
        let more = excerpt.next_batch(|record| {
            let zxid = record.entry.header.zxid;
            if went.is_ok() {
                went = walk.next(zxid, record.bytes).map_err(Stopped::Lacking).and_then(|step| {
                    let proposal = Packet::with(PacketKind::Proposal, zxid, record.bytes);
                    let commit = Packet::about(PacketKind::Commit, zxid);
                    let first = step.first.map_or(Ok(()), |first| send(Packet::about(first.kind, first.zxid)));
                    let sent = first
                        .and_then(|()| if step.send { send(proposal).and_then(|()| send(commit)) } else { Ok(()) });
                    sent.map_err(Stopped::Unsent)
                });
            }
        });
        went?;
        if !more.map_err(failed)? {
            break;
        }
    }
    if let Some(first) = walk.end().map_err(Stopped::Lacking)? {
        send(Packet::about(first.kind, first.zxid)).map_err(Stopped::Unsent)?;
    }
    Ok(walk)
}

/// A tree that is being sent.
pub struct Departure {
    start: Zxid,
    acls: BTreeMap<Vec<u8>, i64>,
    /// The names of the children that are still to be visited, encoded, of each node on the way down: its path, how many, and the
    /// bytes and where in them.
    way: Vec<Level>,
    begun: bool,
}

struct Level {
    path: String,
    left: u32,
    names: Vec<u8>,
    at: usize,
}

impl Departure {
    /// Begins with the tree as it is, which has everything up to `start`: its sessions and lists are the first bytes in `out`.
    pub fn new(tree: &Tree, start: Zxid, out: &mut Vec<u8>) -> Departure {
        Piece::Sessions(tree.sessions().len() as u32).encode(out);
        tree.sessions().iter().for_each(|(id, timeout_ms)| Piece::Session(*id, *timeout_ms).encode(out));
        let lists = tree.acl_lists().filter(|list| AclList::OPEN.encoded() != &list[..]);
        let acls: BTreeMap<Vec<u8>, i64> = lists.map(|list| list.to_vec()).zip(1..).collect();
        Piece::Acls(acls.len() as u32).encode(out);
        for (list, number) in &acls {
            Piece::Acl(*number, AclList::from_encoded(list).expect("the tree's own list")).encode(out);
        }
        Departure { start, acls, way: Vec::new(), begun: false }
    }

    /// Adds up to `limit` nodes, or `bytes` bytes of them, to `out`. False after the last one.
    pub fn step(&mut self, tree: &Tree, limit: usize, bytes: usize, out: &mut Vec<u8>) -> bool {
        let full = out.len() + bytes;
        if !std::mem::replace(&mut self.begun, true) {
            self.visit(tree, "/".to_owned(), out);
        }
        for _ in 0..limit {
            if out.len() >= full {
                return true;
            }
            let Some(level) = self.way.last_mut() else {
                Piece::NodesEnd.encode(out);
                Piece::Signature.encode(out);
                return false;
            };
            if level.left == 0 {
                self.way.pop();
                continue;
            }
            level.left -= 1;
            let mut names = Decoder::new(&level.names[level.at..]);
            let name = names.ustring().expect("the tree's own names").unwrap_or_default();
            let path = format!("{}/{name}", if level.path == "/" { "" } else { &level.path });
            level.at = level.names.len() - names.rest().len();
            self.visit(tree, path, out);
        }
        true
    }

    fn visit(&mut self, tree: &Tree, path: String, out: &mut Vec<u8>) {
        let Some(id) = tree.find(&path) else { return };
        let image = tree.image(id);
        if image.stat.czxid > self.start {
            return;
        }
        // A list that is newer than the table comes with the transaction that has set it.
        let acl = self.acls.get(image.acl.encoded()).copied().unwrap_or(OPEN_ACL);
        let written = if path == "/" { "" } else { &path };
        Piece::Node { path: written, data: image.data, acl, stat: image.stat }.encode(out);
        let mut names = Vec::new();
        let left = tree.children(id, &mut names);
        if left > 0 {
            self.way.push(Level { path, left, names, at: 0 });
        }
    }
}

/// A tree that is arriving.
pub struct Arrival {
    start: Zxid,
    parser: Parser,
    acls: BTreeMap<i64, Vec<u8>>,
    builder: Builder,
}

impl Arrival {
    /// The image of transaction `start`; a piece of more than `piece_max` bytes is an error. For the seed see [`Tree::new`].
    pub fn new(start: Zxid, piece_max: usize, seed: u64) -> Arrival {
        Arrival { start, parser: Parser::new(piece_max), acls: BTreeMap::new(), builder: Builder::new(seed) }
    }

    /// Takes what can be taken of `bytes`; how many they were. Those that are left are to come again with more behind them.
    ///
    /// # Errors
    /// One line: this is no snapshot.
    pub fn take(&mut self, bytes: &[u8]) -> Result<usize, String> {
        let mut used = 0;
        while !self.parser.is_done() {
            match self.parser.next(&bytes[used..]).map_err(|error| error.to_string())? {
                Parsed::Short => break,
                Parsed::Whole(piece, len) => {
                    used += len;
                    match piece {
                        Piece::Session(id, timeout_ms) => self.builder.session(id, timeout_ms),
                        Piece::Acl(number, list) => _ = self.acls.insert(number, list.encoded().to_vec()),
                        Piece::Node { path, data, acl, stat } if stat.czxid <= self.start => {
                            node(&mut self.builder, &self.acls, path, data, acl, stat)?;
                        }
                        _ => {}
                    }
                }
            }
        }
        Ok(used)
    }

    /// Whether all of it has come.
    pub fn is_complete(&self) -> bool {
        self.parser.is_done()
    }

    /// The tree, once it is complete.
    pub fn finish(self) -> Tree {
        assert!(self.is_complete(), "a part of a snapshot is none");
        let mut tree = self.builder.finish(self.start, self.start, None);
        // Its leader has gone on while it was sent.
        tree.set_fuzzy(true);
        tree
    }
}

/// Whether the history behind `theirs` can be one that went on from the history behind `own`: some node is in both since the same
/// transaction, or there is none that could be. (One that has deleted every node since is not recognized.)
pub fn knows(theirs: &Tree, own: &Tree) -> bool {
    let (mut is_known, mut has_any) = (false, false);
    own.walk(0, usize::MAX, |path, image| {
        if image.stat.czxid > Zxid::ZERO {
            has_any = true;
            is_known = theirs.find(path).is_some_and(|id| theirs.stat(id).czxid == image.stat.czxid);
        }
        !is_known
    });
    is_known || !has_any
}

fn node(
    builder: &mut Builder,
    acls: &BTreeMap<i64, Vec<u8>>,
    path: &str,
    data: Option<&[u8]>,
    acl: i64,
    stat: StatPersisted,
) -> Result<(), String> {
    let acl = match acls.get(&acl) {
        Some(list) => AclList::from_encoded(list).expect("checked when it came"),
        None => AclList::OPEN,
    };
    let path = if path.is_empty() { "/" } else { path };
    builder.node(path, &NodeImage { data, acl, stat }).map_err(|why| format!("{path:?}: {why}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use corral_proto::txn::CreateTxn;
    use corral_proto::{SessionId, Txn, TxnEntry, TxnHeader, Xid};

    fn apply(tree: &mut Tree, zxid: i64, txn: Txn<'_>) {
        let header = TxnHeader { session: SessionId(7), cxid: Xid(0), zxid: Zxid(zxid), time_ms: 1000 + zxid };
        tree.apply(&TxnEntry { header, txn, digest: None }, None);
    }

    fn create(path: &'static str, acl: AclList<'static>, parent_cversion: i32) -> Txn<'static> {
        Txn::Create(CreateTxn { path, data: Some(b"data"), acl, ephemeral: path.contains("eph"), parent_cversion })
    }

    fn dump(tree: &Tree) -> Vec<String> {
        let mut nodes = Vec::new();
        tree.walk(0, usize::MAX, |path, image| {
            nodes.push(format!("{path} {image:?}"));
            true
        });
        nodes.sort();
        nodes
    }

    fn small() -> Tree {
        let mut tree = Tree::new(1);
        apply(&mut tree, 1, Txn::CreateSession { timeout_ms: 9000 });
        apply(&mut tree, 2, create("/a", AclList::READ_ONLY, 1));
        apply(&mut tree, 3, create("/a/eph", AclList::OPEN, 1));
        apply(&mut tree, 4, create("/b", AclList::OPEN, 2));
        tree
    }

    #[test]
    fn a_tree_arrives_as_it_left_however_it_is_cut() {
        let tree = small();
        let mut bytes = Vec::new();
        let mut departure = Departure::new(&tree, Zxid(4), &mut bytes);
        while departure.step(&tree, 1, 1, &mut bytes) {}
        for chunk in [1, 7, bytes.len()] {
            let mut arrival = Arrival::new(Zxid(4), 1 << 20, 2);
            let (mut have, mut used) = (0, 0);
            while !arrival.is_complete() {
                have = (have + chunk).min(bytes.len());
                used += arrival.take(&bytes[used..have]).unwrap();
            }
            assert_eq!(used, bytes.len());
            let arrived = arrival.finish();
            assert_eq!(dump(&arrived), dump(&tree));
            assert_eq!((arrived.sessions(), arrived.last_applied()), (tree.sessions(), Zxid(4)));
            assert_eq!(arrived.ephemeral_count(), 1);
        }
    }

    #[test]
    fn what_happens_while_it_is_sent_follows_as_transactions() {
        let mut tree = small();
        let mut bytes = Vec::new();
        let mut departure = Departure::new(&tree, Zxid(4), &mut bytes);
        departure.step(&tree, 2, 1 << 20, &mut bytes);
        let later = [
            (5, Txn::Delete { path: "/b" }),
            (6, create("/b", AclList::READ_ONLY, 3)),
            (7, create("/b/c", AclList::OPEN, 1)),
            (8, Txn::SetAcl { path: "/a", acl: AclList::OPEN, version: 1 }),
            (9, Txn::SetData { path: "/a", data: None, version: 1 }),
        ];
        later.iter().for_each(|(zxid, txn)| apply(&mut tree, *zxid, *txn));
        while departure.step(&tree, 1, 1 << 20, &mut bytes) {}
        let mut arrival = Arrival::new(Zxid(4), 1 << 20, 2);
        assert_eq!(arrival.take(&bytes), Ok(bytes.len()));
        let mut arrived = arrival.finish();
        later.iter().for_each(|(zxid, txn)| apply(&mut arrived, *zxid, *txn));
        assert_eq!(dump(&arrived), dump(&tree));
    }

    #[test]
    fn a_history_that_went_on_knows_where_it_came_from_and_another_does_not() {
        let (empty, own, mut later, mut other) = (Tree::new(1), small(), small(), Tree::new(1));
        apply(&mut later, 5, Txn::Delete { path: "/b" });
        apply(&mut other, 1, create("/b", AclList::OPEN, 1));
        apply(&mut other, 2, create("/other", AclList::OPEN, 2));
        assert!(knows(&later, &own) && knows(&own, &empty));
        assert!(!knows(&other, &own) && !knows(&empty, &own));
    }

    #[test]
    fn what_is_no_snapshot_is_an_error() {
        let mut arrival = Arrival::new(Zxid(4), 100, 1);
        assert!(arrival.take(&[0xff; 200]).is_err());
    }
}
