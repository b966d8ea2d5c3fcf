//! What a systole says of itself: a line for people, or an object for machines, to standard error.
//!
//! A line has a name that stays, out of [`What`]; what it is about stands in fields of their own. `docs/logs.md` has them all.

mod text;

use std::fmt::Display;
use std::io::{self, IsTerminal, Write};
use std::sync::OnceLock;

use tracing::{error, info, warn};
use tracing_subscriber::fmt::writer::BoxMakeWriter;

use crate::ids::Fence;
use text::ForPeople;

/// How lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    /// For people.
    Text,
    /// An object a line.
    Json,
}

impl Format {
    /// For whoever runs all day: for people where one looks on, else for machines.
    pub(crate) fn of_stderr() -> Format {
        if io::stderr().is_terminal() { Format::Text } else { Format::Json }
    }
}

macro_rules! whats {
    ($($variant:ident, $name:literal, $level:ident;)*) => {
        /// What a line tells of. Names stay, whatever happens to the text.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub(crate) enum What { $($variant,)* }

        impl What {
            #[cfg(test)]
            pub(crate) const ALL: &[What] = &[$(What::$variant,)*];

            /// Those that tell of what goes as it should.
            pub(crate) fn news() -> Vec<What> {
                [$((What::$variant, stringify!($level)),)*].iter().filter(|(_, level)| *level == "info").map(|(what, _)| *what).collect()
            }

            pub(crate) fn name(self) -> &'static str {
                match self { $(What::$variant => $name,)* }
            }

            /// Says it.
            fn say(self, about: &About<'_>, message: &str) {
                let About { run, attempt, fence } = *about;
                let fence = fence.map(|fence| fence.0);
                let executor = EXECUTOR.get().map(String::as_str);
                match self { $(What::$variant => $level!(event = $name, run, attempt, fence, executor, "{message}"),)* }
            }
        }
    };
}

whats! {
    Ready, "ready", info;
    Serving, "serving", info;
    Draining, "draining", info;
    Drained, "drained", info;
    Halting, "halting", warn;
    AttemptStarted, "attempt_started", info;
    AttemptEnded, "attempt_ended", info;
    AttemptNotBegun, "attempt_not_begun", warn;
    CommandFrozen, "command_frozen", warn;
    CommandThawed, "command_thawed", info;
    CommandStopping, "command_stopping", info;
    CommandKilling, "command_killing", warn;
    CommandUnkillable, "command_unkillable", error;
    GuardLost, "guard_lost", error;
    EndUnrecorded, "end_unrecorded", warn;
    WaitingForRun, "waiting_for_run", info;
    TakingOver, "taking_over", info;
    ExecutorDead, "executor_dead", warn;
    DatabaseTrouble, "database_trouble", warn;
    FailedOver, "failed_over", warn;
    Quarantine, "quarantine", warn;
    DiskFull, "disk_full", error;
    OutputNotShown, "output_not_shown", warn;
    WorkNotKept, "work_not_kept", warn;
    WorkspacesCleaned, "workspaces_cleaned", info;
    BatchJoined, "batch_joined", info;
    BatchWaiting, "batch_waiting", warn;
    Scarce, "scarce", warn;
    Failed, "failed", error;
    Bug, "bug", error;
}

/// The run that a line is about, as far as it is known.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct About<'a> {
    pub(crate) run: Option<&'a str>,
    pub(crate) attempt: Option<i32>,
    pub(crate) fence: Option<Fence>,
}

/// Who this process is, once it is known.
static EXECUTOR: OnceLock<String> = OnceLock::new();

/// How the lines of this process look, once it has begun.
static FORMAT: OnceLock<Format> = OnceLock::new();

/// From here on lines look like this. Once for each process; before it, nothing is said.
///
/// People who watch `one_run` need not be told which.
pub(crate) fn begin(format: Format, one_run: bool) {
    start(format, ForPeople { one_run, leaves_out: Vec::new() }, BoxMakeWriter::new(io::stderr));
}

/// The same for people who watch a picture, which shows what is left out here: lines go through whatever knows how to write beside it.
pub(crate) fn begin_beside<W: Write>(leaves_out: Vec<What>, writer: impl Fn() -> W + Send + Sync + 'static) {
    start(Format::Text, ForPeople { one_run: false, leaves_out }, BoxMakeWriter::new(writer));
}

fn start(format: Format, for_people: ForPeople, writer: BoxMakeWriter) {
    if FORMAT.set(format).is_err() {
        return;
    }
    let lines = tracing_subscriber::fmt().with_writer(writer);
    // Somebody who has this as a library may have a subscriber of his own, which is then told.
    let _ = match format {
        Format::Text => lines.event_format(for_people).try_init(),
        Format::Json => {
            let lines = lines.json().flatten_event(true).with_target(false);
            lines.with_current_span(false).with_span_list(false).try_init()
        }
    };
}

/// From here on each line says who says it. Once for each process.
pub(crate) fn identify(executor_id: &str) {
    let _ = EXECUTOR.set(executor_id.to_owned());
}

/// Whether lines are for machines.
pub(crate) fn is_for_machines() -> bool {
    FORMAT.get() == Some(&Format::Json)
}

/// A line about this process, or the fleet.
pub(crate) fn say(what: What, message: impl Display) {
    say_of(what, About::default(), message);
}

/// A line about a run.
pub(crate) fn say_of(what: What, about: About<'_>, message: impl Display) {
    what.say(&about, &message.to_string());
}

#[cfg(test)]
mod tests {
    use super::What;

    /// People build alerts on them.
    #[test]
    fn every_name_is_documented() {
        let page = std::fs::read_to_string("docs/logs.md").expect("the page");
        for what in What::ALL {
            assert!(page.contains(&format!("| `{}` |", what.name())), "{} is not in docs/logs.md", what.name());
        }
        let documented = page.lines().filter(|line| line.starts_with("| `") && !line.contains("`event`")).count();
        assert_eq!(documented, What::ALL.len(), "docs/logs.md has a name that nobody says");
    }
}
