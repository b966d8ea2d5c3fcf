//! What is put in: by flags, by a file, by SQL; and what is refused, with the line that it stands on.

use crate::support::{Database, Systole};

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
    ] {
        let (code, text) = put(&bad);
        assert!(code != 0 && words.iter().all(|word| text.contains(word)), "{code}: {text}");
        assert_eq!(database.value("SELECT count(*) FROM systole.runs"), "0", "{text}");
    }
    assert_eq!(put(&lines).0, 0);
    assert_eq!(database.value("SELECT count(*) FROM systole.runs WHERE status = 'QUEUED'"), "10000");
    assert_eq!(database.value("SELECT count(*) FROM systole.lanes"), "3");
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
    ] {
        let text = message(&format!("SELECT systole.submit({bad})"));
        assert!(text.contains(&word.replace("''", "'")) && !text.contains("secret"), "{bad}: {text}");
    }
}
