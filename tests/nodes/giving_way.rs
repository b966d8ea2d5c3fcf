//! Drain, halt, pause, cancel: nothing is lost, and nothing is counted as a crash.

use rustix::process::Signal;

use crate::support::probe::Mark;
use crate::support::terminal::Terminal;
use crate::support::{Database, Systole, eventually};
use crate::{SOON, becomes, history, node, submit};

#[test]
fn a_first_signal_drains_and_a_second_gives_everything_back() {
    let database = Database::new();
    let host = Systole::on(&database);
    let mut first = node(&host, &["--slots", "2"]);
    submit(&host, "short", &[], "sleep 1; echo done");
    submit(&host, "long", &[], "[ $SYSTOLE_ATTEMPT = 2 ] || sleep 100");
    becomes(&database, "long", "RUNNING");
    first.signal(Signal::TERM);
    first.wait_for_errors("draining", SOON);
    submit(&host, "next", &[], "true");
    becomes(&database, "short", "COMPLETED");
    assert_eq!(
        database.value("SELECT status FROM systole.runs WHERE run_id = 'next'"),
        "QUEUED",
        "it takes nothing more"
    );
    first.signal(Signal::TERM);
    assert_eq!(first.code(SOON), 0, "{}", first.errors());
    assert_eq!(history(&database, "long"), ["submitted", "claimed", "released"]);
    assert_eq!(
        database.value("SELECT status || crashes || failures FROM systole.runs WHERE run_id = 'long'"),
        "QUEUED00"
    );
    let _second = node(&host, &[]);
    becomes(&database, "long", "COMPLETED");
    becomes(&database, "next", "COMPLETED");
}

/// The keyboard speaks to the node: what it runs hears nothing of that.
#[test]
fn a_key_on_the_terminal_of_a_node_drains_it_and_reaches_no_run() {
    for level in ["pid_namespace", "subreaper"] {
        let database = Database::new();
        let host = Systole::on(&database).with("SYSTOLE_CONTAINMENT", level);
        let mut terminal = Terminal::start(&host.command(&["node", "--allow-submitted-commands"]));
        terminal.wait_for("ready: ");
        let go = host.state.path().join("go");
        let script = format!("trap 'exit 9' INT QUIT; until test -e {}; do sleep 0.05; done", go.display());
        submit(&host, "r", &[], &script);
        becomes(&database, "r", "RUNNING");
        terminal.wait_for("run \"r\" attempt 1 as");
        terminal.press("\x03");
        terminal.wait_for("draining");
        std::fs::write(&go, "").unwrap();
        assert_eq!(terminal.code(SOON), Some(0), "{}", terminal.screen());
        becomes(&database, "r", "COMPLETED");
    }
}

#[test]
fn a_node_is_drained_from_elsewhere_within_a_second() {
    let database = Database::new();
    let (host, elsewhere) = (Systole::on(&database), Systole::on(&database));
    let mut idle = node(&host, &[]);
    let name = database.value("SELECT executor_id FROM systole.nodes");
    assert_eq!(elsewhere.output(&["drain", "nobody@nowhere"]).status.code(), Some(64));
    let asked = std::time::Instant::now();
    assert_eq!(elsewhere.output(&["drain", &name]).status.code(), Some(0));
    assert_eq!(idle.code(SOON), 0);
    // The next heartbeat would be up to four seconds away.
    assert!(asked.elapsed().as_secs_f64() < 2.5, "{:?}", asked.elapsed());
    assert_eq!(database.value("SELECT state FROM systole.nodes"), "gone");
}

#[test]
fn a_node_is_drained_by_its_name_and_with_all_that_bear_it() {
    let database = Database::new();
    let host = Systole::on(&database);
    let _other = node(&host, &["--name", "other"]);
    let mut twins = [node(&host, &["--name", "twin"]), node(&host, &["--name", "twin"])];
    assert_eq!(host.output(&["drain", "twin"]).status.code(), Some(0));
    for twin in &mut twins {
        assert_eq!(twin.code(SOON), 0);
    }
    let states = database.sql("SELECT name || ' ' || state FROM systole.nodes ORDER BY 1");
    assert_eq!(states.concat(), ["other ready", "twin gone", "twin gone"]);
}

