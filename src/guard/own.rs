//! The children of this process that are no orphans of a run, so that no reaper and no killer of orphans takes one for it.

use std::io;
use std::process::{Child, Command, Output};
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
pub(crate) struct Helper {
    pid: Pid,
    child: Option<Child>,
}

impl Helper {
    /// Starts it.
    pub(crate) fn spawn(command: &mut Command) -> io::Result<Helper> {
        // Also a child that cannot be started is waited for, by the library.
        let mut own = lock();
        let child = command.spawn()?;
        let pid = Pid::from_child(&child);
        own.in_use.push(pid);
        Ok(Helper { pid, child: Some(child) })
    }

    pub(crate) fn child(&mut self) -> &mut Child {
        self.child.as_mut().expect("it is there until it is waited for")
    }

    /// Waits for its end, with all that it has written to pipes.
    pub(crate) fn wait_with_output(mut self) -> io::Result<Output> {
        self.child.take().expect("nobody has waited for it").wait_with_output()
    }
}

impl Drop for Helper {
    fn drop(&mut self) {
        lock().in_use.retain(|pid| *pid != self.pid);
    }
}
