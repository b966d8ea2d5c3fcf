//! What the pages look like when people have called things what they like.

use serde_json::{Value, json};

use crate::Exporter;
use crate::support::{Database, Systole};

fn node(database: &Database, name: &str, host: &str, address: &str, labels: &str) {
    database.sql(&format!(
        "SELECT systole.node_beat(gen_random_uuid(), '1@{host}', '{host}', '0.1.0', '{{default}}', '{labels}', '{{}}', false, 4, 1,
                                  'ready', 30000, {name}, {address})"
    ));
}

#[test]
fn whatever_somebody_called_his_host_stays_between_its_quotes() {
    let database = Database::new();
    let hostile = "h\"} 1\nsystole_up 1\n# \\";
    node(&database, "NULL", hostile, "NULL", "{}");
    // A host may be called anything, as a certificate of death of it shows.
    database.sql(&format!("INSERT INTO systole.incidents (kind, host, cause) VALUES ('crash', '{hostile}', 'proof')"));
    let page = Exporter::start(&Systole::on(&database)).page();
    let escaped = r#"h\"} 1\nsystole_up 1\n# \\"#;
    for sample in [
        format!("systole_fleet_instance_crashes_total{{host=\"{escaped}\",cause=\"proof\"}} 1"),
        format!("systole_fleet_crashes_ringing{{host=\"{escaped}\"}} 1"),
        format!("systole_fleet_node_info{{node=\"{escaped}\",host=\"{escaped}\",version=\"0.1.0\"}} 1"),
    ] {
        assert!(page.0.lines().any(|line| line == sample), "{sample}\n{}", page.0);
    }
    assert!(
        page.0.lines().all(|line| line.starts_with("systole_fleet_")
            || line.starts_with("# HELP ")
            || line.starts_with("# TYPE "))
    );
}

#[test]
fn fifty_queues_have_a_name_and_the_rest_are_one() {
    let database = Database::new();
    database
        .sql("SELECT systole.submit('r' || n, argv => ARRAY['true'], queue => 'q' || n) FROM generate_series(1, 60) n");
    let page = Exporter::start(&Systole::on(&database)).page();
    let runs = |queue: &str| page.value(&format!("systole_fleet_runs{{queue=\"{queue}\",state=\"queued\"}}"));
    assert_eq!((runs("q1"), runs("q50"), runs("q51"), runs("_other")), (Some(1.0), Some(1.0), None, Some(10.0)));
    assert_eq!(page.family("systole_fleet_queue_paused").len(), 51);
    // All of a set are there from the start.
    assert_eq!(page.family("systole_fleet_takeovers_total").len(), 4);
    assert_eq!(page.family("systole_fleet_invariant_violations").len(), 3);
    assert_eq!(page.family("systole_fleet_nodes").len(), 4);
}

#[test]
fn several_nodes_of_one_name_are_one_with_the_worst_state() {
    let database = Database::new();
    database.pretend_old_server();
    node(&database, "'n'", "a", "NULL", "{}");
    node(&database, "'n'", "b", "NULL", "{}");
    database.sql("UPDATE systole.nodes SET last_heartbeat = last_heartbeat - interval '20 s', started_at = started_at - interval '1 h' WHERE host = 'b'");
    database.sql("UPDATE systole.nodes SET started_at = started_at - interval '1 h' WHERE host = 'a'");
    let page = Exporter::start(&Systole::on(&database)).page();
    let state = |state: &str| page.value(&format!("systole_fleet_node_state{{node=\"n\",state=\"{state}\"}}"));
    assert_eq!((state("stale"), state("live")), (Some(1.0), Some(0.0)), "{}", page.0);
    assert_eq!(page.value("systole_fleet_node_slots{node=\"n\"}"), Some(8.0));
    assert!(page.value("systole_fleet_node_heartbeat_age_seconds{node=\"n\"}") >= Some(20.0));
    assert_eq!(page.value("systole_fleet_nodes{state=\"live\"}"), Some(1.0));
}

