//! Every expression of every dashboard is asked of a real Prometheus over a made-up incident, and has an answer.

use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::dashboards;
use crate::history::{STEP, openmetrics, scraped};
use crate::tools::{Server, prometheus, promtool, succeeds};
use crate::world::{Plan, World, moment};

/// A day on which the blocks of any retention are.
const START: u64 = 1_750_000_200;

/// A Prometheus that has seen the incident, by this many exporters.
fn after_the_incident(folder: &Path, exporters: usize) -> Option<Server> {
    let promtool = promtool()?;
    let world = World { exporters, ..World::new(Plan::Incident, START as f64) };
    std::fs::write(folder.join("history.om"), openmetrics(&scraped(&world), START)).unwrap();
    succeeds(
        Command::new(promtool)
            .args(["tsdb", "create-blocks-from", "openmetrics", "history.om", "tsdb"])
            .current_dir(folder),
    );
    prometheus(folder, "global: { scrape_interval: 15s }\n")
}

/// What Grafana would send, at this step: by its rule `$__rate_interval` is at least four scrapes.
fn filled_in(expression: &str) -> String {
    let filled = expression
        .replace("$__rate_interval", &format!("{}s", 4 * STEP))
        .replace("$__range", &format!("{}s", moment::END as u64))
        .replace("$datasource", "")
        .replace("$fleet_job", "systole-fleet")
        .replace("$job", "systole")
        .replace("$instance", ".+")
        .replace("$queue", ".+");
    assert!(!filled.contains('$'), "a variable that no dashboard has: {filled}");
    filled
}

fn at(seconds: f64) -> String {
    (START as f64 + seconds).to_string()
}

/// The series of an expression over the whole incident.
fn over_time(server: &Server, expression: &str) -> Vec<Value> {
    let (from, to) = (at(0.0), at(moment::END));
    let parameters = [("query", expression), ("start", &from), ("end", &to), ("step", "15")];
    server.data("/api/v1/query_range", &parameters)["result"].as_array().unwrap().clone()
}

/// The series of an expression at a moment.
fn then(server: &Server, expression: &str, seconds: f64) -> Vec<Value> {
    let time = at(seconds);
    server.data("/api/v1/query", &[("query", expression), ("time", &time)])["result"].as_array().unwrap().clone()
}

/// When a panel of this moment is looked at: in the crash, and at the end.
const LOOKS: [f64; 2] = [moment::NODE_DEAD.start + 40.0, moment::END];

/// Where, and the expression, of each panel and annotation; whether it is of a moment.
pub(crate) fn expressions() -> Vec<(String, String, bool)> {
    let mut all = Vec::new();
    for (name, board) in dashboards::all() {
        for panel in board["panels"].as_array().unwrap() {
            for target in panel["targets"].as_array().into_iter().flatten().filter(|target| !target["expr"].is_null()) {
                let expression = target["expr"].as_str().unwrap().to_owned();
                all.push((format!("{name}: {}", panel["title"]), expression, target["instant"] == true));
            }
        }
        for annotation in board["annotations"]["list"].as_array().unwrap().iter().filter(|one| !one["expr"].is_null()) {
            assert_eq!(annotation["expr"], annotation["target"]["expr"]);
            all.push((
                format!("{name}: {}", annotation["name"]),
                annotation["expr"].as_str().unwrap().to_owned(),
                false,
            ));
        }
    }
    all
}

#[test]
fn every_panel_and_annotation_has_data_in_an_incident() {
    let folder = tempfile::tempdir().unwrap();
    let Some(server) = after_the_incident(folder.path(), 2) else { return };
    let all = expressions();
    assert!(all.len() > 70, "only {} expressions were found", all.len());
    let mut empty = Vec::new();
    for (place, expression, instant) in all {
        let expression = filled_in(&expression);
        let found = match instant {
            true => LOOKS.iter().flat_map(|look| then(&server, &expression, *look)).collect(),
            false => over_time(&server, &expression),
        };
        if found.is_empty() {
            empty.push(format!("{place}: {expression}"));
        }
        let labels =
            found.iter().any(|series| series["metric"]["instance"].as_str().is_some_and(|i| i.starts_with("exporter")));
        assert!(!labels, "{place}: it tells one exporter from another: {expression}");
    }
    assert!(empty.is_empty(), "nothing is seen by {empty:#?}");
}

#[test]
fn every_variable_has_values() {
    let folder = tempfile::tempdir().unwrap();
    let Some(server) = after_the_incident(folder.path(), 1) else { return };
    let mut asked = 0;
    for (name, board) in dashboards::all() {
        for variable in board["templating"]["list"].as_array().unwrap() {
            let Some(query) = variable["query"]["query"].as_str() else { continue };
            let (series, label) =
                query.strip_prefix("label_values(").unwrap().strip_suffix(')').unwrap().rsplit_once(", ").unwrap();
            let (series, from, to) = (filled_in(series), at(0.0), at(moment::END));
            let values = server.data(
                &format!("/api/v1/label/{label}/values"),
                &[("match[]", &series), ("start", &from), ("end", &to)],
            );
            assert!(!values.as_array().unwrap().is_empty(), "{name}: {query}: {values}");
            asked += 1;
        }
    }
    assert!(asked >= 10, "only {asked} variables were asked for");
}

/// The number that a stat shows at a moment.
fn shown(server: &Server, title: &str, seconds: f64) -> f64 {
    let wanted = format!("fleet: {title:?}");
    let (_, expression, _) = expressions().into_iter().find(|(place, ..)| *place == wanted).unwrap();
    let found = then(server, &filled_in(&expression), seconds);
    assert_eq!(found.len(), 1, "{title}: {found:?}");
    found[0]["value"][1].as_str().unwrap().parse().unwrap()
}

#[test]
fn the_numbers_of_the_fleet_tell_the_incident() {
    let folder = tempfile::tempdir().unwrap();
    let Some(server) = after_the_incident(folder.path(), 2) else { return };
    let [crash, end] = LOOKS;
    let numbers = |seconds| {
        ["Live nodes", "Crashed nodes", "Crashes, 15 min", "Running", "Stale", "Poisoned", "Broken promises"]
            .map(|title| shown(&server, title, seconds))
    };
    assert_eq!(numbers(600.0), [3.0, 0.0, 0.0, 9.0, 0.0, 0.0, 0.0]);
    assert_eq!(numbers(crash), [2.0, 1.0, 1.0, 6.0, 3.0, 0.0, 0.0]);
    assert_eq!(numbers(end), [3.0, 0.0, 0.0, 9.0, 0.0, 1.0, 0.0]);
    assert_eq!(shown(&server, "Oldest queued", end), 1.0 + end - moment::BACKLOG);
}

/// Two exporters say everything twice, and nothing that is shown changes by it.
#[test]
fn two_exporters_show_what_one_shows() {
    let folders = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let Some(one) = after_the_incident(folders[0].path(), 1) else { return };
    let Some(two) = after_the_incident(folders[1].path(), 2) else { return };
    let mut compared = 0;
    for (place, expression, _) in expressions() {
        if expression.contains("systole_fleet_") {
            let expression = filled_in(&expression);
            assert_eq!(over_time(&one, &expression), over_time(&two, &expression), "{place}: {expression}");
            compared += 1;
        }
    }
    assert!(compared > 25, "only {compared} were compared");
}
