//! The two numbers that a member must never forget: the newest epoch that it has promised to a leader, and the epoch of the last
//! leader whose history it has taken over (Zab's `f.p` and `f.a`; Apache keeps them in `acceptedEpoch` and `currentEpoch`).
//!
//! They lie in one small text file, with a checksum, which is replaced as a whole: so no crash leaves one of them new and the
//! other old (ZOOKEEPER-2307, ZOOKEEPER-4269: two files, and a server that does not start after a crash between them).
//!
//! Beside them stands whether this member has lost its history: its log was damaged, and was set aside. It must not vote then, nor be
//! counted on, until it has a leader's history: it does not know any more what it has acknowledged.
//!
//! **Invariants**: neither number ever goes back; `current` ≤ `accepted`; a call that returns has made it durable.
//!
//! **Not here**: when an epoch is promised or taken over.

use crate::disk::files::Files;
use crate::disk::publish::publish;
use crate::error::StorageError;
use corral_proto::Zxid;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Its name in the directory.
const FILE: &str = "epochs";

/// The numbers, on the disk.
#[derive(Debug)]
pub struct Epochs {
    files: Arc<dyn Files>,
    dir: PathBuf,
    accepted: u32,
    current: u32,
    is_lost: bool,
}

impl Epochs {
    /// Reads what is in `dir`. Where nothing is, a member has promised and taken over the epoch of `last`, the newest transaction
    /// in its log.
    ///
    /// # Errors
    /// [`StorageError::Corrupt`] when the file does not check out, or is older than the log.
    pub fn open(files: Arc<dyn Files>, dir: &Path, last: Zxid) -> Result<Epochs, StorageError> {
        let path = dir.join(FILE);
        let corrupt = |why: String| StorageError::Corrupt { file: path.clone(), offset: 0, why };
        let text = match fs::read(&path) {
            Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
            Err(error) if error.kind() == ErrorKind::NotFound => {
                let (accepted, current) = (last.epoch(), last.epoch());
                let epochs = Epochs { files, dir: dir.to_owned(), accepted, current, is_lost: false };
                epochs.store()?;
                return Ok(epochs);
            }
            Err(source) => return Err(StorageError::Io { op: "read", path, source }),
        };
        let (accepted, current, is_lost) = parse(&text).map_err(|why| corrupt(why.to_owned()))?;
        // Of an epoch that was promised the log may hold something before it is taken over: that comes last.
        if last.epoch() > accepted {
            return Err(corrupt(format!(
                "it says that this server has promised epoch {accepted}, but its log holds transaction {last} of a later one"
            )));
        }
        Ok(Epochs { files, dir: dir.to_owned(), accepted, current, is_lost })
    }

    /// Whether there is a file of them in `dir`.
    ///
    /// # Errors
    /// When that cannot be looked at.
    pub fn are_in(dir: &Path) -> Result<bool, StorageError> {
        let path = dir.join(FILE);
        path.try_exists().map_err(StorageError::io("look for", &path))
    }

    /// Whether the history that goes with them is lost.
    pub fn is_lost(&self) -> bool {
        self.is_lost
    }

    /// The history is lost. What was promised still holds.
    ///
    /// # Errors
    /// What the system answered.
    pub fn lose(&mut self) -> Result<(), StorageError> {
        self.replace(self.accepted, self.current, true)
    }

    /// The newest epoch that was promised.
    pub fn accepted(&self) -> u32 {
        self.accepted
    }

    /// The epoch of the last leader whose history was taken over.
    pub fn current(&self) -> u32 {
        self.current
    }

    /// Promises not to follow the leader of an earlier epoch any more.
    ///
    /// # Errors
    /// What the system answered; the promise is not made then.
    pub fn promise(&mut self, epoch: u32) -> Result<(), StorageError> {
        assert!(epoch >= self.accepted, "epoch {epoch} is promised after {}", self.accepted);
        self.replace(epoch, self.current, self.is_lost)
    }

    /// The history of the leader of `epoch`, which was promised, is this member's own now, whatever it had lost.
    ///
    /// # Errors
    /// What the system answered; the epoch before stays.
    pub fn take_over(&mut self, epoch: u32) -> Result<(), StorageError> {
        assert!(epoch >= self.current && epoch <= self.accepted, "epoch {epoch} was promised before it is taken over");
        self.replace(self.accepted, epoch, false)
    }

    fn replace(&mut self, accepted: u32, current: u32, is_lost: bool) -> Result<(), StorageError> {
        let (files, dir) = (self.files.clone(), self.dir.clone());
        let next = Epochs { files, dir, accepted, current, is_lost };
        next.store()?;
        *self = next;
        Ok(())
    }

    fn store(&self) -> Result<(), StorageError> {
        publish(&*self.files, &self.dir, FILE, text(self.accepted, self.current, self.is_lost).as_bytes())
    }
}

