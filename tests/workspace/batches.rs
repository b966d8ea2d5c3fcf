//! Which batch a supervisor works on: what is run for it once, what is run again, and what is left of it.

use std::process::Stdio;

use rustix::process::Signal;
use serde_json::Value;

use super::repository::Repository;
use super::supervising::{anchor, count, each, runs, said, start, summary, supervise, supervising};
use super::support::{Database, Running, Systole, eventually};
use super::{SOON, host};

/// What its summary says of batch, queued and ended before, and its exit code.
fn joined(host: &Systole, repository: &Repository, options: &[&str], script: &str) -> (String, i64, i64, i32) {
    let options = [&["--workers", "2", "--json"], options].concat();
    let (summary, code) = summary(&supervise(host, repository, "a,b,c", &options, script));
    let number = |field: &str| summary[field].as_i64().unwrap();
    (summary["batch"].as_str().unwrap().to_owned(), number("queued"), number("ended_before"), code)
}

#[test]
fn a_batch_is_of_a_day_a_commit_and_a_repository() {
    let (database, host) = host();
    let repository = Repository::new();
    let (first, queued, before, code) = joined(&host, &repository, &[], "true");
    assert_eq!((queued, before, code), (3, 0, 0));
    assert_eq!(joined(&host, &repository, &[], "true"), (first.clone(), 0, 3, 0));
    // By another name it is another one.
    assert_eq!(joined(&host, &repository, &["--batch", "more"], "true"), ("more".to_owned(), 3, 0, 0));
    // On another day.
    let (name, queued, ..) = joined(&host, &repository, &[], "true");
    assert_eq!((&name, queued), (&first, 3));
    yesterday(&database, &first);
    assert_eq!(joined(&host, &repository, &[], "true"), (first.clone(), 3, 0, 0));
    // With another commit, and in another repository.
    repository.git(&["commit", "-q", "--allow-empty", "-m", "another"]);
    let (second, queued, before, code) = joined(&host, &repository, &[], "true");
    assert_eq!((queued, before, code), (3, 0, 0));
    assert_ne!(second, first);
    let other = Repository::new();
    other.write("a.txt", "something else");
    other.git(&["commit", "-q", "--amend", "-am", "its own beginning"]);
    assert_eq!(joined(&host, &other, &[], "true").1, 3);
}

#[test]
fn what_has_failed_is_run_again_where_that_is_asked_for_also_the_next_day() {
    let (database, host) = host();
    let repository = Repository::new();
    let script = r#"test "$1" != b || test -e "$HOME/mended""#;
    let (batch, ..) = joined(&host, &repository, &[], script);
    yesterday(&database, &batch);
    repository.git(&["commit", "-q", "--allow-empty", "-m", "the mend"]);
    std::fs::write(host.state.path().join("mended"), "").unwrap();
    let (older, queued, before, code) = joined(&host, &repository, &["--retry-failed"], script);
    assert_eq!((older == batch, queued, before, code), (false, 1, 2, 0), "{older}");
}

/// As if a batch had been begun a day ago.
fn yesterday(database: &Database, batch: &str) {
    let (now, then) =
        (format!("'batch:{batch}'"), format!("'batch:' || (left('{batch}', 10)::date - 1) || substr('{batch}', 11)"));
    database.sql(&format!("UPDATE systole.run_specs SET command = {then} WHERE command = {now}"));
    database.sql(&format!(
        "UPDATE systole.lanes SET requirements = jsonb_build_object('systole:command', {then})
          WHERE requirements->>'systole:command' = {now}"
    ));
}

