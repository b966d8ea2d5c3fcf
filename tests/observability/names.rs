//! What is named in a dashboard, a rule or a document exists.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use crate::catalogue::{CATALOGUE, Kind};

/// The series of a catalogue's row.
fn series() -> BTreeSet<String> {
    let suffixes = |kind| match kind {
        Kind::Histogram(_) => vec!["", "_bucket", "_count", "_sum"],
        Kind::Counter | Kind::Gauge => vec![""],
    };
    CATALOGUE
        .iter()
        .flat_map(|entry| suffixes(entry.kind).into_iter().map(|suffix| format!("{}{suffix}", entry.name)))
        .collect()
}

/// All files that may name a metric.
fn texts() -> Vec<PathBuf> {
    let mut files = vec![PathBuf::from("README.md"), PathBuf::from("ARCHITECTURE.md"), PathBuf::from("CHANGELOG.md")];
    for folder in ["docs", "docs/runbooks", "grafana", "grafana/dashboards", "deploy/prometheus", "deploy/alertmanager"]
    {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let extension = path.extension().and_then(|extension| extension.to_str());
            if matches!(extension, Some("md" | "yml" | "json")) {
                files.push(path);
            }
        }
    }
    files
}

/// The words of a text that look like metrics of ours.
fn named(text: &str) -> BTreeSet<String> {
    let words = text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
    let ours = words.filter(|word| word.starts_with("systole_") || word.starts_with("process_"));
    ours.filter(|word| !NO_METRICS.contains(word)).map(str::to_owned).collect()
}

/// Roles of PostgreSQL, and what else is called as our metrics are.
const NO_METRICS: [&str; 8] = [
    "systole_owner",
    "systole_worker",
    "systole_client",
    "systole_viewer",
    "systole_grafana",
    "systole_session",
    "systole_drill",
    "systole_drill_ledger",
];

#[test]
fn every_metric_that_is_named_exists() {
    let known = series();
    let mut unknown = Vec::new();
    for path in texts() {
        let text = fs::read_to_string(&path).unwrap();
        unknown.extend(named(&text).difference(&known).map(|name| format!("{}: {name}", path.display())));
    }
    assert!(unknown.is_empty(), "{unknown:#?}");
}

/// What a text asks of the labels of our series, as `series{label="one|other"}`: the series, the label and each value.
fn asked(text: &str) -> Vec<(&str, String, String)> {
    let text_of = |braces: &str| braces.split('}').next().unwrap_or_default().replace("\\\"", "\"");
    let mut all = Vec::new();
    for (at, _) in text.match_indices('{') {
        let before = &text[..at];
        let name = before.rsplit(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).next().unwrap_or_default();
        for matcher in text_of(&text[at + 1..]).split("\",") {
            let Some((label, values)) = matcher.split_once('=') else { continue };
            let values = values.trim_start_matches('~').trim_matches('"').to_owned();
            let label = label.trim_end_matches('!').trim().to_owned();
            all.extend(values.split('|').map(|value| (name, label.clone(), value.to_owned())));
        }
    }
    all
}

/// A value that no series has is asked for in vain.
#[test]
fn every_value_of_a_label_that_is_named_exists() {
    let (mut seen, mut unknown) = (0, Vec::new());
    for path in texts() {
        let text = fs::read_to_string(&path).unwrap();
        for (name, label, value) in asked(&text) {
            let entry = CATALOGUE.iter().find(|entry| entry.name == name);
            let Some(known) = entry.and_then(|entry| entry.labels.iter().find(|own| own.name == label)) else {
                continue;
            };
            seen += 1;
            // A variable of a dashboard, or a label that has any value.
            if !(known.values.is_empty() || value.starts_with('$') || known.values.contains(&value.as_str())) {
                unknown.push(format!("{}: {name}{{{label}={value:?}}}", path.display()));
            }
        }
    }
    assert!(unknown.is_empty(), "{unknown:#?}");
    assert!(seen > 100, "only {seen} were seen");
    let two = asked(r#"rate(a_total{cause=~\"x|y\",b!="z"}[5m])"#);
    assert_eq!(two.iter().map(|(.., value)| value.as_str()).collect::<Vec<_>>(), ["x", "y", "z"]);
}

/// What nothing shows is worth a thought, and is no fault: for whoever asks for it by hand.
const SHOWN_NOWHERE: [(&str, &str); 4] = [
    ("systole_heartbeat_interval_seconds", "bounds nothing that is drawn"),
    ("systole_kill_grace_seconds", "bounds what is drawn as a heatmap"),
    ("process_virtual_memory_bytes", "says little of a program whose memory is mapped"),
    ("process_threads", "grows only with a bug"),
];

#[test]
fn every_metric_is_shown_somewhere_or_is_on_the_list() {
    let used: BTreeSet<String> = ["grafana/dashboards", "deploy/prometheus"]
        .iter()
        .flat_map(|folder| fs::read_dir(folder).unwrap())
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.is_file())
        .flat_map(|path| named(&fs::read_to_string(path).unwrap()))
        .collect();
    let is_used =
        |name: &str| ["", "_bucket", "_count", "_sum"].iter().any(|suffix| used.contains(&format!("{name}{suffix}")));
    let unused: Vec<&str> = CATALOGUE.iter().map(|entry| entry.name).filter(|name| !is_used(name)).collect();
    let listed: Vec<&str> = SHOWN_NOWHERE.iter().map(|(name, _)| *name).collect();
    assert_eq!(unused, listed, "the list of what nothing shows");
}

