//! What people see of the worktrees of this host, and what of a run's work.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use chrono::{DateTime, Utc};
use serde::Serialize;

use super::error::WorkspaceError;
use super::git::Git;
use super::lease::Lease;
use super::record::{Phase, Record};
use super::repository::Repository;
use super::tenancy::Place;
use super::work::Work;
use super::{path, reclaim, snapshot};
use crate::ids::RunId;

/// A worktree, as `systole workspace list` shows it.
#[derive(Debug, Serialize)]
pub(crate) struct View {
    pub(crate) path: PathBuf,
    pub(crate) run_id: RunId,
    pub(crate) attempt: i32,
    pub(crate) repository: PathBuf,
    pub(crate) branch: Option<String>,
    pub(crate) base: String,
    pub(crate) created_at: DateTime<Utc>,
    pub(crate) ended_at: Option<DateTime<Utc>>,
    pub(crate) age_seconds: f64,
    pub(crate) size_bytes: u64,
    /// Something is in it that is not committed; `None` where git cannot say it.
    pub(crate) dirty: Option<bool>,
    pub(crate) holder: Option<String>,
    /// The ref that has its work, as far as that is kept.
    pub(crate) snapshot: Option<String>,
    /// Why it would stay if it were to be removed now, as far as that can be told without trying.
    pub(crate) stays: Option<String>,
}

/// All worktrees of this host and user, the oldest first. Looked at by several threads, because git takes a while for each.
pub(crate) fn list(place: &Place) -> Vec<View> {
    let records = Record::all(&place.state);
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let share = records.len().div_ceil(threads).max(1);
    std::thread::scope(|scope| {
        let look = |records: &[Record]| records.iter().map(|record| view(place, record.clone())).collect::<Vec<View>>();
        let parts: Vec<_> = records.chunks(share).map(|part| scope.spawn(move || look(part))).collect();
        parts.into_iter().flat_map(|part| part.join().expect("a look at a worktree does not panic")).collect()
    })
}

fn view(place: &Place, record: Record) -> View {
    let git_dir = record.git_dir.as_ref().filter(|git_dir| git_dir.is_dir() && record.path.is_dir());
    let status = git_dir.map(|git_dir| {
        Git::of(git_dir, &record.path, &place.patience).run(&[
            "status",
            "--porcelain",
            "-z",
            "--untracked-files=normal",
        ])
    });
    View {
        age_seconds: (Utc::now() - record.created_at).as_seconds_f64(),
        size_bytes: size_of(&record.path).unwrap_or(0),
        dirty: status.and_then(Result::ok).map(|changes| !changes.is_empty()),
        holder: Lease::holder(&place.state, &record.path),
        snapshot: record.snapshot.as_ref().map(|_| path::snapshot_ref(&record.run_id, record.attempt)),
        stays: reclaim::still_at_work(place, &record),
        path: record.path,
        run_id: record.run_id,
        attempt: record.attempt,
        repository: record.repository,
        branch: record.branch,
        base: record.base,
        created_at: record.created_at,
        ended_at: record.ended_at,
    }
}

/// What it takes of the disk.
fn size_of(folder: &Path) -> io::Result<u64> {
    let mut size = 0;
    for entry in fs::read_dir(folder)? {
        let found = entry.as_ref().map_err(|error| io::Error::from(error.kind()))?.metadata()?;
        // Nothing of what vanishes meanwhile.
        size += found.blocks() * 512 + if found.is_dir() { size_of(&entry?.path()).unwrap_or(0) } else { 0 };
    }
    Ok(size)
}

/// What a run has changed, as `git diff` shows it: since the base of its newest attempt, up to now or to its end. `None` if there is
/// nothing to be found of it, in worktrees of this host or else in this repository.
pub(crate) fn diff(
    place: &Place,
    run_id: &RunId,
    repository: Option<&Path>,
    has_colour: bool,
) -> Result<Option<Vec<u8>>, WorkspaceError> {
    let colour = if has_colour { "--color=always" } else { "--color=never" };
    let between = |git: &Git, base: &str, end: &str| git.run(&["diff", "--binary", colour, base, end]).map(Some);
    let of_run = |record: &Record| record.run_id == *run_id && !record.is_nobodys_work();
    let newest = Record::all(&place.state).into_iter().filter(of_run).max_by_key(|it| it.created_at);
    if let Some(record) = newest {
        let git = Git::inside(&record.repository, &place.patience);
        let is_whole = record.phase != Phase::Removing && record.path.is_dir();
        let end = match &record.snapshot {
            _ if is_whole => snapshot::tree(&record, place)?,
            Some(snapshot) => snapshot.clone(),
            None => record.base.clone(),
        };
        return between(&git, &record.base, &end);
    }
    let Some(repository) = repository else { return Ok(None) };
    let git = Repository::at(repository, &place.patience)?.git();
    let refs = git.line(&["for-each-ref", "--format=%(refname)", &path::snapshots_of(run_id)])?;
    let newest =
        refs.lines().max_by_key(|name| name.rsplit('/').next().and_then(|attempt| attempt.parse::<i32>().ok()));
    let Some(newest) = newest else { return Ok(None) };
    match Work::at(&git, newest)? {
        Some(work) => between(&git, &work.base, newest),
        None => Ok(None),
    }
}
