//! The process that becomes the command, or in a PID namespace its parent and everybody's reaper.
//!
//! It is started before the claim, so that nothing slow lies between an acknowledged heartbeat and the exec, and it
//! waits: no code of the user runs before its guard says go. If the guard dies first, so does init.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::Command;

use rustix::process::{Pid, Signal, WaitOptions, set_parent_process_death_signal, wait};

use super::containment::{birth, pid_namespace};
use super::wire::{FromInit, Order, ToInit, receive, send};

/// What the command will find.
pub(super) struct Stage {
    pub(super) stdin: OwnedFd,
    pub(super) own_session: bool,
}

/// Lives as init, in a fresh fork of the guard, and becomes the command or ends.
pub(super) fn live(socket: &UnixStream, stage: &Stage) -> ! {
    let code = run(socket, stage).unwrap_or_else(|error| {
        // If even this cannot be said, the guard sees the end of the stream and reaps us.
        let _ = send(socket, &FromInit::Unready { reason: error.to_string() });
        70
    });
    std::process::exit(code)
}

fn run(socket: &UnixStream, stage: &Stage) -> io::Result<i32> {
    // The guard has one thread for all its life, so its death is the only one this can mean. If it died before this
    // line, its socket is closed, and the next read says so.
    set_parent_process_death_signal(Some(Signal::KILL))?;
    rustix::stdio::dup2_stdin(&stage.stdin)?;
    if stage.own_session {
        // Freshly forked, we lead no group: nothing keeps us from it.
        rustix::process::setsid()?;
    }
    birth::close_ours_but(socket.as_raw_fd())?;
    let is_pid_1 = std::process::id() == 1;
    if is_pid_1 {
        pid_namespace::mount_own_proc().map_err(|error| io::Error::other(format!("no /proc of its own: {error}")))?;
    }
    send(socket, &FromInit::Ready)?;
    let Some(ToInit::Go(order)) = receive(socket)? else { return Ok(0) };

    let mut command = command(*order);
    if !is_pid_1 {
        let error = command.exec();
        return refuse(socket, &error);
    }
    let child = match command.spawn() {
        Ok(child) => child,
        Err(error) => return refuse(socket, &error),
    };
    // What the command reads and writes is its own: a pipe must not be held open by us.
    let null = std::fs::OpenOptions::new().read(true).write(true).open("/dev/null")?;
    rustix::stdio::dup2_stdin(&null)?;
    rustix::stdio::dup2_stdout(&null)?;
    rustix::stdio::dup2_stderr(&null)?;
    send(socket, &FromInit::Spawned)?;
    reap(socket, Pid::from_child(&child))
}

fn command(order: Order) -> Command {
    let mut command = Command::new(&order.program);
    command.args(&order.arguments);
    if let Some(folder) = &order.folder {
        command.current_dir(folder);
    }
    for (name, value) in &order.environment {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    command
}

fn refuse(socket: &UnixStream, error: &io::Error) -> io::Result<i32> {
    send(socket, &FromInit::ExecFailed { errno: error.raw_os_error().unwrap_or(0) })?;
    Ok(0)
}

/// As PID 1: reaps every orphan, tells of the command, and ends with it. The kernel then kills whatever else is in the
/// namespace, before our own parent can see our end.
fn reap(socket: &UnixStream, command: Pid) -> io::Result<i32> {
    loop {
        let Some((pid, status)) = wait(WaitOptions::UNTRACED)? else { continue };
        if pid != command {
            continue;
        }
        if let Some(number) = status.stopping_signal() {
            send(socket, &FromInit::Stopped { number })?;
        } else {
            let signal = status.terminating_signal();
            let code = status.exit_status().unwrap_or_else(|| 128 + signal.unwrap_or(0));
            send(socket, &FromInit::Exited { code, signal })?;
            return Ok(0);
        }
    }
}
