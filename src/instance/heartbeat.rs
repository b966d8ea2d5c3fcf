//! The loop that keeps leases alive: a thread and a connection of its own, one statement for all leases of an executor.
//!
//! Claims and finishes take the same connection while nothing else is held; with other leases to keep they go by a
//! second one, so that no heartbeat waits behind a claim that waits for a lock.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use rand::Rng;
use tokio::sync::{broadcast, mpsc, oneshot, watch};

use super::state::{Gauges, LeaseState, Loss};
use super::store::{
    self, Beat, BeatVerdict, CertificateFiling, Claim, ClaimRequest, ClaimVerdict, FilingVerdict, Pulse,
};
use super::timing::Timing;
use super::trust::Trust;
use super::witness::{Testimony, Witness};
use crate::backoff::Backoff;
use crate::db::{DbError, Hello, Hint, HintKind, Link, Target};
use crate::elapsed::{Instant, sleep_until};
use crate::ids::{Fence, InstanceId, RunId};
use crate::outcome::{End, InstanceStatus};

/// How many operations may wait for the loop.
const OPERATIONS_WAITING_MAX: usize = 64;

/// How many instances one statement beats for: their rows are locked until it commits, and others want to look.
const BATCH_MAX: usize = 100;

/// News can wait for this long: what ends sooner has a finish to tell it with.
const SOON: Duration = Duration::from_millis(100);

type Reply<T> = oneshot::Sender<Result<T, DbError>>;

/// What the loop can be asked to do. Each is tried once, within `attempt_timeout`.
pub(super) enum Op {
    /// Make sure of a connection.
    Hello(Reply<Hello>),
    Claim {
        request: Box<ClaimRequest>,
        reply: Reply<Claim>,
    },
    /// Keep this lease from now on; the first heartbeat goes at once.
    Hold(Held),
    Finish {
        run_id: RunId,
        instance_id: InstanceId,
        fence: Fence,
        end: Box<End>,
        phases: i64,
        reply: Reply<bool>,
    },
    /// Stop its heartbeats and give it back, trying for at most `stale_after`: by then it has run out.
    Release {
        run_id: RunId,
        instance_id: InstanceId,
        fence: Fence,
    },
    File {
        filing: Box<CertificateFiling>,
        reply: Reply<FilingVerdict>,
    },
    /// Send this one's heartbeat soon: it has something to tell.
    BeatSoon(InstanceId),
    /// It has ended: no more heartbeats.
    Forget(InstanceId),
    /// What the witness has to say now.
    Testify(Reply<Option<Testimony>>),
    /// Beat without instances, to become a witness of the database's clock.
    KeepWarm,
}

/// A lease as the loop keeps it.
pub(super) struct Held {
    pub(super) run_id: RunId,
    pub(super) instance_id: InstanceId,
    pub(super) gauges: Arc<Gauges>,
    pub(super) state: watch::Sender<LeaseState>,
    pub(super) trust: Trust,
    pub(super) due: Instant,
    /// Whether others have been told that it is held.
    pub(super) is_told: bool,
}

/// Starts the loop. It ends when the last sender is dropped and everything given back is acknowledged or run out.
///
/// What it hears of other executors goes on to whoever subscribes to the second of what is returned.
pub(super) fn spawn(target: Target, timing: Timing) -> std::io::Result<(mpsc::Sender<Op>, broadcast::Sender<Hint>)> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (sender, operations) = mpsc::channel(OPERATIONS_WAITING_MAX);
    let (aside, set_aside) = mpsc::channel(OPERATIONS_WAITING_MAX);
    let news = broadcast::Sender::new(OPERATIONS_WAITING_MAX);
    let (link, hints) = Link::listening_later(target.clone(), timing.attempt_timeout);
    let heard = news.clone();
    std::thread::Builder::new().name("systole-beat".to_owned()).spawn(move || {
        let heartbeat = Heartbeat {
            link,
            hints,
            news: heard,
            talk_due: None,
            timing,
            operations: Some(operations),
            aside,
            held: HashMap::new(),
            releases: Vec::new(),
            witness: Witness::default(),
            warm_due: None,
            backoff: Backoff::new(Duration::from_millis(100), Duration::from_secs(1)),
        };
        let beside = work_aside(Link::new(target, timing.attempt_timeout), set_aside);
        runtime.block_on(async { tokio::join!(heartbeat.run(), beside) });
    })?;
    Ok((sender, news))
}

struct Heartbeat {
    link: Link,
    hints: mpsc::Receiver<Hint>,
    news: broadcast::Sender<Hint>,
    /// When to tell others what is held, and to begin to listen: what is over before then needs neither.
    talk_due: Option<Instant>,
    timing: Timing,
    operations: Option<mpsc::Receiver<Op>>,
    aside: mpsc::Sender<(Op, Option<Testimony>)>,
    held: HashMap<InstanceId, Held>,
    releases: Vec<Release>,
    witness: Witness,
    warm_due: Option<Instant>,
    backoff: Backoff,
}

