//! Ends: the holder's own, by certificate, by takeover. Each is final, and is told as what it was.

use std::sync::Arc;

use uuid::Uuid;

use crate::asking::{Ask, Session, Tenure, all, database, held};
use crate::support::Database;

const SECRET: &[u8] = b"known to the guard alone";

async fn guarded() -> (Database, Arc<Session>, Tenure) {
    let database = database();
    let session = Session::on(&database).await;
    let tenure = session.claim(&Ask { secret: Some(SECRET), ..Ask::of("nightly") }).await.granted();
    (database, session, tenure)
}

#[tokio::test]
async fn a_finish_may_be_repeated_but_not_changed() {
    let (_database, holder, tenure) = held("nightly").await;
    assert_eq!(holder.finish(tenure, "COMPLETED", Some(0)).await, "ok");
    let before = holder.everything_about(tenure.instance).await;
    assert_eq!(holder.finish(tenure, "COMPLETED", Some(0)).await, "ok");
    assert_eq!(holder.finish(tenure, "COMPLETED", Some(1)).await, "lost");
    assert_eq!(holder.finish(tenure, "FAILED", Some(0)).await, "lost");
    assert_eq!(holder.finish(tenure, "CRASHED", None).await, "lost");
    assert_eq!(holder.everything_about(tenure.instance).await, before);
}

#[tokio::test]
async fn a_finish_with_another_fence_or_none_is_lost() {
    let (_database, holder, tenure) = held("nightly").await;
    let before = holder.everything_about(tenure.instance).await;
    for fence in [tenure.fence - 1, tenure.fence + 1, 0] {
        assert_eq!(holder.finish(Tenure { fence, ..tenure }, "COMPLETED", Some(0)).await, "lost");
    }
    let without = format!("systole.finish('{}', NULL, 'COMPLETED', 0, NULL, 0, '{{}}')", tenure.instance);
    assert_eq!(holder.text(&without).await, "lost");
    assert_eq!(holder.finish(Tenure { instance: Uuid::now_v7(), ..tenure }, "COMPLETED", Some(0)).await, "lost");
    assert_eq!(holder.everything_about(tenure.instance).await, before);
}

#[tokio::test]
async fn a_finish_after_a_takeover_is_lost_whatever_it_says_and_the_successor_does_not_notice() {
    let (database, holder, tenure) = held("nightly").await;
    let taker = Session::on(&database).await;
    database.age_heartbeat("nightly", 31.0);
    let successor = taker.claim(&Ask::of("nightly")).await.granted();
    let before = holder.everything_about(successor.instance).await;
    // It even ended as CRASHED; but as a silent one, not as what this says.
    for (status, exit_code) in [("COMPLETED", Some(0)), ("RELEASED", None), ("CRASHED", None)] {
        assert_eq!(holder.finish(tenure, status, exit_code).await, "lost", "{status}");
    }
    // Nor with the successor's fence.
    assert_eq!(holder.finish(Tenure { fence: successor.fence, ..tenure }, "COMPLETED", Some(0)).await, "lost");
    assert_eq!(holder.everything_about(successor.instance).await, before);
    assert_eq!(taker.beat(&[successor.instance]).await, ["ok"]);
    assert_eq!(taker.finish(successor, "COMPLETED", Some(0)).await, "ok");
}

/// The table in PROTOCOL, for a run by hand.
#[tokio::test]
async fn a_run_becomes_what_its_newest_instance_made_of_it() {
    let database = database();
    let session = Session::on(&database).await;
    for (status, exit_code, run_becomes) in [
        ("COMPLETED", Some(0), "COMPLETED"),
        ("FAILED", Some(3), "FAILED"),
        ("TIMED_OUT", Some(143), "FAILED"),
        ("CANCELLED", Some(130), "CANCELLED"),
        ("RELEASED", None, "CANCELLED"),
        ("CRASHED", None, "CRASHED"),
    ] {
        let tenure = session.claim(&Ask::of("nightly")).await.granted();
        assert_eq!(session.text("SELECT status FROM systole.runs").await, "RUNNING");
        assert_eq!(session.finish(tenure, status, exit_code).await, "ok");
        assert_eq!(session.text("SELECT status FROM systole.runs").await, run_becomes, "{status}");
        let told = format!(
            "SELECT (kind, fence, detail->>'exit_code') FROM systole.run_events
              WHERE instance_id = '{}' AND kind <> 'claimed'",
            tenure.instance
        );
        let exit_code = exit_code.map(|code| code.to_string()).unwrap_or_default();
        assert_eq!(session.text(&told).await, format!("({},{},{exit_code})", status.to_lowercase(), tenure.fence));
    }
}

