//! What is run in these tests: a tree that does all it can to get away.

use std::os::unix::process::CommandExt;

pub(crate) use super::support::probe::{Mark, Probe, ends, last_heartbeat_ms};
use super::support::{Running, Systole, eventually};

/// The kinds of children in [`start_tree`], without the passing ones.
const TREE_SIZE_MIN: usize = 6;

/// Starts a run whose command has: a plain child, a child in a session of its own, a daemon (forked twice, without
/// descriptors), a child that ignores what can be ignored, and one that keeps making daemons. In a process group of its
/// own, as a shell would start it.
pub(crate) fn start_tree(host: &Systole, run_id: &str, mark: &Mark) -> Running {
    let script = "
        sleep 1000 &
        setsid sleep 1000 &
        (setsid sh -c 'exec <&- >&- 2>&-; sleep 1000 & exit' &)
        sh -c 'trap \"\" HUP INT QUIT TERM USR1 TSTP; while :; do sleep 0.1; done' &
        sh -c 'while :; do (setsid sleep 0.5 &); sleep 0.02; done' &
        echo ready
        while :; do wait; done";
    let mut command = host.command(&["run", run_id, "--", "env", &mark.variable(), "sh", "-c", script]);
    command.process_group(0);
    let running = Running::start(command);
    running.wait_for_output("ready");
    eventually("the whole tree", super::SOON, || (mark.living().len() >= TREE_SIZE_MIN).then_some(()));
    running
}
