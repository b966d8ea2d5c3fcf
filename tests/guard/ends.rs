//! How a command ended is what is recorded, whatever happens around that end; and nothing of it stays behind.

use std::path::PathBuf;
use std::time::Duration;

use rustix::process::{Signal, kill_process};

use super::SOON;
use super::levels::{Level, at_every_level, at_every_level_and_as_users, had};
use super::support::process::{guard_of, lives};
use super::support::{Database, Running, Systole, eventually, throughout};
use super::trees::{Mark, ends};

#[test]
fn what_a_command_leaves_behind_ends_with_it() {
    let database = Database::new();
    at_every_level_and_as_users(|level| {
        let host = level.host(&database);
        let mark = Mark::new();
        let script = "
            sleep 1000 &
            setsid sleep 1000 &
            (setsid sh -c 'trap \"\" HUP TERM; exec <&- >&- 2>&-; while :; do sleep 0.1; done' &)
            exit 0";
        let mut run = host.start(&["run", level.name(), "--", "env", &mark.variable(), "sh", "-c", script]);
        assert_eq!(run.code(SOON), 0, "{}", run.errors());
        assert!(mark.living().is_empty(), "the end was recorded while something lived");
        assert_eq!(ends(&database, level.name()), ["COMPLETED 0"]);
    });
}

#[test]
fn a_command_that_cannot_be_started_has_failed_as_in_a_shell() {
    let database = Database::new();
    at_every_level(|level| {
        let host = level.host(&database);
        for (program, code) in [("/no/such/program", 127), ("/etc/passwd", 126), ("/", 126)] {
            let ran = host.output(&["run", level.name(), "--", program]);
            assert_eq!(ran.status.code(), Some(code), "{program}: {}", String::from_utf8_lossy(&ran.stderr));
        }
        assert_eq!(ends(&database, level.name()), ["FAILED 127", "FAILED 126", "FAILED 126"]);
    });
}

/// A run per level, whose command ends with this code when it is told to.
struct Ending {
    level: Level,
    code: i32,
    run: Running,
    host: Systole,
    go: PathBuf,
}

fn endings(database: &Database) -> Vec<Ending> {
    let start = |(level, code): (Level, i32)| {
        let host = level.host(database);
        let go = host.state.path().join("go");
        let script = format!("while [ ! -e '{}' ]; do sleep 0.01; done; exit {code}", go.display());
        let run = host.start_run(level.name(), &script);
        Ending { level, code, run, host, go }
    };
    had().into_iter().zip([3, 0, 4]).map(start).collect()
}

impl Ending {
    /// The command has ended, and its supervisor waits for the server.
    #[track_caller]
    fn end_unrecorded(&mut self) {
        std::fs::write(&self.go, "").expect("it can be written");
        self.run.wait_for_errors("cannot be recorded yet", SOON);
    }

    fn recorded(&self) -> String {
        format!("{} {}", if self.code == 0 { "COMPLETED" } else { "FAILED" }, self.code)
    }
}

#[test]
fn an_end_while_the_server_is_down_is_recorded_when_it_is_back() {
    let (database, mut server) = Database::on_own_server();
    let mut endings = endings(&database);
    server.crash();
    endings.iter_mut().for_each(Ending::end_unrecorded);
    for ending in &endings {
        ending.run.signal(Signal::TERM);
        throughout("one signal does not end the wait", Duration::from_millis(100), || {
            lives(ending.run.pid().as_raw_pid())
        });
    }
    server.start();
    for ending in &mut endings {
        assert_eq!(ending.run.code(SOON), ending.code, "{}", ending.run.errors());
        assert_eq!(ends(&database, ending.level.name()), [ending.recorded()]);
    }
}

#[test]
fn an_end_that_nobody_waited_to_record_is_filed_by_the_next_systole_of_the_host() {
    let (database, mut server) = Database::on_own_server();
    let mut endings = endings(&database);
    server.crash();
    endings.iter_mut().for_each(Ending::end_unrecorded);
    for ending in &mut endings {
        ending.run.signal(Signal::TERM);
        // Two that come at once would count as one.
        eventually("the first signal", SOON, || (!is_pending(&ending.run, Signal::TERM)).then_some(()));
        ending.run.signal(Signal::TERM);
        assert_eq!(ending.run.code(SOON), 69, "{}", ending.run.errors());
        assert!(ending.run.errors().contains("certified"), "{}", ending.run.errors());
    }
    server.start();
    for ending in &endings {
        assert_eq!(ends(&database, ending.level.name()), ["RUNNING"], "nobody has told the database yet");
        let other = ending.host.output(&["run", &format!("{}-other", ending.level.name()), "--", "true"]);
        assert_eq!(other.status.code(), Some(0), "{}", String::from_utf8_lossy(&other.stderr));
        assert_eq!(ends(&database, ending.level.name()), [ending.recorded()]);
        assert_eq!(std::fs::read_dir(ending.host.instances()).expect("a folder").count(), 0, "it was filed");
    }
}

#[test]
fn a_lost_guard_while_the_server_is_down_does_not_hold_its_supervisor_for_ever() {
    let (database, mut server) = Database::on_own_server();
    let mut endings = endings(&database);
    server.crash();
    for ending in &mut endings {
        kill_process(guard_of(ending.run.pid()), Signal::KILL).expect("the guard lives");
        ending.run.wait_for_errors("the guard process is gone", SOON);
        ending.run.signal(Signal::TERM);
        eventually("the first signal", SOON, || (!is_pending(&ending.run, Signal::TERM)).then_some(()));
        throughout("one signal does not end the wait", Duration::from_millis(100), || {
            lives(ending.run.pid().as_raw_pid())
        });
        ending.run.signal(Signal::TERM);
        assert_eq!(ending.run.code(SOON), 76, "{}", ending.run.errors());
    }
    server.start();
    for ending in &endings {
        assert_eq!(ends(&database, ending.level.name()), ["RUNNING"], "nobody can say how it ended");
    }
}

fn is_pending(run: &Running, signal: Signal) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{}/status", run.pid().as_raw_pid())).unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("ShdPnd:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0);
    mask & (1 << (signal.as_raw() - 1)) != 0
}

#[test]
fn while_the_server_is_away_a_duplicate_on_this_host_is_refused_all_the_same() {
    let (database, server) = Database::on_own_server();
    let host = Systole::on(&database);
    let holder = host.start_run("nightly", "exec sleep 1000");
    server.crash();
    let duplicate = host.output(&["run", "nightly", "--", "echo", "never"]);
    let errors = String::from_utf8_lossy(&duplicate.stderr).into_owned();
    assert_eq!(duplicate.status.code(), Some(75), "{errors}");
    assert!(errors.contains(&format!("executor {}@", holder.pid().as_raw_pid())), "{errors}");
    assert!(duplicate.stdout.is_empty(), "the duplicate ran");

    let other = host.output(&["run", "another", "--", "echo", "never"]);
    let errors = String::from_utf8_lossy(&other.stderr).into_owned();
    assert_eq!(other.status.code(), Some(69), "{errors}");
    assert!(errors.contains("cannot be reached"), "{errors}");
    assert!(other.stdout.is_empty(), "it ran without a database");
}
