//! The clients of one core: their connections ([`worker`]), what they watch ([`watch`]), and what the replica has to tell them
//! ([`delivery`]).
//!
//! **Not here**: what requests do ([`crate::replica`]), sockets ([`crate::process`]).

pub mod delivery;
pub mod watch;
pub mod worker;
