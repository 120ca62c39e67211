//! Paths: which ones are well-formed, and how they fall apart.
//!
//! The rules are Apache ZooKeeper's `PathUtils.validatePath`; characters above U+FFFF cannot occur there (they arrive as
//! surrogates, which are refused), so they are refused here.

/// True if `path` may name a node that is created, set or checked.
pub fn is_valid(path: &str) -> bool {
    if path == "/" {
        return true;
    }
    let Some(rest) = path.strip_prefix('/') else { return false };
    // Bytes, because each write comes here: nothing below a space or above `~` is allowed in ASCII.
    let is_plain = rest.bytes().all(|byte| matches!(byte, b' '..=b'~'));
    names(rest).all(|name| !matches!(name, b"" | b"." | b"..")) && (is_plain || rest.chars().all(is_allowed))
}

/// The names of a path that has lost its first slash.
pub fn names(rest: &str) -> impl Iterator<Item = &[u8]> {
    rest.as_bytes().split(|byte| *byte == b'/')
}

fn is_allowed(c: char) -> bool {
    !matches!(c,
        '\0'..='\u{1f}' | '\u{7f}'..='\u{9f}' | '\u{e000}'..='\u{f8ff}' | '\u{fff0}'..='\u{ffff}' | '\u{10000}'..)
}

/// The parent's path and the last name. `None` for a path without a slash.
pub fn split(path: &str) -> Option<(&str, &str)> {
    let slash = path.bytes().rposition(|byte| byte == b'/')?;
    let (parent, name) = (&path[..slash], &path[slash + 1..]);
    Some((if parent.is_empty() { "/" } else { parent }, name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rules_of_the_reference() {
        for good in
            ["/", "/a", "/a/b", "/...", "/..x", "/.a", "/a b", "/\u{2028}", "/\u{d7ff}", "/\u{f900}", "/\u{ffef}"]
        {
            assert!(is_valid(good), "{good:?}");
        }
        for bad in [
            "",
            "a",
            "/a/",
            "//",
            "//a",
            "/a//b",
            "/.",
            "/..",
            "/a/./b",
            "/a/../b",
            "/\0",
            "/a\u{1}",
            "/\u{1f}",
            "/\u{7f}",
            "/\u{9f}",
            "/\u{e000}",
            "/\u{f8ff}",
            "/\u{fff0}",
            "/\u{fffd}",
            "/\u{1f600}",
        ] {
            assert!(!is_valid(bad), "{bad:?}");
        }
    }

    #[test]
    fn splitting() {
        assert_eq!(split("/a"), Some(("/", "a")));
        assert_eq!(split("/a/b"), Some(("/a", "b")));
        assert_eq!(split("/"), Some(("/", "")));
        assert_eq!(split("a"), None);
    }
}
