//! The SQL of the run's dashboard, as a member of systole_viewer, over the real schema.

use serde_json::Value;

use crate::dashboards;
use crate::support::{Database, Systole};

/// Each statement of the dashboard, with its place.
fn statements() -> Vec<(String, String)> {
    let (_, board) = dashboards::all().into_iter().find(|(name, _)| *name == "run").unwrap();
    let mut all = Vec::new();
    for panel in board["panels"].as_array().unwrap() {
        for target in panel["targets"].as_array().unwrap() {
            all.push((panel["title"].to_string(), target["rawSql"].as_str().unwrap().to_owned()));
        }
    }
    for annotation in board["annotations"]["list"].as_array().unwrap() {
        all.push((annotation["name"].to_string(), annotation["target"]["rawSql"].as_str().unwrap().to_owned()));
    }
    for variable in board["templating"]["list"].as_array().unwrap() {
        if variable["type"] == "query" {
            all.push((variable["name"].to_string(), variable["query"].as_str().unwrap().to_owned()));
        }
    }
    all
}

/// What Grafana would send for the last hour.
fn filled_in(statement: &str, run: &str) -> String {
    let (from, to) = ("(now() - interval '1 hour')", "(now() + interval '1 minute')");
    let mut filled = String::new();
    let mut rest = statement;
    while let Some((before, behind)) = rest.split_once("$__timeFilter(") {
        let (column, after) = behind.split_once(')').unwrap();
        filled.push_str(&format!("{before}{column} BETWEEN {from} AND {to}"));
        rest = after;
    }
    filled.push_str(rest);
    // It quotes what it fills in, as PostgreSQL wants it.
    let quoted = format!("'{}'", run.replace('\'', "''"));
    let filled = filled.replace("${run:sqlstring}", &quoted).replace("$__timeFrom()", from).replace("$__timeTo()", to);
    assert!(!filled.contains('$'), "a variable that the dashboard does not have: {filled}");
    filled
}

/// A database with a run that has crashed, been taken over and ended, and one that waits; and who may look at it.
fn looked_at() -> (Database, Database) {
    let database = Database::empty();
    let host = Systole::on(&database);
    assert!(host.output(&["migrate", "--roles"]).status.success());
    let mut first = host.start_run("r", "sleep 60");
    first.signal(rustix::process::Signal::KILL);
    first.wait(crate::SOON);
    assert!(host.output(&["run", "--wait", "r", "--", "sh", "-c", "exit 0"]).status.success());
    assert!(host.output(&["submit", "waits", "--", "true"]).status.success());
    let viewer = database.create_role(&format!("grafana_{}", database.name), "IN ROLE systole_viewer");
    (database, viewer)
}

#[test]
fn every_statement_has_rows_for_a_viewer() {
    let (database, viewer) = looked_at();
    let _ = database;
    let all = statements();
    assert!(all.len() >= 11, "{all:?}");
    for (place, statement) in all {
        let run = if place.contains("Waits") { "waits" } else { "r" };
        let rows = viewer.sql(&filled_in(&statement, run));
        assert!(!rows.is_empty(), "{place} sees nothing: {statement}");
        // A quote in what somebody typed is data.
        viewer.sql(&filled_in(&statement, "'; DROP TABLE systole.runs; --"));
    }
}

/// Two rows an attempt, in the order of time: the second is empty, so that its lane ends there.
#[test]
fn an_attempt_is_a_lane_from_its_start_to_its_end() {
    let (_database, viewer) = looked_at();
    let statement = statements().into_iter().map(|(_, sql)| sql).find(|sql| sql.contains("AS metric")).unwrap();
    let rows = viewer.sql(&filled_in(&statement, "r"));
    let values: Vec<&str> = rows.iter().map(|row| row[2].as_str()).collect();
    let lanes: Vec<&str> = rows.iter().map(|row| &row[1][..9]).collect();
    assert_eq!(lanes, ["attempt 1", "attempt 1", "attempt 2", "attempt 2"], "{rows:?}");
    assert_eq!(values, ["7", "", "2", ""], "CRASHED, then nothing, COMPLETED, then nothing: {rows:?}");
}

/// The list of statuses in the statement is that of the panel's colours, and of the table's CHECK.
#[test]
fn the_colours_are_those_of_the_statuses() {
    let (_, board) = dashboards::all().into_iter().find(|(name, _)| *name == "run").unwrap();
    let panel = board["panels"].as_array().unwrap().iter().find(|panel| panel["type"] == "state-timeline").unwrap();
    let mapped = panel["fieldConfig"]["defaults"]["mappings"][0]["options"].as_object().unwrap();
    let sql = panel["targets"][0]["rawSql"].as_str().unwrap();
    let listed = sql.split("ARRAY[").nth(1).unwrap().split(']').next().unwrap();
    let listed: Vec<&str> = listed.split(", ").map(|word| word.trim_matches('\'')).collect();
    assert_eq!(mapped.len(), listed.len());
    for (n, status) in listed.iter().enumerate() {
        assert_eq!(mapped[&(n + 1).to_string()]["text"], Value::from(*status));
    }
    let check = std::fs::read_to_string("migrations/V3__executor_instances.sql").unwrap();
    assert!(check.contains(&format!("({})", listed.iter().map(|s| format!("'{s}'")).collect::<Vec<_>>().join(", "))));
}
