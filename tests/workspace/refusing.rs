//! Bad input and bad days: each a sentence with a remedy, and nothing half done left behind.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Output;

use crate::repository::git;
use crate::support::Systole;
use crate::{Repository, host, run_in, worktrees};

#[track_caller]
fn refused(host: &Systole, repository: &str, more: &[&str], words: &[&str]) {
    let output = attempt(host, repository, more);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(78), "{said}");
    assert!(words.iter().all(|word| said.contains(word)), "{words:?}: {said}");
    assert_eq!(worktrees(host), Vec::<serde_json::Value>::new(), "{said}");
    let left = fs::read_dir(host.state.path().join("state/worktrees")).unwrap().count();
    assert_eq!(left, 0, "{said}");
}

fn attempt(host: &Systole, repository: &str, more: &[&str]) -> Output {
    host.output(&[&["run", "r", "--workspace-repo", repository], more, &["--", "sh", "-c", "echo started"]].concat())
}

#[test]
fn what_is_no_repository_or_has_no_such_commit_is_said_with_a_remedy() {
    let (database, host) = host();
    let folder = host.state.path().join("plain");
    fs::create_dir(&folder).unwrap();
    refused(&host, folder.to_str().unwrap(), &[], &["is no git repository", "--workspace-repo"]);
    refused(&host, "/nowhere/at/all", &[], &["/nowhere/at/all", "there is no such folder"]);
    refused(&host, Repository::unborn().text(), &[], &["has no commit yet", "--workspace-base"]);
    let repository = Repository::new();
    for base in ["nosuch", "--upload-pack=x"] {
        let base = format!("--workspace-base={base}");
        refused(&host, repository.text(), &[&base], &["has no commit", "fetch it"]);
    }
    assert_eq!(database.value("SELECT DISTINCT status FROM systole.executor_instances"), "FAILED");
    assert_eq!(repository.git(&["worktree", "list"]).lines().count(), 1);
}

#[test]
fn an_old_git_and_none_at_all_are_told_from_each_other() {
    let (_database, host) = host();
    let repository = Repository::new();
    let bin = host.state.path().join("bin");
    fs::create_dir(&bin).unwrap();
    let path = |more: &str| format!("{}{more}", bin.display());
    refused(
        &host.clone().with("PATH", &path("")),
        repository.text(),
        &[],
        &["git cannot be started", "install git 2.25"],
    );
    fs::write(bin.join("git"), "#!/bin/sh\necho git version 2.17.1\n").unwrap();
    fs::set_permissions(bin.join("git"), fs::Permissions::from_mode(0o755)).unwrap();
    let old = host.clone().with("PATH", &path(":/usr/bin:/bin"));
    refused(&old, repository.text(), &[], &["git version 2.17.1", "2.25 or newer"]);
}

#[test]
fn a_stale_lock_is_named() {
    let (_database, host) = host();
    let repository = Repository::new();
    fs::create_dir_all(repository.path().join(".git/refs/heads/systole")).unwrap();
    fs::write(repository.path().join(".git/refs/heads/systole/r-1.lock"), "").unwrap();
    refused(&host, repository.text(), &["--workspace-branch"], &["r-1.lock", "remove the file that it names"]);
}

#[test]
fn hooks_are_not_run_and_cannot_fail() {
    let (_database, host) = host();
    let repository = Repository::new();
    for hook in ["post-checkout", "pre-commit", "reference-transaction", "post-index-change"] {
        let path = repository.path().join(".git/hooks").join(hook);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, "#!/bin/sh\necho hook >> \"$GIT_DIR/../ran\"; exit 1\n").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    }
    run_in(&host, &repository, "r", "echo work > new.txt");
    assert_eq!(repository.file("refs/systole/r/1", "new.txt").as_deref(), Some("work\n"));
}

#[test]
fn run_ids_that_are_no_names_are_hashed() {
    let (_database, host) = host();
    let repository = Repository::new();
    for run in ["A:b@c..d", "x.lock", "Nightly", "nightly"] {
        run_in(&host, &repository, run, "echo work > new.txt");
    }
    let refs = repository.git(&["for-each-ref", "--format=%(refname)", "refs/systole"]);
    assert_eq!(refs.lines().count(), 4, "{refs}");
    assert!(refs.contains("refs/systole/nightly/1") && refs.contains("refs/systole/nightly+"), "{refs}");
}

#[test]
fn a_full_disk_in_the_middle_of_a_checkout_leaves_nothing() {
    if !crate::support::is_root() {
        return;
    }
    let (_database, host) = host();
    let repository = Repository::new();
    let noise: String = (0..200_000).map(|n| format!("{:x}\n", n * 7919)).collect();
    repository.write("large.txt", &noise);
    repository.commit("large");
    // A small disk for the worktrees, gone with the process.
    let script = "mkdir -p small && mount -t tmpfs -o size=256k none small && exec \"$@\"";
    let dir = host.state.path().join("small");
    let inside = host.clone().through(&["unshare", "--mount", "sh", "-c", script, "sh"]);
    refused(
        &inside.with("SYSTOLE_WORKSPACE_DIR", dir.to_str().unwrap()),
        repository.text(),
        &[],
        &["the disk is full", "dir in [workspace]"],
    );
    assert_eq!(repository.git(&["worktree", "list"]).lines().count(), 1);
}

#[test]
fn a_repository_that_cannot_be_written_is_said_to_be_so() {
    if !crate::support::is_root() {
        return;
    }
    let (_database, host) = host();
    let repository = Repository::new();
    let script = format!("mount --bind {0} {0} && mount -o remount,bind,ro {0} && exec \"$@\"", repository.text());
    let inside = host.clone().through(&["unshare", "--mount", "sh", "-c", &script, "sh"]);
    refused(&inside, repository.text(), &[], &["mounted read-only", "another clone"]);
}

#[test]
fn a_worktree_of_the_repository_is_as_good_as_itself() {
    let (_database, host) = host();
    let repository = Repository::new();
    let folder = host.state.path().join("mine");
    repository.git(&["worktree", "add", "-q", "-b", "topic", folder.to_str().unwrap()]);
    fs::write(folder.join("a.txt"), "topic\n").unwrap();
    git(&folder, &["commit", "-qam", "on the topic"]);
    let output = host.output(&["run", "r", "--workspace-repo", folder.to_str().unwrap(), "--", "cat", "a.txt"]);
    assert_eq!(String::from_utf8_lossy(&output.stdout), "topic\n", "{output:?}");
}
