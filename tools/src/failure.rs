//! How a tool ends when it could not do what it was told: one line on stderr, and an exit code that a script can use.
//!
//! Exit codes: 0 fine, 1 when something is damaged or failed, 2 for wrong input. Nobody reading the output any more
//! (`| head`) is no failure.

use corral_engine::StorageError;
use std::fmt;
use std::io;

/// Why a tool stops.
#[derive(Debug)]
pub enum Failure {
    /// It was told something impossible.
    Usage(String),
    /// It failed, or what it looked at is damaged.
    Failed(String),
    /// Its output could not be written.
    Output(io::Error),
}

impl Failure {
    /// What the process exits with.
    pub fn code(&self) -> u8 {
        match self {
            Failure::Usage(_) => 2,
            Failure::Failed(_) => 1,
            Failure::Output(_) if self.is_quiet() => 0,
            Failure::Output(_) => 1,
        }
    }

    /// True when there is nothing to say: whoever read the output has seen enough.
    pub fn is_quiet(&self) -> bool {
        matches!(self, Failure::Output(error) if error.kind() == io::ErrorKind::BrokenPipe)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Usage(why) | Failure::Failed(why) => f.write_str(why),
            Failure::Output(error) => write!(f, "cannot write the output: {error}"),
        }
    }
}

impl From<StorageError> for Failure {
    fn from(error: StorageError) -> Failure {
        Failure::Failed(error.to_string())
    }
}

/// For writes to the output; errors of other files carry their path ([`StorageError`]).
impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Failure {
        Failure::Output(error)
    }
}
