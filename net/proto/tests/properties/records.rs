//! One of every kind of record, out of random fields.
//!
//! **Not here**: what must be true of them.

use corral_proto::acl::encode_acls;
use corral_proto::connect::{ConnectRequest, ConnectResponse};
use corral_proto::jute::{StrList, put_string};
use corral_proto::multi::{MultiReadRequest, ReadOp};
use corral_proto::request::{
    AddWatchMode, CreateRequest, PathVersion, PathWatch, ReconfigRequest, SetAclRequest, SetDataRequest,
    SetWatchesRequest, WatcherType,
};
use corral_proto::response::Response;
use corral_proto::txn::CreateTxn;
use corral_proto::{
    Acl, AclList, ErrorCode, EventType, Jute, MultiOp, MultiRequest, MultiResult, OpCode, ReplyHeader, Request,
    RequestHeader, SessionId, Stat, SubTxns, TreeDigest, Txn, TxnEntry, TxnHeader, WatcherEvent, Xid, Zxid,
};
use proptest::prelude::*;

/// What records are made of, one value of each type. `kind` says which part of a multi these fields become.
#[derive(Clone, Debug)]
pub(crate) struct Fields {
    pub(crate) kind: usize,
    pub(crate) path: String,
    pub(crate) name: Option<String>,
    pub(crate) data: Option<Vec<u8>>,
    pub(crate) acl: Vec<u8>,
    pub(crate) int: i32,
    pub(crate) long: i64,
    pub(crate) flag: bool,
    pub(crate) stat: Stat,
}

/// The fields of one record, and those of the parts that it may have, with the lists that are kept encoded.
#[derive(Clone, Debug)]
pub(crate) struct Parts {
    pub(crate) one: Fields,
    pub(crate) more: Vec<Fields>,
    pub(crate) names: Vec<u8>,
    pub(crate) ops: Vec<u8>,
    pub(crate) subs: Vec<u8>,
    pub(crate) reads: Vec<u8>,
}

pub(crate) fn text() -> impl Strategy<Value = String> {
    prop::collection::vec(any::<char>(), 0..8).prop_map(String::from_iter)
}

pub(crate) fn acl() -> impl Strategy<Value = Vec<u8>> {
    let entries = prop::collection::vec((any::<i32>(), prop::option::of(text()), prop::option::of(text())), 0..4);
    let encode = |entries: Vec<(i32, Option<String>, Option<String>)>| {
        let entry = |(perms, scheme, id)| Acl { perms, scheme, id };
        encode_acls(entries.iter().map(|(perms, scheme, id)| entry((*perms, scheme.as_deref(), id.as_deref()))))
    };
    prop_oneof![8 => entries.prop_map(encode), 1 => Just(vec![0xff; 4])]
}

pub(crate) fn stat() -> impl Strategy<Value = Stat> {
    any::<([i64; 6], [i32; 5])>().prop_map(|(longs, ints)| Stat {
        czxid: Zxid(longs[0]),
        mzxid: Zxid(longs[1]),
        ctime: longs[2],
        mtime: longs[3],
        version: ints[0],
        cversion: ints[1],
        aversion: ints[2],
        ephemeral_owner: SessionId(longs[4]),
        data_length: ints[3],
        num_children: ints[4],
        pzxid: Zxid(longs[5]),
    })
}

pub(crate) fn fields() -> impl Strategy<Value = Fields> {
    let data = prop::option::of(prop::collection::vec(any::<u8>(), 0..24));
    (any::<usize>(), text(), prop::option::of(text()), data, acl(), any::<(i32, i64, bool)>(), stat()).prop_map(
        |(kind, path, name, data, acl, (int, long, flag), stat)| Fields {
            kind,
            path,
            name,
            data,
            acl,
            int,
            long,
            flag,
            stat,
        },
    )
}

pub(crate) fn parts() -> impl Strategy<Value = Parts> {
    (fields(), prop::collection::vec(fields(), 0..6)).prop_map(|(one, more)| {
        let (mut names, mut ops, mut subs, mut reads) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for fields in &more {
            put_string(&mut names, &fields.path);
            fields.op().encode_into(&mut ops);
            let path = fields.path.as_str();
            if fields.flag { ReadOp::GetData(path) } else { ReadOp::GetChildren(path) }.encode_into(&mut reads);
            SubTxns::push(&mut subs, &fields.txn());
        }
        Parts { one, more, names, ops, subs, reads }
    })
}