/// One process that dies with all its runs is one; one that is process 1 of its container each time it dies is several.
#[test]
fn executors_that_died_lately_are_counted_and_not_their_runs() {
    let database = Database::new();
    for (host, executor, cause, minutes, runs) in [
        ("wide", "7@wide", "stale", 5, 16),
        ("wide", "8@wide", "forced", 5, 1),
        ("wide", "9@wide", "proof", 31, 1),
        ("looping", "1@looping", "proof", 25, 2),
        ("looping", "1@looping", "proof", 15, 2),
        ("looping", "1@looping", "proof", 5, 2),
        ("looping", "2@looping", "stale", 5, 1),
    ] {
        database.sql(&format!(
            "INSERT INTO systole.incidents (kind, host, cause, executor_id, at)
             SELECT 'crash', '{host}', '{cause}', '{executor}', date_trunc('minute', now()) - interval '{minutes} minutes' + n * interval '1 ms'
               FROM generate_series(1, {runs}) n"
        ));
    }
    let exporter = Exporter::start(&Systole::on(&database));
    let lately = |host: &str| exporter.page().value(&format!("systole_fleet_recent_crashes{{host=\"{host}\"}}"));
    assert_eq!((lately("wide"), lately("looping")), (Some(1.0), Some(4.0)), "{}", exporter.page().0);
    database.sql("SELECT systole.prune(NULL, 500)");
    let counted = "systole_fleet_instance_crashes_total{host=\"wide\",cause=\"stale\"}";
    exporter.becomes(counted, 16.0);
    assert_eq!((lately("wide"), lately("looping")), (Some(1.0), Some(4.0)), "they were put away too soon");
}

/// What is dead has no room for anybody.
#[test]
fn the_slots_of_the_dead_are_not_counted() {
    let database = Database::new();
    database.pretend_old_server();
    node(&database, "'lives'", "a", "NULL", "{}");
    node(&database, "'dead'", "b", "NULL", "{}");
    database.sql("UPDATE systole.nodes SET last_heartbeat = last_heartbeat - interval '31 s' WHERE host = 'b'");
    let page = Exporter::start(&Systole::on(&database)).page();
    for (name, slots, running) in [("lives", 4.0, 1.0), ("dead", 0.0, 0.0)] {
        let value = |of: &str| page.value(&format!("systole_fleet_node_{of}{{node=\"{name}\"}}"));
        assert_eq!((value("slots"), value("running")), (Some(slots), Some(running)), "{name}: {}", page.0);
    }
}

#[test]
fn prometheus_is_told_of_all_that_can_be_scraped_and_of_the_dead_for_an_hour() {
    let database = Database::new();
    database.pretend_old_server();
    node(&database, "'b'", "b", "'b:7070'", "{\"zone\": \"z\\\"1\", \"gpu\": \"yes\"}");
    node(&database, "'a'", "a", "'a:7070'", "{}");
    node(&database, "'dead'", "dead", "'dead:7070'", "{}");
    node(&database, "'older'", "o", "NULL", "{}");
    node(&database, "'here'", "here", "'127.0.0.1:7070'", "{}");
    node(&database, "'elsewhere'", "elsewhere", "'127.0.0.1:7070'", "{}");
    node(&database, "'long'", "long", "'long:7070'", "{}");
    let age = |name: &str, age: &str| {
        database.sql(&format!(
            "UPDATE systole.nodes SET last_heartbeat = last_heartbeat - interval '{age}' WHERE name = '{name}'"
        ));
    };
    age("dead", "59 minutes");
    age("long", "61 minutes");
    let (status, body) = Exporter::start(&Systole::on(&database).with("SYSTOLE_HOST", "here")).get("/sd");
    let groups: Value = serde_json::from_str(&body).unwrap();
    let expected = json!([
        {"targets": ["a:7070"], "labels": {"node": "a"}},
        {"targets": ["b:7070"], "labels": {"node": "b", "zone": "z\"1"}},
        {"targets": ["127.0.0.1:7070"], "labels": {"node": "here"}},
        {"targets": ["dead:7070"], "labels": {"node": "dead"}},
    ]);
    assert_eq!((status, groups), (200, expected));
}
