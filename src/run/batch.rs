//! A batch: the runs of one `systole supervise`, wherever that is started. Each of them is run once for it.

use std::collections::BTreeSet;

use chrono::{DateTime, Utc};
use serde::Serialize;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{Error, Row};
use uuid::Uuid;

use super::Submission;
use crate::db::{Hint, HintKind, Session};
use crate::identity::By;
use crate::ids::RunId;

/// Where its runs wait. A node that serves this queue starts none of them: they require a command that only supervisors have.
pub(crate) const QUEUE: &str = "supervise";

/// How much of its digest, and of its commit, names a batch.
const PART_LENGTH: usize = 8;

const NAME_LENGTH_MAX: usize = 80;

const JOIN: &str = "-- batch.join
    SELECT batch, queued, ended, base FROM systole.join_batch($1, $2, $3, $4, $5, $6)";
// An attempt is the batch's if it began behind the submission.
const LOOK: &str = "-- batch.look
    SELECT r.run_id, r.status, coalesce(l.requirements->>'systole:command' = $2, false) AS is_in,
           i.attempt, i.instance_id, i.executor_id, i.host, i.started_at, i.ended_at, i.exit_code, i.cause,
           i.phases_executed, i.message, f.reason, extract(epoch FROM coalesce(i.ended_at, clock_timestamp()) - i.started_at)::float8 AS seconds
      FROM systole.runs r
      LEFT JOIN systole.lanes l USING (lane_id)
      LEFT JOIN LATERAL (SELECT e.at FROM systole.run_events e
                          WHERE e.run_id = r.run_id AND e.kind = 'submitted' ORDER BY e.id DESC LIMIT 1) s ON true
      LEFT JOIN LATERAL (SELECT * FROM systole.executor_instances i WHERE i.run_id = r.run_id AND i.started_at >= s.at
                          ORDER BY i.attempt DESC LIMIT 1) i ON true
      LEFT JOIN LATERAL (SELECT e.detail->>'start_failed' AS reason FROM systole.run_events e
                          WHERE e.run_id = r.run_id AND e.kind = 'failed' AND e.instance_id = i.instance_id
                          ORDER BY e.id DESC LIMIT 1) f ON i.status = 'FAILED'
     WHERE r.run_id = ANY ($1)";
const TENURES: &str = "-- batch.tenures
    SELECT i.instance_id
      FROM systole.executor_instances i
     CROSS JOIN LATERAL (SELECT e.at FROM systole.run_events e
                          WHERE e.run_id = i.run_id AND e.kind = 'submitted' ORDER BY e.id DESC LIMIT 1) s
     WHERE i.run_id = ANY ($1) AND i.started_at >= s.at";
const CANCEL: &str = "-- batch.cancel
    SELECT cancelled, stopping FROM systole.cancel_batch($1, $2, $3)";

/// What a batch is called.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Key {
    /// By somebody.
    Given(String),
    /// Out of what it is, and the commit that it begins at; with the day in front of it, of which the database knows.
    Made { digest: String, commit: String },
}

/// The commit that all runs of a batch begin at, where they do.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Base<'a> {
    /// How it was named, if it was.
    pub(crate) name: Option<&'a str>,
    pub(crate) commit: &'a str,
    /// The first commit of its repository: the same in all clones of it.
    pub(crate) root: &'a str,
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

    /// The same runs, in whatever order, of the same repository, with the same command and base are the same batch.
    pub(crate) fn made(run_ids: &[RunId], argv: &[String], base: &Base<'_>) -> Key {
        let mut sorted: Vec<&str> = run_ids.iter().map(RunId::as_str).collect();
        sorted.sort_unstable();
        let digest = Sha256::digest(json!([sorted, argv, base.name, base.root]).to_string());
        let digest: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
        let begin = |text: &str| text.chars().take(PART_LENGTH).collect();
        Key::Made { digest: begin(&digest), commit: begin(base.commit) }
    }
}

/// What a supervisor has become a part of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Joined {
    pub(crate) batch: String,
    /// How many runs were queued by it.
    pub(crate) queued: i32,
    /// How many had ended before.
    pub(crate) ended: i32,
    /// The commit at which what is left of it has begun, if there was any.
    pub(crate) base: Option<String>,
}

impl Joined {
    /// What its runs ask for.
    pub(crate) fn command(&self) -> String {
        format!("batch:{}", self.batch)
    }
}

/// How a run of a batch is, with the newest attempt that was made for the batch.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Look {
    pub(crate) run_id: String,
    pub(crate) status: String,
    /// It was submitted for something else since.
    pub(crate) taken_out: bool,
    #[serde(flatten)]
    pub(crate) tenure: Option<Tenure>,
}

/// An attempt.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Tenure {
    pub(crate) attempt: i32,
    pub(crate) instance_id: Uuid,
    pub(crate) executor_id: String,
    pub(crate) host: String,
    pub(crate) started_at: DateTime<Utc>,
    pub(crate) ended_at: Option<DateTime<Utc>>,
    /// Up to its end, or now.
    pub(crate) seconds: f64,
    pub(crate) exit_code: Option<i32>,
    pub(crate) cause: Option<String>,
    pub(crate) phases_executed: i64,
    pub(crate) message: Option<String>,
    /// Why its command could not be started, if it could not.
    pub(crate) reason: Option<String>,
}

impl Look {
    /// Of one that the database does not know (any more): it was pruned.
    pub(crate) fn forgotten(run_id: &str) -> Look {
        Look { run_id: run_id.to_owned(), status: "FORGOTTEN".to_owned(), taken_out: false, tenure: None }
    }

