//! When a node claims, and how many: as many as slots are free and attempts may begin.

use std::time::Duration;

use super::leaving::Phase;
use super::{Node, RETRY_PAUSE, turns};
use crate::db::DbError;
use crate::elapsed::Instant;
use crate::log::{self, What};

/// Between two claims that hints have asked for. One that comes alone is served at once.
const HINTED_CLAIM_INTERVAL: Duration = Duration::from_millis(50);

impl Node {
    fn free(&self) -> usize {
        usize::try_from(self.shared.setup.slots).unwrap_or(0).saturating_sub(self.running.len())
    }

    /// How many more may begin now.
    fn room(&self) -> usize {
        self.free().min(self.shared.turns.left())
    }

    pub(super) fn may_claim(&self) -> bool {
        match self.phase {
            Phase::Starting => false,
            Phase::Working => self.room() > 0,
            Phase::Draining { .. } => self.claimer.in_doubt() > 0,
            Phase::Halting => false,
        }
    }

    pub(super) fn claim_soon(&mut self) {
        self.is_prompted = true;
        self.claim_due = self.claim_due.min(Instant::now().max(self.claimed_at + HINTED_CLAIM_INTERVAL));
    }

    pub(super) async fn claim(&mut self) {
        self.claimed_at = Instant::now();
        self.claim_due = self.claimed_at + self.shared.setup.poll_interval;
        self.is_claiming_well = false;
        let wanted = if self.phase == Phase::Working { self.room().saturating_sub(self.claimer.in_doubt()) } else { 0 };
        let takes_more = self.phase == Phase::Working;
        let asked = wanted + self.claimer.in_doubt();
        // The first in line takes the berth that is ready.
        let spare = if wanted > 0 { self.spare_slot() } else { None };
        let others = (usize::from(spare.is_some())..wanted).map(|_| turns::fresh_slot());
        let fresh = match spare.into_iter().map(Ok).chain(others).collect() {
            Ok(fresh) => fresh,
            Err(error) => return log::say(What::Scarce, format_args!("no randomness could be had: {error}")),
        };
        let answer = self.claimer.claim(&mut self.link, fresh, takes_more).await;
        self.tell_of_claim(&answer);
        let assignments = match answer {
            Ok(assignments) => assignments,
            Err(error) => {
                self.claim_due = Instant::now() + RETRY_PAUSE;
                self.trouble(&error);
                if let (DbError::TooOld { .. }, Phase::Working) = (&error, self.phase) {
                    self.drain("too old");
                }
                return;
            }
        };
        // Whoever claims beside us keeps for a moment more locked than he takes: what is prompted looks twice.
        let looks_again = std::mem::take(&mut self.is_prompted) && assignments.len() < asked;
        let is_last = self.shared.setup.once && self.running.is_empty() && assignments.is_empty() && !looks_again;
        // Nothing is granted behind a failover either, of which a heartbeat tells.
        if is_last && self.beat().await && !self.is_quarantined {
            self.phase = Phase::Halting;
        }
        if looks_again {
            self.claim_due = Instant::now() + HINTED_CLAIM_INTERVAL;
        } else if assignments.len() == asked {
            // There may be more.
            self.claim_due = Instant::now();
        }
        for (assignment, slot) in assignments {
            self.start(assignment, slot);
        }
        self.spare_is_known();
    }
}