#[tokio::test]
async fn an_instance_that_has_left_running_never_returns_whatever_is_called() {
    for status in ["COMPLETED", "FAILED", "TIMED_OUT", "CANCELLED", "RELEASED", "CRASHED"] {
        let (database, session, tenure) = guarded().await;
        assert_eq!(session.finish(tenure, status, None).await, "ok");
        let before = session.everything_about(tenure.instance).await;
        for other in ["COMPLETED", "FAILED", "TIMED_OUT", "CANCELLED", "RELEASED", "CRASHED"] {
            let again = if other == status { "ok" } else { "lost" };
            assert_eq!(session.finish(tenure, other, None).await, again);
            assert_eq!(session.file(tenure.instance, Some(SECRET), other, None).await, "already");
        }
        assert_eq!(session.beat(&[tenure.instance]).await, ["lost"]);
        let claim = Ask { instance: tenure.instance, ..Ask::of("nightly") };
        assert_eq!(session.claim(&claim).await.said(), "not_runnable/ended");
        assert_eq!(session.request_stop("nightly").await, "not_running");
        assert_eq!(session.everything_about(tenure.instance).await, before, "{status}");
        drop(database);
    }
}

#[tokio::test]
async fn a_certificate_ends_its_instance_as_it_says_once_and_moves_the_run_on_at_once() {
    let (_database, session, tenure) = guarded().await;
    assert_eq!(session.file(tenure.instance, Some(SECRET), "FAILED", Some(3)).await, "ok");
    let ended = "SELECT (status, exit_code, ended_at IS NOT NULL) FROM systole.executor_instances";
    assert_eq!(session.text(ended).await, "(FAILED,3,t)");
    let told = "SELECT (detail->>'filed_by', detail->>'exit_code') FROM systole.run_events WHERE kind = 'failed'";
    assert_eq!(session.text(told).await, "(\"a test\",3)");

    let before = session.everything_about(tenure.instance).await;
    assert_eq!(session.file(tenure.instance, Some(SECRET), "COMPLETED", Some(0)).await, "already");
    assert_eq!(session.everything_about(tenure.instance).await, before);

    assert_eq!(session.claim(&Ask::of("nightly")).await.granted().attempt, 2);
    assert_eq!(session.file(tenure.instance, Some(SECRET), "CRASHED", None).await, "already");
    assert_eq!(session.text("SELECT status FROM systole.runs").await, "RUNNING", "a successor was hit");
}

#[tokio::test]
async fn a_certificate_with_another_secret_or_none_is_forged_and_changes_nothing() {
    let (_database, session, tenure) = guarded().await;
    let hash = session.text("sha256('known to the guard alone')").await;
    let hash = Vec::from_iter((2..hash.len()).step_by(2).map(|n| u8::from_str_radix(&hash[n..n + 2], 16).unwrap()));
    let before = session.everything_about(tenure.instance).await;
    let stranger = session.claim(&Ask { secret: Some(b"another's"), ..Ask::of("other") }).await.granted();
    // What the database holds is no secret either: it is only the hash.
    for secret in [Some(b"guessed".as_slice()), Some(b"another's"), Some(b""), Some(&hash), None] {
        assert_eq!(session.file(tenure.instance, secret, "CRASHED", None).await, "forged", "{secret:?}");
    }
    assert_eq!(session.everything_about(tenure.instance).await, before);
    assert_eq!(session.beat(&[tenure.instance, stranger.instance]).await, ["ok", "ok"]);
    assert_eq!(session.file(Uuid::now_v7(), Some(SECRET), "CRASHED", None).await, "unknown");
}

/// A program that holds a lease by the library has no guard, so nobody can prove its death.
#[tokio::test]
async fn an_instance_without_a_secret_cannot_be_certified_dead() {
    let (_database, session, tenure) = held("nightly").await;
    for secret in [Some(b"guessed".as_slice()), Some(b""), None] {
        assert_eq!(session.file(tenure.instance, secret, "CRASHED", None).await, "forged", "{secret:?}");
    }
    assert_eq!(session.beat(&[tenure.instance]).await, ["ok"]);
}

/// The holder, its guard's certificate and a taker, all at once: one of them ends it, and each is told truly.
#[tokio::test]
async fn one_of_three_ends_that_race_wins_and_one_event_tells_of_it() {
    let (database, session, _) = held("other").await;
    let (filer, taker) = (Session::on(&database).await, Session::on(&database).await);
    for round in 0..30 {
        let run = format!("nightly-{round}");
        let tenure = session.claim(&Ask { secret: Some(SECRET), ..Ask::of(&run) }).await.granted();
        database.age_heartbeat(&run, 31.0);
        let said = all((0..3).map(|role| {
            let (session, filer, taker, run) = (session.clone(), filer.clone(), taker.clone(), run.clone());
            async move {
                match role {
                    0 => session.finish(tenure, "COMPLETED", Some(0)).await,
                    1 => filer.file(tenure.instance, Some(SECRET), "FAILED", Some(3)).await,
                    _ => taker.claim(&Ask::of(&run)).await.said(),
                }
            }
        }))
        .await;
        let ends = format!(
            "SELECT string_agg(kind, ' ') FROM systole.run_events
              WHERE instance_id = '{}' AND kind NOT IN ('claimed', 'refused')",
            tenure.instance
        );
        let end = session.text(&ends).await;
        let expected = match end.as_str() {
            "completed" => ["ok", "already"],
            "failed" => ["lost", "ok"],
            "crashed" => ["lost", "already"],
            other => panic!("its ends are {other:?}; {said:?}"),
        };
        assert_eq!(said[..2], expected, "{end}");
        assert_eq!(said[2], "ok", "the run was free or its holder silent, at every moment");
    }
}
