//! A fleet starts all at once on an empty database, or is brought up to date at work: everybody migrates, and nobody fails.

use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, Ordering};

use systole::db::{MigrateError, MigrateOptions, Migrated, migrate};

use crate::planning::claim_queued;
use crate::support::{Database, Systole};

fn migrate_on_a_thread_of_its_own(database: &Database) -> Result<Migrated, MigrateError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async { migrate(&database.url.parse().unwrap(), &MigrateOptions::default()).await })
}

#[test]
fn eight_migrators_at_once_on_an_empty_database_all_succeed_and_one_of_them_does_it() {
    for _ in 0..5 {
        let database = Database::empty();
        let start = Barrier::new(8);
        let outcomes: Vec<Migrated> = std::thread::scope(|scope| {
            let migrators: Vec<_> = (0..8)
                .map(|_| {
                    scope.spawn(|| {
                        start.wait();
                        migrate_on_a_thread_of_its_own(&database).expect("it succeeds")
                    })
                })
                .collect();
            migrators.into_iter().map(|migrator| migrator.join().unwrap()).collect()
        });
        let files = std::fs::read_dir("migrations").unwrap().filter(|entry| entry.as_ref().unwrap().path().is_file());
        let mut applied: Vec<&String> = outcomes.iter().flat_map(|outcome| &outcome.applied).collect();
        applied.sort();
        applied.dedup();
        assert_eq!(applied.len(), files.count(), "{applied:?}");
        assert_eq!(outcomes.iter().map(|outcome| outcome.applied.len()).sum::<usize>(), applied.len(), "applied twice");
        assert_eq!(outcomes.iter().filter(|outcome| outcome.functions_installed).count(), 1);

        let again = migrate_on_a_thread_of_its_own(&database).unwrap();
        assert_eq!(again, Migrated::default());
        assert_eq!(database.value("SELECT at IS NOT NULL FROM systole.beat('{}', '{}', '{}')"), "t");
    }
}

#[test]
fn a_database_that_is_not_migrated_is_a_matter_of_configuration_and_the_command_to_type_is_said() {
    let output = Systole::on(&Database::empty()).output(&["status"]);
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(78), "{errors}");
    assert!(errors.contains("systole migrate"), "{errors}");
}

/// Old and new binaries share one schema: an older one leaves the newer functions alone.
#[test]
fn newer_functions_are_not_replaced_by_older_ones() {
    let database = Database::new();
    database.sql("UPDATE systole.settings SET functions_version = functions_version + 1, functions_digest = 'newer'");
    let again = migrate_on_a_thread_of_its_own(&database).unwrap();
    assert_eq!(again, Migrated::default());
}

/// Two builds that both call themselves the same version, and both migrate whenever they start.
#[test]
fn functions_of_another_build_are_replaced_by_a_person_and_never_by_a_program() {
    let database = Database::new();
    database.sql("UPDATE systole.settings SET functions_digest = 'another'");
    let theirs = Migrated { functions_differed: true, ..Migrated::default() };
    assert_eq!(migrate_on_a_thread_of_its_own(&database).unwrap(), theirs);
    assert_eq!(database.value("SELECT functions_digest FROM systole.settings"), "another");

    let host = Systole::on(&database);
    let told = |arguments: &[&str]| String::from_utf8(host.output(arguments).stdout).unwrap();
    let replaced = "the functions, of the same version but of another build, by this build's\n";
    assert_eq!(told(&["migrate", "--dry-run"]), format!("would replace {replaced}"));
    assert_eq!(database.value("SELECT functions_digest FROM systole.settings"), "another");
    assert_eq!(told(&["migrate"]), format!("replaced {replaced}"));
    assert_ne!(database.value("SELECT functions_digest FROM systole.settings"), "another");
    assert_eq!(told(&["migrate"]), "nothing to do: the schema is up to date\n");
}

/// All that those who work ask for is asked for first: whoever waits for it waits, and nobody dies of it.
#[test]
fn keys_are_sorted_anew_under_those_who_submit_and_claim() {
    let database = Database::new();
    database.sql(
        "ALTER TABLE systole.runs ALTER COLUMN run_id TYPE text COLLATE \"default\";
         ALTER TABLE systole.executor_instances ALTER COLUMN run_id TYPE text COLLATE \"default\";
         ALTER TABLE systole.run_events ALTER COLUMN run_id TYPE text COLLATE \"default\";
         ALTER TABLE systole.lanes ALTER COLUMN queue TYPE text COLLATE \"default\";
         DELETE FROM systole.refinery_schema_history WHERE version >= 17;
         INSERT INTO systole.runs (run_id, status) SELECT 'h-' || n, 'COMPLETED' FROM generate_series(1, 100000) n;
         INSERT INTO systole.run_events (run_id, kind) SELECT 'h-' || n, 'completed' FROM generate_series(1, 100000) n",
    );
    let is_over = AtomicBool::new(false);
    let work = |session: u32| {
        for n in 0.. {
            if is_over.load(Ordering::Relaxed) {
                return n;
            }
            database.sql(&format!("SELECT systole.submit('s-{session}-{n}', argv => ARRAY['true'])"));
            database.sql(&claim_queued("default"));
        }
        unreachable!("there are more numbers than anybody can count")
    };
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..3).map(|session| scope.spawn(move || work(session))).collect();
        let migrated = migrate_on_a_thread_of_its_own(&database);
        is_over.store(true, Ordering::Relaxed);
        assert_eq!(migrated.expect("it gets its turn").applied, ["V17__bytewise_keys"]);
        for worker in workers {
            assert!(worker.join().expect("none of its calls fails") > 0);
        }
    });
    assert_eq!(database.sql(SORTED_BY_LANGUAGE), Vec::<Vec<String>>::new());
    // Else whoever prunes reads all there is.
    let known = "SELECT count(*) FROM pg_stats WHERE schemaname = 'systole' AND attname = 'run_id'
                    AND tablename IN ('runs', 'run_events')";
    assert_eq!(database.value(known), "2");
}

const SORTED_BY_LANGUAGE: &str = "
    SELECT i.indexrelid::regclass, k.rules::regcollation
      FROM pg_index i
      JOIN pg_class c ON c.oid = i.indrelid AND c.relnamespace = 'systole'::regnamespace
     CROSS JOIN LATERAL unnest(i.indcollation) AS k (rules)
     WHERE k.rules NOT IN (0, '\"C\"'::regcollation)";

/// The C library decides how a language is sorted, and another one decides otherwise: an index by such an order may then not find what
/// is there, and the same run begins twice. (What is within jsonb, as the requirements of a lane, has no rules that one could choose.)
#[test]
fn no_key_is_sorted_by_the_rules_of_a_language() {
    assert_eq!(Database::new().sql(SORTED_BY_LANGUAGE), Vec::<Vec<String>>::new());
}
