//! The process that becomes the command, or in a PID namespace its parent and everybody's reaper.
//!
//! It is started before the claim, so that nothing slow lies between an acknowledged heartbeat and the exec, and it
//! waits: no code of the user runs before its guard says go. If the guard dies first, so does init.

use std::io;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::Command;

use rustix::process::{Pid, Signal, WaitOptions, set_parent_process_death_signal, wait};

use super::wire::{FromInit, Order, ToInit, receive, receive_descriptor, send};
use super::{PROCESS_NAME, containment};

/// Runs as init: never returns if it becomes the command.
pub(super) fn main() -> i32 {
    let Ok(socket) = control_socket() else { return 70 };
    match run(&socket) {
        Ok(code) => code,
        Err(error) => {
            // If even this cannot be said, the guard sees the end of the stream and reaps us.
            let _ = send(&socket, &FromInit::Unready { reason: error.to_string() });
            70
        }
    }
}

/// The socket to the one who started us lies on stdin. Ours is its copy, which no child inherits.
pub(super) fn control_socket() -> io::Result<UnixStream> {
    Ok(UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?))
}

fn run(socket: &UnixStream) -> io::Result<i32> {
    let _ = rustix::thread::set_name(c"deadman");
    // The guard has one thread for all its life, so its death is the only one this can mean. If it died before this
    // line, its socket is closed, and the next read says so.
    set_parent_process_death_signal(Some(Signal::KILL))?;
    let stdin = receive_descriptor(socket)?;
    rustix::stdio::dup2_stdin(&stdin)?;
    drop(stdin);
    let is_pid_1 = std::process::id() == 1;
    if is_pid_1 {
        containment::pid_namespace::mount_own_proc()?;
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
    send(socket, &FromInit::Spawned)?;
    reap(socket, Pid::from_child(&child))
}

fn command(order: Order) -> Command {
    let mut command = Command::new(&order.program);
    command.args(&order.arguments);
    for (name, value) in &order.environment {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    debug_assert_ne!(order.program, PROCESS_NAME);
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