struct Release {
    run_id: RunId,
    instance_id: InstanceId,
    fence: Fence,
    due: Instant,
    until: Instant,
}

impl Heartbeat {
    async fn run(mut self) {
        while self.operations.is_some() || !self.releases.is_empty() {
            let due = self.next_due();
            tokio::select! {
                biased;
                () = sleep_until(due.unwrap_or(Instant::from_nanos(u64::MAX))) => {
                    self.beat().await;
                    self.release().await;
                    self.talk().await;
                }
                Some(hint) = self.hints.recv() => self.heard(hint),
                operation = next_operation(&mut self.operations) => match operation {
                    Some(operation) => self.serve(operation).await,
                    None => {
                        // Nobody is left to hold anything: every lease releases itself when it is dropped.
                        self.operations = None;
                        self.held.clear();
                        self.warm_due = None;
                    }
                },
            }
        }
    }

    fn next_due(&self) -> Option<Instant> {
        let held = self.held.values().map(|held| held.due);
        held.chain(self.warm_due).chain(self.talk_due).chain(self.releases.iter().map(|release| release.due)).min()
    }

    async fn serve(&mut self, operation: Op) {
        let alone =
            |held: &HashMap<InstanceId, Held>, id: Option<InstanceId>| held.keys().all(|held| Some(*held) == id);
        let inline = match &operation {
            Op::Hold(_) | Op::Release { .. } | Op::BeatSoon(_) | Op::Forget(_) | Op::Testify(_) | Op::KeepWarm => true,
            Op::Hello(_) | Op::Claim { .. } | Op::File { .. } => alone(&self.held, None),
            Op::Finish { instance_id, .. } => alone(&self.held, Some(*instance_id)),
        };
        let testimony = self.witness.testimony(Instant::now());
        if !inline {
            // A full queue means a hundred claims at once: dropping the operation tells its caller to try again.
            let _ = self.aside.try_send((operation, testimony));
            return;
        }
        match operation {
            Op::Hold(held) => {
                self.talk_due = self.talk_due.or(Some(Instant::now() + SOON));
                self.held.insert(held.instance_id, held);
            }
            Op::Release { run_id, instance_id, fence } => {
                self.held.remove(&instance_id);
                let now = Instant::now();
                self.releases.push(Release {
                    run_id,
                    instance_id,
                    fence,
                    due: now,
                    until: now + self.timing.stale_after,
                });
            }
            Op::BeatSoon(instance_id) => {
                if let Some(held) = self.held.get_mut(&instance_id) {
                    held.due = held.due.min(Instant::now() + SOON);
                }
            }
            Op::Forget(instance_id) => {
                self.held.remove(&instance_id);
            }
            Op::Testify(reply) => {
                let _ = reply.send(Ok(testimony));
            }
            Op::KeepWarm => {
                self.warm_due = self.warm_due.or(Some(Instant::now()));
                self.talk_due = Some(Instant::now());
            }
            other => perform(&mut self.link, other, testimony).await,
        }
    }

    /// One statement for everything that is due, or soon will be; a few, if that is a great deal.
    async fn beat(&mut self) {
        let now = Instant::now();
        let warm = self.warm_due.is_some_and(|due| due <= now);
        if !warm && !self.held.values().any(|held| held.due <= now) {
            return;
        }
        let soon = now + self.timing.heartbeat_interval / 2;
        let due = self.held.values().filter(|held| held.due <= soon);
        let mut pulses: Vec<Pulse> = due.map(|held| held.gauges.pulse(held.instance_id)).collect();
        pulses.sort_by_key(|pulse| pulse.instance_id);

        // Without instances there is still the clock to be asked for.
        let batches = if pulses.is_empty() { vec![&pulses[..]] } else { pulses.chunks(BATCH_MAX).collect() };
        for batch in batches {
            let sent = Instant::now();
            match self.link.call(async |session| store::beat(session, batch).await).await {
                Ok(beat) => self.acknowledged(sent, beat),
                Err(error) => self.unacknowledged(batch, &error),
            }
        }
    }

    fn unacknowledged(&mut self, batch: &[Pulse], error: &DbError) {
        self.witness.failed();
        let again = Instant::now() + self.backoff.next_delay();
        self.warm_due = self.warm_due.map(|_| again);
        for pulse in batch {
            if let Some(held) = self.held.get_mut(&pulse.instance_id) {
                held.due = again;
                held.state.send_modify(|state| state.trouble = Some(error.clone()));
            }
        }
    }

