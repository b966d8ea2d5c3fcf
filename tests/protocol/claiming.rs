//! A claim asked again means the same claim; a claim that is rolled back never was; fences only grow.

use crate::asking::{Ask, Session, database, held, until_blocked, within};

#[tokio::test]
async fn a_claim_asked_again_is_mine_with_the_same_fence_and_changes_nothing() {
    let (_database, holder, _) = held("other").await;
    let ask = Ask::of("nightly");
    let tenure = holder.claim(&ask).await.granted();
    let before = holder.everything_about(tenure.instance).await;
    for _ in 0..3 {
        let again = holder.claim(&ask).await;
        assert_eq!(again.said(), "mine");
        assert_eq!((again.fence, again.attempt), (Some(tenure.fence), Some(tenure.attempt)));
    }
    assert_eq!(holder.everything_about(tenure.instance).await, before);
}

/// `mine` of another run would make its asker work on a run that it does not hold.
#[tokio::test]
async fn an_instance_of_one_run_is_not_granted_another() {
    let (database, holder, tenure) = held("one").await;
    let answer = holder.try_claim(&Ask { instance: tenure.instance, ..Ask::of("two") }).await;
    let error = answer.expect_err("an instance has one run").as_db_error().unwrap().message().to_owned();
    assert!(error.contains("\"one\"") && error.contains("\"two\""), "{error}");
    assert_eq!(database.value("SELECT count(*) FROM systole.runs"), "1");
}

#[tokio::test]
async fn an_instance_that_has_ended_is_not_granted_again() {
    let (_database, holder, _) = held("other").await;
    let ask = Ask::of("nightly");
    let tenure = holder.claim(&ask).await.granted();
    assert_eq!(holder.finish(tenure, "FAILED", Some(3)).await, "ok");
    let answer = holder.claim(&ask).await;
    assert_eq!(answer.said(), "not_runnable/ended");
    assert_eq!(answer.holder.expect("how it ended is said")["status"], "FAILED");
}

/// The first question was slow, so it was asked again; by the time the second was served, the tenure was over.
#[tokio::test]
async fn a_claim_that_waited_until_its_own_tenure_was_over_is_told_so() {
    let database = database();
    let (slow, impatient, observer) =
        (Session::on(&database).await, Session::on(&database).await, Session::on(&database).await);
    for round in 0..5 {
        let ask = Ask::of(&format!("nightly-{round}"));
        slow.batch_execute("BEGIN").await.unwrap();
        let tenure = slow.claim(&ask).await.granted();
        assert_eq!(slow.finish(tenure, "COMPLETED", Some(0)).await, "ok");
        let again = tokio::spawn({
            let impatient = impatient.clone();
            async move { impatient.claim(&ask).await }
        });
        until_blocked(&observer, &again, impatient.backend, slow.backend).await;
        slow.batch_execute("COMMIT").await.unwrap();
        let answer = within("the second answer", again).await.unwrap();
        if answer.reason.as_deref() == Some("locked") {
            continue; // the machine stalled for a second
        }
        assert_eq!(answer.said(), "not_runnable/ended");
        return;
    }
    panic!("five times the machine stalled for a second");
}

/// Else it would be refused in its own favour, and nobody would work on the run until its lease had run out.
#[tokio::test]
async fn a_claim_that_was_granted_on_another_connection_while_it_looked_is_mine_and_not_anothers() {
    let database = database();
    let (slow, impatient, stop, observer) = (
        Session::on(&database).await,
        Session::on(&database).await,
        Session::on(&database).await,
        Session::on(&database).await,
    );
    // So that this session knows the tables by now, and waits only where it looks at their rows.
    impatient.claim(&Ask::of("other")).await.granted();
    let ask = Ask::of("nightly");
    slow.batch_execute("BEGIN").await.unwrap();
    let tenure = slow.claim(&ask).await.granted();
    // Whoever looks at runs from now on waits; whoever looks at instances does not.
    let stopping = tokio::spawn({
        let stop = stop.clone();
        async move { stop.batch_execute("BEGIN; LOCK TABLE systole.runs IN ACCESS EXCLUSIVE MODE").await }
    });
    until_blocked(&observer, &stopping, stop.backend, slow.backend).await;
    let again = tokio::spawn({
        let impatient = impatient.clone();
        async move { impatient.claim(&ask).await }
    });
    until_blocked(&observer, &again, impatient.backend, stop.backend).await;
    slow.batch_execute("COMMIT").await.unwrap();
    within("the lock", stopping).await.unwrap().unwrap();
    stop.batch_execute("COMMIT").await.unwrap();
    let answer = within("the second answer", again).await.unwrap();
    assert_eq!((answer.said().as_str(), answer.fence), ("mine", Some(tenure.fence)));
}

