//! Names and data: byte strings of any length, millions of them, with next to nothing around each.
//!
//! Short ones lie in slots, and the slots of one size in a row without a hole: when one is removed, the last of the row takes its
//! place. So what is stored takes what it needs, however often strings come, go and change their length. Each slot begins with the
//! number of the string's owner, who has to be told where it is now ([`Moved`]). A general allocator has a header, rounds up to 16, and
//! cannot move anything: a name of 10 and data of 100 bytes take 128 bytes there, and 116 here. Long strings, where that does not
//! matter, are allocations of their own.
//!
//! A row is made of chunks, so that it grows and shrinks without being copied.
//!
//! **Invariants**: of each row, exactly the first `used` slots hold a string; it has at most one chunk more than these need.
//!
//! **Not here**: what the bytes mean ([`super::nodes`]).

use slab::Slab;

/// Sizes of slots are multiples of this.
const UNIT: usize = 4;
/// What stands before a string in its slot.
const OWNER: usize = size_of::<u32>();
/// The longest string that lies in a slot.
const SHORT_MAX: usize = 1024;
/// The size of a chunk at most. Large, so that the addresses of all chunks of a million strings fit into a processor's nearest cache; a
/// page of a chunk that was never written to takes no memory.
const CHUNK_BYTES_MAX: usize = 256 << 10;

/// Where a string is and how long it is. Means nothing outside of its heap.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stored {
    len: u32,
    /// The slot's number in its row; of a long string, the number of the allocation.
    at: u32,
}

impl Stored {
    pub(super) fn len(self) -> usize {
        self.len as usize
    }

    /// The number of the row; `None` for a long string.
    fn row(self) -> Option<usize> {
        row(self.len())
    }
}

/// The string of `owner` has another place.
#[derive(Clone, Copy, Debug)]
#[must_use]
pub(super) struct Moved {
    pub(super) owner: u32,
    from: u32,
    to: u32,
}

impl Moved {
    /// Corrects what the owner has.
    pub(super) fn tell(self, stored: &mut Stored) {
        assert_eq!(stored.at, self.from, "the owner of a string knows where it is");
        stored.at = self.to;
    }
}

#[derive(Debug)]
struct Row {
    slot_bytes: usize,
    /// The slots of a chunk are a power of two, and this is which.
    chunk_shift: u32,
    chunks: Vec<Box<[u8]>>,
    used: u32,
}

impl Row {
    fn new(slot_bytes: usize) -> Row {
        Row { slot_bytes, chunk_shift: (CHUNK_BYTES_MAX / slot_bytes).ilog2(), chunks: Vec::new(), used: 0 }
    }

    /// Chunks with a string in them.
    fn needed(&self) -> usize {
        self.used.div_ceil(1 << self.chunk_shift) as usize
    }

    /// In which chunk a slot is, and where it begins there.
    fn place(&self, at: u32) -> (usize, usize) {
        let in_chunk = at & ((1 << self.chunk_shift) - 1);
        ((at >> self.chunk_shift) as usize, in_chunk as usize * self.slot_bytes)
    }

    /// The slot from its beginning to the end of its chunk.
    fn slot(&self, at: u32) -> &[u8] {
        let (chunk, begin) = self.place(at);
        &self.chunks[chunk][begin..]
    }

    fn slot_mut(&mut self, at: u32) -> &mut [u8] {
        let (chunk, begin) = self.place(at);
        &mut self.chunks[chunk][begin..]
    }

    /// One slot more.
    fn push(&mut self) -> u32 {
        let at = self.used;
        self.used += 1;
        if self.place(at).0 == self.chunks.len() {
            self.chunks.push(vec![0; self.slot_bytes << self.chunk_shift].into());
        }
        at
    }

