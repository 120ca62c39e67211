//! What is asked: which operation, on which node, with which value.
//!
//! One [`Workload`] is shared by all threads and holds what never changes: the names of the key space and a pool of
//! random bytes that values are cut from (random, so that a disk or file system that compresses gains nothing). Each
//! connection has its own [`Asker`] with its own generator, so a seed fixes what every connection asks, in whichever
//! thread it lives and however fast it is answered.
//!
//! **Invariants**: [`Asker::next`] does not allocate.
//!
//! **Not here**: when to ask ([`super::plan`]), creating and removing the nodes ([`super::setup`]).

use clap::ValueEnum;
use corral_proto::acl::{encode_acls, perms};
use corral_proto::request::{CreateRequest, PathWatch, SetDataRequest};
use corral_proto::{Acl, AclList, Request};
use rand::rngs::SmallRng;
use rand::{Rng, RngCore, SeedableRng};
use serde::Serialize;
use std::fmt::Write;

/// Which operations a run consists of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Mix {
    /// Write new values into existing nodes.
    Set,
    /// Read existing nodes.
    Get,
    /// Make new nodes.
    Create,
    /// Get and set, see --read-ratio.
    Mixed,
}

impl Mix {
    /// Whether it works on a key space that must be there before.
    pub(crate) fn needs_keys(self) -> bool {
        self != Mix::Create
    }

    /// The word on the command line.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Mix::Set => "set",
            Mix::Get => "get",
            Mix::Create => "create",
            Mix::Mixed => "mixed",
        }
    }
}

/// One operation, as reports name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[allow(missing_docs, reason = "the names say it")]
pub(crate) enum Operation {
    Set,
    Get,
    Create,
}

impl Operation {
    /// All of them, in the order of their numbers.
    pub(crate) const ALL: [Operation; 3] = [Operation::Set, Operation::Get, Operation::Create];

    /// The word in reports.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Operation::Set => "set",
            Operation::Get => "get",
            Operation::Create => "create",
        }
    }
}

/// Bytes of random material beyond one value: the cut point of a value moves within it.
const POOL_SLACK: usize = 1 << 16;
const DIGITS: usize = 10;

/// What all connections share.
#[derive(Debug)]
pub(crate) struct Workload {
    mix: Mix,
    read_ratio: f64,
    root: String,
    keys: usize,
    /// The paths of all keys, one after the other, all of the same length.
    paths: String,
    value_size: usize,
    pool: Vec<u8>,
    /// Who the clients are, as `user:password`.
    identity: Option<String>,
    /// Who may do what with its nodes, encoded.
    acl: Vec<u8>,
}

impl Workload {
    /// A workload on `keys` nodes below `root`, with values of `value_size` bytes.
    pub(crate) fn new(mix: Mix, read_ratio: f64, root: &str, keys: usize, value_size: usize, seed: u64) -> Workload {
        let mut paths = String::new();
        let named = if mix.needs_keys() { keys } else { 0 };
        for key in 0..named {
            write!(paths, "{root}/k{key:0DIGITS$}").expect("a string grows");
        }
        let mut pool = vec![0; value_size + POOL_SLACK];
        SmallRng::seed_from_u64(seed).fill_bytes(&mut pool);
        let acl = AclList::OPEN.encoded().to_vec();
        Workload { mix, read_ratio, root: root.to_owned(), keys: named, paths, value_size, pool, identity: None, acl }
    }

    /// The same by clients who are this `user:password`, and on nodes that are theirs alone.
    pub(crate) fn by(self, identity: &str) -> Workload {
        let acl = encode_acls(std::iter::once(Acl { perms: perms::ALL, scheme: Some("auth"), id: Some("") }));
        Workload { identity: Some(identity.to_owned()), acl, ..self }
    }

    /// Who the clients are, if they are anybody.
    pub(crate) fn identity(&self) -> Option<&str> {
        self.identity.as_deref()
    }

    /// The parent of everything.
    pub(crate) fn root(&self) -> &str {
        &self.root
    }

    /// How many keys there are (none for [`Mix::Create`]).
    pub(crate) fn keys(&self) -> usize {
        self.keys
    }

    /// The path of a key.
    pub(crate) fn key_path(&self, key: usize) -> &str {
        let len = self.paths.len() / self.keys;
        &self.paths[key * len..][..len]
    }

    /// The request that makes a key before the run.
    pub(crate) fn create_key(&self, key: usize) -> Request<'_> {
        self.create(self.key_path(key), &self.pool[key % POOL_SLACK..][..self.value_size])
    }

    /// The parent of the nodes that connection `index` makes: one each, so that the list of its children, which is
    /// needed to remove them, stays of bearable length.
    pub(crate) fn nursery(&self, index: usize) -> String {
        format!("{}/c{index:05}", self.root)
    }

    fn create<'a>(&'a self, path: &'a str, value: &'a [u8]) -> Request<'a> {
        let acl = AclList::from_encoded(&self.acl).expect("encoded here");
        Request::Create(CreateRequest { path, data: Some(value), acl, flags: 0 })
    }
}

/// What one connection asks, request by request.
#[derive(Debug)]
pub(crate) struct Asker {
    rng: SmallRng,
    /// The path of the next node to make, edited in place: its last digits are a counter.
    path: Vec<u8>,
}

