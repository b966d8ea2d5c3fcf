//! The fleet: what is queued is started once, by whoever may, and again by another when its executor dies.

#![allow(clippy::unwrap_used)] // it is a test

#[path = "../support/mod.rs"]
mod support;

mod chaos;
mod crashing;
mod giving_way;
mod logging;
mod logs;
mod observed;
mod queueing;
mod ready;
mod working;

use std::time::Duration;

use support::{Database, Running, Systole, eventually};

const SOON: Duration = Duration::from_secs(20);

/// A node that has said that it is ready.
fn node(host: &Systole, arguments: &[&str]) -> Running {
    let node = host.start(&[&["node", "--allow-submitted-commands"], arguments].concat());
    node.wait_for_errors("ready: ", SOON);
    node
}

/// Puts a script into the queue.
#[track_caller]
fn submit(host: &Systole, run_id: &str, options: &[&str], script: &str) {
    let output = host.output(&[&["submit", run_id], options, &["--", "sh", "-c", script]].concat());
    assert_eq!(output.status.code(), Some(0), "{output:?}");
}

/// Waits until a run has this status.
#[track_caller]
fn becomes(database: &Database, run_id: &str, status: &str) {
    let query = format!("SELECT status FROM systole.runs WHERE run_id = '{run_id}'");
    eventually(format!("{run_id} is {status}"), SOON, || (database.value(&query) == status).then_some(()));
}

/// The kinds of a run's events, in order.
fn history(database: &Database, run_id: &str) -> Vec<String> {
    let rows = database.sql(&format!("SELECT kind FROM systole.run_events WHERE run_id = '{run_id}' ORDER BY id"));
    rows.into_iter().map(|mut row| row.remove(0)).collect()
}
