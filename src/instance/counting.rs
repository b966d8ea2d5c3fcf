//! What is counted of heartbeats.

use std::time::Duration;

use chrono::Utc;

use super::store::Beat;
use super::trust::Trust;
use crate::db::DbError;
use crate::elapsed::Instant;
use crate::metrics::{Family, Metrics};

/// The heartbeats of one executor.
pub(super) struct Beats(pub(super) Metrics);

impl Beats {
    /// The first of what is due was due then.
    pub(super) fn begin(&self, due: Option<Instant>, now: Instant) {
        if let Some(due) = due {
            self.0.took(Family::HeartbeatScheduleDelay, [], now.since(due));
        }
    }

    /// A statement that was sent then has been answered, or not.
    pub(super) fn answered(&self, sent: Instant, answer: &Result<Beat, DbError>) {
        let result = match answer {
            Ok(beat) => {
                let took = Instant::now().since(sent);
                // The database looked at its clock somewhere in between.
                let asked = Utc::now() - took / 2;
                let offset = (asked - beat.at).as_seconds_f64();
                self.0.took(Family::HeartbeatDuration, [], took);
                self.0.set(Family::DbClockOffset, [], offset);
                self.0.set_now(Family::HeartbeatLastSuccess, []);
                "ok"
            }
            Err(DbError::Timeout { .. }) => "timeout",
            Err(_) => "error",
        };
        self.0.count(Family::Heartbeats, [result]);
    }

    /// What one instance was told.
    pub(super) fn told(&self, verdict: &'static str) {
        self.0.count(Family::HeartbeatVerdicts, [verdict]);
    }

    /// How much of its lease one instance had used when it was renewed. To be asked before it is.
    pub(super) fn renewed(&self, trust: &Trust, acked: Instant, fence_after: Duration) {
        self.told("ok");
        if let Some(until) = trust.until() {
            let used = acked.since(until - fence_after);
            self.0.observe(Family::LeaseUsed, [], used.as_secs_f64() / fence_after.as_secs_f64());
        }
    }

    /// A round of the loop is over.
    pub(super) fn end(&self, begun: Instant, is_well: bool) {
        self.0.round("heartbeat", Instant::now().since(begun), is_well);
    }
}
