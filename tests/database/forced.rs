//! `takeover --force`: revoked at once, and handed over only when the old command is known to be dead, or told to be.

use std::time::{Duration, Instant};

use super::support::probe::{Asleep, Probe, ends};
use super::support::{Database, Systole, boottime_ms, eventually};
use super::{SOON, assert_sound, expect, kinds};

/// The fence of the run's newest attempt.
fn fence_of(database: &Database, run_id: &str) -> String {
    let newest = "SELECT fence FROM systole.executor_instances WHERE run_id = ";
    database.value(&format!("{newest}'{run_id}' ORDER BY attempt DESC LIMIT 1"))
}

#[track_caller]
fn assert_superseded(database: &Database, run_id: &str, fence: &str) {
    let error = database.try_sql(&format!("SELECT systole.fence('{run_id}', {fence})")).unwrap_err();
    assert!(error.as_db_error().unwrap().message().contains("was superseded"), "{error:?}");
}

fn bars(database: &Database) -> String {
    database.value("SELECT count(*) FROM systole.executor_instances WHERE bars_successor")
}

/// What its end says of itself.
fn crash(database: &Database, run_id: &str) -> Vec<Vec<String>> {
    database.sql(&format!(
        "SELECT detail->>'cause', detail->>'unsafe', detail->>'taken_away_by' LIKE '%@%' FROM systole.run_events
          WHERE run_id = '{run_id}' AND kind = 'crashed' ORDER BY id"
    ))
}

/// Between its last heartbeat and its successor's claim, by the database's clock.
fn silence(database: &Database, run_id: &str) -> f64 {
    let text = database.value(&format!(
        "SELECT extract(epoch FROM two.started_at - one.last_heartbeat) FROM systole.executor_instances one
           JOIN systole.executor_instances two USING (run_id)
          WHERE run_id = '{run_id}' AND one.attempt = 1 AND two.attempt = 2"
    ));
    text.parse().unwrap()
}

#[test]
fn a_live_holder_is_fenced_at_once_and_followed_when_its_tree_is_dead() {
    let database = Database::new();
    // The successor on the same host, and on another: there the holder's own word is all there is, and L is 30 s.
    for (run, same_host) in [("here", true), ("there", false)] {
        let host = Systole::on(&database);
        let other = if same_host { host.clone() } else { Systole::on(&database) };
        let (first, second) = (Probe::new(&host, "first"), Probe::new(&other, "second"));
        let mut holder = first.start(&host, run);
        let waiter = second.start_waiting(&other, run, &["--wait"]);
        waiter.wait_for_errors("waiting for run", SOON);
        let fence = fence_of(&database, run);
        database.sql(&format!("SELECT systole.fence('{run}', {fence})"));

        expect(&other.output(&["takeover", run, "--force"]), 0, &["was taken away from executor", "fenced at once"]);
        assert_superseded(&database, run, &fence);
        second.wait_for_stamp_after(0, Duration::from_secs(15));
        assert!(first.mark.living().is_empty(), "two trees at once");
        assert!(first.last_stamp() < second.stamps()[0], "the spans overlap");
        assert_eq!(holder.code(SOON), 76, "{}", holder.errors());
        assert_eq!(ends(&database, run), ["CRASHED forced", "RUNNING"]);
        assert_eq!(crash(&database, run), [["forced", "false", "t"]]);
        assert_eq!(kinds(&database, run), ["claimed", "crashed", "unbarred", "claimed"]);
        assert_superseded(&database, run, &fence);
        assert_eq!(bars(&database), "0");
        assert!(waiter.errors().contains("was taken away from executor"), "{}", waiter.errors());
        assert_sound(&database);
    }
}

