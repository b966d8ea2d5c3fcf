//! What a node can serve: its queues, its labels, and the commands that it may start. Pure.
//!
//! A row of a database is not a remote shell. What a run needs started is one of its requirements, like any label: only a node
//! whose own configuration allows it looks into that lane.

use std::collections::BTreeMap;
use std::ffi::OsString;

/// A queue and what its runs require.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Lane {
    pub(crate) lane_id: i32,
    pub(crate) queue: String,
    pub(crate) requirements: BTreeMap<String, String>,
}

/// What one node can serve.
#[derive(Debug, Clone, Default)]
pub(crate) struct Catalogue {
    pub(crate) queues: Vec<String>,
    pub(crate) labels: BTreeMap<String, String>,
    /// Program and arguments by the name that runs ask for.
    pub(crate) commands: BTreeMap<String, Vec<String>>,
    /// Whether it starts what a run brings with it.
    pub(crate) allow_submitted_commands: bool,
}

/// What a granted run asks for.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Asked<'a> {
    Argv(&'a [String]),
    Command(&'a str),
}

impl Catalogue {
    /// Whether runs of this lane may be started here.
    pub(crate) fn serves(&self, lane: &Lane) -> bool {
        self.queues.contains(&lane.queue) && lane.requirements.iter().all(|(key, value)| self.has(key, value))
    }

    fn has(&self, key: &str, value: &str) -> bool {
        match key {
            "systole:argv" => self.allow_submitted_commands,
            "systole:command" => self.commands.contains_key(value),
            key => self.labels.get(key).is_some_and(|own| own == value),
        }
    }

    /// Program and arguments of a run; `None` if it may not be started here. Whole elements `{run_id}` and `{attempt}` of a
    /// configured command are filled in: a value never becomes part of an argument, and never passes a shell.
    pub(crate) fn command(&self, asked: Asked<'_>, run_id: &str, attempt: i32) -> Option<Vec<OsString>> {
        match asked {
            Asked::Argv(argv) => self.allow_submitted_commands.then(|| argv.iter().map(OsString::from).collect()),
            Asked::Command(name) => {
                let fill = |element: &String| match element.as_str() {
                    "{run_id}" => OsString::from(run_id),
                    "{attempt}" => OsString::from(attempt.to_string()),
                    other => OsString::from(other),
                };
                Some(self.commands.get(name)?.iter().map(fill).collect())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn catalogue() -> Catalogue {
        Catalogue {
            queues: vec!["default".to_owned()],
            labels: [("gpu".to_owned(), "a100".to_owned())].into(),
            commands: [("train".to_owned(), ["python", "x.py", "{run_id}", "--{run_id}"].map(str::to_owned).to_vec())]
                .into(),
            allow_submitted_commands: false,
        }
    }

    fn lane(queue: &str, requirements: &[(&str, &str)]) -> Lane {
        let requirements = requirements.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        Lane { lane_id: 1, queue: queue.to_owned(), requirements }
    }

    #[test]
    fn a_lane_is_served_if_all_it_requires_is_here() {
        let own = catalogue();
        assert!(own.serves(&lane("default", &[("systole:command", "train"), ("gpu", "a100")])));
        assert!(!own.serves(&lane("default", &[("systole:command", "train"), ("gpu", "h100")])));
        assert!(!own.serves(&lane("other", &[("systole:command", "train")])));
        assert!(!own.serves(&lane("default", &[("systole:command", "rm")])));
        assert!(!own.serves(&lane("default", &[("systole:argv", "yes")])), "nobody has allowed that");
        let allowed = Catalogue { allow_submitted_commands: true, ..own };
        assert!(allowed.serves(&lane("default", &[("systole:argv", "yes")])));
    }

    #[test]
    fn only_whole_elements_are_filled_in() {
        let argv = catalogue().command(Asked::Command("train"), "$(reboot)", 2).unwrap();
        assert_eq!(argv, ["python", "x.py", "$(reboot)", "--{run_id}"]);
        assert!(catalogue().command(Asked::Argv(&["rm".to_owned()]), "r", 1).is_none());
    }
}
