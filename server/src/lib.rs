//! The server: what decides, the threads that drive it, and its face to operators.
//!
//! The way of a write, by modules: a socket's frames ([`runtime`]) reach a [`worker`]; it hands writes to the [`replica`],
//! which decides them ([`pipeline`]), orders them ([`zab`]) and logs them (`corral_engine`); durable and voted for, they are
//! applied, answered ([`delivery`]) and told to whoever watches ([`watch`]). In which order a core does all that is [`machine`].
//!
//! All of these except `runtime`, `store`, `banner` and `embedded` are pure: no clock, no socket, no file, no thread. The
//! clippy configuration holds that line.

pub mod config;

pub mod acl;
pub mod delivery;
pub mod machine;
pub mod mutation;
pub mod pipeline;
pub mod replica;
pub mod session;
pub mod stages;
pub mod transfer;
pub mod watch;
pub mod worker;
pub mod zab;

pub mod admin;

pub mod banner;
pub mod embedded;
pub mod runtime;
pub mod store;
