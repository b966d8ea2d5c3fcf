//! What goes, and what stays.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::process::Signal;

use crate::repository::git;
use crate::support::eventually;
use crate::support::terminal::Terminal;
use crate::{Repository, SOON, clean, host, only_worktree, run_in, with_git, worktrees};

#[test]
fn what_runs_stays() {
    let (_database, host) = host();
    let repository = Repository::new();
    let flags = ["run", "r", "--workspace-repo", repository.text(), "--", "sh", "-c", "echo ready; sleep 600"];
    let mut running = host.start(&flags);
    running.wait_for_output("ready");
    let path = only_worktree(&host);
    assert!(worktrees(&host)[0]["holder"].as_str().unwrap().contains("run \"r\" attempt 1"));
    assert!(clean(&host, &[]).contains("removed 0 of 0"));
    assert!(path.join("a.txt").exists());
    running.signal(Signal::KILL);
    running.wait(SOON);
    eventually("it goes when it is dead", SOON, || {
        clean(&host, &[]);
        (!path.exists()).then_some(())
    });
}

#[test]
fn whoever_stands_in_it_keeps_it() {
    let (_database, host) = host();
    let repository = Repository::new();
    run_in(&host, &repository, "r", "mkdir d; echo work > d/new.txt");
    let path = only_worktree(&host);
    let mut shell = Command::new("cat").current_dir(path.join("d")).stdin(Stdio::piped()).spawn().unwrap();
    let said = clean(&host, &[]);
    assert!(said.contains(&format!("process {} is in it", shell.id())) && said.contains("removed 0 of 1"), "{said}");
    assert!(path.join("d/new.txt").exists());
    drop(shell.stdin.take());
    shell.wait().unwrap();
    assert!(clean(&host, &[]).contains("removed 1 of 1"));
}

#[test]
fn what_somebody_has_locked_or_changed_since_stays_or_is_kept() {
    let (_database, host) = host();
    let repository = Repository::new();
    run_in(&host, &repository, "r", "echo by the command > new.txt");
    let path = only_worktree(&host);
    std::fs::write(path.join("since.txt"), "by a person, later\n").unwrap();
    git(&path, &["worktree", "lock", "--reason", "mine", "."]);
    let said = clean(&host, &[]);
    assert!(said.contains("(mine)") && said.contains("git worktree unlock"), "{said}");
    git(&path, &["worktree", "unlock", "."]);
    clean(&host, &[]);
    assert_eq!(repository.file("refs/systole/r/1", "since.txt").as_deref(), Some("by a person, later\n"));
    assert_eq!(repository.git(&["worktree", "list"]).lines().count(), 1);
}

#[test]
fn branches_stay_where_they_have_something_of_their_own() {
    let (_database, host) = host();
    let repository = Repository::new();
    let run = |run: &str, script: &str| {
        let flags = ["--workspace-repo", repository.text(), "--workspace-branch", "--", "sh", "-c", script];
        assert_eq!(host.output(&[&["run", run][..], &flags].concat()).status.code(), Some(0));
    };
    run("idle", "echo only a file > x.txt");
    run("busy", "echo x > x.txt; git add -A; git -c user.name=x -c user.email=x commit -qm x");
    clean(&host, &[]);
    let branches = repository.git(&["for-each-ref", "--format=%(refname:short)", "refs/heads"]);
    assert_eq!(branches, "main\nsystole/busy-1");
}

#[test]
fn the_newest_are_kept_and_a_dry_run_removes_nothing() {
    let (_database, host) = host();
    let repository = Repository::new();
    for run in ["a", "b", "c"] {
        run_in(&host, &repository, run, "true");
    }
    assert!(clean(&host, &["--older-than", "1h"]).contains("removed 0 of 0"));
    let said = clean(&host, &["--keep", "1", "--dry-run"]);
    assert!(said.contains("/a-1-") && said.contains("/b-1-") && !said.contains("/c-1-"), "{said}");
    assert_eq!(worktrees(&host).len(), 3);
    clean(&host, &["--keep", "1"]);
    assert_eq!(worktrees(&host)[0]["run_id"], "c");
}

