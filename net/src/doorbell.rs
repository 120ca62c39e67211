//! Waking a thread that sleeps in its poll, and only then.
//!
//! Threads pass messages over bounded queues. A wake-up is a system call, so it is made only for a thread that has said that
//! it is about to sleep; a busy thread finds the message by itself when it looks at its queues, which it does before every
//! sleep.
//!
//! **Invariants**: after a message was queued and [`Doorbell::ring`] was called, the receiver looks at its queues again
//! before it sleeps, or does not stay asleep. (Both sides write first and look second, with sequentially consistent order
//! between: at least one sees the other.)

use mio::{Registry, Token, Waker};
use std::io;
use std::sync::atomic::{AtomicBool, Ordering, fence};

/// Wakes one thread.
#[derive(Debug)]
pub struct Doorbell {
    waker: Waker,
    sleeping: AtomicBool,
}

impl Doorbell {
    /// The bell of the thread that polls `registry`; it sees `token` when the bell was rung.
    pub fn new(registry: &Registry, token: Token) -> io::Result<Doorbell> {
        Ok(Doorbell { waker: Waker::new(registry, token)?, sleeping: AtomicBool::new(false) })
    }

    /// The receiver is about to look at its queues for the last time before it sleeps.
    pub fn about_to_sleep(&self) {
        self.sleeping.store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
    }

    /// The receiver is awake.
    pub fn awake(&self) {
        self.sleeping.store(false, Ordering::Relaxed);
    }

    /// Something was queued.
    pub fn ring(&self) {
        fence(Ordering::SeqCst);
        if self.sleeping.load(Ordering::Relaxed) && self.sleeping.swap(false, Ordering::Relaxed) {
            self.waker.wake().expect("writing to one's own eventfd");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crossbeam::queue::ArrayQueue;
    use mio::{Events, Poll};

    #[test]
    fn no_message_is_slept_over() {
        let mut poll = Poll::new().unwrap();
        let bell = Doorbell::new(poll.registry(), Token(0)).unwrap();
        let queue = ArrayQueue::new(16);
        const MESSAGES: u32 = 50_000;
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for n in 0..MESSAGES {
                    while queue.push(n).is_err() {
                        std::hint::spin_loop();
                    }
                    bell.ring();
                }
            });
            let mut events = Events::with_capacity(8);
            let mut expected = 0;
            while expected < MESSAGES {
                bell.about_to_sleep();
                if queue.is_empty() {
                    poll.poll(&mut events, Some(std::time::Duration::from_secs(20))).unwrap();
                    assert!(!events.is_empty(), "slept over message {expected}");
                }
                bell.awake();
                while let Some(n) = queue.pop() {
                    assert_eq!(n, expected);
                    expected += 1;
                }
            }
        });
    }
}
