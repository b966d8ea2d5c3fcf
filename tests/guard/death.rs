//! kill -9 of the supervisor, of the guard, and of both: nothing of the tree lives on, and the next one knows.

use std::time::{Duration, Instant};

use rustix::process::{Signal, kill_process, kill_process_group};

use super::SOON;
use super::levels::{Level, at_each_of, at_every_level_and_as_users};
use super::support::process::{guard_of, lives, through};
use super::support::{Database, Running, Systole, eventually};
use super::trees::{Mark, ends, start_tree};

/// How long a tree may outlive whoever was killed.
const AFTERLIFE: Duration = Duration::from_secs(1);

/// Starts the next attempt, which must not have to wait for any age: L is 30 s here.
#[track_caller]
fn next_attempt_at_once(host: &Systole, run_id: &str) {
    let begun = Instant::now();
    let next = host.output(&["run", run_id, "--", "true"]);
    assert_eq!(next.status.code(), Some(0), "{}", String::from_utf8_lossy(&next.stderr));
    assert!(begun.elapsed() < Duration::from_secs(5), "it took {:?}", begun.elapsed());
}

#[test]
fn a_killed_supervisor_leaves_nothing_but_a_certificate() {
    let database = Database::new();
    at_every_level_and_as_users(|level| {
        let host = level.host(&database);
        let mark = Mark::new();
        let mut run = start_tree(&host, level.name(), &mark);
        run.signal(Signal::KILL);
        run.wait(SOON);
        mark.wait_for_death(AFTERLIFE);

        let certified = eventually("a certificate", SOON, || {
            let file = std::fs::read_dir(host.instances()).expect("a folder").next()?.expect("a file");
            let text = std::fs::read_to_string(file.path()).expect("it can be read");
            text.lines().nth(1).map(str::to_owned)
        });
        assert!(certified.contains("\"supervisor_gone\""), "{certified}");
        assert_eq!(ends(&database, level.name()), ["RUNNING"], "nobody has told the database yet");

        next_attempt_at_once(&host, level.name());
        assert_eq!(ends(&database, level.name()), ["CRASHED proof 137", "COMPLETED 0"]);
        let left = std::fs::read_dir(host.instances()).expect("a folder").count();
        assert_eq!(left, 0, "filed certificates are removed");
    });
}

#[test]
fn a_killed_guard_takes_its_tree_along_and_the_run_is_lost() {
    let database = Database::new();
    at_every_level_and_as_users(|level| {
        let host = level.host(&database);
        let mark = Mark::new();
        let mut run = start_tree(&host, level.name(), &mark);
        kill_process(guard_of(run.pid()), Signal::KILL).expect("the guard lives");
        mark.wait_for_death(AFTERLIFE);
        assert_eq!(run.code(SOON), 76, "{}", run.errors());
        assert!(run.errors().contains("guard"), "{}", run.errors());
        assert_eq!(ends(&database, level.name()), ["CRASHED guard_lost"]);
        next_attempt_at_once(&host, level.name());
    });
}

#[test]
fn a_killed_process_group_does_not_take_the_guard_along() {
    let database = Database::new();
    at_every_level_and_as_users(|level| {
        let host = level.host(&database);
        let mark = Mark::new();
        let mut run = start_tree(&host, level.name(), &mark);
        kill_process_group(run.pid(), Signal::KILL).expect("the group lives");
        run.wait(SOON);
        mark.wait_for_death(AFTERLIFE);
        next_attempt_at_once(&host, level.name());
        assert_eq!(ends(&database, level.name()).len(), 2);
    });
}

#[test]
fn a_lost_guard_costs_no_stranger_its_life() {
    let database = Database::new();
    at_every_level_and_as_users(|level| {
        let host = level.host(&database);
        let (mark, bystanders) = (Mark::new(), Mark::new());
        // A shell that has started something, and then becomes systole: its children are then ours.
        let systole =
            host.command(&["run", level.name(), "--", "env", &mark.variable(), "sh", "-c", "echo ready; sleep 1000"]);
        let script =
            format!("{} sleep 1000 & {} setsid sleep 1000 & exec \"$@\"", bystanders.variable(), bystanders.variable());
        let mut run = Running::start(through("sh", &["-c", &script, "sh"], &systole));
        run.wait_for_output("ready");
        kill_process(guard_of(run.pid()), Signal::KILL).expect("the guard lives");
        assert_eq!(run.code(SOON), 76, "{}", run.errors());
        assert!(mark.living().is_empty(), "the tree lives");
        assert_eq!(bystanders.living().len(), 2, "strangers were killed");
    });
}

/// The guard is stopped first, so that it cannot do anything about the death of its supervisor.
pub(crate) fn kill_both(run: &mut Running) {
    let guard = guard_of(run.pid());
    kill_process(guard, Signal::STOP).expect("the guard lives");
    run.signal(Signal::KILL);
    kill_process(guard, Signal::KILL).expect("the guard lives");
    run.wait(SOON);
    eventually("the guard's death", SOON, || (!lives(guard.as_raw_pid())).then_some(()));
}

#[test]
fn with_a_pid_namespace_nothing_outlives_supervisor_and_guard() {
    let database = Database::new();
    at_each_of(&[Level::PidNamespace], |level| {
        let host = level.host(&database);
        let mark = Mark::new();
        let mut run = start_tree(&host, level.name(), &mark);
        kill_both(&mut run);
        mark.wait_for_death(AFTERLIFE);
        if level.freezes() {
            next_attempt_at_once(&host, level.name());
            assert_eq!(ends(&database, level.name()), ["CRASHED proof", "COMPLETED 0"]);
        }
    });
}

#[test]
fn what_outlives_both_in_a_cgroup_is_swept_by_the_next_systole_of_the_host() {
    let database = Database::new();
    at_each_of(&[Level::Cgroup, Level::Delegated], |level| {
        let host = level.host(&database);
        let mark = Mark::new();
        let mut run = start_tree(&host, level.name(), &mark);
        kill_both(&mut run);
        assert!(!mark.living().is_empty(), "nothing is left to be swept: this test shows nothing");
        // Any systole of this host, and for any run.
        let other = host.output(&["run", &format!("{}-another", level.name()), "--", "true"]);
        assert_eq!(other.status.code(), Some(0), "{}", String::from_utf8_lossy(&other.stderr));
        assert!(mark.living().is_empty(), "it started a command beside the remains");
        assert_eq!(ends(&database, level.name()), ["CRASHED proof"]);
        next_attempt_at_once(&host, level.name());
    });
}
