//! Processes as /proc shows them: whose children they are, and whose mark they bear.

use std::collections::HashMap;
use std::fs;

use rustix::process::Pid;

use super::MARK;

/// A process of a probe.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Marked {
    pub(super) pid: Pid,
    pub(super) run_id: String,
    pub(super) instance_id: String,
    /// PID@host.
    pub(super) executor_id: String,
}

/// All living processes with this mark, whatever they did to hide their parents.
pub(super) fn marked(mark: &str) -> Vec<Marked> {
    let pids = fs::read_dir("/proc").into_iter().flatten().flatten().filter_map(|entry| {
        let pid = Pid::from_raw(entry.file_name().to_str()?.parse().ok()?)?;
        Some((pid, fs::read(format!("/proc/{pid}/environ")).ok()?))
    });
    pids.filter_map(|(pid, environment)| {
        let variables = variables(&environment);
        let value = |name: &str| variables.get(name).map(|value| (*value).to_owned());
        (*variables.get(MARK)? == mark && lives(pid)).then_some(())?;
        Some(Marked {
            pid,
            run_id: value("SYSTOLE_RUN_ID")?,
            instance_id: value("SYSTOLE_INSTANCE_ID")?,
            executor_id: value("SYSTOLE_EXECUTOR_ID")?,
        })
    })
    .collect()
}

fn variables(environment: &[u8]) -> HashMap<&str, &str> {
    let variables = environment.split(|byte| *byte == 0).filter_map(|line| std::str::from_utf8(line).ok());
    variables.filter_map(|line| line.split_once('=')).collect()
}

/// Whether a process of this number lives, and is no zombie.
pub(super) fn lives(pid: Pid) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with(['Z', 'X']))
}

/// The guards of a node: its children that bear their name.
pub(super) fn guards(node: Pid) -> Vec<Pid> {
    children(node).into_iter().filter(|child| is_guard(*child)).collect()
}

/// Whether it guards a command: in the tree of one that waits for its run there is an init, still of its name, and nobody else.
pub(super) fn is_at_work(guard: Pid) -> bool {
    children(guard).into_iter().any(|init| !is_guard(init) || !children(init).is_empty())
}

/// Whether it bears the name of a guard: numbers are used again.
pub(super) fn is_guard(pid: Pid) -> bool {
    fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name.trim() == "deadman") && lives(pid)
}

fn children(pid: Pid) -> Vec<Pid> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let lists = tasks.map(|task| fs::read_to_string(task.path().join("children")).unwrap_or_default());
    lists
        .flat_map(|list| list.split_whitespace().filter_map(|pid| Pid::from_raw(pid.parse().ok()?)).collect::<Vec<_>>())
        .collect()
}
