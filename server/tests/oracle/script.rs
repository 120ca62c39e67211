//! What is asked: seeded random steps of a few sessions, over few paths, so that they meet. The same seed is the same script.
//!
//! **Not here**: how it is sent and what comes of it ([`super::transcript`]).

use corral_proto::acl::encode_acls;
use corral_proto::jute::put_string;
use corral_proto::{Acl, AclList, Jute, MultiOp, MultiRequest, OpCode};
use corral_proto::{
    multi::{MultiReadRequest, ReadOp},
    request::{CreateRequest, PathVersion, SetDataRequest},
};
use rand::rngs::SmallRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};

/// How many sessions a script has.
pub(crate) const SESSIONS: usize = 3;

/// One step of one session.
pub(crate) enum Step {
    /// A request, as it stands in its frame behind the header.
    Ask { op: i32, body: Vec<u8> },
    /// setWatches or setWatches2: lists of paths behind the zxid that the session has seen last, or one much earlier.
    WatchAgain { op: OpCode, since_last: bool, lists: Vec<Vec<String>> },
    /// The connection breaks, and the client comes again with its session.
    Reconnect,
    /// The session ends, and the client comes with a new one.
    Renew,
}

/// Steps without end below `/s<number>`.
pub(crate) struct Script {
    random: SmallRng,
    root: String,
    is_begun: bool,
    /// Of a server alone. Apache's followers leave writes whose body cannot be read without an answer, and may answer before their leader
    /// has counted for a quota.
    is_alone: bool,
}

impl Script {
    pub(crate) fn new(number: u64, is_alone: bool) -> Script {
        let random = SmallRng::seed_from_u64(number);
        Script { random, root: format!("/s{number}"), is_begun: false, is_alone }
    }

    /// Whose step is next, and what it is.
    pub(crate) fn step(&mut self) -> (usize, Step) {
        if !std::mem::replace(&mut self.is_begun, true) {
            let root = self.root.clone();
            return (0, ask(OpCode::Create, create(root.as_bytes(), Some(b""), &open(), 0)));
        }
        let session = self.random.random_range(0..SESSIONS);
        (session, self.next())
    }

    fn next(&mut self) -> Step {
        let path = self.path();
        let text = self.text_path();
        let version = self.version();
        match self.random.random_range(0..1000) {
            0..120 => self.create(&path),
            120..190 => {
                let data = self.data();
                ask(OpCode::SetData, body(&path, |out| put_data(out, data.as_deref(), version)))
            }
            190..270 => ask(OpCode::Delete, body(&path, |out| out.extend(version.to_be_bytes()))),
            270..330 => self.watching(OpCode::Exists, &path),
            330..410 => self.watching(OpCode::GetData, &path),
            410..470 => self.watching(OpCode::GetChildren, &path),
            470..510 => self.watching(OpCode::GetChildren2, &path),
            510..540 => ask(OpCode::GetAcl, body(&path, |_| {})),
            540..580 => {
                let acl = self.acl();
                let rest = |out: &mut Vec<u8>| {
                    out.extend(&acl);
                    out.extend(version.to_be_bytes());
                };
                ask(OpCode::SetAcl, body(&path, rest))
            }
            580..680 => self.multi(),
            680..720 => self.multi_read(),
            720..740 => ask(OpCode::Sync, body(text.as_bytes(), |_| {})),
            // Apache's counts one more below the empty path than below the root.
            740..760 if !path.is_empty() => ask(OpCode::GetAllChildrenNumber, body(&path, |_| {})),
            740..775 => ask(OpCode::GetEphemerals, body(text.as_bytes(), |_| {})),
            775..790 => ask(OpCode::WhoAmI, Vec::new()),
            790..830 => {
                let mode = self.one_of(&[0, 0, 1, 1, 2]);
                ask(OpCode::AddWatch, body(text.as_bytes(), |out| out.extend(i32::to_be_bytes(mode))))
            }
            830..880 => {
                let op = self.one_of(&[OpCode::RemoveWatches, OpCode::CheckWatches]);
                let kind = self.one_of(&[1, 2, 3, 4, 5, 6]);
                ask(op, body(text.as_bytes(), |out| out.extend(i32::to_be_bytes(kind))))
            }
            880..920 => self.watch_again(),
            920..935 => {
                let (scheme, auth) = self.one_of(&[
                    ("digest", &b"a:1"[..]),
                    ("digest", b"b:2"),
                    ("digest", b"none"),
                    ("ip", b"x"),
                    ("world", b"anyone"),
                    ("nobody", b"x"),
                ]);
                let mut packet = vec![0; 4];
                put_string(&mut packet, scheme);
                put_bytes(&mut packet, Some(auth));
                ask(OpCode::Auth, packet)
            }
            935..945 => Step::Ask { op: self.one_of(&[0, 10, 13, 99, 500]), body: path },
            945..947 => ask(OpCode::Sasl, vec![0; 4]),
            947..950 => {
                let mut body = Vec::new();
                (0..3).for_each(|_| put_bytes(&mut body, None));
                body.extend((-1i64).to_be_bytes());
                ask(OpCode::Reconfig, body)
            }
            950..960 => self.broken(),
            960..975 if self.is_alone => self.quota(),
            960..990 => Step::Reconnect,
            _ => Step::Renew,
        }
    }

