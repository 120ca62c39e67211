//! A disk that loses power: what was synced stays, of everything else any part does.
//!
//! A directory holds what a running system sees (its page cache). Beside it this keeps what would be left without power: of
//! every file its durable contents and the writes since, and its names since the directory was synced. [`Platter::lose_power`]
//! draws what is left, sector by sector and name by name, and makes it the contents of the directory.
//!
//! **Invariants**: everything is drawn from one seed; a write that completed is durable; a file is never under two names.
//!
//! It is for tests and simulations: what goes wrong with its directory is a panic.
//!
//! **Not here**: writes of a dead process that land after its successor has read the log (`tests/log_pipeline.rs`).

use super::{BLOCK, Completion, Disk, Took, Write};
use crate::error::StorageError;
use crate::txnlog::workshop::Files;
use parking_lot::Mutex;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What a power loss does not tear.
const SECTOR: usize = 512;

/// One disk with one directory. Clones are the same disk.
#[derive(Clone)]
pub struct Platter(Arc<Mutex<State>>);

struct State {
    dir: PathBuf,
    rng: SmallRng,
    nodes: Vec<Node>,
    in_flight: Vec<Write>,
    done: Vec<Completion>,
    /// So many more steps on files, then the power is gone.
    fuse: Option<u32>,
    /// There is no room for another file.
    is_full: bool,
}

/// A file.
struct Node {
    /// Keeps the number of the inode from being used again.
    _handle: File,
    inode: u64,
    durable: Vec<u8>,
    pending: Vec<(usize, Vec<u8>)>,
    /// Its length is not durable.
    growing: bool,
    /// Its durable name, and those it got since; `None` is none.
    names: Vec<Option<PathBuf>>,
}

fn inode(file: &File) -> u64 {
    file.metadata().unwrap().ino()
}

impl Node {
    fn new(handle: File, durable: Vec<u8>, name: Option<PathBuf>) -> Node {
        Node { inode: inode(&handle), _handle: handle, durable, pending: Vec::new(), growing: false, names: vec![name] }
    }

    fn name(&self) -> Option<&Path> {
        self.names.last().unwrap().as_deref()
    }

    fn put(&mut self, at: usize, bytes: &[u8]) {
        if self.durable.len() < at + bytes.len() {
            self.durable.resize(at + bytes.len(), 0);
        }
        self.durable[at..at + bytes.len()].copy_from_slice(bytes);
    }

    fn sync(&mut self) {
        for (at, bytes) in std::mem::take(&mut self.pending) {
            self.put(at, &bytes);
        }
        self.growing = false;
    }

    /// What is left of it: all, none or any sectors of what was not synced.
    fn lose_power(mut self, rng: &mut SmallRng) -> Vec<u8> {
        for (at, bytes) in std::mem::take(&mut self.pending) {
            let odds = [0.0, 0.5, 0.9, 1.0][rng.random_range(0..4)];
            for (index, sector) in bytes.chunks(SECTOR).enumerate() {
                if rng.random_bool(odds) {
                    self.put(at + index * SECTOR, sector);
                }
            }
        }
        if self.growing && rng.random() {
            let sectors = self.durable.len() / SECTOR;
            self.durable.truncate(rng.random_range(0..=sectors) * SECTOR);
        }
        self.durable
    }
}

impl State {
    fn step(&mut self) -> io::Result<()> {
        match &mut self.fuse {
            Some(0) => Err(io::Error::other("the power is gone")),
            Some(left) => {
                *left -= 1;
                Ok(())
            }
            None => Ok(()),
        }
    }

    fn node(&mut self, file: &File) -> &mut Node {
        let wanted = inode(file);
        self.nodes.iter_mut().find(|node| node.inode == wanted).expect("every file is known")
    }

    fn named(&mut self, path: &Path) -> Option<&mut Node> {
        self.nodes.iter_mut().find(|node| node.name() == Some(path))
    }
}

impl Platter {
    /// Over what is in `dir`, all of it durable; what it loses is drawn from `seed`.
    pub fn new(dir: &Path, seed: u64) -> Platter {
        let platter = Platter(Arc::new(Mutex::new(State {
            dir: dir.to_owned(),
            rng: SmallRng::seed_from_u64(seed),
            nodes: Vec::new(),
            in_flight: Vec::new(),
            done: Vec::new(),
            fuse: None,
            is_full: false,
        })));
        platter.settle();
        platter
    }

    /// Everything that can be read now is durable; what was in flight never was written. For whatever went past this disk and
    /// has synced what it did.
    pub fn settle(&self) {
        let state = &mut *self.0.lock();
        state.in_flight.clear();
        state.done.clear();
        let mut names: Vec<PathBuf> = fs::read_dir(&state.dir).unwrap().map(|entry| entry.unwrap().path()).collect();
        names.sort();
        let node = |name: PathBuf| Node::new(File::open(&name).unwrap(), fs::read(&name).unwrap(), Some(name));
        state.nodes = names.into_iter().map(node).collect();
    }

    /// Lets the power fail after so many more steps on files.
    pub fn set_fuse(&self, steps: Option<u32>) {
        self.0.lock().fuse = steps;
    }

    /// Whether there is no room for another file.
    pub fn set_full(&self, is_full: bool) {
        self.0.lock().is_full = is_full;
    }

    /// Whether the power has not failed.
    pub fn has_power(&self) -> bool {
        self.0.lock().fuse != Some(0)
    }

    /// How many writes have not completed.
    pub fn in_flight(&self) -> usize {
        self.0.lock().in_flight.len()
    }

