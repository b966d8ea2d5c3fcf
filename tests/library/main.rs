//! The library as a program uses it: acquire, keep, lose, give back.

#![allow(clippy::unwrap_used)] // it is a test

#[path = "../support/mod.rs"]
mod support;
mod worker;

use std::time::Duration;

use support::{Database, eventually, throughout};
use systole::instance::{AcquireError, Loss, Timing};
use systole::{Coordinator, RunId};

const SOON: Duration = Duration::from_secs(10);

fn fast() -> Timing {
    let ms = Duration::from_millis;
    Timing {
        heartbeat_interval: ms(300),
        attempt_timeout: ms(400),
        fence_after: ms(1200),
        kill_grace: ms(500),
        stale_after: ms(3000),
        freeze_max: ms(0),
    }
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

fn run(name: &str) -> RunId {
    name.parse().unwrap()
}

fn status_of(database: &Database, run_id: &str) -> String {
    database.value(&format!(
        "SELECT status FROM systole.executor_instances WHERE run_id = '{run_id}' ORDER BY attempt DESC LIMIT 1"
    ))
}

#[test]
fn a_second_acquire_is_refused_until_the_first_completes() {
    let database = Database::new();
    block_on(async {
        let one = Coordinator::connect(&database.url).await.unwrap();
        let two = Coordinator::connect(&database.url).await.unwrap();
        let lease = one.acquire(&run("r")).await.unwrap();
        assert_eq!(lease.attempt(), 1);
        match two.acquire(&run("r")).await {
            Err(AcquireError::Held(holder)) => assert_eq!(holder.executor_id, one.identity().executor_id),
            other => panic!("{other:?}"),
        }
        lease.progress(7);
        let fence = lease.fence();
        lease.complete().await.unwrap();
        let next = two.acquire(&run("r")).await.unwrap();
        assert!(next.fence() > fence);
        assert_eq!(next.attempt(), 2);
        next.fail().await.unwrap();
    });
    let ends = database.sql("SELECT status, phases_executed FROM systole.executor_instances ORDER BY attempt");
    assert_eq!(ends, [["COMPLETED", "7"], ["FAILED", "0"]]);
    assert_eq!(database.value("SELECT status FROM systole.runs"), "FAILED");
}

#[test]
fn one_executor_keeps_many_leases_with_one_statement_per_interval() {
    let database = Database::new();
    block_on(async {
        let coordinator = Coordinator::connect_with(database.url.parse().unwrap(), fast()).await.unwrap();
        let mut leases = Vec::new();
        for n in 0..20 {
            leases.push(coordinator.acquire(&run(&format!("r{n}"))).await.unwrap());
        }
        // Longer than stale_after: without heartbeats all of them would be stale by now.
        let ages = "SELECT count(*) FROM systole.executor_instances
                     WHERE status = 'RUNNING' AND last_heartbeat > clock_timestamp() - interval '1 second'";
        throughout("all are beaten for", fast().stale_after + Duration::from_millis(500), || {
            database.value(ages) == "20"
        });
        assert!(leases.iter().all(|lease| lease.state().borrow().lost.is_none()));
    });
}

#[test]
fn a_dropped_lease_is_given_back() {
    let database = Database::new();
    let coordinator = block_on(async {
        let coordinator = Coordinator::connect(&database.url).await.unwrap();
        drop(coordinator.acquire(&run("r")).await.unwrap());
        coordinator
    });
    eventually("the lease is given back", SOON, || (status_of(&database, "r") == "RELEASED").then_some(()));
    drop(coordinator);
}

#[test]
fn a_lease_dropped_with_its_coordinator_is_given_back_too() {
    let database = Database::new();
    block_on(async {
        let coordinator = Coordinator::connect(&database.url).await.unwrap();
        let _lease = coordinator.acquire(&run("r")).await.unwrap();
    });
    eventually("the lease is given back", SOON, || (status_of(&database, "r") == "RELEASED").then_some(()));
}

#[test]
fn a_superseded_lease_is_lost_and_cannot_finish() {
    let database = Database::new();
    block_on(async {
        let coordinator = Coordinator::connect_with(database.url.parse().unwrap(), fast()).await.unwrap();
        let lease = coordinator.acquire(&run("r")).await.unwrap();
        database.sql(
            "SELECT systole.end_instances(ARRAY[instance_id], '{CRASHED}', '{NULL}', '{forced}', '{0}', ARRAY['{}'::jsonb])
               FROM systole.executor_instances",
        );
        let loss = tokio::time::timeout(SOON, lease.lost()).await.unwrap();
        assert_eq!(loss, Loss::Superseded);
        assert!(lease.complete().await.is_err());
    });
    assert_eq!(status_of(&database, "r"), "CRASHED");
}

#[test]
fn a_lease_expires_by_its_own_clock_when_the_database_is_gone() {
    let (database, mut server) = Database::on_own_server();
    block_on(async {
        let coordinator = Coordinator::connect_with(database.url.parse().unwrap(), fast()).await.unwrap();
        let lease = coordinator.acquire(&run("r")).await.unwrap();
        server.crash();
        let gone = std::time::Instant::now();
        let loss = tokio::time::timeout(SOON, lease.lost()).await.unwrap();
        assert_eq!(loss, Loss::Expired);
        // Not later than F behind the last acknowledged heartbeat, and so not later than F behind the crash.
        assert!(gone.elapsed() < fast().fence_after + Duration::from_millis(500), "{:?}", gone.elapsed());
        server.start();
        // It was never taken over, so what the program has to say still counts.
        lease.fail().await.unwrap();
    });
    assert_eq!(status_of(&database, "r"), "FAILED");
}

#[test]
fn heartbeats_do_not_need_the_programs_runtime() {
    let database = Database::new();
    block_on(async {
        let coordinator = Coordinator::connect_with(database.url.parse().unwrap(), fast()).await.unwrap();
        let lease = coordinator.acquire(&run("r")).await.unwrap();
        // A program that blocks its only thread for longer than fence_after.
        std::thread::sleep(fast().fence_after + Duration::from_millis(800)); // the thing under test
        let trusted = lease.state().borrow().trusted_until.unwrap();
        assert!(trusted > systole::elapsed::Instant::now(), "the lease ran out behind a blocked runtime");
        lease.complete().await.unwrap();
    });
}

#[test]
fn a_cancelled_acquire_keeps_nothing() {
    let database = Database::new();
    block_on(async {
        let coordinator = Coordinator::connect(&database.url).await.unwrap();
        for n in 0..30 {
            let name = run(&format!("r{n}"));
            let acquire = coordinator.acquire(&name);
            let _ = tokio::time::timeout(Duration::from_micros(n * 150), acquire).await.map(drop);
        }
        let running = "SELECT count(*) FROM systole.executor_instances WHERE status = 'RUNNING'";
        eventually("all are given back", SOON, || (database.value(running) == "0").then_some(()));
    });
}
