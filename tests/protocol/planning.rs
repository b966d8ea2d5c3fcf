//! What a transition reads depends on what it is asked, and not on how many others there are, or on what the planner
//! believes of them.

use uuid::Uuid;

use crate::asking::database;
use crate::support::Database;

/// How many rows of our tables each of these reads, in one session behind `before`.
fn rows_read(database: &Database, before: &str, asked: &[(&str, String)]) -> Vec<(String, i64)> {
    let so_far = "SELECT 'so far', sum(pg_stat_get_xact_tuples_returned(c.oid) + pg_stat_get_xact_tuples_fetched(c.oid))
                    FROM pg_class c WHERE c.relnamespace = 'systole'::regnamespace AND c.relname IN
                         ('runs', 'executor_instances', 'run_specs', 'executor_instances_pkey', 'executor_instances_one_running',
                          'executor_instances_run_id_attempt_key', 'executor_instances_barring', 'runs_pkey', 'runs_to_claim',
                          'runs_to_come', 'runs_to_prune')";
    let all: String = asked.iter().map(|(_, sql)| format!("{sql}; {so_far};")).collect();
    let answers = database.sql(&format!("BEGIN; {before}; {so_far}; {all} COMMIT"));
    let sums: Vec<i64> = answers
        .iter()
        .filter_map(|row| match row.as_slice() {
            [label, sum] if label == "so far" => Some(sum.parse().unwrap()),
            _ => None,
        })
        .collect();
    assert_eq!(sums.len(), asked.len() + 1);
    asked.iter().zip(sums.windows(2)).map(|((what, _), sums)| ((*what).to_owned(), sums[1] - sums[0])).collect()
}

/// Every transition once, for `RUN1` to `RUN4`, which are running, and one from the queue. Ids are derived from the names of runs.
fn transitions(run: &str) -> Vec<(&'static str, String)> {
    let id = |n: u32| format!("md5('{run}{n}')::uuid");
    let new = Uuid::now_v7();
    vec![
        ("beat", format!("SELECT systole.beat(ARRAY[{}, {}], '{{0,0}}', '{{NULL,NULL}}')", id(1), id(2))),
        ("tell", format!("SELECT systole.tell(ARRAY[{}, {}], '{{a,b}}')", id(1), id(2))),
        (
            "put_output",
            format!(
                "SELECT systole.put_output(ARRAY[{}, {}], '{{1,2}}', ARRAY['', '']::bytea[], '{{1,1}}', '{{0,0}}', '{{p,p}}', '{{f,f}}')",
                id(1),
                id(2)
            ),
        ),
        ("finish", format!("SELECT systole.finish({}, 1, 'COMPLETED', 0, NULL, 0, '{{}}')", id(1))),
        (
            "finish_all",
            format!(
                "SELECT systole.finish_all(ARRAY[{}, {}], '{{2,3}}', '{{COMPLETED,FAILED}}', '{{0,1}}', '{{NULL,NULL}}', '{{0,0}}',
                    ARRAY['{{}}', '{{}}']::jsonb[])",
                id(2),
                id(3)
            ),
        ),
        (
            "claim",
            format!(
                "SELECT systole.claim('{run}4', '{new}', '2@g', 'g', 2, NULL, NULL, NULL, 'none', 30000, NULL, NULL,
                    NULL, NULL, 0, false, true, '1000.0.0')"
            ),
        ),
        ("claim_queued", claim_queued("default")),
    ]
}

/// A claim of one run of these queues, comma-separated.
pub(crate) fn claim_queued(queues: &str) -> String {
    format!(
        "SELECT systole.claim_queued('{{{queues}}}', '{{}}', '{{}}', true, ARRAY['{}']::uuid[], ARRAY[NULL]::bytea[],
            '2@g', 'g', 2, NULL, NULL, NULL, 'none', 30000, '1000.0.0')",
        Uuid::now_v7()
    )
}

