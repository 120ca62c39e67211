//! `zoo.cfg` as it is written: Java properties syntax, read into a list of settings that remember where they stand.
//!
//! A line is `key=value`, `key: value` or `key value`; `#` and `!` begin a comment line; white space around key and
//! value is dropped (Apache's `QuorumPeerConfig` trims what `java.util.Properties` leaves); a backslash at the end of a
//! line joins the next one, before anything else it is an escape (`\n`, `\u0041`, …).
//!
//! **Invariants**: nothing is looked up or judged, every key that is written comes out, in order, with its line; pure
//! over `&str`, the path is only carried along.
//!
//! **Not here**: which keys exist and what they may say (`keys`), which of two equal keys counts (`resolve`). Two
//! departures from Java: the file is UTF-8, not ISO 8859-1 (comments may be anything), and a lone carriage return ends no line.

use super::ConfigError;
use std::fmt;
use std::path::{Path, PathBuf};

/// Where a setting was made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// In a file.
    File {
        /// The file, as it was named.
        path: PathBuf,
        /// The line on which the setting begins, from 1.
        line: usize,
    },
    /// By `-o key=value`.
    CommandLine,
}

impl Origin {
    /// True when a setting of this origin beats one of `other` where the two contradict each other.
    pub(super) fn outranks(&self, other: &Origin) -> bool {
        matches!((self, other), (Origin::CommandLine, Origin::File { .. }))
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::File { path, line } => write!(f, "{}:{line}", one_line(&path.to_string_lossy())),
            Origin::CommandLine => f.write_str("-o"),
        }
    }
}

/// One `key=value`, unescaped and trimmed, not yet judged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setting {
    /// What is set.
    pub key: String,
    /// What to.
    pub value: String,
    /// Where.
    pub origin: Origin,
}

/// The text with control characters escaped, so that an error stays one line whatever was in the file.
pub(super) fn one_line(text: &str) -> String {
    text.chars().fold(String::new(), |mut out, c| {
        if c.is_control() {
            out.extend(c.escape_default());
        } else {
            out.push(c);
        }
        out
    })
}

/// What Java calls white space within a line of a properties file.
const BLANK: [char; 3] = [' ', '\t', '\x0c'];

/// All settings of a file's `text`, in order, equal keys included.
pub(super) fn parse(path: &Path, text: &str) -> Result<Vec<Setting>, ConfigError> {
    let mut settings = Vec::new();
    // The logical line that is being put together, and where it began.
    let mut open: Option<(usize, String)> = None;
    for (index, line) in text.lines().enumerate() {
        let line = line.trim_start_matches(BLANK);
        // Only the first line of several joined ones can be a comment or blank.
        if open.is_none() && (line.is_empty() || line.starts_with(['#', '!'])) {
            continue;
        }
        let (first, mut whole) = open.take().unwrap_or((index + 1, String::new()));
        // An even number of backslashes at the end is so many halves of escaped ones.
        let joins = line.bytes().rev().take_while(|byte| *byte == b'\\').count() % 2 == 1;
        whole.push_str(if joins { &line[..line.len() - 1] } else { line });
        if joins {
            open = Some((first, whole));
        } else {
            settings.push(setting(path, first, &whole)?);
        }
    }
    // As in Java, a backslash at the very end joins nothing and is dropped.
    if let Some((first, whole)) = open.filter(|(_, whole)| !whole.is_empty()) {
        settings.push(setting(path, first, &whole)?);
    }
    Ok(settings)
}

/// The setting that an argument of `-o` makes. It is taken literally: the shell has its own escapes.
pub(super) fn parse_override(argument: &str) -> Result<Setting, ConfigError> {
    let origin = Origin::CommandLine;
    match argument.split_once('=').map(|(key, value)| (key.trim(), value.trim())) {
        Some((key, value)) if !key.is_empty() => Ok(Setting { key: key.into(), value: value.into(), origin }),
        _ => Err(ConfigError::Syntax { origin, why: format!("{argument:?} is not of the form key=value") }),
    }
}

fn setting(path: &Path, line: usize, whole: &str) -> Result<Setting, ConfigError> {
    let origin = Origin::File { path: path.to_owned(), line };
    // What stands for bytes that were none.
    if whole.contains(char::REPLACEMENT_CHARACTER) {
        return Err(ConfigError::Syntax { origin, why: "this setting is not UTF-8".into() });
    }
    let (key, rest) = whole.split_at(key_len(whole));
    let rest = rest.trim_start_matches(BLANK);
    let value = rest.strip_prefix(['=', ':']).unwrap_or(rest).trim_start_matches(BLANK);
    match (unescape(key), unescape(value)) {
        (Ok(key), Ok(_)) if key.trim().is_empty() => {
            Err(ConfigError::Syntax { origin, why: "a line without a key; allowed: key=value".into() })
        }
        (Ok(key), Ok(value)) => Ok(Setting { key: key.trim().into(), value: value.trim().into(), origin }),
        (Err(why), _) | (_, Err(why)) => Err(ConfigError::Syntax { origin, why: why.into() }),
    }
}

/// Bytes up to the first separator that is not escaped.
fn key_len(line: &str) -> usize {
    let mut escaped = false;
    for (at, c) in line.char_indices() {
        if escaped {
            escaped = false;
        } else if c == '\\' {
            escaped = true;
        } else if c == '=' || c == ':' || BLANK.contains(&c) {
            return at;
        }
    }
    line.len()
}

