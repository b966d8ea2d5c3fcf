//! The levels of containment that can be had here, found out without asking the product.

use std::path::PathBuf;
use std::process::Command;
use std::sync::OnceLock;

use super::support::{Database, Systole, is_root};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Level {
    PidNamespace,
    Cgroup,
    Subreaper,
}

const ALL: [Level; 3] = [Level::PidNamespace, Level::Cgroup, Level::Subreaper];

impl Level {
    /// As users write it. Also a fine name for a run.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Level::PidNamespace => "pid_namespace",
            Level::Cgroup => "cgroup",
            Level::Subreaper => "subreaper",
        }
    }

    /// Whether a frozen tree stays frozen whatever anybody sends it.
    pub(crate) fn freezes(self) -> bool {
        self != Level::Subreaper && cgroup_problem().is_none()
    }

    /// A host on which runs are contained by this level.
    pub(crate) fn host(self, database: &Database) -> Systole {
        Systole::on(database).with("SYSTOLE_CONTAINMENT", self.name())
    }
}

/// Does `test` at all levels that can be had, side by side. The level's name is the thread's.
#[track_caller]
pub(crate) fn at_every_level(test: impl Fn(Level) + Sync) {
    at_each_of(&ALL, test);
}

/// All levels that can be had.
pub(crate) fn had() -> Vec<Level> {
    ALL.into_iter().filter(|level| can_be_had(*level)).collect()
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

fn can_be_had(level: Level) -> bool {
    let problem = match level {
        Level::PidNamespace => pid_namespace_problem(),
        Level::Cgroup => cgroup_problem(),
        Level::Subreaper => None,
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
        let Some(own) = own_cgroup() else { return Some("no cgroup v2 is mounted".to_owned()) };
        let tried = own.join(format!("systole-test-{}", std::process::id()));
        // Making one needs the right to write there, and moving a process into it that of writing to our own as well.
        let made = std::fs::create_dir(&tried).and_then(|()| std::fs::remove_dir(&tried));
        let moved = made.and_then(|()| std::fs::File::options().write(true).open(own.join("cgroup.procs")));
        moved.err().map(|error| format!("{}: {error}", own.display()))
    };
    PROBLEM.get_or_init(look).clone()
}

fn own_cgroup() -> Option<PathBuf> {
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").ok()?;
    let mount = mounts.lines().find(|line| line.contains(" - cgroup2 "))?.split(' ').nth(4)?.to_owned();
    let cgroups = std::fs::read_to_string("/proc/self/cgroup").ok()?;
    let own = cgroups.lines().find_map(|line| line.strip_prefix("0::/"))?;
    Some(PathBuf::from(mount).join(own))
}

#[test]
fn the_level_that_is_asked_for_is_the_one_in_force() {
    let database = Database::new();
    at_every_level(|level| {
        let host = level.host(&database);
        let ran = host.output(&["run", level.name(), "--", "true"]);
        assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
        let label = database
            .value(&format!("SELECT containment FROM systole.executor_instances WHERE run_id = '{}'", level.name()));
        assert_eq!(label.strip_suffix("+cgroup").unwrap_or(&label), level.name());
    });
}
