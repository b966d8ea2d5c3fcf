//! What a node does for others, each second: it files the deaths of its host, declares the silent dead, and forgets the old.

use std::time::Duration;

use super::Node;
use crate::attempt::{Outbox, file_deaths, quarantine_line};
use crate::db::{DbError, Hint, HintKind};
use crate::elapsed::Instant;
use crate::log::{self, About, What};
use crate::metrics::Family;
use crate::node::store::{self, Heard};
use crate::outcome::Cause;
use crate::output;

/// Between two sweeps for the dead.
const SWEEP_INTERVAL: Duration = Duration::from_secs(1);

/// Between two looks for what is too old to be kept, and how much goes at once.
pub(super) const PRUNE_INTERVAL: Duration = Duration::from_secs(60);
const PRUNE_MAX: i32 = 500;

/// Between two looks for logs that are too old.
const FORGET_INTERVAL: Duration = Duration::from_secs(3600);

impl Node {
    /// Everybody looks after the dead: those of this host by their certificates, all others by their silence.
    pub(super) async fn sweep(&mut self) {
        let begun = Instant::now();
        self.sweep_due = begun + SWEEP_INTERVAL;
        let is_well = self.look_for_the_dead().await;
        self.metrics().round("sweep", Instant::now().since(begun), is_well);
    }

    /// False if there was trouble.
    async fn look_for_the_dead(&mut self) -> bool {
        let shared = self.shared.clone();
        let filed = file_deaths(&shared.coordinator, &shared.setup.state, shared.fleet_id, self.history).await;
        if filed.news > 0 {
            self.metrics().add(Family::CertificatesFiled, [], filed.news as f64);
            self.tell_of_crashes(Cause::Proof, filed.crashes);
            self.given_back();
        }
        shared.outputs.found(filed.logs);
        if let Some(error) = &filed.trouble {
            self.trouble(error);
            if !matches!(error, DbError::Statement { .. } | DbError::Unavailable { .. }) {
                return false;
            }
        }
        if self.prune_due <= Instant::now() {
            self.prune_due = Instant::now() + PRUNE_INTERVAL;
            self.forget_what_was_said();
            match self.link.call(async |session| store::prune(session, None, PRUNE_MAX).await).await {
                Ok(PRUNE_MAX) => self.prune_due = Instant::now() + SWEEP_INTERVAL,
                Ok(_) => {}
                Err(error) => {
                    self.trouble(&error);
                    return false;
                }
            }
        }
        self.forget_logs().await;
        self.tidying.look(&shared.setup.workspaces).await;
        let testimony = shared.coordinator.testimony().await;
        let by = &self.claimer.registration().identity.executor_id;
        match self.link.call(async |session| store::reap(session, by, testimony).await).await {
            Ok(silent) => {
                let dead: Vec<_> = silent.iter().filter(|holder| holder.reason.is_empty()).collect();
                for holder in &dead {
                    let about = About { run: Some(&holder.run_id), ..About::default() };
                    let (executor_id, run_id) = (&holder.executor_id, &holder.run_id);
                    log::say_of(
                        What::ExecutorDead,
                        about,
                        format_args!(
                            "executor {executor_id} of run \"{run_id}\" is dead: it has been silent for too long"
                        ),
                    );
                }
                if !dead.is_empty() {
                    self.tell_of_crashes(Cause::Stale, dead.len());
                    self.given_back();
                }
                true
            }
            Err(error) => {
                self.trouble(&error);
                false
            }
        }
    }

    /// Learns which history the database continues. Behind a failover the next sweep tells it what it may be missing.
    pub(super) fn learn(&mut self, heard: &Heard) {
        self.is_quarantined = heard.quarantined_until.is_some();
        let Some(history) = heard.history.filter(|history| self.history != Some(*history)) else { return };
        Outbox::of(&self.shared.setup.state).saw(history);
        if let Some(before) = self.history.replace(history) {
            self.sweep_due = Instant::now();
            log::say(What::FailedOver, format_args!("PostgreSQL continues {history} now, and not {before} any more"));
        }
        if self.is_quarantined {
            log::say(What::Quarantine, quarantine_line(heard.quarantined_until));
        }
    }

    /// Some runs are back in their queues: we look at once, and so should others, who may have more room.
    fn given_back(&mut self) {
        self.claim_due = Instant::now();
        self.has_given_back = true;
    }

    pub(super) async fn tell_of_what_is_queued(&mut self) {
        let hint = Hint { kind: HintKind::Queued, name: store::ANY_QUEUE.to_owned() };
        // A lost hint is made up for by polling.
        let _ = self.link.call(async |session| Ok(hint.send(session).await.is_ok())).await;
    }

    /// What was recorded long enough ago need not be said again.
    fn forget_what_was_said(&self) {
        if let Some(history) = self.history {
            let outbox = Outbox::of(&self.shared.setup.state);
            drop(tokio::task::spawn_blocking(move || outbox.forget(history)));
        }
    }

    /// Logs of this host go as long after their end as their runs do.
    async fn forget_logs(&mut self) {
        if self.forget_due > Instant::now() {
            return;
        }
        self.forget_due = Instant::now() + FORGET_INTERVAL;
        if let Ok(keep) = self.link.call(async |session| store::keep(session).await).await {
            let runs_dir = self.shared.setup.runs_dir.clone();
            // However long the disk takes. What cannot be removed now is tried again in an hour.
            drop(tokio::task::spawn_blocking(move || output::forget(&runs_dir, keep)));
        }
    }
}
