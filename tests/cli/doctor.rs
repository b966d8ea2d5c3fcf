//! What the doctor finds, and how it says that it is to be mended.

use std::os::unix::fs::PermissionsExt;

use crate::support::{Database, Systole, is_root};

/// What it finds, by the name of the check: whether it is well, and all it says of it.
fn findings(host: &Systole) -> std::collections::BTreeMap<String, (bool, String)> {
    let output = host.output(&["doctor", "--json"]);
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{output:?}"));
    let checks = report["checks"].as_array().unwrap();
    let well = checks.iter().all(|check| check["ok"] == true);
    assert_eq!(report["ok"], well);
    assert_eq!(output.status.code(), Some(if well { 0 } else { 1 }), "{report:#}");
    for check in checks {
        assert!(check["ok"] == true || check["remedy"].is_string(), "no remedy: {check}");
    }
    let told = |check: &serde_json::Value| {
        let text = format!("{} {}", check["found"].as_str().unwrap(), check["remedy"].as_str().unwrap_or_default());
        (check["name"].as_str().unwrap().to_owned(), (check["ok"] == true, text))
    };
    checks.iter().map(told).collect()
}

#[track_caller]
fn finds(host: &Systole, name: &str, words: &[&str]) {
    let findings = findings(host);
    let (well, text) = findings.get(name).unwrap_or_else(|| panic!("no {name} in {findings:#?}"));
    assert!(!well, "{name}: {text}");
    for word in words {
        assert!(text.contains(word), "{word:?} is not in: {text}");
    }
}

#[test]
fn a_healthy_host_has_no_findings() {
    let findings = findings(&Systole::on(&Database::new()));
    // The suite's server does not flush, and its user may lack a freezer: both are found, and rightly so.
    let ill =
        findings.iter().filter(|(name, (well, _))| !well && !["durability", "containment"].contains(&name.as_str()));
    assert_eq!(ill.count(), 0, "{findings:#?}");
    assert!(!findings["durability"].0, "the suite's server does without fsync");
    if is_root() {
        assert!(findings["containment"].0, "{findings:#?}");
    }
    for name in
        ["timing", "host", "state", "database", "version", "writable", "way", "roles", "rw_since", "history", "clock"]
    {
        assert!(findings.contains_key(name), "{name} was not looked at");
    }
}

#[test]
fn a_forgotten_upgrade_and_another_builds_functions_are_found() {
    let database = Database::new();
    database.sql("UPDATE systole.settings SET functions_digest = 'yesterday'");
    finds(&Systole::on(&database), "schema", &["are another build's", "systole migrate, with the build"]);
    database.sql("DELETE FROM systole.refinery_schema_history WHERE version = 8");
    finds(&Systole::on(&database), "schema", &["V8__nodes", "systole migrate"]);
}

#[test]
fn a_failover_and_what_is_only_said_of_it_are_found() {
    let database = Database::new();
    let host = Systole::on(&database);
    database.sql("UPDATE systole.settings SET lossless_failover = true");
    finds(&host, "history", &["synchronous_standby_names is empty", "lossless_failover = false"]);
    database.sql("UPDATE systole.settings SET quarantined_until = clock_timestamp() + interval '1 minute'");
    finds(&host, "history", &["nothing is granted anew until", "docs/postgres.md"]);
}

#[test]
fn an_open_configuration_with_a_password_is_found() {
    let database = Database::new();
    let host = Systole::on(&database).with("SYSTOLE_DATABASE_URL", "");
    let file = host.state.path().join("systole.toml");
    std::fs::write(&file, format!("database_url = \"{}&password=hunter2\"\n", database.url)).unwrap();
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o644)).unwrap();
    finds(&host, "secrets", &["others can read it", "chmod 0600"]);
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
    assert!(findings(&host)["secrets"].0);
    assert!(!format!("{:?}", host.output(&["doctor"])).contains("hunter2"));
}

#[test]
fn a_host_without_a_name_of_its_own_is_found() {
    let host = Systole::on(&Database::new()).with("SYSTOLE_HOST", "localhost");
    finds(&host, "host", &["localhost", "SYSTOLE_HOST"]);
}

#[test]
fn an_owner_that_cannot_see_the_walwriter_is_found() {
    let database = Database::new();
    database.sql(
        "CREATE OR REPLACE FUNCTION systole.rw_since() RETURNS timestamptz LANGUAGE sql AS 'SELECT NULL::timestamptz'",
    );
    finds(&Systole::on(&database), "rw_since", &["taken over by age", "GRANT pg_read_all_stats"]);
}

#[test]
fn a_role_without_rights_is_told_which_it_lacks() {
    let database = Database::new();
    database.sql(
        "CREATE ROLE onlooker LOGIN PASSWORD 'p'; GRANT USAGE ON SCHEMA systole TO onlooker;
                  GRANT SELECT ON systole.settings TO onlooker; GRANT EXECUTE ON FUNCTION systole.rw_since TO onlooker",
    );
    let port = database.url.rsplit_once("port=").unwrap().1.to_owned();
    let url = format!("postgresql://onlooker:p@127.0.0.1:{port}/{}", database.name);
    let host = Systole::on(&database).with("SYSTOLE_DATABASE_URL", &url);
    finds(&host, "roles", &["onlooker", "systole migrate --roles", "GRANT systole_worker TO onlooker"]);
}
