//! From an applied transaction to the answer that its client gets.

use corral_engine::tree::Applied;
use corral_proto::response::Response;
use corral_proto::{ErrorCode, MultiResult, Txn};

/// The header's error code and the body for the client that asked for `txn`.
///
/// # Panics
/// If the tree did not take a transaction as it was decided: then the decision was made from another state than the tree's,
/// and nothing that this server says can be relied on.
pub fn answer<'a>(txn: &Txn<'a>, applied: &Applied) -> (i32, Response<'a>) {
    match (txn, applied) {
        (Txn::Error(code), _) => (*code, Response::Empty),
        (Txn::Create(create), Applied::Stat(_)) => (0, Response::Path(create.path)),
        (Txn::Create2(create) | Txn::CreateContainer(create) | Txn::CreateTtl(create, _), Applied::Stat(stat)) => {
            (0, Response::PathStat(create.path, *stat))
        }
        (Txn::SetData { .. } | Txn::SetAcl { .. }, Applied::Stat(stat)) => (0, Response::Stat(*stat)),
        (Txn::Reconfig { data, .. }, Applied::Stat(stat)) => (0, Response::Data(*data, *stat)),
        (Txn::Delete { .. } | Txn::CloseSession { .. } | Txn::CreateSession { .. }, Applied::Done) => {
            (0, Response::Empty)
        }
        (Txn::Multi(parts), Applied::Multi(applied)) => {
            (0, Response::Multi(parts.iter().zip(applied).map(|(part, applied)| result(&part, applied)).collect()))
        }
        (Txn::Multi(parts), Applied::Nothing) => {
            let codes = parts.iter().map(|part| match part {
                Txn::Error(code) => MultiResult::Error(ErrorCode::from_code(code)),
                _ => MultiResult::Error(None),
            });
            (0, Response::Multi(codes.collect()))
        }
        (txn, applied) => panic!("the tree answered {applied:?} to {txn:?}"),
    }
}

fn result<'a>(part: &Txn<'a>, applied: &Applied) -> MultiResult<'a> {
    match (part, applied) {
        (Txn::Create(create), Applied::Stat(_)) => MultiResult::Create { path: create.path },
        (Txn::Create2(create) | Txn::CreateContainer(create) | Txn::CreateTtl(create, _), Applied::Stat(stat)) => {
            MultiResult::Create2 { path: create.path, stat: *stat }
        }
        (Txn::Delete { .. }, Applied::Done) => MultiResult::Delete,
        (Txn::SetData { .. }, Applied::Stat(stat)) => MultiResult::SetData { stat: *stat },
        (Txn::Check(_), Applied::Done) => MultiResult::Check,
        (part, applied) => panic!("the tree answered {applied:?} to {part:?} in a multi"),
    }
}
