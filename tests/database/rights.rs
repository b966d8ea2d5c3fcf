//! What each role may, tried one by one, and all else refused: by every function and every table that there is.

use std::collections::{BTreeMap, BTreeSet};

use super::expect;
use super::support::{Database, Systole};

/// Who may call what: each also what those before it may. Whatever is not named here is for the owner alone, also what a
/// later version brings.
const CALLS: [(&str, &[&str]); 3] = [
    ("viewer", &["holder", "rw_since", "why_waiting", "history", "quarantined_until", "fleet_snapshot"]),
    ("client", &["fence", "request_stop", "submit", "submit_all", "cancel", "cancel_batch", "retry", "restart"]),
    (
        "worker",
        &[
            "claim",
            "beat",
            "finish",
            "finish_all",
            "file_certificate",
            "readopt",
            "take_away",
            "claim_queued",
            "reap",
            "node_beat",
            "drain",
            "forget",
            "pause",
            "resume",
            "limit_queue",
            "prune",
            "put_output",
            "tell",
            "join_batch",
        ],
    ),
];

/// What all of them may read. Not: what only functions look at, what is started with which environment, and, but for
/// workers, what runs write.
const READABLE: [&str; 9] = [
    "executor_instances",
    "fleet_events",
    "lanes",
    "nodes",
    "queues",
    "refinery_schema_history",
    "run_events",
    "runs",
    "settings",
];

const DENIED: &str = "42501";

/// The SQLSTATE of a statement, if it fails.
fn refusal(database: &Database, statement: &str) -> Option<String> {
    database.try_sql(statement).err().map(|error| match error.code() {
        Some(code) => code.code().to_owned(),
        None => panic!("{statement}: {error:?}"),
    })
}

/// A database that a superuser has migrated with roles, and for each role one who may log in and is its member.
fn with_members(schema: &str) -> (Database, BTreeMap<&'static str, Database>) {
    let database = Database::empty();
    let host = Systole::on(&database).with("SYSTOLE_SCHEMA", schema);
    expect(&host.output(&["migrate", "--roles"]), 0, &[&format!("created role {schema}_owner")]);
    let member = |role| {
        let name = format!("{schema}_{role}_1");
        (role, database.create_role(&name, &format!("IN ROLE {schema}_{role}")))
    };
    (database.clone(), ["viewer", "client", "worker"].into_iter().map(member).collect())
}

#[test]
fn each_role_calls_its_own_functions_and_no_other() {
    let (database, members) = with_members("calls");
    let calls = database.sql(
        "SELECT p.proname, format('SELECT %I.%I(%s)', n.nspname, p.proname,
                (SELECT string_agg('NULL::' || format_type(t, NULL), ', ') FROM unnest(p.proargtypes) t))
           FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace WHERE n.nspname = 'calls'",
    );
    assert!(calls.len() > 15, "{calls:?}");
    let mut allowed = Vec::new();
    for (role, more) in CALLS {
        allowed.extend(more);
        let known: BTreeSet<&str> = calls.iter().map(|call| call[0].as_str()).collect();
        assert!(allowed.iter().all(|name| known.contains(name)), "{known:?}");
        for call in &calls {
            let denied = refusal(&members[role], &call[1]).is_some_and(|code| code == DENIED);
            assert_eq!(denied, !allowed.contains(&call[0].as_str()), "{role}: {}", call[1]);
        }
    }
}

#[test]
fn nobody_but_the_owner_writes_a_table_or_reads_what_is_not_for_all() {
    let (database, members) = with_members("tables");
    let tables = database.sql(
        // A column that is no identity: those refuse everybody.
        "SELECT c.relname, (SELECT a.attname FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attnum > 0
                             AND a.attidentity = '' ORDER BY a.attnum LIMIT 1)
           FROM pg_class c WHERE c.relnamespace = 'tables'::regnamespace AND c.relkind = 'r'",
    );
    let names: BTreeSet<&str> = tables.iter().map(|table| table[0].as_str()).collect();
    assert!(READABLE.iter().all(|name| names.contains(name)) && names.contains("takeover_brake"), "{names:?}");
    for (role, member) in &members {
        let denied = |statement: &str| {
            assert_eq!(refusal(member, statement).as_deref(), Some(DENIED), "{role}: {statement}");
        };
        for table in &tables {
            let (name, column) = (format!("tables.{}", table[0]), &table[1]);
            denied(&format!("INSERT INTO {name} DEFAULT VALUES"));
            denied(&format!("UPDATE {name} SET {column} = {column}"));
            denied(&format!("DELETE FROM {name}"));
            denied(&format!("TRUNCATE {name}"));
            denied(&format!("SELECT FROM {name} FOR SHARE"));
            denied(&format!("DO 'BEGIN LOCK TABLE {name} IN ROW EXCLUSIVE MODE; END'"));
            denied(&format!("ALTER TABLE {name} ADD COLUMN mine int"));
            denied(&format!("DROP TABLE {name}"));
            let read = refusal(member, &format!("SELECT * FROM {name}"));
            let may = READABLE.contains(&table[0].as_str()) || (*role, table[0].as_str()) == ("worker", "run_output");
            let expected = (!may).then(|| DENIED.to_owned());
            assert_eq!(read, expected, "{role} reads {name}");
        }
        assert_eq!(refusal(member, "SELECT bytes_total, path FROM tables.run_output"), None, "{role}");
        denied("CREATE TABLE tables.mine ()");
        denied("CREATE FUNCTION tables.mine() RETURNS void LANGUAGE sql AS ''");
        denied("ALTER FUNCTION tables.rw_since SECURITY INVOKER");
        denied("SELECT nextval('tables.run_events_id_seq')");
        denied("DROP SCHEMA tables CASCADE");
        denied("SET ROLE tables_owner");
        denied("GRANT tables_owner TO CURRENT_USER");
    }
}

