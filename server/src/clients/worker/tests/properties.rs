//! Any mix of clients, replica and other cores keeps the promises that each [`Client`] checks.

use super::*;

/// A step of a random life of three connections.
#[derive(Clone, Debug)]
enum Step {
    /// A connection sets its own node, which nobody else writes.
    SetOwn(usize),
    /// A connection reads its own node.
    GetOwn(usize),
    Set(usize, usize),
    /// getData, exists or getChildren, with a watch.
    Watch(usize, usize, usize),
    Create(usize, usize),
    Delete(usize, usize),
    Ping(usize),
    /// Somebody on another core changes a node.
    Elsewhere(usize, usize),
    /// The replica applies the oldest writes that it took.
    Apply(usize),
    Cut,
    HandOver,
    Retry,
    Room(usize),
    Read(usize),
    Reconnect(usize),
}

fn step() -> impl Strategy<Value = Step> {
    let (conn, node) = (|| 0..3usize, || 0..3usize);
    prop_oneof![
        4 => conn().prop_map(Step::SetOwn),
        4 => conn().prop_map(Step::GetOwn),
        3 => (conn(), node()).prop_map(|(conn, node)| Step::Set(conn, node)),
        6 => (conn(), 0..3usize, node()).prop_map(|(conn, kind, node)| Step::Watch(conn, kind, node)),
        2 => (conn(), node()).prop_map(|(conn, node)| Step::Create(conn, node)),
        2 => (conn(), node()).prop_map(|(conn, node)| Step::Delete(conn, node)),
        1 => conn().prop_map(Step::Ping),
        6 => (0..3usize, node()).prop_map(|(what, node)| Step::Elsewhere(what, node)),
        8 => (1..4usize).prop_map(Step::Apply),
        2 => Just(Step::Cut),
        3 => Just(Step::HandOver),
        2 => Just(Step::Retry),
        2 => (0..5usize).prop_map(Step::Room),
        2 => conn().prop_map(Step::Read),
        1 => conn().prop_map(Step::Reconnect),
    ]
}

/// One of the three connections, and what it has asked so far.
struct Life {
    slot: u32,
    own: String,
    xid: i32,
    sets: i32,
    /// What its reads of its own node must say, in order.
    expected: Vec<i32>,
}

impl Life {
    fn new(rig: &mut Rig, count: &mut usize) -> Life {
        *count += 1;
        let own = format!("/own{count}");
        rig.elsewhere(create(&own));
        Life { slot: rig.connect(), own, xid: 0, sets: 0, expected: Vec::new() }
    }

    fn ask(&mut self, rig: &mut Rig, request: Request<'_>) {
        self.xid += 1;
        // The runtime reads no socket that the worker does not want to be read.
        if rig.worker.wants_more(self.slot) {
            rig.ask(self.slot, self.xid, request);
        }
    }

    /// Reads what there is, and compares what it said of the own node.
    fn read(&self, rig: &mut Rig) {
        rig.told(self.slot);
        let seen = &rig.clients[&self.slot].own_versions;
        assert_eq!(seen[..], self.expected[..seen.len()], "a read sees its own earlier writes and no later ones");
    }
}

proptest! {
    #![proptest_config(Config {
        cases: 600, rng_seed: RngSeed::Fixed(0x3e41), failure_persistence: None, ..Config::default()
    })]

    /// R1, R2 and R3 for whatever clients, replica and queues do, in whatever order. The clients check what they are
    /// told as they read it; in the end everything was answered and no change of anything watched went untold.
    #[test]
    fn whatever_happens_in_whatever_order_clients_are_told_the_truth(
        steps in prop::collection::vec(step(), 1..120), outstanding_max in prop_oneof![Just(1000usize), 1..8usize],
    ) {
        let mut rig = Rig::with_outstanding_max(outstanding_max);
        let shared = ["/x", "/x/y", "/z"];
        rig.elsewhere(create("/x"));
        let mut count = 0;
        let mut lives: Vec<Life> = (0..3).map(|_| Life::new(&mut rig, &mut count)).collect();
        for step in steps {
            match step {
                Step::SetOwn(conn) => {
                    let life = &mut lives[conn];
                    let own = life.own.clone();
                    life.sets += i32::from(rig.worker.wants_more(life.slot));
                    life.ask(&mut rig, set(&own));
                }
                Step::GetOwn(conn) => {
                    let life = &mut lives[conn];
                    let own = life.own.clone();
                    if rig.worker.wants_more(life.slot) {
                        life.expected.push(life.sets);
                    }
                    life.ask(&mut rig, get(&own));
                }
                Step::Set(conn, node) => lives[conn].ask(&mut rig, set(shared[node])),
                Step::Watch(conn, kind, node) => {
                    // getData of a shared node would be taken for one of the own node.
                    let request = if kind == 0 { children(shared[node]) } else { exists(shared[node]) };
                    lives[conn].ask(&mut rig, request);
                }
                Step::Create(conn, node) => lives[conn].ask(&mut rig, create(shared[node])),
                Step::Delete(conn, node) => lives[conn].ask(&mut rig, delete(shared[node])),
                Step::Ping(conn) => lives[conn].ask(&mut rig, Request::Ping),
                Step::Elsewhere(0, node) => rig.elsewhere(create(shared[node])),
                Step::Elsewhere(1, node) => rig.elsewhere(delete(shared[node])),
                Step::Elsewhere(_, node) => rig.elsewhere(set(shared[node])),
                Step::Apply(n) => {
                    for _ in 0..n {
                        rig.apply();
                    }
                }
                Step::Cut => rig.cut(),
                Step::HandOver => rig.hand_over(),
                Step::Retry => rig.retry(),
                Step::Room(room) => rig.port.room = room,
                Step::Read(conn) => lives[conn].read(&mut rig),
                Step::Reconnect(conn) => {
                    lives[conn].read(&mut rig);
                    rig.close(lives[conn].slot);
                    lives[conn] = Life::new(&mut rig, &mut count);
                }
            }
        }
        rig.settle();
        prop_assert_eq!(rig.worker.outstanding(), 0);
        prop_assert!(!rig.worker.is_stalled());
        for life in &lives {
            life.read(&mut rig);
            let client = &rig.clients[&life.slot];
            prop_assert_eq!(client.own_versions.len(), life.expected.len());
            prop_assert!(client.asked.is_empty() && rig.worker.wants_more(life.slot));
            for ((kind, path), zxid) in &client.watching {
                let stat = rig.tree.find(path).map(|id| rig.tree.stat(id));
                let changed = match kind {
                    WatchKind::Data => stat.map_or(Zxid::ZERO, |stat| stat.mzxid),
                    WatchKind::Child => stat.expect("its deletion would have been told").pzxid,
                };
                prop_assert!(changed <= *zxid, "a change of {} @{} was not told", path, changed.0);
            }
        }
        let watching: usize = rig.clients.values().map(|client| client.watching.len()).sum();
        prop_assert_eq!(watching, rig.worker.watches().len());
    }
}
