//! The brake: when most hosts fall silent at once, the fault is more likely ours.

use std::sync::Arc;

use crate::asking::{Ask, Session, Tenure, database};
use crate::support::Database;

const SECRET: &[u8] = b"known to the guard alone";
const HOSTS: [&str; 6] = ["a", "b", "c", "d", "e", "f"];

/// A run named after its host on each of so many hosts, of which the first few have been silent for so long.
async fn fleet(hosts: usize, silent: usize, seconds: f64) -> (Database, Arc<Session>, Vec<Tenure>) {
    let database = database();
    let session = Session::on(&database).await;
    let mut tenures = Vec::new();
    for (n, host) in HOSTS.into_iter().take(hosts).enumerate() {
        tenures.push(session.claim(&Ask { host, secret: Some(SECRET), ..Ask::of(host) }).await.granted());
        if n < silent {
            database.age_heartbeat(host, seconds);
        }
    }
    (database, session, tenures)
}

async fn taker_is_told(session: &Session) -> String {
    session.claim(&Ask { host: "taker", ..Ask::of("a") }).await.said()
}

#[tokio::test]
async fn when_most_hosts_and_at_least_three_are_silent_a_takeover_by_age_waits_once_more() {
    for (hosts, silent, said) in [
        (4, 1, "ok"),
        (4, 3, "dead/brake"),
        // Half of them is not most of them.
        (6, 3, "ok"),
        // Most of them, but not three.
        (2, 2, "ok"),
        (3, 3, "dead/brake"),
    ] {
        let (_database, session, _) = fleet(hosts, silent, 31.0).await;
        assert_eq!(taker_is_told(&session).await, said, "{silent} of {hosts} hosts");
    }
}

#[tokio::test]
async fn a_host_speaks_through_any_of_its_instances() {
    let (database, session, _) = fleet(1, 1, 31.0).await;
    for run in ["p", "q", "r", "s"] {
        session.claim(&Ask::of(run)).await.granted();
        database.age_heartbeat(run, 31.0);
    }
    assert_eq!(taker_is_told(&session).await, "ok", "five silent instances of one host are one silent host");

    let (_database, session, _) = fleet(4, 3, 31.0).await;
    for host in ["b", "c"] {
        session.claim(&Ask { host, ..Ask::of(&format!("another-on-{host}")) }).await.granted();
    }
    assert_eq!(taker_is_told(&session).await, "ok", "two hosts have fresh instances beside their silent ones");
}

#[tokio::test]
async fn the_brake_holds_for_one_more_stale_after_and_not_for_ever() {
    let (database, session, _) = fleet(4, 3, 31.0).await;
    assert_eq!(taker_is_told(&session).await, "dead/brake");
    database.age_heartbeat("a", 59.0);
    assert_eq!(taker_is_told(&session).await, "dead/brake");
    database.age_heartbeat("a", 60.1);
    assert_eq!(taker_is_told(&session).await, "ok");
}

#[tokio::test]
async fn a_proof_of_death_does_not_wait_for_the_brake() {
    let (_database, session, tenures) = fleet(4, 3, 31.0).await;
    assert_eq!(taker_is_told(&session).await, "dead/brake");
    assert_eq!(session.file(tenures[0].instance, Some(SECRET), "CRASHED", None).await, "ok");
    assert_eq!(taker_is_told(&session).await, "ok");
}

/// In the second in which everybody looks dead, many takers come at once: none may go by yesterday's calm.
#[tokio::test]
async fn the_brake_stops_the_second_taker_too_while_the_first_is_still_looking() {
    let (database, session, _) = fleet(4, 3, 31.0).await;
    let first = Session::on(&database).await;
    first.batch_execute("BEGIN").await.unwrap();
    assert_eq!(taker_is_told(&first).await, "dead/brake");
    assert_eq!(taker_is_told(&session).await, "dead/brake");
    first.batch_execute("COMMIT").await.unwrap();
    assert_eq!(taker_is_told(&session).await, "dead/brake");
}

/// A look is good for a second: a thousand takers do not count the hosts a thousand times.
#[tokio::test]
async fn the_hosts_are_counted_at_most_once_a_second() {
    let (database, session, _) = fleet(4, 3, 31.0).await;
    let looked = "SELECT looked_at FROM systole.takeover_brake";
    let mut looks = Vec::new();
    let started = std::time::Instant::now();
    for _ in 0..100 {
        assert_eq!(taker_is_told(&session).await, "dead/brake");
        looks.push(session.text(looked).await);
    }
    looks.dedup();
    assert!(looks.len() <= 1 + started.elapsed().as_secs_f64().ceil() as usize, "{looks:?}");
    assert_eq!(
        database.value("SELECT hosts || ' ' || hosts_stale || ' ' || engaged FROM systole.takeover_brake"),
        "4 3 true"
    );
}
