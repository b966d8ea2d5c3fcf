//! SIGSTOP of the supervisor and of the guard: a machine that was asleep must not wake up into a run that is another's.

use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use super::SOON;
use super::levels::{Level, at_every_level, at_every_level_and_as_users, had};
use super::support::process::{guard_of, state};
use super::support::{Database, boottime_ms, eventually, throughout};
use super::trees::{Mark, Probe, ends, last_heartbeat_ms, start_tree};

/// F, K and L of `Systole::fast`, in milliseconds.
const FENCE_AFTER: u64 = 1500;
const KILL_GRACE: u64 = 1000;

/// From the passing of a deadline to the last line of a probe that was frozen by it, on a busy machine.
const FREEZE_SLACK: u64 = 150;

#[test]
fn a_stopped_supervisor_loses_its_tree_before_the_next_one_starts() {
    let database = Database::new();
    at_every_level_and_as_users(|level| {
        let host = level.host(&database).fast();
        let (first, second) = (Probe::new(&host, "first"), Probe::new(&host, "second"));
        let mut holder = first.start(&host, level.name());
        let waiter = second.start_waiting(&host, level.name(), &["--wait"]);
        waiter.wait_for_errors("waiting for run", SOON);

        holder.signal(Signal::STOP);
        let dead = first.mark.wait_for_death(SOON);
        let heard = last_heartbeat_ms(&database, level.name(), 1);
        assert!(dead <= heard + FENCE_AFTER + KILL_GRACE, "dead only {} ms after the last heartbeat", dead - heard);
        let ran = first.last_stamp();
        assert!(ran <= heard + FENCE_AFTER + FREEZE_SLACK, "ran until {} ms after the last heartbeat", ran - heard);

        second.wait_for_stamp_after(0, SOON);
        assert!(first.mark.living().is_empty(), "two trees at once");
        let taken_over = boottime_ms();
        holder.signal(Signal::CONT);
        assert_eq!(holder.code(SOON), 76, "{}", holder.errors());
        second.wait_for_stamp_after(boottime_ms(), SOON);

        assert!(first.mark.living().is_empty(), "something came back");
        assert_eq!(first.last_stamp(), ran, "it ran on");
        assert!(second.stamps()[0] > ran && second.stamps()[0] <= taken_over, "the spans overlap");
        assert_eq!(ends(&database, level.name())[0], "CRASHED proof 137");
    });
}

#[test]
fn a_supervisor_that_wakes_up_unfollowed_owns_up() {
    let database = Database::new();
    at_every_level(|level| {
        let host = level.host(&database).fast();
        let probe = Probe::new(&host, "probe");
        let mut holder = probe.start(&host, level.name());
        holder.signal(Signal::STOP);
        probe.mark.wait_for_death(SOON);
        holder.signal(Signal::CONT);
        assert_eq!(holder.code(SOON), 76, "{}", holder.errors());
        assert!(holder.errors().contains("stopped for too long"), "{}", holder.errors());
        assert_eq!(ends(&database, level.name()), ["CRASHED proof 137"]);
    });
}

#[test]
fn a_short_stop_of_the_supervisor_costs_nothing() {
    let database = Database::new();
    at_every_level(|level| {
        let host = level.host(&database).fast();
        let probe = Probe::new(&host, "probe");
        let holder = probe.start(&host, level.name());
        holder.signal(Signal::STOP);
        let stopped = boottime_ms();
        // Trust is as old as one heartbeat interval of 0.4 s, and ends after 1.5 s.
        probe.wait_for_stamp_after(stopped + 700, SOON);
        holder.signal(Signal::CONT);
        // Past all that the stop could have led to.
        probe.wait_for_stamp_after(stopped + FENCE_AFTER + KILL_GRACE, SOON);
        assert_eq!(ends(&database, level.name()), ["RUNNING"]);
    });
}

/// A stopped process, that goes on with its work if the test fails before anybody has killed it.
struct Stopped(Pid);

