//! One executor's door to the database: claims runs, and keeps the heartbeats of all it holds.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use chrono::{DateTime, Utc};
use tokio::sync::{broadcast, mpsc, oneshot, watch};

use super::heartbeat;
use super::lease::{FinishError, Lease};
use super::operation::{FINISHES_MAX, Held, Op};
use super::state::{Gauges, LeaseState};
use super::store::{
    CertificateFiling, Claim, ClaimRequest, ClaimVerdict, FilingVerdict, Finish, FinishVerdict, Holder,
};
use super::timing::{Timing, UnsafeTiming};
use super::trust::Trust;
use super::witness::Testimony;
use crate::backoff::Backoff;
use crate::db::{DbError, Hello, Hint, InvalidTarget, Target};
use crate::elapsed::Instant;
use crate::identity::Identity;
use crate::ids::{InstanceId, RunId};
use crate::outcome::{End, InstanceStatus};
use crate::tenure::{Executor, Tenure};

/// How often an ambiguous claim is asked again before its caller hears of it.
const CLAIM_TRIES: u32 = 3;

/// How often, and how far apart, the ends of many are said again that were locked by somebody.
const BUSY_TRIES: u32 = 5;
const BUSY_PAUSE: Duration = Duration::from_millis(20);

/// Registers this process as an executor and acquires runs for it.
///
/// Heartbeats have a thread and a connection of their own, so a busy runtime does not lose leases. Cheap to clone; the
/// thread ends when the last clone and the last lease are dropped.
#[derive(Debug, Clone)]
pub struct Coordinator {
    operations: mpsc::Sender<Op>,
    news: broadcast::Sender<Hint>,
    executor: Executor,
    timing: Timing,
}

