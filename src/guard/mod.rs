//! The dead man's switch: a small process between a supervisor and the tree it started.
//!
//! The supervisor holds the lease; the guard holds the tree. As long as renewals arrive, it does nothing. When the last
//! deadline passes it freezes the tree; when the supervisor has died or fallen silent it kills it; and when the tree is
//! provably empty it writes a certificate of death, by which anybody on this host may end the tenure at once.
//!
//! ```text
//! supervisor ──exec──▶ guard ──fork──▶ init ──exec──▶ command             (cgroup, subreaper)
//!                                     init = PID 1 ──spawn──▶ command    (PID namespace)
//! ```
//!
//! The guard is this same binary, branched off in `main` by [`branch`] before anything else starts; init is its fork.
//! They bear another name, so that killing by the name of `systole` does not take the guard with it.
//!
//! What it does not cover: work handed to another daemon, a write stuck in the kernel, SQL that still runs in the
//! server, and a supervisor and a guard killed together where there is no PID namespace.

// Elsewhere nothing is contained yet: what speaks to a guard is compiled, and has none to speak to.
#![cfg_attr(not(target_os = "linux"), allow(dead_code))]

pub(crate) mod certificate;
pub(crate) mod containment;
#[cfg(target_os = "linux")]
mod cradle;
mod deadman;
#[cfg(target_os = "linux")]
mod descriptor;
mod error;
#[cfg_attr(not(target_os = "linux"), path = "no_guard.rs")]
mod handle;
#[cfg(target_os = "linux")]
mod init;
mod outlet;
mod own;
#[cfg(target_os = "linux")]
mod process;
pub(crate) mod remains;
#[cfg(target_os = "linux")]
mod tree;
#[cfg(target_os = "linux")]
mod urgency;
mod wire;

// The model in tests/model drives the same switch as the guard's process does.
#[doc(hidden)]
pub use deadman::{Deadman, Decision, Hold, KillReason, Rules};
pub(crate) use error::GuardError;
pub(crate) use handle::{Guard, reap, reap_orphans};
pub(crate) use outlet::Outlet;
pub(crate) use own::Helper;
#[cfg(fuzzing)]
pub use wire::fuzz;
pub(crate) use wire::{Arming, Audience, FromGuard, Intent, Order, Preparation, ToGuard};

/// The name that guard and init bear in process lists.
const PROCESS_NAME: &str = "deadman";

/// Runs as the guard if this process was started as one, and returns its exit code; `None` for anybody else.
///
/// To be called first in `main`, while the process has one thread and one purpose.
pub fn branch() -> Option<i32> {
    let mut arguments = std::env::args_os();
    (arguments.next()? == PROCESS_NAME && arguments.next()? == "guard").then(handle::serve)
}
