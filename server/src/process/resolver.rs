//! Looks up host names without making anybody wait: each in a thread of its own, and what was found comes back through a queue.
//!
//! A resolver that does not answer takes its time-out, 5 s and more, and an election must not wait for that.
//!
//! **Invariant**: at most one lookup for each key is under way.

#![expect(clippy::disallowed_methods, reason = "this is where the threads are made")]

use crossbeam::channel::{Receiver, Sender, unbounded};
use std::collections::BTreeSet;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

/// What was found: an address, or one line that says why there is none.
pub(super) type Found = Result<SocketAddr, String>;

/// How a name is looked up.
type Lookup = Arc<dyn Fn(&str, u16) -> io::Result<Option<SocketAddr>> + Send + Sync>;

/// Lookups for those who are told apart by a `K`.
pub(super) struct Resolver<K> {
    lookup: Lookup,
    wake: Arc<dyn Fn() + Send + Sync>,
    under_way: BTreeSet<K>,
    outbox: Sender<(K, Found)>,
    found: Receiver<(K, Found)>,
}

impl<K: Copy + Ord + Send + 'static> Resolver<K> {
    /// Asks the system; `wake` is called when something was found.
    pub(super) fn new(lookup: Lookup, wake: Arc<dyn Fn() + Send + Sync>) -> Resolver<K> {
        // Bounded by the keys: each has one lookup at most.
        let (outbox, found) = unbounded();
        Resolver { lookup, wake, under_way: BTreeSet::new(), outbox, found }
    }

    /// Begins to look up a name, unless that is under way for this key.
    pub(super) fn ask(&mut self, key: K, host: &str, port: u16) {
        if !self.under_way.insert(key) {
            return;
        }
        let (host, outbox) = (host.to_owned(), self.outbox.clone());
        let (lookup, wake) = (self.lookup.clone(), self.wake.clone());
        let body = move || {
            let found = match lookup(&host, port) {
                Ok(Some(address)) => Ok(address),
                Ok(None) => Err(format!("{host}: the name has no address")),
                Err(error) => Err(format!("{host}: {error}")),
            };
            if outbox.send((key, found)).is_ok() {
                wake();
            }
        };
        if let Err(error) = std::thread::Builder::new().name("resolve".to_owned()).spawn(body) {
            let _ = self.outbox.send((key, Err(format!("cannot start a thread: {error}"))));
        }
    }

    /// The next that was found.
    pub(super) fn next(&mut self) -> Option<(K, Found)> {
        let (key, found) = self.found.try_recv().ok()?;
        self.under_way.remove(&key);
        Some((key, found))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crossbeam::channel::bounded;

    /// The name of one member hung, and votes to all others waited.
    #[test]
    fn a_name_that_hangs_makes_nobody_else_wait() {
        let (go, gate) = bounded::<()>(0);
        let (woken, wakes) = unbounded();
        let lookup: Lookup = Arc::new(move |host, port| {
            if host == "hangs" {
                let _ = gate.recv();
            }
            Ok(Some(SocketAddr::from(([127, 0, 0, 1], port))))
        });
        let mut resolver = Resolver::new(lookup, Arc::new(move || woken.send(()).unwrap_or(())));
        resolver.ask(1, "hangs", 1);
        resolver.ask(1, "hangs", 1);
        resolver.ask(2, "answers", 2);
        wakes.recv().unwrap();
        assert_eq!(resolver.next().map(|(key, found)| (key, found.unwrap().port())), Some((2, 2)));
        assert!(resolver.next().is_none());
        drop(go);
        wakes.recv().unwrap();
        assert_eq!(resolver.next().map(|(key, _)| key), Some(1));
        resolver.ask(1, "nobody", 3);
        wakes.recv().unwrap();
        assert_eq!(resolver.next().map(|(key, found)| (key, found.unwrap().port())), Some((1, 3)));
    }
}
