//! Baselines: the tests of a commit in a clean worktree of it, and what has become worse since. Real repositories, real processes.

#![allow(clippy::unwrap_used)] // it is a test
#![cfg(target_os = "linux")]

mod killed;
#[path = "../workspace/repository.rs"]
#[allow(dead_code)]
mod repository;
#[path = "../support/mod.rs"]
mod support;

use std::process::Output;
use std::time::Duration;

use repository::Repository;
use rustix::process::Signal;
use serde_json::Value;
use support::probe::Mark;
use support::{Database, Systole, eventually};

const SOON: Duration = Duration::from_secs(20);

/// Where no database is.
fn host() -> Systole {
    let host = Systole::on(&Database::empty()).with("SYSTOLE_DATABASE_URL", "");
    let home = host.state.path().display().to_string();
    host.with("HOME", &home).with("XDG_CONFIG_HOME", &home).with("GIT_CONFIG_NOSYSTEM", "1")
}

/// Tests that report what stands in a file of the repository.
const TESTS: &[&str] = &["sh", "-c", "cp told.txt report.xml; echo words; exit 3"];

#[track_caller]
fn capture(host: &Systole, repository: &Repository, run_id: &str, options: &[&str], command: &[&str]) -> Output {
    let all = [&["baseline", "capture", run_id, "--repo", repository.text()], options, &["--"], command].concat();
    let output = host.output(&all);
    // Whatever came of it: nothing is left of the worktree, and nothing was kept of what the tests have left in it.
    assert_eq!(repository.git(&["worktree", "list"]).lines().count(), 1, "{output:?}");
    assert_eq!(repository.git(&["for-each-ref", "refs/systole"]), "", "{output:?}");
    output
}

#[track_caller]
fn expect(output: &Output, code: i32, words: &[&str]) {
    let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.status.code(), Some(code), "{text}");
    for word in words {
        assert!(text.contains(word), "{word:?} is not in: {text}");
    }
    assert!(!text.contains("panicked"), "{text}");
}

fn report(cases: &[(&str, &str)]) -> String {
    let case = |(name, inner): &(&str, &str)| format!("<testcase classname=\"c\" name=\"{name}\">{inner}</testcase>");
    format!("<testsuites><testsuite name=\"s\">{}</testsuite></testsuites>", cases.iter().map(case).collect::<String>())
}

const FAILS: &str = "<failure message=\"it is &#x1b;[31m&lt;red&gt;\"/>";

