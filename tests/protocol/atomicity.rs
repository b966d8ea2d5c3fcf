//! State and history are one: whoever dies between the two has done neither.

use serde_json::json;

use crate::asking::{Ask, Session, held, until_blocked};

#[tokio::test]
async fn a_backend_that_is_killed_before_the_event_has_not_changed_the_state() {
    let (database, holder, tenure) = held("nightly").await;
    database.sql("SELECT systole.submit('queued', argv => ARRAY['true'])");
    let gate = Session::on(&database).await;
    gate.batch_execute(
        "CREATE FUNCTION public.wait() RETURNS trigger LANGUAGE plpgsql AS
         $$ BEGIN PERFORM pg_advisory_xact_lock_shared(7); RETURN NEW; END $$;
         CREATE TRIGGER wait BEFORE INSERT ON systole.run_events FOR EACH ROW EXECUTE FUNCTION public.wait();
         SELECT pg_advisory_lock(7)",
    )
    .await
    .unwrap();
    let everything = "SELECT (SELECT json_agg(r ORDER BY run_id) FROM systole.runs r)::text || (SELECT json_agg(i) FROM
         systole.executor_instances i)::text || (SELECT json_agg(e ORDER BY id) FROM systole.run_events e)::text";
    let before = database.value(everything);
    let claim =
        "SELECT systole.claim_queued('{default}', '{}', '{}', true, ARRAY[gen_random_uuid()], ARRAY[NULL]::bytea[],
         '1@h', 'h', 1, NULL, NULL, NULL, 'none', 30000, '1000.0.0')";
    let finish = format!(
        "SELECT systole.finish('{}', {}, 'FAILED', 1, NULL, 0, '{}')",
        tenure.instance,
        tenure.fence,
        json!({})
    );
    let take_away = "SELECT systole.take_away('nightly', 'a test', false)";
    let submit = "SELECT systole.submit('another', argv => ARRAY['true'])";
    let cancel = "SELECT systole.cancel('queued', 'a test')";
    for statement in [claim, &finish, take_away, submit, cancel] {
        let victim = Session::on(&database).await;
        let (backend, sql) = (victim.backend, statement.to_owned());
        let call = tokio::spawn(async move { victim.batch_execute(&sql).await });
        until_blocked(&holder, &call, backend, gate.backend).await;
        database.sql(&format!("SELECT pg_terminate_backend({backend}, 5000)"));
        call.await.unwrap().expect_err("it was killed");
        assert_eq!(database.value(everything), before, "{statement}");
    }
    gate.batch_execute("SELECT pg_advisory_unlock(7)").await.unwrap();
    assert_eq!(holder.finish(tenure, "FAILED", Some(1)).await, "ok");
    holder.claim(&Ask::of("nightly")).await.granted();
}
