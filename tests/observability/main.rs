//! What people watch systole with: dashboards, rules, alerts, and the documents that name them. All of it is tried on a real
//! Prometheus and Alertmanager where they are installed.

#![allow(clippy::unwrap_used)] // it is a test

#[path = "../support/mod.rs"]
mod support;

/// The program's own table, not a copy of it.
#[allow(dead_code)]
#[path = "../../src/metrics/catalogue.rs"]
mod catalogue;

mod alerts;
mod dashboards;
mod generated;
mod history;
mod names;
mod queries;
mod ringing;
mod rules;
mod schema;
mod statements;
mod tools;
mod world;

use std::time::Duration;

const SOON: Duration = Duration::from_secs(30);
