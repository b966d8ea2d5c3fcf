//! A batch: the runs of one `systole supervise`, wherever that is started. Each of them is run once for it.

use chrono::{DateTime, Utc};
use serde::Serialize;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tokio_postgres::Error;
use tokio_postgres::types::Type;

use super::Submission;
use crate::db::Session;
use crate::ids::RunId;

/// Where its runs wait. A node that serves this queue starts none of them: they require a command that only supervisors have.
pub(crate) const QUEUE: &str = "supervise";

/// How much of its digest names a batch.
const DIGEST_LENGTH: usize = 12;

const NAME_LENGTH_MAX: usize = 80;

const JOIN: &str = "-- batch.join
    SELECT batch, queued FROM systole.join_batch($1, $2, $3, $4, $5, $6)";
const LOOK: &str = "-- batch.look
    SELECT r.run_id, r.status, r.attempt, i.executor_id, i.host, i.started_at, i.ended_at, i.exit_code, i.cause,
           i.phases_executed, i.message, extract(epoch FROM coalesce(i.ended_at, clock_timestamp()) - i.started_at)::float8 AS seconds
      FROM systole.runs r
      LEFT JOIN LATERAL (SELECT * FROM systole.executor_instances i
                          WHERE i.run_id = r.run_id AND i.attempt = r.attempt OFFSET 0) i ON r.status <> 'QUEUED'
     WHERE r.run_id = ANY ($1)";

/// What a batch is called.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Key {
    /// By somebody.
    Given(String),
    /// Out of what it is; with the day in front of it, of which the database knows.
    Made(String),
}

impl Key {
    /// A name that somebody has thought of; a sentence if it cannot be one.
    pub(crate) fn given(name: &str) -> Result<Key, String> {
        let is_name = name.len() <= NAME_LENGTH_MAX
            && name.starts_with(|c: char| c.is_ascii_alphanumeric())
            && name.chars().all(|c| c.is_ascii_alphanumeric() || "._:@-".contains(c));
        match is_name {
            true => Ok(Key::Given(name.to_owned())),
            false => Err(format!(
                "{name:?} cannot be the name of a batch: letters, digits and ._:@-, up to {NAME_LENGTH_MAX}, and none of \
                 ._:@- in front"
            )),
        }
    }

    /// The same runs, in whatever order, with the same command and base are the same batch.
    pub(crate) fn made(run_ids: &[RunId], argv: &[String], base: Option<&str>) -> Key {
        let mut sorted: Vec<&str> = run_ids.iter().map(RunId::as_str).collect();
        sorted.sort_unstable();
        let digest = Sha256::digest(json!([sorted, argv, base]).to_string());
        let digest: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
        Key::Made(digest[..DIGEST_LENGTH].to_owned())
    }
}

/// What a supervisor has become a part of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Joined {
    pub(crate) batch: String,
    /// How many runs were queued by it.
    pub(crate) queued: i32,
}

impl Joined {
    /// What its runs ask for.
    pub(crate) fn command(&self) -> String {
        format!("batch:{}", self.batch)
    }
}

/// How a run of a batch is. Of one that is queued, nothing is said of the attempts before.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Look {
    pub(crate) run_id: String,
    pub(crate) status: String,
    pub(crate) attempt: i32,
    pub(crate) executor_id: Option<String>,
    pub(crate) host: Option<String>,
    pub(crate) started_at: Option<DateTime<Utc>>,
    pub(crate) ended_at: Option<DateTime<Utc>>,
    /// Of its newest attempt, up to now.
    pub(crate) seconds: Option<f64>,
    pub(crate) exit_code: Option<i32>,
    pub(crate) cause: Option<String>,
    pub(crate) phases_executed: Option<i64>,
    pub(crate) message: Option<String>,
}

impl Look {
    /// Of one that the database does not know (any more): it was pruned.
    pub(crate) fn forgotten(run_id: &str) -> Look {
        Look {
            run_id: run_id.to_owned(),
            status: "FORGOTTEN".to_owned(),
            attempt: 0,
            executor_id: None,
            host: None,
            started_at: None,
            ended_at: None,
            seconds: None,
            exit_code: None,
            cause: None,
            phases_executed: None,
            message: None,
        }
    }

    pub(crate) fn has_ended(&self) -> bool {
        !matches!(self.status.as_str(), "QUEUED" | "RUNNING")
    }

    pub(crate) fn is_running(&self) -> bool {
        self.status == "RUNNING"
    }

    pub(crate) fn is_completed(&self) -> bool {
        self.status == "COMPLETED"
    }
}

/// Queues what is not in the batch yet: all of it, or nothing. `detail` goes into the history of each run that is not over.
pub(crate) async fn join(
    session: &Session,
    key: &Key,
    submissions: &[Submission],
    retry: bool,
    detail: &Value,
    by: &str,
) -> Result<Joined, Error> {
    let (name, is_made) = match key {
        Key::Given(name) => (name, false),
        Key::Made(digest) => (digest, true),
    };
    let specs = serde_json::to_value(submissions).expect("a submission has string keys");
    let rows = session
        .query(
            JOIN,
            &[
                (name, Type::TEXT),
                (&is_made, Type::BOOL),
                (&specs, Type::JSONB),
                (&retry, Type::BOOL),
                (detail, Type::JSONB),
                (&by, Type::TEXT),
            ],
        )
        .await?;
    let row = rows.first().expect("a function with OUT parameters returns one row");
    Ok(Joined { batch: row.get("batch"), queued: row.get("queued") })
}

/// How these runs are. Those that nobody knows (any more) are left out.
pub(crate) async fn look(session: &Session, run_ids: &[&str]) -> Result<Vec<Look>, Error> {
    let rows = session.query(LOOK, &[(&run_ids, Type::TEXT_ARRAY)]).await?;
    let look = |row: &tokio_postgres::Row| Look {
        run_id: row.get("run_id"),
        status: row.get("status"),
        attempt: row.get("attempt"),
        executor_id: row.get("executor_id"),
        host: row.get("host"),
        started_at: row.get("started_at"),
        ended_at: row.get("ended_at"),
        seconds: row.get("seconds"),
        exit_code: row.get("exit_code"),
        cause: row.get("cause"),
        phases_executed: row.get("phases_executed"),
        message: row.get("message"),
    };
    Ok(rows.iter().map(look).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(names: &[&str]) -> Vec<RunId> {
        names.iter().map(|name| name.parse().unwrap()).collect()
    }

    #[test]
    fn a_batch_is_what_is_run_and_not_in_which_order() {
        let (a, argv) = (ids(&["a", "b"]), ["./work".to_owned(), "{run_id}".to_owned()]);
        let made = Key::made(&a, &argv, None);
        assert_eq!(made, Key::made(&ids(&["b", "a"]), &argv, None));
        assert_ne!(made, Key::made(&ids(&["a", "c"]), &argv, None));
        assert_ne!(made, Key::made(&a, &argv[..1], None));
        assert_ne!(made, Key::made(&a, &argv, Some("v1")));
    }

    #[test]
    fn a_name_is_a_part_of_a_name() {
        assert_eq!(Key::given("nightly-7"), Ok(Key::Given("nightly-7".to_owned())));
        for wrong in ["", "-x", "a b", "a%", "ä", &"x".repeat(81)] {
            assert!(Key::given(wrong).unwrap_err().contains("batch"), "{wrong}");
        }
    }
}
