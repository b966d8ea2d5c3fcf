//! The reading side: what people and programs ask about runs. And the request for a stop.

use chrono::{DateTime, Utc};
use serde::Serialize;
use serde_json::Value;
use tokio_postgres::Error;
use tokio_postgres::types::{ToSql, Type};
use uuid::Uuid;

use crate::db::{Hint, HintKind, Session};
use crate::identity::By;
use crate::ids::{InstanceId, RunId};
use crate::instance::Holder;

// Of each kind the newest, by its own index: the history may have ten million.
const LIST: &str = "-- run.list
    WITH shown AS (
        (SELECT r.* FROM systole.executor_instances i JOIN systole.runs r USING (run_id)
          WHERE i.status = 'RUNNING' ORDER BY i.started_at DESC LIMIT $1)
        UNION ALL
        (SELECT r.* FROM systole.lanes l CROSS JOIN LATERAL (
             SELECT * FROM systole.runs q WHERE q.lane_id = l.lane_id AND q.status = 'QUEUED' AND q.claim_order IS NOT NULL
              ORDER BY q.claim_order DESC LIMIT $1) r)
        UNION ALL
        (SELECT * FROM systole.runs r WHERE r.status = 'QUEUED' AND r.claim_order IS NULL ORDER BY r.available_at LIMIT $1)
        UNION ALL
        (SELECT * FROM systole.runs r WHERE r.status NOT IN ('QUEUED', 'RUNNING') ORDER BY r.updated_at DESC LIMIT $1))
    SELECT r.run_id, r.status, r.attempt, r.fence, r.purpose, r.updated_at,
           systole.holder(i, clock_timestamp()) AS holder
      FROM shown r
      LEFT JOIN systole.executor_instances i ON i.run_id = r.run_id AND (i.status = 'RUNNING' OR i.bars_successor)
     ORDER BY (r.status = 'RUNNING') DESC, r.updated_at DESC LIMIT $1";
const FIND: &str = "-- run.find
    SELECT r.run_id, r.status, r.attempt, r.fence, r.purpose, r.updated_at,
           systole.holder(i, clock_timestamp()) AS holder
      FROM systole.runs r
      LEFT JOIN systole.executor_instances i ON i.run_id = r.run_id AND (i.status = 'RUNNING' OR i.bars_successor)
     WHERE r.run_id = $1";
const SURROUNDINGS: &str = "-- run.surroundings
    SELECT s.fleet_id, systole.quarantined_until() AS quarantined_until,
           (SELECT l.queue FROM systole.runs r JOIN systole.lanes l USING (lane_id) WHERE r.run_id = $1) AS queue
      FROM systole.settings s";
const TENURE: &str = "-- run.tenure
    SELECT systole.holder(i, clock_timestamp()) AS holder, i.exit_code, i.bars_successor
      FROM systole.executor_instances i WHERE i.instance_id = $1";
const ATTEMPTS: &str = "-- run.attempts
    SELECT i.attempt, i.instance_id, i.executor_id, i.fence, i.status, i.started_at, i.ended_at, i.exit_code, i.cause,
           i.phases_executed, i.message, o.bytes_total AS output_bytes, o.bytes_lost AS output_bytes_lost
      FROM systole.executor_instances i
      LEFT JOIN systole.run_output o USING (instance_id)
     WHERE i.run_id = $1 ORDER BY i.attempt";
const RUNNING: &str = "-- run.running
    SELECT i.run_id, systole.holder(i, clock_timestamp()) AS holder, i.phases_executed
      FROM systole.executor_instances i WHERE i.status = 'RUNNING' ORDER BY i.started_at";
const EVENTS: &str = "-- run.events
    SELECT id, at, run_id, kind, instance_id, executor_id, fence, detail
      FROM systole.run_events WHERE run_id = $1 AND id > $2 ORDER BY id LIMIT 1000";
const FLEET_EVENTS: &str = "-- run.fleet_events
    SELECT id, at, kind, subject, by, reason, detail FROM systole.fleet_events WHERE id > $1 ORDER BY id LIMIT 1000";
