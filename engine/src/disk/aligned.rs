//! Memory that direct I/O accepts: aligned to the largest block, zeroed, and recycled instead of freed.
//!
//! Memory comes in chunks, because fresh pages from the kernel for each batch would cost more than the write. A chunk is handed out
//! as [`Region`]s, one behind the other: whoever has written the beginning of a region splits the rest off and goes on there. Many
//! small batches share a chunk, and what one of them keeps alive is its share of that.
//!
//! **Invariants**: no two regions of a chunk overlap; a frozen region never changes; a chunk goes back to its [`Pool`] when the last
//! region, and the last slice of any, is gone.

use super::BlockSize;
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
        Layout::from_size_align(len, BlockSize::MAX.bytes()).expect("a buffer is far smaller than the address space")
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

    /// Bytes there are, whole blocks of the largest size.
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

/// Lends chunks of one size and takes them back.
#[derive(Clone)]
pub struct Pool {
    size: usize,
    idle: Arc<Mutex<Vec<AlignedBuf>>>,
}

/// How many idle chunks are kept; more are freed.
const IDLE_MAX: usize = 8;

impl Pool {
    /// Chunks of `size` bytes, rounded up to whole blocks.
    pub fn new(size: usize) -> Pool {
        Pool { size: super::round_up(size), idle: Arc::default() }
    }

    /// A chunk, or a larger one made to measure if `len` bytes need that, with whatever its last user left in it.
    pub fn take(&self, len: usize) -> Region {
        let buf = match len > self.size {
            true => AlignedBuf::zeroed(len),
            false => self.idle.lock().pop().unwrap_or_else(|| AlignedBuf::zeroed(self.size)),
        };
        let len = buf.len();
        Region { chunk: Arc::new(Chunk { buf: Some(buf), pool: self.clone() }), start: 0, len }
    }
}

struct Chunk {
    /// Present until dropped.
    buf: Option<AlignedBuf>,
    pool: Pool,
}

impl Chunk {
    fn memory(&self) -> *mut u8 {
        self.buf.as_ref().expect("present until dropped").memory.as_ptr()
    }
}

impl Drop for Chunk {
    fn drop(&mut self) {
        let buf = self.buf.take().expect("dropped once");
        let mut idle = self.pool.idle.lock();
        if buf.len() == self.pool.size && idle.len() < IDLE_MAX {
            idle.push(buf);
        }
    }
}

/// Whole blocks of a chunk, which nobody else has.
pub struct Region {
    chunk: Arc<Chunk>,
    start: usize,
    len: usize,
}

impl Region {
    /// Bytes there are, whole blocks of the log that they were split into.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// All of it.
    pub fn as_slice(&self) -> &[u8] {
        // SAFETY: the chunk's memory is initialized and lives as long as `self.chunk`; `start` and `len` lie within it; regions do
        // not overlap, so nobody writes to these bytes while `self` is borrowed.
        unsafe { std::slice::from_raw_parts(self.chunk.memory().add(self.start), self.len) }
    }

    /// All of it, to write to.
    pub fn as_mut_slice(&mut self) -> &mut [u8] {
        // SAFETY: as above; `&mut self` is the only access to these bytes, and nobody makes a reference to more of the chunk.
        unsafe { std::slice::from_raw_parts_mut(self.chunk.memory().add(self.start), self.len) }
    }

    /// Keeps the first `len` bytes, which are whole blocks, and returns the rest.
    pub fn split_off(&mut self, len: usize) -> Region {
        assert!(len.is_multiple_of(BlockSize::MIN.bytes()) && len <= self.len, "a region is whole blocks");
        let rest = Region { chunk: self.chunk.clone(), start: self.start + len, len: self.len - len };
        self.len = len;
        rest
    }

    /// From now on it never changes.
    pub fn freeze(self) -> Bytes {
        Bytes::from_owner(self)
    }
}

impl AsRef<[u8]> for Region {
    fn as_ref(&self) -> &[u8] {
        self.as_slice()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BLOCK: usize = BlockSize::MIN.bytes();

    #[test]
    fn chunks_are_aligned_and_come_back() {
        let pool = Pool::new(10_000);
        let mut region = pool.take(1);
        assert_eq!((region.len(), region.as_slice().as_ptr() as usize % BlockSize::MAX.bytes()), (12_288, 0));
        region.as_mut_slice()[0] = 7;
        let address = region.as_slice().as_ptr();
        let frozen = region.freeze();
        let slice = frozen.slice(0..1);
        drop(frozen);
        assert_eq!(pool.idle.lock().len(), 0, "a slice is still out");
        drop(slice);
        assert_eq!(pool.take(1).as_slice().as_ptr(), address);
        assert_eq!(pool.take(20_000).len(), 20_480, "larger ones are made to measure");
    }

    #[test]
    fn the_rest_of_a_chunk_is_used_on_while_its_beginning_is_read() {
        let pool = Pool::new(8 * BLOCK);
        let mut first = pool.take(1);
        first.as_mut_slice().fill(1);
        let mut second = first.split_off(BLOCK);
        let first = first.freeze();
        second.as_mut_slice().fill(2);
        let third = second.split_off(7 * BLOCK);
        assert!(third.is_empty() && first.iter().all(|byte| *byte == 1) && second.as_slice().len() == 7 * BLOCK);
        assert_eq!(first.as_ptr() as usize + BLOCK, second.as_slice().as_ptr() as usize);
        drop((first, third));
        assert_eq!(pool.idle.lock().len(), 0, "one region is still out");
        drop(second);
        assert_eq!(pool.idle.lock().len(), 1);
    }
}
