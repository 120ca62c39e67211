//! Sessions that expire, many at once.
//!
//! **Not here**: when one expires ([`crate::requests::session`]).

use super::*;

/// All of them in one step, each of which looked at everything that was on its way, kept the ensemble waiting for longer than
/// `syncLimit`.
#[test]
fn a_hundred_thousand_sessions_expire_a_few_hundred_at_a_time() {
    const MANY: i64 = 100_000;
    let dir = dir();
    let mut rig = Rig::new(&dir);
    let alive = rig.opened(1);
    let Role::Leading(leading) = &mut rig.replica.role else { panic!("it is alone") };
    (0..MANY).for_each(|id| leading.sessions.open(SessionId(1_000_000 + id), Duration::ZERO, None, rig.now.uptime));
    rig.now.uptime += Duration::from_millis(TICK_MS);
    let mut expired = 0;
    while expired < MANY as usize {
        assert!(rig.replica.next_expiry().is_some_and(|at| at <= rig.now.uptime));
        let mut steps = 0;
        while rig.replica.next_expiry().is_some_and(|at| at <= rig.now.uptime) {
            let some = rig.replica.expire(&rig.tree, &mut rig.log.group, rig.now).len();
            assert!((1..=256).contains(&some));
            expired += some;
            steps += 1;
            assert!(steps < 10, "what is on its way is bounded");
        }
        rig.ask(1, alive, 1, Request::Sync(None));
        rig.submit();
        rig.finish();
        assert!(rig.apply().iter().any(|told| told.starts_with("1: 1 ok")), "others are served between them");
    }
    assert_eq!(rig.replica.sessions(), 1);
}
