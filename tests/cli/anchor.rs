//! `anchor check`: what somebody has answered for, and exit code 77 for everything else.

use std::fs;

use crate::expect;
use crate::support::{Database, Systole};

#[test]
fn an_anchor_is_examined_without_a_database_and_77_names_the_key() {
    let host = Systole::on(&Database::empty()).with("SYSTOLE_DATABASE_URL", "");
    let folder = host.state.path();
    // That of the documents.
    let document = fs::read_to_string("docs/anchor.md").unwrap();
    let text = document.split("```json\n").nth(1).unwrap().split("```").next().unwrap();
    fs::write(folder.join("anchor.json"), text).unwrap();
    fs::create_dir(folder.join("another")).unwrap();

    let check = |arguments: &[&str]| host.output(&[&["anchor", "check", "anchor.json"], arguments].concat());
    let allowed = check(&["--repo", ".", "--workers", "8", "--touched", "src/a.rs", "--touched=README.md"]);
    let said = String::from_utf8(allowed.stdout).unwrap();
    assert_eq!(allowed.status.code(), Some(0), "{said}");
    for word in ["allows up to 8 workers on ", "until 2099-12-31T23:59:59Z", "touching src, tests", "sha256:"] {
        assert!(said.contains(word), "{word:?} is not in: {said}");
    }
    expect(&check(&["--workers", "9"]), 77, &["parallelism_isolation.max_workers is 8", "use at most 8"]);
    expect(&check(&["--repo", "another"]), 77, &["repo is ", "another", "take the anchor of that repository"]);
    expect(&check(&["--touched", "src/../.git/config"]), 77, &["paths", "\"src/../.git/config\""]);
    assert_eq!(check(&["--repo", "another", "--workers", "1"]).status.code(), Some(0), "one worker needs none");
    // What other supervisors call it.
    let elsewhere = host.clone().with("AUTOPACK_REPO_PATH", "another");
    expect(&elsewhere.output(&["anchor", "check", "anchor.json"]), 77, &["repo is "]);

    let refused = check(&["--workers", "9", "--json"]);
    let answer: serde_json::Value = serde_json::from_slice(&refused.stdout).unwrap();
    assert_eq!((refused.status.code(), &answer["allowed"]), (Some(77), &false.into()));
    assert!(answer["digest"].as_str().unwrap().starts_with("sha256:") && answer["max_workers"] == 8, "{answer}");

    expect(&host.output(&["anchor", "check", "nowhere.json"]), 77, &["nowhere.json cannot be read"]);
    fs::write(folder.join("anchor.json"), text.replace("max_workers", "max_worker")).unwrap();
    expect(&check(&[]), 77, &["anchor.json cannot be used", "max_worker`", "docs/anchor.md"]);
    expect(&check(&["--workers", "0"]), 64, &["--workers"]);
}
