//! The directories of one server: are they usable, are they ours alone, and what is in them.
//!
//! The log lies in `<dataLogDir>/corral-log`, snapshots in `<dataDir>/corral-snapshots`. A lock file in each directory keeps a second server out. Data of Apache ZooKeeper
//! in the same directories is not touched, but a server that found it and served an empty tree beside it would be worse than
//! none: it refuses to start.
//!
//! Log and snapshots belong together ([`corral_engine::identity`]). A start that finds one of them missing, or another's, would serve
//! without what was acknowledged, because a disk is not mounted: it is refused, by a member of an ensemble as well, which would
//! otherwise replace what is only out of sight.
//!
//! **Not here**: what a restore does ([`corral_engine::restore`]).

use crate::config::{self, Config};
use corral_engine::adoption;
use corral_engine::disk::files::{self, Files, RealFiles};
use corral_engine::disk::filesystem::volume_bytes;
use corral_engine::disk::publish::sync_dir;
use corral_engine::disk::{self, Mode};
use corral_engine::epochs::Epochs;
use corral_engine::identity::Identity;
use corral_engine::restore::{self, Progress, Restored};
use corral_engine::txnlog::segment;
use corral_engine::{StorageError, snapshot};
use corral_proto::Zxid;
use rand::{Rng, SeedableRng};
use std::fs::{self, File, TryLockError};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Opened and locked directories.
#[derive(Debug)]
pub struct Store {
    /// Where the segments of the log are.
    pub log_dir: PathBuf,
    /// Where the snapshots are.
    pub snapshot_dir: PathBuf,
    /// Snapshots that did not check out when the tree was restored.
    pub damaged_snapshots: Vec<PathBuf>,
    /// How the log is written.
    pub mode: Mode,
    /// Size of its segments in bytes.
    pub segment_bytes: u64,
    /// A snapshot is due after at most so many bytes of it; 0: however many.
    pub snapshot_after_bytes: u64,
    /// Device and inode of both when they were opened.
    opened: [(u64, u64); 2],
    _locks: Vec<File>,
}

impl Store {
    /// Makes the directories if they may be made, locks them, and chooses how the log is written.
    pub fn open(config: &Config) -> Result<Store, StorageError> {
        let mut dirs = vec![config.data_dir.as_path()];
        if config.log_dir != config.data_dir {
            dirs.push(&config.log_dir);
        }
        let mut locks = Vec::new();
        for dir in dirs {
            make(dir, config.datadir_autocreate)?;
            locks.push(lock(dir)?);
            refuse_apache_data(dir)?;
        }
        let log_dir = config.log_dir.join("corral-log");
        let snapshot_dir = config.data_dir.join("corral-snapshots");
        identify(config, &log_dir, &snapshot_dir)?;
        make(&log_dir, true)?;
        make(&snapshot_dir, true)?;
        for dir in [&log_dir, &snapshot_dir] {
            remove_unfinished(dir)?;
        }
        let (io, sync) = (wished_io(config.log.io), wished_sync(config.log.sync));
        let mode = Mode::choose(&log_dir, io, sync, config.log.block)
            .map_err(|why| StorageError::Refused { path: log_dir.clone(), why })?;
        let volume = volume_bytes(&log_dir);
        Ok(Store {
            mode,
            segment_bytes: config.log.segment_bytes.of(volume),
            snapshot_after_bytes: config.snapshots.log_bytes.of(volume),
            damaged_snapshots: Vec::new(),
            opened: places(&log_dir, &snapshot_dir)?,
            log_dir,
            snapshot_dir,
            _locks: locks,
        })
    }

    /// See [`set_aside`].
    ///
    /// # Errors
    /// As there.
    pub fn set_aside(&mut self, damage: StorageError, data_dir: &Path) -> Result<PathBuf, StorageError> {
        let aside = set_aside(files::real(), damage, data_dir, &self.log_dir, &self.snapshot_dir)?;
        self.opened = places(&self.log_dir, &self.snapshot_dir)?;
        Ok(aside)
    }

    /// See [`give_up`].
    ///
    /// # Errors
    /// As there.
    pub fn give_up(&mut self, epochs: &mut Epochs) -> Result<PathBuf, StorageError> {
        let aside = give_up(&RealFiles, epochs, &self.log_dir, &self.snapshot_dir)?;
        self.opened = places(&self.log_dir, &self.snapshot_dir)?;
        Ok(aside)
    }

    /// See [`keep_copy`].
    ///
    /// # Errors
    /// As there.
    pub fn keep_copy(&self) -> Result<PathBuf, StorageError> {
        keep_copy(&RealFiles, &self.log_dir, &self.snapshot_dir)
    }

