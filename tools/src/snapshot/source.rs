//! Which snapshots are meant: files, a directory of them, or the data directory of a server.

use crate::failure::Failure;
use corral_engine::snapshot::reader::Summary;
use corral_engine::snapshot::{self};
use std::fs::{self, File};
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};

/// Where snapshots lie below a `dataDir`.
const SNAPSHOT_DIR: &str = "corral-snapshots";
/// What a snapshot of Apache ZooKeeper begins with.
const APACHE: &[u8; 4] = b"ZKSN";

/// The snapshots that `paths` mean, of each the newest first; a file is taken as one whatever its name.
///
/// # Errors
/// When there is nothing of one of these names.
pub fn files(paths: &[PathBuf]) -> Result<Vec<PathBuf>, Failure> {
    Ok(paths.iter().map(|path| found(path)).collect::<Result<Vec<_>, _>>()?.concat())
}

fn found(path: &Path) -> Result<Vec<PathBuf>, Failure> {
    match fs::metadata(path) {
        Ok(meta) if meta.is_dir() => {}
        Ok(_) => return file(path).map(|path| vec![path]),
        Err(error) => return Err(unseen(path, &error)),
    }
    let here = snapshot::list(path)?;
    let below = path.join(SNAPSHOT_DIR);
    let found = if here.is_empty() && below.is_dir() { snapshot::list(&below)? } else { here };
    Ok(found.into_iter().map(|(_, path)| path).collect())
}

/// One snapshot, which must be a file of our own format.
///
/// # Errors
/// When it is anything else.
pub fn file(path: &Path) -> Result<PathBuf, Failure> {
    let told = |why: &str| Failure::Usage(format!("{}: {why}", path.display()));
    let mut file = File::open(path).map_err(|error| unseen(path, &error))?;
    let mut magic = [0; 8];
    match file.read_exact(&mut magic) {
        Err(error) if error.kind() == ErrorKind::IsADirectory => {
            Err(told("this is a directory; name a snapshot in it"))
        }
        Ok(()) if magic.starts_with(APACHE) => {
            Err(told("this is a snapshot of Apache ZooKeeper, which is not read here"))
        }
        Ok(()) if &magic == b"CORRALSN" => Ok(path.to_owned()),
        _ => Err(told("this is not a Corral snapshot")),
    }
}

fn unseen(path: &Path, error: &std::io::Error) -> Failure {
    match error.kind() {
        ErrorKind::NotFound => Failure::Usage(format!("{}: there is no such file or directory", path.display())),
        _ => Failure::Failed(format!("cannot look at {}: {error}", path.display())),
    }
}

/// What to say of a snapshot that is the tree of no single moment.
pub fn fuzzy(summary: &Summary) -> Option<String> {
    let (start, end) = (summary.footer.start, summary.footer.end);
    (start < end).then(|| {
        format!(
            "taken while transactions {start} to {end} were applied: parts of them are in it, until the log is replayed"
        )
    })
}
