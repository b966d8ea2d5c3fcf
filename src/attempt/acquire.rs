//! From wanting a run to having it: the claim, the wait for a holder to end, the proof that a silent one is dead.

use std::collections::HashSet;
use std::time::Duration;

use chrono::{DateTime, Utc};
use rand::Rng;
use tokio::sync::{broadcast, mpsc};

use super::deaths::{Filed, file_deaths};
use super::{Patience, Plan};
use crate::backoff::Backoff;
use crate::db::{DbError, Hello, Hint, HintKind, Link};
use crate::elapsed::{Instant, sleep_until};
use crate::guard::{certificate, remains};
use crate::ids::InstanceId;
use crate::instance::{ClaimRequest, ClaimVerdict, Coordinator, Holder};
use crate::log::What;
use crate::outcome::Cause;
use crate::output;
use crate::supervise::Signals;
use crate::tenure::Tenure;

/// Between two looks at a run that somebody holds: polling is the truth, everything faster is a bonus.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// Beyond the holder's staleness threshold: for the first heartbeats, and a slow database.
const CONFIRMATION_SLACK: Duration = Duration::from_secs(5);

/// Why a run was not granted. Nothing was started.
#[derive(Debug)]
pub(crate) enum Refusal {
    /// Another executor holds it.
    Held(Box<Holder>),
    /// Its holder is silent, but its death could not be concluded, for this reason of staleness.sql.
    Unproven { holder: Box<Holder>, reason: String },
    /// Behind a failover nothing is granted anew until then, by the database's clock.
    Quarantine { until: Option<DateTime<Utc>> },
    /// The database cannot answer, and another process of this host holds the local lock.
    HeldHere { holder: String, error: DbError },
    /// Somebody's transaction holds a lock on the run.
    Locked { blocked_by: Vec<i32> },
    /// It is COMPLETED, and that was enough.
    Completed,
    /// A signal came while we waited.
    Interrupted { signal: i32 },
    /// Our own tenure was ended by somebody before it began.
    Ended,
}

/// Connects. A waiter waits for the database as well; anybody else hears of it at once.
pub(super) async fn greet(
    coordinator: &Coordinator,
    plan: &Plan,
    signals: &mut Signals,
) -> Result<Result<Hello, Refusal>, DbError> {
    let give_up = give_up_at(plan.patience);
    let mut backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(1));
    let mut told = false;
    loop {
        match coordinator.hello().await {
            Err(error) if error.is_transient() && give_up.is_some_and(|at| Instant::now() < at) => {
                say_once(&mut told, plan, &error);
                let again = Instant::now() + backoff.next_delay();
                tokio::select! {
                    () = sleep_until(again) => {}
                    signal = ending_signal(signals) => return Ok(Err(Refusal::Interrupted { signal })),
                }
            }
            answer => return answer.map(Ok),
        }
    }
}

