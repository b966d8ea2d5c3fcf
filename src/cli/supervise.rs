//! `systole supervise`: many runs of one repository in parallel, each in a worktree of its own; on several machines at once, if
//! it is started on them.
//!
//! It is a node that serves one batch: the runs wait in the queue for supervisors of that batch, and survive them. So what
//! nodes do for a run (its lock, its log, its worktree, its takeover when its executor dies) is done here by the same code.

mod screen;
mod summary;
mod watch;

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use clap::Args;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::exit::{Failure, code};
use super::settings::{Settings, WorktreeFlags};
use super::submit::Bounds;
use super::{context, print, submit, workspace};
use crate::anchor::{Anchor, Repo, Work, decide};
use crate::config::Config;
use crate::daemon::{self, Leave, Setup, Workspaces};
use crate::db::{DbError, Link, Target};
use crate::identity::{By, Identity};
use crate::ids::{NodeName, RunId};
use crate::log::{self, Format, What};
use crate::node::Catalogue;
use crate::run::Submission;
use crate::run::batch::{self, Base, Joined, Key};
use crate::state_dir::{StateDir, make_folders};
use crate::workspace::{Crew, Defaults, Repository};
use screen::Screen;
use summary::{Scene, Summary};
use watch::Watch;

/// To queue a batch of thousands, or to wait for another supervisor that does.
const PATIENCE: Duration = Duration::from_secs(60);

/// They are queued in one transaction, and looked at every second.
const RUNS_MAX: usize = 10_000;

/// What is of interest of a node, and not of a batch.
const NODES_MATTER: &[What] = &[What::Ready, What::Drained];

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// The runs, with commas between them, in the order in which they are to begin
    #[arg(long, value_name = "ID,ID…", value_delimiter = ',', conflicts_with = "run_ids_file")]
    run_ids: Vec<String>,
    /// The same from a file, one a line (- is stdin)
    #[arg(long, value_name = "FILE")]
    run_ids_file: Option<PathBuf>,
    /// How many of them run here at once; more than one takes an anchor
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1024))]
    workers: u32,
    /// The anchor: a file in which somebody allows parallel work on the repository
    #[arg(long, value_name = "FILE")]
    anchor_path: Option<PathBuf>,
    #[command(flatten)]
    worktree: WorktreeFlags,
    /// What the batch is called, on all machines that share it [default: made from the list, the command, the commit and the day]
    #[arg(long, value_name = "NAME")]
    batch: Option<String>,
    /// Run those of the batch again that have ended without completing
    #[arg(long)]
    retry_failed: bool,
    #[command(flatten)]
    bounds: Bounds,
    /// How long what runs may go on after a first Ctrl-C, before it is stopped and given back
    #[arg(long, value_name = "DURATION")]
    drain_timeout: Option<String>,
    /// Print the summary as JSON
    #[arg(long)]
    json: bool,
    /// Say nothing but errors and the summary
    #[arg(short, long)]
    quiet: bool,
    /// Show the worktrees of the repository on this host, and end
    #[arg(long, conflicts_with = "cleanup")]
    list_worktrees: bool,
    /// Remove the worktrees of the repository on this host whose attempts are over, and end; their work stays
    #[arg(long, conflicts_with = "json")]
    cleanup: bool,
    /// The command and its arguments; one that is just {run_id} or {attempt} is filled in
    #[arg(last = true, value_name = "COMMAND")]
    command: Vec<String>,
}

/// What is to be done.
struct Task {
    run_ids: Vec<RunId>,
    key: Key,
    submissions: Vec<Submission>,
}

