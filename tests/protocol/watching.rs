//! What the fleet says of itself: nothing that happened goes uncounted or is counted twice, nobody waits for the counting, and a
//! look costs what there is to see.

use serde_json::{Value, json};
use uuid::Uuid;

use crate::asking::{Ask, Session, all, database};
use crate::support::Database;

const SECRET: &[u8] = b"known to the guard alone";

fn snapshot(database: &Database) -> Value {
    serde_json::from_str(&database.value("SELECT systole.fleet_snapshot()")).unwrap()
}

/// Crashes by host and cause, as the snapshot has them.
fn crashes(database: &Database) -> Vec<(String, String, u64)> {
    let snapshot = snapshot(database);
    let row = |row: &Value| {
        let text = |key: &str| row[key].as_str().unwrap().to_owned();
        (text("host"), text("cause"), row["count"].as_u64().unwrap())
    };
    let mut rows: Vec<_> = snapshot["crashes"].as_array().unwrap().iter().map(row).collect();
    rows.sort();
    rows
}

fn crash(host: &str, cause: &str, count: u64) -> (String, String, u64) {
    (host.to_owned(), cause.to_owned(), count)
}

/// A node of this name, silent for so long, of 30 seconds that it may be.
fn node(database: &Database, name: &str, host: &str, state: &str, silent: f64) -> Uuid {
    let id = Uuid::now_v7();
    database.sql(&format!(
        "SELECT systole.node_beat('{id}', '1@{host}', '{host}', '0.1.0', '{{default}}', '{{\"zone\": \"z\"}}', '{{}}', false, 4, 1,
                                  '{state}', 30000, '{name}', '{host}:7070');
         UPDATE systole.nodes SET started_at = last_heartbeat - interval '1 day' WHERE node_id = '{id}';
         UPDATE systole.nodes SET started_at = started_at - interval '{silent} s', last_heartbeat = last_heartbeat - interval '{silent} s'
          WHERE node_id = '{id}'"
    ));
    id
}

fn states(database: &Database) -> Vec<String> {
    let snapshot = snapshot(database);
    let nodes = snapshot["nodes"].as_array().unwrap();
    nodes.iter().map(|node| format!("{} {}", node["name"].as_str().unwrap(), node["state"].as_str().unwrap())).collect()
}

fn forget(database: &Database, subject: &str) -> String {
    database.sql(&format!("SELECT verdict, acknowledged, removed FROM systole.forget('{subject}', 'me', 'known')"))[0]
        .join(" ")
}