impl Fields {
    pub(crate) fn acl(&self) -> AclList<'_> {
        AclList::from_encoded(&self.acl).expect("encoded here")
    }

    pub(crate) fn create(&self) -> CreateRequest<'_> {
        // A flag that stands for nothing cannot be in a multi, nor can the null list.
        let acl = if self.acl() == AclList::NULL { AclList::OPEN } else { self.acl() };
        CreateRequest { path: &self.path, data: self.data.as_deref(), acl, flags: self.int.rem_euclid(7) }
    }

    pub(crate) fn op(&self) -> MultiOp<'_> {
        let of = PathVersion { path: &self.path, version: self.int };
        match self.kind % 7 {
            0 => MultiOp::Create(self.create()),
            1 => MultiOp::Create2(self.create()),
            2 => MultiOp::CreateContainer(self.create()),
            3 => MultiOp::CreateTtl(self.create(), self.long),
            4 => MultiOp::Delete(of),
            5 => MultiOp::SetData(SetDataRequest { path: &self.path, data: self.data.as_deref(), version: self.int }),
            _ => MultiOp::Check(of),
        }
    }

    pub(crate) fn result(&self) -> MultiResult<'_> {
        match self.kind % 8 {
            7 => MultiResult::Data { data: self.data.as_deref(), stat: self.stat },
            0 => MultiResult::Create { path: &self.path },
            1 => MultiResult::Create2 { path: &self.path, stat: self.stat },
            2 => MultiResult::Delete,
            3 => MultiResult::SetData { stat: self.stat },
            4 => MultiResult::Check,
            5 => MultiResult::Error(None),
            _ => MultiResult::Error(Some(ErrorCode::ALL[self.int.rem_euclid(ErrorCode::ALL.len() as i32) as usize])),
        }
    }

    /// Any transaction that has no parts itself.
    pub(crate) fn txn(&self) -> Txn<'_> {
        let all = self.txns();
        all[self.kind % all.len()]
    }

    pub(crate) fn txns(&self) -> [Txn<'_>; 13] {
        let (path, data) = (self.path.as_str(), self.data.as_deref());
        let create = CreateTxn { path, data, acl: self.acl(), ephemeral: self.flag, parent_cversion: self.int };
        [
            Txn::Create(create),
            Txn::Create2(create),
            Txn::CreateContainer(CreateTxn { ephemeral: false, ..create }),
            Txn::CreateTtl(CreateTxn { ephemeral: false, ..create }, self.long),
            Txn::Delete { path },
            Txn::DeleteContainer { path },
            Txn::SetData { path, data, version: self.int },
            Txn::Reconfig { path, data, version: self.int },
            Txn::SetAcl { path, acl: self.acl(), version: self.int },
            Txn::CreateSession { timeout_ms: self.int },
            Txn::CloseSession { paths: None },
            Txn::Check(PathVersion { path, version: self.int }),
            Txn::Error(self.int),
        ]
    }
}

