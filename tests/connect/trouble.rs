//! A server that answers and does not serve: it only reads, it has taken rights away, it keeps an old snapshot.

use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use super::server::{Server, by_tcp, terminate, worker};
use super::support::probe::{Probe, ends};
use super::support::process::lives;
use super::support::{Database, Systole, boottime_ms, eventually, throughout};
use super::{PASSWORD, SOON, assert_told, user};

/// As whom, with timing that is a tenth of the default; but there is time to go on from where nothing can be kept frozen.
fn host(database: &Database, role: &str) -> Systole {
    worker(database, role);
    let host = user(database, &format!("{} user={role}", by_tcp(database))).with("PGPASSWORD", PASSWORD);
    host.fast().with("SYSTOLE_STALE_AFTER", "10s")
}

/// Goes through `trouble` with a running command: it is frozen with these words, and goes on after `mend`.
#[track_caller]
fn assert_outlived(run: (&Database, &Systole, &str), trouble: impl Fn(), words: &[&str], mend: impl Fn()) {
    let (database, host, run_id) = run;
    let probe = Probe::new(host, run_id);
    let mut running = probe.start(host, run_id);
    trouble();
    running.wait_for_errors("The command is ", SOON);
    let errors = running.errors();
    for word in words {
        assert!(errors.contains(word), "{word:?} is not in: {errors}");
    }
    let frozen = boottime_ms();
    throughout("a frozen command", Duration::from_millis(300), || probe.last_stamp() <= frozen);
    let refused = host.output(&["run", run_id, "--", "echo", "never"]);
    assert_eq!(refused.stdout, b"", "a second one ran");
    mend();
    running.wait_for_errors("the command goes on", SOON);
    probe.wait_for_stamp_after(boottime_ms(), SOON);
    assert_eq!(ends(database, run_id), ["RUNNING"]);
    running.signal(Signal::TERM);
    assert_eq!(running.code(SOON), 143, "{}", running.errors());
    assert_eq!(ends(database, run_id), ["CANCELLED 143"]);
}

#[test]
fn a_server_that_only_reads_freezes_until_it_writes_again() {
    let server = Server::new();
    let host = host(&server.database, "reader");
    // With the session that it has, and with a new one.
    for (run_id, cut) in [("kept", false), ("cut", true)] {
        let trouble = || {
            server.set(&[("default_transaction_read_only", "on")]);
            if cut {
                terminate(&server.database, "reader");
            }
        };
        let mend = || server.set(&[("default_transaction_read_only", "off")]);
        assert_outlived((&server.database, &host, run_id), trouble, &["read-only", "primary"], mend);
    }
}

#[test]
fn a_role_that_has_lost_its_rights_is_told_which() {
    let database = Database::new();
    let host = host(&database, "deprived");
    let words = ["does not permit this", "permission denied", "systole doctor"];
    for (run_id, what, which) in
        [("beats", "EXECUTE ON FUNCTION systole.beat", "function beat"), ("all", "USAGE ON SCHEMA systole", "systole")]
    {
        let words = [&words[..], &[which]].concat();
        let trouble = || drop(database.sql(&format!("REVOKE {what} FROM systole_worker")));
        let mend = || drop(database.sql(&format!("GRANT {what} TO systole_worker")));
        assert_outlived((&database, &host, run_id), trouble, &words, mend);
    }
    // Before it has begun: what is granted and cannot be kept is given back.
    database.sql("REVOKE EXECUTE ON FUNCTION systole.beat FROM systole_worker");
    let begun = host.output(&["run", "r", "--", "echo", "never"]);
    assert_told(&begun, 78, &["no heartbeat", "permission denied for function beat", "given back"]);
    assert_eq!(ends(&database, "r"), ["RELEASED"]);
}

#[test]
fn runs_work_under_an_old_snapshot() {
    let database = Database::new();
    let host = host(&database, "young");
    assert!(host.output(&["run", "r", "--", "true"]).status.success());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let old = runtime.block_on(database.connect());
    let count = "SELECT count(*) FROM systole.executor_instances";
    let seen = |old: &tokio_postgres::Client| -> i64 { runtime.block_on(old.query_one(count, &[])).unwrap().get(0) };
    runtime.block_on(old.batch_execute("BEGIN ISOLATION LEVEL REPEATABLE READ")).unwrap();
    assert_eq!(seen(&old), 1);

    let mut holder = host.start_run("s", "sleep 600");
    assert_eq!(host.output(&["run", "s", "--", "echo", "never"]).status.code(), Some(75));
    for code in [0, 3, 0] {
        let ran = host.output(&["run", "r", "--", "sh", "-c", &format!("exit {code}")]);
        assert_eq!(ran.status.code(), Some(code));
    }
    // A takeover as well.
    holder.signal(Signal::KILL);
    holder.wait(SOON);
    assert_eq!(host.output(&["run", "--wait", "s", "--", "echo", "mine"]).stdout, b"mine\n");
    assert_eq!(ends(&database, "s"), ["CRASHED proof 137", "COMPLETED 0"]);
    assert_eq!(ends(&database, "r"), ["COMPLETED 0", "COMPLETED 0", "FAILED 3", "COMPLETED 0"]);
    assert_eq!(seen(&old), 1);
}

/// It may wait for a lock in shared memory whose holder was killed, for ever.
#[test]
fn a_backend_that_outlives_its_postmaster_does_not_outlive_a_stop() {
    let (database, mut own) = Database::on_own_server();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let client = runtime.block_on(database.connect());
    let backend: i32 = runtime.block_on(client.query_one("SELECT pg_backend_pid()", &[])).unwrap().get(0);
    let pid = |number: i32| Pid::from_raw(number).unwrap();
    kill_process(pid(backend), Signal::STOP).unwrap();
    let postmaster = own.pid();
    kill_process(pid(postmaster), Signal::KILL).unwrap();
    eventually("its end", SOON, || (!lives(postmaster)).then_some(()));
    assert!(lives(backend), "it has heard of that");
    own.crash();
    eventually("the end of the backend", SOON, || (!lives(backend)).then_some(()));
    own.start();
    assert_eq!(database.value("SELECT 1"), "1");
}
