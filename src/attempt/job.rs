//! What is to be started, and how it is supervised: the part of an attempt that does not depend on how it was claimed.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use crate::ids::RunId;
use crate::instance::Timing;
use crate::metrics::Metrics;
use crate::state_dir::StateDir;

/// One command, with its bounds.
#[derive(Debug)]
pub(crate) struct Job {
    pub(crate) run_id: RunId,
    pub(crate) program: OsString,
    pub(crate) arguments: Vec<OsString>,
    /// Set, or with `None` removed, in the environment that is handed down.
    pub(crate) environment: Vec<(OsString, Option<OsString>)>,
    pub(crate) timeout: Option<Duration>,
    pub(crate) stall_timeout: Option<Duration>,
    pub(crate) timing: Timing,
    pub(crate) stop_grace: Duration,
    pub(crate) state: StateDir,
    pub(crate) quiet: bool,
    /// This process has no other: its terminal and its stdio are the command's.
    pub(crate) is_alone: bool,
    /// Where its output is recorded, for whoever finds it dead.
    pub(crate) log: Option<PathBuf>,
    pub(crate) metrics: Metrics,
}

impl Job {
    /// A line for the person at the terminal, unless asked to be quiet.
    pub(super) fn say(&self, text: impl std::fmt::Display) {
        if self.quiet {
            return;
        }
        if self.is_alone {
            eprintln!("systole: {text}");
        } else {
            eprintln!("systole: [{}] {text}", self.run_id);
        }
    }
}