impl Asker {
    /// The asker of connection `index`.
    pub(crate) fn new(workload: &Workload, index: usize, seed: u64) -> Asker {
        let path = format!("{}/n{:0DIGITS$}", workload.nursery(index), 0).into_bytes();
        Asker { rng: SmallRng::seed_from_u64(seed.wrapping_add(index as u64)), path }
    }

    /// The next request.
    pub(crate) fn next<'a>(&'a mut self, workload: &'a Workload) -> (Operation, Request<'a>) {
        let read = match workload.mix {
            Mix::Get => true,
            Mix::Mixed => self.rng.random::<f64>() < workload.read_ratio,
            Mix::Set | Mix::Create => false,
        };
        if read {
            let path = workload.key_path(self.rng.random_range(0..workload.keys));
            return (Operation::Get, Request::GetData(PathWatch { path, watch: false }));
        }
        let value = &workload.pool[self.rng.random_range(0..POOL_SLACK)..][..workload.value_size];
        if workload.mix == Mix::Create {
            count_up(&mut self.path);
            let path = str::from_utf8(&self.path).expect("digits are UTF-8");
            return (Operation::Create, workload.create(path, value));
        }
        let path = workload.key_path(self.rng.random_range(0..workload.keys));
        (Operation::Set, Request::SetData(SetDataRequest { path, data: Some(value), version: -1 }))
    }
}

/// Adds one to the decimal number at the end of `path`; after the largest one comes zero.
fn count_up(path: &mut [u8]) {
    for digit in path.iter_mut().rev().take(DIGITS) {
        if *digit < b'9' {
            *digit += 1;
            return;
        }
        *digit = b'0';
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sets_and_gets(workload: &Workload, count: usize, seed: u64) -> (usize, usize) {
        let mut asker = Asker::new(workload, 0, seed);
        let gets = (0..count).filter(|_| asker.next(workload).0 == Operation::Get).count();
        (count - gets, gets)
    }

    #[test]
    fn a_mix_has_its_ratio() {
        let of = |ratio| sets_and_gets(&Workload::new(Mix::Mixed, ratio, "/r", 10, 5, 1), 10_000, 1);
        assert_eq!((of(0.0), of(1.0)), ((10_000, 0), (0, 10_000)));
        assert!(of(0.8).1.abs_diff(8_000) < 200, "{:?}", of(0.8));
    }

    #[test]
    fn sets_reach_every_key_with_values_of_the_size() {
        let workload = Workload::new(Mix::Set, 0.0, "/r", 7, 33, 1);
        let mut asker = Asker::new(&workload, 3, 1);
        let (mut paths, mut values) = (std::collections::BTreeSet::new(), std::collections::BTreeSet::new());
        for _ in 0..1000 {
            let (Operation::Set, Request::SetData(set)) = asker.next(&workload) else { panic!("only sets") };
            assert_eq!(set.data.unwrap().len(), 33);
            paths.insert(set.path.to_owned());
            values.insert(set.data.unwrap().to_owned());
        }
        assert_eq!(paths.len(), 7);
        assert_eq!(paths.first().unwrap(), "/r/k0000000000");
        assert!(values.len() > 900, "values differ from each other");
    }

    #[test]
    fn created_paths_are_new_each_time_and_apart_from_other_connections() {
        let workload = Workload::new(Mix::Create, 0.0, "/r", 1000, 0, 1);
        assert_eq!(workload.keys(), 0);
        let mut asker = Asker::new(&workload, 12, 1);
        for n in 1..=100 {
            let (Operation::Create, Request::Create(create)) = asker.next(&workload) else { panic!("only creates") };
            assert_eq!(create.path, format!("/r/c00012/n{n:010}"));
        }
    }

    #[test]
    fn counting_up_carries_and_wraps() {
        let mut path = b"/n0000000999".to_vec();
        count_up(&mut path);
        assert_eq!(path, b"/n0000001000");
        path = b"/n9999999999".to_vec();
        count_up(&mut path);
        assert_eq!(path, b"/n0000000000");
    }

    #[test]
    fn a_seed_fixes_what_is_asked() {
        let workload = Workload::new(Mix::Mixed, 0.5, "/r", 1000, 8, 9);
        let of = |seed| {
            let mut asker = Asker::new(&workload, 0, seed);
            (0..50).map(|_| format!("{:?}", asker.next(&workload))).collect::<Vec<_>>()
        };
        assert_eq!(of(4), of(4));
        assert_ne!(of(4), of(5));
    }

    #[test]
    fn nodes_of_somebody_are_theirs_alone() {
        let open = Workload::new(Mix::Set, 0.0, "/r", 1, 1, 1);
        let theirs = Workload::new(Mix::Set, 0.0, "/r", 1, 1, 1).by("user:secret");
        let schemes = |workload: &Workload| match workload.create_key(0) {
            Request::Create(create) => create.acl.iter().map(|acl| acl.scheme.unwrap_or_default().to_owned()).collect(),
            other => vec![format!("{other:?}")],
        };
        assert_eq!((schemes(&open), open.identity()), (vec!["world".to_owned()], None));
        assert_eq!((schemes(&theirs), theirs.identity()), (vec!["auth".to_owned()], Some("user:secret")));
    }
}