#[test]
fn a_worktree_that_somebody_has_half_removed_loses_no_commit() {
    let (_database, host) = host();
    let repository = Repository::new();
    let commit = "echo x > x.txt; git add -A; git -c user.name=x -c user.email=x commit -qm 'only here'";
    run_in(&host, &repository, "files", commit);
    std::fs::remove_dir_all(only_worktree(&host)).unwrap();
    assert!(clean(&host, &[]).contains("removed 1 of 1"));
    assert!(repository.everything().contains("\n\nonly here\n"));
    // git has forgotten it, and its files are there: only a person can tell what they are worth.
    run_in(&host, &repository, "pruned", "echo precious > new.txt");
    let path = only_worktree(&host);
    let name = path.file_name().unwrap().to_str().unwrap();
    std::fs::write(path.join("later.txt"), "as well").unwrap();
    std::fs::remove_dir_all(repository.path().join(".git/worktrees").join(name)).unwrap();
    let said = clean(&host, &[]);
    assert!(said.contains("git has forgotten it") && said.contains("remove it by hand"), "{said}");
    assert!(path.join("later.txt").exists());
    std::fs::remove_dir_all(&path).unwrap();
    clean(&host, &[]);
    assert!(worktrees(&host).is_empty());
}

#[test]
fn one_that_somebody_has_moved_is_his() {
    let (_database, host) = host();
    let repository = Repository::new();
    run_in(&host, &repository, "r", "echo work > new.txt");
    let (path, elsewhere) = (only_worktree(&host), host.state.path().join("elsewhere"));
    git(&path, &["worktree", "move", ".", elsewhere.to_str().unwrap()]);
    clean(&host, &[]);
    assert!(worktrees(&host).is_empty());
    assert_eq!(git(&elsewhere, &["status", "--porcelain"]), "?? new.txt");
}

#[test]
fn on_a_terminal_it_shows_how_far_it_is() {
    let (_database, host) = host();
    let repository = Repository::new();
    for run in ["a", "b"] {
        run_in(&host, &repository, run, "true");
    }
    let mut terminal = Terminal::start(&host.command(&["workspace", "clean"]));
    terminal.wait_for("removed 2 of 2 worktrees");
    assert_eq!(terminal.code(SOON), Some(0));
    let shown = terminal.screen();
    let at = |text: &str| shown.find(text).unwrap_or_else(|| panic!("{text:?} is not in {shown:?}"));
    assert!(at("1/2 ") < at("2/2 ") && at("2/2 ") < at("removed"), "{shown:?}");
}

/// Each removal would take as long as there are worktrees and refs, and all of them together the square of that.
#[test]
fn what_a_removal_costs_does_not_grow_with_what_there_is() {
    let (_database, host) = host();
    let repository = Repository::new();
    for run in ["idle", "busy"] {
        run_in(&host, &repository, run, &format!("test {run} = idle || echo work > new.txt"));
    }
    let asked = host.state.path().join("asked");
    let host = with_git(&host, &format!("echo \"$*\" >> {}", asked.display()));
    assert!(clean(&host, &[]).contains("removed 2 of 2"));
    let asked = std::fs::read_to_string(asked).unwrap();
    assert!(asked.contains(" add -A "), "{asked}");
    for goes_through_all in ["rev-list", "worktree"] {
        assert!(!asked.lines().any(|line| line.contains(&format!(" {goes_through_all} "))), "{asked}");
    }
}

#[test]
fn a_clean_that_is_killed_goes_on_where_it_was() {
    let (_database, host) = host();
    let repository = Repository::new();
    // Enough for some to be killed between the first file and the last.
    for n in 0..1500 {
        repository.write(&format!("file{n}"), &format!("{n}\n"));
    }
    repository.commit("files");
    for n in 0..12 {
        run_in(&host, &repository, &format!("r{n}"), &format!("echo the work of {n} > new.txt; rm file1"));
    }
    let root = only_parent(&host);
    let mut killed = 0;
    for pause in 0..200 {
        let mut cleaner = host.start(&["workspace", "clean"]);
        std::thread::sleep(Duration::from_millis(pause * 67 % 400)); // anywhere in the middle
        cleaner.signal(Signal::KILL);
        killed += u32::from(cleaner.wait(SOON).code().is_none());
        if worktrees(&host).is_empty() {
            break;
        }
    }
    clean(&host, &[]);
    assert!(killed > 3, "only {killed} were killed");
    assert_eq!(std::fs::read_dir(root).unwrap().count(), 0);
    assert_eq!(repository.git(&["worktree", "list"]).lines().count(), 1);
    for n in 0..12 {
        let kept = format!("refs/systole/r{n}/1");
        assert_eq!(repository.file(&kept, "new.txt"), Some(format!("the work of {n}\n")));
        // Not what a half removed worktree looks like.
        assert_eq!(repository.file(&kept, "file7").as_deref(), Some("7\n"));
        assert_eq!(repository.file(&kept, "file1"), None);
    }
}

