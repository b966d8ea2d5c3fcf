//! How much durability each answer waits for. It must still be in force when the transaction commits, behind the call.

use crate::asking::{Ask, Session, beside_the_runtime, held, within};
use crate::support::Database;

async fn begin_with(session: &Session, mode: &str) {
    session.batch_execute(&format!("SET synchronous_commit = '{mode}'; BEGIN")).await.unwrap();
}

/// The mode in which the open transaction will commit; then it does not.
async fn commit_mode(session: &Session) -> String {
    let mode = session.setting("synchronous_commit").await;
    session.batch_execute("ROLLBACK").await.unwrap();
    mode
}

#[tokio::test]
async fn on_a_lone_server_heartbeats_and_refusals_commit_without_waiting_and_changes_durably() {
    const SECRET: &[u8] = b"known to the guard alone";
    let (_database, session, _) = held("held").await;
    let ask = Ask { secret: Some(SECRET), ..Ask::of("nightly") };
    let tenure = session.claim(&ask).await.granted();
    for (sessions_own, durable) in
        [("off", "on"), ("local", "on"), ("remote_write", "on"), ("on", "on"), ("remote_apply", "remote_apply")]
    {
        begin_with(&session, sessions_own).await;
        assert_eq!(session.beat(&[tenure.instance]).await, ["ok"]);
        assert_eq!(commit_mode(&session).await, "off", "a heartbeat");

        begin_with(&session, sessions_own).await;
        assert_eq!(session.claim(&Ask { note_refusal: true, ..Ask::of("held") }).await.said(), "held/fresh");
        assert_eq!(commit_mode(&session).await, "off", "a refusal");

        begin_with(&session, sessions_own).await;
        session.claim(&Ask::of("free")).await.granted();
        assert_eq!(commit_mode(&session).await, durable, "a grant");

        begin_with(&session, sessions_own).await;
        assert_eq!(session.finish(tenure, "COMPLETED", Some(0)).await, "ok");
        assert_eq!(commit_mode(&session).await, durable, "a finish");

        begin_with(&session, sessions_own).await;
        assert_eq!(session.file(tenure.instance, Some(SECRET), "CRASHED", None).await, "ok");
        assert_eq!(commit_mode(&session).await, durable, "a certificate");
    }
}

/// An isolated old primary must not acknowledge anything that its successor does not know; but it may say no.
#[tokio::test]
async fn with_a_standby_that_does_not_answer_heartbeats_and_grants_wait_and_refusals_do_not() {
    let (database, _server) = beside_the_runtime(Database::on_own_server);
    let (session, observer) = (Session::on(&database).await, Session::on(&database).await);
    let held = session.claim(&Ask::of("held")).await.granted();
    set_standbys(&database, &session, "nobody").await;

    let noted = Ask { note_refusal: true, ..Ask::of("held") };
    assert_eq!(within("a refusal", session.claim(&noted)).await.said(), "held/fresh");

    begin_with(&session, "on").await;
    assert_eq!(session.beat(&[held.instance]).await, ["ok"]);
    assert_eq!(commit_mode(&session).await, "remote_write", "a heartbeat");

    let beat = tokio::spawn({
        let session = session.clone();
        async move { session.beat(&[held.instance]).await.remove(0) }
    });
    until_it_waits_for_a_standby(&observer, &session).await;
    set_standbys(&database, &observer, "").await;
    assert_eq!(within("a heartbeat", beat).await.unwrap(), "ok");

    set_standbys(&database, &session, "nobody").await;
    session.batch_execute("SET synchronous_commit = 'off'").await.unwrap();
    let claim = tokio::spawn({
        let session = session.clone();
        async move { session.claim(&Ask::of("free")).await.said() }
    });
    until_it_waits_for_a_standby(&observer, &session).await;
    set_standbys(&database, &observer, "").await;
    assert_eq!(within("a grant", claim).await.unwrap(), "ok");
}

/// For the server, and known to this session.
async fn set_standbys(database: &Database, session: &Session, names: &str) {
    database.sql(&format!("ALTER SYSTEM SET synchronous_standby_names = '{names}'"));
    database.sql("SELECT pg_reload_conf()");
    within("the new setting", async { while session.setting("synchronous_standby_names").await != names {} }).await;
    if !names.is_empty() {
        within("commits that wait", until_commits_wait(database)).await;
    }
}

/// It is the checkpointer that lets them, when it has read the setting as well.
async fn until_commits_wait(database: &Database) {
    let observer = Session::on(database).await;
    loop {
        let probe = Session::on(database).await;
        let waits = waits_for_a_standby(&probe);
        let commit =
            tokio::spawn(async move { probe.text("SELECT pg_logical_emit_message(true, 'a', 'b')::text").await });
        while !commit.is_finished() {
            if observer.text(&waits).await == "true" {
                return;
            }
        }
    }
}

async fn until_it_waits_for_a_standby(observer: &Session, session: &Session) {
    let waits = waits_for_a_standby(session);
    within("it waits for the standby", async { while observer.text(&waits).await != "true" {} }).await;
}

fn waits_for_a_standby(session: &Session) -> String {
    format!("SELECT wait_event IS NOT DISTINCT FROM 'SyncRep' FROM pg_stat_activity WHERE pid = {}", session.backend)
}
