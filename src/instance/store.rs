//! Claim, beat, finish and the filing of a certificate: typed calls of the SQL functions of the same names.
//!
//! Each is one statement in a transaction of its own, sent with its parameter types, so in one round trip.

use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{Error, Row};
use uuid::Uuid;

use super::failover;
use super::witness::Testimony;
use crate::db::Session;
use crate::ids::{Fence, InstanceId, RunId};
use crate::outcome::{Cause, End, InstanceStatus};
use crate::tenure::{Executor, History, Tenure};

const CLAIM: &str = "-- instance.claim
    SELECT * FROM systole.claim($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18)";
const BEAT: &str = "-- instance.beat
    SELECT b.*, systole.history() AS history, systole.quarantined_until() AS quarantined_until FROM systole.beat($1, $2, $3) AS b";
const FINISH_ALL: &str = "-- instance.finish_all
    SELECT verdicts FROM systole.finish_all($1, $2, $3, $4, $5, $6, $7)";
const FILE_CERTIFICATE: &str = "-- instance.file_certificate
    SELECT verdict FROM systole.file_certificate($1, $2, $3, $4, $5, $6, $7)";

/// An instance as others see it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Holder {
    /// The identity.
    pub instance_id: InstanceId,
    /// `PID@host`, for people.
    pub executor_id: String,
    /// The host by its name.
    pub host: String,
    /// The supervising process on that host.
    pub pid: i32,
    /// The command's process on that host, once it has been started.
    pub child_pid: Option<i32>,
    /// Instance n of a run is attempt n.
    pub attempt: i32,
    /// Its fencing token.
    pub fence: Fence,
    /// RUNNING, or how it ended.
    pub status: InstanceStatus,
    /// How we know of its crash.
    pub cause: Option<Cause>,
    /// Which containment its tree is in.
    pub containment: String,
    /// What its user said it is for.
    pub purpose: Option<String>,
    /// By the database's clock.
    pub started_at: DateTime<Utc>,
    /// By the database's clock.
    pub last_heartbeat: DateTime<Utc>,
    /// By the database's clock.
    pub ended_at: Option<DateTime<Utc>>,
    /// Since its start, in seconds.
    pub age_seconds: f64,
    /// Since its last heartbeat, in seconds.
    pub heartbeat_age_seconds: f64,
    /// Its own staleness threshold, in seconds.
    pub stale_after_seconds: f64,
    /// When somebody asked for its stop.
    pub stop_requested_at: Option<DateTime<Utc>>,
    /// What its command last said of its progress.
    pub message: Option<String>,
}

/// One claim. Asked again with the same instance id it means the same claim.
#[derive(Debug, Clone)]
pub(crate) struct ClaimRequest {
    pub(crate) run_id: RunId,
    pub(crate) instance_id: InstanceId,
    pub(crate) executor: Executor,
    pub(crate) purpose: Option<String>,
    /// Take the database's clock at its word, without a witness of our own.
    pub(crate) trust_db_clock: bool,
    /// Not if the run is COMPLETED.
    pub(crate) once: bool,
    /// Write an event if refused: for people, not for a waiter's every look.
    pub(crate) note_refusal: bool,
}

impl ClaimRequest {
    /// What was granted by it, if anything was.
    pub(crate) fn granted(&self, claim: &Claim) -> Option<Tenure> {
        let is_granted = matches!(claim.verdict, ClaimVerdict::Ok | ClaimVerdict::Mine);
        let (fence, attempt) = claim.fence.zip(claim.attempt).filter(|_| is_granted)?;
        Some(Tenure {
            run_id: self.run_id.clone(),
            instance_id: self.instance_id,
            fence,
            attempt,
            executor: self.executor.clone(),
            purpose: self.purpose.clone(),
            history: claim.history,
        })
    }
}

/// What the database decided.
#[must_use]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClaimVerdict {
    /// Granted now.
    Ok,
    /// Granted before, to this very instance.
    Mine,
    /// Another holds it and is fresh, or a lock keeps us from looking further.
    Held,
    /// Its holder is silent, but we may not conclude yet that it is dead: see the reason.
    Dead,
    /// The database has failed over, and a claim may be missing whose holder is at work: nothing is granted for a while.
    Quarantine,
    /// The run does not want another attempt, or this instance has been and gone.
    NotRunnable,
}

/// The answer to a claim.
#[derive(Debug, Clone)]
pub(crate) struct Claim {
    pub(crate) verdict: ClaimVerdict,
    /// Why not, as in the head comment of staleness.sql and claim.sql.
    pub(crate) reason: Option<String>,
    pub(crate) fence: Option<Fence>,
    pub(crate) attempt: Option<i32>,
    pub(crate) holder: Option<Holder>,
    /// The crashed instance that this one follows.
    pub(crate) predecessor: Option<Holder>,
    /// Backends whose locks keep us out.
    pub(crate) blocked_by: Vec<i32>,
    /// Of the server that answered, or an older one.
    pub(crate) history: Option<History>,
    /// Of a refusal for that reason.
    pub(crate) quarantined_until: Option<DateTime<Utc>>,
}

