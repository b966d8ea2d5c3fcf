//! Many at once: waiters that must not starve a holder, hosts that share a name, a dozen duplicates in the same instant.

#![allow(clippy::unwrap_used)] // it is a test

mod support;

use std::time::Duration;

use rustix::process::Signal;
use support::{Database, Running, Systole, eventually};

const SOON: Duration = Duration::from_secs(60);

#[test]
fn a_hundred_waiters_do_not_starve_the_holders_heartbeats() {
    let database = Database::new();
    let host = Systole::on(&database).fast();
    let mut holder = host.start_run("r", "sleep 600");
    let waiters: Vec<Running> = (0..100).map(|_| host.start(&["run", "--wait", "-q", "r", "--", "true"])).collect();
    let connected = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()
                      AND application_name = 'systole'";
    eventually("a hundred waiters have asked", SOON, || {
        (database.value(connected).parse::<u32>().unwrap() > 100).then_some(())
    });
    // Three times stale_after under the eyes of all of them.
    let begun = std::time::Instant::now();
    let mut worst: f64 = 0.0;
    while begun.elapsed() < Duration::from_secs(12) {
        let age = "SELECT extract(epoch FROM clock_timestamp() - last_heartbeat) FROM systole.executor_instances
                    WHERE run_id = 'r' AND attempt = 1";
        worst = worst.max(database.value(age).parse().unwrap());
        std::thread::sleep(Duration::from_millis(50)); // between two readings
    }
    assert!(worst < 1.5, "the holder's heartbeat was {worst} s old, fence_after is 1.5 s");
    assert_eq!(holder.errors().lines().count(), 1, "{}", holder.errors());
    assert_eq!(database.value("SELECT count(*) FROM systole.executor_instances"), "1");

    // When it ends, all of them get their turn, one at a time.
    holder.signal(Signal::KILL);
    holder.wait(SOON);
    eventually("a tenth of them has had its turn", SOON, || {
        let done = database.value("SELECT count(*) FROM systole.executor_instances WHERE status = 'COMPLETED'");
        (done.parse::<u32>().unwrap() >= 10).then_some(())
    });
    drop(waiters);
}

#[test]
fn two_hosts_of_one_name_are_two_executors() {
    let database = Database::new();
    let one = Systole::on(&database).with("SYSTOLE_HOST", "twin");
    let two = Systole::on(&database).with("SYSTOLE_HOST", "twin");
    let mut first = one.start_run("r", "sleep 60");
    assert_eq!(two.output(&["run", "r", "--", "echo", "never"]).status.code(), Some(75));
    first.signal(Signal::KILL);
    first.wait(Duration::from_secs(10));
    // Only the host itself can prove the death: its certificate is on its own disk.
    assert_eq!(two.output(&["run", "r", "--", "echo", "never"]).status.code(), Some(75));
    let other = one.output(&["run", "r", "--", "echo", "mine"]);
    assert_eq!(other.stdout, b"mine\n");
}

#[test]
fn of_a_dozen_started_in_the_same_instant_one_runs() {
    let database = Database::new();
    let host = Systole::on(&database);
    for round in 0..3 {
        let run = format!("r{round}");
        let script = "echo ran; sleep 1";
        let mut all: Vec<Running> = (0..12).map(|_| host.start(&["run", &run, "--", "sh", "-c", script])).collect();
        let codes: Vec<i32> = all.iter_mut().map(|one| one.code(SOON)).collect();
        assert_eq!(codes.iter().filter(|code| **code == 0).count(), 1, "{codes:?}");
        assert_eq!(codes.iter().filter(|code| **code == 75).count(), 11, "{codes:?}");
        assert_eq!(all.iter().filter(|one| one.output().contains("ran")).count(), 1);
    }
}

#[test]
fn a_silent_executor_of_another_host_is_taken_over_by_age() {
    let database = Database::new();
    database.pretend_old_server();
    let (here, there) = (Systole::on(&database).fast(), Systole::on(&database).fast());
    let first = there.start_run("r", "sleep 600");
    let mut waiter = here.start(&["run", "--wait", "r", "--", "echo", "mine"]);
    waiter.wait_for_errors("waiting for run", SOON);
    // A host that is gone: supervisor and guard stop at once, and no certificate is within reach.
    first.signal(Signal::STOP);
    assert_eq!(waiter.code(SOON), 0, "{}", waiter.errors());
    assert!(waiter.errors().contains("is stale: last heartbeat"), "{}", waiter.errors());
    let margins = "SELECT detail->>'margin_seconds' FROM systole.run_events WHERE kind = 'crashed'";
    assert!(database.value(margins).parse::<f64>().unwrap() >= 0.0);
    first.signal(Signal::CONT);
}

#[test]
fn a_cold_taker_confirms_before_it_believes_the_clock() {
    let database = Database::new();
    database.pretend_old_server();
    let (here, there) = (Systole::on(&database).fast(), Systole::on(&database).fast());
    let first = there.start_run("r", "sleep 600");
    first.signal(Signal::STOP);
    database.age_heartbeat("r", 5.0);
    let begun = std::time::Instant::now();
    let taken = here.output(&["run", "r", "--", "echo", "mine"]);
    let errors = String::from_utf8_lossy(&taken.stderr).into_owned();
    assert_eq!(taken.stdout, b"mine\n", "{errors}");
    assert!(errors.contains("Confirming for up to 4 s (--trust-db-clock skips this)"), "{errors}");
    assert!(begun.elapsed() >= Duration::from_secs(4), "it took over after {:?}", begun.elapsed());

    let second = there.start_run("s", "sleep 600");
    second.signal(Signal::STOP);
    database.age_heartbeat("s", 5.0);
    let begun = std::time::Instant::now();
    assert!(here.output(&["run", "--trust-db-clock", "s", "--", "true"]).status.success());
    assert!(begun.elapsed() < Duration::from_secs(3));
    first.signal(Signal::CONT);
    second.signal(Signal::CONT);
}

/// Nor does it promise to confirm what no wait can prove.
#[test]
fn where_no_death_can_be_proven_by_age_the_taker_says_so_at_once() {
    let database = Database::new();
    database.sql(
        "CREATE OR REPLACE FUNCTION systole.rw_since() RETURNS timestamptz LANGUAGE sql AS 'SELECT NULL::timestamptz'",
    );
    let (here, there) = (Systole::on(&database).fast(), Systole::on(&database).fast());
    let first = there.start_run("r", "sleep 600");
    first.signal(Signal::STOP);
    database.age_heartbeat("r", 5.0);
    let refused = here.output(&["run", "--trust-db-clock", "r", "--", "true"]);
    let errors = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(75), "{errors}");
    assert!(errors.contains("pg_read_all_stats. systole doctor shows"), "{errors}");
    assert!(!errors.contains("Confirming") && !errors.contains("--trust-db-clock"), "{errors}");
    first.signal(Signal::CONT);
}