/// Claims, and waits as the plan allows.
pub(super) async fn acquire(
    coordinator: &Coordinator,
    request: &ClaimRequest,
    hello: Hello,
    plan: &Plan,
    signals: &mut Signals,
) -> Result<Result<(Tenure, Option<Holder>), Refusal>, DbError> {
    let waiting = plan.patience != Patience::None;
    let give_up = give_up_at(plan.patience);
    let mut confirming: Option<Instant> = None;
    let mut announced = None;
    let mut told = false;
    let mut quarantine_told = false;
    let mut history = hello.history;
    let mut deaths = DeathWatch::new(plan);
    let mut request = request.clone();
    let mut news = coordinator.news();
    if waiting {
        // By the time the holder looks silent, our own heartbeats have long vouched for the clock.
        coordinator.keep_warm().await;
    }
    loop {
        let claimed = async {
            // What cannot be filed now is no reason not to claim: if it matters, the claim says so.
            let filed = file_deaths(coordinator, &plan.job.state, hello.fleet_id, history).await;
            put_last_words_of(&filed, plan).await;
            coordinator.claim(&request).await
        };
        let claim = match claimed.await {
            Ok(claim) => {
                told = false;
                claim
            }
            Err(error) if error.is_transient() && waiting && give_up.is_some_and(|at| Instant::now() < at) => {
                say_once(&mut told, plan, &error);
                tokio::select! {
                    () = tokio::time::sleep(LOOK_INTERVAL) => continue,
                    signal = ending_signal(signals) => return Ok(Err(Refusal::Interrupted { signal })),
                }
            }
            Err(error) => return Err(error),
        };
        if let Some(tenure) = request.granted(&claim) {
            if let Some(predecessor) = &claim.predecessor {
                plan.job.say(What::TakingOver, takeover_line(plan, tenure.attempt, predecessor));
            }
            return Ok(Ok((tenure, claim.predecessor)));
        }
        history = claim.history.or(history);
        let now = Instant::now();
        let refusal = match (claim.verdict, &claim.holder) {
            (ClaimVerdict::Quarantine, _) => {
                if waiting && !std::mem::replace(&mut quarantine_told, true) {
                    plan.job.say(What::Quarantine, quarantine_line(claim.quarantined_until));
                }
                confirming = None;
                Refusal::Quarantine { until: claim.quarantined_until }
            }
            (ClaimVerdict::NotRunnable, None) => return Ok(Err(Refusal::Completed)),
            (ClaimVerdict::NotRunnable, Some(_)) => return Ok(Err(Refusal::Ended)),
            (ClaimVerdict::Held, Some(holder)) if claim.reason.as_deref() == Some("fresh") => {
                if waiting && announced != Some(holder.instance_id) {
                    announced = Some(holder.instance_id);
                    plan.job.say(What::WaitingForRun, waiting_line(plan, holder));
                }
                confirming = None;
                Refusal::Held(Box::new(holder.clone()))
            }
            (_, Some(holder)) if claim.reason.as_deref() != Some("locked") => {
                let reason = claim.reason.clone().unwrap_or_default();
                if confirming.is_none() {
                    let threshold = Duration::from_secs_f64(holder.stale_after_seconds);
                    // Under the brake twice the threshold, and half of it has passed.
                    let factor = if reason == "brake" { 2 } else { 1 };
                    confirming = Some(now + threshold * factor + CONFIRMATION_SLACK);
                    coordinator.keep_warm().await;
                    plan.job.say(What::WaitingForRun, confirming_line(plan, holder, &reason));
                }
                Refusal::Unproven { holder: Box::new(holder.clone()), reason }
            }
            _ => {
                confirming.get_or_insert(now + CONFIRMATION_SLACK);
                Refusal::Locked { blocked_by: claim.blocked_by.clone() }
            }
        };
        // Without the walwriter's start no wait will ever prove anything.
        let hopeless = matches!(&refusal, Refusal::Unproven { reason, .. } if reason == "rw_since_unknown");
        let until = if waiting { give_up } else { confirming.filter(|_| !hopeless) };
        if until.is_none_or(|until| now >= until) {
            return Ok(Err(refusal));
        }
        // Once is enough for the history, however often we look from here on.
        request.note_refusal = false;
        if let Some(holder) = &claim.holder {
            deaths.watch(holder.instance_id);
        }
        let jitter = LOOK_INTERVAL.mul_f64(rand::rng().random_range(0.8..1.0));
        tokio::select! {
            () = tokio::time::sleep(jitter) => {}
            () = deaths.next() => {}
            () = hear_of_its_end(&mut news, plan) => {}
            signal = ending_signal(signals) => return Ok(Err(Refusal::Interrupted { signal })),
        }
    }
}

/// A node of this host that died had no time for it.
async fn put_last_words_of(filed: &Filed, plan: &Plan) {
    if !filed.logs.is_empty() {
        let mut link = Link::new(plan.target.clone(), plan.job.timing.attempt_timeout);
        // It is still on this host's disk.
        let _ = output::store::put_last_words(&mut link, &filed.logs).await;
    }
}

/// Watches the guards of this host: when the one of the holder ends, it is time to look again.
struct DeathWatch {
    instances: std::path::PathBuf,
    watched: HashSet<InstanceId>,
    sender: mpsc::Sender<()>,
    ended: mpsc::Receiver<()>,
}

impl DeathWatch {
    fn new(plan: &Plan) -> DeathWatch {
        let (sender, ended) = mpsc::channel(1);
        DeathWatch { instances: plan.job.state.instances(), watched: HashSet::new(), sender, ended }
    }

    /// One thread per holder waits for its lock. It ends with the guard, or with us.
    fn watch(&mut self, holder: InstanceId) {
        let path = remains::file_of(&self.instances, holder);
        if !path.exists() || !self.watched.insert(holder) {
            return;
        }
        let sender = self.sender.clone();
        let _ = std::thread::Builder::new().name("systole-watch".to_owned()).spawn(move || {
            if certificate::wait_for_end(&path).is_ok() {
                // If one is waiting already, that is enough.
                let _ = sender.try_send(());
            }
        });
    }

