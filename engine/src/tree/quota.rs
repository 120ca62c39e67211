//! Quotas: how many nodes and bytes there are below a path, and how many there may be.
//!
//! As Apache ZooKeeper has it, a quota is two nodes that clients make below `/zookeeper/quota` and the path: `zookeeper_limits` says what is
//! allowed, `zookeeper_stats` is kept up by the tree itself, without a version, a time or an event. Only the deepest quota above a node
//! counts it. What is there is counted anew when a quota's stats are made, and after a restore.
//!
//! **Invariant**: the set holds exactly the paths whose limits node is in the tree.
//!
//! **Not here**: refusing what a quota does not allow (the sequencer, with [`Tree::quota`]).

use super::{NodeId, Tree};
use std::collections::BTreeSet;

/// Where quotas lie.
const ROOT: &str = "/zookeeper/quota";
/// What is allowed.
const LIMITS: &str = "zookeeper_limits";
/// What there is.
const STATS: &str = "zookeeper_stats";

/// Nodes and bytes of data: how many there are, or may be. -1 is any number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Track {
    /// Nodes.
    pub count: i64,
    /// Bytes of their data.
    pub bytes: i64,
    /// Nodes that there may be and no more.
    pub count_hard: i64,
    /// Bytes, likewise.
    pub bytes_hard: i64,
}

impl Track {
    const ANY: Track = Track { count: -1, bytes: -1, count_hard: -1, bytes_hard: -1 };

    /// Reads `count=3,bytes=10=;byteHardLimit=20;countHardLimit=5`, or part of that; what cannot be read is none (Apache's `StatsTrack`).
    fn parse(data: &[u8]) -> Option<Track> {
        let mut track = Track::ANY;
        for pair in str::from_utf8(data).ok()?.split([',', ';']).filter(|pair| !pair.is_empty()) {
            let mut parts = pair.split('=');
            let (key, value) = (parts.next()?, parts.next()?);
            let value = if value.is_empty() { -1 } else { value.parse().ok()? };
            match key {
                "count" => track.count = value,
                "bytes" => track.bytes = value,
                "countHardLimit" => track.count_hard = value,
                "byteHardLimit" => track.bytes_hard = value,
                _ => {}
            }
        }
        Some(track)
    }

    fn stats(count: i64, bytes: i64) -> String {
        format!("count={count},bytes={bytes}")
    }
}

/// The quota that a path is under.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quota<'a> {
    /// Of which path.
    pub path: &'a str,
    /// What is allowed.
    pub limits: Track,
    /// What there is.
    pub stats: Track,
}

/// The paths that have a quota.
pub(super) type Quotas = BTreeSet<Box<str>>;

/// The path whose quota this node is a part of, and which part.
fn part(path: &str) -> Option<(&str, &str)> {
    // That of the root counts nothing.
    path.strip_prefix(ROOT)?.rsplit_once('/').filter(|(of, _)| !of.is_empty())
}

