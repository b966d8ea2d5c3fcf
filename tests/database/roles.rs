//! Owner, worker, client and viewer at their daily work, each as somebody who logs in and is a member.

use std::time::Duration;

use rustix::process::Signal;
use tokio_postgres::NoTls;

use super::support::probe::ends;
use super::support::{Database, Systole, eventually};
use super::{SOON, assert_sound, expect, kinds};

/// A database that a superuser has migrated with roles, in the schema that is ours by default.
fn with_roles() -> Database {
    let database = Database::empty();
    expect(&Systole::on(&database).output(&["migrate", "--roles"]), 0, &["installed the functions"]);
    database
}

fn as_member(database: &Database, name: &str, role: &str) -> Systole {
    Systole::on(&database.create_role(name, &format!("IN ROLE systole_{role}")))
}

#[test]
fn a_worker_does_all_that_there_is_to_do() {
    let database = with_roles();
    let host = as_member(&database, "build1", "worker").fast();
    let mut run = host.start_run("r", "exec sleep 1000");
    expect(&host.output(&["run", "r", "--", "true"]), 75, &["already running"]);
    expect(&host.output(&["check", "r"]), 75, &["attach"]);
    expect(&host.output(&["status"]), 0, &["RUNNING"]);
    expect(&host.output(&["ps"]), 0, &["r"]);
    let mut waiter = host.start(&["run", "r", "--wait", "--", "true"]);
    waiter.wait_for_errors("waiting for run", SOON);
    expect(&host.output(&["stop", "r", "--wait"]), 0, &["has ended: CANCELLED"]);
    assert_eq!(run.code(SOON), 143);
    assert_eq!(waiter.code(SOON), 0, "{}", waiter.errors());
    // A dead one, by its certificate; and one that is alive, by force.
    let killed = host.start_run("r", "exec sleep 1000");
    killed.signal(Signal::KILL);
    let mut held = host.start(&["run", "r", "--wait", "--", "sh", "-c", "echo ready; exec sleep 1000"]);
    held.wait_for_output("ready");
    expect(&host.output(&["takeover", "r", "--force"]), 0, &["taken away"]);
    assert_eq!(held.code(SOON), 76, "{}", held.errors());
    expect(&host.output(&["events", "r"]), 0, &["claimed", "stop_requested", "completed", "crashed"]);
    let told = ["CANCELLED 143", "COMPLETED 0", "CRASHED proof 137", "CRASHED forced"];
    assert_eq!(ends(&database, "r"), told);

    let report = String::from_utf8(host.output(&["doctor"]).stdout).unwrap();
    let roles = report.lines().find(|line| line.contains("  roles ")).unwrap();
    assert!(roles.starts_with("ok") && roles.contains("role build1 may work, owner systole_owner may end"), "{report}");
    let since = report.lines().find(|line| line.contains("  rw_since ")).unwrap();
    assert!(since.starts_with("ok"), "{report}");
    let schema = report.lines().find(|line| line.contains("  schema ")).unwrap();
    assert!(schema.starts_with("ok"), "{report}");
    expect(&host.output(&["migrate", "--dry-run"]), 0, &["nothing to do"]);
    expect(&host.output(&["migrate"]), 78, &["does not permit"]);
    assert_sound(&database);
}

#[test]
fn a_client_protects_its_transactions_and_asks_for_stops_and_cannot_work() {
    let database = with_roles();
    let worker = as_member(&database, "build2", "worker");
    let client = as_member(&database, "application2", "client");
    let mut run = worker.start_run("r", "exec sleep 1000");
    let application = database.as_role("application2");
    database.sql("CREATE TABLE public.results (n int); GRANT INSERT, SELECT ON public.results TO application2");
    let fence = application.value("SELECT fence FROM systole.runs WHERE run_id = 'r'");
    let work = |fence: &str| {
        format!("BEGIN; INSERT INTO public.results VALUES (1); SELECT systole.fence('r', {fence}); COMMIT")
    };
    application.sql(&work(&fence));
    let superseded = application.try_sql(&work("1")).unwrap_err();
    assert!(superseded.as_db_error().unwrap().message().contains("superseded"), "{superseded:?}");
    assert_eq!(database.value("SELECT count(*) FROM public.results"), "1");

    for arguments in [&["run", "s", "--", "true"] as &[&str], &["takeover", "r", "--force"]] {
        expect(&client.output(arguments), 78, &["does not permit", "systole doctor says which role needs what"]);
    }
    expect(&client.output(&["doctor"]), 1, &["GRANT systole_worker TO application2;"]);
    expect(&client.output(&["status", "r"]), 0, &["RUNNING"]);
    expect(&client.output(&["stop", "r", "--wait"]), 0, &["has ended: CANCELLED"]);
    assert_eq!(run.code(SOON), 143, "{}", run.errors());
    assert_eq!(kinds(&database, "r"), ["claimed", "stop_requested", "cancelled"]);
    assert!(database.sql("SELECT FROM systole.runs WHERE run_id = 's'").is_empty());
}

