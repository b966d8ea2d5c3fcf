//! The folder of a host's certificates and locks: its owner's alone, never through a link, and with no name from outside.

use std::os::unix::fs::{FileTypeExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use rustix::process::Signal;

use super::support::process::through;
use super::support::{Database, Running, Systole, eventually};
use super::{SOON, expect};

/// Everything below a folder, with it.
fn walk(path: &Path) -> Vec<PathBuf> {
    let mut all = vec![path.to_owned()];
    let is_folder = std::fs::symlink_metadata(path).is_ok_and(|found| found.is_dir());
    for entry in is_folder.then(|| std::fs::read_dir(path).unwrap()).into_iter().flatten().flatten() {
        all.extend(walk(&entry.path()));
    }
    all
}

/// What somebody else would like to have written over.
fn victim(host: &Systole) -> PathBuf {
    let victim = host.state.path().join("victim");
    std::fs::write(&victim, "precious\n").unwrap();
    victim
}

fn is_unharmed(victim: &Path) -> bool {
    std::fs::read_to_string(victim).unwrap() == "precious\n"
}

#[test]
fn all_that_is_made_is_private_whatever_the_umask() {
    let host = Systole::on(&Database::new());
    let command = host.command(&["run", "r", "--", "sh", "-c", "umask; echo ready; exec sleep 1000"]);
    let mut run = Running::start(through("sh", &["-c", "umask 0; exec \"$0\" \"$@\""], &command));
    run.wait_for_output("ready");
    let (mut folders, mut files, mut sockets) = (0, 0, 0);
    for path in walk(&host.state.path().join("state")) {
        let found = std::fs::symlink_metadata(&path).unwrap();
        let mode = found.permissions().mode() & 0o777;
        if found.is_dir() {
            folders += 1;
            assert_eq!(mode, 0o700, "{}", path.display());
        } else if found.file_type().is_socket() {
            // Whom it serves is decided by its folder.
            sockets += 1;
        } else {
            files += 1;
            assert_eq!(mode, 0o600, "{}", path.display());
        }
    }
    assert_eq!(
        (folders, files, sockets),
        (11, 3, 1),
        "instances, leases, locks, outbox with a history, sockets, workspaces, worktrees, runs with this one; a certificate, a lock, a name"
    );
    // The command's own files are its own business.
    assert!(run.output().starts_with("0000\n"), "{}", run.output());
    expect(&host.output(&["stop", "r", "--wait"]), 0, &[]);
    assert_eq!(run.code(SOON), 143);
}

#[test]
fn a_link_in_place_of_a_folder_is_refused_by_name() {
    for name in ["state", "state/instances", "state/locks", "state/sockets"] {
        let host = Systole::on(&Database::new());
        let elsewhere = host.state.path().join("elsewhere");
        std::fs::create_dir(&elsewhere).unwrap();
        if name != "state" {
            std::fs::create_dir(host.state.path().join("state")).unwrap();
        }
        symlink(&elsewhere, host.state.path().join(name)).unwrap();
        let remedy = ["not a folder (a link to one is not followed)", "SYSTOLE_STATE_DIR", name];
        expect(&host.output(&["run", "r", "--", "true"]), 78, &remedy);
        assert_eq!(walk(&elsewhere).len(), 1, "something was written through {name}");
    }
}

#[test]
fn a_link_in_place_of_a_lock_is_not_followed_and_not_missed() {
    let host = Systole::on(&Database::new());
    let locks = host.state.path().join("state/locks");
    let mut run = host.start_run("r", "exec sleep 1000");
    let name = std::fs::read_dir(&locks).unwrap().next().unwrap().unwrap().path();
    expect(&host.output(&["stop", "r", "--wait"]), 0, &[]);
    assert_eq!(run.code(SOON), 143);
    assert!(!name.exists(), "its lock was left behind");

    let victim = victim(&host);
    symlink(&victim, &name).unwrap();
    expect(&host.output(&["run", "r", "--", "true"]), 0, &[]);
    assert!(is_unharmed(&victim));
}

/// While the database is away the lock is all there is, and whoever holds it is named by what stands in it.
#[test]
fn a_link_in_place_of_a_lock_is_not_read_either() {
    let database = Database::new();
    let url = database.url.replace(&format!("port={}", database.socket().1), "port=1");
    let away = Systole::on(&database).with("SYSTOLE_DATABASE_URL", &url);
    let locks = away.state.path().join("state/locks");
    let mut waiter = away.start(&["run", "r", "--wait", "--", "true"]);
    let name = eventually("its lock", SOON, || Some(std::fs::read_dir(&locks).ok()?.next()?.ok()?.path()));
    waiter.signal(Signal::TERM);
    waiter.wait(SOON);
    let victim = victim(&away);
    symlink(&victim, &name).unwrap();
    // As if somebody held it.
    let held = std::fs::File::open(&victim).unwrap();
    held.lock().unwrap();
    let text = expect(&away.output(&["run", "r", "--", "true"]), 69, &["cannot be reached"]);
    assert!(!text.contains("precious"), "{text}");
    assert!(is_unharmed(&victim));
}

#[test]
fn what_else_lies_among_the_certificates_is_left_alone() {
    let host = Systole::on(&Database::new());
    expect(&host.output(&["run", "r", "--", "true"]), 0, &[]);
    let victim = victim(&host);
    let planted = ["0190a6c1-7000-7000-8000-000000000001", "0190a6c1-7000-7000-8000-000000000002", "README", ".hidden"]
        .map(|name| host.instances().join(name));
    symlink(&victim, &planted[0]).unwrap();
    let made = std::process::Command::new("mkfifo").arg(&planted[1]).status().unwrap();
    assert!(made.success());
    std::fs::create_dir(&planted[2]).unwrap();
    std::fs::write(&planted[3], [0xff, 0, b'\n', b'{']).unwrap();
    let mut run = host.start(&["run", "r", "--", "true"]);
    assert_eq!(run.code(SOON), 0, "{}", run.errors());
    assert!(is_unharmed(&victim));
    for path in &planted {
        assert!(std::fs::symlink_metadata(path).is_ok(), "{} is gone", path.display());
    }
}

#[test]
fn no_name_of_a_run_becomes_one_of_a_file() {
    let host = Systole::on(&Database::new());
    // All that an id may hold, and that a shell, a path or a log would stumble over.
    let ids = ["a..b", "n@me:9.._x-", &"9".repeat(200)];
    for id in ids {
        let mut run = host.start_run(id, "exec sleep 1000");
        for path in walk(&host.state.path().join("state")) {
            assert!(!path.to_str().unwrap().contains(id), "{}", path.display());
        }
        expect(&host.output(&["stop", id, "--wait"]), 0, &[]);
        assert_eq!(run.code(SOON), 143, "{}", run.errors());
    }
    let before = walk(host.state.path()).len();
    for id in ["../x", "..", ".", "/etc/x", "a/b", "a\\b", "~", "$(id)", "-x"] {
        for arguments in
            [&["run", "--", id, "true"] as &[&str], &["takeover", "--force", "--", id], &["stop", "--", id]]
        {
            assert_eq!(host.output(arguments).status.code(), Some(64), "{arguments:?}");
        }
    }
    assert_eq!(walk(host.state.path()).len(), before);
}
