//! Tier one: a lock on this host, which refuses a duplicate even while the database cannot answer.
//!
//! A hint, and not the truth: where the database answers, its verdict wins. Named by a hash, because a run id never
//! becomes part of a path.

use std::fs::File;
use std::io::{Read, Seek, Write};
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use rustix::fs::{FlockOperation, flock};
use sha2::{Digest, Sha256};

use crate::db::Target;
use crate::identity::Identity;
use crate::ids::RunId;
use crate::state_dir::{StateDir, open_private, read_private};

/// The local lock of one run on one database.
#[derive(Debug)]
pub(super) struct LocalLock {
    path: PathBuf,
}

/// Held by the supervisor alone: no child inherits it. Its file goes with it.
#[derive(Debug)]
pub(super) struct LocalLockHeld {
    path: PathBuf,
    _file: File,
}

impl LocalLock {
    pub(super) fn new(state: &StateDir, target: &Target, run_id: &RunId) -> LocalLock {
        let digest = Sha256::digest(format!("{}\n{run_id}", target.describe()));
        let name: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
        LocalLock { path: state.locks().join(name) }
    }

    /// `None` if another process of this host holds it. A lock that cannot be had for another reason (a full disk) is
    /// not missed: the database decides.
    pub(super) fn try_take(&self) -> Option<LocalLockHeld> {
        let mut file = open_private(&self.path).ok()?;
        flock(&file, FlockOperation::NonBlockingLockExclusive).ok()?;
        if file.metadata().ok()?.nlink() == 0 {
            // Its last holder removed it between our opening and our locking: what we hold is nobody's lock.
            return self.try_take();
        }
        let _ = file.set_len(0);
        let _ = writeln!(file, "{}", Identity::of_this_process().executor_id);
        Some(LocalLockHeld { path: self.path.clone(), _file: file })
    }

    /// Who holds it, as that one has said; `None` if nobody does.
    pub(super) fn holder(&self) -> Option<String> {
        let mut file = read_private(&self.path).ok()?;
        if flock(&file, FlockOperation::NonBlockingLockShared).is_ok() {
            return None;
        }
        let mut name = String::new();
        file.rewind().ok()?;
        file.read_to_string(&mut name).ok()?;
        Some(name.trim().to_owned())
    }
}

impl Drop for LocalLockHeld {
    fn drop(&mut self) {
        // Before the lock is let go, so that nobody's fresh file is hit.
        let _ = std::fs::remove_file(&self.path);
    }
}
