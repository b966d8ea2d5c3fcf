//! Hints are sent beside the work, and never in its way.

use std::time::{Duration, Instant};

use crate::support::{Database, Systole, eventually};

/// Whoever commits a NOTIFY and waits for a standby that is not there holds a lock that every other NOTIFY needs.
#[test]
fn a_run_does_not_wait_for_a_notifier_that_waits_for_its_standby() {
    let (database, _server) = Database::on_own_server();
    database.sql("ALTER SYSTEM SET synchronous_standby_names = 'nobody'");
    database.sql("SELECT pg_reload_conf()");
    eventually("the setting", Duration::from_secs(5), || {
        (database.value("SHOW synchronous_standby_names") == "nobody").then_some(())
    });
    let stuck = database.clone();
    // It ends with its server.
    std::thread::spawn(move || stuck.try_sql("BEGIN; CREATE TABLE written (); NOTIFY somebody; COMMIT"));
    eventually("a notifier in SyncRep", Duration::from_secs(5), || {
        (database.value("SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep'") == "1").then_some(())
    });

    // The statement as it is sent, taken from where it stands.
    let source = std::fs::read_to_string("src/db/hints.rs").unwrap();
    let statement = source.split("-- hints.send").nth(1).unwrap().split('"').next().unwrap();
    let statement = statement.replace("$1", "'systole'").replace("$2", "'ended r'");
    let started = Instant::now();
    let error = database.try_sql(&format!("SET statement_timeout = '10s'; {statement}")).unwrap_err();
    assert_eq!(error.code().unwrap().code(), "55P03", "{error:?}");
    assert!(started.elapsed() < Duration::from_secs(2), "{:?}", started.elapsed());
}

/// In a run the hint is part of the same round trip: its failure must not be that of the transition.
#[test]
fn a_hint_that_fails_does_not_spoil_the_finish_before_it() {
    let (database, _server) = Database::on_own_server();
    // As if the lock could not be had: whatever notifies, fails.
    database.sql(
        "CREATE FUNCTION public.pg_notify(text, text) RETURNS void LANGUAGE plpgsql AS
         $$ BEGIN RAISE EXCEPTION 'no' USING ERRCODE = '55P03'; END $$;
         ALTER ROLE systole SET search_path = public, pg_catalog",
    );
    let output = Systole::on(&database).output(&["run", "r", "--", "sh", "-c", "exit 3"]);
    assert_eq!(output.status.code(), Some(3), "{output:?}");
    assert_eq!(database.value("SELECT status FROM systole.runs"), "FAILED");
    let failed = database.try_sql("SELECT pg_notify('a', 'b')");
    assert!(failed.is_err(), "the stand-in was never called");
}
