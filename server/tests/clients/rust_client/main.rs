//! usage: rust-client HOST:PORT[,HOST:PORT...]
//!
//! zookeeper-client (asynchronous, Rust) against a running server.
//!
//! What this proves: every operation that client has does what ZooKeeper promises: all kinds of nodes, versions, lists of who may do what, watches
//! that fire once and that stay, transactions, reads of several nodes at once, and its lock, which excludes and goes on when its holder is gone.
//!
//! The idea: a case is an asynchronous function; one runs after the other, below a path of the run's own. Whatever is waited for has a deadline.
//! The server must have `extendedTypesEnabled=true`.
//!
//! Prints `ok NAME` or `FAILED NAME: why` per case; exit status 0 only if nothing failed.
//! Not here: lost connections (the client offers no way to cut one), SASL, TLS.

use std::collections::BTreeSet;
use std::error::Error as AnyError;
use std::time::Duration;
use zookeeper_client::{
    Acl, Acls, AddWatchMode, AuthId, AuthUser, Client, CreateMode, CreateOptions, Error, EventType, LockOptions,
    LockPrefix, MultiReadResult, MultiWriteError, MultiWriteResult, Permission,
};

type Outcome = Result<(), Box<dyn AnyError>>;

/// How long one expected thing may take on a busy machine.
const WAIT: Duration = Duration::from_secs(20);

fn open(mode: CreateMode) -> CreateOptions<'static> {
    mode.with_acls(Acls::anyone_all())
}

/// Fails the case with both, unless they are the same.
macro_rules! equal {
    ($got:expr, $want:expr) => {
        let (got, want) = ($got, $want);
        if got != want {
            return Err(format!("line {}: got {got:?}, want {want:?}", line!()).into());
        }
    };
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let cluster = std::env::args().nth(1).expect("usage: rust-client HOST:PORT");
    let mut failed = 0;
    macro_rules! run {
        ($($case:ident),*) => {$(
            let outcome = match tokio::time::timeout(2 * WAIT, run_case(&cluster, stringify!($case), $case)).await {
                Ok(outcome) => outcome.map_err(|error| error.to_string()),
                Err(_) => Err("not done in time".to_owned()),
            };
            match outcome {
                Ok(()) => println!("ok {}", stringify!($case)),
                Err(why) => {
                    println!("FAILED {}: {why}", stringify!($case));
                    failed += 1;
                }
            }
        )*};
    }
    run!(
        nodes,
        kinds,
        sequences,
        lists,
        watches_once,
        watches_that_stay,
        transactions,
        reads_at_once,
        ephemerals,
        the_lock
    );
    std::process::exit(i32::from(failed > 0));
}

/// With two sessions below a path of the case's own, which is the root to them.
async fn run_case<F: Future<Output = Outcome>>(
    cluster: &str,
    name: &str,
    case: impl FnOnce(Client, Client) -> F,
) -> Outcome {
    let (one, other) = (Client::connect(cluster).await?, Client::connect(cluster).await?);
    let root = format!("/rust-{}-{name}", std::process::id());
    one.create(&root, b"", &open(CreateMode::Persistent)).await?;
    other.sync(&root).await?;
    let below = |client: Client| client.chroot(root.clone()).map_err(|_| "the root is a path");
    case(below(one)?, below(other)?).await
}

