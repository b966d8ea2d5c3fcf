//! What becomes of the work that is left in a worktree.

use std::path::Path;

use rustix::process::Signal;

use crate::repository::git;
use crate::{Repository, SOON, clean, host, only_worktree, run_in, worktrees};

#[test]
fn what_is_not_committed_is_kept_and_the_index_is_left_alone() {
    let (_database, host) = host();
    let repository = Repository::new();
    let script = "echo staged > a.txt; git add a.txt; echo behind > a.txt; mkdir d; echo fresh > d/new.txt; echo x > y.ignored; git rm -q .gitignore";
    run_in(&host, &repository, "r", script);
    let path = only_worktree(&host);
    // .gitignore is removed, so nothing is ignored any more.
    assert_eq!(git(&path, &["status", "--porcelain"]), "D  .gitignore\nMM a.txt\n?? d/\n?? y.ignored");
    let kept = "refs/systole/r/1";
    assert_eq!(repository.file(kept, "a.txt").as_deref(), Some("behind\n"));
    assert_eq!(repository.file(kept, "d/new.txt").as_deref(), Some("fresh\n"));
    assert_eq!(repository.file(kept, ".gitignore"), None);
    assert!(repository.everything().contains("staged\n"));
    assert_eq!(repository.git(&["rev-parse", "refs/systole/r/1^1"]), repository.git(&["rev-parse", "main"]));
    assert!(clean(&host, &[]).contains("removed 1 of 1 worktree"));
    assert!(!path.exists() && worktrees(&host).is_empty());
    assert!(repository.everything().contains("staged\n"));
}

#[test]
fn what_git_ignores_is_not_kept_and_nothing_done_leaves_nothing() {
    let (_database, host) = host();
    let repository = Repository::new();
    run_in(&host, &repository, "ignored", "echo x > y.ignored");
    run_in(&host, &repository, "idle", "true");
    assert_eq!(repository.git(&["for-each-ref", "refs/systole"]), "");
}

#[test]
fn commits_are_kept_also_those_that_were_left_behind() {
    let (_database, host) = host();
    let repository = Repository::new();
    let script = "export GIT_AUTHOR_NAME=x GIT_AUTHOR_EMAIL=x GIT_COMMITTER_NAME=x GIT_COMMITTER_EMAIL=x; \
                  for n in amended reset kept; do echo $n > $n.txt; git add $n.txt; git commit -qm $n; \
                  test $n = amended && git commit -q --amend -m other; test $n = reset && git reset -q --hard HEAD~1; true; done";
    run_in(&host, &repository, "r", script);
    assert_eq!(repository.file("refs/systole/r/1", "kept.txt").as_deref(), Some("kept\n"));
    clean(&host, &[]);
    let everything = repository.everything();
    for words in ["\n\namended\n", "\n\nother\n", "\n\nreset\n", "\n\nkept\n"] {
        assert!(everything.contains(words), "{words:?}");
    }
}

#[test]
fn files_that_git_was_told_not_to_look_at_are_kept() {
    let (_database, host) = host();
    let repository = Repository::new();
    repository.write("b.txt", "b\n");
    repository.commit("second");
    let script = "git update-index --assume-unchanged a.txt; git update-index --skip-worktree b.txt; echo 1 > a.txt; echo 2 > b.txt";
    run_in(&host, &repository, "r", script);
    assert_eq!(repository.file("refs/systole/r/1", "a.txt").as_deref(), Some("1\n"));
    assert_eq!(repository.file("refs/systole/r/1", "b.txt").as_deref(), Some("2\n"));
}

/// By size and times alone it looks like what the index has: git tells it by the index being no younger than it, and so must whoever
/// copies the index.
#[test]
fn a_file_that_was_changed_in_the_moment_of_the_index_is_kept() {
    let (_database, host) = host();
    let repository = Repository::new();
    repository.git(&["config", "core.trustctime", "false"]);
    let moment = "touch -d '2026-01-01 00:00:00'";
    let script = format!(
        "{moment} a.txt; git update-index a.txt; echo two > a.txt; {moment} a.txt \"$(git rev-parse --git-dir)/index\""
    );
    run_in(&host, &repository, "r", &script);
    assert_eq!(repository.file("refs/systole/r/1", "a.txt").as_deref(), Some("two\n"));
}

