//! A git that never answers: whoever asks for an end has it all the same, and no work is lost.

use std::time::Duration;

use rustix::process::{Signal, kill_process};

use crate::support::probe::Mark;
use crate::support::process::guard_of;
use crate::support::{Running, Systole, eventually};
use crate::{Repository, SOON, clean, host, only_worktree, with_git, worktrees};

/// A host on which `git reset`, which fills a worktree, waits for something, with all that it may have left behind.
fn hangs(host: &Systole, mark: &Mark) -> Systole {
    let (name, value) =
        mark.variable().split_once('=').map(|(name, value)| (name.to_owned(), value.to_owned())).unwrap();
    let there = host.state.path().join("there");
    // As a filter does, and an ssh: below git, and minding no TERM.
    let script = "case \"$*\" in *reset*) (trap '' TERM; touch \"$THERE\"; sleep 600); sleep 600;; esac";
    with_git(host, script).with("THERE", there.to_str().unwrap()).with(&name, &value)
}

#[track_caller]
fn wait_until_it_hangs(host: &Systole) {
    eventually("git is there", SOON, || std::fs::remove_file(host.state.path().join("there")).ok());
}

/// Nothing is left: no process, no worktree, no folder.
#[track_caller]
fn nothing_is_left(host: &Systole, repository: &Repository, mark: &Mark) {
    mark.wait_for_death(SOON);
    assert_eq!(repository.git(&["worktree", "list"]).lines().count(), 1);
    assert_eq!(worktrees(host), Vec::<serde_json::Value>::new());
    assert_eq!(std::fs::read_dir(host.state.path().join("state/worktrees")).unwrap().count(), 0);
}

