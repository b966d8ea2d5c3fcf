//! A process that has died cannot count itself: that it is counted nevertheless, once, and by what it died of.

use rustix::process::{Signal, kill_process};

use crate::support::process::guard_of;
use crate::support::{Database, Systole, eventually};
use crate::{Exporter, SOON};

fn crashes(host: &str, cause: &str) -> String {
    format!("systole_fleet_instance_crashes_total{{host=\"{host}\",cause=\"{cause}\"}}")
}

/// Dead and taken over before anybody has looked.
#[test]
fn a_crash_that_is_shorter_than_a_scrape_is_counted_and_rings_until_it_is_known() {
    let database = Database::new();
    let host = Systole::on(&database).with("SYSTOLE_HOST", "cron1");
    let first = host.start_run("r", "sleep 100");
    let exporter = Exporter::start(&host);
    // The host is there before it has crashed, so that a rate sees the first one.
    exporter.becomes(&crashes("cron1", "proof"), 0.0);
    first.signal(Signal::KILL);
    assert_eq!(host.output(&["run", "r", "--wait", "--", "true"]).status.code(), Some(0));
    exporter.becomes(&crashes("cron1", "proof"), 1.0);
    let page = exporter.page();
    assert_eq!(page.value("systole_fleet_takeovers_total{cause=\"proof\"}"), Some(1.0), "{}", page.0);
    assert_eq!(page.value("systole_fleet_crashes_ringing{host=\"cron1\"}"), Some(1.0));
    assert_eq!(page.value("systole_fleet_recent_ends{status=\"crashed\"}"), Some(1.0));
    assert_eq!(page.value("systole_fleet_recent_ends{status=\"completed\"}"), Some(1.0));

    let said = host.output(&["forget", "cron1", "--reason", "a test"]);
    assert_eq!(String::from_utf8_lossy(&said.stdout), "1 crash of cron1 acknowledged\n", "{said:?}");
    exporter.becomes("systole_fleet_crashes_ringing{host=\"cron1\"}", 0.0);
    assert_eq!(exporter.page().value(&crashes("cron1", "proof")), Some(1.0), "it is known, and was one");
    let again = host.output(&["forget", "cron1"]);
    assert_eq!(again.status.code(), Some(64));
    assert!(String::from_utf8_lossy(&again.stderr).contains("systole nodes and systole status list them"), "{again:?}");
    let events = String::from_utf8(host.output(&["events"]).stdout).unwrap();
    assert!(events.contains("forgotten") && events.contains("cron1") && events.contains("reason=a test"), "{events}");
}

/// Supervisor and guard killed together, and nobody of that host left to find out: only its silence tells.
#[test]
fn a_run_that_falls_silent_is_stale_first_and_then_a_crash() {
    let database = Database::new();
    database.pretend_old_server();
    let dying = Systole::on(&database).fast().with("SYSTOLE_HOST", "cron2");
    let watching = Systole::on(&database).fast().with("SYSTOLE_HOST", "watcher");
    let exporter = Exporter::start(&watching);
    let first = dying.start_run("r", "sleep 100");
    exporter.becomes("systole_fleet_runs{queue=\"_by_hand\",state=\"running\"}", 1.0);
    let guard = guard_of(first.pid());
    first.signal(Signal::STOP);
    kill_process(guard, Signal::KILL).unwrap();
    first.signal(Signal::KILL);
    exporter.becomes("systole_fleet_runs{queue=\"_by_hand\",state=\"stale\"}", 1.0);
    let page = exporter.page();
    let worst = page.family("systole_fleet_stale_run_age_seconds");
    assert!(worst[0].contains("{run=\"r\",queue=\"_by_hand\",host=\"cron2\"}"), "{}", page.0);
    let _node = watching.start(&["node"]);
    exporter.becomes(&crashes("cron2", "stale"), 1.0);
    exporter.becomes("systole_fleet_instances{state=\"stale\"}", 0.0);
}

