//! `migrate --roles`: by whom, on what, again, and all at once; and that everything belongs to the owner ever after.

use std::sync::Barrier;

use super::support::{Database, Systole};
use super::{SOON, expect, until};

/// Whatever is in the schema, or is the schema, and belongs to somebody else than its owner role.
pub(super) fn not_owned(database: &Database, schema: &str) -> Vec<Vec<String>> {
    database.sql(&format!(
        "SELECT what FROM (
             SELECT 'schema ' || nspname AS what, nspowner AS owner FROM pg_namespace WHERE nspname = '{schema}'
             UNION ALL
             SELECT 'relation ' || relname, relowner FROM pg_class WHERE relnamespace = '{schema}'::regnamespace
             UNION ALL
             SELECT 'function ' || proname, proowner FROM pg_proc WHERE pronamespace = '{schema}'::regnamespace
             UNION ALL
             SELECT 'type ' || typname, typowner FROM pg_type WHERE typnamespace = '{schema}'::regnamespace
         ) AS objects WHERE owner <> '{schema}_owner'::regrole"
    ))
}

/// All that a migration can change, in words.
fn snapshot(database: &Database, schema: &str) -> Vec<Vec<String>> {
    database.sql(&format!(
        "SELECT 'role', rolname::text, array_to_string(s.setconfig, ','), '' FROM pg_roles r
           LEFT JOIN pg_db_role_setting s ON s.setrole = r.oid WHERE rolname LIKE '{schema}\\_%'
         UNION ALL
         SELECT 'member', m.member::regrole::text, m.roleid::regrole::text, '' FROM pg_auth_members m
          WHERE m.member::regrole::text LIKE '{schema}\\_%' OR m.roleid::regrole::text LIKE '{schema}\\_%'
         UNION ALL
         SELECT 'schema', nspname, nspowner::regrole::text, nspacl::text FROM pg_namespace WHERE nspname = '{schema}'
         UNION ALL
         SELECT 'relation', c.relname, c.relowner::regrole::text, c.relacl::text
           FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = '{schema}'
         UNION ALL
         SELECT 'function', p.oid::regprocedure::text, p.proowner::regrole::text, p.proacl::text
           FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace WHERE n.nspname = '{schema}'
         ORDER BY 1, 2, 3, 4"
    ))
}

pub(super) fn host(database: &Database, schema: &str) -> Systole {
    Systole::on(database).with("SYSTOLE_SCHEMA", schema)
}

/// Makes the schema look as an earlier version left it: without the newest tables, with other functions.
fn set_back(database: &Database, schema: &str) {
    database.sql(&format!(
        "ALTER TABLE {schema}.settings DROP COLUMN history, DROP COLUMN history_before, DROP COLUMN history_since,
             DROP COLUMN last_event_before, DROP COLUMN quarantined_until,
             DROP COLUMN lossless_failover;
         DROP TABLE {schema}.fleet_events, {schema}.incidents, {schema}.counters, {schema}.poisoned;
         ALTER TABLE {schema}.nodes DROP COLUMN name, DROP COLUMN http_address;
         DROP FUNCTION {schema}.take_away;
         ALTER TABLE {schema}.runs ALTER COLUMN run_id TYPE text COLLATE \"default\";
         DELETE FROM {schema}.refinery_schema_history WHERE version >= 12;
         UPDATE {schema}.settings SET functions_version = functions_version - 1, functions_digest = 'older'"
    ));
}

#[test]
fn roles_are_made_on_an_empty_database_and_making_them_again_changes_nothing() {
    let database = Database::empty();
    let host = host(&database, "own_a");
    let said = expect(&host.output(&["migrate", "--roles"]), 0, &["applied V1__settings", "installed the functions"]);
    let applied: Vec<u32> =
        said.lines().filter_map(|line| line.strip_prefix("applied V")?.split_once("__")?.0.parse().ok()).collect();
    assert!(applied.len() > 9 && applied.is_sorted(), "{said}");
    for role in ["owner", "worker", "client", "viewer"] {
        assert!(said.contains(&format!("created role own_a_{role}\n")), "{said}");
    }
    assert_eq!(not_owned(&database, "own_a"), Vec::<Vec<String>>::new());
    let before = snapshot(&database, "own_a");
    let said = expect(&host.output(&["migrate", "--roles"]), 0, &["nothing to do"]);
    assert!(!said.contains("lacks"), "{said}");
    expect(&host.output(&["migrate"]), 0, &["nothing to do"]);
    assert_eq!(snapshot(&database, "own_a"), before);
}

