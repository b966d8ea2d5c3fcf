//! `systole submit`: put runs into the queue.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;

use super::context;
use super::exit::{Failure, code};
use super::print;
use super::settings::{Settings, WorktreeFlags};
use crate::backoff::Backoff;
use crate::db::{DbError, Link};
use crate::identity::Identity;
use crate::ids::RunId;
use crate::run::{Submission, queue};

/// Ten thousand runs in one transaction take a few seconds.
const PATIENCE: Duration = Duration::from_secs(60);

/// How often the server may say that it cannot now.
const TRIES: u32 = 3;

/// More at once would be one message of a gigabyte.
const LINES_MAX: usize = 100_000;

const NUL: &str = "there is a \\u0000 in it, which PostgreSQL keeps in no text";

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// The run
    #[arg(required_unless_present = "file", conflicts_with = "file")]
    run_id: Option<String>,
    /// Many runs from a file, one JSON object a line (- is stdin): all of them or none
    #[arg(short, long, value_name = "FILE")]
    file: Option<PathBuf>,
    #[arg(long, value_name = "NAME", default_value = "default")]
    queue: String,
    /// From -1000 to 1000; each point is worth a minute of waiting
    #[arg(long, value_name = "N", default_value_t = 0, allow_negative_numbers = true)]
    priority: i32,
    /// Not before this long from now
    #[arg(long, value_name = "DURATION")]
    after: Option<String>,
    /// Only on a node that has this label; may be repeated
    #[arg(long, value_name = "KEY=VALUE")]
    label: Vec<String>,
    /// In the environment of its command; may be repeated
    #[arg(long, value_name = "KEY=VALUE")]
    env: Vec<String>,
    #[command(flatten)]
    bounds: Bounds,
    /// Anything, for programs that read it
    #[arg(long, value_name = "JSON")]
    meta: Option<String>,
    #[command(flatten)]
    worktree: WorktreeFlags,
    /// The name of a command of the nodes' configuration, instead of a command here
    #[arg(long, value_name = "NAME", conflicts_with = "argv")]
    command: Option<String>,
    /// Leave a run alone that is there already, instead of refusing
    #[arg(long)]
    if_absent: bool,
    /// Also if it has ended before
    #[arg(long)]
    again: bool,
    /// The command and its arguments
    #[arg(last = true, value_name = "COMMAND", conflicts_with = "file")]
    argv: Vec<String>,
}

/// How long a run may take, and how often it may fail.
#[derive(Debug, Args)]
pub(super) struct Bounds {
    /// Stop an attempt after this long
    #[arg(long, value_name = "DURATION")]
    timeout: Option<String>,
    /// Stop an attempt that has made no progress for this long
    #[arg(long, value_name = "DURATION")]
    stall_timeout: Option<String>,
    /// How often it may fail before it stays FAILED
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(i32).range(1..))]
    max_attempts: i32,
    /// Before the first retry; doubles with each, and is drawn between nothing and that
    #[arg(long, value_name = "DURATION", default_value = "10s")]
    backoff: String,
    /// How often its executor may die before it stays FAILED
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(i32).range(1..))]
    crashes_max: i32,
    /// An exit code after which it is not retried; may be repeated
    #[arg(long, value_name = "CODE")]
    no_retry: Vec<i32>,
    /// What it is for; shown wherever the run is
    #[arg(long, value_name = "TEXT")]
    purpose: Option<String>,
}

impl Bounds {
    /// A run with these, and nothing else yet.
    pub(super) fn submission(&self, run_id: RunId) -> Result<Submission, Failure> {
        let span = |flag: &str, text: &str| super::run::duration(flag, text);
        let limit =
            |flag: &str, text: &Option<String>| match text.as_deref().map(|text| span(flag, text)).transpose()? {
                Some(Duration::ZERO) => {
                    Err(Failure::new(code::USAGE, format!("{flag} is nothing: leave it out for no limit")))
                }
                limit => Ok(limit),
            };
        Ok(Submission {
            timeout: limit("--timeout", &self.timeout)?,
            stall_timeout: limit("--stall-timeout", &self.stall_timeout)?,
            max_attempts: self.max_attempts,
            backoff: Some(span("--backoff", &self.backoff)?),
            crashes_max: self.crashes_max,
            no_retry: self.no_retry.clone(),
            purpose: self.purpose.clone(),
            env: trace().collect(),
            ..Submission::of(run_id)
        })
    }
}

