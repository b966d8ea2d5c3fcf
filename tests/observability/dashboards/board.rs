//! What holds for each dashboard.

use serde_json::{Value, json};

use super::expand;
use super::panel::{BAD, Panel};

/// The part of the schema that the generated JSON is written for: Grafana 10 and later read it.
const SCHEMA_VERSION: u32 = 39;

pub(crate) struct Board {
    json: Value,
    /// Where the next panel goes: to the right of the last one, or below the highest of its row.
    x: u32,
    y: u32,
    row_height: u32,
}

impl Board {
    pub(crate) fn new(uid: &str, title: &str, description: &str) -> Board {
        let json = json!({
            "uid": uid, "title": title, "description": description, "tags": ["systole"],
            "schemaVersion": SCHEMA_VERSION, "version": 1, "editable": false, "timezone": "utc", "graphTooltip": 1,
            "refresh": "30s", "time": { "from": "now-1h", "to": "now" }, "panels": [],
            "templating": { "list": [] }, "annotations": { "list": [] },
            "links": [{
                "title": "systole", "type": "dashboards", "tags": ["systole"], "icon": "external link", "tooltip": "",
                "asDropdown": true, "targetBlank": false, "includeVars": true, "keepTime": true,
            }],
        });
        Board { json, x: 0, y: 0, row_height: 0 }
    }

    /// The data source of the metrics, the jobs, and what befell the fleet as marks in every panel.
    pub(crate) fn with_prometheus(self) -> Board {
        let source = json!({ "type": "prometheus", "uid": "${datasource}" });
        let mut board = self.source("datasource", "Prometheus", "prometheus");
        board = board.variable("job", "Nodes' job", "label_values(systole_build_info, job)", json!({})).variable(
            "fleet_job",
            "Fleet's job",
            "label_values(systole_fleet_snapshot_timestamp_seconds, job)",
            json!({}),
        );
        // A host that crashes for the first time has no counter that could have risen: its gauge is born instead.
        let crashes = "sum by (host) (max by (host, cause) (increase(systole_fleet_instance_crashes_total{<F>}<R>))) > 0 \
                       or (max by (host) (systole_fleet_crashes_ringing{<F>}) > 0 \
                       unless on (host) max by (host) (systole_fleet_crashes_ringing{<F>} offset 1m) > 0)";
        let takeovers = "max by (cause) (increase(systole_fleet_takeovers_total{<F>}<R>)) > 0";
        for (name, color, expression, text, tags) in [
            ("Executor crashes", BAD, crashes, "crash on {{host}}", "host"),
            ("Takeovers", "orange", takeovers, "takeover by {{cause}}", "cause"),
        ] {
            let expr = expand(expression);
            let target = json!({ "refId": "Anno", "datasource": source, "expr": expr });
            board.list("annotations").push(json!({
                "name": name, "datasource": source, "enable": true, "iconColor": color, "expr": expr, "target": target,
                "titleFormat": name, "textFormat": text, "tagKeys": tags, "step": "60s",
            }));
        }
        board
    }

    /// A data source for the reader to choose: a file that names one would fit one Grafana only.
    pub(crate) fn source(mut self, name: &str, label: &str, kind: &str) -> Board {
        self.list("templating").push(json!({
            "type": "datasource", "name": name, "label": label, "query": kind, "hide": 0, "refresh": 1, "regex": "",
            "includeAll": false, "multi": false, "options": [],
        }));
        self
    }

    /// Values that Prometheus has for a label; `more` replaces what is said here, and a null takes it away.
    pub(crate) fn variable(mut self, name: &str, label: &str, query: &str, more: Value) -> Board {
        let mut variable = json!({
            "type": "query", "name": name, "label": label, "definition": query, "hide": 0, "refresh": 2, "sort": 1,
            "datasource": { "type": "prometheus", "uid": "${datasource}" },
            "query": { "query": query, "refId": name }, "regex": "", "options": [],
            "includeAll": true, "multi": true, "allValue": ".+", "current": { "text": "All", "value": "$__all" },
        });
        for (key, value) in more.as_object().expect("an object") {
            if value.is_null() {
                variable.as_object_mut().expect("an object").remove(key);
            } else {
                variable[key] = value.clone();
            }
        }
        self.list("templating").push(variable);
        self
    }

    /// Of the nodes that are scraped.
    pub(crate) fn with_instances(self) -> Board {
        self.variable("instance", "Node", r#"label_values(systole_build_info{job=~"$job"}, instance)"#, json!({}))
    }

    pub(crate) fn annotation(mut self, annotation: Value) -> Board {
        self.list("annotations").push(annotation);
        self
    }

    pub(crate) fn hours(mut self, hours: u32) -> Board {
        self.json["time"]["from"] = json!(format!("now-{hours}h"));
        self
    }

    /// A heading across the board.
    pub(crate) fn row(mut self, id: u32, title: &str) -> Board {
        self.next_line();
        self.json["panels"].as_array_mut().expect("a list").push(json!({
            "id": id, "type": "row", "title": title, "collapsed": false, "panels": [],
            "gridPos": { "x": 0, "y": self.y, "w": 24, "h": 1 },
        }));
        self.y += 1;
        self
    }

    pub(crate) fn panel(mut self, panel: Panel) -> Board {
        if self.x + panel.width > 24 {
            self.next_line();
        }
        let mut json = panel.json;
        json["gridPos"] = json!({ "x": self.x, "y": self.y, "w": panel.width, "h": panel.height });
        self.json["panels"].as_array_mut().expect("a list").push(json);
        self.x += panel.width;
        self.row_height = self.row_height.max(panel.height);
        self
    }

    pub(crate) fn done(self) -> Value {
        self.json
    }

    fn next_line(&mut self) {
        (self.x, self.y, self.row_height) = (0, self.y + self.row_height, 0);
    }

    fn list(&mut self, of: &str) -> &mut Vec<Value> {
        self.json[of]["list"].as_array_mut().expect("a list")
    }
}
