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
