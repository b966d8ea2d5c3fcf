//! All descendants of this process, found by walking /proc. For a child subreaper that is its whole tree: an orphan comes
//! back to it, whatever it did to get away (setsid, double fork). Without children it has no descendants either.

use std::collections::HashSet;
use std::fs;
use std::time::Duration;

use rustix::io::Errno;
use rustix::process::{
    Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, WaitOptions, getpid, pidfd_open, pidfd_send_signal, wait, waitid,
    waitpid,
};

/// How many rounds of looking and signalling before giving up on forks that are always a step ahead.
const ROUNDS_MAX: usize = 200;

/// In the flags of a process: it is in its exit (include/linux/sched.h).
const PF_EXITING: u64 = 0x4;

/// What is left after a kill.
#[must_use]
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Killed {
    Emptied,
    /// These do not die: stuck in the kernel, or out of our rights. Not all of them may be known.
    Remaining(Vec<Pid>),
}

/// Stops every descendant of this process but the `spared`, and returns them. Only a grace: anybody may continue them.
pub(crate) fn stop_all(spared: &[Pid]) -> Vec<Pid> {
    let mut met: HashSet<Pid> = spared.iter().copied().collect();
    let mut stopped = Vec::new();
    for _ in 0..ROUNDS_MAX {
        // What was forked by one that had not been stopped yet is found in the next round.
        let fresh: Vec<Pid> = of(getpid(), &[]).into_iter().filter(|pid| met.insert(*pid) && runs(*pid)).collect();
        if fresh.is_empty() {
            break;
        }
        fresh.iter().for_each(|pid| send(*pid, Signal::STOP));
        stopped.extend(fresh);
    }
    stopped
}

/// Lets those go on that were stopped and still are descendants.
pub(crate) fn continue_these(stopped: impl IntoIterator<Item = Pid>) {
    stopped.into_iter().for_each(|pid| send(pid, Signal::CONT));
}

/// Sends a signal to every descendant of this process.
pub(crate) fn signal_all(signal: Signal) {
    of(getpid(), &[]).into_iter().for_each(|pid| send(pid, signal));
}

/// Kills every descendant of this process but the `spared` and theirs, and reaps them. Blocks for about a second at most.
pub(crate) fn kill_all(spared: &[Pid]) -> Killed {
    let root = getpid();
    for round in 0..ROUNDS_MAX {
        reap_all(spared);
        let left = of(root, spared);
        if left.is_empty() && !(spared.is_empty() && has_children()) {
            return Killed::Emptied;
        }
        // First all are stopped, so that no fork of one slips past the killing of another.
        if round == 0 {
            left.iter().for_each(|pid| send(*pid, Signal::STOP));
        }
        left.iter().for_each(|pid| send(*pid, Signal::KILL));
        std::thread::sleep(Duration::from_millis(if round < 20 { 1 } else { 5 }));
    }
    Killed::Remaining(of(root, spared))
}

/// Whether this process has a child, alive or to be reaped. The list of them in /proc may miss one while others end; this
/// does not.
fn has_children() -> bool {
    let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
    !matches!(waitid(WaitId::All, options), Err(Errno::CHILD))
}

/// Whether a child of this process waits to be reaped.
pub(crate) fn somebody_has_ended() -> bool {
    let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
    matches!(waitid(WaitId::All, options), Ok(Some(_)))
}

/// Whether /proc shows the PID namespace that we are in. In another one our numbers are other processes'.
pub(crate) fn see_our_own() -> bool {
    let shown = fs::read_link("/proc/self").ok();
    shown.and_then(|shown| shown.to_str()?.parse().ok()) == Some(getpid().as_raw_pid())
}

/// Whether this kernel lists the children of a process (CONFIG_PROC_CHILDREN).
pub(crate) fn can_be_listed() -> bool {
    fs::exists("/proc/thread-self/children").unwrap_or(false)
}

/// The children of this process.
pub(crate) fn children() -> Vec<Pid> {
    children_of(getpid())
}

