//! Many runs of one repository, by one supervisor: each in a place of its own, once, and all of it said at the end.

use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Output;

use serde_json::Value;

use super::repository::Repository;
use super::support::{Database, Running, Systole};
use super::{SOON, host, worktrees};

/// An anchor that allows eight workers, and whatever else is in `more`.
pub(super) fn anchor(repository: &Repository, more: &str) -> PathBuf {
    let path = repository.path().join(".git/anchor.json");
    let allowed = r#""parallelism_isolation": {"allowed": true, "max_workers": 8}"#;
    std::fs::write(&path, format!(r#"{{"version": 2, "repo": {:?}, {allowed}{more}}}"#, repository.text())).unwrap();
    path
}

/// What a supervisor of these runs is started with: eight workers, an anchor, and a script for each of them.
pub(super) fn supervising(repository: &Repository, runs: &str, options: &[&str], script: &str) -> Vec<String> {
    let anchor = anchor(repository, "").display().to_string();
    let fixed = ["supervise", "--run-ids", runs, "--repo", repository.text(), "--anchor-path", &anchor];
    let command = ["--", "sh", "-ec", script, "sh", "{run_id}", "{attempt}"];
    let workers: &[&str] = if options.contains(&"--workers") { &[] } else { &["--workers", "8"] };
    let all = [&fixed, workers, options, &command];
    all.concat().into_iter().map(str::to_owned).collect()
}

pub(super) fn supervise(host: &Systole, repository: &Repository, runs: &str, options: &[&str], script: &str) -> Output {
    let arguments = supervising(repository, runs, options, script);
    host.output(&arguments.iter().map(String::as_str).collect::<Vec<_>>())
}

pub(super) fn start(host: &Systole, repository: &Repository, runs: &str, options: &[&str], script: &str) -> Running {
    let arguments = supervising(repository, runs, options, script);
    host.start(&arguments.iter().map(String::as_str).collect::<Vec<_>>())
}

/// Its summary, and its exit code.
pub(super) fn summary(output: &Output) -> (Value, i32) {
    let summary = serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"));
    (summary, output.status.code().unwrap())
}

/// `r1,r2,…`.
pub(super) fn runs(count: usize) -> String {
    (1..=count).map(|n| format!("r{n}")).collect::<Vec<_>>().join(",")
}

pub(super) fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// What a field of each run says.
pub(super) fn each(summary: &Value, field: &str) -> Vec<String> {
    let runs = summary["runs"].as_array().unwrap();
    runs.iter().map(|run| run[field].to_string().trim_matches('"').to_owned()).collect()
}

pub(super) fn count(database: &Database, what: &str) -> i64 {
    database.value(&format!("SELECT count(*) FROM systole.{what}")).parse().unwrap()
}

#[test]
fn fifty_runs_and_eight_workers_do_not_meet() {
    let (database, host) = host();
    let repository = Repository::new();
    // Each finds a clean worktree, and leaves its name in it, in its log and among its artifacts.
    let script = r#"test -z "$(git status --porcelain)"; test "$(ls)" = a.txt; echo "$1" > a.txt; echo "$1" > mine
                    echo "said by $1"; echo "$1" > "$SYSTOLE_RUN_DIR/result"; test "$1" = "$SYSTOLE_RUN_ID""#;
    let output = supervise(&host, &repository, &runs(50), &["--json"], script);
    let (summary, code) = summary(&output);
    assert_eq!((code, &summary["completed"], &summary["failed"]), (0, &Value::from(50), &Value::from(0)), "{output:?}");
    let wanted: Vec<String> = (1..=50).map(|n| format!("r{n}")).collect();
    assert_eq!(each(&summary, "run_id"), wanted);
    assert!(each(&summary, "attempt").iter().all(|attempt| attempt == "1"), "{summary}");
    for field in ["worktree", "work", "log"] {
        let values: BTreeSet<String> = each(&summary, field).into_iter().filter(|value| value != "null").collect();
        assert_eq!(values.len(), 50, "{field}: {summary}");
    }
    for run in summary["runs"].as_array().unwrap() {
        let (name, text) = (run["run_id"].as_str().unwrap(), |field: &str| run[field].as_str().unwrap().to_owned());
        for file in ["a.txt", "mine"] {
            assert_eq!(repository.file(&text("work"), file), Some(format!("{name}\n")));
        }
        let log = PathBuf::from(text("log"));
        assert!(std::fs::read_to_string(&log).unwrap().contains(&format!("said by {name}\n")), "{log:?}");
        assert_eq!(std::fs::read_to_string(log.with_file_name("result")).unwrap(), format!("{name}\n"));
    }
    assert_eq!(count(&database, "executor_instances"), 50);
    // Nothing of all that is in the repository's own files.
    assert_eq!(repository.git(&["status", "--porcelain"]), "");
}

#[test]
fn a_failure_is_exit_1_and_what_was_run_is_not_run_again() {
    let (_database, host) = host();
    let repository = Repository::new();
    let script = r#"test "$1" != b || test -e "$HOME/mended""#;
    let output = supervise(&host, &repository, "a,b,c", &["--workers", "2"], script);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let shown = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(shown.contains("2 of 3 completed, 1 failed") && shown.contains("FAILED (exit code 1)"), "{shown}");
    assert!(said(&output).contains("--retry-failed"), "{}", said(&output));

    // In another order it is the same batch.
    let (again, code) = summary(&supervise(&host, &repository, "c,b,a", &["--workers", "2", "--json"], script));
    assert_eq!((code, &again["queued"], each(&again, "attempt")), (1, &Value::from(0), vec!["1".to_owned(); 3]));
    std::fs::write(host.state.path().join("mended"), "").unwrap();
    let (mended, code) =
        summary(&supervise(&host, &repository, "a,b,c", &["--workers", "2", "--json", "--retry-failed"], script));
    assert_eq!(
        (code, &mended["queued"], each(&mended, "attempt")),
        (0, &Value::from(1), ["1", "2", "1"].map(str::to_owned).to_vec())
    );
    assert_eq!(mended["batch"], again["batch"]);
}

#[test]
fn parallel_work_without_leave_is_refused_before_anything_is_queued() {
    let (database, host) = host();
    let (repository, other) = (Repository::new(), Repository::new());
    let refused = |options: &[&str], code: i32, words: &[&str]| {
        let head = ["supervise", "--run-ids", "a,b", "--repo", repository.text()];
        let output = host.output(&[&head, options, &["--", "true"]].concat());
        assert_eq!(output.status.code(), Some(code), "{output:?}");
        for word in words {
            assert!(said(&output).contains(word), "{word:?} is not in {}", said(&output));
        }
    };
    let written = |name: &str, text: &str| {
        let path = repository.path().join(".git").join(name);
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    refused(&["--workers", "2"], 77, &["--anchor-path"]);
    let allowed = anchor(&repository, "").display().to_string();
    refused(&["--workers", "9", "--anchor-path", &allowed], 77, &["max_workers is 8", "9"]);
    let wrong = written("wrong.json", r#"{"version": 2, "parallelism_isolation": {"allowed": "yes"}}"#);
    refused(&["--workers", "2", "--anchor-path", &wrong], 77, &["parallelism_isolation.allowed", &wrong]);
    let over = anchor(&other, r#", "expires_at": "2020-01-01T00:00:00Z""#).display().to_string();
    refused(&["--workers", "2", "--anchor-path", &over], 77, &["expires_at"]);
    let others = anchor(&other, "").display().to_string();
    refused(&["--workers", "2", "--anchor-path", &others], 77, &["repo is", other.text()]);
    // What is no repository, or has no such commit, is known before as well.
    refused(&["--workspace-base", "nowhere"], 78, &["nowhere", "--workspace-base"]);
    assert_eq!(count(&database, "runs"), 0);

    // One worker needs no anchor; two with one each do.
    let script = r#"until test -e "$HOME/go"; do sleep 0.05; done"#;
    let head = ["supervise", "--run-ids", "x", "--repo", repository.text(), "--", "sh", "-ec", script];
    let mut first = host.start(&head);
    first.wait_for_errors("run \"x\" attempt 1 as", SOON);
    refused(&[], 77, &["2 workers", "1 of them are another supervisor's"]);
    std::fs::write(host.state.path().join("go"), "").unwrap();
    assert_eq!(first.code(SOON), 0, "{}", first.errors());
    refused(&[], 0, &[]);
    assert_eq!(count(&database, "runs"), 3);
}

#[test]
fn what_cannot_be_a_batch_is_said_and_nothing_is_queued() {
    let (database, host) = host();
    let repository = Repository::new();
    let refused = |arguments: &[&str], words: &str| {
        let output = host.output(&[&["supervise", "--repo", repository.text()], arguments].concat());
        assert_eq!(output.status.code(), Some(64), "{output:?}");
        assert!(said(&output).contains(words), "{words:?} is not in {}", said(&output));
    };
    refused(&["--", "true"], "--run-ids");
    refused(&["--run-ids", "a,b"], "-- COMMAND");
    refused(&["--run-ids", "a,b,a", "--", "true"], "\"a\" is there twice");
    refused(&["--run-ids", "a,../b", "--", "true"], "../b");
    refused(&["--run-ids", "a,,b", "--", "true"], "run id");
    refused(&["--run-ids", "a", "--batch", "x y", "--", "true"], "\"x y\" cannot be the name");
    refused(&["--run-ids", "a", "--workers", "0", "--", "true"], "--workers");
    refused(&["--run-ids-file", "gone", "--", "true"], "gone cannot be read");
    refused(&["--run-ids", "a", "--max-attempts", "0", "--", "true"], "--max-attempts");
    refused(&["--run-ids", "a", "--timeout", "0s", "--", "true"], "--timeout is nothing");
    assert_eq!(count(&database, "runs"), 0);

    let list = host.state.path().join("list");
    std::fs::write(&list, "# tonight\na\n\n  b \n").unwrap();
    let arguments =
        ["supervise", "--repo", repository.text(), "--run-ids-file", list.to_str().unwrap(), "-q", "--", "true"];
    let output = host.output(&arguments);
    assert_eq!((output.status.code(), said(&output).as_str()), (Some(0), ""), "{output:?}");
    assert_eq!(count(&database, "runs"), 2);
}

#[test]
fn all_begin_at_one_commit_with_what_their_supervisor_has() {
    let (_database, host) = host();
    let repository = Repository::new();
    let first = repository.git(&["rev-parse", "HEAD"]);
    // The first one moves the branch.
    let script = r#"test "$(git rev-parse HEAD)" = "$FIRST"; test "$1" != a || git -C "$REPOSITORY" commit -q --allow-empty -m more"#;
    let host = host.with("FIRST", &first).with("REPOSITORY", repository.text());
    let host = [("GIT_AUTHOR", "t"), ("GIT_COMMITTER", "t")].into_iter().fold(host, |host, (who, name)| {
        host.with(&format!("{who}_NAME"), name).with(&format!("{who}_EMAIL"), "t@localhost")
    });
    let (done, code) = summary(&supervise(&host, &repository, "a,b", &["--workers", "1", "--json"], script));
    assert_eq!((code, &done["base"]), (0, &first.as_str().into()), "{done}");
    assert_ne!(repository.git(&["rev-parse", "HEAD"]), first);
}

#[test]
fn the_history_says_by_which_anchor() {
    let (database, host) = host();
    let repository = Repository::new();
    let (done, code) = summary(&supervise(&host, &repository, "a", &["--workers", "3", "--json"], "true"));
    assert_eq!(code, 0);
    let check = host.output(&[
        "anchor",
        "check",
        anchor(&repository, "").to_str().unwrap(),
        "--repo",
        repository.text(),
        "--json",
    ]);
    let digest = serde_json::from_slice::<Value>(&check.stdout).unwrap()["digest"].clone();
    assert_eq!(done["anchor"], digest);
    let detail = database.value("SELECT detail FROM systole.run_events WHERE kind = 'supervised'");
    let detail: Value = serde_json::from_str(&detail).unwrap();
    assert_eq!((&detail["anchor"], &detail["workers"], &detail["batch"]), (&digest, &Value::from(3), &done["batch"]));
}

#[test]
fn what_could_not_begin_is_said_with_its_reason() {
    let (_database, host) = host();
    let repository = Repository::new();
    let head = ["supervise", "--run-ids", "a", "--repo", repository.text(), "--", "no-such-program"];
    let output = host.output(&head);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    for said in [said(&output), String::from_utf8_lossy(&output.stdout).into_owned()] {
        assert!(said.contains("No such file"), "{said}");
    }
    let host = host.with("AUTONOMOUS_RUNS_DIR", "/proc/none");
    let output = host.output(&head);
    assert_eq!(output.status.code(), Some(78), "{output:?}");
    assert!(said(&output).contains("/proc/none") && said(&output).contains("runs_dir"), "{}", said(&output));
}

#[test]
fn what_may_not_be_touched_is_found_out() {
    let (_database, host) = host();
    let repository = Repository::new();
    repository.write("b.txt", "two\n");
    repository.commit("second");
    let anchor = anchor(&repository, r#", "paths": ["src", "b.txt"]"#).display().to_string();
    let script =
        r#"mkdir src; echo "$1" > src/new; test "$1" != b || mv b.txt c.txt; test "$1" != c || echo more >> b.txt"#;
    let head =
        ["supervise", "--run-ids", "a,b,c", "--workers", "2", "--repo", repository.text(), "--anchor-path", &anchor];
    let output = host.output(&[&head as &[&str], &["--json", "--", "sh", "-ec", script, "sh", "{run_id}"]].concat());
    let (summary, code) = summary(&output);
    assert_eq!((code, &summary["completed"]), (77, &Value::from(3)), "{output:?}");
    assert_eq!(each(&summary, "out_of_bounds"), ["[]", "[\"c.txt\"]", "[]"]);
    assert!(said(&output).contains("run \"b\"") && said(&output).contains("c.txt"), "{}", said(&output));
}

/// Nor in an attempt that has failed; and what cannot be told is not allowed.
#[test]
fn what_any_attempt_has_touched_counts_and_nothing_of_another_run() {
    let (database, host) = host();
    let repository = Repository::new();
    let anchor = anchor(&repository, r#", "paths": ["src"]"#).display().to_string();
    let supervise = |host: &Systole, script: &str| {
        let head = ["supervise", "--run-ids", "a", "--repo", repository.text(), "--anchor-path", &anchor, "--json"];
        let options = ["--max-attempts", "2", "--backoff", "10ms", "--", "sh", "-ec", script, "sh", "{attempt}"];
        let output = host.output(&[&head as &[&str], &options].concat());
        let (summary, code) = summary(&output);
        (each(&summary, "out_of_bounds").concat(), each(&summary, "work").concat(), code, said(&output))
    };
    let script = r#"test "$1" != 1 || { echo more >> a.txt; exit 1; }"#;
    let (touched, work, code, _) = supervise(&host, script);
    assert_eq!((touched.as_str(), work.as_str(), code), (r#"["a.txt"]"#, "null", 77));

    // As prune does: of what begins anew under its name nothing is known, and what is kept of it is not the new one's.
    database
        .sql("DELETE FROM systole.run_specs; DELETE FROM systole.run_output; DELETE FROM systole.executor_instances");
    database.sql("DELETE FROM systole.run_events; DELETE FROM systole.runs");
    let (touched, work, code, said) = supervise(&host, "true");
    assert_eq!((touched.as_str(), work.as_str(), code), ("[]", "null", 0), "{said}");

    // A git that cannot say it.
    let programs = host.state.path().join("bin");
    std::fs::create_dir(&programs).unwrap();
    let script = "#!/bin/sh\ncase \"$*\" in *--name-only*) exit 128;; esac\nPATH=${PATH#*:} exec git \"$@\"\n";
    std::fs::write(programs.join("git"), script).unwrap();
    std::fs::set_permissions(programs.join("git"), std::fs::Permissions::from_mode(0o755)).unwrap();
    let path = format!("{}:{}", programs.display(), std::env::var("PATH").unwrap());
    repository.git(&["commit", "-q", "--allow-empty", "-m", "another"]);
    let (_, _, code, said) = supervise(&host.with("PATH", &path), "mkdir src; echo x > src/x");
    assert!(code == 77 && said.contains("cannot be told"), "{code} {said}");
}

#[test]
fn an_anchor_that_expires_ends_what_is_begun_by_it() {
    let (database, host) = host();
    let repository = Repository::new();
    let at = chrono::Utc::now() + chrono::TimeDelta::seconds(4);
    let more = format!(r#", "expires_at": "{}""#, at.format("%Y-%m-%dT%H:%M:%SZ"));
    let anchor = anchor(&repository, &more).display().to_string();
    let head =
        ["supervise", "--run-ids", "a,b,c,d", "--workers", "2", "--repo", repository.text(), "--anchor-path", &anchor];
    // They wait for that, and end then.
    let script = r#"while test "$(date +%s)" -le "$AT"; do sleep 0.1; done"#;
    let host = host.with("AT", &at.timestamp().to_string());
    let output = host.output(&[&head as &[&str], &["--", "sh", "-ec", script]].concat());
    assert_eq!(output.status.code(), Some(77), "{output:?}");
    assert!(said(&output).contains("expired"), "{}", said(&output));
    let statuses = database.sql("SELECT status FROM systole.runs ORDER BY run_id").concat();
    assert_eq!(statuses, ["COMPLETED", "COMPLETED", "QUEUED", "QUEUED"]);
}

#[test]
fn the_worktrees_of_its_repository_are_listed_and_removed() {
    let (_database, host) = host();
    let (repository, other) = (Repository::new(), Repository::new());
    assert_eq!(supervise(&host, &other, "x", &[], "echo x > x").status.code(), Some(0));
    assert_eq!(supervise(&host, &repository, "a,b", &[], "echo y > y").status.code(), Some(0));
    let host = host.with("AUTOPACK_REPO_PATH", repository.text());
    let listed = host.output(&["supervise", "--list-worktrees", "--json"]);
    let listed: Vec<Value> = serde_json::from_slice(&listed.stdout).unwrap();
    let names: BTreeSet<&str> = listed.iter().map(|it| it["run_id"].as_str().unwrap()).collect();
    assert_eq!(names, BTreeSet::from(["a", "b"]));
    let cleaned = host.output(&["supervise", "--cleanup"]);
    assert!(String::from_utf8_lossy(&cleaned.stdout).contains("removed 2 of 2 worktrees"), "{cleaned:?}");
    assert_eq!(worktrees(&host).len(), 1);
    assert_eq!(repository.file("refs/systole/a/1", "y").as_deref(), Some("y\n"));
    assert_eq!(other.file("refs/systole/x/1", "x").as_deref(), Some("x\n"));
}
