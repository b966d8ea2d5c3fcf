//! Behind a failover: nothing is granted until all can have come back, and whoever comes back finds what was his.

use std::sync::Arc;

use uuid::Uuid;

use crate::asking::{Ask, Session, Tenure, database, held, until_blocked, young_database};
use crate::support::Database;

/// As if the database had been on another line of commits until now.
fn fail_over(database: &Database) {
    database.sql("UPDATE systole.settings SET history = split_part(history, '-', 1) || '-00000000'");
    // Somebody sees it.
    database.sql("SELECT systole.quarantined_until()");
}

/// As if the wait were over.
fn end_quarantine(database: &Database) {
    database.sql("UPDATE systole.settings SET quarantined_until = clock_timestamp()");
}

/// The same of the run "nightly", by a holder who says in which history it was known last.
async fn readopt_from(
    session: &Session,
    tenure: Tenure,
    history: Option<&str>,
) -> Result<String, tokio_postgres::Error> {
    let readopt = "SELECT systole.readopt('nightly', $1, $2, $3, '4211@a', 'a', 4211, NULL, NULL, NULL, 'none', 30000, NULL, NULL, $4)";
    let row = session.query_one(readopt, &[&tenure.instance, &tenure.fence, &tenure.attempt, &history]).await?;
    Ok(row.get(0))
}

async fn readopt(session: &Arc<Session>, run: &str, tenure: Tenure) -> String {
    let readopt =
        "SELECT systole.readopt($1, $2, $3, $4, '4211@a', 'a', 4211, NULL, NULL, NULL, 'none', 30000, NULL, 'a test',
        (SELECT history_before FROM systole.settings))";
    let row = session.query_one(readopt, &[&run, &tenure.instance, &tenure.fence, &tenure.attempt]).await.unwrap();
    row.get(0)
}

/// As if its claim had got lost.
fn forget(database: &Database, run: &str, tenure: Tenure) {
    database.sql(&format!(
        "DELETE FROM systole.run_events WHERE instance_id = '{0}'; DELETE FROM systole.executor_instances WHERE instance_id = '{0}'",
        tenure.instance
    ));
    database.sql(&format!("DELETE FROM systole.runs WHERE run_id = '{run}' AND attempt = 1"));
    database.sql(&format!(
        "UPDATE systole.runs SET attempt = attempt - 1, fence = 1, status = 'COMPLETED' WHERE run_id = '{run}'"
    ));
}

fn fence_of(database: &Database, run: &str) -> String {
    database.value(&format!("SELECT status || ' ' || attempt || ' ' || fence FROM systole.runs WHERE run_id = '{run}'"))
}

#[tokio::test]
async fn nothing_is_granted_and_nobody_is_dead_by_his_age_until_stale_after_max_has_passed() {
    let database = young_database();
    let session = Session::on(&database).await;
    let living = session.claim(&Ask::of("living")).await.granted();
    session.claim(&Ask { secret: Some(b"x"), ..Ask::of("certified") }).await.granted();
    database.sql("SELECT systole.submit('queued', argv => ARRAY['true'])");
    let claim_queued =
        "SELECT count(*) FROM systole.claim_queued('{default}', '{}', '{}', true, ARRAY[gen_random_uuid()],
        ARRAY[NULL]::bytea[], '1@h', 'h', 1, NULL, NULL, NULL, 'none', 30000, '1000.0.0')";
    fail_over(&database);
    assert_eq!(session.claim(&Ask::of("free")).await.said(), "quarantine/quarantine");
    assert_eq!(database.value(claim_queued), "0");
    let since = "SELECT history_since = systole.rw_since() AND quarantined_until = history_since + stale_after_max
                        AND history = systole.history() FROM systole.settings";
    assert_eq!(database.value(since), "t");
    let told =
        "SELECT kind, subject = systole.history(), detail->>'before' LIKE '%-00000000' FROM systole.fleet_events";
    assert_eq!(database.sql(told), [["failed_over", "t", "t"]]);
    let why = database.value("SELECT systole.why_waiting('queued')");
    assert!(why.starts_with("PostgreSQL has failed over, and until "), "{why}");

    // Whoever lives, lives on; and what is proven stays proven.
    assert_eq!(session.claim(&Ask::of("living")).await.said(), "held/fresh");
    assert_eq!(session.beat(&[living.instance]).await, ["ok"]);
    let certificate = "SELECT systole.file_certificate(instance_id, 'x', 'COMPLETED', 0, NULL, '{}', 'b')
                         FROM systole.executor_instances WHERE run_id = 'certified'";
    assert_eq!(database.value(certificate), "ok");
    database.pretend_old_server();
    database.age_heartbeat("living", 600.0);
    assert_eq!(session.claim(&Ask::of("living")).await.said(), "quarantine/quarantine");
    let reap = "SELECT string_agg(reason, ' ') FROM systole.reap('1@h', '-infinity', NULL, 0, 50)";
    assert_eq!(database.value(reap), "quarantine");

    end_quarantine(&database);
    session.claim(&Ask::of("free")).await.granted();
    session.claim(&Ask::of("living")).await.granted();
    assert_eq!(database.value(claim_queued), "1");
}