#[test]
fn the_runs_of_a_node_that_is_killed_are_crashes_of_its_host_and_the_node_is_one_that_has_crashed() {
    let database = Database::new();
    let host = |name: &str| Systole::on(&database).fast().with("SYSTOLE_HOST", name);
    let (one, other) = (host("h1"), host("h2"));
    let start = |host: &Systole, name: &str| {
        let node = host.start(&["node", "--allow-submitted-commands", "--slots", "4", "--name", name]);
        node.wait_for_errors("ready: ", SOON);
        node
    };
    let victim = start(&one, "alpha");
    for run in ["a", "b"] {
        let submitted = one.output(&["submit", run, "--", "sh", "-c", "[ $SYSTOLE_ATTEMPT = 2 ] || sleep 100"]);
        assert_eq!(submitted.status.code(), Some(0), "{submitted:?}");
    }
    let started = "SELECT count(child_pid) FROM systole.executor_instances";
    eventually("two commands", SOON, || (database.value(started) == "2").then_some(()));
    let exporter = Exporter::start(&other);
    exporter.becomes("systole_fleet_node_state{node=\"alpha\",state=\"live\"}", 1.0);
    exporter.becomes("systole_fleet_runs{queue=\"default\",state=\"running\"}", 2.0);
    victim.signal(Signal::KILL);
    // Another node of that host knows by their certificates.
    let _second = start(&one, "beta");
    exporter.becomes(&crashes("h1", "proof"), 2.0);
    exporter.becomes("systole_fleet_takeovers_total{cause=\"proof\"}", 2.0);
    exporter.becomes("systole_fleet_node_state{node=\"alpha\",state=\"crashed\"}", 1.0);
    let page = exporter.page();
    assert_eq!(page.value("systole_fleet_crashes_ringing{host=\"h1\"}"), Some(1.0), "one process: {}", page.0);
    assert_eq!(page.value("systole_fleet_nodes{state=\"live\"}"), Some(1.0), "{}", page.0);
    assert_eq!(page.value("systole_fleet_node_info{node=\"alpha\",host=\"h1\",version=\"0.1.0\"}"), Some(1.0));

    let alive = one.output(&["forget", "beta"]);
    assert_eq!(alive.status.code(), Some(64));
    assert!(String::from_utf8_lossy(&alive.stderr).contains("is here"), "{alive:?}");
    let said = one.output(&["forget", "alpha"]);
    let expected = format!("2 crashes of alpha acknowledged, and forgot {}@h1\n", victim.pid().as_raw_pid());
    assert_eq!(String::from_utf8_lossy(&said.stdout), expected, "{said:?}");
    exporter.becomes("systole_fleet_crashes_ringing{host=\"h1\"}", 0.0);
    assert!(exporter.page().family("systole_fleet_node_state").iter().all(|line| !line.contains("alpha")));
    let named = one.output(&["nodes"]);
    let named = String::from_utf8_lossy(&named.stdout).into_owned();
    assert!(named.contains("beta") && !named.contains("alpha"), "{named}");
}

/// Nobody wants to mend it: it rings until somebody says so, and stays in the history.
#[test]
fn a_run_that_was_given_up_rings_until_it_is_known() {
    let database = Database::new();
    database.pretend_old_server();
    let host = Systole::on(&database);
    let exporter = Exporter::start(&host);
    database.sql(
        "SELECT systole.submit('p', command => 'c', crashes_max => 1);
         SELECT systole.claim_queued('{default}', '{}', '{c}', false, ARRAY[gen_random_uuid()], ARRAY[NULL]::bytea[], '1@h', 'h', 1,
                                     NULL, NULL, NULL, 'none', 30000, '1000.0.0')",
    );
    let early = host.output(&["forget", "p"]);
    assert_eq!(early.status.code(), Some(64), "{early:?}");
    database.age_heartbeat("p", 31.0);
    database.sql("SELECT systole.reap('x', '-infinity', NULL, 0, 50)");
    let poison = "systole_fleet_runs{queue=\"default\",state=\"poison\"}";
    exporter.becomes(poison, 1.0);
    let said = host.output(&["forget", "p", "--reason", "nobody wants it"]);
    assert_eq!(String::from_utf8_lossy(&said.stdout), "it is known that run p was given up\n", "{said:?}");
    exporter.becomes(poison, 0.0);
    assert_eq!(host.output(&["forget", "p"]).status.code(), Some(64), "it was known");
    assert_eq!(database.value("SELECT status FROM systole.runs"), "FAILED");
    let events = String::from_utf8(host.output(&["events"]).stdout).unwrap();
    assert!(events.contains("forgotten") && events.contains("reason=nobody wants it"), "{events}");
    // One that is given up again rings again.
    database.sql(
        "SELECT systole.retry('p', 'me');
         SELECT systole.claim_queued('{default}', '{}', '{c}', false, ARRAY[gen_random_uuid()], ARRAY[NULL]::bytea[], '1@h', 'h', 1,
                                     NULL, NULL, NULL, 'none', 30000, '1000.0.0')",
    );
    database.age_heartbeat("p", 31.0);
    database.sql(
        "UPDATE systole.takeover_brake SET swept_at = '-infinity'; SELECT systole.reap('x', '-infinity', NULL, 0, 50)",
    );
    exporter.becomes(poison, 1.0);
}
