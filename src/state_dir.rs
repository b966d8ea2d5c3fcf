//! The private folder of this user on this host: certificates of death, local locks, sockets. On a local disk.

mod lock;

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

pub(crate) use lock::{HostLock, HostLockHeld};

/// The longest path of a unix socket, less the terminating NUL (Linux: 108 bytes with it; macOS: 104).
const SOCKET_PATH_BYTES_MAX: usize = 103;

/// A folder that only this user can enter.
#[derive(Debug, Clone)]
pub struct StateDir {
    root: PathBuf,
}

/// Why there is no private folder; names the path and the remedy.
#[derive(Debug, thiserror::Error)]
#[error("the state folder {} cannot be used: {reason}. Point SYSTOLE_STATE_DIR at a folder on a local disk that belongs to you alone", .path.display())]
pub struct StateDirError {
    path: PathBuf,
    reason: String,
}

impl StateDir {
    /// Where it is unless somebody says otherwise: `/var/lib/systole/state` for root, else the user's state folder.
    pub fn default_path() -> PathBuf {
        if rustix::process::geteuid().is_root() {
            return PathBuf::from("/var/lib/systole/state");
        }
        let absolute = |name| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
        absolute("XDG_STATE_HOME")
            .or_else(|| absolute("HOME").map(|home| home.join(".local/state")))
            .map(|base| base.join("systole"))
            .unwrap_or_else(|| std::env::temp_dir().join(format!("systole-{}", rustix::process::geteuid().as_raw())))
    }

    /// Opens it, making what is missing. Refuses a link, and a folder that others own or may write.
    pub fn open(root: &Path) -> Result<StateDir, StateDirError> {
        let refuse = |path: &Path, reason: String| StateDirError { path: path.to_owned(), reason };
        if let Some(parent) = root.parent() {
            fs::create_dir_all(parent).map_err(|error| refuse(root, error.to_string()))?;
        }
        let folders = ["instances", "leases", "locks", "outbox", "sockets", "workspaces", "worktrees"]
            .map(|name| root.join(name));
        for folder in [root.to_owned()].into_iter().chain(folders) {
            make_private(&folder).map_err(|reason| refuse(&folder, reason))?;
        }
        Ok(StateDir { root: root.to_owned() })
    }

    /// As it is, for those who only look: nothing is made, and nothing refused.
    pub(crate) fn at(root: &Path) -> StateDir {
        StateDir { root: root.to_owned() }
    }

    /// The folder itself.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Files by instance id: who holds the lock lives, and what was certified.
    pub(crate) fn instances(&self) -> PathBuf {
        self.root.join("instances")
    }

    /// Files by a hash of database and run.
    pub(crate) fn locks(&self) -> PathBuf {
        self.root.join("locks")
    }

    /// Locks by a folder's device and inode.
    pub(crate) fn leases(&self) -> PathBuf {
        self.root.join("leases")
    }

    /// What is known of each worktree of ours, by its name.
    pub(crate) fn workspaces(&self) -> PathBuf {
        self.root.join("workspaces")
    }

    /// The worktrees themselves, unless another folder is configured.
    pub(crate) fn worktrees(&self) -> PathBuf {
        self.root.join("worktrees")
    }

    /// A path for a unix socket of this name: here, or where this path is too long for one, in a private folder in /tmp.
    pub(crate) fn socket(&self, name: &str) -> Result<PathBuf, StateDirError> {
        let path = self.root.join("sockets").join(name);
        if path.as_os_str().len() <= SOCKET_PATH_BYTES_MAX {
            return Ok(path);
        }
        let short = PathBuf::from(format!("/tmp/systole-{}", rustix::process::geteuid().as_raw()));
        make_private(&short).map_err(|reason| StateDirError { path: short.clone(), reason })?;
        Ok(short.join(name))
    }
}

/// Opens a file of ours for reading and writing: 0600, and never through a link.
pub(crate) fn open_private(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .custom_flags(rustix::fs::OFlags::NOFOLLOW.bits() as i32)
        .open(path)
}

/// Opens a file of ours for reading, if it is there, and never through a link.
pub(crate) fn read_private(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).custom_flags(rustix::fs::OFlags::NOFOLLOW.bits() as i32).open(path)
}

/// Makes a folder, and what is missing above it, for nobody but this user. What is there already stays as it is.
pub(crate) fn make_folders(folder: &Path) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)
}

/// Writes a file that nobody but this user can read, never through a link.
pub(crate) fn write_private(path: &Path, contents: impl AsRef<[u8]>) -> io::Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o600);
    options.custom_flags(rustix::fs::OFlags::NOFOLLOW.bits() as i32).open(path)?.write_all(contents.as_ref())
}

/// Makes a folder that only this user can enter.
pub(crate) fn make_private(folder: &Path) -> Result<(), String> {
    match fs::DirBuilder::new().mode(0o700).create(folder) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error.to_string()),
        _ => {}
    }
    let found = fs::symlink_metadata(folder).map_err(|error| error.to_string())?;
    if !found.is_dir() {
        return Err("it is not a folder (a link to one is not followed)".to_owned());
    }
    if found.uid() != rustix::process::geteuid().as_raw() {
        return Err(format!("it belongs to user id {}", found.uid()));
    }
    if found.mode() & 0o077 != 0 {
        fs::set_permissions(folder, Permissions::from_mode(0o700)).map_err(|error| error.to_string())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_is_not_followed() {
        let folder = tempfile::tempdir().unwrap();
        let link = folder.path().join("link");
        std::os::unix::fs::symlink(folder.path(), &link).unwrap();
        let error = StateDir::open(&link).unwrap_err().to_string();
        assert!(error.contains("not a folder") && error.contains("SYSTOLE_STATE_DIR"), "{error}");
    }

    #[test]
    fn what_others_could_read_is_made_private() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("state");
        fs::create_dir(&root).unwrap();
        fs::set_permissions(&root, Permissions::from_mode(0o755)).unwrap();
        StateDir::open(&root).unwrap();
        assert_eq!(fs::metadata(&root).unwrap().mode() & 0o777, 0o700);
    }

    #[test]
    fn a_long_folder_still_has_sockets() {
        let folder = tempfile::tempdir().unwrap();
        let state = StateDir::open(&folder.path().join("x".repeat(120))).unwrap();
        assert!(state.socket("0123456789abcdef").unwrap().as_os_str().len() <= SOCKET_PATH_BYTES_MAX);
    }
}
