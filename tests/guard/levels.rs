//! The levels of containment that can be had here, found out without asking the product.

use std::process::Command;
use std::sync::OnceLock;

use super::support::{Cgroup, Database, Systole, cgroup, is_root};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Level {
    PidNamespace,
    Cgroup,
    Subreaper,
    /// As a user without rights, in a cgroup that is delegated to him: the strongest that can be had is a cgroup.
    Delegated,
    /// The same in a cgroup of root's: the strongest that can be had is a subreaper.
    Undelegated,
}

/// The levels as whoever runs the tests.
const OURS: [Level; 3] = [Level::PidNamespace, Level::Cgroup, Level::Subreaper];

/// As another user, who takes what he gets.
pub(crate) const USERS: [Level; 2] = [Level::Delegated, Level::Undelegated];

/// Somebody who has nothing here: `nobody` has files in some places.
pub(crate) const USER: u32 = 54_321;

impl Level {
    /// As users write it, where they do. Also a fine name for a run.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Level::PidNamespace => "pid_namespace",
            Level::Cgroup => "cgroup",
            Level::Subreaper => "subreaper",
            Level::Delegated => "delegated",
            Level::Undelegated => "undelegated",
        }
    }

    /// What stands in the database, without what it is combined with.
    fn label(self) -> &'static str {
        match self {
            Level::Delegated => "cgroup",
            Level::Undelegated => "subreaper",
            named => named.name(),
        }
    }

    /// Whether a frozen tree stays frozen whatever anybody sends it.
    pub(crate) fn freezes(self) -> bool {
        self.label() != "subreaper" && cgroup_problem().is_none()
    }

    /// A host on which runs are contained by this level.
    pub(crate) fn host(self, database: &Database) -> Systole {
        match self {
            Level::Delegated => Systole::on(&database.over_tcp()).within(Cgroup::user_scope(USER)).by_user(USER),
            Level::Undelegated => Systole::on(&database.over_tcp()).within(Cgroup::service()).by_user(USER),
            named => Systole::on(database).with("SYSTOLE_CONTAINMENT", named.name()),
        }
    }
}

/// Does `test` at all levels that can be had, side by side. The level's name is the thread's.
#[track_caller]
pub(crate) fn at_every_level(test: impl Fn(Level) + Sync) {
    at_each_of(&OURS, test);
}

/// The same, and then as another user: as many at once as elsewhere.
#[track_caller]
pub(crate) fn at_every_level_and_as_users(test: impl Fn(Level) + Sync) {
    at_each_of(&OURS, &test);
    at_each_of(&USERS, &test);
}

/// All levels that can be had.
pub(crate) fn had() -> Vec<Level> {
    OURS.into_iter().filter(|level| can_be_had(*level)).collect()
}

/// Does `test` at those of the `wanted` levels that can be had, side by side.
#[track_caller]
pub(crate) fn at_each_of(wanted: &[Level], test: impl Fn(Level) + Sync) {
    let test = &test;
    let failed: Vec<&str> = std::thread::scope(|scope| {
        let had = wanted.iter().copied().filter(|level| can_be_had(*level));
        let running: Vec<_> = had
            .map(|level| {
                let thread = std::thread::Builder::new().name(level.name().to_owned());
                (level.name(), thread.spawn_scoped(scope, move || test(level)).expect("a thread"))
            })
            .collect();
        running.into_iter().filter_map(|(name, thread)| thread.join().is_err().then_some(name)).collect()
    });
    assert!(failed.is_empty(), "failed at {failed:?}: see above");
}

pub(crate) fn can_be_had(level: Level) -> bool {
    let problem = match level {
        Level::PidNamespace => pid_namespace_problem(),
        Level::Cgroup => cgroup_problem(),
        Level::Subreaper => None,
        Level::Delegated | Level::Undelegated if !is_root() => Some("becoming another user takes root".to_owned()),
        Level::Delegated | Level::Undelegated => cgroup_problem(),
    };
    if let Some(problem) = &problem {
        eprintln!("skipped at level {}: {problem}", level.name());
    }
    problem.is_none()
}

fn pid_namespace_problem() -> Option<String> {
    static PROBLEM: OnceLock<Option<String>> = OnceLock::new();
    let look = || {
        if !is_root() {
            return Some("that takes root".to_owned());
        }
        let tried = Command::new("unshare").args(["--pid", "--mount-proc", "--fork", "true"]).output();
        match tried {
            Ok(output) if output.status.success() => None,
            Ok(output) => Some(String::from_utf8_lossy(&output.stderr).trim().to_owned()),
            Err(error) => Some(format!("unshare(1): {error}")),
        }
    };
    PROBLEM.get_or_init(look).clone()
}

fn cgroup_problem() -> Option<String> {
    static PROBLEM: OnceLock<Option<String>> = OnceLock::new();
    let look = || {
        let Some(own) = cgroup::own() else { return Some("no cgroup v2 is mounted".to_owned()) };
        let tried = own.join(format!("systole-test-{}", std::process::id()));
        // Making one needs the right to write there, and moving a process into it that of writing to our own as well.
        let made = std::fs::create_dir(&tried).and_then(|()| std::fs::remove_dir(&tried));
        let moved = made.and_then(|()| std::fs::File::options().write(true).open(own.join("cgroup.procs")));
        moved.err().map(|error| format!("{}: {error}", own.display()))
    };
    PROBLEM.get_or_init(look).clone()
}

#[test]
fn the_strongest_level_that_is_asked_for_and_can_be_had_is_in_force() {
    let database = Database::new();
    at_every_level_and_as_users(|level| {
        let host = level.host(&database);
        let ran = host.output(&["run", level.name(), "--", "true"]);
        assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
        let label = database
            .value(&format!("SELECT containment FROM systole.executor_instances WHERE run_id = '{}'", level.name()));
        assert_eq!(label.strip_suffix("+cgroup").unwrap_or(&label), level.label());
    });
}
