//! What a transition reads depends on what it is asked, and not on how many others there are, or on what the planner
//! believes of them.

use uuid::Uuid;

use crate::asking::database;
use crate::support::Database;

/// How many rows of our tables these statements read.
fn rows_read(database: &Database, sql: &str) -> i64 {
    let statement = format!(
        "BEGIN; {sql};
         SELECT sum(pg_stat_get_xact_tuples_returned(c.oid) + pg_stat_get_xact_tuples_fetched(c.oid))
           FROM pg_class c WHERE c.relnamespace = 'systole'::regnamespace AND c.relname IN
                ('runs', 'executor_instances', 'run_specs', 'executor_instances_pkey', 'executor_instances_one_running',
                 'executor_instances_run_id_attempt_key', 'executor_instances_barring', 'runs_pkey', 'runs_to_claim', 'runs_to_come',
                 'runs_to_prune');
         COMMIT"
    );
    database.sql(&statement).last().expect("the sum")[0].parse().unwrap()
}

/// Analyzed when nothing was running, or never: then the index of what is RUNNING looks empty, and the tables small.
#[tokio::test]
async fn nothing_is_read_through_because_of_old_statistics() {
    for statistics in ["ANALYZE", "SELECT"] {
        let database = database();
        database.sql(
            "INSERT INTO systole.runs (run_id, status, attempt) SELECT 'r' || n, 'COMPLETED', 1 FROM generate_series(1, 500) n;
             INSERT INTO systole.executor_instances
                 (instance_id, run_id, attempt, fence, status, executor_id, host, pid, containment, stale_after, started_at,
                  last_heartbeat, ended_at)
             SELECT gen_random_uuid(), 'r' || n, 1, n, 'COMPLETED', '1@h', 'h', 1, 'none', '30 s', now(), now(), now()
               FROM generate_series(1, 500) n",
        );
        database.sql(statistics);
        database.sql(
            "INSERT INTO systole.runs (run_id, status, attempt) SELECT 'n' || n, 'RUNNING', 1 FROM generate_series(1, 20000) n;
             INSERT INTO systole.executor_instances
                 (instance_id, run_id, attempt, fence, status, executor_id, host, pid, containment, stale_after, started_at,
                  last_heartbeat)
             SELECT gen_random_uuid(), 'n' || n, 1, n, 'RUNNING', '1@h', 'h', 1, 'none', '30 s', now(), now()
               FROM generate_series(1, 20000) n;
             SELECT systole.submit('q', argv => ARRAY['true']);
             INSERT INTO systole.runs (run_id, status, lane_id, claim_order, available_at)
             SELECT 'q' || n, 'QUEUED', 1, clock_timestamp(), clock_timestamp() FROM generate_series(1, 20000) n",
        );
        database.sql("UPDATE systole.takeover_brake SET looked_at = '-infinity'");
        let id = |run: &str| {
            database.value(&format!("SELECT instance_id FROM systole.executor_instances WHERE run_id = '{run}'"))
        };
        let (one, two, three) = (id("n1"), id("n2"), id("n3"));
        let new = Uuid::now_v7();
        for (what, sql) in [
            ("beat", format!("SELECT systole.beat(ARRAY['{one}', '{two}']::uuid[], '{{0,0}}', '{{NULL,NULL}}')")),
            ("tell", format!("SELECT systole.tell(ARRAY['{one}', '{two}']::uuid[], '{{a,b}}')")),
            (
                "put_output",
                format!(
                    "SELECT systole.put_output(ARRAY['{one}', '{two}']::uuid[], '{{1,2}}', ARRAY['', '']::bytea[], '{{1,1}}', '{{0,0}}',
                        '{{p,p}}', '{{f,f}}')"
                ),
            ),
            ("finish", format!("SELECT systole.finish('{one}', 1, 'COMPLETED', 0, NULL, 0, '{{}}')")),
            (
                "finish_all",
                format!(
                    "SELECT systole.finish_all(ARRAY['{two}', '{three}']::uuid[], '{{2,3}}', '{{COMPLETED,FAILED}}', '{{0,1}}',
                        '{{NULL,NULL}}', '{{0,0}}', ARRAY['{{}}', '{{}}']::jsonb[])"
                ),
            ),
            (
                "claim",
                format!(
                    "SELECT systole.claim('n4', '{new}', '2@g', 'g', 2, NULL, NULL, NULL, 'none', 30000, NULL, NULL,
                        NULL, NULL, 0, false, true, '1000.0.0')"
                ),
            ),
            (
                "claim_queued",
                format!(
                    "SELECT systole.claim_queued('{{default}}', '{{}}', '{{}}', true, ARRAY['{new}']::uuid[],
                        ARRAY[NULL]::bytea[], '2@g', 'g', 2, NULL, NULL, NULL, 'none', 30000, '1000.0.0')"
                ),
            ),
        ] {
            let read = rows_read(&database, &sql);
            assert!(read < 60, "{what} has read {read} rows after {statistics}");
        }
        // These look at all that is running, once, and at nothing of what has ended.
        database.sql("INSERT INTO systole.executor_instances SELECT gen_random_uuid(), run_id, n + 1, n, 'COMPLETED', '1@h', 'h', 1,
                          NULL, NULL, NULL, NULL, 'none', NULL, '30 s', NULL, now(), now(), now()
                        FROM systole.runs, generate_series(1, 9) n WHERE run_id LIKE 'r%'");
        database.sql(if statistics == "ANALYZE" { "ANALYZE" } else { "SELECT" });
        for (what, sql) in [
            ("reap", "SELECT systole.reap('x', '-infinity', NULL, 0, 50)"),
            ("brake_engaged", "SELECT systole.brake_engaged()"),
        ] {
            let read = rows_read(&database, sql);
            assert!((19_000..60_000).contains(&read), "{what} has read {read} rows after {statistics}");
        }
        assert_eq!(database.value("SELECT count(*) FROM systole.executor_instances WHERE status = 'RUNNING'"), "19998");
    }
}

