//! One queued run on this node: from its grant to its finish, and a line about it.

use std::ffi::OsString;
use std::io;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use serde_json::json;

use super::Shared;
use super::berth::Berth;
use super::telling::Attempt;
use super::turns::Turn;
use crate::attempt::{self, AttemptError, Conclusion, Granted, Job};
use crate::guard::GuardError;
use crate::guard::certificate::DeathSecret;
use crate::ids::RunId;
use crate::log::{self, About, What};
use crate::node::store::Assignment;
use crate::outcome::{End, InstanceStatus};
use crate::output::{self, Recorder, Written};
use crate::supervise::Signals;
use crate::workspace::artifacts;

/// What a run finds of the node's own environment: what programs need to find their way, and nothing that may be a secret.
const HANDED_DOWN: &[&str] = &["PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "TZ", "TMPDIR", "HOSTNAME"];

/// How long the end of an attempt waits for its output to be on the disk. Its tree is dead by then: usually there is nothing left.
const LAST_WORDS_PATIENCE: Duration = Duration::from_secs(2);

/// What became of it, for the node.
pub(crate) struct Report {
    /// This host could not even begin.
    pub(crate) is_trouble: bool,
    /// The run is, or may be, in its queue again, and due.
    pub(crate) goes_back: bool,
    /// It has ended, and only its certificate knows.
    pub(crate) is_unrecorded: bool,
}

/// Makes the attempt. Whatever goes wrong before the command starts gives the run back, or ends it where nobody could start it.
pub(super) async fn carry_out(
    shared: Arc<Shared>,
    assignment: Assignment,
    secret: DeathSecret,
    spare: Option<Berth>,
    turn: Turn,
    signals: Signals,
) -> Report {
    let tenure = assignment.tenure.clone();
    let about = About { run: Some(tenure.run_id.as_str()), attempt: Some(tenure.attempt), fence: Some(tenure.fence) };
    let name = format!("run \"{}\" attempt {}", tenure.run_id, tenure.attempt);
    let counted = Attempt::begin(shared.setup.target.metrics(), &assignment);
    let concluded = attempt_at(&shared, assignment, secret, spare, turn, signals).await;
    counted.ended(&concluded);
    match concluded {
        Ok(conclusion) => {
            let status = match &conclusion {
                Conclusion::Ended(certificate) => Some(certificate.end.status),
                Conclusion::Lost { .. } | Conclusion::Crashed { .. } | Conclusion::Unrecorded { .. } => None,
            };
            log::say_of(What::AttemptEnded, about, format_args!("{name}: {}", told(&conclusion)));
            Report {
                is_trouble: false,
                // A failed one waits for its backoff first.
                goes_back: status == Some(InstanceStatus::Released),
                is_unrecorded: matches!(conclusion, Conclusion::Unrecorded { .. }),
            }
        }
        Err(error) => {
            log::say_of(What::AttemptNotBegun, about, format_args!("{name} could not begin: {error}"));
            Report { is_trouble: true, goes_back: true, is_unrecorded: false }
        }
    }
}

async fn attempt_at(
    shared: &Shared,
    assignment: Assignment,
    secret: DeathSecret,
    spare: Option<Berth>,
    turn: Turn,
    signals: Signals,
) -> Result<Conclusion, AttemptError> {
    let setup = &shared.setup;
    let (tenure, predecessor) = (assignment.tenure.clone(), assignment.predecessor.clone());
    let (run_id, instance_id, fence) = (tenure.run_id.clone(), tenure.instance_id, tenure.fence);
    let argv = assignment.asked().and_then(|asked| setup.catalogue.command(asked, run_id.as_str(), tenure.attempt));
    // The lanes say what may be started here: its description has changed since.
    let startable = argv.and_then(|mut argv| (!argv.is_empty()).then(|| (argv.remove(0), argv)));
    let startable = startable.ok_or_else(|| "this node may not start it, or its description is gone".to_owned());
    let wished = || setup.workspaces.defaults.asked(&assignment.env, setup.catalogue.allow_submitted_commands);
    let startable = startable.and_then(|(program, arguments)| Ok((program, arguments, wished()?)));
    let (program, arguments, wish) = match startable {
        Ok(startable) => startable,
        Err(why) => {
            let lease = shared.coordinator.hold(tenure, predecessor).await?;
            let detail = json!({ "start_failed": why });
            let end = End { detail, ..End::of(InstanceStatus::Failed) };
            // Whatever is not recorded by then is given back behind our back.
            let _ = tokio::time::timeout(setup.timing.attempt_timeout, lease.finish(end)).await;
            return Ok(Conclusion::Lost { why: format!("it may not be started here: {why}") });
        }
    };
    let prepared = async {
        let Berth { mut guard, written, .. } = match spare {
            Some(berth) => berth,
            None => Berth::make(setup, instance_id)?,
        };
        // A disk that does not take it costs output, and never the run: the recorder says so.
        let (runs_dir, run) = (setup.runs_dir.clone(), run_id.clone());
        let run_dir =
            tokio::task::spawn_blocking(move || artifacts::make_folder(&runs_dir, &run).ok()).await.ok().flatten();
        let recorder = record(shared, written, &run_id, tenure.attempt)
            .await
            .map_err(|error| AttemptError::Log { path: setup.runs_dir.clone(), error })?;
        let ready = tokio::time::timeout(setup.timing.attempt_timeout, guard.ready()).await;
        let secured = ready.unwrap_or(Err(GuardError::Mute))?;
        Ok((guard, secured, recorder, run_dir))
    };
    let (guard, secured, recorder, run_dir) = match prepared.await {
        Ok(prepared) => prepared,
        Err(error) => {
            // Another node may do better.
            let lease = shared.coordinator.hold(tenure, predecessor).await?;
            let _ = tokio::time::timeout(setup.timing.attempt_timeout, lease.release()).await;
            return Err(error);
        }
    };
    let job = Job {
        run_id,
        program,
        arguments,
        environment: environment(&assignment, setup.hands_all_down),
        timeout: assignment.timeout,
        stall_timeout: assignment.stall_timeout,
        timing: setup.timing,
        stop_grace: setup.stop_grace,
        state: setup.state.clone(),
        quiet: false,
        is_alone: false,
        log: Some(recorder.recording().path().to_owned()),
        run_dir,
        workspace: wish.map(|wish| (wish, setup.workspaces.place.clone())),
        metrics: setup.target.metrics().clone(),
        tenure: OnceLock::new(),
    };
    let granted = Granted { tenure, predecessor, secured, fleet_id: shared.fleet_id, secret };
    drop(turn);
    shared.outputs.began(instance_id, fence, recorder.recording());
    let concluded = attempt::carry_out(&job, granted, guard, &shared.coordinator, signals).await;
    recorder.end(LAST_WORDS_PATIENCE).await;
    shared.outputs.ended(instance_id);
    concluded
}

/// The thread that records what the command writes. A disk that is full is said once, by whoever meets it
/// first, until it takes something again.
async fn record(shared: &Shared, written: Written, run_id: &RunId, attempt: i32) -> io::Result<Recorder> {
    let path = output::log_of(&shared.setup.runs_dir, run_id, attempt);
    let is_disk_full = shared.is_disk_full.clone();
    let trouble = move |path: &Path, error: Option<&io::Error>| match error {
        Some(error) if !is_disk_full.swap(true, Ordering::Relaxed) => log::say(
            What::DiskFull,
            format_args!(
                "{} cannot be written: {error}. Output is dropped until it can be; the runs go on, and their newest 64 kB \
                 still go into the database",
                path.display()
            ),
        ),
        Some(_) => {}
        None => is_disk_full.store(false, Ordering::Relaxed),
    };
    Recorder::start(written, path, shared.setup.log_bytes_max, trouble).await
}

/// The node's own variables out, but for a few or all of them; the run's in.
fn environment(assignment: &Assignment, hands_all_down: bool) -> Vec<(OsString, Option<OsString>)> {
    let is_handed_down = |name: &OsString| {
        hands_all_down || name.to_str().is_some_and(|name| HANDED_DOWN.contains(&name) || name.starts_with("LC_"))
    };
    let removed =
        std::env::vars_os().map(|(name, _)| name).filter(|name| !is_handed_down(name)).map(|name| (name, None));
    let given = assignment.env.iter().map(|(name, value)| (OsString::from(name), Some(OsString::from(value))));
    removed.chain(given).collect()
}

fn told(conclusion: &Conclusion) -> String {
    match conclusion {
        Conclusion::Ended(certificate) => match (certificate.end.status, certificate.end.exit_code) {
            (status, Some(code)) => {
                let reason = certificate.end.detail.get("start_failed").and_then(|reason| reason.as_str());
                let reason = reason.map(|reason| format!(", its command cannot be started: {reason}"));
                format!("{} (exit code {code}){}", status.as_str(), reason.unwrap_or_default())
            }
            (status, None) => status.as_str().to_owned(),
        },
        Conclusion::Lost { why } | Conclusion::Crashed { why } => format!("lost: {why}"),
        Conclusion::Unrecorded { error, .. } => {
            let why = error.as_ref().map_or_else(String::new, |error| format!(": {error}"));
            format!("ended, which is not recorded yet, but certified on this host{why}")
        }
    }
}