fn text(accepted: u32, current: u32, is_lost: bool) -> String {
    let lost = if is_lost { "history=lost\n" } else { "" };
    let numbers = format!("accepted={accepted}\ncurrent={current}\n{lost}");
    let crc = crc32c::crc32c(numbers.as_bytes());
    format!("{numbers}crc32c={crc:08x}\n")
}

fn parse(text: &str) -> Result<(u32, u32, bool), &'static str> {
    let mut lines = text.lines();
    let mut number = |name: &str| lines.next()?.strip_prefix(name)?.parse::<u32>().ok();
    let (Some(accepted), Some(current)) = (number("accepted="), number("current=")) else {
        return Err("this is not a file of epochs");
    };
    let same = [false, true].into_iter().find(|is_lost| self::text(accepted, current, *is_lost) == text);
    let is_lost = same.filter(|_| current <= accepted).ok_or("the checksum is wrong")?;
    Ok((accepted, current, is_lost))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::files::real;

    fn numbers(epochs: &Epochs) -> (u32, u32) {
        (epochs.accepted(), epochs.current())
    }

    #[test]
    fn a_lost_history_is_remembered_until_another_is_taken_over() {
        let dir = tempfile::tempdir_in(".").unwrap();
        assert!(!Epochs::are_in(dir.path()).unwrap());
        let mut epochs = Epochs::open(real(), dir.path(), Zxid::new(3, 9)).unwrap();
        epochs.lose().unwrap();
        assert!(Epochs::are_in(dir.path()).unwrap());
        let mut epochs = Epochs::open(real(), dir.path(), Zxid::ZERO).unwrap();
        assert_eq!((numbers(&epochs), epochs.is_lost()), ((3, 3), true));
        epochs.promise(4).unwrap();
        assert!(Epochs::open(real(), dir.path(), Zxid::ZERO).unwrap().is_lost(), "a promise brings no history");
        epochs.take_over(4).unwrap();
        let epochs = Epochs::open(real(), dir.path(), Zxid::new(4, 1)).unwrap();
        assert_eq!((numbers(&epochs), epochs.is_lost()), ((4, 4), false));
    }

    /// ZOOKEEPER-2307 and 4269.
    #[test]
    fn what_was_promised_and_taken_over_is_remembered() {
        let dir = tempfile::tempdir_in(".").unwrap();
        let mut epochs = Epochs::open(real(), dir.path(), Zxid::new(3, 9)).unwrap();
        assert_eq!(numbers(&epochs), (3, 3), "an older server's data");
        epochs.promise(7).unwrap();
        assert_eq!(numbers(&Epochs::open(real(), dir.path(), Zxid::new(3, 9)).unwrap()), (7, 3));
        epochs.take_over(7).unwrap();
        assert_eq!(numbers(&Epochs::open(real(), dir.path(), Zxid::new(7, 1)).unwrap()), (7, 7));
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "nothing is left behind");
    }

    #[test]
    fn a_log_of_a_later_epoch_and_a_damaged_file_are_refused() {
        let dir = tempfile::tempdir_in(".").unwrap();
        Epochs::open(real(), dir.path(), Zxid::new(3, 9)).unwrap();
        assert!(Epochs::open(real(), dir.path(), Zxid::new(4, 1)).unwrap_err().to_string().contains("epoch 3"));
        Epochs::open(real(), dir.path(), Zxid::new(3, 9)).unwrap().promise(4).unwrap();
        let stopped = Epochs::open(real(), dir.path(), Zxid::new(4, 1)).expect("stopped before it was taken over");
        assert_eq!(numbers(&stopped), (4, 3));
        Epochs::open(real(), dir.path(), Zxid::new(3, 9)).unwrap().lose().unwrap();
        let path = dir.path().join(FILE);
        let good = fs::read(&path).unwrap();
        for at in 0..good.len() {
            let mut bad = good.clone();
            for bit in [1, 0x80] {
                bad[at] = good[at] ^ bit;
                fs::write(&path, &bad).unwrap();
                let refused = Epochs::open(real(), dir.path(), Zxid::ZERO).unwrap_err();
                assert!(matches!(refused, StorageError::Corrupt { .. }), "byte {at}: {refused}");
            }
            fs::write(&path, &good[..at]).unwrap();
            assert!(Epochs::open(real(), dir.path(), Zxid::ZERO).is_err(), "cut at {at}");
        }
    }

    #[test]
    #[should_panic(expected = "is promised after")]
    fn a_promise_is_never_taken_back() {
        let dir = tempfile::tempdir_in(".").unwrap();
        let mut epochs = Epochs::open(real(), dir.path(), Zxid::new(3, 9)).unwrap();
        epochs.promise(2).unwrap();
    }

    #[test]
    #[should_panic(expected = "was promised before")]
    fn only_what_was_promised_is_taken_over() {
        let dir = tempfile::tempdir_in(".").unwrap();
        let mut epochs = Epochs::open(real(), dir.path(), Zxid::new(3, 9)).unwrap();
        epochs.take_over(4).unwrap();
    }
}
