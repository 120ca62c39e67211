//! A small file system in a file, mounted: to be filled up, to fail, to be another kind than the one that the tests run on.
//!
//! Mounting needs root. It happens in a mount namespace of the test's own, so that nothing stays behind however a test ends.
//!
//! **Not here**: what is tested on it.

use super::common::temp_dir;
use std::fs::{self, File};
use std::os::fd::AsRawFd;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use tempfile::TempDir;

/// Set in a process that has its own mounts.
const OWN_MOUNTS: &str = "CORRAL_TEST_OWN_MOUNTS";

/// Starts this program again with mounts of its own; comes back only in that, or with the reason why it cannot be.
pub(crate) fn with_own_mounts() -> Result<(), String> {
    if std::env::var_os(OWN_MOUNTS).is_some() {
        return Ok(());
    }
    let own = |program: &Path| {
        let mut command = Command::new("unshare");
        command.args(["--mount", "--propagation", "private", "--"]).arg(program);
        command
    };
    let (probe, at) = (temp_dir(), temp_dir());
    let script = format!(
        "truncate -s 16M {0}/image && mkfs.ext4 -q {0}/image && mount -o loop {0}/image {1} && umount {1}",
        probe.path().display(),
        at.path().display()
    );
    let tried = own(Path::new("sh")).args(["-c", &script]).output().map_err(|error| format!("unshare: {error}"))?;
    if !tried.status.success() {
        let why = String::from_utf8_lossy(&tried.stderr).lines().next().unwrap_or("refused").to_owned();
        return Err(format!("cannot mount a file system here: {why}"));
    }
    let me = std::env::current_exe().map_err(|error| error.to_string())?;
    Err(own(&me).args(std::env::args_os().skip(1)).env(OWN_MOUNTS, "1").exec().to_string())
}

/// A mounted file system.
pub(crate) struct Image {
    file: PathBuf,
    at: PathBuf,
    _dir: TempDir,
}

/// Whether file systems of this kind can be made here.
pub(crate) fn can_make(kind: &str) -> bool {
    Command::new(format!("mkfs.{kind}")).arg("-V").output().is_ok()
}

impl Image {
    pub(crate) fn new(kind: &str, mib: u64) -> Image {
        let dir = temp_dir();
        let (file, at) = (dir.path().join("image"), dir.path().join("mounted"));
        File::create(&file).and_then(|file| file.set_len(mib << 20)).expect("a sparse file");
        fs::create_dir(&at).expect("the directory is ours");
        // No blocks for root alone: full is to be full for everybody.
        let reserve: &[&str] = if kind == "ext4" { &["-m", "0"] } else { &[] };
        run(Command::new(format!("mkfs.{kind}")).arg("-q").args(reserve).arg(&file));
        let image = Image { file, at, _dir: dir };
        image.mount();
        image
    }

    pub(crate) fn mount(&self) {
        self.mount_with("loop");
    }

    /// Mounts it with these options.
    pub(crate) fn mount_with(&self, options: &str) {
        run(Command::new("mount").args(["-o", options]).arg(&self.file).arg(&self.at));
    }

    /// Mounts it on a device that has sectors of so many bytes.
    pub(crate) fn mount_with_sectors(&self, bytes: u32) {
        let mut attach = Command::new("losetup");
        attach.args(["--find", "--show", "--sector-size", &bytes.to_string()]).arg(&self.file);
        let attached = attach.output().expect("losetup is there");
        assert!(attached.status.success(), "{attach:?}: {}", String::from_utf8_lossy(&attached.stderr));
        let device = String::from_utf8(attached.stdout).expect("a path").trim().to_owned();
        run(Command::new("mount").arg(&device).arg(&self.at));
        // It goes when it is unmounted.
        run(Command::new("losetup").args(["--detach", &device]));
    }

    pub(crate) fn unmount(&self) {
        run(Command::new("umount").arg(&self.at));
    }

    pub(crate) fn path(&self) -> &Path {
        &self.at
    }

    /// Uses up all the room but for `rest` bytes. Deleting the file that is returned gives it back.
    pub(crate) fn fill(&self, rest: u64) -> PathBuf {
        let ballast = self.at.join("ballast");
        let free =
            rustix::fs::statvfs(&self.at).map(|system| system.f_bavail * system.f_frsize).expect("it is mounted");
        let file = File::create(&ballast).expect("there is room for a name");
        let bytes = free.saturating_sub(rest);
        // Somebody else may take some of the room meanwhile.
        let take = |bytes| rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, bytes);
        let taken = (0..64).any(|less| take(bytes.saturating_sub(less * (16 << 10))).is_ok());
        assert!(taken, "there was so much room");
        ballast
    }

    /// Whoever writes to it waits until [`Image::thaw`].
    pub(crate) fn freeze(&self) {
        run(Command::new("fsfreeze").arg("--freeze").arg(&self.at));
    }

    pub(crate) fn thaw(&self) {
        run(Command::new("fsfreeze").arg("--unfreeze").arg(&self.at));
    }

    /// Whatever was not synced is lost, and from now on everything fails with EIO: the kernel's own way of giving up on a file
    /// system (`FS_IOC_SHUTDOWN`), without writing out anything first.
    #[expect(unsafe_code, reason = "no library has this call")]
    pub(crate) fn fail(&self) {
        const SHUTDOWN: libc::c_ulong = 0x8004_587d;
        const NO_LOG_FLUSH: u32 = 2;
        let root = File::open(&self.at).expect("it is mounted");
        // SAFETY: the call reads the four bytes that it is given, and they outlive it.
        let failed = unsafe { libc::ioctl(root.as_raw_fd(), SHUTDOWN, &NO_LOG_FLUSH) };
        assert_eq!(failed, 0, "{}", std::io::Error::last_os_error());
    }
}

impl Drop for Image {
    fn drop(&mut self) {
        // A test that failed may have left it frozen, or something open in it.
        let _ = Command::new("fsfreeze").arg("--unfreeze").arg(&self.at).output();
        let _ = Command::new("umount").arg("--lazy").arg(&self.at).output();
    }
}

fn run(command: &mut Command) {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}
