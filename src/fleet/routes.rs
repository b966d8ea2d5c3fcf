//! What there is to be asked for, and what is answered.

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;

use super::View;
use crate::http::routes::METRICS_TYPE;

/// Whom to scrape: every node can tell.
pub(crate) fn discovery(view: Arc<View>) -> Router {
    Router::new().route("/sd", get(sd)).with_state(view)
}

/// The numbers of the whole fleet: one process, or two, are enough.
pub(crate) fn of_fleet(view: Arc<View>) -> Router {
    Router::new().route("/metrics/fleet", get(metrics)).with_state(view)
}

async fn sd(State(view): State<Arc<View>>) -> Response {
    match view.targets().await {
        Ok(json) => ([(header::CONTENT_TYPE, "application/json")], json).into_response(),
        // Prometheus goes on with the list that it had.
        Err(reason) => (StatusCode::SERVICE_UNAVAILABLE, format!("no node was seen yet: {reason}\n")).into_response(),
    }
}

/// Answered also while the database is away: what is old says so itself, and is better than nothing.
async fn metrics(State(view): State<Arc<View>>) -> Response {
    ([(header::CONTENT_TYPE, METRICS_TYPE)], view.page().await).into_response()
}
