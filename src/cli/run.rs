//! `systole run`: a command as the only executor of a run.

use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::OnceLock;
use std::time::Duration;

use clap::Args;

use super::context;
use super::exit::{Failure, code};
use super::print::ago;
use super::settings::{Settings, WorktreeFlags};
use crate::attempt::{self, Conclusion, Job, Outcome, Patience, Plan, Refusal};
use crate::elapsed::parse_duration;
use crate::guard::KillReason;
use crate::ids::RunId;
use crate::instance::Holder;
use crate::log::{self, Format, What};
use crate::metrics::Metrics;
use crate::outcome::InstanceStatus;
use crate::state_dir::StateDir;
use crate::workspace::{Wish, artifacts};

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Name of the run: letters, digits and ._:@-
    run_id: String,
    /// What it is for; shown wherever the run is
    #[arg(long, value_name = "TEXT")]
    purpose: Option<String>,
    /// Wait until the run is free, for at most DURATION if given (as in --wait=5m)
    #[arg(long, value_name = "DURATION", num_args = 0..=1, require_equals = true, default_missing_value = "")]
    wait: Option<String>,
    /// Stop the command after this long; exit code 124
    #[arg(long, value_name = "DURATION")]
    timeout: Option<String>,
    /// Exit 0 without starting if the run is COMPLETED already
    #[arg(long)]
    once: bool,
    /// Take over from a silent executor without first watching the database's clock
    #[arg(long)]
    trust_db_clock: bool,
    /// Work in this folder, which no other run on this host uses meanwhile
    #[arg(long, value_name = "DIR", conflicts_with_all = ["workspace_repo", "workspace_base", "workspace_branch"])]
    workspace: Option<PathBuf>,
    #[command(flatten)]
    worktree: WorktreeFlags,
    /// Say nothing but errors
    #[arg(short, long)]
    quiet: bool,
    /// The command and its arguments
    #[arg(last = true, required = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

/// Runs the command; the exit code is its own wherever it ran to its end.
pub(super) fn execute(arguments: Arguments, settings: &Settings) -> Result<u8, Failure> {
    let run_id: RunId = arguments.run_id.parse()?;
    let patience = match arguments.wait.as_deref() {
        None => Patience::None,
        Some("") => Patience::Endless,
        Some(text) => Patience::For(duration("--wait", text)?),
    };
    let timeout = arguments.timeout.as_deref().map(|text| duration("--timeout", text)).transpose()?;
    let config = context::config_with(settings, arguments.worktree.given())?;
    // Also under cron: somebody reads its mail.
    log::begin(config.log_format(Format::Text)?, true);
    let timing = config.timing()?;
    let once = arguments.once;
    let state = StateDir::open(&config.state_dir())?;
    let runs_dir = config.runs_dir();
    // A disk that is full keeps nobody from working.
    let run_dir = artifacts::make_folder(&runs_dir, &run_id);
    if let (Err(error), false) = (&run_dir, arguments.quiet) {
        let path = runs_dir.display();
        log::say(
            What::Scarce,
            format_args!("{path} cannot be used: {error}. The command has no SYSTOLE_RUN_DIR; runs_dir names another"),
        );
    }
    let wish = match &arguments.workspace {
        Some(folder) => Some(Wish::Folder(folder.clone())),
        None => config.workspace()?.wish(),
    };
    let place = config.place(state.clone())?;
    context::block_on(async {
        let target = context::target(&config).await?;
        let mut command = arguments.command.into_iter();
        let job = Job {
            run_id: run_id.clone(),
            program: command.next().expect("clap requires a command"),
            arguments: command.collect(),
            environment: Vec::new(),
            timeout,
            stall_timeout: None,
            timing,
            stop_grace: config.stop_grace()?,
            state,
            quiet: arguments.quiet,
            is_alone: true,
            log: None,
            run_dir: run_dir.ok(),
            workspace: wish.map(|wish| (wish, place)),
            metrics: Metrics::default(),
            tenure: OnceLock::new(),
        };
        let plan = Plan {
            job,
            purpose: arguments.purpose,
            patience,
            once,
            trust_db_clock: arguments.trust_db_clock,
            target,
            containment: config.containment()?,
        };
        match attempt::make(plan).await? {
            Outcome::Concluded(conclusion) => concluded(&run_id, conclusion),
            Outcome::Refused(refusal) => refused(&run_id, refusal),
        }
    })
}

pub(super) fn duration(flag: &str, text: &str) -> Result<Duration, Failure> {
    parse_duration(text).ok_or_else(|| {
        Failure::new(code::USAGE, format!("{flag} is {text:?}, but should be a duration such as 500ms, 30s or 5m"))
    })
}

