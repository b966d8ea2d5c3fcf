//! Whoever keeps a takeover out by a lock is named; and ended, if it is a fenced transaction of the dead.

use std::sync::Arc;

use systole::instance::AcquireError;
use systole::{Coordinator, RunId};

use crate::asking::{Ask, Session, Tenure, database, held, until_blocked, within};
use crate::support::Database;

/// Another's transaction with a fence of this tenure, not ended yet: its holder may be frozen.
async fn fenced(database: &Database, run: &str, tenure: Tenure) -> Arc<Session> {
    let user = Session::on(database).await;
    user.batch_execute("BEGIN").await.unwrap();
    user.fence(run, tenure.fence).await.unwrap();
    user
}

/// Another's transaction with a lock of its own making on this run.
async fn stranger(database: &Database, run: &str) -> Arc<Session> {
    let stranger = Session::on(database).await;
    stranger.batch_execute("BEGIN").await.unwrap();
    stranger.query("SELECT FROM systole.runs WHERE run_id = $1 FOR UPDATE", &[&run]).await.unwrap();
    stranger
}

/// Its session has been ended by somebody else.
async fn assert_ended(session: &Session) {
    within("the end of the session", async {
        while !session.is_closed() {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

/// Its transaction is whole, and can be committed.
async fn assert_unharmed(session: &Session) {
    session.batch_execute("COMMIT").await.expect("its session lives");
}

#[tokio::test]
async fn a_dead_holders_fenced_transaction_is_named_and_ended_and_the_next_claim_succeeds() {
    let (database, taker, tenure) = held("nightly").await;
    database.sql("CREATE TABLE results (value text)");
    let user = fenced(&database, "nightly", tenure).await;
    user.batch_execute("INSERT INTO results VALUES ('late')").await.unwrap();
    database.age_heartbeat("nightly", 31.0);

    let answer = taker.claim(&Ask::of("nightly")).await;
    assert_eq!((answer.said().as_str(), answer.blocked_by), ("dead/locked", vec![user.backend]));
    assert_eq!(answer.holder.expect("whose it is is said")["fence"], tenure.fence);
    assert_ended(&user).await;
    assert_eq!(taker.claim(&Ask::of("nightly")).await.granted().attempt, 2);
    assert_eq!(database.value("SELECT count(*) FROM results"), "0", "a superseded transaction has committed");
}

/// An executor with a short attempt_timeout is cut off by its own statement_timeout, and must get that far before.
#[tokio::test]
async fn a_taker_in_a_hurry_names_and_ends_it_before_its_own_time_is_up() {
    let (database, taker, tenure) = held("nightly").await;
    let user = fenced(&database, "nightly", tenure).await;
    database.age_heartbeat("nightly", 31.0);
    taker.batch_execute("SET statement_timeout = '900ms'").await.unwrap();
    let answer = taker.claim(&Ask::of("nightly")).await;
    assert_eq!((answer.said().as_str(), answer.blocked_by), ("dead/locked", vec![user.backend]));
    assert_ended(&user).await;
    taker.claim(&Ask::of("nightly")).await.granted();
}

/// Its certificate has been filed, so no holder is left to be silent; but the transaction that it left open is.
#[tokio::test]
async fn a_fenced_transaction_of_one_that_was_certified_dead_is_ended_too() {
    let (database, taker, _) = held("other").await;
    let tenure = taker.claim(&Ask { secret: Some(b"secret"), ..Ask::of("nightly") }).await.granted();
    assert_eq!(taker.file(tenure.instance, Some(b"secret"), "CRASHED", None).await, "ok");
    let user = fenced(&database, "nightly", tenure).await;
    let answer = taker.claim(&Ask::of("nightly")).await;
    assert_eq!((answer.said().as_str(), answer.blocked_by), ("held/locked", vec![user.backend]));
    assert_eq!(answer.holder, None, "nobody holds it");
    assert_ended(&user).await;
    taker.claim(&Ask::of("nightly")).await.granted();
}

#[tokio::test]
async fn a_fenced_transaction_of_one_that_ended_well_is_named_and_left_alone() {
    let (database, taker, tenure) = held("nightly").await;
    assert_eq!(taker.finish(tenure, "COMPLETED", Some(0)).await, "ok");
    let user = fenced(&database, "nightly", tenure).await;
    let answer = taker.claim(&Ask::of("nightly")).await;
    assert_eq!((answer.said().as_str(), answer.blocked_by), ("held/locked", vec![user.backend]));
    assert_eq!(answer.holder, None, "nobody holds it");
    assert_unharmed(&user).await;
    taker.claim(&Ask::of("nightly")).await.granted();
}

/// It was silent when the claim began to wait, and is not when the claim gives up: that is no dead holder.
#[tokio::test]
async fn a_holder_that_speaks_up_while_its_lock_is_waited_for_keeps_its_transaction() {
    let (database, holder, tenure) = held("nightly").await;
    let (taker, observer) = (Session::on(&database).await, Session::on(&database).await);
    // The claim waits for a second. On a machine that stalls for longer the heartbeat comes too late: then once more.
    for _ in 0..5 {
        let user = fenced(&database, "nightly", tenure).await;
        database.age_heartbeat("nightly", 31.0);
        let claim = tokio::spawn({
            let taker = taker.clone();
            async move { taker.claim(&Ask::of("nightly")).await }
        });
        until_blocked(&observer, &claim, taker.backend, user.backend).await;
        assert_eq!(holder.beat(&[tenure.instance]).await, ["ok"]);
        let answer = within("the taker's answer", claim).await.unwrap();
        if answer.reason.as_deref() == Some("locked") {
            continue;
        }
        assert_eq!(answer.said(), "held/fresh");
        assert!(answer.holder.unwrap()["heartbeat_age_seconds"].as_f64().unwrap() < 30.0, "told of the old heartbeat");
        assert_unharmed(&user).await;
        return;
    }
    panic!("five times it was called dead");
}

#[tokio::test]
async fn a_strangers_lock_is_named_and_the_stranger_left_alone() {
    let (database, taker, tenure) = held("nightly").await;
    database.age_heartbeat("nightly", 31.0);
    // A clone of this database, in which everything has the same numbers.
    let elsewhere = crate::asking::database();
    elsewhere.sql("INSERT INTO systole.runs (run_id, status) VALUES ('nightly', 'QUEUED')");
    let same_but_elsewhere = stranger(&elsewhere, "nightly").await;

    let database_administrator = stranger(&database, "nightly").await;
    taker.batch_execute("BEGIN").await.unwrap();
    let answer = taker.claim(&Ask::of("nightly")).await;
    assert_eq!(taker.setting("synchronous_commit").await, "off", "a refusal waits for no disk");
    taker.batch_execute("COMMIT").await.unwrap();
    assert_eq!((answer.said().as_str(), answer.blocked_by), ("dead/locked", vec![database_administrator.backend]));
    assert_unharmed(&database_administrator).await;
    assert_unharmed(&same_but_elsewhere).await;

    // The same where the instance is locked, and not its run.
    let database_administrator = Session::on(&database).await;
    database_administrator.batch_execute("BEGIN; SELECT FROM systole.executor_instances FOR UPDATE").await.unwrap();
    let answer = taker.claim(&Ask::of("nightly")).await;
    assert_eq!((answer.said().as_str(), answer.blocked_by), ("dead/locked", vec![database_administrator.backend]));
    assert_eq!(taker.beat(&[tenure.instance]).await, ["busy"]);
    assert_unharmed(&database_administrator).await;
    assert_eq!(taker.beat(&[tenure.instance]).await, ["ok"]);
}

#[tokio::test]
async fn a_fenced_transaction_of_another_run_is_not_ended_for_this_one() {
    let (database, taker, _) = held("nightly").await;
    database.age_heartbeat("nightly", 31.0);
    let other = taker.claim(&Ask::of("other")).await.granted();
    let bystander = fenced(&database, "other", other).await;
    let stranger = stranger(&database, "nightly").await;
    let answer = taker.claim(&Ask::of("nightly")).await;
    assert_eq!(answer.said(), "dead/locked");
    assert!(answer.blocked_by.contains(&stranger.backend), "{answer:?}");
    assert_unharmed(&bystander).await;
    assert_unharmed(&stranger).await;
}

/// Then it ends by its own timeout: fence() has set one.
#[tokio::test]
async fn who_may_not_signal_backends_names_them_all_the_same() {
    let (database, taker, tenure) = held("nightly").await;
    database.sql(
        "CREATE ROLE weak; GRANT USAGE, CREATE ON SCHEMA systole TO weak; GRANT ALL ON ALL TABLES IN SCHEMA systole TO weak;
         GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA systole TO weak;
         ALTER FUNCTION systole.evict_blockers OWNER TO weak",
    );
    let user = fenced(&database, "nightly", tenure).await;
    database.age_heartbeat("nightly", 31.0);
    let answer = taker.claim(&Ask::of("nightly")).await;
    assert_eq!((answer.said().as_str(), answer.blocked_by), ("dead/locked", vec![user.backend]));
    assert_unharmed(&user).await;
}

/// The tree is dead, and what it left open in the database keeps its run from everybody.
#[tokio::test]
async fn a_fenced_transaction_of_the_dead_does_not_keep_the_certificate_from_being_filed() {
    let (database, filer, _) = held("other").await;
    let tenure = filer.claim(&Ask { secret: Some(b"secret"), ..Ask::of("nightly") }).await.granted();
    let user = fenced(&database, "nightly", tenure).await;
    assert_eq!(filer.file(tenure.instance, Some(b"guessed"), "CRASHED", None).await, "forged");
    assert!(!user.is_closed(), "by a certificate that is none, nobody's transaction is ended");
    assert_eq!(filer.file(tenure.instance, Some(b"secret"), "CRASHED", None).await, "locked");
    assert_ended(&user).await;
    assert_eq!(filer.file(tenure.instance, Some(b"secret"), "CRASHED", None).await, "ok");
    // Of a stranger's lock nobody is to blame: it is waited for, and left alone.
    let tenure = filer.claim(&Ask { secret: Some(b"secret"), ..Ask::of("nightly") }).await.granted();
    let stranger = stranger(&database, "nightly").await;
    assert_eq!(filer.file(tenure.instance, Some(b"secret"), "CRASHED", None).await, "locked");
    assert_unharmed(&stranger).await;
    assert_eq!(filer.file(tenure.instance, Some(b"secret"), "CRASHED", None).await, "ok");
}

/// A host was cut off, its run has a new holder, and now its certificate comes: that is nobody's business any more.
#[tokio::test]
async fn a_certificate_that_comes_late_does_not_harm_the_successor() {
    let (database, session, _) = held("other").await;
    let dead = session.claim(&Ask { secret: Some(b"secret"), ..Ask::of("nightly") }).await.granted();
    database.age_heartbeat("nightly", 31.0);
    let successor = session.claim(&Ask::of("nightly")).await.granted();
    let user = fenced(&database, "nightly", successor).await;
    assert_eq!(session.file(dead.instance, Some(b"secret"), "CRASHED", None).await, "already");
    assert_unharmed(&user).await;
}

/// A sweep looks at many before it judges the last of them; by then that one may have spoken up.
#[tokio::test]
async fn a_holder_that_speaks_up_while_others_are_swept_keeps_its_transaction() {
    let (database, holder, _) = held("first").await;
    let tenure = holder.claim(&Ask::of("second")).await.granted();
    let user = fenced(&database, "second", tenure).await;
    database.sql("UPDATE systole.executor_instances SET last_heartbeat = last_heartbeat - interval '31 s'");
    // The judgement of each takes as long as the test pleases.
    let gate = Session::on(&database).await;
    gate.batch_execute("SELECT pg_advisory_lock(7)").await.unwrap();
    database.sql(
        "CREATE OR REPLACE FUNCTION systole.brake_engaged() RETURNS boolean LANGUAGE plpgsql AS
         $$ BEGIN PERFORM pg_advisory_xact_lock_shared(7); RETURN false; END $$",
    );
    let sweeper = Session::on(&database).await;
    let backend = sweeper.backend;
    let sweep = tokio::spawn(async move {
        let reap = "SELECT run_id, reason FROM systole.reap('a test', '-infinity', NULL, 0, 10)";
        let rows = sweeper.query(reap, &[]).await.unwrap();
        rows.iter().map(|row| format!("{} {}", row.get::<_, &str>(0), row.get::<_, &str>(1))).collect::<Vec<_>>()
    });
    until_blocked(&holder, &sweep, backend, gate.backend).await;
    assert_eq!(holder.beat(&[tenure.instance]).await, ["ok"]);
    gate.batch_execute("SELECT pg_advisory_unlock(7)").await.unwrap();
    assert_eq!(sweep.await.unwrap(), ["first ", "second fresh"]);
    assert_unharmed(&user).await;
}

/// A thousand nodes look, and one look is enough for all of them; but not the look of one that doubts itself.
#[tokio::test]
async fn a_sweep_is_good_for_all_unless_the_sweeper_may_not_conclude() {
    let (database, sweeper, _) = held("nightly").await;
    let sweep = async |trusted_since: &str| {
        let reap = format!("SELECT run_id, reason FROM systole.reap('a test', {trusted_since}, NULL, 0, 10)");
        let rows = sweeper.query(&reap, &[]).await.unwrap();
        rows.iter().map(|row| format!("{} {}", row.get::<_, &str>(0), row.get::<_, &str>(1))).collect::<Vec<_>>()
    };
    let idle = || sweeper.batch_execute("UPDATE systole.takeover_brake SET swept_at = '-infinity'");
    database.age_heartbeat("nightly", 31.0);
    assert_eq!(sweep("clock_timestamp()").await, ["nightly taker_cold"]);
    assert_eq!(sweep("NULL").await, ["nightly taker_cold"], "that one's look was good for nobody");
    database.age_heartbeat("nightly", -31.0);
    assert_eq!(sweep("'-infinity'").await, [""; 0], "nobody is silent");
    database.age_heartbeat("nightly", 31.0);
    assert_eq!(sweep("'-infinity'").await, [""; 0], "somebody has looked a moment ago");
    idle().await.unwrap();
    assert_eq!(sweep("'-infinity'").await, ["nightly "]);
    // A look that is said to be of the future is none.
    sweeper
        .batch_execute("UPDATE systole.takeover_brake SET swept_at = clock_timestamp() + interval '1 h'")
        .await
        .unwrap();
    let tenure = sweeper.claim(&Ask::of("nightly")).await.granted();
    database.age_heartbeat("nightly", 31.0);
    assert_eq!(sweep("'-infinity'").await, ["nightly "]);
    assert_eq!(sweeper.beat(&[tenure.instance]).await, ["lost"]);
    // And while somebody's claim looks at the brake, a sweep does not wait for it.
    idle().await.unwrap();
    let other = Session::on(&database).await;
    other.batch_execute("BEGIN; SELECT FROM systole.takeover_brake FOR UPDATE").await.unwrap();
    assert_eq!(within("a sweep", sweep("'-infinity'")).await, [""; 0]);
}

/// Not for as long as the other one pleases: heartbeats of its own other runs may be behind it.
#[tokio::test]
async fn nothing_that_changes_a_run_waits_for_its_lock_for_long() {
    let (database, holder, tenure) = held("nightly").await;
    let stranger = stranger(&database, "nightly").await;
    // Each of these is a statement that fails for its lock after a second; a statement_timeout would be another code.
    let id = tenure.instance;
    for (what, sql) in [
        ("finish", format!("SELECT systole.finish('{id}', {}, 'COMPLETED', 0, NULL, 0, '{{}}')", tenure.fence)),
        ("request_stop", "SELECT systole.request_stop('nightly', 'x')".to_owned()),
    ] {
        let error = holder.batch_execute(&sql).await.expect_err(what);
        assert_eq!(error.code().unwrap().code(), "55P03", "{what}: {error:?}");
    }
    assert_unharmed(&stranger).await;
    assert_eq!(holder.finish(tenure, "COMPLETED", Some(0)).await, "ok");
}

/// And our own client understands such an answer.
#[tokio::test]
async fn a_program_is_told_whose_lock_keeps_it_out() {
    let database = database();
    database.sql("INSERT INTO systole.runs (run_id, status) VALUES ('nightly', 'QUEUED')");
    let stranger = stranger(&database, "nightly").await;
    let coordinator = Coordinator::connect(&database.url).await.unwrap();
    let nightly: RunId = "nightly".parse().unwrap();
    match coordinator.acquire(&nightly).await {
        Err(AcquireError::Locked { blocked_by }) => assert_eq!(blocked_by, [stranger.backend]),
        other => panic!("{other:?}"),
    }
    assert_unharmed(&stranger).await;
    coordinator.acquire(&nightly).await.unwrap().complete().await.unwrap();
}
