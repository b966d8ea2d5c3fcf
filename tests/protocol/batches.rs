//! Many ends in one transaction: each is judged as if it had come alone, and none waits for another's lock.

use serde_json::Value;
use uuid::Uuid;

use crate::asking::{Ask, Session, Tenure, database};

impl Session {
    /// The verdicts, in the order of the question.
    async fn finish_all(&self, said: &[(Tenure, &str, Option<i32>)]) -> Vec<String> {
        let ids: Vec<Uuid> = said.iter().map(|(tenure, ..)| tenure.instance).collect();
        let fences: Vec<i64> = said.iter().map(|(tenure, ..)| tenure.fence).collect();
        let statuses: Vec<&str> = said.iter().map(|(_, status, _)| *status).collect();
        let codes: Vec<Option<i32>> = said.iter().map(|(.., code)| *code).collect();
        let causes: Vec<Option<&str>> = vec![None; said.len()];
        let phases: Vec<i64> = vec![7; said.len()];
        let details: Vec<Value> = vec![serde_json::json!({}); said.len()];
        let finish = "SELECT systole.finish_all($1, $2, $3, $4, $5, $6, $7)";
        self.query_one(finish, &[&ids, &fences, &statuses, &codes, &causes, &phases, &details]).await.unwrap().get(0)
    }
}

#[tokio::test]
async fn each_of_a_batch_is_judged_for_itself() {
    let database = database();
    let holder = Session::on(&database).await;
    let mut tenures = Vec::new();
    for run in ["ok", "busy", "again", "changed", "fenced"] {
        tenures.push(holder.claim(&Ask::of(run)).await.granted());
    }
    let [ok, busy, again, changed, fenced] = tenures[..] else { unreachable!() };
    for tenure in [again, changed] {
        assert_eq!(holder.finish(tenure, "COMPLETED", Some(0)).await, "ok");
    }
    let stranger = Session::on(&database).await;
    stranger.batch_execute("BEGIN; SELECT FROM systole.runs WHERE run_id = 'busy' FOR UPDATE").await.unwrap();

    let wrong_fence = Tenure { fence: fenced.fence + 1, ..fenced };
    let never_was = Tenure { instance: Uuid::now_v7(), ..ok };
    let said = [
        (ok, "FAILED", Some(3)),
        (busy, "COMPLETED", Some(0)),
        (again, "COMPLETED", Some(0)),
        (changed, "FAILED", Some(1)),
        (wrong_fence, "COMPLETED", Some(0)),
        (never_was, "COMPLETED", Some(0)),
    ];
    assert_eq!(holder.finish_all(&said).await, ["ok", "busy", "ok", "lost", "lost", "lost"]);
    stranger.batch_execute("COMMIT").await.unwrap();
    // Asked again, only the one that was busy has anything left to end.
    assert_eq!(holder.finish_all(&said).await, ["ok", "ok", "ok", "lost", "lost", "lost"]);
    let ends = database.sql(
        "SELECT i.run_id, i.status, r.status, i.exit_code, i.phases_executed,
                (SELECT string_agg(e.kind, ',' ORDER BY e.id) FROM systole.run_events e WHERE e.instance_id = i.instance_id)
           FROM systole.executor_instances i JOIN systole.runs r USING (run_id) ORDER BY i.started_at",
    );
    let ends: Vec<String> = ends.iter().map(|row| row.join(" ")).collect();
    assert_eq!(
        ends,
        [
            "ok FAILED FAILED 3 7 claimed,failed",
            "busy COMPLETED COMPLETED 0 7 claimed,completed",
            "again COMPLETED COMPLETED 0 7 claimed,completed",
            "changed COMPLETED COMPLETED 0 7 claimed,completed",
            "fenced RUNNING RUNNING  0 claimed",
        ]
    );
}

/// Not one of them may be given up because of another: what cannot be recorded spoils the whole transaction.
#[tokio::test]
async fn a_batch_with_an_end_that_is_none_records_nothing() {
    let database = database();
    let holder = Session::on(&database).await;
    let one = holder.claim(&Ask::of("one")).await.granted();
    let two = holder.claim(&Ask::of("two")).await.granted();
    let bad =
        "SELECT systole.finish_all(ARRAY[$1, $2]::uuid[], ARRAY[$3, $4]::bigint[], '{COMPLETED,EXPLODED}', '{0,0}',
               '{NULL,NULL}', '{0,0}', ARRAY['{}', '{}']::jsonb[])";
    holder.query(bad, &[&one.instance, &two.instance, &one.fence, &two.fence]).await.expect_err("EXPLODED is no end");
    assert_eq!(holder.beat(&[one.instance, two.instance]).await, ["ok", "ok"]);
}

/// An operator has taken away what a claim was granted whose answer never came: asked again, the rest is granted all the same.
#[tokio::test]
async fn what_was_taken_away_meanwhile_does_not_keep_a_claim_from_the_rest() {
    let database = database();
    let node = Session::on(&database).await;
    database.sql("SELECT systole.submit('r' || n, argv => ARRAY['true']) FROM generate_series(1, 2) n");
    let slots = [Uuid::now_v7(), Uuid::now_v7()];
    let claim = async |slots: &[Uuid]| {
        let claim = "SELECT run_id FROM systole.claim_queued('{default}', '{}', '{}', true, $1, array_fill(NULL::bytea, ARRAY[9]),
            '1@h', 'h', 1, NULL, NULL, NULL, 'none', 30000, '1000.0.0')";
        let rows = node.query(claim, &[&slots]).await.unwrap();
        rows.iter().map(|row| row.get(0)).collect::<Vec<String>>()
    };
    assert_eq!(claim(&slots[..1]).await, ["r1"]);
    database.sql("SELECT systole.take_away('r1', 'a test', false)");
    assert_eq!(claim(&slots).await, ["r2"]);
}

/// Taken away by force, then reported by its holder in a batch: the successor need not wait any longer.
#[tokio::test]
async fn the_word_of_one_that_was_revoked_counts_in_a_batch_as_well() {
    let database = database();
    let holder = Session::on(&database).await;
    let (one, two) = (holder.claim(&Ask::of("one")).await.granted(), holder.claim(&Ask::of("two")).await.granted());
    database.sql("SELECT systole.take_away('one', 'a test', false)");
    assert_eq!(holder.claim(&Ask::of("one")).await.said(), "dead/revoked");
    let said = [(one, "COMPLETED", Some(0)), (two, "COMPLETED", Some(0))];
    assert_eq!(holder.finish_all(&said).await, ["lost", "ok"]);
    holder.claim(&Ask::of("one")).await.granted();
    let kinds = database.value("SELECT string_agg(kind, ' ' ORDER BY id) FROM systole.run_events WHERE run_id = 'one'");
    assert_eq!(kinds, "claimed crashed unbarred claimed");
}
