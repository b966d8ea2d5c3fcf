//! Keeps the fleet busy, looks for orphans, and writes late: as somebody would who does not know that he was superseded.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::ops::Range;
use std::path::Path;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio_postgres::types::Type;
use uuid::Uuid;

use super::ledger::{self, Transfer};
use super::probe::{HAS_STRAGGLER, IS_FENCED, LOGS, Settled, URL, WORK_MS, settle};
use super::processes::{Marked, marked};
use super::server::Server;
use super::{DrillError, IN_FLIGHT, MARK};
use crate::db::{DbError, Link};
use crate::run::{Submission, queue};

/// Between two looks.
const LOOK: Duration = Duration::from_millis(200);

/// How long runs work. Many must be at work still when they are taken over by age, or nobody would see that they were not stopped.
const SHORT_MS: Range<u64> = 1000..4000;
const LONG_MS: Range<u64> = 6000..12_000;

/// The share of long ones.
const LONG: f64 = 0.4;

/// Looks between two that go through all processes of this machine.
const LOOKS_PER_HUNT: u64 = 10;

const LOAD: &str = "-- drill.load
    SELECT count(*) FILTER (WHERE status IN ('QUEUED', 'RUNNING')) AS in_flight FROM systole.runs";
const SUPERSEDED: &str = "-- drill.superseded
    SELECT i.instance_id, i.run_id, i.fence FROM systole.executor_instances i JOIN systole.runs r USING (run_id)
     WHERE i.attempt < r.attempt";
const ENDED: &str = "-- drill.ended
    SELECT instance_id::text AS instance_id, status, cause FROM systole.executor_instances
     WHERE instance_id = ANY ($1::text[]::uuid[]) AND ended_at IS NOT NULL AND cause IS DISTINCT FROM 'stale'";
const UPDATES: &str = "-- drill.updates
    SELECT u.n_tup_upd AS updates, u.n_tup_hot_upd AS hot,
           (SELECT count(*) FROM systole.executor_instances WHERE ended_at IS NOT NULL) AS ended
      FROM pg_stat_user_tables u WHERE u.schemaname = $1 AND u.relname = 'executor_instances'";

/// The work, and what is seen on its way.
pub(super) struct Work {
    link: Link,
    random: StdRng,
    environment: BTreeMap<String, String>,
    program: String,
    mark: String,
    is_fenced: bool,
    submitted: u64,
    looks: u64,
    /// Late writes that have been tried with success, or refused.
    settled: HashSet<Uuid>,
    pub(super) late_writes_refused: usize,
    pub(super) orphans: HashMap<i32, String>,
    heartbeats: Heartbeats,
}

/// Updates of instances that were heartbeats, as the server's statistics have them. A crash forgets those.
#[derive(Debug, Default)]
struct Heartbeats {
    before: Option<(i64, i64, i64)>,
    all: i64,
    hot: i64,
}

impl Work {
    pub(super) fn new(
        server: &Server,
        logs: &Path,
        mark: &str,
        seed: u64,
        is_fenced: bool,
    ) -> Result<Work, DrillError> {
        let program = std::env::current_exe().map_err(DrillError::at("find this program"))?;
        let environment = [
            (MARK, mark.to_owned()),
            (LOGS, logs.display().to_string()),
            (URL, server.url.clone()),
            (IS_FENCED, i32::from(is_fenced).to_string()),
        ];
        Ok(Work {
            link: server.link(),
            random: StdRng::seed_from_u64(seed),
            environment: environment.into_iter().map(|(name, value)| (name.to_owned(), value)).collect(),
            program: program.display().to_string(),
            mark: mark.to_owned(),
            is_fenced,
            submitted: 0,
            looks: 0,
            settled: HashSet::new(),
            late_writes_refused: 0,
            orphans: HashMap::new(),
            heartbeats: Heartbeats::default(),
        })
    }

