//! What is counted of one attempt while it is supervised.

use crate::elapsed::Instant;
use crate::guard::KillReason;
use crate::guard::certificate::Certificate;
use crate::metrics::{Family, Metrics};

/// Begins with the supervision, and ends with it however that ends: what is still open then was killed.
pub(super) struct Account {
    metrics: Metrics,
    /// Started, and not ended.
    is_running: bool,
    frozen_since: Option<Instant>,
    stopping_since: Option<Instant>,
    fenced_since: Option<Instant>,
    is_killed: bool,
}

impl Account {
    pub(super) fn open(metrics: &Metrics) -> Account {
        Account {
            metrics: metrics.clone(),
            is_running: false,
            frozen_since: None,
            stopping_since: None,
            fenced_since: None,
            is_killed: false,
        }
    }

    pub(super) fn started(&mut self) {
        self.is_running = true;
        self.metrics.count(Family::ChildStarts, []);
    }

    /// May be said again while it lasts.
    pub(super) fn frozen(&mut self) {
        if self.frozen_since.is_none() {
            self.frozen_since = Some(Instant::now());
            self.metrics.count(Family::Freezes, ["deadline"]);
            self.metrics.add(Family::FrozenInstances, [], 1.0);
        }
    }

    pub(super) fn thawed(&mut self) {
        if let Some(since) = self.frozen_since.take() {
            self.metrics.add(Family::FrozenInstances, [], -1.0);
            self.metrics.took(Family::FreezeDuration, [], Instant::now().since(since));
        }
    }

    /// The run is another's, and the command is killed for it.
    pub(super) fn superseded(&mut self) {
        self.fenced_since = self.fenced_since.or(Some(Instant::now()));
        self.metrics.count(Family::Fences, ["superseded"]);
    }

    /// It was asked to end.
    pub(super) fn stopping(&mut self) {
        self.stopping_since = self.stopping_since.or(Some(Instant::now()));
    }

    /// It did not, and is killed.
    pub(super) fn killed(&mut self) {
        self.is_killed = true;
    }

    /// Nothing is left of its tree.
    pub(super) fn ended(&mut self, certificate: &Certificate) {
        let now = Instant::now();
        let is_fenced = self.fenced_since.is_some() || certificate.killed.is_some_and(|it| it != KillReason::Ordered);
        if is_fenced && self.fenced_since.is_none() {
            self.metrics.count(Family::Fences, ["lease_expired"]);
        }
        // When a guard has decided it by itself, only that is not known.
        if let Some(since) = self.fenced_since {
            self.metrics.took(Family::FenceKillDuration, [], now.since(since));
        }
        if let Some(since) = self.stopping_since {
            self.metrics.took(Family::ChildStopDuration, [], now.since(since));
        }
        self.exited(match certificate.end.exit_code {
            _ if is_fenced => "fence_kill",
            _ if self.is_killed => "stop_timeout",
            _ if certificate.end.detail.get("signal").is_some() => "signal",
            Some(0) => "exit_zero",
            _ => "exit_nonzero",
        });
    }

    fn exited(&mut self, cause: &'static str) {
        if std::mem::take(&mut self.is_running) {
            self.metrics.count(Family::ChildExits, [cause]);
        }
    }
}

impl Drop for Account {
    fn drop(&mut self) {
        self.thawed();
        self.exited("fence_kill");
    }
}
