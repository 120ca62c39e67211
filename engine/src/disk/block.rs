//! The block device under a directory, as the kernel describes it in `/sys`: what kind of disk, its block sizes, its write
//! cache. For people who read a banner or a report.
//!
//! A directory's device number (the same that `/proc/self/mountinfo` shows) leads to `/sys/dev/block/MAJOR:MINOR`; a
//! partition leads up to its disk, a loop device on to the device that holds its file, and dm and md to those below them.
//!
//! **Invariants**: looking never fails; what cannot be found out is left out.
//!
//! **Not here**: the file system and its mount ([`super::filesystem`]); how fast the device is.

use super::filesystem::FileSystem;
use serde::Serialize;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// So many devices on top of each other are followed; more would be a circle.
const DEPTH_MAX: usize = 8;

/// A disk, real or made up of others.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct BlockDevice {
    /// The kernel's name of the disk: `nvme0n1`, `dm-0`.
    pub name: String,
    /// The partition of it, if it is not the whole.
    pub partition: Option<String>,
    /// What its maker calls it; what a device mapper calls its volume.
    pub model: Option<String>,
    /// The driver that serves it: `nvme`, `sd`, `virtio_blk`.
    pub driver: Option<String>,
    /// Whether it turns, or says so: virtual disks mostly claim to.
    pub rotational: Option<bool>,
    /// The least that can be written: offsets and lengths of direct I/O are multiples of it.
    pub logical_block_bytes: Option<u64>,
    /// The least that is written without reading first, and that a power loss does not tear.
    pub physical_block_bytes: Option<u64>,
    /// `write back`: data may be in a volatile cache, and the kernel flushes it; `write through`: it never does.
    pub write_cache: Option<String>,
    /// Whether one command writes and makes durable; without, it is a write and a flush.
    pub fua: Option<bool>,
    /// The I/O scheduler that is on.
    pub scheduler: Option<String>,
    /// The file behind a loop device.
    pub file: Option<String>,
    /// What this one is made of.
    pub below: Vec<BlockDevice>,
}

impl BlockDevice {
    /// The device under `path`; none for file systems that have none, such as tmpfs and those of a network.
    pub fn of(path: &Path) -> Option<BlockDevice> {
        find(Path::new("/sys"), path, DEPTH_MAX)
    }

    /// The largest physical block of this device and of all below it. None where that is not known: a loop device, for one, says
    /// nothing of what its file lies on.
    pub fn largest_physical_block(&self) -> Option<u64> {
        if self.file.is_some() && self.below.is_empty() {
            return None;
        }
        let below: Option<Vec<u64>> = self.below.iter().map(BlockDevice::largest_physical_block).collect();
        below?.into_iter().chain(self.physical_block_bytes).max()
    }
}

fn find(sys: &Path, path: &Path, depth: usize) -> Option<BlockDevice> {
    let depth = depth.checked_sub(1)?;
    let by_number = |number: u64| {
        let name = format!("{}:{}", libc::major(number), libc::minor(number));
        look(sys, &sys.join("dev/block").join(name), depth)
    };
    by_number(fs::metadata(path).ok()?.dev()).or_else(|| {
        // File systems that span devices (btrfs) have made-up numbers; the mount names one of the devices.
        by_number(fs::metadata(FileSystem::of(path)?.device).ok()?.rdev())
    })
}

/// Reads the folder of a disk or a partition.
fn look(sys: &Path, folder: &Path, depth: usize) -> Option<BlockDevice> {
    let depth = depth.checked_sub(1)?;
    let folder = fs::canonicalize(folder).ok()?;
    let name = |folder: &Path| Some(folder.file_name()?.to_string_lossy().into_owned());
    let (disk, partition) =
        if folder.join("partition").exists() { (folder.parent()?, name(&folder)) } else { (folder.as_path(), None) };
    let read = |path: &str| {
        let text = fs::read_to_string(disk.join(path)).ok()?.trim().to_owned();
        (!text.is_empty()).then_some(text)
    };
    let number = |path: &str| read(path)?.parse::<u64>().ok();
    let file = read("loop/backing_file");
    let mut below: Vec<BlockDevice> =
        file.iter().filter_map(|file| find(sys, Path::new(file.trim_end_matches(" (deleted)")), depth)).collect();
    let mut slaves: Vec<PathBuf> =
        fs::read_dir(disk.join("slaves")).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
    slaves.sort();
    below.extend(slaves.iter().filter_map(|slave| look(sys, slave, depth)));
    Some(BlockDevice {
        name: name(disk)?,
        partition,
        model: ["device/model", "device/name", "dm/name", "md/level"].into_iter().find_map(read),
        driver: fs::canonicalize(disk.join("device/driver")).ok().and_then(|driver| name(&driver)),
        rotational: number("queue/rotational").map(|is| is != 0),
        logical_block_bytes: number("queue/logical_block_size"),
        physical_block_bytes: number("queue/physical_block_size"),
        write_cache: read("queue/write_cache"),
        fua: number("queue/fua").map(|has| has != 0),
        scheduler: read("queue/scheduler").map(|list| chosen(&list)),
        file,
        below,
    })
}

