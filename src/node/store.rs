//! What a node asks of the database: who it is, what is queued for it, who has fallen silent.

use std::collections::BTreeMap;
use std::time::Duration;

use chrono::{DateTime, Utc};
use serde::Serialize;
use serde_json::Value;
use tokio_postgres::types::Type;
use tokio_postgres::{Error, Row};
use uuid::Uuid;

use super::catalogue::Asked;
use crate::db::Session;
use crate::guard::certificate::DeathSecret;
use crate::identity::{By, Identity};
use crate::ids::{Fence, InstanceId, NodeName};
use crate::instance::{Holder, Testimony};
use crate::tenure::{Executor, History, Tenure};

const BEAT: &str = "-- node.beat
    SELECT drain_requested_by, systole.history() AS history, systole.quarantined_until() AS quarantined_until FROM systole.node_beat($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14)";
const CLAIM_QUEUED: &str = "-- node.claim_queued
    SELECT * FROM systole.claim_queued($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15)";
const REAP: &str = "-- node.reap
    SELECT run_id, executor_id, reason FROM systole.reap($1, $2, $3, $4, $5)";
const PRUNE: &str = "-- node.prune
    SELECT systole.prune(make_interval(secs => $1), $2) AS pruned";
const KEEP: &str = "-- node.keep
    SELECT extract(epoch FROM keep)::float8 AS seconds FROM systole.settings";
const DRAIN: &str = "-- node.drain
    SELECT asked FROM systole.drain($1, $2, $3)";
const FORGET: &str = "-- node.forget
    SELECT verdict, acknowledged, removed, alive, was_given_up FROM systole.forget($1, $2, $3)";
const NODES: &str = "-- node.list
    SELECT executor_id, coalesce(name, host) AS name, host, version, queues, labels, slots, running,
           CASE WHEN last_heartbeat < clock_timestamp() - stale_after THEN 'gone' ELSE state END AS state,
           started_at, last_heartbeat FROM systole.nodes
     WHERE last_heartbeat > clock_timestamp() - interval '1 day' ORDER BY host, started_at";

/// What is hinted at when runs went back to queues unknown.
pub(crate) const ANY_QUEUE: &str = "*";

/// How many silent holders one statement judges.
const REAP_MAX: i32 = 50;

/// Where a node is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NodeState {
    /// Looks after what an earlier life left on its host, and takes nothing yet.
    Starting,
    Ready,
    Draining,
    Gone,
}

impl NodeState {
    /// The word in the database and in metrics.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            NodeState::Starting => "starting",
            NodeState::Ready => "ready",
            NodeState::Draining => "draining",
            NodeState::Gone => "gone",
        }
    }
}

/// A node as it registers.
#[derive(Debug, Clone)]
pub(crate) struct Registration {
    pub(crate) node_id: Uuid,
    pub(crate) identity: Identity,
    pub(crate) name: NodeName,
    /// Where its metrics are, as HOST:PORT.
    pub(crate) http_address: Option<String>,
    pub(crate) queues: Vec<String>,
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) commands: Vec<String>,
    pub(crate) starts_anything: bool,
    pub(crate) slots: i32,
    pub(crate) stale_after: Duration,
}

/// A free slot: the instance that it will be, with what stands in its certificate of death, if there will be one.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Slot {
    pub(crate) instance_id: InstanceId,
    pub(crate) secret: Option<DeathSecret>,
}

/// A queued run that is ours.
#[derive(Debug)]
pub(crate) struct Assignment {
    pub(crate) tenure: Tenure,
    pub(crate) predecessor: Option<Holder>,
    /// The run goes on behind a crash, and nobody has queued it anew since.
    pub(crate) is_takeover: bool,
    pub(crate) queue: String,
    /// Since it was due.
    pub(crate) waited: Option<Duration>,
    pub(crate) timeout: Option<Duration>,
    pub(crate) stall_timeout: Option<Duration>,
    pub(crate) command: Option<String>,
    pub(crate) argv: Option<Vec<String>>,
    pub(crate) env: BTreeMap<String, String>,
    pub(crate) meta: Option<Value>,
}

impl Assignment {
    /// What is to be started; `None` if its description is gone.
    pub(crate) fn asked(&self) -> Option<Asked<'_>> {
        match (&self.argv, &self.command) {
            (Some(argv), _) => Some(Asked::Argv(argv)),
            (None, Some(name)) => Some(Asked::Command(name)),
            (None, None) => None,
        }
    }
}

/// A holder that looked silent, and why it was not declared dead; an empty reason is that it was.
#[derive(Debug)]
pub(crate) struct Reaped {
    pub(crate) run_id: String,
    pub(crate) executor_id: String,
    pub(crate) reason: String,
}

