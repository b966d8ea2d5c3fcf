//! Why there is no guard.

use std::io;

/// Why there is no guard, or no longer one.
#[derive(Debug, thiserror::Error)]
pub(crate) enum GuardError {
    /// It could not be started, or spoken to.
    #[error("the guard process cannot be started: {0}")]
    Start(io::Error),
    /// Not even the weakest containment could be had.
    #[error("the command cannot be contained here: {0}")]
    Unready(String),
    /// It lives, and says nothing: stopped, or without a processor.
    #[error("the guard process does not answer")]
    Mute,
    /// It ended although nobody asked it to: killed, or out of memory.
    #[error("the guard process is gone")]
    Gone,
}
