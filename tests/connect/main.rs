//! The way to the database, tried against real servers: TLS in every mode, passwords and where they come from, several
//! servers of which some are dead, standbys, full or only reading, and what all that does to a command that is running.
//!
//! | file | about |
//! |---|---|
//! | `tls` | what a server proves: issuer, name, dates; and what is said where nobody asks for proof |
//! | `revocation` | certificates that were taken back |
//! | `versions` | how TLS begins |
//! | `clients` | what a client proves: certificates, passwords bound to the channel |
//! | `passwords` | passfiles, services, variables, and which of them counts |
//! | `rotation` | passwords that change under a running command |
//! | `addresses` | slow and silent ones, and several addresses of one name |
//! | `hosts` | several servers, silent ones, standbys, full ones |
//! | `failover` | a standby takes over under a running command |
//! | `trouble` | a server that only reads, rights that are taken away, an old snapshot |

#![allow(clippy::unwrap_used)] // it is a test

#[path = "../support/mod.rs"]
mod support;
// What is run here tells when it ran, as it does there.

mod addresses;
mod certificates;
mod clients;
mod failover;
mod hosts;
mod passwords;
mod revocation;
mod rotation;
mod server;
mod tls;
mod trouble;
mod versions;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Command, Output};
use std::time::Duration;

use support::{Database, Systole};

const SOON: Duration = Duration::from_secs(20);

/// What every role here logs in with, and nothing may ever print.
const PASSWORD: &str = "correct-horse-battery";

/// What stands where a password should, and nothing may print either.
const WRONG: &str = "incorrect-donkey";

/// A command that needs the database, and starts nothing.
const STATUS: [&str; 1] = ["status"];

/// A user of `database` with a home folder of his own, who connects by this string.
fn user(database: &Database, url: &str) -> Systole {
    let host = Systole::on(database).with("SYSTOLE_DATABASE_URL", url);
    let home = host.state.path().join("home");
    fs::create_dir(&home).unwrap();
    host.with("HOME", home.to_str().unwrap())
}

/// Writes a file of the user's, with this mode, and says where it is.
fn write(host: &Systole, name: &str, mode: u32, text: &str) -> PathBuf {
    let path = host.state.path().join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(&path, text).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
    path
}

/// The same user, as root of a namespace in which this file of the system's says something else; `None` if that cannot be
/// had here.
fn with_file(host: Systole, path: &str, text: &str) -> Option<Systole> {
    let tried = Command::new("unshare").args(["--map-root-user", "--mount", "true"]).output();
    if !tried.is_ok_and(|tried| tried.status.success()) {
        eprintln!("skipped: no namespace for another {path} can be made here");
        return None;
    }
    let other = write(&host, "other", 0o644, text);
    let script = format!("mount --bind {} {path} && exec \"$@\"", other.display());
    Some(host.through(&["unshare", "--map-root-user", "--mount", "sh", "-c", &script, "sh"]))
}

/// Everything on stderr.
fn told(output: &Output) -> String {
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    for secret in [PASSWORD, WRONG] {
        assert!(!told.contains(secret), "a password: {told}");
    }
    told
}

/// It did what was asked, and found nothing to say about it.
#[track_caller]
fn assert_good(output: &Output) {
    let told = told(output);
    assert_eq!((output.status.code(), told.as_str()), (Some(0), ""));
}

/// It failed with this code, in one sentence that holds these words.
#[track_caller]
fn assert_told(output: &Output, code: i32, words: &[&str]) {
    let told = told(output);
    assert_eq!(output.status.code(), Some(code), "{told}");
    assert!(told.starts_with("systole: ") && told.lines().count() == 1, "not one sentence: {told}");
    for word in words {
        assert!(told.contains(word), "{word:?} is not in: {told}");
    }
}