/// So many runs that are running, `RUN1` and so on, and as many that wait.
fn fleet(run: &str, runs: u32) -> String {
    format!(
        "INSERT INTO systole.runs (run_id, status, attempt) SELECT '{run}' || n, 'RUNNING', 1 FROM generate_series(1, {runs}) n;
         INSERT INTO systole.executor_instances
             (instance_id, run_id, attempt, fence, status, executor_id, host, pid, containment, stale_after, started_at, last_heartbeat)
         SELECT md5('{run}' || n)::uuid, '{run}' || n, 1, n, 'RUNNING', '1@h', 'h', 1, 'none', '30 s', now(), now()
           FROM generate_series(1, {runs}) n;
         SELECT systole.submit('{run}-q', argv => ARRAY['true']);
         INSERT INTO systole.runs (run_id, status, lane_id, claim_order, available_at)
         SELECT '{run}-q' || n, 'QUEUED', (SELECT min(lane_id) FROM systole.lanes), clock_timestamp(), clock_timestamp()
           FROM generate_series(1, {runs}) n;
         UPDATE systole.takeover_brake SET looked_at = '-infinity'"
    )
}

fn assert_little(read: Vec<(String, i64)>, circumstances: &str) {
    let much: Vec<_> = read.into_iter().filter(|(_, rows)| *rows >= 60).collect();
    assert!(much.is_empty(), "these read many rows {circumstances}: {much:?}");
}

/// Analyzed when nothing was running, or never: then the index of what is RUNNING looks empty, and the tables small.
#[test]
fn nothing_is_read_through_because_of_old_statistics() {
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
        database.sql(&fleet("n", 20_000));
        assert_little(rows_read(&database, "SELECT", &transitions("n")), &format!("after {statistics}"));
        // These look at all that is running, once, and at nothing of what has ended.
        database.sql(
            "INSERT INTO systole.executor_instances SELECT gen_random_uuid(), run_id, n + 1, n, 'COMPLETED', '1@h', 'h', 1,
                          NULL, NULL, NULL, NULL, 'none', NULL, '30 s', NULL, now(), now(), now()
                        FROM systole.runs, generate_series(1, 9) n WHERE run_id LIKE 'r%'",
        );
        database.sql(if statistics == "ANALYZE" { "ANALYZE" } else { "SELECT" });
        let looks = [
            ("reap", "SELECT systole.reap('x', '-infinity', NULL, 0, 50)".to_owned()),
            ("brake_engaged", "SELECT systole.brake_engaged()".to_owned()),
        ];
        for (what, rows) in rows_read(&database, "SELECT", &looks) {
            assert!((19_000..60_000).contains(&rows), "{what} has read {rows} rows after {statistics}");
        }
        assert_eq!(database.value("SELECT count(*) FROM systole.executor_instances WHERE status = 'RUNNING'"), "19998");
    }
}

/// A session keeps its plans until somebody analyzes. With a table known to be empty, to read all of it looks as cheap as an index.
#[test]
fn nothing_is_read_through_because_of_a_plan_made_when_there_was_nothing() {
    let database = database();
    database.sql("VACUUM ANALYZE");
    let planned: Vec<String> = transitions("p").into_iter().map(|(_, sql)| sql).collect();
    let before = format!("{}; {}; {}", fleet("p", 4), planned.join("; "), fleet("n", 100_000));
    let mut asked = transitions("n");
    let limit = |queue| format!("INSERT INTO systole.queues (queue, running_max) VALUES ('{queue}', 1000000)");
    asked.push(("a limit of a queue in which nothing waits", limit("empty")));
    asked.push(("claim_queued beside such a queue", claim_queued("default,empty")));
    asked.push(("a limit", limit("default")));
    asked.push(("claim_queued within a limit", claim_queued("default")));
    let mut read = rows_read(&database, &before, &asked);
    // Who counts what is running reads all of that, once, and each one's run.
    let (what, rows) = read.pop().expect("as many as were asked");
    assert!((200_000..500_000).contains(&rows), "{what} has read {rows} rows by a plan for empty tables");
    assert_little(read, "by a plan for empty tables");
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
