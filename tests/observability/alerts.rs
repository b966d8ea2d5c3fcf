//! Who hears of what, by the committed configuration of Alertmanager.

use std::fs;
use std::process::Command;

use crate::tools::{program, succeeds};

const CONFIGURATION: &str = "deploy/alertmanager/alertmanager.yml";

#[test]
fn the_configuration_passes_amtool() {
    let Some(amtool) = program(&["amtool"]) else { return };
    let said = succeeds(Command::new(amtool).args(["check-config", CONFIGURATION]));
    assert!(said.contains("SUCCESS"), "{said}");
}

#[test]
fn each_alert_finds_its_receiver() {
    let Some(amtool) = program(&["amtool"]) else { return };
    for (receiver, labels) in [
        ("pager", vec!["alertname=SystoleExecutorCrashed", "severity=critical", "host=corvus"]),
        ("pager", vec!["alertname=SystoleNodeCrashed", "severity=warning", "node=corvus"]),
        ("pager", vec!["alertname=SystoleStaleRunNotTakenOver", "severity=critical"]),
        ("pager", vec!["alertname=SystoleDatabaseUnreachable", "severity=critical"]),
        ("team", vec!["alertname=SystoleQueueTooOld", "severity=warning"]),
        ("team", vec!["alertname=SystoleNodeStale", "severity=warning", "node=corvus"]),
    ] {
        let mut command = Command::new(&amtool);
        command.args(["config", "routes", "test", "--config.file", CONFIGURATION]);
        command.arg(format!("--verify.receivers={receiver}")).args(&labels);
        succeeds(&mut command);
    }
}

/// A rule that silences, or a route, for an alert that nobody raises would be dead.
#[test]
fn only_alerts_that_exist_are_routed_and_silenced() {
    let rules = fs::read_to_string("deploy/prometheus/rules.yml").unwrap();
    let text = fs::read_to_string(CONFIGURATION).unwrap();
    let words = text.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| word.starts_with("Systole"));
    let mut seen = 0;
    for word in words {
        assert!(rules.contains(&format!("- alert: {word}\n")), "{word} is no alert");
        seen += 1;
    }
    assert!(seen > 10, "only {seen} were seen");
}
