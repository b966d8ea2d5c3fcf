//! A capture that is killed: nothing of it is left at work, and nothing behind that the next one or `clean` does not remove.

use std::time::Duration;

use rustix::process::{Signal, kill_process};

use crate::support::probe::Mark;
use crate::support::process::guard_of;
use crate::support::{Running, Systole, eventually};
use crate::{Repository, SOON, TESTS, capture, expect, host, report};

/// Tests that never end, with what has left their session, and files that somebody might take for work.
fn start(host: &Systole, repository: &Repository, mark: &Mark) -> Running {
    let script = "setsid sleep 600 & echo litter > litter.txt; git add -A; touch \"$0\"; sleep 600";
    let started = host.state.path().join("started");
    let _ = std::fs::remove_file(&started);
    let arguments = ["baseline", "capture", "r", "--repo", repository.text(), "--commit", "HEAD", "--"];
    let tests = ["env", &mark.variable(), "sh", "-c", script, started.to_str().unwrap()];
    let running = host.start(&[&arguments[..], &tests].concat());
    eventually("the tests", SOON, || started.exists().then_some(()));
    running
}

/// What is in the repository, but for objects that nothing leads to.
fn all_of(repository: &Repository) -> String {
    [&["for-each-ref"][..], &["status", "--porcelain"], &["worktree", "list"], &["config", "--list", "--local"]]
        .map(|arguments| repository.git(arguments))
        .join("\n")
}

#[track_caller]
fn is_cleaned(host: &Systole, repository: &Repository, before: &str) {
    eventually("the worktree is gone", SOON, || {
        let output = host.output(&["workspace", "clean"]);
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        (all_of(repository) == before).then_some(())
    });
    for folder in ["worktrees", "workspaces", "instances"] {
        assert_eq!(std::fs::read_dir(host.state.path().join("state").join(folder)).unwrap().count(), 0, "{folder}");
    }
}

#[test]
fn its_tests_die_with_it_and_clean_removes_what_is_left() {
    let (host, repository, mark) = (host(), Repository::new(), Mark::new());
    let before = all_of(&repository);
    let mut running = start(&host, &repository, &mark);
    let said = host.output(&["workspace", "clean"]);
    expect(&said, 0, &["removed 0 of 0"]);
    assert!(!mark.living().is_empty());
    running.signal(Signal::KILL);
    running.wait(SOON);
    mark.wait_for_death(SOON);
    is_cleaned(&host, &repository, &before);
    expect(&host.output(&["baseline", "diff", "r"]), 64, &["has no baseline"]);
}

#[test]
fn the_next_capture_removes_what_is_left_as_well() {
    let (host, repository, mark) = (host(), Repository::new(), Mark::new());
    repository.write("told.txt", &report(&[("a", "")]));
    let commit = repository.commit("one");
    let before = all_of(&repository);
    let mut running = start(&host, &repository, &mark);
    running.signal(Signal::KILL);
    running.wait(SOON);
    mark.wait_for_death(SOON);
    // Its guard may still be writing down that it is over.
    let guards = host.instances();
    eventually("its guard is gone", SOON, || {
        let held = |file: std::fs::DirEntry| {
            rustix::fs::flock(
                std::fs::File::open(file.path()).unwrap(),
                rustix::fs::FlockOperation::NonBlockingLockShared,
            )
            .is_err()
        };
        (!std::fs::read_dir(&guards).unwrap().flatten().any(held)).then_some(())
    });
    expect(&capture(&host, &repository, "r", &["--commit", &commit], TESTS), 0, &["1 passed"]);
    assert_eq!(all_of(&repository), before);
    is_cleaned(&host, &repository, &before);
}

/// Then nobody can certify anything; but where there is a cgroup, it can be seen to be empty.
#[test]
fn killed_together_with_its_guard_it_is_swept() {
    if !crate::support::is_root() {
        return;
    }
    let (host, repository, mark) = (host(), Repository::new(), Mark::new());
    let before = all_of(&repository);
    let mut running = start(&host, &repository, &mark);
    let guard = guard_of(running.pid());
    running.signal(Signal::STOP);
    kill_process(guard, Signal::KILL).unwrap();
    running.signal(Signal::KILL);
    running.wait(SOON);
    is_cleaned(&host, &repository, &before);
    assert!(mark.living().is_empty());
}

#[test]
fn a_baseline_is_whole_or_not_there() {
    let (host, repository) = (host(), Repository::new());
    repository.write("told.txt", &report(&[("a", "")]));
    let commit = repository.commit("one");
    let before = all_of(&repository);
    let reports = host.state.path().join("now.xml");
    std::fs::write(&reports, report(&[("a", "")])).unwrap();
    // Later and later, until two have got as far as to keep it: so some are killed on the way there, however fast this machine is.
    let (mut lost, mut kept) = (0, 0);
    for step in 0..200 {
        let flags = ["baseline", "capture", "r", "--repo", repository.text(), "--commit", &commit, "--"];
        let mut running = host.start(&[&flags[..], TESTS].concat());
        std::thread::sleep(Duration::from_millis(step * 40)); // anywhere in the middle
        running.signal(Signal::KILL);
        running.wait(SOON);
        let diff = host.output(&["baseline", "diff", "r", "--junit", reports.to_str().unwrap()]);
        match diff.status.code() {
            Some(0) => kept += 1,
            _ => {
                expect(&diff, 64, &["has no baseline"]);
                lost += 1;
            }
        }
        if kept == 2 {
            break;
        }
    }
    assert!(lost > 0 && kept == 2, "{lost} were killed before they had kept it, {kept} behind that");
    is_cleaned(&host, &repository, &before);
}
