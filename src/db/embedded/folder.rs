//! The folder of a cluster and its files: local connections are trusted, so its mode of 0700 is the lock.

use std::ffi::OsString;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::Path;

use rustix::fs::OFlags;

use super::account::Account;
use super::error::EmbeddedError;
use super::place::socket_dir;

/// The lock file, and the mark of a folder that is ours: it is the first thing made in it.
pub(super) const LOCK: &str = "systole.lock";

/// The mode of folders that all users share.
const STICKY: u32 = 0o1000;

/// What stands where the folder should be.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// Nothing.
    Missing,
    /// An empty folder, or one whose making was interrupted: it may be made private.
    Unfinished,
    /// Our folder, closed to others.
    Private,
}

/// Looks at `dir` without changing it; whatever must not be touched is an error.
pub(super) fn examine(dir: &Path, account: &Account) -> Result<Standing, EmbeddedError> {
    let found = match fs::symlink_metadata(dir) {
        Ok(found) => found,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Standing::Missing),
        Err(error) => return Err(EmbeddedError::io("look at", dir)(error)),
    };
    if found.is_symlink() {
        return Err(EmbeddedError::unusable(
            dir,
            "is a symbolic link, which is not followed for a private folder. Set SYSTOLE_EMBEDDED_DIR to the folder it \
             leads to",
        ));
    }
    if !found.is_dir() {
        return Err(EmbeddedError::unusable(
            dir,
            "is not a folder. Remove it, or set SYSTOLE_EMBEDDED_DIR to another path",
        ));
    }
    if found.uid() != account.uid && !(account.switch && found.uid() == 0) {
        return Err(EmbeddedError::unusable(
            dir,
            format!(
                "belongs to uid {}, but the server runs as uid {}. Set SYSTOLE_EMBEDDED_DIR to a folder of your own",
                found.uid(),
                account.uid
            ),
        ));
    }
    if found.uid() == account.uid && found.mode() & 0o077 == 0 {
        return Ok(Standing::Private);
    }
    Ok(Standing::Unfinished)
}

/// Makes `dir` a private folder of the account that holds the lock file, or says why not. Any number of processes may
/// do so at once.
pub(super) fn prepare(dir: &Path, account: &Account) -> Result<(), EmbeddedError> {
    if let Some(parent) = dir.parent() {
        make_parents(parent, account)?;
    }
    make_private(dir, account, |dir| {
        if fs::symlink_metadata(dir)?.mode() & STICKY != 0 {
            return Ok(false); // an empty /tmp is not for root to give away
        }
        // One look: who looked twice could see the lock file of another process appear in between.
        let names: io::Result<Vec<OsString>> = fs::read_dir(dir)?.map(|entry| Ok(entry?.file_name())).collect();
        let names = names?;
        Ok(names.is_empty() || names.iter().any(|name| name == LOCK))
    })
}

/// Makes the folder of the socket, wherever [`socket_dir`] put it.
pub(super) fn prepare_socket_dir(dir: &Path, account: &Account) -> Result<(), EmbeddedError> {
    make_private(&socket_dir(dir, account), account, |_| Ok(true))
}

fn make_private(
    dir: &Path,
    account: &Account,
    may_be_ours: impl Fn(&Path) -> io::Result<bool>,
) -> Result<(), EmbeddedError> {
    if examine(dir, account)? == Standing::Missing {
        match DirBuilder::new().mode(0o700).create(dir) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                return Err(EmbeddedError::io("make", dir)(error));
            }
            // Just made, by us or by another process.
            _ => {}
        }
    }
    if !may_be_ours(dir).map_err(EmbeddedError::io("list", dir))? {
        return Err(EmbeddedError::unusable(
            dir,
            "is for all users or holds files that are not of an embedded database, and would be closed to other users. \
             Set SYSTOLE_EMBEDDED_DIR to a new or empty folder",
        ));
    }
    if examine(dir, account)? == Standing::Private {
        return Ok(());
    }
    // Through a descriptor, so that nobody can put a link to another folder in its place meanwhile.
    let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW;
    OpenOptions::new()
        .read(true)
        .custom_flags(flags.bits() as i32)
        .open(dir)
        .and_then(|folder| {
            folder.set_permissions(fs::Permissions::from_mode(0o700))?;
            if account.switch { fchown(&folder, Some(account.uid), Some(account.gid)) } else { Ok(()) }
        })
        .map_err(EmbeddedError::io("make private", dir))
}

