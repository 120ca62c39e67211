//! The one way to a file on the write path: submit a write, collect its completion.
//!
//! Two devices stand behind [`Disk`]: [`ring`] (io_uring) and [`pwrite`] (where io_uring is refused). Which of them, and how
//! a write becomes durable, is a [`Mode`], chosen once at start-up ([`Mode::choose`]).
//!
//! **Invariants**: a completion is reported only for a write that has done all of its bytes *and* is durable in the mode's
//! sense; after an error the device reports nothing further as durable ([`Completion::result`] is final, nothing is retried:
//! a failed fsync may have marked dirty pages clean).
//!
//! **Not here**: what is written ([`crate::txnlog`]), when (the group-commit policy).

#![expect(unsafe_code, reason = "the ring and aligned memory need it; each block says why it is sound")]

use block::BlockDevice;
use block_size::Reach;
use bytes::Bytes;
use filesystem::FileSystem;
use rustix::fs::{AtFlags, StatxFlags};
use std::fmt::{self, Write as _};
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

pub mod aligned;
pub mod block;
pub mod block_size;
pub mod device;
pub mod files;
pub mod filesystem;
pub mod publish;
pub mod pwrite;
pub mod removal;
pub mod ring;
#[cfg(feature = "simulated-disk")]
pub mod simulated;

pub use block_size::BlockSize;

/// Rounds up to whole blocks of the largest size, which direct I/O accepts everywhere.
pub const fn round_up(len: usize) -> usize {
    BlockSize::MAX.round_up(len)
}

/// How the bytes get to the device (`log.io`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogIo {
    /// io_uring, past the page cache.
    UringDirect,
    /// io_uring, through the page cache.
    UringBuffered,
    /// A blocking `pwrite` through the page cache.
    Pwrite,
}

/// How a write becomes durable (`log.sync`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogSync {
    /// Each write says so itself (`RWF_DSYNC`): one FUA command where the device has it, else write and flush.
    Dsync,
    /// `fdatasync` after the write.
    Fdatasync,
    /// `fsync` after the write.
    Fsync,
    /// Not at all: a power loss takes acknowledged writes with it.
    None,
}

impl fmt::Display for LogIo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            LogIo::UringDirect => "uring-direct",
            LogIo::UringBuffered => "uring-buffered",
            LogIo::Pwrite => "pwrite",
        })
    }
}

impl fmt::Display for LogSync {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            LogSync::Dsync => "dsync",
            LogSync::Fdatasync => "fdatasync",
            LogSync::Fsync => "fsync",
            LogSync::None => "none",
        })
    }
}

/// The chosen way, and why, for the start-up banner.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mode {
    /// How the bytes get there.
    pub io: LogIo,
    /// How they become durable.
    pub sync: LogSync,
    /// The blocks that they are written in.
    pub block: BlockSize,
    /// Why this one, in the operator's words.
    pub why: String,
}

impl Mode {
    /// Picks what `io`, `sync` and `block` leave open (`None` = `auto`) by trying, in `dir`, what the kernel and the file system
    /// support. Direct I/O with a durable write each was measured best wherever it works (`docs/design.md`).
    ///
    /// # Errors
    /// When something was asked for by name that does not work here; the message says why and what does work.
    pub fn choose(
        dir: &Path,
        io: Option<LogIo>,
        sync: Option<LogSync>,
        block: Option<BlockSize>,
    ) -> Result<Mode, String> {
        let ring = ring::supported();
        let direct = write_direct(dir, BlockSize::MAX);
        let (io, mut why) = match io {
            Some(LogIo::UringDirect | LogIo::UringBuffered) if ring.is_err() => {
                let error = ring.expect_err("just checked");
                return Err(format!(
                    "log.io={} needs io_uring, which is refused here ({error}); log.io=pwrite works",
                    io.expect("just matched")
                ));
            }
            Some(LogIo::UringDirect) if direct.is_err() => {
                let error = direct.expect_err("just checked");
                return Err(format!(
                    "log.io=uring-direct needs O_DIRECT, which does not work in {} ({error}); log.io=uring-buffered and pwrite work",
                    dir.display()
                ));
            }
            Some(io) => (io, format!("log.io={io} as configured")),
            None => match (&ring, &direct) {
                (Ok(()), Ok(_)) => (LogIo::UringDirect, "io_uring and O_DIRECT work here".to_owned()),
                (Ok(()), Err(error)) => (LogIo::Pwrite, format!("O_DIRECT does not work here ({error})")),
                (Err(error), _) => (LogIo::Pwrite, format!("io_uring is refused here ({error})")),
            },
        };
        let sync = match (sync, io) {
            (Some(sync), _) => {
                why.push_str(&format!(", log.sync={sync} as configured"));
                sync
            }
            (None, LogIo::UringDirect) => LogSync::Dsync,
            // Buffered durable writes are punted to kernel worker threads and cost twice; a blocking fdatasync does not.
            (None, _) => LogSync::Fdatasync,
        };
        let reach = match (io, direct) {
            (LogIo::UringDirect, Ok(needed)) => Reach::Direct(needed),
            _ => Reach::Buffered,
        };
        let (block, why_block) = block_size::choose(block, reach, BlockDevice::of(dir).as_ref())?;
        // The largest was tried just now.
        if matches!(reach, Reach::Direct(_)) && block < BlockSize::MAX && write_direct(dir, block).is_err() {
            return Err(format!(
                "direct writes of {block} B are refused in {}; log.blockBytes=auto works",
                dir.display()
            ));
        }
        let _ = write!(why, "; blocks of {block} B: {why_block}");
        if sync == LogSync::None {
            why.push_str("; NOT DURABLE: a power loss takes acknowledged writes with it");
        }
        Ok(Mode { io, sync, block, why })
    }

