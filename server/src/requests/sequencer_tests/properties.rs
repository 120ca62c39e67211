//! How far the tree lags behind what was decided changes nothing.

use super::*;

/// A request of a random stream. Paths are chosen among those that were ever created, so that most requests meet
/// something.
#[derive(Clone, Debug)]
enum Ask {
    Create { parent: usize, name: usize, flags: i32, second: bool, locked: bool },
    Delete { at: usize, version: i32 },
    Set { at: usize, version: i32 },
    SetAcl { at: usize, version: i32, locked: bool },
    Check { at: usize, version: i32 },
    Multi(Vec<Ask>),
    Close,
}

fn simple() -> impl Strategy<Value = Ask> {
    let version = || prop_oneof![4 => Just(-1), 3 => 0..3i32];
    let rarely = || prop::bool::weighted(0.05);
    prop_oneof![
        6 => (any::<usize>(), 0..5usize, 0..4i32, any::<bool>(), rarely()).prop_map(
            |(parent, name, flags, second, locked)| Ask::Create { parent, name, flags, second, locked }
        ),
        4 => (any::<usize>(), version()).prop_map(|(at, version)| Ask::Delete { at, version }),
        2 => (any::<usize>(), version()).prop_map(|(at, version)| Ask::Set { at, version }),
    ]
}

fn ask() -> impl Strategy<Value = Ask> {
    let version = || prop_oneof![4 => Just(-1), 3 => 0..3i32];
    let locked = prop::bool::weighted(0.2);
    let checked = (any::<usize>(), version()).prop_map(|(at, version)| Ask::Check { at, version });
    let parts = prop::collection::vec(prop_oneof![8 => simple(), 1 => checked], 0..5);
    prop_oneof![
        12 => simple(),
        1 => (any::<usize>(), version(), locked).prop_map(|(at, version, locked)| Ask::SetAcl { at, version, locked }),
        4 => parts.prop_map(Ask::Multi),
        1 => Just(Ask::Close),
    ]
}

impl Ask {
    fn op(&self) -> OpCode {
        match self {
            Ask::Create { second: false, .. } => OpCode::Create,
            Ask::Create { second: true, .. } => OpCode::Create2,
            Ask::Delete { .. } => OpCode::Delete,
            Ask::Set { .. } => OpCode::SetData,
            Ask::SetAcl { .. } => OpCode::SetAcl,
            Ask::Check { .. } => OpCode::Check,
            Ask::Multi(_) => OpCode::Multi,
            Ask::Close => OpCode::CloseSession,
        }
    }

    fn body(&self, known: &[String]) -> Vec<u8> {
        let list = |locked: &bool| if *locked { AclList::READ_ONLY } else { AclList::OPEN };
        let path = |at: &usize| known[*at % known.len()].as_str();
        match self {
            Ask::Create { parent, name, flags, locked, .. } => {
                let parent = path(parent);
                let base = if parent == "/" { "" } else { parent };
                let path = format!("{base}/{}", ["a", "b", "c", "n-", "n-"][*name]);
                creation(&path, list(locked), *flags).to_vec()
            }
            Ask::Delete { at, version } => delete(path(at), *version).to_vec(),
            Ask::Set { at, version } => set(path(at), *version).to_vec(),
            Ask::SetAcl { at, version, locked } => set_acl(path(at), list(locked), *version).to_vec(),
            Ask::Check { at, version } => PathVersion { path: path(at), version: *version }.to_vec(),
            Ask::Multi(parts) => {
                let mut body = Vec::new();
                for part in parts {
                    body.extend(part.op().code().to_be_bytes());
                    body.extend([0, 0xff, 0xff, 0xff, 0xff]);
                    body.extend(part.body(known));
                }
                body.extend([0xff, 0xff, 0xff, 0xff, 1, 0xff, 0xff, 0xff, 0xff]);
                body
            }
            Ask::Close => Vec::new(),
        }
    }
}

/// The paths that a transaction creates.
fn created(txn: &Txn<'_>, known: &mut Vec<String>) {
    match txn {
        Txn::Create(create) | Txn::Create2(create) => known.push(create.path.to_owned()),
        Txn::Multi(parts) => parts.iter().for_each(|part| created(&part, known)),
        _ => {}
    }
}

proptest! {
    #![proptest_config(Config {
        cases: 500, rng_seed: RngSeed::Fixed(0x5e9), failure_persistence: None, ..Config::default()
    })]

    /// The sequencer may be far ahead of the tree or right behind it: that must not show in any transaction or answer.
    /// This is what lets a batch be decided while the one before it is being written.
    #[test]
    fn how_far_the_tree_lags_behind_changes_nothing(
        asks in prop::collection::vec((0..3i64, ask()), 1..80),
        lags in prop::collection::vec(prop_oneof![3 => Just(0usize), 2 => 1..3usize, 1 => Just(9usize)], 1..80),
    ) {
        let mut at_once = Rig::new();
        let mut known = vec!["/".to_owned()];
        let mut lives = [0, 16, 32];
        let (mut stream, mut entries, mut answers) = (Vec::new(), Vec::new(), Vec::new());
        for (who, ask) in &asks {
            let who = *who as usize;
            let session = SessionId(0x100 + lives[who]);
            if matches!(ask, Ask::Close) {
                lives[who] += 1;
            }
            let body = ask.body(&known);
            let entry = at_once.entry(session, ask.op(), &body);
            created(&TxnEntry::decode(&entry).unwrap().txn, &mut known);
            answers.push(at_once.apply_one().unwrap());
            entries.push(entry);
            stream.push((session, ask.op(), body));
        }
        let mut late = Rig::new();
        let (mut late_entries, mut late_answers) = (Vec::new(), Vec::new());
        for ((session, op, body), lag) in stream.iter().zip(lags.iter().cycle()) {
            late_entries.push(late.entry(*session, *op, body));
            late_answers.extend((0..*lag).map_while(|_| late.apply_one()));
        }
        late_answers.extend(std::iter::from_fn(|| late.apply_one()));
        for (index, (late, at_once)) in late_entries.iter().zip(&entries).enumerate() {
            let line = |bytes| line(&TxnEntry::decode(bytes).unwrap().txn);
            prop_assert_eq!(line(late), line(at_once), "request {}", index);
        }
        prop_assert_eq!(late_entries, entries);
        prop_assert_eq!(late_answers, answers);
        prop_assert_eq!(contents(&late.tree), contents(&at_once.tree));
        prop_assert_eq!(late.tree.ephemeral_count(), at_once.tree.ephemeral_count());
    }
}
