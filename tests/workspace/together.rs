//! Supervisors that share a list, die, and are started again: every run once, and nothing lost.

use std::collections::BTreeSet;

use rustix::process::Signal;
use serde_json::Value;

use super::repository::Repository;
use super::supervising::{runs, start, summary, supervise, supervising};
use super::support::terminal::Terminal;
use super::support::{Database, Systole, eventually};
use super::{SOON, host};

fn column(database: &Database, query: &str) -> Vec<String> {
    database.sql(query).concat()
}

/// Another machine: what it knows of worktrees and of processes is its own.
fn another(database: &Database, name: &str) -> Systole {
    let host = Systole::on(database).fast().with("SYSTOLE_HOST", name);
    let home = host.state.path().display().to_string();
    host.with("HOME", &home).with("XDG_CONFIG_HOME", &home)
}

#[test]
fn machines_share_a_list_and_run_each_once() {
    let database = Database::new();
    let repository = Repository::new();
    // Each has a clone of its own, and may have its own way to say where.
    let clone = repository.cloned();
    let script = r#"echo "$1" > mine; sleep 0.2"#;
    let (first, second) = (another(&database, "first"), another(&database, "second"));
    let mut one = start(&first, &repository, &runs(24), &["--workers", "3", "--json"], script);
    let mut two = start(&second, &clone, &runs(24), &["--workers", "3", "--json"], script);
    for supervisor in [&mut one, &mut two] {
        assert_eq!(supervisor.code(SOON * 2), 0, "{}", supervisor.errors());
        let summary: Value = serde_json::from_str(&supervisor.output()).unwrap();
        assert_eq!((&summary["completed"], &summary["left"]), (&Value::from(24), &Value::from(0)));
        // Of the others' it knows the end, and has nothing here.
        let (ours, theirs): (Vec<&Value>, Vec<&Value>) =
            summary["runs"].as_array().unwrap().iter().partition(|run| !run["worktree"].is_null());
        assert!(!ours.is_empty() && !theirs.is_empty(), "{summary}");
        let host = |runs: &[&Value]| runs.iter().map(|run| run["host"].to_string()).collect::<BTreeSet<_>>();
        assert!(host(&ours).len() == 1 && host(&theirs).len() == 1 && host(&ours) != host(&theirs), "{summary}");
    }
    let queued: i64 =
        database.value("SELECT count(*) FROM systole.run_events WHERE kind = 'submitted'").parse().unwrap();
    assert_eq!(queued, 24);
    assert_eq!(database.value("SELECT count(*) FROM systole.executor_instances"), "24");
    assert_eq!(database.value("SELECT count(DISTINCT host) FROM systole.executor_instances"), "2");
}

#[test]
fn killed_in_the_middle_and_started_again_it_finishes_the_rest() {
    let (database, host) = host();
    let repository = Repository::new();
    // Not all at once: some are at work at any moment.
    let script =
        r#"echo "$1" > mine; echo "$2 $SYSTOLE_PREDECESSOR_SNAPSHOT" >> "$SYSTOLE_RUN_DIR/told"; sleep "0.${1#r}""#;
    let mut first = start(&host, &repository, &runs(30), &[], script);
    eventually("some have ended", SOON, || {
        let query = "SELECT count(*) FILTER (WHERE status = 'COMPLETED') >= 8 AND count(*) FILTER (WHERE status = 'RUNNING') > 4";
        (database.value(&format!("{query} FROM systole.runs")) == "t").then_some(())
    });
    first.signal(Signal::KILL);
    let _ = first.wait(SOON);
    let (rest, code) = summary(&supervise(&host, &repository, &runs(30), &["--json"], script));
    assert_eq!((code, &rest["completed"], &rest["queued"]), (0, &Value::from(30), &Value::from(0)), "{rest}");
    // Nothing overlapped, nothing is repeated but what was killed, and what that had done is kept.
    assert_eq!(
        column(&database, "SELECT status FROM systole.executor_instances GROUP BY 1 ORDER BY 1"),
        ["COMPLETED", "CRASHED"],
        "{}",
        first.errors()
    );
    let sockets = host.state.path().join("state/sockets");
    let crashed = "SELECT right(replace(instance_id::text, '-', ''), 16) FROM systole.executor_instances WHERE status = 'CRASHED'";
    for name in column(&database, crashed) {
        assert!(!sockets.join(format!("{name}.sock")).exists(), "nobody is there any more to speak to");
    }
    let audit = host.output(&["audit"]);
    assert_eq!(audit.status.code(), Some(0), "{audit:?}");
    let once = "SELECT count(*) FROM systole.executor_instances WHERE status = 'COMPLETED'";
    assert_eq!(database.value(once), "30");
    let crashed = column(&database, "SELECT run_id FROM systole.executor_instances WHERE status = 'CRASHED'");
    assert!((1..=8).contains(&crashed.len()), "{crashed:?}");
    for run in crashed {
        // Whoever else keeps that at the same moment.
        let told = std::fs::read_to_string(host.state.path().join("state/runs").join(&run).join("told")).unwrap();
        let has_work = told.starts_with("1 ");
        assert!(!has_work || told.ends_with(&format!("2 refs/systole/{run}/1\n")), "{run}: {told}");
        assert_eq!(repository.file(&format!("refs/systole/{run}/2"), "mine"), Some(format!("{run}\n")));
    }
}

