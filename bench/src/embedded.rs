//! The server that a run starts for itself when it is not told of another.
//!
//! **Not here**: anything of the server: this is the one place where the bench starts one, and from then on it meets it
//! over the wire like any other.

use corral_server::process::embedded::{Embedded, EmbeddedOptions};
use std::path::Path;

/// Starts one on a free loopback port, with its data in `dir` and `settings` (`key=value`) over its defaults.
pub(crate) fn start(dir: &Path, settings: &[String]) -> Result<Embedded, String> {
    Embedded::start(&EmbeddedOptions { dir: dir.to_owned(), settings: settings.to_vec() })
        .map_err(|why| format!("the embedded server did not start: {why}"))
}