fn unescape(text: &str) -> Result<String, &'static str> {
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        if c != '\\' {
            out.push(c);
            continue;
        }
        match chars.next() {
            Some('n') => out.push('\n'),
            Some('r') => out.push('\r'),
            Some('t') => out.push('\t'),
            Some('f') => out.push('\x0c'),
            Some('u') => {
                let (digits, rest) = chars.as_str().split_at_checked(4).unwrap_or(("", ""));
                let digits = Some(digits).filter(|d| d.len() == 4 && d.bytes().all(|byte| byte.is_ascii_hexdigit()));
                // Half of a surrogate pair is no character either; write such a character as itself.
                let code = digits.and_then(|digits| u32::from_str_radix(digits, 16).ok()).and_then(char::from_u32);
                out.push(code.ok_or("\\u must be followed by four hexadecimal digits that name a character")?);
                chars = rest.chars();
            }
            // Java drops the backslash before any other character.
            Some(other) => out.push(other),
            None => {}
        }
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Vec<(usize, String, String)> {
        let line = |origin| match origin {
            Origin::File { line, .. } => line,
            Origin::CommandLine => unreachable!("this came from a file"),
        };
        let settings = parse(Path::new("zoo.cfg"), text).unwrap();
        settings.into_iter().map(|s| (line(s.origin), s.key, s.value)).collect()
    }

    /// One line, one setting.
    #[track_caller]
    fn check(text: &str, key: &str, value: &str) {
        assert_eq!(read(text), [(1, key.to_owned(), value.to_owned())]);
    }

    #[test]
    fn separators_and_white_space() {
        for text in ["a=b c", "a:b c", "a b c", "  a = b c  ", "\ta\t:\tb c\t", "a=b c\r\n", "a   b c"] {
            check(text, "a", "b c");
        }
        check("a==b", "a", "=b");
        check("server.1=h:2888:3888;2181", "server.1", "h:2888:3888;2181");
        check("a", "a", "");
        check("a=", "a", "");
        check("a=1 # no comment", "a", "1 # no comment");
    }

    #[test]
    fn only_a_comment_may_be_no_utf_8() {
        let text = String::from_utf8_lossy(b"# f\xfcr alle\na=b\n");
        assert_eq!(read(&text), [(2, "a".to_owned(), "b".to_owned())]);
        let text = String::from_utf8_lossy(b"a=b\nc=f\xfcr\n");
        let error = parse(Path::new("zoo.cfg"), &text).unwrap_err().to_string();
        assert_eq!(error, "zoo.cfg:2: this setting is not UTF-8");
    }

    #[test]
    fn comments_and_blank_lines_count_as_lines() {
        let text = "# one\n! two\n\n   \n  # five\nkey=value\n";
        assert_eq!(read(text), [(6, "key".into(), "value".into())]);
        assert_eq!(read(""), []);
    }

    #[test]
    fn escapes() {
        check(r"a\=b\ c=d", "a=b c", "d");
        check(r"a=\u0041\t\n\\n\q", "a", "A\t\n\\nq");
        check(r"a=C:\\data", "a", r"C:\data");
        for bad in [r"a=\u12", r"a=\u+123", r"a=\ud800", r"\u00g0=a", "a=\\u12\u{e9}4"] {
            let error = parse(Path::new("zoo.cfg"), &format!("x=y\n{bad}")).unwrap_err().to_string();
            assert!(error.starts_with("zoo.cfg:2: \\u must be followed by"), "{error}");
        }
    }

    #[test]
    fn continued_lines() {
        check("a=b,\\\n   c,\\\r\n\td", "a", "b,c,d");
        check("a=b\\\n# still the value", "a", "b# still the value");
        check("a=b\\", "a", "b");
        assert_eq!(read("a=b\\\\\nc=d"), [(1, "a".into(), "b\\".into()), (2, "c".into(), "d".into())]);
        assert_eq!(read("a\\\n=b\nc=d"), [(1, "a".into(), "b".into()), (3, "c".into(), "d".into())]);
        // A comment is not continued.
        assert_eq!(read("# a \\\nc=d"), [(2, "c".into(), "d".into())]);
    }

    #[test]
    fn a_line_needs_a_key() {
        let error = parse(Path::new("conf/zoo.cfg"), "a=b\n = c").unwrap_err();
        assert_eq!(error.to_string(), "conf/zoo.cfg:2: a line without a key; allowed: key=value");
    }

    #[test]
    fn overrides_are_literal() {
        let setting = parse_override(" dataDir = C:\\x=y ").unwrap();
        assert_eq!((setting.key.as_str(), setting.value.as_str()), ("dataDir", "C:\\x=y"));
        assert_eq!(parse_override("a=").unwrap().value, "");
        for bad in ["a", "=a", ""] {
            let error = parse_override(bad).unwrap_err().to_string();
            assert_eq!(error, format!("-o: {bad:?} is not of the form key=value"));
        }
    }

    #[test]
    fn an_origin_is_one_line() {
        let origin = Origin::File { path: PathBuf::from("a\nb"), line: 3 };
        assert_eq!(origin.to_string(), "a\\nb:3");
    }
}