    /// The write at `at`, of those in flight, is durable and will be reported.
    pub fn finish(&self, at: usize) {
        let mut state = self.0.lock();
        let write = state.in_flight.remove(at);
        write.file.write_all_at(&write.data, write.offset).unwrap();
        state.node(&write.file).put(write.offset as usize, &write.data);
        state.done.push(Completion { token: write.token, result: Ok(()), took: Took::default() });
    }

    /// The process dies and the system does not: of the writes in flight, any blocks can be read from now on, and none is
    /// durable.
    pub fn kill(&self) {
        let state = &mut *self.0.lock();
        state.done.clear();
        for write in std::mem::take(&mut state.in_flight) {
            let odds = [0.0, 0.7, 1.0][state.rng.random_range(0..3)];
            for (index, block) in write.data.chunks(BLOCK).enumerate() {
                if state.rng.random_bool(odds) {
                    let at = write.offset + (index * BLOCK) as u64;
                    write.file.write_all_at(block, at).unwrap();
                    state.node(&write.file).pending.push((at as usize, block.to_vec()));
                }
            }
        }
        state.fuse = None;
    }

    /// The power fails: the directory holds what is left.
    pub fn lose_power(&self) {
        let state = &mut *self.0.lock();
        state.done.clear();
        for write in std::mem::take(&mut state.in_flight) {
            state.node(&write.file).pending.push((write.offset as usize, write.data.to_vec()));
        }
        for entry in fs::read_dir(&state.dir).unwrap() {
            fs::remove_file(entry.unwrap().path()).unwrap();
        }
        let mut left: Vec<(PathBuf, bool, Vec<u8>)> = Vec::new();
        for node in std::mem::take(&mut state.nodes) {
            let chosen = state.rng.random_range(0..node.names.len());
            let Some(name) = node.names[chosen].clone() else { continue };
            let bytes = node.lose_power(&mut state.rng);
            // A file that was renamed to this name took it from the one that had it.
            match left.iter_mut().find(|(other, ..)| *other == name) {
                Some(other) if chosen > 0 => *other = (name, true, bytes),
                Some(_) => {}
                None => left.push((name, chosen > 0, bytes)),
            }
        }
        for (name, _, bytes) in left {
            fs::write(&name, &bytes).unwrap();
            state.nodes.push(Node::new(File::open(&name).unwrap(), bytes, Some(name)));
        }
        state.fuse = None;
    }
}

impl Files for Platter {
    fn create(&mut self, path: &Path, first: &[u8; BLOCK], size: u64) -> io::Result<File> {
        let state = &mut *self.0.lock();
        state.step()?;
        if state.is_full {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let file = File::create(path)?;
        if state.named(path).is_none() {
            state.nodes.push(Node::new(file.try_clone()?, Vec::new(), None));
            state.nodes.last_mut().unwrap().names.push(Some(path.to_owned()));
        }
        let mut bytes = first.to_vec();
        bytes.resize(size as usize, 0);
        file.write_all_at(&bytes, 0)?;
        let node = state.node(&file);
        node.durable.truncate(size as usize);
        node.pending.push((0, bytes));
        node.growing = true;
        Ok(file)
    }

    fn overwrite(&mut self, path: &Path, first: &[u8; BLOCK]) -> io::Result<File> {
        let state = &mut *self.0.lock();
        state.step()?;
        let file = File::options().write(true).open(path)?;
        file.write_all_at(first, 0)?;
        state.node(&file).pending.push((0, first.to_vec()));
        Ok(file)
    }

    fn sync(&mut self, file: &File, _: &Path) -> io::Result<()> {
        let state = &mut *self.0.lock();
        state.step()?;
        state.node(file).sync();
        Ok(())
    }

    fn rename(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        let state = &mut *self.0.lock();
        state.step()?;
        fs::rename(from, to)?;
        if let Some(replaced) = state.named(to) {
            replaced.names.push(None);
        }
        state.named(from).expect("every file is known").names.push(Some(to.to_owned()));
        Ok(())
    }

    fn shrink(&mut self, path: &Path, len: u64) -> io::Result<()> {
        let state = &mut *self.0.lock();
        state.step()?;
        File::options().write(true).open(path)?.set_len(len)?;
        let node = state.named(path).expect("every file is known");
        node.sync();
        node.durable.truncate(len as usize);
        Ok(())
    }

    fn remove(&mut self, path: &Path) -> io::Result<()> {
        let state = &mut *self.0.lock();
        state.step()?;
        fs::remove_file(path)?;
        state.named(path).expect("every file is known").names.push(None);
        Ok(())
    }

    fn sync_dir(&mut self, dir: &Path) -> Result<(), StorageError> {
        let state = &mut *self.0.lock();
        let stepped = state.step();
        stepped.map_err(|source| StorageError::Io { op: "sync", path: dir.to_owned(), source })?;
        for node in &mut state.nodes {
            node.names.drain(..node.names.len() - 1);
        }
        Ok(())
    }

    fn open(&mut self, path: &Path) -> io::Result<File> {
        File::options().write(true).open(path)
    }
}

impl Disk for Platter {
    fn submit(&mut self, write: Write) {
        assert!(write.offset.is_multiple_of(BLOCK as u64) && write.data.len().is_multiple_of(BLOCK), "whole blocks");
        self.0.lock().in_flight.push(write);
    }

    fn has_completions(&self) -> bool {
        !self.0.lock().done.is_empty()
    }

    fn completions(&mut self, out: &mut Vec<Completion>) {
        out.append(&mut self.0.lock().done);
    }
}
