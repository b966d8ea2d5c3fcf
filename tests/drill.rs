//! A drill: a fleet that is broken on purpose for a while keeps its promises, and a drill that has to fail does.

#![allow(clippy::unwrap_used)] // it is a test

mod support;

use std::process::{Command, Output};
use std::sync::{Mutex, PoisonError};

use support::{Database, Systole, is_root};

/// One at a time: each keeps a machine busy.
fn drill(arguments: &[&str]) -> Output {
    static TURN: Mutex<()> = Mutex::new(());
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let mut command = Command::new(env!("CARGO_BIN_EXE_systole"));
    for (name, _) in std::env::vars() {
        if name.starts_with("SYSTOLE_") || name.starts_with("PG") || name == "DATABASE_URL" {
            command.env_remove(name);
        }
    }
    command.args(["drill", "--json"]).args(arguments).output().unwrap()
}

fn verdict(output: &Output) -> serde_json::Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"))
}

#[test]
fn twenty_seconds_of_chaos_break_no_promise() {
    let output = drill(&["--duration", "20s", "--seed", "7"]);
    let verdict = verdict(&output);
    assert_eq!(output.status.code(), Some(0), "{verdict:#} {}", String::from_utf8_lossy(&output.stderr));
    assert_eq!((&verdict["clean"], &verdict["seed"]), (&true.into(), &7.into()));
    let faults = verdict["faults"].as_object().unwrap();
    assert!(faults.len() >= 4, "hardly anything was broken: {verdict:#}");
    assert!(verdict["runs"].as_u64() > Some(10) && verdict["transfers"].as_u64() > Some(100), "{verdict:#}");
    assert!(verdict["attempts"].as_u64() > verdict["runs"].as_u64(), "nothing was handed over: {verdict:#}");
    assert!(verdict["late_writes_refused"].as_u64() > Some(0), "nobody wrote late: {verdict:#}");
    // Whatever is not broken here has its reason.
    let not_injected = verdict["not_injected"].as_object().unwrap();
    assert_eq!(not_injected.contains_key("host_lost"), !is_root(), "{verdict:#}");
    assert!(not_injected.values().all(|why| why.as_str().unwrap().len() > 20), "{verdict:#}");
    assert_eq!(verdict["folder"], serde_json::Value::Null);
}

/// Its checker sees what it is there to see.
#[test]
fn without_fencing_a_drill_fails() {
    let output = drill(&["--duration", "6s", "--seed", "7", "--without-fencing"]);
    let verdict = verdict(&output);
    let folder = std::path::PathBuf::from(verdict["folder"].as_str().unwrap());
    assert_eq!(output.status.code(), Some(1), "{verdict:#}");
    assert!(verdict["violations"]["ledger_errors"].as_u64() > Some(0), "{verdict:#}");
    assert!(verdict["told"][0].as_str().unwrap().contains("money was moved with fence"), "{verdict:#}");
    // Nothing but that was broken, and all of it can be looked into.
    assert_eq!(verdict["violations"]["overlaps"], 0, "{verdict:#}");
    assert!(folder.join("faults.json").exists() && folder.join("nodes/drill-1.log").exists());
    std::fs::remove_dir_all(folder).unwrap();
}

#[test]
fn a_database_that_is_given_is_thrown_away_only_if_that_is_said() {
    let database = Database::new();
    let refused = drill(&["--duration", "1s", "--database-url", &database.url]);
    let errors = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(64), "{errors}");
    assert!(errors.contains("systole_drill_ledger") && errors.contains("--throw-away"), "{errors}");

    let output = drill(&["--duration", "4s", "--seed", "7", "--throw-away", "--database-url", &database.url]);
    let verdict = verdict(&output);
    assert_eq!(output.status.code(), Some(0), "{verdict:#} {}", String::from_utf8_lossy(&output.stderr));
    assert!(verdict["not_injected"]["postmaster_killed"].as_str().unwrap().contains("the server's own process"));
    assert!(verdict["faults_total"].as_u64() > Some(0), "{verdict:#}");
    // What was there stays, and nothing of the drill is left.
    let schemas = "SELECT string_agg(nspname, ' ' ORDER BY nspname) FROM pg_namespace WHERE nspname LIKE 'systole%'";
    assert_eq!(database.value(schemas), "systole");
    assert_eq!(Systole::on(&database).output(&["audit"]).status.code(), Some(0));
}
