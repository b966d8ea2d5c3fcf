//! Around the pooler by the direct URL: what needs a session of its own, and what is heard sooner in one.

use std::time::{Duration, Instant};

use super::support::{Database, Pooler, Running, Systole, eventually};
use super::{SOON, assert_sound, expect};

/// As refused by a pgbouncer that is left as it comes, and as dropped by one that was told to.
const IGNORED: [&str; 2] = ["extra_float_digits", "options,extra_float_digits"];

#[test]
fn a_migration_through_a_pooler_is_refused_with_the_remedy_and_goes_around_it() {
    for ignored in IGNORED {
        let pooler = Pooler::before(&Database::empty(), ignored);
        let host = Systole::on(&pooler.database());
        for arguments in [&["migrate"] as &[&str], &["migrate", "--dry-run"], &["migrate", "--roles"]] {
            expect(&host.output(arguments), 78, &["through a pooler", "--direct-url", "SYSTOLE_DIRECT_URL"]);
        }
        let there = "SELECT count(*) FROM pg_namespace WHERE nspname = 'systole'";
        assert_eq!(pooler.behind().value(there), "0");
        expect(&host.output(&["status"]), 78, &["systole migrate"]);

        let direct = host.clone().with("SYSTOLE_DIRECT_URL", &pooler.behind().url);
        expect(&direct.output(&["migrate"]), 0, &["applied V1__settings", "installed the functions"]);
        expect(&host.output(&["run", "r", "--", "true"]), 0, &[]);
        // A direct URL that is none is found out, and not believed.
        let wrong = host.clone().with("SYSTOLE_DIRECT_URL", &pooler.database().url);
        expect(&wrong.output(&["migrate"]), 78, &["through a pooler"]);
    }
}

#[test]
fn the_doctor_recognises_a_pooler_and_whether_anybody_bounds_what_is_abandoned_in_it() {
    for ignored in IGNORED {
        let pooler = Pooler::before(&Database::new(), ignored);
        let host = Systole::on(&pooler.database());
        let report = |host: &Systole| {
            let output = host.output(&["doctor", "--json"]);
            let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
            report["checks"].as_array().unwrap().clone()
        };
        let find = |checks: &[serde_json::Value], name: &str| {
            checks
                .iter()
                .find(|check| check["name"] == name)
                .unwrap_or_else(|| panic!("no {name} in {checks:?}"))
                .clone()
        };
        let way = find(&report(&host), "way");
        assert_eq!(way["ok"], false, "{way}");
        assert!(way["remedy"].as_str().unwrap().contains("ALTER ROLE systole SET statement_timeout"), "{way}");
        let schema = find(&report(&host), "schema");
        assert!(schema["ok"] == true && schema["found"].as_str().unwrap().contains("no direct URL"), "{schema}");

        // What it says is to be done mends it, in sessions that are opened from then on.
        let name = &pooler.behind().name;
        for setting in ["statement_timeout", "idle_in_transaction_session_timeout"] {
            pooler.behind().sql(&format!("ALTER ROLE systole IN DATABASE {name} SET {setting} = '15s'"));
        }
        let end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
                    WHERE datname = current_database() AND pid <> pg_backend_pid()";
        pooler.behind().sql(end);
        // The pool notices with its next use of each.
        let bounded = eventually("bounded sessions", SOON, || {
            let output = host.output(&["doctor", "--json"]);
            let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
            report["checks"].as_array()?.iter().find(|check| check["name"] == "way" && check["ok"] == true).cloned()
        });
        assert!(bounded["found"].as_str().unwrap().contains("no --direct-url"), "{bounded}");

        let direct = host.clone().with("SYSTOLE_DIRECT_URL", &pooler.behind().url);
        let checks = report(&direct);
        assert!(find(&checks, "way")["found"].as_str().unwrap().contains("by the direct URL"), "{checks:?}");
        assert!(find(&checks, "schema")["found"].as_str().unwrap().contains("up to date"), "{checks:?}");
    }
}

/// Heartbeats so rare that a test can tell a hint from one.
fn rare(host: Systole, heartbeat_interval: &str) -> Systole {
    host.with("SYSTOLE_HEARTBEAT_INTERVAL", heartbeat_interval)
        .with("SYSTOLE_FENCE_AFTER", "40s")
        .with("SYSTOLE_STALE_AFTER", "60s")
}

