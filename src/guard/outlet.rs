//! Where a command reads from, and writes to.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;

/// What a command reads and writes.
pub(crate) struct Outlet {
    /// `None` is our own.
    pub(super) input: Option<File>,
    /// For stdout and stderr. `None` is our own.
    pub(super) output: Option<(OwnedFd, OwnedFd)>,
}

impl Outlet {
    /// Our own stdin, stdout and stderr.
    pub(crate) fn ours() -> Outlet {
        Outlet { input: None, output: None }
    }

    /// Nothing to read, and stdout and stderr apart. Their other ends see the end of both when the whole tree is gone.
    pub(crate) fn pipes(out: impl Into<OwnedFd>, err: impl Into<OwnedFd>) -> io::Result<Outlet> {
        Ok(Outlet { input: Some(File::open("/dev/null")?), output: Some((out.into(), err.into())) })
    }
}
