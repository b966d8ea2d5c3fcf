//! Exit codes, and the one way in which a command fails: a code and a sentence.

use std::fmt;

use crate::anchor::NotAllowed;
use crate::attempt::AttemptError;
use crate::config::ConfigError;
use crate::db::embedded::EmbeddedError;
use crate::db::{DbError, InvalidTarget, MigrateError};
use crate::guard::GuardError;
use crate::http::DoorError;
use crate::ids::InvalidRunId;
use crate::instance::{AcquireError, ConnectError};
use crate::state_dir::StateDirError;
use crate::workspace::WorkspaceError;

/// The codes of `systole help exit-codes`. A command's own code is none of these by definition, only by habit.
pub(crate) mod code {
    pub(crate) const OK: u8 = 0;
    pub(crate) const TAKE_OVER_POSSIBLE: u8 = 10;
    pub(crate) const FINDINGS: u8 = 1;
    pub(crate) const USAGE: u8 = 64;
    pub(crate) const UNREACHABLE: u8 = 69;
    pub(crate) const BUG: u8 = 70;
    pub(crate) const HELD: u8 = 75;
    pub(crate) const LOST: u8 = 76;
    pub(crate) const NOT_ALLOWED: u8 = 77;
    pub(crate) const CONFIG: u8 = 78;
    pub(crate) const TIMED_OUT: u8 = 124;
}

/// What `systole help exit-codes` prints.
pub(crate) const EXPLAINED: &str = "\
Exit codes of systole run:
    the command's own code; 128 + n when signal n ended it
   75   another executor holds the run (also when --wait=DURATION ran out), or its --workspace
   76   the run was lost or fenced, and the command was stopped
   69   the database cannot be reached
   78   configuration, the schema of the database, or no worktree to be had
   64   usage
  124   the run's --timeout
  126   the command cannot be executed
  127   the command was not found
   70   a bug of systole

Exit codes of systole check:
    0   launch: nobody holds the run
   75   held: attach, or stop it first
   10   its holder is silent: a take-over is possible

Exit codes of systole supervise:
    0   all runs have completed
    1   one has ended in another way, or is left
   77   the anchor does not allow it, has expired, or names paths beyond which something was touched

systole baseline diff exits 1 on a regression, baseline capture 124 if its --timeout ran out.
systole anchor check exits 77 if the anchor does not allow it.
systole stop --wait and restart --wait exit 75 if the old attempt is not known to be over.
systole doctor exits 1 if it has found anything, systole audit if the history is not sound,
systole drill if a promise was broken.
The other commands use 0, 64, 69, 75 and 78 as above.
";

/// Why a command failed: its exit code, and a sentence that says what, with what value, and what next.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) code: u8,
    pub(crate) message: String,
}

impl Failure {
    pub(crate) fn new(code: u8, message: impl fmt::Display) -> Failure {
        Failure { code, message: message.to_string() }
    }
}

impl From<NotAllowed> for Failure {
    fn from(error: NotAllowed) -> Failure {
        Failure::new(code::NOT_ALLOWED, error)
    }
}

impl From<DbError> for Failure {
    fn from(error: DbError) -> Failure {
        let code = match error {
            DbError::Unreachable { .. }
            | DbError::Broken { .. }
            | DbError::Timeout { .. }
            | DbError::Unavailable { .. }
            | DbError::ReadOnly { .. }
            | DbError::Outdated { .. } => code::UNREACHABLE,
            DbError::Refused { .. }
            | DbError::Untrusted { .. }
            | DbError::Unprepared { .. }
            | DbError::TooOld { .. }
            | DbError::NotMigrated { .. }
            | DbError::Denied { .. } => code::CONFIG,
            DbError::Statement { .. } => code::BUG,
        };
        // A value that the server refuses is the user's, not a bug of ours.
        let code = if matches!(&error, DbError::Statement { code, .. } if code.starts_with("22")) {
            code::CONFIG
        } else {
            code
        };
        Failure::new(code, error)
    }
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Failure {
        Failure::new(code::CONFIG, error)
    }
}

impl From<InvalidTarget> for Failure {
    fn from(error: InvalidTarget) -> Failure {
        Failure::new(code::CONFIG, error)
    }
}

impl From<StateDirError> for Failure {
    fn from(error: StateDirError) -> Failure {
        Failure::new(code::CONFIG, error)
    }
}

impl From<EmbeddedError> for Failure {
    fn from(error: EmbeddedError) -> Failure {
        Failure::new(code::CONFIG, error)
    }
}

impl From<DoorError> for Failure {
    fn from(error: DoorError) -> Failure {
        Failure::new(code::CONFIG, error)
    }
}

impl From<WorkspaceError> for Failure {
    fn from(error: WorkspaceError) -> Failure {
        let code = if matches!(error, WorkspaceError::Held { .. }) { code::HELD } else { code::CONFIG };
        Failure::new(code, error)
    }
}

impl From<InvalidRunId> for Failure {
    fn from(error: InvalidRunId) -> Failure {
        Failure::new(code::USAGE, error)
    }
}

impl From<MigrateError> for Failure {
    fn from(error: MigrateError) -> Failure {
        match error {
            MigrateError::Db(error) => error.into(),
            other => Failure::new(code::CONFIG, other),
        }
    }
}

impl From<ConnectError> for Failure {
    fn from(error: ConnectError) -> Failure {
        match error {
            ConnectError::Db(error) => error.into(),
            ConnectError::Thread(_) => Failure::new(code::BUG, error),
            ConnectError::Target(_) | ConnectError::Timing(_) => Failure::new(code::CONFIG, error),
        }
    }
}

impl From<AttemptError> for Failure {
    fn from(error: AttemptError) -> Failure {
        match error {
            AttemptError::Connect(error) => error.into(),
            AttemptError::Db(error) | AttemptError::Acquire(AcquireError::Db(error)) => error.into(),
            AttemptError::State(error) => error.into(),
            AttemptError::Acquire(AcquireError::Unacknowledged { ref trouble, .. }) => {
                let code = trouble.clone().map_or(code::UNREACHABLE, |trouble| Failure::from(trouble).code);
                Failure::new(code, error)
            }
            AttemptError::LeftBehind { .. } => Failure::new(code::UNREACHABLE, error),
            AttemptError::Acquire(AcquireError::LostAtOnce) => Failure::new(code::LOST, error),
            AttemptError::Guard(GuardError::Unready(_)) => Failure::new(code::CONFIG, error),
            other => Failure::new(code::BUG, other),
        }
    }
}