#[test]
fn a_viewer_looks_and_does_nothing_else() {
    let database = with_roles();
    let worker = as_member(&database, "build3", "worker");
    let mut run = worker.start_run("r", "exec sleep 1000");
    // The viewer itself has default_transaction_read_only on top, if it may log in.
    database.sql("ALTER ROLE systole_viewer LOGIN PASSWORD 'systole_viewer'");
    let viewers = [as_member(&database, "board3", "viewer"), Systole::on(&database.as_role("systole_viewer"))];
    for viewer in &viewers {
        expect(&viewer.output(&["status"]), 0, &["RUNNING"]);
        expect(&viewer.output(&["status", "r", "--json"]), 0, &["\"attempts\""]);
        expect(&viewer.output(&["ps"]), 0, &["r"]);
        expect(&viewer.output(&["events", "r"]), 0, &["claimed"]);
        expect(&viewer.output(&["check", "r"]), 75, &["attach"]);
        for arguments in [&["run", "s", "--", "true"] as &[&str], &["stop", "r"], &["takeover", "r", "--force"]] {
            let output = viewer.output(arguments);
            assert!([78, 69].contains(&output.status.code().unwrap()), "{output:?}");
            let text = String::from_utf8_lossy(&output.stderr).into_owned();
            assert!(text.contains("does not permit") || text.contains("read-only"), "{text}");
        }
    }
    let followers: Vec<_> = viewers.iter().map(|viewer| viewer.start(&["events", "r", "-f"])).collect();
    for follower in &followers {
        follower.wait_for_output("claimed");
    }
    expect(&worker.output(&["stop", "r"]), 0, &[]);
    assert_eq!(run.code(SOON), 143, "{}", run.errors());
    for follower in &followers {
        follower.wait_for_output("cancelled");
    }
    assert_eq!(kinds(&database, "r"), ["claimed", "stop_requested", "cancelled"]);
}

/// What runs write may hold secrets: who works may read it, the others may know that it is there.
#[test]
fn what_runs_write_is_for_workers_and_whom_one_lets() {
    let database = with_roles();
    let worker = as_member(&database, "build6", "worker");
    let node = worker.start(&["node", "--allow-submitted-commands"]);
    node.wait_for_errors("ready: ", SOON);
    expect(&worker.output(&["submit", "r", "--", "echo", "words"]), 0, &[]);
    let rows = "SELECT count(*) FROM systole.run_output WHERE is_last";
    eventually("the output", SOON, || (database.value(rows) == "1").then_some(()));
    expect(&as_member(&database, "laptop6", "worker").output(&["logs", "r"]), 0, &["out words"]);
    let board = as_member(&database, "board6", "viewer");
    for other in [&board, &as_member(&database, "application6", "client")] {
        expect(&other.output(&["logs", "r"]), 78, &["may hold secrets", "GRANT SELECT ON systole.run_output"]);
        expect(&other.output(&["status", "r", "--json"]), 0, &["\"output_bytes\""]);
    }
    database.sql("GRANT SELECT ON systole.run_output TO board6");
    expect(&board.output(&["logs", "r"]), 0, &["out words"]);
}

/// Its two memberships are all the owner has, and they are enough: to know since when the server serves, and to end a
/// fenced transaction of a worker that is dead.
#[test]
fn an_owner_that_is_no_superuser_sees_the_server_and_ends_what_a_dead_worker_left_open() {
    let database = with_roles();
    let owner = "SELECT rolsuper OR rolcreaterole OR rolcreatedb OR rolcanlogin OR rolbypassrls OR rolreplication
                   FROM pg_roles WHERE rolname = 'systole_owner'";
    assert_eq!(database.value(owner), "f");
    let host = as_member(&database, "build4", "worker").fast();
    let other = Systole::on(&database.as_role("build4")).fast();
    let holder = host.start_run("r", "exec sleep 1000");

    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let url = database.as_role("build4").url;
        let (client, connection) = tokio_postgres::connect(&url, NoTls).await.unwrap();
        let open = tokio::spawn(connection);
        let fence = database.value("SELECT fence FROM systole.runs WHERE run_id = 'r'");
        client.batch_execute(&format!("BEGIN; SELECT systole.fence('r', {fence})")).await.unwrap();
        let mut waiter = other.start(&["run", "r", "--wait", "--", "true"]);
        waiter.wait_for_errors("waiting for run", SOON);
        holder.signal(Signal::KILL);
        // By the administrator's command (57P01), and not because it was idle for too long (25P03).
        let ended = tokio::time::timeout(SOON, open).await.expect("it is ended").unwrap().unwrap_err();
        assert_eq!(
            ended.code().map(tokio_postgres::error::SqlState::code),
            Some("57P01"),
            "{ended:?} {}",
            waiter.errors()
        );
        assert_eq!(waiter.code(SOON), 0, "{}", waiter.errors());
    });
    assert_eq!(ends(&database, "r"), ["CRASHED stale", "COMPLETED 0"]);
    assert_sound(&database);
}

/// What the role brings along is for those who log in as it; also behind a pooler, where we set nothing.
#[test]
fn who_logs_in_as_the_worker_itself_is_bounded_by_its_settings() {
    let database = with_roles();
    database.sql("ALTER ROLE systole_worker LOGIN PASSWORD 'systole_worker'");
    let worker = database.as_role("systole_worker");
    let found = ["statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout"]
        .map(|name| worker.value(&format!("SHOW {name}")));
    assert_eq!(found, ["15s", "5s", "15s"]);
    let host = Systole::on(&worker);
    expect(&host.output(&["run", "r", "--", "true"]), 0, &[]);
    eventually("no session is left", Duration::from_secs(5), || {
        (database.value("SELECT count(*) FROM pg_stat_activity WHERE usename = 'systole_worker'") == "0").then_some(())
    });
}
