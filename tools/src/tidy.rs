//! Rules of the source tree, checked as a test (`tools/tests/tidy.rs`): every file says what it is, imports point down and
//! never in a circle, unsafe code stays where it belongs, and no file outgrows one sitting.
//!
//! **Not here**: what rustfmt and clippy check.

use std::collections::{BTreeMap, BTreeSet};
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

/// The rooms of the server, from the ground up: each may use those before it.
pub const ROOMS: [&str; 11] = [
    "mutation",
    "budget",
    "stages",
    "consensus",
    "requests",
    "clients",
    "replica",
    "config",
    "admin",
    "machine",
    "process",
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

/// What a file of the server uses of rooms that stand above its own; `name` is its path from the server's `src` folder.
pub fn uses_above(name: &str, text: &str) -> Vec<String> {
    let place = |room: &str| ROOMS.iter().position(|known| *known == room);
    let Some(own) = place(name.split(['/', '.']).next().unwrap_or_default()) else { return Vec::new() };
    let code = text.lines().filter(|line| !line.trim_start().starts_with("//"));
    let used = code.flat_map(|line| line.split("crate::").skip(1));
    let rooms: BTreeSet<&str> =
        used.filter_map(|path| path.split(|c: char| !c.is_alphanumeric() && c != '_').next()).collect();
    let above = rooms.into_iter().filter(|room| place(room).is_some_and(|place| place > own));
    above.map(|room| format!("server/src/{name}: uses {room}, which stands above it")).collect()
}

/// Circles of imports between the files of one crate, each as the names of its files. `files` are their names from the crate's `src`
/// folder, and their text. That a file uses what the root of its own folder defines makes no circle: that is its room. Tests do not
/// count.
pub fn circles(files: &[(String, String)]) -> Vec<String> {
    let is_test = |name: &str| {
        name.split('/')
            .any(|part| part == "tests" || part == "exhaustive" || part.trim_end_matches(".rs").ends_with("tests"))
    };
    let modules: BTreeMap<Vec<&str>, &str> =
        files.iter().filter(|(name, _)| !is_test(name)).map(|(name, text)| (module(name), text.as_str())).collect();
    let code = |text: &'_ str| text.split("\n#[cfg(test)]\nmod tests").next().map(imports).unwrap_or_default();
    let named: Vec<(&Vec<&str>, Vec<String>)> = modules.iter().map(|(own, text)| (own, code(text))).collect();
    let mut uses: BTreeMap<&[&str], BTreeSet<&[&str]>> = BTreeMap::new();
    for (own, paths) in &named {
        for path in paths {
            let path: Vec<&str> = path.split("::").collect();
            let ups = path.iter().take_while(|part| **part == "super").count();
            let full: Vec<&str> = match path[0] {
                "crate" => path[1..].to_vec(),
                "super" if ups <= own.len() => [&own[..own.len() - ups], &path[ups..]].concat(),
                "self" => [&own[..], &path[1..]].concat(),
                _ => [&own[..], &path[..]].concat(),
            };
            let used = (0..=full.len()).rev().find_map(|len| modules.get_key_value(&full[..len]));
            if let Some((used, _)) = used.filter(|(used, _)| !own.starts_with(used)) {
                uses.entry(own).or_default().insert(used);
            }
        }
    }
    let reaches = |from: &[&str], to: &[&str]| {
        let (mut seen, mut next) = (BTreeSet::new(), vec![from]);
        while let Some(at) = next.pop() {
            let new = uses.get(at).into_iter().flatten().copied().filter(|used| seen.insert(*used));
            next.extend(new);
        }
        seen.contains(to)
    };
    let mut circles: BTreeSet<Vec<String>> = BTreeSet::new();
    for own in modules.keys().filter(|own| reaches(own, own)) {
        let with = modules.keys().filter(|other| reaches(own, other) && reaches(other, own));
        circles.insert(with.map(|module| module.join("::")).collect());
    }
    circles.into_iter().map(|circle| circle.join(", ")).collect()
}

/// The module that is in a file.
fn module(name: &str) -> Vec<&str> {
    let mut parts: Vec<&str> = name.trim_end_matches(".rs").split('/').collect();
    parts.pop_if(|last| ["mod", "lib", "main"].contains(last));
    parts
}

/// The paths that the `use` items of a file name, without braces.
fn imports(code: &str) -> Vec<String> {
    let mut paths = Vec::new();
    let mut rest = code;
    while let Some(at) = rest.find("use ") {
        let starts = rest[..at].ends_with(['\n', ' ']) || at == 0;
        let (item, after) = rest[at + 4..].split_once(';').unwrap_or((&rest[at + 4..], ""));
        if starts && item.chars().all(|c| c.is_alphanumeric() || c.is_whitespace() || "_:{},*".contains(c)) {
            expand("", &item.split_whitespace().collect::<String>(), &mut paths);
            rest = after;
        } else {
            rest = &rest[at + 4..];
        }
    }
    paths
}

fn expand(prefix: &str, text: &str, into: &mut Vec<String>) {
    let mut depth = 0;
    let parts = text.split(|c| {
        depth += i32::from(c == '{') - i32::from(c == '}');
        c == ',' && depth == 0
    });
    for part in parts.filter(|part| !part.is_empty()) {
        match part.split_once('{') {
            Some((before, inner)) => expand(&format!("{prefix}{before}"), inner.trim_end_matches('}'), into),
            None => into.push(format!("{prefix}{part}")),
        }
    }
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
    fn rooms_above_are_named() {
        assert!(uses_above("replica/mod.rs", "use crate::requests::sequencer;\n// crate::process\n").is_empty());
        assert_eq!(uses_above("requests/acl.rs", "fn a() { crate::replica::b() }\n").len(), 1);
    }

    #[test]
    fn circles_between_files_are_named() {
        let files = |files: &[(&str, &str)]| -> Vec<(String, String)> {
            files.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect()
        };
        let fine = [
            ("lib.rs", "mod a;\nmod b;\npub use a::X;\n"),
            ("a/mod.rs", "mod c;\nuse crate::b::{self, Y};\nuse c::Z;\n"),
            ("a/c.rs", "use super::X;\n"),
            ("b.rs", "\n#[cfg(test)]\nmod tests {\n    use crate::a::X;\n}\n"),
        ];
        assert!(circles(&files(&fine)).is_empty());
        let round =
            [("a.rs", "use crate::{b::c::X, d};\n"), ("b/c.rs", "use super::super::e;\n"), ("e.rs", "use crate::a;\n")];
        assert_eq!(circles(&files(&round)), ["a, b::c, e"]);
    }

    #[test]
    fn imports_that_point_up_are_named() {
        assert!(forbidden_imports("net", "corral-proto.workspace = true\nmio = \"1\"\n").is_empty());
        assert_eq!(forbidden_imports("engine", "corral-net.workspace = true\n").len(), 1);
        assert_eq!(forbidden_imports("net/proto", "corral-net = { path = \"..\" }\n").len(), 1);
    }
}
