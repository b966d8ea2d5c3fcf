//! The rules hold together, ring in the histories made for it, and not on a good day; each alert has its page.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

use crate::history::{STEP, input_series, scraped};
use crate::tools::{promtool, succeeds};
use crate::world::{Plan, World};

const RULES: &str = "deploy/prometheus/rules.yml";

/// The expressions of a file of rules, each with its alert or record.
pub(crate) fn expressions(text: &str) -> Vec<(String, String)> {
    let mut all: Vec<(String, String)> = Vec::new();
    let mut folded = false;
    for line in text.lines() {
        let trimmed = line.trim_start();
        if let Some(name) = trimmed.strip_prefix("- alert: ").or_else(|| trimmed.strip_prefix("- record: ")) {
            all.push((name.to_owned(), String::new()));
            folded = false;
        } else if let Some(expression) = trimmed.strip_prefix("expr: ") {
            folded = expression == ">-";
            all.last_mut().unwrap().1 = if folded { String::new() } else { expression.to_owned() };
        } else if folded && line.starts_with("          ") {
            let (_, expression) = all.last_mut().unwrap();
            expression.push(' ');
            expression.push_str(trimmed);
        } else {
            folded = false;
        }
    }
    assert!(all.iter().all(|(_, expression)| !expression.is_empty()), "{all:?}");
    all
}

fn alerts() -> BTreeSet<String> {
    let all = expressions(&fs::read_to_string(RULES).unwrap()).into_iter().map(|(name, _)| name);
    all.filter(|name| !name.contains(':')).collect()
}

#[test]
fn the_rules_and_the_configuration_pass_promtool() {
    let Some(promtool) = promtool() else { return };
    succeeds(Command::new(&promtool).args(["check", "rules", "--lint=all", "--lint-fatal", RULES]));
    succeeds(Command::new(&promtool).args(["check", "config", "deploy/prometheus/prometheus.yml"]));
}

#[test]
fn each_alert_fires_in_the_history_made_for_it() {
    let Some(promtool) = promtool() else { return };
    let tests = fs::read_to_string("deploy/prometheus/rules_test.yml").unwrap();
    // An expectation of nothing would be met as well.
    for alert in alerts() {
        let fires = [format!("{{alertname=\"{alert}\""), format!("docs/runbooks/{alert}.md")];
        assert!(fires.iter().any(|fires| tests.contains(fires)), "there is no history in which {alert} fires");
    }
    succeeds(Command::new(promtool).args(["test", "rules", "deploy/prometheus/rules_test.yml"]));
}

/// Whatever has fired in this world, up to its end.
fn fired(promtool: &Path, world: &World) -> String {
    let folder = tempfile::tempdir().unwrap();
    let rules = fs::canonicalize(RULES).unwrap();
    let end = world.steps * STEP - STEP;
    let expression = format!("count by (alertname) (count_over_time(ALERTS{{alertstate=\"firing\"}}[{}s]))", end + 1);
    let text = format!(
        "rule_files: [{rules}]\nevaluation_interval: {STEP}s\ntests:\n  - interval: {STEP}s\n    input_series:\n{series}    \
         promql_expr_test:\n      - expr: '{expression}'\n        eval_time: {end}s\n",
        rules = rules.display(),
        series = input_series(&scraped(world)),
    );
    let file = folder.path().join("quiet.yml");
    fs::write(&file, text).unwrap();
    let output = Command::new(promtool).args(["test", "rules"]).arg(&file).output().unwrap();
    let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() || text.contains("got:"), "it was not tried at all: {text}");
    let got = text.split("got:").nth(1).unwrap_or_default().trim().to_owned();
    if got == "nil" { String::new() } else { got }
}

#[test]
fn nothing_rings_in_a_healthy_hour() {
    let Some(promtool) = promtool() else { return };
    assert_eq!(fired(&promtool, &World::new(Plan::Healthy, 0.0)), "");
    let two = World { exporters: 2, ..World::new(Plan::Healthy, 0.0) };
    assert_eq!(fired(&promtool, &two), "");
}

#[test]
fn nothing_rings_in_a_rolling_restart() {
    let Some(promtool) = promtool() else { return };
    assert_eq!(fired(&promtool, &World::new(Plan::Rolling, 0.0)), "");
}

/// A Prometheus that is started sees nothing of the fleet until it has scraped it, and then counters that did not begin at 0.
#[test]
fn nothing_rings_in_the_first_two_minutes_of_a_prometheus() {
    let Some(promtool) = promtool() else { return };
    for first_scrape in [0.0, 15.0, 60.0, 105.0] {
        let world = World { first_scrape, steps: 120 / STEP + 1, ..World::new(Plan::Healthy, 0.0) };
        assert_eq!(fired(&promtool, &world), "", "scraped from second {first_scrape}");
    }
}

/// The other way round: the same check sees what does ring, and nothing beside it.
#[test]
fn the_incident_rings_and_nothing_that_did_not_happen() {
    let Some(promtool) = promtool() else { return };
    let fired = fired(&promtool, &World::new(Plan::Incident, 0.0));
    let names = fired.split("alertname=\"Systole").skip(1).map(|rest| rest.split('"').next().unwrap());
    let names: BTreeSet<&str> = names.collect();
    let expected = [
        "DatabaseUnreachable",
        "ExecutorCrashed",
        "ExecutorFenced",
        "HeartbeatBudgetBurn",
        "HeartbeatNearFence",
        "NodeCrashed",
        "QueueTooOld",
        "RunPoisoned",
    ];
    assert_eq!(names, BTreeSet::from(expected), "{fired}");
}

#[test]
fn each_alert_has_a_severity_values_and_a_page_that_says_what_to_do() {
    let text = fs::read_to_string(RULES).unwrap();
    let alerts = alerts();
    assert!(alerts.len() > 20, "{alerts:?}");
    for rule in text.split("- alert: ").skip(1) {
        let name = rule.lines().next().unwrap();
        assert!(name.starts_with("Systole"), "{name}");
        for word in
            ["severity: ", "summary: ", "description: ", "{{ $", &format!("runbook_url: docs/runbooks/{name}.md")]
        {
            assert!(rule.contains(word), "{name} has no {word}");
        }
    }
    for alert in &alerts {
        let page =
            fs::read_to_string(format!("docs/runbooks/{alert}.md")).unwrap_or_else(|_| panic!("{alert} has no page"));
        let headings: Vec<&str> = page.lines().filter(|line| line.starts_with('#')).collect();
        let wanted = [&format!("# {alert}"), "## Meaning", "## Impact", "## Diagnosis", "## Mitigation"];
        assert_eq!(headings, wanted, "{alert}");
    }
    let pages = fs::read_dir("docs/runbooks").unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let orphans: Vec<String> =
        pages.filter(|page| page != "README.md" && !alerts.contains(page.trim_end_matches(".md"))).collect();
    assert!(orphans.is_empty(), "pages of no alert: {orphans:?}");
}
