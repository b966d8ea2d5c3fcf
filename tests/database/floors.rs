//! `oldest_allowed`: a program that is too old ends the work it has, and takes up no more.

use super::support::{Database, Systole, eventually};
use super::{SOON, assert_sound, expect, kinds, until};

#[test]
fn below_the_floor_everything_is_refused_and_what_runs_goes_on() {
    let database = Database::new();
    let host = Systole::on(&database).fast();
    let done = host.state.path().join("done");
    let mut run = host.start_run("r", &until(&done));
    database.sql("UPDATE systole.settings SET oldest_allowed = '99.0.0'");
    for arguments in [
        &["run", "s", "--", "true"] as &[&str],
        &["run", "s", "--wait", "--", "true"],
        &["status"],
        &["status", "r"],
        &["ps"],
        &["check", "r"],
        &["events", "r"],
        &["events", "r", "--follow"],
        &["stop", "r"],
        &["takeover", "r", "--force"],
    ] {
        expect(&host.output(arguments), 78, &["too old", "99.0.0 is the oldest allowed", "upgrade it on this host"]);
    }
    expect(&host.output(&["doctor"]), 1, &["too old", "99.0.0"]);

    // Also on a connection that it has to make anew.
    let cut = "SELECT count(pg_terminate_backend(pid)) > 0 FROM pg_stat_activity
                WHERE datname = current_database() AND pid <> pg_backend_pid() AND application_name = 'systole'";
    assert_eq!(database.value(cut), "t");
    let at = database.value("SELECT clock_timestamp()");
    let beaten = format!("SELECT count(*) FROM systole.executor_instances WHERE last_heartbeat > '{at}'");
    eventually("a heartbeat", SOON, || (database.value(&beaten) == "1").then_some(()));
    // Cut before it ends, because it ends at once, and its connection with it: its end finds a broken one.
    assert_eq!(database.value(cut), "t");
    std::fs::write(&done, "").unwrap();
    assert_eq!(run.code(SOON), 0, "{}", run.errors());
    assert_eq!(kinds(&database, "r"), ["claimed", "completed"]);
    assert_sound(&database);
}

#[test]
fn a_floor_that_would_shut_out_who_sets_it_is_refused_and_so_is_one_that_is_no_version() {
    let database = Database::new();
    let host = Systole::on(&database);
    for wrong in ["99.0.0", "0.1.1", "1.0", "0.1", "latest", "", "0.1.0.0", "-1.0.0"] {
        let flag = format!("--oldest-allowed={wrong}");
        for arguments in [&["migrate", &flag] as &[&str], &["migrate", "--dry-run", &flag]] {
            expect(
                &host.output(arguments),
                78,
                &["oldest allowed", &format!("{wrong:?}"), "at most this one's: 0.1.0"],
            );
        }
    }
    let floor = "SELECT oldest_allowed FROM systole.settings";
    assert_eq!(database.value(floor), "0.0.0");
    expect(&host.output(&["migrate", "--dry-run", "--oldest-allowed", "0.1.0"]), 0, &[]);
    assert_eq!(database.value(floor), "0.0.0");
    expect(&host.output(&["migrate", "--oldest-allowed", "0.1.0"]), 0, &["systole 0.1.0 is the oldest"]);
    assert_eq!(database.value(floor), "0.1.0");
    expect(&host.output(&["run", "r", "--", "true"]), 0, &[]);
}