#[test]
fn an_existing_schema_is_handed_over_whole_under_a_working_run() {
    let database = Database::empty();
    let legacy = database.create_role("own_b_legacy", "");
    database.sql(&format!("GRANT CREATE ON DATABASE {} TO own_b_legacy", database.name));
    expect(&host(&legacy, "own_b").output(&["migrate"]), 0, &["applied V1__settings"]);
    // As whom it runs is known by its own name, and that one is a worker from now on.
    database.sql("CREATE ROLE own_b_worker; GRANT own_b_worker TO own_b_legacy");
    let working = host(&legacy, "own_b").fast();
    let done = working.state.path().join("done");
    let mut run = working.start_run("r", &until(&done));
    let before = snapshot(&database, "own_b");
    let told = ["would create role own_b_owner", "would hand schema own_b to own_b_owner"];
    let would = expect(&host(&database, "own_b").output(&["migrate", "--roles", "--dry-run"]), 0, &told);
    assert_eq!(snapshot(&database, "own_b"), before);
    let said = expect(&host(&database, "own_b").output(&["migrate", "--roles"]), 0, &["handed schema own_b"]);
    assert_eq!(would.replace("would create", "created").replace("would hand", "handed"), said);
    assert_eq!(not_owned(&database, "own_b"), Vec::<Vec<String>>::new());
    let at = database.value("SELECT clock_timestamp()");
    let beaten = format!("SELECT count(*) FROM own_b.executor_instances WHERE last_heartbeat > '{at}'");
    super::support::eventually("a heartbeat", SOON, || (database.value(&beaten) == "1").then_some(()));
    std::fs::write(&done, "").unwrap();
    assert_eq!(run.code(SOON), 0, "{}", run.errors());
    // And what it may no longer is refused.
    assert!(legacy.try_sql("DELETE FROM own_b.runs").is_err());
    expect(&working.output(&["run", "s", "--", "true"]), 0, &[]);
}

#[test]
fn a_later_migration_by_a_member_of_the_owner_keeps_all_in_its_hands() {
    let database = Database::empty();
    expect(&host(&database, "own_c").output(&["migrate", "--roles"]), 0, &[]);
    set_back(&database, "own_c");
    let deployer = host(&database.create_role("own_c_deployer", "IN ROLE own_c_owner"), "own_c");
    let worker = host(&database.create_role("own_c_build", "IN ROLE own_c_worker"), "own_c");
    expect(&worker.output(&["status"]), 78, &["systole migrate"]);
    expect(&worker.output(&["migrate"]), 78, &["does not permit"]);
    let said = expect(
        &deployer.output(&["migrate", "--dry-run"]),
        0,
        &["would apply V12", "would apply V13", "would install"],
    );
    let done = expect(&deployer.output(&["migrate"]), 0, &["applied V12", "applied V13", "installed the functions"]);
    assert_eq!(said.replace("would apply", "applied").replace("would install", "installed"), done);
    assert_eq!(not_owned(&database, "own_c"), Vec::<Vec<String>>::new());
    // The rights of all roles came with the functions.
    expect(&worker.output(&["run", "r", "--", "true"]), 0, &[]);
    let mut run = worker.start_run("r", "exec sleep 1000");
    expect(&worker.output(&["takeover", "r", "--force"]), 0, &[]);
    assert_eq!(run.code(SOON), 76);
}