/// What one heartbeat says of one instance.
#[must_use]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BeatVerdict {
    Ok,
    Busy,
    Lost,
}

/// The answer to a heartbeat.
#[derive(Debug)]
pub(crate) struct Beat {
    /// The database's clock.
    pub(crate) at: DateTime<Utc>,
    /// Per instance: the verdict, and whether somebody has asked for a stop.
    pub(crate) instances: Vec<(InstanceId, BeatVerdict, bool)>,
    /// Which line of commits the database continues.
    pub(crate) history: Option<History>,
    /// Behind a failover nothing is granted anew until then.
    pub(crate) quarantined_until: Option<DateTime<Utc>>,
}

/// What a heartbeat carries for one instance.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pulse {
    pub(crate) instance_id: InstanceId,
    pub(crate) phases: i64,
    pub(crate) child_pid: Option<i32>,
}

/// How a tenure ended, in its holder's words.
#[derive(Debug, Clone)]
pub(crate) struct Finish {
    pub(crate) tenure: Arc<Tenure>,
    /// In which history of the database it was known last.
    pub(crate) history: Option<History>,
    pub(crate) end: End,
    pub(crate) phases: i64,
}

/// What became of one of many finishes.
#[must_use]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FinishVerdict {
    /// It stands as said.
    Ok,
    /// The tenure had ended before in another way.
    Lost,
    /// Somebody's transaction holds a row of it: say it again.
    Busy,
}

/// A certificate of death, to be filed.
#[derive(Debug, Clone)]
pub(crate) struct CertificateFiling {
    pub(crate) run_id: RunId,
    /// For a database that has forgotten it.
    pub(crate) tenure: Option<Tenure>,
    pub(crate) instance_id: InstanceId,
    pub(crate) secret: Vec<u8>,
    pub(crate) end: End,
    pub(crate) filed_by: String,
}

/// What became of a filed certificate.
#[must_use]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FilingVerdict {
    /// The instance has ended by it.
    Ok,
    /// It had ended before.
    Already,
    /// This database knows no such instance.
    Unknown,
    /// The secret is not the instance's.
    Forged,
    /// Somebody's transaction holds a row of it: file it again.
    Locked,
}

/// Claims a run. Idempotent by the instance id.
pub(crate) async fn claim(
    session: &Session,
    request: &ClaimRequest,
    testimony: Option<Testimony>,
) -> Result<Claim, Error> {
    let Executor { identity, stale_after, containment, death_secret_hash } = &request.executor;
    let (trusted_since, expected_now, tolerance) = match testimony {
        _ if request.trust_db_clock => (Some(DateTime::UNIX_EPOCH), None, Duration::ZERO),
        Some(said) => (Some(said.trusted_since), Some(said.expected_now), said.tolerance),
        None => (None, None, Duration::ZERO),
    };
    let hash = death_secret_hash.as_ref().map(<[u8; 32]>::as_slice);
    let row = only_row(
        session,
        CLAIM,
        &[
            (&request.run_id.as_str(), Type::TEXT),
            (&request.instance_id.0, Type::UUID),
            (&identity.executor_id, Type::TEXT),
            (&identity.host, Type::TEXT),
            (&identity.pid, Type::INT4),
            (&identity.boot_id, Type::TEXT),
            (&identity.pid_namespace, Type::TEXT),
            (&identity.process_started, Type::INT8),
            (containment, Type::TEXT),
            (&(stale_after.as_millis() as i64), Type::INT8),
            (&hash, Type::BYTEA),
            (&request.purpose, Type::TEXT),
            (&trusted_since, Type::TIMESTAMPTZ),
            (&expected_now, Type::TIMESTAMPTZ),
            (&(tolerance.as_millis() as i64), Type::INT8),
            (&request.once, Type::BOOL),
            (&request.note_refusal, Type::BOOL),
            (&env!("CARGO_PKG_VERSION"), Type::TEXT),
        ],
    )
    .await?;
    let verdict = match row.get("verdict") {
        "ok" => ClaimVerdict::Ok,
        "mine" => ClaimVerdict::Mine,
        "held" => ClaimVerdict::Held,
        "dead" => ClaimVerdict::Dead,
        "quarantine" => ClaimVerdict::Quarantine,
        "not_runnable" => ClaimVerdict::NotRunnable,
        // A later version's word: it does not grant anything to us.
        _ => ClaimVerdict::Held,
    };
    Ok(Claim {
        verdict,
        reason: row.get("reason"),
        fence: row.get::<_, Option<i64>>("fence").map(Fence),
        attempt: row.get("attempt"),
        holder: described(&row, "holder"),
        predecessor: described(&row, "predecessor"),
        blocked_by: row.get::<_, Option<Vec<i32>>>("blocked_by").unwrap_or_default(),
        history: session.history(),
        quarantined_until: match verdict {
            ClaimVerdict::Quarantine => failover::quarantined_until(session).await?,
            _ => None,
        },
    })
}

