//! The primary dies under a running command, and a standby takes its place: with all that it knew, or without.

use super::server::{Server, worker};
use super::support::probe::{Probe, ends};
use super::support::{Database, Systole, boottime_ms, eventually};
use super::{PASSWORD, SOON, user};

/// A primary with a standby, and how to reach both, the standby first.
struct Pair {
    primary: Server,
    standby: Server,
    url: String,
}

impl Pair {
    fn new() -> Pair {
        let mut primary = Server::new();
        worker(&primary.database, "survivor");
        let standby = primary.standby();
        let (one, two) = (standby.port(), primary.port());
        let url = format!("host=127.0.0.1,127.0.0.1 port={one},{two} dbname=systole user=survivor");
        Pair { primary, standby, url }
    }

    /// Somewhere else, with timing that is a tenth of the default; but there is time to go on from where nothing can be
    /// kept frozen.
    fn host(&self) -> Systole {
        let host = user(&self.primary.database, &self.url).with("PGPASSWORD", PASSWORD).fast();
        host.with("SYSTOLE_STALE_AFTER", "10s")
    }

    fn primary(&self) -> &Database {
        &self.primary.database
    }

    fn standby(&self) -> &Database {
        &self.standby.database
    }

    /// The primary ends as in a crash. The standby goes on by itself.
    fn fail_over(&self) {
        self.primary.own.crash();
        self.standby().sql("SELECT pg_promote()");
        eventually("a promotion", SOON, || (self.standby().value("SELECT pg_is_in_recovery()") == "f").then_some(()));
    }
}

#[test]
fn a_run_that_the_new_primary_knows_goes_on() {
    let pair = Pair::new();
    let host = pair.host();
    let probe = Probe::new(&host, "probe");
    let running = probe.start(&host, "r");
    // It is held on the primary, though the standby was asked first; and both know.
    assert_eq!(ends(pair.primary(), "r"), ["RUNNING"]);
    eventually("replication", SOON, || (ends(pair.standby(), "r") == ["RUNNING"]).then_some(()));
    pair.primary.own.crash();
    running.wait_for_errors("The command is ", SOON);
    pair.standby().sql("SELECT pg_promote()");
    running.wait_for_errors("the command goes on", SOON);
    probe.wait_for_stamp_after(boottime_ms(), SOON);
    // Nobody else gets it, neither here nor elsewhere.
    for other in [&host, &pair.host()] {
        let refused = other.output(&["run", "r", "--", "echo", "never"]);
        assert_eq!((refused.status.code(), refused.stdout.as_slice()), (Some(75), b"".as_slice()));
    }
    assert_eq!(ends(pair.standby(), "r"), ["RUNNING"]);
    let finished = host.output(&["stop", "--wait", "r"]);
    assert!(finished.status.success(), "{}", String::from_utf8_lossy(&finished.stderr));
    assert_eq!(ends(pair.standby(), "r"), ["CANCELLED 143"]);
}

#[test]
fn a_run_that_the_new_primary_never_heard_of_is_lost_before_another_one_starts() {
    let pair = Pair::new();
    let host = pair.host();
    // From here on the standby hears nothing.
    pair.standby.set(&[("primary_conninfo", "")]);
    let followers = "SELECT count(*) FROM pg_stat_replication";
    eventually("a deaf standby", SOON, || (pair.primary().value(followers) == "0").then_some(()));
    let probe = Probe::new(&host, "probe");
    let mut running = probe.start(&host, "r");
    pair.fail_over();
    assert_eq!(running.code(SOON), 76, "{}", running.errors());
    assert!(running.errors().contains("was lost"), "{}", running.errors());
    assert!(probe.mark.living().is_empty(), "it lives");
    let next = host.output(&["run", "r", "--", "echo", "mine"]);
    assert_eq!(next.stdout, b"mine\n", "{}", String::from_utf8_lossy(&next.stderr));
    assert_eq!(ends(pair.standby(), "r"), ["COMPLETED 0"]);
}
