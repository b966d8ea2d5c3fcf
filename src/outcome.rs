//! How a tenure ends, in the words that the database, the certificates of death, JSON and the documents share.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// The states of an instance. RUNNING until it ends; an end is final.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum InstanceStatus {
    /// It holds its run.
    Running,
    /// Its command exited 0, or the program said so.
    Completed,
    /// Any other exit; or it could not be started.
    Failed,
    /// Its time was up.
    TimedOut,
    /// Stopped on request, or by Ctrl-C.
    Cancelled,
    /// Given back on purpose.
    Released,
    /// It died or fell silent.
    Crashed,
}

impl InstanceStatus {
    /// The word in the database, in JSON and in documents.
    pub fn as_str(self) -> &'static str {
        match self {
            InstanceStatus::Running => "RUNNING",
            InstanceStatus::Completed => "COMPLETED",
            InstanceStatus::Failed => "FAILED",
            InstanceStatus::TimedOut => "TIMED_OUT",
            InstanceStatus::Cancelled => "CANCELLED",
            InstanceStatus::Released => "RELEASED",
            InstanceStatus::Crashed => "CRASHED",
        }
    }
}

/// How we know of a crash.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    /// A certificate of death: its tree was seen to be empty.
    Proof,
    /// Silent past its stale_after.
    Stale,
    /// Revoked by an operator.
    Forced,
    /// Its guard was lost, so its supervisor killed it.
    GuardLost,
}

impl Cause {
    /// The word in the database, in JSON and in documents.
    pub fn as_str(self) -> &'static str {
        match self {
            Cause::Proof => "proof",
            Cause::Stale => "stale",
            Cause::Forced => "forced",
            Cause::GuardLost => "guard_lost",
        }
    }
}

/// How an instance ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct End {
    /// Any status but RUNNING.
    pub status: InstanceStatus,
    /// The command's exit code, or 128 + n when signal n ended it; `None` where no command ran to an end.
    pub exit_code: Option<i32>,
    /// Set exactly when the status is CRASHED.
    pub cause: Option<Cause>,
    /// Anything worth keeping in the event.
    pub detail: Value,
}

impl End {
    /// An end without a command.
    pub fn of(status: InstanceStatus) -> End {
        End { status, exit_code: None, cause: None, detail: json!({}) }
    }
}