#[test]
fn what_is_left_of_yesterday_is_done_before_today() {
    let (database, host) = host();
    let repository = Repository::new();
    let script = r#"until test -e "$HOME/go"; do sleep 0.05; done"#;
    let arguments = supervising(&repository, "a,b", &["--workers", "1"], script);
    let mut first = host.start(&arguments.iter().map(String::as_str).collect::<Vec<_>>());
    first.wait_for_errors("run \"a\" attempt 1 as", SOON);
    first.signal(Signal::INT);
    first.wait_for_errors("draining", SOON);
    std::fs::write(host.state.path().join("go"), "").unwrap();
    assert_eq!(first.code(SOON), 1, "{}", first.errors());
    assert!(first.errors().contains("goes on with what is left"), "{}", first.errors());
    assert_eq!(database.value("SELECT status FROM systole.runs WHERE run_id = 'a'"), "COMPLETED");
    assert_eq!(database.value("SELECT status FROM systole.runs WHERE run_id = 'b'"), "QUEUED");

    let batch = database.value("SELECT substr(requirements->>'systole:command', 7) FROM systole.lanes");
    yesterday(&database, &batch);
    let older = database.value("SELECT substr(requirements->>'systole:command', 7) FROM systole.lanes");
    assert_ne!(older, batch);
    let check = host.output(&["check", "b", "--json"]);
    assert_eq!(check.status.code(), Some(75), "{check:?}");
    let status = host.output(&["status", "b"]);
    assert!(String::from_utf8_lossy(&status.stdout).contains("no systole supervise works on its batch"), "{status:?}");
    // Meanwhile there is another commit: what is left begins where the rest has begun, or not at all.
    let begun = repository.git(&["rev-parse", "HEAD"]);
    repository.git(&["commit", "-q", "--allow-empty", "-m", "another"]);
    let (rest, code) = summary(&supervise(&host, &repository, "a,b", &["--workers", "1", "--json"], script));
    assert_eq!((code, &rest["batch"], &rest["queued"]), (0, &older.into(), &Value::from(0)));
    assert_eq!(rest["base"], begun.as_str());
    assert_eq!(count(&database, "executor_instances"), 2);
}

#[test]
fn what_has_begun_at_a_commit_goes_on_nowhere_else() {
    let (_database, host) = host();
    let repository = Repository::new();
    let behind = repository.cloned();
    repository.git(&["commit", "-q", "--allow-empty", "-m", "another"]);
    assert!(host.output(&["pause", "supervise"]).status.success());
    let mut first = start(&host, &repository, "a", &["--batch", "one"], "true");
    first.wait_for_errors("queue supervise is paused", SOON);
    let refused = supervise(&host, &behind, "a", &["--batch", "one"], "true");
    assert_eq!(refused.status.code(), Some(78), "{refused:?}");
    assert!(said(&refused).contains("fetch it there"), "{}", said(&refused));
    behind.git(&["fetch", "-q", repository.text(), "main"]);
    let mut second = start(&host, &behind, "a", &["--batch", "one", "--json"], "true");
    second.wait_for_errors("and goes on there", SOON);
    assert!(host.output(&["resume", "supervise"]).status.success());
    for supervisor in [&mut first, &mut second] {
        assert_eq!(supervisor.code(SOON), 0, "{}", supervisor.errors());
    }
}

#[test]
fn a_run_of_somebody_else_is_not_taken() {
    let (database, host) = host();
    let repository = Repository::new();
    assert!(host.output(&["submit", "b", "--", "true"]).status.success());
    let output = supervise(&host, &repository, "a,b", &[], "true");
    assert_eq!(output.status.code(), Some(75), "{output:?}");
    assert!(said(&output).contains("run \"b\" is QUEUED already in queue default"), "{}", said(&output));
    assert_eq!(count(&database, "runs"), 1);
    // What has ended elsewhere may be run again.
    assert!(host.output(&["cancel", "b"]).status.success());
    let output = supervise(&host, &repository, "a,b", &[], "true");
    assert_eq!(output.status.code(), Some(0), "{output:?}");
}

#[test]
fn what_is_run_again_meanwhile_is_waited_for() {
    let (_database, host) = host();
    let repository = Repository::new();
    let script = r#"test "$1$2" != a1; test "$1" != b || until test -e "$HOME/go"; do sleep 0.05; done"#;
    let mut supervisor = start(&host, &repository, "a,b", &["--json"], script);
    supervisor.wait_for_errors("run \"a\" attempt 1: FAILED", SOON);
    assert!(host.output(&["retry", "a"]).status.success());
    supervisor.wait_for_errors("run \"a\" attempt 2: COMPLETED", SOON);
    std::fs::write(host.state.path().join("go"), "").unwrap();
    assert_eq!(supervisor.code(SOON), 0, "{}", supervisor.errors());
    let summary: Value = serde_json::from_str(&supervisor.output()).unwrap();
    assert_eq!(each(&summary, "attempt"), ["2", "1"]);
}

#[test]
fn what_keeps_a_batch_from_being_worked_on_is_said() {
    let (_database, host) = host();
    let repository = Repository::new();
    assert!(host.output(&["pause", "supervise"]).status.success());
    let mut supervisor = start(&host, &repository, "a,b", &["--json"], "true");
    supervisor.wait_for_errors("run \"a\" waits: queue supervise is paused", SOON);
    // One that somebody submits for something else is no longer waited for.
    assert!(host.output(&["cancel", "b"]).status.success());
    assert!(host.output(&["submit", "b", "--again", "--queue", "nobody", "--", "true"]).status.success());
    assert!(host.output(&["resume", "supervise"]).status.success());
    assert_eq!(supervisor.code(SOON), 1, "{}", supervisor.errors());
    let summary: Value = serde_json::from_str(&supervisor.output()).unwrap();
    assert_eq!(each(&summary, "taken_out"), ["false", "true"]);
}

