//! What is to be done, and what became of it: a run, its attempts, its history, and the queue before it.

pub(crate) mod audit;
pub(crate) mod batch;
pub(crate) mod history;
pub(crate) mod queue;
pub(crate) mod store;
mod submission;
pub(crate) mod tally;

pub(crate) use store::{RevocationVerdict, StopVerdict};
pub(crate) use submission::Submission;
