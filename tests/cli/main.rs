//! Bad input and bad days: each a sentence that names the value and the remedy, and an exit code of the documents.

#![allow(clippy::unwrap_used)] // it is a test

#[path = "../support/mod.rs"]
mod support;

mod anchor;
mod doctor;
mod paperwork;
mod preflight;
mod stopping;

use std::process::Output;
use std::time::Duration;

use support::{Database, Systole, eventually};

const SOON: Duration = Duration::from_secs(20);

/// The exit code, and everything on stderr.
fn told(output: &Output) -> (i32, String) {
    (output.status.code().unwrap_or(-1), String::from_utf8_lossy(&output.stderr).into_owned())
}

#[track_caller]
fn expect(output: &Output, code: i32, words: &[&str]) {
    let (found, text) = told(output);
    assert_eq!(found, code, "{text}");
    for word in words {
        assert!(text.contains(word), "{word:?} is not in: {text}");
    }
    assert!(!text.contains("panicked"), "{text}");
}

#[test]
fn run_ids_that_are_none_are_refused_by_name() {
    let host = Systole::on(&Database::new());
    let long = "x".repeat(201);
    let bad: &[&str] = &["", "a/b", "../x", "..", "-x", "a b", "a\nb", "\u{1b}[31mred", "it's", "\"q\"", "🦀", &long];
    for id in bad {
        let output = host.output(&["run", "--", id, "true"]);
        // An id that looks like a flag cannot even be typed without the dashes.
        if output.status.code() == Some(64) && String::from_utf8_lossy(&output.stderr).contains("Usage") {
            continue;
        }
        expect(&output, 64, &["is not a run id", "Allowed are letters"]);
    }
    for id in bad.iter().filter(|id| !id.starts_with('-')) {
        expect(&host.output(&["run", id, "--", "true"]), 64, &["is not a run id"]);
        expect(&host.output(&["status", id]), 64, &["is not a run id"]);
    }
    assert_eq!(host.output(&["run", &"x".repeat(200), "--", "true"]).status.code(), Some(0));
}

#[test]
fn there_is_no_silent_default_database() {
    let host = Systole::on(&Database::new()).with("SYSTOLE_DATABASE_URL", "");
    expect(&host.output(&["run", "r", "--", "true"]), 78, &["no database", "--database-url", "--embedded"]);
}

#[test]
fn databases_that_cannot_be_used_are_named_with_the_remedy() {
    let database = Database::new();
    let host = Systole::on(&database);
    let with = |url: &str| host.clone().with("SYSTOLE_DATABASE_URL", url);
    let run = ["run", "r", "--", "true"];

    expect(&with("nonsense").output(&run), 78, &["cannot be read", "postgresql://"]);
    let port: String = database.url.rsplit_once("port=").unwrap().1.to_owned();
    let plain = format!("host=db.example.org hostaddr=127.0.0.1 sslmode=verify-full dbname=x port={port}");
    expect(&with(&plain).output(&run), 78, &["db.example.org", "does not speak TLS", "sslmode=disable"]);
    expect(&with("postgresql://localhost/x?sslmod=require").output(&run), 78, &["\"sslmod\"", "sslmode"]);
    expect(&with("postgresql://127.0.0.1:1/x").output(&run), 69, &["127.0.0.1:1", "cannot be reached"]);
    expect(&with(&database.url.replace(&database.name, "nowhere")).output(&run), 78, &["nowhere", "does not exist"]);
    expect(&with(&Database::empty().url).output(&run), 78, &["systole migrate"]);
    let secret = with("postgresql://me:hunter2@127.0.0.1:1/x").output(&run);
    assert!(!told(&secret).1.contains("hunter2"));

    database.sql("CREATE ROLE locked_out LOGIN PASSWORD 'right'");
    let wrong = format!("postgresql://locked_out:wrong@127.0.0.1:{port}/{}", database.name);
    expect(&with(&wrong).output(&run), 78, &["password authentication failed", "URL"]);
    let denied = format!("postgresql://locked_out:right@127.0.0.1:{port}/{}", database.name);
    expect(&with(&denied).output(&run), 78, &["permission denied"]);
}

#[test]
fn a_server_that_only_reads_is_named() {
    let database = Database::new();
    database.sql(&format!("ALTER DATABASE {} SET default_transaction_read_only = on", database.name));
    let host = Systole::on(&database);
    expect(&host.output(&["run", "r", "--", "true"]), 69, &["read-only", "primary"]);
}

#[test]
fn unsafe_timing_is_refused_with_its_arithmetic() {
    let host = Systole::on(&Database::new());
    let output = host.output(&["run", "--stale-after", "20s", "r", "--", "true"]);
    expect(&output, 78, &["unsafe timing", "20.3s", "18.0s", "Raise stale_after"]);
    let output = host.output(&["run", "--fence-after", "soon", "r", "--", "true"]);
    expect(&output, 78, &["fence_after", "--fence-after", "\"soon\"", "30s"]);
    // Above what the fleet allows: the database says so.
    let output = host.output(&["run", "--stale-after", "2h", "r", "--", "true"]);
    expect(&output, 78, &["stale_after", "maximum"]);
}

#[test]
fn a_misspelt_key_in_the_file_is_an_error() {
    let host = Systole::on(&Database::new());
    std::fs::write(host.state.path().join("systole.toml"), "fence_afer = \"15s\"\n").unwrap();
    expect(&host.output(&["status"]), 78, &["systole.toml", "fence_afer", "fence_after"]);
}