#[tokio::test]
async fn each_crash_takeover_and_refusal_is_counted_once_whoever_declares_it_and_before_and_after_it_is_put_away() {
    let database = database();
    let session = Session::on(&database).await;
    // By age, by whoever takes over; by its own word; by its certificate; by force; and by a sweep.
    session.claim(&Ask { host: "a", ..Ask::of("aged") }).await.granted();
    database.age_heartbeat("aged", 31.0);
    session.claim(&Ask { host: "b", ..Ask::of("aged") }).await.granted();
    let told = session.claim(&Ask { host: "b", ..Ask::of("told") }).await.granted();
    assert_eq!(session.finish(told, "CRASHED", None).await, "ok");
    assert_eq!(session.finish(told, "CRASHED", None).await, "ok", "said again");
    let filed = session.claim(&Ask { host: "c\"\n", secret: Some(SECRET), ..Ask::of("filed") }).await.granted();
    assert_eq!(session.file(filed.instance, Some(SECRET), "CRASHED", None).await, "ok");
    assert_eq!(session.file(filed.instance, Some(SECRET), "CRASHED", None).await, "already");
    session.claim(&Ask { host: "d", ..Ask::of("forced") }).await.granted();
    database.sql("SELECT systole.take_away('forced', 'me', true)");
    session.claim(&Ask { host: "a", ..Ask::of("swept") }).await.granted();
    database.age_heartbeat("swept", 31.0);
    database.sql("SELECT systole.reap('x', '-infinity', NULL, 0, 50)");
    // One that is refused and noted, one that only waits; one that ended as it should.
    let refused = Ask { host: "e", ..Ask::of("aged") };
    assert_eq!(session.claim(&Ask { note_refusal: true, ..refused.clone() }).await.said(), "held/fresh");
    assert_eq!(session.claim(&refused).await.said(), "held/fresh");
    let ended = session.claim(&Ask::of("ended")).await.granted();
    assert_eq!(session.finish(ended, "COMPLETED", Some(0)).await, "ok");
    // Taken up from the queue.
    database.sql(
        "SELECT systole.submit('queued', command => 'c');
         SELECT systole.claim_queued('{default}', '{}', '{c}', false, ARRAY[gen_random_uuid()], ARRAY[NULL]::bytea[], '1@a', 'a', 1,
                                     NULL, NULL, NULL, 'none', 30000, '1000.0.0')",
    );
    database.age_heartbeat("queued", 31.0);
    database.sql(
        "UPDATE systole.takeover_brake SET swept_at = '-infinity';
         SELECT systole.reap('x', '-infinity', NULL, 0, 50);
         SELECT systole.claim_queued('{default}', '{}', '{c}', false, ARRAY[gen_random_uuid()], ARRAY[NULL]::bytea[], '1@a', 'a', 1,
                                     NULL, NULL, NULL, 'none', 30000, '1000.0.0')",
    );

    let expected =
        [crash("a", "stale", 3), crash("b", "guard_lost", 1), crash("c\"\n", "proof", 1), crash("d", "forced", 1)];
    let other = |database: &Database| {
        let snapshot = snapshot(database);
        (snapshot["takeovers"].clone(), snapshot["duplicates_refused"].clone())
    };
    let others = (json!({"stale": 2}), json!(1));
    assert_eq!((crashes(&database), other(&database)), (expected.to_vec(), others.clone()));
    // The young ones stay, so that they ring. Then they are put away, twice.
    for age in ["0", "31 minutes", "41 minutes", "41 minutes"] {
        database
            .sql(&format!("UPDATE systole.incidents SET at = at - interval '{age}'; SELECT systole.prune(NULL, 500)"));
        assert_eq!((crashes(&database), other(&database)), (expected.to_vec(), others.clone()));
    }
    assert_eq!(database.value("SELECT count(*) FROM systole.incidents"), "0");
    // They are numbers, and the next ones are added to them.
    session.claim(&Ask { host: "d", ..Ask::of("again") }).await.granted();
    database.sql("SELECT systole.take_away('again', 'me', true)");
    assert!(crashes(&database).contains(&crash("d", "forced", 2)));
}

/// Tomorrow's start of what has crashed today, and one that somebody has asked for, are new beginnings.
#[tokio::test]
async fn a_new_beginning_behind_a_crash_is_no_takeover() {
    let database = database();
    let session = Session::on(&database).await;
    let takeovers = || snapshot(&database)["takeovers"].clone();
    let said = |run: &str| {
        database.value(&format!(
            "SELECT coalesce(detail->>'afresh', 'no') || ' ' || (detail->>'predecessor_cause') FROM systole.run_events
              WHERE kind = 'claimed' AND run_id = '{run}' ORDER BY id DESC LIMIT 1"
        ))
    };
    // By hand: at once, or by whoever waited; and a day later.
    for (run, ago, expected) in [("waited", "59 s", "no guard_lost"), ("nightly", "61 s", "true guard_lost")] {
        let crashed = session.claim(&Ask::of(run)).await.granted();
        assert_eq!(session.finish(crashed, "CRASHED", None).await, "ok");
        database.sql(&format!(
            "UPDATE systole.executor_instances SET ended_at = clock_timestamp() - interval '{ago}' WHERE run_id = '{run}'"
        ));
        session.claim(&Ask::of(run)).await.granted();
        assert_eq!(said(run), expected);
    }
    assert_eq!(takeovers(), json!({"guard_lost": 1}));
    // Nobody had looked at it for a day: whoever does takes over.
    session.claim(&Ask::of("silent")).await.granted();
    database.age_heartbeat("silent", 86400.0);
    session.claim(&Ask::of("silent")).await.granted();
    assert_eq!((said("silent"), takeovers()), ("no stale".to_owned(), json!({"guard_lost": 1, "stale": 1})));

    // From the queue: however long it has waited for a slot, until it is given up, and somebody wants it again.
    let claim = "SELECT predecessor->>'afresh' FROM systole.claim_queued('{default}', '{}', '{c}', false, ARRAY[gen_random_uuid()],
                     ARRAY[NULL]::bytea[], '1@a', 'a', 1, NULL, NULL, NULL, 'none', 30000, '1000.0.0')";
    let crash = || {
        database.age_heartbeat("queued", 31.0);
        database.sql(
            "UPDATE systole.takeover_brake SET swept_at = '-infinity'; SELECT systole.reap('x', '-infinity', NULL, 0, 50);
             UPDATE systole.executor_instances SET ended_at = ended_at - interval '1 day' WHERE status = 'CRASHED'",
        );
    };
    database.sql("SELECT systole.submit('queued', command => 'c', crashes_max => 2)");
    database.sql(claim);
    crash();
    assert_eq!((database.value(claim), said("queued")), ("false".to_owned(), "no stale".to_owned()));
    crash();
    assert_eq!(database.value("SELECT verdict FROM systole.retry('queued', 'me')"), "ok");
    assert_eq!((database.value(claim), said("queued")), ("true".to_owned(), "true stale".to_owned()));
    assert_eq!(takeovers(), json!({"guard_lost": 1, "stale": 2}));
}

