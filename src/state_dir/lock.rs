//! A lock between the processes of one host: a file that says who holds it. It is free as soon as its holder is dead.

use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use rustix::fs::{FlockOperation, flock};

use super::{open_private, read_private};

/// A lock by the path of its file, which is there only while somebody holds it.
#[derive(Debug)]
pub(crate) struct HostLock {
    path: PathBuf,
}

/// Held by this process alone: no child inherits it. Its file goes with it.
#[derive(Debug)]
pub(crate) struct HostLockHeld {
    path: PathBuf,
    _file: File,
}

impl HostLock {
    pub(crate) fn at(path: PathBuf) -> HostLock {
        HostLock { path }
    }

    /// `None` if another process of this host holds it. `holder` is what others read.
    pub(crate) fn try_take(&self, holder: &str) -> io::Result<Option<HostLockHeld>> {
        loop {
            let mut file = open_private(&self.path)?;
            match flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => {}
                // Whoever looks who holds it has it for a moment as well, and does not mean it.
                Err(rustix::io::Errno::WOULDBLOCK) if flock(&file, FlockOperation::NonBlockingLockShared).is_ok() => {
                    drop(file);
                    std::thread::yield_now();
                    continue;
                }
                Err(rustix::io::Errno::WOULDBLOCK) => return Ok(None),
                Err(error) => return Err(error.into()),
            }
            if file.metadata()?.nlink() == 0 {
                // Its last holder removed it between our opening and our locking: what we hold is nobody's lock.
                continue;
            }
            // On a full disk it is a lock all the same, only one without a name.
            let _ = file.set_len(0).and_then(|()| writeln!(file, "{holder}"));
            return Ok(Some(HostLockHeld { path: self.path.clone(), _file: file }));
        }
    }

    /// Who holds it, as that one has said; `None` if nobody does.
    pub(crate) fn holder(&self) -> Option<String> {
        let mut file = read_private(&self.path).ok()?;
        if flock(&file, FlockOperation::NonBlockingLockShared).is_ok() {
            return None;
        }
        let mut name = String::new();
        file.rewind().ok()?;
        file.read_to_string(&mut name).ok()?;
        Some(name.trim().to_owned())
    }
}

impl Drop for HostLockHeld {
    fn drop(&mut self) {
        // Before the lock is let go, so that nobody's fresh file is hit.
        let _ = std::fs::remove_file(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

    use super::*;

    /// Each opening of a file is a holder of its own, as each process is.
    #[test]
    fn nobody_holds_what_another_one_holds() {
        let folder = tempfile::tempdir().unwrap();
        let taken = AtomicU32::new(0);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    let lock = HostLock::at(folder.path().join("lock"));
                    while taken.load(Ordering::Relaxed) < 5_000 {
                        let Some(held) = lock.try_take("somebody").unwrap() else { continue };
                        taken.fetch_add(1, Ordering::Relaxed);
                        assert!(lock.try_take("somebody else").unwrap().is_none(), "two hold it");
                        drop(held);
                    }
                });
            }
        });
    }

    #[test]
    fn who_only_looks_is_in_nobodys_way() {
        let folder = tempfile::tempdir().unwrap();
        let (path, is_over) = (folder.path().join("lock"), AtomicBool::new(false));
        std::thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    while !is_over.load(Ordering::Relaxed) {
                        let _ = HostLock::at(path.clone()).holder();
                    }
                });
            }
            let mut refused = 0;
            for _ in 0..1_000 {
                // As somebody leaves it who is killed.
                std::fs::write(&path, "the last one\n").unwrap();
                refused += u32::from(HostLock::at(path.clone()).try_take("somebody").unwrap().is_none());
            }
            is_over.store(true, Ordering::Relaxed);
            assert_eq!(refused, 0);
        });
    }
}