    /// Makes sure that the directories are those that were opened: a disk that is mounted over one of them hides it. A directory of
    /// snapshots that was deleted is made again.
    ///
    /// # Errors
    /// [`StorageError::Refused`]: nothing that is written from now on would be found again.
    pub fn check_places(&mut self) -> Result<(), StorageError> {
        if !is_there(&self.snapshot_dir)? {
            tracing::error!("{} is gone; it is made again, without the snapshots", self.snapshot_dir.display());
            make(&self.snapshot_dir, true)?;
            self.opened[1] = place(&self.snapshot_dir)?;
        }
        for (dir, opened) in [&self.log_dir, &self.snapshot_dir].into_iter().zip(self.opened) {
            if place(dir)? != opened {
                return Err(StorageError::Refused {
                    path: dir.clone(),
                    why: "this is another directory than when the server started; was a disk mounted over it? Unmount that, or move \
                          the data there, and start again"
                        .to_owned(),
                });
            }
        }
        Ok(())
    }

    /// The tree that is to be served: the newest snapshot that checks out, and the log after it.
    pub fn restore(&mut self, seed: u64, progress: impl FnMut(Progress<'_>)) -> Result<Restored, StorageError> {
        if let Some(zxid) = adoption::finish(&RealFiles, &self.snapshot_dir, &self.log_dir)? {
            tracing::info!("the history up to {zxid} that came from a leader has replaced the one before");
        }
        let restored = restore::restore(&self.snapshot_dir, &self.log_dir, seed, progress)?;
        for (path, error) in &restored.unusable {
            tracing::error!("{error}; the snapshot before it is used");
            self.damaged_snapshots.push(path.clone());
        }
        Ok(restored)
    }
}

/// Sets a history aside that cannot be restored, and with it all claims to it: what is in `log_dir` and `snapshot_dir` is kept under
/// another name that nobody reads. The epochs in `data_dir` remember that. Returns where the log is now.
///
/// # Errors
/// [`StorageError`]; a next start sets aside what is left. `damage`, where there is nothing from which it could be known what this
/// member has promised: then it must not go on by itself.
pub fn set_aside(
    files: Arc<dyn Files>,
    damage: StorageError,
    data_dir: &Path,
    log_dir: &Path,
    snapshot_dir: &Path,
) -> Result<PathBuf, StorageError> {
    if !Epochs::are_in(data_dir)? {
        return Err(damage);
    }
    // First of all: from here on it does not vote, whatever of it is still there.
    Epochs::open(files.clone(), data_dir, Zxid::ZERO)?.lose()?;
    move_aside(&*files, snapshot_dir, "damaged")?;
    move_aside(&*files, log_dir, "damaged")
}

/// Keeps the whole history under another name, because a leader's replaces it that knows nothing of it. `epochs` remember that this
/// member has lost its own. Returns where the log is now.
///
/// # Errors
/// [`StorageError`]; a next start does not vote.
pub fn give_up(
    files: &dyn Files,
    epochs: &mut Epochs,
    log_dir: &Path,
    snapshot_dir: &Path,
) -> Result<PathBuf, StorageError> {
    epochs.lose()?;
    move_aside(files, snapshot_dir, "given-up")?;
    move_aside(files, log_dir, "given-up")
}

/// Keeps the whole history under another name besides its own, because a part of it is about to go that was committed. Returns where the
/// log is there.
///
/// # Errors
/// [`StorageError`]; the history is as it was.
pub fn keep_copy(files: &dyn Files, log_dir: &Path, snapshot_dir: &Path) -> Result<PathBuf, StorageError> {
    link_aside(files, snapshot_dir)?;
    link_aside(files, log_dir)
}

/// Makes a directory in which the files of another have their names again.
fn link_aside(files: &dyn Files, dir: &Path) -> Result<PathBuf, StorageError> {
    let aside = free_name(dir, "given-up");
    let link = || {
        files.make_dir(&aside)?;
        for entry in fs::read_dir(dir)? {
            let entry = entry?;
            // What is a directory is no part of the history: that in which a snapshot from a leader was made, or `lost+found`.
            if entry.file_type()?.is_file() {
                files.link(&entry.path(), &aside.join(entry.file_name()))?;
            }
        }
        files.sync_dir(&aside)
    };
    link().map_err(StorageError::io("keep a copy of", dir))?;
    sync_dir(files, dir.parent().unwrap_or(dir))?;
    Ok(aside)
}

/// A name beside `dir` that says why, and that nobody reads.
fn free_name(dir: &Path, why: &str) -> PathBuf {
    let name = dir.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let mut names = (1..).map(|number| dir.with_file_name(format!("{name}.{why}-{number}")));
    names.find(|place| !place.exists()).expect("there is always another number")
}

/// Gives a directory another name, which says why, and makes an empty one in its place.
fn move_aside(files: &dyn Files, dir: &Path, why: &str) -> Result<PathBuf, StorageError> {
    let aside = free_name(dir, why);
    let io = StorageError::io("set aside", dir);
    files.rename(dir, &aside).and_then(|()| files.make_dir(dir)).map_err(io)?;
    sync_dir(files, dir.parent().unwrap_or(dir))?;
    Ok(aside)
}

fn places(log_dir: &Path, snapshot_dir: &Path) -> Result<[(u64, u64); 2], StorageError> {
    Ok([place(log_dir)?, place(snapshot_dir)?])
}

/// The device and the inode of a directory.
fn place(dir: &Path) -> Result<(u64, u64), StorageError> {
    let io = StorageError::io("look at", dir);
    fs::metadata(dir).map(|data| (data.dev(), data.ino())).map_err(io)
}

/// A part of the history that is not where it was.
struct Missing<'a> {
    dir: &'a Path,
    why: String,
    /// The history that it is of, if `log.acceptLoss` lets a server start without it.
    lost: Option<Identity>,
}

