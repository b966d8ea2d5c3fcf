//! When a silent holder may be taken over: not before its own stale_after, and only by a taker who can know.

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use crate::asking::{Ask, Session, database, held, within, young_database};
use crate::support::Database;

/// What the fleet allows at most.
const MINUTE_MS: i64 = 60_000;

#[tokio::test]
async fn a_holder_is_held_until_its_own_stale_after_has_passed_and_then_taken_over() {
    let (database, holder, tenure) = held("nightly").await;
    let taker = Session::on(&database).await;
    for age in [0.0, 10.0, 29.0] {
        database.age_heartbeat("nightly", age);
        assert_eq!(taker.claim(&Ask::of("nightly")).await.said(), "held/fresh", "{age} s");
    }
    database.age_heartbeat("nightly", 30.1);
    let answer = taker.claim(&Ask { host: "b", ..Ask::of("nightly") }).await;
    let successor = answer.granted();
    assert_eq!(successor.attempt, 2);
    assert!(successor.fence > tenure.fence);
    let predecessor = answer.predecessor.expect("whom it follows is said");
    assert_eq!((&predecessor["status"], &predecessor["cause"]), (&"CRASHED".into(), &"stale".into()));
    let told = "SELECT detail->>'taken_over_by' || ' ' || ((detail->>'margin_seconds')::float8 BETWEEN 0.1 AND 20)
                  FROM systole.run_events WHERE kind = 'crashed'";
    assert_eq!(holder.text(told).await, "4211@b true");
}

#[tokio::test]
async fn a_small_stale_after_of_the_takers_own_steals_nothing() {
    let (database, _holder, _) = held("nightly").await;
    let taker = Session::on(&database).await;
    database.age_heartbeat("nightly", 10.0);
    let hasty = Ask { stale_after_ms: 1, ..Ask::of("nightly") };
    assert_eq!(taker.claim(&hasty).await.said(), "held/fresh");
}

#[tokio::test]
async fn no_instance_may_ask_for_more_silence_than_the_fleet_allows() {
    let (_database, holder, _) = held("nightly").await;
    let endless = Ask { stale_after_ms: MINUTE_MS + 1, ..Ask::of("other") };
    let error = holder.try_claim(&endless).await.unwrap_err();
    assert!(error.as_db_error().unwrap().message().contains("above this fleet's maximum"), "{error:?}");
}

#[tokio::test]
async fn nobody_is_silent_for_longer_than_the_server_has_listened() {
    let database = young_database();
    let session = Session::on(&database).await;
    session.claim(&Ask { stale_after_ms: MINUTE_MS, ..Ask::of("nightly") }).await.granted();
    database.age_heartbeat("nightly", 86_400.0);
    assert_eq!(session.claim(&Ask::of("nightly")).await.said(), "dead/server_started");

    rw_since(&database, "NULL");
    assert_eq!(session.claim(&Ask::of("nightly")).await.said(), "dead/rw_since_unknown");

    rw_since(&database, "clock_timestamp() + interval '1 hour'");
    assert_eq!(session.claim(&Ask::of("nightly")).await.said(), "dead/server_started");
}

#[tokio::test]
async fn a_taker_needs_a_witness_of_its_own_and_the_witness_must_agree() {
    let (database, _holder, _) = held("nightly").await;
    let taker = Session::on(&database).await;
    database.age_heartbeat("nightly", 31.0);
    let ask = Ask::of("nightly");
    for (trusted_for, expected_ahead, said) in [
        (None, None, "dead/taker_cold"),
        (Some(0.0), None, "dead/taker_cold"),
        (Some(29.0), None, "dead/taker_cold"),
        // From the future.
        (Some(-60.0), None, "dead/taker_cold"),
        (Some(31.0), Some(60.0), "dead/clock_step"),
        (Some(31.0), Some(-60.0), "dead/clock_step"),
        (Some(31.0), Some(0.5), "ok"),
    ] {
        let answer = taker.claim(&Ask { trusted_for, expected_ahead, ..ask.clone() }).await;
        assert_eq!(answer.said(), said, "{trusted_for:?} {expected_ahead:?}");
    }
}

