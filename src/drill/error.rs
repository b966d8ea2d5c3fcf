//! Why a drill could not be held.

use std::io;

use crate::db::embedded::EmbeddedError;
use crate::db::{DbError, InvalidTarget, MigrateError};

/// Nothing was proven, neither way.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DrillError {
    /// The throw-away database does not serve: mend that first.
    #[error(transparent)]
    Db(#[from] DbError),
    /// The same, when its tables were made.
    #[error(transparent)]
    Migrate(#[from] MigrateError),
    /// The private PostgreSQL cannot be had.
    #[error(transparent)]
    Embedded(#[from] EmbeddedError),
    /// The connection string was refused.
    #[error(transparent)]
    Target(#[from] InvalidTarget),
    /// This machine refuses something.
    #[error("{step}: {error}")]
    Machine { step: String, error: io::Error },
    /// A node does not start: its log says why.
    #[error("the fleet does not begin to work: {0}")]
    Fleet(String),
}

impl DrillError {
    /// For `map_err`: what was attempted.
    pub(super) fn at(step: impl Into<String>) -> impl FnOnce(io::Error) -> DrillError {
        let step = step.into();
        move |error| DrillError::Machine { step, error }
    }
}