    fn one_of<T: Clone>(&mut self, of: &[T]) -> T {
        of.choose(&mut self.random).expect("there are some").clone()
    }

    /// Mostly one that may be there.
    fn path(&mut self) -> Vec<u8> {
        let usual = [
            "/a",
            "/a",
            "/a/x",
            "/a/x",
            "/a/x/y",
            "/b",
            "/b",
            "/b/x",
            "/c",
            "/e",
            "/e/x",
            "/k",
            "/k/x",
            "/t",
            "/a/s-0000000000",
            "/a/s-0000000001",
            "/a/0000000000",
            "/b/s-0000000000",
            "",
        ];
        let odd =
            ["/", "//a", "/.", "/..", "/a/../b", "/\u{1}", "/\u{e000}", "/\u{7f}", "/a\0", "/\u{20ac}", "/missing/x"];
        let odd_alone: [&[u8]; 12] = [
            b"",
            b"/",
            b"a",
            b"//",
            b"/.",
            b"/\xff\xfe",
            b"/\xf0\x9f\x98\x80",
            b"/zookeeper",
            b"/zookeeper/config",
            b"/zookeeper/quota",
            b"/zookeeper/nothing",
            b"\0",
        ];
        match self.random.random_range(0..100) {
            0..90 => (self.root.clone() + self.one_of(&usual)).into_bytes(),
            90..96 => (self.root.clone() + self.one_of(&odd)).into_bytes(),
            _ => self.one_of(&odd_alone).to_vec(),
        }
    }

    /// One that Apache's sends back as it came: not what lies beyond U+FFFF.
    fn text_path(&mut self) -> String {
        loop {
            if let Ok(path) = String::from_utf8(self.path())
                && path.chars().all(|c| c <= '\u{ffff}')
            {
                return path;
            }
        }
    }

    fn version(&mut self) -> i32 {
        self.one_of(&[-1, -1, -1, -1, 0, 0, 1, 2, -2])
    }

    fn data(&mut self) -> Option<Vec<u8>> {
        let len = self.random.random_range(0..40);
        let text: Vec<u8> = (0..len).map(|_| self.random.random_range(b'a'..=b'z')).collect();
        self.one_of(&[None, Some(Vec::new()), Some(text.clone()), Some(text)])
    }

