//! `stop --wait` comes back when the old one is over and not before, or says that nobody can know.

use std::time::Instant;

use rustix::process::Signal;

use crate::support::probe::{Asleep, Mark, Probe};
use crate::support::{Database, Systole};
use crate::{SOON, expect};

#[test]
fn a_command_that_ignores_the_stop_is_dead_when_it_comes_back() {
    let database = Database::new();
    let (host, elsewhere) = (Systole::on(&database).with("SYSTOLE_STOP_GRACE", "500ms"), Systole::on(&database));
    let mark = Mark::new();
    let script = "trap '' TERM; sleep 100 & echo ready; while :; do sleep 0.05; done";
    for stopper in [&host, &elsewhere] {
        let mut running = host.start(&["run", "r", "--", "env", &mark.variable(), "sh", "-c", script]);
        running.wait_for_output("ready");
        let asked = Instant::now();
        let stopped = stopper.output(&["stop", "r", "--wait"]);
        assert!(mark.living().is_empty(), "{stopped:?}");
        let text = String::from_utf8(stopped.stdout).unwrap();
        assert!(stopped.status.success() && text.contains("has ended: CANCELLED, exit code 137"), "{text}");
        assert!(asked.elapsed().as_millis() >= 500, "it was not given the time to ignore it");
        assert_eq!(running.code(SOON), 137);
    }
    // What was asked for is so already; but not of something that nobody has heard of.
    let again = elsewhere.output(&["stop", "r", "--wait"]);
    assert!(again.status.success(), "{again:?}");
    expect(&elsewhere.output(&["stop", "r"]), 64, &["not running"]);
    expect(&elsewhere.output(&["stop", "nothing", "--wait"]), 64, &["not running"]);
    assert!(elsewhere.output(&["submit", "queued", "--", "true"]).status.success());
    expect(&elsewhere.output(&["stop", "queued", "--wait"]), 64, &["not running"]);
    expect(&elsewhere.output(&["stop", "r", "--wait=soon"]), 64, &["--wait", "\"soon\""]);
}

#[test]
fn a_holder_that_died_here_is_buried_by_whoever_waits_for_its_end() {
    let database = Database::new();
    let host = Systole::on(&database);
    let mark = Mark::new();
    let mut running = host.start(&["run", "r", "--", "env", &mark.variable(), "sh", "-c", "echo ready; sleep 100"]);
    running.wait_for_output("ready");
    running.signal(Signal::KILL);
    running.wait(SOON);
    let stopped = host.output(&["stop", "r", "--wait=20s"]);
    assert!(stopped.status.success(), "{stopped:?}");
    let text = String::from_utf8(stopped.stdout).unwrap();
    assert!(text.contains("has ended: CRASHED, proof"), "{text}");
    assert!(mark.living().is_empty());
    assert_eq!(database.value("SELECT status FROM systole.runs"), "CRASHED");
    assert_eq!(host.output(&["run", "r", "--", "echo", "next"]).stdout, b"next\n");
}

/// It cannot be known to be over: nobody is told that it is.
#[test]
fn a_holder_elsewhere_that_says_nothing_is_not_said_to_have_ended() {
    let database = Database::new();
    let (host, elsewhere) = (Systole::on(&database), Systole::on(&database));
    let probe = Probe::new(&host, "probe");
    let mut running = probe.start(&host, "r");
    let asleep = Asleep::now(running.pid(), &probe.mark);
    expect(&elsewhere.output(&["stop", "r", "--wait=300ms"]), 75, &["is still held by", "waited for no longer"]);
    database.age_heartbeat("r", 40.0);
    expect(
        &elsewhere.output(&["stop", "r", "--wait=300ms"]),
        75,
        &["which is silent: last heartbeat 40 s ago", "waiting for proof of its end"],
    );
    database.age_heartbeat("r", 66.0);
    expect(
        &elsewhere.output(&["stop", "r", "--wait"]),
        75,
        &["which is silent: last heartbeat 66 s ago (stale after 30 s)", "systole run r -- COMMAND"],
    );
    // Taken away by force it may be at work as well.
    assert!(elsewhere.output(&["takeover", "r", "--force"]).status.success());
    expect(&elsewhere.output(&["stop", "r", "--wait=300ms"]), 75, &["may still be worked on by"]);
    drop(asleep);
    assert_eq!(running.code(SOON), 76);
    assert!(elsewhere.output(&["stop", "r", "--wait"]).status.success());
    assert!(probe.mark.living().is_empty());
}
