//! Why there is no embedded server, as sentences that name the path and the remedy.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Why the embedded server could not be found, made, started or stopped, and what to do about it. Trying again without
/// doing so helps only after [`EmbeddedError::Busy`].
#[derive(Debug, thiserror::Error)]
pub enum EmbeddedError {
    /// PostgreSQL is not installed, or not where it usually is: install it.
    #[error(
        "no PostgreSQL server found (postgres, initdb and pg_ctl in one folder). Install it: \
         `apt-get install postgresql` (Debian, Ubuntu), `dnf install postgresql-server` (Fedora), \
         `brew install postgresql@17` (macOS); or set SYSTOLE_POSTGRES_BIN to the folder it is in"
    )]
    NotInstalled,
    /// Nobody said where the cluster is to live: say it.
    #[error(
        "no home folder for the embedded database: HOME is unset or not absolute. Set SYSTOLE_EMBEDDED_DIR to a folder \
         for it"
    )]
    NoHome,
    /// PostgreSQL refuses to run as root, and there is nobody else to run it as: make a user.
    #[error(
        "PostgreSQL refuses to run as root, and there is no user `postgres` in /etc/passwd to run it as. Make one \
         (`useradd --system --shell /usr/sbin/nologin postgres`), or run systole as a normal user"
    )]
    NoAccount,
    /// A folder of programs or of data is not what it must be: correct it, or choose another one.
    #[error("{path}: {problem}")]
    Unusable {
        /// The path in question.
        path: PathBuf,
        /// What is wrong with it, and what to do.
        problem: String,
    },
    /// The system refused a step: make room or give permission, or choose another folder.
    #[error(
        "cannot {step} {path}: {error}. The embedded database needs a writable folder with some 100 MB of space; \
         SYSTOLE_EMBEDDED_DIR chooses another one"
    )]
    Io {
        /// What was attempted, as a verb.
        step: &'static str,
        /// On what.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// Another process has been making, starting or stopping the cluster for too long: try again, or end it.
    #[error(
        "another systole has been holding {lock} for {after:?}, to make, start or stop the embedded database. \
         `fuser {lock}` shows which one; try again when it has ended"
    )]
    Busy {
        /// The lock file.
        lock: PathBuf,
        /// How long we waited.
        after: Duration,
    },
    /// A program of PostgreSQL failed: its last words say why.
    #[error(
        "{program} failed in {dir}:\n{output}\nIf the disk is full or the folder is not to your liking, \
         SYSTOLE_EMBEDDED_DIR chooses another one"
    )]
    Program {
        /// Which one.
        program: &'static str,
        /// Where.
        dir: PathBuf,
        /// The end of what it printed.
        output: String,
    },
    /// The server did not come up, cannot be reached or does not end: its log says why.
    #[error("the embedded PostgreSQL in {dir} {problem}")]
    Server {
        /// The folder of the cluster.
        dir: PathBuf,
        /// What it does not do, and its last words or what to do.
        problem: String,
    },
}

impl EmbeddedError {
    /// For `map_err`: what was attempted, and on what.
    pub(super) fn io(step: &'static str, path: &Path) -> impl FnOnce(io::Error) -> EmbeddedError {
        move |error| EmbeddedError::Io { step, path: path.to_owned(), error }
    }

    pub(super) fn unusable(path: &Path, problem: impl Into<String>) -> EmbeddedError {
        EmbeddedError::Unusable { path: path.to_owned(), problem: problem.into() }
    }
}

/// The last lines of a log or of a program's output: enough to see the cause.
pub(super) fn last_lines(text: &str) -> String {
    let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
    lines[lines.len().saturating_sub(12)..].join("\n")
}
