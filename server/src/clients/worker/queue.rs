//! Bytes that come at the end and go from the front: what is on its way to a socket, and the requests that a connection holds.
//!
//! **Invariant**: an empty queue that was large holds no memory.
//!
//! **Not here**: bounds (whoever puts something in sees to them).

use corral_net::put_frame;

/// The queue.
#[derive(Debug, Default)]
pub struct ByteQueue {
    bytes: Vec<u8>,
    gone: usize,
}

/// A buffer that grew beyond this many bytes is given back once it is empty.
const KEEP: usize = 64 << 10;

impl ByteQueue {
    /// Appends a frame.
    pub fn put_frame(&mut self, body: impl FnOnce(&mut Vec<u8>)) {
        put_frame(&mut self.bytes, body);
    }

    /// Appends bytes that are framed already.
    pub fn extend(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// What is in it.
    pub fn rest(&self) -> &[u8] {
        &self.bytes[self.gone..]
    }

    /// The first `n` bytes go.
    pub fn advance(&mut self, n: usize) {
        self.gone += n;
        if self.gone >= KEEP && self.gone * 2 >= self.bytes.len() {
            // Of a queue that never becomes empty, what has gone must go all the same.
            self.bytes.drain(..self.gone);
            self.gone = 0;
        }
        if self.gone == self.bytes.len() {
            self.gone = 0;
            self.bytes.clear();
            if self.bytes.capacity() > KEEP {
                self.bytes = Vec::new();
            }
        }
    }
}
