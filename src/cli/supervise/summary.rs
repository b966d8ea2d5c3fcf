//! What has become of a batch: a table for people, or JSON.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use serde::Serialize;
use uuid::Uuid;

use crate::anchor::Anchor;
use crate::cli::exit::{Failure, code};
use crate::cli::print;
use crate::ids::RunId;
use crate::output;
use crate::run::batch::{Joined, Look};
use crate::workspace::{self, Place, Record, Repository, Work, WorkspaceError};

/// Where the batch was worked on.
pub(super) struct Scene<'a> {
    pub(super) repository: Repository,
    pub(super) base: String,
    pub(super) anchor: Option<&'a Anchor>,
    pub(super) workers: u32,
    pub(super) place: Place,
    pub(super) runs_dir: PathBuf,
    pub(super) seconds: f64,
    /// All attempts that were made for the batch; `None` if nobody could say it.
    pub(super) tenures: Option<BTreeSet<Uuid>>,
}

/// In the words of its JSON.
#[derive(Debug, Serialize)]
pub(super) struct Summary {
    batch: String,
    /// How many runs were queued by this supervisor.
    queued: i32,
    /// How many had ended before it was started.
    ended_before: i32,
    repository: PathBuf,
    /// The commit at which runs begin here.
    base: String,
    anchor: Option<String>,
    workers: u32,
    seconds: f64,
    completed: usize,
    /// Ended in another way.
    failed: usize,
    /// Not over.
    pub(super) left: usize,
    runs: Vec<Line>,
    #[serde(skip)]
    breach: Option<String>,
}

#[derive(Debug, Serialize)]
struct Line {
    #[serde(flatten)]
    look: Look,
    /// Where its newest attempt has worked, if that was on this host and is still there.
    worktree: Option<PathBuf>,
    /// The ref in the repository that has the work of that, if there was any.
    work: Option<String>,
    /// It is not kept yet: it is in the worktree alone.
    is_unkept: bool,
    /// Where its output is, if it was on this host, or the folder is shared.
    log: Option<PathBuf>,
    /// What the work of any of its attempts has touched, and the anchor does not allow.
    out_of_bounds: Vec<PathBuf>,
}

impl Summary {
    /// What was seen last of each run, with what is here of it.
    pub(super) fn of(joined: Joined, looks: Vec<Look>, scene: &Scene<'_>) -> Summary {
        let count = |wanted: fn(&Look) -> bool| looks.iter().filter(|look| wanted(look)).count();
        let (completed, ended) = (count(Look::is_completed), count(Look::has_ended));
        let left = looks.len() - ended;
        let known = Known::of(scene);
        let mut summary = Summary {
            batch: joined.batch,
            queued: joined.queued,
            ended_before: joined.ended,
            repository: scene.repository.common().to_owned(),
            base: scene.base.clone(),
            anchor: scene.anchor.map(|anchor| format!("sha256:{}", anchor.digest())),
            workers: scene.workers,
            seconds: scene.seconds,
            completed,
            failed: ended - completed,
            left,
            runs: looks.into_iter().map(|look| known.line(look, scene)).collect(),
            breach: None,
        };
        if let Some(anchor) = scene.anchor.filter(|anchor| anchor.bounds_paths()) {
            summary.breach = known.judge(anchor, scene, &mut summary.runs).err();
        }
        summary
    }

    /// For people.
    pub(super) fn text(&self) -> String {
        let row = |line: &Line| {
            let tenure = line.look.tenure.as_ref();
            vec![
                line.look.run_id.clone(),
                named(&line.look),
                print::or_dash(tenure.map(|tenure| tenure.attempt)),
                print::or_dash(tenure.map(|tenure| span(tenure.seconds))),
                print::or_dash(tenure.map(|tenure| &tenure.executor_id)),
                print::or_dash(line.work.as_deref().or(line.is_unkept.then_some("(only in its worktree)"))),
                print::or_dash(line.log.as_ref().map(|path| path.display())),
            ]
        };
        let headers = ["RUN", "STATUS", "ATTEMPT", "TOOK", "EXECUTOR", "WORK KEPT AS", "LOG"];
        let rows = print::rows(&headers, self.runs.iter().map(row).collect());
        let some = |count: usize, what: &str| if count > 0 { format!(", {count} {what}") } else { String::new() };
        let reason = |line: &Line| {
            let reason = line.look.tenure.as_ref()?.reason.as_ref()?;
            Some(format!("{}: {}\n", line.look.run_id, print::plain(reason)))
        };
        let reasons: String = self.runs.iter().filter_map(reason).collect();
        format!(
            "{rows}\n{reasons}batch {}: {} of {} completed{}{}, in {}{}\n",
            self.batch,
            self.completed,
            self.runs.len(),
            some(self.failed, "failed"),
            some(self.left, "not over"),
            span(self.seconds),
            if self.ended_before > 0 { format!("; {} had ended before", self.ended_before) } else { String::new() },
        )
    }

