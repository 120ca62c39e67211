//! Where a run took place: without this, its numbers mean nothing to anybody else.
//!
//! **Invariants**: collecting never fails; what cannot be found out is left empty.
//!
//! **Not here**: what the server says about itself (`load/observe.rs`).

#![expect(clippy::disallowed_methods, reason = "a report carries its date")]

use serde::Serialize;
use std::fs;
use std::time::{SystemTime, UNIX_EPOCH};

/// The client's machine and build.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Machine {
    /// Linux's release.
    pub kernel: String,
    /// Cores that this process may use.
    pub cores: usize,
    /// As the first one calls itself.
    pub cpu_model: String,
    /// Memory in MiB.
    pub memory_mib: u64,
    /// Of this program.
    pub client_version: &'static str,
    /// `release`, or `debug`, whose numbers are worth nothing.
    pub build_profile: &'static str,
    /// Seconds since 1970.
    pub unix_seconds: u64,
}

impl Machine {
    /// Looks around.
    pub(crate) fn look() -> Machine {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        Machine {
            kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            cpu_model: field(&read("/proc/cpuinfo"), "model name").unwrap_or_default(),
            memory_mib: field(&read("/proc/meminfo"), "MemTotal")
                .and_then(|total| total.split(' ').next()?.parse::<u64>().ok())
                .map_or(0, |kib| kib / 1024),
            client_version: env!("CARGO_PKG_VERSION"),
            build_profile: if IS_DEBUG { "debug" } else { "release" },
            unix_seconds: SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs()),
        }
    }
}

/// Whether this build was made to be debugged.
pub(crate) const IS_DEBUG: bool = cfg!(debug_assertions);

/// The value of the first line `name : value`.
fn field(text: &str, name: &str) -> Option<String> {
    let mut pairs = text.lines().filter_map(|line| line.split_once(':'));
    pairs.find(|(key, _)| key.trim() == name).map(|(_, value)| value.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_found_by_name() {
        assert_eq!(field("a : 1\nmodel name\t: Fast One\nmodel name: other", "model name").unwrap(), "Fast One");
        assert_eq!(field("", "a"), None);
        assert!(Machine::look().cores > 0);
    }
}
