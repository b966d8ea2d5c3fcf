//! What the heartbeat loop can be asked to do beside beating, and the second connection for what could make it wait.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};

use super::failover::is_readopted;
use super::state::{Gauges, LeaseState};
use super::store::{self, CertificateFiling, Claim, ClaimRequest, FilingVerdict, Finish, FinishVerdict};
use super::timing::Timing;
use super::trust::Trust;
use super::witness::Testimony;
use crate::backoff::Backoff;
use crate::db::{DbError, Hello, Hint, HintKind, Link};
use crate::elapsed::{Instant, sleep_until};
use crate::ids::InstanceId;
use crate::outcome::{End, InstanceStatus};
use crate::tenure::{History, Tenure};

pub(super) type Reply<T> = oneshot::Sender<Result<T, DbError>>;

/// How many tenures are ended in one transaction: their rows are locked until it commits.
pub(super) const FINISHES_MAX: usize = 500;

/// What the loop can be asked to do. What waits for the database is tried once, within `attempt_timeout`, but for a release.
pub(super) enum Op {
    /// Make sure of a connection.
    Hello(Reply<Hello>),
    Claim {
        request: Box<ClaimRequest>,
        reply: Reply<Claim>,
    },
    /// Keep these leases from now on; the first heartbeat goes at once.
    Hold(Vec<Held>),
    Finish {
        finish: Box<Finish>,
        reply: Reply<bool>,
    },
    /// Many ends in one transaction. Nobody is told: whoever waits for one of these runs looks again by himself.
    FinishAll {
        finishes: Vec<Finish>,
        reply: Reply<Vec<FinishVerdict>>,
    },
    /// Stop its heartbeats and give it back, trying for at most `stale_after`: by then it has run out.
    Release(Release),
    File {
        filing: Box<CertificateFiling>,
        reply: Reply<FilingVerdict>,
    },
    /// Send this one's heartbeat soon: it has something to tell.
    BeatSoon(InstanceId),
    /// What the witness has to say now.
    Testify(Reply<Option<Testimony>>),
    /// Beat without instances, to become a witness of the database's clock.
    KeepWarm,
}

/// A lease as the loop keeps it.
pub(super) struct Held {
    pub(super) tenure: Arc<Tenure>,
    pub(super) gauges: Arc<Gauges>,
    pub(super) state: watch::Sender<LeaseState>,
    pub(super) trust: Trust,
    pub(super) due: Instant,
}

impl Held {
    /// Whether somebody may hold the run by a claim that a failover has lost, granted after we had been silent for long enough.
    /// Whoever it is comes back while nothing is granted anew, or never may.
    pub(super) fn may_be_succeeded(&self, history: Option<History>, acked: Instant, timing: &Timing) -> bool {
        history != self.gauges.history() && self.trust.may_be_succeeded(acked, timing)
    }
}

/// A tenure to be given back.
pub(super) struct Release {
    pub(super) finish: Finish,
    /// When it has run out by itself.
    pub(super) until: Instant,
}

