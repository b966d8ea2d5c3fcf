//! The test command: in a process group of its own, of which nothing is left when this returns.

use std::io;
use std::os::fd::AsFd;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::pin::pin;
use std::process::{Command, ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process_group, waitid};
use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM};

use crate::supervise::Signals;

/// How it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ending {
    /// With this code, or 128 + n by signal n.
    Exited(i32),
    TimedOut,
    /// Somebody has stopped us, and we have stopped it.
    Interrupted(i32),
}

/// Runs it to its end, or for so long. What it prints goes to stderr: stdout is for the answer.
pub(crate) async fn run(mut command: Command, timeout: Option<Duration>, grace: Duration) -> io::Result<Ending> {
    let mut signals = Signals::catch()?;
    command.process_group(0).stdin(Stdio::null()).stdout(io::stderr().as_fd().try_clone_to_owned()?);
    let mut child = command.spawn()?;
    let group = Pid::from_child(&child);
    let mut ended = tokio::task::spawn_blocking(move || -> io::Result<ExitStatus> {
        // While it is not reaped, nobody else's group bears its number.
        waitid(WaitId::Pid(group), WaitIdOptions::EXITED | WaitIdOptions::NOWAIT)?;
        let _ = kill_process_group(group, Signal::KILL);
        child.wait()
    });
    let mut timed_out = pin!(after(timeout));
    let why = loop {
        tokio::select! {
            status = &mut ended => {
                let status = status.map_err(io::Error::other)??;
                return Ok(Ending::Exited(status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0))));
            }
            () = &mut timed_out => break Ending::TimedOut,
            (signal, _) = signals.next() => if [SIGHUP, SIGINT, SIGQUIT, SIGTERM].contains(&signal) {
                break Ending::Interrupted(signal);
            },
        }
    };
    let _ = kill_process_group(group, Signal::TERM);
    if tokio::time::timeout(grace, &mut ended).await.is_err() {
        let _ = kill_process_group(group, Signal::KILL);
        ended.await.map_err(io::Error::other)??;
    }
    Ok(why)
}

async fn after(timeout: Option<Duration>) {
    match timeout {
        Some(timeout) => tokio::time::sleep(timeout).await,
        None => std::future::pending().await,
    }
}
