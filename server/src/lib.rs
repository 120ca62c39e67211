//! The server: what decides, the threads that drive it, and its face to operators.
//!
//! The rooms, from the ground up; each uses those before it only:
//! - [`consensus`]: who leads, what is committed (ZAB), and whole histories on their way to learners;
//! - [`requests`]: what a request becomes: checks, access, sessions, transactions, answers;
//! - [`clients`]: connections of clients, in order, with what they watch;
//! - [`replica`]: one member of the ensemble: it decides, orders, logs, applies and answers;
//! - [`config`], [`admin`]: what operators write and read;
//! - [`machine`]: in which order a core does all that;
//! - [`process`]: threads, sockets, directories, the start.
//!
//! All of these except `process` are free of clocks, sockets and threads, and touch files through the engine only. The clippy
//! configuration holds that line.

pub mod budget;
pub mod mutation;

pub mod consensus;

pub mod requests;

pub mod clients;

pub mod replica;

pub mod stages;

pub mod config;

pub mod admin;

pub mod machine;

pub mod process;
