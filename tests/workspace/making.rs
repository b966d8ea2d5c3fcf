//! Where a command finds itself.

use std::path::Path;
use std::time::Duration;

use crate::repository::git;
use crate::support::{Systole, eventually};
use crate::{Repository, SOON, host, run_in, worktrees};

#[test]
fn each_attempt_has_a_worktree_of_its_own() {
    let (_database, host) = host();
    let repository = Repository::new();
    let script =
        "test \"$PWD\" = \"$SYSTOLE_WORKSPACE\"; pwd; cat a.txt; git rev-parse --abbrev-ref HEAD; echo changed > a.txt";
    let first = run_in(&host, &repository, "nightly", script);
    let second = run_in(&host, &repository, "nightly", script);
    let [first, second] = [&first, &second].map(|said| said.lines().collect::<Vec<_>>());
    assert_eq!((&first[1..], &second[1..]), (&["one", "HEAD"][..], &["one", "HEAD"][..]));
    assert!(first[0].contains("/nightly-1-") && second[0].contains("/nightly-2-"), "{first:?} {second:?}");
    // Both are still there, as they were left.
    for path in [first[0], second[0]] {
        assert_eq!(std::fs::read_to_string(Path::new(path).join("a.txt")).unwrap(), "changed\n");
    }
    assert_eq!(std::fs::read_to_string(repository.path().join("a.txt")).unwrap(), "one\n");
    assert_eq!(repository.git(&["status", "--porcelain"]), "");
    let all = worktrees(&host);
    assert_eq!(all.len(), 2);
    assert!(all.iter().all(|it| it["dirty"] == true && it["holder"].is_null() && it["size_bytes"].as_u64() > Some(0)));
}

#[test]
fn a_base_and_a_branch_can_be_asked_for() {
    let (_database, host) = host();
    let repository = Repository::new();
    repository.write("a.txt", "two\n");
    repository.commit("second");
    let mut branches = Vec::new();
    // Another database's attempt may have left a branch of this name.
    repository.git(&["branch", "systole/nightly-2"]);
    for _ in 0..2 {
        let flags = ["--workspace-repo", repository.text(), "--workspace-base", "main~1", "--workspace-branch"];
        let script = "cat a.txt; git rev-parse --abbrev-ref HEAD; git config --get-regexp 'branch\\..*' || true";
        let output = host.output(&[&["run", "nightly"][..], &flags, &["--", "sh", "-c", script]].concat());
        let said = String::from_utf8(output.stdout).unwrap();
        let (text, branch) = said.trim().split_once('\n').unwrap();
        assert_eq!(text, "one");
        branches.push(branch.to_owned());
    }
    assert_eq!(branches[0], "systole/nightly-1");
    assert!(branches[1].starts_with("systole/nightly-2-"), "{branches:?}");
}

#[test]
fn a_git_of_somebody_else_does_not_lead_astray() {
    let (_database, host) = host();
    let (repository, other) = (Repository::new(), Repository::new());
    // As in a hook.
    let host = host
        .with("GIT_DIR", other.path().join(".git").to_str().unwrap())
        .with("GIT_INDEX_FILE", other.path().join(".git/index").to_str().unwrap());
    let said = run_in(&host, &repository, "r", "git rev-parse --git-common-dir; env | grep -c '^GIT_DIR=' || true");
    let expected = repository.path().join(".git").canonicalize().unwrap();
    assert_eq!(said, format!("{}\n0\n", expected.display()));
    assert_eq!(other.git(&["for-each-ref", "refs/systole"]), "");
}

#[test]
fn sixteen_at_once_of_one_repository_all_succeed() {
    let (_database, host) = host();
    let repository = Repository::new();
    repository.git(&["config", "extensions.worktreeConfig", "true"]);
    let start = |n: usize| {
        let (run, flags) = (format!("r{n}"), ["--workspace-repo", repository.text(), "--workspace-branch"]);
        host.start(&[&["run", &run][..], &flags, &["--", "sh", "-c", "pwd; echo work > new.txt"]].concat())
    };
    let all: Vec<_> = (0..16).map(start).collect();
    let mut paths = std::collections::BTreeSet::new();
    for mut running in all {
        let status = running.wait(Duration::from_secs(120));
        assert_eq!(status.code(), Some(0), "{}", running.errors());
        paths.insert(running.output());
    }
    assert_eq!(paths.len(), 16);
    let kept = repository.git(&["for-each-ref", "--format=%(refname)", "refs/systole"]);
    assert_eq!(kept.lines().count(), 16, "{kept}");
}

#[test]
fn submodules_come_with_it() {
    let (_database, host) = host();
    let (inner, repository) = (Repository::new(), Repository::new());
    repository.git(&["submodule", "--quiet", "add", inner.text(), "lib"]);
    repository.commit("with a submodule");
    assert_eq!(run_in(&host, &repository, "r", "cat lib/a.txt"), "one\n");
    let bare = host.clone().with("SYSTOLE_WORKSPACE_SUBMODULES", "false");
    assert_eq!(run_in(&bare, &repository, "r", "ls lib | wc -l").trim(), "0");
}

