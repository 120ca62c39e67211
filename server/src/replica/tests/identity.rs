//! Whose request it is, on its way from a client to whoever orders: a learner says it, its leader checks it.
//!
//! **Not here**: what the lists of nodes say ([`crate::requests::acl`]).

use super::member::{Member, START};
use super::*;
use corral_proto::acl::{encode_acls, perms};
use corral_proto::peer::PacketKind;
use corral_proto::peer::learner::Forwarded;
use corral_proto::request::{PathWatch, RequestHeader};
use corral_proto::{Acl, TxnHeader};

fn who(ids: &[(&str, &str)]) -> Identities {
    Identities::of([10, 1, 2, 3].into()).with(ids).expect("few")
}

/// What is a list to those that have it, and names nobody by itself.
fn of_the_client() -> Vec<u8> {
    encode_acls([Acl { perms: perms::ALL, scheme: Some("auth"), id: Some("") }].into_iter())
}

fn create<'a>(path: &'a str, acl: &'a [u8]) -> Request<'a> {
    let acl = AclList::from_encoded(acl).expect("a list");
    Request::Create(CreateRequest { path, data: Some(b"secret"), acl, flags: 0 })
}

fn set(path: &str) -> Request<'_> {
    Request::SetData(SetDataRequest { path, data: None, version: -1 })
}

/// The list that is stored is that of the learner's client, and the next of them is checked against it before it is applied.
#[test]
fn what_a_learner_forwards_is_checked_as_its_clients_own() {
    let (mut member, link) = hostile::leads(4);
    member.hear(link, hostile::create_session());
    let (owner, other) = (who(&[("digest", "a:1")]), who(&[("digest", "b:1")]));
    let acl = of_the_client();
    let refused = Txn::Error(ErrorCode::NoAuth.code());
    for (request, auth, taken) in [
        (create("/a", &acl), Some(&owner), true),
        (set("/a"), Some(&other), false),
        (set("/a"), None, false),
        (set("/a"), Some(&who(&[("super", "")])), true),
        (set("/a"), Some(&owner), true),
    ] {
        let auth = auth.map(|who| who.encoded().clone());
        let said = hostile::forwarded(SessionId(77), request.op(), &request.to_vec());
        member.hear(link, Message { auth, ..said });
        let record = &member.replica.proposals.back().expect("it was ordered").record;
        let txn = TxnEntry::decode(record).expect("encoded here").txn;
        assert_eq!(txn != refused, taken, "{request:?}: {txn:?}");
        if let Txn::Create(create) = txn {
            let entries: Vec<Acl<'_>> = create.acl.iter().collect();
            assert_eq!(entries, [Acl { perms: perms::ALL, scheme: Some("digest"), id: Some("a:1") }]);
        }
    }
}

/// As Apache's: with the client's identities what it asks for, and with none what the learner asks for by itself.
#[test]
fn a_learner_says_whose_request_it_forwards() {
    let (mut member, link) = hostile::follows(4);
    let forwarded = |member: &mut Member| {
        let sent = member.replica.take_commands().into_iter().filter_map(|command| match command {
            Command::Send(to, said) if to == link && said.kind == PacketKind::Request => Some(said),
            _ => None,
        });
        sent.last().expect("it was forwarded")
    };
    let (tree, now) = (Tree::new(1), Now { uptime: Duration::ZERO, wall_ms: 0 });
    member.replica.open_session(&tree, &mut member.log, now, id(1), TIMEOUT_MS);
    let said = forwarded(&mut member);
    assert_eq!(said.auth, None);
    let session = Forwarded::decode(said.bytes()).unwrap().session;
    // Its leader has it committed.
    let zxid = Zxid::new(2, 1);
    let header = TxnHeader { session, cxid: Xid(0), zxid, time_ms: 0 };
    let opened = TxnEntry { header, txn: Txn::CreateSession { timeout_ms: TIMEOUT_MS }, digest: None }.to_vec();
    member.hear(link, Message::with(PacketKind::Proposal, zxid, opened));
    member.hear(link, Message::about(PacketKind::Commit, zxid));
    member.apply();
    let who = who(&[("digest", "a:1")]);
    for request in [set("/a"), Request::Sync(Some("/")), Request::CloseSession] {
        let (body, since) = (request.to_vec(), Duration::ZERO);
        let request = WriteRequest {
            conn: id(1),
            session,
            who: &who,
            xid: Xid(1),
            op: request.op(),
            body: &body,
            since,
            reads: &[],
        };
        member.replica.request(&tree, &mut member.log, now, &request);
        assert_eq!(forwarded(&mut member).auth.as_ref(), Some(who.encoded()), "{:?}", request.op);
    }
    assert_eq!(member.replica.standing().last, zxid, "{START} was before");
}

