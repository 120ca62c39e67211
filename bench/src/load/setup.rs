//! What must be in the server's tree before a run, and its removal afterwards.
//!
//! The root (with missing parents), then either the key space or a nursery for each connection. Requests go out in
//! batches on one blocking connection: no multi, which not every server of this protocol has.
//!
//! **Invariants**: only what this run made or what bears one of its names is removed; a batch is small enough that both
//! sides' socket buffers hold it, so that nobody waits for somebody who waits for them.
//!
//! **Not here**: the names ([`super::workload`]).

use super::workload::Workload;
use corral_net::client::{BlockingClient, ClientError, Session};
use corral_proto::request::{CreateRequest, PathVersion, PathWatch, SetDataRequest};
use corral_proto::response::Response;
use corral_proto::{AclList, ErrorCode, Jute, Request};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

const BATCH_REQUESTS: usize = 256;
const BATCH_BYTES: usize = 128 << 10;
const PATIENCE: Duration = Duration::from_secs(20);
const SESSION_TIMEOUT: Duration = Duration::from_secs(30);

/// Why the tree could not be prepared.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SetupError {
    #[error(transparent)]
    Client(#[from] ClientError),
    #[error("interrupted")]
    Interrupted,
}

/// Connects to the first host that serves, as this `user:password` if there is one.
pub(crate) fn connect(hosts: &[SocketAddr], identity: Option<&str>) -> Result<BlockingClient, ClientError> {
    let mut failed = None;
    for host in hosts {
        match BlockingClient::connect(*host, Session::new(SESSION_TIMEOUT), PATIENCE) {
            Ok(mut client) => {
                if let Some(identity) = identity {
                    client.request(&Request::Auth { scheme: Some("digest"), auth: Some(identity.as_bytes()) })?;
                }
                return Ok(client);
            }
            Err(error) => failed = Some(error),
        }
    }
    Err(failed.expect("there is at least one host"))
}

/// The nodes that a run needs and is responsible for.
#[derive(Debug)]
pub(crate) struct Stage<'a> {
    workload: &'a Workload,
    /// One for each connection that makes nodes.
    nurseries: Vec<String>,
    /// The root and those above it that were not there before, outermost first.
    made: Vec<String>,
}

impl<'a> Stage<'a> {
    /// What a run of `connections` needs; nothing is made yet.
    pub(crate) fn new(workload: &'a Workload, connections: usize) -> Stage<'a> {
        let nurseries = if workload.keys() > 0 { 0 } else { connections };
        Stage { workload, nurseries: (0..nurseries).map(|index| workload.nursery(index)).collect(), made: Vec::new() }
    }

    /// Makes everything, on the first of `hosts` that serves. What it made is known also after an error.
    pub(crate) fn prepare(&mut self, hosts: &[SocketAddr], stop: &AtomicBool) -> Result<(), SetupError> {
        let mut connected = connect(hosts, self.workload.identity())?;
        let client = &mut connected;
        let root = self.workload.root();
        for (end, _) in root.match_indices('/').skip(1).chain([(root.len(), "")]) {
            let path = &root[..end];
            match client.request(&create(path)) {
                Ok(_) => self.made.push(path.to_owned()),
                Err(error) if error.code() == Some(ErrorCode::NodeExists) => {}
                Err(error) => return Err(error.into()),
            }
        }
        let nurseries = &self.nurseries;
        in_batches(client, stop, nurseries.len(), |index| create(&nurseries[index]), ErrorCode::NodeExists)?;
        // Keys of an earlier run with --keep get this run's values.
        let workload = self.workload;
        let there = in_batches(client, stop, workload.keys(), |key| workload.create_key(key), ErrorCode::NodeExists)?;
        let overwrite = |index: usize| match workload.create_key(there[index]) {
            Request::Create(CreateRequest { path, data, .. }) => {
                Request::SetData(SetDataRequest { path, data, version: -1 })
            }
            other => other,
        };
        in_batches(client, stop, there.len(), overwrite, ErrorCode::NoNode)?;
        Ok(connected.close()?)
    }

    /// Removes everything.
    pub(crate) fn remove(&self, hosts: &[SocketAddr], stop: &AtomicBool) -> Result<(), SetupError> {
        let mut connected = connect(hosts, self.workload.identity())?;
        let client = &mut connected;
        for nursery in &self.nurseries {
            let prefix = format!("{nursery}/");
            let children: Vec<String> = match client.request(&Request::GetChildren(watchless(nursery))) {
                Ok(Response::Children(names)) => names.iter().map(|name| format!("{prefix}{name}")).collect(),
                Ok(_) => Vec::new(),
                Err(error) if error.code() == Some(ErrorCode::NoNode) => continue,
                Err(error) => return Err(error.into()),
            };
            in_batches(client, stop, children.len(), |index| delete(&children[index]), ErrorCode::NoNode)?;
        }
        let (workload, nurseries) = (self.workload, &self.nurseries);
        in_batches(client, stop, nurseries.len(), |index| delete(&nurseries[index]), ErrorCode::NoNode)?;
        in_batches(client, stop, workload.keys(), |key| delete(workload.key_path(key)), ErrorCode::NoNode)?;
        for path in self.made.iter().rev() {
            match client.request(&delete(path)) {
                // Somebody else is using it by now.
                Err(error) if matches!(error.code(), Some(ErrorCode::NotEmpty | ErrorCode::NoNode)) => {}
                other => drop(other?),
            }
        }
        Ok(connected.close()?)
    }
}

/// Sends `count` requests. Returns the places of those that were refused with `tolerated`; another refusal is an error.
fn in_batches<'r>(
    client: &mut BlockingClient,
    stop: &AtomicBool,
    count: usize,
    request: impl Fn(usize) -> Request<'r>,
    tolerated: ErrorCode,
) -> Result<Vec<usize>, SetupError> {
    let address = client.address();
    let mut refused = Vec::new();
    let mut failed = None;
    let mut next = 0;
    while next < count {
        if stop.load(Relaxed) {
            return Err(SetupError::Interrupted);
        }
        let (first, mut bytes, mut batch) = (next, 0, Vec::new());
        while next < count && batch.len() < BATCH_REQUESTS && bytes < BATCH_BYTES {
            let request = request(next);
            bytes += request.encoded_len();
            batch.push(request);
            next += 1;
        }
        client.pipeline(&batch, |place, header, _body| {
            if header.error == tolerated.code() {
                refused.push(first + place);
            } else if header.error != 0 && failed.is_none() {
                failed = Some(ClientError::Refused { address, op: batch[place].op(), code: header.error });
            }
        })?;
        if let Some(error) = failed {
            return Err(error.into());
        }
    }
    Ok(refused)
}

fn create(path: &str) -> Request<'_> {
    Request::Create(CreateRequest { path, data: Some(&[]), acl: AclList::OPEN, flags: 0 })
}

fn delete(path: &str) -> Request<'_> {
    Request::Delete(PathVersion { path, version: -1 })
}

fn watchless(path: &str) -> PathWatch<'_> {
    PathWatch { path, watch: false }
}
