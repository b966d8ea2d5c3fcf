//! The exporter on good days and bad ones: who may run it, what it costs, and what it says while the database is away.

use std::time::Duration;

use rustix::process::Signal;

use crate::support::{Database, Systole, eventually};
use crate::{Exporter, Page, SOON};

const TIMESTAMP: &str = "systole_fleet_snapshot_timestamp_seconds";
const ERRORS: &str = "systole_fleet_snapshot_errors_total";
const CRASHED: &str = "systole_fleet_node_state{node=\"silent\",state=\"crashed\"}";

/// A node that says once that it is here, and may be silent for a second; and a holder who may as well.
fn say_it_once(database: &Database, schema: &str) {
    database.sql(&format!(
        "SELECT {schema}.node_beat(gen_random_uuid(), '1@h', 'h', '0.1.0', '{{default}}', '{{}}', '{{}}', false, 4, 1, 'ready', 1000,
                                   'silent');
         SELECT {schema}.submit('held', command => 'c', queue => 'holding');
         SELECT {schema}.claim_queued('{{holding}}', '{{}}', '{{c}}', false, ARRAY[gen_random_uuid()], ARRAY[NULL]::bytea[], '1@h', 'h', 1,
                                      NULL, NULL, NULL, 'none', 1000, '1000.0.0')"
    ));
}

#[test]
fn while_the_database_is_away_the_last_look_stays_and_says_how_old_it_is() {
    let (database, mut server) = Database::on_own_server();
    let host = Systole::on(&database).with("SYSTOLE_HOST", "h");
    database.sql("SELECT systole.submit('r', argv => ARRAY['true'])");
    let mut exporter = Exporter::start(&host);
    let before = exporter.page();
    assert_eq!(before.value(ERRORS), Some(0.0), "{}", before.0);
    assert!(!before.0.starts_with("# what follows"), "{}", before.0);
    server.crash();
    let away =
        eventually("it has noticed", SOON, || Some(exporter.page()).filter(|page| page.value(ERRORS).unwrap() > 0.0));
    assert!(away.0.starts_with("# what follows is "), "{}", away.0);
    assert_eq!(away.value("systole_fleet_runs{queue=\"default\",state=\"queued\"}"), Some(1.0));
    let at = away.value(TIMESTAMP).unwrap();
    eventually("more failures", SOON, || (exporter.page().value(ERRORS) > away.value(ERRORS)).then_some(()));
    assert_eq!(exporter.page().value(TIMESTAMP), Some(at), "an old look passes for a new one");
    assert_eq!(exporter.get("/sd").0, 200, "whom it knows it still tells");
    server.start();
    eventually("a new look", SOON, || (exporter.page().value(TIMESTAMP).unwrap() > at).then_some(()));
    assert!(exporter.page().value(ERRORS) > Some(0.0), "a counter does not go back");
    exporter.running.signal(Signal::TERM);
    assert_eq!(exporter.running.code(SOON), 0);
}

#[test]
fn it_starts_without_a_database_and_knows_nothing_then() {
    let (database, mut server) = Database::on_own_server();
    server.crash();
    let exporter = Exporter::start(&Systole::on(&database));
    let page = exporter.page();
    assert!(page.0.starts_with("# nothing was seen yet") && page.value(TIMESTAMP).is_none(), "{}", page.0);
    // An empty list would have Prometheus forget the nodes that it knows.
    assert_eq!(exporter.get("/sd").0, 503);
    assert_eq!(exporter.get("/nothing").0, 404);
    server.start();
    eventually("a look", SOON, || exporter.page().value(TIMESTAMP));
    assert_eq!(exporter.get("/sd"), (200, "[]".to_owned()));
}

#[test]
fn two_exporters_say_the_same_and_ten_who_ask_one_cost_a_look_a_second() {
    let database = Database::new();
    database.sql(&format!("ALTER DATABASE {} SET track_functions = 'pl'", database.name));
    let host = Systole::on(&database);
    database.sql("SELECT systole.submit('r' || n, argv => ARRAY['true']) FROM generate_series(1, 7) n");
    let (one, other) = (Exporter::start(&host), Exporter::start(&host));
    let queued = "systole_fleet_runs{queue=\"default\",state=\"queued\"}";
    assert_eq!((one.page().value(queued), other.page().value(queued)), (Some(7.0), Some(7.0)));
    drop(other);
    let began = std::time::Instant::now();
    let asked: usize = std::thread::scope(|scope| {
        let ask = || {
            let mut asked = 0;
            while began.elapsed() < Duration::from_secs(3) {
                assert_eq!(one.page().value(queued), Some(7.0));
                asked += 1;
            }
            asked
        };
        let asking: Vec<_> = (0..10).map(|_| scope.spawn(ask)).collect();
        asking.into_iter().map(|asking| asking.join().unwrap()).sum()
    });
    // A session tells what it has called when it ends.
    drop(one);
    let calls = "SELECT coalesce(sum(calls), 0) FROM pg_stat_user_functions WHERE funcname = 'fleet_snapshot'";
    let called = eventually("the statistics", SOON, || {
        let called: u64 = database.value(calls).parse().unwrap();
        (called >= 4).then_some(called)
    });
    assert!(asked > 30 && called <= 2 + 1 + began.elapsed().as_secs(), "{asked} pages cost {called} looks");
}