/// Starts a run, and waits for the heartbeat that tells of its command: from then on they are as rare as configured.
fn start_and_fall_silent(host: &Systole, run_id: &str) -> Running {
    let run = host.start_run(run_id, "exec sleep 1000");
    eventually("its command's pid", SOON, || {
        let listed = host.output(&["ps", "--json"]);
        let listed: serde_json::Value = serde_json::from_slice(&listed.stdout).ok()?;
        listed[0]["child_pid"].is_number().then_some(())
    });
    run
}

/// Waits until somebody listens in a session of this name.
fn wait_for_a_listener(database: &Database, name: &str) {
    let listening = format!(
        "SELECT count(*) FROM pg_stat_activity
          WHERE datname = current_database() AND application_name = '{name}' AND state = 'idle' AND query LIKE '%LISTEN%'"
    );
    eventually("a listener", SOON, || (database.value(&listening) == "1").then_some(()));
}

#[test]
fn with_a_direct_url_a_stop_is_heard_at_once_and_without_one_by_the_next_heartbeat() {
    for ignored in IGNORED {
        let pooler = Pooler::before(&Database::new(), ignored);
        let direct = format!("{}&application_name=beside", pooler.behind().url);
        let with = rare(Systole::on(&pooler.database()), "12s").with("SYSTOLE_DIRECT_URL", &direct);
        let mut run = start_and_fall_silent(&with, "with");
        wait_for_a_listener(pooler.behind(), "beside");
        let asked = Instant::now();
        expect(&with.output(&["stop", "with"]), 0, &[]);
        assert_eq!(run.code(SOON), 143, "{}", run.errors());
        // The first heartbeat was at the start, and the next would come 12 s later.
        assert!(asked.elapsed() < Duration::from_secs(6), "heard only after {:?}", asked.elapsed());

        let without = rare(Systole::on(&pooler.database()), "4s");
        let mut run = start_and_fall_silent(&without, "without");
        let asked = Instant::now();
        expect(&without.output(&["stop", "without"]), 0, &[]);
        assert_eq!(run.code(SOON), 143, "{}", run.errors());
        assert!(asked.elapsed() > Duration::from_secs(1), "somebody told it after {:?}", asked.elapsed());
        assert!(asked.elapsed() < Duration::from_secs(8), "heard only after {:?}", asked.elapsed());
        assert_sound(pooler.behind());
    }
}

/// The way beside is a bonus: where it leads nowhere, nothing is worse than without it.
#[test]
fn a_direct_url_that_leads_nowhere_or_through_the_pooler_costs_nothing() {
    let pooler = Pooler::before(&Database::new(), IGNORED[0]);
    for direct in ["postgresql://systole@127.0.0.1:1/nowhere", &pooler.database().url] {
        let host = Systole::on(&pooler.database()).fast().with("SYSTOLE_DIRECT_URL", direct);
        let mut run = host.start_run("r", "exec sleep 1000");
        expect(&host.output(&["stop", "r", "--wait"]), 0, &["has ended: CANCELLED"]);
        assert_eq!(run.code(SOON), 143, "{}", run.errors());
    }
}

/// What is heard beside is forgotten when that server goes, and is heard again when it is back: meanwhile, heartbeats.
#[test]
fn a_listener_that_is_cut_off_comes_back() {
    let pooler = Pooler::before(&Database::new(), IGNORED[0]);
    let direct = format!("{}&application_name=beside", pooler.behind().url);
    let host = Systole::on(&pooler.database()).fast().with("SYSTOLE_DIRECT_URL", &direct);
    let mut run = host.start_run("r", "exec sleep 1000");
    wait_for_a_listener(pooler.behind(), "beside");
    pooler.behind().sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'beside'");
    wait_for_a_listener(pooler.behind(), "beside");
    expect(&host.output(&["stop", "r", "--wait"]), 0, &["has ended: CANCELLED"]);
    assert_eq!(run.code(SOON), 143, "{}", run.errors());
    // It ends with its executor.
    let left = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'beside'";
    eventually("no listener", SOON, || (pooler.behind().value(left) == "0").then_some(()));
}