/// Why no coordinator could be had.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The connection string is not one.
    #[error(transparent)]
    Target(#[from] InvalidTarget),
    /// The intervals are not safe together.
    #[error(transparent)]
    Timing(#[from] UnsafeTiming),
    /// The database did not answer as hoped.
    #[error(transparent)]
    Db(#[from] DbError),
    /// The heartbeat thread could not be started.
    #[error("cannot start the heartbeat thread: {0}")]
    Thread(#[from] std::io::Error),
}

/// Why a run was not acquired.
#[derive(Debug, thiserror::Error)]
pub enum AcquireError {
    /// Another executor holds it.
    #[error("the run is held by executor {}, attempt {}, last heartbeat {:.0} s ago", .0.executor_id, .0.attempt, .0.heartbeat_age_seconds)]
    Held(Box<Holder>),
    /// Its holder is silent, or the run was taken away from it, but it may not be taken over yet: ask again in a while.
    #[error("the run's executor {}, last heartbeat {:.0} s ago, may not be taken over from yet ({reason})", .holder.executor_id, .holder.heartbeat_age_seconds)]
    Dead {
        /// Who may still be at work.
        holder: Box<Holder>,
        /// As in the head comment of staleness.sql.
        reason: String,
    },
    /// The database has failed over, and a claim may be missing whose holder is at work: nothing is granted for a while.
    #[error("PostgreSQL has failed over, and nothing is granted anew{}", .until.map(|until| format!(" until {}", until.format("%H:%M:%S UTC"))).unwrap_or_default())]
    Quarantine {
        /// The end of it, by the database's clock.
        until: Option<DateTime<Utc>>,
    },
    /// Another transaction holds a lock on the run.
    #[error("the run is locked by another transaction (backend {blocked_by:?})")]
    Locked {
        /// Process ids of PostgreSQL backends.
        blocked_by: Vec<i32>,
    },
    /// The database did not answer as hoped; whether the run was granted is unknown, and if so it runs out by itself.
    #[error(transparent)]
    Db(#[from] DbError),
    /// It was granted, and ended by somebody before its first heartbeat.
    #[error("the run was granted, and lost before its first heartbeat")]
    LostAtOnce,
    /// It was granted, but no heartbeat was acknowledged within `fence_after`. It is given back.
    #[error(
        "the run was granted, but PostgreSQL acknowledged no heartbeat within {}{}; it is given back",
        humantime::format_duration(*.after),
        .trouble.as_ref().map(|trouble| format!(": {trouble}")).unwrap_or_default()
    )]
    Unacknowledged {
        /// That `fence_after`.
        after: Duration,
        /// What came instead of the last answer, if it is known.
        trouble: Option<DbError>,
    },
    /// The heartbeat thread is gone: a bug of ours.
    #[error("the heartbeat thread has ended")]
    Stopped,
}

impl Coordinator {
    /// Connects with default intervals and checks the schema.
    ///
    /// `url` is a PostgreSQL connection string. Needs no tokio runtime features but `sync`; the connection lives on a
    /// thread of its own.
    pub async fn connect(url: &str) -> Result<Coordinator, ConnectError> {
        Coordinator::connect_with(url.parse()?, Timing::default()).await
    }

    /// Connects with intervals of your own. Lowest sensible: see [`Timing`].
    pub async fn connect_with(target: Target, timing: Timing) -> Result<Coordinator, ConnectError> {
        let coordinator = Coordinator::start(target, timing)?;
        coordinator.hello().await?;
        Ok(coordinator)
    }

    /// Starts the heartbeat thread without waiting for a connection.
    pub(crate) fn start(target: Target, timing: Timing) -> Result<Coordinator, ConnectError> {
        let timing = timing.checked()?;
        let (operations, news) = heartbeat::spawn(target, timing)?;
        let identity = Identity::of_this_process();
        let executor = Executor {
            identity,
            stale_after: timing.stale_after,
            containment: "none".to_owned(),
            death_secret_hash: None,
        };
        Ok(Coordinator { operations, news, executor, timing })
    }

    /// Who we are to others.
    pub fn identity(&self) -> &Identity {
        &self.executor.identity
    }

    /// Acquires the run if nobody holds it, or if its holder is known to be dead.
    ///
    /// Returns when the first heartbeat has been acknowledged. Does not wait for a holder to end. Dropping the future
    /// gives back what it may have acquired.
    pub async fn acquire(&self, run_id: &RunId) -> Result<Lease, AcquireError> {
        let request = ClaimRequest {
            run_id: run_id.clone(),
            instance_id: InstanceId::fresh(),
            executor: self.executor.clone(),
            purpose: None,
            trust_db_clock: false,
            once: false,
            note_refusal: true,
        };
        let claim = self.claim(&request).await?;
        if let Some(tenure) = request.granted(&claim) {
            return self.hold(tenure, claim.predecessor).await;
        }
        match (claim.verdict, claim.holder) {
            (ClaimVerdict::Quarantine, _) => Err(AcquireError::Quarantine { until: claim.quarantined_until }),
            (ClaimVerdict::Dead, Some(holder)) => {
                let reason = claim.reason.unwrap_or_default();
                Err(AcquireError::Dead { holder: Box::new(holder), reason })
            }
            (_, Some(holder)) => Err(AcquireError::Held(Box::new(holder))),
            (_, None) => Err(AcquireError::Locked { blocked_by: claim.blocked_by }),
        }
    }

    pub(crate) fn timing(&self) -> Timing {
        self.timing
    }

    pub(crate) fn executor(&self) -> &Executor {
        &self.executor
    }

    pub(crate) async fn hello(&self) -> Result<Hello, DbError> {
        self.ask(Op::Hello).await.unwrap_or_else(|| Err(busy()))
    }

    /// Claims; an ambiguous answer is asked again, which is safe by the instance id.
    pub(crate) async fn claim(&self, request: &ClaimRequest) -> Result<Claim, DbError> {
        let mut backoff = Backoff::new(Duration::from_millis(50), Duration::from_millis(500));
        let mut tries = 0;
        loop {
            tries += 1;
            let request = Box::new(request.clone());
            match self.ask(|reply| Op::Claim { request, reply }).await.unwrap_or_else(|| Err(busy())) {
                Err(DbError::Broken { .. } | DbError::Timeout { .. } | DbError::Unavailable { .. })
                    if tries < CLAIM_TRIES =>
                {
                    tokio::time::sleep(backoff.next_delay()).await;
                }
                answer => return answer,
            }
        }
    }

    /// Begins the heartbeats of what was granted, and waits for the first to be acknowledged.
    pub(crate) async fn hold(&self, tenure: Tenure, predecessor: Option<Holder>) -> Result<Lease, AcquireError> {
        let mut leases = self.hold_all(vec![(tenure, predecessor)]).await;
        leases.pop().expect("one lease for each claim")
    }

    /// The same of many, whose first heartbeats go together; an answer for each, in the order given.
    pub(crate) async fn hold_all(&self, granted: Vec<(Tenure, Option<Holder>)>) -> Vec<Result<Lease, AcquireError>> {
        let (leases, held): (Vec<Lease>, Vec<Held>) =
            granted.into_iter().map(|(tenure, predecessor)| self.lease(tenure, predecessor)).unzip();
        // If the loop is gone, each lease finds out for itself.
        let _ = self.operations.send(Op::Hold(held)).await;
        let until = tokio::time::Instant::now() + self.timing.fence_after;
        let mut acknowledged = Vec::with_capacity(leases.len());
        let mut in_vain = Vec::new();
        for lease in leases {
            acknowledged.push(match self.first_heartbeat(&lease, until).await {
                Ok(()) => Ok(lease),
                Err(error) => {
                    in_vain.push((lease, End::of(InstanceStatus::Released)));
                    Err(error)
                }
            });
        }
        if !in_vain.is_empty() {
            // Our caller may end as soon as he hears of it, and with him whatever is left to do behind his back.
            let _ = tokio::time::timeout(self.timing.attempt_timeout, self.finish_all(in_vain)).await;
        }
        acknowledged
    }

    fn lease(&self, tenure: Tenure, predecessor: Option<Holder>) -> (Lease, Held) {
        let tenure = Arc::new(tenure);
        let gauges = Arc::new(Gauges::of(&tenure));
        let (sender, state) = watch::channel(LeaseState::default());
        let lease = Lease {
            tenure: tenure.clone(),
            predecessor,
            gauges: gauges.clone(),
            state,
            operations: self.operations.clone(),
            ended: false,
        };
        let held = Held { tenure, gauges, state: sender, trust: Trust::default(), due: Instant::now() };
        (lease, held)
    }

    async fn first_heartbeat(&self, lease: &Lease, until: tokio::time::Instant) -> Result<(), AcquireError> {
        let mut state = lease.state.clone();
        let first = async {
            let heard = state.wait_for(|state| state.trusted_until.is_some() || state.lost.is_some()).await;
            heard.map(|state| state.lost.is_some())
        };
        match tokio::time::timeout_at(until, first).await {
            Ok(Ok(false)) => Ok(()),
            Ok(Ok(true)) => Err(AcquireError::LostAtOnce),
            Ok(Err(_)) => Err(AcquireError::Stopped),
            Err(_) => {
                let trouble = lease.state.borrow().trouble.clone();
                Err(AcquireError::Unacknowledged { after: self.timing.fence_after, trouble })
            }
        }
    }

    /// Ends many tenures, each as it says, and keeps them alive until their ends are recorded; an answer for each, in the
    /// order given. They go in transactions of 500, so that a thousand ends cost little more than one.
    ///
    /// The leases must be this coordinator's. Dropping the future gives back those whose ends are not recorded yet; some of
    /// them may have been.
    pub async fn finish_all(&self, ended: Vec<(Lease, End)>) -> Vec<Result<(), FinishError>> {
        let mut results = Vec::with_capacity(ended.len());
        let mut ended = ended.into_iter().peekable();
        while ended.peek().is_some() {
            let batch: Vec<(Lease, End)> = ended.by_ref().take(FINISHES_MAX).collect();
            results.extend(self.finish_batch(batch).await);
        }
        results
    }

    async fn finish_batch(&self, batch: Vec<(Lease, End)>) -> Vec<Result<(), FinishError>> {
        let finishes: Vec<Finish> = batch.iter().map(|(lease, end)| lease.as_ended(end.clone())).collect();
        for (lease, _) in &batch {
            lease.gauges.is_ending.store(true, Ordering::Relaxed);
        }
        let mut verdicts = self.say_ended(&finishes).await;
        // Whoever claims looks at what was claimed just before, and keeps it locked for the moment.
        for _ in 0..BUSY_TRIES {
            let is_busy = |n: &usize| verdicts.get(*n) == Some(&FinishVerdict::Busy);
            let busy: Vec<usize> = (0..finishes.len()).filter(is_busy).collect();
            if busy.is_empty() {
                break;
            }
            tokio::time::sleep(BUSY_PAUSE).await;
            let some: Vec<Finish> = busy.iter().map(|n| finishes[*n].clone()).collect();
            let again = self.say_ended(&some).await;
            for (n, verdict) in busy.into_iter().zip(again) {
                verdicts[n] = verdict;
            }
        }
        let mut results: Vec<Option<Result<(), FinishError>>> = Vec::with_capacity(batch.len());
        let mut left = Vec::new();
        for (n, (lease, end)) in batch.into_iter().enumerate() {
            results.push(match verdicts.get(n) {
                Some(FinishVerdict::Ok) => {
                    lease.abandon();
                    Some(Ok(()))
                }
                Some(FinishVerdict::Lost) => {
                    let run_id = lease.run_id().clone();
                    lease.abandon();
                    Some(Err(FinishError::Lost { run_id }))
                }
                // Still busy, or one of them cannot be recorded, and none was: each has to be asked for by itself, when all others
                // are off our hands.
                Some(FinishVerdict::Busy) | None => {
                    left.push((n, lease, end));
                    None
                }
            });
        }
        for (n, lease, end) in left {
            results[n] = Some(lease.finish(end).await);
        }
        results.into_iter().map(|result| result.expect("what was left has been asked for")).collect()
    }

    /// A verdict for each, however long that takes; none if one of them can never be recorded.
    async fn say_ended(&self, finishes: &[Finish]) -> Vec<FinishVerdict> {
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(1));
        let mut at_once = finishes.len().max(1);
        let mut verdicts = Vec::with_capacity(finishes.len());
        while verdicts.len() < finishes.len() {
            let rest = &finishes[verdicts.len()..];
            let some = rest[..at_once.min(rest.len())].to_vec();
            match self.ask(|reply| Op::FinishAll { finishes: some, reply }).await {
                Some(Ok(said)) if !said.is_empty() => verdicts.extend(said),
                Some(Err(error)) if error.is_about_the_value() => return Vec::new(),
                _ if self.operations.is_closed() => return Vec::new(),
                // Its outcome is unknown, or it cannot be had yet, or the loop was too busy to take it: ask again.
                failure => {
                    if let Some(Err(DbError::Timeout { .. })) = failure {
                        // It may be too much at once for a server that is as slow as this one.
                        at_once = (at_once / 2).max(1);
                    }
                    tokio::time::sleep(backoff.next_delay()).await;
                }
            }
        }
        verdicts
    }

    pub(crate) async fn file(&self, filing: CertificateFiling) -> Result<FilingVerdict, DbError> {
        let filing = Box::new(filing);
        self.ask(|reply| Op::File { filing, reply }).await.unwrap_or_else(|| Err(busy()))
    }

    /// What this process can say of the database's clock; `None` while it has not watched it.
    pub(crate) async fn testimony(&self) -> Option<Testimony> {
        self.ask(Op::Testify).await.and_then(|answer| answer.ok()).flatten()
    }

    /// What is heard of runs from now on, by NOTIFY. Hints, and not all of them.
    pub(crate) fn news(&self) -> broadcast::Receiver<Hint> {
        self.news.subscribe()
    }

    /// Starts to beat without instances, so that this process becomes a witness of the database's clock.
    pub(crate) async fn keep_warm(&self) {
        let _ = self.operations.send(Op::KeepWarm).await;
    }

    /// `None` if the loop dropped the operation: it had too many waiting.
    async fn ask<T>(
        &self,
        operation: impl FnOnce(oneshot::Sender<Result<T, DbError>>) -> Op,
    ) -> Option<Result<T, DbError>> {
        let (reply, answer) = oneshot::channel();
        self.operations.send(operation(reply)).await.ok()?;
        answer.await.ok()
    }
}

fn busy() -> DbError {
    DbError::Unavailable {
        target: "here".to_owned(),
        message: "too many operations of this process are waiting".to_owned(),
    }
}
