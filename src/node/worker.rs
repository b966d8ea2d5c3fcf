//! A program that works queued runs off by itself, many at a time.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::Value;
use tokio::sync::broadcast;
use uuid::Uuid;

use super::claimer::Claimer;
use super::store::{self, NodeState, Registration, Slot};
use crate::db::{DbError, Hint, HintKind, Link, Target};
use crate::elapsed::{Instant, sleep_until};
use crate::ids::{InstanceId, NodeName};
use crate::instance::{AcquireError, ConnectError, Coordinator, Lease, Timing};

/// Between two sweeps for holders that are dead.
const SWEEP_INTERVAL: Duration = Duration::from_secs(1);

/// How many runs are claimed in one transaction.
const CLAIM_MAX: usize = 1000;

/// Between two looks at the queues when nothing is heard of them.
const POLL_INTERVAL: Duration = Duration::from_secs(5);

/// What a [`Worker`] takes from the queues: runs that were submitted with one of its `commands` (`--command NAME`, or
/// `systole.submit(…, command => …)`), to one of its queues, and that require no label it does not have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Serving {
    /// The queues.
    pub queues: Vec<String>,
    /// What it has.
    pub labels: BTreeMap<String, String>,
    /// What it knows how to do.
    pub commands: Vec<String>,
}

impl Serving {
    /// These commands, of the queue `default`.
    pub fn commands<T: Into<String>>(commands: impl IntoIterator<Item = T>) -> Serving {
        Serving {
            queues: vec!["default".to_owned()],
            labels: BTreeMap::new(),
            commands: commands.into_iter().map(Into::into).collect(),
        }
    }
}

/// A queued run that is ours, and what it asks for.
#[derive(Debug)]
pub struct QueuedRun {
    /// The right to work on it. Dropped, it goes back into its queue, and no attempt is counted.
    pub lease: Lease,
    /// What is to be done: one of the worker's commands.
    pub command: String,
    /// As submitted.
    pub env: BTreeMap<String, String>,
    /// As submitted.
    pub meta: Option<Value>,
    /// How long an attempt may take. Nobody but the program itself can see to that.
    pub timeout: Option<Duration>,
    /// How long it may take without [`Lease::progress`]. That as well.
    pub stall_timeout: Option<Duration>,
}

/// Takes runs from the queues for a program that carries them out itself, in batches: a thousand runs cost little more than
/// one. Beside nodes and other workers it is an executor like any other, seen by `systole nodes`, and like a node it
/// declares dead whoever has fallen silent.
///
/// What it claims it holds as leases: see [`Lease`] for what they promise, and what not. Claims happen on the caller's
/// runtime, heartbeats and finishes on a thread of their own.
///
/// ```no_run
/// # async fn example(url: &str) -> Result<(), Box<dyn std::error::Error>> {
/// use systole::node::{Serving, Worker};
/// use systole::outcome::{End, InstanceStatus};
///
/// let mut worker = Worker::connect(url, Serving::commands(["invoice"])).await?;
/// while worker.drain_requested().is_none() {
///     let runs = worker.claim(500).await.unwrap_or_else(|error| {
///         eprintln!("not now: {error}"); // what it may have been granted is found by the next claim
///         Vec::new()
///     });
///     if runs.is_empty() {
///         worker.wait().await;
///     }
///     let mut ended = Vec::new();
///     for run in runs {
///         if run.lease.state().borrow().stop_requested {
///             ended.push((run.lease, End::of(InstanceStatus::Cancelled)));
///             continue;
///         }
///         // … the work, with run.meta, until run.lease.lost(); its transactions end with systole.fence(run_id, fence) …
///         // A failure is an end as well: a lease that is dropped is claimed again at once.
///         ended.push((run.lease, End::of(InstanceStatus::Completed)));
///     }
///     worker.coordinator().finish_all(ended).await;
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Worker {
    coordinator: Coordinator,
    link: Link,
    claimer: Claimer,
    news: broadcast::Receiver<Hint>,
    beat_due: Instant,
    sweep_due: Instant,
    drain_requested: Option<String>,
}

impl Worker {
    /// Connects with default intervals, and checks the schema.
    pub async fn connect(url: &str, serving: Serving) -> Result<Worker, ConnectError> {
        Worker::connect_with(url.parse()?, Timing::default(), serving).await
    }

