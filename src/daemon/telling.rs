//! What a node tells of itself to whoever asks over HTTP: metrics, and whether it is ready.

use std::sync::Arc;

use tokio::sync::watch;

use super::{Node, Setup};
use crate::attempt::{AttemptError, Conclusion, quarantine_line};
use crate::db::DbError;
use crate::elapsed::Instant;
use crate::fleet::{self, View};
use crate::http::{self, Readiness};
use crate::log::{self, What};
use crate::metrics::{Family, Metrics};
use crate::node::store::{Assignment, Heard, NodeState, Slot};
use crate::outcome::{Cause, InstanceStatus};

/// Answers from now on, if it is to answer at all. What is said of its readiness goes into what is returned, beside the address
/// by which others reach it.
pub(super) fn begin(setup: &mut Setup) -> Result<(watch::Sender<Readiness>, Option<String>), AttemptError> {
    let timing = setup.timing;
    let metrics = setup.target.metrics();
    for (family, span) in [
        (Family::HeartbeatInterval, timing.heartbeat_interval),
        (Family::AttemptTimeout, timing.attempt_timeout),
        (Family::FenceAfter, timing.fence_after),
        (Family::KillGrace, timing.kill_grace),
        (Family::StaleAfter, timing.stale_after),
    ] {
        metrics.set(family, [], span.as_secs_f64());
    }
    metrics.set(Family::RunSlots, [], f64::from(setup.slots));
    metrics.set_state(Family::OwnState, [NodeState::Starting.as_str()]);
    let (sender, readiness) = watch::channel(Readiness {
        obstacle: Some("it is starting".to_owned()),
        said_at: Instant::now(),
        // Heartbeats come sooner than that, with some to spare for slow ones.
        good_for: timing.heartbeat_interval + timing.attempt_timeout * 4,
    });
    let mut address = None;
    if let Some(door) = setup.http.take() {
        address = door.advertised().map(str::to_owned);
        log::say(What::Serving, format_args!("metrics at http://{}/metrics", door.address()));
        // What it asks is not this node's work, nor its failure.
        let view = Arc::new(View::new(setup.target.clone().counted_by(Metrics::default()), timing.attempt_timeout));
        let node = http::routes::of_node(metrics.clone(), readiness).merge(fleet::routes::discovery(view.clone()));
        let router = if setup.shows_fleet { node.merge(fleet::routes::of_fleet(view)) } else { node };
        http::serve(door, router, metrics.clone()).map_err(AttemptError::Http)?;
    }
    Ok((sender, address))
}

impl Node {
    /// What the database answers, when it is trouble.
    pub(super) fn trouble(&mut self, error: &DbError) {
        // Once each time: what goes on is not news.
        if !std::mem::replace(&mut self.trouble_told, true) {
            log::say(What::DatabaseTrouble, error);
        }
    }

    pub(super) fn metrics(&self) -> &Metrics {
        self.shared.setup.target.metrics()
    }

    /// A heartbeat of the node has been answered, or not.
    pub(super) fn tell(&self, state: NodeState, answer: &Result<Heard, DbError>) {
        let now = Instant::now();
        self.metrics().set_state(Family::OwnState, [state.as_str()]);
        self.metrics().round("node", now.since(self.beaten_at), answer.is_ok());
        let obstacle = match (answer, state) {
            (Err(error), _) => Some(error.to_string()),
            (Ok(heard), _) if heard.quarantined_until.is_some() => Some(quarantine_line(heard.quarantined_until)),
            (Ok(_), NodeState::Ready) => None,
            (Ok(_), state) => Some(format!("it is {}", state.as_str())),
        };
        self.readiness.send_modify(|readiness| {
            readiness.obstacle = obstacle;
            readiness.said_at = now;
        });
    }

    /// There is no slot free, or it is not yet time to look again: nothing is wrong with the loop that claims, unless its last
    /// look went wrong.
    pub(super) fn tell_of_no_claim(&self) {
        if self.is_claiming_well {
            self.metrics().set_now(Family::LoopLastSuccess, ["claim"]);
        }
    }

    /// A look into the queues has been answered, or not.
    pub(super) fn tell_of_claim(&mut self, answer: &Result<Vec<(Assignment, Slot)>, DbError>) {
        self.is_claiming_well = answer.is_ok();
        let metrics = self.metrics();
        metrics.round("claim", Instant::now().since(self.claimed_at), answer.is_ok());
        let Ok(granted) = answer else { return metrics.count(Family::ClaimAttempts, ["error"]) };
        let result = if granted.is_empty() { "empty" } else { "claimed" };
        metrics.count(Family::ClaimAttempts, [result]);
        for (assignment, _) in granted {
            let kind = match assignment.tenure.attempt {
                _ if assignment.is_takeover => "takeover",
                1 => "fresh",
                _ => "retry",
            };
            metrics.count(Family::RunsClaimed, [&assignment.queue, kind]);
            if let Some(waited) = assignment.waited {
                metrics.took(Family::RunQueueWait, [&assignment.queue], waited);
            }
            let dead = assignment.predecessor.as_ref().filter(|_| assignment.is_takeover);
            if let Some((dead, cause)) = dead.and_then(|it| Some((it, it.cause?))) {
                metrics.count(Family::Takeovers, [cause.as_str()]);
                metrics.observe(Family::TakeoverDelay, [], dead.heartbeat_age_seconds);
            }
        }
    }

    /// A sweep has declared so many dead.
    pub(super) fn tell_of_crashes(&self, cause: Cause, crashes: usize) {
        self.metrics().add(Family::SweepCrashes, [cause.as_str()], crashes as f64);
    }
}

/// What is counted of one attempt of a node, from its claim on.
pub(super) struct Attempt {
    metrics: Metrics,
    queue: String,
    number: i32,
    begun: Instant,
    outcome: &'static str,
}

impl Attempt {
    pub(super) fn begin(metrics: &Metrics, assignment: &Assignment) -> Attempt {
        metrics.add(Family::RunsRunning, [&assignment.queue], 1.0);
        let (queue, number) = (assignment.queue.clone(), assignment.tenure.attempt);
        // What ends in a bug of ours is found out by its silence.
        Attempt { metrics: metrics.clone(), queue, number, begun: Instant::now(), outcome: "lost" }
    }

    pub(super) fn ended(mut self, conclusion: &Result<Conclusion, AttemptError>) {
        self.outcome = match conclusion {
            Ok(Conclusion::Ended(certificate) | Conclusion::Unrecorded { certificate, .. }) => {
                outcome(certificate.end.status)
            }
            Ok(Conclusion::Crashed { .. }) => "crashed",
            Ok(Conclusion::Lost { .. }) => "lost",
            // It is given back.
            Err(_) => "released",
        };
    }
}

impl Drop for Attempt {
    fn drop(&mut self) {
        let (queue, span) = (self.queue.as_str(), Instant::now().since(self.begun));
        self.metrics.add(Family::RunsRunning, [queue], -1.0);
        self.metrics.count(Family::RunsFinished, [queue, self.outcome]);
        self.metrics.took(Family::RunDuration, [queue], span);
        self.metrics.observe(Family::RunAttempts, [queue], f64::from(self.number));
    }
}

fn outcome(status: InstanceStatus) -> &'static str {
    match status {
        InstanceStatus::Completed => "completed",
        InstanceStatus::Failed => "failed",
        InstanceStatus::TimedOut => "timed_out",
        InstanceStatus::Cancelled => "cancelled",
        InstanceStatus::Released => "released",
        InstanceStatus::Crashed => "crashed",
        // No end at all.
        InstanceStatus::Running => "lost",
    }
}
