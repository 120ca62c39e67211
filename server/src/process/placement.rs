//! Which core a new connection lives on.
//!
//! A write whose connection lives on the replica's core needs no hand-off between threads, and a hand-off costs as much as
//! everything else that the server does for a write. So the first connections live there, whichever core accepted them; only
//! when there are many does the kernel's own spreading stand, because then that core has enough to do.

/// Connections that the replica's core takes before others do.
const AT_HOME: usize = 32;

/// The core for a connection that `accepting` has accepted; `count` says how many live where.
pub(super) fn home(accepting: usize, own_core: bool, count: impl Fn(usize) -> usize) -> usize {
    if !own_core && count(0) < AT_HOME { 0 } else { accepting }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_live_with_the_replica_and_many_where_they_came() {
        assert_eq!(home(1, false, |_| 0), 0);
        assert_eq!(home(1, false, |_| AT_HOME), 1);
        assert_eq!(home(0, false, |_| AT_HOME), 0);
        assert_eq!(home(1, true, |_| 0), 1);
    }
}