#[test]
fn bare_and_shallow_repositories_will_do() {
    let (_database, host) = host();
    let origin = Repository::new();
    origin.write("a.txt", "two\n");
    origin.commit("second");
    for (name, options) in [("bare", &["--bare"][..]), ("shallow", &["--depth", "1"])] {
        let folder = host.state.path().join(name);
        let url = format!("file://{}", origin.text());
        git(origin.path(), &[&["clone", "-q"], options, &[&url, folder.to_str().unwrap()]].concat());
        let flags =
            ["run", name, "--workspace-repo", folder.to_str().unwrap(), "--", "sh", "-c", "cat a.txt; echo x > new"];
        let output = host.output(&flags);
        assert_eq!(String::from_utf8_lossy(&output.stdout), "two\n", "{output:?}");
        assert_eq!(git(&folder, &["show", &format!("refs/systole/{name}/1:new")]), "x");
    }
}

#[test]
fn what_is_queued_says_where_it_wants_to_work() {
    let (database, host) = host();
    let repository = Repository::new();
    let submit = |host: &Systole, run: &str, options: &[&str]| {
        let script = "echo at work in $PWD; echo done > new.txt";
        let output = host.output(&[&["submit", run], options, &["--", "sh", "-c", script]].concat());
        assert_eq!(output.status.code(), Some(0), "{output:?}");
    };
    submit(&host, "asked", &["--workspace-repo", repository.text(), "--workspace-branch"]);
    submit(&host, "plain", &[]);
    let ended = |host: &Systole| {
        let output = host.output(&["node", "--once", "--allow-submitted-commands"]);
        assert_eq!(output.status.code(), Some(0), "{output:?}");
    };
    ended(&host);
    assert_eq!(repository.file("refs/systole/asked/1", "new.txt").as_deref(), Some("done\n"));
    assert_eq!(repository.git(&["for-each-ref", "--format=%(refname)", "refs/systole"]), "refs/systole/asked/1");
    // A node may have one for all its runs.
    submit(&host, "configured", &[]);
    let file = host.state.path().join("systole.toml");
    std::fs::write(&file, format!("[workspace]\nrepo = {:?}\nbase = \"main\"\n", repository.text())).unwrap();
    ended(&host);
    assert_eq!(repository.file("refs/systole/configured/1", "new.txt").as_deref(), Some("done\n"));
    eventually("all are done", SOON, || {
        (database.value("SELECT count(*) FROM systole.runs WHERE status = 'COMPLETED'") == "3").then_some(())
    });
}

#[test]
fn a_row_of_the_database_is_no_key_to_every_repository() {
    let (database, host) = host();
    let repository = Repository::new();
    std::fs::write(host.state.path().join("systole.toml"), "[commands.look]\nargv = [\"cat\", \"a.txt\"]\n").unwrap();
    let output = host.output(&["submit", "r", "--command", "look", "--workspace-repo", repository.text()]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    host.output(&["node", "--once"]);
    assert_eq!(database.value("SELECT status FROM systole.runs"), "FAILED");
    let why = database.value("SELECT detail->>'start_failed' FROM systole.run_events WHERE detail ? 'start_failed'");
    assert!(why.contains(repository.text()) && why.contains("[workspace]"), "{why}");
    assert_eq!(repository.git(&["worktree", "list"]).lines().count(), 1);
}

#[test]
fn what_is_kept_of_a_run_has_a_folder_that_outlives_its_worktrees() {
    let (_database, host) = host();
    let repository = Repository::new();
    let shared = host.state.path().join("shared");
    let host = host.with("AUTONOMOUS_RUNS_DIR", shared.to_str().unwrap());
    for (run, folder) in [("nightly", "nightly"), ("Up:1", "up_1+")] {
        run_in(&host, &repository, run, "echo passed > $SYSTOLE_RUN_DIR/results.txt");
        crate::clean(&host, &[]);
        let found = std::fs::read_dir(&shared).unwrap().flatten().map(|entry| entry.path());
        let found = found.into_iter().find(|it| it.file_name().unwrap().to_str().unwrap().starts_with(folder)).unwrap();
        assert_eq!(std::fs::read_to_string(found.join("results.txt")).unwrap(), "passed\n");
        assert_eq!(std::fs::read_to_string(found.join("run_id")).unwrap(), format!("{run}\n"));
    }
    // Without such a folder the command works all the same.
    let host = host.with("SYSTOLE_RUNS_DIR", "/dev/null/runs");
    assert_eq!(run_in(&host, &repository, "r", "echo ${SYSTOLE_RUN_DIR-none}"), "none\n");
}
