//! Who a client is, and what follows from that for what it is told.

use super::*;
use corral_proto::acl::perms;

/// What `u:p` makes.
const U: &str = "u:Jq7wMyA/w2Vd5WIDAKdu4OIIFEQ=";

fn auth(text: &str) -> Request<'_> {
    Request::Auth { scheme: Some("digest"), auth: Some(text.as_bytes()) }
}

/// A list that gives everything to whoever has shown to be `u:p`, and to others this.
fn list_of_u(others: i32) -> Vec<u8> {
    let own = Acl { perms: perms::ALL, scheme: Some("digest"), id: Some(U) };
    encode_acls([own, Acl { perms: others, scheme: Some("world"), id: Some("anyone") }].into_iter())
}

fn secret<'a>(path: &'a str, acl: &'a [u8]) -> Request<'a> {
    let acl = AclList::from_encoded(acl).expect("a list");
    Request::Create(CreateRequest { path, data: Some(b"secret"), acl, flags: 0 })
}

/// A client that has shown to be `u:p`, and one that has not.
fn known_and_not(rig: &mut Rig) -> (u32, u32) {
    let (known, other) = (rig.connect(), rig.connect());
    rig.ask(known, -4, auth("u:p"));
    assert_eq!(rig.told(known), ["-4: ok @0"]);
    (known, other)
}

/// Requests before it are made without what it proves, those behind it with, and the answers keep their order.
#[test]
fn auth_has_its_place_in_the_order() {
    let mut rig = Rig::new();
    let a = rig.connect();
    rig.ask(a, 1, create("/a"));
    rig.ask(a, -4, auth("u:p"));
    rig.ask(a, 2, create("/b"));
    rig.ask(a, 3, Request::WhoAmI);
    rig.ask(a, 5, Request::Auth { scheme: Some("ip"), auth: None });
    rig.ask(a, 6, Request::WhoAmI);
    assert_eq!((rig.sent(), rig.told(a)), (vec![1], vec![]));
    let who = |rig: &Rig| rig.port.writes[0].who.clone();
    let begins = Identities::of(REMOTE);
    assert_eq!(who(&rig), begins);
    rig.apply();
    rig.hand_over();
    assert_eq!((rig.sent(), rig.told(a)), (vec![2], vec!["1: ok /a @1".into(), "-4: ok @0".to_owned()]));
    assert_eq!(who(&rig), begins.with(&[("digest", U)]).unwrap());
    rig.settle();
    let both = "ok ip:10.1.2.3 digest:u @2";
    assert_eq!(rig.told(a), ["2: ok /b @2".to_owned(), format!("3: {both}"), "5: ok @0".into(), format!("6: {both}")]);
}

/// The session lives on.
#[test]
fn who_is_not_let_through_is_told_so_and_closed() {
    let long = "u".repeat(10_000);
    for (scheme, sent) in [
        (Some("nope"), Some("u:p")),
        (Some("super"), Some("u:p")),
        (Some("world"), Some("anyone")),
        (None, Some("u:p")),
        (Some("digest"), None),
        (Some("digest"), Some(&*long)),
    ] {
        let mut rig = Rig::new();
        let a = rig.connect();
        assert!(!rig.ask(a, -4, Request::Auth { scheme, auth: sent.map(str::as_bytes) }));
        assert_eq!(rig.told(a), ["-4: AuthFailed @0"], "{scheme:?}");
        assert!(rig.is_closing(a) && rig.worker.counters().auth_failures == 1);
    }
}

/// As Apache's servers that are not set up for it answer: kazoo and the Java client then say which of their settings is wrong.
#[test]
fn who_shows_by_sasl_who_it_is_hears_that_there_is_no_next_step() {
    let mut rig = Rig::new();
    let a = rig.connect();
    rig.ask(a, 1, Request::Sasl(Some(b"")));
    rig.ask(a, 2, Request::WhoAmI);
    assert_eq!(rig.told(a), ["1: ok @0", "2: ok ip:10.1.2.3 @0"]);
}

