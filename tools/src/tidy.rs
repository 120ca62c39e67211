//! Rules of the source tree, checked as a test (`tools/tests/tidy.rs`): every file says what it is, imports point down,
//! unsafe code stays where it belongs, and no file outgrows one sitting.
//!
//! **Not here**: what rustfmt and clippy check.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// The crates from the ground up, each with those of this workspace that it may use.
pub const MAY_USE: [(&str, &[&str]); 6] = [
    ("net/proto", &[]),
    ("engine", &["corral-proto"]),
    ("net", &["corral-proto"]),
    ("server", &["corral-proto", "corral-engine", "corral-net"]),
    ("bench", &["corral-proto", "corral-engine", "corral-net", "corral-server"]),
    ("tools", &["corral-proto", "corral-engine", "corral-net", "corral-server"]),
];

/// A file of more lines than this has a second room inside.
pub const LINES_MAX: usize = 700;

/// Files that may hold unsafe code: the ring and aligned memory, and tests that need what the standard library has not.
const UNSAFE: [&str; 4] = ["engine/src/disk/", "engine/tests/", "server/tests/common/", "net/proto/tests/"];

/// All Rust files below `root`, without what is built.
///
/// # Errors
/// When a directory cannot be read.
pub fn rust_files(root: &Path) -> io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder)? {
            let path = entry?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if path.is_dir() && name != "target" && !name.starts_with('.') {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                files.push(path);
            }
        }
    }
    files.sort();
    Ok(files)
}

/// What is wrong with one file: `name` is its path from the root, with forward slashes.
pub fn complaints(name: &str, text: &str) -> Vec<String> {
    let mut complaints = Vec::new();
    let mut complain = |what: String| complaints.push(format!("{name}: {what}"));
    if !text.starts_with("//!") {
        complain("does not open with `//!` lines that say what it is".to_owned());
    }
    let lines = text.lines().count();
    if lines > LINES_MAX {
        complain(format!("has {lines} lines; more than {LINES_MAX} cannot be read in one sitting: split it"));
    }
    // Put together here, so that this file does not find itself.
    let unsafe_word = ["unsafe", " "].concat();
    let is_code = |line: &&str| !line.trim_start().starts_with("//");
    if text.lines().filter(is_code).any(|line| line.contains(&unsafe_word))
        && !UNSAFE.iter().any(|ok| name.starts_with(ok))
    {
        complain(format!("has {unsafe_word}code; that belongs to engine/src/disk"));
    }
    complaints
}

/// What is wrong with a manifest's dependencies: `krate` is the folder, `text` its `Cargo.toml`.
pub fn forbidden_imports(krate: &str, text: &str) -> Vec<String> {
    let allowed = MAY_USE.iter().find(|(folder, _)| *folder == krate).map_or(&[][..], |(_, allowed)| allowed);
    let used =
        text.lines().filter_map(|line| line.split(['.', ' ', '=']).next()).filter(|name| name.starts_with("corral-"));
    // A crate's own tests may ask for its features.
    let own = format!("corral-{}", krate.rsplit('/').next().unwrap_or_default());
    used.filter(|name| !allowed.contains(name) && **name != own)
        .map(|name| format!("{krate}/Cargo.toml: uses {name}; imports point down only"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_breaks_a_rule_is_named() {
        assert!(complaints("net/src/a.rs", "//! Head.\n\nfn a() {}\n").is_empty());
        assert_eq!(complaints("net/src/a.rs", "fn a() {}\n").len(), 1);
        assert_eq!(complaints("net/src/a.rs", &format!("//! Head.\n{} {{}}\n", "unsafe")).len(), 1);
        assert!(complaints("engine/src/disk/a.rs", &format!("//! Head.\n{} {{}}\n", "unsafe")).is_empty());
        assert_eq!(complaints("net/src/a.rs", &"//! Head.\n".repeat(LINES_MAX + 1)).len(), 1);
    }

    #[test]
    fn imports_that_point_up_are_named() {
        assert!(forbidden_imports("net", "corral-proto.workspace = true\nmio = \"1\"\n").is_empty());
        assert_eq!(forbidden_imports("engine", "corral-net.workspace = true\n").len(), 1);
        assert_eq!(forbidden_imports("net/proto", "corral-net = { path = \"..\" }\n").len(), 1);
    }
}