impl Parts {
    pub(crate) fn names(&self) -> StrList<'_> {
        StrList::from_encoded(self.more.len() as u32, &self.names)
    }

    pub(crate) fn requests(&self) -> Vec<Request<'_>> {
        let one = &self.one;
        let (path, data, version) = (one.path.as_str(), one.data.as_deref(), one.int);
        let create = CreateRequest { flags: one.int, acl: one.acl(), ..one.create() };
        let watch = PathWatch { path, watch: one.flag };
        let (data_names, none) = (self.names(), StrList::EMPTY);
        let relative_zxid = Zxid(one.long);
        let no_watches = SetWatchesRequest {
            relative_zxid,
            data: none,
            exist: none,
            child: none,
            persistent: none,
            recursive: none,
        };
        let watcher = [WatcherType::Children, WatcherType::Any, WatcherType::Recursive][one.kind % 3];
        vec![
            Request::Create(create),
            Request::Create2(create),
            Request::CreateContainer(create),
            Request::CreateTtl(create, one.long),
            Request::Delete(PathVersion { path, version }),
            Request::SetData(SetDataRequest { path, data, version }),
            Request::SetAcl(SetAclRequest { path, acl: one.acl(), version }),
            Request::Multi(MultiRequest::from_encoded(self.more.len(), &self.ops)),
            Request::Multi(MultiRequest::from_encoded(0, &[])),
            Request::CloseSession,
            Request::Sync(one.name.as_deref()),
            Request::Exists(watch),
            Request::GetData(watch),
            Request::GetAcl(path),
            Request::GetChildren(watch),
            Request::GetChildren2(watch),
            Request::MultiRead(MultiReadRequest::from_encoded(self.more.len(), &self.reads)),
            Request::SetWatches(SetWatchesRequest { data: data_names, ..no_watches }),
            Request::SetWatches(SetWatchesRequest { exist: data_names, child: data_names, ..no_watches }),
            Request::SetWatches2(SetWatchesRequest { persistent: data_names, recursive: data_names, ..no_watches }),
            Request::AddWatch(path, if one.flag { AddWatchMode::Recursive } else { AddWatchMode::Persistent }),
            Request::RemoveWatches(path, watcher),
            Request::CheckWatches(path, watcher),
            Request::Ping,
            Request::Auth { scheme: one.name.as_deref(), auth: data },
            Request::WhoAmI,
            Request::Sasl(data),
            Request::GetEphemerals(one.name.as_deref()),
            Request::GetAllChildrenNumber(path),
            Request::Reconfig(ReconfigRequest {
                joining: one.name.as_deref(),
                leaving: None,
                members: one.name.as_deref(),
                version: one.long,
            }),
        ]
    }

    pub(crate) fn responses(&self) -> Vec<(OpCode, Response<'_>)> {
        let one = &self.one;
        let (path, data, stat) = (one.path.as_str(), one.data.as_deref(), one.stat);
        use OpCode::*;
        let empty = [Delete, Ping, SetWatches, SetWatches2, RemoveWatches, CheckWatches, Auth, CloseSession];
        let mut responses = vec![
            (OpCode::Create, Response::Path(path)),
            (OpCode::Create2, Response::PathStat(path, stat)),
            (OpCode::CreateContainer, Response::PathStat(path, stat)),
            (OpCode::CreateTtl, Response::PathStat(path, stat)),
            (OpCode::Reconfig, Response::Data(data, stat)),
            (OpCode::GetEphemerals, Response::Children(self.names())),
            (OpCode::GetAllChildrenNumber, Response::Number(one.int)),
            (OpCode::Exists, Response::Stat(stat)),
            (OpCode::SetData, Response::Stat(stat)),
            (OpCode::SetAcl, Response::Stat(stat)),
            (OpCode::GetData, Response::Data(data, stat)),
            (OpCode::GetAcl, Response::Acl(one.acl(), stat)),
            (OpCode::GetChildren, Response::Children(self.names())),
            (OpCode::GetChildren2, Response::ChildrenStat(self.names(), stat)),
            (OpCode::Sync, Response::Sync(one.name.as_deref())),
            (OpCode::Multi, Response::Multi(self.more.iter().map(Fields::result).collect())),
            (OpCode::MultiRead, Response::Multi(vec![MultiResult::Children(self.names()), one.result()])),
            (OpCode::AddWatch, Response::Zero),
            (OpCode::WhoAmI, Response::WhoAmI(corral_proto::IdList::EMPTY)),
            (OpCode::Sasl, Response::Sasl(data)),
        ];
        responses.extend(empty.map(|op| (op, Response::Empty)));
        responses
    }

    pub(crate) fn entries(&self) -> Vec<TxnEntry<'_>> {
        let one = &self.one;
        let session = SessionId(one.long);
        let header = TxnHeader { session, cxid: Xid(one.int), zxid: one.stat.czxid, time_ms: one.stat.ctime };
        let count = self.more.len() as u32;
        let with_parts = [
            Txn::CloseSession { paths: Some(self.names()) },
            Txn::CloseSession { paths: Some(StrList::EMPTY) },
            Txn::Multi(SubTxns::from_encoded(count, &self.subs)),
            Txn::Multi(SubTxns::from_encoded(0, &[])),
        ];
        let txns: Vec<Txn<'_>> = one.txns().into_iter().chain(with_parts).collect();
        let with = |digest| txns.iter().map(move |txn| TxnEntry { header, txn: *txn, digest });
        with(None).chain(with(Some(TreeDigest(one.long as u64 | 1)))).collect()
    }

    pub(crate) fn connect_requests(&self) -> Vec<ConnectRequest<'_>> {
        let one = &self.one;
        let request = |read_only| ConnectRequest {
            protocol_version: one.int,
            last_zxid_seen: one.stat.czxid,
            timeout_ms: one.stat.version,
            session_id: one.stat.ephemeral_owner,
            password: one.data.as_deref(),
            read_only,
        };
        [None, Some(false), Some(true)].map(request).into()
    }

    pub(crate) fn connect_responses(&self) -> Vec<ConnectResponse> {
        let (one, mut password) = (&self.one, [0; 16]);
        password[..8].copy_from_slice(&one.long.to_be_bytes());
        let response = |read_only| ConnectResponse {
            timeout_ms: one.int,
            session_id: one.stat.ephemeral_owner,
            password,
            read_only,
        };
        [None, Some(false), Some(true)].map(response).into()
    }

    pub(crate) fn events(&self) -> Vec<WatcherEvent<'_>> {
        use EventType::*;
        let path = self.one.path.as_str();
        [NodeCreated, NodeDeleted, NodeDataChanged, NodeChildrenChanged].map(|kind| WatcherEvent { kind, path }).into()
    }

    pub(crate) fn request_header(&self) -> RequestHeader {
        RequestHeader { xid: Xid(self.one.int), op: self.one.stat.version }
    }

    pub(crate) fn reply_header(&self) -> ReplyHeader {
        ReplyHeader { xid: Xid(self.one.int), zxid: Zxid(self.one.long), error: self.one.stat.version }
    }

    /// All of them, encoded.
    pub(crate) fn encodings(&self) -> Vec<Vec<u8>> {
        let mut all = vec![self.request_header().to_vec(), self.reply_header().to_vec(), self.one.stat.to_vec()];
        all.extend([self.one.acl.clone(), self.names().to_vec()]);
        all.extend(self.requests().iter().map(Jute::to_vec));
        all.extend(self.responses().iter().map(|(_, response)| response.to_vec()));
        all.extend(self.entries().iter().map(Jute::to_vec));
        all.extend(self.connect_requests().iter().map(Jute::to_vec));
        all.extend(self.connect_responses().iter().map(Jute::to_vec));
        all.extend(self.events().iter().map(Jute::to_vec));
        all
    }
}