#[tokio::test]
async fn only_a_failover_within_the_cluster_can_be_declared_lossless() {
    let database = young_database();
    let session = Session::on(&database).await;
    database.sql("UPDATE systole.settings SET lossless_failover = true");
    fail_over(&database);
    session.claim(&Ask::of("free")).await.granted();
    assert_eq!(database.value("SELECT history = systole.history() FROM systole.settings"), "t");
    database.sql("UPDATE systole.settings SET history = '1-00000001'");
    assert_eq!(session.claim(&Ask::of("other")).await.said(), "quarantine/quarantine");
}

#[tokio::test]
async fn a_server_whose_start_is_unknown_is_waited_for_from_now_on() {
    let database = young_database();
    let session = Session::on(&database).await;
    database.sql(
        "CREATE OR REPLACE FUNCTION systole.rw_since() RETURNS timestamptz LANGUAGE sql STABLE AS 'SELECT NULL::timestamptz'",
    );
    fail_over(&database);
    assert_eq!(session.claim(&Ask::of("free")).await.said(), "quarantine/quarantine");
    let left = "SELECT quarantined_until - clock_timestamp() BETWEEN '50 s' AND '1 minute' FROM systole.settings";
    assert_eq!(database.value(left), "t");
}

/// The clock of the server that took over was ahead, and somebody has noticed.
#[tokio::test]
async fn a_wait_until_a_moment_of_a_wrong_clock_begins_anew() {
    let database = young_database();
    let session = Session::on(&database).await;
    fail_over(&database);
    assert_eq!(session.claim(&Ask::of("free")).await.said(), "quarantine/quarantine");
    database.sql("UPDATE systole.settings SET history_since = history_since + interval '1 day', quarantined_until = quarantined_until + interval '1 day'");
    assert_eq!(session.claim(&Ask::of("free")).await.said(), "quarantine/quarantine");
    let left = "SELECT quarantined_until - clock_timestamp() BETWEEN '50 s' AND '1 minute'
                       AND quarantined_until - history_since = stale_after_max AND history_since < clock_timestamp()
                  FROM systole.settings";
    assert_eq!(database.value(left), "t");
}

#[tokio::test]
async fn a_claim_that_got_lost_is_taken_up_again_with_its_fence_and_once() {
    let (database, holder, tenure) = held("nightly").await;
    forget(&database, "nightly", tenure);
    fail_over(&database);
    assert_eq!(holder.beat(&[tenure.instance]).await, ["lost"]);
    for _ in 0..2 {
        assert_eq!(readopt(&holder, "nightly", tenure).await, "ok");
    }
    assert_eq!(holder.beat(&[tenure.instance]).await, ["ok"]);
    assert_eq!(fence_of(&database, "nightly"), format!("RUNNING 1 {}", tenure.fence));
    assert_eq!(database.sql("SELECT kind FROM systole.run_events"), [["readopted"]]);
    assert_eq!(holder.finish(tenure, "COMPLETED", Some(0)).await, "ok");
    // What has ended here is over, as ever.
    assert_eq!(readopt(&holder, "nightly", tenure).await, "lost");
    end_quarantine(&database);
    let next = holder.claim(&Ask::of("nightly")).await.granted();
    assert!(next.fence > tenure.fence && next.attempt == 2);
}

