//! Through pgbouncer in transaction mode, with nothing configured for us there: everything works, and nothing stays behind.

use std::time::Duration;

use rustix::process::Signal;

use super::support::pooler::SESSIONS_MAX;
use super::support::probe::{Probe, ends};
use super::support::{Database, Pooler, Running, Systole, boottime_ms, eventually};
use super::{SOON, assert_sound, expect, kinds, until};

/// Once as it comes, where it refuses the startup option by which we recognise it; once where it drops it.
fn before_each_pooler(test: impl Fn(&Pooler)) {
    for ignored in ["extra_float_digits", "options,extra_float_digits"] {
        let pooler = Pooler::before(&Database::new(), ignored);
        test(&pooler);
        assert_sound(pooler.behind());
        assert_nothing_stays_in(&pooler);
    }
}

/// Looks into all sessions of the pool, at once, so that each transaction is lent another one.
fn assert_nothing_stays_in(pooler: &Pooler) {
    let (through, behind) = (pooler.database(), pooler.behind());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let sessions = runtime.block_on(async {
        let mut clients = Vec::new();
        let mut sessions = Vec::new();
        for _ in 0..SESSIONS_MAX {
            let client = through.connect().await;
            // pgbouncer itself sets what a client has asked for at its start.
            let found = "SELECT pg_backend_pid()::text,
                concat_ws(', ', (SELECT string_agg(name || '=' || setting, ' ') FROM pg_settings
                     WHERE source IN ('session', 'client') AND name NOT IN
                     ('application_name', 'client_encoding', 'DateStyle', 'TimeZone', 'standard_conforming_strings')),
                 (SELECT 'listens to ' || string_agg(c, ' ') FROM pg_listening_channels() c),
                 (SELECT 'direct' WHERE current_setting('systole_session.direct', true) <> ''),
                 (SELECT 'prepared ' || string_agg(name, ' ') FROM pg_prepared_statements),
                 (SELECT 'role ' || current_user WHERE current_user <> session_user),
                 (SELECT 'locks' FROM pg_locks WHERE pid = pg_backend_pid() AND locktype = 'advisory' LIMIT 1))";
            client.batch_execute("BEGIN").await.unwrap();
            let row = client.query_typed(found, &[]).await.unwrap().remove(0);
            sessions.push((row.get::<_, String>(0), row.get::<_, String>(1)));
            clients.push(client);
        }
        sessions
    });
    for (pid, left) in &sessions {
        assert_eq!(left, "", "stays in session {pid}");
    }
    let (pids, _): (std::collections::BTreeSet<_>, Vec<_>) = sessions.into_iter().unzip();
    assert_eq!(pids.len(), SESSIONS_MAX, "the same session twice");
    let all =
        behind.sql("SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()");
    assert!(all.concat().iter().all(|pid| pids.contains(pid)), "{all:?} are more than the pool's {pids:?}");
}

#[test]
fn eight_runs_share_three_sessions_and_everything_that_is_asked_of_them_is_answered() {
    before_each_pooler(|pooler| {
        let host = Systole::on(&pooler.database()).fast();
        let done = host.state.path().join("done");
        let names: Vec<String> = (0..8).map(|n| format!("r{n}")).collect();
        let start = |name: &String| {
            let script = format!("echo ready; {}", until(&done));
            host.start(&["run", name, "--", "sh", "-c", &script])
        };
        let mut runs: Vec<Running> = names.iter().map(start).collect();
        for run in &runs {
            run.wait_for_output("ready");
        }
        let mut follower = host.start(&["events", "r7", "--follow"]);
        follower.wait_for_output("claimed");

        let listed = expect(&host.output(&["ps"]), 0, &[]);
        assert!(names.iter().all(|name| listed.contains(name.as_str())), "{listed}");
        expect(&host.output(&["status", "r3"]), 0, &["RUNNING"]);
        expect(&host.output(&["check", "r3"]), 75, &["attach"]);
        expect(&host.output(&["run", "r3", "--", "true"]), 75, &["already running", "executor"]);
        expect(&host.output(&["events", "r3"]), 0, &["claimed", "refused"]);
        let sessions = "SELECT count(*) FROM pg_stat_activity
                         WHERE datname = current_database() AND pid <> pg_backend_pid()";
        assert!(pooler.behind().value(sessions).parse::<usize>().unwrap() <= SESSIONS_MAX);

        expect(&host.output(&["stop", "r0", "--wait"]), 0, &["has ended: CANCELLED"]);
        assert_eq!(runs[0].code(SOON), 143, "{}", runs[0].errors());
        // All have beaten, several times, in sessions that were somebody else's before.
        let beaten = "SELECT count(*) FROM systole.executor_instances
                       WHERE status = 'RUNNING' AND last_heartbeat > started_at + interval '1 second'";
        eventually("heartbeats of all", SOON, || (pooler.behind().value(beaten) == "7").then_some(()));
        std::fs::write(&done, "").unwrap();
        for run in &mut runs[1..] {
            assert_eq!(run.code(SOON), 0, "{}", run.errors());
        }
        follower.wait_for_output("completed");
        follower.signal(Signal::TERM);
        follower.wait(SOON);
        let ended = "SELECT count(*) FROM systole.runs WHERE status = 'COMPLETED' AND attempt = 1";
        assert_eq!(pooler.behind().value(ended), "7");
    });
}