/// From the first file on that is removed, what is left of it is nobody's work any more.
#[test]
fn half_a_worktree_is_never_taken_for_work() {
    let (_database, host) = host();
    let repository = Repository::new();
    for n in 0..300 {
        repository.write(&format!("file{n}"), &format!("{n}\n"));
    }
    repository.commit("files");
    // What git ignores takes no time to keep, and some to remove.
    let script = "for d in 0 1 2 3 4 5 6 7 8 9; do mkdir $d.ignored; (cd $d.ignored; seq 2000 | xargs touch); done; echo work > new.txt";
    run_in(&host, &repository, "r", script);
    let path = only_worktree(&host);
    let out = path.with_file_name(format!("{}.removing", path.file_name().unwrap().to_str().unwrap()));
    let mut cleaner = host.start(&["workspace", "clean"]);
    eventually("a file is gone, and others are not", SOON, || {
        let there = |n: usize| out.join(format!("file{n}")).exists();
        (out.exists() && !(0..300).all(there) && (0..300).any(there)).then_some(())
    });
    cleaner.signal(Signal::KILL);
    assert_eq!(cleaner.wait(SOON).code(), None, "it was too quick");
    assert!(clean(&host, &[]).contains("removed 1 of 1"));
    let kept = repository.git(&["ls-tree", "--name-only", "refs/systole/r/1"]);
    assert_eq!(kept.lines().count(), 303, "{kept}");
    assert_eq!(repository.git(&["rev-parse", "refs/systole/r/1^1"]), repository.git(&["rev-parse", "main"]));
    assert!(!out.exists() && !path.exists() && worktrees(&host).is_empty());
}

fn only_parent(host: &crate::support::Systole) -> std::path::PathBuf {
    let path = worktrees(host)[0]["path"].as_str().unwrap().to_owned();
    Path::new(&path).parent().unwrap().to_owned()
}

/// A node keeps what the dead have left, and removes what its policy wants gone.
#[test]
fn a_node_tidies_up_by_its_policy() {
    let (_database, host) = host();
    let repository = Repository::new();
    for run in ["a", "b", "c"] {
        run_in(&host, &repository, run, "echo work > new.txt");
    }
    let flags = ["run", "killed", "--workspace-repo", repository.text()];
    let script = ["--", "sh", "-c", "echo half > new.txt; echo ready; sleep 600"];
    let mut killed = host.start(&[&flags[..], &script].concat());
    killed.wait_for_output("ready");
    killed.signal(Signal::KILL);
    killed.wait(SOON);
    eventually("its tree is gone", SOON, || worktrees(&host).iter().all(|it| it["stays"].is_null()).then_some(()));
    let node = host.start(&["node", "--workspace-keep", "2"]);
    node.wait_for_errors("worktree", SOON);
    let runs = || worktrees(&host).iter().map(|it| it["run_id"].as_str().unwrap().to_owned()).collect::<Vec<_>>();
    let left = eventually("two are left", SOON, || Some(runs()).filter(|left| left.len() == 2));
    assert!(!left.contains(&"a".to_owned()), "{left:?}");
    eventually("what the dead one has left is kept", SOON, || {
        (repository.file("refs/systole/killed/1", "new.txt").as_deref() == Some("half\n")).then_some(())
    });
    assert_eq!(repository.file("refs/systole/a/1", "new.txt").as_deref(), Some("work\n"));
}
