//! What a node does for the worktrees of its host, now and then: keeps the work of the dead, and removes what its policy wants gone.

use std::path::Path;

use chrono::Utc;

use super::error::WorkspaceError;
use super::policy::Policy;
use super::reclaim;
use super::record::{Phase, Record};
use super::tenancy::Place;

/// What was done.
#[derive(Debug, Default)]
pub(crate) struct Tidied {
    pub(crate) removed: usize,
    /// Somebody looked at the end of an attempt at the same moment, or had it locked: a work is still to be kept.
    pub(crate) is_unfinished: bool,
    /// The first worktree that could not be kept or removed, and why; not of those that are in use.
    pub(crate) trouble: Option<String>,
}

/// Blocks for as long as it takes.
pub(crate) fn tidy(place: &Place, policy: &Policy) -> Tidied {
    let mut tidied = Tidied::default();
    let mut over = reclaim::over(place);
    for record in over.iter().filter(|record| !record.is_nobodys_work()) {
        let settled = reclaim::settle(place, record);
        tidied.is_unfinished |= matches!(settled, Ok(false)) && record.phase == Phase::Open && record.git_dir.is_some();
        tidied.note(record, settled.map(|_| ()));
    }
    if policy.is_none() {
        return tidied;
    }
    // When they ended is known by now.
    over = over.iter().filter_map(|record| record.read_again(&place.state)).collect();
    for (record, for_the_disk) in policy.overdue(&over, Utc::now()) {
        let has_room = || policy.free_bytes_min.is_none_or(|wanted| free_bytes(&place.worktrees) >= wanted);
        if for_the_disk && has_room() {
            break;
        }
        let removed = reclaim::remove(place, record);
        tidied.removed += usize::from(removed.is_ok());
        tidied.note(record, removed);
    }
    tidied
}

impl Tidied {
    fn note(&mut self, record: &Record, done: Result<(), WorkspaceError>) {
        match done {
            Ok(()) | Err(WorkspaceError::Held { .. } | WorkspaceError::Stays(_)) => {}
            Err(error) => {
                self.trouble.get_or_insert_with(|| format!("{}: {error}", record.path.display()));
            }
        }
    }
}

/// What is free for us on the disk of this folder; as much as can be where that cannot be told.
pub(super) fn free_bytes(folder: &Path) -> u64 {
    rustix::fs::statvfs(folder).map_or(u64::MAX, |disk| disk.f_bavail.saturating_mul(disk.f_frsize))
}