#[test]
fn a_waiter_takes_over_from_a_killed_executor_of_its_host_and_from_a_silent_one_of_another() {
    before_each_pooler(|pooler| {
        pooler.behind().pretend_old_server();
        let host = Systole::on(&pooler.database()).fast();
        let first = Probe::new(&host, "first");
        let holder = first.start(&host, "r");
        let waiter = host.start(&["run", "r", "--wait", "--", "sh", "-c", "echo second; sleep 1000"]);
        waiter.wait_for_errors("waiting for run", SOON);
        holder.signal(Signal::KILL);
        waiter.wait_for_output("second");
        assert!(first.mark.living().is_empty(), "two trees at once");
        assert_eq!(ends(pooler.behind(), "r"), ["CRASHED proof 137", "RUNNING"]);

        let other = Systole::on(&pooler.database()).fast();
        let mut third = other.start(&["run", "r", "--wait", "--", "true"]);
        third.wait_for_errors("waiting for run", SOON);
        waiter.signal(Signal::KILL);
        assert_eq!(third.code(SOON), 0, "{}", third.errors());
        assert_eq!(ends(pooler.behind(), "r"), ["CRASHED proof 137", "CRASHED stale", "COMPLETED 0"]);
    });
}

#[test]
fn a_run_is_taken_away_by_force_and_its_waiter_starts_behind_the_end_of_its_tree() {
    before_each_pooler(|pooler| {
        let host = Systole::on(&pooler.database()).fast();
        let (first, second) = (Probe::new(&host, "first"), Probe::new(&host, "second"));
        let mut holder = first.start(&host, "r");
        let waiter = second.start_waiting(&host, "r", &["--wait"]);
        waiter.wait_for_errors("waiting for run", SOON);
        expect(&host.output(&["takeover", "r", "--force"]), 0, &["taken away from executor"]);
        second.wait_for_stamp_after(0, SOON);
        assert!(first.mark.living().is_empty(), "two trees at once");
        assert!(first.last_stamp() < second.stamps()[0], "the spans overlap");
        assert_eq!(holder.code(SOON), 76, "{}", holder.errors());
        assert_eq!(kinds(pooler.behind(), "r"), ["claimed", "crashed", "unbarred", "claimed"]);
    });
}

#[test]
fn a_pooler_that_is_restarted_or_dies_costs_a_running_command_nothing() {
    for ignored in ["extra_float_digits", "options,extra_float_digits"] {
        let mut pooler = Pooler::before(&Database::new(), ignored);
        let host = Systole::on(&pooler.database()).fast();
        let done = host.state.path().join("done");
        let probe = Probe::new(&host, "probe");
        let run = probe.start(&host, "r");
        let mut other = host.start_run("s", &until(&done));
        let beaten = |pooler: &Pooler| {
            let at = pooler.behind().value("SELECT clock_timestamp()");
            let since = format!("SELECT count(*) FROM systole.executor_instances WHERE last_heartbeat > '{at}'");
            eventually("heartbeats of both", SOON, || (pooler.behind().value(&since) == "2").then_some(()));
        };
        beaten(&pooler);
        pooler.stop();
        pooler.start();
        beaten(&pooler);
        pooler.kill();
        pooler.start();
        beaten(&pooler);
        // The record of an end that falls into an outage is made up for.
        pooler.kill();
        std::fs::write(&done, "").unwrap();
        other.wait_for_errors("PostgreSQL", SOON);
        pooler.start();
        assert_eq!(other.code(SOON), 0, "{}", other.errors());
        probe.wait_for_stamp_after(boottime_ms(), SOON);
        assert_eq!(ends(pooler.behind(), "r"), ["RUNNING"]);
        assert_eq!(ends(pooler.behind(), "s"), ["COMPLETED 0"]);
        drop(run);
        assert_nothing_stays_in(&pooler);
    }
}

#[test]
fn while_the_pooler_is_away_commands_say_so_and_a_waiter_waits() {
    let mut pooler = Pooler::before(&Database::new(), "extra_float_digits");
    let host = Systole::on(&pooler.database()).fast();
    pooler.kill();
    expect(&host.output(&["status"]), 69, &["cannot be reached"]);
    expect(&host.output(&["run", "r", "--", "true"]), 69, &["cannot be reached"]);
    let mut waiter = host.start(&["run", "r", "--wait", "--", "echo", "ran"]);
    eventually("its local lock", SOON, || {
        let locks = std::fs::read_dir(host.state.path().join("state/locks")).ok()?;
        (locks.count() == 1).then_some(())
    });
    pooler.start();
    assert_eq!(waiter.code(Duration::from_secs(10)), 0, "{}", waiter.errors());
}
