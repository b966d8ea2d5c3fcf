//! The repository that worktrees are made of.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::error::WorkspaceError;
use super::git::{Git, check_version};
use super::patience::Patience;
use crate::elapsed::Instant;
use crate::identity::Identity;
use crate::state_dir::{HostLock, HostLockHeld, StateDir};

/// A worktree without its files is made in milliseconds; behind a hundred others, in a second.
const TURN_PATIENCE: Duration = Duration::from_secs(60);

/// A repository, by the folder that all its worktrees share.
#[derive(Debug, Clone)]
pub(crate) struct Repository {
    /// As it was named: its HEAD is the default base.
    named: PathBuf,
    /// Absolute, without links.
    common: PathBuf,
    patience: Patience,
}

impl Repository {
    /// The repository of this folder, bare or not. git itself refuses one that belongs to somebody else.
    pub(crate) fn at(path: &Path, patience: &Patience) -> Result<Repository, WorkspaceError> {
        check_version(patience)?;
        let refuse = |said: String| WorkspaceError::NotRepository { path: path.to_owned(), said };
        if !path.is_dir() {
            return Err(refuse("there is no such folder".to_owned()));
        }
        let named = path.canonicalize().map_err(|error| refuse(error.to_string()))?;
        let said = Git::at(&named, patience).ask(&["rev-parse", "--git-common-dir"], b"")?;
        let common = said.map_err(|refusal| refuse(refusal.said.trim().replace('\n', " ")))?;
        let common = named.join(String::from_utf8_lossy(&common).trim_end_matches('\n'));
        let common = common.canonicalize().map_err(|error| refuse(error.to_string()))?;
        Ok(Repository { named, common, patience: patience.clone() })
    }

    pub(crate) fn common(&self) -> &Path {
        &self.common
    }

    /// git in the repository itself. Its owner was looked at when it was found.
    pub(super) fn git(&self) -> Git {
        Git::inside(&self.common, &self.patience)
    }

    /// The commit that a worktree begins at.
    pub(crate) fn resolve(&self, base: Option<&str>) -> Result<String, WorkspaceError> {
        let wanted = format!("{}^{{commit}}", base.unwrap_or("HEAD"));
        let is_option = base.is_some_and(|base| base.starts_with('-') || base.is_empty());
        let found = match is_option {
            true => None,
            false => {
                Git::at(&self.named, &self.patience).line_if_any(&["rev-parse", "--verify", "--quiet", &wanted])?
            }
        };
        found.ok_or_else(|| match base {
            Some(base) => WorkspaceError::NoBase { path: self.named.clone(), base: base.to_owned() },
            None => WorkspaceError::Unborn { path: self.named.clone() },
        })
    }

    /// The first commit that leads to this one: the same in every clone that has all of them.
    pub(crate) fn root_of(&self, commit: &str) -> Result<String, WorkspaceError> {
        self.git().line(&["rev-list", "--first-parent", "--max-parents=0", commit])
    }

    /// One at a time: two `git worktree add` at once fail over each other's locks.
    pub(super) fn turn(&self, state: &StateDir) -> Result<HostLockHeld, WorkspaceError> {
        let found =
            self.common.metadata().map_err(WorkspaceError::io("cannot look at the repository", &self.common))?;
        let lock = HostLock::at(state.leases().join(format!("turn-{:x}-{}", found.dev(), found.ino())));
        let holder = Identity::of_this_process().executor_id;
        let begun = Instant::now();
        loop {
            if let Some(held) = lock.try_take(&holder).map_err(WorkspaceError::io("cannot lock", &self.common))? {
                return Ok(held);
            }
            if Instant::now().since(begun) > TURN_PATIENCE {
                let holder = lock.holder().unwrap_or_else(|| "another process".to_owned());
                let seconds = TURN_PATIENCE.as_secs();
                return Err(WorkspaceError::Stuck { path: self.common.clone(), holder, seconds });
            }
            std::thread::sleep(Duration::from_millis(2)); // between two looks
        }
    }
}