    fn acknowledged(&mut self, sent: Instant, beat: Beat) {
        let acked = Instant::now();
        self.witness.saw(sent, acked, beat.at);
        self.backoff.reset();
        let next = sent + self.timing.heartbeat_interval;
        self.warm_due = self.warm_due.map(|_| next);
        for (instance_id, verdict, stop_requested) in beat.instances {
            let Some(held) = self.held.get_mut(&instance_id) else { continue };
            match verdict {
                BeatVerdict::Ok => {
                    held.due = next;
                    held.trust.acknowledged(sent, self.timing.fence_after);
                    let trusted_until = held.trust.until();
                    held.state.send_modify(|state| {
                        state.trusted_until = trusted_until;
                        state.stop_requested |= stop_requested;
                        state.trouble = None;
                        state.busy = false;
                    });
                }
                BeatVerdict::Busy => {
                    held.due = acked + Duration::from_millis(rand::rng().random_range(100..=250));
                    held.state.send_modify(|state| state.busy = true);
                }
                BeatVerdict::Lost => {
                    held.state.send_modify(|state| state.lost = Some(Loss::Superseded));
                    self.held.remove(&instance_id);
                }
            }
        }
    }

    /// Whoever is asked for something hears what it is with its heartbeat.
    fn heard(&mut self, hint: Hint) {
        if hint.kind == HintKind::Asked {
            for held in self.held.values_mut().filter(|held| held.run_id.as_str() == hint.name) {
                held.due = Instant::now();
            }
        }
        // Nobody may be waiting for news.
        let _ = self.news.send(hint);
    }

    /// A hint that cannot be sent is not sent again: it is late by then, and polling is the truth.
    async fn talk(&mut self) {
        if self.talk_due.is_none_or(|due| due > Instant::now()) {
            return;
        }
        self.talk_due = None;
        self.link.listen().await;
        for held in self.held.values_mut().filter(|held| !held.is_told) {
            held.is_told = true;
            let hint = Hint::of_run(HintKind::Claimed, &held.run_id);
            let _ = self.link.call(async |session| Ok(hint.send(session).await.is_ok())).await;
        }
    }

    async fn release(&mut self) {
        let now = Instant::now();
        for mut release in std::mem::take(&mut self.releases) {
            if release.due > now {
                self.releases.push(release);
                continue;
            }
            let end = End::of(InstanceStatus::Released);
            let (instance_id, fence) = (release.instance_id, release.fence);
            let hint = Hint::of_run(HintKind::Ended, &release.run_id);
            let answer = self
                .link
                .call(async |session| {
                    hint.send_behind(session, store::finish(session, instance_id, fence, &end, 0)).await
                })
                .await;
            // Given back, or lost before: either way there is nothing left to give.
            if answer.is_err() && now < release.until {
                release.due = Instant::now() + self.backoff.next_delay();
                self.releases.push(release);
            }
        }
    }
}

async fn next_operation(operations: &mut Option<mpsc::Receiver<Op>>) -> Option<Op> {
    match operations {
        Some(operations) => operations.recv().await,
        None => std::future::pending().await,
    }
}

/// The second connection, for what could make heartbeats wait. It is dialled when it is first needed.
async fn work_aside(mut link: Link, mut operations: mpsc::Receiver<(Op, Option<Testimony>)>) {
    while let Some((operation, testimony)) = operations.recv().await {
        perform(&mut link, operation, testimony).await;
    }
}

async fn perform(link: &mut Link, operation: Op, testimony: Option<Testimony>) {
    // A reply that nobody waits for any more is no error: the caller's future was dropped.
    match operation {
        Op::Hello(reply) => {
            let _ = reply.send(link.hello().await);
        }
        Op::Claim { request, reply } => {
            let answer = link.call(async |session| store::claim(session, &request, testimony).await).await;
            if let Err(Ok(unheard)) = reply.send(answer)
                && matches!(unheard.verdict, ClaimVerdict::Ok | ClaimVerdict::Mine)
                && let Some(fence) = unheard.fence
            {
                let end = End::of(InstanceStatus::Released);
                // Tried once: what cannot be given back now runs out by itself.
                let _ =
                    link.call(async |session| store::finish(session, request.instance_id, fence, &end, 0).await).await;
            }
        }
        Op::Finish { run_id, instance_id, fence, end, phases, reply } => {
            let hint = Hint::of_run(HintKind::Ended, &run_id);
            let answer = link
                .call(async |session| {
                    hint.send_behind(session, store::finish(session, instance_id, fence, &end, phases)).await
                })
                .await;
            let _ = reply.send(answer);
        }
        Op::File { filing, reply } => {
            let hint = Hint::of_run(HintKind::Ended, &filing.run_id);
            let answer = link
                .call(async |session| hint.send_behind(session, store::file_certificate(session, &filing)).await)
                .await;
            let _ = reply.send(answer);
        }
        Op::Hold(_) | Op::Release { .. } | Op::BeatSoon(_) | Op::Forget(_) | Op::Testify(_) | Op::KeepWarm => {
            unreachable!("serve() does these itself")
        }
    }
}
