//! Reading a snapshot back: all of it is checked, block by block, before anything of it is believed to be whole.
//!
//! **Invariants**: what a length claims is compared with what is left of the file before memory is taken for it; the footer is the
//! last block and nothing follows it; every error names the file and an offset in it.

use super::format::{BlockHeader, Compression, Footer, Header, Kind, NodeRecord, get_record};
use crate::error::StorageError;
use crate::tree::Tree;
use crate::tree::image::{Builder, NodeImage};
use corral_proto::jute::Decoder;
use corral_proto::{AclList, SessionId};
use crossbeam::channel::{Sender, bounded};
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
    /// The end of a block.
    Progress(Done),
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

/// How much of a snapshot has been read and checked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Done {
    /// Bytes of the file.
    pub bytes: u64,
    /// Bytes that the file has.
    pub of: u64,
    /// Nodes in them.
    pub nodes: u64,
}

/// Nodes for which room is made at most before they have come: a first block that compresses well promises anything.
const RESERVE_MAX: u128 = 1 << 20;

/// Blocks that are read and checked ahead of the one that is looked at.
const AHEAD: usize = 8;

/// Reads the snapshot at `path` from its first byte to its last and shows every piece to `each`; another thread reads and checks
/// the next blocks meanwhile. Only when this returns without an error were the pieces those of a whole snapshot.
///
/// # Errors
/// [`StorageError::Corrupt`] with the offset of the block that does not check out, or what `each` says is wrong with a piece;
/// [`StorageError::Newer`]; [`StorageError::Io`] when the file cannot be opened or read.
pub fn read(path: &Path, mut each: impl FnMut(Piece<'_>) -> Result<(), String>) -> Result<Summary, StorageError> {
    let file = File::open(path).map_err(StorageError::io("open the snapshot", path))?;
    let size = file.metadata().map_err(StorageError::io("look at the snapshot", path))?.len();
    let mut source = Source { reader: BufReader::with_capacity(1 << 20, file), path: path.to_owned(), at: 0, size };
    let header = source.take(Header::LEN as u64)?;
    if let Some(version) = Header::other_version(&header) {
        return Err(StorageError::Newer { file: path.to_owned(), version });
    }
    let (header, crc) = Header::parse(&header).map_err(|why| source.corrupt(0, why))?;
    let corrupt = |offset: u64, why: String| StorageError::Corrupt { file: path.to_owned(), offset, why };
    std::thread::scope(|scope| {
        let (ahead, checked) = bounded(AHEAD);
        scope.spawn(move || source.check_all(header, crc, &ahead));
        let mut state = Contents { header, acls: Vec::new(), blocks: 0, nodes: 0, raw_bytes: 0 };
        loop {
            let block = checked.recv().expect("it ends with an error or with a footer")?;
            if let Some(footer) = state.take(&block, &mut each).map_err(|why| corrupt(block.begins, why))? {
                return Ok(Summary { header, footer, blocks: state.blocks, file_bytes: size });
            }
            let done = Done { bytes: block.ends, of: size, nodes: state.nodes };
            each(Piece::Progress(done)).map_err(|why| corrupt(block.begins, why))?;
        }
    })
}

fn text(why: impl ToString) -> String {
    why.to_string()
}

/// A block that was read from the file as it was written there.
struct Block {
    begins: u64,
    ends: u64,
    kind: Kind,
    count: u32,
    payload: Vec<u8>,
}

/// What the blocks so far add up to.
struct Contents {
    header: Header,
    acls: Vec<Vec<u8>>,
    blocks: u64,
    nodes: u64,
    raw_bytes: u64,
}

impl Contents {
    /// Shows the pieces of a block; the footer, if it is that.
    fn take(
        &mut self,
        block: &Block,
        each: &mut impl FnMut(Piece<'_>) -> Result<(), String>,
    ) -> Result<Option<Footer>, String> {
        self.blocks += 1;
        let d = &mut Decoder::new(&block.payload);
        match block.kind {
            Kind::Sessions => {
                for _ in 0..block.count {
                    let (id, timeout_ms) = (d.long().map_err(text)?, d.int().map_err(text)?);
                    each(Piece::Session(SessionId(id), timeout_ms))?;
                }
            }
            Kind::Nodes => {
                for _ in 0..block.count {
                    match get_record(d).map_err(text)? {
                        NodeRecord::Acl(acl) => self.acls.push(acl.encoded().to_vec()),
                        NodeRecord::Node { path, image, acl } => {
                            let list = self.acls.get(acl as usize).ok_or("a node has a list that is not there")?;
                            let acl = AclList::from_encoded(list).expect("checked when it was read");
                            self.nodes += 1;
                            each(Piece::Node(path, NodeImage { acl, ..image }))?;
                        }
                    }
                }
            }
            Kind::Footer => {
                let footer = Footer::parse(&block.payload)?;
                let belongs =
                    (footer.start, footer.nodes, footer.raw_bytes) == (self.header.start, self.nodes, self.raw_bytes);
                return if belongs {
                    Ok(Some(footer))
                } else {
                    Err("the footer does not belong to what is before it".into())
                };
            }
        }
        self.raw_bytes += block.payload.len() as u64;
        if d.is_empty() { Ok(None) } else { Err("a block holds more than it says".into()) }
    }
}

/// Builds a tree from a snapshot, and tells after each block how much is done. The log must be replayed onto it before it is
/// whole.
///
/// # Errors
/// As [`read`].
pub fn load(path: &Path, seed: u64, mut progress: impl FnMut(Done)) -> Result<(Tree, Summary), StorageError> {
    let mut tree = Builder::new(seed);
    let mut reserved = false;
    let summary = read(path, |piece| {
        match piece {
            Piece::Session(id, timeout_ms) => tree.session(id, timeout_ms),
            Piece::Node(path, image) => tree.node(path, &image)?,
            Piece::Progress(done) => {
                // What the first nodes took tells how many there will be, about.
                if done.nodes > 0 && !reserved {
                    let nodes = u128::from(done.nodes) * u128::from(done.of) / u128::from(done.bytes);
                    tree.reserve(nodes.min(RESERVE_MAX) as usize);
                    reserved = true;
                }
                progress(done);
            }
        }
        Ok(())
    })?;
    let Footer { start, end, digest, .. } = summary.footer;
    if end < start {
        let why = "the footer's range ends before it begins".to_owned();
        return Err(StorageError::Corrupt { file: path.to_owned(), offset: summary.file_bytes, why });
    }
    Ok((tree.finish(start, end, digest), summary))
}

struct Source {
    reader: BufReader<File>,
    path: PathBuf,
    at: u64,
    size: u64,
}

impl Source {
    /// Hands on all blocks, up to the footer or the first that does not check out, or until nobody takes them any more.
    fn check_all(&mut self, header: Header, mut crc: u32, ahead: &Sender<Result<Block, StorageError>>) {
        loop {
            let block = self.block(header.compression, &mut crc);
            let last = block.as_ref().map_or(true, |block| block.kind == Kind::Footer);
            if ahead.send(block).is_err() || last {
                return;
            }
        }
    }

    fn block(&mut self, compression: Compression, crc: &mut u32) -> Result<Block, StorageError> {
        let begins = self.at;
        let bytes = self.take(BlockHeader::LEN as u64)?;
        let bytes: &[u8; BlockHeader::LEN] = bytes.as_slice().try_into().expect("asked for so many");
        let block = BlockHeader::parse(bytes).map_err(|why| self.corrupt(begins, why))?;
        let stored = self.take(block.stored_len.into())?;
        if block.checksum(&stored, *crc) != block.crc {
            return Err(self.corrupt(begins, "the checksum of a block is wrong"));
        }
        *crc = block.crc;
        let len = block.raw_len as usize;
        let payload = match compression {
            Compression::None => stored,
            Compression::Zstd => zstd::bulk::decompress(&stored, len).map_err(|why| self.corrupt(begins, why))?,
            Compression::Lz4 => lz4_flex::block::decompress(&stored, len).map_err(|why| self.corrupt(begins, why))?,
        };
        if payload.len() != len {
            return Err(self.corrupt(begins, "a block has another size than it says"));
        }
        if block.kind == Kind::Footer && self.at != self.size {
            return Err(self.corrupt(self.at, "something follows the footer"));
        }
        Ok(Block { begins, ends: self.at, kind: block.kind, count: block.count, payload })
    }

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
