//! Claim and finish of no-op runs with their full history, in batches: through the library, and the same statements sent raw.
//!
//! Run by `benches/queue.sh`, or on a migrated database of your own that may be filled:
//! `SYSTOLE_DATABASE_URL=… cargo bench --bench queue -- [RUNS] [WORKERS] [BATCH]`

#![allow(clippy::unwrap_used, clippy::print_stdout)] // it is a bench

use std::time::Instant;

use systole::node::{Serving, Worker};
use systole::outcome::{End, InstanceStatus};
use tokio_postgres::{Client, NoTls};
use uuid::Uuid;

const ROUNDS: usize = 5;

/// The library's own: a heartbeat of more would lock its rows for too long.
const BEAT_MAX: usize = 100;

fn main() {
    let numbers: Vec<usize> = std::env::args().filter_map(|argument| argument.parse().ok()).collect();
    let setting = |n: usize, default: usize| numbers.get(n).copied().unwrap_or(default);
    let (runs, workers, batch) = (setting(0, 50_000), setting(1, 2), setting(2, 500));
    let url = std::env::var("SYSTOLE_DATABASE_URL").expect("SYSTOLE_DATABASE_URL names the database to be filled");
    let (mut library, mut raw) = (Vec::new(), Vec::new());
    let name = Uuid::now_v7();
    for round in 0..ROUNDS {
        // In turn, so that both see the same machine and the same growing history.
        submit(&url, &format!("library-{name}-{round}"), runs);
        library.push(per_second(runs, || each(workers, async || through_library(&url, batch).await)));
        submit(&url, &format!("raw-{name}-{round}"), runs);
        raw.push(per_second(runs, || each(workers, async || sent_raw(&url, batch).await)));
    }
    let (library, raw) = (median(library), median(raw));
    println!("{runs} runs, {workers} workers, batches of {batch}, median of {ROUNDS} rounds:");
    println!("library {library:.0} runs/s, raw {raw:.0} runs/s, ratio {:.2}", library / raw);
}

fn per_second(runs: usize, work: impl FnOnce() -> usize) -> f64 {
    let started = Instant::now();
    assert_eq!(work(), runs, "each run is worked off once");
    runs as f64 / started.elapsed().as_secs_f64()
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// A thread and a runtime for each worker; returns how many runs they ended.
fn each(workers: usize, work: impl AsyncFn() -> usize + Sync) -> usize {
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..workers).map(|_| scope.spawn(|| block_on(work()))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).sum()
    })
}

fn block_on<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(work)
}

async fn connect(url: &str) -> Client {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await.unwrap();
    tokio::spawn(connection);
    client.batch_execute("SET synchronous_commit = on").await.unwrap();
    client
}

fn submit(url: &str, name: &str, runs: usize) {
    block_on(async {
        let client = connect(url).await;
        let submit = "SELECT count(systole.submit($1 || '-' || n, command => 'noop')) FROM generate_series(1, $2) n";
        client.query_one(submit, &[&name, &i32::try_from(runs).unwrap()]).await.unwrap();
        client.batch_execute("CHECKPOINT").await.unwrap();
    });
}

async fn through_library(url: &str, batch: usize) -> usize {
    let mut worker = Worker::connect(url, Serving::commands(["noop"])).await.unwrap();
    let coordinator = worker.coordinator().clone();
    let (mut done, mut ended) = (0, Vec::new());
    loop {
        // The next are claimed while the last are finished.
        let (claimed, finished) = tokio::join!(worker.claim(batch), coordinator.finish_all(ended));
        done += finished.into_iter().filter(Result::is_ok).count();
        ended = claimed.unwrap().into_iter().map(|run| (run.lease, End::of(InstanceStatus::Completed))).collect();
        if ended.is_empty() {
            return done;
        }
    }
}

async fn sent_raw(url: &str, batch: usize) -> usize {
    let (claimer, beater, finisher) = (connect(url).await, connect(url).await, connect(url).await);
    let claim = "SELECT instance_id, fence FROM systole.claim_queued('{default}', '{}', '{noop}', false, $1::uuid[],
        array_fill(NULL::bytea, ARRAY[cardinality($1)]), '1@bench', 'bench', 1, NULL, NULL, NULL, 'none', 30000, '1000.0.0')";
    let beat = "SELECT * FROM systole.beat($1::uuid[], array_fill(0::bigint, ARRAY[cardinality($1)]),
        array_fill(NULL::integer, ARRAY[cardinality($1)]))";
    let finish = "SELECT systole.finish_all($1::uuid[], $2::bigint[], array_fill('COMPLETED'::text, n), array_fill(NULL::integer, n),
        array_fill(NULL::text, n), array_fill(0::bigint, n), array_fill('{}'::jsonb, n))
          FROM (SELECT ARRAY[cardinality($1::uuid[])] AS n) AS length";
    let claim = claimer.prepare(claim).await.unwrap();
    let beat = beater.prepare(beat).await.unwrap();
    let finish = finisher.prepare(finish).await.unwrap();
    let claimed = async || {
        let ids: Vec<Uuid> = (0..batch).map(|_| Uuid::now_v7()).collect();
        let rows = claimer.query(&claim, &[&ids]).await.unwrap();
        let ids: Vec<Uuid> = rows.iter().map(|row| row.get(0)).collect();
        for some in ids.chunks(BEAT_MAX) {
            beater.query_one(&beat, &[&some]).await.unwrap();
        }
        (ids, rows.iter().map(|row| row.get(1)).collect::<Vec<i64>>())
    };
    let (mut done, mut ended) = (0, claimed().await);
    while !ended.0.is_empty() {
        let (ids, fences) = std::mem::take(&mut ended);
        let finished = async {
            let verdicts: Vec<String> = finisher.query_one(&finish, &[&ids, &fences]).await.unwrap().get(0);
            verdicts
        };
        let (verdicts, next) = tokio::join!(finished, claimed());
        ended = next;
        // What another worker's claim looked at just now is told once more.
        for (n, verdict) in verdicts.iter().enumerate() {
            match verdict.as_str() {
                "busy" => {
                    ended.0.push(ids[n]);
                    ended.1.push(fences[n]);
                }
                _ => done += 1,
            }
        }
    }
    done
}
