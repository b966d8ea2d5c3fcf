//! One folder, one run at a time, whatever the folder is called.

use rustix::process::Signal;

use crate::support::{Running, Systole};
use crate::{SOON, host};

fn hold(host: &Systole, folder: &str) -> Running {
    let script = "pwd; echo $SYSTOLE_WORKSPACE; echo ready; sleep 600";
    let running = host.start(&["run", "first", "--workspace", folder, "--", "sh", "-c", script]);
    running.wait_for_output("ready");
    running
}

#[track_caller]
fn is_refused(host: &Systole, folder: &str) {
    let output = host.output(&["run", "second", "--workspace", folder, "--", "true"]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(75), "{said}");
    assert!(said.contains("run \"first\" attempt 1") && said.contains("in use by executor"), "{said}");
}

#[test]
fn a_symlink_is_no_other_folder_and_a_dead_holder_lets_go() {
    let (database, host) = host();
    let root = host.state.path();
    std::fs::create_dir(root.join("folder")).unwrap();
    std::os::unix::fs::symlink("folder", root.join("link")).unwrap();
    let mut running = hold(&host, "link");
    let real = root.join("folder").canonicalize().unwrap().display().to_string();
    assert_eq!(running.output(), format!("{real}\n{real}\nready\n"));
    for name in ["folder", "link", "./folder/../link", &real] {
        is_refused(&host, name);
    }
    // What had no place was not an attempt of the user's.
    assert_eq!(
        database.value("SELECT DISTINCT status FROM systole.executor_instances WHERE run_id = 'second'"),
        "RELEASED"
    );
    running.signal(Signal::KILL);
    running.wait(SOON);
    let output = host.output(&["run", "second", "--workspace", "folder", "--", "true"]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
}

#[test]
fn a_bind_mount_is_no_other_folder() {
    if !crate::support::is_root() {
        return;
    }
    let (_database, host) = host();
    let root = host.state.path();
    for name in ["folder", "mounted"] {
        std::fs::create_dir(root.join(name)).unwrap();
    }
    let mut running = hold(&host, "folder");
    // In a mount namespace of its own, gone with it.
    let script = "mount --bind folder mounted && exec \"$@\"";
    let inside = host.clone().through(&["unshare", "--mount", "sh", "-c", script, "sh"]);
    is_refused(&inside, "mounted");
    running.signal(Signal::TERM);
    running.wait(SOON);
    let output = inside.output(&["run", "second", "--workspace", "mounted", "--", "true"]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
}