    /// Connects with intervals of your own.
    pub async fn connect_with(target: Target, timing: Timing, serving: Serving) -> Result<Worker, ConnectError> {
        let coordinator = Coordinator::connect_with(target.clone(), timing).await?;
        // By the time a holder looks silent, our own heartbeats have long vouched for the clock.
        coordinator.keep_warm().await;
        let registration = Registration {
            node_id: Uuid::now_v7(),
            identity: coordinator.identity().clone(),
            name: NodeName::of_host(&coordinator.identity().host),
            http_address: None,
            queues: serving.queues,
            labels: serving.labels,
            commands: serving.commands,
            starts_anything: false,
            slots: 1,
            stale_after: timing.stale_after,
        };
        let now = Instant::now();
        Ok(Worker {
            news: coordinator.news(),
            coordinator,
            link: Link::new(target, timing.attempt_timeout),
            claimer: Claimer::new(registration, "none".to_owned()),
            beat_due: now,
            sweep_due: now,
            drain_requested: None,
        })
    }

    /// To finish what was claimed, many at a time or one by one; cheap to clone.
    pub fn coordinator(&self) -> &Coordinator {
        &self.coordinator
    }

    /// Who has asked it to take nothing more, by `systole drain`; from then on [`Worker::claim`] returns nothing.
    pub fn drain_requested(&self) -> Option<&str> {
        self.drain_requested.as_deref()
    }

    /// Takes up to `most` queued runs, and never more than 1,000 at once, those first that are due for longest. Does not wait
    /// for any to be queued. Call it every few seconds, with 0 when there is no room: by it others see that the worker is here,
    /// it hears that it is to drain, and the dead are found.
    ///
    /// Returns when their first heartbeats have been acknowledged. After an error, or when the future is dropped, whatever
    /// was granted is found by the next call, or given back; if there is none, it runs out by itself.
    pub async fn claim(&mut self, most: usize) -> Result<Vec<QueuedRun>, AcquireError> {
        self.look_around(most).await?;
        let takes_more = self.drain_requested.is_none();
        let wanted = if takes_more { most.min(CLAIM_MAX).saturating_sub(self.claimer.in_doubt()) } else { 0 };
        if wanted == 0 && self.claimer.in_doubt() == 0 {
            return Ok(Vec::new());
        }
        let fresh = (0..wanted).map(|_| Slot { instance_id: InstanceId::fresh(), secret: None }).collect();
        let assignments: Vec<_> =
            self.claimer.claim(&mut self.link, fresh, takes_more).await?.into_iter().map(|(it, _)| it).collect();
        let granted = assignments.iter().map(|it| (it.tenure.clone(), it.predecessor.clone())).collect();
        let mut runs = Vec::with_capacity(assignments.len());
        let mut failure = None;
        for (lease, it) in self.coordinator.hold_all(granted).await.into_iter().zip(assignments) {
            match lease {
                Ok(lease) => runs.push(QueuedRun {
                    lease,
                    command: it.command.unwrap_or_default(),
                    env: it.env,
                    meta: it.meta,
                    timeout: it.timeout,
                    stall_timeout: it.stall_timeout,
                }),
                // Ended by somebody meanwhile: it is none of ours any more.
                Err(AcquireError::LostAtOnce) => {}
                Err(error) => failure = Some(error),
            }
        }
        match failure {
            Some(error) if runs.is_empty() => Err(error),
            _ => Ok(runs),
        }
    }

    /// Resolves when it may be worth claiming again: something was queued, or it was not looked for 5 s. Cancel-safe.
    pub async fn wait(&mut self) {
        let until = Instant::now() + POLL_INTERVAL;
        let queues = &self.claimer.registration().queues;
        loop {
            tokio::select! {
                heard = self.news.recv() => match heard {
                    Ok(Hint { kind: HintKind::Queued, name }) if name == store::ANY_QUEUE || queues.contains(&name) => return,
                    Ok(Hint { kind: HintKind::Node, .. }) => {
                        self.beat_due = Instant::now();
                        return;
                    }
                    Ok(_) => {}
                    // It may have been among what we were too slow to hear.
                    Err(_) => return,
                },
                () = sleep_until(until) => return,
            }
        }
    }

    /// Says that it is here, at most once in a heartbeat interval; and ends, at most once a second, those that are dead.
    async fn look_around(&mut self, slots: usize) -> Result<(), DbError> {
        let now = Instant::now();
        if self.beat_due <= now {
            let registration = Registration {
                slots: i32::try_from(slots.max(1)).unwrap_or(i32::MAX),
                ..self.claimer.registration().clone()
            };
            let beat = async |session: &_| store::beat(session, &registration, 0, NodeState::Ready).await;
            self.drain_requested = self.link.call(beat).await?.drain_requested_by;
            self.beat_due = now + self.coordinator.timing().heartbeat_interval;
        }
        if self.sweep_due <= now {
            self.sweep_due = now + SWEEP_INTERVAL;
            let testimony = self.coordinator.testimony().await;
            let by = &self.claimer.registration().identity.executor_id;
            // Others look as well, and the next time is soon.
            let _ = self.link.call(async |session| store::reap(session, by, testimony).await).await;
        }
        Ok(())
    }
}