#[test]
fn repositories_inside_are_kept_with_their_work() {
    let (_database, host) = host();
    let (inner, repository) = (Repository::new(), Repository::new());
    repository.git(&["submodule", "--quiet", "add", inner.text(), "lib"]);
    repository.commit("with a submodule");
    let script = "export GIT_AUTHOR_NAME=x GIT_AUTHOR_EMAIL=x GIT_COMMITTER_NAME=x GIT_COMMITTER_EMAIL=x; \
                  (cd lib; echo in the submodule > new.txt; git add -A; git commit -qm committed; echo dirty there > a.txt); \
                  git init -q made; (cd made; echo made here > m.txt; git add -A; git commit -qm made; echo and changed > m.txt); \
                  git init -q unborn; echo never committed > unborn/u.txt";
    run_in(&host, &repository, "r", script);
    assert!(clean(&host, &[]).contains("removed 1 of 1"));
    let everything = repository.everything();
    for words in ["in the submodule", "dirty there", "made here", "and changed", "never committed"] {
        assert!(everything.contains(words), "{words:?}");
    }
    let part = repository.git(&["rev-parse", "refs/systole/r/1:lib"]);
    assert_eq!(repository.file(&part, "a.txt").as_deref(), Some("dirty there\n"));
}

#[test]
fn a_merge_in_progress_is_kept() {
    let (_database, host) = host();
    let repository = Repository::new();
    let script = "export GIT_AUTHOR_NAME=x GIT_AUTHOR_EMAIL=x GIT_COMMITTER_NAME=x GIT_COMMITTER_EMAIL=x; \
                  base=$(git rev-parse HEAD); echo theirs > a.txt; git commit -qam theirs; theirs=$(git rev-parse HEAD); \
                  git checkout -q $base; echo ours > a.txt; git commit -qam ours; git merge -q $theirs || true";
    run_in(&host, &repository, "r", script);
    let merged = repository.file("refs/systole/r/1", "a.txt").unwrap();
    assert!(merged.contains("<<<<<<<") && merged.contains("theirs"), "{merged}");
    clean(&host, &[]);
    assert!(repository.everything().contains("\n\ntheirs\n"));
}

#[test]
fn a_successor_finds_what_a_killed_predecessor_has_left() {
    let (_database, host) = host();
    let repository = Repository::new();
    let flags = ["--workspace-repo", repository.text()];
    let script = "echo half done > a.txt; echo ready; sleep 600";
    let mut first = host.start(&[&["run", "r"][..], &flags, &["--", "sh", "-c", script]].concat());
    first.wait_for_output("ready");
    first.signal(Signal::KILL);
    first.wait(SOON);
    let script = "cat a.txt; echo $SYSTOLE_PREDECESSOR_SNAPSHOT; git show $SYSTOLE_PREDECESSOR_SNAPSHOT:a.txt";
    let output = host.output(&[&["run", "--wait=30s", "r"][..], &flags, &["--", "sh", "-c", script]].concat());
    assert_eq!(String::from_utf8_lossy(&output.stdout), "one\nrefs/systole/r/1\nhalf done\n", "{output:?}");
    // One that has ended by itself is no predecessor whose work is to be taken up.
    assert_eq!(run_in(&host, &repository, "r", "echo \"${SYSTOLE_PREDECESSOR_SNAPSHOT-none}\""), "none\n");
}

#[test]
fn two_databases_never_overwrite_each_others_work() {
    let repository = Repository::new();
    for word in ["of the first database", "of the second"] {
        let (_database, host) = host();
        run_in(&host, &repository, "r", &format!("echo {word} > a.txt"));
        clean(&host, &[]);
    }
    assert_eq!(repository.file("refs/systole/r/1", "a.txt").as_deref(), Some("of the second\n"));
    assert!(repository.everything().contains("of the first database"));
}

#[test]
fn diff_shows_it_while_it_runs_and_when_it_is_gone() {
    let (_database, host) = host();
    let repository = Repository::new();
    let diff = |folder: &Path| {
        let output = host.command(&["workspace", "diff", "r"]).current_dir(folder).output().unwrap();
        (output.status.code().unwrap(), String::from_utf8_lossy(&output.stdout).into_owned())
    };
    assert_eq!(diff(repository.path()).0, 64);
    let script = "echo two > a.txt; echo fresh > new.txt; echo ready; read _; echo three > a.txt";
    let flags = ["--workspace-repo", repository.text(), "--", "sh", "-c", script];
    let mut command = host.command(&[&["run", "r"][..], &flags].concat());
    let mut child = command.stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::piped()).spawn().unwrap();
    crate::support::eventually("it shows", SOON, || diff(Path::new("/")).1.contains("+two").then_some(()));
    drop(child.stdin.take());
    assert!(child.wait().unwrap().success());
    let (_, text) = diff(Path::new("/"));
    assert!(text.contains("+three") && text.contains("-one") && text.contains("+fresh"), "{text}");
    clean(&host, &[]);
    assert_eq!(diff(repository.path()).1, text);
    let output = host.output(&["workspace", "diff", "r", "--copy", "--workspace-repo", repository.text()]);
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let file = said.split("in ").last().unwrap().split(';').next().unwrap().trim().to_owned();
    assert_eq!(std::fs::read_to_string(&file).unwrap(), text, "{said}");
}
