//! Sessions that ask the protocol's questions, with defaults for what a test does not care about.

use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::task::JoinHandle;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, Error};
use uuid::Uuid;

use crate::support::Database;

/// Nothing here takes long; a loaded machine may.
pub(crate) const LIMIT: Duration = Duration::from_secs(20);

/// stale_after unless a test says otherwise.
pub(crate) const STALE_AFTER_MS: i64 = 30_000;

/// The test's server is made with a runtime of its own, which cannot be had within another.
pub(crate) fn beside_the_runtime<T: Send>(make: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| scope.spawn(make).join().expect("it can be made"))
}

/// A migrated database on a server that has just started. No statement in it outlasts [`LIMIT`].
pub(crate) fn young_database() -> Database {
    let database = beside_the_runtime(Database::new);
    let name = &database.name;
    database.sql(&format!("ALTER DATABASE {name} SET statement_timeout = '{}s'", LIMIT.as_secs()));
    if let Ok(mutant) = std::env::var("PROTOCOL_MUTANT") {
        database.sql(&format!("SET search_path = systole, pg_temp;\n{}", std::fs::read_to_string(mutant).unwrap()));
    }
    database
}

/// The same on a server that has accepted writes for long, so that takeovers by age are possible.
pub(crate) fn database() -> Database {
    let database = young_database();
    database.pretend_old_server();
    database
}

/// The same with a run that somebody holds.
pub(crate) async fn held(run: &str) -> (Database, Arc<Session>, Tenure) {
    let database = database();
    let holder = Session::on(&database).await;
    let tenure = holder.claim(&Ask::of(run)).await.granted();
    (database, holder, tenure)
}

/// Somebody with a connection of their own.
pub(crate) struct Session {
    client: Client,
    /// The server process on the other end.
    pub(crate) backend: i32,
}

impl Deref for Session {
    type Target = Client;

    fn deref(&self) -> &Client {
        &self.client
    }
}

/// A claim: of a run, by a new instance on host a, whose process has watched the database's clock for a day.
#[derive(Debug, Clone)]
pub(crate) struct Ask {
    pub(crate) run: String,
    pub(crate) instance: Uuid,
    pub(crate) host: &'static str,
    pub(crate) stale_after_ms: i64,
    pub(crate) secret: Option<&'static [u8]>,
    /// trusted_since lies so many seconds back.
    pub(crate) trusted_for: Option<f64>,
    /// The database's clock is expected to be ahead of itself by so many seconds.
    pub(crate) expected_ahead: Option<f64>,
    pub(crate) once: bool,
    pub(crate) note_refusal: bool,
}

/// The answer to a claim.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    pub(crate) instance: Uuid,
    pub(crate) verdict: String,
    pub(crate) reason: Option<String>,
    pub(crate) fence: Option<i64>,
    pub(crate) attempt: Option<i32>,
    pub(crate) holder: Option<Value>,
    pub(crate) predecessor: Option<Value>,
    pub(crate) blocked_by: Vec<i32>,
}

/// A granted claim.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Tenure {
    pub(crate) instance: Uuid,
    pub(crate) fence: i64,
    pub(crate) attempt: i32,
}

impl Ask {
    pub(crate) fn of(run: &str) -> Ask {
        Ask {
            run: run.to_owned(),
            instance: Uuid::now_v7(),
            host: "a",
            stale_after_ms: STALE_AFTER_MS,
            secret: None,
            trusted_for: Some(86_400.0),
            expected_ahead: None,
            once: false,
            note_refusal: false,
        }
    }
}

impl Answer {
    /// `verdict`, or `verdict/reason`.
    pub(crate) fn said(&self) -> String {
        match &self.reason {
            None => self.verdict.clone(),
            Some(reason) => format!("{}/{reason}", self.verdict),
        }
    }

    #[track_caller]
    pub(crate) fn granted(&self) -> Tenure {
        assert_eq!(self.said(), "ok", "{self:?}");
        Tenure { instance: self.instance, fence: self.fence.unwrap(), attempt: self.attempt.unwrap() }
    }
}

impl Session {
    pub(crate) async fn on(database: &Database) -> Arc<Session> {
        let client = database.connect().await;
        let backend = client.query_one("SELECT pg_backend_pid()", &[]).await.unwrap().get(0);
        Arc::new(Session { client, backend })
    }

    pub(crate) async fn claim(&self, ask: &Ask) -> Answer {
        self.try_claim(ask).await.unwrap_or_else(|error| panic!("{ask:?}: {error:?}"))
    }

