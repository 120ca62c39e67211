//! The blocks that the log is written in: how large they are, and why.
//!
//! A batch begins on a block and ends on one, so that no write touches a block that holds acknowledged data. That protects it only if
//! the block is no smaller than what the device writes at once: one with physical blocks of 4096 bytes reads, changes and rewrites
//! 4096 bytes for a write of 512, and a power loss in that moment may tear what was durable beside it. The page cache does the same
//! with its pages.
//!
//! **Not here**: which device it is ([`super::block`]), what is written ([`crate::txnlog`]).

use super::block::BlockDevice;
use std::fmt;

/// Size of the blocks of a segment: a power of two from 512 to 4096 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct BlockSize(u32);

impl BlockSize {
    /// The smallest: the sector of most disks.
    pub const MIN: BlockSize = BlockSize(512);
    /// The largest, which is right for every disk in use today.
    pub const MAX: BlockSize = BlockSize(4096);
    /// All of them.
    pub const ALL: [BlockSize; 4] = [BlockSize::MIN, BlockSize(1024), BlockSize(2048), BlockSize::MAX];

    /// The size of `bytes`, if there is such a one.
    pub fn new(bytes: u32) -> Option<BlockSize> {
        BlockSize::ALL.into_iter().find(|size| size.0 == bytes)
    }

    /// In bytes.
    pub const fn bytes(self) -> usize {
        self.0 as usize
    }

    /// Rounds up to whole blocks.
    pub const fn round_up(self, len: usize) -> usize {
        len.next_multiple_of(self.bytes())
    }

    /// The smallest that has room for `bytes`; the largest where none has.
    fn at_least(bytes: u64) -> BlockSize {
        BlockSize::ALL.into_iter().find(|size| u64::from(size.0) >= bytes).unwrap_or(BlockSize::MAX)
    }
}

impl fmt::Display for BlockSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// How writes reach the device, as far as it concerns their size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reach {
    /// Through the page cache.
    Buffered,
    /// Past it. Offsets, lengths and memory are multiples of so many bytes, where the file system says.
    Direct(Option<u64>),
}

/// The block size that was `wished` for, or the one that no device below tears, and why.
///
/// # Errors
/// When direct I/O needs larger blocks than were wished for.
pub(super) fn choose(
    wished: Option<BlockSize>,
    reach: Reach,
    device: Option<&BlockDevice>,
) -> Result<(BlockSize, String), String> {
    if let (Some(size), Reach::Direct(Some(needed))) = (wished, reach)
        && needed > size.0.into()
    {
        return Err(format!("log.blockBytes={size} is less than the {needed} B that direct I/O needs there"));
    }
    if let Some(size) = wished {
        return Ok((size, format!("log.blockBytes={size} as configured")));
    }
    let physical = device.and_then(BlockDevice::largest_physical_block);
    Ok(match (reach, physical) {
        (Reach::Buffered, _) => (BlockSize::MAX, "the page cache writes whole pages".to_owned()),
        (Reach::Direct(Some(needed)), Some(physical)) if needed > physical => {
            (BlockSize::at_least(needed), format!("direct I/O needs {needed} B"))
        }
        (Reach::Direct(Some(_)), Some(physical)) => {
            (BlockSize::at_least(physical), format!("the device has physical blocks of {physical} B"))
        }
        (Reach::Direct(None), Some(_)) => {
            (BlockSize::MAX, "the file system does not say what direct I/O needs".to_owned())
        }
        (Reach::Direct(_), None) => (BlockSize::MAX, "the physical block of the device is not known".to_owned()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn device(physical: Option<u64>, below: Vec<BlockDevice>) -> BlockDevice {
        BlockDevice { physical_block_bytes: physical, below, ..BlockDevice::default() }
    }

    #[test]
    fn no_device_below_is_written_in_parts_of_its_blocks() {
        let auto = |needed, device: &BlockDevice| choose(None, Reach::Direct(needed), Some(device)).unwrap().0.bytes();
        let (small, large) = (device(Some(512), vec![]), device(Some(4096), vec![]));
        assert_eq!((auto(Some(512), &small), auto(Some(512), &large)), (512, 4096));
        assert_eq!((auto(Some(1), &small), auto(Some(1024), &small), auto(Some(4096), &small)), (512, 1024, 4096));
        assert_eq!(
            auto(Some(512), &device(Some(512), vec![small.clone(), large.clone()])),
            4096,
            "a mirror of two kinds"
        );
        assert_eq!(auto(Some(512), &device(None, vec![small.clone()])), 512, "a volume that does not say");
        assert_eq!(auto(Some(512), &device(Some(16_384), vec![])), 4096, "there are no larger ones");
        assert_eq!((auto(Some(512), &device(None, vec![])), auto(None, &small)), (4096, 4096), "unknown");
        let of_a_file = BlockDevice { file: Some("/image".into()), ..small.clone() };
        assert_eq!(auto(Some(512), &of_a_file), 4096, "a loop device does not know what its file lies on");
        assert_eq!(choose(None, Reach::Direct(Some(512)), None).unwrap().0.bytes(), 4096, "no device");
        assert_eq!(choose(None, Reach::Buffered, Some(&small)).unwrap().0.bytes(), 4096, "a page");
    }

    #[test]
    fn what_was_configured_counts_unless_direct_writes_of_it_are_impossible() {
        let large = device(Some(4096), vec![]);
        for wished in BlockSize::ALL {
            for reach in [Reach::Buffered, Reach::Direct(Some(512)), Reach::Direct(None)] {
                assert_eq!(choose(Some(wished), reach, Some(&large)).unwrap().0, wished);
            }
        }
        let refused = choose(BlockSize::new(512), Reach::Direct(Some(4096)), Some(&large)).unwrap_err();
        assert!(refused.contains("log.blockBytes=512") && refused.contains("4096 B"), "{refused}");
        assert_eq!([0, 256, 513, 8192].map(BlockSize::new), [None; 4]);
    }
}
