//! Interrupts: the first one ends a run early, with a report and a clean directory.
//!
//! **Not here**: who looks at the flag; everybody does, within a request or a write.

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

/// What a second interrupt does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Second {
    /// No more than the first: what is left to do is short, and leaves nothing behind.
    IsLikeTheFirst,
    /// It ends the process: what is left to do may wait for a server that does not answer.
    EndsTheProcess,
}

/// The flag that an interrupt sets.
pub(crate) fn listen(second: Second) -> Result<Arc<AtomicBool>, String> {
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        let registered = match second {
            Second::IsLikeTheFirst => Ok(()),
            Second::EndsTheProcess => {
                signal_hook::flag::register_conditional_shutdown(signal, 130, stop.clone()).map(drop)
            }
        };
        registered
            .and_then(|()| signal_hook::flag::register(signal, stop.clone()))
            .map_err(|error| format!("cannot listen for signals: {error}"))?;
    }
    Ok(stop)
}