#[test]
fn who_asks_for_an_end_does_not_wait_for_the_worktree() {
    let (database, host) = host();
    let (repository, mark) = (Repository::new(), Mark::new());
    let hanging = hangs(&host, &mark);
    let start = |run: &str| {
        let flags = ["--workspace-repo", repository.text(), "--workspace-branch", "--", "echo", "started"];
        let running = hanging.start(&[&["run", run][..], &flags].concat());
        wait_until_it_hangs(&host);
        running
    };
    let status = |run: &str| {
        database
            .value(&format!("SELECT status || ' ' || exit_code FROM systole.executor_instances WHERE run_id = '{run}'"))
    };
    let mut typed = start("typed");
    typed.signal(Signal::INT);
    assert_eq!(typed.code(SOON), 130, "{}", typed.errors());
    assert_eq!(status("typed"), "CANCELLED 130");
    nothing_is_left(&host, &repository, &mark);
    let mut stopped = start("stopped");
    let output = host.output(&["stop", "stopped", "--wait"]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert_eq!(stopped.code(SOON), 143, "{}", stopped.errors());
    assert_eq!(status("stopped"), "CANCELLED 143");
    nothing_is_left(&host, &repository, &mark);
    assert_eq!(repository.git(&["for-each-ref", "--format=%(refname)"]), "refs/heads/main");
    for run in [&typed, &stopped] {
        assert_eq!(run.output(), "");
    }
}

#[test]
fn a_node_that_halts_does_not_wait_for_it_either() {
    let (database, host) = host();
    let (repository, mark) = (Repository::new(), Mark::new());
    let output = host.output(&["submit", "r", "--workspace-repo", repository.text(), "--", "true"]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let mut node = hangs(&host, &mark).start(&["node", "--allow-submitted-commands"]);
    wait_until_it_hangs(&host);
    node.signal(Signal::TERM);
    node.wait_for_errors("draining", SOON);
    node.signal(Signal::TERM);
    assert_eq!(node.code(SOON), 0, "{}", node.errors());
    assert_eq!(database.value("SELECT status FROM systole.runs"), "QUEUED");
    assert_eq!(database.value("SELECT status FROM systole.executor_instances"), "RELEASED");
    nothing_is_left(&host, &repository, &mark);
}

/// A guard that is lost has its tree killed: all that is below the node, less what belongs to others.
#[test]
fn a_git_is_nobodys_orphan() {
    let (database, host) = host();
    let repository = Repository::new();
    let there = host.state.path().join("there");
    let script = "case \"$*\" in *reset*) touch \"$THERE\"; while test -e \"$THERE\"; do sleep 0.05; done;; esac";
    let slow = with_git(&host, script).with("THERE", there.to_str().unwrap());
    let node = slow.start(&["node", "--slots=2", "--allow-submitted-commands"]);
    let submit = |run: &str, more: &[&str]| {
        let output = host.output(&[&["submit", run], more].concat());
        assert_eq!(output.status.code(), Some(0), "{output:?}");
    };
    submit("other", &["--", "sleep", "600"]);
    let has_started = "SELECT count(*) FROM systole.executor_instances WHERE child_pid IS NOT NULL";
    eventually("the other", SOON, || (database.value(has_started) == "1").then_some(()));
    let guard = guard_of(node.pid());
    submit("r", &["--workspace-repo", repository.text(), "--", "true"]);
    eventually("git is there", SOON, || there.exists().then_some(()));
    kill_process(guard, Signal::KILL).unwrap();
    let is_lost = "SELECT count(*) FROM systole.executor_instances WHERE cause = 'guard_lost'";
    eventually("the end of the other", SOON, || (database.value(is_lost) == "1").then_some(()));
    std::fs::remove_file(&there).unwrap();
    let ended = "SELECT status FROM systole.executor_instances WHERE run_id = 'r' AND status <> 'RUNNING'";
    let ended = eventually("its end", SOON, || database.sql(ended).concat().pop());
    assert_eq!(ended, "COMPLETED", "{}", node.errors());
}

#[test]
fn nobody_waits_for_ever() {
    let (database, host) = host();
    let (repository, mark) = (Repository::new(), Mark::new());
    let patient = hangs(&host, &mark).with("SYSTOLE_WORKSPACE_GIT_TIMEOUT", "3s");
    let output = patient.output(&["run", "r", "--workspace-repo", repository.text(), "--", "true"]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(78), "{said}");
    assert!(said.contains("git reset did not end within 3s") && said.contains("git_timeout"), "{said}");
    assert_eq!(database.value("SELECT status FROM systole.executor_instances"), "FAILED");
    nothing_is_left(&host, &repository, &mark);
}

/// A filter of the user's that hangs.
fn stuck(host: &Systole) -> Repository {
    let repository = Repository::new();
    repository.write(".gitattributes", "*.big filter=stuck\n");
    repository.commit("a filter");
    let there = host.state.path().join("there");
    repository.git(&["config", "filter.stuck.clean", &format!("touch {}; sleep 600; cat", there.display())]);
    repository
}

fn begin(host: &Systole, repository: &Repository) -> Running {
    host.start(&["run", "r", "--workspace-repo", repository.text(), "--", "sh", "-c", "echo work > x.big; echo done"])
}

/// What stayed where it was is kept by whoever comes by when it can be.
#[track_caller]
fn stays_and_is_kept_later(host: &Systole, repository: &Repository) {
    let path = only_worktree(host);
    assert_eq!(std::fs::read_to_string(path.join("x.big")).unwrap(), "work\n");
    assert_eq!(repository.git(&["for-each-ref", "refs/systole"]), "");
    repository.git(&["config", "filter.stuck.clean", "cat"]);
    assert!(clean(host, &[]).contains("removed 1 of 1"));
    assert_eq!(repository.file("refs/systole/r/1", "x.big").as_deref(), Some("work\n"));
}

#[test]
fn an_end_is_recorded_also_where_no_snapshot_can_be_made() {
    let (database, host) = host();
    let repository = stuck(&host);
    let mut running = begin(&host.clone().with("SYSTOLE_WORKSPACE_GIT_TIMEOUT", "3s"), &repository);
    wait_until_it_hangs(&host);
    assert_eq!(running.code(SOON), 0, "{}", running.errors());
    let said = running.errors();
    assert!(said.contains("git add did not end within 3s") && said.contains("is not in a snapshot"), "{said}");
    assert_eq!(database.value("SELECT status FROM systole.executor_instances"), "COMPLETED");
    stays_and_is_kept_later(&host, &repository);
}

#[test]
fn who_asks_for_an_end_does_not_wait_for_a_snapshot() {
    let (database, host) = host();
    let repository = stuck(&host);
    let mut running = begin(&host.clone().with("SYSTOLE_STOP_GRACE", "300ms"), &repository);
    wait_until_it_hangs(&host);
    running.signal(Signal::TERM);
    assert_eq!(running.code(Duration::from_secs(10)), 0, "{}", running.errors());
    assert!(running.errors().contains("somebody has asked for an end"), "{}", running.errors());
    assert_eq!(database.value("SELECT status FROM systole.executor_instances"), "COMPLETED");
    stays_and_is_kept_later(&host, &repository);
}
