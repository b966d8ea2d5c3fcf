//! Each step of a migration is whole or not at all, and is tried again when others are in its way.

use super::ownership::{host, not_owned};
use super::support::{Database, Systole, eventually};
use super::{SOON, expect, until};

/// A step begins with each of these: the migrations, the functions, and the change of hands.
const FIRSTS: [&str; 3] = ["CREATE TABLE", "CREATE FUNCTION", "ALTER SCHEMA"];

/// Refuses each of them for the first and the second time, by the codes of two errors that pass, in words of another
/// language. How often is counted by sequences: they are not rolled back.
fn stand_in_the_way(database: &Database) {
    let sequences = FIRSTS.map(|tag| format!("CREATE SEQUENCE public.\"{tag}\";"));
    database.sql(&format!(
        "{} CREATE FUNCTION public.stand_in_the_way() RETURNS event_trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
         DECLARE
             v_try bigint := nextval(format('public.%I', tg_tag));
         BEGIN
             IF v_try = 1 THEN
                 RAISE EXCEPTION 'storniere Anfrage wegen Zeitüberschreitung' USING ERRCODE = 'lock_not_available';
             ELSIF v_try = 2 THEN
                 RAISE EXCEPTION 'Verklemmung (Deadlock) entdeckt' USING ERRCODE = 'deadlock_detected';
             END IF;
         END $$;
         CREATE EVENT TRIGGER stand_in_the_way ON ddl_command_start WHEN TAG IN ('{}')
             EXECUTE FUNCTION public.stand_in_the_way()",
        sequences.concat(),
        FIRSTS.join("', '")
    ));
}

/// A schema that a login has made for itself, and works in; it is a worker as well, once there are rights.
fn legacy(schema: &str) -> (Database, Systole) {
    let database = Database::empty();
    let login = format!("{schema}_legacy");
    let legacy = database.create_role(&login, "");
    database.sql(&format!("GRANT CREATE ON DATABASE {} TO {login}", database.name));
    let host = host(&legacy, schema).fast();
    (database, host)
}

#[test]
fn locks_and_deadlocks_pass_in_any_language() {
    let (database, login) = legacy("step_a");
    stand_in_the_way(&database);
    expect(&login.output(&["migrate"]), 0, &["applied V1__settings", "installed the functions"]);
    expect(&host(&database, "step_a").output(&["migrate", "--roles"]), 0, &["handed schema step_a to step_a_owner"]);
    assert_eq!(not_owned(&database, "step_a"), Vec::<Vec<String>>::new());
    for tag in FIRSTS {
        let tries: i64 = database.value(&format!("SELECT last_value FROM public.\"{tag}\"")).parse().unwrap();
        assert!(tries > 2, "{tag}: {tries}");
    }
}

/// Were the schema handed over first, those who work as its former owner would have no rights until the grants.
#[test]
fn a_schema_changes_hands_with_all_rights_or_not_at_all() {
    let (database, working) = legacy("step_b");
    expect(&working.output(&["migrate"]), 0, &["applied V1__settings"]);
    database.sql("CREATE ROLE step_b_worker; GRANT step_b_worker TO step_b_legacy");
    let done = working.state.path().join("done");
    let mut run = working.start_run("r", &until(&done));
    database.sql(
        "CREATE FUNCTION public.refuse() RETURNS event_trigger LANGUAGE plpgsql AS
             'BEGIN RAISE EXCEPTION ''not now''; END';
         CREATE EVENT TRIGGER refuse ON ddl_command_start WHEN TAG IN ('GRANT') EXECUTE FUNCTION public.refuse()",
    );
    expect(&host(&database, "step_b").output(&["migrate", "--roles"]), 70, &["not now"]);
    let owner = "SELECT pg_get_userbyid(nspowner) FROM pg_namespace WHERE nspname = 'step_b'";
    assert_eq!(database.value(owner), "step_b_legacy");
    let beaten_anew = |what: &str| {
        let at = database.value("SELECT clock_timestamp()");
        let beaten = format!("SELECT count(*) FROM step_b.executor_instances WHERE last_heartbeat > '{at}'");
        eventually(what, SOON, || (database.value(&beaten) == "1").then_some(()));
    };
    beaten_anew("a heartbeat as its owner");

    database.sql("DROP EVENT TRIGGER refuse");
    expect(&host(&database, "step_b").output(&["migrate", "--roles"]), 0, &["handed schema step_b to step_b_owner"]);
    beaten_anew("a heartbeat as a worker");
    std::fs::write(&done, "").unwrap();
    assert_eq!(run.code(SOON), 0, "{}", run.errors());
}