#[tokio::test]
async fn nobody_who_declares_a_death_waits_for_another_or_for_the_counting_and_no_heartbeat_waits_for_either() {
    let database = database();
    let session = Session::on(&database).await;
    for run in ["one", "two", "three", "lives"] {
        session.claim(&Ask::of(run)).await.granted();
    }
    let lives =
        database.value("SELECT instance_id FROM systole.executor_instances WHERE run_id = 'lives'").parse().unwrap();
    database
        .sql("SELECT systole.take_away('three', 'me', true); UPDATE systole.incidents SET at = at - interval '1 hour'");
    let (first, counting) = (Session::on(&database).await, Session::on(&database).await);
    first.batch_execute("BEGIN; SELECT systole.take_away('one', 'me', true)").await.unwrap();
    counting.batch_execute("BEGIN; SELECT systole.count_incidents(100)").await.unwrap();
    // Any wait for a lock would be an error here.
    session.batch_execute("SET lock_timeout = '1ms'").await.unwrap();
    session
        .batch_execute("SELECT systole.take_away('two', 'me', true); SELECT systole.count_incidents(100)")
        .await
        .unwrap();
    assert_eq!(session.beat(&[lives]).await, ["ok"]);
    assert_eq!(crashes(&database), [crash("a", "forced", 2)], "that of the first is not committed");
    first.batch_execute("COMMIT").await.unwrap();
    counting.batch_execute("COMMIT").await.unwrap();
    assert_eq!(crashes(&database), [crash("a", "forced", 3)]);
}

/// Where there are no nodes, nobody prunes: whoever is refused puts away what has gathered.
#[tokio::test]
async fn a_thousand_refusals_at_once_are_a_thousand_and_do_not_pile_up() {
    let database = database();
    Session::on(&database).await.claim(&Ask::of("held")).await.granted();
    let refuse = async |session: std::sync::Arc<Session>| {
        for _ in 0..250 {
            let ask = Ask { note_refusal: true, ..Ask::of("held") };
            assert_eq!(session.claim(&ask).await.said(), "held/fresh");
        }
    };
    let mut sessions = Vec::new();
    for _ in 0..4 {
        sessions.push(Session::on(&database).await);
    }
    all(sessions.into_iter().map(refuse)).await;
    assert_eq!(snapshot(&database)["duplicates_refused"], 1000);
    let left: u32 = database.value("SELECT count(*) FROM systole.incidents").parse().unwrap();
    assert!(left < 1000, "nothing was put away");
}

#[tokio::test]
async fn a_crash_rings_for_a_quarter_of_an_hour_or_until_somebody_knows_of_it_and_a_forced_one_never() {
    let database = database();
    let session = Session::on(&database).await;
    let ringing = |database: &Database| snapshot(database)["ringing"].clone();
    for (run, host) in [("p", "a"), ("q", "a"), ("r", "b"), ("s", "b")] {
        session.claim(&Ask { host, ..Ask::of(run) }).await.granted();
        if run != "s" {
            database.age_heartbeat(run, 31.0);
        }
    }
    database.sql("SELECT systole.take_away('s', 'me', true); SELECT systole.reap('x', '-infinity', NULL, 0, 50)");
    let both = ringing(&database);
    let of =
        |host: &str| both.as_array().unwrap().iter().find(|row| row["host"] == host).map(|row| row["count"].clone());
    assert_eq!((of("a"), of("b")), (Some(json!(1)), Some(json!(1))), "executors, not their runs: {both}");
    assert_eq!(forget(&database, "a"), "ok 2 {}");
    assert_eq!(ringing(&database), json!([{"host": "b", "count": 1}]));
    assert_eq!(forget(&database, "a"), "unknown 0 {}", "there is nothing left to know");
    database.sql("UPDATE systole.incidents SET at = at - interval '15 minutes'");
    assert_eq!(ringing(&database), json!([]));
    assert_eq!(crashes(&database).iter().map(|crash| crash.2).sum::<u64>(), 4, "what is known is still counted");
}

