//! An administrator runs roles.sql, and somebody else migrates.

use super::expect;
use super::ownership::{host, not_owned};
use super::support::{Database, Systole};

/// What an administrator types for a schema of this name.
fn run_roles_sql(database: &Database, schema: &str) {
    let roles = include_str!("../../deploy/postgres/roles.sql");
    database.sql(&roles.replace("systole_", &format!("{schema}_")));
}

/// Somebody who may make schemas here.
fn deployer(database: &Database, name: &str, clauses: &str) -> Database {
    let deployer = database.create_role(name, clauses);
    database.sql(&format!("GRANT CREATE ON DATABASE {} TO {name}", database.name));
    deployer
}

#[test]
fn what_a_member_of_the_owner_makes_belongs_to_the_owner() {
    let database = Database::empty();
    run_roles_sql(&database, "hand_a");
    let deployer = deployer(&database, "hand_a_deployer", "IN ROLE hand_a_owner");
    expect(&host(&deployer, "hand_a").output(&["migrate"]), 0, &["applied V1__settings", "installed the functions"]);
    assert_eq!(not_owned(&database, "hand_a"), Vec::<Vec<String>>::new());
    expect(&host(&deployer, "hand_a").output(&["migrate"]), 0, &["nothing to do"]);
    // Its roles have their rights at once, and the owner, as whom the functions run, sees the server.
    let worker = host(&database.create_role("hand_a_build", "IN ROLE hand_a_worker"), "hand_a");
    expect(&worker.output(&["run", "r", "--", "true"]), 0, &[]);
    let client = database.create_role("hand_a_application", "IN ROLE hand_a_client");
    assert_eq!(client.value("SELECT hand_a.rw_since() IS NOT NULL"), "t");
}

#[test]
fn nobody_makes_a_schema_beside_the_owner_that_is_there_for_it() {
    let database = Database::empty();
    run_roles_sql(&database, "hand_b");
    let login = deployer(&database, "hand_b_login", "");
    let remedy = ["schema hand_b", "is to belong to role hand_b_owner", "GRANT hand_b_owner TO hand_b_login;"];
    expect(&host(&login, "hand_b").output(&["migrate", "--dry-run"]), 78, &remedy);
    expect(&host(&login, "hand_b").output(&["migrate"]), 78, &remedy);
    assert!(database.sql("SELECT FROM pg_namespace WHERE nspname = 'hand_b'").is_empty());
    database.sql("GRANT hand_b_owner TO hand_b_login");
    expect(&host(&login, "hand_b").output(&["migrate"]), 0, &["applied V1__settings"]);
    assert_eq!(not_owned(&database, "hand_b"), Vec::<Vec<String>>::new());
}

#[test]
fn roles_that_are_there_in_part_are_told_which_is_missing() {
    let database = Database::empty();
    run_roles_sql(&database, "hand_c");
    database.sql("DROP ROLE hand_c_viewer");
    let administrator = host(&database, "hand_c");
    let missing = ["nobody was given rights", "missing: hand_c_viewer", "systole migrate --roles"];
    expect(&administrator.output(&["migrate"]), 0, &missing);
    expect(&administrator.output(&["migrate", "--dry-run"]), 0, &missing);
    let made = expect(&administrator.output(&["migrate", "--roles"]), 0, &["created role hand_c_viewer"]);
    assert!(!made.contains("missing"), "{made}");
    let viewer = host(&database.create_role("hand_c_board", "IN ROLE hand_c_viewer"), "hand_c");
    expect(&viewer.output(&["status"]), 0, &[]);
}

/// On a server of its own, where one of the two is a superuser's alone to give.
#[test]
fn one_right_that_cannot_be_given_does_not_cost_the_other() {
    let (database, _own) = Database::on_own_server();
    database.sql(
        "UPDATE pg_authid SET rolsuper = true WHERE rolname = 'pg_signal_backend';
         CREATE ROLE admin LOGIN CREATEROLE PASSWORD 'admin';
         GRANT pg_read_all_stats TO admin WITH ADMIN OPTION;
         ALTER DATABASE systole OWNER TO admin",
    );
    let administrator = Systole::on(&database.as_role("admin")).with("SYSTOLE_SCHEMA", "hand_d");
    let said = expect(
        &administrator.output(&["migrate", "--roles"]),
        0,
        &["as a superuser: GRANT pg_signal_backend TO hand_d_owner;"],
    );
    assert!(!said.contains("pg_read_all_stats"), "{said}");
    assert_eq!(database.value("SELECT pg_has_role('hand_d_owner', 'pg_read_all_stats', 'USAGE')"), "t");
}
