//! A look at the whole fleet: what it counts, what it finds wrong, and what it reads.

use serde_json::{Value, json};

use crate::asking::{Ask, Session, database};
use crate::support::Database;

fn snapshot(database: &Database) -> Value {
    serde_json::from_str(&database.value("SELECT systole.fleet_snapshot()")).unwrap()
}

/// Queues a run, and has an executor of this host claim it.
fn work(database: &Database, run: &str, queue: &str, host: &str) {
    database.sql(&format!(
        "SELECT systole.submit('{run}', command => 'c', queue => '{queue}', crashes_max => 1);
         SELECT systole.claim_queued('{{{queue}}}', '{{}}', '{{c}}', false, ARRAY[gen_random_uuid()], ARRAY[NULL]::bytea[], '1@{host}',
                                     '{host}', 1, NULL, NULL, NULL, 'none', 30000, '1000.0.0')"
    ));
}

fn sweep(database: &Database) {
    database.sql(
        "UPDATE systole.takeover_brake SET swept_at = '-infinity'; SELECT systole.reap('x', '-infinity', NULL, 0, 50)",
    );
}

#[tokio::test]
async fn runs_are_counted_by_their_queue_and_state() {
    let database = database();
    database.sql(
        "SELECT systole.submit('w' || n, command => 'c', queue => 'waiting') FROM generate_series(1, 3) n;
         SELECT systole.submit('l' || n, command => 'c', queue => 'waiting', after => '1 hour') FROM generate_series(1, 2) n;
         SELECT systole.submit('d', command => 'c', queue => 'waiting', after => '1 hour');
         UPDATE systole.runs SET available_at = clock_timestamp() - interval '90 s' WHERE run_id = 'd';
         SELECT systole.pause('waiting'); SELECT systole.pause('never-used')",
    );
    work(&database, "r", "working", "a");
    work(&database, "s", "working", "b");
    work(&database, "p", "working", "c");
    let session = Session::on(&database).await;
    session.claim(&Ask::of("hand")).await.granted();
    database.age_heartbeat("p", 31.0);
    sweep(&database);
    database.age_heartbeat("s", 40.0);
    let looked = snapshot(&database);
    let queue = |name: &str| {
        let queues = looked["queues"].as_array().unwrap();
        let queue = queues.iter().find(|queue| queue["queue"] == name).unwrap_or_else(|| panic!("{looked}"));
        let counts = ["queued", "delayed", "running", "stale", "poison"].map(|key| queue[key].as_u64().unwrap());
        (counts, queue["paused"].as_bool().unwrap(), queue["oldest_seconds"].as_f64().unwrap())
    };
    // What has come due, and was not moved on by anybody yet, waits.
    let (counts, paused, oldest) = queue("waiting");
    assert_eq!((counts, paused), ([4, 2, 0, 0, 0], true));
    assert!((90.0..120.0).contains(&oldest), "{oldest}");
    assert_eq!(queue("working"), ([0, 0, 1, 1, 1], false, 0.0));
    assert_eq!(queue("never-used"), ([0; 5], true, 0.0));
    assert_eq!(looked["by_hand"], json!({"running": 1, "stale": 0}));
    assert_eq!((&looked["instances_live"], &looked["instances_stale"]), (&json!(2), &json!(1)));
    let worst = &looked["stale_runs"][0];
    assert_eq!((&worst["run"], &worst["queue"], &worst["host"]), (&json!("s"), &json!("working"), &json!("b")));
    assert_eq!(looked["ends"], json!({"CRASHED": 1}));
    // What was given up and is queued again is poison no more.
    database.sql("SELECT systole.retry('p', 'me')");
    let after = snapshot(&database);
    assert_eq!(after["queues"][1]["poison"], 0, "{after}");
}

#[tokio::test]
async fn what_has_ended_lately_is_told_with_how_long_it_took() {
    let database = database();
    let session = Session::on(&database).await;
    for n in 1..=20 {
        let run = format!("r{n}");
        let tenure = session.claim(&Ask::of(&run)).await.granted();
        let status = if n % 4 == 0 { "FAILED" } else { "COMPLETED" };
        assert_eq!(session.finish(tenure, status, Some(0)).await, "ok");
        database.sql(&format!(
            "UPDATE systole.executor_instances SET started_at = ended_at - interval '{n} s' WHERE run_id = '{run}'"
        ));
    }
    let looked = snapshot(&database);
    assert_eq!(looked["ends"], json!({"COMPLETED": 15, "FAILED": 5}));
    assert_eq!(looked["run_seconds"], json!([10, 19, 20]));
    database.sql("UPDATE systole.run_events SET at = at - interval '5 minutes'");
    let looked = snapshot(&database);
    assert_eq!((&looked["ends"], &looked["run_seconds"]), (&json!({}), &Value::Null));
}