    /// Opens an existing segment for writing in this mode.
    ///
    /// # Errors
    /// What the system answered; a file system that refuses direct I/O does so here.
    pub fn open(&self, path: &Path) -> io::Result<File> {
        let mut flags = 0;
        if self.io == LogIo::UringDirect {
            flags |= libc::O_DIRECT;
        }
        if self.io == LogIo::Pwrite && self.sync == LogSync::Dsync {
            flags |= libc::O_DSYNC;
        }
        let file = OpenOptions::new().write(true).custom_flags(flags).open(path)?;
        if self.io == LogIo::UringDirect {
            is_direct(&file)?;
        }
        Ok(file)
    }
}

/// Makes sure that what is written to `file`, which was opened with `O_DIRECT`, goes past the page cache. Some file systems take the flag
/// and do not honour it: those in memory, and ext4 where it journals data. Returns what offsets, lengths and memory must be multiples of, in
/// bytes, where that is known.
fn is_direct(file: &File) -> io::Result<Option<u64>> {
    const TMPFS: u64 = 0x0102_1994;
    const RAMFS: u64 = 0x8584_58f6;
    let seen = rustix::fs::statx(file, "", AtFlags::EMPTY_PATH, StatxFlags::DIOALIGN)?;
    // Kernels before 6.1, and some file systems, do not say.
    let says = StatxFlags::from_bits_retain(seen.stx_mask).contains(StatxFlags::DIOALIGN);
    let kind = rustix::fs::fstatfs(file)?.f_type as u64 & 0xffff_ffff;
    if (says && seen.stx_dio_offset_align == 0) || kind == TMPFS || kind == RAMFS {
        return Err(not_direct());
    }
    Ok(says.then(|| seen.stx_dio_offset_align.max(seen.stx_dio_mem_align).into()))
}

fn not_direct() -> io::Error {
    io::Error::other("the file system takes O_DIRECT, and writes through its page cache all the same")
}

/// Writes the second block of a file with direct I/O, out of memory that is aligned to no more than the block.
fn write_direct(dir: &Path, block: BlockSize) -> io::Result<Option<u64>> {
    if FileSystem::of(dir).is_some_and(|system| system.journals_data()) {
        return Err(not_direct());
    }
    let path = dir.join(".corral-direct-io-probe");
    let tried = (|| {
        let file =
            OpenOptions::new().write(true).create(true).truncate(true).custom_flags(libc::O_DIRECT).open(&path)?;
        let needed = is_direct(&file)?;
        let blocks = aligned::AlignedBuf::zeroed(2 * block.bytes());
        file.write_all_at(&blocks.as_slice()[block.bytes()..2 * block.bytes()], block.bytes() as u64)?;
        Ok(needed)
    })();
    let _ = std::fs::remove_file(&path);
    tried
}

/// One write of the log: all of `data`, at `offset` of `file`, durable before it completes.
#[derive(Clone, Debug)]
pub struct Write {
    /// Comes back with the completion.
    pub token: u64,
    /// Where to.
    pub file: Arc<File>,
    /// Byte offset, a multiple of the segment's block.
    pub offset: u64,
    /// Whole blocks, aligned to one in memory.
    pub data: Bytes,
}

/// What became of a [`Write`].
#[derive(Debug)]
pub struct Completion {
    /// Which write.
    pub token: u64,
    /// `Ok` only if every byte is there and durable. An error is final.
    pub result: io::Result<()>,
    /// How long the device took for it.
    pub took: Took,
}

/// The time of a write at the device, from the system call that handed it over to the one that told of its end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Took {
    /// The write itself, its durability included where it is one command ([`LogSync::Dsync`]).
    pub write: Duration,
    /// The sync after it, in the modes that have one.
    pub flush: Option<Duration>,
}

impl Took {
    /// Both together.
    pub fn total(&self) -> Duration {
        self.write + self.flush.unwrap_or_default()
    }
}

/// Somewhere to write the log to.
pub trait Disk {
    /// Takes a write. It completes later, through [`Disk::completions`].
    fn submit(&mut self, write: Write);

    /// Begins with what was submitted, if that was put off: whoever calls has something else to do first.
    fn push(&mut self) {}

    /// Whether something has completed that nobody has taken yet, as far as is known without asking the kernel.
    fn has_completions(&self) -> bool;

    /// Moves what has completed into `out`, without waiting.
    fn completions(&mut self, out: &mut Vec<Completion>);
}
