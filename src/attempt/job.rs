//! What is to be started, and how it is supervised: the part of an attempt that does not depend on how it was claimed.

use std::ffi::OsString;
use std::fmt::Display;
use std::path::PathBuf;
use std::sync::OnceLock;
use std::time::Duration;

use crate::ids::{Fence, RunId};
use crate::instance::Timing;
use crate::log::{self, About, What};
use crate::metrics::Metrics;
use crate::state_dir::StateDir;
use crate::tenure::Tenure;
use crate::workspace::{Place, Wish};

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
    /// Where what is kept of the run goes, unless the disk refuses.
    pub(crate) run_dir: Option<PathBuf>,
    /// Where it is to work, if not where we are.
    pub(crate) workspace: Option<(Wish, Place)>,
    pub(crate) metrics: Metrics,
    /// The attempt and its fence, once they are known.
    pub(crate) tenure: OnceLock<(i32, Fence)>,
}

impl Job {
    /// From here on lines say which attempt it is.
    pub(super) fn granted(&self, tenure: &Tenure) {
        let _ = self.tenure.set((tenure.attempt, tenure.fence));
    }

    /// A line about it, unless asked to be quiet.
    pub(super) fn say(&self, what: What, text: impl Display) {
        if self.quiet {
            return;
        }
        let (attempt, fence) = self.tenure.get().copied().unzip();
        log::say_of(what, About { run: Some(self.run_id.as_str()), attempt, fence }, text);
    }
}