    /// The last slot takes the place of the one at `at`, and there is one less.
    fn swap_remove(&mut self, at: u32) {
        assert!(at < self.used, "a string is removed once");
        self.used -= 1;
        let (to, from) = (self.place(at), self.place(self.used));
        let (before, last) = self.chunks.split_at_mut(from.0);
        let moved = from.1..from.1 + self.slot_bytes;
        match before.get_mut(to.0) {
            Some(chunk) => chunk[to.1..][..self.slot_bytes].copy_from_slice(&last[0][moved]),
            None => last[0].copy_within(moved, to.1),
        }
        // One empty chunk stays, for what comes and goes at its edge.
        self.chunks.truncate(self.needed() + 1);
    }
}

#[derive(Debug)]
pub(super) struct Heap {
    rows: Vec<Row>,
    long: Slab<Box<[u8]>>,
    /// Of all strings together.
    bytes: u64,
}

impl Default for Heap {
    fn default() -> Heap {
        let rows = (0..=SHORT_MAX.div_ceil(UNIT)).map(|units| Row::new(OWNER + units * UNIT)).collect();
        Heap { rows, long: Slab::new(), bytes: 0 }
    }
}

impl Heap {
    /// Bytes of all strings together.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(super) fn get(&self, stored: Stored) -> &[u8] {
        match stored.row() {
            Some(row) => &self.rows[row].slot(stored.at)[OWNER..][..stored.len()],
            None => &self.long[stored.at as usize],
        }
    }

    fn get_mut(&mut self, stored: Stored) -> &mut [u8] {
        match stored.row() {
            Some(row) => &mut self.rows[row].slot_mut(stored.at)[OWNER..][..stored.len()],
            None => &mut self.long[stored.at as usize],
        }
    }

    /// Stores `head` and `tail` as one string of `owner`.
    pub(super) fn put(&mut self, owner: u32, head: &[u8], tail: &[u8]) -> Stored {
        let len = head.len() + tail.len();
        self.bytes += len as u64;
        let Some(row) = row(len) else {
            let at = self.long.insert([head, tail].concat().into());
            return Stored { len: len as u32, at: at as u32 };
        };
        let stored = Stored { len: len as u32, at: self.rows[row].push() };
        self.rows[row].slot_mut(stored.at)[..OWNER].copy_from_slice(&owner.to_be_bytes());
        let (first, second) = self.get_mut(stored).split_at_mut(head.len());
        first.copy_from_slice(head);
        second.copy_from_slice(tail);
        stored
    }

    /// Keeps the first `keep` bytes of a string of `owner` and puts `tail` in the place of the others.
    pub(super) fn replace(&mut self, owner: u32, old: Stored, keep: usize, tail: &[u8]) -> (Stored, Option<Moved>) {
        let len = keep + tail.len();
        if old.len() == len || old.row().is_some() && old.row() == row(len) {
            let stored = Stored { len: len as u32, ..old };
            self.get_mut(stored)[keep..].copy_from_slice(tail);
            self.bytes = self.bytes + len as u64 - old.len() as u64;
            return (stored, None);
        }
        let head = self.get(old)[..keep].to_vec();
        let stored = self.put(owner, &head, tail);
        (stored, self.remove(old))
    }

    /// Forgets a string. Another may have another place now.
    pub(super) fn remove(&mut self, stored: Stored) -> Option<Moved> {
        self.bytes -= stored.len() as u64;
        let Some(row) = stored.row() else {
            self.long.remove(stored.at as usize);
            return None;
        };
        let row = &mut self.rows[row];
        row.swap_remove(stored.at);
        (stored.at < row.used).then(|| {
            let owner = row.slot(stored.at).first_chunk().expect("a slot begins with its owner");
            Moved { owner: u32::from_be_bytes(*owner), from: row.used, to: stored.at }
        })
    }
}

