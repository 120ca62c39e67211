//! The rules of the source tree hold; see `corral_tools::tidy` for which they are.

use corral_tools::tidy;
use std::fs;
use std::path::Path;

#[test]
fn the_house_is_tidy() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let mut complaints = Vec::new();
    let files = tidy::rust_files(root).unwrap();
    assert!(files.len() > 50, "the tree was found: {} files", files.len());
    for path in files {
        let name = path.strip_prefix(root).unwrap().to_string_lossy().replace('\\', "/");
        complaints.extend(tidy::complaints(&name, &fs::read_to_string(&path).unwrap()));
    }
    for (krate, _) in tidy::MAY_USE {
        let manifest = fs::read_to_string(root.join(krate).join("Cargo.toml")).unwrap();
        complaints.extend(tidy::forbidden_imports(krate, &manifest));
        let source = root.join(krate).join("src");
        let files = tidy::rust_files(&source).unwrap().into_iter().map(|path| {
            let name = path.strip_prefix(&source).unwrap().to_string_lossy().replace('\\', "/");
            (name, fs::read_to_string(&path).unwrap())
        });
        let files: Vec<(String, String)> = files.collect();
        if krate == "server" {
            complaints.extend(files.iter().flat_map(|(name, text)| tidy::uses_above(name, text)));
        }
        let circles = tidy::circles(&files);
        complaints.extend(circles.iter().map(|circle| format!("{krate}: a circle of imports: {circle}")));
    }
    assert!(complaints.is_empty(), "{}", complaints.join("\n"));
}