/// Submits one run or a file of them.
pub(super) fn execute(arguments: &Arguments, settings: &Settings) -> Result<u8, Failure> {
    let submissions = match &arguments.file {
        Some(file) => read(file)?,
        None => vec![described(arguments)?],
    };
    let config = context::config(settings)?;
    context::block_on(async {
        let mut link = Link::new(context::target(&config).await?, PATIENCE);
        link.hello().await?;
        let by = Identity::of_this_process().executor_id;
        let (if_absent, again) = (arguments.if_absent, arguments.again);
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(1));
        let mut tries = 1;
        let done = loop {
            let submit = async |session: &_| queue::submit(session, &submissions, if_absent, again, &by).await;
            match link.call(submit).await {
                // Nothing was queued, and it passes: a deadlock with whoever submits the same runs in another order, for one.
                Err(DbError::Unavailable { .. }) if tries < TRIES => tokio::time::sleep(backoff.next_delay()).await,
                answer => break answer.map_err(refused)?,
            }
            tries += 1;
        };
        let runs = |n: i32| if n == 1 { "1 run".to_owned() } else { format!("{n} runs") };
        print::text(&match (&arguments.run_id, done.queued) {
            (Some(run_id), 1) => format!("queued run \"{run_id}\""),
            (Some(run_id), _) => format!("run \"{run_id}\" is there already"),
            (None, queued) if done.left_alone == 0 => format!("queued {}", runs(queued)),
            (None, queued) => format!("queued {}; {} were there already", runs(queued), done.left_alone),
        });
        Ok(code::OK)
    })
}

/// What the function refuses is the user's matter, and said in its own words.
pub(super) fn refused(error: DbError) -> Failure {
    let DbError::Statement { code: state, message, .. } = &error else { return error.into() };
    match state.as_str() {
        "55006" => Failure::new(code::HELD, format!("{message}. Add --if-absent to leave it alone")),
        "42710" => Failure::new(code::HELD, format!("{message}. Add --again to run it again")),
        "22023" | "23514" => Failure::new(code::USAGE, message),
        _ => error.into(),
    }
}

fn described(arguments: &Arguments) -> Result<Submission, Failure> {
    if arguments.command.is_none() && arguments.argv.is_empty() {
        return Err(Failure::new(code::USAGE, "a run needs a command: -- COMMAND ARG…, or --command NAME"));
    }
    let meta = match &arguments.meta {
        Some(text) => serde_json::from_str(text)
            .map_err(|error| Failure::new(code::USAGE, format!("--meta is not JSON: {error}")))?,
        None => serde_json::Value::Null,
    };
    let bounded = arguments.bounds.submission(arguments.run_id.as_deref().unwrap_or_default().parse()?)?;
    let given = arguments.worktree.environment().chain(pairs("--env", &arguments.env)?);
    let after = arguments.after.as_deref().map(|text| super::run::duration("--after", text)).transpose()?;
    let submission = Submission {
        argv: (!arguments.argv.is_empty()).then(|| arguments.argv.clone()),
        command: arguments.command.clone(),
        queue: arguments.queue.clone(),
        priority: arguments.priority,
        after,
        labels: pairs("--label", &arguments.label)?,
        env: bounded.env.into_iter().chain(given).collect(),
        meta,
        ..bounded
    };
    if submission.has_nul() {
        return Err(Failure::new(code::USAGE, NUL));
    }
    Ok(submission)
}

/// The trace that this is a part of (W3C Trace Context), if it is one: the run goes on with it.
fn trace() -> impl Iterator<Item = (String, String)> {
    let is_hex = |part: &str| part.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    let is_parent = |value: &String| value.split('-').map(str::len).eq([2, 32, 16, 2]) && value.split('-').all(is_hex);
    let parent = std::env::var("TRACEPARENT").ok().filter(is_parent);
    // Which means nothing without the other.
    let state = parent.as_ref().and_then(|_| std::env::var("TRACESTATE").ok());
    let named = |name: &str, value: Option<String>| value.map(|value| (name.to_owned(), value));
    named("TRACEPARENT", parent).into_iter().chain(named("TRACESTATE", state))
}

fn pairs(flag: &str, texts: &[String]) -> Result<BTreeMap<String, String>, Failure> {
    let pair = |text: &String| match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        // Its value may be a secret.
        _ => Err(Failure::new(code::USAGE, format!("{flag} needs KEY=VALUE"))),
    };
    texts.iter().map(pair).collect()
}

fn read(file: &Path) -> Result<Vec<Submission>, Failure> {
    let wrong = |text: String| Failure::new(code::USAGE, text);
    let shown = file.display();
    let mut text = String::new();
    let got = if file.as_os_str() == "-" {
        std::io::stdin().read_to_string(&mut text)
    } else {
        std::fs::File::open(file).and_then(|mut file| file.read_to_string(&mut text))
    };
    got.map_err(|error| wrong(format!("{shown} cannot be read: {error}")))?;
    let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    let submissions: Vec<Submission> = lines
        .map(|(number, line)| {
            let read: Submission = serde_json::from_str(line)
                .map_err(|error| wrong(format!("{shown}, line {}: {error}. Nothing was queued", number + 1)))?;
            if read.has_nul() {
                return Err(wrong(format!("{shown}, line {}: {NUL}. Nothing was queued", number + 1)));
            }
            Ok(Submission { line: Some(number + 1), ..read })
        })
        .collect::<Result<_, Failure>>()?;
    match submissions.len() {
        0 => Err(wrong(format!("there is no run in {shown}"))),
        n if n > LINES_MAX => {
            Err(wrong(format!("{shown} has {n} runs; up to {LINES_MAX} go in one transaction: split it")))
        }
        _ => Ok(submissions),
    }
}