const TAKE_AWAY: &str = "-- run.take_away
    SELECT verdict, holder, blocked_by FROM systole.take_away($1, $2, $3, $4)";
const REQUEST_STOP: &str = "-- run.request_stop
    SELECT verdict, holder FROM systole.request_stop($1, $2, $3)";

/// A run in one line.
#[derive(Debug, Serialize)]
pub(crate) struct Summary {
    pub(crate) run_id: String,
    pub(crate) status: String,
    pub(crate) attempt: i32,
    pub(crate) fence: i64,
    pub(crate) holder: Option<HolderView>,
    pub(crate) purpose: Option<String>,
    pub(crate) updated_at: DateTime<Utc>,
}

/// A run with all its attempts.
#[derive(Debug, Serialize)]
pub(crate) struct RunStatus {
    #[serde(flatten)]
    pub(crate) summary: Summary,
    /// What it waits for, in words, while it is queued.
    pub(crate) waits: Option<String>,
    pub(crate) attempts: Vec<Attempt>,
}

/// A holder, with the one judgement that readers would otherwise make each for themselves.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct HolderView {
    #[serde(flatten)]
    pub(crate) holder: Holder,
    /// Silent past its own threshold, by the database's clock. Not yet a proof of death.
    pub(crate) stale: bool,
}

/// One tenure, as history.
#[derive(Debug, Serialize)]
pub(crate) struct Attempt {
    pub(crate) attempt: i32,
    pub(crate) instance_id: Uuid,
    pub(crate) executor_id: String,
    pub(crate) fence: i64,
    pub(crate) status: String,
    pub(crate) started_at: DateTime<Utc>,
    pub(crate) ended_at: Option<DateTime<Utc>>,
    pub(crate) exit_code: Option<i32>,
    pub(crate) cause: Option<String>,
    pub(crate) phases_executed: i64,
    /// What it last said of its progress.
    pub(crate) message: Option<String>,
    /// How much it has written, and how much of that the disk of its host did not take.
    pub(crate) output_bytes: Option<i64>,
    pub(crate) output_bytes_lost: Option<i64>,
}

/// One thing that happened.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Event {
    pub(crate) id: i64,
    pub(crate) at: DateTime<Utc>,
    pub(crate) run_id: String,
    pub(crate) kind: String,
    pub(crate) instance_id: Option<Uuid>,
    pub(crate) executor_id: Option<String>,
    pub(crate) fence: Option<i64>,
    pub(crate) detail: Value,
}

/// What was told to a queue or to nodes, or befell the database: all that is not about one run.
#[derive(Debug, Serialize)]
pub(crate) struct FleetEvent {
    pub(crate) id: i64,
    pub(crate) at: DateTime<Utc>,
    pub(crate) kind: String,
    /// The queue, the node or its host, or the history.
    pub(crate) subject: String,
    pub(crate) by: Option<String>,
    pub(crate) reason: Option<String>,
    pub(crate) detail: Value,
}

/// An instance that runs now.
#[derive(Debug, Serialize)]
pub(crate) struct Running {
    pub(crate) run_id: String,
    #[serde(flatten)]
    pub(crate) holder: HolderView,
    pub(crate) phases_executed: i64,
}

/// What became of the request for a stop.
#[must_use]
#[derive(Debug)]
pub(crate) enum StopVerdict {
    /// Its executor hears of it with its next heartbeat. Asked before counts as well.
    Asked(Box<Holder>),
    NotRunning,
}

/// What became of a revocation by force.
#[must_use]
#[derive(Debug)]
pub(crate) enum RevocationVerdict {
    /// It holds the run no longer. Unless it was unsafe, it bars its successor until it is known to be dead.
    Revoked(Box<Holder>),
    NotRunning,
    /// Somebody's transaction holds a lock on the run.
    Locked {
        blocked_by: Vec<i32>,
    },
}

