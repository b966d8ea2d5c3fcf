//! The cgroups that managers give a user, made by hand as systemd makes them.

use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use super::SOON;
use super::levels::{Level, USER, USERS, can_be_had, had};
use super::support::{Cgroup, Database, Systole, boottime_ms, eventually, throughout};
use super::trees::{Probe, ends};

/// A run and the doctor agree on what is in force within `cgroup`, and nothing of the run's stays there.
#[track_caller]
fn contained_within(cgroup: Cgroup, uid: Option<u32>) -> serde_json::Value {
    let database = Database::new();
    let mut host = Systole::on(&database.over_tcp()).within(cgroup);
    if let Some(uid) = uid {
        host = host.by_user(uid);
    }
    let ran = host.output(&["run", "r", "--", "sh", "-c", "setsid sleep 1000 & cat /proc/self/cgroup"]);
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
    let found = host.containment();
    let level = database.value("SELECT containment FROM systole.executor_instances");
    assert_eq!(found["level"], level.as_str());
    let cgroups = String::from_utf8_lossy(&ran.stdout).into_owned();
    let instance = database.value("SELECT instance_id FROM systole.executor_instances");
    let own = cgroups.lines().any(|line| line.ends_with(&format!("/systole-{instance}")));
    assert_eq!(own, level.contains("cgroup"), "{cgroups}");
    // Nobody waits while it is taken down.
    let cgroup = host.cgroup().expect("it was told one");
    eventually("the end of the tree's cgroup", SOON, || (!cgroup.has_below()).then_some(()));
    assert!(!found["not_covered"].as_str().expect("a sentence").is_empty());
    found
}

#[track_caller]
fn assert_says(found: &serde_json::Value, part: &str, words: &str) {
    let said = found[part].as_str().unwrap_or_else(|| panic!("no {part}: {found:#}"));
    assert!(said.contains(words), "{words:?} is not in {said:?}");
}

#[test]
fn a_cgroup_that_is_delegated_to_a_user_is_used_with_its_freezer() {
    if !can_be_had(Level::Delegated) {
        return;
    }
    for cgroup in [Cgroup::user_scope(USER), Cgroup::delegated_service(USER)] {
        let found = contained_within(cgroup, Some(USER));
        assert_eq!((&found["level"], &found["freezer"], &found["ok"]), (&"cgroup".into(), &true.into(), &true.into()));
        assert_says(&found, "found", "no PID namespace: that takes root");
    }
}

#[test]
fn a_cgroup_that_is_not_or_half_delegated_leaves_a_subreaper_and_the_doctor_says_so() {
    if !can_be_had(Level::Undelegated) {
        return;
    }
    for cgroup in [Cgroup::service(), Cgroup::half_delegated_service(USER)] {
        let found = contained_within(cgroup, Some(USER));
        assert_eq!((&found["level"], &found["ok"]), (&"subreaper".into(), &false.into()));
        assert_says(&found, "found", &format!("nightly.service is not delegated to user {USER}"));
        assert_says(&found, "remedy", "systemd-run --user --scope -p Delegate=yes");
    }
}

/// It lets itself be made, and refuses the process.
#[test]
fn a_cgroup_that_takes_no_process_is_found_out_at_the_birth() {
    if !can_be_had(Level::Delegated) {
        return;
    }
    let found = contained_within(Cgroup::threaded(), None);
    assert_eq!((&found["level"], &found["ok"]), (&"pid_namespace".into(), &false.into()));
    assert_says(&found, "found", "no cgroup: ours takes no process in one below it");
}

/// F and the time by which it is dead without a freezer, sent + L(1−r) − J, of `Systole::fast`, in milliseconds.
const FENCE_AFTER: u64 = 1500;
const DEAD_AFTER: u64 = 3100;

/// From the passing of a deadline to the last line of a probe that was frozen by it, on a busy machine.
const FREEZE_SLACK: u64 = 150;

