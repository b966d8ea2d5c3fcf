//! The loop that keeps leases alive: a thread and a connection of its own, one statement for all leases of an executor.
//!
//! Claims and finishes take the same connection while nothing else is held; with other leases to keep they go by a
//! second one, so that no heartbeat waits behind a claim that waits for a lock.

use std::collections::HashMap;
use std::sync::atomic::Ordering;
use std::time::Duration;

use rand::Rng;
use tokio::sync::{broadcast, mpsc};

use super::counting::Beats;
use super::failover::is_readopted;
use super::message;
use super::operation::{Held, Op, perform, work_aside};
use super::state::Loss;
use super::store::{self, Beat, BeatVerdict, Pulse};
use super::timing::Timing;
use super::witness::{Testimony, Witness};
use crate::backoff::Backoff;
use crate::db::{DbError, Hint, HintKind, Link, Target};
use crate::elapsed::{Instant, sleep_until};
use crate::ids::InstanceId;

/// How many operations may wait for the loop: a batch of leases may be dropped at once.
const OPERATIONS_WAITING_MAX: usize = 1024;

/// How much news may wait to be heard, by those who want it.
const NEWS_WAITING_MAX: usize = 64;

/// How many instances one statement beats for: their rows are locked until it commits, and others want to look.
const BATCH_MAX: usize = 100;

/// News can wait for this long: what ends sooner has a finish to tell it with.
const SOON: Duration = Duration::from_millis(100);

