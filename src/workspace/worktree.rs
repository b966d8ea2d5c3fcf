//! A fresh worktree: made by git without its files under the repository's lock, and filled beside others.

use std::fs;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use super::error::WorkspaceError;
use super::git::Git;
use super::path;
use super::record::{Phase, Record};
use super::repository::Repository;
use super::tenancy::Place;
use super::tidy::free_bytes;
use super::wish::WorktreeWish;
use crate::state_dir::make_folders;

/// With less than that a checkout that has failed has failed for that.
const FREE_BYTES_MIN: u64 = 64 * 1024;

/// Makes the worktree of this record, whose folder is there and empty. Leaves nothing behind if that fails.
pub(super) fn make(
    record: &mut Record,
    repository: &Repository,
    wish: &WorktreeWish,
    place: &Place,
) -> Result<(), WorkspaceError> {
    let made = try_to_make(record, repository, wish, place);
    made.map_err(|error| {
        // Of a file that it could not write git does not say why.
        let is_full = free_bytes(&record.path) < FREE_BYTES_MIN;
        discard(record, place);
        if is_full { WorkspaceError::Full { path: place.worktrees.clone() } } else { error }
    })
}

fn try_to_make(
    record: &mut Record,
    repository: &Repository,
    wish: &WorktreeWish,
    place: &Place,
) -> Result<(), WorkspaceError> {
    let folder = record.path.clone();
    let shown = folder.to_string_lossy().into_owned();
    {
        let _turn = repository.turn(&place.state)?;
        let mut arguments = vec!["worktree", "add", "--quiet", "--no-checkout"];
        if wish.branch {
            record.branch = Some(free_branch(record, repository)?);
            record.write(&place.state)?;
        }
        match &record.branch {
            Some(branch) => arguments.extend(["--no-track", "-b", branch]),
            None => arguments.push("--detach"),
        }
        arguments.extend([shown.as_str(), record.base.as_str()]);
        repository.git().run(&arguments)?;
    }
    let pointer = folder.join(".git");
    let text = fs::read_to_string(&pointer).map_err(WorkspaceError::io("cannot read", &pointer))?;
    let git_dir = PathBuf::from(text.trim().trim_start_matches("gitdir: "));
    let git = Git::of(&git_dir, &folder, &place.patience);
    record.git_dir = Some(git_dir);
    git.run(&["reset", "--hard", "--quiet"])?;
    if wish.submodules && folder.join(".gitmodules").exists() {
        let update = ["submodule", "--quiet", "update", "--init", "--recursive"];
        if let Err(refusal) = Git::at(&folder, &place.patience).ask(&update, b"")? {
            return Err(WorkspaceError::Submodules { said: refusal.said.trim().replace('\n', "; ") });
        }
    }
    // Only now may anything of the user be in it.
    record.write(&place.state)
}

/// A name that no branch bears: of another database's attempts some may.
fn free_branch(record: &Record, repository: &Repository) -> Result<String, WorkspaceError> {
    let branch = path::branch_of(&record.run_id, record.attempt);
    let is_taken =
        repository.git().line_if_any(&["rev-parse", "--verify", "--quiet", &format!("refs/heads/{branch}")])?;
    Ok(match is_taken {
        None => branch,
        Some(_) => format!("{branch}-{}", path::tail_of(record.instance_id)),
    })
}

/// Removes a worktree of which nothing is to be kept, as far as it was made: no command was ever started in it, or one whose traces are
/// nobody's work.
pub(super) fn discard(record: &Record, place: &Place) {
    // Also if the time for making it is over.
    forget(record, &Place { patience: place.patience.anew(), ..place.clone() });
    if fs::remove_dir_all(&record.path).is_ok() || !record.path.exists() {
        record.remove(&place.state);
    }
}

/// Has git forget a worktree, and its branch if that has nothing of its own.
pub(super) fn forget(record: &Record, place: &Place) {
    let git = Git::inside(&record.repository, &place.patience);
    match &record.git_dir {
        // All that git does, which looks at every other worktree first.
        Some(git_dir) if !record.path.exists() => {
            if leads_to(git_dir, &record.path) {
                let _ = fs::remove_dir_all(git_dir);
            }
        }
        // Twice: also if it was locked while it was made.
        _ => drop(git.ask(&["worktree", "remove", "--force", "--force", &record.path.to_string_lossy()], b"")),
    }
    if let Some(branch) = &record.branch
        && let Ok(Some(tip)) = git.line_if_any(&["rev-parse", "--verify", "--quiet", &format!("refs/heads/{branch}")])
        && tip == record.base
    {
        // git refuses if somebody has it checked out elsewhere.
        let _ = git.ask(&["branch", "--quiet", "-D", branch], b"");
    }
}

/// Whether what git keeps is of the worktree that was here: somebody may have moved it.
fn leads_to(git_dir: &Path, path: &Path) -> bool {
    match fs::read_to_string(git_dir.join("gitdir")) {
        Ok(text) => Path::new(text.trim_end()) == path.join(".git"),
        // Somebody was killed while he removed it.
        Err(error) => error.kind() == std::io::ErrorKind::NotFound,
    }
}

/// The folder of a worktree, fresh: that it was not there is what keeps two attempts apart.
pub(super) fn make_folder(path: &Path) -> Result<(), WorkspaceError> {
    fs::DirBuilder::new().mode(0o700).create(path).map_err(WorkspaceError::io("cannot make the folder", path))
}

impl Place {
    /// What is known of a worktree that is about to be made.
    pub(super) fn plan(
        &self,
        repository: &Repository,
        base: String,
        tenant: &super::Tenant,
    ) -> Result<Record, WorkspaceError> {
        let name = path::worktree_name(&tenant.run_id, tenant.attempt, tenant.instance_id);
        make_folders(&self.worktrees).map_err(WorkspaceError::io("cannot make the folder", &self.worktrees))?;
        let root = self.worktrees.canonicalize().map_err(WorkspaceError::io("cannot find", &self.worktrees))?;
        Ok(Record {
            run_id: tenant.run_id.clone(),
            attempt: tenant.attempt,
            instance_id: tenant.instance_id,
            executor_id: tenant.executor_id.clone(),
            repository: repository.common().to_owned(),
            path: root.join(name),
            git_dir: None,
            base,
            branch: None,
            created_at: chrono::Utc::now(),
            ended_at: None,
            snapshot: None,
            phase: Phase::Open,
        })
    }
}