#[test]
fn a_holder_that_says_nothing_bars_its_successor_until_it_has_been_silent_for_long_enough() {
    let database = Database::new();
    database.pretend_old_server();
    let (host, other) = (Systole::on(&database).fast(), Systole::on(&database).fast());
    // One that waits for as long as it takes, and one that only confirms the death that it has found.
    for (run, flags) in [("waiting", &["--wait"] as &[&str]), ("confirming", &[])] {
        let (first, second) = (Probe::new(&host, run), Probe::new(&other, run));
        let mut holder = first.start(&host, run);
        let fence = fence_of(&database, run);
        let asleep = Asleep::now(holder.pid(), &first.mark);
        expect(&other.output(&["takeover", run, "--force"]), 0, &["a successor starts when that is proven, or 4 s"]);
        assert_superseded(&database, run, &fence);
        assert_eq!(bars(&database), "1");
        let check = other.output(&["check", run]);
        assert!(String::from_utf8_lossy(&check.stdout).contains("may still be worked on"), "{check:?}");
        assert_eq!(check.status.code(), Some(75));
        // Again changes nothing, and is no second death.
        expect(&other.output(&["takeover", run, "--force"]), 0, &[]);
        assert_eq!(bars(&database), "1");
        let successor = second.start_waiting(&other, run, flags);
        // Which no flag skips but one: --unsafe-now.
        successor.wait_for_errors("but its command may still be at work. Confirming for up to 4 s\n", SOON);
        second.wait_for_stamp_after(0, SOON);
        let silence = silence(&database, run);
        assert!((4.0..9.0).contains(&silence), "followed {silence} s after the last heartbeat");
        assert_eq!(bars(&database), "0");
        assert_eq!(crash(&database, run), [["forced", "false", "t"]]);
        // A refusal is history too, once.
        let refusals = if flags.is_empty() { 1 } else { 0 };
        let expected =
            [&["claimed", "crashed"] as &[&str], &["refused"][..refusals], &["unbarred", "claimed"]].concat();
        assert_eq!(kinds(&database, run), expected);

        let awake = boottime_ms();
        drop(asleep);
        assert_eq!(holder.code(SOON), 76, "{}", holder.errors());
        first.mark.wait_for_death(SOON);
        second.wait_for_stamp_after(awake + 500, SOON);
        assert_eq!(ends(&database, run), ["CRASHED forced", "RUNNING"]);
        assert_sound(&database);
    }
}

#[test]
fn whoever_wants_it_unsafe_has_it_at_once_and_the_history_says_so() {
    let database = Database::new();
    let (host, other) = (Systole::on(&database), Systole::on(&database));
    for (run, in_two_steps) in [("at-once", false), ("thought-better-of", true)] {
        let probe = Probe::new(&host, run);
        let mut holder = probe.start(&host, run);
        let asleep = Asleep::now(holder.pid(), &probe.mark);
        if in_two_steps {
            expect(&other.output(&["takeover", run, "--force"]), 0, &[]);
        }
        expect(&other.output(&["takeover", run, "--force", "--unsafe-now"]), 0, &["UNSAFE", "may still be at work"]);
        assert_eq!(bars(&database), "0");
        let started = Instant::now();
        expect(&other.output(&["run", run, "--", "true"]), 0, &[]);
        assert!(started.elapsed() < Duration::from_secs(10), "it waited {:?}", started.elapsed());
        let unsafely =
            format!("SELECT count(*) FROM systole.run_events WHERE run_id = '{run}' AND detail->>'unsafe' = 'true'");
        assert_eq!(database.value(&unsafely), "1");
        let expected: &[&str] = if in_two_steps {
            &["claimed", "crashed", "unbarred", "claimed", "completed"]
        } else {
            &["claimed", "crashed", "claimed", "completed"]
        };
        assert_eq!(kinds(&database, run), expected);
        expect(&other.output(&["events", run]), 0, &["unsafe=true"]);
        drop(asleep);
        assert_eq!(holder.code(SOON), 76, "{}", holder.errors());
        assert_eq!(ends(&database, run), ["CRASHED forced", "COMPLETED 0"]);
        assert_sound(&database);
    }
}

