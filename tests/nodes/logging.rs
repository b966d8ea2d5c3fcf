//! What a node says of itself, and the trace that its runs are a part of.

use serde_json::Value;

use crate::support::{Database, Systole};
use crate::{SOON, becomes, submit};

const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

fn lines(said: &str) -> Vec<Value> {
    said.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{line}: {error}"))).collect()
}

#[test]
fn each_line_is_an_object_that_names_executor_run_and_fence() {
    let database = Database::new();
    let host = Systole::on(&database).with("SYSTOLE_LOG_FORMAT", "auto");
    submit(&host, "a-b", &[], "exit 3");
    let mut node = host.start(&["node", "--once", "--allow-submitted-commands"]);
    assert_eq!(node.code(SOON), 0, "{}", node.errors());
    let lines = lines(&node.errors());
    let of =
        |event: &str| lines.iter().find(|line| line["event"] == event).unwrap_or_else(|| panic!("{event}: {lines:?}"));
    let executor = database.value("SELECT executor_id FROM systole.executor_instances");
    for event in ["ready", "attempt_started", "attempt_ended", "drained"] {
        assert_eq!(of(event)["executor"], executor.as_str(), "{event}");
    }
    for event in ["attempt_started", "attempt_ended"] {
        let line = of(event);
        assert_eq!((&line["run"], &line["attempt"]), (&"a-b".into(), &1.into()), "{line}");
        assert_eq!(line["fence"].to_string(), database.value("SELECT fence FROM systole.executor_instances"));
    }
    assert!(of("ready").get("run").is_none());
}

#[test]
fn why_it_ended_is_a_line_like_any_other() {
    let database = Database::new();
    let host = Systole::on(&database).with("SYSTOLE_LOG_FORMAT", "json").with("SYSTOLE_SCHEMA", "elsewhere");
    let mut node = host.start(&["node"]);
    assert_eq!(node.code(SOON), 78);
    let lines = lines(&node.errors());
    assert_eq!(lines.last().expect("a line")["event"], "failed", "{lines:?}");
}

#[test]
fn a_run_goes_on_with_the_trace_of_whoever_submits_it() {
    let database = Database::new();
    let host = Systole::on(&database).with("TRACEPARENT", PARENT).with("TRACESTATE", "vendor=1");
    let other = Systole::on(&database).with("TRACEPARENT", "no trace").with("TRACESTATE", "vendor=2");
    let say = "echo \"<$TRACEPARENT $TRACESTATE>\"";
    submit(&host, "traced", &[], say);
    submit(&host, "its-own", &["--env", "TRACESTATE=mine"], say);
    submit(&other, "untraced", &[], say);
    let mut node = host.start(&["node", "--once", "--allow-submitted-commands"]);
    assert_eq!(node.code(SOON), 0, "{}", node.errors());
    let trace = |run_id: &str| {
        becomes(&database, run_id, "COMPLETED");
        String::from_utf8(host.output(&["logs", run_id]).stdout).unwrap()
    };
    assert!(trace("traced").contains(&format!("<{PARENT} vendor=1>")), "{}", trace("traced"));
    assert!(trace("its-own").contains(&format!("<{PARENT} mine>")), "{}", trace("its-own"));
    assert!(trace("untraced").contains("< >"), "{}", trace("untraced"));
}
