//! What becomes of runs whose node dies: started elsewhere, by another, and never twice at once.

use rustix::process::Signal;

use crate::support::process::marked;
use crate::support::{Database, Systole, eventually};
use crate::{SOON, becomes, history, node, submit};

#[test]
fn the_runs_of_a_node_that_is_killed_are_started_by_another_of_its_host() {
    let database = Database::new();
    let host = Systole::on(&database);
    let first = node(&host, &["--slots", "8"]);
    for n in 0..8 {
        // The second attempt ends at once.
        submit(
            &host,
            &format!("r{n}"),
            &["--env", &format!("SYSTOLE_TEST_TREE=crash-{}", database.name)],
            "[ $SYSTOLE_ATTEMPT = 2 ] || sleep 100",
        );
    }
    let mark = format!("crash-{}", database.name);
    eventually("eight trees", SOON, || (marked(&mark).len() >= 16).then_some(()));
    let _second = node(&host, &["--slots", "8"]);
    first.signal(Signal::KILL);
    for n in 0..8 {
        becomes(&database, &format!("r{n}"), "COMPLETED");
        assert_eq!(history(&database, &format!("r{n}")), ["submitted", "claimed", "crashed", "claimed", "completed"]);
    }
    let causes = database.sql("SELECT DISTINCT cause FROM systole.executor_instances WHERE status = 'CRASHED'");
    assert_eq!(causes.concat(), ["proof"]);
    let overlaps = "SELECT count(*) FROM systole.executor_instances a JOIN systole.executor_instances b USING (run_id)
                     WHERE a.attempt = 1 AND b.attempt = 2 AND b.started_at < a.ended_at";
    assert_eq!(database.value(overlaps), "0");
    assert!(marked(&mark).is_empty(), "a tree survived its node");
}

#[test]
fn a_node_of_another_host_takes_over_by_silence() {
    let database = Database::new();
    database.pretend_old_server();
    let (one, other) = (Systole::on(&database).fast(), Systole::on(&database).fast());
    let first = node(&one, &[]);
    submit(&one, "r", &[], "[ $SYSTOLE_ATTEMPT = 2 ] && echo after $SYSTOLE_PREDECESSOR_CAUSE || sleep 100");
    becomes(&database, "r", "RUNNING");
    let _second = node(&other, &["--poll-interval", "200ms"]);
    // Stopped, not killed: nobody certifies anything, and its guard has to act by itself.
    first.signal(Signal::STOP);
    becomes(&database, "r", "COMPLETED");
    first.signal(Signal::CONT);
    assert_eq!(database.value("SELECT cause FROM systole.executor_instances WHERE attempt = 1"), "stale");
    let log = String::from_utf8(other.output(&["logs", "r", "--no-timestamps"]).stdout).unwrap();
    assert_eq!(log, "after stale\n");
}

#[test]
fn a_run_that_kills_its_nodes_is_poison() {
    let database = Database::new();
    let host = Systole::on(&database);
    submit(&host, "poison", &["--crashes-max", "2"], "sleep 100");
    for attempt in 1..=2 {
        let victim = node(&host, &[]);
        // One that is killed before its guard is armed has nothing to certify its death: that takes stale_after.
        let started = format!("SELECT count(child_pid) FROM systole.executor_instances WHERE attempt = {attempt}");
        eventually("an attempt", SOON, || (database.value(&started) == "1").then_some(()));
        victim.signal(Signal::KILL);
    }
    let _last = node(&host, &[]);
    becomes(&database, "poison", "FAILED");
    let last = "SELECT detail->>'poison' FROM systole.run_events WHERE kind = 'crashed' ORDER BY id DESC LIMIT 1";
    assert_eq!(database.value(last), "true");
}