#[test]
fn what_nobody_runs_cannot_be_taken_away() {
    let database = Database::new();
    let host = Systole::on(&database);
    expect(&host.output(&["takeover", "r", "--force"]), 64, &["\"r\" is not running"]);
    expect(&host.output(&["run", "r", "--", "true"]), 0, &[]);
    for arguments in [&["takeover", "r", "--force"] as &[&str], &["takeover", "r", "--force", "--unsafe-now"]] {
        expect(&host.output(arguments), 64, &["\"r\" is not running", "nobody to take it away from"]);
    }
    expect(&host.output(&["takeover", "r"]), 64, &["systole run r", "--force"]);
    expect(&host.output(&["takeover", "r", "--unsafe-now"]), 64, &["--force"]);
    assert_eq!(kinds(&database, "r"), ["claimed", "completed"]);
    let mut run = host.start_run("r", "exec sleep 1000");
    expect(&host.output(&["takeover", "r", "--force"]), 0, &[]);
    assert_eq!(run.code(SOON), 76);
    eventually("the bar is lifted", SOON, || (bars(&database) == "0").then_some(()));
    expect(&host.output(&["takeover", "r", "--force"]), 64, &["\"r\" is not running"]);
    assert_eq!(kinds(&database, "r"), ["claimed", "completed", "claimed", "crashed", "unbarred"]);
}

/// The transaction that would commit beside the takeover is the very thing that is to be prevented.
#[test]
fn a_fenced_transaction_that_is_open_is_named_and_ended_and_asked_again_it_is_taken_away() {
    let database = Database::new();
    let host = Systole::on(&database);
    let mut run = host.start_run("r", "exec sleep 1000");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let user = database.connect().await;
        let fence = fence_of(&database, "r");
        user.batch_execute(&format!("BEGIN; SELECT systole.fence('r', {fence})")).await.unwrap();
        let said = expect(&host.output(&["takeover", "r", "--force"]), 75, &["locked by PostgreSQL backends", "again"]);
        assert!(said.contains(&['[', ']'][..]), "{said}");
        assert!(user.batch_execute("COMMIT").await.is_err(), "it committed beside a takeover");
    });
    expect(&host.output(&["takeover", "r", "--force"]), 0, &[]);
    assert_eq!(run.code(SOON), 76);
}

/// Five people lose patience at once, with waiters behind them: one death, one successor at a time, all get their turn.
#[test]
fn many_at_once_end_one_tenure_each_and_never_start_two() {
    let database = Database::new();
    let host = Systole::on(&database).fast();
    let first = host.start_run("r", "exec sleep 1000");
    // A lock that goes with its process: whoever runs beside another fails with 9.
    let turn = format!("flock -n -E 9 '{}' sleep 0.2", host.state.path().join("turn").display());
    let mut waiters: Vec<_> = (0..4).map(|_| host.start(&["run", "r", "--wait", "--", "sh", "-c", &turn])).collect();
    for waiter in &waiters {
        waiter.wait_for_errors("waiting for run", SOON);
    }
    let fence = fence_of(&database, "r");
    std::thread::scope(|scope| {
        for _ in 0..5 {
            scope.spawn(|| {
                let output = host.output(&["takeover", "r", "--force"]);
                assert!([0, 64, 75].contains(&output.status.code().unwrap()), "{output:?}");
            });
        }
    });
    assert_superseded(&database, "r", &fence);
    for waiter in &mut waiters {
        // One that was granted the run may be the next whom somebody has taken it away from.
        let code = waiter.code(SOON);
        assert!([0, 76].contains(&code), "{code}: {}", waiter.errors());
    }
    drop(first);
    let deaths = database.value("SELECT count(*) FROM systole.run_events WHERE kind = 'crashed'");
    let dead = database.value("SELECT count(*) FROM systole.executor_instances WHERE status = 'CRASHED'");
    assert_eq!(deaths, dead);
    assert_eq!(ends(&database, "r").len(), 5, "{:?}", ends(&database, "r"));
    assert_eq!(bars(&database), "0");
    assert_sound(&database);
}