/// Checks are asked at every update, whether or not their column changes. A pattern with a bounded repetition has a state for each
/// count, and cost tens of microseconds each time.
#[test]
fn what_is_checked_at_each_transition_costs_next_to_nothing() {
    let database = database();
    let costly = "SELECT conrelid::regclass || ': ' || pg_get_constraintdef(oid) FROM pg_constraint
                   WHERE contype = 'c' AND conrelid = ANY ('{systole.runs,systole.executor_instances,systole.run_events,
                         systole.run_specs,systole.nodes}'::regclass[]) AND pg_get_constraintdef(oid) ~ '[{][0-9]+,'";
    assert_eq!(database.sql(costly), Vec::<Vec<String>>::new());
    // They say what they said before.
    let (long, longer) = ("x".repeat(200), "x".repeat(201));
    for good in ["r", "7", "a.b_c:d@e-f", &long] {
        database.sql(&format!("INSERT INTO systole.runs (run_id, status) VALUES ('{good}', 'QUEUED')"));
        database.sql(&format!("SELECT systole.submit('{good}', argv => ARRAY['x'], if_absent => true)"));
    }
    for bad in ["", "-a", "a/b", "a b", "a\n", "ä", &longer] {
        let insert = format!("INSERT INTO systole.runs (run_id, status) VALUES ('{bad}', 'QUEUED')");
        let refused = database.try_sql(&insert).unwrap_err();
        assert!(refused.as_db_error().unwrap().constraint() == Some("runs_run_id_check"), "{bad:?}: {refused}");
        let refused = database.try_sql(&format!("SELECT systole.submit('{bad}', argv => ARRAY['x'])")).unwrap_err();
        assert!(refused.as_db_error().unwrap().message().contains("is not a run id"), "{bad:?}: {refused}");
    }
}
