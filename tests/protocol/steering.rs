//! What an application tells the queue, within a transaction of its own.

use crate::support::Database;

const CALLS: [&str; 4] = ["request_stop", "cancel", "retry", "restart"];

#[test]
fn the_callers_own_bound_on_locks_comes_back() {
    let database = Database::new();
    database.sql("SELECT systole.submit('queued', argv => ARRAY['true'])");
    for (call, run) in CALLS.iter().flat_map(|call| [(call, "queued"), (call, "no-such-run")]) {
        let within = |bound: &str| {
            let rows = database.sql(&format!(
                "BEGIN; SET LOCAL lock_timeout = '{bound}'; SELECT verdict FROM systole.{call}('{run}', 'me'); SHOW lock_timeout; COMMIT"
            ));
            rows[1][0].clone()
        };
        assert_eq!([within("7s"), within("0")], ["7s", "0"], "{call} of {run}");
    }
}

/// Though its caller would wait for ever.
#[test]
fn a_call_does_not_wait_for_long() {
    let database = Database::new();
    database.sql("SELECT systole.submit('locked', argv => ARRAY['true'])");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let other = database.connect().await;
        other.batch_execute("BEGIN; SELECT FROM systole.runs FOR UPDATE").await.unwrap();
        for call in CALLS {
            // The statement's bound is only there so that this test ends, and does not shorten lock_briefly()'s.
            let statement = format!("SET statement_timeout = '20s'; SELECT systole.{call}('locked', 'me')");
            let refused = database.try_sql(&statement).unwrap_err();
            assert_eq!(refused.code().map(tokio_postgres::error::SqlState::code), Some("55P03"), "{call}: {refused:?}");
        }
    });
}
