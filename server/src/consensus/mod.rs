//! ZAB, the atomic broadcast that orders all writes: proposals get zxids from the leader, are acknowledged by members once
//! they are durable there, and are committed when a quorum has acknowledged them.
//!
//! A standalone server is an ensemble of one: it leads, it is its own quorum, and its own durable log is the only vote. The
//! path of its writes is this one and no other.
//!
//! Of an ensemble of several there is more, each a machine by itself that hears messages and gives orders: an [`election`] ends
//! with somebody's [`leadership`], whose epoch the others join as a [`learner`]; what they lack is decided by [`sync`], and a whole history goes
//! to them as [`transfer`] says. The
//! [replica](crate::replica) puts them together; `tests` runs many of them, `exhaustive` a few of them in every order there is.
//!
//! **Not here**: links and time-outs, the log, sessions and requests.

pub mod ensemble;

pub mod election;
pub mod history;
pub mod leadership;
pub mod learner;
pub mod message;
pub mod stretch;
pub mod sync;
pub mod transfer;

pub mod quorum;

pub use election::Election;
pub use ensemble::Ensemble;
pub use quorum::Quorum;

#[cfg(test)]
mod exhaustive;
#[cfg(test)]
mod tests;
