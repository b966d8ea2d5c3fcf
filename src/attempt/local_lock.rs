//! Tier one: a lock on this host, which refuses a duplicate even while the database cannot answer.
//!
//! A hint, and not the truth: where the database answers, its verdict wins. Named by a hash, because a run id never
//! becomes part of a path.

use sha2::{Digest, Sha256};

use crate::db::Target;
use crate::identity::Identity;
use crate::ids::RunId;
use crate::state_dir::{HostLock, HostLockHeld, StateDir};

/// The local lock of one run on one database.
#[derive(Debug)]
pub(super) struct LocalLock(HostLock);

impl LocalLock {
    pub(super) fn new(state: &StateDir, target: &Target, run_id: &RunId) -> LocalLock {
        let digest = Sha256::digest(format!("{}\n{run_id}", target.describe()));
        let name: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
        LocalLock(HostLock::at(state.locks().join(name)))
    }

    /// `None` if another process of this host holds it. A lock that cannot be had for another reason (a full disk) is
    /// not missed: the database decides.
    pub(super) fn try_take(&self) -> Option<HostLockHeld> {
        self.0.try_take(&Identity::of_this_process().executor_id).ok().flatten()
    }

    /// Who holds it, as that one has said; `None` if nobody does.
    pub(super) fn holder(&self) -> Option<String> {
        self.0.holder()
    }
}
