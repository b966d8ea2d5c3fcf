//! Exclusive use of a folder on this host: by its device and inode, so that a symlink to it, a bind mount of it and its name in
//! another case are one. Independent of any run's lock. A dead holder's is free at once.

use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::error::WorkspaceError;
use crate::state_dir::{HostLock, HostLockHeld, StateDir};

/// A folder that is ours until this is dropped.
#[derive(Debug)]
pub(crate) struct Lease {
    path: PathBuf,
    _held: HostLockHeld,
    /// As long as it is open, its inode is no other folder's, also when somebody removes it.
    _folder: File,
}

impl Lease {
    /// Takes it, saying who does, and what for; an error names the holder if there is one.
    pub(crate) fn take(state: &StateDir, folder: &Path, holder: &str) -> Result<Lease, WorkspaceError> {
        let (path, opened, lock) = find(state, folder)?;
        match lock.try_take(holder).map_err(WorkspaceError::io("cannot lock", folder))? {
            Some(held) => Ok(Lease { path, _held: held, _folder: opened }),
            None => {
                let holder = lock.holder().filter(|holder| !holder.is_empty());
                Err(WorkspaceError::Held { path, holder: holder.unwrap_or_else(|| "another process".to_owned()) })
            }
        }
    }

    /// Who has it, as that one has said.
    pub(crate) fn holder(state: &StateDir, folder: &Path) -> Option<String> {
        find(state, folder).ok()?.2.holder()
    }

    /// The folder, absolute and without links.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

fn find(state: &StateDir, folder: &Path) -> Result<(PathBuf, File, HostLock), WorkspaceError> {
    let path = folder.canonicalize().map_err(WorkspaceError::io("cannot find the workspace", folder))?;
    let opened = File::open(&path).map_err(WorkspaceError::io("cannot open the workspace", &path))?;
    let found = opened.metadata().map_err(WorkspaceError::io("cannot look at the workspace", &path))?;
    if !found.is_dir() {
        let error = std::io::Error::from(std::io::ErrorKind::NotADirectory);
        return Err(WorkspaceError::Io { doing: "cannot use the workspace", path, error });
    }
    let lock = HostLock::at(state.leases().join(format!("{:x}-{}", found.dev(), found.ino())));
    Ok((path, opened, lock))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_names_of_one_folder_are_one_lease() {
        let scratch = tempfile::tempdir().unwrap();
        let state = StateDir::open(&scratch.path().join("state")).unwrap();
        let (folder, link) = (scratch.path().join("folder"), scratch.path().join("link"));
        std::fs::create_dir(&folder).unwrap();
        std::os::unix::fs::symlink(&folder, &link).unwrap();
        let lease = Lease::take(&state, &folder, "run \"a\"").unwrap();
        let error = Lease::take(&state, &link.join("."), "run \"b\"").unwrap_err().to_string();
        assert!(error.contains("run \"a\"") && error.contains("folder"), "{error}");
        // Its name is not what is leased.
        std::fs::rename(&folder, scratch.path().join("renamed")).unwrap();
        assert_eq!(Lease::holder(&state, &scratch.path().join("renamed")).as_deref(), Some("run \"a\""));
        drop(lease);
        assert_eq!(Lease::holder(&state, &scratch.path().join("renamed")), None);
        Lease::take(&state, &scratch.path().join("renamed"), "run \"b\"").unwrap();
    }

    #[test]
    fn a_file_and_nothing_at_all_are_refused() {
        let scratch = tempfile::tempdir().unwrap();
        let state = StateDir::open(&scratch.path().join("state")).unwrap();
        std::fs::write(scratch.path().join("file"), "").unwrap();
        for name in ["file", "nothing"] {
            assert!(Lease::take(&state, &scratch.path().join(name), "x").is_err(), "{name}");
        }
    }
}