#[tokio::test]
async fn once_means_not_after_it_was_completed_and_again_after_any_other_end() {
    let (_database, holder, tenure) = held("nightly").await;
    assert_eq!(holder.finish(tenure, "FAILED", Some(1)).await, "ok");
    let once = || Ask { once: true, ..Ask::of("nightly") };
    let tenure = holder.claim(&once()).await.granted();
    assert_eq!(holder.claim(&once()).await.said(), "held/fresh");
    assert_eq!(holder.finish(tenure, "COMPLETED", Some(0)).await, "ok");
    assert_eq!(holder.claim(&once()).await.said(), "not_runnable/completed");
    assert_eq!(holder.claim(&Ask::of("nightly")).await.granted().attempt, 3);
}

#[tokio::test]
async fn a_claim_that_is_rolled_back_leaves_nothing() {
    let database = database();
    let session = Session::on(&database).await;
    let everything = "SELECT (SELECT count(*) FROM systole.runs), (SELECT count(*) FROM systole.executor_instances),
                             (SELECT count(*) FROM systole.run_events)";
    session.batch_execute("BEGIN").await.unwrap();
    session.claim(&Ask::of("nightly")).await.granted();
    session.batch_execute("ROLLBACK").await.unwrap();
    assert_eq!(database.sql(everything), [["0", "0", "0"]]);

    // A takeover is an end and a beginning: both or none.
    let tenure = session.claim(&Ask::of("nightly")).await.granted();
    database.age_heartbeat("nightly", 31.0);
    let before = session.everything_about(tenure.instance).await;
    session.batch_execute("BEGIN").await.unwrap();
    session.claim(&Ask::of("nightly")).await.granted();
    session.batch_execute("ROLLBACK").await.unwrap();
    assert_eq!(session.everything_about(tenure.instance).await, before);
    assert_eq!(database.sql(everything), [["1", "1", "1"]]);
}

#[tokio::test]
async fn a_refusal_is_an_event_only_when_it_was_asked_to_be_noted() {
    let (_database, holder, tenure) = held("nightly").await;
    assert_eq!(holder.claim(&Ask::of("nightly")).await.said(), "held/fresh");
    assert_eq!(holder.text("SELECT count(*) FROM systole.run_events WHERE kind = 'refused'").await, "0");
    let noted = Ask { host: "b", note_refusal: true, ..Ask::of("nightly") };
    assert_eq!(holder.claim(&noted).await.said(), "held/fresh");
    let told = "SELECT (instance_id, detail->>'refused_executor_id', detail->>'reason')
                  FROM systole.run_events WHERE kind = 'refused'";
    assert_eq!(holder.text(told).await, format!("({},4211@b,fresh)", tenure.instance));
}

/// A clock that went back, a restored backup, a pruned run: the next fence is above all that were given.
#[tokio::test]
async fn a_fence_is_above_the_runs_last_one_and_the_floor_and_is_the_time_otherwise() {
    let (database, holder, tenure) = held("nightly").await;
    let now: i64 = holder.text("floor(extract(epoch FROM clock_timestamp()) * 1000000)::bigint").await.parse().unwrap();
    assert!((now - 60_000_000..=now).contains(&tenure.fence), "{} is not of this minute: {now}", tenure.fence);

    let far = now + 1_000_000_000_000;
    database.sql(&format!("UPDATE systole.runs SET fence = {far}"));
    database.age_heartbeat("nightly", 31.0);
    assert_eq!(holder.claim(&Ask::of("nightly")).await.granted().fence, far + 1);

    let floor = far + 1_000_000;
    database.sql(&format!("UPDATE systole.settings SET fence_floor = {floor}"));
    assert_eq!(holder.claim(&Ask::of("new")).await.granted().fence, floor + 1);
    database.age_heartbeat("nightly", 31.0);
    assert_eq!(holder.claim(&Ask::of("nightly")).await.granted().fence, floor + 1);
}