#[test]
fn while_the_server_hangs_a_freezer_holds_against_anybody_and_a_grace_ends_in_time() {
    if !can_be_had(Level::Delegated) {
        return;
    }
    let (database, server) = Database::on_own_server();
    let start = |level: Level| {
        let host = level.host(&database).fast();
        let probe = Probe::new(&host, "probe");
        let run = probe.start(&host, level.name());
        (probe, run, host)
    };
    let [(frozen, kept, _here), (stopped, mut killed, _there)] = USERS.map(start);
    let hung = server.hang();
    let away = boottime_ms();
    kept.wait_for_errors("The command is frozen", SOON);
    throughout("a frozen command", Duration::from_millis(DEAD_AFTER + 1000 - FENCE_AFTER), || {
        for pid in frozen.mark.living() {
            let _ = kill_process(Pid::from_raw(pid).expect("a pid is positive"), Signal::CONT);
        }
        frozen.last_stamp() <= away + FENCE_AFTER + FREEZE_SLACK
    });
    assert!(!frozen.mark.living().is_empty(), "killed, not frozen");
    assert!(stopped.mark.living().is_empty(), "it lives");
    assert!(stopped.last_stamp() <= away + FENCE_AFTER + FREEZE_SLACK, "{} ms", stopped.last_stamp() - away);
    let back = boottime_ms();
    drop(hung);
    frozen.wait_for_stamp_after(back, SOON);
    kept.wait_for_errors("the command goes on", SOON);
    assert_eq!(ends(&database, Level::Delegated.name()), ["RUNNING"]);
    assert_eq!(killed.code(SOON), 76, "{}", killed.errors());
    assert_eq!(ends(&database, Level::Undelegated.name()), ["CRASHED proof 137"]);
}

/// As `systemd-run --scope` and containers without a daemon do.
#[test]
fn what_moves_itself_to_another_cgroup_stops_with_the_tree_and_is_dead_in_time() {
    let (database, server) = Database::on_own_server();
    let start = |level: Level| {
        let host = level.host(&database).fast();
        let probe = Probe::new(&host, "probe");
        let scope = Cgroup::service();
        let script = format!("echo 0 >'{}/cgroup.procs'; exec \"$@\"", scope.path().display());
        let run = probe.start_behind(&host, level.name(), &["sh", "-ec", &script, "sh"]);
        (level, probe, run, host, scope)
    };
    let mut runs: Vec<_> = had().into_iter().filter(|level| level.freezes()).map(start).collect();
    let hung = server.hang();
    let away = boottime_ms();
    for (level, probe, ..) in &runs {
        let dead = probe.mark.wait_for_death(SOON);
        assert!(dead <= away + DEAD_AFTER, "{}: dead only {} ms later", level.name(), dead - away);
        let ran = probe.last_stamp();
        assert!(ran <= away + FENCE_AFTER + FREEZE_SLACK, "{}: it ran for {} ms", level.name(), ran - away);
    }
    drop(hung);
    for (level, _, run, ..) in &mut runs {
        assert_eq!(run.code(SOON), 76, "{}", run.errors());
        assert_eq!(ends(&database, level.name()), ["CRASHED proof 137"]);
    }
}

/// As systemd does for a process that has asked for a scope just before.
#[test]
fn what_is_moved_out_of_a_frozen_cgroup_is_stopped_again_and_dead_in_time() {
    let (database, server) = Database::on_own_server();
    let start = |level: Level| {
        let host = level.host(&database).fast();
        let probe = Probe::new(&host, "probe");
        let run = probe.start(&host, level.name());
        (level, probe, run, host, Cgroup::service())
    };
    let mut runs: Vec<_> = had().into_iter().filter(|level| level.freezes()).map(start).collect();
    let hung = server.hang();
    let away = boottime_ms();
    for (level, probe, run, _, scope) in &runs {
        run.wait_for_errors("The command is frozen", SOON);
        let moved = boottime_ms();
        for pid in probe.mark.living() {
            std::fs::write(scope.path().join("cgroup.procs"), pid.to_string()).expect("we are root");
        }
        let dead = probe.mark.wait_for_death(SOON);
        assert!(dead <= away + DEAD_AFTER, "{}: dead only {} ms later", level.name(), dead - away);
        // A tick is a sixth of K.
        let ran = probe.last_stamp();
        assert!(ran <= moved + 1000 / 6 + FREEZE_SLACK, "{}: it ran for {} ms", level.name(), ran - moved);
    }
    drop(hung);
    for (level, _, run, ..) in &mut runs {
        assert_eq!(run.code(SOON), 76, "{}", run.errors());
        assert_eq!(ends(&database, level.name()), ["CRASHED proof 137"]);
    }
}