/// A read that goes along with a write is answered as the client may see the tree, by whoever applies the write.
#[test]
fn reads_that_go_along_are_their_clients() {
    let dir = dir();
    let mut rig = Rig::new(&dir);
    let (session, acl) = (rig.opened(1), of_the_client());
    let (owner, other) = (who(&[("digest", "a:1")]), who(&[]));
    let get = Request::GetData(PathWatch { path: "/a", watch: false }).to_vec();
    let read = |xid| {
        let mut reads = Vec::new();
        put_frame(&mut reads, |out| {
            RequestHeader { xid: Xid(xid), op: OpCode::GetData.code() }.encode(out);
            out.extend_from_slice(&get);
        });
        reads
    };
    for (who, xid, request, reads) in
        [(&owner, 1, create("/a", &acl), vec![]), (&owner, 3, set("/a"), read(2)), (&other, 5, set("/a"), read(4))]
    {
        let (body, since) = (request.to_vec(), Duration::ZERO);
        let (xid, op, reads) = (Xid(xid), request.op(), &reads);
        let request = WriteRequest { conn: id(1), session, who, xid, op, body: &body, since, reads };
        rig.replica.request(&rig.tree, &mut rig.log.group, rig.now, &request);
    }
    let told = rig.settle();
    assert_eq!(told, ["1: 1 ok @2", "1: 2 ok @2", "1: 3 ok @3", "1: 4 NoAuth @3", "1: 5 NoAuth @4"]);
}

/// Over the link to the leader a request of the earlier connection would have followed the word that the client has come again, and have
/// undone what the client had asked for at another server meanwhile.
#[test]
fn who_comes_again_to_a_learner_is_spoken_for_by_the_new_connection_at_once() {
    let (mut member, link) = hostile::follows(4);
    let sent = |member: &mut Member, kind: PacketKind| {
        let is_it = |command: &Command| matches!(command, Command::Send(to, said) if *to == link && said.kind == kind);
        member.replica.take_commands().iter().filter(|command| is_it(command)).count()
    };
    let (tree, now) = (Tree::new(1), Now { uptime: Duration::ZERO, wall_ms: 0 });
    let (session, who, body) = (SessionId(77), who(&[]), set("/a").to_vec());
    let renew = |member: &mut Member, conn| {
        member.replica.renew_session(now, conn, session, &session::password(session), TIMEOUT_MS);
    };
    let ask = |member: &mut Member| {
        let (op, since) = (OpCode::SetData, Duration::ZERO);
        let request = WriteRequest { conn: id(1), session, who: &who, xid: Xid(1), op, body: &body, since, reads: &[] };
        member.replica.request(&tree, &mut member.log, now, &request);
        sent(member, PacketKind::Request)
    };
    renew(&mut member, id(1));
    let valid = corral_proto::peer::learner::Revalidated { session, valid: true }.to_vec();
    member.hear(link, Message::with(PacketKind::Revalidate, Zxid(-1), valid));
    assert_eq!(ask(&mut member), 1);
    renew(&mut member, id(2));
    assert_eq!(ask(&mut member), 0, "its client has left that connection");
}
