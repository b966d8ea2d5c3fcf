//! Why there is no embedded server, as sentences that name the path and the remedy.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Why the embedded server could not be found, made, started or stopped. Every message says what to do next; trying
/// again without doing so helps only after [`EmbeddedError::Busy`].
#[derive(Debug, thiserror::Error)]
pub enum EmbeddedError {
    /// PostgreSQL is not installed, or not where it usually is: install it.
    #[error(
        "no PostgreSQL server found (postgres, initdb and pg_ctl in one folder). Install it: \
         `apt-get install postgresql` (Debian, Ubuntu), `dnf install postgresql-server` (Fedora), \
         `brew install postgresql@17` (macOS); or set SYSTOLE_POSTGRES_BIN to the folder it is in"
    )]
    NoBinaries,
    /// The folder that was asked for holds no usable server: correct the variable.
    #[error(
        "SYSTOLE_POSTGRES_BIN is {dir:?}, but there is no executable {missing} in it. Set it to the folder that holds \
         postgres, initdb and pg_ctl, or unset it"
    )]
    WrongBinaries {
        /// What the variable says.
        dir: PathBuf,
        /// The first program that is not there.
        missing: &'static str,
    },
    /// The data folder was made by another major version, which alone can read it.
    #[error(
        "{data} was made by PostgreSQL {made_by}, but {bin} is PostgreSQL {found}. Set SYSTOLE_POSTGRES_BIN to the bin \
         folder of PostgreSQL {made_by}, or remove {dir} to begin anew (its runs are lost)"
    )]
    OtherVersion {
        /// The data folder.
        data: PathBuf,
        /// The whole folder of the cluster.
        dir: PathBuf,
        /// The major version in the data folder.
        made_by: String,
        /// The binaries that were found.
        bin: PathBuf,
        /// Their major version.
        found: String,
    },
    /// Nobody said where the cluster is to live.
    #[error(
        "no home folder for the embedded database: HOME is unset or not absolute. Set SYSTOLE_EMBEDDED_DIR to a folder \
         for it"
    )]
    NoHome,
    /// PostgreSQL refuses to run as root, and there is nobody else to run it as.
    #[error(
        "PostgreSQL refuses to run as root, and there is no user `postgres` in /etc/passwd to run it as. Make one \
         (`useradd --system --shell /usr/sbin/nologin postgres`), or run systole as a normal user"
    )]
    NoAccount,
    /// A path is not what it must be; nothing was changed.
    #[error("{path}: {problem}")]
    Folder {
        /// The path in question.
        path: PathBuf,
        /// What is wrong with it, and what to do.
        problem: String,
    },
    /// The system refused a step.
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
    /// A program of PostgreSQL failed; its last words are in the message.
    #[error(
        "{program} failed in {dir}:\n{output}\nIf the disk is full or the folder is not to your liking, \
         SYSTOLE_EMBEDDED_DIR chooses another one"
    )]
    Program {
        /// Which one.
        program: &'static str,
        /// The folder of the cluster.
        dir: PathBuf,
        /// The end of what it printed.
        output: String,
    },
    /// The server did not come up; the last lines of its log are in the message.
    #[error("the embedded PostgreSQL in {dir} did not start within {bound:?}; its last words, in server.log:\n{tail}")]
    NotStarted {
        /// The folder of the cluster.
        dir: PathBuf,
        /// How long it was given at most.
        bound: Duration,
        /// The end of its log.
        tail: String,
    },
    /// The server runs, but it can neither be reached nor does it end.
    #[error(
        "the embedded PostgreSQL in {dir} runs as process {pid} but did not {expected} within {bound:?}. See \
         {dir}/server.log; `systole embedded stop` ends it, `kill -QUIT {pid}` does so at once"
    )]
    Stuck {
        /// The folder of the cluster.
        dir: PathBuf,
        /// Its process id.
        pid: i32,
        /// What it should have done.
        expected: &'static str,
        /// How long it was given.
        bound: Duration,
    },
}

impl EmbeddedError {
    /// For `map_err`: what was attempted, and on what.
    pub(super) fn io(step: &'static str, path: &Path) -> impl FnOnce(io::Error) -> EmbeddedError {
        move |error| EmbeddedError::Io { step, path: path.to_owned(), error }
    }

    pub(super) fn folder(path: &Path, problem: impl Into<String>) -> EmbeddedError {
        EmbeddedError::Folder { path: path.to_owned(), problem: problem.into() }
    }
}

/// The last lines of a log or of a program's output: enough to see the cause.
pub(super) fn last_lines(text: &str) -> String {
    let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
    lines[lines.len().saturating_sub(12)..].join("\n")
}