async fn nodes(one: Client, other: Client) -> Outcome {
    let (stat, _) = one.create("/a", b"data", &open(CreateMode::Persistent)).await?;
    equal!((stat.version, stat.czxid), (0, stat.mzxid));
    equal!(one.create("/a", b"", &open(CreateMode::Persistent)).await.err(), Some(Error::NodeExists));
    equal!(one.set_data("/a", b"more", Some(7)).await.err(), Some(Error::BadVersion));
    equal!(one.set_data("/a", b"more", Some(0)).await?.version, 1);
    other.sync("/a").await?;
    let (data, stat) = other.get_data("/a").await?;
    equal!((data.as_slice(), stat.version, stat.data_length), (&b"more"[..], 1, 4));
    one.mkdir("/a/b/c", &open(CreateMode::Persistent)).await?;
    equal!(one.delete("/a", None).await.err(), Some(Error::NotEmpty));
    equal!(one.count_descendants_number("/a").await?, 2);
    equal!(one.list_children("/a").await?, ["b"]);
    equal!(one.get_children("/a").await?.1.num_children, 1);
    one.delete("/a/b/c", None).await?;
    equal!(one.check_stat("/a/b/c").await?, None);
    equal!(one.get_data("/missing").await.err(), Some(Error::NoNode));
    Ok(())
}

async fn kinds(one: Client, _: Client) -> Outcome {
    one.create("/container", b"", &open(CreateMode::Container)).await?;
    one.create("/ttl", b"", &open(CreateMode::Persistent).with_ttl(Duration::from_secs(1000))).await?;
    one.create("/container/child", b"", &open(CreateMode::Ephemeral)).await?;
    let refused = one.create("/container/child/x", b"", &open(CreateMode::Persistent)).await.err();
    equal!(refused, Some(Error::NoChildrenForEphemerals));
    equal!(
        one.list_children("/").await?.into_iter().collect::<BTreeSet<_>>(),
        BTreeSet::from(["container".to_owned(), "ttl".to_owned()])
    );
    Ok(())
}

async fn sequences(one: Client, _: Client) -> Outcome {
    for (mode, number) in [
        (CreateMode::PersistentSequential, 0),
        (CreateMode::EphemeralSequential, 1),
        (CreateMode::PersistentSequential, 2),
    ] {
        let (_, sequence) = one.create("/n-", b"", &open(mode)).await?;
        equal!(sequence.into_i64(), number);
    }
    equal!(one.list_children("/").await?.len(), 3);
    Ok(())
}

async fn lists(one: Client, other: Client) -> Outcome {
    one.auth("digest", b"user:secret").await?;
    equal!(one.list_auth_users().await?.contains(&AuthUser::new("digest", "user")), true);
    one.create("/mine", b"secret", &CreateMode::Persistent.with_acls(Acls::creator_all())).await?;
    other.sync("/mine").await?;
    equal!(other.get_data("/mine").await.err(), Some(Error::NoAuth));
    equal!(other.set_data("/mine", b"", None).await.err(), Some(Error::NoAuth));
    equal!(one.get_acl("/mine").await?.0[0].scheme().to_owned(), "digest");
    one.set_acl("/mine", &[Acl::new(Permission::ALL, AuthId::anyone())], Some(0)).await?;
    other.sync("/mine").await?;
    equal!(other.get_data("/mine").await?.0, b"secret");
    Ok(())
}

async fn watches_once(one: Client, other: Client) -> Outcome {
    let (_, made) = one.check_and_watch_stat("/a").await?;
    let (_, _, children) = one.get_and_watch_children("/").await?;
    let (stat, _) = other.create("/a", b"", &open(CreateMode::Persistent)).await?;
    let event = made.changed().await;
    equal!((event.event_type, event.path.as_str(), event.zxid), (EventType::NodeCreated, "/a", stat.czxid));
    equal!(children.changed().await.event_type, EventType::NodeChildrenChanged);
    one.sync("/a").await?;
    let (_, _, data) = one.get_and_watch_data("/a").await?;
    let (_, _, unwanted) = one.get_and_watch_children("/a").await?;
    drop(unwanted);
    other.set_data("/a", b"x", None).await?;
    equal!(data.changed().await.event_type, EventType::NodeDataChanged);
    Ok(())
}