/// The newest runs, running ones first.
pub(crate) async fn list(session: &Session, most: i64) -> Result<Vec<Summary>, Error> {
    let rows = session.query(LIST, &[(&most, Type::INT8)]).await?;
    Ok(rows.iter().map(summary).collect())
}

/// One run; `None` if it was never heard of.
pub(crate) async fn find(session: &Session, run_id: &RunId) -> Result<Option<Summary>, Error> {
    let rows = session.query(FIND, &[(&run_id.as_str(), Type::TEXT)]).await?;
    Ok(rows.first().map(summary))
}

/// What, beside its holder, decides whether a run can be claimed now.
#[derive(Debug, Clone)]
pub(crate) struct Surroundings {
    /// Names this database in certificates of death.
    pub(crate) fleet_id: Uuid,
    /// Behind a failover nothing is granted anew until then.
    pub(crate) quarantined_until: Option<DateTime<Utc>>,
    /// Where it was submitted to; `None` if it is run by hand.
    pub(crate) queue: Option<String>,
}

/// What is known of one tenure, over or not.
#[derive(Debug)]
pub(crate) struct Tenure {
    pub(crate) view: HolderView,
    pub(crate) exit_code: Option<i32>,
    /// It was taken away by force, and may still be at work.
    pub(crate) bars_successor: bool,
}

pub(crate) async fn surroundings(session: &Session, run_id: &RunId) -> Result<Surroundings, Error> {
    let rows = session.query(SURROUNDINGS, &[(&run_id.as_str(), Type::TEXT)]).await?;
    let row = rows.first().expect("settings is one row");
    Ok(Surroundings {
        fleet_id: row.get("fleet_id"),
        quarantined_until: row.get("quarantined_until"),
        queue: row.get("queue"),
    })
}

/// One tenure; `None` if it is not there (any more).
pub(crate) async fn tenure(session: &Session, instance_id: InstanceId) -> Result<Option<Tenure>, Error> {
    let rows = session.query(TENURE, &[(&instance_id.0, Type::UUID)]).await?;
    let tenure = rows.first().and_then(|row| {
        let view = holder(row.get("holder"))?;
        Some(Tenure { view, exit_code: row.get("exit_code"), bars_successor: row.get("bars_successor") })
    });
    Ok(tenure)
}

/// One run with all its attempts.
pub(crate) async fn status(session: &Session, run_id: &RunId) -> Result<Option<RunStatus>, Error> {
    let Some(summary) = find(session, run_id).await? else { return Ok(None) };
    let rows = session.query(ATTEMPTS, &[(&run_id.as_str(), Type::TEXT)]).await?;
    let attempts = rows.iter().map(|row| Attempt {
        attempt: row.get("attempt"),
        instance_id: row.get("instance_id"),
        executor_id: row.get("executor_id"),
        fence: row.get("fence"),
        status: row.get("status"),
        started_at: row.get("started_at"),
        ended_at: row.get("ended_at"),
        exit_code: row.get("exit_code"),
        cause: row.get("cause"),
        phases_executed: row.get("phases_executed"),
        message: row.get("message"),
        output_bytes: row.get("output_bytes"),
        output_bytes_lost: row.get("output_bytes_lost"),
    });
    Ok(Some(RunStatus { summary, waits: None, attempts: attempts.collect() }))
}

/// All instances that run now, the oldest first.
pub(crate) async fn running(session: &Session) -> Result<Vec<Running>, Error> {
    let rows = session.query(RUNNING, &[]).await?;
    let running = rows.iter().map(|row| Running {
        run_id: row.get("run_id"),
        holder: holder(row.get("holder")).expect("an instance describes itself"),
        phases_executed: row.get("phases_executed"),
    });
    Ok(running.collect())
}

/// Up to a thousand events of a run behind the given one, in order.
pub(crate) async fn events(session: &Session, run_id: &RunId, after: i64) -> Result<Vec<Event>, Error> {
    let rows = session.query(EVENTS, &[(&run_id.as_str(), Type::TEXT), (&after, Type::INT8)]).await?;
    Ok(rows.iter().map(event).collect())
}