/// Nobody but a member may: not even somebody who may create in the database.
#[test]
fn a_dry_run_says_what_is_then_done_and_changes_nothing() {
    let database = Database::empty();
    let administrator = host(&database, "own_d");
    for arguments in [&["migrate", "--roles", "--dry-run"] as &[&str], &["migrate", "--dry-run"]] {
        let before = snapshot(&database, "own_d");
        let would = expect(&administrator.output(arguments), 0, &["would apply V1__settings", "would install"]);
        assert_eq!(snapshot(&database, "own_d"), before);
        if arguments.contains(&"--roles") {
            let done = expect(&administrator.output(&["migrate", "--roles"]), 0, &[]);
            let translated = would.replace("would apply", "applied").replace("would install", "installed");
            assert_eq!(translated.replace("would create", "created"), done);
            set_back(&database, "own_d");
            database.sql("DROP SCHEMA own_d CASCADE");
        }
    }
}

/// Roles belong to the whole cluster: two databases that make them meet in the same rows.
#[test]
fn roles_may_be_made_from_two_databases_of_a_cluster_at_once() {
    for round in 0..4 {
        let schema = format!("own_e{round}");
        let databases = [Database::empty(), Database::empty(), Database::empty()];
        for again in 0..3 {
            let start = Barrier::new(databases.len());
            std::thread::scope(|scope| {
                for database in &databases {
                    scope.spawn(|| {
                        let host = host(database, &schema);
                        start.wait();
                        let output = host.output(&["migrate", "--roles"]);
                        expect(&output, 0, if again == 0 { &["applied V1"] } else { &["nothing to do"] });
                    });
                }
            });
        }
        for database in &databases {
            assert_eq!(not_owned(database, &schema), Vec::<Vec<String>>::new());
        }
    }
}

/// As a managed server's administrator: it may create roles, and is no superuser. What it may not, it is told.
#[test]
fn an_administrator_who_is_no_superuser_gets_as_far_as_the_server_lets_him() {
    let database = Database::empty();
    let administrator = database.create_role("own_f_admin", "CREATEROLE");
    database.sql(&format!("ALTER DATABASE {} OWNER TO own_f_admin", database.name));
    let said = expect(&host(&administrator, "own_f").output(&["migrate", "--roles"]), 0, &["created role own_f_owner"]);
    assert_eq!(not_owned(&database, "own_f"), Vec::<Vec<String>>::new());
    for right in ["pg_read_all_stats", "pg_signal_backend"] {
        let has = database.value(&format!("SELECT pg_has_role('own_f_owner', '{right}', 'USAGE')")) == "t";
        let warned = said.contains(&format!("as a superuser: GRANT {right} TO own_f_owner;"));
        assert_ne!(has, warned, "{said}");
    }
    expect(&host(&administrator, "own_f").output(&["migrate", "--roles"]), 0, &["nothing to do"]);
    database.sql("CREATE ROLE own_f_build LOGIN PASSWORD 'own_f_build' IN ROLE own_f_worker");
    expect(&host(&database.as_role("own_f_build"), "own_f").output(&["run", "r", "--", "true"]), 0, &[]);
}

#[test]
fn who_may_not_make_roles_is_refused_in_a_sentence_and_nothing_is_left() {
    let database = Database::empty();
    let nobody = database.create_role("own_g_nobody", "");
    database.sql(&format!("ALTER DATABASE {} OWNER TO own_g_nobody", database.name));
    expect(&host(&nobody, "own_g").output(&["migrate", "--roles"]), 78, &["does not permit", "create role"]);
    assert!(snapshot(&database, "own_g").iter().all(|row| row[1] == "own_g_nobody"));
    // Without roles, whoever may create a schema has it.
    expect(&host(&nobody, "own_g").output(&["migrate"]), 0, &["applied V1"]);
    expect(&host(&nobody, "own_g").output(&["run", "r", "--", "true"]), 0, &[]);
    // But not one who may not.
    let other = database.create_role("own_g_other", "");
    expect(&host(&other, "own_g2").output(&["migrate"]), 78, &["does not permit"]);
}
