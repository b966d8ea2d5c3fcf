//! A fork that is born into its cgroup and its namespaces: no moment in which it is outside of them, and none lost.
//!
//! Moving a running process into a cgroup takes a lock that all forks of the machine share, and about 10 ms. Born there,
//! it takes none. This and closing what the fork must not keep are the two things here that safe Rust cannot say.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};

use rustix::process::{Pid, Signal, WaitOptions, kill_process, waitpid};

use super::cgroup::Cgroup;

/// From linux/sched.h; the constant in libc is too narrow for it.
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// Which side of the fork we are on.
#[must_use]
pub(crate) enum Born {
    Parent(Pid),
    Child,
}

/// Forks this process, which must have one thread only. With `namespaces`, the child is PID 1 of a new PID namespace, and
/// has a mount namespace of its own: root only.
pub(crate) fn fork(cgroup: Option<&Cgroup>, namespaces: bool) -> io::Result<Born> {
    let flags = if namespaces { libc::CLONE_NEWPID | libc::CLONE_NEWNS } else { 0 };
    let Some(cgroup) = cgroup else { return fork_outside(flags) };
    match clone3(flags, Some(cgroup.as_fd())) {
        // Before Linux 5.7, or where somebody filters it: the long way.
        Err(_) => {
            let born = fork_outside(flags)?;
            if let Born::Parent(pid) = born
                && let Err(error) = cgroup.add(pid)
            {
                let _ = kill_process(pid, Signal::KILL);
                let _ = waitpid(Some(pid), WaitOptions::empty());
                return Err(error);
            }
            Ok(born)
        }
        born => born,
    }
}

/// In containers clone3 is often filtered (docker does it), because a filter cannot look at its arguments.
#[allow(unsafe_code)]
fn fork_outside(flags: libc::c_int) -> io::Result<Born> {
    match clone3(flags, None) {
        // SAFETY: as in clone3.
        Err(_) if flags == 0 => match unsafe { libc::fork() } {
            -1 => Err(io::Error::last_os_error()),
            0 => Ok(Born::Child),
            pid => Ok(Born::Parent(Pid::from_raw(pid).expect("the kernel counts from 1"))),
        },
        born => born,
    }
}

#[allow(unsafe_code)]
fn clone3(flags: libc::c_int, cgroup: Option<BorrowedFd<'_>>) -> io::Result<Born> {
    let into_cgroup = if cgroup.is_some() { CLONE_INTO_CGROUP } else { 0 };
    let arguments = libc::clone_args {
        flags: flags as u64 | into_cgroup,
        pidfd: 0,
        child_tid: 0,
        parent_tid: 0,
        exit_signal: libc::SIGCHLD as u64,
        stack: 0,
        stack_size: 0,
        tls: 0,
        set_tid: 0,
        set_tid_size: 0,
        cgroup: cgroup.map_or(0, |directory| directory.as_raw_fd() as u64),
    };
    // SAFETY: without CLONE_VM and without a stack this is fork(2): the child has a copy of everything. Guard processes
    // have one thread, so no lock is held by another one that the copy lacks.
    match unsafe { libc::syscall(libc::SYS_clone3, &raw const arguments, size_of::<libc::clone_args>()) } {
        -1 => Err(io::Error::last_os_error()),
        0 => Ok(Born::Child),
        pid => Ok(Born::Parent(Pid::from_raw(pid as i32).expect("the kernel counts from 1"))),
    }
}

/// Closes every descriptor of ours but this one: a copy of its parent's sockets would hide its parent's death. Ours are those
/// that no exec inherits; the others were handed down for the command (a job server, an activated socket), and reach it.
///
/// Only for a fresh fork that never returns to the code that owns them.
#[allow(unsafe_code)]
pub(crate) fn close_ours_but(kept: RawFd) -> io::Result<()> {
    let listed = std::fs::read_dir("/proc/self/fd")?.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    // First the whole list: one of them is that of the listing itself, and gone when it is complete.
    for descriptor in listed.collect::<Vec<RawFd>>() {
        // SAFETY: asking about a descriptor that is closed is answered with -1, which has no flags of ours.
        let flags = unsafe { libc::fcntl(descriptor, libc::F_GETFD) };
        if descriptor != kept && flags == libc::FD_CLOEXEC {
            // SAFETY: whoever owns it is on a stack that is never returned to.
            unsafe { libc::close(descriptor) };
        }
    }
    Ok(())
}
