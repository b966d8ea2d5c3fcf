//! What a process counts of itself, for Prometheus.
//!
//! [`catalogue`] is the one table of all metrics. Nothing here knows what is counted, or why; nothing outside says a name.

pub(crate) mod catalogue;
mod document;

pub(crate) use document::document;