#[test]
fn what_one_machine_dies_of_another_finishes() {
    let database = Database::new();
    let repository = Repository::new();
    let (first, second) = (another(&database, "first"), another(&database, "second"));
    let script = r#"test "$2" != 1 || sleep 1000"#;
    let mut one = start(&first, &repository, "a,b", &["--workers", "1"], script);
    one.wait_for_errors("run \"a\" attempt 1 as", SOON);
    let mut two = start(&second, &repository, "a,b", &["--workers", "1"], script);
    two.wait_for_errors("run \"b\" attempt 1 as", SOON);
    one.signal(Signal::KILL);
    let _ = one.wait(SOON);
    // Nobody of the first host certifies that: it is silence that tells.
    assert!(second.output(&["restart", "b"]).status.success());
    assert_eq!(two.code(SOON * 2), 0, "{}", two.errors());
    assert_eq!(
        column(
            &database,
            "SELECT run_id || attempt || host FROM systole.executor_instances WHERE status = 'COMPLETED' ORDER BY 1"
        ),
        ["a2second", "b2second"]
    );
}

/// Whoever works on the runs waits, and so does whoever looks at them.
#[test]
fn a_database_that_goes_away_in_the_middle_costs_nothing() {
    let (database, mut server) = Database::on_own_server();
    let home = tempfile::tempdir().unwrap();
    let host = Systole::on(&database).with("HOME", home.path().to_str().unwrap());
    let repository = Repository::new();
    let script = r#"until test -e "$HOME/go"; do sleep 0.05; done"#;
    let mut supervisor = start(&host, &repository, "a,b", &["--workers", "1", "--json"], script);
    supervisor.wait_for_errors("run \"a\" attempt 1 as", SOON);
    server.crash();
    supervisor.wait_for_errors("cannot be reached", SOON);
    server.start();
    std::fs::write(home.path().join("go"), "").unwrap();
    assert_eq!(supervisor.code(SOON * 2), 0, "{}", supervisor.errors());
    let summary: Value = serde_json::from_str(&supervisor.output()).unwrap();
    assert_eq!((&summary["completed"], &summary["left"]), (&Value::from(2), &Value::from(0)), "{summary}");
    assert_eq!(column(&database, "SELECT status || attempt FROM systole.executor_instances"), ["COMPLETED1"; 2]);
}

#[test]
fn a_second_signal_gives_back_what_runs() {
    let (database, host) = host();
    let repository = Repository::new();
    let mut first = start(&host, &repository, "a,b,c", &["--workers", "2"], r#"test "$2" != 1 || sleep 1000"#);
    first.wait_for_errors("run \"a\" attempt 1 as", SOON);
    first.wait_for_errors("run \"b\" attempt 1 as", SOON);
    first.signal(Signal::INT);
    first.wait_for_errors("draining", SOON);
    first.signal(Signal::INT);
    assert_eq!(first.code(SOON), 1, "{}", first.errors());
    let statuses = "SELECT status || attempt || crashes FROM systole.runs ORDER BY run_id";
    assert_eq!(column(&database, statuses), ["QUEUED10", "QUEUED10", "QUEUED00"]);
    assert_eq!(column(&database, "SELECT DISTINCT status FROM systole.executor_instances"), ["RELEASED"]);
}

#[test]
fn a_person_sees_bars_and_stops_with_a_key() {
    let (database, host) = host();
    let repository = Repository::new();
    let script = r#"trap 'exit 9' INT; until test -e "$HOME/$1"; do sleep 0.05; done"#;
    let arguments = supervising(&repository, "a,b,c", &["--workers", "2"], script);
    let mut terminal = Terminal::start(&host.command(&arguments.iter().map(String::as_str).collect::<Vec<_>>()));
    terminal.wait_for("0 of 3 have ended");
    let go = |run: &str| std::fs::write(host.state.path().join(run), "").unwrap();
    go("a");
    terminal.wait_for("a  COMPLETED after");
    terminal.wait_for("1 of 3 have ended");
    terminal.press("\x03");
    terminal.wait_for("draining (a signal)");
    // Of b and c one or both have begun.
    go("b");
    go("c");
    assert!(matches!(terminal.code(SOON), Some(0 | 1)), "{}", terminal.screen());
    assert!(terminal.screen().contains("batch "), "{}", terminal.screen());
    assert!(!terminal.screen().contains("attempt 1 as"), "what bars show is no line: {}", terminal.screen());
    let failed = column(&database, "SELECT run_id FROM systole.runs WHERE status NOT IN ('COMPLETED', 'QUEUED')");
    assert_eq!(failed, Vec::<String>::new());
}