/// Runs them all; 0 if all have completed.
pub(super) fn execute(arguments: &Arguments, settings: &Settings) -> Result<u8, Failure> {
    let mut given = arguments.worktree.given();
    given.extend(arguments.drain_timeout.clone().map(|text| ("drain_timeout", text)));
    let config = context::config_with(settings, given)?;
    let state = StateDir::open(&config.state_dir())?;
    let place = config.place(state.clone())?;
    let mut defaults = config.workspace()?;
    let named = context::repository(defaults.repository.take());
    let repository = Repository::at(&named, &place.patience)?;
    if arguments.list_worktrees {
        return workspace::list(&place, Some(&repository), arguments.json);
    }
    if arguments.cleanup {
        return workspace::clean_repository(&place, &repository);
    }
    // What it is called may mean another commit by the time that the last run begins.
    let commit = repository.resolve(defaults.base.as_deref())?;
    let root = repository.root_of(&commit)?;
    let base = Base { name: defaults.base.as_deref(), commit: &commit, root: &root };
    let task = Task::of(arguments, &base)?;
    let anchor = arguments.anchor_path.as_deref().map(Anchor::read).transpose()?;
    let (_crew, others) = Crew::join(&state, &repository, arguments.workers)?;
    let repo = Repo::at(&named);
    let permit = || permit(anchor.as_ref(), &repo, arguments.workers, others);
    permit()?;
    let runs_dir = config.runs_dir();
    make_folders(&runs_dir).map_err(|error| {
        let said =
            format!("{} cannot be used for logs and artifacts: {error}. runs_dir names another", runs_dir.display());
        Failure::new(code::CONFIG, said)
    })?;
    let screen = screen(&config, &task.run_ids, arguments.quiet)?;
    let digest = anchor.as_ref().map(|anchor| format!("sha256:{}", anchor.digest()));
    context::block_on(async {
        let target = context::target(&config).await?;
        let detail = json!({ "workers": arguments.workers, "anchor": digest, "base": commit });
        let joined = join(arguments, &task, target.clone(), &detail).await?;
        let commit = begun_at(&joined, &repository, commit)?;
        let link = Link::new(target.clone(), config.timing()?.attempt_timeout);
        let command = joined.command();
        let mut watch = Watch::new(link, joined, task.run_ids, screen);
        let (leave, leaving) = mpsc::channel(2);
        let Identity { host, pid, .. } = Identity::of_this_process();
        let setup = Setup {
            target,
            name: NodeName::of_host(&format!("supervise.{pid}.{host}")),
            timing: config.timing()?,
            stop_grace: config.stop_grace()?,
            containment: config.containment()?,
            workspaces: Workspaces {
                defaults: Defaults { repository: Some(named), base: Some(commit.clone()), ..defaults.clone() },
                place: place.clone(),
                policy: config.workspace_policy()?,
            },
            state,
            catalogue: Catalogue {
                queues: vec![batch::QUEUE.to_owned()],
                labels: BTreeMap::new(),
                commands: [(command, arguments.command.clone())].into(),
                allow_submitted_commands: false,
            },
            slots: i32::try_from(arguments.workers).unwrap_or(i32::MAX),
            poll_interval: config.poll_interval()?,
            drain_timeout: config.drain_timeout()?,
            runs_dir: runs_dir.clone(),
            log_bytes_max: config.log_bytes_max()?,
            http: None,
            shows_fleet: false,
            once: false,
            hands_all_down: true,
            leaving: Some(leaving),
        };
        let expires_at = anchor.as_ref().filter(|_| arguments.workers > 1).and_then(Anchor::expires_at);
        let begun = Instant::now();
        let ended = match watch.look().await? {
            true => Ok(()),
            false => tokio::select! {
                ended = daemon::run(setup) => ended,
                never = watch.until_over(&leave) => match never {},
                never = expired(expires_at, &leave) => match never {},
            },
        };
        // What has ended since. Where the database cannot say it, what was seen stands.
        let _ = watch.look().await;
        let seconds = begun.elapsed().as_secs_f64();
        let tenures = watch.tenures().await.ok();
        let (joined, looks) = watch.end();
        let (workers, anchor) = (arguments.workers, anchor.as_ref());
        let scene = Scene { repository, base: commit, anchor, workers, place, runs_dir, seconds, tenures };
        let summary = Summary::of(joined, looks, &scene);
        let text = if arguments.json { print::json_text(&summary) } else { summary.text() };
        if let Err(error) = print::try_text(&text) {
            print::note(&format!("the summary cannot be written: {error}"));
        }
        ended?;
        if summary.left > 0 {
            permit()?;
        }
        summary.verdict()
    })
}

/// Whether an anchor allows it, if it takes one: with those who work on the repository of this host already.
fn permit(anchor: Option<&Anchor>, repo: &Repo, workers: u32, others: u32) -> Result<(), Failure> {
    let work = Work { workers: workers + others, repo: Some(repo), now: Utc::now() };
    decide(anchor, &work).map_err(|refusal| match others {
        0 => refusal.into(),
        _ => {
            let also = format!("{refusal}. {others} of them are another supervisor's, at work on this host already");
            Failure::new(code::NOT_ALLOWED, also)
        }
    })
}

/// Bars where somebody looks on, else lines.
fn screen(config: &Config, run_ids: &[RunId], quiet: bool) -> Result<Screen, Failure> {
    if config.log_format(Format::Text)? == Format::Json {
        log::begin(Format::Json, false);
    } else if quiet {
        log::begin_beside(What::news(), std::io::stderr);
    } else if std::io::stderr().is_terminal() {
        let screen = Screen::of(run_ids);
        log::begin_beside([NODES_MATTER, screen::SHOWN].concat(), screen.writer());
        return Ok(screen);
    } else {
        log::begin_beside(NODES_MATTER.to_vec(), std::io::stderr);
    }
    Ok(Screen::none())
}