#[test]
fn a_paused_queue_starts_nothing_and_goes_on() {
    let database = Database::new();
    let host = Systole::on(&database);
    assert_eq!(host.output(&["pause"]).status.code(), Some(0));
    let _node = node(&host, &["--poll-interval", "100ms"]);
    submit(&host, "r", &[], "true");
    eventually("a few looks", SOON, || {
        let calls = "SELECT count(*) FROM systole.nodes WHERE last_heartbeat > started_at + interval '1 second'";
        (database.value(calls) == "1").then_some(())
    });
    assert_eq!(database.value("SELECT status FROM systole.runs"), "QUEUED");
    assert_eq!(host.output(&["resume"]).status.code(), Some(0));
    becomes(&database, "r", "COMPLETED");
}

#[test]
fn what_people_tell_the_fleet_stands_in_its_history_with_who_and_why() {
    let database = Database::new();
    let host = Systole::on(&database);
    let mut idle = node(&host, &[]);
    let name = database.value("SELECT executor_id FROM systole.nodes");
    let told: [&[&str]; 6] = [
        &["pause", "nightly", "--reason", "the disk is full\x1b[2J"],
        &["pause", "nightly"],
        &["resume", "nightly"],
        &["queues", "--limit", "nightly=3", "--reason", "one licence each"],
        &["drain", "nobody@nowhere"],
        &["drain", &name, "--reason", "a new kernel"],
    ];
    for words in told {
        host.output(words);
    }
    assert_eq!(idle.code(SOON), 0);
    // What changed nothing is no event.
    let output = host.output(&["events", "--json"]);
    let events: Vec<serde_json::Value> =
        String::from_utf8(output.stdout).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let said = |event: &serde_json::Value| {
        assert!(event["by"].as_str().is_some_and(|by| by.contains('@')), "{event}");
        let of = |key: &str| event[key].as_str().unwrap_or_default().to_owned();
        [of("kind"), of("subject"), of("reason")]
    };
    let expected = [
        ["paused", "nightly", "the disk is full\x1b[2J"],
        ["resumed", "nightly", ""],
        ["limited", "nightly", "one licence each"],
        ["drain_requested", &name, "a new kernel"],
    ];
    assert_eq!(events.iter().map(said).collect::<Vec<_>>(), expected);
    let plain = String::from_utf8(host.output(&["events"]).stdout).unwrap();
    assert!(plain.contains("running_max=3") && !plain.contains('\x1b'), "{plain}");

    submit(&host, "r", &[], "true");
    host.output(&["cancel", "r", "--reason", "a typo"]);
    let why = "SELECT detail->>'reason' FROM systole.run_events WHERE kind = 'cancelled'";
    assert_eq!(database.value(why), "a typo");
}

#[test]
fn a_restart_stops_the_run_and_starts_it_again() {
    let database = Database::new();
    let (host, elsewhere) = (Systole::on(&database), Systole::on(&database));
    let _node = node(&host, &[]);
    submit(&host, "r", &[], "[ $SYSTOLE_ATTEMPT = 2 ] || sleep 100");
    becomes(&database, "r", "RUNNING");
    assert_eq!(elsewhere.output(&["restart", "r"]).status.code(), Some(0));
    becomes(&database, "r", "COMPLETED");
    let told = ["submitted", "claimed", "restart_requested", "stop_requested", "cancelled", "claimed", "completed"];
    assert_eq!(history(&database, "r"), told);
    assert_eq!(elsewhere.output(&["run", "by-hand", "--", "true"]).status.code(), Some(0));
    let output = elsewhere.output(&["restart", "by-hand"]);
    assert!(
        output.status.code() == Some(64) && String::from_utf8_lossy(&output.stderr).contains("by hand"),
        "{output:?}"
    );
}