/// Sees to it that the log and the snapshots are of one history, and that neither is missing.
fn identify(config: &Config, log_dir: &Path, snapshot_dir: &Path) -> Result<(), StorageError> {
    let found = (Identity::read(&config.data_dir)?, Identity::read(&config.log_dir)?);
    match find_missing(config, log_dir, snapshot_dir, found)? {
        Some(Missing { dir, why, lost: Some(lost) }) if config.accept_loss == Some(lost.0) => {
            tracing::error!("{}: {why} It is accepted as lost (log.acceptLoss)", dir.display());
            lose_claims(config)?;
        }
        Some(Missing { dir, why, lost }) => {
            let way_out = match lost {
                Some(lost) => format!("To start without, and lose that for ever: log.acceptLoss={lost}"),
                None => "To begin with nothing, move both directories away".to_owned(),
            };
            let why = format!("{why} Nothing was changed. {way_out}");
            return Err(StorageError::Refused { path: dir.to_owned(), why });
        }
        None if matches!(found, (Some(_), Some(_))) => {
            // It may have taken over a leader's history just now, or its log may be out of sight.
            if config.members.is_some() && is_without_log(log_dir, snapshot_dir)? && !is_set_aside(config)? {
                tracing::error!(
                    "{}: {} This server does not vote until it has a leader's history",
                    log_dir.display(),
                    without_log(config, snapshot_dir)?
                );
                lose_claims(config)?;
            }
            return Ok(());
        }
        None => {}
    }
    // From when it has a name, a directory of the log that is missing is missed.
    make(log_dir, true)?;
    let identity = Identity(rand::rngs::SmallRng::from_os_rng().random());
    [log_dir, &config.log_dir, &config.data_dir].into_iter().try_for_each(|dir| identity.write(&RealFiles, dir))
}

/// What is missing, going by the identities that the directories of the data and the log have.
///
/// # Errors
/// Where something cannot be looked at: it is not missing then.
fn find_missing<'a>(
    config: &'a Config,
    log_dir: &Path,
    snapshot_dir: &Path,
    found: (Option<Identity>, Option<Identity>),
) -> Result<Option<Missing<'a>>, StorageError> {
    let (data, log) = (config.data_dir.display(), config.log_dir.display());
    let missing = |dir: &'a Path, why: String, lost| Ok(Some(Missing { dir, why, lost }));
    let is_alone = config.members.is_none();
    match found {
        (Some(own), None) => missing(&config.log_dir, without_log(config, snapshot_dir)?, Some(own)),
        (Some(one), Some(other)) if one != other => {
            let why = format!("the log here is not the one that belongs to {data}; were disks swapped?");
            missing(&config.log_dir, why, None)
        }
        (Some(own), Some(_)) if !is_there(log_dir)? && !is_set_aside(config)? => {
            missing(&config.log_dir, without_log(config, snapshot_dir)?, Some(own))
        }
        (Some(own), Some(_)) if is_alone && is_without_log(log_dir, snapshot_dir)? => {
            missing(&config.log_dir, without_log(config, snapshot_dir)?, Some(own))
        }
        (None, Some(own)) if has_segments(log_dir)? && !is_there(snapshot_dir)? => {
            let why =
                format!("the snapshots are missing here, which belong to the log in {log}; is their disk mounted?");
            // What a member has promised is missing with them.
            missing(&config.data_dir, why, is_alone.then_some(own))
        }
        _ => Ok(None),
    }
}

/// Why a start without the log would lose something.
fn without_log(config: &Config, snapshot_dir: &Path) -> Result<String, StorageError> {
    let since = newest_snapshot(snapshot_dir)?.map_or(String::new(), |start| format!(" after {start}"));
    Ok(format!(
        "the log is missing here, which belongs to {}, and with it whatever was acknowledged{since}; is its disk mounted?",
        config.data_dir.display()
    ))
}

