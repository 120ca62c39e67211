//! Bytes on wires: frames, listeners, bells between threads, and the small client that bench and tools share.
//!
//! **Not here**: the tree, the log, ZAB: nothing in this crate knows what a request means.

pub mod frame;
pub mod listener;

pub mod doorbell;

pub mod client;

pub use doorbell::Doorbell;
pub use frame::{FrameError, Frames, put_frame, split_frames};