    pub(crate) async fn try_claim(&self, ask: &Ask) -> Result<Answer, Error> {
        const CLAIM: &str = "SELECT * FROM systole.claim(
            p_run_id => $1, p_instance_id => $2, p_executor_id => '4211@' || $3::text, p_host => $3, p_pid => 4211,
            p_boot_id => NULL, p_pid_namespace => NULL, p_process_started => NULL,
            p_containment => 'none', p_stale_after_ms => $4, p_death_secret_hash => sha256($5), p_purpose => 'a test',
            p_trusted_since => clock_timestamp() - $6::float8 * interval '1 second',
            p_expected_now => clock_timestamp() + $7::float8 * interval '1 second', p_tolerance_ms => 5000,
            p_once => $8, p_note_refusal => $9, p_version => '1000.0.0')";
        let row = self
            .query_one(
                CLAIM,
                &[
                    &ask.run,
                    &ask.instance,
                    &ask.host,
                    &ask.stale_after_ms,
                    &ask.secret,
                    &ask.trusted_for,
                    &ask.expected_ahead,
                    &ask.once,
                    &ask.note_refusal,
                ],
            )
            .await?;
        Ok(Answer {
            instance: ask.instance,
            verdict: row.get("verdict"),
            reason: row.get("reason"),
            fence: row.get("fence"),
            attempt: row.get("attempt"),
            holder: row.get("holder"),
            predecessor: row.get("predecessor"),
            blocked_by: row.get::<_, Option<_>>("blocked_by").unwrap_or_default(),
        })
    }

    /// The verdicts, in the order of the question.
    pub(crate) async fn beat(&self, instances: &[Uuid]) -> Vec<String> {
        let phases = vec![1i64; instances.len()];
        let row = self
            .query_one("SELECT instances, verdicts FROM systole.beat($1, $2, NULL)", &[&instances, &phases])
            .await
            .unwrap();
        let answered = row.get::<_, Option<Vec<Uuid>>>(0).unwrap_or_default();
        let verdicts = row.get::<_, Option<Vec<String>>>(1).unwrap_or_default();
        assert_eq!(answered.len(), instances.len(), "not one verdict per instance");
        let of = |id| answered.iter().position(|answered| answered == id).map(|n| verdicts[n].clone());
        instances.iter().map(|id| of(id).expect("a verdict for each instance")).collect()
    }

    pub(crate) async fn finish(&self, tenure: Tenure, status: &str, exit_code: Option<i32>) -> String {
        let cause = (status == "CRASHED").then_some("guard_lost");
        let finish = "SELECT systole.finish($1, $2, $3, $4, $5, 7, $6)";
        let Tenure { instance, fence, .. } = tenure;
        self.ask(finish, &[&instance, &fence, &status, &exit_code, &cause, &json!({})]).await
    }

    pub(crate) async fn file(
        &self,
        instance: Uuid,
        secret: Option<&[u8]>,
        status: &str,
        exit_code: Option<i32>,
    ) -> String {
        let cause = (status == "CRASHED").then_some("proof");
        let file = "SELECT systole.file_certificate($1, $2, $3, $4, $5, $6, 'a test')";
        self.ask(file, &[&instance, &secret, &status, &exit_code, &cause, &json!({})]).await
    }

    /// The verdict. Asked again where a lock was in the way for a second, as every client must.
    async fn ask(&self, sql: &str, parameters: &[&(dyn ToSql + Sync)]) -> String {
        let mut answer = self.query_one(sql, parameters).await;
        for _ in 0..5 {
            match &answer {
                Err(error) if error.code() == Some(&SqlState::LOCK_NOT_AVAILABLE) => {}
                _ => break,
            }
            answer = self.query_one(sql, parameters).await;
        }
        answer.unwrap_or_else(|error| panic!("{sql}: {error:?}")).get(0)
    }

    pub(crate) async fn request_stop(&self, run: &str) -> String {
        self.query_one("SELECT verdict FROM systole.request_stop($1, 'a test')", &[&run]).await.unwrap().get(0)
    }

    pub(crate) async fn fence(&self, run: &str, fence: i64) -> Result<(), Error> {
        self.query_one("SELECT systole.fence($1, $2)", &[&run, &fence]).await.map(drop)
    }

    /// The only value of the only row, as text.
    pub(crate) async fn text(&self, sql: &str) -> String {
        let sql = format!("SELECT coalesce(({sql})::text, '')");
        self.query_one(&sql, &[]).await.unwrap_or_else(|error| panic!("{sql}: {error:?}")).get(0)
    }

    pub(crate) async fn setting(&self, name: &str) -> String {
        self.text(&format!("current_setting('{name}')")).await
    }

    /// Everything that is known of an instance, to see whether anything of it has changed.
    pub(crate) async fn everything_about(&self, instance: Uuid) -> String {
        self.text(&format!(
            "SELECT jsonb_build_array(to_jsonb(i), to_jsonb(r), (SELECT count(*) FROM systole.run_events WHERE run_id = r.run_id))
               FROM systole.executor_instances i JOIN systole.runs r USING (run_id) WHERE instance_id = '{instance}'"
        ))
        .await
    }
}

/// Lets all of them run at once, and waits for all.
pub(crate) async fn all<T: Send + 'static>(
    tasks: impl IntoIterator<Item = impl Future<Output = T> + Send + 'static>,
) -> Vec<T> {
    let started: Vec<_> = tasks.into_iter().map(tokio::spawn).collect();
    let mut outcomes = Vec::new();
    for task in started {
        outcomes.push(within("a racer's end", task).await.unwrap());
    }
    outcomes
}

/// The outcome, or a failed test.
pub(crate) async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(2 * LIMIT, future).await.unwrap_or_else(|_| panic!("not within {:?}: {what}", 2 * LIMIT))
}

/// Waits until `task`, a call by the backend `waiter`, waits for a lock that the backend `holder` holds.
///
/// Or until the call has ended: it waits for a second at most, and a stalled machine may sleep through that.
pub(crate) async fn until_blocked<T>(observer: &Session, task: &JoinHandle<T>, waiter: i32, holder: i32) {
    let seen = "SELECT ($2 = ANY (pg_blocking_pids($1)) AND wait_event_type = 'Lock') IS TRUE
                  FROM pg_stat_activity WHERE pid = $1";
    within("one waits for the other", async {
        while !task.is_finished() && !observer.query_one(seen, &[&waiter, &holder]).await.unwrap().get::<_, bool>(0) {
            tokio::time::sleep(Duration::from_millis(1)).await; // between two looks
        }
    })
    .await;
}
