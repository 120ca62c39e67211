//! Containers and nodes that live for a time, on a running server: they are deleted when they have outlived their use, with the events of
//! any deletion, also after a restart.

#![expect(clippy::disallowed_methods, reason = "waiting for a process needs a clock")]

mod common;

use common::{Server, create, eventually, get, set, temp_dir};
use corral_net::client::BlockingClient;
use corral_proto::AclList;
use corral_proto::request::{CreateRequest, PathVersion, Request};
use std::time::{Duration, Instant};

const SETTINGS: [&str; 3] =
    ["extendedTypesEnabled=true", "znode.container.checkIntervalMs=100", "znode.container.maxNeverUsedIntervalMs=2000"];
const TTL: Duration = Duration::from_millis(1500);

fn container(client: &mut BlockingClient, path: &str) {
    let create = CreateRequest { path, data: None, acl: AclList::OPEN, flags: 4 };
    client.request(&Request::CreateContainer(create)).expect("it is not there");
}

fn delete(client: &mut BlockingClient, path: &str) {
    client.request(&Request::Delete(PathVersion { path, version: -1 })).expect("it is there");
}

#[test]
fn what_has_outlived_its_use_goes_and_the_rest_stays() {
    let dir = temp_dir();
    let mut server = Server::start(dir.path(), &SETTINGS);
    let mut client = server.client();
    for path in ["/emptied", "/full", "/never-used"] {
        container(&mut client, path);
    }
    for path in ["/emptied/kid", "/full/kid"] {
        create(&mut client, path, b"").unwrap();
    }
    let began = Instant::now();
    for path in ["/short", "/renewed"] {
        let create = CreateRequest { path, data: None, acl: AclList::OPEN, flags: 5 };
        client.request(&Request::CreateTtl(create, TTL.as_millis() as i64)).expect("it is not there");
    }
    delete(&mut client, "/emptied/kid");
    eventually("an empty container goes", || get(&mut client, "/emptied").is_none().then_some(()));
    assert!(began.elapsed() < TTL && get(&mut client, "/short").is_some(), "long before anything else does");
    server.terminate(libc::SIGTERM);
    drop(server);

    let server = Server::start(dir.path(), &SETTINGS);
    let mut client = server.client();
    let gone = |path| {
        let mut client = server.client();
        eventually("it goes", || get(&mut client, path).is_none().then(|| began.elapsed()))
    };
    set(&mut client, "/renewed", b"again").unwrap();
    let renewed = began.elapsed();
    assert!(gone("/short") >= TTL);
    assert!(gone("/renewed") >= renewed + TTL, "a change renews it");
    assert!(gone("/never-used") >= Duration::from_secs(2));
    assert!(get(&mut client, "/full").is_some(), "it has a child");
    delete(&mut client, "/full/kid");
    gone("/full");
}