fn names(answer: &Value, list: &str) -> Vec<String> {
    answer[list].as_array().unwrap().iter().map(|change| change["test"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn what_has_become_worse_between_two_commits_is_told_with_exit_code_1() {
    let (host, repository) = (host(), Repository::new());
    let told = |cases| repository.write("told.txt", &report(cases));
    told(&[("kept", ""), ("breaks", ""), ("mended", FAILS), ("shaky", ""), ("gone", ""), ("known", FAILS)]);
    let first = repository.commit("one");
    told(&[
        ("kept", ""),
        ("breaks", FAILS),
        ("mended", ""),
        ("shaky", "<flakyFailure/>"),
        ("known", FAILS),
        ("new", FAILS),
    ]);
    let second = repository.commit("two");
    // What is not committed is none of theirs.
    repository.write("told.txt", "not committed");

    let captured = capture(&host, &repository, "Nightly:1@x", &["--commit", &first], TESTS);
    expect(&captured, 0, &[&first[..12], "6 tests: 4 passed, 2 failed"]);
    assert!(!String::from_utf8_lossy(&captured.stdout).contains("words"), "stdout is for the answer");
    let alone = host.output(&["baseline", "diff", "Nightly:1@x"]);
    expect(&alone, 64, &["nothing to compare", "--junit PATH", "baseline capture"]);
    let json = capture(&host, &repository, "Nightly:1@x", &["--commit", "HEAD", "--json"], TESTS);
    let captured: Value = serde_json::from_slice(&json.stdout).unwrap();
    assert_eq!((&captured["commit"], &captured["exit_code"]), (&second.as_str().into(), &3.into()));
    assert_eq!(captured["tests"]["c::shaky"]["outcome"], "flaky");
    assert_eq!(std::fs::read_to_string(repository.path().join("told.txt")).unwrap(), "not committed");

    let table = host.output(&["baseline", "diff", "Nightly:1@x"]);
    expect(&table, 1, &["newly failing", "c::breaks", "fixed", "c::mended", "missing", "c::gone", "\nregression\n"]);
    assert!(!table.stdout.contains(&0x1b), "a report steers the terminal");
    let json = host.output(&["baseline", "diff", "Nightly:1@x", "--json"]);
    let answer: Value = serde_json::from_slice(&json.stdout).unwrap();
    assert_eq!((json.status.code(), &answer["regression"]), (Some(1), &true.into()));
    assert_eq!((&answer["from"]["commit"], &answer["to"]["commit"]), (&first.as_str().into(), &second.as_str().into()));
    let lists = ["newly_failing", "missing", "flaky", "fixed", "still_failing"].map(|list| names(&answer, list));
    let expected: [&[&str]; 5] = [&["c::breaks", "c::new"], &["c::gone"], &["c::shaky"], &["c::mended"], &["c::known"]];
    assert_eq!(lists.each_ref().map(Vec::as_slice), expected);
    assert_eq!(answer["newly_failing"][0]["message"], "it is \u{1b}[31m<red>");
    assert_eq!((&answer["newly_failing"][1]["before"], &answer["missing"][0]["now"]), (&Value::Null, &Value::Null));

    // The other way round, and within one commit.
    let back = ["baseline", "diff", "Nightly:1@x", "--from", &second[..8], "--to", &first[..8]];
    expect(&host.output(&back), 1, &["newly failing", "c::mended"]);
    let same = ["baseline", "diff", "Nightly:1@x", "--from", &second, "--to", &second];
    expect(&host.output(&same), 0, &["flaky", "still failing", "no regression"]);
    expect(&host.output(&["baseline", "diff", "Nightly:1@x", "--to", "abcdef"]), 64, &["abcdef", &first[..12]]);
}

#[test]
fn reports_of_now_are_held_against_the_first_baseline_and_a_later_one_is_a_retry() {
    let (host, repository) = (host(), Repository::new());
    repository.write("told.txt", &report(&[("a", ""), ("b", "")]));
    let commit = repository.commit("one");
    expect(&capture(&host, &repository, "r", &["--commit", &commit], TESTS), 0, &["2 passed"]);
    let folder = host.state.path();
    std::fs::write(folder.join("now.xml"), report(&[("a", FAILS), ("b", "<skipped/>")])).unwrap();
    std::fs::write(folder.join("again.xml"), report(&[("a", "")])).unwrap();
    let diff = |arguments: &[&str]| host.output(&[&["baseline", "diff", "r"], arguments].concat());
    expect(&diff(&["--junit", "now.xml"]), 1, &["newly failing", "c::a", "missing", "c::b"]);
    expect(&diff(&["--junit", "now.xml", "--junit", "again.xml"]), 1, &["flaky", "missing", "c::b"]);
    expect(&diff(&["--junit", "now.xml", "--junit", "again.xml", "--allow-missing"]), 0, &["missing", "no regression"]);
    std::fs::write(folder.join("now.xml"), "<testsuites><testsuite").unwrap();
    expect(&diff(&["--junit", "now.xml"]), 64, &["now.xml is no JUnit XML"]);
}

/// Those of the tests of the parser, through the whole of it.
#[test]
fn what_pytest_and_nextest_have_written_is_found_wherever_it_is() {
    let (host, repository) = (host(), Repository::new());
    let fixtures = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/baseline/fixtures");
    // A report that lies in the repository is not one of these tests.
    repository.write("old.xml", &report(&[("old", FAILS)]));
    repository.write("pom.xml", "<project/>");
    let commit = ["--commit", &repository.commit("one")];
    for (command, says) in [
        (format!("cp {fixtures}/pytest.xml report.xml"), "13 tests: 4 passed, 1 flaky, 6 failed, 2 skipped"),
        (
            format!("mkdir -p target/nextest/ci; cp {fixtures}/nextest.xml target/nextest/ci/junit.xml"),
            "6 tests: 2 passed, 1 flaky, 3 failed",
        ),
    ] {
        expect(&capture(&host, &repository, "r", &commit, &["sh", "-c", &command]), 0, &[says]);
    }
    let old = [&commit[..], &["--junit", "old.xml"]].concat();
    expect(&capture(&host, &repository, "r", &old, &["true"]), 64, &["old.xml was there before", "exited with 0"]);
    expect(&capture(&host, &repository, "r", &commit, &["false"]), 64, &["--junitxml", "exited with 1"]);
}

#[test]
fn what_cannot_be_captured_leaves_nothing_behind() {
    let (host, repository) = (host(), Repository::new());
    let one = |commit: &str, options: &[&str], command: &[&str]| {
        capture(&host, &repository, "r", &[&["--commit", commit], options].concat(), command)
    };
    expect(&one("nothing-like-it", &[], TESTS), 78, &["nothing-like-it"]);
    expect(&one("--all", &[], TESTS), 64, &["--commit"]);
    expect(&one("HEAD", &[], &["/no/such/program"]), 78, &["/no/such/program", "No such file"]);
    expect(&one("HEAD", &[], &["sh", "-c", "echo '<testsuite><testcase' >r.xml"]), 64, &["r.xml is no JUnit XML"]);
    let elsewhere = ["baseline", "capture", "r", "--repo", "/", "--commit", "HEAD", "--", "true"];
    expect(&host.output(&elsewhere), 78, &["not", "repository"]);
    expect(&host.output(&["baseline", "diff", "r"]), 64, &["has no baseline"]);
    let mark = Mark::new();
    let stubborn = "trap '' TERM; sleep 100 & touch \"$0\"; while :; do sleep 0.05; done";
    let started = host.state.path().join("started");
    let tests = ["env", &mark.variable(), "sh", "-c", stubborn, started.to_str().unwrap()];
    let grace = host.clone().with("SYSTOLE_STOP_GRACE", "300ms");
    let timed_out = ["--commit", "HEAD", "--timeout", "500ms"];
    expect(&capture(&grace, &repository, "r", &timed_out, &tests), 124, &["500ms", "nothing was kept"]);
    assert!(mark.living().is_empty());

    // What a command has left in the background is none of its report, and would go on in what is removed.
    let background = ["env", &mark.variable(), "sh", "-c", "sleep 100 >&- 2>&- & exit 7"];
    expect(&one("HEAD", &[], &background), 64, &["exited with 7"]);
    assert!(mark.living().is_empty());

    std::fs::remove_file(&started).unwrap();
    let arguments = ["baseline", "capture", "r", "--repo", repository.text(), "--commit", "HEAD", "--"];
    let mut running = grace.start(&[&arguments[..], &tests].concat());
    eventually("the tests", SOON, || started.exists().then_some(()));
    running.signal(Signal::INT);
    assert_eq!(running.code(SOON), 130, "{}", running.errors());
    assert!(mark.living().is_empty());
    assert_eq!(repository.git(&["worktree", "list"]).lines().count(), 1);
    expect(&host.output(&["baseline", "diff", "r"]), 64, &["has no baseline"]);
}