/// The one in brackets of `none [mq-deadline] bfq`; a list of one has none.
fn chosen(list: &str) -> String {
    let inside = list.split_once('[').and_then(|(_, rest)| rest.split_once(']'));
    inside.map_or(list, |(name, _)| name).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    /// A `/sys` with an NVMe disk that has one partition, and a volume on that partition.
    fn make_sys(sys: &Path) {
        let files = [
            ("devices/nvme0/model", "Fast One 2TB          \n"),
            ("devices/nvme0/nvme0n1/queue/rotational", "0\n"),
            ("devices/nvme0/nvme0n1/queue/logical_block_size", "512\n"),
            ("devices/nvme0/nvme0n1/queue/physical_block_size", "4096\n"),
            ("devices/nvme0/nvme0n1/queue/write_cache", "write back\n"),
            ("devices/nvme0/nvme0n1/queue/fua", "1\n"),
            ("devices/nvme0/nvme0n1/queue/scheduler", "[none] mq-deadline kyber\n"),
            ("devices/nvme0/nvme0n1/nvme0n1p2/partition", "2\n"),
            ("devices/virtual/dm-0/dm/name", "vg-log\n"),
            ("devices/virtual/dm-0/queue/rotational", "?\n"),
        ];
        for (path, text) in files {
            fs::create_dir_all(sys.join(path).parent().unwrap()).unwrap();
            fs::write(sys.join(path), text).unwrap();
        }
        fs::create_dir_all(sys.join("devices/virtual/dm-0/slaves")).unwrap();
        fs::create_dir_all(sys.join("dev/block")).unwrap();
        symlink(sys.join("devices/nvme0"), sys.join("devices/nvme0/nvme0n1/device")).unwrap();
        symlink(sys.join("devices/nvme0/nvme0n1/nvme0n1p2"), sys.join("dev/block/259:2")).unwrap();
        symlink(sys.join("dev/block/259:2"), sys.join("devices/virtual/dm-0/slaves/nvme0n1p2")).unwrap();
        symlink(sys.join("devices/virtual/dm-0"), sys.join("dev/block/252:0")).unwrap();
    }

    #[test]
    fn a_partition_leads_to_its_disk_and_a_volume_to_what_it_is_made_of() {
        let dir = tempfile::tempdir().unwrap();
        make_sys(dir.path());
        let disk = look(dir.path(), &dir.path().join("dev/block/259:2"), DEPTH_MAX).unwrap();
        assert_eq!((disk.name.as_str(), disk.partition.as_deref()), ("nvme0n1", Some("nvme0n1p2")));
        assert_eq!((disk.model.as_deref(), disk.scheduler.as_deref()), (Some("Fast One 2TB"), Some("none")));
        assert_eq!((disk.rotational, disk.fua, disk.driver.as_deref()), (Some(false), Some(true), None));
        assert_eq!((disk.logical_block_bytes, disk.physical_block_bytes), (Some(512), Some(4096)));
        let volume = look(dir.path(), &dir.path().join("dev/block/252:0"), DEPTH_MAX).unwrap();
        assert_eq!((volume.name.as_str(), volume.model.as_deref()), ("dm-0", Some("vg-log")));
        assert_eq!((volume.rotational, volume.write_cache.as_deref()), (None, None));
        assert_eq!(volume.below, [disk]);
    }

    #[test]
    fn circles_end_and_what_is_not_there_is_none() {
        let dir = tempfile::tempdir().unwrap();
        make_sys(dir.path());
        symlink(dir.path().join("devices/virtual/dm-0"), dir.path().join("devices/virtual/dm-0/slaves/dm-0")).unwrap();
        assert!(look(dir.path(), &dir.path().join("dev/block/252:0"), DEPTH_MAX).is_some());
        assert_eq!(look(dir.path(), &dir.path().join("dev/block/1:1"), DEPTH_MAX), None);
        assert_eq!(find(dir.path(), Path::new("/no/such/file"), DEPTH_MAX), None);
    }

    #[test]
    fn the_chosen_scheduler_is_in_brackets() {
        assert_eq!((chosen("none [mq-deadline] bfq"), chosen("none")), ("mq-deadline".into(), "none".into()));
    }
}
