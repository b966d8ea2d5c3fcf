//! Passwords that change under a running command.

use std::time::Duration;

use super::server::{by_tcp, terminate, worker};
use super::support::probe::{Probe, ends};
use super::support::{Database, Running, Systole, boottime_ms, eventually};
use super::{PASSWORD, SOON, WRONG, told, user, write};

/// Tenths of the default timing; but there is time to go on from where nothing can be kept frozen.
fn fast(host: Systole) -> Systole {
    host.fast().with("SYSTOLE_STALE_AFTER", "10s")
}

/// Waits for a heartbeat that came by a session of later than this.
#[track_caller]
fn wait_for_heartbeat_after(database: &Database, moment: &str) {
    let heard = format!("SELECT count(*) FROM systole.executor_instances WHERE last_heartbeat > '{moment}'");
    eventually("a heartbeat", SOON, || (database.value(&heard) == "1").then_some(()));
}

fn moment(database: &Database) -> String {
    database.value("SELECT clock_timestamp()")
}

#[test]
fn a_passfile_is_read_anew_and_the_command_goes_on() {
    let database = Database::new();
    worker(&database, "rotated");
    // F is 15 s, as by default: nobody notices anything.
    let host =
        user(&database, &format!("{} user=rotated", by_tcp(&database))).with("SYSTOLE_HEARTBEAT_INTERVAL", "300ms");
    let passfile = |password: &str| write(&host, "home/.pgpass", 0o600, &format!("*:*:*:rotated:{password}\n"));
    passfile(PASSWORD);
    let probe = Probe::new(&host, "probe");
    let running = probe.start(&host, "r");
    for next in ["second-of-them", "third-of-them"] {
        database.sql(&format!("ALTER ROLE rotated PASSWORD '{next}'"));
        passfile(next);
        terminate(&database, "rotated");
        wait_for_heartbeat_after(&database, &moment(&database));
        probe.wait_for_stamp_after(boottime_ms(), SOON);
    }
    assert!(!running.errors().contains("The command is"), "{}", running.errors());
    let stamps = probe.stamps();
    let pause = stamps.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap_or(0);
    assert!(pause < 1000, "it paused for {pause} ms");
    assert_eq!(ends(&database, "r"), ["RUNNING"]);
}

/// A run whose password has become wrong, beyond F.
fn locked_out(database: &Database, host: &Systole, running: &Running) {
    database.sql(&format!("ALTER ROLE locked PASSWORD '{WRONG}'"));
    terminate(database, "locked");
    running.wait_for_errors("The command is ", SOON);
    let errors = running.errors();
    assert!(errors.contains("refuses us: password authentication failed"), "{errors}");
    assert!(!errors.contains(PASSWORD) && !errors.contains(WRONG), "{errors}");
    // Nobody else comes in by it either.
    assert_eq!(host.output(&["run", "r", "--", "echo", "never"]).stdout, b"");
}

#[test]
fn a_password_that_has_become_wrong_freezes_until_it_is_put_right() {
    let database = Database::new();
    worker(&database, "locked");
    let host = fast(user(&database, &format!("{} user=locked password={PASSWORD}", by_tcp(&database))));
    let probe = Probe::new(&host, "probe");
    let mut running = probe.start(&host, "r");
    locked_out(&database, &host, &running);
    database.sql(&format!("ALTER ROLE locked PASSWORD '{PASSWORD}'"));
    running.wait_for_errors("the command goes on", SOON);
    probe.wait_for_stamp_after(boottime_ms(), SOON);
    assert_eq!(ends(&database, "r"), ["RUNNING"]);

    // What ends meanwhile waits for it as well.
    database.sql(&format!("ALTER ROLE locked PASSWORD '{WRONG}'"));
    terminate(&database, "locked");
    running.signal(rustix::process::Signal::TERM);
    running.wait_for_errors("that cannot be recorded yet", SOON);
    assert_eq!(ends(&database, "r"), ["RUNNING"]);
    database.sql(&format!("ALTER ROLE locked PASSWORD '{PASSWORD}'"));
    assert_eq!(running.code(SOON), 143, "{}", running.errors());
    assert_eq!(ends(&database, "r"), ["CANCELLED 143"]);

    // Or, if one has no patience, is certified, and recorded by the next one that comes in.
    let mut running = probe.start(&host, "r");
    probe.wait_for_stamp_after(boottime_ms(), SOON);
    database.sql(&format!("ALTER ROLE locked PASSWORD '{WRONG}'"));
    terminate(&database, "locked");
    running.signal(rustix::process::Signal::TERM);
    running.wait_for_errors("that cannot be recorded yet", SOON);
    // Not the same one twice: the second might meet the first before it is taken.
    running.signal(rustix::process::Signal::TERM);
    running.signal(rustix::process::Signal::INT);
    assert_eq!(running.code(SOON), 69, "{}", running.errors());
    assert!(running.errors().contains("certified on this host"), "{}", running.errors());
    assert_eq!(ends(&database, "r"), ["CANCELLED 143", "RUNNING"]);
    database.sql(&format!("ALTER ROLE locked PASSWORD '{PASSWORD}'"));
    let next = host.output(&["run", "r", "--", "true"]);
    assert_eq!(next.status.code(), Some(0), "{}", told(&next));
    assert_eq!(ends(&database, "r"), ["CANCELLED 143", "CANCELLED 143", "COMPLETED 0"]);
    probe.mark.wait_for_death(Duration::from_secs(1));
}