impl Tree {
    /// The quota that a node at `path` counts for, if both its nodes can be read.
    pub fn quota<'a>(&self, path: &'a str) -> Option<Quota<'a>> {
        let of = self.quota_path(path)?;
        let read = |part| Track::parse(self.data(self.find(&format!("{ROOT}{of}/{part}"))?)?);
        Some(Quota { path: of, limits: read(LIMITS)?, stats: read(STATS)? })
    }

    /// The deepest path with a quota, this one or one above it.
    fn quota_path<'a>(&self, path: &'a str) -> Option<&'a str> {
        if self.quotas.is_empty() {
            return None;
        }
        let above = std::iter::successors(Some(path), |path| path.rsplit_once('/').map(|(above, _)| above));
        above
            .take_while(|path| !path.is_empty())
            .find(|path| self.quotas.contains(*path))
            .filter(|of| *of != "/zookeeper")
    }

    /// A node has come.
    pub(super) fn quota_created(&mut self, path: &str, data: Option<&[u8]>) {
        match part(path) {
            Some((of, LIMITS)) => _ = self.quotas.insert(of.into()),
            Some((of, STATS)) => self.count_for_quota(of),
            _ => {}
        }
        self.quota_changed(path, 1, data.map_or(0, <[u8]>::len) as i64);
    }

    /// A node that had so many bytes of data is gone.
    pub(super) fn quota_deleted(&mut self, path: &str, bytes: usize) {
        if let Some((of, LIMITS)) = part(path) {
            self.quotas.remove(of);
        }
        self.quota_changed(path, -1, -(bytes as i64));
    }

    /// There are so many nodes and bytes more.
    pub(super) fn quota_changed(&mut self, path: &str, count: i64, bytes: i64) {
        let Some(of) = self.quota_path(path) else { return };
        let Some(id) = self.find(&format!("{ROOT}{of}/{STATS}")) else { return };
        let Some(stats) = self.data(id).and_then(Track::parse) else { return };
        let text = Track::stats(stats.count.wrapping_add(count), stats.bytes.wrapping_add(bytes));
        self.nodes.replace_data(id, text.as_bytes());
    }

    /// Writes down how many nodes and bytes there are.
    fn count_for_quota(&mut self, of: &str) {
        let Some(id) = self.find(&format!("{ROOT}{of}/{STATS}")) else { return };
        let (mut count, mut bytes) = (0, 0);
        let mut ahead: Vec<NodeId> = self.find(of).into_iter().collect();
        while let Some(at) = ahead.pop() {
            count += 1;
            bytes += self.data(at).map_or(0, <[u8]>::len) as i64;
            ahead.extend(self.nodes.children(at));
        }
        self.nodes.replace_data(id, Track::stats(count, bytes).as_bytes());
    }

    /// Finds all quotas, and counts for each: after a restore, when the tree is whole.
    pub(super) fn find_quotas(&mut self) {
        self.quotas.clear();
        let mut ahead: Vec<NodeId> = self.find(ROOT).into_iter().collect();
        while let Some(at) = ahead.pop() {
            if self.nodes.name(at) == LIMITS
                && let Some((of, LIMITS)) = part(&self.path(at))
            {
                self.quotas.insert(of.into());
            }
            ahead.extend(self.nodes.children(at));
        }
        for of in self.quotas.clone() {
            self.count_for_quota(&of);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::image::Builder;
    use super::super::tests::apply;
    use super::*;
    use corral_proto::txn::CreateTxn;
    use corral_proto::{AclList, Txn};

    fn with_data<'a>(path: &'a str, data: &'a [u8]) -> Txn<'a> {
        Txn::Create(CreateTxn { path, data: Some(data), acl: AclList::OPEN, ephemeral: false, parent_cversion: -1 })
    }

    /// Makes nodes one after the other.
    fn grow(tree: &mut Tree, nodes: &[(&str, &[u8])]) {
        for (path, data) in nodes {
            apply(tree, tree.last_applied().0 + 1, with_data(path, data));
        }
    }

    fn said(tree: &Tree, path: &str) -> String {
        String::from_utf8(tree.data(tree.find(path).unwrap()).unwrap().to_vec()).unwrap()
    }

    const STATS_OF_A: &str = "/zookeeper/quota/a/zookeeper_stats";

    fn with_quota() -> Tree {
        let mut tree = Tree::new(1);
        grow(
            &mut tree,
            &[
                ("/a", b"12"),
                ("/a/b", b"345"),
                ("/zookeeper/quota/a", b""),
                ("/zookeeper/quota/a/zookeeper_limits", b"count=5,bytes=-1=;byteHardLimit=;countHardLimit=9"),
                (STATS_OF_A, b"count=0,bytes=0"),
            ],
        );
        tree
    }

    #[test]
    fn what_there_is_is_counted_at_once_and_kept_up() {
        let mut tree = with_quota();
        assert_eq!(said(&tree, STATS_OF_A), "count=2,bytes=5");
        let before = tree.stat(tree.find(STATS_OF_A).unwrap());
        grow(&mut tree, &[("/a/c", b"6"), ("/ab", b"no part of it")]);
        assert_eq!(said(&tree, STATS_OF_A), "count=3,bytes=6");
        let next = tree.last_applied().0 + 1;
        apply(&mut tree, next, Txn::SetData { path: "/a", data: None, version: 1 });
        assert_eq!(said(&tree, STATS_OF_A), "count=3,bytes=4");
        apply(&mut tree, next + 1, Txn::Delete { path: "/a/b" });
        assert_eq!(said(&tree, STATS_OF_A), "count=2,bytes=1");
        let quota = tree.quota("/a/x/y").unwrap();
        assert_eq!((quota.path, quota.limits), ("/a", Track { count: 5, count_hard: 9, ..Track::ANY }));
        assert_eq!((quota.stats.count, quota.stats.bytes), (2, 1));
        let after = tree.stat(tree.find(STATS_OF_A).unwrap());
        assert_eq!((after.version, after.mzxid, after.mtime), (before.version, before.mzxid, before.mtime), "silently");
    }

    #[test]
    fn the_deepest_counts_until_its_limits_are_gone() {
        let mut tree = with_quota();
        grow(
            &mut tree,
            &[
                ("/zookeeper/quota/a/b", b""),
                ("/zookeeper/quota/a/b/zookeeper_limits", b"count=1"),
                ("/zookeeper/quota/a/b/zookeeper_stats", b""),
                ("/a/b/c", b"x"),
            ],
        );
        assert_eq!(said(&tree, "/zookeeper/quota/a/b/zookeeper_stats"), "count=2,bytes=4");
        assert_eq!(said(&tree, STATS_OF_A), "count=2,bytes=5", "as Apache has it, the deepest only");
        let next = tree.last_applied().0 + 1;
        apply(&mut tree, next, Txn::Delete { path: "/zookeeper/quota/a/b/zookeeper_limits" });
        grow(&mut tree, &[("/a/b/d", b"y")]);
        assert_eq!(said(&tree, STATS_OF_A), "count=3,bytes=6");
        assert_eq!(tree.quota("/a/b").map(|quota| quota.path), Some("/a"));
    }

    #[test]
    fn garbage_is_harmless_and_a_quota_of_the_root_is_none() {
        let mut tree = Tree::new(1);
        grow(
            &mut tree,
            &[
                ("/zookeeper/quota/zookeeper_limits", b"count=1"),
                ("/zookeeper/quota/zookeeper_stats", b"count=1"),
                ("/zookeeper/quota/a", b""),
                ("/zookeeper/quota/a/zookeeper_limits", b"\xff\xfe"),
                (STATS_OF_A, b""),
                ("/a", b"12"),
            ],
        );
        assert_eq!((tree.quota("/b"), tree.quota("/a")), (None, None));
        assert_eq!(said(&tree, STATS_OF_A), "count=1,bytes=2");
        let next = tree.last_applied().0 + 1;
        apply(&mut tree, next, Txn::SetData { path: STATS_OF_A, data: Some(b"count=one"), version: 1 });
        grow(&mut tree, &[("/a/b", b"3")]);
        assert_eq!(said(&tree, STATS_OF_A), "count=one");
        apply(&mut tree, next + 2, Txn::Delete { path: STATS_OF_A });
        grow(&mut tree, &[("/a/c", b"3")]);
    }

    #[test]
    fn a_restored_tree_has_counted_anew() {
        let mut tree = with_quota();
        let next = tree.last_applied().0 + 1;
        apply(&mut tree, next, Txn::SetData { path: STATS_OF_A, data: Some(b"count=77,bytes=77"), version: 1 });
        let mut restored = Builder::new(2);
        tree.walk(0, usize::MAX, |path, image| restored.node(path, &image).is_ok());
        let mut restored = restored.finish(tree.last_applied(), tree.last_applied(), Some(tree.digest()));
        assert_eq!(said(&restored, STATS_OF_A), "count=2,bytes=5");
        grow(&mut restored, &[("/a/c", b"6")]);
        assert_eq!((said(&restored, STATS_OF_A).as_str(), restored.difference()), ("count=3,bytes=6", None));
    }

    #[test]
    fn a_track_is_read_as_apache_reads_it() {
        for (text, track) in [
            ("", Some(Track::ANY)),
            ("count=3,bytes=4", Some(Track { count: 3, bytes: 4, ..Track::ANY })),
            (
                "count=3,bytes=4=;byteHardLimit=5;countHardLimit=6",
                Some(Track { count: 3, bytes: 4, count_hard: 6, bytes_hard: 5 }),
            ),
            ("bytes==5;;other=7", Some(Track::ANY)),
            ("count", None),
            ("count=x", None),
            ("count=9223372036854775808", None),
        ] {
            assert_eq!(Track::parse(text.as_bytes()), track, "{text}");
        }
    }
}
