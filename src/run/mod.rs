//! What is to be done, and what became of it: a run, its attempts, its history.

pub(crate) mod store;

pub(crate) use store::{RevocationVerdict, StopVerdict};