/// A node as people see it.
#[derive(Debug, Serialize)]
pub(crate) struct NodeView {
    pub(crate) executor_id: String,
    pub(crate) name: String,
    pub(crate) host: String,
    pub(crate) version: String,
    pub(crate) queues: Vec<String>,
    pub(crate) labels: Value,
    pub(crate) slots: i32,
    pub(crate) running: i32,
    pub(crate) state: String,
    pub(crate) started_at: DateTime<Utc>,
    pub(crate) last_heartbeat: DateTime<Utc>,
}

/// What became of a request to forget.
#[must_use]
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Forgotten {
    Done {
        /// How many crashes were acknowledged.
        crashes: i32,
        /// Which dead nodes were removed.
        nodes: Vec<String>,
        /// It is a run that was given up as poison.
        was_given_up: bool,
    },
    /// There is nothing to forget but nodes that are here.
    Alive {
        nodes: Vec<String>,
    },
    Unknown,
}

/// What a node hears when it says that it is here.
#[derive(Debug)]
pub(crate) struct Heard {
    pub(crate) drain_requested_by: Option<String>,
    /// Which line of commits the database continues.
    pub(crate) history: Option<History>,
    /// Until then nothing is granted anew.
    pub(crate) quarantined_until: Option<DateTime<Utc>>,
}

/// Says that this node is here.
pub(crate) async fn beat(
    session: &Session,
    node: &Registration,
    running: i32,
    state: NodeState,
) -> Result<Heard, Error> {
    let labels = serde_json::to_value(&node.labels).expect("labels have string keys");
    let rows = session
        .query(
            BEAT,
            &[
                (&node.node_id, Type::UUID),
                (&node.identity.executor_id, Type::TEXT),
                (&node.identity.host, Type::TEXT),
                (&env!("CARGO_PKG_VERSION"), Type::TEXT),
                (&node.queues, Type::TEXT_ARRAY),
                (&labels, Type::JSONB),
                (&node.commands, Type::TEXT_ARRAY),
                (&node.starts_anything, Type::BOOL),
                (&node.slots, Type::INT4),
                (&running, Type::INT4),
                (&state.as_str(), Type::TEXT),
                (&(node.stale_after.as_millis() as i64), Type::INT8),
                (&node.name.as_str(), Type::TEXT),
                (&node.http_address, Type::TEXT),
            ],
        )
        .await?;
    let row = rows.first().expect("a function with OUT parameters returns one row");
    Ok(Heard {
        drain_requested_by: row.get("drain_requested_by"),
        history: row.get::<_, Option<&str>>("history").and_then(|text| text.parse().ok()),
        quarantined_until: row.get("quarantined_until"),
    })
}

/// As many queued runs as there are slots. Idempotent by the instance ids; unless it `takes_more`, it only tells what was granted
/// to them before.
pub(crate) async fn claim_queued(
    session: &Session,
    node: &Registration,
    containment: &str,
    slots: &[Slot],
    takes_more: bool,
) -> Result<Vec<Assignment>, Error> {
    let queues: &[String] = if takes_more { &node.queues } else { &[] };
    let labels = serde_json::to_value(&node.labels).expect("labels have string keys");
    let ids: Vec<Uuid> = slots.iter().map(|slot| slot.instance_id.0).collect();
    let hashes: Vec<Option<[u8; 32]>> = slots.iter().map(|slot| slot.secret.as_ref().map(DeathSecret::hash)).collect();
    let hashes: Vec<Option<&[u8]>> = hashes.iter().map(|hash| hash.as_ref().map(<[u8; 32]>::as_slice)).collect();
    let identity = &node.identity;
    let rows = session
        .query(
            CLAIM_QUEUED,
            &[
                (&queues, Type::TEXT_ARRAY),
                (&labels, Type::JSONB),
                (&node.commands, Type::TEXT_ARRAY),
                (&node.starts_anything, Type::BOOL),
                (&ids, Type::UUID_ARRAY),
                (&hashes, Type::BYTEA_ARRAY),
                (&identity.executor_id, Type::TEXT),
                (&identity.host, Type::TEXT),
                (&identity.pid, Type::INT4),
                (&identity.boot_id, Type::TEXT),
                (&identity.pid_namespace, Type::TEXT),
                (&identity.process_started, Type::INT8),
                (&containment, Type::TEXT),
                (&(node.stale_after.as_millis() as i64), Type::INT8),
                (&env!("CARGO_PKG_VERSION"), Type::TEXT),
            ],
        )
        .await?;
    let tenure = |row: &Row| {
        let instance_id = InstanceId(row.get("instance_id"));
        let secret = slots.iter().find(|slot| slot.instance_id == instance_id).and_then(|slot| slot.secret);
        Tenure {
            run_id: row.get::<_, &str>("run_id").parse().expect("the database checks run ids by the same rule"),
            instance_id,
            fence: Fence(row.get("fence")),
            attempt: row.get("attempt"),
            executor: Executor {
                identity: identity.clone(),
                stale_after: node.stale_after,
                containment: containment.to_owned(),
                death_secret_hash: secret.as_ref().map(DeathSecret::hash),
            },
            purpose: row.get("purpose"),
            history: session.history(),
        }
    };
    Ok(rows.iter().map(|row| assignment(tenure(row), row)).collect())
}

