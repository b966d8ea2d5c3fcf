//! In another schema than `systole`, and beside one: two fleets in one database do not know of each other.

use rustix::process::Signal;
use tokio_postgres::NoTls;

use super::support::process::lives;
use super::support::{Database, Systole};
use super::{SOON, assert_sound, expect, kinds};

/// Two fleets on one database and one host: in `systole` and in `jobs`, with a state folder in common.
fn two_fleets() -> (Database, Systole, Systole) {
    let database = Database::new();
    let systole = Systole::on(&database).fast();
    let jobs = systole.clone().with("SYSTOLE_SCHEMA", "jobs");
    expect(&jobs.output(&["status"]), 78, &["schema jobs", "systole migrate"]);
    expect(&jobs.output(&["migrate"]), 0, &["applied V1__settings"]);
    (database, systole, jobs)
}

#[track_caller]
fn jobs(database: &Database, column: &str) -> Vec<String> {
    database.sql(&format!("SELECT {column} FROM jobs.run_events WHERE run_id = 'r' ORDER BY id")).concat()
}

#[test]
fn a_run_of_the_same_name_in_each_of_two_schemas_is_two_runs() {
    let (database, systole, in_jobs) = two_fleets();
    let mut one = systole.start_run("r", "exec sleep 1000");
    let mut two = in_jobs.start_run("r", "exec sleep 1000");
    for (host, run) in [(&systole, &one), (&in_jobs, &two)] {
        let pid = format!("executor {}@", run.pid().as_raw_pid());
        expect(&host.output(&["run", "r", "--", "true"]), 75, &["already running", &pid]);
        expect(&host.output(&["check", "r"]), 75, &["attach"]);
        expect(&host.output(&["ps"]), 0, &[&format!("{}@", run.pid().as_raw_pid())]);
    }
    // Each transaction is protected by the fence of its own schema's run, and by no other.
    let fences = ["systole", "jobs"].map(|schema| database.value(&format!("SELECT fence FROM {schema}.runs")));
    database.sql(&format!("SELECT systole.fence('r', {}), jobs.fence('r', {})", fences[0], fences[1]));
    assert!(database.try_sql(&format!("SELECT systole.fence('r', {})", fences[1])).is_err());

    expect(&in_jobs.output(&["stop", "r", "--wait"]), 0, &["has ended: CANCELLED"]);
    assert_eq!(two.code(SOON), 143, "{}", two.errors());
    let two = in_jobs.start_run("r", "exec sleep 1000");
    // A death on this host is told to the fleet that it was in.
    two.signal(Signal::KILL);
    let mut three = in_jobs.start(&["run", "r", "--wait", "--", "sh", "-c", "echo ready; exec sleep 1000"]);
    three.wait_for_output("ready");
    expect(&in_jobs.output(&["takeover", "r", "--force"]), 0, &["taken away"]);
    assert_eq!(three.code(SOON), 76, "{}", three.errors());
    let history =
        ["claimed", "refused", "stop_requested", "cancelled", "claimed", "crashed", "claimed", "crashed", "unbarred"];
    assert_eq!(jobs(&database, "kind"), history);
    assert_eq!(
        database.sql("SELECT DISTINCT cause FROM jobs.executor_instances WHERE status = 'CRASHED' ORDER BY 1"),
        [["forced"], ["proof"]]
    );
    expect(&in_jobs.output(&["events", "r"]), 0, &["crashed"]);

    assert!(lives(one.pid().as_raw_pid()), "it was meant for another");
    assert_eq!(kinds(&database, "r"), ["claimed", "refused"]);
    expect(&systole.output(&["stop", "r", "--wait"]), 0, &[]);
    assert_eq!(one.code(SOON), 143, "{}", one.errors());
    assert_sound(&database);
}

/// The one tells the other nothing by NOTIFY either: neither channel is the other's.
#[test]
fn hints_of_one_schema_are_not_heard_in_another() {
    let (database, systole, in_jobs) = two_fleets();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (client, mut connection) = runtime.block_on(tokio_postgres::connect(&database.url, NoTls)).unwrap();
    let heard = runtime.block_on(async {
        let (sender, mut heard) = tokio::sync::mpsc::unbounded_channel();
        tokio::spawn(async move {
            while let Some(Ok(message)) = std::future::poll_fn(|context| connection.poll_message(context)).await {
                if let tokio_postgres::AsyncMessage::Notification(told) = message {
                    sender.send((told.channel().to_owned(), told.payload().to_owned())).unwrap();
                }
            }
        });
        client.batch_execute("LISTEN systole; LISTEN jobs").await.unwrap();
        expect(&in_jobs.output(&["run", "a", "--", "true"]), 0, &[]);
        expect(&systole.output(&["run", "b", "--", "true"]), 0, &[]);
        let mut all = Vec::new();
        while all.len() < 2 {
            all.push(tokio::time::timeout(SOON, heard.recv()).await.expect("two hints").unwrap());
        }
        all
    });
    let expected = [("jobs", "ended a"), ("systole", "ended b")];
    assert_eq!(heard, expected.map(|(channel, payload)| (channel.to_owned(), payload.to_owned())));
}

