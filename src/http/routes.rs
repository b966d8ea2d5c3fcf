//! What there is to be asked for, and what is answered.

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Extension, Router};
use std::time::Duration;
use tokio::sync::watch;

use super::gate::Admission;
use crate::elapsed::Instant;
use crate::metrics::Metrics;

/// What Prometheus expects of the text format.
pub(crate) const METRICS_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Whether a process takes up work, by its own last word on it.
#[derive(Debug, Clone)]
pub(crate) struct Readiness {
    /// Why not; `None` if it does.
    pub(crate) obstacle: Option<String>,
    /// When it said so.
    pub(crate) said_at: Instant,
    /// How long that is good for: whoever has not said anything for longer hangs.
    pub(crate) good_for: Duration,
}

impl Readiness {
    /// Why it is not ready at this moment.
    fn obstacle_at(&self, now: Instant) -> Option<String> {
        let age = now.since(self.said_at);
        let is_old = age > self.good_for;
        let old = || format!("this process has said nothing of itself for {} s", age.as_secs());
        self.obstacle.clone().or_else(|| is_old.then(old))
    }
}

/// That this is answered is the answer.
pub(crate) fn alive() -> Router {
    Router::new().route("/livez", get(async || "alive\n"))
}

/// Those of every node.
pub(crate) fn of_node(metrics: Metrics, readiness: watch::Receiver<Readiness>) -> Router {
    let metrics = get(|State(metrics): State<Metrics>| async move {
        ([(header::CONTENT_TYPE, METRICS_TYPE)], metrics.text()).into_response()
    })
    .with_state(metrics);
    alive().route("/readyz", get(ready).with_state(readiness)).route("/metrics", metrics)
}

async fn ready(
    State(readiness): State<watch::Receiver<Readiness>>,
    Extension(caller): Extension<Admission>,
) -> Response {
    let obstacle = readiness.borrow().obstacle_at(Instant::now());
    match (obstacle, caller) {
        (None, _) => "ready\n".into_response(),
        (Some(reason), Admission::Known) => {
            (StatusCode::SERVICE_UNAVAILABLE, format!("not ready: {reason}\n")).into_response()
        }
        // The reason may name hosts and users.
        (Some(_), _) => (StatusCode::SERVICE_UNAVAILABLE, "not ready\n").into_response(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_old_word_is_none() {
        let at = |seconds: u64| Instant::from_nanos(seconds * 1_000_000_000);
        let said = Readiness { obstacle: None, said_at: at(100), good_for: Duration::from_secs(15) };
        assert_eq!(said.obstacle_at(at(115)), None);
        assert!(said.obstacle_at(at(116)).unwrap().contains("16 s"));
        let away = Readiness { obstacle: Some("the database is away".to_owned()), ..said };
        assert_eq!(away.obstacle_at(at(116)).unwrap(), "the database is away");
    }
}
