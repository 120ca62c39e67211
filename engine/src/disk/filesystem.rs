//! What a directory lies on: file system, mount options, device. For people who read a banner or a report.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// Where a directory lies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileSystem {
    /// `ext4`, `xfs`, `tmpfs`, …
    pub kind: String,
    /// What is mounted: a block device, mostly.
    pub source: String,
    /// Where it is mounted.
    pub mount_point: String,
    /// With which options.
    pub options: String,
}

impl FileSystem {
    /// Finds out by the mount table; `None` where that cannot be read.
    pub fn of(path: &Path) -> Option<FileSystem> {
        let device = fs::metadata(path).ok()?.dev();
        let wanted = format!("{}:{}", libc::major(device), libc::minor(device));
        let path = path.canonicalize().ok()?;
        parse(&fs::read_to_string("/proc/self/mountinfo").ok()?, &wanted, path.to_str()?)
    }

    /// Whether what is written here is gone after a power loss, however it is synced.
    pub fn is_volatile(&self) -> bool {
        matches!(self.kind.as_str(), "tmpfs" | "ramfs")
    }
}

/// Picks the innermost mount of `device` (or, where a file system shows another number than its mount, of the path).
fn parse(table: &str, device: &str, path: &str) -> Option<FileSystem> {
    let mut best: Option<(bool, usize, FileSystem)> = None;
    for line in table.lines() {
        let (left, right) = line.split_once(" - ")?;
        let left: Vec<&str> = left.split(' ').collect();
        let right: Vec<&str> = right.split(' ').collect();
        let ([_, _, number, _, mount_point, options, ..], [kind, source, super_options, ..]) = (&left[..], &right[..])
        else {
            continue;
        };
        let inside = *mount_point == "/" || path == *mount_point || path.starts_with(&format!("{mount_point}/"));
        if !inside {
            continue;
        }
        let rank = (*number == device, mount_point.len());
        if best.as_ref().is_none_or(|(same, len, _)| rank >= (*same, *len)) {
            let found = FileSystem {
                kind: (*kind).to_owned(),
                source: (*source).to_owned(),
                mount_point: (*mount_point).to_owned(),
                options: format!("{options},{super_options}"),
            };
            best = Some((rank.0, rank.1, found));
        }
    }
    best.map(|(_, _, found)| found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_innermost_mount_of_the_device_is_meant() {
        let table = "22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw\n\
                     30 22 8:2 / /data rw,noatime - xfs /dev/sdb1 rw,attr2\n\
                     31 22 0:30 / /data/tmp rw - tmpfs tmpfs rw\n";
        let of = |device, path| parse(table, device, path).unwrap();
        assert_eq!(of("8:2", "/data/log").kind, "xfs");
        assert_eq!(of("8:2", "/data/log").source, "/dev/sdb1");
        assert_eq!(of("8:1", "/database").mount_point, "/");
        assert!(of("0:30", "/data/tmp/x").is_volatile());
    }
}
