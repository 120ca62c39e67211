//! Reading a snapshot back: all of it is checked, block by block, before anything of it is believed to be whole.
//!
//! **Invariants**: what a length claims is compared with what is left of the file before memory is taken for it; the footer is the
//! last block and nothing follows it; every error names the file and an offset in it.

use super::format::{BlockHeader, Compression, Footer, Header, Kind, NodeRecord, get_record};
use crate::error::StorageError;
use crate::tree::Tree;
use crate::tree::image::NodeImage;
use corral_proto::jute::Decoder;
use corral_proto::{AclList, SessionId};
use std::fs::File;
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};

/// One piece of a snapshot.
#[derive(Clone, Copy, Debug)]
pub enum Piece<'a> {
    /// An open session and its timeout in ms.
    Session(SessionId, i32),
    /// A node, list included.
    Node(&'a str, NodeImage<'a>),
}

/// What a snapshot says of itself.
#[derive(Clone, Copy, Debug)]
pub struct Summary {
    /// Its header.
    pub header: Header,
    /// Its footer.
    pub footer: Footer,
    /// Blocks, the footer included.
    pub blocks: u64,
    /// Bytes of the file.
    pub file_bytes: u64,
}

/// Reads the snapshot at `path` from its first byte to its last and shows every piece to `each`. Only when this returns without
/// an error were the pieces those of a whole snapshot.
///
/// # Errors
/// [`StorageError::Corrupt`] with the offset of the block that does not check out, or what `each` says is wrong with a piece.
pub fn read(path: &Path, mut each: impl FnMut(Piece<'_>) -> Result<(), String>) -> Result<Summary, StorageError> {
    let file = File::open(path).map_err(StorageError::io("open the snapshot", path))?;
    let size = file.metadata().map_err(StorageError::io("look at the snapshot", path))?.len();
    let mut source = Source { reader: BufReader::with_capacity(1 << 20, file), path: path.to_owned(), at: 0, size };
    let header = source.take(Header::LEN as u64)?;
    let (header, mut crc) = Header::parse(&header).map_err(|why| source.corrupt(0, why))?;
    let mut acls: Vec<Vec<u8>> = Vec::new();
    let mut blocks = 0;
    let mut seen = 0;
    let mut raw_bytes = 0;
    loop {
        let begins = source.at;
        let bytes = source.take(BlockHeader::LEN as u64)?;
        let bytes: &[u8; BlockHeader::LEN] = bytes.as_slice().try_into().expect("asked for so many");
        let block = BlockHeader::parse(bytes).map_err(|why| source.corrupt(begins, why))?;
        let stored = source.take(block.stored_len.into())?;
        if block.checksum(&stored, crc) != block.crc {
            return Err(source.corrupt(begins, "the checksum of a block is wrong"));
        }
        crc = block.crc;
        blocks += 1;
        let raw = match header.compression {
            Compression::None => stored,
            Compression::Zstd => {
                zstd::bulk::decompress(&stored, block.raw_len as usize).map_err(|why| source.corrupt(begins, why))?
            }
            Compression::Lz4 => lz4_flex::block::decompress(&stored, block.raw_len as usize)
                .map_err(|why| source.corrupt(begins, why))?,
        };
        if raw.len() != block.raw_len as usize {
            return Err(source.corrupt(begins, "a block has another size than it says"));
        }
        let d = &mut Decoder::new(&raw);
        match block.kind {
            Kind::Sessions => {
                for _ in 0..block.count {
                    let session = d.long().and_then(|id| Ok((SessionId(id), d.int()?)));
                    let (id, timeout_ms) = session.map_err(|why| source.corrupt(begins, why))?;
                    each(Piece::Session(id, timeout_ms)).map_err(|why| source.corrupt(begins, why))?;
                }
            }
            Kind::Nodes => {
                for _ in 0..block.count {
                    match get_record(d).map_err(|why| source.corrupt(begins, why))? {
                        NodeRecord::Acl(acl) => acls.push(acl.encoded().to_vec()),
                        NodeRecord::Node { path, image, acl } => {
                            let list = acls.get(acl as usize);
                            let list =
                                list.ok_or_else(|| source.corrupt(begins, "a node has a list that is not there"))?;
                            let acl = AclList::from_encoded(list).expect("checked when it was read");
                            seen += 1;
                            each(Piece::Node(path, NodeImage { acl, ..image }))
                                .map_err(|why| source.corrupt(begins, why))?;
                        }
                    }
                }
            }
            Kind::Footer => {
                let footer = Footer::parse(&raw).map_err(|why| source.corrupt(begins, why))?;
                if footer.start != header.start || footer.nodes != seen || footer.raw_bytes != raw_bytes {
                    return Err(source.corrupt(begins, "the footer does not belong to what is before it"));
                }
                if source.at != size {
                    return Err(source.corrupt(source.at, "something follows the footer"));
                }
                return Ok(Summary { header, footer, blocks, file_bytes: size });
            }
        }
        raw_bytes += raw.len() as u64;
        if !d.is_empty() {
            return Err(source.corrupt(begins, "a block holds more than it says"));
        }
    }
}

/// Builds a tree from a snapshot. The log must be replayed onto it before it is whole.
///
/// # Errors
/// As [`read`].
pub fn load(path: &Path, seed: u64) -> Result<(Tree, Summary), StorageError> {
    let mut tree = Tree::new(seed);
    let summary = read(path, |piece| match piece {
        Piece::Session(id, timeout_ms) => {
            tree.restore_session(id, timeout_ms);
            Ok(())
        }
        Piece::Node(path, image) => tree.restore_node(path, &image).map_err(str::to_owned),
    })?;
    if summary.footer.end < summary.footer.start {
        return Err(StorageError::Corrupt {
            file: path.to_owned(),
            offset: summary.file_bytes,
            why: "the footer's range ends before it begins".to_owned(),
        });
    }
    tree.start_replay(summary.footer.start, summary.footer.end);
    Ok((tree, summary))
}

struct Source {
    reader: BufReader<File>,
    path: PathBuf,
    at: u64,
    size: u64,
}

impl Source {
    fn take(&mut self, len: u64) -> Result<Vec<u8>, StorageError> {
        if self.size - self.at < len {
            return Err(self.corrupt(self.at, "the file ends before its footer"));
        }
        let mut bytes = vec![0; len as usize];
        self.reader.read_exact(&mut bytes).map_err(StorageError::io("read the snapshot", &self.path))?;
        self.at += len;
        Ok(bytes)
    }

    fn corrupt(&self, offset: u64, why: impl ToString) -> StorageError {
        StorageError::Corrupt { file: self.path.clone(), offset, why: why.to_string() }
    }
}