/// One heartbeat for all the given instances; for none it only reads the clock.
pub(crate) async fn beat(session: &Session, pulses: &[Pulse]) -> Result<Beat, Error> {
    let ids: Vec<Uuid> = pulses.iter().map(|pulse| pulse.instance_id.0).collect();
    let phases: Vec<i64> = pulses.iter().map(|pulse| pulse.phases).collect();
    let child_pids: Vec<Option<i32>> = pulses.iter().map(|pulse| pulse.child_pid).collect();
    let row = only_row(
        session,
        BEAT,
        &[(&ids, Type::UUID_ARRAY), (&phases, Type::INT8_ARRAY), (&child_pids, Type::INT4_ARRAY)],
    )
    .await?;
    let ids: Vec<Uuid> = row.get::<_, Option<_>>("instances").unwrap_or_default();
    let verdicts: Vec<&str> = row.get::<_, Option<_>>("verdicts").unwrap_or_default();
    let stops: Vec<bool> = row.get::<_, Option<_>>("stops").unwrap_or_default();
    let instances = ids.into_iter().zip(verdicts).zip(stops).map(|((id, verdict), stop)| {
        let verdict = match verdict {
            "ok" => BeatVerdict::Ok,
            "lost" => BeatVerdict::Lost,
            // Or a later version's word: nothing is renewed by it, and nothing lost.
            _ => BeatVerdict::Busy,
        };
        (InstanceId(id), verdict, stop)
    });
    Ok(Beat {
        at: row.get("at"),
        instances: instances.collect(),
        history: row.get::<_, Option<&str>>("history").and_then(|text| text.parse().ok()),
        quarantined_until: row.get("quarantined_until"),
    })
}

/// The holder's own word on the ends of its tenures, in one transaction that waits for no lock; a verdict for each, in the order
/// given.
pub(crate) async fn finish_all(session: &Session, said: &[Finish]) -> Result<Vec<FinishVerdict>, Error> {
    let row = only_row(
        session,
        FINISH_ALL,
        &[
            (&column(said, |it| it.tenure.instance_id.0), Type::UUID_ARRAY),
            (&column(said, |it| it.tenure.fence.0), Type::INT8_ARRAY),
            (&column(said, |it| it.end.status.as_str()), Type::TEXT_ARRAY),
            (&column(said, |it| it.end.exit_code), Type::INT4_ARRAY),
            (&column(said, |it| it.end.cause.map(Cause::as_str)), Type::TEXT_ARRAY),
            (&column(said, |it| it.phases), Type::INT8_ARRAY),
            (&column(said, |it| &it.end.detail), Type::JSONB_ARRAY),
        ],
    )
    .await?;
    let verdicts: Vec<&str> = row.get::<_, Option<_>>("verdicts").unwrap_or_default();
    let verdict = |word: &str| match word {
        "ok" => FinishVerdict::Ok,
        "lost" => FinishVerdict::Lost,
        // Busy, or a later version's word.
        _ => FinishVerdict::Busy,
    };
    Ok(verdicts.into_iter().map(verdict).collect())
}

fn column<'a, T>(said: &'a [Finish], field: impl Fn(&'a Finish) -> T) -> Vec<T> {
    said.iter().map(field).collect()
}

/// Files a certificate of death. Idempotent.
pub(crate) async fn file_certificate(session: &Session, filing: &CertificateFiling) -> Result<FilingVerdict, Error> {
    let cause = filing.end.cause.map(Cause::as_str);
    let row = only_row(
        session,
        FILE_CERTIFICATE,
        &[
            (&filing.instance_id.0, Type::UUID),
            (&filing.secret, Type::BYTEA),
            (&filing.end.status.as_str(), Type::TEXT),
            (&filing.end.exit_code, Type::INT4),
            (&cause, Type::TEXT),
            (&filing.end.detail, Type::JSONB),
            (&filing.filed_by, Type::TEXT),
        ],
    )
    .await?;
    Ok(match row.get("verdict") {
        "ok" => FilingVerdict::Ok,
        "already" => FilingVerdict::Already,
        "unknown" => FilingVerdict::Unknown,
        "forged" => FilingVerdict::Forged,
        // Locked, or a later version's word.
        _ => FilingVerdict::Locked,
    })
}

pub(super) async fn only_row(
    session: &Session,
    statement: &str,
    parameters: &[(&(dyn ToSql + Sync), Type)],
) -> Result<Row, Error> {
    // All rows are read: a statement whose COMMIT fails says so only behind its last row.
    let mut rows = session.query(statement, parameters).await?;
    Ok(rows.pop().expect("a function with OUT parameters returns one row"))
}

fn described(row: &Row, column: &str) -> Option<Holder> {
    row.get::<_, Option<Value>>(column)
        .map(|value| serde_json::from_value(value).expect("holder.sql builds what Holder reads"))
}
