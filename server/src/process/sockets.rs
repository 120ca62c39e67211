//! The sockets of one core: accepting, reading into frames, writing what the worker has to say, closing politely.
//!
//! Readiness is edge-triggered: a socket is read until it has nothing more, or until its worker wants no more of it for now; then
//! it is remembered as readable and read again later. What was read but not wanted stays in its [`Frames`].
//!
//! **Invariants**: a socket's slot here is its connection's slot in the worker; one scratch buffer serves all reads; after a
//! frame that cannot be, nothing more is taken from that connection, and no other one notices.
//!
//! **Not here**: what frames mean ([`crate::clients::worker`]).

use crate::admin::words;
use corral_net::Frames;
use mio::net::TcpStream;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr};
use std::time::Duration;

/// Read at most this much at a time from one socket, so that none keeps the others waiting.
pub(super) const SCRATCH: usize = 64 << 10;
/// Reads of one call of [`Socket::drain`]: who sends on regardless is cut off when its time is over.
const DRAIN_READS: usize = 16;
/// A closed connection is drained this long, so that unread bytes do not turn our last words into a reset.
pub(super) const DRAIN: Duration = Duration::from_secs(1);

/// One client's socket.
pub(super) struct Socket {
    pub(super) stream: TcpStream,
    pub(super) remote: SocketAddr,
    pub(super) frames: Frames,
    pub(super) since: Duration,
    pub(super) since_ms: i64,
    /// The first bytes, until it is known whether they are a four-letter word.
    greeting: Greeting,
    /// There may be something to read.
    pub(super) readable: bool,
    /// The other side has said that it will send no more; what it sent before may still be unread.
    pub(super) half_closed: bool,
    /// The other side's end was read: it is closed once its requests are answered.
    pub(super) ended: bool,
    /// The worker has had every frame that was read.
    pub(super) fed: bool,
    /// It is closing, and has until then to take what is left to send.
    pub(super) close_by: Option<Duration>,
    /// A four-letter word was asked; the answer is sent even to who has shut the other direction (netcat does).
    pub(super) asked: bool,
    /// It is in the core's list of sockets to be read again.
    pub(super) listed: bool,
    pub(super) state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// In use.
    Open,
    /// Our side is shut; whatever still comes is thrown away until the other side shuts too, or until then.
    Draining(Duration),
}

enum Greeting {
    Wanted { bytes: [u8; 4], have: usize },
    Done,
}

/// What a read brought.
pub(super) enum Got {
    /// So many bytes in the scratch buffer, beginning there.
    Bytes(usize, usize),
    /// Nothing for now.
    Nothing,
    /// The other side has shut down, or the connection broke.
    End,
    /// A four-letter word instead of a handshake.
    Word(&'static str),
}

impl Socket {
    pub(super) fn new(
        stream: TcpStream,
        remote: SocketAddr,
        frame_max: usize,
        since: Duration,
        since_ms: i64,
    ) -> Socket {
        Socket {
            stream,
            remote,
            frames: Frames::new(frame_max),
            since,
            since_ms,
            greeting: Greeting::Wanted { bytes: [0; 4], have: 0 },
            readable: true,
            half_closed: false,
            ended: false,
            fed: true,
            close_by: None,
            asked: false,
            listed: false,
            state: State::Open,
        }
    }

    /// Reads once. `scratch` has room for four bytes in front, where the beginning of a split greeting is put back.
    pub(super) fn read(&mut self, scratch: &mut [u8]) -> Got {
        loop {
            return match self.stream.read(&mut scratch[4..]) {
                Ok(0) => Got::End,
                Ok(n) => {
                    // A short read took everything; when more comes, the poll says so. The end may have been told already.
                    self.readable = self.half_closed || n == scratch.len() - 4;
                    self.greet(scratch, n)
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    self.readable = false;
                    Got::Nothing
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(_) => Got::End,
            };
        }
    }

    fn greet(&mut self, scratch: &mut [u8], n: usize) -> Got {
        let Greeting::Wanted { bytes, have } = &mut self.greeting else { return Got::Bytes(4, n) };
        let missing = (4 - *have).min(n);
        bytes[*have..*have + missing].copy_from_slice(&scratch[4..4 + missing]);
        let had = std::mem::replace(have, *have + missing);
        if *have < 4 {
            return Got::Nothing;
        }
        let bytes = *bytes;
        self.greeting = Greeting::Done;
        match words::parse(bytes) {
            Some(word) => Got::Word(word),
            None => {
                // Put back what came in earlier pieces, right in front of what came now.
                scratch[4 - had..4].copy_from_slice(&bytes[..had]);
                Got::Bytes(4 - had, n + had)
            }
        }
    }

    /// Throws away what comes, a little at a time. True when the other side has shut down or the connection broke.
    pub(super) fn drain(&mut self, scratch: &mut [u8]) -> bool {
        for _ in 0..DRAIN_READS {
            match self.stream.read(scratch) {
                Ok(0) => return true,
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    self.readable = false;
                    return false;
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return true,
            }
        }
        false
    }

    /// Writes as much of `bytes` as the socket takes; how much that was.
    pub(super) fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut written = 0;
        while written < bytes.len() {
            match self.stream.write(&bytes[written..]) {
                Ok(n) => written += n,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(written)
    }

    /// Shuts our side: what was written is delivered, then the other side sees the end.
    pub(super) fn shut(&mut self, until: Duration) {
        let _ = self.stream.shutdown(Shutdown::Write);
        self.state = State::Draining(until);
        self.readable = true;
    }
}
