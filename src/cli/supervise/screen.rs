//! What a person sees meanwhile: a bar for each run that runs, a line for each that has ended, and how far all of them are.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Write};
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

use super::summary::{named, span};
use crate::cli::print::plain;
use crate::ids::RunId;
use crate::log::What;
use crate::run::batch::Look;

/// What bars show.
pub(super) const SHOWN: &[What] = &[What::AttemptStarted, What::AttemptEnded];

/// Names are aligned up to this width.
const NAME_WIDTH_MAX: usize = 32;

/// Rows of a terminal that are left to what stands above.
const ROWS_LEFT: usize = 4;

/// Of a terminal that does not say how high it is.
const ROWS: usize = 24;

const TICK: Duration = Duration::from_millis(250);

/// Bars on a terminal; nothing elsewhere.
pub(super) struct Screen(Option<Bars>);

struct Bars {
    all: MultiProgress,
    total: ProgressBar,
    running: BTreeMap<String, ProgressBar>,
    ended: BTreeSet<String>,
    name_width: usize,
}

impl Screen {
    pub(super) fn none() -> Screen {
        Screen(None)
    }

    /// On standard error.
    pub(super) fn of(names: &[RunId]) -> Screen {
        let all = MultiProgress::new();
        let total = all.add(ProgressBar::new(names.len() as u64));
        total.set_style(style("{bar:30} {pos} of {len} have ended{msg}"));
        let name_width = names.iter().map(|name| name.as_str().len()).max().unwrap_or(0).min(NAME_WIDTH_MAX);
        Screen(Some(Bars { all, total, running: BTreeMap::new(), ended: BTreeSet::new(), name_width }))
    }

    /// Where lines go, so that bars stay below them.
    pub(super) fn writer(&self) -> impl Fn() -> Above + Send + Sync + use<> {
        let all = self.0.as_ref().map(|bars| bars.all.clone());
        move || Above(all.clone())
    }

    /// Shows the runs as they are now.
    pub(super) fn show(&mut self, looks: &[Look]) {
        if let Some(bars) = &mut self.0 {
            bars.show(looks);
        }
    }

    /// Leaves nothing of it on the terminal but the lines.
    pub(super) fn end(&mut self) {
        if let Some(bars) = self.0.take() {
            bars.running.values().for_each(ProgressBar::finish_and_clear);
            bars.total.finish_and_clear();
        }
    }
}

impl Bars {
    fn show(&mut self, looks: &[Look]) {
        for look in looks.iter().filter(|look| !look.is_running()) {
            if let Some(bar) = self.running.remove(&look.run_id) {
                bar.finish_and_clear();
                self.all.remove(&bar);
            }
            if !look.has_ended() {
                // Somebody has had it run again.
                self.ended.remove(&look.run_id);
            } else if self.ended.insert(look.run_id.clone()) {
                let _ = self.all.println(format!("  {:1$}  {2}", look.run_id, self.name_width, ended(look)));
            }
        }
        let room = rows().saturating_sub(ROWS_LEFT).max(1);
        for look in looks.iter().filter(|look| look.is_running()) {
            self.ended.remove(&look.run_id);
            if self.running.len() < room || self.running.contains_key(&look.run_id) {
                self.bar(look).set_message(doing(look));
            }
        }
        let count = |wanted: fn(&Look) -> bool| looks.iter().filter(|look| wanted(look)).count();
        let beyond = count(Look::is_running) - self.running.len();
        let failed = count(|look| look.has_ended() && !look.is_completed());
        let beyond = (beyond > 0).then(|| format!(", {beyond} more are running"));
        let failed = (failed > 0).then(|| format!(", {failed} of them not completed"));
        self.total.set_position(self.ended.len() as u64);
        self.total.set_message([failed, beyond].into_iter().flatten().collect::<String>());
    }

    fn bar(&mut self, look: &Look) -> &ProgressBar {
        self.running.entry(look.run_id.clone()).or_insert_with(|| {
            let seconds = look.tenure.as_ref().map_or(0.0, |tenure| tenure.seconds);
            let bar = ProgressBar::new_spinner()
                .with_style(style("{spinner} {prefix}  {elapsed}  {wide_msg}"))
                .with_prefix(format!("{:1$}", look.run_id, self.name_width))
                .with_elapsed(Duration::try_from_secs_f64(seconds).unwrap_or_default());
            let bar = self.all.insert_before(&self.total, bar);
            bar.enable_steady_tick(TICK);
            bar
        })
    }
}

fn doing(look: &Look) -> String {
    let Some(tenure) = &look.tenure else { return String::new() };
    let steps = (tenure.phases_executed > 0).then(|| format!("{} steps", tenure.phases_executed));
    let attempt = (tenure.attempt > 1).then(|| format!("attempt {}", tenure.attempt));
    let message = tenure.message.as_deref().map(plain);
    let parts = [attempt, Some(tenure.executor_id.clone()), steps, message];
    parts.into_iter().flatten().collect::<Vec<_>>().join(" · ")
}

fn ended(look: &Look) -> String {
    let seconds = look.tenure.as_ref().map(|tenure| format!(" after {}", span(tenure.seconds)));
    format!("{}{}", named(look), seconds.unwrap_or_default())
}

fn rows() -> usize {
    rustix::termios::tcgetwinsize(io::stderr()).map_or(ROWS, |size| usize::from(size.ws_row)).max(1)
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).expect("a template of ours")
}

/// Writes above the bars.
pub(super) struct Above(Option<MultiProgress>);

impl Write for Above {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let write = || io::stderr().write(bytes);
        self.0.as_ref().map_or_else(write, |bars| bars.suspend(write))
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}