/// Somebody who is in no role of ours, and may log in.
#[test]
fn a_stranger_sees_nothing() {
    let (database, _) = with_members("closed");
    let stranger = database.create_role("closed_stranger", "");
    for statement in ["SELECT FROM closed.runs", "SELECT closed.rw_since()", "SELECT closed.fence('r', 1)"] {
        assert_eq!(refusal(&stranger, statement).as_deref(), Some(DENIED), "{statement}");
    }
    let host = Systole::on(&stranger).with("SYSTOLE_SCHEMA", "closed");
    expect(&host.output(&["status"]), 78, &["does not permit", "systole doctor"]);
}

/// A table of somebody else's in front of ours: a function that did not pin its path would write into it, as the owner.
#[test]
fn a_worker_cannot_make_our_functions_use_its_own_tables() {
    let (database, members) = with_members("pinned");
    let worker = &members["worker"];
    database.sql(&format!("GRANT CREATE, TEMPORARY ON DATABASE {} TO pinned_worker_1", database.name));
    let claim = |run: &str| {
        format!(
            "SELECT verdict FROM pinned.claim('{run}', gen_random_uuid(), 'x', 'h', 1, NULL, NULL, NULL, 'none', 30000,
                                              NULL, NULL, NULL, NULL, NULL, false, false, '1000.0.0')"
        )
    };
    let planted = ["runs", "executor_instances", "settings"]
        .map(|table| format!("CREATE TEMPORARY TABLE {table} (LIKE pinned.{table}); CREATE TABLE mine.{table} ();"));
    let script = format!("CREATE SCHEMA mine; {} SET search_path TO pg_temp, mine; {}", planted.concat(), claim("r"));
    assert_eq!(worker.sql(&script), [["ok"]]);
    assert_eq!(database.value("SELECT status FROM pinned.runs"), "RUNNING");
}

#[test]
fn the_doctor_names_each_right_that_is_missing_and_what_gives_it() {
    let (database, members) = with_members("looked");
    let roles = |login: &Database| {
        let report = Systole::on(login).with("SYSTOLE_SCHEMA", "looked").output(&["doctor"]);
        let report = String::from_utf8(report.stdout).unwrap();
        let mut lines = report.lines().skip_while(|line| !line.contains("  roles "));
        [lines.next().unwrap_or(&report).to_owned(), lines.next().unwrap_or_default().trim().to_owned()]
    };
    assert!(roles(&members["worker"])[0].starts_with("ok"));
    let [found, remedy] = roles(&members["client"]);
    let lacking = CALLS[2].1;
    assert!(found.contains("may do what a client does, and not what a worker does, for lack of"), "{found}");
    assert!(lacking.iter().all(|name| found.contains(name)) && !found.contains("fence"), "{found}");
    assert_eq!(remedy, "-> GRANT looked_worker TO looked_client_1;");
    let [found, _] = roles(&members["viewer"]);
    assert!(found.contains("may do neither") && found.contains("claim_queued") && found.contains("fence"), "{found}");

    // One that the role itself has lost.
    database.sql("REVOKE EXECUTE ON FUNCTION looked.claim_queued FROM looked_worker; REVOKE SELECT ON looked.lanes FROM looked_worker");
    let [found, remedy] = roles(&members["worker"]);
    assert!(found.starts_with("MEND") && found.ends_with("for lack of claim_queued, lanes"), "{found}");
    assert!(remedy.starts_with("-> systole migrate --roles, which"), "{remedy}");
    let host = Systole::on(&database).with("SYSTOLE_SCHEMA", "looked");
    expect(&host.output(&["migrate", "--roles"]), 0, &["nothing to do"]);
    assert!(roles(&members["worker"])[0].starts_with("ok"));

    // Who may not even look is told as well.
    let stranger = Systole::on(&database.create_role("looked_stranger", "")).with("SYSTOLE_SCHEMA", "looked");
    expect(&stranger.output(&["doctor"]), 1, &["does not permit", "then: GRANT looked_worker TO looked_stranger;"]);
}
