//! What an audit has found, in memory that does not grow with the history.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use serde::{Serialize, Serializer};

use super::audit::{Takeover, Verdict, Violation};

/// So many are kept; the rest is counted.
const VIOLATIONS_MAX: usize = 1000;
const TAKEOVERS_MAX: usize = 10_000;

/// The answer of an audit, in the words of its JSON.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Tally {
    /// No violation.
    pub(crate) clean: bool,
    /// Only runs to which something has happened since, and their takeovers and refusals since; judged are they whole.
    pub(crate) since: Option<DateTime<Utc>>,
    pub(crate) runs: u64,
    pub(crate) tenures: u64,
    pub(crate) running: u64,
    pub(crate) violations_total: u64,
    pub(crate) takeovers_total: u64,
    /// Takeovers by --unsafe-now.
    pub(crate) unsafe_total: u64,
    pub(crate) refused_total: u64,
    /// How many claims were refused, by reason.
    pub(crate) refused: BTreeMap<String, u64>,
    /// The first of them.
    pub(crate) violations: Vec<Violation>,
    /// The newest of them, by time.
    #[serde(serialize_with = "values")]
    pub(crate) takeovers: BTreeMap<(DateTime<Utc>, i64), Takeover>,
}

impl Tally {
    /// Of what was since then, or of all there is.
    pub(crate) fn since(since: Option<DateTime<Utc>>) -> Tally {
        Tally { clean: true, since, ..Tally::default() }
    }

    /// Whether this moment is one of those asked for.
    pub(crate) fn covers(&self, at: DateTime<Utc>) -> bool {
        self.since.is_none_or(|since| at >= since)
    }

    pub(crate) fn add_takeover(&mut self, takeover: Takeover) {
        if !self.covers(takeover.at) {
            return;
        }
        self.takeovers_total += 1;
        self.unsafe_total += u64::from(takeover.two_may_have_worked);
        self.takeovers.insert((takeover.at, takeover.event_id), takeover);
        if self.takeovers.len() > TAKEOVERS_MAX {
            self.takeovers.pop_first();
        }
    }

    pub(crate) fn add_refusal(&mut self, at: DateTime<Utc>, reason: &str) {
        if self.covers(at) {
            self.refused_total += 1;
            *self.refused.entry(reason.to_owned()).or_default() += 1;
        }
    }

    pub(crate) fn add_run(&mut self, verdict: Verdict) {
        self.runs += 1;
        self.tenures += verdict.tenures;
        self.running += u64::from(verdict.is_running);
        self.violations_total += verdict.violations_total;
        self.clean &= verdict.violations_total == 0;
        let room = VIOLATIONS_MAX - self.violations.len();
        self.violations.extend(verdict.violations.into_iter().take(room));
    }
}

fn values<S: Serializer>(takeovers: &BTreeMap<(DateTime<Utc>, i64), Takeover>, to: S) -> Result<S::Ok, S::Error> {
    to.collect_seq(takeovers.values())
}

#[cfg(test)]
mod tests {
    use super::super::audit::Side;
    use super::*;

    fn takeover(n: i64) -> Takeover {
        let side = Side { executor_id: "1@h".to_owned(), instance_id: None, attempt: 1 };
        Takeover {
            event_id: n,
            at: DateTime::from_timestamp(n, 0).unwrap(),
            run_id: "r".to_owned(),
            from: side.clone(),
            to: side,
            cause: "stale".to_owned(),
            cleared_by: None,
            margin_seconds: Some(1.0),
            delay_seconds: 0.0,
            two_may_have_worked: n % 2 == 0,
        }
    }

    #[test]
    fn the_newest_takeovers_are_kept_and_all_are_counted() {
        let mut tally = Tally::since(DateTime::from_timestamp(10, 0));
        let count = TAKEOVERS_MAX as i64 + 50;
        // In an order that is not theirs.
        (0..count).map(|n| (n * 7919) % count).for_each(|n| tally.add_takeover(takeover(n)));
        assert_eq!((tally.takeovers_total, tally.takeovers.len()), (count as u64 - 10, TAKEOVERS_MAX));
        assert_eq!(tally.takeovers.values().next().unwrap().event_id, 50);
        assert_eq!(tally.unsafe_total, (count as u64 - 10) / 2);
    }

    #[test]
    fn what_was_refused_before_is_not_counted() {
        let mut tally = Tally::since(DateTime::from_timestamp(10, 0));
        (0..20).for_each(|n| tally.add_refusal(DateTime::from_timestamp(n, 0).unwrap(), "fresh"));
        assert_eq!((tally.refused_total, tally.refused["fresh"]), (10, 10));
    }
}
