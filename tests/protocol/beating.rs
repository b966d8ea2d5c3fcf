//! Heartbeats: the three verdicts mean what they say, no heartbeat waits, and none bloats its table.

use std::sync::Arc;

use uuid::Uuid;

use crate::asking::{Ask, Session, all, beside_the_runtime, database, held, within};
use crate::support::Database;

/// So many runs, all held through this session.
async fn tenures(session: &Session, count: usize) -> Vec<Uuid> {
    let mut instances = Vec::new();
    for n in 0..count {
        instances.push(session.claim(&Ask::of(&format!("run-{n}"))).await.granted().instance);
    }
    instances
}

#[tokio::test]
async fn a_locked_row_is_busy_and_left_as_it_is_and_the_rest_of_its_batch_is_beaten_without_waiting() {
    let database = database();
    let holder = Session::on(&database).await;
    let instances = tenures(&holder, 3).await;
    database.sql("UPDATE systole.executor_instances SET last_heartbeat = clock_timestamp() - interval '10 seconds'");
    let stranger = Session::on(&database).await;
    stranger.batch_execute("BEGIN").await.unwrap();
    let lock = "SELECT FROM systole.executor_instances WHERE instance_id = $1 FOR NO KEY UPDATE";
    stranger.query(lock, &[&instances[1]]).await.unwrap();

    // Any wait for a lock would be an error here.
    holder.batch_execute("SET lock_timeout = '1ms'").await.unwrap();
    let before = holder.everything_about(instances[1]).await;
    assert_eq!(holder.beat(&instances).await, ["ok", "busy", "ok"]);
    assert_eq!(holder.everything_about(instances[1]).await, before, "busy has renewed something");
    let fresh = "SELECT count(*) FROM systole.executor_instances WHERE last_heartbeat > clock_timestamp() - interval '9 seconds'";
    assert_eq!(database.value(fresh), "2");

    stranger.batch_execute("COMMIT").await.unwrap();
    assert_eq!(holder.beat(&instances).await, ["ok", "ok", "ok"]);
}

#[tokio::test]
async fn lost_is_said_of_what_has_ended_or_never_was_and_of_nothing_else() {
    let database = database();
    let holder = Session::on(&database).await;
    let tenure = holder.claim(&Ask::of("ended")).await.granted();
    let lives = holder.claim(&Ask::of("lives")).await.granted().instance;
    let ender = Session::on(&database).await;

    ender.batch_execute("BEGIN").await.unwrap();
    assert_eq!(ender.finish(tenure, "COMPLETED", Some(0)).await, "ok");
    assert_eq!(holder.beat(&[tenure.instance, lives]).await, ["busy", "ok"], "an end that may still be rolled back");
    ender.batch_execute("COMMIT").await.unwrap();

    let before = holder.everything_about(tenure.instance).await;
    assert_eq!(holder.beat(&[Uuid::now_v7(), lives, tenure.instance]).await, ["lost", "ok", "lost"]);
    assert_eq!(holder.everything_about(tenure.instance).await, before, "lost has renewed something");
}

/// A heartbeat is also how the holder learns of a stop, and tells how far it is: never backwards.
#[tokio::test]
async fn a_heartbeat_carries_news_both_ways() {
    let (_database, holder, tenure) = held("nightly").await;
    let beat = "SELECT stops[1], verdicts[1] FROM systole.beat(ARRAY[$1::uuid], ARRAY[$2::bigint], ARRAY[$3::integer])";
    let told = async |phases: i64, child_pid: Option<i32>| {
        let row = holder.query_one(beat, &[&tenure.instance, &phases, &child_pid]).await.unwrap();
        assert_eq!(row.get::<_, &str>(1), "ok");
        row.get::<_, bool>(0)
    };
    assert!(!told(5, Some(99)).await);
    assert_eq!(holder.request_stop("nightly").await, "ok");
    assert!(told(3, None).await);
    assert_eq!(holder.request_stop("nightly").await, "already");
    let known = "SELECT (phases_executed, child_pid) FROM systole.executor_instances";
    assert_eq!(holder.text(known).await, "(5,99)");
}

#[tokio::test]
async fn batches_in_opposite_orders_never_deadlock_and_never_lose_a_living_instance() {
    let database = database();
    let holder = Session::on(&database).await;
    let upwards = tenures(&holder, 30).await;
    let downwards: Vec<Uuid> = upwards.iter().rev().copied().collect();
    let mixed: Vec<Uuid> = upwards.iter().skip(10).chain(&upwards[..10]).copied().collect();
    let mut beaters: Vec<Arc<Session>> = Vec::new();
    for _ in 0..3 {
        beaters.push(Session::on(&database).await);
    }
    let beaten = all(beaters.into_iter().zip([upwards, downwards, mixed]).map(|(session, instances)| async move {
        let mut ok = 0;
        for _ in 0..200 {
            for verdict in session.beat(&instances).await {
                assert!(["ok", "busy"].contains(&verdict.as_str()), "{verdict}");
                ok += usize::from(verdict == "ok");
            }
        }
        ok
    }))
    .await;
    assert!(beaten.iter().all(|ok| *ok > 0), "somebody was starved: {beaten:?}");
}

/// On a server of its own: whoever writes for long in any database of a server holds back the pruning in all of them.
#[tokio::test]
async fn at_least_99_of_100_heartbeats_are_hot_updates() {
    const BEATS: usize = 2_000;
    let (database, _server) = beside_the_runtime(Database::on_own_server);
    let (holder, observer) = (Session::on(&database).await, Session::on(&database).await);
    let instances = tenures(&holder, 50).await;
    for _ in 0..BEATS {
        let verdicts = holder.beat(&instances).await;
        assert!(verdicts.iter().all(|verdict| verdict == "ok"));
    }
    drop(holder); // its backend tells what it has counted when it ends
    let counted = "SELECT n_tup_upd, n_tup_hot_upd FROM pg_stat_user_tables WHERE relname = 'executor_instances'";
    let (updates, hot) = within("the statistics of all heartbeats", async {
        loop {
            let row = observer.query_one(counted, &[]).await.unwrap();
            let (updates, hot): (i64, i64) = (row.get(0), row.get(1));
            if updates >= (BEATS * instances.len()) as i64 {
                return (updates, hot);
            }
        }
    })
    .await;
    assert!(hot * 100 >= updates * 99, "{hot} of {updates}");
}