/// There are no segments, though there were some: there are snapshots, or the directory is not the one that was made with its history.
fn is_without_log(log_dir: &Path, snapshot_dir: &Path) -> Result<bool, StorageError> {
    let is_empty = !has_segments(log_dir)?;
    Ok(is_empty && (newest_snapshot(snapshot_dir)?.is_some() || Identity::read(log_dir)?.is_none()))
}

fn newest_snapshot(dir: &Path) -> Result<Option<Zxid>, StorageError> {
    let snapshots = if is_there(dir)? { snapshot::list(dir)? } else { Vec::new() };
    Ok(snapshots.first().map(|(start, _)| *start))
}

fn has_segments(log_dir: &Path) -> Result<bool, StorageError> {
    Ok(is_there(log_dir)? && !segment::list(log_dir)?.is_empty())
}

fn is_there(dir: &Path) -> Result<bool, StorageError> {
    dir.try_exists().map_err(StorageError::io("look for", dir))
}

/// A member that sets its history aside may have been stopped between moving a directory away and making it again.
fn is_set_aside(config: &Config) -> Result<bool, StorageError> {
    Ok(Epochs::are_in(&config.data_dir)? && Epochs::open(files::real(), &config.data_dir, Zxid::ZERO)?.is_lost())
}

/// A member that starts without a part of its history does not know any more what it has acknowledged.
fn lose_claims(config: &Config) -> Result<(), StorageError> {
    match config.members.is_some() && Epochs::are_in(&config.data_dir)? {
        true => Epochs::open(files::real(), &config.data_dir, Zxid::ZERO)?.lose(),
        false => Ok(()),
    }
}

fn wished_io(io: config::LogIo) -> Option<disk::LogIo> {
    match io {
        config::LogIo::Auto => None,
        config::LogIo::UringDirect => Some(disk::LogIo::UringDirect),
        config::LogIo::UringBuffered => Some(disk::LogIo::UringBuffered),
        config::LogIo::Pwrite => Some(disk::LogIo::Pwrite),
    }
}

fn wished_sync(sync: config::LogSync) -> Option<disk::LogSync> {
    match sync {
        config::LogSync::Auto => None,
        config::LogSync::Dsync => Some(disk::LogSync::Dsync),
        config::LogSync::Fdatasync => Some(disk::LogSync::Fdatasync),
        config::LogSync::Fsync => Some(disk::LogSync::Fsync),
        config::LogSync::None => Some(disk::LogSync::None),
    }
}

fn make(dir: &Path, create: bool) -> Result<(), StorageError> {
    let refused = |why: String| StorageError::Refused { path: dir.to_owned(), why };
    if !dir.is_dir() {
        if !create {
            return Err(refused("there is no such directory, and datadir.autocreate=false".to_owned()));
        }
        fs::create_dir_all(dir).map_err(|error| refused(format!("cannot make the directory: {error}")))?;
        if let Some(parent) = dir.canonicalize().ok().as_deref().and_then(Path::parent) {
            sync_dir(&RealFiles, parent)?;
        }
    }
    let probe = dir.join(".corral-write-probe");
    File::create(&probe)
        .and_then(|_| fs::remove_file(&probe))
        .map_err(|error| refused(format!("cannot write to the directory: {error}")))
}

/// Deletes what a killed server was still writing: it has no name yet, so nobody ever relied on it.
fn remove_unfinished(dir: &Path) -> Result<(), StorageError> {
    let io = StorageError::io("clean up", dir);
    for entry in fs::read_dir(dir).map_err(io)? {
        let path = entry.map_err(io)?.path();
        if path.extension().is_some_and(|extension| extension == "new") {
            fs::remove_file(&path).map_err(io)?;
        }
    }
    Ok(())
}

fn lock(dir: &Path) -> Result<File, StorageError> {
    let path = dir.join("corral.lock");
    let io = StorageError::io("lock", &path);
    let file = File::options().write(true).create(true).truncate(false).open(&path).map_err(io)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(StorageError::Refused {
            path: dir.to_owned(),
            why: "another server is using this directory (it holds corral.lock); stop it or choose another dataDir"
                .to_owned(),
        }),
        Err(TryLockError::Error(error)) => Err(io(error)),
    }
}

fn refuse_apache_data(dir: &Path) -> Result<(), StorageError> {
    let theirs = dir.join("version-2");
    let is_data = |name: &str| name.starts_with("log.") || name.starts_with("snapshot.");
    let found = fs::read_dir(&theirs).is_ok_and(|mut entries| {
        entries.any(|entry| entry.is_ok_and(|entry| entry.file_name().to_str().is_some_and(is_data)))
    });
    if found {
        return Err(StorageError::Refused {
            path: theirs,
            why: "this is data of Apache ZooKeeper, which cannot be taken over yet; choose another dataDir".to_owned(),
        });
    }
    Ok(())
}
