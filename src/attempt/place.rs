//! The place of an attempt: had before its command starts, and kept before its end is recorded, so that whoever comes next finds
//! what it has left.

use std::ffi::OsString;

use serde_json::json;

use super::ending;
use super::job::Job;
use super::supervision::Conclusion;
use crate::guard::{FromGuard, Guard, ToGuard};
use crate::instance::Lease;
use crate::log::What;
use crate::outcome::InstanceStatus;
use crate::supervise::Signals;
use crate::workspace::{BASE_VARIABLE, BRANCH_VARIABLE, REPO_VARIABLE, Tenant, Workspace, WorkspaceError};

/// What `run` exits with where there is no place; the same codes as for the run itself.
const HELD: i32 = 75;
const UNUSABLE: i32 = 78;

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

/// Makes or takes the place that the job asks for; `None` if it asks for none.
pub(super) async fn open(job: &Job, lease: &Lease, executor_id: &str) -> Result<Option<Workspace>, WorkspaceError> {
    let Some((wish, place)) = job.workspace.clone() else { return Ok(None) };
    let tenant = Tenant {
        run_id: job.run_id.clone(),
        attempt: lease.attempt(),
        instance_id: lease.instance_id(),
        executor_id: executor_id.to_owned(),
    };
    blocking(move || Workspace::open(&wish, &place, &tenant)).await.map(Some)
}

/// The variables that tell of it: where it is, and under which ref a dead predecessor's work is, if it has left any.
pub(super) async fn variables(
    workspace: Workspace,
    predecessor: Option<i32>,
) -> (Workspace, Vec<(OsString, Option<OsString>)>) {
    blocking(move || {
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
        (workspace, variables)
    })
    .await
}

/// Keeps what the command has left there. What cannot be kept stays where it is.
pub(super) async fn keep(job: &Job, workspace: Option<Workspace>) -> Option<Workspace> {
    let mut workspace = workspace?;
    let (workspace, kept) = blocking(move || {
        let kept = workspace.keep();
        (workspace, kept)
    })
    .await;
    if let Err(error) = kept {
        let path = workspace.path().display();
        job.say(What::WorkNotKept, format_args!("the work in {path} is not in a snapshot, and stays there: {error}"));
    }
    Some(workspace)
}

/// Ends an attempt that has no place. Nothing of the user has run.
pub(super) async fn refused(
    job: &Job,
    lease: Lease,
    mut guard: Guard,
    mut signals: Signals,
    error: &WorkspaceError,
) -> Conclusion {
    let (ends_as, code) = match error {
        WorkspaceError::Held { .. } => (InstanceStatus::Released, HELD),
        _ => (InstanceStatus::Failed, UNUSABLE),
    };
    let mut told = guard.tell(&ToGuard::Kill { ends_as }).await;
    loop {
        let heard = match told {
            Ok(()) => guard.hear().await,
            Err(error) => Err(error),
        };
        match heard {
            Ok(FromGuard::Ended(mut certificate)) => {
                certificate.end.exit_code = Some(code);
                certificate.end.detail = json!({ "start_failed": error.to_string() });
                return ending::record(job, lease, guard, *certificate, signals, 0).await;
            }
            Ok(_) => told = Ok(()),
            Err(_) => return ending::guard_lost(job, lease, guard, &mut signals).await,
        }
    }
}

/// Others have deadlines to keep in this thread.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}
