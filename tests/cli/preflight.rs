//! `check` answers out of the database, and out of what lives and what has died on this host.

use std::path::Path;

use rustix::process::{Signal, kill_process};
use serde_json::Value;

use crate::support::probe::{Asleep, Probe};
use crate::support::process::{guard_of, through};
use crate::support::{Database, Systole, eventually};
use crate::{SOON, expect};

/// The exit code, and what was printed as JSON.
#[track_caller]
fn check(host: &Systole, arguments: &[&str]) -> (i32, Value) {
    let output = host.output(&[&["check", "--json", "r"], arguments].concat());
    let answer = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&output.stderr)));
    (output.status.code().unwrap(), answer)
}

#[track_caller]
fn assert_says(host: &Systole, code: i32, decision: &str, words: &[&str]) -> Value {
    let (found, answer) = check(host, &[]);
    assert_eq!((found, &answer["decision"]), (code, &Value::from(decision)), "{answer:#}");
    for word in words {
        assert!(answer["reason"].as_str().unwrap().contains(word), "{word:?} is not in: {answer:#}");
    }
    answer
}

/// Scripts read them.
#[test]
fn its_fields_are_always_the_same() {
    let host = Systole::on(&Database::new());
    let names =
        ["decision", "here", "holder", "intent", "next", "quarantined_until", "queue", "reason", "run_id", "status"];
    let keys = |answer: &Value| answer.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    for intent in ["launch", "monitor", "restart", "validate"] {
        let (code, answer) = check(&host, &["--intent", intent]);
        assert_eq!((code, keys(&answer), &answer["intent"]), (0, names.map(str::to_owned).to_vec(), &intent.into()));
    }
    let _running = host.start_run("r", "sleep 60");
    let held = assert_says(&host, 75, "attach", &["is held by executor"]);
    assert_eq!(keys(&held), names);
    assert_eq!(held["here"][0]["found"], "guarded");
    assert_eq!(held["here"][0]["executor_id"], held["holder"]["executor_id"]);
    assert_eq!(check(&host, &["--intent", "restart"]).1["next"], "systole stop r --wait && systole run r -- COMMAND");
}

#[test]
fn a_certificate_that_waits_to_be_filed_is_known_on_its_host() {
    let database = Database::new();
    let (host, elsewhere) = (Systole::on(&database), Systole::on(&database));
    let running = host.start_run("r", "sleep 60");
    running.signal(Signal::KILL);
    eventually("its certificate", SOON, || (check(&host, &[]).1["here"][0]["found"] == "certified").then_some(()));
    let answer = assert_says(&host, 0, "launch", &["is held by executor", "over on this host (CRASHED"]);
    assert_eq!(answer["next"], "systole run r -- COMMAND");
    // Looking has changed nothing; and who cannot see it knows no better.
    assert_eq!(database.value("SELECT status FROM systole.executor_instances"), "RUNNING");
    assert_says(&elsewhere, 75, "attach", &["is held by executor"]);
    assert_eq!(host.output(&["run", "r", "--", "echo", "next"]).stdout, b"next\n");
    assert_eq!(assert_says(&host, 0, "launch", &["COMPLETED"])["here"], serde_json::json!([]));
}

#[test]
fn remains_that_nobody_guards_are_swept_by_a_start_or_prove_nothing() {
    let database = Database::new();
    let host = Systole::on(&database);
    let mut running = host.start_run("r", "sleep 60");
    let guard = guard_of(running.pid());
    // Neither has the time to tell of the other's end.
    running.signal(Signal::STOP);
    kill_process(guard, Signal::KILL).unwrap();
    running.signal(Signal::KILL);
    running.wait(SOON);
    if host.containment()["freezer"] == true {
        assert_says(&host, 10, "take-over", &["kills what is left of it"]);
        assert_eq!(host.output(&["run", "r", "--", "echo", "next"]).stdout, b"next\n");
    } else {
        let answer = assert_says(&host, 75, "stop-first", &["nothing proves", "30 s after its last heartbeat"]);
        assert_eq!(answer["next"], "systole run --wait r -- COMMAND");
    }
}

