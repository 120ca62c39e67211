//! Tools beside the server: [`log`] looks into transaction logs, checks and repairs them. [`tidy`] is for those who build
//! Corral: it holds the rules of the house that neither the compiler nor clippy can.
//!
//! The program is `corral-tool`; each of its subcommands is a module here with its options and a `run`. What they share is how
//! they fail ([`failure`]).
//!
//! **Not here yet**: the shell, the offline tools for snapshots, the simulator.

pub mod failure;
pub mod log;
pub mod tidy;