    /// Goes on for as long as it is polled. What fails because the database is away is tried again.
    pub(super) async fn keep_busy(&mut self) {
        loop {
            let _ = self.look(true).await;
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Submits nothing more, and ends when nothing is queued or at work.
    pub(super) async fn drain(&mut self) {
        while !matches!(self.look(false).await, Ok(0)) {
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Returns how many are queued or at work.
    async fn look(&mut self, fills_up: bool) -> Result<i64, DbError> {
        self.looks += 1;
        let rows = self.link.call(async |session| session.query(LOAD, &[]).await).await?;
        let in_flight: i64 = rows.first().expect("an aggregate has a row").get("in_flight");
        let wanted = if fills_up { IN_FLIGHT - in_flight } else { 0 };
        if wanted > 0 {
            let runs: Vec<Submission> = (0..wanted).map(|_| self.next_run()).collect();
            // If the answer is lost, some are queued that nobody asked for again, and that is all.
            let _ = self.link.call(async |session| queue::submit(session, &runs, true, false, "drill").await).await?;
        }
        self.write_late().await?;
        if self.looks.is_multiple_of(LOOKS_PER_HUNT) {
            self.hunt().await?;
            self.count_heartbeats().await?;
        }
        Ok(in_flight)
    }

    fn next_run(&mut self) -> Submission {
        self.submitted += 1;
        let mut environment = self.environment.clone();
        let work_ms = if self.random.random_bool(LONG) { LONG_MS } else { SHORT_MS };
        environment.insert(WORK_MS.to_owned(), self.random.random_range(work_ms).to_string());
        environment.insert(HAS_STRAGGLER.to_owned(), i32::from(self.random.random_bool(0.3)).to_string());
        let run = serde_json::json!({
            "run_id": format!("d{:06}", self.submitted), "argv": [self.program, "drill-probe", "work"], "env": environment,
            "max_attempts": 1000, "crashes_max": 1000, "backoff": "100ms",
        });
        serde_json::from_value(run).expect("it is a submission")
    }

    /// In the name of each superseded attempt, once its successor has moved money.
    async fn write_late(&mut self) -> Result<(), DbError> {
        let rows = self.link.call(async |session| session.query(SUPERSEDED, &[]).await).await?;
        for row in rows {
            let (instance_id, run_id, fence): (Uuid, String, i64) =
                (row.get("instance_id"), row.get("run_id"), row.get("fence"));
            if self.settled.contains(&instance_id) {
                continue;
            }
            let seen = self.link.call(async |session| ledger::fence_seen(session, &run_id).await).await?;
            if seen.is_none_or(|seen| seen <= fence) {
                continue;
            }
            match settle(&mut self.link, &Transfer::of(&run_id, fence), self.is_fenced).await {
                Settled::Moved => {}
                Settled::Superseded => self.late_writes_refused += 1,
                Settled::Unknown => continue,
            }
            self.settled.insert(instance_id);
        }
        Ok(())
    }

    /// A process whose attempt has ended by its own word, or by a certificate, is an orphan: both say that all are dead.
    /// One that went stale may be frozen on a host that has not heard of it yet.
    async fn hunt(&mut self) -> Result<(), DbError> {
        let seen = marked(&self.mark);
        let ids: Vec<&str> = seen.iter().map(|process| process.instance_id.as_str()).collect();
        let rows = self.link.call(async |session| session.query(ENDED, &[(&ids, Type::TEXT_ARRAY)]).await).await?;
        let ended: HashMap<String, String> =
            rows.iter().map(|row| (row.get("instance_id"), row.get("status"))).collect();
        let is_suspect = |process: &Marked| ended.contains_key(&process.instance_id);
        if !seen.iter().any(is_suspect) {
            return Ok(());
        }
        // Whoever lived when it was seen may have died before the database was asked.
        let living = marked(&self.mark);
        for process in seen.iter().filter(|process| is_suspect(process) && living.contains(process)) {
            let status = &ended[&process.instance_id];
            self.orphans.entry(process.pid.as_raw_pid()).or_insert_with(|| described(process, status));
        }
        Ok(())
    }

    /// Nobody may be left when the fleet has ended.
    pub(super) async fn hunt_the_last(&mut self, patience: Duration) {
        let begun = tokio::time::Instant::now();
        loop {
            let left = marked(&self.mark);
            if left.is_empty() {
                return;
            }
            if begun.elapsed() > patience {
                for process in left {
                    let pid = process.pid.as_raw_pid();
                    self.orphans.entry(pid).or_insert_with(|| described(&process, "its fleet has ended"));
                }
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    async fn count_heartbeats(&mut self) -> Result<(), DbError> {
        let schema = super::SCHEMA;
        let rows = self.link.call(async |session| session.query(UPDATES, &[(&schema, Type::TEXT)]).await).await?;
        if let Some(row) = rows.first() {
            self.heartbeats.count((row.get("updates"), row.get("hot"), row.get("ended")));
        }
        Ok(())
    }

    /// Share of heartbeats that changed no index.
    pub(super) fn hot_ratio(&self) -> Option<f64> {
        let Heartbeats { all, hot, .. } = self.heartbeats;
        (all > 0).then(|| (hot as f64 / all as f64).min(1.0))
    }
}

fn described(process: &Marked, status: &str) -> String {
    let Marked { pid, run_id, instance_id, executor_id } = process;
    format!("process {pid} of run \"{run_id}\", instance {instance_id} of {executor_id}, lives on: {status}")
}

impl Heartbeats {
    /// Updates less ends: an end is one update of its instance, and no heartbeat.
    fn count(&mut self, now: (i64, i64, i64)) {
        if let Some(before) = self.before
            && now.0 >= before.0
        {
            self.all += now.0 - before.0 - (now.2 - before.2);
            self.hot += now.1 - before.1;
        }
        self.before = Some(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_crash_forgets_is_not_counted() {
        let mut heartbeats = Heartbeats::default();
        for now in [(100, 90, 5), (200, 189, 6), (10, 10, 7), (20, 20, 7)] {
            heartbeats.count(now);
        }
        assert_eq!((heartbeats.all, heartbeats.hot), (99 + 10, 99 + 10));
    }
}
