//! How tests fared before somebody changed something, so that what fails behind it can be told from what failed already.
//!
//! A baseline is what a test command reported in JUnit XML at one commit, kept in the folder of a run. It promises no more than the
//! report says: a test is known by its name, so one that was renamed is one that is missing and a new one.
//!
//! ```text
//! capture: a clean worktree → the command → reports → Results → store        diff: store, store → Difference
//! ```

mod command;
mod difference;
mod junit;
mod report;
mod results;
mod store;

pub(crate) use command::{Ending, Trial, sweep};
pub(crate) use difference::{Change, Difference};
pub(crate) use report::{ReportError, moment_behind_all, read};
pub(crate) use results::{Outcome, Results};
pub(crate) use store::{Baseline, Baselines, StoreError};
