//! What a process counts of itself, for Prometheus.
//!
//! [`catalogue`] is the one table of all metrics; [`Metrics`] is what is counted by. Nothing here knows what is counted, or why;
//! nothing outside says a name.

pub(crate) mod catalogue;
mod document;
mod registry;

pub(crate) use catalogue::{Family, route_label, statement_label};
pub(crate) use document::document;
pub(crate) use registry::Metrics;
