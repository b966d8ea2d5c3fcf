//! What a node starts, how often, and what it leaves for others.

use std::time::Duration;

use crate::support::{Database, Systole, eventually, throughout};
use crate::{SOON, becomes, history, node, submit};

#[test]
fn what_is_queued_is_started_at_once_and_its_output_kept() {
    let database = Database::new();
    let host = Systole::on(&database).with("SECRET_OF_THE_NODE", "canary");
    let _node = node(&host, &["--slots", "2"]);
    submit(
        &host,
        "r",
        &["--env", "GREETING=hello", "--purpose", "to be seen"],
        "echo $GREETING $SYSTOLE_ATTEMPT; env; echo err >&2",
    );
    becomes(&database, "r", "COMPLETED");
    assert_eq!(history(&database, "r"), ["submitted", "claimed", "completed"]);
    let delay = "SELECT extract(epoch FROM (SELECT at FROM systole.run_events WHERE kind = 'claimed')
                    - (SELECT at FROM systole.run_events WHERE kind = 'submitted')) < 2";
    assert_eq!(database.value(delay), "t", "it waited for the poll");
    let log = String::from_utf8(host.output(&["logs", "r"]).stdout).unwrap();
    assert!(log.contains("hello 1") && log.contains("err"), "{log}");
    assert!(log.contains("PATH=") && !log.contains("canary") && !log.contains("SYSTOLE_DATABASE_URL"), "{log}");
}

#[test]
fn a_node_takes_what_its_slots_can_hold_and_the_urgent_first() {
    let database = Database::new();
    let host = Systole::on(&database);
    for (run_id, priority) in [("old", "0"), ("dull", "-5"), ("urgent", "5"), ("new", "0")] {
        submit(&host, run_id, &["--priority", priority], "sleep 0.2");
    }
    let mut worker = host.start(&["node", "--once", "--allow-submitted-commands", "--slots", "1"]);
    throughout("one at a time", Duration::from_millis(600), || {
        database.value("SELECT count(*) < 2 FROM systole.executor_instances WHERE status = 'RUNNING'") == "t"
    });
    assert_eq!(worker.code(SOON), 0, "{}", worker.errors());
    let order = database.sql("SELECT run_id FROM systole.run_events WHERE kind = 'claimed' ORDER BY id");
    assert_eq!(order.concat(), ["urgent", "old", "new", "dull"]);
    assert_eq!(database.value("SELECT count(*) FROM systole.runs WHERE status = 'COMPLETED'"), "4");
}

/// Each of them needs a guard before its first heartbeat.
#[test]
fn a_node_with_many_slots_claims_no_more_than_it_can_begin_soon() {
    let database = Database::new();
    let host = Systole::on(&database);
    database.sql("SELECT systole.submit('r' || n, argv => ARRAY['sleep', '1000']) FROM generate_series(1, 100) n");
    let _node = node(&host, &["--slots", "100"]);
    let started = "SELECT count(*) FROM systole.executor_instances WHERE child_pid IS NOT NULL";
    eventually("a hundred commands", SOON, || (database.value(started) == "100").then_some(()));
    // All instances of a claim began at the same moment.
    let claims = database.sql("SELECT count(*) FROM systole.executor_instances GROUP BY started_at");
    assert!(claims.iter().all(|claim| claim[0].parse::<usize>().unwrap() <= 64), "{claims:?}");
    assert_eq!(database.value("SELECT count(*) FROM systole.run_events WHERE kind = 'crashed'"), "0");
}

#[test]
fn two_nodes_start_nothing_twice() {
    let database = Database::new();
    let (one, other) = (Systole::on(&database), Systole::on(&database));
    for n in 0..40 {
        submit(&one, &format!("r{n}"), &[], "true");
    }
    let mut nodes: Vec<_> = [&one, &other, &one]
        .map(|host| host.start(&["node", "--once", "--allow-submitted-commands", "--slots", "4"]))
        .into();
    nodes.iter_mut().for_each(|node| assert_eq!(node.code(SOON * 2), 0, "{}", node.errors()));
    assert_eq!(database.value("SELECT count(*) FROM systole.runs WHERE status = 'COMPLETED'"), "40");
    assert_eq!(database.value("SELECT count(*) FROM systole.executor_instances"), "40");
    let busy = database.value("SELECT count(DISTINCT executor_id) FROM systole.executor_instances");
    assert_ne!(busy, "1", "one node did everything");
}

