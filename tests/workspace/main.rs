//! A place of its own for every attempt: never shared, never lost, and removed only when nobody needs it. Real repositories, real
//! processes.

#![allow(clippy::unwrap_used)] // it is a test
#![cfg(target_os = "linux")]

#[path = "../support/mod.rs"]
mod support;

mod batches;
mod cleaning;
mod cycles;
mod hanging;
mod keeping;
mod leasing;
mod making;
mod refusing;
mod repository;
mod supervising;
mod together;

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::time::Duration;

use repository::Repository;
use serde_json::Value;
use support::{Database, Systole};

const SOON: Duration = Duration::from_secs(20);

/// A host with a database, and with git as somebody has it who has configured nothing.
fn host() -> (Database, Systole) {
    let database = Database::new();
    let host = Systole::on(&database).fast();
    let home = host.state.path().display().to_string();
    // Submodules of tests lie in folders.
    std::fs::write(host.state.path().join(".gitconfig"), "[protocol \"file\"]\n\tallow = always\n").unwrap();
    (database, host.with("HOME", &home).with("XDG_CONFIG_HOME", &home).with("GIT_CONFIG_NOSYSTEM", "1"))
}

/// The same host, with a git that does this first. `$*` is what it is asked.
fn with_git(host: &Systole, first: &str) -> Systole {
    let (bin, path) = (host.state.path().join("bin"), std::env::var("PATH").unwrap());
    std::fs::create_dir_all(&bin).unwrap();
    std::fs::write(bin.join("git"), format!("#!/bin/sh\n{first}\nPATH={path} exec git \"$@\"\n")).unwrap();
    std::fs::set_permissions(bin.join("git"), std::fs::Permissions::from_mode(0o755)).unwrap();
    host.clone().with("PATH", &format!("{}:{path}", bin.display()))
}

/// Runs a script in a worktree of this repository; what it prints.
#[track_caller]
fn run_in(host: &Systole, repository: &Repository, run_id: &str, script: &str) -> String {
    let output = host.output(&["run", run_id, "--workspace-repo", repository.text(), "--", "sh", "-ec", script]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// The worktrees that there are, as `list --json` has them.
#[track_caller]
fn worktrees(host: &Systole) -> Vec<Value> {
    let output = host.output(&["workspace", "list", "--json"]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    serde_json::from_slice(&output.stdout).unwrap()
}

/// The path of the only one.
#[track_caller]
fn only_worktree(host: &Systole) -> PathBuf {
    let all = worktrees(host);
    assert_eq!(all.len(), 1, "{all:#?}");
    all[0]["path"].as_str().unwrap().into()
}

/// What `clean` says, to both.
#[track_caller]
fn clean(host: &Systole, options: &[&str]) -> String {
    let output = host.output(&[&["workspace", "clean"], options].concat());
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}
