//! Where a command reads from, and writes to.

use std::fs::File;
use std::io;

/// What a command reads and writes.
pub(crate) struct Outlet {
    /// `None` is our own.
    pub(super) input: Option<File>,
    /// For stdout and stderr. `None` is our own.
    pub(super) output: Option<File>,
}

impl Outlet {
    /// Our own stdin, stdout and stderr.
    pub(crate) fn ours() -> Outlet {
        Outlet { input: None, output: None }
    }

    /// Nothing to read, and a file for all that it writes.
    pub(crate) fn file(output: File) -> io::Result<Outlet> {
        Ok(Outlet { input: Some(File::open("/dev/null")?), output: Some(output) })
    }
}