#[test]
fn a_command_at_work_here_of_which_the_database_knows_nothing_is_minded() {
    let database = Database::new();
    let (host, elsewhere) = (Systole::on(&database), Systole::on(&database));
    let probe = Probe::new(&host, "probe");
    let mut running = probe.start(&host, "r");
    let asleep = Asleep::now(running.pid(), &probe.mark);
    assert!(elsewhere.output(&["takeover", "r", "--force", "--unsafe-now"]).status.success());
    let answer = assert_says(&host, 75, "stop-first", &["knows of nobody", "still at work on it on this host"]);
    assert_eq!(answer["next"], "systole check r");
    // Nobody can see that from elsewhere: that is what is unsafe about it.
    assert_says(&elsewhere, 0, "launch", &["it is CRASHED"]);
    expect(&host.output(&["stop", "r", "--wait=300ms"]), 75, &["may still be worked on by", "waited for no longer"]);
    drop(asleep);
    let stopped = host.output(&["stop", "r", "--wait"]);
    assert!(stopped.status.success(), "{stopped:?}");
    assert!(probe.mark.living().is_empty(), "it was said to be over");
    assert_eq!(running.code(SOON), 76);
    assert_says(&host, 0, "launch", &["it is CRASHED"]);
}

/// A claim would be refused: nobody is told to launch.
#[test]
fn a_quarantine_is_known_and_so_is_its_end() {
    let database = Database::new();
    let host = Systole::on(&database);
    let _running = host.start_run("held", "sleep 60");
    database.sql(
        "UPDATE systole.settings SET history_since = clock_timestamp(), quarantined_until = clock_timestamp() + '60 s'",
    );
    let until =
        database.value("SELECT to_char(quarantined_until AT TIME ZONE 'UTC', 'HH24:MI:SS UTC') FROM systole.settings");
    let answer = assert_says(&host, 75, "stop-first", &["it is new", "failed over", &format!("until {until}")]);
    assert_eq!(answer["next"], "systole run --wait r -- COMMAND");
    assert!(answer["quarantined_until"].is_string(), "{answer:#}");
    expect(&host.output(&["run", "r", "--", "true"]), 75, &["failed over", &until]);
    // Whoever is at work goes on.
    assert_eq!(host.output(&["check", "held"]).status.code(), Some(75));
    assert!(String::from_utf8(host.output(&["check", "held"]).stdout).unwrap().starts_with("attach: "));
    database.sql("UPDATE systole.settings SET quarantined_until = clock_timestamp() - interval '1 s'");
    assert_says(&host, 0, "launch", &["it is new"]);
}

#[test]
fn without_a_database_it_says_who_is_at_work_here() {
    let (database, server) = Database::on_own_server();
    let (host, elsewhere) = (Systole::on(&database), Systole::on(&database));
    let running = host.start_run("r", "sleep 60");
    server.crash();
    let who = format!("executor {}@", running.pid().as_raw_pid());
    let answer = assert_says(&host, 75, "attach", &[&who, "on this host", "cannot be reached"]);
    assert_eq!(answer["status"], Value::Null);
    expect(&elsewhere.output(&["check", "r"]), 69, &["cannot be reached"]);
    expect(&host.output(&["check", "another"]), 69, &["cannot be reached"]);
}

/// Somebody will paste it into a file that a program obeys.
#[test]
fn what_assistants_are_told_works_as_it_stands() {
    let host = Systole::on(&Database::new());
    let text = std::fs::read_to_string("docs/assistants.md").unwrap();
    let blocks: Vec<&str> = text.split("```sh\n").skip(1).map(|rest| rest.split("```").next().unwrap()).collect();
    assert_eq!(blocks.len(), 5, "the test is blind");
    let folder = Path::new(env!("CARGO_BIN_EXE_systole")).parent().unwrap();
    let path = format!("{}:{}", folder.display(), std::env::var("PATH").unwrap());
    for block in blocks {
        // The way a run looks to an assistant that finds it at work.
        let _running = block.contains("systole stop").then(|| host.start_run("nightly-eval", "sleep 60"));
        let mut shell = through("sh", &["-ec", &block.replace("make eval", "true"), "sh"], &host.command(&[]));
        let output = shell.env("PATH", &path).output().unwrap();
        assert!(output.status.success(), "{block}{}", String::from_utf8_lossy(&output.stderr));
        assert!(!String::from_utf8_lossy(&output.stdout).contains("not now"), "{output:?}");
    }
}

/// What is queued is started by a node, and started again by the queue.
#[test]
fn a_run_from_the_queue_is_steered_through_it() {
    let host = Systole::on(&Database::new());
    assert!(host.output(&["submit", "r", "--queue", "q", "--", "true"]).status.success());
    let answer = assert_says(&host, 0, "launch", &["QUEUED in queue \"q\""]);
    assert_eq!((&answer["queue"], &answer["status"]), (&"q".into(), &"QUEUED".into()));
    assert!(host.output(&["cancel", "r"]).status.success());
    assert_eq!(assert_says(&host, 0, "launch", &["CANCELLED"])["next"], "systole retry r");
}
