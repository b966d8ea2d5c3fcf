//! Who is here to start what is queued: a node, what it can serve, and what it asks of the database.

mod catalogue;
mod claimer;
pub(crate) mod store;
mod worker;

pub(crate) use catalogue::Catalogue;
pub(crate) use claimer::Claimer;
pub use worker::{QueuedRun, Serving, Worker};