#[test]
fn a_viewer_may_and_nobody_who_has_no_rights() {
    let database = Database::empty();
    let admin = Systole::on(&database).with("SYSTOLE_SCHEMA", "seen");
    assert_eq!(admin.output(&["migrate", "--roles"]).status.code(), Some(0));
    let viewer = database.create_role("seen_viewer_1", "IN ROLE seen_viewer");
    let host = Systole::on(&viewer).with("SYSTOLE_SCHEMA", "seen");
    let exporter = Exporter::start(&host);
    let page = exporter.page();
    assert!(page.value(TIMESTAMP).is_some(), "{}", page.0);
    // The owner may see all transactions.
    assert!(page.value("systole_fleet_oldest_transaction_age_seconds").is_some(), "{}", page.0);
    let refused = host.output(&["forget", "anything"]);
    assert_eq!(refused.status.code(), Some(78), "{refused:?}");

    let stranger = Systole::on(&database.create_role("seen_by_nobody", "")).with("SYSTOLE_SCHEMA", "seen");
    let refused = stranger.output(&["exporter", "--http", "127.0.0.1:0"]);
    assert_eq!(refused.status.code(), Some(78), "{refused:?}");
    assert!(String::from_utf8_lossy(&refused.stderr).contains("does not permit this"), "{refused:?}");

    // What cannot be seen is not said to be nothing.
    database.sql("REVOKE pg_read_all_stats FROM seen_owner");
    let blind = Exporter::start(&host).page();
    assert!(blind.value(TIMESTAMP).is_some(), "{}", blind.0);
    assert_eq!(blind.family("systole_fleet_oldest_transaction_age_seconds"), Vec::<&str>::new());
    // Nobody is taken over by age there; that they are silent is seen.
    assert_eq!(database.value("SELECT seen.rw_since() IS NULL"), "t");
    say_it_once(&database, "seen");
    exporter.becomes(CRASHED, 1.0);
    exporter.becomes("systole_fleet_instances{state=\"stale\"}", 1.0);
}

#[test]
fn an_older_schema_or_none_is_told_with_its_remedy() {
    let database = Database::new();
    database.sql("UPDATE systole.settings SET functions_version = 10");
    for database in [database, Database::empty()] {
        let refused = Systole::on(&database).output(&["exporter", "--http", "127.0.0.1:0"]);
        assert_eq!(refused.status.code(), Some(78), "{refused:?}");
        assert!(String::from_utf8_lossy(&refused.stderr).contains("systole migrate"), "{refused:?}");
    }
}

/// A standby can be asked as well, and says nothing of what only a primary counts.
#[test]
fn a_standby_tells_what_it_has() {
    let (database, mut server) = Database::on_own_server();
    database.sql("SELECT systole.submit('r', argv => ARRAY['true'])");
    say_it_once(&database, "systole");
    let (standby, _following) = server.standby();
    let there = "SELECT count(*) FROM systole.runs";
    eventually("a copy", SOON, || standby.try_sql(there).ok().filter(|rows| rows[0][0] == "2"));
    let exporter = Exporter::start(&Systole::on(&standby));
    exporter.becomes("systole_fleet_runs{queue=\"default\",state=\"queued\"}", 1.0);
    let page = exporter.page();
    assert!(page.value("systole_fleet_table_bytes{table=\"runs\"}") > Some(0.0), "{}", page.0);
    assert!(page.family("systole_fleet_table_updates_total").is_empty(), "{}", page.0);
    exporter.becomes(CRASHED, 1.0);
    exporter.becomes("systole_fleet_instances{state=\"stale\"}", 1.0);
}

/// A node that answers.
fn node(host: &Systole, arguments: &[&str]) -> Exporter {
    let node = host.start(&[&["node", "--http", "127.0.0.1:0"], arguments].concat());
    node.wait_for_errors("ready: ", SOON);
    let address = node.errors().split("metrics at http://").nth(1).unwrap().split('/').next().unwrap().to_owned();
    Exporter { running: node, address }
}

/// Who has no slot free, or looks once an hour, claims nothing for long, and is well.
#[test]
fn a_claim_loop_that_has_nothing_to_do_does_its_work() {
    let database = Database::new();
    let host = Systole::on(&database);
    let seldom = ["--poll-interval", "1h", "--allow-submitted-commands", "--slots", "1", "--name"];
    let (idle, full) = (
        node(&host, &[&seldom[..], &["idle", "--queue", "none"]].concat()),
        node(&host, &[&seldom[..], &["full"]].concat()),
    );
    assert!(host.output(&["submit", "r", "--", "sleep", "100"]).status.success());
    let said = |node: &Exporter, sample: &str| Page(node.get("/metrics").1).value(sample);
    let busy = || (said(&full, "systole_runs_running{queue=\"default\"}") == Some(1.0)).then_some(());
    eventually("a node without a free slot", SOON, busy);
    for node in [&idle, &full] {
        let last = || said(node, "systole_loop_last_success_timestamp_seconds{loop=\"claim\"}").unwrap();
        let was = last();
        eventually("a claim loop that goes round", SOON, || (last() > was + 2.0).then_some(()));
    }
}

/// A node tells whom to scrape, itself among them; of the fleet it tells when it is asked to.
#[test]
fn a_node_can_be_the_exporter() {
    let database = Database::new();
    let host = Systole::on(&database);
    let quiet = node(&host, &["--name", "quiet", "--label", "zone=z1"]);
    let telling = node(&host, &["--name", "telling", "--http-fleet"]);
    assert_eq!(quiet.get("/metrics/fleet").0, 404);
    telling.becomes("systole_fleet_nodes{state=\"live\"}", 2.0);
    for asked in [&quiet, &telling] {
        let (status, body) = asked.get("/sd");
        for expected in
            [format!("\"targets\":[\"{}\"]", quiet.address), "\"node\":\"quiet\",\"zone\":\"z1\"".to_owned()]
        {
            assert!(status == 200 && body.contains(&expected), "{body}");
        }
    }
}
