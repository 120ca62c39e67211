//! A disk that loses power: what was synced stays, of everything else any part does.
//!
//! A directory, with all directories below it, holds what a running system sees (its page cache). Beside it this keeps what would be
//! left without power: of every file its durable contents and what was done to it since, and of every file and directory the names that
//! it had since they were last synced. [`Platter::lose_power`] draws what is left, sector by sector and name by name, and makes it the
//! contents of the directory.
//!
//! What is drawn keeps to what every file system promises: a rename is done or is not; a name that another file has taken over belongs to
//! one of the two; what was done to the names of one file is done in that order.
//!
//! A write that is not whole blocks of the disk may tear what stands beside it, however durable that was.
//!
//! **Invariants**: everything is drawn from one seed; a write of the log that completed is durable.
//!
//! It is for tests and simulations: what goes wrong with its directory is a panic, but for what it was told to let fail.
//!
//! **Not here**: writes of a dead process that land after its successor has read the log (`tests/log_pipeline.rs`).

use super::files::Files;
use super::{BlockSize, Completion, Disk, Mode, Took, Write};
use parking_lot::Mutex;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fmt;
use std::fs::{self, File};
use std::io;
use std::ops::Range;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What a power loss does not tear.
const SECTOR: usize = 512;

/// One disk. Clones are the same disk.
#[derive(Clone)]
pub struct Platter(Arc<Mutex<State>>);

impl fmt::Debug for Platter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a simulated disk over {}", self.0.lock().root.display())
    }
}

/// A directory, by the number that the system gave it, and a name in it.
type Entry = (u64, OsString);

struct State {
    root: PathBuf,
    rng: SmallRng,
    physical: BlockSize,
    nodes: Vec<Node>,
    /// Names that went from one node to another, and with which change of that.
    taken: Vec<Taken>,
    changes: u64,
    in_flight: Vec<Write>,
    done: Vec<Completion>,
    /// So many more steps on files, then the power is gone.
    fuse: Option<u32>,
    /// So many more steps on files, then one fails with this.
    fault: Option<(u32, io::ErrorKind)>,
    /// Bytes that can be written to new files.
    room: u64,
}

/// A file or a directory.
struct Node {
    /// Keeps the number of the inode from being used again.
    _handle: File,
    inode: u64,
    is_dir: bool,
    durable: Vec<u8>,
    pending: Vec<Change>,
    /// Its durable names, and all those that it got since, each with the number of the change that led to them.
    names: Vec<(u64, BTreeSet<Entry>)>,
}

/// What was done to the contents of a file.
enum Change {
    Write(usize, Vec<u8>),
    Len(usize),
}

struct Taken {
    entry: Entry,
    from: u64,
    by: u64,
    change: u64,
}

fn inode(path: &Path) -> Option<u64> {
    fs::symlink_metadata(path).ok().map(|data| data.ino())
}

fn entry(path: &Path) -> Entry {
    let dir = path.parent().expect("a file is in a directory");
    (inode(dir).expect("the directory is there"), path.file_name().expect("a file has a name").to_owned())
}

impl Node {
    fn put(&mut self, at: usize, bytes: &[u8]) {
        if self.durable.len() < at + bytes.len() {
            self.durable.resize(at + bytes.len(), 0);
        }
        self.durable[at..at + bytes.len()].copy_from_slice(bytes);
    }

    fn sync(&mut self) {
        for change in std::mem::take(&mut self.pending) {
            match change {
                Change::Write(at, bytes) => self.put(at, &bytes),
                Change::Len(len) => self.durable.resize(len, 0),
            }
        }
    }

    fn newest(&self) -> BTreeSet<Entry> {
        self.names.last().expect("one at least").1.clone()
    }

