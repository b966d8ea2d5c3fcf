//! Whichever database: behind a pooler, with roles, in another schema, older or newer than the program, and with secrets
//! on the way to it. Real processes, a real pgbouncer.

#![allow(clippy::unwrap_used)] // it is a test

#[path = "../support/mod.rs"]
mod support;

mod audit;
mod by_hand;
mod floors;
mod forced;
mod hints;
mod ownership;
mod pooled;
mod pooled_direct;
mod private_files;
mod rights;
mod roles;
mod schemas;
mod secrets;
mod steps;
mod versions;

use std::process::Output;
use std::time::Duration;

use support::Database;

/// On a machine that is busy with other things.
const SOON: Duration = Duration::from_secs(20);

/// The exit code and all words, on both outputs.
#[track_caller]
fn expect(output: &Output, code: i32, words: &[&str]) -> String {
    let text = [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes)).concat();
    assert_eq!(output.status.code(), Some(code), "{text}");
    for word in words {
        assert!(text.contains(word), "{word:?} is not in: {text}");
    }
    assert!(!text.contains("panicked"), "{text}");
    text
}

/// The script of a command that works until this file is there.
fn until(file: &std::path::Path) -> String {
    format!("while [ ! -e '{}' ]; do sleep 0.02; done", file.display())
}

/// The kinds of a run's events, in order.
#[track_caller]
fn kinds(database: &Database, run_id: &str) -> Vec<String> {
    database.sql(&format!("SELECT kind FROM systole.run_events WHERE run_id = '{run_id}' ORDER BY id")).concat()
}

/// What can never be, whatever was done.
#[track_caller]
fn assert_sound(database: &Database) {
    let twice = "SELECT run_id FROM systole.executor_instances WHERE status = 'RUNNING' GROUP BY 1 HAVING count(*) > 1";
    assert!(database.sql(twice).is_empty());
    // Each claimed event has a fence above all before it.
    let fences = "SELECT run_id FROM (SELECT run_id, fence, lag(fence) OVER (PARTITION BY run_id ORDER BY id) AS before
                                        FROM systole.run_events WHERE kind = 'claimed') f WHERE fence <= before";
    assert!(database.sql(fences).is_empty());
}
