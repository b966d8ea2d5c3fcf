//! How long a retry waits: exponential, with full jitter, and never for longer than an hour.

use proptest::prelude::*;
use proptest::test_runner::{Config, TestCaseError, TestRunner};

use crate::asking::{beside_the_runtime, database};

const HOUR_MS: f64 = 3_600_000.0;

#[test]
fn the_bound_doubles_with_each_failure_up_to_an_hour() {
    let database = database();
    let mut runner = TestRunner::new(Config { cases: 200, ..Config::default() });
    let backoff_ms = prop_oneof![Just(0u64), 1..2_000u64, 2_000..10_000_000u64, Just(u64::from(u32::MAX) * 1000)];
    let property = runner.run(&(backoff_ms, 1..100_000i32), |(backoff_ms, failures)| {
        let bound = |failures: i32| {
            let sql = format!(
                "SELECT extract(epoch FROM systole.retry_bound({backoff_ms} * interval '1 ms', {failures})) * 1000"
            );
            database.value(&sql).parse::<f64>().unwrap()
        };
        let expected = (backoff_ms as f64 * 2f64.powi((failures - 1).min(20))).min(HOUR_MS);
        let (this, next) = (bound(failures), bound(failures + 1));
        if (this - expected).abs() > 0.001 * expected.max(1.0) {
            return Err(TestCaseError::fail(format!("{this} ms and not {expected}")));
        }
        // Never less for having failed more often.
        if next < this {
            return Err(TestCaseError::fail(format!("{next} ms after {this}")));
        }
        Ok(())
    });
    property.unwrap_or_else(|failure| panic!("{failure}"));
}

/// The wait is drawn from 0 to the bound: all of it, and nothing beyond.
#[test]
fn the_wait_is_drawn_from_all_of_it() {
    let database = beside_the_runtime(database);
    database.sql(
        "SELECT systole.submit('r' || n, argv => ARRAY['true'], backoff => '100 s', max_attempts => 9) FROM generate_series(1, 400) n;
         SELECT systole.claim_queued('{default}', '{}', '{}', true,
             ARRAY(SELECT gen_random_uuid() FROM generate_series(1, 400)), array_fill(NULL::bytea, ARRAY[400]),
             '1@h', 'h', 1, NULL, NULL, NULL, 'none', 30000, '1000.0.0');
         SELECT systole.finish(instance_id, fence, 'FAILED', 1, NULL, 0, '{}') FROM systole.executor_instances;",
    );
    let spread = |what: &str| -> f64 {
        let wait = "extract(epoch FROM r.available_at - i.ended_at)";
        let from = "systole.runs r JOIN systole.executor_instances i USING (run_id) WHERE r.status = 'QUEUED'";
        database.value(&format!("SELECT {what}({wait}) FROM {from}")).parse().unwrap()
    };
    // Each bound is missed by chance once in 10^7 runs or less.
    assert!(spread("min") >= 0.0 && spread("min") < 5.0, "{}", spread("min"));
    assert!(spread("max") <= 100.1 && spread("max") > 95.0, "{}", spread("max"));
    assert!((spread("avg") - 50.0).abs() < 10.0, "{}", spread("avg"));
}
