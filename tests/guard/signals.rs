//! The ways to end a command from outside: a signal to `systole run`, `systole stop`, the run's own timeout.

use std::time::{Duration, Instant};

use rustix::process::{Signal, kill_process};

use super::SOON;
use super::levels::at_every_level;
use super::support::{Database, Running, eventually};
use super::trees::{Mark, ends, start_tree};

/// Says what it hears and goes on.
const DEAF: &str = "trap 'echo TERM' TERM; trap 'echo USR1' USR1; echo ready; while :; do sleep 0.02; done";

/// The grace between TERM and KILL that these tests set.
const GRACE: Duration = Duration::from_millis(500);

fn count(run: &Running, word: &str) -> usize {
    run.output().lines().filter(|line| *line == word).count()
}

#[test]
fn a_term_is_passed_on_once_and_a_second_one_halts() {
    let database = Database::new();
    at_every_level(|level| {
        let host = level.host(&database).with("SYSTOLE_STOP_GRACE", "500ms");
        let mark = Mark::new();
        let script = format!("sh -c \"trap 'echo child' TERM; while :; do sleep 0.02; done\" & {DEAF}");
        let mut run = host.start(&["run", level.name(), "--", "env", &mark.variable(), "sh", "-c", &script]);
        run.wait_for_output("ready");
        run.signal(Signal::TERM);
        run.wait_for_output("TERM");
        // What is sent behind it arrives behind it.
        run.signal(Signal::USR1);
        run.wait_for_output("USR1");
        assert_eq!((count(&run, "TERM"), count(&run, "child")), (1, 0), "{}", run.output());

        let halted = Instant::now();
        run.signal(Signal::TERM);
        eventually("TERM to the whole tree", SOON, || {
            (count(&run, "TERM") == 2 && count(&run, "child") == 1).then_some(())
        });
        assert_eq!(run.code(SOON), 137, "{}", run.errors());
        assert!(halted.elapsed() >= GRACE, "killed after {:?}", halted.elapsed());
        assert!(halted.elapsed() < GRACE + Duration::from_secs(2), "killed only after {:?}", halted.elapsed());
        assert!(mark.living().is_empty(), "something lives");
        assert_eq!((count(&run, "TERM"), count(&run, "child")), (2, 1), "{}", run.output());
        assert_eq!(ends(&database, level.name()), ["CANCELLED 137"]);
    });
}

#[test]
fn what_a_command_makes_of_a_term_is_its_own() {
    let database = Database::new();
    at_every_level(|level| {
        let host = level.host(&database);
        for (trap, code) in [("exit 0", 0), ("exit 5", 5), ("-", 143)] {
            let script = format!("trap '{trap}' TERM; echo ready; while :; do sleep 0.02; done");
            let mut run = host.start(&["run", level.name(), "--", "sh", "-c", &script]);
            run.wait_for_output("ready");
            run.signal(Signal::TERM);
            assert_eq!(run.code(SOON), code, "{trap}: {}", run.errors());
        }
        assert_eq!(ends(&database, level.name()), ["COMPLETED 0", "CANCELLED 5", "CANCELLED 143"]);
    });
}

#[test]
fn a_third_term_kills_without_waiting_for_the_grace() {
    let database = Database::new();
    at_every_level(|level| {
        let host = level.host(&database).with("SYSTOLE_STOP_GRACE", "1m");
        let mark = Mark::new();
        let mut run = start_tree(&host, level.name(), &mark);
        run.signal(Signal::TERM);
        eventually("an end", SOON, || {
            // Until it is gone: signals that are sent faster than they are heard count once.
            let _ = kill_process(run.pid(), Signal::TERM);
            mark.living().is_empty().then_some(())
        });
        run.wait(SOON);
        assert_eq!(ends(&database, level.name()).len(), 1);
        assert!(ends(&database, level.name())[0].starts_with("CANCELLED"), "{:?}", ends(&database, level.name()));
    });
}

/// A signal that comes while the command is just being started must not be lost.
#[test]
fn a_term_at_the_very_start_ends_the_run() {
    let database = Database::new();
    at_every_level(|level| {
        let host = level.host(&database);
        for _ in 0..4 {
            let mut run = host.start(&["run", level.name(), "--", "sleep", "1000"]);
            run.wait_for_errors("attempt", SOON);
            run.signal(Signal::TERM);
            assert_eq!(run.code(SOON), 143, "{}", run.errors());
        }
        assert_eq!(ends(&database, level.name()), ["CANCELLED 143"; 4]);
    });
}

#[test]
fn a_requested_stop_is_a_term_and_then_the_end() {
    let database = Database::new();
    at_every_level(|level| {
        let host = level.host(&database).fast();
        let mut run = host.start_run(level.name(), "trap 'echo TERM; exit 0' TERM; while :; do sleep 0.02; done");
        let mut stop = host.start(&["stop", level.name(), "--wait"]);
        assert_eq!(stop.code(SOON), 0, "{}", stop.errors());
        assert_eq!(ends(&database, level.name()), ["CANCELLED 0"], "--wait waits for this");
        assert_eq!(run.code(SOON), 0, "{}", run.errors());
        assert_eq!(count(&run, "TERM"), 1);
        let again = host.output(&["stop", level.name()]);
        assert_eq!(again.status.code(), Some(64), "there is nothing to stop");
    });
}

#[test]
fn a_requested_stop_kills_who_ignores_it() {
    let database = Database::new();
    at_every_level(|level| {
        let host = level.host(&database).fast().with("SYSTOLE_STOP_GRACE", "500ms");
        let mark = Mark::new();
        let mut run = start_tree(&host, level.name(), &mark);
        let deaf = host.start_run(&format!("{}-deaf", level.name()), DEAF);
        for run_id in [level.name().to_owned(), format!("{}-deaf", level.name())] {
            let mut stop = host.start(&["stop", &run_id, "--wait"]);
            assert_eq!(stop.code(SOON), 0, "{}", stop.errors());
        }
        assert!(mark.living().is_empty(), "something lives");
        run.wait(SOON);
        assert!(count(&deaf, "TERM") >= 1, "{}", deaf.output());
        assert_eq!(ends(&database, &format!("{}-deaf", level.name())), ["CANCELLED 137"]);
    });
}

#[test]
fn a_run_whose_time_is_up_is_stopped_and_failed() {
    let database = Database::new();
    at_every_level(|level| {
        let host = level.host(&database).with("SYSTOLE_STOP_GRACE", "300ms");
        for script in
            ["sleep 1000", "trap '' TERM; while :; do sleep 0.1; done", "trap 'exit 0' TERM; sleep 1000 & wait"]
        {
            let mut run = host.start(&["run", "--timeout", "300ms", level.name(), "--", "sh", "-c", script]);
            assert_eq!(run.code(SOON), 124, "{script}: {}", run.errors());
        }
        assert_eq!(ends(&database, level.name()), ["TIMED_OUT 143", "TIMED_OUT 137", "TIMED_OUT 0"]);
        let status = database.value(&format!("SELECT status FROM systole.runs WHERE run_id = '{}'", level.name()));
        assert_eq!(status, "FAILED");
    });
}