    /// A disk that writes larger blocks reads what stands beside a write, and writes it again: that may be torn, too.
    fn tear_beside(&mut self, write: Range<usize>, rng: &mut SmallRng, physical: BlockSize) {
        let first = write.start / physical.bytes() * physical.bytes();
        for beside in [first..write.start, write.end..physical.round_up(write.end)] {
            if !beside.is_empty() && rng.random() {
                let end = beside.end.min(self.durable.len());
                self.durable[beside.start.min(end)..end].fill(0xa5);
            }
        }
    }

    /// What is left of it: all, none or any sectors of what was not synced.
    fn lose_power(&mut self, rng: &mut SmallRng, physical: BlockSize) {
        let before = self.durable.len();
        for change in std::mem::take(&mut self.pending) {
            match change {
                Change::Write(at, bytes) => {
                    let odds = [0.0, 0.5, 0.9, 1.0][rng.random_range(0..4)];
                    for (index, sector) in bytes.chunks(SECTOR).enumerate() {
                        if rng.random_bool(odds) {
                            self.put(at + index * SECTOR, sector);
                        }
                    }
                    self.tear_beside(at..at + bytes.len(), rng, physical);
                }
                Change::Len(len) if rng.random() => self.durable.resize(len, 0),
                Change::Len(_) => {}
            }
        }
        if self.durable.len() > before && rng.random() {
            let sectors = before / SECTOR..=self.durable.len() / SECTOR;
            self.durable.truncate(rng.random_range(sectors) * SECTOR);
        }
    }
}

impl State {
    fn step(&mut self) -> io::Result<()> {
        match &mut self.fault {
            Some((0, kind)) => {
                let failed = Err((*kind).into());
                self.fault = None;
                return failed;
            }
            Some((left, _)) => *left -= 1,
            None => {}
        }
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
        let wanted = file.metadata().expect("it is open").ino();
        self.by_inode(wanted).expect("every file is known")
    }

    fn at(&mut self, path: &Path) -> Option<&mut Node> {
        let wanted = inode(path)?;
        self.by_inode(wanted)
    }

    fn by_inode(&mut self, wanted: u64) -> Option<&mut Node> {
        self.nodes.iter_mut().find(|node| node.inode == wanted)
    }

    /// The names of a node change.
    fn change(&mut self, inode: u64, change: impl FnOnce(&mut BTreeSet<Entry>)) {
        self.changes += 1;
        let number = self.changes;
        let node = self.by_inode(inode).expect("every file is known");
        let mut names = node.newest();
        change(&mut names);
        node.names.push((number, names));
    }

    /// A node has another's name from its newest change on.
    fn takes(&mut self, by: u64, entry: Entry, from: Option<u64>) {
        let change = self.changes;
        self.taken.extend(from.map(|from| Taken { entry, from, by, change }));
    }

    fn add(&mut self, path: &Path, names: Vec<(u64, BTreeSet<Entry>)>, durable: Vec<u8>) -> u64 {
        let handle = File::open(path).expect("it was made just now");
        let data = handle.metadata().expect("it is open");
        let (inode, is_dir) = (data.ino(), data.is_dir());
        self.nodes.push(Node { _handle: handle, inode, is_dir, durable, pending: Vec::new(), names });
        inode
    }

    /// Everything below `dir` that can be read now is durable.
    fn settle(&mut self, dir: &Path) {
        let mut paths: Vec<PathBuf> = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
        paths.sort();
        for path in paths {
            let name = entry(&path);
            if let Some(known) = self.at(&path) {
                known.names[0].1.insert(name);
                continue;
            }
            let bytes = if path.is_dir() { Vec::new() } else { fs::read(&path).unwrap() };
            self.add(&path, vec![(0, BTreeSet::from([name]))], bytes);
            if path.is_dir() {
                self.settle(&path);
            }
        }
    }

