//! What `fleet_snapshot()` says, as types.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Deserialize;
use tokio_postgres::Error;
use tokio_postgres::types::Json;
use uuid::Uuid;

use crate::db::Session;

const SNAPSHOT: &str = "-- fleet.snapshot
    SELECT systole.fleet_snapshot() AS snapshot";

/// The fleet at one moment.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Snapshot {
    /// Which database this is.
    pub(super) fleet_id: Uuid,
    pub(super) nodes: Vec<Node>,
    pub(super) instances_live: f64,
    pub(super) instances_stale: f64,
    /// Of those that hold something now; up to 1,000.
    pub(super) hosts: Vec<String>,
    /// Of up to 1,000 hosts, those of the newest crashes.
    pub(super) crashes: Vec<Crashes>,
    /// Unacknowledged, of a quarter of an hour; `lately` all of half an hour.
    pub(super) ringing: Vec<Executors>,
    pub(super) lately: Vec<Executors>,
    pub(super) takeovers: BTreeMap<String, f64>,
    pub(super) duplicates_refused: f64,
    /// The oldest first.
    pub(super) queues: Vec<Queue>,
    pub(super) by_hand: ByHand,
    /// The worst first.
    pub(super) stale_runs: Vec<StaleRun>,
    pub(super) ends: BTreeMap<String, f64>,
    /// The median, 95 of 100, the longest; `None` if nothing has ended.
    pub(super) run_seconds: Option<[f64; 3]>,
    pub(super) one_running_per_run: f64,
    pub(super) running_has_instance: f64,
    pub(super) fence_monotonic: f64,
    pub(super) brake_engaged: bool,
    pub(super) quarantine_seconds: f64,
    pub(super) tables: Vec<Table>,
    /// `None` where not all of them can be seen.
    pub(super) oldest_transaction_seconds: Option<f64>,
}

/// How a node is; the worse is the greater.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum State {
    Live,
    Draining,
    Stale,
    Crashed,
}

impl State {
    pub(super) const ALL: [(State, &str); 4] =
        [(State::Live, "live"), (State::Stale, "stale"), (State::Crashed, "crashed"), (State::Draining, "draining")];
}

#[derive(Debug, Clone, Deserialize)]
pub(super) struct Node {
    pub(super) name: String,
    pub(super) host: String,
    pub(super) version: String,
    pub(super) state: State,
    pub(super) heartbeat_age_seconds: f64,
    pub(super) slots: f64,
    pub(super) running: f64,
    pub(super) http_address: Option<String>,
    pub(super) zone: Option<String>,
}

#[derive(Debug, Clone, Deserialize)]
pub(super) struct Crashes {
    pub(super) host: String,
    pub(super) cause: String,
    pub(super) count: f64,
}

/// How many of a host were declared dead.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Executors {
    pub(super) host: String,
    pub(super) count: f64,
}

#[derive(Debug, Clone, Deserialize)]
pub(super) struct Queue {
    pub(super) queue: String,
    pub(super) queued: f64,
    pub(super) delayed: f64,
    pub(super) running: f64,
    pub(super) stale: f64,
    pub(super) poison: f64,
    pub(super) oldest_seconds: f64,
    pub(super) paused: bool,
}

/// Runs that came from no queue.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct ByHand {
    pub(super) running: f64,
    pub(super) stale: f64,
}

#[derive(Debug, Clone, Deserialize)]
pub(super) struct StaleRun {
    pub(super) run: String,
    /// `None` of a run by hand.
    pub(super) queue: Option<String>,
    pub(super) host: String,
    pub(super) seconds: f64,
}

#[derive(Debug, Clone, Deserialize)]
pub(super) struct Table {
    pub(super) table: String,
    pub(super) bytes: f64,
    /// `None` on a standby, here and below.
    pub(super) dead_rows: Option<f64>,
    pub(super) updates: Option<f64>,
    pub(super) hot_updates: Option<f64>,
}

impl Snapshot {
    /// Asks for it; the server gives up after `bound`.
    pub(super) async fn ask(session: &Session, bound: Duration) -> Result<Snapshot, Error> {
        let rows = session.query_read_only(SNAPSHOT, bound).await?;
        let Json(snapshot) = rows.first().expect("a function returns one row").try_get("snapshot")?;
        Ok(snapshot)
    }

    /// Counts of the same database are no lower than they were. Behind a failover that lost the newest commits they would be,
    /// and Prometheus takes whatever is lower for a counter that began anew, all of which has just happened.
    pub(super) fn keep_counts(&mut self, before: &Snapshot) {
        if self.fleet_id != before.fleet_id {
            return;
        }
        self.duplicates_refused = self.duplicates_refused.max(before.duplicates_refused);
        for (cause, count) in &before.takeovers {
            let now = self.takeovers.entry(cause.clone()).or_default();
            *now = now.max(*count);
        }
        let counts: BTreeMap<_, _> =
            before.crashes.iter().map(|row| ((row.host.as_str(), row.cause.as_str()), row.count)).collect();
        for row in &mut self.crashes {
            let count = counts.get(&(row.host.as_str(), row.cause.as_str())).copied();
            row.count = row.count.max(count.unwrap_or(0.0));
        }
    }
}
