//! What keeps an attempt from having its place, or its work from being kept: each a sentence with its remedy.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Why a workspace cannot be had, kept or removed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WorkspaceError {
    #[error("git cannot be started ({0}), and a workspace takes it: install git 2.25 or newer, and have it in PATH")]
    NoGit(io::Error),
    #[error("this is {found:?}, but workspaces take git 2.25 or newer: upgrade it, or have a newer one first in PATH")]
    OldGit { found: String },
    #[error("{} is no git repository that can be used ({said}): name the folder of one with --workspace-repo (or --repo)", .path.display())]
    NotRepository { path: PathBuf, said: String },
    #[error(
        "the repository {} has no commit yet, so there is nothing to make a worktree of: commit something, or name a \
         commit with --workspace-base", .path.display()
    )]
    Unborn { path: PathBuf },
    #[error(
        "the repository {} has no commit {base:?}: fetch it there, or name a branch, tag or commit that it has with \
         --workspace-base", .path.display()
    )]
    NoBase { path: PathBuf, base: String },
    /// Somebody else has it. May be tried again later.
    #[error("the workspace {} is in use by {holder}: wait for that to end, or stop it, or use another", .path.display())]
    Held { path: PathBuf, holder: String },
    #[error("the repository {} has been locked for {seconds} s by {holder}, which makes a worktree of it: see what it hangs in", .path.display())]
    Stuck { path: PathBuf, holder: String, seconds: u64 },
    #[error(
        "the disk is full ({}): nothing half done is left there. Free some of it (systole workspace clean removes what is \
         over), or set dir in [workspace] to a folder on another", .path.display()
    )]
    Full { path: PathBuf },
    #[error("{} cannot be written, because it is mounted read-only: use another clone of it, or have it mounted writable", .path.display())]
    ReadOnly { path: PathBuf },
    #[error(
        "git finds a lock in {}: {said}. If no git is at work there any more (ps), remove the file that it names",
        .path.display()
    )]
    StaleLock { path: PathBuf, said: String },
    #[error(
        "its submodules cannot be had: {said}. See to it that git can fetch them without asking, or set submodules = false in [workspace]"
    )]
    Submodules { said: String },
    #[error(
        "git {doing} did not end within {} in {}, and was killed: see what it waits for (a server that does not answer, a filter, a \
         disk), or set git_timeout in [workspace]", humantime::format_duration(*.limit), .path.display()
    )]
    Hangs { doing: String, path: PathBuf, limit: Duration },
    /// Nobody waits for what it was to do.
    #[error("git {doing} was ended, because somebody has asked for an end")]
    Unwanted { doing: String },
    #[error("git {doing} failed in {}: {said}", .path.display())]
    Git { doing: String, path: PathBuf, said: String },
    #[error("{doing} {}: {error}", .path.display())]
    Io { doing: &'static str, path: PathBuf, error: io::Error },
    /// Of a worktree that is to be removed: it stays.
    #[error("{}", .0)]
    Stays(String),
}

impl WorkspaceError {
    pub(super) fn io(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> WorkspaceError {
        let path = path.to_owned();
        move |error| match error.raw_os_error().map(rustix::io::Errno::from_raw_os_error) {
            Some(rustix::io::Errno::NOSPC | rustix::io::Errno::DQUOT) => WorkspaceError::Full { path },
            Some(rustix::io::Errno::ROFS) => WorkspaceError::ReadOnly { path },
            _ => WorkspaceError::Io { doing, path, error },
        }
    }

    /// What git has said, told apart by what can be done about it.
    pub(super) fn git(doing: &str, path: &Path, said: &str) -> WorkspaceError {
        let (path, said) = (path.to_owned(), said.trim().replace('\n', "; "));
        let says = |words: &[&str]| words.iter().any(|words| said.contains(words));
        if says(&["No space left on device", "Disk quota exceeded"]) {
            WorkspaceError::Full { path }
        } else if says(&["Read-only file system"]) {
            WorkspaceError::ReadOnly { path }
        } else if says(&["could not lock", ".lock': File exists"]) {
            WorkspaceError::StaleLock { path, said }
        } else {
            WorkspaceError::Git { doing: doing.to_owned(), path, said }
        }
    }
}