/// A panel or a rule that reads the fleet's series takes the greatest of what the exporters say, before it does anything else
/// with several of them.
#[test]
fn every_series_of_the_fleet_is_wrapped_in_max_by() {
    let dashboards = crate::queries::expressions().into_iter().map(|(place, expression, _)| (place, expression));
    let rules = fs::read_to_string("deploy/prometheus/rules.yml").unwrap();
    let rules = crate::rules::expressions(&rules).into_iter();
    let mut seen = 0;
    for (place, expression) in dashboards.chain(rules) {
        for (at, _) in expression.match_indices("systole_fleet_") {
            let aggregation = innermost_aggregation(&expression[..at]);
            let is_wrapped = matches!(aggregation, Some("max" | "min" | "absent"));
            assert!(is_wrapped, "{place}: {aggregation:?} around {} in {expression}", &expression[at..]);
            seen += 1;
        }
    }
    assert!(seen > 60, "only {seen} were seen");
    assert_eq!(innermost_aggregation("sum by (x) (max by (host, cause) (increase("), Some("max"));
    assert_eq!(innermost_aggregation("max(sum by (queue) ("), Some("sum"));
    assert_eq!(innermost_aggregation("max(a) + clamp_max("), None);
}

/// The aggregation that what comes next is in.
fn innermost_aggregation(before: &str) -> Option<&str> {
    let mut depth = 0;
    for (at, c) in before.char_indices().rev() {
        match c {
            ')' => depth += 1,
            '(' if depth > 0 => depth -= 1,
            '(' => {
                let mut head = before[..at].trim_end();
                // by (…) stands between the name and what is aggregated.
                if let Some((name, _)) = head.strip_suffix(')').and_then(|head| head.rsplit_once(" by (")) {
                    head = name;
                }
                let name = head.rsplit(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).next()?;
                if ["sum", "max", "min", "avg", "count", "topk", "absent"].contains(&name) {
                    return Some(name);
                }
            }
            _ => {}
        }
    }
    None
}

/// The commands of the program that a document names.
fn commands(text: &str) -> BTreeSet<String> {
    let quoted = text.split('`').skip(1).step_by(2);
    let lines = quoted.flat_map(str::lines).map(|line| line.trim_start_matches("$ ").trim_start());
    let named = lines.filter_map(|line| line.strip_prefix("systole ")?.split_whitespace().next());
    named.filter(|word| word.starts_with(|c: char| c.is_ascii_lowercase())).map(str::to_owned).collect()
}

#[test]
fn every_command_in_a_runbook_exists() {
    let help = std::process::Command::new(env!("CARGO_BIN_EXE_systole")).arg("--help").output().unwrap();
    let help = String::from_utf8(help.stdout).unwrap();
    let known: BTreeSet<&str> =
        help.lines().filter_map(|line| line.strip_prefix("  ")?.split_whitespace().next()).collect();
    assert!(known.contains("doctor") && known.contains("submit"), "{help}");
    let mut named = 0;
    let runbooks = fs::read_dir("docs/runbooks").unwrap().map(|entry| entry.unwrap().path());
    for path in runbooks.chain([Path::new("docs/monitoring.md").to_owned()]) {
        for command in commands(&fs::read_to_string(&path).unwrap()) {
            assert!(known.contains(command.as_str()), "{}: there is no systole {command}", path.display());
            named += 1;
        }
    }
    assert!(named > 20, "only {named} were found");
}
