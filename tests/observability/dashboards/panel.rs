//! One panel: what it asks, how it is drawn, and a sentence that says what to read in it.

use serde_json::{Value, json};

use super::expand;

/// Colours by meaning.
pub(crate) const GOOD: &str = "green";
pub(crate) const WATCH: &str = "yellow";
pub(crate) const BAD: &str = "red";
pub(crate) const CALM: &str = "blue";

pub(crate) struct Panel {
    pub(crate) json: Value,
    pub(crate) width: u32,
    pub(crate) height: u32,
}

impl Panel {
    fn new(kind: &str, id: u32, title: &str, description: &str, options: Value, custom: Value) -> Panel {
        let json = json!({
            "id": id, "type": kind, "title": title, "description": description,
            "datasource": { "type": "prometheus", "uid": "${datasource}" },
            "options": options,
            "fieldConfig": { "defaults": { "custom": custom }, "overrides": [] },
            "targets": [],
        });
        Panel { json, width: 8, height: 8 }
    }

    /// One number, the last one.
    pub(crate) fn stat(id: u32, title: &str, description: &str) -> Panel {
        let options = json!({
            "graphMode": "none", "colorMode": "value", "justifyMode": "auto", "textMode": "auto", "wideLayout": true,
            "showPercentChange": false, "percentChangeColorMode": "standard", "orientation": "auto",
            "reduceOptions": { "calcs": ["lastNotNull"], "values": false, "fields": "" },
        });
        let mut panel = Panel::new("stat", id, title, description, options, json!({}));
        panel.json["fieldConfig"]["defaults"]["noValue"] = json!("no data");
        panel.size(3, 4)
    }

    /// A stat of what a table's only field says, as text.
    pub(crate) fn word(id: u32, title: &str, description: &str, sql: &str) -> Panel {
        let mut panel = Panel::stat(id, title, description).sql("table", sql);
        panel.json["options"]["reduceOptions"] = json!({ "calcs": ["lastNotNull"], "values": false, "fields": "/.*/" });
        panel
    }

    /// Lines over time. Gaps stay gaps: whoever was not there has no value.
    pub(crate) fn lines(id: u32, title: &str, description: &str) -> Panel {
        let options = json!({
            "legend": { "displayMode": "list", "placement": "bottom", "showLegend": true, "calcs": [] },
            "tooltip": { "mode": "multi", "sort": "desc" },
        });
        let custom = json!({
            "drawStyle": "line", "lineInterpolation": "linear", "lineWidth": 1, "fillOpacity": 0, "showPoints": "never",
            "spanNulls": false, "axisSoftMin": 0, "thresholdsStyle": { "mode": "off" },
        });
        Panel::new("timeseries", id, title, description, options, custom)
    }

    /// Shares of a whole, on top of each other.
    pub(crate) fn stacked(id: u32, title: &str, description: &str) -> Panel {
        let mut panel = Panel::lines(id, title, description);
        let custom = &mut panel.json["fieldConfig"]["defaults"]["custom"];
        custom["stacking"] = json!({ "mode": "normal", "group": "A" });
        custom["fillOpacity"] = json!(40);
        panel
    }

    /// A lane for each, coloured by what a number stands for.
    pub(crate) fn lanes(id: u32, title: &str, description: &str, states: &[(u32, &str, &str)]) -> Panel {
        let options = json!({
            "showValue": "auto", "rowHeight": 0.8, "mergeValues": true, "alignValue": "left", "perPage": 20,
            "legend": { "displayMode": "list", "placement": "bottom", "showLegend": true, "calcs": [] },
            "tooltip": { "mode": "single", "sort": "none" },
        });
        let custom = json!({ "lineWidth": 0, "fillOpacity": 80, "spanNulls": false });
        let mut panel = Panel::new("state-timeline", id, title, description, options, custom).states(states);
        panel.json["fieldConfig"]["defaults"]["color"] = json!({ "mode": "thresholds" });
        panel
    }

    /// How many fell into which bucket, over time: with few events it says more than a quantile would.
    pub(crate) fn heatmap(id: u32, title: &str, description: &str, unit: &str, histogram: &str) -> Panel {
        let options = json!({
            "calculate": false, "cellGap": 1, "showValue": "never", "selectionMode": "x",
            "color": { "mode": "scheme", "scheme": "Oranges", "fill": "dark-orange", "scale": "exponential",
                       "exponent": 0.5, "steps": 64, "reverse": false },
            "filterValues": { "le": 1e-9 }, "rowsFrame": { "layout": "auto" },
            "yAxis": { "unit": unit, "axisPlacement": "left" },
            "legend": { "show": true }, "tooltip": { "mode": "single", "yHistogram": false },
            "exemplars": { "color": "rgba(255,0,255,0.7)" },
        });
        let custom = json!({ "scaleDistribution": { "type": "linear" } });
        let ask = format!("sum by (le) (increase({histogram}<R>))");
        let mut panel = Panel::new("heatmap", id, title, description, options, custom).ask(&ask, "{{le}}");
        panel.json["targets"][0]["format"] = json!("heatmap");
        panel
    }

    /// What is so now, a row for each.
    pub(crate) fn table(id: u32, title: &str, description: &str) -> Panel {
        let options = json!({
            "frameIndex": 0, "showHeader": true, "cellHeight": "sm",
            "footer": { "show": false, "reducer": ["sum"], "countRows": false },
        });
        let custom =
            json!({ "align": "auto", "cellOptions": { "type": "auto" }, "inspect": false, "filterable": true });
        Panel::new("table", id, title, description, options, custom)
    }

