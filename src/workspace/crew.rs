//! The supervisors that work on one repository of this host, each with so many workers: what an anchor allows, it allows them together.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::time::Duration;

use uuid::Uuid;

use super::error::WorkspaceError;
use super::repository::Repository;
use crate::elapsed::Instant;
use crate::state_dir::{HostLock, HostLockHeld, StateDir};

/// Others look into our file for a moment, to see whether somebody has it.
const LOOKED_AT_MAX: Duration = Duration::from_secs(1);

/// Our part in it, until this is dropped, or we are dead.
#[derive(Debug)]
pub(crate) struct Crew {
    _held: HostLockHeld,
}

impl Crew {
    /// Joins with so many workers, and says how many others there are. Two that join at once see each other.
    pub(crate) fn join(state: &StateDir, repository: &Repository, workers: u32) -> Result<(Crew, u32), WorkspaceError> {
        let common = repository.common();
        let found = common.metadata().map_err(WorkspaceError::io("cannot look at the repository", common))?;
        let all = format!("crew-{:x}-{}-", found.dev(), found.ino());
        let own = format!("{all}{}", Uuid::now_v7().simple());
        let joined = take(&HostLock::at(state.leases().join(&own)), workers)
            .and_then(|held| Ok((held, others(state, &all, &own)?)))
            .map_err(WorkspaceError::io("cannot lock", common))?;
        Ok((Crew { _held: joined.0 }, joined.1))
    }
}

fn take(lock: &HostLock, workers: u32) -> io::Result<HostLockHeld> {
    let begun = Instant::now();
    loop {
        match lock.try_take(&workers.to_string())? {
            Some(held) => return Ok(held),
            None if Instant::now().since(begun) > LOOKED_AT_MAX => return Err(io::ErrorKind::WouldBlock.into()),
            None => std::thread::sleep(Duration::from_millis(1)), // between two looks
        }
    }
}

/// How many workers the others have. The files of those who are dead go.
fn others(state: &StateDir, all: &str, own: &str) -> io::Result<u32> {
    let mut workers = 0;
    for entry in fs::read_dir(state.leases())? {
        let entry = entry?;
        let name = entry.file_name();
        let is_one = name.to_str().is_some_and(|name| name.starts_with(all) && name != own);
        if is_one {
            let lock = HostLock::at(entry.path());
            if lock.try_take("")?.is_none() {
                // One that has not said how many it has has one at least.
                workers += lock.holder().and_then(|said| said.parse().ok()).unwrap_or(1);
            }
        }
    }
    Ok(workers)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_of_a_crew_are_counted_as_long_as_they_live() {
        let folder = tempfile::tempdir().unwrap();
        let state = StateDir::open(folder.path()).unwrap();
        for name in ["one", "two"] {
            let made = std::process::Command::new("git").args(["init", "-q", name]).current_dir(folder.path()).status();
            assert!(made.unwrap().success());
        }
        let patience = crate::workspace::Patience::of(Duration::from_secs(60));
        let repository = |name: &str| Repository::at(&folder.path().join(name), &patience).unwrap();
        let (first, others) = Crew::join(&state, &repository("one"), 3).unwrap();
        assert_eq!(others, 0);
        let (second, others) = Crew::join(&state, &repository("one/.git"), 2).unwrap();
        assert_eq!(others, 3);
        assert_eq!(Crew::join(&state, &repository("two"), 1).unwrap().1, 0);
        drop(first);
        assert_eq!(Crew::join(&state, &repository("one"), 1).unwrap().1, 2);
        drop(second);
        assert_eq!(fs::read_dir(state.leases()).unwrap().count(), 0);
    }
}