#[test]
fn usage_errors_are_64() {
    let host = Systole::on(&Database::new());
    for arguments in [&["run", "r"][..], &["frobnicate"], &["run", "--wat", "r", "--", "true"], &["help", "nothing"]] {
        assert_eq!(host.output(arguments).status.code(), Some(64), "{arguments:?}");
    }
    expect(&host.output(&["run", "--wait=soon", "r", "--", "true"]), 64, &["--wait", "\"soon\""]);
    assert_eq!(host.output(&["help", "exit-codes"]).status.code(), Some(0));
    assert_eq!(host.output(&["--help"]).status.code(), Some(0));
}

#[test]
fn once_starts_nothing_again() {
    let host = Systole::on(&Database::new());
    assert_eq!(host.output(&["run", "--once", "r", "--", "sh", "-c", "exit 1"]).status.code(), Some(1));
    assert_eq!(host.output(&["run", "--once", "r", "--", "true"]).status.code(), Some(0));
    let again = host.output(&["run", "--once", "r", "--", "echo", "again"]);
    assert!(again.status.success() && again.stdout.is_empty());
    // Without --once a finished run always starts a new attempt.
    assert_eq!(host.output(&["run", "r", "--", "echo", "again"]).stdout, b"again\n");
}

#[test]
fn a_wait_that_runs_out_is_75() {
    let host = Systole::on(&Database::new());
    let _first = host.start_run("r", "sleep 60");
    expect(&host.output(&["run", "--wait=300ms", "r", "--", "echo", "never"]), 75, &["already running"]);
}

#[test]
fn a_waiter_is_ended_by_a_signal_and_starts_nothing() {
    let host = Systole::on(&Database::new());
    let _first = host.start_run("r", "sleep 60");
    let mut waiter = host.start(&["run", "--wait", "r", "--", "echo", "never"]);
    waiter.wait_for_errors("waiting for run", SOON);
    waiter.signal(rustix::process::Signal::TERM);
    assert_eq!(waiter.code(SOON), 143);
    assert_eq!(waiter.output(), "");
}

#[test]
fn the_reading_commands_agree_with_each_other() {
    let database = Database::new();
    let host = Systole::on(&database);
    let json = |arguments: &[&str]| -> serde_json::Value {
        let output = host.output(arguments);
        serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{arguments:?}: {error}"))
    };
    assert_eq!(json(&["check", "r", "--json"])["decision"], "launch");
    assert_eq!(host.output(&["status", "r"]).status.code(), Some(64));

    let running = host.start(&["run", "--purpose", "a\u{1b}[31m test", "r", "--", "sh", "-c", "echo ready; sleep 60"]);
    running.wait_for_output("ready");
    let check = host.output(&["check", "r", "--intent", "restart", "--json"]);
    assert_eq!(check.status.code(), Some(75));
    let status = json(&["status", "r", "--json"]);
    assert_eq!(status["status"], "RUNNING");
    assert_eq!(status["holder"]["pid"], running.pid().as_raw_pid());
    assert_eq!(status["holder"]["stale"], false);
    assert_eq!(status["attempts"][0]["fence"], status["fence"]);
    assert_eq!(json(&["ps", "--json"])[0]["run_id"], "r");
    for arguments in [&["status"][..], &["status", "r"], &["ps"], &["events", "r"]] {
        let output = host.output(arguments);
        assert!(!output.stdout.contains(&0x1b), "{arguments:?} let an escape through");
    }

    // No heartbeat of its own may come in between.
    running.signal(rustix::process::Signal::STOP);
    database.age_heartbeat("r", 40.0);
    assert_eq!(host.output(&["check", "r"]).status.code(), Some(10));
}

#[test]
fn progress_goes_through_the_supervisor_and_needs_no_database() {
    let database = Database::new();
    let host = Systole::on(&database);
    let systole = env!("CARGO_BIN_EXE_systole");
    let script =
        format!("{systole} progress 3 && {systole} progress 5 && {systole} progress 4; {systole} progress x; echo $?");
    let output = host.output(&["run", "r", "--", "sh", "-c", &script]);
    assert_eq!(String::from_utf8_lossy(&output.stdout), "64\n", "{}", told(&output).1);
    assert_eq!(database.value("SELECT phases_executed FROM systole.executor_instances"), "5");
    expect(&host.output(&["progress", "1"]), 64, &["SYSTOLE_SOCKET"]);
}

#[test]
fn a_state_folder_that_cannot_be_private_is_refused() {
    let host = Systole::on(&Database::new());
    let file = host.state.path().join("file");
    std::fs::write(&file, "").unwrap();
    let output = host.clone().with("SYSTOLE_STATE_DIR", file.to_str().unwrap()).output(&["run", "r", "--", "true"]);
    expect(&output, 78, &["file", "SYSTOLE_STATE_DIR"]);
}

#[test]
fn events_follow_what_happens() {
    let host = Systole::on(&Database::new());
    host.output(&["run", "r", "--", "true"]);
    let follower = host.start(&["events", "r", "-f", "--json"]);
    follower.wait_for_output("completed");
    host.output(&["run", "r", "--", "false"]);
    follower.wait_for_output("failed");
    let kinds: Vec<String> = follower
        .output()
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()["kind"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(kinds, ["claimed", "completed", "claimed", "failed"]);
}

#[test]
fn stop_ends_a_run_from_elsewhere() {
    let database = Database::new();
    let host = Systole::on(&database).fast();
    let elsewhere = Systole::on(&database);
    expect(&elsewhere.output(&["stop", "r"]), 64, &["not running"]);
    let mut running = host.start_run("r", "trap 'echo bye; exit 9' TERM; while :; do sleep 0.05; done");
    let stopped = elsewhere.output(&["stop", "--wait", "r"]);
    assert!(stopped.status.success());
    assert_eq!(running.code(SOON), 9);
    assert!(running.output().contains("bye"));
    eventually("CANCELLED", SOON, || (database.value("SELECT status FROM systole.runs") == "CANCELLED").then_some(()));
}