/// Each promise broken by hand, as a bug or a half-restored backup would.
#[tokio::test]
async fn a_broken_promise_is_found() {
    for (breaking, found) in [
        ("SELECT 1", [0, 0, 0]),
        ("UPDATE systole.runs SET fence = fence + 1 WHERE run_id = 'held'", [0, 0, 1]),
        ("UPDATE systole.runs SET status = 'COMPLETED' WHERE run_id = 'held'", [0, 1, 0]),
        ("UPDATE systole.runs SET status = 'RUNNING' WHERE run_id = 'ended'", [0, 1, 0]),
        (
            "UPDATE systole.executor_instances SET run_id = 'held', attempt = 2, status = 'RUNNING', ended_at = NULL,
                    fence = (SELECT fence FROM systole.runs WHERE run_id = 'held') WHERE run_id = 'ended'",
            [1, 0, 0],
        ),
        (
            "INSERT INTO systole.run_events (run_id, kind, fence) SELECT run_id, 'claimed', fence FROM systole.runs WHERE run_id = 'held'",
            [0, 0, 1],
        ),
    ] {
        let database = database();
        let session = Session::on(&database).await;
        session.claim(&Ask::of("held")).await.granted();
        let ended = session.claim(&Ask::of("ended")).await.granted();
        assert_eq!(session.finish(ended, "COMPLETED", Some(0)).await, "ok");
        database.sql("DROP INDEX systole.executor_instances_one_running");
        database.sql(breaking);
        let looked = snapshot(&database);
        let counted =
            ["one_running_per_run", "running_has_instance", "fence_monotonic"].map(|key| looked[key].as_i64().unwrap());
        assert_eq!(counted, found, "{breaking}");
    }
}

#[tokio::test]
async fn the_brake_is_seen_while_it_is_needed_and_no_longer() {
    let database = database();
    let session = Session::on(&database).await;
    for host in ["a", "b", "c", "d"] {
        session.claim(&Ask { host, ..Ask::of(host) }).await.granted();
    }
    for (silent, engaged) in [("a", false), ("b", false), ("c", true)] {
        database.age_heartbeat(silent, 31.0);
        assert_eq!(snapshot(&database)["brake_engaged"], engaged, "{silent}");
    }
    database.age_heartbeat("b", 1.0);
    assert_eq!(snapshot(&database)["brake_engaged"], false);
}

/// Also where it is the first to see something that somebody has to write down, such as a failover.
#[test]
fn a_look_writes_nothing() {
    let database = database();
    database.sql("UPDATE systole.settings SET history = '1-00000001', history_since = now()");
    let looked = database.sql(
        "BEGIN READ ONLY; SELECT systole.fleet_snapshot()->>'quarantine_seconds'; COMMIT;
         SELECT systole.fleet_snapshot()->>'quarantine_seconds'",
    );
    assert!(looked.concat().iter().all(|seconds| seconds.parse::<f64>().unwrap() >= 0.0), "{looked:?}");
    assert_eq!(database.value("SELECT history FROM systole.settings"), "1-00000001");
    assert!(database.try_sql("BEGIN; SELECT systole.fleet_snapshot(); DELETE FROM systole.runs").is_err());
}

/// However much has ended, and however much waits.
#[test]
fn a_look_reads_what_there_is_and_counts_what_waits_up_to_a_bound() {
    let database = database();
    database.sql(
        "INSERT INTO systole.lanes (queue) SELECT 'lane' || n FROM generate_series(1, 100) n;
         INSERT INTO systole.runs (run_id, status, lane_id, claim_order, available_at)
         SELECT 'q' || n, 'QUEUED', 1, clock_timestamp(), clock_timestamp() FROM generate_series(1, 20000) n;
         INSERT INTO systole.runs (run_id, status, lane_id, available_at)
         SELECT 'l' || n, 'QUEUED', 2, clock_timestamp() + interval '1 day' FROM generate_series(1, 20000) n;
         INSERT INTO systole.runs (run_id, status, attempt) SELECT 'h' || n, 'COMPLETED', 1 FROM generate_series(1, 20000) n;
         INSERT INTO systole.executor_instances
             (instance_id, run_id, attempt, fence, status, executor_id, host, pid, containment, stale_after, started_at,
              last_heartbeat, ended_at)
         SELECT gen_random_uuid(), 'h' || n, 1, n, 'COMPLETED', '1@h', 'h', 1, 'none', '30 s', now(), now(), now()
           FROM generate_series(1, 20000) n;
         INSERT INTO systole.run_events (run_id, kind) SELECT 'h' || n, 'completed' FROM generate_series(1, 20000) n",
    );
    for statistics in ["SELECT", "ANALYZE"] {
        database.sql(statistics);
        let read = database.sql(
            "BEGIN; SELECT systole.fleet_snapshot();
             SELECT sum(pg_stat_get_xact_tuples_returned(c.oid) + pg_stat_get_xact_tuples_fetched(c.oid))
               FROM pg_class c WHERE c.relnamespace = 'systole'::regnamespace AND c.relname IN
                    ('runs', 'executor_instances', 'run_events', 'runs_pkey', 'runs_to_claim', 'runs_to_come', 'run_events_pkey',
                     'executor_instances_pkey', 'executor_instances_one_running');
             COMMIT",
        );
        let read: i64 = read.last().unwrap()[0].parse().unwrap();
        assert!((1_000..40_000).contains(&read), "{read} rows after {statistics}");
    }
    let looked = snapshot(&database);
    assert_eq!((&looked["queues"][0]["queued"], &looked["queues"][1]["delayed"]), (&json!(1001), &json!(10_000)));
}
