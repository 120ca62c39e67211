//! What a client has shown of itself at one member of an ensemble, as all the others take it.

use super::ensemble::{Ensemble, connect};
use super::eventually;
use corral_net::client::{BlockingClient, ClientError};
use corral_proto::acl::{AclList, encode_acls, perms};
use corral_proto::request::{CreateRequest, PathVersion, PathWatch, Request, SetAclRequest, SetDataRequest};
use corral_proto::response::Response;
use corral_proto::{Acl, ErrorCode};

/// Who owns all nodes here, with what that is in lists; somebody who gives the same name; and the one that may do everything.
const OWNER: (&str, &str) = ("owner:secret", "owner:Vj++wdU3sMAbt+g9TyKj1BT+usI=");
const OTHER: &str = "owner:guess";
const SUPER: &str = "super:secret";

/// What every member is to be set to.
pub(crate) const SETTINGS: &str = "DigestAuthenticationProvider.superDigest=super:lK75jTNcA+U9vtVEw5vB51mj/w4=";

type Work<'a> = &'a dyn Fn(&mut BlockingClient) -> Result<(), ClientError>;

/// Runs `work` with a client of member `at` that has shown these, and says with which error it was refused. It may take more than one
/// attempt: followers of Apache's 3.8.0 leave a request unanswered now and then.
fn ask(
    ensemble: &Ensemble,
    at: usize,
    credentials: &[&str],
    work: impl Fn(&mut BlockingClient) -> Result<(), ClientError>,
) -> Option<ErrorCode> {
    eventually("it is answered", || {
        let mut client = connect(&[ensemble.address(at)]);
        let shown = credentials.iter().try_for_each(|credential| {
            let auth = Some(credential.as_bytes());
            client.request(&Request::Auth { scheme: Some("digest"), auth }).map(drop)
        });
        // What another member has done must be here.
        let synced = shown.and_then(|()| client.request(&Request::Sync(Some("/"))).map(drop));
        match synced.and_then(|()| work(&mut client)) {
            Ok(()) => Some(None),
            Err(error) => error.code().map(Some),
        }
    })
}

fn request(request: Request<'_>) -> impl Fn(&mut BlockingClient) -> Result<(), ClientError> {
    move |client| client.request(&request).map(drop)
}

/// Nodes that belong to their creator are made at each member, and tried at each.
pub(crate) fn check_identities(ensemble: &Ensemble) {
    let entry = |scheme, id| Acl { perms: perms::ALL, scheme: Some(scheme), id: Some(id) };
    let own = encode_acls([entry("auth", "")].into_iter());
    let acl = AclList::from_encoded(&own).expect("a list");
    let no_auth = Some(ErrorCode::NoAuth);
    for at in 1..=ensemble.count() {
        let path = format!("/own-{at}");
        let create = request(Request::Create(CreateRequest { path: &path, data: None, acl, flags: 0 }));
        assert_eq!(ask(ensemble, at, &[], &create), Some(ErrorCode::InvalidAcl), "nobody stands for an address");
        let created = ask(ensemble, at, &[OWNER.0], create);
        assert!(matches!(created, None | Some(ErrorCode::NodeExists)), "{path}: {created:?}");
        for via in 1..=ensemble.count() {
            let get = request(Request::GetData(PathWatch { path: &path, watch: false }));
            let set = request(Request::SetData(SetDataRequest { path: &path, data: Some(b"x"), version: -1 }));
            let set_acl = request(Request::SetAcl(SetAclRequest { path: &path, acl: AclList::OPEN, version: -1 }));
            for strangers in [&[][..], &[OTHER]] {
                for work in [&get as Work<'_>, &set, &set_acl] {
                    assert_eq!(ask(ensemble, via, strangers, work), no_auth, "{path} via {via} as {strangers:?}");
                }
            }
            for known in [&[OWNER.0][..], &[OTHER, OWNER.0], &[SUPER]] {
                for work in [&get as Work<'_>, &set] {
                    assert_eq!(ask(ensemble, via, known, work), None, "{path} via {via} as {known:?}");
                }
            }
            // What was stored is the list of whom the leader took the client for.
            let stored = ask(ensemble, via, &[OWNER.0], |client| {
                let Response::Acl(acl, _) = client.request(&Request::GetAcl(&path))? else { panic!("another answer") };
                assert_eq!(acl.iter().collect::<Vec<_>>(), [entry("digest", OWNER.1)], "{path} via {via}");
                Ok(())
            });
            assert_eq!(stored, None);
        }
    }
    // The address, which nobody has to show, goes along as well.
    for (net, expected) in [("127.0.0.0/8", None), ("10.0.0.0/8", no_auth)] {
        let list = encode_acls([entry("ip", net)].into_iter());
        let acl = AclList::from_encoded(&list).expect("a list");
        let path = format!("/net-{}", net.len());
        ask(ensemble, 1, &[], request(Request::Create(CreateRequest { path: &path, data: None, acl, flags: 0 })));
        for via in 1..=ensemble.count() {
            let set = request(Request::SetData(SetDataRequest { path: &path, data: None, version: -1 }));
            assert_eq!(ask(ensemble, via, &[], set), expected, "{net} via {via}");
        }
    }
    // Apache's servers send, and log, this name as something that is not UTF-8. Everybody goes on.
    let named = encode_acls([entry("digest", "\u{1f600}:x")].into_iter());
    let acl = AclList::from_encoded(&named).expect("a list");
    for at in 1..=ensemble.count() {
        let path = format!("/named-{at}");
        let create = request(Request::Create(CreateRequest { path: &path, data: None, acl, flags: 0 }));
        let created = ask(ensemble, at, &["\u{1f600}:secret"], create);
        assert!(matches!(created, None | Some(ErrorCode::NodeExists)), "{path}: {created:?}");
        for via in 1..=ensemble.count() {
            let get = request(Request::GetData(PathWatch { path: &path, watch: false }));
            assert_eq!(ask(ensemble, via, &[], get), no_auth, "{path} via {via}");
        }
    }
    // Its parent's list decides on a node's end.
    let end = request(Request::Delete(PathVersion { path: "/own-1", version: -1 }));
    assert_eq!(ask(ensemble, 1, &[], end), None);
}
