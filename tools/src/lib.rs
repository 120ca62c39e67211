//! Tools beside the server: [`log`] looks into transaction logs, checks and repairs them; [`snapshot`] does so with snapshots;
//! [`ensemble`] runs several servers on this machine, and [`sim`] simulates whole ensembles. [`tidy`] is for those who build Corral: it holds the rules of the house that neither the compiler nor clippy can.
//!
//! The program is `corral-tool`; each of its subcommands is a module here with its options and a `run`. What they share is how
//! they fail ([`failure`]), and how they write what people and scripts read ([`notation`], [`time`]).
//!
//! **Not here yet**: the shell.

pub mod failure;
pub mod notation;
pub mod time;

pub mod ensemble;
pub mod log;
pub mod sim;
pub mod snapshot;

pub mod tidy;
