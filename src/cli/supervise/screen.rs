//! What a person sees meanwhile: a bar for each run that runs, a line for each that has ended, and how far all of them are.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

use crate::cli::print::plain;
use crate::ids::RunId;
use crate::log::What;
use crate::run::batch::Look;

/// What bars show.
pub(super) const SHOWN: &[What] = &[What::AttemptStarted, What::AttemptEnded];

/// Names are aligned up to this width.
const NAME_WIDTH_MAX: usize = 32;

const TICK: Duration = Duration::from_millis(250);

/// Bars on a terminal; nothing elsewhere.
pub(super) struct Screen(Option<Bars>);

struct Bars {
    all: MultiProgress,
    total: ProgressBar,
    running: BTreeMap<String, ProgressBar>,
    name_width: usize,
    failed: usize,
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
        Screen(Some(Bars { all, total, running: BTreeMap::new(), name_width, failed: 0 }))
    }

    /// Where lines go, so that bars stay below them.
    pub(super) fn writer(&self) -> impl Fn() -> Above + Send + Sync + use<> {
        let all = self.0.as_ref().map(|bars| bars.all.clone());
        move || Above(all.clone())
    }

    /// Shows a run as it is now.
    pub(super) fn show(&mut self, look: &Look) {
        if let Some(bars) = &mut self.0 {
            bars.show(look);
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
    fn show(&mut self, look: &Look) {
        if look.is_running() {
            let bar = self.running.entry(look.run_id.clone()).or_insert_with(|| {
                let bar = ProgressBar::new_spinner().with_prefix(format!("{:1$}", look.run_id, self.name_width));
                let bar =
                    bar.with_elapsed(Duration::try_from_secs_f64(look.seconds.unwrap_or(0.0)).unwrap_or_default());
                let bar = self
                    .all
                    .insert_before(&self.total, bar.with_style(style("{spinner} {prefix}  {elapsed}  {wide_msg}")));
                bar.enable_steady_tick(TICK);
                bar
            });
            bar.set_message(doing(look));
            return;
        }
        if let Some(bar) = self.running.remove(&look.run_id) {
            bar.finish_and_clear();
            self.all.remove(&bar);
        }
        if look.has_ended() {
            self.failed += usize::from(!look.is_completed());
            let _ = self.all.println(format!("  {:1$}  {2}", look.run_id, self.name_width, ended(look)));
            self.total.inc(1);
        }
        self.total.set_message(match self.failed {
            0 => String::new(),
            failed => format!(", {failed} of them not completed"),
        });
    }
}

fn doing(look: &Look) -> String {
    let steps = look.phases_executed.filter(|steps| *steps > 0).map(|steps| format!("{steps} steps"));
    let attempt = (look.attempt > 1).then(|| format!("attempt {}", look.attempt));
    let message = look.message.as_deref().map(plain);
    [attempt, look.executor_id.clone(), steps, message].into_iter().flatten().collect::<Vec<_>>().join(" · ")
}

fn ended(look: &Look) -> String {
    let seconds = look.seconds.map(|seconds| format!(" after {}", super::summary::span(seconds)));
    let code = look.exit_code.filter(|code| *code != 0).map(|code| format!(" (exit code {code})"));
    format!("{}{}{}", look.status, code.unwrap_or_default(), seconds.unwrap_or_default())
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
