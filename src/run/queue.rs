//! The queue as people see it: what they put in, take out, pause and limit.

use serde::Serialize;
use serde_json::Value;
use tokio_postgres::Error;
use tokio_postgres::types::{ToSql, Type};

use super::Submission;
use crate::db::{Hint, HintKind, Session};
use crate::identity::By;
use crate::ids::RunId;

const SUBMIT: &str = "-- queue.submit
    SELECT queued, left_alone FROM systole.submit_all($1, $2, $3, $4)";
const CANCEL: &str = "-- queue.cancel
    SELECT verdict FROM systole.cancel($1, $2, $3)";
const RETRY: &str = "-- queue.retry
    SELECT verdict FROM systole.retry($1, $2, $3)";
const RESTART: &str = "-- queue.restart
    SELECT verdict FROM systole.restart($1, $2, $3)";
const WHY_WAITING: &str = "-- queue.why_waiting
    SELECT systole.why_waiting($1) AS why";
const PAUSE: &str = "-- queue.pause
    SELECT changed FROM systole.pause($1, $2, $3)";
const RESUME: &str = "-- queue.resume
    SELECT changed FROM systole.resume($1, $2, $3)";
const LIMIT: &str = "-- queue.limit
    SELECT systole.limit_queue($1, $2, $3, $4)";
const QUEUES: &str = "-- queue.list
    SELECT l.queue, q.paused_at IS NOT NULL AS paused, q.running_max,
           (SELECT count(*) FROM systole.runs r JOIN systole.lanes n USING (lane_id)
             WHERE n.queue = l.queue AND r.status = 'QUEUED' AND r.claim_order IS NOT NULL) +
           (SELECT count(*) FROM systole.runs r JOIN systole.lanes n USING (lane_id)
             WHERE n.queue = l.queue AND r.status = 'QUEUED' AND r.claim_order IS NULL) AS queued,
           (SELECT count(*) FROM systole.executor_instances i JOIN systole.runs r USING (run_id)
              JOIN systole.lanes n USING (lane_id) WHERE n.queue = l.queue AND i.status = 'RUNNING') AS running
      FROM (SELECT queue FROM systole.lanes UNION SELECT queue FROM systole.queues) l
      LEFT JOIN systole.queues q USING (queue) ORDER BY l.queue";

/// What became of a submission.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Submitted {
    pub(crate) queued: i32,
    /// They were there already.
    pub(crate) left_alone: i32,
}

/// What became of a cancellation.
#[must_use]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CancelVerdict {
    Cancelled,
    /// Its holder has to be asked to stop.
    Running,
    Ended,
    Unknown,
}

/// What became of a retry.
#[must_use]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RetryVerdict {
    Queued,
    AlreadyQueued,
    Running,
    /// It did not come from the queue: nobody knows its command.
    ByHand,
    Unknown,
}

/// A queue in one line.
#[derive(Debug, Serialize)]
pub(crate) struct Queue {
    pub(crate) queue: String,
    pub(crate) paused: bool,
    pub(crate) running_max: Option<i32>,
    pub(crate) queued: i64,
    pub(crate) running: i64,
}

/// Queues all of them or none.
pub(crate) async fn submit(
    session: &Session,
    submissions: &[Submission],
    if_absent: bool,
    again: bool,
    by: &str,
) -> Result<Submitted, Error> {
    let specs = Value::Array(
        submissions.iter().map(|one| serde_json::to_value(one).expect("a submission has string keys")).collect(),
    );
    let row = one(
        session,
        SUBMIT,
        &[(&specs, Type::JSONB), (&if_absent, Type::BOOL), (&again, Type::BOOL), (&by, Type::TEXT)],
    )
    .await?;
    Ok(Submitted { queued: row.get("queued"), left_alone: row.get("left_alone") })
}