#[tokio::test]
async fn whoever_came_later_keeps_the_run() {
    let (database, holder, tenure) = held("nightly").await;
    forget(&database, "nightly", tenure);
    fail_over(&database);
    assert_eq!(holder.claim(&Ask::of("nightly")).await.said(), "ok", "an old server's quarantine is over");
    let now = fence_of(&database, "nightly");
    assert_eq!(readopt(&holder, "nightly", tenure).await, "lost");
    // Also if the new server's clock is behind the old one's by more than the wait.
    let ahead = Tenure { fence: tenure.fence + 3_600_000_000, ..tenure };
    assert_eq!(readopt(&holder, "nightly", ahead).await, "lost");
    assert_eq!(fence_of(&database, "nightly"), now);
}

#[tokio::test]
async fn what_was_pruned_does_not_come_back() {
    let (database, holder, tenure) = held("nightly").await;
    forget(&database, "nightly", tenure);
    database.sql(&format!("UPDATE systole.settings SET fence_floor = {}", tenure.fence));
    assert_eq!(readopt(&holder, "nightly", tenure).await, "lost");
    assert_eq!(database.value("SELECT count(*) FROM systole.runs"), "0");
}

#[tokio::test]
async fn of_two_lost_tenures_of_a_run_the_later_one_is_at_work_in_whatever_order_they_come() {
    for first_comes_first in [true, false] {
        let (database, holder, first) = held("nightly").await;
        assert_eq!(holder.finish(first, "COMPLETED", Some(0)).await, "ok");
        let second = holder.claim(&Ask::of("nightly")).await.granted();
        forget(&database, "nightly", second);
        forget(&database, "nightly", first);
        database.sql("DELETE FROM systole.runs");
        fail_over(&database);
        if first_comes_first {
            assert_eq!(readopt(&holder, "nightly", first).await, "ok");
            assert_eq!(holder.finish(first, "COMPLETED", Some(0)).await, "ok");
            assert_eq!(readopt(&holder, "nightly", second).await, "ok");
        } else {
            assert_eq!(readopt(&holder, "nightly", second).await, "ok");
            assert_eq!(readopt(&holder, "nightly", first).await, "lost");
        }
        assert_eq!(fence_of(&database, "nightly"), format!("RUNNING 2 {}", second.fence));
        assert_eq!(holder.beat(&[second.instance]).await, ["ok"]);
    }
}

/// As if it had just happened.
fn quarantine(database: &Database) {
    database.sql("UPDATE systole.settings SET quarantined_until = clock_timestamp() + interval '1 minute'");
}

#[tokio::test]
async fn one_whose_end_got_lost_makes_room_for_the_one_behind_it_while_nobody_may_go_on() {
    for is_over in [false, true] {
        let (database, holder, first) = held("nightly").await;
        fail_over(&database);
        if !is_over {
            quarantine(&database);
        }
        let second = Tenure { instance: Uuid::now_v7(), fence: first.fence + 1, attempt: 2 };
        let (verdict, statuses, beats) =
            if is_over { ("lost", "RUNNING", ["ok", "lost"]) } else { ("ok", "RELEASED RUNNING", ["lost", "ok"]) };
        assert_eq!(readopt(&holder, "nightly", second).await, verdict);
        let ends = "SELECT string_agg(status, ' ' ORDER BY attempt) FROM systole.executor_instances";
        assert_eq!(database.value(ends), statuses);
        assert_eq!(holder.beat(&[first.instance, second.instance]).await, beats);
    }
}

