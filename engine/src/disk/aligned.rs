//! Memory that direct I/O accepts: aligned to the block, zeroed, and recycled instead of freed.
//!
//! The pool exists because a batch buffer is a megabyte: fresh pages from the kernel for each batch would cost more than the
//! write. A buffer is lent out as [`Bytes`], sliced without copies for the log and for whoever else needs a record; it comes
//! back by itself when the last slice is dropped.

use super::BLOCK;
use bytes::Bytes;
use parking_lot::Mutex;
use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::ptr::NonNull;
use std::sync::Arc;

/// A block-aligned, initialized piece of memory.
pub struct AlignedBuf {
    memory: NonNull<u8>,
    len: usize,
}

// SAFETY: the memory is owned by this value alone and is plain bytes.
unsafe impl Send for AlignedBuf {}
// SAFETY: shared access only reads.
unsafe impl Sync for AlignedBuf {}

impl AlignedBuf {
    /// `len` zero bytes, rounded up to whole blocks.
    pub fn zeroed(len: usize) -> AlignedBuf {
        let len = super::round_up(len.max(1));
        let layout = AlignedBuf::layout(len);
        // SAFETY: the layout has a size above zero.
        let memory = unsafe { alloc_zeroed(layout) };
        AlignedBuf { memory: NonNull::new(memory).unwrap_or_else(|| handle_alloc_error(layout)), len }
    }

    fn layout(len: usize) -> Layout {
        Layout::from_size_align(len, BLOCK).expect("a buffer is far smaller than the address space")
    }

    /// All of it.
    pub fn as_slice(&self) -> &[u8] {
        // SAFETY: `memory` is valid for `len` initialized bytes as long as `self` lives.
        unsafe { std::slice::from_raw_parts(self.memory.as_ptr(), self.len) }
    }

    /// All of it, to write to.
    pub fn as_mut_slice(&mut self) -> &mut [u8] {
        // SAFETY: as above, and `&mut self` is the only access.
        unsafe { std::slice::from_raw_parts_mut(self.memory.as_ptr(), self.len) }
    }

    /// Bytes there are, a multiple of [`BLOCK`].
    pub fn len(&self) -> usize {
        self.len
    }

    /// Never: a buffer has at least one block.
    pub fn is_empty(&self) -> bool {
        false
    }
}

impl Drop for AlignedBuf {
    fn drop(&mut self) {
        // SAFETY: allocated in `zeroed` with this very layout.
        unsafe { dealloc(self.memory.as_ptr(), AlignedBuf::layout(self.len)) }
    }
}

impl AsRef<[u8]> for AlignedBuf {
    fn as_ref(&self) -> &[u8] {
        self.as_slice()
    }
}

/// Lends buffers of one size and takes them back.
#[derive(Clone)]
pub struct Pool {
    size: usize,
    idle: Arc<Mutex<Vec<AlignedBuf>>>,
}

/// How many idle buffers are kept; more are freed.
const IDLE_MAX: usize = 8;

impl Pool {
    /// Buffers of `size` bytes, rounded up to whole blocks.
    pub fn new(size: usize) -> Pool {
        Pool { size: super::round_up(size), idle: Arc::default() }
    }

    /// A buffer of at least `len` bytes, with whatever its last user left in it.
    pub fn take(&self, len: usize) -> AlignedBuf {
        if len > self.size {
            return AlignedBuf::zeroed(len);
        }
        self.idle.lock().pop().unwrap_or_else(|| AlignedBuf::zeroed(self.size))
    }

    /// Freezes a buffer. It returns to the pool when the last slice of it is gone.
    pub fn freeze(&self, buf: AlignedBuf) -> Bytes {
        Bytes::from_owner(Lent { buf: Some(buf), pool: self.clone() })
    }
}

struct Lent {
    buf: Option<AlignedBuf>,
    pool: Pool,
}

impl AsRef<[u8]> for Lent {
    fn as_ref(&self) -> &[u8] {
        self.buf.as_ref().expect("present until dropped").as_slice()
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        let buf = self.buf.take().expect("dropped once");
        let mut idle = self.pool.idle.lock();
        if buf.len() == self.pool.size && idle.len() < IDLE_MAX {
            idle.push(buf);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_are_aligned_and_come_back() {
        let pool = Pool::new(10_000);
        let mut buf = pool.take(1);
        assert_eq!((buf.len(), buf.as_slice().as_ptr() as usize % BLOCK), (12_288, 0));
        buf.as_mut_slice()[0] = 7;
        let address = buf.as_slice().as_ptr();
        let frozen = pool.freeze(buf);
        let slice = frozen.slice(0..1);
        drop(frozen);
        assert_eq!(pool.idle.lock().len(), 0, "a slice is still out");
        drop(slice);
        assert_eq!(pool.take(1).as_slice().as_ptr(), address);
        assert_eq!(pool.take(20_000).len(), 20_480, "larger ones are made to measure");
    }
}