/// Pings, the end of the session and what is no operation included, before anything of it is carried out.
#[test]
fn where_auth_is_enforced_nothing_goes_before_it() {
    let access = Access { enforced: vec![crate::requests::scheme::Scheme::Digest], ..Access::default() };
    let refused = ErrorCode::SessionClosedRequireSaslAuth.code();
    for op in [OpCode::Ping, OpCode::Create, OpCode::CloseSession, OpCode::GetData, OpCode::Error] {
        let mut rig = Rig::with(1000, access.clone());
        let a = rig.connect();
        assert!(!rig.raw(a, &frame(-2, if op == OpCode::Error { 999 } else { op.code() }, &[])));
        let expected = [&20_i32.to_be_bytes()[..4], &(-2_i32).to_be_bytes(), &[0; 8], &refused.to_be_bytes()].concat();
        assert_eq!(rig.bytes(a)[4..], expected[4..], "{op:?}");
        assert!(rig.is_closing(a) && rig.sent().is_empty());
    }
    let mut rig = Rig::with(1000, access);
    let (known, _) = known_and_not(&mut rig);
    rig.ask(known, 1, create("/a"));
    rig.settle();
    assert_eq!(rig.told(known), ["1: ok /a @1"]);
}

#[test]
fn what_one_may_read_another_may_not() {
    let mut rig = Rig::new();
    let (known, other) = known_and_not(&mut rig);
    let acl = list_of_u(0);
    rig.ask(known, 1, secret("/secret", &acl));
    rig.settle();
    assert_eq!(rig.told(known), ["1: ok /secret @1"]);
    let no_watch = PathWatch { path: "/secret", watch: false };
    for (request, answer) in [
        (get("/secret"), "ok secret v0"),
        (Request::Exists(no_watch), "ok v0"),
        (Request::GetChildren(no_watch), "ok []"),
        (Request::GetAcl("/secret"), "ok digest:u:Jq7wMyA/w2Vd5WIDAKdu4OIIFEQ=:31 world:anyone:0"),
    ] {
        rig.ask(known, 2, request);
        rig.ask(other, 2, request);
        assert_eq!(rig.told(known), [format!("2: {answer} @1")], "{request:?}");
        assert_eq!(rig.told(other), ["2: NoAuth @1"], "{request:?}");
    }
    let mut reads = Vec::new();
    ReadOp::GetData("/secret").encode_into(&mut reads);
    let reads = MultiReadRequest::from_encoded(1, &reads);
    rig.ask(known, 3, Request::MultiRead(reads));
    rig.ask(other, 3, Request::MultiRead(reads));
    assert_eq!(
        (rig.told(known), rig.told(other)),
        (vec!["3: ok secret v0 @1".into()], vec!["3: ok NoAuth @1".to_owned()])
    );
    // Who connects again has to show it again.
    rig.close(known);
    let again = rig.connect();
    rig.ask(again, 1, get("/secret"));
    assert_eq!(rig.told(again), ["1: NoAuth @1"]);
}

#[test]
fn a_hash_is_shown_to_those_who_administer() {
    let mut rig = Rig::new();
    let (known, other) = known_and_not(&mut rig);
    rig.elsewhere(secret("/a", &list_of_u(perms::READ)));
    rig.ask(known, 1, Request::GetAcl("/a"));
    rig.ask(other, 1, Request::GetAcl("/a"));
    assert_eq!(rig.told(known), [format!("1: ok digest:{U}:31 world:anyone:1 @1")]);
    assert_eq!(rig.told(other), ["1: ok digest:u:x:31 world:anyone:1 @1"]);
}

/// CVE-2024-23944, also of those that setWatches makes up. The watch is used up all the same.
#[test]
fn events_are_for_those_who_may_read() {
    let mut rig = Rig::new();
    let (known, other) = known_and_not(&mut rig);
    for client in [known, other] {
        rig.ask(client, 1, exists("/secret"));
        rig.told(client);
    }
    rig.elsewhere(secret("/secret", &list_of_u(0)));
    rig.hand_over();
    assert_eq!((rig.told(known), rig.told(other)), (vec!["NodeCreated /secret @1".to_owned()], vec![]));
    assert!(rig.worker.watches().is_empty());
    let mut exist = Vec::new();
    put_string(&mut exist, "/secret");
    let none = StrList::EMPTY;
    let exist = StrList::from_encoded(1, &exist);
    let relative_zxid = Zxid::ZERO;
    let again = SetWatchesRequest { relative_zxid, data: none, exist, child: none, persistent: none, recursive: none };
    for (client, told) in [(known, &["NodeCreated /secret @-1", "2: ok @1"][..]), (other, &["2: ok @1"])] {
        rig.ask(client, 2, Request::SetWatches(again));
        assert_eq!(rig.told(client), told);
    }
}
