//! Before everybody else: when a machine goes on that was paused, the guard races against the very processes it has to stop.

/// Lets this process run as soon as it has something to do, if it may: that takes CAP_SYS_NICE or RLIMIT_RTPRIO.
///
/// A real-time policy and no mere niceness: as the leader of a session the guard is weighed against other sessions (autogroups), and
/// niceness counts only within one. With four busy processes on two CPUs, what a command did after a pause was often 4 ms and up to
/// 20, and 0 with this. It has no fork of its own to pass it on to, and would not.
#[allow(unsafe_code)]
pub(super) fn first_in_line() {
    let parameter = libc::sched_param { sched_priority: 1 };
    let policy = libc::SCHED_FIFO | libc::SCHED_RESET_ON_FORK;
    // SAFETY: the kernel reads one struct, and 0 is this thread, the only one. Not by libc: musl's always says ENOSYS. If it is
    // refused, the guard is as quick as its command.
    let _ = unsafe { libc::syscall(libc::SYS_sched_setscheduler, 0, policy, &raw const parameter) };
}
