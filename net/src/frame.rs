//! Frames: four bytes of length, then that many bytes. The only structure that a stream of either side has.
//!
//! A thread reads its sockets into one scratch buffer and feeds each chunk to the connection's [`Frames`]. Frames that lie
//! whole inside the chunk are handed on without a copy; only the piece of a frame that is still to be completed is kept, so
//! an idle connection holds no buffer at all.
//!
//! **Invariants**: a length is checked before anything is kept for it; what is kept grows with the bytes that arrived, never
//! with what a length claims; after an error no further frame is taken from this stream.
//!
//! **Not here**: sockets, what is in a frame, the four-letter words (the server looks at a connection's first four bytes
//! itself).

use std::ops::ControlFlow;

/// A length that is negative or above the limit. The connection must be closed: there is no next frame to find.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a frame of {len} bytes, but at most {limit} are allowed (jute.maxbuffer)")]
pub struct FrameError {
    /// The length as it was read.
    pub len: i32,
    /// The longest allowed frame, in bytes.
    pub limit: usize,
}

/// Splits a stream into frames.
#[derive(Debug)]
pub struct Frames {
    limit: usize,
    /// The beginning of what has not been handed on: less than one frame, unless the consumer stopped early.
    kept: Vec<u8>,
}

impl Frames {
    /// Frames of at most `limit` bytes (the four of the length not counted).
    pub fn new(limit: usize) -> Frames {
        assert!(limit <= i32::MAX as usize, "a frame's length is a signed 32-bit number");
        Frames { limit, kept: Vec::new() }
    }

    /// Bytes that are kept for later.
    pub fn kept(&self) -> &[u8] {
        &self.kept
    }

    /// Takes the next `chunk` of the stream and hands every complete frame to `each`, in order. When `each` breaks, the
    /// rest is kept; feed an empty chunk to go on.
    ///
    /// # Errors
    /// [`FrameError`] at the first impossible length; frames before it have been handed on.
    pub fn feed(
        &mut self,
        chunk: &[u8],
        mut each: impl FnMut(&[u8]) -> ControlFlow<()>,
    ) -> Result<ControlFlow<()>, FrameError> {
        if self.kept.is_empty() {
            let (used, flow) = split(chunk, self.limit, &mut each)?;
            self.kept.extend_from_slice(&chunk[used..]);
            return Ok(flow);
        }
        self.kept.extend_from_slice(chunk);
        let (used, flow) = split(&self.kept, self.limit, &mut each)?;
        if used == self.kept.len() {
            self.kept = Vec::new();
        } else {
            self.kept.drain(..used);
        }
        Ok(flow)
    }
}

/// Hands on the complete frames at the start of `bytes`; returns how many bytes they took.
fn split(
    bytes: &[u8],
    limit: usize,
    each: &mut impl FnMut(&[u8]) -> ControlFlow<()>,
) -> Result<(usize, ControlFlow<()>), FrameError> {
    let mut used = 0;
    while let Some((head, rest)) = bytes[used..].split_first_chunk::<4>() {
        let len = i32::from_be_bytes(*head);
        let size = usize::try_from(len).ok().filter(|size| *size <= limit).ok_or(FrameError { len, limit })?;
        let Some(frame) = rest.get(..size) else { break };
        used += 4 + size;
        if each(frame).is_break() {
            return Ok((used, ControlFlow::Break(())));
        }
    }
    Ok((used, ControlFlow::Continue(())))
}

/// The frames that [`put_frame`] has made, one behind the other.
pub fn split_frames(mut bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let (head, rest) = bytes.split_first_chunk::<4>()?;
        let (frame, rest) = rest.split_at(u32::from_be_bytes(*head) as usize);
        bytes = rest;
        Some(frame)
    })
}

/// Appends a frame to `out`: room for the length, whatever `body` writes, then the length filled in.
pub fn put_frame(out: &mut Vec<u8>, body: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    out.extend_from_slice(&[0; 4]);
    body(out);
    let len = i32::try_from(out.len() - start - 4).expect("a frame is shorter than 2 GiB");
    out[start..start + 4].copy_from_slice(&len.to_be_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn collect(frames: &mut Frames, chunk: &[u8], into: &mut Vec<Vec<u8>>) -> Result<ControlFlow<()>, FrameError> {
        frames.feed(chunk, |frame| {
            into.push(frame.to_vec());
            ControlFlow::Continue(())
        })
    }

    #[test]
    fn impossible_lengths_are_errors_before_anything_is_kept() {
        for len in [-1, i32::MIN, 11] {
            let mut frames = Frames::new(10);
            assert_eq!(collect(&mut frames, &len.to_be_bytes(), &mut vec![]), Err(FrameError { len, limit: 10 }));
            assert!(frames.kept().is_empty());
        }
    }

    #[test]
    fn a_consumer_may_stop_and_go_on() {
        let mut stream = Vec::new();
        for n in 0..5u8 {
            put_frame(&mut stream, |out| out.extend_from_slice(&[n; 3]));
        }
        let mut frames = Frames::new(10);
        let mut seen = 0;
        let mut stop_at = |limit: usize, chunk: &[u8], frames: &mut Frames| {
            let flow = frames.feed(chunk, |frame| {
                assert_eq!(frame, [seen as u8; 3]);
                seen += 1;
                if seen == limit { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            });
            assert_eq!(flow, Ok(ControlFlow::Break(())));
        };
        stop_at(2, &stream, &mut frames);
        stop_at(4, &[], &mut frames);
        stop_at(5, &[], &mut frames);
        assert!(frames.kept().is_empty());
    }

    proptest! {
        #[test]
        fn the_cut_of_the_stream_does_not_matter(
            bodies in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 0..20),
            cuts in prop::collection::vec(1usize..30, 1..50),
        ) {
            let mut stream = Vec::new();
            bodies.iter().for_each(|body| put_frame(&mut stream, |out| out.extend_from_slice(body)));
            let (mut frames, mut seen, mut rest) = (Frames::new(40), vec![], &stream[..]);
            for cut in cuts.iter().cycle() {
                if rest.is_empty() { break }
                let (chunk, tail) = rest.split_at((*cut).min(rest.len()));
                prop_assert_eq!(collect(&mut frames, chunk, &mut seen), Ok(ControlFlow::Continue(())));
                prop_assert!(frames.kept().len() < 44);
                rest = tail;
            }
            prop_assert_eq!(seen, bodies);
        }
    }
}