fn assignment(tenure: Tenure, row: &Row) -> Assignment {
    let span = |column: &str| row.get::<_, Option<f64>>(column).map(Duration::from_secs_f64);
    let env: Option<Value> = row.get("env");
    let predecessor: Option<Value> = row.get("predecessor");
    Assignment {
        tenure,
        is_takeover: predecessor.as_ref().is_some_and(|value| value["afresh"] != true),
        predecessor: predecessor
            .map(|value| serde_json::from_value(value).expect("holder.sql builds what Holder reads")),
        queue: row.get("queue"),
        waited: row.get::<_, Option<f64>>("waited_seconds").map(|seconds| Duration::from_secs_f64(seconds.max(0.0))),
        timeout: span("timeout_seconds"),
        stall_timeout: span("stall_timeout_seconds"),
        command: row.get("command"),
        argv: row.get("argv"),
        env: env
            .map(|value| serde_json::from_value(value).expect("submit_check.sql lets only texts in"))
            .unwrap_or_default(),
        meta: row.get("meta"),
    }
}

/// Declares holders dead that are, by their age; returns all that looked so.
pub(crate) async fn reap(session: &Session, by: &str, testimony: Option<Testimony>) -> Result<Vec<Reaped>, Error> {
    let rows = session
        .query(
            REAP,
            &[
                (&by, Type::TEXT),
                (&testimony.map(|said| said.trusted_since), Type::TIMESTAMPTZ),
                (&testimony.map(|said| said.expected_now), Type::TIMESTAMPTZ),
                (&testimony.map_or(0, |said| said.tolerance.as_millis() as i64), Type::INT8),
                (&REAP_MAX, Type::INT4),
            ],
        )
        .await?;
    let reaped = |row: &Row| Reaped {
        run_id: row.get("run_id"),
        executor_id: row.get("executor_id"),
        reason: row.get("reason"),
    };
    Ok(rows.iter().map(reaped).collect())
}

/// Forgets what ended longer ago than that, or than the fleet keeps it; returns how many runs that were.
pub(crate) async fn prune(session: &Session, older_than: Option<Duration>, most: i32) -> Result<i32, Error> {
    let seconds = older_than.map(|span| span.as_secs_f64());
    let rows = session.query(PRUNE, &[(&seconds, Type::FLOAT8), (&most, Type::INT4)]).await?;
    Ok(rows.first().map_or(0, |row| row.get("pruned")))
}

/// How long the fleet keeps what has ended.
pub(crate) async fn keep(session: &Session) -> Result<Duration, Error> {
    let rows = session.query(KEEP, &[]).await?;
    let seconds: f64 = rows.first().map_or(f64::MAX, |row| row.get("seconds"));
    Ok(Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX))
}

/// Asks nodes to drain, by executor id or host; returns which heard it.
pub(crate) async fn drain(session: &Session, node: &str, by: &By) -> Result<Vec<String>, Error> {
    let parameters = [(&node as _, Type::TEXT), (&by.who as _, Type::TEXT), (&by.reason as _, Type::TEXT)];
    let rows = session.query(DRAIN, &parameters).await?;
    Ok(rows.first().map(|row| row.get("asked")).unwrap_or_default())
}

/// Acknowledges the crashes of a node or host, and removes its dead nodes; or that a run was given up.
pub(crate) async fn forget(session: &Session, subject: &str, by: &By) -> Result<Forgotten, Error> {
    let parameters = [(&subject as _, Type::TEXT), (&by.who as _, Type::TEXT), (&by.reason as _, Type::TEXT)];
    let rows = session.query(FORGET, &parameters).await?;
    let row = rows.first().expect("a function with OUT parameters returns one row");
    Ok(match row.get("verdict") {
        "ok" => Forgotten::Done {
            crashes: row.get("acknowledged"),
            nodes: row.get("removed"),
            was_given_up: row.get("was_given_up"),
        },
        "alive" => Forgotten::Alive { nodes: row.get("alive") },
        "unknown" => Forgotten::Unknown,
        other => unreachable!("node.sql has no verdict {other:?} of forget"),
    })
}

/// All nodes that were seen within a day.
pub(crate) async fn list(session: &Session) -> Result<Vec<NodeView>, Error> {
    let rows = session.query(NODES, &[]).await?;
    let view = |row: &Row| NodeView {
        executor_id: row.get("executor_id"),
        name: row.get("name"),
        host: row.get("host"),
        version: row.get("version"),
        queues: row.get("queues"),
        labels: row.get("labels"),
        slots: row.get("slots"),
        running: row.get("running"),
        state: row.get("state"),
        started_at: row.get("started_at"),
        last_heartbeat: row.get("last_heartbeat"),
    };
    Ok(rows.iter().map(view).collect())
}