    /// Which of its names each node has after a power loss.
    fn draw_names(&mut self) -> Vec<BTreeSet<Entry>> {
        let State { rng, nodes, .. } = self;
        let mut chosen: Vec<usize> = nodes.iter().map(|node| rng.random_range(0..node.names.len())).collect();
        let mut lost: Vec<BTreeSet<Entry>> = vec![BTreeSet::new(); nodes.len()];
        for taken in &self.taken {
            let by = self.nodes.iter().position(|node| node.inode == taken.by).expect("every file is known");
            let from = self.nodes.iter().position(|node| node.inode == taken.from).expect("every file is known");
            if self.nodes[by].names[chosen[by]].0 >= taken.change {
                lost[from].insert(taken.entry.clone());
            }
        }
        loop {
            let mut owners: BTreeMap<&Entry, usize> = BTreeMap::new();
            let mut clash = None;
            for (index, node) in self.nodes.iter().enumerate() {
                for name in node.names[chosen[index]].1.difference(&lost[index]) {
                    clash = clash.or(owners.insert(name, index).map(|other| (name, other, index)));
                }
            }
            let Some((name, one, other)) = clash else { break };
            // One has given it up before the other got it: that has happened, then.
            let gives_up = |index: usize| {
                let later = self.nodes[index].names.iter().enumerate().skip(chosen[index]);
                later.filter(|(_, (_, names))| !names.contains(name)).map(|(at, _)| at).next()
            };
            match (gives_up(one), gives_up(other)) {
                (Some(at), _) => chosen[one] = at,
                (None, Some(at)) => chosen[other] = at,
                (None, None) => panic!("two files have the name {name:?}"),
            }
        }
        let names = self.nodes.iter().zip(chosen).zip(&lost);
        names.map(|((node, chosen), lost)| node.names[chosen].1.difference(lost).cloned().collect()).collect()
    }
}

impl Platter {
    /// Over what is in `root` and below, all of it durable; what it loses is drawn from `seed`.
    pub fn new(root: &Path, seed: u64) -> Platter {
        let platter = Platter(Arc::new(Mutex::new(State {
            root: root.to_owned(),
            rng: SmallRng::seed_from_u64(seed),
            physical: BlockSize::MAX,
            nodes: Vec::new(),
            taken: Vec::new(),
            changes: 0,
            in_flight: Vec::new(),
            done: Vec::new(),
            fuse: None,
            fault: None,
            room: u64::MAX,
        })));
        platter.settle();
        platter
    }

    /// Everything that can be read now is durable; what was in flight never was written. For whatever went past this disk and
    /// has synced what it did.
    pub fn settle(&self) {
        let state = &mut *self.0.lock();
        (state.in_flight, state.done, state.nodes, state.taken) = Default::default();
        let root = state.root.clone();
        state.settle(&root);
    }

    /// From now on it writes blocks of this size, and not of the largest.
    pub fn set_physical(&self, block: BlockSize) {
        self.0.lock().physical = block;
    }

    /// Lets the power fail after so many more steps on files.
    pub fn set_fuse(&self, steps: Option<u32>) {
        self.0.lock().fuse = steps;
    }

    /// Lets one step on files fail, after so many more.
    pub fn set_fault(&self, fault: Option<(u32, io::ErrorKind)>) {
        self.0.lock().fault = fault;
    }

    /// Whether the fault is still to come.
    pub fn has_fault(&self) -> bool {
        self.0.lock().fault.is_some()
    }

    /// There is room for so many bytes of new files, each time.
    pub fn set_room(&self, room: u64) {
        self.0.lock().room = room;
    }

