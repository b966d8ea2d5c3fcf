//! The guard that a node has ready for its next run.

use std::process::Command;

use rustix::process::{Pid, Signal, kill_process};

use crate::support::process::{children, state};
use crate::support::{Database, Running, Systole, eventually, is_root};
use crate::{SOON, becomes, node, submit};

/// Its guards that live, with those of its runs.
fn guards(node: &Running) -> Vec<Pid> {
    children(node.pid()).into_iter().filter(|child| !matches!(state(*child), None | Some('Z'))).collect()
}

/// The guard that waits for the next run, with its init, of a node that has no run.
#[track_caller]
fn waiting_guard(node: &Running) -> Pid {
    eventually("a guard", SOON, || guards(node).into_iter().find(|guard| !children(*guard).is_empty()))
}

/// The guard of a run's command: its ancestor among the children of the node.
#[track_caller]
fn guard_of_run(database: &Database, run_id: &str, node: &Running) -> Pid {
    let query = format!("SELECT coalesce(max(child_pid), 0) FROM systole.executor_instances WHERE run_id = '{run_id}'");
    let mut pid = eventually("a command", SOON, || Pid::from_raw(database.value(&query).parse().unwrap()));
    let guards = guards(node);
    while !guards.contains(&pid) {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_pid())).unwrap();
        let parent = stat.rsplit_once(") ").unwrap().1.split(' ').nth(1).unwrap();
        pid = Pid::from_raw(parent.parse().unwrap()).expect("it is below the node");
    }
    pid
}

#[test]
fn the_next_run_gets_it_and_another_is_made() {
    let database = Database::new();
    let host = Systole::on(&database);
    let mut node = node(&host, &["--slots", "2"]);
    let ready = waiting_guard(&node);
    submit(&host, "r", &[], "sleep 1000");
    assert_eq!(guard_of_run(&database, "r", &node), ready);
    let next = eventually("another guard", SOON, || guards(&node).into_iter().find(|guard| *guard != ready));
    submit(&host, "s", &[], "sleep 1000");
    assert_eq!(guard_of_run(&database, "s", &node), next);
    // And whoever goes leaves none behind.
    let guards = eventually("a third", SOON, || Some(guards(&node)).filter(|guards| guards.len() == 3));
    node.signal(Signal::TERM);
    node.wait_for_errors("draining", SOON);
    node.signal(Signal::TERM);
    assert_eq!(node.code(SOON), 0, "{}", node.errors());
    for guard in guards {
        eventually("no guard", SOON, || matches!(state(guard), None | Some('Z')).then_some(()));
    }
}

#[test]
fn one_whose_node_was_killed_ends() {
    let database = Database::new();
    let host = Systole::on(&database);
    let mut node = node(&host, &[]);
    let guard = waiting_guard(&node);
    let init = children(guard);
    node.signal(Signal::KILL);
    node.wait(SOON);
    for pid in init.into_iter().chain([guard]) {
        eventually("its end", SOON, || matches!(state(pid), None | Some('Z')).then_some(()));
    }
}

#[test]
fn one_that_was_killed_costs_no_attempt() {
    let database = Database::new();
    let host = Systole::on(&database);
    let node = node(&host, &[]);
    kill_process(waiting_guard(&node), Signal::KILL).expect("it lives");
    submit(&host, "r", &[], "true");
    becomes(&database, "r", "COMPLETED");
    assert_eq!(database.value("SELECT count(*) FROM systole.executor_instances"), "1");
}

#[test]
fn one_that_was_stopped_keeps_no_run() {
    let database = Database::new();
    let host = Systole::on(&database).fast();
    let node = node(&host, &[]);
    let stopped = waiting_guard(&node);
    kill_process(stopped, Signal::STOP).expect("it lives");
    submit(&host, "r", &[], "true");
    becomes(&database, "r", "COMPLETED");
    let statuses = database.sql("SELECT status FROM systole.executor_instances ORDER BY attempt");
    assert_eq!(statuses.concat(), ["RELEASED", "COMPLETED"], "{}", node.errors());
    kill_process(stopped, Signal::CONT).expect("it lives");
    eventually("its end", SOON, || (!guards(&node).contains(&stopped)).then_some(()));
}

/// Its init has a view of its own of what is mounted, since it was born.
#[test]
fn one_from_before_a_mount_is_not_used_behind_it() {
    if !is_root() {
        return;
    }
    let database = Database::new();
    let host = Systole::on(&database).through(&["unshare", "--mount", "--propagation=private"]);
    let node = node(&host, &[]);
    waiting_guard(&node);
    let script = "mkdir disk && mount -t tmpfs none disk && touch disk/file";
    let target = node.pid().as_raw_pid().to_string();
    let mut mount = Command::new("nsenter");
    mount.args(["-t", &target, "-m", "sh", "-c", &format!("cd '{}' && {script}", host.state.path().display())]);
    assert!(mount.status().expect("nsenter(1)").success());
    submit(&host, "r", &[], "test -e disk/file");
    becomes(&database, "r", "COMPLETED");
}
