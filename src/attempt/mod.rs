//! One attempt at a run, from its claim to its finish: where lease, guard and command come together.
//!
//! ```text
//! sweep the remains of this host → claim → guard armed → a heartbeat acknowledged → exec → … → finish
//! ```
//!
//! Each step is proof of the one before it: nothing of the user runs before the heartbeat that allows it.

mod account;
mod acquire;
mod deaths;
mod ending;
mod job;
mod local_lock;
mod outbox;
mod place;
mod supervision;

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use uuid::Uuid;

use crate::db::{DbError, Target};
use crate::elapsed::Instant;
use crate::guard::certificate::{DeathSecret, Header};
use crate::guard::containment::{Containment, Secured};
use crate::guard::{
    Arming, FromGuard, Guard, GuardError, Order, Outlet, Preparation, Rules, ToGuard, reap_orphans, remains,
};
use crate::identity::boot_id;
use crate::ids::{InstanceId, RunId};
use crate::instance::{AcquireError, ClaimRequest, ConnectError, Coordinator, Holder, Lease};
use crate::log::{self, What};
use crate::outcome::Cause;
use crate::state_dir::{StateDir, StateDirError};
use crate::supervise::{BoundSocket, ProgressSocket, Signals, Surroundings, environment};
use crate::tenure::Tenure;
use local_lock::LocalLock;

pub(crate) use acquire::{Refusal, quarantine_line};
pub(crate) use deaths::file_deaths;
pub(crate) use job::Job;
pub(crate) use outbox::Outbox;
pub(crate) use supervision::Conclusion;

/// What is to be attempted by hand, and how.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) job: Job,
    pub(crate) purpose: Option<String>,
    pub(crate) patience: Patience,
    pub(crate) once: bool,
    pub(crate) trust_db_clock: bool,
    pub(crate) target: Target,
    pub(crate) containment: Option<Containment>,
}

/// How long to wait for a run that somebody holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Patience {
    /// Not at all; only for the proof that a silent holder is dead.
    None,
    /// For this long.
    For(Duration),
    /// For as long as it takes.
    Endless,
}

/// How an attempt went.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// The run was granted, and this became of it.
    Concluded(Conclusion),
    /// It was not granted; nothing was started.
    Refused(Refusal),
}