async fn watches_that_stay(one: Client, other: Client) -> Outcome {
    let mut all = one.watch("/", AddWatchMode::PersistentRecursive).await?;
    let mut here = one.watch("/a", AddWatchMode::Persistent).await?;
    other.create("/a", b"", &open(CreateMode::Persistent)).await?;
    other.create("/a/b", b"", &open(CreateMode::Persistent)).await?;
    other.set_data("/a/b", b"x", None).await?;
    other.delete("/a/b", None).await?;
    for (kind, path) in [
        (EventType::NodeCreated, "/a"),
        (EventType::NodeCreated, "/a/b"),
        (EventType::NodeDataChanged, "/a/b"),
        (EventType::NodeDeleted, "/a/b"),
    ] {
        let event = all.changed().await;
        equal!((event.event_type, event.path.as_str()), (kind, path));
    }
    for kind in [EventType::NodeCreated, EventType::NodeChildrenChanged, EventType::NodeChildrenChanged] {
        equal!(here.changed().await.event_type, kind);
    }
    Ok(())
}

async fn transactions(one: Client, _: Client) -> Outcome {
    let mut writer = one.new_multi_writer();
    writer.add_create("/a", b"1", &open(CreateMode::Persistent))?;
    writer.add_set_data("/a", b"2", Some(0))?;
    writer.add_check_version("/a", 1)?;
    writer.add_create("/a/b", b"", &open(CreateMode::Persistent))?;
    writer.add_delete("/a/b", None)?;
    let results = writer.commit().await?;
    equal!(results.len(), 5);
    equal!(matches!(&results[1], MultiWriteResult::SetData { stat } if stat.version == 1), true);
    writer.add_create("/c", b"", &open(CreateMode::Persistent))?;
    writer.add_check_version("/a", 9)?;
    let refused = writer.commit().await.err();
    equal!(refused, Some(MultiWriteError::OperationFailed { index: 1, source: Error::BadVersion }));
    equal!(one.check_stat("/c").await?, None);
    Ok(())
}

async fn reads_at_once(one: Client, _: Client) -> Outcome {
    one.create("/a", b"1", &open(CreateMode::Persistent)).await?;
    let mut reader = one.new_multi_reader();
    reader.add_get_data("/a")?;
    reader.add_get_children("/")?;
    reader.add_get_data("/missing")?;
    let results = reader.commit().await?;
    equal!(matches!(&results[0], MultiReadResult::Data { data, .. } if data == b"1"), true);
    equal!(matches!(&results[1], MultiReadResult::Children { children } if *children == ["a"]), true);
    equal!(matches!(&results[2], MultiReadResult::Error { err: Error::NoNode }), true);
    Ok(())
}

async fn ephemerals(one: Client, other: Client) -> Outcome {
    one.create("/mine", b"", &open(CreateMode::Ephemeral)).await?;
    equal!(one.list_ephemerals("/").await?, ["/mine"]);
    other.sync("/").await?;
    let (stat, gone) = other.check_and_watch_stat("/mine").await?;
    equal!(stat.map(|stat| stat.ephemeral_owner), Some(one.session_id().0));
    drop(one);
    equal!(gone.changed().await.event_type, EventType::NodeDeleted);
    Ok(())
}

async fn the_lock(one: Client, other: Client) -> Outcome {
    let options = || LockOptions::new(Acls::anyone_all()).with_ancestor_options(open(CreateMode::Persistent));
    let held = one.lock(LockPrefix::new_curator("/lock", "latch-")?, b"one", options()?).await?;
    held.create("/guarded", b"1", &open(CreateMode::Persistent)).await?;
    let waits = other.lock(LockPrefix::new_curator("/lock", "latch-")?, b"other", options()?);
    tokio::pin!(waits);
    let early = tokio::time::timeout(Duration::from_millis(300), &mut waits).await.is_ok();
    equal!(early, false);
    drop(held);
    let held = tokio::time::timeout(WAIT, waits).await??;
    held.set_data("/guarded", b"2", Some(0)).await?;
    Ok(())
}
