//! What a node can serve: its queues, its labels, and the commands that it may start. Pure.
//!
//! A row of a database is not a remote shell. What a run needs started is one of its requirements, like any label: a node
//! claims only what its own configuration allows, and starts nothing else whatever it was given.

use std::collections::BTreeMap;
use std::ffi::OsString;

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

    #[test]
    fn only_whole_elements_are_filled_in() {
        let argv = catalogue().command(Asked::Command("train"), "$(reboot)", 2).unwrap();
        assert_eq!(argv, ["python", "x.py", "$(reboot)", "--{run_id}"]);
        assert!(catalogue().command(Asked::Argv(&["rm".to_owned()]), "r", 1).is_none());
    }
}
