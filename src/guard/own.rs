//! The children of this process that are no orphans of a run, so that no reaper and no killer of orphans takes one for it.

use std::io;
use std::process::{Child, Command, ExitStatus};
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustix::process::Pid;

/// Guards in use and helpers, each waited for by whoever has started it; and guards that were let go of, but not waited for yet. The
/// tree of one must not be taken for the orphans of another, and the number of one in use must not be given to somebody else.
#[derive(Debug)]
pub(super) struct Own {
    pub(super) in_use: Vec<Pid>,
    pub(super) leaving: Vec<Pid>,
}

static OWN: Mutex<Own> = Mutex::new(Own { in_use: Vec::new(), leaving: Vec::new() });

pub(super) fn lock() -> MutexGuard<'static, Own> {
    OWN.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Own {
    pub(super) fn all(&self) -> impl Iterator<Item = &Pid> {
        self.in_use.iter().chain(&self.leaving)
    }
}

/// A child that does something for us: git, mostly. A process that has guards starts no child in another way: it might be reaped,
/// or killed, before it is waited for.
#[derive(Debug)]
pub(crate) struct Helper(Child);

impl Helper {
    /// Starts it.
    pub(crate) fn spawn(command: &mut Command) -> io::Result<Helper> {
        // Also a child that cannot be started is waited for, by the library.
        let mut own = lock();
        let child = command.spawn()?;
        own.in_use.push(Pid::from_child(&child));
        Ok(Helper(child))
    }

    pub(crate) fn pid(&self) -> Pid {
        Pid::from_child(&self.0)
    }

    /// Waits for its end.
    pub(crate) fn wait(&mut self) -> io::Result<ExitStatus> {
        self.0.wait()
    }
}

impl Drop for Helper {
    fn drop(&mut self) {
        let ours = self.pid();
        lock().in_use.retain(|pid| *pid != ours);
    }
}
