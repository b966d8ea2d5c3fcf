//! Many claimers at once, and claims that race what the holder does at that very moment.

use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};

use crate::asking::{Ask, Session, all, database, held, until_blocked, within};

async fn racers(database: &crate::support::Database, count: usize) -> Vec<Arc<Session>> {
    let mut racers = Vec::new();
    for _ in 0..count {
        racers.push(Session::on(database).await);
    }
    racers
}

/// By the history: attempts without a gap, fences that only grow, and no tenure that begins before the last one ended.
async fn assert_history(observer: &Session, attempts: i32) {
    let history = "SELECT count(*), bool_and(attempt = n), bool_and(fence > coalesce(fence_before, 0)),
               bool_and(started_at >= coalesce(ended_before, '-infinity'))
          FROM (SELECT attempt, fence, started_at, row_number() OVER w AS n, lag(fence) OVER w AS fence_before,
                       lag(coalesce(ended_at, 'infinity')) OVER w AS ended_before
                  FROM systole.executor_instances WINDOW w AS (ORDER BY attempt)) h";
    let row = observer.query_one(history, &[]).await.unwrap();
    assert_eq!(row.get::<_, i64>(0), i64::from(attempts), "attempts");
    assert!(row.get::<_, bool>(1), "an attempt number is missing");
    assert!(row.get::<_, bool>(2), "a fence did not grow");
    assert!(row.get::<_, bool>(3), "a tenure began before its predecessor's end");
}

#[tokio::test]
async fn of_twelve_claimers_exactly_one_is_granted_whether_the_run_was_free_or_its_holder_silent() {
    let database = database();
    let racers = racers(&database, 12).await;
    let mut newest = 0;
    for round in 1..=40 {
        let answers = all(racers.iter().cloned().map(|racer| async move { racer.claim(&Ask::of("nightly")).await }));
        let (granted, refused): (Vec<_>, Vec<_>) = answers.await.into_iter().partition(|answer| answer.verdict == "ok");
        assert_eq!(granted.len(), 1, "round {round}: {granted:?}");
        let tenure = granted[0].granted();
        assert_eq!(tenure.attempt, round);
        assert!(tenure.fence > newest, "round {round}: {} after {newest}", tenure.fence);
        newest = tenure.fence;
        for answer in refused {
            if answer.reason.as_deref() == Some("locked") {
                continue; // the machine stalled for a second
            }
            assert_eq!(answer.said(), "held/fresh", "round {round}");
            let holder = answer.holder.expect("who holds it is said");
            // A loser that looked before the grant found nobody; it must not have been told of an older holder.
            assert_eq!(holder["fence"], newest, "round {round}");
        }
        if round % 2 == 0 {
            assert_eq!(racers[0].finish(tenure, "COMPLETED", Some(0)).await, "ok");
        } else {
            database.age_heartbeat("nightly", 31.0);
        }
    }
    assert_history(&racers[0], 40).await;
}

#[tokio::test]
async fn between_a_grant_and_its_finish_nobody_else_is_granted_however_hard_they_try() {
    const GRANTS: i32 = 120;
    let database = database();
    let inside = Arc::new(AtomicI32::new(0));
    let grants = Arc::new(AtomicI32::new(0));
    let racers = racers(&database, 6).await;
    all(racers.iter().cloned().map(|racer| {
        let (inside, grants) = (inside.clone(), grants.clone());
        async move {
            while grants.load(Ordering::SeqCst) < GRANTS {
                let answer = racer.claim(&Ask::of("nightly")).await;
                if answer.verdict != "ok" {
                    assert_eq!(answer.verdict, "held", "{answer:?}");
                    continue;
                }
                assert_eq!(inside.fetch_add(1, Ordering::SeqCst), 0, "two hold the run");
                let tenure = answer.granted();
                // The taker's look at its row may make one of these busy; nothing may make it lost.
                assert_ne!(racer.beat(&[tenure.instance]).await, ["lost"]);
                grants.fetch_add(1, Ordering::SeqCst);
                assert_eq!(inside.fetch_sub(1, Ordering::SeqCst), 1, "two hold the run");
                assert_eq!(racer.finish(tenure, "COMPLETED", Some(0)).await, "ok");
            }
        }
    }))
    .await;
    let granted = grants.load(Ordering::SeqCst);
    assert!(granted >= GRANTS);
    assert_history(&racers[0], granted).await;
}

