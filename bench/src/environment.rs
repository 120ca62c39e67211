//! Where a run took place: without this, its numbers mean nothing to anybody else.
//!
//! **Invariants**: collecting never fails; what cannot be found out is left empty.
//!
//! **Not here**: what the server says about itself ([`crate::load::observe`]).

#![expect(clippy::disallowed_methods, reason = "a report carries its date")]

use serde::Serialize;
use std::fs;
use std::path::Path;
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

/// What a directory lies on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Storage {
    /// The directory, with all links resolved.
    pub dir: String,
    /// `ext4`, `xfs`, `tmpfs`, …
    pub file_system: String,
    /// As the kernel's table of mounts calls it.
    pub device: String,
    /// Of the mount and of the file system.
    pub mount_options: String,
}

impl Storage {
    /// Looks up `dir` in the kernel's table of mounts.
    pub(crate) fn of(dir: &Path) -> Option<Storage> {
        let dir = fs::canonicalize(dir).ok()?;
        storage(&fs::read_to_string("/proc/self/mountinfo").ok()?, &dir)
    }

    /// Whether what is written there is gone after a loss of power, whatever is synced.
    pub(crate) fn is_volatile(&self) -> bool {
        matches!(self.file_system.as_str(), "tmpfs" | "ramfs")
    }
}

/// Finds the mount that holds `dir`: the one with the longest mount point, and of several on one point the last.
fn storage(mountinfo: &str, dir: &Path) -> Option<Storage> {
    let mut found: Option<(usize, Storage)> = None;
    for line in mountinfo.lines() {
        // proc(5): id parent major:minor root point options [optional…] - type source super-options
        let Some((left, right)) = line.split_once(" - ") else { continue };
        let (left, right): (Vec<&str>, Vec<&str>) = (left.split(' ').collect(), right.split(' ').collect());
        let (Some(point), Some(options), [file_system, device, rest @ ..]) = (left.get(4), left.get(5), &right[..])
        else {
            continue;
        };
        let point = unescape(point);
        let depth = Path::new(&point).components().count();
        if dir.starts_with(&point) && found.as_ref().is_none_or(|(deepest, _)| *deepest <= depth) {
            let storage = Storage {
                dir: dir.display().to_string(),
                file_system: (*file_system).to_owned(),
                device: unescape(device),
                mount_options: [&[*options], rest].concat().join(","),
            };
            found = Some((depth, storage));
        }
    }
    found.map(|(_, storage)| storage)
}

/// The kernel writes blanks, tabs, line ends and backslashes as `\ooo`.
fn unescape(field: &str) -> String {
    let codes = [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")];
    codes.iter().fold(field.to_owned(), |field, (code, letter)| field.replace(code, letter))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOUNTS: &str = "\
22 1 259:2 / / rw,relatime shared:1 - ext4 /dev/vda rw,discard
30 22 0:26 / /tmp rw,nosuid - tmpfs tmpfs rw,size=8g
31 30 0:27 / /tmp/two\\040words rw - xfs /dev/sdb rw
32 30 0:28 / /tmp rw - tmpfs later rw
";

    #[test]
    fn the_deepest_mount_holds_a_directory_and_the_last_on_a_point_hides_the_others() {
        let device = |dir: &str| storage(MOUNTS, Path::new(dir)).unwrap().device;
        assert_eq!(device("/home/me"), "/dev/vda");
        assert_eq!(device("/tmp/x"), "later");
        assert_eq!(device("/tmpfoo"), "/dev/vda");
        assert_eq!(device("/tmp/two words/x"), "/dev/sdb");
        let root = storage(MOUNTS, Path::new("/")).unwrap();
        assert_eq!((root.file_system.as_str(), root.mount_options.as_str()), ("ext4", "rw,relatime,rw,discard"));
        assert!(!root.is_volatile() && storage(MOUNTS, Path::new("/tmp")).unwrap().is_volatile());
    }

    #[test]
    fn fields_are_found_by_name() {
        assert_eq!(field("a : 1\nmodel name\t: Fast One\nmodel name: other", "model name").unwrap(), "Fast One");
        assert_eq!(field("", "a"), None);
        assert!(Machine::look().cores > 0);
    }
}
