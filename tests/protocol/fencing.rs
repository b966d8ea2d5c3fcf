//! fence(): no transaction of a superseded holder commits. No assumption about time is made here.

use crate::asking::{Ask, Session, database, held, until_blocked, within};

#[tokio::test]
async fn fence_passes_for_the_newest_and_raises_for_every_other() {
    let (database, holder, old) = held("nightly").await;
    holder.fence("nightly", old.fence).await.unwrap();
    database.age_heartbeat("nightly", 31.0);
    let new = holder.claim(&Ask::of("nightly")).await.granted();
    holder.fence("nightly", new.fence).await.unwrap();
    for fence in [old.fence, new.fence + 1, 0] {
        let error = holder.fence("nightly", fence).await.unwrap_err();
        let message = error.as_db_error().unwrap().message();
        assert!(message.contains(&format!("fence {fence} of run \"nightly\" was superseded")), "{message}");
    }
    let none = holder.batch_execute("SELECT systole.fence('nightly', NULL)").await.unwrap_err();
    assert!(none.as_db_error().unwrap().message().contains("superseded"), "{none:?}");
    let unknown = holder.fence("no-such-run", old.fence).await.unwrap_err();
    assert!(unknown.as_db_error().unwrap().message().contains("no run \"no-such-run\""), "{unknown:?}");
}

#[tokio::test]
async fn a_superseded_holders_transaction_cannot_commit_in_any_isolation_level() {
    for isolation in ["READ COMMITTED", "REPEATABLE READ", "SERIALIZABLE"] {
        let (database, holder, old) = held("nightly").await;
        database.sql("CREATE TABLE results (value text)");
        let user = Session::on(&database).await;
        user.batch_execute(&format!("BEGIN ISOLATION LEVEL {isolation}; INSERT INTO results VALUES ('late')"))
            .await
            .unwrap();
        database.age_heartbeat("nightly", 31.0);
        let new = holder.claim(&Ask::of("nightly")).await.granted();
        assert!(user.fence("nightly", old.fence).await.is_err(), "{isolation}");
        user.batch_execute("COMMIT").await.unwrap();
        assert_eq!(database.value("SELECT count(*) FROM results"), "0", "{isolation}");

        user.batch_execute(&format!("BEGIN ISOLATION LEVEL {isolation}; INSERT INTO results VALUES ('good')"))
            .await
            .unwrap();
        user.fence("nightly", new.fence).await.unwrap();
        user.batch_execute("COMMIT").await.unwrap();
        assert_eq!(database.value("SELECT count(*) FROM results"), "1", "{isolation}");
    }
}

/// A takeover is on its way, but not committed: the old holder's transaction waits, and goes as the takeover goes.
#[tokio::test]
async fn a_fence_behind_an_uncommitted_takeover_waits_for_its_outcome() {
    for (outcome, passes) in [("COMMIT", false), ("ROLLBACK", true)] {
        let (database, taker, old) = held("nightly").await;
        let (user, observer) = (Session::on(&database).await, Session::on(&database).await);
        database.age_heartbeat("nightly", 31.0);
        taker.batch_execute("BEGIN").await.unwrap();
        taker.claim(&Ask::of("nightly")).await.granted();
        let fence = tokio::spawn({
            let user = user.clone();
            async move { user.fence("nightly", old.fence).await }
        });
        until_blocked(&observer, &fence, user.backend, taker.backend).await;
        taker.batch_execute(outcome).await.unwrap();
        let passed = within("fence's answer", fence).await.unwrap();
        assert_eq!(passed.is_ok(), passes, "{outcome}: {passed:?}");
    }
}

/// Its own heartbeats go on meanwhile, and so do other transactions of the same holder.
#[tokio::test]
async fn a_fence_held_for_long_keeps_neither_heartbeats_nor_other_fences_waiting() {
    let (database, holder, tenure) = held("nightly").await;
    let (one, two) = (Session::on(&database).await, Session::on(&database).await);
    for session in [&holder, &two] {
        session.batch_execute("SET lock_timeout = '1ms'").await.unwrap();
    }
    one.batch_execute("BEGIN").await.unwrap();
    one.fence("nightly", tenure.fence).await.unwrap();
    assert_eq!(holder.beat(&[tenure.instance]).await, ["ok"]);
    two.fence("nightly", tenure.fence).await.unwrap();
    assert_eq!(two.claim(&Ask::of("nightly")).await.said(), "held/fresh");
    one.batch_execute("COMMIT").await.unwrap();
}

#[tokio::test]
async fn a_transaction_that_idles_behind_its_fence_is_ended_after_ten_seconds_or_sooner_if_so_configured() {
    let (_database, holder, tenure) = held("nightly").await;
    for (own, within_fence) in
        [("0", "10s"), ("1min", "10s"), ("2h", "10s"), ("10s", "10s"), ("3s", "3s"), ("250ms", "250ms")]
    {
        holder.batch_execute(&format!("SET idle_in_transaction_session_timeout = '{own}'; BEGIN")).await.unwrap();
        holder.fence("nightly", tenure.fence).await.unwrap();
        assert_eq!(holder.setting("idle_in_transaction_session_timeout").await, within_fence, "{own}");
        holder.batch_execute("COMMIT").await.unwrap();
        assert_eq!(holder.setting("idle_in_transaction_session_timeout").await, own, "it outlasted the transaction");
    }
}

#[tokio::test]
async fn fences_of_different_runs_do_not_know_each_other() {
    let database = database();
    let session = Session::on(&database).await;
    let one = session.claim(&Ask::of("one")).await.granted();
    let two = session.claim(&Ask::of("two")).await.granted();
    assert!(session.fence("one", two.fence).await.is_err());
    let user = Session::on(&database).await;
    user.batch_execute("BEGIN").await.unwrap();
    user.fence("one", one.fence).await.unwrap();
    database.age_heartbeat("two", 31.0);
    session.batch_execute("SET lock_timeout = '1ms'").await.unwrap();
    session.claim(&Ask::of("two")).await.granted();
    user.batch_execute("COMMIT").await.unwrap();
}