#[test]
fn a_batch_that_is_given_up_keeps_nobody_from_another() {
    let (database, host) = host();
    let repository = Repository::new();
    let mut first = start(&host, &repository, &runs(20), &["--batch", "one", "--workers", "1"], "exec sleep 1000");
    first.wait_for_errors("run \"r1\" attempt 1 as", SOON);
    let refused = host.output(&["cancel", "--batch", "two"]);
    assert_eq!(refused.status.code(), Some(64), "{refused:?}");
    let output = host.output(&["cancel", "--batch", "one", "--reason", "wrong command"]);
    assert!(String::from_utf8_lossy(&output.stdout).contains("19 were queued, and are cancelled; 1 run"), "{output:?}");
    assert_eq!(first.code(SOON), 1, "{}", first.errors());
    assert_eq!(database.sql("SELECT DISTINCT status FROM systole.runs").concat(), ["CANCELLED"]);
    assert_eq!(count(&database, "run_events WHERE detail->>'reason' = 'wrong command'"), 20);
    assert_eq!(supervise(&host, &repository, &runs(20), &["--batch", "two"], "true").status.code(), Some(0));
}

/// Whoever comes second is refused, and nobody is the victim of a deadlock.
#[test]
fn lists_that_overlap_do_not_lock_each_other_out() {
    let (database, host) = host();
    let repository = Repository::new();
    let forwards: Vec<String> = (1..=1500).map(|n| format!("r{n}")).collect();
    let backwards: Vec<String> = forwards.iter().rev().cloned().collect();
    let lists = [("one", forwards), ("two", backwards)].map(|(batch, ids)| {
        let list = host.state.path().join(batch);
        std::fs::write(&list, ids.join("\n")).unwrap();
        (batch, list.display().to_string())
    });
    assert!(host.output(&["pause", "supervise"]).status.success());
    let anchor = anchor(&repository, "").display().to_string();
    let repo = ["--repo", repository.text(), "--workers", "2", "--anchor-path", &anchor];
    let mut both: Vec<Running> = lists
        .iter()
        .map(|(batch, list)| {
            host.start(
                &[&["supervise", "--batch", batch, "--run-ids-file", list], &repo as &[&str], &["--", "true"]].concat(),
            )
        })
        .collect();
    eventually("one is refused", SOON * 2, || {
        both.iter().any(|it| it.errors().contains("nothing was queued")).then_some(())
    });
    let (refused, accepted): (Vec<&mut Running>, Vec<&mut Running>) =
        both.iter_mut().partition(|it| it.errors().contains("nothing was queued"));
    assert_eq!((refused.len(), accepted.len()), (1, 1));
    for supervisor in accepted {
        supervisor.wait_for_errors("1500 queued now", SOON);
        let cancelled = ["one", "two"].map(|batch| host.output(&["cancel", "--batch", batch]).status.success());
        assert_eq!(cancelled.iter().filter(|it| **it).count(), 1);
        assert_eq!(supervisor.code(SOON), 1, "{}", supervisor.errors());
    }
    for supervisor in refused {
        assert_eq!(supervisor.code(SOON), 75, "{}", supervisor.errors());
    }
    assert_eq!(count(&database, "runs"), 1500);
}

#[test]
fn they_begin_in_the_order_of_the_list() {
    let (database, host) = host();
    let repository = Repository::new();
    assert_eq!(supervise(&host, &repository, "c,a,d,b", &["--workers", "1"], "true").status.code(), Some(0));
    let begun = database.sql("SELECT run_id FROM systole.executor_instances ORDER BY started_at").concat();
    assert_eq!(begun, ["c", "a", "d", "b"]);
}

#[test]
fn a_failure_is_one_also_where_nobody_can_read_of_it() {
    let (_database, host) = host();
    let repository = Repository::new();
    let arguments = supervising(&repository, "a", &["-q"], "false");
    let full = || Stdio::from(std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap());
    let mut command = host.command(&arguments.iter().map(String::as_str).collect::<Vec<_>>());
    let output = command.stdout(full()).output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(said(&output).contains("the summary cannot be written"), "{}", said(&output));
    let mut command = host.command(&arguments.iter().map(String::as_str).collect::<Vec<_>>());
    assert_eq!(command.stderr(full()).output().unwrap().status.code(), Some(1));
}
