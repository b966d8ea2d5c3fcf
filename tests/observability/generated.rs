//! The committed dashboards are the generated ones, and what Grafana takes for dashboards.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::dashboards;
use crate::schema::Schema;

#[test]
fn the_committed_dashboards_are_the_generated_ones() {
    for (name, board) in dashboards::all() {
        let path = format!("grafana/dashboards/{name}.json");
        let text = serde_json::to_string_pretty(&board).unwrap() + "\n";
        if std::env::var_os("UPDATE").is_some() {
            fs::write(&path, &text).unwrap();
        }
        let committed = fs::read_to_string(&path).unwrap_or_default();
        assert!(
            committed == text,
            "{path} is not what is generated: UPDATE=1 cargo test --test observability committed"
        );
    }
    let files = fs::read_dir("grafana/dashboards").unwrap().count();
    assert_eq!(files, dashboards::all().len(), "somebody put another file there");
}

#[test]
fn every_dashboard_fits_grafanas_schema() {
    let (whole, source) = (Schema::read("dashboard"), Schema::read("prometheus"));
    let mut panels = 0;
    for (name, board) in dashboards::all() {
        let mut faults = whole.faults("Dashboard", &board, name);
        for panel in board["panels"].as_array().unwrap() {
            let at = format!("{name}: {}", panel["title"]);
            let kind = panel["type"].as_str().unwrap();
            if kind == "row" {
                faults.extend(whole.faults("RowPanel", panel, &at));
                continue;
            }
            panels += 1;
            faults.extend(whole.faults("Panel", panel, &at));
            let own = Schema::read(&kind.replace('-', ""));
            faults.extend(own.faults("Options", &panel["options"], &format!("{at}: options")));
            let custom = &panel["fieldConfig"]["defaults"]["custom"];
            if kind == "stat" {
                assert_eq!(custom, &serde_json::json!({}), "{at}: a stat has nothing of its own");
            } else {
                faults.extend(own.faults("FieldConfig", custom, &format!("{at}: custom")));
            }
            for target in panel["targets"].as_array().unwrap() {
                match target["datasource"]["type"].as_str().unwrap() {
                    "prometheus" => faults.extend(source.faults("Dataquery", target, &at)),
                    // There is no schema of that one: its editor writes these.
                    _ => {
                        let keys: Vec<&String> = target.as_object().unwrap().keys().collect();
                        assert_eq!(keys, ["datasource", "editorMode", "format", "rawQuery", "rawSql", "refId"], "{at}");
                    }
                }
            }
        }
        assert!(faults.is_empty(), "{faults:#?}");
    }
    assert!(panels > 60, "only {panels} panels were seen");
}

/// A check of checks: what does not fit is seen, at any depth.
#[test]
fn the_schema_sees_what_does_not_fit() {
    let (_, mut board) = dashboards::all()[0].clone();
    board["panels"][0]["fieldConfig"]["defaults"]["thresholds"]["mode"] = "relative".into();
    board["panels"][1]["colour"] = "red".into();
    board["schemaVersion"] = "39".into();
    let whole = Schema::read("dashboard");
    let mut faults = whole.faults("Dashboard", &board, "");
    faults.extend(whole.faults("Panel", &board["panels"][0], "0"));
    faults.extend(whole.faults("Panel", &board["panels"][1], "1"));
    for word in ["relative", "colour", "schemaVersion"] {
        assert!(faults.iter().any(|fault| fault.contains(word)), "{word}: {faults:?}");
    }
}

#[test]
fn every_panel_has_a_number_a_place_and_says_what_it_shows() {
    let mut uids = BTreeSet::new();
    for (name, board) in dashboards::all() {
        assert!(uids.insert(board["uid"].to_string()), "{name}");
        assert_eq!((&board["timezone"], &board["editable"]), (&"utc".into(), &false.into()), "{name}");
        let mut ids = BTreeSet::new();
        let mut taken = BTreeSet::new();
        for panel in board["panels"].as_array().unwrap() {
            let title = panel["title"].as_str().unwrap();
            assert!(ids.insert(panel["id"].as_u64().unwrap()), "{name}: {title}: its number is another's");
            let place = |side: &str| panel["gridPos"][side].as_u64().unwrap();
            for (x, y) in (0..place("w")).flat_map(|x| (0..place("h")).map(move |y| (x, y))) {
                let cell = (place("x") + x, place("y") + y);
                assert!(cell.0 < 24 && taken.insert(cell), "{name}: {title} lies on another at {cell:?}");
            }
            if panel["type"] != "row" {
                let description = panel["description"].as_str().unwrap();
                assert!(!title.is_empty() && description.ends_with('.'), "{name}: {title}: {description:?}");
                assert!(!panel["targets"].as_array().unwrap().is_empty(), "{name}: {title}");
            }
        }
    }
}

/// What a provisioned Grafana reads names folders and files that are there.
#[test]
fn the_provisioning_names_what_is_there() {
    let provider = fs::read_to_string("grafana/provisioning/dashboards/systole.yml").unwrap();
    assert!(provider.contains("path: /var/lib/grafana/dashboards/systole"), "{provider}");
    let sources = fs::read_to_string("grafana/provisioning/datasources/systole.yml").unwrap();
    for kind in dashboards::all().iter().flat_map(|(_, board)| {
        let variables: Vec<Value> = board["templating"]["list"].as_array().unwrap().clone();
        variables
            .into_iter()
            .filter(|one| one["type"] == "datasource")
            .map(|one| one["query"].as_str().unwrap().to_owned())
    }) {
        assert!(sources.contains(&format!("type: {kind}\n")), "no {kind} in {sources}");
    }
    assert!(Path::new("grafana/README.md").exists());
}