    async fn next(&mut self) {
        let _ = self.ended.recv().await;
    }
}

/// Resolves when somebody says that the run's holder has ended.
async fn hear_of_its_end(news: &mut broadcast::Receiver<Hint>, plan: &Plan) {
    loop {
        match news.recv().await {
            Ok(hint) if hint.kind == HintKind::Ended && hint.name == plan.job.run_id.as_str() => return,
            Ok(_) => {}
            // It may have been among what we were too slow to hear.
            Err(broadcast::error::RecvError::Lagged(_)) => return,
            Err(broadcast::error::RecvError::Closed) => std::future::pending().await,
        }
    }
}

async fn ending_signal(signals: &mut Signals) -> i32 {
    use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGTSTP};
    loop {
        match signals.next().await {
            (signal @ (SIGHUP | SIGINT | SIGQUIT | SIGTERM), _) => return signal,
            (SIGTSTP, _) => super::supervision::stop_ourselves(),
            _ => {}
        }
    }
}

fn give_up_at(patience: Patience) -> Option<Instant> {
    match patience {
        Patience::None => None,
        Patience::For(span) => Some(Instant::now() + span),
        Patience::Endless => Some(Instant::from_nanos(u64::MAX)),
    }
}

/// Tells what is waited for, once for as long as it lasts.
fn say_once(told: &mut bool, plan: &Plan, error: &DbError) {
    if !std::mem::replace(told, true) {
        plan.job.say(What::DatabaseTrouble, format_args!("waiting for the database: {error}"));
    }
}

fn waiting_line(plan: &Plan, holder: &Holder) -> String {
    format!(
        "waiting for run \"{}\": executor {}, attempt {}, last heartbeat {:.0} s ago",
        plan.job.run_id, holder.executor_id, holder.attempt, holder.heartbeat_age_seconds
    )
}

fn confirming_line(plan: &Plan, holder: &Holder, reason: &str) -> String {
    let why = match reason {
        "revoked" => "it was taken away from it by force, but its command may still be at work",
        "taker_cold" => "this process has not watched the clock for long enough yet",
        "server_started" => "PostgreSQL has accepted writes only for a short while",
        "clock_step" => "the database's clock has jumped",
        "brake" => "many hosts fell silent at once, so the database itself is suspected",
        "rw_since_unknown" => "the owner of the schema lacks pg_read_all_stats",
        other => other,
    };
    // What the flag does not skip would be waited for all the same, and what no wait ends is not confirmed at all.
    let next = match reason {
        "taker_cold" | "clock_step" => "Confirming for up to {} s (--trust-db-clock skips this)",
        "rw_since_unknown" => "systole doctor shows how to mend that",
        _ => "Confirming for up to {} s",
    };
    let factor = if reason == "brake" { 2.0 } else { 1.0 };
    format!(
        "executor {} of run \"{}\" {}: last heartbeat {:.0} s ago (stale after {:.0} s). Not taking over yet: {why}. {}",
        holder.executor_id,
        plan.job.run_id,
        if reason == "revoked" { "may be alive" } else { "is stale" },
        holder.heartbeat_age_seconds,
        holder.stale_after_seconds,
        next.replace("{}", &format!("{:.0}", holder.stale_after_seconds * factor)),
    )
}

/// Why nothing is granted behind a failover, and for how long.
pub(crate) fn quarantine_line(until: Option<DateTime<Utc>>) -> String {
    let until = until.map(|until| format!(" until {}", until.format("%H:%M:%S UTC"))).unwrap_or_default();
    format!(
        "PostgreSQL has failed over, and its newest commits may be missing: so that whoever is still at work can say so, \
         nothing is started anew{until}"
    )
}

fn takeover_line(plan: &Plan, attempt: i32, predecessor: &Holder) -> String {
    let (who, run) = (&predecessor.executor_id, &plan.job.run_id);
    match predecessor.cause {
        Some(Cause::Stale) => format!(
            "executor {who} of run \"{run}\" is stale: last heartbeat {:.0} s ago (stale after {:.0} s). Taking over as attempt {attempt}.",
            predecessor.heartbeat_age_seconds, predecessor.stale_after_seconds
        ),
        Some(Cause::Forced) => {
            format!("run \"{run}\" was taken away from executor {who}. Taking over as attempt {attempt}.")
        }
        _ => format!(
            "executor {who} of run \"{run}\" died, and its processes with it. Taking over as attempt {attempt}."
        ),
    }
}
