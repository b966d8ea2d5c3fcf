//! What has become of a batch: a table for people, or JSON.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Duration;

use serde::Serialize;

use crate::anchor::{Anchor, NotAllowed};
use crate::cli::exit::{Failure, code};
use crate::cli::print;
use crate::ids::RunId;
use crate::output;
use crate::run::batch::{Joined, Look};
use crate::workspace::{self, Place, Record, Repository};

/// Where the batch was worked on.
pub(super) struct Scene<'a> {
    pub(super) repository: Repository,
    pub(super) base: String,
    pub(super) anchor: Option<&'a Anchor>,
    pub(super) workers: u32,
    pub(super) place: Place,
    pub(super) runs_dir: PathBuf,
    pub(super) seconds: f64,
}

/// In the words of its JSON.
#[derive(Debug, Serialize)]
pub(super) struct Summary {
    batch: String,
    /// How many runs were queued by this supervisor; the others had been before.
    queued: i32,
    repository: PathBuf,
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
}

#[derive(Debug, Serialize)]
struct Line {
    #[serde(flatten)]
    look: Look,
    /// Where its newest attempt has worked, if that was on this host and is still there.
    worktree: Option<PathBuf>,
    /// The ref in the repository that has its work, if there was any.
    work: Option<String>,
    /// Where its output is, if it was on this host, or the folder is shared.
    log: Option<PathBuf>,
    /// What its work has touched, and the anchor does not allow.
    out_of_bounds: Vec<PathBuf>,
    #[serde(skip)]
    refusal: Option<NotAllowed>,
}

impl Summary {
    /// What was seen last of each run, with what is here of it.
    pub(super) fn of(joined: Joined, looks: Vec<Look>, scene: &Scene<'_>) -> Summary {
        let count = |wanted: fn(&Look) -> bool| looks.iter().filter(|look| wanted(look)).count();
        let (completed, ended) = (count(Look::is_completed), count(Look::has_ended));
        let left = looks.len() - ended;
        let known = Known::of(scene);
        Summary {
            batch: joined.batch,
            queued: joined.queued,
            repository: scene.repository.common().to_owned(),
            base: scene.base.clone(),
            anchor: scene.anchor.map(|anchor| format!("sha256:{}", anchor.digest())),
            workers: scene.workers,
            seconds: scene.seconds,
            completed,
            failed: ended - completed,
            left,
            runs: looks.into_iter().map(|look| known.line(look, scene)).collect(),
        }
    }

    pub(super) fn print(&self) {
        let row = |line: &Line| {
            let look = &line.look;
            let code = look.exit_code.filter(|code| *code != 0).map(|code| format!(" ({code})"));
            vec![
                look.run_id.clone(),
                format!("{}{}", look.status, code.unwrap_or_default()),
                look.attempt.to_string(),
                print::or_dash(look.seconds.map(span)),
                print::or_dash(look.executor_id.as_ref()),
                print::or_dash(line.work.as_ref()),
                print::or_dash(line.log.as_ref().map(|path| path.display())),
            ]
        };
        let headers = ["RUN", "STATUS", "ATTEMPT", "TOOK", "EXECUTOR", "WORK KEPT AS", "LOG"];
        print::table(&headers, self.runs.iter().map(row).collect(), "there is no run");
        let failed = if self.failed > 0 { format!(", {} failed", self.failed) } else { String::new() };
        let left = if self.left > 0 { format!(", {} not over", self.left) } else { String::new() };
        print::text(&format!(
            "batch {}: {} of {} completed{failed}{left}, in {}",
            self.batch,
            self.completed,
            self.runs.len(),
            span(self.seconds)
        ));
    }

    /// 0 if all have completed, and touched nothing that the anchor does not allow.
    pub(super) fn verdict(&self) -> Result<u8, Failure> {
        if let Some((line, refusal)) = self.runs.iter().find_map(|line| Some((line, line.refusal.as_ref()?))) {
            let others = self.runs.iter().filter(|line| line.refusal.is_some()).count() - 1;
            let others = if others > 0 {
                format!(", and {others} more runs have touched what they may not")
            } else {
                String::new()
            };
            let message = format!("run \"{}\": {refusal}{others}", line.look.run_id);
            return Err(Failure::new(code::NOT_ALLOWED, message));
        }
        let hint = match (self.left, self.failed) {
            (0, 0) => return Ok(code::OK),
            (0, _) if self.queued == 0 => {
                "they had ended before: --retry-failed runs those again, --batch NAME begins another batch"
            }
            (0, _) => "the same command with --retry-failed runs those again",
            _ => "the same command goes on with what is left, and systole cancel takes a run out",
        };
        eprintln!("systole: {hint}");
        Ok(code::FINDINGS)
    }
}

/// What is to be found of attempts here.
struct Known {
    worktrees: BTreeMap<(RunId, i32), PathBuf>,
    works: BTreeSet<String>,
}

impl Known {
    fn of(scene: &Scene<'_>) -> Known {
        let records = Record::all(&scene.place.state).into_iter();
        Known {
            worktrees: records.map(|record| ((record.run_id, record.attempt), record.path)).collect(),
            // A repository that cannot be read is no reason to keep the rest from being told.
            works: workspace::works(&scene.repository).unwrap_or_default(),
        }
    }

    fn line(&self, look: Look, scene: &Scene<'_>) -> Line {
        let mut line = Line { look, worktree: None, work: None, log: None, out_of_bounds: Vec::new(), refusal: None };
        let (Ok(run_id), Some(_)) = (line.look.run_id.parse::<RunId>(), &line.look.started_at) else { return line };
        let attempt = line.look.attempt;
        let work = workspace::path::snapshot_ref(&run_id, attempt);
        line.work = Some(work).filter(|work| self.works.contains(work));
        line.log = Some(output::log_of(&scene.runs_dir, &run_id, attempt)).filter(|log| log.exists());
        line.worktree = self.worktrees.get(&(run_id, attempt)).cloned();
        if let (Some(anchor), Some(work)) = (scene.anchor, &line.work) {
            for path in workspace::touched(&scene.repository, work).unwrap_or_default() {
                if let Err(refusal) = anchor.may_touch(&path) {
                    line.refusal.get_or_insert(refusal);
                    line.out_of_bounds.push(path);
                }
            }
        }
        line
    }
}

/// In words: `3.2s`, `2m 5s`.
pub(super) fn span(seconds: f64) -> String {
    if seconds < 10.0 {
        return format!("{:.1}s", seconds.max(0.0));
    }
    humantime::format_duration(Duration::from_secs(seconds as u64)).to_string()
}