/// The number of the row for strings of `len` bytes.
fn row(len: usize) -> Option<usize> {
    (len <= SHORT_MAX).then(|| len.div_ceil(UNIT))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    impl Heap {
        /// Bytes that are taken from the allocator for short strings.
        fn chunk_bytes(&self) -> usize {
            self.rows.iter().flat_map(|row| &row.chunks).map(|chunk| chunk.len()).sum()
        }
    }

    /// Strings by owner, with the places that the heap told.
    #[derive(Default)]
    struct Owners {
        heap: Heap,
        strings: Vec<Option<(Stored, Vec<u8>)>>,
    }

    impl Owners {
        fn put(&mut self, bytes: Vec<u8>) {
            let (head, tail) = bytes.split_at(bytes.len() / 3);
            let stored = self.heap.put(self.strings.len() as u32, head, tail);
            self.strings.push(Some((stored, bytes)));
        }

        fn replace(&mut self, owner: usize, tail: &[u8]) {
            let Some((stored, bytes)) = &mut self.strings[owner] else { return };
            let keep = bytes.len() / 2;
            let moved;
            (*stored, moved) = self.heap.replace(owner as u32, *stored, keep, tail);
            bytes.truncate(keep);
            bytes.extend_from_slice(tail);
            self.follow(moved);
        }

        fn remove(&mut self, owner: usize) {
            if let Some((stored, _)) = self.strings[owner].take() {
                let moved = self.heap.remove(stored);
                self.follow(moved);
            }
        }

        fn follow(&mut self, moved: Option<Moved>) {
            if let Some(moved) = moved {
                moved.tell(&mut self.strings[moved.owner as usize].as_mut().expect("only what is there is moved").0);
            }
        }

        fn check(&self) {
            for (stored, bytes) in self.strings.iter().flatten() {
                assert_eq!(self.heap.get(*stored), &bytes[..]);
            }
            let bytes: usize = self.strings.iter().flatten().map(|(_, bytes)| bytes.len()).sum();
            assert_eq!(self.heap.bytes(), bytes as u64);
            for row in &self.heap.rows {
                assert!((row.needed()..=row.needed() + 1).contains(&row.chunks.len()));
            }
        }
    }

    #[derive(Clone, Debug)]
    enum Step {
        Put(usize, u8),
        Replace(usize, usize, u8),
        Remove(usize),
    }

    /// Mostly large slots, so that there are rows of several chunks.
    fn len() -> impl Strategy<Value = usize> {
        prop_oneof![2 => 0..64usize, 6 => 1000..1040usize, 1 => 0..3000usize]
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            (len(), any::<u8>()).prop_map(|(len, byte)| Step::Put(len, byte)),
            (any::<usize>(), len(), any::<u8>()).prop_map(|(at, len, byte)| Step::Replace(at, len, byte)),
            any::<usize>().prop_map(Step::Remove),
        ];
        prop::collection::vec(step, 1..100)
    }

    proptest! {
        #[test]
        fn every_string_stays_what_it_is(steps in steps(), repeat in 1..40usize) {
            let mut owners = Owners::default();
            for step in steps {
                for nth in 0..repeat {
                    let pick = |at: usize| at.wrapping_add(nth) % owners.strings.len().max(1);
                    match step {
                        Step::Put(len, byte) => owners.put(vec![byte; len]),
                        _ if owners.strings.is_empty() => {}
                        Step::Replace(at, len, byte) => owners.replace(pick(at), &vec![byte; len]),
                        Step::Remove(at) => owners.remove(pick(at)),
                    }
                }
                owners.check();
            }
        }
    }

    /// Clients that write nodes anew, longer and longer, and a few not, must not leave a tree's worth of memory behind each time.
    #[test]
    fn what_is_stored_takes_what_it_needs_whatever_was_stored_before() {
        let mut owners = Owners::default();
        (0..4000).for_each(|_| owners.put(vec![1; 100]));
        for len in (200..900).step_by(100) {
            (0..4000).filter(|owner| owner % 50 != len / 100).for_each(|owner| owners.replace(owner, &vec![2; len]));
            owners.check();
            let strings = owners.heap.bytes() as usize + 4000 * (OWNER + UNIT);
            let spare = owners.heap.rows.iter().filter(|row| !row.chunks.is_empty()).count() * 2 * CHUNK_BYTES_MAX;
            assert!(owners.heap.chunk_bytes() < strings + spare, "{}", owners.heap.chunk_bytes());
        }
    }
}
