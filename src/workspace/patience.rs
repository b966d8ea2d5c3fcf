//! How long we wait for a git: it may wait for a server, a filter or a disk that never answers.

use std::io;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitStatus};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process_group, waitid};

use crate::elapsed::Instant;
use crate::guard::Helper;

/// From TERM, upon which git removes its lock files, to KILL.
const GRACE: Duration = Duration::from_secs(2);

/// So long for each git, or until somebody has enough of all of them. Its clones end together.
#[derive(Debug, Clone)]
pub(crate) struct Patience {
    limit: Duration,
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    is_over: Mutex<bool>,
    changed: Condvar,
}

/// Why a git was killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Impatience {
    TooLong(Duration),
    Unwanted,
}

impl Patience {
    pub(crate) fn of(limit: Duration) -> Patience {
        Patience { limit, shared: Arc::default() }
    }

    /// As long, and not over.
    pub(crate) fn anew(&self) -> Patience {
        Patience::of(self.limit)
    }

    /// Ends every git that was started with it, and keeps others from being started.
    pub(crate) fn end(&self) {
        *self.is_over() = true;
        self.shared.changed.notify_all();
    }

    /// Runs this to its end, in a process group of its own; kills the group if that does not come.
    pub(super) fn run(&self, mut command: Command) -> io::Result<Result<ExitStatus, Impatience>> {
        // A Ctrl-C is for the command of the run, and not for a checkout in the middle.
        let mut child = Helper::spawn(command.process_group(0))?;
        let group = child.pid();
        let ended = Mutex::new(false);
        std::thread::scope(|scope| {
            let watch = scope.spawn(|| self.watch(group, &ended));
            // While it is not reaped, nobody else's group bears its number.
            let waited =
                rustix::io::retry_on_intr(|| waitid(WaitId::Pid(group), WaitIdOptions::EXITED | WaitIdOptions::NOWAIT));
            {
                let _not_between_look_and_wait = self.is_over();
                *lock(&ended) = true;
            }
            self.shared.changed.notify_all();
            let impatience = watch.join().expect("it does not panic");
            waited?;
            if impatience.is_some() {
                let _ = kill_process_group(group, Signal::KILL);
            }
            let status = child.wait()?;
            Ok(impatience.map_or(Ok(status), Err))
        })
    }

    /// Kills the group when it is time, and says why; `None` if it has ended before.
    fn watch(&self, group: Pid, ended: &Mutex<bool>) -> Option<Impatience> {
        let (deadline, mut kill_at, mut impatience) = (Instant::now() + self.limit, None, None);
        let mut is_over = self.is_over();
        while !*lock(ended) {
            let now = Instant::now();
            let until = kill_at.unwrap_or(deadline);
            match kill_at {
                None if *is_over || now >= deadline => {
                    impatience = Some(if *is_over { Impatience::Unwanted } else { Impatience::TooLong(self.limit) });
                    kill_at = Some(now + GRACE);
                    let _ = kill_process_group(group, Signal::TERM);
                }
                Some(at) if now >= at => {
                    kill_at = Some(now + GRACE);
                    let _ = kill_process_group(group, Signal::KILL);
                }
                _ => is_over = self.wait(is_over, until.since(now)),
            }
        }
        impatience
    }

    fn wait<'a>(&self, is_over: MutexGuard<'a, bool>, at_most: Duration) -> MutexGuard<'a, bool> {
        self.shared.changed.wait_timeout(is_over, at_most).unwrap_or_else(PoisonError::into_inner).0
    }

    fn is_over(&self) -> MutexGuard<'_, bool> {
        lock(&self.shared.is_over)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::process::Stdio;

    use super::*;

    fn script(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]).stdin(Stdio::null());
        command
    }

    #[test]
    fn what_does_not_end_is_killed_with_what_it_has_started() {
        let patience = Patience::of(Duration::from_millis(500));
        let folder = tempfile::tempdir().unwrap();
        let pid = folder.path().join("pid");
        // It does not mind TERM, and nor does what it has started.
        let stubborn = format!("trap '' TERM; sleep 600 & echo $! >{}; wait; sleep 600", pid.display());
        let ended = patience.run(script(&stubborn)).unwrap();
        assert_eq!(ended.unwrap_err(), Impatience::TooLong(Duration::from_millis(500)));
        let pid = Pid::from_raw(std::fs::read_to_string(pid).unwrap().trim().parse().unwrap()).unwrap();
        let begun = Instant::now();
        while rustix::process::test_kill_process(pid).is_ok() && Instant::now().since(begun) < Duration::from_secs(10) {
            std::thread::sleep(Duration::from_millis(2)); // until somebody has reaped it
        }
        assert!(rustix::process::test_kill_process(pid).is_err());
    }

    #[test]
    fn nobody_waits_for_what_is_not_wanted_any_more() {
        let patience = Patience::of(Duration::from_secs(600));
        std::thread::scope(|scope| {
            scope.spawn(|| patience.end());
            assert_eq!(patience.run(script("sleep 600")).unwrap().unwrap_err(), Impatience::Unwanted);
        });
        assert_eq!(patience.run(script("sleep 600")).unwrap().unwrap_err(), Impatience::Unwanted);
        assert!(patience.anew().run(script("true")).unwrap().unwrap().success());
    }
}