#[test]
fn a_takeover_in_one_schema_never_ends_a_fenced_transaction_of_the_other() {
    let (database, systole, in_jobs) = two_fleets();
    let other_host = Systole::on(&database).fast().with("SYSTOLE_SCHEMA", "jobs");
    let _alive = systole.start_run("r", "exec sleep 1000");
    let dead = in_jobs.start_run("r", "exec sleep 1000");
    let mut taker = other_host.start(&["run", "r", "--wait", "--", "true"]);
    taker.wait_for_errors("waiting for run", SOON);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let fenced = async |schema: &str| {
            let (client, connection) = tokio_postgres::connect(&database.url, NoTls).await.unwrap();
            let open = tokio::spawn(connection);
            let fence = database.value(&format!("SELECT fence FROM {schema}.runs"));
            client.batch_execute(&format!("BEGIN; SELECT {schema}.fence('r', {fence})")).await.unwrap();
            (client, open)
        };
        let (of_the_living, _open) = fenced("systole").await;
        let (_of_the_dead, mut ended) = fenced("jobs").await;
        dead.signal(Signal::KILL);
        let ended = loop {
            // Not idle for so long that it would be ended for that.
            of_the_living.batch_execute("SELECT").await.expect("it is left alone");
            let a_while = std::time::Duration::from_millis(200);
            if let Ok(ended) = tokio::time::timeout(a_while, &mut ended).await {
                break ended.unwrap().unwrap_err();
            }
        };
        assert_eq!(ended.code().map(tokio_postgres::error::SqlState::code), Some("57P01"), "{ended:?}");
        assert_eq!(taker.code(SOON), 0, "{}", taker.errors());
        of_the_living.batch_execute("COMMIT").await.expect("it commits");
    });
    assert_eq!(jobs(&database, "kind"), ["claimed", "crashed", "claimed", "completed"]);
    assert_eq!(kinds(&database, "r"), ["claimed"]);
}

/// Names that are words of SQL, or look like something of ours, are names.
#[test]
fn any_good_name_serves_with_roles_and_all() {
    for name in ["order", "user", "systole_worker", "my_systole_owner", "x", &"z".repeat(48)] {
        let database = Database::empty();
        let administrator = Systole::on(&database).with("SYSTOLE_SCHEMA", name);
        let created = ["owner", "worker", "client", "viewer"].map(|role| format!("created role {name}_{role}\n"));
        let words = created.each_ref().map(String::as_str);
        expect(&administrator.output(&["migrate", "--roles"]), 0, &words);
        expect(&administrator.output(&["migrate", "--roles"]), 0, &["nothing to do"]);
        let owner = format!("SELECT pg_get_userbyid(nspowner) FROM pg_namespace WHERE nspname = '{name}'");
        assert_eq!(database.value(&owner), format!("{name}_owner"));
        let worker = format!("{}_1", &name[..name.len().min(40)]);
        let host = Systole::on(&database.create_role(&worker, &format!("IN ROLE {name}_worker")));
        let host = host.with("SYSTOLE_SCHEMA", name);
        let mut run = host.start_run("r", "exec sleep 1000");
        expect(&host.output(&["run", "r", "--", "true"]), 75, &[]);
        expect(&host.output(&["stop", "r", "--wait"]), 0, &[]);
        assert_eq!(run.code(SOON), 143, "{}", run.errors());
        expect(&host.output(&["events", "r"]), 0, &["claimed", "cancelled"]);
        let report = String::from_utf8(host.output(&["doctor"]).stdout).unwrap();
        for check in ["way", "roles", "schema", "rw_since"] {
            let well = report.lines().any(|line| line.starts_with("ok") && line.contains(&format!("  {check} ")));
            assert!(well, "{check}: {report}");
        }
        assert!(database.sql("SELECT FROM pg_namespace WHERE nspname = 'systole'").is_empty());
    }
}

/// By whichever way, for whichever command, before anything is asked of the database.
#[test]
fn names_that_are_none_are_refused_with_the_rule() {
    let database = Database::empty();
    let host = Systole::on(&database);
    let long = "x".repeat(49);
    let sentence = ["1 to 48 lower-case letters, digits and _", "no digit", "pg_"];
    for bad in ["Jobs", "1a", "pg_jobs", "a-b", "a.b", "a b", "a\"b", "a;b", "ä", "public", "information_schema", &long]
    {
        let shown = format!("{bad:?}");
        let environment = host.clone().with("SYSTOLE_SCHEMA", bad);
        for arguments in [&["migrate"] as &[&str], &["run", "r", "--", "true"], &["status"]] {
            let text = expect(&environment.output(arguments), 78, &sentence);
            assert!(text.contains("SYSTOLE_SCHEMA") && text.contains(&shown), "{text}");
        }
        expect(
            &host.output(&["--schema", bad, "migrate", "--roles"]),
            78,
            &[&["--schema", shown.as_str()], &sentence[..]].concat(),
        );
    }
    expect(&host.output(&["--schema", "", "migrate"]), 78, &sentence);
    std::fs::write(host.state.path().join("systole.toml"), "schema = \"Jobs\"\n").unwrap();
    expect(&host.output(&["status"]), 78, &["systole.toml", "\"Jobs\""]);
    let made = "SELECT count(*) FROM pg_class WHERE relname IN ('settings', 'runs')";
    assert_eq!(database.value(made), "0");
}