impl Stopped {
    fn now(pid: Pid) -> Stopped {
        kill_process(pid, Signal::STOP).expect("it lives");
        Stopped(pid)
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        let _ = kill_process(self.0, Signal::CONT);
    }
}

#[test]
fn a_stopped_guard_is_found_out_and_loses_its_tree() {
    let database = Database::new();
    at_every_level_and_as_users(|level| {
        let host = level.host(&database).fast();
        let mark = Mark::new();
        let mut run = start_tree(&host, level.name(), &mark);
        let stopped = boottime_ms();
        let _guard = Stopped::now(guard_of(run.pid()));
        let dead = mark.wait_for_death(SOON);
        assert!(dead <= stopped + FENCE_AFTER + KILL_GRACE, "dead only {} ms later", dead - stopped);
        assert_eq!(run.code(SOON), 76, "{}", run.errors());
        assert_eq!(ends(&database, level.name()), ["CRASHED guard_lost"]);
    });
}

/// Without heartbeats there is nothing that it would have to echo. Found by tests/model.
#[test]
fn a_stopped_guard_is_found_out_while_the_database_is_away() {
    let (database, server) = Database::on_own_server();
    let start = |level: Level| {
        let host = level.host(&database).fast();
        let mark = Mark::new();
        let run = start_tree(&host, level.name(), &mark);
        (host, mark, run)
    };
    let trees: Vec<_> = had().into_iter().map(start).collect();
    let _hung = server.hang();
    let away = boottime_ms();
    let _guards: Vec<_> = trees.iter().map(|(_, _, run)| Stopped::now(guard_of(run.pid()))).collect();
    for (_, mark, run) in &trees {
        let dead = mark.wait_for_death(SOON);
        assert!(dead <= away + FENCE_AFTER + KILL_GRACE, "dead only {} ms later: {}", dead - away, run.errors());
    }
}

/// The guard has certified and gone, and on waking up its supervisor may first notice that it cannot speak to it.
#[test]
fn an_end_that_came_while_the_supervisor_was_stopped_is_that_end() {
    let database = Database::new();
    at_every_level(|level| {
        let host = level.host(&database);
        for attempt in 1..=4 {
            let mark = Mark::new();
            let go = host.state.path().join(format!("go-{attempt}"));
            let script = format!("echo ready; while [ ! -e '{}' ]; do sleep 0.01; done; exit 3", go.display());
            let mut run = host.start(&["run", level.name(), "--", "env", &mark.variable(), "sh", "-c", &script]);
            run.wait_for_output("ready");
            let guard = guard_of(run.pid());
            run.signal(Signal::STOP);
            eventually("a stopped supervisor", SOON, || (state(run.pid()) == Some('T')).then_some(()));
            std::fs::write(&go, "").expect("it can be written");
            mark.wait_for_death(SOON);
            eventually("the end of the guard", SOON, || (state(guard) == Some('Z')).then_some(()));
            run.signal(Signal::CONT);
            assert_eq!(run.code(SOON), 3, "{}", run.errors());
        }
        assert_eq!(ends(&database, level.name()), ["FAILED 3"; 4]);
    });
}

/// `kill -STOP` and `-CONT` of a whole process group, as a person does who wants to pause something for a moment.
#[test]
fn a_guard_cannot_be_talked_out_of_its_duty() {
    let database = Database::new();
    at_every_level_and_as_users(|level| {
        let host = level.host(&database);
        let mark = Mark::new();
        let run = start_tree(&host, level.name(), &mark);
        let guard = guard_of(run.pid());
        for signal in [
            Signal::HUP,
            Signal::INT,
            Signal::QUIT,
            Signal::TERM,
            Signal::TSTP,
            Signal::TTIN,
            Signal::TTOU,
            Signal::USR1,
            Signal::USR2,
        ] {
            kill_process(guard, signal).expect("the guard lives");
        }
        throughout("a guard on duty", Duration::from_millis(300), || matches!(state(guard), Some('S' | 'R')));
        run.signal(Signal::KILL);
        mark.wait_for_death(Duration::from_secs(1));
    });
}
