//! The test command: under a guard, as the command of a run is, so that nothing of it is left whoever is killed. It has no lease, and
//! so no deadline: its guard acts when we are gone.

use std::fs;
use std::io;
use std::os::fd::AsFd;
use std::pin::pin;
use std::time::Duration;

use rustix::process::Signal;
use signal_hook::consts::{SIGCONT, SIGHUP, SIGINT, SIGQUIT, SIGTERM};
use uuid::Uuid;

use crate::elapsed::Instant;
use crate::guard::certificate::{Certificate, Header};
use crate::guard::containment::Containment;
use crate::guard::{
    Arming, Audience, FromGuard, Guard, GuardError, Intent, Order, Outlet, Preparation, Rules, ToGuard, reap_orphans,
    remains,
};
use crate::identity::{Identity, boot_id};
use crate::ids::{InstanceId, RunId};
use crate::outcome::InstanceStatus;
use crate::state_dir::StateDir;
use crate::supervise::Signals;

/// The database that is told of its end.
const NO_FLEET: Uuid = Uuid::nil();

/// How it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ending {
    /// With this code, or 128 + n by signal n.
    Exited(i32),
    TimedOut,
    /// Somebody has stopped us, and we have stopped it.
    Interrupted(i32),
}

/// What is to be tried, and how it is held.
#[derive(Debug)]
pub(crate) struct Trial<'a> {
    pub(crate) run_id: &'a RunId,
    /// That of its worktree, which stays for as long as this one's guard lives.
    pub(crate) instance_id: InstanceId,
    pub(crate) order: Order,
    pub(crate) timeout: Option<Duration>,
    pub(crate) stop_grace: Duration,
    pub(crate) kill_grace: Duration,
    pub(crate) containment: Option<Containment>,
    pub(crate) state: &'a StateDir,
}

/// Empties what is left of the trees of captures that were killed together with their guards, and forgets those that are empty.
pub(crate) fn sweep(state: &StateDir) {
    for death in remains::sweep(&state.instances(), NO_FLEET).into_iter().flatten() {
        let _ = fs::remove_file(death.path);
    }
}

impl Trial<'_> {
    /// Runs it to its end, or for so long. What it prints goes to stderr: stdout is for the answer.
    pub(crate) async fn run(self) -> io::Result<Ending> {
        let signals = Signals::catch()?;
        let stderr = || io::stderr().as_fd().try_clone_to_owned();
        let preparation = Preparation { instance_id: self.instance_id, wish: self.containment, own_session: true };
        let mut guard = Guard::start(preparation, Outlet::pipes(stderr()?, stderr()?)?).map_err(io::Error::other)?;
        tokio::spawn(reap_orphans());
        let file = remains::file_of(&self.state.instances(), self.instance_id);
        let kill_grace = self.kill_grace;
        let ending = match self.supervise(&mut guard, signals).await {
            Ok(ending) => {
                guard.dismiss().await;
                ending
            }
            Err(error) => {
                while !guard.destroy(kill_grace) {
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
                Err(io::Error::other(error))
            }
        };
        // Nobody else is told.
        let _ = fs::remove_file(file);
        ending
    }

    async fn supervise(self, guard: &mut Guard, mut signals: Signals) -> Result<io::Result<Ending>, GuardError> {
        let cgroup = guard.ready().await?.cgroup;
        guard.arm(self.arming(cgroup)).await?;
        guard.tell(&ToGuard::Renew { until: Instant::from_nanos(u64::MAX) }).await?;
        while !matches!(guard.hear().await?, FromGuard::Echo { .. }) {}
        guard.tell(&ToGuard::Go(Box::new(self.order))).await?;
        let mut time_up = pin!(after(self.timeout));
        let why = loop {
            tokio::select! {
                heard = guard.hear() => if let FromGuard::Ended(certificate) = heard? {
                    return Ok(ended(guard, &certificate).await);
                },
                () = &mut time_up => break Ending::TimedOut,
                (signal, _) = signals.next() => if [SIGHUP, SIGINT, SIGQUIT, SIGTERM].contains(&signal) {
                    break Ending::Interrupted(signal);
                },
            }
        };
        let ends_as = InstanceStatus::Cancelled;
        for number in [SIGTERM, SIGCONT] {
            let intent = Some(Intent { ends_as, unless_it_succeeds: false });
            guard.tell(&ToGuard::Signal { number, to: Audience::Tree, intent }).await?;
        }
        if tokio::time::timeout(self.stop_grace, end_of(guard)).await.is_err() {
            guard.tell(&ToGuard::Kill { ends_as }).await?;
            end_of(guard).await?;
        }
        Ok(Ok(why))
    }

    fn arming(&self, cgroup: Option<String>) -> Arming {
        let header = Header {
            instance_id: self.instance_id,
            run_id: self.run_id.clone(),
            executor_id: Identity::of_this_process().executor_id,
            fleet_id: NO_FLEET,
            secret: Vec::new(),
            tenure: None,
            boot_id: boot_id(),
            cgroup,
            log: None,
        };
        let rules = Rules { kill_grace: self.kill_grace, freeze_max: Duration::ZERO, stopped_max: Duration::ZERO };
        Arming { file: remains::file_of(&self.state.instances(), self.instance_id), header, rules }
    }
}

async fn end_of(guard: &mut Guard) -> Result<(), GuardError> {
    while !matches!(guard.hear().await?, FromGuard::Ended(_)) {}
    // Then it writes down nothing for others.
    let _ = guard.tell(&ToGuard::Recorded).await;
    Ok(())
}

async fn ended(guard: &mut Guard, certificate: &Certificate) -> io::Result<Ending> {
    let _ = guard.tell(&ToGuard::Recorded).await;
    match certificate.end.detail.get("start_failed") {
        Some(why) => Err(io::Error::other(why.as_str().unwrap_or("?").to_owned())),
        None => Ok(Ending::Exited(certificate.end.exit_code.unwrap_or(128 + Signal::KILL.as_raw()))),
    }
}

async fn after(timeout: Option<Duration>) {
    match timeout {
        Some(timeout) => tokio::time::sleep(timeout).await,
        None => std::future::pending().await,
    }
}
