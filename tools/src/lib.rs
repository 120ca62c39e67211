//! Tools beside the server. So far they are for those who build it: [`tidy`] holds the rules of the house that neither the
//! compiler nor clippy can.
//!
//! **Not here yet**: the shell, the offline tools for logs and snapshots, the simulator.

pub mod tidy;
