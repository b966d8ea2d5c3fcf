//! `systole baseline capture|diff`: how the tests of a commit fared, and what has become worse since. Asks no database.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use chrono::Utc;
use clap::{Args, Subcommand};
use serde_json::json;

use super::exit::{Failure, code};
use super::settings::Settings;
use super::{context, print};
use crate::baseline::{self, Baseline, Baselines, Change, Difference, Ending, ReportError, Results, StoreError, Trial};
use crate::config::Config;
use crate::guard::Order;
use crate::identity::Identity;
use crate::ids::{InstanceId, RunId};
use crate::state_dir::StateDir;
use crate::workspace::{self, NO_ATTEMPT, Place, Tenant, Wish, Workspace, WorktreeWish, artifacts};

#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    command: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Run the tests of a commit in a clean worktree, and keep what they report
    Capture(CaptureArguments),
    /// Say which tests fail newly, are missing, flaky or fixed; exit 1 on a regression
    Diff(DiffArguments),
}

#[derive(Debug, Args)]
struct CaptureArguments {
    /// The run
    run_id: String,
    /// The commit, or whatever git takes for one
    #[arg(long, value_name = "SHA")]
    commit: String,
    /// Any folder of the repository [default: workspace.repo, or the current folder]
    #[arg(long, value_name = "PATH")]
    repo: Option<PathBuf>,
    /// Stop the tests after this long, and keep nothing; exit code 124
    #[arg(long, value_name = "DURATION")]
    timeout: Option<String>,
    /// A report in JUnit XML, or a folder of them, from the worktree [default: whatever the tests write there]. A later one is a retry
    #[arg(long, value_name = "PATH")]
    junit: Vec<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// The tests: a command that writes JUnit XML
    #[arg(last = true, required = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

#[derive(Debug, Args)]
struct DiffArguments {
    /// The run
    run_id: String,
    /// The commit before [default: the one that was captured first]
    #[arg(long, value_name = "SHA")]
    from: Option<String>,
    /// The commit behind [default: the one that was captured last]
    #[arg(long, value_name = "SHA", conflicts_with = "junit")]
    to: Option<String>,
    /// Reports of now, instead of a commit behind: files or folders. A later one is a retry
    #[arg(long, value_name = "PATH")]
    junit: Vec<PathBuf>,
    /// A test that passed and is not there any more, or is skipped, is no regression
    #[arg(long)]
    allow_missing: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Captures a baseline, or compares with one.
pub(super) fn execute(arguments: &Arguments, settings: &Settings) -> Result<u8, Failure> {
    let config = context::config(settings)?;
    match &arguments.command {
        Verb::Capture(arguments) => capture(arguments, &config),
        Verb::Diff(arguments) => diff(arguments, &config),
    }
}

fn capture(arguments: &CaptureArguments, config: &Config) -> Result<u8, Failure> {
    let run_id: RunId = arguments.run_id.parse()?;
    let timeout = arguments.timeout.as_deref().map(|text| super::run::duration("--timeout", text)).transpose()?;
    let defaults = config.workspace()?;
    let repository = arguments.repo.clone().or(defaults.repository).unwrap_or_else(|| PathBuf::from("."));
    let wish = Wish::Worktree(WorktreeWish {
        repository,
        base: Some(arguments.commit.clone()),
        branch: false,
        submodules: defaults.submodules,
    });
    let place = config.place(StateDir::open(&config.state_dir())?)?;
    tidy_up(&place);
    let tenant = Tenant {
        run_id: run_id.clone(),
        attempt: NO_ATTEMPT,
        instance_id: InstanceId::fresh(),
        executor_id: Identity::of_this_process().executor_id,
    };
    let workspace = Workspace::open(&wish, &place, &tenant)?;
    let commit = workspace.base().expect("a worktree has one").to_owned();
    let trial = Trial {
        run_id: &run_id,
        instance_id: tenant.instance_id,
        order: order(arguments, workspace.path()),
        timeout,
        stop_grace: config.stop_grace()?,
        kill_grace: config.timing()?.kill_grace,
        containment: config.containment()?,
        state: &place.state,
    };
    let tried = try_out(arguments, trial, workspace.path());
    // Whatever the tests have left there, it is nobody's work.
    workspace.discard();
    let (exit_code, took, tests) = tried?;
    let baseline =
        Baseline { version: 1, commit, captured_at: Utc::now(), took_seconds: took.as_secs_f64(), exit_code, tests };
    let folder = artifacts::make_folder(&config.runs_dir(), &run_id).map_err(|error| {
        Failure::new(
            code::CONFIG,
            format!("nothing can be kept in {} (runs_dir): {error}", config.runs_dir().display()),
        )
    })?;
    let path = Baselines::of(&folder).keep(&baseline)?;
    if arguments.json {
        print::json(&baseline);
    } else {
        let commit: String = baseline.commit.chars().take(12).collect();
        print::text(&format!("{commit}: {}\n  {}", baseline.tests.summary(), path.display()));
    }
    Ok(code::OK)
}

/// Removes what captures have left that were killed.
fn tidy_up(place: &Place) {
    baseline::sweep(&place.state);
    for record in workspace::over(place).iter().filter(|record| record.is_nobodys_work()) {
        // What cannot be removed now is seen by `workspace list`.
        let _ = workspace::remove(place, record);
    }
}

/// The tests, as they are started in this folder.
fn order(arguments: &CaptureArguments, folder: &Path) -> Order {
    let set = |name: &str, value: &OsStr| (OsString::from(name), Some(value.to_owned()));
    let mut environment = vec![
        set("SYSTOLE_RUN_ID", arguments.run_id.as_ref()),
        set("SYSTOLE_WORKSPACE", folder.as_os_str()),
        set("PWD", folder.as_os_str()),
    ];
    // Of the repository in which we were started, if that was by a hook of it; and a secret.
    let removed = ["GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_PREFIX", "SYSTOLE_DATABASE_URL"];
    environment.extend(removed.map(|name| (OsString::from(name), None)));
    Order {
        program: arguments.command[0].clone(),
        arguments: arguments.command[1..].to_vec(),
        environment,
        folder: Some(folder.as_os_str().to_owned()),
    }
}

/// Runs the tests in this folder, and reads what they have reported.
fn try_out(arguments: &CaptureArguments, trial: Trial<'_>, folder: &Path) -> Result<(i32, Duration, Results), Failure> {
    let failed = |error: std::io::Error| {
        Failure::new(code::CONFIG, format!("{:?} cannot be run in {}: {error}", arguments.command[0], folder.display()))
    };
    let since = baseline::moment_behind_all(folder).map_err(failed)?;
    let (begun, timeout) = (Instant::now(), trial.timeout);
    let ending = context::block_on(async { trial.run().await.map_err(failed) })?;
    let exit_code = match ending {
        Ending::Exited(code) => code,
        Ending::TimedOut => {
            let message = format!("the tests did not end within {:?}: nothing was kept", timeout.unwrap_or_default());
            return Err(Failure::new(code::TIMED_OUT, message));
        }
        Ending::Interrupted(signal) => {
            let code = 128 + u8::try_from(signal).unwrap_or(0);
            return Err(Failure::new(code, "the tests were stopped: nothing was kept"));
        }
    };
    let reports: Vec<PathBuf> = match arguments.junit.is_empty() {
        true => vec![folder.to_owned()],
        false => arguments.junit.iter().map(|path| folder.join(path)).collect(),
    };
    let tests = baseline::read(&reports, Some(since)).map_err(|error| {
        let Failure { code, message } = error.into();
        Failure { code, message: format!("{message}. The command exited with {exit_code}") }
    })?;
    Ok((exit_code, begun.elapsed(), tests))
}

fn diff(arguments: &DiffArguments, config: &Config) -> Result<u8, Failure> {
    let run_id: RunId = arguments.run_id.parse()?;
    let baselines = Baselines::of(&artifacts::folder_of(&config.runs_dir(), &run_id));
    let before = match &arguments.from {
        Some(commit) => baselines.find(commit)?,
        None => baselines.all()?.into_iter().next().ok_or_else(|| {
            let how = format!("systole baseline capture {run_id} --commit SHA -- COMMAND");
            Failure::new(
                code::USAGE,
                format!("run \"{run_id}\" has no baseline in {}: {how}", config.runs_dir().display()),
            )
        })?,
    };
    let (now, name) = now(arguments, &baselines, &before, &run_id)?;
    let difference = Difference::between(&before.tests, &now);
    let is_regression = difference.is_regression(arguments.allow_missing);
    if arguments.json {
        print::json(&json!({
            "run_id": run_id,
            "from": { "commit": before.commit, "captured_at": before.captured_at },
            "to": { "commit": name },
            "regression": is_regression,
            "newly_failing": difference.newly_failing,
            "missing": difference.missing,
            "flaky": difference.flaky,
            "fixed": difference.fixed,
            "still_failing": difference.still_failing,
        }));
    } else {
        show(&difference);
        print::text(&format!(
            "before: {}\nnow:    {}\n{}",
            before.tests.summary(),
            now.summary(),
            if is_regression { "regression" } else { "no regression" }
        ));
    }
    Ok(if is_regression { code::FINDINGS } else { code::OK })
}

/// What the baseline is compared with, and the commit that it is of, if it is of one.
fn now(
    arguments: &DiffArguments,
    baselines: &Baselines,
    before: &Baseline,
    run_id: &RunId,
) -> Result<(Results, Option<String>), Failure> {
    if !arguments.junit.is_empty() {
        return Ok((baseline::read(&arguments.junit, None)?, None));
    }
    let later = match &arguments.to {
        Some(commit) => baselines.find(commit)?,
        None => baselines.all()?.pop().filter(|last| last.commit != before.commit).ok_or_else(|| {
            Failure::new(
                code::USAGE,
                format!(
                    "run \"{run_id}\" has nothing to compare {:.12} with: name reports with --junit PATH, or \
                     systole baseline capture {run_id} --commit SHA -- COMMAND",
                    before.commit
                ),
            )
        })?,
    };
    Ok((later.tests, Some(later.commit)))
}

fn show(difference: &Difference) {
    let lists = [
        ("newly failing", &difference.newly_failing),
        ("missing", &difference.missing),
        ("flaky", &difference.flaky),
        ("fixed", &difference.fixed),
        ("still failing", &difference.still_failing),
    ];
    let row = |what: &str, change: &Change| {
        let word = |outcome: Option<baseline::Outcome>| outcome.map_or("-", baseline::Outcome::as_str).to_owned();
        let says = change.message.clone().unwrap_or_default();
        vec![what.to_owned(), change.test.clone(), word(change.before), word(change.now), says]
    };
    let rows = lists.iter().flat_map(|(what, list)| list.iter().map(|change| row(what, change)));
    print::table(
        &["", "TEST", "BEFORE", "NOW", "SAYS"],
        rows.collect(),
        "nothing fails, nothing is missing, nothing was fixed",
    );
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Failure {
        let code = match error {
            StoreError::Unknown { .. } | StoreError::Ambiguous { .. } => code::USAGE,
            StoreError::Io { .. } | StoreError::Malformed { .. } => code::CONFIG,
        };
        Failure::new(code, error)
    }
}

impl From<ReportError> for Failure {
    fn from(error: ReportError) -> Failure {
        Failure::new(code::USAGE, error)
    }
}