#[tokio::test]
async fn without_a_failover_between_nobody_takes_a_run_by_his_word() {
    let (database, holder, living) = held("nightly").await;
    let forged = Tenure { instance: Uuid::now_v7(), fence: living.fence + 1_000_000_000, attempt: 9 };
    // Nor with one, for whoever comes from elsewhere, or from a line before the last.
    let (now, before) = (database.value("SELECT systole.history()"), database.value("SELECT systole.history()"));
    fail_over(&database);
    let zero = before.replace("-00000001", "-00000000");
    database.sql("UPDATE systole.settings SET history = '1-00000009'; SELECT systole.quarantined_until()");
    quarantine(&database);
    for history in [None, Some(now), Some("1-00000008".to_owned()), Some(zero)] {
        assert_eq!(readopt_from(&holder, forged, history.as_deref()).await.unwrap(), "lost", "{history:?}");
    }
    assert_eq!(holder.beat(&[living.instance]).await, ["ok"]);
    let verdict = readopt_from(&holder, forged, Some("1-00000009")).await.unwrap();
    assert_eq!(verdict, "ok", "the line just before this one");
}

#[tokio::test]
async fn what_people_asked_for_since_is_not_undone() {
    for (ask, verdict, stop) in [
        ("SELECT systole.submit('nightly', argv => ARRAY['true'], again => true)", "lost", None),
        ("SELECT systole.retry('nightly', 'a test')", "lost", None),
        ("SELECT systole.cancel('nightly', 'a test')", "ok", Some("t")),
    ] {
        let database = database();
        let holder = Session::on(&database).await;
        database.sql("SELECT systole.submit('nightly', argv => ARRAY['true'])");
        let tenure = holder.claim(&Ask::of("nightly")).await.granted();
        let was = if ask.contains("cancel") { "QUEUED" } else { "FAILED" };
        forget(&database, "nightly", tenure);
        database.sql(&format!(
            "INSERT INTO systole.runs (run_id, status, lane_id) VALUES ('nightly', '{was}', 1)
                 ON CONFLICT (run_id) DO UPDATE SET status = '{was}', lane_id = 1"
        ));
        fail_over(&database);
        database.sql(ask);
        assert_eq!(readopt(&holder, "nightly", tenure).await, verdict, "{ask}");
        let asked = database.sql("SELECT stop_requested_at IS NOT NULL FROM systole.executor_instances");
        assert_eq!(asked.first().map(|row| row[0].as_str()), stop, "{ask}");
    }
}

#[tokio::test]
async fn whoever_was_taken_away_by_force_bars_nobody_who_followed_him() {
    let (database, holder, first) = held("nightly").await;
    database.sql("SELECT systole.take_away('nightly', 'a test', false)");
    fail_over(&database);
    quarantine(&database);
    let second = Tenure { instance: Uuid::now_v7(), fence: first.fence + 9_000_000_000, attempt: 2 };
    assert_eq!(readopt(&holder, "nightly", second).await, "ok");
    assert_eq!(database.value("SELECT count(*) FROM systole.executor_instances WHERE bars_successor"), "0");
    let told = "SELECT string_agg(kind, ' ' ORDER BY id) FROM systole.run_events";
    assert_eq!(database.value(told), "claimed crashed unbarred readopted");
}

