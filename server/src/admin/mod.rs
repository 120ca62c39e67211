//! What operators ask a running server: the four-letter words on the client port, and the numbers behind them.
//!
//! **Not here**: how the numbers get from the cores to whoever asks ([`crate::process`]).

pub mod environment;
pub mod metrics;
pub mod report;
pub mod words;

pub use report::{ConnReport, CoreReport, ServerReport};
