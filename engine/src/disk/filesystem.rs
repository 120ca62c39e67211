//! What a directory lies on: file system, device, mount options. For people who read a banner or a report.
//!
//! **Invariant**: looking never fails; what cannot be found out is left out.

use serde::Serialize;
use std::fs;
use std::path::Path;

/// Size in bytes of the file system that holds `dir`, used or not; none where the system does not say.
pub fn volume_bytes(dir: &Path) -> Option<u64> {
    let system = rustix::fs::statvfs(dir).ok()?;
    system.f_blocks.checked_mul(system.f_frsize).filter(|bytes| *bytes > 0)
}

/// Where a directory lies.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FileSystem {
    /// The directory, with all links resolved.
    pub dir: String,
    /// `ext4`, `xfs`, `tmpfs`, …
    #[serde(rename = "file_system")]
    pub kind: String,
    /// What is mounted, as the kernel's table of mounts calls it: a block device, mostly.
    pub device: String,
    /// Options of the mount and of the file system.
    #[serde(rename = "mount_options")]
    pub options: String,
}

impl FileSystem {
    /// Looks up `dir` in the kernel's table of mounts.
    pub fn of(dir: &Path) -> Option<FileSystem> {
        let dir = fs::canonicalize(dir).ok()?;
        find(&fs::read_to_string("/proc/self/mountinfo").ok()?, &dir)
    }

    /// Whether what is written there is gone after a power loss, whatever is synced.
    pub fn is_volatile(&self) -> bool {
        matches!(self.kind.as_str(), "tmpfs" | "ramfs")
    }

    /// Whether another process or another host writes to the device: how long a write takes, and whether it is durable, is its word then.
    pub fn is_served(&self) -> bool {
        let served = ["nfs", "nfs4", "cifs", "smb3", "9p", "virtiofs", "ceph", "lustre", "afs"];
        self.kind.starts_with("fuse") || served.contains(&self.kind.as_str())
    }

    /// Whether it takes `O_DIRECT` and writes data into its journal first, through the page cache. Kernels before 6.1 do not say so.
    pub(super) fn journals_data(&self) -> bool {
        self.kind.starts_with("ext") && self.options.split(',').any(|option| option == "data=journal")
    }
}

/// Finds the mount that holds `dir`: the one with the deepest mount point, and of several on one point the last.
fn find(mountinfo: &str, dir: &Path) -> Option<FileSystem> {
    let mut found: Option<(usize, FileSystem)> = None;
    for line in mountinfo.lines() {
        // proc(5): id parent major:minor root point options [optional…] - type source super-options
        let Some((left, right)) = line.split_once(" - ") else { continue };
        let (left, right): (Vec<&str>, Vec<&str>) = (left.split(' ').collect(), right.split(' ').collect());
        let (Some(point), Some(options), [kind, device, rest @ ..]) = (left.get(4), left.get(5), &right[..]) else {
            continue;
        };
        let point = unescape(point);
        let depth = Path::new(&point).components().count();
        if dir.starts_with(&point) && found.as_ref().is_none_or(|(deepest, _)| *deepest <= depth) {
            let file_system = FileSystem {
                dir: dir.display().to_string(),
                kind: (*kind).to_owned(),
                device: unescape(device),
                options: [&[*options], rest].concat().join(","),
            };
            found = Some((depth, file_system));
        }
    }
    found.map(|(_, file_system)| file_system)
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
        let device = |dir: &str| find(MOUNTS, Path::new(dir)).unwrap().device;
        assert_eq!(device("/home/me"), "/dev/vda");
        assert_eq!(device("/tmp/x"), "later");
        assert_eq!(device("/tmpfoo"), "/dev/vda");
        assert_eq!(device("/tmp/two words/x"), "/dev/sdb");
        let root = find(MOUNTS, Path::new("/")).unwrap();
        assert_eq!((root.kind.as_str(), root.options.as_str()), ("ext4", "rw,relatime,rw,discard"));
        assert!(!root.is_volatile() && find(MOUNTS, Path::new("/tmp")).unwrap().is_volatile());
    }

    #[test]
    fn what_is_no_device_of_this_host_and_what_is_not_direct_is_known() {
        let of = |kind: &str, options: &str| {
            let mounts = format!("22 1 0:2 / / rw shared:1 - {kind} from {options}");
            find(&mounts, Path::new("/x")).unwrap()
        };
        assert!(of("fuse.sshfs", "rw").is_served() && of("nfs4", "rw").is_served() && !of("xfs", "rw").is_served());
        assert!(of("ext4", "rw,data=journal").journals_data() && !of("ext4", "rw,data=ordered").journals_data());
    }
}