#[tokio::test]
async fn nobody_who_takes_up_a_tenure_waits_for_a_lock() {
    for is_known in [true, false] {
        let (database, holder, first) = held("nightly").await;
        let stranger = Session::on(&database).await;
        fail_over(&database);
        quarantine(&database);
        let lock = if is_known {
            "SELECT FROM systole.runs FOR UPDATE"
        } else {
            "INSERT INTO systole.runs (run_id, status) VALUES ('other', 'QUEUED')"
        };
        stranger.batch_execute(&format!("BEGIN; {lock}")).await.unwrap();
        let second = Tenure { instance: Uuid::now_v7(), fence: first.fence + 1, attempt: 2 };
        let run = if is_known { "nightly" } else { "other" };
        let readopt_it = format!(
            "SELECT systole.readopt('{run}', $1, $2, 2, '4211@a', 'a', 4211, NULL, NULL, NULL, 'none', 30000, NULL, NULL,
                 (SELECT history_before FROM systole.settings))"
        );
        let asked = std::time::Instant::now();
        let error = holder.query_one(&readopt_it, &[&second.instance, &second.fence]).await.unwrap_err();
        assert_eq!(error.code().unwrap().code(), "55P03", "{error:?}");
        assert!(asked.elapsed().as_millis() < 1000, "{:?}", asked.elapsed());
        // One that is known hears how it is with it at once.
        assert_eq!(readopt(&holder, "nightly", first).await, "ok");
        stranger.batch_execute("ROLLBACK").await.unwrap();
        assert_eq!(readopt(&holder, run, second).await, "ok");
    }
}

#[tokio::test]
async fn a_quarantine_that_ends_while_a_lock_is_waited_for_is_over() {
    let (database, holder, first) = held("nightly").await;
    let (stranger, follower) = (Session::on(&database).await, Session::on(&database).await);
    fail_over(&database);
    quarantine(&database);
    let before = database.value("SELECT history_before FROM systole.settings");
    let second = Tenure { instance: Uuid::now_v7(), fence: first.fence + 1, attempt: 2 };
    // So that the next one has nothing to look up before it begins.
    assert_eq!(readopt_from(&follower, second, None).await.unwrap(), "lost");
    stranger.batch_execute("BEGIN; LOCK TABLE systole.executor_instances").await.unwrap();
    let asking = tokio::spawn({
        let follower = follower.clone();
        async move { readopt_from(&follower, second, Some(&before)).await }
    });
    until_blocked(&holder, &asking, follower.backend, stranger.backend).await;
    end_quarantine(&database);
    stranger.batch_execute("COMMIT").await.unwrap();
    // The known holder may go on from now on.
    assert_eq!(asking.await.unwrap().unwrap(), "lost");
    assert_eq!(holder.beat(&[first.instance]).await, ["ok"]);
}

#[tokio::test]
async fn what_was_granted_on_a_line_that_is_not_known_here_is_taken_up_again() {
    let (database, holder, first) = held("nightly").await;
    // Timeline 11 and 12 (hexadecimal) have come and gone since, and no commit of theirs is left.
    database.sql(
        "CREATE OR REPLACE FUNCTION systole.history() RETURNS text LANGUAGE sql AS $$ SELECT '1-00000013' $$;
         UPDATE systole.settings SET history = '1-00000010'; SELECT systole.quarantined_until()",
    );
    quarantine(&database);
    let second = Tenure { instance: Uuid::now_v7(), fence: first.fence + 1, attempt: 2 };
    for stranger in ["1-0000000F", "1-00000013", "1-00000014", "1", "2-00000012", "11-00000012"] {
        assert_eq!(readopt_from(&holder, second, Some(stranger)).await.unwrap(), "lost", "{stranger}");
    }
    assert_eq!(readopt_from(&holder, second, Some("1-00000012")).await.unwrap(), "ok");
}

#[tokio::test]
async fn nobody_is_lost_while_another_one_writes_down_that_there_is_a_new_history() {
    let (database, holder, first) = held("nightly").await;
    let before = "1-00000000";
    database.sql(&format!("UPDATE systole.settings SET history = '{before}'"));
    let stranger = Session::on(&database).await;
    // As one whose COMMIT waits for a standby.
    stranger.batch_execute("BEGIN; SELECT systole.quarantined_until()").await.unwrap();
    let second = Tenure { instance: Uuid::now_v7(), fence: first.fence + 1, attempt: 2 };
    let error = readopt_from(&holder, second, Some(before)).await.unwrap_err();
    assert_eq!(error.code().unwrap().code(), "55P03", "{error:?}");
    stranger.batch_execute("COMMIT").await.unwrap();
    quarantine(&database);
    assert_eq!(readopt_from(&holder, second, Some(before)).await.unwrap(), "ok");
}