/// One row of run_events.
pub(super) fn event(row: &tokio_postgres::Row) -> Event {
    Event {
        id: row.get("id"),
        at: row.get("at"),
        run_id: row.get("run_id"),
        kind: row.get("kind"),
        instance_id: row.get("instance_id"),
        executor_id: row.get("executor_id"),
        fence: row.get("fence"),
        detail: row.get("detail"),
    }
}

/// What has befallen the fleet behind this event, a thousand at most.
pub(crate) async fn fleet_events(session: &Session, after: i64) -> Result<Vec<FleetEvent>, Error> {
    let rows = session.query(FLEET_EVENTS, &[(&after, Type::INT8)]).await?;
    let events = rows.iter().map(|row| FleetEvent {
        id: row.get("id"),
        at: row.get("at"),
        kind: row.get("kind"),
        subject: row.get("subject"),
        by: row.get("by"),
        reason: row.get("reason"),
        detail: row.get("detail"),
    });
    Ok(events.collect())
}

/// Revokes a run from its holder by force. `unsafe_now`: without its successor having to wait for its death.
pub(crate) async fn take_away(
    session: &Session,
    run_id: &RunId,
    by: &By,
    unsafe_now: bool,
) -> Result<RevocationVerdict, Error> {
    let parameters: &[(&(dyn ToSql + Sync), Type)] =
        &[(&run_id.as_str(), Type::TEXT), (&by.who, Type::TEXT), (&unsafe_now, Type::BOOL), (&by.reason, Type::TEXT)];
    let rows = session.query(TAKE_AWAY, parameters).await?;
    let row = rows.first().expect("a function with OUT parameters returns one row");
    let verdict = match row.get("verdict") {
        "ok" => {
            let view = holder(row.get("holder")).expect("take_away.sql names whom it has revoked");
            RevocationVerdict::Revoked(Box::new(view.holder))
        }
        "not_running" => RevocationVerdict::NotRunning,
        "locked" => {
            RevocationVerdict::Locked { blocked_by: row.get::<_, Option<Vec<i32>>>("blocked_by").unwrap_or_default() }
        }
        other => unreachable!("take_away.sql has no verdict {other:?}"),
    };
    ask_to_look(session, run_id).await;
    Ok(verdict)
}

/// The holder hears what has changed with its next heartbeat: let that be now.
async fn ask_to_look(session: &Session, run_id: &RunId) {
    // It is late without it, and no more.
    let _ = Hint::of_run(HintKind::Asked, run_id).send(session).await;
}

/// Asks the holder of a run to stop it.
pub(crate) async fn request_stop(session: &Session, run_id: &RunId, by: &By) -> Result<StopVerdict, Error> {
    let parameters: &[(&(dyn ToSql + Sync), Type)] =
        &[(&run_id.as_str(), Type::TEXT), (&by.who, Type::TEXT), (&by.reason, Type::TEXT)];
    let rows = session.query(REQUEST_STOP, parameters).await?;
    ask_to_look(session, run_id).await;
    let asked = rows.first().and_then(|row| holder(row.get("holder")));
    Ok(asked.map_or(StopVerdict::NotRunning, |view| StopVerdict::Asked(Box::new(view.holder))))
}

fn summary(row: &tokio_postgres::Row) -> Summary {
    Summary {
        run_id: row.get("run_id"),
        status: row.get("status"),
        attempt: row.get("attempt"),
        fence: row.get("fence"),
        holder: holder(row.get("holder")),
        purpose: row.get("purpose"),
        updated_at: row.get("updated_at"),
    }
}

fn holder(described: Option<Value>) -> Option<HolderView> {
    // Of no row at all, holder() describes an instance without an id.
    let described = described.filter(|value| !value["instance_id"].is_null())?;
    let holder: Holder = serde_json::from_value(described).expect("holder.sql builds what Holder reads");
    let stale = holder.heartbeat_age_seconds > holder.stale_after_seconds;
    Some(HolderView { holder, stale })
}
