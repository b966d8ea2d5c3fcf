//! The dashboards, as code: what `grafana/dashboards/*.json` is generated from, by
//! `UPDATE=1 cargo test --test observability committed`.
//!
//! What holds for each of them is written once, in `board.rs`: a data source to choose, stable numbers of panels, UTC, links among
//! them, a description of each panel. Every series of the fleet is wrapped in `max by`, so that two exporters show what one shows.

mod board;
mod fleet;
mod node;
mod panel;
mod postgres;
mod run;

use serde_json::Value;

/// Each with the name of its file.
pub(crate) fn all() -> [(&'static str, Value); 4] {
    [("fleet", fleet::board()), ("run", run::board()), ("node", node::board()), ("postgres", postgres::board())]
}

/// A series of `/metrics/fleet`.
pub(crate) const F: &str = r#"job=~"$fleet_job""#;
/// A series of the chosen nodes' `/metrics`.
pub(crate) const N: &str = r#"job=~"$job",instance=~"$instance""#;

/// An expression with `{F}` and `{N}` for the labels that choose, and `{R}` for a range that a rate is taken over.
pub(crate) fn expand(expression: &str) -> String {
    expression.replace("<F>", F).replace("<N>", N).replace("<R>", "[$__rate_interval]")
}
