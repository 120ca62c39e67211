//! What a message to another thread and back costs on this machine: TCP over loopback, without anything else.
//!
//! A synchronous write of a client is at least one echo and one durable append, so latency targets are their sum.
//!
//! **Not here**: the disk.

#![expect(clippy::disallowed_methods, reason = "latency is measured here, and the other side is a thread")]

use super::figures::Sample;
use crate::load::measure::histogram;
use crate::report::Latency;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

/// A `setData` of 100 bytes on the wire, roughly.
const BYTES: usize = 160;
const WARM_UP: u32 = 20;

/// Sends and waits for what comes back, for `time`.
pub(crate) fn measure(time: Duration, stop: &AtomicBool) -> io::Result<Sample> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let mut stream = TcpStream::connect(listener.local_addr()?)?;
    let (other, _) = listener.accept()?;
    stream.set_nodelay(true)?;
    other.set_nodelay(true)?;
    let thread = thread::Builder::new().name("echo".to_owned()).spawn(move || send_back(other))?;
    let mut message = [7; BYTES];
    let mut echo = || -> io::Result<()> {
        stream.write_all(&message)?;
        stream.read_exact(&mut message)
    };
    (0..WARM_UP).try_for_each(|_| echo())?;
    let mut latencies = histogram();
    let start = Instant::now();
    let mut now = start;
    while now - start < time && !stop.load(Relaxed) {
        echo()?;
        let before = std::mem::replace(&mut now, Instant::now());
        latencies.saturating_record((now - before).as_nanos() as u64);
    }
    drop(stream);
    // It ends because the connection has.
    let _ = thread.join();
    Ok(Sample { latency: Latency::of(&latencies), seconds: (now - start).as_secs_f64(), cpu_us: 0.0 })
}

fn send_back(mut stream: TcpStream) {
    let mut message = [0; BYTES];
    while stream.read_exact(&mut message).and_then(|()| stream.write_all(&message)).is_ok() {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_come_back() {
        let sample = measure(Duration::from_millis(20), &AtomicBool::new(false)).unwrap();
        assert!(sample.latency.count > 10 && sample.latency.p50 > 0.0 && sample.seconds >= 0.02, "{sample:?}");
    }
}