/// Becomes a part of the batch; queues what is not in it yet.
async fn join(arguments: &Arguments, task: &Task, target: Target, detail: &Value) -> Result<Joined, Failure> {
    let mut link = Link::new(target, PATIENCE);
    link.hello().await?;
    let (by, retry) = (By::this_user(None).who, arguments.retry_failed);
    let joined = link
        .call(async |session| batch::join(session, &task.key, &task.submissions, retry, detail, &by).await)
        .await
        .map_err(|error| match &error {
            DbError::Statement { code: state, message, .. } if state == "55006" => Failure::new(
                code::HELD,
                format!(
                    "{message}: a batch takes no run from others, and nothing was queued. Wait for it, stop or cancel it \
                     (systole cancel --batch NAME cancels all of a batch), go on with the command of that batch, or leave it out"
                ),
            ),
            _ => submit::refused(error),
        })?;
    let (all, Joined { batch, queued, ended, .. }) = (task.run_ids.len(), &joined);
    log::say(What::BatchJoined, format_args!("batch {batch}: of {all} runs {queued} queued now, {ended} ended before"));
    Ok(joined)
}

/// The commit that runs begin at: that of what is left of the batch, or else ours.
fn begun_at(joined: &Joined, repository: &Repository, ours: String) -> Result<String, Failure> {
    let Some(theirs) = joined.base.as_ref().filter(|base| **base != ours) else { return Ok(ours) };
    let batch = &joined.batch;
    repository.resolve(Some(theirs)).map_err(|_| {
        let said = format!(
            "batch {batch} has begun at commit {theirs}, which {} does not have: fetch it there, or give up what is left with \
             systole cancel --batch {batch}",
            repository.common().display()
        );
        Failure::new(code::CONFIG, said)
    })?;
    log::say(What::BatchJoined, format_args!("batch {batch} has begun at commit {theirs}, and goes on there"));
    Ok(theirs.clone())
}

/// Nothing more is started when the anchor is over.
async fn expired(at: Option<DateTime<Utc>>, leave: &mpsc::Sender<Leave>) -> Infallible {
    if let Some(at) = at {
        // By the clock of this host, which may be set meanwhile.
        while Utc::now() < at {
            let left = (at - Utc::now()).to_std().unwrap_or_default();
            tokio::time::sleep(left.min(Duration::from_secs(1))).await;
        }
        let _ = leave.send(Leave::Drain(format!("the anchor has expired at {at}"))).await;
    }
    std::future::pending().await
}

impl Task {
    fn of(arguments: &Arguments, base: &Base<'_>) -> Result<Task, Failure> {
        let wrong = |text: String| Failure::new(code::USAGE, text);
        let named = match &arguments.run_ids_file {
            Some(file) => read(file)?,
            None => arguments.run_ids.clone(),
        };
        let run_ids: Vec<RunId> = named.iter().map(|id| Ok(id.trim().parse()?)).collect::<Result<_, Failure>>()?;
        let mut seen = BTreeSet::new();
        if let Some(twice) = run_ids.iter().find(|id| !seen.insert(id.as_str())) {
            return Err(wrong(format!("run \"{twice}\" is there twice: a batch runs each once")));
        }
        match run_ids.len() {
            0 => {
                return Err(wrong(
                    "which runs? Name them with --run-ids a,b,c, or with --run-ids-file FILE".to_owned(),
                ));
            }
            n if n > RUNS_MAX => {
                return Err(wrong(format!(
                    "{n} runs are too many for one batch: {RUNS_MAX} are the most; systole submit -f takes more"
                )));
            }
            _ => {}
        }
        if arguments.command.is_empty() {
            return Err(wrong(
                "the runs need a command: -- COMMAND ARG…, where {run_id} stands for the run's id".to_owned(),
            ));
        }
        let key = match &arguments.batch {
            Some(name) => Key::given(name).map_err(wrong)?,
            None => Key::made(&run_ids, &arguments.command, base),
        };
        let submissions = run_ids.iter().map(|id| arguments.bounds.submission(id.clone())).collect::<Result<_, _>>()?;
        Ok(Task { run_ids, key, submissions })
    }
}

/// One run a line; empty ones and those that begin with # say nothing.
fn read(file: &Path) -> Result<Vec<String>, Failure> {
    let text = match file.as_os_str() == "-" {
        true => std::io::read_to_string(std::io::stdin()),
        false => std::fs::read_to_string(file),
    };
    let text =
        text.map_err(|error| Failure::new(code::USAGE, format!("{} cannot be read: {error}", file.display())))?;
    let lines = text
        .trim_start_matches('\u{feff}')
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty() && !line.starts_with('#'));
    Ok(lines.map(str::to_owned).collect())
}