/// Does one thing that waits for the database.
pub(super) async fn perform(link: &mut Link, operation: Op, testimony: Option<Testimony>) {
    // A reply that nobody waits for any more is no error: the caller's future was dropped.
    match operation {
        Op::Hello(reply) => {
            let _ = reply.send(link.hello().await);
        }
        Op::Claim { request, reply } => {
            let answer = link.call(async |session| store::claim(session, &request, testimony).await).await;
            if let Err(Ok(unheard)) = reply.send(answer)
                && let Some(tenure) = request.granted(&unheard)
            {
                let (tenure, history) = (Arc::new(tenure), unheard.history);
                let finish = Finish { tenure, history, end: End::of(InstanceStatus::Released), phases: 0 };
                // Tried once: what cannot be given back now runs out by itself.
                let _ = link.call(async |session| store::finish_all(session, &[finish]).await).await;
            }
        }
        Op::Finish { finish, reply } => {
            let hint = Hint::of_run(HintKind::Ended, &finish.tenure.run_id);
            let answer = end_all(link, &[*finish], Some(&hint)).await;
            let _ = reply.send(answer.and_then(|verdicts| match verdicts.first() {
                Some(FinishVerdict::Ok) => Ok(true),
                Some(FinishVerdict::Lost) => Ok(false),
                // Not waited for here, where others would wait behind it.
                Some(FinishVerdict::Busy) | None => {
                    Err(link.unavailable("another transaction keeps a row of this run locked"))
                }
            }));
        }
        Op::FinishAll { finishes, reply } => {
            let _ = reply.send(end_all(link, &finishes, None).await);
        }
        Op::File { filing, reply } => {
            let hint = Hint::of_run(HintKind::Ended, &filing.run_id);
            let file = async |link: &mut Link| {
                link.call(async |session| hint.send_behind(session, store::file_certificate(session, &filing)).await)
                    .await
            };
            let answer = match (file(link).await, &filing.tenure) {
                (Ok(FilingVerdict::Unknown), Some(tenure)) => match is_readopted(link, tenure, tenure.history).await {
                    Ok(true) => file(link).await,
                    Ok(false) => Ok(FilingVerdict::Unknown),
                    Err(error) => Err(error),
                },
                (answer, _) => answer,
            };
            let _ = reply.send(answer);
        }
        Op::Release(_) | Op::Hold(_) | Op::BeatSoon(_) | Op::Testify(_) | Op::KeepWarm => {
            unreachable!("these do not wait for the database, or are collected")
        }
    }
}

/// The holders' own word on their ends. What is lost only because of a failover is taken up again, and ended as said.
async fn end_all(link: &mut Link, finishes: &[Finish], hint: Option<&Hint>) -> Result<Vec<FinishVerdict>, DbError> {
    let say = async |link: &mut Link, finishes: &[Finish]| {
        link.call(async |session| match hint {
            Some(hint) => hint.send_behind(session, store::finish_all(session, finishes)).await,
            None => store::finish_all(session, finishes).await,
        })
        .await
    };
    let mut verdicts = say(link, finishes).await?;
    let mut again = Vec::new();
    for (n, _) in verdicts.iter().enumerate().filter(|(_, verdict)| **verdict == FinishVerdict::Lost) {
        if is_readopted(link, &finishes[n].tenure, finishes[n].history).await? {
            again.push(n);
        }
    }
    if !again.is_empty() {
        let some: Vec<Finish> = again.iter().map(|n| finishes[*n].clone()).collect();
        for (n, verdict) in again.into_iter().zip(say(link, &some).await?) {
            verdicts[n] = verdict;
        }
    }
    Ok(verdicts)
}

/// The second connection: what could make heartbeats wait, and what is given back. It is dialled when it is first needed,
/// and ends behind its last sender when everything given back is acknowledged or has run out.
pub(super) async fn work_aside(mut link: Link, mut operations: mpsc::Receiver<(Op, Option<Testimony>)>) {
    let mut releases: Vec<Release> = Vec::new();
    let mut release_due = Instant::from_nanos(0);
    let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(1));
    let mut is_open = true;
    while is_open || !releases.is_empty() {
        tokio::select! {
            biased;
            // First, or a stream of operations would keep them until they have run out.
            () = sleep_until(release_due), if !releases.is_empty() => {
                let wait = if give_back(&mut link, &mut releases).await {
                    backoff.reset();
                    Duration::ZERO
                } else {
                    backoff.next_delay()
                };
                release_due = Instant::now() + wait;
            }
            operation = operations.recv(), if is_open => match operation {
                Some((Op::Release(release), _)) => releases.push(release),
                Some((operation, testimony)) => perform(&mut link, operation, testimony).await,
                None => is_open = false,
            },
        }
    }
}

/// Gives some back; what is busy, or was not answered, stays for the next time. False if it is too early for that.
async fn give_back(link: &mut Link, releases: &mut Vec<Release>) -> bool {
    let some = releases.len().min(FINISHES_MAX);
    let finishes: Vec<Finish> = releases[..some].iter().map(|release| release.finish.clone()).collect();
    let verdicts = link.call(async |session| store::finish_all(session, &finishes).await).await;
    let now = Instant::now();
    let mut verdicts = verdicts.unwrap_or_default().into_iter();
    let before = releases.len();
    // Given back, or lost before: either way there is nothing left to give.
    releases.retain(|release| verdicts.next().is_none_or(|it| it == FinishVerdict::Busy) && now < release.until);
    releases.len() < before
}