    fn acl(&mut self) -> Vec<u8> {
        if self.random.random_ratio(1, 2) {
            return open();
        }
        let entry = |perms, scheme, id| Acl { perms, scheme: Some(scheme), id: Some(id) };
        let anyone = entry(31, "world", "anyone");
        let lists: [&[Acl<'_>]; 18] = [
            &[entry(1, "world", "anyone")],
            &[entry(13, "world", "anyone")],
            &[entry(0, "world", "anyone")],
            &[entry(31, "auth", "")],
            &[entry(31, "auth", "whatever"), entry(1, "world", "anyone")],
            &[entry(31, "digest", "a:xyzzy"), entry(5, "world", "anyone")],
            &[entry(31, "digest", "no-colon")],
            &[entry(31, "digest", "a:b:c")],
            &[entry(15, "ip", "127.0.0.1"), entry(16, "world", "anyone")],
            &[entry(31, "ip", "10.0.0.0/8")],
            &[entry(31, "ip", "::1")],
            &[entry(31, "ip", "300.1.1.1")],
            &[entry(31, "world", "somebody")],
            &[entry(31, "nobody", "x")],
            &[entry(31, "super", "x")],
            &[anyone, anyone],
            &[],
            &[Acl { perms: 31, scheme: None, id: None }],
        ];
        let chosen = self.random.random_range(0..=lists.len());
        // The null list is the last.
        lists.get(chosen).map_or(vec![0xff; 4], |list| encode_acls(list.iter().copied()))
    }

    fn create(&mut self, path: &[u8]) -> Step {
        let (op, flags, ttl_ms): (OpCode, i32, Option<i64>) = self.one_of(&[
            (OpCode::Create, 0, None),
            (OpCode::Create, 0, None),
            (OpCode::Create2, 0, None),
            (OpCode::Create2, 1, None),
            (OpCode::Create, 1, None),
            (OpCode::Create, 2, None),
            (OpCode::Create2, 3, None),
            (OpCode::Create, 7, None),
            (OpCode::Create, -1, None),
            (OpCode::Create, 5, None),
            (OpCode::CreateContainer, 4, None),
            (OpCode::CreateTtl, 5, Some(1_000_000)),
            (OpCode::CreateTtl, 6, Some(1_000_000)),
            (OpCode::CreateTtl, 5, Some(0)),
            (OpCode::CreateTtl, 5, Some(1 << 40)),
            (OpCode::CreateTtl, 1, Some(5)),
        ]);
        let mut path = path.to_vec();
        // As clients do it. Others append the number to the name itself. What is no UTF-8 ours takes for a name below the root.
        if matches!(flags, 2 | 3 | 6) && str::from_utf8(&path).is_ok() && self.random.random_ratio(3, 4) {
            path.extend(self.one_of(&[&b"/s-"[..], b"/"]));
        }
        let (data, acl) = (self.data(), self.acl());
        let mut body = create(&path, data.as_deref(), &acl, flags);
        body.extend(ttl_ms.into_iter().flat_map(i64::to_be_bytes));
        ask(op, body)
    }

    /// What setquota and delquota do, in any order.
    fn quota(&mut self) -> Step {
        let part =
            self.one_of(&["", "", "/a", "/a", "/a/zookeeper_limits", "/a/zookeeper_limits", "/a/zookeeper_stats"]);
        let path = format!("/zookeeper/quota{}{part}", self.root).into_bytes();
        let text = match part {
            "/a/zookeeper_limits" => self.one_of(&[
                "count=2,bytes=-1",
                "count=-1,bytes=30=;byteHardLimit=20;countHardLimit=3",
                "count=-1,bytes=-1=;countHardLimit=2",
                "count=1,bytes=1=;byteHardLimit=60",
            ]),
            "/a/zookeeper_stats" => self.one_of(&["count=0,bytes=0", "count=2,bytes=-7"]),
            _ => "",
        };
        let version = self.version();
        match self.random.random_range(0..10) {
            0..6 => ask(OpCode::Create, create(&path, Some(text.as_bytes()), &open(), 0)),
            6 => ask(OpCode::SetData, body(&path, |out| put_data(out, Some(text.as_bytes()), version))),
            7 => ask(OpCode::Delete, body(&path, |out| out.extend(version.to_be_bytes()))),
            _ => self.watching(OpCode::GetData, &path),
        }
    }

    fn watching(&mut self, op: OpCode, path: &[u8]) -> Step {
        let watch = self.random.random_ratio(2, 5);
        ask(op, body(path, |out| out.push(watch.into())))
    }

    fn multi(&mut self) -> Step {
        let (mut raw, count) = (Vec::new(), self.random.random_range(0..5));
        for _ in 0..count {
            let (path, data, acl) = (self.text_path(), self.data(), self.acl());
            let acl = AclList::from_encoded(&acl).expect("encoded here");
            let acl = if acl == AclList::NULL && !self.is_alone { AclList::OPEN } else { acl };
            let of = PathVersion { path: &path, version: self.version() };
            let create = |flags| CreateRequest { path: &path, data: data.as_deref(), acl, flags };
            let flags = self.one_of(&[0, 0, 1, 2]);
            match self.random.random_range(0..10) {
                0..3 => MultiOp::Create(create(flags)),
                3..4 => MultiOp::Create2(create(flags)),
                4 => MultiOp::CreateContainer(create(4)),
                5 => MultiOp::CreateTtl(create(5), 1_000_000),
                6 => MultiOp::Delete(of),
                7..9 => MultiOp::SetData(SetDataRequest { path: &path, data: data.as_deref(), version: of.version }),
                _ => MultiOp::Check(of),
            }
            .encode_into(&mut raw);
        }
        ask(OpCode::Multi, MultiRequest::from_encoded(count, &raw).to_vec())
    }

    fn multi_read(&mut self) -> Step {
        let (mut raw, count) = (Vec::new(), self.random.random_range(0..5));
        for _ in 0..count {
            let path = self.text_path();
            if self.random.random() { ReadOp::GetData(&path) } else { ReadOp::GetChildren(&path) }
                .encode_into(&mut raw);
        }
        ask(OpCode::MultiRead, MultiReadRequest::from_encoded(count, &raw).to_vec())
    }

    fn watch_again(&mut self) -> Step {
        let op = self.one_of(&[OpCode::SetWatches, OpCode::SetWatches2]);
        let count = if op == OpCode::SetWatches { 3 } else { 5 };
        let lists =
            (0..count).map(|_| (0..self.random.random_range(0..3)).map(|_| self.text_path()).collect()).collect();
        Step::WatchAgain { op, since_last: self.random.random_ratio(3, 4), lists }
    }

    /// Bodies that end too early, or say impossible lengths.
    fn broken(&mut self) -> Step {
        let op = self.one_of(&[
            OpCode::Create,
            OpCode::Delete,
            OpCode::SetData,
            OpCode::Exists,
            OpCode::GetData,
            OpCode::GetChildren,
            OpCode::SetWatches,
            OpCode::AddWatch,
        ]);
        let op = if self.is_alone { op } else { OpCode::GetData };
        let bodies: [&[u8]; 4] = [b"", b"\0\0", b"\0\0\0\x09/short", b"\x7f\xff\xff\xff/a"];
        ask(op, self.one_of(&bodies).to_vec())
    }
}

fn ask(op: OpCode, body: Vec<u8>) -> Step {
    Step::Ask { op: op.code(), body }
}

fn open() -> Vec<u8> {
    AclList::OPEN.encoded().to_vec()
}

fn create(path: &[u8], data: Option<&[u8]>, acl: &[u8], flags: i32) -> Vec<u8> {
    body(path, |out| {
        put_bytes(out, data);
        out.extend(acl);
        out.extend(flags.to_be_bytes());
    })
}

fn put_data(out: &mut Vec<u8>, data: Option<&[u8]>, version: i32) {
    put_bytes(out, data);
    out.extend(version.to_be_bytes());
}

/// A path that need not be a string, and what follows.
fn body(path: &[u8], rest: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut out = Vec::new();
    put_bytes(&mut out, Some(path));
    rest(&mut out);
    out
}

fn put_bytes(out: &mut Vec<u8>, bytes: Option<&[u8]>) {
    corral_proto::jute::put_buffer(out, bytes);
}
