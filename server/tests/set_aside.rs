//! A history that is set aside, because it is damaged or because the leader knows nothing of it: the power fails at every single step,
//! and all of it is still there afterwards, under one name or the other, with a member that knows what it has lost.

use corral_engine::StorageError;
use corral_engine::disk::files::{Files, real};
use corral_engine::disk::simulated::Platter;
use corral_engine::epochs::Epochs;
use corral_proto::Zxid;
use corral_server::process::store::{give_up, keep_copy, set_aside};
use std::fs;
use std::path::Path;
use std::sync::Arc;
use tempfile::TempDir;

/// A member's directory with a log of two files and a snapshot.
fn member() -> TempDir {
    let home = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    for (dir, files) in [("log", &["log-1", "log-2"][..]), ("snapshots", &["snapshot-1"])] {
        fs::create_dir(home.path().join(dir)).unwrap();
        files.iter().for_each(|name| fs::write(home.path().join(dir).join(name), name).unwrap());
    }
    Epochs::open(real(), home.path(), Zxid::new(3, 1)).unwrap();
    home
}

/// The directories besides `epochs`, each with what is in it.
fn contents(home: &Path) -> Vec<(String, Vec<String>)> {
    let names = |dir: &Path| {
        let mut names: Vec<String> =
            fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    };
    let dirs = names(home).into_iter().filter(|name| home.join(name).is_dir());
    dirs.map(|name| (name.clone(), names(&home.join(name)))).collect()
}

fn at_every_step(work: impl Fn(&Path, Arc<dyn Files>) -> Result<(), StorageError>) {
    let mut is_done = false;
    let mut steps = 0;
    while !is_done {
        for draw in 0..20 {
            let home = member();
            let platter = Platter::new(home.path(), draw);
            platter.set_fuse(Some(steps));
            is_done = work(home.path(), Arc::new(platter.clone())).is_ok();
            assert!(is_done || !platter.has_power(), "nothing else fails");
            platter.lose_power();
            let found = contents(home.path());
            let all: Vec<&String> = found.iter().flat_map(|(_, names)| names).collect();
            assert_eq!(all.len(), 3, "nothing is gone, and nothing is there twice: {found:?}");
            let epochs = Epochs::open(real(), home.path(), Zxid::ZERO).unwrap();
            let is_moved = found.iter().any(|(dir, names)| dir.contains(".") && !names.is_empty());
            assert!(epochs.is_lost() || (!is_moved && !is_done), "step {steps}: {found:?}");
            let is_empty = |name: &str| found.iter().any(|(dir, names)| dir == name && names.is_empty());
            assert!(!is_done || (is_empty("log") && is_empty("snapshots")), "{found:?}");
        }
        steps += 1;
    }
    assert!(steps > 6, "hardly anything was done");
}

#[test]
fn a_damaged_history_is_kept_whenever_the_power_fails() {
    at_every_step(|home, files| {
        let damage = StorageError::Corrupt { file: home.join("log/log-1"), offset: 0, why: "it is".to_owned() };
        set_aside(files, damage, home, &home.join("log"), &home.join("snapshots")).map(drop)
    });
}

#[test]
fn a_history_that_is_given_up_is_kept_whenever_the_power_fails() {
    at_every_step(|home, files| {
        let mut epochs = Epochs::open(files.clone(), home, Zxid::ZERO)?;
        give_up(&*files, &mut epochs, &home.join("log"), &home.join("snapshots")).map(drop)
    });
}

/// The history itself is left as it is, whatever there is of the copy.
#[test]
fn a_copy_that_is_kept_is_whole_when_it_is_said_to_be() {
    let all = |dir: &str, found: &[(String, Vec<String>)]| {
        let names = found.iter().filter(|(name, _)| name == dir).flat_map(|(_, names)| names.clone());
        names.collect::<Vec<_>>()
    };
    let mut is_done = false;
    for step in 0.. {
        for draw in 0..20 {
            let home = member();
            let platter = Platter::new(home.path(), draw);
            platter.set_fuse(Some(step));
            is_done = keep_copy(&platter, &home.path().join("log"), &home.path().join("snapshots")).is_ok();
            platter.lose_power();
            let found = contents(home.path());
            assert_eq!(all("log", &found), ["log-1", "log-2"], "step {step}");
            assert_eq!(all("snapshots", &found), ["snapshot-1"], "step {step}");
            if is_done {
                assert_eq!(all("log.given-up-1", &found), ["log-1", "log-2"]);
                assert_eq!(all("snapshots.given-up-1", &found), ["snapshot-1"]);
            }
        }
        if is_done {
            assert!(step > 6, "hardly anything was done");
            return;
        }
    }
}

/// A member whose history came from a leader once could not keep a copy: the room in which that was made cannot have two names.
#[test]
fn a_room_among_the_snapshots_does_not_hinder_a_copy() {
    let home = member();
    let snapshots = home.path().join("snapshots");
    fs::create_dir(snapshots.join("adopted")).unwrap();
    keep_copy(&*real(), &home.path().join("log"), &snapshots).unwrap();
    let found = contents(home.path());
    let copied = |name: &str| found.iter().find(|(dir, _)| dir == name).map(|(_, files)| files.join(" "));
    assert_eq!(copied("log.given-up-1").as_deref(), Some("log-1 log-2"));
    assert_eq!(copied("snapshots.given-up-1").as_deref(), Some("snapshot-1"));
}