/// A taker that found the holder silent, and then must wait for the holder's own transaction, looks again.
#[tokio::test]
async fn a_takeover_waits_for_an_uncommitted_heartbeat_and_then_finds_the_holder_alive() {
    let (database, holder, tenure) = held("nightly").await;
    let (taker, observer) = (Session::on(&database).await, Session::on(&database).await);
    // A taker waits for a second at most. On a machine that stalls for longer it answers `locked`: then once more.
    for _ in 0..5 {
        database.age_heartbeat("nightly", 31.0);
        taker.batch_execute("BEGIN").await.unwrap();
        holder.batch_execute("BEGIN").await.unwrap();
        assert_eq!(holder.beat(&[tenure.instance]).await, ["ok"]);
        let claim = tokio::spawn({
            let taker = taker.clone();
            async move { taker.claim(&Ask::of("nightly")).await }
        });
        until_blocked(&observer, &claim, taker.backend, holder.backend).await;
        holder.batch_execute("COMMIT").await.unwrap();
        let answer = within("the taker's answer", claim).await.unwrap();
        let commit_mode = taker.setting("synchronous_commit").await;
        taker.batch_execute("COMMIT").await.unwrap();
        if answer.reason.as_deref() == Some("locked") {
            continue;
        }
        assert_eq!(answer.said(), "held/fresh");
        assert!(answer.holder.unwrap()["heartbeat_age_seconds"].as_f64().unwrap() < 30.0, "told of the old heartbeat");
        assert_eq!(commit_mode, "off", "a refusal waits for no disk");
        assert_eq!(holder.beat(&[tenure.instance]).await, ["ok"]);
        return;
    }
    panic!("five times the machine stalled for a second");
}

/// Whoever waits for a run that is being forgotten begins it anew, above all fences that it has had.
#[tokio::test]
async fn a_run_that_is_pruned_while_it_is_waited_for_begins_anew() {
    let database = database();
    let (pruner, other) = (Session::on(&database).await, Session::on(&database).await);
    let observer = Session::on(&database).await;
    let mut granted = 0;
    for n in 0..10 {
        let run: &'static str = format!("old{n}").leak();
        let tenure = pruner.claim(&Ask::of(run)).await.granted();
        assert_eq!(pruner.finish(tenure, "COMPLETED", Some(0)).await, "ok");
        let far = "UPDATE systole.runs SET fence = fence + 1000000000000 WHERE run_id =";
        database.sql(&format!("{far} '{run}'"));
        let fence: i64 =
            database.value(&format!("SELECT fence FROM systole.runs WHERE run_id = '{run}'")).parse().unwrap();
        pruner
            .batch_execute(&format!("BEGIN; SELECT FROM systole.runs WHERE run_id = '{run}' FOR UPDATE"))
            .await
            .unwrap();
        let waits = tokio::spawn({
            let other = other.clone();
            async move {
                if n % 2 == 0 {
                    return Some(other.claim(&Ask::of(run)).await);
                }
                let submit = format!("SELECT systole.submit('{run}', argv => ARRAY['true'])");
                other.batch_execute(&submit).await.map(|()| None).unwrap()
            }
        });
        until_blocked(&observer, &waits, other.backend, pruner.backend).await;
        pruner.batch_execute("SELECT systole.prune('0 s', 100); COMMIT").await.unwrap();
        match within("the other's answer", waits).await.unwrap() {
            // On a machine that stalls for a second. Then once more.
            Some(answer) if answer.reason.as_deref() == Some("locked") => {}
            Some(answer) => {
                let again = answer.granted();
                assert!(again.fence > fence, "{} was given behind {fence}", again.fence);
                granted += 1;
            }
            None => {
                let status = database
                    .value(&format!("SELECT status || ' ' || attempt FROM systole.runs WHERE run_id = '{run}'"));
                assert_eq!(status, "QUEUED 0");
            }
        }
    }
    assert!(granted > 0, "five times the machine stalled for a second");
}

#[tokio::test]
async fn a_heartbeat_during_a_takeover_is_busy_and_lost_only_once_the_takeover_is_committed() {
    let (database, holder, tenure) = held("nightly").await;
    let taker = Session::on(&database).await;
    database.age_heartbeat("nightly", 31.0);

    taker.batch_execute("BEGIN").await.unwrap();
    taker.claim(&Ask::of("nightly")).await.granted();
    assert_eq!(holder.beat(&[tenure.instance]).await, ["busy"]);
    taker.batch_execute("ROLLBACK").await.unwrap();
    assert_eq!(holder.beat(&[tenure.instance]).await, ["ok"], "a takeover that was rolled back took something");

    database.age_heartbeat("nightly", 31.0);
    taker.batch_execute("BEGIN").await.unwrap();
    let successor = taker.claim(&Ask::of("nightly")).await.granted();
    assert_eq!(holder.beat(&[tenure.instance]).await, ["busy"]);
    taker.batch_execute("COMMIT").await.unwrap();
    assert_eq!(holder.beat(&[tenure.instance]).await, ["lost"]);
    assert_eq!(taker.beat(&[successor.instance]).await, ["ok"]);
}

/// Two answers to one question that was asked twice, because the first answer was slow: never one yes and one no.
#[tokio::test]
async fn one_claim_asked_on_two_connections_at_once_is_granted_once_and_owned_twice() {
    let database = database();
    let (one, two) = (Session::on(&database).await, Session::on(&database).await);
    for round in 0..60 {
        let ask = Ask::of(&format!("nightly-{round}"));
        let answers = all([&one, &two].map(|session| {
            let (session, ask) = (session.clone(), ask.clone());
            async move { session.claim(&ask).await }
        }));
        let mut answers = answers.await;
        answers.sort_by_key(|answer| answer.verdict.clone());
        assert_eq!([answers[0].verdict.as_str(), answers[1].verdict.as_str()], ["mine", "ok"]);
        assert_eq!((answers[0].fence, answers[0].attempt), (answers[1].fence, answers[1].attempt));
    }
}
