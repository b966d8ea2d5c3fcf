//! What a level of containment lacks: why no stronger one could be had, and what this one does not cover.

use serde::{Deserialize, Serialize};

use super::{Containment, Secured};

/// Why something stronger could not be had, and what would change that. Both are parts of sentences.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Shortcoming {
    pub(crate) reason: String,
    pub(crate) remedy: String,
}

impl Shortcoming {
    pub(crate) fn new(reason: impl Into<String>, remedy: impl Into<String>) -> Shortcoming {
        Shortcoming { reason: reason.into(), remedy: remedy.into() }
    }
}

impl Secured {
    /// What can happen in spite of it.
    pub(crate) fn not_covered(&self) -> &'static str {
        match self.level {
            Containment::PidNamespace => "work that is handed to a daemon outside (docker, systemd-run, ssh)",
            Containment::Cgroup => {
                "supervisor and guard killed together leave what the command has started running until the next systole \
                 on this host sweeps it; elsewhere the run may start after stale_after"
            }
            Containment::Subreaper => {
                "supervisor and guard killed together leave what the command has started running, and nobody finds it \
                 again; the run may start beside it after stale_after"
            }
        }
    }
}