/// Like `create_dir_all`; what root makes, user postgres can walk through, even under root's umask of 077.
fn make_parents(dir: &Path, account: &Account) -> Result<(), EmbeddedError> {
    if dir.exists() {
        return Ok(());
    }
    if let Some(parent) = dir.parent() {
        make_parents(parent, account)?;
    }
    match fs::create_dir(dir) {
        Ok(()) if account.switch => fs::set_permissions(dir, fs::Permissions::from_mode(0o755)),
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        _ => Ok(()),
    }
    .map_err(EmbeddedError::io("make", dir))
}

/// Opens the lock file, never through a link: as root we write where user postgres could have left one.
pub(super) fn open_lock(dir: &Path, account: &Account) -> io::Result<File> {
    let lock = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .custom_flags(OFlags::NOFOLLOW.bits() as i32)
        .open(dir.join(LOCK))?;
    if account.switch {
        fchown(&lock, Some(account.uid), Some(account.gid))?;
    }
    Ok(lock)
}

/// Writes a file that only the account may read, whole or not at all. Only under the lock.
pub(super) fn write_private(path: &Path, text: &str, account: &Account) -> Result<(), EmbeddedError> {
    let new = path.with_extension("new");
    let write = || {
        match fs::remove_file(&new) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new)?;
        file.write_all(text.as_bytes())?;
        if account.switch {
            fchown(&file, Some(account.uid), Some(account.gid))?;
        }
        file.sync_all()?;
        fs::rename(&new, path)
    };
    write().map_err(EmbeddedError::io("write", path))
}

/// Removes what a killed creation left behind, as far as its orphaned programs do not write to it still.
pub(super) fn remove_leftovers(dir: &Path, prefix: &str) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        if entry.file_name().as_bytes().starts_with(prefix.as_bytes()) {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn ourselves() -> Account {
        let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
        Account { uid, gid, switch: false }
    }

    #[test]
    fn only_an_empty_folder_or_our_own_is_closed_to_others() {
        let home = tempfile::tempdir().unwrap();
        let dir = home.path().join("a/b");
        prepare(&dir, &ourselves()).unwrap();
        assert_eq!(examine(&dir, &ourselves()).unwrap(), Standing::Private);

        fs::set_permissions(&dir, fs::Permissions::from_mode(0o755)).unwrap();
        fs::write(dir.join("thesis"), "").unwrap();
        assert!(prepare(&dir, &ourselves()).unwrap_err().to_string().contains("SYSTOLE_EMBEDDED_DIR"));
        assert_eq!(examine(&dir, &ourselves()).unwrap(), Standing::Unfinished);
        open_lock(&dir, &ourselves()).unwrap();
        prepare(&dir, &ourselves()).unwrap();
        assert_eq!(examine(&dir, &ourselves()).unwrap(), Standing::Private);
    }

    #[test]
    fn neither_links_nor_folders_of_others_are_used() {
        let home = tempfile::tempdir().unwrap();
        symlink(home.path(), home.path().join("link")).unwrap();
        assert!(prepare(&home.path().join("link"), &ourselves()).unwrap_err().to_string().contains("symbolic link"));
        let somebody = Account { uid: ourselves().uid + 1, ..ourselves() };
        assert!(prepare(home.path(), &somebody).unwrap_err().to_string().contains("belongs to"));
        let file = home.path().join("file");
        write_private(&file, "x", &ourselves()).unwrap();
        assert!(prepare(&file, &ourselves()).unwrap_err().to_string().contains("not a folder"));
    }
}
