//! What every user tries on the first day: a duplicate is refused, different runs go side by side, the crashed one's
//! work is taken over. And that exit codes are what the documents say.

#![allow(clippy::unwrap_used)] // it is a test

mod support;

use std::time::Duration;

use rustix::process::Signal;
use support::{Database, Systole};

const SOON: Duration = Duration::from_secs(20);

#[test]
fn a_duplicate_is_refused_and_told_who_holds_the_run() {
    let database = Database::new();
    let host = Systole::on(&database);
    let first = host.start_run("nightly", "sleep 60");
    let refused = host.output(&["run", "nightly", "--", "echo", "never"]);
    let errors = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(75), "{errors}");
    assert!(refused.stdout.is_empty(), "the duplicate ran");
    let executor = format!("executor {}@", first.pid().as_raw_pid());
    assert!(errors.contains("run \"nightly\" is already running") && errors.contains(&executor), "{errors}");
    assert_eq!(database.value("SELECT count(*) FROM systole.run_events WHERE kind = 'refused'"), "1");
}

#[test]
fn different_runs_go_side_by_side() {
    let database = Database::new();
    let host = Systole::on(&database);
    let _one = host.start_run("one", "sleep 60");
    let _two = host.start_run("two", "sleep 60");
    assert_eq!(database.value("SELECT count(*) FROM systole.executor_instances WHERE status = 'RUNNING'"), "2");
}

#[test]
fn a_crashed_executor_is_taken_over_with_a_higher_fence() {
    let database = Database::new();
    let host = Systole::on(&database);
    let mut first = host.start_run("nightly", "sleep 60");
    let mut second = host.start(&["run", "--wait", "nightly", "--", "echo", "mine"]);
    second.wait_for_errors("waiting for run", SOON);
    first.signal(Signal::KILL);
    first.wait(SOON);
    assert_eq!(second.code(SOON), 0, "{}", second.errors());
    assert_eq!(second.output(), "mine\n");
    let ends = database.sql("SELECT status, coalesce(cause, '') FROM systole.executor_instances ORDER BY attempt");
    assert_eq!(ends, [["CRASHED", "proof"], ["COMPLETED", ""]]);
    let grew = "SELECT bool_and(fence > before) FROM
        (SELECT fence, lag(fence, 1, 0::bigint) OVER (ORDER BY attempt) AS before FROM systole.executor_instances) f";
    assert_eq!(database.value(grew), "t");
}

#[test]
fn the_exit_code_is_the_commands_own() {
    let host = Systole::on(&Database::new());
    for (script, code) in [("exit 0", 0), ("exit 3", 3), ("exit 75", 75), ("kill -9 $$", 137), ("kill -TERM $$", 143)] {
        assert_eq!(host.output(&["run", "r", "--", "sh", "-c", script]).status.code(), Some(code), "{script}");
    }
    assert_eq!(host.output(&["run", "r", "--", "no-such-command"]).status.code(), Some(127));
    assert_eq!(host.output(&["run", "r", "--", "/etc/passwd"]).status.code(), Some(126));
}
