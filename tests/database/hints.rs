//! NOTIFY is a hint that comes at once; without it everything would be seen a poll or a heartbeat later.
//!
//! What is compared lies far from both: a hint takes milliseconds, and a poll or a heartbeat most of a second at least,
//! because each time begins right behind a look of whoever is to be told.

use std::time::{Duration, Instant};

use super::support::{Database, Running, Systole, eventually};
use super::{SOON, assert_sound, expect, until};

/// Of a poll's second, which has just begun: less than this is no poll.
const AT_ONCE: Duration = Duration::from_millis(450);

/// A machine that stalls may be late for one, but hardly for all of these.
const TRIES: usize = 4;

/// The same host, under a name by which its sessions are known.
fn named(host: &Systole, database: &Database, name: &str) -> Systole {
    host.clone().with("SYSTOLE_DATABASE_URL", &format!("{}&application_name={name}", database.url))
}

/// Waits for the next statement of this kind in a session of this name.
#[track_caller]
fn wait_for_a_look(database: &Database, name: &str, statement: &str) {
    let seen = format!(
        "SELECT coalesce(max(query_start)::text, '') FROM pg_stat_activity
          WHERE application_name = '{name}' AND datname = current_database() AND query LIKE '%{statement}%'"
    );
    let before = database.value(&seen);
    eventually("a look", SOON, || {
        let now = database.value(&seen);
        (now != before && !now.is_empty()).then_some(())
    });
}

#[test]
fn a_stop_is_heard_long_before_the_next_heartbeat() {
    let database = Database::new();
    // Nothing but the first two heartbeats, and a stop, can be seen within the time of this test.
    let host = Systole::on(&database)
        .with("SYSTOLE_HEARTBEAT_INTERVAL", "12s")
        .with("SYSTOLE_FENCE_AFTER", "40s")
        .with("SYSTOLE_STALE_AFTER", "60s");
    let mut run = host.start_run("r", "exec sleep 1000");
    let told = "SELECT count(*) FROM systole.executor_instances WHERE child_pid IS NOT NULL";
    eventually("the heartbeat that tells of its command", SOON, || (database.value(told) == "1").then_some(()));
    let asked = Instant::now();
    expect(&host.output(&["stop", "r"]), 0, &[]);
    assert_eq!(run.code(SOON), 143, "{}", run.errors());
    assert!(asked.elapsed() < Duration::from_secs(6), "heard only after {:?}", asked.elapsed());
}

/// On another host, where there is no guard to watch. Measured by the database's clock, from the end to the claim.
#[test]
fn a_waiter_on_another_host_has_the_run_at_once_when_it_ends() {
    let database = Database::new();
    let (host, other) = (Systole::on(&database), Systole::on(&database));
    let mut shortest = Duration::MAX;
    for attempt in 0..TRIES {
        let done = host.state.path().join(format!("done-{attempt}"));
        let mut holder = host.start_run("r", &until(&done));
        let name = format!("waiter{attempt}");
        let mut waiter = named(&other, &database, &name).start(&["run", "r", "--wait", "--", "true"]);
        waiter.wait_for_errors("waiting for run", SOON);
        wait_for_a_look(&database, &name, "systole.claim");
        std::fs::write(&done, "").unwrap();
        assert_eq!(holder.code(SOON), 0, "{}", holder.errors());
        assert_eq!(waiter.code(SOON), 0, "{}", waiter.errors());
        let gap = database.value(
            "SELECT extract(epoch FROM max(at) FILTER (WHERE kind = 'claimed') - min(at) FILTER (WHERE kind = 'completed'))
               FROM (SELECT * FROM systole.run_events ORDER BY id DESC LIMIT 3) AS newest",
        );
        shortest = shortest.min(Duration::from_secs_f64(gap.parse().unwrap()));
        if shortest < AT_ONCE {
            break;
        }
    }
    assert!(shortest < AT_ONCE, "at best {shortest:?}");
    assert_sound(&database);
}

#[test]
fn a_follower_is_shown_the_end_at_once() {
    let database = Database::new();
    let host = Systole::on(&database);
    let follow = |name: &str| -> Running {
        let follower = named(&host, &database, name).start(&["events", "r", "--follow"]);
        follower.wait_for_output("claimed");
        follower
    };
    let mut shortest = Duration::MAX;
    for attempt in 0..TRIES {
        let done = host.state.path().join(format!("done-{attempt}"));
        let mut holder = host.start_run("r", &until(&done));
        let name = format!("follower{attempt}");
        let follower = follow(&name);
        let shown = follower.output().matches("completed").count();
        wait_for_a_look(&database, &name, "systole.run_events");
        std::fs::write(&done, "").unwrap();
        let recorded = "SELECT count(*) FROM systole.executor_instances WHERE status = 'RUNNING'";
        eventually("its end in the database", SOON, || (database.value(recorded) == "0").then_some(()));
        let ended = Instant::now();
        eventually("its end on the screen", SOON, || {
            (follower.output().matches("completed").count() > shown).then_some(())
        });
        shortest = shortest.min(ended.elapsed());
        assert_eq!(holder.code(SOON), 0, "{}", holder.errors());
        if shortest < AT_ONCE {
            break;
        }
    }
    assert!(shortest < AT_ONCE, "at best {shortest:?}");
}

/// Payloads that are none of ours, from whoever may NOTIFY: nobody stumbles, and nobody stops for them.
#[test]
fn hints_that_are_nonsense_or_lies_change_nothing() {
    let database = Database::new();
    let host = Systole::on(&database).fast();
    let run = host.start_run("r", "exec sleep 1000");
    let follower = host.start(&["events", "r", "--follow"]);
    follower.wait_for_output("claimed");
    let waiter = host.start(&["run", "r", "--wait", "--", "true"]);
    waiter.wait_for_errors("waiting for run", SOON);
    for payload in
        ["", "ended", "ended r", "asked r", "claimed r", "ended ../r", "gone r", "ended r r", &"x".repeat(7999)]
    {
        database.sql(&format!("SELECT pg_notify('systole', '{payload}') FROM generate_series(1, 100)"));
    }
    let at = database.value("SELECT clock_timestamp()");
    let beaten = format!("SELECT count(*) FROM systole.executor_instances WHERE last_heartbeat > '{at}'");
    eventually("a heartbeat", SOON, || (database.value(&beaten) == "1").then_some(()));
    expect(&host.output(&["status", "r"]), 0, &["RUNNING"]);
    assert_eq!(super::kinds(&database, "r"), ["claimed"]);
    drop((run, follower, waiter));
}