/// The clock was ahead when it beat, and has been set back: its stamp must not hold the run until the clock is there.
#[tokio::test]
async fn a_heartbeat_from_the_future_begins_to_age_with_the_next_claim() {
    let database = database();
    let session = Session::on(&database).await;
    let tenure = session.claim(&Ask { stale_after_ms: 300, ..Ask::of("nightly") }).await.granted();
    database.age_heartbeat("nightly", -3600.0);
    assert_eq!(session.claim(&Ask::of("nightly")).await.said(), "held/fresh");

    let waiter = Ask::of("nightly");
    let successor = within("a takeover", async {
        loop {
            match session.claim(&waiter).await {
                answer if answer.said() == "held/fresh" => {}
                answer => return answer.granted(),
            }
        }
    })
    .await;
    let aged = "SELECT detail->>'margin_seconds' FROM systole.run_events WHERE kind = 'crashed'";
    assert!(database.value(aged).parse::<f64>().unwrap() > 0.0, "it was taken over before it had aged");
    assert_eq!(session.beat(&[tenure.instance, successor.instance]).await, ["lost", "ok"]);
}

/// Nobody claims what is queued until the sweep has declared its last holder dead, or no longer in the way.
#[tokio::test]
async fn a_heartbeat_from_the_future_begins_to_age_with_the_next_sweep() {
    let database = database();
    let session = Session::on(&database).await;
    for run in ["silent", "revoked"] {
        session.claim(&Ask { stale_after_ms: 300, ..Ask::of(run) }).await.granted();
    }
    session.batch_execute("SELECT systole.take_away('revoked', 'a test', false)").await.unwrap();
    session
        .batch_execute("UPDATE systole.executor_instances SET last_heartbeat = now() + interval '1 h'")
        .await
        .unwrap();
    let mut declared = within("two deaths", async {
        let mut declared = Vec::new();
        while declared.len() < 2 {
            session.batch_execute("UPDATE systole.takeover_brake SET swept_at = '-infinity'").await.unwrap();
            let reap = "SELECT run_id, reason FROM systole.reap('a test', '-infinity', NULL, 0, 10)";
            let rows = session.query(reap, &[]).await.unwrap();
            declared.extend(rows.iter().map(|row| format!("{} {}", row.get::<_, &str>(0), row.get::<_, &str>(1))));
        }
        declared
    })
    .await;
    declared.sort();
    assert_eq!(declared, ["revoked ", "silent "]);
    let aged = "SELECT bool_and(clock_timestamp() - last_heartbeat > stale_after) FROM systole.executor_instances";
    assert_eq!(database.value(aged), "t", "declared before they had aged");
}

/// Even a heartbeat from the future is the holder's: a claim that looks at it must not make its next one wait.
#[tokio::test]
async fn a_heartbeat_from_the_future_that_somebody_has_locked_is_left_alone() {
    let (database, holder, tenure) = held("nightly").await;
    let taker = Session::on(&database).await;
    database.age_heartbeat("nightly", -3600.0);
    holder.batch_execute("BEGIN").await.unwrap();
    holder.beat(&[tenure.instance]).await;
    taker.batch_execute("SET lock_timeout = '1ms'").await.unwrap();
    assert_eq!(taker.claim(&Ask::of("nightly")).await.said(), "held/fresh");
    holder.batch_execute("COMMIT").await.unwrap();
}

/// `greatest(last_heartbeat, rw_since, trusted_since) + stale_after`, whichever of them is the newest.
#[test]
fn no_takeover_by_age_before_each_of_the_three_stamps_is_stale() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (database, holder, _) = runtime.block_on(held("nightly"));
    rw_since(&database, "clock_timestamp() - current_setting('test.server_age')::interval");
    // Away from the threshold by more than a slow round trip takes.
    let age = || prop_oneof![-100.0..25.0, 31.0..100.0];
    let mut runner = TestRunner::new(Config { cases: 60, failure_persistence: None, ..Config::default() });
    let property = |(heartbeat, server, trusted): (f64, f64, f64)| {
        let said = runtime.block_on(async {
            let age = format!(
                "SET test.server_age = '{server} seconds';
                 UPDATE systole.executor_instances SET last_heartbeat = clock_timestamp() - interval '{heartbeat} seconds'
                  WHERE status = 'RUNNING'"
            );
            holder.batch_execute(&age).await.unwrap();
            holder.claim(&Ask { trusted_for: Some(trusted), ..Ask::of("nightly") }).await.said()
        });
        let expected = match (heartbeat > 30.0, server > 30.0, trusted > 30.0) {
            (false, _, _) => "held/fresh",
            (true, false, _) => "dead/server_started",
            (true, true, false) => "dead/taker_cold",
            (true, true, true) => "ok",
        };
        prop_assert_eq!(said, expected);
        Ok(())
    };
    runner.run(&(age(), age(), age()), property).unwrap();
}

fn rw_since(database: &Database, expression: &str) {
    database.sql(&format!(
        "CREATE OR REPLACE FUNCTION systole.rw_since() RETURNS timestamptz LANGUAGE sql STABLE SECURITY DEFINER
         AS $$ SELECT ({expression})::timestamptz $$"
    ));
}
