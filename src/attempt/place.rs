//! The place of an attempt: had before its command starts, and kept before its end is recorded, so that whoever comes next finds
//! what it has left.

use std::ffi::OsString;
use std::pin::pin;
use std::time::Duration;

use serde_json::json;
use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM};

use super::ending;
use super::job::Job;
use super::supervision::Conclusion;
use crate::guard::{FromGuard, Guard, ToGuard};
use crate::instance::Lease;
use crate::log::What;
use crate::outcome::InstanceStatus;
use crate::supervise::{Origin, Signals};
use crate::workspace::{BASE_VARIABLE, BRANCH_VARIABLE, Place, REPO_VARIABLE, Tenant, Workspace, WorkspaceError};

/// What `run` exits with where there is no place; the same codes as for the run itself.
const HELD: i32 = 75;
const UNUSABLE: i32 = 78;

/// How long to wait for a git that was killed: one that hangs in the kernel does not die.
const DEATH_PATIENCE: Duration = Duration::from_secs(5);

/// Which of git's variables would lead a command away from its place: those that say where a repository is.
const LEADS_AWAY: &[&str] = &[
    "GIT_DIR",
    "GIT_WORK_TREE",
    "GIT_INDEX_FILE",
    "GIT_COMMON_DIR",
    "GIT_PREFIX",
    "GIT_NAMESPACE",
    "GIT_OBJECT_DIRECTORY",
    "GIT_ALTERNATE_OBJECT_DIRECTORIES",
    "GIT_CONFIG",
    "GIT_IMPLICIT_WORK_TREE",
    "GIT_GRAFT_FILE",
    "GIT_SHALLOW_FILE",
];

/// Variables to be set, or with `None` removed.
type Variables = Vec<(OsString, Option<OsString>)>;

/// Why an attempt has no place.
pub(super) enum NoPlace {
    /// It cannot be had.
    Refused(WorkspaceError),
    /// Somebody has asked for the attempt's end before it was there: as what it ends, and with which code.
    Unwanted(InstanceStatus, Option<i32>),
    /// The run is somebody else's by now.
    Lost,
}

/// Makes or takes the place that the job asks for, with the variables that tell of it; `None` if it asks for none. Whatever ends an
/// attempt ends this.
pub(super) async fn open(
    job: &Job,
    lease: &Lease,
    executor_id: &str,
    signals: &mut Signals,
) -> Result<Option<(Workspace, Variables)>, NoPlace> {
    let Some((wish, place)) = job.workspace.clone() else { return Ok(None) };
    // Its end is nobody else's.
    let patience = place.patience.anew();
    let place = Place { patience: patience.clone(), ..place };
    let tenant = Tenant {
        run_id: job.run_id.clone(),
        attempt: lease.attempt(),
        instance_id: lease.instance_id(),
        executor_id: executor_id.to_owned(),
    };
    let predecessor = lease.predecessor().map(|it| it.attempt);
    let mut opening = pin!(blocking(move || {
        let workspace = Workspace::open(&wish, &place, &tenant)?;
        let variables = variables(&workspace, predecessor);
        Ok((workspace, variables))
    }));
    let why = tokio::select! {
        opened = &mut opening => return opened.map(Some).map_err(NoPlace::Refused),
        why = unwanted(lease, signals) => why,
    };
    patience.end();
    // What does not die is left to itself, and its worktree to the next `clean`.
    if let Ok(Ok((workspace, _))) = tokio::time::timeout(DEATH_PATIENCE, opening).await {
        blocking(|| workspace.discard()).await;
    }
    Err(why)
}

/// Resolves when nothing is to be started any more.
async fn unwanted(lease: &Lease, signals: &mut Signals) -> NoPlace {
    let mut state = lease.state();
    loop {
        {
            let now = state.borrow_and_update();
            if now.lost.is_some() {
                return NoPlace::Lost;
            }
            if now.stop_requested {
                return NoPlace::Unwanted(InstanceStatus::Cancelled, Some(128 + SIGTERM));
            }
        }
        tokio::select! {
            changed = state.changed() => if changed.is_err() {
                return NoPlace::Lost;
            },
            (number, origin) = signals.next() => match (number, origin) {
                (_, Origin::Halt) => return NoPlace::Unwanted(InstanceStatus::Released, None),
                (SIGHUP | SIGINT | SIGQUIT | SIGTERM, _) => {
                    return NoPlace::Unwanted(InstanceStatus::Cancelled, Some(128 + number));
                }
                // There is no command yet that could have it.
                _ => {}
            },
        }
    }
}

