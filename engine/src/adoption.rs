//! Taking another member's history instead of one's own: a snapshot that came from the leader replaces the tree, all snapshots and
//! the whole log.
//!
//! The snapshot is written to a directory of its own. From the moment when it is durable there under its name, it *is* the history:
//! whatever else is on the disk is deleted, and then it takes its place among the snapshots. A crash before that moment leaves the
//! old history; after it, the next start goes on where this one stopped ([`finish`]). Deleting first would lose what this member
//! had acknowledged; putting the snapshot in its place first could leave a log behind it that belongs to another history.
//!
//! **Not here**: who sends it, the tree that is served from then on.

use crate::disk::files::Files;
use crate::disk::publish::{make_dir, sync_dir};
use crate::disk::removal;
use crate::error::StorageError;
use crate::snapshot;
use crate::snapshot::writer::{SnapshotOptions, take};
use crate::tree::Tree;
use crate::txnlog::segment;
use corral_proto::Zxid;
use parking_lot::RwLock;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

/// Where the snapshot is until it has taken its place.
fn waiting_room(snapshots: &Path) -> PathBuf {
    snapshots.join("adopted")
}

/// Makes `tree` the history: when this returns, a restore from `options.dir` and `log` gives this tree and an empty log. Nobody else
/// may use the directories meanwhile.
///
/// # Errors
/// [`StorageError::Io`]; the history is the old one or the new one then.
pub fn adopt(options: &SnapshotOptions, log: &Path, tree: &RwLock<Tree>, wall_ms: i64) -> Result<(), StorageError> {
    let room = waiting_room(&options.dir);
    make_dir(&*options.files, &room)?;
    // Nobody else is served meanwhile.
    let waiting = SnapshotOptions { dir: room, rate_limit: 0, ..options.clone() };
    take(&waiting, tree, wall_ms, &AtomicBool::new(false))?;
    finish(&*options.files, &options.dir, log).map(drop)
}

/// Makes the snapshot of `zxid`, which is one of those in `snapshots`, the history. As [`adopt`].
pub(crate) fn keep_only(files: &dyn Files, snapshots: &Path, log: &Path, zxid: Zxid) -> Result<(), StorageError> {
    let room = waiting_room(snapshots);
    make_dir(files, &room)?;
    let (kept, waiting) = (snapshots.join(snapshot::file_name(zxid)), room.join(snapshot::file_name(zxid)));
    files.link(&kept, &waiting).map_err(StorageError::io("link the snapshot to", &waiting))?;
    sync_dir(files, &room)?;
    finish(files, snapshots, log).map(drop)
}

/// Ends what a crash has interrupted, before a restore. Returns the transaction that the adopted history ends with, if there was
/// one.
///
/// # Errors
/// [`StorageError::Io`].
pub fn finish(files: &dyn Files, snapshots: &Path, log: &Path) -> Result<Option<Zxid>, StorageError> {
    let room = waiting_room(snapshots);
    if !room.is_dir() {
        return Ok(None);
    }
    for entry in fs::read_dir(&room).map_err(StorageError::io("look into", &room))? {
        let path = entry.map_err(StorageError::io("look into", &room))?.path();
        if path.extension().is_some_and(|extension| extension == "new") {
            files.remove(&path).map_err(StorageError::io("delete", &path))?;
        }
    }
    let Some((zxid, adopted)) = snapshot::list(&room)?.into_iter().next() else { return Ok(None) };
    for (_, path) in segment::list(log)?.into_iter().rev() {
        removal::remove(files, &path).map_err(StorageError::io("delete the segment", &path))?;
    }
    sync_dir(files, log)?;
    for (_, path) in snapshot::list(snapshots)? {
        removal::remove(files, &path).map_err(StorageError::io("delete the snapshot", &path))?;
    }
    // One of a later transaction that came back beside the adopted one would be taken for the history.
    sync_dir(files, snapshots)?;
    let place = snapshots.join(snapshot::file_name(zxid));
    files.rename(&adopted, &place).map_err(StorageError::io("name the snapshot", &place))?;
    sync_dir(files, snapshots)?;
    sync_dir(files, &room)?;
    Ok(Some(zxid))
}