/// Why an attempt could not even be refused.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AttemptError {
    #[error(transparent)]
    Connect(#[from] ConnectError),
    #[error(transparent)]
    Db(#[from] DbError),
    #[error(transparent)]
    Guard(#[from] GuardError),
    #[error(transparent)]
    Acquire(#[from] AcquireError),
    #[error(transparent)]
    State(#[from] StateDirError),
    #[error("signals cannot be handled: {0}")]
    Signals(std::io::Error),
    #[error("no randomness could be had: {0}")]
    Random(std::io::Error),
    #[error(
        "the ends of {runs} runs could not be recorded. They are certified on this host, and any systole here records them \
         when PostgreSQL answers again"
    )]
    LeftBehind { runs: usize },
    #[error("HTTP cannot be answered: {0}")]
    Http(std::io::Error),
    #[error("its output has no place to go: {}: {error}. runs_dir names another folder", .path.display())]
    Log { path: PathBuf, error: std::io::Error },
}

/// Who of this host holds the run, for when the database cannot answer; `None` if nobody here does who works by hand.
pub(crate) fn holder_here(state: &StateDir, target: &Target, run_id: &RunId) -> Option<String> {
    LocalLock::new(state, target, run_id).holder()
}

/// Claims the run, and makes the attempt.
pub(crate) async fn make(plan: Plan) -> Result<Outcome, AttemptError> {
    let mut signals = Signals::catch().map_err(AttemptError::Signals)?;
    let local_lock = LocalLock::new(&plan.job.state, &plan.target, &plan.job.run_id);
    let mut local_lock_held = local_lock.try_take();

    // The guard makes its containment while we dial.
    let instance_id = InstanceId::fresh();
    let preparation = Preparation { instance_id, wish: plan.containment, own_session: false };
    let mut guard = Guard::start(preparation, Outlet::ours())?;
    tokio::spawn(reap_orphans());
    let coordinator = Coordinator::start(plan.target.clone(), plan.job.timing)?;
    let granted = match claim(&plan, instance_id, &coordinator, &mut guard, &mut signals).await {
        Ok(Ok(granted)) => granted,
        refused => {
            guard.dismiss().await;
            return match refused {
                Err(AttemptError::Db(error)) if error.is_transient() && local_lock_held.is_none() => {
                    let holder = local_lock.holder().ok_or_else(|| error.clone())?;
                    Ok(Outcome::Refused(Refusal::HeldHere { holder, error }))
                }
                Err(error) => Err(error),
                Ok(Err(refusal)) => Ok(Outcome::Refused(refusal)),
                Ok(Ok(_)) => unreachable!("granted is the arm above"),
            };
        }
    };
    if local_lock_held.is_none() {
        // Its holder is no longer the holder of the run: the database has said so.
        local_lock_held = local_lock.try_take();
    }
    let conclusion = carry_out(&plan.job, granted, guard, &coordinator, signals).await;
    drop(local_lock_held);
    Ok(Outcome::Concluded(conclusion?))
}

/// A run that is ours, with what its guard has to know.
pub(crate) struct Granted {
    pub(crate) tenure: Tenure,
    pub(crate) predecessor: Option<Holder>,
    pub(crate) secured: Secured,
    pub(crate) fleet_id: Uuid,
    pub(crate) secret: DeathSecret,
}

/// From a granted claim to its finish. The guard is ready, and not armed yet.
pub(crate) async fn carry_out(
    job: &Job,
    granted: Granted,
    mut guard: Guard,
    coordinator: &Coordinator,
    mut signals: Signals,
) -> Result<Conclusion, AttemptError> {
    let instance_id = granted.tenure.instance_id;
    job.granted(&granted.tenure);
    // Armed before the first heartbeat: from here on, whatever happens to us ends in a certificate. Files take a moment
    // to be created: that of the guard and ours are created together.
    let bind = async { job.state.socket(&socket_name(instance_id)).map(|path| BoundSocket::bind(path).ok()) };
    // A guard that was made long ago may have been stopped since.
    let arm = tokio::time::timeout(job.timing.attempt_timeout, guard.arm(granted.arming(job, coordinator)));
    let (armed, socket) = tokio::join!(arm, bind);
    let armed = armed.unwrap_or(Err(GuardError::Mute));
    let lease = coordinator.hold(granted.tenure, granted.predecessor).await?;
    if let Err(error) = armed {
        // Nothing was started: give the run back before the error is told.
        let _ = tokio::time::timeout(job.timing.attempt_timeout, lease.release()).await;
        return Err(error.into());
    }
    let executor_id = &coordinator.identity().executor_id;
    log::identify(executor_id);
    let attempt = lease.attempt();
    job.say(What::AttemptStarted, format_args!("run \"{}\" attempt {attempt} as {executor_id}", job.run_id));

    let told = lease.progress_teller();
    // Without a socket the command works all the same; what it tells of its progress fails there.
    let progress =
        socket?.map(|socket| socket.listen(move |report| told(report.progress, report.message.map(String::from))));
    let mut environment = surroundings(job, &lease, executor_id, progress.as_ref());
    let mut workspace = None;
    match place::open(job, &lease, executor_id, &mut signals).await {
        Ok(None) => {}
        Ok(Some((opened, variables))) => {
            environment.extend(variables);
            workspace = Some(opened);
        }
        Err(why) => return Ok(place::refused(job, lease, guard, signals, why).await),
    }
    let order = Order {
        program: job.program.clone(),
        arguments: job.arguments.clone(),
        environment,
        folder: workspace.as_ref().map(|workspace| workspace.path().as_os_str().to_owned()),
    };
    // Behind the first acknowledged heartbeat there is one, unless the run was lost since: of that it is told at once.
    let until = lease.state().borrow().trusted_until;
    let started = match until {
        Some(until) => start(&mut guard, until, order).await,
        None => Ok(()),
    };
    let conclusion = match started {
        Ok(()) => supervision::supervise(job, lease, guard, until, signals, &mut workspace).await,
        Err(_) => ending::guard_lost(job, lease, guard, &mut signals).await,
    };
    // Where its guard was lost, that was not done before.
    drop(place::keep(job, workspace, std::future::pending()).await);
    drop(progress);
    Ok(conclusion)
}

/// Connects, sweeps the remains of this host, and claims; waits as the plan allows.
async fn claim(
    plan: &Plan,
    instance_id: InstanceId,
    coordinator: &Coordinator,
    guard: &mut Guard,
    signals: &mut Signals,
) -> Result<Result<Granted, Refusal>, AttemptError> {
    let secret = DeathSecret::random().map_err(AttemptError::Random)?;
    let (secured, greeted) = tokio::join!(guard.ready(), acquire::greet(coordinator, plan, signals));
    let secured = secured?;
    let hello = match greeted? {
        Ok(hello) => hello,
        Err(refusal) => return Ok(Err(refusal)),
    };
    let mut request = ClaimRequest {
        run_id: plan.job.run_id.clone(),
        instance_id,
        executor: coordinator.executor().clone(),
        purpose: plan.purpose.clone(),
        trust_db_clock: plan.trust_db_clock,
        once: plan.once,
        note_refusal: plan.patience == Patience::None,
    };
    request.executor.containment = secured.label();
    request.executor.death_secret_hash = Some(secret.hash());
    if let Some(history) = hello.history {
        let outbox = Outbox::of(&plan.job.state);
        outbox.saw(history);
        // Where there is no node, nobody else does.
        drop(tokio::task::spawn_blocking(move || outbox.forget(history)));
    }
    let claimed = acquire::acquire(coordinator, &request, hello, plan, signals).await?;
    Ok(claimed.map(|(tenure, predecessor)| {
        let fleet_id = hello.fleet_id;
        Granted { tenure, predecessor, secured, fleet_id, secret }
    }))
}

impl Granted {
    fn arming(&self, job: &Job, coordinator: &Coordinator) -> Arming {
        let header = Header {
            instance_id: self.tenure.instance_id,
            run_id: job.run_id.clone(),
            executor_id: coordinator.identity().executor_id.clone(),
            fleet_id: self.fleet_id,
            secret: self.secret.to_vec(),
            tenure: Some(self.tenure.clone()),
            boot_id: boot_id(),
            cgroup: self.secured.cgroup.clone(),
            log: job.log.clone(),
        };
        let rules = Rules {
            kill_grace: job.timing.kill_grace,
            freeze_max: job.timing.freeze_max,
            stopped_max: job.timing.stopped_max(),
        };
        Arming { file: remains::file_of(&job.state.instances(), self.tenure.instance_id), header, rules }
    }
}

/// Renews, waits for the guard to say that it goes by that deadline, and only then says go.
async fn start(guard: &mut Guard, until: Instant, order: Order) -> Result<(), GuardError> {
    guard.tell(&ToGuard::Renew { until }).await?;
    while !matches!(guard.hear().await?, FromGuard::Echo { .. }) {}
    guard.tell(&ToGuard::Go(Box::new(order))).await
}

fn surroundings(
    job: &Job,
    lease: &Lease,
    executor_id: &str,
    progress: Option<&ProgressSocket>,
) -> Vec<(OsString, Option<OsString>)> {
    let mut variables = job.environment.clone();
    variables.extend(environment(&Surroundings {
        run_id: &job.run_id,
        instance_id: lease.instance_id(),
        fence: lease.fence(),
        attempt: lease.attempt(),
        executor_id,
        predecessor: lease.predecessor().map(|it| (it.executor_id.as_str(), it.cause.map_or("", Cause::as_str))),
        run_dir: job.run_dir.as_deref(),
        socket: progress.map(ProgressSocket::path),
    }));
    variables
}

/// Short, because the path of a socket must be; the tail of a v7 uuid is random.
fn socket_name(instance_id: InstanceId) -> String {
    format!("{}.sock", &instance_id.0.simple().to_string()[16..])
}