/// The variables that tell of it: where it is, and under which ref a dead predecessor's work is, if it has left any.
fn variables(workspace: &Workspace, predecessor: Option<i32>) -> Variables {
    let path = workspace.path().as_os_str().to_owned();
    let left = predecessor.and_then(|attempt| workspace.work_of(attempt));
    let mut variables = vec![
        ("SYSTOLE_WORKSPACE".into(), Some(path.clone())),
        ("SYSTOLE_PREDECESSOR_SNAPSHOT".into(), left.map(OsString::from)),
        ("PWD".into(), Some(path)),
    ];
    // What asked for this place would ask for another one in a systole below.
    let asked = [REPO_VARIABLE, BASE_VARIABLE, BRANCH_VARIABLE];
    variables.extend(asked.iter().chain(LEADS_AWAY).map(|name| (OsString::from(*name), None)));
    variables
}

/// Keeps what the command has left there, unless somebody has enough of that. What cannot be kept now stays where it is.
pub(super) async fn keep(
    job: &Job,
    workspace: Option<Workspace>,
    enough: impl Future<Output = ()>,
) -> Option<Workspace> {
    let mut workspace = workspace?;
    let (patience, path) = (workspace.patience(), workspace.path().display().to_string());
    let mut keeping = pin!(blocking(move || {
        let kept = workspace.keep();
        (workspace, kept)
    }));
    let done = tokio::select! {
        done = &mut keeping => Some(done),
        () = enough => {
            patience.end();
            tokio::time::timeout(DEATH_PATIENCE, keeping).await.ok()
        }
    };
    let (workspace, why) = match done {
        Some((workspace, Ok(_))) => return Some(workspace),
        Some((workspace, Err(error))) => (Some(workspace), error.to_string()),
        None => (None, "it hangs in the kernel".to_owned()),
    };
    job.say(
        What::WorkNotKept,
        format_args!(
            "the work in {path} is not in a snapshot, and stays there until a systole of this host can make one: {why}"
        ),
    );
    workspace
}

/// Resolves when whoever has asked for an end has waited long enough for a snapshot. A node that has asked twice is such a one.
pub(super) async fn enough(job: &Job, signals: &mut Signals, halts: u32) {
    let asks = |signal| matches!(signal, (_, Origin::Halt) | (SIGHUP | SIGINT | SIGQUIT | SIGTERM, _));
    if halts < 2 {
        while !asks(signals.next().await) {}
    }
    tokio::time::sleep(job.stop_grace).await;
}

/// Ends an attempt that has no place. Nothing of the user has run.
pub(super) async fn refused(
    job: &Job,
    lease: Lease,
    mut guard: Guard,
    mut signals: Signals,
    why: NoPlace,
) -> Conclusion {
    let (ends_as, code) = match &why {
        NoPlace::Refused(WorkspaceError::Held { .. }) => (InstanceStatus::Released, Some(HELD)),
        NoPlace::Refused(_) => (InstanceStatus::Failed, Some(UNUSABLE)),
        NoPlace::Unwanted(ends_as, code) => (*ends_as, *code),
        NoPlace::Lost => (InstanceStatus::Cancelled, None),
    };
    let mut told = guard.tell(&ToGuard::Kill { ends_as }).await;
    let mut certificate = loop {
        let heard = match told {
            Ok(()) => guard.hear().await,
            Err(error) => Err(error),
        };
        match heard {
            Ok(FromGuard::Ended(certificate)) => break *certificate,
            Ok(_) => told = Ok(()),
            Err(_) => return ending::guard_lost(job, lease, guard, &mut signals).await,
        }
    };
    certificate.end.exit_code = code;
    match why {
        NoPlace::Refused(error) => certificate.end.detail = json!({ "start_failed": error.to_string() }),
        NoPlace::Unwanted(..) => {}
        NoPlace::Lost => return ending::lost(job, lease, guard, certificate).await,
    }
    ending::record(job, lease, guard, certificate, signals, 0).await
}

/// Others have deadlines to keep in this thread.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}