/// Takes a run out of the queue.
pub(crate) async fn cancel(session: &Session, run_id: &RunId, by: &By) -> Result<CancelVerdict, Error> {
    let row = one(session, CANCEL, &[(&run_id.as_str(), Type::TEXT), (&by.who, Type::TEXT), (&by.reason, Type::TEXT)])
        .await?;
    Ok(match row.get("verdict") {
        "ok" => CancelVerdict::Cancelled,
        "running" => CancelVerdict::Running,
        "ended" => CancelVerdict::Ended,
        "unknown" => CancelVerdict::Unknown,
        other => unreachable!("steer.sql has no verdict {other:?} of cancel"),
    })
}

/// What a queued run waits for, in words; `None` if it is not queued.
pub(crate) async fn why_waiting(session: &Session, run_id: &RunId) -> Result<Option<String>, Error> {
    Ok(one(session, WHY_WAITING, &[(&run_id.as_str(), Type::TEXT)]).await?.get("why"))
}

/// Has a run stopped and queued again; one that has ended is queued at once.
pub(crate) async fn restart(session: &Session, run_id: &RunId, by: &By) -> Result<RetryVerdict, Error> {
    let verdict = again(session, RESTART, run_id, by).await;
    // Its holder hears of it with its next heartbeat: let that be now. Late without it, and no more.
    let _ = Hint::of_run(HintKind::Asked, run_id).send(session).await;
    verdict
}

/// Queues a run anew that has ended.
pub(crate) async fn retry(session: &Session, run_id: &RunId, by: &By) -> Result<RetryVerdict, Error> {
    again(session, RETRY, run_id, by).await
}

async fn again(session: &Session, statement: &str, run_id: &RunId, by: &By) -> Result<RetryVerdict, Error> {
    let row =
        one(session, statement, &[(&run_id.as_str(), Type::TEXT), (&by.who, Type::TEXT), (&by.reason, Type::TEXT)])
            .await?;
    Ok(match row.get("verdict") {
        "ok" => RetryVerdict::Queued,
        "queued" => RetryVerdict::AlreadyQueued,
        "running" => RetryVerdict::Running,
        "by_hand" => RetryVerdict::ByHand,
        "unknown" => RetryVerdict::Unknown,
        other => unreachable!("steer.sql has no verdict {other:?} of retry"),
    })
}

/// Lets nothing more of a queue be started. False if that was so before.
pub(crate) async fn pause(session: &Session, queue: &str, by: &By) -> Result<bool, Error> {
    Ok(one(session, PAUSE, &[(&queue, Type::TEXT), (&by.who, Type::TEXT), (&by.reason, Type::TEXT)])
        .await?
        .get("changed"))
}

/// Lets a queue go on. False if it was not paused.
pub(crate) async fn resume(session: &Session, queue: &str, by: &By) -> Result<bool, Error> {
    Ok(one(session, RESUME, &[(&queue, Type::TEXT), (&by.who, Type::TEXT), (&by.reason, Type::TEXT)])
        .await?
        .get("changed"))
}

/// Bounds how many runs of a queue may run at once in the whole fleet; `None` is no bound.
pub(crate) async fn limit(session: &Session, queue: &str, most: Option<i32>, by: &By) -> Result<(), Error> {
    one(session, LIMIT, &[(&queue, Type::TEXT), (&most, Type::INT4), (&by.who, Type::TEXT), (&by.reason, Type::TEXT)])
        .await?;
    Ok(())
}

/// All queues that ever had a run, or that somebody has paused or limited.
pub(crate) async fn list(session: &Session) -> Result<Vec<Queue>, Error> {
    let rows = session.query(QUEUES, &[]).await?;
    let queue = |row: &tokio_postgres::Row| Queue {
        queue: row.get("queue"),
        paused: row.get("paused"),
        running_max: row.get("running_max"),
        queued: row.get("queued"),
        running: row.get("running"),
    };
    Ok(rows.iter().map(queue).collect())
}

async fn one(
    session: &Session,
    statement: &str,
    parameters: &[(&(dyn ToSql + Sync), Type)],
) -> Result<tokio_postgres::Row, Error> {
    let mut rows = session.query(statement, parameters).await?;
    Ok(rows.pop().expect("a function returns one row"))
}
