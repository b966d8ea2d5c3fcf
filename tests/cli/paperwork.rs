//! Completions and man pages are made from the commands as they are.

use std::io::Write;
use std::process::{Command, Stdio};

use crate::expect;
use crate::support::{Database, Systole};

#[test]
fn completions_are_scripts_of_their_shells() {
    let host = Systole::on(&Database::new());
    for shell in ["bash", "zsh", "fish"] {
        let output = host.output(&["completions", shell]);
        assert_eq!(output.status.code(), Some(0));
        let script = String::from_utf8(output.stdout).unwrap();
        assert!(script.contains("takeover") && script.contains("heartbeat-interval"), "{shell}");
    }
    let script = host.output(&["completions", "bash"]).stdout;
    let mut bash = Command::new("bash").arg("-n").stdin(Stdio::piped()).spawn().unwrap();
    bash.stdin.take().unwrap().write_all(&script).unwrap();
    assert!(bash.wait().unwrap().success());
    assert_eq!(host.output(&["completions", "cmd.exe"]).status.code(), Some(64));
}

#[test]
fn there_is_a_man_page_for_every_command() {
    let host = Systole::on(&Database::new());
    let folder = host.state.path().join("man1");
    std::fs::create_dir(&folder).unwrap();
    assert_eq!(host.output(&["man", folder.to_str().unwrap()]).status.code(), Some(0));
    for page in ["systole.1", "systole-run.1", "systole-takeover.1", "systole-embedded-start.1"] {
        let text = std::fs::read_to_string(folder.join(page)).unwrap();
        assert!(text.contains(".TH systole"), "{page}");
    }
    expect(&host.output(&["man", "/nonexistent"]), 64, &["/nonexistent"]);
}
