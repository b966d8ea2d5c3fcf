//! What is put in: by flags, by a file, by SQL; and what is refused, with the line that it stands on.

use crate::SOON;
use crate::support::{Database, Systole, eventually};

#[test]
fn a_run_is_queued_once() {
    let database = Database::new();
    let host = Systole::on(&database);
    let submit = |more: &[&str]| {
        let output = host.output(&[&["submit", "r"], more, &["--", "true"]].concat());
        (output.status.code().unwrap(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    assert_eq!(submit(&[]).0, 0);
    let (code, text) = submit(&[]);
    assert!(code == 75 && text.contains("QUEUED already") && text.contains("--if-absent"), "{text}");
    assert_eq!(submit(&["--if-absent"]).0, 0);
    assert_eq!(host.output(&["cancel", "r"]).status.code(), Some(0));
    let (code, text) = submit(&[]);
    assert!(code == 75 && text.contains("CANCELLED") && text.contains("--again"), "{text}");
    assert_eq!(submit(&["--again"]).0, 0);
    assert_eq!(database.value("SELECT count(*) FROM systole.run_events WHERE kind = 'submitted'"), "2");
}

#[test]
fn a_file_is_queued_whole_or_not_at_all() {
    let database = Database::new();
    let host = Systole::on(&database);
    let file = host.state.path().join("runs.jsonl");
    let line =
        |n: usize| format!("{{\"run_id\": \"r{n}\", \"argv\": [\"true\"], \"labels\": {{\"n\": \"{}\"}}}}\n", n % 3);
    let lines: String = (1..=10_000).map(line).collect();
    let put = |text: &str| {
        std::fs::write(&file, text).unwrap();
        let output = host.output(&["submit", "-f", file.to_str().unwrap()]);
        (output.status.code().unwrap(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    for (bad, words) in [
        (lines.replacen("\"argv\": [\"true\"], \"labels\": {\"n\": \"0\"}", "\"argw\": []", 1), ["line 3", "argw"]),
        (lines.replacen("r777\"", "r/777\"", 1), ["line 777", "not a run id"]),
        (lines.replacen("\"r9999\"", "\"r1\"", 1), ["line 9999", "QUEUED already"]),
        (lines.replacen("[\"true\"]", "[]", 1), ["line 1", "argv"]),
        (lines.replacen("{\"n\": \"0\"}", "{\"n\": \"\\u0000\"}", 1), ["line 3", "\\u0000"]),
        (lines.replacen("r8\",", "r8\", \"max_attempts\": 0,", 1), ["line 8", "max_attempts is 0"]),
        (lines.replacen("r8\",", "r8\", \"env\": {\"A=B\": \"c\"},", 1), ["line 8", "a name in env"]),
    ] {
        let (code, text) = put(&bad);
        assert!(code != 0 && words.iter().all(|word| text.contains(word)), "{code}: {text}");
        assert_eq!(database.value("SELECT count(*) FROM systole.runs"), "0", "{text}");
    }
    assert_eq!(put(&lines).0, 0);
    assert_eq!(database.value("SELECT count(*) FROM systole.runs WHERE status = 'QUEUED'"), "10000");
    assert_eq!(database.value("SELECT count(*) FROM systole.lanes"), "3");
}

/// A deadlock of two submitters passes, for the one as for the other.
#[test]
fn the_same_runs_in_another_order_are_submitted_by_both() {
    let database = Database::new();
    let host = Systole::on(&database);
    let lines: String = ["r1", "r2"].map(|run| format!("{{\"run_id\": \"{run}\", \"argv\": [\"true\"]}}\n")).concat();
    std::fs::write(host.state.path().join("runs.jsonl"), lines).unwrap();
    // With its lane, for which they would wait as well.
    database.sql("SELECT systole.submit('r0', argv => ARRAY['true'])");
    // The command is the one that is told, if the other waits for it within three seconds.
    database.sql(&format!("ALTER DATABASE {} SET deadlock_timeout = '3 s'", database.name));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let mut command = runtime.block_on(async {
        let other = database.connect().await;
        let submit = |run: &str| format!("SELECT systole.submit('{run}', argv => ARRAY['true'], if_absent => true)");
        other.batch_execute(&format!("SET deadlock_timeout = '1 min'; BEGIN; {}", submit("r2"))).await.unwrap();
        let command = host.start(&["submit", "-f", "runs.jsonl", "--if-absent"]);
        let waits =
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'";
        eventually("the command waits", SOON, || (database.value(waits) == "1").then_some(()));
        tokio::time::timeout(SOON, other.batch_execute(&submit("r1"))).await.expect("one of them gives way").unwrap();
        other.batch_execute("COMMIT").await.unwrap();
        command
    });
    assert_eq!(command.code(SOON), 0, "{}", command.errors());
    assert_eq!(database.value("SELECT count(*) FROM systole.run_events WHERE kind = 'submitted'"), "3");
}

#[test]
fn an_application_enqueues_inside_its_own_transaction() {
    let database = Database::new();
    let submit = "SELECT systole.submit('mail-7', argv => ARRAY['send', '7'], queue => 'mail', priority => 5)";
    database.sql(&format!("BEGIN; {submit}; ROLLBACK"));
    assert_eq!(database.value("SELECT count(*) FROM systole.runs"), "0");
    database.sql(submit);
    assert_eq!(database.value("SELECT count(*) FROM systole.runs"), "1");
    let message = |sql: &str| database.try_sql(sql).unwrap_err().as_db_error().unwrap().message().to_owned();
    assert!(message(submit).contains("QUEUED already"));
    for (bad, word) in [
        ("'a/b', argv => ARRAY['x']", "not a run id"),
        ("'a', argv => ARRAY['x'], command => 'y'", "either an argv"),
        ("'a'", "either an argv"),
        ("'a', argv => ARRAY['x'], priority => 5000", "priority is 5000"),
        ("'a', argv => ARRAY['x'], queue => ''", "name of a queue"),
        ("'a', argv => ARRAY['x'], labels => '{\"a\": 1}'", "labels are"),
        ("'a', argv => ARRAY['x'], labels => '{\"systole:argv\": \"yes\"}'", "systole''s own"),
        ("'a', argv => ARRAY['x'], env => '[\"secret\"]'", "env should be"),
        ("'a', argv => ARRAY['x'], after => '-1 second'", "after is"),
        ("'a', argv => ARRAY['x'], timeout => '0'", "timeout is 00:00:00"),
        ("'a', argv => ARRAY['x'], stall_timeout => '-1 s'", "stall_timeout is -00:00:01"),
        ("'a', argv => ARRAY['x'], max_attempts => 0", "max_attempts is 0"),
        ("'a', argv => ARRAY['x'], backoff => '-1 s'", "backoff is -00:00:01"),
        ("'a', argv => ARRAY['x'], crashes_max => NULL", "crashes_max is"),
        ("'a', argv => ARRAY['x'], env => '{\"\": \"secret\"}'", "a name in env is empty"),
    ] {
        let text = message(&format!("SELECT systole.submit({bad})"));
        assert!(text.contains(&word.replace("''", "'")) && !text.contains("secret"), "{bad}: {text}");
    }
}

#[test]
fn status_says_what_a_run_waits_for() {
    let database = Database::new();
    let host = Systole::on(&database);
    let waits = |run_id: &str| {
        let output = host.output(&["status", run_id, "--json"]);
        let run: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        run["waits"].as_str().unwrap_or_default().to_owned()
    };
    crate::submit(&host, "r", &["--queue", "q", "--label", "gpu=yes"], "true");
    crate::submit(&host, "later", &["--after", "1h"], "true");
    assert!(waits("later").starts_with("not before 2"), "{}", waits("later"));
    assert_eq!(waits("r"), "no node serves queue q");
    let _plain = crate::node(&host, &["--queue", "q"]);
    assert_eq!(waits("r"), "no node of queue q has the labels {\"gpu\": \"yes\"}");
    let cautious = host.start(&["node", "--queue", "q", "--label", "gpu=yes"]);
    cautious.wait_for_errors("ready: ", crate::SOON);
    assert_eq!(waits("r"), "no such node starts submitted commands (allow_submitted_commands)");
    assert_eq!(host.output(&["pause", "q"]).status.code(), Some(0));
    assert_eq!(waits("r"), "queue q is paused");
}

/// A point of priority is worth a minute of waiting, so nothing waits for ever.
#[test]
fn what_has_waited_goes_before_what_is_more_urgent_by_fewer_minutes() {
    let database = Database::new();
    database.sql(
        "SELECT systole.submit('humble', argv => ARRAY['true'], priority => -10);
         UPDATE systole.runs SET available_at = available_at - interval '21 minutes', claim_order = claim_order - interval '21 minutes';
         SELECT systole.submit('urgent' || n, argv => ARRAY['true'], priority => 10) FROM generate_series(1, 50) n;
         SELECT systole.submit('vital', argv => ARRAY['true'], priority => 12)",
    );
    let claim = "SELECT run_id FROM systole.claim_queued('{default}', '{}', '{}', true, ARRAY[gen_random_uuid()], ARRAY[NULL]::bytea[],
                     '1@h', 'h', 1, NULL, NULL, NULL, 'none', 30000, '1000.0.0')";
    let order: Vec<String> = (0..3).map(|_| database.value(claim)).collect();
    assert_eq!(order, ["vital", "humble", "urgent1"]);
}

#[test]
fn what_ended_long_ago_is_forgotten_and_its_fence_never_given_again() {
    let database = Database::new();
    let host = Systole::on(&database);
    for run_id in ["old", "young"] {
        assert_eq!(host.output(&["run", run_id, "--", "true"]).status.code(), Some(0));
    }
    crate::submit(&host, "queued", &[], "true");
    database.sql(
        "UPDATE systole.runs SET updated_at = clock_timestamp() - interval '31 days', fence = fence + 1000000000000
          WHERE run_id <> 'young'",
    );
    let fence: u64 = database.value("SELECT fence FROM systole.runs WHERE run_id = 'old'").parse().unwrap();
    assert_eq!(host.output(&["prune"]).status.code(), Some(0));
    let left = database.sql("SELECT run_id FROM systole.runs ORDER BY 1");
    assert_eq!(left.concat(), ["queued", "young"]);
    assert_eq!(database.value("SELECT count(*) FROM systole.run_events WHERE run_id = 'old'"), "0");
    assert_eq!(host.output(&["run", "old", "--", "true"]).status.code(), Some(0));
    let again: u64 = database.value("SELECT fence FROM systole.runs WHERE run_id = 'old'").parse().unwrap();
    assert!(again > fence, "{again} was given again");
}

/// However many runs others may take, and however many have ended: a claim looks at its own lanes, by their index.
#[test]
fn a_claim_does_not_look_at_what_is_not_for_it() {
    let database = Database::new();
    database.sql(
        "SELECT systole.submit('other', argv => ARRAY['true'], queue => 'other');
         SELECT systole.submit('mine', argv => ARRAY['true'], queue => 'mine');
         INSERT INTO systole.runs (run_id, status, lane_id, claim_order, available_at)
         SELECT 'o' || n, 'QUEUED', 1, clock_timestamp() - interval '1 day', clock_timestamp() FROM generate_series(1, 100000) n;
         INSERT INTO systole.runs (run_id, status, lane_id) SELECT 'd' || n, 'COMPLETED', 2 FROM generate_series(1, 100000) n;
         ANALYZE systole.runs",
    );
    let plan = database.sql(
        "EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON)
         SELECT r.run_id FROM systole.runs r WHERE r.lane_id = 2 AND r.status = 'QUEUED' AND r.claim_order IS NOT NULL
         ORDER BY r.claim_order LIMIT 8 FOR NO KEY UPDATE SKIP LOCKED",
    );
    let plan = plan.concat().concat();
    assert!(!plan.contains("Seq Scan") && !plan.contains("\"Sort\"") && plan.contains("runs_to_claim"), "{plan}");
    let buffers = "SELECT pg_stat_get_xact_tuples_returned('systole.runs'::regclass) FROM systole.claim_queued(
        ARRAY['mine'], '{}', '{}', true, ARRAY[gen_random_uuid()], ARRAY[NULL]::bytea[], '1@h', 'h', 1, NULL, NULL, NULL, 'none', 30000, '1000.0.0')";
    let read: i64 = database.value(buffers).parse().unwrap();
    assert!(read < 100, "{read} rows were read for one claim");
}