    /// Whether there is no room for anything new.
    pub fn is_full(&self) -> bool {
        self.0.lock().room == 0
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

    /// The process dies and the system does not: of the writes in flight, any sectors can be read from now on, and none is
    /// durable.
    pub fn kill(&self) {
        let state = &mut *self.0.lock();
        state.done.clear();
        for write in std::mem::take(&mut state.in_flight) {
            let odds = [0.0, 0.7, 1.0][state.rng.random_range(0..3)];
            for (index, sector) in write.data.chunks(SECTOR).enumerate() {
                if state.rng.random_bool(odds) {
                    let at = write.offset + (index * SECTOR) as u64;
                    write.file.write_all_at(sector, at).unwrap();
                    state.node(&write.file).pending.push(Change::Write(at as usize, sector.to_vec()));
                }
            }
        }
        (state.fuse, state.fault) = (None, None);
    }

    /// The power fails: the directory holds what is left.
    pub fn lose_power(&self) {
        let state = &mut *self.0.lock();
        state.done.clear();
        for write in std::mem::take(&mut state.in_flight) {
            let change = Change::Write(write.offset as usize, write.data.to_vec());
            state.node(&write.file).pending.push(change);
        }
        let names = state.draw_names();
        for node in &mut state.nodes {
            node.lose_power(&mut state.rng, state.physical);
        }
        for entry in fs::read_dir(&state.root).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() { fs::remove_dir_all(path).unwrap() } else { fs::remove_file(path).unwrap() }
        }
        let nodes = std::mem::take(&mut state.nodes);
        let mut made: BTreeMap<u64, PathBuf> = BTreeMap::new();
        let mut dirs = vec![(inode(&state.root).unwrap(), state.root.clone())];
        while let Some((dir, place)) = dirs.pop() {
            for (node, names) in nodes.iter().zip(&names) {
                for (_, name) in names.iter().filter(|(in_dir, _)| *in_dir == dir) {
                    let path = place.join(name);
                    match made.get(&node.inode) {
                        Some(other) => fs::hard_link(other, &path).unwrap(),
                        None if node.is_dir => {
                            fs::create_dir(&path).unwrap();
                            dirs.push((node.inode, path));
                        }
                        None => {
                            fs::write(&path, &node.durable).unwrap();
                            made.insert(node.inode, path);
                        }
                    }
                }
            }
        }
        drop(nodes);
        (state.fuse, state.fault, state.taken) = (None, None, Vec::new());
        let root = state.root.clone();
        state.settle(&root);
    }
}

impl Files for Platter {
    fn create(&self, path: &Path, _: bool) -> io::Result<File> {
        let state = &mut *self.0.lock();
        state.step()?;
        if state.room == 0 {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let before = state.at(path).map(|node| node.inode);
        if before.is_some() {
            fs::remove_file(path)?;
        }
        let file = File::create(path)?;
        let made = state.add(path, vec![(0, BTreeSet::new())], Vec::new());
        let name = entry(path);
        state.change(made, |names| _ = names.insert(name.clone()));
        state.takes(made, name, before);
        Ok(file)
    }

    fn open(&self, path: &Path, _: Option<&Mode>) -> io::Result<File> {
        self.0.lock().step()?;
        File::options().write(true).open(path)
    }

    fn write(&self, file: &File, bytes: &[u8], at: u64) -> io::Result<()> {
        let state = &mut *self.0.lock();
        state.step()?;
        file.write_all_at(bytes, at)?;
        state.node(file).pending.push(Change::Write(at as usize, bytes.to_vec()));
        Ok(())
    }

    fn set_len(&self, file: &File, len: u64) -> io::Result<()> {
        let state = &mut *self.0.lock();
        state.step()?;
        file.set_len(len)?;
        state.node(file).pending.push(Change::Len(len as usize));
        Ok(())
    }

    fn sync(&self, file: &File) -> io::Result<()> {
        let state = &mut *self.0.lock();
        state.step()?;
        state.node(file).sync();
        Ok(())
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let state = &mut *self.0.lock();
        state.step()?;
        let moved = inode(from).ok_or(io::ErrorKind::NotFound)?;
        let replaced = state.at(to).map(|node| node.inode);
        let (old, new) = (entry(from), entry(to));
        fs::rename(from, to)?;
        if old.0 == new.0 {
            state.change(moved, |names| {
                names.remove(&old);
                names.insert(new.clone());
            });
            state.takes(moved, new, replaced);
        } else {
            // Of the two directories, each may be synced without the other.
            state.change(moved, |names| _ = names.insert(new.clone()));
            state.takes(moved, new, replaced);
            state.change(moved, |names| _ = names.remove(&old));
        }
        Ok(())
    }

    fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        let state = &mut *self.0.lock();
        state.step()?;
        fs::hard_link(from, to)?;
        let linked = inode(from).expect("it was linked just now");
        state.change(linked, |names| _ = names.insert(entry(to)));
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let state = &mut *self.0.lock();
        state.step()?;
        let removed = inode(path).ok_or(io::ErrorKind::NotFound)?;
        let name = entry(path);
        fs::remove_file(path)?;
        state.change(removed, |names| _ = names.remove(&name));
        Ok(())
    }