    /// A question to Prometheus, over time or of this moment, as the kind of panel wants it.
    pub(crate) fn ask(mut self, expression: &str, legend: &str) -> Panel {
        let is_table = self.json["type"] == "table";
        let now = is_table || self.json["type"] == "stat";
        let targets = self.json["targets"].as_array_mut().expect("a list");
        targets.push(json!({
            "refId": reference(targets.len()), "datasource": { "type": "prometheus", "uid": "${datasource}" },
            "expr": expand(expression), "legendFormat": legend, "editorMode": "code",
            "format": if is_table { "table" } else { "time_series" },
            "instant": now, "range": !now, "exemplar": false,
        }));
        self
    }

    /// A question to PostgreSQL.
    pub(crate) fn sql(mut self, format: &str, statement: &str) -> Panel {
        let source = json!({ "type": "grafana-postgresql-datasource", "uid": "${database}" });
        self.json["datasource"] = source.clone();
        let targets = self.json["targets"].as_array_mut().expect("a list");
        targets.push(json!({
            "refId": reference(targets.len()), "datasource": source, "format": format, "editorMode": "code",
            "rawQuery": true, "rawSql": statement,
        }));
        self
    }

    pub(crate) fn unit(mut self, unit: &str) -> Panel {
        self.json["fieldConfig"]["defaults"]["unit"] = json!(unit);
        self
    }

    /// Where a bound is a thousand times what is usual.
    pub(crate) fn logarithmic(mut self) -> Panel {
        let custom = &mut self.json["fieldConfig"]["defaults"]["custom"];
        custom["scaleDistribution"] = json!({ "type": "log", "log": 10 });
        custom.as_object_mut().expect("an object").remove("axisSoftMin");
        self
    }

    /// Counts, of which increase() makes fractions.
    pub(crate) fn whole(mut self) -> Panel {
        self.json["fieldConfig"]["defaults"]["decimals"] = json!(0);
        self
    }

    pub(crate) fn range(mut self, min: f64, max: f64) -> Panel {
        self.json["fieldConfig"]["defaults"]["min"] = json!(min);
        self.json["fieldConfig"]["defaults"]["max"] = json!(max);
        self
    }

    /// The first colour holds below all bounds.
    pub(crate) fn colours(mut self, first: &str, steps: &[(f64, &str)]) -> Panel {
        let mut list = vec![json!({ "value": null, "color": first })];
        list.extend(steps.iter().map(|(value, color)| json!({ "value": value, "color": color })));
        self.json["fieldConfig"]["defaults"]["thresholds"] = json!({ "mode": "absolute", "steps": list });
        self
    }

    /// Words and colours for numbers.
    pub(crate) fn states(mut self, states: &[(u32, &str, &str)]) -> Panel {
        let mut options = json!({});
        for (index, (value, text, color)) in states.iter().enumerate() {
            options[value.to_string()] = json!({ "text": text, "color": color, "index": index });
        }
        self.json["fieldConfig"]["defaults"]["mappings"] = json!([{ "type": "value", "options": options }]);
        self
    }

    /// Colours for words.
    pub(crate) fn words(mut self, words: &[(&str, &str)]) -> Panel {
        let mut options = json!({});
        for (index, (text, color)) in words.iter().enumerate() {
            options[*text] = json!({ "text": text, "color": color, "index": index });
        }
        self.json["fieldConfig"]["defaults"]["mappings"] = json!([{ "type": "value", "options": options }]);
        self
    }

    /// The line of this query is a bound, and drawn as one.
    pub(crate) fn dashed(mut self, name: &str) -> Panel {
        let overrides = self.json["fieldConfig"]["overrides"].as_array_mut().expect("a list");
        overrides.push(json!({
            "matcher": { "id": "byName", "options": name },
            "properties": [
                { "id": "custom.lineStyle", "value": { "fill": "dash", "dash": [10, 10] } },
                { "id": "color", "value": { "mode": "fixed", "fixedColor": BAD } },
            ],
        }));
        self
    }

    /// Of a table: what is left out, and what the rest is called, in this order.
    pub(crate) fn columns(mut self, hidden: &[&str], named: &[(&str, &str)]) -> Panel {
        let mut exclude = json!({});
        hidden.iter().for_each(|name| exclude[*name] = json!(true));
        let (mut index, mut rename) = (json!({}), json!({}));
        for (place, (name, text)) in named.iter().enumerate() {
            index[*name] = json!(place);
            rename[*name] = json!(text);
        }
        let organize = json!({ "excludeByName": exclude, "indexByName": index, "renameByName": rename });
        let several = self.json["targets"].as_array().expect("a list").len() > 1;
        let merge = several.then(|| json!({ "id": "merge", "options": {} }));
        self.json["transformations"] =
            merge.into_iter().chain([json!({ "id": "organize", "options": organize })]).collect();
        self
    }

    /// The unit of one column.
    pub(crate) fn column_unit(mut self, name: &str, unit: &str) -> Panel {
        let overrides = self.json["fieldConfig"]["overrides"].as_array_mut().expect("a list");
        overrides.push(json!({
            "matcher": { "id": "byName", "options": name }, "properties": [{ "id": "unit", "value": unit }],
        }));
        self
    }

    /// Of 24 columns, and rows of 30 pixels.
    pub(crate) fn size(self, width: u32, height: u32) -> Panel {
        Panel { width, height, ..self }
    }
}

fn reference(place: usize) -> String {
    char::from(b'A' + u8::try_from(place).expect("few queries")).to_string()
}