#[test]
fn a_row_of_the_database_is_not_a_remote_shell() {
    let database = Database::new();
    let host = Systole::on(&database);
    std::fs::write(
        host.state.path().join("systole.toml"),
        "[commands.greet]\nargv = [\"sh\", \"-c\", \"echo hello $0 $1 > $2\", \"{run_id}\", \"{attempt}\", \"greeted\"]\n",
    )
    .unwrap();
    let cautious = host.start(&["node"]);
    cautious.wait_for_errors("starts greet", SOON);
    submit(&host, "evil", &[], "echo broken in > evil");
    assert_eq!(host.output(&["submit", "nice", "--command", "greet"]).status.code(), Some(0));
    assert_eq!(host.output(&["submit", "unheard-of", "--command", "other"]).status.code(), Some(0));
    becomes(&database, "nice", "COMPLETED");
    let greeted = std::fs::read_to_string(host.state.path().join("greeted")).unwrap();
    assert_eq!(greeted, "hello nice 1\n");
    for left in ["evil", "unheard-of"] {
        assert_eq!(database.value(&format!("SELECT status FROM systole.runs WHERE run_id = '{left}'")), "QUEUED");
    }
    // For a node that may.
    let _bold = node(&host, &[]);
    becomes(&database, "evil", "COMPLETED");
}

#[test]
fn labels_queues_and_limits_are_kept() {
    let database = Database::new();
    let host = Systole::on(&database);
    submit(&host, "gpu", &["--label", "gpu=yes"], "true");
    submit(&host, "mail", &["--queue", "mail"], "true");
    for n in 0..6 {
        submit(&host, &format!("few{n}"), &["--queue", "few"], "sleep 0.3");
    }
    assert_eq!(host.output(&["queues", "--limit", "few=2"]).status.code(), Some(0));
    let _plain = node(&host, &["--slots", "8", "--queue", "default", "--queue", "few", "--poll-interval", "100ms"]);
    eventually("all of the limited queue", SOON, || {
        let running =
            database.value("SELECT count(*) FROM systole.runs WHERE status = 'RUNNING' AND run_id LIKE 'few%'");
        assert!(["0", "1", "2"].contains(&running.as_str()), "{running} at once");
        (database.value("SELECT count(*) FROM systole.runs WHERE status = 'COMPLETED'") == "6").then_some(())
    });
    assert_eq!(database.value("SELECT count(*) FROM systole.runs WHERE status = 'QUEUED'"), "2", "gpu and mail");
    let _gpu = node(&host, &["--label", "gpu=yes", "--queue", "default", "--queue", "mail"]);
    becomes(&database, "gpu", "COMPLETED");
    becomes(&database, "mail", "COMPLETED");
}

#[test]
fn failures_are_retried_with_backoff_until_their_limit() {
    let database = Database::new();
    let host = Systole::on(&database);
    let _node = node(&host, &["--poll-interval", "100ms"]);
    submit(&host, "stubborn", &["--max-attempts", "3", "--backoff", "200ms"], "exit 7");
    submit(&host, "hopeless", &["--max-attempts", "3", "--no-retry", "9"], "exit 9");
    submit(&host, "slow", &["--timeout", "300ms"], "sleep 100");
    submit(&host, "stalled", &["--stall-timeout", "700ms"], "sleep 100");
    for run_id in ["stubborn", "hopeless", "slow", "stalled"] {
        becomes(&database, run_id, "FAILED");
    }
    assert_eq!(history(&database, "stubborn").iter().filter(|kind| *kind == "failed").count(), 3);
    assert_eq!(history(&database, "hopeless").iter().filter(|kind| *kind == "failed").count(), 1);
    assert_eq!(history(&database, "slow"), ["submitted", "claimed", "timed_out"]);
    assert_eq!(history(&database, "stalled"), ["submitted", "claimed", "timed_out"]);
    assert_eq!(host.output(&["retry", "hopeless"]).status.code(), Some(0));
    eventually("another attempt", SOON, || (history(&database, "hopeless").len() >= 6).then_some(()));
}

#[test]
fn what_is_for_later_waits() {
    let database = Database::new();
    let host = Systole::on(&database);
    let _node = node(&host, &["--poll-interval", "100ms"]);
    submit(&host, "later", &["--after", "1s"], "true");
    throughout("it waits", Duration::from_millis(700), || {
        database.value("SELECT status FROM systole.runs WHERE run_id = 'later'") == "QUEUED"
    });
    becomes(&database, "later", "COMPLETED");
}