#[test]
fn a_node_is_what_its_silence_and_its_own_word_say() {
    let database = database();
    for (name, state, silent) in [
        ("fresh", "ready", 14.0),
        ("quiet", "ready", 16.0),
        ("dead", "ready", 31.0),
        ("leaving", "draining", 1.0),
        ("left", "gone", 1.0),
        ("long-dead", "ready", 3601.0),
    ] {
        node(&database, name, name, state, silent);
    }
    // One that was started anew takes the place of the dead; two beside each other are two.
    node(&database, "back", "h", "ready", 300.0);
    database.sql("UPDATE systole.nodes SET started_at = last_heartbeat - interval '1 hour' WHERE name = 'back'");
    let second = node(&database, "back", "h", "ready", 0.0);
    database.sql(&format!(
        "UPDATE systole.nodes SET started_at = last_heartbeat - interval '1 minute' WHERE node_id = '{second}'"
    ));
    let expected = ["back live", "dead crashed", "fresh live", "leaving draining", "quiet stale"];
    assert_eq!(states(&database), expected);
    database.sql(&format!(
        "UPDATE systole.nodes SET started_at = last_heartbeat - interval '1 hour' WHERE node_id = '{second}'"
    ));
    assert_eq!(states(&database)[..2], ["back crashed", "back live"]);
    let snapshot = snapshot(&database);
    assert_eq!(
        (&snapshot["nodes"][3]["http_address"], &snapshot["nodes"][3]["zone"]),
        (&json!("fresh:7070"), &json!("z"))
    );
}

/// After the server was away nobody can have been heard: they are not all dead in the second in which it comes back.
#[tokio::test]
async fn silence_from_before_the_server_took_heartbeats_is_nobodys_fault() {
    let database = database();
    node(&database, "n", "n", "ready", 60.0);
    Session::on(&database).await.claim(&Ask::of("r")).await.granted();
    database.age_heartbeat("r", 60.0);
    assert_eq!((states(&database), &snapshot(&database)["instances_stale"]), (vec!["n crashed".to_owned()], &json!(1)));
    database.sql(
        "CREATE OR REPLACE FUNCTION systole.rw_since() RETURNS timestamptz LANGUAGE sql STABLE SECURITY DEFINER
         AS $$ SELECT clock_timestamp() - interval '1 second' $$",
    );
    assert_eq!((states(&database), &snapshot(&database)["instances_stale"]), (vec!["n live".to_owned()], &json!(0)));
}

#[test]
fn what_is_dead_can_be_forgotten_and_what_is_here_cannot() {
    let database = database();
    node(&database, "one", "h", "ready", 0.0);
    assert_eq!(forget(&database, "one"), "alive 0 {}");
    assert_eq!(forget(&database, "nobody"), "unknown 0 {}");
    let dead = node(&database, "two", "h", "ready", 31.0);
    // By its host, by its name, and by what people call it there: the living stay.
    for subject in ["h", "two", "1@h"] {
        assert_eq!(states(&database), ["one live", "two crashed"]);
        assert_eq!(forget(&database, subject), "ok 0 {1@h}");
        assert_eq!(states(&database), ["one live"]);
        node(&database, "two", "h", "ready", 31.0);
    }
    let events = "SELECT kind, subject, by, reason, detail->>'nodes' FROM systole.fleet_events ORDER BY id LIMIT 1";
    assert_eq!(database.sql(events)[0], ["forgotten", "h", "me", "known", "[\"1@h\"]"]);
    assert_eq!(database.value("SELECT count(*) FROM systole.fleet_events"), "3", "a refusal is no event");
    // One that comes back is there again.
    database.sql(&format!(
        "SELECT systole.node_beat('{dead}', '1@h', 'h', '0.1.0', '{{}}', '{{}}', '{{}}', false, 4, 1, 'ready', 30000, 'two')"
    ));
    assert!(states(&database).contains(&"two live".to_owned()));
}

/// A node of before there were names.
#[test]
fn an_older_node_registers_as_it_always_did_and_goes_by_its_host() {
    let database = database();
    let beat =
        "SELECT systole.node_beat($1, '1@old', 'old', '0.1.0', '{default}', '{}', '{}', false, 4, 1, 'ready', 30000)";
    for _ in 0..2 {
        database.sql(&beat.replace("$1", "'018f0000-0000-7000-8000-000000000000'"));
    }
    assert_eq!(states(&database), ["old live"]);
    assert_eq!(snapshot(&database)["nodes"][0]["http_address"], Value::Null);
}
