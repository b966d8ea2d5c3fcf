//! The primary dies under a running command, and a standby takes its place: with all that it knew, or without.

use super::server::{Server, worker};
use super::support::probe::{Probe, ends};
use super::support::{Database, Systole, boottime_ms, eventually};
use super::{PASSWORD, SOON, assert_good, assert_told, user};

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

    /// From here on the standby hears nothing.
    fn deafen(&self) {
        self.standby.set(&[("primary_conninfo", "")]);
        let followers = "SELECT count(*) FROM pg_stat_replication";
        eventually("a deaf standby", SOON, || (self.primary().value(followers) == "0").then_some(()));
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

/// On the old primary somebody may have taken the run over by then, of which the new one knows nothing.
#[test]
fn who_was_silent_for_long_enough_to_be_succeeded_waits_until_a_successor_would_have_come_back() {
    let pair = Pair::new();
    let host = pair.host();
    if host.containment()["freezer"] != true {
        eprintln!("skipped: without a freezer it is killed");
        return;
    }
    pair.primary().sql("UPDATE systole.settings SET stale_after_max = '12 s'");
    let probe = Probe::new(&host, "probe");
    let running = probe.start(&host, "r");
    eventually("replication", SOON, || (ends(pair.standby(), "r") == ["RUNNING"]).then_some(()));
    let away = boottime_ms();
    pair.primary.own.crash();
    running.wait_for_errors("The command is ", SOON);
    eventually("stale_after", SOON, || (boottime_ms() > away + 10_000).then_some(()));
    let frozen = probe.last_stamp();
    pair.standby().sql("SELECT pg_promote()");
    eventually("a promotion", SOON, || (pair.standby().value("SELECT pg_is_in_recovery()") == "f").then_some(()));
    let promoted = boottime_ms();
    let beaten = "SELECT last_heartbeat > systole.rw_since() FROM systole.executor_instances";
    eventually("heartbeats on the new primary", SOON, || (pair.standby().value(beaten) == "t").then_some(()));
    running.wait_for_errors("the command goes on", SOON);
    let on = boottime_ms();
    assert!(on > promoted + 10_000, "after {} ms only: {}", on - promoted, running.errors());
    probe.wait_for_stamp_after(on, SOON);
    let early = probe.stamps().into_iter().filter(|stamp| (frozen + 1..promoted + 10_000).contains(stamp)).count();
    assert_eq!(early, 0, "{}", running.errors());
}

/// What a failover has lost, and for how long nobody is to start anything behind it.
#[test]
fn a_run_whose_claim_got_lost_goes_on_and_nothing_starts_until_all_can_have_come_back() {
    let pair = Pair::new();
    let host = pair.host();
    pair.primary().sql("UPDATE systole.settings SET stale_after_max = '12 s'");
    pair.deafen();
    let probe = Probe::new(&host, "probe");
    let _running = probe.start(&host, "r");
    pair.fail_over();
    let promoted = boottime_ms();
    eventually("it is known again", SOON, || (ends(pair.standby(), "r") == ["RUNNING"]).then_some(()));
    probe.wait_for_stamp_after(boottime_ms(), SOON);
    let told = "SELECT kind FROM systole.run_events WHERE run_id = 'r' ORDER BY id";
    assert_eq!(pair.standby().sql(told), [["readopted"]]);

    // Neither it nor anything else is given to anybody.
    let elsewhere = pair.host();
    let refused = elsewhere.output(&["run", "r", "--", "echo", "never"]);
    assert_eq!(refused.status.code(), Some(75), "{}", String::from_utf8_lossy(&refused.stderr));
    let refused = elsewhere.output(&["run", "s", "--", "echo", "never"]);
    assert_told(&refused, 75, &["PostgreSQL has failed over", "until", "UTC"]);
    let mut waiting = elsewhere.start(&["run", "s", "--wait", "--", "echo", "mine"]);
    waiting.wait_for_errors("nothing is started anew until", SOON);
    assert_eq!(waiting.code(SOON), 0, "{}", waiting.errors());
    assert!(boottime_ms() > promoted + 10_000, "too early: {}", waiting.errors());
    assert_eq!(ends(pair.standby(), "s"), ["COMPLETED 0"]);

    assert!(host.output(&["stop", "--wait", "r"]).status.success());
    assert_eq!(ends(pair.standby(), "r"), ["CANCELLED 143"]);
    assert_good(&host.output(&["audit"]));
}

#[test]
fn an_end_that_got_lost_is_told_again_by_its_host() {
    let pair = Pair::new();
    let host = pair.host();
    let gate = host.state.path().join("gate");
    let script = format!("until test -e {}; do sleep 0.01; done; exit 3", gate.display());
    let mut known = host.start(&["run", "known", "--", "sh", "-c", &script]);
    eventually("replication", SOON, || (ends(pair.standby(), "known") == ["RUNNING"]).then_some(()));
    pair.deafen();
    // Of the one its end gets lost, of the other one all.
    std::fs::write(&gate, "").unwrap();
    assert_eq!(known.code(SOON), 3);
    assert_eq!(host.output(&["run", "unknown", "--", "true"]).status.code(), Some(0));
    pair.fail_over();
    assert_eq!(ends(pair.standby(), "known"), ["RUNNING"]);
    assert_eq!(ends(pair.standby(), "unknown"), [""; 0]);

    // Whoever comes next says it, whatever becomes of himself; and it is said once.
    for _ in 0..2 {
        assert_eq!(host.output(&["run", "other", "--", "true"]).status.code(), Some(75));
        assert_eq!(ends(pair.standby(), "known"), ["FAILED 3"]);
        assert_eq!(ends(pair.standby(), "unknown"), ["COMPLETED 0"]);
    }
    let told = "SELECT run_id, kind FROM systole.run_events WHERE run_id <> 'other' ORDER BY run_id, id";
    let expected = [["known", "claimed"], ["known", "failed"], ["unknown", "readopted"], ["unknown", "completed"]];
    assert_eq!(pair.standby().sql(told), expected);
    assert_good(&host.output(&["audit"]));
}

/// Three lives of one run: its host knows how the first ended, and is at work on the second.
#[test]
fn a_tenure_behind_one_whose_end_got_lost_is_taken_up_again() {
    let pair = Pair::new();
    let host = pair.host();
    let gate = host.state.path().join("gate");
    let script = format!("until test -e {}; do sleep 0.01; done", gate.display());
    let mut first = host.start(&["run", "r", "--", "sh", "-c", &script]);
    eventually("replication", SOON, || (ends(pair.standby(), "r") == ["RUNNING"]).then_some(()));
    pair.deafen();
    std::fs::write(&gate, "").unwrap();
    assert_eq!(first.code(SOON), 0);
    let probe = Probe::new(&host, "probe");
    let _running = probe.start(&host, "r");
    pair.fail_over();
    // That the first one has ended follows from the second; how, is told by its certificate, if that comes first.
    eventually("both", SOON, || (ends(pair.standby(), "r") == ["RELEASED", "RUNNING"]).then_some(()));
    probe.wait_for_stamp_after(boottime_ms(), SOON);
    assert_eq!(host.output(&["run", "other", "--", "true"]).status.code(), Some(75));
    assert_eq!(ends(pair.standby(), "r"), ["RELEASED", "RUNNING"]);
    assert_good(&host.output(&["audit"]));
}

#[test]
fn a_failover_that_loses_nothing_costs_no_wait() {
    let pair = Pair::new();
    let host = pair.host();
    pair.primary().sql("UPDATE systole.settings SET lossless_failover = true");
    pair.primary.set(&[("synchronous_standby_names", "*")]);
    assert_eq!(host.output(&["run", "done", "--", "true"]).status.code(), Some(0));
    let probe = Probe::new(&host, "probe");
    let _running = probe.start(&host, "r");
    pair.fail_over();
    assert_eq!(ends(pair.standby(), "done"), ["COMPLETED 0"]);
    assert_eq!(ends(pair.standby(), "r"), ["RUNNING"]);
    let next = pair.host().output(&["run", "next", "--", "true"]);
    assert_eq!(next.status.code(), Some(0), "{}", String::from_utf8_lossy(&next.stderr));
}

#[test]
fn a_former_primary_is_known_again_and_left_alone() {
    let mut pair = Pair::new();
    let host = pair.host();
    assert_eq!(host.output(&["run", "before", "--", "true"]).status.code(), Some(0));
    pair.fail_over();
    pair.standby().sql("UPDATE systole.settings SET lossless_failover = true");
    assert_eq!(host.output(&["run", "after", "--", "true"]).status.code(), Some(0));
    // It comes back as what it was.
    pair.primary.own.start();
    let (one, two) = (pair.primary.port(), pair.standby.port());
    let former_first = format!("host=127.0.0.1,127.0.0.1 port={one},{two} dbname=systole user=survivor");
    assert_eq!(host.output(&["run", "third", "--database-url", &former_first, "--", "true"]).status.code(), Some(0));
    assert_eq!(ends(pair.standby(), "third"), ["COMPLETED 0"]);
    let former = format!("host=127.0.0.1 port={one} dbname=systole user=survivor");
    let refused = host.output(&["run", "fourth", "--database-url", &former, "--", "true"]);
    assert_told(&refused, 69, &["is not the primary any more", "timeline 2", "outbox"]);
    assert_eq!(ends(pair.primary(), "fourth"), [""; 0]);
}

#[test]
fn a_node_takes_up_what_it_held_and_goes_on_when_the_wait_is_over() {
    let pair = Pair::new();
    let host = pair.host();
    pair.primary().sql("UPDATE systole.settings SET stale_after_max = '12 s'");
    let gate = host.state.path().join("gate");
    let work = format!(
        "until test -e {}; do sleep 0.01; done; echo $SYSTOLE_RUN_ID >> {}/done",
        gate.display(),
        host.state.path().display()
    );
    for n in 0..4 {
        let name = format!("r{n}");
        assert!(host.output(&["submit", &name, "--", "sh", "-c", &work]).status.success());
    }
    eventually("replication", SOON, || {
        (pair.standby().value("SELECT count(*) FROM systole.runs") == "4").then_some(())
    });
    pair.deafen();
    let mut node = host.start(&["node", "--slots", "2", "--once", "--allow-submitted-commands"]);
    let running = "SELECT count(*) FROM systole.executor_instances WHERE status = 'RUNNING' AND child_pid IS NOT NULL";
    eventually("two at work", SOON, || (pair.primary().value(running) == "2").then_some(()));
    pair.fail_over();
    node.wait_for_errors("PostgreSQL continues", SOON);
    eventually("two that were taken up again", SOON, || (pair.standby().value(running) == "2").then_some(()));
    std::fs::write(&gate, "").unwrap();
    assert_eq!(node.code(SOON), 0, "{}", node.errors());
    assert!(node.errors().contains("nothing is started anew until"), "{}", node.errors());
    let done = std::fs::read_to_string(host.state.path().join("done")).unwrap();
    let mut done: Vec<&str> = done.lines().collect();
    done.sort_unstable();
    assert_eq!(done, ["r0", "r1", "r2", "r3"], "{}", node.errors());
    assert_good(&host.output(&["audit"]));
}
