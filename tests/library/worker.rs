//! A program that takes many runs from the queues: each is worked off once, and none is lost on the way.

use std::time::Duration;

use systole::instance::{AcquireError, FinishError};
use systole::node::{Serving, Worker};
use systole::outcome::{End, InstanceStatus};

use super::support::{Database, eventually};
use super::{SOON, block_on, fast};

async fn worker(database: &Database) -> Worker {
    let serving = Serving::commands(["noop"]);
    Worker::connect_with(database.url.parse().unwrap(), fast(), serving).await.unwrap()
}

fn submit(database: &Database, runs: usize) {
    database.sql(&format!("SELECT systole.submit('n' || n, command => 'noop') FROM generate_series(1, {runs}) n"));
}

fn count(database: &Database, what: &str) -> String {
    database.value(&format!("SELECT count(*) FROM {what}"))
}

#[test]
fn many_are_claimed_and_ended_at_once_each_as_it_says() {
    let database = Database::new();
    submit(&database, 1200);
    database.sql(
        "SELECT systole.submit('argv', argv => ARRAY['true']), systole.submit('other', command => 'other'),
                systole.submit('label', command => 'noop', labels => '{\"gpu\": \"yes\"}'),
                systole.submit('queue', command => 'noop', queue => 'elsewhere'),
                systole.submit('meta', command => 'noop', meta => '{\"n\": 7}', env => '{\"A\": \"b\"}', priority => 9)",
    );
    block_on(async {
        let mut worker = worker(&database).await;
        let mut first = worker.claim(1).await.unwrap();
        let meta = first.pop().unwrap();
        assert_eq!((meta.lease.run_id().as_str(), meta.command.as_str(), meta.lease.attempt()), ("meta", "noop", 1));
        assert_eq!((meta.meta.unwrap()["n"].as_i64(), meta.env["A"].as_str()), (Some(7), "b"));
        let mut runs = worker.claim(2000).await.unwrap();
        assert_eq!(runs.len(), 1000, "never more at once");
        runs.extend(worker.claim(2000).await.unwrap());
        assert_eq!(runs.len(), 1200, "and nothing that it does not serve");
        assert!(worker.claim(10).await.unwrap().is_empty());
        let end = |n: usize| match n % 3 {
            0 => End { exit_code: Some(4), ..End::of(InstanceStatus::Failed) },
            _ => End::of(InstanceStatus::Completed),
        };
        let ended = runs.into_iter().enumerate().map(|(n, run)| (run.lease, end(n))).collect();
        assert!(worker.coordinator().finish_all(ended).await.iter().all(Result::is_ok));
        meta.lease.complete().await.unwrap();
    });
    let by_status = database.sql("SELECT status, count(*) FROM systole.runs GROUP BY 1 ORDER BY 1");
    assert_eq!(by_status, [["COMPLETED", "801"], ["FAILED", "400"], ["QUEUED", "4"]]);
    let history = "(SELECT FROM systole.run_events WHERE kind <> 'submitted' GROUP BY instance_id
                    HAVING array_agg(kind ORDER BY id) IN ('{claimed,completed}', '{claimed,failed}')) whole";
    assert_eq!(count(&database, history), "1201");
    assert_eq!(count(&database, "systole.nodes WHERE executor_id LIKE '%@%'"), "1", "people see it");
}

#[test]
fn what_is_dropped_goes_back_and_counts_as_nothing() {
    let database = Database::new();
    submit(&database, 700);
    block_on(async {
        let mut worker = worker(&database).await;
        let runs = worker.claim(700).await.unwrap();
        assert_eq!(count(&database, "systole.runs WHERE status = 'RUNNING'"), "700");
        drop(runs);
        eventually("all are queued again", Duration::from_secs(2), || {
            (count(&database, "systole.runs WHERE status = 'QUEUED' AND crashes = 0 AND failures = 0") == "700")
                .then_some(())
        });
        assert_eq!(count(&database, "systole.executor_instances WHERE status = 'RELEASED'"), "700");
        assert_eq!(worker.claim(1).await.unwrap()[0].lease.attempt(), 2);
    });
}

/// Whoever drops a claim that has been sent does not know what it has been granted. The next one does.
#[test]
fn a_claim_that_is_dropped_on_its_way_loses_nothing() {
    let database = Database::new();
    submit(&database, 40);
    block_on(async {
        let mut worker = worker(&database).await;
        let mut worked_off = 0;
        for patience in 0..400 {
            let patience = Duration::from_micros(patience * 20);
            if let Ok(runs) = tokio::time::timeout(patience, worker.claim(2)).await {
                let ended = runs.unwrap().into_iter().map(|run| (run.lease, End::of(InstanceStatus::Completed)));
                worked_off += worker.coordinator().finish_all(ended.collect()).await.len();
            }
        }
        let until = std::time::Instant::now() + Duration::from_secs(20);
        while worked_off < 40 {
            assert!(std::time::Instant::now() < until, "only {worked_off} of 40 were worked off");
            let ended: Vec<_> = worker
                .claim(8)
                .await
                .unwrap()
                .into_iter()
                .map(|run| (run.lease, End::of(InstanceStatus::Completed)))
                .collect();
            if ended.is_empty() {
                tokio::time::sleep(Duration::from_millis(10)).await; // between two looks, until the limit above
            }
            worked_off += worker.coordinator().finish_all(ended).await.len();
        }
    });
    assert_eq!(count(&database, "systole.executor_instances WHERE status = 'COMPLETED'"), "40");
    assert_eq!(count(&database, "systole.executor_instances WHERE status IN ('CRASHED', 'RUNNING')"), "0");
}

