//! What is known of a worktree: a file a worktree, written whole or not at all. One that is lost or cannot be read keeps its worktree
//! from ever being removed.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use super::error::WorkspaceError;
use super::path;
use super::tenancy::NO_ATTEMPT;
use crate::ids::{InstanceId, RunId};
use crate::state_dir::{StateDir, write_private};

/// How far a worktree is on its way out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Phase {
    /// Its command may be at work, or has left what is in no snapshot.
    Open,
    /// There was a snapshot when its command had ended.
    Kept,
    /// All that is in it is in its snapshot, and some of it may be gone already.
    Removing,
}

/// A worktree of ours.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Record {
    pub(crate) run_id: RunId,
    pub(crate) attempt: i32,
    pub(crate) instance_id: InstanceId,
    pub(crate) executor_id: String,
    /// What all worktrees of its repository share.
    pub(crate) repository: PathBuf,
    pub(crate) path: PathBuf,
    /// What git keeps of it, below `repository`; not there yet while it is being made.
    pub(crate) git_dir: Option<PathBuf>,
    pub(crate) base: String,
    /// Made for it, unless it has a detached head.
    pub(crate) branch: Option<String>,
    pub(crate) created_at: DateTime<Utc>,
    pub(crate) ended_at: Option<DateTime<Utc>>,
    /// The commit that has its work, if there was any.
    pub(crate) snapshot: Option<String>,
    pub(crate) phase: Phase,
}

impl Record {
    pub(crate) fn name(&self) -> String {
        path::worktree_name(&self.run_id, self.attempt, self.instance_id)
    }

    /// It may have work that is in no snapshot.
    pub(crate) fn is_unkept(&self) -> bool {
        self.phase == Phase::Open && self.git_dir.is_some() && !self.is_nobodys_work()
    }

    /// Nothing of it is to be kept.
    pub(crate) fn is_nobodys_work(&self) -> bool {
        self.attempt == NO_ATTEMPT
    }

    /// Where the worktree is while it is being removed.
    pub(super) fn path_out(&self) -> PathBuf {
        self.path.with_file_name(format!("{}.removing", self.name()))
    }

    pub(super) fn write(&self, state: &StateDir) -> Result<(), WorkspaceError> {
        let path = self.file(state);
        let written = serde_json::to_vec_pretty(self).map_err(io::Error::from).and_then(|text| {
            let fresh = path.with_extension(format!("new-{}", std::process::id()));
            write_private(&fresh, &text)?;
            fs::rename(&fresh, &path)
        });
        written.map_err(WorkspaceError::io("cannot write", &path))
    }

    pub(super) fn remove(&self, state: &StateDir) {
        let _ = fs::remove_file(self.file(state));
    }

    /// What is known by now; `None` if somebody else has removed it.
    pub(super) fn read_again(&self, state: &StateDir) -> Option<Record> {
        read(&self.file(state))
    }

    /// A file of its own next to it, for an index.
    pub(super) fn scratch(&self, state: &StateDir) -> PathBuf {
        self.file(state).with_extension(format!("index-{}", std::process::id()))
    }

    fn file(&self, state: &StateDir) -> PathBuf {
        state.workspaces().join(format!("{}.json", self.name()))
    }

    /// All of this host and user, the oldest first.
    pub(crate) fn all(state: &StateDir) -> Vec<Record> {
        let files = fs::read_dir(state.workspaces()).into_iter().flatten().flatten().map(|entry| entry.path());
        let mut records: Vec<Record> = files
            .filter(|path| path.extension().is_some_and(|it| it == "json"))
            .filter_map(|path| read(&path))
            .collect();
        records.sort_by_key(|record| (record.created_at, record.instance_id));
        records
    }
}

fn read(path: &Path) -> Option<Record> {
    serde_json::from_slice(&fs::read(path).ok()?).ok()
}