#[test]
fn a_restart_that_is_waited_for_comes_back_when_the_old_attempt_is_dead() {
    let database = Database::new();
    let elsewhere = Systole::on(&database);
    let host = Systole::on(&database).with("SYSTOLE_STOP_GRACE", "500ms");
    let _node = node(&host, &[]);
    let mark = Mark::new();
    let stubborn = "trap \"\" TERM; echo >started; while :; do sleep 0.05; done";
    let started = host.state.path().join("started");
    let script = format!(
        "[ $SYSTOLE_ATTEMPT = 2 ] && exit; cd '{}'; exec env {} sh -c '{stubborn}'",
        host.state.path().display(),
        mark.variable()
    );
    submit(&host, "r", &[], &script);
    eventually("the command", SOON, || started.exists().then_some(()));
    let output = elsewhere.output(&["restart", "r", "--wait"]);
    assert!(mark.living().is_empty(), "{output:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success() && text.contains("has ended: CANCELLED, exit code 137"), "{text}");
    becomes(&database, "r", "COMPLETED");
    // There is nothing to wait for, and it starts again.
    assert!(elsewhere.output(&["restart", "r", "--wait"]).status.success());
    let attempts = "SELECT (count(*) = 3)::text FROM systole.executor_instances";
    eventually("a third attempt", SOON, || (database.value(attempts) == "true").then_some(()));
}

#[test]
fn a_running_and_a_queued_run_are_cancelled_from_elsewhere() {
    let database = Database::new();
    let (host, elsewhere) = (Systole::on(&database), Systole::on(&database));
    let _node = node(&host, &[]);
    submit(&host, "running", &["--max-attempts", "5"], "sleep 100");
    becomes(&database, "running", "RUNNING");
    submit(&host, "waiting", &[], "true");
    for run_id in ["waiting", "running"] {
        assert_eq!(elsewhere.output(&["cancel", run_id]).status.code(), Some(0));
        becomes(&database, run_id, "CANCELLED");
    }
    assert_eq!(history(&database, "running"), ["submitted", "claimed", "stop_requested", "cancelled"]);
    assert_eq!(elsewhere.output(&["cancel", "never"]).status.code(), Some(64));
}

/// Whoever has room hears of it: their next look would be a minute away.
#[test]
fn what_is_given_back_is_started_elsewhere_at_once() {
    let database = Database::new();
    let (host, elsewhere) = (Systole::on(&database), Systole::on(&database));
    let mut first = node(&host, &[]);
    submit(&host, "halted", &[], "[ $SYSTOLE_ATTEMPT = 2 ] || sleep 100");
    becomes(&database, "halted", "RUNNING");
    let _second = node(&elsewhere, &["--poll-interval", "1m"]);
    first.signal(Signal::TERM);
    first.wait_for_errors("draining", SOON);
    let given_back = std::time::Instant::now();
    first.signal(Signal::TERM);
    assert_eq!(first.code(SOON), 0, "{}", first.errors());
    becomes(&database, "halted", "COMPLETED");
    assert!(given_back.elapsed().as_secs() < 10, "{:?}", given_back.elapsed());
}

/// PostgreSQL is away, and somebody wants the machine back: nothing is lost, and the exit code says that something is left.
#[test]
fn a_third_signal_ends_the_wait_for_the_database_and_leaves_certificates() {
    let (database, mut server) = Database::on_own_server();
    let host = Systole::on(&database);
    let mut first = node(&host, &["--slots", "2"]);
    submit(
        &host,
        "stubborn",
        &[],
        "[ $SYSTOLE_ATTEMPT = 2 ] || { trap '' TERM; echo begun; while :; do sleep 0.1; done; }",
    );
    submit(&host, "gentle", &[], "[ $SYSTOLE_ATTEMPT = 2 ] || { echo begun; exec sleep 100; }");
    // Granted is not begun: without an acknowledged heartbeat there is no command yet, and no end of one.
    for run in ["stubborn", "gentle"] {
        eventually(format!("{run} has begun"), SOON, || {
            String::from_utf8_lossy(&host.output(&["logs", run]).stdout).contains("begun").then_some(())
        });
    }
    server.crash();
    first.signal(Signal::TERM);
    first.wait_for_errors("draining", SOON);
    first.signal(Signal::INT);
    first.wait_for_errors("a second signal", SOON);
    first.signal(Signal::TERM);
    assert_eq!(first.code(SOON), 69, "{}", first.errors());
    assert!(first.errors().contains("2 runs could not be recorded"), "{}", first.errors());
    server.start();
    let _second = node(&host, &["--slots", "2"]);
    for run in ["stubborn", "gentle"] {
        becomes(&database, run, "COMPLETED");
        let expected = ["submitted", "claimed", "released", "claimed", "completed"];
        assert_eq!(history(&database, run), expected, "no crash, although nobody heard of it at the time");
    }
}