#[test]
fn two_at_one_queue_work_each_run_off_once() {
    let database = Database::new();
    submit(&database, 3000);
    let work = || {
        block_on(async {
            let mut worker = worker(&database).await;
            let coordinator = worker.coordinator().clone();
            let (mut done, mut ended) = (0, Vec::new());
            loop {
                let (claimed, finished) = tokio::join!(worker.claim(100), coordinator.finish_all(ended));
                assert!(finished.iter().all(Result::is_ok));
                done += finished.len();
                ended =
                    claimed.unwrap().into_iter().map(|run| (run.lease, End::of(InstanceStatus::Completed))).collect();
                if ended.is_empty() {
                    return done;
                }
            }
        })
    };
    let done: usize = std::thread::scope(|scope| {
        let threads = [scope.spawn(work), scope.spawn(work)];
        threads.into_iter().map(|thread| thread.join().unwrap()).sum()
    });
    assert_eq!(done, 3000);
    assert_eq!(count(&database, "systole.executor_instances WHERE status = 'COMPLETED' AND attempt = 1"), "3000");
    assert_eq!(count(&database, "systole.executor_instances"), "3000");
}

#[test]
fn one_of_a_batch_that_was_taken_away_is_lost_and_the_others_are_not() {
    let database = Database::new();
    submit(&database, 3);
    block_on(async {
        let mut worker = worker(&database).await;
        let runs = worker.claim(3).await.unwrap();
        database.sql("SELECT systole.take_away('n2', 'a test', false)");
        let ended = runs.into_iter().map(|run| (run.lease, End::of(InstanceStatus::Completed))).collect();
        let results = worker.coordinator().finish_all(ended).await;
        let lost: Vec<String> = results
            .into_iter()
            .filter_map(|result| match result {
                Ok(()) => None,
                Err(FinishError::Lost { run_id }) => Some(run_id.to_string()),
                Err(other) => panic!("{other}"),
            })
            .collect();
        assert_eq!(lost, ["n2"]);
    });
    let ends = database.sql("SELECT run_id, status FROM systole.executor_instances ORDER BY 1");
    assert_eq!(ends, [["n1", "COMPLETED"], ["n2", "CRASHED"], ["n3", "COMPLETED"]]);
}

#[test]
fn who_is_asked_to_drain_or_has_become_too_old_takes_nothing_more() {
    let database = Database::new();
    submit(&database, 3);
    block_on(async {
        let mut one = worker(&database).await;
        let held = one.claim(1).await.unwrap();
        let asked =
            database.value(&format!("SELECT systole.drain('{}', 'a test')", one.coordinator().identity().executor_id));
        assert!(asked.contains('@'), "{asked}");
        tokio::time::timeout(SOON, async {
            while one.drain_requested().is_none() {
                one.wait().await;
                one.claim(0).await.unwrap();
            }
        })
        .await
        .expect("it hears of it");
        assert_eq!(one.drain_requested(), Some("a test"));
        assert!(one.claim(2).await.unwrap().is_empty());
        for run in held {
            run.lease.complete().await.unwrap();
        }

        let mut two = worker(&database).await;
        assert_eq!(two.claim(1).await.unwrap().len(), 1);
        database.sql("UPDATE systole.settings SET oldest_allowed = '99.0.0'");
        match two.claim(1).await {
            Err(AcquireError::Db(error)) => assert!(error.to_string().contains("99.0.0"), "{error}"),
            Ok(runs) => assert!(runs.is_empty() && two.drain_requested().unwrap().contains("99.0.0")),
            Err(other) => panic!("{other}"),
        }
    });
    eventually("the one that was dropped is queued again beside the last", SOON, || {
        (count(&database, "systole.runs WHERE status = 'QUEUED'") == "2").then_some(())
    });
}

/// A fleet may have no node at all.
#[test]
fn whoever_falls_silent_is_declared_dead_by_those_who_work() {
    let database = Database::new();
    database.pretend_old_server();
    submit(&database, 1);
    block_on(async {
        let mut worker = worker(&database).await;
        database.sql(
            "SELECT systole.claim_queued('{default}', '{}', '{noop}', false, ARRAY[gen_random_uuid()], ARRAY[NULL]::bytea[],
                 '1@gone', 'gone', 1, NULL, NULL, NULL, 'none', 2000, '1000.0.0')",
        );
        let run = tokio::time::timeout(Duration::from_secs(20), async {
            loop {
                if let Some(run) = worker.claim(1).await.unwrap().pop() {
                    return run;
                }
                tokio::time::sleep(Duration::from_millis(200)).await; // between two looks, within the timeout
            }
        });
        let run = run.await.expect("it is taken over");
        assert_eq!(run.lease.attempt(), 2);
        assert_eq!(run.lease.predecessor().unwrap().executor_id, "1@gone");
        run.lease.complete().await.unwrap();
    });
}
