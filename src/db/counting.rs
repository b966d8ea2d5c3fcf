//! What is counted of connections and of what goes through them.

use tokio_postgres::error::SqlState;

use super::error::DbError;
use super::target::Target;
use crate::metrics::{Family, Metrics};

impl Target {
    /// The same, with all that its connections do counted there, and the heartbeats of whoever holds leases by them.
    pub(crate) fn counted_by(mut self, metrics: Metrics) -> Target {
        self.direct = self.direct.map(|direct| Box::new(direct.counted_by(metrics.clone())));
        self.metrics = metrics;
        self
    }

    /// What is counted by.
    pub(crate) fn metrics(&self) -> &Metrics {
        &self.metrics
    }
}

/// A connection that is being tried. One that is given up has failed.
pub(super) struct Dial<'a> {
    metrics: &'a Metrics,
    result: &'static str,
}

impl<'a> Dial<'a> {
    pub(super) fn begin(metrics: &'a Metrics) -> Dial<'a> {
        Dial { metrics, result: "error" }
    }

    pub(super) fn succeeded(mut self) {
        self.result = "ok";
    }
}

impl Drop for Dial<'_> {
    fn drop(&mut self) {
        self.metrics.count(Family::DbDials, [self.result]);
    }
}

/// Counts a call of the database by how it went; `code` is what the server called its refusal.
pub(super) fn called<T>(metrics: &Metrics, outcome: &Result<T, DbError>, code: Option<&SqlState>) {
    let class = outcome.as_ref().err().map(|error| class(error, code.map(SqlState::code)));
    if let Some(class) = class {
        metrics.count(Family::DbErrors, [class]);
    }
    let is_away = matches!(class, Some("connection" | "timeout"));
    metrics.set(Family::DbUp, [], if is_away { 0.0 } else { 1.0 });
}

fn class(error: &DbError, code: Option<&str>) -> &'static str {
    match (error, code.unwrap_or_default()) {
        (DbError::Timeout { .. }, _) | (_, "57014") => "timeout",
        (_, code) if code.starts_with("40") || code == "55P03" => "serialization",
        (_, code) if code.starts_with("23") => "constraint",
        (
            DbError::TooOld { .. } | DbError::NotMigrated { .. } | DbError::Denied { .. } | DbError::Statement { .. },
            _,
        ) => "other",
        (
            DbError::Unreachable { .. }
            | DbError::Broken { .. }
            | DbError::Unavailable { .. }
            | DbError::Refused { .. }
            | DbError::Untrusted { .. }
            | DbError::Unprepared { .. }
            | DbError::ReadOnly { .. }
            | DbError::Outdated { .. },
            _,
        ) => "connection",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_nobody_answers_means_that_the_database_is_away() {
        let metrics = Metrics::of_node(&[]);
        let target = || "x".to_owned();
        let told = |error: DbError, code: Option<SqlState>| {
            called(&metrics, &Err::<(), _>(error), code.as_ref());
            let text = metrics.text();
            text.lines().find_map(|line| line.strip_prefix("systole_db_up ")).map(str::to_owned).unwrap()
        };
        let unavailable = || DbError::Unavailable { target: target(), message: String::new() };
        assert_eq!(told(DbError::Unreachable { target: target(), reason: String::new() }, None), "0");
        assert_eq!(told(unavailable(), Some(SqlState::T_R_DEADLOCK_DETECTED)), "1");
        assert_eq!(told(unavailable(), Some(SqlState::CANNOT_CONNECT_NOW)), "0");
        assert_eq!(told(DbError::Denied { target: target(), message: String::new() }, None), "1");
        for (class, count) in [("connection", 2), ("serialization", 1), ("other", 1), ("timeout", 0)] {
            let line = format!("systole_db_errors_total{{class=\"{class}\"}} {count}\n");
            assert!(metrics.text().contains(&line), "{line}");
        }
    }
}