    /// 0 if all have completed, and touched nothing that the anchor does not allow.
    pub(super) fn verdict(&self) -> Result<u8, Failure> {
        if let Some(breach) = &self.breach {
            return Err(Failure::new(code::NOT_ALLOWED, breach));
        }
        let hint = match (self.left, self.failed) {
            (0, 0) => return Ok(code::OK),
            (0, _) => "the same command with --retry-failed runs those again that have not completed".to_owned(),
            _ => format!(
                "the same command goes on with what is left; systole cancel --batch {} gives that up",
                self.batch
            ),
        };
        print::note(&hint);
        Ok(code::FINDINGS)
    }
}

/// What is to be found of attempts here.
struct Known {
    worktrees: BTreeMap<Uuid, Record>,
    works: Result<BTreeMap<Uuid, Work>, WorkspaceError>,
}

impl Known {
    fn of(scene: &Scene<'_>) -> Known {
        let records = Record::all(&scene.place.state).into_iter();
        Known {
            worktrees: records.map(|record| (record.instance_id.0, record)).collect(),
            works: workspace::works(&scene.repository),
        }
    }

    fn line(&self, look: Look, scene: &Scene<'_>) -> Line {
        let mut line =
            Line { look, worktree: None, work: None, is_unkept: false, log: None, out_of_bounds: Vec::new() };
        let Some(tenure) = &line.look.tenure else { return line };
        // A repository that cannot be read is no reason to keep the rest from being told.
        let works = self.works.as_ref().ok();
        line.work = works.and_then(|works| works.get(&tenure.instance_id)).map(|work| work.name.clone());
        let record = self.worktrees.get(&tenure.instance_id);
        line.worktree = record.map(|record| record.path.clone());
        line.is_unkept = tenure.ended_at.is_some() && record.is_some_and(Record::is_unkept);
        let run_id = line.look.run_id.parse::<RunId>().ok();
        let log = run_id.map(|run_id| output::log_of(&scene.runs_dir, &run_id, tenure.attempt));
        line.log = log.filter(|log| log.exists());
        line
    }

    /// Holds what all attempts have touched against the anchor; an error is a sentence. What cannot be told is not allowed.
    fn judge(&self, anchor: &Anchor, scene: &Scene<'_>, lines: &mut [Line]) -> Result<(), String> {
        let untold = |why: &dyn fmt::Display| format!("what the runs have touched cannot be told: {why}");
        let works = self.works.as_ref().map_err(|error| untold(error))?;
        let tenures =
            scene.tenures.as_ref().ok_or_else(|| untold(&"the database does not say which attempts there were"))?;
        let by_folder: BTreeMap<String, usize> = lines
            .iter()
            .enumerate()
            .filter_map(|(number, line)| Some((workspace::path::snapshots_of(&line.look.run_id.parse().ok()?), number)))
            .collect();
        let mut breaches = Vec::new();
        for work in tenures.iter().filter_map(|tenure| works.get(tenure)) {
            let folder = work.name.rsplit_once('/').map_or("", |(folder, _)| folder);
            let Some(line) = by_folder.get(folder).map(|number| &mut lines[*number]) else { continue };
            let touched = work.touched(&scene.repository).map_err(|error| untold(&error))?;
            let refused = touched.into_iter().filter_map(|path| Some((anchor.may_touch(&path).err()?, path)));
            for (refusal, path) in refused {
                breaches.push(format!("run \"{}\": {refusal}", line.look.run_id));
                line.out_of_bounds.push(path);
            }
        }
        match breaches.split_first() {
            None => Ok(()),
            Some((first, [])) => Err(first.clone()),
            Some((first, others)) => Err(format!("{first}; and {} more like that", others.len())),
        }
    }
}

/// How a run is, with its exit code where that says something.
pub(super) fn named(look: &Look) -> String {
    let code = look.tenure.as_ref().and_then(|tenure| tenure.exit_code).filter(|code| *code != 0 && look.has_ended());
    let code = code.map(|code| format!(" (exit code {code})"));
    let out = if look.taken_out { ", and no longer in the batch" } else { "" };
    format!("{}{}{out}", look.status, code.unwrap_or_default())
}

/// In words: `3.2s`, `2m 5s`.
pub(super) fn span(seconds: f64) -> String {
    if seconds < 10.0 {
        return format!("{:.1}s", seconds.max(0.0));
    }
    humantime::format_duration(Duration::from_secs(seconds as u64)).to_string()
}