    /// There is nothing of it to wait for.
    pub(crate) fn has_ended(&self) -> bool {
        self.taken_out || !matches!(self.status.as_str(), "QUEUED" | "RUNNING")
    }

    pub(crate) fn is_running(&self) -> bool {
        !self.taken_out && self.status == "RUNNING"
    }

    pub(crate) fn is_completed(&self) -> bool {
        !self.taken_out && self.status == "COMPLETED"
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
    let (name, commit) = match key {
        Key::Given(name) => (name, None),
        Key::Made { digest, commit } => (digest, Some(commit)),
    };
    let specs = serde_json::to_value(submissions).expect("a submission has string keys");
    let rows = session
        .query(
            JOIN,
            &[
                (name, Type::TEXT),
                (&commit, Type::TEXT),
                (&specs, Type::JSONB),
                (&retry, Type::BOOL),
                (detail, Type::JSONB),
                (&by, Type::TEXT),
            ],
        )
        .await?;
    let row = rows.first().expect("a function with OUT parameters returns one row");
    Ok(Joined { batch: row.get("batch"), queued: row.get("queued"), ended: row.get("ended"), base: row.get("base") })
}

/// How these runs of a batch are. Those that nobody knows (any more) are left out.
pub(crate) async fn look(session: &Session, joined: &Joined, run_ids: &[&str]) -> Result<Vec<Look>, Error> {
    let parameters: [(&(dyn ToSql + Sync), Type); 2] = [(&run_ids, Type::TEXT_ARRAY), (&joined.command(), Type::TEXT)];
    let rows = session.query(LOOK, &parameters).await?;
    let tenure = |row: &Row| {
        Some(Tenure {
            attempt: row.get::<_, Option<i32>>("attempt")?,
            instance_id: row.get("instance_id"),
            executor_id: row.get("executor_id"),
            host: row.get("host"),
            started_at: row.get("started_at"),
            ended_at: row.get("ended_at"),
            seconds: row.get("seconds"),
            exit_code: row.get("exit_code"),
            cause: row.get("cause"),
            phases_executed: row.get("phases_executed"),
            message: row.get("message"),
            reason: row.get("reason"),
        })
    };
    let look = |row: &Row| Look {
        run_id: row.get("run_id"),
        status: row.get("status"),
        taken_out: !row.get::<_, bool>("is_in"),
        tenure: tenure(row),
    };
    Ok(rows.iter().map(look).collect())
}

/// Takes out of the queue what is left of a batch, and asks those who work on the rest to stop it: how many these are. `None` if there is
/// no such batch.
pub(crate) async fn cancel(session: &Session, batch: &str, by: &By) -> Result<Option<(i32, usize)>, Error> {
    let rows = session.query(CANCEL, &[(&batch, Type::TEXT), (&by.who, Type::TEXT), (&by.reason, Type::TEXT)]).await?;
    let row = rows.first().expect("a function with OUT parameters returns one row");
    let Some(cancelled) = row.get("cancelled") else { return Ok(None) };
    let stopping: Vec<String> = row.get("stopping");
    for run_id in stopping.iter().filter_map(|run_id| run_id.parse().ok()) {
        // Their executors hear of it with their next heartbeat: let that be now. Late without it, and no more.
        let _ = Hint::of_run(HintKind::Asked, &run_id).send(session).await;
    }
    Ok(Some((cancelled, stopping.len())))
}

/// All attempts that were made at these runs for their batch.
pub(crate) async fn tenures(session: &Session, run_ids: &[&str]) -> Result<BTreeSet<Uuid>, Error> {
    let rows = session.query(TENURES, &[(&run_ids, Type::TEXT_ARRAY)]).await?;
    Ok(rows.iter().map(|row| row.get("instance_id")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(names: &[&str]) -> Vec<RunId> {
        names.iter().map(|name| name.parse().unwrap()).collect()
    }

    #[test]
    fn a_batch_is_what_is_run_and_not_in_which_order() {
        let argv = ["./work".to_owned(), "{run_id}".to_owned()];
        let base = Base { name: None, commit: "0123456789", root: "fedcba9876" };
        let digest = |names: &[&str], argv: &[String], base: &Base<'_>| match Key::made(&ids(names), argv, base) {
            Key::Made { digest, commit } => {
                assert_eq!(commit, base.commit[..8]);
                digest
            }
            Key::Given(_) => unreachable!(),
        };
        let made = digest(&["a", "b"], &argv, &base);
        assert_eq!(made, digest(&["b", "a"], &argv, &base));
        assert_eq!(made, digest(&["a", "b"], &argv, &Base { commit: "9876543210", ..base }));
        assert_ne!(made, digest(&["a", "c"], &argv, &base));
        assert_ne!(made, digest(&["a", "b"], &argv[..1], &base));
        assert_ne!(made, digest(&["a", "b"], &argv, &Base { name: Some("v1"), ..base }));
        assert_ne!(made, digest(&["a", "b"], &argv, &Base { root: "another", ..base }));
    }

    #[test]
    fn a_name_is_a_part_of_a_name() {
        assert_eq!(Key::given("nightly-7"), Ok(Key::Given("nightly-7".to_owned())));
        for wrong in ["", "-x", "a b", "a%", "ä", &"x".repeat(81)] {
            assert!(Key::given(wrong).unwrap_err().contains("batch"), "{wrong}");
        }
    }
}