/// All living descendants, parents before their children. A zombie lives until it is reaped.
fn of(root: Pid, spared: &[Pid]) -> Vec<Pid> {
    let mut found = children_of(root);
    found.retain(|pid| !spared.contains(pid));
    let mut next = 0;
    while let Some(pid) = found.get(next).copied() {
        found.extend(children_of(pid));
        next += 1;
    }
    found
}

/// Of all threads: a child belongs to the thread that forked it.
fn children_of(pid: Pid) -> Vec<Pid> {
    let tasks = format!("/proc/{}/task", pid.as_raw_pid());
    let Ok(threads) = fs::read_dir(tasks) else { return Vec::new() };
    let mut children = Vec::new();
    for thread in threads.flatten() {
        let list = fs::read_to_string(thread.path().join("children")).unwrap_or_default();
        children.extend(list.split_whitespace().filter_map(|pid| Pid::from_raw(pid.parse().ok()?)));
    }
    children
}

/// By a pidfd, and only if it still is what was found: between look and signal its number may have been given again.
fn send(pid: Pid, signal: Signal) {
    let Ok(descriptor) = pidfd_open(pid, PidfdFlags::empty()) else { return };
    if is_descendant(pid) {
        let _ = pidfd_send_signal(descriptor, signal);
    }
}

/// Whether it can still do anything. What is over, or has come so far in its exit that it left its cgroup, cannot.
fn runs(pid: Pid) -> bool {
    stat(pid).is_some_and(|fields| says_that_it_runs(&fields))
}

/// Goes by state, flags and number of threads: the first thread may be over while others run.
fn says_that_it_runs(fields: &str) -> bool {
    let fields: Vec<&str> = fields.split_whitespace().collect();
    let number = |at: usize| fields.get(at).and_then(|field| field.parse::<u64>().ok()).unwrap_or(0);
    let is_over = matches!(fields.first(), Some(&("Z" | "X"))) || number(6) & PF_EXITING != 0;
    !is_over || number(17) > 1
}

fn is_descendant(pid: Pid) -> bool {
    let us = getpid();
    let mut at = pid;
    for _ in 0..10_000 {
        match parent_of(at) {
            Some(parent) if parent == us => return true,
            Some(parent) => at = parent,
            None => return false,
        }
    }
    false
}

fn parent_of(pid: Pid) -> Option<Pid> {
    Pid::from_raw(stat(pid)?.split_whitespace().nth(1)?.parse().ok()?)
}

/// The fields of /proc/PID/stat from the state on. The command name before it may hold spaces and parentheses.
fn stat(pid: Pid) -> Option<String> {
    let stat = fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_pid())).ok()?;
    Some(stat.rsplit_once(')')?.1.to_owned())
}

/// Reaps the children that have ended, one by one, so that the end of a spared one stays for whoever waits for it.
pub(crate) fn reap_all(spared: &[Pid]) {
    if spared.is_empty() {
        while matches!(wait(WaitOptions::NOHANG), Ok(Some(_)) | Err(Errno::INTR)) {}
        return;
    }
    for pid in children() {
        if !spared.contains(&pid) {
            match waitpid(Some(pid), WaitOptions::NOHANG) {
                Ok(_) | Err(Errno::CHILD | Errno::INTR) => {}
                Err(_) => return,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_in_its_exit_runs_no_more_unless_it_has_other_threads() {
        let of = |state: &str, flags: u32, threads: u32| {
            format!(" {state} 1 1 1 0 -1 {flags} 0 0 0 0 0 0 0 0 20 0 {threads} 0 1234 0 0")
        };
        assert!(says_that_it_runs(&of("R", 4_194_304, 1)));
        assert!(!says_that_it_runs(&of("R", 4_194_308, 1)));
        assert!(!says_that_it_runs(&of("Z", 4_227_084, 1)));
        assert!(says_that_it_runs(&of("Z", 4_227_084, 2)));
        assert!(says_that_it_runs(&stat(getpid()).expect("we live")));
    }
}