/// Starts the loop. It ends when the last sender is dropped and everything given back is acknowledged or run out.
///
/// What it hears of other executors goes on to whoever subscribes to the second of what is returned.
pub(super) fn spawn(target: Target, timing: Timing) -> std::io::Result<(mpsc::Sender<Op>, broadcast::Sender<Hint>)> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (sender, operations) = mpsc::channel(OPERATIONS_WAITING_MAX);
    let (aside, set_aside) = mpsc::channel(OPERATIONS_WAITING_MAX);
    let news = broadcast::Sender::new(NEWS_WAITING_MAX);
    let (link, hints) = Link::listening_later(target.clone(), timing.attempt_timeout);
    let heard = news.clone();
    let counted = Beats(target.metrics().clone());
    std::thread::Builder::new().name("systole-beat".to_owned()).spawn(move || {
        let heartbeat = Heartbeat {
            link,
            hints,
            news: heard,
            listen_due: None,
            timing,
            operations,
            aside,
            held: HashMap::new(),
            hinted_at: Instant::from_nanos(0),
            witness: Witness::default(),
            warm_due: None,
            backoff: Backoff::new(Duration::from_millis(100), Duration::from_secs(1)),
            counted,
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
    /// When to begin to listen.
    listen_due: Option<Instant>,
    timing: Timing,
    operations: mpsc::Receiver<Op>,
    aside: mpsc::Sender<(Op, Option<Testimony>)>,
    held: HashMap<InstanceId, Held>,
    /// When a hint last made us beat, or soon will.
    hinted_at: Instant,
    witness: Witness,
    warm_due: Option<Instant>,
    backoff: Backoff,
    counted: Beats,
}

impl Heartbeat {
    async fn run(mut self) {
        loop {
            let due = self.next_due();
            tokio::select! {
                biased;
                () = sleep_until(due.unwrap_or(Instant::from_nanos(u64::MAX))) => {
                    self.beat().await;
                    self.listen().await;
                }
                operation = self.operations.recv() => match operation {
                    Some(operation) => self.serve(operation).await,
                    // Nobody is left to hold anything: every lease releases itself when it is dropped.
                    None => return,
                },
                // Last, because strangers send them.
                Some(hint) = self.hints.recv() => self.heard(hint),
            }
        }
    }

    fn next_due(&self) -> Option<Instant> {
        let held = self.held.values().map(|held| held.due);
        held.chain(self.warm_due).chain(self.listen_due).min()
    }

    async fn serve(&mut self, operation: Op) {
        self.forget_what_is_over();
        let testimony = self.witness.testimony(Instant::now());
        match operation {
            Op::Hold(leases) => {
                self.listen_due = self.listen_due.or(Some(Instant::now() + SOON));
                self.held.extend(leases.into_iter().map(|held| (held.tenure.instance_id, held)));
            }
            Op::BeatSoon(instance_id) => {
                if let Some(held) = self.held.get_mut(&instance_id) {
                    held.due = held.due.min(Instant::now() + SOON);
                }
            }
            Op::Testify(reply) => {
                let _ = reply.send(Ok(testimony));
            }
            Op::KeepWarm => {
                self.warm_due = self.warm_due.or(Some(Instant::now()));
                self.listen_due = Some(Instant::now());
            }
            Op::Release(release) => {
                self.held.remove(&release.finish.tenure.instance_id);
                self.set_aside(Op::Release(release), None);
            }
            Op::Finish { ref finish, .. } if self.holds_only(&[finish.tenure.instance_id]) => {
                perform(&mut self.link, operation, testimony).await;
            }
            Op::Hello(_) | Op::Claim { .. } | Op::File { .. } if self.held.is_empty() => {
                perform(&mut self.link, operation, testimony).await;
            }
            Op::Hello(_) | Op::Claim { .. } | Op::File { .. } | Op::Finish { .. } | Op::FinishAll { .. } => {
                self.set_aside(operation, testimony);
            }
        }
    }

    /// Whoever held them has said so where it cannot get lost.
    fn forget_what_is_over(&mut self) {
        self.held.retain(|_, held| !held.gauges.is_over.load(Ordering::Relaxed));
    }

    fn holds_only(&self, instances: &[InstanceId]) -> bool {
        self.held.keys().all(|held| instances.contains(held))
    }

    /// For the second connection. A full queue drops it, which tells its caller to try again; what was to be given back has had
    /// its last heartbeat, and runs out by itself.
    fn set_aside(&mut self, operation: Op, testimony: Option<Testimony>) {
        let _ = self.aside.try_send((operation, testimony));
    }

    /// One statement for everything that is due, or soon will be; a few, if that is a great deal.
    async fn beat(&mut self) {
        self.forget_what_is_over();
        let now = Instant::now();
        let warm = self.warm_due.is_some_and(|due| due <= now);
        if !warm && !self.held.values().any(|held| held.due <= now) {
            return;
        }
        let first = self.held.values().map(|held| held.due).chain(self.warm_due).min();
        self.counted.begin(first, now);
        let soon = now + self.timing.heartbeat_interval / 2;
        let due = self.held.values().filter(|held| held.due <= soon);
        let mut pulses: Vec<Pulse> = due.map(|held| held.gauges.pulse(held.tenure.instance_id)).collect();
        pulses.sort_by_key(|pulse| pulse.instance_id);

        // Without instances there is still the clock to be asked for.
        let batches = if pulses.is_empty() { vec![&pulses[..]] } else { pulses.chunks(BATCH_MAX).collect() };
        let mut lost = Vec::new();
        let mut is_well = true;
        for (n, batch) in batches.into_iter().enumerate() {
            let sent = Instant::now();
            let answer = self.link.call(async |session| store::beat(session, batch).await).await;
            self.counted.answered(sent, &answer);
            match answer {
                Ok(beat) => {
                    lost.extend(self.acknowledged(sent, beat));
                    message::tell(&mut self.link, &self.held).await;
                }
                Err(error) => {
                    // The rest would fare no better, and whoever waits for this loop waits for long enough already.
                    self.unacknowledged(&pulses[n * BATCH_MAX..], &error);
                    is_well = false;
                    break;
                }
            }
        }
        self.take_up_again(lost).await;
        self.counted.end(now, is_well);
    }

    fn unacknowledged(&mut self, pulses: &[Pulse], error: &DbError) {
        self.witness.failed();
        let again = Instant::now() + self.backoff.next_delay();
        self.warm_due = self.warm_due.map(|_| again);
        for pulse in pulses {
            if let Some(held) = self.held.get_mut(&pulse.instance_id) {
                held.due = again;
                held.state.send_modify(|state| state.trouble = Some(error.clone()));
            }
        }
    }

    /// Returns which are lost, by what the database knows.
    fn acknowledged(&mut self, sent: Instant, beat: Beat) -> Vec<InstanceId> {
        let mut lost = Vec::new();
        let acked = Instant::now();
        self.witness.saw(sent, acked, beat.at);
        self.backoff.reset();
        let next = sent + self.timing.heartbeat_interval;
        self.warm_due = self.warm_due.map(|_| next);
        let Beat { instances, history, quarantined_until, .. } = beat;
        for (instance_id, verdict, stop_requested) in instances {
            let Some(held) = self.held.get_mut(&instance_id) else { continue };
            match verdict {
                BeatVerdict::Ok
                    if quarantined_until.is_some() && held.may_be_succeeded(history, acked, &self.timing) =>
                {
                    let trouble = self.link.unavailable(
                        "it has failed over, and before that somebody may have taken this run over, of which it does not know: \
                         that is waited out",
                    );
                    self.counted.told("other");
                    held.due = next;
                    held.state.send_modify(|state| {
                        state.stop_requested |= stop_requested;
                        state.trouble = Some(trouble);
                    });
                }
                BeatVerdict::Ok => {
                    held.due = next;
                    self.counted.renewed(&held.trust, acked, self.timing.fence_after);
                    held.trust.acknowledged(sent, self.timing.fence_after);
                    held.gauges.known_in(history);
                    let trusted_until = held.trust.until();
                    held.state.send_modify(|state| {
                        state.trusted_until = trusted_until;
                        state.stop_requested |= stop_requested;
                        state.trouble = None;
                        state.busy = false;
                    });
                }
                BeatVerdict::Busy => {
                    self.counted.told("busy");
                    held.due = acked + Duration::from_millis(rand::rng().random_range(100..=250));
                    held.state.send_modify(|state| state.busy = true);
                }
                BeatVerdict::Lost => {
                    self.counted.told("lost");
                    lost.push(instance_id);
                }
            }
        }
        lost
    }

    /// What is missing only because of a failover goes on. Until that is known, nothing is lost, and nothing renewed; and others
    /// want their heartbeats in between.
    async fn take_up_again(&mut self, lost: Vec<InstanceId>) {
        let until = Instant::now() + self.timing.heartbeat_interval / 2;
        for instance_id in lost {
            let Some(held) = self.held.get_mut(&instance_id) else { continue };
            if held.gauges.is_ending.load(Ordering::Relaxed) {
                // Whoever records its end sees to that.
                self.held.remove(&instance_id);
                continue;
            }
            if Instant::now() > until {
                held.due = Instant::now();
                continue;
            }
            match is_readopted(&mut self.link, &held.tenure, held.gauges.history()).await {
                Ok(true) => held.due = Instant::now(),
                Ok(false) | Err(DbError::Statement { .. }) => {
                    held.state.send_modify(|state| state.lost = Some(Loss::Superseded));
                    self.held.remove(&instance_id);
                }
                Err(error) => {
                    held.due = Instant::now() + self.backoff.next_delay();
                    held.state.send_modify(|state| state.trouble = Some(error));
                }
            }
        }
    }

    /// Whoever is asked for something hears what it is with its heartbeat: soon, and however often it is asked, not for ever
    /// at once.
    fn heard(&mut self, hint: Hint) {
        if hint.kind == HintKind::Asked
            && let Some(held) = self.held.values_mut().find(|held| held.tenure.run_id.as_str() == hint.name)
        {
            let now = Instant::now();
            if self.hinted_at <= now {
                self.hinted_at = now.max(self.hinted_at + SOON);
            }
            held.due = held.due.min(self.hinted_at);
        }
        // Nobody may be waiting for news.
        let _ = self.news.send(hint);
    }

    /// What is over before then need not hear anything.
    async fn listen(&mut self) {
        if self.listen_due.is_none_or(|due| due > Instant::now()) {
            return;
        }
        self.listen_due = None;
        self.link.listen().await;
    }
}
