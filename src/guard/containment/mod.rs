//! What keeps a tree together, so that it can be stopped, killed and seen to be empty.
//!
//! | level | survives kill -9 of supervisor and guard together | setsid, double fork | freeze |
//! |---|---|---|---|
//! | PID namespace with a cgroup (root) | nothing | contained | cgroup freezer |
//! | cgroup v2 | the command's own children, until the next systole of this host sweeps | contained | cgroup freezer |
//! | child subreaper | the command's own children | contained while the guard lives | SIGSTOP: only a grace |
//!
//! What has moved itself out of the cgroup is still a descendant of the guard's: it is killed with the rest, but held by SIGSTOP
//! alone.
//!
//! Never a user namespace unasked: it would change who the command is.

#[cfg(target_os = "linux")]
pub(super) mod birth;
#[cfg(target_os = "linux")]
mod cgroup;
#[cfg(target_os = "linux")]
mod descendants;
#[cfg(target_os = "linux")]
mod hierarchy;
#[cfg(not(target_os = "linux"))]
mod nothing;
#[cfg(target_os = "linux")]
pub(super) mod pid_namespace;
mod shortcoming;

#[cfg(target_os = "linux")]
pub(crate) use cgroup::{Cgroup, sweep_cgroup};
#[cfg(target_os = "linux")]
pub(super) use descendants::{
    Killed, can_be_listed, children, continue_these, kill_all, reap_all, see_our_own, signal_all, somebody_has_ended,
    stop_all,
};
#[cfg(not(target_os = "linux"))]
pub(crate) use nothing::sweep_cgroup;
pub(crate) use shortcoming::Shortcoming;

use serde::{Deserialize, Serialize};

/// The levels, from the strongest to the weakest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Containment {
    PidNamespace,
    Cgroup,
    Subreaper,
}

impl Containment {
    /// The level of this name, as people write it.
    pub(crate) fn named(name: &str) -> Option<Containment> {
        match name {
            "pid_namespace" => Some(Containment::PidNamespace),
            "cgroup" => Some(Containment::Cgroup),
            "subreaper" => Some(Containment::Subreaper),
            _ => None,
        }
    }
}

/// What is in force for one tree.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Secured {
    pub(crate) level: Containment,
    /// Where the cgroup is, if there is one.
    pub(crate) cgroup: Option<String>,
    /// Whether a frozen tree stays frozen whatever anybody sends it.
    pub(crate) freezer: bool,
    /// Why nothing stronger could be had, for `doctor`.
    pub(crate) shortcomings: Vec<Shortcoming>,
}

impl Secured {
    /// As it stands in the database.
    pub(crate) fn label(&self) -> String {
        match (self.level, &self.cgroup) {
            (Containment::PidNamespace, Some(_)) => "pid_namespace+cgroup",
            (Containment::PidNamespace, None) => "pid_namespace",
            (Containment::Cgroup, _) => "cgroup",
            (Containment::Subreaper, _) => "subreaper",
        }
        .to_owned()
    }
}
