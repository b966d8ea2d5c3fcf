//! One attempt in its place, from before its command to after it.

use std::path::{Path, PathBuf};

use chrono::Utc;

use super::error::WorkspaceError;
use super::lease::Lease;
use super::patience::Patience;
use super::record::{Phase, Record};
use super::repository::Repository;
use super::wish::Wish;
use super::{path, reclaim, snapshot, worktree};
use crate::ids::{InstanceId, RunId};
use crate::state_dir::StateDir;

/// Attempts begin at 1: in a worktree of this number only tests are run, and what they leave there is nobody's work.
pub(crate) const NO_ATTEMPT: i32 = 0;

/// Where this host keeps worktrees, and what it knows of them.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    pub(crate) state: StateDir,
    pub(crate) worktrees: PathBuf,
    /// With what is done there by git.
    pub(crate) patience: Patience,
}

/// Whose place it is.
#[derive(Debug, Clone)]
pub(crate) struct Tenant {
    pub(crate) run_id: RunId,
    pub(crate) attempt: i32,
    pub(crate) instance_id: InstanceId,
    pub(crate) executor_id: String,
}

/// A place that is ours until this is dropped. The worktree stays after that, until it is reclaimed.
#[derive(Debug)]
pub(crate) struct Workspace {
    place: Place,
    lease: Lease,
    record: Option<Record>,
}

impl Workspace {
    /// Makes or takes it. Blocks for as long as a checkout takes; leaves nothing behind if it fails.
    pub(crate) fn open(wish: &Wish, place: &Place, tenant: &Tenant) -> Result<Workspace, WorkspaceError> {
        let holder = tenant.to_string();
        let wish = match wish {
            Wish::Worktree(wish) => wish,
            Wish::Folder(folder) => {
                let lease = Lease::take(&place.state, folder, &holder)?;
                return Ok(Workspace { place: place.clone(), lease, record: None });
            }
        };
        let repository = Repository::at(&wish.repository, &place.patience)?;
        let base = repository.resolve(wish.base.as_deref())?;
        let mut record = place.plan(&repository, base, tenant)?;
        // Known before it is there, so that nothing is left of it if we are killed; and until it is leased, nobody removes it.
        let turn = reclaim::turn(place, &record)?;
        record.write(&place.state)?;
        if let Err(error) = worktree::make_folder(&record.path) {
            record.remove(&place.state);
            return Err(error);
        }
        let lease = match Lease::take(&place.state, &record.path, &holder) {
            Ok(lease) => lease,
            Err(error) => {
                worktree::discard(&record, place);
                return Err(error);
            }
        };
        drop(turn);
        worktree::make(&mut record, &repository, wish, place)?;
        Ok(Workspace { place: place.clone(), lease, record: Some(record) })
    }

    /// Absolute, without links.
    pub(crate) fn path(&self) -> &Path {
        self.lease.path()
    }

    /// How long it waits for git.
    pub(crate) fn patience(&self) -> Patience {
        self.place.patience.clone()
    }

    /// The commit that its worktree began at; `None` of a folder that it did not make.
    pub(crate) fn base(&self) -> Option<&str> {
        self.record.as_ref().map(|record| record.base.as_str())
    }

    /// Removes its worktree with all that is in it: what was left there is nobody's work.
    pub(crate) fn discard(self) {
        if let Some(record) = &self.record {
            worktree::discard(record, &self.place);
        }
    }

    /// The ref with the work of an earlier attempt at the same run in the same repository, if that has left any. One that was
    /// killed on this host is kept now, if it was not.
    pub(crate) fn work_of(&self, attempt: i32) -> Option<String> {
        let record = self.record.as_ref()?;
        reclaim::settle_run(&self.place, &record.run_id, record.attempt);
        let name = path::snapshot_ref(&record.run_id, attempt);
        let git = super::git::Git::inside(&record.repository, &self.place.patience);
        git.line_if_any(&["rev-parse", "--verify", "--quiet", &name]).ok()?.map(|_| name)
    }

    /// Keeps what the command has left in its worktree. Nothing of it may run any more. The ref that has it, if there was anything.
    pub(crate) fn keep(&mut self) -> Result<Option<String>, WorkspaceError> {
        let Some(record) = &mut self.record else { return Ok(None) };
        if record.phase == Phase::Kept {
            return Ok(record.snapshot.as_ref().map(|_| path::snapshot_ref(&record.run_id, record.attempt)));
        }
        record.ended_at = Some(Utc::now());
        match snapshot::take(record, &record.path, &self.place) {
            Ok(commit) => {
                (record.snapshot, record.phase) = (commit, Phase::Kept);
                record.write(&self.place.state)?;
                Ok(record.snapshot.as_ref().map(|_| path::snapshot_ref(&record.run_id, record.attempt)))
            }
            Err(error) => {
                let _ = record.write(&self.place.state);
                Err(error)
            }
        }
    }
}

impl std::fmt::Display for Tenant {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "executor {} for run \"{}\" attempt {}", self.executor_id, self.run_id, self.attempt)
    }
}