fn concluded(run_id: &RunId, conclusion: Conclusion) -> Result<u8, Failure> {
    match conclusion {
        Conclusion::Ended(certificate) => {
            if let Some(reason) = certificate.end.detail.get("start_failed") {
                log::say(
                    What::AttemptNotBegun,
                    format_args!(
                        "the command of run \"{run_id}\" cannot be started: {}",
                        reason.as_str().unwrap_or("?")
                    ),
                );
            }
            if certificate.end.status == InstanceStatus::TimedOut {
                return Ok(code::TIMED_OUT);
            }
            let killed = matches!(certificate.killed, Some(KillReason::Ordered));
            let code = certificate.end.exit_code.unwrap_or(if killed { 137 } else { 0 });
            Ok(u8::try_from(code).unwrap_or(u8::MAX))
        }
        Conclusion::Lost { why } | Conclusion::Crashed { why } => Err(Failure::new(
            code::LOST,
            format!("run \"{run_id}\" was lost: {why}. systole status {run_id} shows what became of it"),
        )),
        Conclusion::Unrecorded { error: Some(error), .. } => {
            let failure = Failure::from(error);
            let message =
                format!("the end of run \"{run_id}\" is not recorded, but certified on this host: {}", failure.message);
            Err(Failure { message, ..failure })
        }
        Conclusion::Unrecorded { certificate, error: None } => Err(Failure::new(
            code::UNREACHABLE,
            format!(
                "run \"{run_id}\" ended{}, which is not recorded yet: PostgreSQL cannot be reached. \
                 It is certified on this host, and the next systole here records it",
                certificate.end.exit_code.map(|code| format!(" with code {code}")).unwrap_or_default()
            ),
        )),
    }
}

fn refused(run_id: &RunId, refusal: Refusal) -> Result<u8, Failure> {
    let held = |message: String| Err(Failure::new(code::HELD, message));
    match refusal {
        Refusal::Completed => {
            eprintln!("systole: run \"{run_id}\" is COMPLETED already: nothing to do (--once)");
            Ok(code::OK)
        }
        Refusal::Interrupted { signal } => Ok(128 + u8::try_from(signal).unwrap_or(0)),
        Refusal::Held(holder) => held(already_running(run_id, &holder)),
        Refusal::Unproven { holder, reason } => held(unproven(run_id, &holder, &reason)),
        Refusal::Quarantine { until } => held(attempt::quarantine_line(until)),
        Refusal::HeldHere { holder, error } => held(format!(
            "run \"{run_id}\" is already running on this host: executor {holder}. (What else runs cannot be told: {error})"
        )),
        Refusal::Locked { blocked_by } => held(format!(
            "run \"{run_id}\" is locked by another transaction{}. See pg_stat_activity; end it there, or add --wait",
            if blocked_by.is_empty() {
                String::new()
            } else {
                format!(" (one of the PostgreSQL backends {blocked_by:?})")
            }
        )),
        Refusal::Ended => {
            held(format!("run \"{run_id}\": this attempt was ended by somebody before it began; try again"))
        }
    }
}

fn unproven(run_id: &RunId, holder: &Holder, reason: &str) -> String {
    let why = match reason {
        "rw_since_unknown" => {
            "it cannot be told for how long PostgreSQL has accepted writes: grant pg_read_all_stats to the owner of \
             its schema (systole doctor shows how)"
        }
        "brake" => "many hosts fell silent at once, so the database itself is suspected; try again in a while",
        "clock_step" => "the database's clock has jumped; try again in a while",
        "server_started" => {
            "PostgreSQL has accepted writes only for a short while; try again in a while, or add --wait"
        }
        "revoked" => "its command may still be at work; try again in a while, or add --wait",
        _ => "its death could not be confirmed yet; try again in a while, or add --wait",
    };
    let (who, last, limit) = (&holder.executor_id, ago(holder.heartbeat_age_seconds), holder.stale_after_seconds);
    if holder.status == InstanceStatus::Running {
        format!(
            "run \"{run_id}\" is held by executor {who}, which is silent: last heartbeat {last} (stale after {limit:.0} s). \
             It was not taken over: {why}"
        )
    } else {
        format!(
            "run \"{run_id}\" was taken away by force from executor {who}, last heartbeat {last} (stale after {limit:.0} s). \
             It was not started: {why}"
        )
    }
}

fn already_running(run_id: &RunId, holder: &Holder) -> String {
    let purpose = holder.purpose.as_ref().map(|purpose| format!(", for: {purpose:?}")).unwrap_or_default();
    format!(
        "run \"{run_id}\" is already running: executor {}, attempt {}, started {}, last heartbeat {}{purpose}\n  \
         watch it: systole events {run_id} -f        stop it: systole stop {run_id}        wait for it: add --wait",
        holder.executor_id,
        holder.attempt,
        ago(holder.age_seconds),
        ago(holder.heartbeat_age_seconds),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn holder(status: &str) -> Holder {
        let holder = serde_json::json!({
            "instance_id": "00000000-0000-4000-8000-000000000000", "executor_id": "1@a", "host": "a", "pid": 1,
            "attempt": 1, "fence": 1, "status": status, "containment": "none", "started_at": "2026-01-01T00:00:00Z",
            "last_heartbeat": "2026-01-01T00:00:00Z", "age_seconds": 50.0, "heartbeat_age_seconds": 40.0,
            "stale_after_seconds": 30.0,
        });
        serde_json::from_value(holder).unwrap()
    }

    #[test]
    fn a_run_that_was_taken_away_is_not_said_to_be_held() {
        let run: RunId = "r".parse().unwrap();
        let revoked = unproven(&run, &holder("CRASHED"), "revoked");
        assert!(revoked.contains("was taken away by force from executor 1@a"), "{revoked}");
        assert!(revoked.contains("may still be at work") && !revoked.contains("held"), "{revoked}");
        let silent = unproven(&run, &holder("RUNNING"), "server_started");
        assert!(silent.contains("is held by executor 1@a, which is silent"), "{silent}");
        assert!(silent.contains("has accepted writes only for a short while"), "{silent}");
    }
}