    fn make_dir(&self, path: &Path) -> io::Result<()> {
        let state = &mut *self.0.lock();
        state.step()?;
        fs::create_dir(path)?;
        let made = state.add(path, vec![(0, BTreeSet::new())], Vec::new());
        state.change(made, |names| _ = names.insert(entry(path)));
        Ok(())
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        let state = &mut *self.0.lock();
        state.step()?;
        let dir = inode(dir).ok_or(io::ErrorKind::NotFound)?;
        for node in &mut state.nodes {
            let here = |names: &BTreeSet<Entry>| -> Vec<Entry> {
                names.iter().filter(|(in_dir, _)| *in_dir == dir).cloned().collect()
            };
            let changed = node.names.windows(2).rposition(|pair| here(&pair[0].1) != here(&pair[1].1));
            node.names.drain(..changed.map_or(0, |before| before + 1));
        }
        // What was taken over durably never comes back.
        let taken = std::mem::take(&mut state.taken);
        for taken in taken {
            let is_durable = state.by_inode(taken.by).is_some_and(|by| by.names[0].0 >= taken.change);
            if is_durable {
                let from = state.by_inode(taken.from).expect("every file is known");
                from.names.iter_mut().for_each(|(_, names)| _ = names.remove(&taken.entry));
            } else {
                state.taken.push(taken);
            }
        }
        state.nodes.retain(|node| node.names.len() > 1 || !node.names[0].1.is_empty());
        let State { taken, nodes, .. } = state;
        let is_there = |inode: u64| nodes.iter().any(|node| node.inode == inode);
        taken.retain(|taken| is_there(taken.by) && is_there(taken.from));
        Ok(())
    }

    fn room(&self, _: &Path) -> io::Result<u64> {
        Ok(self.0.lock().room)
    }
}

impl Disk for Platter {
    fn submit(&mut self, write: Write) {
        let state = &mut *self.0.lock();
        let block = state.physical.bytes();
        assert!(write.offset.is_multiple_of(block as u64) && write.data.len().is_multiple_of(block), "whole blocks");
        state.in_flight.push(write);
    }

    fn has_completions(&self) -> bool {
        !self.0.lock().done.is_empty()
    }

    fn completions(&mut self, out: &mut Vec<Completion>) {
        out.append(&mut self.0.lock().done);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether a durable byte survives every power loss in the middle of a write of 512 bytes that begins 512 behind it.
    fn survives(physical: BlockSize) -> bool {
        let dir = tempfile::tempdir_in(".").unwrap();
        (0..20).all(|seed| {
            let path = dir.path().join("file");
            fs::write(&path, [1; 4096]).unwrap();
            let platter = Platter::new(dir.path(), seed);
            platter.set_physical(physical);
            let file = Files::open(&platter, &path, None).unwrap();
            Files::write(&platter, &file, &[2; 512], 512).unwrap();
            platter.lose_power();
            fs::read(&path).unwrap()[..512] == [1; 512]
        })
    }

    #[test]
    fn a_write_of_a_part_of_a_block_may_tear_the_rest() {
        assert!(survives(BlockSize::MIN));
        assert!(!survives(BlockSize::MAX));
    }
}
